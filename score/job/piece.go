package job

import (
	"encoding/binary"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/state"
)

// piece is events that are folded together, and what the journal says of them.
type piece struct {
	ev      score.Events
	rows    *datasets.Batch
	from    []int32
	places  []int64
	raw     [][]byte
	keys    [][]byte
	rejects []score.Reject
	spans   []state.Span
	lanes   []*lane // by span
	spanOf  []int   // by lane; -1: none
	current int     // span
	order   []byte
	run     int // events since the last change of the span
	events  int
	silent  bool
	done    []*chunk
	arrived time.Time
}

func newPiece(schema *datasets.Schema) *piece {
	return &piece{rows: datasets.NewBatch(schema, defaultBatch)}
}

// begin empties the piece.
func (p *piece) begin(lanes int) {
	p.rows.Reset()
	clear(p.raw)
	clear(p.keys)
	clear(p.rejects)
	p.from, p.places, p.raw, p.keys, p.rejects = p.from[:0], p.places[:0], p.raw[:0], p.keys[:0], p.rejects[:0]
	p.spans, p.lanes, p.order = p.spans[:0], p.lanes[:0], p.order[:0]
	p.spanOf = p.spanOf[:0]
	for range lanes {
		p.spanOf = append(p.spanOf, -1)
	}
	p.current, p.run, p.events, p.silent = -1, 0, 0, false
	p.arrived = time.Time{}
}

// span makes a lane the one that add takes from.
func (p *piece) span(at int, l *lane) {
	i := p.spanOf[at]
	if i < 0 {
		i = len(p.spans)
		p.spanOf[at] = i
		p.spans = append(p.spans, state.Span{Source: l.name, From: l.next, To: l.next})
		p.lanes = append(p.lanes, l)
	}
	if i != p.current {
		p.endRun()
		p.current = i
	}
}

func (p *piece) endRun() {
	if p.run > 0 {
		p.order = binary.AppendUvarint(p.order, uint64(p.current))
		p.order = binary.AppendUvarint(p.order, uint64(p.run))
		p.run = 0
	}
}

// add copies the next n events of a chunk.
func (p *piece) add(c *chunk, n int) {
	if p.arrived.IsZero() || c.of.arrived.Before(p.arrived) {
		p.arrived = c.of.arrived
	}
	for left := n; left > 0; {
		if !c.isRow[c.event] {
			r := c.rejects[c.reject]
			r.From, r.Before = int32(p.current), int32(p.rows.N)
			p.rejects = append(p.rejects, r)
			c.reject++
			c.event++
			left--
			continue
		}
		rows := 1
		for rows < left && c.isRow[c.event+rows] {
			rows++
		}
		from, to := c.row, c.row+rows
		appendRange(p.rows, c.rows, from, to)
		for range rows {
			p.from = append(p.from, int32(p.current))
		}
		p.places = append(p.places, c.places[from:to]...)
		p.raw = append(p.raw, c.raw[from:to]...)
		p.keys = append(p.keys, c.keys[from:to]...)
		c.row, c.event, left = to, c.event+rows, left-rows
	}
	p.run += n
	p.events += n
}

// next says that the current span goes up to a position.
func (p *piece) next(to int64) {
	s := &p.spans[p.current]
	s.To = max(s.To, to)
}

// end completes the events.
func (p *piece) end() {
	p.endRun()
	sources := p.ev.Sources[:0]
	for _, s := range p.spans {
		sources = append(sources, s.Source)
	}
	p.ev = score.Events{Sources: sources, Rows: p.rows, From: p.from, Positions: p.places, Rejects: p.rejects, Raw: p.raw, Keys: p.keys}
}

// appendRange appends rows from..to of src.
func appendRange(dst, src *datasets.Batch, from, to int) {
	for i := range src.Columns {
		appendColumn(&dst.Columns[i], &src.Columns[i], from, to, dst.N)
	}
	dst.N += to - from
}

// appendColumn appends rows from..to of a column to one of n rows.
func appendColumn(d, s *datasets.Column, from, to, n int) {
	switch {
	case s.Strings != nil:
		d.Strings = append(d.Strings, s.Strings[from:to]...)
	case s.Floats != nil:
		d.Floats = append(d.Floats, s.Floats[from:to]...)
	default:
		d.Ints = append(d.Ints, s.Ints[from:to]...)
	}
	if s.Null != nil && d.Null == nil {
		d.Null = make([]bool, n, n+to-from)
	}
	switch {
	case s.Null != nil:
		d.Null = append(d.Null, s.Null[from:to]...)
	case d.Null != nil:
		d.Null = append(d.Null, make([]bool, to-from)...)
	}
}
