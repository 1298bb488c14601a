package cpu

import (
	"github.com/onmart/onmart/train/program"
)

// The operations that read embedding tables: Lookup, LookupDot, LookupWeighted, Sample; and RowDot and RowScale. What
// trains tables is in rows.go.

// embedKernels are the inner loops of embedding tables.
type embedKernels struct {
	// dot is LookupDot: s has w elements for each row of a. idx may be longer: what is behind will be read next.
	dot func(s, table, idx, a []float32, rows, w, d int)
	// weighted is LookupWeighted, of as many rows as s has.
	weighted func(y, table, idx, s []float32, rows, w, d int)
	// sums: row k of g is the gradient of the table's row spans[k], of its entries; the last span only ends the one
	// before it.
	sums func(g []float32, spans []span, list []entry, sources [][]float32, d int)
	// ask is prefetch for the rows of a tensor that spans name.
	ask func(x []float32, spans []span, d int)
	// adam is a step of AdamW for the rows that spans name, with their gradients.
	adam func(p, m, v, g []float32, spans []span, d int, c *adamCoef)
	// shrink: p[i] = p[i] - lr (g[i] / by + decay p[i]).
	shrink func(p, g []float32, by, lr, decay float32)
	// adagrad: acc[i] += g[i] g[i], then shrink by sqrt(acc[i]) + eps.
	adagrad func(p, acc, g []float32, eps, lr, decay float32)
	// candidates is the gradients of at most candidateBlock rows of w columns, of which Lanes holds one, and what their
	// terms are made of; c is what the gradient has before the weight.
	candidates func(grad, s, idx, weight []float32, w int, c float32, bpr bool, o *outcome)
	// terms makes them.
	terms func(terms []float32, o *outcome)
	// uniforms: u[j] is element j%4 of Uniforms4(seed, step, site, block + j/4).
	uniforms func(u []float32, block int, seed uint64, step, site uint32)
}

func portableEmbed() embedKernels {
	return embedKernels{dot: dotPortable, weighted: weightedPortable, sums: sumsPortable, ask: func([]float32, []span, int) {},
		adam: adamRowsPortable, shrink: shrinkPortable, adagrad: adagradPortable, candidates: candidatesPortable,
		terms: termsPortable, uniforms: uniformsPortable}
}

// indexOf is the row of a table that x names, or -1 for none.
func indexOf(x float32, rows int) int {
	if x >= 0 && x < float32(rows) { // rows are at most 2^24
		return int(x)
	}
	return -1
}

// What an element of these costs beside a multiply-add of the micro-kernel, by BenchmarkParts: rows of 64 out of
// tables that are larger than the cache. It serves to choose the number of threads alone.
const (
	lookupMacs = 30
	dotMacs    = 8
	entryMacs  = 16
	sampleMacs = 200
	adamMacs   = 300
	expMacs    = 35
)

func (l lowering) lookup() {
	table, idx, y := l.arg(0), l.arg(1), l.out(0)
	out := l.in.Outs[0]
	rows, d, w := l.buf(l.in.Args[0]).Shape[0], l.width(out), l.width(l.in.Args[1])
	l.machine.macs += lookupMacs * d * len(idx)
	l.emitRows(out, func(wk *worker, lo, hi int) {
		lookupRows(wk.kernels, y[lo*d:hi*d], table, idx[lo*w:hi*w], rows, w, d)
	}, l.whole(l.in.Args[0], false), l.rows(l.in.Args[1], false), l.rows(out, true))
}

// ahead is by how many rows of a table the memory is asked for them. In BenchmarkParts, 1024 of 200k rows of 64, a
// lookup is two to three times as fast as with 1 and an update two to four times; 4 and 16 are no better.
const ahead = 8

// lookupRows fills y with the means of the rows of a table that each w of idx name. idx may be longer: what is behind
// will be read next.
func lookupRows(k *kernels, y, table, idx []float32, rows, w, d int) {
	for q, n := 0, 0; q < len(y)/d*w; q++ {
		if q+ahead < len(idx) {
			if at := indexOf(idx[q+ahead], rows); at >= 0 {
				k.prefetch(table[at*d : (at+1)*d])
			}
		}
		i := q / w
		out := y[i*d : (i+1)*d]
		if at := indexOf(idx[q], rows); at >= 0 {
			if row := table[at*d : (at+1)*d]; n == 0 {
				copy(out, row)
			} else {
				k.add(out, out, row)
			}
			n++
		}
		if (q+1)%w > 0 {
			continue
		}
		switch {
		case n == 0:
			clear(out)
		case n > 1:
			k.div(out, out, float32(n))
		}
		n = 0
	}
}

func (l lowering) lookupDot() {
	table, idx, a, s := l.arg(0), l.arg(1), l.arg(2), l.out(0)
	rows, d, w := l.buf(l.in.Args[0]).Shape[0], l.width(l.in.Args[0]), l.width(l.in.Args[1])
	l.machine.macs += dotMacs * d * len(idx)
	l.emit(l.byRow(l.in.Outs[0]), func(wk *worker, lo, hi int) {
		wk.kernels.embed.dot(s[lo*w:hi*w], table, idx[lo*w:hi*w], a[lo*d:hi*d], rows, w, d)
	}, l.whole(l.in.Args[0], false), l.rows(l.in.Args[1], false), l.rows(l.in.Args[2], false),
		l.rows(l.in.Outs[0], true))
}

func (l lowering) lookupWeighted() {
	table, idx, s, y := l.arg(0), l.arg(1), l.arg(2), l.out(0)
	rows, d, w := l.buf(l.in.Args[0]).Shape[0], l.width(l.in.Args[0]), l.width(l.in.Args[1])
	l.machine.macs += dotMacs * d * len(idx)
	l.emit(l.byRow(l.in.Outs[0]), func(wk *worker, lo, hi int) {
		wk.kernels.embed.weighted(y[lo*d:hi*d], table, idx[lo*w:hi*w], s[lo*w:hi*w], rows, w, d)
	}, l.whole(l.in.Args[0], false), l.rows(l.in.Args[1], false), l.rows(l.in.Args[2], false),
		l.rows(l.in.Outs[0], true))
}

// dotPortable is the inner product by lanes that LookupDot is defined by.
func dotPortable(s, table, idx, a []float32, rows, w, d int) {
	for k, x := range idx[:len(s)] {
		s[k] = 0
		if at := indexOf(x, rows); at >= 0 {
			s[k] = laneDot(table[at*d:(at+1)*d], a[k/w*d:(k/w+1)*d])
		}
	}
}

// laneDot: rows whose width is no multiple of the lanes are as if zeros followed.
func laneDot(a, b []float32) float32 {
	var sums lanes
	for c, x := range a {
		l := &sums[c%program.Lanes]
		*l = fma32(x, b[c], *l)
	}
	for c := len(a); c%program.Lanes > 0; c++ {
		sums[c%program.Lanes] += 0 // -0 becomes 0
	}
	return sums.sum()
}

func weightedPortable(y, table, idx, s []float32, rows, w, d int) {
	clear(y)
	for k, x := range idx[:len(s)] {
		at := indexOf(x, rows)
		if at < 0 {
			continue
		}
		out, row := y[k/w*d:(k/w+1)*d], table[at*d:(at+1)*d]
		for c, v := range row {
			out[c] = fma32(s[k], v, out[c])
		}
	}
}

// sampler finds the item that a uniform number stands for: guide[k] is the least i with cdf[i] > k / len(guide), or the
// last, so that little is left to walk (Chen & Asau 1974). It is made again when the constants have been given anew.
type sampler struct {
	cdf    []float32
	guide  []int32
	filled int // of the store, when it was made
}

// maxGuide keeps a guide within the second-level cache.
const maxGuide = 1 << 15

func newSampler(cdf []float32) *sampler {
	n := 1
	for n < min(len(cdf), maxGuide) {
		n *= 2
	}
	return &sampler{cdf: cdf, guide: make([]int32, n), filled: -1}
}

func (s *sampler) make(filled int) {
	if s.filled == filled {
		return
	}
	s.filled = filled
	i := 0
	for k := range s.guide {
		u := float32(k) / float32(len(s.guide)) // exact
		for i < len(s.cdf)-1 && !(s.cdf[i] > u) {
			i++
		}
		s.guide[k] = int32(i)
	}
}

// at is the least i with cdf[i] > u, or the last, for u in [0,1).
func (s *sampler) at(u float32) int32 {
	i := s.guide[int(u*float32(len(s.guide)))] // exact, and below its length
	for int(i) < len(s.cdf)-1 && !(s.cdf[i] > u) {
		i++
	}
	return i
}

func (l lowering) sample() {
	cdf, idx, site, st := l.arg(0), l.out(0), l.in.Attr.Site, l.store
	s := newSampler(cdf)
	guide := access{space: l.spaces, hi: 1}
	l.machine.spaces++
	made := guide
	made.write = true
	l.machine.macs += sampleMacs * l.buf(l.in.Outs[0]).Len()
	l.emit(alone, func(*worker, int, int) { s.make(st.filled) }, l.whole(l.in.Args[0], false), made)
	l.emit(byElement(l.buf(l.in.Outs[0]).Len()), func(w *worker, lo, hi int) {
		idx := idx[lo:hi]
		w.kernels.embed.uniforms(idx, lo/4, w.data.Seed, w.step, site)
		for j, u := range idx {
			idx[j] = float32(s.at(u))
		}
	}, guide, l.units(l.in.Outs[0], 4, true))
}

// uniformsPortable fills u, from element 0 of a block on.
func uniformsPortable(u []float32, block int, seed uint64, step, site uint32) {
	for j := 0; j < len(u); j += 4 {
		four := program.Uniforms4(seed, step, site, uint64(block+j/4))
		copy(u[j:], four[:])
	}
}

func (l lowering) rowDot() {
	a, b, s, d := l.arg(0), l.arg(1), l.out(0), l.width(l.in.Args[0])
	l.emitRows(l.in.Outs[0], func(w *worker, lo, hi int) {
		w.kernels.rowDot(s[lo:hi], a[lo*d:hi*d], b[lo*d:hi*d], d)
	}, l.rows(l.in.Args[0], false), l.rows(l.in.Args[1], false), l.rows(l.in.Outs[0], true))
}

func (l lowering) rowScale() {
	x, s, y, d := l.arg(0), l.arg(1), l.out(0), l.width(l.in.Args[0])
	l.emitRows(l.in.Outs[0], func(w *worker, lo, hi int) {
		for i := lo; i < hi; i++ {
			w.kernels.scale(y[i*d:(i+1)*d], x[i*d:(i+1)*d], s[i])
		}
	}, l.rows(l.in.Args[0], false), l.rows(l.in.Args[1], false), l.rows(l.in.Outs[0], true))
}

func addPortable(y, a, b []float32) {
	a, b = a[:len(y)], b[:len(y)]
	for i := range y {
		y[i] = a[i] + b[i]
	}
}

func scalePortable(y, x []float32, s float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] = s * x[i]
	}
}

func divPortable(y, x []float32, by float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] = x[i] / by
	}
}

func rowDotPortable(s, a, b []float32, d int) {
	for i := range s {
		x, y := a[i*d:(i+1)*d], b[i*d:(i+1)*d]
		var sum float32
		for c, v := range x {
			sum = fma32(v, y[c], sum)
		}
		s[i] = sum
	}
}
