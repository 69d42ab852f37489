package dataset

import (
	"image"
	"image/color"
)

// pixelRows reads a decoded picture row by row as RGB, 0..255 in float32 whatever its depth. Alpha is dropped, not blended, as the
// trainers that read pictures with Pillow's convert("RGB") do; gray is repeated three times; CMYK is converted without a profile.
type pixelRows struct {
	size Size
	row  func(y int, dst []float32) // writes 3·W values
}

// rowsOf returns the reader for an image. video says that the luma of a YCbCr image has the range 16..235 of video, as in lossy WebP
// (ITU-R BT.601), instead of JPEG's 0..255.
func rowsOf(m image.Image, video bool) *pixelRows {
	b := m.Bounds()
	p := &pixelRows{size: Size{b.Dx(), b.Dy()}}
	switch m := m.(type) {
	case *image.YCbCr:
		p.row = ycbcrRows(m, video)
	case *image.NYCbCrA:
		p.row = ycbcrRows(&m.YCbCr, video)
	case *image.Gray:
		p.row = func(y int, dst []float32) {
			for x, v := range m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:p.size.W] {
				dst[3*x], dst[3*x+1], dst[3*x+2] = float32(v), float32(v), float32(v)
			}
		}
	case *image.NRGBA:
		p.row = func(y int, dst []float32) {
			pix := m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:4*p.size.W]
			for x := range p.size.W {
				dst[3*x], dst[3*x+1], dst[3*x+2] = float32(pix[4*x]), float32(pix[4*x+1]), float32(pix[4*x+2])
			}
		}
	case *image.Paletted:
		palette := make([][3]float32, len(m.Palette))
		for i, c := range m.Palette {
			palette[i] = straight(c)
		}
		p.row = func(y int, dst []float32) {
			for x, i := range m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:p.size.W] {
				if int(i) < len(palette) {
					copy(dst[3*x:3*x+3], palette[i][:])
				} else {
					clear(dst[3*x : 3*x+3])
				}
			}
		}
	case *image.RGBA:
		if !m.Opaque() {
			p.row = anyRows(m)
			break
		}
		p.row = func(y int, dst []float32) {
			pix := m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:4*p.size.W]
			for x := range p.size.W {
				dst[3*x], dst[3*x+1], dst[3*x+2] = float32(pix[4*x]), float32(pix[4*x+1]), float32(pix[4*x+2])
			}
		}
	default: // 16 bits, CMYK
		p.row = anyRows(m)
	}
	return p
}

// anyRows reads any image through its colour model.
func anyRows(m image.Image) func(int, []float32) {
	b := m.Bounds()
	return func(y int, dst []float32) {
		for x := range b.Dx() {
			c := straight(m.At(b.Min.X+x, b.Min.Y+y))
			copy(dst[3*x:3*x+3], c[:])
		}
	}
}

// straight returns a colour, 0..255, not multiplied by its alpha.
func straight(c color.Color) [3]float32 {
	const toByte = 255.0 / 65535
	switch c := c.(type) {
	case color.NRGBA:
		return [3]float32{float32(c.R), float32(c.G), float32(c.B)}
	case color.NRGBA64:
		return [3]float32{float32(c.R) * toByte, float32(c.G) * toByte, float32(c.B) * toByte}
	}
	r, g, b, a := c.RGBA()
	if a == 0 {
		return [3]float32{}
	}
	scale := float32(toByte)
	if a != 0xffff {
		scale *= 0xffff / float32(a)
	}
	return [3]float32{float32(r) * scale, float32(g) * scale, float32(b) * scale}
}

// ycbcrRows converts to RGB with the factors of JFIF 1.02 (or their video-range form). Chroma stored at half the resolution is
// interpolated with weights 3/4 and 1/4, as libjpeg and libwebp do, not repeated: repeated chroma shows as blocks on edges.
func ycbcrRows(m *image.YCbCr, video bool) func(int, []float32) {
	b := m.Bounds()
	width := b.Dx()
	sx, sy := subsampling(m.SubsampleRatio)
	chromaW, chromaH := (b.Max.X+sx-1)/sx-b.Min.X/sx, (b.Max.Y+sy-1)/sy-b.Min.Y/sy
	cb, cr := make([]float32, chromaW), make([]float32, chromaW)
	base := m.COffset(b.Min.X, b.Min.Y)
	lumaScale, lumaZero, chromaScale := float32(1), float32(0), float32(1)
	if video {
		lumaScale, lumaZero, chromaScale = 255.0/219, 16, 255.0/224
	}
	return func(y int, dst []float32) {
		near := y / sy
		far := near
		if sy == 2 {
			far = min(max(near+2*(y%2)-1, 0), chromaH-1)
		}
		nearRow, farRow := base+near*m.CStride, base+far*m.CStride
		for i := range cb {
			cb[i] = 0.75*float32(m.Cb[nearRow+i]) + 0.25*float32(m.Cb[farRow+i])
			cr[i] = 0.75*float32(m.Cr[nearRow+i]) + 0.25*float32(m.Cr[farRow+i])
		}
		luma := m.Y[m.YOffset(b.Min.X, b.Min.Y+y):][:width]
		for x := range width {
			i := x / sx
			u, v := cb[i], cr[i]
			if sx == 2 {
				j := min(max(i+2*(x%2)-1, 0), chromaW-1)
				u, v = 0.75*u+0.25*cb[j], 0.75*v+0.25*cr[j]
			}
			l := (float32(luma[x]) - lumaZero) * lumaScale
			u, v = (u-128)*chromaScale, (v-128)*chromaScale
			dst[3*x] = clampByte(l + 1.402*v)
			dst[3*x+1] = clampByte(l - 0.344136*u - 0.714136*v)
			dst[3*x+2] = clampByte(l + 1.772*u)
		}
	}
}

func subsampling(r image.YCbCrSubsampleRatio) (sx, sy int) {
	switch r {
	case image.YCbCrSubsampleRatio422:
		return 2, 1
	case image.YCbCrSubsampleRatio420:
		return 2, 2
	case image.YCbCrSubsampleRatio440:
		return 1, 2
	case image.YCbCrSubsampleRatio411:
		return 4, 1
	case image.YCbCrSubsampleRatio410:
		return 4, 2
	}
	return 1, 1
}

func clampByte(v float32) float32 { return min(max(v, 0), 255) }
