package traintest

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

const (
	users = 40
	items = 30
)

// compile with a batch that does not divide the rows.
func compile(t testing.TB, rows, batch int, build func(b *graph.Builder) (graph.Model, error)) *program.Set {
	t.Helper()
	set, err := graph.Compile(build, graph.Options{Batch: batch, Rows: rows, Tile: 16, Optimizer: graph.AdamW{Beta1: .9, Beta2: .99, Eps: 1e-8, Decay: .01}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// recommender is a case with every operation of embeddings: users and what they bought before, a table of items that
// is read four times, negatives drawn by how often an item is bought, and a second loss by pairs. Every user buys
// items of one residue.
func recommender(t testing.TB) Case {
	const rows, batch = 300, 64
	set := compile(t, rows, batch, func(b *graph.Builder) (graph.Model, error) {
		w, pi := b.Input("w", 1), b.Input("item", 1)
		cdf, logq := b.Const("cdf", items), b.Const("logq", items)
		u, v := b.Table("users", users, 12, .3), b.Table("items", items, 12, .3)
		q := b.Add(b.Lookup(u, b.Input("user", 1)), b.Dense("mix", b.Lookup(v, b.Input("before", 3)), 12, program.Silu, "fan_in_uniform"))
		q = b.Scale(b.Dropout(q, .1), 2)
		ni, bought := b.Sample(cdf, 17), b.Lookup(v, pi)
		pos := b.RowDot(q, bought)
		bpr := b.BPR(pos, b.RowDot(q, b.Lookup(v, b.Input("other", 1))), nil)
		loss := b.SampledSoftmax(pos, b.MatMulT(q, b.Lookup(v, ni)), pi, ni, logq, w)
		return graph.Model{Loss: b.Add(loss, b.Scale(bpr, .3)), Output: q, Metrics: map[string]*graph.Node{"bpr": bpr}}, nil
	})
	r := rand.New(rand.NewPCG(2, 3))
	column := func(name string, width int, f func(i int) float32) program.Column {
		c := program.Column{Name: name, Rows: rows, Width: width}
		for i := range rows * width {
			c.F32 = append(c.F32, f(i/width))
		}
		return c
	}
	user := column("user", 1, func(int) float32 { return float32(r.IntN(users)) })
	taste := func(i int) float32 { return float32(int(user.F32[i])%5 + 5*r.IntN(items/5)) }
	c := Case{Set: set, Learns: .2, Data: program.Data{
		Columns: []program.Column{user, column("item", 1, taste),
			column("before", 3, func(i int) float32 {
				if r.IntN(4) == 0 {
					return -1
				}
				return taste(i)
			}),
			column("other", 1, func(int) float32 { return float32(r.IntN(items)) }),
			column("w", 1, func(int) float32 { return 1 + float32(r.IntN(3)) })},
		Schedule: program.Schedule{Seed: 5, Train: program.Range{To: rows}, Rates: slices.Repeat([]float32{.01}, 60)},
	}}
	cdf, logq := make([]float32, items), make([]float32, items)
	for i := range items {
		cdf[i] = float32(i+1) / items
		logq[i] = float32(-math.Log(items))
	}
	c.Consts = program.Tensors{{Name: "cdf", DType: program.F32, Shape: []int{items}, F32: cdf}, {Name: "logq", DType: program.F32, Shape: []int{items}, F32: logq}}
	return c
}

// forecaster is a case of quantiles at five steps, with an embedding of the series, a scale for each row and targets
// that are masked.
func forecaster(t testing.TB) Case {
	const rows, batch, in, h = 200, 48, 21, 5
	set := compile(t, rows, batch, func(b *graph.Builder) (graph.Model, error) {
		x := b.Concat(b.Input("x", in), b.Lookup(b.Table("series", users, 3, .1), b.Input("key", 1)))
		x = b.Dense("l1", x, 33, program.Silu, "fan_in_uniform")
		y := b.RowScale(b.Dense("out", x, 3*h, program.None, "fan_in_uniform"), b.Input("scale", 1))
		return graph.Model{Loss: b.Pinball(y, b.Input("t", h), b.Input("w", h), .1, .5, .9), Output: y}, nil
	})
	r := rand.New(rand.NewPCG(4, 5))
	x, key, scale := make([]float32, rows*in), make([]float32, rows), make([]float32, rows)
	target, w := make([]float32, rows*h), make([]float32, rows*h)
	for i := range rows {
		key[i], scale[i] = float32(r.IntN(users)), .5+r.Float32()
		for j := range in {
			x[i*in+j] = float32(r.NormFloat64())
		}
		for s := range h {
			target[i*h+s] = 2*x[i*in+s] + float32(.3*r.NormFloat64())
			w[i*h+s] = float32(min(1, r.IntN(5)))
		}
	}
	col := func(name string, width int, f []float32) program.Column {
		return program.Column{Name: name, Rows: rows, Width: width, F32: f}
	}
	return Case{Set: set, Learns: .3, Data: program.Data{
		Columns:  []program.Column{col("x", in, x), col("key", 1, key), col("scale", 1, scale), col("t", h, target), col("w", h, w)},
		Schedule: program.Schedule{Seed: 6, Train: program.Range{To: rows}, Rates: slices.Repeat([]float32{.02}, 60)},
	}}
}

func TestRecommender(t *testing.T) { Run(t, recommender(t)) }

func TestForecaster(t *testing.T) { Run(t, forecaster(t)) }

// recorder notes failures instead of failing.
type recorder struct {
	testing.TB
	failed []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failed = append(r.failed, fmt.Sprintf(format, args...))
}
func (r *recorder) Error(args ...any) { r.failed = append(r.failed, fmt.Sprint(args...)) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}
func (r *recorder) Fatal(args ...any) {
	r.Error(args...)
	runtime.Goexit()
}

// fails is what a test says of a case.
func fails(t *testing.T, test func(t testing.TB, c Case), c Case) string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(r, c)
	}()
	<-done
	return strings.Join(r.failed, "\n")
}

// TestFaultsAreFound plants faults that a lowering or a kernel could have, and a case that asks for too much.
func TestFaultsAreFound(t *testing.T) {
	altered := func(c Case, change func(in *program.Instr) bool) Case {
		b, err := json.Marshal(c.Set)
		if err != nil {
			t.Fatal(err)
		}
		c.Set = new(program.Set)
		if err := json.Unmarshal(b, c.Set); err != nil {
			t.Fatal(err)
		}
		for i := len(c.Set.Train.Instrs) - 1; i >= 0; i-- {
			if change(&c.Set.Train.Instrs[i]) {
				return c
			}
		}
		t.Fatal("nothing was altered")
		return c
	}
	greedy := forecaster(t)
	greedy.Learns = .99
	for name, f := range map[string]struct {
		test func(t testing.TB, c Case)
		c    Case
		want string
	}{
		"a use of a table is forgotten": {Gradients, altered(recommender(t), func(in *program.Instr) bool {
			if in.Op != program.RowAdam || len(in.Args) < 6 {
				return false
			}
			in.Args = in.Args[:4]
			return true
		}), "items, direction"},
		"a gradient of half its size": {Gradients, altered(forecaster(t), func(in *program.Instr) bool {
			if in.Op != program.Fill {
				return false
			}
			in.Attr.Scale /= 2
			return true
		}), "out.weight, direction"},
		"other levels in the gradient": {Gradients, altered(forecaster(t), func(in *program.Instr) bool {
			if in.Op != program.PinballGrad {
				return false
			}
			in.Attr.Levels[1] = .6
			return true
		}), "out.bias, direction"},
		"nothing like it is learned": {Sound, greedy, "want it to fall by 0.99"},
	} {
		if got := fails(t, f.test, f.c); !strings.Contains(got, f.want) {
			t.Errorf("%s: it says %q, want %q", name, got, f.want)
		}
	}
}
