package derive

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/onmart/onmart/datasets"
)

// compiler binds definitions to columns.
type compiler struct {
	builder
	in       []datasets.Field
	defs     []Def
	options  Options
	holidays *holidays
	used     []bool         // of `in`
	derived  map[string]int // derived column by name
	owner    map[string]int // definition that makes a name, or will
	def      int            // the one at hand
	faults   []Fault
}

// Compile checks definitions, binds them to the columns in, and returns what computes them, or all that is wrong with
// them, in order.
func Compile(defs []Def, in []datasets.Field, o Options) (*Program, []Fault) {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	c := &compiler{
		builder: builder{plan: plan{columns: len(in), zone: o.Zone}, made: map[instr]int32{}, held: map[register]int32{},
			shared: map[string]int{}},
		in: in, defs: defs, options: o, used: make([]bool, len(in)), derived: map[string]int{}, owner: map[string]int{},
	}
	c.names()
	for i := range defs {
		c.def = i
		c.spans = append(c.spans, len(c.fields))
		c.define(&defs[i])
	}
	c.spans = append(c.spans, len(c.fields))
	if len(c.faults) > 0 {
		slices.SortStableFunc(c.faults, func(a, b Fault) int { return a.Def - b.Def })
		return nil, c.faults
	}
	for i, f := range in {
		if c.used[i] {
			c.inputs = append(c.inputs, f.Name)
		}
	}
	pl := c.plan
	return newProgram(&pl), nil
}

func (c *compiler) fault(field, format string, args ...any) {
	c.faults = append(c.faults, Fault{Def: c.def, Offset: -1, Field: field, Text: fmt.Sprintf(format, args...)})
}

// names notes who makes which column, before any is made.
func (c *compiler) names() {
	for i := range c.defs {
		c.def = i
		if c.defs[i].Name == "" {
			continue
		}
		for _, name := range columnsOf(&c.defs[i]) {
			if first, twice := c.owner[name]; twice {
				c.fault("name", "%s is there twice: feature %d makes it too", name, first+1)
				break
			}
			c.owner[name] = i
		}
	}
}

// columnsOf names the columns of a definition.
func columnsOf(d *Def) []string {
	switch {
	case d.Kind == kindCyclic:
		return []string{d.Name + "_sin", d.Name + "_cos"}
	case d.Kind == kindHashedWords && d.Buckets >= 1 && d.Buckets <= maxWordBuckets:
		var list []string
		for i := range d.Buckets {
			list = append(list, d.Name+"_"+strconv.Itoa(i))
		}
		return list
	}
	return []string{d.Name}
}

// column is the value that a name stands for, or what is wrong with it.
func (c *compiler) column(name string) (value, string) {
	i := slices.IndexFunc(c.in, func(f datasets.Field) bool { return f.Name == name })
	maker, made := c.owner[name]
	switch {
	case i >= 0 && made && maker < c.def && !sameAs(&c.defs[maker], name):
		return value{}, fmt.Sprintf("%s is a column and a feature: give the feature another name", name)
	case i >= 0:
		c.used[i] = true
		return c.loaded(c.in[i], i), ""
	case made && maker == c.def:
		return value{}, fmt.Sprintf("%s reads itself", name)
	case made && maker > c.def:
		return value{}, fmt.Sprintf("%s is defined further down, and a feature reads what stands before it: "+
			"move it up, unless that is circular", name)
	}
	if f, ok := c.derived[name]; ok {
		return c.loaded(c.fields[f], c.columns+f), ""
	}
	if made { // it has faults of its own, which are enough
		return value{}, ""
	}
	var known []string
	for _, f := range c.in {
		known = append(known, f.Name)
	}
	for _, f := range c.fields {
		known = append(known, f.Name)
	}
	if near := datasets.Nearest(name, known); near != "" {
		return value{}, fmt.Sprintf("there is no column %s; did you mean %s?", name, near)
	}
	if len(known) > 40 {
		known = append(known[:40], "...")
	}
	return value{}, fmt.Sprintf("there is no column %s; there are %s", name, strings.Join(known, ", "))
}

// sameAs tells whether a definition is nothing but the column, so that its name may be the column's.
func sameAs(d *Def, column string) bool {
	return d.Kind == kindValue && d.Of == column && d.Null == nil && d.Empty == nil
}

func (c *compiler) loaded(f datasets.Field, at int) value {
	v := value{nullable: f.Nullable, kind: whole}
	switch f.Type {
	case datasets.Decimal:
		v.kind, v.scale = decimal, f.Scale
	case datasets.Float64:
		v.kind = real
	case datasets.String:
		v.kind = text
	case datasets.Time:
		v.kind = instant
	}
	v.reg = c.load(classOf(v.kind), at)
	return v
}

// define compiles one definition; where it has faults, it makes no columns.
func (c *compiler) define(d *Def) {
	before := len(c.faults)
	switch d.Kind {
	case kindValue:
		if v := c.of(d, "a number"); v.kind.number() {
			c.single(d, v)
		}
	case kindCalendar:
		if v, _ := c.calendar(d); v.kind != wrong {
			c.single(d, v)
		}
	case kindCyclic:
		c.cyclic(d)
	case kindLog:
		if v := c.of(d, "a number"); v.kind.number() {
			x := c.unary(floats, opLog1pF, c.float(v))
			c.single(d, c.scaled(d, value{kind: real, reg: x, nullable: v.nullable}))
		}
	case kindClip:
		c.clip(d)
	case kindBins:
		c.bins(d)
	case kindHash:
		c.hash(d)
	case kindVocabulary:
		c.vocabulary(d)
	case kindExpr, kindCondition:
		c.expr(d)
	case kindLength, kindWords, kindSentiment:
		if v := c.of(d, "text"); v.kind == text {
			r := value{kind: whole, nullable: v.nullable}
			switch d.Kind {
			case kindLength:
				r.reg = c.unary(ints, opLen, v.reg)
			case kindWords:
				r.reg = c.unary(ints, opWords, v.reg)
			default:
				r.kind, r.reg = real, c.unary(floats, opSentiment, v.reg)
			}
			c.single(d, r)
		}
	case kindHashedWords:
		c.hashedWords(d)
	default:
		near := datasets.Nearest(d.Kind, kinds)
		if near == "" {
			near = "one of " + strings.Join(kinds, ", ")
		}
		c.fault("kind", "there is no kind %q of a row; did you mean %s?", d.Kind, near)
	}
	if len(c.faults) > before {
		return
	}
	if d.Name != "" {
		for i := c.spans[c.def]; i < len(c.fields); i++ {
			c.derived[c.fields[i].Name] = i
		}
	}
}

// of is the column that a definition is of; want is "a number", "text" or "a number or text".
func (c *compiler) of(d *Def, want string) value {
	if d.Of == "" {
		c.fault("of", "%s needs the column that it is of", d.Kind)
		return value{}
	}
	v, problem := c.column(d.Of)
	if problem != "" {
		c.fault("of", "%s", problem)
		return value{}
	}
	if v.kind == wrong {
		return value{}
	}
	number := v.kind.number() && strings.HasPrefix(want, "a number") ||
		v.kind == whole && strings.HasPrefix(want, "a whole number")
	if !number && !(v.kind == text && strings.HasSuffix(want, "text")) {
		hint := ""
		if v.kind == instant {
			hint = "; calendar and cyclic have the values of the event time"
		}
		c.fault("of", "%s is of %s, and %s is %s%s", d.Kind, want, d.Of, typeWords[v.kind], hint)
		return value{}
	}
	return v
}

// float is the register of a column's value as float64.
func (c *compiler) float(v value) int32 { return (&checker{b: &c.builder}).float(v) }

// calendar is the value d.Of of the event time.
func (c *compiler) calendar(d *Def) (value, int64) {
	names := CalendarNames()
	if !slices.Contains(names, d.Of) {
		near := datasets.Nearest(d.Of, names)
		if near == "" {
			near = "one of " + strings.Join(names, ", ")
		}
		c.fault("of", "%q is nothing that a calendar shows; did you mean %s?", d.Of, near)
		return value{}, 0
	}
	if d.Of == holiday && !c.holidaysRead() {
		return value{}, 0
	}
	at, problem := value{}, ""
	if at, problem = c.column(c.options.Time); problem != "" || at.kind != instant {
		c.fault("of", "%s needs the column of the event time, %q, and the data has none of type time", d.Kind, c.options.Time)
		return value{}, 0
	}
	var t table
	var period int64
	if d.Of == holiday {
		t.day = c.holidays.of
	}
	for _, v := range calendarValues {
		if v.name == d.Of {
			t, period = table{day: v.day, clock: v.clock}, v.period
		}
	}
	local := c.unary(ints, opLocal, at.reg)
	day := c.unary(ints, opDay, local)
	key := "calendar " + d.Of
	aux, ok := c.shared[key]
	if !ok {
		aux = c.table(t)
		c.shared[key] = aux
	}
	reg := c.emit(ints, instr{op: opClock, a: local, b: day, c: -1, aux: int32(aux)})
	return value{kind: whole, reg: reg, nullable: at.nullable}, period
}

// holidaysRead makes sure of the holidays when the first definition asks for them.
func (c *compiler) holidaysRead() bool {
	if c.holidays != nil {
		return true
	}
	if len(c.options.Holidays) == 0 {
		c.fault("of", "holiday needs the list of holidays")
		return false
	}
	list, bad := parseHolidays(c.options.Holidays)
	for _, text := range bad {
		c.fault("holidays", "%s", text)
	}
	c.holidays = list
	return len(bad) == 0
}

func (c *compiler) cyclic(d *Def) {
	v, period := c.calendar(d)
	if v.kind == wrong {
		return
	}
	if period == 0 {
		var have []string
		for _, v := range calendarValues {
			if v.period != 0 {
				have = append(have, v.name)
			}
		}
		c.fault("of", "%s does not come round; cyclic is of %s", d.Of, strings.Join(have, ", "))
		return
	}
	var sines, cosines []float64
	for i := range period + 1 {
		angle := 2 * math.Pi * float64(i%period) / float64(period)
		sines, cosines = append(sines, math.Sin(angle)), append(cosines, math.Cos(angle))
	}
	for i, list := range [][]float64{sines, cosines} {
		reg := c.unaryAux(floats, opTableF, v.reg, c.table(table{floats: list}))
		c.columnNamed(d, columnsOf(d)[i], value{kind: real, reg: reg, nullable: v.nullable})
	}
}

func (c *compiler) clip(d *Def) {
	v := c.of(d, "a number")
	switch {
	case d.Min == nil && d.Max == nil:
		c.fault("min", "clip needs min, max or both")
		return
	case d.Min != nil && d.Max != nil && *d.Min > *d.Max:
		c.fault("max", "max %v is below min %v", *d.Max, *d.Min)
		return
	}
	t := table{ints: []int64{math.MinInt64, math.MaxInt64}, floats: []float64{-math.MaxFloat64, math.MaxFloat64}}
	good := true
	for i, bound := range []struct {
		field string
		v     *float64
	}{{"min", d.Min}, {"max", d.Max}} {
		if bound.v == nil {
			continue
		}
		t.floats[i] = *bound.v
		var ok bool
		t.ints[i], ok = c.inUnit(bound.field, *bound.v, v)
		good = good && ok
	}
	if !good || v.kind == wrong {
		return
	}
	o := opClipI
	if v.kind == real {
		o = opClipF
	}
	v.reg = c.unaryAux(classOf(v.kind), o, v.reg, c.table(t))
	c.single(d, v)
}

// inUnit is a number of a definition in the unit of a value.
func (c *compiler) inUnit(field string, x float64, v value) (int64, bool) {
	switch {
	case !finite(x):
		c.fault(field, "%s %v is not a finite number", field, x)
		return 0, false
	case v.kind == wrong || v.kind == real:
		return 0, true
	}
	u, exact := units(value{kind: real, f: x}, v.scale)
	switch {
	case exact && u.IsInt64() && (v.kind == whole || u.CmpAbs(big.NewInt(1e18)) < 0):
		return u.Int64(), true
	case exact:
		c.fault(field, "%s %v is too large for its column", field, x)
	case v.kind == whole:
		c.fault(field, "%s %v is not a whole number, and the column has whole numbers: round it", field, x)
	default:
		c.fault(field, "%s %v has more decimals than its column, which has %d: round it", field, x, v.scale)
	}
	return 0, false
}

func (c *compiler) bins(d *Def) {
	v := c.of(d, "a number")
	good := v.kind != wrong
	if len(d.Edges) == 0 {
		c.fault("edges", "bins needs edges, such as [10, 100]")
		return
	}
	for i, e := range d.Edges {
		if !finite(e) {
			c.fault("edges", "edge %v is not a finite number", e)
			good = false
		} else if i > 0 && !(e > d.Edges[i-1]) {
			c.fault("edges", "edges have to ascend, and %v stands before %v", d.Edges[i-1], e)
			good = false
		}
	}
	if good {
		at := c.table(table{floats: slices.Clone(d.Edges)})
		c.single(d, value{kind: whole, reg: c.unaryAux(ints, opBinsF, c.float(v), at), nullable: v.nullable})
	}
}

func (c *compiler) hash(d *Def) {
	v := c.of(d, "a whole number or text")
	if d.Buckets < 1 || d.Buckets > maxBuckets {
		c.fault("buckets", "hash needs buckets, 1 to %d, and has %d", maxBuckets, d.Buckets)
		return
	}
	if v.kind == wrong {
		return
	}
	o := opHashI
	if v.kind == text {
		o = opHashS
	}
	c.single(d, value{kind: whole, reg: c.unaryAux(ints, o, v.reg, d.Buckets), nullable: v.nullable})
}

func (c *compiler) vocabulary(d *Def) {
	v := c.of(d, "a whole number or text")
	if len(d.Values) == 0 {
		c.fault("values", "vocabulary needs the values that it knows")
		return
	}
	t, good := table{intSet: map[int64]int64{}, textSet: map[string]int64{}}, v.kind != wrong
	for i, s := range d.Values {
		if _, twice := t.textSet[s]; twice {
			c.fault("values", "%q is there twice", s)
			good = false
			continue
		}
		t.textSet[s] = int64(i + 1)
		if v.kind != whole {
			continue
		}
		k, err := strconv.ParseInt(s, 10, 64)
		if _, twice := t.intSet[k]; err != nil || twice {
			c.fault("values", "%q is not a whole number as %s has them, or is there twice", s, d.Of)
			good = false
			continue
		}
		t.intSet[k] = int64(i + 1)
	}
	if !good {
		return
	}
	o := opVocabularyI
	if v.kind == text {
		o = opVocabularyS
	}
	c.single(d, value{kind: whole, reg: c.unaryAux(ints, o, v.reg, c.table(t)), nullable: v.nullable})
}

func (c *compiler) hashedWords(d *Def) {
	v := c.of(d, "text")
	if d.Buckets < 1 || d.Buckets > maxWordBuckets {
		c.fault("buckets", "hashed_words needs buckets, 1 to %d, and has %d", maxWordBuckets, d.Buckets)
		return
	}
	if v.kind == wrong {
		return
	}
	s, nullable := c.substitutes(d, value{kind: whole, nullable: v.nullable})
	s.buckets = d.Buckets
	c.store(opStoreHashed, len(c.fields), v.reg, s)
	for _, name := range columnsOf(d) {
		c.fields = append(c.fields, datasets.Field{Name: name, Type: datasets.Int64, Nullable: nullable})
	}
}

func (c *compiler) expr(d *Def) {
	e := &checker{b: &c.builder, src: d.Expr, column: c.column}
	v := e.compile()
	if v.kind != wrong && len(e.faults) == 0 {
		v = e.result(d, v)
	}
	for _, f := range e.faults {
		f.Def, f.Field = c.def, "expr"
		c.faults = append(c.faults, f)
	}
	if len(e.faults) > 0 {
		return
	}
	if d.Kind == kindExpr && v.kind.number() {
		v = c.scaled(d, v)
	}
	c.single(d, v)
}

// result checks what the whole expression is.
func (e *checker) result(d *Def, v value) value {
	switch {
	case v.kind == instant:
		e.faultAt(0, "the expression is a time; the difference of two times is seconds")
	case v.kind == nothing:
		e.faultAt(0, "the expression is nil: there is nothing to compute")
	case d.Kind == kindCondition && v.kind != condition && v.kind != whole:
		e.faultAt(0, "a condition is needed, such as amount > 100, and this is %s", typeWords[v.kind])
	case d.Kind == kindCondition:
		reg, _ := e.condition(nil, "", v)
		return value{kind: condition, reg: reg, nullable: v.nullable}
	}
	v.reg, v.constant = e.reg(v), false
	return v
}

// scaled is a number with the decimals that a definition wants. A decimal that leaves 18 digits is undefined.
func (c *compiler) scaled(d *Def, v value) value {
	switch {
	case d.Scale < -1 || d.Scale > maxScale:
		c.fault("scale", "scale %d: want -1 to %d", d.Scale, maxScale)
		return value{}
	case v.kind == whole && d.Scale <= 0:
		return v
	case v.kind == decimal && d.Scale == v.scale && d.Scale > 0:
		return v
	case d.Scale < 0:
		return value{kind: real, reg: c.float(v), nullable: v.nullable}
	}
	to := value{kind: decimal, scale: d.Scale, nullable: v.nullable}
	if d.Scale == 0 {
		to.kind = whole
	}
	to.rounded = true
	to.reg = c.float(v)
	return to
}

// single adds the one column of a definition; a value that is wrong has been reported.
func (c *compiler) single(d *Def, v value) {
	if v.kind != wrong {
		c.columnNamed(d, d.Name, v)
	}
}

// columnNamed adds a derived column and stores the value in it.
func (c *compiler) columnNamed(d *Def, name string, v value) {
	s, nullable := c.substitutes(d, v)
	f, o := datasets.Field{Name: name, Type: datasets.Int64, Nullable: nullable}, opStoreI
	switch v.kind {
	case decimal:
		f.Type, f.Scale = datasets.Decimal, v.scale
	case real:
		f.Type, o = datasets.Float64, opStoreF
	case text:
		f.Type, o = datasets.String, opStoreS
	}
	if v.rounded {
		o, s.scale = opStoreDecimal, math.Pow10(v.scale)
	}
	c.store(o, len(c.fields), v.reg, s)
	c.fields = append(c.fields, f)
}

// substitutes are a definition's null and empty in the unit of its column, and whether the column can have nulls.
func (c *compiler) substitutes(d *Def, v value) (substitutes, bool) {
	var s substitutes
	if d.Null != nil && v.kind == text {
		c.fault("null", "%s is text, and null a number; use ?? in the expression", d.Name)
		return s, false
	}
	if v.kind == condition {
		v.kind, s.null = whole, true
	}
	if d.Null != nil {
		s.null, s.nullF = true, *d.Null
		s.nullI, _ = c.inUnit("null", *d.Null, v)
	}
	if d.Empty != nil {
		s.emptyF = *d.Empty
		s.emptyI, _ = c.inUnit("empty", *d.Empty, v)
	}
	return s, v.nullable && !s.null
}
