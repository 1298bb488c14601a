package features

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/testkit"
)

// docs/FEATURES.md shows specs that are read and planned, has an example of every kind, a row of a table for every key,
// and tables of kinds that are those of the program.
func TestDocument(t *testing.T) {
	const file = "../docs/FEATURES.md"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	for name, want := range map[string]string{"row kinds": rowKinds(), "windowed kinds": windowedKinds(),
		"costs": kindCosts(), "calendar": calendarRows()} {
		begin, end := "<!-- generated: "+name+" -->\n", "<!-- end -->"
		_, rest, ok := strings.Cut(doc, begin)
		got, _, closed := strings.Cut(rest, end)
		switch {
		case !ok || !closed:
			t.Errorf("%s has no part %q", file, begin)
		case got != want && testkit.Update():
			doc = strings.Replace(doc, begin+got, begin+want, 1)
		default:
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s (run the test with -update):\n%s", file, name, diff)
			}
		}
	}
	if doc != string(raw) {
		if err := os.WriteFile(file, []byte(doc), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	shown := planExamples(t, file)
	for _, k := range slices.Concat(kinds, aggregations, covariateKinds, []string{string(Events), string(Panels), string(Baskets)}) {
		if !shown[k] {
			t.Errorf("no example has the kind %s", k)
		}
	}
	checkRows(t, doc)
}

// The specs that the guide has its readers write can be planned.
func TestGuideSpecs(t *testing.T) { planExamples(t, "../docs/GUIDE/2-features.md") }

// fieldsOf lists a kind's fields beside those of every kind.
func fieldsOf(i *kindInfo, leave ...string) string {
	var list []string
	for _, f := range slices.Concat(i.must, i.may) {
		if !slices.Contains(leave, f) {
			list = append(list, "`"+f+"`")
		}
	}
	return strings.Join(list, ", ")
}

func rowKinds() string {
	b := &strings.Builder{}
	fmt.Fprint(b, "| kind | computes | `of` | needs | may have |\n| --- | --- | --- | --- | --- |\n")
	for n := range kindTable {
		if i := &kindTable[n]; !i.windowed {
			must := &kindInfo{must: i.must}
			fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", i.kind, i.computes, orDash(i.of), orDash(fieldsOf(must, "of")),
				orDash(fieldsOf(&kindInfo{may: i.may}, "hidden")))
		}
	}
	return b.String()
}

func windowedKinds() string {
	b := &strings.Builder{}
	fmt.Fprint(b, "| kind | computes | `of` | where there are no entries | further fields |\n| --- | --- | --- | --- | --- |\n")
	for n := range kindTable {
		if i := &kindTable[n]; i.windowed {
			further := fieldsOf(&kindInfo{must: i.must, may: i.may}, "of", "key", "windows", "where", "empty")
			fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", i.kind, i.computes, orDash(i.of), i.none, orDash(further))
		}
	}
	return b.String()
}

func kindCosts() string {
	b := &strings.Builder{}
	fmt.Fprint(b, "| kind | order | cost of a transaction | bytes an entry | a key with the window `ever` |\n| --- | --- | --- | --- | --- |\n")
	for n := range kindTable {
		if i := &kindTable[n]; i.windowed {
			fmt.Fprintf(b, "| `%s` | %s | %s | %d | %s |\n", i.kind, orDash(i.order), i.cost, i.entry, i.ever)
		}
	}
	return b.String()
}

func calendarRows() string {
	b := &strings.Builder{}
	fmt.Fprint(b, "| calendar value | is | cyclic |\n| --- | --- | --- |\n")
	for _, c := range calendarTable {
		yes := "-"
		if c.cyclic {
			yes = "yes"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", c.name, c.is, yes)
	}
	return b.String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// documentSchema is the data of the document's examples.
func documentSchema() *datasets.Schema {
	return &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransID, Type: datasets.Int64}, {Name: datasets.Line, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time}, {Name: datasets.UserID, Type: datasets.Int64},
		{Name: datasets.StoreID, Type: datasets.String},
		{Name: datasets.Amount, Type: datasets.Decimal, Scale: datasets.AmountScale},
		{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true}, {Name: datasets.ProductID, Type: datasets.String},
		{Name: datasets.Quantity, Type: datasets.Int64},
		{Name: datasets.UnitPrice, Type: datasets.Decimal, Scale: datasets.AmountScale},
		{Name: datasets.IsReturn, Type: datasets.Int64}, {Name: datasets.Channel, Type: datasets.String},
		{Name: datasets.TransLong, Type: datasets.Float64}, {Name: datasets.TransLat, Type: datasets.Float64},
		{Name: datasets.Rating, Type: datasets.Float64, Nullable: true}, {Name: datasets.Review, Type: datasets.String, Nullable: true},
	}}
}

// planExamples plans a document's specs and returns the kinds and shapes that they show. Where a comment in one says how
// many features its lines give, they do.
func planExamples(t *testing.T, file string) map[string]bool {
	t.Helper()
	dir := t.TempDir()
	documentTables(t, dir)
	shown := map[string]bool{}
	for _, src := range specsIn(t, file) {
		s, err := Parse(file, src)
		if err != nil {
			t.Fatal(err)
		}
		tables, err := OpenTables(dir, s)
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Plan(documentSchema(), tables)
		if err != nil {
			t.Fatal(err)
		}
		shown[string(s.Shape())] = true
		for i := range s.features {
			shown[string(s.features[i].kind)] = true
		}
		if p.panel != nil {
			for _, c := range p.panel.columns {
				shown[c.Kind] = true
			}
		}
		if m := regexp.MustCompile(`# (\d+) features in (\d+) lines`).FindSubmatch(src); m != nil {
			_, list, _ := bytes.Cut(src, []byte("\nfeatures:"))
			lines := bytes.Count(list, []byte("\n  - "))
			if got := fmt.Sprint(len(p.Features()), " ", lines); got != string(m[1])+" "+string(m[2]) {
				t.Errorf("%s: %s: %s (features, lines)", file, m[0], got)
			}
		}
	}
	return shown
}

// checkRows holds the names in the first column of tables against those of the program.
func checkRows(t *testing.T, doc string) {
	t.Helper()
	var listed []string
	for _, r := range regexp.MustCompile("(?m)^\\| ((?:`\\w+`(?:, )?)+) \\|").FindAllStringSubmatch(doc, -1) {
		for _, name := range strings.Split(r[1], ", ") {
			listed = append(listed, strings.Trim(name, "`"))
		}
	}
	words := slices.Concat(specFields, labelFields, featureFields, priorFields, kinds, calendars, panelFields, measureFields,
		covariateFields, joinFields, whereFields, interFields, rowClasses, aggregations, covariateKinds, returnPolicies,
		calendarUnits, []string{"ever"})
	for _, name := range words {
		if !slices.Contains(listed, name) {
			t.Errorf("no table has a row of %s", name)
		}
	}
	for _, name := range listed {
		if !slices.Contains(words, name) {
			t.Errorf("a table has a row of %s, which is nothing of a spec", name)
		}
	}
	others := slices.Concat(lateFields, latePolicies, duplicatesFields, futureFields, calendarUnits, returnsFields, interReturns,
		calendarNames())
	for _, name := range others {
		if !slices.ContainsFunc([]string{"`" + name + "`", name + ":", name + ",", " " + name + " |"},
			func(s string) bool { return strings.Contains(doc, s) }) {
			t.Errorf("%s is not described", name)
		}
	}
}

// specsIn are the specs that a document shows: YAML blocks, and those that a command writes to a .yaml file.
func specsIn(t *testing.T, file string) [][]byte {
	t.Helper()
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list [][]byte
	for _, m := range regexp.MustCompile("(?s)(?:```yaml|cat >[a-z-]+\\.yaml <<'END')\n(.*?)(?:```|END)\n").FindAllSubmatch(doc, -1) {
		list = append(list, m[1])
	}
	if len(list) == 0 {
		t.Fatalf("%s shows no spec", file)
	}
	return list
}

// documentTables are the tables that the document's examples join.
func documentTables(t *testing.T, dir string) {
	text := func(name string) datasets.Field { return datasets.Field{Name: name, Type: datasets.String} }
	date := func(name string) datasets.Field { return datasets.Field{Name: name, Type: datasets.Time} }
	number := func(name string) datasets.Field { return datasets.Field{Name: name, Type: datasets.Float64} }
	table(t, dir, "products", rowsOf([]datasets.Field{text("product_id"), text("category")}, []any{"a", "b"}))
	table(t, dir, "stores", rowsOf([]datasets.Field{text("id"), text("zip")}, []any{"s", "1000"}))
	table(t, dir, "calendar", rowsOf([]datasets.Field{date("date"), text("holiday"), {Name: "closed", Type: datasets.Int64}}, []any{0, "New Year", 1}))
	table(t, dir, "prices", rowsOf([]datasets.Field{text("product_id"), date("valid_from"), number("list_price")}, []any{"a", 0, 1.5}))
	table(t, dir, "promotions", rowsOf([]datasets.Field{text("category"), date("first_day"), date("last_day"), number("discount")}, []any{"b", 0, day, .1}))
}
