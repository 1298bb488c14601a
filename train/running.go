package train

import (
	"errors"
	"math"
	"time"

	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/tune"
)

// Running is how a training runs, whatever its task: the options that all tasks share beside those of their data. The zero
// value trains once, to the end, and keeps no log.
type Running struct {
	// Log is the file of the run log; "" keeps none.
	Log string
	// MaxTime is the budget of all training from Start on, which is the beginning of the command; 0 is none.
	MaxTime time.Duration
	Start   time.Time
	// Seeds is how many networks are trained with seeds that follow one another, and averaged; 0 is 1.
	Seeds int
	// Trials is how many settings are tried, drawn from Space, before the best of them is trained; 0 tries none. Beside,
	// where not nil, trains trials of small models side by side, as many as Parallel says: the results are the same.
	Trials   int
	Space    tune.Space
	Beside   program.Backend
	Parallel int
}

// MaxSeeds bounds an ensemble: each network is trained and asked in turn.
const MaxSeeds = 64

// Ensemble is the number of networks, at least 1.
func (r *Running) Ensemble() int { return max(1, r.Seeds) }

// Session begins the runs of a training to out.
func (r *Running) Session(out Output, note func(string, ...any), bar func(string, int64, string) *progress.Bar) *Session {
	s := &Session{Out: out, Log: r.Log, Budget: r.MaxTime, Start: r.Start, Note: note, Bar: bar}
	if s.Start.IsZero() {
		s.Start = time.Now()
	}
	return s
}

// Unfit is the outcome of a trial that cannot be trained, where err says so: its loss left the numbers. Any other error is
// returned; epochs are those that the rung takes over all folds, for the error of a budget.
func Unfit(err error, epochs int) (tune.Outcome, error) {
	var diverged *Diverged
	var notFinite *program.NotFinite
	var short *TooShort
	switch {
	case errors.As(err, &diverged) || errors.As(err, &notFinite):
		return tune.Outcome{Failed: err.Error()}, nil
	case errors.As(err, &short):
		return tune.Outcome{}, &tune.Short{Epoch: short.Epoch, Epochs: epochs}
	}
	return tune.Outcome{}, err
}

// OutcomeOf is what a finished rung of a trial came to; epochs are those of Unfit.
func OutcomeOf(r *Result, epochs int) (tune.Outcome, error) {
	if r.Budgeted {
		return tune.Outcome{}, outOfTime(r, epochs)
	}
	return tune.Outcome{Figure: r.Merit, Epochs: len(r.Epochs), Best: r.Best}, nil
}

// outOfTime is the error of a trial that the budget ended after some epochs of a rung.
func outOfTime(r *Result, epochs int) error {
	var seconds float64
	for _, e := range r.Epochs {
		seconds += e.Seconds / float64(len(r.Epochs))
	}
	return &tune.Short{Epoch: time.Duration(seconds * float64(time.Second)), Epochs: epochs}
}

// Epochs is a share of so many epochs, at least one.
func Epochs(share float64, epochs int) int { return max(1, int(share*float64(epochs)+.5)) }

// Merit is what the epochs of a run are compared by: the figure averaged over so many epochs up to this one, counted from 1.
func Merit(epochs []Epoch, epoch, average int) float64 {
	last := epochs[max(0, epoch-max(1, average)):epoch]
	var sum float64
	for _, e := range last {
		sum += *e.Figure
	}
	return sum / float64(len(last))
}

// BestTogether is the epoch that is best for several runs: by the mean of their merits, among the epochs that all have. It
// is the first of equals, counted from 1.
func BestTogether(runs [][]Epoch, average int) int {
	epochs := len(runs[0])
	for _, r := range runs {
		epochs = min(epochs, len(r))
	}
	best, most := 1, 0.
	for e := 1; e <= epochs; e++ {
		var sum float64
		for _, r := range runs {
			sum += Merit(r, e, average)
		}
		if e == 1 || sum > most {
			best, most = e, sum
		}
	}
	return best
}

// MeanSpread is the mean of figures and their standard deviation (over n-1), 0 of one.
func MeanSpread(xs []float64) (mean, spread float64) {
	for _, x := range xs {
		mean += x / float64(len(xs))
	}
	if len(xs) < 2 {
		return mean, 0
	}
	var squares float64
	for _, x := range xs {
		squares += (x - mean) * (x - mean)
	}
	return mean, math.Sqrt(squares / float64(len(xs)-1))
}
