package graph

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// A graph in float64 that is computed node by node with each op's own Do, against its own gradient: what finite
// differences say of a model without trusting a machine of Gorgonia's, a lowering or a backend.

// CheckOptions say how Check looks at a model. The zero value is good.
type CheckOptions struct {
	// Rows of the batch; 0 takes 5.
	Rows int
	// Samples are the elements of each parameter that are moved; 0 takes 64, and a smaller parameter is checked whole.
	Samples int
	// Tolerance of |gradient - difference|, times 1 + the greater of the two; 0 takes 1e-5.
	Tolerance float64
	// Seed of the numbers that parameters, inputs and samples are drawn from.
	Seed uint64
	// Ops and Example are as in Options.
	Ops     []Custom
	Example func(input string, rows, width int) []float64
	// Backend, where there is one, also trains one step without moving: loss and gradients of the program that Compile
	// makes are then held to the graph's, within 1e-4 of their size.
	Backend program.Backend
}

// Check holds the gradient of a model's loss to finite differences in float64: for each parameter, central differences
// of single elements. Every fault is named with its parameter, element, gradient and difference. A model whose loss is
// not finite at the numbers drawn needs an Example.
func Check(build func(*Builder) (Model, error), o CheckOptions) error {
	o.Rows, o.Samples = cmpOr(o.Rows, 5), cmpOr(o.Samples, 64)
	if o.Tolerance == 0 {
		o.Tolerance = 1e-5
	}
	gorgoniaLock.Lock()
	e, err := evaluated(build, o.Rows, o.Seed, o.Ops, o.Example)
	if err == nil {
		err = e.elements(o.Samples, o.Tolerance)
	}
	gorgoniaLock.Unlock()
	if err != nil || o.Backend == nil {
		return err
	}
	return e.program(build, o)
}

func cmpOr(x, otherwise int) int {
	if x > 0 {
		return x
	}
	return otherwise
}

// evaluation is a differentiated model in float64 with values for its leaves.
type evaluation struct {
	b      *Builder
	m      Model
	grads  []*Node
	leaves map[*Node][]float64
	order  []*Node // of what the loss is made of
	seed   uint64
}

// evaluated builds and differentiates the model in float64 and draws its leaves.
func evaluated(build func(*Builder) (Model, error), rows int, seed uint64, ops []Custom,
	example func(string, int, int) []float64) (*evaluation, error) {
	b := newBuilder(rows, true, tensor.Float64)
	b.custom, b.clock.seed = ops, seed
	m, err := b.run(build)
	if err != nil {
		return nil, err
	}
	if m.Loss == nil {
		return nil, errors.New("graph: the model has no Loss")
	}
	e := &evaluation{b: b, m: m, leaves: map[*Node][]float64{}, seed: seed}
	err = b.guard("differentiating", func() error {
		e.grads, err = b.gradients(m.Loss)
		return err
	})
	if err != nil {
		return nil, err
	}
	if e.order, err = reachable([]*Node{m.Loss}); err != nil {
		return nil, err
	}
	for i, p := range b.params {
		e.leaves[p.node] = e.draw(uint32(i), p.node, -.5, .5)
	}
	for i, c := range b.consts {
		x := e.draw(uint32(len(b.params)+i), c.node, .25, .75)
		if len(dims(c.node)) == 1 { // a cdf ascends to 1, and logq is as good as any numbers
			slices.Sort(x)
			x[len(x)-1] = 1
		}
		e.leaves[c.node] = x
	}
	for i, n := range b.inputs {
		if err := e.input(uint32(len(b.params)+len(b.consts)+i), n, example); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// draw takes numbers from Philox, the same for the same seed.
func (e *evaluation) draw(site uint32, n *Node, low, high float64) []float64 {
	x := make([]float64, (&program.Buffer{Shape: dims(n)}).Len())
	for i := range x {
		u := program.Uniforms4(e.seed, math.MaxUint32, site, uint64(i/4))[i%4]
		x[i] = low + (high-low)*float64(u)
	}
	return x
}

// input is what the caller gives, rows of a table for an index, or numbers.
func (e *evaluation) input(site uint32, n *Node, example func(string, int, int) []float64) error {
	shape := dims(n)
	if example != nil {
		x := example(n.Name(), shape[0], shape[1])
		if len(x) != shape[0]*shape[1] {
			return fmt.Errorf("graph: the example of input %s has %d values, want %d rows of %d",
				n.Name(), len(x), shape[0], shape[1])
		}
		e.leaves[n] = slices.Clone(x)
		return nil
	}
	x := e.draw(site, n, .25, .75)
	if rows := e.indexed(n); rows > 0 {
		for i, u := range x {
			x[i] = math.Floor((u - .25) * 2 * float64(rows))
		}
	}
	e.leaves[n] = x
	return nil
}

// indexed is the rows of the smallest table that an input is an index of, itself or as a part of a Concat, or 0.
func (e *evaluation) indexed(n *Node) int {
	least := 0
	for _, of := range e.order {
		o, ours := of.Op().(*op)
		if !ours {
			continue
		}
		kids, err := children(of)
		if err != nil {
			continue
		}
		table, at := indexOperands(o.kind)
		for _, k := range at {
			if !partOf(n, kids[k]) {
				continue
			}
			rows := unboundedRows
			if table >= 0 && table < len(kids) {
				rows = dims(kids[table])[0]
			}
			if least == 0 || rows < least {
				least = rows
			}
		}
	}
	return least
}

// unboundedRows is what is drawn from for an index of no table: few, so that some of a row are the same.
const unboundedRows = 8

// partOf says whether a node is an operand, or one of those that it is a Concat of.
func partOf(n, operand *Node) bool {
	if n == operand {
		return true
	}
	o, ours := operand.Op().(*op)
	if !ours || o.kind != program.Concat {
		return false
	}
	kids, err := children(operand)
	return err == nil && slices.ContainsFunc(kids, func(k *Node) bool { return partOf(n, k) })
}

// indexOperands are the operands of an op that name rows of another one of them, the table, which is -1, or past the
// last operand, where there is none.
func indexOperands(kind program.Op) (table int, at []int) {
	switch kind {
	case program.Lookup, program.LookupDot, program.LookupWeighted:
		return 0, []int{1}
	case program.SampledSoftmax:
		return 4, []int{2, 3}
	case program.CandidateSoftmax:
		return 3, []int{1}
	case program.CandidateBPR:
		return -1, []int{1}
	}
	return -1, nil
}

// values computes nodes, in an order in which operands come first.
func (e *evaluation) values(order []*Node) (map[*Node]gorgonia.Value, error) {
	got := map[*Node]gorgonia.Value{}
	for n, x := range e.leaves {
		got[n] = tensor.New(tensor.WithShape(dims(n)...), tensor.WithBacking(slices.Clone(x)))
	}
	for _, n := range order {
		if got[n] != nil {
			continue
		}
		if n.Op() == nil {
			return nil, fmt.Errorf("graph: node %s: an input that was not made by Builder.Input or Builder.Param", n.Name())
		}
		v, err := e.value(n, got)
		if err != nil {
			return nil, fmt.Errorf("graph: computing node %s (%s): %w", n.Name(), n.Op(), err)
		}
		got[n] = v
	}
	return got, nil
}

func (e *evaluation) value(n *Node, got map[*Node]gorgonia.Value) (v gorgonia.Value, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	if typeName(n.Op()) == "constantScalar" {
		return n.Value(), nil
	}
	kids, err := children(n)
	if err != nil {
		return nil, err
	}
	if o, ours := n.Op().(*op); ours && o.kind == program.Fill {
		kids = nil // of the shape alone
	}
	args := make([]gorgonia.Value, len(kids))
	for i, k := range kids {
		if args[i] = got[k]; args[i] == nil {
			if args[i], err = e.value(k, got); err != nil { // sizes of what nobody else computes
				return nil, err
			}
		}
		if args[i], err = gorgonia.CloneValue(args[i]); err != nil { // some ops of Gorgonia's write over operands
			return nil, err
		}
	}
	return n.Op().Do(args...)
}

// loss is that of the leaves as they are.
func (e *evaluation) loss() (float64, error) {
	got, err := e.values(e.order)
	if err != nil {
		return 0, err
	}
	x := floats(got[e.m.Loss])
	if len(x) != 1 || math.IsNaN(x[0]) || math.IsInf(x[0], 0) {
		return 0, fmt.Errorf("graph: the loss is %v at the numbers that the check draws: give an Example of inputs that the model is for", x)
	}
	return x[0], nil
}

func floats(v gorgonia.Value) []float64 {
	switch x := v.Data().(type) {
	case []float64:
		return x
	case float64:
		return []float64{x}
	}
	return nil
}

// gradients of every parameter at the leaves as they are, in the order of the parameters.
func (e *evaluation) gradients() ([][]float64, error) {
	order, err := reachable(e.grads)
	if err != nil {
		return nil, err
	}
	got, err := e.values(order)
	if err != nil {
		return nil, err
	}
	out := make([][]float64, len(e.grads))
	for i, g := range e.grads {
		out[i] = floats(got[g])
		if len(out[i]) != len(e.leaves[e.b.params[i].node]) {
			return nil, fmt.Errorf("graph: the gradient of parameter %s has %d elements, the parameter %d",
				e.b.params[i].spec.Name, len(out[i]), len(e.leaves[e.b.params[i].node]))
		}
	}
	return out, nil
}

// moved is the slope of the loss along a direction of one parameter, by a central difference.
func (e *evaluation) moved(leaf []float64, step float64, along func(i int) float64) (float64, error) {
	at := slices.Clone(leaf)
	var side [2]float64
	for s, sign := range []float64{1, -1} {
		for i := range leaf {
			leaf[i] = at[i] + sign*step*along(i)
		}
		l, err := e.loss()
		if err != nil {
			return 0, err
		}
		side[s] = l
	}
	copy(leaf, at)
	return (side[0] - side[1]) / (2 * step), nil
}

// differenceStep is near the cube root of float64's precision, where a central difference is the most exact.
const differenceStep = 1e-5

// elements checks single elements of every parameter.
func (e *evaluation) elements(samples int, tolerance float64) error {
	grads, err := e.gradients()
	if err != nil {
		return err
	}
	var faults []error
	for i, p := range e.b.params {
		leaf := e.leaves[p.node]
		for s := range min(samples, len(leaf)) {
			k := s
			if samples < len(leaf) {
				k = int(program.Uniforms4(e.seed, math.MaxUint32-1, uint32(i), uint64(s))[0] * float32(len(leaf)))
			}
			d, err := e.moved(leaf, differenceStep, func(j int) float64 {
				if j == k {
					return 1
				}
				return 0
			})
			if err != nil {
				return err
			}
			if g := grads[i][k]; !(math.Abs(g-d) <= tolerance*(1+max(math.Abs(g), math.Abs(d)))) {
				faults = append(faults, fmt.Errorf("graph: parameter %s %v, element %d: gradient %v, finite difference %v",
					p.spec.Name, p.spec.Shape, k, g, d))
				break
			}
		}
	}
	return errors.Join(faults...)
}

// probeTolerance is what a difference along a whole parameter may be off, relative to its size: a merged node is off by
// far more.
const probeTolerance = 1e-4

// probe vouches for the gradient of a model with ops whose gradient verify does not know by form. Gorgonia takes a node
// for another whose 32-bit hash agrees. A merge that happens at every batch size shows here, where a small graph in
// float64 is held to finite differences along a random direction of each parameter; one that happens at one batch size
// makes a program of other instructions than the small graph's.
func (c *compiler) probe(train *program.Program) error {
	const rows = 3
	e, err := evaluated(c.build, rows, 1, c.opts.Ops, c.opts.Example)
	if err != nil {
		return err
	}
	grads, err := e.gradients()
	if err != nil {
		return err
	}
	for i, p := range e.b.params {
		leaf := e.leaves[p.node]
		way := e.draw(uint32(1<<16+i), p.node, -1, 1)
		d, err := e.moved(leaf, differenceStep/math.Sqrt(float64(len(leaf))), func(k int) float64 { return way[k] })
		if err != nil {
			return err
		}
		var g float64
		for k, w := range way {
			g += w * grads[i][k]
		}
		if !(math.Abs(g-d) <= probeTolerance*(1+max(math.Abs(g), math.Abs(d)))) {
			return fmt.Errorf("graph: parameter %s: Gorgonia's gradient is %v along a direction in which the loss changes by %v: it merged "+
				"nodes whose hashes agree, or an op has a wrong SymDiff; graph.Check says more", p.spec.Name, g, d)
		}
	}
	small, err := e.b.lowerTraining("probe", e.m, e.grads, &c.opts, c.passes)
	if err != nil {
		return err
	}
	return markRows(small, train, false)
}

// program holds one step of the compiled program, with a learning rate of 0, to the graph: its loss, and the gradients
// that AdamW's means hold after one step.
func (e *evaluation) program(build func(*Builder) (Model, error), o CheckOptions) error {
	const beta1 = .5
	set, err := Compile(build, Options{Batch: o.Rows, Rows: o.Rows, Tile: o.Rows, Ops: o.Ops, Example: o.Example,
		Optimizer: AdamW{Beta1: beta1, Beta2: .5, Eps: 1}})
	if err != nil {
		return err
	}
	exec, err := o.Backend.Compile(set)
	if err != nil {
		return err
	}
	defer exec.Close()
	ts, err := exec.Export()
	if err != nil {
		return err
	}
	for _, held := range [][]*param{e.b.params, e.b.consts} {
		for _, p := range held {
			for i := range ts {
				if ts[i].Name == p.spec.Name {
					for k, v := range e.leaves[p.node] {
						ts[i].F32[k] = float32(v)
					}
				}
			}
		}
	}
	if err := exec.Import(ts); err != nil {
		return err
	}
	data := program.Data{Schedule: program.Schedule{Seed: o.Seed, Train: program.Range{To: o.Rows}, Rates: []float32{0}}}
	order := program.NewPermutation(o.Seed, 0, o.Rows)
	for _, n := range e.b.inputs {
		w := dims(n)[1]
		col := program.Column{Name: n.Name(), Rows: o.Rows, Width: w, F32: make([]float32, o.Rows*w)}
		for i := range o.Rows { // so that row i of the batch is row i of the graph's input
			for j := range w {
				col.F32[order.At(i)*w+j] = float32(e.leaves[n][i*w+j])
			}
		}
		data.Columns = append(data.Columns, col)
	}
	if err := exec.Bind(data); err != nil {
		return err
	}
	slots := make([]float64, len(set.Slots))
	if err := exec.Run(0, 1, slots); err != nil {
		return err
	}
	if ts, err = exec.Export(); err != nil {
		return err
	}
	return e.agrees(slots[0]/slots[1], ts, 1-beta1)
}

// programTolerance is what float32 may be off.
const programTolerance = 1e-4

func (e *evaluation) agrees(loss float64, ts program.Tensors, factor float64) error {
	want, err := e.loss()
	if err != nil {
		return err
	}
	if !(math.Abs(loss-want) <= programTolerance*(1+math.Abs(want))) {
		return fmt.Errorf("graph: the program's loss is %v, the graph's %v", loss, want)
	}
	grads, err := e.gradients()
	if err != nil {
		return err
	}
	var faults []error
	for i, p := range e.b.params {
		mean := p.spec.Name + meanSuffix
		at := slices.IndexFunc(ts, func(t program.Tensor) bool { return t.Name == mean })
		var size float64
		for _, g := range grads[i] {
			size = max(size, math.Abs(g))
		}
		for k, g := range grads[i] {
			if got := float64(ts[at].F32[k]) / factor; !(math.Abs(got-g) <= programTolerance*(1+size)) {
				faults = append(faults, fmt.Errorf("graph: parameter %s %v, element %d: the program's gradient is %v, the graph's %v",
					p.spec.Name, p.spec.Shape, k, got, g))
				break
			}
		}
	}
	return errors.Join(faults...)
}
