package traintest

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/onmart/onmart/internal/testkit"
)

// lossTolerance is by which share of itself a loss may differ from the pinned one. It is for what may differ between
// processors: math.Exp and math.Log1p in the last digit of float64, through as many steps as there are.
const lossTolerance = 1e-4

// Losses are those of the epochs of a training's runs, by the runs' parts, as the artifact in dir keeps them.
func Losses(t testing.TB, dir string) map[string][]float64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "training.json"))
	if err != nil {
		t.Fatal(err)
	}
	var history struct {
		Curves []struct {
			Part   string
			Epochs []struct{ Loss float64 }
		}
	}
	if err := json.Unmarshal(b, &history); err != nil {
		t.Fatal(err)
	}
	out := map[string][]float64{}
	for _, c := range history.Curves {
		for _, e := range c.Epochs {
			out[c.Part] = append(out[c.Part], e.Loss)
		}
	}
	return out
}

// LossCurves holds the losses of the artifact in dir to those in testdata/losses.json, which go test -update writes.
func LossCurves(t testing.TB, dir string) {
	t.Helper()
	path, got := filepath.Join("testdata", "losses.json"), Losses(t, dir)
	if testkit.Update() {
		b, err := json.MarshalIndent(got, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		testkit.GoldenFile(t, path, append(b, '\n'))
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test -update writes it", err)
	}
	var want map[string][]float64
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	for part, losses := range want {
		if len(got[part]) != len(losses) {
			t.Errorf("%s: %d epochs, want %d: %v", part, len(got[part]), len(losses), got[part])
			continue
		}
		for i, w := range losses {
			if g := got[part][i]; !(math.Abs(g-w) <= lossTolerance*math.Abs(w)) {
				t.Errorf("%s: loss %v in epoch %d, want %v", part, g, i+1, w)
			}
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d runs, want %d", len(got), len(want))
	}
}
