package features

import (
	"context"
	"fmt"
	"os"

	"github.com/onmart/onmart/datasets"
)

// Source is rows that are looked at after they were made: a data set, or a Parquet file that stands by itself, such
// as predictions.
type Source struct {
	Name   string        // the path it was opened by
	Kind   datasets.Kind // a file's is predictions
	Schema *datasets.Schema
	Rows   int64
	Made   *Made  // how features, a panel or interactions were made; nil of other rows
	ID     string // of a data set

	read func(context.Context, datasets.ReadOptions, func(*datasets.Batch) error) error
}

// OpenSource opens a data set's directory or a Parquet file. A file is read into memory.
func OpenSource(path string) (*Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		d, err := datasets.Open(path)
		if err != nil {
			return nil, err
		}
		return SourceOf(d), nil
	}
	b, err := datasets.ReadTable(path)
	if err != nil {
		return nil, err
	}
	return &Source{Name: path, Kind: datasets.KindPredictions, Schema: b.Schema, Rows: int64(b.N),
		read: func(ctx context.Context, o datasets.ReadOptions, f func(*datasets.Batch) error) error {
			return readTable(ctx, path, b, o, f)
		}}, nil
}

// SourceOf is a data set as a Source.
func SourceOf(d *datasets.Dataset) *Source {
	s := &Source{Name: d.Dir(), Kind: d.Manifest().Kind, Schema: d.Schema(), Rows: d.Manifest().Rows, ID: d.ID(),
		read: d.Read}
	if made, err := MadeFrom(d); err == nil {
		s.Made = made
	}
	return s
}

// tableRows is the most rows of a file that are handed out at once, as datasets.Read does it.
const tableRows = 1 << 16

// readTable hands out the rows of a file as datasets.Dataset.Read does.
func readTable(ctx context.Context, path string, b *datasets.Batch, o datasets.ReadOptions,
	f func(*datasets.Batch) error) error {
	out := &datasets.Batch{Schema: b.Schema, N: b.N, Columns: b.Columns}
	if o.Columns != nil {
		out.Schema, out.Columns = &datasets.Schema{}, nil
		for _, name := range o.Columns {
			i := b.Schema.Index(name)
			if i < 0 {
				return fmt.Errorf("%s has no column %s%s", path, name, suggest(name, columnNames(b.Schema)))
			}
			out.Schema.Fields = append(out.Schema.Fields, b.Schema.Fields[i])
			out.Columns = append(out.Columns, b.Columns[i])
		}
	}
	if o.Range != (datasets.Range{}) {
		t := b.Column(datasets.TransDatetime)
		if t == nil {
			return fmt.Errorf("%s has no column %s to choose a range by", path, datasets.TransDatetime)
		}
		var rows []int32
		for i, at := range t.Ints {
			if o.Range.Contains(at) {
				rows = append(rows, int32(i))
			}
		}
		out = rowsAt(out, rows)
	}
	for at := 0; at < out.N; at += tableRows {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f(out.Slice(at, min(at+tableRows, out.N))); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// rowsAt is the given rows of a batch, in memory of their own.
func rowsAt(b *datasets.Batch, rows []int32) *datasets.Batch {
	out := &datasets.Batch{Schema: b.Schema, N: len(rows), Columns: make([]datasets.Column, len(b.Columns))}
	for i := range b.Columns {
		c := &b.Columns[i]
		out.Columns[i] = datasets.Column{Ints: pick(c.Ints, rows), Floats: pick(c.Floats, rows),
			Strings: pick(c.Strings, rows), Null: pick(c.Null, rows)}
	}
	return out
}

func columnNames(s *datasets.Schema) []string {
	var names []string
	for _, f := range s.Fields {
		names = append(names, f.Name)
	}
	return names
}

// sourceStream is a Source read from another goroutine, batch by batch.
type sourceStream struct {
	batches chan *datasets.Batch
	err     error // set before batches is closed
}

// streamAhead is how many batches are read ahead of their use.
const streamAhead = 2

// stream begins to read. The reading ends with ctx.
func (s *Source) stream(ctx context.Context, o datasets.ReadOptions) *sourceStream {
	st := &sourceStream{batches: make(chan *datasets.Batch, streamAhead)}
	go func() {
		defer close(st.batches)
		st.err = s.read(ctx, o, func(b *datasets.Batch) error {
			select {
			case st.batches <- b:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return st
}

// next is the next batch that has rows, nil at the end.
func (st *sourceStream) next() (*datasets.Batch, error) {
	for b := range st.batches {
		if b.N > 0 {
			return b, nil
		}
	}
	return nil, st.err
}
