package features

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/onmart/onmart/features/slab"
)

// A snapshot is, in this order: the magic line, the nodes, the watermark, the position, the time that was not believed,
// the keys that hold anything, the records in the order (T, partition, position), and by group and key what the key
// holds; a CRC-32C of all of it, little endian, ends it. Numbers are varints, times as differences to the one before.
// Keys are in the order of their values, pairs in that of their parts, and named by their place.
const snapshotMagic = "onmart features state 2\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshotCount bounds any number of things that is believed of a snapshot.
const snapshotCount = 1 << 32

// Snapshot writes the state down. Equal states give equal bytes, whatever the batches and threads and, for
// events with their own positions, whatever the order in which they came. The state of an engine that was told that no
// label or duplicate will come has no events in it.
func (e *Engine) Snapshot(w io.Writer) error {
	s := &stateWriter{snapshotWriter: newSnapshotWriter(w), p: e.p, st: e.st}
	s.raw(snapshotMagic)
	s.uint(uint64(len(e.p.nodes)))
	for _, n := range e.p.nodes {
		s.text(n.Name)
		s.text(n.Fingerprint)
	}
	s.int(e.st.watermark)
	s.int(e.st.position)
	s.int(e.st.candidate)
	s.collect()
	s.keys()
	s.records()
	for g := range e.st.groups {
		gs := &e.st.groups[g]
		order := s.order[gs.key]
		for i, id := range order {
			if i+fetchAhead < len(order) {
				gs.fetchRing(order[i+fetchAhead])
			}
			s.held(gs, id)
		}
	}
	return s.close()
}

// fetchAhead is how many keys before it is needed a ring is fetched: keys come in the order of their values, and their
// rings lie anywhere.
const fetchAhead = 8

// stateWriter writes an engine's state.
type stateWriter struct {
	snapshotWriter
	p     *Plan
	st    *state
	rows  []int64   // of the records, in their order
	holds [][]bool  // by key and number
	order [][]int32 // by key: the numbers of those that hold anything, in the order of their values
	rank  [][]int32 // by key and number: its place
	ties  []int32
	words []int64
	bag   []slab.Counted
}

// settled is W-lateness: what windows end at or after.
func (st *state) settled(p *Plan) int64 {
	if st.watermark == beginning {
		return beginning
	}
	return st.watermark - p.lateness
}

// labelsSeen is how far back a group's windows over labels reach.
func (gs *groupState) labelsSeen(settled int64) int64 {
	if settled == beginning {
		return beginning
	}
	return settled - gs.labels
}

// seen is how far back a group's windows reach.
func (gs *groupState) seen(settled int64) int64 {
	if settled == beginning {
		return beginning
	}
	return settled - gs.span
}

// collect finds the keys that hold anything.
func (s *stateWriter) collect() {
	st := s.st
	s.rows = st.rec.canonical(s.p, s.p.horizonAt(st.watermark))
	s.holds = make([][]bool, len(s.p.keys))
	for k := range s.p.keys {
		s.holds[k] = make([]bool, st.keys[k].cap())
	}
	for i, l := range s.p.labelled {
		for _, row := range s.rows {
			if id := st.rec.at(row).key(i); id != none {
				s.holds[l.key][id] = true
			}
		}
	}
	for g := range st.groups {
		gs := &st.groups[g]
		heads := len(gs.pages) * headPage
		for id := range s.holds[gs.key] {
			if id+fetchAhead < heads {
				gs.fetchRing(int32(id + fetchAhead))
			}
			if id < heads && gs.holds(int32(id), st.settled(s.p), st.watermark) {
				s.holds[gs.key][id] = true
			}
		}
	}
	s.order, s.rank = make([][]int32, len(s.p.keys)), make([][]int32, len(s.p.keys))
	for k := len(s.p.keys) - 1; k >= 0; k-- { // a pair stands behind its parts
		if kp := &s.p.keys[k]; kp.col < 0 {
			for id, ok := range s.holds[k] {
				if ok {
					v := st.keys[k].ints.Value(uint32(id))
					s.holds[kp.left][v>>32] = true
					s.holds[kp.right][uint32(v)] = true
				}
			}
		}
	}
}

// holds tells whether a key has anything in the group that some feature to come can show.
func (gs *groupState) holds(id int32, settled, mark int64) bool {
	r := gs.open(id)
	if gs.pending() {
		gs.advance(&r, mark)
	}
	if gs.accumulates && r.h[gs.acc+accN] > 0 {
		return true
	}
	if r.n > gs.forgettable(&r, gs.seen(settled), settled) {
		return true
	}
	for i := range gs.outs {
		if o := &gs.outs[i]; o.kind == EWMA && r.h[o.slot+ewmaWeight] != 0 {
			return true
		}
	}
	if !gs.label || !gs.group.ring {
		return false
	}
	d := gs.deltaOf(&r)
	if d == nil {
		return false
	}
	points, side, wait := gs.changed(d, gs.labelsSeen(settled), mark)
	return len(points)+len(side)+len(wait) > 0 || d.n != 0 || d.y != 0
}

// triple is a change as a snapshot has it.
type triple [blockWords]int64

func compareTriples(a, b triple) int { return slices.Compare(a[:], b[:]) }

// changed is a delta by what it comes to: entries and labels by instant, entries that are replaced, and what waits.
func (gs *groupState) changed(d *delta, bound, mark int64) (points, side, wait []triple) {
	w := d.points.words(gs.a)
	for i := range int(d.points.n) {
		o := i * blockWords
		if w[o] > bound {
			points = append(points, triple{w[o], w[o+blockWords+1] - w[o+1], w[o+blockWords+2] - w[o+2]})
		}
	}
	list := func(b *block) (list []triple) {
		w := b.words(gs.a)
		for i := range int(b.n) {
			list = append(list, triple(w[i*blockWords:(i+1)*blockWords]))
		}
		slices.SortFunc(list, compareTriples)
		return list
	}
	for _, e := range list(&d.side) {
		if e[0] > bound {
			side = append(side, e)
		}
	}
	gs.deltaEver(d, mark)
	return netted(points), side, netted(list(&d.wait))
}

// netted adds up what is of one instant, and leaves out what comes to nothing. The list is in the order of instants.
func netted(list []triple) []triple {
	var out []triple
	for i := 0; i < len(list); {
		sum := list[i]
		j := i + 1
		for ; j < len(list) && list[j][0] == sum[0]; j++ {
			sum[1], sum[2] = sum[1]+list[j][1], sum[2]+list[j][2]
		}
		if sum[1] != 0 || sum[2] != 0 {
			out = append(out, sum)
		}
		i = j
	}
	return out
}

// keys writes the keys that hold anything, in the order of their values.
func (s *stateWriter) keys() {
	for k := range s.p.keys {
		t, kp := &s.st.keys[k], &s.p.keys[k]
		var order []int32
		if kp.text {
			order = s.textOrder(k)
		} else {
			order = s.valueOrder(k)
		}
		s.order[k], s.rank[k] = order, make([]int32, len(s.holds[k]))
		s.uint(uint64(len(order)))
		var last int64
		for i, id := range order {
			s.rank[k][id] = int32(i)
			switch {
			case kp.text:
				s.text(t.texts.Value(uint32(id)))
			default:
				v := s.ranks(k, id)
				s.int(v - last)
				last = v
			}
		}
	}
}

// textOrder is the keys that hold anything, in the order of their texts.
func (s *stateWriter) textOrder(k int) []int32 {
	t := s.st.keys[k].texts
	order := make([]int32, 0, len(s.holds[k]))
	for id, ok := range s.holds[k] {
		if ok {
			order = append(order, int32(id))
		}
	}
	slices.SortFunc(order, func(a, b int32) int { return strings.Compare(t.Value(uint32(a)), t.Value(uint32(b))) })
	return order
}

// valueOrder is the same in the order of numbers, or of the places of a pair's parts.
func (s *stateWriter) valueOrder(k int) []int32 {
	list := make([]valued, 0, len(s.holds[k]))
	for id, ok := range s.holds[k] {
		if ok {
			list = append(list, valued{s.ranks(k, int32(id)), int32(id)})
		}
	}
	list = byValue(list, nil)
	order := make([]int32, len(list))
	for i, x := range list {
		order[i] = x.id
	}
	return order
}

// ranks is a key's value; of a pair the places of its parts.
func (s *stateWriter) ranks(k int, id int32) int64 {
	v, kp := s.st.keys[k].ints.Value(uint32(id)), &s.p.keys[k]
	if kp.col >= 0 {
		return v
	}
	return int64(s.rank[kp.left][v>>32])<<32 | int64(s.rank[kp.right][uint32(v)])
}

func (s *stateWriter) records() {
	rec, p := s.st.rec, s.p
	s.uint(uint64(len(s.rows)))
	var t, seq int64
	for _, i := range s.rows {
		x := rec.at(i)
		s.int(x.t() - t)
		s.int(x.seq() - seq)
		t, seq = x.t(), x.seq()
		s.int(int64(x.part()))
		s.int(x.line())
		s.int(int64(x.label()))
		if p.idText {
			s.text(rec.ids.texts.Value(x.id()))
		} else {
			s.int(x[recInt])
		}
		s.uint(uint64(btoi(x.isLabel())))
		if x.isLabel() {
			continue
		}
		for j, l := range p.labelled {
			if id := x.key(j); id == none {
				s.uint(0)
			} else {
				s.uint(uint64(s.rank[l.key][id]) + 1)
			}
		}
	}
}

// held writes what a key has in a group.
func (s *stateWriter) held(gs *groupState, id int32) {
	r := gs.open(id)
	settled := s.st.settled(s.p)
	if gs.group.ring {
		s.entries(gs, &r, gs.forgettable(&r, gs.seen(settled), settled))
	}
	if gs.label {
		s.delta(gs, &r, settled)
	}
	if gs.accumulates {
		s.accumulated(gs, r.h)
	}
	for i := range gs.outs {
		if o := &gs.outs[i]; o.kind == EWMA {
			for _, w := range r.h[o.slot : o.slot+ewmaWords] {
				s.int(w)
			}
		}
	}
}

// entries writes the entries from the first one on that can be seen. Where partition and position do not order those of
// one instant, their values do.
func (s *stateWriter) entries(gs *groupState, r *ring, first int) {
	s.uint(uint64(r.n - first))
	var k int64
	for i := first; i < r.n; {
		j := i + 1
		for j < r.n && r.d[j*gs.stride] == r.d[i*gs.stride] {
			j++
		}
		s.ties = s.ties[:0]
		for x := i; x < j; x++ {
			s.ties = append(s.ties, int32(x))
		}
		if !gs.ordered && j-i > 1 {
			slices.SortFunc(s.ties, func(a, b int32) int {
				for c := range gs.cols {
					if d := cmp.Compare(gs.value(r, int(a), c), gs.value(r, int(b), c)); d != 0 {
						return d
					}
				}
				return 0
			})
		}
		for _, x := range s.ties {
			o := int(x) * gs.stride
			s.int(r.d[o] - k)
			k = r.d[o]
			if gs.ordered {
				s.int(r.d[o+1])
			}
			for c := range gs.cols {
				s.int(gs.value(r, int(x), c))
			}
		}
		i = j
	}
}

func (s *stateWriter) delta(gs *groupState, r *ring, settled int64) {
	d := gs.deltaOf(r)
	if d == nil {
		s.uint(0)
		return
	}
	points, side, wait := gs.changed(d, gs.labelsSeen(settled), s.st.watermark)
	if len(points)+len(side)+len(wait) == 0 && d.n == 0 && d.y == 0 {
		s.uint(0)
		return
	}
	s.uint(1)
	s.int(d.n)
	s.int(d.y)
	for _, list := range [][]triple{points, side, wait} {
		s.uint(uint64(len(list)))
		for _, e := range list {
			for _, w := range e {
				s.int(w)
			}
		}
	}
}

func (s *stateWriter) accumulated(gs *groupState, h []int64) {
	for _, w := range h[gs.acc : gs.acc+accWords] {
		s.int(w)
	}
	for c := range gs.cols {
		col := &gs.cols[c]
		for _, x := range col.plainWords() {
			for _, w := range h[x.at : x.at+x.n] {
				s.int(w)
			}
		}
		if at := col.accSet; at != 0 {
			s.words = slab.Set(h[at]).Words(gs.a, s.words[:0])
			s.uint(uint64(len(s.words)))
			for _, w := range s.words {
				s.int(w)
			}
		}
		if at := col.accBag; at != 0 {
			s.bag = slab.Multiset(h[at]).Each(gs.a, s.bag[:0])
			s.uint(uint64(len(s.bag)))
			for _, x := range s.bag {
				s.int(x.Value)
				s.int(int64(x.Count))
			}
		}
	}
}

// wordRange is words of a head.
type wordRange struct{ at, n int }

// plainWords are the accumulators that are numbers.
func (c *aggColumn) plainWords() []wordRange {
	var list []wordRange
	for _, x := range []wordRange{{c.accSum, 2}, {c.accSq, 3}, {c.accMin, 2}} {
		if x.at != 0 {
			list = append(list, x)
		}
	}
	return list
}

// Restore replaces the state by that of a snapshot. A snapshot of other nodes is refused, naming them; so is
// one that is damaged. After an error the engine is as it was.
func (e *Engine) Restore(r io.Reader) error {
	a, ra := e.a.Fresh(), e.ra.Fresh()
	st, err := e.p.restore(r, a, ra)
	if err != nil {
		a.Close()
		ra.Close()
		return fmt.Errorf("features: restoring a state: %w", err)
	}
	e.close()
	e.a, e.ra, e.st = a, ra, st
	if e.final {
		e.withoutState()
	}
	e.bindReaders()
	return nil
}

var errDamaged = errors.New("it is damaged: what it holds is impossible")

func (p *Plan) restore(r io.Reader, a, ra *slab.Arena) (*state, error) {
	sr := &stateReader{snapshotReader: newSnapshotReader(r), p: p}
	if string(sr.raw(len(snapshotMagic))) != snapshotMagic {
		if sr.err != nil {
			return nil, sr.err
		}
		return nil, errors.New("it is not a state of this version's features")
	}
	if err := p.sameNodes(sr.nodes()); err != nil {
		return nil, err
	}
	sr.st = p.newState(a, ra)
	sr.st.watermark, sr.st.position, sr.st.candidate = sr.int(), sr.int(), sr.int()
	sr.keys()
	sr.records()
	for g := range sr.st.groups {
		gs := &sr.st.groups[g]
		gs.grow(sr.st.keys[gs.key].cap())
		for id := range sr.st.keys[gs.key].cap() {
			if sr.err != nil {
				break
			}
			sr.held(gs, int32(id))
		}
	}
	if err := sr.close(); err != nil {
		return nil, err
	}
	for k := range p.keys {
		sr.st.revive(k)
	}
	return sr.st, nil
}

// revive takes all keys for ones that had an event just now: a snapshot does not say when it was.
func (st *state) revive(k int) {
	n := st.keys[k].cap()
	var ids [keyBlock]int32
	var now [keyBlock]int64
	for i := range now {
		now[i] = st.watermark
	}
	for from := 0; from < n; from += keyBlock {
		block := ids[:min(keyBlock, n-from)]
		for i := range block {
			block[i] = int32(from + i)
		}
		st.lives[k].see(n, block, now[:len(block)])
	}
}

// stateReader reads an engine's state.
type stateReader struct {
	snapshotReader
	p  *Plan
	st *state
	v  []int64
}

// keyBlock is how many keys are entered at a time, so that their cache misses overlap.
const keyBlock = 1024

func (s *stateReader) keys() {
	var values [keyBlock]int64
	var ids [keyBlock]int32
	for k := range s.p.keys {
		t, kp := &s.st.keys[k], &s.p.keys[k]
		left := s.count()
		if kp.text {
			for ; left > 0 && s.err == nil; left-- {
				_, fresh := t.texts.ID(s.text())
				s.damagedIf(!fresh)
			}
			continue
		}
		var last int64
		for base := 0; left > 0 && s.err == nil; {
			n := min(left, keyBlock)
			for i := range n {
				last += s.int()
				s.damagedIf(kp.col < 0 && (last < 0 || int(last>>32) >= s.st.keys[kp.left].cap() ||
					int(uint32(last)) >= s.st.keys[kp.right].cap()))
				values[i] = last
			}
			if s.err != nil {
				return
			}
			t.ints.IDs(values[:n], nil, ids[:n])
			for i, id := range ids[:n] {
				s.damagedIf(int(id) != base+i) // it was there already
			}
			base += n
			left -= n
		}
	}
}

func (s *stateReader) records() {
	rec := s.st.rec
	var ev event
	var t int64
	for range s.count() {
		if s.err != nil {
			return
		}
		t += s.int()
		ev.seq += s.int()
		ev.part, ev.line = int32(s.int()), s.int()
		label := int8(s.int())
		if s.p.idText {
			ev.name = s.text()
		} else {
			ev.id = s.int()
		}
		isLabel := s.uint() == 1
		s.damagedIf(t > maxTime || t < -maxTime || label > 1 || label < none || isLabel && label == none)
		if s.err != nil {
			return
		}
		x := rec.at(rec.add(t, &ev, label, isLabel))
		if isLabel {
			rec.index() // it may wait for its transaction
			continue
		}
		for j, l := range s.p.labelled {
			id := s.count() - 1
			s.damagedIf(id >= s.st.keys[l.key].cap())
			x.setKey(j, int32(id))
		}
	}
}

func (s *stateReader) held(gs *groupState, id int32) {
	r := gs.open(id)
	if gs.group.ring {
		s.entries(gs, &r)
	}
	if gs.label && s.uint() == 1 {
		s.delta(gs, id)
	}
	if gs.accumulates {
		s.accumulated(gs, r.h)
	}
	for i := range gs.outs {
		if o := &gs.outs[i]; o.kind == EWMA {
			for w := range r.h[o.slot : o.slot+ewmaWords] {
				r.h[o.slot+w] = s.int()
			}
		}
	}
}

func (s *stateReader) entries(gs *groupState, r *ring) {
	n := s.count()
	if n == 0 {
		return
	}
	if n < 1<<16 {
		gs.resize(r, n) // else it grows with what is there: a damaged number must not take all memory
	}
	s.v = slices.Grow(s.v[:0], len(gs.cols))[:len(gs.cols)]
	var k, last int64
	for range n {
		if s.err != nil {
			return
		}
		k += s.int()
		s.damagedIf(k > 2*maxTime || k < -2*maxTime || r.n > 0 && k < r.d[(r.n-1)*gs.stride])
		var ord int64
		if gs.ordered {
			ord = s.int()
		}
		for c := range gs.cols {
			s.v[c] = s.int()
			s.see(gs.cols[c].val, s.v[c])
		}
		switch {
		case s.err != nil:
		case r.n < high(r.h[headSize]) && (!gs.ordered || r.n == 0 || r.d[(r.n-1)*gs.stride] < k || last <= ord):
			gs.push(r, k, ord, s.v)
		default:
			gs.insert(r, k, ord, s.v, math.MinInt64, math.MinInt64)
		}
		last = ord
	}
	if gs.pending() {
		setCursor(r.h, gs.cursors, gs.cursorCount()-1, gs.bisect(r, 0, r.n, s.st.watermark))
	}
}

// see notes the magnitude of a value, by which sums know whether 64 bits are enough.
func (s *stateReader) see(val int, x int64) {
	if val >= 0 && s.p.vals[val].form == number {
		s.st.most[val] = max(s.st.most[val], magnitude(x))
	}
}

func (s *stateReader) delta(gs *groupState, id int32) {
	d := gs.deltaFor(id)
	d.n, d.y = s.int(), s.int()
	for list := range 3 {
		for range s.count() {
			if s.err != nil {
				return
			}
			x, y, z := s.int(), s.int(), s.int()
			switch list {
			case 0:
				gs.point(d, x, y, z, math.MinInt64)
			case 1:
				d.side.push(gs.a, x, y, z)
			default:
				d.wait.push(gs.a, x, y, z)
			}
		}
	}
}

func (s *stateReader) accumulated(gs *groupState, h []int64) {
	for w := range accWords {
		h[gs.acc+w] = s.int()
	}
	for c := range gs.cols {
		col := &gs.cols[c]
		for _, x := range col.plainWords() {
			for w := range x.n {
				h[x.at+w] = s.int()
			}
		}
		if at := col.accSet; at != 0 {
			s.v = s.v[:0]
			for range s.count() {
				if s.err != nil {
					return
				}
				s.v = append(s.v, s.int())
			}
			var set slab.Set
			if _, err := set.Restore(gs.a, s.v); err != nil {
				s.fail(errDamaged)
			}
			h[at] = int64(set)
		}
		if at := col.accBag; at != 0 {
			var m slab.Multiset
			for range s.count() {
				v, n := s.int(), s.int()
				s.damagedIf(n < 1 || n > math.MaxInt32)
				if s.err != nil {
					return
				}
				m.Add(gs.a, v, int32(n))
			}
			h[at] = int64(m)
		}
	}
}

// sameNodes compares a state's nodes with the plan's.
func (p *Plan) sameNodes(nodes []Node, err error) error {
	if err != nil {
		return err
	}
	if err := SameNodes(nodes, p.nodes); err != nil {
		return fmt.Errorf("it belongs to other features: it is %w; make it again with the spec %s", err, p.spec.name)
	}
	return nil
}

// SameNodes compares the nodes of a state with those that are wanted, in any order. The error names those that differ, as
// in "without a, b; with another definition of c".
func SameNodes(have, want []Node) error {
	var missing, other, extra []string
	left := map[string]string{}
	for _, n := range have {
		left[n.Name] = n.Fingerprint
	}
	for _, n := range want {
		f, ok := left[n.Name]
		switch {
		case !ok:
			missing = append(missing, n.Name)
		case f != n.Fingerprint:
			other = append(other, n.Name)
		}
		delete(left, n.Name)
	}
	for _, n := range have {
		if _, ok := left[n.Name]; ok {
			extra = append(extra, n.Name)
		}
	}
	var parts []string
	for _, x := range []struct {
		what  string
		names []string
	}{{"without", missing}, {"with another definition of", other}, {"with the unknown", extra}} {
		if len(x.names) > 0 {
			parts = append(parts, x.what+" "+strings.Join(x.names, ", "))
		}
	}
	if parts == nil {
		return nil
	}
	return errors.New(strings.Join(parts, "; "))
}
