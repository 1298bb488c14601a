package datasets

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
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
