package dataset

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/image/bmp"
)

// pattern returns a picture whose pixels all differ: red counts columns, green rows.
func pattern(w, h int) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetNRGBA(x, y, color.NRGBA{uint8(10 + 5*x), uint8(20 + 7*y), 200, 255})
		}
	}
	return m
}

func pngBytes(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jpegBytes(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 100}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func bmpBytes(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := bmp.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pngChunk returns length, kind, data and checksum.
func pngChunk(kind string, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	b = append(append(b, kind...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

// withChunk puts a chunk behind the header of a PNG file.
func withChunk(file []byte, kind string, data []byte) []byte {
	const afterIHDR = 8 + 4 + 4 + 13 + 4
	out := append([]byte(nil), file[:afterIHDR]...)
	out = append(out, pngChunk(kind, data)...)
	return append(out, file[afterIHDR:]...)
}

// bombPNG is a header that claims w × h pixels of 16-bit RGBA, with nearly no data: 57 bytes.
func bombPNG(w, h uint32) []byte {
	head := binary.BigEndian.AppendUint32(nil, w)
	head = binary.BigEndian.AppendUint32(head, h)
	head = append(head, 16, 6, 0, 0, 0)
	out := append([]byte("\x89PNG\r\n\x1a\n"), pngChunk("IHDR", head)...)
	out = append(out, pngChunk("IDAT", nil)...)
	return append(out, pngChunk("IEND", nil)...)
}

// exifBlock is an EXIF block with an orientation, in either byte order.
func exifBlock(order binary.AppendByteOrder, orientation uint16) []byte {
	b := []byte("II*\x00")
	if order == binary.AppendByteOrder(binary.BigEndian) {
		b = []byte("MM\x00*")
	}
	b = order.AppendUint32(b, 8) // directory
	b = order.AppendUint16(b, 2) // entries
	b = order.AppendUint16(b, 0x010f)
	b = order.AppendUint16(b, 2)
	b = order.AppendUint32(b, 4)
	b = append(b, "cam\x00"...)
	b = order.AppendUint16(b, 0x0112)
	b = order.AppendUint16(b, 3)
	b = order.AppendUint32(b, 1)
	b = order.AppendUint16(b, orientation)
	b = order.AppendUint16(b, 0)
	return order.AppendUint32(b, 0)
}

// withSegment puts a segment behind the start of a JPEG file.
func withSegment(file []byte, marker byte, data []byte) []byte {
	out := append([]byte(nil), file[:2]...)
	out = append(out, 0xff, marker)
	out = binary.BigEndian.AppendUint16(out, uint16(len(data)+2))
	return append(append(out, data...), file[2:]...)
}

// bits collects the bits of a VP8L stream, lowest first.
type bits struct {
	b []byte
	n int
}

func (w *bits) put(v uint64, n int) {
	for i := range n {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (w.n % 8)
		w.n++
	}
}

// flatVP8L is a lossless WebP bit stream of one colour: every Huffman code has a single symbol, so the pixels take no bits.
func flatVP8L(w, h int, c color.NRGBA) []byte {
	s := &bits{}
	s.put(0x2f, 8)
	s.put(uint64(w-1), 14)
	s.put(uint64(h-1), 14)
	s.put(1, 1) // alpha is used
	s.put(0, 3) // version
	s.put(0, 3) // no transform, no colour cache, one set of codes
	for _, v := range []uint8{c.G, c.R, c.B, c.A, 0} {
		s.put(1, 1) // simple code
		s.put(0, 1) // of one symbol
		s.put(1, 1) // with 8 bits
		s.put(uint64(v), 8)
	}
	return s.b
}

// riff packs chunks (kind, data, kind, data...) into a WebP file.
func riff(parts ...any) []byte {
	body := []byte("WEBP")
	for i := 0; i < len(parts); i += 2 {
		data := parts[i+1].([]byte)
		body = append(body, parts[i].(string)...)
		body = binary.LittleEndian.AppendUint32(body, uint32(len(data)))
		body = append(body, data...)
		if len(data)%2 == 1 {
			body = append(body, 0)
		}
	}
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body))), body...)
}

// vp8x is the extended header of a WebP file.
func vp8x(flags byte, w, h int) []byte {
	return []byte{flags, 0, 0, 0, byte(w - 1), byte((w - 1) >> 8), byte((w - 1) >> 16), byte(h - 1), byte((h - 1) >> 8), byte((h - 1) >> 16)}
}

// Made with Pillow 13.0.0. lossyWebP: 16×12, left half (200,60+10y,30), right half (40,60+10y,30), quality 90; Pillow reads
// (203,119,29) at (4,6), (43,119,32) at (12,6). lossyAlphaWebP: the same with alpha 128. animatedWebP: 8×6, two lossless frames, the first
// (250,10,20). cmykJPEG: 8×8, (200,100,50), Adobe's inverted CMYK.
var (
	lossyWebP      = unbase64("UklGRlYAAABXRUJQVlA4IEoAAAAwAgCdASoQAAwAAMASJbACdLoB+AADIDEeQAD+7vJnX9WurN68dlACRuMd//wbzAOOYC+ssSr/cpKv/5ayoEXk0/LWj7/ukQAAAA==")
	lossyAlphaWebP = unbase64("UklGRnoAAABXRUJQVlA4WAoAAAAQAAAADwAACwAAQUxQSAoAAAABB1DAiAhERP8DVlA4IEoAAAAwAgCdASoQAAwAAMASJbACdLoB+AADIDEeQAD+7vJnX9WurN68dlACRuMd//wbzAOOYC+ssSr/cpKv/5ayoEXk0/LWj7/ukQAAAA==")
	animatedWebP   = unbase64("UklGRogAAABXRUJQVlA4WAoAAAACAAAABwAABQAAQU5JTQYAAAAAAAAAAABBTk1GKgAAAAAAAAAAAAcAAAUAAAAAAAJWUDhMEQAAAC8HQAEAB1CF6pei/4GI6H8AAEFOTUYqAAAAAAAAAAAABwAABQAAAAAAAFZQOEwRAAAALwdAAQAHUP0qlKL/gYjofwAA")
	cmykJPEG       = unbase64("/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwACAQEBAQECAQEBAgICAgIEAwICAgIFBAQDBAYFBgYGBQYGBgcJCAYHCQcGBggLCAkKCgoKCgYICwwLCgwJCgoK/8AAFAgACAAIBEMRAE0RAFkRAEsRAP/EAB8AAAEFAQEBAQEBAAAAAAAAAAABAgMEBQYHCAkKC//EALUQAAIBAwMCBAMFBQQEAAABfQECAwAEEQUSITFBBhNRYQcicRQygZGhCCNCscEVUtHwJDNicoIJChYXGBkaJSYnKCkqNDU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVmZ2hpanN0dXZ3eHl6g4SFhoeIiYqSk5SVlpeYmZqio6Slpqeoqaqys7S1tre4ubrCw8TFxsfIycrS09TV1tfY2drh4uPk5ebn6Onq8fLz9PX29/j5+v/aAA4EQwBNAFkASwAAPwD9IK8Pr8x6/fyv/9k=")
)

func unbase64(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// folderOf writes files, named by their path below a new folder, and returns the folder.
func folderOf(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
