package train

import (
	"context"
	"fmt"
)

// shape is the size of one forward: n items with latents [h,w].
type shape struct{ n, h, w int }

// String returns the size in latent pixels.
func (s shape) String() string { return fmt.Sprintf("%d×%dx%d", s.n, s.w, s.h) }

// micro is what one forward and backward reads. Latents and noise are channels-last.
type micro struct {
	shape
	latents, noise []float32 // [n,h,w,C], latents scaled
	timesteps      []int
	states         []float32 // text states [n,T,D]; nil when ids are given
	ids            []int32   // laid-out token ids [n·chunks·77]; nil when states are given
	names          []string  // of the pictures, for messages
}

// feed deals micro batches by update (from 0) and number within the update; nothing in it depends on what was dealt before.
type feed interface {
	// prepare makes caches; it may use the model.
	prepare(ctx context.Context) error
	// shapes returns all sizes that can come.
	shapes() []shape
	// updatesPerEpoch returns the number of updates in one pass over the data.
	updatesPerEpoch() int
	// micros returns how many micro batches update has.
	micros(update int) int
	micro(ctx context.Context, update, k int) (*micro, error)
	// hash stands for the data in run.json and on resume.
	hash() string
}
