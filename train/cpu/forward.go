package cpu

import (
	"fmt"
	"os"

	"github.com/onmart/onmart/train/program"
)

// Forward is inference: one forward program with weights that do not change, on one thread. It is not for
// concurrent use; Clone gives each goroutine one of its own.
type Forward struct {
	m    *machine
	w    *worker
	in   []forwardInput
	out  tensor
	outW int
}

// Input is one input of a forward program.
type Input struct {
	Name  string
	Width int
	// Rows is above 0 for an index: whole numbers from 0 to Rows-1, and -1 for none.
	Rows int
}

type forwardInput struct {
	Input
	to tensor
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
	st.frozen, st.packs = true, map[packKey][]float32{}
	return forwardOf(newMachine(set, p, k, st, nil)), nil
}

func forwardOf(m *machine) *Forward {
	f := &Forward{m: m, w: newWorker(m.kernels, 0, 1, m.pack)}
	for i := range m.p.Buffers {
		switch b := &m.p.Buffers[i]; b.Kind {
		case program.Input:
			f.in = append(f.in, forwardInput{Input{b.Name, b.Len() / b.Shape[0], m.p.Indexed(i)}, m.mem[i]})
		case program.Output:
			f.out, f.outW = m.mem[i], b.Len()/b.Shape[0]
		}
	}
	return f
}

// Clone shares the weights and has its own memory for everything else.
func (f *Forward) Clone() *Forward {
	return forwardOf(newMachine(&program.Set{Forward: f.m.p}, f.m.p, f.m.kernels, f.m.store, nil))
}

// Inputs lists the inputs in the order in which RunAll takes them: that of the program's buffers.
func (f *Forward) Inputs() []Input {
	var in []Input
	for i := range f.in {
		in = append(in, f.in[i].Input)
	}
	return in
}

// Width is the number of values that a row of the output has.
func (f *Forward) Width() int { return f.outW }

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
	if f.out.f32 == nil {
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
	if len(f.in) != 1 {
		return fmt.Errorf("cpu: program %q has %d inputs: use RunAll", f.m.p.Name, len(f.in))
	}
	return nil
}

// number is the element type of what enters or leaves.
type number interface{ float32 | float64 }

// run runs the program over batches of its size.
func run[X, Y number](f *Forward, in [][]X, rows int, out []Y) error {
	if len(in) != len(f.in) {
		return fmt.Errorf("cpu: program %q: %d inputs are given, it has %d", f.m.p.Name, len(in), len(f.in))
	}
	if rows < 0 || len(out) != rows*f.outW {
		return fmt.Errorf("cpu: program %q: room for %d values: %d rows have %d", f.m.p.Name, len(out), rows, rows*f.outW)
	}
	for k, x := range in {
		if w := f.in[k].Width; len(x) != rows*w {
			return fmt.Errorf("cpu: program %q: %d values in: %d rows have %d (%q is %d wide)", f.m.p.Name, len(x), rows, rows*w, f.in[k].Name, w)
		}
	}
	for r := 0; r < rows; r += f.m.p.Rows {
		n := min(f.m.p.Rows, rows-r)
		for k, x := range in {
			to, w := &f.in[k], f.in[k].Width
			load(to.to, x[r*w:(r+n)*w])
			if to.Rows > 0 {
				if err := program.CheckIndices(to.to.f32[:n*w], w, to.Rows); err != nil {
					return fmt.Errorf("cpu: program %q: input %q, rows from %d: %w", f.m.p.Name, to.Name, r, err)
				}
			}
		}
		f.w.rows = n
		f.m.run(f.w)
		unload(out[r*f.outW:(r+n)*f.outW], f.out)
	}
	return nil
}

// load converts what enters into the memory of an input.
func load[X number](to tensor, x []X) {
	if to.f64 != nil {
		for i, v := range x {
			to.f64[i] = float64(v)
		}
		return
	}
	for i, v := range x {
		to.f32[i] = float32(v)
	}
}

// unload converts the output.
func unload[Y number](out []Y, from tensor) {
	if from.f64 != nil {
		for i := range out {
			out[i] = Y(from.f64[i])
		}
		return
	}
	for i := range out {
		out[i] = Y(from.f32[i])
	}
}
