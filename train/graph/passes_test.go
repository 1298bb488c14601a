package graph

import (
	"fmt"
	"slices"
	"testing"

	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
)

// TestPassesKeepBits trains every model with each pass alone, without any and with all: losses and weights have the
// same bits, but for the sign of zero that foldRelu changes, which no sum shows.
func TestPassesKeepBits(t *testing.T) {
	const rows, size = 40, 16
	for name, build := range foreignModels {
		t.Run(name, func(t *testing.T) {
			var want program.Tensors
			for _, ps := range []passes{{}, {merge: true}, {transposes: true}, {bias: true}, {fuse: true}, {inPlace: true}, allPasses} {
				set, err := compile(build, Options{Batch: size, Rows: rows, Tile: 8, Optimizer: adam}, ps)
				if err != nil {
					t.Fatal(err)
				}
				got := trained(t, set, rows)
				if want == nil {
					want = got
				}
				for i := range want {
					if !slices.Equal(want[i].F32, got[i].F32) {
						t.Errorf("%+v: %s differs", ps, want[i].Name)
					}
				}
			}
		})
	}
}

// TestColumnsOfTransposes: a product with one column of what Transpose made is not a product with one column and a
// transposed side, whose sums have another order.
func TestColumnsOfTransposes(t *testing.T) {
	build := func(b *Builder) (Model, error) {
		w := b.MatMul(made(gorgonia.Transpose(b.Param("u", "glorot_uniform", 40, 3))), b.Param("v", "glorot_uniform", 40, 1))
		z := b.MatMul(b.Input("x", 3), w)
		return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
	}
	var want program.Tensors
	for _, ps := range []passes{{}, {transposes: true}, allPasses} {
		set, err := compile(build, Options{Batch: 16, Rows: 40, Tile: 8, Optimizer: adam}, ps)
		if err != nil {
			t.Fatal(err)
		}
		got := trained(t, set, 40)
		if want == nil {
			want = got
		}
		for i := range want {
			if !slices.Equal(want[i].F32, got[i].F32) {
				t.Errorf("%+v: %s differs", ps, want[i].Name)
			}
		}
	}
}

// trained is the state of a set after two epochs on the columns of data.
func trained(t *testing.T, set *program.Set, rows int) program.Tensors {
	t.Helper()
	exec, err := backend(t).Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Close()
	d := program.Data{Schedule: program.Schedule{Seed: 3, Train: program.Range{To: rows}}}
	d.Rates = slices.Repeat([]float32{.01}, 2*d.StepsPerEpoch(set.Train.Rows))
	for c, x := range data(rows) {
		d.Columns = append(d.Columns, program.Column{Name: c, Rows: rows, Width: len(x) / rows, F32: narrow(x)})
	}
	if err := exec.Bind(d); err != nil {
		t.Fatal(err)
	}
	if err := exec.Import(set.Initial(7)); err != nil {
		t.Fatal(err)
	}
	if err := exec.Run(0, len(d.Rates), make([]float64, len(set.Slots))); err != nil {
		t.Fatal(err)
	}
	ts, err := exec.Export()
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

// gorgoniaMLP is 32-128-128-1 in Gorgonia's own operations, with its cross-entropy written out.
func gorgoniaMLP(b *Builder) (Model, error) {
	h, y := b.Input("x", 32), b.Input("y", 1)
	for i, width := range []int{128, 128, 1} {
		w := b.Param(fmt.Sprintf("w%d", i), "glorot_uniform", dims(h)[1], width)
		bias := b.Param(fmt.Sprintf("b%d", i), "zero", 1, width)
		h = made(gorgonia.BroadcastAdd(b.MatMul(h, w), bias, nil, []byte{0}))
		if width > 1 {
			h = made(gorgonia.Tanh(h))
		}
	}
	loss := made(gorgonia.Mean(made(gorgonia.Sub(made(gorgonia.Softplus(h)), made(gorgonia.HadamardProd(h, y))))))
	return Model{Loss: loss, Output: h}, nil
}

// BenchmarkPasses trains gorgoniaMLP in batches of 1024 with each pass alone left out, without any and with all.
func BenchmarkPasses(b *testing.B) {
	without := func(change func(*passes)) passes {
		ps := allPasses
		change(&ps)
		return ps
	}
	for _, c := range []struct {
		name string
		ps   passes
	}{
		{"all", allPasses},
		{"without_merge", without(func(ps *passes) { ps.merge = false })},
		{"without_bias", without(func(ps *passes) { ps.bias = false })},
		{"without_fuse", without(func(ps *passes) { ps.fuse = false })},
		{"without_inPlace", without(func(ps *passes) { ps.inPlace = false })},
		{"none", passes{}},
	} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/%d", c.name, threads), func(b *testing.B) {
				const rows, batch = 65536, 1024
				set, err := compile(gorgoniaMLP, Options{Batch: batch, Rows: rows, Tile: batch, Optimizer: adam}, c.ps)
				if err != nil {
					b.Fatal(err)
				}
				backend, err := cpu.New(cpu.Options{Threads: threads})
				if err != nil {
					b.Fatal(err)
				}
				exec, err := backend.Compile(set)
				if err != nil {
					b.Fatal(err)
				}
				defer exec.Close()
				if err := exec.Import(set.Initial(1)); err != nil {
					b.Fatal(err)
				}
				schedule := program.Schedule{Seed: 1, Train: program.Range{To: rows}, Rates: slices.Repeat([]float32{1e-3}, 1<<20)}
				columns := []program.Column{randomColumn("x", rows, 32, 0), randomColumn("y", rows, 1, 2)}
				if err := exec.Bind(program.Data{Schedule: schedule, Columns: columns}); err != nil {
					b.Fatal(err)
				}
				slots, step := make([]float64, len(set.Slots)), 0
				for b.Loop() {
					if err := exec.Run(step, 4, slots); err != nil {
						b.Fatal(err)
					}
					step += 4
				}
				b.ReportMetric(float64(4*batch*b.N)/b.Elapsed().Seconds(), "rows/s")
				b.ReportMetric(float64(len(set.Train.Instrs)), "instructions")
				b.ReportMetric(float64(set.Train.Arena)/1024, "arena_KiB")
			})
		}
	}
}
