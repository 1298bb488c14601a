package features

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/derive"
	"github.com/onmart/onmart/features/slab"
)

// Naive computes features of transactions straight from their definition: for each it goes through everything that
// stands before it in the log. It is what the engine is held to, and what a sample of its output is computed again
// with. It shares no state, no index and no arithmetic of windows with the engine. Of the package it uses the spec, the
// join of rows with tables and package derive for what is computed from a row alone.
//
// A row costs the earlier transactions of its keys, once a feature; the log is held in memory, as far as the spec reads
// it. A Naive is for one goroutine.
type Naive struct {
	// DetectDuplicates is the engine's: a transaction that is there already is a Duplicate also where the spec does not
	// say so. To be set before the first batch.
	DetectDuplicates bool

	spec   *Spec
	in     *datasets.Schema
	zone   *time.Location
	joins  rowReader
	row    *derive.Program  // features of the row, then the conditions of `where`
	final  *derive.Program  // features that read windowed ones; nil without them
	fields []datasets.Field // the input's, those joined, those of row; the label's has no name, so that nothing reads it
	feats  []naiveFeature
	needed []int // fields in which a transaction must have a value

	// Fields, -1 where absent.
	time, id, line, event, knownAt, seq, part, label int

	delay, acceptFor, horizon, retain int64

	log       []naiveRow
	cols      []datasets.Column // by field, the whole log; of those that are not held nothing
	held      []bool            // by field
	keys      []rowChain        // transactions by list of key columns
	ids       rowChain          // transactions and labels by trans_id
	buf       []byte
	watermark int64
	suspect   int64 // time of the future transaction that waits to be believed
	suspected bool
}

// naiveRow is an event of the log as far as all specs read it.
type naiveRow struct {
	t         int64 // event time; known-at of a label
	seq, line int64
	watermark int64 // greatest event time of the folded transactions up to this row, itself included
	part      int32
	y         int8 // label, none without one
	isLabel   bool
	held      bool // a transaction or label that counts for what comes after it
	status    Status
}

// naiveFeature is a feature and the fields that it reads, -1 where it reads none.
type naiveFeature struct {
	*featureDef
	of, where int
	place     [2]int
	keys      int   // of Naive.keys
	shift     int64 // from event time to K; not of a risk
	columns   []int // of a row feature: fields; of a final one: columns that the final program adds
}

// naiveEntry is a transaction's part in a window: the instant from which it counts, and its label.
type naiveEntry struct {
	k   int64
	row int
	y   int8
}

// rowChain links rows of equal keys, each to the one before it.
type rowChain struct {
	fields []int
	newest map[string]int32
	before []int32 // by row; none for a first one, and for rows without a key
}

// add enters the next row, which has the key (nil: none).
func (c *rowChain) add(key []byte) {
	last := int32(none)
	if key != nil {
		if at, ok := c.newest[string(key)]; ok {
			last = at
		}
		c.newest[string(key)] = int32(len(c.before))
	}
	c.before = append(c.before, last)
}

// NewNaive binds a spec of features of transactions to the columns of its input; tables are those that it joins.
func NewNaive(s *Spec, in *datasets.Schema, tables ...*Tables) (*Naive, error) {
	if s.Shape() != Events {
		return nil, fmt.Errorf("the spec %s is of %s: only features of transactions have a naive definition", s.name,
			s.Shape())
	}
	n := &Naive{spec: s, in: in, zone: s.Location(), watermark: beginning, ids: rowChain{newest: map[string]int32{}}}
	n.fields = slices.Clone(in.Fields)
	if err := n.bind(tables); err != nil {
		return nil, fmt.Errorf("feature spec %s: %w", s.name, err)
	}
	return n, nil
}

func (n *Naive) bind(tables []*Tables) error {
	if err := n.bindJoins(tables); err != nil {
		return err
	}
	n.label = none
	if l := n.spec.label; l != nil {
		n.delay, n.acceptFor = l.delay, l.acceptFor
		n.label = n.in.Index(l.column.s)
	}
	n.time, n.id = n.in.Index(datasets.TransDatetime), n.in.Index(datasets.TransID)
	n.line, n.event, n.knownAt = n.in.Index(datasets.Line), n.in.Index(datasets.Event), n.in.Index(datasets.KnownAt)
	n.seq, n.part = n.in.Index(datasets.Seq), n.in.Index(Partition)
	if n.time < 0 || n.id < 0 {
		return fmt.Errorf("the data has no column %s or no column %s", datasets.TransDatetime, datasets.TransID)
	}
	if n.label >= 0 {
		n.fields[n.label].Name = "" // nothing may read it
	}
	n.needed = []int{n.time, n.id}
	if err := n.bindRows(); err != nil {
		return err
	}
	return n.bindFeatures()
}

// bindJoins adds the columns of joined tables to the fields.
func (n *Naive) bindJoins(tables []*Tables) error {
	plan := &rowPlan{}
	for i := range n.spec.joins {
		d := &n.spec.joins[i]
		if len(tables) == 0 || tables[0] == nil || tables[0].byName[d.table.s] == nil {
			return fmt.Errorf("the table %s is not there", d.table.s)
		}
		j := rowJoin{def: d, rows: tables[0].byName[d.table.s].rows}
		var key []int
		for k, name := range d.on {
			c, at := n.field(name.s), j.rows.Schema.Index(d.keyNames()[k].s)
			if c < 0 || at < 0 {
				return fmt.Errorf("join %s: no column %s to join on", d.table.s, name.s)
			}
			j.on, key = append(j.on, c), append(key, at)
		}
		for _, name := range d.take {
			at := j.rows.Schema.Index(name.s)
			if at < 0 {
				return fmt.Errorf("join %s: the table has no column %s", d.table.s, name.s)
			}
			f := j.rows.Schema.Fields[at]
			f.Name, f.Nullable = d.prefix+f.Name, true
			j.take, n.fields = append(j.take, at), append(n.fields, f)
		}
		if err := j.build(key); err != nil {
			return err
		}
		plan.joins = append(plan.joins, j)
	}
	n.joins = newRowReader(nil, plan)
	return nil
}

// bindRows compiles what is computed from a row alone, and what is computed last.
func (n *Naive) bindRows() error {
	options := derive.Options{Zone: n.zone, Holidays: plain(n.spec.holidays), Time: datasets.TransDatetime}
	compile := func(defs []derive.Def, in []datasets.Field) (*derive.Program, error) {
		p, faults := derive.Compile(defs, in, options)
		for _, f := range faults {
			return nil, fmt.Errorf("%s: %s: %s", defs[f.Def].Name, f.Field, f.Text)
		}
		return p, nil
	}
	var row, final []derive.Def
	var windowed []datasets.Field
	for i := range n.spec.features {
		f := &n.spec.features[i]
		switch {
		case f.kind.windowed():
			windowed = append(windowed, datasets.Field{Name: f.name.s, Type: datasets.Float64})
		case f.last:
			final = append(final, f.derived())
		default:
			row = append(row, f.derived())
		}
	}
	for i := range n.spec.features {
		if f := &n.spec.features[i]; f.where.s != "" {
			row = append(row, derive.Def{Name: conditionName(i), Kind: "condition", Expr: f.where.s, Scale: none})
		}
	}
	var err error
	if n.row, err = compile(row, n.fields); err != nil {
		return err
	}
	n.fields = append(n.fields, n.row.Fields()...)
	if len(final) > 0 {
		n.final, err = compile(final, append(slices.Clone(n.fields), windowed...))
	}
	return err
}

// conditionName is the field of a feature's `where`: no name that an expression could have.
func conditionName(feature int) string { return fmt.Sprintf("where %d", feature) }

// bindFeatures finds the fields of the features, and how long events are held.
func (n *Naive) bindFeatures() error {
	n.held = make([]bool, len(n.fields))
	n.held[n.id] = true
	var missing []string
	find := func(name text) int {
		if name.s == "" {
			return none
		}
		c := n.field(name.s)
		if c < 0 {
			missing = append(missing, name.s)
			return none
		}
		n.held[c] = true
		return c
	}
	var longest int64
	base := len(n.fields) - len(n.row.Fields())
	rows, finals := 0, 0 // features of the row, and final ones
	for i := range n.spec.features {
		f := naiveFeature{featureDef: &n.spec.features[i], of: none, where: none, place: [2]int{none, none}}
		switch {
		case f.kind.windowed():
			f.of, f.place = find(f.featureDef.of), [2]int{find(f.featureDef.place[0]), find(f.featureDef.place[1])}
			if f.featureDef.where.s != "" {
				f.where = find(text{s: conditionName(i)})
			}
			var key []int
			for _, k := range f.featureDef.keys {
				key = append(key, find(k))
			}
			f.keys = n.chain(key)
			if f.shift = f.featureDef.shift; f.shiftByDelay {
				f.shift = n.delay
			}
			if f.kind == Risk {
				longest = max(longest, reach(&f.window))
			}
			for _, c := range []int{f.of, f.place[0], f.place[1]} {
				if c >= 0 && !f.skipNull {
					n.needed = append(n.needed, c)
				}
			}
		case f.last:
			f.columns = []int{finals} // an expression
			finals++
		default:
			from, to := n.row.Columns(rows)
			rows++
			for c := base + from; c < base+to; c++ {
				if f.columns = append(f.columns, c); !f.hidden {
					n.held[c] = true
					n.needed = append(n.needed, c)
				}
			}
		}
		n.feats = append(n.feats, f)
	}
	if len(missing) > 0 {
		return fmt.Errorf("the data has no column %s", strings.Join(missing, ", "))
	}
	if n.final != nil {
		for _, name := range n.final.Inputs() {
			if c := n.field(name); c >= 0 {
				n.held[c] = true
			}
		}
	}
	n.cols = make([]datasets.Column, len(n.fields))
	n.horizon = max(longest+n.spec.lateness, n.spec.duplicates)
	if n.spec.label != nil {
		n.retain = n.delay + n.acceptFor + 1
	}
	return nil
}

// field is the field of a name, or -1.
func (n *Naive) field(name string) int {
	return slices.IndexFunc(n.fields, func(f datasets.Field) bool { return f.Name == name && name != "" })
}

// chain finds or makes the chain of rows that agree in some fields.
func (n *Naive) chain(fields []int) int {
	i := slices.IndexFunc(n.keys, func(c rowChain) bool { return slices.Equal(c.fields, fields) })
	if i < 0 {
		i = len(n.keys)
		n.keys = append(n.keys, rowChain{fields: fields, newest: map[string]int32{}})
	}
	return i
}

// reach is the span that a window is remembered for, in microseconds: a sliding window's own; of a calendar one its
// longest unit, and an hour for a clock that is put back.
func reach(w *windowDef) int64 {
	switch {
	case w.form == sliding:
		return w.span
	case w.form != calendarUnit:
		return 0
	}
	return map[string]int64{"hour": datasets.Hour, "day": datasets.Day, "week": 7 * datasets.Day,
		"month": 31 * datasets.Day}[w.unit] + datasets.Hour
}

// Names are the columns of Row, in order.
func (n *Naive) Names() []string {
	var list []string
	for i := range n.feats {
		switch f := &n.feats[i]; {
		case f.hidden:
		case f.kind.windowed() || f.last:
			list = append(list, f.name.s)
		default:
			for _, c := range f.columns {
				list = append(list, n.fields[c].Name)
			}
		}
	}
	return list
}

// Log appends a batch to the log.
func (n *Naive) Log(b *datasets.Batch) error {
	if b.Schema != n.in && !slices.Equal(b.Schema.Fields, n.in.Fields) {
		return fmt.Errorf("the batch's columns are not those that the spec %s was bound to", n.spec.name)
	}
	n.joins.begin(b)
	cols := n.row.Run(slices.Clone(n.joins.cols), b.N)
	for c := range n.cols {
		if n.held[c] {
			hold(&n.cols[c], &cols[c], len(n.log), b.N)
		}
	}
	for i := range b.N {
		n.enter(cols, i)
	}
	return nil
}

// hold appends the n values of src to dst, which has `at`.
func hold(dst, src *datasets.Column, at, n int) {
	switch {
	case src.Strings != nil:
		for _, v := range src.Strings[:n] {
			dst.Strings = append(dst.Strings, strings.Clone(v)) // the batch's may be part of a large buffer
		}
	case src.Floats != nil:
		dst.Floats = append(dst.Floats, src.Floats[:n]...)
	default:
		dst.Ints = append(dst.Ints, src.Ints[:n]...)
	}
	if src.Null != nil && dst.Null == nil {
		dst.Null = make([]bool, at)
	}
	switch {
	case src.Null != nil:
		dst.Null = append(dst.Null, src.Null[:n]...)
	case dst.Null != nil:
		dst.Null = append(dst.Null, make([]bool, n)...)
	}
}

// enter decides what row i of a batch, the next of the log, is.
func (n *Naive) enter(cols []datasets.Column, i int) {
	r := naiveRow{seq: int64(len(n.log)), y: none, line: none}
	if n.seq >= 0 {
		r.seq = cols[n.seq].Ints[i]
	}
	if n.part >= 0 {
		r.part = int32(cols[n.part].Ints[i])
	}
	switch {
	case n.event < 0 || cols[n.event].Strings[i] == datasets.EventTransaction:
		r.status = n.transaction(cols, i, &r)
	case cols[n.event].Strings[i] == datasets.EventLabel:
		r.isLabel = true
		r.status = n.labelEvent(cols, i, &r)
	default:
		r.status = Invalid
	}
	r.watermark = n.watermark
	for k := range n.keys {
		var key []byte
		if r.held && !r.isLabel {
			key = n.keyOf(n.keys[k].fields, len(n.log))
		}
		n.keys[k].add(key)
	}
	var id []byte
	if r.held && (n.event >= 0 || n.spec.duplicates > 0 || n.DetectDuplicates) { // without any of them nobody asks
		id = n.keyOf([]int{n.id}, len(n.log))
	}
	n.ids.add(id)
	n.log = append(n.log, r)
}

// keyOf writes the values of some fields of row i so that no two lists of values are alike; nil where one is missing.
func (n *Naive) keyOf(fields []int, i int) []byte {
	n.buf = n.buf[:0]
	for _, c := range fields {
		col := &n.cols[c]
		switch {
		case col.IsNull(i):
			return nil
		case col.Strings != nil:
			n.buf = appendKey(n.buf, datasets.String, 0, col.Strings[i])
		default:
			n.buf = appendKey(n.buf, datasets.Int64, col.Ints[i], "")
		}
	}
	return n.buf
}

// identify reads line and label; ok is false where they or trans_id cannot be.
func (n *Naive) identify(cols []datasets.Column, i int, r *naiveRow) (ok bool) {
	if n.line >= 0 && !cols[n.line].IsNull(i) {
		if r.line = cols[n.line].Ints[i]; r.line < 0 {
			return false
		}
	}
	if n.label >= 0 && !cols[n.label].IsNull(i) {
		y := cols[n.label].Ints[i]
		if r.y = int8(y); y != 0 && y != 1 {
			return false
		}
	}
	return !cols[n.id].IsNull(i) && r.t <= maxTime && r.t >= -maxTime
}

func (n *Naive) transaction(cols []datasets.Column, i int, r *naiveRow) Status {
	for _, c := range n.needed {
		if cols[c].IsNull(i) {
			return Invalid
		}
	}
	r.t = cols[n.time].Ints[i]
	if !n.identify(cols, i, r) {
		return Invalid
	}
	r.line = max(r.line, 0)
	if n.isDuplicate(r) {
		return Duplicate
	}
	if n.isFuture(r.t) {
		return FutureEvent
	}
	status := Scored
	if n.watermark != beginning && r.t < n.watermark-n.spec.lateness {
		if status = Late; n.spec.late.skip {
			return LateSkipped
		}
	}
	r.held, n.suspected = true, false
	n.watermark = max(n.watermark, r.t)
	return status
}

// isDuplicate tells whether the transaction about to be entered was folded before, not longer ago than the spec says.
func (n *Naive) isDuplicate(r *naiveRow) bool {
	within := n.spec.duplicates
	if within == 0 && n.DetectDuplicates {
		within = n.retain + n.horizon
	}
	if within == 0 {
		return false
	}
	for j := n.sameID(len(n.log)); j >= 0; j = int(n.ids.before[j]) {
		if o := &n.log[j]; !o.isLabel && o.line == r.line && o.t > n.watermark-within {
			return true
		}
	}
	return false
}

// sameID is the newest row that is held and has the trans_id of row i.
func (n *Naive) sameID(i int) int {
	if at, ok := n.ids.newest[string(n.keyOf([]int{n.id}, i))]; ok {
		return int(at)
	}
	return none
}

// isFuture tells whether a transaction at t is to be set aside: too far ahead of the watermark, and not near one that
// was set aside since the last that was folded.
func (n *Naive) isFuture(t int64) bool {
	beyond := n.spec.future
	if beyond == 0 || n.watermark == beginning || t-n.watermark <= beyond {
		return false
	}
	if n.suspected && max(t-n.suspect, n.suspect-t) <= beyond {
		return false
	}
	n.suspect, n.suspected = t, true
	return true
}

func (n *Naive) labelEvent(cols []datasets.Column, i int, r *naiveRow) Status {
	if n.spec.label == nil {
		return LabelIgnored
	}
	if n.knownAt < 0 || cols[n.knownAt].IsNull(i) {
		return Invalid
	}
	r.t = cols[n.knownAt].Ints[i]
	if !n.identify(cols, i, r) || r.y == none {
		return Invalid
	}
	if n.forgotten(r.t+n.acceptFor, n.watermark) {
		return LabelExpired // whatever it could be of is forgotten
	}
	r.held = true
	status := LabelWaiting
	for j := n.sameID(len(n.log)); j >= 0; j = int(n.ids.before[j]) {
		o := &n.log[j]
		switch {
		case o.isLabel || n.forgotten(o.t, n.watermark) || r.line != none && r.line != o.line:
		case n.accepts(o.t, r.t):
			return LabelApplied
		default:
			status = LabelExpired
		}
	}
	return status
}

// forgotten tells whether a transaction at t is no longer remembered where the greatest event time is watermark.
func (n *Naive) forgotten(t, watermark int64) bool {
	return watermark != beginning && t+n.retain <= watermark-n.horizon
}

// accepts tells whether a label known at k is applied to a transaction at t.
func (n *Naive) accepts(t, k int64) bool { return k >= t-n.acceptFor && k <= t+n.delay+n.acceptFor }

// Status says what became of row i of the log.
func (n *Naive) Status(i int) Status { return n.log[i].status }

// Rows is how many rows the log has.
func (n *Naive) Rows() int { return len(n.log) }

// Row computes the features of row i of the log from the rows before it; values are nil where the row is no
// transaction, or one that is not computed.
func (n *Naive) Row(i int) (values []float64, status Status) {
	if r := &n.log[i]; !r.held || r.isLabel {
		return nil, r.status
	}
	values = []float64{} // not nil, though all features may be hidden
	earlier := make([][]int, len(n.keys))
	var all []float64 // windowed features, hidden ones too, for the final ones
	at := make([]int, len(n.feats))
	for j := range n.feats {
		f := &n.feats[j]
		if !f.kind.windowed() {
			continue
		}
		if earlier[f.keys] == nil {
			earlier[f.keys] = n.earlier(f.keys, i)
		}
		at[j] = len(all)
		all = append(all, n.value(f, i, n.entries(f, i, earlier[f.keys])))
	}
	final := n.finalColumns(i, all)
	for j := range n.feats {
		f := &n.feats[j]
		switch {
		case f.hidden:
		case f.kind.windowed():
			values = append(values, all[at[j]])
		case f.last:
			values = append(values, naiveNumber(n.final.Fields()[f.columns[0]], &final[f.columns[0]], 0))
		default:
			for _, c := range f.columns {
				values = append(values, n.number(c, i))
			}
		}
	}
	return values, n.log[i].status
}

// earlier lists the transactions before row i that agree with it in the keys, in log order; never nil.
func (n *Naive) earlier(keys, i int) []int {
	list := []int{}
	for j := n.keys[keys].before[i]; j >= 0; j = n.keys[keys].before[j] {
		list = append(list, int(j))
	}
	slices.Reverse(list)
	return list
}

// finalColumns runs what is computed last on row i, of which the windowed features are known.
func (n *Naive) finalColumns(i int, windowed []float64) []datasets.Column {
	if n.final == nil {
		return nil
	}
	cols := make([]datasets.Column, len(n.fields))
	for c := range cols {
		if n.held[c] {
			cols[c] = (&datasets.Batch{Columns: n.cols[c : c+1]}).Slice(i, i+1).Columns[0]
		}
	}
	for k := range windowed {
		cols = append(cols, datasets.Column{Floats: windowed[k : k+1]})
	}
	return n.final.Run(cols, 1)[len(cols):]
}

// number is a field of row i as a float64.
func (n *Naive) number(c, i int) float64 { return naiveNumber(n.fields[c], &n.cols[c], i) }

func naiveNumber(f datasets.Field, c *datasets.Column, i int) float64 {
	switch f.Type {
	case datasets.Float64:
		return c.Floats[i]
	case datasets.Decimal:
		return float64(c.Ints[i]) / math.Pow10(f.Scale)
	}
	return float64(c.Ints[i])
}

// entries lists what is in the window of a feature of row i, in the order (K, partition, position): of the earlier
// transactions of its keys, and last the row itself where the feature includes it. Those of an ewma are all earlier
// ones in log order.
func (n *Naive) entries(f *naiveFeature, i int, earlier []int) []naiveEntry {
	after, to := n.window(f, i)
	var list []naiveEntry
	for _, o := range earlier {
		if !n.takes(f, o) {
			continue
		}
		e, known := naiveEntry{k: n.log[o].t + f.shift, row: o}, true
		if f.kind == Risk {
			e.k, e.y, known = n.labelAt(o, i, to)
		}
		if known && e.k > after && e.k <= to {
			list = append(list, e)
		}
	}
	if f.kind == EWMA {
		return list
	}
	slices.SortFunc(list, func(a, b naiveEntry) int {
		x, y := &n.log[a.row], &n.log[b.row]
		return cmp.Or(cmp.Compare(a.k, b.k), cmp.Compare(x.part, y.part), cmp.Compare(x.seq, y.seq), a.row-b.row)
	})
	if f.includeCurrent && n.takes(f, i) {
		list = append(list, naiveEntry{k: n.log[i].t, row: i})
	}
	if f.window.form == lastN {
		list = list[max(0, len(list)-f.window.n):]
	}
	return list
}

// window is the instants that a feature of row i reads, K in (after, to].
func (n *Naive) window(f *naiveFeature, i int) (after, to int64) {
	r := &n.log[i]
	floor := max(r.t, r.watermark-n.spec.lateness) // of a late row what it would have been on time
	switch f.window.form {
	case sliding:
		return floor - f.window.span, r.t
	case calendarUnit:
		return max(n.began(r.t, f.window.unit)-1, floor-reach(&f.window)), r.t
	case lastN:
		return math.MinInt64, floor
	}
	switch f.kind {
	case Last, Distance, Speed:
		return math.MinInt64, floor
	case EWMA:
		return math.MinInt64, math.MaxInt64
	}
	return math.MinInt64, r.watermark
}

// takes tells whether a transaction is an entry of a feature at all.
func (n *Naive) takes(f *naiveFeature, o int) bool {
	if f.where >= 0 && n.cols[f.where].Ints[o] == 0 {
		return false
	}
	return !f.skipNull || !n.isNull(f, o)
}

// isNull tells whether a transaction lacks a value that the feature is of.
func (n *Naive) isNull(f *naiveFeature, o int) bool {
	lacks := func(c int) bool { return c >= 0 && n.cols[c].IsNull(o) }
	return lacks(f.of) || lacks(f.place[0]) || lacks(f.place[1])
}

// labelAt is the label of transaction o as row i sees it at an instant: its value and since when it counts.
func (n *Naive) labelAt(o, i int, at int64) (k int64, y int8, known bool) {
	tx := &n.log[o]
	due := tx.t + n.delay
	var best *naiveRow // the last label up to the instant
	if k = due; tx.y != none && due <= at {
		best = tx
	}
	for j := n.sameID(o); j >= 0; j = int(n.ids.before[j]) {
		l := &n.log[j]
		if j >= i || !l.isLabel || l.line != none && l.line != tx.line || !n.accepts(tx.t, l.t) || l.t > at {
			continue
		}
		if n.forgotten(tx.t, n.log[max(j, o)].watermark) {
			continue // the transaction was not remembered when they met
		}
		if best == nil || cmp.Or(cmp.Compare(k, l.t), cmp.Compare(best.part, l.part), cmp.Compare(best.seq, l.seq)) < 0 {
			best, k = l, l.t
		}
	}
	if best == nil {
		return due, 0, due <= at
	}
	return k, best.y, true
}

// began is when the hour, day, week or month of t began on the clock of the spec's zone. An hour that the clock shows
// twice is two; a date that it shows again after midnight, because it was put back, stays with the day that had begun.
func (n *Naive) began(t int64, unit string) int64 {
	// The times of one offset up to t, newest first: [from, to].
	type span struct{ from, to, offset int64 }
	var spans []span
	for at := t; at > t-40*datasets.Day; at = spans[len(spans)-1].from - 1 {
		here := time.UnixMicro(at).In(n.zone)
		_, offset := here.Zone()
		s := span{math.MinInt64 + 1, at, int64(offset) * datasets.Second}
		if from, _ := here.ZoneBounds(); !from.IsZero() {
			s.from = from.UnixMicro()
		}
		if spans = append(spans, s); unit == "hour" {
			clock := t + s.offset
			return max(s.from, t-((clock%datasets.Hour)+datasets.Hour)%datasets.Hour)
		}
	}
	var greatest int64 = math.MinInt64
	for _, s := range spans {
		greatest = max(greatest, unitOf(s.to+s.offset, unit))
	}
	slices.Reverse(spans)
	for _, s := range spans {
		if unitOf(s.to+s.offset, unit) == greatest {
			return max(s.from, greatest-s.offset)
		}
	}
	return t // not reached: one of the spans has it
}

// unitOf is what a clock shows when the day, week (from Monday) or month begins in which it shows local; both in
// microseconds since 1970.
func unitOf(local int64, unit string) int64 {
	c := time.UnixMicro(local).UTC()
	year, month, day := c.Date()
	switch unit {
	case "week":
		day -= (int(c.Weekday()) + 6) % 7
	case "month":
		day = 1
	}
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC).UnixMicro()
}

// value computes a windowed feature of row i from the entries in its window.
func (n *Naive) value(f *naiveFeature, i int, list []naiveEntry) float64 {
	count := float64(len(list))
	switch f.kind {
	case Count:
		return count
	case First:
		return float64(btoi(len(list) == 0))
	case Distinct:
		return n.distinct(f, list)
	case Sum:
		return nearest(n.sum(f, list)) / n.scale(f)
	case Risk:
		frauds := 0
		for _, e := range list {
			frauds += int(e.y)
		}
		if weight := f.priorWeight; count+weight > 0 {
			return (float64(frauds) + float64(f.priorRate*weight)) / (count + weight)
		}
	}
	if len(list) == 0 {
		return f.none()
	}
	newest := list[len(list)-1]
	first, last := list[0].k, list[0].k
	for _, e := range list {
		first, last = min(first, e.k), max(last, e.k)
	}
	switch f.kind {
	case Mean:
		return nearest(n.sum(f, list)) / (count * n.scale(f))
	case Std:
		return n.deviation(f, list) / n.scale(f)
	case Min, Max:
		v := n.number(f.of, list[0].row)
		for _, e := range list {
			if x := n.number(f.of, e.row); f.kind == Min {
				v = min(v, x)
			} else {
				v = max(v, x)
			}
		}
		return v
	case Mode:
		return n.mode(f, list)
	case SinceFirst:
		return max(0, float64(n.log[i].t-first)/1e6)
	case SinceLast:
		return max(0, float64(n.log[i].t-last)/1e6)
	case Gap:
		if len(list) > 1 {
			return float64(last-first) / 1e6 / (count - 1)
		}
	case Last:
		if len(list) >= f.nth {
			return n.number(f.of, list[len(list)-f.nth].row)
		}
	case EWMA:
		return n.ewma(f, list)
	}
	if n.isNull(f, i) || n.isNull(f, newest.row) {
		return f.none() // the current one, or the last, has nothing to compare
	}
	switch f.kind {
	case Share:
		same := 0
		for _, e := range list {
			same += btoi(n.cell(f.of, e.row) == n.cell(f.of, i))
		}
		return float64(same) / count
	case Ratio:
		if s := n.sum(f, list); s.Sign() != 0 {
			return float64(n.cols[f.of].Ints[i]) / (nearest(s) / count)
		}
	case ZScore:
		d := n.deviation(f, list)
		if d == 0 {
			return 0
		}
		x := big.NewInt(n.cols[f.of].Ints[i])
		x.Mul(x, big.NewInt(int64(len(list)))).Sub(x, n.sum(f, list))
		return nearest(x) / count / d
	case Distance, Speed:
		km := haversine(n.number(f.place[0], newest.row), n.number(f.place[1], newest.row), n.number(f.place[0], i),
			n.number(f.place[1], i))
		if f.kind == Distance {
			return km
		}
		return km / (float64(max(n.log[i].t-newest.k, datasets.Second)) / float64(datasets.Hour))
	}
	return f.none()
}

// none is the feature's value where there are too few entries for one.
func (f *naiveFeature) none() float64 {
	switch {
	case f.empty != nil:
		return *f.empty
	case f.window.form == sliding && (f.kind == SinceFirst || f.kind == SinceLast || f.kind == Gap):
		return float64(f.window.span) / 1e6
	}
	return 0
}

// nearest is the float64 nearest to a whole number.
func nearest(x *big.Int) float64 {
	v, _ := new(big.Float).SetInt(x).Float64()
	return v
}

// scale is 10^s of the column that a feature is of.
func (n *Naive) scale(f *naiveFeature) float64 { return math.Pow10(n.fields[f.of].Scale) }

// sum adds the values of entries, in the column's scale.
func (n *Naive) sum(f *naiveFeature, list []naiveEntry) *big.Int {
	s, v := new(big.Int), new(big.Int)
	for _, e := range list {
		s.Add(s, v.SetInt64(n.cols[f.of].Ints[e.row]))
	}
	return s
}

// squares adds their squares.
func (n *Naive) squares(f *naiveFeature, list []naiveEntry) *big.Int {
	s, v := new(big.Int), new(big.Int)
	for _, e := range list {
		v.SetInt64(n.cols[f.of].Ints[e.row])
		s.Add(s, v.Mul(v, v))
	}
	return s
}

// deviation is the standard deviation of the entries' values, with n-1, in the column's scale.
func (n *Naive) deviation(f *naiveFeature, list []naiveEntry) float64 {
	if len(list) < 2 {
		return 0
	}
	count := int64(len(list))
	s1, s2 := n.sum(f, list), n.squares(f, list)
	s2.Mul(s2, big.NewInt(count)).Sub(s2, s1.Mul(s1, s1))
	return math.Sqrt(nearest(s2) / nearest(new(big.Int).Mul(big.NewInt(count), big.NewInt(count-1))))
}

// cell is a value for comparison; nil for none.
func (n *Naive) cell(c, i int) any {
	col := &n.cols[c]
	switch {
	case col.IsNull(i):
		return nil
	case col.Strings != nil:
		return col.Strings[i]
	case col.Floats != nil:
		return col.Floats[i]
	}
	return col.Ints[i]
}

// distinct counts the different values of entries. Since ever, more than slab.SetExact of them are estimated: of
// numbers themselves, of texts by a hash.
func (n *Naive) distinct(f *naiveFeature, list []naiveEntry) float64 {
	seen := map[any]bool{}
	for _, e := range list {
		seen[n.cell(f.of, e.row)] = true
	}
	if f.window.form != ever || len(seen) <= slab.SetExact {
		return float64(len(seen))
	}
	arena := slab.New(0, "")
	defer arena.Close()
	var set slab.Set
	for v := range seen {
		switch v := v.(type) {
		case int64:
			set.Add(arena, v)
		case string:
			set.Add(arena, int64(derive.Hash(v)))
		}
	}
	return set.Size(arena)
}

// mode is the most frequent value, of equally frequent ones the smallest.
func (n *Naive) mode(f *naiveFeature, list []naiveEntry) float64 {
	times := map[int64]int{}
	row := map[int64]int{}
	var best int64
	for _, e := range list {
		v := n.cols[f.of].Ints[e.row]
		times[v]++
		row[v] = e.row
	}
	for v, c := range times {
		if c > times[best] || c == times[best] && v < best {
			best = v
		}
	}
	return n.number(f.of, row[best])
}

// ewma goes through all entries in log order. Time does not go back: a late entry has the weight of the newest.
func (n *Naive) ewma(f *naiveFeature, list []naiveEntry) float64 {
	var a, weight float64
	newest := list[0].k
	for _, e := range list {
		decay := math.Exp2(-float64(max(0, e.k-newest)) / float64(f.halfLife))
		newest = max(newest, e.k)
		// The conversions keep a compiler from joining product and sum.
		a = n.number(f.of, e.row) + float64(a*decay)
		weight = 1 + float64(weight*decay)
	}
	return a / weight
}

// earthRadius is the mean radius of the Earth in km (IUGG: (2a+b)/3 of WGS 84).
const earthRadius = 6371.0088

// haversine is the great circle distance in km between two places in degrees (R. W. Sinnott, "Virtues of the
// Haversine", Sky and Telescope 68(2), 1984).
func haversine(long1, lat1, long2, lat2 float64) float64 {
	const radian = math.Pi / 180
	x, y := math.Sin((lat2-lat1)*radian/2), math.Sin((long2-long1)*radian/2)
	// The conversions keep a compiler from joining products and sums.
	a := float64(x*x) + float64(math.Cos(lat1*radian)*math.Cos(lat2*radian)*float64(y*y))
	return 2 * earthRadius * math.Asin(math.Sqrt(min(1, a)))
}
