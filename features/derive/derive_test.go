package derive

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/onmart/onmart/datasets"
	"pgregory.net/rapid"
)

// testFields are columns of each type. testColumns has five rows of them; the fourth is null where that can be.
var testFields = []datasets.Field{
	{Name: "a", Type: datasets.Int64}, {Name: "b", Type: datasets.Int64, Nullable: true},
	{Name: "d", Type: datasets.Decimal, Scale: 2}, {Name: "e", Type: datasets.Decimal, Scale: 4, Nullable: true},
	{Name: "x", Type: datasets.Float64}, {Name: "y", Type: datasets.Float64, Nullable: true},
	{Name: "s", Type: datasets.String}, {Name: "r", Type: datasets.String, Nullable: true},
	{Name: "at", Type: datasets.Time}, {Name: "since", Type: datasets.Time, Nullable: true},
}

func testColumns() []datasets.Column {
	n := []bool{false, false, false, true, false}
	return []datasets.Column{
		{Ints: []int64{1, -2, 3, 7, 0}}, {Ints: []int64{2, 3, 0, 0, -1}, Null: n},
		{Ints: []int64{150, -25, 9999, 12, 0}}, {Ints: []int64{15000, 33333, -1, 0, 99990000}, Null: n},
		{Floats: []float64{0.5, -1.5, 2.5, 1e300, 0}}, {Floats: []float64{2, 0, -0.5, 0, 100}, Null: n},
		{Strings: []string{"web", "Shop", "", "Zürich", " app "}}, {Strings: []string{"good", "not good!", "Don't", "",
			"it is late, bad"}, Null: n},
		{Ints: []int64{0, 1e6, 86400e6, 5, 1700000000e6}}, {Ints: []int64{1e6, 0, 86400e6, 0, 1600000000e6}, Null: n},
	}
}

func compile(t testing.TB, o Options, defs ...Def) *Program {
	t.Helper()
	p, faults := Compile(defs, testFields, o)
	for _, f := range faults {
		t.Errorf("definition %d, %s at %d: %s", f.Def, f.Field, f.Offset, f.Text)
	}
	if p == nil {
		t.FailNow()
	}
	return p
}

// column shows one derived column, null as -.
func column(f datasets.Field, c datasets.Column, n int) string {
	var list []string
	for i := range n {
		switch {
		case c.IsNull(i):
			list = append(list, "-")
		case f.Type == datasets.String:
			list = append(list, fmt.Sprintf("%q", c.Strings[i]))
		case f.Type == datasets.Float64:
			list = append(list, fmt.Sprintf("%.6g", c.Floats[i]))
		default:
			list = append(list, datasets.FormatValue(&f, &c, i))
		}
	}
	return strings.Join(list, " ")
}

func ref(x float64) *float64 { return &x }

var kindCases = []struct {
	def   Def
	field datasets.Field
	want  string
}{
	{Def{Kind: "value", Of: "a"}, datasets.Field{Type: datasets.Int64}, "1 -2 3 7 0"},
	{Def{Kind: "value", Of: "d"}, datasets.Field{Type: datasets.Decimal, Scale: 2}, "1.5 -0.25 99.99 0.12 0"},
	{Def{Kind: "value", Of: "y"}, datasets.Field{Type: datasets.Float64, Nullable: true}, "2 0 -0.5 - 100"},
	{Def{Kind: "value", Of: "y", Null: ref(-1.5)}, datasets.Field{Type: datasets.Float64}, "2 0 -0.5 -1.5 100"},
	{Def{Kind: "value", Of: "e", Null: ref(-1.5)}, datasets.Field{Type: datasets.Decimal, Scale: 4},
		"1.5 3.3333 -0.0001 -1.5 9999"},
	{Def{Kind: "log", Of: "x", Scale: -1}, datasets.Field{Type: datasets.Float64}, "0.405465 0 1.25276 690.776 0"},
	{Def{Kind: "log", Of: "d", Scale: 3}, datasets.Field{Type: datasets.Decimal, Scale: 3}, "0.916 0 4.615 0.113 0"},
	{Def{Kind: "clip", Of: "a", Min: ref(0), Max: ref(2)}, datasets.Field{Type: datasets.Int64}, "1 0 2 2 0"},
	{Def{Kind: "clip", Of: "d", Max: ref(1.25)}, datasets.Field{Type: datasets.Decimal, Scale: 2},
		"1.25 -0.25 1.25 0.12 0"},
	{Def{Kind: "clip", Of: "x", Min: ref(-1)}, datasets.Field{Type: datasets.Float64}, "0.5 -1 2.5 1e+300 0"},
	{Def{Kind: "bins", Of: "a", Edges: []float64{0, 1, 2.5}}, datasets.Field{Type: datasets.Int64}, "2 0 3 3 1"},
	{Def{Kind: "bins", Of: "d", Edges: []float64{0.12, 1.5}}, datasets.Field{Type: datasets.Int64}, "2 0 2 1 0"},
	{Def{Kind: "bins", Of: "y", Edges: []float64{0, 3}, Null: ref(9)}, datasets.Field{Type: datasets.Int64}, "1 1 0 9 2"},
	{Def{Kind: "hash", Of: "a", Buckets: 1}, datasets.Field{Type: datasets.Int64}, "0 0 0 0 0"},
	{Def{Kind: "hash", Of: "a", Buckets: 100}, datasets.Field{Type: datasets.Int64}, "82 94 26 59 60"},
	{Def{Kind: "hash", Of: "r", Buckets: 100}, datasets.Field{Type: datasets.Int64, Nullable: true}, "20 14 47 - 93"},
	{Def{Kind: "vocabulary", Of: "s", Values: []string{"Shop", "web"}}, datasets.Field{Type: datasets.Int64}, "2 1 0 0 0"},
	{Def{Kind: "vocabulary", Of: "b", Values: []string{"0", "-1", "2"}},
		datasets.Field{Type: datasets.Int64, Nullable: true}, "3 0 1 - 2"},
	{Def{Kind: "length", Of: "s"}, datasets.Field{Type: datasets.Int64}, "3 4 0 6 5"},
	{Def{Kind: "words", Of: "r", Null: ref(0)}, datasets.Field{Type: datasets.Int64}, "1 2 1 0 4"},
	{Def{Kind: "sentiment", Of: "r"}, datasets.Field{Type: datasets.Float64, Nullable: true}, "0.6 -0.3 0 - -0.45"},
	{Def{Kind: "calendar", Of: "hour"}, datasets.Field{Type: datasets.Int64}, "1 1 1 1 23"},
	{Def{Kind: "condition", Expr: "b > 0"}, datasets.Field{Type: datasets.Int64}, "1 1 0 0 0"},
	{Def{Kind: "condition", Expr: "b"}, datasets.Field{Type: datasets.Int64}, "1 1 0 0 1"},
	{Def{Kind: "expr", Expr: "b > 0", Scale: -1}, datasets.Field{Type: datasets.Int64}, "1 1 0 0 0"},
	{Def{Kind: "expr", Expr: "b > 0", Scale: -1, Null: ref(-1)}, datasets.Field{Type: datasets.Int64}, "1 1 0 -1 0"},
	{Def{Kind: "expr", Expr: "a * 2", Scale: -1}, datasets.Field{Type: datasets.Int64}, "2 -4 6 14 0"},
	{Def{Kind: "expr", Expr: "a / b", Scale: -1}, datasets.Field{Type: datasets.Float64, Nullable: true},
		"0.5 -0.666667 0 - -0"}, // 0/-1 is -0
	{Def{Kind: "expr", Expr: "a / b", Scale: -1, Empty: ref(7)}, datasets.Field{Type: datasets.Float64, Nullable: true},
		"0.5 -0.666667 7 - -0"},
	{Def{Kind: "expr", Expr: "a / b", Scale: 2}, datasets.Field{Type: datasets.Decimal, Scale: 2, Nullable: true},
		"0.5 -0.67 0 - 0"},
	{Def{Kind: "expr", Expr: "x", Scale: 0}, datasets.Field{Type: datasets.Int64}, "0 -2 2 0 0"},
	{Def{Kind: "expr", Expr: "x", Scale: 0, Empty: ref(-7)}, datasets.Field{Type: datasets.Int64}, "0 -2 2 -7 0"},
	{Def{Kind: "expr", Expr: "d", Scale: -1}, datasets.Field{Type: datasets.Float64}, "1.5 -0.25 99.99 0.12 0"},
	{Def{Kind: "expr", Expr: "d", Scale: 2}, datasets.Field{Type: datasets.Decimal, Scale: 2}, "1.5 -0.25 99.99 0.12 0"},
	{Def{Kind: "expr", Expr: "d", Scale: 1}, datasets.Field{Type: datasets.Decimal, Scale: 1}, "1.5 -0.2 100 0.1 0"},
	{Def{Kind: "expr", Expr: "lower(trim(s))", Scale: -1}, datasets.Field{Type: datasets.String},
		`"web" "shop" "" "zürich" "app"`},
	{Def{Kind: "expr", Expr: "b ?? 1", Scale: -1}, datasets.Field{Type: datasets.Int64}, "2 3 0 1 -1"},
	{Def{Kind: "expr", Expr: "a ?? b", Scale: -1}, datasets.Field{Type: datasets.Int64}, "1 -2 3 7 0"},
	{Def{Kind: "expr", Expr: "b ?? y", Scale: -1}, datasets.Field{Type: datasets.Float64, Nullable: true}, "2 3 0 - -1"},
	{Def{Kind: "expr", Expr: "b == nil", Scale: -1}, datasets.Field{Type: datasets.Int64}, "0 0 0 1 0"},
	{Def{Kind: "expr", Expr: "9", Scale: -1}, datasets.Field{Type: datasets.Int64}, "9 9 9 9 9"},
}

func TestKinds(t *testing.T) {
	o := Options{Zone: zone(t, "Europe/Brussels"), Time: "at"}
	for _, c := range kindCases {
		c.def.Name, c.field.Name = "f", "f"
		p := compile(t, o, c.def)
		if got := p.Fields(); len(got) != 1 || got[0] != c.field {
			t.Errorf("%+v gives %+v", c.def, got)
		}
		out := p.Run(testColumns(), 5)
		if got := column(p.Fields()[0], out[len(out)-1], 5); got != c.want {
			t.Errorf("%s %s%s: %s, want %s", c.def.Kind, c.def.Of, c.def.Expr, got, c.want)
		}
	}
}

func TestHashedWords(t *testing.T) {
	p := compile(t, Options{}, Def{Name: "w", Kind: "hashed_words", Of: "r", Buckets: 4},
		Def{Name: "n", Kind: "words", Of: "r"},
		Def{Name: "z", Kind: "hashed_words", Of: "r", Buckets: 2, Null: ref(-1)})
	if from, to := p.Columns(0); from != 0 || to != 4 {
		t.Errorf("columns %d to %d", from, to)
	}
	if from, to := p.Columns(1); from != 4 || to != 5 {
		t.Errorf("columns %d to %d", from, to)
	}
	for range 2 { // the second Run clears what the first counted
		out := p.Run(testColumns(), 5)[len(testFields):]
		for i := range 5 {
			var sum int64
			for k := range 4 {
				sum += out[k].Ints[i]
				if out[k].IsNull(i) != (i == 3) {
					t.Errorf("%s: null in row %d: %t", p.Fields()[k].Name, i, out[k].IsNull(i))
				}
			}
			if sum != out[4].Ints[i] {
				t.Errorf("row %d: %d words in buckets, %d words", i, sum, out[4].Ints[i])
			}
		}
		if out[5].Ints[3] != -1 || out[6].Ints[3] != -1 || out[5].Null != nil {
			t.Error("null is not -1")
		}
		if got := out[Hash("good")%4].Ints[1]; got < 1 {
			t.Error("good is not in its bucket")
		}
	}
}

// A definition reads columns of those before it, after their null and empty have been put in.
func TestChain(t *testing.T) {
	p := compile(t, Options{Time: "at"},
		Def{Name: "ratio", Kind: "expr", Expr: "a / b", Scale: 2, Null: ref(-1), Empty: ref(50)},
		Def{Name: "twice", Kind: "expr", Expr: "ratio * 2", Scale: -1},
		Def{Name: "bin", Kind: "bins", Of: "ratio", Edges: []float64{0}},
		Def{Name: "low", Kind: "expr", Expr: "lower(r)", Scale: -1},
		Def{Name: "voc", Kind: "vocabulary", Of: "low", Values: []string{"don't"}},
		Def{Name: "a", Kind: "value", Of: "a"}, // a feature may have its column's name
		Def{Name: "clock", Kind: "cyclic", Of: "hour"},
		Def{Name: "both", Kind: "expr", Expr: "a + clock_cos", Scale: -1},
	)
	out := p.Run(testColumns(), 5)
	var got []string
	for i, f := range p.Fields() {
		got = append(got, f.Name+": "+column(f, out[len(testFields)+i], 5))
	}
	want := `ratio: 0.5 -0.67 50 -1 0
twice: 1 -1.34 100 -2 0
bin: 1 0 1 0 1
low: "good" "not good!" "don't" - "it is late, bad"
voc: 0 0 1 - 0
a: 1 -2 3 7 0
clock_sin: 0 0 0 0 -0.5
clock_cos: 1 1 1 1 0.866025
both: 2 -1 4 8 0.866025`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	if got := fmt.Sprint(p.Inputs()); got != "[a b r at]" {
		t.Errorf("inputs %s", got)
	}
}

// Not a number, infinities, and whole numbers beyond 64 bits are empty, or 0, in every kind that can meet them.
func TestNotFinite(t *testing.T) {
	in := []datasets.Field{{Name: "x", Type: datasets.Float64}, {Name: "i", Type: datasets.Int64}}
	cols := []datasets.Column{
		{Floats: []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e19, 2}},
		{Ints: []int64{math.MaxInt64, math.MinInt64, -1, 0, 2}},
	}
	for _, c := range []struct {
		def  Def
		want string
	}{
		{Def{Kind: "value", Of: "x"}, "8 8 8 1e+19 2"},
		{Def{Kind: "clip", Of: "x", Min: ref(0), Max: ref(3)}, "8 8 8 3 2"},
		{Def{Kind: "log", Of: "x", Scale: -1}, "8 8 8 43.7491 1.09861"},
		{Def{Kind: "bins", Of: "x", Edges: []float64{0, 1}}, "8 8 8 2 2"},
		{Def{Kind: "expr", Expr: "x + 1", Scale: -1}, "8 8 8 1e+19 3"},
		{Def{Kind: "expr", Expr: "x + 1", Scale: 1}, "8 8 8 8 3"},
		{Def{Kind: "expr", Expr: "int(x)", Scale: -1}, "8 8 8 8 2"},
		{Def{Kind: "expr", Expr: "int(x) * 1.5", Scale: -1}, "8 8 8 8 3"},
		{Def{Kind: "expr", Expr: "int(9223372036854775808.0)", Scale: -1}, "8 8 8 8 8"},
		{Def{Kind: "expr", Expr: "int(-9223372036854775808.0) + 1", Scale: -1},
			strings.Repeat("-9223372036854775807 ", 4) + "-9223372036854775807"},
		{Def{Kind: "expr", Expr: "i + 1", Scale: -1}, "8 -9223372036854775807 0 1 3"},
		{Def{Kind: "expr", Expr: "i - 1", Scale: -1}, "9223372036854775806 8 -2 -1 1"},
		{Def{Kind: "expr", Expr: "i * i", Scale: -1}, "8 8 1 0 4"},
		{Def{Kind: "expr", Expr: "i * -1", Scale: -1}, "-9223372036854775807 8 1 0 -2"},
		{Def{Kind: "expr", Expr: "-i", Scale: -1}, "-9223372036854775807 8 1 0 -2"},
		{Def{Kind: "expr", Expr: "abs(i)", Scale: -1}, "9223372036854775807 8 1 0 2"},
		{Def{Kind: "expr", Expr: "10 % i", Scale: -1}, "10 10 0 8 0"},
		{Def{Kind: "expr", Expr: "i % -1", Scale: -1}, "0 0 0 0 0"},
		{Def{Kind: "expr", Expr: "(i + 1) / 1", Scale: -1}, "8 -9.22337e+18 0 1 3"},
		{Def{Kind: "expr", Expr: "max(i + 1, 0)", Scale: -1}, "8 0 0 1 3"},
		{Def{Kind: "expr", Expr: "i > 0 ? i + 1 : 5", Scale: -1}, "8 5 5 5 3"},
		{Def{Kind: "expr", Expr: "sqrt(i)", Scale: -1}, "3.037e+09 8 8 0 1.41421"},
		{Def{Kind: "expr", Expr: "log(i)", Scale: -1}, "43.6683 8 8 8 0.693147"},
		// comparisons: false of what is no number, but for !=
		{Def{Kind: "expr", Expr: "i + 1 > -9", Scale: -1}, "0 0 1 1 1"},
		{Def{Kind: "expr", Expr: "i + 1 <= 0 or x > 1", Scale: -1}, "0 1 1 1 1"},
		{Def{Kind: "expr", Expr: "i + 1 != 3", Scale: -1}, "1 1 1 1 0"},
		{Def{Kind: "expr", Expr: "i + 1 != 2.5", Scale: -1}, "1 1 1 1 1"},
		{Def{Kind: "expr", Expr: "x != 2", Scale: -1}, "1 1 1 1 0"},
		{Def{Kind: "expr", Expr: "i + 1 in [1, 3]", Scale: -1}, "0 0 0 1 1"},
		{Def{Kind: "expr", Expr: "i + 1 in 1..3", Scale: -1}, "0 0 0 1 1"},
		{Def{Kind: "expr", Expr: "(i + 1) ?? 4", Scale: -1}, "8 -9223372036854775807 0 1 3"},
		{Def{Kind: "expr", Expr: "not (i + 1)", Scale: -1}, "1 0 1 0 0"},
		// exact comparisons at the ends of 64 bits
		{Def{Kind: "expr", Expr: "i > 9.3e18", Scale: -1}, "0 0 0 0 0"},
		{Def{Kind: "expr", Expr: "i <= 9.3e18", Scale: -1}, "1 1 1 1 1"},
		{Def{Kind: "expr", Expr: "i > -9.3e18", Scale: -1}, "1 1 1 1 1"},
		{Def{Kind: "expr", Expr: "i < -9.3e18", Scale: -1}, "0 0 0 0 0"},
		{Def{Kind: "expr", Expr: "i == 9.3e18", Scale: -1}, "0 0 0 0 0"},
		{Def{Kind: "expr", Expr: "i != 9.3e18", Scale: -1}, "1 1 1 1 1"},
		{Def{Kind: "expr", Expr: "i >= 9223372036854775807", Scale: -1}, "1 0 0 0 0"},
		{Def{Kind: "expr", Expr: "i > 1.5", Scale: -1}, "1 0 0 0 1"},
		{Def{Kind: "expr", Expr: "-1.5 < i", Scale: -1}, "1 0 1 1 1"},
		{Def{Kind: "expr", Expr: "-1 >= i", Scale: -1}, "0 1 1 0 0"},
	} {
		c.def.Name, c.def.Empty = "f", ref(8)
		p, faults := Compile([]Def{c.def}, in, Options{})
		if len(faults) > 0 {
			t.Errorf("%+v: %v", c.def, faults)
			continue
		}
		if got := column(p.Fields()[0], p.Run(cols, 5)[2], 5); got != c.want {
			t.Errorf("%s %s%s: %s, want %s", c.def.Kind, c.def.Of, c.def.Expr, got, c.want)
		}
	}
}

// toScale against arbitrary precision.
func TestToScale(t *testing.T) {
	for _, c := range []struct {
		x     float64
		scale int
		want  int64
	}{
		{0.5, 0, 0}, {1.5, 0, 2}, {2.5, 0, 2}, {-2.5, 0, -2}, {0.125, 2, 12}, {0.375, 2, 38},
		{1.005, 2, 100}, {0.285, 2, 28}, {1.115, 2, 111}, {2.675, 2, 267}, // what these float64 are, exactly
		{0.15, 1, 1}, {0.25, 1, 2}, {0.35, 1, 3}, {-0.35, 1, -3}, {0.45, 1, 5}, {1e17, 0, 1e17},
	} {
		if got, ok := toScale(c.x, math.Pow10(c.scale)); !ok || got != c.want {
			t.Errorf("%v to %d decimals: %d, want %d", c.x, c.scale, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		scale := rapid.IntRange(0, 8).Draw(t, "scale")
		x := rapid.Float64Range(-1e6, 1e6).Draw(t, "x")
		if rapid.Bool().Draw(t, "half") { // next to a half
			x = (float64(rapid.Int64Range(-1e6, 1e6).Draw(t, "k")) + 0.5) / math.Pow10(scale)
		}
		got, _ := toScale(x, math.Pow10(scale))
		if want := roundExact(x, scale); got != want {
			t.Fatalf("%v to %d decimals: %d, want %d", x, scale, got, want)
		}
	})
	for _, x := range []float64{1e18, -1e18, math.NaN(), math.Inf(1)} {
		if _, ok := toScale(x, 1); ok {
			t.Errorf("%v fits", x)
		}
	}
}

// allRows computes rows in pieces, and shows them.
func allRows(p *Program, cols []datasets.Column, n int, cuts []int) string {
	var s strings.Builder
	from := 0
	for _, to := range append(cuts, n) {
		part := make([]datasets.Column, len(cols))
		for i, c := range cols {
			b := datasets.Batch{Schema: &datasets.Schema{Fields: testFields[i : i+1]}, N: n, Columns: []datasets.Column{c}}
			part[i] = b.Slice(from, to).Columns[0]
		}
		out := p.Run(part, to-from)
		for row := range to - from {
			for k, f := range p.Fields() {
				c := out[len(cols)+k]
				switch {
				case c.IsNull(row):
					s.WriteString("- ")
				case f.Type == datasets.Float64:
					fmt.Fprintf(&s, "%x ", math.Float64bits(c.Floats[row]))
				default:
					s.WriteString(datasets.FormatValue(&f, &c, row) + " ")
				}
			}
		}
		from = to
	}
	return s.String()
}

// manyRows are n rows of all types with nulls, in no order.
func manyRows(t *rapid.T, n int) []datasets.Column {
	seed := rapid.Uint64().Draw(t, "rows")
	next := func() uint64 { seed = finish(seed + 0x9e3779b97f4a7c15); return seed }
	few := testColumns()
	cols := make([]datasets.Column, len(few))
	for i, f := range testFields {
		for range n {
			k := int(next() % 5)
			isNull := f.Nullable && next()%4 == 0
			switch {
			case f.Type == datasets.String:
				cols[i].Strings = append(cols[i].Strings, few[i].Strings[k])
			case f.Type == datasets.Float64:
				cols[i].Floats = append(cols[i].Floats, few[i].Floats[k])
			default:
				cols[i].Ints = append(cols[i].Ints, few[i].Ints[k])
			}
			if f.Nullable {
				cols[i].Null = append(cols[i].Null, isNull)
				if isNull {
					switch {
					case f.Type == datasets.String:
						cols[i].Strings[len(cols[i].Strings)-1] = ""
					case f.Type == datasets.Float64:
						cols[i].Floats[len(cols[i].Floats)-1] = 0
					default:
						cols[i].Ints[len(cols[i].Ints)-1] = 0
					}
				}
			}
		}
	}
	return cols
}

// The bits do not depend on how rows are cut, nor on what was computed before, nor on being a clone.
func TestCuts(t *testing.T) {
	var defs []Def
	for i, c := range kindCases {
		c.def.Name = fmt.Sprintf("f%d", i)
		defs = append(defs, c.def)
	}
	defs = append(defs, Def{Name: "w", Kind: "hashed_words", Of: "r", Buckets: 3},
		Def{Name: "c", Kind: "cyclic", Of: "minute_of_day"})
	p := compile(t, Options{Zone: zone(t, "America/New_York"), Time: "at"}, defs...)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{0, 1, 2, block - 1, block, block + 1, 3*block + 7}).Draw(t, "n")
		cols := manyRows(t, n)
		want := allRows(p, cols, n, nil)
		var cuts []int
		for at := 0; ; {
			at += rapid.IntRange(1, 2*block).Draw(t, "cut")
			if at >= n {
				break
			}
			cuts = append(cuts, at)
		}
		if allRows(p, cols, n, cuts) != want || allRows(p.Clone(), cols, n, cuts) != want {
			t.Fatal("cut rows differ")
		}
	})
}

// Nothing is allocated once warm, for one row and for many.
func TestAllocations(t *testing.T) {
	var defs []Def
	for i, c := range kindCases {
		c.def.Name = fmt.Sprintf("f%d", i)
		defs = append(defs, c.def)
	}
	p := compile(t, Options{Zone: zone(t, "Europe/Brussels"), Time: "at"}, defs...)
	cols := testColumns()
	for _, n := range []int{5, 1} {
		p.Run(cols, n)
		if allocs := testing.AllocsPerRun(100, func() { p.Run(cols, n) }); allocs != 0 {
			t.Errorf("%v allocations for %d rows", allocs, n)
		}
	}
}

// The memory of texts is used again.
func TestTextMemory(t *testing.T) {
	p := compile(t, Options{}, Def{Name: "f", Kind: "expr", Expr: "upper(s)", Scale: -1})
	p.Run(testColumns(), 5)
	before := cap(p.mem.text)
	for range 100 {
		p.Run(testColumns(), 5)
	}
	if after := cap(p.mem.text); after != before || before == 0 {
		t.Errorf("%d bytes became %d", before, after)
	}
}

// Clones run at the same time.
func TestClones(t *testing.T) {
	var defs []Def
	for i, c := range kindCases {
		c.def.Name = fmt.Sprintf("f%d", i)
		defs = append(defs, c.def)
	}
	p := compile(t, Options{Zone: zone(t, "Europe/Brussels"), Time: "at"}, defs...)
	want := allRows(p, testColumns(), 5, nil)
	var all sync.WaitGroup
	for range 4 {
		c := p.Clone()
		all.Go(func() {
			for range 50 {
				if got := allRows(c, testColumns(), 5, nil); got != want {
					t.Error("a clone differs")
					return
				}
			}
		})
	}
	all.Wait()
}

func TestFaults(t *testing.T) {
	def := func(d Def) []Def { return []Def{d} }
	for _, c := range []struct {
		defs  []Def
		field string
		want  string
	}{
		{def(Def{Kind: "vale", Of: "a"}), "kind", `there is no kind "vale" of a row; did you mean value?`},
		{def(Def{Kind: "value", Of: "amuont"}), "of",
			"there is no column amuont; there are a, b, d, e, x, y, s, r, at, since"},
		{def(Def{Kind: "value", Of: "snce"}), "of", "there is no column snce; did you mean since?"},
		{def(Def{Kind: "value"}), "of", "value needs the column that it is of"},
		{def(Def{Kind: "value", Of: "s"}), "of", "value is of a number, and s is text"},
		{def(Def{Kind: "value", Of: "at"}), "of",
			"value is of a number, and at is a time; calendar and cyclic have the values of the event time"},
		{def(Def{Kind: "value", Of: "b", Null: ref(.5)}), "null",
			"null 0.5 is not a whole number, and the column has whole numbers: round it"},
		{def(Def{Kind: "value", Of: "d", Null: ref(.555)}), "null",
			"null 0.555 has more decimals than its column, which has 2: round it"},
		{def(Def{Kind: "value", Of: "y", Null: ref(math.NaN())}), "null", "null NaN is not a finite number"},
		{def(Def{Kind: "value", Of: "e", Null: ref(1e16)}), "null", "null 1e+16 is too large for its column"},
		{def(Def{Kind: "expr", Expr: "int(x)", Empty: ref(.5)}), "empty",
			"empty 0.5 is not a whole number, and the column has whole numbers: round it"},
		{def(Def{Kind: "calendar", Of: "week_day"}), "of",
			`"week_day" is nothing that a calendar shows; did you mean weekday?`},
		{def(Def{Kind: "calendar", Of: "holiday"}), "of", "holiday needs the list of holidays"},
		{def(Def{Kind: "cyclic", Of: "year"}), "of",
			"year does not come round; cyclic is of hour, minute_of_day, weekday, day, yearday, week, month"},
		{def(Def{Kind: "clip", Of: "a"}), "min", "clip needs min, max or both"},
		{def(Def{Kind: "clip", Of: "a", Min: ref(2), Max: ref(1)}), "max", "max 1 is below min 2"},
		{def(Def{Kind: "clip", Of: "a", Min: ref(2.5)}), "min",
			"min 2.5 is not a whole number, and the column has whole numbers: round it"},
		{def(Def{Kind: "bins", Of: "a"}), "edges", "bins needs edges, such as [10, 100]"},
		{def(Def{Kind: "bins", Of: "a", Edges: []float64{1, 1}}), "edges", "edges have to ascend, and 1 stands before 1"},
		{def(Def{Kind: "bins", Of: "a", Edges: []float64{math.Inf(1)}}), "edges", "edge +Inf is not a finite number"},
		{def(Def{Kind: "hash", Of: "a"}), "buckets", "hash needs buckets, 1 to 1073741824, and has 0"},
		{def(Def{Kind: "hash", Of: "d", Buckets: 2}), "of", "hash is of a whole number or text, and d is a decimal"},
		{def(Def{Kind: "hashed_words", Of: "s", Buckets: 5000}), "buckets",
			"hashed_words needs buckets, 1 to 4096, and has 5000"},
		{def(Def{Kind: "vocabulary", Of: "s"}), "values", "vocabulary needs the values that it knows"},
		{def(Def{Kind: "vocabulary", Of: "s", Values: []string{"a", "a"}}), "values", `"a" is there twice`},
		{def(Def{Kind: "vocabulary", Of: "a", Values: []string{"x"}}), "values",
			`"x" is not a whole number as a has them, or is there twice`},
		{def(Def{Kind: "words", Of: "a"}), "of", "words is of text, and a is a whole number"},
		{def(Def{Kind: "log", Of: "a", Scale: 19}), "scale", "scale 19: want -1 to 18"},
		{def(Def{Kind: "expr", Expr: "lower(s)", Null: ref(1)}), "null",
			"f is text, and null a number; use ?? in the expression"},
		{[]Def{{Name: "f", Kind: "value", Of: "f"}}, "of", "f reads itself"},
		{[]Def{{Name: "f", Kind: "value", Of: "g"}, {Name: "g", Kind: "value", Of: "a"}}, "of",
			"g is defined further down, and a feature reads what stands before it: move it up, unless that is circular"},
		{[]Def{{Name: "f", Kind: "value", Of: "a"}, {Name: "f", Kind: "value", Of: "a"}}, "name",
			"f is there twice: feature 1 makes it too"},
		{[]Def{{Name: "b", Kind: "value", Of: "b", Null: ref(1)}, {Name: "g", Kind: "value", Of: "b"}}, "of",
			"b is a column and a feature: give the feature another name"},
		{[]Def{{Name: "a", Kind: "log", Of: "a"}, {Name: "g", Kind: "value", Of: "a"}}, "of",
			"a is a column and a feature: give the feature another name"},
	} {
		if c.defs[0].Name == "" {
			c.defs[0].Name = "f"
		}
		p, faults := Compile(c.defs, testFields, Options{Time: "at"})
		if p != nil || len(faults) != 1 || faults[0].Field != c.field || faults[0].Text != c.want || faults[0].Offset != -1 {
			t.Errorf("%+v: %+v", c.defs, faults)
		}
	}
}

// All faults come at once, in order; a definition that reads a faulty one is not a second fault.
func TestAllFaults(t *testing.T) {
	_, faults := Compile([]Def{
		{Name: "f", Kind: "clip", Of: "nix", Min: ref(2), Max: ref(1)},
		{Name: "g", Kind: "value", Of: "f"},
		{Name: "h", Kind: "expr", Expr: "nix + s + (a and x)", Scale: -1},
		{Name: "i", Kind: "hour"},
		{Name: "j", Kind: "calendar", Of: "holiday"},
	}, testFields, Options{Time: "at", Holidays: []string{"2024-13-01", "12-25", "Easter"}})
	var got []string
	for _, f := range faults {
		got = append(got, fmt.Sprintf("%d %s %d %s", f.Def, f.Field, f.Offset, f.Text))
	}
	want := `0 of -1 there is no column nix; did you mean x?
0 max -1 max 1 is below min 2
2 expr 0 there is no column nix; did you mean x?
2 expr 17 and needs a condition, and x is a number
3 kind -1 there is no kind "hour" of a row; did you mean one of ` + strings.Join(kinds, ", ") + `?
4 holidays -1 holiday "2024-13-01": want a date such as 2026-12-25, or 12-25 for every year
4 holidays -1 holiday "Easter": want a date such as 2026-12-25, or 12-25 for every year`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	if _, faults := Compile([]Def{{Name: "f", Kind: "calendar", Of: "hour"}}, testFields,
		Options{Time: "when"}); len(faults) != 1 ||
		faults[0].Text != `calendar needs the column of the event time, "when", and the data has none of type time` {
		t.Errorf("%v", faults)
	}
}

// TestPowOfSquares holds pow to the bits of math.Pow, over all magnitudes.
func TestPowOfSquares(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range 1_000_000 {
		x := math.Float64frombits(rnd.Uint64())
		if i%2 == 0 {
			x = math.Ldexp(rnd.Float64()-0.5, rnd.IntN(40)-20)
		}
		if got, want := pow(x, 2), math.Pow(x, 2); math.Float64bits(got) != math.Float64bits(want) && want == want {
			t.Fatalf("pow(%v, 2) is %v, want %v", x, got, want)
		}
	}
}
