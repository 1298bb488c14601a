package graph

import (
	"slices"

	"github.com/onmart/onmart/train/program"
)

// Lookup is the mean of the rows of a table [n,d], a Table or a Const, that each row of idx [m,w] names: [m,d], 0
// where all are -1. Indices are an Input, whose column holds whole numbers from -1 to n-1, or a Sample.
func (b *Builder) Lookup(table, idx *Node) *Node {
	if !b.readable("lookup", table, idx) {
		return nil
	}
	return b.apply("", program.Lookup, program.Attr{}, 0, table, idx)
}

// LookupDot is the inner product of each row of a [m,d] and the rows of a table [n,d] that its row of idx [m,w] names:
// [m,w], 0 where the index is -1. Nothing of size m times w times d is made, in the gradient neither. Gradients go to
// the table and to a.
func (b *Builder) LookupDot(table, idx, a *Node) *Node {
	if !b.readable("lookup_dot", table, idx) || !b.usable("lookup_dot", a) || !b.matrix("lookup_dot", a) {
		return nil
	}
	if want := []int{dims(idx)[0], dims(table)[1]}; !slices.Equal(dims(a), want) {
		return b.failf("graph: lookup_dot: operand %s is %v, want %v", a.Name(), dims(a), want)
	}
	return b.apply("", program.LookupDot, program.Attr{}, 0, table, idx, a)
}

// LookupWeighted is the sum of the rows of a table [n,d] that each row of idx [m,w] names, times their s [m,w]: [m,d].
// Gradients go to the table and to s.
func (b *Builder) LookupWeighted(table, idx, s *Node) *Node {
	if !b.readable("lookup_weighted", table, idx) || !b.usable("lookup_weighted", s) || !b.matrix("lookup_weighted", s) {
		return nil
	}
	if !slices.Equal(dims(s), dims(idx)) {
		return b.failf("graph: lookup_weighted: operand %s is %v, want %v", s.Name(), dims(s), dims(idx))
	}
	return b.apply("", program.LookupWeighted, program.Attr{}, 0, table, idx, s)
}

// readable checks the operands of a lookup.
func (b *Builder) readable(what string, table, idx *Node) bool {
	if !b.usable(what, table, idx) || !b.matrix(what, table, idx) || !b.index(what, idx) {
		return false
	}
	isTable := func(p *param) bool { return p.table && p.node == table }
	if !b.constant(table) && !slices.ContainsFunc(b.params, isTable) {
		b.failf("graph: %s in %s: want a node that Table or Const made", what, table.Name())
		return false
	}
	return true
}

// constant says whether Const made the node.
func (b *Builder) constant(n *Node) bool {
	return slices.ContainsFunc(b.consts, func(p *param) bool { return p.node == n })
}

// index checks that a node may be one.
func (b *Builder) index(what string, idx *Node) bool {
	if !b.isIndex(idx) {
		b.failf("graph: %s: %s is no index: want an Input, a Sample or a Concat of them", what, idx.Name())
		return false
	}
	return true
}

func (b *Builder) isIndex(n *Node) bool {
	if slices.Contains(b.inputs, n) {
		return true
	}
	o, ours := n.Op().(*op)
	if !ours || o.kind != program.Concat {
		return ours && o.kind == program.Sample
	}
	kids, err := children(n)
	return err == nil && !slices.ContainsFunc(kids, func(k *Node) bool { return !b.isIndex(k) })
}

// Sample draws k indices [k,1] for each step, in proportion to the steps of cdf [n], a Const that ascends to 1. The
// rows of a batch share them. What is drawn depends on the seed, the step and the count of dropouts and samples
// before this one.
func (b *Builder) Sample(cdf *Node, k int) *Node { return b.sample(cdf, 0, k) }

// SampleRows is Sample with k indices for each row of the batch: [rows,k].
func (b *Builder) SampleRows(cdf *Node, k int) *Node { return b.sample(cdf, b.rows, k) }

func (b *Builder) sample(cdf *Node, rows, k int) *Node {
	if !b.usable("sample", cdf) {
		return nil
	}
	if !b.constant(cdf) || len(dims(cdf)) != 1 {
		return b.failf("graph: sample by %s %v: want a vector that Const made", cdf.Name(), dims(cdf))
	}
	if k < 1 {
		return b.failf("graph: sample by %s: %d samples, want at least 1", cdf.Name(), k)
	}
	n, err := b.nodeOf("", &op{kind: program.Sample, attr: program.Attr{Site: b.site()}, width: k, rows: rows}, cdf)
	if err != nil {
		return b.failf("%w", err)
	}
	return n
}

// RowDot is the inner product of each row of x and of y, both [m,d]: [m,1].
func (b *Builder) RowDot(x, y *Node) *Node {
	if !b.usable("row_dot", x, y) || !b.matrix("row_dot", x, y) {
		return nil
	}
	if !slices.Equal(dims(x), dims(y)) {
		return b.failf("graph: row_dot of %s %v and %s %v: shapes differ", x.Name(), dims(x), y.Name(), dims(y))
	}
	return b.apply("", program.RowDot, program.Attr{}, 0, x, y)
}

// RowScale is each row of x [m,d] times its element of s [m,1].
func (b *Builder) RowScale(x, s *Node) *Node {
	if !b.usable("row_scale", x, s) || !b.matrix("row_scale", x, s) {
		return nil
	}
	if !slices.Equal(dims(s), []int{dims(x)[0], 1}) {
		return b.failf("graph: row_scale of %s %v by %s %v: want one factor a row",
			x.Name(), dims(x), s.Name(), dims(s))
	}
	return b.apply("", program.RowScale, program.Attr{}, 0, x, s)
}

// SampledSoftmax is the weighted mean over the rows of the cross-entropy of the items pi [rows,1], of logits pos
// [rows,1], among themselves and the items ni [k,1] that Sample drew, of logits neg [rows,k] and shared by all rows.
// logq [n], a Const, is the logarithm of each item's probability of being drawn. See program.SampledSoftmax. A nil
// weight counts every row once. Gradients go to pos and neg.
func (b *Builder) SampledSoftmax(pos, neg, pi, ni, logq, weight *Node) *Node {
	if !b.usable("sampled_softmax", pos, neg, pi, ni, logq) || !b.matrix("sampled_softmax", pos, neg, pi, ni) ||
		!b.index("sampled_softmax", pi) || !b.index("sampled_softmax", ni) {
		return nil
	}
	if weight == nil {
		weight = b.onesLike(pi)
	}
	if !b.usable("sampled_softmax", weight) {
		return nil
	}
	column, k := []int{b.rows, 1}, dims(neg)[1]
	for _, w := range []struct {
		x    *Node
		dims []int
	}{{pos, column}, {neg, []int{b.rows, dims(ni)[0]}}, {pi, column}, {ni, []int{k, 1}}, {weight, column}} {
		if !slices.Equal(dims(w.x), w.dims) {
			return b.failf("graph: sampled_softmax: operand %s is %v, want %v", w.x.Name(), dims(w.x), w.dims)
		}
	}
	if !b.constant(logq) || len(dims(logq)) != 1 {
		return b.failf("graph: sampled_softmax: %s %v is no logq: want a vector that Const made",
			logq.Name(), dims(logq))
	}
	return b.apply("", program.SampledSoftmax, program.Attr{}, 0, pos, neg, pi, ni, logq, weight)
}

// BPR is the weighted mean over the rows of -log sigmoid(pos - neg) (Rendle et al. 2009), both [rows,1]: the binary
// cross-entropy of the difference.
func (b *Builder) BPR(pos, neg, weight *Node) *Node {
	if !b.usable("bpr", pos, neg) {
		return nil
	}
	return b.BCEWithLogits(b.Add(pos, b.Scale(neg, -1)), b.onesLike(pos), weight)
}

// CandidateSoftmax is the weighted mean over the rows of the cross-entropy of the first column of the logits s [rows,w]
// among all of its row: a positive and candidates that each row has for itself, whose scores LookupDot made of the same
// idx [rows,w]. A candidate that is -1, or the positive once more, does not count; a row whose positive is -1 has loss
// 0. logq [n], a Const or nil, corrects for how often each was drawn, as in SampledSoftmax. A nil weight counts every
// row once. See program.CandidateSoftmax. The gradient goes to s alone.
func (b *Builder) CandidateSoftmax(s, idx, logq, weight *Node) *Node {
	return b.candidates(program.CandidateSoftmax, s, idx, logq, weight)
}

// CandidateBPR is the weighted mean over the rows and their candidates of -log sigmoid(positive - candidate); operands
// as for CandidateSoftmax. See program.CandidateBPR.
func (b *Builder) CandidateBPR(s, idx, weight *Node) *Node {
	return b.candidates(program.CandidateBPR, s, idx, nil, weight)
}

func (b *Builder) candidates(kind program.Op, s, idx, logq, weight *Node) *Node {
	what := string(kind)
	if !b.usable(what, s, idx) || !b.matrix(what, s, idx) || !b.index(what, idx) {
		return nil
	}
	if weight == nil {
		weight = b.onesLike(b.Slice(s, 0, 1))
	}
	if !b.usable(what, weight) {
		return nil
	}
	w := dims(s)[1]
	if w < 2 {
		return b.failf("graph: %s: %s is %v: want a positive and at least one other column", what, s.Name(), dims(s))
	}
	for _, o := range []struct {
		x     *Node
		width int
	}{{s, w}, {idx, w}, {weight, 1}} {
		if !slices.Equal(dims(o.x), []int{b.rows, o.width}) {
			return b.failf("graph: %s: operand %s is %v, want [%d %d]", what, o.x.Name(), dims(o.x), b.rows, o.width)
		}
	}
	args := []*Node{s, idx, weight}
	if logq != nil {
		if !b.usable(what, logq) {
			return nil
		}
		if !b.constant(logq) || len(dims(logq)) != 1 {
			return b.failf("graph: %s: %s %v is no logq: want a vector that Const made", what, logq.Name(), dims(logq))
		}
		args = append(args, logq)
	}
	return b.apply("", kind, program.Attr{}, 0, args...)
}

// Pinball is the mean pinball loss of the quantile forecasts y [rows, h*q] at h steps, q levels a step, against t
// [rows,h], with weights w [rows,h]; it is divided by rows*h*q and not by the weights, and a weight of 0 leaves a
// target out. See program.Pinball. The gradient goes to y alone.
func (b *Builder) Pinball(y, t, w *Node, levels ...float64) *Node {
	if !b.usable("pinball", y, t, w) || !b.matrix("pinball", y, t, w) {
		return nil
	}
	ls, err := program.NewLevels(levels)
	if err != nil {
		return b.failf("graph: pinball: %w", err)
	}
	h := dims(t)[1]
	for _, o := range []struct {
		x     *Node
		width int
	}{{y, h * len(levels)}, {t, h}, {w, h}} {
		if !slices.Equal(dims(o.x), []int{b.rows, o.width}) {
			return b.failf("graph: pinball: operand %s is %v, want [%d %d]", o.x.Name(), dims(o.x), b.rows, o.width)
		}
	}
	return b.apply("", program.Pinball, program.Attr{Levels: ls}, 0, y, t, w)
}
