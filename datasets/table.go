package datasets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"
)

// WriteTable writes a batch as one Parquet file that stands by itself: a dimension table beside a data set, or
// predictions.
func WriteTable(w io.Writer, b *Batch) error {
	if err := b.Schema.check(); err != nil {
		return err
	}
	if err := checkBatch(b, b.Schema); err != nil {
		return err
	}
	return encodePart(w, b)
}

// ReadTable reads a whole Parquet file that any writer made. Whole numbers and booleans become Int64, floating
// point becomes Float64 (NaN is null), dates and timestamps become Time (a date is its midnight in UTC), decimals on
// whole numbers keep their scale. Columns of other types, and nested ones, are left out; a file without any
// column left is an error. Where a schema is given, the table is its columns in its order, and one that is missing or
// of another type is an error, and so is a null where it has none.
func ReadTable(path string, schema ...*Schema) (*Batch, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	b, err := DecodeTable(data)
	if err == nil && len(schema) > 0 {
		b, err = b.as(schema[0])
	}
	if err != nil {
		return nil, fmt.Errorf("read table: %s: %w", path, err)
	}
	return b, nil
}

// as is the columns of a schema, which the batch must have.
func (b *Batch) as(s *Schema) (*Batch, error) {
	out := &Batch{Schema: s, N: b.N}
	for _, f := range s.Fields {
		i := b.Schema.Index(f.Name)
		if i < 0 {
			return nil, fmt.Errorf("no column %s%s", f.Name, didYouMean(f.Name, fieldNames(b.Schema)))
		}
		if got := b.Schema.Fields[i]; got.Type != f.Type || got.Scale != f.Scale {
			return nil, fmt.Errorf("column %s is of type %s; want %s", f.Name, got.Type, f.Type)
		}
		out.Columns = append(out.Columns, b.Columns[i])
	}
	return out, checkBatch(out, s)
}

// DecodeTable is ReadTable of a file in memory.
func DecodeTable(data []byte) (b *Batch, err error) {
	defer func() {
		if p := recover(); p != nil {
			b, err = nil, fmt.Errorf("%w: %v", errCorrupt, p)
		}
	}()
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)), parquet.SkipPageIndex(true),
		parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("it is not Parquet, or damaged: %w", err)
	}
	for _, g := range f.Metadata().RowGroups {
		for i := range g.Columns {
			if g.Columns[i].MetaData.Codec == format.Lz4Raw {
				return nil, errors.New("it is compressed with LZ4_RAW, which is not read; write it with zstd")
			}
		}
	}
	b = &Batch{Schema: &Schema{}, N: int(f.NumRows())}
	for i, field := range f.Schema().Fields() {
		fd, put := tableColumn(field)
		if put == nil {
			continue
		}
		leaf, ok := f.Schema().Lookup(field.Name())
		if !ok {
			return nil, fmt.Errorf("%w: column %d is not in its schema", errCorrupt, i+1)
		}
		var c Column
		for _, g := range f.RowGroups() {
			if err := readTableColumn(&c, &fd, g.ColumnChunks()[leaf.ColumnIndex], put); err != nil {
				return nil, fmt.Errorf("column %s: %w", fd.Name, err)
			}
		}
		if c.length(fd.Type) != b.N {
			return nil, fmt.Errorf("column %s: %w: %d values for %d rows", fd.Name, errCorrupt, c.length(fd.Type), b.N)
		}
		if fd.Nullable = slices.Contains(c.Null, true); !fd.Nullable {
			c.Null = nil
		}
		b.Schema.Fields = append(b.Schema.Fields, fd)
		b.Columns = append(b.Columns, c)
	}
	if len(b.Schema.Fields) == 0 {
		return nil, errors.New("it has no column of a type that is read (whole numbers, decimals, floating point, times, text)")
	}
	return b, b.Schema.check()
}

// tableColumn is the type of a Parquet column and how a value that is not null is appended; put reports false for a
// value that counts as null.
func tableColumn(node parquet.Field) (f Field, put func(*Column, parquet.Value) bool) {
	f.Name = node.Name()
	if !node.Leaf() || node.Repeated() {
		return f, nil
	}
	units := func(per int64) func(*Column,
		parquet.Value) bool { // of a time that has `per` microseconds, or -per a microsecond
		return func(c *Column, v parquet.Value) bool {
			us := v.Int64()
			if v.Kind() == parquet.Int32 {
				us = int64(v.Int32())
			}
			if per > 0 {
				us *= per
			} else {
				us = floorQuotient(us, -per)
			}
			c.Ints = append(c.Ints, us)
			return true
		}
	}
	var logical format.LogicalTypeValue
	if l := node.Type().LogicalType(); l != nil {
		logical = l.Value
	}
	converted := deprecated.ConvertedType(-1)
	if c := node.Type().ConvertedType(); c != nil {
		converted = *c
	}
	timestamp, timed := logical.(*format.TimestampType)
	decimal, fixed := logical.(*format.DecimalType)
	_, date := logical.(*format.DateType)
	_, text := logical.(*format.StringType)
	switch kind := node.Type().Kind(); {
	case kind == parquet.Int32 && (date || converted == deprecated.Date):
		f.Type = Time
		return f, units(Day)
	case kind == parquet.Int64 && timed:
		f.Type = Time
		switch timestamp.Unit.Value.(type) {
		case *format.MilliSeconds:
			return f, units(1000)
		case *format.NanoSeconds:
			return f, units(-1000)
		}
		return f, units(1)
	case (kind == parquet.Int32 || kind == parquet.Int64) && fixed:
		f.Type, f.Scale = Decimal, int(decimal.Scale)
		return f, units(1)
	case kind == parquet.Int32 || kind == parquet.Int64:
		f.Type = Int64
		return f, units(1)
	case kind == parquet.Boolean:
		f.Type = Int64
		return f, func(c *Column, v parquet.Value) bool {
			x := int64(0)
			if v.Boolean() {
				x = 1
			}
			c.Ints = append(c.Ints, x)
			return true
		}
	case kind == parquet.Double || kind == parquet.Float:
		f.Type = Float64
		return f, func(c *Column, v parquet.Value) bool {
			x := v.Double()
			if kind == parquet.Float {
				x = float64(v.Float())
			}
			if x-x != 0 {
				c.Floats = append(c.Floats, 0)
				return false
			}
			c.Floats = append(c.Floats, x)
			return true
		}
	case kind == parquet.ByteArray && (text || converted == deprecated.UTF8):
		f.Type = String
		return f, func(c *Column, v parquet.Value) bool {
			c.Strings = append(c.Strings, string(v.ByteArray()))
			return true
		}
	}
	return f, nil
}

func floorQuotient(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// tableChunk is how many values are taken from the Parquet library at once: 2048 of 24 bytes stay in a first-level cache.
const tableChunk = 2048

func readTableColumn(c *Column, f *Field, chunk parquet.ColumnChunk, put func(*Column, parquet.Value) bool) error {
	pages := chunk.Pages()
	defer pages.Close()
	var buf [tableChunk]parquet.Value
	for {
		page, err := pages.ReadPage()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errCorrupt, err)
		}
		values := page.Values()
		for {
			n, err := values.ReadValues(buf[:])
			for _, v := range buf[:n] {
				if v.IsNull() {
					c.appendNull(f.Type, c.length(f.Type))
					continue
				}
				at := c.length(f.Type)
				if ok := put(c, v); !ok || c.Null != nil {
					for len(c.Null) < at {
						c.Null = append(c.Null, false)
					}
					c.Null = append(c.Null, !ok)
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				parquet.Release(page)
				return fmt.Errorf("%w: %w", errCorrupt, err)
			}
		}
		parquet.Release(page)
	}
}
