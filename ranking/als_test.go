package ranking

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestALSIsImplicits holds factors and losses against those that the library implicit gives from the same initial
// factors; testdata/als_implicit.py made them.
func TestALSIsImplicits(t *testing.T) {
	text, err := os.ReadFile("testdata/als_implicit.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Factors, Iterations   int
		Seed                  uint64
		Alpha, Regularization float32
		Users, Items          int
		Start                 []int
		Index                 []int32
		Value                 []float32
		Runs                  []struct {
			Exact        bool
			Losses       []float64
			Users        []float32 `json:"user_factors"`
			Items        []float32 `json:"item_factors"`
			Recalculated []float32
		}
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	m := &Matrix{Rows: golden.Users, Cols: golden.Items, Start: golden.Start, Index: golden.Index, Value: golden.Value}
	near := func(what string, got, want []float32) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%s: %d numbers, want %d", what, len(got), len(want))
		}
		for i := range got {
			if !(math.Abs(float64(got[i]-want[i])) <= 2e-4*(1+math.Abs(float64(want[i])))) {
				t.Fatalf("%s: number %d is %v, implicit's is %v", what, i, got[i], want[i])
			}
		}
	}
	for _, run := range golden.Runs {
		for name, p := range paths(t) {
			var losses []float64
			train := func(iterations int) *ALS {
				losses = nil
				a, err := trainALS(t.Context(), p, m, ALSOptions{Factors: golden.Factors, Iterations: iterations, Seed: golden.Seed,
					Alpha: golden.Alpha, Regularization: golden.Regularization, Exact: run.Exact,
					Report: func(r ALSProgress) { losses = append(losses, r.Loss) }})
				if err != nil {
					t.Fatal(err)
				}
				return a
			}
			a := train(1)
			what := fmt.Sprintf("exact %v, %s", run.Exact, name)
			near(what+": users", a.Users, run.Users)
			near(what+": items", a.Items, run.Items)
			if train(golden.Iterations); len(losses) != golden.Iterations || len(run.Losses) != golden.Iterations {
				t.Fatalf("%d losses and %d, want %d", len(losses), len(run.Losses), golden.Iterations)
			}
			for i, l := range losses {
				if !(math.Abs(l/run.Losses[i]-1) < 1e-4) {
					t.Errorf("%s: the loss after iteration %d is %v, implicit's is %v", what, i+1, l, run.Losses[i])
				}
			}
			if run.Exact {
				f, err := NewFoldIn(a)
				if err != nil {
					t.Fatal(err)
				}
				items, values := m.Row(0)
				v, err := f.User(nil, items, values)
				if err != nil {
					t.Fatal(err)
				}
				near("fold-in", v, run.Recalculated)
			}
		}
	}
}

// TestALSSameBits: neither path nor threads change a bit, at widths with and without padding and for rows longer than
// any block.
func TestALSSameBits(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 3))
	m := randomMatrix(r, 300, 23, 0.5) // an item has more users than a block of solveRows
	for _, factors := range []int{1, 5, 33, 70} {
		for _, exact := range []bool{false, true} {
			var first *ALS
			for name, p := range paths(t) {
				for _, threads := range []int{1, 3} {
					a, err := trainALS(t.Context(), p, m, ALSOptions{Factors: factors, Iterations: 1, Exact: exact,
						Threads: threads, Alpha: 3})
					if err != nil {
						t.Fatal(err)
					}
					if first == nil {
						first = a
					}
					if !slices.Equal(a.Users, first.Users) || !slices.Equal(a.Items, first.Items) {
						t.Errorf("%d factors, exact %v, %s, %d threads: other bits", factors, exact, name, threads)
					}
				}
			}
		}
	}
}

// TestGramOf holds the common part of the normal equations against its definition, over several partial sums.
func TestGramOf(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, c := range [][2]int{{0, 3}, {1, 1}, {130, 17}, {2*gramRows + 5, 10}} {
		n, factors := c[0], c[1]
		y := table{randomVectors(r, n, 32, false), 32}
		for i := range n {
			clear(y.row(i)[factors:])
		}
		for name, p := range paths(t) {
			one, three := gramOf(p, y, n, factors, 0.5, 1), gramOf(p, y, n, factors, 0.5, 3)
			if !slices.Equal(one.float64, three.float64) || !slices.Equal(one.float32, three.float32) {
				t.Errorf("%v, %s: threads change bits", c, name)
			}
			for i := range 32 {
				for j := range 32 {
					want := 0.0
					for k := range n {
						want += float64(y.row(k)[i]) * float64(y.row(k)[j])
					}
					if i == j && i < factors {
						want += 0.5
					} else if i == j {
						want = 1
					}
					got, tolerance := one.float64[i*32+j], 1e-11*float64(n+1)*(1+math.Abs(want))
					if !(math.Abs(got-want) <= tolerance) || one.float32[i*32+j] != float32(got) {
						t.Fatalf("%v, %s: element %d,%d is %v, want %v", c, name, i, j, got, want)
					}
				}
			}
		}
	}
}

// naiveRow solves one row's normal equations in float64 by elimination.
func naiveRow(y []float32, factors int, items []int32, values []float32, alpha, regularization float64) []float64 {
	n := factors
	a := make([][]float64, n)
	for i := range a {
		a[i] = make([]float64, n+1)
		a[i][i] = regularization
	}
	add := func(v []float32, c, right float64) {
		for i := range n {
			for j := range n {
				a[i][j] += c * float64(v[i]) * float64(v[j])
			}
			a[i][n] += right * float64(v[i])
		}
	}
	for i := range len(y) / n {
		add(y[i*n:][:n], 1, 0)
	}
	for k, item := range items {
		if c := alpha * float64(values[k]); c != 0 {
			add(y[int(item)*n:][:n], c-1, c)
		}
	}
	for i := range n {
		for k := i + 1; k < n; k++ {
			f := a[k][i] / a[i][i]
			for j := i; j <= n; j++ {
				a[k][j] -= f * a[i][j]
			}
		}
	}
	x := make([]float64, n)
	for i := n - 1; i >= 0; i-- {
		x[i] = a[i][n]
		for j := i + 1; j < n; j++ {
			x[i] -= a[i][j] * x[j]
		}
		x[i] /= a[i][i]
	}
	return x
}

// TestFoldIn: a user folded in has the vector that his normal equations have, for any number of items and a value of
// 0 among them.
func TestFoldIn(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, factors := range []int{1, 7, 64, 70} {
		m := &ALS{Factors: factors, Items: make([]float32, 400*factors), Regularization: 0.1, Alpha: 2}
		for i := range m.Items {
			m.Items[i] = float32(r.NormFloat64() * 0.3)
		}
		f, err := NewFoldIn(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 8, 9, 129, 400} {
			var items []int32
			var values []float32
			for _, i := range r.Perm(400)[:n] {
				items, values = append(items, int32(i)), append(values, float32(r.IntN(4)))
			}
			got, err := f.User(nil, items, values)
			if err != nil {
				t.Fatal(err)
			}
			want := naiveRow(m.Items, factors, items, values, 2, 0.1)
			for i := range want {
				if !(math.Abs(float64(got[i])-want[i]) < 2e-4*(1+math.Abs(want[i]))) {
					t.Fatalf("%d factors, %d items: factor %d is %v, want %v", factors, n, i, got[i], want[i])
				}
			}
		}
		out := make([]float32, 0, factors)
		items, values := []int32{1, 2, 3}, []float32{1, 2, 1}
		if n := testing.AllocsPerRun(20, func() { out, err = f.User(out, items, values) }); n > 0.5 || err != nil {
			t.Errorf("%d factors: %v allocations, %v", factors, n, err)
		}
	}
}

// TestALSLoss: the loss is the objective by its definition, falls from iteration to iteration where rows are solved
// exactly, and conjugate gradients with many steps come to the same.
func TestALSLoss(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	m := randomMatrix(r, 60, 40, 0.2)
	run := func(o ALSOptions) (*ALS, []float64) {
		var losses []float64
		o.Factors, o.Regularization, o.Alpha, o.Iterations = 8, 0.2, 1.5, 6
		o.Report = func(p ALSProgress) { losses = append(losses, p.Loss) }
		a, err := TrainALS(t.Context(), m, o)
		if err != nil {
			t.Fatal(err)
		}
		return a, losses
	}
	a, losses := run(ALSOptions{Exact: true})
	if !slices.IsSortedFunc(losses, func(a, b float64) int {
		if a < b {
			return 1
		}
		return -1
	}) {
		t.Errorf("losses rise: %v", losses)
	}
	var sum, total float64
	for u := range m.Rows {
		items, values := m.Row(u)
		at := map[int32]float32{}
		for i, item := range items {
			at[item] = values[i]
		}
		for i := range m.Cols {
			c, p, s := 1.0, 0.0, 0.0
			if v, ok := at[int32(i)]; ok {
				c, p = 1.5*float64(v), 1
			}
			for j := range 8 {
				s += float64(a.Users[u*8+j]) * float64(a.Items[i*8+j])
			}
			sum += c * (p - s) * (p - s)
			total += c
		}
	}
	for _, side := range [][]float32{a.Users, a.Items} {
		for _, v := range side {
			sum += 0.2 * float64(v) * float64(v)
		}
	}
	if got := losses[len(losses)-1]; !(math.Abs(got/(sum/total)-1) < 1e-5) {
		t.Errorf("the loss is %v, by its definition %v", got, sum/total)
	}
	_, many := run(ALSOptions{Steps: 30})
	if !(math.Abs(many[5]/losses[5]-1) < 1e-3) {
		t.Errorf("the loss of 30 steps of conjugate gradients is %v, of the exact solution %v", many[5], losses[5])
	}
}

// TestALSEmpty: users and items without cells get 0, and so does all of an empty matrix; a value of 0 is no cell.
func TestALSEmpty(t *testing.T) {
	m, err := NewMatrix(3, 3, []int32{0, 0, 2}, []int32{0, 2, 1}, []float32{1, 0, 2})
	if err != nil {
		t.Fatal(err)
	}
	a, err := TrainALS(t.Context(), m, ALSOptions{Factors: 2})
	if err != nil {
		t.Fatal(err)
	}
	for what, v := range map[string][]float32{"user 1": a.Users[2:4], "item 2": a.Items[4:6]} {
		if v[0] != 0 || v[1] != 0 {
			t.Errorf("%s has the factors %v, want 0", what, v)
		}
	}
	a, err = TrainALS(t.Context(), &Matrix{Start: []int{0}}, ALSOptions{Report: func(ALSProgress) {}})
	if err != nil || len(a.Users)+len(a.Items) > 0 {
		t.Errorf("an empty matrix: %v, %v", a, err)
	}
}

func TestALSRefuses(t *testing.T) {
	m, err := NewMatrix(2, 2, []int32{0, 1}, []int32{0, 1}, []float32{1, -2})
	if err != nil {
		t.Fatal(err)
	}
	good, err := NewMatrix(2, 2, []int32{0, 1}, []int32{0, 1}, []float32{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(context.Background())
	end()
	f, err := NewFoldIn(&ALS{Factors: 1, Items: []float32{1, 2}, Regularization: 1, Alpha: 1})
	if err != nil {
		t.Fatal(err)
	}
	train := func(m *Matrix, o ALSOptions) error { _, err := TrainALS(context.Background(), m, o); return err }
	user := func(item int32, v float32) error { _, err := f.User(nil, []int32{item}, []float32{v}); return err }
	_, canceled := TrainALS(ended, good, ALSOptions{})
	_, nan := NewFoldIn(&ALS{Factors: 1, Items: []float32{1, float32(math.NaN())}, Regularization: 1, Alpha: 1})
	for _, c := range []struct {
		want string
		err  error
	}{
		{"row 1, column 1 is -2", train(m, ALSOptions{})},
		{"2000 factors", train(good, ALSOptions{Factors: 2000})},
		{"regularization of -1", train(good, ALSOptions{Regularization: -1})},
		{"alpha NaN", train(good, ALSOptions{Alpha: float32(math.NaN())})},
		{"-1 iterations", train(good, ALSOptions{Iterations: -1})},
		{"raise Regularization", train(good, ALSOptions{Alpha: 1e38, Exact: true})},
		{"context canceled", canceled},
		{"item 1, factor 0 is NaN", nan},
		{"item 2 is not among the model's 2", user(2, 1)},
		{"item -1 is not", user(-1, 1)},
		{"item 1 has the value -1", user(1, -1)},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("got the error %v, want one with %q", c.err, c.want)
		}
	}
}

// TestPhilox holds the generator against the known answers of Random123.
func TestPhilox(t *testing.T) {
	if got, want := philox(0, 0, 0, 0), [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}; got != want {
		t.Errorf("%x, want %x", got, want)
	}
	all := ^uint64(0)
	want := [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}
	if got := philox(all, 0xffffffff, all, 0xffffffff); got != want {
		t.Errorf("%x, want %x", got, want)
	}
}

func BenchmarkFoldIn(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	m := &ALS{Factors: 64, Items: make([]float32, 20_000*64), Regularization: 0.05, Alpha: 2}
	for i := range m.Items {
		m.Items[i] = float32(r.NormFloat64() * 0.3)
	}
	f, err := NewFoldIn(m)
	if err != nil {
		b.Fatal(err)
	}
	items, values := make([]int32, 63), make([]float32, 63) // the median user of the benchmark's matrix
	for i := range items {
		items[i], values[i] = int32(r.IntN(20_000)), 1
	}
	b.ReportAllocs()
	var v []float32
	for b.Loop() {
		if v, err = f.User(v, items, values); err != nil {
			b.Fatal(err)
		}
	}
}
