package features

import (
	"math"
	"math/big"
	"math/bits"
)

// What sums are made of: whole numbers that cannot overflow, rounded once at the end.

func wideOf(v int64) wide { return wide{v >> 63, uint64(v)} }

func (s wide) plus(o wide) wide {
	lo, carry := bits.Add64(s.lo, o.lo, 0)
	return wide{s.hi + o.hi + int64(carry), lo}
}

func (s wide) minus(o wide) wide {
	lo, borrow := bits.Sub64(s.lo, o.lo, 0)
	return wide{s.hi - o.hi - int64(borrow), lo}
}

func (s wide) isZero() bool { return s.hi == 0 && s.lo == 0 }

// abs is the magnitude, which fits 128 bits without sign.
func (s wide) abs() (hi, lo uint64) {
	if s.hi >= 0 {
		return uint64(s.hi), s.lo
	}
	lo, borrow := bits.Sub64(0, s.lo, 0)
	hi, _ = bits.Sub64(0, uint64(s.hi), borrow)
	return hi, lo
}

// float is the nearest float64.
func (s wide) float() float64 {
	if s.hi == int64(s.lo)>>63 {
		return float64(int64(s.lo))
	}
	hi, lo := s.abs()
	f := floatOf([4]uint64{lo, hi})
	if s.hi < 0 {
		return -f
	}
	return f
}

// product is a*b.
func product(a, b int64) wide {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	h := int64(hi)
	if a < 0 {
		h -= b
	}
	if b < 0 {
		h -= a
	}
	return wide{h, lo}
}

// floatOf is the nearest float64 of a whole number, its words from the lowest; of two equally near the even one.
func floatOf(w [4]uint64) float64 {
	top := 3
	for top > 0 && w[top] == 0 {
		top--
	}
	if top == 0 {
		return float64(w[0])
	}
	shift := bits.LeadingZeros64(w[top])
	m := w[top] << shift
	if shift > 0 {
		m |= w[top-1] >> (64 - shift)
	}
	rest := w[top-1] << shift
	for i := range top - 1 {
		rest |= w[i]
	}
	if rest != 0 {
		m |= 1 // what is below the 64 bits decides a tie, and nothing else: 53 of them count
	}
	return float64(m) * math.Float64frombits(uint64(1023+64*top-shift)<<52) // a power of two: exact
}

// uint192 is a sum of squares, its words from the lowest.
type uint192 [3]uint64

func (s uint192) plus(hi, lo uint64) uint192 {
	var c uint64
	s[0], c = bits.Add64(s[0], lo, 0)
	s[1], c = bits.Add64(s[1], hi, c)
	s[2] += c
	return s
}

// square is x*x.
func square(x int64) (hi, lo uint64) {
	m := magnitude(x)
	return bits.Mul64(m, m)
}

func magnitude(x int64) uint64 {
	if x < 0 {
		return -uint64(x)
	}
	return uint64(x)
}

// add128 adds to a number of two words, the low one first, modulo 2^128.
func add128(w []int64, hi, lo uint64) {
	l, c := bits.Add64(uint64(w[0]), lo, 0)
	h, _ := bits.Add64(uint64(w[1]), hi, c)
	w[0], w[1] = int64(l), int64(h)
}

// sub128 is a-b modulo 2^128.
func sub128(a, b []int64) uint192 {
	l, c := bits.Sub64(uint64(a[0]), uint64(b[0]), 0)
	h, _ := bits.Sub64(uint64(a[1]), uint64(b[1]), c)
	return uint192{l, h, 0}
}

// fits tells whether n numbers of at most that magnitude, and one more, sum up inside 63 bits.
func fits(bound uint64, n int) bool {
	over, size := bits.Mul64(uint64(n+1), bound)
	return over == 0 && size <= math.MaxInt64
}

// spread is n*S2 - S1*S1, the numerator of a variance, as the nearest float64.
func spread(n int64, s1 wide, s2 uint192) float64 {
	hi, lo := s1.abs()
	if s2[1]|s2[2]|hi == 0 {
		ah, al := bits.Mul64(uint64(n), s2[0])
		bh, bl := bits.Mul64(lo, lo)
		l, c := bits.Sub64(al, bl, 0)
		h, _ := bits.Sub64(ah, bh, c)
		if h == 0 {
			return float64(l)
		}
		return floatOf([4]uint64{l, h})
	}
	a, b, x := new(big.Int), new(big.Int), new(big.Int)
	for i := 2; i >= 0; i-- {
		a.Lsh(a, 64).Add(a, x.SetUint64(s2[i]))
	}
	a.Mul(a, x.SetInt64(n))
	b.SetUint64(hi)
	b.Lsh(b, 64).Add(b, x.SetUint64(lo))
	a.Sub(a, b.Mul(b, b))
	f, _ := new(big.Float).SetInt(a).Float64()
	return f
}

// ordered64 is a float64 as a whole number that compares as it does, -0 below 0. floating64 is the way back.
func ordered64(f float64) int64 {
	b := int64(math.Float64bits(f))
	return b ^ (b>>63)&math.MaxInt64
}

func floating64(v int64) float64 {
	return math.Float64frombits(uint64(v ^ (v>>63)&math.MaxInt64))
}
