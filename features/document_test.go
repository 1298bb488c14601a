package features

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
)

// docs/FEATURES.md shows a spec that is read and planned, and names every key, kind and calendar flag there is.
func TestDocument(t *testing.T) {
	doc, err := os.ReadFile("../docs/FEATURES.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(doc, -1)
	if len(blocks) == 0 {
		t.Fatal("no example")
	}
	in := &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransID, Type: datasets.Int64}, {Name: datasets.Line, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time}, {Name: datasets.UserID, Type: datasets.Int64},
		{Name: datasets.StoreID, Type: datasets.String}, {Name: datasets.Amount, Type: datasets.Decimal, Scale: datasets.AmountScale},
		{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true},
	}}
	in.Fields = append(in.Fields, datasets.Field{Name: datasets.ProductID, Type: datasets.String}, datasets.Field{Name: datasets.Quantity, Type: datasets.Int64},
		datasets.Field{Name: datasets.UnitPrice, Type: datasets.Decimal, Scale: datasets.AmountScale}, datasets.Field{Name: datasets.IsReturn, Type: datasets.Int64})
	dir := t.TempDir()
	documentTables(t, dir)
	shown := map[string]bool{}
	for _, b := range blocks {
		s, err := Parse("docs/FEATURES.md", b[1])
		if err != nil {
			t.Fatal(err)
		}
		tables, err := OpenTables(dir, s)
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Plan(in, tables)
		if err != nil {
			t.Fatal(err)
		}
		shown[string(s.Shape())] = true
		for _, f := range p.Features() {
			shown[string(f.Kind)] = true
		}
		if p.panel != nil {
			for _, c := range p.panel.columns {
				shown[c.Kind] = true
			}
		}
	}
	for _, k := range slices.Concat(kinds, aggregations, covariateKinds, []string{string(Events), string(Panels), string(Baskets)}) {
		if !shown[k] {
			t.Errorf("no example has the kind %s", k)
		}
	}
	var listed []string
	for _, r := range regexp.MustCompile("(?m)^\\| ((?:`\\w+`(?:, )?)+) \\|").FindAllStringSubmatch(string(doc), -1) {
		for _, name := range strings.Split(r[1], ", ") {
			listed = append(listed, strings.Trim(name, "`"))
		}
	}
	words := slices.Concat(featureFields, kinds, panelFields, measureFields, covariateFields, joinFields, whereFields, interFields, rowClasses,
		aggregations, covariateKinds, returnPolicies)
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
	for _, name := range slices.Concat(specFields, labelFields, calendars, returnsFields, interReturns, calendarNames()) {
		if !strings.Contains(string(doc), "`"+name+"`") && !strings.Contains(string(doc), name+":") && !strings.Contains(string(doc), name+",") &&
			!strings.Contains(string(doc), " "+name+" |") {
			t.Errorf("%s is not described", name)
		}
	}
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
