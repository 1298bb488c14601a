// Package source reads events for the scorer from files and streams.
//
// What enters: a path or standard input and the mapping of its fields. What leaves: decoded events in the
// order they stand there, each with its position, the number of its line from 1. A source that is a stream
// hands on what has arrived without waiting for a full batch.
package source

import (
	"context"
	"fmt"
	"io"
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
	after   int64 // positions below are skipped
	base    int64 // added to line numbers
}

// Open opens a path ("-" is standard input) whose name tells its format (.csv, .jsonl, .json; with .gz or
// .zst on top); standard input is JSON lines unless format says otherwise. Positions below after were
// folded before: a file goes on after them, a stream counts on from there.
func Open(path string, format datasets.Format, m *datasets.Mapping, position func(source string) int64) (*File, error) {
	if format == "" {
		var err error
		if format, err = formatOf(path); err != nil {
			return nil, err
		}
	}
	in, err := datasets.OpenInput(path)
	if err != nil {
		return nil, err
	}
	d, err := m.NewDecoder(in, path, format)
	if err != nil {
		in.Close()
		return nil, err
	}
	f := &File{name: "stdin", in: in, decoder: d, schema: m.LogSchema()}
	if path == "-" {
		f.base = max(position(f.name)-1, 0)
		return f, nil
	}
	f.name = "file:" + filepath.Base(path)
	f.after = position(f.name)
	return f, nil
}

func formatOf(path string) (datasets.Format, error) {
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
		ev := score.Events{Source: f.name, Rows: datasets.NewBatch(f.schema, limit)}
		_, err := f.decoder.Next(ev.Rows, limit)
		lines, rejects := f.decoder.Lines(), f.decoder.Rejects()
		ev.Positions = make([]int64, len(lines))
		for i, l := range lines {
			ev.Positions[i] = f.base + l
		}
		for _, r := range rejects {
			if r.Line += f.base; r.Line >= f.after {
				ev.Rejects = append(ev.Rejects, r)
			}
		}
		skip := 0
		for skip < len(ev.Positions) && ev.Positions[skip] < f.after {
			skip++
		}
		if skip > 0 {
			ev.Rows, ev.Positions = ev.Rows.Slice(skip, ev.Rows.N), ev.Positions[skip:]
		}
		if err != nil || ev.Rows.N+len(ev.Rejects) > 0 {
			return ev, err
		}
	}
}

// Close closes the file.
func (f *File) Close() error { return f.in.Close() }
