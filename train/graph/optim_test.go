package graph

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
	"gorgonia.org/tensor"
)

// smooth is a network without kinks and without dropout, so that 100 steps in float32 and in float64 stay together.
func smooth(b *Builder) (Model, error) {
	h := b.Dense("l1", b.Input("x", 3), 5, program.Silu, "fan_in_uniform")
	z := b.Dense("out", h, 1, program.None, "fan_in_uniform")
	return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
}

// smoothTables has two tables, one of them read twice, once by several indices a row.
func smoothTables(b *Builder) (Model, error) {
	item := b.Table("item", items, 4, .3)
	h := b.Add(b.Lookup(b.Table("user", users, 4, .3), b.Input("idx_user", 1)), b.Lookup(item, b.Input("idx_before", 3)))
	z := b.Add(b.RowDot(h, b.Lookup(item, b.Input("idx_item", 1))), b.Dense("out", h, 1, program.None, "fan_in_uniform"))
	return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
}

// variant is an optimizer with what goes with it.
type variant struct {
	build         func(*Builder) (Model, error)
	optimizer     Optimizer
	clip, average float64
	rate          float64
}

var variants = map[string]variant{
	"sgd":                {smooth, SGD{Decay: .01}, 0, 0, .5},
	"momentum":           {smooth, SGD{Momentum: .9, Decay: .01}, 0, 0, .1},
	"nesterov":           {smooth, SGD{Momentum: .9, Nesterov: true, Decay: .01}, 0, 0, .1},
	"adam":               {smooth, Adam{.9, .999, 1e-8, .02}, 0, 0, .02},
	"adamw":              {smooth, AdamW{.9, .999, 1e-8, .1}, 0, 0, .02},
	"adagrad":            {smooth, Adagrad{1e-10, .01}, 0, 0, .1},
	"momentum, clipped":  {smooth, SGD{Momentum: .9}, .05, 0, .5},
	"adamw, all":         {smooth, AdamW{.9, .99, 1e-8, .1}, .1, .9, .02},
	"adagrad, averaged":  {smooth, Adagrad{1e-10, 0}, 0, .98, .1},
	"tables, adamw":      {smoothTables, AdamW{.9, .99, 1e-6, .1}, 0, 0, .02},
	"tables, adam":       {smoothTables, Adam{.9, .99, 1e-6, 0}, .05, 0, .02},
	"tables, sgd":        {smoothTables, SGD{Decay: .01}, .05, 0, .5},
	"tables, adagrad":    {smoothTables, Adagrad{1e-8, .1}, .05, .9, .1},
	"tables, adamw, all": {smoothTables, AdamW{.9, .99, 1e-6, .1}, .05, .9, .02},
}

func (v *variant) options(rows int) Options {
	return Options{Batch: rows, Rows: rows, Tile: 8, Optimizer: v.optimizer, ClipNorm: v.clip, Average: v.average}
}

// updated is an optimizer's step by its formula in float64, of one element; s is its state.
func updated(o Optimizer, p, g, lr float64, t int, decays bool, s []float64) float64 {
	decay := func(d float64) float64 {
		if decays {
			return d
		}
		return 0
	}
	adaptive := func(g, b1, b2, eps float64) float64 {
		s[0], s[1] = b1*s[0]+(1-b1)*g, b2*s[1]+(1-b2)*g*g
		mean, square := s[0]/(1-math.Pow(b1, float64(t))), s[1]/(1-math.Pow(b2, float64(t)))
		return mean / (math.Sqrt(square) + eps)
	}
	switch o := o.(type) {
	case SGD:
		g += decay(o.Decay) * p
		s[0] = o.Momentum*s[0] + g
		if o.Nesterov {
			return p - lr*(g+o.Momentum*s[0])
		}
		return p - lr*s[0]
	case Adam:
		return p - lr*adaptive(g+decay(o.Decay)*p, o.Beta1, o.Beta2, o.Eps)
	case AdamW:
		return p - lr*adaptive(g, o.Beta1, o.Beta2, o.Eps) - lr*decay(o.Decay)*p
	case Adagrad:
		g += decay(o.Decay) * p
		s[0] += g * g
		return p - lr*g/(math.Sqrt(s[0])+o.Eps)
	}
	panic("no such optimizer")
}

// opened is a variant on a backend, bound to rows of data for so many steps.
func opened(t *testing.T, v *variant, threads, rows, steps int) (*program.Set, program.Exec) {
	t.Helper()
	set, err := Compile(v.build, v.options(rows))
	if err != nil {
		t.Fatal(err)
	}
	backend, err := cpu.New(cpu.Options{Threads: threads, Always: true})
	if err != nil {
		t.Fatal(err)
	}
	exec, err := backend.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exec.Close() })
	bound := program.Data{Schedule: program.Schedule{Seed: 11, Train: program.Range{To: rows},
		Rates: slices.Repeat([]float32{float32(v.rate)}, steps)}}
	for c, x := range data(rows) {
		bound.Columns = append(bound.Columns, program.Column{Name: c, Rows: rows, Width: len(x) / rows, F32: narrow(x)})
	}
	if err := exec.Bind(bound); err != nil {
		t.Fatal(err)
	}
	return set, exec
}

// TestOptimizersAgainstFormulas trains 100 steps on the CPU backend and by TapeMachine's gradients and the formulas, in
// float64: weights and averages agree within 1e-4 of the largest of a tensor.
func TestOptimizersAgainstFormulas(t *testing.T) {
	const rows, steps = 32, 100
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			set, exec := opened(t, &v, 2, rows, steps)
			start := set.Initial(11)
			if err := exec.Import(start); err != nil {
				t.Fatal(err)
			}
			weights := map[string][]float64{}
			for i := range start {
				weights[start[i].Name] = widen(start[i].F32)
			}
			tp := newTape(t, v.build, rows, tensor.Float64, 11, weights)
			for c, x := range data(rows) {
				tp.values[c] = x
			}
			state, history, clipped := map[string][][]float64{}, map[string][][]float64{}, 0
			for step := range steps {
				_, grads := tp.pass(t, step)
				norm, factor := 0.0, 1.0
				for _, g := range grads {
					for _, x := range g {
						norm += x * x
					}
				}
				if norm = math.Sqrt(norm); v.clip > 0 && norm > v.clip {
					factor = v.clip / norm
					clipped++
				}
				for i, p := range tp.b.params {
					name, x := p.spec.Name, tp.values[p.spec.Name]
					var touched map[int]bool
					if p.table {
						touched = tp.read(t, p, tp.grads[i])
					}
					for len(state[name]) < len(x) {
						state[name] = append(state[name], make([]float64, 2))
					}
					if a, ok := v.optimizer.(Adagrad); ok && p.table { // one accumulator a row
						d := p.spec.Shape[1]
						for r := range touched {
							g, sum := grads[i][r*d:(r+1)*d], &state[name][r][0]
							for _, y := range g {
								*sum += factor * y * factor * y / float64(d)
							}
							for c, y := range g {
								x[r*d+c] -= v.rate * (factor*y/(math.Sqrt(*sum)+a.Eps) + a.Decay*x[r*d+c])
							}
						}
						history[name] = append(history[name], slices.Clone(x))
						continue
					}
					for k := range x {
						if p.table && !touched[k/p.spec.Shape[1]] {
							continue
						}
						x[k] = updated(v.optimizer, x[k], factor*grads[i][k], v.rate, step+1, len(p.spec.Shape) > 1, state[name][k])
					}
					history[name] = append(history[name], slices.Clone(x))
				}
			}
			if v.clip > 0 && clipped < steps/4 {
				t.Errorf("only %d steps were clipped", clipped)
			}
			if err := exec.Run(0, steps, make([]float64, 2)); err != nil {
				t.Fatal(err)
			}
			got, err := exec.Export()
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range tp.b.params {
				near(t, p.spec.Name, widen(got.Find(p.spec.Name).F32), tp.values[p.spec.Name], 1e-4)
				if v.average > 0 {
					near(t, "average of "+p.spec.Name, widen(got.Find(program.AverageName(p.spec.Name)).F32),
						averaged(history[p.spec.Name], v.average), 1e-4)
				}
			}
		})
	}
}

// averaged is the mean of the weights of all steps, each weighted by decay to the power of the steps since.
func averaged(history [][]float64, decay float64) []float64 {
	out, total := make([]float64, len(history[0])), 0.0
	for i, x := range history {
		w := math.Pow(decay, float64(len(history)-1-i))
		total += w
		for k := range out {
			out[k] += w * x[k]
		}
	}
	for k := range out {
		out[k] /= total
	}
	return out
}

// TestEvalReadsAverages: with an average the outputs are those of a model that has the averages for weights.
func TestEvalReadsAverages(t *testing.T) {
	const rows, steps = 32, 20
	for _, name := range []string{"adamw, all", "tables, adamw, all"} {
		v := variants[name]
		set, exec := opened(t, &v, 1, rows, steps)
		if err := exec.Import(set.Initial(3)); err != nil {
			t.Fatal(err)
		}
		if err := exec.Run(0, steps, make([]float64, 2)); err != nil {
			t.Fatal(err)
		}
		got, err := exec.Export()
		if err != nil {
			t.Fatal(err)
		}
		out := make([]float32, rows)
		if err := exec.Eval(program.Range{To: rows}, out); err != nil {
			t.Fatal(err)
		}
		plain := v
		plain.average, plain.clip = 0, 0
		other, twin := opened(t, &plain, 1, rows, steps)
		weights := set.Trained(got)
		for _, s := range other.Initial(0) {
			if weights.Find(s.Name) == nil {
				weights = append(weights, s)
				weights.Sort()
			}
		}
		if err := twin.Import(weights); err != nil {
			t.Fatal(err)
		}
		want := make([]float32, rows)
		if err := twin.Eval(program.Range{To: rows}, want); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(out, want) {
			t.Errorf("%s: outputs %v, of the averages %v", name, out[:4], want[:4])
		}
		// And so does what an artifact holds.
		if served, direct := set.Served().String(), other.Forward.String(); served != direct {
			t.Errorf("%s: served\n%swant\n%s", name, served, direct)
		}
	}
}

// TestOptimizersThreadsAndPaths: the same bits for 1, 2 and 8 threads and on the portable path, and after a resume.
func TestOptimizersThreadsAndPaths(t *testing.T) {
	const rows, steps = 32, 12
	for name, v := range variants {
		run := func(threads int, cuts ...int) program.Tensors {
			set, exec := opened(t, &v, threads, rows, steps)
			ts := set.Initial(11)
			from := 0
			for _, to := range append(cuts, steps) {
				if from > 0 {
					_, exec = opened(t, &v, threads, rows, steps)
				}
				if err := exec.Import(ts); err != nil {
					t.Fatal(err)
				}
				if err := exec.Run(from, to-from, make([]float64, 2)); err != nil {
					t.Fatal(err)
				}
				from = to
				var err error
				if ts, err = exec.Export(); err != nil {
					t.Fatal(err)
				}
			}
			return ts
		}
		want := run(1)
		check := func(what string, got program.Tensors) {
			t.Helper()
			for i := range want {
				if !slices.EqualFunc(got[i].F32, want[i].F32, func(a, b float32) bool {
					return math.Float32bits(a) == math.Float32bits(b)
				}) {
					t.Errorf("%s: %s: %s differs", name, what, want[i].Name)
				}
			}
		}
		check("2 threads", run(2))
		check("8 threads", run(8))
		check("resumed", run(2, 1, 7))
		t.Run("portable", func(t *testing.T) {
			t.Setenv("ONMART_CPU", "portable")
			check("portable", run(2))
		})
	}
}

// pinned are the weights that PyTorch came to: testdata/optim_torch.py writes them.
type pinned struct {
	Torch    string
	Steps    int
	Variants map[string]struct {
		Weights, Average map[string][]float64
	}
}

// torchRows are the rows of the script: numbers that both sides can make.
func torchRows(rows int) (x, y []float32) {
	for i := range rows {
		for j := range 3 {
			x = append(x, float32(math.Sin(1.3*float64(i)+2.1*float64(j)+.5)))
		}
		y = append(y, 0)
		if x[3*i]-.5*x[3*i+1] > .1 {
			y[i] = 1
		}
	}
	return x, y
}

// TestOptimizersAgainstPyTorch: after 100 steps the weights are those of torch.optim in float64, within 1e-4 of the
// largest of a tensor.
func TestOptimizersAgainstPyTorch(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "optim_torch.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want pinned
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	const rows = 40
	x, y := torchRows(rows)
	if len(want.Variants) < 8 {
		t.Fatalf("%d variants", len(want.Variants))
	}
	for name, w := range want.Variants {
		v, ok := variants[name]
		if !ok {
			t.Errorf("the script has a variant %q, which there is not here", name)
			continue
		}
		set, exec := opened(t, &v, 1, rows, want.Steps)
		data := program.Data{Schedule: program.Schedule{Train: program.Range{To: rows},
			Rates: slices.Repeat([]float32{float32(v.rate)}, want.Steps)}}
		data.Columns = []program.Column{{Name: "x", Rows: rows, Width: 3, F32: x}, {Name: "y", Rows: rows, Width: 1, F32: y}}
		if err := exec.Bind(data); err != nil {
			t.Fatal(err)
		}
		start := set.Initial(0)
		for k, param := range []string{"l1.weight", "l1.bias", "out.weight", "out.bias"} {
			p := start.Find(param)
			for i := range p.F32 {
				p.F32[i] = float32(.6 * math.Sin(1.7*float64(i)+float64(k)))
			}
		}
		if err := exec.Import(start); err != nil {
			t.Fatal(err)
		}
		if err := exec.Run(0, want.Steps, make([]float64, 2)); err != nil {
			t.Fatal(err)
		}
		got, err := exec.Export()
		if err != nil {
			t.Fatal(err)
		}
		for param, values := range w.Weights {
			near(t, fmt.Sprintf("%s, %s: %s", want.Torch, name, param), widen(got.Find(param).F32), values, 1e-4)
		}
		for param, values := range w.Average {
			near(t, fmt.Sprintf("%s, %s: average of %s", want.Torch, name, param),
				widen(got.Find(program.AverageName(param)).F32), values, 1e-4)
		}
	}
}

func TestOptimizerFaults(t *testing.T) {
	for _, c := range []struct {
		build func(*Builder) (Model, error)
		opts  Options
		want  []string
	}{
		{mlp, Options{}, []string{"Optimizer is missing; take SGD, Adam, AdamW or Adagrad"}},
		{mlp, Options{Optimizer: SGD{Momentum: 1, Decay: -1}, ClipNorm: -1, Average: 1},
			[]string{"SGD: Momentum is 1", "SGD: Decay is -1", "ClipNorm is -1", "Average is 1"}},
		{mlp, Options{Optimizer: SGD{Nesterov: true}}, []string{"Nesterov needs a Momentum"}},
		{mlp, Options{Optimizer: Adam{Beta1: 1, Eps: math.Inf(1), Decay: math.NaN()}, ClipNorm: math.NaN()},
			[]string{"betas 1 and 0", "Eps is +Inf", "Decay is NaN", "ClipNorm is NaN"}},
		{mlp, Options{Optimizer: Adagrad{}}, []string{"Adagrad: Eps is 0"}},
		{smoothTables, Options{Optimizer: SGD{Momentum: .9}},
			[]string{"table item: SGD with momentum has no update of the rows that a step reads; take a momentum of 0, Adagrad"}},
		{smoothTables, Options{Optimizer: Adam{.9, .99, 1e-8, .1}},
			[]string{"table item: Adam's decay 0.1", "take AdamW, or no decay"}},
	} {
		c.opts.Batch, c.opts.Rows, c.opts.Tile = 16, 40, 4
		_, err := Compile(c.build, c.opts)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
}
