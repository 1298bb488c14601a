package mock

import (
	"math"
	"math/rand/v2"
	"slices"
)

// purpose separates the streams of random numbers, so that what is drawn for one thing cannot move another.
type purpose uint64

const (
	forProduct purpose = iota + 1
	forPrices
	forOutages
	forStore
	forUser
	forTaste
	forLinks
	forCategory
	forShop
	forRules
	forCampaigns
	forCauses
	forDay
	forStock
	forShuffle // of the check's control
)

// dice is a source of random numbers that is moved from stream to stream: one a purpose, entity and day.
type dice struct {
	*rand.Rand
	pcg  *rand.PCG
	seed uint64
}

func newDice(seed uint64) *dice {
	pcg := rand.NewPCG(0, 0)
	return &dice{rand.New(pcg), pcg, seed}
}

// of moves the dice to the start of the stream of an entity and a day (0 where there is none).
func (d *dice) of(p purpose, entity, day int) *dice {
	h := mix(d.seed ^ mix(uint64(p)))
	h = mix(h ^ uint64(entity))
	d.pcg.Seed(h, mix(h^mix(uint64(day)+1)))
	return d
}

// mix is the finaliser of SplitMix64 (Steele, Lea and Flood 2014): neighbouring seeds give unrelated streams.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// between is uniform in [lo, hi).
func (d *dice) between(lo, hi float64) float64 { return lo + (hi-lo)*d.Float64() }

// chance is true with probability p.
func (d *dice) chance(p float64) bool { return d.Float64() < p }

// poisson draws by Knuth's product of uniforms; rates here stay below a few hundred.
func (d *dice) poisson(rate float64) int {
	if rate <= 0 {
		return 0
	}
	limit, n := math.Exp(-rate), 0
	for p := d.Float64(); p > limit; p *= d.Float64() {
		n++
	}
	return n
}

// weighted draws an index with probability in proportion to its weight.
func (d *dice) weighted(weights []float64) int {
	total := 0.0
	for _, w := range weights {
		total += w
	}
	x := d.Float64() * total
	for i, w := range weights {
		if x -= w; x < 0 {
			return i
		}
	}
	return len(weights) - 1
}

// aliasCell is a column of an alias table: below cut of 65,536 it is the column itself, else the alias. Four
// bytes a user and product are what the memory of a large shop goes to.
type aliasCell struct{ cut, other uint16 }

// aliasTable draws from fixed weights in constant time, by Vose's method (1991). Weights are kept to
// 1/65,536 of the mean one.
func aliasTable(dst []aliasCell, weights []float64) {
	n, total := len(weights), 0.0
	for _, w := range weights {
		total += w
	}
	scaled := make([]float64, n)
	var small, large []int
	for i, w := range weights {
		scaled[i] = w * float64(n) / total
		if scaled[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for i := range dst {
		dst[i] = aliasCell{math.MaxUint16, uint16(i)}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		dst[s] = aliasCell{uint16(scaled[s] * 65536), uint16(l)}
		if scaled[l] -= 1 - scaled[s]; scaled[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
}

// pick draws from an alias table by one word of randomness.
func pick(table []aliasCell, word uint64) int {
	hi := int((word >> 32) * uint64(len(table)) >> 32)
	c := table[hi]
	if uint16(word) < c.cut {
		return hi
	}
	return int(c.other)
}

// apart draws n different numbers below m, which is at least n; n is small.
func (d *dice) apart(n, m int) []int {
	var drawn []int
	for len(drawn) < n {
		if k := d.IntN(m); !slices.Contains(drawn, k) {
			drawn = append(drawn, k)
		}
	}
	return drawn
}
