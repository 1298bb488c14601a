package forecast

import (
	"fmt"
	"math"
)

// The theta models in the form of Fiorucci, Pellegrini, Louzada, Petropoulos and Koehler (2016): simple exponential
// smoothing plus a share k = 1 - 1/theta of the extrapolated linear trend. The standard method has theta = 2 and the
// trend of the whole history; the dynamic one estimates the trend at each step from what came before, and theta by
// least squares.
//
// For a given smoothing rate the errors are linear in the first level and in k, so that the search has one dimension.

func thetaStandard(y []float64, in input) Fit { return thetaFit(y, in, false) }

func thetaDynamic(y []float64, in input) Fit { return thetaFit(y, in, true) }

func thetaFit(y []float64, in input, dynamic bool) Fit {
	if len(y) < 4 || constant(y) {
		return naive(y, in)
	}
	season, multiplicative := deseason(y, in.season())
	work := y
	if season != nil {
		work = make([]float64, len(y))
		for t, v := range y {
			if s := season[t%len(season)]; multiplicative {
				work[t] = v / s
			} else {
				work[t] = v - s
			}
		}
	}
	m := thetaModel{y: work, dynamic: dynamic}
	m.alpha = gridThenGolden(m.error, .1, .99, 8, 1e-4)
	m.error(m.alpha)
	f := Fit{Mean: make([]float64, in.h), Fitted: make([]float64, len(y))}
	m.forecast(f.Mean, f.Fitted)
	if season != nil {
		put := func(x []float64, first int) {
			for i := range x {
				if s := season[(first+i)%len(season)]; multiplicative {
					x[i] *= s
				} else {
					x[i] += s
				}
			}
		}
		put(f.Mean, len(y))
		put(f.Fitted, 0)
	}
	name := "theta"
	if dynamic {
		name = "dynamic theta"
	}
	f.Model = fmt.Sprintf("%s alpha %.3g theta %.3g", name, m.alpha, 1/(1-m.k))
	return f
}

// thetaModel is one fit: error(alpha) sets level and k to the best for that alpha.
type thetaModel struct {
	y        []float64
	dynamic  bool
	alpha    float64
	level, k float64 // first level, and 1 - 1/theta
}

// trendOf is the least-squares line through y at 1, 2, ...: a + b t.
func trendOf(y []float64) (a, b float64) {
	n := float64(len(y))
	var sum, weighted float64
	for t, v := range y {
		sum += v
		weighted += float64(t+1) * v
	}
	mean := sum / n
	b = 6 / (n*n - 1) * (2/n*weighted - (1+n)*mean)
	return mean - (n+1)*b/2, b
}

// thetaSkip is the number of first steps whose errors do not count, as in the published code: the dynamic trend has
// no slope yet.
const thetaSkip = 3

// error is the sum of squared errors one step ahead, from the fourth step on, with the best level and k.
func (m *thetaModel) error(alpha float64) float64 {
	y := m.y
	a, b := trendOf(y)
	if m.dynamic {
		a, b = y[0], 0
	}
	// e_t = y_t - smooth0_t - level*d_t - k*g_t
	var ee, ed, eg, dd, dg, gg float64
	mean, smooth, power := y[0], 0.0, 1.0 // smooth without the first level; power = (1-alpha)^t
	for t, v := range y {
		g := a*power + b*(1-power*(1-alpha))/alpha
		if t >= thetaSkip {
			e, d := v-smooth, power
			ee += e * e
			ed += e * d
			eg += e * g
			dd += d * d
			dg += d * g
			gg += g * g
		}
		smooth += alpha * (v - smooth)
		power *= 1 - alpha
		if m.dynamic && t > 0 {
			a, b, mean = nextTrend(b, mean, v, t)
		}
	}
	m.k = .5
	if m.dynamic {
		// Of a nearly flat direction the least-norm answer is taken: a ridge far below the data's own scale.
		ridge := 1e-12 * gg
		det := dd*(gg+ridge) - dg*dg
		m.k = 0
		if det > 0 {
			m.k = (dd*eg - dg*ed) / det
		}
		m.k = max(0, min(m.k, 1-1e-10))
	}
	m.level = 0
	if dd > 0 {
		m.level = (ed - m.k*dg) / dd
	}
	return ee - 2*m.level*ed - 2*m.k*eg + m.level*m.level*dd + 2*m.level*m.k*dg + m.k*m.k*gg
}

// nextTrend updates the dynamic trend by the value v of step t (from 0).
func nextTrend(b, mean, v float64, t int) (a1, b1, mean1 float64) {
	i := float64(t)
	mean1 = (i*mean + v) / (i + 1)
	b1 = ((i-1)*b + 6*(v-mean1)/(i+1)) / (i + 2)
	return mean1 - b1*(i+2)/2, b1, mean1
}

func (m *thetaModel) forecast(out, fitted []float64) {
	y, alpha := m.y, m.alpha
	a, b := trendOf(y)
	if m.dynamic {
		a, b = y[0], 0
	}
	smooth, mean, power := m.level, y[0], 1.0
	for t, v := range y {
		fitted[t] = smooth + m.k*(a*power+b*(1-power*(1-alpha))/alpha)
		smooth += alpha * (v - smooth)
		power *= 1 - alpha
		if m.dynamic && t > 0 {
			a, b, mean = nextTrend(b, mean, v, t)
		}
	}
	for i := range out {
		out[i] = smooth + m.k*(a*power+b*(1-power*(1-alpha))/alpha)
		smooth += alpha * (out[i] - smooth)
		power *= 1 - alpha
		if m.dynamic {
			a, b, mean = nextTrend(b, mean, out[i], len(y)+i)
		}
	}
}

// deseason is the season by t mod m where a test finds one (nil otherwise): multiplicative for positive data, else
// additive.
func deseason(y []float64, m int) (season []float64, multiplicative bool) {
	if m < 4 || len(y) < 2*m || !thetaSeasonTest(y, m) {
		return nil, false
	}
	if minimum(y) > 0 {
		season = multiplicativeIndices(y, m)
		if minimum(season) >= .01 {
			return season, true
		}
	}
	return additiveIndices(y, m), false
}

// thetaSeasonTest is the test of the published theta code: M4's, at two turns of history already.
func thetaSeasonTest(y []float64, m int) bool {
	return math.Abs(acfStatistic(y, m)) > 1.6448536269514722
}

// additiveIndices is the season of R's decompose(type = "additive"), by t mod m, with mean 0.
func additiveIndices(y []float64, m int) []float64 {
	trend := centredAverage(y, m)
	sum, n := make([]float64, m), make([]float64, m)
	for t, v := range trend {
		if !math.IsNaN(v) {
			sum[t%m] += y[t] - v
			n[t%m]++
		}
	}
	total := 0.0
	for k := range sum {
		if n[k] > 0 {
			sum[k] /= n[k]
		}
		total += sum[k]
	}
	for k := range sum {
		sum[k] -= total / float64(m)
	}
	return sum
}

func minimum(y []float64) float64 {
	v := math.Inf(1)
	for _, x := range y {
		v = min(v, x)
	}
	return v
}

func constant(y []float64) bool {
	for _, v := range y {
		if v != y[0] {
			return false
		}
	}
	return true
}
