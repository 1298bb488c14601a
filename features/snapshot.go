package features

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"
)

// A snapshot is, in this order: the magic line, the nodes, the watermark, the position, the number of
// events, and the events in the order (T, partition, position); a CRC-32C of all of it, little endian, ends
// it. Numbers are varints, times as differences to the event before. A key is its number in the order of
// first appearance; one that appears for the first time is followed by its value.
const snapshotMagic = "onmart features state 1\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshotEvents bounds the number of events that are believed of a snapshot.
const snapshotEvents = 1 << 31

// Snapshot writes the state down. Equal states give equal bytes, whatever the batches and threads and, for
// events with their own positions, whatever the order in which they came.
func (e *Engine) Snapshot(w io.Writer) error {
	p, st, rec := e.p, e.st, e.st.rec
	sw := &snapshotWriter{w: bufio.NewWriterSize(w, 1<<16)}
	sw.raw(snapshotMagic)
	sw.uint(uint64(len(p.nodes)))
	for _, n := range p.nodes {
		sw.text(n.Name)
		sw.text(n.Fingerprint)
	}
	sw.int(st.watermark)
	sw.int(st.position)
	rows := rec.canonical(p.retain, p.horizonAt(st.watermark))
	sw.uint(uint64(len(rows)))
	seen := make([][]int32, len(p.keys)) // by key: its number in the snapshot, from 1
	next := make([]int32, len(p.keys))
	for k := range seen {
		seen[k] = make([]int32, st.names[k].len())
	}
	var t, seq int64
	for _, i := range rows {
		sw.int(rec.t[i] - t)
		sw.int(rec.seq[i] - seq)
		t, seq = rec.t[i], rec.seq[i]
		sw.int(int64(rec.part[i]))
		sw.int(rec.line[i])
		sw.int(int64(rec.label[i]))
		if p.idText {
			sw.text(rec.idStr[i])
		} else {
			sw.int(rec.idInt[i])
		}
		sw.uint(uint64(btoi(rec.isLab[i])))
		if rec.isLab[i] {
			continue
		}
		for k := range p.keys {
			id := rec.keys[k][i]
			if id == none {
				sw.uint(0)
				continue
			}
			if n := seen[k][id]; n > 0 {
				sw.uint(uint64(n))
				continue
			}
			next[k]++
			seen[k][id] = next[k]
			sw.uint(uint64(next[k]))
			if p.keys[k].text {
				sw.text(st.names[k].strOf[id])
			} else {
				sw.int(st.names[k].intOf[id])
			}
		}
		for v := range p.vals {
			sw.int(rec.vals[v][i])
		}
	}
	return sw.close()
}

// Restore replaces the state by that of a snapshot. A snapshot of other nodes is refused, naming them; so is
// one that is damaged. After an error the engine is as it was.
func (e *Engine) Restore(r io.Reader) error {
	st, err := e.p.restore(r)
	if err != nil {
		return fmt.Errorf("features: restoring a state: %w", err)
	}
	e.st = st
	return nil
}

func (p *Plan) restore(r io.Reader) (*state, error) {
	sr := &snapshotReader{r: bufio.NewReaderSize(r, 1<<16)}
	if string(sr.raw(len(snapshotMagic))) != snapshotMagic {
		if sr.err != nil {
			return nil, sr.err
		}
		return nil, errors.New("it is not a state of this version's features")
	}
	if err := p.sameNodes(sr.nodes()); err != nil {
		return nil, err
	}
	st := p.newState()
	st.watermark = sr.int()
	st.position = sr.int()
	n := sr.uint()
	if n > snapshotEvents {
		return nil, errors.New("it is damaged: the number of events is impossible")
	}
	keys := make([]int32, len(p.keys))
	vals := make([]int64, len(p.vals))
	var ev stored
	for range n {
		if err := p.readEvent(sr, st, &ev, keys, vals); err != nil {
			return nil, err
		}
		st.rec.put(p, &ev, keys, vals)
	}
	if err := sr.close(); err != nil {
		return nil, err
	}
	p.refold(st)
	return st, nil
}

// stored is an event of a snapshot or of the records, without keys and values.
type stored struct {
	t, seq, line, id int64
	part             int32
	label            int8
	isLab            bool
	name             string
}

// readEvent reads one event; ev holds the one before, for the differences.
func (p *Plan) readEvent(sr *snapshotReader, st *state, ev *stored, keys []int32, vals []int64) error {
	ev.t += sr.int()
	ev.seq += sr.int()
	ev.part = int32(sr.int())
	ev.line = sr.int()
	ev.label = int8(sr.int())
	if p.idText {
		ev.name = sr.text()
	} else {
		ev.id = sr.int()
	}
	ev.isLab = sr.uint() == 1
	if sr.err != nil {
		return sr.err
	}
	if ev.t > maxTime || ev.t < -maxTime || ev.label > 1 || ev.label < none || (ev.isLab && ev.label == none) {
		return errors.New("it is damaged: an event in it is impossible")
	}
	if ev.isLab {
		for k := range keys {
			keys[k] = none
		}
		clear(vals)
		return nil
	}
	for k := range keys {
		number, known := sr.uint(), uint64(st.names[k].len())
		switch {
		case number > known+1:
			return errors.New("it is damaged: a key in it is impossible")
		case number <= known:
			keys[k] = int32(number) - 1
		case p.keys[k].text:
			keys[k] = st.names[k].ofString(sr.text())
		default:
			keys[k] = st.names[k].ofInt(sr.int())
		}
	}
	for v := range vals {
		vals[v] = sr.int()
	}
	return sr.err
}

// put appends an event with its keys and values.
func (r *records) put(p *Plan, ev *stored, keys []int32, vals []int64) {
	r.add(ev.t, ev.part, ev.seq, ev.line, ev.label, ev.isLab, p.idText, ev.id, ev.name)
	for k := range r.keys {
		r.keys[k] = append(r.keys[k], keys[k])
	}
	for v := range r.vals {
		r.vals[v] = append(r.vals[v], vals[v])
	}
}

// refold computes the rings of a state from its records.
func (p *Plan) refold(st *state) {
	rec := st.rec
	bound := p.horizonAt(st.watermark)
	for g := range st.groups {
		gs := &st.groups[g]
		gs.grow(st.names[gs.key].len())
		v := make([]int64, len(gs.cols))
		for i := rec.gone; i < len(rec.t); i++ {
			key := rec.keys[gs.key][i]
			if rec.isLab[i] || key == none {
				continue
			}
			for c, col := range gs.cols {
				if col == labelValue {
					v[c] = int64(max(rec.label[i], 0))
				} else {
					v[c] = rec.vals[col][i]
				}
			}
			sh := &gs.shards[key&shardMask]
			gs.fold(sh, &sh.rings[key/shards], rec.t[i]+gs.shift, v, bound)
		}
	}
	if p.hasLabel && slices.Contains(rec.isLab[rec.gone:], true) {
		p.refoldLabels(st, bound)
	}
	st.keysSwept = st.keyCount()
}

// refoldLabels applies the label events in the records.
func (p *Plan) refoldLabels(st *state, bound int64) {
	rec := st.rec
	rec.buildIndex(p.idText)
	e := Engine{p: p, st: st, sc: scratch{ops: make([][]op, len(p.keys))}}
	for i := rec.gone; i < len(rec.t); i++ {
		if !rec.isLab[i] {
			e.applyWaiting(0, i, bound)
		}
	}
	for g := range st.groups {
		if gs := &st.groups[g]; gs.label {
			for o := range e.sc.ops[gs.key] {
				gs.apply(&e.sc.ops[gs.key][o], -1)
			}
		}
	}
}

// rebuild makes a state anew from the events of another, with only the keys that they use.
func (p *Plan) rebuild(old *state) *state {
	st := p.newState()
	st.watermark, st.position = old.watermark, old.position
	rec := old.rec
	keys, vals := make([]int32, len(p.keys)), make([]int64, len(p.vals))
	for i := rec.gone; i < len(rec.t); i++ {
		ev := stored{t: rec.t[i], seq: rec.seq[i], line: rec.line[i], part: rec.part[i], label: rec.label[i], isLab: rec.isLab[i]}
		if p.idText {
			ev.name = rec.idStr[i]
		} else {
			ev.id = rec.idInt[i]
		}
		for k := range keys {
			switch id := rec.keys[k][i]; {
			case id == none:
				keys[k] = none
			case p.keys[k].text:
				keys[k] = st.names[k].ofString(old.names[k].strOf[id])
			default:
				keys[k] = st.names[k].ofInt(old.names[k].intOf[id])
			}
		}
		for v := range vals {
			vals[v] = rec.vals[v][i]
		}
		st.rec.put(p, &ev, keys, vals)
	}
	p.refold(st)
	if rec.indexed() && !st.rec.indexed() {
		st.rec.buildIndex(p.idText)
	}
	return st
}

func (st *state) keyCount() int {
	n := 0
	for _, k := range st.names {
		n += k.len()
	}
	return n
}

// sameNodes compares a state's nodes with the plan's.
func (p *Plan) sameNodes(nodes []Node, err error) error {
	if err != nil {
		return err
	}
	var missing, other, extra []string
	have := map[string]string{}
	for _, n := range nodes {
		have[n.Name] = n.Fingerprint
	}
	for _, n := range p.nodes {
		f, ok := have[n.Name]
		switch {
		case !ok:
			missing = append(missing, n.Name)
		case f != n.Fingerprint:
			other = append(other, n.Name)
		}
		delete(have, n.Name)
	}
	for _, n := range nodes {
		if _, ok := have[n.Name]; ok {
			extra = append(extra, n.Name)
		}
	}
	if len(missing)+len(other)+len(extra) == 0 {
		return nil
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
	return fmt.Errorf("it belongs to other features: it is %s; make it again with the spec %s", strings.Join(parts, "; "), p.spec.name)
}

type snapshotWriter struct {
	w   *bufio.Writer
	crc uint32
	buf [binary.MaxVarintLen64]byte
}

// The bufio.Writer keeps the first error, so that close is the only place to ask.
func (s *snapshotWriter) bytes(b []byte) {
	s.crc = crc32.Update(s.crc, castagnoli, b)
	s.w.Write(b)
}
func (s *snapshotWriter) raw(t string)  { s.bytes([]byte(t)) }
func (s *snapshotWriter) int(v int64)   { s.bytes(s.buf[:binary.PutVarint(s.buf[:], v)]) }
func (s *snapshotWriter) uint(v uint64) { s.bytes(s.buf[:binary.PutUvarint(s.buf[:], v)]) }
func (s *snapshotWriter) text(t string) {
	s.uint(uint64(len(t)))
	s.raw(t)
}

func (s *snapshotWriter) close() error {
	s.w.Write(binary.LittleEndian.AppendUint32(nil, s.crc))
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("features: writing a state: %w", err)
	}
	return nil
}

// snapshotReader keeps the first error; after it everything reads as zero.
type snapshotReader struct {
	r   *bufio.Reader
	crc uint32
	one [1]byte
	err error
}

// ReadByte is for binary.ReadVarint.
func (s *snapshotReader) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err != nil {
		return 0, err
	}
	s.one[0] = b
	s.crc = crc32.Update(s.crc, castagnoli, s.one[:])
	return b, nil
}

func (s *snapshotReader) fail(err error) {
	if s.err == nil && err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = errors.New("it is cut off")
		}
		s.err = err
	}
}

func (s *snapshotReader) raw(n int) []byte {
	b := make([]byte, n)
	if s.err == nil {
		_, err := io.ReadFull(s.r, b)
		s.fail(err)
		s.crc = crc32.Update(s.crc, castagnoli, b)
	}
	return b
}

func (s *snapshotReader) int() int64 {
	if s.err != nil {
		return 0
	}
	v, err := binary.ReadVarint(s)
	s.fail(err)
	return v
}

func (s *snapshotReader) uint() uint64 {
	if s.err != nil {
		return 0
	}
	v, err := binary.ReadUvarint(s)
	s.fail(err)
	return v
}

// textMax bounds a name in a snapshot.
const textMax = 1 << 20

func (s *snapshotReader) text() string {
	n := s.uint()
	if n > textMax {
		s.fail(errors.New("it is damaged: a name in it is impossible"))
		return ""
	}
	return string(s.raw(int(n)))
}

func (s *snapshotReader) nodes() ([]Node, error) {
	n := s.uint()
	if n > math.MaxUint16 {
		return nil, errors.New("it is damaged: the number of features is impossible")
	}
	var list []Node
	for range n {
		list = append(list, Node{s.text(), s.text()})
		if s.err != nil {
			return nil, s.err
		}
	}
	return list, s.err
}

func (s *snapshotReader) close() error {
	want := s.crc
	if s.err != nil {
		return s.err
	}
	var b [4]byte
	if _, err := io.ReadFull(s.r, b[:]); err != nil {
		return errors.New("it is cut off")
	}
	if binary.LittleEndian.Uint32(b[:]) != want {
		return errors.New("it is damaged: the checksum is wrong")
	}
	return nil
}
