package forecast

import "math"

// crostonRate is the smoothing rate of Croston, SBA and TSB: .1, as in Syntetos and Boylan (2005).
const crostonRate = .1

// ses smooths y at the rate alpha from its first value on and returns the forecast; fitted, where not nil, takes
// those one step ahead.
func ses(y []float64, alpha float64, fitted []float64) float64 {
	level := y[0]
	if fitted != nil {
		fitted[0] = math.NaN()
	}
	for t := 1; t < len(y); t++ {
		if fitted != nil {
			fitted[t] = level
		}
		level = alpha*y[t] + (1-alpha)*level
	}
	return level
}

// sesError is the sum of squared errors of ses.
func sesError(y []float64, alpha float64) float64 {
	level, sum := y[0], 0.0
	for _, v := range y[1:] {
		e := v - level
		sum += e * e
		level += alpha * e
	}
	return sum
}

// sesRate is the rate of least squared error in [lo, hi].
func sesRate(y []float64, lo, hi float64) float64 {
	if len(y) < 3 {
		return lo
	}
	return goldenSection(func(a float64) float64 { return sesError(y, a) }, lo, hi, 1e-4)
}

func sesFit(y []float64, in input) Fit {
	f := Fit{Fitted: make([]float64, len(y))}
	f.Mean = repeat(ses(y, sesRate(y, .01, .99), f.Fitted), in.h)
	return f
}

// sizesAndGaps are the demands of y that are not zero and the steps from one to the next (the first counts from
// before the history, as in statsforecast).
func sizesAndGaps(y []float64) (sizes, gaps []float64) {
	last := -1
	for t, v := range y {
		if v != 0 {
			sizes = append(sizes, v)
			gaps = append(gaps, float64(t-last))
			last = t
		}
	}
	return sizes, gaps
}

func croston(y []float64, in input) Fit {
	return Fit{Mean: repeat(crostonRateOfDemand(y), in.h)}
}

func sba(y []float64, in input) Fit {
	return Fit{Mean: repeat((1-crostonRate/2)*crostonRateOfDemand(y), in.h)}
}

// crostonRateOfDemand is the smoothed size over the smoothed gap; 0 where there was no demand.
func crostonRateOfDemand(y []float64) float64 {
	sizes, gaps := sizesAndGaps(y)
	if len(sizes) == 0 {
		return 0
	}
	return ses(sizes, crostonRate, nil) / ses(gaps, crostonRate, nil)
}

func tsb(y []float64, in input) Fit {
	sizes, _ := sizesAndGaps(y)
	if len(sizes) == 0 {
		return Fit{Mean: make([]float64, in.h)}
	}
	occurs := make([]float64, len(y))
	for t, v := range y {
		if v != 0 {
			occurs[t] = 1
		}
	}
	return Fit{Mean: repeat(ses(occurs, crostonRate, nil)*ses(sizes, crostonRate, nil), in.h)}
}

// chunkSums are sums over k steps each; steps that do not fill a chunk are left out at the old end.
func chunkSums(y []float64, k int) []float64 {
	y = y[len(y)%k:]
	out := make([]float64, len(y)/k)
	for i := range out {
		for _, v := range y[i*k : (i+1)*k] {
			out[i] += v
		}
	}
	return out
}

// meanGap is the mean interval between demands, rounded half to even, at least 1; 0 where there is no demand.
func meanGap(y []float64) int {
	_, gaps := sizesAndGaps(y)
	if len(gaps) == 0 {
		return 0
	}
	return max(1, int(math.RoundToEven(average(gaps))))
}

// aggregated is the smoothed sum over k steps, per step. The rate is the best one in [.1, .3], as statsforecast has
// it.
func aggregated(y []float64, k int) float64 {
	s := chunkSums(y, k)
	if len(s) == 0 {
		return average(y)
	}
	return ses(s, sesRate(s, .1, .3), nil) / float64(k)
}

func adida(y []float64, in input) Fit {
	k := meanGap(y)
	if k == 0 {
		return Fit{Mean: make([]float64, in.h)}
	}
	return Fit{Mean: repeat(aggregated(y, k), in.h)}
}

func imapa(y []float64, in input) Fit {
	top := meanGap(y)
	if top == 0 {
		return Fit{Mean: make([]float64, in.h)}
	}
	var s float64
	for k := 1; k <= top; k++ {
		s += aggregated(y, k)
	}
	return Fit{Mean: repeat(s/float64(top), in.h)}
}
