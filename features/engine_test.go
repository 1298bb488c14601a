package features

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"pgregory.net/rapid"
)

// Any interleaving of partitions that keeps each one's order gives the same state, to the byte.
func TestInterleavedPartitionsGiveOneState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSpec(t)
		log := once(drawLog(t, 3, false))
		schema := logSchema(false, true)
		p := mustPlan(t, s.yaml(), schema)
		_, _, e := feed(t, p, toBatch(schema, log), []int{5}, 1, false, false)
		var parts [3][]fact
		for _, f := range log {
			parts[f.part] = append(parts[f.part], f)
		}
		var other []fact
		for len(other) < len(log) {
			k := rapid.IntRange(0, 2).Draw(t, "next")
			if len(parts[k]) > 0 {
				other, parts[k] = append(other, parts[k][0]), parts[k][1:]
			}
		}
		_, _, f := feed(t, p, toBatch(schema, other), []int{9}, 2, false, false)
		if !bytes.Equal(snapshot(t, e), snapshot(t, f)) {
			t.Fatalf("another order of the same events gives another state\n%v\n%v", log, other)
		}
	})
}

// All times moved by whole weeks, and keys by other names, give the same features, the calendar's too.
func TestShiftedTimesAndRenamedKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSpec(t)
		yaml := s.yaml() + "  - {name: night, kind: calendar, of: night}\n  - {name: weekend, kind: calendar, of: weekend}\n"
		log := once(drawLog(t, 1, false))
		weeks := int64(rapid.IntRange(-3000, 3000).Draw(t, "weeks"))
		moved := slices.Clone(log)
		for i := range moved {
			f := &moved[i]
			f.t += weeks * 7 * datasets.Day
			f.id = 1000 - f.id
			if f.user >= 0 {
				f.user = 77 - f.user
			}
			if f.store >= 0 {
				f.store = (f.store + 1) % 3
			}
		}
		ints, texts := logSchema(false, false), logSchema(true, false)
		a, _, _ := feed(t, mustPlan(t, yaml, ints), toBatch(ints, log), []int{8}, 1, false, false)
		b, _, _ := feed(t, mustPlan(t, yaml, texts), toBatch(texts, moved), []int{11}, 2, true, false)
		sameRows(t, "moved and renamed", a, b)
	})
}

// Fixed cases, one rule each. An event is "store hour amount" with labels as "label id hour y"; want has the
// values of the last transaction.
func TestEdges(t *testing.T) {
	const head = "name: e\nlabel: {column: is_fraud, delay: 168h, accept_for: 48h}\nlateness: 24h\nfeatures:\n"
	handbook := head + "  - {name: nb, kind: count, key: store_id, windows: [24h], shift: delay}\n  - {name: risk, kind: risk, key: store_id, windows: [24h]}\n"
	current := head + "  - {name: nb, kind: count, key: store_id, windows: [24h], include_current: true}\n  - {name: avg, kind: mean, of: amount, key: store_id, windows: [24h], include_current: true}\n"
	before := head + "  - {name: nb, kind: count, key: store_id, windows: [24h]}\n  - {name: sum, kind: sum, of: amount, key: store_id, windows: [24h]}\n"
	tx := func(id, hours, amount, y int64) fact {
		return fact{id: id, t: hours * hour, store: 1, user: 1, amount: amount * 10000, y: y}
	}
	label := func(id, hours, y int64) fact {
		return fact{isLabel: true, id: id, line: -1, t: hours * hour, y: y, user: -1, store: -1}
	}
	second := func(f fact, n int64) fact { f.t += n * datasets.Second; return f }
	for _, c := range []struct {
		name, spec string
		log        []fact
		want       []float64
	}{
		{"exactly 7 days ago is known", handbook, []fact{tx(1, 0, 1, 1), tx(2, 168, 1, 0)}, []float64{1, 1}},
		{"a second less is not", handbook, []fact{second(tx(1, 0, 1, 1), 1), tx(2, 168, 1, 0)}, []float64{0, 0}},
		{"exactly 8 days ago has left", handbook, []fact{tx(1, 0, 1, 1), tx(2, 192, 1, 0)}, []float64{0, 0}},
		{"a second less has not", handbook, []fact{second(tx(1, 0, 1, 1), 1), tx(2, 192, 1, 0)}, []float64{1, 1}},
		{"the current event counts", current, []fact{tx(1, 0, 4, 0), tx(2, 23, 2, 0)}, []float64{2, 3}},
		{"and is alone at the edge", current, []fact{tx(1, 0, 4, 0), tx(2, 24, 2, 0)}, []float64{1, 2}},
		{"of one instant the earlier in the log", before, []fact{tx(1, 5, 4, 0), tx(2, 5, 2, 0), tx(3, 5, 7, 0)}, []float64{2, 6}},
		{"an early label counts from its own time", handbook, []fact{tx(1, 0, 1, -1), label(1, 10, 1), tx(2, 33, 1, -1)}, []float64{0, 1}},
		{"and leaves a window after it", handbook, []fact{tx(1, 0, 1, -1), label(1, 10, 1), tx(2, 34, 1, -1)}, []float64{0, 0}},
		{"nor comes again when the delay is over", handbook, []fact{tx(1, 0, 1, -1), label(1, 10, 1), tx(2, 170, 1, -1)}, []float64{1, 0}},
		{"no label is negative", handbook, []fact{tx(1, 0, 1, -1), tx(2, 0, 1, 1), tx(3, 170, 1, -1)}, []float64{2, .5}},
		{"a late label replaces the negative", handbook, []fact{tx(1, 0, 1, -1), label(1, 180, 1), tx(2, 180, 1, -1)}, []float64{1, 1}},
		{"and stays for its own window", handbook, []fact{tx(1, 0, 1, -1), label(1, 180, 1), tx(2, 203, 1, -1)}, []float64{0, 1}},
		{"the negative counts before it", handbook, []fact{tx(1, 0, 1, -1), tx(9, 0, 1, 1), label(1, 180, 1), tx(2, 179, 1, -1)}, []float64{2, .5}},
		{"a label on the last instant is applied", handbook, []fact{tx(1, 0, 1, -1), label(1, 216, 1), tx(2, 216, 1, -1)}, []float64{0, 1}},
		{"a label after it is not", handbook, []fact{tx(1, 0, 1, -1), label(1, 217, 1), tx(2, 217, 1, -1)}, []float64{0, 0}},
		{"of two labels the later counts", handbook, []fact{tx(1, 0, 1, -1), label(1, 20, 1), label(1, 15, 0), tx(2, 21, 1, -1)}, []float64{0, 1}},
		{"of one instant the later in the log", handbook, []fact{tx(1, 0, 1, -1), label(1, 20, 1), label(1, 20, 0), tx(2, 21, 1, -1)}, []float64{0, 0}},
		{"a label waits for its transaction", handbook, []fact{label(1, 10, 1), tx(1, 0, 1, -1), tx(2, 12, 1, -1)}, []float64{0, 1}},
		{"one for every line finds lines that come later", handbook, []fact{
			tx(1, 0, 1, -1), label(1, 10, 1), {id: 1, line: 1, t: 0, store: 1, user: 1, y: -1}, tx(2, 12, 1, -1)}, []float64{0, 1}},
		// The first transaction comes so late that its negative is past the horizon; its label is not.
		{"a label of a key without entries", handbook, []fact{
			{id: 8, t: 300 * hour, store: 2, user: 1, y: -1}, tx(1, 84, 1, -1), label(1, 290, 1), tx(2, 300, 1, -1)}, []float64{0, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			schema := logSchema(false, false)
			for _, sizes := range [][]int{{1}, {100}} {
				rows, _, _ := feed(t, mustPlan(t, c.spec, schema), toBatch(schema, c.log), sizes, 1, sizes[0] == 1, false)
				sameRows(t, fmt.Sprint("batches of ", sizes), [][]float64{c.want}, rows[len(rows)-1:])
			}
		})
	}
}

func TestCalendarZones(t *testing.T) {
	schema := logSchema(false, false)
	for _, c := range []struct {
		zone, at       string
		night, weekend float64
	}{
		{"UTC", "2018-04-01T06:59:59Z", 1, 1}, // a Sunday
		{"UTC", "2018-04-02T07:00:00Z", 0, 0},
		{"UTC", "1969-12-27T23:59:59Z", 0, 1}, // a Saturday
		{"UTC", "1969-12-26T00:00:00Z", 1, 0},
		{"Asia/Tokyo", "2018-03-30T15:00:00Z", 1, 1}, // Saturday at midnight there
		{"America/New_York", "2018-04-02T03:59:59Z", 0, 1},
		{"America/New_York", "2018-12-03T04:59:59Z", 0, 1}, // winter time
		{"America/New_York", "2018-12-03T05:00:00Z", 1, 0},
	} {
		p := mustPlan(t, "name: c\ntimezone: "+c.zone+"\nfeatures:\n  - {name: night, kind: calendar, of: night}\n  - {name: weekend, kind: calendar, of: weekend}\n", schema)
		r, err := datasets.ParseRange(c.at + "..")
		if err != nil {
			t.Fatal(err)
		}
		rows, _, _ := feed(t, p, toBatch(schema, []fact{{t: r.From}}), []int{1}, 1, false, false)
		if rows[0][0] != c.night || rows[0][1] != c.weekend {
			t.Errorf("%s in %s: night %v, weekend %v; want %v, %v", c.at, c.zone, rows[0][0], rows[0][1], c.night, c.weekend)
		}
	}
}

func TestStatuses(t *testing.T) {
	const spec = "name: s\nlabel: {column: is_fraud, delay: 2h, accept_for: 3h}\nlateness: 1h\nfeatures:\n  - {name: n, kind: count, key: store_id, windows: [2h]}\n  - {name: v, kind: value, of: amount}\n"
	schema := logSchema(false, false)
	log := []fact{
		{id: 1, t: 10 * hour, y: -1},
		{id: 1, t: 10 * hour, y: -1},                         // the same again
		{id: 1, line: 1, t: 10 * hour, y: 0},                 // another line, with its label
		{isLabel: true, id: 1, line: -1, t: 11 * hour, y: 1}, // of both lines
		{isLabel: true, id: 7, line: -1, t: 12 * hour, y: 1}, // of nothing yet
		{isLabel: true, id: 1, line: 0, t: 16 * hour, y: 1},  // known after 10+2+3
		{id: 2, t: 8 * hour, y: -1},                          // two hours behind
		{id: 7, t: 12 * hour, y: -1},
		{id: 3, t: 12 * hour, y: 2}, // no such label
		{isLabel: true, id: 7, line: -1, t: 13 * hour, y: -1},
		{id: 4, line: -2, t: 12 * hour, y: 1},
		{id: 5, t: math.MaxInt64, y: 1},
		{isLabel: true, id: 9, line: -1, t: -3 * hour, y: 1}, // long before anything that could still matter
	}
	b := toBatch(schema, log)
	b.Columns[schema.Index(datasets.Line)].Ints[10], b.Columns[schema.Index(datasets.Line)].Null[10] = -2, false
	b.Columns[schema.Index(datasets.Amount)].Null[7] = true
	want := "scored duplicate scored label_applied label_waiting label_expired late invalid invalid invalid invalid invalid label_expired"
	_, status, e := feed(t, mustPlan(t, spec, schema), b, []int{4}, 1, false, true)
	var got []string
	for _, s := range status {
		got = append(got, s.String())
	}
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
	if c := (Counts{Scored: 2, Late: 1, Duplicates: 1, Invalid: 5, LabelsApplied: 1, LabelsWaiting: 1, LabelsExpired: 2, RowLabels: 1}); e.Counts() != c {
		t.Errorf("%+v, want %+v", e.Counts(), c)
	}
	if e.Watermark() != 10*hour {
		t.Errorf("watermark %d", e.Watermark())
	}
	noLabel := mustPlan(t, "name: s\nfeatures:\n  - {name: n, kind: count, key: store_id, windows: [2h]}\n", schema)
	if _, status, _ := feed(t, noLabel, toBatch(schema, log[3:4]), []int{1}, 1, false, false); status[0] != LabelIgnored {
		t.Errorf("a label without a spec for it is %s", status[0])
	}
}

// More windows than a ring has cursors, and a busy key with many late labels: many rings and long chains.
func TestManyWindowsAndLateLabels(t *testing.T) {
	s := oracleSpec{delay: 3 * hour, accept: 9 * hour, lateness: 2 * hour}
	for w := int64(1); w <= 12; w++ {
		s.feats = append(s.feats, oracleFeature{kind: Risk, window: w * hour}, oracleFeature{kind: Count, window: w * hour, shift: 3 * hour},
			oracleFeature{kind: Mean, window: w * hour, current: true})
	}
	var log []fact
	for i := range int64(300) {
		log = append(log, fact{id: i, t: i * hour / 10, store: i % 2, user: 0, amount: i * i * 1000, y: -1, seq: 2 * i})
		if i%3 != 0 && i > 50 {
			log = append(log, fact{isLabel: true, id: i - i%50, line: -1, t: i*hour/10 + i%2, y: i % 2, user: -1, store: -1, seq: 2*i + 1})
		}
	}
	schema := logSchema(true, true)
	p := mustPlan(t, s.yaml(), schema)
	want, _ := oracle(s, log, false)
	for _, restart := range []bool{false, true} {
		rows, _, _ := feed(t, p, toBatch(schema, log), []int{64}, 2, restart, false)
		sameRows(t, "many windows", want, rows)
	}
}

// Keys that are no longer used are forgotten, and nobody can tell.
func TestKeysAreForgotten(t *testing.T) {
	const spec = "name: k\nlabel: {column: is_fraud, delay: 1h, accept_for: 1h}\nlateness: 0h\nfeatures:\n  - {name: n, kind: count, key: user_id, windows: [2h], include_current: true}\n  - {name: r, kind: risk, key: store_id, windows: [3h]}\n"
	schema := logSchema(true, false)
	p := mustPlan(t, spec, schema)
	var log []fact
	const n = 40_000
	for i := range int64(n) {
		log = append(log, fact{id: i, t: i * hour / 100, user: i / 3, store: i / 50 % 7, y: -1})
		if i%100 == 0 && i >= 400 { // a line that comes late, and a label for both when the first is forgotten
			log = append(log, fact{id: i - 400, line: 1, t: i * hour / 100, user: i / 3, store: 3, y: -1},
				fact{isLabel: true, id: i - 800, line: -1, t: i * hour / 100, y: 1, user: -1, store: -1})
		}
		if i%10 == 9 {
			log = append(log, fact{isLabel: true, id: i - 5, line: -1, t: i*hour/100 + hour/2, y: 1, user: -1, store: -1})
		}
	}
	a, _, ea := feed(t, p, toBatch(schema, log), []int{1000}, 1, false, true)
	b, _, eb := feed(t, p, toBatch(schema, log), []int{len(log)}, 1, false, true)
	sameRows(t, "with and without forgetting between", b, a)
	if !bytes.Equal(snapshot(t, ea), snapshot(t, eb)) {
		t.Error("states differ")
	}
	if held := ea.st.keys[0].ints; held != nil && held.Len() > n/6 || ea.st.keys[0].texts != nil && ea.st.keys[0].texts.Len() > n/6 {
		t.Errorf("too many keys are held of %d", n/3)
	}
	if held := ea.st.rec.end - ea.st.rec.gone; held > 12_000 {
		t.Errorf("%d events are held", held)
	}
}

// A live event allocates nothing once the engine is warm.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	in := cardStream(60_000)
	for i := range in.Columns[1].Ints { // a year in all, so that entries leave as they come
		in.Columns[1].Ints[i] = int64(i) * 365 * datasets.Day / 60_000
		in.Columns[2].Ints[i] %= 50
		in.Columns[3].Ints[i] %= 80
	}
	e := handbookPlan(t, in.Schema).NewEngine(1)
	var out Rows
	if err := e.Process(in.Slice(0, 50_000), &out); err != nil {
		t.Fatal(err)
	}
	batches := make([]*datasets.Batch, 9_000)
	for i := range batches {
		batches[i] = in.Slice(50_000+i, 50_001+i)
	}
	i := 0
	for range 4_000 { // the buffers of single events find their sizes
		if err := e.Process(batches[i], &out); err != nil {
			t.Fatal(err)
		}
		i++
	}
	if n := testing.AllocsPerRun(4_000, func() {
		if err := e.Process(batches[i], &out); err != nil {
			t.Fatal(err)
		}
		i++
	}); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}

// Sums that leave 64 bits are still the nearest float64 of the exact sum.
func TestSumsBeyond64Bits(t *testing.T) {
	const spec = "name: b\nfeatures:\n  - {name: sum, kind: sum, of: amount, key: user_id, windows: [2h], include_current: true}\n  - {name: mean, kind: mean, of: amount, key: user_id, windows: [1h]}\n"
	schema := logSchema(false, false)
	log := []fact{{id: 1, amount: 5}, {id: 2, amount: math.MaxInt64}, {id: 3, amount: math.MaxInt64}, {id: 4, amount: math.MinInt64}, {id: 5}}
	rows, _, _ := feed(t, mustPlan(t, spec, schema), toBatch(schema, log), []int{2}, 1, true, false)
	const big = float64(1 << 63)
	want := [][]float64{{5 / 1e4, 0}, {big / 1e4, 5 / 1e4}, {2 * big / 1e4, big / 2e4}, {big / 1e4, 2 * big / 3e4}, {big / 1e4, big / 4e4}}
	sameRows(t, "huge", want, rows)
}

func TestOtherBatchIsRefused(t *testing.T) {
	p := handbookPlan(t, cardStream(1).Schema)
	schema := logSchema(false, false)
	if err := p.NewEngine(1).Process(toBatch(schema, nil), &Rows{}); err == nil {
		t.Error("a batch of other columns was folded")
	}
}

func TestLineIsKeptWithTransID(t *testing.T) {
	spec, err := Builtin("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	for _, withLine := range []bool{false, true} {
		in := &datasets.Schema{Fields: []datasets.Field{{Name: datasets.TransID, Type: datasets.Int64},
			{Name: datasets.TransDatetime, Type: datasets.Time}, {Name: datasets.UserID, Type: datasets.Int64},
			{Name: datasets.StoreID, Type: datasets.Int64}, {Name: datasets.Amount, Type: datasets.Decimal, Scale: datasets.AmountScale}}}
		want := 0
		if withLine {
			in.Fields = append(in.Fields, datasets.Field{Name: datasets.Line, Type: datasets.Int64})
			want = 1
		}
		p, err := spec.Plan(in)
		if err != nil {
			t.Fatal(err)
		}
		if at := p.Schema().Index(datasets.Line); at != want && withLine || at >= 0 && !withLine {
			t.Errorf("data with lines %v: line is column %d of the features", withLine, at)
		}
	}
}
