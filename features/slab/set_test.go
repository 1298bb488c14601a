package slab

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSetIsExactToItsCap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := New(0, "")
		defer a.Close()
		var s Set
		want := map[int64]bool{}
		span := rapid.SampledFrom([]int64{1, 14, 16, 17, 300, SetExact}).Draw(t, "span")
		key := keyMakers[rapid.SampledFrom([]string{"sequential", "negative", "strided", "high", "floats"}).Draw(t, "keys")]
		next := rapid.Uint64().Draw(t, "seed")
		for range rapid.SampledFrom([]int{5, 100, 5000}).Draw(t, "steps") {
			next = next*6364136223846793005 + 1442695040888963407
			v := key(int64(next>>33) % span)
			if fresh := s.Add(a, v); fresh == want[v] {
				t.Fatalf("Add(%d) = %v", v, fresh)
			}
			want[v] = true
			if got := s.Size(a); got != float64(len(want)) || !s.Exact(a) {
				t.Fatalf("size %v, want %d", got, len(want))
			}
		}
		words := s.Words(a, nil)
		if len(words) != 1+len(want) || !slices.IsSorted(words[1:]) {
			t.Fatalf("%d words for %d values", len(words), len(want))
		}
		for _, v := range words[1:] {
			if !want[v] {
				t.Fatalf("%d is not among the values", v)
			}
		}
		checkRestored(t, a, words)
		s.Free(a)
		if a.Bytes() != 0 {
			t.Fatalf("%d bytes are in use after Free", a.Bytes())
		}
	})
}

// checkRestored restores words and expects the same again.
func checkRestored(t interface{ Fatalf(string, ...any) }, a *Arena, words []int64) {
	var again Set
	used, err := again.Restore(a, append(slices.Clone(words), 7, 7))
	if err != nil || used != len(words) {
		t.Fatalf("Restore used %d words of %d: %v", used, len(words), err)
	}
	if !slices.Equal(again.Words(a, nil), words) {
		t.Fatalf("a restored set of %d words differs", len(words))
	}
	again.Free(a)
}

// The contents depend on the values only: added in two orders, and some twice, across the change to a sketch.
func TestSetDoesNotDependOnOrder(t *testing.T) {
	for _, n := range []int64{1, 15, 16, 1023, 1024, 1025, 3000, 50_000} {
		a := New(0, "")
		var up, down Set
		for i := range n {
			up.Add(a, i*i)
			down.Add(a, (n-1-i)*(n-1-i))
			down.Add(a, (n-1-i/2)*(n-1-i/2))
		}
		words := up.Words(a, nil)
		if !slices.Equal(words, down.Words(a, nil)) || up.Size(a) != down.Size(a) {
			t.Errorf("two sets of the same %d values differ", n)
		}
		checkRestored(t, a, words)
		if up.Exact(a) != (n <= SetExact) {
			t.Errorf("a set of %d values: exact is %v", n, up.Exact(a))
		}
		up.Free(a)
		down.Free(a)
		if a.Bytes() != 0 {
			t.Errorf("%d bytes are in use after Free", a.Bytes())
		}
		a.Close()
	}
}

// The error of sizes over many sets of each size is the one that is documented, and no side is favoured.
func TestSketchError(t *testing.T) {
	sets := 400
	sizes := []int{1025, 1500, 2500, 4000, 7000, 10_000, 12_000, 20_000, 40_000, 100_000}
	if testing.Short() {
		sets, sizes = 100, []int{1025, 4000, 10_000, 20_000}
	}
	a := New(0, "")
	defer a.Close()
	errors := make([][]float64, len(sizes))
	for set := range sets {
		var s Set
		size, at := 0, 0
		for v := int64(set) << 32; at < len(sizes); v++ {
			s.Add(a, v)
			if size++; size == sizes[at] {
				errors[at] = append(errors[at], s.Size(a)/float64(size)-1)
				at++
			}
		}
		s.Free(a)
	}
	for i, all := range errors {
		mean, square, worst := 0.0, 0.0, 0.0
		for _, e := range all {
			mean += e / float64(sets)
			square += e * e / float64(sets)
			worst = max(worst, math.Abs(e))
		}
		rms := math.Sqrt(square)
		t.Logf("%7d values: root mean square error %.2f %%, mean %+.2f %%, worst %.2f %%",
			sizes[i], 100*rms, 100*mean, 100*worst)
		// Of that many sets the root mean square is itself known to 1/sqrt(2*sets) of it; four times that.
		if limit := SetError * (1 + 4/math.Sqrt(2*float64(sets))); !(rms <= limit) {
			t.Errorf("%d values: root mean square error %.4f, documented %.4f", sizes[i], rms, SetError)
		}
		if limit := 4 * SetError / math.Sqrt(float64(sets)); !(math.Abs(mean) <= limit) {
			t.Errorf("%d values: mean error %.4f, which is more than chance allows (%.4f)", sizes[i], mean, limit)
		}
	}
}

func TestSketchOfFewAndOfAll(t *testing.T) {
	w := make([]int64, sketchWords)
	w[sketchHistogram] = registers
	if got := estimate(w); got != 0 {
		t.Errorf("an empty sketch has size %v", got)
	}
	for i := range uint64(registers) {
		raise(w, i, maxRank)
	}
	if got := estimate(w); !(got > 1e18) {
		t.Errorf("a full sketch has size %v", got)
	}
	for i, want := range []int{registers, 0} {
		rank := []int{maxRank, 0}[i]
		if got := int(uint64(w[sketchHistogram+rank/4]) >> (16 * (rank % 4)) & 0xffff); got != want {
			t.Errorf("%d registers are %d, want %d", got, rank, want)
		}
	}
}

func TestSetRefusesDamage(t *testing.T) {
	a := New(0, "")
	defer a.Close()
	var s Set
	for v := range int64(2000) {
		s.Add(a, v)
	}
	sketch := s.Words(a, nil)
	high := slices.Clone(sketch)
	high[5] |= 63
	outside := slices.Clone(sketch)
	outside[1] |= 1 << 62
	for name, words := range map[string][]int64{
		"empty": {}, "negative": {-2}, "too many": {SetExact + 1}, "short": {3, 1, 2}, "unsorted": {2, 5, 4},
		"twice": {2, 5, 5}, "short sketch": sketch[:100], "high register": high, "outside": outside,
	} {
		var s Set
		if n, err := s.Restore(a, words); err == nil || s != 0 {
			t.Errorf("%s: Restore takes it for %d words", name, n)
		}
	}
}
