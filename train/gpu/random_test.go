package gpu_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels/emulator"
	"github.com/onmart/onmart/cuda/kernels/kerneltest"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
)

// maker draws a valid training program: any order of instructions that defines before it uses, buffers written several times, in
// place or not, updates in the middle of the step whose parameters and moments are read later.
type maker struct {
	t       *rapid.T
	p       *program.Program
	rows    int
	defined []int // buffers that may be read
	updated map[int]bool
	shop    shopIDs
}

// shopIDs are the buffers of an embedding table in a drawn program.
type shopIDs struct {
	table, m, v, cdf, logq int
	one, two               int // indices of the rows, one each and two each
	drawn                  int // a temp that Sample alone writes
}

const (
	randomWidth  = 3
	randomLayers = 3
	randomItems  = 11
	randomDrawn  = 4
)

func (m *maker) buffer(b program.Buffer) int {
	if b.Kind == program.Temp {
		b.Offset = m.p.Arena
		m.p.Arena += (b.Len()*4 + 63) / 64 * 64
	}
	m.p.Buffers = append(m.p.Buffers, b)
	return len(m.p.Buffers) - 1
}

// pick is a buffer of that shape out of ids, -1 where there is none.
func (m *maker) pick(what string, shape []int, ids []int, kinds ...program.Kind) int {
	var fit []int
	for _, id := range ids {
		if b := m.p.Buffers[id]; slices.Equal(b.Shape, shape) && slices.Contains(kinds, b.Kind) {
			fit = append(fit, id)
		}
	}
	if len(fit) == 0 {
		return -1
	}
	return rapid.SampledFrom(fit).Draw(m.t, what)
}

func (m *maker) all() []int {
	ids := make([]int, len(m.p.Buffers))
	for i := range ids {
		ids[i] = i
	}
	return ids
}

func (m *maker) do(op program.Op, at program.Attr, args []int, outs ...int) {
	if slices.Contains(args, -1) || slices.Contains(outs, -1) {
		return
	}
	inPlace := op == program.Add || op == program.Scale || op == program.Activate || op == program.ActGrad || op == program.Dropout
	for k, a := range args {
		if slices.Contains(outs, a) && !(inPlace && k == 0) {
			return
		}
	}
	m.p.Instrs = append(m.p.Instrs, program.Instr{Op: op, Attr: at, Args: args, Outs: outs})
	for _, o := range outs {
		if !slices.Contains(m.defined, o) {
			m.defined = append(m.defined, o)
		}
	}
}

var readable = []program.Kind{program.Temp, program.Input, program.Param, program.State}

func (m *maker) step(site int) {
	wide, square, row, one := []int{m.rows, randomWidth}, []int{randomWidth, randomWidth}, []int{randomWidth}, []int{1}
	in := func(what string, shape []int) int { return m.pick(what, shape, m.defined, readable...) }
	out := func(shape []int) int { return m.pick("out", shape, m.all(), program.Temp) }
	act := rapid.SampledFrom([]program.Act{program.None, program.Relu, program.Silu}).Draw(m.t, "act")
	shape := rapid.SampledFrom([][]int{wide, wide, square, one}).Draw(m.t, "shape")
	switch rapid.IntRange(0, 20).Draw(m.t, "op") {
	case 0, 1:
		args := []int{in("a", wide), in("b", square)}
		if bias := in("bias", row); bias >= 0 && rapid.Bool().Draw(m.t, "with bias") {
			args = append(args, bias)
		}
		m.do(program.MatMul, program.Attr{Act: act, TransB: rapid.Bool().Draw(m.t, "transB")}, args, out(wide))
	case 2:
		m.do(program.MatMul, program.Attr{TransA: true}, []int{in("a", wide), in("b", wide)}, out(square))
	case 3, 4:
		m.do(program.Activate, program.Attr{Act: act}, []int{in("a", shape)}, out(shape))
	case 5:
		m.do(program.ActGrad, program.Attr{Act: act}, []int{in("a", shape), in("b", shape)}, out(shape))
	case 6:
		m.do(program.Dropout, program.Attr{Rate: .3, Site: uint32(site)}, []int{in("a", wide)}, out(wide))
	case 7:
		m.do(program.Add, program.Attr{}, []int{in("a", shape), in("b", shape)}, out(shape))
	case 8:
		m.do(program.ColSum, program.Attr{}, []int{in("a", wide)}, out(row))
	case 9:
		m.do(program.Gather, program.Attr{Column: rapid.SampledFrom([]string{"x0", "x1", "x2"}).Draw(m.t, "column")}, nil,
			m.pick("input", wide, m.all(), program.Input))
	case 10:
		if x := in("x", one); x >= 0 {
			m.p.Instrs = append(m.p.Instrs, program.Instr{Op: program.Accumulate, Args: []int{x}, Outs: []int{0}, Attr: program.Attr{Scale: 2}})
		}
	case 12, 13: // what can be fused, with something between now and then
		cur := out(wide)
		m.do(program.MatMul, program.Attr{}, []int{in("a", wide), in("b", square)}, cur)
		if !slices.Contains(m.defined, cur) {
			return
		}
		for range rapid.IntRange(1, 3).Draw(m.t, "chain") {
			if rapid.IntRange(0, 3).Draw(m.t, "between") == 0 {
				m.step(100 + site)
			}
			next := cur
			if rapid.Bool().Draw(m.t, "elsewhere") {
				next = out(wide)
			}
			switch rapid.IntRange(0, 2).Draw(m.t, "link") {
			case 0:
				m.do(program.Activate, program.Attr{Act: act}, []int{cur}, next)
			case 1:
				m.do(program.Dropout, program.Attr{Rate: .3, Site: uint32(200 + site)}, []int{cur}, next)
			case 2:
				m.do(program.ActGrad, program.Attr{Act: act}, []int{cur, in("of", wide)}, next)
			}
			if !slices.Contains(m.defined, next) {
				return
			}
			cur = next
		}
	case 15, 16, 17, 18, 19, 20:
		m.shopStep(site)
	default:
		w := rapid.IntRange(0, randomLayers-1).Draw(m.t, "layer")
		s := square
		if rapid.Bool().Draw(m.t, "bias") {
			w, s = w+randomLayers, row
		}
		if g := in("g", s); g >= 0 && !m.updated[w] && !slices.Contains([]int{1 + 3*w, 2 + 3*w, 3 + 3*w}, g) {
			m.updated[w] = true
			m.do(program.AdamW, program.Attr{Beta1: .9, Beta2: .99, Eps: 1e-3, Decay: .01}, []int{g}, 1+3*w, 2+3*w, 3+3*w)
		}
	}
}

// shopStep adds one of the instructions of embeddings and their losses. SampledSoftmax is not among them: its logarithm may differ
// in the last bits.
func (m *maker) shopStep(site int) {
	s := m.shop
	wide, column, logits, few := []int{m.rows, randomWidth}, []int{m.rows, 1}, []int{m.rows, randomDrawn}, []int{randomDrawn, randomWidth}
	in := func(what string, shape []int) int { return m.pick(what, shape, m.defined, program.Temp) }
	out := func(what string, shape []int) int { return m.pick(what, shape, m.all(), program.Temp) }
	drawn := -1
	if slices.Contains(m.defined, s.drawn) {
		drawn = s.drawn
	}
	switch rapid.IntRange(0, 9).Draw(m.t, "shop op") {
	case 0:
		m.do(program.Lookup, program.Attr{}, []int{s.table, rapid.SampledFrom([]int{s.one, s.two}).Draw(m.t, "index")}, out("y", wide))
	case 1:
		m.do(program.Lookup, program.Attr{}, []int{s.table, drawn}, out("y", few))
	case 2:
		m.do(program.Sample, program.Attr{Site: uint32(300 + site)}, []int{s.cdf}, s.drawn)
	case 3:
		m.do(program.RowDot, program.Attr{}, []int{in("a", wide), in("b", wide)}, out("s", column))
	case 4:
		m.do(program.RowScale, program.Attr{}, []int{in("x", wide), in("s", column)}, out("y", wide))
	case 5:
		m.do(program.MatMul, program.Attr{TransB: true}, []int{in("a", wide), in("b", few)}, out("y", logits))
	case 6:
		m.do(program.MatMul, program.Attr{TransA: true}, []int{in("a", logits), in("b", wide)}, out("y", few))
	case 7:
		pos, neg := out("dpos", column), out("dneg", logits)
		m.do(program.SampledSoftmaxGrad, program.Attr{}, []int{in("pos", column), in("neg", logits), s.one, drawn, s.logq, in("w", column),
			m.pick("dloss", []int{1}, m.defined, program.Temp)}, pos, neg)
	case 8:
		levels, _ := program.NewLevels([]float64{.1, .5, .7})
		args := []int{in("y", wide), in("t", column), in("w", column)}
		if rapid.Bool().Draw(m.t, "one level") {
			levels, _ = program.NewLevels([]float64{.3})
			args = []int{in("y", wide), in("t", wide), in("w", wide)}
		}
		if rapid.Bool().Draw(m.t, "loss") {
			m.do(program.Pinball, program.Attr{Levels: levels}, args, out("loss", []int{1}))
			return
		}
		m.do(program.PinballGrad, program.Attr{Levels: levels}, append(args, m.pick("dloss", []int{1}, m.defined, program.Temp)), out("dy", wide))
	case 9:
		if m.updated[s.table] {
			return
		}
		args := []int{rapid.SampledFrom([]int{s.one, s.two}).Draw(m.t, "index"), in("dy", wide)}
		if rapid.Bool().Draw(m.t, "and another") {
			args = append(args, s.two, in("dy", wide))
		}
		if dy := in("dy", few); drawn >= 0 && dy >= 0 {
			args = append(args, drawn, dy)
		}
		before := len(m.p.Instrs)
		m.do(program.RowAdam, program.Attr{Beta1: .8, Beta2: .99, Eps: 1e-3, Decay: .01}, args, s.table, s.m, s.v)
		m.updated[s.table] = len(m.p.Instrs) > before
	}
}

// openShop adds the table and what goes with it.
func (m *maker) openShop(set *program.Set) {
	s := &m.shop
	shape := []int{randomItems, randomWidth}
	set.Params = append(set.Params, program.TensorSpec{Name: "table", Shape: shape, Init: "normal", Scale: .5, Site: 2 * randomLayers})
	s.table = m.buffer(program.Buffer{Name: "table", Kind: program.Param, DType: program.F32, Shape: shape})
	state := func(name string) int {
		set.State = append(set.State, program.TensorSpec{Name: name, Shape: shape})
		return m.buffer(program.Buffer{Name: name, Kind: program.State, DType: program.F32, Shape: shape})
	}
	constant := func(name string) int {
		set.Consts = append(set.Consts, program.TensorSpec{Name: name, Shape: []int{randomItems}})
		return m.buffer(program.Buffer{Name: name, Kind: program.Const, DType: program.F32, Shape: []int{randomItems}})
	}
	s.m, s.v, s.cdf, s.logq = state("tablem"), state("tablev"), constant("cdf"), constant("logq")
	index := func(name string, w int) int {
		return m.buffer(program.Buffer{Name: name, Kind: program.Input, DType: program.F32, Shape: []int{m.rows, w}, PerRow: true})
	}
	s.one, s.two = index("i0", 1), index("i1", 2)
	s.drawn = m.buffer(program.Buffer{Kind: program.Temp, DType: program.F32, Shape: []int{randomDrawn, 1}})
	for range 2 {
		for _, shape := range [][]int{{m.rows, 1}, {m.rows, randomDrawn}, {randomDrawn, randomWidth}} {
			m.buffer(program.Buffer{Kind: program.Temp, DType: program.F32, Shape: shape})
		}
	}
	m.defined = append(m.defined, s.table, s.m, s.v)
	m.do(program.Gather, program.Attr{Column: "i0"}, nil, s.one)
	m.do(program.Gather, program.Attr{Column: "i1"}, nil, s.two)
}

// drawSet draws a set whose training program has some dozens of instructions.
func drawSet(t *rapid.T) *program.Set {
	const rows = 17
	m := &maker{t: t, rows: rows, p: &program.Program{Name: "train", Rows: rows}, updated: map[int]bool{}}
	set := &program.Set{Train: m.p, Slots: []string{"sum"}}
	m.buffer(program.Buffer{Name: "sum", Kind: program.Slot, DType: program.F64, Shape: []int{1}})
	for w := range 2 * randomLayers {
		spec := program.TensorSpec{Name: fmt.Sprint("w", w), Shape: []int{randomWidth, randomWidth}, Init: "he_uniform", FanIn: randomWidth, Site: uint32(w)}
		if w >= randomLayers {
			spec.Shape = []int{randomWidth}
		}
		set.Params = append(set.Params, spec)
		m.defined = append(m.defined, m.buffer(program.Buffer{Name: spec.Name, Kind: program.Param, DType: program.F32, Shape: spec.Shape}))
		for _, s := range []string{"m", "v"} {
			set.State = append(set.State, program.TensorSpec{Name: spec.Name + s, Shape: spec.Shape})
			m.defined = append(m.defined, m.buffer(program.Buffer{Name: spec.Name + s, Kind: program.State, DType: program.F32, Shape: spec.Shape}))
		}
	}
	for c := range 3 {
		m.buffer(program.Buffer{Name: fmt.Sprint("x", c), Kind: program.Input, DType: program.F32, Shape: []int{rows, randomWidth}, PerRow: true})
	}
	for range 5 {
		m.buffer(program.Buffer{Kind: program.Temp, DType: program.F32, Shape: []int{rows, randomWidth}})
	}
	for range 2 {
		m.buffer(program.Buffer{Kind: program.Temp, DType: program.F32, Shape: []int{randomWidth, randomWidth}})
		m.buffer(program.Buffer{Kind: program.Temp, DType: program.F32, Shape: []int{randomWidth}})
		m.buffer(program.Buffer{Kind: program.Temp, DType: program.F32, Shape: []int{1}})
	}
	m.do(program.Gather, program.Attr{Column: "x0"}, nil, 1+6*randomLayers)
	m.do(program.Fill, program.Attr{Scale: 1.5}, nil, len(m.p.Buffers)-1)
	m.openShop(set)
	for i := range rapid.IntRange(5, 50).Draw(t, "steps") {
		m.step(i)
	}
	f := &program.Program{Name: "forward", Rows: 4, Buffers: []program.Buffer{
		{Name: "x0", Kind: program.Input, DType: program.F32, Shape: []int{4, randomWidth}, PerRow: true},
		{Name: "output", Kind: program.Output, DType: program.F32, Shape: []int{4, randomWidth}, PerRow: true}},
		Instrs: []program.Instr{{Op: program.Scale, Args: []int{0}, Outs: []int{1}, Attr: program.Attr{Scale: 1}}}}
	set.Forward = f
	return set
}

// TestRandomPrograms: whatever a valid program does, fused, put off and spread over lanes it gives the CPU's bits, in every order.
// No sum here is long enough to be sliced.
func TestRandomPrograms(t *testing.T) {
	device := kerneltest.Open(t, cuda.Options{NoCache: true})
	b := newBackend(t, gpu.Options{Device: device})
	reference := processor(t)
	orders := []uint32{0}
	if !kerneltest.Hardware() {
		orders = []uint32{0, 1, 7}
		defer emulator.SetOrder(device.Driver(), 0)
	}
	const rows = 40
	d := program.Data{Schedule: program.Schedule{Seed: 9, Train: program.Range{To: 34}, Rates: []float32{.1, .05, .1, .05}}}
	for c := range 3 {
		x := make([]float32, rows*randomWidth)
		for i := range x {
			x[i] = float32(math.Sin(float64(i*(c+1)))) / 2
		}
		d.Columns = append(d.Columns, program.Column{Name: fmt.Sprint("x", c), Rows: rows, Width: randomWidth, F32: x})
	}
	for w := 1; w <= 2; w++ {
		x := make([]float32, rows*w)
		for i := range x {
			x[i] = float32(i*7%(randomItems+1)) - 1
		}
		d.Columns = append(d.Columns, program.Column{Name: fmt.Sprint("i", w-1), Rows: rows, Width: w, F32: x})
	}
	run := func(t *rapid.T, b program.Backend, set *program.Set) (program.Tensors, []float64, error) {
		e, err := b.Compile(set)
		if err != nil {
			t.Fatal(err)
		}
		slots := make([]float64, 1)
		err = errors.Join(e.Bind(d), e.Import(initial(set, 3)), e.Run(0, 1, slots), e.Run(1, 3, slots))
		ts, failed := e.Export()
		if err := errors.Join(failed, e.Close()); err != nil {
			t.Fatal(err)
		}
		return ts, slots, err
	}
	rapid.Check(t, func(t *rapid.T) {
		set := drawSet(t)
		if err := set.Validate(); err != nil {
			t.Fatalf("the program is not valid: %v\n%s", err, set.Train)
		}
		want, wantSlots, err := run(t, reference, set)
		if err != nil {
			t.Skip("it diverges")
		}
		for _, order := range orders {
			if len(orders) > 1 {
				if _, err := emulator.SetOrder(device.Driver(), order); err != nil {
					t.Fatal(err)
				}
			}
			got, slots, err := run(t, b, set)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				for k, w := range want[i].F32 {
					if g := got[i].F32[k]; math.Float32bits(g) != math.Float32bits(w) && !(g != g && w != w) {
						t.Fatalf("order %d: %s[%d] is %v, want %v, in\n%s", order, want[i].Name, k, g, w, set.Train)
					}
				}
			}
			if slots[0] != wantSlots[0] {
				t.Fatalf("order %d: the sum is %v, want %v, in\n%s", order, slots[0], wantSlots[0], set.Train)
			}
		}
	})
}
