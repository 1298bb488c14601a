package train_test

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
)

// fall runs a task that diverges on one thread and on two, and returns what both say.
func fall(t *testing.T, make func() *train.Task) *train.Diverged {
	t.Helper()
	var first *train.Diverged
	for _, threads := range []int{1, 2} {
		b, err := cpu.New(cpu.Options{Threads: threads, Always: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = make().Run(context.Background(), b)
		var d *train.Diverged
		if !errors.As(err, &d) || d.Where == nil {
			t.Fatalf("%d threads: %v", threads, err)
		}
		if first == nil {
			first = d
		} else if err.Error() != first.Error() {
			t.Errorf("one thread says\n%v\ntwo say\n%v", first, err)
		}
	}
	t.Log(first)
	return first
}

// A weight is Inf before the first step: it is named with its place, and what first takes it up.
func TestDivergedByAWeight(t *testing.T) {
	d := fall(t, func() *train.Task {
		tk := task(t, 2, .01)
		tk.Init.Find("hidden.weight").F32[16+3] = float32(math.Inf(1))
		return tk
	})
	if w := d.Where; w.Held != "hidden.weight" || w.Row != 1 || w.Column != 3 || w.Step != 0 || w.Op != program.MatMul ||
		!strings.Contains(d.Error(), "weights that the training starts from") {
		t.Errorf("%+v: %v", w, d)
	}
}

// NaN in a column is found in the row of the data that holds it, in whatever step that row is drawn.
func TestDivergedByAColumn(t *testing.T) {
	const row = 123
	d := fall(t, func() *train.Task {
		tk := task(t, 2, .01)
		tk.Data.Columns[0].F32[2*row+1] = float32(math.NaN())
		return tk
	})
	order := program.NewPermutation(5, 0, fitRows)
	step := 0
	for order.At(step*batch) != row && step < fitRows {
		at := step * batch
		found := false
		for i := at; i < min(at+batch, fitRows); i++ {
			found = found || order.At(i) == row
		}
		if found {
			break
		}
		step++
	}
	if w := d.Where; w.Source != "x" || w.DataRow != row || w.Column != 1 || w.Step != step {
		t.Errorf("%+v, want row %d in step %d: %v", w, row, step, d)
	}
}

// A learning rate that is too great: the instruction has finite operands and a result that is not, and the place is the same
// whatever state the search began with.
func TestDivergedByTheLearningRate(t *testing.T) {
	steep := func() *train.Task {
		tk := task(t, 60, 2)
		for i := range tk.Data.Rates {
			if i >= 25 { // in the third epoch
				tk.Data.Rates[i] = 1e25
			}
		}
		tk.Judge = func([]float32) float64 { return .5 }
		return tk
	}
	d := fall(t, steep)
	w := d.Where
	if w.Held != "" || w.Source != "" || w.Node == "" || len(w.Operands) == 0 || w.Step < 25 || d.Epoch != w.Step/10+1 || d.Rate != 1e25 {
		t.Errorf("%+v: %v", w, d)
	}
	for _, o := range w.Operands {
		if math.IsInf(o.Least-o.Least+o.Utmost-o.Utmost, 0) || math.IsNaN(o.Least+o.Utmost) || o.Least > o.Utmost {
			t.Errorf("operand %+v", o)
		}
	}
	kept := fall(t, func() *train.Task {
		tk := steep()
		tk.Checkpoint = filepath.Join(t.TempDir(), "c")
		return tk
	})
	if kept.Error() != d.Error() {
		t.Errorf("from a checkpoint\n%v\nfrom the first weights\n%v", kept, d)
	}
	budget := fall(t, func() *train.Task {
		tk := steep()
		tk.Budget = &train.Budget{Total: 1 << 60, Start: time.Now()}
		return tk
	})
	if budget.Error() != d.Error() {
		t.Errorf("from memory\n%v\nfrom the first weights\n%v", budget, d)
	}
}

// An exp of Gorgonia's own overflows on one row, and the Inf is carried to the loss; another exp overflows on every row, is
// divided by and does no harm: it is not the one that is reported.
func TestDivergedByAnExponential(t *testing.T) {
	const row = 77
	d := fall(t, func() *train.Task {
		set, err := graph.Compile(func(b *graph.Builder) (graph.Model, error) {
			x := b.Input("x", 2)
			harmless, err := gorgonia.Exp(b.Scale(x, 1e6))
			if err != nil {
				return graph.Model{}, err
			}
			sums, err := gorgonia.Sum(harmless, 1)
			if err != nil {
				return graph.Model{}, err
			}
			none, err := gorgonia.Inverse(sums)
			if err != nil {
				return graph.Model{}, err
			}
			nothing, err := gorgonia.Sum(none)
			if err != nil {
				return graph.Model{}, err
			}
			e, err := gorgonia.Exp(x)
			if err != nil {
				return graph.Model{}, err
			}
			z := b.Dense("out", e, 1, program.None, "glorot_uniform")
			loss, err := gorgonia.Add(b.BCEWithLogits(z, b.Input("y", 1), nil), nothing)
			return graph.Model{Loss: loss, Output: z}, err
		}, graph.Options{Batch: batch, Rows: fitRows, Tile: 64, Optimizer: graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8}})
		if err != nil {
			t.Fatal(err)
		}
		tk := task(t, 2, .01)
		tk.Set, tk.Init = set, set.Initial(5)
		x := tk.Data.Columns[0].F32
		for i := range x {
			x[i] = float32(math.Abs(float64(x[i]))) + .1
		}
		x[2*row] = 100
		return tk
	})
	w := d.Where
	if w.Op != program.Map || w.Expr != "x0 exp" || w.DataRow != row || w.Column != 0 || w.Held != "" || len(w.Operands) != 1 || w.Operands[0].Utmost != 100 {
		t.Errorf("%+v: %v", w, d)
	}
}

// The weights leave the numbers in the last step of an epoch, whose loss was still finite: they are not judged and not kept.
func TestDivergedInTheLastStepOfAnEpoch(t *testing.T) {
	d := fall(t, func() *train.Task {
		tk := task(t, 2, .001)
		tk.Data.Rates[9] = math.MaxFloat32
		for _, p := range []*program.Program{tk.Set.Train, tk.Set.Rest} {
			for i := range p.Instrs {
				if p.Instrs[i].Op == program.AdamW {
					p.Instrs[i].Attr.Decay = 20
				}
			}
		}
		tk.Judge = func([]float32) float64 { t.Error("weights without numbers are judged"); return 0 }
		return tk
	})
	if w := d.Where; w.Step != 9 || w.Op != program.AdamW || d.Epoch != 1 {
		t.Errorf("%+v: %v", w, d)
	}
}
