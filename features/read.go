package features

import (
	"math"
	"slices"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/slab"
)

// scanner computes the rows of one group on one thread.
type scanner struct {
	gs   *groupState
	sc   *scratch
	x    []int64 // the row at hand, packed
	v    []int64 // its values, by column of the group: the end of x
	n    int     // its number
	from [maxWindows]int
	to   [maxWindows]int
	run  smoothRun
	j    int // the row's place in the run, none outside of one
}

// key computes and folds the rows of one key, in order, with what labels change between them.
func (w *scanner) key(id int32, rows []uint64, from int, res []float64) {
	gs := w.gs
	r := gs.open(id)
	var ops []op
	if gs.label {
		ops = w.changes(id)
	}
	if len(rows) > 1 && len(ops) == 0 && gs.packMark == 0 && w.smooth(&r, from, len(rows)) {
		w.together(&r, rows, from, res)
		return
	}
	outs := len(gs.outs)
	for i, x := range rows {
		row := int(uint32(x))
		for len(ops) > 0 && int(ops[0].at) <= row {
			gs.apply(gs.deltaOf(&r), &ops[0])
			ops = ops[1:]
		}
		w.row(&r, from+i, row, res[i*outs:(i+1)*outs])
	}
	for i := range ops {
		gs.apply(gs.deltaOf(&r), &ops[i])
	}
}

// changes finds what labels change of a key, and marks it as done.
func (w *scanner) changes(id int32) []op {
	ops := w.sc.ops[w.gs.changes]
	if len(ops) == 0 {
		return nil
	}
	from, _ := slices.BinarySearchFunc(ops, id, func(o op, id int32) int { return int(o.key) - int(id) })
	to := from
	for to < len(ops) && ops[to].key == id {
		w.sc.opsDone[w.gs.changes][to] = true
		to++
	}
	return ops[from:to]
}

// take turns to the row at a place in the order of keys, and tells whether it is an entry.
func (w *scanner) take(at, row int) (enters bool) {
	gs := w.gs
	w.n = row
	w.x = gs.in[at*gs.packed : (at+1)*gs.packed]
	w.v = w.x[gs.packVals:]
	return gs.filter < 0 || w.sc.pass[gs.filter][row]
}

// mark is W at the row.
func (w *scanner) mark() int64 { return w.x[w.gs.packMark] }

// row gives the features of a row and folds it.
func (w *scanner) row(r *ring, at, row int, res []float64) {
	gs := w.gs
	enters := w.take(at, row)
	if gs.packMark != 0 {
		gs.advance(r, w.mark())
	}
	if gs.ring {
		w.windows(r)
	}
	for i := range gs.outs {
		res[i] = w.feature(r, &gs.outs[i], enters)
	}
	if enters {
		w.fold(r)
	}
}

// windows finds the entries of each window of the ring.
func (w *scanner) windows(r *ring) {
	gs := w.gs
	t, top := w.x[packTime], w.x[packTop]
	hi := gs.seek(r, low(r.h[headHi]), t)
	r.h[headHi] = pair(hi, high(r.h[headHi]))
	all := hi // entries up to top, which is later than t only of a late row
	if top > t {
		all = gs.seek(r, hi, top)
	}
	for i := range gs.wins {
		win := &gs.wins[i]
		switch win.form {
		case sliding:
			w.from[i], w.to[i] = w.begin(r, win, top-win.span, hi), hi
		case calendarUnit:
			w.from[i], w.to[i] = w.begin(r, win, max(w.x[win.start]-1, top-win.span), hi), hi
		case lastN:
			w.from[i], w.to[i] = max(0, all-win.n), all
		default:
			w.from[i], w.to[i] = 0, all
		}
	}
}

// begin finds the first entry with K > bound, at most hi: t itself may lie behind what can be seen.
func (w *scanner) begin(r *ring, win *window, bound int64, hi int) int {
	lo := w.gs.seek(r, getCursor(r.h, w.gs.cursors, win.cursor), bound)
	setCursor(r.h, w.gs.cursors, win.cursor, lo)
	return min(lo, hi)
}

// alone gives the features of a row without a key: nothing is in its windows, and it is folded nowhere.
func (w *scanner) alone(at, row int, res []float64) {
	gs := w.gs
	enters := w.take(at, row)
	r := ring{h: gs.blank, d: gs.none}
	clear(w.from[:])
	clear(w.to[:])
	for i := range gs.outs {
		res[i] = w.feature(&r, &gs.outs[i], enters)
	}
}

// feature is one feature of a row.
func (w *scanner) feature(r *ring, o *output, enters bool) float64 {
	gs := w.gs
	if o.kind == EWMA {
		return gs.ewmaOf(r, o)
	}
	win := &gs.wins[o.win]
	lo, hi := w.from[o.win], w.to[o.win]
	n := int64(hi - lo)
	if gs.late(o) {
		n = r.h[gs.acc+accN]
	}
	current := o.current && enters
	if current && win.form == lastN { // it is one of the n
		lo = max(lo, hi-win.n+1)
		n = int64(hi - lo)
	}
	switch o.kind {
	case Count:
		return float64(n + int64(btoi(current)))
	case First:
		return float64(btoi(n+int64(btoi(current)) == 0))
	case Risk:
		return w.risk(r, o, n, lo, hi)
	case Sum, Mean, Ratio:
		s := w.total(r, o, lo, hi)
		if current {
			n++
			s = s.plus(wideOf(w.v[o.col]))
		}
		return o.moment(n, s, w.v[o.col], w.absent(o))
	case Std, ZScore:
		return w.spread(r, o, n, lo, hi, current)
	case Min, Max:
		return w.extreme(r, o, n, lo, hi, current)
	case SinceFirst, SinceLast, Gap:
		return w.spans(r, o, n, lo, hi, current)
	case Distinct, Mode, Share:
		return w.values(r, o, n, lo, hi, current)
	case Last:
		if n < int64(o.nth) {
			return o.empty
		}
		return o.number(gs.value(r, hi-o.nth, o.col))
	}
	return w.journey(r, o, lo, hi) // Distance, Speed
}

// number is a value of the output's column.
func (o *output) number(v int64) float64 {
	if o.float {
		return floating64(v)
	}
	return float64(v) / o.scale
}

// absent tells whether the row itself has no value in the output's column.
func (w *scanner) absent(o *output) bool {
	v := w.gs.cols[o.col].val
	return v >= 0 && w.sc.absent[v] != nil && w.sc.absent[v][w.n]
}

// total is the sum of the output's column over a window.
func (w *scanner) total(r *ring, o *output, lo, hi int) wide {
	c := &w.gs.cols[o.col]
	if w.gs.wins[o.win].form == ever {
		return wide{r.h[c.accSum+1], uint64(r.h[c.accSum])}
	}
	return w.gs.total(r, lo, hi, o.col, w.sc.bound(c.val))
}

func (o *output) moment(n int64, s wide, x int64, absent bool) float64 {
	switch {
	case o.kind == Sum:
		return s.float() / o.scale
	case n == 0 || o.kind == Ratio && (absent || s.isZero()):
		return o.empty
	case o.kind == Mean:
		return s.float() / (float64(n) * o.scale)
	}
	return float64(x) / (s.float() / float64(n))
}

func (w *scanner) spread(r *ring, o *output, n int64, lo, hi int, current bool) float64 {
	c, x := &w.gs.cols[o.col], w.v[o.col]
	s := w.total(r, o, lo, hi)
	var sq uint192
	if w.gs.wins[o.win].form == ever {
		sq = uint192{uint64(r.h[c.accSq]), uint64(r.h[c.accSq+1]), uint64(r.h[c.accSq+2])}
	} else {
		sq = w.gs.squares(r, lo, hi, o.col, w.sc.bound(c.val))
	}
	if current {
		n++
		s = s.plus(wideOf(x))
		h, l := square(x)
		sq = sq.plus(h, l)
	}
	if n == 0 || o.kind == ZScore && w.absent(o) {
		return o.empty
	}
	if n < 2 {
		return 0
	}
	root := math.Sqrt(spread(n, s, sq) / product(n, n-1).float())
	if o.kind == Std {
		return root / o.scale
	}
	if root == 0 {
		return 0
	}
	return product(n, x).minus(s).float() / float64(n) / root
}

func (w *scanner) extreme(r *ring, o *output, n int64, lo, hi int, current bool) float64 {
	gs := w.gs
	c := &gs.cols[o.col]
	var least, most int64
	if n > 0 {
		if gs.wins[o.win].form == ever {
			least, most = r.h[c.accMin], r.h[c.accMin+1]
		} else {
			least, most = gs.extremes(r, c, lo, hi)
		}
	}
	if current {
		x := w.v[o.col]
		if n == 0 {
			least, most = x, x
		}
		least, most = min(least, x), max(most, x)
		n++
	}
	switch {
	case n == 0:
		return o.empty
	case o.kind == Min:
		return o.number(least)
	}
	return o.number(most)
}

// seconds is a span of microseconds, not below 0.
func seconds(d int64) float64 { return float64(max(0, d)) / float64(datasets.Second) }

func (w *scanner) spans(r *ring, o *output, n int64, lo, hi int, current bool) float64 {
	gs, t := w.gs, w.x[packTime]
	first, last := t, t
	if n > 0 {
		if gs.wins[o.win].form == ever {
			first, last = r.h[gs.acc+accFirst], r.h[gs.acc+accLast]
		} else {
			first, last = r.d[lo*gs.stride], r.d[(hi-1)*gs.stride]
		}
	}
	if current {
		first, last = min(first, t), max(last, t)
		n++
	}
	switch {
	case n == 0 || o.kind == Gap && n < 2:
		return o.empty
	case o.kind == SinceFirst:
		return seconds(t - first)
	case o.kind == SinceLast:
		return seconds(t - last)
	}
	return seconds(last-first) / float64(n-1)
}

func (w *scanner) values(r *ring, o *output, n int64, lo, hi int, current bool) float64 {
	gs, x := w.gs, w.v[o.col]
	c := &gs.cols[o.col]
	absent := w.absent(o)
	if gs.wins[o.win].form == ever && o.kind == Distinct {
		set := slab.Set(r.h[c.accSet])
		if current {
			return set.SizeWith(gs.a, x)
		}
		return set.Size(gs.a)
	}
	if o.kind == Share && o.tab < 0 && gs.wins[o.win].form == lastN {
		return w.shareOfFew(r, o, x, absent, lo, hi, current)
	}
	var bag slab.Multiset
	if o.tab < 0 {
		bag = slab.Multiset(r.h[c.accBag])
	} else {
		bag = gs.table(r, &gs.tabs[o.tab], lo, hi)
	}
	switch o.kind {
	case Distinct:
		d := bag.Distinct(gs.a)
		if current && bag.Count(gs.a, x) == 0 {
			d++
		}
		return float64(d)
	case Share:
		if absent {
			return o.empty
		}
		same := int64(bag.Count(gs.a, x))
		if current {
			same, n = same+1, n+1
		}
		if n == 0 {
			return o.empty
		}
		return float64(same) / float64(n)
	}
	v, most := bag.Mode(gs.a)
	if current {
		if k := bag.Count(gs.a, x) + 1; n == 0 || k > most || k == most && x < v {
			v = x
		}
		n++
	}
	if n == 0 {
		return o.empty
	}
	return o.number(v)
}

// fewEntries is up to how many entries a share is counted one by one: so many are read sooner than two counts of a table
// are changed.
const fewEntries = 64

// shareOfFew is a share over the last few entries.
func (w *scanner) shareOfFew(r *ring, o *output, x int64, absent bool, lo, hi int, current bool) float64 {
	if absent || hi == lo && !current {
		return o.empty
	}
	s := w.gs.stride
	same := btoi(current)
	n := hi - lo + same
	for at, end := lo*s+w.gs.cols[o.col].raw, hi*s; at < end; at += s {
		if r.d[at] == x {
			same++
		}
	}
	return float64(same) / float64(n)
}

func (w *scanner) journey(r *ring, o *output, lo, hi int) float64 {
	gs := w.gs
	for _, c := range [2]int{o.lon, o.lat} {
		if v := gs.cols[c].val; w.sc.absent[v] != nil && w.sc.absent[v][w.n] {
			return o.empty
		}
	}
	if hi <= lo {
		return o.empty
	}
	last := hi - 1
	d := w.kilometres(r, o, last)
	if o.kind == Distance {
		return d
	}
	return d / (float64(max(w.x[packTime]-r.d[last*gs.stride], datasets.Second)) / float64(datasets.Hour))
}

// kilometres is the distance of the row from an entry. Distance and Speed ask for the same one, one feature after the
// other: the rows of a run keep what the first has computed.
func (w *scanner) kilometres(r *ring, o *output, last int) float64 {
	gs, run := w.gs, &w.run
	if w.j >= 0 {
		if of := [2]int{o.lon, o.lat}; run.places != of {
			run.places = of
			for j := range run.rows {
				run.from[j] = none
			}
		}
		if run.from[w.j] == int32(last) {
			return run.km[w.j]
		}
	}
	d := haversine(floating64(gs.value(r, last, o.lon)), floating64(gs.value(r, last, o.lat)), floating64(w.v[o.lon]), floating64(w.v[o.lat]))
	if w.j >= 0 {
		run.km[w.j], run.from[w.j] = d, int32(last)
	}
	return d
}

func (w *scanner) risk(r *ring, o *output, n int64, lo, hi int) float64 {
	gs := w.gs
	c := &gs.cols[o.col]
	var frauds int64
	isEver := gs.wins[o.win].form == ever
	if isEver {
		frauds = r.h[c.accSum]
	} else {
		frauds = r.d[hi*gs.stride+c.sum] - r.d[lo*gs.stride+c.sum]
	}
	if d := gs.deltaOf(r); d != nil {
		var dn, df int64
		if isEver {
			dn, df = gs.deltaEver(d, w.mark())
		} else {
			dn, df = gs.deltaRead(d, o.win, w.bound(o.win), w.x[packTime])
		}
		n, frauds = n+dn, frauds+df
	}
	if n == 0 && o.weight == 0 {
		return o.empty
	}
	return (float64(frauds) + float64(o.rate*o.weight)) / (float64(n) + o.weight)
}

// bound is what K must be greater than to be in a sliding or calendar window.
func (w *scanner) bound(i int) int64 {
	win, top := &w.gs.wins[i], w.x[packTop]
	if win.form == calendarUnit {
		return max(w.x[win.start]-1, top-win.span)
	}
	return top - win.span
}

// fold enters a row, unless it could never be seen.
func (w *scanner) fold(r *ring) {
	gs, drop := w.gs, w.sc.drop
	t, top := w.x[packTime], w.x[packTop]
	k := t + gs.shift
	if gs.ewma {
		gs.decay(r, t, w.v)
	}
	if gs.accumulates && gs.packMark == 0 {
		gs.accumulate(r.h, k, w.v)
	}
	switch {
	case !gs.ring:
	case top > t && k <= top-gs.span && gs.keep == 0: // no window will reach it
		if gs.packMark != 0 {
			gs.accumulate(r.h, k, w.v)
		}
	default:
		ord := int64(0)
		if gs.ordered {
			ord = w.x[gs.packOrd]
		}
		gs.insert(r, k, ord, w.v, gs.seen(drop), drop)
	}
}
