package features

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/atomicdir"
)

func fraudSpec(t testing.TB) *Spec {
	t.Helper()
	s, err := Builtin("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// store writes a batch as a data set.
func store(t testing.TB, kind datasets.Kind, b *datasets.Batch, side map[string][]byte) *datasets.Dataset {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	w, err := datasets.Create(dir, kind, b.Schema, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	for name, content := range side {
		f, err := w.SideFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return open(t, dir)
}

func open(t testing.TB, dir string) *datasets.Dataset {
	t.Helper()
	d, err := datasets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func runTo(t testing.TB, o RunOptions) (string, *datasets.Manifest) {
	t.Helper()
	o.Out = filepath.Join(t.TempDir(), "features")
	m, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return o.Out, m
}

// featureRows reads the features of a data set, and its labels (-1: null).
func featureRows(t testing.TB, dir string) (rows [][]float64, labels []int64) {
	t.Helper()
	if err := open(t, dir).Read(context.Background(), datasets.ReadOptions{}, func(b *datasets.Batch) error {
		for i := range b.N {
			var row []float64
			for c := range b.Columns {
				if b.Schema.Fields[c].Type == datasets.Float64 {
					row = append(row, b.Columns[c].Floats[i])
				}
			}
			rows = append(rows, row)
			if y := b.Column(datasets.IsFraud); y == nil || y.IsNull(i) {
				labels = append(labels, -1)
			} else {
				labels = append(labels, y.Ints[i])
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return rows, labels
}

// Backfill equals live: a data set read at once, and its events one by one with a restart from --state-out
// in the middle.
func TestBackfillEqualsLive(t *testing.T) {
	in := cardStream(30_000)
	for i := range in.Columns[1].Ints {
		in.Columns[1].Ints[i] += int64(i) * 100 * datasets.Second // 40 days
		in.Columns[2].Ints[i] %= 300
		in.Columns[3].Ints[i] %= 500
	}
	d := store(t, datasets.KindTransactions, in, nil)
	dir, m := runTo(t, RunOptions{Spec: fraudSpec(t), In: d, Threads: 2})
	want, _ := featureRows(t, dir)
	if m.Rows != int64(in.N) || m.Counts["scored"] != int64(in.N) || m.Counts["folded"] != int64(in.N) || m.Counts["row_labels"] != int64(in.N) {
		t.Errorf("rows %d, counts %v", m.Rows, m.Counts)
	}
	made, err := MadeFrom(open(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	p := handbookPlan(t, in.Schema)
	if made.Data != d.ID() || made.Fingerprint != p.Fingerprint() || len(made.Nodes) != 15 || made.Delay != "7d" || made.Spec != string(fraudSpec(t).YAML()) {
		t.Errorf("made from %+v", made)
	}

	cut := in.Columns[1].Ints[20_000]
	for cut == in.Columns[1].Ints[19_999] {
		cut++
	}
	first := datasets.Range{From: math.MinInt64, To: cut}
	state := filepath.Join(t.TempDir(), "state")
	before, _ := runTo(t, RunOptions{Spec: fraudSpec(t), In: d, Range: first, StateOut: state, Threads: 1})
	rows, _ := featureRows(t, before)
	sameRows(t, "the first part", want[:20_000], rows)
	after, _ := runTo(t, RunOptions{Spec: fraudSpec(t), In: d, Range: datasets.Range{From: cut, To: math.MaxInt64}, Threads: 1})
	rows, _ = featureRows(t, after)
	sameRows(t, "the second part", want[20_000:], rows)

	e := p.NewEngine(1)
	e.DetectDuplicates = true
	positions, err := LoadState(state, e)
	if err != nil {
		t.Fatal(err)
	}
	if positions["data:"+d.ID()] != 20_000 || e.Counts().Scored != 20_000 || e.Watermark() != in.Columns[1].Ints[19_999] {
		t.Errorf("positions %v, counts %+v, watermark %d", positions, e.Counts(), e.Watermark())
	}
	var out Rows
	rows = nil
	for i := 19_990; i < in.N; i++ { // the first ten are there already
		if err := e.Process(in.Slice(i, i+1), &out); err != nil {
			t.Fatal(err)
		}
		for r := range out.N {
			var row []float64
			for _, v := range out.Values {
				row = append(row, v[r])
			}
			rows = append(rows, row)
		}
	}
	sameRows(t, "one by one after a restart", want[20_000:], rows)
	if e.Counts().Duplicates != 10 {
		t.Errorf("%d duplicates", e.Counts().Duplicates)
	}
	whole, err := StateAt(context.Background(), fraudSpec(t), d, math.MaxInt64, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snapshot(t, whole), snapshot(t, e)) {
		t.Error("the state of backfill is not that of the live engine")
	}
}

// A log that was recorded from a state gives the features that were computed live, to the bit, and the same
// state; a transaction's label is the log's.
func TestRecordedLogEqualsLive(t *testing.T) {
	log := []fact{
		{id: 1, t: 100 * hour, store: 1, user: 1, amount: 10000, y: -1},
		{id: 2, t: 101 * hour, store: 1, user: 2, amount: 20000, y: -1},
		{isLabel: true, id: 1, line: -1, t: 102 * hour, y: 1, user: -1, store: -1},
		{id: 1, t: 100 * hour, store: 1, user: 1, amount: 10000, y: -1}, // delivered twice
		{id: 3, t: 99 * hour, store: 1, user: 1, amount: 5000, y: 0},
		{isLabel: true, id: 5, line: 0, t: 104 * hour, y: 0, user: -1, store: -1},
		{isLabel: true, id: 5, line: 0, t: 104 * hour, y: 1, user: -1, store: -1},
		{id: 5, t: 103 * hour, store: 1, user: 1, amount: 7000, y: -1},
		{id: 6, t: 300 * hour, store: 1, user: 1, amount: 7000, y: -1},
	}
	schema := logSchema(false, false)
	p := handbookPlan(t, schema)
	live := p.NewEngine(1)
	live.DetectDuplicates = true
	var out Rows
	if err := live.Process(toBatch(schema, log[:2]), &out); err != nil {
		t.Fatal(err)
	}
	start := snapshot(t, live)
	if err := live.Process(toBatch(schema, log[2:]), &out); err != nil {
		t.Fatal(err)
	}
	var want [][]float64
	for r := range out.N {
		var row []float64
		for _, v := range out.Values {
			row = append(row, v[r])
		}
		want = append(want, row)
	}
	recorded := append(append([]fact{}, log[2]), log[4:]...)
	for i := range recorded {
		recorded[i].seq = int64(i)
	}
	withSeq := &datasets.Schema{Fields: append([]datasets.Field{{Name: datasets.Seq, Type: datasets.Int64}}, schema.Fields...)}
	in := toBatch(withSeq, recorded)
	d := store(t, datasets.KindLog, in, map[string][]byte{StartStateFile: start})
	state := filepath.Join(t.TempDir(), "state")
	dir, _ := runTo(t, RunOptions{Spec: fraudSpec(t), In: d, StateOut: state})
	rows, labels := featureRows(t, dir)
	sameRows(t, "replay", want, rows)
	if want := []int64{0, 1, -1}; len(labels) != 3 || labels[0] != want[0] || labels[1] != want[1] || labels[2] != want[2] {
		t.Errorf("labels %v, want %v", labels, want)
	}
	again := p.NewEngine(1)
	if _, err := LoadState(state, again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snapshot(t, live), snapshot(t, again)) {
		t.Error("the state after the replay is not the live one")
	}

	in.Columns[0].Ints[3], in.Columns[0].Ints[4] = 4, 3
	d = store(t, datasets.KindLog, in, nil)
	if _, err := Run(context.Background(), RunOptions{Spec: fraudSpec(t), In: d, Out: filepath.Join(t.TempDir(), "f")}); err == nil || !strings.Contains(err.Error(), "goes from 4 to 3") {
		t.Errorf("a log out of order: %v", err)
	}
}

func TestRunRefusals(t *testing.T) {
	d := store(t, datasets.KindTransactions, cardStream(100), nil)
	spec := fraudSpec(t)
	ctx := context.Background()
	made, _ := runTo(t, RunOptions{Spec: spec, In: d})
	other, err := Parse("other.yaml", []byte("name: other\nfeatures: [{name: q, kind: value, of: quantity}]"))
	if err != nil {
		t.Fatal(err)
	}
	stopped, stop := context.WithCancel(ctx)
	stop()
	for _, c := range []struct {
		name string
		ctx  context.Context
		o    RunOptions
		want string
	}{
		{"output is there", ctx, RunOptions{Spec: spec, In: d, Out: made}, "exists already"},
		{"state is there", ctx, RunOptions{Spec: spec, In: d, Out: made + "2", StateOut: made}, "exists already"},
		{"output is the input", ctx, RunOptions{Spec: spec, In: d, Out: d.Dir(), Force: true}, "is the input"},
		{"both to one directory", ctx, RunOptions{Spec: spec, In: d, Out: made + "2", StateOut: made + "2"}, "name two directories"},
		{"features of features", ctx, RunOptions{Spec: spec, In: open(t, made), Out: made + "2"}, "holds features"},
		{"missing column", ctx, RunOptions{Spec: other, In: d, Out: made + "2"}, `no column quantity`},
		{"place of a missing column", ctx, RunOptions{Spec: other, In: d, Out: made + "2"}, "other.yaml:2:39: "},
		{"range before the data", ctx, RunOptions{Spec: spec, In: d, Out: made + "2", Range: datasets.Range{From: 0, To: datasets.Day}}, "no transactions in 1970-01-01..1970-01-01: "},
		{"range behind the data", ctx, RunOptions{Spec: spec, In: d, Out: made + "2", Range: datasets.Range{From: 99 * 366 * datasets.Day, To: math.MaxInt64}}, "reaches from "},
		{"interrupted", stopped, RunOptions{Spec: spec, In: d, Out: made + "2"}, "context canceled"},
	} {
		_, err := Run(c.ctx, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if _, err := os.Stat(made + "2"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something was left behind", c.name)
		}
	}
	if _, err := Run(ctx, RunOptions{Spec: spec, In: d, Out: made, Force: true}); err != nil {
		t.Error(err)
	}
	if _, err := MadeFrom(d); err == nil || !strings.Contains(err.Error(), "holds transactions") {
		t.Errorf("transactions as features: %v", err)
	}
}

func TestStateRefusals(t *testing.T) {
	in := cardStream(50)
	e := handbookPlan(t, in.Schema).NewEngine(1)
	if err := e.Process(in, &Rows{}); err != nil {
		t.Fatal(err)
	}
	save := func() string {
		dir := filepath.Join(t.TempDir(), "state")
		if err := SaveState(dir, e, map[string]int64{"a": 7}, nil, false); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir := save()
	if err := SaveState(dir, e, nil, nil, false); !errors.Is(err, atomicdir.ErrExists) {
		t.Errorf("overwrite: %v", err)
	}
	spec3, err := fraudSpec(t).WithDelay(3 * datasets.Day)
	if err != nil {
		t.Fatal(err)
	}
	p3, err := spec3.Plan(in.Schema)
	if err != nil {
		t.Fatal(err)
	}
	same := handbookPlan(t, in.Schema)
	for _, c := range []struct {
		name   string
		plan   *Plan
		damage func(dir string) error
		want   string
	}{
		{"other delay", p3, nil, "another definition of TERMINAL_ID_NB_TX_1DAY_WINDOW, TERMINAL_ID_NB_TX_7DAY_WINDOW"},
		{"other features", mustPlan(t, "name: o\nfeatures: [{name: A, kind: value, of: amount}]", in.Schema), nil, "without A; with the unknown TX_AMOUNT"},
		{"no state", same, func(dir string) error { return os.Remove(filepath.Join(dir, atomicdir.ManifestName)) }, "has no manifest.json"},
		{"changed", same, func(dir string) error { return flip(filepath.Join(dir, stateFile), 100) }, "changed or damaged"},
		{"cut off", same, func(dir string) error { return os.Truncate(filepath.Join(dir, stateFile), 300) }, "changed or damaged"},
		{"missing", same, func(dir string) error { return os.Remove(filepath.Join(dir, stateFile)) }, "no such file"},
	} {
		dir := save()
		if c.damage != nil {
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
		}
		into := c.plan.NewEngine(1)
		if _, err := LoadState(dir, into); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if into.Watermark() != math.MinInt64 || into.Counts() != (Counts{}) {
			t.Errorf("%s: the engine was changed", c.name)
		}
	}
}

func flip(path string, at int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[at] ^= 4
	return os.WriteFile(path, b, 0o666)
}

// No cut and no changed byte of a snapshot is taken for a state, and none breaks the reader.
func TestDamagedSnapshots(t *testing.T) {
	schema := logSchema(true, true)
	log := []fact{{id: 1, t: hour, user: 1, store: -1, amount: 5, y: 1}, {isLabel: true, id: 1, line: -1, t: 2 * hour, y: 0}, {id: 2, t: 3 * hour, user: 2, store: 1, y: -1}}
	p := handbookPlan(t, schema)
	_, _, e := feed(t, p, toBatch(schema, log), []int{9}, 1, false, false)
	good := snapshot(t, e)
	for n := range good {
		if err := p.NewEngine(1).Restore(bytes.NewReader(good[:n])); err == nil {
			t.Fatalf("a snapshot cut to %d of %d bytes was taken", n, len(good))
		}
		bad := bytes.Clone(good)
		bad[n] ^= byte(1 << (n % 8))
		if err := p.NewEngine(1).Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("a snapshot with byte %d changed was taken", n)
		}
	}
}

func FuzzRestore(f *testing.F) {
	schema := logSchema(true, true)
	p := handbookPlan(f, schema)
	_, _, e := feed(f, p, toBatch(schema, []fact{{id: 1, t: hour, user: 1, amount: 5, y: 1}}), []int{9}, 1, false, false)
	f.Add(snapshot(f, e))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := p.NewEngine(1)
		if err := e.Restore(bytes.NewReader(b)); err != nil {
			return
		}
		again := snapshot(t, e)
		o := p.NewEngine(1)
		if err := o.Restore(bytes.NewReader(again)); err != nil || !bytes.Equal(again, snapshot(t, o)) {
			t.Fatalf("not stable: %v", err)
		}
	})
}
