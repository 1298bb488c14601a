package slab

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"unsafe"
)

// Multiset counts int64 values: a Ref, 0 while it is empty, so that it can stand in a word of a block.
//
// Up to smallest values it is one block: a header, the values in no order, and their counts as int32, which are
// searched from one end to the other. A larger one is a root, a directory indexed by the first bits of the value's
// hash, and leaves with open addressing (extendible hashing, as in index.go): it grows a leaf at a time.
type Multiset Ref

const (
	// smallest is how many values a multiset of one block has at most: a block of 48 words, searched in some 10 ns.
	smallest = 31

	// countLeafMin and countLeafMax are the slots of a leaf as powers of two. A leaf is its values and then its
	// counts, of which 0 is an empty slot: 48 to 768 words.
	countLeafMin = 5
	countLeafMax = 9

	// Words of a root. The value with the greatest count is kept where it is known.
	rootDistinct = 0 // as in the header of a small one, whose capacity in the upper half is not 0
	rootDir      = 1 // Ref of the directory
	rootDepth    = 2 // of the directory: 1<<depth entries
	rootSlots    = 3 // of all leaves
	rootBest     = 4
	rootCount    = 5 // of rootBest, 0: unknown
	rootLeaves   = 6
	rootWords    = 8

	// Words of a directory entry, the same in all entries of a leaf. The leaf's best value is kept too, so that
	// to find the best of all, only the leaves that lost theirs are searched.
	entryLeaf  = 0 // Ref
	entryShape = 1 // values | bits<<32 | depth<<40
	entryBest  = 2
	entryCount = 3 // of entryBest, 0: unknown
	dirWords   = 4
)

// smallWords is the block of a small multiset with a capacity: header, values, counts.
func smallWords(capacity int) int { return 1 + capacity + (capacity+1)/2 }

// smallCap is the capacity that a block for n values comes to.
func smallCap(n int) int { return (ClassWords(smallWords(n)) - 1) * 2 / 3 }

// counted is one block's values and counts.
type counted struct {
	values []int64
	counts []int32
}

func countedOf(w []int64, capacity int) counted {
	c := unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(w[capacity:]))), capacity)
	return counted{w[:capacity:capacity], c}
}

// small gives header, values and counts of a multiset of one block; ok is false for one with a root.
func (m Multiset) small(a *Arena) (head *int64, c counted, ok bool) {
	w := a.from(Ref(m))
	capacity := int(w[0] >> 32)
	if capacity == 0 {
		return nil, counted{}, false
	}
	return &w[0], countedOf(w[1:smallWords(capacity)], capacity), true
}

// find is the place of a value among the first n, or -1.
func (c counted) find(v int64, n int) int { return slices.Index(c.values[:n], v) }

// Add adds to the count of a value, or takes from it, and returns the count after. It panics where a count would be
// negative, or past 2^31-1.
func (m *Multiset) Add(a *Arena, v int64, by int32) int32 {
	if *m == 0 {
		if by == 0 {
			return 0
		}
		m.make(a, 1)
	}
	head, c, ok := m.small(a)
	if !ok {
		return m.addRoot(a, v, by)
	}
	n := int(uint32(*head))
	i := c.find(v, n)
	if i >= 0 {
		if c.counts[i] = sum(c.counts[i], by, v); c.counts[i] == 0 {
			m.dropSmall(a, i)
			return 0
		}
		return c.counts[i]
	}
	if sum(0, by, v) == 0 {
		return 0
	}
	if n == len(c.values) {
		if n == smallest {
			m.toRoot(a)
			return m.addRoot(a, v, by)
		}
		m.resize(a, n+1)
		head, c, _ = m.small(a)
	}
	c.values[n], c.counts[n] = v, by
	*head++
	return by
}

func sum(count, by int32, v int64) int32 {
	n := int64(count) + int64(by)
	if n < 0 || n > math.MaxInt32 {
		panic(fmt.Sprintf("slab: the count of value %d would be %d", v, n))
	}
	return int32(n)
}

// make gives an empty multiset a block for n values.
func (m *Multiset) make(a *Arena, n int) {
	capacity := smallCap(n)
	r, _ := a.Alloc(smallWords(capacity))
	a.Words(r, 1)[0] = int64(capacity) << 32
	*m = Multiset(r)
}

// resize moves a small multiset to a block for n values.
func (m *Multiset) resize(a *Arena, n int) {
	head, c, _ := m.small(a)
	old, used := *m, int(uint32(*head))
	m.make(a, n)
	newHead, into, _ := m.small(a)
	copy(into.values, c.values[:used])
	copy(into.counts, c.counts[:used])
	*newHead |= int64(used)
	a.Free(Ref(old), smallWords(len(c.values)))
}

// dropSmall takes out the i-th value, and gives memory back where little of it is used.
func (m *Multiset) dropSmall(a *Arena, i int) {
	head, c, _ := m.small(a)
	*head--
	n := int(uint32(*head))
	c.values[i], c.counts[i] = c.values[n], c.counts[n]
	switch {
	case n == 0:
		m.Free(a)
	case 4*n <= len(c.values):
		m.resize(a, 2*n)
	}
}

// Count is the count of a value.
func (m Multiset) Count(a *Arena, v int64) int32 {
	if m == 0 {
		return 0
	}
	if head, c, ok := m.small(a); ok {
		if i := c.find(v, int(uint32(*head))); i >= 0 {
			return c.counts[i]
		}
		return 0
	}
	h := mix(uint64(v))
	c := m.leafOf(a, h).counted(a)
	i, ok := c.seek(h, v)
	if !ok {
		return 0
	}
	return c.counts[i]
}

// Distinct is the number of values with a count.
func (m Multiset) Distinct(a *Arena) int {
	if m == 0 {
		return 0
	}
	return int(uint32(a.Words(Ref(m), 1)[0]))
}

// Mode is the value with the greatest count, of those the smallest, and its count; 0, 0 of an empty multiset. The
// answer is kept until that value's count is lowered; then one leaf of up to 512 slots is searched, and the best
// values of all leaves.
func (m Multiset) Mode(a *Arena) (v int64, count int32) {
	if m == 0 {
		return 0, 0
	}
	if head, c, ok := m.small(a); ok {
		return c.best(int(uint32(*head)))
	}
	root := a.Words(Ref(m), rootWords)
	if root[rootCount] != 0 {
		return root[rootBest], int32(root[rootCount])
	}
	dir := a.Words(Ref(root[rootDir]), dirWords<<root[rootDepth])
	for i := 0; i < len(dir); {
		e := dirEntry(dir[i:])
		spread := dirWords << (root[rootDepth] - int64(e.depth()))
		if e[entryCount] == 0 && e.n() > 0 {
			c := e.counted(a)
			best, n := c.best(len(c.values))
			for j := i; j < i+spread; j += dirWords {
				dir[j+entryBest], dir[j+entryCount] = best, int64(n)
			}
		}
		v, count = better(v, count, e[entryBest], int32(e[entryCount]))
		i += spread
	}
	root[rootBest], root[rootCount] = v, int64(count)
	return v, count
}

// better is the one of two values with the greater count, of equals the smaller.
func better(v int64, n int32, w int64, m int32) (int64, int32) {
	if m > n || m == n && w < v {
		return w, m
	}
	return v, n
}

func (c counted) best(n int) (v int64, count int32) {
	for i, m := range c.counts[:n] {
		if m >= count && m > 0 {
			v, count = better(v, count, c.values[i], m)
		}
	}
	return v, count
}

// Free gives the memory back and leaves the multiset empty.
func (m *Multiset) Free(a *Arena) {
	if *m == 0 {
		return
	}
	if _, c, ok := m.small(a); ok {
		a.Free(Ref(*m), smallWords(len(c.values)))
		*m = 0
		return
	}
	root := a.Words(Ref(*m), rootWords)
	words := dirWords << root[rootDepth]
	dir := a.Words(Ref(root[rootDir]), words)
	for i := 0; i < len(dir); {
		e := dirEntry(dir[i:])
		a.Free(Ref(e[entryLeaf]), leafWords(e.bits()))
		i += dirWords << (root[rootDepth] - int64(e.depth()))
	}
	a.Free(Ref(root[rootDir]), words)
	a.Free(Ref(*m), rootWords)
	*m = 0
}

// Counted is a value and its count.
type Counted struct {
	Value int64
	Count int32
}

// Each appends all values with their counts in ascending order of the values: the same for the same contents,
// whatever their history.
func (m Multiset) Each(a *Arena, dst []Counted) []Counted {
	from := len(dst)
	dst = m.each(a, dst)
	slices.SortFunc(dst[from:], func(x, y Counted) int { return cmp.Compare(x.Value, y.Value) })
	return dst
}

func (m Multiset) each(a *Arena, dst []Counted) []Counted {
	if m == 0 {
		return dst
	}
	add := func(c counted, n int) {
		for i, count := range c.counts[:n] {
			if count != 0 {
				dst = append(dst, Counted{c.values[i], count})
			}
		}
	}
	if head, c, ok := m.small(a); ok {
		add(c, int(uint32(*head)))
		return dst
	}
	root := a.Words(Ref(m), rootWords)
	dir := a.Words(Ref(root[rootDir]), dirWords<<root[rootDepth])
	for i := 0; i < len(dir); {
		e := dirEntry(dir[i:])
		c := e.counted(a)
		add(c, len(c.values))
		i += dirWords << (root[rootDepth] - int64(e.depth()))
	}
	return dst
}
