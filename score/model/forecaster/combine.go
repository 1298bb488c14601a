package forecaster

import (
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/forecast"
)

// Names of forecasts that are no method of package forecast.
const (
	// Combination is the weighted mean of the others: what is answered unless another method is asked for.
	Combination = "combination"
	// Network is the network alone.
	Network = "network"
	// Climatology is the quantiles of the latest open steps of the series itself.
	Climatology = "climatology"
	// Errors is the combined mean with the quantiles of its own errors in rolling folds.
	Errors = "errors"
)

// Points that a forecast's Mean can be.
const (
	PointMean   = "mean"   // least squared error
	PointMedian = "median" // least absolute error
)

// Mixture is how members are weighted for a class of series.
type Mixture struct {
	// Point has a weight for each of Model.Members; they are not negative and sum to 1.
	Point []float64 `json:"point"`
	// Quantile has, by level, a weight for each of Model.Spreads.
	Quantile [][]float64 `json:"quantile"`
	// Errors are the quantiles of the combined point's errors in the folds, in units of errorScale: by part of the
	// horizon and level.
	Errors [][]float64 `json:"errors"`
	// Cases is how many series were in the folds.
	Cases int `json:"cases"`
}

// Classes of series, by how many of their latest open steps had a sale.
const (
	Regular      = "regular"
	Intermittent = "intermittent"
)

// busyShare is the share of open steps with a sale from which a series is regular.
const busyShare = .6

// Class is the class of a series, after the first known steps of its panel.
func (v *View) Class(series, known int) string {
	if v.d.Scaling == Shift {
		return Regular
	}
	s := &v.p.Series[series]
	from, to := v.before[min(s.First, known)], v.before[known]
	from = max(from, to-spansOf(v.d.Step).wide[1])
	n := 0
	for j := from; j < to; j++ {
		if s.Y[v.open[j]-s.First] != 0 {
			n++
		}
	}
	if float64(n) >= busyShare*float64(to-from) {
		return Regular
	}
	return Intermittent
}

// Age is how many open steps of a series lie in the first known steps of its panel.
func (v *View) Age(series, known int) int {
	return v.before[known] - v.before[min(v.p.Series[series].First, known)]
}

// Part is the part of the horizon that the k-th step ahead is in, counted from 0: errors grow with it.
func (d *Design) Part(k int) int {
	return min(k*ErrorParts/d.Horizon, ErrorParts-1)
}

// ErrorParts is how many parts of the horizon have errors of their own.
const ErrorParts = 2

// ErrorScale is the unit in which errors of a series are pooled with those of others: the mean absolute difference
// of neighbouring steps, or of steps a season apart for Shift.
func (d *Design) ErrorScale(y []float64) float64 {
	m := 1
	if d.Scaling == Shift {
		m = d.Seasons[0]
	}
	if abs, _ := forecast.ErrorScale(y, m); abs > 0 {
		return abs
	}
	var sum float64
	for _, x := range y {
		sum += math.Abs(x)
	}
	return math.Max(sum/float64(len(y)), 1e-9)
}

// Climatology are the quantiles of the latest open steps of a series, the same for every step of the horizon.
func (v *View) Climatology(series, known int, levels []float64) []float64 {
	s := &v.p.Series[series]
	from, to := v.before[min(s.First, known)], v.before[known]
	from = max(from, to-spansOf(v.d.Step).wide[0])
	z := make([]float64, 0, to-from+1)
	for j := from; j < to; j++ {
		z = append(z, s.Y[v.open[j]-s.First])
	}
	if len(z) == 0 {
		z = append(z, 0)
	}
	slices.Sort(z)
	out := make([]float64, len(levels))
	for l, q := range levels {
		out[l] = quantile(z, q)
	}
	return out
}

// MeanOf integrates quantiles over the levels, straight between them and flat outside: the mean of the distribution
// that they stand for.
func MeanOf(levels []float64, q []float64) float64 {
	var sum float64
	for l, u := range levels {
		below, above := 0., 1.
		if l > 0 {
			below = (levels[l-1] + u) / 2
		}
		if l+1 < len(levels) {
			above = (u + levels[l+1]) / 2
		}
		sum += (above - below) * q[l]
	}
	return sum
}

// At interpolates a quantile at another level; outside the known levels it is the nearest of them, which is why
// Forecast refuses those.
func interpolate(levels, q []float64, level float64) float64 {
	i, found := slices.BinarySearch(levels, level)
	if found {
		return q[i]
	}
	if i == 0 || i == len(levels) {
		return q[min(i, len(levels)-1)]
	}
	share := (level - levels[i-1]) / (levels[i] - levels[i-1])
	return q[i-1] + share*(q[i]-q[i-1])
}

// Member is what one method says of one series.
type Member struct {
	Point     []float64   // by step
	Quantiles [][]float64 // by step and level; nil for a method without
}

// Mix combines the members of one series. points are in the order of Model.Members, nil for one that has no answer: the
// others then share its weight. spreads are in the order of Model.Spreads, by step and level; those of Errors are made
// here. open tells which steps are; scale is ErrorScale.
func (m *Model) Mix(
	mix *Mixture,
	points [][]float64,
	spreads [][][]float64,
	open []bool,
	scale float64,
) forecast.Forecast {
	h, levels := len(open), m.Levels
	f := forecast.Forecast{Mean: make([]float64, h), Quantiles: make([][]float64, len(levels))}
	for l := range levels {
		f.Quantiles[l] = make([]float64, h)
	}
	weights := renormal(mix.Point, func(k int) bool { return points[k] != nil })
	row := make([]float64, len(levels))
	for t := range h {
		if !open[t] {
			continue
		}
		for k, w := range weights {
			if w > 0 {
				f.Mean[t] += w * points[k][t]
			}
		}
		for l := range levels {
			by := renormal(mix.Quantile[l], func(k int) bool { return m.Spreads[k] == Errors || spreads[k] != nil })
			row[l] = 0
			for k, w := range by {
				switch {
				case w == 0:
				case m.Spreads[k] == Errors:
					row[l] += w * (f.Mean[t] + scale*mix.Errors[m.Design.Part(t)][l])
				default:
					row[l] += w * spreads[k][t][l]
				}
			}
			if !m.Signed {
				row[l] = math.Max(0, row[l])
			}
		}
		slices.Sort(row)
		for l := range levels {
			f.Quantiles[l][t] = row[l]
		}
		if !m.Signed {
			f.Mean[t] = math.Max(0, f.Mean[t])
		}
	}
	return f
}

// renormal is the weights of those that are there, summing to 1 again; equal ones where all of them had 0.
func renormal(w []float64, there func(int) bool) []float64 {
	out := make([]float64, len(w))
	var sum float64
	n := 0
	for k := range w {
		if there(k) {
			out[k] = w[k]
			sum += w[k]
			n++
		}
	}
	for k := range w {
		switch {
		case sum > 0:
			out[k] /= sum
		case there(k):
			out[k] = 1 / float64(n)
		}
	}
	return out
}

func (x *Mixture) check(m *Model) error {
	sum := func(w []float64, n int) error {
		var s float64
		for _, v := range w {
			if !(v >= 0 && v <= 1) {
				return fmt.Errorf("a weight is %v", v)
			}
			s += v
		}
		if len(w) != n || !(math.Abs(s-1) < 1e-6) {
			return fmt.Errorf("%d weights with sum %v, want %d that sum to 1", len(w), s, n)
		}
		return nil
	}
	if err := sum(x.Point, len(m.Members)); err != nil {
		return err
	}
	if len(x.Quantile) != len(m.Levels) || len(x.Errors) != ErrorParts {
		return fmt.Errorf("%d levels and %d parts, want %d and %d", len(x.Quantile), len(x.Errors), len(m.Levels), ErrorParts)
	}
	for _, w := range x.Quantile {
		if err := sum(w, len(m.Spreads)); err != nil {
			return err
		}
	}
	for _, e := range x.Errors {
		if len(e) != len(m.Levels) {
			return fmt.Errorf("%d quantiles of errors, want %d", len(e), len(m.Levels))
		}
		for _, v := range e {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("a quantile of errors is %v", v)
			}
		}
	}
	return nil
}
