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

// op is a change to the label entries of one key, due before the row numbered at is computed.
type op struct {
	at     int32
	key    int32
	remove bool
	e      entry
	bound  int64 // the horizon then
}

// side is the entries of one shard that are replaced at some time, by key. They stand in the ring too, and
// are taken off what the ring gives from their `until` on. Expected to be few: labels later than the delay.
type side map[int32][]entry

func (s side) insert(key int32, e entry, drop int64) {
	list := s[key]
	if len(list) == cap(list) {
		list = slices.DeleteFunc(list, func(o entry) bool { return o.k <= drop })
	}
	s[key] = append(list, e)
}

func (s side) remove(key int32, e entry) {
	list := s[key]
	if i := slices.Index(list, e); i >= 0 {
		list[i] = list[len(list)-1]
		s[key] = list[:len(list)-1]
	}
	if len(s[key]) == 0 {
		delete(s, key)
	}
}

// replaced counts the entries with K in (bound, t] that are replaced by t, and sums their labels.
func (s side) replaced(key int32, bound, t int64) (n, sum int64) {
	for _, e := range s[key] {
		if e.k > bound && e.until <= t {
			n++
			sum += int64(e.y)
		}
	}
	return n, sum
}
