package ranking

import (
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// Batch asks for the best items of many queries.
type Batch struct {
	Queries  []float32 // row i the vector of query i
	K        int       // items for each
	Excluded Bitmap    // left out for all
	// Seen, where it is not nil, has a row for each query, whose items are left out for that query. Its values do
	// not count.
	Seen    *Matrix
	Threads int // 0 for one a core
}

const (
	// blockUsers are the queries that a worker has in hand: their vectors (24 KiB at 64 dimensions), lists and seen
	// items stay near while all items pass.
	blockUsers = 16 * batchUsers
	// blockBytes of items pass all users in hand before the next do: a quarter of a second-level cache of 512 KiB.
	blockBytes = 128 << 10
)

// SearchBatch returns for every query what Search would, bit for bit, whatever the number of threads. The lists share
// memory.
func (x *Index) SearchBatch(b Batch) ([][]Scored, error) {
	if len(b.Queries)%x.dim != 0 {
		return nil, fmt.Errorf("ranking: %d numbers are no queries of %d dimensions", len(b.Queries), x.dim)
	}
	m := len(b.Queries) / x.dim
	switch {
	case b.K < 0:
		return nil, fmt.Errorf("ranking: the best %d: want 0 or more", b.K)
	case b.Threads < 0:
		return nil, fmt.Errorf("ranking: %d threads: want 0 or more", b.Threads)
	case b.Seen != nil && (b.Seen.Rows != m || b.Seen.Cols > x.n):
		return nil, fmt.Errorf("ranking: seen items of %d x %d for %d queries of %d items: want a row for each query",
			b.Seen.Rows, b.Seen.Cols, m, x.n)
	}
	for i := range m {
		if err := x.check(b.Queries[i*x.dim:][:x.dim]); err != nil {
			return nil, fmt.Errorf("query %d: %w", i, err)
		}
	}
	k := min(b.K, x.n)
	lists := make([][]Scored, m)
	room := make([]Scored, m*k)
	for i := range lists {
		lists[i] = room[i*k : i*k : (i+1)*k]
	}
	if k == 0 {
		return lists, nil
	}
	blocks := (m + blockUsers - 1) / blockUsers
	parallel(b.Threads, blocks, func() func(int) {
		w := newBatchWorker(x, &b, lists, k)
		return func(block int) { w.run(block*blockUsers, min((block+1)*blockUsers, m)) }
	})
	return lists, nil
}

// parallel does the jobs 0..n-1, each once, in about that order, on up to threads goroutines (0: one a core), each
// with a worker of its own. Which worker does a job must not matter to its result.
func parallel(threads, n int, newWorker func() func(job int)) {
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	threads = min(threads, n)
	if threads <= 1 {
		if n > 0 {
			work := newWorker()
			for job := range n {
				work(job)
			}
		}
		return
	}
	var next atomic.Int64
	var done sync.WaitGroup
	for range threads {
		done.Go(func() {
			work := newWorker()
			for job := int(next.Add(1)) - 1; job < n; job = int(next.Add(1)) - 1 {
				work(job)
			}
		})
	}
	done.Wait()
}

// batchWorker takes blockUsers queries at a time past all items.
type batchWorker struct {
	x       *Index
	b       *Batch
	lists   [][]Scored
	k       int
	first   int // the first query in hand
	tops    [blockUsers]top
	lengths [blockUsers]float64
	seen    [blockUsers]Bitmap
	padded  []float32 // vectors of the last users, where they are fewer than batchUsers
	scratch batchScratch
}

func newBatchWorker(x *Index, b *Batch, lists [][]Scored, k int) *batchWorker {
	w := &batchWorker{x: x, b: b, lists: lists, k: k, padded: make([]float32, batchUsers*x.dim)}
	if b.Seen != nil {
		words := len(NewBitmap(x.n))
		all := make(Bitmap, blockUsers*words)
		for u := range w.seen {
			w.seen[u] = all[u*words : (u+1)*words]
		}
	}
	return w
}

// run answers queries lo..hi, blockUsers of them at most.
func (w *batchWorker) run(lo, hi int) {
	x, n := w.x, hi-lo
	w.first = lo
	for u := range n {
		w.tops[u] = top{list: w.lists[lo+u], k: w.k}
		w.lengths[u] = norm(w.b.Queries[(lo+u)*x.dim:][:x.dim])
		w.mark(u, Bitmap.Set)
	}
	step := max(1, blockBytes/(4*panelItems*x.dim))
	for p := 0; p < len(x.length); p += step {
		any := false
		for u := 0; u < n; u += batchUsers {
			any = w.pass(u, min(u+batchUsers, n), p, min(p+step, len(x.length))) || any
		}
		if !any {
			break
		}
	}
	for u := range n {
		w.tops[u].sort()
		w.lists[lo+u] = w.tops[u].list
		w.mark(u, Bitmap.Clear)
	}
}

func (w *batchWorker) mark(u int, do func(Bitmap, int32)) {
	if w.b.Seen != nil {
		items, _ := w.b.Seen.Row(w.first + u)
		for _, item := range items {
			do(w.seen[u], item)
		}
	}
}

// pass scores panels p..end against users u0..u1, and tells whether any of these could still enter a list.
func (w *batchWorker) pass(u0, u1, p, end int) bool {
	x, s := w.x, &w.scratch
	reach := 0
	for u := u0; u < u1; u++ {
		t := w.tops[u].threshold()
		reach = max(reach, x.reach(t, w.lengths[u]))
		w.threshold(u-u0, t)
	}
	if end = min(end, reach); p >= end {
		return false
	}
	users := w.b.Queries[(w.first+u0)*x.dim:]
	if u1-u0 < batchUsers {
		clear(w.padded[copy(w.padded, users[:(u1-u0)*x.dim]):])
		users = w.padded
		for u := u1 - u0; u < batchUsers; u++ {
			w.threshold(u, float32(math.Inf(1)))
		}
	}
	for p < end {
		left := x.path.batch(users, x.panels[p*panelItems*x.dim:end*panelItems*x.dim], x.dim, s)
		if left < 0 {
			break
		}
		p = end - left
		w.offer(u0, (p-1)*panelItems)
	}
	return true
}

// threshold sets that of a user, in all lanes.
func (w *batchWorker) threshold(u int, t float32) {
	for lane := range w.scratch.thresholds[u] {
		w.scratch.thresholds[u][lane] = t
	}
}

// offer hands on the scores of a panel, whose first item has the position first, that reach their users' thresholds.
func (w *batchWorker) offer(u0, first int) {
	for half, mask := range w.scratch.masks {
		if mask == 0 {
			continue
		}
		u := half / 2
		t := &w.tops[u0+u]
		for ; mask != 0; mask &= mask - 1 {
			i := half%2*vector + bits.TrailingZeros8(mask)
			if first+i >= w.x.n {
				break
			}
			if id := w.x.ids[first+i]; !w.seen[u0+u].Has(id) && !w.b.Excluded.Has(id) {
				t.offer(Scored{id, w.scratch.scores[u][i]})
			}
		}
		w.threshold(u, t.threshold())
	}
}
