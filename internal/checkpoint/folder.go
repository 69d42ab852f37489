package checkpoint

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lycoris/internal/arch"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// maxConfig bounds the JSON files of a folder; an index of SDXL's UNet has 0.2 MB.
const maxConfig = 16 << 20

func openFolder(m *Model) error {
	if err := m.checkIndex(); err != nil {
		return err
	}
	for _, c := range arch.Components {
		if err := m.openPart(c, filepath.Join(m.Path, string(c))); err != nil {
			return err
		}
	}
	if err := m.scheduler(); err != nil {
		return err
	}
	if m.UNet.AddedInput > 0 {
		return fault.BadInput(m.Path, "is an SDXL model; %s", trains)
	}
	return m.check()
}

// pipelines are the classes of model_index.json that aren't SD1.x, with what they are.
var pipelines = []struct{ prefix, what string }{
	{"StableDiffusionXLInpaint", "an SDXL inpainting model"}, {"StableDiffusionXL", "an SDXL model"}, {"StableDiffusion3", "a Stable Diffusion 3 model"},
	{"StableDiffusionInpaint", "an inpainting model"}, {"StableDiffusionInstructPix2Pix", "an instruct-pix2pix model"},
	{"StableDiffusionDepth2Img", "a depth-to-image model"}, {"StableDiffusionUpscale", "an upscaler"}, {"StableDiffusionLatentUpscale", "an upscaler"},
	{"StableVideoDiffusion", "a Stable Video Diffusion model"}, {"StableCascade", "a Stable Cascade model"}, {"Flux", "a Flux model"},
}

// checkIndex reads model_index.json and refuses other families.
func (m *Model) checkIndex() error {
	path := filepath.Join(m.Path, "model_index.json")
	text, err := readJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		return notModelFolder(m.Path)
	}
	if err != nil {
		return err
	}
	var index struct {
		Class string `json:"_class_name"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return fault.BadInput(path, "is not a JSON object: %v", err)
	}
	for _, p := range pipelines {
		if strings.HasPrefix(index.Class, p.prefix) {
			return fault.BadInput(m.Path, "is %s (%s); %s", p.what, index.Class, trains)
		}
	}
	if !strings.HasPrefix(index.Class, "StableDiffusion") && !strings.HasPrefix(index.Class, "AltDiffusion") && index.Class != "DiffusionPipeline" {
		return fault.BadInput(m.Path, "is a %q pipeline; %s", index.Class, trains)
	}
	return nil
}

// notModelFolder says what a folder without model_index.json may be.
func notModelFolder(path string) error {
	e := fault.BadInput(path, "is not a diffusers model: it has no model_index.json")
	if _, err := os.Stat(filepath.Join(path, "config.json")); err == nil {
		return e.Advise("it looks like one part of a model: pass the folder above it, %q", filepath.Dir(filepath.Clean(path)))
	}
	if files, _ := filepath.Glob(filepath.Join(globEscape(path), "*.safetensors")); len(files) > 0 {
		return e.Advise("it holds %q: pass that file", filepath.Base(files[0]))
	}
	return e.Advise("pass a .safetensors file, or the folder that holds model_index.json")
}

// globEscape quotes the special characters of a path for Glob.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// openPart reads the config of component c in folder and binds its tensors.
func (m *Model) openPart(c arch.Component, folder string) error {
	path := filepath.Join(folder, "config.json")
	text, err := readJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.BadInput(m.Path, "has no %s: %s is missing", c, filepath.Join(string(c), "config.json"))
	}
	if err != nil {
		return err
	}
	if err := m.parse(c, text); err != nil {
		return at(path, err)
	}
	if c == arch.UNet {
		if err := m.refuseUNet(); err != nil {
			return err
		}
	}
	locate, err := m.openWeights(c, folder)
	if err != nil {
		return err
	}
	return m.bind(c, diffusersFinder(c, locate))
}

// refuseUNet says what a UNet is whose config isn't SD1's.
func (m *Model) refuseUNet() error {
	what := ""
	switch u := m.UNet; {
	case u.AddedInput == 2816:
		what = "is an SDXL model"
	case u.AddedInput > 0:
		what = "is an SDXL refiner"
	case u.InChannels == 9:
		what = "is an inpainting model"
	case u.InChannels == 8:
		what = "is an instruct-pix2pix model"
	case u.InChannels == 5:
		what = "is a depth-to-image model"
	case u.InChannels == 7:
		what = "is an upscaler"
	case u.CrossAttentionDim == 1024 && u.LinearProjection:
		what = "is a Stable Diffusion 2.x model"
	default:
		return nil
	}
	return fault.BadInput(m.Path, "%s; %s", what, trains)
}

// openWeights opens the weight files of a component's folder: one file or the shards of an index, full precision before variants.
func (m *Model) openWeights(c arch.Component, folder string) (func(string) *tensor.File, error) {
	bases := []string{"diffusion_pytorch_model", "model"}
	if c == arch.TextEncoder {
		bases = []string{"model", "diffusion_pytorch_model"}
	}
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(folder, name))
		return err == nil
	}
	for _, variant := range []string{"", ".fp32", ".bf16", ".fp16", ".non_ema"} {
		for _, base := range bases {
			name := base + variant + ".safetensors"
			if exists(name) {
				f, err := m.open(filepath.Join(folder, name), filepath.Join(string(c), name))
				return func(tensorName string) *tensor.File {
					if f.Has(tensorName) {
						return f
					}
					return nil
				}, err
			}
			for _, index := range []string{base + ".safetensors.index" + variant + ".json", name + ".index.json"} {
				if exists(index) {
					return m.openShards(c, folder, index)
				}
			}
		}
	}
	entries, _ := os.ReadDir(folder)
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".bin" || ext == ".pt" || ext == ".ckpt" {
			return nil, fault.BadInput(folder, "has only PyTorch pickles (%s), which this version doesn't read", e.Name()).
				Advise("look for the .safetensors form of the model")
		}
	}
	return nil, fault.BadInput(folder, "has no weights: %s.safetensors is missing", bases[0])
}

// openShards opens the files that an index names. Names with folders in them are refused.
func (m *Model) openShards(c arch.Component, folder, index string) (func(string) *tensor.File, error) {
	path := filepath.Join(folder, index)
	text, err := readJSON(path)
	if err != nil {
		return nil, err
	}
	var list struct {
		Map map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fault.BadInput(path, "is not an index of weights: %v", err)
	}
	if len(list.Map) == 0 {
		return nil, fault.BadInput(path, "is not an index of weights: it has no weight_map")
	}
	shards := map[string]*tensor.File{}
	var names []string
	for _, name := range list.Map {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		if len(names) > 1000 {
			return nil, fault.BadInput(path, "names more than 1000 files")
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if name != filepath.Base(name) || !strings.HasSuffix(name, ".safetensors") {
			return nil, fault.BadInput(path, "names a file %q that is not a .safetensors file beside it", name)
		}
		if shards[name], err = m.open(filepath.Join(folder, name), filepath.Join(string(c), name)); err != nil {
			return nil, err
		}
	}
	return func(name string) *tensor.File {
		if f := shards[list.Map[name]]; f != nil && f.Has(name) {
			return f
		}
		return nil
	}, nil
}

// scheduler reads the prediction type of scheduler/scheduler_config.json; a folder without one is an epsilon model.
func (m *Model) scheduler() error {
	path := filepath.Join(m.Path, "scheduler", "scheduler_config.json")
	text, err := readJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s struct {
		Prediction Prediction `json:"prediction_type"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return fault.BadInput(path, "is not a JSON object: %v", err)
	}
	switch s.Prediction {
	case Epsilon, VPrediction:
		m.Prediction, m.Stated = s.Prediction, true
	case "":
	default:
		return fault.BadInput(path, "prediction_type %q is not supported: this version trains epsilon and v_prediction", s.Prediction)
	}
	return nil
}

// readJSON reads a small file. A missing one is fs.ErrNotExist itself.
func readJSON(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, fault.BadInput(path, "can't be opened: %w", errors.Unwrap(err)).Advise("check the rights of the file and of the folders above it")
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fault.BadInput(path, "can't be read: %w", err)
	}
	if len(text) > maxConfig {
		return nil, fault.BadInput(path, "has more than %d bytes", maxConfig)
	}
	return text, nil
}
