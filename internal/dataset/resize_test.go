package dataset

import (
	"math"
	"testing"
)

// plane is a one-channel picture as the source of resample.
func plane(rows [][]float32) *pixelRows {
	return &pixelRows{Size{len(rows[0]), len(rows)}, func(y int, dst []float32) {
		for x, v := range rows[y] {
			dst[3*x], dst[3*x+1], dst[3*x+2] = v, -v, 2*v
		}
	}}
}

func resized(rows [][]float32, to Size) []float32 {
	return resample(plane(rows), window{resized: to, size: to})
}

func checkPlane(t *testing.T, got []float32, want [][]float64, tol float64) {
	t.Helper()
	for y := range want {
		for x, w := range want[y] {
			p := got[3*(y*len(want[0])+x):]
			if math.Abs(float64(p[0])-w) > tol || math.Abs(float64(p[1])+w) > tol || math.Abs(float64(p[2])-2*w) > 2*tol {
				t.Errorf("(%d,%d): got %v, want %v", x, y, p[:3], w)
			}
		}
	}
}

// Whole factors are plain means.
func TestResizeBox(t *testing.T) {
	got := resized([][]float32{{1, 3, 10, 20}, {5, 7, 30, 40}}, Size{2, 1})
	checkPlane(t, got, [][]float64{{4, 25}}, 1e-5)
}

// Values of OpenCV 5.0.0, cv2.resize(a.astype(float32), (5, 4), interpolation=cv2.INTER_AREA), rounded to 3 digits there.
func TestResizeAreaAsOpenCV(t *testing.T) {
	src := [][]float32{
		{120, 130, 192, 242, 8, 36, 209, 241, 63, 79, 221, 107, 69},
		{211, 65, 104, 164, 140, 21, 7, 220, 192, 213, 137, 208, 84},
		{115, 201, 31, 77, 31, 115, 249, 34, 97, 102, 230, 51, 128},
		{66, 5, 191, 15, 71, 127, 123, 29, 250, 191, 245, 23, 184},
		{74, 138, 235, 70, 185, 40, 82, 247, 107, 131, 74, 29, 108},
		{158, 116, 198, 92, 156, 197, 233, 108, 10, 183, 134, 222, 117},
		{93, 15, 116, 163, 196, 217, 54, 151, 205, 66, 87, 214, 148},
		{129, 171, 130, 250, 192, 13, 37, 138, 209, 17, 174, 193, 200},
		{222, 48, 141, 204, 91, 48, 122, 20, 56, 218, 170, 219, 214},
		{223, 79, 120, 157, 69, 234, 1, 213, 164, 64, 183, 105, 213},
		{254, 71, 119, 54, 176, 163, 215, 205, 249, 245, 228, 38, 10},
	}
	checkPlane(t, resized(src, Size{5, 4}), [][]float64{
		{133.504, 110.678, 126.790, 140.664, 128.748},
		{114.497, 106.846, 124.469, 149.699, 115.294},
		{117.573, 170.483, 110.322, 123.049, 175.532},
		{144.944, 126.119, 139.902, 171.958, 141.797},
	}, 0.002) // 3 digits printed, float32 sums
	checkPlane(t, resized(src, Size{12, 11}), [][]float64{
		{120.769, 139.538, 203.538, 170.0, 18.769, 115.846, 226.231, 131.462, 74.077, 188.231, 124.538, 71.923},
	}, 0.002)
}

// Values of Pillow 13.0.0, Image.resize((13, 11), LANCZOS), which rounds to whole numbers after each of its two passes.
func TestResizeLanczosAsPillow(t *testing.T) {
	src := [][]float32{{153, 112, 124, 135, 165}, {94, 105, 132, 146, 140}, {106, 163, 118, 104, 134}, {157, 164, 160, 133, 98}}
	checkPlane(t, resized(src, Size{13, 11}), [][]float64{
		{171, 161, 143, 122, 111, 115, 122, 123, 125, 137, 155, 167, 174}, {158, 149, 134, 116, 109, 115, 124, 128, 131, 141, 154, 163, 168},
		{137, 130, 119, 107, 105, 116, 129, 136, 140, 146, 152, 156, 157}, {110, 107, 102, 100, 106, 119, 133, 142, 148, 149, 147, 146, 144},
		{85, 89, 95, 106, 116, 124, 130, 136, 141, 142, 140, 139, 137}, {76, 87, 105, 127, 137, 131, 120, 116, 119, 125, 132, 138, 140},
		{87, 102, 125, 151, 158, 139, 116, 102, 101, 110, 124, 135, 142}, {111, 124, 144, 165, 168, 150, 126, 111, 105, 108, 117, 124, 130},
		{136, 143, 154, 166, 169, 158, 144, 133, 124, 116, 112, 110, 110}, {154, 156, 160, 163, 165, 164, 159, 152, 141, 125, 110, 100, 95},
		{166, 164, 163, 161, 163, 166, 167, 164, 152, 131, 109, 94, 87},
	}, 1.25) // half for the last rounding, up to 0.75 for the first one through the weights
}

// A window is the same part of the whole, bit for bit, and constants stay constant.
func TestResizeWindow(t *testing.T) {
	src := make([][]float32, 17)
	for y := range src {
		src[y] = make([]float32, 23)
		for x := range src[y] {
			src[y][x] = float32((x*x*7 + y*13) % 256)
		}
	}
	for _, to := range []Size{{23, 17}, {40, 31}, {11, 9}, {5, 17}, {1, 1}, {300, 17}} {
		whole := resized(src, to)
		w := window{resized: to, x: to.W / 3, y: to.H / 4, size: Size{to.W - to.W/2, to.H - to.H/2}}
		part := resample(plane(src), w)
		for y := range w.size.H {
			for x := range w.size.W {
				for c := range 3 {
					if got, want := part[3*(y*w.size.W+x)+c], whole[3*((y+w.y)*to.W+x+w.x)+c]; got != want {
						t.Fatalf("%v: window at (%d,%d) channel %d: %v, whole %v", to, x, y, c, got, want)
					}
				}
			}
		}
		if to == (Size{23, 17}) {
			checkPlane(t, whole, toFloat64(src), 0)
		}
		flat := resized([][]float32{{9, 9, 9}, {9, 9, 9}}, to)
		for _, v := range flat {
			if a := math.Abs(float64(v)); math.Abs(a-9) > 1e-4 && math.Abs(a-18) > 1e-4 {
				t.Fatalf("%v: a flat picture became %v", to, v)
			}
		}
	}
}

func toFloat64(rows [][]float32) [][]float64 {
	out := make([][]float64, len(rows))
	for y := range rows {
		for _, v := range rows[y] {
			out[y] = append(out[y], float64(v))
		}
	}
	return out
}
