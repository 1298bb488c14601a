package graph

import (
	"fmt"
	"slices"
)

// want is what one consumer contributes to a node's gradient: a node we know, or one of Gorgonia's
// making that must have these operands in some order.
type want struct {
	node *Node
	args []*Node
	any  bool // by an op whose gradient is not known by form: probe sees to it
}

func (w want) met(n *Node) bool {
	if w.node != nil {
		return w.node == n
	}
	have, err := children(n)
	if err != nil || len(have) != len(w.args) {
		return false
	}
	for _, a := range w.args {
		i := slices.Index(have, a)
		if i < 0 {
			return false
		}
		have = slices.Delete(have, i, i+1)
	}
	return true
}

// verify checks that the gradient of each node is the sum of exactly what its consumers contribute.
// Gorgonia takes a new node for an old one when their 32-bit hashes agree, operands unseen; that has to
// fail here rather than train something else.
func (b *Builder) verify(loss *Node, all []*Node) error {
	wants := map[*Node][]want{}
	if loss.Deriv() != nil {
		wants[loss] = []want{{node: loss.Deriv()}}
	}
	for i := len(all) - 1; i >= 0; i-- { // consumers before what they consume
		n := all[i]
		reaches, err := b.reachesParam(n)
		if err != nil {
			return err
		}
		if !reaches || len(wants[n]) == 0 {
			continue
		}
		if slices.ContainsFunc(wants[n], func(w want) bool { return w.any }) {
			b.unknown = true
			if err := b.contribute(n, wants); err != nil {
				return err
			}
			continue
		}
		terms, err := terms(n.Deriv(), len(wants[n]))
		if err != nil {
			return fmt.Errorf("graph: gradient of %s: %w", n.Name(), err)
		}
		if !matched(terms, wants[n]) {
			return fmt.Errorf("graph: gradient of %s is not the sum of what its consumers contribute: Gorgonia merged "+
				"nodes whose hashes agree; rename a layer", n.Name())
		}
		if err := b.contribute(n, wants); err != nil {
			return err
		}
	}
	return nil
}

// terms takes a sum of k contributions apart, which Gorgonia folds from the left.
func terms(n *Node, k int) ([]*Node, error) {
	var ts []*Node
	for ; k > 1; k-- {
		kids, err := children(n)
		if err != nil {
			return nil, err
		}
		if f, err := recognise(n); err != nil || f.kind != addition || len(kids) != 2 {
			return nil, fmt.Errorf("want a sum of %d terms, found %s", k, n.Name())
		}
		ts = append(ts, kids[1])
		n = kids[0]
	}
	return append(ts, n), nil
}

func matched(terms []*Node, wants []want) bool {
	left := slices.Clone(terms)
	for _, w := range wants {
		i := slices.IndexFunc(left, w.met)
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return len(left) == 0
}

// contribute notes what a node passes on to its operands.
func (b *Builder) contribute(n *Node, wants map[*Node][]want) error {
	if n.Op() == nil {
		return nil
	}
	kids, err := children(n)
	if err != nil {
		return err
	}
	if o, ours := n.Op().(*op); ours {
		for i, k := range kids {
			if o.wants[i] {
				wants[k] = append(wants[k], want{node: b.pulled[n][i]})
			}
		}
		return nil
	}
	f, err := foreign{kind: size}, error(nil)
	if b.registered(n.Op()) == nil {
		f, err = recognise(n)
	}
	if err != nil {
		return err
	}
	for i, k := range kids {
		switch {
		case k.IsScalar() != n.IsScalar() && f.kind != product: // a scalar beside a tensor gets a sum
			wants[k] = append(wants[k], want{any: true})
		case f.kind == addition:
			wants[k] = append(wants[k], want{node: n.Deriv()})
		case f.kind == negation:
			w, err := negated(n.Deriv())
			if err != nil {
				return err
			}
			wants[k] = append(wants[k], w)
		case f.kind == elementwise || f.kind == product:
			wants[k] = append(wants[k], want{args: []*Node{kids[1-i], n.Deriv()}})
		default:
			wants[k] = append(wants[k], want{any: true})
		}
	}
	return nil
}

// negated is what Gorgonia makes of the negation of a node: of a negation, its operand.
func negated(n *Node) (want, error) {
	if f, err := recognise(n); err == nil && f.kind == negation {
		kids, err := children(n)
		if err != nil {
			return want{}, err
		}
		return want{node: kids[0]}, nil
	}
	return want{args: []*Node{n}}, nil
}
