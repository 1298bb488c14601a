package features

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/onmart/onmart/datasets"
)

// salesData writes sales, in the order of time, as a data set of transactions.
func salesData(t testing.TB, dir string, sales []sale) *datasets.Dataset {
	t.Helper()
	schema := &datasets.Schema{Fields: saleSchema.Fields[:8]}
	w, err := datasets.Create(dir, datasets.KindTransactions, schema, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	b := salesBatch(sales)
	if err := w.Write(&datasets.Batch{Schema: schema, N: b.N, Columns: b.Columns[:8]}); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// shopWeek is a few sales a day for nine days of March 2011.
func shopWeek() []sale {
	var sales []sale
	at := int64(1300752000) * datasets.Second // 2011-03-22T00:00:00Z
	for i := range 60 {
		sales = append(sales, sale{t: at + int64(i)*211*datasets.Minute, seq: int64(i), trans: fmt.Sprint(i / 2), product: fmt.Sprint("p", i%3), store: 1,
			user: int64(i%4) + 1, quantity: int64(i%5) + 1, price: int64(10000 + i)})
	}
	return sales
}

func readAll(t testing.TB, dir string, r datasets.Range) *datasets.Batch {
	t.Helper()
	d, err := datasets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := datasets.NewBatch(d.Schema(), 0)
	if err := d.Read(context.Background(), datasets.ReadOptions{Range: r}, func(b *datasets.Batch) error {
		for i := range b.Columns {
			c, from := &out.Columns[i], &b.Columns[i]
			c.Ints, c.Floats, c.Strings = append(c.Ints, from.Ints...), append(c.Floats, from.Floats...), append(c.Strings, from.Strings...)
			c.Null = append(c.Null, from.Null...)
		}
		out.N += b.N
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// Run writes what the engine gives: all of it, or the steps of a range, with the same bits.
func TestRunPanel(t *testing.T) {
	dir := t.TempDir()
	in := salesData(t, filepath.Join(dir, "in"), shopWeek())
	s, err := Parse("t.yaml", fmt.Appendf(nil, panelSpec, "Europe/London", "1d", "product_id", "day", "zero"))
	if err != nil {
		t.Fatal(err)
	}
	all := filepath.Join(dir, "all")
	m, err := Run(t.Context(), RunOptions{Spec: s, In: in, Out: all})
	if err != nil {
		t.Fatal(err)
	}
	made, err := MadeOf(m)
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != datasets.KindPanel || made.Shape != Panels || made.Panel.Series != 3 || made.Panel.Steps != 9 || m.Rows != 27 {
		t.Fatalf("%s of %d rows: %+v", m.Kind, m.Rows, made.Panel)
	}
	if made.Panel.Partial != "2011-03-30T00:00:00+01:00" && made.Panel.Partial != "2011-03-29T23:00:00Z" {
		t.Errorf("the last step is %q", made.Panel.Partial)
	}
	_, end := mustGrid(t, Day, "Europe/London").Step(in.Manifest().To)
	if made.Panel.Closed != end {
		t.Errorf("closed at %d; want %d", made.Panel.Closed, end)
	}
	want := panelRows(readAll(t, all, datasets.Range{}), 1)
	p, err := s.Plan(in.Schema())
	if err != nil {
		t.Fatal(err)
	}
	q, out := p.NewPanel(), datasets.NewBatch(p.Schema(), 0)
	schema := &datasets.Schema{Fields: saleSchema.Fields[:8]}
	b := salesBatch(shopWeek())
	if err := errors.Join(q.Process(&datasets.Batch{Schema: schema, N: b.N, Columns: b.Columns[:8]}, out), q.Advance(end, out)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(panelRows(out, 1), want); diff != "" {
		t.Error(diff)
	}
	// A range is of steps; what came before is in what is carried on.
	r, err := datasets.ParseRangeIn("2011-03-25..2011-03-27", s.Location())
	if err != nil {
		t.Fatal(err)
	}
	part, state := filepath.Join(dir, "part"), filepath.Join(dir, "state")
	m, err = Run(t.Context(), RunOptions{Spec: s, In: in, Out: part, Range: r, StateOut: state})
	if err != nil {
		t.Fatal(err)
	}
	if made, err = MadeOf(m); err != nil || made.Panel.Partial != "" || made.Panel.Closed != r.To {
		t.Errorf("%+v, %v", made.Panel, err)
	}
	if diff := cmp.Diff(want[9:18], panelRows(readAll(t, part, datasets.Range{}), 1)); diff != "" {
		t.Error(diff)
	}
	// A panel is read by range, and its steps are what the range is of.
	if diff := cmp.Diff(want[9:18], panelRows(readAll(t, all, r), 1)); diff != "" {
		t.Error(diff)
	}
	// The state at the end of the range goes on where the range ended.
	q = p.NewPanel()
	positions, err := LoadState(state, q)
	if err != nil {
		t.Fatal(err)
	}
	from := int(positions["data:"+in.ID()])
	out = datasets.NewBatch(p.Schema(), 0)
	rest := salesBatch(shopWeek()[from:])
	if err := errors.Join(q.Process(&datasets.Batch{Schema: schema, N: rest.N, Columns: rest.Columns[:8]}, out), q.Advance(end, out)); err != nil {
		t.Fatal(err)
	}
	got := panelRows(out, 1)
	if len(got) == 0 || len(got) > len(want) {
		t.Fatalf("%d rows after the state", len(got))
	}
	if diff := cmp.Diff(want[len(want)-len(got):], got); diff != "" {
		t.Error(diff)
	}
	var direct bytes.Buffer
	folded, err := StateOf(t.Context(), s, in, r.To, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := folded.Snapshot(&direct); err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(filepath.Join(state, stateFile))
	if err != nil || !bytes.Equal(saved, direct.Bytes()) {
		t.Errorf("StateOf and Run give different states, %v", err)
	}
}

func TestRunInteractions(t *testing.T) {
	dir := t.TempDir()
	sales := shopWeek()
	in := salesData(t, filepath.Join(dir, "in"), sales)
	s, err := Parse("t.yaml", []byte(interSpec("0s", "1h", returnsIgnore)))
	if err != nil {
		t.Fatal(err)
	}
	all := filepath.Join(dir, "all")
	m, err := Run(t.Context(), RunOptions{Spec: s, In: in, Out: all})
	if err != nil {
		t.Fatal(err)
	}
	made, err := MadeOf(m)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&MadeInteractions{User: "user_id", Item: "product_id", Weight: "quantity", Returns: "ignore"}, made.Interactions); diff != "" || m.Kind != datasets.KindInteractions {
		t.Error(diff, m.Kind)
	}
	b := readAll(t, all, datasets.Range{})
	if b.N != len(sales) {
		t.Fatalf("%d rows; want %d", b.N, len(sales))
	}
	from := sales[20].t
	m, err = Run(t.Context(), RunOptions{Spec: s, In: in, Out: filepath.Join(dir, "part"), Range: datasets.Range{From: from, To: math.MaxInt64}})
	if err != nil || m.Rows != int64(len(sales)-20) {
		t.Errorf("%d rows from the 20th on, %v", m.Rows, err)
	}
	if got := readAll(t, all, datasets.Range{From: from, To: math.MaxInt64}); got.N != len(sales)-20 {
		t.Errorf("%d rows read from the 20th on", got.N)
	}
}

// Tables that a spec joins lie beside the panel, and the future of the panel is found there.
func TestRunWithTables(t *testing.T) {
	dir := t.TempDir()
	in := salesData(t, filepath.Join(dir, "in"), []sale{{t: 5, product: "a", quantity: 1, store: 1}, {t: datasets.Day + 1, product: "b", quantity: 1, store: 1}})
	s, err := Parse("t.yaml", []byte(joinedSpec))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), RunOptions{Spec: s, In: in, Out: filepath.Join(dir, "out")}); err == nil || !strings.Contains(err.Error(), "calendar.parquet is missing") {
		t.Fatalf("without tables: %v", err)
	}
	shopTables(t, in.Dir())
	m, err := Run(t.Context(), RunOptions{Spec: s, In: in, Out: filepath.Join(dir, "out")})
	if err != nil {
		t.Fatal(err)
	}
	if m.Rows != 3 {
		t.Errorf("%d rows", m.Rows)
	}
	d, err := datasets.Open(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := FutureOf(d)
	if err != nil {
		t.Fatal(err)
	}
	made, err := MadeFrom(d)
	if err != nil {
		t.Fatal(err)
	}
	a, err := f.Series("a")
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float64, len(f.Columns()))
	next := f.Steps(made.Panel.Closed, 1)[0]
	if f.At(a, next, v); fmt.Sprint(next/datasets.Day, v) != "2 [1.5 0.1 0 1 5]" {
		t.Errorf("the next step of a: day %d, %v", next/datasets.Day, v)
	}
	// Another calendar is another panel, though its state is interchangeable.
	_, tables := tablesOf(t, in.Dir(), joinedSpec)
	before, _ := s.Plan(in.Schema(), tables)
	table(t, in.Dir(), "calendar", rowsOf([]datasets.Field{{Name: "date", Type: datasets.Time}, {Name: "holiday", Type: datasets.Int64}}, []any{0, 1}, []any{day, 0}))
	_, tables = tablesOf(t, in.Dir(), joinedSpec)
	after, err := s.Plan(in.Schema(), tables)
	if err != nil {
		t.Fatal(err)
	}
	if before.Fingerprint() == after.Fingerprint() {
		t.Error("plans on different tables have the same fingerprint")
	}
}

// A wrong kind of input, a wrong shape, and outputs that would be lost are refused before the work.
func TestRunShapeRefusals(t *testing.T) {
	dir := t.TempDir()
	in := salesData(t, filepath.Join(dir, "in"), shopWeek())
	s, err := Parse("t.yaml", fmt.Appendf(nil, panelSpec, "UTC", "1d", "product_id", "day", "zero"))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if _, err := Run(t.Context(), RunOptions{Spec: s, In: in, Out: out}); err != nil {
		t.Fatal(err)
	}
	panel, err := datasets.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    RunOptions
		want string
	}{
		{RunOptions{Spec: s, In: in, Out: out}, "give --force"},
		{RunOptions{Spec: s, In: in, Out: in.Dir(), Force: true}, "is the input"},
		{RunOptions{Spec: s, In: panel, Out: filepath.Join(dir, "x")}, "holds panel: features are computed of transactions"},
		{RunOptions{Spec: s, In: in, Out: filepath.Join(dir, "x"), Range: datasets.Range{From: 0, To: 5}}, "no transactions in"},
	} {
		if _, err := Run(t.Context(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v; want %s", err, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a refused run left something behind")
	}
	if _, err := StateAt(t.Context(), s, in, math.MaxInt64, 1, nil); err == nil || !strings.Contains(err.Error(), "want features of transactions") {
		t.Errorf("StateAt of a panel: %v", err)
	}
	handbook, _ := Builtin("fraud-handbook")
	if _, err := StateOf(t.Context(), handbook, in, math.MaxInt64, nil); err == nil {
		t.Error("StateOf of features of transactions")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, RunOptions{Spec: s, In: in, Out: filepath.Join(dir, "y")}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*y*")); len(left) > 0 {
		t.Errorf("a cancelled run left %v", left)
	}
}

// The daily demand of Online Retail, as counted by pandas (scripts of the peers): the days with demand, the units of
// it, the sales that were undone, and the interactions.
func TestOnlineRetail(t *testing.T) {
	const file = "../../shared/data/online-retail/transactions.csv.gz"
	if _, err := os.Stat(file); err != nil {
		t.Skip("the data of Online Retail is not here: ", err)
	}
	if testing.Short() {
		t.Skip("reads 432,000 rows")
	}
	dir := t.TempDir()
	mapping, err := datasets.Preset("online-retail")
	if err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(dir, "in")
	if _, err := datasets.Import(t.Context(), datasets.ImportOptions{Mapping: mapping, Files: []string{file}, Out: in, MaxRejects: 0}); err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string) (*datasets.Manifest, *datasets.Batch) {
		s, err := Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Run(t.Context(), RunOptions{Spec: s, In: d, Out: filepath.Join(dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		return m, readAll(t, filepath.Join(dir, name), datasets.Range{})
	}
	m, b := run("online-retail-daily")
	demand := b.Column(ColumnDemand).Floats
	days, units := 0, 0.0
	for _, v := range demand {
		if v > 0 {
			days++
		}
		units += v
	}
	if days != 229276 || units != 4424433 || m.Counts["undone"] != 493 {
		t.Errorf("%d days with demand, %.0f units, %d sales undone; want 229276, 4424433 and 493", days, units, m.Counts["undone"])
	}
	m, b = run("online-retail-baskets")
	users, items := map[int64]bool{}, map[string]bool{}
	for i := range b.N {
		users[b.Columns[0].Ints[i]], items[b.Columns[1].Strings[i]] = true, true
	}
	if m.Rows != 308059 || !slices.IsSorted(b.Columns[2].Ints) {
		t.Errorf("%d interactions; want 308059, by time", m.Rows)
	}
	t.Logf("%d users, %d items", len(users), len(items))
}
