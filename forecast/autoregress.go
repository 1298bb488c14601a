package forecast

import (
	"fmt"
	"math"
)

// Autoregressions on many lags, around one day, one week and their neighbours, by ridge regression: one for each way
// of differencing (none, one step, each season), forecast step by step, and averaged. Logarithms are taken where the
// data is positive and its likelihood is greater for it.

// arVariant is one autoregression.
type arVariant struct {
	lags  []int
	diff  int     // the series is differenced at this distance; 0 is not at all
	ridge float64 // in rows: what the sum of squares of a standardised column is raised by
	log   bool
}

// The ridges are, a row, .0003, .003 and .02, times the 700 rows of the shorter series of M4 hourly. On its two 48-step
// windows before the test, ten times as much was worse by .02 to .05 in OWA for the first two; between .01 and .03 the
// last made no difference. Without differences the autoregression must come near to a unit root, which a ridge takes it
// away from.
const (
	ridgeLevel  = .2
	ridgeStep   = 2
	ridgeSeason = 14
)

// arLags are the lags for seasons m (ascending): one turn of the shortest and three more, three around each multiple
// of it, five around longer seasons; none beyond a third of the n values.
func arLags(seasons []int, n int) []int {
	top := n / 3
	use := map[int]bool{}
	short, long := 1, 0
	if len(seasons) > 0 {
		short = seasons[0]
		if len(seasons) > 1 {
			long = seasons[len(seasons)-1]
		}
	}
	dense := short + 3
	if len(seasons) == 0 {
		dense = 8
	}
	if dense > n/8 {
		dense = max(1, n/8)
	}
	for l := 1; l <= dense; l++ {
		use[l] = true
	}
	end := 4 * short
	if long > 0 {
		end = long - 1
	}
	if len(seasons) > 0 {
		for l := short; l <= end && l <= top; l += short {
			for _, k := range []int{l - 1, l, l + 1} {
				use[k] = true
			}
		}
		for _, m := range seasons[1:] {
			for l := m - 2; l <= m+2; l++ {
				use[l] = true
			}
		}
	}
	var out []int
	for l := 1; l <= top; l++ {
		if use[l] {
			out = append(out, l)
		}
	}
	return out
}

// arLeast is the fewest values that an autoregression is fitted to.
const arLeast = 16

func arFit(y []float64, in input) Fit {
	if len(y) < arLeast || constant(y) {
		return naiveAt(y, in.h, in.season())
	}
	logs := logIsLikelier(y, in.season())
	variants := []arVariant{{diff: 0, ridge: ridgeLevel}, {diff: 1, ridge: ridgeStep}}
	for _, m := range in.seasons {
		if len(y) >= 3*m && len(y)-m >= arLeast {
			variants = append(variants, arVariant{diff: m, ridge: ridgeSeason})
		}
	}
	f := Fit{Mean: make([]float64, in.h), Fitted: make([]float64, len(y)),
		Model: fmt.Sprintf("mean of %d autoregressions, log %v", len(variants), logs)}
	for i := range variants {
		v := &variants[i]
		v.log = logs
		v.lags = arLags(in.seasons, len(y)-v.diff)
		v.add(y, in, &f)
	}
	scale := 1 / float64(len(variants))
	for i := range f.Mean {
		f.Mean[i] *= scale
	}
	for i := range f.Fitted {
		f.Fitted[i] *= scale
	}
	return f
}

// logIsLikelier compares seasonal differences of the values and of their logarithms by their Gaussian likelihoods,
// the second with the Jacobian of the transformation (Box and Cox 1964).
func logIsLikelier(y []float64, m int) bool {
	if minimum(y) <= 0 {
		return false
	}
	if len(y) < 2*m+2 {
		m = 1
	}
	logs := make([]float64, len(y))
	var jacobian float64
	for t, v := range y {
		logs[t] = math.Log(v)
	}
	for _, v := range logs[m:] {
		jacobian += v
	}
	_, plain := ErrorScale(y, m)
	_, logged := ErrorScale(logs, m)
	n := float64(len(y) - m)
	return n*math.Log(logged)+2*jacobian < n*math.Log(plain)
}

// add fits the variant and adds its forecasts and fitted values to f.
func (v *arVariant) add(y []float64, in input, f *Fit) {
	work := make([]float64, len(y), len(y)+in.h)
	copy(work, y)
	if v.log {
		for t := range work {
			work[t] = math.Log(work[t])
		}
	}
	z := make([]float64, len(y)-v.diff, len(y)-v.diff+in.h)
	copy(z, work[v.diff:])
	if v.diff > 0 {
		for t := range z {
			z[t] -= work[t]
		}
	}
	mean := average(z)
	var variance float64
	for t := range z {
		z[t] -= mean
		variance += z[t] * z[t]
	}
	deviation := math.Sqrt(variance / float64(len(z)))
	if !(deviation > 1e-12*(math.Abs(mean)+1e-300)) || len(v.lags) == 0 {
		v.carry(y, work, mean, in, f)
		return
	}
	for t := range z {
		z[t] /= deviation
	}
	c, intercept := v.solve(z)
	low, high := bounds(y)
	put := func(t int, predicted float64) float64 { // to the series' own units
		w := predicted*deviation + mean
		if v.diff > 0 {
			w += work[t-v.diff]
		}
		x := w
		if v.log {
			x = math.Exp(w)
		}
		return x
	}
	top := v.lags[len(v.lags)-1]
	for t := range y {
		if t-v.diff < top {
			f.Fitted[t] = math.NaN()
			continue
		}
		f.Fitted[t] += put(t, v.predict(c, intercept, z, t-v.diff))
	}
	for i := range in.h {
		p := v.predict(c, intercept, z, len(z))
		t := len(y) + i
		x := put(t, p)
		if clipped := min(max(x, low), high); clipped != x || math.IsNaN(x) {
			// An explosive root: hold the path inside what the series could reach.
			if math.IsNaN(x) {
				clipped = y[len(y)-1]
			}
			x = clipped
		}
		w := x
		if v.log {
			w = math.Log(x)
		}
		work = append(work, w)
		if v.diff > 0 {
			w -= work[t-v.diff]
		}
		z = append(z, (w-mean)/deviation)
		f.Mean[i] += x
	}
}

// carry is the answer for a series whose differences are all alike.
func (v *arVariant) carry(y, work []float64, mean float64, in input, f *Fit) {
	for t := range f.Fitted {
		f.Fitted[t] = math.NaN()
	}
	low, high := bounds(y)
	for i := range in.h {
		w := mean
		if v.diff > 0 {
			w += work[len(y)+i-v.diff]
		}
		work = append(work, w)
		if v.log {
			w = math.Exp(w)
		}
		f.Mean[i] += min(max(w, low), high)
	}
}

// bounds are how low and how high a path may go: half its range beyond what was seen, and for positive data no lower
// than half the smallest value.
func bounds(y []float64) (low, high float64) {
	low, high = minimum(y), math.Inf(-1)
	for _, v := range y {
		high = max(high, v)
	}
	reach := (high - low) / 2
	if low > 0 {
		return max(low-reach, low/2), high + reach
	}
	return low - reach, high + reach
}

// arRidges are what the variant's ridge is multiplied by: the best by AICc with the effective number of coefficients
// (the trace of the hat matrix) is taken. Regular series keep 1; noisy ones go to 1000.
var arRidges = [...]float64{1, 10, 100, 1000}

// solve is the ridge regression of z on its lags. The intercept is not shrunk.
func (v *arVariant) solve(z []float64) (c []float64, intercept float64) {
	p := len(v.lags)
	top := v.lags[p-1]
	n := len(z) - top
	target := z[top:]
	// Columns and target lose their means, so that the intercept drops out.
	means := make([]float64, p)
	gram := make([]float64, p*p)
	right := make([]float64, p)
	at := sum(target) / float64(n)
	for i, li := range v.lags {
		xi := z[top-li : top-li+n]
		means[i] = sum(xi) / float64(n)
		for j, lj := range v.lags[:i+1] {
			gram[i*p+j] = dot(xi, z[top-lj:top-lj+n]) - float64(n)*means[i]*means[j]
		}
		right[i] = dot(xi, target) - float64(n)*means[i]*at
	}
	square := dot(target, target) - float64(n)*at*at
	a, trial := make([]float64, p*p), make([]float64, p)
	best := math.Inf(1)
	for _, f := range arRidges {
		ridge := f * v.ridge
		copy(a, gram)
		for i := range p {
			a[i*p+i] += ridge
		}
		copy(trial, right)
		if !solveSPD(a, trial) {
			continue
		}
		free := float64(p) - ridge*traceOfInverse(a, p)
		// |y - Xc|^2 by G c = b - ridge c.
		rss := square
		for i, x := range trial {
			rss -= x * (right[i] + ridge*x)
		}
		if value := aicc(rss, float64(n), free+2); value < best {
			best = value
			c = append(c[:0], trial...)
		}
	}
	if c == nil {
		c = make([]float64, p)
	}
	intercept = at
	for i := range c {
		intercept -= c[i] * means[i]
	}
	return c, intercept
}

// aicc is the corrected criterion of a regression with k free numbers, the variance among them.
func aicc(rss, n, k float64) float64 {
	if n-k-1 <= 0 {
		return math.Inf(1)
	}
	return n*math.Log(max(rss, math.SmallestNonzeroFloat64)/n) + 2*k*n/(n-k-1)
}

// traceOfInverse is that of l l', for a Cholesky factor l (lower part of a).
func traceOfInverse(l []float64, n int) float64 {
	var trace float64
	x := make([]float64, n)
	for j := range n { // column j of the inverse of l
		clear(x[j:])
		x[j] = 1 / l[j*n+j]
		trace += x[j] * x[j]
		for i := j + 1; i < n; i++ {
			var s float64
			row := l[i*n : i*n+i]
			for k := j; k < i; k++ {
				s -= row[k] * x[k]
			}
			x[i] = s / l[i*n+i]
			trace += x[i] * x[i]
		}
	}
	return trace
}

func sum(y []float64) float64 {
	var s float64
	for _, v := range y {
		s += v
	}
	return s
}

// predict is the forecast of z[t] from what precedes it.
func (v *arVariant) predict(c []float64, intercept float64, z []float64, t int) float64 {
	s := intercept
	for i, l := range v.lags {
		s += c[i] * z[t-l]
	}
	return s
}
