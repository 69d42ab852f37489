package dataset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lycoris/internal/fault"
)

// loaded decodes a file's bytes and renders it unresized.
func loaded(t *testing.T, data []byte) ([]float32, Size) {
	t.Helper()
	m, h, err := decode(data, Limits{}.withDefaults())
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	size := h.oriented()
	return render(m, h, Geometry{Bucket: size, Resized: size}), size
}

// at returns pixel (x,y) as 0..255.
func at(pixels []float32, w, x, y int) [3]float64 {
	p := pixels[3*(y*w+x):]
	var out [3]float64
	for c := range out {
		out[c] = (float64(p[c]) + 1) * 127.5
	}
	return out
}

func wantPixel(t *testing.T, pixels []float32, w, x, y int, want [3]float64, tol float64) {
	t.Helper()
	got := at(pixels, w, x, y)
	for c := range got {
		if math.Abs(got[c]-want[c]) > tol {
			t.Errorf("pixel (%d,%d): got %.2f, want %v within %v", x, y, got, want, tol)
			return
		}
	}
}

const exact = 1e-4 // float32 of 255 levels

func TestLoadFormats(t *testing.T) {
	half := color.NRGBA{200, 100, 50, 128} // alpha is dropped, not blended
	flat := func(m interface {
		image.Image
		Set(x, y int, c color.Color)
	}, c color.Color) image.Image {
		for y := range m.Bounds().Dy() {
			for x := range m.Bounds().Dx() {
				m.Set(x, y, c)
			}
		}
		return m
	}
	r := image.Rect(0, 0, 9, 7)
	seeThrough := color.NRGBA{200, 100, 50, 0}
	tests := []struct {
		name string
		data []byte
		size Size
		want [3]float64 // at (4,3)
		tol  float64
	}{
		{"PNG RGB", pngBytes(t, pattern(9, 7)), Size{9, 7}, [3]float64{30, 41, 200}, exact},
		{"PNG with alpha", pngBytes(t, flat(image.NewNRGBA(r), half)), Size{9, 7}, [3]float64{200, 100, 50}, exact},
		{"PNG fully clear", pngBytes(t, flat(image.NewNRGBA(r), seeThrough)), Size{9, 7}, [3]float64{200, 100, 50}, exact},
		{"PNG 16 bits", pngBytes(t, flat(image.NewRGBA64(r), color.RGBA64{51400, 25700, 12850 + 128, 65535})), Size{9, 7}, [3]float64{200, 100, 50.498}, 1e-3},
		{"PNG 16 bits with alpha", pngBytes(t, flat(image.NewNRGBA64(r), color.NRGBA64{51400, 25700, 12850, 1000})), Size{9, 7}, [3]float64{200, 100, 50}, 1e-3},
		{"PNG gray", pngBytes(t, flat(image.NewGray(r), color.Gray{77})), Size{9, 7}, [3]float64{77, 77, 77}, exact},
		{"PNG gray 16 bits", pngBytes(t, flat(image.NewGray16(r), color.Gray16{77 * 257})), Size{9, 7}, [3]float64{77, 77, 77}, 1e-3},
		{"PNG palette with alpha", pngBytes(t, flat(image.NewPaletted(r, color.Palette{color.NRGBA{1, 2, 3, 255}, half}), half)), Size{9, 7}, [3]float64{200, 100, 50}, exact},
		{"PNG with wrong profile", withChunk(pngBytes(t, pattern(9, 7)), "iCCP", []byte("x\x00\x00none")), Size{9, 7}, [3]float64{30, 41, 200}, exact},
		{"animated PNG", withChunk(pngBytes(t, pattern(9, 7)), "acTL", make([]byte, 8)), Size{9, 7}, [3]float64{30, 41, 200}, exact},
		{"BMP", bmpBytes(t, pattern(9, 7)), Size{9, 7}, [3]float64{30, 41, 200}, exact},
		{"BMP gray", bmpBytes(t, flat(image.NewGray(r), color.Gray{77})), Size{9, 7}, [3]float64{77, 77, 77}, exact},
		{"JPEG", jpegBytes(t, flat(image.NewNRGBA(r), half)), Size{9, 7}, [3]float64{100, 50, 25}, 2}, // Go's encoder blends on black
		{"JPEG gray", jpegBytes(t, flat(image.NewGray(r), color.Gray{77})), Size{9, 7}, [3]float64{77, 77, 77}, 1},
		{"JPEG CMYK", cmykJPEG, Size{8, 8}, [3]float64{200, 100, 50}, 2},
		{"WebP lossless", riff("VP8L", flatVP8L(9, 7, half)), Size{9, 7}, [3]float64{200, 100, 50}, exact},
		{"WebP lossy", lossyWebP, Size{16, 12}, [3]float64{198, 90, 29}, 2},
		{"WebP lossy with alpha", lossyAlphaWebP, Size{16, 12}, [3]float64{198, 90, 29}, 2},
		{"WebP animated", animatedWebP, Size{8, 6}, [3]float64{250, 10, 20}, exact},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			pixels, size := loaded(t, tc.data)
			if size != tc.size || len(pixels) != 3*size.Area() {
				t.Fatalf("size %v with %d values, want %v", size, len(pixels), tc.size)
			}
			wantPixel(t, pixels, size.W, 4, 3, tc.want, tc.tol)
		})
	}
}

// libwebp's colours are video range: without it (203,119,29) would be washed out by up to 20 levels.
func TestLoadLossyWebPColours(t *testing.T) {
	pixels, size := loaded(t, lossyWebP)
	wantPixel(t, pixels, size.W, 4, 6, [3]float64{203, 119, 29}, 2)
	wantPixel(t, pixels, size.W, 12, 6, [3]float64{43, 119, 32}, 2)
	wantPixel(t, pixels, size.W, 0, 0, [3]float64{196, 65, 30}, 2)
	wantPixel(t, pixels, size.W, 15, 11, [3]float64{41, 166, 30}, 2)
}

// testdata/p420.jpg is a 32×24 picture of smooth colours with halved chroma, saved and read by Pillow 13.0.0 (libjpeg-turbo).
func TestLoadJPEGAsPillow(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "p420.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	pixels, size := loaded(t, data)
	if size != (Size{32, 24}) {
		t.Fatalf("size %v", size)
	}
	row7 := [][3]float64{
		{85, 202, 160}, {82, 202, 166}, {72, 199, 172}, {60, 197, 189}, {36, 191, 211}, {33, 182, 212}, {56, 177, 198}, {91, 160, 157},
		{155, 151, 104}, {198, 135, 68}, {227, 118, 59}, {235, 107, 72}, {222, 96, 107}, {208, 91, 133}, {187, 88, 145}, {157, 87, 149},
		{122, 92, 146}, {100, 103, 138}, {81, 107, 108}, {80, 121, 79}, {89, 136, 44}, {94, 143, 26}, {94, 136, 24}, {74, 115, 23},
		{56, 92, 44}, {45, 73, 58}, {51, 65, 74}, {79, 79, 105}, {116, 99, 131}, {141, 112, 143}, {155, 119, 147}, {166, 123, 150},
	}
	const tol = 3 // two inverse transforms (1 level each, chroma times 1.8) and rounding
	for x, want := range row7 {
		wantPixel(t, pixels, 32, x, 7, want, tol)
	}
	wantPixel(t, pixels, 32, 0, 0, [3]float64{241, 167, 140}, tol)
	wantPixel(t, pixels, 32, 31, 23, [3]float64{169, 214, 255}, tol)
}

// shown is the slow definition of the EXIF orientations: where the stored first row and first column are seen (EXIF 2.3, 4.6.4 A).
func shown(stored image.Image, orientation, x, y int) color.Color {
	w, h := stored.Bounds().Dx(), stored.Bounds().Dy()
	switch orientation {
	case 2: // row top, column right
		return stored.At(w-1-x, y)
	case 3: // bottom, right
		return stored.At(w-1-x, h-1-y)
	case 4: // bottom, left
		return stored.At(x, h-1-y)
	case 5: // first row at the left, first column at the top
		return stored.At(y, x)
	case 6: // first row at the right, first column at the top
		return stored.At(y, h-1-x)
	case 7: // right, bottom
		return stored.At(w-1-y, h-1-x)
	case 8: // first row at the left, first column at the bottom
		return stored.At(w-1-y, x)
	}
	return stored.At(x, y)
}

func TestLoadOrientations(t *testing.T) {
	stored := pattern(12, 7)
	gray := image.NewNRGBA(image.Rect(0, 0, 16, 8)) // left half dark: survives JPEG
	for y := range 8 {
		for x := range 16 {
			gray.Set(x, y, color.Gray{uint8(40 + 160*(x/8) + 20*(y/4))})
		}
	}
	for o := 1; o <= 8; o++ {
		for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			exif := exifBlock(order, uint16(o))
			files := map[string][]byte{
				"PNG":  withChunk(pngBytes(t, stored), "eXIf", exif),
				"JPEG": withSegment(jpegBytes(t, gray), 0xe1, append([]byte("Exif\x00\x00"), exif...)),
			}
			for format, data := range files {
				m, tol := image.Image(stored), exact
				if format == "JPEG" {
					m, tol = gray, 4
				}
				pixels, size := loaded(t, data)
				w, h := m.Bounds().Dx(), m.Bounds().Dy()
				if o >= 5 {
					w, h = h, w
				}
				if size != (Size{w, h}) {
					t.Fatalf("%s orientation %d: size %v, want %dx%d", format, o, size, w, h)
				}
				for y := range h {
					for x := range w {
						r, g, b, _ := shown(m, o, x, y).RGBA()
						wantPixel(t, pixels, w, x, y, [3]float64{float64(r >> 8), float64(g >> 8), float64(b >> 8)}, tol)
					}
				}
			}
		}
	}
	// WebP keeps its EXIF block behind the picture.
	data := riff("VP8X", vp8x(8, 9, 4), "VP8L", flatVP8L(9, 4, color.NRGBA{1, 2, 3, 255}), "EXIF", exifBlock(binary.LittleEndian, 6))
	if _, size := loaded(t, data); size != (Size{4, 9}) {
		t.Errorf("WebP orientation 6: size %v, want 4x9", size)
	}
}

// Resize, crop and mirror of a turned picture are those of the picture that was turned beforehand.
func TestLoadTurnedGeometry(t *testing.T) {
	stored := pattern(24, 14)
	for o := 1; o <= 8; o++ {
		w, h := 24, 14
		if o >= 5 {
			w, h = h, w
		}
		upright := image.NewNRGBA(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				upright.Set(x, y, shown(stored, o, x, y))
			}
		}
		g := Geometry{Bucket: Size{6, 7}, Resized: Size{w * 3 / 4, h * 3 / 4}, CropX: 2, CropY: 1, Flip: o%2 == 0}
		got := render(stored, header{stored: Size{24, 14}, orientation: o}, g)
		want := render(upright, header{stored: Size{w, h}, orientation: 1}, g)
		for i := range want {
			if math.Abs(float64(got[i]-want[i])) > 1e-5 { // the two passes are summed in the other order
				t.Fatalf("orientation %d: value %d is %v, want %v", o, i, got[i], want[i])
			}
		}
	}
}

func TestLoadFlip(t *testing.T) {
	m := pattern(9, 7)
	h := header{stored: Size{9, 7}, orientation: 1}
	g := Geometry{Bucket: Size{4, 3}, Resized: Size{9, 7}, CropX: 2, CropY: 1, Flip: true}
	pixels := render(m, h, g)
	wantPixel(t, pixels, 4, 0, 0, [3]float64{10 + 5*5, 20 + 7*1, 200}, exact) // right edge of the crop: column 5
	wantPixel(t, pixels, 4, 3, 2, [3]float64{10 + 5*2, 20 + 7*3, 200}, exact)
}

// scanOne scans a folder with one picture and returns it.
func scanOne(t *testing.T, name string, data []byte) *Image {
	t.Helper()
	set, err := Scan([]Source{{Path: folderOf(t, map[string][]byte{name: data})}}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return set.Images[0]
}

func TestLoadImage(t *testing.T) {
	im := scanOne(t, "cat.png", pngBytes(t, pattern(40, 20)))
	g := mustBuckets(t, BucketOptions{Width: 64, Height: 64}).Geometry(im.Width, im.Height)
	if want := (Geometry{Bucket: Size{64, 64}, Resized: Size{128, 64}, CropX: 32}); g != want {
		t.Fatalf("geometry %+v, want %+v", g, want)
	}
	a, err := im.Load(g)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range a {
		if !(v >= -1 && v <= 1) {
			t.Fatalf("value %d is %v", i, v)
		}
	}
	b, err := im.Load(g)
	if err != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("the second load differs (%v)", err)
	}
}

// Pictures that scan well but are damaged further in: an error of kind Input with the name.
func TestLoadDamaged(t *testing.T) {
	jpg := jpegBytes(t, pattern(64, 64))
	flipped := pngBytes(t, pattern(30, 30))
	flipped[len(flipped)-20] ^= 1
	scans := append([]byte(nil), jpg[:len(jpg)-2]...)
	for range maxScans + 1 {
		scans = append(scans, 0xff, 0xda, 0, 2)
	}
	tests := map[string]struct {
		data []byte
		want string
	}{
		"half.jpg":   {jpg[:len(jpg)/2], "is truncated: the file ends after"},
		"crc.png":    {flipped, "is damaged"},
		"scans.jpg":  {scans, "has more than 100 scans"},
		"short.webp": {riff("VP8L", flatVP8L(9, 7, color.NRGBA{1, 2, 3, 255})[:9]), "is truncated"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			im := scanOne(t, name, tc.data)
			_, err := im.Load(Geometry{Bucket: Size{8, 8}, Resized: Size{8, 8}})
			if err == nil || fault.KindOf(err) != fault.Input || !strings.Contains(err.Error(), name+": "+tc.want) {
				t.Errorf("got %v, want an input error with %q", err, tc.want)
			}
		})
	}
}

// A picture that changes after the scan is noticed, whether it shrinks, grows, goes, or is replaced by another of the same length.
func TestLoadChanged(t *testing.T) {
	data := pngBytes(t, pattern(20, 20))
	other := append([]byte(nil), data...)
	other[len(other)-30] ^= 0x40
	g := Geometry{Bucket: Size{8, 8}, Resized: Size{8, 8}}
	changes := map[string]func(path string) error{
		"shrinks":  func(p string) error { return os.Truncate(p, 50) },
		"grows":    func(p string) error { return os.WriteFile(p, append(data, 0), 0o644) },
		"goes":     os.Remove,
		"replaced": func(p string) error { return os.WriteFile(p, other, 0o644) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			im := scanOne(t, "cat.png", data)
			if _, err := im.Hash(); err != nil {
				t.Fatal(err)
			}
			if err := change(im.Path); err != nil {
				t.Fatal(err)
			}
			_, err := im.Load(g)
			if err == nil || fault.KindOf(err) != fault.Input || !strings.Contains(err.Error(), "cat.png") {
				t.Errorf("got %v, want an input error that names cat.png", err)
			}
		})
	}
}

// Bombs are refused by their header, at once.
func TestDecodeBombs(t *testing.T) {
	start := time.Now()
	for name, data := range map[string][]byte{
		"png":           bombPNG(60000, 30000),
		"png overflow":  bombPNG(0xffffffff, 0xffffffff),
		"webp":          riff("VP8L", flatVP8L(16383, 16383, color.NRGBA{1, 2, 3, 255})),
		"webp animated": riff("VP8X", vp8x(2, 1<<24, 1<<24), "ANMF", append(make([]byte, 16), riff("VP8L", flatVP8L(1, 1, color.NRGBA{}))[12:]...)),
	} {
		if _, _, err := decode(data, Limits{}.withDefaults()); err == nil || !strings.Contains(err.Error(), "is over 100 Mpixel") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// A small canvas around a large picture.
	inner := append([]byte(nil), flatVP8L(16000, 16000, color.NRGBA{1, 2, 3, 255})...)
	for name, data := range map[string][]byte{
		"still":    riff("VP8X", vp8x(0, 9, 9), "VP8L", inner),
		"animated": riff("VP8X", vp8x(2, 9, 9), "ANMF", append([]byte{0, 0, 0, 0, 0, 0, 8, 0, 0, 8, 0, 0, 0, 0, 0, 0}, riff("VP8L", inner)[12:]...)),
	} {
		if _, _, err := decode(data, Limits{}.withDefaults()); err == nil || !strings.Contains(err.Error(), "16000x16000") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("refusing took %v", took)
	}
}

func TestAnimatedWebPOffset(t *testing.T) {
	frameChunk := append([]byte{1, 0, 0, 1, 0, 0, 3, 0, 0, 2, 0, 0, 0, 0, 0, 0}, riff("VP8L", flatVP8L(4, 3, color.NRGBA{250, 10, 20, 255}))[12:]...)
	pixels, size := loaded(t, riff("VP8X", vp8x(2, 8, 6), "ANMF", frameChunk))
	if size != (Size{8, 6}) {
		t.Fatalf("size %v", size)
	}
	wantPixel(t, pixels, 8, 2, 2, [3]float64{250, 10, 20}, exact)
	wantPixel(t, pixels, 8, 5, 4, [3]float64{250, 10, 20}, exact)
	wantPixel(t, pixels, 8, 1, 2, [3]float64{0, 0, 0}, exact)
	wantPixel(t, pixels, 8, 6, 4, [3]float64{0, 0, 0}, exact)
}

// A sliver of a picture costs what its bucket costs, not what the resized sliver would.
func TestLoadSliver(t *testing.T) {
	im := scanOne(t, "line.png", pngBytes(t, image.NewGray(image.Rect(0, 0, 1, 20000))))
	g := mustBuckets(t, BucketOptions{Enable: true, Width: 512, Height: 512}).Geometry(im.Width, im.Height)
	pixels, err := im.Load(g)
	if err != nil || len(pixels) != 3*g.Bucket.Area() {
		t.Errorf("%d values, %v", len(pixels), err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(pngBytes(f, pattern(5, 4)))
	f.Add(jpegBytes(f, pattern(9, 9)))
	f.Add(withSegment(jpegBytes(f, pattern(9, 9)), 0xe1, append([]byte("Exif\x00\x00"), exifBlock(binary.BigEndian, 6)...)))
	f.Add(bmpBytes(f, pattern(5, 4)))
	f.Add(lossyWebP)
	f.Add(lossyAlphaWebP)
	f.Add(animatedWebP)
	f.Add(cmykJPEG)
	f.Add(bombPNG(60000, 30000))
	f.Add([]byte{})
	limits := Limits{MaxPixels: 1 << 16, MaxFile: 1 << 20}.withDefaults()
	buckets, err := NewBuckets(BucketOptions{Enable: true, Width: 64, Height: 64, Step: 8})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, h, err := decode(data, limits)
		if err != nil {
			if s := err.Error(); strings.ContainsAny(s, "\n\x00\x1b") {
				t.Fatalf("message with control characters: %q", s)
			}
			return
		}
		g := buckets.Geometry(h.oriented().W, h.oriented().H)
		g.Flip = len(data)%2 == 0
		pixels := render(m, h, g)
		if len(pixels) != 3*g.Bucket.Area() {
			t.Fatalf("%d values for %v", len(pixels), g.Bucket)
		}
		for i, v := range pixels {
			if !(v >= -1 && v <= 1) {
				t.Fatalf("value %d is %v", i, v)
			}
		}
		if bytes.HasPrefix(data, []byte("GIF")) {
			t.Fatal("decoded a GIF")
		}
	})
}
