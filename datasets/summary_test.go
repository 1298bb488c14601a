package datasets

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/onmart/onmart/internal/testkit"
)

func TestSummarize(t *testing.T) {
	dir := t.TempDir()
	m := preset(t, "online-retail")
	out := filepath.Join(dir, "out")
	if _, err := Import(context.Background(), ImportOptions{Mapping: m, Files: []string{"testdata/online-retail.csv"}, Out: out}); err != nil {
		t.Fatal(err)
	}
	s, err := Summarize(context.Background(), open(t, out), nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := int64(0)
	for _, d := range s.Days {
		rows += d.Rows
	}
	if rows != s.Rows || s.Days[0].Day != s.From[:10] || s.Days[len(s.Days)-1].Day != s.To[:10] {
		t.Errorf("%d rows in days, %d in all", rows, s.Rows)
	}
	s.Dir, s.ID, s.Bytes, s.Created, s.Days = "", "", 0, Created{}, s.Days[:3]
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	testkit.Golden(t, "summary.golden", append(text, '\n'))
}

// Against the definitions, on random rows of every type.
func TestSummaryAgainstDefinitions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	writeSet(t, dir, mixed, 3000)
	b := randomBatch(mixed, 0, 3000)
	s, err := Summarize(context.Background(), open(t, dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range mixed.Fields {
		got, c := s.Columns[i], &b.Columns[i]
		seen := map[string]bool{}
		nulls, sum := int64(0), 0.0
		for row := range b.N {
			if c.IsNull(row) {
				nulls++
				continue
			}
			seen[FormatValue(&f, c, row)] = true
			switch f.Type {
			case Float64:
				sum += c.Floats[row]
			case String:
			default:
				sum += float64(c.Ints[row])
			}
		}
		if got.Nulls != nulls {
			t.Errorf("%s: %d nulls, want %d", f.Name, got.Nulls, nulls)
		}
		if (f.Type == Int64 || f.Type == String) && got.Distinct != int64(len(seen)) {
			t.Errorf("%s: %d distinct, want %d", f.Name, got.Distinct, len(seen))
		}
		if got.Mean != nil {
			want := sum / float64(int64(b.N)-nulls)
			if f.Type == Decimal {
				want /= float64(pow10[f.Scale])
			}
			if diff := *got.Mean - want; !(diff*diff <= 1e-18*want*want) {
				t.Errorf("%s: mean %v, want %v", f.Name, *got.Mean, want)
			}
		}
	}
}
