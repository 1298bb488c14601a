package datasets

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// The pages of a part are decoded here, each straight into the batch that it is handed out in; the Parquet library
// reads the footer and decodes the encodings. What is read is what onmart has written: other files are imported.

// partReader decodes some columns of a part, batch by batch. The Parquet library may panic on damaged files; that
// comes back as an error too. It also allocates whatever a damaged footer asks for, so the caller verifies the
// checksum first.
type partReader struct {
	schema  *Schema // of what is read
	rows    int     // not yet read
	columns []columnReader
}

// openPart reads the footer of a part in memory. The schema is the data set's; a part of another schema, another
// number of rows, or with contents that do not agree with themselves is an error.
func openPart(data []byte, s *Schema, rows int, columns []int) (p *partReader, err error) {
	defer caught(&err)
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)),
		parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if err := checkParquetSchema(f, s); err != nil {
		return nil, err
	}
	groups := f.Metadata().RowGroups
	if len(groups) != 1 || f.NumRows() != int64(rows) || groups[0].NumRows != int64(rows) {
		return nil, fmt.Errorf("%w: %d rows in %d row groups, the manifest says %d in 1",
			errCorrupt, f.NumRows(), len(groups), rows)
	}
	out := &Schema{Fields: make([]Field, len(columns))}
	p = &partReader{schema: out, rows: rows, columns: make([]columnReader, len(columns))}
	for i, c := range columns {
		p.schema.Fields[i] = s.Fields[c]
		if err := p.columns[i].open(data, &s.Fields[c], &groups[0].Columns[c].MetaData); err != nil {
			return nil, fmt.Errorf("column %s: %w", s.Fields[c].Name, err)
		}
	}
	return p, nil
}

// caught makes an error of a panic.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", errCorrupt, p)
	}
}

// next fills b, in its memory where that is large enough, with the rows that come next; after the last it is io.EOF.
func (p *partReader) next(b *Batch) (err error) {
	defer caught(&err)
	if p.rows == 0 {
		return io.EOF
	}
	n := min(p.rows, pageRows)
	p.rows -= n
	b.Schema, b.N = p.schema, n
	b.Columns = slices.Grow(b.Columns[:0], len(p.columns))[:len(p.columns)]
	for i := range p.columns {
		if err := p.columns[i].read(&b.Columns[i], n); err != nil {
			return fmt.Errorf("column %s: %w", p.schema.Fields[i].Name, err)
		}
	}
	return nil
}

// columnReader decodes the pages of a column, one after another.
type columnReader struct {
	field   *Field
	codec   format.CompressionCodec
	data    []byte // pages not yet decoded
	numbers []uint64
	texts   []string // the dictionary, of numbers or texts
	dict    bool

	left Column // of a page of which not all rows were wanted
	rest int    // rows of left that are still wanted, its last ones

	scratch *pageScratch
}

// pageScratch is the memory in which pages are decompressed and taken apart.
type pageScratch struct {
	raw    []byte
	index  []int32
	marks  []byte
	starts []uint32
}

var scratches = sync.Pool{New: func() any { return new(pageScratch) }}

func (c *columnReader) open(data []byte, f *Field, m *format.ColumnMetaData) error {
	c.field, c.codec = f, m.Codec
	switch m.Codec {
	case format.Uncompressed, format.Zstd:
	case format.Lz4Raw:
		return fmt.Errorf("compressed with LZ4_RAW, which is not read; write it with zstd")
	default:
		return fmt.Errorf("compressed with %s, which no data set is", m.Codec)
	}
	from := m.DataPageOffset
	if m.DictionaryPageOffset != 0 {
		from = m.DictionaryPageOffset
	}
	if from < int64(len(parquetMagic)) || m.TotalCompressedSize < 0 || from > int64(len(data))-m.TotalCompressedSize {
		return fmt.Errorf("%w: its pages are outside of the file", errCorrupt)
	}
	c.data = data[from : from+m.TotalCompressedSize]
	return nil
}

// read sets v to the next n rows.
func (c *columnReader) read(v *Column, n int) error {
	v.resize(c.field.Type, n)
	c.scratch = scratches.Get().(*pageScratch)
	defer scratches.Put(c.scratch)
	for at := 0; at < n; {
		if c.rest > 0 {
			at += c.takeRest(v, at, n)
			continue
		}
		h, levels, body, err := c.page()
		if err != nil {
			return err
		}
		rows := int(h.NumValues)
		if rows <= n-at {
			if err := c.decode(v, at, h, levels, body); err != nil {
				return err
			}
			at += rows
			continue
		}
		if rows > maxPageRows {
			return fmt.Errorf("%w: a page of %d rows", errCorrupt, rows)
		}
		// The page reaches past the batch: it is decoded aside, and what is left of it comes first next time.
		c.left.resize(c.field.Type, rows)
		if err := c.decode(&c.left, 0, h, levels, body); err != nil {
			return err
		}
		c.rest = rows
	}
	return nil
}

// maxPageRows bounds what a damaged header can ask for. Pages of earlier versions had up to a part's rows.
const maxPageRows = 1 << 20

// resize makes room for n values, which are to be written.
func (v *Column) resize(t Type, n int) {
	v.Null = nil
	switch t {
	case Float64:
		v.Floats = grown(v.Floats, n)
	case String:
		v.Strings = grown(v.Strings, n)
	default:
		v.Ints = grown(v.Ints, n)
	}
}

// takeRest moves rows of the page that was decoded aside to v from `at` on, up to n.
func (c *columnReader) takeRest(v *Column, at, n int) int {
	from := c.left.length(c.field.Type) - c.rest
	k := min(c.rest, n-at)
	switch c.field.Type {
	case Float64:
		copy(v.Floats[at:at+k], c.left.Floats[from:])
	case String:
		copy(v.Strings[at:at+k], c.left.Strings[from:])
	default:
		copy(v.Ints[at:at+k], c.left.Ints[from:])
	}
	if c.left.Null != nil && slices.Contains(c.left.Null[from:from+k], true) {
		v.makeNull(n)
		copy(v.Null[at:at+k], c.left.Null[from:])
	}
	c.rest -= k
	return k
}

func (v *Column) makeNull(n int) {
	if v.Null == nil {
		v.Null = make([]bool, n)
	}
}

// page takes the next data page apart: null marks, and values as they are encoded.
func (c *columnReader) page() (h *format.DataPageHeaderV2, levels, body []byte, err error) {
	for {
		if len(c.data) == 0 {
			return nil, nil, nil, fmt.Errorf("%w: fewer values than rows", errCorrupt)
		}
		var p format.PageHeader
		r := new(thrift.CompactProtocol).NewReaderFromBytes(c.data)
		if err := thrift.NewDecoder(r).Decode(&p); err != nil {
			return nil, nil, nil, fmt.Errorf("%w: %w", errCorrupt, err)
		}
		c.data = c.data[r.BytesRead():]
		size := int(p.CompressedPageSize)
		if size < 0 || size > len(c.data) || p.UncompressedPageSize < 0 {
			return nil, nil, nil, fmt.Errorf("%w: a page ends outside of its column", errCorrupt)
		}
		page := c.data[:size] // the decoders may look, not write, past its end
		c.data = c.data[size:]
		// The checksum of the file says the same; this one keeps the decoders from damage where that one is not asked.
		if p.CRC != 0 && crc32.ChecksumIEEE(page) != uint32(p.CRC) {
			return nil, nil, nil, fmt.Errorf("%w: a page differs from its checksum", errCorrupt)
		}
		switch {
		case p.Type == format.DictionaryPage && p.DictionaryPageHeader.Valid && !c.dict:
			if err := c.readDictionary(int(p.DictionaryPageHeader.V.NumValues), page, int(p.UncompressedPageSize)); err != nil {
				return nil, nil, nil, err
			}
		case p.Type == format.DataPageV2 && p.DataPageHeaderV2.Valid:
			h := &p.DataPageHeaderV2.V
			marks := int(h.DefinitionLevelsByteLength)
			if h.RepetitionLevelsByteLength != 0 || marks < 0 || marks > len(page) || h.NumValues <= 0 ||
				h.NumNulls < 0 || h.NumNulls > h.NumValues || (marks > 0 || h.NumNulls > 0) && !c.field.Nullable {
				return nil, nil, nil, fmt.Errorf("%w: a page's header contradicts itself", errCorrupt)
			}
			body := page[marks:]
			if c.codec != format.Uncompressed && (!h.IsCompressed.Valid || h.IsCompressed.V) {
				if body, err = c.decompress(body, int(p.UncompressedPageSize)-marks); err != nil {
					return nil, nil, nil, err
				}
			}
			return h, page[:marks], body, nil
		default:
			return nil, nil, nil, fmt.Errorf("%w: a page of type %s", errCorrupt, p.Type)
		}
	}
}

// textDecoder may be used by several goroutines.
var textDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(1<<31))
	if err != nil {
		panic(err) // of the options only
	}
	return d
})

// decompress is valid until the next call.
func (c *columnReader) decompress(body []byte, size int) ([]byte, error) {
	if size < 0 {
		return nil, fmt.Errorf("%w: a page's header contradicts itself", errCorrupt)
	}
	out, err := textDecoder().DecodeAll(body, c.scratch.raw[:0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	c.scratch.raw = out
	if len(out) != size {
		return nil, fmt.Errorf("%w: a page has %d bytes, its header says %d", errCorrupt, len(out), size)
	}
	return out, nil
}

// readDictionary reads the page that indexes point into.
func (c *columnReader) readDictionary(n int, body []byte, size int) (err error) {
	if c.codec != format.Uncompressed {
		if body, err = c.decompress(body, size); err != nil {
			return err
		}
	}
	c.dict = true
	if c.field.Type != String {
		if n < 0 || len(body) != 8*n {
			return fmt.Errorf("%w: a dictionary of %d bytes for %d values", errCorrupt, len(body), n)
		}
		c.numbers = make([]uint64, n)
		copy(bytesOf(c.numbers), body)
		return nil
	}
	text := string(body)
	for at := 0; at < len(body); {
		if len(body)-at < 4 {
			return fmt.Errorf("%w: a dictionary ends inside a text", errCorrupt)
		}
		k := int(binary.LittleEndian.Uint32(body[at:]))
		if at += 4; k > len(body)-at {
			return fmt.Errorf("%w: a dictionary ends inside a text", errCorrupt)
		}
		c.texts = append(c.texts, text[at:at+k])
		at += k
	}
	if len(c.texts) != n {
		return fmt.Errorf("%w: a dictionary of %d texts, its header says %d", errCorrupt, len(c.texts), n)
	}
	return nil
}

// decode puts the rows of a page into v from `at` on.
func (c *columnReader) decode(v *Column, at int, h *format.DataPageHeaderV2, levels, body []byte) error {
	rows, nulls := int(h.NumValues), int(h.NumNulls)
	var err error
	if c.field.Type == String {
		err = c.decodeTexts(v.Strings[at:at+rows-nulls], h.Encoding, body)
	} else {
		err = c.decodeNumbers(v.bits(c.field.Type)[at:at+rows-nulls], h.Encoding, body)
	}
	if err != nil || nulls == 0 {
		return err
	}
	c.scratch.marks, err = (&rle.Encoding{BitWidth: 1}).DecodeLevels(c.scratch.marks, levels)
	if err != nil {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	marks := c.scratch.marks
	if len(marks) < rows || bytes.Count(marks[:rows], []byte{0}) != nulls {
		return fmt.Errorf("%w: null marks do not match values", errCorrupt)
	}
	var null []bool
	switch c.field.Type {
	case Float64:
		v.makeNull(len(v.Floats))
		null = v.Null[at : at+rows]
		spread(v.Floats[at:at+rows], null, marks, rows-nulls)
	case String:
		v.makeNull(len(v.Strings))
		null = v.Null[at : at+rows]
		spread(v.Strings[at:at+rows], null, marks, rows-nulls)
	default:
		v.makeNull(len(v.Ints))
		null = v.Null[at : at+rows]
		spread(v.Ints[at:at+rows], null, marks, rows-nulls)
	}
	return nil
}

// spread moves the first values of v to the rows that have one and marks the rest.
func spread[T any](v []T, null []bool, marks []byte, values int) {
	var zero T
	from := values - 1
	for to := len(v) - 1; to >= 0; to-- {
		if null[to] = marks[to] == 0; null[to] {
			v[to] = zero
			continue
		}
		v[to] = v[from]
		from--
	}
}

func (c *columnReader) decodeNumbers(dst []uint64, e format.Encoding, body []byte) error {
	switch {
	case e == format.Plain:
		if len(body) != 8*len(dst) {
			return fmt.Errorf("%w: %d bytes for %d values", errCorrupt, len(body), len(dst))
		}
		copy(bytesOf(dst), body)
		return nil
	case e == format.DeltaBinaryPacked && c.field.Type != Float64:
		if n, err := deltaCount(body); err != nil || n != len(dst) {
			return fmt.Errorf("%w: %d values for %d rows", errCorrupt, n, len(dst))
		}
		got, err := (&delta.BinaryPackedEncoding{}).DecodeInt64(asInts(dst[:len(dst):len(dst)])[:0], body)
		if err != nil {
			return fmt.Errorf("%w: %w", errCorrupt, err)
		}
		if len(got) != len(dst) {
			return fmt.Errorf("%w: %d values for %d rows", errCorrupt, len(got), len(dst))
		}
		if len(dst) > 0 && &got[0] != &asInts(dst)[0] {
			copy(asInts(dst), got)
		}
		return nil
	case e == format.RLEDictionary && c.dict:
		return lookUp(c, dst, c.numbers, body)
	}
	return fmt.Errorf("%w: encoding %s", errCorrupt, e)
}

// deltaCount is the number of values that a delta-packed body says it has.
func deltaCount(body []byte) (int, error) {
	var count uint64
	for range 3 { // block size, blocks, values
		u, n := binary.Uvarint(body)
		if n <= 0 {
			return 0, errCorrupt
		}
		count, body = u, body[n:]
	}
	if count > maxPageRows {
		return 0, errCorrupt
	}
	return int(count), nil
}

func (c *columnReader) decodeTexts(dst []string, e format.Encoding, body []byte) error {
	switch {
	case e == format.DeltaLengthByteArray:
		if n, err := deltaCount(body); err != nil || n != len(dst) {
			return fmt.Errorf("%w: %d texts for %d rows", errCorrupt, n, len(dst))
		}
		raw, starts, err := (&delta.LengthByteArrayEncoding{}).DecodeByteArray(nil, body, c.scratch.starts)
		if err != nil {
			return fmt.Errorf("%w: %w", errCorrupt, err)
		}
		if c.scratch.starts = starts; len(starts) != len(dst)+1 {
			return fmt.Errorf("%w: %d texts for %d rows", errCorrupt, len(starts)-1, len(dst))
		}
		text := string(raw)
		for i := range dst {
			dst[i] = text[starts[i]:starts[i+1]]
		}
		return nil
	case e == format.RLEDictionary && c.dict:
		return lookUp(c, dst, c.texts, body)
	}
	return fmt.Errorf("%w: encoding %s", errCorrupt, e)
}

// lookUp fills dst with the words that the indexes in body point at.
func lookUp[T any](c *columnReader, dst, words []T, body []byte) error {
	if len(dst) == 0 {
		return nil
	}
	if len(body) == 0 || body[0] > 32 {
		return fmt.Errorf("%w: indexes of no width", errCorrupt)
	}
	index, err := (&rle.Encoding{BitWidth: int(body[0])}).DecodeInt32(c.scratch.index[:0], body[1:])
	if err != nil {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if c.scratch.index = index; len(index) < len(dst) {
		return fmt.Errorf("%w: %d values for %d rows", errCorrupt, len(index), len(dst))
	}
	for i, at := range index[:len(dst)] {
		if uint(at) >= uint(len(words)) {
			return fmt.Errorf("%w: index past the dictionary", errCorrupt)
		}
		dst[i] = words[at]
	}
	return nil
}
