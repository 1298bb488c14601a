package features

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/onmart/onmart/datasets"
)

// result is what an expression is known to give before its columns are.
type result uint8

const (
	unsure     result = iota // its columns decide
	yesOrNo                  // yes or no
	fractional               // a number with a fraction
	textual                  // a text
)

// maxExpr bounds the length of an expression in bytes, and with it the depth of its tree.
const maxExpr = 4096

// expression reads an expression's names, each where it stands first, and what it gives. Types of columns are not
// known here: they are checked when the spec meets its data.
func (r *reader) expression(t text, what string) ([]name, result) {
	if t.s == "" {
		return nil, unsure // none, or already a fault
	}
	if len(t.s) > maxExpr {
		r.faults.add(t.pos, "%s: the expression is longer than %d bytes", what, maxExpr)
		return nil, unsure
	}
	tree, err := parser.Parse(t.s)
	if err != nil {
		var e *file.Error
		if errors.As(err, &e) {
			r.faults.add(t.at(byteOf(t.s, e.From)), "%s: not an expression: %s", what, e.Message)
		} else {
			r.faults.add(t.pos, "%s: not an expression: %v", what, err)
		}
		return nil, unsure
	}
	c := &nameCollector{}
	ast.Walk(&tree.Node, c)
	slices.SortStableFunc(c.names, func(a, b found) int { return a.offset - b.offset })
	var list []name
	for _, f := range c.names {
		known := func(n name) bool { return n.s == f.s }
		if !slices.Contains(c.calls, f.offset) && !slices.ContainsFunc(list, known) {
			list = append(list, name{text: text{f.s, t.at(byteOf(t.s, f.offset))}})
		}
	}
	return list, resultOf(tree.Node)
}

// byteOf is where the rune of a number begins.
func byteOf(s string, runes int) int {
	for i := range s {
		if runes == 0 {
			return i
		}
		runes--
	}
	return len(s)
}

// nameCollector gathers the identifiers of a tree, and which of them are functions.
type nameCollector struct {
	names []found
	calls []int
}

type found struct {
	s      string
	offset int
}

func (c *nameCollector) Visit(n *ast.Node) {
	switch x := (*n).(type) {
	case *ast.IdentifierNode:
		c.names = append(c.names, found{x.Value, x.Location().From})
	case *ast.CallNode:
		if f, ok := x.Callee.(*ast.IdentifierNode); ok {
			c.calls = append(c.calls, f.Location().From)
		}
	}
}

// resultOf tells from its outermost operations what a tree gives.
func resultOf(n ast.Node) result {
	switch x := n.(type) {
	case *ast.BoolNode:
		return yesOrNo
	case *ast.FloatNode:
		return fractional
	case *ast.StringNode:
		return textual
	case *ast.UnaryNode:
		if x.Operator == "!" || x.Operator == "not" {
			return yesOrNo
		}
		return resultOf(x.Node)
	case *ast.BinaryNode:
		switch x.Operator {
		case "==", "!=", "<", ">", "<=", ">=", "in", "matches", "contains", "startsWith", "endsWith", "and", "or", "&&",
			"||":
			return yesOrNo
		case "/", "**", "^":
			return fractional
		case "+", "-", "*", "%":
			if resultOf(x.Left) == fractional || resultOf(x.Right) == fractional {
				return fractional
			}
		}
	case *ast.ConditionalNode:
		if a, b := resultOf(x.Exp1), resultOf(x.Exp2); a == b || a == fractional || b == fractional {
			return max(a, b)
		}
	case *ast.CallNode:
		if f, ok := x.Callee.(*ast.IdentifierNode); ok && slices.Contains([]string{"sqrt", "log", "exp"}, f.Value) {
			return fractional
		}
	case *ast.BuiltinNode:
		if x.Name == "float" {
			return fractional
		}
	}
	return unsure
}

// checker is what concerns the features of a spec together: names, and what reads what.
type checker struct {
	r      *reader
	s      *Spec
	at     map[string]int  // feature that gives a column
	column map[string]bool // names that are certainly columns of the data: a feature of the same name reads them
	result []result        // of expr
}

// check is what concerns the spec's features as a whole: names used twice, labels needed and not declared, what reads
// what.
func (r *reader) check(s *Spec) {
	c := &checker{r: r, s: s, at: map[string]int{}, column: map[string]bool{}, result: make([]result, len(s.features))}
	c.names()
	for i := range s.features {
		f := &s.features[i]
		if i == 0 || s.features[i-1].at != f.at || s.features[i-1].kind != f.kind {
			c.labels(f)
		}
		c.expressions(i)
	}
	for i := range s.features {
		c.reads(i)
	}
}

// names reports columns that are there twice, once for each template.
func (c *checker) names() {
	used := map[string]bool{}
	for _, k := range c.s.keep {
		if k.s != "" && used[k.s] {
			c.r.faults.add(k.pos, "keep: %s is there twice", k.s)
		}
		used[k.s] = true
	}
	var last position
	for i := range c.s.features {
		f := &c.s.features[i]
		for _, n := range f.columns() {
			if n != "" && used[n] && f.at != last {
				c.r.faults.add(f.name.pos, "the column %s is there twice: names of kept columns and features must differ%s", n,
					c.apart(i))
				last = f.at
			}
			used[n] = true
			if _, ok := c.at[n]; !ok {
				c.at[n] = i
			}
		}
		own := func(t text) bool { return t.s != "" && t.s == f.name.s }
		if own(f.of) && f.kind != Calendar && f.kind != Cyclic || slices.ContainsFunc(f.keys, own) || own(f.place[0]) ||
			own(f.place[1]) {
			c.column[f.name.s] = true
		}
	}
}

// apart says which placeholders tell the features of a template apart that have one name.
func (c *checker) apart(i int) string {
	f := &c.s.features[i]
	var list []string
	for j := range c.s.features {
		o := &c.s.features[j]
		if o.at != f.at {
			continue
		}
		for _, h := range []struct {
			s     string
			apart bool
		}{{"{kind}", o.kind != f.kind}, {"{of}", o.of.s != f.of.s}, {"{key}", !slices.Equal(plain(o.keys), plain(f.keys))},
			{"{w}", o.window.text.s != f.window.text.s}} {
			if h.apart && !slices.Contains(list, h.s) {
				list = append(list, h.s)
			}
		}
	}
	if list == nil {
		return ""
	}
	return " (put " + strings.Join(list, ", ") + " into the feature's name)"
}

func (c *checker) labels(f *featureDef) {
	if c.s.label != nil {
		return
	}
	if f.kind == Risk {
		c.r.faults.add(f.name.pos, "%s: a risk needs the spec's label (column and delay)", f.what())
	}
	if f.shiftByDelay {
		c.r.faults.add(f.name.pos, "%s: shift: delay needs the spec's label (column and delay)", f.what())
	}
}

func (f *featureDef) what() string { return strings.TrimSpace("feature " + f.name.s) }

// expressions reads the names in where and expr; features of one template have the same ones.
func (c *checker) expressions(i int) {
	f := &c.s.features[i]
	if i > 0 && c.s.features[i-1].at == f.at {
		f.reads, c.result[i] = c.s.features[i-1].reads, c.result[i-1]
		return
	}
	if f.where.s != "" {
		names, gives := c.r.expression(f.where, f.what()+": where")
		for _, n := range names {
			n.inWhere = true
			f.reads = append(f.reads, n)
		}
		if gives == fractional || gives == textual {
			c.r.faults.add(f.where.pos, "%s: where: want a condition, such as amount > 100", f.what())
		}
	}
	if f.kind == Expr {
		var names []name
		names, c.result[i] = c.r.expression(f.expr, f.what()+": expr")
		f.reads = append(f.reads, names...)
		if c.result[i] == yesOrNo && f.unit == "" {
			f.unit = "flag"
		}
	}
}

// reads checks what a feature reads of others, and marks those that are computed last. Faults that all features of a
// template have are said once.
func (c *checker) reads(i int) {
	f := &c.s.features[i]
	fault := func(t text, format string, a ...any) {
		text := f.what() + ": " + fmt.Sprintf(format, a...)
		said := slices.ContainsFunc(c.r.faults.List, func(x Fault) bool {
			return x.Line == t.pos.line && x.Column == t.pos.column && after(x.Text) == after(text)
		})
		if !said {
			c.r.faults.add(t.pos, "%s", text)
		}
	}
	for _, n := range f.reads {
		if n.inWhere {
			c.read(i, "where", n.text, fault)
		} else {
			c.read(i, "expr", n.text, fault)
		}
	}
	for _, k := range f.keys {
		if j, ok := c.read(i, "key", k, fault); ok {
			c.whole(j, "key", k, fault)
		}
	}
	for _, p := range f.place {
		c.read(i, "place", p, fault)
	}
	info := f.kind.info()
	if info.types == nil {
		return
	}
	j, ok := c.read(i, "of", f.of, fault)
	if !ok {
		return
	}
	if of := &c.s.features[j]; of.unit != "" && f.unit == f.of.s {
		f.unit = of.unit
	}
	switch {
	case !info.windowed:
	case slices.Equal(info.types, exact) && c.floating(j):
		fault(f.of, "of: %s is floating point, which has no exact sum: %s, the decimals to keep", f.of.s,
			c.remedy(j, "a scale (such as scale: 4)"))
	case slices.Equal(info.types, discrete) || slices.Equal(info.types, whole):
		c.whole(j, "of", f.of, fault)
	}
}

// after is a fault's text without the name of the feature.
func after(s string) string {
	_, rest, _ := strings.Cut(s, ": ")
	return rest
}

// read checks one name that feature i reads. It returns the feature that the name means; false where it means a column
// of the data or is a fault.
func (c *checker) read(i int, field string, t text, fault func(t text, format string, a ...any)) (int, bool) {
	f := &c.s.features[i]
	if t.s == "" {
		return 0, false
	}
	if label := c.s.label; label != nil && t.s == label.column.s {
		fault(t, "%s: %s is the label, which is not known at the time of the transaction; a risk counts labels when they "+
			"are known", field, t.s)
		return 0, false
	} else if label == nil && t.s == datasets.IsFraud {
		fault(t, "%s: %s is a label, which is not known at the time of the transaction: declare it under label, and count "+
			"it by a risk", field, t.s)
		return 0, false
	}
	j, ok := c.at[t.s]
	if !ok {
		for k := range c.s.features {
			if o := &c.s.features[k]; o.name.s == t.s && k < i {
				fault(t, "%s: %s has the columns %s: name one of them", field, t.s, strings.Join(firstOf(o.columns(), 3), ", "))
				return 0, false
			}
		}
		return 0, false
	}
	g := &c.s.features[j]
	switch {
	case c.column[t.s] && (j == i || g.kind.windowed()):
		return 0, false
	case c.column[t.s] && (g.kind != Value || g.of.s != g.name.s || g.null != nil):
		c.both(g, t)
		return 0, false
	case c.column[t.s] && j > i:
		return 0, false // a column, and the feature is the same
	case j == i:
		fault(t, "%s: it reads itself, which is circular%s", field, c.rename(t.s))
		return 0, false
	case field != "expr" && (g.kind.windowed() || g.last):
		what := "is computed from a window"
		if g.last {
			what = "reads what is computed from a window"
		}
		fault(t, "%s: %s %s: only an expr can read it", field, t.s, what)
		return 0, false
	case j > i:
		fault(t, "%s: %s is defined further down: move it above this feature%s", field, t.s, c.rename(t.s))
		return 0, false
	}
	if g.kind.windowed() || g.last {
		f.last = true
	}
	return j, true
}

// both reports, once, that a name which is read may be a column of the data or a feature.
func (c *checker) both(g *featureDef, t text) {
	const is = "both a column of the data, which it reads, and this feature"
	if !slices.ContainsFunc(c.r.faults.List, func(f Fault) bool {
		return f.Line == g.name.pos.line && f.Column == g.name.pos.column && strings.Contains(f.Text, is)
	}) {
		c.r.faults.add(g.name.pos, "%s: %s is %s: what is meant in line %d? Give the feature another name", g.what(), t.s, is,
			t.pos.line)
	}
}

// rename is what to do where a name is meant to be a column's.
func (c *checker) rename(n string) string {
	return fmt.Sprintf("; if the data has a column %s, give the feature another name", n)
}

func firstOf(list []string, n int) []string {
	if len(list) > n {
		return append(slices.Clone(list[:n]), "...")
	}
	return list
}

// floating tells whether the numbers of a row feature are certainly floating point.
func (c *checker) floating(j int) bool {
	f := &c.s.features[j]
	switch f.kind {
	case Log:
		return f.scale < 0
	case Expr:
		return f.scale < 0 && c.result[j] == fractional
	case Cyclic, Sentiment:
		return true
	}
	return false
}

// remedy is what makes a row feature's numbers exact.
func (c *checker) remedy(j int, scale string) string {
	f := &c.s.features[j]
	if f.kind == Log || f.kind == Expr {
		return "give it " + scale
	}
	return fmt.Sprintf("read it by an expr with %s", scale)
}

// whole reports a row feature whose numbers are certainly not whole.
func (c *checker) whole(j int, field string, t text, fault func(t text, format string, a ...any)) {
	if c.floating(j) || c.s.features[j].scale > 0 {
		fault(t, "%s: %s is not of whole numbers: %s", field, t.s, c.remedy(j, "scale: 0"))
	}
}
