package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/train/program"
)

// Optimizer is one of SGD, Adam, AdamW and Adagrad. Learning rates come from the schedule. Decay of any of them applies
// to matrices alone: biases are not decayed, and of a Table those rows that a step has read.
type Optimizer interface {
	// name is what people call it.
	name() string
	// faults lists what is wrong with its numbers.
	faults() []string
	// rule is how it updates a parameter, or why it cannot.
	rule(p *param) (rule, error)
}

// rule is how a parameter is updated: by an instruction, with state of its own.
type rule struct {
	op    program.Op
	attr  program.Attr
	state []program.TensorSpec
}

// SGD is gradient descent, with Momentum above 0 that of Polyak 1964 and with Nesterov that of Nesterov as Sutskever et
// al. 2013 have it. Decay is added to the gradient. Of a Table only the rows that a step has read are updated, and
// Momentum must be 0.
type SGD struct {
	Momentum float64
	Nesterov bool
	Decay    float64
}

// Adam is the optimizer of Kingma & Ba 2015. Decay is added to the gradient (L2 regularisation); a Table can have none
// of it.
type Adam struct {
	Beta1, Beta2, Eps, Decay float64
}

// AdamW is Adam with the decoupled weight decay of Loshchilov & Hutter 2019. A Table is updated lazily: only the rows
// that a step has read.
type AdamW struct {
	Beta1, Beta2, Eps, Decay float64
}

// Adagrad is the optimizer of Duchi et al. 2011. Decay is added to the gradient. Of a Table only the rows that a step
// has read are updated, with one accumulator a row and a decoupled Decay: program.RowAdagrad.
type Adagrad struct {
	Eps, Decay float64
}

func (SGD) name() string     { return "SGD" }
func (Adam) name() string    { return "Adam" }
func (AdamW) name() string   { return "AdamW" }
func (Adagrad) name() string { return "Adagrad" }

// faults of numbers that several optimizers have.
type faults []string

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

func (f *faults) decay(x float64) {
	if !(x >= 0) || math.IsInf(x, 0) {
		f.add("Decay is %v, want at least 0", x)
	}
}

func (f *faults) eps(x float64) {
	if !(x > 0) || math.IsInf(x, 0) {
		f.add("Eps is %v, want more than 0", x)
	}
}

func (f *faults) betas(b1, b2 float64) {
	if !(b1 >= 0 && b1 < 1 && b2 >= 0 && b2 < 1) {
		f.add("has betas %v and %v, want 0 <= beta < 1", b1, b2)
	}
}

func (o SGD) faults() []string {
	var f faults
	if !(o.Momentum >= 0 && o.Momentum < 1) {
		f.add("Momentum is %v, want 0 or more and below 1", o.Momentum)
	}
	if o.Nesterov && o.Momentum == 0 {
		f.add("Nesterov needs a Momentum above 0")
	}
	f.decay(o.Decay)
	return f
}

func (o Adam) faults() []string { return AdamW(o).faults() }

func (o AdamW) faults() []string {
	var f faults
	f.betas(o.Beta1, o.Beta2)
	f.eps(o.Eps)
	f.decay(o.Decay)
	return f
}

func (o Adagrad) faults() []string {
	var f faults
	f.eps(o.Eps)
	f.decay(o.Decay)
	return f
}

func (o SGD) rule(p *param) (rule, error) {
	switch {
	case p.table && o.Momentum > 0:
		return rule{}, fmt.Errorf("graph: table %s: SGD with momentum has no update of the rows that a step reads; "+
			"take a momentum of 0, Adagrad, AdamW or Adam", p.spec.Name)
	case p.table:
		return rule{op: program.RowSGD, attr: program.Attr{Decay: o.Decay, Uses: p.uses}}, nil
	case o.Momentum == 0:
		return rule{op: program.SGD, attr: program.Attr{Decay: decayOf(p, o.Decay)}}, nil
	}
	return rule{program.Momentum,
		program.Attr{Momentum: o.Momentum, Nesterov: o.Nesterov, Decay: decayOf(p, o.Decay)}, stateOf(p, velocitySuffix)}, nil
}

func (o Adam) rule(p *param) (rule, error) {
	if p.table && o.Decay > 0 {
		return rule{}, fmt.Errorf("graph: table %s: Adam's decay %v, which is part of the gradient, would touch rows that no step reads; "+
			"take AdamW, or no decay", p.spec.Name, o.Decay)
	}
	r, err := AdamW(o).rule(p)
	if !p.table {
		r.op = program.Adam
	}
	return r, err
}

func (o AdamW) rule(p *param) (rule, error) {
	r := rule{program.AdamW, program.Attr{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, Decay: decayOf(p, o.Decay)},
		stateOf(p, meanSuffix, squareSuffix)}
	if p.table {
		r.op, r.attr.Uses = program.RowAdam, p.uses
	}
	return r, nil
}

func (o Adagrad) rule(p *param) (rule, error) {
	if p.table { // one accumulator a row
		return rule{program.RowAdagrad, program.Attr{Eps: o.Eps, Decay: o.Decay, Uses: p.uses},
			[]program.TensorSpec{{Name: p.spec.Name + sumSuffix, Shape: []int{p.spec.Shape[0], 1}}}}, nil
	}
	return rule{program.Adagrad, program.Attr{Eps: o.Eps, Decay: decayOf(p, o.Decay)}, stateOf(p, sumSuffix)}, nil
}

// decayOf is the decay of a parameter: of matrices alone.
func decayOf(p *param, decay float64) float64 {
	if len(p.spec.Shape) > 1 {
		return decay
	}
	return 0
}

// Suffixes of state: the means of Adam, the velocity of SGD, the sums of Adagrad.
const (
	meanSuffix     = ".adam_m"
	squareSuffix   = ".adam_v"
	velocitySuffix = ".momentum"
	sumSuffix      = ".adagrad"
)

// stateOf are pieces of state of a parameter's shape.
func stateOf(p *param, suffixes ...string) []program.TensorSpec {
	var specs []program.TensorSpec
	for _, s := range suffixes {
		specs = append(specs, program.TensorSpec{Name: p.spec.Name + s, Shape: p.spec.Shape})
	}
	return specs
}

// state is all that a parameter has beside itself.
func (o *Options) state(p *param) ([]program.TensorSpec, error) {
	r, err := o.Optimizer.rule(p)
	if err == nil && o.Average > 0 {
		r.state = append(r.state, program.TensorSpec{Name: program.AverageName(p.spec.Name), Shape: p.spec.Shape})
	}
	return r.state, err
}

// optimizerFaults lists what is wrong with the optimizer and what goes with it.
func (o *Options) optimizerFaults() (errs []error) {
	if o.Optimizer == nil {
		errs = append(errs, fmt.Errorf("graph: option Optimizer is missing; take SGD, Adam, AdamW or Adagrad"))
	} else {
		for _, f := range o.Optimizer.faults() {
			errs = append(errs, fmt.Errorf("graph: option Optimizer, %s: %s", o.Optimizer.name(), f))
		}
	}
	if !(o.ClipNorm >= 0) || math.IsInf(o.ClipNorm, 0) {
		errs = append(errs, fmt.Errorf("graph: option ClipNorm is %v, want a norm, or 0 for no clipping", o.ClipNorm))
	}
	if !(o.Average >= 0 && o.Average < 1) {
		errs = append(errs, fmt.Errorf("graph: option Average is %v, want a decay below 1, or 0 for no average", o.Average))
	}
	return errs
}

// updates lowers the optimizer: grads are the operands that each parameter's gradient is made of. Without clipping an
// update stands right behind the last instruction that makes its gradient or reads the parameter: the gradient is still
// in the cache, and its memory is free the soonest. Clipping needs the squares of all gradients first, so that updates
// come last.
func (l *lowering) updates(o *Options, params []int, grads [][]int) error {
	factor := -1
	if o.ClipNorm > 0 {
		factor = l.clip(o.ClipNorm, params, grads)
	}
	for i, p := range l.b.params {
		r, err := o.Optimizer.rule(p)
		if err != nil {
			return err
		}
		args, outs := grads[i], []int{params[i]}
		for _, s := range r.state {
			outs = append(outs, l.buffer(s.Name, program.State, program.F32, s.Shape))
		}
		at := l.behind(grads[i], params[i])
		if factor >= 0 {
			args, at = append(slices.Clone(args), factor), len(l.p.Instrs)
		}
		l.p.Instrs = slices.Insert(l.p.Instrs, at,
			program.Instr{Op: r.op, Args: args, Outs: outs, Attr: r.attr, Node: p.spec.Name})
		if o.Average > 0 {
			average := l.buffer(program.AverageName(p.spec.Name), program.State, program.F32, p.spec.Shape)
			l.p.Instrs = slices.Insert(l.p.Instrs, at+1, program.Instr{Op: program.MovingAverage, Args: []int{params[i]},
				Outs: []int{average}, Attr: program.Attr{Decay: o.Average}, Node: p.spec.Name})
		}
	}
	return nil
}

// clip lowers the sums of squares, each behind its gradient, and the factor that they come to.
func (l *lowering) clip(limit float64, params []int, grads [][]int) int {
	var sums []int
	for i, p := range l.b.params {
		in := program.Instr{Op: program.SumSquares, Args: grads[i], Node: p.spec.Name}
		if p.table {
			in.Op, in.Args, in.Attr.Uses = program.RowSumSquares, append([]int{params[i]}, grads[i]...), p.uses
		}
		in.Outs = []int{l.buffer("squares of "+p.spec.Name, program.Temp, program.F32, []int{1})}
		sums = append(sums, in.Outs[0])
		l.p.Instrs = slices.Insert(l.p.Instrs, l.behind(grads[i], -1), in)
	}
	factor := l.buffer("clip factor", program.Temp, program.F32, []int{1})
	l.emit(program.ClipFactor, program.Attr{Limit: limit}, "", sums, []int{factor})
	return factor
}

// behind is the place behind the last instruction that makes one of these or reads the parameter.
func (l *lowering) behind(made []int, param int) int {
	at := 0
	for i, in := range l.p.Instrs {
		makes := slices.ContainsFunc(in.Outs, func(o int) bool { return slices.Contains(made, o) })
		if makes || param >= 0 && slices.Contains(in.Args, param) {
			at = i + 1
		}
	}
	return at
}

// readAverages lets a forward program read the averages in place of the parameters.
func readAverages(p *program.Program) {
	for i := range p.Buffers {
		if b := &p.Buffers[i]; b.Kind == program.Param {
			b.Kind, b.Name = program.State, program.AverageName(b.Name)
		}
	}
}
