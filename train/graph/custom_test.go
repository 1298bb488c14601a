package graph

import (
	"hash"
	"strings"
	"testing"

	"github.com/chewxy/hm"
	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// TestNumbers: a constant is of the type that the graph has, whatever that is.
func TestNumbers(t *testing.T) {
	build := func(b *Builder) (Model, error) {
		h := b.Dense("h", b.Input("x", 3), 4, program.None, "glorot_uniform")
		h = made(gorgonia.Pow(made(gorgonia.Softplus(h)), b.Number(1.5)))
		z := b.Dense("out", made(gorgonia.Add(h, b.Number(.25))), 1, program.None, "glorot_uniform")
		return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
	}
	if err := Check(build, CheckOptions{Backend: backend(t)}); err != nil {
		t.Error(err)
	}
}

// TestLoweringsThatFail: what a user's lowering does wrong is said of its node.
func TestLoweringsThatFail(t *testing.T) {
	build := func(b *Builder) (Model, error) {
		h := b.Dense("h", b.Input("x", 3), 4, program.None, "glorot_uniform")
		h = made(gorgonia.ApplyOp(&halve{}, h))
		z := b.Dense("out", h, 1, program.None, "glorot_uniform")
		return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
	}
	for name, c := range map[string]struct {
		lower Lowering
		want  []string
	}{
		"none":      {nil, []string{"halve is registered without a lowering"}},
		"panics":    {func(e *Emitter, n *Node, args []Value) Value { return args[7] }, []string{"at node halve(", "index out of range [7]"}},
		"negative":  {func(e *Emitter, n *Node, args []Value) Value { return e.Reshape(args[0], -8, -2) }, []string{"cannot be reshaped to [-8 -2]"}},
		"no result": {func(e *Emitter, n *Node, args []Value) Value { return Value{} }, []string{"left shape []"}},
	} {
		_, err := Compile(build, Options{Batch: 4, Rows: 40, Tile: 8, Optimizer: adam, Ops: []Custom{Register(&halve{}, c.lower)}})
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", name, err, want)
			}
		}
	}
}

// halve is x/2, an operation of a user's own.
type halve struct{}

func (*halve) Arity() int { return 1 }
func (*halve) Type() hm.Type {
	m := gorgonia.TensorType{Dims: 2, Of: hm.TypeVariable('a')}
	return hm.NewFnType(m, m)
}
func (*halve) InferShape(s ...gorgonia.DimSizer) (tensor.Shape, error) {
	return s[0].(tensor.Shape).Clone(), nil
}
func (*halve) Do(vs ...gorgonia.Value) (gorgonia.Value, error) {
	y := vs[0].(*tensor.Dense).Clone().(*tensor.Dense)
	x := y.Data().([]float64)
	for i := range x {
		x[i] /= 2
	}
	return y, nil
}
func (*halve) ReturnsPtr() bool      { return false }
func (*halve) CallsExtern() bool     { return false }
func (*halve) OverwritesInput() int  { return -1 }
func (*halve) WriteHash(h hash.Hash) { h.Write([]byte("halve")) }
func (*halve) Hashcode() uint32      { return 81_000 }
func (*halve) String() string        { return "halve" }
func (*halve) DiffWRT(int) []bool    { return []bool{true} }
func (o *halve) SymDiff(in gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	y, err := gorgonia.ApplyOp(o, grad)
	return gorgonia.Nodes{y}, err
}
