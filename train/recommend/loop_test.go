package recommend

import (
	"context"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/recommender"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/traintest"
	"github.com/onmart/onmart/train/tune"
)

// A loss curve that changes is a change of the training that has to be meant.
func TestLossCurves(t *testing.T) {
	o := options(t, source(t, shop(30, 24, 90)), small())
	if _, err := Train(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	traintest.LossCurves(t, o.Out)
}

// The vectors of an ensemble give the mean of its members' inner products.
func TestSeeds(t *testing.T) {
	src := source(t, shop(30, 24, 90))
	c := small()
	c.Model = "embedding"
	h, err := src.Load(t.Context(), beginning, end, 1)
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, src, c)
	var nets []*network
	for seed := uint64(1); seed <= 3; seed++ {
		n, err := (&fitting{config: &c, backend: o.Backend, seed: seed}).run(t.Context(), &h.Log, day(90))
		if err != nil {
			t.Fatal(err)
		}
		nets = append(nets, n)
	}
	all, err := together(nets)
	if err != nil {
		t.Fatal(err)
	}
	scores := func(n *network, user int32) []float64 {
		e, err := n.embedding(&c, h.Log.Items)
		if err != nil {
			t.Fatal(err)
		}
		vector, err := e.NewVector()
		if err != nil {
			t.Fatal(err)
		}
		v := make([]float32, e.Dim)
		if err := vector(v, user, []int32{1, 5, 7}); err != nil {
			t.Fatal(err)
		}
		out := make([]float64, h.Log.Items)
		for i := range out {
			for k, x := range v {
				out[i] += float64(x) * float64(e.Items[i*e.Dim+k])
			}
		}
		return out
	}
	for _, user := range []int32{-1, 0, 7} {
		mean := make([]float64, h.Log.Items)
		for _, n := range nets {
			for i, s := range scores(n, user) {
				mean[i] += s / 3
			}
		}
		for i, s := range scores(all, user) {
			if !(s-mean[i] <= 1e-5 && mean[i]-s <= 1e-5) {
				t.Errorf("user %d, item %d: %v, the mean is %v", user, i, s, mean[i])
			}
		}
	}
	// As an artifact.
	o.Seeds = 2
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	if table := a.Weights().Find(recommender.ItemTable); len(s.Curves) != 2 || table == nil || table.Shape[1] != 2*c.Dim {
		t.Errorf("%d runs, %v", len(s.Curves), table)
	}
	if _, err := recommender.Open(a, 1); err != nil {
		t.Error(err)
	}
}

// A search is the same stopped and resumed, and side by side; its winner is what is trained.
func TestTune(t *testing.T) {
	src := source(t, shop(40, 24, 120))
	o := options(t, src, small())
	o.Trials = 4
	o.Space = tune.Must("learning_rate: {from: 0.002, to: 0.05, log: true}\nease_lambda: [5, 10, 50]\ndim: [4, 8]")
	whole, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	best := whole.Tuning.Trials[0]
	// The blend of the winner is judged on the same fold.
	if got := whole.Validation.Model["ndcg_at_10"]; got != best.Figure || best.Rung != 2 {
		t.Errorf("the training comes to %v, the best trial to %v", got, best.Figure)
	}
	// The networks of its folds are taken up, and are what training them anew gives.
	count := &traintest.Stopping{Backend: o.Backend}
	anew := o
	anew.Out, anew.Trials, anew.Backend = filepath.Join(t.TempDir(), "m"), 0, count
	if err := anew.Config.Set(train.Pairs(best.Settings)); err != nil {
		t.Fatal(err)
	}
	if p, err := Train(t.Context(), anew); err != nil || !reflect.DeepEqual(p.Curves, whole.Curves) ||
		!reflect.DeepEqual(p.Validation, whole.Validation) {
		t.Errorf("trained anew: %v\n%+v\ntaken up\n%+v", err, p.Curves, whole.Curves)
	}
	searched, folds := 0, len(whole.Curves)-1
	for _, x := range whole.Tuning.Trials {
		searched += folds * x.Epochs
	}
	again := o
	taken := &traintest.Stopping{Backend: o.Backend}
	again.Out, again.Backend = filepath.Join(t.TempDir(), "m"), taken
	if _, err := Train(t.Context(), again); err != nil || taken.Epochs != searched+count.Epochs-folds*best.Epochs {
		t.Errorf("%d epochs were trained, want %d of the search and %d on all lines: %v", taken.Epochs, searched,
			count.Epochs-folds*best.Epochs, err)
	}
	one, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	beside := o
	beside.Out, beside.Beside, beside.Parallel = filepath.Join(t.TempDir(), "m"), one, 2
	if p, err := Train(t.Context(), beside); err != nil || p.Version != whole.Version {
		t.Errorf("side by side: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	part := o
	part.Out = filepath.Join(t.TempDir(), "m")
	part.Backend = &traintest.Stopping{Backend: o.Backend, After: 5, Cancel: cancel}
	_, err = Train(ctx, part)
	cancel()
	if err == nil || !strings.Contains(err.Error(), "--resume goes on") {
		t.Fatal(err)
	}
	part.Backend, part.Resume = o.Backend, true
	p, err := Train(t.Context(), part)
	if err != nil || p.Version != whole.Version {
		t.Fatalf("resumed: %v", err)
	}
	for i := range p.Tuning.Trials {
		p.Tuning.Trials[i].Seconds, whole.Tuning.Trials[i].Seconds = 0, 0
	}
	if !reflect.DeepEqual(p.Tuning, whole.Tuning) {
		t.Errorf("resumed: %+v, want %+v", p.Tuning, whole.Tuning)
	}
	bad := o
	bad.Out, bad.Config.Folds = filepath.Join(t.TempDir(), "m"), 1
	if _, err := Train(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "it takes two") {
		t.Error(err)
	}
	bad.Config.Folds, bad.Space = 2, tune.Must("horizon: [10, 20]")
	if _, err := Train(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "it changes what trials are judged by") {
		t.Error(err)
	}
	// A part alone has a fold of its own to be judged on.
	alone := o
	alone.Out, alone.Config.Model, alone.Space = filepath.Join(t.TempDir(), "m"), "als", tune.Must("als_regularization: [1, 5, 20]")
	if s, err := Train(t.Context(), alone); err != nil || s.Tuning.Trials[0].Epochs != 0 {
		t.Errorf("%v", err)
	}
}

func TestMaxTime(t *testing.T) {
	c := small()
	c.Epochs = 10_000
	o := options(t, source(t, shop(30, 24, 90)), c)
	o.MaxTime, o.Start = 4*time.Second, time.Now()
	var notes said
	o.Note = notes.note
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Shortened) == 0 || !strings.Contains(strings.Join(notes.all, "\n"), "--max-time 4s ends it after epoch") {
		t.Errorf("%v %v", s.Shortened, notes.all)
	}
	if _, err := model.Open(o.Out); err != nil {
		t.Error(err)
	}
}
