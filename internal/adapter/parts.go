package adapter

import (
	"regexp"
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// textEncoder2 is SDXL's second text encoder.
const textEncoder2 arch.Component = "text_encoder_2"

// Part is a component of a model with its modules.
type Part struct {
	Component arch.Component
	Modules   []arch.Module
}

// familyNames are what people call the families.
var familyNames = map[string]string{"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}

// FamilyName returns what people call a family: SD1 for sd1.
func FamilyName(family string) string { return familyNames[family] }

// NewTableOf makes the table of a model of any family ("sd1", "sd2", "sdxl"), for the tools. Besides the names of [Table.Lookup] it knows those made of LDM's paths, and
// SDXL's two encoders, lora_te1 and lora_te2.
func NewTableOf(family string, parts []Part) *Table {
	t := &Table{byName: map[string]*Target{}, byPath: map[string]*Target{}, family: family}
	for _, part := range parts {
		prefix := Prefix(part.Component)
		switch {
		case part.Component == textEncoder2:
			prefix = "lora_te2"
		case part.Component == arch.TextEncoder && family == "sdxl":
			prefix = "lora_te1"
		}
		for _, m := range part.Modules {
			target := &Target{Component: part.Component, Module: m, Name: prefix + "_" + flat(m.Path), order: len(t.all)}
			t.all = append(t.all, target)
			t.byName[target.Name] = target
			t.byPath[string(part.Component)+"."+m.Path] = target
			if part.Component == arch.UNet {
				t.byName[prefix+"_"+flat(m.LDM)] = target
				t.byPath[string(part.Component)+"."+m.LDM] = target
			}
			if strings.HasSuffix(m.Path, ".attn2.to_k") {
				t.Cross = m.In()
			}
		}
	}
	for name, target := range t.byName { // text encoder names without the text_model level
		for _, prefix := range []string{"lora_te1_", "lora_te2_"} {
			if rest, ok := strings.CutPrefix(name, prefix+"text_model_"); ok {
				t.byName[prefix+rest] = target
			}
		}
	}
	return t
}

// OpenFor opens an adapter for the tools, as [Open] does for training. Tensors that fit no layer are refused, with the family that they would fit, unless all is
// allowed: then they are left in [File.Unknown]. excluded are components that the caller leaves out: names of theirs aren't missed. At least one module fits, or it is
// an error.
func OpenFor(path string, table *Table, sets []KeySet, allow bool, excluded ...arch.Component) (*File, error) {
	has := map[arch.Component]bool{}
	for _, t := range table.all {
		has[t.Component] = true
	}
	f, err := open(path, table, sets, func(f *File) error {
		unknown := slices.DeleteFunc(f.Unknown, func(key string) bool { return slices.Contains(excluded, partOf(key)) })
		f.Unknown = unknown
		if len(unknown) == 0 || allow {
			return nil
		}
		return f.strangers(unknown, table, has)
	})
	if err != nil {
		return nil, err
	}
	if what := otherWidth(f.file, table); what != "" {
		f.Close()
		return nil, fault.BadInput(path, "is %s, the model is %s", what, FamilyName(table.family)).Advise("use the base it was made for, or another adapter")
	}
	return f, nil
}

// strangers says what the tensors are that fit no layer.
func (f *File) strangers(unknown []string, table *Table, has map[arch.Component]bool) error {
	of := len(f.file.Names())
	if !slices.ContainsFunc(f.file.Names(), func(n string) bool { return suffixAlgorithm(n) != "" }) {
		return f.notAdapter(unknown)
	}
	var lacking []string // of a part that the model hasn't got
	for _, key := range unknown {
		if c := partOf(key); c != "" && !has[c] {
			lacking = append(lacking, key)
		}
	}
	family := ""
	for _, key := range unknown {
		for _, m := range familyMarks {
			if family == "" && m.mark.MatchString(key) {
				family = m.what
			}
		}
	}
	switch {
	case family == "an SDXL adapter" && table.family == "sdxl":
		family = "" // something else is wrong with these names
	case family == "" && table.family == "sdxl" && slices.ContainsFunc(unknown, sd1Mark.MatchString):
		family = "an SD1 or SD2 adapter"
	}
	switch {
	case family != "":
		return f.refuse("are "+family+"'s, the model is "+FamilyName(table.family), unknown, of).Advise("use the base it was made for, or another adapter")
	case len(lacking) == len(unknown):
		return f.refuse("belong to text encoders, and the model holds a UNet alone", unknown, of).Advise("merge the UNet's part only: --parts unet")
	}
	return f.refuse("belong to no layer of the model", unknown, of).Advise("use the base it was made for; to leave these out: --allow-unmatched")
}

// sd1Mark are names that SD1 and SD2 have and SDXL hasn't: transformers at the first level, the only text encoder.
var sd1Mark = regexp.MustCompile(`^(lora_unet|lycoris|oft_unet)_down_blocks_0_attentions_|^unet\.down_blocks\.0\.attentions\.|^lora_te_|_blocks_3_`)

// partOf tells the component from a name's beginning; "" where it can't.
func partOf(key string) arch.Component {
	for _, p := range []struct {
		prefix    string
		component arch.Component
	}{{"lora_te2_", textEncoder2}, {"text_encoder_2.", textEncoder2}, {"lora_te", arch.TextEncoder}, {"text_encoder.", arch.TextEncoder}, {"lora_unet_", arch.UNet}, {"oft_unet_", arch.UNet}, {"unet.", arch.UNet}} {
		if strings.HasPrefix(key, p.prefix) {
			return p.component
		}
	}
	return ""
}

// otherWidth says of which other family an adapter is whose cross attention reads text states of another width; "" if it may be the table's.
func otherWidth(f *tensor.File, table *Table) string {
	for _, name := range f.Names() {
		if !strings.Contains(name, "attn2") || !strings.Contains(name, "to_k") || table.Cross == 0 {
			continue
		}
		down := strings.HasSuffix(name, "lora_down.weight") || strings.HasSuffix(name, "lora_A.weight") || strings.HasSuffix(name, "lora.down.weight") ||
			strings.HasSuffix(name, "hada_w1_b")
		info, _ := f.Info(name)
		if !down || len(info.Shape) < 2 || info.Shape[1] == table.Cross {
			continue
		}
		switch info.Shape[1] {
		case 768:
			return "an SD1 adapter"
		case 1024:
			return "an SD2 adapter"
		case 2048:
			return "an SDXL adapter"
		}
	}
	return ""
}
