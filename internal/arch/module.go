package arch

import "slices"

// Component is a part of a model, named as its folder in a diffusers model.
type Component string

// The components of an SD1.x model.
const (
	UNet        Component = "unet"
	TextEncoder Component = "text_encoder"
	VAE         Component = "vae"
)

// Components lists the components in the order of their prefixes in files.
var Components = []Component{UNet, TextEncoder, VAE}

// Kind is what a module computes.
type Kind uint8

// The kinds of modules that hold parameters.
const (
	Linear Kind = iota
	Conv2d
	GroupNorm
	LayerNorm
	Embedding
)

// String returns the PyTorch class name, as presets and tables name it.
func (k Kind) String() string {
	return [...]string{"Linear", "Conv2d", "GroupNorm", "LayerNorm", "Embedding"}[k]
}

// Module is a layer with parameters.
type Module struct {
	Path        string   // diffusers or transformers name, as in the package comment
	LDM         string   // name in a single-file checkpoint, without the component's prefix
	Kind        Kind     // own class
	Shape       []int    // of the weight: Linear [O,I], Conv2d [O,I,kh,kw], norms [C], Embedding [rows,D]
	Bias        bool     // has a bias, [O] or [C]
	Stride, Pad int      // Conv2d only; the VAE encoder's downsamplers pad (0,1) on each axis by themselves and have Pad 0
	Classes     []string // classes of the enclosing modules, outermost first, without lists: UNet2DConditionModel, CrossAttnDownBlock2D, …
}

// Param is one tensor of a module.
type Param struct {
	Name  string // Path + ".weight" or ".bias"
	LDM   string // the same in a single-file checkpoint, without the prefix
	Shape []int
}

// Params returns the module's tensors: the weight, then the bias where there is one.
func (m Module) Params() []Param {
	params := []Param{{m.Path + ".weight", m.LDM + ".weight", m.Shape}}
	if m.Bias {
		params = append(params, Param{m.Path + ".bias", m.LDM + ".bias", m.Shape[:1]})
	}
	return params
}

// ParamCount returns the number of parameters of m.
func (m Module) ParamCount() int {
	n := 1
	for _, d := range m.Shape {
		n *= d
	}
	if m.Bias {
		n += m.Shape[0]
	}
	return n
}

// Within reports whether a module of the class encloses m, or m is of the class itself.
func (m Module) Within(class string) bool {
	return m.Kind.String() == class || slices.Contains(m.Classes, class)
}

// Out and In return the output and input features (channels) of a Linear or Conv2d.
func (m Module) Out() int { return m.Shape[0] }

// In returns the input features or channels of a Linear or Conv2d.
func (m Module) In() int { return m.Shape[1] }

// Params returns the tensors of all modules, in order.
func Params(modules []Module) []Param {
	params := make([]Param, 0, 2*len(modules))
	for _, m := range modules {
		params = append(params, m.Params()...)
	}
	return params
}

// ParamCount returns the number of parameters of all modules.
func ParamCount(modules []Module) int {
	n := 0
	for _, m := range modules {
		n += m.ParamCount()
	}
	return n
}

// builder collects modules while a model is walked, keeping the two names and the classes of the place it is at.
type builder struct {
	modules []Module
	path    string   // with a trailing dot, or empty
	ldm     string   // same
	classes []string // of the enclosing modules
}

// in walks a child module: name and ldm are its names relative to the parent (ldm may be empty: the child has no level of its own
// there), class its class, or empty for a list.
func (b *builder) in(name, ldm, class string, walk func()) {
	path, old, classes := b.path, b.ldm, b.classes
	if name != "" {
		b.path += name + "."
	}
	if ldm != "" {
		b.ldm += ldm + "."
	}
	if class != "" {
		b.classes = append(slices.Clone(b.classes), class)
	}
	walk()
	b.path, b.ldm, b.classes = path, old, classes
}

func (b *builder) add(name, ldm string, m Module) {
	m.Path, m.LDM, m.Classes = b.path+name, b.ldm+ldm, b.classes
	b.modules = append(b.modules, m)
}

func (b *builder) linear(name, ldm string, out, in int, bias bool) {
	b.add(name, ldm, Module{Kind: Linear, Shape: []int{out, in}, Bias: bias})
}

func (b *builder) conv(name, ldm string, out, in, kernel, stride, pad int) {
	b.add(name, ldm, Module{Kind: Conv2d, Shape: []int{out, in, kernel, kernel}, Bias: true, Stride: stride, Pad: pad})
}

func (b *builder) groupNorm(name, ldm string, channels int) {
	b.add(name, ldm, Module{Kind: GroupNorm, Shape: []int{channels}, Bias: true})
}

func (b *builder) layerNorm(name, ldm string, width int) {
	b.add(name, ldm, Module{Kind: LayerNorm, Shape: []int{width}, Bias: true})
}

func (b *builder) embedding(name, ldm string, rows, width int) {
	b.add(name, ldm, Module{Kind: Embedding, Shape: []int{rows, width}})
}
