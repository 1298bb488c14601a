package program

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Bounds on the expression of a Map: what a kernel holds in registers.
const (
	MaxMapArgs  = 8  // operands
	MaxMapSteps = 64 // words of the expression
	MaxMapDepth = 8  // values on the stack at a time
)

// Fn is a function of a Map's expression. Its result is that of the exact function rounded to float32 where nothing
// else is said; functions with a bound give the same bits on every path of the CPU, and a GPU is within the bound too.
type Fn string

// Functions of two values, the one below the top of the stack being a.
const (
	FnAdd Fn = "add" // a + b
	FnSub Fn = "sub" // a - b
	FnMul Fn = "mul" // a b
	FnDiv Fn = "div" // a / b
	FnPow Fn = "pow" // a to the power of b: within 1 unit in the last place
	FnMax Fn = "max" // a where a > b, else b
	FnMin Fn = "min" // a where a < b, else b
	FnLt  Fn = "lt"  // 1 where a < b, else 0; so the following
	FnGt  Fn = "gt"
	FnLe  Fn = "le"
	FnGe  Fn = "ge"
	FnEq  Fn = "eq"
	FnNe  Fn = "ne" // 1 for NaN
)

// Functions of one value.
const (
	FnNeg    Fn = "neg"
	FnAbs    Fn = "abs"
	FnSign   Fn = "sign" // -1, 0 or 1; 0 for NaN
	FnSquare Fn = "square"
	FnCube   Fn = "cube" // (x x) x
	FnSqrt   Fn = "sqrt"
	FnInv    Fn = "inv"   // 1 / x
	FnRsqrt  Fn = "rsqrt" // 1 / sqrt(x), rounded twice
	FnFloor  Fn = "floor"
	FnCeil   Fn = "ceil"
	// FnExp is within 2 units in the last place; below -103.98 it is 0, above 88.73 it is +Inf.
	FnExp Fn = "exp"
	// FnLog is within 2 units in the last place; of 0 it is -Inf, below 0 it is NaN.
	FnLog Fn = "log"
	// FnLog1p, ln(1+x), is within 4 units in the last place.
	FnLog1p Fn = "log1p"
	// FnExpm1, e^x - 1, is within 4 units in the last place.
	FnExpm1 Fn = "expm1"
	// FnTanh is within 4 units in the last place.
	FnTanh Fn = "tanh"
	// FnSigmoid, 1 / (1 + exp(-x)), is within 3 units in the last place for x > -87.
	FnSigmoid Fn = "sigmoid"
	// FnSoftplus, ln(1 + e^x) as max(x, 0) + log1p(exp(-|x|)), is within 4 units in the last place.
	FnSoftplus Fn = "softplus"
	FnRelu     Fn = "relu" // x where x is not below 0, else 0; NaN stays NaN
	FnSilu     Fn = "silu" // Activate's
	// FnSin, FnCos and FnLog2 are within 1 unit in the last place.
	FnSin  Fn = "sin"
	FnCos  Fn = "cos"
	FnLog2 Fn = "log2"
)

// fnArity is how many values a function takes.
var fnArity = map[Fn]int{
	FnAdd: 2, FnSub: 2, FnMul: 2, FnDiv: 2, FnPow: 2, FnMax: 2, FnMin: 2, FnLt: 2, FnGt: 2, FnLe: 2, FnGe: 2, FnEq: 2,
	FnNe:  2,
	FnNeg: 1, FnAbs: 1, FnSign: 1, FnSquare: 1, FnCube: 1, FnSqrt: 1, FnInv: 1, FnRsqrt: 1, FnFloor: 1, FnCeil: 1,
	FnExp: 1, FnLog: 1, FnLog1p: 1, FnExpm1: 1, FnTanh: 1, FnSigmoid: 1, FnSoftplus: 1, FnRelu: 1, FnSilu: 1,
	FnSin: 1, FnCos: 1, FnLog2: 1,
}

// Fns lists every function, sorted: a backend is complete when it computes all of them.
func Fns() []Fn {
	fns := make([]Fn, 0, len(fnArity))
	for f := range fnArity {
		fns = append(fns, f)
	}
	slices.Sort(fns)
	return fns
}

// Arity is the number of values that the function takes, 0 for one that is not known.
func (f Fn) Arity() int { return fnArity[f] }

// Step is one word of an expression: an operand, a constant, or a function of what is on the stack.
type Step struct {
	Fn    Fn      // "" for an operand or a constant
	Arg   int     // the operand, or -1
	Value float32 // the constant where Fn is "" and Arg is -1
}

// ParseExpr reads the expression of a Map of that many operands: words in postfix order with one blank between them.
// x0, x1 ... push an operand, a number pushes a constant, and a function takes its values from the stack and pushes its
// result: "x0 x1 mul tanh 1 add" is tanh(x0 x1) + 1. At the end one value is left. Every operand has to occur.
func ParseExpr(expr string, args int) ([]Step, error) {
	words := strings.Split(expr, " ")
	if len(words) > MaxMapSteps {
		return nil, fmt.Errorf("expression of %d words, at most %d are allowed", len(words), MaxMapSteps)
	}
	steps, depth, used := make([]Step, 0, len(words)), 0, make([]bool, args)
	for _, w := range words {
		s := Step{Arg: -1}
		if n := Fn(w).Arity(); n > 0 {
			if depth < n {
				return nil, fmt.Errorf("expression %q: %s finds %d values, it takes %d", expr, w, depth, n)
			}
			s.Fn, depth = Fn(w), depth-n
		} else if arg, ok := strings.CutPrefix(w, "x"); ok {
			k, err := strconv.Atoi(arg)
			if err != nil || k < 0 || k >= args || strconv.Itoa(k) != arg {
				return nil, fmt.Errorf("expression %q: %s is none of its %d operands", expr, w, args)
			}
			s.Arg, used[k] = k, true
		} else {
			v, err := strconv.ParseFloat(w, 32)
			if err != nil {
				return nil, fmt.Errorf("expression %q: %q is no operand, number or function", expr, w)
			}
			s.Value = float32(v)
		}
		if depth++; depth > MaxMapDepth {
			return nil, fmt.Errorf("expression %q holds more than %d values at a time", expr, MaxMapDepth)
		}
		steps = append(steps, s)
	}
	if depth != 1 {
		return nil, fmt.Errorf("expression %q leaves %d values, want 1", expr, depth)
	}
	if k := slices.Index(used, false); k >= 0 {
		return nil, fmt.Errorf("expression %q does not use operand x%d", expr, k)
	}
	return steps, nil
}

// FormatConst is the word of a constant: the shortest that reads back as the same float32.
func FormatConst(c float32) string {
	switch x := float64(c); {
	case math.IsInf(x, 1):
		return "Inf"
	case math.IsNaN(x):
		return "NaN"
	}
	return strconv.FormatFloat(float64(c), 'g', -1, 32)
}

// Broadcasts says whether an operand of shape arg can be read as one of shape out: aligned at the last dimension, every
// dimension of arg is that of out or 1.
func Broadcasts(arg, out []int) bool {
	if len(arg) > len(out) {
		return false
	}
	for i, d := range arg {
		if d != 1 && d != out[len(out)-len(arg)+i] {
			return false
		}
	}
	return true
}

// Fold is what Reduce makes of the values along an axis.
type Fold string

const (
	Sum  Fold = "sum"
	Mean Fold = "mean" // the sum, divided by their number
	Max  Fold = "max"  // NaN where one of them is; +0 of zeros
	Min  Fold = "min"
)

func (f Fold) known() bool { return f == Sum || f == Mean || f == Max || f == Min }

// Split is a shape seen from one of its axes: values at (o, i, k) lie at (o n + i) inner + k.
func Split(shape []int, axis int) (outer, n, inner int) {
	outer, inner = 1, 1
	for _, d := range shape[:axis] {
		outer *= d
	}
	for _, d := range shape[axis+1:] {
		inner *= d
	}
	return outer, shape[axis], inner
}
