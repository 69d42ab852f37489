package dataset

import "math"

// A tap is the weights with which source samples first, first+1, … make one output sample; they add up to 1.
type tap struct {
	first   int
	weights []float32
}

// axis returns the taps of output samples from..from+n-1 when src samples are resized to dst. Shrinking takes the mean over the source
// area that the output sample covers, edge samples by their covered part (what OpenCV calls AREA); enlarging takes Lanczos with three
// lobes, samples at pixel centres, renormalised at the edges (as Pillow does).
func axis(src, dst, from, n int, enlarge bool) []tap {
	scale := float64(src) / float64(dst)
	taps := make([]tap, n)
	for i := range taps {
		if enlarge {
			taps[i] = lanczosTap(src, scale, from+i)
		} else {
			taps[i] = areaTap(src, scale, from+i)
		}
	}
	return taps
}

// areaTap covers source samples [i·scale, (i+1)·scale).
func areaTap(src int, scale float64, i int) tap {
	const snap = 1e-9 // relative to a sample: edges that rounding moved across a sample border
	lo, hi := float64(i)*scale, min(float64(i+1)*scale, float64(src))
	first, last := int(lo+snap), int(math.Ceil(hi-snap))
	first = min(first, src-1)
	last = min(max(last, first+1), src)
	weights := make([]float64, last-first)
	for k := range weights {
		at := float64(first + k)
		weights[k] = max(min(hi, at+1)-max(lo, at), 0)
	}
	return normalised(first, weights)
}

// lanczosTap weighs the samples within three source samples of the output sample's centre; scale is at most 1.
func lanczosTap(src int, scale float64, i int) tap {
	const lobes = 3
	support := lobes * max(scale, 1)
	centre := (float64(i) + 0.5) * scale
	first := max(int(math.Floor(centre-support+0.5)), 0)
	last := min(int(math.Floor(centre+support+0.5)), src)
	weights := make([]float64, last-first)
	for k := range weights {
		weights[k] = lanczos((float64(first+k)+0.5-centre)/max(scale, 1), lobes)
	}
	return normalised(first, weights)
}

// lanczos is sinc(x)·sinc(x/a) for |x| < a, else 0 (Duchon 1979).
func lanczos(x, a float64) float64 {
	if x == 0 {
		return 1
	}
	if math.Abs(x) >= a {
		return 0
	}
	px := math.Pi * x
	return a * math.Sin(px) * math.Sin(px/a) / (px * px)
}

func normalised(first int, weights []float64) tap {
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	t := tap{first, make([]float32, len(weights))}
	for i, w := range weights {
		t.weights[i] = float32(w / sum)
	}
	return t
}

// window is the part of a resized picture that is wanted.
type window struct {
	resized Size
	x, y    int // of its top left corner
	size    Size
}

// resample resizes src to w.resized and returns the window, [H,W,3]; values keep src's range, but enlarging may overshoot it. Only the
// window is ever held: one source row at a time is resized sideways and added to the output rows it belongs to, in source order, so
// memory doesn't grow with the picture and sums have one order.
func resample(src *pixelRows, w window) []float32 {
	in := src.size
	enlarge := w.resized.W > in.W || w.resized.H > in.H
	columns := axis(in.W, w.resized.W, w.x, w.size.W, enlarge)
	rows := axis(in.H, w.resized.H, w.y, w.size.H, enlarge)
	out := make([]float32, w.size.H*w.size.W*3)
	line := make([]float32, in.W*3)
	narrow := make([]float32, w.size.W*3)
	first := 0 // output rows before it are complete
	for y := rows[0].first; y < in.H && first < len(rows); y++ {
		ready := false
		for i := first; i < len(rows) && rows[i].first <= y; i++ {
			k := y - rows[i].first
			if k >= len(rows[i].weights) {
				if i == first {
					first++
				}
				continue
			}
			if !ready {
				src.row(y, line)
				sideways(narrow, line, columns)
				ready = true
			}
			weight, dst := rows[i].weights[k], out[i*len(narrow):(i+1)*len(narrow)]
			for j, v := range narrow {
				dst[j] += weight * v
			}
		}
	}
	return out
}

// sideways resizes one row of RGB pixels.
func sideways(dst, src []float32, columns []tap) {
	for i, t := range columns {
		var r, g, b float32
		for k, weight := range t.weights {
			p := src[3*(t.first+k) : 3*(t.first+k)+3 : 3*(t.first+k)+3]
			r += weight * p[0]
			g += weight * p[1]
			b += weight * p[2]
		}
		dst[3*i], dst[3*i+1], dst[3*i+2] = r, g, b
	}
}
