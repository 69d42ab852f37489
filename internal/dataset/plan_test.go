package dataset

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"lycoris/internal/fault"
)

// madeUp returns a set of images that exist only by their headers.
func madeUp(images ...Image) *Set {
	set := &Set{}
	for i := range images {
		im := &images[i]
		im.Path = fmt.Sprintf("%d.png", i)
		im.Repeats = max(im.Repeats, 1)
		set.Images = append(set.Images, im)
	}
	return set
}

func mustPlan(t *testing.T, set *Set, batchSize int, seed uint64) *Plan {
	t.Helper()
	p, err := NewPlan(set, mustBuckets(t, BucketOptions{Enable: true, Width: 512, Height: 512}), batchSize, seed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// mixed has 5×3 squares, 2 wide pictures and 1 tall one.
func mixed() *Set {
	set := madeUp(Image{Width: 1920, Height: 1080}, Image{Width: 500, Height: 500, Repeats: 3}, Image{Width: 1080, Height: 1920}, Image{Width: 1930, Height: 1080})
	for range 4 {
		set.Images = append(set.Images, &Image{Width: 600, Height: 600, Repeats: 3})
	}
	return set
}

func TestPlanBatches(t *testing.T) {
	p := mustPlan(t, mixed(), 4, 1)
	if got := p.BatchesPerEpoch(); got != 4+1+1 { // ⌈15/4⌉ + ⌈2/4⌉ + ⌈1/4⌉
		t.Errorf("%d batches", got)
	}
	if got, want := p.Counts(), []BucketCount{{Size{384, 640}, 1}, {Size{512, 512}, 15}, {Size{640, 384}, 2}}; !slices.Equal(got, want) {
		t.Errorf("counts %v, want %v", got, want)
	}
	for epoch := range 3 {
		batches := p.Epoch(epoch)
		if len(batches) != p.BatchesPerEpoch() {
			t.Fatalf("epoch %d: %d batches", epoch, len(batches))
		}
		type use struct{ image, repeat int }
		seen := map[use]bool{}
		ordinals := map[uint64]bool{}
		short := map[Size]int{}
		for _, b := range batches {
			if len(b.Items) < 1 || len(b.Items) > 4 {
				t.Errorf("a batch of %d", len(b.Items))
			}
			if len(b.Items) < 4 {
				short[b.Bucket]++
			}
			for _, item := range b.Items {
				if item.Geometry.Bucket != b.Bucket {
					t.Errorf("%v in a batch of %v", item.Geometry.Bucket, b.Bucket)
				}
				item.Geometry.check()
				u := use{item.Image, item.Repeat}
				if seen[u] || ordinals[item.Ordinal] || item.Repeat >= p.Set().Images[item.Image].Repeats {
					t.Errorf("epoch %d: %+v twice or too often", epoch, item)
				}
				seen[u], ordinals[item.Ordinal] = true, true
			}
		}
		if len(seen) != 18 {
			t.Errorf("epoch %d: %d of 18 pictures", epoch, len(seen))
		}
		for size, n := range short {
			if n > 1 {
				t.Errorf("bucket %v has %d short batches", size, n)
			}
		}
	}
}

func TestPlanEpochIsAFunction(t *testing.T) {
	p, q := mustPlan(t, mixed(), 4, 1), mustPlan(t, mixed(), 4, 1)
	p.Epoch(0)
	p.Epoch(1)
	two := fmt.Sprint(p.Epoch(2))
	if got := fmt.Sprint(q.Epoch(2)); got != two { // asked without the epochs before
		t.Error("epoch 2 depends on what came before")
	}
	if fmt.Sprint(p.Epoch(3)) == two {
		t.Error("epochs 2 and 3 are the same")
	}
	if fmt.Sprint(mustPlan(t, mixed(), 4, 2).Epoch(2)) == two {
		t.Error("the seed makes no difference")
	}
}

// The bucket order is shuffled too: not all squares come first or together.
func TestPlanMixesBuckets(t *testing.T) {
	p := mustPlan(t, mixed(), 1, 3)
	firsts := map[Size]bool{}
	for epoch := range 40 {
		firsts[p.Epoch(epoch)[0].Bucket] = true
	}
	if len(firsts) != 3 {
		t.Errorf("in 40 epochs only %v came first", firsts)
	}
}

func TestPlanFlipAndCrop(t *testing.T) {
	set := madeUp(
		Image{Width: 1000, Height: 1000, Flip: true},
		Image{Width: 1920, Height: 1080, Crop: CropRandom},
		Image{Width: 1920, Height: 1080},
		Image{Width: 512, Height: 512, Crop: CropRandom}, // nothing to cut
	)
	p := mustPlan(t, set, 1, 5)
	flips := 0
	crops := map[int]int{}
	const epochs = 400
	for epoch := range epochs {
		for _, b := range p.Epoch(epoch) {
			item := b.Items[0]
			g := item.Geometry
			g.check()
			switch item.Image {
			case 0:
				if g.Flip {
					flips++
				}
			case 1:
				crops[g.CropX]++
				if g.Flip {
					t.Fatal("mirrored without being asked")
				}
			default:
				if want := p.Geometries(item.Image)[0]; item.Image == 2 && g != want || item.Image == 3 && g.CropX != 0 {
					t.Fatalf("image %d: %+v", item.Image, g)
				}
			}
		}
	}
	if flips < epochs/2-60 || flips > epochs/2+60 { // six standard deviations
		t.Errorf("%d of %d mirrored", flips, epochs)
	}
	if len(crops) != 683-640+1 {
		t.Errorf("%d different crops, want all of 0..43", len(crops))
	}
	for image, want := range []int{2, 0, 1, 1} {
		if got := p.Geometries(image); len(got) != want {
			t.Errorf("image %d: %d geometries to prepare, want %d", image, len(got), want)
		}
	}
}

func TestPlanRefused(t *testing.T) {
	b := mustBuckets(t, BucketOptions{Enable: true, Width: 512, Height: 512})
	for _, tc := range []struct {
		set  *Set
		size int
		want string
	}{
		{mixed(), 0, "batch_size: 0"},
		{mixed(), 19, "batch_size: 19 is larger than the data set: 8 pictures, 18 with repeats"},
		{&Set{}, 1, "no pictures"},
	} {
		if _, err := NewPlan(tc.set, b, tc.size, 1); err == nil || !strings.Contains(err.Error(), tc.want) || fault.KindOf(err) == fault.Failed {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
}
