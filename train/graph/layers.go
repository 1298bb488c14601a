package graph

import (
	"slices"

	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
)

// Dense is act(x W + bias) with W [width of x, units] and bias [units], named NAME.weight and
// NAME.bias. The weight starts by init (see Param), the bias at zero but with "fan_in_uniform", which it
// then shares. Silu needs x W + bias for its gradient: in training it is an instruction of its own.
func (b *Builder) Dense(name string, x *Node, units int, act program.Act, init string) *Node {
	what := "dense " + name
	if !b.usable(what, x) || !b.matrix(what, x) {
		return nil
	}
	if act != program.None && act != program.Relu && act != program.Silu {
		return b.failf("graph: %s: unknown activation %q", what, act)
	}
	w := b.Param(name+".weight", init, dims(x)[1], units)
	biasInit := "zero"
	if init == "fan_in_uniform" {
		biasInit = init
	}
	bias := b.param(name+".bias", biasInit, dims(x)[1], units)
	if act == program.Silu && b.training {
		z := b.apply(name+" z", program.MatMul, program.Attr{}, 0, x, w, bias)
		return b.apply(name, program.Activate, program.Attr{Act: act}, 0, z)
	}
	return b.apply(name, program.MatMul, program.Attr{Act: act}, 0, x, w, bias)
}

// Affine is act(x w + bias) of x [m,k], w [k,n] and bias [n], usually Consts: a Dense whose weights are not trained. Of
// activations it knows None and Relu.
func (b *Builder) Affine(x, w, bias *Node, act program.Act) *Node {
	if !b.usable("affine", x, w, bias) || !b.matrix("affine", x, w) {
		return nil
	}
	if act != program.None && act != program.Relu {
		return b.failf("graph: affine: activation %q, want none or relu", act)
	}
	if dims(x)[1] != dims(w)[0] || !slices.Equal(dims(bias), dims(w)[1:]) {
		return b.failf("graph: affine of %s %v, %s %v and %s %v: shapes do not fit",
			x.Name(), dims(x), w.Name(), dims(w), bias.Name(), dims(bias))
	}
	return b.apply("", program.MatMul, program.Attr{Act: act}, 0, x, w, bias)
}

// MatMul is the matrix product of x [m,k] and w [k,n], usually a Param.
func (b *Builder) MatMul(x, w *Node) *Node {
	if !b.usable("matmul", x, w) || !b.matrix("matmul", x, w) {
		return nil
	}
	if dims(x)[1] != dims(w)[0] {
		return b.failf("graph: matmul of %s %v and %s %v: inner dimensions differ", x.Name(), dims(x), w.Name(), dims(w))
	}
	return b.gorgonia("matmul", gorgonia.Mul, x, w)
}

// MatMulT is the matrix product of x [m,k] and the transpose of w [n,k], such as the scores of n items for m users. Both have a
// gradient.
func (b *Builder) MatMulT(x, w *Node) *Node {
	if !b.usable("matmult", x, w) || !b.matrix("matmult", x, w) {
		return nil
	}
	if dims(x)[1] != dims(w)[1] {
		return b.failf("graph: matmult of %s %v and %s %v: widths differ", x.Name(), dims(x), w.Name(), dims(w))
	}
	return b.apply("", program.MatMul, program.Attr{TransB: true}, 0, x, w)
}

// site counts the places of a model that draw random numbers.
func (b *Builder) site() uint32 {
	b.sites++
	return b.sites - 1
}

// Dropout zeroes elements of x with probability rate and divides the others by 1-rate, in training
// (Srivastava et al. 2014); elsewhere it is x. Which elements depends on the seed, the step and the
// count of dropouts and samples before this one in the model.
func (b *Builder) Dropout(x *Node, rate float64) *Node {
	if !b.usable("dropout", x) || !b.matrix("dropout", x) {
		return nil
	}
	if !(rate >= 0 && rate < 1) {
		return b.failf("graph: dropout of %s: rate %v, want 0 <= rate < 1", x.Name(), rate)
	}
	site := b.site()
	if !b.training || float32(rate) == 0 {
		return x
	}
	return b.apply("", program.Dropout, program.Attr{Rate: float32(rate), Site: site}, 0, x)
}

// Concat puts matrices of equal height side by side.
func (b *Builder) Concat(xs ...*Node) *Node {
	if !b.usable("concat", xs...) || !b.matrix("concat", xs...) {
		return nil
	}
	if len(xs) == 0 {
		return b.failf("graph: concat of nothing")
	}
	if len(xs) == 1 {
		return xs[0]
	}
	for _, x := range xs[1:] {
		if dims(x)[0] != dims(xs[0])[0] {
			return b.failf("graph: concat of %s %v and %s %v: heights differ", xs[0].Name(), dims(xs[0]), x.Name(), dims(x))
		}
	}
	return b.apply("", program.Concat, program.Attr{}, 0, xs...)
}

// Slice is the columns [from, to) of x.
func (b *Builder) Slice(x *Node, from, to int) *Node {
	if !b.usable("slice", x) || !b.matrix("slice", x) {
		return nil
	}
	if from < 0 || to <= from || to > dims(x)[1] {
		return b.failf("graph: slice of %s %v: columns %d:%d are outside it or none", x.Name(), dims(x), from, to)
	}
	return b.apply("", program.Slice, program.Attr{From: from, To: to}, 0, x)
}

// Add sums nodes of one shape, from the left.
func (b *Builder) Add(xs ...*Node) *Node {
	if !b.usable("add", xs...) {
		return nil
	}
	if len(xs) == 0 {
		return b.failf("graph: add of nothing")
	}
	sum := xs[0]
	for _, x := range xs[1:] {
		if sum == nil {
			return nil
		}
		if sum.IsScalar() != x.IsScalar() || !slices.Equal(dims(sum), dims(x)) {
			return b.failf("graph: add of %s %v and %s %v: shapes differ", sum.Name(), dims(sum), x.Name(), dims(x))
		}
		sum = b.gorgonia("add", gorgonia.Add, sum, x)
	}
	return sum
}

// Scale is c times x. A scale of ours rather than Gorgonia's product with a constant, since Gorgonia
// makes one node of constants that print alike.
func (b *Builder) Scale(x *Node, c float64) *Node {
	if !b.usable("scale", x) {
		return nil
	}
	return b.apply("", program.Scale, program.Attr{Scale: float32(c)}, 0, x)
}

// Mean is the average of nodes of one shape, as of the logits of several towers.
func (b *Builder) Mean(xs ...*Node) *Node {
	if len(xs) < 2 {
		return b.Add(xs...)
	}
	return b.Scale(b.Add(xs...), 1/float64(len(xs)))
}

// BCEWithLogits is the weighted mean binary cross entropy of logits z [rows,1] against targets
// [rows,1] in 0..1: sum_i w_i l_i / rows, divided by the rows and not by the weights. A nil weight counts
// every row once. The gradient goes to z alone.
func (b *Builder) BCEWithLogits(z, target, weight *Node) *Node {
	if !b.usable("bce", z, target) || !b.matrix("bce", z, target) {
		return nil
	}
	if weight == nil {
		weight = b.onesLike(target)
	}
	if !b.usable("bce", weight) {
		return nil
	}
	for _, x := range []*Node{z, target, weight} {
		if !slices.Equal(dims(x), []int{b.rows, 1}) {
			return b.failf("graph: bce: operand %s is %v, want [%d 1]", x.Name(), dims(x), b.rows)
		}
	}
	return b.apply("", program.BCE, program.Attr{}, 0, z, target, weight)
}

// onesLike is a matrix of ones of the shape of x, one for each x.
func (b *Builder) onesLike(x *Node) *Node {
	if b.ones[x] == nil {
		b.ones[x] = b.apply("", program.Fill, program.Attr{Scale: 1}, 0, x)
	}
	return b.ones[x]
}

// gorgonia applies a binary function of Gorgonia's own.
func (b *Builder) gorgonia(what string, f func(x, y *Node) (*Node, error), x, y *Node) *Node {
	b.at = what + " of " + x.Name() + " and " + y.Name()
	n, err := f(x, y)
	if err == nil {
		err = b.adopt(n, x, y)
	}
	if err != nil {
		return b.failf("graph: %s: %w", b.at, err)
	}
	return n
}

func (b *Builder) matrix(what string, xs ...*Node) bool {
	for _, x := range xs {
		if x.IsScalar() || len(dims(x)) != 2 {
			b.failf("graph: %s: %s has shape %v, want a matrix", what, x.Name(), dims(x))
			return false
		}
	}
	return true
}
