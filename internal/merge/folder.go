package merge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// maxDepth bounds the folders inside a model's folder: links may lead in circles.
const maxDepth = 8

// folder writes a diffusers folder: the weight files anew, everything else copied. It is made under another name beside the place and renamed at the end.
func (r *run) folder(ctx context.Context) (err error) {
	p := r.plan
	out := filepath.Clean(p.options.Out)
	parent := filepath.Dir(out)
	if free := tensor.FreeSpace(parent); free >= 0 && free < p.Bytes {
		return fault.BadOutput(out, "the disk is too full: needs %s, %s free", tensor.FormatBytes(p.Bytes), tensor.FormatBytes(free)).Advise("make room or write to another disk")
	}
	temp, err := tempName(parent)
	if err != nil {
		return err
	}
	if err := os.Mkdir(temp, 0o777); err != nil {
		return folderError(out, err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(temp)
		}
	}()
	written := map[string]bool{}
	for _, name := range p.model.Skipped() {
		written[name] = true
	}
	for _, f := range p.files {
		written[f.file.Name] = true
		path := filepath.Join(temp, f.file.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return folderError(out, err)
		}
		if err := r.file(ctx, path, f, p.metadata(f)); err != nil {
			return placed(err, out)
		}
	}
	if err := r.copyRest(ctx, temp, "", written, 0); err != nil {
		return placed(err, out)
	}
	return exchange(temp, out)
}

// tempName returns a name in the folder that nothing has.
func tempName(folder string) (string, error) {
	var word [6]byte
	if _, err := rand.Read(word[:]); err != nil {
		return "", err
	}
	return filepath.Join(folder, tensor.TempPrefix+hex.EncodeToString(word[:])+tensor.TempSuffix), nil
}

// placed names the folder that was asked for in an error about the one under way.
func placed(err error, out string) error {
	var e *fault.Error
	if errors.As(err, &e) && e.Kind == fault.Output {
		e.Path = out
	}
	return err
}

func folderError(out string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.BadOutput(out, "the folder %q does not exist", filepath.Dir(out)).Advise("make it first: mkdir -p %q", filepath.Dir(out))
	case errors.Is(err, fs.ErrPermission):
		return fault.BadOutput(out, "the folder %q is read-only for this user", filepath.Dir(out)).Advise("write to another folder")
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return fault.BadOutput(out, "can't be written: %w", err)
}

// copyRest copies the files of the model's folder that aren't written yet. Links are followed: the new folder stands by itself.
func (r *run) copyRest(ctx context.Context, temp, inside string, written map[string]bool, depth int) error {
	base := r.plan.options.Model
	entries, err := os.ReadDir(filepath.Join(base, inside))
	if err != nil {
		return fault.BadInput(filepath.Join(base, inside), "can't be read: %w", errors.Unwrap(err))
	}
	for _, e := range entries {
		name := filepath.Join(inside, e.Name())
		from, to := filepath.Join(base, name), filepath.Join(temp, name)
		stat, err := os.Stat(from)
		if err != nil {
			return fault.BadInput(from, "can't be read: %w", errors.Unwrap(err))
		}
		switch {
		case written[name] || strings.HasPrefix(e.Name(), tensor.TempPrefix):
		case stat.IsDir():
			if depth == maxDepth {
				return fault.BadInput(from, "is %d folders deep: links in a circle?", depth)
			}
			if err := os.MkdirAll(to, 0o777); err != nil {
				return folderError(r.plan.options.Out, err)
			}
			if err := r.copyRest(ctx, temp, name, written, depth+1); err != nil {
				return err
			}
		case stat.Mode().IsRegular():
			if err := r.copyFile(ctx, from, to, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyFile copies one file; the total of an index of shards is set anew where sizes changed.
func (r *run) copyFile(ctx context.Context, from, to, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if text := r.newIndex(from, name); text != nil {
		return tensor.WriteAtomic(to, func(w io.Writer) error { _, err := w.Write(text); return err })
	}
	f, err := os.Open(from)
	if err != nil {
		return fault.BadInput(from, "can't be read: %w", errors.Unwrap(err))
	}
	defer f.Close()
	return tensor.WriteAtomic(to, func(w io.Writer) error {
		_, err := io.Copy(w, f)
		return err
	})
}

// newIndex returns the text of an index of shards with its new total size; nil for any other file, and where the element types stay.
func (r *run) newIndex(from, name string) []byte {
	if r.plan.options.DType == tensor.Invalid || !strings.HasSuffix(name, ".json") || !strings.Contains(name, ".safetensors.index") {
		return nil
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return nil
	}
	var index map[string]any
	if json.Unmarshal(text, &index) != nil {
		return nil
	}
	total := int64(0)
	for _, f := range r.plan.files {
		if filepath.Dir(f.file.Name) != filepath.Dir(name) {
			continue
		}
		for _, s := range f.slots {
			total += s.Bytes()
		}
	}
	meta, _ := index["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
	}
	meta["total_size"] = total
	index["metadata"] = meta
	text, err = json.MarshalIndent(index, "", "  ")
	if err != nil {
		return nil
	}
	return append(text, '\n')
}

// exchange gives the finished folder its name; what stood there before, which the caller said may go, is removed last.
func exchange(temp, out string) error {
	old := ""
	if _, err := os.Lstat(out); err == nil {
		var err error
		if old, err = tempName(filepath.Dir(out)); err != nil {
			return err
		}
		if err := os.Rename(out, old); err != nil {
			return folderError(out, err)
		}
	}
	if err := os.Rename(temp, out); err != nil {
		if old != "" {
			os.Rename(old, out)
		}
		return folderError(out, err)
	}
	if old != "" {
		os.RemoveAll(old)
	}
	return nil
}
