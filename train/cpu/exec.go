package cpu

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/onmart/onmart/train/program"
)

// exec is a compiled set: program.Exec.
type exec struct {
	set     *program.Set
	store   *store
	slots   []float64
	train   *machine
	rest    *machine // nil without
	forward *machine
	pool    *pool
	arena   int // bytes, which the machines share
	pace    *pace
	always  bool // all threads for any batch
	data    *bound
	closed  bool

	// The job under way; workers read it, worker 0 writes failed.
	firstStep, lastStep int
	prepared            bool // weights are packed
	failed              atomic.Int64
	evalRows            int
	trainJob, evalJob   func(w *worker)
}

// bound is the data of Bind.
type bound struct {
	program.Data
	rows int
}

func newExec(b *Backend, s *program.Set) *exec {
	e := &exec{set: s, always: b.always, store: newStore(s), slots: make([]float64, len(s.Slots))}
	machines := make([]*machine, 0, 3)
	machineOf := func(p *program.Program) *machine {
		if p == nil {
			return nil
		}
		m := (&machine{p: p, varying: p == s.Forward, kernels: b.kernels, store: e.store, slots: e.slots, workers: b.threads,
			most: b.block, turns: e.train}).outline()
		machines = append(machines, m)
		return m
	}
	e.train = machineOf(s.Train)
	e.rest, e.forward = machineOf(s.Rest), machineOf(s.Forward)
	for _, m := range machines {
		e.arena = max(e.arena, m.plan.bytes)
	}
	arena, pack := aligned(e.arena), 0
	for _, m := range machines {
		m.build(arena, s.Slots)
		pack = max(pack, m.pack)
	}
	e.pool = newPool(b.kernels, b.threads, pack)
	if e.train != nil {
		e.pace = newPace(b.threads, e.threads(e.train.macs))
	}
	e.trainJob, e.evalJob = e.trainWorker, e.evalWorker
	return e
}

var errClosed = errors.New("cpu: the Exec is closed")

// Bind checks the data against the programs and keeps it.
func (e *exec) Bind(d program.Data) error {
	if e.closed {
		return errClosed
	}
	rows, err := e.set.CheckData(&d)
	if err != nil {
		return fmt.Errorf("cpu: %w", err)
	}
	e.data = &bound{d, rows}
	return nil
}

// SetRates puts other learning rates in place of those of Bind.
func (e *exec) SetRates(rates []float32) error {
	if e.closed {
		return errClosed
	}
	if err := e.set.CheckRates(e.schedule(), rates); err != nil {
		return fmt.Errorf("cpu: %w", err)
	}
	e.data.Rates = slices.Clone(rates)
	return nil
}

// schedule is what Bind was given, nil before.
func (e *exec) schedule() *program.Data {
	if e.data == nil {
		return nil
	}
	return &e.data.Data
}

// macsPerThread is the work below which another thread does not pay where nothing else is known: an Eval keeps to it, a
// training begins with it and finds out (pace). What threads leave for each other has to go from
// core to core, at 20 ns a cache line on an AMD EPYC, gradients and weights once a step whatever the batch.
// BenchmarkTrain there, on two cores, rows/s with one thread and two: batch 64 of 58k multiply-adds a row 611k and
// 536k, 1024 692k and 1090k, 8192 688k and 1317k; of 17k 1.40M and 1.37M, 1.46M and 2.54M, 1.49M and 2.56M.
const macsPerThread = 3_000_000

// threads that a batch with this much work is worth.
func (e *exec) threads(macs int) int {
	if e.always {
		return len(e.pool.workers)
	}
	return threadsFor(macs, len(e.pool.workers), macsPerThread)
}

// threadsFor is how many of n threads so much work is worth, where each must have least.
func threadsFor(macs, n, least int) int { return max(1, min(n, macs/least)) }

// Run does optimizer steps first .. first+n-1.
func (e *exec) Run(first, n int, slots []float64) error {
	if e.closed {
		return errClosed
	}
	if err := e.set.CheckRun(e.schedule(), first, n, len(slots)); err != nil {
		return fmt.Errorf("cpu: %w", err)
	}
	clear(e.slots)
	e.failed.Store(math.MaxInt64)
	e.prepared = false
	for end := first + n; first < end && e.failed.Load() == math.MaxInt64; first = e.lastStep {
		threads, steps := len(e.pool.workers), n
		if !e.always {
			threads, steps = e.pace.next(end - first)
		}
		e.firstStep, e.lastStep = first, first+steps
		start := time.Now()
		e.pool.run(threads, e.trainJob)
		if !e.always {
			e.pace.took(time.Since(start))
		}
		e.prepared = true
	}
	if s := e.failed.Load(); s != math.MaxInt64 {
		if err := e.set.CheckFinite(int(s), e.slots); err != nil {
			return fmt.Errorf("cpu: %w", err)
		}
	}
	for i, v := range e.slots {
		slots[i] += v
	}
	return nil
}

// trainWorker is one worker's share of Run.
func (e *exec) trainWorker(w *worker) {
	batch := e.train.p.Rows
	perEpoch := e.data.StepsPerEpoch(batch)
	w.data, w.train = e.data, e.data.Train
	if !e.prepared {
		e.train.prepare(w)
		if e.rest != nil {
			e.rest.prepare(w)
		}
	}
	for s := e.firstStep; s < e.lastStep; s++ {
		epoch, at := s/perEpoch, s%perEpoch
		if at == 0 || s == e.firstStep {
			w.order = program.NewPermutation(e.data.Seed, uint32(epoch), w.train.Len())
		}
		m := e.train
		if at == perEpoch-1 && w.train.Len()%batch != 0 {
			m = e.rest
		}
		w.step, w.first, w.rate, w.rows = uint32(s), at*batch, e.data.Rates[s], m.p.Rows
		m.run(w)
		if w.id == 0 && !finite(e.slots) { // worker 0 accumulates, so it sees them before the barrier
			e.failed.Store(int64(s))
		}
		w.wait()
		if e.failed.Load() <= int64(s) {
			return
		}
	}
}

func finite(x []float64) bool {
	for _, v := range x {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}

// Eval runs Forward over rows r of the bound columns named like its inputs. A float64 output is rounded.
func (e *exec) Eval(r program.Range, out []float32) error {
	if e.closed {
		return errClosed
	}
	if err := e.set.CheckEval(e.schedule(), r, len(out)); err != nil {
		return fmt.Errorf("cpu: %w", err)
	}
	m := e.forward
	for k := range m.in {
		in := &m.in[k]
		in.tensor = tensor{f32: e.data.Column(in.Name).F32[r.From*in.Width : r.To*in.Width]}
	}
	m.out.tensor = tensor{f32: out}
	e.evalRows = r.Len()
	e.pool.run(e.threads(m.macs/m.p.Rows*e.evalRows), e.evalJob)
	for k := range m.in {
		m.in[k].tensor = tensor{}
	}
	m.out.tensor = tensor{}
	return nil
}

// evalWorker is one worker's share of Eval.
func (e *exec) evalWorker(w *worker) {
	e.forward.prepare(w)
	e.forward.forward(w, e.evalRows)
}

// held is the bytes that the Exec has taken, beside the data: weights, optimizer state and constants, weights in
// panels, what a step leaves for another, and the workers' memory.
func (e *exec) held() int {
	n := e.arena + e.store.held() + 8*len(e.slots)
	for _, m := range []*machine{e.train, e.rest, e.forward} {
		if m != nil {
			n += m.own
		}
	}
	for _, w := range e.pool.workers {
		n += 4 * len(w.pack)
	}
	return n
}

// Export copies the tensors of the set out.
func (e *exec) Export() (program.Tensors, error) {
	if e.closed {
		return nil, errClosed
	}
	return e.store.export(), nil
}

// Import copies the tensors of the set in.
func (e *exec) Import(ts program.Tensors) error {
	if e.closed {
		return errClosed
	}
	return e.store.fill(ts, false)
}

// Close ends the workers. It may be called twice.
func (e *exec) Close() error {
	if !e.closed {
		e.closed = true
		e.pool.close()
	}
	return nil
}
