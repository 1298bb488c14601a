package slab

import (
	"math"
	"math/bits"
)

// The sketch is HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007) over 64-bit hashes, of which the first 12 choose
// the register, and its size the improved raw estimator of Ertl (2017, "New cardinality estimation algorithms for
// HyperLogLog sketches", algorithm 6), which has no bias at small sizes and so needs no switch to another
// estimator and no table of corrections.

func (s *Set) makeSketch(a *Arena) {
	r, _ := a.Alloc(sketchWords)
	w := a.Words(r, sketchWords)
	w[0] = sketchHead
	w[sketchHistogram] = registers // all are 0
	*s = Set(r)
}

func (s *Set) toSketch(a *Arena) {
	old, words := *s, setWords(s.head(a))
	var all [SetExact]int64
	values := s.values(a, all[:0])
	a.Free(Ref(old), words)
	s.makeSketch(a)
	for _, v := range values {
		s.addSketch(a, v)
	}
}

func (s *Set) addSketch(a *Arena, v int64) bool {
	h := mix(uint64(v))
	rank := min(bits.LeadingZeros64(h<<registerBits)+1, maxRank)
	return raise(a.Words(Ref(*s), sketchWords), h>>(64-registerBits), rank)
}

// raise makes a register at least rank.
func raise(w []int64, register uint64, rank int) bool {
	at, shift := sketchRegisters+register/10, 6*(register%10)
	now := int(uint64(w[at]) >> shift & 63)
	if rank <= now {
		return false
	}
	w[at] += int64(rank-now) << shift
	w[sketchHistogram+now/4] -= 1 << (16 * (now % 4))
	w[sketchHistogram+rank/4] += 1 << (16 * (rank % 4))
	w[sketchSize] = 0
	return true
}

// estimate is the size from the histogram of the registers.
func estimate(w []int64) float64 {
	count := func(rank int) float64 {
		return float64(uint64(w[sketchHistogram+rank/4]) >> (16 * (rank % 4)) & 0xffff)
	}
	const m = registers
	z := m * tau(1-count(maxRank)/m)
	for k := maxRank - 1; k >= 1; k-- {
		z = 0.5 * (z + count(k))
	}
	z += m * sigma(count(0)/m)
	return m * m / (2 * math.Ln2) / z
}

func sigma(x float64) float64 {
	if x == 1 {
		return math.Inf(1)
	}
	y, z := 1.0, x
	for {
		x *= x
		before := z
		z += float64(x * y) // the product is rounded, so that no machine fuses the two
		y += y
		if z == before {
			return z
		}
	}
}

func tau(x float64) float64 {
	if x == 0 || x == 1 {
		return 0
	}
	y, z := 1.0, 1-x
	for {
		x = math.Sqrt(x)
		before := z
		y *= 0.5
		z -= float64(float64((1-x)*(1-x)) * y)
		if z == before {
			return z / 3
		}
	}
}
