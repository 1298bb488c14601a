package report

import (
	"bytes"
	"strings"
	"testing"
)

func TestRoofline(t *testing.T) {
	r := Roofline{Title: "a < b", Peak: 1e11, Roofs: []Roof{{"L1", 2e11}, {"memory", 2e10}}, Points: []RoofPoint{
		{"add", "L1", 1. / 12, 8e9}, {"add & more", "memory", 1. / 12, 1e9}, {"", "memory", 1. / 12, 0}, {"product", "product", 32, 9e10},
	}}
	var b bytes.Buffer
	if err := WriteRoofline(&b, r); err != nil {
		t.Fatal(err)
	}
	s := b.String()
	if err := wellFormed(s); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(s, "<title>"); got != 3 {
		t.Errorf("%d points are drawn, want 3: those above 0", got)
	}
	for _, want := range []string{"a &lt; b", "add &amp; more", "L1 200 GB/s", "multiply-adds 100 GFLOP/s"} {
		if !strings.Contains(s, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, bad := range []Roofline{{}, {Peak: 1}, {Points: r.Points}} {
		if WriteRoofline(&b, bad) == nil {
			t.Errorf("%+v was drawn", bad)
		}
	}
}

func TestRooflineLabelsKeepApart(t *testing.T) {
	var taken []box
	for range 20 {
		b := roofPlace(pixel{100, 100}, 40, taken)
		for _, c := range taken {
			if b.overlaps(c) {
				t.Fatalf("%v lies over %v", b, c)
			}
		}
		taken = append(taken, b)
	}
}
