package graph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// tape trains a model with Gorgonia's TapeMachine: forward and backward pass by the machine, AdamW by
// the formula.
type tape struct {
	b      *Builder
	m      Model
	grads  []*Node
	values map[string][]float64
	state  map[string][]float64
}

func newTape(t *testing.T, build func(*Builder) (Model, error), rows int, dtype tensor.Dtype, seed uint64, weights map[string][]float64) *tape {
	t.Helper()
	b := newBuilder(rows, true, dtype)
	b.clock.seed = seed
	m, err := b.run(build)
	if err != nil {
		t.Fatal(err)
	}
	grads, err := b.gradients(m.Loss)
	if err != nil {
		t.Fatal(err)
	}
	tp := &tape{b: b, m: m, grads: grads, values: map[string][]float64{}, state: map[string][]float64{}}
	for _, c := range b.consts {
		tp.values[c.spec.Name] = weights[c.spec.Name]
	}
	for _, p := range b.params {
		tp.values[p.spec.Name] = slices.Clone(weights[p.spec.Name])
		mom, vel := momentNames(p.spec.Name)
		tp.state[mom] = make([]float64, len(weights[p.spec.Name]))
		tp.state[vel] = make([]float64, len(weights[p.spec.Name]))
	}
	return tp
}

// momentNames are AdamW's state of a parameter.
func momentNames(param string) (m, v string) { return param + meanSuffix, param + squareSuffix }

// pass runs the machine once and returns the loss and the gradients.
func (tp *tape) pass(t *testing.T, step int) (float64, [][]float64) {
	t.Helper()
	tp.b.clock.step = uint32(step)
	for name, n := range tp.b.names {
		x := tp.values[name]
		var v gorgonia.Value
		if tp.b.dtype == tensor.Float64 {
			v = tensor.New(tensor.WithShape(n.Shape()...), tensor.WithBacking(slices.Clone(x)))
		} else {
			v = tensor.New(tensor.WithShape(n.Shape()...), tensor.WithBacking(narrow(x)))
		}
		if err := gorgonia.Let(n, v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	machine := gorgonia.NewTapeMachine(tp.b.g, gorgonia.TraceExec())
	defer machine.Close()
	if err := machine.RunAll(); err != nil {
		t.Fatal(err)
	}
	var grads [][]float64
	for _, g := range tp.grads {
		grads = append(grads, slices.Clone(numbers(g.Value())))
	}
	return numbers(tp.m.Loss.Value())[0], grads
}

// step is a whole optimizer step.
func (tp *tape) step(t *testing.T, step int, rate float64) float64 {
	loss, grads := tp.pass(t, step)
	for i, p := range tp.b.params {
		attr := program.Attr{Beta1: adam.Beta1, Beta2: adam.Beta2, Eps: adam.Eps}
		if len(p.spec.Shape) == 2 {
			attr.Decay = adam.Decay
		}
		mom, vel := momentNames(p.spec.Name)
		d := len(grads[i])
		rows := map[int]bool{0: true}
		if p.table { // the rows that were read, one by one
			d, rows = p.spec.Shape[1], tp.read(t, p, tp.grads[i])
		}
		for r := range rows {
			lo, hi := r*d, (r+1)*d
			adamw(attr, rate, step+1, grads[i][lo:hi], tp.values[p.spec.Name][lo:hi], tp.state[mom][lo:hi], tp.state[vel][lo:hi])
		}
	}
	return loss
}

// read are the rows of a table that the machine's last pass has read.
func (tp *tape) read(t *testing.T, p *param, grad *Node) map[int]bool {
	t.Helper()
	args, err := p.gradient(grad)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[int]bool{}
	uses := p.uses
	if uses == "" {
		uses = strings.Repeat("l", len(args)/2)
	}
	for _, letter := range uses {
		for _, x := range numbers(args[0].Value()) {
			if x >= 0 {
				rows[int(x)] = true
			}
		}
		if args = args[2:]; letter == 's' {
			args = args[1:]
		}
	}
	return rows
}

// towers is k towers of equal shapes, their losses added and their logits averaged.
func towers(k int) func(b *Builder) (Model, error) {
	return func(b *Builder) (Model, error) {
		x, y, w := b.Input("x", 3), b.Input("y", 1), b.Input("w", 1)
		var losses, logits []*Node
		for i := range k {
			path := fmt.Sprintf("tower%d/", i)
			h := b.Dropout(b.Dense(path+"l1", x, 8, program.Relu, "he_uniform"), .25)
			h = b.Dropout(b.Dense(path+"l2", h, 8, program.Relu, "he_uniform"), .25)
			z := b.Dense(path+"out", h, 1, program.None, "glorot_uniform")
			losses, logits = append(losses, b.BCEWithLogits(z, y, w)), append(logits, z)
		}
		loss := b.Add(losses...)
		return Model{Loss: loss, Output: b.Mean(logits...), Metrics: map[string]*Node{"tower0": losses[0]}}, nil
	}
}

// siluMLP is the network of the fraud task in small: silu and dropout on each hidden layer, PyTorch's
// initial weights.
func siluMLP(b *Builder) (Model, error) {
	h := b.Input("x", 3)
	h = b.Dropout(b.Dense("l1", h, 8, program.Silu, "fan_in_uniform"), .25)
	h = b.Dropout(b.Dense("l2", h, 4, program.Silu, "fan_in_uniform"), .25)
	z := b.Dense("out", h, 1, program.None, "fan_in_uniform")
	return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), b.Input("w", 1)), Output: z}, nil
}

// everything uses each layer at least once, and reads nodes many times.
func everything(b *Builder) (Model, error) {
	x, y := b.Input("x", 3), b.Input("y", 1)
	p := b.Param("shared", "he_uniform", 6, 6)
	h := b.Dense("l1", x, 6, program.Relu, "he_uniform")
	wide := b.Concat(h, x, b.MatMul(h, p), b.Slice(h, 1, 3))
	left, right := b.Slice(wide, 0, 6), b.Slice(wide, 5, 11)
	sum := b.Add(left, b.Dropout(right, .1), b.Scale(b.MatMul(left, p), .5), left)
	z := b.Dense("out", b.Mean(sum, b.Dense("l2", sum, 6, program.Relu, "he_uniform"), b.Dense("l3", left, 6, program.Silu, "fan_in_uniform")), 1, program.None, "glorot_uniform")
	extra := b.BCEWithLogits(b.Scale(z, .5), y, nil)
	return Model{Loss: b.Add(b.BCEWithLogits(z, y, b.Input("w", 1)), b.Scale(extra, .3)), Output: z,
		Metrics: map[string]*Node{"extra": extra}}, nil
}

const users, items = 9, 7

// twoTowers reads the table of items for what was bought before, for what was bought, and for what was drawn.
func twoTowers(b *Builder) (Model, error) {
	w, pi := b.Input("w", 1), b.Input("idx_item", 1)
	cdf, logq := b.Const("cdf", items), b.Const("logq", items)
	u, v := b.Table("users", users, 4, .5), b.Table("items", items, 4, .5)
	q := b.Add(b.Lookup(u, b.Input("idx_user", 1)), b.Dense("mix", b.Lookup(v, b.Input("idx_before", 3)), 4, program.Silu, "fan_in_uniform"))
	q = b.Dropout(q, .1)
	ni := b.Sample(cdf, 5)
	pos := b.RowDot(q, b.Lookup(v, pi))
	neg := b.MatMulT(q, b.Lookup(v, ni))
	bpr := b.BPR(pos, b.RowDot(q, b.Lookup(v, b.Input("idx_other", 1))), nil)
	loss := b.SampledSoftmax(b.Scale(pos, 2), b.Scale(neg, 2), pi, ni, logq, w)
	return Model{Loss: b.Add(loss, b.Scale(bpr, .3)), Output: q, Metrics: map[string]*Node{"bpr": bpr}}, nil
}

// candidates scores a positive, candidates of the data and such as are drawn, which each row has of its own, by both
// losses; the table of items is read in four ways.
func candidates(b *Builder) (Model, error) {
	item, four := b.Input("idx_item", 1), b.Input("idx_four", 4)
	w := b.Input("w", 1)
	u, v := b.Table("users", users, 5, .5), b.Table("items", items, 5, .5)
	q := b.Add(b.Lookup(u, b.Input("idx_user", 1)),
		b.LookupWeighted(v, b.Input("idx_before", 3), b.Dense("attention", b.Input("x", 3), 3, program.None, "fan_in_uniform")))
	idx := b.Concat(item, b.Input("idx_other", 1), b.SampleRows(b.Const("cdf", items), 3))
	s := b.LookupDot(v, idx, q)
	bpr := b.CandidateBPR(b.LookupDot(v, four, q), four, nil)
	loss := b.CandidateSoftmax(s, idx, b.Const("logq", items), w)
	plain := b.CandidateSoftmax(s, idx, nil, nil)
	return Model{Loss: b.Add(loss, b.Scale(bpr, .3), b.Scale(plain, .2)), Output: b.Concat(q, b.Lookup(v, item)),
		Metrics: map[string]*Node{"bpr": bpr}}, nil
}

// quantiles forecasts three levels at two steps, scaled by row.
func quantiles(b *Builder) (Model, error) {
	h := b.Dense("l1", b.Concat(b.Input("x", 3), b.Lookup(b.Table("series", users, 2, .1), b.Input("idx_user", 1))), 8, program.Silu, "fan_in_uniform")
	y := b.RowScale(b.Dense("out", h, 6, program.None, "fan_in_uniform"), b.Input("w", 1))
	return Model{Loss: b.Pinball(y, b.Input("t", 2), b.Input("tw", 2), .1, .5, .9), Output: y}, nil
}

var models = map[string]func(*Builder) (Model, error){
	"two towers": twoTowers, "candidates": candidates, "quantiles": quantiles,
	"mlp": mlp, "silu": siluMLP, "towers1": towers(1), "towers2": towers(2), "towers5": towers(5), "towers8": towers(8), "everything": everything,
}

// data is rows of the columns x, y and w.
func data(rows int) map[string][]float64 {
	rng := rand.New(rand.NewPCG(3, 4))
	m := map[string][]float64{}
	for range rows {
		x := []float64{float64(float32(rng.NormFloat64())), float64(float32(rng.NormFloat64())), float64(float32(rng.NormFloat64()))}
		y := 0.0
		if x[0]+x[1]*x[2]+.3*rng.NormFloat64() > 0 {
			y = 1
		}
		m["x"] = append(m["x"], x...)
		m["x2"] = append(m["x2"], x[2]-x[0], x[1], -x[2])
		m["t1"] = append(m["t1"], x[0]-2*x[1])
		m["y"] = append(m["y"], y)
		m["w"] = append(m["w"], float64(float32(.5+rng.Float64())))
		index := func(n int) float64 { return float64(rng.IntN(n+1) - 1) }
		m["idx_user"] = append(m["idx_user"], index(users))
		m["idx_item"] = append(m["idx_item"], index(items))
		m["idx_other"] = append(m["idx_other"], index(items))
		m["idx_before"] = append(m["idx_before"], index(items), index(items), index(items))
		for range 4 {
			m["idx_four"] = append(m["idx_four"], index(items))
		}
		for range 2 {
			m["t"] = append(m["t"], float64(float32(rng.NormFloat64())))
			m["tw"] = append(m["tw"], float64(rng.IntN(3)))
		}
	}
	return m
}

func batch(all map[string][]float64, first, rows int) map[string][]float64 {
	m := map[string][]float64{}
	for name, x := range all {
		w := len(x) / (len(all["y"]))
		m[name] = x[first*w : (first+rows)*w]
	}
	return m
}

// TestAgainstTapeMachine trains every model for three epochs, the last batch of each a short one, by the
// programs and by Gorgonia's own machine.
func TestAgainstTapeMachine(t *testing.T) {
	const rows, size, seed, rate = 40, 16, 11, .01
	for name, build := range models {
		t.Run(name, func(t *testing.T) {
			set, err := Compile(build, Options{Batch: size, Rows: rows, Tile: 8, Optimizer: adam})
			if err != nil {
				t.Fatal(err)
			}
			it := newInterp(set, seed)
			it.cols, it.rate = data(rows), rate
			initial := map[string][]float64{}
			for n, x := range it.store {
				initial[n] = slices.Clone(x)
			}
			full := newTape(t, build, size, tensor.Float64, seed, initial)
			rest := newTape(t, build, rows%size, tensor.Float64, seed, initial)
			single := newTape(t, build, size, tensor.Float32, seed, initial)
			rest.state = full.state
			step := 0
			for epoch := range 3 {
				want := 0.0
				clear(it.slots)
				for first := 0; first < rows; first += size {
					p, tp, n := set.Train, full, size
					if rows-first < size {
						p, tp, n = set.Rest, rest, rows-first
					}
					it.first, it.step = first, step
					before := it.slots["loss"]
					it.run(t, p, nil)
					for c, x := range batch(it.cols, first, n) {
						tp.values[c], single.values[c] = x, x
					}
					if step == 0 {
						loss, grads := single.pass(t, step)
						near(t, "float32 loss", []float64{(it.slots["loss"] - before) / size}, []float64{loss}, 1e-5)
						for i, p := range single.b.params {
							mom, _ := momentNames(p.spec.Name)
							g := slices.Clone(it.store[mom])
							for k := range g {
								g[k] /= 1 - adam.Beta1
							}
							near(t, "float32 gradient of "+p.spec.Name, g, grads[i], 1e-5)
						}
					}
					want += tp.step(t, step, rate) * float64(n)
					for _, p := range tp.b.params { // one set of weights for both sizes
						full.values[p.spec.Name], rest.values[p.spec.Name] = tp.values[p.spec.Name], tp.values[p.spec.Name]
						near(t, p.spec.Name, it.store[p.spec.Name], tp.values[p.spec.Name], 1e-9)
					}
					step++
				}
				if it.slots["rows"] != rows {
					t.Errorf("epoch %d counted %v rows, want %d", epoch, it.slots["rows"], rows)
				}
				near(t, "loss", []float64{it.slots["loss"]}, []float64{want}, 1e-9)
			}
		})
	}
}

// near compares with a tolerance relative to the largest element.
func near(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	scale := 0.0
	for _, w := range want {
		scale = math.Max(scale, math.Abs(w))
	}
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= tol*scale+1e-300) {
			t.Fatalf("%s[%d]: %g, want %g within %g of %g", what, i, got[i], want[i], tol, scale)
		}
	}
}
