package dataset

import (
	"fmt"
	"slices"

	"lycoris/internal/fault"
	"lycoris/internal/rng"
)

// Item is one picture of a batch.
type Item struct {
	Image    int    // index into Set.Images
	Repeat   int    // 0..Repeats-1
	Ordinal  uint64 // of (Image, Repeat) in the data set: the item number for random streams; the same in every epoch
	Geometry Geometry
}

// Batch is what one step's forward pass works on: pictures of one bucket.
type Batch struct {
	Bucket Size
	Items  []Item // 1 to the batch size
}

// BucketCount is a bucket with the number of pictures in it, repeats counted.
type BucketCount struct {
	Size  Size
	Count int
}

// Plan deals a set's images into batches. Epoch e is a function of the seed and e alone: nothing is kept between epochs, so any batch of
// any epoch can be had at once.
type Plan struct {
	set       *Set
	buckets   *Buckets
	batchSize int
	seed      uint64
	sizes     []Size   // buckets that hold pictures, sorted
	items     [][]Item // per bucket, in the order of the set, centred and unmirrored
	batches   int
}

// NewPlan puts every image into its bucket as often as it is repeated.
func NewPlan(set *Set, buckets *Buckets, batchSize int, seed uint64) (*Plan, error) {
	if batchSize < 1 {
		return nil, fault.BadUsage("batch_size", "%d is out of range: 1 or more", batchSize)
	}
	if len(set.Images) == 0 {
		return nil, fault.BadInput("", "there are no pictures to train on")
	}
	total := set.Total()
	if batchSize > total {
		return nil, fault.BadUsage("batch_size", "%d is larger than the data set: %s", batchSize, set).
			Advise("set batch_size to %d or less, or raise data[].repeats", total)
	}
	p := &Plan{set: set, buckets: buckets, batchSize: batchSize, seed: seed}
	byBucket := map[Size][]Item{}
	ordinal := uint64(0)
	for i, im := range set.Images {
		g := buckets.Geometry(im.Width, im.Height)
		for repeat := range im.Repeats {
			byBucket[g.Bucket] = append(byBucket[g.Bucket], Item{Image: i, Repeat: repeat, Ordinal: ordinal, Geometry: g})
			ordinal++
		}
	}
	for size := range byBucket {
		p.sizes = append(p.sizes, size)
	}
	slices.SortFunc(p.sizes, compareSizes)
	for _, size := range p.sizes {
		items := byBucket[size]
		p.items = append(p.items, items)
		p.batches += (len(items) + batchSize - 1) / batchSize
	}
	return p, nil
}

// Set returns the images that the items' indices refer to.
func (p *Plan) Set() *Set { return p.set }

// BatchesPerEpoch returns the number of batches in every epoch: the sum over the buckets of their pictures / batch size, rounded up.
func (p *Plan) BatchesPerEpoch() int { return p.batches }

// Counts returns the buckets that hold pictures, sorted by width, then height.
func (p *Plan) Counts() []BucketCount {
	out := make([]BucketCount, len(p.sizes))
	for i, size := range p.sizes {
		out[i] = BucketCount{size, len(p.items[i])}
	}
	return out
}

// Epoch returns the batches of an epoch, counted from 0. Each bucket's pictures and then the batches of all buckets are shuffled by
// streams of (seed, epoch); mirrors and random crops are drawn per picture. The last batch of a bucket may be short; a batch never
// mixes buckets.
func (p *Plan) Epoch(epoch int) []Batch {
	if epoch < 0 {
		panic(fmt.Sprintf("dataset: Plan.Epoch(%d)", epoch))
	}
	batches := make([]Batch, 0, p.batches)
	for i, size := range p.sizes {
		items := slices.Clone(p.items[i])
		// Stream 0 is for the order of the batches, 1+i for the content of bucket i.
		rng.New(p.seed, "shuffle", uint64(epoch), uint64(1+i)).Shuffle(len(items), func(a, b int) { items[a], items[b] = items[b], items[a] })
		for j := range items {
			p.vary(&items[j], epoch)
		}
		for chunk := range slices.Chunk(items, p.batchSize) {
			batches = append(batches, Batch{Bucket: size, Items: chunk})
		}
	}
	rng.New(p.seed, "shuffle", uint64(epoch), 0).Shuffle(len(batches), func(a, b int) { batches[a], batches[b] = batches[b], batches[a] })
	return batches
}

// vary draws what an item's source leaves to chance. The draws depend on the picture and the epoch, not on its place in the order.
func (p *Plan) vary(item *Item, epoch int) {
	im := p.set.Images[item.Image]
	if !im.Flip && im.Crop != CropRandom {
		return
	}
	r := rng.New(p.seed, "augment", uint64(epoch), item.Ordinal)
	g := &item.Geometry
	flip := r.Float64() < 0.5
	if im.Flip {
		g.Flip = flip
	}
	if im.Crop == CropRandom {
		g.CropX = r.IntN(g.Resized.W - g.Bucket.W + 1)
		g.CropY = r.IntN(g.Resized.H - g.Bucket.H + 1)
	}
}

// Geometries returns the geometries in which an image can be asked for, when there are few enough to make its latents in advance: one,
// or two with mirroring. Several random crops have none: their latents are made when they are needed.
func (p *Plan) Geometries(image int) []Geometry {
	im := p.set.Images[image]
	g := p.buckets.Geometry(im.Width, im.Height)
	if im.Crop == CropRandom && g.Resized != g.Bucket {
		return nil
	}
	if !im.Flip {
		return []Geometry{g}
	}
	mirrored := g
	mirrored.Flip = true
	return []Geometry{g, mirrored}
}
