package slab

import (
	"fmt"
	"testing"
)

// Benchmarks of the tables at the sizes in mind: 15,000 keys (a card stream), a million, ten million.
var benchKeys = []int{15_000, 1_000_000, 10_000_000}

// turn goes on over all runs of a benchmark, so that a short run does not find its keys in the cache because the run
// before read the same.
var turn int

func next() int {
	turn++
	return turn & (1<<20 - 1)
}

func benchInts(b *testing.B, keys int) (*Arena, *Ints, []int64) {
	b.Helper()
	a := New(0, "")
	x := NewInts(a)
	for i := range keys {
		x.ID(int64(i) * 7919)
	}
	order := make([]int64, 1<<20)
	for i := range order {
		order[i] = int64(mix(uint64(i))%uint64(keys)) * 7919
	}
	return a, x, order
}

func BenchmarkInts(b *testing.B) {
	for _, keys := range benchKeys {
		a, x, order := benchInts(b, keys)
		out := make([]int32, 4096)
		b.Run(fmt.Sprintf("one/%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			b.ReportMetric(float64(a.Bytes()+int64(24*len(x.x.dir)))/float64(keys), "B/key")
			for range b.N {
				x.ID(order[next()])
			}
		})
		b.Run(fmt.Sprintf("batch/%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; i < b.N; i += 4096 {
				turn = (turn + 4096) &^ 4095
				at := turn & (1<<20 - 1)
				x.IDs(order[at:at+4096], nil, out)
			}
		})
		b.Run(fmt.Sprintf("missing/%d", keys), func(b *testing.B) {
			for range b.N {
				x.Find(order[next()] + 1)
			}
		})
		a.Close()
		m := map[int64]uint32{}
		for i := range keys {
			m[int64(i)*7919] = uint32(i)
		}
		b.Run(fmt.Sprintf("map/%d", keys), func(b *testing.B) {
			sum := uint32(0)
			for range b.N {
				sum += m[order[next()]]
			}
			sink = int64(sum)
		})
	}
}

var sink int64

func BenchmarkTexts(b *testing.B) {
	for _, keys := range benchKeys[:2] {
		a := New(0, "")
		x := NewTexts(a)
		for i := range keys {
			x.ID(fmt.Sprintf("C%09d", i))
		}
		order := make([]string, 1<<20)
		for i := range order {
			order[i] = fmt.Sprintf("C%09d", mix(uint64(i))%uint64(keys))
		}
		out := make([]int32, 4096)
		b.Run(fmt.Sprintf("one/%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			b.ReportMetric(float64(a.Bytes()+int64(24*len(x.x.dir)))/float64(keys), "B/key")
			for range b.N {
				x.ID(order[next()])
			}
		})
		b.Run(fmt.Sprintf("batch/%d", keys), func(b *testing.B) {
			for i := 0; i < b.N; i += 4096 {
				turn = (turn + 4096) &^ 4095
				at := turn & (1<<20 - 1)
				x.IDs(order[at:at+4096], nil, out)
			}
		})
		a.Close()
		m := map[string]uint32{}
		for i := range keys {
			m[fmt.Sprintf("C%09d", i)] = uint32(i)
		}
		b.Run(fmt.Sprintf("map/%d", keys), func(b *testing.B) {
			sum := uint32(0)
			for range b.N {
				sum += m[order[next()]]
			}
			sink = int64(sum)
		})
	}
}

func BenchmarkArena(b *testing.B) {
	a := New(0, "")
	defer a.Close()
	refs := make([]Ref, 1<<16)
	b.Run("alloc", func(b *testing.B) {
		for i := range b.N {
			k := i & (1<<16 - 1)
			if refs[k] != 0 {
				a.Free(refs[k], 8)
			}
			refs[k], _ = a.Alloc(8)
		}
	})
	b.Run("words", func(b *testing.B) {
		for k := range refs {
			if refs[k] == 0 {
				refs[k], _ = a.Alloc(8)
			}
		}
		sum := int64(0)
		for i := range b.N {
			sum += a.Words(refs[i&1023], 8)[3]
		}
		sink = sum
	})
}

// BenchmarkMultiset slides a window over values: one in, one out, and the mode asked for.
func BenchmarkMultiset(b *testing.B) {
	for _, distinct := range []int64{1, 8, 30, 300, 10_000, 1_000_000} {
		b.Run(fmt.Sprint(distinct), func(b *testing.B) {
			a := New(0, "")
			defer a.Close()
			var m Multiset
			value := func(i int) int64 { // the smaller the oftener
				r := mix(uint64(i))
				return int64(min(r>>32%uint64(distinct), r&0xffffffff%uint64(distinct)))
			}
			window := int(distinct) * 4
			for i := range window {
				m.Add(a, value(i), 1)
			}
			b.ReportAllocs()
			b.ReportMetric(float64(a.Bytes())/float64(m.Distinct(a)), "B/value")
			b.ResetTimer()
			for i := range b.N {
				m.Add(a, value(i+window), 1)
				m.Add(a, value(i), -1)
				v, _ := m.Mode(a)
				sink += v
			}
		})
	}
}

func BenchmarkSet(b *testing.B) {
	for _, distinct := range []uint64{10, 1000, 100_000} {
		a := New(0, "")
		var s Set
		for i := range distinct {
			s.Add(a, int64(i))
		}
		b.Run(fmt.Sprintf("add/%d", distinct), func(b *testing.B) {
			b.ReportAllocs()
			b.ReportMetric(float64(a.Bytes()), "B")
			for i := range b.N {
				s.Add(a, int64(mix(uint64(i))%distinct))
			}
		})
		b.Run(fmt.Sprintf("size/%d", distinct), func(b *testing.B) {
			sum := 0.0
			for range b.N {
				sum += s.Size(a)
			}
			sink = int64(sum)
		})
		b.Run(fmt.Sprintf("with/%d", distinct), func(b *testing.B) {
			sum := 0.0
			for i := range b.N {
				sum += s.SizeWith(a, int64(i))
			}
			sink = int64(sum)
		})
		a.Close()
	}
}

func BenchmarkExtremes(b *testing.B) {
	const stride = 4
	for _, n := range []int{100, 10_000, 10_000_000} {
		a := New(0, "")
		c := Column{Words: make([]int64, n*stride), Stride: stride, At: 1}
		for i := range n {
			c.Words[i*stride+1] = int64(mix(uint64(i)))
		}
		var e Extremes
		b.Run(fmt.Sprintf("append/%d", n), func(b *testing.B) {
			for i := range b.N {
				if i%n == 0 {
					e.Rebase(a, c, 0)
				}
				e.Append(a, c, i%n+1)
			}
		})
		e.Update(a, c, 0, n)
		b.Run(fmt.Sprintf("query/%d", n), func(b *testing.B) {
			b.ReportMetric(float64(a.Bytes())/float64(n), "B/entry")
			for i := range b.N {
				r := mix(uint64(i))
				lo := int(r % uint64(n/2+1))
				hi := n - int(r>>32%uint64(n/4+1))
				low, high := e.Query(a, c, lo, hi)
				sink += low + high
			}
		})
		a.Close()
	}
}
