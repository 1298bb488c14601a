package datasets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

// A wide file has a series on each row: its id, then its values, one a step of time. It has no times of its own;
// the mapping says when the first value was, and how long a step is:
//
//	timezone: UTC
//	returns: true                 # values may be negative
//	wide:
//	  keys: {product_id: V1}      # columns that name the series; the others are values, in order
//	  start: "2000-01-01 00:00:00"
//	  step: hour                  # or day, week
//	  align: end                  # all series end together; default start: all begin together
//	  value: {name: value, scale: 4}
//
// Each value becomes one transaction: trans_id is the keys joined by |, line the number of the value in its series,
// trans_datetime the beginning of its step, value a decimal. Rows may be of different lengths. Empty fields and NA at
// the end of a row are not values; before that they are gaps, which are counted and give no transaction. A series
// that several files have goes on from one to the next. align: end puts the last value of every series at one
// time, that of the longest series: files such as M4's say nothing of when a series began, and forecasts are made
// for all from one moment.
type wide struct {
	keys    []wideKey
	ignore  []string
	start   time.Time
	step    string
	fromEnd bool
	value   string
	scale   int
}

type wideKey struct{ name, from string }

// wideSteps are the steps of wide files.
var wideSteps = []string{"hour", "day", "week"}

// CountMissing is, in Manifest.Counts of an import of wide files, how many values are missing inside series.
const CountMissing = "missing"

// WideOptions says how a wide file is read without a mapping file.
type WideOptions struct {
	Series   string         // the column that names the series; "" is the first
	Start    string         // of the first value: a date, a time as 2000-01-01 00:00:00, or RFC 3339
	Step     string         // hour, day or week
	AlignEnd bool           // all series end together
	Scale    int            // decimals that values keep, 0 to 9
	Location *time.Location // of Start and of days and weeks; nil is UTC
}

// WideMapping reads files with a series on each row. Values may be negative.
func WideMapping(o WideOptions) (*Mapping, error) {
	loc := o.Location
	if loc == nil {
		loc = time.UTC
	}
	if !slices.Contains(wideSteps, o.Step) {
		return nil, fmt.Errorf("step %q: want %s", o.Step, strings.Join(wideSteps, ", "))
	}
	if o.Scale < 0 || o.Scale > 9 {
		return nil, fmt.Errorf("scale %d: want the digits after the point, 0 to 9", o.Scale)
	}
	start, err := wideStart(o.Start, loc)
	if err != nil {
		return nil, err
	}
	m := &Mapping{name: "wide", format: CSV, comma: ',', loc: loc, returns: true}
	m.wide = &wide{keys: []wideKey{{ProductID, o.Series}}, start: start, step: o.Step, fromEnd: o.AlignEnd,
		value: "value", scale: o.Scale}
	m.makeWide()
	return m, nil
}

// Wide tells whether the mapping is of files with a series on each row.
func (m *Mapping) Wide() bool { return m.wide != nil }

func wideStart(s string, loc *time.Location) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, time.DateTime, time.RFC3339Nano} {
		if t, err := time.ParseInLocation(layout, s, loc); err == nil {
			return t.In(loc), nil
		}
	}
	return time.Time{}, fmt.Errorf("start %q: want a date or time, such as 2000-01-01 or 2000-01-01 06:00:00", s)
}

// parseWide reads the mapping's `wide:`.
func (m *Mapping) parseWide(d *yamlDoc, e yamlEntry) {
	w := &wide{value: "value", scale: AmountScale}
	seen := map[string]ast.Node{}
	start := ""
	for _, o := range d.entries(e.value, "wide", "keys", "ignore", "start", "step", "align", "value") {
		seen[o.key] = o.value
		switch o.key {
		case "keys":
			for _, k := range d.entries(o.value, "wide: keys") {
				w.keys = append(w.keys, wideKey{k.key, d.text(k)})
				if !columnName.MatchString(k.key) || slices.Contains(reserved, k.key) ||
					slices.Contains([]string{TransID, Line, TransDatetime}, k.key) {
					d.fault(k.node, "wide: keys: a series cannot be named by %q", k.key)
				}
			}
		case "ignore":
			w.ignore = d.texts(o)
		case "start":
			start = d.text(o)
		case "step":
			if w.step = d.text(o); !slices.Contains(wideSteps, w.step) {
				d.fault(o.value, "wide: step: want %s, not %q", strings.Join(wideSteps, ", "), w.step)
			}
		case "align":
			switch align := d.text(o); align {
			case "end":
				w.fromEnd = true
			case "start":
			default:
				d.fault(o.value, "wide: align: want start or end, not %q", align)
			}
		case "value":
			m.parseWideValue(d, w, o)
		}
	}
	for _, key := range []string{"keys", "start", "step"} {
		if seen[key] == nil {
			d.fault(e.node, "wide: %s is missing", key)
		}
	}
	if seen["keys"] != nil && len(w.keys) == 0 {
		d.fault(e.node, "wide: keys: want at least one, such as {product_id: V1}")
	}
	if m.loc != nil && start != "" {
		var err error
		if w.start, err = wideStart(start, m.loc); err != nil {
			d.fault(seen["start"], "wide: %v", err)
		}
	}
	m.wide = w
}

func (m *Mapping) parseWideValue(d *yamlDoc, w *wide, e yamlEntry) {
	for _, o := range d.entries(e.value, "wide: value", "name", "scale") {
		switch o.key {
		case "name":
			w.value = d.text(o)
			if !columnName.MatchString(w.value) || slices.Contains(reserved, w.value) {
				d.fault(o.value, "wide: value: %q cannot be the name of a column", w.value)
			}
		case "scale":
			scale := d.text(o)
			if len(scale) != 1 || scale[0] < '0' || scale[0] > '9' {
				d.fault(o.value, "wide: value: scale: want the digits after the point, 0 to 9")
				return
			}
			w.scale = int(scale[0] - '0')
		}
	}
}

// makeWide derives the columns.
func (m *Mapping) makeWide() {
	add := func(f Field) { m.columns = append(m.columns, column{Field: f, from: f.Name}) }
	add(Field{Name: TransID, Type: String})
	add(Field{Name: Line, Type: Int64})
	add(Field{Name: TransDatetime, Type: Time})
	for _, k := range m.wide.keys {
		add(Field{Name: k.name, Type: String})
	}
	add(Field{Name: m.wide.value, Type: Decimal, Scale: m.wide.scale})
	slices.SortStableFunc(m.columns, func(a, b column) int { return canonicalAt(a.Name) - canonicalAt(b.Name) })
	m.makeSchemas()
}

// at is the time of value n after the one at `from`, microseconds since 1970 UTC.
func (w *wide) at(from time.Time, n int) int64 {
	switch w.step {
	case "day":
		return from.AddDate(0, 0, n).UnixMicro()
	case "week":
		return from.AddDate(0, 0, 7*n).UnixMicro()
	}
	return from.Add(time.Duration(n) * time.Hour).UnixMicro()
}

// series is one row of a wide file, and what further files add to it.
type series struct {
	id     string
	keys   []string
	values []int64
	gap    []bool // no value there
	files  int    // in how many files it is; 1 + the last one's number
	end    int64  // Continue: the time of its last value there
	lines  int64  // Continue: how many values it has there
}

// wideReader reads wide files into series.
type wideReader struct {
	im      *importer
	w       *wide
	byID    map[string]*series
	list    []*series
	cells   []cell
	scratch []byte
	// Of the file at hand.
	file   string
	number int
	header []string
	at     []int // of the keys
	values []int // of the values
}

// readWide reads all files and appends their values as rows.
func (im *importer) readWide(ctx context.Context) error {
	r := &wideReader{im: im, w: im.o.Mapping.wide, byID: map[string]*series{}}
	if im.o.Continue != nil {
		if err := r.known(ctx, im.o.Continue); err != nil {
			return err
		}
	}
	for i, path := range im.o.Files {
		r.file, r.number = path, i+1
		if err := r.read(ctx, path); err != nil {
			return err
		}
	}
	return r.rows(ctx)
}

// known reads where the series of another data set end.
func (r *wideReader) known(ctx context.Context, d *Dataset) error {
	for _, f := range r.im.rows.Schema.Fields[:3] {
		if i := d.Schema().Index(f.Name); i < 0 || d.Schema().Fields[i].Type != f.Type {
			return fmt.Errorf("import: %s has no column %s of type %s: it is not of a wide file, and its series cannot be continued", d.Dir(), f.Name, f.Type)
		}
	}
	return d.Read(ctx, ReadOptions{Columns: []string{TransID, Line, TransDatetime}}, func(b *Batch) error {
		for i, id := range b.Columns[0].Strings {
			s := r.byID[id]
			if s == nil {
				s = &series{id: id}
				r.byID[id] = s
			}
			s.lines, s.end = max(s.lines, b.Columns[1].Ints[i]+1), max(s.end, b.Columns[2].Ints[i])
		}
		return nil
	})
}

func (r *wideReader) read(ctx context.Context, path string) error {
	f, err := openRaw(path)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	if path != "-" {
		defer f.Close()
	}
	raw := &counted{r: f, h: sha256.New(), done: &r.im.done}
	z, err := uncompress(raw, path)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	in := newRecords(z, r.im.o.Mapping.comma)
	if err := r.readHeader(in); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	rows, before := 0, r.im.rejected
	for {
		rec, line, bad, err := in.next(true)
		if err == io.EOF {
			break
		}
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("import: %s is cut off: it ends in the middle of its compressed data: get the file again: %w",
				path, err)
		case err != nil:
			return fmt.Errorf("import: read %s, line %d: %w", path, line, err)
		case ctx.Err() != nil:
			return fmt.Errorf("import: %w", ctx.Err())
		case bad != nil:
			r.reject(line, "", bad, rec)
			continue
		case len(bytes.TrimSpace(rec)) == 0:
			continue
		}
		rows++
		if err := r.row(rec, line); err != nil {
			r.reject(line, "", err, rec)
		}
		if r.im.o.Progress != nil {
			r.im.o.Progress(r.im.wideValues+r.im.rejected, r.im.done.Load(), r.im.total)
		}
	}
	if rows == 0 && r.im.rejected == before {
		return fmt.Errorf("import: %s has a header and no rows", path)
	}
	r.im.sources = append(r.im.sources, Source{Path: path, SHA256: hex.EncodeToString(raw.h.Sum(nil)), Rows: int64(rows)})
	return nil
}

func (r *wideReader) reject(line int64, column string, reason error, raw []byte) {
	r.im.rejects = append(r.im.rejects, Reject{File: r.file, Line: line, Column: column, Reason: reason.Error(),
		Row: bounded(raw, rejectRowLimit)})
	r.im.rejected++
}

// readHeader finds the columns that name series; all others are values.
func (r *wideReader) readHeader(in *records) error {
	rec, _, bad, err := in.next(true)
	switch {
	case err == io.EOF:
		return fmt.Errorf("%s is empty: want a header line and a series on each row", r.file)
	case err != nil:
		return fmt.Errorf("read %s: %w", r.file, err)
	case bad != nil:
		return fmt.Errorf("%s:1: the header cannot be read: %w", r.file, bad)
	}
	r.scratch = r.scratch[:0]
	cells, err := splitFields(nil, rec, r.im.o.Mapping.comma, &r.scratch)
	if err != nil {
		return fmt.Errorf("%s:1: the header cannot be read: %w", r.file, err)
	}
	r.header, r.at, r.values = nil, nil, nil
	for _, c := range cells {
		r.header = append(r.header, strings.TrimSpace(string(c.b)))
	}
	find := func(name string) (int, error) {
		at := slices.Index(r.header, name)
		if at < 0 {
			few := r.header[:min(len(r.header), 20)]
			return 0, fmt.Errorf("%s:1: the header lacks %s, which %s maps; it begins with %s", r.file, name,
				r.im.o.Mapping.name, strings.Join(few, ","))
		}
		return at, nil
	}
	var drop []int
	for _, k := range r.w.keys {
		at := 0 // a series without a named column is named by the first
		if k.from != "" {
			if at, err = find(k.from); err != nil {
				return err
			}
		}
		r.at = append(r.at, at)
	}
	for _, name := range r.w.ignore {
		at, err := find(name)
		if err != nil {
			return err
		}
		drop = append(drop, at)
	}
	for i := range r.header {
		if !slices.Contains(r.at, i) && !slices.Contains(drop, i) {
			r.values = append(r.values, i)
		}
	}
	if len(r.values) == 0 {
		return fmt.Errorf("%s:1: the header names no values beside %s: want a series on each row, one column a step",
			r.file, strings.Join(r.header, ","))
	}
	return nil
}

// row reads one series. An error is of the whole row; a value that cannot be read is a gap and a reject of its own.
func (r *wideReader) row(rec []byte, line int64) error {
	r.scratch = r.scratch[:0]
	var err error
	if r.cells, err = splitFields(r.cells[:0], rec, r.im.o.Mapping.comma, &r.scratch); err != nil {
		return err
	}
	if len(r.cells) > len(r.header) {
		return fmt.Errorf("%d fields, where the header has %d", len(r.cells), len(r.header))
	}
	var keys []string
	for k, at := range r.at {
		if at >= len(r.cells) || len(bytes.TrimSpace(r.cells[at].b)) == 0 {
			return fmt.Errorf("%s is empty", r.w.keys[k].name)
		}
		if !utf8.Valid(r.cells[at].b) {
			return fmt.Errorf("%s is not UTF-8", r.w.keys[k].name)
		}
		keys = append(keys, string(bytes.TrimSpace(r.cells[at].b)))
	}
	id := strings.Join(keys, "|")
	s := r.byID[id]
	switch {
	case s == nil && r.im.o.Continue != nil:
		return fmt.Errorf("series %s is not in %s, and where it begins cannot be told", id, r.im.o.Continue.Dir())
	case s == nil:
		s = &series{id: id}
		r.byID[id] = s
	case s.files == r.number:
		return fmt.Errorf("series %s is there twice", id)
	}
	if s.keys == nil {
		s.keys = keys
		r.list = append(r.list, s)
	}
	s.files = r.number
	r.append(s, line)
	return nil
}

// append appends the row's values to its series.
func (r *wideReader) append(s *series, line int64) {
	last := len(r.values)
	for last > 0 && (r.values[last-1] >= len(r.cells) || isGap(r.cells[r.values[last-1]].b)) {
		last--
	}
	for _, at := range r.values[:last] {
		var v int64
		gap := at >= len(r.cells) || isGap(r.cells[at].b)
		if gap {
			r.im.missing++
		} else {
			x, rounded, err := parseDecimal(trimSpace(r.cells[at].b), r.w.scale)
			if err == nil && x < 0 && !r.im.o.Mapping.returns {
				err = errNegative
			}
			switch {
			case err != nil:
				r.reject(line, r.header[at], fmt.Errorf("series %s: %q %w", s.id, bounded(r.cells[at].b, rejectValueLimit), err),
					r.cells[at].b)
				gap = true
			case rounded:
				r.im.rounded++
			}
			v = x
		}
		s.values, s.gap = append(s.values, v), append(s.gap, gap)
		if !gap {
			r.im.wideValues++
		}
	}
}

// isGap tells a field without a value.
func isGap(b []byte) bool {
	b = trimSpace(b)
	return len(b) == 0 || string(b) == "NA"
}

// rows gives the values their times and makes them rows, ordered by series.
func (r *wideReader) rows(ctx context.Context) error {
	m, b := r.im.o.Mapping, r.im.rows
	longest := 0
	for _, s := range r.list {
		longest = max(longest, len(s.values))
	}
	for _, s := range r.list {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("import: %w", err)
		}
		from, first := r.w.start, 0
		switch {
		case r.im.o.Continue != nil:
			from, first = time.UnixMicro(s.end).In(m.loc), 1
		case r.w.fromEnd:
			first = longest - len(s.values)
		}
		for i, v := range s.values {
			if s.gap[i] {
				continue
			}
			key := 0
			for c := range b.Columns {
				dst := &b.Columns[c]
				switch b.Schema.Fields[c].Name {
				case TransID:
					dst.Strings = append(dst.Strings, s.id)
				case Line:
					dst.Ints = append(dst.Ints, s.lines+int64(i))
				case TransDatetime:
					dst.Ints = append(dst.Ints, r.w.at(from, first+i))
				case r.w.value:
					dst.Ints = append(dst.Ints, v)
				default:
					key = slices.IndexFunc(r.w.keys, func(k wideKey) bool { return k.name == b.Schema.Fields[c].Name })
					dst.Strings = append(dst.Strings, s.keys[key])
				}
			}
			b.N++
			r.im.lines = append(r.im.lines, 0)
		}
	}
	for range r.im.o.Files {
		r.im.ends = append(r.im.ends, b.N)
	}
	return nil
}
