package slab

// dirEntry is a view of the entry of a multiset's directory.
type dirEntry []int64

func (e dirEntry) n() int       { return int(uint32(e[entryShape])) }
func (e dirEntry) bits() uint   { return uint(e[entryShape] >> 32 & 0xff) }
func (e dirEntry) depth() uint8 { return uint8(e[entryShape] >> 40) }

func shape(n int, bits uint, depth uint8) int64 {
	return int64(n) | int64(bits)<<32 | int64(depth)<<40
}

func leafWords(bits uint) int { return 3 << bits / 2 }

func (e dirEntry) counted(a *Arena) counted {
	return countedOf(a.Words(Ref(e[entryLeaf]), leafWords(e.bits())), 1<<e.bits())
}

// seek is the slot of a value, or the empty one where it would be.
func (c counted) seek(h uint64, v int64) (i int, ok bool) {
	mask := len(c.values) - 1
	for i = int(h) & mask; c.counts[i] != 0; i = (i + 1) & mask {
		if c.values[i] == v {
			return i, true
		}
	}
	return i, false
}

func entryOf(h uint64, depth int64) int { return int(h >> 1 >> (63 - depth)) }

func (m Multiset) leafOf(a *Arena, h uint64) dirEntry {
	root := a.Words(Ref(m), rootWords)
	dir := a.Words(Ref(root[rootDir]), dirWords<<root[rootDepth])
	return dirEntry(dir[dirWords*entryOf(h, root[rootDepth]):][:dirWords])
}

// setLeaf writes an entry to all places of its leaf.
func (m Multiset) setLeaf(a *Arena, h uint64, e [dirWords]int64) {
	root := a.Words(Ref(m), rootWords)
	dir := a.Words(Ref(root[rootDir]), dirWords<<root[rootDepth])
	spread := 1 << (root[rootDepth] - int64(dirEntry(e[:]).depth()))
	first := entryOf(h, root[rootDepth]) &^ (spread - 1)
	for i := first; i < first+spread; i++ {
		copy(dir[dirWords*i:], e[:])
	}
}

// addRoot is Add to a multiset with a root.
func (m *Multiset) addRoot(a *Arena, v int64, by int32) int32 {
	h := mix(uint64(v))
	e := m.leafOf(a, h)
	c := e.counted(a)
	i, ok := c.seek(h, v)
	if !ok {
		if sum(0, by, v) == 0 {
			return 0
		}
		for 4*(e.n()+1) > 3<<e.bits() {
			m.makeRoom(a, h)
			e = m.leafOf(a, h)
		}
		c = e.counted(a)
		i, _ = c.seek(h, v)
		c.values[i] = v
		m.tally(a, h, +1)
	}
	count := sum(c.counts[i], by, v)
	c.counts[i] = count
	m.noteBest(a, h, v, count, by > 0)
	if count == 0 {
		c.vacate(i)
		m.tally(a, h, -1)
		m.shrink(a)
	}
	return count
}

// tally changes the number of values by one.
func (m Multiset) tally(a *Arena, h uint64, by int64) {
	a.Words(Ref(m), rootWords)[rootDistinct] += by
	e := [dirWords]int64(m.leafOf(a, h))
	e[entryShape] += by
	m.setLeaf(a, h, e)
}

// noteBest keeps what is known of the greatest counts true after a change.
func (m Multiset) noteBest(a *Arena, h uint64, v int64, count int32, more bool) {
	e := m.leafOf(a, h)
	if better, changed := bestAfter(e[entryBest], e[entryCount], v, count, more); changed {
		leaf := [dirWords]int64(e)
		leaf[entryBest], leaf[entryCount] = v, better
		m.setLeaf(a, h, leaf)
	}
	root := a.Words(Ref(m), rootWords)
	if better, changed := bestAfter(root[rootBest], root[rootCount], v, count, more); changed {
		root[rootBest], root[rootCount] = v, better
	}
}

// bestAfter is what the count of v, which has risen or fallen, means to a best value: v becomes it, or, if it was
// it, no value is known to be any more (0).
func bestAfter(best, bestCount, v int64, count int32, more bool) (n int64, changed bool) {
	switch {
	case bestCount == 0: // unknown stays unknown
		return 0, false
	case more && (int64(count) > bestCount || int64(count) == bestCount && v < best):
		return int64(count), true
	case !more && v == best:
		return 0, true
	}
	return bestCount, false
}

// vacate makes a slot empty; those behind it that could no longer be reached move up.
func (c counted) vacate(i int) {
	mask := len(c.values) - 1
	for j := (i + 1) & mask; c.counts[j] != 0; j = (j + 1) & mask {
		home := int(mix(uint64(c.values[j]))) & mask
		if (j-home)&mask >= (j-i)&mask {
			c.values[i], c.counts[i] = c.values[j], c.counts[j]
			i = j
		}
	}
	c.counts[i] = 0
}

// makeRoom makes a full leaf larger, or cuts it in two.
func (m Multiset) makeRoom(a *Arena, h uint64) {
	root := a.Words(Ref(m), rootWords)
	e := [dirWords]int64(m.leafOf(a, h))
	old := dirEntry(e[:])
	bits, depth := old.bits(), old.depth()
	deepest := int64(depth) == root[rootDepth]
	if bits < countLeafMax || deepest && 2<<depth > sparse*root[rootLeaves] {
		m.growLeaf(a, h, e)
		return
	}
	if deepest {
		m.doubleDir(a)
	}
	// Both halves are new blocks: cutting in place would need a copy of the leaf.
	low, _ := a.Alloc(leafWords(bits))
	high, _ := a.Alloc(leafWords(bits))
	halves := [2]counted{
		countedOf(a.Words(low, leafWords(bits)), 1<<bits),
		countedOf(a.Words(high, leafWords(bits)), 1<<bits),
	}
	var n [2]int
	c := old.counted(a)
	for i, count := range c.counts {
		if count != 0 {
			g := mix(uint64(c.values[i]))
			side := g >> (63 - depth) & 1
			halves[side].put(g, c.values[i], count)
			n[side]++
		}
	}
	a.Free(Ref(e[entryLeaf]), leafWords(bits))
	bit := uint64(1) << (63 - depth)
	m.setLeaf(a, h&^bit, [dirWords]int64{int64(low), shape(n[0], bits, depth+1), 0, 0})
	m.setLeaf(a, h|bit, [dirWords]int64{int64(high), shape(n[1], bits, depth+1), 0, 0})
	root = a.Words(Ref(m), rootWords)
	root[rootLeaves]++
	root[rootSlots] += 1 << bits
}

func (m Multiset) growLeaf(a *Arena, h uint64, e [dirWords]int64) {
	old := dirEntry(e[:])
	bits := old.bits() + 1
	r, _ := a.Alloc(leafWords(bits))
	into := countedOf(a.Words(r, leafWords(bits)), 1<<bits)
	c := old.counted(a)
	for i, count := range c.counts {
		if count != 0 {
			into.put(mix(uint64(c.values[i])), c.values[i], count)
		}
	}
	a.Free(Ref(e[entryLeaf]), leafWords(bits-1))
	a.Words(Ref(m), rootWords)[rootSlots] += 1 << (bits - 1)
	m.setLeaf(a, h, [dirWords]int64{int64(r), shape(old.n(), bits, old.depth()), e[entryBest], e[entryCount]})
}

func (c counted) put(h uint64, v int64, count int32) {
	i, _ := c.seek(h, v)
	c.values[i], c.counts[i] = v, count
}

func (m Multiset) doubleDir(a *Arena) {
	root := a.Words(Ref(m), rootWords)
	words := dirWords << root[rootDepth]
	old := a.Words(Ref(root[rootDir]), words)
	r, _ := a.Alloc(2 * words)
	dir := a.Words(r, 2*words)
	for i := 0; i < words; i += dirWords {
		copy(dir[2*i:], old[i:i+dirWords])
		copy(dir[2*i+dirWords:], old[i:i+dirWords])
	}
	a.Free(Ref(root[rootDir]), words)
	root[rootDir] = int64(r)
	root[rootDepth]++
}

// toRoot makes a small multiset one with a root.
func (m *Multiset) toRoot(a *Arena) {
	head, c, _ := m.small(a)
	n, old := int(uint32(*head)), *m
	bits := uint(countLeafMin)
	for 4*(n+1) > 3<<bits {
		bits++
	}
	r, _ := a.Alloc(rootWords)
	dir, _ := a.Alloc(dirWords)
	leaf, _ := a.Alloc(leafWords(bits))
	into := countedOf(a.Words(leaf, leafWords(bits)), 1<<bits)
	for i, v := range c.values[:n] {
		into.put(mix(uint64(v)), v, c.counts[i])
	}
	copy(a.Words(dir, dirWords), []int64{int64(leaf), shape(n, bits, 0), 0, 0})
	root := a.Words(r, rootWords)
	root[rootDistinct], root[rootDir], root[rootLeaves], root[rootSlots] = int64(n), int64(dir), 1, 1<<bits
	a.Free(Ref(old), smallWords(len(c.values)))
	*m = Multiset(r)
}

// shrink builds a multiset anew that uses an eighth of its slots or less: as many values have been taken out then as
// are moved three times over, and more.
func (m *Multiset) shrink(a *Arena) {
	root := a.Words(Ref(*m), rootWords)
	if n := root[rootDistinct]; n > smallest/2 && 8*n > root[rootSlots] {
		return
	}
	var few [smallest]Counted
	all := m.each(a, few[:0])
	m.Free(a)
	for _, x := range all {
		m.Add(a, x.Value, x.Count)
	}
}
