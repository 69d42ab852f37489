package modelfile

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lycoris/internal/fault"
)

// vaeFolder is the VAE's.
const vaeFolder = "vae"

// maxJSON bounds the JSON files of a folder; an index of SDXL's UNet has 0.2 MB.
const maxJSON = 16 << 20

// classes are beginnings of model_index.json's class that aren't served, and those that are.
var classes = []struct{ prefix, what string }{
	{"StableDiffusion3", "a Stable Diffusion 3 model"}, {"StableVideoDiffusion", "a Stable Video Diffusion model"}, {"StableCascade", "a Stable Cascade model"}, {"Flux", "a Flux model"},
	{"StableDiffusionUpscale", "an upscaler"}, {"StableDiffusionLatentUpscale", "an upscaler"}, {"StableDiffusion", ""}, {"AltDiffusion", ""}, {"DiffusionPipeline", ""},
}

// openFolder opens a diffusers folder: UNet and text encoders, whose names are diffusers' own.
func (m *Model) openFolder() error {
	text, err := readJSON(filepath.Join(m.Path, "model_index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return fault.BadInput(m.Path, "is not a diffusers model: it has no model_index.json").Advise("pass a .safetensors file, or the folder that holds model_index.json")
	}
	if err != nil {
		return err
	}
	var index struct {
		Class string `json:"_class_name"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return fault.BadInput(filepath.Join(m.Path, "model_index.json"), "is not a JSON object: %v", err)
	}
	known := false
	for _, c := range classes {
		if strings.HasPrefix(index.Class, c.prefix) {
			if known = true; c.what != "" {
				return fault.BadInput(m.Path, "is %s (%s), not supported", c.what, index.Class).Advise(serves)
			}
			break
		}
	}
	if !known {
		return fault.BadInput(m.Path, "is a %q pipeline, not supported", index.Class).Advise(serves)
	}
	unet, err := m.openWeights(UNet)
	if err != nil {
		return err
	}
	h := unet.header(m.Path)
	if in := h.dim(1, "add_embedding.linear_1.weight"); in == 2560 {
		return fault.BadInput(m.Path, "is an SDXL refiner, not supported").Advise(serves)
	}
	if err := m.bindUNet(unet, diffusersScheme, pathNames); err != nil {
		return err
	}
	for _, c := range []string{TextEncoder, TextEncoder2} {
		if stat, err := os.Stat(filepath.Join(m.Path, c)); err != nil || !stat.IsDir() {
			continue
		}
		tt, err := m.openWeights(c)
		if err != nil {
			return err
		}
		layers := hfLayers(tt.header(m.Path))
		if layers == 0 {
			return fault.BadInput(filepath.Join(m.Path, c), "is a text encoder of a kind that this version doesn't know").Advise(serves)
		}
		if err := m.bind(c, textModules(layers), pathNames, tt); err != nil {
			return err
		}
	}
	m.Family = m.folderFamily(h)
	for _, f := range m.files {
		m.markRest(f)
	}
	if stat, err := os.Stat(filepath.Join(m.Path, vaeFolder)); m.options.VAE && err == nil && stat.IsDir() {
		tt, err := m.openWeights(vaeFolder)
		if err != nil {
			return err
		}
		for _, f := range tt.files {
			for i := range f.Tensors {
				f.Tensors[i].Role = VAE
			}
		}
	}
	return nil
}

// folderFamily tells the family of a folder; widths of a text encoder tell where the UNet's don't.
func (m *Model) folderFamily(unet header) string {
	switch {
	case unet.has("add_embedding.linear_1.weight"), len(m.modules[TextEncoder2]) > 0:
		return SDXL
	case len(unet.shape(diffusersScheme.mid+".proj_in.weight")) == 2:
		return SD2
	}
	return SD1
}

// openWeights opens the weight files of a component: one file, or the shards of an index; full precision before variants.
func (m *Model) openWeights(c string) (*tables, error) {
	folder := filepath.Join(m.Path, c)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.BadInput(m.Path, "has no %s", c)
	}
	if err != nil {
		return nil, fault.BadInput(folder, "can't be read: %w", errors.Unwrap(err))
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	bases := []string{"diffusion_pytorch_model", "model"}
	if c != UNet && c != vaeFolder {
		bases = []string{"model", "diffusion_pytorch_model"}
	}
	variants := []string{"", ".fp32", ".bf16", ".fp16", ".non_ema"}
	if v := m.options.Variant; v != "" {
		if err := m.checkVariant(c, v, names); err != nil {
			return nil, err
		}
		variants = append([]string{"." + v}, variants...)
	}
	for _, variant := range variants {
		for _, base := range bases {
			file := base + variant + ".safetensors"
			if slices.Contains(names, file) {
				return m.openAll(c, []string{file}, names)
			}
			for _, index := range []string{base + ".safetensors.index" + variant + ".json", file + ".index.json"} {
				if slices.Contains(names, index) {
					shards, err := shardsOf(filepath.Join(folder, index))
					if err != nil {
						return nil, err
					}
					return m.openAll(c, shards, names)
				}
			}
		}
	}
	for _, name := range names {
		if isPickle(name) {
			return nil, fault.BadInput(folder, "has only PyTorch pickles (%s)", name).Advise("make a .safetensors file of it first: lycoris convert --in %q --out FILE", filepath.Join(folder, name))
		}
	}
	return nil, fault.BadInput(folder, "has no weights: %s.safetensors is missing", bases[0])
}

// checkVariant refuses a variant that the UNet has no files of, naming those that there are.
func (m *Model) checkVariant(c, variant string, names []string) error {
	if variant != filepath.Base(variant) || strings.ContainsAny(variant, "./\\") {
		return fault.BadUsage("--variant", "%q is not a name", variant).Advise("say --variant fp16 for the files that end in .fp16.safetensors")
	}
	var there []string
	for _, n := range names {
		parts := strings.Split(n, ".")
		if len(parts) < 3 || !strings.Contains(n, ".safetensors") {
			continue
		}
		if slices.Contains(parts[1:], variant) {
			return nil
		}
		if len(parts) == 3 && parts[2] == "safetensors" {
			there = append(there, parts[1])
		}
	}
	if c != UNet { // as in diffusers: without files of the variant the others are taken
		return nil
	}
	list := "none"
	if len(there) > 0 {
		list = strings.Join(there, ", ")
	}
	return fault.BadInput(filepath.Join(m.Path, c), "has no files of the variant %q; it has: %s", variant, list)
}

func isPickle(name string) bool {
	return slices.Contains([]string{".bin", ".pt", ".ckpt", ".pth"}, filepath.Ext(name))
}

// openAll opens the files of a component and remembers the weight files that stand beside them.
func (m *Model) openAll(c string, files, all []string) (*tables, error) {
	var open []*File
	for _, name := range files {
		f, err := m.open(filepath.Join(m.Path, c, name), filepath.Join(c, name))
		if err != nil {
			return nil, err
		}
		open = append(open, f)
	}
	for _, name := range all {
		if other := filepath.Ext(name) == ".safetensors" || isPickle(name); other && !slices.Contains(files, name) {
			m.skipped = append(m.skipped, filepath.Join(c, name))
		}
	}
	return newTables("", open...), nil
}

// shardsOf returns the files that an index names, in order. Names with folders in them are refused.
func shardsOf(path string) ([]string, error) {
	text, err := readJSON(path)
	if err != nil {
		return nil, err
	}
	var list struct {
		Map map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &list); err != nil || len(list.Map) == 0 {
		return nil, fault.BadInput(path, "is not an index of weights: it has no weight_map")
	}
	var names []string
	for _, name := range list.Map {
		if name != filepath.Base(name) || filepath.Ext(name) != ".safetensors" {
			return nil, fault.BadInput(path, "names a file %q that is not a .safetensors file beside it", name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > 1000 {
		return nil, fault.BadInput(path, "names more than 1000 files")
	}
	return names, nil
}

// readJSON reads a small file. A missing one is fs.ErrNotExist itself.
func readJSON(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, fault.BadInput(path, "can't be opened: %w", errors.Unwrap(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err != nil {
		return nil, fault.BadInput(path, "can't be read: %w", err)
	}
	if len(text) > maxJSON {
		return nil, fault.BadInput(path, "has more than %d bytes", maxJSON)
	}
	return text, nil
}
