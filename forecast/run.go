package forecast

import (
	"fmt"
	"math"
)

// Options say what a run over a panel makes.
type Options struct {
	Horizon int       // steps ahead, at least 1
	Levels  []float64 // of the quantiles, ascending, inside (0,1); empty makes none
	Seasons []int     // lengths in steps, ascending; nil takes those of the panel's step; []int{1} means none
	Threads int       // 0 is one; the result does not depend on it
	Folds   int       // rolling windows whose errors make the quantiles; 0 takes DefaultFolds
	Signed  bool      // values below zero are possible; without it forecasts are at least zero
	// Closed holds the steps on which nothing is sold, history and horizon. nil looks for them in the panel
	// (FindClosed), at each fold in what was known then; AlwaysOpen() is none.
	Closed *Closed
}

// DefaultFolds is the number of rolling windows where none is given.
const DefaultFolds = 4

func (o *Options) check() error {
	if o.Horizon < 1 {
		return fmt.Errorf("forecast: a horizon of %d steps: ask for at least one", o.Horizon)
	}
	for i, q := range o.Levels {
		if !(q > 0 && q < 1) || i > 0 && !(q > o.Levels[i-1]) {
			return fmt.Errorf("forecast: quantile levels %v: give ascending numbers between 0 and 1", o.Levels)
		}
	}
	for i, m := range o.Seasons {
		if m < 1 || i > 0 && m <= o.Seasons[i-1] {
			return fmt.Errorf("forecast: seasons %v: give ascending lengths in steps, at least 1", o.Seasons)
		}
	}
	if o.Folds < 0 {
		return fmt.Errorf("forecast: %d folds: give at least one, or 0 for %d", o.Folds, DefaultFolds)
	}
	return nil
}

// Run forecasts every series of a panel by one method, with quantiles from the errors of rolling folds (Calibrate)
// where levels are given.
//
// Whatever the series, there is an answer: one of a single point is carried forward; one of zeros is forecast as
// zero; a horizon longer than the history is served by the same means; a history too short for a method's season, for
// its trend or for folds goes without. A negative value is kept, and models that need positive data are left out for
// that series; forecasts below zero become zero unless Options.Signed is set.
func Run(p *Panel, method string, o Options) ([]Forecast, error) {
	fits, err := Means(p, method, o)
	if err != nil {
		return nil, err
	}
	out := make([]Forecast, len(fits))
	for i := range fits {
		out[i] = Forecast{fits[i].Mean, fits[i].Quantiles}
	}
	if m, _ := Lookup(method); len(o.Levels) == 0 || m.Quantiles {
		return out, nil
	}
	folds, err := Backtest(p, method, o)
	if err != nil {
		return nil, err
	}
	return out, Calibrate(p, folds, out, o)
}

// Means is Run without quantiles: the fit of each series, its mean on the calendar of the horizon.
func Means(p *Panel, method string, o Options) ([]Fit, error) {
	m, err := Lookup(method)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return means(p, m, &o)
}

func means(p *Panel, m Method, o *Options) ([]Fit, error) {
	closed := o.Closed
	if closed == nil {
		closed = FindClosed(p)
	}
	r := prepare(p, closed, o, m.seasonal)
	in := input{h: r.steps, seasons: r.seasons, threads: o.Threads, signed: o.Signed, levels: o.Levels}
	fits := make([]Fit, len(r.series))
	switch {
	case r.steps == 0: // closed throughout: nothing to forecast but zeros
		if m.Quantiles {
			for i := range fits {
				fits[i].Quantiles = make([][]float64, len(o.Levels))
			}
		}
	case m.panel != nil:
		var err error
		if fits, err = m.panel(r, in); err != nil {
			return nil, fmt.Errorf("forecast: %s: %w", m.Name, err)
		}
	default:
		each(len(fits), o.Threads, func(i int) { fits[i] = m.series(r.series[i], in) })
	}
	for i := range fits {
		f := &fits[i]
		f.Mean = r.restore(f.Mean)
		for t, v := range f.Mean {
			if !(v >= 0) && !o.Signed || math.IsNaN(v) || math.IsInf(v, 0) {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					return nil, fmt.Errorf("forecast: %s gave %v for series %q at step %d of the horizon: this is a bug",
						m.Name, v, p.Series[i].Key, t+1)
				}
				f.Mean[t] = 0
			}
		}
		for l, q := range f.Quantiles {
			f.Quantiles[l] = r.restore(q)
		}
		if f.Fitted != nil {
			f.Fitted = r.spread(f.Fitted, &p.Series[i], r.first[i])
		}
	}
	return fits, nil
}

// Fold is one rolling window of one series: what was forecast at an origin and what came. History is what was known.
type Fold struct {
	Mean, Actual []float64 // by step; shared with the panel
	History      []float64
	Open         []bool // by step: false where the step was forecast to be closed; nil is open throughout
}

// Origins are the starts (indices into Panel.Times) of the o.Folds windows of a horizon that end with the panel, the
// latest last, a horizon apart; fewer where the panel is too short to leave each a history of at least one horizon.
func Origins(p *Panel, o Options) []int {
	folds := o.Folds
	if folds == 0 {
		folds = DefaultFolds
	}
	var out []int
	for k := folds; k >= 1; k-- {
		if at := len(p.Times) - k*o.Horizon; at >= o.Horizon {
			out = append(out, at)
		}
	}
	return out
}

// Backtest forecasts at each of the Origins from what was known there: folds by series, in the order of the origins.
// A series that had not begun at an origin has no fold there.
func Backtest(p *Panel, method string, o Options) ([][]Fold, error) {
	m, err := Lookup(method)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	folds := make([][]Fold, len(p.Series))
	for _, at := range Origins(p, o) {
		cut, kept := p.Cut(at)
		fits, err := means(cut, m, &o)
		if err != nil {
			return nil, err
		}
		open := openAhead(cut, &o)
		for k, i := range kept {
			s := &p.Series[i]
			from := at - s.First
			folds[i] = append(folds[i], Fold{Mean: fits[k].Mean, Actual: s.Y[from : from+o.Horizon],
				History: s.Y[:from], Open: open})
		}
	}
	return folds, nil
}

// openAhead says which steps of the horizon after a panel are open.
func openAhead(p *Panel, o *Options) []bool {
	closed := o.Closed
	if closed == nil {
		closed = FindClosed(p)
	}
	open := make([]bool, o.Horizon)
	for t, at := range p.Future(o.Horizon) {
		open[t] = !closed.At(at)
	}
	return open
}
