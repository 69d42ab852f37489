package sample

import (
	"encoding/json"
	"image"
	"image/draw"
	"image/png"
	"io"
	"math"
	"strings"

	"lycoris/internal/tensor"
)

// Meta is what a picture was made from, as it stands in the JSON file beside it.
type Meta struct {
	Prompt   string    `json:"prompt"`
	Negative string    `json:"negative"`
	Seed     uint64    `json:"seed"`
	Steps    int       `json:"steps"`
	CFG      float64   `json:"cfg"`
	Sampler  string    `json:"sampler"`
	Width    int       `json:"width"`
	Height   int       `json:"height"`
	Adapters []Adapter `json:"adapters"`
}

// Adapter names an adapter file.
type Adapter struct {
	Name   string  `json:"name"`             // without folders
	SHA256 string  `json:"sha256,omitempty"` // of the file; empty for an adapter that isn't in one
	Weight float64 `json:"weight"`
}

// Meta returns what a picture of p with adapters is made from.
func (p Prompt) Meta(adapters ...Adapter) Meta {
	return Meta{p.Text, p.Negative, p.Seed, p.Steps, p.CFG, p.Sampler, p.W, p.H, append([]Adapter{}, adapters...)}
}

// SidecarPath returns the name of the JSON file beside the picture at path.
func SidecarPath(path string) string { return strings.TrimSuffix(path, ".png") + ".json" }

// Write writes img as a PNG to path, which ends in .png, and meta beside it: first meta, so that no picture lacks it. Each file is written all or nothing.
func Write(path string, img image.Image, meta Meta) error {
	text, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return err
	}
	if err := tensor.WriteAtomic(SidecarPath(path), func(w io.Writer) error { _, err := w.Write(append(text, '\n')); return err }); err != nil {
		return err
	}
	return WritePNG(path, img)
}

// WritePNG writes img alone, all or nothing.
func WritePNG(path string, img image.Image) error {
	return tensor.WriteAtomic(path, func(w io.Writer) error { return png.Encode(w, img) })
}

// gap is the space between the pictures of a sheet, in pixels.
const gap = 8

// Sheet lays pictures out in rows, as near to a square as their number allows, each in the corner of a cell as large as the largest. The rest is white.
func Sheet(pictures []image.Image) image.Image {
	columns := int(math.Ceil(math.Sqrt(float64(len(pictures)))))
	rows := 0
	if columns > 0 {
		rows = (len(pictures) + columns - 1) / columns
	}
	var cell image.Point
	for _, p := range pictures {
		cell.X, cell.Y = max(cell.X, p.Bounds().Dx()), max(cell.Y, p.Bounds().Dy())
	}
	sheet := image.NewNRGBA(image.Rect(0, 0, columns*(cell.X+gap)+gap, rows*(cell.Y+gap)+gap))
	draw.Draw(sheet, sheet.Bounds(), image.White, image.Point{}, draw.Src)
	for i, p := range pictures {
		at := image.Pt(gap+i%columns*(cell.X+gap), gap+i/columns*(cell.Y+gap))
		draw.Draw(sheet, image.Rectangle{Min: at, Max: at.Add(p.Bounds().Size())}, p, p.Bounds().Min, draw.Src)
	}
	return sheet
}
