package fraud

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/traintest"
	"github.com/onmart/onmart/train/tune"
)

func TestRolling(t *testing.T) {
	const delay = 7 * datasets.Day
	two := mustRange("2018-06-01..2018-07-31")
	for _, c := range []struct {
		folds int
		want  []string
	}{
		{1, []string{"2018-06-01..2018-07-11 2018-07-19..2018-07-31"}},
		{3, []string{"2018-06-01..2018-07-03 2018-07-11..2018-07-17", "2018-06-01..2018-07-10 2018-07-18..2018-07-24",
			"2018-06-01..2018-07-17 2018-07-25..2018-07-31"}},
	} {
		got, err := rolling(two, delay, c.folds)
		if err != nil {
			t.Fatal(err)
		}
		var text []string
		for _, s := range got {
			text = append(text, s.Fit.String()+" "+s.Valid.String())
		}
		if !slices.Equal(text, c.want) {
			t.Errorf("%d folds: %q, want %q", c.folds, text, c.want)
		}
	}
	// Whatever the range and the delay: each fold is judged on what is later than what it was fitted on, by the whole delay; no
	// two judge the same; half of the range is fitted on; the last ends with the range.
	for days := int64(4); days < 200; days += 7 {
		for _, delay := range []int64{0, datasets.Hour, datasets.Day, 7 * datasets.Day, 11*datasets.Day + datasets.Hour} {
			for folds := 2; folds <= 6; folds++ {
				r := datasets.Range{From: two.From, To: two.From + days*datasets.Day}
				got, err := rolling(r, delay, folds)
				if err != nil {
					if !strings.Contains(err.Error(), "too short") {
						t.Error(err)
					}
					continue
				}
				if len(got) != folds || got[folds-1].Valid.To != r.To {
					t.Fatalf("%d days, %d folds: %v", days, folds, got)
				}
				for k, s := range got {
					if s.Valid.From-s.Fit.To < delay || s.Valid.To <= s.Valid.From || 2*(s.Fit.To-s.Fit.From) < r.To-r.From-2*datasets.Day ||
						k > 0 && s.Valid.From != got[k-1].Valid.To {
						t.Errorf("%d days, delay %s, fold %d of %d: %s then %s", days, datasets.FormatDuration(delay), k+1, folds, s.Fit, s.Valid)
					}
				}
			}
		}
	}
	if _, err := rolling(mustRange("2018-06-01..2018-06-12"), delay, 3); err == nil || !strings.Contains(err.Error(), "give fewer --folds") {
		t.Error(err)
	}
}

// An ensemble of seeds is one artifact whose logits are the means of those of its members, and folds are judged by mean and
// spread.
func TestSeedsAndFolds(t *testing.T) {
	n := &notes{}
	o := quick(t, n)
	o.Source.Delay = datasets.Day // the mock's 18 days are too short for folds behind 7
	o.Folds, o.Seeds = 2, 3
	var log string
	o.Log = filepath.Join(t.TempDir(), "log.jsonl")
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(o.Log); err != nil {
		t.Fatal(err)
	} else {
		log = string(b)
	}
	if len(s.Folds) != 2 || s.Seeds != 3 || s.ValidationSpread["auc"] <= 0 || !s.Refitted {
		t.Fatalf("%+v", s)
	}
	for name, mean := range s.Validation {
		a, b := s.Folds[0].Validation[name], s.Folds[1].Validation[name]
		if !(math.Abs(mean-(a+b)/2) <= 1e-9*math.Abs(mean)) || !(math.Abs(s.ValidationSpread[name]-math.Abs(a-b)/math.Sqrt2) <= 1e-9*(math.Abs(a)+math.Abs(b))) {
			t.Errorf("%s: %v and %v, mean %v, spread %v", name, a, b, mean, s.ValidationSpread[name])
		}
	}
	// 2 folds and the refit, each with 3 seeds.
	var parts []string
	for _, c := range s.Curves {
		parts = append(parts, c.Part)
	}
	if !slices.Equal(parts, []string{"choose-fold1-seed1", "choose-fold1-seed2", "choose-fold1-seed3", "choose-fold2-seed1",
		"choose-fold2-seed2", "choose-fold2-seed3", "refit-seed1", "refit-seed2", "refit-seed3"}) {
		t.Errorf("%v", parts)
	}
	if strings.Count(log, `"event":"refit"`) != 3 || strings.Count(log, `"event":"result"`) != 1 {
		t.Error(log)
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := train.ReadHistory(a); err != nil || !reflect.DeepEqual(h.Curves, s.Curves) {
		t.Errorf("%v: %+v", err, h)
	}
	if a.Manifest().Settings["seeds"] != "3" {
		t.Errorf("%v", a.Manifest().Settings)
	}
	rows, err := Load(t.Context(), o.Source.Features, mockTest, featureNames(o.Source.Plan), 1)
	if err != nil {
		t.Fatal(err)
	}
	probability := func(dir string) []float64 {
		a, err := model.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		p, err := score(a.Program().Forward, a.Weights(), rows.Values, rows.Len(), 1)
		if err != nil {
			t.Fatal(err)
		}
		c := a.Manifest().Calibration
		for i, v := range p { // back to logits
			p[i] = (math.Log(v/(1-v)) - c.B) / c.A
		}
		return p
	}
	together := probability(o.Out)
	mean := make([]float64, len(together))
	for k := range 3 {
		one := o
		one.Seeds, one.Seed, one.Log = 1, o.Seed+uint64(k), ""
		fit, err := fitOnce(t.Context(), one, s.Epochs)
		if err != nil {
			t.Fatal(err)
		}
		z, err := logits(fit, rows)
		if err != nil {
			t.Fatal(err)
		}
		for i := range mean {
			mean[i] += z[i] / 3
		}
	}
	for i := range mean {
		if !(math.Abs(together[i]-mean[i]) <= 1e-4*(1+math.Abs(mean[i]))) {
			t.Fatalf("row %d: logit %v, the members' mean is %v", i, together[i], mean[i])
		}
	}
}

// fitOnce is a refit with one seed.
func fitOnce(ctx context.Context, o Options, epochs int) (*fitted, error) {
	tr := newTrainer(o)
	if err := tr.load(ctx); err != nil {
		return nil, err
	}
	f := fitting{config: &tr.Config, backend: o.Backend, seed: o.Seed, threads: 1, log: tr.log}
	return f.run(ctx, tr.rows, nil, epochs)
}

// logits of raw rows.
func logits(m *fitted, rows *Rows) ([]float64, error) {
	x, err := m.standard.matrix(rows.Values, rows.Len(), 1)
	if err != nil {
		return nil, err
	}
	return m.logitsOf(x, rows.Len())
}

// tuned is a training with trials.
func tuned(t testing.TB, n *notes) Options {
	o := quick(t, n)
	o.Config.Epochs, o.Trials = 6, 6
	o.Space = tune.Must("learning_rate: {from: 0.0001, to: 0.02, log: true}\ndropout: {from: 0, to: 0.4}\nhidden: [8, \"16,8\"]")
	return o
}

// untimed is a search without its times.
func untimed(r *tune.Result) *tune.Result {
	for i := range r.Trials {
		r.Trials[i].Seconds = 0
	}
	return r
}

// A search ends in the model of its best trial: the same one after each other or side by side, and stopped anywhere and
// resumed, without a trial twice.
func TestTune(t *testing.T) {
	n := &notes{}
	o := tuned(t, n)
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want := untimed(s.Tuning)
	n.has(t, "tuning: 6 trials, 6 for 1/3 of the epochs, then 2 for all of the epochs")
	best := want.Trials[0]
	if best.Rung != 2 || best.Epochs != 6 || len(best.Figures) != 2 || len(want.Trials) != 6 {
		t.Errorf("%+v", want)
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range best.Settings {
		if got := a.Manifest().Settings[c.Name]; got != c.Value {
			t.Errorf("the artifact has %s=%s, the best trial %s", c.Name, got, c.Value)
		}
	}
	h, err := train.ReadHistory(a)
	if err != nil || !reflect.DeepEqual(h.Tuning, want) {
		t.Errorf("%v: the artifact has %+v, want %+v", err, h.Tuning, want)
	}
	// The best trial is the training with its settings: that comes to the same figure.
	var choose *train.Curve
	for i := range s.Curves {
		if s.Curves[i].Part == "choose" {
			choose = &s.Curves[i]
		}
	}
	if got := train.Merit(choose.Epochs, best.Best, figureEpochs); got != best.Figure {
		t.Errorf("the training comes to %v, the trial to %v", got, best.Figure)
	}
	one, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	beside := o
	beside.Out, beside.Beside, beside.Parallel = filepath.Join(t.TempDir(), "m"), one, 3
	if p, err := Train(t.Context(), beside); err != nil || p.Version != s.Version || !reflect.DeepEqual(untimed(p.Tuning), want) {
		t.Errorf("side by side: %v", err)
	}
	count := &traintest.Stopping{Backend: o.Backend}
	whole := o
	whole.Out, whole.Backend = filepath.Join(t.TempDir(), "m"), count
	if _, err := Train(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	for stop := 1; stop < count.Epochs; stop += 9 {
		part := o
		part.Out = filepath.Join(t.TempDir(), "m")
		ctx, cancel := context.WithCancel(t.Context())
		first := &traintest.Stopping{Backend: o.Backend, After: stop, Cancel: cancel}
		part.Backend, part.Log = first, train.LogFile(part.Out)
		_, err := Train(ctx, part)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "--resume goes on") {
			t.Fatalf("stopped after %d epochs: %v", stop, err)
		}
		second := &traintest.Stopping{Backend: o.Backend}
		part.Backend, part.Resume = second, true
		p, err := Train(t.Context(), part)
		if err != nil {
			t.Fatal(err)
		}
		if p.Version != s.Version || !reflect.DeepEqual(untimed(p.Tuning), want) {
			t.Errorf("stopped after %d epochs of %d and resumed: another model", stop, count.Epochs)
		}
		if again := first.Epochs + second.Epochs - count.Epochs; again > 1 {
			t.Errorf("stopped after %d epochs: %d were trained again", stop, again)
		}
		// The log has each epoch of each part once, over both processes.
		checkOnce(t, part.Log)
	}
	other := o
	other.Out = filepath.Join(t.TempDir(), "m")
	ctx, cancel := context.WithCancel(t.Context())
	other.Backend = &traintest.Stopping{Backend: o.Backend, After: 5, Cancel: cancel}
	Train(ctx, other)
	cancel()
	other.Backend, other.Resume, other.Trials = o.Backend, true, 7
	if _, err := Train(t.Context(), other); err == nil || !strings.Contains(err.Error(), "--tune was 6 and is 7 now") {
		t.Errorf("another number of trials: %v", err)
	}
	other = o
	other.Out, other.Space = filepath.Join(t.TempDir(), "m"), tune.Must("nonesuch: [1]")
	if _, err := Train(t.Context(), other); err == nil || !strings.Contains(err.Error(), `no setting "nonesuch"`) {
		t.Error(err)
	}
}

// A checkpoint of a run with other parts is refused before anything is trained, though no part of it differs, and is left as it
// is; the unchanged command goes on with it.
func TestResumeWithOtherParts(t *testing.T) {
	stop := func(o *Options) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b := o.Backend
		o.Backend = &traintest.Stopping{Backend: b, After: 2, Cancel: cancel}
		if _, err := Train(ctx, *o); err == nil || !strings.Contains(err.Error(), "--resume goes on") {
			t.Fatal(err)
		}
		o.Backend, o.Resume = b, true
	}
	plain, search := tuned(t, &notes{}), tuned(t, &notes{})
	plain.Source.Delay, plain.Trials = datasets.Day, 0 // behind 7 days there is no room for two folds
	stop(&plain)
	stop(&search)
	for want, c := range map[string]struct {
		o      Options
		change func(o *Options)
	}{
		"--folds was 1 and is 2 now":       {plain, func(o *Options) { o.Folds = 2 }},
		"--seeds was 1 and is 2 now":       {plain, func(o *Options) { o.Seeds = 2 }},
		"--tune was none and is 3 now":     {plain, func(o *Options) { o.Trials = 3 }},
		"--tune was 6 and is none now":     {search, func(o *Options) { o.Trials = 0 }},
		"--set epochs was 6 and is 7 now;": {search, func(o *Options) { o.Config.Epochs = 7 }},
	} {
		count := &traintest.Stopping{Backend: c.o.Backend}
		c.o.Backend = count
		c.change(&c.o)
		before := testkit.Names(t, train.CheckpointDir(c.o.Out))
		_, err := Train(t.Context(), c.o)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--force in place of --resume") {
			t.Errorf("%v, want %q", err, want)
		}
		if after := testkit.Names(t, train.CheckpointDir(c.o.Out)); count.Epochs > 0 || !slices.Equal(before, after) {
			t.Errorf("%s: %d epochs were trained, of %v is left %v", want, count.Epochs, before, after)
		}
	}
	for _, o := range []Options{plain, search} {
		if s, err := Train(t.Context(), o); err != nil || !s.Resumed && o.Trials == 0 {
			t.Error(err)
		}
	}
}

// The networks of the folds that the best trial has trained are taken up, to the bit what training them anew gives: the same
// settings without a search end in the same weights. With several seeds the first of them is taken up.
func TestTunedFoldsAreTakenUp(t *testing.T) {
	n := &notes{}
	o := tuned(t, n)
	o.Source.Delay, o.Folds, o.Seeds = datasets.Day, 2, 2
	count := &traintest.Stopping{Backend: o.Backend}
	o.Backend = count
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Resumed {
		t.Error("it is said to have been resumed")
	}
	n.has(t, "the trial has trained epochs 1 to 6 of 6")
	searched := 0
	for _, x := range s.Tuning.Trials {
		searched += 2 * x.Epochs
	}
	// Two folds with the second seed, and all rows with both.
	if want := searched + 2*6 + 2*s.Epochs; count.Epochs != want {
		t.Errorf("%d epochs were trained, want %d", count.Epochs, want)
	}
	anew := o
	anew.Out, anew.Trials = filepath.Join(t.TempDir(), "m"), 0
	if err := anew.Config.Set(train.Pairs(s.Tuning.Trials[0].Settings)); err != nil {
		t.Fatal(err)
	}
	other, err := Train(t.Context(), anew)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s.Curves, other.Curves) || !reflect.DeepEqual(s.Folds, other.Folds) || s.Threshold != other.Threshold {
		t.Errorf("folds taken up: %+v, threshold %v\ntrained anew: %+v, %v", s.Folds, s.Threshold, other.Folds, other.Threshold)
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	b, err := model.Open(anew.Out)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a.Weights(), b.Weights()) || a.Manifest().Calibration != b.Manifest().Calibration {
		t.Error("the weights are others than those of a training with the same settings")
	}
}

// checkOnce wants no epoch of a part twice in a log, and each line whole.
func checkOnce(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(b)) {
		var r struct {
			Event, Part string
			Epoch       int
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil || !strings.HasSuffix(line, "\n") {
			t.Fatalf("%q: %v", line, err)
		}
		if r.Event == "epoch" {
			if r.Epoch != seen[r.Part]+1 {
				t.Errorf("%s: epoch %d after %d", r.Part, r.Epoch, seen[r.Part])
			}
			seen[r.Part] = r.Epoch
		}
	}
}

// A trial that diverges is one that failed, says why, stands behind all that did not, and is not gone on with; the search goes
// on without it, and where all diverge it fails with the reason.
func TestTrialsThatDiverge(t *testing.T) {
	o := tuned(t, &notes{})
	// A step of AdamW takes rate times decay of a weight off it: ten times itself, so that it is nine times as large after.
	o.Space = tune.Must("learning_rate: [10]\nweight_decay: [1]")
	o.Config.Schedule, o.Config.WarmUp = "constant", 0
	o.Trials = 3
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Tuning.Trials) != 3 {
		t.Fatalf("%+v", s.Tuning.Trials)
	}
	for i, x := range s.Tuning.Trials {
		if i == 0 {
			if x.ID != 1 || x.Failed != "" || x.Rung != 2 || len(x.Figures) != 2 {
				t.Errorf("the best is %+v", x)
			}
			continue
		}
		if !strings.Contains(x.Failed, "the training diverged") || x.Rung != 1 || len(x.Figures) != 0 || x.Figure != 0 {
			t.Errorf("%+v did not fail in its first rung", x)
		}
	}
	o.Config.LearningRate, o.Config.WeightDecay, o.Out = 10, 1, filepath.Join(t.TempDir(), "m")
	if _, err := Train(t.Context(), o); err == nil || !strings.Contains(err.Error(), "none of the 3 trials could be trained") ||
		!strings.Contains(err.Error(), "the training diverged") || strings.Contains(err.Error(), "--resume") {
		t.Errorf("all diverge: %v", err)
	}
	o.Config.LearningRate, o.Config.WeightDecay, o.Trials = .01, 0, 1
	if _, err := Train(t.Context(), o); err != nil {
		t.Errorf("with a smaller learning rate: %v", err)
	}
}

// chosenIn is a training as far as the networks that choose the epoch.
func chosenIn(t *testing.T, o Options) (*trainer, [][]*fitted) {
	t.Helper()
	tr := newTrainer(o)
	if err := tr.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	tr.session = o.Session(train.Output{Dir: o.Out}, tr.Note, tr.Bar)
	if err := tr.session.Begin(nil); err != nil {
		t.Fatal(err)
	}
	nets, err := tr.choose(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tr, nets
}

// A budget that has no time for the refit keeps the network that chose the epoch, as an artifact of what that saw.
func TestBudgetWithoutRefit(t *testing.T) {
	n := &notes{}
	o := quick(t, n)
	o.MaxTime, o.Start = time.Hour, time.Now()
	tr, nets := chosenIn(t, o)
	c, err := tr.decide(nets)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.withoutRefit(nil); err != nil {
		t.Fatal(err)
	}
	n.has(t, "leaves no time to train on all rows")
	s, err := tr.finish(t.Context(), nets[0][0], c)
	if err != nil {
		t.Fatal(err)
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	l := a.Manifest().Lineage
	if s.Refitted || l.Valid == nil || l.Train.Range != tr.folds[0].Fit || l.Rows != int64(tr.folds[0].fit.Len()) {
		t.Errorf("%+v", l)
	}
}

// What learned nothing because its budget was over is not blamed on the data first.
func TestBudgetInWhichNothingIsLearned(t *testing.T) {
	o := quick(t, &notes{})
	o.MaxTime, o.Start = time.Hour, time.Now()
	tr, nets := chosenIn(t, o)
	m := nets[0][0]
	for i := range m.logits {
		m.logits[i] = -m.logits[i]
	}
	for ended, want := range map[bool]string{
		false: "has learned nothing that holds there; take a longer --train",
		true: "has learned nothing that holds there; --max-time 1h0m0s ended the training after epoch 1 of 3: give a larger --max-time, " +
			"and where that does not help a longer --train",
	} {
		if m.result.Budgeted = ended; ended {
			m.result.Epochs = m.result.Epochs[:1]
		}
		if _, err := tr.decide(nets); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// The whole of it within a budget gives a valid artifact.
func TestMaxTime(t *testing.T) {
	n := &notes{}
	o := quick(t, n)
	o.Config.Epochs, o.Seeds = 10_000, 2
	o.MaxTime, o.Start = 4*time.Second, time.Now()
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Shortened) == 0 || s.Epochs >= 10_000 {
		t.Errorf("%+v", s)
	}
	n.has(t, "--max-time 4s ends it after epoch")
	if _, err := model.Open(o.Out); err != nil {
		t.Error(err)
	}
	o.Out, o.MaxTime, o.Start = filepath.Join(t.TempDir(), "m"), time.Nanosecond, time.Now()
	if _, err := Train(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--max-time 1ns was over before the first epoch began") {
		t.Error(err)
	}
	if _, err := os.Stat(o.Out); err == nil {
		t.Error("an artifact was left")
	}
}
