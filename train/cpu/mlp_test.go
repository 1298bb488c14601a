package cpu

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/train/program"
)

// build writes programs by hand; every temp gets a place of its own.
type build struct{ p program.Program }

func (b *build) buffer(f program.Buffer) int {
	b.p.Buffers = append(b.p.Buffers, f)
	return len(b.p.Buffers) - 1
}

func (b *build) named(kind program.Kind, name string, shape ...int) int {
	for i, f := range b.p.Buffers {
		if f.Kind == kind && f.Name == name {
			return i
		}
	}
	d := program.F32
	if kind == program.Slot {
		d = program.F64
	}
	return b.buffer(program.Buffer{Name: name, Kind: kind, DType: d, Shape: shape, PerRow: kind == program.Input || kind == program.Output})
}

func (b *build) temp(perRow bool, shape ...int) int {
	f := program.Buffer{Kind: program.Temp, DType: program.F32, Shape: shape, PerRow: perRow, Offset: b.p.Arena}
	b.p.Arena += (f.Len()*4 + 63) / 64 * 64
	return b.buffer(f)
}

func (b *build) do(op program.Op, at program.Attr, args []int, outs ...int) int {
	b.p.Instrs = append(b.p.Instrs, program.Instr{Op: op, Attr: at, Args: args, Outs: outs})
	return outs[0]
}

// mlp is a multi-layer perceptron with a sigmoid cross-entropy loss: widths are those of the input and the
// hidden layers.
type mlp struct {
	widths      []int
	batch, rest int
	evalRows    int
	dropout     float32
	silu        bool // hidden layers have silu instead of relu
	detour      bool // the input passes Concat, Slice, Add and Scale first, to run those too
}

func (c mlp) act() program.Act {
	if c.silu {
		return program.Silu
	}
	return program.Relu
}

func (c mlp) set() *program.Set {
	s := &program.Set{Slots: []string{"loss", "batches"}}
	widths := append(append([]int(nil), c.widths...), 1)
	for i := range len(widths) - 1 {
		w, b := fmt.Sprintf("w%d", i), fmt.Sprintf("b%d", i)
		s.Params = append(s.Params,
			program.TensorSpec{Name: w, Shape: []int{widths[i], widths[i+1]}, Init: "he_uniform", FanIn: widths[i], Site: uint32(2 * i)},
			program.TensorSpec{Name: b, Shape: []int{widths[i+1]}, Init: "zero"})
		for _, st := range []string{"m.", "v."} {
			s.State = append(s.State,
				program.TensorSpec{Name: st + w, Shape: []int{widths[i], widths[i+1]}},
				program.TensorSpec{Name: st + b, Shape: []int{widths[i+1]}})
		}
	}
	s.Train = c.train("train", c.batch, widths)
	if c.rest > 0 {
		s.Rest = c.train("rest", c.rest, widths)
	}
	f := &build{p: program.Program{Name: "forward", Rows: c.evalRows}}
	h := f.named(program.Input, "x", c.evalRows, widths[0])
	for i := range len(widths) - 1 {
		w, b := f.named(program.Param, fmt.Sprintf("w%d", i), widths[i], widths[i+1]), f.named(program.Param, fmt.Sprintf("b%d", i), widths[i+1])
		if i == len(widths)-2 {
			f.do(program.MatMul, program.Attr{}, []int{h, w, b}, f.named(program.Output, "z", c.evalRows, 1))
		} else {
			h = f.do(program.MatMul, program.Attr{Act: c.act()}, []int{h, w, b}, f.temp(true, c.evalRows, widths[i+1]))
		}
	}
	s.Forward = &f.p
	return s
}

func (c mlp) train(name string, rows int, widths []int) *program.Program {
	b := &build{p: program.Program{Name: name, Rows: rows}}
	for _, in := range []struct {
		name  string
		width int
	}{{"x", widths[0]}, {"t", 1}, {"w", 1}} {
		b.do(program.Gather, program.Attr{Column: in.name}, nil, b.named(program.Input, in.name, rows, in.width))
	}
	h := b.named(program.Input, "x")
	if c.detour {
		n := widths[0]
		two := b.do(program.Concat, program.Attr{}, []int{h, h}, b.temp(true, rows, 2*n))
		right := b.do(program.Slice, program.Attr{From: n, To: 2 * n}, []int{two}, b.temp(true, rows, n))
		back := b.do(program.SliceGrad, program.Attr{From: n, To: 2 * n}, []int{right}, b.temp(true, rows, 2*n))
		again := b.do(program.Slice, program.Attr{From: n, To: 2 * n}, []int{back}, b.temp(true, rows, n))
		sum := b.do(program.Add, program.Attr{}, []int{again, h}, again)
		h = b.do(program.Scale, program.Attr{Scale: 0.5}, []int{sum}, sum)
	}
	type layer struct{ in, out, act, grad, w, site, width int } // grad: what ActGrad reads
	var layers []layer
	for i := range len(widths) - 1 {
		l := layer{in: h, site: 1000 + i, width: widths[i+1]}
		l.w = b.named(program.Param, fmt.Sprintf("w%d", i), widths[i], widths[i+1])
		bias := b.named(program.Param, fmt.Sprintf("b%d", i), widths[i+1])
		at := program.Attr{Act: c.act()}
		if i == len(widths)-2 {
			at.Act = program.None
		}
		if at.Act == program.Silu {
			l.grad = b.do(program.MatMul, program.Attr{}, []int{h, l.w, bias}, b.temp(true, rows, widths[i+1]))
			l.act = b.do(program.Activate, at, []int{l.grad}, b.temp(true, rows, widths[i+1]))
		} else {
			l.act = b.do(program.MatMul, at, []int{h, l.w, bias}, b.temp(true, rows, widths[i+1]))
			l.grad = l.act
		}
		l.out = l.act
		if c.dropout > 0 && at.Act != program.None {
			l.out = b.do(program.Dropout, program.Attr{Rate: c.dropout, Site: uint32(l.site)}, []int{l.act}, b.temp(true, rows, widths[i+1]))
		}
		h = l.out
		layers = append(layers, l)
	}
	t, w := b.named(program.Input, "t"), b.named(program.Input, "w")
	loss := b.do(program.BCE, program.Attr{}, []int{h, t, w}, b.temp(false, 1))
	b.do(program.Accumulate, program.Attr{Scale: float32(rows)}, []int{loss}, b.named(program.Slot, "loss", 1))
	b.do(program.Accumulate, program.Attr{Scale: 1}, nil, b.named(program.Slot, "batches", 1))
	one := b.do(program.Fill, program.Attr{Scale: 1}, nil, b.temp(false, 1))
	dz := b.do(program.BCEGrad, program.Attr{}, []int{h, t, w, one}, b.temp(true, rows, 1))
	type grad struct {
		name  string
		at    int
		shape []int
	}
	var grads []grad
	for i := len(layers) - 1; i >= 0; i-- {
		l := layers[i]
		dw := b.do(program.MatMul, program.Attr{TransA: true}, []int{l.in, dz}, b.temp(false, widths[i], l.width))
		db := b.do(program.ColSum, program.Attr{}, []int{dz}, b.temp(false, l.width))
		grads = append(grads, grad{fmt.Sprintf("w%d", i), dw, []int{widths[i], l.width}}, grad{fmt.Sprintf("b%d", i), db, []int{l.width}})
		if i > 0 {
			dz = b.do(program.MatMul, program.Attr{TransB: true}, []int{dz, l.w}, b.temp(true, rows, widths[i]))
			if c.dropout > 0 {
				dz = b.do(program.Dropout, program.Attr{Rate: c.dropout, Site: uint32(layers[i-1].site)}, []int{dz}, dz)
			}
			dz = b.do(program.ActGrad, program.Attr{Act: c.act()}, []int{dz, layers[i-1].grad}, dz)
		}
	}
	for _, g := range grads {
		b.do(program.AdamW, program.Attr{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 1e-4}, []int{g.at},
			b.named(program.Param, g.name, g.shape...), b.named(program.State, "m."+g.name, g.shape...), b.named(program.State, "v."+g.name, g.shape...))
	}
	return &b.p
}

// planted is a problem whose answer is known: t is 1 where the point lies outside a circle.
func planted(rows, width, steps int, rate float32) program.Data {
	x, t, w := make([]float32, rows*width), make([]float32, rows), make([]float32, rows)
	for i := range rows {
		for j := range width {
			x[i*width+j] = 2*program.Uniforms4(7, uint32(j), 0, uint64(i))[0] - 1
		}
		a, b := x[i*width], x[i*width+1]
		if a*a+b*b > 0.6 {
			t[i] = 1
		}
		w[i] = 1
	}
	rates := make([]float32, steps)
	for i := range rates {
		rates[i] = rate
	}
	return program.Data{
		Columns:  []program.Column{{Name: "x", Rows: rows, Width: width, F32: x}, {Name: "t", Rows: rows, Width: 1, F32: t}, {Name: "w", Rows: rows, Width: 1, F32: w}},
		Schedule: program.Schedule{Seed: 42, Train: program.Range{From: 0, To: rows}, Rates: rates},
	}
}

// compile binds the data to a new exec with initial weights.
func compile(t testing.TB, k *kernels, threads int, s *program.Set, d program.Data) *exec {
	t.Helper()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	e := newExec(&Backend{threads: threads, kernels: k}, s)
	t.Cleanup(func() { e.Close() })
	if err := e.Import(s.Initial(d.Seed)); err != nil {
		t.Fatal(err)
	}
	if err := e.Bind(d); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestTrainingFindsThePlantedCircle(t *testing.T) {
	for _, k := range paths() {
		t.Run(k.name, func(t *testing.T) {
			const rows, steps = 1000, 160 // 8 steps an epoch: 7 of 128 and one of 104
			s := mlp{widths: []int{2, 16, 16}, batch: 128, rest: 104, evalRows: 64}.set()
			e := compile(t, k, 2, s, planted(rows, 2, steps, 0.02))
			var first, last [2]float64
			if err := e.Run(0, 8, first[:]); err != nil {
				t.Fatal(err)
			}
			if err := e.Run(8, steps-16, make([]float64, 2)); err != nil {
				t.Fatal(err)
			}
			if err := e.Run(steps-8, 8, last[:]); err != nil {
				t.Fatal(err)
			}
			if first[1] != 8 || last[1] != 8 {
				t.Errorf("accumulated %v and %v batches, want 8", first[1], last[1])
			}
			if l0, l1 := first[0]/rows, last[0]/rows; !(l0 > 0.4 && l1 < 0.1) {
				t.Errorf("loss %v in the first epoch, %v in the last: want it to fall below 0.1", l0, l1)
			}
			z := make([]float32, rows)
			if err := e.Eval(program.Range{From: 0, To: rows}, z); err != nil {
				t.Fatal(err)
			}
			wrong := 0
			for i, target := range e.data.Columns[1].F32 {
				if (z[i] > 0) != (target == 1) {
					wrong++
				}
			}
			if wrong > rows/20 {
				t.Errorf("%d of %d points on the wrong side", wrong, rows)
			}
		})
	}
}

// paths are the kernels that this processor has.
func paths() []*kernels {
	p := []*kernels{portableKernels()}
	if hasAVX2() {
		p = append(p, avx2Kernels())
	}
	if hasAVX512() {
		p = append(p, avx512Kernels())
	}
	return p
}

func same(a, b []float32) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d and %d elements", len(a), len(b))
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return fmt.Errorf("element %d: %x (%v) and %x (%v)", i, math.Float32bits(a[i]), a[i], math.Float32bits(b[i]), b[i])
		}
	}
	return nil
}

// benchTrain runs optimizer steps over 65,536 rows in memory, shuffled anew each epoch. Beside the mean it reports the
// speed of the tenth of runs that were fastest, of about a millisecond each: what the machine does while nothing else
// runs on it.
func benchTrain(b *testing.B, c mlp, threads int) {
	const rows = 8 * 8192
	c.evalRows = 256
	s, d := c.set(), planted(rows, c.widths[0], 1<<20, 1e-3)
	k, err := chooseKernels(os.Getenv("ONMART_CPU"))
	if err != nil {
		b.Fatal(err)
	}
	e := compile(b, k, threads, s, d)
	slots := make([]float64, 2)
	step, n := 0, max(1, 1024/c.batch)
	run := func(n int) {
		if step+n > 1<<20 {
			step = 0
		}
		if err := e.Run(step, n, slots); err != nil {
			b.Fatal(err)
		}
		step += n
	}
	run(n)
	took := make([]time.Duration, 0, 1<<16)
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		run(n)
		if len(took) < cap(took) {
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(b.N*n*c.batch)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(n*c.batch)/took[len(took)/10].Seconds(), "best-rows/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkTrain is the speed of training: Adam, cross-entropy, float32, the batches and perceptrons that peers are
// measured on.
func BenchmarkTrain(b *testing.B) {
	for _, widths := range [][]int{{32, 128, 128}, {15, 500}} {
		for _, batch := range []int{64, 1024, 8192} {
			for _, threads := range []int{1, 2} {
				name := fmt.Sprintf("%s-1/batch=%d/threads=%d", strings.Trim(strings.ReplaceAll(fmt.Sprint(widths), " ", "-"), "[]"), batch, threads)
				b.Run(name, func(b *testing.B) { benchTrain(b, mlp{widths: widths, batch: batch}, threads) })
			}
		}
	}
	b.Run("15-128-128-1/batch=1024/threads=2/dropout", func(b *testing.B) {
		benchTrain(b, mlp{widths: []int{15, 128, 128}, batch: 1024, dropout: 0.2}, 2)
	})
}

// BenchmarkBarrier is the time of a barrier between spinning workers.
func BenchmarkBarrier(b *testing.B) {
	for _, threads := range []int{2, 4} {
		b.Run(fmt.Sprint(threads), func(b *testing.B) {
			p := newPool(portableKernels(), threads, 0)
			defer p.close()
			n := b.N
			b.ResetTimer()
			p.run(threads, func(w *worker) {
				for range n {
					w.wait()
				}
			})
		})
	}
	b.Run("job", func(b *testing.B) {
		p := newPool(portableKernels(), 2, 0)
		defer p.close()
		for b.Loop() {
			p.run(2, func(*worker) {})
		}
	})
}
