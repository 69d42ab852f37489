package train

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"lycoris/internal/adapter"
	"lycoris/internal/algos"
	"lycoris/internal/diffusion"
	"lycoris/internal/runs"
	"lycoris/internal/tensor"
)

// saveAdapter writes the adapter as other programs read it.
func (t *trainer) saveAdapter(path string) error {
	began := time.Now()
	meta, err := t.metadata()
	if err != nil {
		return err
	}
	d := map[string]tensor.DType{"fp32": tensor.F32, "fp16": tensor.F16, "bf16": tensor.BF16}[t.cfg.Save.DType]
	if err := adapter.SaveStream(path, t.network.Stream(t.backend), meta.Map(adapter.Level(t.cfg.Save.Metadata)), d); err != nil {
		return err
	}
	t.adapter = path
	if err := t.opt.Run.Update(func(i *runs.Info) { i.Adapter = t.relative(path) }); err != nil {
		return err
	}
	sum, err := tensor.HashFile(path)
	if err != nil {
		return err
	}
	return t.metrics.Write(runs.FileLine{Kind: "save", Step: t.done, Path: t.relative(path), Bytes: fileSize(path), SHA256: sum, Seconds: time.Since(began).Seconds()})
}

// metadata describes the run. It holds no times and no random ids: the same command writes the same bytes, stopped and resumed or not.
func (t *trainer) metadata() (adapter.Metadata, error) {
	c := t.cfg
	w, h := t.resolution()
	m := adapter.Metadata{Prediction: "epsilon", OutputName: t.opt.Run.Name(), Algorithm: c.Algo, Plain: t.plain(), Dim: c.Dim, Alpha: c.Alpha,
		LearningRate: c.LR, UNetLR: c.LRUnet, Optimizer: "torch.optim.adamw.AdamW", Scheduler: c.Scheduler.Name, WarmupSteps: c.Scheduler.Warmup.Of(t.steps),
		MaxGradNorm: c.Train.MaxGradNorm, Checkpointing: c.Train.Checkpointing == "true", Accumulation: c.GradAccum, Seed: int64(c.Seed),
		ClipSkip: c.Model.ClipSkip, MaxTokens: c.Model.MaxTokens, CacheLatents: c.Cache.Latents, ScaleWeightNorms: c.Train.ScaleWeightNorms,
		SessionID: hashConfig(c)[:10], Steps: t.done, MaxSteps: t.steps, Epoch: (t.done + t.feed.updatesPerEpoch() - 1) / t.feed.updatesPerEpoch(), Epochs: t.epochs,
		BatchSize: c.BatchSize, Width: w, Height: h, Bucketing: c.Bucket.Enable, BucketNoUpscale: c.Bucket.NoUpscale, MinBucket: c.Bucket.Min, MaxBucket: c.Bucket.Max,
		ModelName: filepath.Base(t.base.Path), ProgramVersion: t.opt.Version}
	if t.engine.prediction == diffusion.VPrediction {
		m.Prediction = "v_prediction"
	}
	if t.engine.adaptsText {
		m.TextLR = c.LRTE
	}
	if !m.Plain && c.ConvDim > 0 {
		m.ConvDim, m.ConvAlpha = c.ConvDim, c.ConvAlpha
	}
	m.NetworkArgs = map[string]string{}
	for key, on := range map[string]bool{"use_tucker": c.Tucker, "use_scalar": c.UseScalar, "rs_lora": c.RSLora, "rescaled": c.Rescaled, "decompose_both": c.DecomposeBoth,
		"full_matrix": c.FullMatrix, "unbalanced_factorization": c.Unbalanced, "train_norm": c.TrainNorm, "dora_wd": c.DoRA != "none"} {
		if on {
			m.NetworkArgs[key] = "True"
		}
	}
	if c.DoRA != "none" {
		m.NetworkArgs["wd_on_output"] = map[bool]string{true: "True", false: "False"}[c.DoRA == "out"]
	}
	switch c.Algo {
	case "lokr", "glokr":
		m.NetworkArgs["factor"] = strconv.Itoa(c.Factor)
	case "dylora":
		m.NetworkArgs["block_size"] = strconv.Itoa(c.BlockSize)
	case "diag-oft", "boft":
		m.NetworkArgs["constraint"] = fmt.Sprint(c.Constraint)
	}
	for key, p := range map[string]float64{"rank_dropout": c.Dropout.Rank, "module_dropout": c.Dropout.Module, "dropout": c.Dropout.Neuron} {
		if p > 0 {
			m.NetworkArgs[key] = fmt.Sprint(p)
		}
	}
	t.describeDyLoRA(&m)
	var err error
	if m.ModelHash, err = t.base.Hash(); err != nil {
		return m, err
	}
	if m.ModelOldHash, err = t.base.OldHash(); err != nil {
		return m, err
	}
	if t.vae != t.base {
		m.VAEName = filepath.Base(t.vae.Path)
		if m.VAEHash, err = t.vae.Hash(); err != nil {
			return m, err
		}
	}
	t.describeData(&m)
	return m, nil
}

// plain reports whether the adapter is LoRA on Linear and 1×1 layers only, which loads as networks.lora.
func (t *trainer) plain() bool {
	for _, a := range t.network.Adapters {
		if a.Algorithm() != &algos.LoRA || a.Target().HasWindow() {
			return false
		}
	}
	return true
}

// describeDyLoRA adds what a reader must know to cut the file, if the adapter is a DyLoRA.
func (t *trainer) describeDyLoRA(m *adapter.Metadata) {
	if !slices.ContainsFunc(t.network.Adapters, func(a algos.Adapter) bool { return a.Algorithm() == &algos.DyLoRA }) {
		return
	}
	rule := options(t.cfg, algos.Target{}, nil).BlockScale
	if rule == "" {
		rule = algos.BlockScales[0]
	}
	m.Extra = map[string]string{"lycoris.dylora_scale": rule}
}

// describeData adds folders, tags and buckets.
func (t *trainer) describeData(m *adapter.Metadata) {
	if t.data == nil {
		return
	}
	set := t.data.plan.Set()
	m.Images, m.BatchesPerEpoch = set.Total(), t.data.plan.BatchesPerEpoch()
	m.Dirs, m.Tags = map[string]adapter.Dir{}, map[string]map[string]int{}
	for _, im := range set.Images {
		d := m.Dirs[im.Folder]
		m.Dirs[im.Folder] = adapter.Dir{Repeats: im.Repeats, Images: d.Images + 1}
		m.FlipAug = m.FlipAug || im.Flip
		m.RandomCrop = m.RandomCrop || im.Crop == "random"
		m.ShuffleCaption, m.KeepTokens = m.ShuffleCaption || im.Text.Shuffle, max(m.KeepTokens, im.Text.KeepTokens)
		m.CaptionDropout, m.TagDropout = max(m.CaptionDropout, im.Text.Dropout), max(m.TagDropout, im.Text.TagDropout)
		tags := m.Tags[im.Folder]
		if tags == nil {
			tags = map[string]int{}
			m.Tags[im.Folder] = tags
		}
		for _, tag := range strings.Split(fixedCaption(im), ",") {
			if tag = strings.TrimSpace(tag); tag != "" {
				tags[tag]++
			}
		}
	}
	for _, b := range t.data.plan.Counts() {
		m.Buckets = append(m.Buckets, adapter.Bucket{Width: b.Size.W, Height: b.Size.H, Count: b.Count})
	}
}
