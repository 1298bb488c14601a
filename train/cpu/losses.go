package cpu

import (
	"math"

	"github.com/onmart/onmart/train/program"
)

// SampledSoftmax and Pinball with their gradients.

// lanes are the virtual lanes of program.LaneSum.
type lanes [program.Lanes]float32

// sum is what LaneSum makes of elements that were added to the lanes in its order.
func (l *lanes) sum() float32 { return program.LaneSum(l[:]) }

// softmax is the operands that SampledSoftmax and its gradient share. lq are the corrections of the negatives, +Inf
// for one that is none, which makes its logit -Inf and its exponential 0.
type softmax struct {
	pos, neg, pi, ni, logq, w, lq []float32
	m, k                          int
}

// softmax resolves the operands and emits the step that looks the corrections up.
func (l lowering) softmax() (s softmax, touches []access) {
	a := l.in.Args
	s = softmax{pos: l.arg(0), neg: l.arg(1), pi: l.arg(2), ni: l.arg(3), logq: l.arg(4), w: l.arg(5),
		m: l.buf(a[1]).Shape[0], k: l.width(a[1])}
	lq, place, written := l.scratch(s.k, 4)
	s.lq = lq
	ni, logq := s.ni, s.logq
	l.emit(byElement(s.k), func(_ *worker, lo, hi int) {
		for j := lo; j < hi; j++ {
			lq[j] = float32(math.Inf(1))
			if at := indexOf(ni[j], len(logq)); at >= 0 {
				lq[j] = logq[at]
			}
		}
	}, l.units(a[3], 4, false), l.whole(a[4], false), written)
	l.machine.macs += expMacs * s.m * s.k
	l.machine.pack = max(l.pack, s.k)
	return s, []access{l.rows(a[0], false), l.rows(a[1], false), l.rows(a[2], false), l.whole(a[3], false),
		l.whole(a[4], false), l.rows(a[5], false), place}
}

// row computes row i: the positive's logit a, the largest logit, the exponentials of the negatives in e, their sum n,
// and the sum of all, s. It is false where the row has no positive.
func (f *softmax) row(k *kernels, i int, e []float32) (a, largest, n, s float32, ok bool) {
	at := indexOf(f.pi[i], len(f.logq))
	if at < 0 {
		return 0, 0, 0, 0, false
	}
	a = f.pos[i] - f.logq[at]
	largest = k.softmaxLogits(e, f.neg[i*f.k:(i+1)*f.k], f.lq, f.ni, f.pi[i], a)
	var sums lanes
	k.softmaxExp(&sums, e, largest)
	_, _, x := siluExp(largest - a)
	if largest-a > siluBound {
		x = 0
	}
	n = sums.sum()
	return a, largest, n, n + x, true
}

func (l lowering) sampledSoftmax() {
	f, touches := l.softmax()
	terms, place, written := l.scratch(f.m, 4)
	loss := l.out(0)
	l.emitRows(l.in.Args[1], func(w *worker, lo, hi int) {
		for i := lo; i < hi; i++ {
			terms[i+w.base] = 0
			if a, largest, _, s, ok := f.row(w.kernels, i, w.pack[:f.k]); ok {
				terms[i+w.base] = float32(float64(f.w[i]) * (math.Log(float64(s)) + (float64(largest) - float64(a))))
			}
		}
	}, append(touches, written)...)
	l.emit(alone, func(*worker, int, int) {
		loss[0] = program.LaneSum(terms) / float32(len(terms))
	}, place, l.whole(l.in.Outs[0], true))
}

func (l lowering) sampledSoftmaxGrad() {
	f, touches := l.softmax()
	dloss, dpos, dneg := l.arg(6), l.out(0), l.out(1)
	l.emitRows(l.in.Args[1], func(w *worker, lo, hi int) {
		c := dloss[0] / float32(f.m)
		for i := lo; i < hi; i++ {
			e := dneg[i*f.k : (i+1)*f.k]
			_, _, n, s, ok := f.row(w.kernels, i, e)
			if !ok {
				dpos[i] = 0
				clear(e)
				continue
			}
			g := float32(c*f.w[i]) / s
			dpos[i] = -float32(g * n)
			w.kernels.scale(e, e, g)
		}
	}, append(touches, l.whole(l.in.Args[6], false), l.rows(l.in.Outs[0], true), l.rows(l.in.Outs[1], true))...)
}

// softmaxLogitsPortable: b[j] = neg[j] - lq[j], -Inf where ni[j] is pi; it returns the largest, or a.
func softmaxLogitsPortable(b, neg, lq, ni []float32, pi, a float32) float32 {
	neg, lq, ni = neg[:len(b)], lq[:len(b)], ni[:len(b)]
	for j := range b {
		x := neg[j] - lq[j]
		if ni[j] == pi {
			x = float32(math.Inf(-1))
		}
		b[j] = x
		if x > a {
			a = x
		}
	}
	return a
}

// softmaxExpPortable: e[j] = exp(e[j] - largest), 0 below siluBound, and added to the lanes. NaN goes through.
func softmaxExpPortable(sums *lanes, e []float32, largest float32) {
	for j, b := range e {
		z := largest - b
		_, _, x := siluExp(z)
		if z > siluBound {
			x = 0
		}
		e[j] = x
		sums[j%program.Lanes] += x
	}
}

// pinball is the operands that Pinball and its gradient share; v is the level of each column of y, t1 and w1 the
// columns of t and w that go with it.
type pinball struct {
	y, t, w, v []float32
	m, h, q    int
}

func (l lowering) pinballOf() (pinball, []access) {
	a := l.in.Args
	p := pinball{y: l.arg(0), t: l.arg(1), w: l.arg(2), m: l.buf(a[1]).Shape[0], h: l.width(a[1])}
	p.q = l.in.Attr.Levels.Len()
	for range p.h {
		p.v = append(p.v, l.in.Attr.Levels[:p.q]...)
	}
	l.machine.pack = max(l.pack, 2*p.h*p.q)
	return p, []access{l.rows(a[0], false), l.rows(a[1], false), l.rows(a[2], false)}
}

// row is row i with the targets and weights repeated for each level, in memory of the worker.
func (p *pinball) row(w *worker, i int) (y, t, weight []float32) {
	n := p.h * p.q
	t, weight = w.pack[:n], w.pack[n:2*n]
	at := 0
	for s, x := range p.t[i*p.h : (i+1)*p.h] {
		z := p.w[i*p.h+s]
		for range p.q {
			t[at], weight[at] = x, z
			at++
		}
	}
	return p.y[i*n : (i+1)*n], t, weight
}

func (l lowering) pinball() {
	p, touches := l.pinballOf()
	sums, place, written := l.scratch(p.m, 4)
	loss := l.out(0)
	l.emitRows(l.in.Args[0], func(w *worker, lo, hi int) {
		for i := lo; i < hi; i++ {
			y, t, weight := p.row(w, i)
			var terms lanes
			w.kernels.pinball(&terms, y, t, weight, p.v)
			sums[i+w.base] = terms.sum()
		}
	}, append(touches, written)...)
	l.emit(alone, func(*worker, int, int) {
		loss[0] = program.LaneSum(sums) / float32(p.m*p.h*p.q)
	}, place, l.whole(l.in.Outs[0], true))
}

func (l lowering) pinballGrad() {
	p, touches := l.pinballOf()
	dloss, dy := l.arg(3), l.out(0)
	l.emitRows(l.in.Args[0], func(w *worker, lo, hi int) {
		n, c := p.h*p.q, dloss[0]/float32(p.m*p.h*p.q)
		for i := lo; i < hi; i++ {
			y, t, weight := p.row(w, i)
			w.kernels.pinballGrad(dy[i*n:(i+1)*n], y, t, weight, p.v, c)
		}
	}, append(touches, l.whole(l.in.Args[3], false), l.rows(l.in.Outs[0], true))...)
}

// pinballPortable adds the terms of one row to the lanes.
func pinballPortable(terms *lanes, y, t, w, v []float32) {
	t, w, v = t[:len(y)], w[:len(y)], v[:len(y)]
	for i, y := range y {
		if w[i] == 0 {
			continue
		}
		u := t[i] - y
		terms[i%program.Lanes] += float32(w[i] * max(float32(v[i]*u), float32((v[i]-1)*u)))
	}
}

func pinballGradPortable(dy, y, t, w, v []float32, c float32) {
	y, t, w, v = y[:len(dy)], t[:len(dy)], w[:len(dy)], v[:len(dy)]
	for i := range dy {
		u := t[i] - y[i]
		var slope float32
		switch {
		case w[i] == 0:
		case u > 0:
			slope = -v[i]
		case u < 0:
			slope = 1 - v[i]
		}
		if slope != 0 {
			slope *= float32(c * w[i])
		}
		dy[i] = slope
	}
}
