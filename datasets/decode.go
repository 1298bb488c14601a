package datasets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// Format is how rows are written.
type Format string

const (
	CSV   Format = "csv"   // RFC 4180 with a header; any one-byte delimiter
	JSONL Format = "jsonl" // one JSON object a line
)

// Reject is a row that could not be used and why.
type Reject struct {
	File   string `json:"file"`
	Line   int64  `json:"line"`             // of the row's first line, from 1
	Column string `json:"column,omitempty"` // as the source names it; empty where the whole row is at fault
	Reason string `json:"reason"`
	Row    string `json:"row"` // the raw text, at most 1 KiB of it
}

const (
	rejectRowLimit   = 1024
	rejectValueLimit = 60
	// internLimit is how many distinct texts of a column are kept to share them: shops, channels and
	// products repeat, ids of purchases do not.
	internLimit = 1 << 14
)

// cell is one value of a row as it was written.
type cell struct {
	kind cellKind
	b    []byte
}

type cellKind uint8

const (
	cellAbsent    cellKind = iota
	cellNull               // JSON null
	cellText               // a CSV field or a JSON string, unescaped
	cellNumber             // a JSON number
	cellBool               // JSON true or false
	cellComposite          // a JSON object or array
)

// binding says in which cells a column's value may stand: under the source's name, and for JSON also
// under the canonical one. -1 is nowhere.
type binding struct {
	*column
	src, own int
	words    map[string]string // texts seen, to share them
	way      way
	unit     int64 // of wayUnix, microseconds
}

// Decoder turns rows into batches. It is used by one goroutine.
type Decoder struct {
	m      *Mapping
	file   string
	format Format
	in     *records
	clock  *clock

	header  []string       // of a CSV
	names   map[string]int // cell of a JSON key
	cells   []cell
	scratch []byte    // unescaped texts of the current row
	columns []binding // of m.columns, then m.logExtra

	guesses []guess
	whole   bool   // no short ways: for tests
	chunk   []byte // for texts
	added   []int  // cells of m.added

	only eventKind // what every event is about; ofTransaction: events say it themselves

	raw      [][]byte // of the rows of the last Next, where they are kept
	rawBytes []byte

	lines   []int64
	rejects []Reject
	rounded int64
	rows    int64 // appended so far
}

// NewDecoder starts reading r; file stands in messages and rejects. Of a CSV the header is read at once:
// a mapped column that it lacks, or a delimiter that is not the mapping's, is an error that says what was
// found. An empty stream is an error for CSV, and no events for JSON lines.
func (m *Mapping) NewDecoder(r io.Reader, file string, f Format) (*Decoder, error) {
	d, err := m.newDecoder(file, f)
	if err != nil {
		return nil, err
	}
	switch f {
	case CSV:
		d.in = newRecords(r, m.comma)
		if err := d.readHeader(); err != nil {
			return nil, err
		}
	case JSONL:
		d.in = newRecords(r, 0)
		d.nameCells()
	default:
		return nil, fmt.Errorf("%s: format %q: want csv or jsonl", file, f)
	}
	return d, nil
}

// newDecoder makes a decoder that has nothing to read from.
func (m *Mapping) newDecoder(file string, f Format) (*Decoder, error) {
	if m.wide != nil {
		return nil, fmt.Errorf("%s is for files with a series on each row, which are imported: single events need a mapping of their columns", m.name)
	}
	if m.repeats && f == CSV {
		return nil, fmt.Errorf("%s is CSV, and the output repeats events, which must be JSON objects for that", file)
	}
	d := &Decoder{m: m, file: file, format: f, clock: newClock(m.loc)}
	for i := range m.columns {
		d.columns = append(d.columns, binding{column: &m.columns[i], src: -1, own: -1})
	}
	for i := range m.logExtra {
		d.columns = append(d.columns, binding{column: &m.logExtra[i], src: -1, own: -1})
	}
	return d, nil
}

// LabelsOnly makes the Decoder take every event for a label, named so or not; another one is a reject.
func (d *Decoder) LabelsOnly() { d.only = ofLabel }

// Rejects returns the rows that were not usable since the last call. The slice is the caller's.
func (d *Decoder) Rejects() []Reject {
	r := d.rejects
	d.rejects = nil
	return r
}

// Lines gives the line in the source of each row that the last Next appended. It is valid until the next.
func (d *Decoder) Lines() []int64 { return d.lines }

// Rounded counts the values so far that had more decimals than their column keeps.
func (d *Decoder) Rounded() int64 { return d.rounded }

// Next appends at most max rows to b and returns how many. b has the mapping's Schema, and a label event is
// then a reject; or its LogSchema. It waits for the source only while it has neither rows nor
// rejects to give, so that a live event is not held back; it may return 0 rows and no error where only
// rejects came. After the last row the error is io.EOF; another error is the source's, and what stood
// before it has been returned.
func (d *Decoder) Next(b *Batch, max int) (int, error) {
	var log bool
	switch {
	case b.Schema.equal(d.m.schema):
	case b.Schema.equal(d.m.log):
		log = true
	default:
		return 0, fmt.Errorf("%s: decoding into columns %v, which are neither of the mapping's schemas", d.file, fieldNames(b.Schema))
	}
	d.lines = d.lines[:0]
	d.raw, d.rawBytes = nil, nil
	for len(d.lines) < max {
		rec, line, bad, err := d.in.next(len(d.lines) == 0 && len(d.rejects) == 0)
		switch {
		case err == errWouldWait:
			return len(d.lines), nil
		case err != nil && (len(d.lines) > 0 || len(d.rejects) > 0):
			return len(d.lines), nil // the same error comes again
		case err == io.EOF:
			return 0, io.EOF
		case err != nil:
			return 0, d.sourceError(line, err)
		}
		if bad != nil {
			d.reject(line, "", bad.Error(), rec)
			continue
		}
		if len(bytes.TrimLeft(rec, " \t\r")) == 0 {
			continue
		}
		if column, err := d.row(rec, b, log); err != nil {
			d.reject(line, column, err.Error(), rec)
			continue
		}
		d.rows++
		d.lines = append(d.lines, line)
		if d.m.repeats {
			d.keepRaw(rec)
		}
	}
	return len(d.lines), nil
}

func (d *Decoder) sourceError(line int64, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s is cut off: it ends in the middle of its compressed data, after %d rows (line %d): get the file again: %w", d.file, d.rows, line, err)
	}
	return fmt.Errorf("read %s after %d rows (line %d): %w", d.file, d.rows, line, err)
}

func (d *Decoder) reject(line int64, column, reason string, raw []byte) {
	d.rejects = append(d.rejects, Reject{File: d.file, Line: line, Column: column, Reason: reason, Row: bounded(raw, rejectRowLimit)})
}

// bounded is at most n bytes of text as valid UTF-8, marked where it was cut.
func bounded(b []byte, n int) string {
	cutOff := len(b) > n
	if cutOff {
		b = b[:n]
	}
	s := strings.ToValidUTF8(string(b), "\ufffd")
	if cutOff {
		s += "..."
	}
	return s
}

// row parses one record and appends it. After an error b is as it was.
func (d *Decoder) row(rec []byte, b *Batch, log bool) (column string, err error) {
	if d.format == CSV {
		err = d.splitCSV(rec)
	} else {
		column, err = d.splitJSON(rec)
	}
	if err != nil {
		return column, err
	}
	kind, err := d.kindOf()
	if err != nil {
		return Event, err
	}
	if kind != ofTransaction && !log {
		return Event, fmt.Errorf("is %s, where only %s are read", oneOf[kind], manyOf[ofTransaction])
	}
	n := len(d.m.columns)
	if log {
		n = len(d.columns)
	}
	rounded := int64(0)
	quick := d.format == JSONL && kind == ofTransaction && !d.whole
	for i := range n {
		if d.columns[i].products {
			continue
		}
		if quick && d.short(&d.columns[i], &b.Columns[i], b.N) {
			continue
		}
		if column, err = d.append(i, b, kind, &rounded); err != nil {
			truncate(b)
			return column, err
		}
	}
	for i := range d.m.columns {
		if !d.columns[i].products {
			continue
		}
		if column, err = d.appendProduct(i, b, kind, &rounded); err != nil {
			truncate(b)
			return column, err
		}
	}
	d.rounded += rounded
	b.N++
	return "", nil
}

// truncate takes back the values of a row that could not be completed.
func truncate(b *Batch) {
	for i := range b.Columns {
		c := &b.Columns[i]
		c.Ints = c.Ints[:min(b.N, len(c.Ints))]
		c.Floats = c.Floats[:min(b.N, len(c.Floats))]
		c.Strings = c.Strings[:min(b.N, len(c.Strings))]
		c.Null = c.Null[:min(b.N, len(c.Null))]
		if b.N == 0 {
			c.Null = nil
		}
	}
}

// eventKind is what an event is about.
type eventKind uint8

const (
	ofTransaction eventKind = iota
	ofLabel
	ofStock
)

func (k eventKind) String() string { return [...]string{EventTransaction, EventLabel, EventStock}[k] }

// What an event is, and what many of them are, in a reason.
var (
	oneOf  = [...]string{"a transaction", "a label", "an event of stock"}
	manyOf = [...]string{"transactions", "labels", "events of stock"}
)

// kindOf tells what an event is about by the cell of Event, which is the third column from the end.
func (d *Decoder) kindOf() (eventKind, error) {
	var x cell
	if event := &d.columns[len(d.columns)-3]; event.src >= 0 {
		x = d.cells[event.src]
	}
	if x.kind <= cellNull || x.kind == cellText && len(x.b) == 0 {
		return d.only, nil
	}
	for k := ofTransaction; k <= ofStock && x.kind == cellText; k++ {
		switch {
		case string(x.b) != k.String():
		case d.only != ofTransaction && k != d.only:
			return k, fmt.Errorf("is %s, where only %s are read", oneOf[k], manyOf[d.only])
		case k == ofStock && !d.m.HasStock():
			return k, fmt.Errorf("is %s, and the mapping lacks a column for its %s or its %s", oneOf[k], ProductID, Quantity)
		default:
			return k, nil
		}
	}
	return 0, fmt.Errorf("%s is not %s, %s or %s", quote(x), EventTransaction, EventLabel, EventStock)
}

// quote shows a value in a reason.
func quote(x cell) string {
	if x.kind == cellText {
		return fmt.Sprintf("%q", bounded(x.b, rejectValueLimit))
	}
	return bounded(x.b, rejectValueLimit)
}

// carries tells of events that are no transactions which columns they may have, and which they must.
func (k eventKind) carries(name string) (allowed, required bool) {
	switch {
	case name == KnownAt:
		return true, true
	case name == EventID:
		return true, false
	case k == ofLabel:
		return name == TransID || name == IsFraud || name == Line, name != Line
	}
	return name == ProductID || name == Quantity || name == StoreID, name != StoreID
}

var (
	errMissing = errors.New("is missing")
	errEmpty   = errors.New("is empty")
)

// append appends the value of column i, which is no product.
func (d *Decoder) append(i int, b *Batch, kind eventKind, rounded *int64) (string, error) {
	c, dst := &d.columns[i], &b.Columns[i]
	if c.Name == Event {
		dst.Strings = append(dst.Strings, kind.String())
		return "", nil
	}
	nullable := c.Nullable
	if kind != ofTransaction {
		allowed, required := kind.carries(c.Name)
		if !allowed {
			dst.appendNull(c.Type, b.N)
			return "", nil
		}
		nullable = !required
	}
	x, name, err := d.cell(c)
	if err != nil {
		return name, err
	}
	if kind == ofTransaction && c.Name == KnownAt && !d.isNull(c, x) {
		return name, errors.New("is of a label, and this is a transaction")
	}
	if d.isNull(c, x) {
		if !nullable {
			if x.kind == cellText {
				return name, errEmpty
			}
			if c.own >= 0 {
				return name, fmt.Errorf("is missing, and so is %s", c.Name)
			}
			return name, errMissing
		}
		dst.appendNull(c.Type, b.N)
		return "", nil
	}
	if kind == ofStock && c.Name == Quantity && !c.signed { // less than nothing is there where more is promised
		below := *c.column
		below.signed = true
		signed := *c
		signed.column, c = &below, &signed
	}
	wasRounded, err := d.value(c, x, dst)
	if err != nil {
		return name, fmt.Errorf("%s %w", quote(x), err)
	}
	if wasRounded {
		*rounded++
	}
	if dst.Null != nil {
		dst.Null = append(dst.Null, false)
	}
	return "", nil
}

// cell finds the value of a column, and under which name.
func (d *Decoder) cell(c *binding) (cell, string, error) {
	var x cell
	if c.src >= 0 {
		x = d.cells[c.src]
	}
	if !d.isOwn(c) {
		return x, c.from, nil
	}
	if x.kind != cellAbsent && c.prefix == "" { // the source of a prefix is a column of its own
		return x, c.Name, fmt.Errorf("is given twice: as %s and as %s", c.from, c.Name)
	}
	return d.cells[c.own], c.Name, nil
}

func (d *Decoder) isNull(c *binding, x cell) bool {
	if x.kind <= cellNull {
		return true
	}
	if x.kind != cellText {
		return false
	}
	for _, null := range c.nulls {
		if string(x.b) == null {
			return true
		}
	}
	return len(x.b) == 0 && (c.empty || c.Type != String || c.id)
}

func (c *Column) appendNull(t Type, n int) {
	if c.Null == nil {
		c.Null = make([]bool, n, n+16)
	}
	c.Null = append(c.Null, true)
	switch t {
	case Float64:
		c.Floats = append(c.Floats, 0)
	case String:
		c.Strings = append(c.Strings, "")
	default:
		c.Ints = append(c.Ints, 0)
	}
}

// value parses a value and appends it without its null mark.
func (d *Decoder) value(c *binding, x cell, dst *Column) (rounded bool, err error) {
	if x.kind == cellComposite {
		return false, errors.New("is an object or array")
	}
	if c.Type == String {
		return false, d.textValue(c, x, dst)
	}
	b := trimSpace(x.b)
	var v int64
	switch {
	case c.prefix != "" && x.kind != cellBool && !d.isOwn(c):
		if bytes.HasPrefix(x.b, []byte(c.prefix)) {
			v = 1
		}
	case c.flag:
		v, err = parseFlag(b)
	case x.kind == cellBool:
		return false, errNotNumber
	case c.Type == Time:
		v, err = d.clock.parse(b, c.layouts)
	case c.Type == Decimal:
		v, rounded, err = parseDecimal(b, c.Scale)
	case c.Type == Float64:
		f, err := parseFloat(b)
		if err == nil && f < 0 && !c.signed && !d.m.returns {
			err = errNegative
		}
		if err == nil {
			dst.Floats = append(dst.Floats, f)
		}
		return false, err
	default:
		v, err = parseInt(b)
	}
	switch {
	case err != nil:
		return false, err
	case v >= 0 || c.signed || c.id || c.Type == Time:
	case c.Name == Line:
		return false, errNegativeLine
	case !d.m.returns:
		return false, errNegative
	}
	dst.Ints = append(dst.Ints, v)
	return rounded, nil
}

// isOwn tells whether the value stands under the column's canonical name, and so is the result itself.
func (d *Decoder) isOwn(c *binding) bool {
	return c.own >= 0 && d.cells[c.own].kind != cellAbsent
}

func (d *Decoder) textValue(c *binding, x cell, dst *Column) error {
	switch {
	case x.kind == cellBool, x.kind == cellNumber && c.id && !isInteger(x.b):
		return errors.New("is neither text nor a whole number")
	case !utf8.Valid(x.b):
		return errors.New("is not UTF-8")
	}
	s, ok := c.words[string(x.b)]
	if !ok {
		s = string(x.b)
		if c.upper {
			s = strings.ToUpper(strings.TrimSpace(s))
		}
		if len(c.words) < internLimit && !oneOff(c.Name) {
			if c.words == nil {
				c.words = map[string]string{}
			}
			c.words[string(x.b)] = s
		}
	}
	dst.Strings = append(dst.Strings, s)
	return nil
}

// oneOff tells columns whose texts do not repeat enough to be worth sharing.
func oneOff(name string) bool { return name == TransID || name == EventID || name == Review }

// isInteger tells whether a JSON number is written as a whole number.
func isInteger(b []byte) bool { return !bytes.ContainsAny(b, ".eE") }

// appendProduct appends the product of two columns of the row that was just parsed.
func (d *Decoder) appendProduct(i int, b *Batch, kind eventKind, rounded *int64) (string, error) {
	c, dst := &d.columns[i], &b.Columns[i]
	if kind != ofTransaction || d.isOwn(c) {
		return d.append(i, b, kind, rounded)
	}
	f, g := c.product[0], c.product[1]
	x, y := &b.Columns[f], &b.Columns[g]
	if x.IsNull(b.N) || y.IsNull(b.N) {
		if !c.Nullable {
			return c.Name, errMissing
		}
		dst.appendNull(c.Type, b.N)
		return "", nil
	}
	v, wasRounded, err := multiply(x.Ints[b.N], y.Ints[b.N], d.columns[f].Scale+d.columns[g].Scale-c.Scale)
	if err != nil {
		return c.Name, fmt.Errorf("%s times %s %w", d.columns[f].from, d.columns[g].from, err)
	}
	if wasRounded {
		*rounded++
	}
	dst.Ints = append(dst.Ints, v)
	if dst.Null != nil {
		dst.Null = append(dst.Null, false)
	}
	return "", nil
}

// multiply is x*y / 10^shift, rounded half to even; shift may be negative.
func multiply(x, y int64, shift int) (v int64, rounded bool, err error) {
	neg := (x < 0) != (y < 0)
	hi, lo := bits.Mul64(magnitude(x), magnitude(y))
	if shift < 0 {
		if hi != 0 {
			return 0, false, errTooLarge
		}
		hi, lo = bits.Mul64(lo, pow10[-shift])
		shift = 0
	}
	p := pow10[shift]
	if hi >= p {
		return 0, false, errTooLarge
	}
	q, r := bits.Div64(hi, lo, p)
	if r > p-r || r == p-r && q&1 == 1 {
		q++
	}
	if q >= decimalLimit {
		return 0, false, errTooLarge
	}
	if neg {
		return -int64(q), r != 0, nil
	}
	return int64(q), r != 0, nil
}

func magnitude(x int64) uint64 {
	if x < 0 {
		return -uint64(x)
	}
	return uint64(x)
}
