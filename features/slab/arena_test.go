package slab

import (
	"runtime"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func TestClassWords(t *testing.T) {
	last := 0
	for words := range 100_000 {
		size := ClassWords(words)
		if size < words || size < last || ClassWords(size) != size {
			t.Fatalf("ClassWords(%d) = %d", words, size)
		}
		if words > 2 && 3*words <= 2*size {
			t.Fatalf("a block of %d for %d words wastes a third", size, words)
		}
		if low := size &^ (size & -size); size > 0 && low != 0 && low != (size&-size)*2 {
			t.Fatalf("%d is neither 2^k nor 3*2^k", size)
		}
		last = size
	}
	for class := range classes {
		if got := classOf(wordsOf(class)); got != class {
			t.Fatalf("class %d has blocks of %d words, which are of class %d", class, wordsOf(class), got)
		}
	}
}

// Blocks never overlap, are zero at first, keep their contents, and all memory can be had again.
func TestArenaBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := New(0, "")
		defer a.Close()
		type block struct {
			r          Ref
			size, used int
			stamp      int64
		}
		var blocks []block
		stamp := int64(0)
		write := func(b *block) {
			stamp++
			b.stamp = stamp
			for i, w := 0, a.Words(b.r, b.used); i < len(w); i++ {
				w[i] = stamp<<20 + int64(i)
			}
		}
		verify := func(b *block) {
			for i, x := range a.Words(b.r, b.used) {
				if x != b.stamp<<20+int64(i) {
					t.Fatalf("word %d of a block of %d at %#x is %#x", i, b.size, b.r, x)
				}
			}
		}
		largest := rapid.SampledFrom([]int{4, 40, 3000, 200_000}).Draw(t, "largest")
		inUse := int64(0)
		for range rapid.SampledFrom([]int{20, 400, 3000}).Draw(t, "steps") * 40 / max(40, largest/100) {
			stamp++
			pick := mix(uint64(stamp))
			words := 1 + int(pick>>32%uint64(largest))
			switch {
			case pick%5 < 3 || len(blocks) == 0:
				r, size := a.Alloc(words)
				if r == 0 || size != ClassWords(words) {
					t.Fatalf("Alloc(%d) = %#x, %d", words, r, size)
				}
				for i, x := range a.Words(r, size) {
					if x != 0 {
						t.Fatalf("word %d of a new block of %d is %#x", i, size, x)
					}
				}
				inUse += int64(size) * wordBytes
				blocks = append(blocks, block{r: r, size: size, used: words})
				write(&blocks[len(blocks)-1])
			case pick%5 == 3:
				i := int(pick >> 8 % uint64(len(blocks)))
				b := &blocks[i]
				verify(b)
				a.Free(b.r, b.used)
				inUse -= int64(b.size) * wordBytes
				blocks[i] = blocks[len(blocks)-1]
				blocks = blocks[:len(blocks)-1]
			default:
				b := &blocks[pick>>8%uint64(len(blocks))]
				kept := min(b.used, words)
				inUse -= int64(b.size) * wordBytes
				old := b.size
				b.r, b.size = a.Grow(b.r, kept, b.size, words)
				inUse += int64(b.size) * wordBytes
				w := a.Words(b.r, b.size)
				for i, x := range w {
					if i < kept && x != b.stamp<<20+int64(i) || i >= kept && old != b.size && x != 0 {
						t.Fatalf("word %d of a block grown from %d to %d words, %d kept, is %#x", i, old, b.size, kept, x)
					}
				}
				b.used = words
				write(b)
			}
			if a.Bytes() != inUse {
				t.Fatalf("%d bytes are in use, want %d", a.Bytes(), inUse)
			}
		}
		for i := range blocks {
			verify(&blocks[i])
			a.Free(blocks[i].r, blocks[i].size)
		}
		if a.Bytes() != 0 {
			t.Fatalf("%d bytes are in use after all was freed", a.Bytes())
		}
		if a.Held() > 4*inUse+4<<20 {
			t.Fatalf("%d bytes are held for %d", a.Held(), inUse)
		}
	})
}

// Memory that is freed serves for smaller blocks, and each size's own blocks serve again.
func TestArenaUsesFreedBlocksAgain(t *testing.T) {
	a := New(0, "")
	defer a.Close()
	held := int64(0)
	for round := range 20 {
		words := 10_000
		if round%2 == 1 {
			words = 3
		}
		var all []Ref
		for used := 0; used < 4<<20; used += words * wordBytes {
			r, _ := a.Alloc(words)
			all = append(all, r)
		}
		switch {
		case round == 0:
			held = a.Held()
		case round == 1 && a.Held() > held*5/4:
			t.Fatalf("%d bytes are held for small blocks after %d for large ones", a.Held(), held)
		case round > 1 && a.Held() > held*9/4:
			t.Fatalf("round %d: %d bytes are held, %d after the first", round, a.Held(), held)
		}
		for _, r := range all {
			a.Free(r, words)
		}
	}
}

func TestArenaConcurrent(t *testing.T) {
	a := New(0, "")
	defer a.Close()
	var wg sync.WaitGroup
	for g := range int64(8) {
		wg.Go(func() {
			var refs []Ref
			var sizes []int
			for i := range int64(3000) {
				words := 1 + int(mix(uint64(g*10_000+i))%3000)
				if i%500 == 0 {
					words = chunkWords + int(i)
				}
				r, size := a.Alloc(words)
				w := a.Words(r, size)
				w[0], w[size-1] = g+1, g+1
				refs, sizes = append(refs, r), append(sizes, size)
				if i%3 == 0 {
					k := len(refs) / 2
					w := a.Words(refs[k], sizes[k])
					if w[0] != g+1 || w[sizes[k]-1] != g+1 {
						t.Errorf("goroutine %d finds %d in its block", g, w[0])
						return
					}
					a.Free(refs[k], sizes[k])
					refs[k], sizes[k] = refs[len(refs)-1], sizes[len(sizes)-1]
					refs, sizes = refs[:len(refs)-1], sizes[:len(sizes)-1]
				}
			}
			for k, r := range refs {
				if w := a.Words(r, sizes[k]); w[0] != g+1 || w[sizes[k]-1] != g+1 {
					t.Errorf("goroutine %d finds %d in its block", g, w[0])
				}
				a.Free(r, sizes[k])
			}
		})
	}
	wg.Wait()
	if a.Bytes() != 0 {
		t.Errorf("%d bytes are in use after all was freed", a.Bytes())
	}
}

// A state of ten times the keys has no more objects for the garbage collector, but for the few of tables that grew.
func TestStateIsNotOnTheHeap(t *testing.T) {
	objects := func(keys int64) (objects, bytes uint64) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		a := New(0, "")
		x, s := NewInts(a), NewTexts(a)
		sets, multis, extremes := make([]Set, 10), make([]Multiset, 10), make([]Extremes, 10)
		column := Column{Words: make([]int64, keys/10), Stride: 1}
		text := make([]byte, 0, 40)
		for i := range keys {
			x.ID(i)
			text = appendInt(text[:0], i)
			s.ID(string(text))
			k := i % 10
			sets[k].Add(a, i)
			multis[k].Add(a, i, 1)
			extremes[k].Append(a, column, int(i/10+1))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		defer a.Close()
		defer runtime.KeepAlive(column)
		defer runtime.KeepAlive(x)
		defer runtime.KeepAlive(s)
		return after.HeapObjects - before.HeapObjects, after.HeapAlloc - before.HeapAlloc - uint64(keys/10*8)
	}
	few, _ := objects(20_000)
	many, bytes := objects(200_000)
	t.Logf("%d objects for 20,000 keys, %d and %d bytes for 200,000", few, many, bytes)
	if many > few+200 {
		t.Errorf("%d objects on the heap for 200,000 keys, %d for a tenth of them", many, few)
	}
	if bytes > 3<<20 {
		t.Errorf("%d bytes on the heap for 200,000 keys", bytes)
	}
}

// appendInt is a text for a number: short ones and, for every fourth, a long one.
func appendInt(dst []byte, i int64) []byte {
	if i%4 == 0 {
		dst = append(dst, "a text that needs a block "...)
	}
	for ; i > 0; i /= 10 {
		dst = append(dst, byte('0'+i%10))
	}
	return dst
}

func TestKnownKeysAllocateNothing(t *testing.T) {
	a := New(0, "")
	defer a.Close()
	x, s := NewInts(a), NewTexts(a)
	var set Set
	var multi Multiset
	var texts []string
	for i := range int64(5000) {
		x.ID(i)
		texts = append(texts, string(appendInt(nil, i)))
		s.ID(texts[i])
		set.Add(a, i)
		multi.Add(a, i, 2)
	}
	i := int64(0)
	out, vals := make([]int32, 100), make([]int64, 100)
	if n := testing.AllocsPerRun(1000, func() {
		i = (i + 7) % 5000
		x.ID(i)
		x.IDs(vals, nil, out)
		s.ID(texts[i])
		s.IDs(texts[:100], nil, out)
		set.Add(a, i)
		set.Size(a)
		multi.Add(a, i, 1)
		multi.Add(a, i, -1)
		multi.Mode(a)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// An arena that nobody holds gives its memory back.
func TestArenaIsCollected(t *testing.T) {
	before, _ := mappedBytes()
	for range 20 {
		a := New(0, "")
		for range 32 {
			r, size := a.Alloc(chunkWords)
			w := a.Words(r, size)
			for i := 0; i < len(w); i += 512 {
				w[i] = 1
			}
		}
		runtime.KeepAlive(a)
		a = nil
		runtime.GC()
	}
	// 20 times 32 MiB are no failure on any machine, so what is asked is the system's own count.
	if n, ok := mappedBytes(); ok && n-before > 300<<20 {
		t.Errorf("%d MiB are in use after 20 arenas of 32 MiB were dropped", (n-before)>>20)
	}
}
