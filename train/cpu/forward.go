package cpu

import (
	"fmt"
	"os"

	"github.com/onmart/onmart/train/program"
)

// Forward is inference: one forward program with weights that do not change. It is not for concurrent use; Clone gives
// each goroutine one of its own, and Parallel one that divides a batch between threads.
type Forward struct {
	m    *machine
	pool *pool
	rows int // of the run under way
	job  func(w *worker)
	// least is the multiply-adds that another thread is worth: macsPerThread but in tests.
	least  int
	closed bool
}

// Input is one input of a forward program.
type Input struct {
	Name  string
	Width int
	// Rows is above 0 for an index: whole numbers from 0 to Rows-1, and -1 for none.
	Rows int
}

// NewForward makes a program ready to run. It must have at least one Input, and one Output; weights must hold its
// params and consts under their names, and may hold more. They are copied. ONMART_CPU counts as in New.
func NewForward(p *program.Program, weights program.Tensors) (*Forward, error) {
	k, err := chooseKernels(os.Getenv("ONMART_CPU"))
	if err != nil {
		return nil, err
	}
	return newForward(k, p, weights)
}

func newForward(k *kernels, p *program.Program, weights program.Tensors) (*Forward, error) {
	set := &program.Set{Forward: p}
	inputs := 0
	for i := range p.Buffers {
		switch b := &p.Buffers[i]; b.Kind {
		case program.Param:
			set.Params = append(set.Params, program.TensorSpec{Name: b.Name, Shape: b.Shape})
		case program.Const:
			set.Consts = append(set.Consts, program.TensorSpec{Name: b.Name, Shape: b.Shape})
		case program.Input:
			inputs++
		}
	}
	if err := set.Validate(); err != nil {
		return nil, err
	}
	if inputs == 0 {
		return nil, fmt.Errorf("cpu: program %q has no input", p.Name)
	}
	st := newStore(set)
	if err := st.fill(weights, true); err != nil {
		return nil, fmt.Errorf("%w (weights of program %q)", err, p.Name)
	}
	st.frozen = true
	return forwardOf(st, set, k, 1), nil
}

func forwardOf(st *store, set *program.Set, k *kernels, threads int) *Forward {
	m := (&machine{p: set.Forward, varying: true, kernels: k, store: st, workers: threads, checks: true}).outline()
	m.build(aligned(m.plan.bytes), nil)
	f := &Forward{m: m, pool: newPool(k, threads, m.pack), least: macsPerThread}
	f.job = func(w *worker) { f.m.forward(w, f.rows) }
	return f
}

// Clone shares the weights and has its own memory for everything else. It runs on one thread.
func (f *Forward) Clone() *Forward { return f.Parallel(1) }

// Parallel is a Clone that divides the rows of a batch between so many threads, where it has enough of them; the bits
// are the same. Close gives the threads back.
func (f *Forward) Parallel(threads int) *Forward {
	return forwardOf(f.m.store, &program.Set{Forward: f.m.p}, f.m.kernels, max(1, min(threads, maxThreads)))
}

// Close ends the threads of Parallel. The Forward is of no use after it. Without threads there is nothing to close.
func (f *Forward) Close() {
	if !f.closed {
		f.closed = true
		f.pool.close()
	}
}

// Inputs lists the inputs in the order in which RunAll takes them: that of the program's buffers.
func (f *Forward) Inputs() []Input {
	var in []Input
	for i := range f.m.in {
		in = append(in, f.m.in[i].Input)
	}
	return in
}

// Width is the number of values that a row of the output has.
func (f *Forward) Width() int { return f.m.out.width }

// Run maps x [rows, in] to out [rows, out], both row-major, for a program with one input. A float32 input takes x
// rounded, a float32 output is widened. Any number of rows gives the same bits for each row.
func (f *Forward) Run(x []float64, rows int, out []float64) error {
	if err := f.single(); err != nil {
		return err
	}
	in := [1][]float64{x}
	return run(f, in[:], rows, out)
}

// RunF32 is Run for a program whose output is float32, such as one that only standardises.
func (f *Forward) RunF32(x []float64, rows int, out []float32) error {
	if err := f.single(); err != nil {
		return err
	}
	if f.m.p.Buffers[f.m.out.buf].DType == program.F64 {
		return fmt.Errorf("cpu: the output of program %q is F64: use Run", f.m.p.Name)
	}
	in := [1][]float64{x}
	return run(f, in[:], rows, out)
}

// RunAll is Run for any number of inputs, one slice [rows, width] for each of Inputs. A value that is no index where
// one is wanted is an error, and out is then of no use.
func (f *Forward) RunAll(in [][]float64, rows int, out []float64) error { return run(f, in, rows, out) }

// RunAllF32 is RunAll for columns as training has them. A float64 output is rounded.
func (f *Forward) RunAllF32(in [][]float32, rows int, out []float32) error {
	return run(f, in, rows, out)
}

func (f *Forward) single() error {
	if len(f.m.in) != 1 {
		return fmt.Errorf("cpu: program %q has %d inputs: use RunAll", f.m.p.Name, len(f.m.in))
	}
	return nil
}

// number is the element type of what enters or leaves.
type number interface{ float32 | float64 }

// run runs the program over the rows.
func run[X, Y number](f *Forward, in [][]X, rows int, out []Y) error {
	m := f.m
	if f.closed {
		return fmt.Errorf("cpu: program %q: the Forward is closed", m.p.Name)
	}
	if len(in) != len(m.in) {
		return fmt.Errorf("cpu: program %q: %d inputs are given, it has %d", m.p.Name, len(in), len(m.in))
	}
	if rows < 0 || len(out) != rows*m.out.width {
		return fmt.Errorf("cpu: program %q: room for %d values: %d rows have %d", m.p.Name, len(out), rows,
			rows*m.out.width)
	}
	for k, x := range in {
		s := &m.in[k]
		if len(x) != rows*s.Width {
			return fmt.Errorf("cpu: program %q: %d values in: %d rows have %d (%q is %d wide)", m.p.Name, len(x), rows,
				rows*s.Width, s.Name, s.Width)
		}
		switch x := any(x).(type) {
		case []float32:
			s.tensor = tensor{f32: x}
		case []float64:
			s.tensor = tensor{f64: x}
		}
	}
	switch y := any(out).(type) {
	case []float32:
		m.out.tensor = tensor{f32: y}
	case []float64:
		m.out.tensor = tensor{f64: y}
	}
	f.rows = rows
	n := threadsFor(m.macs/m.p.Rows*rows, len(f.pool.workers), f.least)
	f.pool.run(n, f.job)
	for k := range m.in {
		m.in[k].tensor = tensor{}
	}
	m.out.tensor = tensor{}
	for _, w := range f.pool.workers[:n] {
		if err := w.fault; err != nil {
			w.fault = nil
			return err
		}
	}
	return nil
}

// feed is where an input of a forward program comes from, during a run.
type feed struct {
	Input
	buf int
	tensor
}

// drain is where the output of a forward program goes, during a run.
type drain struct {
	buf, width int
	tensor
}

// feedOf describes an input of a forward program.
func (m *machine) feedOf(id int) feed {
	b := &m.p.Buffers[id]
	return feed{Input: Input{b.Name, b.Len() / b.Shape[0], m.p.Indexed(id)}, buf: id}
}

// forward runs a forward program over rows 0..rows of its sources: all at once, or where there are steps that need all
// rows of the program in one place, as many at a time as the program has.
func (m *machine) forward(w *worker, rows int) {
	w.from, w.rows = 0, rows
	if m.stream {
		m.run(w)
		return
	}
	for ; w.from < rows; w.from += m.p.Rows {
		w.rows = min(m.p.Rows, rows-w.from)
		m.run(w)
		w.wait()
	}
}

// load emits the step that fills input k.
func (m *machine) load(k int) {
	l := lowering{machine: m}
	id, to, width, indexed := m.in[k].buf, m.mem[m.in[k].buf], m.in[k].Width, m.in[k].Rows
	l.emitRows(id, func(w *worker, lo, hi int) {
		at := lo + w.base + w.from
		m.in[k].copyTo(to, lo*width, hi*width, at*width)
		if !m.checks || indexed == 0 || w.fault != nil {
			return
		}
		if err := program.CheckIndices(to.f32[lo*width:hi*width], width, indexed); err != nil {
			w.fault = fmt.Errorf("cpu: program %q: input %q, rows from %d: %w", m.p.Name, m.in[k].Name, at, err)
		}
	}, l.rows(id, true))
}

// copyTo converts what begins at from into elements lo..hi.
func (s *feed) copyTo(to tensor, lo, hi, from int) {
	switch {
	case to.f64 != nil && s.f64 != nil:
		copy(to.f64[lo:hi], s.f64[from:])
	case to.f64 != nil:
		convert(to.f64[lo:hi], s.f32[from:])
	case s.f64 != nil:
		convert(to.f32[lo:hi], s.f64[from:])
	default:
		copy(to.f32[lo:hi], s.f32[from:])
	}
}

// convert fills y with as many elements of x.
func convert[Y, X number](y []Y, x []X) {
	x = x[:len(y)]
	for i, v := range x {
		y[i] = Y(v)
	}
}

// unload emits the step that hands the output out.
func (m *machine) unload() {
	l := lowering{machine: m}
	id, width := m.out.buf, m.out.width
	from := m.mem[id]
	l.emitRows(id, func(w *worker, lo, hi int) {
		to, n := (lo+w.base+w.from)*width, (hi-lo)*width
		switch {
		case from.f64 != nil && m.out.f64 != nil:
			copy(m.out.f64[to:to+n], from.f64[lo*width:])
		case from.f64 != nil:
			convert(m.out.f32[to:to+n], from.f64[lo*width:])
		case m.out.f64 != nil:
			convert(m.out.f64[to:to+n], from.f32[lo*width:])
		default:
			copy(m.out.f32[to:to+n], from.f32[lo*width:])
		}
	}, l.rows(id, false))
}
