package tensor

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// signatures are the first bytes of files that people pass by mistake.
var signatures = []struct{ prefix, what string }{
	{"version https://git-lfs", "a Git LFS pointer"},
	{"PK\x03\x04", "a zip archive or a PyTorch .ckpt"},
	{"GGUF", "a GGUF file"},
	{"\x89PNG", "a picture (PNG)"},
	{"\xff\xd8\xff", "a picture (JPEG)"},
	{"RIFF", "a picture (WebP)"},
	{"\x1f\x8b", "a gzip archive"},
	{"7z\xbc\xaf", "a 7z archive"},
	{"Rar!", "a RAR archive"},
	{"\x28\xb5\x2f\xfd", "a zstd archive"},
	{"\x89HDF", "an HDF5 file"},
	{"\x80\x02", "a PyTorch pickle"},
	{"\x80\x03", "a PyTorch pickle"},
	{"\x80\x04", "a PyTorch pickle"},
	{"\x80\x05", "a PyTorch pickle"},
	{"ggml", "a GGML file"},
	{"%PDF", "a PDF document"},
}

// Sniff says what a file is that is not safetensors, from its first bytes: "a Git LFS pointer", "a web page"; "" when it has no idea.
func Sniff(head []byte) string {
	for _, s := range signatures {
		if bytes.HasPrefix(head, []byte(s.prefix)) {
			return s.what
		}
	}
	text := strings.ToLower(strings.TrimSpace(strings.TrimPrefix(string(head), "\ufeff")))
	switch {
	case strings.HasPrefix(text, "<!doctype html"), strings.HasPrefix(text, "<html"), strings.HasPrefix(text, "<head"), strings.HasPrefix(text, "<!--"):
		return "a web page"
	case strings.HasPrefix(text, "<?xml"), strings.HasPrefix(text, "<error"):
		return "an XML page"
	case len(text) > 0 && text[0] == '{':
		return "a JSON text"
	}
	if len(head) >= 16 && isText(head) {
		return "a text file"
	}
	return ""
}

// isText reports whether head is printable text; a character cut at the end doesn't count.
func isText(head []byte) bool {
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && n == 1 {
			return len(head) < utf8.UTFMax
		}
		if r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f {
			return false
		}
		head = head[n:]
	}
	return true
}

// sniffAdvice says what to do about a file at path that is none of safetensors but what.
func sniffAdvice(what, path string) string {
	switch what {
	case "a Git LFS pointer":
		return "fetch the file itself: git lfs pull"
	case "a web page", "an XML page":
		return "the download was a page, not the file: download it again, logged in where the site asks for it"
	case "a zip archive or a PyTorch .ckpt", "a PyTorch pickle":
		return "make it a .safetensors file first: " + ConvertCommand(path)
	}
	return "pass a .safetensors file or a diffusers folder"
}

// ConvertCommand returns the command that makes a safetensors file of the one at path.
func ConvertCommand(path string) string {
	out := strings.TrimSuffix(path, filepath.Ext(path))
	if strings.EqualFold(filepath.Ext(path), ".safetensors") {
		out += "-converted"
	}
	return fmt.Sprintf("lycoris convert --in %q --out %q", path, out+".safetensors")
}
