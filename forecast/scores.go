package forecast

import (
	"fmt"
	"math"
)

// ErrorScale is the mean absolute and the mean squared difference between steps m apart of the history y: the
// denominators of MASE and RMSSE (Hyndman and Koehler 2006; Makridakis, Spiliotis and Assimakopoulos 2022). Both are
// NaN where y has no such pair.
func ErrorScale(y []float64, m int) (abs, square float64) {
	if m < 1 || len(y) <= m {
		return math.NaN(), math.NaN()
	}
	for t := m; t < len(y); t++ {
		d := y[t] - y[t-m]
		abs += math.Abs(d)
		square += d * d
	}
	n := float64(len(y) - m)
	return abs / n, square / n
}

// MASE is the mean absolute error of a forecast divided by that of the seasonal naive method within the history:
// ErrorScale(history, m). It is NaN or Inf where the scale is.
func MASE(actual, mean, history []float64, m int) float64 {
	abs, _ := ErrorScale(history, m)
	return meanAbs(actual, mean) / abs
}

// RMSSE is the root of the mean squared error divided by the mean squared difference of the history at distance m.
// M5 takes m = 1.
func RMSSE(actual, mean, history []float64, m int) float64 {
	_, square := ErrorScale(history, m)
	var sum float64
	for t, a := range actual {
		d := a - mean[t]
		sum += d * d
	}
	return math.Sqrt(sum / float64(len(actual)) / square)
}

// SMAPE is the symmetric mean absolute percentage error of M4, 0 to 200; a step where both numbers are 0 counts 0.
func SMAPE(actual, mean []float64) float64 {
	var sum float64
	for t, a := range actual {
		// The floor is that of the published scorers; it matters only where both are 0.
		sum += math.Abs(a-mean[t]) / math.Max(math.Abs(a)+math.Abs(mean[t]), 1e-12)
	}
	return 200 * sum / float64(len(actual))
}

// Pinball is the mean quantile loss of the quantile forecast at the level.
func Pinball(actual, quantile []float64, level float64) float64 {
	var sum float64
	for t, a := range actual {
		d := a - quantile[t]
		sum += math.Max(level*d, (level-1)*d)
	}
	return sum / float64(len(actual))
}

// ScaledPinball is Pinball divided by the mean absolute difference of the history at distance m.
func ScaledPinball(actual, quantile, history []float64, level float64, m int) float64 {
	abs, _ := ErrorScale(history, m)
	return Pinball(actual, quantile, level) / abs
}

// Coverage is the share of steps whose actual value is at or below the forecast.
func Coverage(actual, quantile []float64) float64 {
	n := 0
	for t, a := range actual {
		if a <= quantile[t] {
			n++
		}
	}
	return float64(n) / float64(len(actual))
}

func meanAbs(actual, mean []float64) float64 {
	var sum float64
	for t, a := range actual {
		sum += math.Abs(a - mean[t])
	}
	return sum / float64(len(actual))
}

// Case is one series to score: its history, what came, what was forecast, and its weight (revenue, say).
type Case struct {
	History []float64
	Actual  []float64
	Forecast
	Weight float64
}

// Scores are the scores of a panel. Scaled ones use steps one apart, as M5 does; series whose history does not vary
// have no scale and are left out of them, which Unscaled counts. A score that nothing enters is NaN.
type Scores struct {
	RMSSE, WRMSSE float64   // mean over series, and weighted by Case.Weight
	MASE, WMASE   float64   //
	Pinball       []float64 // scaled pinball loss by level, mean over series
	WPinball      []float64 // and weighted
	Coverage      []float64 // share of all steps at or below the quantile, by level
	WAPE          float64   // sum of absolute errors over the sum of what came
	Bias          float64   // sum of forecasts over the sum of what came
	Scaled        int       // series that have a scale
	Unscaled      int       // series that have none
}

// Score scores a panel with the differences at distance 1, for the quantile levels that the forecasts carry.
func Score(cases []Case, levels []float64) (Scores, error) {
	var s Scores
	s.Pinball, s.WPinball = make([]float64, len(levels)), make([]float64, len(levels))
	s.Coverage = make([]float64, len(levels))
	var weights, absolute, sum, forecast float64
	steps := 0
	for i := range cases {
		c := &cases[i]
		if err := c.check(levels); err != nil {
			return Scores{}, fmt.Errorf("scores: series %d: %w", i, err)
		}
		steps += len(c.Actual)
		for t, a := range c.Actual {
			absolute += math.Abs(a - c.Mean[t])
			sum += a
			forecast += c.Mean[t]
		}
		for l := range levels {
			s.Coverage[l] += Coverage(c.Actual, c.Quantiles[l]) * float64(len(c.Actual))
		}
		abs, square := ErrorScale(c.History, 1)
		if !(abs > 0 && square > 0) {
			s.Unscaled++
			continue
		}
		s.Scaled++
		weights += c.Weight
		r, m := RMSSE(c.Actual, c.Mean, c.History, 1), meanAbs(c.Actual, c.Mean)/abs
		s.RMSSE, s.WRMSSE = s.RMSSE+r, s.WRMSSE+c.Weight*r
		s.MASE, s.WMASE = s.MASE+m, s.WMASE+c.Weight*m
		for l, q := range levels {
			v := Pinball(c.Actual, c.Quantiles[l], q) / abs
			s.Pinball[l] += v
			s.WPinball[l] += c.Weight * v
		}
	}
	n := float64(s.Scaled)
	s.RMSSE, s.MASE, s.WRMSSE, s.WMASE = s.RMSSE/n, s.MASE/n, s.WRMSSE/weights, s.WMASE/weights
	for l := range levels {
		s.Pinball[l] /= n
		s.WPinball[l] /= weights
		s.Coverage[l] /= float64(steps)
	}
	s.WAPE, s.Bias = absolute/sum, forecast/sum
	return s, nil
}

func (c *Case) check(levels []float64) error {
	if len(c.Actual) == 0 || len(c.Mean) != len(c.Actual) {
		return fmt.Errorf("%d values for a forecast of %d steps: give as many of both", len(c.Actual), len(c.Mean))
	}
	if len(levels) > 0 && len(c.Quantiles) != len(levels) {
		return fmt.Errorf("%d quantiles for %d levels: give the forecast's own levels", len(c.Quantiles), len(levels))
	}
	for l := range levels {
		if len(c.Quantiles[l]) != len(c.Actual) {
			return fmt.Errorf("quantile %v has %d steps of %d", levels[l], len(c.Quantiles[l]), len(c.Actual))
		}
	}
	return nil
}

// M4 are the scores of the M4 competition (Makridakis, Spiliotis and Assimakopoulos 2020) over a panel.
type M4 struct {
	SMAPE, MASE, OWA      float64
	NaiveSMAPE, NaiveMASE float64 // of Naive2, by which OWA divides
	Series                int
}

// ScoreM4 scores forecasts as M4 does: means over series of SMAPE and of MASE at season m, and OWA, the mean of both
// divided by those of Naive2.
func ScoreM4(cases []Case, m int) (M4, error) {
	var s M4
	for i := range cases {
		c := &cases[i]
		if err := c.check(nil); err != nil {
			return M4{}, fmt.Errorf("scores: series %d: %w", i, err)
		}
		abs, _ := ErrorScale(c.History, m)
		if !(abs > 0) {
			return M4{}, fmt.Errorf("scores: series %d: its history of %d steps has no differences at distance %d, so "+
				"that MASE has no scale: leave it out", i, len(c.History), m)
		}
		naive := Naive2(c.History, len(c.Actual), m)
		s.SMAPE += SMAPE(c.Actual, c.Mean)
		s.MASE += meanAbs(c.Actual, c.Mean) / abs
		s.NaiveSMAPE += SMAPE(c.Actual, naive)
		s.NaiveMASE += meanAbs(c.Actual, naive) / abs
	}
	n := float64(len(cases))
	s.SMAPE, s.MASE, s.NaiveSMAPE, s.NaiveMASE = s.SMAPE/n, s.MASE/n, s.NaiveSMAPE/n, s.NaiveMASE/n
	s.OWA = (s.SMAPE/s.NaiveSMAPE + s.MASE/s.NaiveMASE) / 2
	s.Series = len(cases)
	return s, nil
}
