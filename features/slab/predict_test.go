package slab

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestPredictedBytes(t *testing.T) {
	// Which leaves are cut is chance: of few leaves, one more or less is allowed, of 4 or 6 KiB.
	const leaf = 6 << 10
	within := func(t *testing.T, what string, n int, predicted, got int64, tolerance float64) {
		t.Helper()
		allowed := tolerance*float64(got) + leaf
		if n <= 300 || tolerance == 0 {
			allowed = 0
		}
		if !(math.Abs(float64(predicted-got)) <= allowed) {
			t.Errorf("%s of %d: %d bytes predicted, %d are in use", what, n, predicted, got)
		}
	}
	check := map[int]bool{}
	for _, n := range []int{1, 2, 3, 5, 12, 13, 16, 31, 32, 100, 383, 385, 500, 768, 769, 1000, 1024, 1025, 3000, 6000,
		10_000, 24_000, 25_000, 50_000, 100_000, 150_000, 190_000, 200_000, 250_000} {
		check[n] = true
	}
	arenas := [3]*Arena{}
	for i := range arenas {
		arenas[i] = New(0, "")
		defer arenas[i].Close()
	}
	x, s, long := NewInts(arenas[0]), NewTexts(arenas[1]), NewTexts(arenas[2])
	tail := strings.Repeat("x", 20)
	for n := 1; n <= 250_000; n++ {
		x.ID(int64(n))
		s.ID(fmt.Sprintf("%010d", n))
		long.ID(fmt.Sprintf("%010d", n) + tail)
		if !check[n] {
			continue
		}
		dir := func(x *index) int64 { return int64(len(x.dir)) * 24 }
		within(t, "Ints", n, IntsBytes(n), arenas[0].Bytes()+dir(&x.x), 0.08)
		within(t, "Texts", n, TextsBytes(n, 10), arenas[1].Bytes()+dir(&s.x), 0.08)
		within(t, "long Texts", n, TextsBytes(n, 30), arenas[2].Bytes()+dir(&long.x), 0.08)
	}
}
