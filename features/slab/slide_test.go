package slab

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSlide compares Slide and its portable form with a search for each row, over strides, gaps and ends of rings.
func TestSlide(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		stride, step, n := 1+rnd.IntN(5), 1+rnd.IntN(4), rnd.IntN(40)
		d := make([]int64, (n+1)*stride+rnd.IntN(3*stride)) // what lies behind the sentinel may be anything
		for i := range d {
			d[i] = rnd.Int64N(50) - 100
		}
		k := rnd.Int64N(20) - 40
		for i := range n {
			k += rnd.Int64N(1 + rnd.Int64N(9))
			d[i*stride] = k
		}
		d[n*stride] = math.MaxInt64
		span := rnd.Int64N(40)
		times := make([]int64, step*(1+rnd.IntN(30)))
		at := rnd.Int64N(60) - 30
		for i := range times {
			if times[i] = rnd.Int64N(100); i%step == 0 {
				at += rnd.Int64N(1 + rnd.Int64N(20))
				times[i] = at
			}
		}
		want := make([]int32, len(times)/step)
		for j := range want {
			for want[j] < int32(n) && d[int(want[j])*stride] <= times[j*step]-span {
				want[j]++
			}
		}
		lo := rnd.IntN(int(want[0]) + 1)
		for name, f := range map[string]func(*int32, int, *int64, int, int, *int64, int, int64, int) int{
			"Slide": nil, "portable": slidePortable} {
			got := make([]int32, len(want))
			last := 0
			if f == nil {
				last = Slide(got, d, stride, n, times, step, span, lo)
			} else {
				last = f(&got[0], len(got), &d[0], stride*wordBytes, (n+1-ahead)*stride*wordBytes, &times[0], step*wordBytes,
					span, lo)
			}
			if !slices.Equal(got, want) || last != int(want[len(want)-1]) {
				t.Fatalf("%s of stride %d, %d entries, span %d from %d: %v, last %d; want %v", name, stride, n, span, lo, got,
					last, want)
			}
		}
	}
	if got := Slide(nil, []int64{math.MaxInt64}, 1, 0, nil, 1, 0, 0); got != 0 {
		t.Errorf("without rows: %d", got)
	}
}
