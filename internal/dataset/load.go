package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"os"

	"golang.org/x/image/bmp"
	"golang.org/x/image/webp"

	"lycoris/internal/fault"
)

// Load decodes the picture and returns the pixels of g's bucket: [H,W,3] RGB in [-1,1]. The file must still be the one that was
// scanned. A damaged file is an error of kind fault.Input that names it.
func (im *Image) Load(g Geometry) ([]float32, error) {
	g.check()
	m, h, err := im.decode()
	if err != nil {
		return nil, err
	}
	return render(m, h, g), nil
}

// decode reads and decodes the whole picture.
func (im *Image) decode() (image.Image, header, error) {
	data, err := im.read()
	if err != nil {
		return nil, header{}, err
	}
	m, h, err := decode(data, im.limits)
	if err != nil {
		return nil, h, fault.BadInput(Shown(im.Path), "%w", err).Advise("mend or remove it, or leave it out with --set data_limits.on_bad=skip")
	}
	if h.oriented() != (Size{im.Width, im.Height}) {
		return nil, h, im.changed()
	}
	return m, h, nil
}

// read returns the file's bytes if it is still the file that was scanned.
func (im *Image) read() ([]byte, error) {
	f, err := os.Open(im.Path)
	if err != nil {
		return nil, im.unreadable(err)
	}
	defer f.Close()
	data := make([]byte, im.length)
	if _, err := io.ReadFull(f, data); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, im.changed()
		}
		return nil, im.unreadable(err)
	}
	if n, _ := f.Read(make([]byte, 1)); n != 0 {
		return nil, im.changed()
	}
	sum := sha256.Sum256(data)
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.hash == nil {
		im.hash = &sum
	} else if *im.hash != sum {
		return nil, im.changed()
	}
	return data, nil
}

// maxScans bounds the passes of a progressive JPEG: each one costs time for the whole picture, and encoders make about ten.
const maxScans = 100

// jpegEnd is the marker at the end of every whole JPEG file.
var jpegEnd = []byte{0xff, 0xd9}

// decode decodes a picture within the limits; a panic of a decoder becomes an error. The error is a message without a path.
func decode(data []byte, limits Limits) (m image.Image, h header, err error) {
	h, err = readHeader(bytes.NewReader(data), int64(len(data)))
	if err == nil {
		err = limits.check(h, int64(len(data)))
	}
	if err == nil && h.format == "JPEG" {
		if n := jpegScans(data); n > maxScans {
			err = fmt.Errorf("has more than %d scans; it would take very long to decode", maxScans)
		}
	}
	if err != nil {
		return nil, h, err
	}
	defer func() {
		if r := recover(); r != nil {
			m, err = nil, fmt.Errorf("is damaged: its %s data can't be decoded", h.format)
		}
	}()
	r := bytes.NewReader(data)
	switch h.format {
	case "PNG":
		m, err = png.Decode(r)
	case "JPEG":
		m, err = jpeg.Decode(r)
	case "BMP":
		m, err = bmp.Decode(r)
	case "WebP":
		m, err = decodeWebP(data, h)
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), err != nil && h.format == "JPEG" && !bytes.Contains(data, jpegEnd):
		return nil, h, truncated(int64(len(data)), io.EOF)
	case err != nil:
		return nil, h, fmt.Errorf("is damaged or not supported: %w", err)
	}
	if b := m.Bounds(); b.Dx() != h.stored.W || b.Dy() != h.stored.H {
		return nil, h, fmt.Errorf("is damaged: its header says %d×%d, its data %d×%d", h.stored.W, h.stored.H, b.Dx(), b.Dy())
	}
	return m, h, nil
}

// jpegScans counts the scans. Inside compressed data 0xff is followed by 0 or a restart marker, so the marker can't be mistaken there;
// segments with a length, which may hold a thumbnail, are stepped over.
func jpegScans(data []byte) int {
	n := 0
	for i := 2; i+4 <= len(data); {
		if data[i] != 0xff {
			j := bytes.IndexByte(data[i:], 0xff)
			if j < 0 {
				break
			}
			i += j
			continue
		}
		marker := data[i+1]
		switch {
		case marker == 0xff:
			i++
			continue
		case marker == 0 || marker >= 0xd0 && marker <= 0xd8 || marker == 0x01:
			i += 2
			continue
		case marker == 0xd9:
			return n
		case marker == 0xda:
			n++
		}
		i += 2 + int(binary.BigEndian.Uint16(data[i+2:]))
	}
	return n
}

// decodeWebP decodes a still picture, or the first frame of an animation on a black canvas: the decoder knows only stills, so the
// frame's chunks get a file header of their own.
func decodeWebP(data []byte, h header) (image.Image, error) {
	if !h.animated {
		return webp.Decode(bytes.NewReader(data))
	}
	f := h.frame
	if f.offset+f.length > int64(len(data)) {
		return nil, io.ErrUnexpectedEOF
	}
	still, err := stillWebP(data[f.offset:f.offset+f.length], f.size)
	if err != nil {
		return nil, err
	}
	m, err := webp.Decode(bytes.NewReader(still))
	if err != nil {
		return nil, err
	}
	if b := m.Bounds(); b.Dx() != f.size.W || b.Dy() != f.size.H {
		return nil, fmt.Errorf("its first frame is %d×%d, not %v", b.Dx(), b.Dy(), f.size)
	}
	if f.size == h.stored {
		return m, nil
	}
	canvas := image.NewNRGBA(image.Rect(0, 0, h.stored.W, h.stored.H))
	_, lossy := m.(*image.YCbCr)
	rows := rowsOf(m, lossy)
	line := make([]float32, 3*f.size.W)
	for y := range f.size.H {
		rows.row(y, line)
		for x := range f.size.W {
			pix := canvas.Pix[canvas.PixOffset(f.x+x, f.y+y):]
			pix[0], pix[1], pix[2], pix[3] = byte(line[3*x]+0.5), byte(line[3*x+1]+0.5), byte(line[3*x+2]+0.5), 255
		}
	}
	return canvas, nil
}

// stillWebP makes a file of one frame's picture chunk; its alpha is dropped like all alpha. The size in the frame's own bit stream is
// checked first.
func stillWebP(chunks []byte, size Size) ([]byte, error) {
	var picture []byte
	for b := chunks; len(b) >= 8 && picture == nil; {
		n := int64(binary.LittleEndian.Uint32(b[4:]))
		n += 8 + n&1
		if n > int64(len(b)) {
			return nil, io.ErrUnexpectedEOF
		}
		if kind := string(b[:4]); kind == "VP8 " || kind == "VP8L" {
			inner, err := webpFrameSize(bytes.NewReader(b[8:n]), kind, 0)
			if err != nil {
				return nil, err
			}
			if inner != size {
				return nil, fmt.Errorf("its first frame is %v, not %v", inner, size)
			}
			picture = b[:n]
		}
		b = b[n:]
	}
	if picture == nil {
		return nil, errors.New("its first frame holds no picture")
	}
	out := binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(4+len(picture)))
	return append(append(out, "WEBP"...), picture...), nil
}

// render resizes, turns, crops and mirrors. The picture is resized as it is stored and the small result is turned, which is the same
// and cheaper.
func render(m image.Image, h header, g Geometry) []float32 {
	o := orientations[h.orientation]
	w := window{resized: g.Resized, x: g.CropX, y: g.CropY, size: g.Bucket}
	if o.transpose {
		w = window{resized: Size{w.resized.H, w.resized.W}, x: w.y, y: w.x, size: Size{w.size.H, w.size.W}}
	}
	if o.mirrorX {
		w.x = w.resized.W - w.x - w.size.W
	}
	if o.mirrorY {
		w.y = w.resized.H - w.y - w.size.H
	}
	_, lossy := m.(*image.YCbCr)
	_, lossyAlpha := m.(*image.NYCbCrA)
	stored := resample(rowsOf(m, h.format == "WebP" && (lossy || lossyAlpha)), w)
	return turn(stored, w.size, o, g.Flip)
}

// turn brings src [h,w,3] of the given size upright, mirrors it if flip is set, and maps 0..255 to [-1,1].
func turn(src []float32, size Size, o orientationParts, flip bool) []float32 {
	out := make([]float32, len(src))
	shown := size
	if o.transpose {
		shown = Size{size.H, size.W}
	}
	for y := range shown.H {
		for x := range shown.W {
			sx, sy := x, y
			if flip {
				sx = shown.W - 1 - x
			}
			if o.transpose {
				sx, sy = sy, sx
			}
			if o.mirrorX {
				sx = size.W - 1 - sx
			}
			if o.mirrorY {
				sy = size.H - 1 - sy
			}
			from, to := src[3*(sy*size.W+sx):], out[3*(y*shown.W+x):]
			for c := range 3 {
				to[c] = clampByte(from[c])/127.5 - 1
			}
		}
	}
	return out
}
