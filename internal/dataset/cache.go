package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"lycoris/internal/fault"
)

// codeVersion is part of every key. Raise it when decoding, resizing or the meaning of an entry changes.
const codeVersion = "1"

// Key names a cache entry by everything its content depends on.
type Key [sha256.Size]byte

// LatentKey returns the key of the VAE moments of a picture: file content, geometry, and a hash that stands for the VAE's weights and
// the code that runs it.
func LatentKey(content [sha256.Size]byte, g Geometry, vae string) Key {
	return newKey("vae moments", hex.EncodeToString(content[:]), g.String(), vae)
}

// TextKey returns the key of the text encoder's states for a caption; encoder stands for its weights, tokenizer and settings (clip
// skip, number of tokens).
func TextKey(caption, encoder string) Key { return newKey("text states", caption, encoder) }

// newKey hashes the parts with their lengths, so that no two lists of parts give the same bytes.
func newKey(parts ...string) Key {
	h := sha256.New()
	for _, part := range append([]string{codeVersion}, parts...) {
		writeLength(h, len(part))
		h.Write([]byte(part))
	}
	return Key(h.Sum(nil))
}

func writeLength(h hash.Hash, n int) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}

// Cache is a folder of arrays by key. Entries are written whole or not at all and carry their key and a checksum: one that is damaged,
// cut short or gone is simply not there. Several processes may use one folder. A disk that can't be written is reported once and then
// only read. A nil *Cache holds nothing and keeps nothing.
type Cache struct {
	dir  string
	warn func(Warning)

	mu     sync.Mutex
	failed bool // writing has failed
}

// DefaultCacheDir returns the folder lycoris in the user's cache folder.
func DefaultCacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fault.BadOutput("cache.dir", "there is no user cache folder: %w", err).Advise("set one with --set cache.dir=FOLDER, or --set cache.latents=false")
	}
	return filepath.Join(dir, "lycoris"), nil
}

// OpenCache returns the cache in dir, which is made when the first entry is put. warn is told at most once, when writing fails.
func OpenCache(dir string, warn func(Warning)) *Cache {
	c := &Cache{dir: dir, warn: warn}
	c.sweep()
	return c
}

// Layout of an entry, little endian: magic, key, number of dimensions (uint32), dimensions (uint64 each), values (float32), SHA-256 of
// all bytes before.
var entryMagic = []byte("lycCACH1")

const (
	maxDims    = 8
	tempPrefix = ".new-"
	tempAge    = 24 * time.Hour // older temporary files are left over from a process that was killed
)

func (c *Cache) path(key Key) string {
	name := hex.EncodeToString(key[:])
	return filepath.Join(c.dir, name[:2], name[2:]+".bin")
}

// Get returns the entry of key if it is there, whole, and of the given shape.
func (c *Cache) Get(key Key, shape []int) ([]float32, bool) {
	if c == nil {
		return nil, false
	}
	path, want := c.path(key), entrySize(shape)
	if info, err := os.Stat(path); err != nil || info.Size() != int64(want) {
		return nil, false
	}
	data, err := os.ReadFile(path)
	if err != nil || len(data) != want {
		return nil, false
	}
	body, sum := data[:want-sha256.Size], data[want-sha256.Size:]
	head := entryHead(key, shape)
	if check := sha256.Sum256(body); !bytes.Equal(check[:], sum) || !bytes.HasPrefix(body, head) {
		return nil, false
	}
	values := make([]float32, (len(body)-len(head))/4)
	for i, raw := 0, body[len(head):]; i < len(values); i, raw = i+1, raw[4:] {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw))
	}
	return values, true
}

// Put keeps values, of the given shape, under key. It never fails: what can't be kept is made again next time.
func (c *Cache) Put(key Key, shape []int, values []float32) {
	if n := elements(shape); n != len(values) {
		panic(fmt.Sprintf("dataset: Cache.Put: shape %v has %d values, got %d", shape, n, len(values)))
	}
	if c == nil || c.writeFailed() {
		return
	}
	data := make([]byte, 0, entrySize(shape))
	data = append(data, entryHead(key, shape)...)
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	sum := sha256.Sum256(data)
	if err := writeEntry(c.path(key), append(data, sum[:]...)); err != nil {
		c.fail(err)
	}
}

// entryHead returns the bytes before the values.
func entryHead(key Key, shape []int) []byte {
	head := append(slices.Clone(entryMagic), key[:]...)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(shape)))
	for _, n := range shape {
		head = binary.LittleEndian.AppendUint64(head, uint64(n))
	}
	return head
}

func entrySize(shape []int) int {
	return len(entryMagic) + sha256.Size + 4 + 8*len(shape) + 4*elements(shape) + sha256.Size
}

func elements(shape []int) int {
	if len(shape) > maxDims {
		panic(fmt.Sprintf("dataset: Cache: %d dimensions", len(shape)))
	}
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// writeEntry writes beside the entry's place and renames. It doesn't wait for the disk: an entry that a power cut leaves half written
// fails its checksum.
func writeEntry(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func (c *Cache) writeFailed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// fail stops writing and says so once. A folder that another process removed in the very moment is no reason: the next Put makes it.
func (c *Cache) fail(err error) {
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	c.mu.Lock()
	first := !c.failed
	c.failed = true
	c.mu.Unlock()
	if first && c.warn != nil {
		c.warn(Warning{
			Message: fmt.Sprintf("the cache %s can't be written: %v", shownFolder(c.dir), plainCause(err)),
			Advice:  "training goes on and computes again what isn't cached; free some space or set cache.dir to another folder",
		})
	}
}

// sweep removes temporary files that killed processes left behind.
func (c *Cache) sweep() {
	folders, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	for _, folder := range folders {
		if len(folder.Name()) != 2 || !folder.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(c.dir, folder.Name()))
		if err != nil {
			continue
		}
		for _, f := range files {
			if !strings.HasPrefix(f.Name(), tempPrefix) {
				continue
			}
			if info, err := f.Info(); err == nil && time.Since(info.ModTime()) > tempAge {
				os.Remove(filepath.Join(c.dir, folder.Name(), f.Name()))
			}
		}
	}
}
