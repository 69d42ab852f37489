package dataset

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// script is a Random that gives the numbers it was told to, so that a test can follow the pipeline's draws.
type script struct {
	floats []float64
	ints   []int
	t      *testing.T
}

func (s *script) Float64() float64 {
	if len(s.floats) == 0 {
		s.t.Fatal("the pipeline drew one Float64 too many")
	}
	f := s.floats[0]
	s.floats = s.floats[1:]
	return f
}

func (s *script) IntN(n int) int {
	if len(s.ints) == 0 || s.ints[0] >= n {
		s.t.Fatalf("IntN(%d): left are %v", n, s.ints)
	}
	i := s.ints[0]
	s.ints = s.ints[1:]
	return i
}

// Shuffle reverses.
func (s *script) Shuffle(n int, swap func(i, j int)) {
	for i := range n / 2 {
		swap(i, n-1-i)
	}
}

func TestProcessCaption(t *testing.T) {
	tests := []struct {
		name   string
		raw    string
		o      CaptionOptions
		floats []float64
		ints   []int
		want   string
		varies bool
	}{
		{name: "plain text stays as it is", raw: "a cat,sitting ,  there", want: "a cat,sitting ,  there"},
		{name: "first line", raw: "\n  a cat \nmore\n", want: "a cat"},
		{name: "prefix and suffix", raw: "a cat", o: CaptionOptions{Prefix: "photo of", Suffix: "on film"}, want: "photo of a cat on film"},
		{name: "prefix alone", raw: "", o: CaptionOptions{Prefix: "sks"}, want: "sks"},
		{name: "dropped whole", raw: "a cat", o: CaptionOptions{Prefix: "x", Dropout: 0.5}, floats: []float64{0.49}, want: "", varies: true},
		{name: "not dropped", raw: "a cat", o: CaptionOptions{Dropout: 0.5}, floats: []float64{0.5}, want: "a cat", varies: true},
		{name: "always dropped", raw: "a {b|c}", o: CaptionOptions{Dropout: 1}, floats: []float64{0.99}, want: ""},
		{name: "nothing to drop", raw: "", o: CaptionOptions{Dropout: 0.5}, floats: []float64{0.9}, want: ""},
		{name: "choice", raw: "a {red|green|} cat", ints: []int{1}, want: "a green cat", varies: true},
		{name: "choice in the prefix", raw: "cat", o: CaptionOptions{Prefix: "{a|the}"}, ints: []int{1}, want: "the cat", varies: true},
		{name: "inner choice first", raw: "{a|{b|c}}", ints: []int{1, 1}, want: "c", varies: true},
		{name: "braces without bar", raw: "a {cat} :}", want: "a {cat} :}"},
		{name: "doubled braces", raw: "{{a|b}}", want: "{a|b}"},
		{name: "open brace", raw: "a {b|c, d", want: "a {b|c, d"},
		{name: "choice with a separator", raw: "a, {b, c|d}", o: CaptionOptions{Shuffle: true}, ints: []int{0}, want: "c, b, a", varies: true},
		{name: "shuffle", raw: "a,b , c,, d", o: CaptionOptions{Shuffle: true}, want: "d, c, b, a", varies: true},
		{name: "shuffle keeps the first two", raw: "a, b, c, d", o: CaptionOptions{Shuffle: true, KeepTokens: 2}, want: "a, b, d, c", varies: true},
		{name: "shuffle with all kept", raw: "a, b", o: CaptionOptions{Shuffle: true, KeepTokens: 9}, want: "a, b"},
		{name: "shuffle of one", raw: "a cat", o: CaptionOptions{Shuffle: true}, want: "a cat"},
		{name: "separator beats keep", raw: "a, b ||| c, d", o: CaptionOptions{Shuffle: true, KeepTokens: 1}, want: "a, b, d, c", varies: true},
		{name: "fixed tail", raw: "a|||b,c|||d,e", o: CaptionOptions{Shuffle: true}, want: "a, c, b, d, e", varies: true},
		{name: "separator without shuffle", raw: "a|||b,c", want: "a, b, c"},
		{name: "tag dropout", raw: "a, b, c, d", o: CaptionOptions{TagDropout: 0.3, KeepTokens: 1}, floats: []float64{0.29, 0.3, 0.1}, want: "a, c", varies: true},
		{name: "tag dropout after shuffle", raw: "a, b, c", o: CaptionOptions{TagDropout: 0.5, Shuffle: true}, floats: []float64{0.1, 0.9, 0.9}, want: "b, a", varies: true},
		{name: "all tags dropped", raw: "a, b", o: CaptionOptions{TagDropout: 1}, floats: []float64{0, 0}, want: ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			r := &script{tc.floats, tc.ints, t}
			if got := ProcessCaption(tc.raw, tc.o, r); got != tc.want {
				t.Errorf("ProcessCaption(%q, %+v) = %q, want %q", tc.raw, tc.o, got, tc.want)
			}
			if len(r.floats)+len(r.ints) > 0 {
				t.Errorf("draws left: %v %v", r.floats, r.ints)
			}
			if got := CaptionVaries(tc.raw, tc.o); got != tc.varies {
				t.Errorf("CaptionVaries(%q, %+v) = %t", tc.raw, tc.o, got)
			}
		})
	}
}

func TestUnbalancedBrace(t *testing.T) {
	for line, want := range map[string]int{"": -1, "{a|b}": -1, "{{": -1, "a {b": 2, "a } b": 2, "{a{b}": 0, "{a|{b|c}}": -1, "{{a}}": -1} {
		if got := unbalancedBrace(line); got != want {
			t.Errorf("unbalancedBrace(%q) = %d, want %d", line, got, want)
		}
	}
}

func TestDeepBracesAreQuick(t *testing.T) {
	text := strings.Repeat("{a", 20000) + strings.Repeat("|b}", 20000)
	if got := expandChoices(text, func(int) int { return 0 }); len(got) > len(text) {
		t.Errorf("%d bytes became %d", len(text), len(got))
	}
}

func FuzzCaption(f *testing.F) {
	f.Add("a, {b|c}, d ||| e", 1, 0.1, 0.2, true, uint64(1))
	f.Add("{{{|}|}}}", 0, 0.0, 0.0, false, uint64(2))
	f.Add("a\r\nb, \x00, \xff{", 3, 0.0, 0.9, true, uint64(3))
	f.Fuzz(func(t *testing.T, raw string, keep int, drop, tagDrop float64, shuffle bool, seed uint64) {
		o := CaptionOptions{KeepTokens: keep, Dropout: drop, TagDropout: tagDrop, Shuffle: shuffle}
		draw := func(seed uint64) string { return ProcessCaption(raw, o, rand.New(rand.NewPCG(seed, 0))) }
		got := draw(seed)
		if again := draw(seed); again != got {
			t.Fatalf("%q: the same stream gave %q and %q", raw, got, again)
		}
		if len(got) > 2*len(raw)+2 || strings.Contains(got, "\n") && !strings.ContainsAny(raw, "\n") {
			t.Fatalf("%q became %q", raw, got)
		}
		if !CaptionVaries(raw, o) {
			if other := draw(seed + 1); other != got {
				t.Fatalf("%q doesn't vary but gave %q and %q", raw, got, other)
			}
		}
		if o == (CaptionOptions{Shuffle: true}) && !strings.ContainsAny(raw, "{}|\n") {
			want, have := tags(raw), tags(got)
			slices.Sort(want)
			slices.Sort(have)
			if !slices.Equal(want, have) {
				t.Fatalf("%q: shuffled into %q", raw, got)
			}
		}
	})
}
