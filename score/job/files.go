package job

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/source"
)

// file is a sink that is a file of lines. It grows, and what it has is told by its length.
type file struct {
	f      *os.File
	w      *bufio.Writer
	length int64
}

// File makes a Sink of a file: it goes on at its end.
func File(path string) (Sink, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file whose length tells what it has: name a file, or - for standard output", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &file{f, bufio.NewWriterSize(f, 1<<20), info.Size()}, nil
}

func (s *file) Length() int64 { return s.length }

func (s *file) Truncate(n int64) error {
	if n != s.length {
		if err := s.f.Truncate(n); err != nil {
			return err
		}
	}
	s.length = n
	_, err := s.f.Seek(n, io.SeekStart)
	return err
}

func (s *file) Deliver(_ context.Context, lines []Line, _ map[string]int64, ready func() error) error {
	if err := ready(); err != nil {
		return err
	}
	if err := writeLines(s.w, lines); err != nil {
		return err
	}
	for i := range lines {
		s.length += int64(len(lines[i].Value)) + 1
	}
	return s.f.Sync()
}

func writeLines(w *bufio.Writer, lines []Line) error {
	for i := range lines {
		w.Write(lines[i].Value)
		if err := w.WriteByte('\n'); err != nil {
			return err
		}
	}
	return w.Flush()
}

func (s *file) Commits() bool { return false }
func (s *file) Close() error  { return s.f.Close() }

// stream is a sink whose reader is not known to keep anything.
type stream struct{ w *bufio.Writer }

// Stream makes a Sink of an open stream, which it leaves open. After a crash the last lines come again.
func Stream(w io.Writer) Sink { return stream{bufio.NewWriterSize(w, 1<<16)} }

func (s stream) Deliver(_ context.Context, lines []Line, _ map[string]int64, _ func() error) error {
	return writeLines(s.w, lines)
}

func (s stream) Commits() bool { return false }
func (s stream) Close() error  { return nil }

// textLines is a file of JSON lines as a log of one partition: positions are the numbers of lines, from 1.
type textLines struct {
	path, name string
	in         io.ReadCloser
	r          *bufio.Reader
	line       int64 // read so far
}

// TextLines makes a Source of a file of JSON lines, which may be compressed.
func TextLines(path string) (Source, error) {
	format, err := source.FormatOf(path)
	if err != nil {
		return nil, err
	}
	if format != datasets.JSONL {
		return nil, fmt.Errorf("%s: a state that is kept goes on at any line of its source, and lines of CSV cannot be read alone: give JSON lines", path)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s cannot be read again: with a state that is kept give a file, or a topic", path)
	}
	in, err := datasets.OpenInput(path)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(in, 1<<20)
	return &textLines{path: path, name: source.Name(path, r), in: in, r: r}, nil
}

func (s *textLines) Partitions() []Partition { return []Partition{{Name: s.name, End: -1}} }

// Committed is empty: a file keeps no positions.
func (s *textLines) Committed(context.Context) (map[string]int64, error) {
	return map[string]int64{}, nil
}

func (s *textLines) Seek(ctx context.Context, next map[string]int64) error {
	at := next[s.name]
	for s.line < at-1 && ctx.Err() == nil {
		switch _, err := s.read(0); {
		case err == io.EOF:
			return fmt.Errorf("%s ends at line %d, and the state has gone through it up to line %d: it was cut off since; give the whole file",
				s.path, s.line, at-1)
		case err != nil:
			return err
		}
	}
	return ctx.Err()
}

// read reads a line and returns at most so many bytes of it, its end among them; io.EOF is where there is none.
func (s *textLines) read(most int) ([]byte, error) {
	var line []byte
	for length := 0; ; {
		part, err := s.r.ReadSlice('\n')
		length += len(part)
		line = append(line, part[:min(len(part), most-len(line))]...)
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && length > 0:
			err = nil
		case err != nil:
			return nil, err
		}
		s.line++
		return line, nil
	}
}

func (s *textLines) Poll(ctx context.Context, limit int) ([]Records, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := Records{Source: s.name, End: -1}
	var err error
	for len(r.Events) < min(limit, defaultBatch) {
		var line []byte
		if line, err = s.read(datasets.MaxEvent + 1); err != nil { // longer ones are refused, and need not be kept
			break
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			r.Events = append(r.Events, Event{Position: s.line, Value: line})
		}
	}
	if err == io.EOF && len(r.Events) > 0 {
		err = nil // next time
	}
	r.Next = s.line + 1
	return []Records{r}, err
}

func (s *textLines) Recycle(Records, int, int)     {}
func (s *textLines) Commit(map[string]int64) error { return nil }
func (s *textLines) Close() error                  { return s.in.Close() }
