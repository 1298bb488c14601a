package cpu

import (
	"math"

	"github.com/onmart/onmart/train/program"
)

// The operations of optimizers. An update is a kernel over equally long slices of a parameter, of its state and of its
// gradient: whoever divides the work may cut them anywhere.

// update is one step of an optimizer over slices as long as g: s and s2 are the state, nil where there is less of it.
type update func(p, s, s2, g []float32, c *adamCoef)

// optimKernels are the inner loops of optimizers, with the arithmetic of the portable ones.
type optimKernels struct {
	// adamw, adam, sgd, momentum, nesterov and adagrad are program's operations of those names.
	adamw, adam, sgd, momentum, nesterov, adagrad update
	// sumSquares is the sum of the squares of x in LaneSum's order.
	sumSquares func(x []float32) float32
	// average: avg[i] += rate (p[i] - avg[i]).
	average func(avg, p []float32, rate float32)
}

// adamCoef are the numbers of one step of an optimizer, in the order that the assembly reads them.
type adamCoef struct {
	b1, ob1, b2, ob2 float32 // b1, 1-b1, b2, 1-b2
	c1, c2           float32 // 1 / (1-b1^t), 1 / (1-b2^t)
	lr, eps, decay   float32
	factor           float32 // of the gradient: what clipping makes of it
	momentum         float32
}

// newAdamCoef rounds each coefficient to float32 once; step counts from 0. The factor is 1.
func newAdamCoef(at *program.Attr, step uint32, rate float32) adamCoef {
	t := float64(step) + 1
	return adamCoef{
		b1: float32(at.Beta1), ob1: float32(1 - at.Beta1), b2: float32(at.Beta2), ob2: float32(1 - at.Beta2),
		c1: float32(1 / (1 - math.Pow(at.Beta1, t))), c2: float32(1 / (1 - math.Pow(at.Beta2, t))),
		lr: rate, eps: float32(at.Eps), decay: float32(at.Decay), factor: 1, momentum: float32(at.Momentum),
	}
}

// updateOf is the kernel of an update.
func (k *kernels) updateOf(in *program.Instr) update {
	switch in.Op {
	case program.AdamW:
		return k.adamw
	case program.Adam:
		return k.adam
	case program.SGD:
		return k.sgd
	case program.Momentum:
		if in.Attr.Nesterov {
			return k.nesterov
		}
		return k.momentum
	case program.Adagrad:
		return k.adagrad
	}
	panic("cpu: no update " + string(in.Op))
}

// elementUpdate is one pass over a parameter.
func (l lowering) elementUpdate() {
	at, run := l.in.Attr, l.kernels.updateOf(l.in)
	g, p := l.arg(0), l.out(0)
	var state [2][]float32
	for k := range l.in.Outs[1:] {
		state[k] = l.out(k + 1)
	}
	var factor []float32
	var reads []access
	if f := l.in.Factor(); f >= 0 {
		factor, reads = l.mem[f].f32, append(reads, l.whole(f, false))
	}
	l.alike(l.in.Args[0], reads, func(w *worker, lo, hi int) {
		run(p[lo:hi], part(state[0], lo, hi), part(state[1], lo, hi), g[lo:hi], w.adamCoef(&at, factor))
	})
}

// alike emits a step over the elements of the outputs and of an argument, all of one shape, which are divided as
// whoever sums up the gradient divides them; reads is what it reads whole.
func (l lowering) alike(arg int, reads []access, run func(w *worker, lo, hi int)) {
	out := l.in.Outs[0]
	division, by, unit := l.outputs(out)
	touches := append(reads, l.units(arg, unit, false))
	for _, o := range l.in.Outs {
		touches = append(touches, l.units(o, unit, true))
	}
	total, n := l.buf(out).Len(), l.width(out)
	l.emit(division, func(w *worker, lo, hi int) {
		switch by {
		case byElements:
			run(w, lo, hi)
		case byRows:
			run(w, lo*n, hi*n)
		case byColumns:
			for ; lo < total; lo, hi = lo+n, hi+n {
				run(w, lo, hi)
			}
		}
	}, touches...)
}

// adamKey is what the coefficients of an update are made of.
type adamKey struct {
	beta1, beta2, eps, decay, momentum float64
	step                               uint32
	rate                               float32
	made                               bool
}

// adamCoef are the coefficients of this step, which are computed once a step where all weights have the same; factor is
// what ClipFactor left, nil where there is none.
func (w *worker) adamCoef(at *program.Attr, factor []float32) *adamCoef {
	if key := (adamKey{at.Beta1, at.Beta2, at.Eps, at.Decay, at.Momentum, w.step, w.rate, true}); w.adamOf != key {
		w.adamOf, w.adam = key, newAdamCoef(at, w.step, w.rate)
	}
	w.adam.factor = 1
	if factor != nil {
		w.adam.factor = factor[0]
	}
	return &w.adam
}

// part is x[lo:hi], or nil of nil.
func part(x []float32, lo, hi int) []float32 {
	if x == nil {
		return nil
	}
	return x[lo:hi]
}

// sumSquares is two steps, the blocks and then their sum by one worker; a small tensor is one block.
func (l lowering) sumSquares() {
	x, s := l.arg(0), l.out(0)
	blocks := ceilDiv(len(x), program.SquareBlock)
	sums, place, written := l.scratch(blocks, 4)
	l.emit(partition{units: blocks, quantum: 1}, func(w *worker, lo, hi int) {
		for b := lo; b < hi; b++ {
			sums[b] = w.kernels.sumSquares(x[b*program.SquareBlock : min((b+1)*program.SquareBlock, len(x))])
		}
	}, l.units(l.in.Args[0], 4*program.SquareBlock, false), written)
	l.emit(alone, func(*worker, int, int) { s[0] = sum64(sums) }, place, l.whole(l.in.Outs[0], true))
}

// sum64 adds in float64, in order, and rounds.
func sum64(x []float32) float32 {
	var sum float64
	for _, v := range x {
		sum += float64(v)
	}
	return float32(sum)
}

// rowSumSquares puts the sum of the squares of a row's gradient where its first entry is, and 0 at its others; then one
// worker adds them up.
func (l lowering) rowSumSquares() {
	es, touches := l.sorted(l.in.Args[0])
	out, d := l.out(0), es.d
	sums, place, written := l.scratch(len(es.list), 0)
	l.emit(partition{units: maxThreads, quantum: 1}, func(w *worker, _, _ int) {
		es.take(w.id, func(spans []span) {
			clear(sums[spans[0].at:spans[len(spans)-1].at])
			es.groups(w, spans, nil, nil, func(spans []span, g []float32) {
				for k, s := range spans {
					sums[s.at] = w.kernels.sumSquares(g[k*d : (k+1)*d])
				}
			})
		})
	}, append(touches, written)...)
	l.emit(alone, func(*worker, int, int) { out[0] = sum64(sums[:es.starts[es.buckets]]) },
		append(touches, place, l.whole(l.in.Outs[0], true))...)
}

func (l lowering) clipFactor() {
	out, limit := l.out(0), l.in.Attr.Limit
	var parts [][]float32
	touches := []access{l.whole(l.in.Outs[0], true)}
	for k, a := range l.in.Args {
		parts = append(parts, l.arg(k))
		touches = append(touches, l.whole(a, false))
	}
	l.emit(alone, func(*worker, int, int) {
		var sum float64
		for _, s := range parts {
			sum += float64(s[0])
		}
		out[0] = 1
		if norm := math.Sqrt(sum); norm > limit {
			out[0] = float32(limit / norm)
		}
	}, touches...)
}

func (l lowering) average() {
	p, avg, decay := l.arg(0), l.out(0), l.in.Attr.Decay
	l.alike(l.in.Args[0], nil, func(w *worker, lo, hi int) {
		w.kernels.average(avg[lo:hi], p[lo:hi], program.AverageRate(decay, int(w.step)+1))
	})
}

func portableOptim() optimKernels {
	return optimKernels{
		adamw: adamwPortable, adam: adamPortable, sgd: sgdPortable, momentum: momentumPortable, nesterov: nesterovPortable,
		adagrad: adagradDecayedPortable, sumSquares: sumSquaresPortable, average: averagePortable,
	}
}

// adamwPortable is AdamW as documented: every product, sum, quotient and root rounded to float32 in the order
// written here, none fused (the conversions forbid it), with the corrections of the means as factors.
func adamwPortable(p, m, v, g []float32, c *adamCoef) {
	p, m, v = p[:len(g)], m[:len(g)], v[:len(g)]
	for i, g := range g {
		g = float32(g * c.factor)
		m1 := float32(c.b1*m[i]) + float32(c.ob1*g)
		v1 := float32(c.b2*v[i]) + float32(c.ob2*float32(g*g))
		root := sqrt32(float32(v1 * c.c2))
		step := float32(float32(m1*c.c1)/float32(root+c.eps)) + float32(c.decay*p[i])
		m[i], v[i], p[i] = m1, v1, p[i]-float32(c.lr*step)
	}
}

// coupled is the gradient with the decay of the weight in it.
func (c *adamCoef) coupled(g, p float32) float32 { return float32(g*c.factor) + float32(c.decay*p) }

func adamPortable(p, m, v, g []float32, c *adamCoef) {
	p, m, v = p[:len(g)], m[:len(g)], v[:len(g)]
	for i, g := range g {
		g = c.coupled(g, p[i])
		m1 := float32(c.b1*m[i]) + float32(c.ob1*g)
		v1 := float32(c.b2*v[i]) + float32(c.ob2*float32(g*g))
		root := sqrt32(float32(v1 * c.c2))
		step := float32(float32(m1*c.c1) / float32(root+c.eps))
		m[i], v[i], p[i] = m1, v1, p[i]-float32(c.lr*step)
	}
}

func sgdPortable(p, _, _, g []float32, c *adamCoef) {
	p = p[:len(g)]
	for i, g := range g {
		p[i] -= float32(c.lr * c.coupled(g, p[i]))
	}
}

func momentumPortable(p, u, _, g []float32, c *adamCoef) {
	p, u = p[:len(g)], u[:len(g)]
	for i, g := range g {
		u[i] = float32(c.momentum*u[i]) + c.coupled(g, p[i])
		p[i] -= float32(c.lr * u[i])
	}
}

func nesterovPortable(p, u, _, g []float32, c *adamCoef) {
	p, u = p[:len(g)], u[:len(g)]
	for i, g := range g {
		g = c.coupled(g, p[i])
		u[i] = float32(c.momentum*u[i]) + g
		p[i] -= float32(c.lr * (g + float32(c.momentum*u[i])))
	}
}

func adagradDecayedPortable(p, s, _, g []float32, c *adamCoef) {
	p, s = p[:len(g)], s[:len(g)]
	for i, g := range g {
		g = c.coupled(g, p[i])
		s[i] += float32(g * g)
		p[i] -= float32(c.lr * float32(g/float32(sqrt32(s[i])+c.eps)))
	}
}

func sumSquaresPortable(x []float32) float32 {
	var sums lanes
	for i, v := range x {
		sums[i%len(sums)] += float32(v * v)
	}
	return sums.sum()
}

func averagePortable(avg, p []float32, rate float32) {
	p = p[:len(avg)]
	for i, a := range avg {
		avg[i] = a + float32(rate*float32(p[i]-a))
	}
}
