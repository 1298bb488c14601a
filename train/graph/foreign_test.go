package graph

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// TestForeignConstructors builds every op of Gorgonia's own that is lowered, by its constructor, and
// holds recognition, gradient and program to it.
func TestForeignConstructors(t *testing.T) {
	square := func(b *Builder) *Node { return b.Param("square", "he_uniform", 6, 6) }
	for name, c := range map[string]struct {
		apply func(b *Builder, h *Node) (*Node, error)
		kind  foreignKind
	}{
		"Add":   {func(b *Builder, h *Node) (*Node, error) { return gorgonia.Add(h, b.Scale(h, 2)) }, addition},
		"Neg":   {func(b *Builder, h *Node) (*Node, error) { return gorgonia.Neg(h) }, negation},
		"Mul":   {func(b *Builder, h *Node) (*Node, error) { return gorgonia.Mul(h, square(b)) }, product},
		"const": {func(b *Builder, h *Node) (*Node, error) { return gorgonia.HadamardProd(h, scalar(b, 3)) }, elementwise},
		"const left": {func(b *Builder, h *Node) (*Node, error) {
			return gorgonia.HadamardProd(scalar(b, -.5), h)
		}, elementwise},
	} {
		t.Run(name, func(t *testing.T) {
			build := func(b *Builder) (Model, error) {
				h, err := c.apply(b, b.Dense("l", b.Input("x", 3), 6, program.Relu, "he_uniform"))
				if err != nil {
					return Model{}, err
				}
				f, err := recognise(h)
				if err != nil || f.kind != c.kind {
					t.Errorf("recognised as %+v, %v", f, err)
				}
				z := b.Dense("out", h, 1, program.None, "he_uniform")
				return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), b.Input("w", 1)), Output: z}, nil
			}
			holdToGraph(t, build, 4)
		})
	}
}

// TestForeignProductsTransposed: Grad through Mul makes the transposed forms, and through those the rest.
func TestForeignProductsTransposed(t *testing.T) {
	b := newBuilder(2, true, tensor.Float32)
	x, w := b.Param("x", "zero", 2, 3), b.Param("w", "zero", 3, 4)
	y := b.MatMul(x, w)
	seen := map[foreign]bool{}
	note := func(n *Node) {
		f, err := recognise(n)
		if err != nil {
			t.Fatal(err)
		}
		seen[f] = true
	}
	note(y)
	type sd interface {
		SymDiff(gorgonia.Nodes, *gorgonia.Node, *gorgonia.Node) (gorgonia.Nodes, error)
	}
	g := b.Param("g", "zero", 2, 4)
	grads, err := y.Op().(sd).SymDiff(gorgonia.Nodes{x, w}, y, g)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range grads {
		note(n)
	}
	for _, want := range []foreign{{kind: product}, {kind: product, transB: true}, {kind: product, transA: true}} {
		if !seen[want] {
			t.Errorf("not recognised: %+v of %+v", want, seen)
		}
	}
}

// TestForeignConstantsFold: the loss scaled by Gorgonia's constants, so that the gradient of the loss is
// an expression of constants.
func TestForeignConstantsFold(t *testing.T) {
	build := func(b *Builder) (Model, error) {
		z := b.Dense("out", b.Input("x", 3), 1, program.None, "he_uniform")
		loss := b.BCEWithLogits(z, b.Input("y", 1), b.Input("w", 1))
		scaled, err := gorgonia.HadamardProd(loss, scalar(b, 3))
		if err != nil {
			return Model{}, err
		}
		negated, err := gorgonia.Neg(loss)
		if err != nil {
			return Model{}, err
		}
		return Model{Loss: b.Add(loss, scaled, negated, loss), Output: z}, nil
	}
	holdToGraph(t, build, 4)
	set, err := Compile(build, Options{Batch: 4, Rows: 4, Tile: 1, Optimizer: adam})
	if err != nil {
		t.Fatal(err)
	}
	fills := 0
	for _, in := range set.Train.Instrs {
		if in.Op == program.Fill {
			fills++
			if in.Attr.Scale != 4 { // 1 + 3 - 1 + 1
				t.Errorf("gradient of the loss folds to %v, want 4", in.Attr.Scale)
			}
		}
	}
	if fills != 1 {
		t.Errorf("%d fills, want 1", fills)
	}
}

func scalar(b *Builder, x float32) *Node {
	if b.dtype == tensor.Float64 {
		return gorgonia.NewConstant(float64(x))
	}
	return gorgonia.NewConstant(x)
}

func TestForeignRefused(t *testing.T) {
	must := func(n *Node, err error) *Node {
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, c := range map[string]struct {
		apply func(b *Builder, h *Node) *Node
		want  string
	}{
		"Slice":   {func(b *Builder, h *Node) *Node { return must(gorgonia.Slice(h, nil, gorgonia.S(0, 3))) }, "Builder.Slice"},
		"Concat":  {func(b *Builder, h *Node) *Node { return must(gorgonia.Concat(1, h, h)) }, "Builder.Concat"},
		"Dropout": {func(b *Builder, h *Node) *Node { return must(gorgonia.Dropout(h, .5)) }, "Builder.Dropout"},
		"random": {func(b *Builder, h *Node) *Node {
			return must(gorgonia.Add(h, gorgonia.UniformRandomNode(b.g, tensor.Float32, 0, 1, b.Rows(), 6)))
		}, "Builder.Dropout"},
		"tensor constant": {func(b *Builder, h *Node) *Node {
			c := tensor.New(tensor.WithShape(b.Rows(), 6), tensor.WithBacking(make([]float32, 6*b.Rows())))
			return must(gorgonia.Add(h, gorgonia.NewConstant(c)))
		}, "Builder.Scale"},
		"rows as columns": {func(b *Builder, h *Node) *Node {
			return must(gorgonia.Reshape(must(gorgonia.Reshape(h, tensor.Shape{b.Rows() * 6, 1})), tensor.Shape{b.Rows(), 6}))
		}, "differ in the shape"},
		"Log2": {func(b *Builder, h *Node) *Node { return must(gorgonia.Log2(h)) }, "gradient of Log2 is wrong"},
		"OuterProd": {func(b *Builder, h *Node) *Node {
			return must(gorgonia.OuterProd(must(gorgonia.Sum(h, 1)), b.Param("p", "zero", 6)))
		}, "gradient of OuterProd is wrong"},
		"batched product": {func(b *Builder, h *Node) *Node {
			x := must(gorgonia.Reshape(h, tensor.Shape{b.Rows(), 2, 3}))
			return must(gorgonia.Reshape(must(gorgonia.BatchedMatMul(x, x, false, true)), tensor.Shape{b.Rows(), 4}))
		}, "register a lowering"},
		"stray input": {func(b *Builder, h *Node) *Node {
			return b.Add(h, gorgonia.NewMatrix(b.g, tensor.Float32, gorgonia.WithName("stray"), gorgonia.WithShape(b.Rows(), 6)))
		}, "node stray"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(func(b *Builder) (Model, error) {
				h := c.apply(b, b.Dense("l", b.Input("x", 3), 6, program.Relu, "he_uniform"))
				z := b.Dense("out", h, 1, program.None, "he_uniform")
				return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
			}, Options{Batch: 4, Rows: 4, Tile: 1, Optimizer: adam})
			if err == nil || !strings.Contains(err.Error(), c.want) ||
				!strings.Contains(err.Error(), "node ") && name != "rows as columns" {
				t.Errorf("got %v, want a node and %q", err, c.want)
			}
		})
	}
}

// holdToGraph runs one training step of the program and compares loss, metrics and gradients with those
// of the graph itself, evaluated op by op.
func holdToGraph(t *testing.T, build func(*Builder) (Model, error), rows int) {
	t.Helper()
	set, err := Compile(build, Options{Batch: rows, Rows: rows, Tile: min(3, rows), Optimizer: adam})
	if err != nil {
		t.Fatal(err)
	}
	b := newBuilder(rows, true, tensor.Float64)
	b.clock = clock{seed: 9, step: 0}
	m, err := b.run(build)
	if err != nil {
		t.Fatal(err)
	}
	grads, err := b.gradients(m.Loss)
	if err != nil {
		t.Fatal(err)
	}
	at := leaves(b, rand.New(rand.NewPCG(5, 6)))
	v := evaluate(t, at, append([]*Node{m.Loss}, grads...)...)
	it := newInterp(set, 9)
	for name, x := range at {
		it.store[name], it.cols[name] = x, x
	}
	it.rate = 0 // the weights stay
	it.run(t, set.Train, nil)
	near(t, "loss", []float64{it.slots["loss"] / float64(rows)}, numbers(v[m.Loss]), 1e-9)
	for i, p := range b.params {
		mom, _ := momentNames(p.spec.Name)
		g := it.store[mom]
		for k := range g {
			g[k] /= 1 - adam.Beta1
		}
		near(t, "gradient of "+p.spec.Name, g, numbers(v[grads[i]]), 1e-9)
	}

	fb := newBuilder(min(3, rows), false, tensor.Float64)
	fm, err := fb.run(build)
	if err != nil {
		t.Fatal(err)
	}
	few := map[string][]float64{}
	for name, x := range at {
		few[name] = x
		if n := fb.names[name]; n != nil {
			few[name] = x[:n.Shape().TotalSize()]
		}
	}
	out := it.run(t, set.Forward, few)["output"]
	near(t, "output", out, numbers(evaluate(t, few, fm.Output)[fm.Output]), 1e-9)
}

// foreignOps are single ops of Gorgonia's own on x [rows,width], which is differentiable.
var foreignOps = map[string]func(b *Builder, x *Node, width int) *Node{
	"add":      func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Add(x, b.Input("c", w))) },
	"plus one": func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Add(x, one(b))) },
	"sub":      func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Sub(b.Input("c", w), x)) },
	"mul": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.HadamardProd(x, made(gorgonia.Add(x, b.Input("c", w)))))
	},
	"div": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.HadamardDiv(b.Input("c", w), made(gorgonia.Exp(x))))
	},
	"pow": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.Pow(made(gorgonia.Exp(x)), scalar(b, 1.5)))
	},
	"max": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.MaxBetween(x, b.Scale(b.Input("c", w), .1)))
	},
	"min": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.MinBetween(x, b.Scale(b.Input("c", w), .1)))
	},
	"abs": func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Abs(x)) },
	"sin": func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Sin(x)) },
	"cos": func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Cos(x)) },
	"exp": func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Exp(x)) },
	"log": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.Log(made(gorgonia.Add(made(gorgonia.Square(x)), one(b)))))
	},
	"sqrt":     func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Sqrt(made(gorgonia.Exp(x)))) },
	"inverse":  func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Inverse(made(gorgonia.Exp(x)))) },
	"cube":     func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Cube(x)) },
	"tanh":     func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Tanh(x)) },
	"sigmoid":  func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Sigmoid(x)) },
	"log1p":    func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Log1p(made(gorgonia.Square(x)))) },
	"expm1":    func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Expm1(x)) },
	"softplus": func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Softplus(x)) },
	"rectify":  func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Rectify(x)) },
	"leaky":    func(b *Builder, x *Node, w int) *Node { return made(gorgonia.LeakyRelu(x, .1)) },
	"sign": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.HadamardProd(x, made(gorgonia.Sign(x))))
	},
	"ge": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.HadamardProd(x, made(gorgonia.Gte(x, b.Input("c", w), true))))
	},
	"broadcast row": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.BroadcastAdd(x, b.Param("p", "zero", 1, w), nil, []byte{0}))
	},
	"broadcast vector": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.BroadcastHadamardProd(x, b.Param("p", "zero", w), nil, []byte{0}))
	},
	"broadcast column": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.BroadcastSub(x, b.Dense("d", x, 1, program.None, "zero"), nil, []byte{1}))
	},
	"sum of rows": func(b *Builder, x *Node, w int) *Node {
		s := made(gorgonia.Reshape(made(gorgonia.Sum(x, 1)), tensor.Shape{b.Rows(), 1}))
		return made(gorgonia.BroadcastHadamardDiv(made(gorgonia.Exp(x)), made(gorgonia.Exp(made(gorgonia.Tanh(s)))), nil, []byte{1}))
	},
	"mean of columns": func(b *Builder, x *Node, w int) *Node {
		m := made(gorgonia.Reshape(made(gorgonia.Mean(x, 0)), tensor.Shape{1, w}))
		return made(gorgonia.BroadcastSub(x, m, nil, []byte{0}))
	},
	"max of rows": func(b *Builder, x *Node, w int) *Node {
		m := made(gorgonia.Reshape(made(gorgonia.Max(x, 1)), tensor.Shape{b.Rows(), 1}))
		return made(gorgonia.BroadcastSub(x, m, nil, []byte{1}))
	},
	"mean of all": func(b *Builder, x *Node, w int) *Node {
		return made(gorgonia.HadamardProd(x, made(gorgonia.Mean(made(gorgonia.Square(x))))))
	},
	"transposes": func(b *Builder, x *Node, w int) *Node {
		p := b.Param("p", "zero", 4, w)
		return made(gorgonia.Mul(x, made(gorgonia.Transpose(p))))
	},
	"products of transposes": func(b *Builder, x *Node, w int) *Node {
		p := b.Param("p", "zero", 4, w)
		t := made(gorgonia.Mul(p, made(gorgonia.Transpose(x)))) // [4,rows]
		return made(gorgonia.Transpose(made(gorgonia.Tanh(t))))
	},
	"matrix and vector": func(b *Builder, x *Node, w int) *Node {
		v := made(gorgonia.Mul(x, b.Param("p", "zero", w)))
		return made(gorgonia.Reshape(made(gorgonia.Tanh(v)), tensor.Shape{b.Rows(), 1}))
	},
	"dot": func(b *Builder, x *Node, w int) *Node {
		p, q := b.Param("p", "zero", w), b.Param("q", "zero", w)
		return made(gorgonia.HadamardProd(x, made(gorgonia.Mul(p, q))))
	},
	"softmax":          func(b *Builder, x *Node, w int) *Node { return b.Scale(b.Softmax(x), float64(w)) },
	"log softmax":      func(b *Builder, x *Node, w int) *Node { return b.LogSoftmax(x) },
	"gorgonia softmax": func(b *Builder, x *Node, w int) *Node { return b.Scale(made(gorgonia.SoftMax(x, 1)), float64(w)) },
	"gorgonia log":     func(b *Builder, x *Node, w int) *Node { return made(gorgonia.LogSoftMax(x, 1)) },
	"layer norm":       func(b *Builder, x *Node, w int) *Node { return b.LayerNorm("norm", x, 1e-2) },
	"mish":             func(b *Builder, x *Node, w int) *Node { return made(gorgonia.Mish(x)) },
	"chain": func(b *Builder, x *Node, w int) *Node {
		y := made(gorgonia.Tanh(made(gorgonia.Add(made(gorgonia.HadamardProd(x, scalar(b, .3))), one(b)))))
		return made(gorgonia.Sub(made(gorgonia.Square(y)), made(gorgonia.Neg(x))))
	},
}

// TestForeignOps holds every op that is lowered to finite differences, and its program on the CPU to the graph.
func TestForeignOps(t *testing.T) {
	for name, apply := range foreignOps {
		t.Run(name, func(t *testing.T) {
			for _, width := range []int{3, 256, 257, 512} {
				build := func(b *Builder) (Model, error) {
					x := b.Dense("in", b.Input("x", 2), width, program.None, "glorot_uniform")
					y := apply(b, x, width)
					out := y
					switch name {
					case "mean of columns", "mean of all", "products of transposes": // these mix rows: not for a forward program
						out = x
					}
					return Model{Loss: made(gorgonia.Mean(made(gorgonia.Square(y)))), Output: b.Scale(out, 1)}, nil
				}
				if err := Check(build, CheckOptions{Rows: 5, Samples: 12, Backend: backend(t)}); err != nil {
					t.Errorf("width %d: %v", width, err)
				}
			}
		})
	}
}
