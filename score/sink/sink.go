// Package sink takes the scorer's lines away: to a stream as they come, or to a file that appears whole when
// the events end.
package sink

import (
	"bufio"
	"io"

	"github.com/onmart/onmart/internal/atomicdir"
)

// Sink takes whole lines. Close completes it; Abort gives up what is not complete and does nothing after Close.
type Sink interface {
	io.Writer
	// Flush makes what was written visible to a reader of a stream.
	Flush() error
	Close() error
	Abort()
}

type stream struct{ *bufio.Writer }

// Stream makes a sink of an open stream such as standard output, which it leaves open.
func Stream(w io.Writer) Sink { return stream{bufio.NewWriterSize(w, 1<<16)} }

func (s stream) Close() error { return s.Flush() }
func (s stream) Abort()       { s.Flush() }

type file struct {
	*bufio.Writer
	f *atomicdir.File
}

// File begins a file; an existing one is refused unless force is given, and stays until Close.
func File(path string, force bool) (Sink, error) {
	f, err := atomicdir.CreateFile(path, force)
	if err != nil {
		return nil, err
	}
	return file{bufio.NewWriterSize(f, 1<<20), f}, nil
}

func (s file) Write(b []byte) (int, error) {
	n, err := s.Writer.Write(b)
	return n, s.f.Err(err)
}

// Flush does nothing: nobody reads the file before it is whole.
func (s file) Flush() error { return nil }

func (s file) Close() error {
	if err := s.Writer.Flush(); err != nil {
		return s.f.Err(err)
	}
	return s.f.Commit()
}

func (s file) Abort() { s.f.Abort() }
