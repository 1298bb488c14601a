package fraud

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/tune"
)

// DefaultSpace is what --tune draws from where nothing else is said: the settings that decide most for networks on tables of
// features, within a factor of a few of the defaults.
func DefaultSpace() tune.Space {
	return tune.Must(`
activation: [relu, silu]
batch: [128, 256, 512, 1024]
dropout: {from: 0, to: 0.5}
hidden: ["32,32", "64,64", "64,64,64", "128,128", "256,128"]
learning_rate: {from: 0.0005, to: 0.01, log: true}
positive_weight: [1, 1, 2, 5]
towers: {from: 1, to: 4}
weight_decay: [0, 0, 0.0001, 0.001, 0.01]
`)
}

// CheckSpace reports every fault of the ranges of --tune, and finds out which are of whole numbers.
func (c *Config) CheckSpace(s tune.Space) (tune.Space, error) {
	return train.CheckSpace(s, Settings(), *c)
}

// tune tries settings on the folds and goes on with the best.
func (t *trainer) tune(ctx context.Context) error {
	if t.Trials == 0 {
		return nil
	}
	space, err := t.Config.CheckSpace(t.Space)
	if err != nil {
		return err
	}
	search := train.Tuning{
		Running: t.Running, Space: space, Seed: t.Seed, Given: train.Given(&t.Config, Settings(), space), Figure: "average_precision",
		Identity: train.DigestFacts(t.identity(&t.Config, t.Seed)),
		Train:    t.trial,
	}
	if t.tuning, err = search.Run(ctx, t.session); err != nil {
		return err
	}
	best := t.tuning.Trials[0]
	err = t.Config.Set(train.Pairs(best.Settings))
	t.log = t.logOf(&t.Config)
	return err
}

// trial trains one up to a share of its epochs on every fold, and judges it there.
func (t *trainer) trial(ctx context.Context, x tune.Trial, share float64) (tune.Outcome, error) {
	c := t.Config
	if err := c.Set(train.Pairs(x.Settings)); err != nil {
		return tune.Outcome{Failed: err.Error()}, nil // settings that do not go together
	}
	backend, threads := t.Backend, t.Threads
	if t.Beside != nil {
		backend, threads = t.Beside, 1
	}
	epochs := len(t.folds) * train.Epochs(share, c.Epochs)
	var folds []tune.Outcome
	for k, f := range t.folds {
		run := fitting{config: &c, backend: backend, seed: t.Seed, threads: threads, log: t.logOf(&c)}
		run.do = func(ctx context.Context, task *train.Task) (*train.Result, error) {
			task.Identity, task.Budget = t.identity(&c, t.Seed), t.session.UntilTuned()
			task.Stop, task.Resume = train.Epochs(share, c.Epochs), x.Rung > 0
			return t.session.Run(ctx, train.Part{
				Name: train.TrialPart(x.ID, k), Label: fmt.Sprintf("trial %d", x.ID), Figure: figureOf(f.valid), Words: figureWords,
				Towers: c.Towers, Quiet: true,
			}, task, backend)
		}
		m, err := run.run(ctx, f.fit, f.valid, c.Epochs)
		if err != nil {
			return train.Unfit(err, epochs)
		}
		out, err := train.OutcomeOf(m.result, epochs)
		if err != nil {
			return tune.Outcome{}, err
		}
		folds = append(folds, out)
	}
	return tune.Mean(folds), nil
}

// logOf says of which features the logarithm is taken.
func (t *trainer) logOf(c *Config) []bool {
	log := make([]bool, len(t.features))
	for i, f := range t.features {
		log[i] = f.Log && c.Log
	}
	return log
}

// begun is what the run log says of the training before it begins.
func (t *trainer) begun() any {
	settings := map[string]string{}
	for _, f := range t.Config.facts() {
		settings[f.Name] = f.Value
	}
	return train.Begun{
		Format: train.LogFormat, Task: "fraud", Onmart: t.Created.Onmart, Args: t.Created.Args, Out: filepath.Clean(t.Out),
		Backend: t.Backend.Name(), Threads: t.Threads, Seed: t.Seed, Seeds: t.Ensemble(), Folds: len(t.folds), Trials: t.Trials,
		MaxSeconds: t.MaxTime.Seconds(), Data: t.Source.Features.ID(), Train: t.span.String(), Valid: t.validText(),
		Rows: t.rows.Len(), Settings: settings,
	}
}

// validText is the ranges that judge.
func (t *trainer) validText() string {
	var out []string
	for _, f := range t.folds {
		out = append(out, f.Valid.String())
	}
	return strings.Join(out, ", ")
}
