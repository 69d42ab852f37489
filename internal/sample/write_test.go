package sample

import (
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestToImage(t *testing.T) {
	img := toImage([]float32{-1, 0, 1, -3, 5, 0.5}, 1, 2)
	for x, want := range []color.NRGBA{{0, 128, 255, 255}, {0, 255, 191, 255}} {
		if got := img.At(x, 0); got != want {
			t.Errorf("pixel %d is %v, want %v", x, got, want)
		}
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "00-seed7.png")
	p := Prompt{Text: "a \"cat\"", Negative: "dog", W: 2, H: 1, Seed: 7, Steps: 3, CFG: 1.5, Sampler: "ddim"}
	meta := p.Meta(Adapter{"cat.safetensors", "00ff", 0.5})
	img := toImage([]float32{-1, 0, 1, -3, 5, 0.5}, 1, 2)
	if err := Write(path, img, meta); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	back, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	for x := range 2 {
		if r, g, b, a := back.At(x, 0).RGBA(); (color.RGBA64{uint16(r), uint16(g), uint16(b), uint16(a)}) != color.RGBA64Model.Convert(img.At(x, 0)) {
			t.Errorf("pixel %d: %v, want %v", x, back.At(x, 0), img.At(x, 0))
		}
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "00-seed7.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got Meta
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, meta) {
		t.Errorf("%s, %v, want %+v", text, err, meta)
	}
	if err := Write(filepath.Join(filepath.Dir(path), "no", "x.png"), img, meta); err == nil {
		t.Error("written into a folder that isn't there")
	}
}

func TestSheet(t *testing.T) {
	solid := func(w, h int, c color.NRGBA) image.Image {
		img := image.NewNRGBA(image.Rect(0, 0, w, h))
		for i := range w * h {
			img.SetNRGBA(i%w, i/w, c)
		}
		return img
	}
	red, green, blue, white := color.NRGBA{255, 0, 0, 255}, color.NRGBA{0, 255, 0, 255}, color.NRGBA{0, 0, 255, 255}, color.NRGBA{255, 255, 255, 255}
	sheet := Sheet([]image.Image{solid(10, 4, red), solid(6, 12, green), solid(3, 3, blue)})
	if got, want := sheet.Bounds().Size(), image.Pt(2*10+3*gap, 2*12+3*gap); got != want {
		t.Fatalf("size %v, want %v", got, want)
	}
	for _, c := range []struct {
		x, y int
		want color.NRGBA
	}{{0, 0, white}, {gap, gap, red}, {gap + 9, gap + 3, red}, {gap, gap + 4, white}, {10 + 2*gap, gap, green}, {15 + 2*gap, gap + 11, green}, {gap, 12 + 2*gap, blue},
		{10 + 2*gap, 12 + 2*gap, white}} {
		if got := sheet.At(c.x, c.y); got != c.want {
			t.Errorf("(%d,%d) is %v, want %v", c.x, c.y, got, c.want)
		}
	}
}
