package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// spins is how often a worker looks before it sleeps: about 20 us, more than any imbalance between two
// workers of a step, less than a visible waste when the machine is busy with something else.
const spins = 20000

// barrier lets n workers go on together. What any of them wrote before is visible to all after.
type barrier struct {
	n       int32
	spins   int
	arrived atomic.Int32
	round   atomic.Uint32
	mu      sync.Mutex
	moved   sync.Cond // round has moved
}

// newBarrier is for n workers at most; reset says how many take part.
func newBarrier() *barrier {
	b := &barrier{}
	b.moved.L = &b.mu
	return b
}

// reset sets the number of workers while none waits. Spinning helps only where all can run at once.
func (b *barrier) reset(n int) {
	b.n, b.spins = int32(n), 0
	if n <= runtime.GOMAXPROCS(0) {
		b.spins = spins
	}
}

func (b *barrier) wait() {
	round := b.round.Load()
	if b.arrived.Add(1) == b.n {
		b.arrived.Store(0)
		b.mu.Lock()
		b.round.Add(1)
		b.mu.Unlock()
		b.moved.Broadcast()
		return
	}
	for range b.spins {
		if b.round.Load() != round {
			return
		}
	}
	b.mu.Lock()
	for b.round.Load() == round {
		b.moved.Wait()
	}
	b.mu.Unlock()
}

// pool is the workers of one Exec. Worker 0 is the caller; the others are goroutines that sleep between jobs.
type pool struct {
	workers []*worker
	barrier *barrier
	job     func(w *worker)
	done    sync.WaitGroup
}

func newPool(k *kernels, threads, pack int) *pool {
	p := &pool{barrier: newBarrier()}
	for id := range threads {
		w := newWorker(k, id, threads, pack)
		w.barrier = p.barrier
		p.workers = append(p.workers, w)
		if id > 0 {
			w.wake = make(chan struct{}, 1)
			go func() {
				for range w.wake {
					p.job(w)
					p.done.Done()
				}
			}()
		}
	}
	return p
}

// run does the job on the first n workers and returns when all have done it.
func (p *pool) run(n int, job func(w *worker)) {
	p.job = job
	p.barrier.reset(n)
	p.done.Add(n - 1)
	for _, w := range p.workers[:n] {
		w.of = n
	}
	for _, w := range p.workers[1:n] {
		w.wake <- struct{}{}
	}
	job(p.workers[0])
	p.done.Wait()
}

// close ends the goroutines.
func (p *pool) close() {
	for _, w := range p.workers[1:] {
		close(w.wake)
	}
	p.workers = nil
}
