package features

import (
	"math"

	"github.com/onmart/onmart/features/slab"
)

// immortal is the reach of a key that holds something for ever.
const immortal = math.MaxInt64

// reach is how long after its last event, counted in W, a key can show in anything: immortal where windows without a
// beginning read it.
func (p *Plan) reach(k int) int64 {
	reach := int64(0)
	for _, g := range p.groups {
		if !p.names(g.key, k) {
			continue
		}
		if g.accumulates || g.ewma || g.keep > 0 {
			return immortal
		}
		r := g.shift + g.span + p.lateness
		if g.label {
			r += p.acceptFor
		}
		reach = max(reach, r)
	}
	for _, l := range p.labelled {
		if p.names(l.key, k) {
			reach = max(reach, p.horizon+p.retain)
		}
	}
	return reach
}

// names tells whether key j is k, or a pair that names it.
func (p *Plan) names(j, k int) bool {
	if j == k {
		return true
	}
	kp := &p.keys[j]
	return kp.col < 0 && (p.names(kp.left, k) || p.names(kp.right, k))
}

// seenPage is how many keys' times lie together.
const seenPage = 4096

// lifetimes is when each key of a table last had an event, where its keys come to an end.
type lifetimes struct {
	reach int64
	pages [][]int64
	hand  int // where sweep goes on
}

func (l *lifetimes) at(id int32) *int64 { return &l.pages[int(id)/seenPage][int(id)%seenPage] }

// see notes the events of a batch.
func (l *lifetimes) see(n int, ids []int32, t []int64) {
	if l.reach == immortal {
		return
	}
	for len(l.pages)*seenPage < n {
		page := make([]int64, seenPage)
		for i := range page {
			page[i] = -maxTime
		}
		l.pages = append(l.pages, page)
	}
	for i, id := range ids {
		if id != none {
			at := l.at(id)
			*at = max(*at, t[i])
		}
	}
}

// sweep looks at a few keys after each batch, in turn, and gives back what they hold where no window will reach it. A
// key that holds nothing loses its number. None of it shows in any feature: it bounds memory where keys come and go.
func (e *Engine) sweep(rows int) {
	st := e.st
	for k := range e.p.keys {
		l := &st.lives[k]
		if l.reach == immortal {
			continue
		}
		n := min(st.keys[k].cap(), len(l.pages)*seenPage)
		for range min(n, rows/4+1) {
			if l.hand++; l.hand >= n {
				l.hand = 0
			}
			id := int32(l.hand)
			if at := l.at(id); *at <= st.watermark-l.reach && st.keys[k].live(id) {
				e.bury(k, id)
				*at = -maxTime
			}
		}
	}
}

// bury gives back all that a key holds.
func (e *Engine) bury(k int, id int32) {
	for g := range e.st.groups {
		if gs := &e.st.groups[g]; gs.key == k {
			gs.clear(id)
		}
	}
	e.st.keys[k].drop(id)
}

// clear gives back what a key holds in the group.
func (gs *groupState) clear(id int32) {
	r := gs.open(id)
	if gs.group.ring {
		gs.release(&r)
		if gs.label && high(r.h[headHi]) > 0 {
			gs.dropDelta(r.h)
		}
	}
	for t := range gs.tabs {
		m := slab.Multiset(r.h[gs.tabs[t].ref])
		m.Free(gs.a)
	}
	for c := range gs.cols {
		if at := gs.cols[c].ext; at != 0 {
			x := slab.Extremes(r.h[at])
			x.Free(gs.a)
		}
	}
	clear(r.h)
}
