package datasets

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// The pages of a part are made here: the Parquet library's writer takes each number as a value of 24 bytes and hashes,
// copies and measures it on the way, at four times the cost. Encodings, headers and footer are the library's.
//
// Numbers are not compressed: a byte costs 2 ns to check, write and read, and zstd costs more than that to save it.
// Texts are, because a review shrinks to a third.

const (
	// pageRows is the rows of a page: few enough that the pages in flight are small, and what Read hands out at once,
	// so that it decodes a page straight into a batch.
	pageRows = 1 << 16
	// partRows is the rows of a part: enough that dictionaries pay, few enough that a part in the making fits in memory.
	partRows = 4 * pageRows
	// sampleValues is how many values of the first page decide a column's encoding.
	sampleValues = 4096
	// dictInts is the most distinct values in the sample for whole numbers to be stored by dictionary: past it delta
	// packing is as small and cheaper to make.
	dictInts = 256
	// dictFloats is the same for floating point, which has no packing: a dictionary pays while values recur.
	dictFloats = sampleValues * 7 / 8
	// dictTexts is the same for texts.
	dictTexts = sampleValues / 2
	// dictLimit is the most entries of a dictionary; past it the column goes on without one.
	dictLimit = 1 << 15
	// statBytes is the longest text that is kept as a column's least or greatest.
	statBytes = 64
	// parallelRows is the rows from which on it pays to encode the columns of a page on several cores.
	parallelRows = 4096
)

const parquetMagic = "PAR1"

// partWriter makes one part after another: pages are added, and finish writes the file.
type partWriter struct {
	schema  *Schema
	columns []columnWriter
	rows    int
	from    int64 // least and greatest event time
	to      int64
}

func newPartWriter(s *Schema) *partWriter {
	p := &partWriter{schema: s, columns: make([]columnWriter, len(s.Fields))}
	for i := range p.columns {
		p.columns[i].field = &s.Fields[i]
	}
	p.reset()
	return p
}

// reset forgets the part and keeps the memory.
func (p *partWriter) reset() {
	p.rows = 0
	for i := range p.columns {
		p.columns[i].reset()
	}
}

// add encodes the rows of b, at most pageRows, as one page of each column. Equal pages give equal bytes, whatever the
// number of threads.
func (p *partWriter) add(b *Batch, threads int) error {
	if from, to := timeBounds(b); p.rows == 0 {
		p.from, p.to = from, to
	} else {
		p.from, p.to = min(p.from, from), max(p.to, to)
	}
	p.rows += b.N
	if b.N < parallelRows {
		threads = 1
	}
	var next atomic.Int64
	errs := make([]error, len(p.columns))
	encode := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(p.columns) {
				return
			}
			if err := p.columns[i].add(&b.Columns[i], b.N); err != nil {
				errs[i] = fmt.Errorf("column %s: %w", p.schema.Fields[i].Name, err)
			}
		}
	}
	var wg sync.WaitGroup
	for range min(threads, len(p.columns)) - 1 {
		wg.Go(encode)
	}
	encode()
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// finish writes the part as a file and returns its length. Pages may be added after it, for another finish.
func (p *partWriter) finish(w io.Writer) (int64, error) {
	at, err := w.Write([]byte(parquetMagic))
	if err != nil {
		return 0, err
	}
	group := format.RowGroup{NumRows: int64(p.rows), FileOffset: int64(at)}
	var orders []format.ColumnOrder
	for i := range p.columns {
		c := &p.columns[i]
		dict, plain, err := c.dictionaryPage()
		if err != nil {
			return 0, fmt.Errorf("column %s: %w", c.field.Name, err)
		}
		meta := c.metadata(int64(at), int64(len(dict)), int64(plain))
		group.Columns = append(group.Columns, format.ColumnChunk{MetaData: meta})
		group.TotalByteSize += meta.TotalUncompressedSize
		group.TotalCompressedSize += meta.TotalCompressedSize
		orders = append(orders, *parquetNode(c.field).Type().ColumnOrder())
		for _, piece := range [][]byte{dict, c.pages} {
			n, err := w.Write(piece)
			if err != nil {
				return 0, err
			}
			at += n
		}
	}
	footer, err := thrift.Marshal(new(thrift.CompactProtocol), &format.FileMetaData{
		Version: 2, Schema: schemaElements(p.schema), NumRows: int64(p.rows), RowGroups: rowGroups(group),
		CreatedBy: "onmart version 1", ColumnOrders: orders,
	})
	if err != nil {
		return 0, err
	}
	footer = binary.LittleEndian.AppendUint32(footer, uint32(len(footer)))
	n, err := w.Write(append(footer, parquetMagic...))
	return int64(at + n), err
}

// rowGroups is the one row group of a part; a part without rows has none.
func rowGroups(g format.RowGroup) []format.RowGroup {
	if g.NumRows == 0 {
		return nil
	}
	return []format.RowGroup{g}
}

// schemaElements is the schema as a footer has it.
func schemaElements(s *Schema) []format.SchemaElement {
	root := format.SchemaElement{Name: "onmart"}
	root.NumChildren.Set(int32(len(s.Fields)))
	list := []format.SchemaElement{root}
	for i := range s.Fields {
		typ := parquetNode(&s.Fields[i]).Type()
		e := format.SchemaElement{Name: s.Fields[i].Name}
		e.Type.Set(*typ.PhysicalType())
		e.RepetitionType.Set(format.Required)
		if s.Fields[i].Nullable {
			e.RepetitionType.Set(format.Optional)
		}
		if l := typ.LogicalType(); l != nil {
			e.LogicalType = *l
			if d, ok := l.Value.(*format.DecimalType); ok {
				// Older readers look for these beside the logical type.
				e.Scale.Set(d.Scale)
				e.Precision.Set(d.Precision)
			}
		}
		if c := typ.ConvertedType(); c != nil {
			e.ConvertedType.Set(*c)
		}
		list = append(list, e)
	}
	return list
}

// columnWriter encodes one column of a part, page after page.
type columnWriter struct {
	field     *Field
	decided   bool // by the first page that has values
	byDict    bool // pages are indexes into a dictionary, as long as it is small
	numbers   numberDict
	texts     textDict
	pages     []byte // finished pages with their headers
	plainSize int64  // of the pages, as if not compressed
	values    int64  // with nulls
	nulls     int64
	bounds    bounds
	counts    map[format.Encoding]int32 // pages by encoding

	*encodeScratch // while a page is being made
}

// encodeScratch is the memory in which a page is made.
type encodeScratch struct {
	index  []int32  // of a page's values in the dictionary
	packed []uint64 // a page's numbers without nulls
	strung []string // its texts without nulls
	body   []byte   // encoded values
	raw    []byte   // the bytes of texts
	starts []uint32 // where each begins
	levels []byte
	marks  []byte
	header bytes.Buffer
}

var encodeScratches = sync.Pool{New: func() any { return new(encodeScratch) }}

// use gives the column memory to make pages in; what it returns takes it back.
func (c *columnWriter) use() (end func()) {
	c.encodeScratch = encodeScratches.Get().(*encodeScratch)
	return func() {
		clear(c.strung) // or the texts stay in memory
		encodeScratches.Put(c.encodeScratch)
		c.encodeScratch = nil
	}
}

func (c *columnWriter) reset() {
	c.decided, c.byDict = false, false
	c.numbers.reset()
	c.texts.reset()
	c.pages = c.pages[:0]
	c.plainSize, c.values, c.nulls = 0, 0, 0
	c.bounds = bounds{}
	c.counts = map[format.Encoding]int32{}
}

// add encodes n rows as a page.
func (c *columnWriter) add(v *Column, n int) error {
	if n == 0 {
		return nil
	}
	defer c.use()()
	nulls := c.encodeLevels(v.Null, n)
	var body []byte
	var encoding format.Encoding
	var err error
	if c.field.Type == String {
		body, encoding, err = c.encodeTexts(withoutNulls(v.Strings[:n], v.Null, nulls, &c.strung))
	} else {
		body, encoding, err = c.encodeNumbers(withoutNulls(v.bits(c.field.Type)[:n], v.Null, nulls, &c.packed))
	}
	if err != nil {
		return err
	}
	c.values += int64(n)
	c.nulls += int64(nulls)
	c.counts[encoding]++
	plain := len(c.levels) + len(body)
	body, compressed := c.compress(body, encoding)
	page := format.PageHeader{Type: format.DataPageV2}
	page.DataPageHeaderV2 = thrift.New(format.DataPageHeaderV2{
		NumValues: int32(n), NumNulls: int32(nulls), NumRows: int32(n), Encoding: encoding,
		DefinitionLevelsByteLength: int32(len(c.levels)), IsCompressed: thrift.New(compressed),
	})
	if len(c.pages) == 0 && n == pageRows {
		// The pages after the first are much like it.
		c.pages = slices.Grow(c.pages, partRows/pageRows*(len(c.levels)+len(body)+pageRows/16))
	}
	c.pages, err = c.appendPage(c.pages, &page, plain, c.levels, body)
	c.plainSize += int64(plain + c.header.Len())
	return err
}

// bits is the column's numbers as they lie in memory.
func (v *Column) bits(t Type) []uint64 {
	if t == Float64 {
		return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(v.Floats))), len(v.Floats))
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(v.Ints))), len(v.Ints))
}

// withoutNulls is the values of the rows that have one.
func withoutNulls[T any](v []T, null []bool, nulls int, scratch *[]T) []T {
	if nulls == 0 {
		return v
	}
	out := (*scratch)[:0]
	for i := range v {
		if !null[i] {
			out = append(out, v[i])
		}
	}
	*scratch = out
	return out
}

// encodeLevels sets c.levels to the marks of which rows have a value, nothing for a column without nulls.
func (c *columnWriter) encodeLevels(null []bool, n int) (nulls int) {
	c.levels = c.levels[:0]
	if !c.field.Nullable {
		return 0
	}
	for _, is := range null {
		if is {
			nulls++
		}
	}
	if nulls == 0 || nulls == n {
		c.levels = append(binary.AppendUvarint(c.levels, uint64(n)<<1), byte(min(1, n-nulls)))
		return nulls
	}
	c.marks = c.marks[:0]
	for _, is := range null {
		mark := byte(1)
		if is {
			mark = 0
		}
		c.marks = append(c.marks, mark)
	}
	// An error is an invalid width only.
	c.levels, _ = (&rle.Encoding{BitWidth: 1}).EncodeLevels(c.levels, c.marks)
	return nulls
}

// encodeNumbers gives the values as they are written, until the next call.
func (c *columnWriter) encodeNumbers(v []uint64) ([]byte, format.Encoding, error) {
	whole := c.field.Type != Float64
	if !c.decided && len(v) > 0 {
		limit := dictFloats
		if whole {
			limit = dictInts
		}
		c.decided, c.byDict = true, c.numbers.sample(v, limit)
	}
	if c.byDict {
		c.index = grown(c.index, len(v))
		if c.numbers.find(c.index, v) {
			body, err := c.encodeIndex(c.numbers.len())
			return body, format.RLEDictionary, err
		}
		c.byDict = false
		c.bounds.addAll(c.numbers.values, whole)
	}
	c.bounds.addAll(v, whole)
	if !whole {
		return bytesOf(v), format.Plain, nil
	}
	var err error
	c.body, err = (&delta.BinaryPackedEncoding{}).EncodeInt64(c.body, asInts(v))
	return c.body, format.DeltaBinaryPacked, err
}

// encodeTexts gives the values as they are before compression, until the next call.
func (c *columnWriter) encodeTexts(v []string) ([]byte, format.Encoding, error) {
	if !c.decided && len(v) > 0 {
		c.decided, c.byDict = true, c.texts.sample(v)
	}
	for _, s := range v {
		c.bounds.addText(s)
	}
	if c.byDict {
		c.index = grown(c.index, len(v))
		if c.texts.find(c.index, v) {
			body, err := c.encodeIndex(len(c.texts.values))
			return body, format.RLEDictionary, err
		}
		c.byDict = false
	}
	c.raw, c.starts = c.raw[:0], append(c.starts[:0], 0)
	for _, s := range v {
		c.raw = append(c.raw, s...)
		if len(c.raw) > math.MaxInt32 {
			return nil, 0, fmt.Errorf("a page of %d rows has more than 2 GiB of text", len(v))
		}
		c.starts = append(c.starts, uint32(len(c.raw)))
	}
	var err error
	c.body, err = (&delta.LengthByteArrayEncoding{}).EncodeByteArray(c.body, c.raw, c.starts)
	return c.body, format.DeltaLengthByteArray, err
}

// encodeIndex encodes c.index, which points into a dictionary of n entries.
func (c *columnWriter) encodeIndex(n int) ([]byte, error) {
	width := bitWidth(n)
	var err error
	// One byte of the width stands before the indexes.
	c.raw, err = (&rle.Encoding{BitWidth: width}).EncodeInt32(c.raw, c.index)
	c.body = append(append(c.body[:0], byte(width)), c.raw...)
	return c.body, err
}

// compress gives what is written for a page of a column: texts are compressed, indexes and numbers are not.
func (c *columnWriter) compress(body []byte, e format.Encoding) ([]byte, bool) {
	if c.field.Type != String || e == format.RLEDictionary {
		return body, false
	}
	c.raw = textEncoder().EncodeAll(body, c.raw[:0])
	return c.raw, true
}

// textEncoder may be used by several goroutines.
var textEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err) // of the options only
	}
	return e
})

// appendPage appends a page with its header, whose length is c.header's after it.
func (c *columnWriter) appendPage(dst []byte, h *format.PageHeader, plain int, levels, body []byte) ([]byte, error) {
	if size := len(levels) + max(len(body), plain); size > math.MaxInt32 {
		return dst, fmt.Errorf("a page has %d bytes, more than Parquet allows", size)
	}
	h.UncompressedPageSize = int32(plain)
	h.CompressedPageSize = int32(len(levels) + len(body))
	h.CRC = int32(crc32.Update(crc32.ChecksumIEEE(levels), crc32.IEEETable, body))
	c.header.Reset()
	if err := thrift.NewEncoder(new(thrift.CompactProtocol).NewWriter(&c.header)).Encode(h); err != nil {
		return dst, err
	}
	dst = append(dst, c.header.Bytes()...)
	dst = append(dst, levels...)
	return append(dst, body...), nil
}

// dictionaryPage is the page that stands before those that point into it, nil without, and its size as if it were not
// compressed.
func (c *columnWriter) dictionaryPage() (out []byte, plain int, err error) {
	defer c.use()()
	var body []byte
	n := c.numbers.len()
	if c.field.Type == String {
		n = len(c.texts.values)
		for _, s := range c.texts.values {
			body = append(binary.LittleEndian.AppendUint32(body, uint32(len(s))), s...)
		}
	} else {
		body = bytesOf(c.numbers.values)
		if c.byDict {
			c.bounds.addAll(c.numbers.values, c.field.Type != Float64)
		}
	}
	if c.counts[format.RLEDictionary] == 0 {
		return nil, 0, nil
	}
	plain = len(body)
	if c.field.Type == String {
		body = textEncoder().EncodeAll(body, nil)
	}
	page := format.PageHeader{Type: format.DictionaryPage}
	page.DictionaryPageHeader = thrift.New(format.DictionaryPageHeader{NumValues: int32(n), Encoding: format.Plain})
	out, err = c.appendPage(nil, &page, plain, nil, body)
	return out, plain + c.header.Len(), err
}

// metadata describes the column's chunk, which begins at `at` of the file with a dictionary page of dict bytes, plain
// before compression.
func (c *columnWriter) metadata(at, dict, plain int64) format.ColumnMetaData {
	m := format.ColumnMetaData{
		Type:         *parquetNode(c.field).Type().PhysicalType(),
		PathInSchema: []string{c.field.Name}, Codec: format.Uncompressed, NumValues: c.values,
		TotalUncompressedSize: plain + c.plainSize, TotalCompressedSize: dict + int64(len(c.pages)),
		DataPageOffset: at + dict,
		Statistics:     format.Statistics{NullCount: c.nulls},
	}
	if c.field.Type == String {
		m.Codec = format.Zstd
	}
	if dict > 0 {
		m.DictionaryPageOffset = at
		m.EncodingStats = append(m.EncodingStats,
			format.PageEncodingStats{PageType: format.DictionaryPage, Encoding: format.Plain, Count: 1})
	}
	for _, e := range []format.Encoding{
		format.Plain, format.RLE, format.DeltaBinaryPacked, format.DeltaLengthByteArray, format.RLEDictionary,
	} {
		n := c.counts[e]
		if n > 0 {
			m.EncodingStats = append(m.EncodingStats,
				format.PageEncodingStats{PageType: format.DataPageV2, Encoding: e, Count: n})
		}
		if n > 0 || e == format.Plain && dict > 0 || e == format.RLE && c.field.Nullable {
			m.Encoding = append(m.Encoding, e)
		}
	}
	m.Statistics.MinValue, m.Statistics.MaxValue = c.bounds.stat(c.field.Type)
	return m
}

// bounds is the least and the greatest value of a column.
type bounds struct {
	any      bool
	from, to int64 // whole numbers; of floating point the ordered bits
	low      string
	high     string
	long     bool // a text was longer than is kept
}

func (b *bounds) addAll(v []uint64, whole bool) {
	if len(v) == 0 {
		return
	}
	first := int64(v[0])
	if !whole {
		first = ordered(v[0])
	}
	lo, hi := first, first
	if whole {
		for _, x := range asInts(v) {
			lo, hi = min(lo, x), max(hi, x)
		}
	} else {
		for _, x := range v {
			o := ordered(x)
			lo, hi = min(lo, o), max(hi, o)
		}
	}
	if b.any {
		lo, hi = min(lo, b.from), max(hi, b.to)
	}
	b.any, b.from, b.to = true, lo, hi
}

// ordered maps the bits of finite floating point numbers to integers of the same order, and back.
func ordered(bits uint64) int64 { return int64(bits) ^ int64(uint64(int64(bits)>>63)>>1) }

func (b *bounds) addText(s string) {
	switch {
	case b.long:
	case len(s) > statBytes:
		b.long = true
	case !b.any:
		b.any, b.low, b.high = true, s, s
	case s < b.low:
		b.low = s
	case s > b.high:
		b.high = s
	}
}

// stat is the bounds as Parquet keeps them.
func (b *bounds) stat(t Type) (low, high []byte) {
	switch {
	case !b.any || b.long:
		return nil, nil
	case t == String:
		return []byte(b.low), []byte(b.high)
	case t != Float64:
		return eightBytes(uint64(b.from)), eightBytes(uint64(b.to))
	}
	from := math.Float64frombits(uint64(ordered(uint64(b.from))))
	to := math.Float64frombits(uint64(ordered(uint64(b.to))))
	// Readers may order the zeros either way; the format asks for the wider bounds.
	if from == 0 {
		from = math.Copysign(0, -1)
	}
	if to == 0 {
		to = 0
	}
	return eightBytes(math.Float64bits(from)), eightBytes(math.Float64bits(to))
}

func eightBytes(x uint64) []byte { return binary.LittleEndian.AppendUint64(nil, x) }

// encodePart writes a batch as one Parquet file. Equal batches give equal bytes.
func encodePart(w io.Writer, b *Batch) error {
	p := newPartWriter(b.Schema)
	for at := 0; at < b.N; at += pageRows {
		if err := p.add(b.Slice(at, min(at+pageRows, b.N)), 1); err != nil {
			return err
		}
	}
	_, err := p.finish(w)
	return err
}

// bytesOf is the memory of the values. Parquet is little-endian, and so is every machine that this runs on.
func bytesOf(v []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 8*len(v))
}

func asInts(v []uint64) []int64 {
	return unsafe.Slice((*int64)(unsafe.Pointer(unsafe.SliceData(v))), len(v))
}

// grown is a slice of n values whose contents do not matter, in s's memory where it is large enough.
func grown[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
