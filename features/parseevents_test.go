package features

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/derive"
	"github.com/onmart/onmart/internal/testkit"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Templates give their features in the order kinds, columns, keys, windows, the last fastest.
func TestExpand(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"all dimensions", `{name: "{key}_{kind}_{of}_{w}", kinds: [count, mean], of: [amount, quantity],
			keys: [user_id, [user_id, store_id], zip], windows: [7d, last 5]}`, `
			user_count_7d user_count_last5 user_x_store_count_7d user_x_store_count_last5 zip_count_7d zip_count_last5
			user_mean_amount_7d user_mean_amount_last5 user_x_store_mean_amount_7d user_x_store_mean_amount_last5
			zip_mean_amount_7d zip_mean_amount_last5 user_mean_quantity_7d user_mean_quantity_last5
			user_x_store_mean_quantity_7d user_x_store_mean_quantity_last5 zip_mean_quantity_7d zip_mean_quantity_last5`},
		{"of at the ends", `{name: "{of}_{kind}", kinds: [first, max], of: amount, key: user_id, windows: [ever]}`, "first amount_max"},
		{"of alone", `{name: "{kind}-{of}", kinds: [first, max], of: amount, key: user_id, windows: [ever]}`, "first- max-amount"},
		{"number", `{name: "a_{n}", kind: count, key: user_id, windows: [24h, last 5]}`, "a_24 a_5"},
		{"windows", `{name: "a_{w}", kind: count, key: user_id, windows: [hour, day, week, month, ever, last  3, 90s]}`,
			"a_hour a_day a_week a_month a_ever a_last3 a_90s"},
		{"of a row", `{name: "log_{of}", kind: log, of: [amount, quantity]}`, "log_amount log_quantity"},
		{"no placeholders", `{name: n, kind: ewma, of: amount, key: [user_id, store_id], half_life: 7d}`, "n"},
		{"literal underscores", `{name: a__b_, kind: value, of: amount}`, "a__b_"},
		{"columns", `{name: c, kind: cyclic, of: hour}`, "c_sin c_cos"},
		{"words", `{name: w, kind: hashed_words, of: review, buckets: 3}`, "w_0 w_1 w_2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := parse(t, "name: x\nfeatures:\n  - "+c.in)
			var got []string
			for i := range s.features {
				got = append(got, s.features[i].columns()...)
			}
			if diff := cmp.Diff(strings.Fields(c.want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func parse(t *testing.T, in string) *Spec {
	t.Helper()
	s, err := Parse("s.yaml", []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What a template says goes to those of its features whose kind has it.
func TestExpandFields(t *testing.T) {
	s := parse(t, `name: x
label: {column: is_fraud, delay: 7d}
late: {policy: skip}
duplicates: {within: 3d}
future: {beyond: 0s}
holidays: [12-25]
features:
  - {name: "{kind}_{w}", kinds: [count, mean, last], of: amount, key: user_id, windows: [7d], where: "amount > 1 and v2 == 2",
     null: skip, empty: -1, nth: 2, shift: delay, words: "{kind} of {of} by {key} in {window} ({w}): {value}"}
  - {name: r, kind: risk, key: [user_id, store_id], windows: [day], prior: {rate: 0.01, weight: 20}}
  - {name: d, kind: distance, key: user_id, windows: [last 1], words: "{window}"}
  - {name: s, kind: speed, key: user_id, windows: [ever], place: [lon, lat], words: "{window}"}
  - {name: e, kind: ewma, of: amount, key: user_id, half_life: 2d}
  - {name: c, kind: count, key: user_id, windows: [1d], include_current: true}
  - {name: v, kind: vocabulary, of: channel, values: [web, 5, true], null: 9, hidden: true}
`+"  - {name: x, kind: expr, expr: \"mean_7d / (1 + c)\", scale: 2, empty: 3, log: true}\n  - {name: y, kind: expr, expr: x > 1}\n"+
		"  - {name: z, kind: expr, expr: amount > v}\n  - {name: w, kind: calendar, of: night}\n  - {name: h, kind: calendar, of: hour}\n"+
		"  - {name: a2, kind: clip, of: amount, max: 9}\n  - {name: a3, kind: max, of: a2, key: user_id, windows: [day]}\n")
	if !s.late.skip || s.duplicates != 3*datasets.Day || s.future != 0 || len(s.holidays) != 1 {
		t.Errorf("policies: %+v", s)
	}
	var got []string
	num := func(p *float64) string {
		if p == nil {
			return "-"
		}
		return fmt.Sprint(*p)
	}
	for i := range s.features {
		f := &s.features[i]
		var reads []string
		for _, n := range f.reads {
			reads = append(reads, fmt.Sprintf("%s@%d:%d", n.s, n.pos.line, n.pos.column))
		}
		got = append(got, fmt.Sprintf("%s %s of=%s keys=%v place=%s,%s window=%d/%d/%s/%d shift=%v where=%q cur=%v nth=%d half=%d "+
			"prior=%v/%v empty=%s null=%s/%v scale=%d hidden=%v last=%v reads=%v log=%v unit=%s words=%s", f.name.s, f.kind, f.of.s,
			plain(f.keys), f.place[0].s, f.place[1].s, f.window.form, f.window.span/datasets.Hour, f.window.unit, f.window.n, f.shiftByDelay,
			f.where.s, f.includeCurrent, f.nth, f.halfLife/datasets.Hour, f.priorRate, f.priorWeight, num(f.empty), num(f.null), f.skipNull,
			f.scale, f.hidden, f.last, reads, f.log, f.unit, f.words))
	}
	testkit.Golden(t, "expand.txt", []byte(strings.Join(got, "\n")+"\n"))
}

// The values of a field that makes a good feature, by field; `of` differs.
var fieldValues = map[string]string{"key": "user_id", "keys": "[user_id]", "windows": "[7d]", "shift": "1d", "where": "amount > 1",
	"include_current": "true", "empty": "1", "nth": "2", "half_life": "7d", "prior": "{rate: 0.5, weight: 2}", "place": "[a, b]",
	"expr": "amount * 2", "edges": "[1, 2]", "min": "1", "max": "2", "buckets": "3", "values": "[a]", "scale": "1", "hidden": "true",
	"log": "true", "unit": "u", "words": "w"}

// valueOf is a good value of a kind's field.
func valueOf(i *kindInfo, field string) string {
	switch {
	case field == "of" && (i.kind == Calendar || i.kind == Cyclic):
		return "hour"
	case field == "of" && slices.Equal(i.types, texts):
		return "channel"
	case field == "of" && !slices.Contains(i.types, datasets.Decimal):
		return "quantity"
	case field == "of":
		return "amount"
	case field == "null" && i.windowed:
		return "skip"
	case field == "null":
		return "0"
	}
	return fieldValues[field]
}

// feature writes a spec with one feature, with and without some fields.
func oneFeature(i *kindInfo, with, without string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: x\nlabel: {column: is_fraud, delay: 7d}\nfeatures:\n  - name: f\n    kind: %s\n", i.kind)
	fields := slices.Clone(i.must)
	if i.kind == Clip {
		fields = append(fields, "min")
	}
	if with != "" && !slices.Contains(fields, with) {
		fields = append(fields, with)
	}
	for _, f := range fields {
		if f != without {
			fmt.Fprintf(&b, "    %s: %s\n", f, valueOf(i, f))
		}
	}
	return b.String()
}

// The parser, the JSON Schema and the table of kinds agree on every field of every kind.
func TestFieldsOfKinds(t *testing.T) {
	schema := specSchema(t)
	check := func(what, in string, want bool) {
		t.Helper()
		_, err := Parse("s.yaml", []byte(in))
		if (err == nil) != want {
			t.Errorf("%s: parser: %v\n%s", what, err, in)
		}
		if err := schema.Validate(instance(t, []byte(in))); (err == nil) != want {
			t.Errorf("%s: JSON Schema: %v\n%s", what, err, in)
		}
	}
	for n := range kindTable {
		i := &kindTable[n]
		check(string(i.kind), oneFeature(i, "", ""), true)
		for _, field := range featureFields {
			switch field {
			case "name", "kind", "kinds", "keys", "log", "unit", "words":
				continue
			}
			what := fmt.Sprintf("%s, %s", i.kind, field)
			switch i.has(field) {
			case must:
				check(what+" missing", oneFeature(i, "", field), false)
			case may:
				check(what, oneFeature(i, field, ""), true)
			case mustNot:
				check(what, oneFeature(i, field, ""), false)
			}
		}
		if i.has("key") == must {
			check("keys", strings.NewReplacer("name: f", "name: \"f_{key}\"", "key: user_id", "keys: [user_id, [user_id, store_id]]").
				Replace(oneFeature(i, "", "")), true)
		}
	}
	for _, f := range []string{"log", "unit", "words"} {
		check(f, oneFeature(Count.info(), f, ""), true)
	}
}

// What the table of kinds says of the bytes of an entry, and of a key without entries, is what the planner gives them.
func TestEntryBytes(t *testing.T) {
	for n := range kindTable {
		i := &kindTable[n]
		if !i.windowed {
			continue
		}
		p, err := parse(t, oneFeature(i, "", "")).Plan(documentSchema())
		if err != nil {
			t.Fatal(err)
		}
		words := 0
		for _, g := range p.groups {
			if g.ring {
				words += g.stride
			}
		}
		if words*8 != i.entry {
			t.Errorf("%s: an entry of %d bytes; the table says %d", i.kind, words*8, i.entry)
		}
		p, err = parse(t, strings.Replace(oneFeature(i, "", ""), "[7d]", "[ever]", 1)).Plan(documentSchema())
		if err != nil {
			t.Fatal(err)
		}
		if g := p.groups[0]; !g.ring && !strings.HasPrefix(i.ever, fmt.Sprint(g.head*8, " bytes")) {
			t.Errorf("%s: a key of %d bytes; the table says %s", i.kind, g.head*8, i.ever)
		}
	}
}

// The examples of the built-in specs and the documents are good by the JSON Schema, and bad ones are not.
func TestJSONSchemaValidates(t *testing.T) {
	schema := specSchema(t)
	for _, name := range Builtins() {
		s, err := Builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(instance(t, s.YAML())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, file := range []string{"../docs/FEATURES.md", "../docs/GUIDE/2-features.md"} {
		for i, src := range specsIn(t, file) {
			if err := schema.Validate(instance(t, src)); err != nil {
				t.Errorf("%s: example %d: %v", file, i+1, err)
			}
		}
	}
	head := "name: x\nfeatures:\n  - "
	for _, in := range []string{
		"features: []\nname: x", "name: x", head + "{name: a, kind: median, of: b}", head + "{name: a, kind: value, of: b, wnidows: [1d]}",
		head + "{name: a, kind: count, kinds: [count], key: a, windows: [1d]}", head + "{name: a, kind: count, key: a, keys: [a], windows: [1d]}",
		head + "{name: a, kind: count, key: a, windows: [1y]}", head + "{name: a, kind: count, key: a, windows: []}",
		head + "{name: a, kind: calendar, of: nigt}", head + "{name: a, kind: cyclic, of: year}", head + "{name: a, kind: hash, of: b, buckets: 0}",
		head + "{name: a, kind: value, of: b, null: skip}", head + "{name: a, kind: sum, of: b, key: c, windows: [1d], null: 0}",
		head + "{name: a, kind: risk, key: c, windows: [1d], prior: {rate: 2, weight: 1}}", head + "{name: a, kind: count, key: c, windows: [1d], shift: -1d}",
		"late: {policy: drop}\n" + head + "{name: a, kind: value, of: b}", "future: {}\n" + head + "{name: a, kind: value, of: b}",
		"holidays: [christmas]\n" + head + "{name: a, kind: value, of: b}",
	} {
		if schema.Validate(instance(t, []byte(in))) == nil {
			t.Errorf("JSON Schema: accepted:\n%s", in)
		}
		if _, err := Parse("s.yaml", []byte(in)); err == nil {
			t.Errorf("parser: accepted:\n%s", in)
		}
	}
}

// specSchema is spec.schema.json, compiled.
func specSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	raw, err := os.ReadFile("spec.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("spec.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("spec.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// instance is YAML as JSON Schema sees it.
func instance(t *testing.T, src []byte) any {
	t.Helper()
	raw, err := yaml.YAMLToJSON(src)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return v
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
	var label, late, duplicates, future, prior, panel, panelReturns, inter, interactionReturns object
	read(top.object, "label", &label)
	read(top.object, "late", &late)
	read(top.object, "duplicates", &duplicates)
	read(top.object, "future", &future)
	read(top.Defs["feature"], "prior", &prior)
	read(top.object, "panel", &panel)
	read(top.object, "interactions", &inter)
	read(panel, "returns", &panelReturns)
	read(inter, "returns", &interactionReturns)
	for _, c := range []struct {
		what      string
		schema    object
		inProgram []string
	}{
		{"spec", top.object, specFields}, {"label", label, labelFields}, {"late", late, lateFields},
		{"duplicates", duplicates, duplicatesFields}, {"future", future, futureFields}, {"prior", prior, priorFields},
		{"feature", top.Defs["feature"], featureFields},
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
		{"kind", top.Defs["feature"], kinds}, {"policy", late, latePolicies}, {"kind", top.Defs["measure"], aggregations},
		{"kind", top.Defs["covariate"], covariateKinds}, {"rows", top.Defs["measure"], rowClasses}, {"step", panel, steps},
		{"policy", interactionReturns, returnPolicies},
	} {
		var list struct{ Enum []string }
		read(c.of, c.what, &list)
		if diff := cmp.Diff(c.inProgram, list.Enum); diff != "" {
			t.Errorf("%s: %s", c.what, diff)
		}
	}
	var several struct{ Items struct{ Enum []string } }
	read(top.Defs["feature"], "kinds", &several)
	if diff := cmp.Diff(kinds, several.Items.Enum); diff != "" {
		t.Errorf("kinds: %s", diff)
	}
}

// What calendar and cyclic features can be of is what package derive computes.
func TestCalendars(t *testing.T) {
	if diff := cmp.Diff(derive.CalendarNames(), calendars); diff != "" {
		t.Error(diff)
	}
	in := []datasets.Field{{Name: datasets.TransDatetime, Type: datasets.Time}}
	for _, c := range calendarTable {
		_, faults := derive.Compile([]derive.Def{{Name: "x", Kind: string(Cyclic), Of: c.name, Scale: -1}}, in,
			derive.Options{Time: datasets.TransDatetime})
		if (len(faults) == 0) != c.cyclic {
			t.Errorf("%s: cyclic %v: %v", c.name, c.cyclic, faults)
		}
	}
}
