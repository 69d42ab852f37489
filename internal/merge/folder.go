package merge

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

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
	if err := tensor.CheckSpace(out, p.Bytes); err != nil {
		return err
	}
	if err := replaceable(out); err != nil {
		return err
	}
	temp, guard, err := tensor.TempFolder(parent)
	if err != nil {
		return folderError(out, err)
	}
	defer guard.Close() // nil is harmless
	defer os.RemoveAll(temp)
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
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := tensor.PlaceFolder(temp, out); err != nil {
		return folderError(out, err)
	}
	return nil
}

// replaceable refuses to give a model's place to what stands at out, unless that is a model too: all of it goes.
func replaceable(out string) error {
	stat, err := os.Lstat(out)
	if err != nil {
		return nil
	}
	if !stat.IsDir() {
		return fault.BadOutput(out, "is not a folder, and the merged model is one").Advise("write to another place")
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		return folderError(out, err)
	}
	if _, err := os.Stat(filepath.Join(out, "model_index.json")); err != nil && len(entries) > 0 {
		return fault.BadOutput(out, "holds other things than a model: it isn't overwritten").Advise("write to another folder")
	}
	return nil
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
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fault.BadOutput(out, "the folder %q is read-only for this user", filepath.Dir(out)).Advise("write to another folder")
	}
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	switch {
	case errors.As(err, &pathErr):
		err = pathErr.Err
	case errors.As(err, &linkErr):
		err = linkErr.Err
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
