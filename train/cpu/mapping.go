package cpu

import (
	"slices"

	"github.com/onmart/onmart/train/program"
)

// A Map is computed a chunk of elements at a time: each word of the expression runs over the chunk, whose values stay
// in the first-level cache, in registers that are rows of the worker's scratch memory.

// mapChunk is the elements of a chunk: with the registers of a long expression 16 KiB, half a first-level cache, and so
// many that the call of a kernel is a small part.
const mapChunk = 256

// mapStep is one word made ready: a function of registers or operands.
type mapStep struct {
	fn   vectorFn
	a, b source
	to   int // register, or -1 for y
}

// source is where a value is: in a register, in an operand as it lies, or a constant.
type source struct {
	register int       // -1 for none
	operand  []float32 // of y's shape
	constant []float32 // mapChunk times the same
}

// spread is an operand that is broadcast: read into a register when a chunk begins.
type spread struct {
	register int
	x        []float32
	dims     []spreadDim // of y, outermost first; neighbours of one kind are one
}

// spreadDim is n steps along y, which move by stride elements in the operand.
type spreadDim struct{ n, stride int }

// mapping is a Map with everything resolved but the elements.
type mapping struct {
	y         []float32
	steps     []mapStep
	spreads   []spread
	registers int
}

func (l lowering) mapping() {
	out := l.in.Outs[0]
	shape := l.buf(out).Shape
	steps, err := program.ParseExpr(l.in.Attr.Expr, len(l.in.Args))
	if err != nil {
		panic("cpu: " + err.Error()) // Validate refuses it
	}
	m := &mapping{y: l.out(0)}
	args := make([]source, len(l.in.Args))
	for k, id := range l.in.Args {
		if slices.Equal(l.buf(id).Shape, shape) {
			args[k] = source{register: -1, operand: l.arg(k)}
			continue
		}
		args[k] = source{register: len(m.spreads)}
		m.spreads = append(m.spreads, spread{len(m.spreads), l.arg(k), spreadDims(endless(l.buf(id)), endless(l.buf(out)))})
	}
	m.registers = len(m.spreads)
	m.compile(l.kernels.fns, steps, args)
	l.machine.pack = max(l.machine.pack, m.registers*mapChunk)
	l.emitMapping(m)
}

// compile turns the stack of the expression into registers: the place of a value on the stack is its register.
func (m *mapping) compile(fns map[program.Fn]vectorFn, steps []program.Step, args []source) {
	first := m.registers
	var stack []source
	for i, s := range steps {
		switch {
		case s.Fn == "" && s.Arg >= 0:
			stack = append(stack, args[s.Arg])
			continue
		case s.Fn == "":
			stack = append(stack, source{register: -1, constant: slices.Repeat([]float32{s.Value}, mapChunk)})
			continue
		}
		n := s.Fn.Arity()
		in := stack[len(stack)-n:]
		step := mapStep{fn: fns[s.Fn], a: in[0], b: in[n-1], to: first + len(stack) - n}
		stack = stack[:len(stack)-n]
		m.registers = max(m.registers, step.to+1)
		if i == len(steps)-1 {
			step.to = -1
		}
		m.steps = append(m.steps, step)
		stack = append(stack, source{register: step.to})
	}
	if len(m.steps) == 0 || len(steps) > 0 && steps[len(steps)-1].Fn == "" { // an operand or a constant alone
		m.steps = append(m.steps, mapStep{fn: func(y, a, _ []float32) { copy(y, a) }, a: stack[0], b: stack[0], to: -1})
	}
}

// endless is a shape with more rows than there can be where they are those of a batch: a region's blocks may be more
// than a program for one row has (see emitRows).
func endless(b *program.Buffer) []int {
	shape := slices.Clone(b.Shape)
	if b.PerRow {
		shape[0] = 1 << 30
	}
	return shape
}

// spreadDims describes how an operand lies under y, without dimensions of 1, neighbours merged where one step follows
// from the other.
func spreadDims(arg, out []int) []spreadDim {
	var dims []spreadDim
	stride := 1
	for i := len(out) - 1; i >= 0; i-- {
		n, s := out[i], 0
		if k := len(arg) - len(out) + i; k >= 0 && arg[k] != 1 {
			s = stride
			stride *= arg[k]
		}
		if n == 1 {
			continue
		}
		if last := len(dims) - 1; last >= 0 && (s == 0 && dims[last].stride == 0 || s != 0 && dims[last].stride != 0) {
			dims[last].n *= n // both stand still, or both walk on through memory without a gap
			continue
		}
		dims = append(dims, spreadDim{n, s})
	}
	slices.Reverse(dims)
	if len(dims) == 0 {
		dims = []spreadDim{{1, 0}}
	}
	return dims
}

// read puts the operand's values for elements first.. of y into a register.
func (s *spread) read(to []float32, first int) {
	inner := s.dims[len(s.dims)-1]
	for len(to) > 0 {
		at, rest := 0, first/inner.n
		for d := len(s.dims) - 2; d >= 0; d-- {
			at += rest % s.dims[d].n * s.dims[d].stride
			rest /= s.dims[d].n
		}
		i := first % inner.n
		n := min(inner.n-i, len(to))
		if inner.stride == 0 {
			v := s.x[at]
			for k := range to[:n] {
				to[k] = v
			}
		} else {
			copy(to[:n], s.x[at+i:])
		}
		to, first = to[n:], first+n
	}
}

// run computes elements lo..hi of y.
func (m *mapping) run(w *worker, lo, hi int) {
	for ; lo < hi; lo += mapChunk {
		n := min(mapChunk, hi-lo)
		for i := range m.spreads {
			s := &m.spreads[i]
			s.read(w.pack[s.register*mapChunk:][:n], lo)
		}
		for i := range m.steps {
			s := &m.steps[i]
			y := m.y[lo : lo+n]
			if s.to >= 0 {
				y = w.pack[s.to*mapChunk:][:n]
			}
			s.fn(y, s.a.values(w, lo, n), s.b.values(w, lo, n))
		}
	}
}

// values are n of them from element lo of y on.
func (s *source) values(w *worker, lo, n int) []float32 {
	switch {
	case s.operand != nil:
		return s.operand[lo : lo+n]
	case s.constant != nil:
		return s.constant[:n]
	}
	return w.pack[s.register*mapChunk:][:n]
}

// emitMapping divides the elements by row where y has one row a row of the batch, so that it fits its neighbours.
func (l lowering) emitMapping(m *mapping) {
	out := l.in.Outs[0]
	b := l.buf(out)
	byRow := b.PerRow || b.Shape[0] == l.p.Rows
	var touches []access
	for _, id := range l.in.Args {
		arg := l.buf(id)
		switch same := slices.Equal(arg.Shape, b.Shape); {
		case byRow && len(arg.Shape) == len(b.Shape) && arg.Shape[0] == b.Shape[0]:
			touches = append(touches, l.rows(id, false))
		case !byRow && same:
			touches = append(touches, l.units(id, 4, false))
		default:
			touches = append(touches, l.whole(id, false))
		}
	}
	if byRow {
		width := l.width(out)
		l.emitRows(out, func(w *worker, lo, hi int) { m.run(w, lo*width, hi*width) }, append(touches, l.rows(out, true))...)
		return
	}
	l.emit(byElement(b.Len()), m.run, append(touches, l.units(out, 4, true))...)
}
