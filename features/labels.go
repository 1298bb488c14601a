package features

import (
	"cmp"
	"math"
	"slices"

	"github.com/onmart/onmart/features/slab"
)

// never is the end of an entry that nothing replaces.
const never = math.MaxInt64

// entry is a transaction's part in label features: value y in [k, until).
type entry struct {
	k, until int64
	y        int8
}

// link is a label of a transaction as it stands in the chain.
type link struct {
	k, seq int64
	part   int32
	y      int8
}

// chain computes the entries of a transaction at t from its links, in any order: its own label, known at
// t+delay, among them. The result is appended to dst.
func chain(dst []entry, t, delay int64, links []link) []entry {
	slices.SortFunc(links, func(a, b link) int {
		return cmp.Or(cmp.Compare(a.k, b.k), cmp.Compare(a.part, b.part), cmp.Compare(a.seq, b.seq))
	})
	due := t + delay
	if len(links) == 0 || links[0].k > due {
		e := entry{k: due, until: never}
		if len(links) > 0 {
			e.until = links[0].k
		}
		dst = append(dst, e)
	}
	for i, l := range links {
		e := entry{k: l.k, until: never, y: l.y}
		if i+1 < len(links) {
			e.until = links[i+1].k
		}
		if e.k < e.until { // of several labels at one instant the last counts
			dst = append(dst, e)
		}
	}
	return dst
}

// op is a change that a label event makes to the label entries of one key, due before row `at` is computed.
type op struct {
	at    int32
	key   int32
	sign  int8 // +1: the entry is put in, -1: taken out
	e     entry
	bound int64 // what K up to it no window of labels reaches
}

// delta is what label events have changed under one key of a group. The ring of transactions stands for rows as they
// came, with their own label or none, and is only ever appended to; delta is added to what it gives.
type delta struct {
	points block             // by K: entries put in less those taken out, and their labels, as sums of all before
	hi     int32             // hints, as in a ring
	lo     [maxWindows]int32 // by window
	side   block             // k, until, y of entries put in that are replaced at `until`: taken off from then on. Few: a
	// label after the delay or a second label makes one.

	// Of windows without a beginning.
	n, y int64 // entries and labels with K <= W
	wait block // K, n, y of changes whose time has not come
}

// block is a list of three words each in the arena.
type block struct {
	ref     slab.Ref
	n, room int32
}

const blockWords = 3

func (b *block) words(a *slab.Arena) []int64 {
	if b.ref == 0 {
		return nil
	}
	return a.Words(b.ref, int(b.room)*blockWords)
}

// reserve makes room for n triples.
func (b *block) reserve(a *slab.Arena, n int) []int64 {
	if n <= int(b.room) {
		return b.words(a)
	}
	ref, words := a.Alloc(n * blockWords)
	w := a.Words(ref, words)
	copy(w, b.words(a))
	b.free(a)
	b.ref, b.room = ref, int32(words/blockWords)
	return w[:int(b.room)*blockWords]
}

func (b *block) free(a *slab.Arena) {
	if b.ref != 0 {
		a.Free(b.ref, int(b.room)*blockWords)
	}
	*b = block{n: b.n}
}

func (b *block) push(a *slab.Arena, x, y, z int64) {
	w := b.reserve(a, int(b.n)+1)
	copy(w[int(b.n)*blockWords:], []int64{x, y, z})
	b.n++
}

// remove takes triple i out; the order of the others changes.
func (b *block) remove(a *slab.Arena, i int) {
	w := b.words(a)
	b.n--
	copy(w[i*blockWords:(i+1)*blockWords], w[int(b.n)*blockWords:])
}

// deltaGroup is the layout of points: K, and the sums of entries and labels before.
var deltaGroup = group{stride: blockWords}

// deltaFor finds or makes the delta of a key.
func (gs *groupState) deltaFor(id int32) *delta {
	h := gs.headOf(id)
	i := high(h[headHi]) - 1
	if i < 0 {
		if n := len(gs.spare); n > 0 {
			i, gs.spare = int(gs.spare[n-1]), gs.spare[:n-1]
		} else {
			i = len(gs.delta)
			gs.delta = append(gs.delta, delta{})
		}
		h[headHi] = pair(low(h[headHi]), i+1)
	}
	return &gs.delta[i]
}

// deltaOf is what label events changed under a key, or nil.
func (gs *groupState) deltaOf(r *ring) *delta {
	if i := high(r.h[headHi]) - 1; i >= 0 {
		return &gs.delta[i]
	}
	return nil
}

// dropDelta frees a key's delta.
func (gs *groupState) dropDelta(h []int64) {
	i := high(h[headHi]) - 1
	d := &gs.delta[i]
	d.points.free(gs.a)
	d.side.free(gs.a)
	d.wait.free(gs.a)
	*d = delta{}
	gs.spare = append(gs.spare, int32(i))
	h[headHi] = pair(low(h[headHi]), 0)
}

// apply makes one change.
func (gs *groupState) apply(d *delta, o *op) {
	n, y := int64(o.sign), int64(o.sign)*int64(o.e.y)
	if gs.labelsEver {
		d.wait.push(gs.a, o.e.k, n, y)
		if o.e.until != never {
			d.wait.push(gs.a, o.e.until, -n, -y)
		}
	}
	if gs.labels == 0 || o.e.k <= o.bound {
		return
	}
	gs.point(d, o.e.k, n, y, o.bound)
	if o.e.until == never {
		return
	}
	if o.sign > 0 {
		gs.trimSide(d, o.bound)
		d.side.push(gs.a, o.e.k, o.e.until, int64(o.e.y))
		return
	}
	w := d.side.words(gs.a)
	for i := range int(d.side.n) {
		if w[i*blockWords] == o.e.k && w[i*blockWords+1] == o.e.until && w[i*blockWords+2] == int64(o.e.y) {
			d.side.remove(gs.a, i)
			return
		}
	}
}

// trimSide drops what cannot be seen any more before room for more is made.
func (gs *groupState) trimSide(d *delta, bound int64) {
	if d.side.n < d.side.room {
		return
	}
	w := d.side.words(gs.a)
	for i := int(d.side.n) - 1; i >= 0; i-- {
		if w[i*blockWords] <= bound {
			d.side.remove(gs.a, i)
		}
	}
}

// point enters a change into the points, which are in the order of K.
func (gs *groupState) point(d *delta, k, n, y, bound int64) {
	b := &d.points
	if b.ref == 0 {
		w := b.reserve(gs.a, 2)
		w[0], w[1], w[2] = math.MaxInt64, 0, 0
	}
	if b.n+1 == b.room {
		gs.trimPoints(d, bound)
	}
	w := b.reserve(gs.a, int(b.n)+2)
	r := ring{d: w, n: int(b.n)}
	i := deltaGroup.bisect(&r, 0, r.n, k)
	const s = blockWords
	copy(w[(i+1)*s:(r.n+2)*s], w[i*s:(r.n+1)*s])
	w[i*s] = k
	for p := (i + 1) * s; p < (r.n+2)*s; p += s {
		w[p+1] += n
		w[p+2] += y
	}
	b.n++
	if int(d.hi) > i {
		d.hi++
	}
	for j := range d.lo {
		if int(d.lo[j]) > i {
			d.lo[j]++
		}
	}
}

func (gs *groupState) trimPoints(d *delta, bound int64) {
	b := &d.points
	w := b.words(gs.a)
	r := ring{d: w, n: int(b.n)}
	gone := deltaGroup.bisect(&r, 0, r.n, bound)
	copy(w, w[gone*blockWords:(r.n+1)*blockWords])
	b.n -= int32(gone)
	d.hi = max(0, d.hi-int32(gone))
	for j := range d.lo {
		d.lo[j] = max(0, d.lo[j]-int32(gone))
	}
}

// deltaRead counts the changes in window i, (start, t], and sums their labels.
func (gs *groupState) deltaRead(d *delta, i int, start, t int64) (n, y int64) {
	if d.points.ref == 0 {
		return 0, 0
	}
	w := d.points.words(gs.a)
	r := ring{d: w, n: int(d.points.n)}
	hi := deltaGroup.seek(&r, int(d.hi), t)
	lo := deltaGroup.seek(&r, int(d.lo[i]), start)
	d.hi, d.lo[i] = int32(hi), int32(lo)
	lo = min(lo, hi)
	n, y = w[hi*blockWords+1]-w[lo*blockWords+1], w[hi*blockWords+2]-w[lo*blockWords+2]
	side := d.side.words(gs.a)
	for j := range int(d.side.n) {
		if e := side[j*blockWords:]; e[0] > start && e[1] <= t {
			n--
			y -= e[2]
		}
	}
	return n, y
}

// deltaEver counts the changes with K <= mark.
func (gs *groupState) deltaEver(d *delta, mark int64) (n, y int64) {
	w := d.wait.words(gs.a)
	for i := int(d.wait.n) - 1; i >= 0; i-- {
		if e := w[i*blockWords:]; e[0] <= mark {
			d.n, d.y = d.n+e[1], d.y+e[2]
			d.wait.remove(gs.a, i)
		}
	}
	return d.n, d.y
}
