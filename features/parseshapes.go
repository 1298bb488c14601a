package features

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// The fields of the parts of a spec that are not of its features; spec.schema.json has the same.
var (
	panelFields     = []string{"keys", "step", "seasons", "fill", "returns", "demand", "measures", "covariates"}
	returnsFields   = []string{"flag", "undo"}
	measureFields   = []string{"name", "kind", "of", "rows", "unit", "words"}
	covariateFields = []string{"name", "kind", "of", "rows", "known", "lags", "unit", "words"}
	joinFields      = []string{"table", "on", "key", "since", "between", "take", "prefix"}
	whereFields     = []string{"column", "matches", "in", "not_in", "above", "below", "present"}
	interFields     = []string{"user", "item", "weight", "log", "hold", "returns", "keep"}
	interReturns    = []string{"flag", "undo", "policy"}
)

// maxLag bounds the lags of a covariate, and with them what is held for each series.
const maxLag = 10_000

// list reads a sequence of mappings.
func (r *reader) list(n ast.Node, what string, f func(ast.Node)) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		r.faults.add(place(n), "%s: want a list with at least one entry", what)
		return
	}
	for _, v := range seq.Values {
		f(v)
	}
}

// word reads one of a few names.
func (r *reader) word(n ast.Node, what string, known []string) string {
	t := r.text(n, what)
	if t.s != "" && !slices.Contains(known, t.s) {
		r.faults.add(t.pos, "%s: unknown %q%s; there are %s", what, t.s, suggest(t.s, known), strings.Join(known, ", "))
	}
	return t.s
}

// number reads a number as written.
func (r *reader) number(n ast.Node, what string) float64 {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		if v, err := strconv.ParseFloat(n.GetToken().Value, 64); err == nil {
			return v
		}
	}
	r.faults.add(place(n), "%s: want a number, found %s", what, kindOf(n))
	return 0
}

// whole reads a list of whole numbers from 1 to most.
func (r *reader) whole(n ast.Node, what string, most int) []int {
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		r.faults.add(place(n), "%s: want a list of whole numbers, such as [1, 7]", what)
		return nil
	}
	var list []int
	for _, v := range seq.Values {
		x := r.number(v, what)
		if x != float64(int(x)) || x < 1 || x > float64(most) {
			r.faults.add(place(v), "%s: want whole numbers from 1 to %d", what, most)
			continue
		}
		list = append(list, int(x))
	}
	return list
}

// scalars is a list of values as text: product codes look like numbers to YAML.
func (r *reader) scalars(n ast.Node, what string) []text {
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		r.faults.add(place(n), "%s: want a list, such as [a, b]", what)
		return nil
	}
	var list []text
	for _, v := range seq.Values {
		switch v.(type) {
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			list = append(list, text{v.GetToken().Value, place(v)})
		default:
			list = append(list, r.text(v, what))
		}
	}
	return list
}

func (r *reader) panel(n ast.Node) *panelDef {
	p := &panelDef{pos: place(n), demand: measureDef{name: text{s: "demand"}, kind: text{s: aggSum}, rows: rowsDemand}}
	seen := r.fields(n, "panel", panelFields, func(key string, v ast.Node) {
		switch key {
		case "keys":
			p.keys = r.texts(v, "panel keys")
		case "step":
			p.step = Step(r.word(v, "panel step", steps))
		case "seasons":
			p.seasons = r.whole(v, "panel seasons", maxLag)
		case "fill":
			p.fillLast = r.word(v, "panel fill", []string{"zero", "last"}) == "last"
		case "returns":
			p.returns, _ = r.returns(v, "panel returns", returnsFields)
		case "demand":
			p.demand = r.measure(v, "demand", slices.DeleteFunc(slices.Clone(measureFields),
				func(f string) bool { return f == "name" }))
			p.demand.name = text{"demand", place(v)}
		case "measures":
			r.list(v, "panel measures", func(v ast.Node) {
				p.measures = append(p.measures,
					r.measure(v, "measure", measureFields))
			})
		case "covariates":
			r.list(v, "panel covariates", func(v ast.Node) { p.covariates = append(p.covariates, r.covariate(v)) })
		}
	})
	for _, f := range []string{"keys", "step", "demand"} {
		if seen != nil && !seen[f] {
			r.faults.add(p.pos, "panel: the field %s is missing", f)
		}
	}
	if seen["keys"] && len(p.keys) == 0 {
		r.faults.add(p.pos, "panel: keys: want at least one column whose values make a series")
	}
	if p.seasons == nil && p.step != "" {
		p.seasons = p.step.Seasons()
	}
	if p.returns == nil {
		for _, m := range append([]measureDef{p.demand}, p.measures...) {
			if m.rows == rowsUndone || m.rows == rowsReturned {
				r.faults.add(m.name.pos, "%s: rows: %s needs the panel's returns, which say what a return is", m.name.s, m.rows)
			}
		}
	}
	return p
}

func (r *reader) returns(n ast.Node, what string, known []string) (*returnsDef, string) {
	d := &returnsDef{pos: place(n)}
	policy := ""
	seen := r.fields(n, what, known, func(key string, v ast.Node) {
		switch key {
		case "flag":
			d.flag = r.text(v, what+": flag")
		case "undo":
			d.undo = r.texts(v, what+": undo")
		case "policy":
			policy = r.word(v, what+": policy", returnPolicies)
		}
	})
	if seen == nil {
		return nil, ""
	}
	return d, policy
}

// measure reads demand or a measure.
func (r *reader) measure(n ast.Node, what string, known []string) measureDef {
	m := measureDef{name: text{pos: place(n)}, kind: text{s: aggSum}, rows: rowsDemand}
	seen := r.fields(n, what, known, func(key string, v ast.Node) { r.measureField(&m, what, key, v) })
	if seen == nil {
		return m
	}
	if m.name.s != "" {
		what += " " + m.name.s
	}
	r.measureKind(&m, what, seen, known, aggregations)
	return m
}

func (r *reader) measureField(m *measureDef, what, key string, v ast.Node) {
	switch key {
	case "name":
		m.name = r.text(v, what+" name")
	case "kind":
		m.kind = r.text(v, what+": kind")
	case "of":
		m.of = r.text(v, what+": of")
	case "rows":
		m.rows = rowClass(r.word(v, what+": rows", rowClasses))
	case "unit":
		m.unit = r.text(v, key).s
	case "words":
		m.words = r.text(v, key).s
	}
}

// measureKind checks name, kind and of against each other.
func (r *reader) measureKind(m *measureDef, what string, seen map[string]bool, known, kinds []string) {
	if slices.Contains(known, "name") && !seen["name"] {
		r.faults.add(m.name.pos, "%s: the field name is missing", what)
	}
	if !slices.Contains(kinds, m.kind.s) {
		r.faults.add(m.kind.pos, "%s: unknown kind %q%s; there are %s", what, m.kind.s, suggest(m.kind.s, kinds),
			strings.Join(kinds, ", "))
		return
	}
	switch {
	case m.kind.s == aggCount && seen["of"]:
		r.faults.add(m.of.pos, "%s: a count is of rows and has no field of", what)
	case m.kind.s != aggCount && !seen["of"]:
		r.faults.add(m.name.pos, "%s: a %s needs the field of", what, m.kind.s)
	}
}

func (r *reader) covariate(n ast.Node) covariateDef {
	c := covariateDef{measureDef: measureDef{name: text{pos: place(n)}, rows: rowsSold}}
	seen := r.fields(n, "covariate", covariateFields, func(key string, v ast.Node) {
		switch key {
		case "known":
			c.known, c.hasKnown = r.flag(v, "covariate known"), true
		case "lags":
			c.lags = r.whole(v, "covariate lags", maxLag)
		default:
			r.measureField(&c.measureDef, "covariate", key, v)
		}
	})
	if seen == nil {
		return c
	}
	what := "covariate " + c.name.s
	if !seen["kind"] {
		r.faults.add(c.name.pos, "%s: the field kind is missing: one of %s", what, strings.Join(covariateKinds, ", "))
		return c
	}
	r.measureKind(&c.measureDef, what, seen, covariateFields, covariateKinds)
	step := c.kind.s == covCalendar || c.kind.s == covTable || c.kind.s == covFlag
	switch {
	case c.kind.s == covLag && !seen["lags"]:
		r.faults.add(c.name.pos, "%s: a lag needs the field lags, such as [1, 7]", what)
	case c.kind.s != covLag && seen["lags"]:
		r.faults.add(c.name.pos, "%s: a %s has no field lags", what, c.kind.s)
	case (step || c.kind.s == covLag) && seen["rows"]:
		r.faults.add(c.name.pos, "%s: a %s has no field rows", what, c.kind.s)
	case c.kind.s == covLag && c.known:
		r.faults.add(c.name.pos, "%s: a lag is not known in advance", what)
	}
	if c.kind.s == covCalendar && c.of.s != "" && !slices.Contains(calendarNames(), c.of.s) {
		r.faults.add(c.of.pos, "%s: of: unknown calendar value %q%s; there are %s", what, c.of.s,
			suggest(c.of.s, calendarNames()), strings.Join(calendarNames(), ", "))
	}
	if !c.hasKnown {
		c.known = step
	}
	return c
}

// expand gives the covariate's columns: one, or one for each lag.
func (c *covariateDef) expand() []string {
	if c.kind.s != covLag {
		return []string{c.name.s}
	}
	var list []string
	for _, n := range c.lags {
		list = append(list, strings.ReplaceAll(c.name.s, "{n}", strconv.Itoa(n)))
	}
	return list
}

func (r *reader) joins(n ast.Node) []joinDef {
	var list []joinDef
	r.list(n, "join", func(n ast.Node) {
		j := joinDef{pos: place(n)}
		seen := r.fields(n, "join", joinFields, func(key string, v ast.Node) {
			switch key {
			case "table":
				j.table = r.text(v, "join table")
			case "on":
				j.on = r.oneOrMore(v, "join on")
			case "key":
				j.key = r.oneOrMore(v, "join key")
			case "since":
				j.since = r.text(v, "join since")
			case "between":
				if j.between = r.texts(v, "join between"); len(j.between) != 2 {
					r.faults.add(place(v), "join between: want two columns of the table, such as [first_day, last_day]")
					j.between = nil
				}
			case "take":
				j.take = r.oneOrMore(v, "join take")
			case "prefix":
				j.prefix = r.text(v, "join prefix").s
			}
		})
		for _, f := range []string{"table", "on", "take"} {
			if seen != nil && !seen[f] {
				r.faults.add(j.pos, "join: the field %s is missing", f)
			}
		}
		if j.table.s != "" && !tableName.MatchString(j.table.s) {
			r.faults.add(j.table.pos,
				"join: table %q: want the name of NAME.parquet beside the data set, of letters, digits, _ and -", j.table.s)
		}
		if j.key != nil && len(j.key) != len(j.on) {
			r.faults.add(j.pos, "join %s: key has %d columns and on has %d", j.table.s, len(j.key), len(j.on))
		}
		date := slices.ContainsFunc(j.on, func(t text) bool { return t.s == joinDate })
		if btoi(date)+btoi(j.since.s != "")+btoi(j.between != nil) > 1 {
			r.faults.add(j.pos, "join %s: want one of on: date, since and between", j.table.s)
		}
		list = append(list, j)
	})
	return list
}

var tableName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// oneOrMore is one name or a list of them.
func (r *reader) oneOrMore(n ast.Node, what string) []text {
	if _, ok := n.(*ast.SequenceNode); ok {
		list := r.texts(n, what)
		if len(list) == 0 {
			r.faults.add(place(n), "%s: want at least one name", what)
		}
		return list
	}
	return []text{r.text(n, what)}
}

func (r *reader) where(n ast.Node) []whereDef {
	var list []whereDef
	r.list(n, "where", func(n ast.Node) {
		w := whereDef{column: text{pos: place(n)}}
		conditions := 0
		r.fields(n, "where", whereFields, func(key string, v ast.Node) {
			conditions++
			switch key {
			case "column":
				w.column = r.text(v, "where column")
				conditions--
			case "matches":
				t := r.text(v, "where matches")
				re, err := regexp.Compile(t.s)
				if err != nil {
					r.faults.add(t.pos, "where matches: not a regular expression of Go: %v", err)
					return
				}
				w.matches = re
			case "in":
				w.in = r.scalars(v, "where in")
			case "not_in":
				w.notIn = r.scalars(v, "where not_in")
			case "above":
				x := r.number(v, "where above")
				w.above = &x
			case "below":
				x := r.number(v, "where below")
				w.below = &x
			case "present":
				if w.present = r.flag(v, "where present"); !w.present {
					r.faults.add(place(v), "where present: want true")
				}
			}
		})
		if w.column.s == "" {
			r.faults.add(w.column.pos, "where: the field column is missing")
		}
		if conditions == 0 {
			r.faults.add(w.column.pos, "where %s: no condition; there are %s", w.column.s, strings.Join(whereFields[1:], ", "))
		}
		list = append(list, w)
	})
	return list
}

func (r *reader) interactions(n ast.Node) *interDef {
	d := &interDef{pos: place(n), policy: returnsIgnore}
	seen := r.fields(n, "interactions", interFields, func(key string, v ast.Node) {
		switch key {
		case "user":
			d.user = r.text(v, "interactions user")
		case "item":
			d.item = r.text(v, "interactions item")
		case "weight":
			d.weight = r.text(v, "interactions weight")
		case "log":
			d.log = r.flag(v, "interactions log")
		case "hold":
			d.hold, _ = r.duration(v, "interactions hold")
		case "keep":
			d.keep = r.texts(v, "interactions keep")
		case "returns":
			var policy string
			if d.returns, policy = r.returns(v, "interactions returns", interReturns); policy != "" {
				d.policy = policy
			}
		}
	})
	for _, f := range []string{"user", "item"} {
		if seen != nil && !seen[f] {
			r.faults.add(d.pos, "interactions: the field %s is missing", f)
		}
	}
	if d.log && d.weight.s == "" {
		r.faults.add(d.pos, "interactions: log is for a weight that is a column")
	}
	switch {
	case d.policy != returnsIgnore && d.returns == nil:
		r.faults.add(d.pos, "interactions: a policy needs returns")
	case d.policy != returnsRemove && d.returns != nil && d.returns.undo != nil:
		r.faults.add(d.returns.pos, "interactions returns: undo is for the policy remove")
	}
	return d
}

// checkShape is what concerns the parts of a spec together: which go with which, and names used twice.
func (r *reader) checkShape(s *Spec, seen map[string]bool, at position) {
	shapes := 0
	for _, f := range []string{"features", "panel", "interactions"} {
		if seen[f] {
			shapes++
		}
	}
	if shapes != 1 {
		r.faults.add(at, "spec: want one of the fields features, panel and interactions, found %d of them", shapes)
		return
	}
	if s.panel == nil && s.inter == nil {
		if seen["where"] {
			r.faults.add(at, "spec: the field where is for a panel or interactions, not for features of transactions")
		}
		for i := range s.joins {
			if j := &s.joins[i]; j.ofSteps() || j.since.s != "" || j.between != nil {
				r.faults.add(j.pos, "join %s: want a join by columns alone: date, since and between are for a panel", j.table.s)
			}
		}
		return
	}
	for _, f := range []string{"label", "keep", "late", "duplicates", "future", "holidays"} {
		if seen[f] {
			r.faults.add(at, "spec: the field %s is for features of transactions, not for a panel or interactions", f)
		}
	}
	used := map[string]position{}
	claim := func(t text) {
		if t.s == "" {
			return
		}
		if _, ok := used[t.s]; ok {
			r.faults.add(t.pos, "the column %s is there twice: names of keys, measures and covariates must differ", t.s)
		}
		used[t.s] = t.pos
	}
	switch {
	case s.panel != nil:
		for _, n := range []string{ColumnSeries, ColumnStep} {
			used[n] = at
		}
		for _, k := range s.panel.keys {
			claim(k)
		}
		claim(s.panel.demand.name)
		for _, m := range s.panel.measures {
			claim(m.name)
		}
		for i := range s.panel.covariates {
			c := &s.panel.covariates[i]
			for _, n := range c.expand() {
				claim(text{n, c.name.pos})
			}
		}
	case s.inter != nil:
		for _, n := range []string{ColumnTime, ColumnWeight, "trans_id"} {
			used[n] = at
		}
		claim(s.inter.user)
		claim(s.inter.item)
		for _, k := range s.inter.keep {
			claim(k)
		}
	}
}
