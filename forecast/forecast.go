// Package forecast holds forecasting methods for one series or a panel of them: classical models with their
// components, open and closed days, quantiles, orders from quantiles, and scores.
//
// What enters is a Panel: series on one grid of steps (hours, days or weeks), each without gaps from its first step
// to the end of the grid, and covariates beside them. What leaves is a Forecast for each series, or an order, or a
// score. The package imports nothing of Onmart, keeps no state between calls, reads no clock and draws no random
// number; results are the same bits for any number of threads, which divide series and never a sum.
//
// What may not be assumed: values may be zero for long stretches, negative (net demand), or constant; a series may
// have one point; a horizon may be longer than the history. Each has an answer (see Run), or an error that says
// which series and what to do. NaN and Inf are refused by (*Panel).Check.
package forecast

import (
	"fmt"
	"math"
	"time"
)

// Step is the length of one step of a panel.
type Step int

// The steps that a panel may have. Days and weeks are those of the panel's zone: a day may have 23 or 25 hours, a
// week begins on Monday.
const (
	Hour Step = iota + 1
	Day
	Week
)

func (s Step) String() string {
	switch s {
	case Hour:
		return "hour"
	case Day:
		return "day"
	case Week:
		return "week"
	}
	return fmt.Sprintf("Step(%d)", int(s))
}

// ParseStep reads "hour", "day" or "week".
func ParseStep(text string) (Step, error) {
	for _, s := range []Step{Hour, Day, Week} {
		if text == s.String() {
			return s, nil
		}
	}
	return 0, fmt.Errorf("step %q is not known: use hour, day or week", text)
}

// Seasons are the lengths, in steps, of the seasons that retail data has at this step: the day and the week of hours,
// the week of days, the year of weeks. The first is the one that scores and Naive2 use.
func (s Step) Seasons() []int {
	switch s {
	case Hour:
		return []int{24, 168}
	case Day:
		return []int{7}
	case Week:
		return []int{52}
	}
	return nil
}

// Next is the start of the step after the one that starts at t (microseconds since 1970 UTC) in zone. A nil zone is
// UTC.
func (s Step) Next(t int64, zone *time.Location) int64 {
	if s == Hour {
		return t + time.Hour.Microseconds()
	}
	if zone == nil {
		zone = time.UTC
	}
	at := time.UnixMicro(t).In(zone)
	days := 1
	if s == Week {
		days = 7
	}
	return time.Date(at.Year(), at.Month(), at.Day()+days, 0, 0, 0, 0, zone).UnixMicro()
}

// Panel is a set of series on one grid of steps.
type Panel struct {
	Step       Step
	Times      []int64        // start of each step, microseconds since 1970 UTC, ascending, without gaps
	Zone       *time.Location // of the steps' boundaries; nil is UTC
	Covariates []Covariate
	Series     []Series
}

// Covariate names a column of every series' X.
type Covariate struct {
	Name  string
	Known bool // its values are known ahead, so that X may run past the history
}

// Series is one row of a panel.
type Series struct {
	Key   string
	First int         // index in Panel.Times of Y[0]
	Y     []float64   // no gaps; ends at len(Panel.Times)
	X     [][]float64 // by covariate, aligned with Y; a known one may run past it
}

// Forecast is what is expected of one series over a horizon.
type Forecast struct {
	Mean      []float64   // by step
	Quantiles [][]float64 // by level, then step; at each step they rise with the level
}

// DefaultLevels are the quantile levels that a forecast has unless it is told others.
func DefaultLevels() []float64 { return []float64{.05, .1, .25, .5, .75, .9, .95, .975} }

// Horizon is the number of steps of the forecast.
func (f *Forecast) Horizon() int { return len(f.Mean) }

// Check reports the first fault of a panel: grid, lengths, values that are no numbers.
func (p *Panel) Check() error {
	if p.Step < Hour || p.Step > Week {
		return fmt.Errorf("panel: step is %v: set forecast.Hour, Day or Week", p.Step)
	}
	for i := 1; i < len(p.Times); i++ {
		switch want := p.Step.Next(p.Times[i-1], p.Zone); {
		case p.Times[i] == p.Times[i-1]:
			return fmt.Errorf("panel: step %d has the time %s of the step before it: sum rows of equal time first",
				i, stamp(p.Times[i]))
		case p.Times[i] < want:
			return fmt.Errorf("panel: step %d starts at %s, before the step before it ends (%s): sort the steps, and "+
				"take their starts in the panel's zone", i, stamp(p.Times[i]), stamp(want))
		case p.Times[i] > want:
			return fmt.Errorf("panel: the step of %s is missing (the next starts at %s): fill gaps with zero, or with "+
				"what was sold, before a panel is made", stamp(want), stamp(p.Times[i]))
		}
	}
	for i := range p.Series {
		if err := p.checkSeries(&p.Series[i]); err != nil {
			return fmt.Errorf("panel: series %d (%q): %w", i, p.Series[i].Key, err)
		}
	}
	return nil
}

func (p *Panel) checkSeries(s *Series) error {
	if len(s.Y) == 0 {
		return fmt.Errorf("has no steps: leave it out until its first one")
	}
	if s.First < 0 || s.First+len(s.Y) != len(p.Times) {
		return fmt.Errorf("has steps %d..%d, the panel has %d: a series ends where the panel ends", s.First,
			s.First+len(s.Y), len(p.Times))
	}
	for t, v := range s.Y {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("value %d (%s) is %v: fill it before a forecast", t, stamp(p.Times[s.First+t]), v)
		}
	}
	if len(s.X) != 0 && len(s.X) != len(p.Covariates) {
		return fmt.Errorf("has %d covariates, the panel names %d", len(s.X), len(p.Covariates))
	}
	for c, x := range s.X {
		if len(x) < len(s.Y) || len(x) > len(s.Y) && !p.Covariates[c].Known {
			return fmt.Errorf("covariate %q has %d values for %d steps: give one a step, and more only where it is "+
				"known ahead", p.Covariates[c].Name, len(x), len(s.Y))
		}
	}
	return nil
}

func stamp(t int64) string { return time.UnixMicro(t).UTC().Format(time.RFC3339) }

// Future is the starts of the h steps that follow the panel.
func (p *Panel) Future(h int) []int64 {
	out := make([]int64, h)
	if len(p.Times) == 0 {
		return out
	}
	t := p.Times[len(p.Times)-1]
	for i := range out {
		t = p.Step.Next(t, p.Zone)
		out[i] = t
	}
	return out
}

// Cut is the panel as it was after its first n steps: what a rolling fold trains on. Series that had not begun are
// left out; kept says which ones are in it (indices into p.Series). Values of known covariates past the cut stay.
// The slices are shared with p.
func (p *Panel) Cut(n int) (cut *Panel, kept []int) {
	n = max(0, min(n, len(p.Times)))
	cut = &Panel{Step: p.Step, Times: p.Times[:n], Zone: p.Zone, Covariates: p.Covariates}
	for i := range p.Series {
		s := &p.Series[i]
		if s.First >= n {
			continue
		}
		k := n - s.First
		c := Series{Key: s.Key, First: s.First, Y: s.Y[:k:k]}
		for j, x := range s.X {
			if p.Covariates[j].Known {
				c.X = append(c.X, x)
			} else {
				c.X = append(c.X, x[:k:k])
			}
		}
		cut.Series = append(cut.Series, c)
		kept = append(kept, i)
	}
	return cut, kept
}
