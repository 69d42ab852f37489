// Package convert writes adapters and models in another form: other names, another element type, another algorithm, another container.
//
// A source is an open file, of safetensors or of torch; [Run] reads it, does what [Options] ask and writes a new one. What an adapter does is kept: renaming keeps every
// factor bit for bit and tells the scale where the other form keeps it; as a plain LoRA or as whole differences it acts the same, or the error is told. No tensor is left
// out without being named in the [Report].
//
// Start at [Run]. Names: internal/adapter (layers.go). Exact low-rank forms of other algorithms: internal/loose (pair.go).
package convert

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/loose"
	"lycoris/internal/pickle"
	"lycoris/internal/tensor"
)

// Forms are the values of [Options.To].
var Forms = []string{"kohya", "lycoris", "peft", "diffusers", "ldm", "lora", "full"}

// Options say what is converted and how.
type Options struct {
	In, Out string
	To      string            // one of Forms; empty: the form stays, container or element type change
	DType   tensor.DType      // Invalid: each tensor keeps its own
	Dim     int               // rank of a plain LoRA where there is no exact one, and the highest rank of an exact one; 0: exact only
	Base    string            // the model whose weights the algorithm depends on; may be empty
	Like    string            // a model as a diffusers folder: the folder whose configurations, tokenizers and scheduler it gets; may be empty
	Version string            // of the program, for the history
	Strip   bool              // leave out metadata but what a file means something else without
	Set     map[string]string // metadata that are set
	// Backend opens what computes changes; called at most once, when it is needed.
	Backend  func() (kernels.Backend, error)
	Progress func(done, total int) // may be nil
}

// Report is what was done.
type Report struct {
	Path       string             `json:"path"`
	Kind       string             `json:"kind"` // adapter, model, embedding
	Family     string             `json:"family,omitempty"`
	To         string             `json:"to,omitempty"`
	Tensors    int                `json:"tensors"`
	Modules    int                `json:"modules,omitempty"`
	Exact      int                `json:"exact,omitempty"`        // modules of a plain LoRA that act exactly as before
	Errors     map[string]float64 `json:"errors,omitempty"`       // of the other ones: ‖ΔW − ΔW'‖/‖ΔW‖ by name
	Worst      string             `json:"worst,omitempty"`        // the module of the largest error
	LeftOut    []string           `json:"left_out,omitempty"`     // tensors that have no place in the new form
	Embeddings []string           `json:"embeddings,omitempty"`   // bundled, kept
	Others     int                `json:"other_values,omitempty"` // values of a torch file that are no tensors
	Rest       []string           `json:"rest,omitempty"`         // tensors of a single file that its folder keeps beside its parts
	Missing    []string           `json:"missing,omitempty"`      // parts that the folder lacks because the file does
	Notes      []string           `json:"notes,omitempty"`        // what was settled on the way
}

// Run converts. Nothing is written before everything that headers tell was checked; the output is written all or nothing.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(o.In, "model_index.json")); err == nil {
		return o.model(ctx, &Report{Path: o.Out, To: o.To})
	}
	src, err := loose.Open(o.In)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	r := &Report{Path: o.Out, To: o.To, Tensors: len(src.Names())}
	if p, ok := src.(*pickle.File); ok {
		r.Others = p.Others
	}
	switch {
	case len(src.Names()) == 0:
		return nil, fault.BadInput(o.In, "holds no tensors").Advise("pass an adapter or a model: a .safetensors file")
	case adapter.IsAdapter(src.Names()):
		r.Kind = "adapter"
		if o.To != "peft" {
			if err := o.checkFile(); err != nil {
				return nil, err
			}
		}
		return r, o.adapter(ctx, src, r)
	case isEmbedding(src.Names()):
		r.Kind = "embedding"
	default:
		r.Kind = "model"
	}
	if r.Kind == "model" && (o.To == "diffusers" || o.To == "ldm") {
		if _, torch := src.(*pickle.File); torch {
			return nil, fault.BadInput(o.In, "is a PyTorch pickle; folders are made of .safetensors files").Advise("make one of it first: lycoris convert --in %q --out FILE.safetensors", o.In)
		}
		return o.model(ctx, r)
	}
	if o.To != "" {
		return nil, fault.BadInput(o.In, "is not an adapter, and the form %q is one of adapters", o.To).
			Advise("a model goes --to diffusers (a folder) or --to ldm (a single file); without --to its container or element type changes")
	}
	if err := o.checkFile(); err != nil {
		return nil, err
	}
	return r, o.copy(ctx, src)
}

// check settles what needs no file to be open.
func (o *Options) check() error {
	switch {
	case o.In == "":
		return fault.BadUsage("--in", "is missing").Advise("name the file to convert: --in FILE")
	case o.Out == "":
		return fault.BadUsage("--out", "is missing").Advise("name the file to write: --out FILE.safetensors")
	case o.To != "" && !slices.Contains(Forms, o.To):
		return fault.BadUsage("--to", "%q is not a form of adapters", o.To).Advise("there are: %s", strings.Join(Forms, ", "))
	case o.Dim < 0:
		return fault.BadUsage("--dim", "%d is not a rank: 1 or more", o.Dim)
	case o.Dim > 0 && o.To != "lora":
		return fault.BadUsage("--dim", "means something with --to lora only")
	case o.Like != "" && o.To != "diffusers":
		return fault.BadUsage("--like", "means something with --to diffusers only")
	case o.To != "diffusers" && o.To != "peft" && !o.file():
		return o.checkFile()
	}
	return o.checkSet()
}

// file reports whether the output is a file by its name; without the ending it is a folder.
func (o *Options) file() bool { return strings.EqualFold(filepath.Ext(o.Out), ".safetensors") }

// checkFile refuses a name for a file that isn't safetensors'.
func (o *Options) checkFile() error {
	if !o.file() {
		return fault.BadUsage("--out", "%q does not end in .safetensors", o.Out).Advise("that is the container that is written")
	}
	return nil
}

// model changes the container of a base model: a single file and a diffusers folder.
func (o *Options) model(ctx context.Context, r *Report) (*Report, error) {
	switch {
	case o.To == "diffusers" && o.file():
		return nil, fault.BadUsage("--out", "%q ends in .safetensors, and a model's diffusers form is a folder", o.Out).Advise("name a folder: --out %q", strings.TrimSuffix(o.Out, filepath.Ext(o.Out)))
	case o.To != "diffusers" && o.To != "ldm":
		return nil, fault.BadUsage("--to", "is missing or of adapters, and %q is a model's folder", o.In).Advise("make a single file of it: --to ldm")
	}
	if err := o.container(ctx, r); err != nil {
		return nil, err
	}
	return r, nil
}

func isEmbedding(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "string_to_param.") || n == "emb_params" })
}

// keep gives an embedding's tensor the name it has in safetensors files.
func keep(name string) string {
	if name == "string_to_param.*" {
		return "emb_params"
	}
	return name
}

// copy writes the tensors as they are, but for the element type. Tensors pass one at a time: a model never is in memory as a whole.
func (o *Options) copy(ctx context.Context, src loose.Source) error {
	meta := map[string]string{}
	for k, v := range src.Metadata() {
		if k != "modelspec.hash_sha256" && !strings.HasPrefix(k, "sshs_") || o.DType == tensor.Invalid {
			meta[k] = v
		}
	}
	var all []tensor.Lazy
	size, left := int64(0), len(src.Names())
	for i, name := range src.Names() {
		info, _ := src.Info(name)
		d := info.DType
		if o.DType != tensor.Invalid && d.IsFloat() && castable(name) {
			d = o.DType
		}
		size += int64(tensor.Elems(info.Shape)) * int64(d.Size())
		all = append(all, tensor.Lazy{Name: keep(name), DType: d, Shape: info.Shape, Data: func() ([]byte, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			t, err := src.Read(name)
			if err != nil {
				return nil, err
			}
			if left--; left == 0 { // the last one: before the output takes its name
				if err := unchanged(src); err != nil {
					return nil, err
				}
			}
			t, err = cast(o.In, name, t, d)
			o.progress(i+1, len(src.Names()))
			return t.Data, err
		}})
	}
	if err := tensor.CheckSpace(o.Out, size); err != nil {
		return err
	}
	if err := o.finish(meta); err != nil {
		return err
	}
	return tensor.WriteStream(o.Out, all, meta)
}

// unchanged returns an error if somebody wrote to the input since it was opened, where its container can tell.
func unchanged(src loose.Source) error {
	if f, ok := src.(interface{ Unchanged() error }); ok {
		return f.Unchanged()
	}
	return nil
}

func (o *Options) progress(done, total int) {
	if o.Progress != nil {
		o.Progress(done, total)
	}
}

// castable reports whether a tensor of a model changes its type with --dtype: the VAE (SDXL's overflows in half precision) and the schedule don't.
func castable(name string) bool {
	for _, p := range []string{"first_stage_model.", "vae.", "betas", "alphas_cumprod", "sqrt_", "log_one_minus", "posterior_", "denoiser.", "logvar", "v_pred", "ztsnr", "edm_"} {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	return true
}

// cast rounds t to d once; a finite value that d can't hold is an error.
func cast(path, name string, t tensor.Tensor, d tensor.DType) (tensor.Tensor, error) {
	if t.DType == d || !t.DType.IsFloat() {
		return t, nil
	}
	before, _ := t.NonFinite()
	t = tensor.FromFloat32(d, t.Shape, t.Float32())
	if after, first := t.NonFinite(); after > before {
		return t, fault.BadInput(path, "%d values of %q, one at index %d, are too large for %s", after-before, name, first, d).Advise("choose another type: --dtype bf16")
	}
	return t, nil
}
