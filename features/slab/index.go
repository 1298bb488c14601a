package slab

import (
	"fmt"
	"unsafe"
)

const (
	// leafMin and leafMax are the slots of a leaf as powers of two: 64 bytes to 4 KiB. A full leaf is cut in two,
	// which is the longest pause of an insertion.
	leafMin = 4
	leafMax = 10

	// tagFrom is the bits of a slot that first hold the number of a key; those above hold a part of its hash.
	tagFrom = 24

	// sparse is how many directory entries there may be a leaf before a full leaf is made larger instead of cut:
	// keys whose hashes begin alike would have the directory grow without end.
	sparse = 8
)

// index finds numbers of keys by their hashes: extendible hashing (Fagin et al. 1979, "Extendible hashing: a fast
// access method for dynamic files"). A directory, indexed by the first bits of the hash, leads to leaves, which are
// small tables with open addressing and linear probing, at most three quarters full. There is never a rehash of
// the whole, so no pause and no second table: a leaf that is full is cut in two.
//
// A slot is 32 bits, 0 if empty: the number of a key plus one in the low bits, and in the others bits of its hash, so
// that of the keys met on the way to the right one few need be compared. With 10 million int64 keys this takes
// 15 bytes a key, and a hit 63 ns in a batch and 112 ns alone (two cache misses), on two busy cores of an EPYC; keys
// and numbers side by side in slots of 16 bytes were measured in the same run at 35 bytes, 53 ns and 90 ns: memory
// was preferred. Cutting a leaf takes 15 to 50 us, one insertion in 400 while the table grows.
type index struct {
	a      *Arena
	dir    []leaf // by the first bits of the hash; neighbours may be the same leaf
	refs   []Ref  // by the same: the block of the leaf
	shift  uint8  // of a hash to its entry in dir
	leaves int
	hashes []uint64 // scratch
	old    []uint32 // scratch
}

// leaf is a directory entry. The addresses of blocks of that size do not change.
type leaf struct {
	slots unsafe.Pointer // to 1<<bits of uint32
	n     uint32         // keys
	bits  uint8
	depth uint8 // how many first bits of the hash its keys have in common
	tag   uint8 // bits of a slot that hold the number
	_     uint8
}

// hasher tells the hashes of keys by their numbers.
type hasher interface {
	hashOf(id uint32) uint64
	// hashesOf appends those of many. No step waits for the one before, so that cache misses overlap.
	hashesOf(ids []uint32, dst []uint64) []uint64
}

func newIndex(a *Arena) index {
	x := index{a: a, shift: 63, dir: make([]leaf, 2), refs: make([]Ref, 2), leaves: 1}
	l, r := x.newLeaf(leafMin, 0, tagFrom)
	x.set(0, l, r)
	return x
}

func (x *index) newLeaf(bits, depth, tag uint8) (leaf, Ref) {
	words := 1 << bits / 2
	r, _ := x.a.Alloc(words)
	return leaf{slots: unsafe.Pointer(unsafe.SliceData(x.a.Words(r, words))), bits: bits, depth: depth, tag: tag}, r
}

// set writes a leaf to every entry that leads to it, i among them.
func (x *index) set(i uint64, l leaf, r Ref) {
	spread := uint64(1) << (64 - x.shift - l.depth)
	i &^= spread - 1
	for j := i; j < i+spread; j++ {
		x.dir[j], x.refs[j] = l, r
	}
}

// at is the leaf of a hash.
func (x *index) at(h uint64) *leaf { return &x.dir[h>>(x.shift&63)] }

func (l *leaf) mask() uint32 { return 1<<(l.bits&31) - 1 }

func (l *leaf) slot(i uint32) *uint32 { return (*uint32)(unsafe.Add(l.slots, uintptr(i)*4)) }

// number is the bits of a slot that are the number plus one. At 32 bits the shift gives 0, and all are.
func (l *leaf) number() uint32 { return 1<<l.tag - 1 }

// tagOf is the part of a hash that is kept in a slot: bits that neither the directory nor the place in the leaf uses.
func tagOf(h uint64) uint32 { return uint32(h >> 16) }

// candidates gives for each hash the first number plus one whose slot has its tag, or 0.
func (x *index) candidates(hashes []uint64, found *[block]uint32) {
	var first [block]uint32
	for i, h := range hashes {
		l := x.at(h)
		first[i] = *l.slot(uint32(h) & l.mask())
	}
	for i, h := range hashes {
		l := x.at(h)
		mask, number, want, s := l.mask(), l.number(), tagOf(h), first[i]
		for at := uint32(h) & mask; s != 0 && (s^want)&^number != 0; s = *l.slot(at) {
			at = (at + 1) & mask
		}
		found[i] = s & number
	}
}

// insert adds a number that is not there.
func (x *index) insert(h uint64, id uint32, keys hasher) {
	l := x.at(h)
	for 4*(l.n+1) > 3<<l.bits {
		x.makeRoom(h, keys)
		l = x.at(h)
	}
	changed := *l
	changed.n++
	for changed.tag < 32 && (id+1)>>changed.tag != 0 {
		changed.tag += 2
		changed.shortenTags()
	}
	changed.put(h, id)
	x.set(h>>x.shift, changed, x.refs[h>>x.shift])
}

// shortenTags takes the bits for a longer number out of the hashes in a leaf's slots.
func (l *leaf) shortenTags() {
	low := l.number()
	shorter := low >> 2
	for i := range l.mask() + 1 {
		s := l.slot(i)
		*s = *s&^low | *s&shorter
	}
}

func (l *leaf) put(h uint64, id uint32) {
	i := uint32(h) & l.mask()
	for *l.slot(i) != 0 {
		i = (i + 1) & l.mask()
	}
	*l.slot(i) = tagOf(h)&^l.number() | (id + 1)
}

// makeRoom makes a full leaf larger, or cuts it in two.
func (x *index) makeRoom(h uint64, keys hasher) {
	l, r := *x.at(h), x.refs[h>>x.shift]
	x.gather(&l, keys)
	depth := 64 - x.shift // of the directory
	if l.bits < leafMax || l.depth == depth && 2<<depth > sparse*x.leaves {
		grown, to := x.newLeaf(l.bits+1, l.depth, l.tag)
		grown.n = l.n
		for i, id := range x.old {
			grown.put(x.hashes[i], id)
		}
		x.set(h>>x.shift, grown, to)
		x.a.Free(r, 1<<l.bits/2)
		return
	}
	if l.depth == depth {
		x.double()
	}
	l.depth++
	l.n = 0
	clear(unsafe.Slice((*uint32)(l.slots), 1<<l.bits))
	half, to := x.newLeaf(l.bits, l.depth, l.tag)
	x.leaves++
	for i, id := range x.old {
		into := &l
		if x.hashes[i]>>(64-l.depth)&1 != 0 {
			into = &half
		}
		into.put(x.hashes[i], id)
		into.n++
	}
	first := h >> (64 - l.depth) &^ 1 << (64 - l.depth - x.shift) // the entry of the first half
	x.set(first, l, r)
	x.set(first+1<<(64-x.shift-l.depth), half, to)
}

// gather lists the numbers in a leaf and their hashes.
func (x *index) gather(l *leaf, keys hasher) {
	x.old = x.old[:0]
	for i := range l.mask() + 1 {
		if s := *l.slot(i); s != 0 {
			x.old = append(x.old, s&l.number()-1)
		}
	}
	x.hashes = keys.hashesOf(x.old, x.hashes[:0])
}

func (x *index) double() {
	dir, refs := make([]leaf, 2*len(x.dir)), make([]Ref, 2*len(x.dir))
	for i := range dir {
		dir[i], refs[i] = x.dir[i/2], x.refs[i/2]
	}
	x.dir, x.refs = dir, refs
	x.shift--
}

// remove takes out a number. Slots behind it that its absence would make unreachable move up.
func (x *index) remove(h uint64, id uint32, keys hasher) {
	l := *x.at(h)
	mask, number := l.mask(), l.number()
	i := uint32(h) & mask
	for *l.slot(i)&number != id+1 {
		if *l.slot(i) == 0 {
			panic(fmt.Sprintf("slab: number %d is deleted and has no key", id))
		}
		i = (i + 1) & mask
	}
	for j := i; ; {
		j = (j + 1) & mask
		s := *l.slot(j)
		if s == 0 {
			break
		}
		home := uint32(keys.hashOf(s&number-1)) & mask
		if (j-home)&mask >= (j-i)&mask {
			*l.slot(i) = s
			i = j
		}
	}
	*l.slot(i) = 0
	l.n--
	x.set(h>>x.shift, l, x.refs[h>>x.shift])
}

// free gives the leaves back.
func (x *index) free() {
	for i := 0; i < len(x.dir); {
		x.a.Free(x.refs[i], 1<<x.dir[i].bits/2)
		i += 1 << (64 - x.shift - x.dir[i].depth)
	}
	*x = index{}
}
