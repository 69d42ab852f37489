package adapter

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// Save writes an adapter all or nothing. Floating-point tensors are stored as d, or as they are for tensor.Invalid, alpha always as F32. meta, unless nil, gets the hashes
// that readers show: sshs_model_hash, sshs_legacy_hash and modelspec.hash_sha256, over the bytes that are written. A value that isn't finite, or
// isn't any more as d, is an error and no file is written.
func Save(path string, tensors []tensor.Named, meta map[string]string, d tensor.DType) error {
	return SaveStream(path, slices.Values(tensors), meta, d)
}

// SaveStream is Save for tensors that are made one after the other; only what is stored of them is kept.
func SaveStream(path string, tensors iter.Seq[tensor.Named], meta map[string]string, d tensor.DType) error {
	var cast []tensor.Named
	for t := range tensors {
		if n, first := t.NonFinite(); n > 0 {
			return fault.New(fault.Diverged, path, "not written: %q holds %d NaN or infinite values, the first at index %d", t.Name, n, first)
		}
		if !t.DType.IsFloat() {
			cast = append(cast, t)
			continue
		}
		want := d
		if want == tensor.Invalid {
			want = t.DType
		}
		if strings.HasSuffix(t.Name, ".alpha") || t.Name == "alpha" {
			want = tensor.F32
		}
		if t.DType != want {
			t.Tensor = tensor.FromFloat32(want, t.Shape, t.Float32())
		}
		cast = append(cast, t)
		if n, first := t.NonFinite(); n > 0 {
			return fault.New(fault.Failed, path, "not written: %d values of %q, the first at index %d, are too large for %s", n, t.Name, first, want).
				Advise("save as bf16 or fp32: --set save.dtype=bf16")
		}
	}
	meta, err := withHashes(cast, meta)
	if err != nil {
		return err
	}
	return tensor.WriteFile(path, cast, meta)
}

// withHashes adds the hashes to metadata that aren't nil.
//
// sshs_model_hash is the SHA-256 of the data section. sshs_legacy_hash is the old file hash of a serialisation whose metadata are the ss_ keys alone
// (sd-scripts, precalculate_safetensors_hashes): not of the file as written, and the hash of nothing for small files.
func withHashes(tensors []tensor.Named, meta map[string]string) (map[string]string, error) {
	if meta == nil {
		return nil, nil
	}
	hash, err := tensor.DataHash(tensors)
	if err != nil {
		return nil, err
	}
	ss := map[string]string{}
	for k, v := range meta {
		if strings.HasPrefix(k, "ss_") {
			ss[k] = v
		}
	}
	window := &windowHash{}
	h := sha256.New()
	window.w = h
	if err := tensor.Encode(window, tensors, ss); err != nil {
		return nil, err
	}
	out := maps.Clone(meta)
	out["sshs_model_hash"] = hash
	out["sshs_legacy_hash"] = hex.EncodeToString(h.Sum(nil))[:8]
	if _, full := meta["modelspec.sai_model_spec"]; full {
		out["modelspec.hash_sha256"] = "0x" + hash
	}
	return out, nil
}

// windowHash passes on bytes 0x100000 to 0x110000 of what is written.
type windowHash struct {
	w  io.Writer
	at int64
}

func (h *windowHash) Write(p []byte) (int, error) {
	const from, to = 0x100000, 0x110000
	lo, hi := min(max(from-h.at, 0), int64(len(p))), min(max(to-h.at, 0), int64(len(p)))
	h.at += int64(len(p))
	h.w.Write(p[lo:hi]) // a hash never fails
	return len(p), nil
}
