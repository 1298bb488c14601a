package slab

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Set counts different int64 values that are never taken out: a Ref, 0 while it is empty, so that it can stand in a
// word of a block. It is exact to SetExact values and then becomes a HyperLogLog sketch of 4 KiB, whose size has
// a standard error of SetError. Which values it has been given decides its contents, and nothing else: neither
// their order nor how often each came.
type Set Ref

const (
	// SetExact is how many values a set counts exactly.
	SetExact = 1024

	// registerBits: 2^12 registers.
	registerBits = 12
	registers    = 1 << registerBits

	// Below, a set is a header and its values: up to listMost of them in no order, above in open addressing over
	// all of the block, at most four fifths full.
	listMost = 15

	// Words of a sketch: a header that is sketchHead, the size as float64 bits or 0 where it is not known, how many
	// registers have each value, 16 bits each, and the registers, 6 bits each.
	sketchHead      = -1
	sketchSize      = 1
	sketchHistogram = 2
	histogramWords  = (maxRank + 1 + 3) / 4
	sketchRegisters = sketchHistogram + histogramWords
	registerWords   = (registers + 9) / 10
	sketchWords     = sketchRegisters + registerWords

	// maxRank is the highest value of a register: leading zeros of the 52 bits of hash that do not choose the
	// register, plus one.
	maxRank = 64 - registerBits + 1
)

// SetError is the standard error of the size of a set of more than SetExact values, relative to it:
// 1.04/sqrt(2^12).
const SetError = 1.04 / 64

// Header of an exact set: the number of values, the words of its block, and whether 0 is among the values, which in
// open addressing stands for an empty slot.
const (
	setWordsShift = 16
	setHasZero    = 1 << 40
	setCountMask  = 1<<setWordsShift - 1
)

func (s Set) head(a *Arena) int64 { return a.Words(Ref(s), 1)[0] }

func setWords(head int64) int { return int(head >> setWordsShift & (1<<24 - 1)) }

// Add adds a value; fresh tells that the set changed.
func (s *Set) Add(a *Arena, v int64) (fresh bool) {
	if *s == 0 {
		s.make(a, 1)
	}
	head := s.head(a)
	if head == sketchHead {
		return s.addSketch(a, v)
	}
	n, words := int(head&setCountMask), setWords(head)
	w := a.Words(Ref(*s), words)
	if words <= listMost+1 {
		if slices.Contains(w[1:1+n], v) {
			return false
		}
		if n == listMost {
			s.grow(a)
			return s.Add(a, v)
		}
		s.addList(a, w, n, v)
		return true
	}
	if v == 0 && head&setHasZero != 0 {
		return false
	}
	i := 0
	if v != 0 {
		var ok bool
		if i, ok = seekValue(w[1:], v); ok {
			return false
		}
	}
	if n == SetExact {
		s.toSketch(a)
		return s.addSketch(a, v)
	}
	if 5*(n+1) > 4*(words-1) {
		s.grow(a)
		return s.Add(a, v)
	}
	w[0]++
	if v == 0 {
		w[0] |= setHasZero
	} else {
		w[1+i] = v
	}
	return true
}

// make gives an empty set a block for n values and a header.
func (s *Set) make(a *Arena, n int) {
	r, words := a.Alloc(1 + n)
	a.Words(r, 1)[0] = int64(words) << setWordsShift
	*s = Set(r)
}

// addList adds a value that is not there to a list of n.
func (s *Set) addList(a *Arena, w []int64, n int, v int64) {
	if 1+n == len(w) {
		r, words := a.Grow(Ref(*s), len(w), len(w), len(w)+1)
		w = a.Words(r, words)
		w[0] = int64(n) | int64(words)<<setWordsShift
		*s = Set(r)
	}
	w[0]++
	w[1+n] = v
}

// seekValue is the slot of a value, which is not 0, or the empty one where it would be.
func seekValue(slots []int64, v int64) (i int, ok bool) {
	h, _ := bits.Mul64(mix(uint64(v)), uint64(len(slots)))
	for i = int(h); slots[i] != v; {
		if slots[i] == 0 {
			return i, false
		}
		if i++; i == len(slots) {
			i = 0
		}
	}
	return i, true
}

// grow moves an exact set to a block of the next size, in open addressing.
func (s *Set) grow(a *Arena) {
	old, head := *s, s.head(a)
	words := setWords(head)
	var all [SetExact]int64
	values := s.values(a, all[:0])
	s.make(a, words) // one word more
	w := a.Words(Ref(*s), setWords(s.head(a)))
	w[0] |= int64(len(values))
	for _, v := range values {
		if v == 0 {
			w[0] |= setHasZero
			continue
		}
		i, _ := seekValue(w[1:], v)
		w[1+i] = v
	}
	a.Free(Ref(old), words)
}

// values appends the values of an exact set, in no order.
func (s Set) values(a *Arena, dst []int64) []int64 {
	head := s.head(a)
	n, words := int(head&setCountMask), setWords(head)
	w := a.Words(Ref(s), words)
	if words <= listMost+1 {
		return append(dst, w[1:1+n]...)
	}
	if head&setHasZero != 0 {
		dst = append(dst, 0)
	}
	for _, v := range w[1:] {
		if v != 0 {
			dst = append(dst, v)
		}
	}
	return dst
}

// Size is how many different values there are: exactly up to SetExact, above as estimated.
func (s Set) Size(a *Arena) float64 {
	if s == 0 {
		return 0
	}
	if head := s.head(a); head != sketchHead {
		return float64(head & setCountMask)
	}
	w := a.Words(Ref(s), sketchWords)
	if w[sketchSize] == 0 {
		w[sketchSize] = int64(math.Float64bits(estimate(w)))
	}
	return math.Float64frombits(uint64(w[sketchSize]))
}

// Exact tells whether Size is exact.
func (s Set) Exact(a *Arena) bool { return s == 0 || s.head(a) != sketchHead }

// Free gives the memory back and leaves the set empty.
func (s *Set) Free(a *Arena) {
	if *s == 0 {
		return
	}
	words := sketchWords
	if head := s.head(a); head != sketchHead {
		words = setWords(head)
	}
	a.Free(Ref(*s), words)
	*s = 0
}

// Words appends the contents: the number of values and the values in ascending order, or -1 and the registers of the
// sketch. Sets of the same values give the same words, whatever their history.
func (s Set) Words(a *Arena, dst []int64) []int64 {
	if s == 0 {
		return append(dst, 0)
	}
	if head := s.head(a); head != sketchHead {
		dst = append(dst, head&setCountMask)
		from := len(dst)
		dst = s.values(a, dst)
		slices.Sort(dst[from:])
		return dst
	}
	dst = append(dst, sketchHead)
	return append(dst, a.Words(Ref(s), sketchWords)[sketchRegisters:]...)
}

// Restore makes an empty set what Words gave, and returns how many words that was. Words that no set gives are an
// error, and leave the set empty.
func (s *Set) Restore(a *Arena, words []int64) (used int, err error) {
	defer func() {
		if err != nil {
			s.Free(a)
		}
	}()
	switch {
	case *s != 0:
		panic("slab: Restore into a set that is not empty")
	case len(words) == 0:
		return 0, fmt.Errorf("a set of values ends before it begins: the state is cut short")
	case words[0] == sketchHead:
		return s.restoreSketch(a, words)
	case words[0] < 0 || words[0] > SetExact:
		return 0, fmt.Errorf("a set of values claims %d of them: it has 0 to %d", words[0], SetExact)
	case int64(len(words)) <= words[0]:
		return 0, fmt.Errorf("a set of %d values ends after %d: the state is cut short", words[0], len(words)-1)
	}
	n := int(words[0])
	for i, v := range words[1 : 1+n] {
		if i > 0 && v <= words[i] {
			return 0, fmt.Errorf("a set of values is not in ascending order at value %d of %d: the state is damaged", i+1, n)
		}
		s.Add(a, v)
	}
	return 1 + n, nil
}

func (s *Set) restoreSketch(a *Arena, words []int64) (int, error) {
	if len(words) <= registerWords {
		return 0, fmt.Errorf("a sketch of %d words ends after %d: the state is cut short", registerWords, len(words)-1)
	}
	s.makeSketch(a)
	w := a.Words(Ref(*s), sketchWords)
	for i := range registers {
		x := uint64(words[1+i/10]) >> (6 * (i % 10)) & 63
		if x > maxRank {
			return 0, fmt.Errorf("register %d of a sketch is %d: it is 0 to %d, so the state is damaged", i, x, maxRank)
		}
		raise(w, uint64(i), int(x))
	}
	if !slices.Equal(w[sketchRegisters:], words[1:1+registerWords]) {
		return 0, fmt.Errorf("a sketch has bits set outside of its registers: the state is damaged")
	}
	return 1 + registerWords, nil
}
