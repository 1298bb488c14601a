package forecast

import (
	"math"
	"slices"
)

// Components is a series taken apart: at each step Level + the Seasons + Remainder is the value. History comes first,
// then the horizon, where the series is the forecast.
type Components struct {
	History   int // steps of history
	Level     []float64
	Trend     []float64 // change of the level from the step before; 0 at the first
	Seasons   []SeasonalPart
	Remainder []float64
	Closed    []bool // steps on which nothing is sold; seasons and remainder are 0 there, and value with them
}

// SeasonalPart is one season of a series.
type SeasonalPart struct {
	Period int // in steps; of open days where days of the week are closed
	Values []float64
}

// Decompose takes series i of a panel and its forecast mean (nil for none; o.Horizon is then ignored) apart: by
// seasonal-trend decomposition (STL, Cleveland et al. 1990), one season after the other, twice (MSTL, Bandara,
// Hyndman and Bergmeir 2021). Seasons of which the history has fewer than two turns are left out. Over the horizon
// each season repeats its last turn, the level is what is left of the mean, smoothed over one turn of the shortest
// season.
func Decompose(p *Panel, i int, mean []float64, o Options) (*Components, error) {
	o.Horizon = max(1, len(mean))
	if err := o.check(); err != nil {
		return nil, err
	}
	one := &Panel{Step: p.Step, Times: p.Times, Zone: p.Zone, Series: p.Series[i : i+1]}
	if err := one.Check(); err != nil {
		return nil, err
	}
	closed := o.Closed
	if closed == nil {
		closed = FindClosed(p)
	}
	o.Horizon = len(mean)
	r := prepare(one, closed, &o, true)
	y := r.series[0]
	parts := mstl(y, r.seasons)
	ahead := make([]float64, r.steps)
	for t, k := range r.ahead {
		if k >= 0 {
			ahead[k] = mean[t]
		}
	}
	parts.extend(ahead)
	return r.components(parts, &p.Series[i], closed), nil
}

// parts is a decomposition on the grid of open steps.
type parts struct {
	periods          []int
	trend, remainder []float64
	season           [][]float64
}

// extend appends the parts of a forecast.
func (d *parts) extend(mean []float64) {
	n, h := len(d.trend), len(mean)
	left := slices.Clone(mean)
	for k, m := range d.periods {
		for t := range left {
			v := d.season[k][n-m+t%m]
			d.season[k] = append(d.season[k], v)
			left[t] -= v
		}
	}
	reach := 0
	if len(d.periods) > 0 {
		reach = d.periods[0] / 2
	}
	for t := range h {
		// A shorter window at both ends keeps it centred.
		w := min(reach, t, h-1-t)
		level := average(left[t-w : t+w+1])
		d.trend = append(d.trend, level)
		d.remainder = append(d.remainder, left[t]-level)
	}
}

// components puts parts back on the calendar.
func (r *prepared) components(d *parts, s *Series, closed *Closed) *Components {
	n, h := len(s.Y), len(r.open)
	c := &Components{History: n, Level: nan(n + h), Trend: make([]float64, n+h), Remainder: make([]float64, n+h),
		Closed: make([]bool, n+h)}
	for _, m := range d.periods {
		c.Seasons = append(c.Seasons, SeasonalPart{m, make([]float64, n+h)})
	}
	put := func(to, from int) {
		c.Level[to], c.Remainder[to] = d.trend[from], d.remainder[from]
		for k := range d.periods {
			c.Seasons[k].Values[to] = d.season[k][from]
		}
	}
	history := len(d.trend) - r.steps
	for k := range history {
		if at := r.grid[min(r.first[0]+k, len(r.grid)-1)] - s.First; at >= 0 {
			put(at, k)
			// What was filled for a closed step was never sold.
			value := d.trend[k] + d.remainder[k]
			for j := range d.periods {
				value += d.season[j][k]
			}
			c.Remainder[at] += s.Y[at] - value
		}
	}
	for t, k := range r.ahead {
		if k >= 0 {
			put(n+t, history+k)
		}
		c.Closed[n+t] = !r.open[t]
	}
	for t := range n {
		c.Closed[t] = s.Y[t] == 0 && closed.At(r.panel.Times[s.First+t])
	}
	level := 0.0
	for _, v := range c.Level {
		if !math.IsNaN(v) {
			level = v
			break
		}
	}
	for t := range c.Level {
		if math.IsNaN(c.Level[t]) {
			c.Level[t] = level
		}
		if c.Closed[t] {
			for k := range c.Seasons {
				c.Seasons[k].Values[t] = 0
			}
			c.Remainder[t] = 0
		}
		if t > 0 {
			c.Trend[t] = c.Level[t] - level
		}
		level = c.Level[t]
	}
	return c
}

// mstl takes y apart by the seasons of which it has two turns.
func mstl(y []float64, seasons []int) *parts {
	d := &parts{trend: make([]float64, len(y)), remainder: slices.Clone(y)}
	for _, m := range seasons {
		if len(y) >= 2*m {
			d.periods = append(d.periods, m)
			d.season = append(d.season, make([]float64, len(y)))
		}
	}
	if len(d.periods) == 0 {
		copy(d.trend, loessTrend(y))
		for t, v := range d.trend {
			d.remainder[t] = y[t] - v
		}
		return d
	}
	passes := 2
	if len(d.periods) == 1 {
		passes = 1
	}
	rest := d.remainder // y without the seasons found so far
	for range passes {
		for k, m := range d.periods {
			for t := range rest {
				rest[t] += d.season[k][t]
			}
			// Seasonal windows 11, 15, ...: those of R's mstl.
			d.season[k], d.trend = stl(rest, m, 11+4*k)
			for t := range rest {
				rest[t] -= d.season[k][t]
			}
		}
	}
	for t := range rest {
		rest[t] -= d.trend[t]
	}
	return d
}

// loessTrend smooths a series without a season over a third of it.
func loessTrend(y []float64) []float64 {
	if len(y) < 3 {
		return slices.Clone(y)
	}
	out := make([]float64, len(y))
	loessAll(out, y, max(3, len(y)/3|1), len(y))
	return out
}

// loessAll is loess of degree 1 at 0, 1, ... n-1. Away from the ends the window is symmetric: its weights are the
// same at each step, and the line passes through their mean.
func loessAll(out, y []float64, w, n int) {
	half := (w - 1) / 2
	var kernel []float64
	var total float64
	if w <= len(y) {
		kernel = make([]float64, w)
		for k := range kernel {
			kernel[k] = tricube(math.Abs(float64(k-half)), float64(half))
			total += kernel[k]
		}
	}
	for t := range n {
		if kernel != nil && w%2 == 1 && t >= half && t+half < len(y) {
			out[t] = dot(kernel, y[t-half:t+half+1]) / total
		} else {
			out[t] = loess(y, w, 1, float64(t))
		}
	}
}

// tricube is the weight at distance r of a window of half width h.
func tricube(r, h float64) float64 {
	switch {
	case r > .999*h:
		return 0
	case r <= .001*h:
		return 1
	}
	q := r / h
	q = 1 - q*q*q
	return q * q * q
}

// stlPasses is the number of inner passes: that of the reference code where there are no outer ones.
const stlPasses = 5

// stl is the decomposition of Cleveland, Cleveland, McRae and Terpenning (1990) without robustness weights: the
// season's subseries are smoothed by constants over the given number of turns, trend and low-pass by lines.
func stl(y []float64, period, window int) (season, trend []float64) {
	n := len(y)
	trendWindow := int(math.Ceil(1.5*float64(period)/(1-1.5/float64(window)))) | 1
	lowWindow := (period + 1) | 1
	season, trend = make([]float64, n), make([]float64, n)
	cycle := make([]float64, n+2*period)
	work := make([]float64, n)
	sub := make([]float64, 0, n/period+1)
	for range stlPasses {
		for t := range work {
			work[t] = y[t] - trend[t]
		}
		for j := range period {
			sub = sub[:0]
			for t := j; t < n; t += period {
				sub = append(sub, work[t])
			}
			for k := -1; k <= len(sub); k++ { // one turn further at both ends
				cycle[(k+1)*period+j] = loess(sub, window, 0, float64(k))
			}
		}
		low := movingAverage(movingAverage(movingAverage(cycle, period), period), 3)
		loessAll(season, low, lowWindow, n)
		for t := range season {
			season[t] = cycle[period+t] - season[t]
			work[t] = y[t] - season[t]
		}
		loessAll(trend, work, trendWindow, n)
	}
	return season, trend
}

// movingAverage has len(y)-w+1 values.
func movingAverage(y []float64, w int) []float64 {
	out := make([]float64, len(y)-w+1)
	var s float64
	for t, v := range y {
		s += v
		if t >= w {
			s -= y[t-w]
		}
		if t >= w-1 {
			out[t-w+1] = s / float64(w)
		}
	}
	return out
}

// loess is the local regression of y (at 0, 1, ...) at x: of degree 0 or 1, over the w nearest values with tricube
// weights; more than there are widen the kernel, as in the reference code.
func loess(y []float64, w, degree int, x float64) float64 {
	n := len(y)
	left := int(math.Floor(x)) - (w-1)/2
	left = max(0, min(left, n-w))
	right := min(n-1, left+w-1)
	h := max(x-float64(left), float64(right)-x)
	if w > n {
		h += float64((w - n) / 2)
	}
	var sw, sx, sy, sxx, sxy float64
	for t := left; t <= right; t++ {
		d := float64(t) - x
		k := tricube(math.Abs(d), h)
		sw += k
		sx += k * d
		sy += k * y[t]
		sxx += k * d * d
		sxy += k * d * y[t]
	}
	if !(sw > 0) {
		return y[min(max(int(math.Round(x)), 0), n-1)]
	}
	mean := sx / sw
	if spread := sxx/sw - mean*mean; degree == 1 && spread > 1e-6*float64((n-1)*(n-1)) {
		return sy/sw - mean*(sxy/sw-mean*sy/sw)/spread
	}
	return sy / sw
}
