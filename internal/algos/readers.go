package algos

// Reading says how other programs read an adapter differently from the way it was trained.
type Reading struct {
	algorithm string
	when      func(Options) bool // nil: always
	Text      string             // one sentence, without a full stop
}

// readings lists what other programs get wrong without saying so, and what none of them reads, as their sources stand (docs/algorithms.md has the whole table). A
// program that refuses a file with a message is not listed.
var readings = []Reading{
	{"lora", func(o Options) bool { return o.Tucker }, "tucker: sd-scripts drops the core of convolutions without a word, diffusers refuses the file"},
	{"lora", func(o Options) bool { return o.DoRA == "out" }, doraOut},
	{"loha", func(o Options) bool { return o.DoRA == "out" }, doraOut},
	{"lokr", func(o Options) bool { return o.DoRA == "out" }, doraOut},
	{"lora", func(o Options) bool { return o.DoRA != "" }, doraDropped},
	{"lokr", func(o Options) bool { return o.Rank == 1 && o.Alpha != 0 && o.Alpha != 1 }, "dim 1 with an alpha: stable-diffusion.cpp takes the scale 1"},
	{"lokr", func(o Options) bool { return o.Tucker }, "tucker: stable-diffusion.cpp doesn't read the core of convolutions"},
	{"ia3", nil, "AUTOMATIC1111 and InvokeAI misread ia3 of convolutions, ComfyUI and sd-scripts skip it"},
	{"glora", nil, "AUTOMATIC1111, diffusers and InvokeAI can't read glora"},
	{"glokr", nil, "no other program reads glokr: its definition is this project's own"},
	{"diag-oft", func(o Options) bool { return o.Constraint > 0 }, constrained},
	{"boft", func(o Options) bool { return o.Constraint > 0 }, constrained},
	{"diag-oft", func(o Options) bool { return o.Rescaled }, "rescaled: ComfyUI reads the factors and doesn't apply them"},
	{"tlora", nil, "only LyCORIS reads tlora, and on the base it was trained on only"},
}

const (
	doraOut     = "dora out: AUTOMATIC1111, InvokeAI and older ComfyUI take the magnitudes for those of inputs, newer ComfyUI and Forge divide by another norm; dora in is read alike everywhere"
	doraDropped = "dora: diffusers, sd-scripts and stable-diffusion.cpp leave the magnitudes out"
	constrained = "constraint: ComfyUI applies a bound smaller by the layer's width; 0 is read alike everywhere"
)

// Readings returns what to know about other programs before they read an adapter of algorithm name made with o.
func Readings(name string, o Options) []string {
	var all []string
	for _, r := range readings {
		if r.algorithm == name && (r.when == nil || r.when(o)) {
			all = append(all, r.Text)
		}
	}
	return all
}
