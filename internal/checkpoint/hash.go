package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"lycoris/internal/fault"
	"lycoris/internal/tensor"
)

// hashes are computed when first asked for: a full hash reads the whole model.
type hashes struct {
	once  sync.Once
	value string
	err   error
}

// Hash returns the SHA-256 (hex) of the model: of the file, or, for a folder, of the list of its weight files' names and hashes.
func (m *Model) Hash() (string, error) {
	m.hash.once.Do(func() {
		if m.Layout == SingleFile {
			m.hash.value, m.hash.err = tensor.HashFile(m.Path)
			return
		}
		var lines []string
		for i, f := range m.files {
			sum, err := tensor.HashFile(f.Path())
			if err != nil {
				m.hash.err = err
				return
			}
			lines = append(lines, sum+" "+strings.ReplaceAll(m.names[i], string(os.PathSeparator), "/")+"\n")
		}
		slices.Sort(lines)
		sum := sha256.Sum256([]byte(strings.Join(lines, "")))
		m.hash.value = hex.EncodeToString(sum[:])
	})
	return m.hash.value, m.hash.err
}

// Identity returns a cheap name for the model's content, from the sizes, modification times and header hashes of its files. Two models
// with one identity are the same for every practical purpose; a copy has another identity.
func (m *Model) Identity() string {
	h := sha256.New()
	for i, f := range m.files {
		fmt.Fprintf(h, "%s %d %d %x\n", m.names[i], f.Size(), f.ModTime().UnixNano(), f.HeaderHash())
	}
	return hex.EncodeToString(h.Sum(nil))
}

// OldHash returns the eight hex digits by which AUTOMATIC1111 first named models: of the SHA-256 of 0x10000 bytes at 0x100000 of a single
// file. It is the hash of nothing, e3b0c442, where the file ends before. A folder has none: "".
func (m *Model) OldHash() (string, error) {
	if m.Layout != SingleFile {
		return "", nil
	}
	f, err := os.Open(m.Path)
	if err != nil {
		return "", fault.BadInput(m.Path, "can't be opened: %w", err)
	}
	defer f.Close()
	return LegacyHash(f)
}

// LegacyHash returns the old hash of a file's content.
func LegacyHash(r io.ReaderAt) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0x100000, 0x10000)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil))[:8], nil
}
