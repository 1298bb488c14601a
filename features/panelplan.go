package features

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/datasets"
)

// Role says what a column of a panel is to a forecaster.
type Role string

const (
	RoleSeries  Role = "series"  // the keys joined by |
	RoleKey     Role = "key"     // one of the series' keys
	RoleStep    Role = "step"    // when the step begins
	RoleTarget  Role = "target"  // demand
	RoleMeasure Role = "measure" // another number of the same rows
	RolePast    Role = "past"    // a covariate that is known up to the last closed step
	RoleKnown   Role = "known"   // a covariate that is known in advance
)

// PanelColumn describes one column of a panel.
type PanelColumn struct {
	Name  string `json:"name"`
	Role  Role   `json:"role"`
	Kind  string `json:"kind,omitempty"` // as in the spec: sum, last, calendar ...
	Of    string `json:"of,omitempty"`
	Lag   int    `json:"lag,omitempty"` // steps
	Words string `json:"words,omitempty"`
	Unit  string `json:"unit,omitempty"`
}

// rowPlan is what panels and interactions do with rows: join, choose, and tell sales from returns.
type rowPlan struct {
	ext    *datasets.Schema // the input's columns, then those that row joins add
	joins  []rowJoin
	where  []condition
	id     int // trans_id
	target int // what is bought or returned: a row needs it; -1: nothing
	flag   int // 1 for a return; -1: none
	// sales and returns are told apart
	returns bool
	undo    []int // columns that a sale and the return that undoes it have equal
	matches bool  // returns undo sales
	vals    []valueColumn
	tags    []int // columns whose values are compared, not summed
	used    []int // columns of the input that are read
}

// condition is a whereDef bound to a column.
type condition struct {
	whereDef
	col   int
	field datasets.Field
	in    map[string]bool
	notIn map[string]bool
}

type panelPlan struct {
	rowPlan
	grid    Grid
	seasons []int
	keys    []keyColumn
	columns []PanelColumn // after series, keys and step
	demand  measure
	fill    bool // the demand before is repeated
	meas    []measure
	covs    []covariate
	carried int   // how many covariates have a value that is carried on
	lagOf   []int // what lags are of: 0 is demand, 1+i measure i
	lagMax  int
	dims    []dimJoin
}

// measure is a measureDef bound to columns.
type measure struct {
	kind string
	rows rowClass
	val  int // of vals
	tag  int // of tags
	// scale divides the sum of whole numbers; float marks floating point, kept as its bits.
	scale int
	float bool
}

// covariate is a covariateDef bound to columns, one for each column of output.
type covariate struct {
	measure
	known    bool
	carry    int // place among the carried values, -1 for none
	calendar string
	join     int // of dims
	take     int // column of the join's table
	lag      int
	source   int // of lagOf
	of       string
}

// scaled is a whole number in units of 10^-scale, divided once.
func scaled(v int64, scale int) float64 {
	if scale == 0 {
		return float64(v)
	}
	return float64(v) / math.Pow10(scale)
}

// planShape binds a spec of a panel or of interactions.
func (s *Spec) planShape(in *datasets.Schema, tables *Tables) (*Plan, error) {
	p := &Plan{spec: s, in: in, lateness: s.lateness, line: -1, label: -1, knownAt: -1, event: -1, seq: -1, part: -1,
		location: s.Location()}
	b := &shapeBinder{binder: binder{p: p, faults: Faults{Name: s.file}}, tables: tables}
	b.rows.ext = &datasets.Schema{Fields: slices.Clone(in.Fields)}
	b.rows.target, b.rows.flag, b.rows.id = -1, -1, -1
	b.rowColumns()
	b.rowJoins()
	b.wheres()
	if s.panel != nil {
		b.panel()
	} else {
		b.interactions()
	}
	if len(b.faults.List) == 0 {
		b.unusedJoins()
	}
	if err := b.faults.err(); err != nil {
		return nil, err
	}
	slices.Sort(b.rows.used)
	b.rows.used = slices.Compact(b.rows.used)
	if s.panel != nil {
		b.pan.rowPlan = b.rows
		p.panel = &b.pan
	} else {
		b.inter.rowPlan = b.rows
		p.inter = &b.inter
	}
	for _, name := range s.Tables() {
		p.tables = append(p.tables, tables.byName[name].sum)
	}
	return p, nil
}

// shapeBinder makes a Plan of a panel or of interactions.
type shapeBinder struct {
	binder
	tables  *Tables
	rows    rowPlan
	binding []int           // joins that are being bound
	taken   map[string]bool // columns of joins that are used
	pan     panelPlan
	inter   interPlan
}

// column finds a column of the extended input and marks what is read for it.
func (b *shapeBinder) column(what string, name text, types ...datasets.Type) (int, bool) {
	in := b.p.in
	b.p.in = b.rows.ext
	c, ok := b.find(what, name, types...)
	b.p.in = in
	if !ok {
		return -1, false
	}
	if c < len(in.Fields) {
		b.rows.used = append(b.rows.used, c)
	} else {
		b.taken[name.s] = true
	}
	return c, true
}

// rowColumns binds the columns that every log has or may have.
func (b *shapeBinder) rowColumns() {
	b.taken = map[string]bool{}
	p := b.p
	if c, ok := b.column("transactions", text{s: datasets.TransDatetime}, datasets.Time); ok {
		p.time = c
	}
	optional := func(name string, t datasets.Type) int {
		if p.in.Index(name) < 0 {
			return -1
		}
		c, _ := b.column("transactions", text{s: name}, t)
		return c
	}
	p.event = optional(datasets.Event, datasets.String)
	if p.part = optional(Partition, datasets.Int64); p.part >= 0 {
		p.seq = optional(datasets.Seq, datasets.Int64)
	}
}

// rowJoins binds the joins on columns of the rows and adds their columns to the input's. Joins that need a date are
// for covariates, which bind them.
func (b *shapeBinder) rowJoins() {
	for i := range b.p.spec.joins {
		d := &b.p.spec.joins[i]
		if b.tables == nil || b.tables.byName[d.table.s] == nil {
			b.faults.add(d.table.pos, "join: the table %s is not there: it is %s beside the data set", d.table.s,
				tableFile(d.table.s))
			continue
		}
		if !d.ofSteps() {
			b.rowJoin(d)
		}
	}
}

func (b *shapeBinder) rowJoin(d *joinDef) {
	j := rowJoin{def: d, rows: b.tables.byName[d.table.s].rows}
	var key []int
	ok := true
	for i, name := range d.on {
		at, there := b.tableField(d, d.keyNames()[i])
		c, found := b.column("join "+d.table.s, name, datasets.Int64, datasets.String)
		if ok = ok && there && found; !ok {
			continue
		}
		ok = b.sameType(d, name, b.rows.ext.Fields[c].Type, at)
		key, j.on = append(key, at), append(j.on, c)
	}
	var add []datasets.Field
	for _, name := range d.take {
		at, there := b.tableField(d, name)
		if ok = ok && there; !ok {
			continue
		}
		f := j.rows.Schema.Fields[at]
		f.Name, f.Nullable = d.prefix+f.Name, true
		if b.rows.ext.Index(f.Name) >= 0 {
			b.faults.add(d.pos, "join %s: the column %s is there already: give the join a prefix", d.table.s, f.Name)
			ok = false
		}
		j.take, add = append(j.take, at), append(add, f)
	}
	if !ok {
		return
	}
	if err := j.build(key); err != nil {
		b.faults.add(d.pos, "join: %v", err)
		return
	}
	b.rows.ext.Fields = append(b.rows.ext.Fields, add...)
	b.rows.joins = append(b.rows.joins, j)
}

// tableField finds a column of a join's table.
func (b *shapeBinder) tableField(d *joinDef, name text) (int, bool) {
	s := b.tables.byName[d.table.s].rows.Schema
	c := s.Index(name.s)
	if c < 0 {
		var names []string
		for _, f := range s.Fields {
			names = append(names, f.Name)
		}
		b.faults.add(name.pos, "join %s: the table has no column %q%s", d.table.s, name.s, suggest(name.s, names))
	}
	return c, c >= 0
}

func (b *shapeBinder) sameType(d *joinDef, name text, t datasets.Type, at int) bool {
	got := b.tables.byName[d.table.s].rows.Schema.Fields[at].Type
	if got != t {
		b.faults.add(name.pos, "join %s: %s is of type %s in the data and %s in the table", d.table.s, name.s, t, got)
	}
	return got == t
}

// dayField finds a column of dates.
func (b *shapeBinder) dayField(d *joinDef, name text) (int, bool) {
	at, ok := b.tableField(d, name)
	if !ok {
		return at, false
	}
	f := b.tables.byName[d.table.s].rows.Schema.Fields[at]
	if f.Type != datasets.Time && f.Type != datasets.String {
		b.faults.add(name.pos, "join %s: column %s is of type %s; a date is a time or text such as 2026-01-31", d.table.s,
			f.Name, f.Type)
		return at, false
	}
	return at, true
}

// dimJoin binds the i-th join to series and dates, once, and returns its place among the panel's.
func (b *shapeBinder) dimJoin(i int) (int, bool) {
	d := &b.p.spec.joins[i]
	if at := slices.IndexFunc(b.pan.dims, func(j dimJoin) bool { return j.def == d }); at >= 0 {
		return at, true
	}
	if slices.Contains(b.binding, i) {
		b.faults.add(d.pos, "join %s: it is joined on what itself gives", d.table.s)
		return -1, false
	}
	b.binding = append(b.binding, i)
	defer func() { b.binding = b.binding[:len(b.binding)-1] }()
	j := dimJoin{def: d, rows: b.tables.byName[d.table.s].rows, dated: true}
	from, to, ok := -1, -1, true
	var key []int
	for k, name := range d.on {
		if name.s == joinDate {
			from, ok = b.dayField(d, d.keyNames()[k])
			to = from
		} else {
			part, at, found := b.dimPart(d, name, d.keyNames()[k])
			ok = found
			j.parts, key, j.dated = append(j.parts, part), append(key, at), false
		}
		if !ok {
			return -1, false
		}
	}
	switch {
	case d.since.s != "":
		from, ok = b.dayField(d, d.since)
		j.dated = false
	case d.between != nil:
		var also bool
		from, ok = b.dayField(d, d.between[0])
		to, also = b.dayField(d, d.between[1])
		ok, j.dated = ok && also, false
	}
	if !ok {
		return -1, false
	}
	if err := j.build(key, from, to); err != nil {
		b.faults.add(d.pos, "join: %v", err)
		return -1, false
	}
	b.pan.dims = append(b.pan.dims, j)
	return len(b.pan.dims) - 1, true
}

// dimPart finds what a join of series is on: a key of the panel, or a column that another join takes.
func (b *shapeBinder) dimPart(d *joinDef, name, field text) (p dimPart, at int, ok bool) {
	if at, ok = b.tableField(d, field); !ok {
		return p, at, false
	}
	if k := slices.IndexFunc(b.pan.keys, func(k keyColumn) bool { return k.name == name.s }); k >= 0 {
		p = dimPart{key: k, via: -1, kind: b.rows.ext.Fields[b.pan.keys[k].col].Type}
		return p, at, b.sameType(d, name, p.kind, at)
	}
	other, take := b.taker(name)
	if other < 0 || b.p.spec.joins[other].ofSteps() {
		b.faults.add(name.pos, "join %s: %s is neither date, nor one of the panel's keys, nor taken by a join on them",
			d.table.s, name.s)
		return p, at, false
	}
	via, ok := b.dimJoin(other)
	if !ok {
		return p, at, false
	}
	b.taken[name.s] = true
	p = dimPart{key: -1, via: via, take: take, kind: b.pan.dims[via].rows.Schema.Fields[take].Type}
	return p, at, b.sameType(d, name, p.kind, at)
}

// taker finds the join that takes a column, and the column in its table.
func (b *shapeBinder) taker(name text) (i, take int) {
	for i := range b.p.spec.joins {
		d := &b.p.spec.joins[i]
		for _, t := range d.take {
			if d.prefix+t.s == name.s && b.tables != nil && b.tables.byName[d.table.s] != nil {
				if take := b.tables.byName[d.table.s].rows.Schema.Index(t.s); take >= 0 {
					return i, take
				}
			}
		}
	}
	return -1, -1
}

// unusedJoins finds what a spec asks for and never uses: most likely it is misspelt.
func (b *shapeBinder) unusedJoins() {
	for i := range b.p.spec.joins {
		d := &b.p.spec.joins[i]
		for _, t := range d.take {
			if !b.taken[d.prefix+t.s] {
				b.faults.add(t.pos, "join %s: %s is taken and used nowhere", d.table.s, d.prefix+t.s)
			}
		}
	}
}

func (b *shapeBinder) wheres() {
	for i := range b.p.spec.where {
		w := &b.p.spec.where[i]
		c, ok := b.column("where", w.column)
		if !ok {
			continue
		}
		x := condition{whereDef: *w, col: c, field: b.rows.ext.Fields[c]}
		set := func(list []text) map[string]bool {
			if list == nil {
				return nil
			}
			m := map[string]bool{}
			for _, t := range list {
				m[t.s] = true
			}
			return m
		}
		x.in, x.notIn = set(w.in), set(w.notIn)
		number := x.field.Type == datasets.Int64 || x.field.Type == datasets.Decimal || x.field.Type == datasets.Float64
		switch {
		case (w.above != nil || w.below != nil) && !number:
			b.faults.add(w.column.pos, "where: above and below are for numbers; column %s is of type %s", w.column.s,
				x.field.Type)
		case w.matches != nil && x.field.Type != datasets.String:
			b.faults.add(w.column.pos, "where: matches is for text; column %s is of type %s", w.column.s, x.field.Type)
		case (x.in != nil || x.notIn != nil) && x.field.Type != datasets.String && x.field.Type != datasets.Int64:
			b.faults.add(w.column.pos, "where: in and not_in are for text and whole numbers; column %s is of type %s",
				w.column.s, x.field.Type)
		}
		b.rows.where = append(b.rows.where, x)
	}
}

// returnsOf binds what a return is.
func (b *shapeBinder) returnsOf(d *returnsDef) {
	if d == nil {
		return
	}
	b.rows.returns = true
	if d.flag.s != "" {
		if c, ok := b.column("returns: flag", d.flag, datasets.Int64); ok {
			b.rows.flag = c
		}
	}
	for _, u := range d.undo {
		if c, ok := b.column("returns: undo", u, datasets.Int64, datasets.String); ok {
			b.rows.undo = append(b.rows.undo, b.tag(c))
		}
	}
	b.rows.matches = d.undo != nil
}

// tag is the place of a column among those whose values are compared.
func (b *shapeBinder) tag(c int) int {
	i := slices.Index(b.rows.tags, c)
	if i < 0 {
		i = len(b.rows.tags)
		b.rows.tags = append(b.rows.tags, c)
	}
	return i
}

// val is the place of a column among those that are summed.
func (b *shapeBinder) val(c int) int {
	i := slices.IndexFunc(b.rows.vals, func(v valueColumn) bool { return v.col == c })
	if i < 0 {
		i = len(b.rows.vals)
		f := b.rows.ext.Fields[c]
		b.rows.vals = append(b.rows.vals, valueColumn{f.Name, c, math.Pow10(f.Scale)})
	}
	return i
}

// maxValues bounds the columns that are summed: a record has one bit each for values that are missing.
const maxValues = 64

func (b *shapeBinder) measure(what string, d *measureDef) (m measure, ok bool) {
	m = measure{kind: d.kind.s, rows: d.rows, val: -1, tag: -1}
	switch d.kind.s {
	case aggCount:
		return m, true
	case aggDistinct:
		c, ok := b.column(what, d.of, datasets.Int64, datasets.String)
		if ok {
			m.tag = b.tag(c)
		}
		return m, ok
	}
	c, ok := b.column(what, d.of, datasets.Int64, datasets.Decimal, datasets.Float64)
	if !ok {
		return m, false
	}
	f := b.rows.ext.Fields[c]
	m.val, m.scale, m.float = b.val(c), f.Scale, f.Type == datasets.Float64
	if len(b.rows.vals) > maxValues {
		b.faults.add(d.name.pos, "%s: a panel sums at most %d columns", what, maxValues)
		return m, false
	}
	return m, true
}

// fieldOf is a measure's definition for fingerprints.
type shapeNode struct {
	Kind     string
	Of       string         `json:",omitempty"`
	Field    datasets.Field // of the data
	Rows     rowClass       `json:",omitempty"`
	Lag      int            `json:",omitempty"`
	Fill     bool           `json:",omitempty"`
	Join     string         `json:",omitempty"`
	On       []string       `json:",omitempty"`
	Series   any            `json:",omitempty"` // what all columns share
	Calendar string         `json:",omitempty"`
	Log      bool           `json:",omitempty"`
}

func (b *shapeBinder) shapeNode(name string, d shapeNode) {
	def, err := json.Marshal(d)
	if err != nil {
		panic(fmt.Sprint("features: definition of a node: ", err))
	}
	b.p.nodes = append(b.p.nodes, Node{name, digest(append([]byte("onmart shape 1\n"), def...))})
}

// whereKey is the conditions in a form that fingerprints cover.
func (b *shapeBinder) whereKey() []any {
	var list []any
	for _, w := range b.rows.where {
		pattern := ""
		if w.matches != nil {
			pattern = w.matches.String()
		}
		list = append(list, []any{w.field, pattern, plain(w.whereDef.in), plain(w.whereDef.notIn), w.above, w.below,
			w.present})
	}
	for _, j := range b.rows.joins {
		list = append(list, []any{j.def.table.s, plain(j.def.on), plain(j.def.keyNames()), plain(j.def.take), j.def.prefix})
	}
	return list
}

func (b *shapeBinder) returnsKey(d *returnsDef) any {
	if d == nil {
		return nil
	}
	return []any{d.flag.s, plain(d.undo)}
}

func (b *shapeBinder) panel() {
	d, p := b.p.spec.panel, b.p
	grid, err := NewGrid(d.step, p.location)
	if err != nil {
		b.faults.add(d.pos, "panel: %v", err)
		return
	}
	b.pan.grid, b.pan.seasons, b.pan.fill = *grid, d.seasons, d.fillLast
	for _, k := range d.keys {
		if c, ok := b.column("panel: keys", k, datasets.Int64, datasets.String); ok {
			b.pan.keys = append(b.pan.keys, keyColumn{k.s, c, b.rows.ext.Fields[c].Type == datasets.String})
		}
	}
	b.returnsOf(d.returns)
	shared := []any{d.step, p.spec.timezone, plain(d.keys), p.lateness, b.whereKey(), b.returnsKey(d.returns)}
	out := []datasets.Field{{Name: ColumnSeries, Type: datasets.String}}
	for _, k := range b.pan.keys {
		f := b.rows.ext.Fields[k.col]
		f.Nullable = false
		out = append(out, f)
	}
	out = append(out, datasets.Field{Name: ColumnStep, Type: datasets.Time})
	b.measures(d, shared)
	for i := range d.covariates {
		b.covariate(&d.covariates[i], shared)
	}
	for _, c := range b.pan.columns {
		out = append(out, datasets.Field{Name: c.Name, Type: datasets.Float64})
	}
	p.out = &datasets.Schema{Fields: out}
}

// measures binds demand and the measures. What demand is a sum of is what sales and returns are counted in.
func (b *shapeBinder) measures(d *panelDef, shared []any) {
	node := func(m *measureDef, fill bool) {
		n := shapeNode{Kind: m.kind.s, Of: m.of.s, Rows: m.rows, Fill: fill, Series: shared}
		if m.of.s != "" {
			if c := b.rows.ext.Index(m.of.s); c >= 0 {
				n.Field = b.rows.ext.Fields[c]
			}
		}
		b.shapeNode(m.name.s, n)
	}
	demand, ok := b.measure("demand", &d.demand)
	b.pan.demand = demand
	if ok && demand.val >= 0 {
		b.rows.target = demand.val
	}
	if d.returns != nil && (demand.val < 0 || demand.kind != aggSum || demand.float) {
		b.faults.add(d.demand.name.pos, "demand: with returns it is the sum of an int64 or decimal column, such as quantity")
	}
	b.pan.columns = append(b.pan.columns, PanelColumn{Name: ColumnDemand, Role: RoleTarget, Kind: demand.kind,
		Of: d.demand.of.s, Words: d.demand.words, Unit: d.demand.unit})
	node(&d.demand, d.fillLast)
	for i := range d.measures {
		m := &d.measures[i]
		bound, ok := b.measure("measure "+m.name.s, m)
		if !ok {
			continue
		}
		b.pan.meas = append(b.pan.meas, bound)
		b.pan.columns = append(b.pan.columns, PanelColumn{Name: m.name.s, Role: RoleMeasure, Kind: m.kind.s, Of: m.of.s,
			Words: m.words, Unit: m.unit})
		node(m, false)
	}
}

func (b *shapeBinder) covariate(d *covariateDef, shared []any) {
	what := "covariate " + d.name.s
	role := RolePast
	if d.known {
		role = RoleKnown
	}
	c := covariate{known: d.known, carry: -1, join: -1, take: -1, source: -1, of: d.of.s}
	n := shapeNode{Kind: d.kind.s, Of: d.of.s, Rows: d.rows, Series: shared}
	switch d.kind.s {
	case covCalendar:
		c.measure.kind, c.calendar = covCalendar, d.of.s
		n.Rows = ""
	case covTable, covFlag:
		var ok bool
		if c.join, c.take, ok = b.tableColumn(what, d.of); !ok {
			return
		}
		j := &b.pan.dims[c.join]
		c.measure.kind, n.Rows, n.Join = d.kind.s, "", j.def.table.s
		n.On = append(plain(j.def.on), append(append(plain(j.def.keyNames()), j.def.since.s), plain(j.def.between)...)...)
		n.Field = j.rows.Schema.Fields[c.take]
		if d.kind.s == covTable && (n.Field.Type == datasets.String || n.Field.Type == datasets.Time) {
			b.faults.add(d.of.pos,
				"%s: column %s of the table %s is of type %s; a covariate of kind table is a number, one of kind flag tells whether there is a value",
				what, n.Field.Name, n.Join, n.Field.Type)
			return
		}
	case covLag:
		source := -1
		for i, col := range b.pan.columns {
			if col.Name == d.of.s && (col.Role == RoleTarget || col.Role == RoleMeasure) {
				source = i
			}
		}
		if source < 0 {
			b.faults.add(d.of.pos, "%s: of: %q is neither demand nor a measure", what, d.of.s)
			return
		}
		if c.source = slices.Index(b.pan.lagOf, source); c.source < 0 {
			c.source = len(b.pan.lagOf)
			b.pan.lagOf = append(b.pan.lagOf, source)
		}
		c.measure.kind = covLag
		for i, name := range d.expand() {
			c.lag, n.Lag = d.lags[i], d.lags[i]
			b.pan.lagMax = max(b.pan.lagMax, c.lag)
			b.pan.covs = append(b.pan.covs, c)
			b.pan.columns = append(b.pan.columns, PanelColumn{Name: name, Role: RolePast, Kind: covLag, Of: d.of.s, Lag: c.lag,
				Words: d.words, Unit: d.unit})
			b.shapeNode(name, n)
		}
		return
	default:
		m, ok := b.measure(what, &d.measureDef)
		if !ok {
			return
		}
		c.measure = m
		n.Field = b.rows.ext.Fields[b.rows.vals[m.val].col]
		if d.kind.s != aggMax {
			c.carry = b.pan.carried
			b.pan.carried++
		}
	}
	b.pan.covs = append(b.pan.covs, c)
	b.pan.columns = append(b.pan.columns, PanelColumn{Name: d.name.s, Role: role, Kind: d.kind.s, Of: d.of.s,
		Words: d.words, Unit: d.unit})
	b.shapeNode(d.name.s, n)
}

// tableColumn finds the join that takes a column.
func (b *shapeBinder) tableColumn(what string, of text) (at, take int, ok bool) {
	i, take := b.taker(of)
	if i < 0 {
		var names []string
		for _, d := range b.p.spec.joins {
			for _, t := range d.take {
				names = append(names, d.prefix+t.s)
			}
		}
		b.faults.add(of.pos, "%s: of: no join takes a column %q%s", what, of.s, suggest(of.s, names))
		return -1, -1, false
	}
	if at, ok = b.dimJoin(i); ok {
		b.taken[of.s] = true
	}
	return at, take, ok
}
