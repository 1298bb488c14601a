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

// A loss curve that changes is a change of the training that has to be meant.
func TestLossCurves(t *testing.T) {
	o := quick(t, &lines{})
	if _, err := Train(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	traintest.LossCurves(t, o.Out)
}

// Seeds are trained for each fold and for all of it, and make one artifact.
func TestSeeds(t *testing.T) {
	o := quick(t, &lines{})
	one, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	a := traintest.Losses(t, o.Out)["fold1"]
	o.Out, o.Seeds = filepath.Join(t.TempDir(), "two"), 2
	two, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(two.Curves) != 6 || len(one.Curves) != 3 {
		t.Errorf("%d and %d runs", len(one.Curves), len(two.Curves))
	}
	// The first seed's runs are those of a training with that seed alone.
	b := traintest.Losses(t, o.Out)["fold1-seed1"]
	if !reflect.DeepEqual(a, b) || len(a) == 0 {
		t.Errorf("%v and %v", a, b)
	}
	made, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	params := made.Program().Params
	if got := made.Manifest().Settings["seeds"]; got != "2" || len(params) == 0 ||
		!strings.HasPrefix(params[0].Name, "seed1/") {
		t.Errorf("seeds %q, %v", got, params)
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
	// The network of its fold is taken up, and is what training it anew gives.
	count := &traintest.Stopping{Backend: o.Backend}
	anew := o
	anew.Out, anew.Trials, anew.Backend = filepath.Join(t.TempDir(), "m"), 0, count
	if err := anew.Config.Set(train.Pairs(best.Settings)); err != nil {
		t.Fatal(err)
	}
	if p, err := Train(t.Context(), anew); err != nil || !reflect.DeepEqual(p.Curves, whole.Curves) {
		t.Errorf("trained anew: %v\n%+v\ntaken up\n%+v", err, p.Curves, whole.Curves)
	}
	searched := 0
	for _, x := range whole.Tuning.Trials {
		searched += x.Epochs
	}
	again := o
	taken := &traintest.Stopping{Backend: o.Backend}
	again.Out, again.Backend = filepath.Join(t.TempDir(), "m"), taken
	if _, err := Train(t.Context(), again); err != nil || taken.Epochs != searched+count.Epochs-best.Epochs {
		t.Errorf("%d epochs were trained, want %d of the search and %d without the first fold: %v", taken.Epochs, searched,
			count.Epochs-best.Epochs, err)
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

// What does not fit is said only where it leaves fewer epochs.
func TestBudgetOfOneEpoch(t *testing.T) {
	l := &lines{}
	o := quick(t, l)
	o.Config.Epochs, o.MaxTime, o.Start = 1, time.Hour, time.Now()
	tr, err := newTrainer(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	tr.session = o.Session(train.Output{Dir: o.Out}, tr.Note, tr.Bar)
	if err := tr.session.Begin(nil); err != nil {
		t.Fatal(err)
	}
	p := prepare(tr.foldRows(0))
	if _, _, err := tr.seeds(t.Context(), "fold1", "fold 1", p, 1, 0); err != nil {
		t.Fatal(err)
	}
	tr.session.Budget = 1 // it is over
	if n, err := tr.fits("fold2", 1, p, 1); n != 1 || err != nil || l.has("in place of") {
		t.Errorf("%d epochs, %v: %q", n, err, l.all)
	}
	if n, err := tr.fits("all", 5, p, 0); n != 1 || err != nil || !l.has("leaves time for 1 epoch in place of 5") {
		t.Errorf("%d epochs, %v: %q", n, err, l.all)
	}
}
