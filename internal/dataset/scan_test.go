package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lycoris/internal/fault"
)

func mustScan(t *testing.T, limits Limits, sources ...Source) *Set {
	t.Helper()
	set, err := Scan(sources, limits)
	if err != nil {
		t.Fatalf("Scan: %v", err)
	}
	return set
}

// brief describes a set's images, one line each.
func brief(set *Set) string {
	var lines []string
	for _, im := range set.Images {
		lines = append(lines, fmt.Sprintf("%s %s %dx%d ×%d %q", im.Name, im.Format, im.Width, im.Height, im.Repeats, im.Caption))
	}
	return strings.Join(lines, "\n")
}

// warnings joins everything a set warns of.
func warnings(set *Set) string {
	var lines []string
	for _, w := range set.Warnings {
		lines = append(lines, w.String())
	}
	return strings.Join(lines, "\n")
}

func TestScanPlainFolder(t *testing.T) {
	png := pngBytes(t, pattern(40, 33))
	dir := folderOf(t, map[string][]byte{
		"b.png":         png,
		"a.jpg":         jpegBytes(t, pattern(48, 40)),
		"c.webp":        lossyWebP,
		"d.BMP":         bmpBytes(t, pattern(35, 36)),
		"wrong.png":     jpegBytes(t, pattern(37, 38)), // the content counts
		"no-ending":     png,
		"turned.jpeg":   withSegment(jpegBytes(t, pattern(64, 40)), 0xe1, append([]byte("Exif\x00\x00"), exifBlock(binary.BigEndian, 6)...)),
		"a.txt":         []byte("a cat\nmore"),
		"b.caption":     []byte("by caption"),
		"c.caption":     []byte("second choice"),
		"c.txt":         []byte("first choice"),
		"d.TXT":         []byte("upper case ending"),
		"lone.txt":      []byte("nobody's"),
		".hidden.png":   []byte("not looked at"),
		"notes.json":    []byte("{}"),
		"sub/other.png": png,
	})
	set := mustScan(t, Limits{}, Source{Path: dir})
	want := `a.jpg JPEG 48x40 ×1 "a cat\nmore"
b.png PNG 40x33 ×1 "by caption"
c.webp WebP 16x12 ×1 "first choice"
d.BMP BMP 35x36 ×1 "upper case ending"
no-ending PNG 40x33 ×1 ""
turned.jpeg JPEG 40x64 ×1 ""
wrong.png JPEG 37x38 ×1 ""`
	if got := brief(set); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	wantWarnings := `3 of 7 pictures have no caption and no class tokens: no-ending, turned.jpeg, wrong.png
1 caption without a picture of the same name: lone.txt
1 caption of several lines: a.txt
1 picture of odd shape: c.webp (16×12)`
	if got := warnings(set); got != wantWarnings {
		t.Errorf("warnings\n%s\nwant\n%s", got, wantWarnings)
	}
	if len(set.Notes) != 1 || set.Notes[0].String() != "1 picture turned upright as the camera noted: turned.jpeg" {
		t.Errorf("notes: %v", set.Notes)
	}
	if set.Total() != 7 || set.String() != "7 pictures" {
		t.Errorf("%v, total %d", set, set.Total())
	}
}

func TestScanRepeatFolders(t *testing.T) {
	png := pngBytes(t, pattern(40, 33))
	dir := folderOf(t, map[string][]byte{
		"10_sks cat/b.png":      png,
		"10_sks cat/a.png":      png,
		"10_sks cat/a.txt":      []byte("a cat"),
		"2_dog/x.png":           png,
		"0_never/x.png":         png,
		"3_empty/readme.md":     []byte("no picture"),
		"misc/y.png":            png,
		"loose.png":             png,
		"99999999999_big/z.png": png,
	})
	set := mustScan(t, Limits{}, Source{Path: dir, Flip: true, KeepTokens: 1, Shuffle: true, CaptionDropout: 0.1, TagDropout: 0.2, Prefix: "p", Suffix: "s"})
	want := `10_sks cat/a.png PNG 40x33 ×10 "a cat"
10_sks cat/b.png PNG 40x33 ×10 "sks cat"
2_dog/x.png PNG 40x33 ×2 "dog"`
	if got := brief(set); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	wantWarnings := "3 folders of " + shownFolder(dir) + " not named <repeats>_<words> left out: 0_never, 99999999999_big, misc\n" +
		"1 picture in " + shownFolder(dir) + " beside folders named <repeats>_<words> left out"
	if got := warnings(set); got != wantWarnings {
		t.Errorf("warnings\n%s\nwant\n%s", got, wantWarnings)
	}
	im := set.Images[0]
	if o := (CaptionOptions{"p", "s", 0.1, 0.2, 1, true}); im.Text != o || !im.Flip || im.Crop != CropCenter || im.Folder != "10_sks cat" || im.ClassTokens != "sks cat" {
		t.Errorf("options of the source didn't arrive: %+v", im)
	}
	if set.Total() != 22 || set.String() != "3 pictures, 22 with repeats" {
		t.Errorf("%v", set)
	}

	set = mustScan(t, Limits{}, Source{Path: dir, Repeats: 3, ClassTokens: "thing"})
	if got := set.Images[1]; got.Repeats != 30 || got.Caption != "thing" {
		t.Errorf("repeats multiply and class tokens of the source win: got ×%d %q", got.Repeats, got.Caption)
	}
	set = mustScan(t, Limits{}, Source{Path: filepath.Join(dir, "2_dog")}, Source{Path: filepath.Join(dir, "misc"), Repeats: 4}, Source{Path: filepath.Join(dir, "10_sks cat"), Repeats: 1})
	want = `x.png PNG 40x33 ×2 "dog"
y.png PNG 40x33 ×4 ""
a.png PNG 40x33 ×1 "a cat"
b.png PNG 40x33 ×1 "sks cat"`
	if got := brief(set); got != want {
		t.Errorf("several sources: got\n%s\nwant\n%s", got, want)
	}
}

func TestScanNoPictures(t *testing.T) {
	png := pngBytes(t, pattern(8, 8))
	files := map[string][]byte{"readme.txt": []byte("hello"), "more/x.jpg": png, "cats and dogs/deep/a.png": png}
	for i := range 31 {
		files[fmt.Sprintf("cats/%d.png", i)] = png
	}
	dir := folderOf(t, files)
	_, err := Scan([]Source{{Path: dir}}, Limits{})
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != fault.Input {
		t.Fatalf("got %v", err)
	}
	shown := shownFolder(dir)
	if want := shown + ` holds no pictures (.png .jpg .jpeg .webp .bmp); its folders "cats" (31), "cats and dogs/deep" (1) and "more" (1) do`; e.Error() != want {
		t.Errorf("got  %s\nwant %s", e, want)
	}
	want := fmt.Sprintf("pass them: --data %s --data '%s' --data %s, or name them <repeats>_<words> (10_cats) and pass %s",
		filepath.Join(dir, "cats"), filepath.Join(dir, "cats and dogs/deep"), filepath.Join(dir, "more"), shown)
	if e.Advice != want {
		t.Errorf("advice %s\nwant   %s", e.Advice, want)
	}

	empty := t.TempDir()
	file := filepath.Join(dir, "readme.txt")
	for path, want := range map[string]string{
		empty:                        shownFolder(empty) + " holds no pictures (.png",
		filepath.Join(empty, "none"): "there is no such folder",
		file:                         "is a file, not a folder",
	} {
		_, err := Scan([]Source{{Path: path}}, Limits{})
		if err == nil || fault.KindOf(err) != fault.Input || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

func TestScanUnusableFiles(t *testing.T) {
	good := pngBytes(t, pattern(40, 33))
	big := append([]byte("a"), make([]byte, 1<<20)...)
	pad := make([]byte, 40)
	files := map[string][]byte{
		"good.png":     good,
		"bomb.png":     bombPNG(60000, 30000),
		"big.webp":     riff("VP8L", flatVP8L(16383, 16383, color.NRGBA{})),
		"cut.png":      good[:len(good)-20],
		"cut.webp":     lossyWebP[:60],
		"empty.jpg":    {},
		"text.png":     []byte("hello"),
		"lfs.png":      []byte("version https://git-lfs.github.com/spec/v1\n"),
		"page.jpg":     []byte("<!DOCTYPE html><html>"),
		"anim.gif":     append([]byte("GIF89a"), pad...),
		"named.png":    append([]byte("GIF89a"), pad...),
		"scan.tiff":    append([]byte("II*\x00"), pad...),
		"photo.avif":   append([]byte("\x00\x00\x00\x1cftypavif"), pad...),
		"photo.heic":   append([]byte("\x00\x00\x00\x1cftypheic"), pad...),
		"photo.jxl":    append([]byte("\xff\x0a"), pad...),
		"lossless.jpg": append([]byte{0xff, 0xd8, 0xff, 0xc3, 0, 11, 8, 0, 8, 0, 8, 1, 0, 0, 0}, pad...),
		"long.png":     good, "long.txt": big,
		"nul.png": good, "nul.txt": []byte("a\x00"),
		"latin.png": good, "latin.txt": []byte("caf\xe9"),
		"evil\n\u202e.png": {1, 2, 3},
	}
	dir := folderOf(t, files)
	if err := os.Symlink(filepath.Join(dir, "loop.png"), filepath.Join(dir, "loop.png")); err != nil {
		t.Fatal(err)
	}
	outside := folderOf(t, map[string][]byte{"x.png": good})
	for name, target := range map[string]string{"out.png": filepath.Join(outside, "x.png"), "gone.png": "nowhere.png", "inside.png": "good.png"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.png"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"bomb.png":          "60000×30000 is over 100 Mpixel",
		"big.webp":          "16383×16383 is over 100 Mpixel",
		"cut.png":           "is truncated: the file ends after",
		"cut.webp":          "is truncated: the file ends after 60 bytes",
		"empty.jpg":         "is empty",
		"text.png":          "is not a picture",
		"lfs.png":           "is a Git LFS pointer",
		"page.jpg":          "is a web page",
		"anim.gif":          "is a GIF picture, which is not read here",
		"named.png":         "is a GIF picture, which is not read here",
		"scan.tiff":         "is a TIFF picture, which is not read here",
		"photo.avif":        "is an AVIF picture, which is not read here",
		"photo.heic":        "is a HEIC picture, which is not read here",
		"photo.jxl":         "is a JPEG XL picture, which is not read here",
		"lossless.jpg":      "is a lossless or arithmetic-coded JPEG picture",
		"long.txt":          "caption is over 64 KiB",
		"nul.txt":           "line 1, column 2: a NUL byte",
		"latin.txt":         "line 1, column 4: not UTF-8",
		"loop.png":          "is a link that goes round in circles",
		"out.png":           "is a link that leads out of the data folder",
		"gone.png":          "is a link to nothing",
		"pipe.png":          "is not a regular file",
		`evil\n\u202e.png"`: "is not a picture", // escaped and quoted
	}

	_, err := Scan([]Source{{Path: dir}}, Limits{})
	var findings Findings
	if !errors.As(err, &findings) || fault.KindOf(err) != fault.Input {
		t.Fatalf("got %v", err)
	}
	if len(findings) != len(want) {
		t.Errorf("%d findings, want %d", len(findings), len(want))
	}
	for _, f := range findings {
		name := filepath.Base(f.Path)
		if want[name] == "" || !strings.HasPrefix(f.Message, want[name]) {
			t.Errorf("%s: %q, want %q", name, f.Message, want[name])
		}
	}
	message := err.Error()
	if !strings.HasPrefix(message, fmt.Sprintf("%d files can't be used: ", len(want))) || !strings.HasSuffix(message, fmt.Sprintf("; and %d more", len(want)-maxNames)) {
		t.Errorf("message %s", message)
	}
	if strings.ContainsAny(message, "\n\u202e") || strings.Count(message, ": is ") > maxNames {
		t.Errorf("message isn't one clean line of five findings: %q", message)
	}

	set := mustScan(t, Limits{OnBad: Skip}, Source{Path: dir})
	if got := brief(set); got != "good.png PNG 40x33 ×1 \"\"\ninside.png PNG 40x33 ×1 \"\"" {
		t.Errorf("left are\n%s", got)
	}
	if len(set.Skipped) != len(want) || !strings.Contains(warnings(set), fmt.Sprintf("%d unusable files skipped: ", len(want))) {
		t.Errorf("skipped %d: %s", len(set.Skipped), warnings(set))
	}
}

func TestScanOneUnusableFile(t *testing.T) {
	dir := folderOf(t, map[string][]byte{"cat.png": bombPNG(60000, 30000)})
	for _, policy := range []OnBad{Stop, Skip} { // skip has nothing left
		_, err := Scan([]Source{{Path: dir}}, Limits{OnBad: policy})
		if want := filepath.Join(dir, "cat.png") + ": 60000×30000 is over 100 Mpixel"; err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", policy, err, want)
		}
	}
	set := mustScan(t, Limits{MaxPixels: 2e9}, Source{Path: dir})
	if set.Images[0].Width != 60000 {
		t.Errorf("the limit doesn't rise: %v", brief(set))
	}
	_, err := Scan([]Source{{Path: folderOf(t, map[string][]byte{"cat.png": pngBytes(t, pattern(9, 9))})}}, Limits{MaxFile: 64})
	if err == nil || !strings.Contains(err.Error(), "bytes, over 64 bytes") {
		t.Errorf("file limit: got %v", err)
	}
}

func TestScanUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		// Root reads everything; what is tested for others is the message.
		if got := messageOf(folderFault("x", &os.PathError{Op: "open", Path: "x", Err: os.ErrPermission})); got != "the folder can't be opened: permission denied" {
			t.Errorf("got %q", got)
		}
		return
	}
	dir := folderOf(t, map[string][]byte{"cat.png": pngBytes(t, pattern(9, 9))})
	if err := os.Chmod(filepath.Join(dir, "cat.png"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Scan([]Source{{Path: dir}}, Limits{}); err == nil || !strings.Contains(err.Error(), "can't be read: permission denied") {
		t.Errorf("got %v", err)
	}
}

func TestScanWarnings(t *testing.T) {
	png := pngBytes(t, pattern(40, 33))
	files := map[string][]byte{
		"e.png": png, "e.txt": {},
		"u.png": png, "u.txt": []byte("\xff\xfea\x00"),
		"o.png": png, "o.txt": []byte("a {b"),
		"w.webp":   animatedWebP,
		"thin.png": pngBytes(t, pattern(200, 33)),
	}
	for i := range 7 {
		files[fmt.Sprintf("n%d.png", i)] = png
	}
	got := warnings(mustScan(t, Limits{}, Source{Path: folderOf(t, files)}))
	want := `9 of 12 pictures have no caption and no class tokens: n0.png, n1.png, n2.png, n3.png, n4.png, and 4 more
1 caption file without text: e.txt
1 caption in UTF-16, converted: u.txt
1 caption with a brace that has no partner: o.txt line 1, column 3
1 animated picture: only the first frame is trained: w.webp
2 pictures of odd shape: thin.png (200×33), w.webp (8×6)`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestScanOptionsRefused(t *testing.T) {
	dir := folderOf(t, map[string][]byte{"cat.png": pngBytes(t, pattern(9, 9))})
	tests := []struct {
		sources []Source
		limits  Limits
		want    string
	}{
		{nil, Limits{}, "data: no folder"},
		{[]Source{{}}, Limits{}, "data[].path: is empty"},
		{[]Source{{Path: dir, Repeats: -1}}, Limits{}, "data[].repeats: -1"},
		{[]Source{{Path: dir, Crop: "middle"}}, Limits{}, `data[].crop: "middle"`},
		{[]Source{{Path: dir, CaptionDropout: 1.5}}, Limits{}, "data[].caption_dropout: 1.5"},
		{[]Source{{Path: dir, TagDropout: -0.1}}, Limits{}, "data[].tag_dropout: -0.1"},
		{[]Source{{Path: dir, KeepTokens: -1}}, Limits{}, "data[].keep_tokens: -1"},
		{[]Source{{Path: dir, CaptionExt: []string{".png"}}}, Limits{}, `data[].caption_ext: ".png"`},
		{[]Source{{Path: dir, CaptionExt: []string{"../x"}}}, Limits{}, "data[].caption_ext"},
		{[]Source{{Path: dir}}, Limits{OnBad: "ignore"}, `data_limits.on_bad: "ignore"`},
	}
	for _, tc := range tests {
		_, err := Scan(tc.sources, tc.limits)
		if err == nil || fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got %v, want a usage error with %q", tc.sources, err, tc.want)
		}
	}
}

// The result doesn't depend on how many threads look.
func TestScanThreads(t *testing.T) {
	files := map[string][]byte{}
	for i := range 60 {
		files[fmt.Sprintf("%03d.png", i)] = pngBytes(t, pattern(33+i%5, 33))
		files[fmt.Sprintf("%03d.txt", i)] = fmt.Appendf(nil, "picture %d", i)
	}
	dir := folderOf(t, files)
	many := brief(mustScan(t, Limits{}, Source{Path: dir}))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if one := brief(mustScan(t, Limits{}, Source{Path: dir})); one != many {
		t.Errorf("one thread\n%s\nmany\n%s", one, many)
	}
}

func TestShown(t *testing.T) {
	for name, want := range map[string]string{
		"cat 07.png": "cat 07.png", "Katze-äöü-猫.png": "Katze-äöü-猫.png", "a\nb": `"a\nb"`, "a\x1b[31m": `"a\x1b[31m"`, "a\u202eb": `"a\u202eb"`, "\xff": `"\xff"`,
	} {
		if got := Shown(name); got != want {
			t.Errorf("Shown(%q) = %s, want %s", name, got, want)
		}
	}
}

func TestSplit(t *testing.T) {
	png := pngBytes(t, pattern(33, 33))
	files := map[string][]byte{}
	for i := range 20 {
		files[fmt.Sprintf("2_x/%02d.png", i)] = png
	}
	dir := folderOf(t, files)
	set := mustScan(t, Limits{}, Source{Path: dir}, Source{Path: filepath.Join(dir, "2_x"), Repeats: 1})
	names := func(s *Set) (out []string) {
		for _, im := range s.Images {
			out = append(out, im.Path)
		}
		return out
	}
	train, held, err := set.Split(0.15, 7)
	if err != nil {
		t.Fatal(err)
	}
	if len(held.Images) != 3 || len(train.Images) != 2*17 {
		t.Fatalf("%d held, %d left of 20 files listed twice", len(held.Images), len(train.Images))
	}
	for _, path := range names(held) {
		if slices.Contains(names(train), path) {
			t.Errorf("%s is on both sides", path)
		}
	}
	if !slices.IsSorted(names(held)) {
		t.Errorf("held out in the order %v", names(held))
	}
	_, again, _ := set.Split(0.15, 7)
	_, other, _ := set.Split(0.15, 8)
	if !slices.Equal(names(again), names(held)) || slices.Equal(names(other), names(held)) {
		t.Errorf("the seed doesn't choose: %v, again %v, other %v", names(held), names(again), names(other))
	}
	if _, held, _ := set.Split(0.001, 1); len(held.Images) != 1 {
		t.Errorf("a tiny fraction holds out %d", len(held.Images))
	}
	if train, _, _ := set.Split(0.999, 1); len(train.Images) != 2 {
		t.Errorf("a large fraction leaves %d", len(train.Images))
	}
	if train, held, _ := set.Split(0, 1); train != set || len(held.Images) != 0 {
		t.Error("0 holds something out")
	}
	for _, f := range []float64{-0.1, 1, 2} {
		if _, _, err := set.Split(f, 1); fault.KindOf(err) != fault.Usage || err == nil {
			t.Errorf("%v: got %v", f, err)
		}
	}
}

func TestDrop(t *testing.T) {
	png := pngBytes(t, pattern(33, 33))
	set := mustScan(t, Limits{}, Source{Path: folderOf(t, map[string][]byte{"a.png": png, "b.png": png})})
	bad := map[*Image]error{set.Images[0]: fault.BadInput("x", "is damaged")}
	left, err := set.Drop(bad)
	if err != nil || len(left.Images) != 1 || left.Images[0] != set.Images[1] {
		t.Fatalf("left %v, %v", left, err)
	}
	if want := set.Images[0].Path + ": is damaged"; len(left.Skipped) != 1 || left.Skipped[0].String() != want {
		t.Errorf("skipped %v, want %s", left.Skipped, want)
	}
	bad[set.Images[1]] = errors.New("too")
	if _, err := set.Drop(bad); fault.KindOf(err) != fault.Input || err == nil {
		t.Errorf("nothing left: got %v", err)
	}
}

func FuzzScan(f *testing.F) {
	f.Add("10_cat", "a.png", []byte("x"), "a.txt", []byte("hi"))
	f.Add("-", "\xff.png", bombPNG(1, 1), "\xff.txt", []byte{0xff, 0xfe, 0})
	f.Fuzz(func(t *testing.T, folder, name string, data []byte, captionName string, caption []byte) {
		dir := t.TempDir()
		sub := filepath.Join(dir, filepath.Base(filepath.Clean("/"+folder)))
		if strings.ContainsRune(folder+name+captionName, 0) || len(folder)+len(name)+len(captionName) > 200 || os.MkdirAll(sub, 0o755) != nil {
			t.Skip("not a name")
		}
		for n, b := range map[string][]byte{name: data, captionName: caption} {
			if os.WriteFile(filepath.Join(sub, filepath.Base(filepath.Clean("/"+n))), b, 0o644) != nil {
				t.Skip("not a name")
			}
		}
		set, err := Scan([]Source{{Path: dir}}, Limits{OnBad: Skip})
		if err != nil {
			if s := err.Error(); strings.ContainsAny(s, "\n\x1b\x00") {
				t.Fatalf("message with control characters: %q", s)
			}
			return
		}
		seen := map[string]bool{}
		for _, im := range set.Images {
			if seen[im.Path] || im.Repeats < 1 || im.Width < 1 || im.Height < 1 {
				t.Fatalf("image %+v", im)
			}
			seen[im.Path] = true
		}
	})
}
