package graph

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
)

// foreign is what this package knows of an op that is Gorgonia's own. Their types are not exported, so
// they are told apart by the type's name, its String and its fields; all of that is in this file and
// holds for v0.9.18.
type foreign struct {
	kind           foreignKind
	transA, transB bool       // of product and matVec
	value          float32    // of constant
	fn             program.Fn // of unary and binary
	axis           int        // of size, repeat and softmax, where -1 is the last
	log            bool       // of softmax and its gradient
}

type foreignKind int

const (
	addition foreignKind = iota
	elementwise
	negation
	product
	constant
	unary
	binary // another function of two values than addition and elementwise
	size
	sum
	greatest
	repeat
	reshape
	transposition
	matVec
	dot
	outer
	softmax
	softmaxGradient // (x, y, dy)
)

// unaryFns and binaryFns are Gorgonia's names of functions.
var unaryFns = map[string]program.Fn{
	"abs": program.FnAbs, "sign": program.FnSign, "ceil": program.FnCeil, "floor": program.FnFloor, "sin": program.FnSin,
	"cos": program.FnCos, "exp": program.FnExp, "ln": program.FnLog, "log2": program.FnLog2, "square": program.FnSquare,
	"sqrt": program.FnSqrt, "inv": program.FnInv, "invSqrt": program.FnRsqrt, "cube": program.FnCube,
	"tanh":    program.FnTanh,
	"sigmoid": program.FnSigmoid, "log1p": program.FnLog1p, "expm1": program.FnExpm1, "softplus": program.FnSoftplus,
}

var binaryFns = map[string]program.Fn{
	"-": program.FnSub, "÷": program.FnDiv, "^": program.FnPow, "<": program.FnLt, ">": program.FnGt, "<=": program.FnLe,
	">=": program.FnGe, "==": program.FnEq, "!=": program.FnNe,
}

// remedies for ops of Gorgonia's that are never lowered, by type name: most of them are refused because
// Gorgonia hashes their attributes short and merges nodes that differ.
var remedies = map[string]string{
	"sliceOp":        "Gorgonia hashes the bounds as single bytes; use Builder.Slice",
	"sliceIncrOp":    "Gorgonia hashes the bounds as single bytes; use Builder.Slice",
	"concatOp":       "Gorgonia's gradient goes wrong past 255 columns; use Builder.Concat",
	"dropoutOp":      "Gorgonia merges two dropouts; use Builder.Dropout",
	"randomOp":       "its numbers cannot be repeated on a device; use Builder.Dropout",
	"constantTensor": "Gorgonia merges tensor constants that print alike; use an input or Builder.Scale",
	"atOp":           "Gorgonia has no gradient for it; use Builder.Slice",
}

// recognise says what a Gorgonia op is, or why it cannot be lowered.
func recognise(n *Node) (foreign, error) {
	o := n.Op()
	kind := typeName(o)
	v := reflect.Indirect(reflect.ValueOf(o))
	why := remedies[kind]
	switch kind {
	case "constantScalar":
		return constantValue(n)
	case "elemBinOp":
		name, same, _ := strings.Cut(o.String(), " ")
		switch fn := binaryFns[name]; {
		case name == "+":
			return foreign{kind: addition}, nil
		case name == "⊙":
			return foreign{kind: elementwise}, nil
		case fn == "":
		case fn != program.FnSub && fn != program.FnDiv && fn != program.FnPow && same != "true":
			why = "its result is of booleans; compare with retSame"
		default:
			return foreign{kind: binary, fn: fn}, nil
		}
	case "minBetween":
		return foreign{kind: binary, fn: program.FnMin}, nil
	case "maxBetween":
		return foreign{kind: binary, fn: program.FnMax}, nil
	case "elemUnaryOp":
		switch fn := unaryFns[o.String()]; {
		case o.String() == "neg":
			return foreign{kind: negation}, nil
		case fn != "":
			return foreign{kind: unary, fn: fn}, nil
		}
	case "linAlgBinOp":
		operator, a, b := v.FieldByName("āBinaryOperator"), v.FieldByName("transA"), v.FieldByName("transB")
		if operator.IsValid() && a.IsValid() && b.IsValid() && operator.Uint() < 4 { // the fifth is batched
			kinds := [4]foreignKind{product, matVec, dot, outer}
			return foreign{kind: kinds[operator.Uint()], transA: a.Bool(), transB: b.Bool()}, nil
		}
	case "sizeOp":
		if f := v.FieldByName("axis"); f.IsValid() {
			return foreign{kind: size, axis: int(f.Int())}, nil
		}
	case "sumOp":
		return foreign{kind: sum}, nil
	case "maxOp":
		return foreign{kind: greatest}, nil
	case "repeatOp":
		if f := v.FieldByName("along"); f.IsValid() {
			return foreign{kind: repeat, axis: int(f.Int())}, nil
		}
	case "reshapeOp":
		return foreign{kind: reshape}, nil
	case "transposeOp":
		if len(dims(n)) == 2 {
			return foreign{kind: transposition}, nil
		}
		why = "only matrices are transposed"
	case "softmaxOp", "softmaxDiffOp":
		axis, log := v.FieldByName("axis"), v.FieldByName("isLog")
		if axis.IsValid() && log.IsValid() {
			f := foreign{kind: softmax, axis: int(axis.Int()), log: log.Bool()}
			if kind == "softmaxDiffOp" {
				f.kind = softmaxGradient
			}
			return f, nil
		}
	}
	if why == "" {
		why = "use the Builder's layers, or register a lowering for it (Options.Ops)"
	}
	return foreign{}, fmt.Errorf("graph: node %s: cannot lower %s (%s): %s", n.Name(), o, kind, why)
}

// flat says whether an op of Gorgonia's has a gradient of 0 everywhere: nothing flows through it.
func flat(n *Node) bool {
	if n.Op() == nil {
		return false
	}
	if _, ours := n.Op().(*op); ours {
		return false
	}
	f, err := recognise(n)
	if err != nil {
		return false
	}
	switch f.fn {
	case program.FnLt, program.FnGt, program.FnLe, program.FnGe, program.FnEq, program.FnNe, program.FnSign,
		program.FnFloor, program.FnCeil:
		return true
	}
	return f.kind == size
}

// typeName of an op, without package and star.
func typeName(o gorgonia.Op) string {
	return strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", o), "*"), "gorgonia.")
}

// axesOf are those that a reduction of Gorgonia's runs along, ascending, none twice.
func axesOf(n *Node) ([]int, error) {
	f := reflect.Indirect(reflect.ValueOf(n.Op())).FieldByName("along")
	if !f.IsValid() || f.Kind() != reflect.Slice {
		return nil, fmt.Errorf("graph: node %s: the axes of %s are not where they were in Gorgonia 0.9.18", n.Name(), n.Op())
	}
	var axes []int
	for i := range f.Len() {
		axes = append(axes, int(f.Index(i).Int()))
	}
	slices.Sort(axes)
	return slices.Compact(axes), nil
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
func (b *Builder) lowerable(n *Node) error {
	if n.Op() == nil || b.registered(n.Op()) != nil {
		return nil
	}
	if _, ours := n.Op().(*op); ours {
		return nil
	}
	f, err := recognise(n)
	if err == nil && f.kind == outer {
		err = fmt.Errorf("graph: node %s: Gorgonia's gradient of OuterProd is wrong; use Builder.MatMul of a column and a row", n.Name())
	}
	if err == nil && f.fn == program.FnLog2 {
		err = fmt.Errorf("graph: node %s: Gorgonia's gradient of Log2 is wrong; use Log, and Builder.Scale by 1/ln 2",
			n.Name())
	}
	return err
}
