package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// spins is how often a worker looks before it sleeps, each time after a pause of spinPauses: about 40 us, more than any
// imbalance between two workers of a step, less than a visible waste when the machine is busy with something else.
const (
	spins      = 1000
	spinPauses = 1
)

// sleepers are workers that have looked often enough at something that others change, and sleep until it has changed.
type sleepers struct {
	asleep atomic.Int32
	mu     sync.Mutex
	moved  sync.Cond
}

func (s *sleepers) init() { s.moved.L = &s.mu }

// until sleeps until changed says so. What it looks at must be changed before wake.
func (s *sleepers) until(changed func() bool) {
	s.asleep.Add(1)
	s.mu.Lock()
	for !changed() {
		s.moved.Wait()
	}
	s.mu.Unlock()
	s.asleep.Add(-1)
}

// wake lets all look again. It costs no lock where nobody sleeps.
func (s *sleepers) wake() {
	if s.asleep.Load() > 0 { // who has counted itself after this looks at what has changed
		s.mu.Lock()
		s.moved.Broadcast()
		s.mu.Unlock()
	}
}

// gate is a number that goes up, and workers who wait for it to.
type gate struct {
	round atomic.Uint32
	_     [60]byte // what is written when somebody sleeps is not in the line that others look at
	sleepers
}

func newGate() *gate {
	g := &gate{}
	g.init()
	return g
}

// open lets all go on who wait for a round other than the present one.
func (g *gate) open() {
	g.round.Add(1)
	g.wake()
}

// wait returns when the round is not the one given any more.
func (g *gate) wait(round uint32, spins int) {
	for range spins {
		if g.round.Load() != round {
			return
		}
		pause(spinPauses)
	}
	g.until(func() bool { return g.round.Load() != round })
}

// barrier lets n workers go on together. What any of them wrote before is visible to all after.
type barrier struct {
	gate
	n       int32
	spins   int
	_       [64]byte
	arrived atomic.Int32
	_       [60]byte
}

// newBarrier is for n workers at most; reset says how many take part.
func newBarrier() *barrier {
	b := &barrier{}
	b.init()
	return b
}

// reset sets the number of workers while none waits.
func (b *barrier) reset(n int) { b.n, b.spins = int32(n), spinsFor(n) }

// spinsFor is how often one of n workers looks before it sleeps: spinning helps only where all can run at once.
func spinsFor(n int) int {
	if n <= runtime.GOMAXPROCS(0) {
		return spins
	}
	return 0
}

func (b *barrier) wait() {
	round := b.round.Load()
	if b.arrived.Add(1) == b.n {
		b.arrived.Store(0)
		b.open()
		return
	}
	b.gate.wait(round, b.spins)
}

// pool is the workers of one Exec. Worker 0 is the caller; the others are goroutines that wait between jobs, at first
// looking, then asleep.
type pool struct {
	workers []*worker
	barrier *barrier
	job     func(w *worker)
	left    atomic.Int32 // workers that have not ended the job
	done    *gate
	spins   int // between jobs
	closed  bool
}

func newPool(k *kernels, threads, pack int) *pool {
	p := &pool{barrier: newBarrier(), done: newGate(), spins: spinsFor(threads)}
	for id := range threads {
		w := newWorker(k, id, threads, pack)
		w.barrier = p.barrier
		p.workers = append(p.workers, w)
		if id > 0 {
			go p.serve(w, w.start.round.Load())
		}
	}
	return p
}

// serve does one job after the other, each when the worker's gate opens.
func (p *pool) serve(w *worker, round uint32) {
	for {
		w.start.wait(round, p.spins)
		round++
		if p.closed {
			return
		}
		p.job(w)
		if p.left.Add(-1) == 0 {
			p.done.open()
		}
	}
}

// run does the job on the first n workers and returns when all have done it.
func (p *pool) run(n int, job func(w *worker)) {
	p.job = job
	p.barrier.reset(n)
	p.left.Store(int32(n - 1))
	round := p.done.round.Load()
	for _, w := range p.workers[:n] {
		w.of = n
	}
	for _, w := range p.workers[1:n] {
		w.start.open()
	}
	job(p.workers[0])
	if n > 1 {
		p.done.wait(round, spinsFor(n))
	}
}

// close ends the goroutines.
func (p *pool) close() {
	p.closed = true
	for _, w := range p.workers[1:] {
		w.start.open()
	}
	p.workers = nil
}
