package features

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/onmart/onmart/datasets"
)

// A snapshot of a panel is, in this order: the magic line, the nodes, the watermark, the position, the end of the
// last closed step, the series that have begun in the order of their texts (keys and what is carried on), the lags from
// the oldest on, and the transactions of the open steps in canonical order. One of interactions has the groups that
// are held and the lines that were not taken yet. A CRC-32C of all of it ends it, as in a snapshot of features.
const (
	panelMagic        = "onmart panel state 1\n"
	interactionsMagic = "onmart interactions state 1\n"
)

// headOf writes what the snapshots of both shapes begin with.
func (p *Plan) headOf(w io.Writer, magic string) *snapshotWriter {
	writer := newSnapshotWriter(w)
	sw := &writer
	sw.raw(magic)
	sw.uint(uint64(len(p.nodes)))
	for _, n := range p.nodes {
		sw.text(n.Name)
		sw.text(n.Fingerprint)
	}
	return sw
}

// openHead reads it.
func (p *Plan) openHead(r io.Reader, magic string) (*snapshotReader, error) {
	reader := newSnapshotReader(r)
	sr := &reader
	if string(sr.raw(len(magic))) != magic {
		if sr.err != nil {
			return nil, sr.err
		}
		return nil, fmt.Errorf("it is not a state of %s", p.spec.Shape())
	}
	return sr, p.sameNodes(sr.nodes())
}

// Snapshot writes the state down. Equal states give equal bytes, whatever the batches and, for transactions with
// positions of their own, whatever the order in which they came.
func (q *Panel) Snapshot(w io.Writer) error {
	sw := q.p.headOf(w, panelMagic)
	sw.int(q.watermark)
	sw.int(q.position)
	sw.int(q.closed)
	sw.uint(uint64(len(q.order)))
	number := make([]uint64, len(q.started)) // by series: its number in the snapshot, from 1
	for i, s := range q.order {
		number[s] = uint64(i + 1)
		q.writeKeys(sw, s)
		for c := range q.carry {
			sw.float(q.carry[c][s])
		}
	}
	for l := range q.lags {
		for age := range q.pan.lagMax {
			row := q.lags[l][(q.lagAt+age)%q.pan.lagMax]
			for _, s := range q.order {
				if int(s) < len(row) {
					sw.float(row[s])
				} else {
					sw.float(0)
				}
			}
		}
	}
	q.writeOpen(sw, number)
	return sw.close()
}

func (q *Panel) writeKeys(sw *snapshotWriter, s int32) {
	for k := range q.pan.keys {
		if q.pan.keys[k].text {
			sw.text(q.keyNames[k].strOf[q.keyOf[k][s]])
		} else {
			sw.int(q.keyNames[k].intOf[q.keyOf[k][s]])
		}
	}
}

// writeOpen writes the transactions of the open steps, step by step, each in canonical order. A series that has not
// begun is followed by its keys where it comes first.
func (q *Panel) writeOpen(sw *snapshotWriter, number []uint64) {
	total, next := 0, uint64(len(q.order))
	for _, st := range q.open {
		total += len(st.t)
	}
	sw.uint(uint64(total))
	for _, st := range q.open {
		rows := make([]int32, len(st.t))
		for i := range rows {
			rows[i] = int32(i)
		}
		slices.SortFunc(rows, st.compare)
		for _, i := range rows {
			sw.int(st.t[i])
			sw.int(st.seq[i])
			sw.int(int64(st.part[i]))
			sw.flag(st.back[i])
			s := st.series[i]
			if number[s] == 0 {
				next++
				number[s] = next
				sw.uint(next)
				q.writeKeys(sw, s)
			} else {
				sw.uint(number[s])
			}
			sw.uint(st.noVal[i])
			sw.uint(st.noTag[i])
			for v := range st.vals {
				sw.int(st.vals[v][i])
			}
			for k := range st.tags {
				if st.noTag[i]>>k&1 != 0 {
					continue
				}
				if st.names[k].strs != nil {
					sw.text(st.names[k].strOf[st.tags[k][i]])
				} else {
					sw.int(st.tags[k][i])
				}
			}
		}
	}
}

// Restore replaces the state by that of a snapshot. A snapshot of other nodes is refused, naming them; so is one
// that is damaged. After an error the panel is as it was.
func (q *Panel) Restore(r io.Reader) error {
	fresh := q.p.NewPanel()
	if err := fresh.restore(r); err != nil {
		return fmt.Errorf("features: restoring a state: %w", err)
	}
	fresh.counts, fresh.flush = q.counts, q.flush
	*q = *fresh
	return nil
}

func (q *Panel) restore(r io.Reader) error {
	sr, err := q.p.openHead(r, panelMagic)
	if err != nil {
		return err
	}
	q.watermark, q.position = sr.time(), sr.int()
	q.closed = sr.time()
	var order []int32
	for range sr.count() {
		s, err := q.readSeries(sr, len(order))
		if err != nil {
			return err
		}
		q.started[s] = true
		for c := range q.carry {
			q.carry[c][s] = sr.float()
		}
		order = append(order, s)
	}
	q.enter(order)
	for l := range q.lags {
		for age := range q.pan.lagMax {
			row := make([]float64, len(q.started))
			for _, s := range q.order {
				row[s] = sr.float()
			}
			q.lags[l][age] = row
		}
	}
	if err := q.readOpen(sr); err != nil {
		return err
	}
	q.next = math.MaxInt64
	switch {
	case q.closed != beginning:
		_, q.next = q.grid.Step(q.closed)
	case len(q.open) > 0:
		q.next = q.open[0].to
	}
	return sr.close()
}

// readSeries reads the keys of a series that has not been there yet, and gives it the next number.
func (q *Panel) readSeries(sr *snapshotReader, have int) (int32, error) {
	for k := range q.pan.keys {
		if q.pan.keys[k].text {
			q.keys[k] = q.keyNames[k].ofString(sr.text())
		} else {
			q.keys[k] = q.keyNames[k].ofInt(sr.int())
		}
	}
	if sr.err != nil {
		return 0, sr.err
	}
	s := q.number(q.keys)
	if int(s) != have {
		return 0, errors.New("it is damaged: a series is there twice")
	}
	return s, nil
}

func (q *Panel) readOpen(sr *snapshotReader) error {
	for range sr.count() {
		t, seq, part, back := sr.time(), sr.int(), int32(sr.int()), sr.flag()
		number := sr.uint()
		known := uint64(len(q.started))
		if sr.err == nil && (number == 0 || number > known+1 || t == beginning || q.closed != beginning && t < q.closed) {
			return errors.New("it is damaged: a transaction in it is impossible")
		}
		if number == known+1 {
			if _, err := q.readSeries(sr, int(known)); err != nil {
				return err
			}
		}
		if sr.err != nil {
			return sr.err
		}
		st := q.stepAt(t)
		n := st.add(int32(number-1), t, seq, part, back)
		st.noVal[n], st.noTag[n] = sr.uint(), sr.uint()
		for v := range st.vals {
			st.vals[v] = append(st.vals[v], sr.int())
		}
		for k := range st.tags {
			x := int64(0)
			switch {
			case st.noTag[n]>>k&1 != 0:
			case st.names[k].strs != nil:
				x = int64(st.names[k].ofString(sr.text()))
			default:
				x = sr.int()
			}
			st.tags[k] = append(st.tags[k], x)
		}
		if sr.err != nil {
			return sr.err
		}
	}
	return sr.err
}

// Snapshot writes the state down. Equal states give equal bytes, whatever the batches and, for transactions with
// positions of their own that are not late, whatever the order in which they came.
func (e *Interactions) Snapshot(w io.Writer) error {
	sw := e.p.headOf(w, interactionsMagic)
	sw.int(e.watermark)
	sw.int(e.position)
	begun := e.begun.list()
	sw.uint(uint64(len(begun)))
	for _, first := range begun {
		n := 0
		for l := first; l != none; l = e.lines.next[l] {
			n++
		}
		sw.uint(uint64(n))
		for l := first; l != none; l = e.lines.next[l] {
			e.writeLine(sw, l)
		}
	}
	queue := e.queue.list()
	sw.uint(uint64(len(queue)))
	for _, l := range queue {
		e.writeLine(sw, l)
	}
	return sw.close()
}

func (e *Interactions) writeLine(sw *snapshotWriter, l int32) {
	s, x := &e.lines, e.x
	name := func(n *names, id int32) {
		if n.strs != nil {
			sw.text(n.strOf[id])
		} else {
			sw.int(n.intOf[id])
		}
	}
	sw.int(s.t[l])
	sw.int(s.seq[l])
	sw.int(int64(s.part[l]))
	sw.flag(s.back[l])
	sw.flag(s.undone[l])
	name(e.users, s.user[l])
	name(e.items, s.item[l])
	if x.idText {
		sw.text(s.name[l])
	} else {
		sw.int(s.id[l])
	}
	sw.uint(s.noVal[l])
	for v := range s.vals {
		sw.int(s.vals[v][l])
	}
	for k := range s.tags {
		v := &s.tags[k][l]
		sw.flag(v.null)
		sw.int(v.n)
		sw.text(v.s)
	}
	for k, col := range x.kept {
		c := &s.kept[k]
		sw.flag(c.Null[l])
		switch x.ext.Fields[col].Type {
		case datasets.Float64:
			sw.float(c.Floats[l])
		case datasets.String:
			sw.text(c.Strings[l])
		default:
			sw.int(c.Ints[l])
		}
	}
}

// Restore replaces the state by that of a snapshot. A snapshot of other nodes is refused, naming them; so is one
// that is damaged. After an error the engine is as it was.
func (e *Interactions) Restore(r io.Reader) error {
	fresh := e.p.NewInteractions()
	if err := fresh.restore(r); err != nil {
		return fmt.Errorf("features: restoring a state: %w", err)
	}
	fresh.counts = e.counts
	*e = *fresh
	return nil
}

func (e *Interactions) restore(r io.Reader) error {
	sr, err := e.p.openHead(r, interactionsMagic)
	if err != nil {
		return err
	}
	e.watermark, e.position = sr.time(), sr.int()
	for range sr.count() {
		last := int32(none)
		for range max(1, sr.count()) {
			l := e.readLine(sr)
			if sr.err != nil {
				return sr.err
			}
			if last == none {
				if _, twice := e.groups[e.basketOf(l)]; twice {
					return errors.New("it is damaged: an interaction is there twice")
				}
				e.groups[e.basketOf(l)] = l
				e.begun.all = append(e.begun.all, l)
			} else {
				e.lines.next[last] = l
			}
			last = l
			if e.x.policy == returnsRemove {
				e.bought[e.pair(l)] = append(e.bought[e.pair(l)], l)
			}
		}
	}
	for range sr.count() {
		l := e.readLine(sr)
		if sr.err != nil {
			return sr.err
		}
		e.queue.all = append(e.queue.all, l)
	}
	if !slices.IsSortedFunc(e.queue.all, e.lines.compare) {
		return errors.New("it is damaged: its lines are out of order")
	}
	return cmp.Or(sr.err, sr.close())
}

func (e *Interactions) readLine(sr *snapshotReader) int32 {
	s, x := &e.lines, e.x
	name := func(n *names) int32 {
		if n.strs != nil {
			return n.ofString(sr.text())
		}
		return n.ofInt(sr.int())
	}
	l := s.place()
	s.t[l], s.seq[l], s.part[l] = sr.time(), sr.int(), int32(sr.int())
	s.back[l], s.undone[l], s.next[l] = sr.flag(), sr.flag(), none
	s.user[l], s.item[l] = name(e.users), name(e.items)
	if x.idText {
		s.name[l] = sr.text()
	} else {
		s.id[l] = sr.int()
	}
	s.noVal[l] = sr.uint()
	for v := range s.vals {
		s.vals[v][l] = sr.int()
	}
	for k := range s.tags {
		s.tags[k][l] = tagValue{null: sr.flag(), n: sr.int(), s: sr.text()}
	}
	for k, col := range x.kept {
		c := &s.kept[k]
		c.Null[l] = sr.flag()
		switch x.ext.Fields[col].Type {
		case datasets.Float64:
			c.Floats[l] = sr.float()
		case datasets.String:
			c.Strings[l] = sr.text()
		default:
			c.Ints[l] = sr.int()
		}
	}
	return l
}
