package forecast

import "math"

// Naive2 is the benchmark of M4: the last value, carried forward, of the series without its season where an
// autocorrelation test finds one, with the season put back (Makridakis, Spiliotis and Assimakopoulos 2020). It
// follows the competition's code: the test at 90 % on the autocorrelation at distance m, and the classical
// multiplicative decomposition by a centred moving average. y must not be empty.
func Naive2(y []float64, h, m int) []float64 {
	out := make([]float64, h)
	last := len(y) - 1
	if !seasonalByACF(y, m) {
		for i := range out {
			out[i] = y[last]
		}
		return out
	}
	season := multiplicativeIndices(y, m)
	for _, s := range season {
		if s == 0 || math.IsNaN(s) || math.IsInf(s, 0) {
			// Zeros in the moving average leave no ratios: no season can be taken out.
			return repeat(y[last], h)
		}
	}
	for i := range out {
		out[i] = y[last] / season[last%m] * season[(last+1+i)%m]
	}
	return out
}

// seasonalByACF is M4's test: |acf(m)| > 1.645 sqrt((1 + 2 sum of acf(1..m-1)^2) / n), from three turns of history
// on.
func seasonalByACF(y []float64, m int) bool {
	return m >= 2 && len(y) >= 3*m && math.Abs(acfStatistic(y, m)) > 1.645
}

// acfStatistic is the autocorrelation at distance m over its standard error if there were none from m on; 0 for a
// constant series.
func acfStatistic(y []float64, m int) float64 {
	n := len(y)
	mean := average(y)
	centred := make([]float64, n)
	var c0 float64
	for t, v := range y {
		centred[t] = v - mean
		c0 += centred[t] * centred[t]
	}
	if c0 == 0 {
		return 0
	}
	var r, squares float64
	for k := 1; k <= m; k++ {
		r = 0
		for t, v := range centred[k:] {
			r += v * centred[t]
		}
		r /= c0
		if k < m {
			squares += r * r
		}
	}
	return r / math.Sqrt((1+2*squares)/float64(n))
}

// multiplicativeIndices is the season of R's decompose(type = "multiplicative"), by t mod m: means of the ratios to a
// centred moving average, with mean 1.
func multiplicativeIndices(y []float64, m int) []float64 {
	trend := centredAverage(y, m)
	sum, n := make([]float64, m), make([]float64, m)
	for t, v := range trend {
		if !math.IsNaN(v) {
			sum[t%m] += y[t] / v
			n[t%m]++
		}
	}
	total := 0.0
	for k := range sum {
		sum[k] /= n[k]
		total += sum[k]
	}
	for k := range sum {
		sum[k] /= total / float64(m)
	}
	return sum
}

// centredAverage is the moving average over m steps, with half weights at both ends where m is even; NaN at the
// edges.
func centredAverage(y []float64, m int) []float64 {
	out := make([]float64, len(y))
	half := m / 2
	for t := range out {
		out[t] = math.NaN()
		if t < half || t+half >= len(y) {
			continue
		}
		var s float64
		if m%2 == 0 {
			s = (y[t-half] + y[t+half]) / 2
			for _, v := range y[t-half+1 : t+half] {
				s += v
			}
		} else {
			for _, v := range y[t-half : t+half+1] {
				s += v
			}
		}
		out[t] = s / float64(m)
	}
	return out
}

func average(y []float64) float64 {
	var s float64
	for _, v := range y {
		s += v
	}
	return s / float64(len(y))
}

func naive(y []float64, in input) Fit {
	fitted := make([]float64, len(y))
	fitted[0] = math.NaN()
	copy(fitted[1:], y)
	return Fit{Mean: repeat(y[len(y)-1], in.h), Fitted: fitted}
}

func seasonalNaive(y []float64, in input) Fit { return naiveAt(y, in.h, in.season()) }

func seasonalNaiveLong(y []float64, in input) Fit {
	return naiveAt(y, in.h, max(in.longest(y), in.season()))
}

// naiveAt repeats the last m values. A history shorter than m repeats as a whole.
func naiveAt(y []float64, h, m int) Fit {
	m = min(m, len(y))
	f := Fit{Mean: make([]float64, h), Fitted: nan(len(y))}
	for i := range f.Mean {
		f.Mean[i] = y[len(y)-m+i%m]
	}
	for t := m; t < len(y); t++ {
		f.Fitted[t] = y[t-m]
	}
	return f
}

func naive2Fit(y []float64, in input) Fit { return Fit{Mean: Naive2(y, in.h, in.season())} }

// windowAverage means over four weeks of days, two days of hours, eight weeks of weeks: whole seasons where there are
// some, so that the mean has no phase.
func windowAverage(y []float64, in input) Fit {
	w := 8
	switch m := in.season(); {
	case m > 1 && m <= 7:
		w = 4 * m
	case m > 7 && m < 52:
		w = 2 * m
	}
	w = min(w, len(y))
	return Fit{Mean: repeat(average(y[len(y)-w:]), in.h)}
}

// seasonalWindowAverage means over the same phase of the last eight seasons, fewer where the history is shorter.
func seasonalWindowAverage(y []float64, in input) Fit {
	m := in.season()
	turns := min(8, len(y)/m)
	if turns == 0 {
		return naiveAt(y, in.h, m)
	}
	f := Fit{Mean: make([]float64, in.h)}
	for i := range f.Mean {
		var s float64
		for k := 1; k <= turns; k++ {
			s += y[len(y)-k*m+i%m]
		}
		f.Mean[i] = s / float64(turns)
	}
	return f
}
