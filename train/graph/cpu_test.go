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
