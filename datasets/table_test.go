package datasets

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A table that we write is read as it was written.
func TestTableRoundTrip(t *testing.T) {
	b := NewBatch(&Schema{Fields: []Field{{Name: "id", Type: Int64}, {Name: "name", Type: String, Nullable: true}, {Name: "price", Type: Decimal, Scale: 2},
		{Name: "from", Type: Time}, {Name: "share", Type: Float64}}}, 3)
	for i := range 3 {
		b.Columns[0].Ints = append(b.Columns[0].Ints, int64(i))
		b.Columns[1].Strings, b.Columns[1].Null = append(b.Columns[1].Strings, []string{"a", "", "c"}[i]), append(b.Columns[1].Null, i == 1)
		b.Columns[2].Ints = append(b.Columns[2].Ints, int64(100+i))
		b.Columns[3].Ints = append(b.Columns[3].Ints, int64(i)*Day)
		b.Columns[4].Floats = append(b.Columns[4].Floats, float64(i)/4)
		b.N++
	}
	path := filepath.Join(t.TempDir(), "t.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteTable(f, b); err != nil {
		t.Fatal(err)
	}
	f.Close()
	got, err := ReadTable(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, got); diff != "" {
		t.Error(diff)
	}
	some := &Schema{Fields: []Field{b.Schema.Fields[3], b.Schema.Fields[0]}}
	if got, err = ReadTable(path, some); err != nil || got.Columns[1].Ints[2] != 2 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []Field{{Name: "idd", Type: Int64}, {Name: "id", Type: String}, {Name: "name", Type: String}, {Name: "price", Type: Decimal, Scale: 4}} {
		if _, err := ReadTable(path, &Schema{Fields: []Field{bad}}); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// Tables of other writers: dates, small numbers, booleans, nulls, NaN, several row groups; nested columns are left
// out.
func TestTableOfPyarrow(t *testing.T) {
	python := os.Getenv("ONMART_TEST_PYTHON")
	if python == "" {
		t.Skip("ONMART_TEST_PYTHON does not name a Python with pyarrow")
	}
	path := filepath.Join(t.TempDir(), "t.parquet")
	const script = `
import sys, datetime as dt, decimal, pyarrow as pa, pyarrow.parquet as pq
t = pa.table({
  "day": pa.array([dt.date(1970, 1, 2), dt.date(1969, 12, 31), None]),
  "flag": pa.array([True, False, None]),
  "small": pa.array([1, -2, 3], pa.int16()),
  "single": pa.array([1.5, float("nan"), float("inf")], pa.float32()),
  "text": pa.array(["a", None, "c"]).dictionary_encode(),
  "ms": pa.array([1, 2, 3], pa.timestamp("ms")),
  "ns": pa.array([1001, -1, 3000], pa.timestamp("ns")),
  "money": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("-2.25")], pa.decimal128(9, 2)),
  "list": pa.array([[1], [2], []]),
})
pq.write_table(t, sys.argv[1], row_group_size=2, store_decimal_as_integer=True)
`
	if out, err := exec.Command(python, "-c", script, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := ReadTable(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, f := range b.Schema.Fields {
		c := &b.Columns[i]
		got = append(got, fmt.Sprintf("%s %s %d %v%v%v %v", f.Name, f.Type, f.Scale, c.Ints, c.Floats, c.Strings, c.Null))
	}
	want := []string{
		"day time 0 [86400000000 -86400000000 0][][] [false false true]",
		"flag int64 0 [1 0 0][][] [false false true]",
		"small int64 0 [1 -2 3][][] []",
		"single float64 0 [][1.5 0 0][] [false true true]",
		"text string 0 [][][a  c] [false true false]",
		"ms time 0 [1000 2000 3000][][] []",
		"ns time 0 [1 -1 3][][] []",
		"money decimal 2 [150 0 -225][][] [false true false]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What is no table is an error, and damage never a panic.
func TestTableDamage(t *testing.T) {
	b := NewBatch(&Schema{Fields: []Field{{Name: "id", Type: Int64}, {Name: "name", Type: String}}}, 100)
	for i := range 100 {
		b.Columns[0].Ints, b.Columns[1].Strings = append(b.Columns[0].Ints, int64(i)), append(b.Columns[1].Strings, strings.Repeat("x", i%7))
		b.N++
	}
	var buf bytes.Buffer
	if err := WriteTable(&buf, b); err != nil {
		t.Fatal(err)
	}
	for n := range buf.Len() {
		if _, err := DecodeTable(buf.Bytes()[:n]); err == nil {
			t.Fatalf("%d of %d bytes are taken for a table", n, buf.Len())
		}
	}
	if _, err := DecodeTable([]byte("id,name\n1,a\n")); err == nil {
		t.Error("a CSV is taken for a table")
	}
}
