package graph

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/onmart/onmart/train/program"
)

// lowering writes the program of one graph.
type lowering struct {
	b      *Builder
	p      *program.Program
	values map[*Node]value
	fills  map[fill]int // [1] buffers that hold a constant
	second map[int]int  // the second result of an instruction, by the first
}

// fill is a constant in a buffer.
type fill struct {
	c     float32
	sized bool
}

// value is where a node's result is: in a buffer or, for scalar constants, in the lowering's hands.
type value struct {
	buf      int
	constant bool
	c        float32
	sized    bool // a constant that is made of sizes of the batch
}

func newLowering(b *Builder, name string) *lowering {
	return &lowering{b: b, p: &program.Program{Name: name, Rows: b.rows},
		values: map[*Node]value{}, fills: map[fill]int{}, second: map[int]int{}}
}

func (l *lowering) buffer(name string, kind program.Kind, dtype program.DType, shape []int) int {
	l.p.Buffers = append(l.p.Buffers, program.Buffer{Name: name, Kind: kind, DType: dtype, Shape: shape})
	return len(l.p.Buffers) - 1
}

func (l *lowering) temp(n *Node) int { return l.buffer(n.Name(), program.Temp, program.F32, dims(n)) }

func (l *lowering) emit(kind program.Op, attr program.Attr, node string, args, outs []int) {
	l.p.Instrs = append(l.p.Instrs, program.Instr{Op: kind, Args: args, Outs: outs, Attr: attr, Node: node})
}

// operands of a node as far as its value goes: Fill looks at the shape of its operand alone.
func operands(n *Node) ([]*Node, error) {
	if o, ours := n.Op().(*op); ours && o.kind == program.Fill {
		return nil, nil
	}
	kids, err := children(n)
	if n.Op() != nil && len(kids) > 0 {
		switch typeName(n.Op()) {
		case "sizeOp":
			return nil, err
		case "repeatOp":
			return kids[:1], err // the shape says how often
		case "softmaxDiffOp":
			return kids[1:], err // the result and its gradient
		}
	}
	return kids, err
}

// reachable lists what the roots are made of, in the order in which the nodes were made: that is a
// topological order, and the one in which a backward pass frees memory soonest.
func reachable(roots []*Node) ([]*Node, error) {
	seen := map[*Node]bool{}
	var all []*Node
	for todo := slices.Clone(roots); len(todo) > 0; {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[n] {
			continue
		}
		seen[n] = true
		all = append(all, n)
		kids, err := operands(n)
		if err != nil {
			return nil, err
		}
		todo = append(todo, kids...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID() < all[j].ID() })
	return all, nil
}

// nodes lowers everything that the roots are made of. Inputs and parameters come first; where gather is
// set, inputs are filled from the bound column of their name.
func (l *lowering) nodes(gather bool, roots ...*Node) error {
	all, err := reachable(roots)
	if err != nil {
		return err
	}
	for _, n := range l.b.inputs {
		if slices.Contains(all, n) {
			i := l.buffer(n.Name(), program.Input, program.F32, dims(n))
			l.values[n] = value{buf: i}
			if gather {
				l.emit(program.Gather, program.Attr{Column: n.Name()}, "", nil, []int{i})
			}
		}
	}
	for _, p := range l.b.params {
		if slices.Contains(all, p.node) {
			l.values[p.node] = value{buf: l.buffer(p.spec.Name, program.Param, program.F32, p.spec.Shape)}
		}
	}
	for _, p := range l.b.consts {
		if slices.Contains(all, p.node) {
			l.values[p.node] = value{buf: l.buffer(p.spec.Name, program.Const, program.F32, p.spec.Shape)}
		}
	}
	for _, n := range all {
		if err := l.node(n); err != nil {
			return err
		}
	}
	return nil
}

func (l *lowering) node(n *Node) error {
	if _, done := l.values[n]; done {
		return nil
	}
	if n.Op() == nil {
		return fmt.Errorf("graph: node %s: an input that was not made by Builder.Input or Builder.Param", n.Name())
	}
	kids, err := operands(n)
	if err != nil {
		return err
	}
	args := make([]value, len(kids))
	for i, k := range kids {
		v, ok := l.values[k]
		if !ok {
			return fmt.Errorf("graph: node %s: operand %s comes after it: Gorgonia merged nodes", n.Name(), k.Name())
		}
		args[i] = v
	}
	if o, ours := n.Op().(*op); ours {
		return l.ours(n, o, args)
	}
	if c := l.b.registered(n.Op()); c != nil {
		return l.custom(n, c, args)
	}
	f, err := recognise(n)
	if err != nil {
		return err
	}
	return l.foreign(n, f, args)
}

// ours lowers one of our ops: it is one instruction, or the second result of one.
func (l *lowering) ours(n *Node, o *op, args []value) error {
	if o.kind == tableGrad {
		return fmt.Errorf("graph: node %s: the gradient of a table is for its update alone", n.Name())
	}
	if o.part == 1 {
		l.values[n] = value{buf: l.second[args[0].buf]}
		return nil
	}
	bufs := make([]int, len(args))
	for i, a := range args {
		bufs[i] = l.place(a)
	}
	if o.kind == program.LayerNormGrad {
		dx, t := l.temp(n), l.buffer(n.Name()+" terms", program.Temp, program.F32, dims(n))
		l.emit(o.kind, o.attr, n.Name(), bufs, []int{dx, t})
		l.values[n], l.second[dx] = value{buf: dx}, t
		return nil
	}
	if o.kind == program.SampledSoftmaxGrad {
		dpos := l.buffer(n.Name()+" dpos", program.Temp, program.F32, slices.Clone(l.p.Buffers[bufs[0]].Shape))
		dneg := l.temp(n)
		l.emit(o.kind, o.attr, n.Name(), bufs, []int{dpos, dneg})
		l.values[n], l.second[dneg] = value{buf: dneg}, dpos
		return nil
	}
	l.result(n, o.kind, o.attr, bufs...)
	return nil
}

// gradient is what the update of a parameter takes: its gradient or, for a table, the operands of its uses in the order
// in which the model made them; what they are is noted in p.uses.
func (p *param) gradient(grad *Node) ([]*Node, error) {
	if !p.table {
		return []*Node{grad}, nil
	}
	type lookup struct {
		id   uint32
		args []*Node
	}
	var lookups []lookup
	for todo := []*Node{grad}; len(todo) > 0; {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		kids, err := children(n)
		if err != nil {
			return nil, err
		}
		if o, ours := n.Op().(*op); ours && o.kind == tableGrad {
			lookups = append(lookups, lookup{o.of, kids})
			continue
		}
		if n.Op() != nil {
			if f, err := recognise(n); err == nil && f.kind == addition {
				todo = append(todo, kids...)
				continue
			}
		}
		return nil, fmt.Errorf("graph: table %s: the loss reads it by another operation than a lookup (its gradient has %s): make it a Param",
			p.spec.Name, n.Name())
	}
	slices.SortFunc(lookups, func(a, b lookup) int { return cmp.Compare(a.id, b.id) })
	var args []*Node
	p.uses = ""
	for _, l := range lookups {
		args = append(args, l.args...)
		p.uses += map[int]string{2: "l", 3: "s"}[len(l.args)]
	}
	if !strings.Contains(p.uses, "s") {
		p.uses = ""
	}
	return args, nil
}

func (l *lowering) result(n *Node, kind program.Op, attr program.Attr, args ...int) {
	out := l.temp(n)
	l.emit(kind, attr, n.Name(), args, []int{out})
	l.values[n] = value{buf: out}
}

// place is the buffer of a value; a constant gets one of its own, filled once a step.
func (l *lowering) place(v value) int {
	if !v.constant {
		return v.buf
	}
	key := fill{v.c, v.sized}
	i, ok := l.fills[key]
	if !ok {
		i = l.buffer(fmt.Sprintf("constant %v", v.c), program.Temp, program.F32, []int{1})
		l.emit(program.Fill, program.Attr{Scale: v.c, Sized: v.sized}, "", nil, []int{i})
		l.fills[key] = i
	}
	return i
}

// accumulate adds a mean over the batch to a slot, weighted by the rows of the batch: divided by slot
// "rows" it is the mean over a whole run.
func (l *lowering) accumulate(slot string, n *Node) error {
	v := l.values[n]
	if l.p.Buffers[l.place(v)].Len() != 1 {
		return fmt.Errorf("graph: %s: node %s is %v, want a scalar", slot, n.Name(), dims(n))
	}
	out := l.buffer(slot, program.Slot, program.F64, []int{1})
	l.emit(program.Accumulate, program.Attr{Scale: float32(l.b.rows)}, slot, []int{l.place(v)}, []int{out})
	return nil
}

func (l *lowering) countRows() {
	out := l.buffer(slotRows, program.Slot, program.F64, []int{1})
	l.emit(program.Accumulate, program.Attr{Scale: float32(l.b.rows)}, slotRows, nil, []int{out})
}

// output turns the buffer of the node into the program's output.
func (l *lowering) output(n *Node) error {
	v := l.values[n]
	if v.constant || l.p.Buffers[v.buf].Kind != program.Temp {
		return fmt.Errorf("graph: output %s is an input, a parameter or a constant; the model computes nothing", n.Name())
	}
	f := &l.p.Buffers[v.buf]
	f.Kind, f.Name = program.Output, outputName
	return nil
}
