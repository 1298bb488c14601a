package cpu

import (
	"math"

	"github.com/onmart/onmart/train/program"
)

// CandidateSoftmax and CandidateBPR with their gradients: losses of rows that have a positive, in their first column, and
// other candidates of their own.

// candidates are the operands that a loss and its gradient share.
type candidates struct {
	s, idx, weight, logq []float32 // logq is nil without it
	m, w                 int
	bpr                  bool
}

// candidateMacs is what a candidate costs, see lookupMacs.
const candidateMacs = 100

// padded is the columns of a row up to a whole number of lanes.
func padded(w int) int { return ceilDiv(w, program.Lanes) * program.Lanes }

func (l lowering) candidatesOf(in *program.Instr) (candidates, []access) {
	a := in.Args
	f := candidates{s: l.mem[a[0]].f32, idx: l.mem[a[1]].f32, weight: l.mem[a[2]].f32, m: l.buf(a[0]).Shape[0], w: l.width(a[0]),
		bpr: in.Op == program.CandidateBPR || in.Op == program.CandidateBPRGrad}
	touches := []access{l.rows(a[0], false), l.rows(a[1], false), l.rows(a[2], false)}
	if q := len(a) - 1; q > 2 && l.buf(a[q]).Kind == program.Const { // after dloss, where there is one
		f.logq = l.mem[a[q]].f32
		touches = append(touches, l.whole(a[q], false))
	}
	l.machine.macs += candidateMacs * f.m * f.w
	l.machine.pack = max(l.pack, padded(f.w))
	return f, touches
}

func (l lowering) candidateLoss() {
	f, touches := l.candidatesOf(l.in)
	terms, place := l.scratch(f.m)
	written := place
	written.write, written.unitBytes = true, 4
	l.emit(l.byRow(l.in.Args[0]), func(w *worker, lo, hi int) {
		f.rows(w, lo, hi, 0, f.s[lo*f.w:hi*f.w], terms, nil)
	}, append(touches, written)...)
	l.candidateSum(l.in, f, terms, place)
}

// candidateSum emits the step that makes the loss of the terms of all rows.
func (l lowering) candidateSum(in *program.Instr, f candidates, terms []float32, place access) {
	loss, terms := l.mem[in.Outs[0]].f32, terms
	n := float32(f.terms())
	l.emit(alone, func(*worker, int, int) { loss[0] = program.LaneSum(terms) / n }, place, l.whole(in.Outs[0], true))
}

// terms is what the sum of all rows is divided by.
func (f *candidates) terms() int {
	if f.bpr {
		return f.m * (f.w - 1)
	}
	return f.m
}

func (l lowering) candidateGrad() {
	f, touches := l.candidatesOf(l.in)
	dloss, ds := l.arg(3), l.out(0)
	l.emit(l.byRow(l.in.Args[0]), func(w *worker, lo, hi int) {
		f.rows(w, lo, hi, dloss[0]/float32(f.terms()), f.s[lo*f.w:hi*f.w], nil, ds)
	}, append(touches, l.whole(l.in.Args[3], false), l.rows(l.in.Outs[0], true))...)
}

// rows computes terms and gradients of rows lo..hi, either of which may be nil; s are their scores and c what the
// gradient has before the weight.
func (f *candidates) rows(w *worker, lo, hi int, c float32, s, terms, ds []float32) {
	e := w.pack[:padded(f.w)]
	for i := lo; i < hi; i++ {
		s := s[(i-lo)*f.w : (i-lo+1)*f.w]
		term, grad := float32(0), []float32(nil)
		if ds != nil {
			grad = ds[i*f.w : (i+1)*f.w]
		}
		switch {
		case !(f.idx[i*f.w] >= 0):
			clear(grad)
		case f.bpr:
			if terms != nil {
				term = f.bprTerm(w.kernels, i, s, e)
			}
			if grad != nil {
				f.bprGrad(w.kernels, i, c, s, e, grad)
			}
		default:
			term = f.softmax(w.kernels, i, c, s, e, grad)
		}
		if terms != nil {
			terms[i] = term
		}
	}
}

// minusInf is the logit of what does not count.
func minusInf() float32 { return float32(math.Inf(-1)) }

// softmax is the term of row i and, unless grad is nil, the gradient.
func (f *candidates) softmax(k *kernels, i int, c float32, s, e, grad []float32) float32 {
	idx := f.idx[i*f.w : (i+1)*f.w]
	first := s[0]
	if f.logq != nil {
		first -= f.logq[int(idx[0])]
	}
	top := first
	e[0] = minusInf()
	for j := 1; j < f.w; j++ {
		x := minusInf()
		if at := idx[j]; at >= 0 && at != idx[0] {
			x = s[j]
			if f.logq != nil {
				x -= f.logq[int(at)]
			}
		}
		if x > top {
			top = x
		}
		e[j] = x
	}
	for j := f.w; j < len(e); j++ {
		e[j] = minusInf()
	}
	var sums lanes
	k.softmaxExp(&sums, e, top)
	x := expBelow(top - first)
	n := sums.sum()
	all := n + x
	weight := f.weight[i]
	if grad != nil {
		g := float32(c*weight) / all
		for j := range grad {
			grad[j] = g * e[j]
		}
		grad[0] = -float32(g * n)
		return 0
	}
	return float32(float64(weight) * (math.Log(float64(all)) + (float64(top) - float64(first))))
}

// expBelow is exp(-z), 0 where z is above siluBound. NaN goes through.
func expBelow(z float32) float32 {
	if z > siluBound {
		return 0
	}
	_, _, x := siluExp(z)
	return x
}

// bprTerm multiplies the 1 + exp(-|z|), in each lane at most 32 of them, and takes one logarithm.
func (f *candidates) bprTerm(k *kernels, i int, s, e []float32) float32 {
	idx := f.idx[i*f.w : (i+1)*f.w]
	var heads, sums lanes
	for j := range e {
		e[j] = minusInf()
		if j == 0 || j >= f.w {
			continue
		}
		if at := idx[j]; at >= 0 && at != idx[0] {
			z := s[0] - s[j]
			if z < 0 {
				heads[j%program.Lanes] -= z
				e[j] = z
			} else {
				e[j] = -z
			}
		}
	}
	k.softmaxExp(&sums, e, 0)
	logs := 0.0
	for len(e) > 0 {
		part := e[:min(len(e), 32*program.Lanes)]
		e = e[len(part):]
		var product [program.Lanes]float32
		for l := range product {
			product[l] = 1 + part[l]
		}
		for j := program.Lanes; j < len(part); j++ {
			product[j%program.Lanes] *= 1 + part[j]
		}
		all := 1.0
		for _, p := range product {
			all *= float64(p)
		}
		logs += math.Log(all)
	}
	return float32(float64(f.weight[i]) * (float64(heads.sum()) + logs))
}

func (f *candidates) bprGrad(k *kernels, i int, c float32, s, e, grad []float32) {
	idx := f.idx[i*f.w : (i+1)*f.w]
	for j := range e {
		e[j] = minusInf()
		if j == 0 || j >= f.w {
			continue
		}
		if at := idx[j]; at >= 0 && at != idx[0] {
			z := s[j] - s[0]
			if z > siluBound {
				z = siluBound
			}
			e[j] = z
		}
	}
	var unused, sums lanes
	k.softmaxExp(&unused, e, 0)
	g := float32(c * f.weight[i])
	for j := 1; j < f.w; j++ {
		x := g * float32(e[j]/(1+e[j]))
		grad[j] = x
		sums[j%program.Lanes] += x
	}
	grad[0] = -sums.sum()
}
