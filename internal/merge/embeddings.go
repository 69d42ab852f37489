package merge

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lycoris/internal/adapter"
	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

const embeddingPrefix = "bundle_emb."

// embedding is a file to write: what is bundled with an adapter under one name.
type embedding struct {
	name    string
	from    *Opened
	tensors map[string]string // name in the new file to the one in the adapter
}

// embeddings takes the names of bundled tensors apart: bundle_emb.NAME.KEY of safetensors embeddings, bundle_emb.NAME.string_to_param.* of pickled ones, which become
// emb_params. NAME ends at the first dot (the reference tools page, 4.3).
func (p *Plan) embeddings() ([]embedding, error) {
	var all []embedding
	for _, a := range p.Adapters {
		for _, key := range slices.Sorted(slices.Values(a.File.Extra)) {
			name, part, _ := strings.Cut(strings.TrimPrefix(key, embeddingPrefix), ".")
			if part == "string_to_param.*" {
				part = "emb_params"
			}
			if name == "" || part == "" || adapter.CleanName(name) != name {
				return nil, fault.BadInput(a.Source.Path, "%q is not the name of a bundled embedding", key).Advise("the adapter is broken, or leave out --emit-embeddings")
			}
			i := slices.IndexFunc(all, func(e embedding) bool { return e.name == name })
			switch {
			case i < 0:
				i, all = len(all), append(all, embedding{name, a, map[string]string{}})
			case all[i].from != a:
				return nil, fault.BadInput(a.Source.Path, "bundles an embedding %q, as %q does", name, all[i].from.Source.Path).Advise("write them one by one: merge with one adapter at a time")
			}
			all[i].tensors[part] = key
		}
	}
	return all, nil
}

// checkEmbeddings settles which files will be written, and refuses what stands there already.
func (p *Plan) checkEmbeddings() (err error) {
	if p.options.Embeddings == "" {
		return nil
	}
	if p.bundled, err = p.embeddings(); err != nil {
		return err
	}
	for _, e := range p.bundled {
		if _, err := os.Lstat(p.pathOf(e)); err == nil && !p.options.Force {
			return fault.BadOutput(p.pathOf(e), "exists already").Advise("write to another folder, or overwrite it: --force")
		}
	}
	return nil
}

func (p *Plan) pathOf(e embedding) string {
	return filepath.Join(p.options.Embeddings, e.name+".safetensors")
}

// emit writes the bundled embeddings to the folder, which is made, and returns the files.
func (p *Plan) emit() (paths []string, err error) {
	if len(p.bundled) == 0 {
		return nil, nil
	}
	if err := os.MkdirAll(p.options.Embeddings, 0o777); err != nil {
		return nil, folderError(p.options.Embeddings, err)
	}
	for _, e := range p.bundled {
		var tensors []tensor.Named
		for _, part := range sortedKeys(e.tensors) {
			t, err := e.from.File.Read(e.tensors[part])
			if err != nil {
				return nil, err
			}
			tensors = append(tensors, tensor.Named{Name: part, Tensor: t})
		}
		if err := tensor.WriteFile(p.pathOf(e), tensors, nil); err != nil {
			return nil, err
		}
		paths = append(paths, p.pathOf(e))
	}
	return paths, nil
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
