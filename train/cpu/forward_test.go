package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onmart/onmart/train/program"
)

// artifact is a forward program as a model has it: standardisation, a network, calibration; and its weights.
func artifact(tile int) (*program.Program, program.Tensors) {
	b := &build{p: program.Program{Name: "score", Rows: tile}}
	r := rand.New(rand.NewPCG(9, 9))
	var ts program.Tensors
	weight := func(kind program.Kind, d program.DType, name string, shape ...int) int {
		o := values(r, shape...)
		t := program.Tensor{Name: name, DType: d, Shape: shape, F32: o.f32}
		if d == program.F64 {
			t.F64, t.F32 = o.wide(), nil
		}
		if name == "log" {
			for i := range t.F64 {
				t.F64[i] = float64(i % 2)
			}
		}
		ts = append(ts, t)
		return b.buffer(program.Buffer{Name: name, Kind: kind, DType: d, Shape: shape})
	}
	x := b.buffer(program.Buffer{Name: "features", Kind: program.Input, DType: program.F64, Shape: []int{tile, 5}, PerRow: true})
	u := b.do(program.Standardize, program.Attr{}, []int{x, weight(program.Const, program.F64, "mean", 5), weight(program.Const, program.F64, "scale", 5), weight(program.Const, program.F64, "log", 5)}, b.temp(true, tile, 5))
	h := b.do(program.MatMul, program.Attr{Act: program.Relu}, []int{u, weight(program.Param, program.F32, "w0", 5, 40), weight(program.Param, program.F32, "b0", 40)}, b.temp(true, tile, 40))
	h = b.do(program.MatMul, program.Attr{Act: program.Relu, TransB: true}, []int{h, weight(program.Param, program.F32, "w1", 300, 40)}, b.temp(true, tile, 300))
	z := b.do(program.MatMul, program.Attr{}, []int{h, weight(program.Param, program.F32, "w2", 300, 1), weight(program.Param, program.F32, "b2", 1)}, b.temp(true, tile, 1))
	p := b.buffer(program.Buffer{Name: "p", Kind: program.Output, DType: program.F64, Shape: []int{tile, 1}, PerRow: true})
	b.do(program.Calibrate, program.Attr{}, []int{z, weight(program.Const, program.F64, "ab", 2)}, p)
	ts.Sort()
	return &b.p, ts
}

func inputs(rows int) []float64 {
	r := rand.New(rand.NewPCG(1, 1))
	x := make([]float64, rows*5)
	for i := range x {
		x[i] = r.ExpFloat64() * 3
	}
	return x
}

// TestForwardOneRowAndABatch: any tile, any number of rows at a time, any path, clones: the same bits.
func TestForwardOneRowAndABatch(t *testing.T) {
	const rows = 130
	x := inputs(rows)
	var want []float64
	check := func(got []float64, what string, args ...any) {
		t.Helper()
		for i := range got {
			if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
				t.Fatalf(what+": row %d is %v, want %v", append(args, i, got[i], want[i])...)
			}
		}
	}
	for _, k := range paths() {
		for _, tile := range []int{1, 6, 7, 100, 1024} {
			p, ts := artifact(tile)
			f, err := newForward(k, p, ts)
			if err != nil {
				t.Fatal(err)
			}
			all := make([]float64, rows)
			if err := f.Run(x, rows, all); err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = reference(x, rows, ts)
				for i := range all {
					if !(math.Abs(all[i]-want[i]) <= 1e-4) {
						t.Fatalf("row %d is %v, want %v", i, all[i], want[i])
					}
				}
				want = all
			}
			check(all, "%s, tile %d", k.name, tile)
			for _, g := range []*Forward{f, f.Clone()} {
				for _, step := range []int{1, 5, 64} {
					got := make([]float64, rows)
					for i := 0; i < rows; i += step {
						n := min(step, rows-i)
						if err := g.Run(x[i*5:(i+n)*5], n, got[i:i+n]); err != nil {
							t.Fatal(err)
						}
					}
					check(got, "%s, tile %d, %d rows at a time", k.name, tile, step)
				}
			}
		}
	}
}

// reference is the artifact in float64, by its formulas.
func reference(x []float64, rows int, ts program.Tensors) []float64 {
	w := func(name string, i int) float64 {
		if t := ts.Find(name); t.F64 != nil {
			return t.F64[i]
		}
		return float64(ts.Find(name).F32[i])
	}
	out := make([]float64, rows)
	for r := range rows {
		var u [5]float64
		for j := range u {
			u[j] = x[r*5+j]
			if w("log", j) == 1 {
				u[j] = math.Log1p(math.Max(u[j], 0))
			}
			u[j] = (u[j] - w("mean", j)) * w("scale", j)
		}
		var h [40]float64
		for j := range h {
			h[j] = w("b0", j)
			for k := range u {
				h[j] += u[k] * w("w0", k*40+j)
			}
			h[j] = math.Max(h[j], 0)
		}
		z := w("b2", 0)
		for j := range 300 {
			g := 0.0
			for k := range h {
				g += h[k] * w("w1", j*40+k)
			}
			z += math.Max(g, 0) * w("w2", j)
		}
		out[r] = 1 / (1 + math.Exp(-(w("ab", 0)*z + w("ab", 1))))
	}
	return out
}

func TestForwardClonesRunTogether(t *testing.T) {
	p, ts := artifact(16)
	f, err := NewForward(p, ts)
	if err != nil {
		t.Fatal(err)
	}
	x, want := inputs(50), make([]float64, 50)
	if err := f.Run(x, 50, want); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			g, got := f.Clone(), make([]float64, 50)
			for range 20 {
				if err := g.Run(x, 50, got); err != nil {
					t.Error(err)
				}
				for i := range got {
					if got[i] != want[i] {
						t.Errorf("row %d is %v, want %v", i, got[i], want[i])
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestForwardAllocatesNothing(t *testing.T) {
	p, ts := artifact(16)
	f, err := NewForward(p, ts)
	if err != nil {
		t.Fatal(err)
	}
	x, out := inputs(50), make([]float64, 50)
	if n := testing.AllocsPerRun(50, func() {
		if f.Run(x, 50, out) != nil || f.Run(x[:5], 1, out[:1]) != nil {
			t.Error("failed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestStandardizeOnlyProgram(t *testing.T) {
	whole, ts := artifact(32)
	p := program.Program{Name: "prepare", Rows: 32, Buffers: append([]program.Buffer(nil), whole.Buffers[:5]...), Instrs: whole.Instrs[:1]}
	out := program.Buffer{Name: "u", Kind: program.Output, DType: program.F32, Shape: []int{32, 5}, PerRow: true}
	at := whole.Instrs[0].Outs[0]
	for len(p.Buffers) <= at {
		p.Buffers = append(p.Buffers, out)
	}
	p.Buffers = p.Buffers[:at+1]
	p.Buffers[at] = out
	f, err := NewForward(&p, ts)
	if err != nil {
		t.Fatal(err)
	}
	const rows = 100
	x, got, wide := inputs(rows), make([]float32, rows*5), make([]float64, rows*5)
	if err := f.RunF32(x, rows, got); err != nil {
		t.Fatal(err)
	}
	if err := f.Run(x, rows, wide); err != nil {
		t.Fatal(err)
	}
	mean, scale := ts.Find("mean").F64, ts.Find("scale").F64
	for i := range got {
		u := x[i]
		if i%5%2 == 1 {
			u = math.Log1p(u)
		}
		if want := float32((u - mean[i%5]) * scale[i%5]); got[i] != want || wide[i] != float64(want) {
			t.Fatalf("element %d is %v and %v, want %v", i, got[i], wide[i], want)
		}
	}
}

func TestForwardRefuses(t *testing.T) {
	p, ts := artifact(8)
	if _, err := NewForward(p, ts[1:]); err == nil || !strings.Contains(err.Error(), `tensor "ab" [2] is missing (weights of program "score")`) {
		t.Errorf("a missing weight: %v", err)
	}
	if _, err := NewForward(p, append(append(program.Tensors(nil), ts...), program.Tensor{Name: "other", DType: program.F32})); err != nil {
		t.Errorf("a weight of another program: %v", err)
	}
	f, err := NewForward(p, ts)
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"short input":   f.Run(make([]float64, 9), 2, make([]float64, 2)),
		"short output":  f.Run(make([]float64, 10), 2, make([]float64, 1)),
		"negative rows": f.Run(nil, -1, nil),
		"F64 output":    f.RunF32(make([]float64, 10), 2, make([]float32, 2)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	bad := *p
	bad.Arena = 0
	if _, err := NewForward(&bad, ts); err == nil {
		t.Error("a program without an arena was accepted")
	}
	t.Setenv("ONMART_CPU", "neon")
	if _, err := NewForward(p, ts); err == nil {
		t.Error("ONMART_CPU=neon was accepted")
	}
}

func BenchmarkForward(b *testing.B) {
	p, ts := artifact(256)
	f, err := NewForward(p, ts)
	if err != nil {
		b.Fatal(err)
	}
	for _, rows := range []int{1, 256} {
		x, out := inputs(rows), make([]float64, rows)
		b.Run(map[int]string{1: "row", 256: "batch"}[rows], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Run(x, rows, out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// TestForwardWithIndices: several inputs, two of them indices, in either element type and any tile; bad indices are
// named.
func TestForwardWithIndices(t *testing.T) {
	const rows, users, items, d = 50, 9, 7, 5
	r := rand.New(rand.NewPCG(4, 4))
	u, v := values(r, users, d), values(r, items, d)
	weights := program.Tensors{{Name: "items", DType: program.F32, Shape: v.shape, F32: v.f32}, {Name: "users", DType: program.F32, Shape: u.shape, F32: u.f32}}
	user, item, scale := indices(r, users, rows, 1), indices(r, items, rows, 3), values(r, rows, 1)
	want := make([]float32, rows)
	for i := range rows {
		x, y := make([]float32, d), make([]float32, d)
		lookupRows(portableKernels(), x, u.f32, user.f32[i:i+1], users, 1, d)
		lookupRows(portableKernels(), y, v.f32, item.f32[i*3:(i+1)*3], items, 3, d)
		var dot float32
		for c := range d {
			dot = fma32(x[c], y[c], dot)
		}
		want[i] = dot * scale.f32[i]
	}
	for _, k := range paths() {
		for _, tile := range []int{1, 7, 64} {
			b := &build{p: program.Program{Name: "score", Rows: tile}}
			in := func(name string, w int) int {
				return b.buffer(program.Buffer{Name: name, Kind: program.Input, DType: program.F32, Shape: []int{tile, w}, PerRow: true})
			}
			table := func(name string, n int) int {
				return b.buffer(program.Buffer{Name: name, Kind: program.Param, DType: program.F32, Shape: []int{n, d}})
			}
			x := b.do(program.Lookup, program.Attr{}, []int{table("users", users), in("user", 1)}, b.temp(true, tile, d))
			y := b.do(program.Lookup, program.Attr{}, []int{table("items", items), in("item", 3)}, b.temp(true, tile, d))
			s := b.do(program.RowDot, program.Attr{}, []int{x, y}, b.temp(true, tile, 1))
			out := b.buffer(program.Buffer{Name: "score", Kind: program.Output, DType: program.F32, Shape: []int{tile, 1}, PerRow: true})
			b.do(program.RowScale, program.Attr{}, []int{s, in("scale", 1)}, out)
			f, err := newForward(k, &b.p, weights)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Inputs(); len(got) != 3 || got[0] != (Input{"user", 1, users}) || got[1] != (Input{"item", 3, items}) || got[2] != (Input{"scale", 1, 0}) || f.Width() != 1 {
				t.Fatalf("inputs %+v", got)
			}
			got := make([]float32, rows)
			if err := f.RunAllF32([][]float32{user.f32, item.f32, scale.f32}, rows, got); err != nil {
				t.Fatal(err)
			}
			if err := same(got, want); err != nil {
				t.Fatalf("%s, tile %d: %v", k.name, tile, err)
			}
			wide := make([]float64, rows)
			if err := f.RunAll([][]float64{user.wide(), item.wide(), scale.wide()}, rows, wide); err != nil {
				t.Fatal(err)
			}
			for i, x := range wide {
				if x != float64(want[i]) {
					t.Fatalf("%s, tile %d: row %d is %v in float64, want %v", k.name, tile, i, x, want[i])
				}
			}
			for _, bad := range []float32{items, -2, 1.5, float32(math.NaN())} {
				wrong := append([]float32(nil), item.f32...)
				wrong[3*40+1] = bad
				err := f.RunAllF32([][]float32{user.f32, wrong, scale.f32}, rows, got)
				if err == nil || !strings.Contains(err.Error(), `input "item"`) || !strings.Contains(err.Error(), "no index of 7 rows") {
					t.Errorf("index %v: %v", bad, err)
				}
			}
			if err := f.RunAllF32([][]float32{user.f32, item.f32}, rows, got); err == nil || !strings.Contains(err.Error(), "2 inputs are given, it has 3") {
				t.Errorf("an input too few: %v", err)
			}
			if err := f.RunAllF32([][]float32{user.f32, item.f32[1:], scale.f32}, rows, got); err == nil || !strings.Contains(err.Error(), `"item" is 3 wide`) {
				t.Errorf("a short input: %v", err)
			}
			if err := f.Run(scale.wide(), rows, wide); err == nil || !strings.Contains(err.Error(), "use RunAll") {
				t.Errorf("Run of three inputs: %v", err)
			}
			in32 := [][]float32{user.f32, item.f32, scale.f32}
			if n := testing.AllocsPerRun(10, func() { _ = f.RunAllF32(in32, rows, got) }); n > 0 {
				t.Errorf("%v allocations a run", n)
			}
			one := [][]float32{nil, nil, nil}
			for i := range rows { // each row on its own
				one[0], one[1], one[2] = user.f32[i:i+1], item.f32[3*i:3*i+3], scale.f32[i:i+1]
				if err := f.RunAllF32(one, 1, got[i:i+1]); err != nil {
					t.Fatal(err)
				}
			}
			if err := same(got, want); err != nil {
				t.Fatalf("%s, tile %d, a row at a time: %v", k.name, tile, err)
			}
		}
	}
}

// TestForwardParallel: any number of threads gives the bits of one, for any number of rows, and an index that is none
// is found whoever has its row.
func TestForwardParallel(t *testing.T) {
	const rows = 1500
	x := inputs(rows)
	for _, k := range paths() {
		p, ts := artifact(64)
		f, err := newForward(k, p, ts)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]float64, rows)
		if err := f.Run(x, rows, want); err != nil {
			t.Fatal(err)
		}
		for _, threads := range []int{1, 2, 3, 8} {
			g := f.Parallel(threads)
			for _, n := range []int{1, 2, 9, 64, 65, 777, rows} {
				g.least = 1
				got := make([]float64, n)
				if err := g.Run(x[:n*5], n, got); err != nil {
					t.Fatal(err)
				}
				for i := range got {
					if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
						t.Fatalf("%s, %d threads, %d rows: row %d is %v, want %v", k.name, threads, n, i, got[i], want[i])
					}
				}
			}
			out := make([]float64, rows)
			if n := testing.AllocsPerRun(10, func() { _ = g.Run(x, rows, out) }); n >= 1 {
				t.Errorf("%s, %d threads: %v allocations", k.name, threads, n)
			}
			g.Close()
			if err := g.Run(x, rows, out); err == nil {
				t.Error("a closed Forward ran")
			}
			g.Close()
		}
	}
}

// BenchmarkForwardMLP is inference of 32-128-128-1 from float32: one row on one thread, and batches of 1024 on one and
// two.
func BenchmarkForwardMLP(b *testing.B) {
	set := mlp{widths: []int{32, 128, 128}, batch: 64, evalRows: 1024}.set()
	one, err := NewForward(set.Forward, set.Initial(1))
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ rows, threads int }{{1, 1}, {1024, 1}, {1024, 2}} {
		b.Run(fmt.Sprintf("rows=%d/threads=%d", c.rows, c.threads), func(b *testing.B) {
			f := one.Parallel(c.threads)
			defer f.Close()
			in, out := [][]float32{make([]float32, 32*c.rows)}, make([]float32, c.rows)
			for i := range in[0] {
				in[0][i] = float32(i%17) / 17
			}
			took := make([]time.Duration, 0, 1<<18)
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				if err := f.RunAllF32(in, c.rows, out); err != nil {
					b.Fatal(err)
				}
				if len(took) < cap(took) {
					took = append(took, time.Since(start))
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
			b.ReportMetric(float64(c.rows)/took[len(took)/2].Seconds(), "p50-rows/s")
			b.ReportMetric(float64(c.rows)/took[len(took)/10].Seconds(), "best-rows/s")
		})
	}
}
