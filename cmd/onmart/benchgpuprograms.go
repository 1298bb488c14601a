package main

import (
	"fmt"
	"math"

	"github.com/onmart/onmart/score/model/recommender"
	"github.com/onmart/onmart/train/demand"
	"github.com/onmart/onmart/train/fraud"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/recommend"
)

// benchProgram is a model to train on generated rows.
type benchProgram struct {
	name    string
	batch   int
	columns []benchColumn
	compile func(rows int) (*program.Set, error)
}

// benchColumn is a column of generated rows.
type benchColumn struct {
	name  string
	width int
	kind  benchKind
	items int // of benchItem: indices are below it
}

type benchKind int

const (
	benchNormal benchKind = iota // standard normal
	benchLabel                   // 1 where the product of the first two values of the row's first column is above .5
	benchOne                     // 1
	benchItem                    // an index, item i as often as itemShare says
)

// The sizes that the tasks' own networks are trained at here: a shop of a few thousand users and items, and the inputs
// of a forecaster.
const (
	benchUsers  = 4_000
	benchGoods  = 3_700
	benchInputs = 48
)

// The sizes of the program "softmax-20k-64": items of 64 numbers, users that are the mean of their last 20 items,
// 1,024 rows and as many negatives a step.
const (
	benchItems     = 20_000
	benchDim       = 64
	benchHistory   = 20
	benchNegatives = 1024
)

// The sizes of the program "quantiles-64-128-128": 28 days ahead at nine levels, from 64 numbers.
const (
	benchWidth   = 64
	benchHorizon = 28
)

// benchLevels are its quantiles.
func benchLevels() []float64 { return []float64{.025, .05, .1, .25, .5, .75, .9, .95, .975} }

func benchOptimizer() graph.AdamW { return graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8} }

// benchPrograms lists them: what onmart trains, and the networks that other systems are compared on.
func benchPrograms() []benchProgram {
	config := fraud.DefaultConfig()
	labelled := func(width int) []benchColumn {
		return []benchColumn{{"x", width, benchNormal, 0}, {"y", 1, benchLabel, 0}}
	}
	ranked, forecast := recommend.DefaultConfig(), demand.DefaultConfig()
	forecast.Hidden = []int{128, 128}
	out := []benchProgram{
		{"fraud", config.Batch, labelled(15), func(rows int) (*program.Set, error) { return config.Compile(15, 0, rows) }},
		{
			"recommend",
			ranked.Batch,
			[]benchColumn{
				{recommender.InputUser, 1, benchItem, benchUsers},
				{recommender.InputRecent, ranked.Recent, benchItem, benchGoods},
				{"item", 1, benchItem, benchGoods},
				{"weight", 1, benchOne, 0},
			},
			func(rows int) (*program.Set, error) { return ranked.Compile(benchUsers, benchGoods, rows) },
		},
		{
			"demand",
			forecast.Batch,
			[]benchColumn{{"x", benchInputs, benchNormal, 0}, {"target", 1, benchNormal, 0}, {"weight", 1, benchOne, 0}},
			func(rows int) (*program.Set, error) { return forecast.Compile(benchInputs, rows) },
		},
		{
			"softmax-20k-64-b1024",
			1024,
			[]benchColumn{{"history", benchHistory, benchItem, benchItems}, {"item", 1, benchItem, benchItems}},
			compileSoftmax,
		},
		{
			"quantiles-64-128-128-b512",
			512,
			[]benchColumn{{"x", benchWidth, benchNormal, 0}, {"target", benchHorizon, benchNormal, 0},
				{"weight", benchHorizon, benchOne, 0}},
			compileQuantiles,
		},
	}
	for _, batch := range []int{1024, 8192} {
		for _, widths := range mlpWidths() {
			out = append(out, mlpProgram(widths, batch))
		}
	}
	return out
}

// mlpWidths are the inputs and hidden layers of the networks that other systems are compared on.
func mlpWidths() [][]int { return [][]int{{32, 128, 128}, {15, 500}} }

// mlpProgram is a network with ReLU and one output, trained by Adam on the cross-entropy of its logit; widths are
// those of the input and the hidden layers.
func mlpProgram(widths []int, batch int) benchProgram {
	name := "mlp"
	for _, w := range widths {
		name += fmt.Sprintf("-%d", w)
	}
	compile := func(rows int) (*program.Set, error) {
		return graph.Compile(func(b *graph.Builder) (graph.Model, error) {
			h, y := b.Input("x", widths[0]), b.Input("y", 1)
			for l, units := range widths[1:] {
				h = b.Dense(fmt.Sprint("layer", l), h, units, program.Relu, "he_uniform")
			}
			z := b.Dense("out", h, 1, program.None, "he_uniform")
			return graph.Model{Loss: b.BCEWithLogits(z, y, nil), Output: z}, nil
		}, graph.Options{Batch: batch, Rows: rows, Tile: 256, Optimizer: benchOptimizer()})
	}
	columns := []benchColumn{{"x", widths[0], benchNormal, 0}, {"y", 1, benchLabel, 0}}
	return benchProgram{fmt.Sprintf("%s-1-b%d", name, batch), batch, columns, compile}
}

// compileSoftmax is a user as the mean of items, through one layer, against the item bought next, among negatives
// drawn by popularity.
func compileSoftmax(rows int) (*program.Set, error) {
	return graph.Compile(func(b *graph.Builder) (graph.Model, error) {
		table := b.Table("items", benchItems, benchDim, .1)
		user := b.Dense("user", b.Lookup(table, b.Input("history", benchHistory)), benchDim, program.Silu, "he_uniform")
		item, drawn := b.Input("item", 1), b.Sample(b.Const("cdf", benchItems), benchNegatives)
		pos, neg := b.RowDot(user, b.Lookup(table, item)), b.MatMulT(user, b.Lookup(table, drawn))
		return graph.Model{Loss: b.SampledSoftmax(pos, neg, item, drawn, b.Const("logq", benchItems), nil), Output: pos}, nil
	}, graph.Options{Batch: 1024, Rows: rows, Tile: 256, Optimizer: benchOptimizer()})
}

// compileQuantiles is two layers to the quantiles of every day.
func compileQuantiles(rows int) (*program.Set, error) {
	levels := benchLevels()
	return graph.Compile(func(b *graph.Builder) (graph.Model, error) {
		h := b.Input("x", benchWidth)
		for l := range 2 {
			h = b.Dropout(b.Dense(fmt.Sprint("layer", l), h, 128, program.Silu, "fan_in_uniform"), .1)
		}
		y := b.Dense("out", h, benchHorizon*len(levels), program.None, "fan_in_uniform")
		return graph.Model{
			Loss:   b.Pinball(y, b.Input("target", benchHorizon), b.Input("weight", benchHorizon), levels...),
			Output: y,
		}, nil
	}, graph.Options{Batch: 512, Rows: rows, Tile: 256, Optimizer: benchOptimizer()})
}

func programNames() string {
	var names []string
	for _, p := range benchPrograms() {
		names = append(names, p.name)
	}
	return fmt.Sprint(names)
}

// itemShare is how often one of the items below i is drawn, of n: a few are drawn often, as in a shop.
func itemShare(i, n int) float64 { return math.Cbrt(float64(i) / float64(n)) }

// data is rows that are a function of the row number alone.
func (p *benchProgram) data(rows, steps int) program.Data {
	d := program.Data{Schedule: program.Schedule{Seed: 1, Train: program.Range{To: rows}}}
	for range steps {
		d.Rates = append(d.Rates, 1e-3)
	}
	for c, spec := range p.columns {
		x := make([]float32, rows*spec.width)
		for i := range x {
			u := program.Philox([2]uint32{7, 11}, [4]uint32{uint32(i), uint32(c)})
			switch spec.kind {
			case benchNormal:
				x[i] = float32(math.Sqrt(-2*math.Log((float64(u[0])+1)/(1<<32))) * math.Cos(2*math.Pi*float64(u[1])/(1<<32)))
			case benchLabel:
				if first := d.Columns[0]; first.F32[i*first.Width]*first.F32[i*first.Width+1] > .5 {
					x[i] = 1
				}
			case benchOne:
				x[i] = 1
			case benchItem:
				v := float64(u[0]) / (1 << 32)
				x[i] = float32(int(v * v * v * float64(spec.items)))
			}
		}
		d.Columns = append(d.Columns, program.Column{Name: spec.name, Rows: rows, Width: spec.width, F32: x})
	}
	return d
}

// initial is the weights that a training starts from, and the constants: how often each item is drawn.
func (p *benchProgram) initial(set *program.Set, seed uint64) program.Tensors {
	ts := set.Initial(seed)
	for _, c := range set.Consts {
		t := program.Tensor{Name: c.Name, DType: program.F32, Shape: c.Shape, F32: make([]float32, c.Shape[0])}
		for i := range t.F32 {
			share := itemShare(i+1, len(t.F32))
			if c.Name == "logq" {
				share = math.Log(share - itemShare(i, len(t.F32)))
			}
			t.F32[i] = float32(share)
		}
		ts = append(ts, t)
	}
	ts.Sort()
	return ts
}
