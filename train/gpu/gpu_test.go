package gpu_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels/emulator"
	"github.com/onmart/onmart/cuda/kernels/kerneltest"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

// net is a model that, over its cases, has every instruction that trains.
type net struct {
	name        string
	width       int
	hidden      []int
	act         program.Act
	dropout     float64
	towers      int
	detour      bool // the input passes Concat, Slice and Scale, and the loss a metric
	weight      bool
	decay       float64
	batch, rows int // trained on; batch need not divide rows
}

func (n net) compile(t testing.TB) *program.Set {
	t.Helper()
	set, err := graph.Compile(func(b *graph.Builder) (graph.Model, error) {
		x, y := b.Input("x", n.width), b.Input("y", 1)
		var w *graph.Node
		if n.weight {
			w = b.Input("w", 1)
		}
		if n.detour {
			x = b.Add(b.Scale(b.Slice(b.Concat(x, x, x), n.width, 2*n.width), .5), b.Scale(x, .5))
		}
		var losses, logits []*graph.Node
		for tower := range max(1, n.towers) {
			h := x
			for l, units := range n.hidden {
				h = b.Dense(fmt.Sprintf("t%d/l%d", tower, l), h, units, n.act, "he_uniform")
				if n.detour && units > 1 {
					h = b.Concat(b.Slice(h, 1, units), b.Slice(h, 0, 1))
				}
				h = b.Dropout(h, n.dropout)
			}
			z := b.Dense(fmt.Sprintf("t%d/out", tower), h, 1, program.None, "glorot_uniform")
			losses, logits = append(losses, b.BCEWithLogits(z, y, w)), append(logits, z)
		}
		m := graph.Model{Loss: b.Add(losses...), Output: b.Mean(logits...)}
		if n.detour {
			m.Metrics = map[string]*graph.Node{"first": losses[0]}
		}
		return m, nil
	}, graph.Options{Batch: min(n.batch, n.rows), Rows: n.rows, Tile: 64, Optimizer: graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8, Decay: n.decay}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// extra rows before and behind those that are trained on.
const extra = 21

func (n net) data(steps int, rate float32) program.Data {
	rows := n.rows + 2*extra
	r := rand.New(rand.NewPCG(3, uint64(n.width)))
	x, y, w := make([]float32, rows*n.width), make([]float32, rows), make([]float32, rows)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for i := range y {
		if x[i*n.width] > .3 {
			y[i] = 1
		}
		w[i] = float32(1 + i%3)
	}
	d := program.Data{
		Columns: []program.Column{{Name: "x", Rows: rows, Width: n.width, F32: x}, {Name: "y", Rows: rows, Width: 1, F32: y},
			{Name: "w", Rows: rows, Width: 1, F32: w}},
		Schedule: program.Schedule{Seed: 77<<32 + 5, Train: program.Range{From: extra, To: extra + n.rows}},
	}
	for range steps {
		d.Rates = append(d.Rates, rate)
	}
	return d
}

var nets = []net{
	{name: "one unit", width: 1, hidden: []int{1}, act: program.Relu, batch: 1, rows: 3},
	{name: "odd", width: 3, hidden: []int{17, 5}, act: program.Relu, dropout: .25, weight: true, decay: .01, batch: 17, rows: 40},
	{name: "towers", width: 15, hidden: []int{33, 16}, act: program.Silu, dropout: .2, towers: 3, batch: 64, rows: 200},
	{name: "detour", width: 5, hidden: []int{17}, act: program.Silu, dropout: .3, towers: 2, detour: true, weight: true, batch: 33, rows: 90},
	{name: "wide", width: 257, hidden: []int{255}, act: program.Relu, batch: 300, rows: 300},
	{name: "a short epoch", width: 4, hidden: []int{8}, act: program.Silu, batch: 64, rows: 10},
}

func newBackend(t testing.TB, o gpu.Options) *gpu.Backend {
	t.Helper()
	if o.Device == nil {
		o.Device = kerneltest.Open(t, cuda.Options{NoCache: o.Apart})
	}
	if o.Note == nil {
		o.Note = func(format string, args ...any) { t.Logf("note: "+format, args...) }
	}
	b, err := gpu.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil && !cuda.Lost(err) {
			t.Errorf("closing the backend: %v", err)
		}
	})
	return b
}

func processor(t testing.TB) program.Backend {
	t.Helper()
	b, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// open compiles, binds and starts.
func open(t testing.TB, b program.Backend, set *program.Set, d program.Data) program.Exec {
	t.Helper()
	e, err := b.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !cuda.Lost(err) {
			t.Errorf("closing the Exec: %v", err)
		}
	})
	if err := e.Bind(d); err != nil {
		t.Fatal(err)
	}
	if err := e.Import(initial(set, d.Seed)); err != nil {
		t.Fatal(err)
	}
	return e
}

// train runs steps in pieces and returns the slots after each piece, the tensors and the outputs of all rows.
func train(t testing.TB, e program.Exec, set *program.Set, d program.Data, pieces ...int) (slots [][]float64, ts program.Tensors, out []float32) {
	t.Helper()
	first := 0
	for _, n := range pieces {
		s := make([]float64, len(set.Slots))
		if err := e.Run(first, n, s); err != nil {
			t.Fatal(err)
		}
		slots, first = append(slots, s), first+n
	}
	ts, err := e.Export()
	if err != nil {
		t.Fatal(err)
	}
	out = make([]float32, d.Columns[0].Rows)
	if err := e.Eval(program.Range{To: len(out)}, out); err != nil {
		t.Fatal(err)
	}
	return slots, ts, out
}

func single(n int) []int {
	ones := make([]int, n)
	for i := range ones {
		ones[i] = 1
	}
	return ones
}

// TestTrainingAgreesWithTheCPU: every loss of a training, its weights and outputs, with an allocation for each buffer so that an
// access past one fails, in the three orders of threads, blocks and graph nodes. The orders give the same bits.
func TestTrainingAgreesWithTheCPU(t *testing.T) {
	seen := map[program.Op]bool{}
	const steps = 12
	for _, n := range nets {
		t.Run(n.name, func(t *testing.T) { agrees(t, n.compile(t), n.data(steps, .01), seen) })
	}
	for _, s := range shops {
		t.Run(s.name, func(t *testing.T) { agrees(t, s.compile(t), s.data(steps, .01), seen) })
	}
	for _, op := range program.Ops() {
		forward := op == program.Standardize || op == program.Calibrate // TestEveryInstruction has these
		if !seen[op] && !forward && !slices.Contains(program.Pending(), op) && !t.Failed() {
			t.Errorf("no model of this test has instruction %s", op)
		}
	}
}

// agrees trains on the CPU and in three orders on the device. seen takes the instructions.
func agrees(t *testing.T, set *program.Set, d program.Data, seen map[program.Op]bool) {
	t.Helper()
	for _, p := range []*program.Program{set.Train, set.Rest} {
		for i := 0; p != nil && i < len(p.Instrs); i++ {
			seen[p.Instrs[i].Op] = true
		}
	}
	steps := len(d.Rates)
	wantSlots, wantTensors, wantOut := train(t, open(t, processor(t), set, d), set, d, single(steps)...)
	var first program.Tensors
	for _, order := range []uint32{0, 1, 7} {
		device := kerneltest.Open(t, cuda.Options{NoCache: true})
		if !kerneltest.Hardware() {
			emulator.SetOrder(device.Driver(), order)
			defer emulator.SetOrder(device.Driver(), 0)
		}
		b := newBackend(t, gpu.Options{Device: device, Apart: true})
		slots, ts, out := train(t, open(t, b, set, d), set, d, single(steps)...)
		for s := range slots {
			for i, v := range slots[s] {
				if want := wantSlots[s][i]; !(math.Abs(v-want) <= 1e-4*math.Abs(want)) {
					t.Fatalf("order %d, step %d: slot %s is %v, want %v", order, s, set.Slots[i], v, want)
				}
			}
		}
		for i, v := range out {
			if !(math.Abs(float64(v-wantOut[i])) <= 1e-3*(1+math.Abs(float64(wantOut[i])))) {
				t.Fatalf("order %d: output of row %d is %v, want %v", order, i, v, wantOut[i])
			}
		}
		near(t, ts, wantTensors, 1e-3)
		if first == nil {
			first = ts
		}
		same(t, fmt.Sprintf("order %d against order 0", order), ts, first)
	}
}

// near compares tensors by the greatest difference of a tensor, relative to its greatest element.
func near(t *testing.T, got, want program.Tensors, tol float64) {
	t.Helper()
	for i := range want {
		var diff, scale float64
		for k, w := range want[i].F32 {
			diff = math.Max(diff, math.Abs(float64(got[i].F32[k]-w)))
			if math.IsNaN(float64(got[i].F32[k])) {
				diff = math.Inf(1)
			}
			scale = math.Max(scale, math.Abs(float64(w)))
		}
		if !(diff <= tol*(scale+.01)) {
			t.Errorf("tensor %s is off by %v, its greatest element is %v", want[i].Name, diff, scale)
		}
	}
}

func same(t *testing.T, what string, a, b program.Tensors) {
	t.Helper()
	for i := range b {
		if !slices.EqualFunc(a[i].F32, b[i].F32, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) }) {
			t.Errorf("%s: tensor %s differs", what, b[i].Name)
		}
	}
}

// TestStreamedEqualsResident: the place of the data changes no bit, whatever the size of the staging buffers, and in every order
// in which the copies may come.
func TestStreamedEqualsResident(t *testing.T) {
	n := net{width: 5, hidden: []int{8}, act: program.Silu, dropout: .2, batch: 16, rows: 100}
	const steps = 30 // four epochs of seven steps, and two
	set, d := n.compile(t), n.data(steps, .02)
	_, want, wantOut := train(t, open(t, newBackend(t, gpu.Options{}), set, d), set, d, steps)
	for _, c := range []struct{ stage, limit int64 }{{1, 70 << 10}, {2 * 3 * 16 * 7 * 4, 70 << 10}, {64 << 20, 70 << 10}} {
		for _, order := range []uint32{0, 1, 3} {
			big := d
			big.Columns = slices.Clone(d.Columns) // another column, which no program reads, makes the data too large
			big.Columns = append(big.Columns, program.Column{Name: "ballast", Rows: d.Columns[0].Rows, Width: 1000, F32: make([]float32, 1000*d.Columns[0].Rows)})
			device := kerneltest.Open(t, cuda.Options{MemoryLimit: 300 << 10, NoCache: true})
			if !kerneltest.Hardware() {
				emulator.SetOrder(device.Driver(), order)
				defer emulator.SetOrder(device.Driver(), 0)
			}
			var notes []string
			b := newBackend(t, gpu.Options{Device: device, Stage: c.stage, Note: func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }})
			_, ts, out := train(t, open(t, b, set, big), set, big, 11, 1, steps-12)
			same(t, fmt.Sprintf("stage of %d bytes, order %d", c.stage, order), ts, want)
			if !slices.Equal(out, wantOut) {
				t.Errorf("stage of %d bytes: outputs differ", c.stage)
			}
			if len(notes) == 0 || !strings.Contains(notes[0], "does not fit in the GPU memory that is left: it stays in main memory and is streamed") {
				t.Errorf("notes: %q", notes)
			}
		}
	}
}

func TestRunsInPiecesAndResumesExactly(t *testing.T) {
	n := nets[1]
	const steps = 11
	set, d := n.compile(t), n.data(steps, .02)
	b := newBackend(t, gpu.Options{})
	_, want, _ := train(t, open(t, b, set, d), set, d, steps)
	for cut := 1; cut < steps; cut += 3 {
		_, half, _ := train(t, open(t, b, set, d), set, d, cut)
		e := open(t, b, set, d)
		if err := e.Import(half); err != nil {
			t.Fatal(err)
		}
		if err := e.Run(cut, steps-cut, make([]float64, len(set.Slots))); err != nil {
			t.Fatal(err)
		}
		got, err := e.Export()
		if err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("cut at %d", cut), got, want)
	}
}

func TestDivergenceNamesTheStep(t *testing.T) {
	n := nets[1]
	set, d := n.compile(t), n.data(10, .01)
	for i := range n.width { // the row that step 4 takes first
		per := d.StepsPerEpoch(set.Train.Rows)
		order := program.NewPermutation(d.Seed, uint32(4/per), n.rows)
		d.Columns[0].F32[(extra+order.At(4%per*set.Train.Rows))*n.width+i] = float32(math.NaN())
	}
	// The row may be met in the first epoch: the step that meets it first is the one to name.
	var want string
	cpuErr := open(t, processor(t), set, d).Run(0, 10, make([]float64, len(set.Slots)))
	if cpuErr == nil {
		t.Fatal("the CPU did not notice")
	}
	want = strings.TrimPrefix(cpuErr.Error(), "cpu: ")
	err := open(t, newBackend(t, gpu.Options{}), set, d).Run(0, 10, make([]float64, len(set.Slots)))
	if err == nil || strings.TrimPrefix(err.Error(), "gpu: ") != want {
		t.Errorf("got %v, want %v", err, want)
	}
}

// TestEveryInstruction runs each instruction that a forward program may have, alone, on the device and on the CPU.
func TestEveryInstruction(t *testing.T) {
	b := newBackend(t, gpu.Options{Device: kerneltest.Open(t, cuda.Options{NoCache: true}), Apart: true})
	for _, op := range program.Ops() {
		build, ok := instructions[op]
		if !ok {
			if !slices.Contains(trainOnly, op) && !slices.Contains(program.Pending(), op) {
				t.Errorf("instruction %s has no test", op)
			}
			continue
		}
		t.Run(string(op), func(t *testing.T) {
			for _, rows := range []int{1, 3, 17, 255, 257} {
				for _, p := range build(rows) {
					alone(t, b, p)
				}
			}
		})
	}
}

// trainOnly are in TestTrainingAgreesWithTheCPU, which fails where one is missing.
var trainOnly = []program.Op{program.Gather, program.ColSum, program.Dropout, program.BCE, program.BCEGrad, program.Accumulate, program.AdamW,
	program.Sample, program.SampledSoftmax, program.SampledSoftmaxGrad, program.Pinball, program.PinballGrad, program.RowAdam}

// one is a forward program of one instruction, from inputs of these widths and params of these shapes to an output of this
// width.
type one struct {
	rows   int
	op     program.Op
	at     program.Attr
	inputs []int
	params [][]int
	out    int
	tol    float64 // relative; 0: the same bits
}

var instructions = map[program.Op]func(rows int) []one{
	program.MatMul: func(rows int) (all []one) {
		for _, k := range []int{1, 5, 64, 300} {
			for _, n := range []int{1, 16, 65} {
				for _, act := range []program.Act{program.None, program.Relu, program.Silu} {
					all = append(all,
						one{rows: rows, op: program.MatMul, at: program.Attr{Act: act}, inputs: []int{k}, params: [][]int{{k, n}, {n}}, out: n},
						one{rows: rows, op: program.MatMul, at: program.Attr{Act: act, TransB: true}, inputs: []int{k}, params: [][]int{{n, k}}, out: n})
				}
			}
		}
		return all
	},
	program.Activate: func(rows int) []one {
		return []one{{rows: rows, op: program.Activate, at: program.Attr{Act: program.Silu}, inputs: []int{9}, out: 9},
			{rows: rows, op: program.Activate, at: program.Attr{Act: program.Relu}, inputs: []int{9}, out: 9},
			{rows: rows, op: program.Activate, inputs: []int{9}, out: 9}}
	},
	program.ActGrad: func(rows int) []one {
		return []one{{rows: rows, op: program.ActGrad, at: program.Attr{Act: program.Silu}, inputs: []int{9, 9}, out: 9},
			{rows: rows, op: program.ActGrad, at: program.Attr{Act: program.Relu}, inputs: []int{9, 9}, out: 9},
			{rows: rows, op: program.ActGrad, inputs: []int{9, 9}, out: 9}}
	},
	program.Add: func(rows int) []one { return []one{{rows: rows, op: program.Add, inputs: []int{7, 7}, out: 7}} },
	program.Scale: func(rows int) []one {
		return []one{{rows: rows, op: program.Scale, at: program.Attr{Scale: -.3}, inputs: []int{7}, out: 7}}
	},
	program.Fill: func(rows int) []one {
		return []one{{rows: rows, op: program.Fill, at: program.Attr{Scale: 2.5}, inputs: []int{1}, out: 7}}
	},
	program.Concat: func(rows int) []one {
		return []one{{rows: rows, op: program.Concat, inputs: []int{3, 1, 6}, out: 10}}
	},
	program.Slice: func(rows int) []one {
		return []one{{rows: rows, op: program.Slice, at: program.Attr{From: 2, To: 7}, inputs: []int{9}, out: 5}}
	},
	program.SliceGrad: func(rows int) []one {
		return []one{{rows: rows, op: program.SliceGrad, at: program.Attr{From: 2, To: 7}, inputs: []int{5}, out: 9}}
	},
	program.Lookup: func(rows int) []one {
		return []one{{rows: rows, op: program.Lookup, inputs: []int{1}, params: [][]int{{30, 9}}, out: 9},
			{rows: rows, op: program.Lookup, inputs: []int{13}, params: [][]int{{3, 33}}, out: 33}}
	},
	program.RowDot:      func(rows int) []one { return []one{{rows: rows, op: program.RowDot, inputs: []int{37, 37}, out: 1}} },
	program.RowScale:    func(rows int) []one { return []one{{rows: rows, op: program.RowScale, inputs: []int{7, 1}, out: 7}} },
	program.Standardize: wrapped,
	program.Calibrate:   wrapped,
}

// wrapped is a calibration whose probability is standardised: Eval takes and gives float32 alone.
func wrapped(rows int) []one {
	return []one{{rows: rows, op: program.Calibrate, inputs: []int{1}, params: [][]int{{2}, {1}, {1}, {1}}, out: 1, tol: 1e-6}}
}

// forward writes the program.
func (o one) forward() (*program.Set, program.Tensors) {
	p := &program.Program{Name: "one", Rows: o.rows}
	set := &program.Set{Forward: p}
	r := rand.New(rand.NewPCG(9, uint64(o.rows)))
	var weights program.Tensors
	buffer := func(b program.Buffer) int {
		p.Buffers = append(p.Buffers, b)
		return len(p.Buffers) - 1
	}
	in := program.Instr{Op: o.op, Attr: o.at}
	for i, w := range o.inputs {
		in.Args = append(in.Args, buffer(program.Buffer{Name: fmt.Sprint("x", i), Kind: program.Input, DType: program.F32, Shape: []int{o.rows, w}, PerRow: true}))
	}
	var params []int
	for i, shape := range o.params {
		name := fmt.Sprint("p", i)
		t := program.Tensor{Name: name, Shape: shape, DType: program.F32}
		n := (&program.Held{Shape: shape}).Len()
		if o.op == program.Calibrate {
			t.DType = program.F64
			set.Consts = append(set.Consts, program.TensorSpec{Name: name, Shape: shape})
			params = append(params, buffer(program.Buffer{Name: name, Kind: program.Const, DType: program.F64, Shape: shape}))
		} else {
			set.Params = append(set.Params, program.TensorSpec{Name: name, Shape: shape})
			params = append(params, buffer(program.Buffer{Name: name, Kind: program.Param, DType: program.F32, Shape: shape}))
		}
		for range n {
			v := r.NormFloat64()
			if t.DType == program.F64 {
				t.F64 = append(t.F64, v)
			} else {
				t.F32 = append(t.F32, float32(v))
			}
		}
		weights = append(weights, t)
	}
	out := buffer(program.Buffer{Name: "output", Kind: program.Output, DType: program.F32, Shape: []int{o.rows, o.out}, PerRow: true})
	switch o.op {
	case program.Fill:
		in.Args = nil
	case program.Calibrate:
		p.Arena = (8*o.rows + 63) / 64 * 64
		mid := buffer(program.Buffer{Kind: program.Temp, DType: program.F64, Shape: []int{o.rows, 1}, PerRow: true})
		weights[3].F64[0] = float64(o.rows % 2) // with and without the logarithm
		p.Instrs = append(p.Instrs, program.Instr{Op: program.Calibrate, Args: []int{in.Args[0], params[0]}, Outs: []int{mid}})
		in = program.Instr{Op: program.Standardize, Args: []int{mid}}
		params = params[1:]
	}
	in.Args, in.Outs = append(in.Args, params...), []int{out}
	if o.op == program.Lookup { // the table comes first
		slices.Reverse(in.Args)
	}
	p.Instrs = append(p.Instrs, in)
	return set, weights
}

// alone compares the two backends over a tile and a half.
func alone(t *testing.T, b program.Backend, o one) {
	t.Helper()
	set, weights := o.forward()
	rows := o.rows + o.rows/2
	r := rand.New(rand.NewPCG(8, uint64(rows)))
	d := program.Data{}
	for i, w := range o.inputs {
		c := program.Column{Name: fmt.Sprint("x", i), Rows: rows, Width: w, F32: make([]float32, rows*w)}
		for k := range c.F32 {
			c.F32[k] = float32(r.NormFloat64())
			if o.op == program.Lookup {
				c.F32[k] = float32(r.IntN(o.params[0][0]+1) - 1)
			}
		}
		d.Columns = append(d.Columns, c)
	}
	var outs [2][]float32
	for k, backend := range []program.Backend{processor(t), b} {
		e, err := backend.Compile(set)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		outs[k] = make([]float32, rows*o.out)
		if err := errors.Join(e.Bind(d), e.Import(weights), e.Eval(program.Range{To: rows}, outs[k]), e.Close()); err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
	}
	for i, want := range outs[0] {
		got := outs[1][i]
		if math.Float32bits(got) != math.Float32bits(want) && !(math.Abs(float64(got-want)) <= o.tol*math.Abs(float64(want))) {
			t.Fatalf("%+v: element %d is %v, the CPU has %v", o, i, got, want)
		}
	}
}

// TestUnusualOrders: what is put off to the end of a step must not see what the step does in between. A sum is taken before its
// value is overwritten, and a weight is updated before the last instruction that reads it.
func TestUnusualOrders(t *testing.T) {
	n := nets[2]
	const steps = 5
	d := n.data(steps, .01)
	for _, c := range []struct {
		name string
		move func(t *testing.T, p *program.Program)
	}{
		{"a sum before its value is overwritten", func(t *testing.T, p *program.Program) {
			for i, in := range p.Instrs {
				if in.Op != program.Accumulate || len(in.Args) == 0 {
					continue
				}
				first := slices.IndexFunc(p.Instrs, func(a program.Instr) bool { return a.Op == program.Add && a.Outs[0] == in.Args[0] })
				p.Instrs = slices.Insert(slices.Delete(p.Instrs, i, i+1), first, in)
				return
			}
			t.Fatal("no sum")
		}},
		{"an update before the last reader", func(t *testing.T, p *program.Program) {
			for i, in := range p.Instrs {
				if in.Op != program.AdamW {
					continue
				}
				reader := slices.IndexFunc(p.Instrs, func(a program.Instr) bool {
					return a.Op == program.MatMul && a.Attr.TransB && slices.Contains(a.Args, in.Outs[0])
				})
				if reader < 0 {
					continue
				}
				moved := p.Instrs[reader]
				next := reader + 1 + slices.IndexFunc(p.Instrs[reader+1:], func(a program.Instr) bool { return slices.Contains(a.Args, moved.Outs[0]) })
				if next <= i {
					continue
				}
				p.Instrs = slices.Insert(p.Instrs, next, moved)
				p.Instrs = slices.Delete(p.Instrs, reader, reader+1)
				return
			}
			t.Fatal("no update with a reader that can wait")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := n.compile(t)
			plain, _, _ := train(t, open(t, processor(t), set, d), set, d, single(steps)...)
			c.move(t, set.Train)
			if err := set.Validate(); err != nil {
				t.Fatal(err)
			}
			want, tensors, _ := train(t, open(t, processor(t), set, d), set, d, single(steps)...)
			got, ts, _ := train(t, open(t, newBackend(t, gpu.Options{}), set, d), set, d, single(steps)...)
			changed := false
			for s := range want {
				for i, v := range want[s] {
					changed = changed || v != plain[s][i]
					if !(math.Abs(got[s][i]-v) <= 1e-5*math.Abs(v)) {
						t.Errorf("step %d: slot %s is %v, want %v", s, set.Slots[i], got[s][i], v)
					}
				}
			}
			near(t, ts, tensors, 1e-4)
			if !changed {
				t.Error("the order makes no difference, so nothing was tested")
			}
		})
	}
}

// TestLacks: what has no kernel is found by its operation, or by the operands that its kernel does not take.
func TestLacks(t *testing.T) {
	for _, c := range []struct {
		plant func(in *program.Instr)
		want  string
	}{
		{func(*program.Instr) {}, ""},
		{func(in *program.Instr) { in.Op = program.SGD }, " of train (sgd, node "},
		{func(in *program.Instr) { in.Args = append(in.Args, in.Args[0]) }, " of train (adamw with a factor, node "},
		{func(in *program.Instr) { in.Attr.Uses = "s" }, " of train (adamw with scaled uses, node "},
	} {
		set := nets[0].compile(t)
		at := slices.IndexFunc(set.Train.Instrs, func(in program.Instr) bool { return in.Op == program.AdamW })
		c.plant(&set.Train.Instrs[at])
		err := gpu.Lacks(set)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
