package features

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
)

// outputSchema is of features: a purchase with lines, a kept column of each type, and two features.
var outputSchema = &datasets.Schema{Fields: []datasets.Field{
	{Name: datasets.TransID, Type: datasets.Int64},
	{Name: datasets.Line, Type: datasets.Int64},
	{Name: datasets.TransDatetime, Type: datasets.Time},
	{Name: "amount", Type: datasets.Decimal, Scale: 4},
	{Name: "is_fraud", Type: datasets.Int64, Nullable: true},
	{Name: "channel", Type: datasets.String},
	{Name: "x", Type: datasets.Float64},
	{Name: "y", Type: datasets.Float64},
}}

// outputRows makes n rows a minute apart, two lines a purchase.
func outputRows(n int) *datasets.Batch {
	b := datasets.NewBatch(outputSchema, n)
	for i := range n {
		c := b.Columns
		c[0].Ints = append(c[0].Ints, int64(i/2))
		c[1].Ints = append(c[1].Ints, int64(i%2))
		c[2].Ints = append(c[2].Ints, int64(i/4)*datasets.Minute)
		c[3].Ints = append(c[3].Ints, int64(i)*1000)
		c[4].Ints, c[4].Null = append(c[4].Ints, int64(i%3/2)), append(c[4].Null, i%7 == 0)
		if c[4].Null[i] {
			c[4].Ints[i] = 0
		}
		c[5].Strings = append(c[5].Strings, fmt.Sprint("c", i%5))
		c[6].Floats = append(c[6].Floats, float64(i)/8)
		c[7].Floats = append(c[7].Floats, float64(i%4))
		b.N++
	}
	return b
}

func diffOf(t *testing.T, a, b *Source) *Difference {
	t.Helper()
	d, err := Diff(context.Background(), a, b, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// storedSource writes a batch as a data set and opens it.
func storedSource(t *testing.T, kind datasets.Kind, b *datasets.Batch) *Source {
	t.Helper()
	return SourceOf(store(t, kind, b, nil))
}

func columnOf(t *testing.T, d *Difference, name string) ColumnDiff {
	t.Helper()
	i := slices.IndexFunc(d.Columns, func(c ColumnDiff) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("column %s was not compared: %+v", name, d.Columns)
	}
	return d.Columns[i]
}

func TestDiffEqual(t *testing.T) {
	a := storedSource(t, datasets.KindFeatures, outputRows(1000))
	d := diffOf(t, a, storedSource(t, datasets.KindFeatures, outputRows(1000)))
	if !d.Equal || d.Compared != 1000 || len(d.Columns) != 6 || !slices.Equal(d.Identity, []string{"trans_id", "line"}) {
		t.Errorf("%+v", d)
	}
}

func TestDiffValues(t *testing.T) {
	a := storedSource(t, datasets.KindFeatures, outputRows(100))
	b := outputRows(100)
	b.Columns[6].Floats[40] = math.Nextafter(5, 6)
	b.Columns[6].Floats[50] += 2
	b.Columns[7].Floats[0] = math.Copysign(0, -1) // another zero is another value
	b.Columns[3].Ints[9] = -5
	b.Columns[4].Null[14], b.Columns[4].Ints[14] = false, 1
	b.Columns[5].Strings[99] = "other"
	d := diffOf(t, a, storedSource(t, datasets.KindFeatures, b))
	if d.Equal || d.Compared != 100 || d.RowsOnlyA+d.RowsOnlyB != 0 {
		t.Errorf("%+v", d)
	}
	x := columnOf(t, d, "x")
	if x.Differ != 2 || x.MaxAbs != 2 || x.MaxRel != 2/8.25 || x.Row != "trans_id 20, line "+
		"0" || x.A != "5" || x.B != "5.000000000000001" {
		t.Errorf("x: %+v", x)
	}
	if y := columnOf(t, d, "y"); y.Differ != 1 || y.MaxAbs != 0 || y.B != "-0" {
		t.Errorf("y: %+v", y)
	}
	if c := columnOf(t, d, "amount"); c.Differ != 1 || c.A != "0.9000" || c.B != "-0.0005" || math.Abs(c.MaxAbs-0.9005) > 1e-12 {
		t.Errorf("amount: %+v", c)
	}
	if c := columnOf(t, d, "is_fraud"); c.Differ != 1 || c.Nulls != 1 || c.A != "null" || c.B != "1" {
		t.Errorf("is_fraud: %+v", c)
	}
	if c := columnOf(t, d, "channel"); c.Differ != 1 || c.A != `"c4"` || c.B != `"other"` {
		t.Errorf("channel: %+v", c)
	}
}

func TestDiffColumnsAndTypes(t *testing.T) {
	a := storedSource(t, datasets.KindFeatures, outputRows(10))
	b := outputRows(10)
	b.Schema = &datasets.Schema{Fields: slices.Clone(b.Schema.Fields)}
	b.Schema.Fields[7].Name = "z"
	b.Schema.Fields[3].Scale = 2
	d := diffOf(t, a, storedSource(t, datasets.KindFeatures, b))
	if d.Equal || !slices.Equal(d.OnlyA, []string{"y"}) || !slices.Equal(d.OnlyB, []string{"z"}) ||
		!slices.Equal(d.Types, []string{"amount: decimal with 4 digits in A, decimal with 2 digits in B"}) {
		t.Errorf("%+v", d)
	}
	for _, c := range d.Columns {
		if c.Differ != 0 {
			t.Errorf("%+v", c)
		}
	}
}

func TestDiffRefusals(t *testing.T) {
	a := storedSource(t, datasets.KindFeatures, outputRows(10))
	if _, err := Diff(context.Background(), a, storedSource(t, datasets.KindTransactions, outputRows(10)), 1,
		nil); err == nil ||
		!strings.Contains(err.Error(), "want two of one kind") {
		t.Errorf("kinds: %v", err)
	}
	b := outputRows(10)
	b.Schema = &datasets.Schema{Fields: slices.Clone(b.Schema.Fields)}
	b.Schema.Fields[0].Type, b.Columns[0] = datasets.String, datasets.Column{Strings: b.Columns[5].Strings}
	if _, err := Diff(context.Background(), a, storedSource(t, datasets.KindFeatures, b), 1, nil); err == nil ||
		!strings.Contains(err.Error(), "trans_id that names a row is of type int64") {
		t.Errorf("identities: %v", err)
	}
}

// Two random subsequences of one log, with neighbours exchanged and values changed: what Diff says is what a map from
// identities says.
func TestDiffAgainstMaps(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		all := outputRows(rng.IntN(400) + 1)
		if seed%3 == 0 { // identities that repeat
			for i := range all.Columns[0].Ints {
				all.Columns[0].Ints[i] %= 20
			}
		}
		pickSome := func() (*datasets.Batch, []int32) {
			var rows []int32
			share := rng.Float64()
			from, to := 0, all.N
			if rng.IntN(3) == 0 {
				from = rng.IntN(all.N)
				to = from + rng.IntN(all.N-from)
			}
			for i := from; i < to; i++ {
				if rng.Float64() < share || seed%5 == 0 {
					rows = append(rows, int32(i))
				}
			}
			for i := 1; i < len(rows); i++ {
				// Of a repeated identity the order says which belong together: those stay in order.
				if rng.IntN(4) == 0 && all.Columns[0].Ints[rows[i]] != all.Columns[0].Ints[rows[i-1]] {
					rows[i], rows[i-1] = rows[i-1], rows[i]
				}
			}
			b := rowsAt(all, rows)
			b.Schema = all.Schema
			return b, rows
		}
		a, _ := pickSome()
		b, _ := pickSome()
		for i := range b.N {
			if rng.IntN(10) == 0 {
				b.Columns[6].Floats[i]++
			}
		}
		type id [2]int64
		wait := map[id][]int{}
		for i := range a.N {
			k := id{a.Columns[0].Ints[i], a.Columns[1].Ints[i]}
			wait[k] = append(wait[k], i)
		}
		var both, onlyB, differ int64
		for i := range b.N {
			k := id{b.Columns[0].Ints[i], b.Columns[1].Ints[i]}
			if len(wait[k]) == 0 {
				onlyB++
				continue
			}
			both++
			differ += int64(btoi(a.Columns[6].Floats[wait[k][0]] != b.Columns[6].Floats[i]))
			wait[k] = wait[k][1:]
		}
		d := diffOf(t, storedSource(t, datasets.KindFeatures, a), storedSource(t, datasets.KindFeatures, b))
		if d.Compared != both || d.RowsOnlyA != int64(a.N)-both || d.RowsOnlyB != onlyB || columnOf(t, d,
			"x").Differ != differ {
			t.Fatalf("seed %d: %d rows in both, %d and %d in one, %d differ; want %d, %d, %d, %d", seed, d.Compared,
				d.RowsOnlyA, d.RowsOnlyB, columnOf(t, d, "x").Differ, both, int64(a.N)-both, onlyB, differ)
		}
	}
}

// Rows that only one side has do not pile up in memory: of a year against its last month, a day's at the most wait.
func TestDiffHoldsADay(t *testing.T) {
	all := outputRows(200_000) // 34 days
	a := storedSource(t, datasets.KindFeatures, all)
	b := storedSource(t, datasets.KindFeatures, all.Slice(150_000, 200_000))
	var most int
	d := &differ{out: Difference{}}
	if err := d.columns(a, b); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for i, s := range []*Source{a, b} {
		d.sides[i] = diffSide{stream: s.stream(ctx, datasets.ReadOptions{Columns: d.names}), mark: math.MinInt64,
			pending: map[string]*pendingRow{}}
	}
	if err := d.run(ctx, func() { most = max(most, len(d.sides[0].pending), len(d.sides[1].pending)) }); err != nil {
		t.Fatal(err)
	}
	if d.out.Compared != 50_000 || d.out.RowsOnlyA != 150_000 || d.out.FirstOnlyA != "trans_id 0, line 0" {
		t.Errorf("%+v", d.out)
	}
	if day := 4 * 24 * 60; most > day+4 {
		t.Errorf("%d rows waited, a day has %d", most, day)
	}
}

// Features of a recorded run against those of another spec: what was defined anew is named.
func TestDiffRedefined(t *testing.T) {
	in := store(t, datasets.KindTransactions, cardStream(500), nil)
	spec := fraudSpec(t)
	later, err := spec.WithDelay(3 * datasets.Day)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := runTo(t, RunOptions{Spec: spec, In: in})
	b, _ := runTo(t, RunOptions{Spec: later, In: in})
	d := diffOf(t, SourceOf(open(t, a)), SourceOf(open(t, b)))
	if len(d.Redefined) != 6 || !strings.HasPrefix(d.Redefined[0], "TERMINAL_ID") {
		t.Errorf("redefined: %v", d.Redefined)
	}
}

func TestSourceFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.parquet")
	b := outputRows(70_000)
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(datasets.WriteTable(f, b), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSource(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := diffOf(t, s, s); !d.Equal || d.Compared != 70_000 {
		t.Errorf("%+v", d)
	}
	if _, err := OpenSource(path + "x"); err == nil {
		t.Error("a missing file was opened")
	}
}
