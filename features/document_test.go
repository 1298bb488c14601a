package features

import (
	"os"
	"regexp"
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
	shown := map[Kind]bool{}
	for _, b := range blocks {
		s, err := Parse("docs/FEATURES.md", b[1])
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Plan(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range p.Features() {
			shown[f.Kind] = true
		}
	}
	for _, k := range kinds {
		if !shown[Kind(k)] {
			t.Errorf("no example has the kind %s", k)
		}
	}
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` ").FindAllStringSubmatch(string(doc), -1)
	listed := map[string]bool{}
	for _, r := range rows {
		listed[r[1]] = true
	}
	for _, name := range append(append([]string{}, featureFields...), kinds...) {
		if !listed[name] {
			t.Errorf("no table has a row of %s", name)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("a table has a row of %s, which is neither a key nor a kind", name)
	}
	for _, name := range append(append(append([]string{}, specFields...), labelFields...), calendars...) {
		if !strings.Contains(string(doc), "`"+name+"`") && !strings.Contains(string(blocks[0][1]), name+":") {
			t.Errorf("%s is not described", name)
		}
	}
}
