package forecast

import "time"

// prepared is a panel as methods see it: without its closed steps, and each series as floats of its own.
type prepared struct {
	series  [][]float64
	seasons []int
	grid    []int  // index in Panel.Times of each step of the grid that is left
	open    []bool // by step of the horizon
	steps   int    // how many steps of the grid the horizon has
	ahead   []int  // by step of the horizon: its place among the steps of the grid, or -1
	panel   *Panel
	zone    *time.Location
	first   []int // by series: index in grid of its first value
}

// prepare takes the closed steps out of a panel. A method that knows seasons keeps single closed steps, filled with
// what their neighbours one season away sold, so that the phase stays right; hours keep their closed slots, since the
// length of a day would otherwise vary.
func prepare(p *Panel, c *Closed, o *Options, seasonal bool) *prepared {
	r := &prepared{panel: p, zone: p.Zone}
	if r.zone == nil {
		r.zone = time.UTC
	}
	drop := func(t int64) bool {
		if !seasonal {
			return c.At(t)
		}
		return p.Step == Day && c.weekly(t)
	}
	for i, t := range p.Times {
		if !drop(t) {
			r.grid = append(r.grid, i)
		}
	}
	r.seasons = seasonsOf(p.Step, o.Seasons)
	if seasonal && p.Step == Day && c.slot != nil {
		open := 0
		for _, s := range c.slot {
			if !s {
				open++
			}
		}
		r.seasons = withoutDays(r.seasons, open)
	}
	r.open, r.ahead = make([]bool, o.Horizon), make([]int, o.Horizon)
	for i, t := range p.Future(o.Horizon) {
		r.open[i] = !c.At(t)
		r.ahead[i] = -1
		if !drop(t) {
			r.ahead[i] = r.steps
			r.steps++
		}
	}
	r.series, r.first = make([][]float64, len(p.Series)), make([]int, len(p.Series))
	each(len(p.Series), o.Threads, func(i int) { r.series[i], r.first[i] = r.compress(&p.Series[i], c, seasonal) })
	return r
}

func seasonsOf(s Step, asked []int) []int {
	if asked == nil {
		asked = s.Seasons()
	}
	var out []int
	for _, m := range asked {
		if m > 1 {
			out = append(out, m)
		}
	}
	return out
}

// withoutDays turns seasons that are whole weeks into those of the open days.
func withoutDays(seasons []int, open int) []int {
	var out []int
	for _, m := range seasons {
		if m%7 == 0 {
			m = m / 7 * open
		}
		if m > 1 {
			out = append(out, m)
		}
	}
	return out
}

// compress is the series on the grid, and where on it it begins. A series that lies in closed steps as a whole keeps
// one zero.
func (r *prepared) compress(s *Series, c *Closed, seasonal bool) (y []float64, first int) {
	first = len(r.grid)
	var shut []int
	for g, at := range r.grid {
		if at < s.First {
			continue
		}
		if first > g {
			first = g
		}
		if seasonal && s.Y[at-s.First] == 0 && r.panel.Step != Hour && c.single(r.panel.Times[at]) {
			shut = append(shut, len(y))
		}
		y = append(y, s.Y[at-s.First])
	}
	if len(y) == 0 {
		return []float64{0}, max(0, len(r.grid)-1)
	}
	r.fill(y, shut)
	return y, first
}

// fill puts into the steps that were shut the mean of the open ones one season (and, where those are shut, two, three
// ...) before and after.
func (r *prepared) fill(y []float64, shut []int) {
	if len(shut) == 0 || len(shut) == len(y) {
		return
	}
	m := 1
	if len(r.seasons) > 0 {
		m = r.seasons[0]
	}
	closed := make([]bool, len(y))
	for _, t := range shut {
		closed[t] = true
	}
	for _, t := range shut {
		var sum, n float64
		for k := m; n == 0 && (t-k >= 0 || t+k < len(y)); k += m {
			if t-k >= 0 && !closed[t-k] {
				sum, n = sum+y[t-k], n+1
			}
			if t+k < len(y) && !closed[t+k] {
				sum, n = sum+y[t+k], n+1
			}
		}
		if n > 0 {
			y[t] = sum / n
		}
	}
}

// restore puts a forecast on the grid back on the calendar: closed steps are zero.
func (r *prepared) restore(mean []float64) []float64 {
	out := make([]float64, len(r.open))
	for i, open := range r.open {
		if k := r.ahead[i]; open && k >= 0 {
			out[i] = mean[k]
		}
	}
	return out
}

// spread puts values on the grid back on the steps of a series; steps that were left out are NaN.
func (r *prepared) spread(fitted []float64, s *Series, first int) []float64 {
	out := nan(len(s.Y))
	for k, v := range fitted {
		if g := first + k; g < len(r.grid) {
			if at := r.grid[g] - s.First; at >= 0 {
				out[at] = v
			}
		}
	}
	return out
}
