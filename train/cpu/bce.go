package cpu

import (
	"math"

	"github.com/onmart/onmart/train/program"
)

// BCE and its gradient, in float32 with the exponential of silu.go. The vector code does the same roundings in the same
// order.
//
// With c = |z|, at most siluBound, and e = exp(-c): log(1+e) is 2 atanh(s) = 2 (s + s q P(q)) with s = e / (2+e) and
// q = s s, at most 1/9; P of degree 3 by Lawson's iteration, whose own error is 2e-9. A term is within 3 units in the
// last place of float32 of w (1+|z|), its gradient within 6 of its own of w (sigmoid(z) - t) dloss/m where t is 0 or 1,
// for |z| up to siluBound: see TestBCEIsWithin.
const (
	bceP0 = 0x1.5554dp-2
	bceP1 = 0x1.99e3c6p-3
	bceP2 = 0x1.1dc35ap-3
	bceP3 = 0x1.231d5cp-3
)

// bcePortable: terms[i] = w[i] (max(z,0) - z t + log(1 + exp(-|z|))).
func bcePortable(terms, z, t, w []float32) {
	z, t, w = z[:len(terms)], t[:len(terms)], w[:len(terms)]
	for i, z := range z {
		_, _, e := siluExp(abs32(z))
		s := e / (2 + e)
		q := float32(s * s)
		p := madd(bceP3, q, bceP2)
		p = madd(p, q, bceP1)
		p = madd(p, q, bceP0)
		log := madd(float32(s*q), p, s)
		top := z
		if top < 0 {
			top = 0
		}
		terms[i] = float32(w[i] * (fma32(-z, t[i], top) + (log + log)))
	}
}

// bceGradPortable: dz[i] = c w[i] (sigmoid(z[i]) - t[i]). The difference is a quotient with 1+e, whose numerator does
// not cancel for t of 0 or 1.
func bceGradPortable(dz, z, t, w []float32, c float32) {
	z, t, w = z[:len(dz)], t[:len(dz)], w[:len(dz)]
	for i, z := range z {
		_, _, e := siluExp(abs32(z))
		a := 1 - t[i]
		n := fma32(-t[i], e, a)
		if z < 0 {
			n = fma32(a, e, -t[i])
		}
		dz[i] = float32(float32(c*w[i]) * (n / (1 + e)))
	}
}

// abs32 is |x|; NaN stays.
func abs32(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// bce is two steps: the terms by row, then their sum by one worker.
func (l lowering) bce() {
	z, t, wt, loss := l.arg(0), l.arg(1), l.arg(2), l.out(0)
	terms, place, written := l.scratch(l.buf(l.in.Args[0]).Shape[0], 4)
	l.emitRows(l.in.Args[0], func(w *worker, lo, hi int) {
		w.kernels.bce(terms[lo+w.base:hi+w.base], z[lo:hi], t[lo:hi], wt[lo:hi])
	}, l.rows(l.in.Args[0], false), l.rows(l.in.Args[1], false), l.rows(l.in.Args[2], false), written)
	l.emit(alone, func(*worker, int, int) {
		loss[0] = program.LaneSum(terms) / float32(len(terms))
	}, place, l.whole(l.in.Outs[0], true))
}

func (l lowering) bceGrad() {
	z, t, wt, dloss, dz := l.arg(0), l.arg(1), l.arg(2), l.arg(3), l.out(0)
	rows := float32(l.buf(l.in.Args[0]).Shape[0])
	known, constant := l.constant(l.in.Args[3])
	touches := []access{l.rows(l.in.Args[0], false), l.rows(l.in.Args[1], false), l.rows(l.in.Args[2], false),
		l.rows(l.in.Outs[0], true)}
	if !constant {
		touches = append(touches, l.whole(l.in.Args[3], false))
	}
	l.emitRows(l.in.Args[0], func(w *worker, lo, hi int) {
		scale := known
		if !constant {
			scale = dloss[0]
		}
		w.kernels.bceGrad(dz[lo:hi], z[lo:hi], t[lo:hi], wt[lo:hi], scale/rows)
	}, touches...)
}
