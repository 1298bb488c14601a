package features

import (
	"cmp"
	"slices"
	"strings"
	"unsafe"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/slab"
)

// none marks an absent key, line or label in records.
const none = -1

// names gives the values of a key column dense numbers in the order of appearance.
type names struct {
	ints map[int64]int32
	strs map[string]int32
	// The values by number: one of the two is used.
	intOf []int64
	strOf []string
}

func newNames(t datasets.Type) *names {
	if t == datasets.String {
		return &names{strs: map[string]int32{}}
	}
	return &names{ints: map[int64]int32{}}
}

func (n *names) ofInt(v int64) int32 {
	id, ok := n.ints[v]
	if !ok {
		id = int32(len(n.intOf))
		n.ints[v] = id
		n.intOf = append(n.intOf, v)
	}
	return id
}

func (n *names) ofString(v string) int32 {
	id, ok := n.strs[v]
	if !ok {
		id = int32(len(n.strOf))
		v = strings.Clone(v) // the caller's may be part of a large buffer
		n.strs[v] = id
		n.strOf = append(n.strOf, v)
	}
	return id
}

// textBlock is how much memory names of transactions are copied into at a time: large against a name, so
// that a live event costs no allocation of its own, and small against a state.
const textBlock = 64 << 10

// textArena copies strings into blocks that the garbage collector frees when their last string is gone.
type textArena struct{ free []byte }

func (a *textArena) keep(s string) string {
	if len(s) == 0 {
		return ""
	}
	if len(s) > len(a.free) {
		a.free = make([]byte, max(textBlock, len(s)))
	}
	n := copy(a.free, s)
	kept := unsafe.String(&a.free[0], n)
	a.free = a.free[n:]
	return kept
}

// records are the recent events, transactions and labels, in log order, by absolute numbers that only grow. They are
// what labels and duplicates are found by. They lie in pages of an arena, which are used again as events are dropped, so
// that a live event neither allocates nor moves others.
type records struct {
	a     *slab.Arena
	width int       // words of an event
	pages [][]int64 // of recordPage events each
	spare [][]int64
	first int64 // number of the first event of pages[0], a multiple of recordPage
	gone  int64 // the first that is held
	end   int64 // the next one's number

	// The index by trans_id. Of whole numbers it is made when it is first asked for, by a label event or for duplicates:
	// most of what a backfill with a state does would be to make it.
	indexed bool
	ids     keyTable  // of trans_id
	heads   pagedInts // by number of a trans_id: its latest event
}

const (
	recordBits = 12
	recordPage = 1 << recordBits
)

// Words of an event; behind them are the numbers of its keys by Plan.labelled, two a word.
const (
	recTime  = iota // event time of a transaction, known-at of a label
	recSeq          // position in the partition
	recLine         // none for a label meant for every line
	recID           // number of the trans_id, and in the upper half the distance to its event before this one, 0: none
	recFlags        // partition, and in the upper half the label, plus 1, and recLabel
	recInt          // a trans_id that is a number
	recWords
)

const recLabel = 1 << 8 // a label event

func newRecords(p *Plan, a *slab.Arena) *records {
	return &records{a: a, width: recWords + (len(p.labelled)+1)/2, ids: newKeyTable(&keyPlan{text: p.idText}, a), indexed: p.idText,
		heads: pagedInts{a: a}}
}

// record is one event.
type record []int64

func (r *records) at(i int64) record {
	i -= r.first
	o := int(i&(recordPage-1)) * r.width
	return r.pages[i>>recordBits][o : o+r.width : o+r.width]
}

func (x record) t() int64      { return x[recTime] }
func (x record) seq() int64    { return x[recSeq] }
func (x record) line() int64   { return x[recLine] }
func (x record) id() uint32    { return uint32(x[recID]) }
func (x record) part() int32   { return int32(x[recFlags]) }
func (x record) label() int8   { return int8(x[recFlags]>>32&0xff) - 1 } // none without one
func (x record) isLabel() bool { return x[recFlags]>>32&recLabel != 0 }

func (x record) key(i int) int32 { return int32(x[recWords+i/2] >> (32 * (i & 1))) }

func (x record) setKey(i int, id int32) {
	w, shift := &x[recWords+i/2], 32*(i&1)
	*w = *w&^(0xffffffff<<shift) | int64(uint32(id))<<shift
}

// index makes the index, if it is not there.
func (r *records) index() {
	if r.indexed {
		return
	}
	r.indexed = true
	for i := r.gone; i < r.end; i++ {
		id, fresh := r.ids.ints.ID(r.at(i)[recInt])
		r.link(i, id, fresh)
	}
}

// link enters the newest event into the index.
func (r *records) link(i int64, id uint32, fresh bool) {
	r.heads.reach(id)
	head, older := r.heads.at(id), int64(0)
	if !fresh && i-*head < 1<<31 {
		older = i - *head
	}
	*head = i
	r.at(i)[recID] = older<<32 | int64(id)
}

// find is the number of a trans_id, if events are held of it. There has to be an index.
func (r *records) find(ev *event) (id uint32, ok bool) {
	if r.ids.texts != nil {
		return r.ids.texts.Find(ev.name)
	}
	return r.ids.ints.Find(ev.id)
}

// latest is the newest event of a trans_id; next goes on to the older ones, none at the end.
func (r *records) latest(id uint32) int64 { return *r.heads.at(id) }

func (r *records) next(i int64) int64 {
	d := r.at(i)[recID] >> 32
	if d == 0 || i-d < r.gone {
		return none
	}
	return i - d
}

// add appends an event and gives its number. The keys are all none.
func (r *records) add(t int64, ev *event, label int8, isLabel bool) int64 {
	i := r.end
	if int(i-r.first)>>recordBits == len(r.pages) {
		r.grow()
	}
	r.end++
	x := r.at(i)
	flags := int64(uint8(label + 1))
	if isLabel {
		flags |= recLabel
	}
	x[recTime], x[recSeq], x[recLine], x[recInt] = t, ev.seq, ev.line, ev.id
	x[recFlags] = flags<<32 | int64(uint32(ev.part))
	for w := recWords; w < r.width; w++ {
		x[w] = -1 // none, twice
	}
	switch {
	case r.ids.texts != nil:
		id, fresh := r.ids.texts.ID(ev.name)
		r.link(i, id, fresh)
	case r.indexed:
		id, fresh := r.ids.ints.ID(ev.id)
		r.link(i, id, fresh)
	}
	return i
}

// grow adds a page.
func (r *records) grow() {
	if n := len(r.spare); n > 0 {
		r.pages, r.spare = append(r.pages, r.spare[n-1]), r.spare[:n-1]
		return
	}
	words := recordPage * r.width
	ref, _ := r.a.Alloc(words)
	r.pages = append(r.pages, r.a.Words(ref, words))
}

// held tells whether an event has to be kept: a label as long as any transaction that it can be of.
func (r *records) held(i int64, p *Plan, bound int64) bool {
	x := r.at(i)
	hold := x.t() + p.retain
	if x.isLabel() {
		hold += p.acceptFor
	}
	return hold > bound
}

// drop forgets the oldest events while they are past holding.
func (r *records) drop(p *Plan, bound int64) {
	if r == nil {
		return
	}
	for r.gone < r.end && !r.held(r.gone, p, bound) {
		if r.indexed {
			if id := r.at(r.gone).id(); *r.heads.at(id) == r.gone {
				r.ids.drop(int32(id))
			}
		}
		r.gone++
	}
	for r.gone-r.first >= recordPage {
		page := r.pages[0]
		r.pages = append(r.pages[:0], r.pages[1:]...)
		r.spare = append(r.spare, page)
		r.first += recordPage
	}
}

// canonical lists the events that count, in the order (T, partition, position).
func (r *records) canonical(p *Plan, bound int64) []int64 {
	if r == nil {
		return nil
	}
	var rows []int64
	for i := r.gone; i < r.end; i++ {
		if r.held(i, p, bound) {
			rows = append(rows, i)
		}
	}
	inOrder := func(a, b int64) int {
		x, y := r.at(a), r.at(b)
		if x.t() != y.t() {
			return cmp.Compare(x.t(), y.t())
		}
		return cmp.Or(cmp.Compare(x.part(), y.part()), cmp.Compare(x.seq(), y.seq()))
	}
	if !slices.IsSortedFunc(rows, inOrder) {
		slices.SortStableFunc(rows, inOrder)
	}
	return rows
}

// pagedInts are numbers by a number, in pages that are never copied.
type pagedInts struct {
	a     *slab.Arena
	pages [][]int64
}

const intsBits = 12

func (p *pagedInts) reach(i uint32) {
	for int(i>>intsBits) >= len(p.pages) {
		ref, _ := p.a.Alloc(1 << intsBits)
		p.pages = append(p.pages, p.a.Words(ref, 1<<intsBits))
	}
}

func (p *pagedInts) at(i uint32) *int64 { return &p.pages[i>>intsBits][i&(1<<intsBits-1)] }
