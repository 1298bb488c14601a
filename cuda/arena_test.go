package cuda

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// space is a driver's memory that checks what the arena asks of it.
type space struct {
	total, used int64
	live        map[DevicePtr]int64
	next        DevicePtr
	calls       int
}

func newSpace(total int64) *space {
	return &space{total: total, live: map[DevicePtr]int64{}, next: 1 << 20}
}

func (s *space) alloc(bytes int64) (DevicePtr, Result) {
	s.calls++
	if bytes <= 0 {
		return 0, InvalidValue
	}
	if s.used+bytes > s.total {
		return 0, OutOfMemory
	}
	p := s.next
	s.next += DevicePtr(roundUp(bytes, 512)) + 4096 // never adjacent: blocks of two segments must not join
	s.live[p] = bytes
	s.used += bytes
	return p, Success
}

func (s *space) free(p DevicePtr) Result {
	s.calls++
	bytes, ok := s.live[p]
	if !ok {
		return InvalidValue
	}
	delete(s.live, p)
	s.used -= bytes
	return Success
}

// checkArena looks for what must hold after every step: the blocks of a segment cover it without gaps, no two
// free ones are neighbours, links go both ways, and the sums are right.
func checkArena(a *arena, s *space) error {
	var taken, used int64
	for _, seg := range a.segments {
		if s.live[seg.ptr] != seg.size {
			return fmt.Errorf("segment %#x of %d is none of the driver's", seg.ptr, seg.size)
		}
		taken += seg.size
		at := seg.ptr
		var before *block
		for b := seg.first; b != nil; before, b = b, b.next {
			if b.ptr != at || b.prev != before || b.segment != seg || b.size <= 0 {
				return fmt.Errorf("block %#x of %d: expected at %#x", b.ptr, b.size, at)
			}
			if before != nil && !before.used && !b.used {
				return fmt.Errorf("free neighbours at %#x and %#x", before.ptr, b.ptr)
			}
			if b.used {
				used += b.size
			}
			at += DevicePtr(b.size)
		}
		if at != seg.ptr+DevicePtr(seg.size) {
			return fmt.Errorf("segment %#x: blocks end at %#x", seg.ptr, at)
		}
	}
	if taken != a.taken || taken != s.used || used != a.used {
		return fmt.Errorf("taken %d, noted %d, of the driver %d; used %d, noted %d", taken, a.taken, s.used, used, a.used)
	}
	if a.limit > 0 && taken > a.limit {
		return fmt.Errorf("taken %d of a limit of %d", taken, a.limit)
	}
	return nil
}

func TestArena(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSpace(rapid.Int64Range(1<<20, 64<<20).Draw(t, "total"))
		a := &arena{alloc: s.alloc, free: s.free, limit: rapid.SampledFrom([]int64{0, 0, 8 << 20, 1 << 19}).Draw(t, "limit"),
			exact: rapid.Bool().Draw(t, "exact")}
		var held []*block
		t.Repeat(map[string]func(*rapid.T){
			"get": func(t *rapid.T) {
				bytes := rapid.OneOf(rapid.Int64Range(1, 2000), rapid.Int64Range(1<<20-300, 1<<20+300),
					rapid.Int64Range(1, 20<<20)).Draw(t, "bytes")
				b, code, _ := a.get(bytes)
				switch code {
				case Success:
					if b.size < bytes || a.exact && b.size != bytes || !a.exact && b.ptr%granule != 0 {
						t.Fatalf("%d bytes: block %#x of %d", bytes, b.ptr, b.size)
					}
					held = append(held, b)
				case OutOfMemory: // only where it does not fit even when all that is free were given back
					var left int64
					for _, seg := range a.segments {
						left += seg.size
					}
					free := s.total - left
					if a.limit > 0 {
						free = min(free, a.limit-left)
					}
					if need := roundUp(bytes, granule); need <= free {
						t.Fatalf("out of memory for %d with %d free", bytes, free)
					}
					if !a.exact && a.best(roundUp(bytes, granule), func(*segment) bool { return true }) != nil {
						t.Fatalf("out of memory for %d with a free block", bytes)
					}
				default:
					t.Fatal(code)
				}
			},
			"put": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				if code := a.put(held[i]); code != Success {
					t.Fatal(code)
				}
				held = append(held[:i], held[i+1:]...)
			},
			"trim": func(t *rapid.T) {
				if code := a.trim(); code != Success {
					t.Fatal(code)
				}
			},
			"": func(t *rapid.T) {
				if err := checkArena(a, s); err != nil {
					t.Fatal(err)
				}
			},
		})
		for _, b := range held {
			a.put(b)
		}
		if code := a.trim(); code != Success || s.used != 0 || a.taken != 0 || a.used != 0 {
			t.Fatalf("after all was freed and trimmed: %v, %d bytes of the driver, %d taken, %d used", code, s.used, a.taken, a.used)
		}
	})
}

func TestArenaKeepsWhatIsFreed(t *testing.T) {
	s := newSpace(1 << 30)
	a := &arena{alloc: s.alloc, free: s.free}
	sizes := []int64{4, 256, 100_000, 1 << 20, 3 << 20, 5 << 20}
	round := func() {
		var held []*block
		for _, n := range sizes {
			b, code, _ := a.get(n)
			if code != Success {
				t.Fatal(code)
			}
			held = append(held, b)
		}
		for _, b := range held {
			a.put(b)
		}
	}
	round()
	calls := s.calls
	for range 10 {
		round()
	}
	if s.calls != calls {
		t.Errorf("%d calls to the driver for sizes that are cached", s.calls-calls)
	}
}

// Cached segments of the wrong size must not stand in the way of a request that the device could serve.
func TestArenaGivesBackBeforeItFails(t *testing.T) {
	s := newSpace(10 << 20)
	a := &arena{alloc: s.alloc, free: s.free}
	b, _, _ := a.get(6 << 20)
	a.put(b)
	if b, code, _ := a.get(9 << 20); code != Success || s.used != 10<<20 {
		t.Fatalf("%v, %v, %d used", b, code, s.used)
	}
	if _, code, limited := a.get(1); code != Success || limited { // the rest of that segment
		t.Fatal(code, limited)
	}
	if _, code, limited := a.get(2 << 20); code != OutOfMemory || limited {
		t.Fatal(code, limited)
	}
	a.limit = a.taken
	if _, code, limited := a.get(2 << 20); code != OutOfMemory || !limited {
		t.Fatal(code, limited)
	}
}
