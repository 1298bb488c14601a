package score_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/datasets/mock"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/modeltest"
	"github.com/onmart/onmart/score/sink"
	"github.com/onmart/onmart/score/source"
)

// shop is a small generated shop, its features by the spec shop-fraud, and a model over these, which carries the tables
// users, stores and products.
func shop(t *testing.T) (*model.Artifact, *datasets.Dataset, []string) {
	t.Helper()
	dir := t.TempDir()
	stream, err := mock.New(mock.Options{Seed: 5, Rows: 4000, Days: 70})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write(t.Context(), filepath.Join(dir, "shop"), false, datasets.Created{}, nil); err != nil {
		t.Fatal(err)
	}
	in, err := datasets.Open(filepath.Join(dir, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := features.Builtin("shop-fraud")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "features")
	if _, err := features.Run(t.Context(), features.RunOptions{Spec: spec, In: in, Out: out, Threads: 2}); err != nil {
		t.Fatal(err)
	}
	tables, err := features.OpenTables(out, spec) // a run leaves them beside its output
	if err != nil {
		t.Fatal(err)
	}
	if err := model.Save(filepath.Join(dir, "model"), modeltest.Contents(t, spec, in.Schema(), 3, tables), false); err != nil {
		t.Fatal(err)
	}
	f, err := datasets.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	return modeltest.Open(t, filepath.Join(dir, "model")), f, linesOf(t, in)
}

// linesOf are the transactions as events, in the order of the log.
func linesOf(t *testing.T, d *datasets.Dataset) []string {
	t.Helper()
	var lines []string
	err := d.Read(t.Context(), datasets.ReadOptions{}, func(b *datasets.Batch) error {
		for i := range b.N {
			var cells []string
			for c, f := range b.Schema.Fields {
				v := &b.Columns[c]
				if v.IsNull(i) {
					continue
				}
				text := ""
				switch f.Type {
				case datasets.String:
					text = fmt.Sprintf("%q", v.Strings[i])
				case datasets.Float64:
					text = fmt.Sprint(v.Floats[i])
				case datasets.Time:
					text = fmt.Sprintf("%q", datasets.FormatTime(v.Ints[i]))
				case datasets.Decimal:
					text = fmt.Sprint(float64(v.Ints[i]) / math.Pow10(f.Scale))
				default:
					text = fmt.Sprint(v.Ints[i])
				}
				cells = append(cells, fmt.Sprintf("%q:%s", f.Name, text))
			}
			lines = append(lines, "{"+strings.Join(cells, ",")+"}")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// shopScorer scores the events of the shop with the artifact alone; o.Schema is filled in.
func shopScorer(t *testing.T, a *model.Artifact, o score.Options) (*score.Scorer, *datasets.Mapping) {
	t.Helper()
	m, err := datasets.MappingFor(a.Manifest().Input)
	if err != nil {
		t.Fatal(err)
	}
	o.Artifact, o.Schema, o.Features, o.Explain = a, m.LogSchema(), true, score.ExplainOff
	s, err := score.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s, m
}

func scoreShop(t *testing.T, s *score.Scorer, m *datasets.Mapping, lines []string, batch int) []scored {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o666); err != nil {
		t.Fatal(err)
	}
	src, err := source.Open(path, "", m, s.Position)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var out bytes.Buffer
	if err := score.Run(context.Background(), s, src, sink.Stream(&out), batch); err != nil {
		t.Fatal(err)
	}
	return parse(t, strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"))
}

// differ compares the features of live answers with those of a data set, row by row.
func differ(t *testing.T, what string, a *model.Artifact, live []scored, d *datasets.Dataset) {
	t.Helper()
	k := 0
	err := d.Read(t.Context(), datasets.ReadOptions{}, func(b *datasets.Batch) error {
		for i := range b.N {
			if k >= len(live) || live[k].Error != nil || live[k].TransID != b.Column(datasets.TransID).Ints[i] {
				return fmt.Errorf("row %d is not what was scored", k)
			}
			for _, n := range a.Manifest().Features {
				if x, y := live[k].Features[n], b.Column(n).Floats[i]; math.Float64bits(x) != math.Float64bits(y) {
					return fmt.Errorf("row %d: %s is %v live and %v in the backfill", k, n, x, y)
				}
			}
			k++
		}
		return nil
	})
	if err != nil || k != len(live) {
		t.Fatalf("%s: %d answers for %d rows: %v", what, len(live), k, err)
	}
}

// A model whose features join tables scores with those that it carries: live is the backfill, bit for bit.
func TestJoinedTablesLiveEqualBackfill(t *testing.T) {
	a, backfilled, lines := shop(t)
	for _, batch := range []int{1, 64, 1024} {
		s, m := shopScorer(t, a, score.Options{Threads: 2})
		differ(t, fmt.Sprint("batches of ", batch), a, scoreShop(t, s, m, lines, batch), backfilled)
	}
	// From a state in the middle.
	state := filepath.Join(t.TempDir(), "state")
	first, m := shopScorer(t, a, score.Options{})
	live := scoreShop(t, first, m, lines[:1500], 100)
	if err := first.SaveState(state, false); err != nil {
		t.Fatal(err)
	}
	second, _ := shopScorer(t, a, score.Options{Threads: 2})
	if _, err := second.Warm(state); err != nil {
		t.Fatal(err)
	}
	differ(t, "restarted", a, append(live, scoreShop(t, second, m, lines, 100)...), backfilled)
}

// A recorded log has the tables beside it, so that its features can be computed again. A user who is in no table is
// scored, without what the table would say.
func TestRecordedLogHasTheTables(t *testing.T) {
	a, _, lines := shop(t)
	dir := filepath.Join(t.TempDir(), "log")
	m, err := datasets.MappingFor(a.Manifest().Input)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := score.NewRecorder(dir, m.LogSchema(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Abort()
	s, _ := shopScorer(t, a, score.Options{Record: rec})
	if err := s.Begin(); err != nil {
		t.Fatal(err)
	}
	last := lines[len(lines)-1]
	stranger := strings.Replace(strings.Replace(last, `"user_id":`, `"user_id":77`, 1), `"trans_id":`, `"trans_id":77`, 1)
	live := scoreShop(t, s, m, append(lines[:1500:1500], stranger), 64)
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	log, err := datasets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "features")
	if _, err := features.Run(t.Context(), features.RunOptions{Spec: a.Spec(), In: log, Out: out}); err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	differ(t, "recorded", a, live, d)
	if f := live[len(live)-1].Features; f["km_from_home"] != 0 || f["amount"] == 0 {
		t.Errorf("a user who is in no table: %v km from home, amount %v", f["km_from_home"], f["amount"])
	}
}
