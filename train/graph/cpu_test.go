package graph

import (
	"fmt"
	"math"
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
	for name, build := range models {
		t.Run(name, func(t *testing.T) { backendAgainstTape(t, build) })
	}
}

func backendAgainstTape(t *testing.T, build func(*Builder) (Model, error)) {
	const rows, size, seed, epochs = 40, 16, 11, 2
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
	start := set.Initial(seed)
	for _, c := range set.Consts {
		start = append(start, program.Tensor{Name: c.Name, DType: program.F32, Shape: c.Shape, F32: narrow(constants(c.Name, c.Shape[0]))})
	}
	if err := exec.Import(start); err != nil {
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
}

func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

// bench compiles a model for the CPU on so many threads, binds data and steps.
func bench(b *testing.B, threads, batch, rows int, columns []program.Column, build func(*Builder) (Model, error), consts ...program.Tensor) {
	b.Helper()
	set, err := Compile(build, Options{Batch: batch, Rows: rows, Tile: batch, Optimizer: adam})
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
	if err := exec.Import(append(set.Initial(1), consts...)); err != nil {
		b.Fatal(err)
	}
	schedule := program.Schedule{Seed: 1, Train: program.Range{From: 0, To: rows}, Rates: slices.Repeat([]float32{1e-3}, 1<<20)}
	if err := exec.Bind(program.Data{Schedule: schedule, Columns: columns}); err != nil {
		b.Fatal(err)
	}
	slots, step := make([]float64, len(set.Slots)), 0
	const n = 10
	for b.Loop() {
		if err := exec.Run(step, n, slots); err != nil {
			b.Fatal(err)
		}
		step += n
	}
	b.ReportMetric(float64(b.N*n*batch)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(b.Elapsed().Seconds()*1e3/float64(b.N*n), "ms/step")
}

// randomColumn is a column of uniform numbers in -1..1 or, with items, of indices of which small ones are the more frequent.
func randomColumn(name string, rows, width, items int) program.Column {
	c := program.Column{Name: name, Rows: rows, Width: width, F32: make([]float32, rows*width)}
	for i := range c.F32 {
		u := program.Uniforms4(7, uint32(len(name)), uint32(width), uint64(i))[0]
		c.F32[i] = 2*u - 1
		if items > 0 {
			c.F32[i] = float32(int(float64(items) * math.Pow(float64(u), 3)))
		}
	}
	return c
}

// BenchmarkTwoTowers is a step of a recommender of 20k items and 100k users, 64 wide: 1024 purchases and 512 negatives a step.
func BenchmarkTwoTowers(b *testing.B) {
	const items, users, d, batch, k, rows = 20_000, 100_000, 64, 1024, 512, 1024 * 64
	cdf, logq := constants("cdf", items), constants("logq", items)
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprint(threads), func(b *testing.B) {
			bench(b, threads, batch, rows, []program.Column{randomColumn("user", rows, 1, users), randomColumn("item", rows, 1, items)},
				func(b *Builder) (Model, error) {
					u, v := b.Table("users", users, d, .1), b.Table("items", items, d, .1)
					pi, ni := b.Input("item", 1), b.Sample(b.Const("cdf", items), k)
					q := b.Lookup(u, b.Input("user", 1))
					pos, neg := b.RowDot(q, b.Lookup(v, pi)), b.MatMulT(q, b.Lookup(v, ni))
					return Model{Loss: b.SampledSoftmax(pos, neg, pi, ni, b.Const("logq", items), nil), Output: b.Scale(q, 1)}, nil
				},
				program.Tensor{Name: "cdf", DType: program.F32, Shape: []int{items}, F32: narrow(cdf)},
				program.Tensor{Name: "logq", DType: program.F32, Shape: []int{items}, F32: narrow(logq)})
		})
	}
}

// BenchmarkHistory is the same where a user is the mean of the 20 items bought before.
func BenchmarkHistory(b *testing.B) {
	const items, d, batch, k, w, rows = 20_000, 64, 1024, 512, 20, 1024 * 64
	cdf, logq := constants("cdf", items), constants("logq", items)
	bench(b, 1, batch, rows, []program.Column{randomColumn("before", rows, w, items), randomColumn("item", rows, 1, items)},
		func(b *Builder) (Model, error) {
			v := b.Table("items", items, d, .1)
			pi, ni := b.Input("item", 1), b.Sample(b.Const("cdf", items), k)
			q := b.Lookup(v, b.Input("before", w))
			pos, neg := b.RowDot(q, b.Lookup(v, pi)), b.MatMulT(q, b.Lookup(v, ni))
			return Model{Loss: b.SampledSoftmax(pos, neg, pi, ni, b.Const("logq", items), nil), Output: b.Scale(q, 1)}, nil
		},
		program.Tensor{Name: "cdf", DType: program.F32, Shape: []int{items}, F32: narrow(cdf)},
		program.Tensor{Name: "logq", DType: program.F32, Shape: []int{items}, F32: narrow(logq)})
}

// BenchmarkQuantiles is a step of a forecaster: windows of 84 days and 24 covariates, two layers of 256, 28 steps of 9 levels.
func BenchmarkQuantiles(b *testing.B) {
	const batch, rows, in, h, series = 1024, 1024 * 32, 108, 28, 500
	levels := []float64{.01, .05, .1, .25, .5, .75, .9, .95, .975}
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprint(threads), func(b *testing.B) {
			bench(b, threads, batch, rows, []program.Column{randomColumn("x", rows, in, 0), randomColumn("t", rows, h, 0), randomColumn("w", rows, h, 2), randomColumn("series", rows, 1, series)},
				func(b *Builder) (Model, error) {
					x := b.Concat(b.Input("x", in), b.Lookup(b.Table("series table", series, 8, .1), b.Input("series", 1)))
					x = b.Dense("l1", x, 256, program.Silu, "fan_in_uniform")
					x = b.Dense("l2", x, 256, program.Silu, "fan_in_uniform")
					y := b.Dense("out", x, h*len(levels), program.None, "fan_in_uniform")
					return Model{Loss: b.Pinball(y, b.Input("t", h), b.Input("w", h), levels...), Output: y}, nil
				})
		})
	}
}

// BenchmarkWideWindow gathers windows of 4096 numbers and does next to nothing with them: bytes gathered a second are the figure.
func BenchmarkWideWindow(b *testing.B) {
	const batch, rows, in = 256, 256 * 64, 4096
	b.SetBytes(10 * batch * in * 4)
	bench(b, 1, batch, rows, []program.Column{randomColumn("x", rows, in, 0), randomColumn("y", rows, 1, 0)},
		func(b *Builder) (Model, error) {
			z := b.Dense("out", b.Slice(b.Input("x", in), 0, 8), 1, program.None, "zero")
			return Model{Loss: b.Pinball(z, b.Input("y", 1), b.onesLike(z), .5), Output: z}, nil
		})
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
