package cpu

import (
	"slices"

	"github.com/onmart/onmart/train/program"
)

// scoring is a chain of instructions that is done in one pass over the rows of the batch: perhaps a Lookup of what is
// compared, LookupDot, a loss of candidates, its gradient and, where somebody wants it, LookupWeighted of that. A
// block's rows of the table are read from memory once, its scores are held nowhere, and the exponentials are computed
// once for loss and gradient. The bits are those of the instructions one by one.
type scoring struct {
	lookup          *program.Instr // nil without
	dot, loss, grad *program.Instr
	weighted        *program.Instr // nil without
}

// last is the instruction in whose place all is done.
func (s *scoring) last() *program.Instr {
	if s.weighted != nil {
		return s.weighted
	}
	return s.grad
}

// scoringBlock is the rows that are done at a time: with nine candidates of 64 they are 18 KiB, which the first cache
// holds beside what is read ahead.
const scoringBlock = 8

// scoringOf is the chain that an instruction of the program is part of, or nil.
func (m *machine) scoringOf(in *program.Instr) *scoring {
	if m.single {
		return nil
	}
	for i := range m.p.Instrs {
		dot := &m.p.Instrs[i]
		if dot.Op != program.LookupDot {
			continue
		}
		if s := m.scoringFrom(i); s != nil && slices.Contains(s.parts(), in) {
			return s
		}
	}
	return nil
}

// scoringFrom is the chain that begins with the LookupDot i, or nil where there is none that may wait for its end.
func (m *machine) scoringFrom(i int) *scoring {
	all := m.p.Instrs
	s := &scoring{dot: &all[i]}
	scores, idx := s.dot.Outs[0], s.dot.Args[1]
	end := 0
	for k := i + 1; k < len(all); k++ {
		in := &all[k]
		switch {
		case s.weighted == nil && s.grad != nil && in.Op == program.LookupWeighted && in.Args[0] == s.dot.Args[0] &&
			in.Args[1] == idx && in.Args[2] == s.grad.Outs[0]:
			s.weighted, end = in, k
		case s.loss == nil && (in.Op == program.CandidateSoftmax || in.Op == program.CandidateBPR) && in.Args[0] == scores &&
			in.Args[1] == idx:
			s.loss = in
		case s.loss != nil && s.grad == nil && gradientOf(in, s.loss):
			s.grad, end = in, k
		case slices.Contains(in.Args, scores) || slices.Contains(in.Outs, scores):
			return nil // somebody else needs them
		}
	}
	if s.grad == nil || !m.mayWait(s, i, end) {
		return nil
	}
	for k := range i {
		if in := &all[k]; in.Op == program.Lookup && in.Outs[0] == s.dot.Args[2] {
			if with := *s; m.lookupMayWait(&with, in, k, end) {
				s.lookup = in
			}
		}
	}
	return s
}

// lookupMayWait says whether what the chain compares may be looked up as it goes along.
func (m *machine) lookupMayWait(s *scoring, lookup *program.Instr, at, end int) bool {
	y := lookup.Outs[0]
	for k := at + 1; k < end; k++ {
		in := &m.p.Instrs[k]
		for _, o := range in.Outs {
			if o == y || slices.Contains(lookup.Args, o) {
				return false
			}
		}
		if in != s.dot && slices.Contains(in.Args, y) {
			return false
		}
	}
	return true
}

// gradientOf says whether an instruction is the gradient of a loss.
func gradientOf(in, loss *program.Instr) bool {
	back := program.CandidateSoftmaxGrad
	if loss.Op == program.CandidateBPR {
		back = program.CandidateBPRGrad
	}
	return in.Op == back && slices.Equal(slices.Delete(slices.Clone(in.Args), 3, 4), loss.Args)
}

// mayWait says whether nobody writes what an instruction of the chain reads between it and the chain's end, and nobody
// reads or writes there what it leaves. Where buffers lie is planned by the steps, so that memory which two of them
// have at different times is no matter here.
func (m *machine) mayWait(s *scoring, i, end int) bool {
	var touched []int // by the chain so far
	for k := i; k < end; k++ {
		in := &m.p.Instrs[k]
		switch in {
		case s.dot, s.loss, s.grad:
			touched = append(append(touched, in.Args...), in.Outs...)
			continue
		}
		written := func(o int) bool { return slices.Contains(touched, o) }
		left := func(a int) bool { return a == s.loss.Outs[0] || a == s.grad.Outs[0] }
		if slices.ContainsFunc(in.Outs, written) || slices.ContainsFunc(in.Args, left) {
			return false
		}
	}
	return true
}

// scored emits the chain.
func (l lowering) scored(s *scoring) {
	f, touches := l.candidatesOf(s.loss)
	f.s = nil
	table, idx, a := l.mem[s.dot.Args[0]].f32, l.mem[s.dot.Args[1]].f32, l.mem[s.dot.Args[2]].f32
	rows, d := l.buf(s.dot.Args[0]).Shape[0], l.width(s.dot.Args[0])
	dloss, ds := l.mem[s.grad.Args[3]].f32, l.mem[s.grad.Outs[0]].f32
	terms, place, written := l.scratch(f.m, 4)
	touches = append(touches[1:], written, l.whole(s.dot.Args[0], false), l.rows(s.dot.Args[2], false),
		l.whole(s.grad.Args[3], false), l.rows(s.grad.Outs[0], true))
	var da []float32
	if s.weighted != nil {
		da = l.mem[s.weighted.Outs[0]].f32
		touches = append(touches, l.rows(s.weighted.Outs[0], true))
	}
	var look func(w *worker, at, end, hi int)
	if s.lookup != nil {
		in := s.lookup
		own, of := l.mem[in.Args[0]].f32, l.mem[in.Args[1]].f32
		n, each := l.buf(in.Args[0]).Shape[0], l.width(in.Args[1])
		look = func(w *worker, at, end, hi int) {
			lookupRows(w.kernels, a[at*d:end*d], own, of[at*each:hi*each], n, each, d)
		}
		l.machine.macs += lookupMacs * d * f.m * each
		touches = append(touches, l.whole(in.Args[0], false), l.rows(in.Args[1], false), l.rows(s.dot.Args[2], true))
	}
	scores := f.scratch()
	l.machine.macs += dotMacs * d * f.m * f.w
	l.machine.pack = max(l.pack, scores+scoringBlock*f.w)
	l.emit(l.byRow(s.dot.Args[1]), func(w *worker, lo, hi int) {
		k, c := &w.kernels.embed, dloss[0]/float32(f.terms())
		for at := lo; at < hi; at += scoringBlock {
			end := min(at+scoringBlock, hi)
			if look != nil {
				look(w, at, end, hi)
			}
			s := w.pack[scores:][:(end-at)*f.w]
			k.dot(s, table, idx[at*f.w:hi*f.w], a[at*d:end*d], rows, f.w, d)
			f.rows(w, at, end, c, s, terms, ds)
			if da != nil {
				k.weighted(da[at*d:end*d], table, idx[at*f.w:end*f.w], ds[at*f.w:end*f.w], rows, f.w, d)
			}
		}
	}, touches...)
	l.candidateSum(s.loss, f, terms, place)
}
