package train

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/train/tune"
)

// Begun is the record that begins a run log.
type Begun struct {
	Format     int               `json:"format"`
	Task       string            `json:"task"`
	Onmart     string            `json:"onmart"`
	Args       []string          `json:"args,omitempty"`
	Out        string            `json:"out"`
	Backend    string            `json:"backend"`
	Threads    int               `json:"threads"`
	Seed       uint64            `json:"seed"`
	Seeds      int               `json:"seeds"`
	Folds      int               `json:"folds,omitempty"`
	Trials     int               `json:"trials,omitempty"`
	MaxSeconds float64           `json:"max_seconds,omitempty"`
	Data       string            `json:"data"`
	Train      string            `json:"train"`
	Valid      string            `json:"valid,omitempty"`
	Rows       int               `json:"rows,omitempty"`
	Settings   map[string]string `json:"settings"`
}

// Pairs are choices as Set takes them.
func Pairs(cs []tune.Choice) []string {
	var out []string
	for _, c := range cs {
		out = append(out, c.Name+"="+c.Value)
	}
	return out
}

// CheckSpace tries the space's values on a copy of a config. not are settings that may not be tuned, because with another
// value of them figures would not be of the same thing.
func CheckSpace[C any](s tune.Space, settings []Setting[C], c C, not ...string) (tune.Space, error) {
	return s.Check(func(x tune.Choice) error {
		if slices.Contains(not, x.Name) {
			return fmt.Errorf("%s cannot be tuned: it changes what trials are judged by; give it with --set", x.Name)
		}
		trial := c
		if err := Set(&trial, settings, Pairs([]tune.Choice{x})); err != nil {
			return errors.New(strings.ReplaceAll(err.Error(), "--set ", "--tune-space: "))
		}
		return nil
	})
}

// Given are the values that a config has for the settings of a space.
func Given[C any](c *C, settings []Setting[C], s tune.Space) []tune.Choice {
	var out []tune.Choice
	for _, r := range s {
		at := slices.IndexFunc(settings, func(x Setting[C]) bool { return x.Name == r.Name })
		if at >= 0 {
			out = append(out, tune.Choice{Name: r.Name, Value: settings[at].Value(c)})
		}
	}
	return out
}

// DigestFacts is a short digest of facts.
func DigestFacts(facts []Fact) string { return digestJSON(facts) }

// TrialPart is the part that a trial's run on a fold is, both from 0 but the trial.
func TrialPart(trial, fold int) string { return fmt.Sprintf("tune/trial%03d-fold%d", trial, fold+1) }

// Tuning is a search within a session.
type Tuning struct {
	Running
	Space    tune.Space
	Seed     uint64
	Given    []tune.Choice
	Identity string // of all that the trials depend on beside the space
	Figure   string // key of what trials are compared by
	Smaller  bool   // the figure is the negative of what people are shown
	Train    func(ctx context.Context, t tune.Trial, share float64) (tune.Outcome, error)
}

// tuneShare is the share of a budget that trials may take: the best of them is trained in what is left, which takes as long
// as a trial, and once more where all rows are trained on at the end.
const tuneShare = .6

// Run searches, shows how it goes and logs each rung of a trial.
func (u *Tuning) Run(ctx context.Context, s *Session) (*tune.Result, error) {
	rungs := tune.Rungs(u.Trials)
	var plan []string
	total := int64(0)
	for _, r := range rungs {
		plan = append(plan, fmt.Sprintf("%d for %s of the epochs", r.Trials, shareWords(r.Share)))
		total += int64(r.Trials)
	}
	s.Note("tuning: %s, %s", Plural(u.Trials, "trial"), strings.Join(plan, ", then "))
	if left, ok := s.Left(); ok {
		s.tuneUntil = time.Now().Add(time.Duration(tuneShare * float64(left)))
	}
	bar := s.Bar("tuning", total, "trainings")
	o := tune.Options{
		Space: u.Space, Trials: u.Trials, Seed: u.Seed, Given: u.Given, Train: u.Train, Until: s.tuneUntil,
		Journal: s.Out.journal(), Resume: s.Out.Resume,
		Identity: digestJSON([]any{u.Identity, u.Space.String(), rungs}),
	}
	if u.Beside != nil {
		o.Parallel = u.Parallel
	}
	var best *tune.Trial
	var figures []float64
	done := int64(0)
	o.Done = func(t tune.Trial, rung, _ int) {
		done++
		s.came(false)
		s.Event("trial", "", u.shown(t))
		if t.Failed == "" {
			figures = append(figures, u.show(t.Figure))
			if best == nil || t.Rung > best.Rung || t.Rung == best.Rung && t.Figure > best.Figure {
				best = &t
			}
		}
		line := fmt.Sprintf("rung %d of %d", rung+1, len(rungs))
		if best != nil {
			line += fmt.Sprintf(", best %.4f in trial %d", u.show(best.Figure), best.ID)
			bar.Below(line, "  figures "+progress.Spark(figures[max(0, len(figures)-60):]), "  best    "+Words(best.Settings))
		}
		bar.Set(done, line)
	}
	before := time.Since(s.Start)
	r, err := tune.Search(ctx, o)
	bar.Done()
	var none *tune.NoTrial
	if errors.As(err, &none) && none.Short != nil {
		// A twentieth more, as for one epoch.
		enough := before + time.Duration(float64(none.Short.Needed())/tuneShare*1.05)
		err = fmt.Errorf("%w; of --max-time %s the trials have %.0f %% of what is left when they begin, the training of the best "+
			"of them the rest: give --max-time %s or more", err, s.Budget, 100*tuneShare, roundUp(enough))
	}
	if err != nil {
		return nil, err
	}
	if r.Short {
		s.Note("tuning: --max-time %s ends it: the best of the trials that got furthest is taken", s.Budget)
	}
	for i := range r.Trials {
		r.Trials[i] = u.shown(r.Trials[i])
	}
	w := r.Trials[0]
	s.Note("tuning: trial %d is the best, %s %.4f: %s", w.ID, strings.ReplaceAll(u.Figure, "_", " "), w.Figure, Words(w.Settings))
	s.Event("tuned", "", w)
	return r, nil
}

// shown is a trial with figures as people know them.
func (u *Tuning) shown(t tune.Trial) tune.Trial {
	if !u.Smaller {
		return t
	}
	t.Figure = -t.Figure
	t.Figures, t.Folds = slices.Clone(t.Figures), slices.Clone(t.Folds)
	for i := range t.Figures {
		t.Figures[i] = -t.Figures[i]
	}
	for i := range t.Folds {
		t.Folds[i] = -t.Folds[i]
	}
	return t
}

func (u *Tuning) show(x float64) float64 {
	if u.Smaller {
		return -x
	}
	return x
}

// shareWords is a share of the rungs in words.
func shareWords(x float64) string {
	if x >= 1 {
		return "all"
	}
	return fmt.Sprintf("1/%.0f", 1/x)
}

// Words are settings for people.
func Words(cs []tune.Choice) string { return strings.Join(Pairs(cs), " ") }

// UntilTuned is the budget of a trial, nil where there is none.
func (s *Session) UntilTuned() *Budget {
	if s.tuneUntil.IsZero() {
		return nil
	}
	return &Budget{Total: s.tuneUntil.Sub(s.Start), Start: s.Start}
}
