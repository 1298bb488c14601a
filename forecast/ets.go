package forecast

import (
	"fmt"
	"math"
	"slices"
)

// Exponential smoothing in state-space form (Hyndman, Koehler, Ord and Snyder 2008): error, trend and season each
// additive or multiplicative, the trend damped or not, chosen by the corrected information criterion of Akaike among
// the fifteen forms that R's ets admits (multiplicative trends and those with infinite variance are left out).
//
// The likelihood is searched over the two to four smoothing parameters alone. First levels come from a decomposition,
// as in R, and are then fitted in turn with the parameters by Gauss-Newton steps: for additive models the errors are
// linear in them, and one step is exact. All forms are searched roughly, the best few to the end.

// etsForm names one model.
type etsForm struct {
	mulError, trend, damped bool
	season                  byte // 'N', 'A', 'M'
}

func (f etsForm) String() string {
	e, t := "A", "N"
	if f.mulError {
		e = "M"
	}
	if f.trend {
		t = "A"
	}
	if f.damped {
		t = "Ad"
	}
	return "ETS(" + e + "," + t + "," + string(f.season) + ")"
}

// etsParams are the smoothing parameters: 0 < beta < alpha < 1, 0 < gamma < 1 - alpha, .8 <= phi <= .98 (1 where not
// damped).
type etsParams struct{ alpha, beta, gamma, phi float64 }

// etsModel is a form being fitted to a series.
type etsModel struct {
	form   etsForm
	y      []float64
	m      int
	par    etsParams
	state  []float64 // first level, slope where there is a trend, then the seasons by t mod m
	last   []float64 // states after the last step, seasons still by t mod m
	work   []float64
	neg2ll float64
}

const etsLow, etsHigh, phiLow, phiHigh = 1e-4, .9999, .8, .98

// free maps unbounded numbers to parameters inside their region, in the order alpha, beta, gamma, phi.
func (f etsForm) free(x []float64) etsParams {
	p := etsParams{phi: 1}
	p.alpha = etsLow + (etsHigh-etsLow)*logistic(x[0])
	k := 1
	if f.trend {
		p.beta = etsLow + (p.alpha-etsLow)*logistic(x[k])
		k++
	}
	if f.season != 'N' {
		p.gamma = etsLow + max(0, 1-p.alpha-etsLow)*logistic(x[k])
		k++
	}
	if f.damped {
		p.phi = phiLow + (phiHigh-phiLow)*logistic(x[k])
	}
	return p
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// dims is the number of smoothing parameters.
func (f etsForm) dims() int {
	d := 1
	for _, b := range []bool{f.trend, f.season != 'N', f.damped} {
		if b {
			d++
		}
	}
	return d
}

// run passes through the series from the first state and returns -2 log likelihood up to a constant, as R has it: n
// log of the sum of squared errors, plus 2 sum log|forecast| for multiplicative errors. errors and fitted take their
// values where not nil. The last states are left in m.last.
func (m *etsModel) run(par etsParams, state, errors, fitted []float64) float64 {
	f, y, period := m.form, m.y, m.m
	level, slope, k := state[0], 0.0, 1
	if f.trend {
		slope, k = state[1], 2
	}
	season := m.last[k:]
	copy(season, state[k:])
	alpha, phi, gamma := par.alpha, par.phi, par.gamma
	betaStar := 0.0
	if f.trend {
		betaStar = par.beta / alpha
	}
	sse, logs, product := 0.0, 0.0, 1.0
	at := 0
	for t, v := range y {
		damped := phi * slope
		q := level + damped
		forecast, p := q, v
		switch f.season {
		case 'A':
			forecast += season[at]
			p -= season[at]
		case 'M':
			forecast *= season[at]
			p /= season[at]
		}
		e := v - forecast
		if f.mulError {
			e /= forecast
			product *= math.Abs(forecast)
			if product > 1e100 || product < 1e-100 {
				logs += math.Log(product)
				product = 1
			}
		}
		sse += e * e
		if errors != nil {
			errors[t] = e
		}
		if fitted != nil {
			fitted[t] = forecast
		}
		before := level
		level = q + alpha*(p-q)
		if f.trend {
			slope = damped + betaStar*(level-before-damped)
		}
		switch f.season {
		case 'A':
			season[at] += gamma * (v - q - season[at])
		case 'M':
			season[at] += gamma * (v/q - season[at])
		}
		if at++; at == period {
			at = 0
		}
	}
	m.last[0] = level
	if f.trend {
		m.last[1] = slope
	}
	n := float64(len(y))
	if math.IsNaN(sse) {
		return math.Inf(1)
	}
	sse = max(sse, math.SmallestNonzeroFloat64)
	ll := n * math.Log(sse)
	if f.mulError {
		ll += 2 * (logs + math.Log(product))
	}
	if math.IsNaN(ll) {
		return math.Inf(1)
	}
	return ll
}

// aicc is the corrected criterion. Free numbers are the smoothing parameters, the states (a season has one fewer than
// its length) and the variance.
func (m *etsModel) aicc() float64 {
	k := float64(m.form.dims() + len(m.state) + 1)
	if m.form.season != 'N' {
		k--
	}
	n := float64(len(m.y))
	if n-k-1 <= 0 {
		return math.Inf(1)
	}
	return m.neg2ll + 2*k + 2*k*(k+1)/(n-k-1)
}

// etsFit fits all forms and forecasts with the best.
func etsFit(y []float64, in input) Fit {
	m := etsBest(y, in.season())
	if m == nil {
		return sesFit(y, in)
	}
	f := Fit{Fitted: make([]float64, len(y)), Mean: make([]float64, in.h)}
	m.run(m.par, m.state, nil, f.Fitted)
	m.forecast(f.Mean)
	f.Model = fmt.Sprintf("%v alpha %.3g", m.form, m.par.alpha)
	if m.form.trend {
		f.Model += fmt.Sprintf(" beta %.3g", m.par.beta)
	}
	if m.form.season != 'N' {
		f.Model += fmt.Sprintf(" gamma %.3g", m.par.gamma)
	}
	if m.form.damped {
		f.Model += fmt.Sprintf(" phi %.3g", m.par.phi)
	}
	return f
}

// etsForms are the forms that suit a series: multiplicative ones for positive data, seasons for two turns and more.
func etsForms(positive, seasonal bool) []etsForm {
	var out []etsForm
	for _, mul := range []bool{false, true} {
		if mul && !positive {
			continue
		}
		for _, season := range []byte{'N', 'A', 'M'} {
			if season != 'N' && !seasonal || season == 'M' && !mul {
				continue
			}
			out = append(out, etsForm{mul, false, false, season}, etsForm{mul, true, false, season},
				etsForm{mul, true, true, season})
		}
	}
	return out
}

// etsFinalists is the number of forms that are fitted to the end. On every fourth series of M4 hourly (without its last
// 48 training values) three led to the same form as all fifteen for 100 of 104 series.
const etsFinalists = 3

// etsBest is the best model of y, or nil where y is too short or constant.
func etsBest(y []float64, period int) *etsModel {
	if len(y) < 6 || constant(y) {
		return nil
	}
	seasonal := period > 1 && len(y) >= 2*period && len(y) >= period+6
	var models []*etsModel
	for _, form := range etsForms(minimum(y) > 0, seasonal) {
		m := newETS(form, y, period)
		if m.dimsTooMany() {
			continue
		}
		m.search(40+20*form.dims(), 1e-2)
		if !math.IsInf(m.neg2ll, 0) {
			models = append(models, m)
		}
	}
	for i := range models { // by criterion; equal ones keep their order
		for j := i; j > 0 && models[j].aicc() < models[j-1].aicc(); j-- {
			models[j], models[j-1] = models[j-1], models[j]
		}
	}
	var best *etsModel
	for _, m := range models[:min(etsFinalists, len(models))] {
		m.polish()
		if best == nil || m.aicc() < best.aicc() {
			best = m
		}
	}
	return best
}

func (m *etsModel) dimsTooMany() bool { return m.form.dims()+len(m.state) >= len(m.y)-1 }

func newETS(form etsForm, y []float64, period int) *etsModel {
	if form.season == 'N' {
		period = 1
	}
	m := &etsModel{form: form, y: y, m: period}
	m.state = etsStart(form, y, period)
	m.last = make([]float64, len(m.state))
	m.work = make([]float64, len(y))
	m.neg2ll = math.Inf(1)
	return m
}

// etsStart is the first state: seasons of a decomposition, level and slope of a line through the first seasons
// without them.
func etsStart(form etsForm, y []float64, period int) []float64 {
	k := 1
	if form.trend {
		k = 2
	}
	adjusted := y
	state := make([]float64, k)
	if form.season != 'N' {
		var season []float64
		if form.season == 'M' {
			season = multiplicativeIndices(y, period)
		} else {
			season = additiveIndices(y, period)
		}
		adjusted = make([]float64, len(y))
		for t, v := range y {
			if form.season == 'M' {
				adjusted[t] = v / max(season[t%period], 1e-2)
			} else {
				adjusted[t] = v - season[t%period]
			}
		}
		state = append(state, season...)
	}
	n := min(max(10, 2*period), len(y))
	if !form.trend {
		state[0] = average(adjusted[:n])
		return state
	}
	state[0], state[1] = trendOf(adjusted[:n])
	if math.Abs(state[0]+state[1]) < 1e-8 {
		state[0] *= 1 + 1e-3
		state[1] *= 1 - 1e-3
	}
	return state
}

// etsStarts are where a parameter starts, before free maps it: near its lower end, in the lower half, near its upper
// end.
var etsStarts = []float64{-5, -1.5, 2}

// search looks for the parameters at the present first state.
func (m *etsModel) search(budget int, tol float64) {
	d := m.form.dims()
	x := make([]float64, d)
	if math.IsInf(m.neg2ll, 1) {
		// The likelihood has several hills: slow and fast levels, slopes and seasons are all tried as starts.
		best := math.Inf(1)
		trial := make([]float64, d)
		var first []float64
		var try func(i int)
		try = func(i int) {
			if i == d {
				if v := m.run(m.form.free(trial), first, nil, nil); v < best {
					best = v
					copy(x, trial)
					copy(m.state, first)
				}
				return
			}
			starts := etsStarts
			if m.form.damped && i == d-1 {
				starts = etsStarts[2:]
			}
			for _, v := range starts {
				trial[i] = v
				try(i + 1)
			}
		}
		// So are the seasons of the whole series and of its first three turns, from which a season that changes sets out.
		whole := slices.Clone(m.state)
		for _, first = range [][]float64{whole, etsStart(m.form, m.y[:min(3*m.m, len(m.y))], m.m)} {
			try(0)
			if m.form.season == 'N' || 3*m.m >= len(m.y) {
				break
			}
		}
		if math.IsInf(best, 1) {
			return
		}
	} else {
		m.bound(x)
	}
	s := newSimplex(d)
	v := s.minimise(func(x []float64) float64 { return m.run(m.form.free(x), m.state, nil, nil) }, x, 1, tol, budget)
	if v < m.neg2ll {
		m.neg2ll, m.par = v, m.form.free(x)
	}
}

// bound is the inverse of free for the present parameters.
func (m *etsModel) bound(x []float64) {
	logit := func(v, lo, hi float64) float64 {
		if !(hi > lo) {
			return 0
		}
		p := min(max((v-lo)/(hi-lo), 1e-4), 1-1e-4)
		return math.Log(p / (1 - p))
	}
	x[0] = logit(m.par.alpha, etsLow, etsHigh)
	k := 1
	if m.form.trend {
		x[k] = logit(m.par.beta, etsLow, m.par.alpha)
		k++
	}
	if m.form.season != 'N' {
		x[k] = logit(m.par.gamma, etsLow, 1-m.par.alpha)
		k++
	}
	if m.form.damped {
		x[k] = logit(m.par.phi, phiLow, phiHigh)
	}
}

// polish fits first states and parameters in turn until the likelihood stands.
func (m *etsModel) polish() {
	for range 8 {
		before := m.neg2ll
		m.fitState()
		m.search(60*m.form.dims(), 1e-4)
		if before-m.neg2ll < 1e-2 {
			break
		}
	}
}

// fitState takes Gauss-Newton steps on the first state: the derivative of the errors by each number of it, by
// differences (exact for additive models up to rounding). Seasons keep their sum, which the level carries.
func (m *etsModel) fitState() {
	n, base := len(m.y), m.work
	k := len(m.state)
	free := k
	if m.form.season != 'N' {
		free-- // the last season follows from the others
	}
	trial := make([]float64, k)
	derivative := make([]float64, free*n)
	shifted := make([]float64, n)
	for range 2 {
		m.run(m.par, m.state, base, nil)
		for j := range free {
			step := m.stateStep(j)
			m.shift(trial, j, step)
			m.run(m.par, trial, shifted, nil)
			d := derivative[j*n : (j+1)*n]
			for t := range d {
				d[t] = (shifted[t] - base[t]) / step
			}
		}
		delta, ok := leastSquares(derivative, base, free, n)
		if !ok {
			return
		}
		improved := false
		for scale := 1.0; scale > .2; scale /= 2 {
			copy(trial, m.state)
			for j := range free {
				m.add(trial, j, -scale*delta[j])
			}
			if v := m.run(m.par, trial, nil, nil); v < m.neg2ll {
				improved = m.neg2ll-v > 1e-3
				m.neg2ll = v
				copy(m.state, trial)
				break
			}
		}
		if !improved || !m.form.mulError {
			return
		}
	}
}

// stateStep is the size of a difference for the j-th number of the state.
func (m *etsModel) stateStep(j int) float64 {
	k := 1
	if m.form.trend {
		k = 2
	}
	if j >= k && m.form.season == 'M' {
		return 1e-4
	}
	return 1e-4 * (math.Abs(m.state[0]) + 1e-3*math.Abs(m.y[0]) + 1e-9)
}

func (m *etsModel) shift(trial []float64, j int, by float64) {
	copy(trial, m.state)
	m.add(trial, j, by)
}

// add changes the j-th number and, for a season, the last one against it.
func (m *etsModel) add(state []float64, j int, by float64) {
	k := 1
	if m.form.trend {
		k = 2
	}
	state[j] += by
	if j >= k {
		state[len(state)-1] -= by
	}
}

// leastSquares solves min |b - X c| for c, X given by columns of length n.
func leastSquares(x, b []float64, columns, n int) ([]float64, bool) {
	gram := make([]float64, columns*columns)
	out := make([]float64, columns)
	for i := range columns {
		xi := x[i*n : (i+1)*n]
		for j := 0; j <= i; j++ {
			gram[i*columns+j] = dot(xi, x[j*n:(j+1)*n])
		}
		out[i] = dot(xi, b)
		gram[i*columns+i] *= 1 + 1e-9
	}
	return out, solveSPD(gram, out)
}

// dot sums in four lanes, so that the additions need not wait for one another; the order is fixed.
func dot(a, b []float64) float64 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// forecast gives the point forecasts from the last states (run leaves them).
func (m *etsModel) forecast(out []float64) {
	k, level, slope := 1, m.last[0], 0.0
	if m.form.trend {
		k, slope = 2, m.last[1]
	}
	season := m.last[k:]
	damp, sum := m.par.phi, m.par.phi
	for i := range out {
		out[i] = level + sum*slope
		switch m.form.season {
		case 'A':
			out[i] += season[(len(m.y)+i)%m.m]
		case 'M':
			out[i] *= season[(len(m.y)+i)%m.m]
		}
		damp *= m.par.phi
		sum += damp
	}
}
