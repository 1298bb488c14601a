package graph

import (
	"fmt"
	"hash"
	"slices"

	"github.com/chewxy/hm"
	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// op is every operation of ours: a gorgonia.Op and SDOp that stands for one instruction. Shape,
// derivative and reference of an instruction are each a case in one function: shape, pullback and
// reference. Adding an operation means adding to those three.
type op struct {
	b    *Builder
	id   uint32 // unique in the graph, from 1
	kind program.Op
	attr program.Attr
	// width of the result of SliceGrad, the rows of that of Sample and of a table's gradient: not part of Attr, since
	// the program has it in the buffer.
	width int
	// part is 1 in the node of an instruction's second result, whose operand 0 is the node of the first.
	part   int
	of     uint32 // of a table's gradient: the id of what reads the table
	rows   int    // of a Sample that every row has of its own
	ranks  []int  // of the operands
	wants  []bool // operands that get a gradient
	output tensor.Shape
}

// tableGrad is the gradient of a table by one reading of it, (idx, dy) -> [n,d] of a Lookup, (idx, s, a) -> [n,d] of a
// LookupDot or LookupWeighted. It is an operation of graphs alone: the lowering hands its operands to the table's
// optimizer, and nothing dense is made of them.
const tableGrad program.Op = "table_grad"

// differentiable lists for each kind the operands that a gradient can flow to; the others have none.
func differentiable(kind program.Op, operand int) bool {
	switch kind {
	case program.MatMul, program.Activate, program.Add, program.Scale, program.Dropout, program.Concat, program.Slice,
		program.RowDot, program.RowScale, program.Softmax, program.LogSoftmax, program.LayerNorm:
		return true
	case program.BCE, program.Lookup, program.Pinball, program.CandidateSoftmax, program.CandidateBPR:
		return operand == 0
	case program.LookupDot, program.LookupWeighted:
		return operand != 1
	case program.SampledSoftmax:
		return operand <= 1
	}
	return false
}

// apply makes a node of one of our ops. An empty name makes one from the kind.
func (b *Builder) apply(name string, kind program.Op, attr program.Attr, width int, args ...*Node) *Node {
	if b.err != nil {
		return nil
	}
	n, err := b.node(name, kind, attr, width, args...)
	if err != nil {
		return b.failf("%w", err)
	}
	return n
}

func (b *Builder) node(name string, kind program.Op, attr program.Attr, width int, args ...*Node) (*Node, error) {
	return b.nodeOf(name, &op{kind: kind, attr: attr, width: width}, args...)
}

func (b *Builder) nodeOf(name string, o *op, args ...*Node) (*Node, error) {
	b.lastOp++
	kind := o.kind
	if name == "" {
		name = fmt.Sprintf("%s#%d", kind, b.lastOp)
	}
	b.at = name
	o.b, o.id = b, b.lastOp
	var shapes [][]int
	for i, a := range args {
		rank := len(dims(a))
		if a.IsScalar() {
			rank = 0
		}
		o.ranks = append(o.ranks, rank)
		reaches, err := b.reachesParam(a)
		if err != nil {
			return nil, err
		}
		o.wants = append(o.wants, differentiable(kind, i) && reaches)
		shapes = append(shapes, dims(a))
	}
	out, err := o.shape(shapes)
	if err != nil {
		return nil, fmt.Errorf("graph: %s: %w", name, err)
	}
	o.output = out
	n, err := gorgonia.ApplyOp(o, slices.Clone(args)...)
	if err != nil {
		return nil, fmt.Errorf("graph: %s: %w", name, err)
	}
	gorgonia.WithName(name)(n)
	return n, b.adopt(n, args...)
}

// shape of the result. A scalar is the empty shape here, and one element in a program.
func (o *op) shape(in [][]int) (tensor.Shape, error) {
	switch o.kind {
	case program.MatMul:
		m, k := in[0][0], in[0][1]
		if o.attr.TransA {
			m, k = k, m
		}
		k2, n := in[1][0], in[1][1]
		if o.attr.TransB {
			k2, n = n, k2
		}
		if k != k2 || len(in) == 3 && !slices.Equal(in[2], []int{n}) {
			return nil, fmt.Errorf("%s of shapes %v does not fit", o.kind, in)
		}
		return tensor.Shape{m, n}, nil
	case program.ColSum:
		return tensor.Shape{in[0][1]}, nil
	case program.Concat:
		w := 0
		for _, s := range in {
			w += s[1]
		}
		return tensor.Shape{in[0][0], w}, nil
	case program.Slice:
		return tensor.Shape{in[0][0], o.attr.To - o.attr.From}, nil
	case program.SliceGrad:
		return tensor.Shape{in[0][0], o.width}, nil
	case program.BCE, program.SampledSoftmax, program.Pinball, program.CandidateSoftmax, program.CandidateBPR:
		return tensor.Shape{}, nil
	case program.LookupDot:
		return slices.Clone(in[1]), nil
	case program.LookupWeighted:
		return tensor.Shape{in[1][0], in[0][1]}, nil
	case program.Lookup:
		return tensor.Shape{in[1][0], in[0][1]}, nil
	case tableGrad:
		return tensor.Shape{o.width, in[len(in)-1][1]}, nil
	case program.Sample:
		if o.rows > 0 {
			return tensor.Shape{o.rows, o.width}, nil
		}
		return tensor.Shape{o.width, 1}, nil
	case program.RowDot:
		return tensor.Shape{in[0][0], 1}, nil
	case program.SoftmaxGrad, program.LogSoftmaxGrad, program.Softmax, program.LogSoftmax, program.LayerNorm,
		program.LayerNormGrad:
		return slices.Clone(in[0]), nil // in the second part of the gradient, which has the first before it, too
	case program.SampledSoftmaxGrad:
		return slices.Clone(in[1]), nil // of neg; in the second part, which has the first before it, of pos
	case program.Activate, program.ActGrad, program.Scale, program.Fill, program.Dropout, program.BCEGrad, program.RowScale,
		program.PinballGrad, program.CandidateSoftmaxGrad, program.CandidateBPRGrad:
		if len(o.ranks) > 0 && o.ranks[0] == 0 {
			return tensor.Shape{}, nil
		}
		return slices.Clone(in[0]), nil
	}
	return nil, fmt.Errorf("no operation of the graph is called %s", o.kind)
}

// pullback makes the gradients of the operands from that of the result. Only those that are wanted.
func (o *op) pullback(in []*Node, out, grad *Node) ([]*Node, error) {
	grads := make([]*Node, len(in))
	name := out.Name()
	var err error
	makeNode := func(to *Node, suffix string, kind program.Op, attr program.Attr, args ...*Node) *Node {
		if err != nil {
			return nil
		}
		width := 0
		if kind == program.SliceGrad {
			width = dims(to)[1]
		}
		var n *Node
		n, err = o.b.node(name+" "+suffix, kind, attr, width, args...)
		return n
	}
	switch o.kind {
	case program.MatMul:
		dz := grad
		switch o.attr.Act {
		case program.Silu:
			return nil, fmt.Errorf("graph: %s: the gradient of silu needs what it was applied to; apply it as an operation of its own", name)
		case program.Relu:
			dz = makeNode(out, "dz", program.ActGrad, program.Attr{Act: o.attr.Act}, grad, out)
		}
		if o.attr.TransA {
			return nil, fmt.Errorf("graph: %s: a product with a transposed left side has no gradient", name)
		}
		// The operand first: then W is no longer read when its own gradient is there.
		if o.wants[0] {
			grads[0] = makeNode(in[0], "dx", program.MatMul, program.Attr{TransB: !o.attr.TransB}, dz, in[1])
		}
		if len(in) == 3 && o.wants[2] {
			grads[2] = makeNode(in[2], "db", program.ColSum, program.Attr{}, dz)
		}
		if o.wants[1] {
			left, right := in[0], dz
			if o.attr.TransB {
				left, right = dz, in[0]
			}
			grads[1] = makeNode(in[1], "dw", program.MatMul, program.Attr{TransA: true}, left, right)
		}
	case program.Activate:
		of := in[0]
		if o.attr.Act == program.Relu {
			of = out
		}
		if o.wants[0] {
			grads[0] = makeNode(in[0], "dz", program.ActGrad, o.attr, grad, of)
		}
	case program.Scale, program.Dropout:
		if o.wants[0] {
			grads[0] = makeNode(in[0], "dx", o.kind, o.attr, grad)
		}
	case program.Concat:
		at := 0
		for i, x := range in {
			w := dims(x)[1]
			if o.wants[i] {
				grads[i] = makeNode(x, fmt.Sprintf("dx%d", i), program.Slice, program.Attr{From: at, To: at + w}, grad)
			}
			at += w
		}
	case program.Slice:
		if o.wants[0] {
			grads[0] = makeNode(in[0], "dx", program.SliceGrad, program.Attr{From: o.attr.From, To: o.attr.To}, grad)
		}
	case program.BCE:
		if o.wants[0] {
			grads[0] = makeNode(in[0], "dz", program.BCEGrad, program.Attr{}, in[0], in[1], in[2], grad)
		}
	case program.Pinball:
		if o.wants[0] {
			grads[0] = makeNode(in[0], "dy", program.PinballGrad, o.attr, in[0], in[1], in[2], grad)
		}
	case program.RowDot:
		for i := range in {
			if o.wants[i] {
				grads[i] = makeNode(in[i], fmt.Sprintf("d%d", i), program.RowScale, program.Attr{}, in[1-i], grad)
			}
		}
	case program.RowScale:
		if o.wants[0] {
			grads[0] = makeNode(in[0], "dx", program.RowScale, program.Attr{}, grad, in[1])
		}
		if o.wants[1] {
			grads[1] = makeNode(in[1], "ds", program.RowDot, program.Attr{}, grad, in[0])
		}
	case program.Softmax, program.LogSoftmax:
		kind := program.SoftmaxGrad
		if o.kind == program.LogSoftmax {
			kind = program.LogSoftmaxGrad
		}
		if o.wants[0] {
			grads[0] = makeNode(in[0], "dx", kind, program.Attr{}, grad, out)
		}
	case program.LayerNorm:
		args := []*Node{grad, in[0], in[1]}
		dx := makeNode(in[0], "dx", program.LayerNormGrad, o.attr, args...)
		if o.wants[0] {
			grads[0] = dx
		}
		if o.wants[1] && err == nil {
			var t *Node
			t, err = o.b.nodeOf(name+" terms", &op{kind: program.LayerNormGrad, attr: o.attr, part: 1},
				append([]*Node{dx}, args...)...)
			grads[1] = makeNode(in[1], "dgain", program.ColSum, program.Attr{}, t)
		}
		if o.wants[2] {
			grads[2] = makeNode(in[2], "dbias", program.ColSum, program.Attr{}, grad)
		}
	case program.Lookup:
		if o.wants[0] {
			grads[0], err = o.tableGrad(name, in[0], in[1], grad)
		}
	case program.LookupDot:
		if o.wants[2] {
			grads[2] = makeNode(in[2], "da", program.LookupWeighted, program.Attr{}, in[0], in[1], grad)
		}
		if o.wants[0] && err == nil {
			grads[0], err = o.tableGrad(name, in[0], in[1], grad, in[2])
		}
	case program.LookupWeighted:
		if o.wants[2] {
			grads[2] = makeNode(in[2], "ds", program.LookupDot, program.Attr{}, in[0], in[1], grad)
		}
		if o.wants[0] && err == nil {
			grads[0], err = o.tableGrad(name, in[0], in[1], in[2], grad)
		}
	case program.CandidateSoftmax, program.CandidateBPR:
		back := map[program.Op]program.Op{program.CandidateSoftmax: program.CandidateSoftmaxGrad,
			program.CandidateBPR: program.CandidateBPRGrad}[o.kind]
		args := slices.Insert(slices.Clone(in), 3, grad) // logq comes behind it
		if o.wants[0] {
			grads[0] = makeNode(in[0], "ds", back, program.Attr{}, args...)
		}
	case program.SampledSoftmax:
		args := append(slices.Clone(in), grad)
		dneg := makeNode(in[1], "dneg", program.SampledSoftmaxGrad, program.Attr{}, args...)
		if o.wants[1] {
			grads[1] = dneg
		}
		if o.wants[0] && err == nil {
			grads[0], err = o.b.nodeOf(name+" dpos", &op{kind: program.SampledSoftmaxGrad, part: 1}, append([]*Node{dneg}, args...)...)
		}
	default:
		return nil, fmt.Errorf("graph: %s (%s) has no gradient", name, o.kind)
	}
	return grads, err
}

// tableGrad makes the node of a table's gradient.
func (o *op) tableGrad(name string, table *Node, args ...*Node) (*Node, error) {
	return o.b.nodeOf(name+" dtable", &op{kind: tableGrad, width: dims(table)[0], of: o.id}, args...)
}

// What follows fulfils gorgonia.Op and gorgonia.SDOp.

// Arity is the number of operands.
func (o *op) Arity() int { return len(o.ranks) }

// Type takes matrices, vectors and scalars of one element type, by rank.
func (o *op) Type() hm.Type {
	a := hm.TypeVariable('a')
	of := func(rank int) hm.Type {
		if rank == 0 {
			return a
		}
		return gorgonia.TensorType{Dims: rank, Of: a}
	}
	var ts []hm.Type
	for _, r := range o.ranks {
		ts = append(ts, of(r))
	}
	return hm.NewFnType(append(ts, of(len(o.output)))...)
}

// InferShape was done when the op was made: an op is applied once, to operands it knows.
func (o *op) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) { return o.output.Clone(), nil }

// Do computes the op for Gorgonia's machines, see reference.
func (o *op) Do(args ...gorgonia.Value) (gorgonia.Value, error) { return o.reference(args) }

// ReturnsPtr tells Gorgonia that a result is fresh memory.
func (o *op) ReturnsPtr() bool { return false }

// CallsExtern is false: there is no cgo.
func (o *op) CallsExtern() bool { return false }

// OverwritesInput is -1: Do never writes in place.
func (o *op) OverwritesInput() int { return -1 }

// WriteHash writes every attribute in full, and the id, so that no two of our nodes agree.
func (o *op) WriteHash(h hash.Hash) {
	fmt.Fprintf(h, "onmart %s %d %#v %d %d %d %d %v", o.kind, o.id, o.attr, o.width, o.part, o.of, o.rows, o.output)
}

// Hashcode is the id itself: Gorgonia takes ops with one hash code for the same op.
func (o *op) Hashcode() uint32 { return o.id }

// String is the kind.
func (o *op) String() string { return string(o.kind) }

// DiffWRT says which operands get a gradient.
func (o *op) DiffWRT(int) []bool { return slices.Clone(o.wants) }

// SymDiff is the pullback, kept for verify.
func (o *op) SymDiff(in gorgonia.Nodes, out, grad *Node) (gorgonia.Nodes, error) {
	grads, err := o.pullback(in, out, grad)
	o.b.pulled[out] = grads
	return grads, err
}
