package program

import (
	"math"
	"math/bits"
)

// Philox is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a
// pure function of key and counter, so the same numbers come out on any device, in any order, and
// after a resume.
func Philox(key [2]uint32, ctr [4]uint32) [4]uint32 {
	const m0, m1, w0, w1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
	for range 10 {
		hi0, lo0 := bits.Mul32(m0, ctr[0])
		hi1, lo1 := bits.Mul32(m1, ctr[2])
		ctr = [4]uint32{hi1 ^ ctr[1] ^ key[0], lo1, hi0 ^ ctr[3] ^ key[1], lo0}
		key[0] += w0
		key[1] += w1
	}
	return ctr
}

// Counter word 3 separates the uses of one seed: sites of a graph count up from 0, the rest from the top.
const (
	sitePermutation = 0xFFFFFFFF
	siteInit        = 0xFFFFFFFE
)

func key(seed uint64) [2]uint32 { return [2]uint32{uint32(seed), uint32(seed >> 32)} }

// Uniforms4 returns the uniforms in [0,1) of elements 4*block .. 4*block+3 at a site of a graph in an
// optimizer step (counted over the whole training). 24 bits each, exact in float32.
func Uniforms4(seed uint64, step uint32, site uint32, block uint64) [4]float32 {
	r := Philox(key(seed), [4]uint32{uint32(block), uint32(block >> 32), step, site})
	var u [4]float32
	for i, x := range r {
		u[i] = float32(x>>8) * 0x1p-24
	}
	return u
}

// Permutation is the order in which an epoch visits n rows: a bijection on [0,n) computed one index at
// a time, without storage, so a GPU needs no table either. It is the generalised Feistel network of
// Black & Rogaway ("Ciphers with arbitrary finite domains", CT-RSA 2002) on the smallest near-square
// a x b grid that holds n, with Philox as the round function; an index that leaves the range walks its
// cycle until it is back, fewer than one walk in sqrt(n) indices.
type Permutation struct {
	n, a, b uint32
	key     [2]uint32
	epoch   uint32
}

// NewPermutation is the shuffle of n < 2^31 rows in an epoch under a seed.
func NewPermutation(seed uint64, epoch uint32, n int) Permutation {
	a := uint32(math.Ceil(math.Sqrt(float64(n))))
	if a == 0 {
		a = 1
	}
	return Permutation{n: uint32(n), a: a, b: (uint32(n) + a - 1) / a, key: key(seed), epoch: epoch}
}

// At returns the i-th row to visit, 0 <= i < n.
func (p Permutation) At(i int) int {
	x := uint32(i)
	for {
		l, r := x/p.b, x%p.b
		for round := uint32(0); round < 4; round += 2 {
			l = addMod(l, p.round(r, round), p.a)
			r = addMod(r, p.round(l, round+1), p.b)
		}
		if x = l*p.b + r; x < p.n {
			return int(x)
		}
	}
}

// Feistel are the numbers of a Permutation, for a backend that computes many indices at a time: index x of N
// is split into L = x / B and R = x % B; rounds 0 and 2 add to L modulo A, rounds 1 and 3 to R modulo B, what
// Philox(Key, {other half, round, Epoch, Site})[0] gives, scaled down by a multiplication; L*B + R is
// the image, and where it is N or more, At must be asked.
type Feistel struct {
	N, A, B, Epoch, Site uint32
	Key                  [2]uint32
}

// Feistel returns the numbers of p.
func (p Permutation) Feistel() Feistel {
	return Feistel{N: p.n, A: p.a, B: p.b, Epoch: p.epoch, Site: sitePermutation, Key: p.key}
}

func (p *Permutation) round(half, round uint32) uint32 {
	return Philox(p.key, [4]uint32{half, round, p.epoch, sitePermutation})[0]
}

// addMod is (x + f scaled down to [0,m)) mod m.
func addMod(x, f, m uint32) uint32 {
	x += uint32(uint64(f) * uint64(m) >> 32)
	if x >= m {
		x -= m
	}
	return x
}
