package features

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onmart/onmart/datasets"
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
	statuses
)

var statusNames = [statuses]string{"scored", "late", "duplicate", "invalid", "label_applied", "label_waiting", "label_expired", "label_ignored"}

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

// shards is into how many parts the keys of a group are cut. More than the threads of the machines in mind,
// so that uneven keys spread; and so many that the rings of one shard of a card stream (10,000 keys, 130
// entries each) fit a core's own cache, which halved the time of backfill. The result does not depend on it.
const (
	shards    = 64
	shardMask = shards - 1
)

// parallelFrom is the number of rows from which a batch is computed shard by shard: below, rows of one shard
// are too few to find each other's entries in the cache, and too few to wake other threads for.
const parallelFrom = 512

// maxTime bounds event times, so that adding spans stays inside int64. It is far beyond any calendar.
const maxTime = int64(1) << 60

// beginning is the watermark of an engine that has seen no transaction.
const beginning = math.MinInt64

// Engine computes features of a log, batch after batch. It is for one goroutine.
type Engine struct {
	// DetectDuplicates makes a transaction whose (trans_id, line) is there already a Duplicate. For live
	// sources, which may deliver twice; imported data sets and recorded logs have no duplicates. To be set
	// before the first batch.
	DetectDuplicates bool

	p        *Plan
	threads  int
	parallel int // rows of a batch from which it is computed shard by shard
	st       *state
	counts   Counts
	sc       scratch
}

// state is the recent events and all that is computed from them.
type state struct {
	rec       *records
	names     []*names // by key column
	groups    []groupState
	watermark int64
	position  int64 // the seq of the next event of a log that has none
	keysSwept int   // keys when those no longer in use were last dropped
}

type groupState struct {
	*group
	shards [shards]shard
}

// shard is the rings of the keys with one remainder. One thread at a time touches it.
type shard struct {
	rings []ring
	bound []uint64         // by summed column: no |value| is greater
	delta map[int32]*delta // by key: what label events changed, where they did
	_     [64]byte         // keep two shards out of one cache line
}

// scratch is a batch as the sequential pass leaves it, by row of output.
type scratch struct {
	t, bound []int64 // event time; W-H after the event
	y        []int64 // carried label, 0 without one
	keys     [][]int32
	vals     [][]int64
	ops      [][]op // by key column

	links    []link
	old, new []entry

	// For threads: rows of each key column by shard.
	order  [][]int32
	starts [][shards + 1]int32
}

// NewEngine makes an engine with an empty state that computes on that many threads. It panics where the plan is of
// another shape than Events.
func (p *Plan) NewEngine(threads int) *Engine {
	if p.spec.Shape() != Events {
		panic(fmt.Sprintf("features: the spec %s is of %s, not of features of transactions", p.spec.name, p.spec.Shape()))
	}
	return &Engine{p: p, threads: max(1, threads), parallel: parallelFrom, st: p.newState(), sc: scratch{
		keys: make([][]int32, len(p.keys)), vals: make([][]int64, len(p.vals)), ops: make([][]op, len(p.keys)),
		order: make([][]int32, len(p.keys)), starts: make([][shards + 1]int32, len(p.keys)),
	}}
}

func (p *Plan) newState() *state {
	st := &state{rec: newRecords(p), watermark: beginning}
	for _, k := range p.keys {
		st.names = append(st.names, newNames(p.in.Fields[k.col].Type))
	}
	st.groups = make([]groupState, len(p.groups))
	for i, g := range p.groups {
		st.groups[i].group = g
		for s := range st.groups[i].shards {
			st.groups[i].shards[s].bound = make([]uint64, g.stride-1)
		}
	}
	return st
}

// Plan is what the engine computes.
func (e *Engine) Plan() *Plan { return e.p }

// Watermark is the greatest event time of the folded transactions, or math.MinInt64 before the first.
func (e *Engine) Watermark() int64 { return e.st.watermark }

// Counts is what became of all rows so far.
func (e *Engine) Counts() Counts { return e.counts }

// horizonAt is W-H: what has K up to it is no longer visible.
func (p *Plan) horizonAt(watermark int64) int64 {
	if watermark == beginning {
		return beginning
	}
	return watermark - p.horizon
}

// Process folds a batch in order and gives a row for each transaction that is neither Duplicate nor Invalid.
// The batch has the schema that the plan was made for; out's memory is used again. An error means that the
// batch does not fit the plan, and nothing was folded.
func (e *Engine) Process(in *datasets.Batch, out *Rows) error {
	if err := e.p.fits(in); err != nil {
		return err
	}
	e.resolve(in, out)
	e.direct(in, out)
	if out.N >= e.parallel {
		e.spread(out)
	} else {
		for g := range e.st.groups {
			gs := &e.st.groups[g]
			gs.grow(e.st.names[gs.key].len())
			gs.run(&e.sc, nil, -1, out)
		}
	}
	e.forget()
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

// reset makes room for a batch of n rows.
func (e *Engine) reset(n int, out *Rows) {
	sc := &e.sc
	sc.t, sc.bound, sc.y = sc.t[:0], sc.bound[:0], sc.y[:0]
	for c := range sc.keys {
		sc.keys[c], sc.ops[c] = sc.keys[c][:0], sc.ops[c][:0]
	}
	for c := range sc.vals {
		sc.vals[c] = sc.vals[c][:0]
	}
	out.N, out.Input, out.Status = 0, out.Input[:0], slices.Grow(out.Status[:0], n)
	if len(out.Values) != len(e.p.features) {
		out.Values = make([][]float64, len(e.p.features))
	}
}

// resolve is the sequential pass: it decides what every row is, numbers the keys, resolves labels to
// changes of entries, and enters the events into the records.
func (e *Engine) resolve(in *datasets.Batch, out *Rows) {
	p, st := e.p, e.st
	e.reset(in.N, out)
	if e.DetectDuplicates && !st.rec.indexed() {
		st.rec.buildIndex(p.idText)
	}
	var nullable []int
	for _, c := range p.needed {
		if in.Columns[c].Null != nil && !slices.Contains(nullable, c) {
			nullable = append(nullable, c)
		}
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
			s = e.transaction(in, ev, nullable, out)
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
	out.N = len(e.sc.t)
	for f := range out.Values {
		out.Values[f] = slices.Grow(out.Values[f][:0], out.N)[:out.N]
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
	if e.p.line >= 0 {
		if l := &in.Columns[e.p.line]; !l.IsNull(ev.row) {
			ev.line = l.Ints[ev.row]
			return ev.line >= 0
		}
	}
	return true
}

// labelOf reads a row's label: none without one; ok is false where it is neither 0 nor 1.
func (e *Engine) labelOf(in *datasets.Batch, row int) (y int8, ok bool) {
	if e.p.label < 0 || in.Columns[e.p.label].IsNull(row) {
		return none, true
	}
	v := in.Columns[e.p.label].Ints[row]
	return int8(v), v == 0 || v == 1
}

func (e *Engine) transaction(in *datasets.Batch, ev event, nullable []int, out *Rows) Status {
	p, st, sc := e.p, e.st, &e.sc
	for _, c := range nullable {
		if in.Columns[c].Null[ev.row] {
			return Invalid
		}
	}
	t := in.Columns[p.time].Ints[ev.row]
	y, ok := e.labelOf(in, ev.row)
	if !ok || t > maxTime || t < -maxTime || !e.identify(in, &ev, 0) {
		return Invalid
	}
	if e.DetectDuplicates && e.held(&ev) {
		return Duplicate
	}
	status := Scored
	if st.watermark != beginning && t < st.watermark-p.lateness {
		status = Late
	}
	st.watermark = max(st.watermark, t)
	bound := p.horizonAt(st.watermark)
	if y != none {
		e.counts.RowLabels++
	}

	at := len(sc.t)
	out.Input = append(out.Input, int32(ev.row))
	sc.t = append(sc.t, t)
	sc.bound = append(sc.bound, bound)
	sc.y = append(sc.y, int64(max(y, 0)))
	rec := st.rec
	rec.add(t, ev.part, ev.seq, ev.line, y, false, p.idText, ev.id, ev.name)
	for k := range p.keys {
		id := int32(none)
		if c := &in.Columns[p.keys[k].col]; c.IsNull(ev.row) {
		} else if p.keys[k].text {
			id = st.names[k].ofString(c.Strings[ev.row])
		} else {
			id = st.names[k].ofInt(c.Ints[ev.row])
		}
		sc.keys[k] = append(sc.keys[k], id)
		rec.keys[k] = append(rec.keys[k], id)
	}
	for v := range p.vals {
		x := in.Columns[p.vals[v].col].Ints[ev.row]
		sc.vals[v] = append(sc.vals[v], x)
		rec.vals[v] = append(rec.vals[v], x)
	}
	if rec.indexed() && p.hasLabel {
		e.applyWaiting(at, len(rec.t)-1, bound)
	}
	return status
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
		for _, c := range p.needed {
			if is(c) {
				return name(c), missing + ", and the features need it"
			}
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

// held tells whether a transaction is there already.
func (e *Engine) held(ev *event) bool {
	rec, bound := e.st.rec, e.p.horizonAt(e.st.watermark)
	for j := rec.latest(ev.id, ev.name); j >= 0; j = rec.next(j) {
		if !rec.isLab[j] && rec.line[j] == ev.line && rec.t[j]+e.p.retain > bound {
			return true
		}
	}
	return false
}

// applyWaiting applies the labels that wait for the transaction in record i, row `at` of the batch.
func (e *Engine) applyWaiting(at, i int, bound int64) {
	links, own := e.linksOf(i, bound)
	if len(links) == own {
		return
	}
	e.sc.old = chain(e.sc.old[:0], e.st.rec.t[i], e.p.delay, links[:own])
	e.sc.new = chain(e.sc.new[:0], e.st.rec.t[i], e.p.delay, links)
	e.change(int32(at+1), i, bound)
}

// linksOf collects the labels of the transaction in record i: first its own, if it has one (own is 1 then,
// else 0), then those of label events.
func (e *Engine) linksOf(i int, bound int64) (links []link, own int) {
	rec, p := e.st.rec, e.p
	t := rec.t[i]
	links = e.sc.links[:0]
	if y := rec.label[i]; y != none {
		links = append(links, link{t + p.delay, rec.seq[i], rec.part[i], y})
		own = 1
	}
	var id int64
	var name string
	if p.idText {
		name = rec.idStr[i]
	} else {
		id = rec.idInt[i]
	}
	for j := rec.latest(id, name); j >= 0; j = rec.next(j) {
		if rec.isLab[j] && (rec.line[j] == none || rec.line[j] == rec.line[i]) &&
			p.accepts(t, rec.t[j]) && rec.t[j]+p.retain > bound {
			links = append(links, link{rec.t[j], rec.seq[j], rec.part[j], rec.label[j]})
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
	if k+p.retain <= bound {
		return LabelExpired
	}
	rec := st.rec
	if !rec.indexed() {
		rec.buildIndex(p.idText)
	}
	status := LabelWaiting
	at := int32(len(e.sc.t))
	newest := link{k, ev.seq, ev.part, y}
	for j := rec.latest(ev.id, ev.name); j >= 0; j = rec.next(j) {
		if rec.isLab[j] || rec.t[j]+p.retain <= bound || (ev.line != none && rec.line[j] != ev.line) {
			continue
		}
		if !p.accepts(rec.t[j], k) {
			if status == LabelWaiting {
				status = LabelExpired
			}
			continue
		}
		status = LabelApplied
		links, _ := e.linksOf(j, bound)
		e.sc.old = chain(e.sc.old[:0], rec.t[j], p.delay, links)
		links = append(links, newest)
		e.sc.links = links
		e.sc.new = chain(e.sc.new[:0], rec.t[j], p.delay, links)
		e.change(at, j, bound)
	}
	rec.add(k, ev.part, ev.seq, ev.line, y, true, p.idText, ev.id, ev.name)
	rec.addLabelColumns()
	return status
}

// change writes down what turns the old entries of the transaction in record i (sc.old) into the new ones
// (sc.new), due before row `at`. What is not visible is left as it is.
func (e *Engine) change(at int32, i int, bound int64) {
	for _, k := range e.p.labelKeys {
		if key := e.st.rec.keys[k][i]; key != none {
			e.sc.ops[k] = changes(e.sc.ops[k], op{at: at, key: key, bound: bound}, e.sc.old, e.sc.new)
		}
	}
}

// changes appends the ops from old to new entries to dst; o has what they share.
func changes(dst []op, o op, old, new []entry) []op {
	put := func(from, other []entry, sign int8) {
		for _, x := range from {
			if x.k > o.bound && !slices.Contains(other, x) {
				o.e, o.sign = x, sign
				dst = append(dst, o)
			}
		}
	}
	put(old, new, -1)
	put(new, old, 1)
	return dst
}

// direct computes the features that need no state.
func (e *Engine) direct(in *datasets.Batch, out *Rows) {
	for _, d := range e.p.direct {
		dst := out.Values[d.dest]
		switch {
		case d.col < 0:
			e.p.calendar(d, e.sc.t, dst)
		case d.float:
			src := in.Columns[d.col].Floats
			for r, i := range out.Input {
				dst[r] = src[i]
			}
		default:
			src := in.Columns[d.col].Ints
			for r, i := range out.Input {
				dst[r] = float64(src[i]) / d.scale
			}
		}
	}
}

func (p *Plan) calendar(d directFeature, ts []int64, dst []float64) {
	utc := p.location == time.UTC
	for r, t := range ts {
		if !utc {
			_, offset := time.UnixMicro(t).In(p.location).Zone()
			t += int64(offset) * datasets.Second
		}
		day := t / datasets.Day
		if t%datasets.Day < 0 {
			day--
		}
		on := false
		if d.weekend {
			weekday := (day%7 + 7 + 3) % 7 // Monday is 0; 1970-01-01 was a Thursday
			on = weekday >= 5
		} else {
			on = (t-day*datasets.Day)/datasets.Hour <= 6
		}
		dst[r] = float64(btoi(on))
	}
}

// spread computes the groups shard by shard, on the engine's threads.
func (e *Engine) spread(out *Rows) {
	for k := range e.p.keys {
		e.sc.sortByShard(k)
	}
	for g := range e.st.groups {
		gs := &e.st.groups[g]
		gs.grow(e.st.names[gs.key].len())
	}
	var next atomic.Int32
	work := func() {
		for {
			task := int(next.Add(1)) - 1
			if task >= len(e.st.groups)*shards {
				return
			}
			gs, s := &e.st.groups[task/shards], task%shards
			starts := &e.sc.starts[gs.key]
			gs.run(&e.sc, e.sc.order[gs.key][starts[s]:starts[s+1]], s, out)
		}
	}
	var wg sync.WaitGroup
	for range e.threads - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// sortByShard lists the rows of each shard of a key column, in order. A row without a key is in shard 0.
func (sc *scratch) sortByShard(k int) {
	keys := sc.keys[k]
	starts := &sc.starts[k]
	*starts = [shards + 1]int32{}
	for _, id := range keys {
		starts[max(id, 0)&shardMask+1]++
	}
	for s := range shards {
		starts[s+1] += starts[s]
	}
	fill := *starts
	sc.order[k] = slices.Grow(sc.order[k][:0], len(keys))[:len(keys)]
	for r, id := range keys {
		s := max(id, 0) & shardMask
		sc.order[k][fill[s]] = int32(r)
		fill[s]++
	}
}

// grow makes rings for n keys.
func (gs *groupState) grow(n int) {
	for s := range gs.shards {
		sh := &gs.shards[s]
		if want := (n - s + shards - 1) / shards; want > len(sh.rings) {
			sh.rings = slices.Grow(sh.rings, want-len(sh.rings))[:want]
		}
	}
}

// run computes and folds the rows listed (nil: all) for one shard (-1: all), with the changes of labels
// between them.
func (gs *groupState) run(sc *scratch, rows []int32, only int, out *Rows) {
	keys := sc.keys[gs.key]
	var ops []op
	if gs.label {
		ops = sc.ops[gs.key]
	}
	n := len(rows)
	if rows == nil {
		n = len(keys)
		if only >= 0 {
			n = 0
		}
	}
	var room [8]int64
	v := room[:0]
	for j := range n {
		r := j
		if rows != nil {
			r = int(rows[j])
		}
		for len(ops) > 0 && int(ops[0].at) <= r {
			gs.apply(&ops[0], only)
			ops = ops[1:]
		}
		v = v[:0]
		for _, c := range gs.cols {
			if c == labelValue {
				v = append(v, sc.y[r])
			} else {
				v = append(v, sc.vals[c][r])
			}
		}
		t, bound, key := sc.t[r], sc.bound[r], keys[r]
		if key == none {
			gs.alone(v, r, out.Values)
			continue
		}
		sh := &gs.shards[key&shardMask]
		rg := &sh.rings[key/shards]
		gs.read(sh, rg, key, t, bound, v, r, out.Values)
		gs.fold(sh, rg, t+gs.shift, v, bound)
	}
	for i := range ops {
		gs.apply(&ops[i], only)
	}
}

// fold enters an entry, unless it could never be seen.
func (gs *groupState) fold(sh *shard, rg *ring, k int64, v []int64, bound int64) {
	if k <= bound {
		return
	}
	for c, x := range v {
		sh.bound[c] = max(sh.bound[c], magnitude(x))
	}
	gs.insert(rg, k, v, bound)
}

// apply makes a change of label entries, if it is in the shard (-1: all).
func (gs *groupState) apply(o *op, only int) {
	s := int(o.key & shardMask)
	if only >= 0 && s != only {
		return
	}
	sh := &gs.shards[s]
	if sh.delta == nil {
		sh.delta = map[int32]*delta{}
	}
	d := sh.delta[o.key]
	if d == nil {
		d = &delta{}
		sh.delta[o.key] = d
	}
	d.apply(o)
	if rg := &sh.rings[o.key/shards]; rg.d == nil {
		gs.makeRoom(rg, o.bound) // read looks no further where there is no ring
	}
}

// deltaOf is what label events changed under a key, or nil. What no longer shows is dropped.
func (sh *shard) deltaOf(key int32, bound int64) *delta {
	if len(sh.delta) == 0 {
		return nil
	}
	d := sh.delta[key]
	if d != nil && deltaLayout.last(&d.ring) <= bound {
		delete(sh.delta, key)
		return nil
	}
	return d
}

// alone gives the features of an event without a key.
func (gs *groupState) alone(v []int64, r int, values [][]float64) {
	for w := range gs.wins {
		for i := range gs.wins[w].outs {
			o := &gs.wins[w].outs[i]
			var n, own int64
			if o.current {
				n = 1
				if o.kind != Count {
					own = v[o.col]
				}
			}
			values[o.dest][r] = o.value(n, float64(own))
		}
	}
}

// value is the feature from the number of entries and their sum.
func (o *output) value(n int64, sum float64) float64 {
	switch {
	case o.kind == Count:
		return float64(n)
	case o.kind == Sum:
		return sum / o.scale
	case n == 0:
		return 0
	}
	return sum / (float64(n) * o.scale)
}

// read gives the features of an event at t with values v, row r.
func (gs *groupState) read(sh *shard, rg *ring, key int32, t, bound int64, v []int64, r int, values [][]float64) {
	if rg.d == nil {
		gs.alone(v, r, values)
		return
	}
	changed := sh.deltaOf(key, bound)
	hi := gs.seek(rg, rg.hi, t)
	rg.hi = hi
	for w := range gs.wins {
		win := &gs.wins[w]
		start := max(t-win.span, bound)
		lo := gs.seek(rg, rg.lo[w], start)
		rg.lo[w] = lo
		lo = min(lo, hi) // t itself may lie behind the horizon
		n := int64(hi - lo)
		for i := range win.outs {
			o := &win.outs[i]
			m, sum := n, 0.0
			switch {
			case o.kind == Count:
			case o.kind == Risk:
				frauds := gs.sum(rg, lo, hi, o.col)
				if changed != nil {
					dn, df := changed.read(w, start, t)
					m, frauds = m+dn, frauds+df
				}
				sum = float64(frauds)
			case o.current:
				sum = gs.total(rg, lo, hi, o.col, v[o.col], max(sh.bound[o.col], magnitude(v[o.col])))
			default:
				sum = gs.total(rg, lo, hi, o.col, 0, sh.bound[o.col])
			}
			if o.current {
				m++
			}
			values[o.dest][r] = o.value(m, sum)
		}
	}
}

// forget drops the events that are past holding, and now and then the keys that only they used.
func (e *Engine) forget() {
	bound := e.p.horizonAt(e.st.watermark)
	if bound == beginning {
		return
	}
	e.st.rec.drop(e.p.retain, bound)
	e.sweep()
}

// sweepFrom is the number of keys below which forgetting unused ones is not worth a look.
const sweepFrom = 4096

// sweep drops keys that no event uses any more, by computing the state anew from its events. It looks when
// the keys have doubled and acts when half are unused, so that its cost per event is bounded.
func (e *Engine) sweep() {
	st := e.st
	if st.keyCount() < sweepFrom+2*st.keysSwept {
		return
	}
	used := 0
	for k := range e.p.keys {
		seen := make([]bool, st.names[k].len())
		for _, id := range st.rec.keys[k][st.rec.gone:] {
			if id != none && !seen[id] {
				seen[id] = true
				used++
			}
		}
	}
	if 2*used > st.keyCount() {
		st.keysSwept = st.keyCount()
		return
	}
	e.st = e.p.rebuild(st)
}
