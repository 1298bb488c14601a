package features

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/onmart/onmart/datasets"
)

// Text in, faults out. An empty want means that the spec is good.
func TestParseFaults(t *testing.T) {
	const head = "name: x\nlabel: {column: is_fraud, delay: 7d}\nfeatures:\n"
	for _, c := range []struct{ name, in, want string }{
		{"good", head + "  - {name: a, kind: count, key: user_id, windows: [1d]}\n", ""},
		{"empty", "", "s.yaml: want one YAML document with the fields name, timezone, label, lateness, late, duplicates, future, holidays, where, join, keep, features, panel, interactions"},
		{"list", "- a\n", "s.yaml:1:1: spec: want a mapping with the fields name, timezone, label, lateness, late, duplicates, future, holidays, where, join, keep, features, panel, interactions"},
		{"not yaml", "name: [a\n", "s.yaml:1:7: not YAML: sequence end token ']' not found"},
		{"all at once", `nam: x
timezone: Mars/Base
lateness: 3
label: {column: is_fraud, dealy: 7d}
keep: user_id
features:
  - name: a
    kind: median
  - name: b
    kind: count
    windows: [1d, 2x, 0d]
    of: amount
    include_current: yes
    log: maybe
  - {name: c, kind: calendar, of: wekend, key: user_id}
  - name: d
    kind: mean
    of: amount
    key: user_id
    windows: [1d]
    shift: 1d
    include_current: true
  - just text
`, `s.yaml:1:1: spec: unknown field "nam" (did you mean "name"?)
s.yaml:1:1: spec: the field name is missing
s.yaml:2:11: timezone: "Mars/Base" is not a zone of the IANA list, such as UTC or Europe/Paris
s.yaml:3:11: lateness: want a duration, such as 7d, found 3
s.yaml:4:8: label: the field delay is missing
s.yaml:4:27: label: unknown field "dealy" (did you mean "delay"?)
s.yaml:5:7: keep: want a list, such as [a, b], found "user_id"
s.yaml:8:11: feature a: unknown kind "median" (did you mean "mean"?); there are ` + strings.Join(kinds, ", ") + `
s.yaml:9:5: feature b: a count needs the field key
s.yaml:11:19: feature b: windows: duration "2x": want a whole number and a unit, such as 30m, 24h or 7d
s.yaml:11:23: feature b: windows: 0d: want a window longer than nothing
s.yaml:12:9: feature b: a count has no field of
s.yaml:13:22: feature b: include_current: want true or false, found "yes"
s.yaml:14:10: feature b: log: want true or false, found "maybe"
s.yaml:15:35: feature c: of: unknown calendar value "wekend" (did you mean "weekend"?); a calendar has hour, minute_of_day, night, weekday, weekend, day, yearday, week, month, month_end, year, holiday
s.yaml:15:48: feature c: a calendar has no field key
s.yaml:22:22: feature d: include_current does not go with a shift: the current event is outside a shifted window
s.yaml:23:5: feature: want a mapping with the fields ` + strings.Join(featureFields, ", ")},
		{"names twice", "name: x\nkeep: [a, a]\nfeatures:\n  - {name: n, kinds: [count, first], key: user_id, windows: [1d, 7d]}\n  - {name: a, kind: value, of: amount}\n" +
			"  - {name: t, kind: cyclic, of: hour}\n  - {name: t_cos, kind: value, of: amount}\n",
			`s.yaml:2:11: keep: a is there twice
s.yaml:4:12: the column n is there twice: names of kept columns and features must differ (put {w}, {kind} into the feature's name)
s.yaml:5:12: the column a is there twice: names of kept columns and features must differ
s.yaml:7:12: the column t_cos is there twice: names of kept columns and features must differ`},
		{"no label", "name: x\nfeatures:\n  - {name: \"r_{w}\", kind: risk, key: store_id, windows: [1d, 7d]}\n  - {name: c, kind: count, key: store_id, windows: [1d], shift: delay}\n  - {name: v, kind: value, of: is_fraud}\n",
			`s.yaml:3:13: feature r_1d: a risk needs the spec's label (column and delay)
s.yaml:4:12: feature c: shift: delay needs the spec's label (column and delay)
s.yaml:5:32: feature v: of: is_fraud is a label, which is not known at the time of the transaction: declare it under label, and count it by a risk`},
		{"too many", head + "  - {name: a, kind: hashed_words, of: b, buckets: 4096}\n  - {name: b, kind: hashed_words, of: b, buckets: 4096}\n  - {name: c, kind: hashed_words, of: b, buckets: 4096}\n",
			"s.yaml:6:5: features: more than 10000 columns in one spec"},
		{"too long", "name: x\nlateness: 99999d\nfeatures:\n  - {name: v, kind: value, of: amount}\n", "s.yaml:2:11: lateness: 99999d is longer than 36500d"},
		{"policies", `name: x
late: {policy: drop}
duplicates: {within: 0d}
future: {}
holidays: [2026-04-06, 12-25, 2026-13-01, 12-25, 5]
features:
  - {name: v, kind: value, of: amount}
`, `s.yaml:2:16: late: policy: unknown "drop"; there are keep, skip
s.yaml:3:22: duplicates: within: want a time longer than nothing, such as 7d
s.yaml:4:9: future: the field beyond is missing
s.yaml:5:31: holidays: "2026-13-01" is not a date, such as 2026-04-06, or 12-25 for every year
s.yaml:5:43: holidays: 12-25 is there twice
s.yaml:5:50: holidays: want text, found 5`},
		{"policies of a panel", "name: x\nlate: {policy: skip}\nholidays: [12-25]\npanel: {keys: [a], step: day, demand: {of: b}}\n",
			`s.yaml:1:1: spec: the field late is for features of transactions, not for a panel or interactions
s.yaml:1:1: spec: the field holidays is for features of transactions, not for a panel or interactions`},
		{"joins", "name: x\njoin:\n  - {table: t, on: date, take: a}\n  - {table: t, on: b, since: c, take: a}\nfeatures:\n  - {name: v, kind: value, of: amount}\n",
			`s.yaml:3:5: join t: want a join by columns alone: date, since and between are for a panel
s.yaml:4:5: join t: want a join by columns alone: date, since and between are for a panel`},
		{"templates", head + `
  - {name: "{kind}_{off}", kinds: [count, count], key: [user_id, user_id], windows: [7d, 168h]}
  - {name: a, kind: [sum, mean], of: amount, key: user_id, windows: [7d]}
  - {name: "b_{w}_{n}_{key}_{of}", kind: calendar, of: hour}
  - {name: "c_{n}", kind: count, key: user_id, windows: [7d, day]}
  - {name: d, kind: count, key: user_id, keys: [store_id], windows: [7d]}
  - {name: "e_{kind}", kinds: [count, first], key: user_id, windows: [7d], include_current: true}
  - {name: "f_{kind}", kinds: [count, risk], key: user_id, windows: [7d], shift: 1d}
  - {name: "g_{key}", kind: count, keys: [user_id, [user_id]], windows: [7d], words: "{valeu} in {window}"}
  - {name: h, kind: sum, of: [amount, [x]], key: user_id, windows: [7d]}
  - {name: i, kinds: [count, sum], key: user_id, windows: [7d]}
`, `s.yaml:5:20: feature {kind}_{off}: unknown placeholder {off} (did you mean "of"?); there are {kind}, {of}, {key}, {w}, {n}
s.yaml:5:43: feature {kind}_{off}: kinds: count is there twice
s.yaml:5:66: feature {kind}_{off}: key: user_id is there twice
s.yaml:5:90: feature {kind}_{off}: windows: 168h is the same window as 7d
s.yaml:6:21: feature a: kind: want one kind; a list goes under kinds
s.yaml:7:15: feature b_{w}_{n}_{key}_{of}: {w} cannot be filled in: it has no windows
s.yaml:7:19: feature b_{w}_{n}_{key}_{of}: {n} cannot be filled in: it has no windows
s.yaml:7:23: feature b_{w}_{n}_{key}_{of}: {key} cannot be filled in: it has no key
s.yaml:8:62: feature c_{n}: windows: day has no number for {n}: write {w}
s.yaml:9:48: feature d: want either key or keys
s.yaml:10:93: feature e_{kind}: a first has no field include_current
s.yaml:11:82: feature f_{kind}: a risk has no field shift: its entries come when their labels are known
s.yaml:12:52: feature g_{key}: keys: user_id is there twice
s.yaml:12:87: feature g_{key}: words: unknown placeholder {valeu} (did you mean "value"?); there are {value}, {typical}, {window}, {kind}, {of}, {key}, {w}, {n}
s.yaml:13:39: feature h: of: want text, found a list
s.yaml:14:5: feature i: a sum needs the field of
s.yaml:14:12: the column i is there twice: names of kept columns and features must differ (put {kind} into the feature's name)`},
		{"what stands beside a window that is none", head + `
  - {name: b, kind: sum, of: is_fraud, key: user_id, windows: [7 days], where: nope(}
`, `s.yaml:5:30: feature b: of: is_fraud is the label, which is not known at the time of the transaction; a risk counts labels when they are known
s.yaml:5:64: feature b: windows: duration "7 days": want a whole number and a unit, such as 30m, 24h or 7d
s.yaml:5:84: feature b: where: not an expression: unexpected token EOF`},
		{"windows", head + `
  - {name: "a_{w}", kind: count, key: user_id, windows: [dya, last 0, last, -1d, 7, forever]}
  - {name: "b_{w}", kind: count, key: user_id, windows: 7d}
`, `s.yaml:5:58: feature a_{w}: windows: unknown window "dya" (did you mean "day"?); want a duration such as 7d, one of hour, day, week and month, last and a number such as last 5, or ever
s.yaml:5:63: feature a_{w}: windows: last 0: want a number from 1 to 1000000
s.yaml:5:71: feature a_{w}: windows: unknown window "last" (did you mean "last 5"?); want a duration such as 7d, one of hour, day, week and month, last and a number such as last 5, or ever
s.yaml:5:77: feature a_{w}: windows: -1d is negative: it would read what comes after the transaction; want 0s or more
s.yaml:5:82: feature a_{w}: windows: want text, found 7
s.yaml:5:85: feature a_{w}: windows: unknown window "forever"; want a duration such as 7d, one of hour, day, week and month, last and a number such as last 5, or ever
s.yaml:6:57: feature b_{w}: windows: want a list with at least one window, such as [1d, 7d, day, last 5, ever], found "7d"`},
		{"values", head + `
  - {name: a, kind: bins, of: amount, edges: [10, 10, 5, x]}
  - {name: b, kind: clip, of: amount, min: 5, max: 1}
  - {name: c, kind: clip, of: amount}
  - {name: d, kind: hash, of: store_id, buckets: 0}
  - {name: e, kind: vocabulary, of: store_id, values: [a, 5, a, "5"]}
  - {name: f, kind: last, of: amount, nth: 0, key: user_id, windows: [ever]}
  - {name: g, kind: last, of: amount, nth: 3, key: user_id, windows: [last 2, last 3]}
  - {name: h, kind: ewma, of: amount, half_life: 0s, key: user_id, windows: [7d]}
  - {name: i, kind: mean, of: amount, key: user_id, windows: [day], null: 0, empty: .nan}
  - {name: j, kind: value, of: amount, null: skip}
  - {name: k, kind: cyclic, of: hours}
  - {name: l, kind: hashed_words, of: review, buckets: 5000}
  - {name: m, kind: risk, key: user_id, windows: [7d], prior: {rate: 2, weight: 0}}
  - {name: n, kind: risk, key: user_id, windows: [7d], prior: {rate: 0.1, weight: 5}, empty: 1}
  - {name: o, kind: distance, key: user_id, windows: [ever], place: [trans_long]}
  - {name: p, kind: expr, expr: amount * 2, scale: 1.5}
  - {name: q, kind: count, key: user_id, windows: [7d], shift: -1d}
  - {name: r, kind: risk, key: user_id, windows: [7d], include_current: true}
`, `s.yaml:5:51: feature a: edges: want ascending numbers: 10 comes after 10
s.yaml:5:55: feature a: edges: want ascending numbers: 5 comes after 10
s.yaml:5:58: feature a: edges: want a number, found "x"
s.yaml:6:44: feature b: min 5 is above max 1
s.yaml:7:5: feature c: a clip needs min, max or both
s.yaml:8:50: feature d: buckets: want a whole number from 1 to 1073741824
s.yaml:9:62: feature e: values: a is there twice
s.yaml:9:65: feature e: values: 5 is there twice
s.yaml:10:44: feature f: nth: want a whole number from 1 to 1000000
s.yaml:11:12: the column g is there twice: names of kept columns and features must differ (put {w} into the feature's name)
s.yaml:11:71: feature g: windows: last 2 has no entry that is nth: 3
s.yaml:12:50: feature h: half_life: want a time longer than nothing, such as 7d
s.yaml:12:77: feature h: an ewma has no field windows: half_life says how fast it forgets; give it an entry of its own
s.yaml:13:75: feature i: null: want skip, which leaves transactions without a value out
s.yaml:13:85: feature i: empty: want a number, found nan
s.yaml:14:46: feature j: null: want a number that stands for a missing value, found "skip"
s.yaml:15:33: feature k: of: unknown calendar value "hours" (did you mean "hour"?); a cyclic has hour, minute_of_day, weekday, day, yearday, week, month
s.yaml:16:56: feature l: buckets: want at most 4096: each is a column
s.yaml:17:70: feature m: prior: rate: want a share from 0 to 1
s.yaml:17:81: feature m: prior: weight: want a number of transactions above 0
s.yaml:18:94: feature n: with a prior a risk is never empty
s.yaml:19:69: feature o: place: want two columns, longitude and latitude
s.yaml:20:52: feature p: scale: want a whole number from 0 to 18
s.yaml:21:64: feature q: shift: -1d is negative: it would read what comes after the transaction; want 0s or more
s.yaml:22:73: feature r: a risk has no field include_current: the label of the transaction itself is not known yet`},
		{"what reads what", head + `
  - {name: a, kind: expr, expr: "amount + a"}
  - {name: b, kind: expr, expr: "amount / c"}
  - {name: c, kind: expr, expr: amount * is_fraud}
  - {name: "d_{w}", kind: sum, of: b, key: user_id, windows: [1d, 7d]}
  - {name: e, kind: count, key: is_fraud, windows: [1d], where: amount + 2.5}
  - {name: f, kind: count, key: user_id, windows: [1d], where: "d_1d > 2 or is_fraud == 1"}
  - {name: g, kind: log, of: d_1d}
  - {name: h, kind: expr, expr: d_1d / d_7d, scale: 2}
  - {name: i, kind: max, of: h, key: user_id, windows: [1d]}
  - {name: j, kind: expr, expr: h > 1}
  - {name: k, kind: count, key: user_id, windows: [1d], where: j}
  - {name: l, kind: cyclic, of: hour}
  - {name: m, kind: max, of: l, key: user_id, windows: [1d]}
  - {name: n, kind: sum, of: l_cos, key: user_id, windows: [1d]}
  - {name: o, kind: log, of: amount, scale: 2}
  - {name: p, kind: sum, of: o, key: user_id, windows: [1d]}
  - {name: q, kind: count, key: o, windows: [1d]}
  - {name: r, kind: sentiment, of: review}
  - {name: s, kind: mean, of: r, key: user_id, windows: [1d]}
  - {name: t, kind: distance, key: user_id, windows: [1d], place: [d_1d, trans_lat]}
`, `s.yaml:5:43: feature a: expr: it reads itself, which is circular; if the data has a column a, give the feature another name
s.yaml:6:43: feature b: expr: c is defined further down: move it above this feature; if the data has a column c, give the feature another name
s.yaml:7:42: feature c: expr: is_fraud is the label, which is not known at the time of the transaction; a risk counts labels when they are known
s.yaml:8:36: feature d_1d: of: b is floating point, which has no exact sum: give it a scale (such as scale: 4), the decimals to keep
s.yaml:9:33: feature e: key: is_fraud is the label, which is not known at the time of the transaction; a risk counts labels when they are known
s.yaml:9:65: feature e: where: want a condition, such as amount > 100
s.yaml:10:65: feature f: where: d_1d is computed from a window: only an expr can read it
s.yaml:10:77: feature f: where: is_fraud is the label, which is not known at the time of the transaction; a risk counts labels when they are known
s.yaml:11:30: feature g: of: d_1d is computed from a window: only an expr can read it
s.yaml:13:30: feature i: of: h reads what is computed from a window: only an expr can read it
s.yaml:15:64: feature k: where: j reads what is computed from a window: only an expr can read it
s.yaml:17:30: feature m: of: l has the columns l_sin, l_cos: name one of them
s.yaml:18:30: feature n: of: l_cos is floating point, which has no exact sum: read it by an expr with a scale (such as scale: 4), the decimals to keep
s.yaml:21:33: feature q: key: o is not of whole numbers: give it scale: 0
s.yaml:23:31: feature s: of: r is floating point, which has no exact sum: read it by an expr with a scale (such as scale: 4), the decimals to keep
s.yaml:24:68: feature t: place: d_1d is computed from a window: only an expr can read it`},
		{"a column and a feature", head + "  - {name: amount, kind: log, of: amount}\n  - {name: a, kind: sum, of: amount, key: user_id, windows: [1d]}\n",
			`s.yaml:4:12: feature amount: amount is both a column of the data, which it reads, and this feature: what is meant in line 5? Give the feature another name`},
		{"a column as it is", head + "  - {name: b, kind: expr, expr: amount * 2}\n  - {name: amount, kind: value, of: amount}\n  - {name: a, kind: sum, of: amount, key: user_id, windows: [1d]}\n", ""},
		{"expressions", head + `
  - {name: a, kind: expr, expr: "amount + "}
  - {name: b, kind: expr, expr: ''}
  - {name: é, kind: expr, expr: 'é + ä)'}
  - name: d
    kind: expr
    expr: |

      amount +
        is_fraud
  - {name: e, kind: expr, expr: 5}
  - {name: f, kind: count, key: user_id, windows: [7d], where: "'a'"}
`, `s.yaml:5:42: feature a: expr: not an expression: unexpected token EOF
s.yaml:6:34: feature b: expr: want an expression, such as amount / quantity > 10
s.yaml:7:39: feature é: expr: not an expression: unexpected token Bracket(")")
s.yaml:13:9: feature d: expr: is_fraud is the label, which is not known at the time of the transaction; a risk counts labels when they are known
s.yaml:14:33: feature e: expr: want text, found 5
s.yaml:15:65: feature f: where: want a condition, such as amount > 100`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("s.yaml", []byte(c.in))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanFaults(t *testing.T) {
	spec, err := Parse("s.yaml", []byte(`name: x
label: {column: is_fraud, delay: 7d}
keep: [trans_id, usr_id]
features:
  - {name: a, kind: value, of: amuont}
  - {name: b, kind: mean, of: ratio, key: amount, windows: [1d]}
  - {name: c, kind: count, key: trans_long, windows: [1d]}
`))
	if err != nil {
		t.Fatal(err)
	}
	_, err = spec.Plan(&datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransID, Type: datasets.Int64}, {Name: datasets.UserID, Type: datasets.Int64},
		{Name: datasets.Amount, Type: datasets.Decimal, Scale: 4}, {Name: "ratio", Type: datasets.Float64},
	}})
	want := `s.yaml: transactions: the data has no column "trans_datetime"
s.yaml:3:18: keep: the data has no column "usr_id" (did you mean "user_id"?)
s.yaml:5:32: feature a: there is no column amuont; did you mean amount?
s.yaml:6:31: feature b: column ratio is of type float64; want int64 or decimal
s.yaml:6:43: feature b: key: column amount is of type decimal; want int64 or string
s.yaml:7:33: feature c: key: the data has no column "trans_long"`
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestBuiltinColumns(t *testing.T) {
	p := handbookPlan(t, cardStream(1).Schema)
	var got []string
	for _, f := range p.Schema().Fields {
		got = append(got, f.Name)
	}
	want := strings.Fields(`trans_id trans_datetime user_id store_id is_fraud TX_AMOUNT TX_DURING_WEEKEND TX_DURING_NIGHT
		CUSTOMER_ID_NB_TX_1DAY_WINDOW CUSTOMER_ID_NB_TX_7DAY_WINDOW CUSTOMER_ID_NB_TX_30DAY_WINDOW
		CUSTOMER_ID_AVG_AMOUNT_1DAY_WINDOW CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW CUSTOMER_ID_AVG_AMOUNT_30DAY_WINDOW
		TERMINAL_ID_NB_TX_1DAY_WINDOW TERMINAL_ID_NB_TX_7DAY_WINDOW TERMINAL_ID_NB_TX_30DAY_WINDOW
		TERMINAL_ID_RISK_1DAY_WINDOW TERMINAL_ID_RISK_7DAY_WINDOW TERMINAL_ID_RISK_30DAY_WINDOW`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, f := range p.Features() {
		if wantLog := strings.Contains(f.Name, "NB_TX") || strings.Contains(f.Name, "AMOUNT"); f.Log != wantLog {
			t.Errorf("%s: log %v", f.Name, f.Log)
		}
		if f.Words == "" || strings.Contains(f.Words, "{window}") || strings.Contains(f.Words, "{n}") {
			t.Errorf("%s: words %q", f.Name, f.Words)
		}
	}
	if _, err := Builtin("fraud-handbok"); err == nil || !strings.Contains(err.Error(), `did you mean "fraud-handbook"?`) {
		t.Errorf("unknown name: %v", err)
	}
}

// Another delay moves the risk and the counts that are shifted by it, and nothing else; the changed spec
// reads back as itself.
func TestWithDelay(t *testing.T) {
	spec, err := Builtin("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	same, err := spec.WithDelay(spec.Delay())
	if err != nil || !slices.Equal(same.YAML(), spec.YAML()) {
		t.Fatalf("the same delay changes the spec: %v", err)
	}
	other, err := spec.WithDelay(3 * datasets.Day)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("again", other.YAML())
	if err != nil || again.Delay() != 3*datasets.Day {
		t.Fatalf("%v\n%s", err, other.YAML())
	}
	schema := cardStream(1).Schema
	a, b := handbookPlan(t, schema), mustPlan(t, string(other.YAML()), schema)
	for i, n := range a.Nodes() {
		if moved := n.Fingerprint != b.Nodes()[i].Fingerprint; moved != strings.HasPrefix(n.Name, "TERMINAL") {
			t.Errorf("%s: fingerprint changed: %v", n.Name, moved)
		}
		if x, y := a.Features()[i], b.Features()[i]; x != y {
			t.Errorf("features differ: %+v, %+v", x, y)
		}
	}
	if a.Fingerprint() == b.Fingerprint() {
		t.Error("equal fingerprints of different plans")
	}
	back, err := other.WithDelay(7 * datasets.Day)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(back.YAML(), spec.YAML()) {
		t.Errorf("there and back is another text:\n%s", back.YAML())
	}
}

// The delay is changed where it stands, whatever is around it, and nothing else of the text.
func TestWithDelayInPlace(t *testing.T) {
	rest := "\nname: x\nfeatures:\n  - {name: r, kind: risk, key: store_id, windows: [7d]} # 7d\n"
	for _, c := range []struct{ in, want string }{
		{"label: {column: is_fraud, delay: 7d} # delay: 7d", "label: {column: is_fraud, delay: 36h} # delay: 7d"},
		{"label:\n  delay: 7d   # a week\n  column: is_fraud", "label:\n  delay: 36h   # a week\n  column: is_fraud"},
		{"label: {column: is_fraud, delay: \"7d\"}", "label: {column: is_fraud, delay: \"36h\"}"},
		{"label: {column: 'é_7d', \"delay\": '7d'}", "label: {column: 'é_7d', \"delay\": '36h'}"},
		{"label:\r\n  column: is_fraud\r\n  delay: 7d\r", "label:\r\n  column: is_fraud\r\n  delay: 36h\r"},
		{"label:\n  column: is_fraud\n  delay:\n    7d", "label:\n  column: is_fraud\n  delay:\n    36h"},
	} {
		s, err := parse(t, c.in+rest).WithDelay(36 * datasets.Hour)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if got := string(s.YAML()); got != c.want+rest || s.Delay() != 36*datasets.Hour {
			t.Errorf("%q: %q", c.in, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	spec, err := Builtin("fraud-handbook")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(spec.YAML())
	for _, name := range Builtins() {
		s, err := Builtin(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.YAML())
	}
	f.Add([]byte("name: &a x\nfeatures: [*a, {name: !!str 1}]\n? x\n: y"))
	schema := cardStream(1).Schema
	f.Fuzz(func(t *testing.T, src []byte) {
		s, err := Parse("f.yaml", src)
		if err != nil {
			return
		}
		if _, err := Parse("f.yaml", s.YAML()); err != nil {
			t.Fatalf("what was accepted is refused: %v", err)
		}
		if s.label != nil {
			if c, err := s.WithDelay(s.Delay() + datasets.Hour); err == nil && c.Delay() != s.Delay()+datasets.Hour {
				t.Fatalf("another delay: %s", c.YAML())
			}
		}
		if p, err := s.Plan(schema); err == nil && s.Shape() == Events {
			if err := p.NewEngine(1).Process(cardStream(3), &Rows{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
