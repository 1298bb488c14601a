package slab

import (
	"math/bits"
	"slices"
)

// SizeWith is what Size would be after Add(v), which it does not do.
func (s Set) SizeWith(a *Arena, v int64) float64 {
	if s == 0 {
		return 1
	}
	head := s.head(a)
	if head == sketchHead {
		var w [sketchWords]int64
		copy(w[:], a.Words(Ref(s), sketchWords))
		h := mix(uint64(v))
		if !raise(w[:], h>>(64-registerBits), min(bits.LeadingZeros64(h<<registerBits)+1, maxRank)) {
			return s.Size(a)
		}
		return estimate(w[:])
	}
	n := int(head & setCountMask)
	switch {
	case s.has(a, head, v):
		return float64(n)
	case n < SetExact:
		return float64(n + 1)
	}
	var copied Set
	if _, err := copied.Restore(a, s.Words(a, nil)); err != nil {
		panic(err) // Words gives what Restore takes
	}
	defer copied.Free(a)
	copied.Add(a, v)
	return copied.Size(a)
}

// has tells whether an exact set has a value.
func (s Set) has(a *Arena, head, v int64) bool {
	n, words := int(head&setCountMask), setWords(head)
	w := a.Words(Ref(s), words)
	switch {
	case words <= listMost+1:
		return slices.Contains(w[1:1+n], v)
	case v == 0:
		return head&setHasZero != 0
	}
	_, ok := seekValue(w[1:], v)
	return ok
}
