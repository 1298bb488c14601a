package features

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/onmart/onmart/datasets"
)

// Text in, faults out. An empty want means that the spec is good.
func TestParseFaults(t *testing.T) {
	good := "name: x\nlabel: {column: is_fraud, delay: 7d}\nfeatures:\n  - {name: a, kind: count, key: user_id, windows: [1d]}\n"
	for _, c := range []struct{ name, in, want string }{
		{"good", good, ""},
		{"empty", "", "s.yaml: want one YAML document with the fields name, timezone, label, lateness, where, join, keep, features, panel, interactions"},
		{"list", "- a\n", "s.yaml:1:1: spec: want a mapping with the fields name, timezone, label, lateness, where, join, keep, features, panel, interactions"},
		{"not yaml", "name: [a\n", "s.yaml:1:7: not YAML: sequence end token ']' not found"},
		{"all at once", `nam: x
timezone: Mars/Base
lateness: 3
label: {column: is_fraud, dealy: 7d}
keep: user_id
features:
  - name: a
    kind: cuont
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
s.yaml:3:11: lateness: want text, found 3
s.yaml:4:8: label: the field delay is missing
s.yaml:4:27: label: unknown field "dealy" (did you mean "delay"?)
s.yaml:5:7: keep: want a list, such as [a, b], found "user_id"
s.yaml:8:11: feature a: unknown kind "cuont" (did you mean "count"?); there are value, calendar, count, sum, mean, risk
s.yaml:9:5: feature b: a count has no field of
s.yaml:9:5: feature b: a count needs the field key
s.yaml:9:11: the column b is there twice: names of kept columns and features must differ (put {w} or {n} for the window into a feature's name)
s.yaml:11:19: feature b: windows: duration "2x": want a whole number and a unit, such as 30m, 24h or 7d
s.yaml:11:19: feature b: windows: 2x: want a window longer than nothing
s.yaml:11:23: feature b: windows: 0d: want a window longer than nothing
s.yaml:13:22: include_current: want true or false, found "yes"
s.yaml:14:10: log: want true or false, found "maybe"
s.yaml:15:5: feature c: a calendar has no field key
s.yaml:15:35: feature c: of: unknown calendar flag "wekend" (did you mean "weekend"?); there are weekend, night
s.yaml:22:22: feature d: include_current does not go with a shift: the current event is outside a shifted window
s.yaml:23:5: feature: want a mapping with the fields name, kind, of, key, windows, shift, include_current, log, unit, words`},
		{"names twice", "name: x\nkeep: [a]\nfeatures:\n  - {name: n, kind: count, key: user_id, windows: [1d, 7d]}\n  - {name: a, kind: value, of: amount}\n",
			`s.yaml:4:12: the column n is there twice: names of kept columns and features must differ (put {w} or {n} for the window into a feature's name)
s.yaml:5:12: the column a is there twice: names of kept columns and features must differ (put {w} or {n} for the window into a feature's name)`},
		{"no label", "name: x\nfeatures:\n  - {name: r, kind: risk, key: store_id, windows: [1d]}\n  - {name: c, kind: count, key: store_id, windows: [1d], shift: delay}\n",
			`s.yaml:3:12: feature r: a risk needs the spec's label (column and delay)
s.yaml:4:12: feature c: shift: delay needs the spec's label (column and delay)`},
		{"too long", "name: x\nlateness: 99999d\nfeatures:\n  - {name: v, kind: value, of: amount}\n", "s.yaml:2:11: lateness: 99999d is longer than 36500d"},
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
s.yaml:5:32: feature a: the data has no column "amuont" (did you mean "amount"?)
s.yaml:6:31: feature b: column ratio is of type float64; want int64 or decimal
s.yaml:6:43: feature b: column amount is of type decimal; want int64 or string
s.yaml:7:33: feature c: the data has no column "trans_long"`
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
	if p := mustPlan(t, string(back.YAML()), schema); p.Fingerprint() != a.Fingerprint() {
		t.Errorf("there and back is another spec:\n%s", back.YAML())
	}
}

// The JSON Schema for editors and the parser know the same fields and kinds.
func TestJSONSchemaAgrees(t *testing.T) {
	raw, err := os.ReadFile("spec.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type object struct {
		Properties map[string]json.RawMessage
	}
	var top struct {
		object
		Defs map[string]object `json:"$defs"`
	}
	if err := json.Unmarshal(raw, &top); err != nil {
		t.Fatal(err)
	}
	read := func(o object, name string, into any) {
		t.Helper()
		if err := json.Unmarshal(o.Properties[name], into); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	var label, panel, panelReturns, inter, interactionReturns object
	read(top.object, "label", &label)
	read(top.object, "panel", &panel)
	read(top.object, "interactions", &inter)
	read(panel, "returns", &panelReturns)
	read(inter, "returns", &interactionReturns)
	for _, c := range []struct {
		what      string
		schema    object
		inProgram []string
	}{
		{"spec", top.object, specFields}, {"label", label, labelFields}, {"feature", top.Defs["feature"], featureFields},
		{"panel", panel, panelFields}, {"panel returns", panelReturns, returnsFields}, {"measure", top.Defs["measure"], measureFields},
		{"covariate", top.Defs["covariate"], covariateFields}, {"join", top.Defs["join"], joinFields}, {"where", top.Defs["where"], whereFields},
		{"interactions", inter, interFields}, {"interactions returns", interactionReturns, interReturns},
	} {
		got := slices.Sorted(maps.Keys(c.schema.Properties))
		if diff := cmp.Diff(slices.Sorted(slices.Values(c.inProgram)), got); diff != "" {
			t.Errorf("%s: %s", c.what, diff)
		}
	}
	for _, c := range []struct {
		what      string
		of        object
		inProgram []string
	}{
		{"kind", top.Defs["feature"], kinds}, {"kind", top.Defs["measure"], aggregations}, {"kind", top.Defs["covariate"], covariateKinds},
		{"rows", top.Defs["measure"], rowClasses}, {"step", panel, steps}, {"policy", interactionReturns, returnPolicies},
	} {
		var list struct{ Enum []string }
		read(c.of, c.what, &list)
		if diff := cmp.Diff(c.inProgram, list.Enum); diff != "" {
			t.Errorf("%s: %s", c.what, diff)
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
		if p, err := s.Plan(schema); err == nil && s.Shape() == Events {
			if err := p.NewEngine(1).Process(cardStream(3), &Rows{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
