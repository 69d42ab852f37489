package arch

// LDMPrefix returns what precedes a component's names in a single-file SD1.x checkpoint.
func LDMPrefix(c Component) string {
	switch c {
	case UNet:
		return "model.diffusion_model."
	case TextEncoder:
		return "cond_stage_model.transformer."
	case VAE:
		return "first_stage_model."
	}
	return ""
}

// Names translates the tensor names of one component between the schemes.
type Names struct {
	toLDM, fromLDM map[string]string
}

// NewNames makes the translation for the modules of a component.
func NewNames(c Component, modules []Module) Names {
	n := Names{make(map[string]string, 2*len(modules)), make(map[string]string, 2*len(modules))}
	for _, p := range Params(modules) {
		ldm := LDMPrefix(c) + p.LDM
		n.toLDM[p.Name], n.fromLDM[ldm] = ldm, p.Name
	}
	return n
}

// LDM returns the single-file name, prefix included, of the tensor that diffusers names name.
func (n Names) LDM(name string) (string, bool) { s, ok := n.toLDM[name]; return s, ok }

// Diffusers returns the diffusers name of the tensor with the single-file name ldm, prefix included.
func (n Names) Diffusers(ldm string) (string, bool) { s, ok := n.fromLDM[ldm]; return s, ok }
