package forecast

import (
	"fmt"
	"math"
	"slices"
)

// Autoregressive moving-average models with seasonal terms. Differences are taken where a test finds a season and
// where the series is close to a random walk; longer seasons enter as pairs of sine and cosine. Orders are searched
// by AICc over regressions on past values and past shocks, the shocks being the residuals of a long autoregression
// (Hannan and Rissanen 1982); the chosen model is then refitted on its own shocks while that lowers its conditional
// sum of squares.

const (
	armaP, armaQ  = 3, 2 // largest orders
	armaHarmonics = 6    // pairs of sine and cosine of each season that is not differenced
	armaWalk      = .9   // autocorrelation at one step above which the series is differenced once more
	armaLeast     = 24   // fewest values that a model is fitted to
	armaRidge     = 1e-6 // of the mean square of a column: only against exact collinearity
	armaPasses    = 3    // regressions on the model's own shocks
	armaUnstable  = 1.5  // filtered over regressed sum of squares above which a model is no proper filter
	armaLongest   = 26   // lags of the long autoregression, at most
	armaShare     = 8    // and at most one in so many values
)

// armaTerm is one column of the regression.
type armaTerm struct {
	shock bool
	lag   int
}

type armaModel struct {
	w         []float64 // differenced, standardised
	shocks    []float64
	terms     []armaTerm
	harmonics [][]float64 // columns over history and horizon
	c         []float64   // of the terms, the harmonics, then the intercept
	first     int         // first step of w that is fitted
	css       float64     // sum of squared shocks of the filter from first on

	differences     []int // taken of the series before w, in order
	mean, deviation float64
}

func armaFit(y []float64, in input) Fit {
	if len(y) < armaLeast || constant(y) {
		return naiveAt(y, in.h, in.season())
	}
	m := in.season()
	work := slices.Clone(y)
	logs := logIsLikelier(y, m)
	if logs {
		for t := range work {
			work[t] = math.Log(work[t])
		}
	}
	// With and without a seasonal difference; without it the season is one of sines and cosines. Both predict the
	// same values one step ahead, so that their likelihoods over common steps compare.
	models := []*armaModel{newARMA(work, nil, in)}
	if m > 1 && len(y) >= 3*m && math.Abs(acfStatistic(work, m)) > 1.645 {
		models = append(models, newARMA(work, []int{m}, in))
	}
	models = slices.DeleteFunc(models, func(a *armaModel) bool { return a == nil })
	if len(models) == 0 {
		return naiveAt(y, in.h, m)
	}
	from := 0
	for _, a := range models {
		from = max(from, a.first+len(y)-len(a.w))
	}
	best := models[0]
	for _, a := range models[1:] {
		if a.criterion(from, len(y)) < best.criterion(from, len(y)) {
			best = a
		}
	}
	return best.fit(y, work, logs, in.h)
}

// newARMA differences work, once more by one step where it is close to a random walk, and fits a model; nil where
// nothing is left to model.
func newARMA(work []float64, differences []int, in input) *armaModel {
	w, season := work, 1
	for _, d := range differences {
		w = difference(w, d)
		season = d
	}
	if autocorrelation(w) > armaWalk {
		differences = append(slices.Clone(differences), 1)
		w = difference(w, 1)
	}
	mean := average(w)
	deviation := 0.0
	for _, v := range w {
		deviation += (v - mean) * (v - mean)
	}
	deviation = math.Sqrt(deviation / float64(len(w)))
	if !(deviation > 1e-12*(math.Abs(mean)+1e-300)) || len(w) < armaLeast/2 {
		return nil
	}
	a := &armaModel{w: make([]float64, len(w)), differences: differences, mean: mean, deviation: deviation}
	for t, v := range w {
		a.w[t] = (v - mean) / deviation
	}
	a.makeHarmonics(in, season)
	a.choose(max(season, in.season()))
	return a
}

// criterion is AICc over the steps of the undifferenced series from the given one on.
func (a *armaModel) criterion(from, n int) float64 {
	shocks := a.shocks[from-(n-len(a.w)):]
	rows := float64(len(shocks))
	return aicc(dot(shocks, shocks)*a.deviation*a.deviation, rows, float64(len(a.c)+1))
}

func (a *armaModel) fit(y, work []float64, logs bool, h int) Fit {
	ahead := a.forecast(h)
	low, high := bounds(y)
	f := Fit{Mean: make([]float64, h), Fitted: nan(len(y)), Model: a.String() + fmt.Sprintf(", log %v", logs)}
	lost := len(y) - len(a.w)
	for t := a.first; t < len(a.w); t++ {
		v := work[t+lost] - a.shocks[t]*a.deviation
		if logs {
			v = math.Exp(v)
		}
		f.Fitted[t+lost] = v
	}
	for i := range ahead {
		ahead[i] = ahead[i]*a.deviation + a.mean
	}
	for i, v := range undifference(work, ahead, a.differences) {
		if logs {
			v = math.Exp(v)
		}
		f.Mean[i] = min(max(v, low), high)
	}
	return f
}

func difference(y []float64, m int) []float64 {
	out := make([]float64, len(y)-m)
	for t := range out {
		out[t] = y[t+m] - y[t]
	}
	return out
}

// undifference turns forecasts of differences (taken in the given order) into forecasts of y.
func undifference(y, ahead []float64, differences []int) []float64 {
	if len(differences) == 0 {
		return ahead
	}
	m := differences[0]
	ahead = undifference(difference(y, m), ahead, differences[1:])
	out := make([]float64, len(ahead))
	for i := range out {
		if i < m {
			out[i] = y[len(y)-m+i] + ahead[i]
		} else {
			out[i] = out[i-m] + ahead[i]
		}
	}
	return out
}

// autocorrelation is that at distance 1.
func autocorrelation(y []float64) float64 {
	mean := average(y)
	var c0, c1 float64
	for t, v := range y {
		c0 += (v - mean) * (v - mean)
		if t > 0 {
			c1 += (v - mean) * (y[t-1] - mean)
		}
	}
	if c0 == 0 {
		return 0
	}
	return c1 / c0
}

// makeHarmonics adds sines and cosines of the seasons longer than m. Harmonics that are seasons of m would be
// zero after differencing.
func (a *armaModel) makeHarmonics(in input, m int) {
	n := len(a.w)
	for _, period := range in.seasons {
		if period <= m || n < 2*period {
			continue
		}
		for k := 1; k <= min(armaHarmonics, period/2-1); k++ {
			if m > 1 && k*m%period == 0 {
				continue
			}
			s, c := make([]float64, n+in.h), make([]float64, n+in.h)
			for t := range s {
				// The phase is reduced first: large angles lose digits.
				s[t], c[t] = math.Sincos(2 * math.Pi * float64(k*t%period) / float64(period))
			}
			a.harmonics = append(a.harmonics, s, c)
		}
	}
}

// choose finds shocks, then orders, then coefficients.
func (a *armaModel) choose(m int) {
	n := len(a.w)
	long := arVariant{ridge: 1e-3 * float64(n)}
	for l := 1; l <= min(armaLongest, n/armaShare); l++ {
		long.lags = append(long.lags, l)
	}
	if m > 1 {
		for l := m - 1; l <= m+2 && l <= n/3; l++ {
			if l > long.lags[len(long.lags)-1] {
				long.lags = append(long.lags, l)
			}
		}
	}
	c, intercept := long.solve(a.w)
	a.shocks = make([]float64, n)
	top := long.lags[len(long.lags)-1]
	for t := top; t < n; t++ {
		a.shocks[t] = a.w[t] - long.predict(c, intercept, a.w, t)
	}
	reach := max(armaP, armaQ)
	if m > 1 {
		reach = m + 1
	}
	a.first = min(top+reach, n/2)
	a.search(m)
}

// search fits every order by one table of products and keeps the best that is a stable filter.
func (a *armaModel) search(m int) {
	n := len(a.w)
	var all []armaTerm
	for l := 1; l <= armaP; l++ {
		all = append(all, armaTerm{false, l})
	}
	for l := 1; l <= armaQ; l++ {
		all = append(all, armaTerm{true, l})
	}
	seasonal := 0
	if m > 1 && a.first > m {
		seasonal = 1
		all = append(all, armaTerm{false, m}, armaTerm{true, m})
	}
	table, right, square := a.products(all)
	type candidate struct {
		terms []armaTerm
		c     []float64
		rss   float64
		value float64
	}
	var found []candidate
	rows := n - a.first
	for p := 0; p <= armaP; p++ {
		for q := 0; q <= armaQ; q++ {
			for s := 0; s < 1+3*seasonal; s++ { // bits: seasonal value, seasonal shock
				pick := []int{}
				for l := range p {
					pick = append(pick, l)
				}
				for l := range q {
					pick = append(pick, armaP+l)
				}
				for bit := range 2 {
					if s>>bit&1 == 1 {
						pick = append(pick, armaP+armaQ+bit)
					}
				}
				var k candidate
				for _, j := range pick {
					k.terms = append(k.terms, all[j])
				}
				for j := len(all); j < len(right); j++ { // harmonics and intercept
					pick = append(pick, j)
				}
				if k.c, k.rss = subset(table, right, square, pick); k.c == nil {
					continue
				}
				k.value = aicc(k.rss, float64(rows), float64(len(pick)+1))
				found = append(found, k)
			}
		}
	}
	slices.SortStableFunc(found, func(x, y candidate) int {
		switch {
		case x.value < y.value:
			return -1
		case x.value > y.value:
			return 1
		}
		return 0
	})
	for _, k := range found {
		a.terms, a.c = k.terms, k.c
		shocks := a.filter()
		if css := a.sumOfShocks(shocks); css <= armaUnstable*k.rss+1e-9 {
			a.shocks, a.css = shocks, css
			a.refine()
			return
		}
	}
	// Not even white noise was stable: the mean alone.
	a.terms, a.c = nil, make([]float64, len(a.harmonics)+1)
	a.shocks = a.filter()
}

// refine repeats the regression on the model's own shocks while they get smaller.
func (a *armaModel) refine() {
	for range armaPasses {
		table, right, square := a.products(a.terms)
		pick := make([]int, len(right))
		for j := range pick {
			pick[j] = j
		}
		c, _ := subset(table, right, square, pick)
		if c == nil {
			return
		}
		before := a.c
		a.c = c
		shocks := a.filter()
		css := a.sumOfShocks(shocks)
		if !(css < a.css) {
			a.c = before
			return
		}
		a.shocks, a.css = shocks, css
	}
}

// products are the sums of products of all columns (terms, harmonics, intercept), those with the target, and the
// target's own.
func (a *armaModel) products(terms []armaTerm) (table, right []float64, square float64) {
	n := len(a.w)
	var columns [][]float64
	for _, t := range terms {
		source := a.w
		if t.shock {
			source = a.shocks
		}
		columns = append(columns, source[a.first-t.lag:n-t.lag])
	}
	for _, x := range a.harmonics {
		columns = append(columns, x[a.first:n])
	}
	columns = append(columns, repeat(1, n-a.first))
	k := len(columns)
	table, right = make([]float64, k*k), make([]float64, k)
	for i, x := range columns {
		for j, y := range columns[:i+1] {
			table[i*k+j] = dot(x, y)
			table[j*k+i] = table[i*k+j]
		}
		right[i] = dot(x, a.w[a.first:])
	}
	return table, right, dot(a.w[a.first:], a.w[a.first:])
}

// subset solves the regression on some of the columns.
func subset(table, right []float64, square float64, pick []int) (c []float64, rss float64) {
	k, all := len(pick), len(right)
	g := make([]float64, k*k)
	c = make([]float64, k)
	for i, pi := range pick {
		for j, pj := range pick[:i+1] {
			g[i*k+j] = table[pi*all+pj]
		}
		g[i*k+i] *= 1 + armaRidge
		c[i] = right[pi]
	}
	if !solveSPD(g, c) {
		return nil, 0
	}
	rss = square
	for i, pi := range pick {
		rss -= c[i] * right[pi]
	}
	return c, max(rss, 0)
}

// filter runs the model over its history: its own shocks, 0 before its first step.
func (a *armaModel) filter() []float64 {
	shocks := make([]float64, len(a.w))
	for t := a.first; t < len(a.w); t++ {
		shocks[t] = a.w[t] - a.predict(a.w, shocks, t)
	}
	return shocks
}

func (a *armaModel) sumOfShocks(shocks []float64) float64 {
	s := dot(shocks[a.first:], shocks[a.first:])
	if math.IsNaN(s) {
		return math.Inf(1)
	}
	return s
}

func (a *armaModel) predict(w, shocks []float64, t int) float64 {
	v := a.c[len(a.c)-1]
	for i, term := range a.terms {
		if term.shock {
			v += a.c[i] * shocks[t-term.lag]
		} else {
			v += a.c[i] * w[t-term.lag]
		}
	}
	for j, x := range a.harmonics {
		v += a.c[len(a.terms)+j] * x[t]
	}
	return v
}

func (a *armaModel) forecast(h int) []float64 {
	n := len(a.w)
	w, shocks := slices.Clone(a.w), slices.Clone(a.shocks)
	for range h {
		w = append(w, a.predict(w, shocks, len(w)))
		shocks = append(shocks, 0)
	}
	return w[n:]
}

func (a *armaModel) String() string {
	var values, shocks []int
	for _, t := range a.terms {
		if t.shock {
			shocks = append(shocks, t.lag)
		} else {
			values = append(values, t.lag)
		}
	}
	return fmt.Sprintf("ARMA on values %v and shocks %v, differences %v, %d harmonics", values, shocks, a.differences,
		len(a.harmonics)/2)
}

// mstlFit forecasts the series without its seasons by exponential smoothing, and the seasons by their last turn.
func mstlFit(y []float64, in input) Fit {
	if len(y) < 4 || constant(y) {
		return naiveAt(y, in.h, in.season())
	}
	d := mstl(y, in.seasons)
	adjusted := make([]float64, len(y))
	for t := range adjusted {
		adjusted[t] = d.trend[t] + d.remainder[t]
	}
	rest := in
	rest.seasons = nil
	f := etsFit(adjusted, rest)
	for k, m := range d.periods {
		for i := range f.Mean {
			f.Mean[i] += d.season[k][len(y)-m+i%m]
		}
		for t := range f.Fitted {
			f.Fitted[t] += d.season[k][t]
		}
	}
	f.Model = fmt.Sprintf("seasons %v taken off, then %s", d.periods, f.Model)
	return f
}
