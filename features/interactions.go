package features

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/datasets"
)

// Interactions is the engine of a spec with `interactions:`. It folds transactions and gives one row for each item
// of a purchase: user, item, time, weight, trans_id. It is for one goroutine.
//
// Lines are taken in the order (event time, partition, position) once the watermark, less the spec's lateness, has
// passed them, and lines of one purchase, user and item are one row if they are not more than `hold` after the
// first; the row is given when that time has passed. So rows come ordered by time, and nothing depends on how the
// log was cut into batches, on restarts or, where no transaction is late, on how partitions were interleaved. A
// late transaction is counted and gives a row of its own, out of order.
type Interactions struct {
	p  *Plan
	x  *interPlan
	rd rowReader

	users, items *names
	text         textArena
	lines        lineStore
	queue        fifo // lines not taken yet, in canonical order
	groups       map[basket]int32
	begun        fifo               // first lines of the groups that are held, in order
	bought       map[uint64][]int32 // by user and item: held lines that a return may undo, in any order

	watermark int64
	position  int64
	counts    Counts
	out       *datasets.Batch
}

// basket names what becomes one row.
type basket struct {
	user, item int32
	id         int64
	name       string
	back       bool
}

// lineStore is transactions that are held, as columns; places are used again.
type lineStore struct {
	t, seq     []int64
	part       []int32
	user, item []int32
	id         []int64
	name       []string
	back       []bool
	undone     []bool
	next       []int32 // the next line of its group
	vals       [][]int64
	noVal      []uint64
	tags       [][]tagValue
	kept       []datasets.Column
	free       []int32
}

// fifo is a queue of lines whose front moves on without moving the rest each time.
type fifo struct {
	all  []int32
	gone int
}

func (f *fifo) list() []int32 { return f.all[f.gone:] }

func (f *fifo) drop(n int) {
	if f.gone += n; f.gone >= 1024 && 2*f.gone > len(f.all) || f.gone == len(f.all) {
		f.all = f.all[:copy(f.all, f.all[f.gone:])]
		f.gone = 0
	}
}

// tagValue is a value that is compared.
type tagValue struct {
	n    int64
	s    string
	null bool
}

// NewInteractions makes an engine with an empty state. It panics where the plan is of another shape.
func (p *Plan) NewInteractions() *Interactions {
	if p.inter == nil {
		panic(fmt.Sprintf("features: the spec %s is of %s, not of interactions", p.spec.name, p.spec.Shape()))
	}
	e := &Interactions{p: p, x: p.inter, rd: newRowReader(p, &p.inter.rowPlan)}
	e.reset()
	return e
}

func (e *Interactions) reset() {
	x := e.x
	e.users, e.items = newNames(x.ext.Fields[x.user.col].Type), newNames(x.ext.Fields[x.item.col].Type)
	e.lines = lineStore{vals: make([][]int64, len(x.vals)), tags: make([][]tagValue, len(x.tags)),
		kept: make([]datasets.Column, len(x.kept))}
	e.queue, e.begun = fifo{}, fifo{}
	e.groups, e.bought = map[basket]int32{}, map[uint64][]int32{}
	e.watermark, e.position = beginning, 0
}

// Plan is what the engine computes.
func (e *Interactions) Plan() *Plan { return e.p }

// Watermark is the greatest event time of the transactions so far, or math.MinInt64 before the first.
func (e *Interactions) Watermark() int64 { return e.watermark }

// Counts is what became of all rows so far.
func (e *Interactions) Counts() Counts { return e.counts }

// Process folds a batch in order and appends to out, a batch of the plan's Schema, the rows that are complete. The
// batch has the schema that the plan was made for. An error means that a batch does not fit, and nothing was
// folded.
func (e *Interactions) Process(in, out *datasets.Batch) error {
	if err := e.p.fits(in); err != nil {
		return err
	}
	if err := e.p.takes(out); err != nil {
		return err
	}
	e.out = out
	e.rd.begin(in)
	for i := range in.N {
		e.event(i)
	}
	return nil
}

// Advance gives the rows of all purchases before the watermark, whatever the spec's lateness and hold.
func (e *Interactions) Advance(watermark int64, out *datasets.Batch) error {
	if err := e.p.takes(out); err != nil {
		return err
	}
	e.out = out
	e.take(watermark)
	e.release(math.MaxInt64, watermark)
	return nil
}

func (e *Interactions) event(i int) {
	p, x, rd := e.p, e.x, &e.rd
	seq, part := e.position, int32(0)
	if p.part >= 0 {
		part = int32(rd.cols[p.part].Ints[i])
		if p.seq >= 0 {
			seq = rd.cols[p.seq].Ints[i]
		}
	}
	e.position = max(e.position, seq+1)
	if !rd.isTransaction(i) {
		e.counts.LabelsIgnored++
		return
	}
	if rd.cols[p.time].IsNull(i) || rd.cols[x.id].IsNull(i) {
		e.counts.Invalid++
		return
	}
	t := rd.cols[p.time].Ints[i]
	if t > maxTime || t < -maxTime {
		e.counts.Invalid++
		return
	}
	if t > e.watermark {
		e.watermark = t
		e.settle(t - p.lateness)
	}
	switch {
	case !rd.chosen(i):
		e.counts.Filtered++
		return
	case rd.cols[x.user.col].IsNull(i) || rd.cols[x.item.col].IsNull(i):
		e.counts.Unkeyed++
		return
	case x.weight >= 0 && rd.cols[x.vals[x.weight].col].IsNull(i) || x.target >= 0 &&
		rd.cols[x.vals[x.target].col].IsNull(i):
		e.counts.Invalid++
		return
	}
	back, negative := rd.isReturn(i)
	if negative {
		e.counts.Negative++
	}
	if t < e.watermark-p.lateness {
		e.counts.Late++
	} else {
		e.counts.Scored++
	}
	if back && x.policy == returnsIgnore {
		e.counts.Returned++
		return
	}
	l := e.add(i, t, seq, part, back)
	queue := e.queue.list()
	at := len(queue)
	if at > 0 && e.lines.compare(queue[at-1], l) > 0 {
		at, _ = slices.BinarySearchFunc(queue, l, e.lines.compare)
	}
	e.queue.all = slices.Insert(e.queue.all, e.queue.gone+at, l)
	if t < e.watermark-p.lateness {
		e.settle(e.watermark - p.lateness)
	}
}

// add stores a line.
func (e *Interactions) add(i int, t, seq int64, part int32, back bool) int32 {
	x, s, rd := e.x, &e.lines, &e.rd
	number := func(n *names, k keyColumn) int32 {
		if k.text {
			return n.ofString(rd.cols[k.col].Strings[i])
		}
		return n.ofInt(rd.cols[k.col].Ints[i])
	}
	l := s.place()
	s.t[l], s.seq[l], s.part[l], s.back[l], s.undone[l], s.next[l], s.noVal[l] = t, seq, part, back, false, none, 0
	s.user[l], s.item[l] = number(e.users, x.user), number(e.items, x.item)
	if x.idText {
		s.name[l] = e.text.keep(rd.cols[x.id].Strings[i])
	} else {
		s.id[l] = rd.cols[x.id].Ints[i]
	}
	for v := range x.vals {
		c := &rd.cols[x.vals[v].col]
		if s.vals[v][l] = c.Ints[i]; c.IsNull(i) {
			s.noVal[l] |= 1 << v
		}
	}
	for k, col := range x.tags {
		c := &rd.cols[col]
		v := tagValue{null: c.IsNull(i)}
		if c.Strings != nil {
			v.s = e.text.keep(c.Strings[i])
		} else {
			v.n = c.Ints[i]
		}
		s.tags[k][l] = v
	}
	for k, col := range x.kept {
		s.keep(k, l, &rd.cols[col], i, x.ext.Fields[col].Type, &e.text)
	}
	return l
}

// place gives room for a line.
func (s *lineStore) place() int32 {
	if n := len(s.free); n > 0 {
		l := s.free[n-1]
		s.free = s.free[:n-1]
		return l
	}
	s.t, s.seq, s.part = append(s.t, 0), append(s.seq, 0), append(s.part, 0)
	s.user, s.item = append(s.user, 0), append(s.item, 0)
	s.id, s.name = append(s.id, 0), append(s.name, "")
	s.back, s.undone, s.next, s.noVal = append(s.back, false), append(s.undone, false), append(s.next,
		none), append(s.noVal, 0)
	for v := range s.vals {
		s.vals[v] = append(s.vals[v], 0)
	}
	for k := range s.tags {
		s.tags[k] = append(s.tags[k], tagValue{})
	}
	for k := range s.kept {
		c := &s.kept[k]
		c.Ints, c.Floats, c.Strings, c.Null = append(c.Ints, 0), append(c.Floats, 0), append(c.Strings, ""), append(c.Null,
			false)
	}
	return int32(len(s.t) - 1)
}

func (s *lineStore) keep(k int, l int32, from *datasets.Column, i int, t datasets.Type, text *textArena) {
	c := &s.kept[k]
	c.Null[l] = from.IsNull(i)
	switch t {
	case datasets.Float64:
		c.Floats[l] = from.Floats[i]
	case datasets.String:
		c.Strings[l] = text.keep(from.Strings[i])
	default:
		c.Ints[l] = from.Ints[i]
	}
}

func (s *lineStore) compare(a, b int32) int {
	return cmp.Or(cmp.Compare(s.t[a], s.t[b]), cmp.Compare(s.part[a], s.part[b]), cmp.Compare(s.seq[a], s.seq[b]))
}

// settle takes what lies before the bound and gives the rows whose hold is over.
func (e *Interactions) settle(bound int64) {
	e.take(bound)
	e.release(e.x.hold, bound)
}

// take folds the queued lines before the bound into their groups, in canonical order.
func (e *Interactions) take(bound int64) {
	n := 0
	queue := e.queue.list()
	for n < len(queue) && e.lines.t[queue[n]] < bound {
		l := queue[n]
		e.release(e.x.hold, e.lines.t[l])
		e.line(l)
		n++
	}
	e.queue.drop(n)
}

func (e *Interactions) basketOf(l int32) basket {
	s := &e.lines
	return basket{s.user[l], s.item[l], s.id[l], s.name[l], s.back[l]}
}

func (e *Interactions) pair(l int32) uint64 {
	return uint64(uint32(e.lines.user[l]))<<32 | uint64(uint32(e.lines.item[l]))
}

// line folds one line: a return that undoes a purchase takes it out, anything else joins or begins a group.
func (e *Interactions) line(l int32) {
	s := &e.lines
	if s.back[l] && e.x.policy == returnsRemove {
		e.undo(l)
		s.free = append(s.free, l)
		return
	}
	key := e.basketOf(l)
	first, held := e.groups[key]
	if !held {
		e.groups[key] = l
		e.begun.all = append(e.begun.all, l)
	} else {
		last := first
		for s.next[last] != none {
			last = s.next[last]
		}
		s.next[last] = l
	}
	if e.x.policy == returnsRemove {
		e.bought[e.pair(l)] = append(e.bought[e.pair(l)], l)
	}
}

// undo marks the latest line that a return undoes.
func (e *Interactions) undo(back int32) {
	s := &e.lines
	e.counts.Returned++
	best := int32(none)
	for _, l := range e.bought[e.pair(back)] {
		if s.undone[l] || s.t[l] < s.t[back]-e.x.hold || s.compare(l, back) > 0 || !e.alike(l, back) {
			continue
		}
		if best == none || s.compare(best, l) < 0 {
			best = l
		}
	}
	if best != none {
		s.undone[best] = true
		e.counts.Undone++
	}
}

// alike tells whether a purchase has the quantity and the values of the return.
func (e *Interactions) alike(l, back int32) bool {
	s, x := &e.lines, e.x
	if t := x.target; t >= 0 {
		a, b := s.vals[t][l], s.vals[t][back]
		if a != b && a != -b {
			return false
		}
	}
	for _, k := range x.undo {
		a, b := &s.tags[k][l], &s.tags[k][back]
		if a.null || b.null || a.n != b.n || a.s != b.s {
			return false
		}
	}
	return true
}

// release gives the rows of groups that began longer than hold before the bound; a hold of math.MaxInt64 stands for
// all that began before it.
func (e *Interactions) release(hold, bound int64) {
	s := &e.lines
	n := 0
	begun := e.begun.list()
	for n < len(begun) {
		first := begun[n]
		if hold == math.MaxInt64 && s.t[first] >= bound || hold != math.MaxInt64 && s.t[first]+hold >= bound {
			break
		}
		e.row(first)
		delete(e.groups, e.basketOf(first))
		for l := first; l != none; {
			next := s.next[l]
			e.forget(l)
			l = next
		}
		n++
	}
	e.begun.drop(n)
}

// forget frees a line.
func (e *Interactions) forget(l int32) {
	s := &e.lines
	if e.x.policy == returnsRemove {
		pair := e.pair(l)
		list := slices.DeleteFunc(e.bought[pair], func(x int32) bool { return x == l })
		if len(list) == 0 {
			delete(e.bought, pair)
		} else {
			e.bought[pair] = list
		}
	}
	s.name[l] = ""
	s.free = append(s.free, l)
}

// row appends the row of a group, unless all of it was undone.
func (e *Interactions) row(first int32) {
	s, x, out := &e.lines, e.x, e.out
	var sum wide
	some := false
	for l := first; l != none; l = s.next[l] {
		if s.undone[l] {
			continue
		}
		some = true
		if x.weight >= 0 {
			v := s.vals[x.weight][l]
			if s.back[l] && v < 0 {
				v = -v
			}
			sum.add(v)
		}
	}
	if !some {
		return
	}
	weight := 1.0
	if x.weight >= 0 {
		weight = sum.over(1, x.scale)
	}
	if x.log {
		weight = math.Copysign(math.Log1p(math.Abs(weight)), weight)
	}
	if s.back[first] {
		weight = 0 - weight // no negative zero
	}
	put := func(c *datasets.Column, n *names, id int32) {
		if n.strs != nil {
			c.Strings = append(c.Strings, n.strOf[id])
		} else {
			c.Ints = append(c.Ints, n.intOf[id])
		}
	}
	put(&out.Columns[0], e.users, s.user[first])
	put(&out.Columns[1], e.items, s.item[first])
	out.Columns[2].Ints = append(out.Columns[2].Ints, s.t[first])
	out.Columns[3].Floats = append(out.Columns[3].Floats, weight)
	if x.idText {
		out.Columns[4].Strings = append(out.Columns[4].Strings, s.name[first])
	} else {
		out.Columns[4].Ints = append(out.Columns[4].Ints, s.id[first])
	}
	for k, col := range x.kept {
		c, from := &out.Columns[5+k], &s.kept[k]
		switch x.ext.Fields[col].Type {
		case datasets.Float64:
			c.Floats = append(c.Floats, from.Floats[first])
		case datasets.String:
			c.Strings = append(c.Strings, from.Strings[first])
		default:
			c.Ints = append(c.Ints, from.Ints[first])
		}
		if from.Null[first] && c.Null == nil {
			c.Null = make([]bool, out.N)
		}
		if c.Null != nil {
			c.Null = append(c.Null, from.Null[first])
		}
	}
	out.N++
}
