package derive

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/onmart/onmart/datasets"
)

// kind is the type of an expression.
type kind uint8

const (
	wrong     kind = iota // a fault has been reported
	whole                 // Int64
	decimal               // Int64 in units of 10^-scale
	real                  // float64
	condition             // 0 or 1
	text
	instant // a time
	nothing // nil
)

var typeWords = [...]string{whole: "a whole number", decimal: "a decimal", real: "a number", condition: "a condition",
	text: "text", instant: "a time", nothing: "nil"}

func (k kind) number() bool { return k == whole || k == decimal || k == real }

// value is the checked part of an expression: the register that will hold it, or a constant that has none yet.
type value struct {
	kind     kind
	scale    int  // of a decimal
	rounded  bool // a decimal, or whole number, that is still a float64 in its register: rounded when it is stored
	reg      int32
	nullable bool
	constant bool
	i        int64 // constants: whole and condition
	f        float64
	s        string
}

// checker reads one expression, reports all that is wrong with it, and emits what computes it.
type checker struct {
	b      *builder
	src    string
	column func(name string) (value, string) // or what is wrong with the name
	faults []Fault
}

// functions are those that there are, with the numbers of their arguments.
var functions = []struct {
	name     string
	min, max int
}{
	{"abs", 1, 1}, {"ceil", 1, 1}, {"exp", 1, 1}, {"float", 1, 1}, {"floor", 1, 1}, {"int", 1, 1}, {"len", 1, 1},
	{"log", 1, 1}, {"lower", 1, 1}, {"max", 2, 64}, {"min", 2, 64}, {"round", 1, 1}, {"sqrt", 1, 1}, {"trim", 1, 1},
	{"upper", 1, 1},
}

func functionNames() []string {
	var list []string
	for _, f := range functions {
		list = append(list, f.name)
	}
	return list
}

// offers is the language in a line.
var offers = "there are + - * / % **, == != < <= > >=, and or not, a ? b : c, ??, nil, in [..] and in 1..9, " +
	"contains, startsWith, endsWith, matches, and the functions " + strings.Join(functionNames(), " ")

// compile reads an expression.
func (c *checker) compile() value {
	if len(c.src) > maxExpr {
		c.faultAt(maxExpr, "an expression of %d bytes; the longest is %d: make parts of it hidden features",
			len(c.src), maxExpr)
		return value{}
	}
	if !utf8.ValidString(c.src) {
		c.faultAt(0, "the expression is not UTF-8")
		return value{}
	}
	if strings.TrimSpace(c.src) == "" {
		c.faultAt(0, "an expression is needed")
		return value{}
	}
	tree, err := parse(c.src)
	if err != nil {
		at, message := 0, err.Error()
		if e := (*file.Error)(nil); errors.As(err, &e) {
			at, message = c.byteOf(e.From), e.Message
		}
		c.faultAt(at, "%s", message)
		return value{}
	}
	return c.check(tree.Node)
}

// parse guards against a parser that panics on what it cannot read.
func parse(src string) (tree *parser.Tree, err error) {
	defer func() {
		if e := recover(); e != nil {
			tree, err = nil, errors.New("the expression cannot be read")
		}
	}()
	return parser.Parse(src)
}

// byteOf turns a place in code points into one in bytes.
func (c *checker) byteOf(runes int) int {
	for i := range c.src {
		if runes == 0 {
			return i
		}
		runes--
	}
	return len(c.src)
}

func (c *checker) faultAt(at int, format string, args ...any) {
	f := Fault{Offset: at, Text: fmt.Sprintf(format, args...)}
	for _, g := range c.faults {
		if f == g { // a < b < c looks at b twice
			return
		}
	}
	c.faults = append(c.faults, f)
}

func (c *checker) fault(n ast.Node, format string, args ...any) value {
	c.faultAt(c.byteOf(place(n)), format, args...)
	return value{}
}

// place is where a node begins: the parser has operators at their sign, and some nodes nowhere.
func place(n ast.Node) int {
	if n, ok := n.(*ast.ConditionalNode); ok {
		return place(n.Cond)
	}
	return n.Location().From
}

// shown is an expression in a message.
func shown(n ast.Node) string {
	s := n.String()
	if len(s) > 40 {
		cut := 37
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	return s
}

func (c *checker) wants(n ast.Node, where, want string, have value) value {
	if have.kind == wrong {
		return value{}
	}
	return c.fault(n, "%s needs %s, and %s is %s", where, want, shown(n), typeWords[have.kind])
}

// check is the value of a node.
func (c *checker) check(n ast.Node) value {
	switch n := n.(type) {
	case *ast.IntegerNode:
		return value{kind: whole, constant: true, i: int64(n.Value)}
	case *ast.FloatNode:
		return value{kind: real, constant: true, f: n.Value}
	case *ast.BoolNode:
		return value{kind: condition, constant: true, i: b2i(n.Value)}
	case *ast.StringNode:
		return value{kind: text, constant: true, s: n.Value}
	case *ast.NilNode:
		return value{kind: nothing}
	case *ast.IdentifierNode:
		v, problem := c.column(n.Value)
		if problem != "" {
			return c.fault(n, "%s", problem)
		}
		return v
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ConditionalNode:
		return c.choice(n)
	case *ast.BuiltinNode:
		return c.call(n, n.Name, n.Arguments)
	case *ast.CallNode:
		if name, ok := n.Callee.(*ast.IdentifierNode); ok {
			return c.call(n, name.Value, n.Arguments)
		}
	case *ast.ArrayNode:
		return c.fault(n, "a list can only stand after in")
	}
	return c.fault(n, "%s is nothing that an expression here can have; %s", shown(n), offers)
}

// reg is the register of a value, made now if it is a constant.
func (c *checker) reg(v value) int32 {
	if !v.constant {
		return v.reg
	}
	switch v.kind {
	case real:
		return c.b.constantF(v.f)
	case text:
		return c.b.constantS(v.s)
	}
	return c.b.constantI(v.i)
}

// float is the register of a number as float64.
func (c *checker) float(v value) int32 {
	switch {
	case v.constant && v.kind == whole:
		return c.b.constantF(float64(v.i))
	case v.kind == whole:
		return c.b.unary(floats, opFloatI, v.reg)
	case v.kind == decimal:
		return c.b.unaryAux(floats, opDecimalI, v.reg, v.scale)
	}
	return c.reg(v)
}

func (c *checker) unary(n *ast.UnaryNode) value {
	v := c.check(n.Node)
	switch n.Operator {
	case "not", "!":
		x, ok := c.condition(n.Node, n.Operator, v)
		if !ok {
			return value{}
		}
		return value{kind: condition, reg: c.b.unary(ints, opNot, x), nullable: v.nullable}
	case "-", "+":
		if !v.kind.number() {
			return c.wants(n.Node, n.Operator, "a number", v)
		}
		if n.Operator == "+" {
			return v
		}
		if v.constant {
			v.i, v.f = -v.i, -v.f
			return v
		}
		return c.mapped(v, opNegI, opNegF)
	}
	return c.fault(n, "%s is nothing that an expression here can have; %s", n.Operator, offers)
}

// mapped applies an operation that keeps whole numbers and decimals what they are.
func (c *checker) mapped(v value, ofInts, ofFloats op) value {
	if v.kind == real {
		return value{kind: real, reg: c.b.unary(floats, ofFloats, c.reg(v)), nullable: v.nullable}
	}
	return value{kind: v.kind, scale: v.scale, reg: c.b.unary(ints, ofInts, c.reg(v)), nullable: v.nullable}
}

// condition is the register of a condition; whole numbers may stand for one.
func (c *checker) condition(n ast.Node, where string, v value) (int32, bool) {
	switch v.kind {
	case condition:
		return c.reg(v), true
	case whole:
		return c.b.unary(ints, opBoolI, c.reg(v)), true
	}
	c.wants(n, where, "a condition", v)
	return 0, false
}

func (c *checker) binary(n *ast.BinaryNode) value {
	switch n.Operator {
	case "in":
		return c.in(n)
	case "matches":
		return c.matches(n)
	}
	l, r := c.check(n.Left), c.check(n.Right)
	if l.kind == wrong || r.kind == wrong {
		return value{}
	}
	either := l.nullable || r.nullable
	switch n.Operator {
	case "and", "&&", "or", "||":
		x, okX := c.condition(n.Left, n.Operator, l)
		y, okY := c.condition(n.Right, n.Operator, r)
		if !okX || !okY {
			return value{}
		}
		o := opAnd
		if n.Operator == "or" || n.Operator == "||" {
			o = opOr
		}
		return value{kind: condition, reg: c.b.binary(ints, o, x, y), nullable: either}
	case "contains", "startsWith", "endsWith":
		if l.kind != text {
			return c.wants(n.Left, n.Operator, "text", l)
		}
		if r.kind != text {
			return c.wants(n.Right, n.Operator, "text", r)
		}
		o := map[string]op{"contains": opContains, "startsWith": opPrefix, "endsWith": opSuffix}[n.Operator]
		return value{kind: condition, reg: c.b.binary(ints, o, c.reg(l), c.reg(r)), nullable: either}
	case "==", "!=", "<", "<=", ">", ">=":
		return c.compare(n, l, r)
	case "??":
		return c.otherwise(n, l, r)
	case "+", "-", "*", "/", "%", "**", "^":
		return c.arithmetic(n, l, r)
	}
	return c.fault(n, "%s is nothing that an expression here can have; %s", n.Operator, offers)
}

func (c *checker) arithmetic(n *ast.BinaryNode, l, r value) value {
	if n.Operator == "-" && l.kind == instant && r.kind == instant {
		return value{kind: real, reg: c.b.binary(floats, opSpanI, l.reg, r.reg), nullable: l.nullable || r.nullable}
	}
	for _, side := range []struct {
		n ast.Node
		v value
	}{{n.Left, l}, {n.Right, r}} {
		switch {
		case side.v.kind == text && n.Operator == "+":
			return c.fault(side.n, "+ needs numbers, and %s is text; several columns can be a key: [a, b]", shown(side.n))
		case side.v.kind == condition:
			return c.fault(side.n, "%s needs numbers, and %s is a condition; int(..) makes it 1 or 0", n.Operator, shown(side.n))
		case !side.v.kind.number():
			return c.wants(side.n, n.Operator, "numbers", side.v)
		}
	}
	exact := l.kind == whole && r.kind == whole
	if n.Operator == "%" && !exact {
		side := n.Left
		if l.kind == whole {
			side = n.Right
		}
		return c.fault(n, "%% is of whole numbers: use int(..) on %s", shown(side))
	}
	v := value{kind: real, nullable: l.nullable || r.nullable}
	if o, ok := map[string]op{"+": opAddI, "-": opSubI, "*": opMulI, "%": opModI}[n.Operator]; exact && ok {
		v.kind = whole
		v.reg = c.b.binary(ints, o, c.reg(l), c.reg(r))
		return v
	}
	o := map[string]op{"+": opAddF, "-": opSubF, "*": opMulF, "/": opDivF, "**": opPowF, "^": opPowF}[n.Operator]
	v.reg = c.b.binary(floats, o, c.float(l), c.float(r))
	return v
}

// comparison is an instruction and whether it takes the sides the other way round.
type comparison struct {
	ofInts, ofFloats, ofTexts op
	swapped                   bool
}

var comparisons = map[string]comparison{
	"==": {opEqualI, opEqualF, opEqualS, false},
	"!=": {opUnequalI, opUnequalF, opUnequalS, false},
	"<":  {opLessI, opLessF, opLessS, false},
	"<=": {opAtMostI, opAtMostF, opAtMostS, false},
	">":  {opLessI, opLessF, opLessS, true},
	">=": {opAtMostI, opAtMostF, opAtMostS, true},
}

func (c *checker) compare(n *ast.BinaryNode, l, r value) value {
	if l.kind == nothing || r.kind == nothing {
		return c.isNil(n, l, r)
	}
	how, equality := comparisons[n.Operator], n.Operator == "==" || n.Operator == "!="
	v := value{kind: condition, nullable: l.nullable || r.nullable}
	emit := func(o op, x, y int32) value {
		if how.swapped {
			x, y = y, x
		}
		v.reg = c.b.binary(ints, o, x, y)
		return v
	}
	switch {
	case l.kind == condition || r.kind == condition:
		x, okX := c.condition(n.Left, n.Operator, l)
		y, okY := c.condition(n.Right, n.Operator, r)
		if !okX || !okY {
			return value{}
		}
		if !equality {
			return c.fault(n, "%s needs numbers, and one side is a condition; not binds closer than %s: use brackets",
				n.Operator, n.Operator)
		}
		return emit(how.ofInts, x, y)
	case l.kind == text && r.kind == text:
		return emit(how.ofTexts, c.reg(l), c.reg(r))
	case l.kind == instant && r.kind == instant,
		l.kind == whole && r.kind == whole,
		l.kind == decimal && r.kind == decimal && l.scale == r.scale:
		return emit(how.ofInts, c.reg(l), c.reg(r))
	case l.kind.number() && r.kind.number():
		if r.constant && !l.constant && l.kind != real {
			return c.against(n.Operator, l, r, v)
		}
		if l.constant && !r.constant && r.kind != real {
			return c.against(turned(n.Operator), r, l, v)
		}
		return emit(how.ofFloats, c.float(l), c.float(r))
	}
	return c.fault(n, "%s is %s, and %s is %s: they cannot be compared", shown(n.Left), typeWords[l.kind],
		shown(n.Right), typeWords[r.kind])
}

func turned(operator string) string {
	switch operator {
	case "<", "<=":
		return ">" + operator[1:]
	case ">", ">=":
		return "<" + operator[1:]
	}
	return operator
}

// against compares a whole number or decimal with a number that is written in the expression, exactly: the number is
// brought to the column's unit and to the whole number beside it.
func (c *checker) against(operator string, x, k value, v value) value {
	unit, exact := units(k, x.scale)
	lowest := c.b.constantI(-1 << 63)
	never := func() int32 { return c.b.binary(ints, opLessI, x.reg, lowest) }
	up := new(big.Int).Set(unit)
	if !exact {
		up.Add(up, big.NewInt(1)) // unit is the floor
	}
	switch operator {
	case "==", "!=":
		if exact && unit.IsInt64() {
			v.reg = c.b.binary(ints, comparisons[operator].ofInts, x.reg, c.b.constantI(unit.Int64()))
			return v
		}
		v.reg = never()
		if operator == "!=" {
			v.reg = c.b.unary(ints, opNot, v.reg)
		}
	case ">", "<=": // x > k is x > floor(k)
		v.reg = c.side(x.reg, unit, operator == ">")
	case ">=", "<": // x >= k is x > ceil(k)-1
		v.reg = c.side(x.reg, up.Sub(up, big.NewInt(1)), operator == ">=")
	}
	return v
}

// side is x > k, or x <= k.
func (c *checker) side(x int32, k *big.Int, above bool) int32 {
	o, bound := opAtMostI, int64(-1<<63)
	switch {
	case k.IsInt64():
		bound = k.Int64()
	case k.Sign() > 0:
		bound = 1<<63 - 1
	case above: // all are above
		return c.b.binary(ints, opAtMostI, c.b.constantI(bound), x)
	default: // none is at most
		return c.b.binary(ints, opLessI, x, c.b.constantI(bound))
	}
	if above {
		return c.b.binary(ints, opLessI, c.b.constantI(bound), x)
	}
	return c.b.binary(ints, o, x, c.b.constantI(bound))
}

// units is a constant in units of 10^-scale, rounded down, and whether that is exact. A float64 means the shortest
// decimal that reads as it.
func units(k value, scale int) (*big.Int, bool) {
	r := new(big.Rat)
	if k.kind == whole {
		r.SetInt64(k.i)
	} else if _, ok := r.SetString(strconv.FormatFloat(k.f, 'g', -1, 64)); !ok {
		panic("derive: a constant that is no number")
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
	down, rest := new(big.Int).DivMod(r.Num(), r.Denom(), new(big.Int)) // Euclidean: rounds down
	return down, rest.Sign() == 0
}

// isNil is x == nil or x != nil.
func (c *checker) isNil(n *ast.BinaryNode, l, r value) value {
	x := l
	if l.kind == nothing {
		x = r
	}
	if x.kind == nothing || n.Operator != "==" && n.Operator != "!=" {
		return c.fault(n, "nil can only be asked for: column == nil, or column != nil")
	}
	v := value{kind: condition, reg: c.b.unary(ints, opNull, c.reg(x))}
	if n.Operator == "!=" {
		v.reg = c.b.unary(ints, opNot, v.reg)
	}
	return v
}

// common brings two values to one type, for a choice between them.
func (c *checker) common(l, r value) (k kind, scale int, x, y int32, ok bool) {
	switch {
	case l.kind == r.kind && l.scale == r.scale && l.kind != nothing:
		return l.kind, l.scale, c.reg(l), c.reg(r), true
	case l.kind.number() && r.kind.number():
		return real, 0, c.float(l), c.float(r), true
	}
	return wrong, 0, 0, 0, false
}

// classOf is what registers of a type hold.
func classOf(k kind) class {
	switch k {
	case real:
		return floats
	case text:
		return texts
	}
	return ints
}

// of picks the instruction for a class.
func of(c class, ofInts, ofFloats, ofTexts op) op {
	switch c {
	case ints:
		return ofInts
	case floats:
		return ofFloats
	}
	return ofTexts
}

func (c *checker) choice(n *ast.ConditionalNode) value {
	w, l, r := c.check(n.Cond), c.check(n.Exp1), c.check(n.Exp2)
	if w.kind == wrong {
		return value{}
	}
	when, ok := c.condition(n.Cond, "? :", w)
	if !ok || l.kind == wrong || r.kind == wrong {
		return value{}
	}
	k, scale, x, y, ok := c.common(l, r)
	if !ok {
		return c.fault(n.Exp1, "a choice between %s, %s, and %s, %s: both sides have to be of one type",
			shown(n.Exp1), typeWords[l.kind], shown(n.Exp2), typeWords[r.kind])
	}
	cl := classOf(k)
	reg := c.b.emit(cl, instr{op: of(cl, opSelectI, opSelectF, opSelectS), a: when, b: x, c: y})
	return value{kind: k, scale: scale, reg: reg, nullable: w.nullable || l.nullable || r.nullable}
}

func (c *checker) otherwise(n *ast.BinaryNode, l, r value) value {
	k, scale, x, y, ok := c.common(l, r)
	if !ok {
		return c.fault(n, "%s is %s, and %s is %s: both sides of ?? have to be of one type", shown(n.Left),
			typeWords[l.kind], shown(n.Right), typeWords[r.kind])
	}
	cl := classOf(k)
	return value{kind: k, scale: scale, reg: c.b.binary(cl, of(cl, opElseI, opElseF, opElseS), x, y),
		nullable: l.nullable && r.nullable}
}

func (c *checker) in(n *ast.BinaryNode) value {
	v := c.check(n.Left)
	if between, ok := n.Right.(*ast.BinaryNode); ok && between.Operator == ".." {
		return c.within(n, v, between)
	}
	list, ok := n.Right.(*ast.ArrayNode)
	if !ok {
		return c.fault(n.Right, "in needs a list such as [1, 2] or [\"web\", \"shop\"], or a range such as 1..9")
	}
	if len(list.Nodes) == 0 {
		return c.fault(list, "an empty list: nothing is in it")
	}
	var t table
	good := v.kind != wrong
	if good && !v.kind.number() && v.kind != text {
		c.wants(n.Left, "in", "a number or text", v)
		good = false
	}
	for _, e := range list.Nodes {
		k := c.check(e)
		switch {
		case k.kind == wrong:
			good = false
		case !k.constant || !k.kind.number() && k.kind != text:
			c.fault(e, "a list after in has numbers or texts as they are, and %s is none; use == and or", shown(e))
			good = false
		case good && (k.kind == text) != (v.kind == text):
			c.fault(e, "%s is %s, and %s is %s: it is never in the list", shown(e), typeWords[k.kind], shown(n.Left),
				typeWords[v.kind])
			good = false
		case k.kind == text:
			t.texts = append(t.texts, k.s)
		case v.kind == real:
			if k.kind == whole {
				k.f = float64(k.i)
			}
			t.floats = append(t.floats, k.f)
		default:
			if u, exact := units(k, v.scale); exact && u.IsInt64() {
				t.ints = append(t.ints, u.Int64())
			}
		}
	}
	if !good {
		return value{}
	}
	t.floats, t.intSet, t.textSet = floatSet(t.floats), intSet(t.ints), textSet(t.texts)
	o := of(classOf(v.kind), opInI, opInF, opInS)
	return value{kind: condition, reg: c.b.unaryAux(ints, o, c.reg(v), c.b.table(t)), nullable: v.nullable}
}

// within is x in a..b, which both belong to.
func (c *checker) within(n *ast.BinaryNode, v value, between *ast.BinaryNode) value {
	l, r := c.check(between.Left), c.check(between.Right)
	if v.kind != wrong && v.kind != whole {
		return c.wants(n.Left, "in a range", "a whole number", v)
	}
	if v.kind == wrong || l.kind == wrong || r.kind == wrong {
		return value{}
	}
	if l.kind != whole {
		return c.wants(between.Left, "a range", "whole numbers", l)
	}
	if r.kind != whole {
		return c.wants(between.Right, "a range", "whole numbers", r)
	}
	from := c.b.binary(ints, opAtMostI, c.reg(l), c.reg(v))
	to := c.b.binary(ints, opAtMostI, c.reg(v), c.reg(r))
	return value{kind: condition, reg: c.b.binary(ints, opAnd, from, to), nullable: v.nullable || l.nullable || r.nullable}
}

func (c *checker) matches(n *ast.BinaryNode) value {
	v := c.check(n.Left)
	if v.kind != wrong && v.kind != text {
		v = c.wants(n.Left, "matches", "text", v)
	}
	pattern, ok := n.Right.(*ast.StringNode)
	if !ok {
		return c.fault(n.Right, "matches needs a regular expression in quotes")
	}
	re, err := regexp.Compile(pattern.Value)
	if err != nil {
		return c.fault(n.Right, "%s: see https://pkg.go.dev/regexp/syntax", err)
	}
	if v.kind == wrong {
		return value{}
	}
	return value{kind: condition, reg: c.b.unaryAux(ints, opMatches, c.reg(v), c.b.table(table{re: re})),
		nullable: v.nullable}
}

// call is a function of the list.
func (c *checker) call(n ast.Node, name string, args []ast.Node) value {
	at := -1
	for i, f := range functions {
		if f.name == name {
			at = i
		}
	}
	if at < 0 {
		near := datasets.Nearest(name, functionNames())
		if near == "" {
			return c.fault(n, "there is no function %s; there are %s", name, strings.Join(functionNames(), ", "))
		}
		return c.fault(n, "there is no function %s; did you mean %s?", name, near)
	}
	if f := functions[at]; len(args) < f.min || len(args) > f.max {
		if f.min == f.max {
			return c.fault(n, "%s has %d arguments; it takes one", name, len(args))
		}
		return c.fault(n, "%s has %d arguments; it takes %d to %d", name, len(args), f.min, f.max)
	}
	var list []value
	good := true
	for _, a := range args {
		v := c.check(a)
		good = good && v.kind != wrong
		list = append(list, v)
	}
	if !good {
		return value{}
	}
	switch v := list[0]; name {
	case "len", "lower", "upper", "trim":
		if v.kind != text {
			return c.wants(args[0], name, "text", v)
		}
		if name == "len" {
			return value{kind: whole, reg: c.b.unary(ints, opLen, c.reg(v)), nullable: v.nullable}
		}
		o := map[string]op{"lower": opLower, "upper": opUpper, "trim": opTrim}[name]
		return value{kind: text, reg: c.b.unary(texts, o, c.reg(v)), nullable: v.nullable}
	case "int", "float":
		return c.convert(args[0], name, v)
	}
	for i, v := range list {
		if !v.kind.number() {
			return c.wants(args[i], name, "a number", v)
		}
	}
	switch v := list[0]; name {
	case "abs":
		return c.mapped(v, opAbsI, opAbsF)
	case "min":
		return c.extreme(list, opMinI, opMinF)
	case "max":
		return c.extreme(list, opMaxI, opMaxF)
	default:
		o := map[string]op{"ceil": opCeilF, "floor": opFloorF, "round": opRoundF, "sqrt": opSqrtF, "log": opLogF,
			"exp": opExpF}[name]
		return value{kind: real, reg: c.b.unary(floats, o, c.float(v)), nullable: v.nullable}
	}
}

// convert is int(x) or float(x).
func (c *checker) convert(n ast.Node, name string, v value) value {
	if !v.kind.number() && v.kind != condition {
		return c.wants(n, name, "a number or a condition", v)
	}
	if v.kind == condition {
		v = value{kind: whole, reg: c.reg(v), nullable: v.nullable}
	}
	switch {
	case name == "float":
		return value{kind: real, reg: c.float(v), nullable: v.nullable}
	case v.kind == whole:
		return v
	}
	return value{kind: whole, reg: c.b.unary(ints, opIntF, c.float(v)), nullable: v.nullable}
}

// extreme is min or max of several numbers.
func (c *checker) extreme(list []value, ofInts, ofFloats op) value {
	v := list[0]
	for _, next := range list[1:] {
		k, scale, x, y, _ := c.common(v, next)
		cl := classOf(k)
		o := ofInts
		if cl == floats {
			o = ofFloats
		}
		v = value{kind: k, scale: scale, reg: c.b.binary(cl, o, x, y), nullable: v.nullable || next.nullable}
	}
	return v
}
