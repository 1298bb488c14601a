package datasets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"github.com/onmart/onmart/internal/testkit"
)

// mixed is a schema with every type, nullable and not.
var mixed = &Schema{Fields: []Field{
	{Name: TransID, Type: Int64},
	{Name: TransDatetime, Type: Time},
	{Name: UserID, Type: Int64, Nullable: true},
	{Name: ProductID, Type: String},
	{Name: "note", Type: String, Nullable: true},
	{Name: Amount, Type: Decimal, Scale: AmountScale},
	{Name: UnitPrice, Type: Decimal, Scale: 2, Nullable: true},
	{Name: TransLat, Type: Float64},
	{Name: TransLong, Type: Float64, Nullable: true},
	{Name: "zeros", Type: Int64},
	{Name: "nothing", Type: Float64, Nullable: true},
}}

// randomBatch has n rows from row number first on; equal arguments give equal rows.
func randomBatch(s *Schema, first, n int) *Batch {
	b := NewBatch(s, n)
	b.N = n
	src := rand.NewPCG(0, 0)
	r := rand.New(src)
	for i, f := range s.Fields {
		c := &b.Columns[i]
		if f.Nullable {
			c.Null = make([]bool, n)
		}
		for row := range n {
			*src = *rand.NewPCG(uint64(first+row), uint64(i))
			null := f.Nullable && (r.IntN(3) == 0 || f.Name == "nothing")
			if f.Nullable {
				c.Null[row] = null
			}
			switch f.Type {
			case Float64:
				c.Floats = append(c.Floats, zeroIf(null, r.NormFloat64()))
			case String:
				text := fmt.Sprintf("p%d", r.IntN(50))
				if f.Name == "note" {
					text = fmt.Sprintf("été %d \x00 %d", r.Uint64(), first+row)
				}
				c.Strings = append(c.Strings, zeroIf(null, text))
			default:
				v := r.Int64N(1e9)
				switch f.Name {
				case TransDatetime:
					v = 1522540800e6 + int64(first+row)*3*Second
				case "zeros":
					v = 0
				}
				c.Ints = append(c.Ints, zeroIf(null, v))
			}
		}
	}
	return b
}

func zeroIf[T any](zero bool, v T) T {
	if zero {
		var z T
		return z
	}
	return v
}

// writeSet writes rows 0..n of randomBatch in uneven pieces.
func writeSet(t testing.TB, dir string, s *Schema, n int) {
	t.Helper()
	w, err := Create(dir, KindTransactions, s, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for at := 0; at < n; {
		k := min(70001, n-at)
		if err := w.Write(randomBatch(s, at, k)); err != nil {
			t.Fatal(err)
		}
		at += k
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// collect reads a data set into one batch.
func collect(t testing.TB, d *Dataset, o ReadOptions) *Batch {
	t.Helper()
	var all *Batch
	err := d.Read(context.Background(), o, func(b *Batch) error {
		if b.N == 0 || b.N > readRows {
			t.Errorf("batch of %d rows", b.N)
		}
		if all == nil {
			all = NewBatch(b.Schema, b.N)
		}
		all.appendRows(b, 0, b.N)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestStoreRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	n := partRows + 12345
	writeSet(t, dir, mixed, n)
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Manifest().Parts) != 2 || d.Manifest().Rows != int64(n) {
		t.Fatalf("parts %d rows %d", len(d.Manifest().Parts), d.Manifest().Rows)
	}
	want := randomBatch(mixed, 0, n)
	for _, threads := range []int{1, 3} {
		got := collect(t, d, ReadOptions{Threads: threads})
		for i, f := range mixed.Fields {
			if !reflect.DeepEqual(want.Columns[i], got.Columns[i]) {
				t.Errorf("column %s: %.500s", f.Name, cmp.Diff(want.Columns[i], got.Columns[i]))
			}
		}
	}
}

func open(t testing.TB, dir string) *Dataset {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestReadColumnsAndRange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	n := partRows + 5000
	writeSet(t, dir, mixed, n)
	d := open(t, dir)
	all := collect(t, d, ReadOptions{})
	m := d.Manifest()
	for _, c := range []struct {
		name    string
		r       Range
		columns []string
	}{
		{"all", Range{}, []string{"note", TransID}},
		{"inside the first part", Range{m.From + 100*Second, m.From + 200*Second}, nil},
		{"over the cut", Range{m.Parts[0].To - 7*Second, m.Parts[1].From + 8*Second}, []string{Amount, TransLong}},
		{"last part", Range{m.Parts[1].From, m.To + 1}, []string{TransDatetime}},
		{"edges", Range{m.From, m.To}, []string{"nothing"}},
		{"before", Range{m.From - 10, m.From}, nil},
		{"after", Range{m.To + 1, m.To + 10}, nil},
	} {
		from, to := c.r.Bounds()
		var rows []int32
		for i, us := range all.Column(TransDatetime).Ints {
			if us >= from && us < to {
				rows = append(rows, int32(i))
			}
		}
		got := collect(t, d, ReadOptions{Range: c.r, Columns: c.columns, Threads: 2})
		if len(rows) == 0 {
			if got != nil {
				t.Errorf("%s: %d rows", c.name, got.N)
			}
			continue
		}
		want := all.gather(rows)
		names := c.columns
		if names == nil {
			names = fieldNames(mixed)
		}
		if d := cmp.Diff(names, fieldNames(got.Schema)); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		for i, name := range names {
			for row := range want.N {
				w := want.Column(name)
				if w.IsNull(row) != got.Columns[i].IsNull(row) ||
					FormatValue(&got.Schema.Fields[i], w, row) != FormatValue(&got.Schema.Fields[i], &got.Columns[i], row) {
					t.Fatalf("%s: column %s row %d", c.name, name, row)
				}
			}
		}
	}
	err := d.Read(context.Background(), ReadOptions{Columns: []string{"amuont"}}, nil)
	if err == nil || !strings.Contains(err.Error(), "has no column amuont; did you mean amount?") {
		t.Errorf("got %v", err)
	}
}

// logSet writes a small log: transactions out of order, with labels between that have no event time.
func logSet(t testing.TB, dir string) *Schema {
	t.Helper()
	s := preset(t, "fraud-handbook").LogSchema()
	w, err := Create(dir, KindLog, s, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	d, err := preset(t, "fraud-handbook").NewDecoder(strings.NewReader(`{"trans_id":1,"trans_datetime":"2018-04-02T00:00:00Z","user_id":1,"store_id":1,"amount":1}
{"trans_id":2,"trans_datetime":"2018-04-01T00:00:00Z","user_id":1,"store_id":1,"amount":2}
{"event":"label","trans_id":1,"is_fraud":1,"known_at":"2018-04-09T00:00:00Z"}
{"trans_id":3,"trans_datetime":"2018-04-08T00:00:00Z","user_id":1,"store_id":1,"amount":3}
{"event":"label","trans_id":3,"is_fraud":0,"known_at":"2018-04-10T00:00:00Z"}
`), "log", JSONL)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBatch(s, 0)
	if n, err := d.Next(b, 10); n != 5 || err != nil {
		t.Fatal(n, err, d.Rejects())
	}
	if err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return s
}

// Labels of a log are placed in a range by when they were known.
func TestLogRange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	logSet(t, dir)
	d := open(t, dir)
	if m := d.Manifest(); FormatTime(m.From) != "2018-04-01T00:00:00Z" || FormatTime(m.To) != "2018-04-10T00:00:00Z" {
		t.Errorf("%s to %s", FormatTime(m.From), FormatTime(m.To))
	}
	r, err := ParseRange("2018-04-02..2018-04-09")
	if err != nil {
		t.Fatal(err)
	}
	got := collect(t, d, ReadOptions{Range: r, Columns: []string{TransID, Event}})
	var rows []string
	for i := range got.N {
		rows = append(rows, strings.TrimSpace(showRow(got, i)))
	}
	want := []string{"trans_id=1 event=transaction", "trans_id=1 event=label", "trans_id=3 event=transaction"}
	if d := cmp.Diff(want, rows); d != "" {
		t.Error(d)
	}
}

// Equal rows give equal files and ids, however they were cut into batches.
func TestStoreIsDeterministic(t *testing.T) {
	root := t.TempDir()
	rows := randomBatch(mixed, 0, 9000)
	var ids []string
	for i, cut := range []int{9000, 1, 777} {
		w, err := Create(filepath.Join(root, fmt.Sprint(i)), KindTransactions, mixed, false)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < rows.N; at += cut {
			if err := w.Write(rows.Slice(at, min(at+cut, rows.N))); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, open(t, filepath.Join(root, fmt.Sprint(i))).ID())
	}
	if ids[0] != ids[1] || ids[0] != ids[2] {
		t.Errorf("ids %v", ids)
	}
}

func TestEmptyDataSet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	writeSet(t, dir, mixed, 0)
	d := open(t, dir)
	if got := collect(t, d, ReadOptions{}); got != nil || d.Manifest().Rows != 0 {
		t.Errorf("%v", got)
	}
	if _, err := Summarize(context.Background(), d, nil); err != nil {
		t.Error(err)
	}
}

func TestWriterRefuses(t *testing.T) {
	root := t.TempDir()
	spoil := map[string]func(b *Batch){
		"column trans_lat is NaN in row 1: only finite":             func(b *Batch) { b.Column(TransLat).Floats[1] = math.NaN() },
		"column trans_lat is -Inf in row 0":                         func(b *Batch) { b.Column(TransLat).Floats[0] = math.Inf(-1) },
		"column trans_id has no value in row 2, and may not be":     func(b *Batch) { b.Column(TransID).Null = []bool{false, false, true} },
		"column trans_id has 2 values for 3 rows":                   func(b *Batch) { b.Columns[0].Ints = b.Columns[0].Ints[:2] },
		"the batch has columns [trans_id], the data set [trans_id ": func(b *Batch) { b.Schema = &Schema{Fields: mixed.Fields[:1]}; b.Columns = b.Columns[:1] },
	}
	for want, f := range spoil {
		w, err := Create(filepath.Join(root, "set"), KindTransactions, mixed, false)
		if err != nil {
			t.Fatal(err)
		}
		b := randomBatch(mixed, 0, 3)
		f(b)
		if err := w.Write(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		w.Abort()
	}
	for _, s := range []*Schema{{}, {Fields: []Field{{Name: "a b", Type: Int64}}}, {Fields: []Field{{Name: "a"}}},
		{Fields: []Field{{Name: "a", Type: Int64}, {Name: "a", Type: Int64}}}, {Fields: []Field{{Name: "a", Type: Float64, Scale: 2}}}} {
		if _, err := Create(filepath.Join(root, "set"), KindTransactions, s, false); err == nil {
			t.Errorf("took %v", s)
		}
	}
	if left := testkit.Names(t, root); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

func TestOpenRefuses(t *testing.T) {
	root := t.TempDir()
	good := filepath.Join(root, "good")
	writeSet(t, good, mixed, 1000)
	text, err := os.ReadFile(filepath.Join(good, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join("set", "part-00000.parquet")
	for _, c := range []struct {
		name  string
		spoil func(dir string)
		want  string
	}{
		{"no such directory", func(string) { os.RemoveAll(filepath.Join(root, "set")) }, "no such file"},
		{"half-written", func(string) { os.Remove(filepath.Join(root, "set", "manifest.json")) }, "has no manifest.json: it is not a data set, or not a whole one; make it again"},
		{"part missing", func(string) { os.Remove(filepath.Join(root, part)) }, "part-00000.parquet is missing: restore it, or make"},
		{"part cut", func(string) { os.Truncate(filepath.Join(root, part), 100) }, "has 100 bytes, the manifest says"},
		{"newer", edit(root, text, `"format_version": 1`, `"format_version": 2`), "format 2, newer than the 1 this onmart reads: update onmart"},
		{"newer with another shape", edit(root, text, `"format_version": 1`, `"format_version": 2, "rows": {}`), "newer than the 1"},
		{"a model", edit(root, text, `"kind": "transactions"`, `"kind": "model"`), `it holds "model", not a data set`},
		{"rows changed", edit(root, text, `"rows": 1000`, `"rows": 999`), "do not match its id"},
		{"type changed", edit(root, text, `"type": "time"`, `"type": "int64"`), "do not match its id"},
		{"path out of the directory", edit(root, text, `"part-00000.parquet"`, `"../good/part-00000.parquet"`), "is not a file of this directory"},
		{"cut manifest", func(string) { os.Truncate(filepath.Join(root, "set", "manifest.json"), 200) }, "it cannot be read"},
	} {
		os.RemoveAll(filepath.Join(root, "set"))
		if err := os.CopyFS(filepath.Join(root, "set"), os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		c.spoil(root)
		if _, err := Open(filepath.Join(root, "set")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	if _, err := Open(filepath.Join(good, "manifest.json")); err == nil || !strings.Contains(err.Error(), "is a file: give the directory") {
		t.Errorf("got %v", err)
	}
}

func edit(root string, text []byte, from, to string) func(string) {
	return func(string) {
		os.WriteFile(filepath.Join(root, "set", "manifest.json"), bytes.ReplaceAll(text, []byte(from), []byte(to)), 0o666)
	}
}

// Any flipped byte of a part is an error of Read and Verify that names the file, through the checksum.
func TestFlippedBytesAreFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	writeSet(t, dir, mixed, 500)
	path := filepath.Join(dir, "part-00000.parquet")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, dir)
	for at := 0; at < len(data); at += max(1, len(data)/200) {
		data[at] ^= 0x10
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		data[at] ^= 0x10
		err := d.Verify(context.Background())
		if err == nil || !strings.Contains(err.Error(), path+": the checksum differs from the manifest's: the file was changed or damaged; make") {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
}

// Without the checksum, damage is an error or leaves the right number of rows; never a panic.
func TestDamagedPartsDoNotPanic(t *testing.T) {
	b := randomBatch(mixed, 0, 3000)
	var buf bytes.Buffer
	if err := encodePart(&buf, b); err != nil {
		t.Fatal(err)
	}
	good := buf.Bytes()
	columns := make([]int, len(mixed.Fields))
	for i := range columns {
		columns[i] = i
	}
	try := func(data []byte) {
		got, err := decodePart(data, mixed, b.N, columns)
		if err != nil {
			return
		}
		if err := checkColumns(got); err != nil || got.N != b.N {
			t.Errorf("%d rows, %v", got.N, err)
		}
	}
	r := rand.New(rand.NewPCG(9, 9))
	for range 200 {
		bad := bytes.Clone(good)
		for range 1 + r.IntN(4) {
			bad[r.IntN(len(bad))] ^= byte(1 + r.IntN(255))
		}
		try(bad)
		foot := bytes.Clone(good)
		foot[len(foot)-1-r.IntN(3000)] ^= byte(1 + r.IntN(255))
		try(foot)
		try(good[:r.IntN(len(good))])
	}
}

// A part of another schema, or with other rows, is refused even where it is sound in itself.
func TestForeignPartsAreRefused(t *testing.T) {
	var buf bytes.Buffer
	if err := encodePart(&buf, randomBatch(mixed, 0, 100)); err != nil {
		t.Fatal(err)
	}
	other := func(change func(f []Field)) *Schema {
		s := &Schema{Fields: slices.Clone(mixed.Fields)}
		change(s.Fields)
		return s
	}
	for name, s := range map[string]*Schema{
		"name":     other(func(f []Field) { f[0].Name = "other" }),
		"type":     other(func(f []Field) { f[1].Type = Int64 }),
		"scale":    other(func(f []Field) { f[5].Scale = 2 }),
		"nullable": other(func(f []Field) { f[0].Nullable = true }),
		"fewer":    {Fields: mixed.Fields[:3]},
	} {
		if _, err := decodePart(buf.Bytes(), s, 100, []int{0}); !errors.Is(err, errCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decodePart(buf.Bytes(), mixed, 99, []int{0}); !errors.Is(err, errCorrupt) {
		t.Errorf("rows: %v", err)
	}
}

func TestLZ4RawIsRefused(t *testing.T) {
	s := &Schema{Fields: []Field{{Name: "a", Type: Int64}}}
	node := parquet.Compressed(parquet.Int(64), &parquet.Lz4Raw)
	var buf bytes.Buffer
	w := parquet.NewWriter(&buf, parquet.NewSchema("onmart", parquet.Group{"a": node}))
	for i := range 10 {
		if _, err := w.WriteRows([]parquet.Row{{parquet.Int64Value(int64(i)).Level(0, 0, 0)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := decodePart(buf.Bytes(), s, 10, []int{0}); err == nil || !strings.Contains(err.Error(), "LZ4_RAW, which is not read") {
		t.Errorf("got %v", err)
	}
}

func TestReadStops(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	writeSet(t, dir, &Schema{Fields: mixed.Fields[:2]}, 2*partRows)
	d := open(t, dir)
	stop := errors.New("enough")
	if err := d.Read(context.Background(), ReadOptions{Threads: 1}, func(*Batch) error { return stop }); err != stop {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	rows := 0
	err := d.Read(ctx, ReadOptions{Threads: 1}, func(b *Batch) error {
		if rows += b.N; rows > partRows {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The parts open in other readers, with the types and values that were written.
func TestPartsOpenElsewhere(t *testing.T) {
	python := testkit.Python(t, "pyarrow", "duckdb", "polars")
	dir := filepath.Join(t.TempDir(), "set")
	writeSet(t, dir, mixed, 5000)
	b := randomBatch(mixed, 0, 5000)
	var want strings.Builder
	for i := range b.N {
		for c, f := range mixed.Fields {
			if c > 0 {
				want.WriteByte('\t')
			}
			v := FormatValue(&f, &b.Columns[c], i)
			switch {
			case b.Columns[c].IsNull(i):
				v = "None"
			case f.Type == Time:
				v = fmt.Sprint(b.Columns[c].Ints[i])
			case f.Type == Decimal:
				v = fmt.Sprint(b.Columns[c].Ints[i]) // units
			case f.Type == Float64:
				v = fmt.Sprintf("%016x", math.Float64bits(b.Columns[c].Floats[i]))
			case f.Type == String:
				v = fmt.Sprintf("%x", b.Columns[c].Strings[i])
			}
			want.WriteString(v)
		}
		want.WriteByte('\n')
	}
	script := `
import sys, struct, datetime, decimal
part, how = sys.argv[1], sys.argv[2]
if how == "pyarrow":
    import pyarrow.parquet as pq
    t = pq.read_table(part); cols = [t.column(i).to_pylist() for i in range(t.num_columns)]
    print(t.schema.field("amount").type, t.schema.field("trans_datetime").type, file=sys.stderr)
elif how == "duckdb":
    import duckdb
    duckdb.sql("set timezone='UTC'")
    rows = duckdb.sql("select * replace (epoch_us(trans_datetime) as trans_datetime) from read_parquet('%s')" % part).fetchall(); cols = list(zip(*rows))
else:
    import polars as pl
    d = pl.read_parquet(part); cols = [d[c].to_list() for c in d.columns]
scale = {"5": 4, "6": 2}
epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
def show(i, v):
    if v is None: return "None"
    if isinstance(v, datetime.datetime): return str((v - epoch) // datetime.timedelta(microseconds=1))
    if isinstance(v, decimal.Decimal): return str(int(v.scaleb(scale[str(i)])))
    if isinstance(v, float): return struct.pack(">d", v).hex()
    if isinstance(v, str): return v.encode().hex()
    return str(v)
out = [[show(i, v) for v in c] for i, c in enumerate(cols)]
for row in zip(*out): print("\t".join(row))
`
	for _, how := range []string{"pyarrow", "duckdb", "polars"} {
		cmd := exec.Command(python, "-c", script, filepath.Join(dir, "part-00000.parquet"), how)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		got, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", how, err, stderr.String())
		}
		if string(got) != want.String() {
			t.Errorf("%s read other rows: %.2000s", how, cmp.Diff(strings.Split(want.String(), "\n"), strings.Split(string(got), "\n")))
		}
		if how == "pyarrow" && strings.TrimSpace(stderr.String()) != "decimal128(18, 4) timestamp[us, tz=UTC]" {
			t.Errorf("pyarrow sees %s", stderr.String())
		}
	}
}

func BenchmarkWriteSet(b *testing.B) {
	s := &Schema{}
	for i := range 20 {
		s.Fields = append(s.Fields, Field{Name: fmt.Sprintf("f%d", i), Type: []Type{Int64, Float64, Float64, Float64}[i%4]})
	}
	rows := randomBatch(s, 0, 1<<16)
	for b.Loop() {
		w, err := Create(filepath.Join(b.TempDir(), "set"), KindFeatures, s, true)
		if err != nil {
			b.Fatal(err)
		}
		for range 8 {
			if err := w.Write(rows); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(8<<16), "ns/row")
}

func BenchmarkReadSet(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "set")
	writeSet(b, dir, mixed, 2*partRows)
	d := open(b, dir)
	for b.Loop() {
		if err := d.Verify(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(2*partRows), "ns/row")
}
