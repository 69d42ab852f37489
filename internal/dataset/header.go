package dataset

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/image/bmp"
)

// header is what can be known about a picture file without decoding it.
type header struct {
	format      string // "PNG", "JPEG", "WebP" or "BMP"
	stored      Size   // as stored, before the rotation
	orientation int    // EXIF orientation 1..8, 1 if there is none
	animated    bool   // only the first frame is read
	frame       frame  // WebP: where the first frame's data lie
}

// frame places the first frame of an animated WebP file.
type frame struct {
	offset, length int64 // of the frame's chunks (ALPH, VP8, VP8L) in the file
	x, y           int   // of the frame on the canvas
	size           Size
}

// oriented returns the size after the rotation.
func (h header) oriented() Size {
	if h.orientation >= 5 {
		return Size{h.stored.H, h.stored.W}
	}
	return h.stored
}

// errNotPicture says that the bytes at the start of a file are of no picture format known here.
var errNotPicture = errors.New("is not a picture")

const (
	sniffLen       = 32
	maxHeaderBytes = 16 << 20 // a JPEG's size must come within
	maxChunks      = 1 << 16  // PNG and WebP chunks looked at
)

// readHeader recognises a file of the given length by its content and reads size and rotation. The error is a message without a path;
// errNotPicture means that the format is none of those that have a name here.
func readHeader(r io.ReaderAt, length int64) (header, error) {
	start := make([]byte, sniffLen)
	n, err := r.ReadAt(start, 0)
	if err != nil && err != io.EOF {
		return header{}, fmt.Errorf("can't be read: %w", err)
	}
	start = start[:n]
	h := header{orientation: 1}
	switch {
	case bytes.HasPrefix(start, []byte("\x89PNG\r\n\x1a\n")):
		err = h.readPNG(r, length)
	case bytes.HasPrefix(start, []byte("\xff\xd8\xff")):
		err = h.readJPEG(r, length)
	case n >= 12 && string(start[:4]) == "RIFF" && string(start[8:12]) == "WEBP":
		err = h.readWebP(r, length)
	case isBMP(start):
		err = h.readBMP(r, length)
	default:
		return h, otherFormat(start)
	}
	if err == nil && (h.stored.W < 1 || h.stored.H < 1) {
		err = fmt.Errorf("is damaged: its header says %d×%d pixels", h.stored.W, h.stored.H)
	}
	return h, err
}

// isBMP asks for more than the two letters, which begin many other files.
func isBMP(b []byte) bool {
	if len(b) < 18 || b[0] != 'B' || b[1] != 'M' || binary.LittleEndian.Uint32(b[6:]) != 0 {
		return false
	}
	switch binary.LittleEndian.Uint32(b[14:]) {
	case 12, 40, 52, 56, 64, 108, 124:
		return true
	}
	return false
}

// otherFormat says what a file is by its first bytes; errNotPicture if that isn't known.
func otherFormat(b []byte) error {
	text := string(b)
	low := strings.ToLower(strings.TrimSpace(text))
	begins := func(starts ...string) bool {
		for _, s := range starts {
			if strings.HasPrefix(text, s) || strings.HasPrefix(low, s) {
				return true
			}
		}
		return false
	}
	unread := func(name string) error { return fmt.Errorf("is %s, which is not read here", name) }
	switch {
	case text == "":
		return errors.New("is empty")
	case begins("GIF87a", "GIF89a"):
		return unread("a GIF picture")
	case begins("II*\x00", "MM\x00*", "II+\x00", "MM\x00+"):
		return unread("a TIFF picture")
	case begins("\xff\x0a", "\x00\x00\x00\x0cJXL "):
		return unread("a JPEG XL picture")
	case begins("8BPS"):
		return unread("a Photoshop picture")
	case len(b) >= 12 && text[4:8] == "ftyp":
		switch text[8:12] {
		case "avif", "avis":
			return unread("an AVIF picture")
		case "heic", "heix", "heim", "heis", "hevc", "mif1", "msf1":
			return unread("a HEIC picture")
		}
		return unread("a video")
	case begins("<svg", "<?xml"):
		return unread("an SVG picture")
	case begins("version https://git-lfs"):
		return errors.New("is a Git LFS pointer, not a picture: run git lfs pull")
	case begins("<!doctype html", "<html"):
		return errors.New("is a web page, not a picture")
	}
	return errNotPicture
}

// readPNG walks the chunks: IHDR for the size, eXIf for the rotation, acTL for an animation. A file that ends before IEND is refused.
func (h *header) readPNG(r io.ReaderAt, length int64) error {
	h.format = "PNG"
	var b [8]byte
	for at, n := int64(8), 0; n < maxChunks; n++ {
		if _, err := r.ReadAt(b[:], at); err != nil {
			return truncated(length, err)
		}
		size, kind := int64(binary.BigEndian.Uint32(b[:4])), string(b[4:])
		if n == 0 && kind != "IHDR" {
			return errors.New("is damaged: a PNG file that doesn't begin with its header")
		}
		next := at + 8 + size + 4 // data, checksum
		if next > length {
			return truncated(length, io.EOF)
		}
		switch kind {
		case "IHDR":
			if size != 13 || h.stored.W != 0 {
				return errors.New("is damaged: its PNG header is wrong")
			}
			var dims [8]byte
			if _, err := r.ReadAt(dims[:], at+8); err != nil {
				return truncated(length, err)
			}
			h.stored = Size{int(binary.BigEndian.Uint32(dims[:4])), int(binary.BigEndian.Uint32(dims[4:]))}
		case "acTL":
			h.animated = true
		case "eXIf":
			h.readOrientation(r, at+8, size)
		case "IEND":
			return nil
		}
		at = next
	}
	return nil
}

// readJPEG walks the segments up to the frame header; APP1 holds the rotation.
func (h *header) readJPEG(r io.ReaderAt, length int64) error {
	h.format = "JPEG"
	in := bufio.NewReaderSize(io.NewSectionReader(r, 2, min(length, maxHeaderBytes)), 4096)
	for at := int64(2); ; {
		marker, skipped, err := nextMarker(in)
		if err != nil {
			return truncated(length, err)
		}
		at += skipped
		if marker >= 0xd0 && marker <= 0xd8 || marker == 0x01 { // no length
			continue
		}
		if marker == 0xd9 || marker == 0xda {
			return errors.New("is damaged: its picture data begin before its size")
		}
		var two [2]byte
		if _, err := io.ReadFull(in, two[:]); err != nil {
			return truncated(length, err)
		}
		size := int64(binary.BigEndian.Uint16(two[:])) - 2
		at += 2
		if size < 0 {
			return errors.New("is damaged: a JPEG segment has a wrong length")
		}
		switch {
		case marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc:
			if marker > 0xc2 {
				return errors.New("is a lossless or arithmetic-coded JPEG picture, which is not read here")
			}
			var b [5]byte // precision, height, width
			if _, err := io.ReadFull(in, b[:]); err != nil {
				return truncated(length, err)
			}
			if b[0] != 8 {
				return fmt.Errorf("is a JPEG picture of %d bits, which is not read here", b[0])
			}
			h.stored = Size{int(binary.BigEndian.Uint16(b[3:])), int(binary.BigEndian.Uint16(b[1:]))}
			return nil
		case marker == 0xe1 && size > 6:
			var id [6]byte
			if _, err := r.ReadAt(id[:], at); err == nil && string(id[:]) == "Exif\x00\x00" && h.orientation == 1 {
				h.readOrientation(r, at+6, size-6)
			}
		}
		if n, err := in.Discard(int(size)); err != nil || int64(n) != size {
			return truncated(length, io.EOF)
		}
		at += size
	}
}

// nextMarker reads up to and with the next marker and returns its code and the number of bytes read.
func nextMarker(in *bufio.Reader) (code byte, read int64, err error) {
	for seen := false; ; {
		c, err := in.ReadByte()
		if err != nil {
			return 0, read, err
		}
		read++
		if c == 0xff {
			seen = true
		} else if seen && c != 0 {
			return c, read, nil
		} else {
			seen = false
		}
	}
}

// readWebP walks the RIFF chunks. The size of the first frame's own header counts, since that is what a decoder allocates.
func (h *header) readWebP(r io.ReaderAt, length int64) error {
	h.format = "WebP"
	var b [8]byte
	if _, err := r.ReadAt(b[:4], 4); err != nil {
		return truncated(length, err)
	}
	end := int64(binary.LittleEndian.Uint32(b[:4])) + 8
	if end > length {
		return truncated(length, io.EOF)
	}
	var canvas, inner Size
	for at, n := int64(12), 0; at+8 <= end && n < maxChunks; n++ {
		if _, err := r.ReadAt(b[:], at); err != nil {
			return truncated(length, err)
		}
		kind, size := string(b[:4]), int64(binary.LittleEndian.Uint32(b[4:]))
		if at+8+size > end {
			return truncated(length, io.EOF)
		}
		switch {
		case kind == "VP8X" && size >= 10:
			var x [10]byte
			if _, err := r.ReadAt(x[:], at+8); err != nil {
				return truncated(length, err)
			}
			h.animated = x[0]&2 != 0
			canvas = Size{1 + uint24(x[4:]), 1 + uint24(x[7:])}
		case kind == "ANMF" && size >= 16 && h.frame.length == 0:
			var x [16]byte
			if _, err := r.ReadAt(x[:], at+8); err != nil {
				return truncated(length, err)
			}
			h.frame = frame{offset: at + 24, length: size - 16, x: 2 * uint24(x[0:]), y: 2 * uint24(x[3:]), size: Size{1 + uint24(x[6:]), 1 + uint24(x[9:])}}
		case (kind == "VP8 " || kind == "VP8L") && inner == Size{}:
			var err error
			if inner, err = webpFrameSize(r, kind, at+8); err != nil {
				return err
			}
		case kind == "EXIF":
			start, skip := [6]byte{}, int64(0)
			if _, err := r.ReadAt(start[:], at+8); err == nil && string(start[:]) == "Exif\x00\x00" {
				skip = 6
			}
			h.readOrientation(r, at+8+skip, size-skip)
		}
		at += 8 + size + size&1
	}
	switch {
	case h.animated && h.frame.length > 0:
		h.stored = canvas
		if f := h.frame; f.x+f.size.W > canvas.W || f.y+f.size.H > canvas.H {
			return errors.New("is damaged: its first frame lies outside the picture")
		}
	case inner == Size{}:
		return errors.New("is damaged: a WebP file without a picture")
	case canvas != Size{} && canvas != inner:
		return fmt.Errorf("is damaged: its header says %v, its picture %v", canvas, inner)
	default:
		h.animated = false
		h.stored = inner
	}
	return nil
}

// webpFrameSize reads the size from the start of a VP8 (lossy) or VP8L (lossless) bit stream.
func webpFrameSize(r io.ReaderAt, kind string, at int64) (Size, error) {
	var b [10]byte
	if kind == "VP8L" {
		if _, err := r.ReadAt(b[:5], at); err != nil || b[0] != 0x2f {
			return Size{}, errors.New("is damaged: its WebP picture has a wrong start")
		}
		bits := binary.LittleEndian.Uint32(b[1:])
		return Size{1 + int(bits&0x3fff), 1 + int(bits>>14&0x3fff)}, nil
	}
	if _, err := r.ReadAt(b[:], at); err != nil || string(b[3:6]) != "\x9d\x01\x2a" {
		return Size{}, errors.New("is damaged: its WebP picture has a wrong start")
	}
	return Size{int(binary.LittleEndian.Uint16(b[6:]) & 0x3fff), int(binary.LittleEndian.Uint16(b[8:]) & 0x3fff)}, nil
}

// readBMP lets the decoder read the header, because it knows which of the many kinds it can decode.
func (h *header) readBMP(r io.ReaderAt, length int64) error {
	h.format = "BMP"
	c, err := bmp.DecodeConfig(io.NewSectionReader(r, 0, length))
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return truncated(length, io.EOF)
	case err != nil:
		return errors.New("is a BMP picture of a kind that is not read here")
	}
	h.stored = Size{c.Width, c.Height}
	return nil
}

// readOrientation takes the rotation from an EXIF block of the given length, if it has one.
func (h *header) readOrientation(r io.ReaderAt, at, length int64) {
	block := make([]byte, max(0, min(length, 1<<16)))
	n, _ := r.ReadAt(block, at)
	h.orientation = exifOrientation(block[:n])
}

func truncated(length int64, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("is truncated: the file ends after %d bytes", length)
	}
	return fmt.Errorf("can't be read: %w", err)
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }
