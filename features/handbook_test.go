package features

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/testkit"
)

// importHandbook imports the book's transactions.
func importHandbook(t testing.TB) *datasets.Dataset {
	t.Helper()
	file := testkit.SharedData(t, "fraud-handbook/transactions.csv.gz")
	m, err := datasets.Preset("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := datasets.Import(context.Background(), datasets.ImportOptions{Mapping: m, Files: []string{file}, Out: dir}); err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The book's features of 1.3 million real rows equal those of pandas. testdata/handbook.json has, of the
// pandas frame in the order (TX_DATETIME, TRANSACTION_ID), with every column brought to whole numbers (counts
// and flags as they are, amounts in 1e-4, averages times their counts in 1e-4, risks times their counts):
// the sum, and the sum of row i times 7919 i mod 1009, which finds rows that are exchanged.
func TestHandbookEqualsPandas(t *testing.T) {
	d := importHandbook(t)
	raw, err := os.ReadFile("testdata/handbook.json")
	if err != nil {
		t.Fatal(err)
	}
	type column struct {
		Sum, Weighted int64
		Float         float64
	}
	var want struct {
		Rows    int64
		Columns map[string]column
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	spec, err := Builtin("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "features")
	if _, err := Run(context.Background(), RunOptions{Spec: spec, In: d, Out: out}); err != nil {
		t.Fatal(err)
	}
	f, err := datasets.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]column{}
	var order rowOrder
	if err := f.Read(context.Background(), datasets.ReadOptions{}, func(b *datasets.Batch) error {
		at := order.places(b)
		for name := range want.Columns {
			c := got[name]
			v := b.Column(name).Floats
			var n []float64
			scale := 1.0
			switch {
			case strings.Contains(name, "AVG_AMOUNT"):
				n, scale = b.Column(strings.Replace(name, "AVG_AMOUNT", "NB_TX", 1)).Floats, 1e4
			case strings.Contains(name, "RISK"):
				n = b.Column(strings.Replace(name, "RISK", "NB_TX", 1)).Floats
			case name == "TX_AMOUNT":
				scale = 1e4
			}
			for i, x := range v {
				c.Float += x
				x *= scale
				if n != nil {
					x *= n[i]
				}
				whole := math.Round(x)
				if !(math.Abs(x-whole) <= 1e-3) {
					t.Fatalf("%s: %v is not whole", name, x)
				}
				c.Sum += int64(whole)
				c.Weighted += int64(whole) * (at[i] * 7919 % 1009)
			}
			got[name] = c
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if order.rows != want.Rows {
		t.Errorf("%d rows, want %d", order.rows, want.Rows)
	}
	for name, w := range want.Columns {
		g := got[name]
		if g.Sum != w.Sum || g.Weighted != w.Weighted {
			t.Errorf("%s: sums %d and %d, pandas has %d and %d", name, g.Sum, g.Weighted, w.Sum, w.Weighted)
		}
		if w.Float != 0 && !(math.Abs(g.Float-w.Float) <= 1e-9*w.Float) {
			t.Errorf("%s: sum %v, pandas has %v", name, g.Float, w.Float)
		}
	}
}

// rowOrder places rows that are sorted by time, ties in any order, by (time, trans_id). A run of one time
// that two batches share would be placed wrongly, and the test would say so.
type rowOrder struct{ rows int64 }

func (o *rowOrder) places(b *datasets.Batch) []int64 {
	at := make([]int64, b.N)
	t, id := b.Column(datasets.TransDatetime).Ints, b.Column(datasets.TransID).Ints
	for i := 0; i < b.N; {
		j := i + 1
		for j < b.N && t[j] == t[i] {
			j++
		}
		for k := i; k < j; k++ {
			at[k] = o.rows + int64(i)
			for l := i; l < j; l++ {
				if id[l] < id[k] {
					at[k]++
				}
			}
		}
		i = j
	}
	o.rows += int64(b.N)
	return at
}
