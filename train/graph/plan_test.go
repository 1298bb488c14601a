package graph

import (
	"slices"
	"testing"

	"github.com/onmart/onmart/train/program"
	"gorgonia.org/tensor"
)

// hand is a program written by hand: temps of one shape, and instructions as {op, out, args...}.
func hand(temps int, instrs ...program.Instr) *program.Program {
	p := &program.Program{Rows: 4, Instrs: instrs}
	for range temps {
		p.Buffers = append(p.Buffers, program.Buffer{Kind: program.Temp, DType: program.F32, Shape: []int{4, 16}})
	}
	return p
}

func in(op program.Op, out int, args ...int) program.Instr {
	return program.Instr{Op: op, Outs: []int{out}, Args: args}
}

func TestInPlace(t *testing.T) {
	for name, c := range map[string]struct {
		p    *program.Program
		want [][]int // out, args of each instruction
	}{
		"dead operand":       {hand(2, in(program.Fill, 0), in(program.Scale, 1, 0)), [][]int{{0}, {0, 0}}},
		"chain":              {hand(3, in(program.Fill, 0), in(program.Scale, 1, 0), in(program.Dropout, 2, 1)), [][]int{{0}, {0, 0}, {0, 0}}},
		"read later":         {hand(3, in(program.Fill, 0), in(program.Scale, 1, 0), in(program.Add, 2, 1, 0)), [][]int{{0}, {1, 0}, {1, 1, 0}}},
		"second operand":     {hand(4, in(program.Fill, 0), in(program.Fill, 1), in(program.Add, 2, 0, 1), in(program.Add, 3, 2, 0)), [][]int{{0}, {1}, {1, 1, 0}, {1, 1, 0}}},
		"both operands one":  {hand(2, in(program.Fill, 0), in(program.Add, 1, 0, 0)), [][]int{{0}, {1, 0, 0}}},
		"act_grad's y stays": {hand(4, in(program.Fill, 0), in(program.Fill, 1), in(program.ActGrad, 2, 0, 1), in(program.Add, 3, 0, 2)), [][]int{{0}, {1}, {2, 0, 1}, {0, 0, 2}}},
		"activate over z":    {hand(2, in(program.Fill, 0), in(program.Activate, 1, 0)), [][]int{{0}, {0, 0}}},
		"z of the gradient":  {hand(4, in(program.Fill, 0), in(program.Activate, 1, 0), in(program.Fill, 2), in(program.ActGrad, 3, 2, 0)), [][]int{{0}, {1, 0}, {2}, {2, 2, 0}}},
		"not this operation": {hand(2, in(program.Fill, 0), in(program.Slice, 1, 0)), [][]int{{0}, {1, 0}}},
	} {
		inPlace(c.p)
		for i, in := range c.p.Instrs {
			if got := append(slices.Clone(in.Outs), in.Args...); !slices.Equal(got, c.want[i]) {
				t.Errorf("%s: instruction %d has %v, want %v", name, i, got, c.want[i])
			}
		}
	}
}

// TestUpdateComesLast: a parameter is not updated before its last reader, wherever its gradient is made; clipped, not
// before the squares of all gradients are known. Its average follows.
func TestUpdateComesLast(t *testing.T) {
	for _, c := range []struct {
		opts Options
		want []string
	}{
		{Options{Optimizer: adam}, []string{"fill", "scale", "adamw", "scale"}},
		{Options{Optimizer: adam, Average: .9}, []string{"fill", "scale", "adamw", "moving_average", "scale"}},
		{Options{Optimizer: adam, ClipNorm: 1, Average: .9},
			[]string{"fill", "sum_squares", "scale", "scale", "clip_factor", "adamw", "moving_average"}},
	} {
		b := newBuilder(4, true, tensor.Float32)
		l := newLowering(b, "train")
		spec := program.TensorSpec{Name: "p", Shape: []int{4, 16}}
		b.params = []*param{{spec: spec}}
		at := l.buffer("p", program.Param, program.F32, spec.Shape)
		grad, y := l.buffer("g", program.Temp, program.F32, spec.Shape), l.buffer("y", program.Temp, program.F32, spec.Shape)
		l.emit(program.Fill, program.Attr{}, "g", nil, []int{grad})
		l.emit(program.Scale, program.Attr{}, "reader", []int{at}, []int{y})
		l.emit(program.Scale, program.Attr{}, "after", []int{y}, []int{y})
		if err := l.updates(&c.opts, []int{at}, [][]int{{grad}}); err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, in := range l.p.Instrs {
			order = append(order, string(in.Op))
		}
		if !slices.Equal(order, c.want) {
			t.Errorf("order %v, want %v", order, c.want)
		}
	}
}
