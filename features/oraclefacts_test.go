package features

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/onmart/onmart/datasets"
	"pgregory.net/rapid"
)

// fact is an event as the oracle sees it.
type fact struct {
	isLabel     bool
	id, line    int64 // line -1: a label for every line
	t           int64 // event time, or known-at
	user, store int64 // -1: null
	amount      int64
	y           int64 // -1: no label
	part, seq   int64

	// Columns that only random cases of the oracle have.
	product, channel int64 // -1: null
	quantity         int64
	price            float64
	long, lat        float64
	review           string
	lacks            string // names of columns that have no value
}

// oracleSpec is a spec in plain fields, so that the oracle does not read what the engine reads.
type oracleSpec struct {
	delay, accept, lateness int64
	feats                   []oracleFeature
}

type oracleFeature struct {
	kind    Kind
	user    bool // key: user, else store
	window  int64
	shift   int64
	current bool
}

const hour = datasets.Hour

func (s oracleSpec) yaml() string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: random\nlabel: {column: is_fraud, delay: %dh, accept_for: %dh}\nlateness: %dh\n"+
		"keep: [trans_id, is_fraud]\nfeatures:\n",
		s.delay/hour, s.accept/hour, s.lateness/hour)
	for i, f := range s.feats {
		fmt.Fprintf(&b, "  - {name: f%d, kind: %s, key: %s, windows: [%dh]", i, f.kind,
			map[bool]string{true: "user_id", false: "store_id"}[f.user], f.window/hour)
		if f.kind == Sum || f.kind == Mean {
			b.WriteString(", of: amount")
		}
		if f.shift > 0 {
			fmt.Fprintf(&b, ", shift: %dh", f.shift/hour)
		}
		if f.current {
			b.WriteString(", include_current: true")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// oracle computes every feature of every transaction that is folded by the naive definition; statuses of all rows.
func oracle(s oracleSpec, log []fact, duplicates bool) (rows [][]float64, status []Status) {
	schema := logSchema(false, true)
	spec, err := Parse("test.yaml", []byte(s.yaml()))
	if err != nil {
		panic(err)
	}
	n, err := NewNaive(spec, schema)
	if err != nil {
		panic(err)
	}
	n.DetectDuplicates = duplicates
	if err := n.Log(toBatch(schema, log)); err != nil {
		panic(err)
	}
	return allRows(n)
}

// allRows computes the rows of a log, and says what became of each of its events.
func allRows(n *Naive) (rows [][]float64, status []Status) {
	for i := range n.Rows() {
		row, s := n.Row(i)
		if status = append(status, s); row != nil {
			rows = append(rows, row)
		}
	}
	return rows, status
}

func drawSpec(t *rapid.T) oracleSpec {
	h := func(name string, min, max int) int64 { return int64(rapid.IntRange(min, max).Draw(t, name)) * hour }
	s := oracleSpec{delay: h("delay", 0, 5), accept: h("accept", 0, 6), lateness: h("lateness", 0, 4)}
	for range rapid.IntRange(1, 6).Draw(t, "features") {
		f := oracleFeature{
			kind: rapid.SampledFrom([]Kind{Count, Sum, Mean, Risk, Risk}).Draw(t, "kind"), user: rapid.Bool().Draw(t, "user"),
			window: h("window", 1, 8),
		}
		if f.kind != Risk {
			f.shift = h("shift", 0, 3)
			f.current = f.shift == 0 && rapid.Bool().Draw(t, "current")
		}
		s.feats = append(s.feats, f)
	}
	return s
}

// drawLog makes a log whose times mostly rise, in whole hours, so that ties and window edges are common.
func drawLog(t *rapid.T, partitions int, huge bool) []fact {
	var log []fact
	now := int64(100)
	seqs := make([]int64, partitions)
	for range rapid.IntRange(1, 60).Draw(t, "events") {
		now += int64(rapid.SampledFrom([]int{0, 0, 1, 1, 2, 7, -1, -3, -9, -20}).Draw(t, "step"))
		part := rapid.IntRange(0, partitions-1).Draw(t, "part")
		f := fact{t: now * hour, id: int64(rapid.IntRange(0, 25).Draw(t, "id")),
			line: int64(rapid.IntRange(0, 1).Draw(t, "line")), part: int64(part), seq: seqs[part]}
		seqs[part]++
		if rapid.IntRange(0, 2).Draw(t, "label") == 0 {
			f.isLabel = true
			f.t += int64(rapid.IntRange(-6, 9).Draw(t, "known")) * hour
			f.line = int64(rapid.IntRange(-1, 1).Draw(t, "labelline"))
			f.y = int64(rapid.IntRange(0, 1).Draw(t, "y"))
			f.user, f.store = -1, -1
		} else {
			f.user = int64(rapid.IntRange(-1, 2).Draw(t, "user"))
			f.store = int64(rapid.IntRange(-1, 2).Draw(t, "store"))
			f.amount = int64(rapid.IntRange(-50000, 990000).Draw(t, "amount"))
			if huge && rapid.Bool().Draw(t, "huge") {
				f.amount = rapid.Int64Range(math.MinInt64, math.MaxInt64).Draw(t, "hugeamount")
			}
			f.y = int64(rapid.IntRange(-1, 1).Draw(t, "y"))
		}
		log = append(log, f)
	}
	return log
}

// once makes (id, line) of transactions unique, as in a log that was recorded.
func once(log []fact) []fact {
	seen := map[[2]int64]bool{}
	return slices.DeleteFunc(slices.Clone(log), func(f fact) bool {
		k := [2]int64{f.id, f.line}
		if f.isLabel {
			return false
		}
		defer func() { seen[k] = true }()
		return seen[k]
	})
}

// logSchema has positions of its own and text keys where asked.
func logSchema(text, positions bool) *datasets.Schema {
	id, key := datasets.Int64, datasets.Int64
	if text {
		id, key = datasets.String, datasets.String
	}
	s := &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.Event, Type: datasets.String},
		{Name: datasets.TransID, Type: id},
		{Name: datasets.Line, Type: datasets.Int64, Nullable: true},
		{Name: datasets.TransDatetime, Type: datasets.Time, Nullable: true},
		{Name: datasets.UserID, Type: key, Nullable: true},
		{Name: datasets.StoreID, Type: key, Nullable: true},
		{Name: datasets.Amount, Type: datasets.Decimal, Scale: 4, Nullable: true},
		{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true},
		{Name: datasets.KnownAt, Type: datasets.Time, Nullable: true},
	}}
	if positions {
		s.Fields = append(s.Fields, datasets.Field{Name: datasets.Seq, Type: datasets.Int64},
			datasets.Field{Name: Partition, Type: datasets.Int64})
	}
	return s
}

func toBatch(s *datasets.Schema, log []fact) *datasets.Batch {
	b := datasets.NewBatch(s, len(log))
	b.N = len(log)
	for i := range log {
		f := &log[i]
		event := datasets.EventTransaction
		if f.isLabel {
			event = datasets.EventLabel
		}
		for c := range s.Fields {
			put := func(v any, null bool) { putCell(&s.Fields[c], &b.Columns[c], v, null) }
			switch name := s.Fields[c].Name; name {
			case datasets.Event:
				put(event, false)
			case datasets.TransID:
				put(f.id, false)
			case datasets.Line:
				put(f.line, f.line < 0)
			case datasets.TransDatetime:
				put(f.t, f.isLabel)
			case datasets.UserID:
				put(f.user, f.user < 0)
			case datasets.StoreID:
				put(f.store, f.store < 0)
			case datasets.ProductID:
				put(f.product, f.isLabel || f.product < 0)
			case datasets.Channel:
				put(f.channel, f.isLabel || f.channel < 0)
			case datasets.IsFraud:
				put(f.y, f.y < 0)
			case datasets.KnownAt:
				put(f.t, !f.isLabel)
			case datasets.Seq:
				put(f.seq, false)
			case Partition:
				put(f.part, false)
			default:
				put(map[string]any{datasets.Amount: f.amount, datasets.Quantity: f.quantity, datasets.UnitPrice: f.price,
					datasets.TransLong: f.long, datasets.TransLat: f.lat, datasets.Review: f.review}[name],
					f.isLabel || strings.Contains(f.lacks, name))
			}
		}
	}
	return b
}

// putCell appends a value; a number becomes text where the column is of text.
func putCell(f *datasets.Field, c *datasets.Column, v any, null bool) {
	switch n, whole := v.(int64); {
	case f.Type == datasets.String && null:
		c.Strings = append(c.Strings, "")
	case f.Type == datasets.String && whole:
		c.Strings = append(c.Strings, fmt.Sprintf("k%d", n))
	case f.Type == datasets.String:
		c.Strings = append(c.Strings, v.(string))
	case f.Type == datasets.Float64 && null:
		c.Floats = append(c.Floats, 0)
	case f.Type == datasets.Float64:
		c.Floats = append(c.Floats, v.(float64))
	case null:
		c.Ints = append(c.Ints, 0)
	default:
		c.Ints = append(c.Ints, n)
	}
	if f.Nullable {
		c.Null = append(c.Null, null)
	}
}

func mustPlan(t rapid.TB, yaml string, s *datasets.Schema) *Plan {
	t.Helper()
	spec, err := Parse("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	p, err := spec.Plan(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// feed runs a log through an engine in batches of the given sizes (the last one repeats), restarting from a
// snapshot before each batch if asked, and returns rows, statuses and the engine.
func feed(t rapid.TB, p *Plan, b *datasets.Batch, sizes []int, threads int, restart, duplicates bool) ([][]float64,
	[]Status, *Engine) {
	t.Helper()
	start := func() *Engine {
		e := p.NewEngine(threads)
		e.DetectDuplicates = duplicates
		e.parallel = 1
		return e
	}
	e := start()
	var rows [][]float64
	var status []Status
	var out Rows
	for at, i := 0, 0; at < b.N; i++ {
		n := min(sizes[min(i, len(sizes)-1)], b.N-at)
		if err := e.Process(b.Slice(at, at+n), &out); err != nil {
			t.Fatal(err)
		}
		at += n
		for r := range out.N {
			var row []float64
			for _, v := range out.Values {
				row = append(row, v[r])
			}
			rows = append(rows, row)
		}
		status = append(status, out.Status...)
		if restart {
			snap := snapshot(t, e)
			e = start()
			if err := e.Restore(bytes.NewReader(snap)); err != nil {
				t.Fatal(err)
			}
			if again := snapshot(t, e); !bytes.Equal(snap, again) {
				t.Fatalf("a restored state is written down differently: %d and %d bytes", len(snap), len(again))
			}
		}
	}
	return rows, status, e
}

func snapshot(t rapid.TB, e *Engine) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := e.Snapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sameRows(t rapid.TB, what string, want, got [][]float64) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for i := range want {
		for f := range want[i] {
			if math.Float64bits(want[i][f]) != math.Float64bits(got[i][f]) {
				t.Fatalf("%s: row %d, feature f%d: %v, want %v", what, i, f, got[i][f], want[i][f])
			}
		}
	}
}
