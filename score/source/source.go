// Package source reads events for the scorer from files and streams.
//
// What enters: a path or standard input and the mapping of its fields. What leaves: decoded events in the
// order they stand there, each with its position, the number of its line from 1. A source that is a stream
// hands on what has arrived without waiting for a full batch.
package source

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
)

// File is a file, or standard input, of events.
type File struct {
	name    string
	in      io.ReadCloser
	decoder *datasets.Decoder
	schema  *datasets.Schema
	path    string
	after   int64 // positions below are skipped
	base    int64 // added to line numbers
	last    int64 // greatest line seen
}

// headBytes is how much of a file's beginning is looked at to tell it from another of the same name.
const headBytes = 4096

// Open opens a path ("-" is standard input) whose name tells its format (.csv, .jsonl, .json; with .gz or
// .zst on top); standard input is JSON lines unless format says otherwise. Positions below after were
// folded before: a file goes on after them, a stream (standard input, a pipe) counts on from there.
//
// A file is known by its base name and its first two lines, file:NAME#DIGEST: one that was moved or has grown is
// the same source, one that only has the name of another is not.
func Open(path string, format datasets.Format, m *datasets.Mapping, position func(source string) int64) (*File, error) {
	if format == "" {
		var err error
		if format, err = FormatOf(path); err != nil {
			return nil, err
		}
	}
	in, err := datasets.OpenInput(path)
	if err != nil {
		return nil, err
	}
	f := &File{name: "stdin", in: in, schema: m.LogSchema(), path: path}
	from := io.Reader(in)
	regular := false
	if path != "-" {
		f.name = "file:" + filepath.Base(path)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			regular = true
			r := bufio.NewReaderSize(in, headBytes)
			f.name = Name(path, r)
			from = r
		}
	}
	if f.decoder, err = m.NewDecoder(from, path, format); err != nil {
		in.Close()
		return nil, err
	}
	if regular {
		f.after = position(f.name)
	} else {
		f.base = max(position(f.name)-1, 0)
	}
	return f, nil
}

// Name is what a file is known by: r reads it from its start, and has a buffer of 4 KiB at least.
func Name(path string, r *bufio.Reader) string {
	return "file:" + filepath.Base(path) + "#" + digest(r)
}

// digest is of the first two lines, as far as they lie in headBytes, or of all there is of a shorter file. An
// error of reading comes again with the first event.
func digest(r *bufio.Reader) string {
	head, _ := r.Peek(headBytes)
	if first := bytes.IndexByte(head, '\n') + 1; first > 0 {
		if second := bytes.IndexByte(head[first:], '\n') + 1; second > 0 {
			head = head[:first+second]
		}
	}
	sum := sha256.Sum256(head)
	return hex.EncodeToString(sum[:4])
}

// FormatOf tells the format of a file from its name.
func FormatOf(path string) (datasets.Format, error) {
	base := strings.TrimSuffix(strings.TrimSuffix(path, ".gz"), ".zst")
	switch strings.ToLower(filepath.Ext(base)) {
	case ".csv":
		return datasets.CSV, nil
	case ".jsonl", ".json", ".ndjson":
		return datasets.JSONL, nil
	}
	if path == "-" {
		return datasets.JSONL, nil
	}
	return "", fmt.Errorf("%s: cannot tell the format from the name: say --format csv or --format jsonl", path)
}

// Name is what the state keeps this source's position under, and part of every score's id.
func (f *File) Name() string { return f.name }

// Skipped is the first position that will be handed on: 0 or 1 for all of them.
func (f *File) Skipped() int64 { return f.after }

// Next returns at most limit events, io.EOF after the last.
func (f *File) Next(ctx context.Context, limit int) (score.Events, error) {
	for {
		if err := ctx.Err(); err != nil {
			return score.Events{}, err
		}
		ev := score.Events{Sources: []string{f.name}, Rows: datasets.NewBatch(f.schema, limit)}
		_, err := f.decoder.Next(ev.Rows, limit)
		lines, rejects := f.decoder.Lines(), f.decoder.Rejects()
		ev.Raw = f.decoder.Raw()
		if n := len(lines); n > 0 {
			f.last = max(f.last, lines[n-1])
		}
		if n := len(rejects); n > 0 {
			f.last = max(f.last, rejects[n-1].Line)
		}
		if err == io.EOF && f.last < f.after-1 {
			return score.Events{}, fmt.Errorf("%s ends at line %d, and the state has gone through it up to line %d: it was cut off since; give the whole file, or another --warm-from", f.path, f.last, f.after-1)
		}
		ev.Positions = make([]int64, len(lines))
		for i, l := range lines {
			ev.Positions[i] = f.base + l
		}
		skip := 0
		for skip < len(ev.Positions) && ev.Positions[skip] < f.after {
			skip++
		}
		if skip > 0 {
			ev.Rows, ev.Positions = ev.Rows.Slice(skip, ev.Rows.N), ev.Positions[skip:]
			if ev.Raw != nil {
				ev.Raw = ev.Raw[skip:]
			}
		}
		before := 0
		for _, r := range rejects {
			if r.Line += f.base; r.Line < f.after {
				continue
			}
			for before < len(ev.Positions) && ev.Positions[before] < r.Line {
				before++
			}
			ev.Rejects = append(ev.Rejects, score.Reject{Reject: r, Before: int32(before)})
		}
		if err != nil || ev.Rows.N+len(ev.Rejects) > 0 {
			return ev, err
		}
	}
}

// Close closes the file.
func (f *File) Close() error { return f.in.Close() }
