package datasets

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/onmart/onmart/internal/testkit"
)

func preset(t testing.TB, name string) *Mapping {
	t.Helper()
	m, err := Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestImportSharedData(t *testing.T) {
	for _, c := range []struct {
		preset string
		rows   int64
	}{{"fraud-handbook", 1303778}, {"online-retail", 431673}} {
		t.Run(c.preset, func(t *testing.T) {
			file := testkit.SharedData(t, c.preset+"/transactions.csv.gz")
			out := filepath.Join(t.TempDir(), "out")
			start := time.Now()
			m, err := Import(context.Background(), ImportOptions{Mapping: preset(t, c.preset), Files: []string{file}, Out: out, MaxRejects: 0.001})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(time.Since(start), m.Counts, m.Schema)
			if m.Rows != c.rows {
				t.Errorf("%d rows, want %d: %v", m.Rows, c.rows, m.Counts)
			}
			d, err := Open(out)
			if err != nil {
				t.Fatal(err)
			}
			start = time.Now()
			if err := d.Verify(context.Background()); err != nil {
				t.Fatal(err)
			}
			t.Log(time.Since(start), m.Parts[0])
		})
	}
}
