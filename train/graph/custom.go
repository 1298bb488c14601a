package graph

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
)

// Lowering writes the instructions of one node of a registered op. args are what its operands left, in their order; the
// result has to have the shape of the node. A fault is reported by Emitter.Fail.
type Lowering func(e *Emitter, n *Node, args []Value) Value

// Custom is an op of a user's own together with its lowering, for Options.Ops.
type Custom struct {
	op    reflect.Type
	lower Lowering
}

// Register makes every op of the type of op lower by the function. The type implements gorgonia.Op and, to be trained
// through, SDOp, whose SymDiff may use any op that lowers. Its WriteHash has to write every attribute in full: Gorgonia
// makes one node of two whose hashes agree. Nothing is global: the result counts where Options.Ops lists it.
func Register(op gorgonia.Op, lower Lowering) Custom {
	return Custom{op: reflect.TypeOf(op), lower: lower}
}

// registered is what the options say of an op, or nil.
func (b *Builder) registered(o gorgonia.Op) *Custom {
	for i := range b.custom {
		if b.custom[i].op == reflect.TypeOf(o) {
			return &b.custom[i]
		}
	}
	return nil
}

// Value is the result of an instruction while a node is lowered.
type Value struct {
	v     value
	shape []int
}

// Shape of the value; a scalar has [1].
func (v Value) Shape() []int { return slices.Clone(v.shape) }

// Emitter writes instructions for a Lowering. After the first fault it does nothing else, and Compile reports that
// fault.
type Emitter struct {
	l    *lowering
	node *Node
	err  error
}

// Fail records that the node cannot be lowered.
func (e *Emitter) Fail(err error) {
	if e.err == nil && err != nil {
		e.err = fmt.Errorf("graph: node %s: %w", e.node.Name(), err)
	}
}

// Const is a number that is the same in each step.
func (e *Emitter) Const(c float32) Value { return Value{value{constant: true, c: c}, []int{1}} }

// Map is an elementwise expression, see program.ParseExpr: x0, x1, ... are args, each broadcast to shape.
func (e *Emitter) Map(expr string, shape []int, args ...Value) Value {
	bufs := e.buffers(args...)
	if e.err != nil {
		return Value{}
	}
	if _, err := program.ParseExpr(expr, len(args)); err != nil {
		e.Fail(err)
		return Value{}
	}
	for k, a := range args {
		if !program.Broadcasts(e.l.p.Buffers[bufs[k]].Shape, shape) {
			e.Fail(fmt.Errorf("operand %d has shape %v, which cannot be broadcast to %v", k, a.shape, shape))
			return Value{}
		}
	}
	return e.instr(program.Map, program.Attr{Expr: expr}, shape, bufs...)
}

// Reduce folds x along an axis, which the result no longer has.
func (e *Emitter) Reduce(fold program.Fold, axis int, x Value) Value {
	bufs := e.buffers(x)
	if e.err != nil {
		return Value{}
	}
	if axis < 0 || axis >= len(x.shape) {
		e.Fail(fmt.Errorf("no dimension %d in %v", axis, x.shape))
		return Value{}
	}
	rest := slices.Delete(x.Shape(), axis, axis+1)
	if len(rest) == 0 {
		rest = []int{1}
	}
	return e.instr(program.Reduce, program.Attr{Fold: fold, Axis: axis}, rest, bufs...)
}

// MatMul is the product of two matrices, each transposed if so.
func (e *Emitter) MatMul(a, b Value, transA, transB bool) Value {
	bufs := e.buffers(a, b)
	if e.err != nil {
		return Value{}
	}
	if len(a.shape) != 2 || len(b.shape) != 2 {
		e.Fail(fmt.Errorf("a product of %v and %v: want matrices", a.shape, b.shape))
		return Value{}
	}
	m, k, k2, n := a.shape[0], a.shape[1], b.shape[0], b.shape[1]
	if transA {
		m, k = k, m
	}
	if transB {
		k2, n = n, k2
	}
	if k != k2 {
		e.Fail(fmt.Errorf("a product of %v and %v (transposed: %t, %t) does not fit", a.shape, b.shape, transA, transB))
		return Value{}
	}
	return e.instr(program.MatMul, program.Attr{TransA: transA, TransB: transB}, []int{m, n}, bufs...)
}

// Reshape is x in another shape of as many elements.
func (e *Emitter) Reshape(x Value, shape ...int) Value {
	bufs := e.buffers(x)
	if e.err != nil {
		return Value{}
	}
	if slices.ContainsFunc(shape, func(d int) bool { return d < 1 }) || e.l.elements(x.shape) != e.l.elements(shape) {
		e.Fail(fmt.Errorf("%v cannot be reshaped to %v", x.shape, shape))
		return Value{}
	}
	return Value{value{buf: e.l.shaped(bufs[0], shape, e.node.Name())}, slices.Clone(shape)}
}

func (e *Emitter) buffers(args ...Value) []int {
	var bufs []int
	for k, a := range args {
		if a.shape == nil {
			e.Fail(fmt.Errorf("operand %d is the zero Value", k))
		}
		if e.err == nil {
			bufs = append(bufs, e.l.place(a.v))
		}
	}
	return bufs
}

func (e *Emitter) instr(op program.Op, attr program.Attr, shape []int, bufs ...int) Value {
	out := e.l.buffer(e.node.Name(), program.Temp, program.F32, slices.Clone(shape))
	e.l.emit(op, attr, e.node.Name(), bufs, []int{out})
	return Value{value{buf: out}, slices.Clone(shape)}
}

// custom lowers a node of a registered op.
func (l *lowering) custom(n *Node, c *Custom, args []value) error {
	if c.lower == nil {
		return fmt.Errorf("graph: node %s: %s is registered without a lowering", n.Name(), n.Op())
	}
	l.b.at = n.Name()
	e := &Emitter{l: l, node: n}
	in := make([]Value, len(args))
	for i, a := range args {
		in[i] = Value{a, []int{1}}
		if !a.constant {
			in[i].shape = slices.Clone(l.p.Buffers[a.buf].Shape)
		}
	}
	out := c.lower(e, n, in)
	if e.err == nil && !slices.Equal(out.shape, dims(n)) {
		e.Fail(fmt.Errorf("the lowering of %s left shape %v, the node has %v", n.Op(), out.shape, dims(n)))
	}
	if e.err != nil {
		return e.err
	}
	l.values[n] = out.v
	return nil
}
