package datasets

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// zstdWindow bounds the memory that a zstd stream may ask for: what the zstd tool uses at its highest
// ordinary level.
const zstdWindow = 128 << 20

// OpenInput opens a file, or standard input for "-", and uncompresses gzip and zstd, which are recognised
// by their first bytes.
func OpenInput(path string) (io.ReadCloser, error) {
	f, err := openRaw(path)
	if err != nil {
		return nil, err
	}
	r, err := uncompress(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &input{Reader: r, closers: []io.Closer{r, f}}, nil
}

func openRaw(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, fmt.Errorf("%s is a directory: name the files in it", path)
	}
	return f, nil
}

// input closes the decompressor and the file under it.
type input struct {
	io.Reader
	closers []io.Closer
}

func (i *input) Close() error {
	var errs []error
	for _, c := range i.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// uncompress wraps r as its first bytes ask for. Errors of damaged data name the file.
func uncompress(r io.Reader, path string) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	magic, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1F, 0x8B}):
		z, err := gzip.NewReader(br)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%s is cut off: it ends in the header of its compressed data: get the file again: %w", path, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return nil, fmt.Errorf("%s is not sound gzip: %w", path, err)
		}
		return &sound{r: z, close: z.Close, path: path}, nil
	case bytes.Equal(magic, []byte{0x28, 0xB5, 0x2F, 0xFD}):
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, fmt.Errorf("%s is not sound zstd: %w", path, err)
		}
		return &sound{r: z, close: func() error { z.Close(); return nil }, path: path}, nil
	}
	return io.NopCloser(br), nil
}

// sound names the file in the errors of its decompressor.
type sound struct {
	r     io.Reader
	close func() error
	path  string
}

func (s *sound) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: uncompress: %w", s.path, err)
	}
	return n, err
}

func (s *sound) Close() error { return s.close() }

// formatOf tells the format of a file from its name without .gz or .zst; "" is not known.
func formatOf(path string) Format {
	name := strings.ToLower(path)
	for _, z := range []string{".gz", ".zst", ".zstd"} {
		name = strings.TrimSuffix(name, z)
	}
	for _, f := range []struct {
		end string
		f   Format
	}{{".csv", CSV}, {".tsv", CSV}, {".jsonl", JSONL}, {".ndjson", JSONL}, {".json", JSONL}} {
		if strings.HasSuffix(name, f.end) {
			return f.f
		}
	}
	return ""
}

// readAhead reads in a goroutine of its own, so that uncompressing and decoding overlap, and so that a
// cancelled context ends the wait for a terminal or a pipe.
type readAhead struct {
	ctx    context.Context
	chunks chan chunk
	free   chan []byte
	at     []byte // of the current chunk, what is not read yet
	whole  []byte // the current chunk
	err    error
}

type chunk struct {
	b   []byte
	err error
}

// newReadAhead starts reading r. The goroutine ends with the stream or, after ctx is cancelled, with the
// read in progress.
func newReadAhead(ctx context.Context, r io.Reader) *readAhead {
	a := &readAhead{ctx: ctx, chunks: make(chan chunk), free: make(chan []byte, 3)}
	for range cap(a.free) {
		a.free <- make([]byte, readChunk)
	}
	go func() {
		for {
			var b []byte
			select {
			case b = <-a.free:
			case <-ctx.Done():
				return
			}
			n, err := r.Read(b[:cap(b)])
			select {
			case a.chunks <- chunk{b[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return a
}

func (a *readAhead) Read(b []byte) (int, error) {
	for len(a.at) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		if a.whole != nil {
			a.free <- a.whole
			a.whole = nil
		}
		select {
		case c := <-a.chunks:
			a.whole, a.at, a.err = c.b, c.b, c.err
		case <-a.ctx.Done():
			a.err = a.ctx.Err()
		}
	}
	n := copy(b, a.at)
	a.at = a.at[n:]
	return n, nil
}
