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

// evaluate computes nodes by the ops' own Do, straight from the graph: neither lowering nor TapeMachine
// takes part.
func evaluate(t testing.TB, leaves map[string][]float64, roots ...*Node) map[*Node]gorgonia.Value {
	t.Helper()
	all, err := reachable(roots)
	if err != nil {
		t.Fatal(err)
	}
	values := map[*Node]gorgonia.Value{}
	for _, n := range all {
		if n.Op() == nil {
			x, ok := leaves[n.Name()]
			if !ok {
				t.Fatalf("no value for %s", n.Name())
			}
			values[n] = tensor.New(tensor.WithShape(n.Shape()...), tensor.WithBacking(slices.Clone(x)))
			continue
		}
		kids, err := operands(n)
		if err != nil {
			t.Fatal(err)
		}
		var args []gorgonia.Value
		for _, k := range kids {
			args = append(args, values[k])
		}
		if values[n], err = n.Op().Do(args...); err != nil {
			t.Fatalf("%s: %v", n.Name(), err)
		}
	}
	return values
}

func numbers(v gorgonia.Value) []float64 {
	switch x := v.Data().(type) {
	case float64:
		return []float64{x}
	case float32:
		return []float64{float64(x)}
	case []float32:
		return widen(x)
	case []float64:
		return x
	}
	panic(fmt.Sprintf("%T", v))
}

// leaves makes values for all inputs, parameters and constants: targets "y" in 0..1, weights "w" positive, weights "tw" with zeros,
// "idx..." indices of a table of seven rows.
func leaves(b *Builder, rng *rand.Rand) map[string][]float64 {
	m := map[string][]float64{}
	var names []string
	for name := range b.names {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		x := make([]float64, b.names[name].Shape().TotalSize())
		if name == "cdf" || name == "logq" {
			m[name] = constants(name, len(x))
			continue
		}
		for i := range x {
			kind := name
			if strings.HasPrefix(name, "idx") {
				kind = "idx"
			}
			switch kind {
			case "idx":
				x[i] = float64(rng.IntN(items+1) - 1)
			case "tw":
				x[i] = float64(rng.IntN(3))
			case "y":
				x[i] = float64(rng.IntN(2))
			case "w":
				x[i] = rng.Float64() + .5
			default:
				x[i] = float64(float32(rng.NormFloat64()))
			}
		}
		m[name] = x
	}
	return m
}

// head reduces a matrix to a loss that depends on each of its elements in its own way.
func head(b *Builder, x *Node) *Node {
	z := b.Dense("head", x, 1, program.None, "zero")
	return b.BCEWithLogits(b.Scale(z, .1), b.Input("y", 1), b.Input("w", 1))
}

// layers are the operations under test; x is [rows,width] and differentiable.
var layers = map[string]func(b *Builder, x *Node, width int) *Node{
	"dense":      func(b *Builder, x *Node, w int) *Node { return b.Dense("d", x, 5, program.None, "zero") },
	"dense relu": func(b *Builder, x *Node, w int) *Node { return b.Dense("d", x, 5, program.Relu, "zero") },
	"dense to width": func(b *Builder, x *Node, w int) *Node {
		return b.Dense("wide", b.Dense("d", x, 2, program.None, "zero"), w, program.Relu, "zero")
	},
	"dense silu": func(b *Builder, x *Node, w int) *Node {
		return b.Dense("d", x, 5, program.Silu, "zero")
	},
	"silu twice": func(b *Builder, x *Node, w int) *Node { // z and y are read again
		h := b.Dense("wide", b.Dense("d", x, 3, program.Silu, "zero"), w, program.Silu, "zero")
		return b.Add(h, x, b.Scale(h, .5))
	},
	"activate": func(b *Builder, x *Node, w int) *Node {
		relu := b.apply("", program.Activate, program.Attr{Act: program.Relu}, 0, x)
		silu := b.apply("", program.Activate, program.Attr{Act: program.Silu}, 0, x)
		return b.Add(relu, silu, b.apply("", program.Activate, program.Attr{}, 0, x))
	},
	"matmul":  func(b *Builder, x *Node, w int) *Node { return b.MatMul(x, b.Param("p", "zero", w, 4)) },
	"dropout": func(b *Builder, x *Node, w int) *Node { return b.Dropout(b.Dropout(x, .5), .25) },
	"concat": func(b *Builder, x *Node, w int) *Node {
		return b.Concat(x, b.Param("p", "zero", b.Rows(), w), x, b.Input("c", w))
	},
	"slice": func(b *Builder, x *Node, w int) *Node { return b.Add(b.Slice(x, 0, 2), b.Slice(x, w-2, w)) },
	"split": func(b *Builder, x *Node, w int) *Node {
		return b.Concat(b.Slice(x, w/2, w), b.Scale(b.Slice(x, 0, w/2), 3))
	},
	"scale": func(b *Builder, x *Node, w int) *Node { return b.Scale(x, -1.5) },
	"add":   func(b *Builder, x *Node, w int) *Node { return b.Add(x, b.Scale(x, 2), x) },
	"mean": func(b *Builder, x *Node, w int) *Node {
		return b.Mean(x, b.Dense("d", x, w, program.Relu, "zero"), b.Param("p", "zero", b.Rows(), w))
	},
	"row dot": func(b *Builder, x *Node, w int) *Node {
		return b.RowScale(x, b.Scale(b.RowDot(x, b.Param("p", "zero", b.Rows(), w)), .1))
	},
	"row dot of itself": func(b *Builder, x *Node, w int) *Node { return b.Scale(b.RowScale(x, b.RowDot(x, x)), .01) },
	"matmult": func(b *Builder, x *Node, w int) *Node {
		return b.Concat(b.MatMulT(x, b.Param("p", "zero", 3, w)), b.Scale(b.MatMulT(x, x), .1))
	},
	"lookup": func(b *Builder, x *Node, w int) *Node {
		t := b.Table("table", items, w, 1)
		return b.Add(x, b.Lookup(t, b.Input("idx1", 1)), b.Lookup(t, b.Input("idx3", 3)), b.Lookup(t, b.Input("idx1b", 1)))
	},
	"lookup dot": func(b *Builder, x *Node, w int) *Node {
		t, idx := b.Table("table", items, w, 1), b.Input("idx3", 3)
		s := b.Scale(b.LookupDot(t, idx, x), .1)
		return b.Concat(s, b.Scale(b.LookupWeighted(t, idx, s), .3), b.LookupDot(t, b.Input("idx1", 1), x))
	},
	"lookup dot in a constant": func(b *Builder, x *Node, w int) *Node {
		c, idx := b.Const("c", items, w), b.Input("idx3", 3)
		return b.Add(x, b.LookupWeighted(c, idx, b.Scale(b.LookupDot(c, idx, x), .1)))
	},
	"lookup in a constant": func(b *Builder, x *Node, w int) *Node {
		return b.Add(x, b.Lookup(b.Const("c", items, w), b.Input("idx3", 3)))
	},
	"shared": func(b *Builder, x *Node, w int) *Node {
		p := b.Param("p", "zero", w, 3)
		return b.Add(b.MatMul(x, p), b.MatMul(b.Scale(x, .5), p), b.MatMul(b.Input("c", w), p))
	},
}

func TestGradients(t *testing.T) {
	for name, layer := range layers {
		for _, width := range []int{3, 256, 257, 512} {
			t.Run(fmt.Sprintf("%s/%d", name, width), func(t *testing.T) {
				checkGradients(t, func(b *Builder) *Node {
					return head(b, layer(b, b.Param("x", "zero", b.Rows(), width), width))
				})
			})
		}
	}
}

func TestLossGradients(t *testing.T) {
	for _, rows := range []int{1, 3, 256, 257, 512} {
		for name, loss := range map[string]func(b *Builder, z *Node) *Node{
			"weighted":   func(b *Builder, z *Node) *Node { return b.BCEWithLogits(z, b.Input("y", 1), b.Input("w", 1)) },
			"unweighted": func(b *Builder, z *Node) *Node { return b.BCEWithLogits(z, b.Input("y", 1), nil) },
			"twice": func(b *Builder, z *Node) *Node {
				l := b.BCEWithLogits(z, b.Input("y", 1), nil)
				return b.Add(l, b.Scale(l, .25), b.BCEWithLogits(z, b.Input("y2", 1), nil), l)
			},
		} {
			t.Run(fmt.Sprintf("%s/%d", name, rows), func(t *testing.T) {
				checkGradientsRows(t, rows, func(b *Builder) *Node { return loss(b, b.Param("z", "zero", b.Rows(), 1)) })
			})
		}
	}
}

// TestSampledSoftmaxGradients: awkward numbers of rows and of negatives; as leaves, and through a table that is read four times.
func TestSampledSoftmaxGradients(t *testing.T) {
	for _, c := range [][2]int{{1, 1}, {3, 257}, {4, 256}, {16, 16}, {257, 3}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			checkGradientsRows(t, c[0], func(b *Builder) *Node {
				ni := b.Sample(b.Const("cdf", items), c[1])
				return b.SampledSoftmax(b.Param("pos", "zero", b.Rows(), 1), b.Param("neg", "zero", b.Rows(), c[1]), b.Input("idx", 1), ni, b.Const("logq", items), b.Input("w", 1))
			})
			checkGradientsRows(t, c[0], func(b *Builder) *Node {
				v, pi := b.Table("items", items, 5, 1), b.Input("idx", 1)
				ni := b.Sample(b.Const("cdf", items), c[1])
				q := b.Lookup(v, b.Input("idx_before", 2))
				l := b.SampledSoftmax(b.RowDot(q, b.Lookup(v, pi)), b.MatMulT(q, b.Lookup(v, ni)), pi, ni, b.Const("logq", items), nil)
				return b.Add(l, b.BPR(b.RowDot(q, q), b.RowDot(q, b.Lookup(v, pi)), nil))
			})
		})
	}
}

// TestCandidateGradients: awkward numbers of rows and of candidates; as leaves, and through a table.
func TestCandidateGradients(t *testing.T) {
	for _, c := range [][2]int{{1, 2}, {3, 3}, {2, 256}, {2, 257}, {3, 512}, {257, 3}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			checkGradientsRows(t, c[0], func(b *Builder) *Node {
				s, idx := b.Param("s", "zero", b.Rows(), c[1]), b.Input("idx", c[1])
				return b.Add(b.CandidateSoftmax(s, idx, b.Const("logq", items), b.Input("w", 1)), b.CandidateSoftmax(s, idx, nil, nil),
					b.CandidateBPR(s, idx, b.Input("w2", 1)))
			})
			checkGradientsRows(t, c[0], func(b *Builder) *Node {
				v := b.Table("items", items, 5, 1)
				idx := b.Concat(b.Input("idx", 1), b.SampleRows(b.Const("cdf", items), c[1]-1))
				s := b.LookupDot(v, idx, b.Lookup(v, b.Input("idx_before", 2)))
				return b.Add(b.CandidateSoftmax(s, idx, nil, b.Input("w", 1)), b.CandidateBPR(s, idx, nil))
			})
		})
	}
}

func TestPinballGradients(t *testing.T) {
	for _, c := range [][2]int{{1, 1}, {3, 85}, {4, 86}, {257, 2}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			checkGradientsRows(t, c[0], func(b *Builder) *Node {
				y := b.Param("forecast", "zero", b.Rows(), 3*c[1])
				return b.Add(b.Pinball(y, b.Input("t", c[1]), b.Input("tw", c[1]), .05, .5, .9),
					b.Pinball(b.Slice(y, 0, c[1]), b.Input("t2", c[1]), b.Input("w", c[1]), .25))
			})
		})
	}
}

func checkGradients(t *testing.T, build func(b *Builder) *Node) { checkGradientsRows(t, 4, build) }

// checkGradientsRows holds Grad through our ops to central differences, at the first and last elements of
// every parameter, around column 256, and at some others.
func checkGradientsRows(t *testing.T, rows int, build func(b *Builder) *Node) {
	t.Helper()
	b := newBuilder(rows, true, tensor.Float64)
	b.clock = clock{seed: 5, step: 7}
	loss := build(b)
	if b.err != nil {
		t.Fatal(b.err)
	}
	grads, err := b.gradients(loss)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	at := leaves(b, rng)
	got := evaluate(t, at, grads...)
	for k, p := range b.params {
		g := numbers(got[grads[k]])
		x := at[p.spec.Name]
		if len(g) != len(x) {
			t.Fatalf("gradient of %s has %d elements, want %d", p.spec.Name, len(g), len(x))
		}
		for _, i := range samples(len(x), rng) {
			const eps = 1e-5
			x0 := x[i]
			x[i] = x0 + eps
			up := numbers(evaluate(t, at, loss)[loss])[0]
			x[i] = x0 - eps
			down := numbers(evaluate(t, at, loss)[loss])[0]
			x[i] = x0
			want := (up - down) / (2 * eps)
			if !(math.Abs(g[i]-want) <= 1e-8+1e-6*math.Abs(want)) {
				t.Errorf("gradient of %s[%d] of %v: %g, by differences %g", p.spec.Name, i, p.spec.Shape, g[i], want)
			}
		}
	}
}

func samples(n int, rng *rand.Rand) []int {
	var is []int
	for _, i := range []int{0, 1, 2, 9, 254, 255, 256, 257, 265, 511, n - 2, n - 1} {
		if i >= 0 && i < n {
			is = append(is, i)
		}
	}
	for range 3 {
		is = append(is, rng.IntN(n))
	}
	return is
}
