package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lycoris/internal/inspect"
	"lycoris/internal/loose"
	"lycoris/internal/tensor"
	"lycoris/internal/ui"
)

// page is text under construction: a label, then what it says. Everything from a file is escaped.
type page struct{ b strings.Builder }

func (p *page) line(label, format string, args ...any) {
	fmt.Fprintf(&p.b, "%-12s%s\n", label, ui.Escape(fmt.Sprintf(format, args...)))
}

func (p *page) blank() { p.b.WriteByte('\n') }

// table writes rows with columns as wide as their cells; the first row is the head. Cells that begin with a digit stand right.
func (p *page) table(rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(ui.Escape(cell))))
		}
	}
	for n, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			cell = ui.Escape(cell)
			pad := strings.Repeat(" ", width[i]-len([]rune(cell)))
			numeric := n > 0 && cell != "" && cell[0] >= '0' && cell[0] <= '9' && !strings.Contains(cell, "x")
			if numeric {
				cell = pad + cell
			} else {
				cell += pad
			}
			line.WriteString(cell + "  ")
		}
		p.b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// inspectText writes a report for people.
func inspectText(r *inspect.Report, metadata bool) string {
	p := &page{}
	p.line("file", "%s", r.Path)
	p.line("kind", "%s", r.Kind)
	if f := r.File; f != nil {
		p.line("size", "%s, header %s, %d tensors, %d values: %s", tensor.FormatBytes(f.Bytes), tensor.FormatBytes(f.HeaderBytes), f.Tensors, f.Parameters, counts(f.DTypes))
	}
	switch {
	case r.Adapter != nil:
		p.adapter(r.Adapter)
	case r.Model != nil:
		p.model(r.Model)
	case r.Run != nil:
		p.run(r.Run)
	}
	if r.Metadata != nil {
		p.metadata(r.Metadata, metadata)
	}
	if h := r.Hashes; h != nil {
		p.hashes(h)
	}
	if r.Adapter != nil && r.Adapter.Norms != nil {
		p.norms(r.Adapter.Norms)
	}
	if r.Diff != nil {
		p.diff(r.Diff)
	}
	if len(r.Keys) > 0 {
		p.blank()
		rows := [][]string{{"tensor", "type", "shape"}}
		for _, k := range r.Keys {
			rows = append(rows, []string{k.Name, k.DType, tensor.FormatShape(k.Shape)})
		}
		p.table(rows)
	}
	return p.b.String()
}

// counts writes F16 284, F32 192: the most frequent first.
func counts(of map[string]int) string {
	names := slices.SortedFunc(maps.Keys(of), func(a, b string) int { return cmp.Or(cmp.Compare(of[b], of[a]), cmp.Compare(a, b)) })
	for i, n := range names {
		names[i] = fmt.Sprintf("%s %d", n, of[n])
	}
	return strings.Join(names, ", ")
}

func (p *page) adapter(a *inspect.Adapter) {
	p.line("family", "%s", loose.Describe(a.Family))
	p.line("names", "%s", a.Names)
	if a.Prediction != "" {
		p.line("prediction", "%s", a.Prediction)
	}
	var parts []string
	for _, name := range slices.SortedFunc(maps.Keys(a.Parts), func(x, y string) int { return cmp.Compare(y, x) }) {
		parts = append(parts, fmt.Sprintf("%s %d", name, a.Parts[name]))
	}
	p.line("modules", "%d: %s", a.Modules, strings.Join(parts, ", "))
	if a.NoAlpha > 0 {
		p.line("no alpha", "%d modules: their scale is 1", a.NoAlpha)
	}
	if len(a.Embeddings) > 0 {
		p.line("embeddings", "%s", strings.Join(a.Embeddings, ", "))
	}
	if len(a.Words) > 0 {
		var words []string
		for _, w := range a.Words {
			words = append(words, fmt.Sprintf("%s (%d)", w.Tag, w.Count))
		}
		p.line("words", "%s", strings.Join(words, ", "))
	}
	p.blank()
	rows := [][]string{{"part", "algorithm", "layers", "rank", "alpha", "modules", "with"}}
	for _, g := range a.Groups {
		rank, alpha, with := "-", "-", g.With
		if g.Rank > 0 {
			rank = fmt.Sprint(g.Rank)
		}
		if g.Alpha != nil {
			alpha = fmt.Sprintf("%g", *g.Alpha)
		}
		if g.Blocks != "" {
			with = strings.Trim(with+", blocks "+g.Blocks, ", ")
		}
		rows = append(rows, []string{g.Part, g.Algorithm, g.Layers, rank, alpha, fmt.Sprint(g.Modules), with})
	}
	p.table(rows)
}

func (p *page) model(m *inspect.Model) {
	p.line("family", "%s (%s)", m.What, m.Layout)
	stated := "usual for the family: the file doesn't say"
	if m.Stated {
		stated = "stated by the model"
	}
	p.line("prediction", "%s (%s)", m.Prediction, stated)
	if len(m.Markers) > 0 {
		p.line("markers", "%s", strings.Join(m.Markers, ", "))
	}
	p.names("missing", m.Missing)
	p.names("unknown", m.Unknown)
	p.blank()
	rows := [][]string{{"part", "tensors", "size", "types"}}
	for _, part := range m.Parts {
		rows = append(rows, []string{part.Name, fmt.Sprint(part.Tensors), tensor.FormatBytes(part.Bytes), counts(part.DTypes)})
	}
	p.table(rows)
}

// names counts a list and shows its first five.
func (p *page) names(label string, list []string) {
	if len(list) == 0 {
		return
	}
	rest := ""
	if len(list) > 5 {
		rest = fmt.Sprintf(" and %d more", len(list)-5)
	}
	p.line(label, "%d: %s%s", len(list), strings.Join(list[:min(len(list), 5)], ", "), rest)
}

func (p *page) run(r *inspect.Run) {
	p.line("name", "%s", r.Name)
	p.line("status", "%s, step %d of %d, newest state %d, starts %d", r.Status, r.Step, r.Steps, r.Saved, r.Starts)
	p.line("started", "%s", r.Started)
	if r.Ended != "" {
		p.line("ended", "%s", r.Ended)
	}
	if r.LastLoss != nil {
		p.line("last loss", "%.4g at step %d", *r.LastLoss, r.Logged)
	}
	for _, a := range r.Adapters {
		p.line("adapter", "%s (%s)", a.Name, tensor.FormatBytes(a.Bytes))
	}
	for _, w := range r.Warnings {
		p.line("warning", "%s", w)
	}
}

// telling are the metadata that are shown without --metadata.
var telling = []string{"modelspec.title", "modelspec.author", "modelspec.trigger_phrase", "modelspec.architecture", "ss_output_name", "ss_base_model_version", "ss_sd_model_name",
	"ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args", "ss_steps", "ss_epoch", "ss_num_train_images", "ss_resolution", "ss_learning_rate", "ss_optimizer",
	"lycoris.history"}

// maxValue bounds what is shown of one value: thumbnails have megabytes.
const maxValue = 300

func (p *page) metadata(meta map[string]string, all bool) {
	keys := slices.Sorted(maps.Keys(meta))
	if !all {
		keys = slices.DeleteFunc(slices.Clone(telling), func(k string) bool { return meta[k] == "" })
	}
	p.blank()
	rows := [][]string{{"metadata", " value"}}
	for _, k := range keys {
		v := []rune(meta[k])
		text := string(v[:min(len(v), maxValue)])
		if len(v) > maxValue {
			text += fmt.Sprintf("… (%d characters)", len(v))
		}
		rows = append(rows, []string{k, " " + text})
	}
	p.table(rows)
	if !all && len(meta) > len(keys) {
		p.line("", "%d of %d shown; --metadata shows all", len(keys), len(meta))
	}
}

func (p *page) hashes(h *inspect.Hashes) {
	p.blank()
	p.line("sha256", "%s", h.SHA256)
	p.line("data", "%s  (sshs_model_hash)", h.Model)
	p.line("old", "%s", h.AutoV1)
	for _, k := range slices.Sorted(maps.Keys(h.Stored)) {
		p.line("stored", "%s is %s", k, h.Stored[k])
	}
}

func (p *page) norms(n *inspect.Norms) {
	p.blank()
	if n.NonFinite > 0 {
		p.line("broken", "%d values are NaN or infinite", n.NonFinite)
	}
	if n.NeedBase > 0 {
		p.line("not computed", " %d changes depend on the base's weights", n.NeedBase)
	}
	rows := [][]string{{"part", "changes", "norm", "largest", "module"}}
	for _, part := range slices.SortedFunc(maps.Keys(n.Parts), func(x, y string) int { return cmp.Compare(y, x) }) {
		s := n.Parts[part]
		rows = append(rows, []string{part, fmt.Sprint(s.Modules), fmt.Sprintf("%.4g", s.Change), fmt.Sprintf("%.4g", s.Largest), s.Module})
	}
	p.table(rows)
	rows = [][]string{{"module", "change", "max", "factors"}}
	for _, m := range n.Modules {
		change, largest := "-", "-"
		if m.Change != nil {
			change, largest = fmt.Sprintf("%.4g", *m.Change), fmt.Sprintf("%.3g", *m.MaxAbs)
		}
		var factors []string
		for _, k := range slices.Sorted(maps.Keys(m.Factors)) {
			factors = append(factors, fmt.Sprintf("%s %.4g", strings.TrimSuffix(k, ".weight"), m.Factors[k]))
		}
		if m.NonFinite > 0 {
			factors = append(factors, fmt.Sprintf("%d values not finite", m.NonFinite))
		}
		rows = append(rows, []string{m.Name, change, largest, strings.Join(factors, ", ")})
	}
	p.blank()
	p.table(rows)
}

func (p *page) diff(d *inspect.Diff) {
	p.blank()
	p.line("compared", "with %s", d.With)
	if d.Same {
		p.line("same", "%d of the same values", d.Equal)
	} else {
		p.line("different", "by %.3g of what is here; %d of the same values, %d of others", d.Relative, d.Equal, len(d.Differing))
	}
	p.names("only here", d.OnlyHere)
	p.names("only there", d.OnlyThere)
	for _, s := range d.Shapes {
		p.line("form", "%s: %s, there %s", s.Name, s.Here, s.There)
	}
	if m := d.Metadata; m != nil {
		p.names("metadata", append(append(slices.Clone(m.Differing), m.OnlyHere...), m.OnlyThere...))
	}
	if len(d.Differing) == 0 {
		return
	}
	p.blank()
	rows := [][]string{{"differs", "relative", "max", "cosine"}}
	for _, x := range d.Differing {
		rows = append(rows, []string{x.Name, fmt.Sprintf("%.3g", x.Relative), fmt.Sprintf("%.3g", x.MaxAbs), fmt.Sprintf("%.4f", x.Cosine)})
	}
	p.table(rows)
}
