// Package graph turns models into programs: a task describes its model once, as a Gorgonia graph, and
// Compile differentiates the graph and lowers it.
//
// What enters: a function that builds the model on a Builder. What leaves: a program.Set. Gorgonia has
// no symbolic batch, so the function is called once for every batch size and must build the same model
// each time. It may not be assumed that a node means anything after Compile has returned, and the
// graph is never run here: backends run programs. This is the only package that imports gorgonia.
//
// In the order of processing: builder.go and layers.go make nodes, op.go is the one Op type behind them,
// foreign.go recognises the ops that are Gorgonia's own, verify.go checks what Grad has made, lower.go
// writes instructions, plan.go places temporaries, compile.go drives all of it. reference.go lets
// Gorgonia's TapeMachine run our ops, as an oracle in tests.
package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/train/program"
	"gonum.org/v1/gonum/graph"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Node is a value of the model: a matrix of one row for each row of the batch, a parameter, or a
// scalar such as a loss.
type Node = gorgonia.Node

// Builder makes the nodes of one graph. After the first fault its methods return nil and do nothing
// else; Compile reports that fault, so a model needs no error handling of its own.
type Builder struct {
	g        *gorgonia.ExprGraph
	rows     int
	training bool
	dtype    tensor.Dtype

	names  map[string]*Node // inputs and parameters
	inputs []*Node
	params []*param
	consts []*param
	needs  map[*Node]bool // memo of reachesParam
	ones   map[*Node]*Node
	pulled map[*Node][]*Node // what SymDiff of an op of ours returned, by the op's node

	custom  []Custom
	unknown bool // verify met ops whose gradient it does not know by form

	lastOp uint32
	sites  uint32 // of Dropout and Sample, in the order in which they were made
	at     string // what is being built, for errors
	err    error
	clock  clock
}

// param is a weight together with what the set says of it.
type param struct {
	node  *Node
	spec  program.TensorSpec
	table bool   // read by lookups, trained by an optimizer of rows
	uses  string // of a table, as its optimizer has them in Attr.Uses
}

// clock is where the reference Dropout stands: programs get theirs from the schedule.
type clock struct {
	seed uint64
	step uint32
}

func newBuilder(rows int, training bool, dtype tensor.Dtype) *Builder {
	return &Builder{
		g:        gorgonia.NewGraph(),
		rows:     rows,
		training: training,
		dtype:    dtype,
		names:    map[string]*Node{},
		needs:    map[*Node]bool{},
		ones:     map[*Node]*Node{},
		pulled:   map[*Node][]*Node{},
	}
}

// Rows is the batch size of the graph under construction. A model may not depend on it but through the
// shapes of its nodes.
func (b *Builder) Rows() int { return b.rows }

// Training says whether the graph is for training; Dropout heeds it by itself.
func (b *Builder) Training() bool { return b.training }

// Fail records a fault that the model found in itself, as if a layer had.
func (b *Builder) Fail(err error) {
	if b.err == nil && err != nil {
		b.err = err
	}
}

func (b *Builder) failf(format string, args ...any) *Node {
	b.Fail(fmt.Errorf(format, args...))
	return nil
}

// Number is a constant for Gorgonia's operations, such as the exponent of Pow, in the type that the graph has: Compile
// builds a model in float64 too, where it looks what Gorgonia does with it, and so does Check.
func (b *Builder) Number(x float64) *Node {
	if b.dtype == tensor.Float64 {
		return gorgonia.NewConstant(x)
	}
	return gorgonia.NewConstant(float32(x))
}

// Input is a column of the data, [rows, width]. In training programs it is gathered from the bound
// column of that name, in a forward program it is what the caller hands over. It has no gradient.
func (b *Builder) Input(name string, width int) *Node {
	if b.err != nil {
		return nil
	}
	if width < 1 {
		return b.failf("graph: input %q: width %d, want at least 1", name, width)
	}
	n := b.leaf("input", name, b.rows, width)
	if n != nil {
		b.inputs = append(b.inputs, n)
	}
	return n
}

// Param is a weight of shape [dims...], one or two of them. A matrix is [in, out]. Init is "zero", "one",
// "he_uniform", "glorot_uniform" or "fan_in_uniform", see program.TensorSpec; the fan-in is dims[0]. Names are paths such as "tower0/l1.weight"; a name used twice, by
// parameters or inputs, is an error, since Gorgonia would make one node of the two.
func (b *Builder) Param(name, init string, dims ...int) *Node {
	fanIn := 0
	if len(dims) > 0 {
		fanIn = dims[0]
	}
	return b.param(name, init, fanIn, dims...)
}

// param is Param with a fan-in of its own: a bias has that of its layer.
func (b *Builder) param(name, init string, fanIn int, dims ...int) *Node {
	if b.err != nil {
		return nil
	}
	if len(dims) < 1 || len(dims) > 2 {
		return b.failf("graph: parameter %q: %d dimensions, want 1 or 2", name, len(dims))
	}
	for _, d := range dims {
		if d < 1 {
			return b.failf("graph: parameter %q: shape %v, want every dimension at least 1", name, dims)
		}
	}
	switch init {
	case "zero", "one", "he_uniform", "glorot_uniform", "fan_in_uniform":
	default:
		return b.failf("graph: parameter %q: unknown init %q, want zero, one, he_uniform, glorot_uniform or fan_in_uniform",
			name, init)
	}
	n := b.leaf("parameter", name, dims...)
	if n == nil {
		return nil
	}
	spec := program.TensorSpec{Name: name, Shape: append([]int(nil), dims...), Init: init,
		FanIn: fanIn, FanOut: dims[len(dims)-1], Site: uint32(len(b.params))}
	b.params = append(b.params, &param{node: n, spec: spec})
	b.needs[n] = true
	return n
}

// Table is an embedding table [rows,dim]: a parameter that the loss reads through Lookup alone, so that a step updates the rows it
// has read and no others. It starts normal with deviation scale.
func (b *Builder) Table(name string, rows, dim int, scale float64) *Node {
	if b.err != nil {
		return nil
	}
	if rows < 1 || dim < 1 {
		return b.failf("graph: table %q: shape [%d %d], want every dimension at least 1", name, rows, dim)
	}
	if !(scale > 0 && scale <= math.MaxFloat32) {
		return b.failf("graph: table %q: scale %v, want it finite and above 0", name, scale)
	}
	n := b.leaf("table", name, rows, dim)
	if n == nil {
		return nil
	}
	spec := program.TensorSpec{Name: name, Shape: []int{rows, dim}, Init: "normal", Scale: scale, Site: uint32(len(b.params))}
	b.params = append(b.params, &param{node: n, spec: spec, table: true})
	b.needs[n] = true
	return n
}

// Const is a tensor of shape [dims...], one or two of them, that is not trained: the set lists it among its Consts, and whoever
// trains imports its values under its name.
func (b *Builder) Const(name string, dims ...int) *Node {
	if b.err != nil {
		return nil
	}
	if len(dims) < 1 || len(dims) > 2 || slices.Min(dims) < 1 {
		return b.failf("graph: constant %q: shape %v, want one or two dimensions, each at least 1", name, dims)
	}
	n := b.leaf("constant", name, dims...)
	if n != nil {
		b.consts = append(b.consts, &param{node: n, spec: program.TensorSpec{Name: name, Shape: slices.Clone(dims)}})
	}
	return n
}

// leaf makes a node without an op. The name is checked before Gorgonia sees it.
func (b *Builder) leaf(what, name string, dims ...int) *Node {
	if name == "" {
		return b.failf("graph: %s without a name", what)
	}
	if b.names[name] != nil || name == slotLoss || name == slotRows || name == outputName {
		return b.failf("graph: %s %q: the name is taken; give every input and parameter a path of its own", what, name)
	}
	b.at = what + " " + name
	opts := []gorgonia.NodeConsOpt{gorgonia.WithName(name), gorgonia.WithShape(dims...)}
	var n *Node
	if len(dims) == 1 {
		n = gorgonia.NewVector(b.g, b.dtype, opts...)
	} else {
		n = gorgonia.NewMatrix(b.g, b.dtype, opts...)
	}
	b.names[name] = n
	return n
}

// usable reports whether a layer may go on: no fault so far, and every node belongs to this graph.
func (b *Builder) usable(what string, xs ...*Node) bool {
	if b.err != nil {
		return false
	}
	for i, x := range xs {
		if x == nil {
			b.failf("graph: %s: operand %d is nil", what, i)
		} else if x.Graph() != b.g {
			b.failf("graph: %s: operand %d (%s) belongs to another graph; keep no nodes between calls", what, i, x.Name())
		}
	}
	return b.err == nil
}

// adopt accepts a node that Gorgonia made: it must have the operands that were asked for, or Gorgonia
// took it for another node whose 32-bit hash agrees.
func (b *Builder) adopt(n *Node, args ...*Node) error {
	have, err := children(n)
	if err != nil {
		return err
	}
	if !sameNodes(have, args) {
		return fmt.Errorf("graph: %s: Gorgonia merged the node with another whose hash agrees; rename a layer", b.at)
	}
	return nil
}

// reachesParam says whether a gradient has to flow through the node.
func (b *Builder) reachesParam(n *Node) (bool, error) {
	if known, ok := b.needs[n]; ok {
		return known, nil
	}
	kids, err := children(n)
	if err != nil {
		return false, err
	}
	reaches := false
	if flat(n) {
		kids = nil
	}
	for _, k := range kids {
		r, err := b.reachesParam(k)
		if err != nil {
			return false, err
		}
		reaches = reaches || r
	}
	b.needs[n] = reaches
	return reaches, nil
}

func sameNodes(a, b []*Node) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// children are the operands of a node. Gorgonia looks them up through an index that goes stale when
// it removes nodes, hence the check.
func children(n *Node) ([]*Node, error) {
	g := n.Graph()
	if g == nil {
		return nil, nil // a constant that is not in the graph yet
	}
	if got, ok := g.Node(n.ID()).(*Node); !ok || got != n {
		return nil, fmt.Errorf("graph: %s: Gorgonia's index of nodes is stale; the graph cannot be read back", n.Name())
	}
	it := g.From(n.ID())
	if it == nil {
		return nil, nil
	}
	var kids []*Node
	for _, k := range graph.NodesOf(it) {
		kids = append(kids, k.(*Node))
	}
	return kids, nil
}

// dims is the shape of a node's value: a scalar has one element in programs.
func dims(n *Node) []int {
	s := n.Shape()
	if n.IsScalar() || len(s) == 0 {
		return []int{1}
	}
	return append([]int(nil), s...)
}
