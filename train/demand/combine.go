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
	weight       float64       // of the series: valueShare of it goes by its value
	scale        float64       // errorScale of what was known
	square, abs  float64       // mean squared and absolute difference of what was known: units of the scores
	actual       []float64     // open steps only
	parts        []int         // of the horizon
	points       [][]float64   // by member
	spreads      [][][]float64 // by spread, step and level; nil for Errors
}

// valueShare is how much of what a series counts in the weights goes by its value: a mistake in what sells most costs
// most.
const valueShare = .8

// foldCases asks the members at each origin, each with its own network (none where nets is nil), and puts what came
// beside.
func foldCases(
	m *forecaster.Model,
	nets []*forecaster.Net,
	v *forecaster.View,
	value func(series, known int) float64,
	origins []int,
	threads int,
) ([]foldCase, error) {
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
			c := foldCase{fold: f, series: i, class: v.Class(i, known), scale: d.ErrorScale(history), weight: 1 - valueShare}
			if total > 0 {
				c.weight += valueShare * values[k] / total * float64(len(series))
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
	folds := foldsOf(cases)
	members := len(m.Members)
	if m.Point == forecaster.PointMean {
		x.Point = shrunk(folds, members, func(c []foldCase) []float64 { return fitSquares(c, members) }, squaresLoss)
	} else {
		fit := func(c []foldCase) []float64 { return fitAbsolute(c, members) }
		x.Point = shrunk(folds, members, fit, func(c []foldCase, w []float64) float64 {
			return newAbsolute(c, members).walk(w, make([]float64, members))
		})
	}
	// The errors that a fold is judged with are those of the other folds.
	byFold := map[int][][]float64{}
	for _, f := range folds {
		byFold[f[0].fold] = errorQuantiles(
			m,
			x.Point,
			cases,
			func(c *foldCase) bool { return len(folds) == 1 || c.fold != f[0].fold },
		)
	}
	x.Errors = errorQuantiles(m, x.Point, cases, func(*foldCase) bool { return true })
	x.Quantile = make([][]float64, len(m.Levels))
	var wg sync.WaitGroup
	limit := make(chan struct{}, max(1, threads))
	for l, q := range m.Levels {
		wg.Go(func() {
			limit <- struct{}{}
			x.Quantile[l] = fitQuantile(m, x.Point, folds, byFold, l, q)
			<-limit
		})
	}
	wg.Wait()
	return x
}

// foldsOf sorts cases by their folds; a fold without cases is left out.
func foldsOf(cases []foldCase) [][]foldCase {
	var out [][]foldCase
	for from := 0; from < len(cases); {
		to := from
		for to < len(cases) && cases[to].fold == cases[from].fold {
			to++
		}
		out = append(out, cases[from:to:to])
		from = to
	}
	return out
}

// shares are how much of the fitted weights is taken, beside one member alone.
var shares = []float64{.25, .5, .75, 1}

// shrunk fits weights and draws them towards one member alone, as far as is best for folds that the weights were not
// fitted on. Folds are few and a shop changes from one to the next: the first member, the network where there is one,
// is left for another, and one member for a mixture, only where the folds agree that it pays, by more than one standard
// error over them (the rule of Breiman et al. 1984 for the size of a tree).
func shrunk[T any](folds [][]T, members int, fit func([]T) []float64, loss func([]T, []float64) float64) []float64 {
	all := slices.Concat(folds...)
	w := fit(all)
	if len(folds) < 2 {
		return w
	}
	by := func(weights func(fold int) []float64) []float64 {
		out := make([]float64, len(folds))
		for f := range folds {
			out[f] = loss(folds[f], weights(f))
		}
		return out
	}
	one := func(k int) []float64 {
		v := make([]float64, members)
		v[k] = 1
		return v
	}
	alone, least := 0, by(func(int) []float64 { return one(0) })
	first, most := least, 0.
	for k := 1; k < members; k++ {
		v := by(func(int) []float64 { return one(k) })
		if g := gain(first, v); g > most {
			alone, least, most = k, v, g
		}
	}
	fitted := make([][]float64, len(folds))
	for f := range folds {
		fitted[f] = fit(slices.Concat(slices.Concat(folds[:f]...), slices.Concat(folds[f+1:]...)))
	}
	share, best := 0., 0.
	for _, s := range shares {
		if g := gain(least, by(func(f int) []float64 { return towards(fitted[f], alone, s) })); g > best {
			share, best = s, g
		}
	}
	return normal(towards(w, alone, share))
}

// gain is how much less losses by fold are than others on average; 0 where that is not more than its standard error.
func gain(than, losses []float64) float64 {
	n := float64(len(losses))
	var mean, squares float64
	for f := range losses {
		mean += (than[f] - losses[f]) / n
	}
	for f := range losses {
		d := than[f] - losses[f] - mean
		squares += d * d
	}
	if !(mean > math.Sqrt(squares/(n-1)/n)) {
		return 0
	}
	return mean
}

// towards is a share of weights and the rest for one member.
func towards(w []float64, alone int, share float64) []float64 {
	out := make([]float64, len(w))
	for k := range w {
		out[k] = share * w[k]
	}
	out[alone] += 1 - share
	return out
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

// squaresLoss is the weighted sum of RMSSEs.
func squaresLoss(cases []foldCase, w []float64) float64 {
	var sum float64
	for i := range cases {
		c := &cases[i]
		var squares float64
		for t, a := range c.actual {
			d := a - c.pointOf(w, t)
			squares += d * d
		}
		sum += c.weight * math.Sqrt(squares/float64(len(c.actual))/c.square)
	}
	return sum
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

// leastOnSimplex minimises the quadratic over weights that are not negative and sum to 1, by moving weight between
// pairs of members, each time by as much as is best, until nothing is gained.
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
// gradients add up (Duchi, Hazan and Singer 2011); the best weights on the way are taken. slope adds the gradient at w
// to g and returns the loss.
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

// absolute is the sum of MASE and sMAPE of a mixture, each in units of what equal weights have.
type absolute struct {
	cases       []foldCase
	mase, smape float64
}

func newAbsolute(cases []foldCase, members int) *absolute {
	s := &absolute{cases: cases}
	w := equal(members)
	for i := range cases {
		c := &cases[i]
		by := c.weight / float64(len(c.actual))
		for t, a := range c.actual {
			f := c.pointOf(w, t)
			s.mase += by * math.Abs(a-f) / c.abs
			s.smape += by * math.Abs(a-f) / math.Max(math.Abs(a)+math.Abs(f), 1e-9)
		}
	}
	return s
}

// walk is the loss of weights; its gradient is added to g.
func (s *absolute) walk(w, g []float64) float64 {
	var loss float64
	for i := range s.cases {
		c := &s.cases[i]
		by := c.weight / float64(len(c.actual))
		for t, a := range c.actual {
			f := c.pointOf(w, t)
			unit := by * (1/c.abs/s.mase + 1/math.Max(math.Abs(a)+math.Abs(f), 1e-9)/s.smape)
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
}

// fitAbsolute finds weights that make the sum of MASE and sMAPE small.
func fitAbsolute(cases []foldCase, members int) []float64 {
	s := newAbsolute(cases, members)
	if !(s.mase > 0 && s.smape > 0) {
		return equal(members)
	}
	return descend(members, s.walk)
}

// quantileSteps is how many steps the weights of a quantile are fitted on at most: more moved no weight by .01.
const quantileSteps = 60_000

// quantileStep is one step of a case: what came, what an error counts, and what the spreads say.
type quantileStep struct {
	actual, by float64
	values     []float64
}

// fitQuantile finds the weights of the spreads at one level. Every so many cases are left out where there are more
// steps than it takes.
func fitQuantile(
	m *forecaster.Model,
	point []float64,
	folds [][]foldCase,
	errors map[int][][]float64,
	l int,
	q float64,
) []float64 {
	n, steps := len(m.Spreads), 0
	for _, cases := range folds {
		for i := range cases {
			steps += len(cases[i].actual)
		}
	}
	every := max(1, (steps+quantileSteps-1)/quantileSteps)
	flat := make([][]quantileStep, len(folds))
	for f, cases := range folds {
		for i := 0; i < len(cases); i += every {
			flat[f] = cases[i].quantileSteps(flat[f], m, point, errors[cases[i].fold], l)
		}
	}
	loss := func(steps []quantileStep, w []float64) float64 { return walkQuantile(steps, q, w, make([]float64, n)) }
	return shrunk(flat, n, func(steps []quantileStep) []float64 {
		if !(loss(steps, equal(n)) > 0) {
			return equal(n)
		}
		return descend(n, func(w, g []float64) float64 { return walkQuantile(steps, q, w, g) })
	}, loss)
}

// quantileSteps appends the steps of a case.
func (c *foldCase) quantileSteps(
	to []quantileStep,
	m *forecaster.Model,
	point []float64,
	errors [][]float64,
	l int,
) []quantileStep {
	by := c.weight / c.abs / float64(len(c.actual))
	for t, a := range c.actual {
		values := make([]float64, len(m.Spreads))
		for k, name := range m.Spreads {
			if name == forecaster.Errors {
				values[k] = c.pointOf(point, t) + c.scale*errors[c.parts[t]][l]
			} else {
				values[k] = c.spreads[k][t][l]
			}
			if !m.Signed {
				values[k] = math.Max(0, values[k])
			}
		}
		to = append(to, quantileStep{a, by, values})
	}
	return to
}

// walkQuantile is the pinball loss of weights; its gradient is added to g.
func walkQuantile(steps []quantileStep, q float64, w, g []float64) float64 {
	var loss float64
	for i := range steps {
		s := &steps[i]
		var f float64
		for k, x := range s.values {
			f += w[k] * x
		}
		d, slope := s.actual-f, -q*s.by
		if d < 0 {
			slope = (1 - q) * s.by
		}
		loss += s.by * math.Max(q*d, (q-1)*d)
		for k, x := range s.values {
			g[k] += slope * x
		}
	}
	return loss
}
