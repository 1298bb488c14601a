package program

import (
	"fmt"
	"math"
	"slices"
)

// The operations of optimizers. An update is one pass over a parameter and its state. In all of them g is grad or,
// where a factor [1] is given, grad * factor; t counts steps from 1 over the whole training; lr = Schedule.Rates[t-1];
// every product, sum, quotient and root is rounded to float32 in the order of the formula, none fused, and a
// coefficient is rounded to float32 once. The same bits everywhere.
const (
	// SGD: (grad[, factor]) -> (param). Plain gradient descent: g = g + decay p, p = p - lr g.
	SGD Op = "sgd"
	// Momentum: (grad[, factor]) -> (param, velocity). Gradient descent with momentum (Polyak 1964) or, with Nesterov,
	// Nesterov's in the form of Sutskever et al. 2013 that needs the gradient at p alone:
	// g = g + decay p, u = momentum u + g, p = p - lr u; with Nesterov p = p - lr (g + momentum u).
	Momentum Op = "momentum"
	// Adam: (grad[, factor]) -> (param, m, v). Kingma & Ba 2015 with the decay inside the gradient, L2 regularisation:
	// g = g + decay p, then as AdamW without its decay.
	Adam Op = "adam"
	// Adagrad: (grad[, factor]) -> (param, sum). Duchi et al. 2011, with a diagonal:
	// g = g + decay p, s = s + g g, p = p - lr (g / (sqrt(s) + eps)).
	Adagrad Op = "adagrad"

	// SumSquares: (x) -> (s [1]). The sum of the squares of the elements: SquareBlock elements at a time, each square
	// rounded to float32, a block in LaneSum's order in float32, the blocks in ascending order in float64, the
	// whole rounded to float32. The same bits everywhere.
	SumSquares Op = "sum_squares"
	// RowSumSquares: (table [n,d], uses ...) -> (s [1]). The same of the gradient of a table, which is given by uses as
	// RowAdam takes it: the squares of a row's sum in LaneSum's order in float32, the rows that have an entry
	// in ascending order in float64, the whole rounded to float32. Of the table only the shape is looked at.
	RowSumSquares Op = "row_sum_squares"
	// ClipFactor: (s1, s2, ...) -> (factor [1]). Clipping by the global norm (Pascanu et al. 2013): with the norm
	// sqrt(s1 + s2 + ...), summed in that order in float64, the factor is limit / norm where norm > limit, else 1. So a
	// norm that is NaN leaves the gradients as they are, for the loss to show it.
	ClipFactor Op = "clip_factor"

	// MovingAverage: (param) -> (average), behind the param's update. An exponential moving average of the weights (Polyak
	// & Juditsky 1992 average them; Izmailov et al. 2018 do so for networks), with the correction for its start that Adam
	// makes: a = (1 - decay) / (1 - decay^t), average = average + a (p - average). So after t steps it is the mean of the
	// weights of all t steps, those of step i weighted by decay^(t-i), and the zeros it starts from are not in it.
	MovingAverage Op = "moving_average"
)

// SquareBlock is how many elements SumSquares adds in float32 before it goes on in float64: lanes of 256 squares lose
// nothing that matters, and threads have something to divide.
const SquareBlock = 4096

// averageSuffix marks the State that holds the average of a parameter.
const averageSuffix = ".average"

// AverageName is the name of the State that holds the average of a parameter.
func AverageName(param string) string { return param + averageSuffix }

// AverageRate is the a of MovingAverage in step t, counted from 1.
func AverageRate(decay float64, t int) float32 {
	return float32((1 - decay) / (1 - math.Pow(decay, float64(t))))
}

// averaged tells whether the forward program of the set reads averages in place of the parameters.
func (s *Set) averaged() bool {
	return s.Forward != nil && slices.ContainsFunc(s.Forward.Buffers, func(b Buffer) bool { return b.Kind == State })
}

// Served is the forward program as an artifact holds it: averages that it reads are parameters, under the names of
// those. Trained gives the weights for it.
func (s *Set) Served() *Program {
	if !s.averaged() {
		return s.Forward
	}
	p := *s.Forward
	p.Buffers = slices.Clone(p.Buffers)
	for i := range p.Buffers {
		if b := &p.Buffers[i]; b.Kind == State {
			b.Kind, b.Name = Param, s.paramOf(b.Name)
		}
	}
	return &p
}

// paramOf is the param of which a State is the average, or "".
func (s *Set) paramOf(state string) string {
	for i := range s.Params {
		if AverageName(s.Params[i].Name) == state {
			return s.Params[i].Name
		}
	}
	return ""
}

// Trained picks what the training came to out of an export: the parameters or, where the forward program reads
// averages, those under the names of the parameters.
func (s *Set) Trained(export Tensors) Tensors {
	averaged := s.averaged()
	out := make(Tensors, 0, len(s.Params))
	for _, p := range s.Params {
		name := p.Name
		if averaged {
			name = AverageName(name)
		}
		if t := export.Find(name); t != nil {
			w := *t
			w.Name = p.Name
			out = append(out, w)
		}
	}
	out.Sort()
	return out
}

// optimAttributes checks the attributes of an optimizer's operation and clears them.
func (c *programChecker) optimAttributes(in *Instr, at *Attr) {
	within := func(name string, x float64) {
		if !(x >= 0 && x < 1) {
			c.bad("%s is %v, want 0 or more and below 1", name, x)
		}
	}
	positive := func(name string, x float64) {
		if !(x > 0) || math.IsInf(x, 0) {
			c.bad("%s is %v, want above 0", name, x)
		}
	}
	if slices.Contains([]Op{SGD, Momentum, Adam, Adagrad}, in.Op) {
		if !(at.Decay >= 0) || math.IsInf(at.Decay, 0) {
			c.bad("decay is %v, want 0 or more", at.Decay)
		}
		at.Decay = 0
	}
	switch in.Op {
	case RowSumSquares:
		at.Uses = ""
	case Momentum:
		within("momentum", at.Momentum)
		at.Momentum, at.Nesterov = 0, false
	case Adam:
		within("beta1", at.Beta1)
		within("beta2", at.Beta2)
		positive("eps", at.Eps)
		at.Beta1, at.Beta2, at.Eps = 0, 0, 0
	case Adagrad:
		positive("eps", at.Eps)
		at.Eps = 0
	case ClipFactor:
		positive("limit", at.Limit)
		at.Limit = 0
	case MovingAverage:
		within("decay", at.Decay)
		at.Decay = 0
	}
}

// optimOuts are the kinds that output k of an optimizer's operation may have, nil for another operation.
func optimOuts(op Op, k int) []Kind {
	switch op {
	case SGD, Momentum, Adam, Adagrad:
		if k == 0 {
			return []Kind{Param}
		}
		return []Kind{State}
	case MovingAverage:
		return []Kind{State}
	}
	return nil
}

// optimShapes checks the shapes of an optimizer's operation.
func (c *programChecker) optimShapes(
	in *Instr, matrix func(string, int) (int, int, bool), want func(string, int, ...int),
) {
	switch in.Op {
	case AdamW, SGD, Momentum, Adam, Adagrad:
		for k, o := range in.Outs {
			want(fmt.Sprintf("output %d", k), o, c.buf(in.Args[0]).Shape...)
		}
		if len(in.Args) == 2 {
			want("the factor", in.Args[1], 1)
		}
	case SumSquares:
		want("output", in.Outs[0], 1)
	case RowSumSquares:
		want("output", in.Outs[0], 1)
		if n, d, ok := matrix("the table", in.Args[0]); ok {
			c.tableGradient(in, n, d, matrix, want)
		}
	case ClipFactor:
		for k, a := range in.Args {
			want(fmt.Sprintf("argument %d", k), a, 1)
		}
		want("output", in.Outs[0], 1)
	case MovingAverage:
		want("output", in.Outs[0], c.buf(in.Args[0]).Shape...)
	}
}

// tableGradient checks the uses of a table of n rows of d.
func (c *programChecker) tableGradient(
	in *Instr, n, d int, matrix func(string, int) (int, int, bool), want func(string, int, ...int),
) {
	c.countable(n)
	uses, err := in.tableUses()
	if err != nil {
		c.bad("%v", err)
		return
	}
	entries := 0
	for k, u := range uses {
		if m, w, ok := matrix(fmt.Sprintf("the index of use %d", k), u.Idx); ok {
			want(fmt.Sprintf("the gradient of use %d", k), u.Source, m, d)
			if u.S >= 0 {
				want(fmt.Sprintf("the factors of use %d", k), u.S, m, w)
			}
			entries += m * w
		}
	}
	if entries > maxRows {
		c.bad("%d indices in one step, at most %d are allowed", entries, maxRows)
	}
}
