package slab

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestExtremesAgainstScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := New(0, "")
		defer a.Close()
		var e Extremes
		c := Column{Stride: rapid.IntRange(1, 4).Draw(t, "stride")}
		c.At = rapid.IntRange(0, c.Stride-1).Draw(t, "at")
		next := rapid.Uint64().Draw(t, "seed")
		value := func() int64 {
			next = next*6364136223846793005 + 1442695040888963407
			if next>>60 == 0 {
				return []int64{math.MinInt64, math.MaxInt64}[next>>20%2]
			}
			return int64(next>>40) - 1<<23
		}
		n := 0
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0: // one in the middle
				at := rapid.IntRange(0, n).Draw(t, "insert at")
				entry := make([]int64, c.Stride)
				entry[c.At] = value()
				rest := append(entry, c.Words[at*c.Stride:]...)
				c.Words = append(c.Words[:at*c.Stride], rest...)
				n++
				e.Update(a, c, at, n)
			case 1:
				gone := rapid.IntRange(0, n).Draw(t, "gone")
				c.Words = c.Words[gone*c.Stride:]
				n -= gone
				e.Rebase(a, c, n)
			default:
				for range rapid.IntRange(1, 1000).Draw(t, "appended") {
					entry := make([]int64, c.Stride)
					entry[c.At] = value()
					c.Words = append(c.Words, entry...)
					n++
					e.Append(a, c, n)
				}
			}
			for range 20 {
				lo := rapid.IntRange(0, n).Draw(t, "lo")
				hi := rapid.IntRange(0, n).Draw(t, "hi")
				low, high := e.Query(a, c, lo, hi)
				wantLow, wantHigh := int64(math.MaxInt64), int64(math.MinInt64)
				for i := lo; i < hi; i++ {
					v := c.Words[i*c.Stride+c.At]
					wantLow, wantHigh = min(wantLow, v), max(wantHigh, v)
				}
				if low != wantLow || high != wantHigh {
					t.Fatalf("[%d, %d) of %d: %d, %d, want %d, %d", lo, hi, n, low, high, wantLow, wantHigh)
				}
			}
		}
		e.Free(a)
		if a.Bytes() != 0 {
			t.Fatalf("%d bytes are in use after Free", a.Bytes())
		}
	})
}

// A column long enough for five levels, with windows over most of it.
func TestExtremesOfALongColumn(t *testing.T) {
	n := 1_200_000
	a := New(0, "")
	defer a.Close()
	c := Column{Words: make([]int64, 0, n), Stride: 1}
	var e Extremes
	for i := range n {
		c.Words = append(c.Words, int64(mix(uint64(i))))
		e.Append(a, c, i+1)
	}
	if per := float64(a.Bytes()) / float64(n); !(per < 8*2.2/16*1.4) {
		t.Errorf("%.2f bytes an entry", per)
	}
	for i := range 30 {
		lo := int(mix(uint64(i)) % 100_000)
		hi := n - int(mix(uint64(i)+1000)%100_000)
		low, high := e.Query(a, c, lo, hi)
		wantLow, wantHigh := c.scan(lo, hi)
		if low != wantLow || high != wantHigh {
			t.Fatalf("[%d, %d): %d, %d, want %d, %d", lo, hi, low, high, wantLow, wantHigh)
		}
	}
}

func TestExtremesRefusesWhatItWasNotTold(t *testing.T) {
	a := New(0, "")
	defer a.Close()
	var e Extremes
	c := Column{Words: make([]int64, 100), Stride: 1}
	e.Update(a, c, 0, 40)
	for name, call := range map[string]func(){
		"query":  func() { e.Query(a, c, 0, 60) },
		"append": func() { e.Append(a, c, 64) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: entries that were not told pass", name)
				}
			}()
			call()
		}()
	}
}
