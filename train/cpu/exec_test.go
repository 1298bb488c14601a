package cpu

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// trained runs steps first .. first+n-1 and returns the tensors and slots.
func trained(t *testing.T, e *exec, first, n int) (program.Tensors, []float64) {
	t.Helper()
	slots := make([]float64, len(e.slots))
	if err := e.Run(first, n, slots); err != nil {
		t.Fatal(err)
	}
	ts, err := e.Export()
	if err != nil {
		t.Fatal(err)
	}
	return ts, slots
}

func sameTensors(a, b program.Tensors) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d and %d tensors", len(a), len(b))
	}
	for i := range a {
		if a[i].Name != b[i].Name {
			return fmt.Errorf("tensor %q and %q", a[i].Name, b[i].Name)
		}
		if a[i].DType != b[i].DType || !slices.Equal(a[i].Shape, b[i].Shape) {
			return fmt.Errorf("tensor %q: %v %v and %v %v", a[i].Name, a[i].DType, a[i].Shape, b[i].DType, b[i].Shape)
		}
		if err := same(a[i].F32, b[i].F32); err != nil {
			return fmt.Errorf("tensor %q: %v", a[i].Name, err)
		}
		for j := range a[i].F64 {
			if x, y := a[i].F64[j], b[i].F64[j]; math.Float64bits(x) != math.Float64bits(y) {
				return fmt.Errorf("tensor %q: element %d is %v and %v", a[i].Name, j, x, y)
			}
		}
	}
	return nil
}

// manyThreads makes every batch worth all threads, so that small tests divide their work.
func manyThreads(e *exec) *exec {
	e.always = true
	return e
}

// TestTheSameBitsEverywhere trains one model on every path with 1, 2 and 8 threads, over odd sizes, with dropout
// and with all the instructions that move columns: weights, state and losses are the same to the last bit.
func TestTheSameBitsEverywhere(t *testing.T) {
	for _, c := range []mlp{
		{widths: []int{5, 33, 16}, batch: 64, rest: 37, evalRows: 10, dropout: 0.25, detour: true},
		{widths: []int{3, 17}, batch: 257, rest: 1, evalRows: 7},
		{widths: []int{19, 7, 5, 3}, batch: 3, rest: 2, evalRows: 300, dropout: 0.5},
		{widths: []int{5, 33, 16}, batch: 64, rest: 37, evalRows: 10, dropout: 0.25, silu: true},
	} {
		const steps = 7
		s := c.set()
		rows := 2*c.batch + c.rest
		var want program.Tensors
		var wantSlots []float64
		for _, k := range paths() {
			for _, threads := range []int{1, 2, 8} {
				e := manyThreads(compile(t, k, threads, s, planted(rows, c.widths[0], steps, 0.01)))
				ts, slots := trained(t, e, 0, steps)
				if want == nil {
					want, wantSlots = ts, slots
					if err := sameTensors(want, s.Initial(42)); err == nil {
						t.Fatal("nothing was trained")
					}
				}
				if err := sameTensors(ts, want); err != nil {
					t.Errorf("widths %v, %s, %d threads: %v", c.widths, k.name, threads, err)
				}
				for i := range slots {
					if slots[i] != wantSlots[i] {
						t.Errorf("widths %v, %s, %d threads: slot %d is %v, want %v", c.widths, k.name, threads, i, slots[i], wantSlots[i])
					}
				}
			}
		}
	}
}

func TestResumeIsExact(t *testing.T) {
	c := mlp{widths: []int{4, 20}, batch: 32, rest: 9, evalRows: 8, dropout: 0.3}
	s, d := c.set(), planted(3*32+9, 4, 10, 0.02) // 4 steps an epoch: the cut falls on its end and within one
	for cut := 1; cut < 10; cut++ {
		k, _ := chooseKernels("")
		want, wantSlots := trained(t, compile(t, k, 2, s, d), 0, 10)
		half, slots := trained(t, compile(t, k, 2, s, d), 0, cut)
		e := compile(t, k, 1, s, d)
		if err := e.Import(half); err != nil {
			t.Fatal(err)
		}
		if err := e.Run(cut, 10-cut, slots); err != nil {
			t.Fatal(err)
		}
		got, _ := e.Export()
		if err := sameTensors(got, want); err != nil {
			t.Errorf("cut at %d: %v", cut, err)
		}
		if math.Abs(slots[0]-wantSlots[0]) > 1e-9*wantSlots[0] || slots[1] != wantSlots[1] {
			t.Errorf("cut at %d: slots %v, want %v", cut, slots, wantSlots)
		}
	}
}

// TestAStepByHand checks one whole optimizer step, shuffle and rest of the epoch included, against float64
// arithmetic that shares nothing with the machine: logistic regression, whose gradient is written down.
func TestAStepByHand(t *testing.T) {
	const batch, rest, width = 8, 5, 3
	s := mlp{widths: []int{width}, batch: batch, rest: rest, evalRows: 4}.set()
	d := planted(batch+rest+4, width, 4, 0.05)
	d.Train = program.Range{From: 3, To: 3 + batch + rest}
	for i := range d.Columns[2].F32 {
		d.Columns[2].F32[i] = float32(1 + i%3)
	}
	k, _ := chooseKernels("")
	e := compile(t, k, 1, s, d)
	w0 := s.Initial(d.Seed).Find("w0").F32
	p := []float64{float64(w0[0]), float64(w0[1]), float64(w0[2]), 0} // the last is the bias
	m, v := make([]float64, 4), make([]float64, 4)
	losses := 0.0
	for step := range 4 {
		order := program.NewPermutation(d.Seed, uint32(step/2), batch+rest)
		rows, first := batch, 0
		if step%2 == 1 {
			rows, first = rest, batch
		}
		g := make([]float64, 4)
		for i := range rows {
			at := 3 + order.At(first+i)
			x := []float64{float64(d.Columns[0].F32[at*3]), float64(d.Columns[0].F32[at*3+1]), float64(d.Columns[0].F32[at*3+2]), 1}
			z := 0.0
			for j := range x {
				z += x[j] * p[j]
			}
			target, weight := float64(d.Columns[1].F32[at]), float64(d.Columns[2].F32[at])
			q := 1 / (1 + math.Exp(-z))
			losses -= weight * (target*math.Log(q) + (1-target)*math.Log(1-q))
			for j := range x {
				g[j] += weight * (q - target) * x[j] / float64(rows)
			}
		}
		for j := range p {
			m[j] = 0.9*m[j] + 0.1*g[j]
			v[j] = 0.999*v[j] + 0.001*g[j]*g[j]
			n := float64(step + 1)
			p[j] -= 0.05 * (m[j]/(1-math.Pow(0.9, n))/(math.Sqrt(v[j]/(1-math.Pow(0.999, n)))+1e-8) + 1e-4*p[j])
		}
	}
	ts, slots := trained(t, e, 0, 4)
	got := append(append([]float32(nil), ts.Find("w0").F32...), ts.Find("b0").F32...)
	for j := range p {
		if !(math.Abs(float64(got[j])-p[j]) <= 1e-5) {
			t.Errorf("parameter %d is %v, want %v", j, got[j], p[j])
		}
	}
	if !(math.Abs(slots[0]-losses) <= 1e-5*losses) {
		t.Errorf("loss %v, want %v", slots[0], losses)
	}
}

func TestEvalOverAnyRangeAndTile(t *testing.T) {
	const rows = 600
	d := planted(rows, 6, 4, 0.01)
	var want []float32
	for _, k := range paths() {
		for _, tile := range []int{1, 7, 64, 599, 1024} {
			for _, threads := range []int{1, 8} {
				e := manyThreads(compile(t, k, threads, mlp{widths: []int{6, 40, 24}, batch: 100, evalRows: tile}.set(), d))
				got := make([]float32, rows)
				if err := e.Eval(program.Range{From: 0, To: rows}, got); err != nil {
					t.Fatal(err)
				}
				if want == nil {
					want = got
				}
				if err := same(got, want); err != nil {
					t.Errorf("%s, tiles of %d, %d threads: %v", k.name, tile, threads, err)
				}
				part := make([]float32, 101)
				if err := e.Eval(program.Range{From: 33, To: 134}, part); err != nil {
					t.Fatal(err)
				}
				if err := same(part, want[33:134]); err != nil {
					t.Errorf("%s, tiles of %d, %d threads, rows 33..134: %v", k.name, tile, threads, err)
				}
			}
		}
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	s := mlp{widths: []int{8, 32}, batch: 64, rest: 16, evalRows: 32, dropout: 0.1}.set()
	for _, k := range paths() {
		e := manyThreads(compile(t, k, 2, s, planted(80, 8, 1000, 0.001)))
		slots, out, at := make([]float64, 2), make([]float32, 80), 0
		if n := testing.AllocsPerRun(20, func() {
			if e.Run(at, 4, slots) != nil || e.Eval(program.Range{From: 0, To: 80}, out) != nil {
				t.Error("failed")
			}
			at += 4
		}); n >= 1 {
			t.Errorf("%s: %v allocations in four steps and an evaluation", k.name, n)
		}
	}
}

func TestDivergenceNamesTheStep(t *testing.T) {
	s := mlp{widths: []int{2, 8}, batch: 10, evalRows: 10}.set()
	d := planted(50, 2, 10, 0.01)
	order := program.NewPermutation(d.Seed, 1, 50)
	for _, threads := range []int{1, 4} {
		e := manyThreads(compile(t, portableKernels(), threads, s, d))
		bad := order.At(23) // in the third batch of the second epoch, and of the first somewhere
		first := 0
		for program.NewPermutation(d.Seed, 0, 50).At(first) != bad {
			first++
		}
		if err := e.Run(0, 5, make([]float64, 2)); err != nil {
			t.Fatal(err)
		}
		keep := d.Columns[0].F32[bad*2]
		d.Columns[0].F32[bad*2] = float32(math.NaN())
		err := e.Run(5, 5, make([]float64, 2))
		d.Columns[0].F32[bad*2] = keep
		if err == nil || !strings.Contains(err.Error(), `step 7: slot "loss" became NaN`) {
			t.Errorf("%d threads: %v", threads, err)
		}
	}
}

func TestImportSaysWhatIsWrong(t *testing.T) {
	s := mlp{widths: []int{2, 8}, batch: 10, evalRows: 10}.set()
	good := s.Initial(1)
	e := compile(t, portableKernels(), 1, s, planted(50, 2, 10, 0.01))
	if err := e.Import(good); err != nil {
		t.Fatal(err)
	}
	before, _ := e.Export()
	for _, c := range []struct {
		change func(ts program.Tensors) program.Tensors
		want   string
	}{
		{func(ts program.Tensors) program.Tensors { return ts[1:] }, `cpu: tensor "b0" [8] is missing`},
		{func(ts program.Tensors) program.Tensors {
			return append(ts, program.Tensor{Name: "zz", DType: program.F32})
		}, `cpu: tensor "zz" is not part of the set`},
		{func(ts program.Tensors) program.Tensors { return append(ts, ts[0]) }, `cpu: tensor "b0" is given twice`},
		{func(ts program.Tensors) program.Tensors { ts[0].Shape = []int{4, 2}; return ts }, `cpu: tensor "b0" is F32 [4 2], want F32 [8]`},
		{func(ts program.Tensors) program.Tensors { ts[0].DType = program.F64; return ts }, `cpu: tensor "b0" is F64 [8], want F32 [8]`},
		{func(ts program.Tensors) program.Tensors { ts[0].F32 = ts[0].F32[:7]; return ts }, `cpu: tensor "b0" has 7 F32 and 0 F64 elements for F32 [8]`},
	} {
		if err := e.Import(c.change(s.Initial(2))); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	after, _ := e.Export()
	if err := sameTensors(before, after); err != nil {
		t.Errorf("a refused import changed something: %v", err)
	}
}

func TestBindSaysWhatIsWrong(t *testing.T) {
	s := mlp{widths: []int{2, 8}, batch: 10, rest: 5, evalRows: 10}.set()
	for _, c := range []struct {
		change func(d *program.Data)
		want   string
	}{
		{func(d *program.Data) { d.Columns = d.Columns[:2] }, `column "w" is missing; instruction 2 of train gathers it`},
		{func(d *program.Data) { d.Columns[0].Width, d.Columns[0].F32 = 3, make([]float32, 165) }, `column "x" is 3 wide; instruction 0 of train wants 2`},
		{func(d *program.Data) { d.Columns[1].Rows = 54 }, `column "t" has 54 rows, "x" has 55`},
		{func(d *program.Data) { d.Columns[1].F32 = d.Columns[1].F32[1:] }, `column "t" has 54 elements for 55 rows of 1`},
		{func(d *program.Data) { d.Columns = append(d.Columns, d.Columns[0]) }, `column "x" is given twice`},
		{func(d *program.Data) { d.Train.To = 56 }, `training rows 0..56 of 55`},
		{func(d *program.Data) { d.Train.To = 54 }, `54 training rows leave 4 after batches of 10, and the rest program has 5 rows`},
		{func(d *program.Data) { d.Rates[3] = float32(math.NaN()) }, `the learning rate of step 3 is NaN`},
	} {
		d := planted(55, 2, 10, 0.01)
		c.change(&d)
		e := newExec(&Backend{threads: 1, kernels: portableKernels()}, s)
		if err := e.Bind(d); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
		if err := e.Run(0, 1, make([]float64, 2)); err == nil {
			t.Error("ran on data that were refused")
		}
		e.Close()
	}
}

func TestRunAndEvalRefuse(t *testing.T) {
	s := mlp{widths: []int{2, 8}, batch: 10, evalRows: 10}.set()
	e := compile(t, portableKernels(), 2, s, planted(50, 2, 10, 0.01))
	two := make([]float64, 2)
	for what, err := range map[string]error{
		"step 10 of 10":     e.Run(10, 1, two),
		"11 steps":          e.Run(0, 11, two),
		"a negative step":   e.Run(-1, 1, two),
		"overflowing steps": e.Run(1, math.MaxInt, two),
		"one slot":          e.Run(0, 1, two[:1]),
		"rows past the end": e.Eval(program.Range{From: 45, To: 51}, make([]float32, 6)),
		"a short output":    e.Eval(program.Range{From: 0, To: 10}, make([]float32, 9)),
	} {
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if err := e.Run(10, 0, two); err != nil {
		t.Errorf("no steps: %v", err)
	}
	for range 2 {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if e.Run(0, 1, two) == nil || e.Eval(program.Range{}, nil) == nil || e.Bind(program.Data{}) == nil || e.Import(nil) == nil {
		t.Error("a closed Exec still works")
	}
}

func TestCompileRefusesAFaultySet(t *testing.T) {
	s := mlp{widths: []int{2, 8}, batch: 10, evalRows: 10}.set()
	s.Train.Instrs[3].Args[1] = 99
	b, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Compile(s); err == nil || !strings.Contains(err.Error(), "argument 99") {
		t.Errorf("got %v", err)
	}
}

// TestPool runs many short jobs with barriers between unsynchronised writes; it means most under -race.
func TestPool(t *testing.T) {
	for _, threads := range []int{1, 2, 8} {
		p := newPool(portableKernels(), threads, 0)
		for active := 1; active <= threads; active++ {
			cells := make([]int, active)
			for range 50 {
				p.run(active, func(w *worker) {
					for round := range 20 {
						cells[w.id]++
						w.wait()
						if got := cells[(w.id+1)%active]; got%20 != (round+1)%20 {
							t.Errorf("worker %d of %d sees %d in round %d", w.id, active, got, round)
						}
						w.wait()
					}
				})
			}
			for id, n := range cells {
				if n != 1000 {
					t.Errorf("worker %d of %d counted to %d", id, active, n)
				}
			}
		}
		p.close()
	}
}

// TestOneRowOfWeights: a parameter of one row, wider than a panel, gets all of its gradient on any number of threads.
func TestOneRowOfWeights(t *testing.T) {
	const rows, steps = 256, 6
	for _, k := range paths() {
		for _, width := range []int{16, 17, 33, 64, 100} {
			c := mlp{widths: []int{1, width}, batch: 64, evalRows: 8}
			s, d := c.set(), planted(rows, 2, steps, 1e-2)
			d.Columns[0].Width, d.Columns[0].F32 = 1, d.Columns[0].F32[:rows]
			var want [][]float32
			for _, threads := range []int{1, 2, 3, 8} {
				e := compile(t, k, threads, s, d)
				e.always = true
				if err := e.Run(0, steps, make([]float64, 2)); err != nil {
					t.Fatal(err)
				}
				ts, err := e.Export()
				if err != nil {
					t.Fatal(err)
				}
				for i, x := range ts {
					if threads == 1 {
						want = append(want, x.F32)
					} else if err := same(x.F32, want[i]); err != nil {
						t.Errorf("%s, 1-%d-1 on %d threads: %s: %v", k.name, width, threads, x.Name, err)
					}
				}
			}
		}
	}
}
