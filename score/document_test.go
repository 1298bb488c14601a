package score

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The table of docs/METRICS.md has the scorer's metrics and their types, all of them and no others.
func TestMetricsDocument(t *testing.T) {
	s := &Scorer{metrics: newMetrics()}
	s.registerCounts()
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, f := range families {
		want = append(want, f.GetName()+" "+strings.ToLower(f.GetType().String()))
	}
	doc, err := os.ReadFile("../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(onmart_\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(doc), -1) {
		got = append(got, row[1]+" "+row[2])
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/METRICS.md has\n%q\nand the scorer\n%q", got, want)
	}
}
