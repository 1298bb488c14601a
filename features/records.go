package features

import (
	"cmp"
	"slices"
	"strings"
	"unsafe"

	"github.com/onmart/onmart/datasets"
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

func (n *names) len() int { return len(n.intOf) + len(n.strOf) }

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

// records are the recent events, transactions and labels, in log order: the whole of an engine's state is
// computed from them. Columns of equal length; the first `gone` rows are dropped already.
type records struct {
	gone  int
	base  int64     // absolute number of row 0; numbers only grow
	t     []int64   // event time of a transaction, known-at of a label
	part  []int32   // partition
	seq   []int64   // position in the partition
	line  []int64   // none for a label meant for every line
	label []int8    // a transaction's own label or none; a label event's value
	isLab []bool    // a label event
	idInt []int64   // trans_id, if it is a number
	idStr []string  // trans_id, if it is text
	keys  [][]int32 // by Plan.labelled: number of the key, or none
	text  textArena

	// Index by trans_id, nil until it is needed: the absolute number of the latest event of a trans_id,
	// and from each row the distance to the one before it (0: none).
	headInt map[int64]int64
	headStr map[string]int64
	older   []uint32
}

func newRecords(p *Plan) *records {
	return &records{keys: make([][]int32, len(p.labelled))}
}

func (r *records) indexed() bool { return r != nil && (r.headInt != nil || r.headStr != nil) }

// bytes is about the memory of the columns and of the index.
func (r *records) bytes() int64 {
	if r == nil {
		return 0
	}
	n := int64(cap(r.t))*(8+4+8+8+1+1) + int64(cap(r.idInt))*8 + int64(cap(r.idStr))*(16+8) + int64(cap(r.older))*4
	n += int64(len(r.headInt)+len(r.headStr)) * 32
	return n + int64(len(r.keys)*cap(r.t))*4
}

// buildIndex makes the index over the events that are held.
func (r *records) buildIndex(text bool) {
	if text {
		r.headStr = map[string]int64{}
	} else {
		r.headInt = map[int64]int64{}
	}
	r.older = make([]uint32, len(r.t), cap(r.t))
	for i := r.gone; i < len(r.t); i++ {
		r.link(i)
	}
}

// link enters row i, the newest, into the index.
func (r *records) link(i int) {
	abs := r.base + int64(i)
	var last int64
	var ok bool
	if r.headStr != nil {
		last, ok = r.headStr[r.idStr[i]]
		r.headStr[r.idStr[i]] = abs
	} else {
		last, ok = r.headInt[r.idInt[i]]
		r.headInt[r.idInt[i]] = abs
	}
	r.older[i] = 0
	if ok {
		r.older[i] = uint32(abs - last)
	}
}

// latest returns the newest row of a trans_id, or -1; next goes on to the older ones.
func (r *records) latest(id int64, name string) int {
	var abs int64
	var ok bool
	if r.headStr != nil {
		abs, ok = r.headStr[name]
	} else {
		abs, ok = r.headInt[id]
	}
	if !ok {
		return -1
	}
	return int(abs - r.base)
}

func (r *records) next(i int) int {
	d := int(r.older[i])
	if d == 0 || i-d < r.gone {
		return -1
	}
	return i - d
}

// held tells whether a row has to be kept: a label as long as any transaction that it can be of.
func (r *records) held(i int, p *Plan, bound int64) bool {
	hold := r.t[i] + p.retain
	if r.isLab[i] {
		hold += p.acceptFor
	}
	return hold > bound
}

// drop forgets the oldest rows while they are past holding.
func (r *records) drop(p *Plan, bound int64) {
	if r == nil {
		return
	}
	i := r.gone
	for i < len(r.t) && !r.held(i, p, bound) {
		if r.headStr != nil {
			if r.headStr[r.idStr[i]] == r.base+int64(i) {
				delete(r.headStr, r.idStr[i])
			}
		} else if r.headInt != nil && r.headInt[r.idInt[i]] == r.base+int64(i) {
			delete(r.headInt, r.idInt[i])
		}
		i++
	}
	r.gone = i
	if r.gone >= recordsSlack && r.gone*2 > len(r.t) {
		r.compact()
	}
}

// recordsSlack is how many dropped rows are worth moving the rest for.
const recordsSlack = 4096

func (r *records) compact() {
	g := r.gone
	r.base += int64(g)
	r.gone = 0
	r.t = cut(r.t, g)
	r.part = cut(r.part, g)
	r.seq = cut(r.seq, g)
	r.line = cut(r.line, g)
	r.label = cut(r.label, g)
	r.isLab = cut(r.isLab, g)
	if r.idStr != nil {
		r.idStr = cut(r.idStr, g)
	} else {
		r.idInt = cut(r.idInt, g)
	}
	for c := range r.keys {
		r.keys[c] = cut(r.keys[c], g)
	}
	if r.indexed() {
		r.older = cut(r.older, g)
	}
}

// cut removes the first g values in place, so that the room behind is used again.
func cut[T any](s []T, g int) []T {
	n := copy(s, s[g:])
	clear(s[n:])
	return s[:n]
}

// add appends an event; the keys of a transaction are appended by the caller.
func (r *records) add(t int64, part int32, seq, line int64, label int8, isLab, text bool, id int64, name string) {
	r.t = append(r.t, t)
	r.part = append(r.part, part)
	r.seq = append(r.seq, seq)
	r.line = append(r.line, line)
	r.label = append(r.label, label)
	r.isLab = append(r.isLab, isLab)
	if text {
		r.idStr = append(r.idStr, r.text.keep(name))
	} else {
		r.idInt = append(r.idInt, id)
	}
	if r.indexed() {
		r.older = append(r.older, 0)
		r.link(len(r.t) - 1)
	}
}

// addLabelColumns fills the key columns of a label event, which has none.
func (r *records) addLabelColumns() {
	for c := range r.keys {
		r.keys[c] = append(r.keys[c], none)
	}
}

// canonical lists the rows that count, in the order (T, partition, position).
func (r *records) canonical(p *Plan, bound int64) []int32 {
	if r == nil {
		return nil
	}
	rows := make([]int32, 0, len(r.t)-r.gone)
	for i := r.gone; i < len(r.t); i++ {
		if r.held(i, p, bound) {
			rows = append(rows, int32(i))
		}
	}
	slices.SortStableFunc(rows, func(a, b int32) int {
		return cmp.Or(cmp.Compare(r.t[a], r.t[b]), cmp.Compare(r.part[a], r.part[b]), cmp.Compare(r.seq[a], r.seq[b]))
	})
	return rows
}
