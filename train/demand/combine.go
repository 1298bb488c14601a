package demand

import (
	"math"
	"slices"
	"sort"
	"sync"

	"github.com/onmart/onmart/forecast"
	"github.com/onmart/onmart/score/model/forecaster"
)

// foldCase is one series in one fold: what came at the open steps, and what the members said.
type foldCase struct {
	fold, series int
	class        string
	weight       float64       // of the series: half for being one, half by its value
	scale        float64       // errorScale of what was known
	square, abs  float64       // mean squared and absolute difference of what was known: units of the scores
	actual       []float64     // open steps only
	parts        []int         // of the horizon
	points       [][]float64   // by member
	spreads      [][][]float64 // by spread, step and level; nil for Errors
}

// foldCases asks the members at each origin, each with its own network (none where nets is nil), and puts what came beside.
func foldCases(m *forecaster.Model, nets []*forecaster.Net, v *forecaster.View, value func(series, known int) float64, origins []int, threads int) ([]foldCase, error) {
	var cases []foldCase
	d := &m.Design
	for f, known := range origins {
		var net *forecaster.Net
		if nets != nil {
			net = nets[f]
		}
		var series []int
		for i := range v.Len() {
			if v.Series(i).First < known && v.Age(i, known) >= max(m.Least, 1) {
				series = append(series, i)
			}
		}
		told, err := m.Ask(v, net, forecaster.Question{Known: known, Horizon: d.Horizon, Series: series, Threads: threads})
		if err != nil {
			return nil, err
		}
		var total float64
		values := make([]float64, len(series))
		for k, i := range series {
			values[k] = value(i, known)
			total += values[k]
		}
		for k, i := range series {
			s := v.Series(i)
			history := s.Y[:known-s.First]
			c := foldCase{fold: f, series: i, class: v.Class(i, known), scale: d.ErrorScale(history), weight: .5}
			if total > 0 {
				c.weight += .5 * values[k] / total * float64(len(series))
			}
			season := 1
			if d.Scaling == forecaster.Shift {
				season = d.Seasons[0]
			}
			if c.abs, c.square = forecast.ErrorScale(history, season); !(c.abs > 0 && c.square > 0) {
				continue
			}
			c.points, c.spreads = make([][]float64, len(m.Members)), make([][][]float64, len(m.Spreads))
			for t, open := range told.Open {
				if !open {
					continue
				}
				c.actual = append(c.actual, s.Y[known+t-s.First])
				c.parts = append(c.parts, d.Part(t))
				for j := range m.Members {
					c.points[j] = append(c.points[j], told.Points[j][k][t])
				}
				for j := range m.Spreads {
					if told.Spreads[j][k] != nil {
						c.spreads[j] = append(c.spreads[j], told.Spreads[j][k][t])
					}
				}
			}
			if len(c.actual) > 0 {
				cases = append(cases, c)
			}
		}
	}
	return cases, nil
}

// fitMixture weights the members on the cases of one class.
func fitMixture(m *forecaster.Model, cases []foldCase, threads int) *forecaster.Mixture {
	x := &forecaster.Mixture{Cases: len(cases)}
	if m.Point == forecaster.PointMean {
		x.Point = fitSquares(cases, len(m.Members))
	} else {
		x.Point = fitAbsolute(cases, len(m.Members))
	}
	// The errors that a fold is judged with are those of the other folds.
	folds := 0
	for i := range cases {
		folds = max(folds, cases[i].fold+1)
	}
	byFold := make([][][]float64, folds)
	for f := range byFold {
		byFold[f] = errorQuantiles(m, x.Point, cases, func(c *foldCase) bool { return folds == 1 || c.fold != f })
	}
	x.Errors = errorQuantiles(m, x.Point, cases, func(*foldCase) bool { return true })
	x.Quantile = make([][]float64, len(m.Levels))
	var wg sync.WaitGroup
	limit := make(chan struct{}, max(1, threads))
	for l, q := range m.Levels {
		wg.Go(func() {
			limit <- struct{}{}
			x.Quantile[l] = fitQuantile(m, x.Point, cases, byFold, l, q)
			<-limit
		})
	}
	wg.Wait()
	return x
}

// pointOf is the weighted point of a case at its t-th open step.
func (c *foldCase) pointOf(w []float64, t int) float64 {
	var y float64
	for k, v := range w {
		if v > 0 {
			y += v * c.points[k][t]
		}
	}
	return y
}

// errorQuantiles pools the errors of the combined point, by part of the horizon and level. A pool without an error
// gives zeros: the point itself.
func errorQuantiles(m *forecaster.Model, w []float64, cases []foldCase, in func(*foldCase) bool) [][]float64 {
	parts := m.Design.Part(m.Design.Horizon-1) + 1
	pools := make([][]float64, forecaster.ErrorParts)
	for i := range cases {
		c := &cases[i]
		if !in(c) {
			continue
		}
		for t, a := range c.actual {
			pools[c.parts[t]] = append(pools[c.parts[t]], (a-c.pointOf(w, t))/c.scale)
		}
	}
	out := make([][]float64, forecaster.ErrorParts)
	for p := range pools {
		if pool := pools[p]; p >= parts || len(pool) == 0 {
			pools[p] = pools[0]
		}
		sort.Float64s(pools[p])
		out[p] = make([]float64, len(m.Levels))
		for l, q := range m.Levels {
			if n := len(pools[p]); n > 0 {
				out[p][l] = pools[p][min(n-1, int(q*float64(n)))]
			}
		}
	}
	return out
}

// fitSquares finds weights, not negative and of sum 1, that make the mean RMSSE small. RMSSE is the root of a mean
// square: its gradient is that of squares divided by the RMSSE itself, so that squares are weighted anew a few times
// (iteratively reweighted least squares).
func fitSquares(cases []foldCase, members int) []float64 {
	w := equal(members)
	grams := make([][]float64, len(cases)) // members+1 squared: the last is the actual
	for i := range cases {
		grams[i] = cases[i].gram(members)
	}
	n := members + 1
	for range 8 {
		sum := make([]float64, n*n)
		for i := range cases {
			c := &cases[i]
			r := math.Sqrt(math.Max(quadratic(grams[i], w), 1e-12) / float64(len(c.actual)) / c.square)
			by := c.weight / c.square / float64(len(c.actual)) / math.Max(r, .05)
			for k, g := range grams[i] {
				sum[k] += by * g
			}
		}
		w = leastOnSimplex(sum, members)
	}
	return w
}

// gram is the products of members and actual, summed over the steps.
func (c *foldCase) gram(members int) []float64 {
	n := members + 1
	g := make([]float64, n*n)
	row := make([]float64, n)
	for t, a := range c.actual {
		for k := range members {
			row[k] = c.points[k][t]
		}
		row[members] = a
		for i := range n {
			for j := range n {
				g[i*n+j] += row[i] * row[j]
			}
		}
	}
	return g
}

// quadratic is the squared error of weights, by a gram.
func quadratic(g, w []float64) float64 {
	n := len(w) + 1
	v := append(slices.Clone(w), -1)
	var s float64
	for i := range n {
		for j := range n {
			s += v[i] * v[j] * g[i*n+j]
		}
	}
	return s
}

// leastOnSimplex minimises the quadratic over weights that are not negative and sum to 1, by moving weight between pairs
// of members, each time by as much as is best, until nothing is gained.
func leastOnSimplex(g []float64, members int) []float64 {
	n := members + 1
	w := equal(members)
	gradient := func(k int) float64 {
		s := -g[k*n+members]
		for j, v := range w {
			s += g[k*n+j] * v
		}
		return s
	}
	for range 500 {
		moved := 0.
		for a := range members {
			for b := range members {
				if a == b || w[b] == 0 {
					continue
				}
				curve := g[a*n+a] + g[b*n+b] - 2*g[a*n+b]
				if !(curve > 0) {
					continue
				}
				step := math.Min((gradient(b)-gradient(a))/curve, w[b])
				if step > 0 {
					w[a] += step
					if w[b] -= step; w[b] < 1e-12 {
						w[b] = 0
					}
					moved += step
				}
			}
		}
		if moved < 1e-9 {
			break
		}
	}
	return normal(w)
}

func equal(n int) []float64 {
	w := make([]float64, n)
	for i := range w {
		w[i] = 1 / float64(n)
	}
	return w
}

// normal rounds weights to six places, so that a different compiler's last bit does not show, and makes their sum 1.
func normal(w []float64) []float64 {
	var sum float64
	for i := range w {
		w[i] = math.Round(w[i]*1e6) / 1e6
		sum += w[i]
	}
	for i := range w {
		w[i] /= sum
	}
	return w
}

// turns is how often exponentiated gradient steps.
const turns = 150

// descend finds weights on the simplex by exponentiated gradient (Kivinen and Warmuth 1997) with steps that shrink as
// gradients add up (Duchi, Hazan and Singer 2011); the best weights on the way are taken. slope adds the gradient at w to g
// and returns the loss.
func descend(members int, slope func(w, g []float64) float64) []float64 {
	w, best := equal(members), equal(members)
	least := math.Inf(1)
	g := make([]float64, members)
	var squares float64
	for range turns {
		clear(g)
		if loss := slope(w, g); loss < least {
			least, best = loss, slices.Clone(w)
		}
		low := slices.Min(g)
		width := slices.Max(g) - low
		if squares += width * width; squares == 0 {
			break // all members say the same
		}
		rate := 2 / math.Sqrt(squares)
		var sum float64
		for k := range w {
			w[k] *= math.Exp(-rate * (g[k] - low))
			sum += w[k]
		}
		for k := range w {
			w[k] /= sum
		}
	}
	for k := range best {
		if best[k] < 1e-3 {
			best[k] = 0
		}
	}
	return normal(best)
}

// fitAbsolute finds weights that make the sum of MASE and sMAPE small, each in units of what equal weights have.
func fitAbsolute(cases []foldCase, members int) []float64 {
	var mase, smape float64
	w := equal(members)
	for i := range cases {
		c := &cases[i]
		by := c.weight / float64(len(c.actual))
		for t, a := range c.actual {
			f := c.pointOf(w, t)
			mase += by * math.Abs(a-f) / c.abs
			smape += by * math.Abs(a-f) / math.Max(math.Abs(a)+math.Abs(f), 1e-9)
		}
	}
	if !(mase > 0 && smape > 0) {
		return equal(members)
	}
	return descend(members, func(w, g []float64) float64 {
		var loss float64
		for i := range cases {
			c := &cases[i]
			by := c.weight / float64(len(c.actual))
			for t, a := range c.actual {
				f := c.pointOf(w, t)
				unit := by * (1/c.abs/mase + 1/math.Max(math.Abs(a)+math.Abs(f), 1e-9)/smape)
				loss += unit * math.Abs(a-f)
				if f < a {
					unit = -unit
				}
				for k := range w {
					g[k] += unit * c.points[k][t]
				}
			}
		}
		return loss
	})
}

// quantileSteps is how many steps the weights of a quantile are fitted on at most: more moved no weight by .01.
const quantileSteps = 60_000

// fitQuantile finds the weights of the spreads at one level. Every so many cases are left out where there are more steps
// than it takes.
func fitQuantile(m *forecaster.Model, point []float64, cases []foldCase, errors [][][]float64, l int, q float64) []float64 {
	n, steps := len(m.Spreads), 0
	for i := range cases {
		steps += len(cases[i].actual)
	}
	every := (steps + quantileSteps - 1) / quantileSteps
	var values, actual, by []float64 // by step: what the spreads say, what came, what an error counts
	for i := 0; i < len(cases); i += max(1, every) {
		c := &cases[i]
		for t, a := range c.actual {
			for k, name := range m.Spreads {
				var v float64
				if name == forecaster.Errors {
					v = c.pointOf(point, t) + c.scale*errors[c.fold][c.parts[t]][l]
				} else {
					v = c.spreads[k][t][l]
				}
				if !m.Signed {
					v = math.Max(0, v)
				}
				values = append(values, v)
			}
			actual, by = append(actual, a), append(by, c.weight/c.abs/float64(len(c.actual)))
		}
	}
	walk := func(w, g []float64) float64 {
		var loss float64
		for i, a := range actual {
			v := values[i*n : (i+1)*n : (i+1)*n]
			var f float64
			for k, x := range v {
				f += w[k] * x
			}
			d, slope := a-f, -q*by[i]
			if d < 0 {
				slope = (1 - q) * by[i]
			}
			loss += by[i] * math.Max(q*d, (q-1)*d)
			for k, x := range v {
				g[k] += slope * x
			}
		}
		return loss
	}
	// The loss of equal weights is the unit.
	unit := walk(equal(n), make([]float64, n))
	if !(unit > 0) {
		return equal(n)
	}
	for i := range by {
		by[i] /= unit
	}
	return descend(n, walk)
}
