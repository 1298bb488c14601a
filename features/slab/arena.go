package slab

import (
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// Ref names a block of an arena: the number of its chunk and the word in it. 0 is none.
type Ref uint64

const (
	// chunkBits: chunks of 2^17 words, 1 MiB, are cut into blocks; a larger block is a chunk of its own.
	chunkBits  = 17
	chunkWords = 1 << chunkBits
	chunkMask  = chunkWords - 1

	// firstWords is the size of the first chunk, 16 KiB; the next ones are twice as large each, up to chunkWords.
	// Those below chunkWords, 1 MiB in all, are on the Go heap: a small state costs no system call.
	firstWords = 1 << 11

	// runWords: blocks below 4 KiB are cut from runs of one class of 3 or 4 KiB, so that blocks of 8 words and
	// more begin at a cache line and neighbours are alike.
	runWords = 512

	// reservedWords at the start of the first chunk are never given out, so that no block has Ref 0.
	reservedWords = 128

	wordBytes = 8
)

// ClassWords is the capacity of a block for that many words: the next of 1, 2, 3, 4, 6, 8, 12, 16, ... (2^k and
// 3*2^k), so that no more than a third of a block beyond two words is unused.
func ClassWords(words int) int { return wordsOf(classOf(words)) }

// classes is how many sizes of blocks there are: up to 2^47 words.
const classes = 2 * 47

func classOf(words int) int {
	if words <= 2 {
		return max(words, 1) - 1
	}
	b := bits.Len(uint(words - 1)) // 2^b is the next power of two
	if words <= 3<<(b-2) {
		return 2*b - 2
	}
	return 2*b - 1
}

func wordsOf(class int) int {
	switch {
	case class < 2:
		return class + 1
	case class&1 == 0:
		return 3 << (class/2 - 1)
	}
	return 1 << (class/2 + 1)
}

// Arena gives out blocks of words. Alloc, Grow, Free, Words and the counters may be called by several goroutines at
// once; Trim and Close only while no other call is under way and no slice from Words is in use.
//
// The slices that Words returns lie in memory that the garbage collector does not know: they are valid as long as
// the block is not freed or grown, and the Arena is reachable and not closed.
type Arena struct {
	table atomic.Pointer[[][]int64] // by chunk: its words

	mu      sync.Mutex
	kinds   []kind // by chunk
	small   int    // words of the last chunk on the heap
	spare   []int  // chunks whose memory has been given back: numbers to use again
	free    [classes]Ref
	runs    [classes]stretch
	rest    stretch // of the chunk that is being cut
	used    int64   // bytes of blocks in use
	held    int64   // bytes of chunks
	onHeap  int64   // bytes of chunks that are on the heap
	budget  int64
	dir     string
	hand    int // the chunk at which Trim goes on
	sys     *system
	cleanup runtime.Cleanup
}

// stretch is words that have not been given out. Dirty ones may hold other than zeros.
type stretch struct {
	at    Ref
	words int
	dirty bool
}

// kind says where a chunk lies.
type kind struct {
	place place
	off   int64 // in the file, of a chunk there
}

type place uint8

const (
	gone   place = iota
	heap         // on the Go heap
	mapped       // anonymous memory of the system
	filed        // mapped from the file
)

// New makes an empty arena. With a budget in bytes (0: none) memory in use by this process is kept near it by Trim,
// and dir is the folder of the file that takes the rest ("" is the system's folder for temporary files); the file has
// no name and is gone with the process. A budget needs Linux. What prevents keeping to the budget is told by Err and
// Trim, while the arena goes on in memory.
func New(budget int64, dir string) *Arena {
	a := &Arena{budget: max(0, budget), dir: dir, sys: newSystem(budget > 0, dir)}
	table := make([][]int64, 0, 16)
	a.table.Store(&table)
	a.cleanup = runtime.AddCleanup(a, (*system).close, a.sys)
	return a
}

// Fresh is an empty arena with the same budget and folder.
func (a *Arena) Fresh() *Arena { return New(a.budget, a.dir) }

// Part is an empty arena with the part num/den of the budget, which a has less from then on.
func (a *Arena) Part(num, den int64) *Arena {
	part := a.budget * num / den
	a.budget -= part
	return New(part, a.dir)
}

// Close gives all memory back. No Ref is valid afterwards. An arena that is no longer reachable is closed by the
// garbage collector.
func (a *Arena) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cleanup.Stop()
	table := make([][]int64, 0)
	a.table.Store(&table)
	a.kinds, a.spare, a.rest = nil, nil, stretch{}
	a.free, a.runs = [classes]Ref{}, [classes]stretch{}
	a.used, a.held, a.onHeap, a.small, a.hand = 0, 0, 0, 0, 0
	a.sys.close()
}

// Err is why the arena could not keep to its budget: no folder, no space, a system without mapped files. The first
// reason stays. Contents are whole in any case.
func (a *Arena) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sys.err
}

// Bytes is the size of all blocks in use.
func (a *Arena) Bytes() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used
}

// Held is the size of all chunks, in memory or in the file: blocks in use, freed ones and the uncut rest.
func (a *Arena) Held() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held
}

// Cut is the size of all blocks that were ever given out, in use or freed: Held without the uncut rest.
func (a *Arena) Cut() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.held - int64(a.rest.words)*wordBytes
	for _, r := range a.runs {
		n -= int64(r.words) * wordBytes
	}
	return n
}

// Filed is the size of the chunks that lie in the file, whether the system has them in its page cache or not.
func (a *Arena) Filed() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := int64(0)
	for c, w := range *a.table.Load() {
		if a.kinds[c].place == filed {
			n += int64(len(w)) * wordBytes
		}
	}
	return n
}

// Words is the first n words of a block.
func (a *Arena) Words(r Ref, n int) []int64 {
	return (*a.table.Load())[r>>chunkBits][r&chunkMask:][:n:n]
}

// from is the words of a block and of what lies behind it in its chunk.
func (a *Arena) from(r Ref) []int64 { return (*a.table.Load())[r>>chunkBits][r&chunkMask:] }

// Alloc gives a block for at least that many words, all zero, and its capacity, ClassWords(words).
func (a *Arena) Alloc(words int) (Ref, int) {
	r, size, dirty := a.alloc(words)
	if dirty {
		clear(a.Words(r, size))
	}
	return r, size
}

// alloc is Alloc without the zeros: dirty tells that words may hold anything.
func (a *Arena) alloc(words int) (r Ref, size int, dirty bool) {
	class := classOf(words)
	size = wordsOf(class)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used += int64(size) * wordBytes
	if size > chunkWords {
		return a.own(size), size, false
	}
	if r = a.free[class]; r != 0 {
		a.free[class] = Ref(a.Words(r, 1)[0])
		return r, size, true
	}
	run := &a.runs[class]
	if run.words < size {
		*run = a.cut(runOf(size))
	}
	r = run.at
	run.at += Ref(size)
	run.words -= size
	return r, size, run.dirty
}

// runOf is how many words are cut for a class at a time, a multiple of 128.
func runOf(size int) int {
	if size >= runWords {
		return size
	}
	if size%3 == 0 {
		return runWords / 4 * 3
	}
	return runWords
}

// Free gives a block of that many words (as asked for, or its capacity) back.
func (a *Arena) Free(r Ref, words int) {
	class := classOf(words)
	size := wordsOf(class)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used -= int64(size) * wordBytes
	if size > chunkWords {
		a.disown(int(r>>chunkBits), size)
		return
	}
	a.put(r, class)
}

func (a *Arena) put(r Ref, class int) {
	a.Words(r, 1)[0] = int64(a.free[class])
	a.free[class] = r
}

// Grow moves a block of capacity size to one for at least that many words, or fewer: its first used words are kept,
// the others are zero. The old block is freed. Where the capacity stays as it was nothing happens, and words beyond
// used are as they were. A block above 1 MiB in anonymous memory keeps its Ref and is not copied.
func (a *Arena) Grow(r Ref, used, size, words int) (Ref, int) {
	if used > words || used > size {
		panic(fmt.Sprintf("slab: a block of %d words, %d of them used, cannot become one of %d", size, used, words))
	}
	if ClassWords(words) == ClassWords(size) {
		return r, ClassWords(size)
	}
	if a.enlarge(r, used, ClassWords(size), ClassWords(words)) {
		return r, ClassWords(words)
	}
	to, toSize, dirty := a.alloc(words)
	w := a.Words(to, toSize)
	copy(w, a.Words(r, used))
	if dirty {
		clear(w[used:])
	}
	a.Free(r, size)
	return to, toSize
}

// enlarge makes a block that is a chunk of its own larger without copying it, where the system can.
func (a *Arena) enlarge(r Ref, used, from, to int) bool {
	if from <= chunkWords || to < from {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c, table := int(r>>chunkBits), *a.table.Load()
	if a.kinds[c].place != mapped || a.beyond(to-from) {
		return false
	}
	w, ok := a.sys.enlarge(table[c], to)
	if !ok {
		return false
	}
	clear(w[used:from])
	table[c] = w
	a.used += int64(to-from) * wordBytes
	a.held += int64(to-from) * wordBytes
	return true
}

// cut takes a run of words from the chunk at hand, from a larger block that was freed, or from a new chunk.
func (a *Arena) cut(words int) stretch {
	if a.rest.words < words {
		a.scrap()
		a.rest = a.refill(words)
	}
	run := stretch{a.rest.at, words, a.rest.dirty}
	a.rest.at += Ref(words)
	a.rest.words -= words
	return run
}

// scrap makes free blocks of what is left of the chunk at hand.
func (a *Arena) scrap() {
	for a.rest.words > 0 {
		size := 1 << (bits.Len(uint(a.rest.words)) - 1)
		a.put(a.rest.at, classOf(size))
		a.rest.at += Ref(size)
		a.rest.words -= size
	}
}

// refill gives at least that many words: the smallest freed block that is large enough, or a new chunk.
func (a *Arena) refill(words int) stretch {
	for class := classOf(words); class <= classOf(chunkWords); class++ {
		if r := a.free[class]; r != 0 {
			a.free[class] = Ref(a.Words(r, 1)[0])
			return stretch{r, wordsOf(class), true}
		}
	}
	if len(a.kinds) == 0 {
		a.rest = a.first()
		if a.rest.words >= words {
			return a.rest
		}
		a.scrap()
	}
	size := chunkWords
	if a.small < chunkWords/2 {
		next := max(firstWords, 2*a.small)
		for next < words {
			next *= 2
		}
		if next < chunkWords {
			size, a.small = next, next
		}
	}
	var c int
	if size < chunkWords {
		c = a.add(make([]int64, size), kind{place: heap})
	} else {
		a.small = chunkWords
		c = a.add(a.sys.chunk(a.beyond(size)))
	}
	return stretch{at: Ref(c) << chunkBits, words: size}
}

// first makes the first chunk, whose first words are never given out.
func (a *Arena) first() stretch {
	a.small = firstWords
	a.add(make([]int64, firstWords), kind{place: heap})
	return stretch{at: reservedWords, words: firstWords - reservedWords}
}

// own makes a chunk for one block.
func (a *Arena) own(size int) Ref {
	if len(a.kinds) == 0 {
		a.rest = a.first()
	}
	return Ref(a.add(a.sys.big(size, a.beyond(size)))) << chunkBits
}

// beyond tells whether so many more words in memory are past the budget.
func (a *Arena) beyond(words int) bool {
	return a.budget > 0 && a.onHeap+a.sys.anonymous+int64(words)*wordBytes > a.budget
}

// add gives a chunk its number.
func (a *Arena) add(w []int64, k kind) int {
	bytes := int64(len(w)) * wordBytes
	a.held += bytes
	if k.place == heap {
		a.onHeap += bytes
	}
	old := *a.table.Load()
	if n := len(a.spare); n > 0 {
		c := a.spare[n-1]
		a.spare = a.spare[:n-1]
		old[c], a.kinds[c] = w, k
		return c
	}
	// Other goroutines may read the table: a new length is a new header.
	table := append(old, w)
	a.table.Store(&table)
	a.kinds = append(a.kinds, k)
	return len(table) - 1
}

// disown gives the memory of a block with a chunk of its own back.
func (a *Arena) disown(c, size int) {
	table := *a.table.Load()
	if len(table[c]) != size {
		panic(fmt.Sprintf("slab: a block of %d words is freed as one of %d", len(table[c]), size))
	}
	a.held -= int64(size) * wordBytes
	if a.kinds[c].place == heap {
		a.onHeap -= int64(size) * wordBytes
	} else {
		a.sys.release(table[c], a.kinds[c])
	}
	table[c], a.kinds[c] = nil, kind{}
	a.spare = append(a.spare, c)
}
