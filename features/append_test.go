package features

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
)

// monthStream is a card stream of 40 days with few cards and stores, so that windows are full, and some rows in it
// that are invalid.
func monthStream(n int) *datasets.Batch {
	in := holed(n)
	for i := range in.Columns[1].Ints {
		in.Columns[1].Ints[i] += int64(i) * 3_000_000 / int64(n) * datasets.Second
		in.Columns[2].Ints[i] %= 300
		in.Columns[3].Ints[i] %= 500
	}
	return in
}

func stateFileOf(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Going on from a state gives the rows and the state of one run over all, to the bit.
func TestGoingOnEqualsOneRun(t *testing.T) {
	all := monthStream(20_000)
	spec := fraudSpec(t)
	dirs := t.TempDir()
	at := func(name string) string { return filepath.Join(dirs, name) }
	whole, m := runTo(t, RunOptions{Spec: spec, In: store(t, datasets.KindTransactions, all, nil), StateOut: at("whole")})
	want, _ := featureRows(t, whole)

	cuts := []int{0, 9_000, 9_001, 16_000, all.N}
	var got [][]float64
	var rows, folded, invalid int64
	state := ""
	for i := 1; i < len(cuts); i++ {
		o := RunOptions{Spec: spec, In: store(t, datasets.KindTransactions, all.Slice(cuts[i-1], cuts[i]), nil),
			StateIn:  state,
			StateOut: at("state" + string(rune('0'+i)))}
		dir, m := runTo(t, o)
		part, _ := featureRows(t, dir)
		got = append(got, part...)
		rows, folded, invalid = rows+m.Rows, folded+m.Counts["folded"], invalid+m.Counts["invalid"]
		state = o.StateOut
	}
	sameRows(t, "day after day", want, got)
	if rows != m.Rows || folded != m.Counts["folded"] || invalid != m.Counts["invalid"] {
		t.Errorf("%d rows, %d folded, %d invalid; want %d, %v", rows, folded, invalid, m.Rows, m.Counts)
	}
	if !bytes.Equal(stateFileOf(t, at("whole")), stateFileOf(t, state)) {
		t.Error("the state is not that of one run")
	}
}

func TestGoingOnRefusals(t *testing.T) {
	all := monthStream(2_000)
	spec := fraudSpec(t)
	state := filepath.Join(t.TempDir(), "state")
	first := store(t, datasets.KindTransactions, all.Slice(0, 1_000), nil)
	runTo(t, RunOptions{Spec: spec, In: first, StateOut: state})
	later, err := spec.WithDelay(3 * datasets.Day)
	if err != nil {
		t.Fatal(err)
	}
	next := store(t, datasets.KindTransactions, all.Slice(1_000, 2_000), nil)
	overlap := store(t, datasets.KindTransactions, all.Slice(900, 2_000), nil)
	for _, c := range []struct {
		name string
		o    RunOptions
		want string
	}{
		{"another spec", RunOptions{Spec: later, In: next, StateIn: state}, "another definition of TERMINAL_ID"},
		{"the same data", RunOptions{Spec: spec, In: first, StateIn: state}, "has folded " + first.Dir() + " already"},
		{"overlapping data", RunOptions{Spec: spec, In: overlap, StateIn: state}, "import the rows from then on"},
		{"no state", RunOptions{Spec: spec, In: next, StateIn: state + "x"}, "is not a state"},
		{"append without a state", RunOptions{Spec: spec, In: next, Append: true}, "give --state-in"},
	} {
		c.o.Out = filepath.Join(t.TempDir(), "f")
		if _, err := Run(context.Background(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := Run(context.Background(), RunOptions{Spec: spec, In: next, StateIn: state,
		Range: datasets.Range{From: math.MinInt64, To: math.MaxInt64},
		Out:   filepath.Join(t.TempDir(), "f")}); err != nil {
		t.Error(err)
	}
}

// Day after day appended gives the data set, the rejects and the state of one run over all, to the byte.
func TestAppendEqualsOneRun(t *testing.T) {
	all := monthStream(600_000) // more than two parts
	spec := fraudSpec(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if _, err := Run(context.Background(), RunOptions{Spec: spec, In: store(t, datasets.KindTransactions, all, nil),
		Out:      at("whole"),
		StateOut: at("wholestate")}); err != nil {
		t.Fatal(err)
	}
	want := madeBy(t, at("whole"), at("wholestate"))
	cuts := []int{0, 150_000, 150_001, 400_000, 400_050, all.N}
	for i := 1; i < len(cuts); i++ {
		in := store(t, datasets.KindTransactions, all.Slice(cuts[i-1], cuts[i]), nil)
		o := RunOptions{Spec: spec, In: in, Out: at("f"), StateOut: at("s"), Force: true, Threads: 1 + i%2}
		if i > 1 {
			o.Append, o.StateIn = true, at("s")
		}
		if _, err := Run(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			continue
		}
		m, err := MadeFrom(open(t, at("f")))
		if err != nil || len(m.Inputs) != i || m.Data == in.ID() {
			t.Errorf("%v: %+v", err, m)
		}
	}
	want.same(t, "appended", madeBy(t, at("f"), at("s")))
	if d := diffOf(t, SourceOf(open(t, at("whole"))), SourceOf(open(t, at("f")))); !d.Equal {
		t.Errorf("%+v", d)
	}
}

func TestAppendRefusals(t *testing.T) {
	all := monthStream(3_000)
	spec := fraudSpec(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	part := func(from, to int) *datasets.Dataset {
		return store(t, datasets.KindTransactions, all.Slice(from, to), nil)
	}
	first, second, third := part(0, 1_000), part(1_000, 2_000), part(2_000, 3_000)
	run := func(o RunOptions) error {
		_, err := Run(context.Background(), o)
		return err
	}
	if err := run(RunOptions{Spec: spec, In: first, Out: at("f"), StateOut: at("s1")}); err != nil {
		t.Fatal(err)
	}
	if err := run(RunOptions{Spec: spec, In: second, StateIn: at("s1"), StateOut: at("s2")}); err != nil {
		t.Fatal(err)
	}
	before := madeBy(t, at("f"), at("s1"))
	kept, err := Parse("kept.yaml", bytes.Replace(spec.YAML(), []byte(", store_id"), nil, 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		o    RunOptions
		want string
	}{
		{"a state that is ahead", RunOptions{In: third, StateIn: at("s2")}, "is not the one that followed the last row of"},
		{"a range", RunOptions{In: second, StateIn: at("s1"), Range: datasets.Range{From: 0, To: math.MaxInt64}}, "--range"},
		{"resume", RunOptions{In: second, StateIn: at("s1"), Resume: true}, "have no checkpoint"},
		{"other columns", RunOptions{Spec: kept, In: second, StateIn: at("s1")}, "it has the columns"},
		{"nothing to append to", RunOptions{In: second, StateIn: at("s1"), Out: at("g")}, "no such file"},
		{"transactions", RunOptions{In: second, StateIn: at("s1"), Out: first.Dir()}, "onmart features did not make"},
	} {
		c.o.Append, c.o.Force = true, true
		if c.o.Spec == nil {
			c.o.Spec = spec
		}
		if c.o.Out == "" {
			c.o.Out = at("f")
		}
		if err := run(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	before.same(t, "after refusals", madeBy(t, at("f"), at("s1")))
	if err := run(RunOptions{Spec: spec, In: second, Out: at("f"), Append: true, StateIn: at("s1")}); err != nil {
		t.Fatal(err)
	}
	err = run(RunOptions{Spec: spec, In: second, Out: at("f"), Append: true, StateIn: at("s1")})
	if err == nil || !strings.Contains(err.Error(), "has the rows of") {
		t.Errorf("twice: %v", err)
	}
	if err := run(RunOptions{Spec: spec, In: third, Out: at("f"), Append: true, StateIn: at("s2"),
		StateOut: at("s3")}); err != nil {
		t.Error(err)
	}
}

// A log whose label events may be of rows that are there already is not appended.
func TestAppendRefusesLabelsOfOldRows(t *testing.T) {
	schema := logSchema(false, false)
	spec := fraudSpec(t)
	dir := t.TempDir()
	first := store(t, datasets.KindLog, toBatch(schema, []fact{{id: 1, t: 100 * hour, store: 1, user: 1, amount: 10000,
		y: -1}}), nil)
	next := store(t, datasets.KindLog, toBatch(schema, []fact{
		{isLabel: true, id: 1, line: -1, t: 102 * hour, y: 1, user: -1, store: -1},
		{id: 2, t: 103 * hour, store: 1, user: 1, amount: 10000, y: -1},
	}), nil)
	f, s := filepath.Join(dir, "f"), filepath.Join(dir, "s")
	if _, err := Run(context.Background(), RunOptions{Spec: spec, In: first, Out: f, StateOut: s}); err != nil {
		t.Fatal(err)
	}
	_, err := Run(context.Background(), RunOptions{Spec: spec, In: next, Out: f, Append: true, StateIn: s})
	if err == nil || !strings.Contains(err.Error(), "is a log with labels") {
		t.Errorf("%v", err)
	}
	// Its own rows can be computed, and the state goes on.
	if _, err := Run(context.Background(), RunOptions{Spec: spec, In: next, Out: f + "2", StateIn: s,
		StateOut: s + "2"}); err != nil {
		t.Error(err)
	}
}

// Rows that were joined with one table are not followed by rows that are joined with another.
func TestAppendAfterATableChanged(t *testing.T) {
	zips := func(zip string) map[string][]byte {
		b := datasets.NewBatch(&datasets.Schema{Fields: []datasets.Field{
			{Name: datasets.UserID, Type: datasets.Int64}, {Name: "zip", Type: datasets.String}}}, 300)
		for i := range int64(300) {
			b.Columns[0].Ints = append(b.Columns[0].Ints, i)
			b.Columns[1].Strings = append(b.Columns[1].Strings, zip)
		}
		b.N = 300
		var file bytes.Buffer
		if err := datasets.WriteTable(&file, b); err != nil {
			t.Fatal(err)
		}
		return map[string][]byte{"users.parquet": file.Bytes()}
	}
	spec, err := Parse("zips.yaml", []byte("name: zips\njoin:\n  - {table: users, on: user_id, take: zip}\n"+
		"keep: [trans_id, trans_datetime]\nfeatures:\n  - {name: n, kind: count, key: zip, windows: [7d]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	all := monthStream(2_000)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	run := func(rows *datasets.Batch, tables map[string][]byte, o RunOptions) error {
		o.Spec, o.In = spec, store(t, datasets.KindTransactions, rows, tables)
		_, err := Run(context.Background(), o)
		return err
	}
	first, later := all.Slice(0, 1_000), all.Slice(1_000, 2_000)
	if err := run(first, zips("a"), RunOptions{Out: at("f"), StateOut: at("s1")}); err != nil {
		t.Fatal(err)
	}
	err = run(later, zips("b"), RunOptions{Out: at("f"), Append: true, StateIn: at("s1"), StateOut: at("s2")})
	if err == nil || !strings.Contains(err.Error(), "the tables that the spec joins have changed") {
		t.Errorf("another table: %v", err)
	}
	if err := run(later, zips("a"), RunOptions{Out: at("f"), Append: true, StateIn: at("s1"), StateOut: at("s2")}); err != nil {
		t.Errorf("the same table: %v", err)
	}
}

// An engine that keeps no events cannot find duplicates, and says so.
func TestNoDuplicatesWithoutEvents(t *testing.T) {
	in := cardStream(10)
	e := handbookPlan(t, in.Schema).NewEngine(1)
	e.withoutState()
	e.DetectDuplicates = true
	if err := e.Process(in, &Rows{}); err == nil || !strings.Contains(err.Error(), "keeps no events") {
		t.Error(err)
	}
}
