package cuda

import "slices"

const (
	// granule is what sizes are rounded to: cuMemAlloc aligns to 256 bytes, and so does the arena.
	granule = 256
	// Requests up to smallMax share segments of segmentUnit; larger ones get segments of whole units. The
	// driver maps memory in pages of 2 MiB, so a smaller segment would not be smaller.
	smallMax    = 1 << 20
	segmentUnit = 2 << 20
)

// arena hands out device memory in blocks cut from segments, which it takes from the driver and keeps when
// they are free again: cuMemAlloc takes up to a millisecond, and cuMemFree waits for the device. A free
// block is given to the first best request, the smallest block that is large enough first, and joins free
// neighbours. It is not safe for concurrent use and does not know streams.
type arena struct {
	alloc func(bytes int64) (DevicePtr, Result)
	free  func(DevicePtr) Result
	limit int64 // of taken; 0 is none
	exact bool  // every block is a segment of just its size, and nothing is kept

	segments []*segment
	taken    int64 // bytes taken from the driver
	used     int64 // bytes in blocks that are handed out
}

// segment is one allocation of the driver; its blocks are a list in the order of their addresses.
type segment struct {
	ptr   DevicePtr
	size  int64
	small bool // for requests up to smallMax
	first *block
}

type block struct {
	segment    *segment
	ptr        DevicePtr
	size       int64
	used       bool
	prev, next *block
}

// get returns a block of at least so many bytes. Where the driver or the limit has no room, it gives back
// what is cached and tries again, and last of all takes any free block and a segment of just the size.
// limited tells that it was the limit.
func (a *arena) get(bytes int64) (b *block, code Result, limited bool) {
	if a.exact {
		b, code, limited = a.grow(bytes, false)
		return a.take(b), code, limited
	}
	need := roundUp(bytes, granule)
	small := need <= smallMax
	if b := a.best(need, func(s *segment) bool { return s.small == small }); b != nil {
		return a.cut(b, need), Success, false
	}
	whole := roundUp(need, segmentUnit)
	if b, code, limited = a.grow(whole, small); code == OutOfMemory {
		if code = a.trim(); code != Success {
			return nil, code, false
		}
		if b, code, limited = a.grow(whole, small); code == OutOfMemory {
			if other := a.best(need, func(*segment) bool { return true }); other != nil {
				b, code = other, Success
			} else if need < whole {
				b, code, limited = a.grow(need, small)
			}
		}
	}
	if code != Success {
		return nil, code, limited
	}
	return a.cut(b, need), Success, false
}

// best is the smallest free block of at least need bytes in the segments that pass.
func (a *arena) best(need int64, pass func(*segment) bool) (best *block) {
	for _, s := range a.segments {
		if !pass(s) {
			continue
		}
		for b := s.first; b != nil; b = b.next {
			if !b.used && b.size >= need && (best == nil || b.size < best.size) {
				best = b
			}
		}
	}
	return best
}

// grow takes a segment from the driver and returns its one free block.
func (a *arena) grow(size int64, small bool) (*block, Result, bool) {
	if a.limit > 0 && a.taken+size > a.limit {
		return nil, OutOfMemory, true
	}
	ptr, code := a.alloc(size)
	if code != Success {
		return nil, code, false
	}
	s := &segment{ptr: ptr, size: size, small: small}
	s.first = &block{segment: s, ptr: ptr, size: size}
	a.segments = append(a.segments, s)
	a.taken += size
	return s.first, Success, false
}

// cut takes the front of a free block. What is left becomes a free block of its own, in a segment for large
// requests only if a large one fits.
func (a *arena) cut(b *block, need int64) *block {
	least := int64(granule)
	if need > smallMax {
		least = smallMax
	}
	if rest := b.size - need; rest >= least {
		r := &block{segment: b.segment, ptr: b.ptr + DevicePtr(need), size: rest, prev: b, next: b.next}
		if r.next != nil {
			r.next.prev = r
		}
		b.next, b.size = r, need
	}
	return a.take(b)
}

func (a *arena) take(b *block) *block {
	if b != nil {
		b.used = true
		a.used += b.size
	}
	return b
}

// put takes a block back.
func (a *arena) put(b *block) Result {
	b.used = false
	a.used -= b.size
	if a.exact {
		return a.release(b.segment)
	}
	if n := b.next; n != nil && !n.used {
		b.absorb(n)
	}
	if p := b.prev; p != nil && !p.used {
		p.absorb(b)
	}
	return Success
}

// absorb joins a block with the next one.
func (b *block) absorb(next *block) {
	b.size += next.size
	b.next = next.next
	if b.next != nil {
		b.next.prev = b
	}
}

// trim gives the segments that are wholly free back to the driver; the code is that of the first that failed.
func (a *arena) trim() Result {
	return a.releaseAll(func(s *segment) bool { return !s.first.used && s.first.next == nil })
}

// drop gives all segments back, also those in use.
func (a *arena) drop() Result {
	a.used = 0
	return a.releaseAll(func(*segment) bool { return true })
}

func (a *arena) releaseAll(pass func(*segment) bool) (first Result) {
	for _, s := range slices.Clone(a.segments) {
		if pass(s) {
			if code := a.release(s); first == Success {
				first = code
			}
		}
	}
	return first
}

// release gives a segment back and forgets it, also where the driver refuses: it will not take it later.
func (a *arena) release(s *segment) Result {
	i := slices.Index(a.segments, s)
	a.segments = slices.Delete(a.segments, i, i+1)
	a.taken -= s.size
	return a.free(s.ptr)
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
