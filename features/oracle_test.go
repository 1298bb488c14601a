package features

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

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
	fmt.Fprintf(&b, "name: random\nlabel: {column: is_fraud, delay: %dh, accept_for: %dh}\nlateness: %dh\nkeep: [trans_id, is_fraud]\nfeatures:\n",
		s.delay/hour, s.accept/hour, s.lateness/hour)
	for i, f := range s.feats {
		fmt.Fprintf(&b, "  - {name: f%d, kind: %s, key: %s, windows: [%dh]", i, f.kind, map[bool]string{true: "user_id", false: "store_id"}[f.user], f.window/hour)
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

func (s oracleSpec) horizon() int64 {
	var h int64
	for _, f := range s.feats {
		h = max(h, f.window)
	}
	return h + s.lateness
}

func (s oracleSpec) retain() int64 {
	r := s.delay + s.accept
	for _, f := range s.feats {
		r = max(r, f.shift)
	}
	return r
}

// oracle computes every feature of every accepted transaction from the whole log before it, straight from
// the package's documentation. It returns the rows and the statuses of transactions.
func oracle(s oracleSpec, log []fact, duplicates bool) (rows [][]float64, status []Status) {
	watermark := int64(math.MinInt64)
	accepted := make([]bool, len(log))
	for i, e := range log {
		if e.isLabel {
			status = append(status, LabelApplied) // not compared
			continue
		}
		if duplicates && watermark != math.MinInt64 && slices.ContainsFunc(indices(i), func(j int) bool {
			o := log[j]
			return accepted[j] && o.id == e.id && o.line == e.line && o.t+s.retain() > watermark-s.horizon()
		}) {
			status = append(status, Duplicate)
			continue
		}
		accepted[i] = true
		st := Scored
		if watermark != math.MinInt64 && e.t < watermark-s.lateness {
			st = Late
		}
		status = append(status, st)
		watermark = max(watermark, e.t)
		var row []float64
		for _, f := range s.feats {
			n, sum := int64(0), new(big.Int)
			for j, o := range log[:i] {
				if !accepted[j] {
					continue
				}
				if f.user && (o.user < 0 || o.user != e.user) || !f.user && (o.store < 0 || o.store != e.store) {
					continue
				}
				k, v, ok := o.t+f.shift, o.amount, true
				if f.kind == Risk {
					k, v, ok = s.labelAt(o, log[:i], e.t)
				}
				if ok && k > e.t-f.window && k <= e.t && k > watermark-s.horizon() {
					n++
					sum.Add(sum, big.NewInt(v))
				}
			}
			if f.current {
				n++
				sum.Add(sum, big.NewInt(e.amount))
			}
			row = append(row, f.result(n, sum))
		}
		rows = append(rows, row)
	}
	return rows, status
}

func indices(n int) []int {
	l := make([]int, n)
	for i := range l {
		l[i] = i
	}
	return l
}

// labelAt is the label of transaction o that counts at t, and since when.
func (s oracleSpec) labelAt(o fact, before []fact, t int64) (k, y int64, ok bool) {
	var best *fact
	consider := func(l fact) {
		if l.t <= t && (best == nil || l.t > best.t || l.t == best.t && (l.part > best.part || l.part == best.part && l.seq > best.seq)) {
			best = &l
		}
	}
	if o.y >= 0 {
		l := o
		l.t += s.delay
		consider(l)
	}
	for _, l := range before {
		if l.isLabel && l.id == o.id && (l.line < 0 || l.line == o.line) && l.t >= o.t-s.accept && l.t <= o.t+s.delay+s.accept {
			consider(l)
		}
	}
	if best != nil {
		return best.t, best.y, true
	}
	return o.t + s.delay, 0, o.t+s.delay <= t
}

func (f oracleFeature) result(n int64, sum *big.Int) float64 {
	x, _ := new(big.Float).SetInt(sum).Float64()
	switch {
	case f.kind == Count:
		return float64(n)
	case f.kind == Sum:
		return x / 1e4
	case n == 0:
		return 0
	case f.kind == Risk:
		return x / float64(n)
	}
	return x / (float64(n) * 1e4)
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
		f := fact{t: now * hour, id: int64(rapid.IntRange(0, 25).Draw(t, "id")), line: int64(rapid.IntRange(0, 1).Draw(t, "line")), part: int64(part), seq: seqs[part]}
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
		s.Fields = append(s.Fields, datasets.Field{Name: datasets.Seq, Type: datasets.Int64}, datasets.Field{Name: Partition, Type: datasets.Int64})
	}
	return s
}

func toBatch(s *datasets.Schema, log []fact) *datasets.Batch {
	b := datasets.NewBatch(s, len(log))
	b.N = len(log)
	put := func(name string, v int64, null bool) {
		i := s.Index(name)
		if i < 0 {
			return
		}
		c := &b.Columns[i]
		if null {
			v = 0
		}
		if s.Fields[i].Type == datasets.String {
			text := ""
			if !null {
				text = fmt.Sprintf("k%d", v)
			}
			c.Strings = append(c.Strings, text)
		} else {
			c.Ints = append(c.Ints, v)
		}
		if s.Fields[i].Nullable {
			c.Null = append(c.Null, null)
		}
	}
	for _, f := range log {
		ev := datasets.EventTransaction
		if f.isLabel {
			ev = datasets.EventLabel
		}
		if c := b.Column(datasets.Event); c != nil {
			c.Strings = append(c.Strings, ev)
		}
		put(datasets.TransID, f.id, false)
		put(datasets.Line, f.line, f.line < 0)
		put(datasets.TransDatetime, f.t, f.isLabel)
		put(datasets.UserID, f.user, f.user < 0)
		put(datasets.StoreID, f.store, f.store < 0)
		put(datasets.Amount, f.amount, f.isLabel)
		put(datasets.IsFraud, f.y, f.y < 0)
		put(datasets.KnownAt, f.t, !f.isLabel)
		put(datasets.Seq, f.seq, false)
		put(Partition, f.part, false)
	}
	return b
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
func feed(t rapid.TB, p *Plan, b *datasets.Batch, sizes []int, threads int, restart, duplicates bool) ([][]float64, []Status, *Engine) {
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

func TestEngineAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSpec(t)
		duplicates := rapid.Bool().Draw(t, "duplicates")
		log := drawLog(t, 2, rapid.IntRange(0, 4).Draw(t, "hugelog") == 0)
		if !duplicates {
			log = once(log)
		}
		schema := logSchema(rapid.Bool().Draw(t, "text"), true)
		p := mustPlan(t, s.yaml(), schema)
		b := toBatch(schema, log)
		want, wantStatus := oracle(s, log, duplicates)
		var first []byte
		for _, c := range []struct {
			sizes   []int
			threads int
			restart bool
		}{
			{[]int{1}, 1, false},
			{[]int{7}, 2, false},
			{[]int{1024}, 1, false},
			{[]int{1024}, 8, false},
			{[]int{rapid.IntRange(1, 60).Draw(t, "cut"), 1024}, 1, true},
			{[]int{3}, 1, true},
		} {
			what := fmt.Sprintf("batches %v, threads %d, restart %v", c.sizes, c.threads, c.restart)
			rows, status, e := feed(t, p, b, c.sizes, c.threads, c.restart, duplicates)
			for i := range log {
				if !log[i].isLabel && status[i] != wantStatus[i] {
					t.Fatalf("%s: event %d is %s, want %s", what, i, status[i], wantStatus[i])
				}
			}
			sameRows(t, what, want, rows)
			if snap := snapshot(t, e); first == nil {
				first = snap
			} else if !bytes.Equal(first, snap) {
				t.Fatalf("%s: another snapshot than batches of 1 on one thread", what)
			}
		}
	})
}
