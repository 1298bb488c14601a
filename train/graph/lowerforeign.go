package graph

import (
	"fmt"
	"slices"
	"strings"

	"github.com/onmart/onmart/train/program"
)

// What Gorgonia's own ops become. Elementwise functions are Maps, which plan.go fuses; Gorgonia broadcasts by reshaping
// and repeating, which is a Map of one operand, and so is fused into what reads it.

// foreign lowers one of Gorgonia's own ops. Constants are folded.
func (l *lowering) foreign(n *Node, f foreign, args []value) error {
	switch f.kind {
	case constant:
		l.values[n] = value{constant: true, c: f.value}
		return nil
	case size:
		kids, err := children(n)
		if err != nil {
			return err
		}
		if d := dims(kids[0]); f.axis < len(d) {
			l.values[n] = value{constant: true, c: float32(d[f.axis]), sized: true}
			return nil
		}
		return fmt.Errorf("graph: node %s: size along dimension %d of %v", n.Name(), f.axis, dims(kids[0]))
	}
	if v, ok := folded(f, args); ok {
		l.values[n] = v
		return nil
	}
	switch f.kind {
	case negation:
		l.result(n, program.Scale, program.Attr{Scale: -1}, args[0].buf)
		return nil
	case addition:
		if l.alike(args[0], args[1]) {
			l.result(n, program.Add, program.Attr{}, args[0].buf, args[1].buf)
			return nil
		}
		return l.mapped(n, program.FnAdd, args)
	case elementwise:
		if x, c := args[0], args[1]; x.constant != c.constant {
			if x.constant {
				x, c = c, x
			}
			if slices.Equal(l.p.Buffers[x.buf].Shape, dims(n)) {
				l.result(n, program.Scale, program.Attr{Scale: c.c, Sized: c.sized}, x.buf)
				return nil
			}
		}
		return l.mapped(n, program.FnMul, args)
	case unary, binary:
		return l.mapped(n, f.fn, args)
	case reshape:
		l.values[n] = value{buf: l.shaped(l.place(args[0]), dims(n), n.Name())}
		return nil
	case repeat:
		return l.repeated(n, f.axis, args[0])
	case sum:
		return l.reduced(n, program.Sum, args[0])
	case greatest:
		return l.reduced(n, program.Max, args[0])
	case transposition:
		l.result(n, program.Transpose, program.Attr{}, l.place(args[0]))
		return nil
	case product, matVec, dot, outer:
		return l.multiplied(n, f, l.place(args[0]), l.place(args[1]))
	case softmax, softmaxGradient:
		return l.softmax(n, f, args)
	}
	return fmt.Errorf("graph: node %s: foreign op %d has no lowering", n.Name(), f.kind)
}

// folded computes what is made of constants alone, for the functions that Gorgonia makes of sizes and of the gradient
// of the loss.
func folded(f foreign, args []value) (value, bool) {
	v := value{constant: true}
	for _, a := range args {
		if !a.constant {
			return v, false
		}
		v.sized = v.sized || a.sized
	}
	switch {
	case f.kind == negation:
		v.c = -args[0].c
	case f.kind == addition:
		v.c = args[0].c + args[1].c
	case f.kind == elementwise:
		v.c = args[0].c * args[1].c
	case f.kind == binary && f.fn == program.FnSub:
		v.c = args[0].c - args[1].c
	case f.kind == binary && f.fn == program.FnDiv:
		v.c = args[0].c / args[1].c
	default:
		return v, false
	}
	return v, len(args) > 0
}

func (l *lowering) alike(a, b value) bool {
	return !a.constant && !b.constant && slices.Equal(l.p.Buffers[a.buf].Shape, l.p.Buffers[b.buf].Shape)
}

// mapped is a function of one or two values as a Map of its own; constants stand in the expression.
func (l *lowering) mapped(n *Node, fn program.Fn, args []value) error {
	if !slices.ContainsFunc(args, func(a value) bool { return !a.constant }) {
		args[0] = value{buf: l.place(args[0])}
	}
	var words []string
	var bufs []int
	sized := false
	for _, a := range args {
		if a.constant {
			words, sized = append(words, program.FormatConst(a.c)), sized || a.sized
			continue
		}
		buf, err := l.fitted(a.buf, dims(n), n.Name())
		if err != nil {
			return err
		}
		k := slices.Index(bufs, buf)
		if k < 0 {
			k = len(bufs)
			bufs = append(bufs, buf)
		}
		words = append(words, fmt.Sprintf("x%d", k))
	}
	l.result(n, program.Map, program.Attr{Expr: strings.Join(append(words, string(fn)), " "), Sized: sized}, bufs...)
	return nil
}

// fitted is a buffer that can be broadcast to a shape: itself or, where Gorgonia is content with as many elements, a
// copy.
func (l *lowering) fitted(buf int, shape []int, node string) (int, error) {
	b := &l.p.Buffers[buf]
	if program.Broadcasts(b.Shape, shape) {
		return buf, nil
	}
	n := 1
	for _, d := range shape {
		n *= d
	}
	if b.Len() != n && b.Len() != 1 {
		return 0, fmt.Errorf("graph: node %s: an operand of shape %v does not fit %v; use Gorgonia's Broadcast functions",
			node, b.Shape, shape)
	}
	if b.Len() == 1 {
		return l.shaped(buf, []int{1}, node), nil
	}
	return l.shaped(buf, shape, node), nil
}

// shaped is a buffer of that shape with the same elements: itself or a copy.
func (l *lowering) shaped(buf int, shape []int, node string) int {
	if slices.Equal(l.p.Buffers[buf].Shape, shape) {
		return buf
	}
	out := l.buffer(node+" reshaped", program.Temp, program.F32, slices.Clone(shape))
	l.emit(program.Copy, program.Attr{}, node, []int{buf}, []int{out})
	return out
}

// repeated is Gorgonia's repeat along an axis on which the operand has one element; of a vector [m] along dimension 1
// it makes a matrix.
func (l *lowering) repeated(n *Node, axis int, x value) error {
	buf, out := l.place(x), dims(n)
	from := slices.Clone(l.p.Buffers[buf].Shape)
	for len(from) < len(out) {
		from = append(from, 1)
	}
	if axis >= len(from) || from[axis] != 1 && out[axis] != from[axis] || len(from) != len(out) {
		return fmt.Errorf("graph: node %s: %v is repeated along dimension %d, where it has more than one element, which is not lowered",
			n.Name(), l.p.Buffers[buf].Shape, axis)
	}
	from[axis] = out[axis]
	if !slices.Equal(from, out) {
		return fmt.Errorf("graph: node %s: %v is repeated to %v", n.Name(), l.p.Buffers[buf].Shape, out)
	}
	from[axis] = 1
	if l.p.Buffers[buf].Len() == l.elements(out) {
		l.values[n] = value{buf: l.shaped(buf, out, n.Name())}
		return nil
	}
	l.result(n, program.Map, program.Attr{Expr: "x0"}, l.shaped(buf, from, n.Name()))
	return nil
}

func (l *lowering) elements(shape []int) int {
	b := program.Buffer{Shape: shape}
	return b.Len()
}

// reduced folds along one axis after the other, the last first: so a sum of all of a matrix is the sum of its rows'
// sums.
func (l *lowering) reduced(n *Node, fold program.Fold, x value) error {
	axes, err := axesOf(n)
	if err != nil {
		return err
	}
	buf := l.place(x)
	for _, axis := range slices.Backward(axes) {
		shape := l.p.Buffers[buf].Shape
		if axis >= len(shape) {
			return fmt.Errorf("graph: node %s: dimension %d of %v", n.Name(), axis, shape)
		}
		rest := slices.Delete(slices.Clone(shape), axis, axis+1)
		if len(rest) == 0 {
			rest = []int{1}
		}
		if shape[axis] == 1 { // nothing to fold
			buf = l.shaped(buf, rest, n.Name())
			continue
		}
		out := l.buffer(n.Name(), program.Temp, program.F32, rest)
		l.emit(program.Reduce, program.Attr{Fold: fold, Axis: axis}, n.Name(), []int{buf}, []int{out})
		buf = out
	}
	l.values[n] = value{buf: l.shaped(buf, dims(n), n.Name())}
	return nil
}

// multiplied is a product of Gorgonia's: of matrices, or with vectors as columns and rows. Gorgonia takes a matrix with
// one column or row for a vector.
func (l *lowering) multiplied(n *Node, f foreign, a, b int) error {
	length := func(buf int) int { return l.p.Buffers[buf].Len() }
	attr := program.Attr{TransA: f.transA, TransB: f.transB}
	var shape []int
	switch f.kind {
	case product:
		l.result(n, program.MatMul, attr, a, b)
		return nil
	case matVec:
		m := l.p.Buffers[a].Shape
		if len(m) != 2 {
			return fmt.Errorf("graph: node %s: %v is no matrix", n.Name(), m)
		}
		b, shape = l.shaped(b, []int{length(b), 1}, n.Name()), []int{l.elements(dims(n)), 1}
	case dot:
		a, b, shape = l.shaped(a, []int{1, length(a)}, n.Name()), l.shaped(b, []int{length(b), 1}, n.Name()), []int{1, 1}
	case outer:
		a, b = l.shaped(a, []int{length(a), 1}, n.Name()), l.shaped(b, []int{1, length(b)}, n.Name())
		shape = []int{length(a), length(b)}
	}
	out := l.buffer(n.Name(), program.Temp, program.F32, shape)
	l.emit(program.MatMul, attr, n.Name(), []int{a, b}, []int{out})
	l.values[n] = value{buf: l.shaped(out, dims(n), n.Name())}
	return nil
}

// softmax is Gorgonia's along the last dimension, or its gradient from the result and the gradient of that.
func (l *lowering) softmax(n *Node, f foreign, args []value) error {
	shape := dims(n)
	rows := []int{1, shape[len(shape)-1]}
	if len(shape) == 2 {
		rows = shape
	}
	column := len(shape) == 2 && shape[1] == 1 // Gorgonia runs down a column
	if len(shape) > 2 || f.axis != -1 && f.axis != len(shape)-1 || column && f.axis == -1 {
		return fmt.Errorf("graph: node %s: softmax along dimension %d of %v is not lowered; only along the last of a matrix or vector",
			n.Name(), f.axis, shape)
	}
	kind := program.Softmax
	bufs := []int{l.shaped(l.place(args[0]), rows, n.Name())}
	switch {
	case f.kind == softmaxGradient:
		kind = program.SoftmaxGrad
		bufs = []int{l.shaped(l.place(args[1]), rows, n.Name()), bufs[0]}
		if f.log {
			kind = program.LogSoftmaxGrad
		}
	case f.log:
		kind = program.LogSoftmax
	}
	out := l.buffer(n.Name(), program.Temp, program.F32, slices.Clone(rows))
	l.emit(kind, program.Attr{}, n.Name(), bufs, []int{out})
	l.values[n] = value{buf: l.shaped(out, shape, n.Name())}
	return nil
}
