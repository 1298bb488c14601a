package datasets

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
	"unsafe"
)

// Nearly all events of a source have the same fields in the same order, written in the plainest way. For those the
// decoder has a short way: a key is compared with the one that stood in its place in the event before, and a value that
// is written as its column has it in most events is read by a loop of its own. Whatever is not so goes the whole way,
// which alone knows the rules and the reasons; the short way accepts nothing that the other would refuse or read
// otherwise, and a test holds it to that.

// guess is a key of the event before.
type guess struct {
	text []byte // with its quotes and the colon, which stood right behind it
	cell int    // -1: no column wants it
}

// Keys that are remembered: an event has no reason for more or longer ones.
const (
	guesses     = 64
	guessLength = 64
)

// key reads the n-th key of an object, the colon and the spaces behind it; i is its cell or -1. The key is valid until
// the next one.
func (d *Decoder) key(p *jsonParser, n int) (key []byte, i int, err error) {
	if n < len(d.guesses) && !d.whole {
		if g := &d.guesses[n]; bytes.HasPrefix(p.b[p.i:], g.text) {
			p.i += len(g.text)
			p.space()
			return g.text[1 : len(g.text)-2], g.cell, nil
		}
	}
	start := p.i
	if key, err = p.string(); err != nil {
		return nil, 0, err
	}
	end := p.i
	p.space()
	if !p.take(':') {
		return nil, 0, p.fault("want :")
	}
	i, known := d.names[string(key)]
	if !known {
		i = -1
	}
	if n < guesses && p.i == end+1 && end-start == len(key)+2 && len(key) <= guessLength {
		for len(d.guesses) <= n {
			d.guesses = append(d.guesses, guess{text: []byte("\x00")}) // of no key yet: it does not occur
		}
		g := &d.guesses[n]
		g.text, g.cell = append(g.text[:0], p.b[start:p.i]...), i
	}
	p.space()
	return key, i, nil
}

// way is how a column's values are read where they are plain.
type way uint8

const (
	wholeWay way = iota // there is no short one
	wayEvent
	wayInt
	wayFlag
	wayDecimal
	wayUnix // a time in whole units
	wayTime // a time as text
	wayText
	wayOnce // a text that does not repeat
)

// plan chooses the ways.
func (d *Decoder) plan() {
	for i := range d.columns {
		c := &d.columns[i]
		c.way = wholeWay
		switch {
		case c.products || c.prefix != "":
		case c.Name == Event:
			c.way = wayEvent
		case c.flag:
			c.way = wayFlag
		case c.Type == Int64:
			c.way = wayInt
		case c.Type == Decimal:
			c.way = wayDecimal
		case c.Type == Time && len(c.layouts) > 0 && unixUnit(c.layouts[0]) > 0:
			c.way, c.unit = wayUnix, unixUnit(c.layouts[0])
		case c.Type == Time && len(c.nulls) == 0 && (len(c.layouts) == 0 || c.layouts[0] == time.DateTime):
			c.way = wayTime
		case c.Type == String && len(c.nulls) == 0 && oneOff(c.Name) && !c.upper:
			c.way = wayOnce
		case c.Type == String && len(c.nulls) == 0:
			c.way = wayText
		}
	}
}

// unixUnit is the microseconds of a numeric layout's unit, 0 of another layout.
func unixUnit(layout string) int64 {
	switch layout {
	case layoutUnix:
		return Second
	case layoutUnixMilli:
		return 1000
	case layoutUnixMicro:
		return 1
	}
	return 0
}

// short appends the value of a transaction's column where it is plain; false leaves it to append, and dst as it was. n is
// the number of rows before.
func (d *Decoder) short(c *binding, dst *Column, n int) bool {
	if c.way == wayEvent {
		dst.Strings = append(dst.Strings, EventTransaction)
		return true
	}
	if c.way == wholeWay || c.own >= 0 && d.cells[c.own].kind != cellAbsent {
		return false
	}
	x := &d.cells[c.src]
	switch x.kind {
	case cellAbsent:
		if c.Nullable {
			dst.appendNull(c.Type, n)
		}
		return c.Nullable
	case cellNumber:
		v, ok := c.number(x.b)
		if !ok {
			return false
		}
		dst.Ints = append(dst.Ints, v)
	case cellText:
		switch c.way {
		case wayTime:
			v, err := d.clock.parse(x.b, c.layouts)
			if err != nil || c.Name == KnownAt {
				return false
			}
			dst.Ints = append(dst.Ints, v)
		case wayText:
			s, ok := c.words[string(x.b)]
			if !ok || len(x.b) == 0 {
				return false
			}
			dst.Strings = append(dst.Strings, s)
		case wayOnce:
			if len(x.b) == 0 || !utf8.Valid(x.b) {
				return false
			}
			dst.Strings = append(dst.Strings, d.keep(x.b))
		default:
			return false
		}
	default:
		return false
	}
	if dst.Null != nil {
		dst.Null = append(dst.Null, false)
	}
	return true
}

// shortDigits is how many digits are read without looking for an overflow.
const shortDigits = 18

// number reads a JSON number, whose form has been checked, where it is short, not negative, and without an exponent.
func (c *binding) number(b []byte) (v int64, ok bool) {
	switch c.way {
	case wayDecimal:
		if len(b) > shortDigits {
			return 0, false
		}
		point := len(b)
		for i, x := range b {
			if x == '.' {
				point = i + 1
				continue
			}
			if !isDigit(x) {
				return 0, false
			}
			v = v*10 + int64(x-'0')
		}
		more := c.Scale - (len(b) - point)
		if more < 0 || len(b)+more > shortDigits {
			return 0, false
		}
		return v * int64(pow10[more]), true
	case wayInt, wayUnix:
		if len(b) > shortDigits {
			return 0, false
		}
		for _, x := range b {
			if !isDigit(x) {
				return 0, false
			}
			v = v*10 + int64(x-'0')
		}
		if c.way == wayInt {
			return v, true
		}
		if v > 9_223_372_036*Second/c.unit { // unixMicro's bound
			return 0, false
		}
		return v * c.unit, c.Name != KnownAt
	case wayFlag:
		return int64(b[0] - '0'), len(b) == 1 && b[0]-'0' <= 1
	}
	return 0, false
}

// keepChunk is the bytes of texts that are allocated at once. A text that is kept keeps its neighbours.
const keepChunk = 4 << 10

// keep copies a text.
func (d *Decoder) keep(b []byte) string {
	if len(b) > keepChunk/8 {
		return string(b)
	}
	if cap(d.chunk)-len(d.chunk) < len(b) {
		d.chunk = make([]byte, 0, keepChunk)
	}
	at := len(d.chunk)
	d.chunk = append(d.chunk, b...)
	return unsafe.String(&d.chunk[at], len(b))
}

// Reset makes the batch empty and keeps its memory.
func (b *Batch) Reset() {
	b.N = 0
	for i := range b.Columns {
		c := &b.Columns[i]
		clear(c.Strings) // or the texts stay in memory
		c.Ints, c.Floats, c.Strings, c.Null = c.Ints[:0], c.Floats[:0], c.Strings[:0], c.Null[:0]
	}
}

// Repeating is the mapping for events that an output repeats with further fields of these names. Its decoders keep each
// event as it came (Raw), and refuse one that has such a field already: the output would have it twice. A name that the
// mapping itself reads is an error.
func (m *Mapping) Repeating(added []string) (*Mapping, error) {
	if m.format == CSV {
		return nil, fmt.Errorf("%s: its events are CSV, and only JSON objects can be repeated with further fields", m.name)
	}
	for _, c := range slices.Concat(m.columns, m.logExtra) {
		for _, name := range []string{c.from, c.Name} {
			if slices.Contains(added, name) {
				return nil, fmt.Errorf("%s: events may have a field %q, and the output would add another of that name: give the added ones a prefix", m.name, name)
			}
		}
	}
	c := *m
	c.repeats, c.added = true, slices.Clone(added)
	return &c, nil
}

var errAdded = errors.New("is a name that the output adds to events: give the added ones a prefix")

// refuseAdded finds a field of the event at hand that the output adds.
func (d *Decoder) refuseAdded() (string, error) {
	for i, cell := range d.added {
		if d.cells[cell].kind != cellAbsent {
			return d.m.added[i], errAdded
		}
	}
	return "", nil
}

// keepRaw copies the record of the row that was just appended.
func (d *Decoder) keepRaw(rec []byte) {
	at := len(d.rawBytes)
	d.rawBytes = append(d.rawBytes, rec...)
	d.raw = append(d.raw, d.rawBytes[at:len(d.rawBytes):len(d.rawBytes)])
}

// Raw gives each row that the last Next appended as it stands in the source, of a mapping by Repeating; else it is nil.
// It is the caller's.
func (d *Decoder) Raw() [][]byte { return d.raw }
