package tune

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/progress"
)

// Trial is one draw and what is known of it.
type Trial struct {
	ID       int      `json:"trial"`    // from 1; the first is the settings as they were given
	Settings []Choice `json:"settings"` // those of the space
	// Rung is how many rungs it has passed, 0 before the first; Share the share of its epochs it was trained for there.
	Rung  int     `json:"rung"`
	Share float64 `json:"share"`
	Outcome
	// Figures are those after each rung; a trial that failed has fewer than Rung.
	Figures []float64 `json:"figures"`
	Seconds float64   `json:"seconds"` // that this trial took, over all processes
}

// Outcome is how good a trial is after a rung.
type Outcome struct {
	// Figure is on validation rows, greater is better; the mean where there are Folds, and Spread their deviation.
	Figure float64   `json:"figure"`
	Spread float64   `json:"spread,omitempty"`
	Folds  []float64 `json:"folds,omitempty"`
	Epochs int       `json:"epochs"` // trained so far, over the folds the most
	Best   int       `json:"best"`   // the epoch that the figure is of, of the first fold
	// Failed says why there is no figure: the training diverged, say.
	Failed string `json:"failed,omitempty"`
}

// Mean is the outcome of several folds.
func Mean(folds []Outcome) Outcome {
	out := folds[0]
	out.Figure, out.Folds = 0, nil
	for _, f := range folds {
		if f.Failed != "" {
			return Outcome{Failed: f.Failed, Epochs: f.Epochs}
		}
		out.Figure += f.Figure / float64(len(folds))
		out.Epochs = max(out.Epochs, f.Epochs)
	}
	if len(folds) == 1 {
		return out
	}
	var squares float64
	for _, f := range folds {
		out.Folds = append(out.Folds, f.Figure)
		squares += (f.Figure - out.Figure) * (f.Figure - out.Figure)
	}
	out.Spread = math.Sqrt(squares / float64(len(folds)-1))
	return out
}

// Options of Search.
type Options struct {
	Space  Space
	Trials int
	Seed   uint64
	// Given are the settings of the first trial: those of the space as they are without a search.
	Given []Choice
	// Train trains a trial up to a share of its epochs, going on from where the last rung left it, and judges it. A trial
	// that cannot be trained is an Outcome that says so; ErrTime says that the time was over before the rung was done, and
	// ends the search as Until does; another error ends it. It is called from Parallel goroutines.
	Train    func(ctx context.Context, t Trial, share float64) (Outcome, error)
	Parallel int
	// Journal is the file that holds what is known of the trials; Identity what they depend on. Where Journal exists
	// and Resume is set it is gone on from, and refused where it is of another search.
	Journal  string
	Identity string
	Resume   bool
	// Until ends the search where it comes first: what has been trained furthest by then is compared. Zero is no end.
	Until time.Time
	// Done is told of each rung of a trial that was trained; it may be nil.
	Done func(t Trial, rung, rungs int)
}

// Result is a finished search.
type Result struct {
	Trials []Trial `json:"trials"` // best first: those of the last rung by their figures, then those of the one before
	Rungs  []Rung  `json:"rungs"`
	// Short tells that Until came before the last rung was done.
	Short bool `json:"short,omitempty"`
}

// Rung is one step of the halving.
type Rung struct {
	Trials int     `json:"trials"`
	Share  float64 `json:"share"` // of a trial's epochs
}

// ErrTime is what Train returns where the time was over first, by itself or in a Short.
var ErrTime = errors.New("the time was over")

// Short is an ErrTime that knows how long the rung would have taken.
type Short struct {
	Epoch  time.Duration // what an epoch takes, about
	Epochs int           // of the rung, over all folds
}

func (e *Short) Error() string {
	return fmt.Sprintf("%v: an epoch takes about %s and there are %d", ErrTime, progress.Duration(e.Epoch), e.Epochs)
}

func (e *Short) Unwrap() error { return ErrTime }

// Needed is what all epochs of the rung take, about.
func (e *Short) Needed() time.Duration { return e.Epoch * time.Duration(e.Epochs) }

// NoTrial is the error of a search whose time was over before one trial had passed the first rung.
type NoTrial struct {
	Had   time.Duration // from the beginning of the search to Until
	Short *Short        // of the trial that needs least, nil where none was trained far enough to measure
}

func (e *NoTrial) Error() string {
	s := fmt.Sprintf("tune: the time was over before the first trial was trained: the trials had %s", progress.Duration(e.Had))
	if e.Short == nil {
		return s + ", in which none got as far as one epoch could be measured by; give a longer --max-time"
	}
	return s + fmt.Sprintf(", and the %d epochs that a trial takes first need about %s (%s each)", e.Short.Epochs,
		progress.Duration(e.Short.Needed()), progress.Duration(e.Short.Epoch))
}

// NoneTrained is the error of a search of which every trial failed. Going on from its journal would come to the same.
type NoneTrained struct {
	Trials int
	First  string // why the first failed
}

func (e *NoneTrained) Error() string {
	return fmt.Sprintf("tune: none of the %d trials could be trained; the first failed so: %s", e.Trials, e.First)
}

// halving is how many trials of a rung there are for one that goes on: 3, as in Jamieson and Talwalkar 2016 and in
// Hyperband (Li et al. 2018), whose regret is least near e.
const halving = 3

// manyTrials is from how many trials on there is a rung of a ninth of the epochs. The figures of so few epochs say which
// settings are far off, and otherwise favour those that learn fast.
const manyTrials = 27

// Rungs is the plan for so many trials: the first rung takes a third of the epochs from 3 trials on, a ninth from 27 on.
func Rungs(trials int) []Rung {
	steps := 0
	if trials >= halving {
		steps++
	}
	if trials >= manyTrials {
		steps++
	}
	var out []Rung
	for k := steps; k >= 0; k-- {
		out = append(out, Rung{trials, math.Pow(halving, -float64(k))})
		trials = (trials + halving - 1) / halving
	}
	return out
}

// Search draws trials and trains them rung by rung: after each, the better third goes on (successive halving, Jamieson and
// Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", 2016). The result depends on the
// options alone, not on time or on Parallel, unless Until comes.
func Search(ctx context.Context, o Options) (*Result, error) {
	if o.Trials < 1 {
		return nil, fmt.Errorf("tune: %d trials, want at least 1", o.Trials)
	}
	s := &search{Options: o, rungs: Rungs(o.Trials), began: time.Now()}
	for i := range o.Trials {
		t := Trial{ID: i + 1, Settings: o.Given}
		if i > 0 {
			t.Settings = o.Space.Draw(o.Seed, i)
		}
		s.trials = append(s.trials, t)
	}
	if err := s.take(); err != nil {
		return nil, err
	}
	going := make([]int, o.Trials)
	for i := range going {
		going[i] = i
	}
	for k := range s.rungs {
		if err := s.rung(ctx, k, going); err != nil {
			return nil, err
		}
		if s.short {
			break
		}
		going = s.better(going, k)
	}
	return s.result()
}

type search struct {
	Options
	rungs  []Rung
	mu     sync.Mutex
	trials []Trial
	short  bool
	began  time.Time
	least  *Short // of those that ended by time
}

// rung trains the trials that have not passed it yet.
func (s *search) rung(ctx context.Context, k int, going []int) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	work := make(chan int)
	errs := make([]error, max(1, s.Parallel))
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := range work {
				if errs[w] == nil {
					if errs[w] = s.one(ctx, k, i); errs[w] != nil {
						stop(errs[w])
					}
				}
			}
		})
	}
	for _, i := range going {
		if s.trials[i].Rung > k {
			continue
		}
		if s.over() {
			break
		}
		work <- i
	}
	close(work)
	wg.Wait()
	// The error that stopped the others comes first: theirs say only that they were stopped.
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		for _, err := range errs {
			if errors.Is(cause, err) {
				return err
			}
		}
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// over tells whether the time is over.
func (s *search) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.short = s.short || !s.Until.IsZero() && time.Now().After(s.Until)
	return s.short
}

// one trains one trial up to a rung.
func (s *search) one(ctx context.Context, k, i int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	began := time.Now()
	s.mu.Lock()
	t := s.trials[i]
	s.mu.Unlock()
	out, err := s.Train(ctx, t, s.rungs[k].Share)
	if errors.Is(err, ErrTime) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.short = true
		var short *Short
		if errors.As(err, &short) && short.Epoch > 0 && (s.least == nil || short.Needed() < s.least.Needed()) {
			s.least = short
		}
		return nil
	}
	if err != nil {
		return err
	}
	if out.Failed == "" && (math.IsNaN(out.Figure) || math.IsInf(out.Figure, 0)) {
		out.Failed = fmt.Sprintf("its figure is %v", out.Figure)
	}
	if out.Failed != "" {
		out.Figure = 0 // not a number is not JSON
	} else {
		t.Figures = append(slices.Clone(t.Figures), out.Figure)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Outcome, t.Rung, t.Share = out, k+1, s.rungs[k].Share
	t.Seconds += time.Since(began).Seconds()
	s.trials[i] = t
	if s.Done != nil {
		s.Done(t, k, len(s.rungs))
	}
	return s.keep()
}

// better is the trials that go on after a rung. It looks at the figures of that rung, not at what a journal knows of later
// ones.
func (s *search) better(going []int, k int) []int {
	going = slices.DeleteFunc(going, func(i int) bool { return len(s.trials[i].Figures) <= k })
	slices.SortFunc(going, func(i, j int) int {
		if x, y := s.trials[i].Figures[k], s.trials[j].Figures[k]; x != y {
			if x > y {
				return -1
			}
			return 1
		}
		return i - j
	})
	if k+1 < len(s.rungs) {
		going = going[:min(len(going), s.rungs[k+1].Trials)]
	}
	return going
}

// compare orders trials, the best first: what got further is better, then the figure, then the first.
func compare(a, b *Trial) int {
	failed := func(t *Trial) int {
		if t.Failed != "" {
			return 1
		}
		return 0
	}
	switch {
	case failed(a) != failed(b):
		return failed(a) - failed(b)
	case a.Rung != b.Rung:
		return b.Rung - a.Rung
	case a.Figure > b.Figure:
		return -1
	case a.Figure < b.Figure:
		return 1
	}
	return a.ID - b.ID
}

func (s *search) result() (*Result, error) {
	r := &Result{Trials: slices.Clone(s.trials), Rungs: s.rungs, Short: s.short}
	slices.SortFunc(r.Trials, func(a, b Trial) int { return compare(&a, &b) })
	best := &r.Trials[0]
	if best.Failed != "" {
		return nil, &NoneTrained{s.Options.Trials, s.trials[0].Failed}
	}
	if best.Rung == 0 {
		return nil, &NoTrial{max(0, s.Until.Sub(s.began)), s.least}
	}
	return r, nil
}

// journal is what Journal holds.
type journal struct {
	Identity string  `json:"identity"`
	Trials   []Trial `json:"trials"`
}

// keep writes the journal. The caller holds the lock.
func (s *search) keep() error {
	if s.Journal == "" {
		return nil
	}
	b, err := json.MarshalIndent(journal{s.Identity, s.trials}, "", " ")
	if err != nil {
		return fmt.Errorf("tune: %w", err)
	}
	return atomicdir.WriteFile(s.Journal, append(b, '\n'), true)
}

// take reads the journal of a search that was stopped.
func (s *search) take() error {
	if s.Journal == "" || !s.Resume {
		return nil
	}
	b, err := os.ReadFile(s.Journal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var j journal
	if err == nil {
		err = json.Unmarshal(b, &j)
	}
	if err != nil {
		return fmt.Errorf("tune: the trials in %s cannot be taken up: %w; search anew with --force in place of --resume", s.Journal, err)
	}
	same := len(j.Trials) == len(s.trials) && j.Identity == s.Identity
	for i := range j.Trials {
		t := &j.Trials[i]
		same = same && t.ID == s.trials[i].ID && slices.Equal(t.Settings, s.trials[i].Settings) && t.Rung >= len(t.Figures) && t.Rung <= len(s.rungs)
	}
	if !same {
		return fmt.Errorf("tune: %s holds the trials of another search: give the same data, settings, seed, space and number of trials, or search anew with --force in place of --resume", s.Journal)
	}
	s.trials = j.Trials
	return nil
}
