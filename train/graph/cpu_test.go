package graph

import (
	"fmt"
	"slices"
	"testing"

	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
	"gorgonia.org/tensor"
)

// TestBackendAgainstTapeMachine trains every model on the CPU backend, shuffled, with dropout, in batches
// and a short rest, and by Gorgonia's TapeMachine on the same rows: losses and weights of every step
// agree to 1e-5.
func TestBackendAgainstTapeMachine(t *testing.T) {
	const rows, size, seed, epochs = 40, 16, 11, 2
	for name, build := range models {
		t.Run(name, func(t *testing.T) {
			set, err := Compile(build, Options{Batch: size, Rows: rows, Tile: 8, Optimizer: adam})
			if err != nil {
				t.Fatal(err)
			}
			backend, err := cpu.New(cpu.Options{Threads: 2})
			if err != nil {
				t.Fatal(err)
			}
			exec, err := backend.Compile(set)
			if err != nil {
				t.Fatal(err)
			}
			defer exec.Close()
			all := data(rows)
			schedule := program.Schedule{Seed: seed, Train: program.Range{From: 0, To: rows}}
			steps := epochs * schedule.StepsPerEpoch(size)
			schedule.Rates = slices.Repeat([]float32{.01}, steps)
			bound := program.Data{Schedule: schedule}
			for c, x := range all {
				bound.Columns = append(bound.Columns, program.Column{Name: c, Rows: rows, Width: len(x) / rows, F32: narrow(x)})
			}
			if err := exec.Bind(bound); err != nil {
				t.Fatal(err)
			}
			if err := exec.Import(set.Initial(seed)); err != nil {
				t.Fatal(err)
			}

			weights := newInterp(set, seed).store
			full := newTape(t, build, size, tensor.Float64, seed, weights)
			rest := newTape(t, build, rows%size, tensor.Float64, seed, weights)
			rest.state = full.state
			for step := range steps {
				epoch, first := step/3, step%3*size
				tp, n := full, size
				if rows-first < size {
					tp, n = rest, rows-first
				}
				perm := program.NewPermutation(seed, uint32(epoch), rows)
				for c, x := range all {
					w := len(x) / rows
					tp.values[c] = nil
					for i := range n {
						r := perm.At(first + i)
						tp.values[c] = append(tp.values[c], x[r*w:(r+1)*w]...)
					}
				}
				slots := make([]float64, len(set.Slots))
				if err := exec.Run(step, 1, slots); err != nil {
					t.Fatal(err)
				}
				loss := tp.step(t, step, float64(float32(.01)))
				near(t, fmt.Sprintf("step %d: loss", step), []float64{slots[0] / slots[1]}, []float64{loss}, 1e-5)
				got, err := exec.Export()
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range tp.b.params {
					name := p.spec.Name
					full.values[name], rest.values[name] = tp.values[name], tp.values[name]
					near(t, fmt.Sprintf("step %d: %s", step, name), widen(got.Find(name).F32), tp.values[name], 1e-5)
				}
			}
		})
	}
}

func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

// BenchmarkTowers trains the network of the fraud task, three towers 15-64-64-64-1 with dropout 0.2 on each hidden
// layer in batches of 256 on two threads, with each activation; rows/s are the figure.
func BenchmarkTowers(b *testing.B) {
	const rows, size, width = 256 * 64, 256, 15
	for _, c := range []struct {
		act  program.Act
		init string
	}{{program.Relu, "he_uniform"}, {program.Silu, "fan_in_uniform"}} {
		b.Run(string(c.act), func(b *testing.B) {
			set, err := Compile(func(b *Builder) (Model, error) {
				x, y := b.Input("x", width), b.Input("y", 1)
				var losses, logits []*Node
				for t := range 3 {
					h := x
					for l := range 3 {
						h = b.Dropout(b.Dense(fmt.Sprintf("tower%d/layer%d", t, l), h, 64, c.act, c.init), .2)
					}
					z := b.Dense(fmt.Sprintf("tower%d/out", t), h, 1, program.None, c.init)
					losses, logits = append(losses, b.BCEWithLogits(z, y, nil)), append(logits, z)
				}
				return Model{Loss: b.Add(losses...), Output: b.Mean(logits...)}, nil
			}, Options{Batch: size, Rows: rows, Tile: size, Optimizer: adam})
			if err != nil {
				b.Fatal(err)
			}
			backend, err := cpu.New(cpu.Options{Threads: 2})
			if err != nil {
				b.Fatal(err)
			}
			exec, err := backend.Compile(set)
			if err != nil {
				b.Fatal(err)
			}
			defer exec.Close()
			x, y := make([]float32, rows*width), make([]float32, rows)
			for i := range y {
				for j := range width {
					x[i*width+j] = 2*program.Uniforms4(1, uint32(j), 0, uint64(i))[0] - 1
				}
				if x[i*width]*x[i*width+1] > 0 {
					y[i] = 1
				}
			}
			schedule := program.Schedule{Seed: 1, Train: program.Range{From: 0, To: rows}, Rates: slices.Repeat([]float32{1e-3}, 1<<20)}
			if err := exec.Import(set.Initial(1)); err != nil {
				b.Fatal(err)
			}
			err = exec.Bind(program.Data{Schedule: schedule, Columns: []program.Column{
				{Name: "x", Rows: rows, Width: width, F32: x}, {Name: "y", Rows: rows, Width: 1, F32: y}}})
			if err != nil {
				b.Fatal(err)
			}
			slots, step := make([]float64, len(set.Slots)), 0
			for b.Loop() {
				if err := exec.Run(step, 10, slots); err != nil {
					b.Fatal(err)
				}
				step += 10
			}
			b.ReportMetric(float64(b.N*10*size)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
