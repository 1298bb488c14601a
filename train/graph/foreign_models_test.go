package graph

import (
	"testing"

	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// made is a node, or a panic that Compile turns into an error.
func made(n *Node, err error) *Node {
	if err != nil {
		panic(err)
	}
	return n
}

// one is 1 in the type of the graph.
func one(b *Builder) *Node { return scalar(b, 1) }

// foreignModels are written in Gorgonia's own operations, as its published examples are, in words of our own.
var foreignModels = map[string]func(*Builder) (Model, error){
	// The README's first graph, with a weight to learn: z = w x + y.
	"tiny": func(b *Builder) (Model, error) {
		x, weights := b.Input("x", 3), b.Param("weights", "glorot_uniform", 3, 3)
		z := made(gorgonia.Add(made(gorgonia.HadamardProd(x, b.MatMul(b.Input("x2", 3), weights))), x))
		return Model{Loss: made(gorgonia.Mean(made(gorgonia.Square(z)))), Output: z}, nil
	},
	// Linear regression by squared errors: the iris example.
	"linear regression": func(b *Builder) (Model, error) {
		theta := b.Param("theta", "fan_in_uniform", 3)
		y := made(gorgonia.Reshape(b.Input("t1", 1), tensor.Shape{b.Rows()}))
		pred := made(gorgonia.Mul(b.Input("x", 3), theta))
		loss := made(gorgonia.Mean(made(gorgonia.Square(made(gorgonia.Sub(pred, y))))))
		return Model{Loss: loss, Output: made(gorgonia.Reshape(pred, tensor.Shape{b.Rows(), 1}))}, nil
	},
	// Logistic regression with its cross-entropy written out and a penalty on the weights.
	"logistic regression": func(b *Builder) (Model, error) {
		w, bias := b.Param("weights", "fan_in_uniform", 3), b.Param("bias", "zero", 1)
		y := made(gorgonia.Reshape(b.Input("y", 1), tensor.Shape{b.Rows()}))
		z := made(gorgonia.Mul(b.Input("x", 3), w))
		z = made(gorgonia.BroadcastAdd(z, bias, nil, []byte{0}))
		p := made(gorgonia.Sigmoid(z))
		hit := made(gorgonia.HadamardProd(made(gorgonia.Neg(y)), made(gorgonia.Log(p))))
		miss := made(gorgonia.HadamardProd(made(gorgonia.Sub(one(b), y)), made(gorgonia.Log(made(gorgonia.Sub(one(b), p))))))
		loss := made(gorgonia.Mean(made(gorgonia.Sub(hit, miss))))
		penalty := made(gorgonia.HadamardProd(scalar(b, .01), made(gorgonia.Mean(made(gorgonia.Square(w))))))
		return Model{Loss: made(gorgonia.Add(loss, penalty)), Output: made(gorgonia.Reshape(p, tensor.Shape{b.Rows(), 1}))}, nil
	},
	// The denoising autoencoder's layer: tied weights, two biases, cross-entropy of the reconstruction.
	"autoencoder": func(b *Builder) (Model, error) {
		x := made(gorgonia.Sigmoid(b.Input("x", 3)))
		w := b.Param("weights", "glorot_uniform", 3, 2)
		hidden, visible := b.Param("hidden", "zero", 1, 2), b.Param("visible", "zero", 1, 3)
		h := made(gorgonia.Sigmoid(made(gorgonia.BroadcastAdd(b.MatMul(b.Dropout(x, .25), w), hidden, nil, []byte{0}))))
		back := made(gorgonia.BroadcastAdd(b.MatMul(h, made(gorgonia.Transpose(w))), visible, nil, []byte{0}))
		r := made(gorgonia.Sigmoid(back))
		loss := made(gorgonia.Mean(made(gorgonia.BinaryXent(r, x))))
		return Model{Loss: loss, Output: h}, nil
	},
	// A network with Gorgonia's relu, tanh and softmax, and the logarithm of the likelihood of one of three classes.
	"classes": func(b *Builder) (Model, error) {
		h := b.Input("x", 3)
		for i, act := range []func(*Node) (*Node, error){gorgonia.Rectify, gorgonia.Tanh} {
			name := string(rune('a' + i))
			w, bias := b.Param(name+".w", "glorot_uniform", dims(h)[1], 5), b.Param(name+".bias", "zero", 1, 5)
			h = made(act(made(gorgonia.BroadcastAdd(b.MatMul(h, w), bias, nil, []byte{0}))))
		}
		p := b.Softmax(b.MatMul(h, b.Param("out", "glorot_uniform", 5, 3)))
		like := made(gorgonia.Sum(made(gorgonia.HadamardProd(p, made(gorgonia.Sigmoid(b.Input("x2", 3))))), 1))
		return Model{Loss: made(gorgonia.Neg(made(gorgonia.Mean(made(gorgonia.Log(like)))))), Output: p}, nil
	},
	// Embeddings: the table is ours, what is done with its rows Gorgonia's.
	"embeddings": func(b *Builder) (Model, error) {
		u := b.Lookup(b.Table("users", users, 4, .5), b.Input("idx_user", 1))
		v := b.Lookup(b.Table("items", items, 4, .5), b.Input("idx_item", 1))
		score := made(gorgonia.Sum(made(gorgonia.HadamardProd(u, v)), 1))
		target := made(gorgonia.Reshape(b.Input("y", 1), tensor.Shape{b.Rows()}))
		loss := made(gorgonia.Mean(made(gorgonia.Softplus(made(gorgonia.HadamardProd(score, made(gorgonia.Sub(one(b), made(gorgonia.Add(target, target))))))))))
		return Model{Loss: loss, Output: u}, nil
	},
	// Layer normalisation between layers, and a loss of Gorgonia's.
	"normalised": func(b *Builder) (Model, error) {
		h := b.LayerNorm("norm", b.Dense("l1", b.Input("x", 3), 6, program.None, "he_uniform"), 1e-3)
		h = made(gorgonia.Mish(h))
		z := b.LogSoftmax(b.Dense("l2", h, 4, program.None, "he_uniform"))
		return Model{Loss: made(gorgonia.Mean(made(gorgonia.Square(z)))), Output: z}, nil
	},
}

func backend(t testing.TB) program.Backend {
	t.Helper()
	k, err := cpu.New(cpu.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestForeignModels checks every model's gradient by finite differences, and its program on the CPU against the graph.
func TestForeignModels(t *testing.T) {
	for name, build := range foreignModels {
		t.Run(name, func(t *testing.T) {
			for _, rows := range []int{3, 5, 33} {
				if err := Check(build, CheckOptions{Rows: rows, Backend: backend(t)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestForeignModelsAgainstTapeMachine trains them as TestBackendAgainstTapeMachine does ours.
func TestForeignModelsAgainstTapeMachine(t *testing.T) {
	for name, build := range foreignModels {
		t.Run(name, func(t *testing.T) { backendAgainstTape(t, build) })
	}
}
