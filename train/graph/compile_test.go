package graph

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var adam = AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8, Decay: .01}

// mlp is in -> 8 relu, dropout -> 4 relu -> 1 with weighted BCE.
func mlp(b *Builder) (Model, error) {
	h := b.Input("x", 3)
	h = b.Dense("l1", h, 8, program.Relu, "he_uniform")
	h = b.Dropout(h, .25)
	h = b.Dense("l2", h, 4, program.Relu, "he_uniform")
	z := b.Dense("out", h, 1, program.None, "glorot_uniform")
	loss := b.BCEWithLogits(z, b.Input("y", 1), b.Input("w", 1))
	return Model{Loss: loss, Output: z}, nil
}

func TestGolden(t *testing.T) {
	for _, name := range []string{"mlp", "silu", "two towers", "quantiles", "candidates"} {
		set, err := Compile(models[name], Options{Batch: 16, Rows: 40, Tile: 4, Optimizer: adam})
		if err != nil {
			t.Fatal(err)
		}
		got := set.Train.String() + set.Rest.String() + set.Forward.String()
		path := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s: listing changed (-want +got; -update rewrites it):\n%s", name, d)
		}
	}
}

// randomModel draws a graph of layers that read earlier nodes again and again, so that results live long,
// die late and in any order.
func randomModel(seed uint64, layers int) func(b *Builder) (Model, error) {
	return func(b *Builder) (Model, error) {
		rng := rand.New(rand.NewPCG(seed, 0))
		const width = 3
		pool := []*Node{b.Input("x", width)}
		pool = append(pool, b.Dense("first", pool[0], width, program.Relu, "he_uniform"))
		shared := b.Param("shared", "he_uniform", width, width)
		pick := func() *Node { return pool[rng.IntN(len(pool))] }
		for i := range layers {
			var n *Node
			switch rng.IntN(10) {
			case 9:
				n = b.Dense(fmt.Sprintf("d%d", i), pick(), width, program.Silu, "fan_in_uniform")
			case 0:
				n = b.Dense(fmt.Sprintf("d%d", i), pick(), width, program.Relu, "he_uniform")
			case 1:
				n = b.Dense(fmt.Sprintf("d%d", i), pick(), width, program.None, "he_uniform")
			case 2:
				n = b.Dropout(pick(), .3)
			case 3:
				n = b.Scale(pick(), rng.NormFloat64())
			case 4, 5:
				n = b.Mean(pick(), pick())
			case 6:
				n = b.MatMul(pick(), shared)
			default:
				c := b.Concat(pick(), pick(), pick())
				from := rng.IntN(2 * width)
				n = b.Slice(c, from, from+width)
			}
			pool = append(pool, n)
		}
		// The loss depends on all of it.
		z := b.Dense("out", b.Add(b.Concat(pool...), b.Scale(b.Concat(pool...), .5)), 1, program.None, "he_uniform")
		z = b.Add(z, b.Slice(b.MatMul(pick(), shared), 0, 1))
		loss := b.BCEWithLogits(b.Scale(z, .1), b.Input("y", 1), b.Input("w", 1))
		return Model{Loss: loss, Output: z}, nil
	}
}

// TestRandomGraphs holds programs, with their temporaries laid over each other and written in place, to
// the graphs they came from.
func TestRandomGraphs(t *testing.T) {
	inPlace := 0
	rapid.Check(t, func(rt *rapid.T) {
		build := randomModel(rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(1, 12).Draw(rt, "layers"))
		holdToGraph(t, build, rapid.IntRange(1, 6).Draw(rt, "rows"))
		set, err := Compile(build, Options{Batch: 3, Rows: 5, Tile: 2, Optimizer: adam})
		if err != nil {
			rt.Fatal(err)
		}
		for _, in := range set.Train.Instrs {
			if len(in.Args) > 0 && slices.Contains(in.Outs, in.Args[0]) {
				inPlace++
			}
		}
	})
	if inPlace == 0 {
		t.Error("nothing was ever written in place")
	}
}

// TestArenaIsShared: the plan of a deep model needs a few layers' memory, not that of all of them.
func TestArenaIsShared(t *testing.T) {
	deep := func(layers int) int {
		set, err := Compile(func(b *Builder) (Model, error) {
			h := b.Input("x", 64)
			for i := range layers {
				h = b.Dense(fmt.Sprintf("l%d", i), h, 64, program.Relu, "he_uniform")
			}
			z := b.Dense("out", h, 1, program.None, "he_uniform")
			return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
		}, Options{Batch: 128, Rows: 128, Tile: 128, Optimizer: adam})
		if err != nil {
			t.Fatal(err)
		}
		return set.Forward.Arena
	}
	if two, ten := deep(2), deep(10); ten != two || two != 2*128*64*4 {
		t.Errorf("forward arenas of 2 and 10 layers: %d and %d bytes, want 2 layers, %d", two, ten, 2*128*64*4)
	}
}

// TestFanInOfABias: with fan_in_uniform a bias starts like its weight, elsewhere at zero.
func TestFanInOfABias(t *testing.T) {
	set, err := Compile(siluMLP, Options{Batch: 4, Rows: 4, Tile: 1, Optimizer: adam})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range set.Params {
		want := map[string]int{"l1": 3, "l2": 8, "ou": 4}[p.Name[:2]]
		if p.Init != "fan_in_uniform" || p.FanIn != want {
			t.Errorf("%s: %s with fan-in %d, want %d", p.Name, p.Init, p.FanIn, want)
		}
	}
	set, err = Compile(mlp, Options{Batch: 4, Rows: 4, Tile: 1, Optimizer: adam})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range set.Params {
		if strings.HasSuffix(p.Name, ".bias") && p.Init != "zero" {
			t.Errorf("%s: %s, want zero", p.Name, p.Init)
		}
	}
}

// TestFusedSiluHasNoGradient: a product that activates by silu keeps nothing that its gradient could use.
func TestFusedSiluHasNoGradient(t *testing.T) {
	_, err := Compile(func(b *Builder) (Model, error) {
		z := b.apply("fused", program.MatMul, program.Attr{Act: program.Silu}, 0, b.Input("x", 3), b.Param("p", "zero", 3, 1))
		return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
	}, Options{Batch: 4, Rows: 4, Tile: 1, Optimizer: adam})
	if err == nil || !strings.Contains(err.Error(), "fused: the gradient of silu") {
		t.Errorf("got %v", err)
	}
}

func TestSet(t *testing.T) {
	set, err := Compile(towers(2), Options{Batch: 16, Rows: 33, Tile: 7, Optimizer: adam})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"loss", "rows", "tower0"}; !slices.Equal(set.Slots, want) {
		t.Errorf("slots %v, want %v", set.Slots, want)
	}
	if set.Train.Rows != 16 || set.Rest.Rows != 1 || set.Forward.Rows != 7 {
		t.Errorf("rows %d, %d, %d", set.Train.Rows, set.Rest.Rows, set.Forward.Rows)
	}
	var sites []uint32
	for _, p := range set.Params {
		sites = append(sites, p.Site)
		if p.Name == "tower1/l1.weight" && (p.FanIn != 3 || p.FanOut != 8 || p.Init != "he_uniform") {
			t.Errorf("spec %+v", p)
		}
	}
	slices.Sort(sites)
	if len(slices.Compact(sites)) != len(set.Params) || len(set.State) != 2*len(set.Params) {
		t.Errorf("%d params, sites %v, %d states", len(set.Params), sites, len(set.State))
	}
	dropouts := map[uint32]int{}
	for _, in := range set.Train.Instrs {
		switch in.Op {
		case program.Dropout:
			dropouts[in.Attr.Site]++
		case program.AdamW:
			if matrix := len(set.Train.Buffers[in.Outs[0]].Shape) == 2; (in.Attr.Decay == adam.Decay) != matrix {
				t.Errorf("%s decays by %v", in.Node, in.Attr.Decay)
			}
		}
	}
	for site := range uint32(4) {
		if dropouts[site] != 2 { // forward and backward
			t.Errorf("dropout site %d is used %d times, want 2", site, dropouts[site])
		}
	}
	for _, f := range set.Forward.Buffers {
		if f.PerRow != (f.Kind != program.Param) {
			t.Errorf("%s %s: per row is %v", f.Kind, f.Name, f.PerRow)
		}
	}
	again, err := Compile(towers(2), Options{Batch: 16, Rows: 33, Tile: 7, Optimizer: adam})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(set, again); d != "" {
		t.Errorf("compiling twice differs:\n%s", d)
	}
	even, err := Compile(mlp, Options{Batch: 16, Rows: 32, Tile: 1, Optimizer: adam})
	if err != nil {
		t.Fatal(err)
	}
	if even.Rest != nil {
		t.Error("a rest program where the batch divides the rows")
	}
}

// TestPerRowByShape: a weight as high as the batch is not taken for rows.
func TestPerRowByShape(t *testing.T) {
	set, err := Compile(mlp, Options{Batch: 8, Rows: 8, Tile: 8, Optimizer: adam})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*program.Program{set.Train, set.Forward} {
		for _, f := range p.Buffers {
			if f.Name == "l2.weight" && (f.PerRow || f.Shape[0] != 8) || f.Name == "l1" && !f.PerRow {
				t.Errorf("%s: %s %v: per row is %v", p.Name, f.Name, f.Shape, f.PerRow)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	opts := Options{Batch: 4, Rows: 6, Tile: 2, Optimizer: adam}
	// end makes a whole model of a matrix.
	end := func(b *Builder, h *Node) (Model, error) {
		z := b.Dense("out", h, 1, program.None, "he_uniform")
		return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
	}
	var kept *Node
	for name, c := range map[string]struct {
		build func(b *Builder) (Model, error)
		want  string
	}{
		"name twice": {func(b *Builder) (Model, error) {
			x := b.Input("x", 3)
			return end(b, b.Add(b.Dense("l", x, 4, program.Relu, "zero"), b.Dense("l", x, 4, program.Relu, "zero")))
		}, `parameter "l.weight": the name is taken`},
		"input twice": {func(b *Builder) (Model, error) { b.Input("x", 3); return end(b, b.Input("x", 3)) }, `input "x": the name is taken`},
		"slot's name": {func(b *Builder) (Model, error) { return end(b, b.Input("loss", 3)) }, `input "loss": the name is taken`},
		"no name":     {func(b *Builder) (Model, error) { return end(b, b.Input("", 3)) }, "input without a name"},
		"width":       {func(b *Builder) (Model, error) { return end(b, b.Input("x", 0)) }, "width 0"},
		"units": {func(b *Builder) (Model, error) {
			return end(b, b.Dense("l", b.Input("x", 3), 0, program.Relu, "zero"))
		}, `parameter "l.weight": shape [3 0]`},
		"init": {func(b *Builder) (Model, error) {
			return end(b, b.Dense("l", b.Input("x", 3), 2, program.Relu, "he"))
		}, `unknown init "he"`},
		"activation": {func(b *Builder) (Model, error) {
			return end(b, b.Dense("l", b.Input("x", 3), 2, "gelu", "zero"))
		}, `dense l: unknown activation "gelu"`},
		"rate":       {func(b *Builder) (Model, error) { return end(b, b.Dropout(b.Input("x", 3), 1)) }, "dropout of x: rate 1"},
		"slice":      {func(b *Builder) (Model, error) { return end(b, b.Slice(b.Input("x", 3), 1, 4)) }, "slice of x [4 3]: columns 1:4"},
		"add shapes": {func(b *Builder) (Model, error) { return end(b, b.Add(b.Input("x", 3), b.Input("u", 2))) }, "add of x [4 3] and u [4 2]: shapes differ"},
		"matmul":     {func(b *Builder) (Model, error) { return end(b, b.MatMul(b.Input("x", 3), b.Input("u", 2))) }, "inner dimensions differ"},
		"concat":     {func(b *Builder) (Model, error) { return end(b, b.Concat(b.Input("x", 3), b.Param("p", "zero", 2, 2))) }, "heights differ"},
		"bce": {func(b *Builder) (Model, error) {
			z := b.Input("x", 3)
			return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
		}, "bce: operand x is [4 3], want [4 1]"},
		"nil node": {func(b *Builder) (Model, error) { return end(b, b.Add(b.Input("x", 3), nil)) }, "add: operand 1 is nil"},
		"kept node": {func(b *Builder) (Model, error) {
			if kept == nil {
				kept = b.Input("x", 3)
			}
			return end(b, kept)
		}, "belongs to another graph"},
		"own fault":  {func(b *Builder) (Model, error) { return Model{}, errors.New("no columns") }, "no columns"},
		"Fail":       {func(b *Builder) (Model, error) { b.Fail(errors.New("too wide")); return end(b, b.Input("x", 3)) }, "too wide"},
		"no loss":    {func(b *Builder) (Model, error) { m, err := end(b, b.Input("x", 3)); m.Loss = nil; return m, err }, "no Loss"},
		"no output":  {func(b *Builder) (Model, error) { m, err := end(b, b.Input("x", 3)); m.Output = nil; return m, err }, "no Output"},
		"loss shape": {func(b *Builder) (Model, error) { m, err := end(b, b.Input("x", 3)); m.Loss = m.Output; return m, err }, "the loss out is not a scalar"},
		"output is input": {func(b *Builder) (Model, error) {
			x := b.Input("x", 3)
			m, err := end(b, x)
			m.Output = x
			return m, err
		}, "output x is an input"},
		"idle parameter": {func(b *Builder) (Model, error) {
			b.Param("idle", "zero", 2, 2)
			return end(b, b.Input("x", 3))
		}, "parameter idle: the loss does not depend on it"},
		"no parameters": {func(b *Builder) (Model, error) {
			z := b.Scale(b.Input("x", 1), 2)
			return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
		}, "no parameters"},
		"parameter as target": {func(b *Builder) (Model, error) {
			z := b.Dense("out", b.Input("x", 3), 1, program.None, "zero")
			return Model{Loss: b.BCEWithLogits(z, b.Dense("target", z, 1, program.None, "zero"), nil), Output: z}, nil
		}, "target.weight"},
		"metric's name": {func(b *Builder) (Model, error) {
			m, err := end(b, b.Input("x", 3))
			m.Metrics = map[string]*Node{"rows": m.Loss}
			return m, err
		}, `metric "rows": the name is taken`},
		"metric's shape": {func(b *Builder) (Model, error) {
			m, err := end(b, b.Input("x", 3))
			m.Metrics = map[string]*Node{"logits": m.Output}
			return m, err
		}, "logits: node out is [4 1], want a scalar"},
		"batch in a constant": {func(b *Builder) (Model, error) {
			return end(b, b.Scale(b.Input("x", 3), 1/float64(b.Rows())))
		}, "differ in operation scale#1"},
		"batch in a width": {func(b *Builder) (Model, error) {
			return end(b, b.Dense("l", b.Input("x", 3), b.Rows(), program.Relu, "zero"))
		}, "other parameters"},
		"batch in the depth": {func(b *Builder) (Model, error) {
			x := b.Input("x", 3)
			if b.Rows() > 3 {
				x = b.Scale(x, 2)
			}
			return end(b, x)
		}, "differ in the number of operations"},
		"table as weight": {func(b *Builder) (Model, error) {
			v := b.Table("v", 5, 3, 1)
			return end(b, b.Add(b.Lookup(v, b.Input("i", 1)), b.MatMul(b.Input("x", 5), v)))
		}, "table v: the loss reads it by another operation than a lookup"},
		"table's shape":    {func(b *Builder) (Model, error) { return end(b, b.Lookup(b.Table("v", 0, 3, 1), b.Input("i", 1))) }, `table "v": shape [0 3]`},
		"table's scale":    {func(b *Builder) (Model, error) { return end(b, b.Lookup(b.Table("v", 5, 3, 0), b.Input("i", 1))) }, `table "v": scale 0`},
		"constant's shape": {func(b *Builder) (Model, error) { return end(b, b.Lookup(b.Const("c", 2, 0), b.Input("i", 1))) }, `constant "c": shape [2 0]`},
		"lookup in a param": {func(b *Builder) (Model, error) {
			return end(b, b.Lookup(b.Param("p", "zero", 5, 3), b.Input("i", 1)))
		}, "lookup in p: want a node that Table or Const made"},
		"computed index": {func(b *Builder) (Model, error) {
			return end(b, b.Lookup(b.Table("v", 5, 3, 1), b.Scale(b.Input("i", 1), 2)))
		}, "scale#1 is no index"},
		"cdf": {func(b *Builder) (Model, error) {
			return end(b, b.Lookup(b.Table("v", 5, 3, 1), b.Sample(b.Param("p", "zero", 5), 2)))
		}, "sample by p [5]: want a vector that Const made"},
		"samples": {func(b *Builder) (Model, error) {
			return end(b, b.Lookup(b.Table("v", 5, 3, 1), b.Sample(b.Const("c", 5), 0)))
		}, "0 samples"},
		"sampled from more": {func(b *Builder) (Model, error) {
			v, i := b.Table("v", 5, 3, 1), b.Input("i", 1)
			q := b.Lookup(v, i)
			ni := b.Sample(b.Const("cdf", 6), 2)
			l := b.SampledSoftmax(b.RowDot(q, q), b.MatMulT(q, b.Lookup(v, ni)), i, ni, b.Const("logq", 6), nil)
			return Model{Loss: l, Output: q}, nil
		}, "was drawn from 6 rows and is an index of 5"},
		"row_dot":   {func(b *Builder) (Model, error) { return end(b, b.RowDot(b.Input("x", 3), b.Input("u", 2))) }, "row_dot of x [4 3] and u [4 2]"},
		"row_scale": {func(b *Builder) (Model, error) { return end(b, b.RowScale(b.Input("x", 3), b.Input("u", 2))) }, "want one factor a row"},
		"matmult":   {func(b *Builder) (Model, error) { return end(b, b.MatMulT(b.Input("x", 3), b.Input("u", 2))) }, "widths differ"},
		"softmax": {func(b *Builder) (Model, error) {
			v, i := b.Table("v", 5, 3, 1), b.Input("i", 1)
			q := b.Lookup(v, i)
			return Model{Loss: b.SampledSoftmax(b.RowDot(q, q), q, i, b.Sample(b.Const("cdf", 5), 2), b.Const("logq", 5), nil), Output: q}, nil
		}, "[4 3], want [4 2]"},
		"logq": {func(b *Builder) (Model, error) {
			v, i := b.Table("v", 5, 3, 1), b.Input("i", 1)
			q := b.Lookup(v, i)
			return Model{Loss: b.SampledSoftmax(b.RowDot(q, q), q, i, b.Sample(b.Const("cdf", 5), 3), b.Input("logq", 5), nil), Output: q}, nil
		}, "logq [4 5] is no logq"},
		"levels": {func(b *Builder) (Model, error) {
			y := b.Dense("out", b.Input("x", 3), 4, program.None, "zero")
			return Model{Loss: b.Pinball(y, b.Input("t", 2), b.Input("tw", 2), .9, .5), Output: y}, nil
		}, "levels [0.9 0.5]: want them ascending"},
		"pinball": {func(b *Builder) (Model, error) {
			y := b.Dense("out", b.Input("x", 3), 4, program.None, "zero")
			return Model{Loss: b.Pinball(y, b.Input("t", 2), b.Input("tw", 2), .1, .5, .9), Output: y}, nil
		}, "operand out is [4 4], want [4 6]"},
		"panic": {func(b *Builder) (Model, error) {
			b.Dense("fine", b.Input("x", 3), 1, program.None, "zero")
			return Model{Loss: gorgonia.Must(gorgonia.Sum(b.Input("y", 1), 7))}, nil
		}, "building for 4 rows, at node input y: panic"},
		"a fault before Gorgonia's": {func(b *Builder) (Model, error) {
			z := b.MatMul(b.Input("x", 3), b.Param("w", "zero", 2, 1)) // nil: the depths differ
			return Model{Loss: gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sub(z, b.Input("y", 1)))))}, nil
		}, "matmul of x [4 3] and w [2 1]: inner dimensions differ"},
		"Gorgonia's error": {func(b *Builder) (Model, error) {
			b.Dense("fine", b.Input("x", 3), 1, program.None, "zero")
			_, err := gorgonia.Add(b.Input("u", 3), b.Param("w", "zero", 2, 1))
			return Model{}, err
		}, "building for 4 rows, after node parameter w: Failed"},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := Compile(c.build, opts)
			if err == nil || set != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	_, err := Compile(mlp, Options{Batch: 0, Rows: -1, Optimizer: AdamW{Beta1: 1, Decay: -1}})
	for _, want := range []string{"Batch is 0", "Rows is -1", "Tile is 0", "betas 1 and 0", "Eps is 0", "Decay is -1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q among it", err, want)
		}
	}
}
