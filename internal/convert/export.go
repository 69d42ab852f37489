package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"lycoris/internal/algos"
	"lycoris/internal/fault"
	"lycoris/internal/kernels"
	"lycoris/internal/loose"
	"lycoris/internal/tensor"
)

// exporter makes plain LoRA or whole differences of modules.
type exporter struct {
	o       *Options
	p       *loose.Adapter
	base    *loose.Base
	backend kernels.Backend
	report  *Report
}

// export returns the adapter as LoRA or as full, under kohya's names.
func (o *Options) export(ctx context.Context, p *loose.Adapter, meta map[string]string, r *Report) ([]tensor.Named, error) {
	if err := o.canExport(p); err != nil {
		return nil, err
	}
	b, err := loose.OpenBase(o.Base)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	e := &exporter{o: o, p: p, base: b, report: r}
	r.Errors = map[string]float64{}
	var all []tensor.Named
	window, rank, alphas := false, 0, map[float64]bool{}
	for i, m := range p.Modules {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		made, err := e.module(m)
		if err != nil {
			return nil, at(o.In, err)
		}
		name := p.Layers.Module(m.Layer, loose.Kohya)
		for _, t := range made {
			t.Name = name + "." + t.Name
			all = append(all, t)
			if s := t.Shape; len(s) == 4 && s[2]*s[3] > 1 {
				window = true
			}
		}
		if len(made) == 3 && made[0].Name == "alpha" {
			rank = max(rank, tensor.Elems(made[1].Shape)/max(tensor.Elems(made[1].Shape[1:]), 1))
			alphas[float64(made[0].Float32()[0])] = true
		}
		o.progress(i+1, len(p.Modules))
	}
	if len(all) == 0 {
		return nil, fault.BadInput(o.In, "holds nothing that a plain LoRA has a place for").Advise("convert it with --to full")
	}
	if err := describeExport(o.To, window, rank, alphas, meta); err != nil {
		return nil, err
	}
	return all, nil
}

// describeExport sets what the metadata say about the algorithm.
func describeExport(to string, window bool, rank int, alphas map[float64]bool, meta map[string]string) error {
	args := map[string]string{}
	module := "networks.lora"
	if to == "full" || window {
		module, args["algo"] = "lycoris.kohya", map[bool]string{true: "full", false: "locon"}[to == "full"]
	}
	text, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("ss_network_args: %w", err)
	}
	meta["ss_network_module"], meta["ss_network_args"] = module, string(text)
	delete(meta, "ss_network_alpha")
	delete(meta, "ss_network_dim")
	delete(meta, "lora_adapter_metadata")
	if rank > 0 {
		meta["ss_network_dim"], meta["ss_network_alpha"] = strconv.Itoa(rank), "Dynamic"
		for a := range alphas {
			if len(alphas) == 1 {
				meta["ss_network_alpha"] = strconv.FormatFloat(a, 'g', -1, 64)
			}
		}
	}
	return nil
}

// canExport says what is missing, from names and shapes alone.
func (o *Options) canExport(p *loose.Adapter) error {
	needs, name := 0, ""
	for _, m := range p.Modules {
		if m.NeedsWeight() && o.Base == "" {
			if needs++; name == "" {
				name = m.Algo.Name
			}
		}
	}
	if needs > 0 {
		return fault.BadUsage("--model", "is missing: %d of %d modules (%s) change the layer by what its weight is", needs, len(p.Modules), name).
			Advise("name the base the adapter was made for: --model FILE")
	}
	if o.To != "lora" || o.Dim > 0 {
		return nil
	}
	for _, m := range p.Modules {
		if !hasExact(m) && m.Algo.Name != "norm" {
			if needs++; name == "" {
				name = m.Algo.Name
			}
		}
	}
	if needs > 0 {
		return fault.BadUsage("--dim", "is missing: %d of %d modules (%s) have no exact form as a LoRA of low rank", needs, len(p.Modules), name).
			Advise("say the rank of the nearest one: --dim 16; the error will be told")
	}
	return nil
}

// hasExact reports whether exact will find a pair, from the tensors' names alone.
func hasExact(m *loose.Module) bool {
	switch {
	case m.Has("dora_scale"):
		return false
	case m.Algo.Name == "lokr":
		return m.Has("lokr_w2_a")
	}
	return m.Algo.Name == "lora" || m.Algo.Name == "dylora" || m.Algo.Name == "loha"
}

// module converts one module; no tensors where it has no place in a LoRA.
func (e *exporter) module(m *loose.Module) ([]tensor.Named, error) {
	t, err := e.base.Target(e.o.In, e.p.Layers, m)
	if err != nil {
		return nil, err
	}
	tensors, err := m.Tensors()
	if err != nil {
		return nil, err
	}
	if e.o.To == "full" {
		a, w, err := e.load(m, t, tensors)
		if err != nil {
			return nil, err
		}
		return algos.ExportFull(e.backend, a, w)
	}
	if m.Algo.Name == "norm" || len(t.Shape) == 1 {
		e.leaveOut(m)
		return nil, nil
	}
	plain := m.Algo.Name == "lora" && !m.Has("dora_scale") && !m.Has("lora_mid.weight")
	if plain && (e.o.Dim == 0 || m.Rank() <= e.o.Dim) {
		e.report.Exact++
		return asIs(m, tensors), nil
	}
	if p := loose.Exact(m, t, tensors); p != nil && (e.o.Dim == 0 || p.Rank <= e.o.Dim) {
		e.report.Exact++
		return p.Tensors(t), nil
	}
	if e.o.Dim == 0 {
		return nil, fault.BadInput(e.o.In, "%q has no exact form as a LoRA of low rank", t.Name).Advise("say the rank of the nearest one: --dim 16; the error will be told")
	}
	return e.nearest(m, t, tensors)
}

// asIs returns a plain LoRA's own tensors, with the alpha that it may lack.
func asIs(m *loose.Module, tensors map[string]tensor.Tensor) []tensor.Named {
	alpha, ok := tensors["alpha"]
	if !ok {
		alpha = loose.Number(float64(m.Rank()))
	}
	return []tensor.Named{{Name: "alpha", Tensor: alpha}, {Name: "lora_down.weight", Tensor: tensors["lora_down.weight"]}, {Name: "lora_up.weight", Tensor: tensors["lora_up.weight"]}}
}

// nearest returns the LoRA of the asked rank that is nearest to the change, and keeps how far it is.
func (e *exporter) nearest(m *loose.Module, t algos.Target, tensors map[string]tensor.Tensor) ([]tensor.Named, error) {
	if _, ok := tensors["diff_b"]; ok {
		delete(tensors, "diff_b")
		e.report.LeftOut = append(e.report.LeftOut, m.Key("diff_b"))
		t.Bias = false
	}
	a, w, err := e.load(m, t, tensors)
	if err != nil {
		return nil, err
	}
	made, relative, err := algos.ExportLoRA(e.backend, a, w, e.o.Dim)
	if err != nil {
		return nil, err
	}
	e.report.Errors[t.Name] = relative
	if worst, ok := e.report.Errors[e.report.Worst]; !ok || relative > worst {
		e.report.Worst = t.Name
	}
	for i, n := range made { // alpha, up, down: the order of asIs
		if n.Name == "lora_down.weight" && i == 2 {
			made[1], made[2] = made[2], made[1]
		}
	}
	return made, nil
}

// load makes the adapter that computes the module's change, and its frozen weight.
func (e *exporter) load(m *loose.Module, t algos.Target, tensors map[string]tensor.Tensor) (algos.Adapter, tensor.Tensor, error) {
	if e.backend == nil {
		b, err := e.o.Backend()
		if err != nil {
			return nil, tensor.Tensor{}, err
		}
		e.backend = b
	}
	a, err := m.Algo.Load(t, tensors, algos.Options{})
	if err != nil {
		return nil, tensor.Tensor{}, err
	}
	w, err := e.base.Weight(m, t)
	if err != nil {
		return nil, w, err
	}
	if s, ok := a.(algos.Starter); ok {
		err = s.Start(w.Float32())
	}
	return a, w, err
}

// leaveOut keeps the names of tensors that have no place in the new form.
func (e *exporter) leaveOut(m *loose.Module) {
	for _, suffix := range m.Suffixes() {
		e.report.LeftOut = append(e.report.LeftOut, m.Key(suffix))
	}
}

// at sets the path of an error that has none.
func at(path string, err error) error {
	var e *fault.Error
	if errors.As(err, &e) && e.Path == "" {
		e.Path = path
	}
	return err
}
