package features

import (
	"math"
	"math/big"
	"math/bits"
)

// wide is a sum of 64-bit whole numbers in 128 bits: it cannot leave them.
type wide struct {
	hi int64
	lo uint64
}

func (s *wide) add(v int64) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, uint64(v), 0)
	s.hi += v>>63 + int64(carry)
}

// over is the sum divided by n * 10^scale, rounded once where the sum fits 53 bits.
func (s *wide) over(n int64, scale int) float64 {
	den := float64(n)
	if scale != 0 {
		den *= math.Pow10(scale)
	}
	if s.hi == int64(s.lo)>>63 {
		if den == 1 {
			return float64(int64(s.lo))
		}
		return float64(int64(s.lo)) / den
	}
	x := new(big.Int).Lsh(big.NewInt(s.hi), 64)
	x.Add(x, new(big.Int).SetUint64(s.lo))
	f, _ := new(big.Float).SetInt(x).Float64()
	return f / den
}
