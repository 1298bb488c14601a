package features

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/onmart/onmart/datasets"
)

// Each text gives all of its faults, with their places.
func TestShapeFaults(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"two shapes", "name: x\nfeatures:\n  - {name: v, kind: value, of: amount}\ninteractions: {user: u, item: i}\n",
			"s.yaml:1:1: spec: want one of the fields features, panel and interactions, found 2 of them"},
		{"of another shape", "name: x\nkeep: [a]\nlabel: {column: is_fraud, delay: 7d}\ninteractions: {user: u, item: u}\n",
			`s.yaml:1:1: spec: the field label is for features of transactions, not for a panel or interactions
s.yaml:1:1: spec: the field keep is for features of transactions, not for a panel or interactions
s.yaml:4:31: the column u is there twice: names of keys, measures and covariates must differ`},
		{"where with features", "name: x\nwhere: [{column: a, present: true}]\nfeatures:\n  - {name: v, kind: value, of: amount}\n",
			"s.yaml:1:1: spec: the field where is for a panel or interactions, not for features of transactions"},
		{"panel", `name: x
where:
  - {column: a}
  - {matches: "(", above: many}
  - {column: b, present: false, in: []}
panel:
  keys: []
  step: month
  seasons: [0, 1.5]
  fill: none
  demand: {of: quantity, rows: undone, kind: median}
  measures:
    - {kind: count, of: a}
    - {name: step, kind: sum}
    - {name: m, of: a, row: sold}
  covariates:
    - {name: c, of: weekday}
    - {name: d, kind: calendar, of: wekday, rows: sold}
    - {name: e, kind: lag, of: demand}
    - {name: f, kind: lag, of: demand, lags: [1], known: true}
    - {name: f, kind: last, of: p, lags: [1]}
`, `s.yaml:3:14: where a: no condition; there are matches, in, not_in, above, below, present
s.yaml:4:5: where: the field column is missing
s.yaml:4:15: where matches: not a regular expression of Go: error parsing regexp: missing closing ): ` + "`(`" + `
s.yaml:4:27: where above: want a number, found "many"
s.yaml:5:26: where present: want true
s.yaml:5:37: where in: want a list, such as [a, b]
s.yaml:7:3: panel: keys: want at least one column whose values make a series
s.yaml:8:9: panel step: unknown "month"; there are hour, day, week
s.yaml:9:13: panel seasons: want whole numbers from 1 to 10000
s.yaml:9:16: panel seasons: want whole numbers from 1 to 10000
s.yaml:10:9: panel fill: unknown "none"; there are zero, last
s.yaml:11:11: demand: rows: undone needs the panel's returns, which say what a return is
s.yaml:11:46: demand: unknown kind "median" (did you mean "mean"?); there are sum, mean, last, max, count, distinct
s.yaml:13:7: measure: the field name is missing
s.yaml:13:25: measure: a count is of rows and has no field of
s.yaml:14:14: measure step: a sum needs the field of
s.yaml:14:14: the column step is there twice: names of keys, measures and covariates must differ
s.yaml:15:24: measure: unknown field "row" (did you mean "rows"?)
s.yaml:17:14: covariate c: the field kind is missing: one of last, mean, max, calendar, table, flag, lag
s.yaml:18:14: covariate d: a calendar has no field rows
s.yaml:18:37: covariate d: of: unknown calendar value "wekday" (did you mean "weekday"?); there are hour, weekday, day, yearday, week, month, year, weekend, month_end
s.yaml:19:14: covariate e: a lag needs the field lags, such as [1, 7]
s.yaml:20:14: covariate f: a lag is not known in advance
s.yaml:21:14: covariate f: a last has no field lags
s.yaml:21:14: the column f is there twice: names of keys, measures and covariates must differ`},
		{"missing fields", "name: x\njoin:\n  - {on: a}\n  - {table: ../a, on: date, take: x, since: d, between: [a]}\n  - {table: t, on: [a, b], key: c, take: x}\npanel: {step: day}\n",
			`s.yaml:3:5: join: the field table is missing
s.yaml:3:5: join: the field take is missing
s.yaml:4:5: join ../a: want one of on: date, since and between
s.yaml:4:13: join: table "../a": want the name of NAME.parquet beside the data set, of letters, digits, _ and -
s.yaml:4:57: join between: want two columns of the table, such as [first_day, last_day]
s.yaml:5:5: join t: key has 1 columns and on has 2
s.yaml:6:8: panel: the field keys is missing
s.yaml:6:8: panel: the field demand is missing`},
		{"interactions", "name: x\ninteractions: {item: product_id, log: true, returns: {policy: undo, undo: [a]}}\n",
			`s.yaml:2:15: interactions: the field user is missing
s.yaml:2:15: interactions: log is for a weight that is a column
s.yaml:2:54: interactions returns: undo is for the policy remove
s.yaml:2:63: interactions returns: policy: unknown "undo"; there are ignore, remove, negate`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("s.yaml", []byte(c.in))
			if diff := cmp.Diff(c.want, fmt.Sprint(err)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// table writes a dimension table.
func table(t *testing.T, dir, name string, b *datasets.Batch) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name+".parquet"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := datasets.WriteTable(f, b); err != nil {
		t.Fatal(err)
	}
}

// rowsOf makes a batch of rows of int64, float64, string and nil.
func rowsOf(fields []datasets.Field, rows ...[]any) *datasets.Batch {
	b := datasets.NewBatch(&datasets.Schema{Fields: fields}, len(rows))
	b.N = len(rows)
	for i := range fields {
		c := &b.Columns[i]
		for _, r := range rows {
			if fields[i].Nullable {
				c.Null = append(c.Null, r[i] == nil)
			}
			switch fields[i].Type {
			case datasets.Float64:
				v, _ := r[i].(float64)
				c.Floats = append(c.Floats, v)
			case datasets.String:
				v, _ := r[i].(string)
				c.Strings = append(c.Strings, v)
			default:
				v, _ := r[i].(int)
				c.Ints = append(c.Ints, int64(v))
			}
		}
	}
	return b
}

const day = int(datasets.Day)

// shopTables writes small tables of all the kinds that can be joined.
func shopTables(t *testing.T, dir string) {
	text := func(name string) datasets.Field { return datasets.Field{Name: name, Type: datasets.String} }
	date := func(name string) datasets.Field { return datasets.Field{Name: name, Type: datasets.Time} }
	maybe := func(f datasets.Field) datasets.Field { f.Nullable = true; return f }
	whole := func(name string) datasets.Field { return datasets.Field{Name: name, Type: datasets.Int64} }
	table(t, dir, "users", rowsOf([]datasets.Field{whole("user_id"), maybe(text("zip"))}, []any{1, "A"}, []any{2, "B"}, []any{3, nil}))
	table(t, dir, "calendar", rowsOf([]datasets.Field{text("date"), maybe(text("holiday"))}, []any{"1970-01-01", "New Year"}, []any{"1970-01-02", nil},
		[]any{"1970-01-03", "A day"}))
	table(t, dir, "products", rowsOf([]datasets.Field{text("code"), text("category")}, []any{"a", "food"}, []any{"b", "toys"}))
	table(t, dir, "prices", rowsOf([]datasets.Field{text("product_id"), date("from"), {Name: "price", Type: datasets.Decimal, Scale: 2}},
		[]any{"a", -5 * day, 100}, []any{"a", 2 * day, 150}, []any{"b", 1 * day, 700}))
	table(t, dir, "promotions", rowsOf([]datasets.Field{maybe(text("category")), maybe(text("product_id")), date("first"), date("last"), {Name: "discount", Type: datasets.Float64}},
		[]any{nil, "a", 1 * day, 2 * day, .1}, []any{"toys", nil, 0, 9 * day, .2}, []any{"toys", nil, 1 * day, 1 * day, .5}))
	table(t, dir, "out", rowsOf([]datasets.Field{text("product_id"), date("date")}, []any{"b", 2 * day}))
}

const joinedSpec = `name: t
lateness: 0s
join:
  - {table: calendar, on: date, take: holiday}
  - {table: products, on: product_id, key: code, take: category}
  - {table: prices, on: product_id, since: from, take: price, prefix: list_}
  - {table: promotions, on: product_id, between: [first, last], take: discount}
  - {table: promotions, on: category, between: [first, last], take: discount, prefix: category_}
  - {table: out, on: [product_id, date], take: date, prefix: out_}
panel:
  keys: [product_id]
  step: day
  demand: {of: quantity}
  covariates:
    - {name: list_price, kind: table, of: list_price}
    - {name: discount, kind: table, of: discount}
    - {name: category_discount, kind: table, of: category_discount}
    - {name: holiday, kind: flag, of: holiday}
    - {name: out, kind: flag, of: out_date, known: false}
    - {name: weekday, kind: calendar, of: weekday}
`

func tablesOf(t *testing.T, dir, src string) (*Spec, *Tables) {
	t.Helper()
	s, err := Parse("t.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	tables, err := OpenTables(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	return s, tables
}

// Covariates of tables: by date, by key, by what another table says of the key, for spans of days and since a day.
func TestPanelJoins(t *testing.T) {
	dir := t.TempDir()
	shopTables(t, dir)
	s, tables := tablesOf(t, dir, joinedSpec)
	p, err := s.Plan(saleSchema, tables)
	if err != nil {
		t.Fatal(err)
	}
	q := p.NewPanel()
	out := datasets.NewBatch(p.Schema(), 0)
	log := []sale{{t: 5, product: "a", quantity: 1}, {t: 6, product: "b", quantity: 2, seq: 1}, {t: 3*datasets.Day + 5, product: "c", quantity: 1, seq: 2}}
	if err := q.Process(salesBatch(log), out); err != nil {
		t.Fatal(err)
	}
	if err := q.Advance(4*datasets.Day, out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range out.N {
		row := fmt.Sprintf("%d %s", out.Columns[2].Ints[i]/datasets.Day, out.Columns[0].Strings[i])
		for _, c := range out.Columns[3:] {
			row += fmt.Sprintf(" %g", c.Floats[i])
		}
		got = append(got, row)
	}
	// demand, list price, discount, category's discount, holiday, out of stock, weekday (1970 began on a Thursday)
	want := []string{
		"0 a 1 1 0 0 1 0 3", "0 b 2 0 0 0.2 1 0 3",
		"1 a 0 1 0.1 0 0 0 4", "1 b 0 7 0 0.5 0 0 4",
		"2 a 0 1.5 0.1 0 1 0 5", "2 b 0 7 0 0.2 1 1 5",
		"3 a 0 1.5 0 0 0 0 6", "3 b 0 7 0 0.2 0 0 6", "3 c 1 0 0 0 0 0 6",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if c := q.Counts(); c.Dateless != 1 {
		t.Errorf("%d steps are not in the calendar; want 1", c.Dateless)
	}
	// The same from the future, and beyond it.
	f := p.NewFuture()
	if diff := cmp.Diff([]string{"list_price", "discount", "category_discount", "holiday", "weekday"}, f.Columns()); diff != "" {
		t.Error(diff)
	}
	b, err := f.Series("b")
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float64, 5)
	steps := f.Steps(datasets.Day+1, 2)
	if diff := cmp.Diff([]int64{datasets.Day, 2 * datasets.Day}, steps); diff != "" {
		t.Error(diff)
	}
	if missing := f.At(b, steps[0], v); missing != 0 || fmt.Sprint(v) != "[7 0 0.5 0 4]" {
		t.Errorf("day 1 of b: %v, %d missing", v, missing)
	}
	if missing := f.At(b, 30*datasets.Day, v); missing != 1 || fmt.Sprint(v) != "[7 0 0 0 5]" {
		t.Errorf("day 30 of b: %v, %d missing", v, missing)
	}
	if _, err := f.Series("b", "c"); err == nil {
		t.Error("a series with too many keys")
	}
}

// Keys and conditions on columns of tables; a row that the table does not have is in no series.
func TestRowJoins(t *testing.T) {
	dir := t.TempDir()
	shopTables(t, dir)
	s, tables := tablesOf(t, dir, `name: t
lateness: 0s
join:
  - {table: users, on: user_id, take: zip}
  - {table: products, on: product_id, key: code, take: category, prefix: product_}
where:
  - {column: product_category, in: [food]}
panel:
  keys: [zip]
  step: day
  demand: {of: quantity}
`)
	p, err := s.Plan(saleSchema, tables)
	if err != nil {
		t.Fatal(err)
	}
	q := p.NewPanel()
	out := datasets.NewBatch(p.Schema(), 0)
	var log []sale
	for i, u := range []int64{1, 2, 3, 4, 0, 1} {
		log = append(log, sale{t: int64(i), seq: int64(i), product: "a", user: u, quantity: 1}, sale{t: int64(i), product: "b", user: u, quantity: 10, seq: int64(i)})
	}
	if err := q.Process(salesBatch(log), out); err != nil {
		t.Fatal(err)
	}
	if err := q.Advance(datasets.Day, out); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(out.Columns[0].Strings, out.Columns[1].Strings, out.Columns[3].Floats); got != "[A B] [A B] [2 1]" {
		t.Errorf("got %s", got)
	}
	if c := q.Counts(); c.Unkeyed != 3 || c.Filtered != 6 || c.Scored != 3 {
		t.Errorf("%+v", c)
	}
	if f := p.Schema().Fields[1]; f.Name != "zip" || f.Nullable {
		t.Errorf("%+v", f)
	}
}

// What a plan finds wrong with columns and tables, with places.
func TestShapePlanFaults(t *testing.T) {
	dir := t.TempDir()
	shopTables(t, dir)
	table(t, dir, "twice", rowsOf([]datasets.Field{{Name: "product_id", Type: datasets.String}, {Name: "n", Type: datasets.Int64}}, []any{"a", 1}, []any{"b", 2}, []any{"a", 3}))
	table(t, dir, "baddate", rowsOf([]datasets.Field{{Name: "date", Type: datasets.String}, {Name: "n", Type: datasets.Int64}}, []any{"1/2/1970", 1}))
	panel := func(join, cov string) string {
		return "name: t\njoin:\n" + join + "panel:\n  keys: [product_id]\n  step: day\n  demand: {of: quantity}\n  covariates:\n" + cov
	}
	for _, c := range []struct{ name, in, want string }{
		{"columns", "name: t\nwhere:\n  - {column: product_id, above: 1}\n  - {column: quantity, matches: a}\npanel:\n  keys: [produkt_id, quantity, unit_price]\n  step: day\n  returns: {flag: product_id, undo: [nobody]}\n  demand: {of: user}\n",
			`t.yaml:3:14: where: above and below are for numbers; column product_id is of type string
t.yaml:4:14: where: matches is for text; column quantity is of type int64
t.yaml:6:10: panel: keys: the data has no column "produkt_id" (did you mean "product_id"?)
t.yaml:6:32: panel: keys: column unit_price is of type decimal; want int64 or string
t.yaml:8:19: returns: flag: column product_id is of type string; want int64
t.yaml:8:38: returns: undo: the data has no column "nobody"
t.yaml:9:11: demand: with returns it is the sum of an int64 or decimal column, such as quantity
t.yaml:9:16: demand: the data has no column "user" (did you mean "seq"?)`},
		{"tables", panel("  - {table: calendar, on: date, take: [holiday, closed]}\n  - {table: users, on: product_id, key: user_id, take: zip}\n  - {table: twice, on: product_id, take: n}\n",
			"    - {name: h, kind: table, of: holiday}\n    - {name: z, kind: table, of: holyday}\n    - {name: d, kind: lag, of: price, lags: [1]}\n"),
			`t.yaml:4:24: join users: product_id is of type string in the data and int64 in the table
t.yaml:5:5: join: table twice: rows 1 and 3 have the same product_id: leave one of them out
t.yaml:11:34: covariate h: column holiday of the table calendar is of type string; a covariate of kind table is a number, one of kind flag tells whether there is a value
t.yaml:12:34: covariate z: of: no join takes a column "holyday" (did you mean "holiday"?)
t.yaml:13:32: covariate d: of: "price" is neither demand nor a measure`},
		{"dates", panel("  - {table: baddate, on: date, take: n}\n", "    - {name: n, kind: table, of: n}\n"),
			"t.yaml:3:5: join: table baddate, row 1: column date: \"1/2/1970\" is not a date such as 2026-01-31"},
		{"not of a series", panel("  - {table: prices, on: quantity, key: product_id, since: from, take: price}\n", "    - {name: n, kind: table, of: price}\n"),
			`t.yaml:3:25: join prices: quantity is neither date, nor one of the panel's keys, nor taken by a join on them`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, tables := tablesOf(t, dir, c.in)
			_, err := s.Plan(saleSchema, tables)
			if diff := cmp.Diff(c.want, fmt.Sprint(err)); diff != "" {
				t.Error(diff)
			}
		})
	}
	s, err := Parse("t.yaml", []byte(joinedSpec))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Plan(saleSchema); err == nil || !strings.Contains(err.Error(), "the table calendar is not there: it is calendar.parquet beside the data set") {
		t.Errorf("a plan without tables: %v", err)
	}
	if _, err := OpenTables(t.TempDir(), s); err == nil || !strings.Contains(err.Error(), "calendar.parquet is missing: the spec t joins the table calendar") {
		t.Errorf("a folder without tables: %v", err)
	}
}

// Every built-in spec plans on the columns that its data has, and its shape is that of its name.
func TestBuiltinShapes(t *testing.T) {
	for name, shape := range map[string]Shape{"fraud-handbook": Events, "online-retail-daily": Panels, "online-retail-baskets": Baskets, "m4-hourly": Panels,
		"fraud-handbook-wide": Events, "shop-daily": Panels, "shop-fraud": Events, "shop-interactions": Baskets, "returns-by-zip": Panels} {
		s, err := Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		if s.Shape() != shape || s.Name() != name {
			t.Errorf("%s is of shape %s and name %s", name, s.Shape(), s.Name())
		}
	}
	if len(Builtins()) != 9 {
		t.Errorf("%d built-in specs", len(Builtins()))
	}
	for spec, preset := range map[string]string{"fraud-handbook-wide": "fraud-handbook", "online-retail-daily": "online-retail", "online-retail-baskets": "online-retail", "m4-hourly": "m4-hourly"} {
		s, _ := Builtin(spec)
		m, err := datasets.Preset(preset)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Plan(m.Schema()); err != nil {
			t.Error(err)
		}
	}
}

// A gap of years is a wrong date and not a reason for millions of rows.
func TestPanelGap(t *testing.T) {
	p := mustPlan(t, fmt.Sprintf(panelSpec, "UTC", "0s", "product_id", "day", "zero"), saleSchema)
	q := p.NewPanel()
	out := datasets.NewBatch(p.Schema(), 0)
	err := q.Process(salesBatch([]sale{{t: 0, product: "a", quantity: 1}, {t: 11 * 366 * datasets.Day, product: "a", quantity: 1, seq: 1}}), out)
	if err == nil || !strings.Contains(err.Error(), "a date among the transactions is wrong") || out.N > 2 {
		t.Errorf("%d rows, %v", out.N, err)
	}
}

// Sums are exact and divided once, past 64 bits too.
func TestWideSum(t *testing.T) {
	var s wide
	for range 5 {
		s.add(math.MaxInt64)
	}
	if got := s.over(1, 0); got != 5*math.MaxInt64 {
		t.Errorf("got %v", got)
	}
	if got := s.over(5, 4); got != float64(5*math.MaxInt64)/5e4 {
		t.Errorf("got %v", got)
	}
	for range 5 {
		s.add(-math.MaxInt64)
	}
	s.add(-7)
	if got := s.over(2, 1); got != -7.0/20 {
		t.Errorf("got %v", got)
	}
}

// The manifest of a panel says of every column what it is to a forecaster.
func TestMadePanelColumns(t *testing.T) {
	s, err := Builtin("online-retail-daily")
	if err != nil {
		t.Fatal(err)
	}
	m, err := datasets.Preset("online-retail")
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Plan(m.Schema())
	if err != nil {
		t.Fatal(err)
	}
	made := p.Panel()
	var got []string
	for _, c := range made.Columns {
		got = append(got, c.Name+":"+string(c.Role))
	}
	want := "series:series product_id:key step:step demand:target sold:measure undone:measure returned:measure net:measure revenue:measure purchases:measure price:past"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
	for i, f := range p.Schema().Fields {
		if f.Name != made.Columns[i].Name {
			t.Errorf("column %d is %s; the manifest says %s", i, f.Name, made.Columns[i].Name)
		}
	}
	if made.Step != Day || made.Timezone != "Europe/London" || fmt.Sprint(made.Seasons, made.Keys) != "[7] [product_id]" {
		t.Errorf("%+v", made)
	}
	// It survives being written down.
	text, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	var again MadePanel
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, &again); diff != "" {
		t.Error(diff)
	}
}
