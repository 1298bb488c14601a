package mock

import (
	"reflect"
	"testing"

	"github.com/onmart/onmart/datasets"
)

func days(t *testing.T, o Options) ([]*datasets.Batch, *Stream) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	var all []*datasets.Batch
	for b := s.Next(); b != nil; b = s.Next() {
		all = append(all, b)
	}
	return all, s
}

func TestSameSeedSameRows(t *testing.T) {
	a, _ := days(t, Options{Seed: 3, Rows: 5000, Days: 20})
	b, _ := days(t, Options{Seed: 3, Rows: 5000, Days: 20})
	c, _ := days(t, Options{Seed: 4, Rows: 5000, Days: 20})
	if !reflect.DeepEqual(a, b) {
		t.Error("the same seed gave other rows")
	}
	if reflect.DeepEqual(a, c) {
		t.Error("another seed gave the same rows")
	}
}

func TestRowsAreAPlausibleLog(t *testing.T) {
	const rows = 40000
	batches, s := days(t, Options{Seed: 1, Rows: rows, Days: 60})
	var n, lastTime, lastID, lastLine, multi int64
	lastID = -1
	fraud := int64(0)
	for _, b := range batches {
		col := func(name string) []int64 { return b.Column(name).Ints }
		for i := range b.N {
			at, id, line := col(datasets.TransDatetime)[i], col(datasets.TransID)[i], col(datasets.Line)[i]
			if at < lastTime {
				t.Fatalf("row %d goes back in time", n)
			}
			switch {
			case id == lastID && line == lastLine+1 && at == lastTime:
				multi++
			case id > lastID && line == 0:
			default:
				t.Fatalf("row %d: purchase %d line %d after purchase %d line %d", n, id, line, lastID, lastLine)
			}
			if q, p, a := col(datasets.Quantity)[i], col(datasets.UnitPrice)[i], col(datasets.Amount)[i]; q < 1 || p < 100 || a != p*q {
				t.Fatalf("row %d: quantity %d, price %d, amount %d", n, q, p, a)
			}
			fraud += col(datasets.IsFraud)[i]
			lastTime, lastID, lastLine = at, id, line
			n++
		}
	}
	if n < rows*8/10 || n > rows*12/10 {
		t.Errorf("%d rows, asked for about %d", n, rows)
	}
	if multi < n/4 {
		t.Errorf("%d of %d rows are further lines of a purchase", multi, n)
	}
	truth := s.Truth()
	var planted int64
	for _, k := range []Kind{LargeAmount, BadStore, StolenCard} {
		if truth.FraudLines[k.String()] == 0 {
			t.Errorf("no fraud of kind %s", k)
		}
		planted += truth.FraudLines[k.String()]
	}
	if planted != fraud || fraud > n/20 {
		t.Errorf("%d fraud rows, %d planted, of %d", fraud, planted, n)
	}
}

func TestOptionsOutOfRange(t *testing.T) {
	if _, err := New(Options{Days: -1}); err == nil {
		t.Error("-1 days were accepted")
	}
}
