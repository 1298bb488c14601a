package datasets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

var errAfterQuote = errors.New("text stands after a closing quote")

// readHeader reads the first record and finds the mapped columns in it.
func (d *Decoder) readHeader() error {
	rec, _, bad, err := d.in.next(true)
	switch {
	case err == io.EOF:
		return fmt.Errorf("%s is empty: want a header line and rows", d.file)
	case err != nil:
		return d.sourceError(1, err)
	case bad != nil:
		return fmt.Errorf("%s:1: the header cannot be read: %w", d.file, bad)
	}
	if bytes.HasPrefix(rec, []byte{0xFF, 0xFE}) || bytes.HasPrefix(rec, []byte{0xFE, 0xFF}) {
		return fmt.Errorf("%s is UTF-16: convert it to UTF-8, for example with iconv -f UTF-16 -t UTF-8", d.file)
	}
	rec = bytes.Clone(rec)
	if d.header, err = d.headerNames(rec, d.m.comma); err != nil {
		return fmt.Errorf("%s:1: the header cannot be read: %w", d.file, err)
	}
	var missing []string
	for i := range d.columns {
		c := &d.columns[i]
		if c.products {
			continue
		}
		at := slices.Index(d.header, c.from)
		switch {
		case at < 0 && !c.optional:
			missing = append(missing, c.from)
		case at >= 0 && slices.Index(d.header[at+1:], c.from) >= 0:
			return fmt.Errorf("%s:1: the header has %s twice", d.file, c.from)
		}
		c.src = at
	}
	if len(missing) > 0 {
		return d.headerError(rec, missing)
	}
	d.cells = make([]cell, len(d.header))
	return nil
}

// headerNames splits a header line by a delimiter.
func (d *Decoder) headerNames(rec []byte, comma byte) ([]string, error) {
	fields, err := splitFields(nil, rec, comma, &d.scratch)
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = strings.TrimSpace(string(f.b))
	}
	return names, err
}

// headerError says which mapped columns the header lacks, and whether another delimiter would give them.
func (d *Decoder) headerError(rec []byte, missing []string) error {
	found := bounded(rec, 300)
	for _, comma := range []byte{',', ';', '\t', '|'} {
		if comma == d.m.comma {
			continue
		}
		names, err := d.headerNames(rec, comma)
		if err != nil || len(names) <= len(d.header) {
			continue
		}
		if slices.ContainsFunc(missing, func(m string) bool { return slices.Contains(names, m) }) {
			return fmt.Errorf("%s:1: no column %s: the fields seem to be separated by %q, not %q: set delimiter: %q in the mapping or give --delimiter %q; the header is: %s",
				d.file, missing[0], comma, d.m.comma, string(comma), string(comma), found)
		}
	}
	var words []string
	for _, m := range missing {
		w := m
		if near := Nearest(m, d.header); near != "" {
			w += " (is it " + near + "?)"
		}
		words = append(words, w)
	}
	return fmt.Errorf("%s:1: the header lacks %s, which %s maps; it is: %s", d.file, strings.Join(words, ", "), d.m.name, found)
}

// splitCSV cuts a record into the cells.
func (d *Decoder) splitCSV(rec []byte) error {
	d.scratch = d.scratch[:0]
	cells, err := splitFields(d.cells[:0], rec, d.m.comma, &d.scratch)
	if err != nil {
		return err
	}
	if len(cells) != len(d.header) {
		n := len(cells)
		d.cells = d.cells[:len(d.header)]
		return fmt.Errorf("%d fields, where the header has %d", n, len(d.header))
	}
	d.cells = cells
	return nil
}

// splitFields appends the fields of a record. Quoted fields that hold quotes are unescaped into scratch.
func splitFields(dst []cell, rec []byte, comma byte, scratch *[]byte) ([]cell, error) {
	for {
		if len(rec) > 0 && rec[0] == '"' {
			field, rest, err := quotedField(rec[1:], scratch)
			if err != nil {
				return dst, err
			}
			dst = append(dst, cell{cellText, field})
			if len(rest) == 0 {
				return dst, nil
			}
			if rest[0] != comma {
				return dst, errAfterQuote
			}
			rec = rest[1:]
			continue
		}
		i := indexByteShort(rec, comma)
		if i < 0 {
			return append(dst, cell{cellText, rec}), nil
		}
		dst = append(dst, cell{cellText, rec[:i]})
		rec = rec[i+1:]
	}
}

// indexByteShort is bytes.IndexByte for fields of a few bytes, where the call costs more than the loop.
func indexByteShort(b []byte, c byte) int {
	for i, x := range b[:min(16, len(b))] {
		if x == c {
			return i
		}
	}
	if len(b) <= 16 {
		return -1
	}
	if i := bytes.IndexByte(b[16:], c); i >= 0 {
		return 16 + i
	}
	return -1
}

// quotedField reads up to the closing quote; b begins after the opening one.
func quotedField(b []byte, scratch *[]byte) (field, rest []byte, err error) {
	start := len(*scratch)
	copied := false
	for {
		i := bytes.IndexByte(b, '"')
		if i < 0 {
			return nil, nil, errUnclosed
		}
		doubled := i+1 < len(b) && b[i+1] == '"'
		if !doubled && !copied {
			return b[:i], b[i+1:], nil
		}
		*scratch = append(*scratch, b[:i]...)
		if !doubled {
			return (*scratch)[start:], b[i+1:], nil
		}
		*scratch = append(*scratch, '"')
		copied = true
		b = b[i+2:]
	}
}
