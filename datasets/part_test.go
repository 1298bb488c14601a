package datasets

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/format"
)

// decodePart reads columns of a part as one batch.
func decodePart(data []byte, s *Schema, rows int, columns []int) (*Batch, error) {
	p, err := openPart(data, s, rows, columns)
	if err != nil {
		return nil, err
	}
	all := NewBatch(p.schema, 0)
	var b Batch
	for {
		if err := p.next(&b); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all.appendRows(&b, 0, b.N)
	}
}

func allColumns(s *Schema) []int {
	list := make([]int, len(s.Fields))
	for i := range list {
		list[i] = i
	}
	return list
}

func encoded(t testing.TB, b *Batch) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := encodePart(&buf, b); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func sameBatch(t *testing.T, want, got *Batch) {
	t.Helper()
	if want.N != got.N {
		t.Fatalf("%d rows, want %d", got.N, want.N)
	}
	for i := range want.Schema.Fields {
		f, w, g := &want.Schema.Fields[i], &want.Columns[i], &got.Columns[i]
		for row := range want.N {
			if w.IsNull(row) != g.IsNull(row) || !sameValue(f.Type, w, g, row) {
				t.Fatalf("column %s row %d: %s, want %s", f.Name, row, FormatValue(f, g, row), FormatValue(f, w, row))
			}
		}
	}
}

// sameValue compares bits, so that -0 is not 0.
func sameValue(t Type, a, b *Column, row int) bool {
	switch t {
	case Float64:
		return math.Float64bits(a.Floats[row]) == math.Float64bits(b.Floats[row])
	case String:
		return a.Strings[row] == b.Strings[row]
	}
	return a.Ints[row] == b.Ints[row]
}

// oneColumn makes a batch of one nullable column; v gives a value, or nil for null.
func oneColumn(f Field, n int, v func(i int) any) *Batch {
	f.Name, f.Nullable = "a", true
	b := NewBatch(&Schema{Fields: []Field{f}}, n)
	b.N = n
	c := &b.Columns[0]
	for i := range n {
		x := v(i)
		c.Null = append(c.Null, x == nil)
		switch f.Type {
		case Float64:
			y, _ := x.(float64)
			c.Floats = append(c.Floats, y)
		case String:
			y, _ := x.(string)
			c.Strings = append(c.Strings, y)
		default:
			y, _ := x.(int)
			c.Ints = append(c.Ints, int64(y))
		}
	}
	return b
}

// encodings are those of a column's data pages, in the order of pages.
func encodings(t *testing.T, data []byte) string {
	t.Helper()
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, s := range f.Metadata().RowGroups[0].Columns[0].MetaData.EncodingStats {
		if s.PageType == format.DataPageV2 {
			list = append(list, fmt.Sprintf("%d %s", s.Count, s.Encoding))
		}
	}
	return strings.Join(list, ", ")
}

// Each way of encoding gives back what went in, to this reader and to the Parquet library's.
func TestEncodings(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	long := strings.Repeat("é", 5000)
	for _, c := range []struct {
		name string
		f    Field
		n    int
		v    func(i int) any
		want string
	}{
		{"one value", Field{Type: Float64}, 1, func(int) any { return 1.5 }, "1 RLE_DICTIONARY"},
		{"flags", Field{Type: Float64}, 70000, func(i int) any { return float64(i / 1000 % 2) }, "2 RLE_DICTIONARY"},
		{"zeros", Field{Type: Float64}, 1000, func(i int) any {
			return math.Copysign(0, float64(i%2)-1)
		}, "1 RLE_DICTIONARY"},
		{"means", Field{Type: Float64}, 70000, func(int) any { return r.Float64() }, "2 PLAIN"},
		{"means and nulls", Field{Type: Float64}, 70000, func(i int) any {
			if i%3 == 0 {
				return nil
			}
			return r.NormFloat64()
		}, "2 PLAIN"},
		{"a page without values", Field{Type: Float64}, 140000, func(i int) any {
			if i < pageRows {
				return nil
			}
			return float64(i % 7)
		}, "1 PLAIN, 2 RLE_DICTIONARY"},
		// The first page has few values, and so the column gets a dictionary, which is too small for the third page.
		{"a dictionary that fills up", Field{Type: Float64}, partRows, func(i int) any {
			if i < 2*pageRows {
				return float64(i % 300)
			}
			return float64(i)
		}, "2 PLAIN, 2 RLE_DICTIONARY"},
		{"the same of whole numbers", Field{Type: Int64}, partRows, func(i int) any {
			if i < 3*pageRows {
				return i % 250
			}
			return -i
		}, "1 DELTA_BINARY_PACKED, 3 RLE_DICTIONARY"},
		{"the same of texts", Field{Type: String}, partRows, func(i int) any {
			if i < pageRows {
				return fmt.Sprint(i % 100)
			}
			return fmt.Sprint(i)
		}, "3 DELTA_LENGTH_BYTE_ARRAY, 1 RLE_DICTIONARY"},
		{"extremes", Field{Type: Int64}, 5000, func(i int) any {
			return []int{math.MinInt64, math.MaxInt64, 0, i, -i}[i%5]
		}, "1 DELTA_BINARY_PACKED"},
		{"long texts", Field{Type: String}, 300, func(i int) any { return long[:2*i] }, "1 RLE_DICTIONARY"},
		{"empty texts", Field{Type: String}, 9000, func(i int) any {
			return strings.Repeat("x", i%3*i)
		}, "1 DELTA_LENGTH_BYTE_ARRAY"},
		{"nothing", Field{Type: String}, 100, func(int) any { return nil }, "1 DELTA_LENGTH_BYTE_ARRAY"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := oneColumn(c.f, c.n, c.v)
			data := encoded(t, want)
			if got := encodings(t, data); got != c.want {
				t.Errorf("encoded as %s, want %s", got, c.want)
			}
			got, err := decodePart(data, want.Schema, want.N, []int{0})
			if err != nil {
				t.Fatal(err)
			}
			sameBatch(t, want, got)
			if c.name == "nothing" {
				return // a table of nothing has no type
			}
			table, err := DecodeTable(data)
			if err != nil {
				t.Fatal(err)
			}
			sameBatch(t, want, table)
			checkBounds(t, data, want)
		})
	}
}

// checkBounds compares the least and greatest value that the footer tells with the values.
func checkBounds(t *testing.T, data []byte, b *Batch) {
	t.Helper()
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	s := f.Metadata().RowGroups[0].Columns[0].MetaData.Statistics
	c, typ := &b.Columns[0], b.Schema.Fields[0].Type
	var nulls int64
	for i := range b.N {
		switch {
		case c.IsNull(i):
			nulls++
		case typ == String:
			if s.MinValue != nil && (c.Strings[i] < string(s.MinValue) || c.Strings[i] > string(s.MaxValue)) {
				t.Fatalf("%q is not within %q and %q", c.Strings[i], s.MinValue, s.MaxValue)
			}
		case typ == Float64:
			lo := math.Float64frombits(binary.LittleEndian.Uint64(s.MinValue))
			hi := math.Float64frombits(binary.LittleEndian.Uint64(s.MaxValue))
			if v := c.Floats[i]; v < lo || v > hi || lo == 0 && !math.Signbit(lo) || hi == 0 && math.Signbit(hi) {
				t.Fatalf("%v is not within %v and %v", v, lo, hi)
			}
		default:
			lo, hi := int64(binary.LittleEndian.Uint64(s.MinValue)), int64(binary.LittleEndian.Uint64(s.MaxValue))
			if v := c.Ints[i]; v < lo || v > hi {
				t.Fatalf("%d is not within %d and %d", v, lo, hi)
			}
		}
	}
	if nulls != s.NullCount {
		t.Errorf("%d nulls, the footer says %d", nulls, s.NullCount)
	}
}

// The same rows give the same bytes on one core and on several.
func TestThreadsGiveTheSameBytes(t *testing.T) {
	b := randomBatch(mixed, 0, pageRows)
	var want []byte
	for _, threads := range []int{1, 2, 8, 99} {
		p := newPartWriter(mixed)
		var buf bytes.Buffer
		for range 2 {
			if err := p.add(b, threads); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.finish(&buf); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = buf.Bytes()
		}
		if !bytes.Equal(want, buf.Bytes()) {
			t.Errorf("%d threads: other bytes", threads)
		}
	}
}

// Parts that earlier versions wrote with the Parquet library have pages of other lengths, and zstd.
func TestPartsOfEarlierVersions(t *testing.T) {
	n := 2*pageRows + 777
	want := randomBatch(mixed, 0, n)
	encs := []encoding.Encoding{&parquet.DeltaBinaryPacked, &parquet.DeltaBinaryPacked, &parquet.DeltaBinaryPacked,
		&parquet.RLEDictionary, &parquet.DeltaLengthByteArray, &parquet.RLEDictionary, &parquet.DeltaBinaryPacked,
		&parquet.Plain, &parquet.Plain, &parquet.RLEDictionary, &parquet.RLEDictionary}
	for _, pageBytes := range []int{3000, 1 << 20, 1 << 24} {
		data := libraryPart(t, want, encs, pageBytes)
		got, err := decodePart(data, mixed, n, allColumns(mixed))
		if err != nil {
			t.Fatal(err)
		}
		sameBatch(t, want, got)
	}
}

type orderedGroup struct {
	parquet.Group
	fields []parquet.Field
}

func (g *orderedGroup) Fields() []parquet.Field { return g.fields }

func libraryPart(t *testing.T, b *Batch, encs []encoding.Encoding, pageBytes int) []byte {
	t.Helper()
	g := &orderedGroup{Group: parquet.Group{}}
	for i := range b.Schema.Fields {
		f := &b.Schema.Fields[i]
		n := parquet.Compressed(parquet.Encoded(parquetNode(f), encs[i]), &zstd.Codec{Level: zstd.SpeedFastest})
		if f.Nullable {
			n = parquet.Optional(n)
		}
		g.Group[f.Name] = n
	}
	for _, f := range b.Schema.Fields {
		for _, field := range g.Group.Fields() {
			if field.Name() == f.Name {
				g.fields = append(g.fields, field)
			}
		}
	}
	var buf bytes.Buffer
	w := parquet.NewWriter(&buf, parquet.NewSchema("onmart", g), parquet.PageBufferSize(pageBytes),
		parquet.MaxRowsPerRowGroup(1<<62))
	row := make(parquet.Row, len(b.Columns))
	for i := range b.N {
		for c := range b.Columns {
			f, v := &b.Schema.Fields[c], &b.Columns[c]
			level := 0
			if f.Nullable {
				level = 1
			}
			switch {
			case v.IsNull(i):
				row[c] = parquet.Value{}.Level(0, 0, c)
			case f.Type == Float64:
				row[c] = parquet.DoubleValue(v.Floats[i]).Level(0, level, c)
			case f.Type == String:
				row[c] = parquet.ByteArrayValue([]byte(v.Strings[i])).Level(0, level, c)
			default:
				row[c] = parquet.Int64Value(v.Ints[i]).Level(0, level, c)
			}
		}
		if _, err := w.WriteRows([]parquet.Row{row}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A dictionary finds what is in it and goes back to what it was where it fills up.
func TestNumberDict(t *testing.T) {
	var d numberDict
	r := rand.New(rand.NewPCG(1, 1))
	values, index := make([]uint64, 5000), make([]int32, 5000)
	for i := range values {
		values[i] = math.Float64bits(float64(r.IntN(3000)) / 100)
	}
	for range 2 {
		if !d.find(index, values) {
			t.Fatal("full")
		}
	}
	seen := map[uint64]bool{}
	for i, v := range values {
		seen[v] = true
		if d.values[index[i]] != v {
			t.Fatalf("%x became %x", v, d.values[index[i]])
		}
	}
	if d.len() != len(seen) {
		t.Errorf("%d entries for %d values", d.len(), len(seen))
	}
	before := append([]uint64{}, d.values...)
	more := make([]uint64, dictLimit)
	for i := range more {
		more[i] = uint64(i)<<20 + 1
	}
	if d.find(make([]int32, len(more)), more) {
		t.Fatal("not full")
	}
	if !reflect.DeepEqual(before, d.values) || !d.find(index, values) || d.len() != len(before) {
		t.Error("a dictionary that was full is not as before")
	}
}
