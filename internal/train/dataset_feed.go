package train

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"lycoris/internal/dataset"
	"lycoris/internal/diffusion"
	"lycoris/internal/pipeline"
	"lycoris/internal/rng"
	"lycoris/internal/textencoder/tokenizer"
	"lycoris/internal/ui"
)

// pictures feeds a run from a data set. Update u of an epoch takes batches u·gradAccum … of that epoch; the last window of an epoch may be short.
//
// What changes from step to step is drawn from streams addressed by (seed, purpose, batch of the run, item): the VAE's sample, noise, timestep, caption.
type pictures struct {
	plan                       *dataset.Plan
	model                      *pipeline.Model
	cache                      *dataset.Cache // nil: nothing is kept on disk
	progress                   ui.Progress
	seed                       uint64
	gradAccum                  int
	timesteps                  diffusion.TimestepRange
	text                       pipeline.TextOptions
	adapted                    bool   // the text encoder is part of the step: ids are dealt, not states
	vaeHash                    string // stands for the VAE's weights in cache keys
	textHash                   string // same for the text encoder and its settings
	noLatentCache, noTextCache bool   // cache.latents, cache.text are false
	// What changes from step to step in ways that can't be prepared, found by prepare:
	latePictures, lateText bool

	moments map[string][]float32 // by picture and geometry
	states  map[string][]float32 // by caption
	epoch   int
	batches []dataset.Batch
}

// memoryForCaches bounds what moments and states may take; what doesn't fit is read from the disk cache each time, or computed.
const memoryForCaches = 512 << 20

func (f *pictures) updatesPerEpoch() int {
	return (f.plan.BatchesPerEpoch() + f.gradAccum - 1) / f.gradAccum
}

func (f *pictures) micros(update int) int {
	first := update % f.updatesPerEpoch() * f.gradAccum
	return min(f.gradAccum, f.plan.BatchesPerEpoch()-first)
}

func (f *pictures) shapes() []shape {
	var all []shape
	factor := f.model.VAEConfig().Factor()
	batch := f.batchSize()
	for _, c := range f.plan.Counts() {
		h, w := c.Size.H/factor, c.Size.W/factor
		if c.Count >= batch {
			all = append(all, shape{batch, h, w})
		}
		if rest := c.Count % batch; rest > 0 {
			all = append(all, shape{rest, h, w})
		}
	}
	return all
}

func (f *pictures) batchSize() int {
	most := 1
	for _, b := range f.plan.Epoch(0) {
		most = max(most, len(b.Items))
	}
	return most
}

// hash covers the content of every picture, its caption and its geometry.
func (f *pictures) hash() string {
	h := sha256.New()
	set := f.plan.Set()
	for i, im := range set.Images {
		content, err := im.Hash()
		if err != nil {
			fmt.Fprintf(h, "unreadable %v\n", err)
			continue
		}
		fmt.Fprintf(h, "%x %q %+v %d %v\n", content, im.Caption, im.Text, im.Repeats, f.plan.Geometries(i))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// prepare makes the moments of all pictures and the states of all captions that don't change.
func (f *pictures) prepare(ctx context.Context) error {
	f.moments, f.states = map[string][]float32{}, map[string][]float32{}
	set := f.plan.Set()
	var work []dataset.Item
	for i := range set.Images {
		for _, g := range f.plan.Geometries(i) {
			work = append(work, dataset.Item{Image: i, Geometry: g})
		}
		f.latePictures = f.latePictures || len(f.plan.Geometries(i)) == 0
	}
	f.progress.Phase(ui.CacheLatents, len(work))
	for _, item := range work {
		if _, err := f.momentsOf(ctx, item); err != nil {
			return err
		}
		f.progress.Add(1)
	}
	if f.adapted {
		return nil
	}
	f.progress.Phase(ui.CacheText, len(set.Images))
	for _, im := range set.Images {
		if im.Varies() {
			f.lateText = true
		} else if _, err := f.statesOf(ctx, fixedCaption(im), true); err != nil {
			return err
		}
		f.progress.Add(1)
	}
	return nil
}

// fixedCaption is the text of a caption that doesn't vary, or one of its variants.
func fixedCaption(im *dataset.Image) string { return im.CaptionAt(rng.New(0, "fixed caption", 0, 0)) }

// release frees the parts of the model that no feed of fs needs any more.
func release(m *pipeline.Model, fs ...*pictures) {
	latePictures, lateText := false, false
	for _, f := range fs {
		latePictures, lateText = latePictures || f.latePictures, lateText || f.lateText || f.adapted
	}
	if !latePictures {
		m.Release(m.VAE)
	}
	if !lateText {
		m.Release(m.Text)
	}
	m.FreeArena()
}

// momentsOf returns the VAE moments of a picture under a geometry: from memory, from the disk cache, or computed.
func (f *pictures) momentsOf(ctx context.Context, item dataset.Item) ([]float32, error) {
	im := f.plan.Set().Images[item.Image]
	name := fmt.Sprint(item.Image, " ", item.Geometry)
	if m, ok := f.moments[name]; ok {
		return m, nil
	}
	cfg := f.model.VAEConfig()
	factor := cfg.Factor()
	h, w := item.Geometry.Bucket.H, item.Geometry.Bucket.W
	size := []int{h / factor, w / factor, 2 * cfg.LatentChannels}
	content, err := im.Hash()
	if err != nil {
		return nil, err
	}
	key := dataset.LatentKey(content, item.Geometry, f.vaeHash)
	cache := f.cache
	if f.noLatentCache {
		cache = nil
	}
	m, ok := cache.Get(key, size)
	if !ok {
		pixels, err := im.Load(item.Geometry)
		if err != nil {
			return nil, err
		}
		if m, err = f.model.Encode(ctx, pixels, h, w); err != nil {
			return nil, err
		}
		cache.Put(key, size, m)
	}
	if 4*len(m)*(len(f.moments)+1) < memoryForCaches && len(f.plan.Geometries(item.Image)) > 0 {
		f.moments[name] = m
	}
	return m, nil
}

// statesOf returns the text states of a caption; fixed ones are kept in memory and on disk.
func (f *pictures) statesOf(ctx context.Context, caption string, fixed bool) ([]float32, error) {
	if s, ok := f.states[caption]; ok {
		return s, nil
	}
	size := []int{f.text.Tokens(), f.model.Base.Text.Width}
	key := dataset.TextKey(caption, f.textHash)
	cache := f.cache
	if f.noTextCache || !fixed {
		cache = nil
	}
	s, ok := cache.Get(key, size)
	if !ok {
		var err error
		if s, err = f.model.TextStates(ctx, caption, f.text, nil); err != nil {
			return nil, err
		}
		cache.Put(key, size, s)
	}
	if fixed && 4*len(s)*(len(f.states)+1) < memoryForCaches {
		f.states[caption] = s
	}
	return s, nil
}

// batch returns batch number k of an update, and its number in the run.
func (f *pictures) batch(update, k int) (dataset.Batch, uint64) {
	per := f.updatesPerEpoch()
	epoch, first := update/per, update%per*f.gradAccum
	if f.batches == nil || f.epoch != epoch {
		f.epoch, f.batches = epoch, f.plan.Epoch(epoch)
	}
	return f.batches[first+k], uint64(epoch)*uint64(len(f.batches)) + uint64(first+k)
}

func (f *pictures) micro(ctx context.Context, update, k int) (*micro, error) {
	b, number := f.batch(update, k)
	factor := f.model.VAEConfig().Factor()
	m := &micro{shape: shape{len(b.Items), b.Bucket.H / factor, b.Bucket.W / factor}}
	for i, item := range b.Items {
		draw := func(purpose string) *rng.Stream { return rng.New(f.seed, purpose, number, uint64(i)) }
		if err := f.add(ctx, m, item, draw); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// add appends one picture to m.
func (f *pictures) add(ctx context.Context, m *micro, item dataset.Item, draw func(purpose string) *rng.Stream) error {
	im := f.plan.Set().Images[item.Image]
	moments, err := f.momentsOf(ctx, item)
	if err != nil {
		return err
	}
	cfg := f.model.VAEConfig()
	size := len(moments) / 2
	sample, noise, latents := make([]float32, size), make([]float32, size), make([]float32, size)
	draw("vae sample").FillNormal(sample)
	draw("noise").FillNormal(noise)
	diffusion.SampleLatents(latents, moments, sample, cfg.LatentChannels, cfg.ScalingFactor)
	m.latents, m.noise = append(m.latents, latents...), append(m.noise, noise...)
	m.timesteps = append(m.timesteps, f.timesteps.Sample(draw("timestep")))
	m.names = append(m.names, im.Name)
	caption := im.CaptionAt(draw("caption"))
	if f.adapted {
		m.ids = append(m.ids, tokenizer.Encode(caption, f.text.MaxTokens)...)
		return nil
	}
	states, err := f.statesOf(ctx, caption, !im.Varies())
	m.states = append(m.states, states...)
	return err
}
