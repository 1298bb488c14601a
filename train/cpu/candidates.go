package cpu

import (
	"math"

	"github.com/onmart/onmart/train/program"
)

// CandidateSoftmax and CandidateBPR with their gradients: losses of rows that have a positive, in their first column,
// and other candidates of their own.

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
	if q := map[program.Op]int{program.CandidateSoftmax: 3, program.CandidateSoftmaxGrad: 4}[in.Op]; q > 0 && q < len(a) {
		f.logq = l.mem[a[q]].f32
		touches = append(touches, l.whole(a[q], false))
	}
	l.machine.macs += candidateMacs * f.m * f.w
	l.machine.pack = max(l.pack, f.scratch())
	return f, touches
}

func (l lowering) candidateLoss() {
	f, touches := l.candidatesOf(l.in)
	terms, place, written := l.scratch(f.m, 4)
	l.emit(l.byRow(l.in.Args[0]), func(w *worker, lo, hi int) {
		f.rows(w, lo, hi, 0, f.s[lo*f.w:hi*f.w], terms, nil)
	}, append(touches, written)...)
	l.candidateSum(l.in, f, terms, place)
}

// candidateSum emits the step that makes the loss of the terms of all rows.
func (l lowering) candidateSum(in *program.Instr, f candidates, terms []float32, place access) {
	loss := l.mem[in.Outs[0]].f32
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

// candidateBlock is the rows whose terms are made at a time: a vector of them.
const candidateBlock = 8

// outcome is what candidateBlock rows leave for their terms, each of which is weight (log(all) + rest). Where a row has
// no positive, the logarithm is of 1 and the rest and the weight are 0. The layout is known to the assembly.
type outcome struct {
	all, rest, weight [candidateBlock]float32
	unused            lanes // sums that nobody wants
}

// term is the loss of a row.
func (o *outcome) term(i int) float32 { return o.weight[i] * (log32(o.all[i]) + o.rest[i]) }

// scratch is the memory that rows needs of a worker.
func (f *candidates) scratch() int { return padded(f.w) + candidateBlock*f.w }

// rows computes terms and gradients of rows lo..hi, either of which may be nil; s are their scores and c what the
// gradient has before the weight.
func (f *candidates) rows(w *worker, lo, hi int, c float32, s, terms, ds []float32) {
	e, unused := w.pack[:padded(f.w)], w.pack[padded(f.w):][:candidateBlock*f.w]
	k := &w.kernels.embed
	for at := lo; at < hi; at += candidateBlock {
		end := min(at+candidateBlock, hi)
		s, grad := s[(at-lo)*f.w:(end-lo)*f.w], unused[:(end-at)*f.w]
		if ds != nil {
			grad = ds[at*f.w : end*f.w]
		}
		idx, weight := f.idx[at*f.w:end*f.w], f.weight[at:end]
		if f.w <= program.Lanes && f.logq == nil {
			k.candidates(grad, s, idx, weight, f.w, c, f.bpr, &w.outcome)
		} else {
			f.block(w.kernels.softmaxExp, grad, s, idx, weight, e, c, &w.outcome)
		}
		if terms != nil {
			k.terms(terms[at:end], &w.outcome)
		}
	}
}

// block computes the rows of a block, one after the other; e is memory for the columns of one, a whole number of lanes.
func (f *candidates) block(exp func(*lanes, []float32, float32), grad, s, idx, weight, e []float32, c float32,
	o *outcome) {
	for i, x := range weight {
		lo, hi := i*f.w, (i+1)*f.w
		if f.bpr {
			bprRow(exp, grad[lo:hi], s[lo:hi], idx[lo:hi], e, c*x, o, i)
		} else {
			f.corrected(e, s[lo:hi], idx[lo:hi])
			softmaxRow(exp, grad[lo:hi], e, idx[lo:hi], c*x, o, i)
		}
		if o.weight[i] = x; !(idx[lo] >= 0) {
			o.none(i)
			clear(grad[lo:hi])
		}
	}
}

// none is the outcome of a row without a positive.
func (o *outcome) none(i int) { o.all[i], o.rest[i], o.weight[i] = 1, 0, 0 }

// corrected copies the scores of a row, less what logq says of their items.
func (f *candidates) corrected(e, s, idx []float32) {
	copy(e, s)
	if f.logq == nil || !(idx[0] >= 0) {
		return
	}
	for j, at := range idx {
		if at >= 0 {
			e[j] -= f.logq[int(at)]
		}
	}
}

// minusInf is the logit of what does not count.
func minusInf() float32 { return float32(math.Inf(-1)) }

// softmaxRow takes the logits of row i in e, which is a whole number of lanes long; g is what its gradient has before
// the sum.
func softmaxRow(exp func(*lanes, []float32, float32), grad, e, idx []float32, g float32, o *outcome, i int) {
	first := e[0]
	top := first
	for j := 1; j < len(e); j++ {
		if j >= len(idx) || !(idx[j] >= 0) || idx[j] == idx[0] {
			e[j] = minusInf()
		} else if e[j] > top {
			top = e[j]
		}
	}
	var own lanes
	exp(&o.unused, e, top)
	x := e[0] // exp is that of every element for itself
	for j, v := range e {
		if j > 0 {
			own[j%program.Lanes] += v
		}
	}
	n := own.sum()
	o.all[i], o.rest[i] = n+x, top-first
	g /= n + x
	for j := range grad {
		grad[j] = g * e[j]
	}
	grad[0] = -float32(g * n)
}

// bprChunk is how many 1 + exp(-|z|) are multiplied before a logarithm is taken, each at most 2.
const bprChunk = 4 * program.Lanes

// bprRow is the same for the scores s.
func bprRow(exp func(*lanes, []float32, float32), grad, s, idx, e []float32, g float32, o *outcome, i int) {
	counts := func(j int) bool { return j > 0 && j < len(s) && idx[j] >= 0 && idx[j] != idx[0] }
	var heads, sums lanes
	for j := range e {
		e[j] = minusInf()
		if counts(j) {
			z := s[0] - s[j]
			if z < 0 {
				heads[j%program.Lanes] -= z
				z = -z
			}
			e[j] = -z
		}
	}
	exp(&o.unused, e, 0)
	rest := heads.sum()
	for lo := 0; lo < len(e); lo += bprChunk {
		var product lanes
		for l := range product {
			product[l] = 1 + e[lo+l]
		}
		for j := lo + program.Lanes; j < min(lo+bprChunk, len(e)); j++ {
			product[j%program.Lanes] *= 1 + e[j]
		}
		for half := program.Lanes / 2; half > 0; half /= 2 {
			for l := range half {
				product[l] *= product[l+half]
			}
		}
		if lo+bprChunk < len(e) {
			rest += log32(product[0])
		} else {
			o.all[i] = product[0]
		}
	}
	o.rest[i] = rest
	for j := range grad {
		x := float32(0)
		if counts(j) {
			x = 1
			if s[0]-s[j] >= 0 {
				x = e[j]
			}
			x /= 1 + e[j]
		}
		x *= g
		grad[j] = x
		if j > 0 {
			sums[j%program.Lanes] += x
		}
	}
	grad[0] = -sums.sum()
}

func candidatesPortable(grad, s, idx, weight []float32, w int, c float32, bpr bool, o *outcome) {
	var e lanes
	f := candidates{w: w, bpr: bpr}
	f.block(softmaxExpPortable, grad, s, idx, weight, e[:], c, o)
}

func termsPortable(terms []float32, o *outcome) {
	for i := range terms {
		terms[i] = o.term(i)
	}
}
