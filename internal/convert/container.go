package convert

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/checkpoint"
	"lycoris/internal/fault"
	"lycoris/internal/modelfile"
	"lycoris/internal/tensor"
)

// restFile is the file of a diffusers folder that holds what only a single file has a place for: diffusers doesn't look at it, and the way back takes it up again.
const restFile = "lycoris_rest.safetensors"

// vaePart is the VAE's folder.
const vaePart = string(arch.VAE)

// container carries a base model from one container to the other.
type container struct {
	o      *Options
	r      *Report
	model  *modelfile.Model
	vae    *modelfile.Model // of a folder; may be nil
	rest   *tensor.File     // likewise
	parts  map[string][]tensor.Lazy
	layers int // layers that SD2's text encoder keeps in a folder
	done   int
	bytes  int64
	ctx    context.Context
}

// container writes a single file as a diffusers folder, or the other way round.
func (o *Options) container(ctx context.Context, r *Report) (err error) {
	c := &container{o: o, r: r, parts: map[string][]tensor.Lazy{}, ctx: ctx}
	r.Kind = "model"
	if c.model, err = modelfile.Open(o.In); err != nil {
		return err
	}
	defer c.model.Close()
	r.Family = c.model.Family
	if o.To == "diffusers" {
		err = c.toFolder()
	} else {
		err = c.toFile()
	}
	if err != nil {
		return err
	}
	r.Tensors = c.total()
	return c.model.Unchanged()
}

// add puts a tensor into a part of the output: of a shape, of the element type asked for unless keep, with the bytes that read gives.
func (c *container) add(part, name string, info tensor.Info, shape []int, keep bool, read func() (tensor.Tensor, error)) {
	d := info.DType
	if c.o.DType != tensor.Invalid && d.IsFloat() && !keep {
		d = c.o.DType
	}
	c.bytes += int64(tensor.Elems(shape) * d.Size())
	c.parts[part] = append(c.parts[part], tensor.Lazy{Name: name, DType: d, Shape: shape, Data: func() ([]byte, error) {
		if err := c.ctx.Err(); err != nil {
			return nil, err
		}
		t, err := read()
		if err != nil {
			return nil, err
		}
		t.Shape = shape
		t, err = cast(c.o.In, name, t, d)
		c.done++
		c.o.progress(c.done, c.total())
		return t.Data, err
	}})
}

func (c *container) total() int {
	n := 0
	for _, list := range c.parts {
		n += len(list)
	}
	return n
}

// rows cuts rows out of a tensor.
func rows(t tensor.Tensor, from, to int) tensor.Tensor {
	if len(t.Shape) == 0 || t.Shape[0] == 0 {
		return t
	}
	row := len(t.Data) / t.Shape[0]
	t.Data, t.Shape = t.Data[from*row:to*row], append([]int{to - from}, t.Shape[1:]...)
	return t
}

// transposed returns a matrix with rows and columns exchanged, of any element type.
func transposed(t tensor.Tensor) tensor.Tensor {
	n, m, size := t.Shape[0], t.Shape[1], t.DType.Size()
	data := make([]byte, len(t.Data))
	for i := range n {
		for j := range m {
			copy(data[(j*n+i)*size:(j*n+i+1)*size], t.Data[(i*m+j)*size:])
		}
	}
	t.Data, t.Shape = data, []int{m, n}
	return t
}

// toFolder writes a single file as a diffusers folder.
func (c *container) toFolder() error {
	m := c.model
	if m.Folder {
		return fault.BadInput(c.o.In, "is a diffusers folder already").Advise("a single file is made of it with --to ldm")
	}
	if m.Channels == 5 {
		return fault.BadInput(c.o.In, "is a depth-to-image model, of which a folder also needs the depth estimator: not supported")
	}
	c.layers = keptLayers(m)
	f := m.Files()[0]
	vae, names, err := vaeOfFile(c.o.In, f.Raw())
	if err != nil {
		return err
	}
	for _, t := range f.Tensors {
		info, _ := f.Raw().Info(t.Name)
		read := func() (tensor.Tensor, error) { return m.Read(f, t.Name) }
		name, isVAE := names.Diffusers(t.Name)
		switch {
		case isVAE:
			c.add(vaePart, name, info, vaeShape(name, t.Shape, false), true, read)
		case t.Role == modelfile.Module && !c.beyond(t.Parts[0]):
			for _, p := range t.Parts {
				shape := append([]int{p.Rows[1] - p.Rows[0]}, t.Shape[1:]...)
				c.add(p.Component, p.Path+"."+p.Param, info, shape, false, func() (tensor.Tensor, error) {
					whole, err := read()
					return rows(whole, p.Rows[0], p.Rows[1]), err
				})
			}
		case t.Role == modelfile.EMA, t.Name == "model_ema.decay", t.Name == "model_ema.num_updates":
			c.r.LeftOut = append(c.r.LeftOut, t.Name)
		case t.Name == xlProjection && len(t.Shape) == 2:
			c.add(modelfile.TextEncoder2, "text_projection.weight", info, []int{t.Shape[1], t.Shape[0]}, false, func() (tensor.Tensor, error) {
				whole, err := read()
				if err != nil {
					return whole, err
				}
				return transposed(whole), nil
			})
		case t.Name == xlProjection+".weight": // as Playground's files have it: transformers' own
			c.add(modelfile.TextEncoder2, "text_projection.weight", info, t.Shape, false, read)
		default:
			c.add("", t.Name, info, t.Shape, true, read)
			c.r.Rest = append(c.r.Rest, t.Name)
		}
	}
	about, err := c.describe(vae)
	if err != nil {
		return err
	}
	return tensor.WriteFolder(c.o.Out, c.bytes, "model_index.json", func(temp string) error { return c.writeFolder(temp, about) })
}

// xlProjection is the projection of SDXL's second text encoder: x @ P where transformers' is a Linear, its transpose.
const xlProjection = "conditioner.embedders.1.model.text_projection"

// keptLayers returns how many layers the text encoder of a folder has: SD2 reads its last layer but one, and diffusers' folders lack the last (23 of 24); all others have all.
func keptLayers(m *modelfile.Model) int {
	n := 0
	for _, mod := range m.Modules(modelfile.TextEncoder) {
		if strings.HasSuffix(mod.Path, ".mlp.fc1") {
			n++
		}
	}
	if m.Family == modelfile.SD2 && !m.Folder && n != 23 {
		n--
	}
	return n
}

// beyond reports whether a module is in a layer that a folder of SD2 lacks.
func (c *container) beyond(p modelfile.Part) bool {
	return c.model.Family == modelfile.SD2 && p.Component == modelfile.TextEncoder && strings.HasPrefix(p.Path, layerPrefix(c.layers))
}

// writeFolder writes everything into the folder under way.
func (c *container) writeFolder(temp string, about *description) error {
	for _, part := range slices.Sorted(maps.Keys(c.parts)) {
		file := filepath.Join(part, "diffusion_pytorch_model.safetensors")
		meta := map[string]string{"format": "pt"}
		switch part {
		case "":
			continue
		case modelfile.TextEncoder, modelfile.TextEncoder2:
			file = filepath.Join(part, "model.safetensors")
		}
		if err := os.MkdirAll(filepath.Join(temp, part), 0o777); err != nil {
			return fault.BadOutput(c.o.Out, "can't be written: %w", err)
		}
		if err := tensor.WriteStream(filepath.Join(temp, file), c.parts[part], meta); err != nil {
			return err
		}
	}
	meta := maps.Clone(c.model.Files()[0].Raw().Metadata())
	if meta == nil {
		meta = map[string]string{}
	}
	if err := c.o.finish(meta); err != nil {
		return err
	}
	if err := tensor.WriteStream(filepath.Join(temp, restFile), c.parts[""], meta); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(about.files)) {
		path := filepath.Join(temp, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return fault.BadOutput(c.o.Out, "can't be written: %w", err)
		}
		if err := tensor.WriteAtomic(path, func(w io.Writer) error { _, err := w.Write(about.files[name]); return err }); err != nil {
			return err
		}
	}
	return nil
}

// toFile writes a folder, or a UNet alone with diffusers' names, as a single file with LDM names.
func (c *container) toFile() (err error) {
	m := c.model
	if m.LDM {
		return fault.BadInput(c.o.In, "is a single file with LDM names already").Advise("a diffusers folder is made of it with --to diffusers")
	}
	meta := map[string]string{}
	if m.Folder {
		if err := c.openRest(meta); err != nil {
			return err
		}
		if c.vae, err = modelfile.OpenVAE(c.o.In); err != nil {
			return err
		}
		c.configs(meta)
	}
	if c.rest != nil {
		defer c.rest.Close()
	}
	if err := c.modules(); err != nil {
		return err
	}
	if c.vae != nil {
		defer c.vae.Close()
		if err := c.addVAE(); err != nil {
			return err
		}
	}
	c.addRest()
	if err := c.o.finish(meta); err != nil {
		return err
	}
	return tensor.WriteStream(c.o.Out, c.parts[""], meta)
}

// openRest takes up what the folder keeps of the single file that it was made of.
func (c *container) openRest(meta map[string]string) error {
	path := filepath.Join(c.o.In, restFile)
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	f, err := tensor.OpenFile(path)
	if err != nil {
		return err
	}
	c.rest = f
	maps.Copy(meta, f.Metadata())
	return nil
}

// configs puts the folder's configurations and its prediction type into the metadata of the file: heads and norm groups don't show in shapes.
func (c *container) configs(meta map[string]string) {
	all := map[string]json.RawMessage{}
	for _, part := range []string{modelfile.UNet, modelfile.TextEncoder, modelfile.TextEncoder2, vaePart} {
		if text, err := os.ReadFile(filepath.Join(c.o.In, part, "config.json")); err == nil && json.Valid(text) {
			all[part] = text
		}
	}
	if text, err := json.Marshal(all); err == nil && len(all) > 0 {
		meta[checkpoint.ConfigKey] = string(text)
	}
	var scheduler struct {
		Prediction string `json:"prediction_type"`
	}
	text, err := os.ReadFile(filepath.Join(c.o.In, "scheduler", "scheduler_config.json"))
	if err == nil && json.Unmarshal(text, &scheduler) == nil {
		switch scheduler.Prediction {
		case "epsilon":
			meta["modelspec.prediction_type"] = "epsilon"
		case "v_prediction":
			meta["modelspec.prediction_type"] = "v"
		}
	}
}

// third is a part of a fused tensor.
type third struct {
	file *modelfile.File
	name string
}

// modules adds the tensors of UNet and text encoders.
func (c *container) modules() error {
	m := c.model
	ldm := map[string]string{}
	for _, mod := range m.Modules(modelfile.UNet) {
		ldm[mod.Path] = mod.LDM
	}
	fused := map[string]*[3]third{}
	for _, f := range m.Files() {
		for _, t := range f.Tensors {
			info, _ := f.Raw().Info(t.Name)
			read := func() (tensor.Tensor, error) { return m.Read(f, t.Name) }
			if t.Role != modelfile.Module {
				c.other(f, t, info, read)
				continue
			}
			p := t.Parts[0]
			prefix, open := textPrefix(m.Family, p.Component)
			switch {
			case p.Component == modelfile.UNet:
				c.add("", ldmPrefix+ldm[p.Path]+"."+p.Param, info, t.Shape, false, read)
			case !open:
				c.add("", prefix+p.Path+"."+p.Param, info, t.Shape, false, read)
			default:
				name, part, of, ok := modelfile.OpenCLIPName(p.Path, p.Param)
				if !ok {
					c.r.LeftOut = append(c.r.LeftOut, p.Component+": "+t.Name)
					continue
				}
				if of == 0 {
					c.add("", prefix+name, info, t.Shape, false, read)
					continue
				}
				if fused[prefix+name] == nil {
					fused[prefix+name] = &[3]third{}
				}
				fused[prefix+name][part] = third{f, t.Name}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fused)) {
		c.fuse(name, fused[name])
	}
	if m.Family == modelfile.SD2 {
		c.lastLayer()
	}
	return nil
}

// fuse adds query, key and value as one tensor. All three are there: the model was complete when it was opened.
func (c *container) fuse(name string, of *[3]third) {
	info, _ := of[0].file.Raw().Info(of[0].name)
	shape := slices.Clone(info.Shape)
	shape[0] *= 3
	c.add("", name, info, shape, false, func() (tensor.Tensor, error) {
		var all tensor.Tensor
		for i, part := range of {
			t, err := c.model.Read(part.file, part.name)
			if err == nil {
				t, err = cast(c.o.In, part.name, t, info.DType)
			}
			if err != nil {
				return t, err
			}
			if i == 0 {
				all = tensor.Tensor{DType: t.DType, Data: slices.Clone(t.Data)}
				continue
			}
			all.Data = append(all.Data, t.Data...)
		}
		all.Shape = shape
		return all, nil
	})
}

// lastLayer gives SD2's text encoder the last layer that folders lack: the one that the folder keeps from its file, else a copy of the last that it has. Nothing is computed with it, but
// programs that build all 24 layers ask for its tensors; sd-scripts writes the same copy.
func (c *container) lastLayer() {
	last := 0
	for _, mod := range c.model.Modules(modelfile.TextEncoder) {
		if strings.HasSuffix(mod.Path, ".mlp.fc1") {
			last++
		}
	}
	prefix, _ := textPrefix(modelfile.SD2, modelfile.TextEncoder)
	from, to := openLayer(prefix, last-1), openLayer(prefix, last)
	if c.rest != nil && slices.ContainsFunc(c.rest.Names(), func(n string) bool { return strings.HasPrefix(n, to) }) {
		return
	}
	copied := false
	for _, t := range slices.Clone(c.parts[""]) {
		if rest, ok := strings.CutPrefix(t.Name, from); ok {
			t.Name = to + rest
			c.parts[""] = append(c.parts[""], t)
			copied = true
		}
	}
	if copied {
		c.r.Notes = append(c.r.Notes, "the text encoder's last layer, which folders of SD2 lack and nothing uses, is a copy of the one before it")
	}
}

// other gives a tensor that is no layer's its name in a single file, or names it as left out.
func (c *container) other(f *modelfile.File, t modelfile.Tensor, info tensor.Info, read func() (tensor.Tensor, error)) {
	part := filepath.Dir(f.Name)
	prefix, open := textPrefix(c.model.Family, part)
	switch {
	case part == modelfile.TextEncoder2 && t.Name == "text_projection.weight" && len(t.Shape) == 2:
		c.add("", xlProjection, info, []int{t.Shape[1], t.Shape[0]}, false, func() (tensor.Tensor, error) {
			whole, err := read()
			if err != nil {
				return whole, err
			}
			return transposed(whole), nil
		})
	case prefix != "" && !open && strings.HasSuffix(t.Name, "position_ids"):
		if name := prefix + "text_model.embeddings.position_ids"; c.rest == nil || !c.rest.Has(name) {
			c.add("", name, info, t.Shape, true, read)
		}
	default:
		c.r.LeftOut = append(c.r.LeftOut, filepath.Join(part, t.Name))
	}
}

// addVAE adds the VAE's tensors.
func (c *container) addVAE() error {
	_, names, err := vaeOfFolder(c.vae)
	if err != nil {
		return err
	}
	for _, f := range c.vae.Files() {
		for _, t := range f.Tensors {
			name, ok := names.LDM(newVAEName(t.Name))
			if !ok {
				c.r.LeftOut = append(c.r.LeftOut, vaePart+": "+t.Name)
				continue
			}
			info, _ := f.Raw().Info(t.Name)
			c.add("", name, info, vaeShape(newVAEName(t.Name), t.Shape, true), true, func() (tensor.Tensor, error) { return c.vae.Read(f, t.Name) })
		}
	}
	return nil
}

// addRest adds what the folder keeps, unless it has a newer tensor of the name.
func (c *container) addRest() {
	if c.rest == nil {
		return
	}
	have := map[string]bool{}
	for _, t := range c.parts[""] {
		have[t.Name] = true
	}
	for _, name := range c.rest.Names() {
		if !have[name] {
			info, _ := c.rest.Info(name)
			c.add("", name, info, info.Shape, true, func() (tensor.Tensor, error) { return c.rest.Read(name) })
		}
	}
}
