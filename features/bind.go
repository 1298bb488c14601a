package features

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/derive"
)

// Plan binds the spec to input columns. The error is a *Faults naming every column that is missing or of the
// wrong type, with its place in the YAML. The label column may be missing: then no event carries a label. A spec
// that joins dimension tables needs them, from OpenTables.
func (s *Spec) Plan(in *datasets.Schema, tables ...*Tables) (*Plan, error) {
	var t *Tables
	if len(tables) > 0 {
		t = tables[0]
	}
	if s.Shape() != Events {
		return s.planShape(in, t)
	}
	p := &Plan{spec: s, in: in, lateness: s.lateness}
	b := &eventBinder{shapeBinder: shapeBinder{binder: binder{p: p, faults: Faults{Name: s.file}}, tables: t}}
	b.taken, b.digests = map[string]bool{}, map[int]string{}
	b.rows.ext = &datasets.Schema{Fields: slices.Clone(in.Fields)}
	b.fixed()
	b.keep()
	b.plainJoins()
	b.rowFeatures()
	b.bind()
	if err := b.faults.err(); err != nil {
		return nil, err
	}
	p.row = b.rows
	b.finish()
	return p, nil
}

// binder is what the plans of all shapes need.
type binder struct {
	p      *Plan
	faults Faults
}

func (b *binder) names() []string {
	var list []string
	for _, f := range b.p.in.Fields {
		list = append(list, f.Name)
	}
	return list
}

// find looks a column up that the spec names; it must be of one of the types.
func (b *binder) find(what string, name text, types ...datasets.Type) (int, bool) {
	i := b.p.in.Index(name.s)
	if i < 0 {
		b.faults.add(name.pos, "%s: the data has no column %q%s", what, name.s, suggest(name.s, b.names()))
		return 0, false
	}
	return i, b.typed(what, name, b.p.in.Fields[i].Type, types)
}

func (b *binder) typed(what string, name text, t datasets.Type, types []datasets.Type) bool {
	ok := len(types) == 0 || slices.Contains(types, t)
	if !ok {
		b.faults.add(name.pos, "%s: column %s is of type %s; want %s", what, name.s, t, oneOf(types))
	}
	return ok
}

func oneOf(types []datasets.Type) string {
	s := ""
	for i, t := range types {
		if i > 0 {
			s += " or "
		}
		s += t.String()
	}
	return s
}

// eventBinder makes a Plan of features of transactions.
type eventBinder struct {
	shapeBinder
	columns map[string]int // by name: of Plan.fields
	defs    map[string]int // by name of a row feature's column: the feature that gives it
	digests map[int]string // of the definitions of row features that others are made of
	wheres  map[string]int // by expression: its column
	lastDef []int          // features that are computed last
	broken  bool           // row features have faults: there are none, and nothing more is said of what reads them
}

// fixed binds the columns that every log has or may have.
func (b *eventBinder) fixed() {
	p := b.p
	p.id, _ = b.find("transactions", text{s: datasets.TransID}, datasets.Int64, datasets.String)
	p.time, _ = b.find("transactions", text{s: datasets.TransDatetime}, datasets.Time)
	p.needed = []int{p.id, p.time}
	p.idText = len(p.in.Fields) > 0 && p.in.Fields[p.id].Type == datasets.String
	optional := func(name string, t datasets.Type) int {
		if p.in.Index(name) < 0 {
			return -1
		}
		i, _ := b.find("transactions", text{s: name}, t)
		return i
	}
	p.line = optional(datasets.Line, datasets.Int64)
	p.event = optional(datasets.Event, datasets.String)
	p.knownAt = optional(datasets.KnownAt, datasets.Time)
	p.seq = optional(datasets.Seq, datasets.Int64)
	p.part = optional(Partition, datasets.Int64)
	p.label = -1
	if l := p.spec.label; l != nil {
		p.hasLabel, p.delay, p.acceptFor = true, l.delay, l.acceptFor
		if p.in.Index(l.column.s) >= 0 {
			p.label, _ = b.find("label", l.column, datasets.Int64)
		} else if near := suggest(l.column.s, b.names()); near != "" && !isCanonical(l.column.s) {
			b.faults.add(l.column.pos, "label: the data has no column %q%s", l.column.s, near)
		}
	}
	if p.event >= 0 && p.hasLabel && p.label >= 0 && p.knownAt < 0 {
		b.faults.add(position{}, "the log has label events but no column %s that says when they were known", datasets.KnownAt)
	}
	var err error
	if p.location, err = time.LoadLocation(p.spec.timezone); err != nil {
		b.faults.add(position{}, "timezone %s: %v", p.spec.timezone, err)
	}
}

// isCanonical tells a label column that this data happens not to have from one that is misspelt.
func isCanonical(name string) bool { return name == datasets.IsFraud }

// keep binds the columns that are handed on. Where the data has lines, trans_id alone does not name a row: line
// goes with it.
func (b *eventBinder) keep() {
	line := b.p.in.Index(datasets.Line)
	if slices.ContainsFunc(b.p.spec.keep, func(k text) bool { return k.s == datasets.Line }) {
		line = -1
	}
	for _, k := range b.p.spec.keep {
		if b.p.hasLabel && k.s == b.p.spec.label.column.s && b.p.label < 0 {
			continue
		}
		if c, ok := b.find("keep", k); ok {
			b.p.kept = append(b.p.kept, c)
		}
		if k.s == datasets.TransID && line >= 0 {
			b.p.kept = append(b.p.kept, line)
		}
	}
}

func (b *eventBinder) plainJoins() {
	for i := range b.p.spec.joins {
		if d := &b.p.spec.joins[i]; d.ofSteps() {
			b.faults.add(d.pos, "join %s: features of transactions join on columns of the rows: without date, since and between",
				d.table.s)
			return
		}
	}
	b.rowJoins()
}

// rowFeatures compiles the row features and filters, which gives the plan its columns.
func (b *eventBinder) rowFeatures() {
	p := b.p
	var defs []derive.Def
	var from []int // by def: the feature, or for a filter -1-feature
	b.wheres = map[string]int{}
	b.defs = map[string]int{}
	wheres := map[string]int{} // by expression: its def
	for i := range p.spec.features {
		f := &p.spec.features[i]
		if !f.kind.windowed() && !f.last {
			defs, from = append(defs, f.derived()), append(from, i)
			for _, name := range f.columns() {
				b.defs[name] = i
			}
		}
	}
	for i := range p.spec.features {
		f := &p.spec.features[i]
		if f.where.s == "" {
			continue
		}
		if _, there := wheres[f.where.s]; !there {
			wheres[f.where.s] = len(defs)
			defs = append(defs, derive.Def{Name: "where " + f.where.s, Kind: "condition", Expr: f.where.s, Scale: -1})
			from = append(from, -1-i)
		}
	}
	p.fields = slices.Clone(b.rows.ext.Fields)
	if len(defs) > 0 {
		program, faults := derive.Compile(defs, p.fields, b.options())
		for _, x := range faults {
			b.deriveFault(x, from[x.Def])
		}
		if b.broken = len(faults) > 0; !b.broken {
			p.derived = program
			p.fields = append(p.fields, program.Fields()...)
		}
	}
	b.columns = map[string]int{}
	for i, f := range p.fields {
		b.columns[f.Name] = i
	}
	if b.broken {
		return
	}
	for expr, def := range wheres {
		c := b.columns[defs[def].Name]
		b.wheres[expr] = c
		if f := p.fields[c]; f.Type != datasets.Int64 {
			x := &p.spec.features[-1-from[def]]
			b.faults.add(x.where.pos, "feature %s: where: %s is a number, not a condition", x.name.s, expr)
		}
	}
	b.markReads()
}

func (b *eventBinder) options() derive.Options {
	return derive.Options{Zone: b.p.location, Holidays: plain(b.p.spec.holidays), Time: datasets.TransDatetime}
}

// markReads notes the columns of the input and of joins that row features read.
func (b *eventBinder) markReads() {
	if b.p.derived == nil {
		return
	}
	for _, name := range b.p.derived.Inputs() {
		b.input(b.rows.ext.Index(name)) // not columns: a feature that is the column's value has its name there
	}
}

// input notes that a column is read.
func (b *eventBinder) input(c int) {
	switch {
	case c < len(b.p.in.Fields):
		b.rows.used = append(b.rows.used, c)
	case c < len(b.rows.ext.Fields):
		b.taken[b.p.fields[c].Name] = true
	}
}

// derived is the feature as a row column.
func (f *featureDef) derived() derive.Def {
	return derive.Def{
		Name: f.name.s, Kind: string(f.kind), Of: f.of.s, Expr: f.expr.s, Edges: f.edges, Min: f.min, Max: f.max,
		Buckets: f.buckets, Values: plain(f.values), Null: f.null, Empty: f.empty, Scale: f.scale,
	}
}

// deriveFault gives a fault of a row feature its place.
func (b *eventBinder) deriveFault(x derive.Fault, from int) {
	if from < 0 {
		f := &b.p.spec.features[-1-from]
		b.faults.add(f.where.at(x.Offset), "feature %s: where: %s", f.name.s, x.Text)
		return
	}
	f := &b.p.spec.features[from]
	at := f.name.pos
	switch x.Field {
	case "of":
		at = f.of.pos
	case "expr":
		at = f.expr.at(x.Offset)
	}
	b.faults.add(at, "feature %s: %s", f.name.s, x.Text)
}

// resolve looks up a column of the row: of the input, of a join or of a row feature.
func (b *eventBinder) resolve(what string, name text, types ...datasets.Type) (int, bool) {
	c, ok := b.columns[name.s]
	if _, row := b.defs[name.s]; b.broken && row {
		return 0, false
	}
	if !ok {
		var names []string
		for _, f := range b.p.fields {
			names = append(names, f.Name)
		}
		b.faults.add(name.pos, "%s: the data has no column %q%s", what, name.s, suggest(name.s, names))
		return 0, false
	}
	b.input(c)
	return c, b.typed(what, name, b.p.fields[c].Type, types)
}

// need marks a column in which a transaction must have a value.
func (b *eventBinder) need(c int) {
	if !slices.Contains(b.p.needed, c) {
		b.p.needed = append(b.p.needed, c)
	}
}

func (b *eventBinder) bind() {
	for i := range b.p.spec.features {
		f := &b.p.spec.features[i]
		switch {
		case f.last:
			b.lastDef = append(b.lastDef, i)
			for _, name := range f.columns() {
				b.node(name, f)
			}
		case f.kind.windowed():
			b.windowed(f)
		default:
			b.rowFeature(f)
		}
	}
	if len(b.faults.List) == 0 {
		b.lastFeatures()
	}
}

// rowFeature makes a feature of the columns that derive computes. One that is a value as it is needs no copy.
func (b *eventBinder) rowFeature(f *featureDef) {
	if b.broken {
		return
	}
	for _, name := range f.columns() {
		c := b.columns[name]
		fd := b.p.fields[c]
		if f.hidden {
			continue
		}
		if fd.Nullable {
			b.need(c)
		}
		b.p.direct = append(b.p.direct, directFeature{
			dest: len(b.p.features), col: c, float: fd.Type == datasets.Float64, scale: math.Pow10(fd.Scale),
		})
		b.node(name, f)
	}
}

// lastFeatures compiles the features of features.
func (b *eventBinder) lastFeatures() {
	if len(b.lastDef) == 0 {
		return
	}
	p := b.p
	fields := slices.Clone(p.fields)
	at := map[string]int{}
	for i, f := range p.features {
		if _, row := b.columns[f.Name]; !row {
			at[f.Name] = i
			fields = append(fields, datasets.Field{Name: f.Name, Type: datasets.Float64})
		}
	}
	var defs []derive.Def
	own := map[string]bool{}
	for _, i := range b.lastDef {
		f := &p.spec.features[i]
		defs = append(defs, f.derived())
		for _, name := range f.columns() {
			own[name] = true
		}
	}
	fields = slices.DeleteFunc(fields, func(f datasets.Field) bool { return own[f.Name] })
	probe, faults := derive.Compile(defs, fields, b.options())
	for _, x := range faults {
		b.deriveFault(x, b.lastDef[x.Def])
	}
	if len(faults) > 0 {
		return
	}
	var narrow []datasets.Field
	for _, name := range probe.Inputs() {
		in := lastInput{col: none, feature: none}
		if c, row := b.columns[name]; row {
			in.col = c
			b.input(c)
			narrow = append(narrow, p.fields[c])
			if p.fields[c].Nullable && c < len(b.rows.ext.Fields) {
				narrow[len(narrow)-1].Nullable = true
			}
		} else {
			in.feature = at[name]
			narrow = append(narrow, datasets.Field{Name: name, Type: datasets.Float64})
		}
		p.lastIn = append(p.lastIn, in)
	}
	program, faults := derive.Compile(defs, narrow, b.options())
	if len(faults) > 0 {
		panic("features: " + faults[0].Text)
	}
	p.last = program
	for i, f := range program.Fields() {
		dest := slices.IndexFunc(p.features, func(x Feature) bool { return x.Name == f.Name })
		if dest < 0 {
			continue // hidden
		}
		p.lastOut = append(p.lastOut, lastOutput{dest: dest, col: len(narrow) + i, float: f.Type == datasets.Float64, scale: math.Pow10(f.Scale)})
	}
}

// key finds or makes the keyPlan of columns.
func (b *eventBinder) key(what string, names []text) (int, bool) {
	k, all := none, true
	for _, name := range names {
		c, ok := b.resolve(what+": key", name, datasets.Int64, datasets.String)
		if !ok {
			all = false
			continue
		}
		one := b.keyPlan(keyPlan{name: name.s, col: c, text: b.p.fields[c].Type == datasets.String, left: none, right: none})
		if k == none {
			k = one
		} else {
			k = b.keyPlan(keyPlan{name: b.p.keys[k].name + "|" + name.s, col: none, left: k, right: one})
		}
	}
	return k, all && k != none
}

func (b *eventBinder) keyPlan(k keyPlan) int {
	i := slices.Index(b.p.keys, k)
	if i < 0 {
		i = len(b.p.keys)
		b.p.keys = append(b.p.keys, k)
	}
	return i
}

func (b *eventBinder) value(c int, form valueForm) int {
	v := valuePlan{col: c, form: form, scale: math.Pow10(b.p.fields[c].Scale)}
	i := slices.Index(b.p.vals, v)
	if i < 0 {
		i = len(b.p.vals)
		b.p.vals = append(b.p.vals, v)
	}
	return i
}

func (p *Plan) shift(f *featureDef) int64 {
	if f.shiftByDelay {
		return p.delay
	}
	return f.shift
}

// windowed binds one feature over entries.
func (b *eventBinder) windowed(f *featureDef) {
	what := "feature " + f.name.s
	key, ok := b.key(what, f.keys)
	filter := filterPlan{where: none}
	if f.where.s != "" {
		filter.where = b.wheres[f.where.s]
	}
	type use struct {
		c    int
		form valueForm
	}
	var uses []use
	column := func(name text, form valueForm, types ...datasets.Type) {
		c, found := b.resolve(what, name, types...)
		if !found {
			ok = false
			return
		}
		if form == number && b.p.fields[c].Type == datasets.Float64 {
			form = floating
		}
		uses = append(uses, use{c, form})
		switch {
		case f.skipNull: // where there are no nulls, too: a state is the same whichever input declares its columns nullable
			filter.present = append(filter.present, c)
		case b.p.fields[c].Nullable:
			b.need(c)
		}
	}
	switch f.kind {
	case Sum, Mean, Std, Ratio, ZScore, EWMA:
		column(f.of, number, datasets.Int64, datasets.Decimal)
	case Min, Max, Last:
		column(f.of, number, datasets.Int64, datasets.Decimal, datasets.Float64)
	case Distinct, Share:
		column(f.of, category, datasets.Int64, datasets.String)
	case Mode:
		column(f.of, category, datasets.Int64)
	case Distance, Speed:
		column(f.place[0], floating, datasets.Float64)
		column(f.place[1], floating, datasets.Float64)
	}
	if !ok {
		return
	}
	shift, label := b.p.shift(f), f.kind == Risk
	if label {
		shift = b.p.delay
	}
	win := &f.window
	if f.kind == EWMA {
		win = nil
	}
	g := b.group(key, b.filter(filter), shift, label, win)
	o := output{
		dest: len(b.p.features), kind: f.kind, win: none, col: none, lon: none, lat: none, tab: none, nth: max(1, f.nth),
		current: f.includeCurrent, scale: 1, rate: f.priorRate, weight: f.priorWeight, half: float64(f.halfLife),
	}
	if f.hidden {
		b.faults.add(f.name.pos, "%s: only features of the row can be hidden", what)
	}
	o.empty = f.emptyValue()
	if win != nil {
		o.win = b.window(g, *win)
	}
	switch f.kind {
	case Risk:
		o.col = g.column(labelValue)
		g.cols[o.col].sum = 1
	case Distance, Speed:
		o.lon, o.lat = g.column(b.value(uses[0].c, uses[0].form)), g.column(b.value(uses[1].c, uses[1].form))
		g.cols[o.lon].raw, g.cols[o.lat].raw = 1, 1
	default:
		if len(uses) == 1 {
			v := b.value(uses[0].c, uses[0].form)
			o.col, o.scale, o.float = g.column(v), b.p.vals[v].scale, uses[0].form == floating
			b.aggregate(g, &o)
		}
	}
	g.outs = append(g.outs, o)
	b.node(f.name.s, f)
}

// aggregate says what an entry must hold for a feature.
func (b *eventBinder) aggregate(g *group, o *output) {
	c := &g.cols[o.col]
	everForm := o.win >= 0 && g.wins[o.win].form == ever
	inRing := !everForm || g.shift > 0
	switch o.kind {
	case Sum, Mean, Ratio:
		c.sum = max(c.sum, btoi(inRing))
	case Std, ZScore:
		c.sum, c.sq = max(c.sum, btoi(inRing)), max(c.sq, btoi(inRing))
	case Last:
		c.raw = 1
	case Min, Max:
		c.raw = max(c.raw, btoi(inRing))
	case Distinct, Mode, Share:
		c.raw = max(c.raw, btoi(inRing))
		few := o.kind == Share && o.win >= 0 && g.wins[o.win].form == lastN && g.wins[o.win].n <= fewEntries
		if !everForm && !few {
			o.tab = slices.IndexFunc(g.tabs, func(t bagTable) bool { return t.win == o.win && t.col == o.col })
			if o.tab < 0 {
				o.tab = len(g.tabs)
				g.tabs = append(g.tabs, bagTable{win: o.win, col: o.col})
			}
		}
	}
}

func (b *eventBinder) filter(f filterPlan) int {
	if f.where < 0 && len(f.present) == 0 {
		return none
	}
	same := func(x filterPlan) bool { return x.where == f.where && slices.Equal(x.present, f.present) }
	i := slices.IndexFunc(b.p.filters, same)
	if i < 0 {
		i = len(b.p.filters)
		b.p.filters = append(b.p.filters, f)
	}
	return i
}

// group finds or makes the group of a key, filter and instant with room for a window. Features over transactions that
// are shifted by the delay and features over labels read one ring: what label events change stands beside it.
func (b *eventBinder) group(key, filter int, shift int64, label bool, w *windowDef) *group {
	for _, g := range b.p.groups {
		if g.key == key && g.filter == filter && g.shift == shift &&
			(w == nil || len(g.wins) < maxWindows || slices.Contains(g.wins, b.windowOf(*w))) {
			g.label = g.label || label
			return g
		}
	}
	g := &group{key: key, filter: filter, shift: shift, label: label}
	b.p.groups = append(b.p.groups, g)
	return g
}

// windowOf binds a window.
func (b *eventBinder) windowOf(d windowDef) window {
	w := window{form: d.form, span: d.span, n: d.n, unit: none}
	if d.form == calendarUnit {
		w.span = maxUnit(d.unit)
		if w.unit = slices.Index(b.p.units, d.unit); w.unit < 0 {
			w.unit = len(b.p.units)
			b.p.units = append(b.p.units, d.unit)
		}
	}
	return w
}

// window finds or makes a window of a group.
func (b *eventBinder) window(g *group, d windowDef) int {
	w := b.windowOf(d)
	i := slices.Index(g.wins, w)
	if i < 0 {
		i = len(g.wins)
		g.wins = append(g.wins, w)
	}
	return i
}

// column finds or makes the place of a value column.
func (g *group) column(val int) int {
	i := slices.IndexFunc(g.cols, func(c aggColumn) bool { return c.val == val })
	if i < 0 {
		i = len(g.cols)
		g.cols = append(g.cols, aggColumn{val: val})
	}
	return i
}

// emptyValue is what a feature is where there is nothing to compute it from.
func (f *featureDef) emptyValue() float64 {
	switch {
	case f.empty != nil:
		return *f.empty
	case (f.kind == SinceFirst || f.kind == SinceLast || f.kind == Gap) && f.window.form == sliding:
		return float64(f.window.span) / float64(datasets.Second)
	}
	return 0
}

// finish lays the plan out.
func (b *eventBinder) finish() {
	p := b.p
	longest := int64(0)
	for _, g := range p.groups {
		if l := (labelledKey{g.key, g.filter}); g.label {
			if g.changes = slices.Index(p.labelled, l); g.changes < 0 {
				g.changes = len(p.labelled)
				p.labelled = append(p.labelled, l)
			}
		}
		g.layout()
		longest = max(longest, g.labels)
	}
	p.horizon = max(longest+p.lateness, p.spec.duplicates)
	if p.hasLabel {
		// A label of exactly the last moment is applied whether or not another event of that moment came before it.
		p.retain = p.delay + p.acceptFor + 1
	}
	slices.Sort(p.row.used)
	p.row.used = slices.Compact(p.row.used)
	p.out = &datasets.Schema{}
	for _, c := range p.kept {
		f := p.in.Fields[c]
		f.Nullable = f.Nullable && !slices.Contains(p.needed, c)
		p.out.Fields = append(p.out.Fields, f)
	}
	for _, f := range p.features {
		p.out.Fields = append(p.out.Fields, datasets.Field{Name: f.Name, Type: datasets.Float64})
	}
	for _, name := range p.spec.Tables() {
		p.tables = append(p.tables, b.tables.byName[name].sum)
	}
}

// definition is what a node computes, for its fingerprint. Times in microseconds.
type definition struct {
	Kind      Kind
	Of        []string  `json:",omitempty"` // definitions of columns
	Keys      []string  `json:",omitempty"`
	Reads     []string  `json:",omitempty"`
	Window    string    `json:",omitempty"`
	Shift     int64     `json:",omitempty"`
	Where     string    `json:",omitempty"`
	Expr      string    `json:",omitempty"`
	Current   bool      `json:",omitempty"`
	SkipNull  bool      `json:",omitempty"`
	Nth       int       `json:",omitempty"`
	HalfLife  int64     `json:",omitempty"`
	Prior     []float64 `json:",omitempty"`
	Empty     *float64  `json:",omitempty"`
	Null      *float64  `json:",omitempty"`
	Edges     []float64 `json:",omitempty"`
	Min       *float64  `json:",omitempty"`
	Max       *float64  `json:",omitempty"`
	Buckets   int       `json:",omitempty"`
	Values    []string  `json:",omitempty"`
	Scale     *int      `json:",omitempty"`
	Holidays  []string  `json:",omitempty"`
	Timezone  string    `json:",omitempty"`
	Delay     int64     `json:",omitempty"`
	AcceptFor int64     `json:",omitempty"`
	Label     string    `json:",omitempty"`
	Lateness  int64     `json:",omitempty"`
	SkipLate  bool      `json:",omitempty"`
	Future    int64     `json:",omitempty"`
	Within    int64     `json:",omitempty"` // of duplicates
}

// node appends a feature and its fingerprint.
func (b *eventBinder) node(name string, f *featureDef) {
	def, err := json.Marshal(b.definition(b.index(f)))
	if err != nil {
		panic(fmt.Sprint("features: definition of a node: ", err))
	}
	unit, words := f.describe()
	b.p.features = append(b.p.features, Feature{Name: name, Kind: f.kind, Log: f.log, Words: words, Unit: unit})
	if len(f.columns()) > 1 {
		def = append(def, fmt.Sprintf("column %d\n", slices.Index(f.columns(), name))...)
	}
	b.p.nodes = append(b.p.nodes, Node{name, digest(append([]byte("onmart feature 2\n"), def...))})
}

// index is the place of a feature in the spec.
func (b *eventBinder) index(f *featureDef) int {
	return slices.IndexFunc(b.p.spec.features, func(x featureDef) bool { return x.name.s == f.name.s })
}

func (b *eventBinder) definition(i int) definition {
	s := b.p.spec
	f := &s.features[i]
	d := definition{
		Kind: f.kind, Where: f.where.s, Expr: f.expr.s, Current: f.includeCurrent, SkipNull: f.skipNull, Nth: f.nth,
		HalfLife: f.halfLife, Empty: f.empty, Null: f.null, Edges: f.edges, Min: f.min, Max: f.max, Buckets: f.buckets,
		Values: plain(f.values),
	}
	if f.scale >= 0 && !f.kind.windowed() {
		d.Scale = &f.scale
	}
	for _, name := range f.reads {
		d.Reads = append(d.Reads, b.columnDef(name.s, i))
	}
	if f.kind == Calendar || f.kind == Cyclic {
		d.Timezone, d.Holidays, d.Of = s.timezone, plain(s.holidays), []string{f.of.s}
		return d
	}
	for _, name := range []text{f.of, f.place[0], f.place[1]} {
		if name.s != "" {
			d.Of = append(d.Of, b.columnDef(name.s, i))
		}
	}
	if !f.kind.windowed() {
		return d
	}
	for _, name := range f.keys {
		d.Keys = append(d.Keys, b.columnDef(name.s, i))
	}
	w := f.window
	d.Window = fmt.Sprint(w.form, " ", w.span, " ", w.unit, " ", w.n)
	if w.form == calendarUnit {
		d.Timezone = s.timezone
	}
	d.Shift, d.Lateness, d.SkipLate, d.Future, d.Within = b.p.shift(f), s.lateness, s.late.skip, s.future, s.duplicates
	if f.kind == Risk {
		d.Label, d.Delay, d.AcceptFor = s.label.column.s, b.p.delay, b.p.acceptFor
		d.Prior = []float64{f.priorRate, f.priorWeight}
	}
	return d
}

// columnDef is what a column of the row is: of the input by name and type, of a join by its table, of a row feature by
// its definition, where it stands before the feature that reads it.
func (b *eventBinder) columnDef(name string, before int) string {
	if i, ok := b.defs[name]; ok && i < before {
		if _, there := b.digests[i]; !there { // features may share what they are made of, over many levels
			def, err := json.Marshal(b.definition(i))
			if err != nil {
				panic(fmt.Sprint("features: definition of a column: ", err))
			}
			b.digests[i] = digest(def)
		}
		return name + " " + b.digests[i]
	}
	if i := slices.IndexFunc(b.p.nodes, func(n Node) bool { return n.Name == name }); i >= 0 {
		return name + " " + b.p.nodes[i].Fingerprint
	}
	c, ok := b.columns[name]
	if !ok {
		return name
	}
	f := b.p.fields[c]
	return fmt.Sprint(f.Name, " ", f.Type, " ", f.Scale, " ", c >= len(b.p.in.Fields))
}
