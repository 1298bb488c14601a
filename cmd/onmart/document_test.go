package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/train/fraud"
)

// docs/METRICS.md describes every figure that a model has in its manifest or in evaluate --json.
func TestFiguresDocument(t *testing.T) {
	doc, err := os.ReadFile(testkit.Root(t) + "/docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range (&fraud.Evaluation{}).Metrics() {
		if !strings.Contains(string(doc), "\n| `"+name+"` | ") {
			t.Errorf("no row of %s", name)
		}
	}
	var evaluation map[string]json.RawMessage
	b, err := json.Marshal(fraud.Evaluation{})
	if err == nil {
		err = json.Unmarshal(b, &evaluation)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name := range evaluation {
		if !strings.Contains(string(doc), "`"+name+"`") {
			t.Errorf("%s of evaluate --json is not described", name)
		}
	}
}
