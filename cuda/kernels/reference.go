package kernels

import "math"

// The arithmetic of common.cuh in plain Go, for the checks. Conversions stand where Go could fuse a product with a sum.

// fma32 is x*y + z rounded once to float32. The product is exact in float64; where the sum there was rounded, to an even
// last bit, it is moved towards the exact one, and rounding that to float32 gives what one rounding gives (rounding to
// odd, Boldo & Melquiond 2008).
func fma32(x, y, z float32) float32 {
	p, c := float64(x)*float64(y), float64(z)
	s := p + c
	u := math.Float64bits(s)
	// The two roundings differ from one only where the float64 sum lies halfway between two float32, by its low 29 bits,
	// or below float32's normal range, which has fewer bits.
	const smallest = (1023 - 126) << 52
	if u<<35 != 1<<63 && u<<1 >= 2*smallest {
		return float32(s)
	}
	b := s - p
	err := (p - (s - b)) + (c - b) // exact: Knuth's two-sum
	if (err > 0 || err < 0) && u&1 == 0 {
		if (err > 0) == (s > 0) {
			u++
		} else {
			u--
		}
	}
	return float32(math.Float64frombits(u))
}

func refExpOfMinus(c float32) float32 {
	k := fma32(c, -0x1.715476p0, 0x1.8p23)
	n := k - 0x1.8p23
	r := fma32(n, -0x1.05c61p-29, fma32(n, 0x1.62e43p-1, c))
	q := fma32(0x1.6a23dp-10, r, -0x1.123a2p-7)
	q = fma32(q, r, 0x1.5558f2p-5)
	q = fma32(q, r, -0x1.555492p-3)
	q = fma32(q, r, 0x1.fffffcp-2)
	p := fma32(float32(r*r), q, -r) + 1
	return p * math.Float32frombits(math.Float32bits(k)<<23+127<<23)
}

// clamp holds z to -87..87; NaN stays.
func clamp(z float32) (low, c float32) {
	low = z
	if low < -87 {
		low = -87
	}
	c = low
	if c > 87 {
		c = 87
	}
	return low, c
}

func refSilu(z float32) float32 {
	low, c := clamp(z)
	return low / (1 + refExpOfMinus(c))
}

func refSiluGrad(dy, z float32) float32 {
	_, c := clamp(z)
	e := refExpOfMinus(c)
	s := 1 / (1 + e)
	return dy * float32(s*fma32(c, float32(e*s), 1))
}

func refActivate(a Act, z float32) float32 {
	switch {
	case a == Silu:
		return refSilu(z)
	case a == Relu && z < 0:
		return 0
	}
	return z
}

func refActGrad(a Act, dy, of float32) float32 {
	switch {
	case a == Silu:
		return refSiluGrad(dy, of)
	case a == Relu && !(of > 0):
		return 0
	}
	return dy
}

// refDrop is dropout of a whole output in step.
func refDrop(o Oracle, d Drop, step uint32, y []float32) {
	if d.Rate == 0 {
		return
	}
	key := [2]uint32{uint32(d.Seed), uint32(d.Seed >> 32)}
	var words [4]uint32
	for i := range y {
		if i%4 == 0 {
			block := uint64(i / 4)
			words = o.Philox(key, [4]uint32{uint32(block), uint32(block >> 32), step, d.Site})
		}
		if u := float32(words[i%4]>>8) * 0x1p-24; u >= d.Rate {
			y[i] /= 1 - d.Rate
		} else {
			y[i] = 0
		}
	}
}

// refLaneSum is the order of the loss's sum: element i to lane i%16, then lane l takes l+8, l+4, l+2, l+1.
func refLaneSum(x []float32) float32 {
	var lane [16]float32
	for i, v := range x {
		lane[i%16] += v
	}
	for half := 8; half > 0; half /= 2 {
		for l := range half {
			lane[l] += lane[l+half]
		}
	}
	return lane[0]
}

func refLog1p(e float32) float32 {
	s := e / (2 + e)
	w := s * s
	q := fma32(w, 1.0/15, 1.0/13)
	for _, c := range []float32{1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3} {
		q = fma32(q, w, c)
	}
	t := s + s
	return fma32(float32(t*w), q, t)
}

// refExpOfMinusSize is exp(-|z|), not below exp(-87).
func refExpOfMinusSize(z float32) float32 {
	if z < 0 {
		z = -z
	}
	_, c := clamp(z)
	return refExpOfMinus(c)
}

func refBCETerm(z, t, w float32) float32 {
	head := float32(0)
	if z > 0 {
		head = z
	}
	head -= float32(z * t)
	return w * (head + refLog1p(refExpOfMinusSize(z)))
}

func refBCEGrad(z, t, w, dloss float32, m int) float32 {
	e := refExpOfMinusSize(z)
	s, rest := e/(1+e), 1/(1+e)
	if z >= 0 {
		s, rest = rest, s
	}
	g := float32((1-t)*s) - float32(t*rest)
	return float32(float32(dloss*w)*g) / float32(m)
}
