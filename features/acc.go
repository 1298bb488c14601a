package features

import (
	"math"

	"github.com/onmart/onmart/features/slab"
)

// Accumulators hold the entries with K <= W of windows that have no beginning.

// accumulate takes an entry.
func (gs *groupState) accumulate(h []int64, k int64, v []int64) {
	gs.begin(h, k)
	for c := range gs.cols {
		gs.accumulateValue(h, &gs.cols[c], v[c])
	}
	h[gs.acc+accN]++
}

// accumulateEntry takes entry i of a ring.
func (gs *groupState) accumulateEntry(r *ring, i int) {
	gs.begin(r.h, r.d[i*gs.stride])
	for c := range gs.cols {
		gs.accumulateValue(r.h, &gs.cols[c], gs.value(r, i, c))
	}
	r.h[gs.acc+accN]++
}

func (gs *groupState) begin(h []int64, k int64) {
	if h[gs.acc+accN] == 0 {
		h[gs.acc+accFirst], h[gs.acc+accLast] = k, k
		return
	}
	h[gs.acc+accFirst] = min(h[gs.acc+accFirst], k)
	h[gs.acc+accLast] = max(h[gs.acc+accLast], k)
}

func (gs *groupState) accumulateValue(h []int64, c *aggColumn, x int64) {
	if at := c.accSum; at != 0 {
		s := wide{h[at+1], uint64(h[at])}
		s.add(x)
		h[at], h[at+1] = int64(s.lo), s.hi
	}
	if at := c.accSq; at != 0 {
		hi, lo := square(x)
		s := uint192{uint64(h[at]), uint64(h[at+1]), uint64(h[at+2])}.plus(hi, lo)
		h[at], h[at+1], h[at+2] = int64(s[0]), int64(s[1]), int64(s[2])
	}
	if at := c.accMin; at != 0 {
		if h[gs.acc+accN] == 0 {
			h[at], h[at+1] = x, x
		}
		h[at], h[at+1] = min(h[at], x), max(h[at+1], x)
	}
	if at := c.accSet; at != 0 {
		set := slab.Set(h[at])
		set.Add(gs.a, x)
		h[at] = int64(set)
	}
	if at := c.accBag; at != 0 {
		m := slab.Multiset(h[at])
		m.Add(gs.a, x, 1)
		h[at] = int64(m)
	}
}

// advance takes the entries of a ring whose time has come: K <= mark.
func (gs *groupState) advance(r *ring, mark int64) {
	if r.n == 0 {
		return
	}
	cursor := gs.cursorCount() - 1
	i := getCursor(r.h, gs.cursors, cursor)
	if r.d[i*gs.stride] > mark {
		return
	}
	for ; r.d[i*gs.stride] <= mark; i++ {
		gs.accumulateEntry(r, i)
	}
	setCursor(r.h, gs.cursors, cursor, i)
}

// Words of an exponentially weighted mean.
const (
	ewmaSum    = iota // float64 bits
	ewmaWeight        // float64 bits, 0 before the first entry
	ewmaLast          // greatest K
	ewmaWords
)

// decay takes an entry into the weighted means, in the order of the log.
func (gs *groupState) decay(r *ring, k int64, v []int64) {
	for i := range gs.outs {
		o := &gs.outs[i]
		if o.kind != EWMA {
			continue
		}
		h := r.h[o.slot:]
		x := float64(v[o.col]) / o.scale
		weight := math.Float64frombits(uint64(h[ewmaWeight]))
		if weight == 0 {
			h[ewmaSum], h[ewmaWeight], h[ewmaLast] = int64(math.Float64bits(x)), int64(math.Float64bits(1)), k
			continue
		}
		d := math.Exp2(-float64(max(0, k-h[ewmaLast])) / o.half)
		sum := float64(math.Float64frombits(uint64(h[ewmaSum]))*d) + x
		weight = float64(weight*d) + 1
		h[ewmaSum], h[ewmaWeight] = int64(math.Float64bits(sum)), int64(math.Float64bits(weight))
		h[ewmaLast] = max(h[ewmaLast], k)
	}
}

func (gs *groupState) ewmaOf(r *ring, o *output) float64 {
	h := r.h[o.slot:]
	weight := math.Float64frombits(uint64(h[ewmaWeight]))
	if weight == 0 {
		return o.empty
	}
	return math.Float64frombits(uint64(h[ewmaSum])) / weight
}
