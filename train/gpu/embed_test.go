package gpu_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels/kerneltest"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

// shop is a recommender, or with levels a forecaster: between them the instructions of embeddings and of their losses.
type shop struct {
	name              string
	items, dim        int
	history           int // indices of a row, of which some are none
	negatives         int
	levels            []float64
	horizon           int
	batch, rows, tile int
	decay             float64
}

var shops = []shop{
	{name: "one item", items: 1, dim: 1, history: 1, negatives: 1, batch: 3, rows: 7, tile: 4},
	{name: "recommender", items: 50, dim: 12, history: 5, negatives: 9, batch: 33, rows: 90, tile: 64, decay: .01},
	{name: "wide", items: 700, dim: 70, history: 2, negatives: 130, batch: 64, rows: 128, tile: 64},
	{
		name:    "forecaster",
		items:   20,
		dim:     6,
		history: 1,
		levels:  []float64{.05, .25, .5, .75, .95},
		horizon: 7,
		batch:   33,
		rows:    90,
		tile:    64,
	},
	{name: "median", items: 5, dim: 3, history: 1, levels: []float64{.5}, horizon: 1, batch: 8, rows: 10, tile: 64},
}

func (s shop) compile(t testing.TB) *program.Set {
	t.Helper()
	set, err := graph.Compile(func(b *graph.Builder) (graph.Model, error) {
		table := b.Table("items", s.items, s.dim, .3)
		user := b.RowScale(b.Lookup(table, b.Input("history", s.history)), b.Input("strength", 1))
		if len(s.levels) > 0 {
			h := b.Dense("hidden", b.Concat(user, b.Input("x", 4)), 16, program.Silu, "he_uniform")
			y := b.Dense("out", b.Dropout(h, .1), s.horizon*len(s.levels), program.None, "glorot_uniform")
			return graph.Model{
				Loss:   b.Pinball(y, b.Input("target", s.horizon), b.Input("mask", s.horizon), s.levels...),
				Output: b.Slice(y, 0, 1),
			}, nil
		}
		user = b.Dense("user", user, s.dim, program.Silu, "he_uniform")
		item, drawn := b.Input("item", 1), b.Sample(b.Const("cdf", s.items), s.negatives)
		pos, neg := b.RowDot(user, b.Lookup(table, item)), b.MatMulT(user, b.Lookup(table, drawn))
		softmax := b.SampledSoftmax(pos, neg, item, drawn, b.Const("logq", s.items), b.Input("weight", 1))
		return graph.Model{Loss: b.Add(softmax, b.Scale(b.BPR(pos, b.Slice(neg, 0, 1), nil), .5)), Output: pos,
			Metrics: map[string]*graph.Node{"softmax": softmax}}, nil
	}, graph.Options{Batch: s.batch, Rows: s.rows, Tile: s.tile,
		Optimizer: graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8, Decay: s.decay}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func (s shop) data(steps int, rate float32) program.Data {
	rows := s.rows + 2*extra
	r := rand.New(rand.NewPCG(5, uint64(s.items)))
	column := func(name string, width int, value func(i int) float32) program.Column {
		c := program.Column{Name: name, Rows: rows, Width: width, F32: make([]float32, rows*width)}
		for i := range c.F32 {
			c.F32[i] = value(i)
		}
		return c
	}
	normal := func(int) float32 { return float32(r.NormFloat64()) }
	index := func(int) float32 { return float32(r.IntN(s.items)) }
	d := program.Data{
		Columns: []program.Column{
			column("history", s.history, func(i int) float32 { return float32(r.IntN(s.items+1) - 1) }),
			column(
				"strength",
				1,
				func(i int) float32 { return 1 + float32(i%3) },
			), column("x", 4, normal), column("item", 1, index),
			column("weight", 1, func(i int) float32 { return float32(i % 4) }), column("target", max(s.horizon, 1), normal),
			column("mask", max(s.horizon, 1), func(i int) float32 { return float32(i % 3) })},
		Schedule: program.Schedule{Seed: 99<<32 + 7, Train: program.Range{From: extra, To: extra + s.rows}},
	}
	for range steps {
		d.Rates = append(d.Rates, rate)
	}
	return d
}

// initial is the weights and the constants that a training starts from.
func initial(set *program.Set, seed uint64) program.Tensors {
	ts := set.Initial(seed)
	for _, c := range set.Consts {
		n := c.Shape[0]
		t := program.Tensor{Name: c.Name, DType: program.F32, Shape: c.Shape, F32: make([]float32, n)}
		for i := range t.F32 {
			p := float64((i + 1) * (i + 2)) // item i is drawn in proportion to i+1
			if c.Name == "logq" {
				p -= float64(i * (i + 1))
			}
			p /= float64(n * (n + 1))
			if c.Name == "logq" {
				p = math.Log(p)
			}
			t.F32[i] = float32(p)
		}
		ts = append(ts, t)
	}
	ts.Sort()
	return ts
}

// TestLazyUpdate: rows of a table that no step has read keep their weights and moments, to the bit.
func TestLazyUpdate(t *testing.T) {
	s := shops[2]
	set, d := s.compile(t), s.data(1, .1)
	e := open(t, newBackend(t, gpu.Options{Device: kerneltest.Open(t, cuda.Options{})}), set, d)
	_, ts, _ := train(t, e, set, d, 1)
	start := initial(set, d.Seed)
	touched := 0
	before, after := start.Find("items").F32, ts.Find("items").F32
	for row := range s.items {
		lo, hi := row*s.dim, (row+1)*s.dim
		moved := false
		for i := lo; i < hi; i++ {
			moved = moved || before[i] != after[i]
		}
		for _, x := range ts {
			if x.Name == "items" || !strings.HasPrefix(x.Name, "items") {
				continue
			}
			for i := lo; i < hi; i++ {
				if x.F32[i] != 0 && !moved {
					t.Fatalf("row %d did not move and has a moment in %s", row, x.Name)
				}
			}
		}
		if moved {
			touched++
		}
	}
	if touched == 0 || touched >= s.items {
		t.Errorf("%d of %d rows moved", touched, s.items)
	}
}
