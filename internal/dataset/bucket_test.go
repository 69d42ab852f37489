package dataset

import (
	"math"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/fault"
)

func mustBuckets(t *testing.T, o BucketOptions) *Buckets {
	t.Helper()
	b, err := NewBuckets(o)
	if err != nil {
		t.Fatalf("NewBuckets(%+v): %v", o, err)
	}
	return b
}

// The counts are those of docs: training reference 2.1, reckoned from sd-scripts' loop.
func TestBucketSizes(t *testing.T) {
	tests := []struct {
		name           string
		w, h           int
		min, max, step int
		want           int
	}{
		{"512 as sd-scripts", 512, 512, 256, 1024, 64, 17},
		{"512 defaults", 512, 512, 0, 0, 0, 17},
		{"768 as sd-scripts", 768, 768, 256, 1024, 64, 19},
		{"1024, max 1024", 1024, 1024, 256, 1024, 64, 25},
		{"1024, max 2048", 1024, 1024, 256, 2048, 64, 41},
		{"1024, step 32", 1024, 1024, 256, 2048, 32, 81},
		{"512, step 32", 512, 512, 256, 1024, 32, 33},
		{"oblong resolution", 640, 384, 256, 2048, 64, 17},
		{"min and max off the step", 512, 512, 300, 1000, 64, 17},
		{"one small square", 64, 64, 0, 64, 64, 1},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			b := mustBuckets(t, BucketOptions{Enable: true, Width: tc.w, Height: tc.h, Min: tc.min, Max: tc.max, Step: tc.step})
			sizes := b.Sizes()
			if len(sizes) != tc.want {
				t.Errorf("%d buckets, want %d: %v", len(sizes), tc.want, sizes)
			}
			if !slices.IsSortedFunc(sizes, compareSizes) {
				t.Errorf("not sorted: %v", sizes)
			}
			step := b.Options().Step
			for _, s := range sizes {
				if s.W%step != 0 || s.H%step != 0 || s.Area() > tc.w*tc.h {
					t.Errorf("bucket %v: not a multiple of %d within %d pixels", s, step, tc.w*tc.h)
				}
			}
		})
	}
	got := mustBuckets(t, BucketOptions{Enable: true, Width: 512, Height: 512}).Sizes()
	want := []Size{{256, 832}, {256, 896}, {256, 960}, {256, 1024}, {320, 704}, {320, 768}, {384, 640}, {448, 576}, {512, 512},
		{576, 448}, {640, 384}, {704, 320}, {768, 320}, {832, 256}, {896, 256}, {960, 256}, {1024, 256}}
	if !slices.Equal(got, want) {
		t.Errorf("512²: got %v\nwant %v", got, want)
	}
}

func TestBucketChoose(t *testing.T) {
	plain := BucketOptions{Enable: true, Width: 512, Height: 512}
	shrinkOnly := BucketOptions{Enable: true, Width: 512, Height: 512, NoUpscale: true}
	single := BucketOptions{Width: 512, Height: 448}
	tests := []struct {
		name            string
		o               BucketOptions
		w, h            int
		bucket, resized Size
	}{
		{"16:9", plain, 1920, 1080, Size{640, 384}, Size{683, 384}},   // 1.778: 640/384 is nearest; taller picture side scales by height
		{"9:16", plain, 1080, 1920, Size{384, 640}, Size{384, 683}},   // the same turned
		{"3:2", plain, 3000, 2000, Size{640, 384}, Size{640, 427}},    // 1.5: |1.667-1.5| < |1.286-1.5|; scale by width
		{"exact", plain, 640, 384, Size{640, 384}, Size{640, 384}},    // member of the list
		{"enlarged", plain, 100, 100, Size{512, 512}, Size{512, 512}}, // small pictures grow
		{"almost square", plain, 801, 800, Size{512, 512}, Size{513, 512}},
		{"4:1", plain, 4000, 1000, Size{1024, 256}, Size{1024, 256}},
		{"5:1 is cut", plain, 5000, 1000, Size{1024, 256}, Size{1280, 256}},
		{"sliver", plain, 1, 20000, Size{256, 1024}, Size{256, 5120000}},

		{"shrink 16:9", shrinkOnly, 1920, 1080, Size{640, 384}, Size{683, 384}},
		{"shrink 3:2", shrinkOnly, 3000, 2000, Size{576, 384}, Size{576, 384}}, // rw=627→576→384: ratio 1.5 exactly
		{"shrink 9:16", shrinkOnly, 1080, 1920, Size{384, 640}, Size{384, 683}},
		{"shrink 7:5", shrinkOnly, 700, 500, Size{512, 384}, Size{538, 384}},
		{"shrink 20:7", shrinkOnly, 2000, 700, Size{704, 256}, Size{731, 256}},
		{"small stays", shrinkOnly, 300, 400, Size{256, 384}, Size{300, 400}},
		{"exactly the area", shrinkOnly, 512, 512, Size{512, 512}, Size{512, 512}},
		{"square shrinks", shrinkOnly, 1000, 1000, Size{512, 512}, Size{512, 512}},
		{"below one step", shrinkOnly, 40, 50, Size{64, 64}, Size{64, 80}},
		{"one side below one step", shrinkOnly, 32, 128, Size{64, 128}, Size{64, 256}},

		{"no buckets, wide", single, 2000, 1000, Size{512, 448}, Size{896, 448}},
		{"no buckets, tall", single, 1000, 2000, Size{512, 448}, Size{512, 1024}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			bucket, resized := mustBuckets(t, tc.o).Choose(tc.w, tc.h)
			if bucket != tc.bucket || resized != tc.resized {
				t.Errorf("%dx%d: bucket %v of %v, want %v of %v", tc.w, tc.h, bucket, resized, tc.bucket, tc.resized)
			}
		})
	}
}

// Any picture gets a bucket that is a multiple of the step, within the area, and covered by the resized picture.
func TestBucketChooseHolds(t *testing.T) {
	for _, o := range []BucketOptions{
		{Enable: true, Width: 512, Height: 512},
		{Enable: true, Width: 1024, Height: 768, Step: 32},
		{Enable: true, Width: 512, Height: 512, NoUpscale: true},
		{Enable: true, Width: 96, Height: 96, Step: 8, NoUpscale: true},
		{Width: 512, Height: 512},
	} {
		b := mustBuckets(t, o)
		step := max(b.Options().Step, latentFactor)
		for i := range 4000 {
			w := int(math.Exp(float64(i%61)*0.16)) + i%7
			h := int(math.Exp(float64(i%67)*0.15)) + i%5
			w, h = max(w, 1), max(h, 1)
			g := b.Geometry(w, h)
			g.check()
			area := float64(o.Width * o.Height)
			if o.NoUpscale { // a side is rounded to whole pixels before it is floored to step: up by half a pixel, and the other with it
				area *= math.Pow(float64(step)/(float64(step)-0.5), 2)
			}
			if g.Bucket.W%step != 0 || g.Bucket.H%step != 0 || float64(g.Bucket.Area()) > area {
				t.Fatalf("%+v: %dx%d got bucket %v", o, w, h, g.Bucket)
			}
			if o.NoUpscale && w >= step && h >= step && (g.Resized.W > w || g.Resized.H > h) && w*h <= o.Width*o.Height {
				t.Fatalf("%+v: %dx%d was enlarged to %v", o, w, h, g.Resized)
			}
		}
	}
}

func TestGeometryCentres(t *testing.T) {
	g := mustBuckets(t, BucketOptions{Enable: true, Width: 512, Height: 512}).Geometry(1920, 1080)
	want := Geometry{Bucket: Size{640, 384}, Resized: Size{683, 384}, CropX: 21} // (683-640)/2 = 21.5, floored
	if g != want {
		t.Errorf("got %+v, want %+v", g, want)
	}
}

func TestBucketOptionsRefused(t *testing.T) {
	tests := []struct {
		o    BucketOptions
		want string
	}{
		{BucketOptions{Enable: true}, "bucket.resolution: 0 is out of range"},
		{BucketOptions{Enable: true, Width: 63, Height: 512}, "63 is out of range"},
		{BucketOptions{Enable: true, Width: 1000000, Height: 1000000}, "1000000 is out of range"},
		{BucketOptions{Enable: true, Width: 512, Height: 512, Min: 576}, "bucket.min: 576 is larger than the short side"},
		{BucketOptions{Enable: true, Width: 512, Height: 512, Max: 448}, "bucket.max: 448 is smaller than the long side"},
		{BucketOptions{Enable: true, Width: 512, Height: 512, Step: 30}, "bucket.step: 30 is not a multiple of 8"},
		{BucketOptions{Enable: true, Width: 512, Height: 512, Step: -64}, "bucket.step: -64"},
		{BucketOptions{Enable: true, Width: 512, Height: 512, Min: -1}, "out of range"},
		{BucketOptions{Enable: true, Width: 512, Height: 512, Step: 1024}, "larger than the resolution"},
		{BucketOptions{Width: 500, Height: 512}, "500x512: without buckets each side must be a multiple of 8"},
	}
	for _, tc := range tests {
		_, err := NewBuckets(tc.o)
		if err == nil || !strings.Contains(err.Error(), tc.want) || fault.KindOf(err) != fault.Usage {
			t.Errorf("%+v: got %v, want a usage error with %q", tc.o, err, tc.want)
		}
	}
}
