package train

import (
	"fmt"

	"lycoris/internal/algos"
	"lycoris/internal/checkpoint"
	"lycoris/internal/config"
	"lycoris/internal/dataset"
	"lycoris/internal/diffusion"
	"lycoris/internal/fault"
	"lycoris/internal/graph"
	"lycoris/internal/kernels"
	"lycoris/internal/optim"
	"lycoris/internal/pipeline"
	"lycoris/internal/ui"
)

// Input is what a job is made of.
type Input struct {
	Config         *config.Config
	StepsGiven     bool   // steps or epochs were set by the user: a replay file then may be longer
	Replay         string // file that feeds the run, or empty
	NetworkWeights string // adapter to start from, or empty
	Backend        kernels.Backend
	UI             *ui.UI
}

// Job is a run that is known from headers alone: nothing of the weights has been read.
type Job struct {
	in       Input
	cfg      *config.Config
	base     *checkpoint.Model
	vae      *checkpoint.Model // Base's own, or another
	model    *pipeline.Model
	network  *algos.Network
	lrScale  map[string]float64 // of layers, by path
	engine   *engine
	feed     feed
	data     *pictures // feed, where it is a data set
	held     *pictures // validation pictures, or nil
	groups   []optim.Group
	lr       optim.Schedule
	steps    int // updates in all
	epochs   int
	Memory   Memory
	Warnings []string
}

// Prepare opens the model and the pictures and settles everything about the run.
func Prepare(in Input) (j *Job, err error) {
	j = &Job{in: in, cfg: in.Config}
	defer func() {
		if err != nil {
			j.Close()
			j = nil
		}
	}()
	in.UI.Progress().Phase(ui.ReadModel, 0)
	if err := j.openModel(); err != nil {
		return j, err
	}
	if err := j.makeNetwork(); err != nil {
		return j, err
	}
	j.makeEngine()
	if err := j.makeFeed(); err != nil {
		return j, err
	}
	if err := j.countSteps(); err != nil {
		return j, err
	}
	if _, err := j.prompts(); err != nil {
		return j, err
	}
	j.groups = j.makeGroups()
	return j, j.planMemory()
}

// Close frees everything.
func (j *Job) Close() {
	if j.network != nil {
		j.network.Free(j.in.Backend)
	}
	if j.model != nil {
		j.model.Close()
	}
	if j.vae != nil && j.vae != j.base {
		j.vae.Close()
	}
	if j.base != nil {
		j.base.Close()
	}
}

func (j *Job) openModel() (err error) {
	if j.base, err = checkpoint.Open(j.cfg.Model.Path); err != nil {
		return err
	}
	j.vae = j.base
	if j.cfg.Model.VAE != "" {
		if j.vae, err = checkpoint.OpenVAE(j.cfg.Model.VAE); err != nil {
			return err
		}
	}
	j.model = pipeline.New(j.base, j.vae, j.in.Backend)
	return nil
}

func (j *Job) makeEngine() {
	c := j.cfg
	e := &engine{model: j.model, network: j.network, trained: map[*graph.Param]bool{}, seed: c.Seed, gradAccum: c.GradAccum,
		text:     pipeline.TextOptions{ClipSkip: c.Model.ClipSkip, MaxTokens: c.Model.MaxTokens},
		schedule: diffusion.NewSchedule(false), prediction: j.prediction(), programs: map[programKey]*pipeline.Program{},
		masks: c.Dropout.Neuron > 0, trainedParts: map[partKey]bool{}}
	for _, a := range j.network.Adapters {
		text := isText(a.Target().Path)
		e.adaptsText = e.adaptsText || text
		e.masks = e.masks || len(a.Inputs()) > 0
		frozen := text && !j.trainsText() || !text && c.LRUnet == 0
		for _, f := range a.Factors() {
			e.trained[f.Param] = !f.Frozen && !frozen
		}
	}
	j.engine = e
}

// prediction is what the configuration says, else what the model says.
func (j *Job) prediction() diffusion.Prediction {
	v := j.base.Prediction == checkpoint.VPrediction
	switch j.cfg.Model.Prediction {
	case "eps":
		v = false
	case "v":
		v = true
	}
	if v {
		return diffusion.VPrediction
	}
	return diffusion.Epsilon
}

// makeFeed opens the replay file, or scans and deals the pictures.
func (j *Job) makeFeed() error {
	c := j.cfg
	if j.in.Replay != "" {
		r, err := openReplay(j.in.Replay, c.BatchSize, c.GradAccum, j.base.UNet.InChannels)
		if err != nil {
			return err
		}
		return j.feedReplay(r)
	}
	return j.scan()
}

func (j *Job) sources() []dataset.Source {
	var all []dataset.Source
	for _, d := range j.cfg.Data {
		all = append(all, dataset.Source{Path: d.Path, Repeats: d.Repeats, CaptionExt: d.CaptionExt, ClassTokens: d.ClassTokens, Flip: d.Flip,
			Crop: dataset.Crop(d.Crop), KeepTokens: d.KeepTokens, Shuffle: d.Shuffle, CaptionDropout: d.CaptionDropout, TagDropout: d.TagDropout,
			Prefix: d.Prefix, Suffix: d.Suffix})
	}
	return all
}

func (j *Job) limits() dataset.Limits {
	l := j.cfg.DataLimits
	return dataset.Limits{MaxPixels: l.MaxPixels, MaxFile: l.MaxFile, OnBad: dataset.OnBad(l.OnBad)}
}

// resolution returns the training size in pixels: 512×512 for SD1.
func (j *Job) resolution() (w, h int) {
	if r := j.cfg.Bucket.Resolution; !r.IsAuto() {
		return r.W, r.H
	}
	return 512, 512
}

func (j *Job) buckets() (*dataset.Buckets, error) {
	b := j.cfg.Bucket
	w, h := j.resolution()
	o := dataset.BucketOptions{Enable: b.Enable, Width: w, Height: h, Min: min(b.Min, w, h), Max: max(b.Max, w, h), Step: b.Step, NoUpscale: b.NoUpscale}
	return dataset.NewBuckets(o)
}

func (j *Job) scan() error {
	u, c := j.in.UI, j.cfg
	u.Progress().Phase(ui.ScanPictures, 0)
	set, err := j.scanned(j.sources())
	if err != nil {
		return err
	}
	buckets, err := j.buckets()
	if err != nil {
		return err
	}
	train, held, err := set.Split(c.Validate.Split, c.Seed)
	if err != nil {
		return err
	}
	if c.Validate.Path != "" {
		if held, err = j.scanned([]dataset.Source{{Path: c.Validate.Path}}); err != nil {
			return err
		}
	}
	if j.data, err = j.pictures(train, buckets, c.BatchSize); err != nil {
		return err
	}
	if held != nil && len(held.Images) > 0 {
		for _, im := range held.Images {
			im.Flip, im.Crop, im.Repeats = false, dataset.CropCenter, 1
			im.Text.Dropout, im.Text.TagDropout, im.Text.Shuffle = 0, 0, false
		}
		if j.held, err = j.pictures(held, buckets, 1); err != nil {
			return err
		}
	}
	j.feed = j.data
	return nil
}

// scanned lists the pictures of the sources and says what is odd about them. Where bad ones are to be skipped, all are decoded: a damaged one must
// be known before the batches are dealt.
func (j *Job) scanned(sources []dataset.Source) (*dataset.Set, error) {
	limits := j.limits()
	set, err := dataset.Scan(sources, limits)
	if err == nil && limits.OnBad == dataset.Skip {
		set, err = set.Verify()
	}
	if err != nil {
		return nil, err
	}
	for _, w := range append(set.Warnings[:len(set.Warnings):len(set.Warnings)], set.Notes...) {
		j.Warnings = append(j.Warnings, w.String())
		j.in.UI.Warn(w.String(), w.Advice)
	}
	for _, f := range set.Skipped {
		j.Warnings = append(j.Warnings, "left out: "+f.String())
		j.in.UI.Debug("left out: " + f.String())
	}
	return set, nil
}

// pictures returns the feed of a set.
func (j *Job) pictures(set *dataset.Set, buckets *dataset.Buckets, batch int) (*pictures, error) {
	c := j.cfg
	plan, err := dataset.NewPlan(set, buckets, batch, c.Seed)
	if err != nil {
		return nil, err
	}
	f := &pictures{plan: plan, model: j.model, progress: j.in.UI.Progress(), seed: c.Seed, gradAccum: c.GradAccum, text: j.engine.text,
		adapted: j.engine.adaptsText, timesteps: diffusion.TimestepRange{Min: c.Train.Timesteps[0], Max: c.Train.Timesteps[1]},
		vaeHash: j.vae.Identity(), textHash: fmt.Sprint(j.base.Identity(), " ", j.engine.text)}
	if c.Cache.Latents || c.Cache.Text {
		dir := c.Cache.Dir
		if dir == "" {
			if dir, err = dataset.DefaultCacheDir(); err != nil {
				return nil, err
			}
		}
		f.cache = dataset.OpenCache(dir, func(w dataset.Warning) { j.in.UI.Warn(w.String(), w.Advice) })
	}
	f.noLatentCache, f.noTextCache = !c.Cache.Latents, !c.Cache.Text
	return f, nil
}

// countSteps settles the number of updates and the schedule.
func (j *Job) countSteps() error {
	c := j.cfg
	per := j.feed.updatesPerEpoch()
	switch r, isReplay := j.feed.(*replay); {
	case isReplay && !j.in.StepsGiven:
		j.steps = r.updates()
	case c.Epochs > 0:
		j.steps = c.Epochs * per
	default:
		j.steps = c.Steps
	}
	if r, ok := j.feed.(*replay); ok && j.steps > r.updates() {
		return fault.BadInput(j.in.Replay, "holds %d updates of %d × %d rows, %d are asked for", r.updates(), c.GradAccum, c.BatchSize, j.steps)
	}
	j.epochs = (j.steps + per - 1) / per
	s := c.Scheduler
	var err error
	j.lr, err = optim.NewSchedule(s.Name, j.steps, float64(s.Warmup.Of(j.steps)), s.MinLR)
	return err
}
