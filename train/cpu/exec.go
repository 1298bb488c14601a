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

// find is a linear search: a model has a few columns.
func (b *bound) find(name string) *program.Column {
	for i := range b.Columns {
		if b.Columns[i].Name == name {
			return &b.Columns[i]
		}
	}
	return nil
}

type evalInput struct {
	name  string
	dtype program.DType
	width int
	to    []float32
}

func newExec(b *Backend, s *program.Set) *exec {
	e := &exec{set: s, store: newStore(s), slots: make([]float64, len(s.Slots))}
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
			e.input = append(e.input, evalInput{f.Name, f.DType, f.Len() / f.Shape[0], e.forward.mem[i].f32})
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
	b := &bound{Data: d}
	if len(d.Columns) > 0 {
		b.rows = d.Columns[0].Rows
	}
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("cpu: bind: "+format, args...)) }
	for i, c := range d.Columns {
		switch {
		case b.find(c.Name) != &b.Columns[i]:
			fault("column %q is given twice", c.Name)
		case c.Rows != b.rows:
			fault("column %q has %d rows, %q has %d", c.Name, c.Rows, d.Columns[0].Name, b.rows)
		case c.Width < 1 || c.Rows < 0 || c.Rows > math.MaxInt32 || len(c.F32) != c.Rows*c.Width:
			fault("column %q has %d elements for %d rows of %d", c.Name, len(c.F32), c.Rows, c.Width)
		}
	}
	for _, m := range []*machine{e.train, e.rest} {
		if m != nil {
			errs = append(errs, b.gathers(m.p)...)
		}
	}
	if e.train != nil {
		errs = append(errs, b.schedule(e)...)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	e.data = b
	return nil
}

// gathers checks that every Gather of a program finds its column.
func (b *bound) gathers(p *program.Program) (errs []error) {
	for i, in := range p.Instrs {
		if in.Op != program.Gather {
			continue
		}
		width := p.Buffers[in.Outs[0]].Shape[1]
		if c := b.find(in.Attr.Column); c == nil {
			errs = append(errs, fmt.Errorf("cpu: bind: column %q is missing; instruction %d of %s gathers it", in.Attr.Column, i, p.Name))
		} else if c.Width != width {
			errs = append(errs, fmt.Errorf("cpu: bind: column %q is %d wide; instruction %d of %s wants %d", c.Name, c.Width, i, p.Name, width))
		}
	}
	return errs
}

// schedule checks that the batches of the programs cut the training rows.
func (b *bound) schedule(e *exec) (errs []error) {
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("cpu: bind: "+format, args...)) }
	if b.Train.From < 0 || b.Train.To > b.rows || b.Train.Len() < 1 {
		fault("training rows %d..%d of %d: want at least one, within the data", b.Train.From, b.Train.To, b.rows)
		return errs
	}
	batch := e.train.p.Rows
	switch left := b.Train.Len() % batch; {
	case left > 0 && e.rest == nil:
		fault("%d training rows leave %d after batches of %d, and the set has no rest program", b.Train.Len(), left, batch)
	case left > 0 && e.rest.p.Rows != left:
		fault("%d training rows leave %d after batches of %d, and the rest program has %d rows", b.Train.Len(), left, batch, e.rest.p.Rows)
	}
	if len(b.Rates) > math.MaxUint32 {
		fault("%d steps: they are counted in 32 bits", len(b.Rates))
	}
	for s, r := range b.Rates {
		if !(r >= 0 && r <= math.MaxFloat32) {
			fault("the learning rate of step %d is %v", s, r)
			break
		}
	}
	return errs
}

// macsPerThread is the work below which another thread does not pay: about 200 us of the micro-kernel, so that the
// barriers in a step stay a small part of it. BenchmarkTrain on two cores: with a second thread, batches of 64 rows of
// 53k multiply-adds lost up to half, batches of 256 a tenth, 1024 gained 30 %.
const macsPerThread = 8_000_000

// threads that a batch with this much work is worth.
func (e *exec) threads(macs int) int {
	return max(1, min(len(e.pool.workers), macs/macsPerThread))
}

// Run does optimizer steps first .. first+n-1.
func (e *exec) Run(first, n int, slots []float64) error {
	switch {
	case e.closed:
		return errClosed
	case e.train == nil:
		return errors.New("cpu: run: the set has no training program")
	case e.data == nil:
		return errors.New("cpu: run: Bind comes first")
	case first < 0 || n < 0 || n > len(e.data.Rates)-first:
		return fmt.Errorf("cpu: run: steps %d..%d of %d", first, first+n, len(e.data.Rates))
	case len(slots) != len(e.slots):
		return fmt.Errorf("cpu: run: room for %d slots, the set has %d", len(slots), len(e.slots))
	}
	clear(e.slots)
	e.firstStep, e.lastStep = first, first+n
	e.failed.Store(math.MaxInt64)
	e.pool.run(e.threads(e.train.macs), e.trainJob)
	if s := e.failed.Load(); s != math.MaxInt64 {
		for i, v := range e.slots {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("cpu: run: step %d: slot %q became %v: the training diverged; lower the learning rate or look for NaN in the columns", s, e.set.Slots[i], v)
			}
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
	switch {
	case e.closed:
		return errClosed
	case e.data == nil:
		return errors.New("cpu: eval: Bind comes first")
	case r.From < 0 || r.To < r.From || r.To > e.data.rows:
		return fmt.Errorf("cpu: eval: rows %d..%d of %d", r.From, r.To, e.data.rows)
	}
	for _, in := range e.input {
		c := e.data.find(in.name)
		switch {
		case in.dtype != program.F32:
			return fmt.Errorf("cpu: eval: input %q of the forward program is %s, and columns are F32", in.name, in.dtype)
		case c == nil:
			return fmt.Errorf("cpu: eval: column %q is missing; the forward program reads it", in.name)
		case c.Width != in.width:
			return fmt.Errorf("cpu: eval: column %q is %d wide, the forward program wants %d", in.name, c.Width, in.width)
		}
	}
	if _, o, width := e.forward.result(); len(out) != r.Len()*width {
		return fmt.Errorf("cpu: eval: room for %d values, %d rows of output %q have %d", len(out), r.Len(), o.Name, r.Len()*width)
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
	part := partition{units: o.Shape[0], perRow: true, quantum: tileRows}
	for at := e.evalRange.From; at < e.evalRange.To; at += m.p.Rows {
		w.rows = min(m.p.Rows, e.evalRange.To-at)
		lo, hi := part.split(w.rows, w.id, w.of)
		for _, in := range e.input {
			copy(in.to[lo*in.width:hi*in.width], e.data.find(in.name).F32[(at+lo)*in.width:(at+hi)*in.width])
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
