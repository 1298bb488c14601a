package graph

import (
	"fmt"
	"reflect"
	"strings"

	"gorgonia.org/gorgonia"
)

// foreign is what this package knows of an op that is Gorgonia's own. Their types are not exported, so
// they are told apart by the type's name, its String and its fields; all of that is in this file and
// holds for v0.9.18.
type foreign struct {
	kind           foreignKind
	transA, transB bool    // of product
	value          float32 // of constant
}

type foreignKind int

const (
	addition foreignKind = iota
	elementwise
	negation
	product
	constant
)

// remedies for ops of Gorgonia's that are never lowered, by type name: most of them are refused because
// Gorgonia hashes their attributes short and merges nodes that differ.
var remedies = map[string]string{
	"sliceOp":        "Gorgonia hashes the bounds as single bytes; use Builder.Slice",
	"sliceIncrOp":    "Gorgonia hashes the bounds as single bytes; use Builder.Slice",
	"concatOp":       "Gorgonia's gradient goes wrong past 255 columns; use Builder.Concat",
	"dropoutOp":      "Gorgonia merges two dropouts; use Builder.Dropout",
	"randomOp":       "its numbers cannot be repeated on a device; use Builder.Dropout",
	"constantTensor": "Gorgonia merges tensor constants that print alike; use an input or Builder.Scale",
	"sizeOp":         "reshaping and broadcasting are not lowered; use Builder.Dense for a bias",
	"repeatOp":       "reshaping and broadcasting are not lowered; use Builder.Dense for a bias",
	"reshapeOp":      "reshaping and broadcasting are not lowered; use Builder.Dense for a bias",
}

// recognise says what a Gorgonia op is, or why it cannot be lowered.
func recognise(n *Node) (foreign, error) {
	o := n.Op()
	kind := strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", o), "*"), "gorgonia.")
	switch kind {
	case "constantScalar":
		return constantValue(n)
	case "elemBinOp":
		switch o.String() {
		case "+ false":
			return foreign{kind: addition}, nil
		case "⊙ false":
			return foreign{kind: elementwise}, nil
		}
	case "elemUnaryOp":
		if unary := reflect.ValueOf(o).FieldByName("ʘUnaryOperator"); unary.IsValid() && o.String() == "neg" {
			return foreign{kind: negation}, nil
		}
	case "linAlgBinOp":
		v := reflect.ValueOf(o)
		operator, a, b := v.FieldByName("āBinaryOperator"), v.FieldByName("transA"), v.FieldByName("transB")
		if operator.IsValid() && a.IsValid() && b.IsValid() && operator.Uint() == 0 { // matMulOperator
			return foreign{kind: product, transA: a.Bool(), transB: b.Bool()}, nil
		}
	}
	why := remedies[kind]
	if why == "" {
		why = "use the Builder's layers, or add the operation to train/graph and train/program"
	}
	return foreign{}, fmt.Errorf("graph: node %s: cannot lower %s (%s): %s", n.Name(), o, kind, why)
}

func constantValue(n *Node) (foreign, error) {
	switch v := n.Value().(type) {
	case *gorgonia.F32:
		return foreign{kind: constant, value: float32(*v)}, nil
	case *gorgonia.F64:
		return foreign{kind: constant, value: float32(*v)}, nil
	}
	return foreign{}, fmt.Errorf("graph: node %s: constant of type %v, want float32", n.Name(), n.Type())
}

// lowerable checks a node before Grad sees it, so that what cannot be lowered is named rather than
// differentiated.
func lowerable(n *Node) error {
	if n.Op() == nil {
		return nil
	}
	if _, ours := n.Op().(*op); ours {
		return nil
	}
	_, err := recognise(n)
	return err
}
