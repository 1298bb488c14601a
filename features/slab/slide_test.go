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
		times := make([]int64, step*(1+rnd.IntN(30)))
		at := rnd.Int64N(60) - 30
		for i := range times {
			if times[i] = rnd.Int64N(100); i%step == 0 {
				at += rnd.Int64N(1 + rnd.Int64N(20))
				times[i] = at
			}
		}
		rows := len(times) / step
		spans := make([]int64, 1+rnd.IntN(5))
		want := make([][]int32, len(spans))
		los := make([]int, len(spans))
		for i := range spans {
			spans[i] = rnd.Int64N(40)
			want[i] = make([]int32, rows)
			for j := range want[i] {
				for want[i][j] < int32(n) && d[int(want[i][j])*stride] <= times[j*step]-spans[i] {
					want[i][j]++
				}
			}
			los[i] = rnd.IntN(int(want[i][0]) + 1)
		}
		for _, portable := range []bool{false, true} {
			got, windows := make([][]int32, len(spans)), make([]Sliding, len(spans))
			for i := range spans {
				got[i] = make([]int32, rows)
				windows[i] = NewSliding(got[i], spans[i], los[i])
			}
			if portable {
				slidePortable(&windows[0], len(windows), rows, &d[0], stride*wordBytes, 0, &times[0], step*wordBytes)
			} else {
				Slide(windows, rows, d, stride, n, times, step)
			}
			for i := range spans {
				if !slices.Equal(got[i], want[i]) || windows[i].Last() != int(want[i][rows-1]) {
					t.Fatalf("portable %v, stride %d, %d entries, span %d from %d: %v, last %d; want %v", portable, stride, n, spans[i],
						los[i], got[i], windows[i].Last(), want[i])
				}
			}
		}
	}
	Slide(nil, 3, []int64{math.MaxInt64}, 1, 0, []int64{1, 2, 3}, 1)
	Slide([]Sliding{NewSliding(nil, 1, 0)}, 0, []int64{math.MaxInt64}, 1, 0, nil, 1)
}
