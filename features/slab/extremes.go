package slab

import (
	"fmt"
	"math"
)

// Column is one word of each entry of a ring: entry i's is Words[i*Stride+At].
type Column struct {
	Words      []int64
	Stride, At int
}

// Extremes answers for the least and the greatest value of a column over any stretch of entries, in some 30 steps for
// every factor of 16 in its length. It is a Ref, 0 while there are fewer than 16 entries, so that it can stand in a
// word of a block. It holds, for each 16 entries, their minimum and maximum, for each 16 of those pairs theirs, and
// so on: 2.13 words for 16 entries. Only full groups are held, so that most entries cost nothing when appended.
//
// Every change of the column must be told by Append, Update or Rebase before the next Query.
type Extremes Ref

const (
	fan = 16

	// extremesShift: the header of the block is the number of full groups on the first level, and above that
	// many bits the size class of the block.
	extremesShift = 48
)

// room is how many groups of the first level, with the groups above them, fit in a block: (words-1)/2 pairs, of which
// at least 15 in 16 are on the first level.
func room(words int) int { return (words - 1) * 15 / 32 }

// blockFor is the words of the block for so many groups of the first level.
func blockFor(groups int) int {
	if groups == 0 {
		return 0
	}
	size := 4
	for room(size) < groups {
		size = ClassWords(size + 1)
	}
	return size
}

// open gives the number of groups on the first level, and the pairs with the room for the first level.
func (e Extremes) open(a *Arena) (groups int, pairs []int64, capacity int) {
	if e == 0 {
		return 0, nil, 0
	}
	head := a.Words(Ref(e), 1)[0]
	words := wordsOf(int(head >> extremesShift))
	return int(head & (1<<extremesShift - 1)), a.Words(Ref(e), words)[1:], room(words)
}

// hold makes the block one for that many groups, of which the first keep stay as they are.
func (e *Extremes) hold(a *Arena, groups, keep int) {
	_, old, had := e.open(a)
	oldSize, size := len(old)+1, blockFor(groups)
	if size != oldSize || *e == 0 {
		from := *e
		*e = 0
		if size > 0 {
			r, _ := a.Alloc(size)
			*e = Extremes(r)
			w := a.Words(r, size)[1:]
			for capacity := room(size); keep > 0; {
				copy(w, old[:2*keep])
				w, old = w[2*capacity:], old[2*had:]
				keep, had, capacity = keep/fan, had/fan, capacity/fan
			}
		}
		if from != 0 {
			a.Free(Ref(from), oldSize)
		}
	}
	if size > 0 {
		a.Words(Ref(*e), 1)[0] = int64(groups) | int64(classOf(size))<<extremesShift
	}
}

// Append tells that an entry was appended and that there are n now. It panics where another change was not told.
func (e *Extremes) Append(a *Arena, c Column, n int) {
	if n%fan != 0 {
		return
	}
	groups, _, _ := e.open(a)
	if groups != n/fan-1 {
		panic(fmt.Sprintf("slab: entry %d is appended to minima and maxima of %d", n, groups*fan))
	}
	e.refresh(a, c, groups, n/fan)
}

// Update tells that entries from a position on are new or changed, and that there are n now.
func (e *Extremes) Update(a *Arena, c Column, from, n int) {
	groups, _, _ := e.open(a)
	e.refresh(a, c, min(from/fan, groups), n/fan)
}

// Rebase tells that entries at the front were dropped, so that the others moved down, and that there are n now.
func (e *Extremes) Rebase(a *Arena, c Column, n int) { e.refresh(a, c, 0, n/fan) }

// refresh computes groups from a group of the first level on.
func (e *Extremes) refresh(a *Arena, c Column, from, groups int) {
	e.hold(a, groups, min(from, groups))
	if groups <= from {
		return
	}
	_, pairs, capacity := e.open(a)
	for g := from; g < groups; g++ {
		low, high := c.scan(g*fan, g*fan+fan)
		pairs[2*g], pairs[2*g+1] = low, high
	}
	for {
		below := pairs
		pairs = pairs[2*capacity:]
		from, groups, capacity = from/fan, groups/fan, capacity/fan
		if groups == 0 {
			return
		}
		for g := from; g < groups; g++ {
			low, high := scanPairs(below[2*g*fan : 2*(g+1)*fan])
			pairs[2*g], pairs[2*g+1] = low, high
		}
	}
}

func (c Column) scan(lo, hi int) (low, high int64) {
	low, high = math.MaxInt64, math.MinInt64
	for i := lo*c.Stride + c.At; lo < hi; lo++ {
		v := c.Words[i]
		low, high = min(low, v), max(high, v)
		i += c.Stride
	}
	return low, high
}

func scanPairs(p []int64) (low, high int64) {
	low, high = math.MaxInt64, math.MinInt64
	for i := 1; i < len(p); i += 2 {
		low, high = min(low, p[i-1]), max(high, p[i])
	}
	return low, high
}

// Query is the minimum and the maximum over entries [lo, hi): MaxInt64 and MinInt64 where there are none.
func (e Extremes) Query(a *Arena, c Column, lo, hi int) (low, high int64) {
	if hi-lo <= 2*fan {
		return c.scan(lo, hi)
	}
	groups, pairs, capacity := e.open(a)
	if hi/fan > groups {
		panic(fmt.Sprintf("slab: entries to %d are asked for and those to %d are told", hi, groups*fan+fan-1))
	}
	up, down := (lo+fan-1)&^(fan-1), hi&^(fan-1)
	low, high = c.scan(lo, up)
	l, h := c.scan(down, hi)
	low, high = min(low, l), max(high, h)
	for lo, hi = up/fan, down/fan; ; lo, hi = up/fan, down/fan {
		if hi-lo <= 2*fan {
			l, h = scanPairs(pairs[2*lo : 2*hi])
			return min(low, l), max(high, h)
		}
		up, down = (lo+fan-1)&^(fan-1), hi&^(fan-1)
		l, h = scanPairs(pairs[2*lo : 2*up])
		low, high = min(low, l), max(high, h)
		l, h = scanPairs(pairs[2*down : 2*hi])
		low, high = min(low, l), max(high, h)
		pairs = pairs[2*capacity:]
		capacity /= fan
	}
}

// Free gives the memory back and leaves nothing held.
func (e *Extremes) Free(a *Arena) { e.hold(a, 0, 0) }
