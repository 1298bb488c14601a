package demand

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/tune"
)

// DefaultSpace is what --tune draws from where nothing else is said: the settings of the network.
func DefaultSpace() tune.Space {
	return tune.Must(`
activation: [relu, silu]
batch: [256, 512, 1024]
dropout: {from: 0, to: 0.4}
epochs: [4, 8, 12]
hidden: ["64,64", "128,128", "256,256", "128,128,128"]
learning_rate: {from: 0.0003, to: 0.01, log: true}
weight_decay: [0, 0, 0.0001, 0.001, 0.01]
`)
}

// notTuned are the settings with which trials would be judged by something else, or that no network depends on.
var notTuned = []string{"network", "rows", "value_weight", "scaling", "point", "folds", "members", "levels"}

// CheckSpace reports every fault of the ranges of --tune, and finds out which are of whole numbers.
func (c *Config) CheckSpace(s tune.Space) (tune.Space, error) {
	return train.CheckSpace(s, Settings(), *c, notTuned...)
}

// What epochs and trials are judged by.
const (
	figureKey   = "pinball"
	figureWords = "pinball loss on the fold"
)

// tune tries settings of the network on the first fold, and goes on with the best.
func (t *trainer) tune(ctx context.Context) error {
	if t.Trials == 0 {
		return nil
	}
	space, err := t.Config.CheckSpace(t.Space)
	if err != nil {
		return err
	}
	search := train.Tuning{
		Running: t.Running, Space: space, Seed: t.Seed, Given: train.Given(&t.Config, Settings(), space), Figure: figureKey, Smaller: true,
		Identity: train.DigestFacts(t.identity(&t.Config, t.Seed)), Train: t.trial,
	}
	if t.tuning, err = search.Run(ctx, t.session); err != nil {
		return err
	}
	if err := t.Config.Set(train.Pairs(t.tuning.Trials[0].Settings)); err != nil {
		return err
	}
	t.Config = t.Config.resolved(&t.model.Design) // auto may have been drawn
	return nil
}

// trial trains one up to a share of its epochs, and judges it on the fold.
func (t *trainer) trial(ctx context.Context, x tune.Trial, share float64) (tune.Outcome, error) {
	c := t.Config
	if err := c.Set(train.Pairs(x.Settings)); err != nil {
		return tune.Outcome{Failed: err.Error()}, nil // settings that do not go together
	}
	c = c.resolved(&t.model.Design)
	backend := t.Backend
	if t.Beside != nil {
		backend = t.Beside
	}
	f := fitting{config: &c, seed: t.Seed}
	f.do = func(ctx context.Context, task *train.Task) (*train.Result, error) {
		task.Identity, task.Budget, task.Stop = t.identity(&c, t.Seed), t.session.UntilTuned(), train.Epochs(share, c.Epochs)
		task.Resume = x.Rung > 0
		return t.session.Run(ctx, train.Part{Name: train.TrialPart(x.ID, 0), Label: fmt.Sprintf("trial %d", x.ID), Figure: figureKey,
			Words: figureWords, Smaller: true, Towers: c.Towers, Quiet: true}, task, backend)
	}
	m, err := f.run(ctx, t.first, c.Epochs)
	if err != nil {
		return train.Unfit(err, train.Epochs(share, c.Epochs))
	}
	return train.OutcomeOf(m.result, train.Epochs(share, c.Epochs))
}

// seeds trains the network of a fold, or of all of it, with each seed, and makes one of them. best is the epoch that is best
// for all together.
func (t *trainer) seeds(ctx context.Context, part, label string, p *prepared, epochs, k int) (m *fitted, best int, err error) {
	var nets []*fitted
	var runs [][]train.Epoch
	for s := range t.Ensemble() {
		f := fitting{config: &t.Config, seed: t.Seed + uint64(s), scales: t.scales, explain: t.Explain}
		run := train.Part{Name: part, Label: label, Towers: t.Config.Towers}
		if n := t.Ensemble(); n > 1 {
			run.Name, run.Label = fmt.Sprintf("%s-seed%d", part, s+1), fmt.Sprintf("%s, seed %d of %d", label, s+1, n)
		}
		if t.tuning != nil && k == 0 && s == 0 {
			run.From = train.TrialPart(t.tuning.Trials[0].ID, 0)
		}
		if p.fit < p.Len() {
			run.Figure, run.Words, run.Smaller = figureKey, figureWords, true
		} else if k == len(t.origins) {
			run.Event = "refit"
		}
		f.do = func(ctx context.Context, task *train.Task) (*train.Result, error) {
			task.Identity, task.Budget = t.identity(&t.Config, f.seed), t.session.Within(t.later(k, s))
			if task.Budget != nil {
				task.Budget.Must = k > 0 || s > 0
			}
			return t.session.Run(ctx, run, task, t.Backend)
		}
		n, err := f.run(ctx, p, epochs)
		if err != nil {
			return nil, 0, err
		}
		t.Explain = nil // once is enough
		nets, runs = append(nets, n), append(runs, n.result.Epochs)
	}
	best = len(runs[0])
	if p.fit < p.Len() {
		best = train.BestTogether(runs, 1)
	}
	if t.scales == nil {
		t.scales = nets[0].result.Scales
	}
	m, err = together(nets, p.Width)
	return m, best, err
}

// fits is how many of so many epochs of a part, with as many of more parts after it, fit into the budget, at least one.
func (t *trainer) fits(part string, epochs int, p *prepared, more int) (int, error) {
	runs := float64(t.Ensemble() * (more + 1))
	n, err := t.session.Fits(part, epochs, p.fit, (runs-1)*float64(p.fit))
	if n = max(n, 1); err == nil && n < epochs {
		t.Note("--max-time %s leaves time for %s in place of %d", t.MaxTime, train.Plural(n, "epoch"), epochs)
	}
	return n, err
}

// later is what has to be trained after a run, as its budget sees it: each other fold and all of it take about as long an epoch
// as this, because rows are drawn down to as many.
func (t *trainer) later(k, s int) func(epoch time.Duration, done, best int) time.Duration {
	seeds := t.Ensemble()
	return func(epoch time.Duration, done, best int) time.Duration {
		each := done
		if k == 0 {
			each = best
		}
		return epoch * time.Duration((seeds-1-s)*done+seeds*(len(t.origins)-k)*each)
	}
}

// begun is what the run log says of the training before it begins.
func (t *trainer) begun() any {
	settings := map[string]string{"horizon": fmt.Sprint(t.Horizon)}
	for _, f := range t.Config.facts() {
		settings[f.Name] = f.Value
	}
	return train.Begun{
		Format: train.LogFormat, Task: "demand", Onmart: t.Created.Onmart, Args: t.Created.Args, Out: filepath.Clean(t.Out),
		Backend: t.Backend.Name(), Threads: t.Threads, Seed: t.Seed, Seeds: t.Ensemble(), Folds: len(t.origins), Trials: t.Trials,
		MaxSeconds: t.MaxTime.Seconds(), Data: t.Source.Data.ID(), Train: t.span.String(), Settings: settings,
	}
}

// errNoNetwork is why nothing can be tuned.
var errNoNetwork = errors.New("--tune: there is no network to tune: the panel is too short for folds, or --set network=false")
