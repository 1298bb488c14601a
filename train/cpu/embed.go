package cpu

import (
	"github.com/onmart/onmart/train/program"
)

// The operations of embedding tables: Lookup, Sample, RowDot, RowScale and RowAdam.

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
	adamMacs   = 300
	expMacs    = 35
)

func (l lowering) lookup() {
	table, idx, y := l.arg(0), l.arg(1), l.out(0)
	out := l.in.Outs[0]
	rows, d, w := l.buf(l.in.Args[0]).Shape[0], l.width(out), l.width(l.in.Args[1])
	l.machine.macs += lookupMacs * d * len(idx)
	l.emitRows(out, func(wk *worker, lo, hi int) {
		lookupRows(wk.kernels, y[lo*d:hi*d], table, idx[lo*w:hi*w], rows, w)
	}, l.whole(l.in.Args[0], false), l.rows(l.in.Args[1], false), l.rows(out, true))
}

// ahead is by how many rows of a table the memory is asked for them. In BenchmarkParts, 1024 of 200k rows of 64, a
// lookup is two to three times as fast as with 1 and an update two to four times; 4 and 16 are no better.
const ahead = 8

// lookupRows fills y with the means of the rows of a table that each w of idx name.
func lookupRows(k *kernels, y, table, idx []float32, rows, w int) {
	d := len(y) * w / max(len(idx), 1)
	for q, n := 0, 0; q < len(idx); q++ {
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

func (l lowering) sample() {
	cdf, idx, site := l.arg(0), l.out(0), l.in.Attr.Site
	l.emit(byElement(len(idx)), func(w *worker, lo, hi int) {
		var u [4]float32
		for j := lo; j < hi; j++ {
			if j == lo || j%4 == 0 {
				u = program.Uniforms4(w.data.Seed, w.step, site, uint64(j/4))
			}
			idx[j] = float32(above(cdf, u[j%4]))
		}
	}, l.whole(l.in.Args[0], false), l.units(l.in.Outs[0], 4, true))
}

// above is the least i with cdf[i] > u, or the last.
func above(cdf []float32, u float32) int {
	lo, hi := 0, len(cdf)-1
	for lo < hi {
		if mid := int(uint(lo+hi) / 2); cdf[mid] > u {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
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

// use is one Lookup of a table, as RowAdam has it.
type use struct {
	idx, dy []float32
	w       int
	base    int       // of its rows among those of all uses
	shared  []float32 // dy's rows divided by their number of indices, where w is above 1
}

// row is the gradient that one index in row i of the use contributes.
func (u *use) row(i, d int) []float32 {
	if u.shared != nil {
		return u.shared[i*d : (i+1)*d]
	}
	return u.dy[i*d : (i+1)*d]
}

// entry is one index of one use: a row of the table, and the row of the gradient among those of all uses.
type entry struct{ row, from int32 }

// entries are those of one RowAdam, sorted, and the memory for it.
type entries struct {
	list, other []entry // both long enough for all
	n           int
}

// rowAdam is three steps: gradients of rows with several indices are divided, one worker lists and sorts the entries,
// and each row of the table is updated by whoever has its first entry.
func (l lowering) rowAdam() {
	p, m, v, at := l.out(0), l.out(1), l.out(2), l.in.Attr
	rows, d := l.buf(l.in.Outs[0]).Shape[0], l.width(l.in.Outs[0])
	var uses []use
	total, base := 0, 0
	var touches, places []access
	for k := 0; k < len(l.in.Args); k += 2 {
		u := use{idx: l.arg(k), dy: l.arg(k + 1), w: l.width(l.in.Args[k]), base: base}
		total, base = total+len(u.idx), base+l.buf(l.in.Args[k]).Shape[0]
		touches = append(touches, l.whole(l.in.Args[k], false))
		place := l.whole(l.in.Args[k+1], false)
		if u.w > 1 {
			u.shared, place = l.divided(k, &u, rows, d)
		}
		places = append(places, place)
		uses = append(uses, u)
	}
	es := &entries{list: make([]entry, total), other: make([]entry, total)}
	sorted := access{space: l.spaces, hi: 1}
	l.machine.spaces++
	written := sorted
	written.write = true
	l.machine.macs += adamMacs * d * total
	l.machine.pack = max(l.pack, d)
	l.emit(alone, func(*worker, int, int) { es.collect(uses, rows) }, append(touches, written)...)
	touches = append(places, sorted)
	for _, o := range l.in.Outs {
		touches = append(touches, l.whole(o, true))
	}
	l.emit(partition{units: total, quantum: 1}, func(w *worker, lo, hi int) {
		w.adam = newAdamCoef(&at, w.step, w.rate)
		es.update(w.kernels, uses, es.share(lo), es.share(hi), w.pack[:d], p, m, v, &w.adam)
	}, touches...)
}

// update is a step of AdamW for the rows of the table whose first entry is one of lo..hi. g is memory for a gradient.
func (es *entries) update(k *kernels, uses []use, lo, hi int, g, p, m, v []float32, c *adamCoef) {
	d := len(g)
	for lo > 0 && lo < hi && es.list[lo].row == es.list[lo-1].row { // the rest of a row that began before
		lo++
	}
	next := lo // entry whose row is asked for
	for lo < hi {
		for ; next < min(lo+ahead, hi); next++ {
			r := int(es.list[next].row) * d
			k.prefetch(p[r : r+d])
			k.prefetch(m[r : r+d])
			k.prefetch(v[r : r+d])
		}
		sum, end := es.sum(k, uses, lo, d, g)
		r := int(es.list[lo].row) * d
		k.adamw(p[r:r+d], m[r:r+d], v[r:r+d], sum, c)
		lo = end
	}
}

// divided emits the step that divides the rows of a gradient by their number of indices.
func (l lowering) divided(k int, u *use, rows, d int) ([]float32, access) {
	y, place := l.scratch(len(u.dy))
	written := place
	written.write, written.unitBytes = true, 4*d
	idx, dy, w := u.idx, u.dy, u.w
	l.emit(l.byRow(l.in.Args[k+1]), func(wk *worker, lo, hi int) {
		for i := lo; i < hi; i++ {
			n := 0
			for _, x := range idx[i*w : (i+1)*w] {
				if indexOf(x, rows) >= 0 {
					n++
				}
			}
			wk.kernels.div(y[i*d:(i+1)*d], dy[i*d:(i+1)*d], float32(max(n, 1)))
		}
	}, l.rows(l.in.Args[k], false), l.rows(l.in.Args[k+1], false), written)
	return y, place
}

// collect lists the entries in the order of use and place and sorts them by row, stably: least significant digits
// first, eleven bits a pass.
func (es *entries) collect(uses []use, rows int) {
	n := 0
	for i := range uses {
		u := &uses[i]
		for k, x := range u.idx {
			if at := indexOf(x, rows); at >= 0 {
				es.list[n] = entry{int32(at), int32(u.base + k/u.w)}
				n++
			}
		}
	}
	es.n = n
	const bits = 11
	for shift := 0; rows > 1<<shift; shift += bits {
		var at [1 << bits]int32
		for _, e := range es.list[:n] {
			at[e.row>>shift&(1<<bits-1)]++
		}
		sum := int32(0)
		for d, c := range at {
			at[d] = sum
			sum += c
		}
		for _, e := range es.list[:n] {
			d := e.row >> shift & (1<<bits - 1)
			es.other[at[d]] = e
			at[d]++
		}
		es.list, es.other = es.other, es.list
	}
}

// share scales a bound of the division of all entries down to those that there are.
func (es *entries) share(at int) int { return at * es.n / len(es.list) }

// sum is the gradient of the row whose first entry is lo, in g unless it has one entry alone, and where the next row
// begins.
func (es *entries) sum(k *kernels, uses []use, lo, d int, g []float32) ([]float32, int) {
	first := gradientRow(uses, es.list[lo].from, d)
	end := lo + 1
	if end == es.n || es.list[end].row != es.list[lo].row {
		return first, end
	}
	k.add(g, first, gradientRow(uses, es.list[end].from, d))
	for end++; end < es.n && es.list[end].row == es.list[lo].row; end++ {
		k.add(g, g, gradientRow(uses, es.list[end].from, d))
	}
	return g, end
}

// gradientRow finds a row among those of all uses.
func gradientRow(uses []use, from int32, d int) []float32 {
	u := len(uses) - 1
	for int(from) < uses[u].base {
		u--
	}
	return uses[u].row(int(from)-uses[u].base, d)
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
