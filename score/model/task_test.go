package model_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/modeltest"
	"github.com/onmart/onmart/train/program"
)

// taskContents is a model of a task that is no classifier, with two files of its own.
func taskContents(t *testing.T, task string) model.Contents {
	t.Helper()
	spec, err := features.Builtin("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	c := modeltest.Contents(t, spec, modeltest.Schema(), 1)
	c.Manifest.Task, c.Manifest.Typical = task, nil
	text := func(s string) func(io.Writer) error {
		return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
	}
	c.Files = map[string]func(io.Writer) error{"demand.json": text("{}"), "context/history.parquet": text("rows")}
	return c
}

func TestTaskFiles(t *testing.T) {
	c := taskContents(t, model.Demand)
	dir := filepath.Join(t.TempDir(), "m")
	if err := model.Save(dir, c, false); err != nil {
		t.Fatal(err)
	}
	a := modeltest.Open(t, dir)
	for name, want := range map[string]string{"demand.json": "{}", "context/history.parquet": "rows"} {
		if b, err := a.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v, want %q", name, b, err, want)
		}
	}
	if _, err := a.ReadFile("other.json"); err == nil || !strings.Contains(err.Error(), "has no other.json") {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := a.NewPredictor(1); err == nil || !strings.Contains(err.Error(), "scores no transactions") {
		t.Errorf("a predictor of a forecast: %v", err)
	}

	c.Files["demand.json"] = func(w io.Writer) error { _, err := io.WriteString(w, "[]"); return err }
	other := filepath.Join(t.TempDir(), "m")
	if err := model.Save(other, c, false); err != nil {
		t.Fatal(err)
	}
	if b := modeltest.Open(t, other); b.Manifest().Version == a.Manifest().Version {
		t.Error("another file of the task, the same version")
	}
	if err := os.WriteFile(filepath.Join(dir, "demand.json"), []byte("()"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ReadFile("demand.json"); err == nil || !strings.Contains(err.Error(), "was changed") {
		t.Errorf("read after a change: %v", err)
	}
	if _, err := model.Open(dir); err == nil || !strings.Contains(err.Error(), "demand.json was changed") {
		t.Errorf("opened after a change: %v", err)
	}
}

func TestTaskWithoutProgram(t *testing.T) {
	c := taskContents(t, model.Recommend)
	c.Program = nil
	c.Weights = program.Tensors{{Name: "items", DType: program.F32, Shape: []int{2, 1}, F32: []float32{1, 2}}}
	for _, weights := range []program.Tensors{c.Weights, nil} {
		c.Weights = weights
		dir := filepath.Join(t.TempDir(), "m")
		if err := model.Save(dir, c, false); err != nil {
			t.Fatal(err)
		}
		a := modeltest.Open(t, dir)
		if a.Program() != nil || len(a.Weights()) != len(weights) {
			t.Errorf("program %v, %d weights, want none and %d", a.Program(), len(a.Weights()), len(weights))
		}
	}
}

// TestTaskKeepsTables: a table that no program names goes along, and one that it names must fit.
func TestTaskKeepsTables(t *testing.T) {
	c := taskContents(t, model.Recommend)
	c.Weights = append(c.Weights, program.Tensor{Name: "items", DType: program.F32, Shape: []int{2, 1}, F32: []float32{1, 2}})
	c.Weights.Sort()
	dir := filepath.Join(t.TempDir(), "m")
	if err := model.Save(dir, c, false); err != nil {
		t.Fatal(err)
	}
	if modeltest.Open(t, dir).Weights().Find("items") == nil {
		t.Error("the table is gone")
	}
}

func TestTaskRefuses(t *testing.T) {
	for _, c := range []struct {
		change func(*model.Contents)
		want   string
	}{
		{func(c *model.Contents) { c.Manifest.Task = "weather" }, `task "weather"`},
		{func(c *model.Contents) { c.Manifest.Task = model.Fraud; c.Program = nil }, "needs a program"},
		{func(c *model.Contents) { c.Manifest.Task, c.Manifest.Typical = model.Fraud, make([]float64, 15) }, "no files of its own"},
		{func(c *model.Contents) { c.Files["../x"] = nil }, "cannot be the name"},
		{func(c *model.Contents) { c.Files["spec.yaml"] = nil }, "cannot be the name"},
		{func(c *model.Contents) { c.Files["context/.hidden"] = nil }, "cannot be the name"},
		{func(c *model.Contents) { c.Files["A.json"] = nil }, "cannot be the name"},
		{func(c *model.Contents) { c.Weights = c.Weights[1:] }, "is missing"},
	} {
		contents := taskContents(t, model.Demand)
		c.change(&contents)
		dir := filepath.Join(t.TempDir(), "m")
		if err := model.Save(dir, contents, false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: something was left", c.want)
		}
	}
}
