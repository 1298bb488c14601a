package fraud

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/program"
)

// chosen is what the validation rows decided.
type chosen struct {
	a, b      float64 // of the calibration
	threshold float64
	metrics   map[string]float64 // the mean over the folds
	spread    map[string]float64 // their deviation, nil of one
	folds     []FoldSummary      // nil of one
	epochs    int
}

// probabilities of logits.
func (c *chosen) probabilities(z []float64) []float64 {
	p := make([]float64, len(z))
	for i, v := range z {
		p[i] = 1 / (1 + math.Exp(-(c.a*v + c.b)))
	}
	return p
}

// fit trains the network: for each fold and seed to choose the epoch, calibrate and set the threshold, and then, without
// --valid, once more for each seed on all rows.
func (t *trainer) fit(ctx context.Context) (*fitted, *chosen, error) {
	if n := t.folds[0].fit.Len(); n < t.Config.Batch {
		t.Note("a batch of %d is more than the %d rows there are: all rows make one step", t.Config.Batch, n)
	}
	nets, err := t.choose(ctx)
	if err != nil {
		return nil, nil, err
	}
	c, err := t.decide(nets)
	if err != nil {
		return nil, nil, err
	}
	last := nets[len(nets)-1]
	if t.Valid == nil {
		refitted, err := t.refit(ctx, c, last[0])
		if err != nil {
			return nil, nil, err
		}
		if refitted != nil {
			last = refitted
		}
	}
	m, err := together(last)
	if err != nil {
		return nil, nil, err
	}
	if names := m.standard.constant; names != nil {
		t.Note("never varies in the training rows and is left out: %s", strings.Join(names, ", "))
	}
	return m, c, nil
}

// choose trains up to each fold with each seed.
func (t *trainer) choose(ctx context.Context) ([][]*fitted, error) {
	nets := make([][]*fitted, len(t.folds))
	for k, f := range t.folds {
		for s := range t.Ensemble() {
			label, part := t.label("choose", len(t.folds), k, s)
			run := fitting{config: &t.Config, seed: t.Seed + uint64(s)}
			if t.tuning != nil && s == 0 {
				run.from = train.TrialPart(t.tuning.Trials[0].ID, k)
			}
			m, err := t.phase(ctx, part, label, "", &run, f.fit, f.valid, t.Config.Epochs, t.afterChoosing(k, s))
			if err != nil {
				return nil, err
			}
			nets[k] = append(nets[k], m)
		}
	}
	return nets, nil
}

// afterChoosing is what still has to be trained after the run of a fold and a seed, as its budget sees it: the other runs for
// as many epochs, and then all rows with each seed.
func (t *trainer) afterChoosing(k, s int) func(epoch time.Duration, done, best int) time.Duration {
	own := float64(t.folds[k].fit.Len())
	seeds := float64(t.Ensemble())
	later := (seeds - 1 - float64(s)) * own
	for _, f := range t.folds[k+1:] {
		later += seeds * float64(f.fit.Len())
	}
	again := 0.
	if t.Valid == nil {
		again = seeds * float64(t.rows.Len())
	}
	return func(epoch time.Duration, done, best int) time.Duration {
		return time.Duration(float64(epoch) * (float64(done)*later + float64(best)*again) / own)
	}
}

// decide takes from the runs of all folds the epoch, the calibration and the threshold. Logits, and not probabilities, are
// averaged over the seeds, as over the towers of one network: so the ensemble is one network of more towers, and its
// calibration is fitted after the mean.
func (t *trainer) decide(nets [][]*fitted) (*chosen, error) {
	c := &chosen{}
	var runs [][]train.Epoch
	var pooled []float64
	var truth []bool
	var days float64
	logits, best := make([][]float64, len(nets)), make([]int, len(nets))
	for k, seeds := range nets {
		logits[k] = make([]float64, len(seeds[0].logits))
		for _, m := range seeds {
			runs = append(runs, m.result.Epochs)
			for i, z := range m.logits {
				logits[k][i] += z / float64(len(seeds))
			}
		}
		best[k] = train.BestTogether(runs[len(runs)-len(seeds):], figureEpochs)
		pooled, truth = append(pooled, logits[k]...), append(truth, t.folds[k].valid.Y...)
		days += dayCount(t.folds[k].Valid)
	}
	c.epochs = train.BestTogether(runs, figureEpochs)
	var err error
	if c.a, c.b, err = platt(pooled, truth); err != nil {
		if errors.Is(err, errLearnedNothing) {
			err = t.learnedNothing(err, nets)
		}
		// Going on from the checkpoint would come to the same.
		return nil, errors.Join(err, os.RemoveAll(train.CheckpointDir(t.Out)))
	}
	c.threshold = threshold(c.probabilities(pooled), t.AlertsPerDay, days)
	c.folds, c.metrics, c.spread = foldMetrics(t.folds, logits, best, c, t.AlertsPerDay)
	if c.epochs == t.Config.Epochs && t.Config.Patience > 0 && t.Config.Schedule == "constant" {
		t.Note("the last epoch was the best: more epochs may be better still (--set epochs=%d)", 2*t.Config.Epochs)
	}
	return c, nil
}

// learnedNothing says what to do about it: where the budget ended a run, the data need not be at fault.
func (t *trainer) learnedNothing(err error, nets [][]*fitted) error {
	for _, seeds := range nets {
		for _, m := range seeds {
			if r := m.result; r.Budgeted {
				return fmt.Errorf("%w; --max-time %s ended the training after epoch %d of %d: give a larger --max-time, and where that "+
					"does not help a longer --train or another --valid", err, t.MaxTime, len(r.Epochs), t.Config.Epochs)
			}
		}
	}
	return fmt.Errorf("%w; take a longer --train or another --valid, or more epochs (--set epochs=N)", err)
}

// refit trains on all rows with each seed. Where the budget is out before the first is, there is none, and the networks that
// chose the epoch are what is kept: an artifact of the rows that they saw.
func (t *trainer) refit(ctx context.Context, c *chosen, first *fitted) ([]*fitted, error) {
	var nets []*fitted
	epochs, err := t.session.Fits("refit", c.epochs, t.rows.Len(), float64((t.Ensemble()-1)*t.rows.Len()))
	if err != nil {
		return nil, err
	}
	if epochs == 0 {
		return t.withoutRefit(nil)
	}
	if epochs < c.epochs {
		t.Note("--max-time %s leaves time to train on all rows for %s in place of %d", t.MaxTime, train.Plural(epochs, "epoch"), c.epochs)
		c.epochs = epochs
	}
	for s := range t.Ensemble() {
		label, part := t.label("refit", 1, 0, s)
		run := fitting{config: &t.Config, seed: t.Seed + uint64(s), scales: first.result.Scales}
		rest := float64(t.Ensemble() - 1 - s)
		later := func(epoch time.Duration, done, _ int) time.Duration {
			return time.Duration(float64(epoch) * float64(done) * rest)
		}
		m, err := t.phase(ctx, part, label+", "+train.Plural(c.epochs, "epoch"), "refit", &run, t.rows, nil, c.epochs, later)
		var short *train.TooShort
		if errors.As(err, &short) {
			return t.withoutRefit(nets)
		}
		if err != nil {
			return nil, err
		}
		nets = append(nets, m)
	}
	c.epochs = len(nets[0].result.Epochs) // fewer where the budget ended it
	return nets, nil
}

// withoutRefit is what is left to do where no further refit fits into the budget.
func (t *trainer) withoutRefit(nets []*fitted) ([]*fitted, error) {
	if len(nets) > 0 {
		t.Note("--max-time %s leaves no time to train on all rows with more than %d of %d seeds: the others are left out",
			t.MaxTime, len(nets), t.Ensemble())
		return nets, nil
	}
	f := t.folds[len(t.folds)-1]
	t.Note("--max-time %s leaves no time to train on all rows: the network that chose the epoch is kept, which has seen %s",
		t.MaxTime, f.Fit)
	t.span, t.rows, t.kept = f.Fit, f.fit, &f.Valid
	return nil, nil
}

// together is the networks of several seeds as one.
func together(nets []*fitted) (*fitted, error) {
	if len(nets) == 1 {
		return nets[0], nil
	}
	set, err := program.Average(nets[0].set, len(nets))
	if err != nil {
		return nil, err
	}
	var members []program.Tensors
	for _, m := range nets {
		members = append(members, m.weights)
	}
	return &fitted{set: set, weights: program.Members(nets[0].set, members), standard: nets[0].standard, result: nets[0].result}, nil
}

// phase is one run as a part of the session.
func (t *trainer) phase(ctx context.Context, part, label, event string, f *fitting, fit, valid *Rows, epochs int,
	later func(epoch time.Duration, done, best int) time.Duration) (*fitted, error) {
	f.backend, f.threads, f.log, f.explain = t.Backend, t.Threads, t.log, t.Explain
	f.do = func(ctx context.Context, task *train.Task) (*train.Result, error) {
		task.Identity, task.Budget = t.identity(&t.Config, f.seed), t.session.Within(later)
		return t.session.Run(ctx, train.Part{Name: part, Label: label, From: f.from, Event: event, Towers: t.Config.Towers,
			Figure: figureOf(valid), Words: figureWords}, task, t.Backend)
	}
	m, err := f.run(ctx, fit, valid, epochs)
	if err != nil {
		return nil, err
	}
	t.Explain = nil // once is enough
	return m, nil
}

// figureWords is what epochs are chosen by, for people, and figureOf its key where there are rows to judge.
const figureWords = "average precision"

func figureOf(valid *Rows) string {
	if valid == nil {
		return ""
	}
	return "average_precision"
}

// logLoss is the training's loss of logits: binary cross-entropy, each fraud counted as often as the config says.
func logLoss(z []float32, y []bool, positiveWeight float64) float64 {
	var sum float64
	for i, v := range z {
		x, w := float64(v), 1.
		t := 0.
		if y[i] {
			t, w = 1, positiveWeight
		}
		sum += w * (math.Max(x, 0) - t*x + math.Log1p(math.Exp(-math.Abs(x))))
	}
	return sum / float64(len(z))
}
