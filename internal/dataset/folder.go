package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"lycoris/internal/fault"
)

// pictureExt are the endings whose files must be pictures; the value says whether the format is read. Other files count as pictures
// when their content says so.
var pictureExt = map[string]bool{
	".png": true, ".jpg": true, ".jpeg": true, ".jfif": true, ".webp": true, ".bmp": true,
	".gif": false, ".tif": false, ".tiff": false, ".avif": false, ".heic": false, ".heif": false, ".jxl": false,
}

const readFormats = ".png .jpg .jpeg .webp .bmp"

// folder is one folder of pictures with the options it gets from its source and its name.
type folder struct {
	path     string // of the folder
	shown    string // prefix of the names of its files: "" or "10_cats/"
	root     string // links must stay in it
	repeats  int
	class    string
	source   *Source
	files    []file
	captions []string // names of caption files
	subs     []string // names of subfolders
}

// file is a picture candidate.
type file struct {
	name    string
	must    bool   // its ending says picture: it is a finding if it isn't one
	caption string // name of its caption file, "" if none
}

// repeatsName matches the folder names of kohya's layout: 10_cats.
var repeatsName = regexp.MustCompile(`^([0-9]+)_(.*)$`)

// parseRepeats reads N_name.
func parseRepeats(name string) (repeats int, class string, ok bool) {
	m := repeatsName.FindStringSubmatch(name)
	if m == nil {
		return 0, "", false
	}
	n, err := strconv.Atoi(m[1])
	return n, strings.TrimSpace(m[2]), err == nil && n <= maxRepeats
}

const maxRepeats = 1_000_000

// list reads the names in the folder, sorted, and pairs pictures with captions. Names that begin with a dot are left out.
func (f *folder) list() error {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return folderFault(f.path, err)
	}
	exts := captionExts(f.source)
	byStem := map[string]map[string]string{} // stem → lower-case ending → name
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		if isDir(f.path, e) {
			f.subs = append(f.subs, name)
			continue
		}
		ext := strings.ToLower(filepath.Ext(name))
		if exts[ext] {
			stem := stemOf(name)
			if byStem[stem] == nil {
				byStem[stem] = map[string]string{}
			}
			byStem[stem][ext] = name
			f.captions = append(f.captions, name)
			continue
		}
		_, must := pictureExt[ext]
		f.files = append(f.files, file{name: name, must: must})
	}
	for i := range f.files {
		for _, ext := range f.source.CaptionExt {
			if name, ok := byStem[stemOf(f.files[i].name)][ext]; ok {
				f.files[i].caption = name
				break
			}
		}
	}
	return nil
}

// loneCaptions returns the caption files that belong to none of the given picture names.
func (f *folder) loneCaptions(pictures []string) []string {
	stems := map[string]bool{}
	for _, name := range pictures {
		stems[stemOf(name)] = true
	}
	var lone []string
	for _, name := range f.captions {
		if !stems[stemOf(name)] {
			lone = append(lone, Shown(f.shown+name))
		}
	}
	return lone
}

func captionExts(s *Source) map[string]bool {
	out := map[string]bool{}
	for _, ext := range s.CaptionExt {
		out[ext] = true
	}
	return out
}

func stemOf(name string) string { return strings.TrimSuffix(name, filepath.Ext(name)) }

// isDir follows links.
func isDir(parent string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(parent, e.Name()))
	return err == nil && info.IsDir()
}

// inside returns an error if path, with its links followed, isn't a regular file below root.
func inside(root, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("can't be read: %w", plainCause(err))
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		if err := linkInside(root, path); err != nil {
			return err
		}
		if info, err = os.Stat(path); err != nil {
			return fmt.Errorf("can't be read: %w", plainCause(err))
		}
	}
	if !info.Mode().IsRegular() {
		return errors.New("is not a regular file")
	}
	return nil
}

// linkInside returns an error if the link at path leads out of root, nowhere or in a circle.
func linkInside(root, path string) error {
	realRoot, err := filepath.EvalSymlinks(root)
	if err != nil {
		return fmt.Errorf("can't be read: %w", plainCause(err))
	}
	target, err := filepath.EvalSymlinks(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("is a link to nothing")
	case err != nil:
		return errors.New("is a link that goes round in circles or can't be followed")
	}
	rel, err := filepath.Rel(realRoot, target)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return errors.New("is a link that leads out of the data folder; links are followed only inside it")
	}
	return nil
}

// folderFault explains why a data folder can't be listed.
func folderFault(path string, err error) error {
	shown := Shown(path)
	switch info, statErr := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return fault.BadInput(shown, "there is no such folder").Advise("check the path given with --data")
	case errors.Is(err, fs.ErrPermission):
		return fault.BadInput(shown, "the folder can't be opened: permission denied").Advise("check the rights of the folder and of those above it")
	case statErr == nil && !info.IsDir():
		return fault.BadInput(shown, "is a file, not a folder").Advise("pass the folder that holds the pictures: --data %s", Shown(filepath.Dir(path)))
	}
	return fault.BadInput(shown, "the folder can't be read: %w", plainCause(err))
}

// plainCause strips the operation and the path that package os puts before the cause.
func plainCause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// messageOf returns an error's text without its path.
func messageOf(err error) string {
	var e *fault.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}
