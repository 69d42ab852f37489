package dataset

import "fmt"

// Geometry says how a picture becomes the pixels of its bucket: resize to Resized, cut out Bucket at (CropX, CropY), mirror.
type Geometry struct {
	Bucket  Size
	Resized Size // covers Bucket
	CropX   int  // left edge of the bucket in the resized picture
	CropY   int  // top edge
	Flip    bool // mirrored left to right, after the crop
}

// Geometry returns the centred, unmirrored geometry of a picture of w × h pixels.
func (b *Buckets) Geometry(w, h int) Geometry {
	bucket, resized := b.Choose(w, h)
	return Geometry{Bucket: bucket, Resized: resized, CropX: (resized.W - bucket.W) / 2, CropY: (resized.H - bucket.H) / 2}
}

// check panics unless the crop lies inside the resized picture.
func (g Geometry) check() {
	if g.Bucket.W < 1 || g.Bucket.H < 1 || g.CropX < 0 || g.CropY < 0 || g.CropX+g.Bucket.W > g.Resized.W || g.CropY+g.Bucket.H > g.Resized.H {
		panic(fmt.Sprintf("dataset: geometry %+v: the crop is not inside the resized picture", g))
	}
}

// String returns a text that is equal for equal geometries only; cache keys are made of it.
func (g Geometry) String() string {
	return fmt.Sprintf("%v of %v at %d,%d flip=%t", g.Bucket, g.Resized, g.CropX, g.CropY, g.Flip)
}
