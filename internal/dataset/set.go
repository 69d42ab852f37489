package dataset

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"lycoris/internal/fault"
	"lycoris/internal/rng"
)

// Crop says which part of a picture is kept when it is larger than its bucket.
type Crop string

// The values of the key data[].crop.
const (
	CropCenter Crop = "center"
	CropRandom Crop = "random"
)

// OnBad says what happens to files that can't be used.
type OnBad string

// The values of the key data_limits.on_bad.
const (
	Stop OnBad = "stop" // Scan fails with all of them
	Skip OnBad = "skip" // they are left out and listed in Set.Skipped
)

// Source is one entry of the key data: a folder and how its pictures are used.
type Source struct {
	Path        string
	Repeats     int      // how often each picture is shown per epoch; 0 = 1, or the number of an N_name folder; multiplies that of N_name subfolders
	CaptionExt  []string // endings of caption files, the first that exists wins; empty = .txt, .caption
	ClassTokens string   // caption of pictures that have none; empty = the name of an N_name folder
	Flip        bool     // mirror each picture left to right in half of the cases
	Crop        Crop     // empty = center
	KeepTokens  int
	Shuffle     bool
	CaptionDropout,
	TagDropout float64
	Prefix, Suffix string
}

// Limits are the keys data_limits.*; zero values mean the defaults.
type Limits struct {
	MaxPixels  int64 // 100 Mpixel
	MaxFile    int64 // bytes, 256 MiB
	MaxCaption int64 // bytes, 64 KiB
	OnBad      OnBad // Stop
}

func (l Limits) withDefaults() Limits {
	if l.MaxPixels <= 0 {
		l.MaxPixels = 100e6
	}
	if l.MaxFile <= 0 {
		l.MaxFile = 256 << 20
	}
	if l.MaxCaption <= 0 {
		l.MaxCaption = 64 << 10
	}
	if l.OnBad == "" {
		l.OnBad = Stop
	}
	return l
}

// Image is one picture of a data set, known by its header.
type Image struct {
	Path        string // as it is opened
	Name        string // for people: relative to the source's folder, escaped
	Folder      string // base name of the folder it is in
	Format      string // PNG, JPEG, WebP, BMP
	Width       int    // after the rotation
	Height      int
	Orientation int    // EXIF orientation, 1..8
	Caption     string // text of the caption file, UTF-8 with \n line ends, all lines; the class tokens if there is none
	CaptionPath string // empty: no caption file
	ClassTokens string
	Repeats     int // ≥ 1
	Flip        bool
	Crop        Crop
	Text        CaptionOptions

	length int64 // bytes, at the scan
	limits Limits

	mu   sync.Mutex
	hash *[sha256.Size]byte
}

// CaptionAt returns the text to train at one step; r is that step's stream for this picture.
func (im *Image) CaptionAt(r Random) string { return ProcessCaption(im.Caption, im.Text, r) }

// Varies says whether CaptionAt can give different texts from step to step.
func (im *Image) Varies() bool { return CaptionVaries(im.Caption, im.Text) }

// Hash returns the SHA-256 of the file's bytes. It reads the file once and remembers the result; a file whose length has changed
// since the scan is an error.
func (im *Image) Hash() ([sha256.Size]byte, error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.hash != nil {
		return *im.hash, nil
	}
	f, err := os.Open(im.Path)
	if err != nil {
		return [sha256.Size]byte{}, im.unreadable(err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, im.length+1))
	if err != nil {
		return [sha256.Size]byte{}, im.unreadable(err)
	}
	if n != im.length {
		return [sha256.Size]byte{}, im.changed()
	}
	im.hash = (*[sha256.Size]byte)(h.Sum(nil))
	return *im.hash, nil
}

func (im *Image) unreadable(err error) error {
	return fault.BadInput(Shown(im.Path), "can't be read: %w", plainCause(err)).Advise("it was readable when the run started; put it back, or start again without it")
}

func (im *Image) changed() error {
	return fault.BadInput(Shown(im.Path), "has changed since the run looked at it").Advise("don't change the pictures of a running job; start again")
}

// Set is a data set: what [Scan] found in its folders.
type Set struct {
	Images   []*Image  // in the order of the sources, then of the folders' names, then of the files' names
	Warnings []Warning // things that look like mistakes
	Notes    []Warning // things done on purpose that are worth a line in the log
	Skipped  Findings  // files left out under the policy Skip
}

// Total returns the number of pictures in an epoch: every image as often as it is repeated.
func (s *Set) Total() int {
	n := 0
	for _, im := range s.Images {
		n += im.Repeats
	}
	return n
}

// Drop returns the set without the images of the given paths, for pictures that turn out to be damaged when they are decoded under the
// policy Skip. They join Skipped with the error's text. It is an error when nothing is left.
func (s *Set) Drop(bad map[*Image]error) (*Set, error) {
	out := &Set{Warnings: s.Warnings[:len(s.Warnings):len(s.Warnings)], Notes: s.Notes, Skipped: s.Skipped[:len(s.Skipped):len(s.Skipped)]}
	w := Warning{}
	for _, im := range s.Images {
		err, isBad := bad[im]
		if !isBad {
			out.Images = append(out.Images, im)
			continue
		}
		f := Finding{Shown(im.Path), messageOf(err)}
		out.Skipped, w.Files = append(out.Skipped, f), append(w.Files, f.String())
	}
	if len(w.Files) > 0 {
		w.Message = plural(len(w.Files), "damaged picture") + " skipped"
		out.Warnings = append(out.Warnings, w)
	}
	if len(out.Images) == 0 {
		return nil, out.Skipped.fault()
	}
	return out, nil
}

// Verify decodes every picture and returns the set without those that can't be, for the policy Skip: a header is read by [Scan], damage
// behind it shows only here. It is an error when nothing is left.
func (s *Set) Verify() (*Set, error) {
	bad := map[*Image]error{}
	var mu sync.Mutex
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), maxDecoders, len(s.Images)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(s.Images); i = int(next.Add(1)) - 1 {
				if _, _, err := s.Images[i].decode(); err != nil {
					mu.Lock()
					bad[s.Images[i]] = err
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(bad) == 0 {
		return s, nil
	}
	return s.Drop(bad)
}

// maxDecoders bounds how many decoded pictures are in memory at once.
const maxDecoders = 4

// Split holds out a fraction of the pictures for validation, chosen by the seed: at least one, and never all. The same file listed by
// two sources goes to one side. Both parts keep the order; repeats don't count in the held-out part.
func (s *Set) Split(fraction float64, seed uint64) (train, held *Set, err error) {
	if !(fraction >= 0 && fraction < 1) {
		return nil, nil, fault.BadUsage("validate.split", "%v is out of range: 0 to below 1", fraction)
	}
	var paths []string
	seen := map[string]bool{}
	for _, im := range s.Images {
		if !seen[im.Path] {
			seen[im.Path] = true
			paths = append(paths, im.Path)
		}
	}
	if fraction == 0 {
		return s, &Set{}, nil
	}
	if len(paths) < 2 {
		return nil, nil, fault.BadUsage("validate.split", "%v needs at least 2 pictures, there is %d", fraction, len(paths))
	}
	n := min(max(int(math.Round(fraction*float64(len(paths)))), 1), len(paths)-1)
	out := map[string]bool{}
	for _, i := range rng.New(seed, "split", 0, 0).Perm(len(paths))[:n] {
		out[paths[i]] = true
	}
	train = &Set{Warnings: s.Warnings, Notes: s.Notes, Skipped: s.Skipped}
	held = &Set{}
	for _, im := range s.Images {
		if !out[im.Path] {
			train.Images = append(train.Images, im)
		} else if seen[im.Path] {
			held.Images = append(held.Images, im)
			seen[im.Path] = false // once is enough
		}
	}
	return train, held, nil
}

// String returns "43 pictures, 430 with repeats".
func (s *Set) String() string {
	if total := s.Total(); total != len(s.Images) {
		return fmt.Sprintf("%s, %d with repeats", plural(len(s.Images), "picture"), total)
	}
	return plural(len(s.Images), "picture")
}
