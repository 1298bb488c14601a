package slab

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// countsOf is a map as Each would give it.
func countsOf(m map[int64]int32) []Counted {
	var all []Counted
	for v, n := range m {
		all = append(all, Counted{v, n})
	}
	slices.SortFunc(all, func(x, y Counted) int { return cmp.Compare(x.Value, y.Value) })
	return all
}

func modeOf(all []Counted) (v int64, n int32) {
	for _, x := range all {
		if x.Count > n {
			v, n = x.Value, x.Count
		}
	}
	return v, n
}

func TestMultisetAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := New(0, "")
		defer a.Close()
		var m Multiset
		want := map[int64]int32{}
		span := rapid.SampledFrom([]int64{2, 16, 32, 40, 600, 5000}).Draw(t, "span")
		key := keyMakers[rapid.SampledFrom([]string{"sequential", "strided", "high", "floats"}).Draw(t, "keys")]
		next := rapid.Uint64().Draw(t, "seed")
		phases := rapid.IntRange(1, 4).Draw(t, "phases")
		for phase := range phases {
			add := uint64(rapid.IntRange(0, 10).Draw(t, "adds in ten")) // so that it grows and shrinks
			for step := range rapid.SampledFrom([]int{10, 300, 4000}).Draw(t, "steps") {
				next = next*6364136223846793005 + 1442695040888963407
				v := key(int64(next>>40)%span - span/2)
				by := int32(next>>20%3) + 1
				if next>>32%10 >= add {
					by = -min(by, want[v])
				}
				if got := m.Add(a, v, by); got != want[v]+by {
					t.Fatalf("phase %d, step %d: Add(%d, %d) = %d, want %d", phase, step, v, by, got, want[v]+by)
				}
				if want[v] += by; want[v] == 0 {
					delete(want, v)
				}
				if next>>11%16 == 0 {
					wv, wn := modeOf(countsOf(want))
					if gv, gn := m.Mode(a); gv != wv || gn != wn {
						t.Fatalf("phase %d, step %d: mode %d (%d), want %d (%d)", phase, step, gv, gn, wv, wn)
					}
				}
				if got := m.Count(a, v+1); got != want[v+1] {
					t.Fatalf("Count(%d) = %d, want %d", v+1, got, want[v+1])
				}
				if m.Distinct(a) != len(want) {
					t.Fatalf("%d values, want %d", m.Distinct(a), len(want))
				}
			}
			if got := m.Each(a, nil); !slices.Equal(got, countsOf(want)) {
				t.Fatalf("contents differ:\n%v\n%v", got, countsOf(want))
			}
		}
		for v, n := range want {
			m.Add(a, v, -n)
		}
		if m != 0 || a.Bytes() != 0 {
			t.Fatalf("an empty multiset holds %d bytes", a.Bytes())
		}
	})
}

func TestMultisetFree(t *testing.T) {
	for _, n := range []int64{0, 1, 2, 31, 32, 33, 400, 100_000} {
		a := New(0, "")
		var m Multiset
		for v := range n {
			m.Add(a, v, 1)
		}
		if m.Distinct(a) != int(n) {
			t.Errorf("%d values, want %d", m.Distinct(a), n)
		}
		full := a.Bytes()
		m.Free(a)
		if m != 0 || a.Bytes() != 0 {
			t.Errorf("%d values: %d bytes are in use after Free", n, a.Bytes())
		}
		if n > 1000 && full > n*32 {
			t.Errorf("%d values take %d bytes", n, full)
		}
		a.Close()
	}
}

// A count that would be negative is a bug of the caller that must not pass in silence.
func TestMultisetRefusesNegativeCounts(t *testing.T) {
	for _, n := range []int64{1, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			a := New(0, "")
			defer a.Close()
			var m Multiset
			for v := range n {
				m.Add(a, v, 1)
			}
			for _, v := range []int64{0, n} {
				func() {
					defer func() {
						if recover() == nil {
							t.Errorf("value %d can be taken out twice", v)
						}
					}()
					m.Add(a, v, -2)
				}()
			}
		})
	}
}

func TestMultisetOfHashesThatBeginAlike(t *testing.T) {
	a := New(0, "")
	defer a.Close()
	var m Multiset
	n := uint64(20_000)
	for i := range n {
		m.Add(a, int64(unmix(0xabcd<<48|i*2654435761&0xffffffff)), int32(i%5+1))
	}
	if m.Distinct(a) != int(n) {
		t.Fatalf("%d values, want %d", m.Distinct(a), n)
	}
	if depth := a.Words(Ref(m), rootWords)[rootDepth]; depth > 5 {
		t.Errorf("the directory has 2^%d entries", depth)
	}
	for i := range n {
		v := int64(unmix(0xabcd<<48 | i*2654435761&0xffffffff))
		if got := m.Count(a, v); got != int32(i%5+1) {
			t.Fatalf("count %d of value %d, want %d", got, v, i%5+1)
		}
		m.Add(a, v, -int32(i%5+1))
	}
	if m != 0 || a.Bytes() != 0 {
		t.Errorf("an empty multiset holds %d bytes", a.Bytes())
	}
}
