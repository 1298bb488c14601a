package features

import (
	"math"

	"github.com/onmart/onmart/features/slab"
)

// A key's rows of a batch are mostly in the order of time, behind all that the key has. Then all of them can be entered
// first and read afterwards, window by window and feature by feature in short loops: what stands behind a row in the
// ring is not in its windows. That is the same arithmetic as row does, without its turns.

// smoothRows is how many rows of a key are taken at a time.
const smoothRows = 128

// smoothRun is the rows at hand.
type smoothRun struct {
	rows []uint64
	at   int // place of the first among the packed rows
	in   [smoothRows]int32
	hi   [smoothRows]int32 // entries with K <= t before the row
	lo   [maxWindows][smoothRows]int32

	slide [maxWindows + 1]slab.Sliding // of hi and of lo, while they are being made

	// What Distance has computed, for Speed: of which columns, from which entry, and how far it is.
	places [2]int
	from   [smoothRows]int32
	km     [smoothRows]float64
}

// smooth tells whether rows of a key can be entered before they are read: no row is late, and each comes behind the
// entries before it.
func (w *scanner) smooth(r *ring, at, n int) bool {
	gs := w.gs
	k, ord := int64(math.MinInt64), int64(math.MinInt64)
	if r.n > 0 {
		k = r.d[(r.n-1)*gs.stride]
		if gs.ordered {
			ord = r.d[(r.n-1)*gs.stride+1]
		}
	}
	for i := range n {
		x := gs.in[(at+i)*gs.packed : (at+i+1)*gs.packed]
		t := x[packTime]
		if t != x[packTop] || t+gs.shift < k {
			return false
		}
		if gs.ordered {
			if t+gs.shift == k && x[gs.packOrd] < ord {
				return false
			}
			ord = x[gs.packOrd]
		}
		k = t + gs.shift
	}
	return true
}

// together computes and folds rows of a key that are smooth.
func (w *scanner) together(r *ring, rows []uint64, at int, res []float64) {
	gs, outs := w.gs, len(w.gs.outs)
	for len(rows) > 0 {
		n := min(len(rows), smoothRows)
		w.run.rows, w.run.at, w.run.places = rows[:n], at, [2]int{none, none}
		if gs.ring {
			w.enter(r)
			w.places(r)
		}
		for i := range gs.outs {
			w.feature1(r, i, res)
		}
		if gs.accumulates || gs.ewma {
			w.accumulate(r, res)
		}
		rows, at, res = rows[n:], at+n, res[n*outs:]
	}
}

// packedRow is row j of the run.
func (w *scanner) packedRow(j int) []int64 {
	p := w.gs.packed
	return w.gs.in[(w.run.at+j)*p : (w.run.at+j+1)*p]
}

// enter appends the rows that are entries. run.hi has for each row how many entries stood before it.
func (w *scanner) enter(r *ring) {
	gs, run := w.gs, &w.run
	gs.reserve(r, len(run.rows), gs.seen(w.sc.drop), w.sc.drop)
	first, s, d := r.n, gs.stride, r.d
	n := first
	for j, x := range run.rows {
		run.hi[j] = int32(n)
		enters := gs.filter < 0 || w.sc.pass[gs.filter][uint32(x)]
		run.in[j] = int32(btoi(enters))
		if !enters {
			continue
		}
		row := w.packedRow(j)
		o := n * s
		d[o] = row[packTime] + gs.shift
		if gs.ordered {
			d[o+1] = row[gs.packOrd]
		}
		for c := range gs.cols {
			col, v := &gs.cols[c], row[gs.packVals+c]
			if col.raw != 0 {
				d[o+col.raw] = v
			}
			if col.sum != 0 {
				d[o+s+col.sum] = d[o+col.sum] + v
			}
			if col.sq != 0 {
				copy(d[o+s+col.sq:], d[o+col.sq:o+col.sq+2])
				h, l := square(v)
				add128(d[o+s+col.sq:o+s+col.sq+2], h, l)
			}
		}
		n++
	}
	d[n*s] = math.MaxInt64
	r.n = n
	r.h[headSize] = pair(n, high(r.h[headSize]))
	for c := range gs.cols {
		if col := &gs.cols[c]; col.ext != 0 {
			for i := first + 1; i <= n; i++ {
				gs.extendTo(r, col, i)
			}
		}
	}
}

// places finds the entries of each window of each row.
func (w *scanner) places(r *ring) {
	gs, run := w.gs, &w.run
	m := len(run.rows)
	times := gs.in[run.at*gs.packed:]
	slide := run.slide[:0]
	if gs.shift > 0 {
		slide = append(slide, slab.NewSliding(run.hi[:m], 0, gs.seek(r, low(r.h[headHi]), times[packTime])))
	}
	first := len(slide)
	for i := range gs.wins {
		if win := &gs.wins[i]; win.form == sliding {
			lo := gs.seek(r, getCursor(r.h, gs.cursors, win.cursor), times[packTime]-win.span)
			slide = append(slide, slab.NewSliding(run.lo[i][:m], win.span, lo))
		}
	}
	slab.Slide(slide, m, r.d, gs.stride, r.n, times, gs.packed)
	r.h[headHi] = pair(int(run.hi[m-1]), high(r.h[headHi]))
	slide = slide[first:]
	for i := range gs.wins {
		win, los := &gs.wins[i], run.lo[i][:m]
		switch win.form {
		case sliding: // what is a span older than a row stands before it: lo is not greater than hi
			setCursor(r.h, gs.cursors, win.cursor, slide[0].Last())
			slide = slide[1:]
		case calendarUnit:
			lo := getCursor(r.h, gs.cursors, win.cursor)
			for j := range los {
				x := w.packedRow(j)
				lo = gs.seek(r, lo, max(x[win.start]-1, x[packTime]-win.span))
				los[j] = min(int32(lo), run.hi[j])
			}
			setCursor(r.h, gs.cursors, win.cursor, lo)
		case lastN:
			for j := range los {
				los[j] = max(0, run.hi[j]-int32(win.n))
			}
		default:
			clear(los)
		}
	}
}

// feature1 computes feature i of all rows of the run.
func (w *scanner) feature1(r *ring, i int, res []float64) {
	gs, run := w.gs, &w.run
	o, outs := &gs.outs[i], len(gs.outs)
	if gs.late(o) {
		return
	}
	lo, hi, in := run.lo[o.win][:len(run.rows)], run.hi[:len(run.rows)], run.in[:len(run.rows)]
	res = res[i:]
	s, d := gs.stride, r.d
	simple := gs.wins[o.win].form == sliding || gs.wins[o.win].form == calendarUnit || !o.current
	switch {
	case !simple:
	case o.kind == Count:
		add := int32(btoi(o.current))
		for j := range lo {
			res[j*outs] = float64(hi[j] - lo[j] + in[j]&add)
		}
		return
	case (o.kind == Sum || o.kind == Mean) && fits(w.sc.bound(gs.cols[o.col].val), r.n):
		at, own, mean := gs.cols[o.col].sum, gs.packVals+o.col, o.kind == Mean
		add := int32(btoi(o.current))
		for j := range lo {
			sum, n := d[int(hi[j])*s+at]-d[int(lo[j])*s+at], hi[j]-lo[j]
			if in[j]&add != 0 {
				n++
				sum += gs.in[(run.at+j)*gs.packed+own]
			}
			switch {
			case !mean:
				res[j*outs] = float64(sum) / o.scale
			case n == 0:
				res[j*outs] = o.empty
			default:
				res[j*outs] = float64(sum) / (float64(n) * o.scale)
			}
		}
		return
	case o.kind == Risk && gs.deltaOf(r) == nil:
		at := gs.cols[o.col].sum
		for j := range lo {
			frauds, n := d[int(hi[j])*s+at]-d[int(lo[j])*s+at], hi[j]-lo[j]
			if n == 0 && o.weight == 0 {
				res[j*outs] = o.empty
				continue
			}
			res[j*outs] = (float64(frauds) + float64(o.rate*o.weight)) / (float64(n) + o.weight)
		}
		return
	}
	if simple && !o.current && w.plain(r, o, lo, hi, res) {
		return
	}
	for j := range lo {
		enters := w.take(run.at+j, int(uint32(run.rows[j])))
		w.from[o.win], w.to[o.win], w.j = int(lo[j]), int(hi[j]), j
		res[j*outs] = w.feature(r, o, enters)
	}
	w.j = none
}

// plain computes a feature of all rows of the run without the rows' own part, where it is of a kind whose turns from row
// to row cost as much as itself; it says no where it is not.
func (w *scanner) plain(r *ring, o *output, lo, hi []int32, res []float64) bool {
	switch o.kind {
	case Std, ZScore:
		c := &w.gs.cols[o.col]
		if bound := w.sc.bound(c.val); bound >= exactSquares || !fits(bound, 2*r.n+2) {
			return false
		}
		w.spreads(r, o, lo, hi, res)
	case Min, Max:
		w.extremes(r, o, lo, hi, res)
	case Distinct:
		if o.tab < 0 {
			return false
		}
		tab, outs := &w.gs.tabs[o.tab], len(w.gs.outs)
		for j := range lo {
			bag := w.gs.table(r, tab, int(lo[j]), int(hi[j]))
			res[j*outs] = float64(bag.Distinct(w.gs.a))
		}
	case Ratio:
		if !fits(w.sc.bound(w.gs.cols[o.col].val), r.n) {
			return false
		}
		w.ratios(r, o, lo, hi, res)
	case SinceFirst, SinceLast, Gap:
		w.gaps(r, o, lo, hi, res)
	default:
		return false
	}
	return true
}

// ratios is what moment gives of a Ratio, of windows whose sums fit 63 bits.
func (w *scanner) ratios(r *ring, o *output, lo, hi []int32, res []float64) {
	gs, run, outs := w.gs, &w.run, len(w.gs.outs)
	c, s, d := &gs.cols[o.col], gs.stride, r.d
	var absent []bool
	if c.val >= 0 {
		absent = w.sc.absent[c.val]
	}
	for j := range lo {
		sum := d[int(hi[j])*s+c.sum] - d[int(lo[j])*s+c.sum]
		if hi[j] == lo[j] || sum == 0 || absent != nil && absent[uint32(run.rows[j])] {
			res[j*outs] = o.empty
			continue
		}
		x := gs.in[(run.at+j)*gs.packed+gs.packVals+o.col]
		res[j*outs] = float64(x) / (float64(sum) / float64(hi[j]-lo[j]))
	}
}

// gaps is what spans gives.
func (w *scanner) gaps(r *ring, o *output, lo, hi []int32, res []float64) {
	gs, outs := w.gs, len(w.gs.outs)
	s, d := gs.stride, r.d
	for j := range lo {
		n := hi[j] - lo[j]
		if n == 0 || o.kind == Gap && n < 2 {
			res[j*outs] = o.empty
			continue
		}
		first, last := d[int(lo[j])*s], d[int(hi[j]-1)*s]
		switch t := gs.in[(w.run.at+j)*gs.packed+packTime]; o.kind {
		case SinceFirst:
			res[j*outs] = seconds(t - first)
		case SinceLast:
			res[j*outs] = seconds(t - last)
		default:
			res[j*outs] = seconds(last-first) / float64(n-1)
		}
	}
}

// spreads is what spread gives, of windows whose sums fit 63 bits.
func (w *scanner) spreads(r *ring, o *output, lo, hi []int32, res []float64) {
	gs, run, outs := w.gs, &w.run, len(w.gs.outs)
	c, s, d := &gs.cols[o.col], gs.stride, r.d
	var absent []bool
	if o.kind == ZScore && c.val >= 0 {
		absent = w.sc.absent[c.val]
	}
	for j := range lo {
		a, b := d[int(lo[j])*s:], d[int(hi[j])*s:]
		n := int64(hi[j] - lo[j])
		switch {
		case n == 0 || absent != nil && absent[uint32(run.rows[j])]:
			res[j*outs] = o.empty
			continue
		case n == 1:
			res[j*outs] = 0
			continue
		}
		sum := b[c.sum] - a[c.sum]
		root := math.Sqrt(spread(n, wideOf(sum), sub128(b[c.sq:], a[c.sq:])) / float64(n*(n-1)))
		switch {
		case o.kind == Std:
			res[j*outs] = root / o.scale
		case root == 0:
			res[j*outs] = 0
		default:
			x := gs.in[(run.at+j)*gs.packed+gs.packVals+o.col]
			res[j*outs] = float64(n*x-sum) / float64(n) / root
		}
	}
}

// extremes is what extreme gives.
func (w *scanner) extremes(r *ring, o *output, lo, hi []int32, res []float64) {
	gs, outs := w.gs, len(w.gs.outs)
	c := &gs.cols[o.col]
	for j := range lo {
		if hi[j] == lo[j] {
			res[j*outs] = o.empty
			continue
		}
		least, most := gs.extremes(r, c, int(lo[j]), int(hi[j]))
		if o.kind == Max {
			least = most
		}
		res[j*outs] = o.number(least)
	}
}

// late tells whether a feature reads what rows before change one by one: accumulators.
func (g *group) late(o *output) bool {
	if o.kind == EWMA {
		return true
	}
	return g.wins[o.win].form == ever && o.kind != Last && o.kind != Distance && o.kind != Speed
}

// accumulate computes the features of accumulators, and lets these take one row after the other.
func (w *scanner) accumulate(r *ring, res []float64) {
	gs, run, outs := w.gs, &w.run, len(w.gs.outs)
	for j, x := range run.rows {
		enters := w.take(run.at+j, int(uint32(x)))
		for i := range gs.outs {
			if o := &gs.outs[i]; gs.late(o) {
				res[j*outs+i] = w.feature(r, o, enters)
			}
		}
		if !enters {
			continue
		}
		if gs.ewma {
			gs.decay(r, w.x[packTime], w.v)
		}
		if gs.accumulates {
			gs.accumulate(r.h, w.x[packTime]+gs.shift, w.v)
		}
	}
}
