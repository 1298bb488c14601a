package cpu

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"

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
	input   []evalInput
	pool    *pool
	always  bool // all threads for any batch
	data    *bound
	closed  bool

	// The job under way; workers read it, worker 0 writes failed.
	firstStep, lastStep int
	failed              atomic.Int64
	evalRange           program.Range
	evalOut             []float32
	trainJob, evalJob   func(w *worker)
}

// bound is the data of Bind.
type bound struct {
	program.Data
	rows int
}

type evalInput struct {
	name  string
	width int
	to    []float32
}

func newExec(b *Backend, s *program.Set) *exec {
	e := &exec{set: s, always: b.always, store: newStore(s), slots: make([]float64, len(s.Slots))}
	pack := 0
	machineOf := func(p *program.Program) *machine {
		if p == nil {
			return nil
		}
		m := newMachine(s, p, b.kernels, e.store, e.slots)
		pack = max(pack, m.pack)
		return m
	}
	e.train, e.rest, e.forward = machineOf(s.Train), machineOf(s.Rest), machineOf(s.Forward)
	for i := range s.Forward.Buffers {
		if f := &s.Forward.Buffers[i]; f.Kind == program.Input {
			e.input = append(e.input, evalInput{f.Name, f.Len() / f.Shape[0], e.forward.mem[i].f32})
		}
	}
	e.pool = newPool(b.kernels, b.threads, pack)
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

// schedule is what Bind was given, nil before.
func (e *exec) schedule() *program.Data {
	if e.data == nil {
		return nil
	}
	return &e.data.Data
}

// macsPerThread is the work below which another thread does not pay: about 200 us of the micro-kernel, so that the
// barriers in a step stay a small part of it. BenchmarkTrain on two cores: with a second thread, batches of 64 rows of
// 53k multiply-adds lost up to half, batches of 256 a tenth, 1024 gained 30 %.
const macsPerThread = 8_000_000

// threads that a batch with this much work is worth.
func (e *exec) threads(macs int) int {
	if e.always {
		return len(e.pool.workers)
	}
	return max(1, min(len(e.pool.workers), macs/macsPerThread))
}

// Run does optimizer steps first .. first+n-1.
func (e *exec) Run(first, n int, slots []float64) error {
	if e.closed {
		return errClosed
	}
	if err := e.set.CheckRun(e.schedule(), first, n, len(slots)); err != nil {
		return fmt.Errorf("cpu: %w", err)
	}
	clear(e.slots)
	e.firstStep, e.lastStep = first, first+n
	e.failed.Store(math.MaxInt64)
	e.pool.run(e.threads(e.train.macs), e.trainJob)
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
	e.evalRange, e.evalOut = r, out
	e.pool.run(e.threads(e.forward.macs), e.evalJob)
	e.evalOut = nil
	return nil
}

// evalWorker is one worker's share of Eval: its rows of every tile.
func (e *exec) evalWorker(w *worker) {
	m := e.forward
	id, o, width := m.result()
	t := m.mem[id]
	part := partition{units: o.Shape[0], perRow: true, quantum: rowQuantum}
	for at := e.evalRange.From; at < e.evalRange.To; at += m.p.Rows {
		w.rows = min(m.p.Rows, e.evalRange.To-at)
		lo, hi := part.split(w.rows, w.id, w.of)
		for _, in := range e.input {
			copy(in.to[lo*in.width:hi*in.width], e.data.Column(in.name).F32[(at+lo)*in.width:(at+hi)*in.width])
		}
		m.run(w)
		out := e.evalOut[(at-e.evalRange.From)*width:]
		if t.f64 == nil {
			copy(out[lo*width:hi*width], t.f32[lo*width:hi*width])
		} else {
			for i := lo * width; i < hi*width; i++ {
				out[i] = float32(t.f64[i])
			}
		}
		w.wait()
	}
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
