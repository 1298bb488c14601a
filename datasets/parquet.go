package datasets

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"unsafe"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/format"
)

// A part is one Parquet file with one row group, so that parts are encoded and decoded in parallel with
// no order between them, and an export can be read by anything that opens Parquet.

const (
	// decimalPrecision is the digits of a DECIMAL column: the most an INT64 may carry.
	decimalPrecision = 18
	// pageBytes is the size of a page before encoding. 1 MiB decodes as fast as larger pages and keeps
	// enough of them that other readers can skip by page.
	pageBytes = 1 << 20
	// encodeChunk is how many values are handed to the Parquet library at once: 2048 of 24 bytes stay in
	// a first-level cache.
	encodeChunk = 2048
	// sampleValues is how many values of a column decide its encoding.
	sampleValues = 4096
	// dictInts is the most distinct values in a sample for numbers to be stored by dictionary: past one byte
	// an index, delta packing is as small and decodes faster.
	dictInts = 256
)

// orderedGroup is a Parquet group whose fields keep the schema's order; parquet.Group sorts them by name.
type orderedGroup struct {
	parquet.Group
	fields []parquet.Field
}

func (g *orderedGroup) Fields() []parquet.Field { return g.fields }

// parquetNode is a column's logical type, without encoding.
func parquetNode(f *Field) parquet.Node {
	var n parquet.Node
	switch f.Type {
	case Decimal:
		n = parquet.Decimal(f.Scale, decimalPrecision, parquet.Int64Type)
	case Time:
		n = parquet.Timestamp(parquet.Microsecond)
	case Float64:
		n = parquet.Leaf(parquet.DoubleType)
	case String:
		n = parquet.String()
	default:
		n = parquet.Int(64)
	}
	return n
}

// parquetSchema is the schema of a part, with an encoding a column where enc is given.
func parquetSchema(s *Schema, enc []encoding.Encoding) *parquet.Schema {
	nodes := make(parquet.Group, len(s.Fields))
	for i := range s.Fields {
		n := parquetNode(&s.Fields[i])
		if enc != nil {
			n = parquet.Compressed(parquet.Encoded(n, enc[i]), &zstd.Codec{Level: zstd.SpeedFastest})
		}
		if s.Fields[i].Nullable {
			n = parquet.Optional(n)
		}
		nodes[s.Fields[i].Name] = n
	}
	byName := make(map[string]parquet.Field, len(nodes))
	for _, f := range nodes.Fields() {
		byName[f.Name()] = f
	}
	g := &orderedGroup{Group: nodes}
	for i := range s.Fields {
		g.fields = append(g.fields, byName[s.Fields[i].Name])
	}
	return parquet.NewSchema("onmart", g)
}

// chooseEncoding picks by a sample of the column: dictionaries for few distinct values, delta for other
// whole numbers and times, plain for the rest.
func chooseEncoding(f *Field, c *Column) encoding.Encoding {
	switch f.Type {
	case Float64:
		if n, few := distinct(c.Floats, dictInts); few && n > 0 {
			return &parquet.RLEDictionary
		}
		return &parquet.Plain
	case String:
		if n, few := distinct(c.Strings, sampleValues/2); few && n > 0 {
			return &parquet.RLEDictionary
		}
		return &parquet.DeltaLengthByteArray
	default:
		if n, few := distinct(c.Ints, dictInts); few && n > 0 {
			return &parquet.RLEDictionary
		}
		return &parquet.DeltaBinaryPacked
	}
}

// distinct counts the distinct values of an evenly spread sample and tells whether they are at most limit.
func distinct[T comparable](v []T, limit int) (int, bool) {
	step := max(1, len(v)/sampleValues)
	seen := make(map[T]struct{}, limit+1)
	for i := 0; i < len(v); i += step {
		seen[v[i]] = struct{}{}
		if len(seen) > limit {
			return len(seen), false
		}
	}
	return len(seen), true
}

// encodePart writes a batch as one Parquet file. Equal batches give equal bytes.
func encodePart(w io.Writer, b *Batch) error {
	enc := make([]encoding.Encoding, len(b.Columns))
	for i := range enc {
		enc[i] = chooseEncoding(&b.Schema.Fields[i], &b.Columns[i])
	}
	pw := parquet.NewWriter(w, parquetSchema(b.Schema, enc),
		parquet.PageBufferSize(pageBytes), parquet.CreatedBy("onmart", "1", ""), parquet.MaxRowsPerRowGroup(1<<62))
	var buf [encodeChunk]parquet.Value
	for i, cw := range pw.ColumnWriters() {
		for at := 0; at < b.N; at += encodeChunk {
			n := min(encodeChunk, b.N-at)
			fillValues(buf[:n], &b.Schema.Fields[i], &b.Columns[i], at, i)
			if _, err := cw.WriteRowValues(buf[:n]); err != nil {
				return fmt.Errorf("column %s: %w", b.Schema.Fields[i].Name, err)
			}
		}
	}
	return pw.Close()
}

func fillValues(dst []parquet.Value, f *Field, c *Column, at, column int) {
	switch f.Type {
	case Float64:
		for i, v := range c.Floats[at : at+len(dst)] {
			dst[i] = parquet.DoubleValue(v)
		}
	case String:
		for i, v := range c.Strings[at : at+len(dst)] {
			// The library copies the bytes into its page and never writes to them.
			dst[i] = parquet.ByteArrayValue(unsafe.Slice(unsafe.StringData(v), len(v)))
		}
	default:
		for i, v := range c.Ints[at : at+len(dst)] {
			dst[i] = parquet.Int64Value(v)
		}
	}
	if !f.Nullable {
		return
	}
	for i := range dst {
		if c.IsNull(at + i) {
			dst[i] = parquet.Value{}.Level(0, 0, column)
		} else {
			dst[i] = dst[i].Level(0, 1, column)
		}
	}
}

// errCorrupt marks what a sound part cannot hold.
var errCorrupt = errors.New("the file is damaged")

// decodePart reads the named columns of a part held in memory. The schema is the data set's; a part of
// another schema, another number of rows, or with contents that do not agree with themselves is an error.
// The Parquet library may panic on damaged files; that too comes back as an error. It also allocates
// whatever a damaged footer asks for, so the caller verifies the checksum first.
func decodePart(data []byte, s *Schema, rows int, columns []int) (b *Batch, err error) {
	defer func() {
		if p := recover(); p != nil {
			b, err = nil, fmt.Errorf("%w: %v", errCorrupt, p)
		}
	}()
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)),
		parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if err := checkParquetSchema(f, s); err != nil {
		return nil, err
	}
	groups := f.RowGroups()
	if len(groups) != 1 || f.NumRows() != int64(rows) || groups[0].NumRows() != int64(rows) {
		return nil, fmt.Errorf("%w: %d rows in %d row groups, the manifest says %d in 1", errCorrupt, f.NumRows(), len(groups), rows)
	}
	out := &Schema{Fields: make([]Field, len(columns))}
	for i, c := range columns {
		out.Fields[i] = s.Fields[c]
	}
	b = &Batch{Schema: out, N: rows, Columns: make([]Column, len(columns))}
	for i, c := range columns {
		if codec := f.Metadata().RowGroups[0].Columns[c].MetaData.Codec; codec == format.Lz4Raw {
			return nil, fmt.Errorf("column %s: compressed with LZ4_RAW, which is not read; write it with zstd", s.Fields[c].Name)
		}
		if err := decodeColumn(&b.Columns[i], &s.Fields[c], groups[0].ColumnChunks()[c], rows); err != nil {
			return nil, fmt.Errorf("column %s: %w", s.Fields[c].Name, err)
		}
	}
	return b, nil
}

// checkParquetSchema compares names, order, physical and logical types with the data set's schema.
func checkParquetSchema(f *parquet.File, s *Schema) error {
	got := f.Schema().Fields()
	if len(got) != len(s.Fields) {
		return fmt.Errorf("%w: %d columns, the manifest says %d", errCorrupt, len(got), len(s.Fields))
	}
	for i := range s.Fields {
		want := &s.Fields[i]
		node := parquetNode(want)
		if got[i].Name() != want.Name || !got[i].Leaf() || got[i].Repeated() || got[i].Optional() != want.Nullable ||
			got[i].Type().Kind() != node.Type().Kind() || got[i].Type().String() != node.Type().String() {
			return fmt.Errorf("%w: column %d is %s %s, the manifest says %s %s", errCorrupt, i+1,
				got[i].Name(), got[i].Type(), want.Name, node.Type())
		}
	}
	return nil
}

func decodeColumn(c *Column, f *Field, chunk parquet.ColumnChunk, rows int) error {
	switch f.Type {
	case Float64:
		c.Floats = make([]float64, 0, rows)
	case String:
		c.Strings = make([]string, 0, rows)
	default:
		c.Ints = make([]int64, 0, rows)
	}
	var null []bool
	if f.Nullable {
		null = make([]bool, 0, rows)
	}
	pages := chunk.Pages()
	defer pages.Close()
	n := 0
	for {
		page, err := pages.ReadPage()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errCorrupt, err)
		}
		n += int(page.NumValues())
		if n > rows {
			return fmt.Errorf("%w: more values than rows", errCorrupt)
		}
		err = appendPage(c, f, page)
		if err == nil && f.Nullable {
			null, err = spreadNulls(c, f, page, null)
		}
		parquet.Release(page)
		if err != nil {
			return err
		}
	}
	if n != rows || c.length(f.Type) != rows {
		return fmt.Errorf("%w: %d values for %d rows", errCorrupt, n, rows)
	}
	if slices.Contains(null, true) {
		c.Null = null
	}
	return nil
}

func (c *Column) length(t Type) int {
	switch t {
	case Float64:
		return len(c.Floats)
	case String:
		return len(c.Strings)
	}
	return len(c.Ints)
}

// appendPage appends the values of a page that are not null.
func appendPage(c *Column, f *Field, page parquet.Page) error {
	data := page.Data()
	dict := page.Dictionary()
	if dict == nil {
		switch f.Type {
		case Float64:
			c.Floats = append(c.Floats, data.Double()...)
		case String:
			c.Strings = appendStrings(c.Strings, data)
		default:
			c.Ints = append(c.Ints, data.Int64()...)
		}
		return nil
	}
	at, words := data.Int32(), dict.Page().Data()
	var ok bool
	switch f.Type {
	case Float64:
		c.Floats, ok = appendIndexed(c.Floats, words.Double(), at)
	case String:
		c.Strings, ok = appendIndexed(c.Strings, appendStrings(nil, words), at)
	default:
		c.Ints, ok = appendIndexed(c.Ints, words.Int64(), at)
	}
	if !ok {
		return fmt.Errorf("%w: index past the dictionary", errCorrupt)
	}
	return nil
}

func appendIndexed[T any](dst, words []T, at []int32) ([]T, bool) {
	for _, i := range at {
		if uint(i) >= uint(len(words)) {
			return dst, false
		}
		dst = append(dst, words[i])
	}
	return dst, true
}

// appendStrings copies the page's bytes once and cuts the strings from the copy.
func appendStrings(dst []string, data encoding.Values) []string {
	raw, offsets := data.ByteArray()
	if len(offsets) == 0 {
		return dst
	}
	base := offsets[0]
	text := string(raw[base:offsets[len(offsets)-1]])
	for i := 1; i < len(offsets); i++ {
		dst = append(dst, text[offsets[i-1]-base:offsets[i]-base])
	}
	return dst
}

// spreadNulls moves the values just appended to the rows that have one and marks the rest.
func spreadNulls(c *Column, f *Field, page parquet.Page, null []bool) ([]bool, error) {
	start, levels := len(null), page.DefinitionLevels()
	values := 0
	for _, l := range levels {
		null = append(null, l == 0)
		if l != 0 {
			values++
		}
	}
	if int64(len(levels)) != page.NumValues() || c.length(f.Type) != start+values {
		return null, fmt.Errorf("%w: null marks do not match values", errCorrupt)
	}
	switch f.Type {
	case Float64:
		c.Floats = spread(c.Floats, null, start, values)
	case String:
		c.Strings = spread(c.Strings, null, start, values)
	default:
		c.Ints = spread(c.Ints, null, start, values)
	}
	return null, nil
}

func spread[T any](v []T, null []bool, start, values int) []T {
	var zero T
	from := start + values - 1
	for i := len(v); i < len(null); i++ {
		v = append(v, zero)
	}
	for to := len(null) - 1; to >= start; to-- {
		if null[to] {
			v[to] = zero
			continue
		}
		v[to] = v[from]
		from--
	}
	return v
}
