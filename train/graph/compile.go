package graph

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Model is what a build function returns.
type Model struct {
	// Loss is the scalar to minimise, a mean over the batch.
	Loss *Node
	// Output is what a forward program leaves, [rows, width].
	Output *Node
	// Metrics are further scalars, means over the batch, each accumulated in the slot of its name.
	Metrics map[string]*Node
}

// Options say for which sizes a model is compiled.
type Options struct {
	// Batch is the rows of a training step.
	Batch int
	// Rows that are trained on. Where Batch does not divide them there is a Rest program, which is the
	// whole of an epoch where there are fewer of them than Batch.
	Rows int
	// Tile is the most rows of one pass of the forward program; where the model uses ops of Gorgonia's, 1 counts as 2.
	Tile int
	// Optimizer makes the step.
	Optimizer Optimizer
	// ClipNorm is the greatest norm of all gradients together (Pascanu et al. 2013); 0 clips nothing.
	ClipNorm float64
	// Average is the decay of a moving average of the weights, which the forward program then reads in their place:
	// program.MovingAverage. 0 keeps none.
	Average float64
	// Ops are the user's own, see Register.
	Ops []Custom
	// Example gives values of an input for the numeric check that a model gets which uses ops of Gorgonia's or the user's:
	// rows*width of them. nil takes numbers between 0.25 and 0.75, and row numbers for an index.
	Example func(input string, rows, width int) []float64
}

// Names in a compiled set.
const (
	slotLoss   = "loss"
	slotRows   = "rows"
	outputName = "output"
)

// gorgoniaLock: Gorgonia keeps package-level nodes and counters that building a graph writes to, so one
// graph is built at a time in a process.
var gorgoniaLock sync.Mutex

// Compile builds the model for every size it needs, differentiates it once for each, and lowers it.
//
// The set has the slots "loss" and "rows" and one for each metric, in name order. Loss and metrics are
// accumulated times the rows of their batch: divided by slot "rows" they are means. The forward program
// is what Output needs and no more, without dropout, from Input buffers to one Output buffer named
// "output".
//
// Errors name the node: an op that cannot be lowered, a parameter that the loss does not depend on, a
// model that differs between batch sizes.
func Compile(build func(*Builder) (Model, error), opts Options) (*program.Set, error) {
	return compile(build, opts, allPasses)
}

func compile(build func(*Builder) (Model, error), opts Options, ps passes) (*program.Set, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	gorgoniaLock.Lock()
	defer gorgoniaLock.Unlock()

	c := &compiler{build: build, opts: opts, passes: ps, set: &program.Set{}}
	rest, twinRows := opts.Rows%opts.Batch, opts.Batch+1
	if rest > 0 {
		twinRows = rest
	}
	train, err := c.train("train", opts.Batch)
	if err != nil {
		return nil, err
	}
	twin, err := c.train("rest", twinRows)
	if err != nil {
		return nil, err
	}
	if c.probed && (opts.Batch == 1 || twinRows == 1) {
		return nil, fmt.Errorf("graph: %d rows in batches of %d leave one row, and Gorgonia takes matrices of one row for vectors: "+
			"choose another batch, or leave a row out", opts.Rows, opts.Batch)
	}
	if c.probed {
		if err := c.probe(train); err != nil {
			return nil, err
		}
	}
	if err := markRows(train, twin, false); err != nil {
		return nil, err
	}
	if err := markRows(twin, train, false); err != nil {
		return nil, err
	}
	tile := opts.Tile
	if c.probed && tile == 1 {
		tile = 2 // of one row Gorgonia makes vectors
	}
	forward, err := c.forward("forward", tile)
	if err != nil {
		return nil, err
	}
	other, err := c.forward("forward", tile+1)
	if err != nil {
		return nil, err
	}
	if err := markRows(forward, other, true); err != nil {
		return nil, err
	}
	c.set.Train, c.set.Forward = train, forward
	if rest > 0 {
		c.set.Rest = twin
	}
	if err := c.set.Validate(); err != nil {
		return nil, fmt.Errorf("graph: the lowered program is not valid, a fault of the lowering: %w", err)
	}
	return c.set, nil
}

func (o *Options) check() error {
	var errs []error
	atLeast1 := func(name string, v int) {
		if v < 1 {
			errs = append(errs, fmt.Errorf("graph: option %s is %d, want at least 1", name, v))
		}
	}
	atLeast1("Batch", o.Batch)
	atLeast1("Rows", o.Rows)
	atLeast1("Tile", o.Tile)
	errs = append(errs, o.optimizerFaults()...)
	return errors.Join(errs...)
}

type compiler struct {
	build  func(*Builder) (Model, error)
	opts   Options
	passes passes
	set    *program.Set
	// probed: the gradient has parts that only a numeric check can vouch for.
	probed bool
}

// model builds the graph of a batch size and checks that it has the parameters of the graphs before.
func (c *compiler) model(rows int, training bool) (*Builder, Model, error) {
	b := newBuilder(rows, training, tensor.Float32)
	b.custom = c.opts.Ops
	m, err := b.run(c.build)
	if err != nil {
		return nil, m, err
	}
	if m.Output == nil {
		return nil, m, errors.New("graph: the model has no Output")
	}
	if m.Loss == nil {
		return nil, m, errors.New("graph: the model has no Loss")
	}
	specs, consts := make([]program.TensorSpec, len(b.params)), []program.TensorSpec(nil)
	for i, p := range b.params {
		specs[i] = p.spec
	}
	for _, p := range b.consts {
		consts = append(consts, p.spec)
	}
	slots := slices.Concat([]string{slotLoss, slotRows}, slices.Sorted(maps.Keys(m.Metrics)))
	if c.set.Slots == nil {
		c.set.Params, c.set.Consts, c.set.Slots = specs, consts, slots
		for _, p := range b.params {
			state, err := c.opts.state(p)
			if err != nil {
				return nil, m, err
			}
			c.set.State = append(c.set.State, state...)
		}
	}
	if !slices.EqualFunc(c.set.Params, specs, sameSpec) || !slices.EqualFunc(c.set.Consts, consts, sameSpec) || !slices.Equal(c.set.Slots, slots) {
		return nil, m, fmt.Errorf("graph: the model of %d rows has other parameters, constants or metrics than that of %d; "+
			"it may depend on the batch only in the height of its nodes", rows, c.opts.Batch)
	}
	return b, m, nil
}

func sameSpec(a, b program.TensorSpec) bool {
	return a.Name == b.Name && slices.Equal(a.Shape, b.Shape) && a.Init == b.Init && a.Scale == b.Scale && a.Site == b.Site
}

// run calls the build function and reports its fault or the builder's.
func (b *Builder) run(build func(*Builder) (Model, error)) (m Model, err error) {
	err = b.guard("building", func() error {
		var err error
		if m, err = build(b); err != nil {
			err = fmt.Errorf("graph: building for %d rows, after node %s: %w", b.rows, b.at, err)
		}
		return errors.Join(b.err, err)
	})
	return m, err
}

// guard turns Gorgonia's panics into errors that say at which node.
func (b *Builder) guard(stage string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if b.err != nil { // and the node that is missing for it was given to Gorgonia
				err = b.err
				return
			}
			err = fmt.Errorf("graph: %s for %d rows, at node %s: panic: %v", stage, b.rows, b.at, r)
		}
	}()
	return f()
}

func (c *compiler) train(name string, rows int) (*program.Program, error) {
	b, m, err := c.model(rows, true)
	if err != nil {
		return nil, err
	}
	var grads []*Node
	err = b.guard("differentiating", func() error {
		grads, err = b.gradients(m.Loss)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.probed = c.probed || b.unknown
	return b.lowerTraining(name, m, grads, &c.opts, c.passes)
}

// lowerTraining writes and plans the program of a differentiated model.
func (b *Builder) lowerTraining(name string, m Model, grads []*Node, opts *Options,
	ps passes) (*program.Program, error) {
	l := newLowering(b, name)
	if err := b.guard("lowering", func() error { return l.training(m, grads, opts) }); err != nil {
		return nil, err
	}
	plan(l.p, ps)
	return l.p, nil
}

// training lowers forward pass, backward pass, slots and optimizer.
func (l *lowering) training(m Model, grads []*Node, opts *Options) error {
	metrics := slices.Sorted(maps.Keys(m.Metrics))
	roots, updates := []*Node{m.Loss}, make([][]*Node, len(grads))
	for i, p := range l.b.params {
		var err error
		if updates[i], err = p.gradient(grads[i]); err != nil {
			return err
		}
		roots = append(roots, updates[i]...)
	}
	for _, name := range metrics {
		n := m.Metrics[name]
		if name == "" || name == slotLoss || name == slotRows || l.b.names[name] != nil {
			return fmt.Errorf("graph: metric %q: the name is taken", name)
		}
		if n == nil || n.Graph() != l.b.g {
			return fmt.Errorf("graph: metric %q is not a node of this graph", name)
		}
		roots = append(roots, n)
	}
	if err := l.nodes(true, roots...); err != nil {
		return err
	}
	if err := l.accumulate(slotLoss, m.Loss); err != nil {
		return err
	}
	l.countRows()
	for _, name := range metrics {
		if err := l.accumulate(name, m.Metrics[name]); err != nil {
			return err
		}
	}
	params, operands := make([]int, len(grads)), make([][]int, len(grads))
	for i, p := range l.b.params {
		params[i] = l.values[p.node].buf
		for _, n := range updates[i] {
			arg := l.place(l.values[n])
			if len(updates[i]) == 1 { // Gorgonia gives a column the gradient of a vector
				arg = l.shaped(arg, p.spec.Shape, n.Name())
			}
			operands[i] = append(operands[i], arg)
		}
	}
	return l.updates(opts, params, operands)
}

func (c *compiler) forward(name string, rows int) (*program.Program, error) {
	b, m, err := c.model(rows, false)
	if err != nil {
		return nil, err
	}
	l := newLowering(b, name)
	err = b.guard("lowering", func() error {
		if m.Output.Graph() != b.g {
			return errors.New("graph: the model's Output is not a node of this graph")
		}
		if err := l.nodes(false, m.Output); err != nil {
			return err
		}
		return l.output(m.Output)
	})
	if err != nil {
		return nil, err
	}
	if c.opts.Average > 0 {
		readAverages(l.p)
	}
	plan(l.p, c.passes)
	return l.p, nil
}

// gradients of the loss, one for each parameter. Grad is called once: a second call on one graph
// returns the gradients of the first.
func (b *Builder) gradients(loss *Node) ([]*Node, error) {
	if loss.Graph() != b.g || !loss.IsScalar() {
		return nil, fmt.Errorf("graph: the loss %s is not a scalar of this graph", loss.Name())
	}
	if len(b.params) == 0 {
		return nil, errors.New("graph: the model has no parameters")
	}
	all, err := reachable([]*Node{loss})
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if err := b.lowerable(n); err != nil {
			return nil, err
		}
	}
	params := make(gorgonia.Nodes, len(b.params))
	for i, p := range b.params {
		if !slices.Contains(all, p.node) {
			return nil, fmt.Errorf("graph: parameter %s: the loss does not depend on it", p.spec.Name)
		}
		params[i] = p.node
	}
	grads, err := gorgonia.Grad(loss, params...)
	if err != nil {
		return nil, fmt.Errorf("graph: differentiating at node %s: %w", b.at, err)
	}
	if err := b.verify(loss, all); err != nil {
		return nil, err
	}
	return grads, nil
}
