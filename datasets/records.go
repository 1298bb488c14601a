package datasets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	// recordLimit is the longest line that is read: no event has a reason to be longer, and a file that is
	// not lines at all must not fill the memory.
	recordLimit = 1 << 20
	// quotedLimit is how far a quoted field that spans lines is looked for its closing quote. Longer would
	// let one stray quote swallow the rows after it.
	quotedLimit = 64 << 10
	// readChunk is how much of a file is read at once, and firstChunk how much at first: a decoder of one
	// event over HTTP must cost little.
	readChunk  = 256 << 10
	firstChunk = 4 << 10
)

var (
	errTooLong  = fmt.Errorf("the line is longer than %d bytes", recordLimit)
	errUnclosed = fmt.Errorf("a quote opens a field and is not closed within %d bytes", quotedLimit)
	// errWouldWait says that no complete record is at hand without waiting for the source.
	errWouldWait = errors.New("no complete record buffered")
)

// records cuts a stream into records: lines, or for CSV, lines joined where a quoted field spans them.
type records struct {
	r     io.Reader
	comma byte // of CSV; 0 for lines
	buf   []byte
	start int   // of the record that comes next
	end   int   // of what was read
	line  int64 // number of the line at start, from 1
	full  bool  // the last read filled the buffer, and a larger one would be better
	skip  bool  // the rest of a line that was too long comes first
	err   error // of the source, io.EOF at its end
}

func newRecords(r io.Reader, comma byte) *records {
	return &records{r: r, comma: comma, line: 1, buf: make([]byte, firstChunk)}
}

// next returns the next record without its line end, valid until the next call, and its first line's
// number. bad is the reason where the record cannot be used; the stream goes on after it. Without wait,
// errWouldWait comes back where the source would have to be read. After the last record err is io.EOF
// or the source's error; what stands before such an error without a line end is no record.
func (s *records) next(wait bool) (rec []byte, line int64, bad, err error) {
	for {
		if s.skip && !s.dropRest() {
			if err := s.fill(wait); err != nil {
				return nil, s.line, nil, err
			}
			continue
		}
		n, bad, ok := s.find()
		if !ok {
			if err := s.fill(wait); err != nil {
				return nil, s.line, nil, err
			}
			continue
		}
		rec, line = s.buf[s.start:s.start+n], s.line
		if bad == errTooLong {
			s.skip = true
			s.start += n
			return rec, line, bad, nil
		}
		s.start += n
		s.line += int64(bytes.Count(rec, newline))
		if s.start < s.end && s.buf[s.start] == '\n' {
			s.start++
			s.line++
		}
		rec = bytes.TrimSuffix(rec, carriage)
		if line == 1 {
			rec = bytes.TrimPrefix(rec, byteOrderMark)
		}
		return rec, line, bad, nil
	}
}

var newline, carriage, byteOrderMark = []byte{'\n'}, []byte{'\r'}, []byte{0xEF, 0xBB, 0xBF}

// dropRest skips to the end of a line that was too long.
func (s *records) dropRest() bool {
	i := bytes.IndexByte(s.buf[s.start:s.end], '\n')
	if i < 0 {
		s.start = s.end
		return false
	}
	s.start += i + 1
	s.line++
	s.skip = false
	return true
}

// find measures the record at start; ok is false where more has to be read to tell.
func (s *records) find() (n int, bad error, ok bool) {
	have := s.buf[s.start:s.end]
	n = bytes.IndexByte(have, '\n')
	if n > recordLimit || n < 0 && len(have) > recordLimit {
		return recordLimit, errTooLong, true
	}
	if n < 0 {
		if s.err != io.EOF || len(have) == 0 {
			return 0, nil, false
		}
		n = len(have)
	}
	if s.comma == 0 || bytes.IndexByte(have[:n], '"') < 0 {
		return n, nil, true
	}
	whole, closed := quotedEnd(have, s.comma)
	switch {
	case closed && whole <= max(n, quotedLimit):
		return whole, nil, true
	case !closed && s.err == nil && len(have) <= quotedLimit:
		return 0, nil, false
	case !closed && s.err == io.EOF && whole == len(have):
		return whole, nil, true // the last line, without a line end
	}
	return n, errUnclosed, true
}

// quotedEnd finds the line end that stands outside of quotes. A quote opens a field only as its first
// character. Where there is none, closed is false, and the length is that of b where b ends outside of
// quotes.
func quotedEnd(b []byte, comma byte) (n int, closed bool) {
	fieldStart, quoted := true, false
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case quoted:
			if c != '"' {
				continue
			}
			if i+1 < len(b) && b[i+1] == '"' {
				i++
				continue
			}
			quoted = false
		case c == '\n':
			return i, true
		case c == '"' && fieldStart:
			quoted = true
		}
		fieldStart = c == comma
	}
	if quoted {
		return 0, false
	}
	return len(b), false
}

// fill reads more, moving what is left to the front of the buffer.
func (s *records) fill(wait bool) error {
	if s.err != nil {
		return s.err
	}
	if !wait {
		return errWouldWait
	}
	if s.start > 0 {
		s.end = copy(s.buf, s.buf[s.start:s.end])
		s.start = 0
	}
	if s.full || s.end == len(s.buf) {
		s.buf = append(s.buf, make([]byte, max(len(s.buf), min(readChunk, 8*len(s.buf))))...)
	}
	for range 100 {
		n, err := s.r.Read(s.buf[s.end:])
		s.end += n
		s.full = s.end == len(s.buf) && len(s.buf) < readChunk
		s.err = err
		if n > 0 || err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	s.err = io.ErrNoProgress
	return s.err
}
