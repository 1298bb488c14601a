package score

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/score/monitor"
)

// The table of docs/METRICS.md has the scorer's metrics, their types and labels, all of them and no others.
func TestMetricsDocument(t *testing.T) {
	var want []string
	for _, e := range monitor.New(monitor.Build{}).Catalog() {
		want = append(want, e.Name+" "+e.Type)
		for _, l := range e.Labels {
			want = append(want, e.Name+" has label "+l)
		}
	}
	// Those of what is in service now are made when they are asked for.
	live, err := os.ReadFile("livemetrics.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`desc\("(onmart_\w+)", "[^"]*",\s*([^)]*)\)`).FindAllStringSubmatch(string(live), -1) {
		kind := "gauge"
		if strings.HasSuffix(m[1], "_total") {
			kind = "counter"
		}
		want = append(want, m[1]+" "+kind)
		for _, l := range regexp.MustCompile(`\w+`).FindAllString(m[2], -1) {
			want = append(want, m[1]+" has label "+l)
		}
	}
	doc, err := os.ReadFile("../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(onmart_\\w+)(\\{[\\w,]*\\})?` \\| (\\w+) \\|").FindAllStringSubmatch(string(doc), -1) {
		got = append(got, row[1]+" "+row[3])
		for _, l := range regexp.MustCompile(`\w+`).FindAllString(row[2], -1) {
			got = append(got, row[1]+" has label "+l)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/METRICS.md has\n%q\nand the scorer\n%q", got, want)
	}
}
