package features

import (
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/derive"
	"github.com/onmart/onmart/features/slab"
)

// Status says what became of one row of input.
type Status uint8

const (
	Scored       Status = iota // a transaction: computed and folded
	Late                       // the same, but its time is further behind than the spec's lateness
	Duplicate                  // a transaction that was there already: neither computed nor folded
	Invalid                    // a column the spec needs has no value, or an impossible one: neither
	LabelApplied               // a label of a transaction that is there
	LabelWaiting               // a label whose transaction has not been seen; it waits for it
	LabelExpired               // a label too far from its transaction in time: not applied
	LabelIgnored               // a label, where the spec has none
	LateSkipped                // further behind than the lateness, where the spec says to skip such: neither
	FutureEvent                // too far ahead of all before it to be believed: neither
	statuses
)

var statusNames = [statuses]string{"scored", "late", "duplicate", "invalid", "label_applied", "label_waiting", "label_expired",
	"label_ignored", "late_skipped", "future"}

func (s Status) String() string {
	if s < statuses {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// Counts is how many rows came to each end.
type Counts struct {
	Scored        int64 `json:"scored"` // late ones not among them
	Late          int64 `json:"late"`
	Duplicates    int64 `json:"duplicates"`
	Invalid       int64 `json:"invalid"`
	LabelsApplied int64 `json:"labels_applied"`
	LabelsWaiting int64 `json:"labels_waiting"` // had to wait when they came
	LabelsExpired int64 `json:"labels_expired"`
	LabelsIgnored int64 `json:"labels_ignored"`
	RowLabels     int64 `json:"row_labels"` // labels that transactions carried
	LateSkipped   int64 `json:"late_skipped,omitempty"`
	Future        int64 `json:"future,omitempty"`

	// Of panels and interactions.
	Filtered int64 `json:"filtered,omitempty"` // do not meet the spec's conditions
	Unkeyed  int64 `json:"unkeyed,omitempty"`  // have no value in a key, or a table does not have their row
	Negative int64 `json:"negative,omitempty"` // take goods back without being marked as a return: taken for one
	Undone   int64 `json:"undone,omitempty"`   // sales that a return undid
	Returned int64 `json:"returned,omitempty"` // returns, where interactions leave them out
	Dateless int64 `json:"dateless,omitempty"` // steps or rows that a joined table has no row for: its covariates are 0
	Steps    int64 `json:"steps,omitempty"`    // that were closed
}

// Rows is the result of a batch.
type Rows struct {
	N      int
	Input  []int32     // by row: the row of the input batch
	Values [][]float64 // by feature, then by row
	Status []Status    // by row of the input batch
}

// maxTime bounds event times, so that adding spans stays inside int64. It is far beyond any calendar.
const maxTime = int64(1) << 60

// beginning is the watermark of an engine that has seen no transaction.
const beginning = math.MinInt64

// Engine computes features of a log, batch after batch. It is for one goroutine.
type Engine struct {
	// DetectDuplicates makes a transaction whose (trans_id, line) is there already a Duplicate. For live
	// sources, which may deliver twice; imported data sets and recorded logs have no duplicates. To be set
	// before the first batch. A spec that declares duplicates has them looked for in any case.
	DetectDuplicates bool

	p         *Plan
	threads   int
	parallel  int         // rows of a batch from which threads share it
	a         *slab.Arena // of all but the records
	ra        *slab.Arena // of the records
	st        *state
	counts    Counts
	sc        scratch
	rd        rowReader
	derived   *derive.Program
	last      *derive.Program
	readers   [][]scanner // by thread and group
	due       int         // rows since events were last forgotten
	untrimmed int         // rows since memory was brought near its budget
	final     bool        // no state is wanted at the end, and no label or duplicate will be told by it
	watch     *stopwatch  // nil: times are not taken
}

// state is the recent events and all that is computed from them.
type state struct {
	rec       *records // nil: not kept
	keys      []keyTable
	groups    []groupState
	units     []unitClock
	watermark int64
	position  int64       // the seq of the next event of a log that has none
	candidate int64       // time of a transaction that was not believed, beginning: none
	lives     []lifetimes // by key
	most      []uint64    // by Plan.vals: no |value| so far is greater
}

// NewEngine makes an engine with an empty state that computes on that many threads. It panics where the plan is of
// another shape than Events.
func (p *Plan) NewEngine(threads int) *Engine { return p.newEngineIn(threads, slab.New(0, "")) }

// newEngineIn is NewEngine with its state in an arena, which belongs to the engine from then on.
func (p *Plan) newEngineIn(threads int, a *slab.Arena) *Engine {
	if p.spec.Shape() != Events {
		panic(fmt.Sprintf("features: the spec %s is of %s, not of features of transactions", p.spec.name, p.spec.Shape()))
	}
	e := &Engine{p: p, threads: max(1, threads), parallel: parallelFrom, a: a}
	e.ra = a.Part(1, 4)
	e.st = p.newState(a, e.ra)
	e.rd = newRowReader(p, &p.row)
	if p.derived != nil {
		e.derived = p.derived.Clone()
	}
	if p.last != nil {
		e.last = p.last.Clone()
	}
	e.sc = newScratch(p)
	e.bindReaders()
	return e
}

// bindReaders has the threads work on the state at hand.
func (e *Engine) bindReaders() {
	e.sc.most = e.st.most
	e.readers = make([][]scanner, e.threads)
	for t := range e.readers {
		e.readers[t] = make([]scanner, len(e.p.groups))
		for g := range e.readers[t] {
			gs := &e.st.groups[g]
			e.readers[t][g] = scanner{gs: gs, sc: &e.sc, j: none}
		}
	}
}

func (p *Plan) newState(a, ra *slab.Arena) *state {
	st := &state{watermark: beginning, candidate: beginning, rec: newRecords(p, ra), most: make([]uint64, len(p.vals))}
	for i := range p.keys {
		st.keys = append(st.keys, newKeyTable(&p.keys[i], a))
		st.lives = append(st.lives, lifetimes{reach: p.reach(i)})
	}
	st.groups = make([]groupState, len(p.groups))
	for i, g := range p.groups {
		st.groups[i] = newGroupState(g, a)
	}
	for _, u := range p.units {
		st.units = append(st.units, newUnitClock(u, p.location))
	}
	return st
}

// withoutState tells the engine that its state will not be asked for, that no label events will come and no duplicates
// are to be found: it then keeps no record of events. To be called before the first batch.
func (e *Engine) withoutState() {
	e.final = true
	if e.p.spec.duplicates == 0 {
		e.st.rec = nil
	}
}

// Plan is what the engine computes.
func (e *Engine) Plan() *Plan { return e.p }

// Watermark is the greatest event time of the folded transactions, or math.MinInt64 before the first.
func (e *Engine) Watermark() int64 { return e.st.watermark }

// Counts is what became of all rows so far.
func (e *Engine) Counts() Counts { return e.counts }

// stateBytes is the memory that keys and their windows take up, what is spilled included.
func (e *Engine) stateBytes() int64 { return e.a.Held() }

// recordBytes is the memory of the recent events, what is spilled included.
func (e *Engine) recordBytes() int64 { return e.ra.Held() }

// Size is how many values of keys have state, and the bytes of all state, what is spilled included.
func (e *Engine) Size() (keys, bytes int64) {
	for k := range e.st.keys {
		keys += int64(e.st.keys[k].len())
	}
	return keys, e.stateBytes() + e.recordBytes()
}

// close gives the state's memory back before the garbage collector would.
func (e *Engine) close() {
	e.a.Close()
	e.ra.Close()
}

// horizonAt is W-H of the records: what label has its instant up to it shows in no window.
func (p *Plan) horizonAt(watermark int64) int64 {
	if watermark == beginning {
		return beginning
	}
	return watermark - p.horizon
}

// Process folds a batch in order and gives a row for each transaction that is neither Duplicate nor Invalid,
// LateSkipped nor FutureEvent. The batch has the schema that the plan was made for; out's memory is used again. An error
// means that the batch does not fit the plan, and nothing was folded, or that the state cannot be kept within its budget:
// then the batch was folded and computed, and going on takes more memory than that.
func (e *Engine) Process(in *datasets.Batch, out *Rows) error {
	if err := e.p.fits(in); err != nil {
		return err
	}
	if e.final && e.p.event >= 0 && slices.Contains(in.Columns[e.p.event].Strings[:in.N], datasets.EventLabel) {
		return fmt.Errorf("features: a label event for an engine that keeps no events")
	}
	if e.DetectDuplicates && e.st.rec == nil {
		return fmt.Errorf("features: duplicates are to be found by an engine that keeps no events")
	}
	e.sc.drop = beginning
	if e.st.watermark != beginning {
		e.sc.drop = e.st.watermark - e.p.lateness
	}
	e.watch.start()
	e.columns(in)
	e.watch.lap(stageRow)
	e.number(in)
	e.watch.lap(stageKeys)
	e.resolve(in, out)
	e.gather(in, out)
	e.watch.lap(stageOrder)
	e.direct(out)
	e.watch.lap(stageRow)
	e.aggregate(out)
	e.watch.lap(stageOrder)
	e.finish(out)
	e.watch.lap(stageLast)
	err := e.forget(out.N)
	e.watch.lap(stageForget)
	if err != nil {
		return fmt.Errorf("features: keeping the state within its budget: %w", err)
	}
	return nil
}

func (p *Plan) fits(in *datasets.Batch) error {
	if in.Schema != p.in && !slices.Equal(in.Schema.Fields, p.in.Fields) {
		return fmt.Errorf("features: the batch's columns are not those the plan of %s was made for", p.spec.name)
	}
	if in.N > math.MaxInt32 {
		return fmt.Errorf("features: a batch of %d rows; want fewer than 2^31", in.N)
	}
	return nil
}

// columns completes the batch's columns by those of joins and row features.
func (e *Engine) columns(in *datasets.Batch) {
	cols := in.Columns
	if len(e.p.row.joins) > 0 {
		e.rd.begin(in)
		cols = e.rd.cols
	}
	if e.derived != nil {
		cols = e.derived.Run(cols, in.N)
	}
	e.sc.cols = cols
}

// number gives the keys of all rows their numbers.
func (e *Engine) number(in *datasets.Batch) {
	for k := range e.p.keys {
		e.sc.ids[k] = slices.Grow(e.sc.ids[k][:0], in.N)[:in.N]
		kp, ids := &e.p.keys[k], e.sc.ids[k]
		if kp.col >= 0 {
			e.st.keys[k].number(&e.sc.cols[kp.col], in.N, ids)
		} else {
			e.st.keys[k].pairs(e.sc.ids[kp.left], e.sc.ids[kp.right], ids)
		}
	}
}

// resolve is the sequential pass: it decides what every row is, resolves labels to changes of entries, and enters the
// events into the records.
func (e *Engine) resolve(in *datasets.Batch, out *Rows) {
	p, st := e.p, e.st
	e.reset(in.N, out)
	if e.DetectDuplicates || p.spec.duplicates > 0 {
		st.rec.index()
	}
	if e.plain(in, out) {
		return
	}
	for i := range in.N {
		ev := event{row: i, seq: st.position}
		if p.seq >= 0 {
			ev.seq = in.Columns[p.seq].Ints[i]
		}
		if p.part >= 0 {
			ev.part = int32(in.Columns[p.part].Ints[i])
		}
		var s Status
		switch {
		case p.event < 0 || in.Columns[p.event].Strings[i] == datasets.EventTransaction:
			s = e.transaction(in, ev, out)
		case in.Columns[p.event].Strings[i] == datasets.EventLabel:
			s = e.labelEvent(in, ev)
		default:
			s = Invalid
		}
		if s != Duplicate { // a recorded log leaves it out and must give the same state
			st.position = max(st.position, ev.seq+1)
		}
		out.Status = append(out.Status, s)
		e.count(s)
	}
	e.given(out)
}

// given makes room for the features of the rows that are given out.
func (e *Engine) given(out *Rows) {
	out.N = len(out.Input)
	for f := range out.Values {
		out.Values[f] = slices.Grow(out.Values[f][:0], out.N)[:out.N]
	}
}

// plain is resolve for a batch of transactions in the order of their times of which nothing is to be remembered, as most of
// a backfill is: columns are copied whole. It says no, and has done nothing, where a row asks for more.
func (e *Engine) plain(in *datasets.Batch, out *Rows) bool {
	p, st, sc := e.p, e.st, &e.sc
	if st.rec != nil || p.event >= 0 || p.seq >= 0 || p.part >= 0 || in.N == 0 {
		return false
	}
	for _, null := range sc.nullable {
		if slices.Contains(null[:in.N], true) {
			return false
		}
	}
	times, far := in.Columns[p.time].Ints[:in.N], p.spec.future
	if far == 0 {
		far = 2 * maxTime
	}
	last := st.watermark
	if last == beginning {
		last = max(times[0], -maxTime)
	}
	for _, t := range times {
		if t < last || t-last > far {
			return false
		}
		last = t
	}
	if last > maxTime {
		return false
	}
	labels := int64(0)
	for i := range in.N {
		y, ok := e.labelOf(in, i)
		if !ok || p.line >= 0 && lineOf(&in.Columns[p.line], i) < 0 {
			sc.y = sc.y[:0]
			return false
		}
		labels += int64(btoi(y != none))
		sc.y = append(sc.y, int64(max(y, 0)))
	}
	sc.t, sc.top, sc.mark = append(sc.t, times...), append(sc.top, times...), append(sc.mark, times...)
	out.Status = out.Status[:in.N]
	clear(out.Status) // Scored
	for i := range in.N {
		out.Input = append(out.Input, int32(i))
		sc.order64 = append(sc.order64, st.position+int64(i))
	}
	st.watermark, st.candidate = last, beginning
	st.position += int64(in.N)
	e.counts.Scored += int64(in.N)
	e.counts.RowLabels += labels
	e.given(out)
	return true
}

// reset makes room for a batch of n rows.
func (e *Engine) reset(n int, out *Rows) {
	sc := &e.sc
	sc.t, sc.top, sc.mark = slices.Grow(sc.t[:0], n), slices.Grow(sc.top[:0], n), slices.Grow(sc.mark[:0], n)
	sc.y, sc.order64 = slices.Grow(sc.y[:0], n), slices.Grow(sc.order64[:0], n)
	for k := range sc.ops {
		sc.ops[k] = sc.ops[k][:0]
	}
	sc.nullable = sc.nullable[:0]
	for _, c := range e.p.needed {
		if col := &sc.cols[c]; col.Null != nil {
			sc.nullable = append(sc.nullable, col.Null)
		}
	}
	out.N, out.Input, out.Status = 0, slices.Grow(out.Input[:0], n), slices.Grow(out.Status[:0], n)
	if len(out.Values) != len(e.p.features) {
		out.Values = make([][]float64, len(e.p.features))
	}
}

func (e *Engine) count(s Status) {
	c := &e.counts
	switch s {
	case Scored:
		c.Scored++
	case Late:
		c.Late++
	case Duplicate:
		c.Duplicates++
	case Invalid:
		c.Invalid++
	case LabelApplied:
		c.LabelsApplied++
	case LabelWaiting:
		c.LabelsWaiting++
	case LabelExpired:
		c.LabelsExpired++
	case LabelIgnored:
		c.LabelsIgnored++
	case LateSkipped:
		c.LateSkipped++
	case FutureEvent:
		c.Future++
	}
}

// event is a row's place.
type event struct {
	row  int
	seq  int64
	part int32
	line int64
	id   int64
	name string
}

// ord is an event's place among those of one instant: by partition, then by position, of which partitions below 2^15 and
// positions below 2^48 are told apart.
func (ev *event) ord() int64 { return int64(ev.part)<<48 + ev.seq }

// identify reads trans_id and line; ok is false where there is no trans_id.
func (e *Engine) identify(in *datasets.Batch, ev *event, noLine int64) bool {
	c := &in.Columns[e.p.id]
	if c.IsNull(ev.row) {
		return false
	}
	if e.p.idText {
		ev.name = c.Strings[ev.row]
	} else {
		ev.id = c.Ints[ev.row]
	}
	ev.line = noLine
	if e.p.line >= 0 && !in.Columns[e.p.line].IsNull(ev.row) {
		ev.line = in.Columns[e.p.line].Ints[ev.row]
		return ev.line >= 0
	}
	return true
}

// lineOf is a row's line, 0 where it has none.
func lineOf(c *datasets.Column, row int) int64 {
	if c.IsNull(row) {
		return 0
	}
	return c.Ints[row]
}

// labelOf reads a row's label: none without one; ok is false where it is neither 0 nor 1.
func (e *Engine) labelOf(in *datasets.Batch, row int) (y int8, ok bool) {
	if e.p.label < 0 || in.Columns[e.p.label].IsNull(row) {
		return none, true
	}
	v := in.Columns[e.p.label].Ints[row]
	return int8(v), v == 0 || v == 1
}

func (e *Engine) transaction(in *datasets.Batch, ev event, out *Rows) Status {
	p, st, sc := e.p, e.st, &e.sc
	for _, null := range sc.nullable {
		if null[ev.row] {
			return Invalid
		}
	}
	t := in.Columns[p.time].Ints[ev.row]
	y, ok := e.labelOf(in, ev.row)
	if !ok || t > maxTime || t < -maxTime || p.line >= 0 && lineOf(&in.Columns[p.line], ev.row) < 0 {
		return Invalid
	}
	known := false // events of its trans_id are held
	if st.rec != nil {
		e.identify(in, &ev, 0) // its trans_id is among the columns that a row needs
		var id uint32
		if st.rec.indexed {
			if id, known = st.rec.find(&ev); known && e.held(&ev, id) {
				return Duplicate
			}
		}
	}
	status := Scored
	if st.watermark != beginning {
		if far := p.spec.future; far > 0 && t > st.watermark+far && !e.believe(t, far) {
			return FutureEvent
		}
		if t < st.watermark-p.lateness {
			if p.spec.late.skip {
				return LateSkipped
			}
			status = Late
		}
	}
	st.candidate = beginning
	st.watermark = max(st.watermark, t)
	if y != none {
		e.counts.RowLabels++
	}
	at := len(sc.t)
	out.Input = append(out.Input, int32(ev.row))
	sc.t = append(sc.t, t)
	sc.top = append(sc.top, max(t, st.watermark-p.lateness))
	sc.mark = append(sc.mark, st.watermark)
	sc.y = append(sc.y, int64(max(y, 0)))
	sc.order64 = append(sc.order64, ev.ord())
	if rec := st.rec; rec != nil {
		i := rec.add(t, &ev, y, false)
		x := rec.at(i)
		for j, l := range p.labelled {
			if l.filter < 0 || e.passes(&p.filters[l.filter], ev.row) {
				x.setKey(j, sc.ids[l.key][ev.row])
			}
		}
		if known && len(p.labelled) > 0 {
			e.applyWaiting(at, i, p.horizonAt(st.watermark))
		}
	}
	return status
}

// believe decides about a transaction that is far ahead of all before it: one alone is a wrong clock, a second one in a
// row of about its time says that nothing happened in between.
func (e *Engine) believe(t, far int64) bool {
	before := e.st.candidate
	e.st.candidate = t
	return before != beginning && t-before <= far && before-t <= far
}

// Fault says why a row of a batch that the plan was made for is Invalid: the column and what is wrong with it.
// Both are empty where nothing is.
func (p *Plan) Fault(in *datasets.Batch, row int) (column, reason string) {
	is := func(c int) bool { return c >= 0 && in.Columns[c].IsNull(row) }
	far := func(c int) bool { return in.Columns[c].Ints[row] > maxTime || in.Columns[c].Ints[row] < -maxTime }
	name := func(c int) string { return p.in.Fields[c].Name }
	const missing = "has no value"
	kind := datasets.EventTransaction
	if p.event >= 0 {
		kind = in.Columns[p.event].Strings[row]
	}
	switch kind {
	case datasets.EventTransaction:
		if column, reason := p.unusable(in, row); column != "" {
			return column, reason
		}
		if far(p.time) {
			return name(p.time), "is too far from today"
		}
	case datasets.EventLabel:
		switch {
		case p.label < 0 || is(p.label):
			return p.spec.label.column.s, missing
		case is(p.knownAt):
			return name(p.knownAt), missing
		case far(p.knownAt):
			return name(p.knownAt), "is too far from today"
		}
	default:
		return name(p.event), fmt.Sprintf("%.40q is not %s or %s", kind, datasets.EventTransaction, datasets.EventLabel)
	}
	switch {
	case is(p.id):
		return name(p.id), missing
	case p.line >= 0 && !is(p.line) && in.Columns[p.line].Ints[row] < 0:
		return name(p.line), fmt.Sprintf("%d is negative", in.Columns[p.line].Ints[row])
	case p.label >= 0 && !is(p.label) && in.Columns[p.label].Ints[row]>>1 != 0:
		return name(p.label), fmt.Sprintf("%d is neither 0 nor 1", in.Columns[p.label].Ints[row])
	}
	return "", ""
}

// unusable finds a column that a transaction needs and has no usable value in. Columns of joins and row features are
// computed for the row alone.
func (p *Plan) unusable(in *datasets.Batch, row int) (column, reason string) {
	cols := in.Slice(row, row+1).Columns
	if len(p.row.joins) > 0 {
		rd := newRowReader(p, &p.row)
		rd.begin(in.Slice(row, row+1))
		cols = rd.cols
	}
	if p.derived != nil {
		cols = p.derived.Clone().Run(cols, 1)
	}
	for _, c := range p.needed {
		switch {
		case cols[c].IsNull(0) && c < len(p.in.Fields):
			return p.fields[c].Name, "has no value, and the features need it"
		case cols[c].IsNull(0) && c < len(p.row.ext.Fields):
			return p.fields[c].Name, "has no value: the joined table lacks the row or the value, and the features need it"
		case cols[c].IsNull(0):
			return p.source(in, row, p.fields[c].Name)
		}
	}
	return "", ""
}

// source says of a row feature without a value which column of the input is to blame, where it is of one.
func (p *Plan) source(in *datasets.Batch, row int, name string) (column, reason string) {
	for i := range p.spec.features {
		f := &p.spec.features[i]
		if c := p.in.Index(f.of.s); c >= 0 && slices.Contains(f.columns(), name) && in.Columns[c].IsNull(row) {
			return f.of.s, "has no value, and the features need it"
		}
	}
	return name, "cannot be computed: what it is made of has no value (null: gives it one)"
}

// held tells whether a transaction is there already. id is the number of its trans_id.
func (e *Engine) held(ev *event, id uint32) bool {
	within := e.p.spec.duplicates
	if !e.DetectDuplicates && within == 0 || e.st.watermark == beginning {
		return false
	}
	rec, since := e.st.rec, e.p.horizonAt(e.st.watermark)-e.p.retain
	if within > 0 {
		since = e.st.watermark - within
	}
	for j := rec.latest(id); j >= 0; j = rec.next(j) {
		if x := rec.at(j); !x.isLabel() && x.line() == ev.line && x.t() > since {
			return true
		}
	}
	return false
}

// applyWaiting applies the labels that wait for the transaction in record i, row `at` of the batch.
func (e *Engine) applyWaiting(at int, i, bound int64) {
	x := e.st.rec.at(i)
	if x.t()+e.p.retain <= bound {
		return
	}
	links, own := e.linksOf(i, bound)
	if len(links) == own {
		return
	}
	e.sc.old = chain(e.sc.old[:0], x.t(), e.p.delay, links[:own])
	e.sc.new = chain(e.sc.new[:0], x.t(), e.p.delay, links)
	e.change(int32(at+1), i, bound)
}

// linksOf collects the labels of the transaction in record i: first its own, if it has one (own is 1 then,
// else 0), then those of label events.
func (e *Engine) linksOf(i, bound int64) (links []link, own int) {
	rec, p := e.st.rec, e.p
	x := rec.at(i)
	t := x.t()
	links = e.sc.links[:0]
	if y := x.label(); y != none {
		links = append(links, link{t + p.delay, x.seq(), x.part(), y})
		own = 1
	}
	for j := rec.latest(x.id()); j >= 0; j = rec.next(j) {
		l := rec.at(j)
		if l.isLabel() && (l.line() == none || l.line() == x.line()) && p.accepts(t, l.t()) &&
			l.t()+p.acceptFor+p.retain > bound {
			links = append(links, link{l.t(), l.seq(), l.part(), l.label()})
		}
	}
	e.sc.links = links
	return links, own
}

// accepts tells whether a label known at k is applied to a transaction at t.
func (p *Plan) accepts(t, k int64) bool { return k >= t-p.acceptFor && k <= t+p.delay+p.acceptFor }

func (e *Engine) labelEvent(in *datasets.Batch, ev event) Status {
	p, st := e.p, e.st
	if !p.hasLabel {
		return LabelIgnored
	}
	y, ok := e.labelOf(in, ev.row)
	if !ok || y == none || !e.identify(in, &ev, none) || in.Columns[p.knownAt].IsNull(ev.row) {
		return Invalid
	}
	k := in.Columns[p.knownAt].Ints[ev.row]
	if k > maxTime || k < -maxTime {
		return Invalid
	}
	bound := p.horizonAt(st.watermark)
	if k+p.acceptFor+p.retain <= bound {
		return LabelExpired
	}
	rec := st.rec
	rec.index()
	status := LabelWaiting
	at := int32(len(e.sc.t))
	newest := link{k, ev.seq, ev.part, y}
	j := int64(none)
	if id, known := rec.find(&ev); known {
		j = rec.latest(id)
	}
	for ; j >= 0; j = rec.next(j) {
		x := rec.at(j)
		if x.isLabel() || x.t()+p.retain <= bound || (ev.line != none && x.line() != ev.line) {
			continue
		}
		if !p.accepts(x.t(), k) {
			if status == LabelWaiting {
				status = LabelExpired
			}
			continue
		}
		status = LabelApplied
		links, _ := e.linksOf(j, bound)
		e.sc.old = chain(e.sc.old[:0], x.t(), p.delay, links)
		links = append(links, newest)
		e.sc.links = links
		e.sc.new = chain(e.sc.new[:0], x.t(), p.delay, links)
		e.change(at, j, bound)
	}
	rec.add(k, &ev, y, true)
	return status
}

// change writes down what turns the old entries of the transaction in record i (sc.old) into the new ones
// (sc.new), due before row `at`.
func (e *Engine) change(at int32, i, bound int64) {
	for j := range e.p.labelled {
		if key := e.st.rec.at(i).key(j); key != none {
			e.sc.ops[j] = changes(e.sc.ops[j], op{at: at, key: key, bound: bound}, e.sc.old, e.sc.new)
		}
	}
}

// changes appends the ops from old to new entries to dst; o has what they share.
func changes(dst []op, o op, old, new []entry) []op {
	put := func(from, other []entry, sign int8) {
		for _, x := range from {
			if !slices.Contains(other, x) {
				o.e, o.sign = x, sign
				dst = append(dst, o)
			}
		}
	}
	put(old, new, -1)
	put(new, old, 1)
	return dst
}
