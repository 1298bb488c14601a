package features

import (
	"cmp"
	"math"
	"slices"
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
	bound int64 // the horizon then
}

// delta is what label events have changed under one key. The ring of transactions stands for rows as they
// came, with their own label or none, and is only ever appended to; delta is added to what it gives.
type delta struct {
	ring         // by K: entries put in less those taken out, and their labels
	side []entry // entries put in that are replaced at `until`: taken off from then on. Few: a label after
	// the delay or a second label makes one.
}

// deltaLayout is the count and the sum of labels.
var deltaLayout = layout{stride: 3}

func (d *delta) apply(o *op) {
	v := [2]int64{int64(o.sign), int64(o.sign) * int64(o.e.y)}
	deltaLayout.insert(&d.ring, o.e.k, v[:], o.bound)
	if o.e.until == never {
		return
	}
	if o.sign < 0 {
		if i := slices.Index(d.side, o.e); i >= 0 {
			d.side = slices.Delete(d.side, i, i+1)
		}
		return
	}
	if len(d.side) == cap(d.side) {
		d.side = slices.DeleteFunc(d.side, func(e entry) bool { return e.k <= o.bound })
	}
	d.side = append(d.side, o.e)
}

// read counts the changes in window w, (start, t], and sums their labels.
func (d *delta) read(w int, start, t int64) (n, sum int64) {
	d.hi = deltaLayout.seek(&d.ring, d.hi, t)
	lo := deltaLayout.seek(&d.ring, d.lo[w], start)
	d.lo[w] = lo
	lo = min(lo, d.hi)
	n, sum = deltaLayout.sum(&d.ring, lo, d.hi, 0), deltaLayout.sum(&d.ring, lo, d.hi, 1)
	for _, e := range d.side {
		if e.k > start && e.until <= t {
			n--
			sum -= int64(e.y)
		}
	}
	return n, sum
}
