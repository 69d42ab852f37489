package checkpoint

import (
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/tensor"
)

// oldVAEAttention are the names of the VAE's attention in files of diffusers before 0.18.
var oldVAEAttention = strings.NewReplacer(".to_q.", ".query.", ".to_k.", ".key.", ".to_v.", ".value.", ".to_out.0.", ".proj_attn.")

// diffusersNames returns the forms that a tensor's name takes in files with diffusers names: the text encoder with the text_model level
// and without (transformers 5), the VAE's attention under its new and its old name.
func diffusersNames(c arch.Component, name string) []string {
	names := []string{name}
	switch {
	case c == arch.TextEncoder:
		names = append(names, strings.TrimPrefix(name, "text_model."))
	case c == arch.VAE && strings.Contains(name, ".attentions."):
		names = append(names, oldVAEAttention.Replace(name))
	}
	return names
}

// ldmFinder returns a search for a component's tensors in a single file. Some old merged files lack the text_model level.
func ldmFinder(f *tensor.File, c arch.Component) func(arch.Param) (*tensor.File, string) {
	prefix := arch.LDMPrefix(c)
	return func(p arch.Param) (*tensor.File, string) {
		if name := prefix + p.LDM; f.Has(name) {
			return f, name
		}
		if name := prefix + strings.TrimPrefix(p.LDM, "text_model."); c == arch.TextEncoder && f.Has(name) {
			return f, name
		}
		return nil, ""
	}
}

// diffusersFinder returns a search for a component's tensors in the files of its folder. locate returns the file that has a name.
func diffusersFinder(c arch.Component, locate func(name string) *tensor.File) func(arch.Param) (*tensor.File, string) {
	return func(p arch.Param) (*tensor.File, string) {
		for _, name := range diffusersNames(c, p.Name) {
			if f := locate(name); f != nil {
				return f, name
			}
		}
		return nil, ""
	}
}
