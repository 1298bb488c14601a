package slab

import "fmt"

// Ints gives int64 keys dense numbers, from 0 in the order of appearance; numbers of deleted keys are used again, the
// one deleted last first. A pair of numbers is a key too: int64(left)<<32 | right.
//
// For one goroutine, or for several while all only call Find, Value, Live, Len and Cap.
type Ints struct {
	x      index
	keys   pages
	ids    numbers
	direct []uint32 // by key, of small ones: the number plus one, 0 without one
}

// directKeys is below which keys are also found without a hash: ids that a system has numbered itself are mostly small. Such a
// table has 256 KiB at most.
const directKeys = 1 << 16

// NewInts makes an empty table in an arena.
func NewInts(a *Arena) *Ints {
	return &Ints{x: newIndex(a), keys: pages{a: a, words: 1}}
}

// numbers gives out numbers. The entry of a number in the chain of free ones names the next.
type numbers struct {
	n, end uint32 // in use; highest ever in use plus one
	free   uint32 // a free number plus one, or 0
}

// maxKeys: a slot holds the number plus one in 32 bits.
const maxKeys = 1<<32 - 2

func (t *Ints) value(id uint32) *int64 { return &t.keys.all[id>>pageBits][id&pageMask] }

// hashOf and hashesOf are for the index.
func (t *Ints) hashOf(id uint32) uint64 { return mix(uint64(*t.value(id))) }

func (t *Ints) hashesOf(ids []uint32, dst []uint64) []uint64 {
	for _, id := range ids {
		dst = append(dst, uint64(*t.value(id)))
	}
	for i, v := range dst {
		dst[i] = mix(v)
	}
	return dst
}

// Find gives the number of a key, if it has one.
func (t *Ints) Find(v int64) (id uint32, ok bool) { return t.find(mix(uint64(v)), v) }

func (t *Ints) find(h uint64, v int64) (uint32, bool) {
	l := t.x.at(h)
	mask, number := l.mask(), l.number()
	want := tagOf(h)
	for i := uint32(h) & mask; ; i = (i + 1) & mask {
		s := *l.slot(i)
		if s == 0 {
			return 0, false
		}
		if (s^want)&^number == 0 {
			if id := s&number - 1; *t.value(id) == v {
				return id, true
			}
		}
	}
}

// ID gives the number of a key, a new one if it has none: fresh then.
func (t *Ints) ID(v int64) (id uint32, fresh bool) {
	h := mix(uint64(v))
	if id, ok := t.find(h, v); ok {
		return id, false
	}
	return t.add(h, v), true
}

func (t *Ints) idOf(h uint64, v int64) uint32 {
	if id, ok := t.find(h, v); ok {
		return id
	}
	return t.add(h, v)
}

func (t *Ints) add(h uint64, v int64) uint32 {
	id := t.ids.free - 1
	if t.ids.free != 0 {
		t.ids.free = uint32(*t.value(id))
	} else {
		id = t.ids.next()
		t.keys.reach(id)
	}
	t.ids.n++
	*t.value(id) = v
	t.x.insert(h, id, t)
	if uint64(v) < directKeys {
		if n := int(v) + 1; n > len(t.direct) {
			t.direct = append(t.direct, make([]uint32, min(directKeys, max(n, 2*len(t.direct)))-len(t.direct))...)
		}
		t.direct[v] = id + 1
	}
	return id
}

func (n *numbers) next() uint32 {
	if n.end == maxKeys {
		panic(fmt.Sprintf("slab: more than %d keys", uint32(maxKeys)))
	}
	n.end++
	return n.end - 1
}

// Value is the key with a number in use.
func (t *Ints) Value(id uint32) int64 { return *t.value(id) }

// Live tells whether a number is in use.
func (t *Ints) Live(id uint32) bool {
	if id >= t.ids.end {
		return false
	}
	found, ok := t.Find(*t.value(id)) // of a free number this is a link, which may be a key, of another number
	return ok && found == id
}

// Delete takes a key out; its number is free. It panics where the number is not in use.
func (t *Ints) Delete(id uint32) {
	t.x.remove(t.hashOf(id), id, t)
	if v := uint64(*t.value(id)); v < uint64(len(t.direct)) {
		t.direct[v] = 0
	}
	*t.value(id) = int64(t.ids.free)
	t.ids.free = id + 1
	t.ids.n--
}

// Len is how many keys there are.
func (t *Ints) Len() int { return int(t.ids.n) }

// Cap is one more than the highest number that was ever in use.
func (t *Ints) Cap() int { return int(t.ids.end) }

// IDs gives the numbers of many keys, new ones where they have none; -1 where null, which may be nil, says that there
// is no key. out is as long as vals.
//
// Keys are looked up block by block in three rounds: hashes, slots, comparisons. The steps of a round do not wait for
// each other, so that the cache misses of many keys overlap.
func (t *Ints) IDs(vals []int64, null []bool, out []int32) {
	var hashes [block]uint64
	var found [block]uint32
	for ; len(vals) > block; vals, out = vals[block:], out[block:] {
		t.ids64(vals[:block], null, out, &hashes, &found)
		if null != nil {
			null = null[block:]
		}
	}
	t.ids64(vals, null, out, &hashes, &found)
}

// block is how many keys are looked up at a time: more than a core has misses under way (10 to 20), and few
// enough that what a round leaves stays in the first cache.
const block = 64

func (t *Ints) ids64(vals []int64, null []bool, out []int32, hashes *[block]uint64, found *[block]uint32) {
	if null == nil && t.small(vals, out) {
		return
	}
	for i, v := range vals {
		hashes[i] = mix(uint64(v))
	}
	t.x.candidates(hashes[:len(vals)], found)
	for i, v := range vals {
		id := found[i] - 1
		switch {
		case null != nil && null[i]:
			out[i] = -1
			continue
		case found[i] == 0 || *t.value(id) != v:
			id = t.idOf(hashes[i], v)
		}
		out[i] = int32(id)
	}
}

// small looks up keys that are all small and known; it says no where one is not.
func (t *Ints) small(vals []int64, out []int32) bool {
	direct := t.direct
	out = out[:len(vals)]
	for i, v := range vals {
		if uint64(v) >= uint64(len(direct)) || direct[v] == 0 {
			return false
		}
		out[i] = int32(direct[v] - 1)
	}
	return true
}

// Free gives the table's memory back. The table may not be used afterwards.
func (t *Ints) Free() {
	t.x.free()
	t.keys.free()
}
