package program_test

import (
	"math"
	"slices"
	"testing"

	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

// An ensemble gives the mean of what its members give alone, in float32, whole or wrapped, of any number of rows.
func TestAverage(t *testing.T) {
	set, err := graph.Compile(func(b *graph.Builder) (graph.Model, error) {
		x := b.Input("x", 5)
		h := b.Dropout(b.Dense("hidden", x, 9, program.Silu, "fan_in_uniform"), .2)
		z := b.Mean(b.Dense("a", h, 1, program.None, "fan_in_uniform"), b.Dense("b", h, 1, program.None, "fan_in_uniform"))
		return graph.Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
	}, graph.Options{Batch: 8, Rows: 8, Tile: 16, Optimizer: graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8}})
	if err != nil {
		t.Fatal(err)
	}
	const rows = 41
	x := make([]float64, rows*5)
	for i := range x {
		x[i] = math.Sin(float64(i * i))
	}
	run := func(p *program.Program, w program.Tensors) []float64 {
		t.Helper()
		f, err := cpu.NewForward(p, w)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]float64, rows)
		if err := f.Run(x, rows, out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, k := range []int{2, 3, 5} {
		var members []program.Tensors
		want := make([]float32, rows)
		for m := range k {
			w := params(set, set.Initial(uint64(m+1)))
			members = append(members, w)
			for i, z := range run(set.Forward, w) {
				want[i] += float32(z)
			}
		}
		both, err := program.Average(set, k)
		if err != nil {
			t.Fatal(err)
		}
		if err := both.Validate(); err != nil {
			t.Fatal(err)
		}
		weights := program.Members(set, members)
		got := run(both.Forward, weights)
		for i, z := range got {
			if float32(z) != want[i]*(1/float32(k)) {
				t.Errorf("%d members, row %d: %v, want %v", k, i, z, want[i]/float32(k))
			}
		}
		// Its memory is that of one member and of two outputs.
		if more := both.Forward.Arena - set.Forward.Arena; more > 2*16*4 {
			t.Errorf("%d members take %d bytes more than one", k, more)
		}
		wrapped, err := program.WrapStandardize(both.Forward, "x", 5)
		if err != nil {
			t.Fatal(err)
		}
		ones := slices.Repeat([]float64{1}, 5)
		zeros := make([]float64, 5)
		weights = append(weights,
			program.Tensor{Name: program.StandardizeMean, DType: program.F64, Shape: []int{5}, F64: zeros},
			program.Tensor{Name: program.StandardizeScale, DType: program.F64, Shape: []int{5}, F64: ones},
			program.Tensor{Name: program.StandardizeLog, DType: program.F64, Shape: []int{5}, F64: zeros})
		weights.Sort()
		if again := run(wrapped, weights); !slices.Equal(again, got) {
			t.Errorf("wrapped: %v, want %v", again, got)
		}
	}
	// Side by side each member keeps its own output.
	a, b := params(set, set.Initial(1)), params(set, set.Initial(2))
	pair, err := program.SideBySide(set, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Validate(); err != nil {
		t.Fatal(err)
	}
	f, err := cpu.NewForward(pair.Forward, program.Members(set, []program.Tensors{a, b}))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, 2*rows)
	if err := f.RunF32(x, rows, out); err != nil {
		t.Fatal(err)
	}
	first, second := run(set.Forward, a), run(set.Forward, b)
	for i := range rows {
		if float64(out[2*i]) != first[i] || float64(out[2*i+1]) != second[i] {
			t.Errorf("row %d: %v, want %v and %v", i, out[2*i:2*i+2], first[i], second[i])
		}
	}
	if _, err := program.Average(set, 1); err == nil {
		t.Error("an ensemble of one was made")
	}
}

// params are the tensors of a set's parameters.
func params(set *program.Set, ts program.Tensors) program.Tensors {
	var out program.Tensors
	for _, p := range set.Params {
		out = append(out, *ts.Find(p.Name))
	}
	return out
}
