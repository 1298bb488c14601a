package demand

import (
	"context"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/traintest"
	"github.com/onmart/onmart/train/tune"
)

// curveLosses are those of the runs, by part.
func curveLosses(curves []train.Curve) map[string][]float64 {
	out := map[string][]float64{}
	for _, c := range curves {
		for _, e := range c.Epochs {
			out[c.Part] = append(out[c.Part], e.Loss)
		}
	}
	return out
}

// A loss curve that changes is a change of the training that has to be meant.
func TestLossCurves(t *testing.T) {
	s, err := Train(t.Context(), quick(t, &lines{}))
	if err != nil {
		t.Fatal(err)
	}
	traintest.LossCurves(t, "losses.json", curveLosses(s.Curves), 1e-4)
}

// Seeds are trained for each fold and for all of it, and make one artifact.
func TestSeeds(t *testing.T) {
	o := quick(t, &lines{})
	one, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	o.Out, o.Seeds = filepath.Join(t.TempDir(), "two"), 2
	two, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(two.Curves) != 6 || len(one.Curves) != 3 {
		t.Errorf("%d and %d runs", len(one.Curves), len(two.Curves))
	}
	// The first seed's runs are those of a training with that seed alone.
	if a, b := curveLosses(one.Curves)["fold1"], curveLosses(two.Curves)["fold1-seed1"]; !reflect.DeepEqual(a, b) || len(a) == 0 {
		t.Errorf("%v and %v", a, b)
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Manifest().Settings["seeds"]; got != "2" || len(a.Program().Params) == 0 || !strings.HasPrefix(a.Program().Params[0].Name, "seed1/") {
		t.Errorf("seeds %q, %v", got, a.Program().Params)
	}
	if reflect.DeepEqual(two.Validation, one.Validation) {
		t.Error("the second seed has no say")
	}
}

// A search is the same stopped and resumed, and its winner is what is trained.
func TestTune(t *testing.T) {
	o := quick(t, &lines{})
	o.Trials, o.Config.Epochs = 3, 3
	o.Space = tune.Must("learning_rate: {from: 0.0005, to: 0.02, log: true}\nhidden: [8, \"16,16\"]")
	whole, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	best := whole.Tuning.Trials[0]
	if len(whole.Tuning.Trials) != 3 || best.Figure <= 0 {
		t.Fatalf("%+v", whole.Tuning)
	}
	for _, x := range whole.Tuning.Trials[1:] {
		if x.Rung == best.Rung && x.Figure < best.Figure {
			t.Errorf("trial %d has the smaller loss: %+v", x.ID, whole.Tuning.Trials)
		}
	}
	if first := whole.Curves[0]; *first.Epochs[first.Best-1].Figure != best.Figure {
		t.Errorf("the training comes to %v, the best trial to %v", *first.Epochs[first.Best-1].Figure, best.Figure)
	}
	ctx, cancel := context.WithCancel(t.Context())
	part := o
	part.Out = filepath.Join(t.TempDir(), "m")
	part.Backend = &traintest.Stopping{Backend: o.Backend, After: 4, Cancel: cancel}
	_, err = Train(ctx, part)
	cancel()
	if err == nil || !strings.Contains(err.Error(), "--resume goes on") {
		t.Fatal(err)
	}
	part.Backend, part.Resume = o.Backend, true
	if p, err := Train(t.Context(), part); err != nil || p.Version != whole.Version {
		t.Errorf("resumed: %v", err)
	}
	for text, want := range map[string]string{
		"rows: [1000, 2000]":   "it changes what trials are judged by",
		"learning_rate: [100]": "want a number from",
	} {
		bad := o
		bad.Out, bad.Space = filepath.Join(t.TempDir(), "m"), tune.Must(text)
		if _, err := Train(t.Context(), bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	o.Out, o.Config.Network = filepath.Join(t.TempDir(), "m"), false
	if _, err := Train(t.Context(), o); err == nil || !strings.Contains(err.Error(), "there is no network to tune") {
		t.Error(err)
	}
}

func TestMaxTime(t *testing.T) {
	l := &lines{}
	o := quick(t, l)
	o.Config.Epochs = 5000
	o.MaxTime, o.Start = 5*time.Second, time.Now()
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Shortened) == 0 || !l.has("--max-time 5s ends it after epoch") {
		t.Errorf("%v %v", s.Shortened, l.all)
	}
	if _, err := model.Open(o.Out); err != nil {
		t.Error(err)
	}
}
