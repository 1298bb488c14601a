package kernels

import (
	"math"
	"slices"
)

// refExpBelow is exp_below of softmax.cu.
func refExpBelow(z float32) float32 {
	if z > 87 {
		return 0
	}
	return refExpOfMinus(z)
}

// refLogOf is log_of of softmax.cu.
func refLogOf(s float32) float32 {
	if !(s >= 1) {
		return s
	}
	bits := math.Float32bits(s) - 0x3F3504F3
	e := float32(bits >> 23)
	f := math.Float32frombits(bits&0x7FFFFF + 0x3F3504F3)
	t := (f - 1) / (f + 1)
	w := t * t
	q := fma32(w, 1.0/11, 1.0/9)
	for _, c := range []float32{1.0 / 7, 1.0 / 5, 1.0 / 3} {
		q = fma32(q, w, c)
	}
	twice := t + t
	return fma32(e, 0x1.62e43p-1, fma32(e, -0x1.05c61p-29, fma32(float32(twice*w), q, twice)))
}

// softmaxHost is the operands of a sampled softmax.
type softmaxHost struct {
	pos, neg, pi, ni, logq, w []float32
	m, k, n                   int
}

// row is the exponentials of row i's negatives, their sum and that of all, the greatest logit and the positive's;
// false where the row has no positive.
func (h *softmaxHost) row(i int) (e []float32, sum, all, largest, a float32, some bool) {
	at := refIndex(h.pi[i], h.n)
	if at < 0 {
		return nil, 0, 0, 0, 0, false
	}
	a = h.pos[i] - h.logq[at]
	largest = a
	e = make([]float32, h.k)
	for j := range e {
		b := float32(math.Inf(1))
		if n := refIndex(h.ni[j], h.n); n >= 0 {
			b = h.logq[n]
		}
		b = h.neg[i*h.k+j] - b
		if h.ni[j] == h.pi[i] {
			b = float32(math.Inf(-1))
		}
		if b > largest {
			largest = b
		}
		e[j] = b
	}
	for j, b := range e {
		e[j] = refExpBelow(largest - b)
	}
	sum = refLaneSum(e)
	return e, sum, sum + refExpBelow(largest-a), largest, a, true
}

func (h *softmaxHost) loss() float32 {
	terms := make([]float32, h.m)
	for i := range terms {
		if _, _, all, largest, a, some := h.row(i); some {
			terms[i] = h.w[i] * (refLogOf(all) + float32(largest-a))
		}
	}
	return refLaneSum(terms) / float32(h.m)
}

func (h *softmaxHost) grad(dloss float32) (dpos, dneg []float32) {
	dpos, dneg = make([]float32, h.m), make([]float32, h.m*h.k)
	c := dloss / float32(h.m)
	for i := range dpos {
		e, sum, all, _, _, some := h.row(i)
		if !some {
			continue
		}
		g := float32(c*h.w[i]) / all
		dpos[i] = -float32(g * sum)
		for j, x := range e {
			dneg[i*h.k+j] = g * x
		}
	}
	return dpos, dneg
}

func (c *checker) checkSoftmax() {
	const losses = "softmax_terms, lane_sum"
	for i, k := range append(slices.Clone(c.lengths()), 1024, 1025) {
		for _, m := range []int{1, 7, 8, 33} {
			if m*k > 1<<16 {
				continue
			}
			h := &softmaxHost{m: m, k: k, n: []int{1, 5, 3000}[i%3], w: c.values(m)}
			h.pos, h.neg, h.logq = c.values(m), c.values(m*k), c.values(h.n)
			h.pi, h.ni = c.indices(m, h.n, i%2 == 1), c.indices(k, h.n, i%2 == 1)
			for j := range h.neg {
				h.neg[j] *= []float32{1, 8, 60}[i%3]
			}
			variant := "finite"
			if i%4 == 3 {
				variant = "NaN and infinities"
				c.spoil(h.neg)
				c.spoil(h.pos)
			}
			o := SampledSoftmax{
				M:    m,
				K:    k,
				N:    h.n,
				Pos:  put(c, h.pos, 0),
				Neg:  put(c, h.neg, 0),
				PI:   put(c, h.pi, 0),
				NI:   put(c, h.ni, 0),
				LogQ: put(c, h.logq, 0),
				W:    put(c, h.w, 0),
			}
			if c.wants(losses) {
				o.Loss, o.Terms = c.alloc(4), c.alloc(4*m)
				c.do(&o)
				c.same32(losses, variant, o.Kernel(), get[float32](c, o.Kernel(), o.Loss, 1), []float32{h.loss()}, 0)
			}
			if c.wants("softmax_grad") {
				g := &SampledSoftmaxGrad{
					SampledSoftmax: o,
					DLoss:          put(c, []float32{-1.25}, 0),
					DPos:           c.alloc(4 * m),
					DNeg:           c.alloc(4 * m * k),
				}
				c.do(g)
				dpos, dneg := h.grad(-1.25)
				c.same32("softmax_grad", variant, g.Kernel()+" dpos", get[float32](c, g.Kernel()+" dpos", g.DPos, m), dpos, 0)
				c.same32("softmax_grad", variant, g.Kernel()+" dneg", get[float32](c, g.Kernel()+" dneg", g.DNeg, m*k), dneg, 0)
			}
			c.release()
		}
	}
}

func (c *checker) checkPinball() {
	const losses = "pinball_rows, lane_sum"
	levels := []float32{.01, .05, .1, .25, .5, .6, .75, .8, .9, .95, .975, .99, .995, .996, .997, .999}
	for i, m := range c.lengths() {
		for _, s := range []struct{ h, q int }{{1, 1}, {7, 9}, {28, 5}, {3, 16}, {1, 3}} {
			n := m * s.h * s.q
			if n > 1<<17 {
				continue
			}
			y, t, w := c.values(n), c.values(m*s.h), c.values(m*s.h)
			variant := "finite"
			if i%3 == 2 {
				variant = "NaN and infinities"
				c.spoil(y)
				c.spoil(t)
			}
			for j := range t {
				if c.next()%8 == 0 {
					y[j*s.q] = t[j] // on the mark
				}
				if c.next()%8 == 0 {
					w[j], t[j] = 0, float32(math.NaN()) // masked
				}
			}
			o := Pinball{
				M:      m,
				H:      s.h,
				Levels: levels[:s.q],
				Y:      put(c, y, 0),
				T:      put(c, t, 0),
				W:      put(c, w, 0),
				Table:  c.alloc(4 * s.q),
			}
			if c.wants(losses) {
				o.Loss, o.Sums = c.alloc(4), c.alloc(4*m)
				c.do(&o)
				c.same32(
					losses,
					variant,
					o.Kernel(),
					get[float32](c, o.Kernel(), o.Loss, 1),
					[]float32{refPinball(y, t, w, levels[:s.q], m)},
					0,
				)
			}
			if c.wants("pinball_grad") {
				g := &PinballGrad{Pinball: o, DLoss: put(c, []float32{-1.25}, 0), DY: c.alloc(4 * n)}
				c.do(g)
				c.same32(
					"pinball_grad",
					variant,
					g.Kernel(),
					get[float32](c, g.Kernel(), g.DY, n),
					refPinballGrad(y, t, w, levels[:s.q], -1.25),
					0,
				)
			}
			c.release()
		}
	}
}

func refPinball(y, t, w, levels []float32, m int) float32 {
	sums, n := make([]float32, m), len(y)/m
	for i := range sums {
		terms := make([]float32, n)
		for j := range terms {
			at := (i*n + j) / len(levels)
			if u, v := t[at]-y[i*n+j], levels[j%len(levels)]; w[at] != 0 {
				terms[j] = w[at] * max(float32(v*u), float32((v-1)*u))
			}
		}
		sums[i] = refLaneSum(terms)
	}
	return refLaneSum(sums) / float32(len(y))
}

func refPinballGrad(y, t, w, levels []float32, dloss float32) []float32 {
	dy, c := make([]float32, len(y)), dloss/float32(len(y))
	for i := range dy {
		at, v := i/len(levels), levels[i%len(levels)]
		switch u := t[at] - y[i]; {
		case w[at] == 0:
		case u > 0:
			dy[i] = -v * float32(c*w[at])
		case u < 0:
			dy[i] = (1 - v) * float32(c*w[at])
		}
	}
	return dy
}

// timeLosses measures at sizes of a recommender, 1,024 rows and as many negatives, and of a forecaster, 4,096 series
// of 28 days at 9 levels.
func (c *checker) timeLosses() {
	const m, k, n = 1024, 1024, 100_000
	softmax := func() SampledSoftmax {
		return SampledSoftmax{
			M:     m,
			K:     k,
			N:     n,
			Pos:   c.space(m),
			Neg:   c.space(m * k),
			PI:    c.space(m),
			NI:    put(c, c.indices(k, n, false), 0),
			LogQ:  c.space(n),
			W:     c.space(m),
			Loss:  c.space(1),
			Terms: c.space(m),
		}
	}
	if c.wants("softmax_terms") {
		o := softmax()
		c.timeOp("softmax_terms", &o)
	}
	if c.wants("softmax_grad") {
		c.timeOp(
			"softmax_grad",
			&SampledSoftmaxGrad{SampledSoftmax: softmax(), DLoss: c.space(1), DPos: c.space(m), DNeg: c.space(m * k)},
		)
	}
	levels := []float32{.05, .1, .25, .4, .5, .6, .75, .9, .95}
	const series, days = 4096, 28
	pinball := func() Pinball {
		elements := series * days * len(levels)
		return Pinball{
			M:      series,
			H:      days,
			Levels: levels,
			Y:      c.space(elements),
			T:      c.space(series * days),
			W:      c.space(series * days),
			Table:  c.alloc(4 * len(levels)),
			Loss:   c.space(1),
			Sums:   c.space(series),
		}
	}
	if c.wants("pinball_rows") {
		o := pinball()
		c.timeOp("pinball_rows", &o)
	}
	if c.wants("pinball_grad") {
		c.timeOp(
			"pinball_grad",
			&PinballGrad{Pinball: pinball(), DLoss: c.space(1), DY: c.space(series * days * len(levels))},
		)
	}
}
