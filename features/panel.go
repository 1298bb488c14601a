package features

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/onmart/onmart/datasets"
)

// Panel is the engine of a spec with `panel:`. It folds transactions and gives, for each step of time that is
// over, one row for every series that has begun, ordered by step and series. It is for one goroutine.
//
// A step is over when the watermark, less the spec's lateness, has reached its end; a transaction of a step that is
// over is Late, counted and not folded. What a Panel remembers is the transactions of the steps that are not over, in
// the order (event time, partition, position), and of each series what is carried on: nothing depends on how the
// log was cut into batches, on restarts, or, where no transaction is late, on how partitions were interleaved.
type Panel struct {
	p    *Plan
	pan  *panelPlan
	rd   rowReader
	grid Grid

	// Series by number, in the order in which they were first seen.
	keyNames []*names
	pairs    []map[uint64]int32 // by further key: (number so far, number of the key's value) to a number
	keyOf    [][]int32          // by key: number of its value
	started  []bool
	carry    [][]float64 // by carried covariate; the last is demand where it is repeated
	groups   [][]int32   // by joined table: where it has the series' values, -1 for nowhere
	lags     [][][]float64
	lagAt    int // steps so far, modulo the longest lag: where the next one is written

	// Series that have begun, by their text.
	order   []int32
	texts   []string
	columns []datasets.Column // of the keys

	open      []*openStep // by time
	free      []*openStep
	closed    int64 // the end of the last step that is over; beginning before the first
	next      int64 // the end of the step that is over next, math.MaxInt64 for none
	watermark int64
	position  int64 // the seq of the next event of a log that has none
	counts    Counts

	out   *datasets.Batch
	flush func(*datasets.Batch) error // hands rows on when there are many; nil keeps them
	chain []int32
	fresh []int32
	keys  []int32
}

// openStep is the transactions of a step that is not over, as columns, and for each series the chain of its own.
type openStep struct {
	from, to int64
	t, seq   []int64
	part     []int32
	next     []int32 // the series' transaction after this one
	back     []bool
	class    []uint8
	vals     [][]int64 // floating point as its bits
	tags     [][]int64 // text by its number in names
	noVal    []uint64  // bits of the values that are missing
	noTag    []uint64
	series   []int32
	names    []*names // by tag that is text
	head     []int32  // by series, -1 for none
	tail     []int32
	touched  []int32
	mixed    bool // some chain is not in canonical order
}

// Classes of the transactions of a step.
const (
	classKept     uint8 = iota // a sale
	classUndone                // a sale that a return of the step undid
	classReturned              // a return
	classUndoing               // the return that undid a sale
)

// maxGap is the longest time that series are filled with zeros over at once. A longer gap is a wrong date, and
// millions of rows that nobody wants.
const maxGap = 3660 * datasets.Day

// flushRows is how many rows are gathered before they are handed on.
const flushRows = 1 << 16

// NewPanel makes a Panel with an empty state. It panics where the plan is of another shape.
func (p *Plan) NewPanel() *Panel {
	if p.panel == nil {
		panic(fmt.Sprintf("features: the spec %s is of %s, not of a panel", p.spec.name, p.spec.Shape()))
	}
	q := &Panel{p: p, pan: p.panel, rd: newRowReader(p, &p.panel.rowPlan), grid: p.panel.grid}
	q.reset()
	return q
}

func (q *Panel) reset() {
	pan := q.pan
	q.keyNames, q.pairs = nil, nil
	for i, k := range pan.keys {
		q.keyNames = append(q.keyNames, newNames(pan.ext.Fields[k.col].Type))
		if i > 0 {
			q.pairs = append(q.pairs, map[uint64]int32{})
		}
	}
	q.keyOf = make([][]int32, len(pan.keys))
	q.keys = make([]int32, len(pan.keys))
	q.started, q.order, q.texts = nil, nil, nil
	q.columns = make([]datasets.Column, len(pan.keys))
	q.carry = make([][]float64, pan.carried+btoi(pan.fill))
	q.lags = make([][][]float64, len(pan.lagOf))
	for i := range q.lags {
		q.lags[i] = make([][]float64, pan.lagMax)
	}
	q.lagAt = 0
	q.groups = make([][]int32, len(pan.dims))
	q.open, q.free = nil, nil
	q.closed, q.watermark, q.next, q.position = beginning, beginning, math.MaxInt64, 0
}

// Plan is what the panel computes.
func (q *Panel) Plan() *Plan { return q.p }

// Watermark is the greatest event time of the transactions so far, or math.MinInt64 before the first.
func (q *Panel) Watermark() int64 { return q.watermark }

// Closed is the end of the last step that is over, or math.MinInt64 before the first: the panel goes on there.
func (q *Panel) Closed() int64 { return q.closed }

// Counts is what became of all rows so far.
func (q *Panel) Counts() Counts { return q.counts }

// Process folds a batch in order and appends to out, a batch of the plan's Schema, the rows of the steps that are
// over. The batch has the schema that the plan was made for. A batch that does not fit is refused, and nothing was
// folded; after a gap of more than ten years between transactions the panel is not to be used any more.
func (q *Panel) Process(in, out *datasets.Batch) error {
	if err := q.p.fits(in); err != nil {
		return err
	}
	if err := q.p.takes(out); err != nil {
		return err
	}
	q.out = out
	q.rd.begin(in)
	for i := range in.N {
		if err := q.event(i); err != nil {
			return err
		}
	}
	return nil
}

// Advance ends every step that ends at or before the watermark, whatever the spec's lateness, and appends their rows
// to out. Transactions of these steps that come later are Late.
func (q *Panel) Advance(watermark int64, out *datasets.Batch) error {
	if err := q.p.takes(out); err != nil {
		return err
	}
	q.out = out
	return q.closeUpTo(watermark)
}

// takes checks a batch that rows are appended to.
func (p *Plan) takes(out *datasets.Batch) error {
	if out.Schema != p.out && !slices.Equal(out.Schema.Fields, p.out.Fields) {
		return fmt.Errorf("features: the output's columns are not those of the plan of %s", p.spec.name)
	}
	return nil
}

// event folds row i of the batch at hand.
func (q *Panel) event(i int) error {
	p, pan, rd := q.p, q.pan, &q.rd
	seq, part := q.position, int32(0)
	if p.part >= 0 {
		part = int32(rd.cols[p.part].Ints[i])
		if p.seq >= 0 {
			seq = rd.cols[p.seq].Ints[i]
		}
	}
	q.position = max(q.position, seq+1)
	if !rd.isTransaction(i) {
		q.counts.LabelsIgnored++
		return nil
	}
	if rd.cols[p.time].IsNull(i) {
		q.counts.Invalid++
		return nil
	}
	t := rd.cols[p.time].Ints[i]
	if t > maxTime || t < -maxTime {
		q.counts.Invalid++
		return nil
	}
	if t > q.watermark {
		q.watermark = t
		if t-p.lateness >= q.next {
			if err := q.closeUpTo(t - p.lateness); err != nil {
				return err
			}
		}
	}
	switch {
	case !rd.chosen(i):
		q.counts.Filtered++
		return nil
	case pan.target >= 0 && rd.cols[pan.vals[pan.target].col].IsNull(i):
		q.counts.Invalid++
		return nil
	case t < q.closed || q.closed == beginning && q.over(t):
		q.counts.Late++
		return nil
	}
	series := q.seriesOf(i)
	if series == none {
		q.counts.Unkeyed++
		return nil
	}
	back, negative := rd.isReturn(i)
	if negative {
		q.counts.Negative++
	}
	q.counts.Scored++
	st := q.stepAt(t)
	n := st.add(series, t, seq, part, back)
	for v := range pan.vals {
		c := &rd.cols[pan.vals[v].col]
		x := int64(0)
		switch {
		case c.IsNull(i):
			st.noVal[n] |= 1 << v
		case c.Floats != nil:
			x = int64(math.Float64bits(c.Floats[i]))
		default:
			x = c.Ints[i]
		}
		st.vals[v] = append(st.vals[v], x)
	}
	for k, col := range pan.tags {
		c := &rd.cols[col]
		x := int64(0)
		switch {
		case c.IsNull(i):
			st.noTag[n] |= 1 << k
		case c.Strings != nil:
			x = int64(st.names[k].ofString(c.Strings[i]))
		default:
			x = c.Ints[i]
		}
		st.tags[k] = append(st.tags[k], x)
	}
	return nil
}

// over tells whether the step of t is over before any step has begun: nothing has been closed then.
func (q *Panel) over(t int64) bool {
	if t >= q.watermark-q.p.lateness {
		return false
	}
	_, to := q.grid.Step(t)
	return to <= q.watermark-q.p.lateness
}

// seriesOf numbers the series of row i, or gives none.
func (q *Panel) seriesOf(i int) int32 {
	for k := range q.pan.keys {
		c := &q.rd.cols[q.pan.keys[k].col]
		switch {
		case c.IsNull(i):
			return none
		case q.pan.keys[k].text:
			q.keys[k] = q.keyNames[k].ofString(c.Strings[i])
		default:
			q.keys[k] = q.keyNames[k].ofInt(c.Ints[i])
		}
	}
	return q.number(q.keys)
}

// number is the number of a series by the numbers of its keys' values.
func (q *Panel) number(keys []int32) int32 {
	id := keys[0]
	for k, pairs := range q.pairs {
		pair := uint64(uint32(id))<<32 | uint64(uint32(keys[k+1]))
		next, ok := pairs[pair]
		if !ok {
			next = int32(len(pairs))
			pairs[pair] = next
		}
		id = next
	}
	if int(id) == len(q.started) {
		q.started = append(q.started, false)
		for k := range keys {
			q.keyOf[k] = append(q.keyOf[k], keys[k])
		}
		for c := range q.carry {
			q.carry[c] = append(q.carry[c], 0)
		}
		q.locate(id)
	}
	return id
}

// stepAt finds or makes the open step that t is in.
func (q *Panel) stepAt(t int64) *openStep {
	at := len(q.open)
	for at > 0 && q.open[at-1].from > t {
		at--
	}
	if at > 0 && t < q.open[at-1].to {
		return q.open[at-1]
	}
	var st *openStep
	if n := len(q.free); n > 0 {
		st = q.free[n-1]
		q.free = q.free[:n-1]
	} else {
		st = &openStep{vals: make([][]int64, len(q.pan.vals)), tags: make([][]int64, len(q.pan.tags))}
	}
	st.from, st.to = q.grid.Step(t)
	st.names = st.names[:0]
	for _, c := range q.pan.tags {
		st.names = append(st.names, newNames(q.pan.ext.Fields[c].Type))
	}
	q.open = slices.Insert(q.open, at, st)
	if q.closed == beginning {
		q.next = q.open[0].to
	}
	return st
}

// add appends a transaction but for its values and tags.
func (st *openStep) add(series int32, t, seq int64, part int32, back bool) int {
	n := len(st.t)
	st.t, st.seq, st.part = append(st.t, t), append(st.seq, seq), append(st.part, part)
	st.series, st.back, st.next = append(st.series, series), append(st.back, back), append(st.next, none)
	st.noVal, st.noTag = append(st.noVal, 0), append(st.noTag, 0)
	for int(series) >= len(st.head) {
		st.head, st.tail = append(st.head, none), append(st.tail, none)
	}
	if st.head[series] == none {
		st.head[series] = int32(n)
		st.touched = append(st.touched, series)
	} else {
		last := st.tail[series]
		st.next[last] = int32(n)
		st.mixed = st.mixed || st.compare(last, int32(n)) > 0
	}
	st.tail[series] = int32(n)
	return n
}

// compare puts two transactions into the canonical order.
func (st *openStep) compare(a, b int32) int {
	return cmp.Or(cmp.Compare(st.t[a], st.t[b]), cmp.Compare(st.part[a], st.part[b]), cmp.Compare(st.seq[a], st.seq[b]))
}

// clear makes an empty step of it, keeping its memory.
func (st *openStep) clear() {
	for _, s := range st.touched {
		st.head[s], st.tail[s] = none, none
	}
	st.t, st.seq, st.part, st.next, st.back = st.t[:0], st.seq[:0], st.part[:0], st.next[:0], st.back[:0]
	st.class, st.noVal, st.noTag, st.series = st.class[:0], st.noVal[:0], st.noTag[:0], st.series[:0]
	for v := range st.vals {
		st.vals[v] = st.vals[v][:0]
	}
	for k := range st.tags {
		st.tags[k] = st.tags[k][:0]
	}
	st.touched, st.mixed = st.touched[:0], false
}

// chainOf lists the series' transactions in canonical order, in memory that the next call uses again.
func (q *Panel) chainOf(st *openStep, series int32) []int32 {
	q.chain = q.chain[:0]
	for i := st.head[series]; i != none; i = st.next[i] {
		q.chain = append(q.chain, i)
	}
	if st.mixed {
		slices.SortFunc(q.chain, st.compare)
	}
	return q.chain
}

// closeUpTo ends the steps that end at or before the bound.
func (q *Panel) closeUpTo(bound int64) error {
	for {
		from, to := q.closed, int64(math.MaxInt64)
		switch {
		case q.closed != beginning:
			if len(q.order) == 0 && (len(q.open) == 0 || q.open[0].from > from) {
				// Nothing has begun: steps up to the next transaction give no rows.
				at := bound
				if len(q.open) > 0 {
					at = min(at, q.open[0].from)
				}
				from, _ = q.grid.Step(at)
				q.closed = max(q.closed, from)
				from = q.closed
			}
			_, to = q.grid.Step(from)
		case len(q.open) > 0:
			from, to = q.open[0].from, q.open[0].to
		case bound > -maxTime && bound < maxTime:
			q.closed, _ = q.grid.Step(bound)
			continue
		}
		if q.next = to; to > bound {
			return nil
		}
		if q.closed != beginning && bound-q.closed > maxGap {
			return fmt.Errorf("features: %s: no step between %s and %s has ended yet, more than ten years: a date among the transactions is wrong; leave it out or give a range",
				q.p.spec.name, datasets.FormatTime(q.closed), datasets.FormatTime(bound))
		}
		var st *openStep
		if len(q.open) > 0 && q.open[0].from == from {
			st = q.open[0]
			q.open = slices.Delete(q.open, 0, 1)
		}
		q.end(from, st)
		q.closed = to
		if st != nil {
			st.clear()
			q.free = append(q.free, st)
		}
		if q.flush != nil && q.out.N >= flushRows {
			if err := q.flush(q.out); err != nil {
				return err
			}
		}
	}
}

// end gives the rows of a step that is over.
func (q *Panel) end(from int64, st *openStep) {
	q.counts.Steps++
	if st != nil {
		q.classify(st)
		q.begin(st)
	}
	q.rows(from, st)
}

// classify tells for each transaction of a step whether it is a sale, a return, or one of a pair that undo each
// other: a return undoes the latest sale before it that has the same quantity and the same values in the columns
// of `undo`. A column without a value is like no other.
func (q *Panel) classify(st *openStep) {
	st.class = slices.Grow(st.class[:0], len(st.t))[:len(st.t)]
	any := false
	for i, back := range st.back {
		st.class[i] = classKept
		if back {
			st.class[i], any = classReturned, true
		}
	}
	if !any || !q.pan.matches {
		return
	}
	seen := map[int32]bool{}
	for i, back := range st.back {
		if s := st.series[i]; back && !seen[s] {
			seen[s] = true
			q.match(st, q.chainOf(st, s))
		}
	}
}

// match pairs the returns of one series with the sales that they undo.
func (q *Panel) match(st *openStep, chain []int32) {
	sales := map[string][]int32{}
	var key []byte
	for _, i := range chain {
		quantity := st.vals[q.pan.target][i]
		if st.back[i] && quantity < 0 {
			quantity = -quantity
		}
		key = binary.LittleEndian.AppendUint64(key[:0], uint64(quantity))
		for _, k := range q.pan.undo {
			if st.noTag[i]>>k&1 != 0 {
				key = nil
				break
			}
			key = binary.LittleEndian.AppendUint64(key, uint64(st.tags[k][i]))
		}
		switch open := sales[string(key)]; {
		case key == nil || quantity == 0:
		case !st.back[i]:
			sales[string(key)] = append(open, i)
		case len(open) > 0:
			st.class[open[len(open)-1]], st.class[i] = classUndone, classUndoing
			sales[string(key)] = open[:len(open)-1]
			q.counts.Undone++
		}
	}
}

// begin starts the series that have their first sale in this step.
func (q *Panel) begin(st *openStep) {
	q.fresh = q.fresh[:0]
	for _, s := range st.touched {
		if q.started[s] {
			continue
		}
		for i := st.head[s]; i != none; i = st.next[i] {
			if in(q.pan.demand.rows, st.class[i]) {
				q.started[s] = true
				q.fresh = append(q.fresh, s)
				break
			}
		}
	}
	q.enter(q.fresh)
}

// enter puts series among those that have begun.
func (q *Panel) enter(fresh []int32) {
	if len(fresh) == 0 {
		return
	}
	texts := make(map[int32]string, len(fresh))
	for _, s := range fresh {
		texts[s] = q.textOf(s)
	}
	slices.SortFunc(fresh, func(a, b int32) int { return strings.Compare(texts[a], texts[b]) })
	// From behind, so that nothing is overwritten before it was moved.
	at := len(q.order) - 1
	q.order = append(q.order, fresh...)
	q.texts = append(q.texts, make([]string, len(fresh))...)
	for k := len(fresh) - 1; k >= 0; {
		to := at + k + 1
		if at >= 0 && q.texts[at] > texts[fresh[k]] {
			q.order[to], q.texts[to] = q.order[at], q.texts[at]
			at--
			continue
		}
		q.order[to], q.texts[to] = fresh[k], texts[fresh[k]]
		k--
	}
	for k := range q.columns {
		c := &q.columns[k]
		c.Ints, c.Strings = c.Ints[:0], c.Strings[:0]
		for _, s := range q.order {
			if q.pan.keys[k].text {
				c.Strings = append(c.Strings, q.keyNames[k].strOf[q.keyOf[k][s]])
			} else {
				c.Ints = append(c.Ints, q.keyNames[k].intOf[q.keyOf[k][s]])
			}
		}
	}
}

// textOf is the keys of a series joined by |. Where there are several, | and \ inside them are written \| and \\,
// so that no two series have one text.
func (q *Panel) textOf(s int32) string {
	var b strings.Builder
	for k := range q.pan.keys {
		if k > 0 {
			b.WriteByte('|')
		}
		v := ""
		if n := q.keyNames[k]; q.pan.keys[k].text {
			v = n.strOf[q.keyOf[k][s]]
		} else {
			v = fmt.Sprint(n.intOf[q.keyOf[k][s]])
		}
		if len(q.pan.keys) > 1 {
			v = seriesEscape.Replace(v)
		}
		b.WriteString(v)
	}
	return b.String()
}

// SeriesKeys is the n keys of a series by its text, as panels and forecasts name it; nil where it does not have n.
func SeriesKeys(text string, n int) []string {
	if n == 1 {
		return []string{text}
	}
	keys := []string{""}
	for i := 0; i < len(text); i++ {
		last := &keys[len(keys)-1]
		switch {
		case text[i] == '|':
			keys = append(keys, "")
		case text[i] == '\\' && i+1 < len(text):
			i++
			*last += text[i : i+1]
		default:
			*last += text[i : i+1]
		}
	}
	if len(keys) != n {
		return nil
	}
	return keys
}

var seriesEscape = strings.NewReplacer(`\`, `\\`, `|`, `\|`)

// in tells whether a class of transactions is among the rows of a measure.
func in(rows rowClass, class uint8) bool {
	switch rows {
	case rowsDemand:
		return class == classKept
	case rowsSold:
		return class <= classUndone
	case rowsUndone:
		return class == classUndone
	case rowsReturned:
		return class == classReturned
	}
	return true
}

// grow appends n values to a column and returns them.
func grow[T any](v *[]T, n int) []T {
	at := len(*v)
	*v = slices.Grow(*v, n)[:at+n]
	return (*v)[at:]
}

// rows appends a row for every series that has begun.
func (q *Panel) rows(from int64, st *openStep) {
	n := len(q.order)
	if n == 0 {
		return
	}
	out, pan := q.out, q.pan
	copy(grow(&out.Columns[0].Strings, n), q.texts)
	at := 1
	for k := range pan.keys {
		if pan.keys[k].text {
			copy(grow(&out.Columns[at].Strings, n), q.columns[k].Strings)
		} else {
			copy(grow(&out.Columns[at].Ints, n), q.columns[k].Ints)
		}
		at++
	}
	step := grow(&out.Columns[at].Ints, n)
	for i := range step {
		step[i] = from
	}
	at++
	first := at
	values := make([][]float64, len(out.Columns)-first)
	for i := range values {
		values[i] = grow(&out.Columns[at].Floats, n)
		clear(values[i])
		at++
	}
	q.measured(st, values)
	covs := values[1+len(pan.meas):]
	for c := range pan.covs {
		q.covariate(&pan.covs[c], from, covs[c])
	}
	for l, source := range pan.lagOf {
		row := &q.lags[l][q.lagAt]
		*row = slices.Grow((*row)[:0], len(q.started))[:len(q.started)]
		clear(*row)
		for i, s := range q.order {
			(*row)[s] = values[source][i]
		}
	}
	if pan.lagMax > 0 {
		q.lagAt = (q.lagAt + 1) % pan.lagMax
	}
	out.N += n
}

// measured fills demand, the measures and the covariates that the step's transactions change.
func (q *Panel) measured(st *openStep, values [][]float64) {
	pan := q.pan
	fill := len(q.carry) - 1
	if st != nil {
		for i, s := range q.order {
			if int(s) >= len(st.head) || st.head[s] == none {
				continue
			}
			chain := q.chainOf(st, s)
			v, ok := pan.demand.of(pan, st, chain)
			values[0][i] = v
			if ok && pan.fill {
				q.carry[fill][s] = v
			}
			for m := range pan.meas {
				values[1+m][i], _ = pan.meas[m].of(pan, st, chain)
			}
			for c := range pan.covs {
				cov := &pan.covs[c]
				switch {
				case cov.carry >= 0:
					if v, ok := cov.measure.of(pan, st, chain); ok {
						q.carry[cov.carry][s] = v
					}
				case cov.kind == aggMax:
					values[1+len(pan.meas)+c][i], _ = cov.measure.of(pan, st, chain)
				}
			}
		}
	}
	if pan.fill {
		for i, s := range q.order {
			values[0][i] = q.carry[fill][s]
		}
	}
}

// covariate fills a covariate that does not come from the step's transactions alone.
func (q *Panel) covariate(c *covariate, from int64, dst []float64) {
	switch {
	case c.carry >= 0:
		for i, s := range q.order {
			dst[i] = q.carry[c.carry][s]
		}
	case c.kind == covCalendar:
		v := q.pan.clock(c.calendar, from)
		for i := range dst {
			dst[i] = v
		}
	case c.kind == covLag:
		row := q.lags[c.source][(q.lagAt-c.lag+q.pan.lagMax)%q.pan.lagMax]
		for i, s := range q.order {
			if int(s) < len(row) {
				dst[i] = row[s]
			}
		}
	case c.kind == covTable || c.kind == covFlag:
		j := &q.pan.dims[c.join]
		day := q.pan.grid.date(from)
		if len(j.parts) > 0 {
			for i, s := range q.order {
				dst[i] = c.read(j, j.at(q.groups[c.join][s], day))
			}
			return
		}
		row := j.at(j.alone(), day)
		if row == none && j.dated {
			q.counts.Dateless++
		}
		v := c.read(j, row)
		for i := range dst {
			dst[i] = v
		}
	}
}

// alone is the group of a join that is on no value of a series.
func (j *dimJoin) alone() int32 {
	if len(j.spans) == 0 {
		return none
	}
	return 0
}

// read is a joined table's number in a row, 0 without one.
func (c *covariate) read(j *dimJoin, row int32) float64 {
	switch {
	case row == none || j.rows.Columns[c.take].IsNull(int(row)):
		return 0
	case c.kind == covFlag:
		return flagOf(j.rows, c.take, int(row))
	}
	return numberOf(j.rows, c.take, int(row))
}

// locate finds where joined tables have the values of a new series.
func (q *Panel) locate(s int32) {
	for d := range q.pan.dims {
		j := &q.pan.dims[d]
		group := int32(none)
		var room [64]byte
		buf, ok := room[:0], true
		for _, part := range j.parts {
			var n int64
			var text string
			if n, text, ok = q.partOf(part, s); !ok {
				break
			}
			buf = appendKey(buf, part.kind, n, text)
		}
		if at, found := j.index[string(buf)]; ok && found {
			group = at
		}
		q.groups[d] = append(q.groups[d], group)
	}
}

// partOf is a value of a series that a join is on.
func (q *Panel) partOf(p dimPart, s int32) (n int64, text string, ok bool) {
	if p.key >= 0 {
		if q.pan.keys[p.key].text {
			return 0, q.keyNames[p.key].strOf[q.keyOf[p.key][s]], true
		}
		return q.keyNames[p.key].intOf[q.keyOf[p.key][s]], "", true
	}
	via := &q.pan.dims[p.via]
	row := via.at(q.groups[p.via][s], 0)
	if row == none || via.rows.Columns[p.take].IsNull(int(row)) {
		return 0, "", false
	}
	c := &via.rows.Columns[p.take]
	if c.Strings != nil {
		return 0, c.Strings[row], true
	}
	return c.Ints[row], "", true
}

// of computes a measure over the transactions of a chain; ok is false where there are none with a value.
func (m *measure) of(pan *panelPlan, st *openStep, chain []int32) (v float64, ok bool) {
	switch m.kind {
	case aggCount:
		n := 0
		for _, i := range chain {
			n += btoi(in(m.rows, st.class[i]))
		}
		return float64(n), n > 0
	case aggDistinct:
		return m.distinct(st, chain)
	case aggLast:
		for k := len(chain) - 1; k >= 0; k-- {
			if i := chain[k]; m.has(st, i) {
				return m.number(pan, st, i), true
			}
		}
		return 0, false
	case aggMax:
		for _, i := range chain {
			if !m.has(st, i) {
				continue
			}
			if x := m.number(pan, st, i); !ok || x > v {
				v, ok = x, true
			}
		}
		return v, ok
	}
	return m.total(pan, st, chain)
}

func (m *measure) has(st *openStep, i int32) bool {
	return in(m.rows, st.class[i]) && st.noVal[i]>>m.val&1 == 0
}

// whole is a transaction's value in units; what goes back is positive by itself and negative among sales.
func (m *measure) whole(pan *panelPlan, st *openStep, i int32) int64 {
	x := st.vals[m.val][i]
	if st.class[i] < classReturned {
		return x
	}
	if x < 0 {
		x = -x
	}
	if m.rows == rowsAll {
		return -x
	}
	return x
}

func (m *measure) number(pan *panelPlan, st *openStep, i int32) float64 {
	if !m.float {
		return scaled(m.whole(pan, st, i), m.scale)
	}
	x := math.Float64frombits(uint64(st.vals[m.val][i]))
	if st.class[i] >= classReturned {
		if x = math.Abs(x); m.rows == rowsAll {
			x = -x
		}
	}
	return x
}

// total is a sum or a mean: of whole numbers exact and divided once, of floating point in canonical order.
func (m *measure) total(pan *panelPlan, st *openStep, chain []int32) (float64, bool) {
	var sum wide
	var float float64
	n := int64(0)
	for _, i := range chain {
		if !m.has(st, i) {
			continue
		}
		n++
		if m.float {
			float += m.number(pan, st, i)
		} else {
			sum.add(m.whole(pan, st, i))
		}
	}
	by := int64(1)
	if m.kind == aggMean {
		by = max(1, n)
	}
	if m.float {
		return float / float64(by), n > 0
	}
	return sum.over(by, m.scale), n > 0
}

func (m *measure) distinct(st *openStep, chain []int32) (float64, bool) {
	var few [16]int64
	values := few[:0]
	for _, i := range chain {
		if in(m.rows, st.class[i]) && st.noTag[i]>>m.tag&1 == 0 {
			values = append(values, st.tags[m.tag][i])
		}
	}
	slices.Sort(values)
	n := len(slices.Compact(values))
	return float64(n), n > 0
}
