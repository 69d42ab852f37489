package dataset

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"lycoris/internal/fault"
)

// scanWorkers bounds how many files are open at once; most of the time goes into waiting for a disk.
func scanWorkers() int { return min(4*runtime.GOMAXPROCS(0), 16) }

// Shapes that are probably a mistake.
const (
	oddRatio = 5  // long side over short side
	oddSide  = 32 // pixels
)

// Scan lists the pictures of all sources and reads their headers and captions. A source is a folder of pictures, or, as kohya's
// trainers have it, a folder of folders named <repeats>_<class tokens>; loose pictures beside those are left out with a warning.
//
// Files that can't be used are collected; the policy [Stop] then returns one error of kind fault.Input about all of them (its cause is
// a [Findings]), [Skip] leaves them out. No usable picture at all is an error in both.
func Scan(sources []Source, limits Limits) (*Set, error) {
	sc := &scanner{limits: limits.withDefaults(), set: &Set{}}
	if sc.limits.OnBad != Stop && sc.limits.OnBad != Skip {
		return nil, fault.BadUsage("data_limits.on_bad", "%q is not one of stop, skip", sc.limits.OnBad)
	}
	if len(sources) == 0 {
		return nil, fault.BadUsage("data", "no folder of pictures is given").Advise("pass one: --data FOLDER")
	}
	for i := range sources {
		s := sources[i]
		if err := s.check(); err != nil {
			return nil, err
		}
		if err := sc.source(&s); err != nil {
			return nil, err
		}
	}
	if len(sc.bad) > 0 && (sc.limits.OnBad == Stop || len(sc.set.Images) == 0) {
		return nil, sc.bad.fault()
	}
	sc.report()
	return sc.set, nil
}

// check validates the options and fills in the defaults.
func (s *Source) check() error {
	if s.Path == "" {
		return fault.BadUsage("data[].path", "is empty").Advise("pass a folder of pictures: --data FOLDER")
	}
	if s.Repeats < 0 || s.Repeats > maxRepeats {
		return fault.BadUsage("data[].repeats", "%d is out of range: 1 to %d", s.Repeats, maxRepeats)
	}
	if s.Crop == "" {
		s.Crop = CropCenter
	}
	if s.Crop != CropCenter && s.Crop != CropRandom {
		return fault.BadUsage("data[].crop", "%q is not one of center, random", s.Crop)
	}
	for key, p := range map[string]float64{"caption_dropout": s.CaptionDropout, "tag_dropout": s.TagDropout} {
		if !(p >= 0 && p <= 1) {
			return fault.BadUsage("data[]."+key, "%v is out of range: 0 to 1", p)
		}
	}
	if s.KeepTokens < 0 {
		return fault.BadUsage("data[].keep_tokens", "%d is out of range: 0 or more", s.KeepTokens)
	}
	exts := s.CaptionExt
	if len(exts) == 0 {
		exts = []string{".txt", ".caption"}
	}
	s.CaptionExt = nil
	for _, ext := range exts {
		ext = "." + strings.ToLower(strings.TrimPrefix(ext, "."))
		if _, picture := pictureExt[ext]; picture || len(ext) < 2 || strings.Count(ext, ".") > 1 || strings.ContainsAny(ext, `/\`) {
			return fault.BadUsage("data[].caption_ext", "%q is not the ending of a caption file", ext).Advise("write it like .txt")
		}
		s.CaptionExt = append(s.CaptionExt, ext)
	}
	return nil
}

// scanner collects what all sources hold.
type scanner struct {
	limits Limits
	set    *Set
	bad    Findings

	noCaption, emptyCaption, lone, wide, manyLines, unbalanced []string // names for warnings
	animated, odd, turned                                      []string
}

// source scans one source.
func (sc *scanner) source(s *Source) error {
	top := &folder{path: s.Path, root: s.Path, repeats: max(s.Repeats, 1), class: s.ClassTokens, source: s}
	if err := top.list(); err != nil {
		return err
	}
	if n, class, ok := parseRepeats(filepath.Base(filepath.Clean(s.Path))); ok && n > 0 {
		if s.Repeats == 0 {
			top.repeats = n
		}
		if s.ClassTokens == "" {
			top.class = class
		}
	}
	subs, err := sc.repeatFolders(top)
	if err != nil {
		return err
	}
	loose := sc.inspect(top)
	if len(subs) == 0 {
		if len(loose) == 0 {
			return noPictures(top)
		}
		sc.add(top, loose)
		return nil
	}
	for _, sub := range subs {
		sc.add(sub.folder, sub.found)
	}
	if len(loose) > 0 {
		sc.set.Warnings = append(sc.set.Warnings, Warning{
			Message: fmt.Sprintf("%s in %s beside folders named <repeats>_<words> left out", plural(len(loose), "picture"), shownFolder(s.Path)),
			Advice:  "only the pictures in those folders are trained; move the others into one of them, or pass their folder with --data",
		})
	}
	return nil
}

// repeatFolder is an N_name folder with its pictures.
type repeatFolder struct {
	folder *folder
	found  []inspected
}

// repeatFolders returns the N_name subfolders of top that hold pictures, and warns about other subfolders beside them that do.
func (sc *scanner) repeatFolders(top *folder) ([]repeatFolder, error) {
	var out []repeatFolder
	var others []string
	for _, name := range top.subs {
		n, class, ok := parseRepeats(name)
		path := filepath.Join(top.path, name)
		if !ok || n == 0 {
			if countPictures(path) > 0 {
				others = append(others, Shown(name))
			}
			continue
		}
		if err := linkInside(top.root, path); err != nil {
			sc.bad = append(sc.bad, Finding{Shown(path), err.Error()})
			continue
		}
		if top.source.ClassTokens != "" {
			class = top.source.ClassTokens
		}
		f := &folder{path: path, shown: name + "/", root: top.root, repeats: n * max(top.source.Repeats, 1), class: class, source: top.source}
		if err := f.list(); err != nil {
			return nil, err
		}
		if found := sc.inspect(f); len(found) > 0 {
			out = append(out, repeatFolder{f, found})
		}
	}
	if len(out) > 0 && len(others) > 0 {
		sc.set.Warnings = append(sc.set.Warnings, Warning{
			Message: fmt.Sprintf("%s of %s not named <repeats>_<words> left out", plural(len(others), "folder"), shownFolder(top.path)),
			Files:   others,
			Advice:  "name them like 10_cats (1 or more repeats) to train on their pictures",
		})
	}
	return out, nil
}

// inspected is what was found out about one picture candidate.
type inspected struct {
	file    file
	header  header
	length  int64
	caption captionText
	bad     *Finding
}

// inspect looks at the files of a folder, several at a time, and returns those that are pictures or should be, in order.
func (sc *scanner) inspect(f *folder) []inspected {
	results := make([]*inspected, len(f.files))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(scanWorkers(), len(f.files)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(results); i = int(next.Add(1)) - 1 {
				results[i] = sc.look(f, f.files[i])
			}
		})
	}
	wg.Wait()
	var out []inspected
	for _, r := range results {
		if r != nil {
			out = append(out, *r)
		}
	}
	return out
}

// look reads one file's header and caption; nil if it isn't a picture and its ending doesn't say so.
func (sc *scanner) look(f *folder, candidate file) *inspected {
	r := &inspected{file: candidate}
	path := filepath.Join(f.path, candidate.name)
	fail := func(path string, err error) *inspected {
		r.bad = &Finding{Shown(path), err.Error()}
		return r
	}
	if err := inside(f.root, path); err != nil {
		if !candidate.must {
			return nil
		}
		return fail(path, err)
	}
	var err error
	r.header, r.length, err = fileHeader(path, sc.limits)
	if err != nil {
		if !candidate.must && r.header.format == "" {
			return nil
		}
		return fail(path, err)
	}
	if candidate.caption == "" {
		return r
	}
	captionPath := filepath.Join(f.path, candidate.caption)
	if err := inside(f.root, captionPath); err != nil {
		return fail(captionPath, err)
	}
	if r.caption, err = readCaption(captionPath, sc.limits.MaxCaption); err != nil {
		return fail(captionPath, err)
	}
	return r
}

// fileHeader opens a picture file and checks its header against the limits.
func fileHeader(path string, limits Limits) (header, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return header{}, 0, fmt.Errorf("can't be read: %w", plainCause(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return header{}, 0, fmt.Errorf("can't be read: %w", plainCause(err))
	}
	h, err := readHeader(f, info.Size())
	if err == nil {
		err = limits.check(h, info.Size())
	}
	return h, info.Size(), err
}

// check compares the size of a picture and its file with the limits.
func (l Limits) check(h header, length int64) error {
	if length > l.MaxFile {
		return fmt.Errorf("the file has %d bytes, over %s", length, byteSize(l.MaxFile))
	}
	size := h.oriented()
	if int64(size.W) > math.MaxInt64/int64(size.H) || int64(size.W)*int64(size.H) > l.MaxPixels {
		return fmt.Errorf("%d×%d is over %s", size.W, size.H, pixels(l.MaxPixels))
	}
	return nil
}

func pixels(n int64) string {
	if n >= 1e6 && n%1e6 == 0 {
		return fmt.Sprintf("%d Mpixel", n/1e6)
	}
	return fmt.Sprintf("%d pixels", n)
}

// add puts a folder's pictures into the set.
func (sc *scanner) add(f *folder, found []inspected) {
	names := make([]string, len(found))
	for i, r := range found {
		names[i] = r.file.name
	}
	sc.lone = append(sc.lone, f.loneCaptions(names)...)
	s := f.source
	for _, r := range found {
		if r.bad != nil {
			sc.bad = append(sc.bad, *r.bad)
			continue
		}
		size := r.header.oriented()
		im := &Image{
			Path: filepath.Join(f.path, r.file.name), Name: Shown(f.shown + r.file.name), Folder: filepath.Base(filepath.Clean(f.path)),
			Format: r.header.format, Width: size.W, Height: size.H, Orientation: r.header.orientation,
			Caption: r.caption.text, ClassTokens: f.class, Repeats: f.repeats, Flip: s.Flip, Crop: s.Crop,
			Text: CaptionOptions{
				Prefix: s.Prefix, Suffix: s.Suffix, Dropout: s.CaptionDropout, TagDropout: s.TagDropout,
				KeepTokens: s.KeepTokens, Shuffle: s.Shuffle,
			},
			length: r.length, limits: sc.limits,
		}
		captionName := ""
		if r.file.caption != "" {
			im.CaptionPath = filepath.Join(f.path, r.file.caption)
			captionName = Shown(f.shown + r.file.caption)
		}
		if im.Caption == "" {
			im.Caption = f.class
		}
		sc.set.Images = append(sc.set.Images, im)
		sc.remark(im, r, captionName)
	}
}

// remark notes what is unusual about a picture.
func (sc *scanner) remark(im *Image, r inspected, captionName string) {
	note := func(list *[]string, is bool, name string) {
		if is {
			*list = append(*list, name)
		}
	}
	note(&sc.noCaption, im.Caption == "" && captionName == "", im.Name)
	note(&sc.emptyCaption, r.caption.text == "" && captionName != "", captionName)
	note(&sc.wide, r.caption.utf16, captionName)
	note(&sc.manyLines, r.caption.lines > 1, captionName)
	note(&sc.unbalanced, r.caption.unbalanced != "", captionName+" "+r.caption.unbalanced)
	note(&sc.animated, r.header.animated, im.Name)
	note(&sc.turned, im.Orientation != 1, im.Name)
	short, long := min(im.Width, im.Height), max(im.Width, im.Height)
	note(&sc.odd, short < oddSide || long > oddRatio*short, fmt.Sprintf("%s (%d×%d)", im.Name, im.Width, im.Height))
}

// report turns what was noted into warnings, most important first.
func (sc *scanner) report() {
	all := len(sc.set.Images)
	warn := func(files []string, advice, format string, args ...any) {
		if len(files) > 0 {
			sc.set.Warnings = append(sc.set.Warnings, Warning{fmt.Sprintf(format, args...), files, advice})
		}
	}
	if len(sc.bad) > 0 {
		sc.set.Skipped = sc.bad
		var names []string
		for _, f := range sc.bad {
			names = append(names, f.String())
		}
		warn(names, "", "%s skipped", plural(len(names), "unusable file"))
	}
	has := "have"
	if len(sc.noCaption) == 1 {
		has = "has"
	}
	warn(sc.noCaption, "they train on an empty prompt", "%d of %s %s no caption and no class tokens", len(sc.noCaption), plural(all, "picture"), has)
	warn(sc.emptyCaption, "such pictures train on the class tokens, without those on an empty prompt", "%s without text", plural(len(sc.emptyCaption), "caption file"))
	warn(sc.lone, "", "%s without a picture of the same name", plural(len(sc.lone), "caption"))
	warn(sc.wide, "save them as UTF-8, which other trainers need", "%s in UTF-16, converted", plural(len(sc.wide), "caption"))
	warn(sc.manyLines, "only the first line is trained", "%s of several lines", plural(len(sc.manyLines), "caption"))
	warn(sc.unbalanced, "it is trained as text; write {a|b} for a choice, {{ or }} for a brace", "%s with a brace that has no partner", plural(len(sc.unbalanced), "caption"))
	warn(sc.animated, "", "%s: only the first frame is trained", plural(len(sc.animated), "animated picture"))
	warn(sc.odd, "a picture is enlarged and cut to its bucket; check that what matters is left", "%s of odd shape", plural(len(sc.odd), "picture"))
	if len(sc.turned) > 0 {
		sc.set.Notes = append(sc.set.Notes, Warning{Message: plural(len(sc.turned), "picture") + " turned upright as the camera noted", Files: sc.turned})
	}
}

// noPictures explains a folder without pictures, and names its folders that have some.
func noPictures(top *folder) error {
	type entry struct {
		name  string
		count int
	}
	var holders []entry
	var walk func(rel string, depth int)
	visited := 0
	walk = func(rel string, depth int) {
		entries, err := os.ReadDir(filepath.Join(top.path, rel))
		if visited++; err != nil || visited > 1000 {
			return
		}
		for _, e := range entries {
			if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			name := filepath.Join(rel, e.Name())
			if n := countPictures(filepath.Join(top.path, name)); n > 0 {
				holders = append(holders, entry{name, n})
			}
			if depth > 1 {
				walk(name, depth-1)
			}
		}
	}
	walk("", 4)
	shown := shownFolder(top.path)
	message := fmt.Sprintf("%s holds no pictures (%s)", shown, readFormats)
	if len(holders) == 0 {
		return fault.BadInput("", "%s", message).Advise("put pictures into it, or pass another folder with --data")
	}
	var names, flags []string
	for _, h := range holders {
		names = append(names, fmt.Sprintf("%q (%d)", filepath.ToSlash(h.name), h.count))
		flags = append(flags, "--data "+shellWord(filepath.Join(top.path, h.name)))
	}
	noun, verb := "folders", "do"
	if len(holders) == 1 {
		noun, verb = "folder", "does"
	}
	return fault.BadInput("", "%s; its %s %s %s", message, noun, listedAnd(names), verb).
		Advise("pass them: %s, or name them <repeats>_<words> (10_cats) and pass %s", listed(flags, " "), shown)
}

// countPictures counts the files directly in a folder whose endings say that they are pictures which are read.
func countPictures(path string) int {
	entries, err := os.ReadDir(path)
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		if pictureExt[strings.ToLower(filepath.Ext(e.Name()))] && !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			n++
		}
	}
	return n
}

// listedAnd joins as "a", "a and b", "a, b and c".
func listedAnd(names []string) string {
	if len(names) > maxNames || len(names) < 2 {
		return listed(names, ", ")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// shellWord quotes a path so that it can be pasted into a shell.
func shellWord(path string) string {
	shown := Shown(path)
	if strings.ContainsAny(shown, " '\"$&;()*?<>|`\\!#") {
		return "'" + strings.ReplaceAll(shown, "'", `'\''`) + "'"
	}
	return shown
}
