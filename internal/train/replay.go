package train

import (
	"context"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// replay feeds a run from a safetensors file in place of the data set and the random generator (docs/design: `--replay`):
//
//	latents (N,4,h,w), noise (N,4,h,w), timesteps (N) int64, and context (N,T,D) or input_ids (N,77) int64
//
// with N = updates · grad_accum · batch size rows, taken in order.
type replay struct {
	path              string
	batch, gradAccum  int
	channels, h, w    int
	latents, noise    []float32 // channels-last
	timesteps         []int
	states            []float32 // or
	ids               []int32
	statesPer, idsPer int // per row
	rows              int
	hashed            string
	encode            func(ctx context.Context, ids []int32) ([]float32, error) // states of one row's ids; nil where the step encodes
}

// openReplay reads and checks the file.
func openReplay(path string, batch, gradAccum, channels int) (*replay, error) {
	f, err := tensor.OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &replay{path: path, batch: batch, gradAccum: gradAccum, channels: channels}
	var wrong error
	read := func(name string, dims int, needed bool) (t tensor.Tensor) {
		if !f.Has(name) {
			if needed && wrong == nil {
				wrong = fault.BadInput(path, "holds no %q", name).Advise("a replay file needs latents, noise, timesteps and context or input_ids")
			}
			return t
		}
		t, err := f.Read(name)
		if err == nil && len(t.Shape) != dims {
			err = fault.BadInput(path, "%q has shape %v, want %d axes", name, t.Shape, dims)
		}
		if err != nil && wrong == nil {
			wrong = err
		}
		return t
	}
	latents, noise, steps := read("latents", 4, true), read("noise", 4, true), read("timesteps", 1, true)
	if wrong == nil {
		wrong = r.take(latents, noise, steps)
	}
	context, ids := read("context", 3, false), read("input_ids", 2, false)
	if wrong != nil {
		return nil, wrong
	}
	switch {
	case context.Data != nil && context.Shape[0] == r.rows:
		r.states, r.statesPer = context.Float32(), context.Shape[1]*context.Shape[2]
	case ids.Data != nil && ids.Shape[0] == r.rows:
		r.idsPer = ids.Shape[1]
		for _, id := range ids.Int64() {
			r.ids = append(r.ids, int32(id))
		}
	default:
		return nil, fault.BadInput(path, "needs context (%d,T,D) or input_ids (%d,77)", r.rows, r.rows)
	}
	r.hashed, err = tensor.HashFile(path)
	return r, err
}

func (r *replay) take(latents, noise, steps tensor.Tensor) error {
	s := latents.Shape
	if !tensor.SameShape(s, noise.Shape) || steps.Shape[0] != s[0] || s[1] != r.channels {
		return fault.BadInput(r.path, "latents %v, noise %v and timesteps %v don't fit each other and %d channels", s, noise.Shape, steps.Shape, r.channels)
	}
	r.rows, r.h, r.w = s[0], s[2], s[3]
	per := r.batch * r.gradAccum
	if r.rows%per != 0 || r.rows == 0 {
		return fault.BadInput(r.path, "has %d rows, which is not a multiple of batch size %d times grad_accum %d", r.rows, r.batch, r.gradAccum)
	}
	r.latents, r.noise = channelsLast(latents), channelsLast(noise)
	for i, t := range steps.Int64() {
		if t < 0 || t > 999 {
			return fault.BadInput(r.path, "timestep %d of row %d is outside 0 to 999", t, i)
		}
		r.timesteps = append(r.timesteps, int(t))
	}
	return nil
}

// channelsLast reorders [N,C,H,W] to [N,H,W,C].
func channelsLast(t tensor.Tensor) []float32 {
	n, c, p := t.Shape[0], t.Shape[1], t.Shape[2]*t.Shape[3]
	v, out := t.Float32(), make([]float32, n*c*p)
	for i := range n {
		for j := range c {
			for k := range p {
				out[(i*p+k)*c+j] = v[(i*c+j)*p+k]
			}
		}
	}
	return out
}

func (r *replay) prepare(ctx context.Context) error {
	if r.ids == nil || r.encode == nil {
		return nil
	}
	var all []float32
	for i := range r.rows {
		s, err := r.encode(ctx, r.ids[i*r.idsPer:(i+1)*r.idsPer])
		if err != nil {
			return err
		}
		all, r.statesPer = append(all, s...), len(s)
	}
	r.states = all
	return nil
}

func (r *replay) shapes() []shape      { return []shape{{r.batch, r.h, r.w}} }
func (r *replay) updates() int         { return r.rows / (r.batch * r.gradAccum) }
func (r *replay) updatesPerEpoch() int { return r.updates() }
func (r *replay) micros(int) int       { return r.gradAccum }
func (r *replay) hash() string         { return r.hashed }

func (r *replay) micro(_ context.Context, update, k int) (*micro, error) {
	from := (update*r.gradAccum + k) * r.batch
	to := from + r.batch
	per := r.channels * r.h * r.w
	m := &micro{shape: shape{r.batch, r.h, r.w}, latents: r.latents[from*per : to*per], noise: r.noise[from*per : to*per], timesteps: r.timesteps[from:to]}
	if r.ids != nil {
		m.ids = r.ids[from*r.idsPer : to*r.idsPer]
	}
	if r.states != nil {
		m.states = r.states[from*r.statesPer : to*r.statesPer]
	}
	return m, nil
}
