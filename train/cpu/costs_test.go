package cpu

import (
	"reflect"
	"slices"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// TestEveryInstructionHasACost enumerates program's instructions, and its functions of Map.
func TestEveryInstructionHasACost(t *testing.T) {
	for _, op := range program.Ops() {
		if instrCosts[op] == nil {
			t.Errorf("nothing is said of what %s costs", op)
		}
	}
	for op := range instrCosts {
		if !slices.Contains(program.Ops(), op) {
			t.Errorf("there is no instruction %s", op)
		}
	}
	for _, fn := range program.Fns() {
		if w, ok := kernelWorks["fns."+string(fn)]; !ok || w.reads != fn.Arity() || w.writes != 1 {
			t.Errorf("the function %s costs %+v", fn, w)
		}
	}
}

// TestEveryKernelHasACost enumerates the fields of kernels: all but those of products, and what only serves others.
func TestEveryKernelHasACost(t *testing.T) {
	names := kernelNames(reflect.TypeFor[kernels](), "")
	for _, name := range names {
		if _, ok := kernelWorks[name]; !ok && name != "tile" && name != "peak" && name != "prefetch" {
			t.Errorf("nothing is said of what %s costs", name)
		}
	}
	for _, fn := range program.Fns() {
		names = append(names, "fns."+string(fn))
	}
	for name, w := range kernelWorks {
		if !slices.Contains(names, name) && name != kernelBPR {
			t.Errorf("there is no kernel %s", name)
		}
		if w.flops < 0 || w.bytes() <= 0 {
			t.Errorf("%s costs %+v", name, w)
		}
	}
}

// costOfOne is the cost of an instruction on operands of these shapes, float32 but where it is calibrated.
func costOfOne(op program.Op, at program.Attr, args, outs [][]int) cost {
	var p program.Program
	in := program.Instr{Op: op, Attr: at}
	for k, shapes := range [][][]int{args, outs} {
		for _, s := range shapes {
			id := len(p.Buffers)
			p.Buffers = append(p.Buffers, program.Buffer{Shape: s, DType: program.F32})
			if k == 0 {
				in.Args = append(in.Args, id)
			} else {
				in.Outs = append(in.Outs, id)
			}
		}
	}
	return extents{&p}.costOf(&in)
}

// TestCostsByHand: what is written here was counted from the documentation of the instruction and the portable kernels.
func TestCostsByHand(t *testing.T) {
	v := func(n ...int) []int { return n }
	all := func(s ...[]int) [][]int { return s }
	const exp, bounded, log = 23, 22, 31
	for _, c := range []struct {
		op         program.Op
		at         program.Attr
		args, outs [][]int
		want       cost
	}{
		{program.MatMul, program.Attr{}, all(v(3, 5), v(5, 7)), all(v(3, 7)), cost{2 * 3 * 5 * 7, 4 * (15 + 35 + 21)}},
		{program.MatMul, program.Attr{TransA: true, Act: program.Relu}, all(v(5, 3), v(5, 7), v(7)), all(v(3, 7)),
			cost{2*3*5*7 + 2*21, 4 * (15 + 35 + 21 + 7)}},
		{program.MatMul, program.Attr{TransB: true, Act: program.Silu}, all(v(3, 5), v(7, 5)), all(v(3, 7)),
			cost{2*3*5*7 + 24*21, 4 * (15 + 35 + 21)}},
		{program.ActGrad, program.Attr{Act: program.Relu}, all(v(3, 5), v(3, 5)), all(v(3, 5)), cost{15, 4 * 45}},
		{program.ActGrad, program.Attr{}, all(v(3, 5), v(3, 5)), all(v(3, 5)), cost{0, 4 * 30}},
		{program.Gather, program.Attr{}, nil, all(v(10, 4)), cost{0, 4 * (2*40 + 10)}},
		{program.Slice, program.Attr{From: 1, To: 3}, all(v(10, 4)), all(v(10, 2)), cost{0, 4 * 40}},
		{program.SliceGrad, program.Attr{From: 1, To: 3}, all(v(10, 2)), all(v(10, 4)), cost{0, 4 * 60}},
		{program.BCE, program.Attr{}, all(v(9, 1), v(9, 1), v(9, 1)), all(v(1)), cost{9 * (bounded + 18 + 1), 4 * 28}},
		{program.BCEGrad, program.Attr{}, all(v(9, 1), v(9, 1), v(9, 1), v(1)), all(v(9, 1)),
			cost{9 * (bounded + 10), 4 * 37}},
		// All that is read and written: the gradient, and three tensors twice.
		{program.AdamW, program.Attr{}, all(v(6, 7)), all(v(6, 7), v(6, 7), v(6, 7)), cost{17 * 42, 28 * 42}},
		{program.Momentum, program.Attr{}, all(v(42)), all(v(42), v(42)), cost{7 * 42, 20 * 42}},
		{program.Momentum, program.Attr{Nesterov: true}, all(v(42)), all(v(42), v(42)), cost{9 * 42, 20 * 42}},
		{program.SGD, program.Attr{}, all(v(42), v(1)), all(v(42)), cost{5 * 42, 12*42 + 4}},
		{program.MovingAverage, program.Attr{}, all(v(42)), all(v(42)), cost{3 * 42, 12 * 42}},
		{program.Map, program.Attr{Expr: "x0 x1 mul tanh 1 add"}, all(v(4, 5), v(1, 5)), all(v(4, 5)),
			cost{20 * (1 + exp + 17 + 1), 4 * 45}},
		{program.Reduce, program.Attr{Fold: program.Mean, Axis: 1}, all(v(4, 5)), all(v(4)), cost{24, 4 * 24}},
		{program.Reduce, program.Attr{Fold: program.Max, Axis: 1}, all(v(4, 5)), all(v(4)), cost{40, 4 * 24}},
		{program.Softmax, program.Attr{}, all(v(4, 5)), all(v(4, 5)), cost{20 * (exp + 5), 4 * 40}},
		{program.LayerNorm, program.Attr{}, all(v(4, 5), v(5), v(5)), all(v(4, 5)), cost{20 * 7, 4 * 50}},
		{program.Lookup, program.Attr{}, all(v(1000, 8), v(6, 1)), all(v(6, 8)), cost{0, 4 * (48 + 6 + 48)}},
		{program.Lookup, program.Attr{}, all(v(1000, 8), v(6, 3)), all(v(6, 8)), cost{6 * 3 * 8, 4 * (144 + 18 + 48)}},
		{program.LookupDot, program.Attr{}, all(v(1000, 8), v(6, 3), v(6, 8)), all(v(6, 3)),
			cost{2 * 6 * 3 * 8, 4 * (144 + 18 + 48 + 18)}},
		{program.LookupWeighted, program.Attr{}, all(v(1000, 8), v(6, 3), v(6, 3)), all(v(6, 8)),
			cost{2 * 6 * 3 * 8, 4 * (144 + 18 + 18 + 48)}},
		{program.CandidateSoftmaxGrad, program.Attr{}, all(v(6, 3), v(6, 3), v(6, 1), v(1)), all(v(6, 3)),
			cost{18 * (bounded + 8), 4 * (18 + 18 + 6 + 1 + 18)}},
		{program.CandidateSoftmax, program.Attr{}, all(v(6, 3), v(6, 3), v(6, 1), v(1000)), all(v(1)),
			cost{18*(bounded+8+1) + 6*(log+2+1), 4 * (18 + 18 + 6 + 18 + 1)}},
		{program.CandidateBPR, program.Attr{}, all(v(6, 3), v(6, 3), v(6, 1)), all(v(1)),
			cost{18*(bounded+18) + 6*(log+2+1), 4 * (18 + 18 + 6 + 1)}},
		{program.SampledSoftmax, program.Attr{}, all(v(6, 1), v(6, 9), v(6, 1), v(9, 1), v(1000), v(6, 1)), all(v(1)),
			cost{54 * (3 + bounded + 3), 4 * (6 + 54 + 6 + 9 + 6 + 9 + 6 + 1)}},
		// 18 entries, of which a table of 10 rows has at most 10: the rows come twice for each of three tensors.
		{program.RowAdam, program.Attr{}, all(v(6, 3), v(6, 8)), all(v(10, 8), v(10, 8), v(10, 8)),
			cost{18*8*2 + 10*8*17, 4 * (18 + 18*8 + 2*3*80)}},
		{program.RowAdagrad, program.Attr{Uses: "s"}, all(v(6, 3), v(6, 3), v(6, 8), v(1)), all(v(1000, 8), v(1000, 1)),
			cost{18*8*2 + 18*8*(2+5+1), 4 * (18 + 18 + 18*8 + 2*18*8 + 2*18)}},
		{program.RowSumSquares, program.Attr{Uses: "l"}, all(v(1000, 8), v(6, 3), v(6, 8)), all(v(1)),
			cost{18*8*2 + 18*8*2, 4 * (18 + 18*8 + 1)}},
	} {
		if got := costOfOne(c.op, c.at, c.args, c.outs); got != c.want {
			t.Errorf("%s %+v of %v to %v costs %+v, want %+v", c.op, c.at, c.args, c.outs, got, c.want)
		}
	}
}

// TestCostOfAChain: what is handed on within a chain does not move, and exponentials are computed once.
func TestCostOfAChain(t *testing.T) {
	const m, w, d, rows = 6, 3, 8, 1000
	var p program.Program
	buffer := func(shape ...int) int {
		p.Buffers = append(p.Buffers, program.Buffer{Shape: shape, DType: program.F32})
		return len(p.Buffers) - 1
	}
	users, items, user, idx, weight := buffer(rows, d), buffer(rows, d), buffer(m, 1), buffer(m, w), buffer(m, 1)
	a, s, loss, dloss, ds, da := buffer(m, d), buffer(m, w), buffer(1), buffer(1), buffer(m, w), buffer(m, d)
	p.Instrs = []program.Instr{
		{Op: program.Lookup, Args: []int{users, user}, Outs: []int{a}},
		{Op: program.LookupDot, Args: []int{items, idx, a}, Outs: []int{s}},
		{Op: program.CandidateBPR, Args: []int{s, idx, weight}, Outs: []int{loss}},
		{Op: program.CandidateBPRGrad, Args: []int{s, idx, weight, dloss}, Outs: []int{ds}},
		{Op: program.LookupWeighted, Args: []int{items, idx, ds}, Outs: []int{da}},
	}
	chain := (&machine{p: &p}).scoringOf(&p.Instrs[4])
	if chain == nil || chain.lookup == nil || chain.weighted == nil {
		t.Fatalf("%+v", chain)
	}
	want := cost{
		flops: 2*2*m*w*d + m*w*40 + m*(31+2+1),
		// Both tables' rows, their indices, weights and dloss come; what was looked up, loss, ds and da go.
		bytes: 4 * (m*d + m*w*d + m + m*w + m + 1 + m*d + 1 + m*w + m*d),
	}
	if got := chain.costOf(extents{&p}); got != want {
		t.Errorf("the chain costs %+v, want %+v", got, want)
	}
}
