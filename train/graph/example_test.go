package graph_test

import (
	"fmt"
	"hash"
	"log"

	"github.com/chewxy/hm"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// line is a model in Gorgonia's own operations: y = x w + b by squared errors.
func line(b *graph.Builder) (graph.Model, error) {
	x, y := b.Input("x", 2), b.Input("y", 1)
	w, bias := b.Param("w", "zero", 2, 3), b.Param("bias", "zero", 1, 3)
	out := b.Param("out", "glorot_uniform", 3, 1)
	h, err := gorgonia.BroadcastAdd(b.MatMul(x, w), bias, nil, []byte{0})
	if err != nil {
		return graph.Model{}, err
	}
	h = gorgonia.Must(gorgonia.Tanh(h))
	z := b.MatMul(h, out)
	loss := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Square(gorgonia.Must(gorgonia.Sub(z, y))))))
	return graph.Model{Loss: loss, Output: z}, nil
}

// A model goes from Gorgonia's operations to instructions: the bias and the product are one, tanh and its gradient are
// one elementwise expression each.
func ExampleCompile() {
	set, err := graph.Compile(line, graph.Options{Batch: 64, Rows: 640, Tile: 64,
		Optimizer: graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(set.Forward)
	for _, in := range set.Train.Instrs {
		if in.Op == program.Map {
			fmt.Println("map", in.Attr.Expr)
		}
	}
	// Output:
	// forward: 64 rows, 3 instructions, arena 768 bytes
	//   0 t4[64 3] = matmul x[64 2] w[2 3] bias[1 3]  # A × B(%0, %2)
	//   1 t4[64 3] = map t4[64 3] {"expr":"x0 tanh"}  # tanh(%9)
	//   2 output[64 1] = matmul t4[64 3] out[3 1]  # A × B(%a, %4)
	// map x0 tanh
	// map x0 x1 sub
	// map x0 square
	// map x0 64 div
	// map x0 2 mul x1 mul
	// map 1 x1 x1 mul sub x0 mul
}

// A compiled set runs on a backend: data is bound once, and a Run is many steps.
func ExampleCompile_train() {
	const rows = 256
	set, err := graph.Compile(line, graph.Options{Batch: 64, Rows: rows, Tile: 64,
		Optimizer: graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8}})
	if err != nil {
		log.Fatal(err)
	}
	backend, err := cpu.New(cpu.Options{})
	if err != nil {
		log.Fatal(err)
	}
	exec, err := backend.Compile(set)
	if err != nil {
		log.Fatal(err)
	}
	defer exec.Close()
	if err := exec.Import(set.Initial(1)); err != nil {
		log.Fatal(err)
	}
	x, y := make([]float32, 2*rows), make([]float32, rows)
	for i := range y {
		x[2*i], x[2*i+1] = float32(i%16)/16, float32(i/16)/16
		y[i] = x[2*i] - x[2*i+1]
	}
	rates := make([]float32, 400)
	for i := range rates {
		rates[i] = .01
	}
	err = exec.Bind(program.Data{
		Columns:  []program.Column{{Name: "x", Rows: rows, Width: 2, F32: x}, {Name: "y", Rows: rows, Width: 1, F32: y}},
		Schedule: program.Schedule{Seed: 1, Train: program.Range{To: rows}, Rates: rates},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, first := range []int{0, 396} { // slots are sums over the steps of a Run: the loss, and the rows
		slots := make([]float64, len(set.Slots))
		if first > 0 {
			if err := exec.Run(4, first-4, make([]float64, len(set.Slots))); err != nil {
				log.Fatal(err)
			}
		}
		if err := exec.Run(first, 4, slots); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("loss after %d steps: %.1g\n", first+4, slots[0]/slots[1])
	}
	// Output:
	// loss after 4 steps: 0.2
	// loss after 400 steps: 9e-06
}

// A wrong gradient is found by finite differences.
func ExampleCheck() {
	fmt.Println(graph.Check(line, graph.CheckOptions{}))
	// Gorgonia's own Log2 has a wrong gradient, and is refused before it is differentiated.
	err := graph.Check(func(b *graph.Builder) (graph.Model, error) {
		x := b.Dense("l", b.Input("x", 2), 1, program.None, "he_uniform")
		y := gorgonia.Must(gorgonia.Log2(gorgonia.Must(gorgonia.Exp(x))))
		return graph.Model{Loss: gorgonia.Must(gorgonia.Mean(y)), Output: y}, nil
	}, graph.CheckOptions{})
	fmt.Println(err)
	// Output:
	// <nil>
	// graph: node log2(%4): Gorgonia's gradient of Log2 is wrong; use Log, and Builder.Scale by 1/ln 2
}

// hinge is an op of a user's own: max(0, 1 - x), elementwise.
type hinge struct{ id int }

func (hinge) Arity() int { return 1 }
func (hinge) Type() hm.Type {
	m := gorgonia.TensorType{Dims: 2, Of: hm.TypeVariable('a')}
	return hm.NewFnType(m, m)
}
func (hinge) InferShape(s ...gorgonia.DimSizer) (tensor.Shape, error) {
	return s[0].(tensor.Shape).Clone(), nil
}
func (hinge) Do(vs ...gorgonia.Value) (gorgonia.Value, error) {
	y := vs[0].(*tensor.Dense).Clone().(*tensor.Dense)
	x := y.Data().([]float64)
	for i, v := range x {
		x[i] = max(0, 1-v)
	}
	return y, nil
}
func (hinge) ReturnsPtr() bool        { return false }
func (hinge) CallsExtern() bool       { return false }
func (hinge) OverwritesInput() int    { return -1 }
func (o hinge) WriteHash(h hash.Hash) { fmt.Fprintf(h, "hinge %d", o.id) }
func (o hinge) Hashcode() uint32      { return uint32(o.id) + 77_000 }
func (hinge) String() string          { return "hinge" }
func (hinge) DiffWRT(int) []bool      { return []bool{true} }

// SymDiff is made of Gorgonia's own: -grad where x < 1.
func (hinge) SymDiff(in gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	below, err := gorgonia.Lt(in[0], gorgonia.NewConstant(one(in[0])), true)
	if err != nil {
		return nil, err
	}
	d, err := gorgonia.HadamardProd(grad, below)
	if err != nil {
		return nil, err
	}
	n, err := gorgonia.Neg(d)
	return gorgonia.Nodes{n}, err
}

// one is 1 in the type of a node: Compile looks at a graph in float64 too.
func one(n *gorgonia.Node) any {
	if n.Dtype() == tensor.Float64 {
		return float64(1)
	}
	return float32(1)
}

// An op of a user's own is lowered by a function that writes its instructions; Check holds them and its SymDiff to
// finite differences.
func ExampleRegister() {
	ops := []graph.Custom{graph.Register(hinge{}, func(e *graph.Emitter, n *graph.Node, args []graph.Value) graph.Value {
		return e.Map("1 x0 sub 0 max", args[0].Shape(), args[0])
	})}
	model := func(b *graph.Builder) (graph.Model, error) {
		z := b.Dense("l", b.Input("x", 3), 1, program.None, "he_uniform")
		y, err := gorgonia.ApplyOp(hinge{1}, gorgonia.Must(gorgonia.HadamardProd(z, b.Input("sign", 1))))
		if err != nil {
			return graph.Model{}, err
		}
		return graph.Model{Loss: gorgonia.Must(gorgonia.Mean(y)), Output: z}, nil
	}
	backend, err := cpu.New(cpu.Options{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(graph.Check(model, graph.CheckOptions{Ops: ops, Backend: backend}))
	fmt.Println(graph.Check(model, graph.CheckOptions{}))
	// Output:
	// <nil>
	// graph: node hinge(%5): cannot lower hinge (graph_test.hinge): use the Builder's layers, or register a lowering for it (Options.Ops)
}
