package forecast

import (
	"math"
	"sort"
)

// Calibrate puts quantiles beside the means of forecasts from the errors that the same way of forecasting made in rolling
// folds (folds by series, as Backtest gives them, of any method or combination).
func Calibrate(p *Panel, folds [][]Fold, forecasts []Forecast, o Options) {
	var pool []float64
	for i := range folds {
		for _, f := range folds[i] {
			s := scaleOf(f.History)
			for t, a := range f.Actual {
				pool = append(pool, (a-f.Mean[t])/s)
			}
		}
	}
	sort.Float64s(pool)
	for i := range forecasts {
		f := &forecasts[i]
		s := scaleOf(p.Series[i].Y)
		f.Quantiles = make([][]float64, len(o.Levels))
		for l, q := range o.Levels {
			f.Quantiles[l] = make([]float64, len(f.Mean))
			for t, v := range f.Mean {
				x := v
				if len(pool) > 0 {
					x += s * pool[min(len(pool)-1, int(q*float64(len(pool))))]
				}
				if !o.Signed {
					x = max(0, x)
				}
				f.Quantiles[l][t] = x
			}
		}
	}
}

func scaleOf(y []float64) float64 {
	abs, _ := ErrorScale(y, 1)
	if !(abs > 0) {
		return math.Max(1e-9, math.Abs(y[len(y)-1]))
	}
	return abs
}
