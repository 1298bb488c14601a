package fraud

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/traintest"
)

// altered is the mock stream's features with each batch changed.
func altered(t *testing.T, change func(b *datasets.Batch)) Source {
	t.Helper()
	s := mockSource(t)
	dir := filepath.Join(t.TempDir(), "features")
	w, err := datasets.Create(dir, datasets.KindFeatures, s.Features.Schema(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	err = s.Features.Read(t.Context(), datasets.ReadOptions{}, func(b *datasets.Batch) error {
		change(b)
		return w.Write(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if s.Features, err = datasets.Open(dir); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBadValues: labels that are none, one class and features that never vary are refused
// with their place and what to do, before anything is trained.
func TestBadValues(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *datasets.Batch)
		want   []string
	}{
		"a label of 2": {func(b *datasets.Batch) { b.Column(datasets.IsFraud).Ints[b.N/2] = 2 },
			[]string{"is_fraud is 2 in the transaction of 2026-", "want 1 for a fraud", "correct the mapping"}},
		"a label below 0": {func(b *datasets.Batch) { b.Column(datasets.IsFraud).Ints[b.N/2] = -1 },
			[]string{"is_fraud is -1 in the transaction of 2026-"}},
		"frauds alone": {func(b *datasets.Batch) {
			for i := range b.N {
				b.Column(datasets.IsFraud).Ints[i] = 1
			}
		}, []string{"rows are frauds: nothing can be learned from one class"}},
		"no fraud": {func(b *datasets.Batch) { clear(b.Column(datasets.IsFraud).Ints) },
			[]string{"rows is a fraud (0 have no label): nothing can be learned from one class; take a longer range"}},
		"constant features": {func(b *datasets.Batch) {
			for i := range b.Columns {
				for k := range b.Columns[i].Floats {
					b.Columns[i].Floats[k] = 3
				}
			}
		}, []string{"each of the 15 features has one value in all ", "nothing to learn from"}},
	} {
		o := small(t, &notes{})
		o.Source = altered(t, c.change)
		_, err := Train(t.Context(), o)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
		if _, err := os.Stat(o.Out); err == nil {
			t.Errorf("%s: something was left", name)
		}
	}
}

// TestOneClassInAllThereIs: where no range was given, the one that there is stands in the error.
func TestOneClassInAllThereIs(t *testing.T) {
	o := small(t, &notes{})
	o.Source = altered(t, func(b *datasets.Batch) { clear(b.Column(datasets.IsFraud).Ints) })
	o.Train = datasets.Range{}
	_, err := Train(t.Context(), o)
	if err == nil || !strings.HasPrefix(err.Error(), "all of 2026-") {
		t.Error(err)
	}
}

// TestValuesThatAreNoNumbers: our own writer stores none, but a data set may come from elsewhere.
func TestValuesThatAreNoNumbers(t *testing.T) {
	source := mockSource(t)
	for value, want := range map[float64]string{
		math.Inf(-1): "feature TX_AMOUNT is -Inf in the transaction of 2026-",
		math.NaN():   "feature TX_AMOUNT is NaN in the transaction of 2026-",
	} {
		c := newCollector([]string{"TX_AMOUNT"})
		err := source.Features.Read(t.Context(), datasets.ReadOptions{}, func(b *datasets.Batch) error {
			b.Column("TX_AMOUNT").Floats[b.N-1] = value
			c.add(b)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.check(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "make the features again") {
			t.Errorf("%v: %v, want %q", value, err, want)
		}
	}
}

// TestOneConstantFeature is left out, and said so.
func TestOneConstantFeature(t *testing.T) {
	n := &notes{}
	o := small(t, n)
	o.Source = altered(t, func(b *datasets.Batch) {
		for i := range b.N {
			b.Column("TX_DURING_NIGHT").Floats[i] = 1
		}
	})
	if _, err := Train(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	n.has(t, "never varies in the training rows and is left out: TX_DURING_NIGHT")
}

// TestDivergingRates: a rate that is too large ends with the step, the rate and what to do, leaving no artifact; a small one,
// and the same large one with clipping, go through. The test fails where either does nothing.
func TestDivergingRates(t *testing.T) {
	o := small(t, &notes{})
	o.Config.Optimizer, o.Config.Schedule, o.Config.LearningRate, o.Config.WarmUp = "sgd", "constant", 1e30, 0
	_, err := Train(t.Context(), o)
	var d *train.Diverged
	if !errors.As(err, &d) {
		t.Fatalf("a rate of 1e30: %v", err)
	}
	if d.Rate != 1e30 || d.Epoch != 1 || d.Where == nil || d.Where.Source != "" || d.Where.Held != "" {
		t.Errorf("%+v at %+v", d, d.Where)
	}
	if text := err.Error(); !strings.Contains(text, "the training diverged; ") || !strings.Contains(text, "take a smaller learning rate (it was 1e+30 there) or set clip_norm") {
		t.Error(text)
	}
	if _, err := os.Stat(o.Out); err == nil {
		t.Error("an artifact was left")
	}
	// A gradient changes a weight by .1 at most. Decay would be added after the clipping.
	o.Config.ClipNorm, o.Config.WeightDecay, o.Force = 1e-31, 0, true
	clipped, err := Train(t.Context(), o)
	if err != nil {
		t.Fatalf("a rate of 1e30 and clipped gradients: %v", err)
	}
	o.Config.ClipNorm, o.Config.LearningRate = 0, .1
	plain, err := Train(t.Context(), o)
	if err != nil {
		t.Fatalf("a rate of .1: %v", err)
	}
	if clipped.Version == plain.Version {
		t.Error("clipping changes nothing")
	}
}

// TestTunedTraining: another optimizer, a plateau, clipping and averages through the whole of a training, twice the same and
// with a resume; what is served are the averages.
func TestTunedTraining(t *testing.T) {
	task := func(t testing.TB, o traintest.Order) error {
		p := small(t, &notes{})
		pairs := []string{"optimizer=sgd", "nesterov=true", "learning_rate=0.1", "schedule=plateau", "plateau_patience=1",
			"clip_norm=0.5", "ema=0.98", "epochs=4"}
		if err := p.Config.Set(pairs); err != nil {
			t.Fatal(err)
		}
		p.Backend, p.Threads, p.Seed, p.Out, p.Resume = o.Backend, o.Threads, o.Seed, o.Out, o.Resume
		_, err := Train(o.Context, p)
		return err
	}
	traintest.TaskThreads(t, task)
	traintest.TaskResume(t, task)
	out := filepath.Join(t.TempDir(), "model")
	if err := task(t, traintest.Order{Context: t.Context(), Backend: traintest.Processor(t, 1), Threads: 1, Seed: 1, Out: out}); err != nil {
		t.Fatal(err)
	}
	a, err := model.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	s := a.Manifest()
	if s.Settings["ema"] != "0.98" || s.Settings["optimizer"] != "sgd" || !(s.Validation.Metrics["auc"] > .7) {
		t.Errorf("settings %v, validation %v", s.Settings, s.Validation.Metrics)
	}
}
