package recommend

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/onmart/onmart/ranking"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/tune"
)

// DefaultSpace is what --tune draws from where nothing else is said: the settings of the network and of the parts beside it
// that have ranges to try.
func DefaultSpace() tune.Space {
	return tune.Must(`
als_regularization: {from: 5, to: 80, log: true}
anonymous: {from: 0, to: 0.6}
dim: [32, 64, 96]
ease_lambda: {from: 100, to: 1500, log: true}
epochs: {from: 3, to: 12}
half_life: [0, 60, 120, 240]
learning_rate: {from: 0.001, to: 0.02, log: true}
negatives: [128, 256, 512]
penalty: {from: 2, to: 32, log: true}
`)
}

// notTuned are the settings with which trials would be judged on something else.
var notTuned = []string{"model", "horizon", "folds"}

// CheckSpace reports every fault of the ranges of --tune, and finds out which are of whole numbers.
func (c *Config) CheckSpace(s tune.Space) (tune.Space, error) {
	return train.CheckSpace(s, Settings(), *c, notTuned...)
}

// figureKey is what trials are judged by: over all items, on the latest fold.
const figureKey = "ndcg_at_10"

// trial is one that is being tried.
type trial struct {
	id    int
	share float64 // of the network's epochs
	begun bool    // it has passed a rung, from whose end it goes on
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
	folds := t.folds
	if t.Config.Model != string(ranking.Blended) {
		f := fold{from: t.span.To - int64(t.Config.Horizon)*microDay, to: t.span.To}
		if !t.usable(&f) {
			return fmt.Errorf("--tune: in the last %d days of --train %s nobody who had bought before bought anything that had been sold "+
				"before: there is nothing to judge trials by", t.Config.Horizon, t.span)
		}
		folds = []fold{f}
	} else if len(folds) < 2 {
		return errors.New("--tune: a blend is fitted on folds and judged on one that it has not seen: it takes two; give a longer " +
			"--train, no --valid, or --set folds=2")
	}
	t.parts = &partsKit{made: map[string]*once{}}
	defer func() { t.parts = nil }()
	search := train.Tuning{
		Running: t.Running, Space: space, Seed: t.Seed, Given: train.Given(&t.Config, Settings(), space), Figure: figureKey,
		Identity: train.DigestFacts(t.identity("tune", t.Seed)),
		Train: func(ctx context.Context, x tune.Trial, share float64) (tune.Outcome, error) {
			return t.try(ctx, x, share, slices.Clone(folds))
		},
	}
	if t.tuning, err = search.Run(ctx, t.session); err != nil {
		return err
	}
	return t.Config.Set(train.Pairs(t.tuning.Trials[0].Settings))
}

// try trains all that a trial is made of up to the latest fold, the network for a share of its epochs, and judges it there.
func (t *trainer) try(ctx context.Context, x tune.Trial, share float64, folds []fold) (tune.Outcome, error) {
	u := *t
	u.folds, u.trial, u.Note = folds, &trial{x.ID, share, x.Rung > 0}, func(string, ...any) {}
	u.Seeds = 1
	if err := u.Config.Set(train.Pairs(x.Settings)); err != nil {
		return tune.Outcome{Failed: err.Error()}, nil // settings that do not go together
	}
	if t.Beside != nil {
		u.Backend, u.Threads = t.Beside, 1
	}
	m, err := u.tried(ctx)
	if err != nil {
		return train.Unfit(err, len(folds)*train.Epochs(share, u.Config.Epochs))
	}
	f := folds[0]
	r, err := ranking.Evaluate(m, u.between(f.from, f.to), listed, u.Threads)
	if err != nil {
		return tune.Outcome{}, err
	}
	epochs := train.Epochs(share, u.Config.Epochs)
	if !u.Config.Embeds() {
		epochs = 0
	}
	return tune.Outcome{Figure: r.All.NDCG, Epochs: epochs, Best: epochs}, nil
}

// tried is the model of a trial as of the latest fold.
func (t *trainer) tried(ctx context.Context) (*ranking.Model, error) {
	if t.Config.Model == string(ranking.Blended) {
		sets, err := t.foldSets(ctx)
		if err != nil {
			return nil, err
		}
		m, _, _, err := t.onLatest(ctx, sets)
		return m, err
	}
	from := t.folds[0].from
	l := t.history.Log.Until(from)
	parts, _, err := t.fitParts(ctx, l, from, "fold1")
	if err != nil {
		return nil, err
	}
	return ranking.NewModel(ranking.Kind(t.Config.Model), l, from, parts)
}

// partsKit keeps the parts that trials made of the same settings on the same fold. A nil one keeps none.
type partsKit struct {
	mu   sync.Mutex
	made map[string]*once
}

type once struct {
	sync.Once
	value any
	err   error
}

// shared makes a part, or takes it where a trial has made it.
func shared[T any](t *trainer, key string, make func() (T, error)) (T, error) {
	if t.parts == nil {
		return make()
	}
	t.parts.mu.Lock()
	o := t.parts.made[key]
	if o == nil {
		o = &once{}
		t.parts.made[key] = o
	}
	t.parts.mu.Unlock()
	o.Do(func() { o.value, o.err = make() })
	if o.err != nil {
		var none T
		return none, o.err
	}
	return o.value.(T), nil
}

// network is the training of the network on a log up to now, with each seed, as parts of the session.
func (t *trainer) network(ctx context.Context, l *ranking.Log, now int64, name string) (*network, error) {
	var nets []*network
	c := t.Config
	if t.trial == nil {
		n, err := t.session.Fits(name, c.Epochs, len(l.User), t.linesAfter(name, len(l.User), 0))
		if err != nil {
			return nil, err
		}
		if n = max(n, 1); n < c.Epochs {
			t.Note("--max-time %s leaves time for %s of the network in place of %d", t.MaxTime, train.Plural(n, "epoch"), c.Epochs)
			c.Epochs = n
		}
	}
	for s := range t.Ensemble() {
		f := fitting{config: &c, seed: t.Seed + uint64(s), explain: t.Explain}
		p := train.Part{Name: name, Label: "network, " + name}
		if n := t.Ensemble(); n > 1 {
			p.Name, p.Label = fmt.Sprintf("%s-seed%d", name, s+1), fmt.Sprintf("network, %s, seed %d of %d", name, s+1, n)
		}
		if t.tuning != nil && s == 0 && t.Config.Model == string(ranking.Blended) { // whose trials have the same folds
			p.From = fmt.Sprintf("tune/trial%03d-%s", t.tuning.Trials[0].ID, name)
		}
		if name == "all" && len(t.folds) > 0 {
			p.Event = "refit"
		}
		if t.trial != nil {
			p = train.Part{Name: fmt.Sprintf("tune/trial%03d-%s", t.trial.id, name), Label: fmt.Sprintf("trial %d", t.trial.id), Quiet: true}
			f.explain = nil
		}
		f.do = func(ctx context.Context, task *train.Task) (*train.Result, error) {
			task.Identity = t.identity(name, f.seed)
			if t.trial != nil {
				task.Stop, task.Budget = train.Epochs(t.trial.share, t.Config.Epochs), t.session.UntilTuned()
				task.Resume = t.trial.begun
			} else if task.Budget = t.session.Within(t.later(name, len(l.User), s)); task.Budget != nil {
				task.Budget.Must = s > 0 || len(t.session.Curves()) > 0
			}
			return t.session.Run(ctx, p, task, t.Backend)
		}
		n, err := f.run(ctx, l, now)
		if err != nil {
			return nil, err
		}
		if n.result.Budgeted && t.trial != nil {
			_, err := train.OutcomeOf(n.result, len(t.folds)*train.Epochs(t.trial.share, t.Config.Epochs))
			return nil, err
		}
		nets = append(nets, n)
	}
	if t.trial == nil {
		t.Explain = nil // once is enough
	}
	return together(nets)
}

// later is what the network has still to be trained on after a run, as its budget sees it: the folds after this one and all
// of it, for as many epochs as this one has done.
func (t *trainer) later(name string, rows, seed int) func(epoch time.Duration, done, best int) time.Duration {
	lines := t.linesAfter(name, rows, seed)
	return func(epoch time.Duration, done, _ int) time.Duration {
		return time.Duration(float64(epoch) * float64(done) * lines / float64(rows))
	}
}

// linesAfter is the lines of all runs after one.
func (t *trainer) linesAfter(name string, rows, seed int) float64 {
	var lines float64
	if name != "all" {
		lines = float64(len(t.history.Log.User))
		own := false
		for k, f := range t.folds {
			if own {
				lines += float64(len(t.history.Log.Until(f.from).User))
			}
			own = own || name == fmt.Sprintf("fold%d", k+1)
		}
	}
	seeds := float64(t.Ensemble())
	return lines*seeds + (seeds-1-float64(seed))*float64(rows)
}

// begun is what the run log says of the training before it begins.
func (t *trainer) begun() any {
	settings := map[string]string{}
	for _, f := range t.Config.facts() {
		settings[f.Name] = f.Value
	}
	return train.Begun{
		Format: train.LogFormat, Task: "recommend", Onmart: t.Created.Onmart, Args: t.Created.Args, Out: filepath.Clean(t.Out),
		Backend: t.Backend.Name(), Threads: t.Threads, Seed: t.Seed, Seeds: t.Ensemble(), Folds: len(t.folds), Trials: t.Trials,
		MaxSeconds: t.MaxTime.Seconds(), Data: t.Source.Data.ID(), Train: t.span.String(), Rows: len(t.history.Log.User),
		Settings: settings,
	}
}
