package graph

import "github.com/onmart/onmart/train/program"

// Softmax is that of each row of x [m,n], see program.Softmax. Gorgonia's own is lowered too; but it makes one node of
// SoftMax and LogSoftMax of the same node.
func (b *Builder) Softmax(x *Node) *Node { return b.rowwise("softmax", program.Softmax, x) }

// LogSoftmax is the logarithm of Softmax, without its underflow.
func (b *Builder) LogSoftmax(x *Node) *Node { return b.rowwise("log_softmax", program.LogSoftmax, x) }

func (b *Builder) rowwise(what string, kind program.Op, x *Node) *Node {
	if !b.usable(what, x) || !b.matrix(what, x) {
		return nil
	}
	return b.apply("", kind, program.Attr{}, 0, x)
}

// LayerNorm scales each row of x [m,n] to mean 0 and variance 1 and applies a gain and a bias [n], named NAME.gain and
// NAME.bias, that start at 1 and 0 (Ba, Kiros & Hinton 2016). eps is added to the variance.
func (b *Builder) LayerNorm(name string, x *Node, eps float64) *Node {
	what := "layer_norm " + name
	if !b.usable(what, x) || !b.matrix(what, x) {
		return nil
	}
	if !(eps > 0) {
		return b.failf("graph: %s: eps %v, want above 0", what, eps)
	}
	n := dims(x)[1]
	gain, bias := b.Param(name+".gain", "one", n), b.Param(name+".bias", "zero", n)
	if !b.usable(what, gain, bias) {
		return nil
	}
	return b.apply(name, program.LayerNorm, program.Attr{Eps: eps}, 0, x, gain, bias)
}
