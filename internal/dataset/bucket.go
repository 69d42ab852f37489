package dataset

import (
	"fmt"
	"math"
	"slices"

	"lycoris/internal/fault"
)

// Size is a width and a height in pixels.
type Size struct{ W, H int }

// String returns the size as 640x448.
func (s Size) String() string { return fmt.Sprintf("%dx%d", s.W, s.H) }

// Area returns the number of pixels.
func (s Size) Area() int { return s.W * s.H }

// Defaults of the bucket keys.
const (
	DefaultBucketMin  = 256
	DefaultBucketMax  = 2048
	DefaultBucketStep = 64
)

// Allowed range of one side of the resolution and of the buckets.
const (
	minResolution = 64
	maxResolution = 8192
	latentFactor  = 8 // pixels per latent: the VAE halves three times
)

// BucketOptions are the keys bucket.*. Min, Max and Step of zero mean their defaults, where a default Min above the resolution's short
// side, or a default Max below its long side, gives way to that side.
type BucketOptions struct {
	Enable        bool // false: every picture is cropped to Width × Height
	Width, Height int  // resolution: its area is the area of every bucket
	Min, Max      int  // bounds of a bucket's side; Min is rounded down, Max up, to a multiple of Step
	Step          int  // every side is a multiple of it
	NoUpscale     bool // only shrink: small pictures get buckets of their own; Min and Max don't count
}

// Buckets is the list of sizes at which pictures are trained, and the rule that picks one of them.
type Buckets struct {
	opt    BucketOptions
	area   int
	sizes  []Size    // sorted by width, then height
	ratios []float64 // width / height of each size
}

// NewBuckets checks the options and makes the list, as sd-scripts does: first the square of the resolution's area, then for every
// width from min to max the largest height within that area, both ways round.
func NewBuckets(o BucketOptions) (*Buckets, error) {
	o, err := o.checked()
	if err != nil {
		return nil, err
	}
	b := &Buckets{opt: o, area: o.Width * o.Height}
	switch {
	case !o.Enable:
		b.sizes = []Size{{o.Width, o.Height}}
	case !o.NoUpscale:
		b.sizes = bucketSizes(b.area, o.Min, o.Max, o.Step)
	}
	for _, s := range b.sizes {
		b.ratios = append(b.ratios, float64(s.W)/float64(s.H))
	}
	return b, nil
}

// checked fills in the defaults and returns a usage error for values out of range.
func (o BucketOptions) checked() (BucketOptions, error) {
	for _, side := range []int{o.Width, o.Height} {
		if side < minResolution || side > maxResolution {
			return o, fault.BadUsage("bucket.resolution", "%d is out of range: each side is %d to %d pixels", side, minResolution, maxResolution)
		}
	}
	if !o.Enable {
		if o.Width%latentFactor != 0 || o.Height%latentFactor != 0 {
			return o, fault.BadUsage("bucket.resolution", "%dx%d: without buckets each side must be a multiple of %d", o.Width, o.Height, latentFactor)
		}
		return o, nil
	}
	if o.Step == 0 {
		o.Step = DefaultBucketStep
	}
	if o.Step < latentFactor || o.Step%latentFactor != 0 || o.Step > 1024 {
		return o, fault.BadUsage("bucket.step", "%d is not a multiple of %d from %d to 1024", o.Step, latentFactor, latentFactor)
	}
	short, long := min(o.Width, o.Height), max(o.Width, o.Height)
	if isqrt(o.Width*o.Height) < o.Step {
		return o, fault.BadUsage("bucket.step", "%d is larger than the resolution %dx%d", o.Step, o.Width, o.Height)
	}
	if o.Min == 0 {
		o.Min = min(DefaultBucketMin, short)
	}
	if o.Max == 0 {
		o.Max = max(DefaultBucketMax, long)
	}
	if o.Min < 1 || o.Max > maxResolution {
		return o, fault.BadUsage("bucket.min, bucket.max", "%d and %d are out of range: 1 to %d pixels", o.Min, o.Max, maxResolution)
	}
	o.Min = max(floorTo(o.Min, o.Step), o.Step)
	o.Max = floorTo(o.Max+o.Step-1, o.Step)
	if o.NoUpscale {
		return o, nil
	}
	if o.Min > max(short, o.Step) {
		return o, fault.BadUsage("bucket.min", "%d is larger than the short side of bucket.resolution %dx%d", o.Min, o.Width, o.Height).
			Advise("set bucket.min to %d or less, or raise bucket.resolution", floorTo(short, o.Step))
	}
	if o.Max < long {
		return o, fault.BadUsage("bucket.max", "%d is smaller than the long side of bucket.resolution %dx%d", o.Max, o.Width, o.Height).
			Advise("set bucket.max to %d or more", long)
	}
	return o, nil
}

// bucketSizes returns the sorted list of sizes whose area is at most area.
func bucketSizes(area, lo, hi, step int) []Size {
	square := floorTo(isqrt(area), step)
	sizes := []Size{{square, square}}
	for w := lo; w <= hi; w += step {
		if h := min(hi, floorTo(area/w, step)); h >= lo {
			sizes = append(sizes, Size{w, h}, Size{h, w})
		}
	}
	slices.SortFunc(sizes, compareSizes)
	return slices.Compact(sizes)
}

func compareSizes(a, b Size) int {
	if a.W != b.W {
		return a.W - b.W
	}
	return a.H - b.H
}

// Sizes returns the list, sorted by width, then height. It is empty in no-upscale mode, where buckets are made on demand.
func (b *Buckets) Sizes() []Size { return slices.Clone(b.sizes) }

// Options returns the options with the defaults filled in.
func (b *Buckets) Options() BucketOptions { return b.opt }

// Choose returns the bucket of a picture of w × h pixels and the size it is resized to, which covers the bucket; the rest is cut off.
//
// A bucket of exactly the picture's size wins; else the one whose ratio width/height is nearest, the first of equals. The picture is
// then scaled by the side that needs the larger scale. In no-upscale mode see [Buckets.shrink].
func (b *Buckets) Choose(w, h int) (bucket, resized Size) {
	if w < 1 || h < 1 {
		panic(fmt.Sprintf("dataset: Buckets.Choose: a picture of %dx%d", w, h))
	}
	if b.opt.Enable && b.opt.NoUpscale {
		return b.shrink(w, h)
	}
	i, exact := slices.BinarySearchFunc(b.sizes, Size{w, h}, compareSizes)
	if !exact {
		i = nearest(b.ratios, float64(w)/float64(h))
	}
	return b.sizes[i], cover(w, h, b.sizes[i])
}

// shrink is the no-upscale rule. A picture above the resolution's area is shrunk to it, keeping its ratio, so that one side becomes
// a multiple of step: of the two candidates (round the width, round the height) the one whose bucket ratio is nearer, the height on a
// tie. Smaller pictures keep their size. The bucket is the resized size floored to step.
//
// sd-scripts fails on pictures with a side below step; here such a side is enlarged to one step, the only enlargement in this mode.
func (b *Buckets) shrink(w, h int) (bucket, resized Size) {
	step, ar := b.opt.Step, float64(w)/float64(h)
	resized = Size{w, h}
	if w*h > b.area {
		rw := math.Sqrt(float64(b.area) * ar)
		rh := float64(b.area) / rw
		toStep := func(x float64) int { return floorTo(int(x+0.5), step) }
		byW, byH := toStep(rw), toStep(rh)
		ratioW := float64(byW) / float64(toStep(float64(byW)/ar)) // +Inf or NaN where a side is below step: never the nearer
		ratioH := float64(toStep(float64(byH)*ar)) / float64(byH)
		if byH == 0 || math.Abs(ratioW-ar) < math.Abs(ratioH-ar) {
			resized = Size{byW, int(float64(byW)/ar + 0.5)}
		} else {
			resized = Size{int(float64(byH)*ar + 0.5), byH}
		}
	}
	bucket = Size{floorTo(resized.W, step), floorTo(resized.H, step)}
	if bucket.W == 0 || bucket.H == 0 {
		bucket = Size{max(bucket.W, step), max(bucket.H, step)}
		if bucket.Area() > b.area { // a sliver: cut its long side down to the area
			long := max(floorTo(b.area/step, step), step)
			bucket = Size{min(bucket.W, long), min(bucket.H, long)}
		}
		resized = cover(w, h, bucket)
	}
	return bucket, resized
}

// cover returns the size of a w × h picture scaled to just cover the bucket.
func cover(w, h int, bucket Size) Size {
	scale := float64(bucket.W) / float64(w)
	if float64(w)/float64(h) > float64(bucket.W)/float64(bucket.H) {
		scale = float64(bucket.H) / float64(h)
	}
	return Size{max(int(float64(w)*scale+0.5), bucket.W), max(int(float64(h)*scale+0.5), bucket.H)}
}

// nearest returns the index of the ratio with the least distance to ar, the first of equals.
func nearest(ratios []float64, ar float64) int {
	best := 0
	for i, r := range ratios {
		if math.Abs(r-ar) < math.Abs(ratios[best]-ar) {
			best = i
		}
	}
	return best
}

func floorTo(x, step int) int { return x - x%step }

// isqrt returns ⌊√n⌋; n is below 2⁵³.
func isqrt(n int) int { return int(math.Sqrt(float64(n))) }
