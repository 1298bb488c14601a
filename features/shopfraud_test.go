package features

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/datasets/mock"
)

// mockShop is a small generated shop.
func mockShop(t *testing.T) *datasets.Dataset {
	t.Helper()
	stream, err := mock.New(mock.Options{Seed: 2, Rows: 12_000, Days: 80})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "shop")
	if _, err := stream.Write(t.Context(), dir, false, datasets.Created{}, nil); err != nil {
		t.Fatal(err)
	}
	return open(t, dir)
}

// The built-in spec for frauds in a shop has about 60 features, over the keys that it says; on a generated shop each
// row has them, each of them varies, and they are what the definitions say.
func TestShopFraud(t *testing.T) {
	spec, err := Builtin("shop-fraud")
	if err != nil {
		t.Fatal(err)
	}
	in := mockShop(t)
	dir, m := runTo(t, RunOptions{Spec: spec, In: in})
	if m.Rows != in.Manifest().Rows {
		t.Errorf("%d rows for %d lines: %v", m.Rows, in.Manifest().Rows, m.Counts)
	}
	made, err := MadeOf(m)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(made.Features); n < 58 || n > 66 {
		t.Errorf("%d features", n)
	}
	out := readAll(t, dir, datasets.Range{})
	for _, f := range made.Features {
		least, most := out.Column(f.Name).Floats[0], out.Column(f.Name).Floats[0]
		for _, v := range out.Column(f.Name).Floats {
			if v-v != 0 {
				t.Fatalf("%s is %v", f.Name, v)
			}
			least, most = min(least, v), max(most, v)
		}
		if least == most {
			t.Errorf("%s is always %v", f.Name, least)
		}
		if f.Words == "" || strings.ContainsAny(strings.NewReplacer("{value}", "", "{typical}", "").Replace(f.Words), "{}") {
			t.Errorf("%s has the words %q", f.Name, f.Words)
		}
	}
	if v := verified(t, VerifyOptions{Spec: spec, In: in, Sample: 400, Threads: 2}); v.Checked != 400 || v.Mismatched != 0 {
		t.Errorf("verified %+v", v)
	}
	tables, err := OpenTables(dir, spec)
	if err != nil || len(tables.Files()) != 3 {
		t.Errorf("beside the features are %d tables: %v", len(tables.Files()), err)
	}
}

// A feature that is a column's value may have the column's name, and others may be of it.
func TestValueUnderItsOwnName(t *testing.T) {
	spec := parse(t, `
name: own
features:
  - {name: amount, kind: value, of: amount}
  - {name: ln, kind: log, of: amount}
  - {name: twice, kind: expr, expr: 2 * amount}
  - {name: mean, kind: mean, of: amount, key: user_id, windows: [ever]}
`)
	in := store(t, datasets.KindTransactions, monthStream(200), nil)
	dir, _ := runTo(t, RunOptions{Spec: spec, In: in})
	out := readAll(t, dir, datasets.Range{})
	for i, v := range out.Column("amount").Floats {
		if out.Column("twice").Floats[i] != 2*v {
			t.Fatalf("row %d: twice %v is %v", i, v, out.Column("twice").Floats[i])
		}
	}
}

// A state fits an engine whose input declares the same columns nullable or not: a backfill's are what the data have, a
// scorer's what events may lack.
func TestStateWhateverIsNullable(t *testing.T) {
	spec := parse(t, `
name: nullable
features:
  - {name: n, kind: count, key: user_id, windows: [7d]}
  - {name: stores, kind: distinct, of: store_id, key: user_id, windows: [7d], null: skip}
  - {name: mean, kind: mean, of: amount, key: user_id, windows: [7d], null: skip}
`)
	in := monthStream(300)
	in.Schema.Fields = slices.Clone(in.Schema.Fields)
	engine := func(nullable bool) *Engine {
		for i := range in.Schema.Fields {
			if name := in.Schema.Fields[i].Name; name == datasets.StoreID || name == datasets.Amount {
				in.Schema.Fields[i].Nullable = nullable
			}
		}
		schema := &datasets.Schema{Fields: slices.Clone(in.Schema.Fields)}
		p, err := spec.Plan(schema)
		if err != nil {
			t.Fatal(err)
		}
		return p.NewEngine(1)
	}
	from := engine(false)
	if err := from.Process(in, &Rows{}); err != nil {
		t.Fatal(err)
	}
	to := engine(true)
	var state, again bytes.Buffer
	if err := from.Snapshot(&state); err != nil {
		t.Fatal(err)
	}
	want := state.String()
	if err := to.Restore(&state); err != nil {
		t.Fatal(err)
	}
	if err := to.Snapshot(&again); err != nil {
		t.Fatal(err)
	}
	if again.String() != want {
		t.Error("the state that was taken up is another one")
	}
}
