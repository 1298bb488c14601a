package features

import (
	"math"

	"github.com/onmart/onmart/features/slab"
)

// maxWindows is how many windows read one ring: a group with more is cut in two.
const maxWindows = 16

// headPage is how many heads lie together.
const headPage = 256

// ringStart is the number of entries a new ring has room for: most keys of a card stream see more.
const ringStart = 4

// walk is how many entries a cursor steps over one by one before it searches by bisection. In order, a
// cursor moves by about one entry an event.
const walk = 8

// groupState is the state of one group: heads by key, and rings in the arena.
type groupState struct {
	*group
	a     *slab.Arena
	pages [][]int64 // of heads
	none  []int64   // the ring of a key without entries: its sentinel
	blank []int64   // the head of a row without a key
	delta []delta
	spare []int32 // deltas that are free

	// The scratch's, while the group's turn lasts.
	in  []int64
	res []float64
}

func newGroupState(g *group, a *slab.Arena) groupState {
	gs := groupState{group: g, a: a, none: make([]int64, g.stride), blank: make([]int64, g.head)}
	gs.none[0] = math.MaxInt64
	return gs
}

// grow makes heads for keys up to n.
func (gs *groupState) grow(n int) {
	for len(gs.pages)*headPage < n {
		ref, _ := gs.a.Alloc(headPage * gs.head)
		page := gs.a.Words(ref, headPage*gs.head)
		clear(page)
		gs.pages = append(gs.pages, page)
	}
}

func (gs *groupState) headOf(id int32) []int64 {
	at := int(id) % headPage * gs.group.head
	return gs.pages[int(id)/headPage][at : at+gs.group.head : at+gs.group.head]
}

// ring is what is at hand of one key: its head, its entries and how many they are.
type ring struct {
	h []int64
	d []int64 // n entries and the sentinel, with K = MaxInt64 and the sums of all
	n int
}

func low(w int64) int       { return int(int32(w)) }
func high(w int64) int      { return int(w >> 32) }
func pair(lo, hi int) int64 { return int64(hi)<<32 | int64(uint32(lo)) }
func getCursor(h []int64, at, i int) int {
	w := h[at+i>>1]
	if i&1 == 0 {
		return low(w)
	}
	return high(w)
}

func setCursor(h []int64, at, i, v int) {
	w := &h[at+i>>1]
	if i&1 == 0 {
		*w = pair(v, high(*w))
	} else {
		*w = pair(low(*w), v)
	}
}

// open takes a key's ring up.
func (gs *groupState) open(id int32) ring {
	h := gs.headOf(id)
	if !gs.group.ring || h[headRing] == 0 {
		return ring{h: h, d: gs.none}
	}
	n := low(h[headSize])
	return ring{h: h, d: gs.a.Words(slab.Ref(h[headRing]), (high(h[headSize])+1)*gs.stride), n: n}
}

// fetchHead has the processor fetch a key's head.
func (gs *groupState) fetchHead(id int32) {
	h := gs.headOf(id)
	slab.Prefetch(&h[0])
	slab.Prefetch(&h[len(h)-1])
}

// fetchRing has it fetch what a row will touch of a key's ring, its end and where windows begin, and of what stands beside
// it.
func (gs *groupState) fetchRing(id int32) {
	r := gs.open(id)
	for _, at := range gs.blocks {
		gs.a.Prefetch(slab.Ref(r.h[at]))
	}
	if r.n == 0 {
		return
	}
	slab.Prefetch(&r.d[r.n*gs.stride])
	slab.Prefetch(&r.d[(r.n-1)*gs.stride])
	slab.Prefetch(&r.d[low(r.h[headHi])*gs.stride])
	for i := range gs.wins {
		if c := gs.wins[i].cursor; c >= 0 {
			slab.Prefetch(&r.d[getCursor(r.h, gs.cursors, c)*gs.stride])
		}
	}
}

// seek returns the number of entries with K <= bound, starting from cur.
func (g *group) seek(r *ring, cur int, bound int64) int {
	d, s := r.d, g.stride
	o := cur * s
	if d[o] <= bound {
		for range walk {
			cur++
			o += s
			if d[o] > bound {
				return cur
			}
		}
		return g.bisect(r, cur, r.n, bound)
	}
	for range walk {
		if cur == 0 || d[o-s] <= bound {
			return cur
		}
		cur--
		o -= s
	}
	return g.bisect(r, 0, cur, bound)
}

// bisect finds the first index in [lo, hi] with K > bound; the entry at hi is known to have it.
func (g *group) bisect(r *ring, lo, hi int, bound int64) int {
	for lo < hi {
		m := int(uint(lo+hi) / 2)
		if r.d[m*g.stride] > bound {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo
}

// place is where an entry goes: behind all that are not greater in order.
func (g *group) place(r *ring, k, ord int64) int {
	s := g.stride
	after := func(i int) bool { // the entry at i comes before or is equal
		x := r.d[i*s]
		return x < k || x == k && (!g.ordered || r.d[i*s+1] <= ord)
	}
	if r.n == 0 || after(r.n-1) {
		return r.n
	}
	lo, hi := 0, r.n-1
	for lo < hi {
		m := (lo + hi) / 2
		if after(m) {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// insert puts an entry in. v has a value for each column; at most what is past `drop` is forgotten for room, and of
// what is past `settled` all but the entries to keep.
func (gs *groupState) insert(r *ring, k, ord int64, v []int64, drop, settled int64) {
	gs.reserve(r, 1, drop, settled)
	s, d := gs.stride, r.d
	i := gs.place(r, k, ord)
	o, end := i*s, r.n*s
	if i == r.n {
		copy(d[end+s:end+2*s], d[end:end+s])
	} else {
		copy(d[o+s:end+2*s], d[o:end+s])
	}
	r.n++
	d[o] = k
	if gs.ordered {
		d[o+1] = ord
	}
	for c := range gs.cols {
		x := v[c]
		col := &gs.cols[c]
		if col.raw != 0 {
			d[o+col.raw] = x
		}
		if col.sum != 0 {
			for p := o + s + col.sum; p < end+2*s; p += s {
				d[p] += x
			}
		}
		if col.sq != 0 {
			h, l := square(x)
			for p := o + s + col.sq; p < end+2*s; p += s {
				add128(d[p:p+2:p+2], h, l)
			}
		}
	}
	r.h[headSize] = pair(r.n, high(r.h[headSize]))
	if i < r.n-1 {
		gs.moved(r, i)
	}
	for c := range gs.cols {
		if col := &gs.cols[c]; col.ext != 0 {
			gs.extend(r, col, i)
		}
	}
}

// push puts an entry behind all others, where there is room: insert without a search.
func (gs *groupState) push(r *ring, k, ord int64, v []int64) {
	s := gs.stride
	o := r.n * s
	d := r.d[o : o+2*s]
	copy(d[s:], d[:s])
	r.n++
	d[0] = k
	if gs.ordered {
		d[1] = ord
	}
	for c := range gs.cols {
		x, col := v[c], &gs.cols[c]
		if col.raw != 0 {
			d[col.raw] = x
		}
		if col.sum != 0 {
			d[s+col.sum] += x
		}
		if col.sq != 0 {
			h, l := square(x)
			add128(d[s+col.sq:s+col.sq+2:s+col.sq+2], h, l)
		}
	}
	r.h[headSize] = pair(r.n, high(r.h[headSize]))
	for c := range gs.cols {
		if col := &gs.cols[c]; col.ext != 0 {
			gs.extend(r, col, r.n-1)
		}
	}
}

// moved adjusts what points into a ring after an entry was put in at i, not at the end.
func (gs *groupState) moved(r *ring, i int) {
	if hi := low(r.h[headHi]); hi > i {
		r.h[headHi] = pair(hi+1, high(r.h[headHi]))
	}
	for c := range gs.cursorCount() {
		if x := getCursor(r.h, gs.cursors, c); x > i {
			setCursor(r.h, gs.cursors, c, x+1)
			if gs.pending() && c == gs.cursorCount()-1 {
				gs.accumulateEntry(r, i)
			}
		}
	}
	for t := range gs.tabs {
		tab := &gs.tabs[t]
		from, to := low(r.h[tab.ref+1]), high(r.h[tab.ref+1])
		switch {
		case i < from:
			from++
			to++
		case i < to:
			to++
			gs.count(r, tab, i, 1)
		}
		r.h[tab.ref+1] = pair(from, to)
	}
}

// pending tells whether entries wait in the ring for their time before accumulators take them.
func (g *group) pending() bool { return g.accumulates && (g.shift > 0 || g.label) }

func (g *group) cursorCount() int {
	n := btoi(g.pending())
	for i := range g.wins {
		if g.wins[i].cursor >= 0 {
			n++
		}
	}
	return n
}

// value is column c of entry i.
func (g *group) value(r *ring, i, c int) int64 {
	col, o := &g.cols[c], i*g.stride
	if col.raw != 0 {
		return r.d[o+col.raw]
	}
	return r.d[o+g.stride+col.sum] - r.d[o+col.sum]
}

// forgettable is how many entries from the first can never be seen again.
func (g *group) forgettable(r *ring, drop, settled int64) int {
	gone := g.seek(r, g.longest(r), drop)
	if g.keep > 0 {
		gone = min(gone, g.bisect(r, 0, r.n, settled)-g.keep)
	}
	return max(0, gone)
}

// longest is where the longest window of the last row began: what can be forgotten ends near it.
func (g *group) longest(r *ring) int {
	if g.reaches < 0 {
		return 0
	}
	return min(r.n, getCursor(r.h, g.cursors, g.wins[g.reaches].cursor))
}

// reserve makes room for m entries.
func (gs *groupState) reserve(r *ring, m int, drop, settled int64) {
	if r.h[headRing] != 0 && r.n+m <= high(r.h[headSize]) {
		return
	}
	if gs.pending() {
		gs.advance(r, settled) // what is forgotten must be in the accumulators
	}
	if gone := gs.forgettable(r, drop, settled); gone > 0 && gone >= r.n/4 {
		gs.forget(r, gone)
	}
	if r.h[headRing] == 0 || r.n+m > high(r.h[headSize]) {
		gs.resize(r, max(ringStart, r.n+max(m, r.n/2), gs.expected(r)))
	}
}

// expected is how many entries a ring will come to hold if the key goes on as it began, and a quarter more, so that it is not
// moved at every half more; at most four times what there is, and 0 where too little time has passed to tell.
func (g *group) expected(r *ring) int {
	if r.n < 2 || g.span > maxTime/2 {
		return 0
	}
	so, all := r.d[(r.n-1)*g.stride]-r.d[0], g.span+g.shift
	if so < all/16 || so == 0 {
		return 0
	}
	return int(min(float64(4*r.n), float64(r.n)*1.25*float64(all)/float64(so)))
}

// resize moves a ring to memory for at least n entries.
func (gs *groupState) resize(r *ring, n int) {
	s := gs.stride
	ref, words := gs.a.Alloc((n + 1) * s)
	d := gs.a.Words(ref, words/s*s)
	copy(d, r.d[:(r.n+1)*s])
	gs.release(r)
	r.d = d
	r.h[headRing], r.h[headSize] = int64(ref), pair(r.n, words/s-1)
}

// release gives a ring's memory back.
func (gs *groupState) release(r *ring) {
	if r.h[headRing] != 0 {
		gs.a.Free(slab.Ref(r.h[headRing]), (high(r.h[headSize])+1)*gs.stride)
		r.h[headRing] = 0
	}
}

// forget drops the first entries of a ring.
func (gs *groupState) forget(r *ring, gone int) {
	s := gs.stride
	for t := range gs.tabs {
		tab := &gs.tabs[t]
		from, to := low(r.h[tab.ref+1]), high(r.h[tab.ref+1])
		for ; from < min(gone, to); from++ {
			gs.count(r, tab, from, -1)
		}
		r.h[tab.ref+1] = pair(max(0, from-gone), max(0, to-gone))
	}
	copy(r.d, r.d[gone*s:(r.n+1)*s])
	r.n -= gone
	h := r.h
	h[headSize] = pair(r.n, high(h[headSize]))
	h[headHi] = pair(max(0, low(h[headHi])-gone), high(h[headHi]))
	for c := range gs.cursorCount() {
		setCursor(h, gs.cursors, c, max(0, getCursor(h, gs.cursors, c)-gone))
	}
	for c := range gs.cols {
		if col := &gs.cols[c]; col.ext != 0 {
			gs.rebuild(r, col)
		}
	}
}

// count adds an entry to a table, or takes it off.
func (gs *groupState) count(r *ring, t *bagTable, i int, by int32) {
	m := slab.Multiset(r.h[t.ref])
	m.Add(gs.a, gs.value(r, i, t.col), by)
	r.h[t.ref] = int64(m)
}

// table brings a table to the entries [from, to).
func (gs *groupState) table(r *ring, t *bagTable, from, to int) slab.Multiset {
	a, b := low(r.h[t.ref+1]), high(r.h[t.ref+1])
	if a == from && b == to {
		return slab.Multiset(r.h[t.ref])
	}
	if from >= b || to <= a { // nothing in common
		for ; a < b; a++ {
			gs.count(r, t, a, -1)
		}
		a, b = from, from
	}
	for ; b < to; b++ {
		gs.count(r, t, b, 1)
	}
	for ; a > from; a-- {
		gs.count(r, t, a-1, 1)
	}
	for ; a < from; a++ {
		gs.count(r, t, a, -1)
	}
	for ; b > to; b-- {
		gs.count(r, t, b-1, -1)
	}
	r.h[t.ref+1] = pair(from, to)
	return slab.Multiset(r.h[t.ref])
}

// total is the sum of column c over entries [lo, hi): a difference modulo 2^64, which is exact where no |value| times
// their number leaves 63 bits; else made in 128 bits.
func (g *group) total(r *ring, lo, hi, c int, bound uint64) wide {
	at := g.cols[c].sum
	if fits(bound, hi-lo) {
		return wideOf(r.d[hi*g.stride+at] - r.d[lo*g.stride+at])
	}
	var w wide
	for i := lo; i < hi; i++ {
		w.add(g.value(r, i, c))
	}
	return w
}

// exactSquares is a magnitude up to which 2^31 squares sum up inside 128 bits.
const exactSquares = 1 << 48

// squares is the sum of squares of column c over entries [lo, hi).
func (g *group) squares(r *ring, lo, hi, c int, bound uint64) uint192 {
	if at := g.cols[c].sq; bound < exactSquares {
		return sub128(r.d[hi*g.stride+at:], r.d[lo*g.stride+at:])
	}
	var sum uint192
	for i := lo; i < hi; i++ {
		h, l := square(g.value(r, i, c))
		sum = sum.plus(h, l)
	}
	return sum
}

// extremesOf is the column of a ring whose extremes are kept.
func (gs *groupState) extremesOf(r *ring, c *aggColumn) slab.Column {
	return slab.Column{Words: r.d, Stride: gs.stride, At: c.raw}
}

// extend tells a column's extremes of an entry that was put in at i.
func (gs *groupState) extend(r *ring, c *aggColumn, i int) {
	if i == r.n-1 {
		gs.extendTo(r, c, r.n)
		return
	}
	x := slab.Extremes(r.h[c.ext])
	x.Update(gs.a, gs.extremesOf(r, c), i, r.n)
	r.h[c.ext] = int64(x)
}

// extendTo tells a column's extremes that an entry was appended as the n-th.
func (gs *groupState) extendTo(r *ring, c *aggColumn, n int) {
	x := slab.Extremes(r.h[c.ext])
	x.Append(gs.a, gs.extremesOf(r, c), n)
	r.h[c.ext] = int64(x)
}

// rebuild makes a column's extremes anew after entries were dropped.
func (gs *groupState) rebuild(r *ring, c *aggColumn) {
	x := slab.Extremes(r.h[c.ext])
	x.Rebase(gs.a, gs.extremesOf(r, c), r.n)
	r.h[c.ext] = int64(x)
}

// extremes are the least and the greatest value of entries [lo, hi), of which there is one.
func (gs *groupState) extremes(r *ring, c *aggColumn, lo, hi int) (least, most int64) {
	return slab.Extremes(r.h[c.ext]).Query(gs.a, gs.extremesOf(r, c), lo, hi)
}
