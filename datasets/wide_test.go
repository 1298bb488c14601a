package datasets

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const wideMap = `timezone: Europe/London
returns: true
wide:
  keys: {product_id: item, store_id: shop}
  ignore: [note]
  start: 2011-03-26 06:00:00
  step: %s
  align: %s
  value: {name: units, scale: 1}
`

func wideImport(t testing.TB, m *Mapping, o ImportOptions, files ...string) (*Manifest, *Dataset, error) {
	t.Helper()
	dir := t.TempDir()
	for i, text := range files {
		path := filepath.Join(dir, fmt.Sprintf("f%d.csv", i))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		o.Files = append(o.Files, path)
	}
	o.Mapping, o.Out = m, filepath.Join(dir, "out")
	manifest, err := Import(t.Context(), o)
	if err != nil {
		return nil, nil, err
	}
	d, err := Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	return manifest, d, nil
}

// wideRows shows a data set's values, a line each: id, line, time and value.
func wideRows(t testing.TB, d *Dataset, loc *time.Location) string {
	t.Helper()
	var out strings.Builder
	if err := d.Read(t.Context(), ReadOptions{}, func(b *Batch) error {
		for i := range b.N {
			fmt.Fprintf(&out, "%s %d %s", b.Column(TransID).Strings[i], b.Column(Line).Ints[i],
				time.UnixMicro(b.Column(TransDatetime).Ints[i]).In(loc).Format("01-02 15:04"))
			last := len(b.Columns) - 1
			fmt.Fprintf(&out, " %s\n", FormatValue(&b.Schema.Fields[last], &b.Columns[last], i))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func wideMapping(t testing.TB, step, align string) *Mapping {
	t.Helper()
	m, err := ParseMapping("m.yaml", fmt.Appendf(nil, wideMap, step, align))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Rows of different lengths, gaps, quotes, values with too many decimals, and a day of 23 hours.
func TestWideImport(t *testing.T) {
	london, err := time.LoadLocation("Europe/London")
	if err != nil {
		t.Fatal(err)
	}
	text := "item,\"shop\",note,v1,v2,v3,v4\na,s1,x,1,\"2.5\",-3,\n\"b\",s1,\"x,y\",,4.26,NA,5,\nc,s2,,7\n"
	text = strings.Replace(text, "5,\n", "5\n", 1)
	for _, c := range []struct{ step, align, want string }{
		{"day", "start", `a|s1 0 03-26 06:00 1
c|s2 0 03-26 06:00 7
a|s1 1 03-27 06:00 2.5
b|s1 1 03-27 06:00 4.3
a|s1 2 03-28 06:00 -3
b|s1 3 03-29 06:00 5
`},
		{"day", "end", `a|s1 0 03-27 06:00 1
b|s1 1 03-27 06:00 4.3
a|s1 1 03-28 06:00 2.5
a|s1 2 03-29 06:00 -3
b|s1 3 03-29 06:00 5
c|s2 0 03-29 06:00 7
`},
		{"week", "start", `a|s1 0 03-26 06:00 1
c|s2 0 03-26 06:00 7
a|s1 1 04-02 06:00 2.5
b|s1 1 04-02 06:00 4.3
a|s1 2 04-09 06:00 -3
b|s1 3 04-16 06:00 5
`},
	} {
		m, d, err := wideImport(t, wideMapping(t, c.step, c.align), ImportOptions{}, text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, wideRows(t, d, london)); diff != "" {
			t.Errorf("%s, %s: %s", c.step, c.align, diff)
		}
		want := map[string]int64{CountRead: 6, CountKept: 6, CountRejected: 0, CountDuplicates: 0, CountRounded: 1, CountMissing: 2}
		if diff := cmp.Diff(want, m.Counts); diff != "" {
			t.Error(diff)
		}
		if got := showSchema(d.Schema()); got != "trans_id:string line:int64 trans_datetime:time product_id:string store_id:string units:decimal1" {
			t.Error(got)
		}
	}
	// Hours go on over a change of the clock: 00:00, 02:00 is the next but one hour of the clock, 60 minutes later each.
	m, err := WideMapping(WideOptions{Start: "2011-03-27", Step: "hour", Location: london, Scale: 0})
	if err != nil {
		t.Fatal(err)
	}
	_, d, err := wideImport(t, m, ImportOptions{}, "id,1,2,3\nx,1,2,3\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := wideRows(t, d, london); got != "x 0 03-27 00:00 1\nx 1 03-27 02:00 2\nx 2 03-27 03:00 3\n" {
		t.Error(got)
	}
}

// A series goes on from one file to the next, and from a data set to a file that continues it, each from its own end.
func TestWideContinues(t *testing.T) {
	m := wideMapping(t, "hour", "start")
	first := "item,shop,note,v1,v2,v3\na,s,,1,2,3\nb,s,,4\n"
	second := "item,shop,note,v1\nb,s,,5\na,s,,6\n"
	_, both, err := wideImport(t, m, ImportOptions{}, first, second)
	if err != nil {
		t.Fatal(err)
	}
	want := "a|s 0 03-26 06:00 1\nb|s 0 03-26 06:00 4\na|s 1 03-26 07:00 2\nb|s 1 03-26 07:00 5\na|s 2 03-26 08:00 3\na|s 3 03-26 09:00 6\n"
	if diff := cmp.Diff(want, wideRows(t, both, time.UTC)); diff != "" {
		t.Error(diff)
	}
	_, d, err := wideImport(t, m, ImportOptions{}, first)
	if err != nil {
		t.Fatal(err)
	}
	_, after, err := wideImport(t, m, ImportOptions{Continue: d}, second)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("b|s 1 03-26 07:00 5\na|s 3 03-26 09:00 6\n", wideRows(t, after, time.UTC)); diff != "" {
		t.Error(diff)
	}
	if _, _, err := wideImport(t, m, ImportOptions{Continue: d, MaxRejects: 0}, "item,shop,note,v1\nz,s,,5\n"); err == nil || !strings.Contains(err.Error(), "series z|s is not in") {
		t.Errorf("an unknown series: %v", err)
	}
}

// What cannot be read is a reject with its place; what is wrong with a file or a mapping is an error.
func TestWideFaults(t *testing.T) {
	m := wideMapping(t, "hour", "start")
	manifest, d, err := wideImport(t, m, ImportOptions{MaxRejects: 1}, "item,shop,note,v1,v2,v3\na,s,,1,x,3\na,s,,1\n,s,,1\nb,s,,1,2,3,4\nc,s,,1e30\n")
	if err != nil {
		t.Fatal(err)
	}
	if manifest.Counts[CountRejected] != 5 || manifest.Counts[CountKept] != 2 {
		t.Errorf("%v", manifest.Counts)
	}
	rejects, err := os.ReadFile(filepath.Join(d.Dir(), RejectsFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"line":2,"column":"v2","reason":"series a|s: \"x\" is not a number"`, `"line":3,"reason":"series a|s is there twice"`,
		`"line":4,"reason":"product_id is empty"`, `"line":5,"reason":"7 fields, where the header has 6"`, `"line":6,"column":"v1","reason":"series c|s: \"1e30\" is too large"`} {
		if !strings.Contains(string(rejects), want) {
			t.Errorf("no reject has %s in\n%s", want, rejects)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"", "is empty: want a header line"},
		{"item,shop,note,v1\n", "has a header and no rows"},
		{"item,shopp,note,v1\na,b,c,1\n", "the header lacks shop"},
		{"item,shop,note\na,b,c\n", "the header names no values"},
		{"item,shop,note,v1\na,b,c,\n", "none of the rows can be used"},
	} {
		if _, _, err := wideImport(t, m, ImportOptions{MaxRejects: 1}, c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v; want %s", c.text, err, c.want)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"timezone: UTC\nwide: {keys: {trans_id: a}, start: monday, step: month, align: left, value: {name: \"a b\", scale: 12}}\n",
			`m.yaml:2: wide: keys: a series cannot be named by "trans_id"
m.yaml:2: wide: step: want hour, day, week, not "month"
m.yaml:2: wide: align: want start or end, not "left"
m.yaml:2: wide: value: "a b" cannot be the name of a column
m.yaml:2: wide: value: scale: want the digits after the point, 0 to 9
m.yaml:2: wide: start "monday": want a date or time, such as 2000-01-01 or 2000-01-01 06:00:00`},
		{"timezone: UTC\nwide: {}\n", "m.yaml:2: wide: keys is missing\nm.yaml:2: wide: start is missing\nm.yaml:2: wide: step is missing"},
		{"timezone: UTC\nunique: trans_id\nwide: {keys: {product_id: a}}\n", "m.yaml:3: wide: goes with neither columns, unique nor format: jsonl"},
	} {
		if _, err := ParseMapping("m.yaml", []byte(c.text)); err == nil || err.Error() != c.want {
			t.Errorf("got\n%v\nwant\n%s", err, c.want)
		}
	}
	for _, o := range []WideOptions{{Start: "2000-01-01", Step: "month"}, {Start: "x", Step: "day"}, {Start: "2000-01-01", Step: "day", Scale: 10}} {
		if _, err := WideMapping(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	if _, err := m.NewDecoder(strings.NewReader("{}"), "x", JSONL); err == nil || !strings.Contains(err.Error(), "single events need a mapping") {
		t.Errorf("live events by a wide mapping: %v", err)
	}
	if _, _, err := wideImport(t, preset(t, "canonical"), ImportOptions{Continue: d}, "trans_id\n1\n"); err == nil || !strings.Contains(err.Error(), "only series of wide files") {
		t.Errorf("continuing what is not wide: %v", err)
	}
}

// Every value of a wide file comes out at its place: series of random lengths, gaps and values.
func TestWideProperty(t *testing.T) {
	m, err := WideMapping(WideOptions{Start: "2000-01-01", Step: "hour", AlignEnd: true, Scale: 2})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(r *rapid.T) {
		width := rapid.IntRange(1, 8).Draw(r, "width")
		text := "id"
		for i := range width {
			text += fmt.Sprintf(",v%d", i)
		}
		text += "\n"
		type value struct {
			id string
			at int // from the end
			v  int64
		}
		want := map[value]bool{}
		n, longest := rapid.IntRange(1, 5).Draw(r, "series"), 0
		for s := range n {
			id := fmt.Sprint("s", s)
			text += id
			length := rapid.IntRange(1, width).Draw(r, "length")
			for i := range length {
				v := rapid.Int64Range(-500, 500).Draw(r, "value")
				if gap := rapid.IntRange(0, 4).Draw(r, "gap") == 0; gap && i < length-1 {
					text += ",NA"
					continue
				}
				text += fmt.Sprintf(",%d.%02d", v, s)
				sign := int64(1)
				if v < 0 {
					sign = -1
				}
				want[value{id, length - 1 - i, v*100 + sign*int64(s)}] = true
			}
			longest = max(longest, length)
			text += strings.Repeat(",", rapid.IntRange(0, width-length).Draw(r, "empty")) + "\n"
		}
		_, d, err := wideImport(t, m, ImportOptions{}, text)
		if err != nil {
			r.Fatal(err)
		}
		end := time.Date(2000, 1, 1, longest-1, 0, 0, 0, time.UTC).UnixMicro()
		got := 0
		err = d.Read(t.Context(), ReadOptions{}, func(b *Batch) error {
			for i := range b.N {
				x := value{b.Column(ProductID).Strings[i], int((end - b.Column(TransDatetime).Ints[i]) / Hour), b.Column("value").Ints[i]}
				if !want[x] {
					r.Fatalf("%+v is not among the values of\n%s", x, text)
				}
				got++
			}
			return nil
		})
		if err != nil || got != len(want) {
			r.Fatalf("%d values; want %d, %v", got, len(want), err)
		}
	})
}

// M4's hourly series come in without the loss of a digit, and the test file goes on where each series ends.
func TestM4Hourly(t *testing.T) {
	const dir = "../../shared/data/m4-hourly/"
	if _, err := os.Stat(dir + "train.csv.gz"); err != nil {
		t.Skip("M4's hourly series are not here: ", err)
	}
	out := t.TempDir()
	train, err := Import(t.Context(), ImportOptions{Mapping: preset(t, "m4-hourly"), Files: []string{dir + "train.csv.gz"}, Out: filepath.Join(out, "train")})
	if err != nil {
		t.Fatal(err)
	}
	if train.Rows != 353500 || train.Counts[CountRounded]+train.Counts[CountMissing]+train.Counts[CountRejected] != 0 {
		t.Errorf("%d rows, %v", train.Rows, train.Counts)
	}
	d, err := Open(filepath.Join(out, "train"))
	if err != nil {
		t.Fatal(err)
	}
	test, err := Import(t.Context(), ImportOptions{Mapping: preset(t, "m4-hourly"), Files: []string{dir + "test.csv.gz"}, Out: filepath.Join(out, "test"), Continue: d})
	if err != nil {
		t.Fatal(err)
	}
	if test.Rows != 414*48 || test.From != train.To+Hour || test.To != train.To+48*Hour {
		t.Errorf("%d rows from %s to %s, after %s", test.Rows, FormatTime(test.From), FormatTime(test.To), FormatTime(train.To))
	}
}
