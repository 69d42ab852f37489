package dataset

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var cacheShape = []int{2, 3}

func cacheValues() []float32 {
	return []float32{1, -2.5, 0, float32(math.Inf(1)), math.MaxFloat32, 1e-40}
}

func mustHave(t *testing.T, c *Cache, key Key) {
	t.Helper()
	got, ok := c.Get(key, cacheShape)
	if !ok || !slices.Equal(got, cacheValues()) {
		t.Fatalf("got %v, %t", got, ok)
	}
}

// entries returns the files below dir.
func entries(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestCacheRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on demand")
	c := OpenCache(dir, func(w Warning) { t.Errorf("warned: %s", w) })
	key, other := TextKey("a cat", "clip"), TextKey("a dog", "clip")
	if _, ok := c.Get(key, cacheShape); ok {
		t.Fatal("an empty cache has something")
	}
	c.Put(key, cacheShape, cacheValues())
	mustHave(t, c, key)
	mustHave(t, OpenCache(dir, nil), key)
	if _, ok := c.Get(other, cacheShape); ok {
		t.Error("another key has something")
	}
	for _, shape := range [][]int{{3, 2}, {6}, {2, 3, 1}, {7}} {
		if _, ok := c.Get(key, shape); ok {
			t.Errorf("found with shape %v", shape)
		}
	}
	c.Put(other, nil, []float32{4}) // rank 0
	if got, ok := c.Get(other, nil); !ok || got[0] != 4 {
		t.Errorf("rank 0: %v %t", got, ok)
	}
	if files := entries(t, dir); len(files) != 2 {
		t.Errorf("files left: %v", files)
	}
	var none *Cache
	none.Put(key, cacheShape, cacheValues())
	if _, ok := none.Get(key, cacheShape); ok {
		t.Error("a nil cache has something")
	}
}

// Whatever an entry depends on is in its key.
func TestCacheKeys(t *testing.T) {
	content := sha256.Sum256([]byte("picture"))
	g := Geometry{Bucket: Size{512, 448}, Resized: Size{600, 448}, CropX: 44}
	keys := map[Key]string{}
	add := func(name string, k Key) {
		if was, ok := keys[k]; ok {
			t.Errorf("%s and %s have the same key", was, name)
		}
		keys[k] = name
	}
	add("base", LatentKey(content, g, "vae"))
	add("other content", LatentKey(sha256.Sum256([]byte("Picture")), g, "vae"))
	add("other vae", LatentKey(content, g, "vae2"))
	for i, change := range []func(*Geometry){
		func(g *Geometry) { g.Bucket.W -= 64 }, func(g *Geometry) { g.Bucket.H -= 64 }, func(g *Geometry) { g.Resized.W++ },
		func(g *Geometry) { g.Resized.H++ }, func(g *Geometry) { g.CropX-- }, func(g *Geometry) { g.CropY++ }, func(g *Geometry) { g.Flip = true },
	} {
		changed := g
		change(&changed)
		add(fmt.Sprintf("geometry change %d", i), LatentKey(content, changed, "vae"))
	}
	add("text", TextKey("ab", "c"))
	add("text, cut elsewhere", TextKey("a", "bc"))
	add("text, other encoder", TextKey("ab", "d"))
	if one, again := LatentKey(content, g, "vae"), LatentKey(content, g, "vae"); one != again {
		t.Error("the same things give two keys")
	}
}

// Any flipped byte and any cut makes an entry absent; the next Put mends it.
func TestCacheDamage(t *testing.T) {
	dir := t.TempDir()
	c := OpenCache(dir, nil)
	key := TextKey("a cat", "clip")
	c.Put(key, cacheShape, cacheValues())
	path := c.path(key)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := slices.Clone(whole)
		bad[i] ^= 0x10
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.Get(key, cacheShape); ok {
			t.Fatalf("byte %d flipped: accepted", i)
		}
		if err := os.WriteFile(path, whole[:i], 0o644); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.Get(key, cacheShape); ok {
			t.Fatalf("cut to %d bytes: accepted", i)
		}
	}
	c.Put(key, cacheShape, cacheValues())
	mustHave(t, c, key)

	// Another entry's file under this name is not this entry.
	other := TextKey("a dog", "clip")
	c.Put(other, cacheShape, []float32{1, 2, 3, 4, 5, 6})
	if err := os.Rename(c.path(other), path); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Get(key, cacheShape); ok {
		t.Error("an entry moved to another name was accepted")
	}

	// The folder may vanish at any time.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Get(key, cacheShape); ok {
		t.Error("found in a folder that is gone")
	}
	c.Put(key, cacheShape, cacheValues())
	mustHave(t, c, key)
}

// A folder that can't be written warns once; what is there is still read. A file stands in the folder's way, which stops root too.
func TestCacheUnwritable(t *testing.T) {
	dir := t.TempDir()
	var warned []Warning
	c := OpenCache(dir, func(w Warning) { warned = append(warned, w) })
	kept := TextKey("a cat", "clip")
	c.Put(kept, cacheShape, cacheValues())
	lost := TextKey("a dog", "clip")
	if filepath.Dir(c.path(kept)) == filepath.Dir(c.path(lost)) {
		t.Fatal("the two keys share a folder: take other captions")
	}
	if err := os.WriteFile(filepath.Dir(c.path(lost)), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.Put(lost, cacheShape, cacheValues())
	}
	if len(warned) != 1 || !strings.Contains(warned[0].Message, "can't be written") || warned[0].Advice == "" {
		t.Errorf("warnings: %v", warned)
	}
	if _, ok := c.Get(lost, cacheShape); ok {
		t.Error("found what couldn't be written")
	}
	mustHave(t, c, kept)
}

func TestCacheFullDisk(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a full disk is played by /dev/full, which only Linux has")
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	defer full.Close()
	dir := t.TempDir()
	var warned []Warning
	c := OpenCache(dir, func(w Warning) { warned = append(warned, w) })
	_, writeErr := full.Write([]byte{1})
	c.fail(writeErr)
	if len(warned) != 1 || !strings.Contains(warned[0].Message, "no space left on device") {
		t.Errorf("warnings: %v", warned)
	}
	c.Put(TextKey("a", "b"), cacheShape, cacheValues())
	if files := entries(t, dir); len(files) != 0 {
		t.Errorf("still writes: %v", files)
	}
}

// Two caches on one folder, many goroutines: every answer is whole.
func TestCacheShared(t *testing.T) {
	dir := t.TempDir()
	caches := []*Cache{OpenCache(dir, nil), OpenCache(dir, nil)}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := caches[i%2]
			for n := range 20 {
				key := TextKey(fmt.Sprint(n), "clip")
				if got, ok := c.Get(key, cacheShape); ok && !slices.Equal(got, cacheValues()) {
					t.Errorf("entry %d is %v", n, got)
				}
				c.Put(key, cacheShape, cacheValues())
			}
		})
	}
	wg.Wait()
	if files := entries(t, dir); len(files) != 20 {
		t.Errorf("%d files, want 20", len(files))
	}
}

func TestCacheSweep(t *testing.T) {
	dir := folderOf(t, map[string][]byte{"ab/.new-1": {1}, "ab/.new-2": {1}, "ab/entry.bin": {1}, "keep/.new-3": {1}})
	old := time.Now().Add(-2 * tempAge)
	for _, name := range []string{"ab/.new-1", "ab/entry.bin", "keep/.new-3"} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	OpenCache(dir, nil)
	var left []string
	for _, path := range entries(t, dir) {
		rel, _ := filepath.Rel(dir, path)
		left = append(left, filepath.ToSlash(rel))
	}
	if want := []string{"ab/.new-2", "ab/entry.bin", "keep/.new-3"}; !slices.Equal(left, want) {
		t.Errorf("left %v, want %v", left, want)
	}
}
