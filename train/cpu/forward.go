package cpu

import (
	"fmt"
	"os"

	"github.com/onmart/onmart/train/program"
)

// Forward is inference: one forward program with weights that do not change, on one thread. It is not for
// concurrent use; Clone gives each goroutine one of its own.
type Forward struct {
	m      *machine
	w      *worker
	in     tensor
	out    tensor
	inW    int
	outW   int
	inName string
}

// NewForward makes a program ready to run. It must have one Input and one Output; weights must hold its
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
	if inputs != 1 {
		return nil, fmt.Errorf("cpu: program %q has %d inputs, inference takes one", p.Name, inputs)
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
			f.in, f.inW, f.inName = m.mem[i], b.Len()/b.Shape[0], b.Name
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

// Run maps x [rows, in] to out [rows, out], both row-major. A float32 input takes x rounded, a float32 output
// is widened. Any number of rows gives the same bits for each row.
func (f *Forward) Run(x []float64, rows int, out []float64) error {
	if err := f.check(x, rows, len(out)); err != nil {
		return err
	}
	f.tiles(x, rows, func(at, n int) {
		if f.out.f64 != nil {
			copy(out[at:], f.out.f64[:n])
			return
		}
		for i, v := range f.out.f32[:n] {
			out[at+i] = float64(v)
		}
	})
	return nil
}

// RunF32 is Run for a program whose output is float32, such as one that only standardises.
func (f *Forward) RunF32(x []float64, rows int, out []float32) error {
	if err := f.check(x, rows, len(out)); err != nil {
		return err
	}
	if f.out.f32 == nil {
		return fmt.Errorf("cpu: the output of program %q is F64: use Run", f.m.p.Name)
	}
	f.tiles(x, rows, func(at, n int) { copy(out[at:], f.out.f32[:n]) })
	return nil
}

func (f *Forward) check(x []float64, rows, out int) error {
	if rows < 0 || len(x) != rows*f.inW || out != rows*f.outW {
		return fmt.Errorf("cpu: program %q: %d values in and room for %d: %d rows have %d (%q is %d wide) and %d",
			f.m.p.Name, len(x), out, rows, rows*f.inW, f.inName, f.inW, rows*f.outW)
	}
	return nil
}

// tiles runs the program over batches of its size; done is given where a batch's output goes and its length.
func (f *Forward) tiles(x []float64, rows int, done func(at, n int)) {
	for r := 0; r < rows; r += f.m.p.Rows {
		f.w.rows = min(f.m.p.Rows, rows-r)
		in := x[r*f.inW : (r+f.w.rows)*f.inW]
		if f.in.f64 != nil {
			copy(f.in.f64, in)
		} else {
			for i, v := range in {
				f.in.f32[i] = float32(v)
			}
		}
		f.m.run(f.w)
		done(r*f.outW, f.w.rows*f.outW)
	}
}
