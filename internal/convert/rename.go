package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/loose"
	"lycoris/internal/tensor"
)

// adapter converts an adapter.
func (o *Options) adapter(ctx context.Context, src loose.Source, r *Report) error {
	if o.To == "" {
		return o.copyAdapter(ctx, src)
	}
	p, err := loose.Parse(o.In, src)
	if err != nil {
		return err
	}
	r.Family, r.Modules = p.Layers.Family, len(p.Modules)
	meta := maps.Clone(src.Metadata())
	if meta == nil {
		meta = map[string]string{}
	}
	var all []tensor.Named
	if o.To == "peft" && !o.file() {
		return o.peftFolder(p, meta, r)
	}
	switch o.To {
	case "lora", "full":
		all, err = o.export(ctx, p, meta, r)
	case "peft", "diffusers":
		all, err = o.dotted(p, meta, r)
	case "lycoris":
		all, err = o.flat(p, loose.Wrapper, meta)
	case "ldm":
		all, err = o.flat(p, loose.LDM, meta)
	default:
		all, err = o.flat(p, loose.Kohya, meta)
	}
	if err != nil {
		return err
	}
	if all, err = o.embeddings(p, src, all, r); err != nil {
		return err
	}
	return o.save(ctx, src, all, meta)
}

// copyAdapter changes the container or the element type and no name.
func (o *Options) copyAdapter(ctx context.Context, src loose.Source) error {
	var all []tensor.Named
	for _, name := range src.Names() {
		t, err := src.Read(name)
		if err != nil {
			return err
		}
		if n, first := t.NonFinite(); n > 0 && !idleAlpha(src, name) {
			return fault.BadInput(o.In, "tensor %q holds %d NaN or infinite values, the first at index %d", name, n, first).Advise("the adapter is broken: its training diverged")
		}
		all = append(all, tensor.Named{Name: name, Tensor: t})
	}
	meta := maps.Clone(src.Metadata())
	if meta == nil {
		meta = map[string]string{}
	}
	return o.save(ctx, src, all, meta)
}

// idleAlpha reports whether a tensor is the alpha of a LoKr of two whole factors, which means nothing: lycoris-lora writes a dim of 100000 as float16.
func idleAlpha(src loose.Source, name string) bool {
	module, is := strings.CutSuffix(name, ".alpha")
	_, first := src.Info(module + ".lokr_w1")
	_, second := src.Info(module + ".lokr_w2")
	return is && first && second
}

// castAll gives the tensors the element type asked for: alphas and switches stay float32, bundled embeddings as they are.
func (o *Options) castAll(all []tensor.Named) error {
	for i, t := range all {
		if o.DType == tensor.Invalid || strings.HasPrefix(t.Name, "bundle_emb.") {
			continue
		}
		d := o.DType
		if t.Name == "alpha" || strings.HasSuffix(t.Name, ".alpha") || strings.HasSuffix(t.Name, ".on_input") {
			d = tensor.F32
		}
		var err error
		if all[i].Tensor, err = cast(o.In, t.Name, t.Tensor, d); err != nil {
			return err
		}
	}
	return nil
}

// save casts, makes the metadata and hashes, and writes.
func (o *Options) save(ctx context.Context, src loose.Source, all []tensor.Named, meta map[string]string) error {
	if err := o.castAll(all); err != nil {
		return err
	}
	if err := o.finish(meta); err != nil {
		return err
	}
	if err := errors.Join(unchanged(src), ctx.Err()); err != nil {
		return err
	}
	return adapter.SaveAsIs(o.Out, all, meta)
}

// embeddings carries bundled embeddings over where the form has a place for them; diffusers refuses a file with such keys.
func (o *Options) embeddings(p *loose.Adapter, src loose.Source, all []tensor.Named, r *Report) ([]tensor.Named, error) {
	if o.To == "diffusers" || o.To == "peft" {
		r.LeftOut = append(r.LeftOut, p.Extra...)
		return all, nil
	}
	for _, name := range p.Extra {
		t, err := src.Read(name)
		if err != nil {
			return nil, err
		}
		all, r.Embeddings = append(all, tensor.Named{Name: name, Tensor: t}), append(r.Embeddings, name)
	}
	return all, nil
}

// flat renames to a naming with flat module names. Factors keep their bits; a LoRA without alpha gets alpha = rank, which is what none means.
func (o *Options) flat(p *loose.Adapter, n loose.Naming, meta map[string]string) ([]tensor.Named, error) {
	if parts := p.Parts(); n == loose.Wrapper && len(parts) > 1 {
		return nil, fault.BadInput(o.In, "has modules of %s; LyCORIS's wrapper names one model's", partList(parts)).Advise("use --to kohya: LyCORIS reads those names too")
	}
	var all []tensor.Named
	for _, m := range p.Modules {
		for _, suffix := range m.Suffixes() {
			if key := m.Key(suffix); strings.HasPrefix(key, "oft_unet_") {
				return nil, fault.BadInput(o.In, "%q is kohya's OFT, whose alpha means another thing under other names", key).Advise("convert it with --to full --model BASE")
			}
		}
		tensors, err := m.Tensors()
		if err != nil {
			return nil, err
		}
		if rank := m.Rank(); rank > 0 && tensors["alpha"].DType == tensor.Invalid {
			tensors["alpha"] = loose.Number(float64(rank))
		}
		for _, suffix := range slices.Sorted(maps.Keys(tensors)) {
			all = append(all, tensor.Named{Name: p.Layers.Module(m.Layer, n) + "." + suffix, Tensor: tensors[suffix]})
		}
	}
	delete(meta, "lora_adapter_metadata")
	describe(p, meta)
	return all, nil
}

// describe adds the keys without which readers take an adapter for one of another family, where the file has none.
func describe(p *loose.Adapter, meta map[string]string) {
	for k := range meta {
		if strings.HasPrefix(k, "ss_") {
			return
		}
	}
	meta["ss_v2"] = "False"
	switch p.Layers.Family {
	case loose.SDXL:
		meta["ss_base_model_version"] = "sdxl_base_v1-0"
	case loose.SD2:
		meta["ss_v2"], meta["ss_base_model_version"] = "True", "sd_v2"
	default:
		meta["ss_base_model_version"] = "sd_v1"
	}
	plain := !slices.ContainsFunc(p.Modules, func(m *loose.Module) bool {
		s := m.Shape("lora_down.weight")
		return m.Algo.Name != "lora" || len(s) == 4 && s[2]*s[3] > 1 || m.Has("lora_mid.weight") || m.Has("dora_scale")
	})
	meta["ss_network_module"], meta["ss_network_args"] = "networks.lora", "{}"
	if !plain {
		args, _ := json.Marshal(map[string]string{"algo": p.Modules[len(p.Modules)-1].Algo.Name}) // a map of strings always marshals
		meta["ss_network_module"], meta["ss_network_args"] = "lycoris.kohya", string(args)
	}
	if rank := highestRank(p); rank > 0 {
		meta["ss_network_dim"] = strconv.Itoa(rank)
	}
}

func highestRank(p *loose.Adapter) int {
	rank := 0
	for _, m := range p.Modules {
		rank = max(rank, m.Rank())
	}
	return rank
}

func partList(parts map[arch.Component]int) string {
	var names []string
	for c := range parts {
		names = append(names, string(c))
	}
	slices.Sort(names)
	return strings.Join(names, " and ")
}

// dotted renames to the names of peft and diffusers. They know LoRA alone, with the alphas in the metadata under lora_adapter_metadata (a LoraConfig for each
// component, keys prefixed by its name), and DoRA's magnitudes per output.
func (o *Options) dotted(p *loose.Adapter, meta map[string]string, r *Report) ([]tensor.Named, error) {
	if err := o.fitsPeft(p); err != nil {
		return nil, err
	}
	var all []tensor.Named
	config := map[string]any{}
	for c := range p.Parts() {
		part, dora := string(c), false
		ranks, alphas, targets := map[string]any{}, map[string]any{}, []any{}
		for _, m := range p.Modules {
			if m.Layer.Component != c {
				continue
			}
			tensors, err := m.Tensors()
			if err != nil {
				return nil, err
			}
			rank := m.Rank()
			alpha := float64(rank)
			if a, ok := tensors["alpha"]; ok {
				if tensor.Elems(a.Shape) != 1 {
					return nil, fault.BadInput(o.In, "%q has shape %v, want one number", m.Key("alpha"), a.Shape).Advise("the file is incomplete or mixed up: make it or download it again")
				}
				alpha = float64(a.Float32()[0])
			}
			path := strings.TrimPrefix(m.Layer.Path, "text_model.") // transformers 5 has no such level; peft takes the end of a path
			ranks[path], alphas[path], targets = rank, alpha, append(targets, path)
			name := p.Layers.Module(m.Layer, loose.Diffusers)
			for suffix, t := range tensors {
				switch suffix {
				case "lora_down.weight":
					all = append(all, tensor.Named{Name: name + ".lora_A.weight", Tensor: t})
				case "lora_up.weight":
					all = append(all, tensor.Named{Name: name + ".lora_B.weight", Tensor: t})
				case "dora_scale":
					dora = true
					t.Shape = []int{tensor.Elems(t.Shape)}
					all = append(all, tensor.Named{Name: name + ".lora_magnitude_vector", Tensor: t})
				}
			}
		}
		config[part+".r"], config[part+".lora_alpha"] = common(ranks), common(alphas)
		config[part+".rank_pattern"], config[part+".alpha_pattern"] = except(ranks, config[part+".r"]), except(alphas, config[part+".lora_alpha"])
		config[part+".target_modules"], config[part+".use_dora"], config[part+".bias"] = targets, dora, "none"
	}
	slices.SortFunc(all, func(a, b tensor.Named) int { return strings.Compare(a.Name, b.Name) })
	text, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("lora_adapter_metadata: %w", err)
	}
	meta["lora_adapter_metadata"] = string(text)
	return all, nil
}

// fitsPeft refuses what peft's LoRA has no form for.
func (o *Options) fitsPeft(p *loose.Adapter) error {
	other := map[string]int{}
	for _, m := range p.Modules {
		dora, down := m.Shape("dora_scale"), m.Shape("lora_down.weight")
		switch {
		case m.Algo.Name != "lora":
			other[m.Algo.Name]++
		case m.Has("lora_mid.weight"):
			other["LoRA with a core (Tucker)"]++
		case len(dora) > 1 && dora[0] == 1 && len(down) > 1 && down[1] != 1:
			other["DoRA on inputs"]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(other)) {
		return fault.BadInput(o.In, "%d of %d modules are %s, for which peft and diffusers have no names", other[name], len(p.Modules), name).
			Advise("make it a plain LoRA first: --to lora")
	}
	return nil
}

// common returns the most frequent value, of several the smallest.
func common(of map[string]any) any {
	count := map[float64]int{}
	for _, v := range of {
		count[asFloat(v)]++
	}
	best, times := 0.0, 0
	for _, v := range slices.Sorted(maps.Keys(count)) {
		if count[v] > times {
			best, times = v, count[v]
		}
	}
	return best
}

// except returns the entries of another value than most.
func except(of map[string]any, most any) map[string]any {
	rest := map[string]any{}
	for k, v := range of {
		if asFloat(v) != asFloat(most) {
			rest[k] = v
		}
	}
	return rest
}

func asFloat(v any) float64 {
	if n, ok := v.(int); ok {
		return float64(n)
	}
	f, _ := v.(float64)
	return f
}
