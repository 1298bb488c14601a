package datasets

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// Events are read by a parser of one flat object: the values stay bytes until a column wants them, nothing is
// allocated, and what no column wants is skipped but checked.

// jsonDepth bounds the nesting of what is skipped.
const jsonDepth = 64

// nameCells gives each name that a column may stand under a cell.
func (d *Decoder) nameCells() {
	d.names = map[string]int{}
	at := func(name string) int {
		i, ok := d.names[name]
		if !ok {
			i = len(d.names)
			d.names[name] = i
		}
		return i
	}
	for i := range d.columns {
		if c := &d.columns[i]; !c.products {
			c.src = at(c.from)
		}
	}
	// A canonical name is that of the column, unless the source has a field of that name for another.
	for i := range d.columns {
		c := &d.columns[i]
		taken := slices.ContainsFunc(d.columns, func(o binding) bool { return !o.products && o.from == c.Name })
		if !taken {
			c.own = at(c.Name)
		}
	}
	for _, name := range d.m.added {
		d.added = append(d.added, at(name))
	}
	d.cells = make([]cell, len(d.names))
	d.plan()
}

// splitJSON parses one object into the cells. The error's column is the key at fault.
func (d *Decoder) splitJSON(rec []byte) (column string, err error) {
	clear(d.cells)
	d.scratch = d.scratch[:0]
	p := jsonParser{b: rec, scratch: d.scratch}
	column, err = d.object(&p)
	d.scratch = p.scratch
	return column, err
}

func (d *Decoder) object(p *jsonParser) (column string, err error) {
	p.space()
	if !p.take('{') {
		return "", p.fault("want an object {...}")
	}
	p.space()
	for n := 0; !p.take('}'); n++ {
		if n > 0 {
			if !p.take(',') {
				return "", p.fault("want , or }")
			}
			p.space()
		}
		key, i, err := d.key(p, n)
		if err != nil {
			return "", err
		}
		if i >= 0 && d.cells[i].kind != cellAbsent {
			return string(key), errors.New("is there twice")
		}
		x, err := p.value(0)
		if err != nil {
			return bounded(key, rejectValueLimit), err
		}
		if i >= 0 {
			d.cells[i] = x
		}
		p.space()
	}
	p.space()
	if p.i < len(p.b) {
		return "", p.fault("want nothing after the object")
	}
	return d.refuseAdded()
}

// jsonParser reads JSON (RFC 8259) from b at i.
type jsonParser struct {
	b       []byte
	i       int
	scratch []byte
}

func (p *jsonParser) fault(want string) error {
	found := "the end"
	if p.i < len(p.b) {
		found = fmt.Sprintf("%q", bounded(p.b[p.i:], 12))
	}
	return fmt.Errorf("not JSON at byte %d: %s, found %s", p.i+1, want, found)
}

func (p *jsonParser) space() {
	for p.i < len(p.b) {
		switch p.b[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
		default:
			return
		}
	}
}

func (p *jsonParser) take(c byte) bool {
	if p.i < len(p.b) && p.b[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *jsonParser) value(depth int) (cell, error) {
	if p.i == len(p.b) {
		return cell{}, p.fault("want a value")
	}
	start := p.i
	switch c := p.b[p.i]; {
	case c == '"':
		s, err := p.string()
		return cell{cellText, s}, err
	case c == '-' || isDigit(c):
		err := p.number()
		return cell{cellNumber, p.b[start:p.i]}, err
	case c == '{' || c == '[':
		err := p.composite(depth + 1)
		return cell{cellComposite, p.b[start:p.i]}, err
	case p.literal("true") || p.literal("false"):
		return cell{cellBool, p.b[start:p.i]}, nil
	case p.literal("null"):
		return cell{cellNull, p.b[start:p.i]}, nil
	}
	return cell{}, p.fault("want a value")
}

func (p *jsonParser) literal(word string) bool {
	if len(p.b)-p.i < len(word) || string(p.b[p.i:p.i+len(word)]) != word {
		return false
	}
	p.i += len(word)
	return true
}

func (p *jsonParser) number() error {
	b, i := p.b, p.i
	if b[i] == '-' {
		i++
	}
	start := i
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	p.i = i
	switch {
	case i == start:
		return p.fault("want a digit")
	case i == len(b):
		return nil
	case b[start] == '0' && i > start+1: // the number ends behind its zero
		p.i = start + 1
		return nil
	case b[i] == ',' || b[i] == '}':
		return nil
	}
	if p.take('.') && p.digits() == 0 {
		return p.fault("want a digit")
	}
	if p.take('e') || p.take('E') {
		if !p.take('+') {
			p.take('-')
		}
		if p.digits() == 0 {
			return p.fault("want a digit")
		}
	}
	return nil
}

func (p *jsonParser) digits() int {
	start := p.i
	for p.i < len(p.b) && isDigit(p.b[p.i]) {
		p.i++
	}
	return p.i - start
}

// composite checks and skips an object or array.
func (p *jsonParser) composite(depth int) error {
	if depth > jsonDepth {
		return fmt.Errorf("nested more than %d deep at byte %d", jsonDepth, p.i+1)
	}
	object := p.b[p.i] == '{'
	end := byte(']')
	if object {
		end = '}'
	}
	p.i++
	p.space()
	for first := true; !p.take(end); first = false {
		if !first {
			if !p.take(',') {
				return p.fault("want , or " + string(end))
			}
			p.space()
		}
		if object {
			if _, err := p.string(); err != nil {
				return err
			}
			p.space()
			if !p.take(':') {
				return p.fault("want :")
			}
			p.space()
		}
		if _, err := p.value(depth); err != nil {
			return err
		}
		p.space()
	}
	return nil
}

// string reads a string; where it has escapes the result lies in scratch.
func (p *jsonParser) string() ([]byte, error) {
	if !p.take('"') {
		return nil, p.fault("want a string")
	}
	start := p.i
	for i := start; i < len(p.b); i++ {
		c := p.b[i]
		if c != '"' && c != '\\' && c >= 0x20 {
			continue
		}
		p.i = i
		switch c {
		case '"':
			p.i++
			return p.b[start:i], nil
		case '\\':
			return p.escaped(start)
		}
		return nil, p.fault("want control characters escaped")
	}
	p.i = len(p.b)
	return nil, p.fault("want a closing quote")
}

// escaped goes on with a string at its first backslash.
func (p *jsonParser) escaped(start int) ([]byte, error) {
	from := len(p.scratch)
	p.scratch = append(p.scratch, p.b[start:p.i]...)
	for p.i < len(p.b) {
		c := p.b[p.i]
		switch {
		case c == '"':
			p.i++
			return p.scratch[from:], nil
		case c < 0x20:
			return nil, p.fault("want control characters escaped")
		case c != '\\':
			p.scratch = append(p.scratch, c)
			p.i++
			continue
		}
		p.i++
		if p.i == len(p.b) {
			break
		}
		e := p.b[p.i]
		p.i++
		switch e {
		case '"', '\\', '/':
			p.scratch = append(p.scratch, e)
		case 'b':
			p.scratch = append(p.scratch, '\b')
		case 'f':
			p.scratch = append(p.scratch, '\f')
		case 'n':
			p.scratch = append(p.scratch, '\n')
		case 'r':
			p.scratch = append(p.scratch, '\r')
		case 't':
			p.scratch = append(p.scratch, '\t')
		case 'u':
			r, err := p.unicode()
			if err != nil {
				return nil, err
			}
			p.scratch = utf8.AppendRune(p.scratch, r)
		default:
			p.i--
			return nil, p.fault("want an escape")
		}
	}
	return nil, p.fault("want a closing quote")
}

// unicode reads the four hex digits after \u, and the second half of a surrogate pair. Half a pair alone
// becomes U+FFFD, as encoding/json has it.
func (p *jsonParser) unicode() (rune, error) {
	r, err := p.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	at := p.i
	if p.take('\\') && p.take('u') {
		low, err := p.hex4()
		if err != nil {
			return 0, err
		}
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return pair, nil
		}
	}
	p.i = at
	return utf8.RuneError, nil
}

func (p *jsonParser) hex4() (rune, error) {
	var r rune
	for range 4 {
		if p.i == len(p.b) {
			return 0, p.fault("want four hex digits")
		}
		c := p.b[p.i]
		switch {
		case isDigit(c):
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, p.fault("want four hex digits")
		}
		r = r<<4 | rune(c)
		p.i++
	}
	return r, nil
}
