package features

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
)

// Columns of the tests below, and their schema.
func badSchema() *datasets.Schema {
	return &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransID, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time},
		{Name: datasets.UserID, Type: datasets.Int64, Nullable: true},
		{Name: datasets.Amount, Type: datasets.Decimal, Scale: 4, Nullable: true},
		{Name: datasets.Quantity, Type: datasets.Int64},
		{Name: datasets.UnitPrice, Type: datasets.Float64},
	}}
}

// everyKind is a spec of all aggregations over some windows.
func everyKind(head string, windows ...string) string {
	w := strings.Join(windows, ", ")
	return "name: bad\n" + head + "features:\n" +
		"  - {name: '{kind}_{of}_{w}', kinds: [count, sum, mean, std, min, max, ratio, zscore, last], of: amount, " +
		"key: user_id, windows: [" + w + "]}\n" +
		"  - {name: '{kind}_{w}', kinds: [distinct, mode, share], of: quantity, key: user_id, windows: [" + w + "]}\n" +
		"  - {name: '{kind}_{of}_{w}', kinds: [min, max, last], of: unit_price, key: user_id, windows: [" + w + "]}\n" +
		"  - {name: '{kind}_{w}', kinds: [first, since_first, since_last, gap], key: user_id, windows: [" + w + "]}\n" +
		"  - {name: ewma, kind: ewma, of: amount, key: user_id, half_life: 1h}\n"
}

// sameAsNaive feeds a log to engines in several ways and compares with the naive definition. It returns the rows by
// name of feature.
func sameAsNaive(t *testing.T, yaml string, schema *datasets.Schema, log []fact) (map[string][]float64, []Status) {
	t.Helper()
	head, features, _ := strings.Cut(yaml, "features:\n")
	c := &oracleCase{head: head, feats: []string{features}, schema: schema, orders: [][]fact{log}, cut: 5,
		covered: map[string]int{}}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	w, err := c.naive(log, 1)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string][]float64{}
	for f, x := range mustPlan(t, yaml, schema).Features() {
		for _, row := range w.rows {
			if row == nil {
				continue
			}
			byName[x.Name] = append(byName[x.Name], row[f])
		}
	}
	return byName, w.status
}

// expect compares features of one row with values computed by hand.
func expect(t *testing.T, got map[string][]float64, row int, want map[string]float64) {
	t.Helper()
	for name, v := range want {
		if list := got[name]; row >= len(list) || math.Float64bits(list[row]) != math.Float64bits(v) {
			t.Errorf("row %d, %s: %v, want %v", row, name, list, v)
		}
	}
}

// A sum that leaves 64 bits is the float64 nearest to the exact one, and so is what is made of it.
func TestOverflowOfSums(t *testing.T) {
	log := []fact{
		{id: 1, t: hour, amount: math.MaxInt64, quantity: math.MaxInt64},
		{id: 2, t: hour, amount: math.MaxInt64, quantity: math.MinInt64},
		{id: 3, t: hour, amount: math.MinInt64, quantity: math.MaxInt64},
		{id: 4, t: hour, amount: math.MinInt64, quantity: math.MaxInt64},
		{id: 5, t: hour, amount: 1, quantity: 0},
	}
	got, _ := sameAsNaive(t, everyKind("", "2h", "last 3", "ever"), badSchema(), log)
	const big = float64(1 << 63)
	expect(t, got, 2, map[string]float64{"sum_amount_2h": 2 * big / 1e4, "mean_amount_2h": 2 * big / 2e4,
		"std_amount_2h": 0, "max_amount_ever": big / 1e4, "mode_2h": -big, "ratio_amount_2h": -1})
	// Two greatest and two least numbers: their sum is -2, and n times the sum of squares is 16 times 2^126.
	expect(t, got, 4, map[string]float64{"count_2h": 4, "sum_amount_ever": -2 / 1e4, "mean_amount_ever": -2 / 4e4,
		"std_amount_ever": math.Sqrt(math.Ldexp(16, 126)/12) / 1e4, "distinct_2h": 2, "mode_ever": big,
		"ratio_amount_2h": 1 / (-2.0 / 4), "min_amount_last3": -big / 1e4})
}

// Negative amounts are numbers like any other; a mean of zero has no ratio.
func TestNegativeValues(t *testing.T) {
	log := []fact{
		{id: 1, t: 0, amount: -50000, quantity: -1, price: -1.5},
		{id: 2, t: hour, amount: 50000, quantity: 1, price: math.Copysign(0, -1)},
		{id: 3, t: 2 * hour, amount: -10000, quantity: -1, price: 0},
		{id: 4, t: 3 * hour, amount: 0, quantity: 0, price: -math.MaxFloat64},
	}
	got, _ := sameAsNaive(t, everyKind("", "3h", "10h", "ever"), badSchema(), log)
	expect(t, got, 2, map[string]float64{"sum_amount_3h": 0, "mean_amount_3h": 0, "ratio_amount_3h": 0, "mode_3h": -1,
		"zscore_amount_3h": -10000 / math.Sqrt(1e10/2), "min_amount_ever": -5, "max_unit_price_ever": math.Copysign(0, -1)})
	expect(t, got, 3, map[string]float64{"sum_amount_10h": -1, "share_10h": 0, "mode_10h": -1, "last_unit_price_ever": 0,
		"max_unit_price_10h": 0, "count_3h": 2, "mean_amount_3h": 2})
}

// What an expression makes of numbers that are not finite is `empty`, or 0. No column has such a number to begin with:
// import, data sets and tables refuse NaN and infinities, which package datasets tests.
func TestNotFinite(t *testing.T) {
	spec := "name: n\nfeatures:\n" +
		"  - {name: each, kind: expr, expr: amount / quantity, scale: 2, hidden: true}\n" +
		"  - {name: each_or, kind: expr, expr: amount / quantity, empty: -1}\n" +
		"  - {name: ln, kind: expr, expr: log(unit_price), empty: 99}\n" +
		"  - {name: squared, kind: expr, expr: unit_price * unit_price}\n" +
		"  - {name: log1p, kind: log, of: unit_price}\n" +
		"  - {name: sum, kind: sum, of: each, key: user_id, windows: [5h]}\n" +
		"  - {name: largest, kind: max, of: squared, key: user_id, windows: [5h]}\n" +
		"  - {name: last, kind: expr, expr: 1 / sum, empty: 7}\n"
	log := []fact{
		{id: 1, t: 0, amount: 50000, quantity: 0, price: 0},
		{id: 2, t: hour, amount: 50000, quantity: 2, price: -1},
		{id: 3, t: 2 * hour, amount: 50000, quantity: -4, price: 1e300},
		{id: 4, t: 3 * hour, amount: 50000, quantity: 1, price: math.E},
	}
	got, _ := sameAsNaive(t, spec, badSchema(), log)
	expect(t, got, 0, map[string]float64{"each_or": -1, "ln": 99, "squared": 0, "log1p": 0, "sum": 0, "last": 7})
	expect(t, got, 1, map[string]float64{"each_or": 2.5, "ln": 99, "squared": 1, "log1p": 0, "sum": 0, "last": 7})
	expect(t, got, 2, map[string]float64{"each_or": -1.25, "squared": 0, "sum": 2.5, "last": 0.4})
	expect(t, got, 3, map[string]float64{"each_or": 5, "ln": 1, "sum": 1.25, "largest": 1, "last": 0.8})
}

// Time is whole microseconds from far before 1970 to far after 2262, where nanoseconds in 64 bits would end.
func TestFarYears(t *testing.T) {
	for _, at := range []string{"1970-01-01T00:00:00Z", "2262-04-11T23:47:16Z", "2262-04-12T00:00:00Z",
		"1901-12-13T20:45:52Z", "9999-12-31T23:00:00Z"} {
		t0 := instant(t, at)
		log := []fact{
			{id: 1, t: t0 - hour, amount: 10000, quantity: 1},
			{id: 2, t: t0 - 1, amount: 20000, quantity: 2},
			{id: 3, t: t0, amount: 30000, quantity: 3},
			{id: 4, t: t0 + hour - 1, amount: 40000, quantity: 4},
		}
		got, _ := sameAsNaive(t, everyKind("", "1h", "day", "ever"), badSchema(), log)
		expect(t, got, 3, map[string]float64{"count_1h": 1, "sum_amount_1h": 3, "count_ever": 3,
			"since_first_ever": 7199.999999, "since_last_ever": 3599.999999})
		if strings.Contains(at, "T00:00:00") {
			expect(t, got, 3, map[string]float64{"count_day": 1, "sum_amount_day": 3})
			expect(t, got, 2, map[string]float64{"count_day": 0, "count_1h": 1})
		}
	}
	// Beyond any calendar a time is a fault of the event.
	_, status := sameAsNaive(t, everyKind("", "1h"), badSchema(),
		[]fact{{id: 1, t: math.MaxInt64}, {id: 2, t: math.MinInt64}, {id: 3}})
	if want := []Status{Invalid, Invalid, Scored}; !slices.Equal(status, want) {
		t.Errorf("%v, want %v", status, want)
	}
}

func instant(t testing.TB, s string) int64 {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixMicro()
}

// Of events of one instant each sees those before it in the log, whatever the size of the window.
func TestEqualTimestamps(t *testing.T) {
	var log []fact
	for i := range int64(300) {
		log = append(log, fact{id: i, t: hour, user: i % 2, amount: i * 10000, quantity: i % 3})
	}
	got, _ := sameAsNaive(t, everyKind("", "1s", "last 2", "hour", "ever"), badSchema(), log)
	expect(t, got, 299, map[string]float64{"count_1s": 149, "sum_amount_1s": 149 * 149, "last_amount_last2": 297,
		"gap_1s": 0, "since_first_ever": 0, "min_amount_last2": 295, "distinct_hour": 3, "ewma": 149})
	expect(t, got, 1, map[string]float64{"count_1s": 0, "first_ever": 1, "since_last_1s": 1, "since_last_ever": 0})
}

// The month of a leap year's February has 29 days, and windows of days are spans of time, not dates.
func TestLeapDays(t *testing.T) {
	day := func(s string) int64 { return instant(t, s+"T12:00:00Z") }
	log := []fact{
		{id: 1, t: day("2024-02-01"), amount: 10000},
		{id: 2, t: day("2024-02-28"), amount: 20000},
		{id: 3, t: day("2024-02-29"), amount: 40000},
		{id: 4, t: day("2024-02-29"), amount: 80000},
		{id: 5, t: day("2024-03-01"), amount: 160000},
		{id: 6, t: day("2025-02-28"), amount: 320000},
		{id: 7, t: day("2025-03-01"), amount: 640000},
	}
	yaml := everyKind("future: {beyond: 0s}\n", "day", "week", "month", "2d", "366d") +
		"  - {name: yearday, kind: calendar, of: yearday}\n  - {name: month_end, kind: calendar, of: month_end}\n"
	got, _ := sameAsNaive(t, yaml, badSchema(), log)
	expect(t, got, 3, map[string]float64{"sum_amount_day": 4, "sum_amount_month": 7, "sum_amount_week": 6,
		"sum_amount_2d": 6, "yearday": 60})
	expect(t, got, 4, map[string]float64{"sum_amount_day": 0, "sum_amount_month": 0, "sum_amount_2d": 12, "yearday": 61,
		"sum_amount_week": 14})
	// 366 days before 2025-02-28 12:00 is 2024-02-28 12:00, on the edge and outside.
	expect(t, got, 5, map[string]float64{"sum_amount_366d": 28, "sum_amount_month": 0, "yearday": 59})
	expect(t, got, 6, map[string]float64{"sum_amount_366d": 48, "sum_amount_month": 0, "sum_amount_week": 32,
		"yearday": 60})
}

// Windows of the calendar follow the clock: a day has 23 or 25 hours where it changes, or begins late.
func TestDaylightSaving(t *testing.T) {
	for _, c := range []struct {
		zone   string
		times  string  // UTC
		window string  // whose count is checked for the last time
		want   float64 // of the times before
	}{
		// Clocks go from 02:00 to 03:00: midnight is at 23:00Z before and at 22:00Z after.
		{"Europe/Brussels", "2021-03-27T22:59:59Z 2021-03-27T23:00:00Z 2021-03-28T00:59:59Z 2021-03-28T01:00:00Z " +
			"2021-03-28T21:59:59Z", "day", 3},
		{"Europe/Brussels", "2021-03-28T21:59:59Z 2021-03-28T22:00:00Z", "day", 0},
		// From 03:00 to 02:00: 25 hours, and the hour from two to three twice.
		{"Europe/Brussels", "2021-10-30T21:59:59Z 2021-10-30T22:00:00Z 2021-10-31T22:59:59Z", "day", 1},
		{"Europe/Brussels", "2021-10-31T00:00:00Z 2021-10-31T00:59:59Z 2021-10-31T01:00:00Z 2021-10-31T01:59:59Z", "hour", 1},
		{"Europe/Brussels", "2021-03-28T00:59:59Z 2021-03-28T01:00:00Z 2021-03-28T01:30:00Z", "hour", 1},
		// At midnight, to 01:00: the day begins with the change, at 03:00Z.
		{"America/Sao_Paulo", "2018-11-04T02:59:59Z 2018-11-04T03:00:00Z 2018-11-05T01:59:59Z", "day", 1},
		// At midnight, back to 23:00: the second hour from 23 to 24 is of the day that ends, which has 25 hours.
		{"America/Sao_Paulo", "2018-02-17T01:59:59Z 2018-02-17T02:00:00Z 2018-02-18T01:30:00Z 2018-02-18T02:30:00Z",
			"day", 2},
		{"America/Sao_Paulo", "2018-02-18T02:59:59Z 2018-02-18T03:00:00Z", "day", 0},
		// One minute after midnight, back to 23:01: a date had begun, and what the clock repeats stays with it.
		{"America/St_Johns", "2010-11-07T02:29:59Z 2010-11-07T02:30:00Z 2010-11-07T02:31:30Z 2010-11-07T03:31:30Z", "day", 2},
		// Half an hour: from 02:00 to 01:30 at 15:00Z, so that 01:30 to 02:00 is there twice and apart.
		{"Australia/Lord_Howe", "2021-04-03T14:30:00Z 2021-04-03T14:59:59Z 2021-04-03T15:00:00Z 2021-04-03T15:29:59Z",
			"hour", 1},
		{"Asia/Kolkata", "2021-01-01T18:29:59Z 2021-01-01T18:30:00Z 2021-01-01T19:29:59Z", "hour", 1},
		// Weeks begin on Monday and months on the first, both at local midnight.
		{"Europe/Brussels", "2021-03-21T22:59:59Z 2021-03-21T23:00:00Z 2021-03-28T21:59:59Z", "week", 1},
		{"Europe/Brussels", "2021-03-28T21:59:59Z 2021-03-28T22:00:00Z 2021-04-04T21:59:59Z", "week", 1},
		{"Europe/Brussels", "2021-09-30T21:59:59Z 2021-09-30T22:00:00Z 2021-10-31T22:59:59Z", "month", 1},
		// A date that was left out: on Samoa 2011-12-29 was followed by 2011-12-31.
		{"Pacific/Apia", "2011-12-30T09:59:59Z 2011-12-30T10:00:00Z 2011-12-31T09:59:59Z", "day", 1},
	} {
		var log []fact
		for i, s := range strings.Fields(c.times) {
			log = append(log, fact{id: int64(i), t: instant(t, s), amount: 1})
		}
		got, _ := sameAsNaive(t, everyKind("timezone: "+c.zone+"\n", "hour", "day", "week", "month"), badSchema(), log)
		if list := got["count_"+c.window]; list[len(list)-1] != c.want {
			t.Errorf("%s, %s of %s: %v before it, want %v", c.zone, c.window, c.times, list[len(list)-1], c.want)
		}
	}
}

// Different values since ever are counted exactly up to 1024 of them and estimated from there on.
func TestDistinctEver(t *testing.T) {
	const n = 6000
	for _, text := range []bool{false, true} {
		schema := badSchema()
		if text {
			schema.Fields[4].Type = datasets.String
		}
		yaml := "name: d\nfeatures:\n  - {name: '{w}', kind: distinct, of: quantity, key: user_id, windows: [ever, 2000s]}\n"
		var log []fact
		for i := range int64(n) {
			f := fact{id: i, t: i * datasets.Second, quantity: i * i * 7919}
			again := f
			again.id += n
			log = append(log, f, again)
		}
		b := toBatch(schema, log)
		naive := mustNaive(t, yaml, schema)
		if err := naive.Log(b); err != nil {
			t.Fatal(err)
		}
		for _, restart := range []bool{false, true} {
			rows, _, _ := feed(t, mustPlan(t, yaml, schema), b, []int{1000}, 2, restart, false)
			for i, row := range rows {
				want := float64((i + 1) / 2)
				if row[0] != want && (want <= 1024 || math.Abs(row[0]/want-1) > 3*0.01625) {
					t.Fatalf("text %v: %v different values, want %v", text, row[0], want)
				}
				if recent := min(want, float64(1999+i%2)); row[1] != recent {
					t.Fatalf("text %v: %v different values in 2000 s, want %v", text, row[1], recent)
				}
				if i%500 == 3 {
					again, _ := naive.Row(i)
					sameRows(t, "naive", [][]float64{again}, rows[i:i+1])
				}
			}
		}
	}
}

func mustNaive(t testing.TB, yaml string, schema *datasets.Schema) *Naive {
	t.Helper()
	spec, err := Parse("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNaive(spec, schema)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// manyEvents is how many events the two tests below have. ONMART_MANY_EVENTS=10000000 is what the engine is meant for;
// the naive definition wants about 1 GB for it.
func manyEvents(t *testing.T) int64 {
	if testing.Short() {
		t.Skip("a million events: not with -short")
	}
	return int64(envInt(t, "ONMART_MANY_EVENTS", 1_000_000))
}

// feedMany feeds n generated events in batches to an engine and to the naive definition, and compares some rows.
func feedMany(t *testing.T, yaml string, n int64, user func(i int64) int64, check func(i int64, row []float64)) {
	t.Helper()
	schema := badSchema()
	schema.Fields = schema.Fields[:5]
	p := mustPlan(t, yaml, schema)
	e, naive := p.NewEngine(2), mustNaive(t, yaml, schema)
	sampled := map[int64][]float64{}
	const size = 8192
	var out Rows
	for at := int64(0); at < n; at += size {
		b := datasets.NewBatch(schema, size)
		for i := at; i < min(n, at+size); i++ {
			for c, v := range []int64{i, i * datasets.Second, user(i), i % 5 * 10000, i % 7} {
				b.Columns[c].Ints = append(b.Columns[c].Ints, v)
			}
			b.N++
		}
		if err := e.Process(b, &out); err != nil {
			t.Fatal(err)
		}
		if err := naive.Log(b); err != nil {
			t.Fatal(err)
		}
		for r := range out.N {
			i := at + int64(out.Input[r])
			row := make([]float64, len(out.Values))
			for f, v := range out.Values {
				row[f] = v[r]
			}
			check(i, row)
			if i%(n/3) == n/3-1 || i == n-1 {
				sampled[i] = row
			}
		}
	}
	for i, row := range sampled {
		again, _ := naive.Row(int(i))
		sameRows(t, fmt.Sprintf("row %d of %d", i, n), [][]float64{again}, [][]float64{row})
	}
}

func TestOneKeyWithManyEvents(t *testing.T) {
	n := manyEvents(t)
	yaml := "name: one\nfeatures:\n" +
		"  - {name: 'n_{w}', kind: count, key: user_id, windows: [1h, 70d, ever]}\n" +
		"  - {name: '{kind}_{w}', kinds: [sum, min, max, std, distinct, mode], of: quantity, key: user_id, " +
		"windows: [1h, ever, last 1000]}\n" +
		"  - {name: '{kind}_long', kinds: [min, max], of: amount, key: user_id, windows: [70d]}\n" +
		"  - {name: recent, kind: ewma, of: amount, key: user_id, half_life: 1d}\n"
	feedMany(t, yaml, n, func(int64) int64 { return 42 }, func(i int64, row []float64) {
		if row[0] != float64(min(i, 3599)) || row[1] != float64(min(i, 70*86400-1)) || row[2] != float64(i) {
			t.Fatalf("event %d: counts %v", i, row[:3])
		}
	})
}

func TestManyKeys(t *testing.T) {
	n := manyEvents(t)
	yaml := "name: many\nfeatures:\n" +
		"  - {name: 'n_{w}', kind: count, key: user_id, windows: [1h, ever]}\n" +
		"  - {name: 'pair_{kind}', kinds: [count, since_last], key: [user_id, quantity], windows: [ever]}\n" +
		"  - {name: '{kind}', kinds: [mean, last], of: amount, key: user_id, windows: [last 2]}\n"
	// Each key comes again after n/2 events.
	user := func(i int64) int64 { return (i * 7_368_787) % (n / 2) * 1_000_003 }
	feedMany(t, yaml, n, user, func(i int64, row []float64) {
		if want := float64(btoi(i >= n/2)); row[1] != want || row[2] != float64(btoi(i >= n/2 && i%7 == (i-n/2)%7)) {
			t.Fatalf("event %d: seen %v times, and %v times with its quantity", i, row[1], row[2])
		}
	})
}

// The naive definition's beginnings of calendar units are those of Grid, which was written apart from it.
func TestUnitsBeginAsInGrid(t *testing.T) {
	for _, zone := range []string{"UTC", "Europe/Brussels", "America/Sao_Paulo", "America/St_Johns", "Australia/Lord_Howe",
		"Pacific/Apia", "Asia/Kathmandu", "Africa/Casablanca", "America/Havana", "Asia/Gaza", "Africa/Monrovia"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		n := &Naive{zone: loc}
		for _, step := range []Step{Hour, Day, Week} {
			g, err := NewGrid(step, loc)
			if err != nil {
				t.Fatal(err)
			}
			check := func(at int64) {
				if want, _ := g.Step(at); n.began(at, string(step)) != want {
					t.Fatalf("%s: the %s of %s begins at %s, and by Grid at %s", zone, step, datasets.FormatTime(at),
						datasets.FormatTime(n.began(at, string(step))), datasets.FormatTime(want))
				}
			}
			for at := instant(t, "1969-06-01T00:00:00Z"); at < instant(t, "2040-01-01T00:00:00Z"); {
				for _, d := range []int64{-25 * hour, -1, 0, 30 * datasets.Minute, 59 * datasets.Minute,
					61 * datasets.Minute, 5 * hour, 25 * hour, 200 * hour} {
					check(at + d)
				}
				_, end := time.UnixMicro(at).In(loc).ZoneBounds() // the instants at which clocks change
				if end.IsZero() {
					break
				}
				at = end.UnixMicro()
			}
			// Past a zone's table of changes its rule goes on; the last days of leap years are where libraries err.
			for year := 2040; year < 2600; year += 4 {
				for day := range 9 {
					check(time.Date(year, time.December, 27+day, 7, 30, 0, 0, time.UTC).UnixMicro())
				}
			}
		}
	}
}
