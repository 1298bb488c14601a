package derive

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/onmart/onmart/datasets"
	"pgregory.net/rapid"
)

// The definition of expressions in the package comment, a value at a time over expr-lang's tree: int64, float64, cents
// (a decimal), string, bool, nil for null, and broken for a whole number that is none.

type cents struct {
	v     int64
	scale int
}

type broken struct{}

func naiveFloat(v any) float64 {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case cents:
		return float64(v.v) / math.Pow10(v.scale)
	case broken:
		return math.NaN()
	}
	return v.(float64)
}

// naiveInt is a result of any size as a whole number of 64 bits.
func naiveInt(v *big.Int) any {
	if !v.IsInt64() {
		return broken{}
	}
	return v.Int64()
}

func naiveTruth(v any) any {
	switch v := v.(type) {
	case int64:
		return v != 0
	case broken:
		return false
	}
	return v
}

func naiveUnary(o string, v any) any {
	if v == nil {
		return nil
	}
	if o == "not" {
		return !naiveTruth(v).(bool)
	}
	switch v := v.(type) {
	case int64:
		return naiveInt(new(big.Int).Neg(big.NewInt(v)))
	case cents:
		return cents{-v.v, v.scale}
	case broken:
		return v
	}
	return -v.(float64)
}

func isWhole(v any) bool {
	switch v.(type) {
	case int64, broken:
		return true
	}
	return false
}

// naiveExact is a number as it is written, for an exact comparison.
func naiveExact(v any) *big.Rat {
	switch v := v.(type) {
	case int64:
		return new(big.Rat).SetInt64(v)
	case cents:
		return new(big.Rat).SetFrac(big.NewInt(v.v), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(v.scale)), nil))
	}
	r, _ := new(big.Rat).SetString(fmt.Sprint(v))
	return r
}

func naiveCompare(o string, a, b any) bool {
	var c int
	switch a := a.(type) {
	case string:
		c = strings.Compare(a, b.(string))
	case bool:
		c = int(b2i(a) - b2i(b.(bool)))
	default:
		x, y := naiveFloat(a), naiveFloat(b)
		if math.IsNaN(x) || math.IsNaN(y) {
			return o == "!="
		}
		if math.IsInf(x, 0) || math.IsInf(y, 0) {
			c = int(b2i(x > y) - b2i(x < y))
		} else {
			c = naiveExact(a).Cmp(naiveExact(b))
		}
	}
	return map[string]bool{"==": c == 0, "!=": c != 0, "<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0}[o]
}

func naiveArithmetic(o string, a, b any) any {
	if isWhole(a) && isWhole(b) && strings.Contains("+-*%", o) && o != "**" {
		x, okX := a.(int64)
		y, okY := b.(int64)
		if !okX || !okY || o == "%" && y == 0 {
			return broken{}
		}
		p, q, r := big.NewInt(x), big.NewInt(y), new(big.Int)
		switch o {
		case "+":
			return naiveInt(r.Add(p, q))
		case "-":
			return naiveInt(r.Sub(p, q))
		case "*":
			return naiveInt(r.Mul(p, q))
		}
		return naiveInt(r.Rem(p, q))
	}
	x, y := naiveFloat(a), naiveFloat(b)
	switch o {
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "/":
		return x / y
	}
	return math.Pow(x, y)
}

func naive(n ast.Node, row map[string]any) any {
	switch n := n.(type) {
	case *ast.IntegerNode:
		return int64(n.Value)
	case *ast.FloatNode:
		return n.Value
	case *ast.StringNode:
		return n.Value
	case *ast.IdentifierNode:
		return row[n.Value]
	case *ast.UnaryNode:
		return naiveUnary(n.Operator, naive(n.Node, row))
	case *ast.ConditionalNode:
		switch naiveTruth(naive(n.Cond, row)) {
		case true:
			return naive(n.Exp1, row)
		case false:
			return naive(n.Exp2, row)
		}
		return nil
	case *ast.BinaryNode:
		return naiveBinary(n, row)
	case *ast.BuiltinNode:
		return naiveCall(n.Name, n.Arguments, row)
	case *ast.CallNode:
		return naiveCall(n.Callee.(*ast.IdentifierNode).Value, n.Arguments, row)
	}
	panic(fmt.Sprintf("%T", n))
}

func naiveBinary(n *ast.BinaryNode, row map[string]any) any {
	a := naive(n.Left, row)
	if n.Operator == "in" {
		if a == nil {
			return nil
		}
		return slices.ContainsFunc(n.Right.(*ast.ArrayNode).Nodes, func(e ast.Node) bool {
			return naiveCompare("==", a, naive(e, row))
		})
	}
	if _, isNil := n.Right.(*ast.NilNode); isNil {
		return (a == nil) == (n.Operator == "==")
	}
	b := naive(n.Right, row)
	switch n.Operator {
	case "and", "or":
		decisive := n.Operator == "or"
		a, b = naiveTruth(a), naiveTruth(b)
		switch {
		case a == decisive || b == decisive:
			return decisive
		case a == nil || b == nil:
			return nil
		}
		return !decisive
	case "??":
		if a == nil {
			return b
		}
		return a
	}
	if a == nil || b == nil {
		return nil
	}
	switch n.Operator {
	case "==", "!=", "<", "<=", ">", ">=":
		return naiveCompare(n.Operator, a, b)
	case "matches":
		return regexp.MustCompile(b.(string)).MatchString(a.(string))
	case "contains":
		return strings.Contains(a.(string), b.(string))
	case "startsWith":
		return strings.HasPrefix(a.(string), b.(string))
	case "endsWith":
		return strings.HasSuffix(a.(string), b.(string))
	}
	return naiveArithmetic(n.Operator, a, b)
}

func naiveCall(name string, args []ast.Node, row map[string]any) any {
	var list []any
	for _, a := range args {
		v := naive(a, row)
		if v == nil {
			return nil
		}
		list = append(list, v)
	}
	switch v := list[0]; name {
	case "len":
		return int64(utf8.RuneCountInString(v.(string)))
	case "lower":
		return strings.ToLower(v.(string))
	case "upper":
		return strings.ToUpper(v.(string))
	case "trim":
		return strings.TrimSpace(v.(string))
	case "int":
		if isWhole(v) {
			return v
		}
		if x := math.Trunc(naiveFloat(v)); x >= -0x1p63 && x < 0x1p63 {
			return int64(x)
		}
		return broken{}
	case "abs":
		if x, ok := v.(int64); ok {
			return naiveInt(new(big.Int).Abs(big.NewInt(x)))
		} else if isWhole(v) {
			return v
		}
		return math.Abs(naiveFloat(v))
	case "min", "max":
		if isWhole(v) && isWhole(list[1]) {
			x, okX := v.(int64)
			y, okY := list[1].(int64)
			switch {
			case !okX || !okY:
				return broken{}
			case name == "min":
				return min(x, y)
			}
			return max(x, y)
		}
		if name == "min" {
			return math.Min(naiveFloat(v), naiveFloat(list[1]))
		}
		return math.Max(naiveFloat(v), naiveFloat(list[1]))
	}
	f := map[string]func(float64) float64{"ceil": math.Ceil, "floor": math.Floor, "round": math.Round, "sqrt": math.Sqrt,
		"log": math.Log, "exp": math.Exp}[name]
	return f(naiveFloat(list[0]))
}

// naiveRow is a row of testFields; times are left out.
func naiveRow(cols []datasets.Column, i int) map[string]any {
	row := map[string]any{}
	for k, f := range testFields {
		switch {
		case cols[k].IsNull(i):
		case f.Type == datasets.Int64:
			row[f.Name] = cols[k].Ints[i]
		case f.Type == datasets.Decimal:
			row[f.Name] = cents{cols[k].Ints[i], f.Scale}
		case f.Type == datasets.Float64:
			row[f.Name] = cols[k].Floats[i]
		case f.Type == datasets.String:
			row[f.Name] = cols[k].Strings[i]
		}
	}
	return row
}

// Random expressions over rows with nulls, zeros and numbers near the end of 64 bits give what the naive definition
// gives.
func TestExpressionsAreDefined(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]string{"i", "f", "c", "s"}).Draw(t, "type")
		g := drawer{t: t, wild: true}
		src := g.draw(kind, rapid.IntRange(1, 4).Draw(t, "depth"))
		p, faults := Compile([]Def{{Name: "f", Kind: "expr", Expr: src, Scale: -1, Null: nil}}, testFields, Options{})
		if len(faults) > 0 {
			t.Fatalf("%s: %v", src, faults)
		}
		tree, err := parse(src)
		if err != nil {
			t.Fatal(err)
		}
		const n = 60
		cols := manyRows(t, n)
		f, out := p.Fields()[0], p.Run(cols, n)[len(testFields)]
		for i := range n {
			want := naive(tree.Node, naiveRow(cols, i))
			if kind == "c" && want == nil {
				want = false
			}
			if out.IsNull(i) != (want == nil) || want != nil && !agreesNaively(f, out, i, want) {
				t.Fatalf("%s: row %d %v: %s, want %v (%T)", src, i, naiveRow(cols, i), column(f, out, n), want, want)
			}
			if out.IsNull(i) && !f.Nullable {
				t.Fatalf("%s: a null, and the column is not nullable", src)
			}
		}
	})
}

func agreesNaively(f datasets.Field, c datasets.Column, i int, want any) bool {
	if _, none := want.(broken); none {
		want = int64(0)
	}
	switch want := want.(type) {
	case bool:
		return f.Type == datasets.Int64 && c.Ints[i] == b2i(want)
	case string:
		return f.Type == datasets.String && c.Strings[i] == want
	case int64:
		if f.Type == datasets.Int64 {
			return c.Ints[i] == want
		}
	}
	x := naiveFloat(want)
	if !finite(x) {
		x = 0
	}
	return f.Type == datasets.Float64 && c.Floats[i] == x
}
