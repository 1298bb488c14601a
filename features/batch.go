package features

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/derive"
)

// parallelFrom is the number of rows from which threads share a batch: below, waking them costs more than they save.
const parallelFrom = 512

// scratch is a batch as the sequential pass leaves it. Columns are by row of output but for cols and ids, which are by
// row of the input.
type scratch struct {
	cols         []datasets.Column // of the input, of joins, derived
	ids          [][]int32         // by key
	nullable     [][]bool          // nulls of columns in which a row needs a value
	t, top, mark []int64           // event time; max(t, W-lateness); W
	y            []int64           // carried label, 0 without one
	order64      []int64           // place among events of one instant
	keys         [][]int32
	vals         [][]int64 // by Plan.vals
	absent       [][]bool  // where a value is null; nil: nowhere
	pass         [][]bool  // by Plan.filters
	starts       [][]int64 // by Plan.units
	most         []uint64  // the state's
	drop         int64     // W-lateness when the batch began
	ownVals      [][]int64 // memory
	ownKeys      [][]int32
	ownAbsent    [][]bool
	lastCols     []datasets.Column
	ownLast      []datasets.Column
	ops          [][]op // by Plan.labelled
	links        []link
	old, new     []entry
	sorted       [][]uint64 // by key: its number and the row, in the order of the numbers
	buf          [][]uint64 // by key
	place        [][]int32  // by key: of a row in the order of the numbers
	runs         [][]int32  // by key: where the rows of each number begin in that order, and their end
	opsDone      [][]bool
	tasks        []task

	// Of the group at hand.
	in  []int64   // packed rows, in the order of keys
	res []float64 // the features of each
}

// task is the keys [from, to) of a group, in the order of their numbers.
type task struct{ group, from, to int }

func newScratch(p *Plan) scratch {
	return scratch{
		ids: make([][]int32, len(p.keys)), keys: make([][]int32, len(p.keys)), ownKeys: make([][]int32, len(p.keys)),
		vals: make([][]int64, len(p.vals)), ownVals: make([][]int64, len(p.vals)), absent: make([][]bool, len(p.vals)),
		ownAbsent: make([][]bool, len(p.vals)), pass: make([][]bool, len(p.filters)), starts: make([][]int64, len(p.units)),
		ops: make([][]op, len(p.labelled)), sorted: make([][]uint64, len(p.keys)), buf: make([][]uint64, len(p.keys)),
		place: make([][]int32, len(p.keys)), runs: make([][]int32, len(p.keys)),
		opsDone: make([][]bool, len(p.labelled)), ownLast: make([]datasets.Column, len(p.lastIn)),
	}
}

// bound is a magnitude that no value so far exceeds.
func (sc *scratch) bound(val int) uint64 {
	if val == labelValue {
		return 1
	}
	return sc.most[val]
}

// gathered gives the values of the rows of output; where that is all rows it copies nothing.
func gathered[T any](dst *[]T, src []T, rows []int32, all bool) []T {
	if all {
		return src[:len(rows)]
	}
	*dst = (*dst)[:0]
	for _, r := range rows {
		*dst = append(*dst, src[r])
	}
	return *dst
}

// gather brings what groups read into the order of the rows of output.
func (e *Engine) gather(in *datasets.Batch, out *Rows) {
	p, sc := e.p, &e.sc
	all := out.N == in.N
	for k := range p.keys {
		sc.keys[k] = gathered(&sc.ownKeys[k], sc.ids[k], out.Input, all)
		e.st.lives[k].see(e.st.keys[k].cap(), sc.keys[k], sc.t)
	}
	for v := range p.vals {
		e.gatherValue(v, out.Input, all)
	}
	for f := range p.filters {
		e.gatherFilter(f, out.Input)
	}
	for u := range p.units {
		c := &e.st.units[u]
		sc.starts[u] = sc.starts[u][:0]
		for _, t := range sc.t {
			sc.starts[u] = append(sc.starts[u], c.start(t))
		}
	}
}

func (e *Engine) gatherValue(v int, rows []int32, all bool) {
	sc, vp := &e.sc, &e.p.vals[v]
	c := &sc.cols[vp.col]
	sc.absent[v] = nil
	if c.Null != nil {
		sc.absent[v] = gathered(&sc.ownAbsent[v], c.Null, rows, all)
	}
	switch {
	case c.Strings != nil:
		own := sc.ownVals[v][:0]
		for _, r := range rows {
			own = append(own, int64(derive.Hash(c.Strings[r])))
		}
		sc.ownVals[v], sc.vals[v] = own, own
	case c.Floats != nil:
		own := sc.ownVals[v][:0]
		for _, r := range rows {
			own = append(own, ordered64(c.Floats[r]))
		}
		sc.ownVals[v], sc.vals[v] = own, own
	default:
		sc.vals[v] = gathered(&sc.ownVals[v], c.Ints, rows, all)
		if vp.form == number {
			sc.most[v] = greatest(sc.vals[v], sc.most[v])
		}
	}
}

// greatest is the greatest magnitude of values, at least `so far`.
func greatest(v []int64, most uint64) uint64 {
	for _, x := range v {
		most = max(most, magnitude(x))
	}
	return most
}

func (e *Engine) gatherFilter(f int, rows []int32) {
	pass := e.sc.pass[f][:0]
	for _, r := range rows {
		pass = append(pass, e.passes(&e.p.filters[f], int(r)))
	}
	e.sc.pass[f] = pass
}

// passes tells whether a row of the input is an entry for a filter.
func (e *Engine) passes(f *filterPlan, row int) bool {
	cols := e.sc.cols
	if f.where >= 0 && (cols[f.where].IsNull(row) || cols[f.where].Ints[row] == 0) {
		return false
	}
	for _, c := range f.present {
		if cols[c].IsNull(row) {
			return false
		}
	}
	return true
}

// direct gives the features that are columns of the row.
func (e *Engine) direct(out *Rows) {
	for i := range e.p.direct {
		f := &e.p.direct[i]
		column(out.Values[f.dest], &e.sc.cols[f.col], f.float, f.scale, out.Input)
	}
}

// column copies the rows of a column as float64.
func column(dst []float64, c *datasets.Column, float bool, scale float64, rows []int32) {
	switch {
	case float:
		for j, r := range rows {
			dst[j] = c.Floats[r]
		}
	case scale == 1:
		for j, r := range rows {
			dst[j] = float64(c.Ints[r])
		}
	default:
		for j, r := range rows {
			dst[j] = float64(c.Ints[r]) / scale
		}
	}
}

// aggregate computes the groups, one after the other, so that what a batch brings to them and takes from them lies in the same
// memory. In a group rows are packed and sorted by key, visited in that order, and what comes out is brought back into the
// order of the rows.
func (e *Engine) aggregate(out *Rows) {
	shared := out.N >= e.parallel && e.threads > 1
	if shared {
		e.share(len(e.p.keys), func(k, _ int) { e.sort(k) })
	} else {
		for k := range e.p.keys {
			e.sort(k)
		}
	}
	for g := range e.st.groups {
		gs := &e.st.groups[g]
		gs.grow(e.st.keys[gs.key].cap())
		e.prepare(gs)
	}
	if out.N < fetchFrom {
		e.fetch()
	}
	for g := range e.st.groups {
		gs := &e.st.groups[g]
		e.plan(g, out.N, shared)
		if shared {
			e.groupShared(gs, out)
		} else {
			gs.pack(&e.sc, 0, out.N)
			e.watch.lap(stageOrder)
			for i := range e.sc.tasks {
				e.run(&e.sc.tasks[i], 0)
			}
			e.watch.group(g)
			gs.unsort(&e.sc, out, 0, out.N)
		}
		e.leftOver(gs)
	}
}

// fetchFrom is the number of rows below which all that a batch will touch is fetched ahead: with one event at a time the
// groups wait for memory one after the other otherwise.
const fetchFrom = 16

// fetch has the processor fetch the heads of the rows' keys in all groups, then their rings.
func (e *Engine) fetch() {
	for stage := range 2 {
		for g := range e.st.groups {
			gs := &e.st.groups[g]
			for _, id := range e.sc.keys[gs.key] {
				switch {
				case id == none:
				case stage == 0:
					gs.fetchHead(id)
				default:
					gs.fetchRing(id)
				}
			}
		}
	}
}

// plan makes room for what a group has of a batch of n rows, and cuts it into tasks.
func (e *Engine) plan(g, n int, shared bool) {
	sc, gs := &e.sc, &e.st.groups[g]
	words, outs := n*gs.packed, n*len(gs.outs)
	sc.in, sc.res = slices.Grow(sc.in[:0], words), slices.Grow(sc.res[:0], outs)
	gs.in, gs.res = sc.in[:words], sc.res[:outs]
	pieces := 1
	if shared {
		pieces = 4 * e.threads
	}
	sc.tasks = cutTasks(sc.tasks[:0], g, sc.runs[gs.key], pieces)
}

func (e *Engine) groupShared(gs *groupState, out *Rows) {
	pieces := 4 * e.threads
	part := func(i int) (from, to int) { return out.N * i / pieces, out.N * (i + 1) / pieces }
	e.share(pieces, func(i, _ int) { from, to := part(i); gs.pack(&e.sc, from, to) })
	e.share(len(e.sc.tasks), func(i, thread int) { e.run(&e.sc.tasks[i], thread) })
	e.share(pieces, func(i, _ int) { from, to := part(i); gs.unsort(&e.sc, out, from, to) })
}

// share does n things on all threads.
func (e *Engine) share(n int, do func(i, thread int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for t := range e.threads {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i, t)
			}
		})
	}
	wg.Wait()
}

// stretchWords is how many words of rows are packed or unsorted at a time: so many stay in the nearest cache while one column
// after the other goes through them, though each row begins and ends inside a line of memory.
const stretchWords = 2048

// stretch is how many rows of so many words that is.
func stretch(words int) int { return max(32, stretchWords/max(1, words)) }

// pack writes what the group reads of the rows [from, to).
func (gs *groupState) pack(sc *scratch, from, to int) {
	for step := stretch(gs.packed); from < to; from += step {
		end := min(to, from+step)
		place := sc.place[gs.key][from:end]
		gs.put(packTime, sc.t[from:end], place)
		gs.put(packTop, sc.top[from:end], place)
		if gs.packMark != 0 {
			gs.put(gs.packMark, sc.mark[from:end], place)
		}
		if gs.packOrd != 0 {
			gs.put(gs.packOrd, sc.order64[from:end], place)
		}
		for i := range gs.wins {
			if w := &gs.wins[i]; w.form == calendarUnit {
				gs.put(w.start, sc.starts[w.unit][from:end], place)
			}
		}
		for c := range gs.cols {
			col := sc.y
			if v := gs.cols[c].val; v != labelValue {
				col = sc.vals[v]
			}
			gs.put(gs.packVals+c, col[from:end], place)
		}
	}
}

// put writes one word of the packed rows.
func (gs *groupState) put(word int, col []int64, place []int32) {
	in, s := gs.in, gs.packed
	for r, at := range place {
		in[int(at)*s+word] = col[r]
	}
}

// unsort brings the group's features of the rows [from, to) into their columns.
func (gs *groupState) unsort(sc *scratch, out *Rows, from, to int) {
	n := len(gs.outs)
	step := stretch(n)
	for at := from; at < to; at += step {
		end := min(to, at+step)
		place := sc.place[gs.key][at:end]
		for i := range gs.outs {
			res, dst := gs.res[i:], out.Values[gs.outs[i].dest][at:end]
			for r, p := range place {
				dst[r] = res[int(p)*n]
			}
		}
	}
}

// cutTasks makes tasks of a group's runs of rows of one key.
func cutTasks(tasks []task, group int, runs []int32, pieces int) []task {
	n := len(runs) - 1
	if n <= 0 {
		return tasks
	}
	share := int(runs[n]) / pieces
	for from := 0; from < n; {
		to := from + 1
		for to < n && int(runs[to]-runs[from]) < share {
			to++
		}
		tasks = append(tasks, task{group, from, to})
		from = to
	}
	return tasks
}

// run computes a task on a thread. While it is at one key, the processor fetches what it will touch of the next two: with
// many keys that is most of the time otherwise.
func (e *Engine) run(x *task, thread int) {
	w := &e.readers[thread][x.group]
	gs := w.gs
	sorted, runs, res, outs := e.sc.sorted[gs.key], e.sc.runs[gs.key], gs.res, len(gs.outs)
	id := func(q int) uint64 { return sorted[runs[q]] >> 32 }
	for q := x.from; q < x.to; q++ {
		if q+2 < x.to && id(q+2) != noKey {
			gs.fetchHead(int32(id(q + 2)))
		}
		if q+1 < x.to && id(q+1) != noKey {
			gs.fetchRing(int32(id(q + 1)))
		}
		from, to := int(runs[q]), int(runs[q+1])
		if id(q) != noKey {
			w.key(int32(id(q)), sorted[from:to], from, res[from*outs:to*outs])
			continue
		}
		for i := from; i < to; i++ {
			w.alone(i, int(uint32(sorted[i])), res[i*outs:(i+1)*outs])
		}
	}
}

// noKey is the number by which rows without a key are sorted.
const noKey = 1<<32 - 1

// sort puts the rows into the order of a key's numbers, rows of one number in their own order.
func (e *Engine) sort(k int) {
	sc := &e.sc
	s := slices.Grow(sc.sorted[k][:0], len(sc.keys[k]))
	top := uint64(0)
	for r, id := range sc.keys[k] {
		s = append(s, uint64(uint32(id))<<32|uint64(r))
		top = max(top, uint64(max(id, 0)))
	}
	if len(s) <= 48 {
		slices.Sort(s)
	} else {
		buf := slices.Grow(sc.buf[k][:0], len(s))[:len(s)]
		s, sc.buf[k] = radix(s, buf, top)
	}
	place := slices.Grow(sc.place[k][:0], len(s))[:len(s)]
	for i, x := range s {
		place[uint32(x)] = int32(i)
	}
	runs := sc.runs[k][:0]
	for i, x := range s {
		if i == 0 || x>>32 != s[i-1]>>32 {
			runs = append(runs, int32(i))
		}
	}
	sc.sorted[k], sc.place[k], sc.runs[k] = s, place, append(runs, int32(len(s)))
}

// radix sorts by the upper 32 bits, which are at most top or noKey, in stable passes of 11 bits. It returns the sorted
// one of the two slices first.
func radix(s, buf []uint64, top uint64) (sorted, other []uint64) {
	const digit = 11
	for shift := 32; shift < 64; shift += digit {
		if shift > 32 && top>>(shift-32) == 0 {
			break
		}
		last := top>>(shift-32+digit) == 0 // the digit that tells noKey from all numbers: nothing above counts
		var start [1<<digit + 1]int32
		at := func(x uint64) int {
			if last && x>>32 == noKey {
				return 1<<digit - 1 + 1
			}
			return int(x >> shift & (1<<digit - 1))
		}
		var count [1<<digit + 1]int32
		for _, x := range s {
			count[at(x)]++
		}
		sum := int32(0)
		for i, c := range count {
			start[i] = sum
			sum += c
		}
		for _, x := range s {
			i := at(x)
			buf[start[i]] = x
			start[i]++
		}
		s, buf = buf, s
	}
	return s, buf
}

// prepare sorts the changes of labels by key and makes their deltas.
func (e *Engine) prepare(gs *groupState) {
	if !gs.label {
		return
	}
	ops := e.sc.ops[gs.changes]
	slices.SortStableFunc(ops, func(a, b op) int { return int(a.key) - int(b.key) })
	done := slices.Grow(e.sc.opsDone[gs.changes][:0], len(ops))[:len(ops)]
	clear(done)
	e.sc.opsDone[gs.changes] = done
	for i := range ops {
		gs.deltaFor(ops[i].key)
	}
}

// leftOver makes the changes of keys that have no row in the batch.
func (e *Engine) leftOver(gs *groupState) {
	if !gs.label {
		return
	}
	ops, done := e.sc.ops[gs.changes], e.sc.opsDone[gs.changes]
	for i := range ops {
		if !done[i] {
			gs.apply(gs.deltaFor(ops[i].key), &ops[i])
		}
	}
}

// finish computes the features of features.
func (e *Engine) finish(out *Rows) {
	if e.last == nil || out.N == 0 {
		return
	}
	sc := &e.sc
	sc.lastCols = sc.lastCols[:0]
	for i, in := range e.p.lastIn {
		own := &sc.ownLast[i]
		if in.feature >= 0 {
			sc.lastCols = append(sc.lastCols, datasets.Column{Floats: out.Values[in.feature]})
			continue
		}
		take(own, &sc.cols[in.col], out.Input)
		sc.lastCols = append(sc.lastCols, *own)
	}
	cols := e.last.Run(sc.lastCols, out.N)
	for i := range e.p.lastOut {
		o := &e.p.lastOut[i]
		c := &cols[o.col]
		dst := out.Values[o.dest]
		for r := range out.N {
			switch {
			case c.IsNull(r):
				dst[r] = o.empty
			case o.float:
				dst[r] = c.Floats[r]
			default:
				dst[r] = float64(c.Ints[r]) / o.scale
			}
		}
	}
}

// take copies the rows of a column.
func take(dst, src *datasets.Column, rows []int32) {
	dst.Ints, dst.Floats, dst.Strings, dst.Null = dst.Ints[:0], dst.Floats[:0], dst.Strings[:0], dst.Null[:0]
	for _, r := range rows {
		switch {
		case src.Ints != nil:
			dst.Ints = append(dst.Ints, src.Ints[r])
		case src.Floats != nil:
			dst.Floats = append(dst.Floats, src.Floats[r])
		default:
			dst.Strings = append(dst.Strings, src.Strings[r])
		}
		if src.Null != nil {
			dst.Null = append(dst.Null, src.Null[r])
		}
	}
	if src.Null == nil {
		dst.Null = nil
	}
}

// trimRows is after how many rows memory is brought near its budget.
const trimRows = 1024

// forgetRows is after how many rows events are forgotten: one live event in so many pays for all.
const forgetRows = 8

// forget drops events that are past holding and gives back what keys hold that are not seen any more.
func (e *Engine) forget(rows int) error {
	e.due += rows
	bound := e.p.horizonAt(e.st.watermark)
	if bound == beginning || e.due < forgetRows {
		return nil
	}
	e.st.rec.drop(e.p, bound)
	e.sweep(e.due)
	e.untrimmed += e.due
	e.due = 0
	if e.untrimmed < trimRows {
		return nil
	}
	e.untrimmed = 0
	return errors.Join(e.a.Trim(), e.ra.Trim())
}
