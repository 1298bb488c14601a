package fraud

import (
	"errors"
	"math"
	"slices"

	"github.com/onmart/onmart/datasets"
)

// errLearnedNothing is platt's of logits that are worse than nothing. What to do depends on what ended the training.
var errLearnedNothing = errors.New("on the validation rows greater scores do not go with more frauds: " +
	"the model has learned nothing that holds there")

// platt fits p = 1/(1+exp(-(a z + b))) to logits z and labels y by Newton's method with backtracking, in the
// numerically careful form of Lin, Lin & Weng ("A note on Platt's probabilistic outputs", 2007), with
// Platt's smoothed targets (1999). a is above 0 or it is errLearnedNothing.
func platt(z []float64, y []bool) (a, b float64, err error) {
	var pos, neg float64
	for _, v := range y {
		if v {
			pos++
		} else {
			neg++
		}
	}
	if pos == 0 || neg == 0 {
		return 0, 0, errors.New("calibration needs both classes among the validation rows")
	}
	high, low := (pos+1)/(pos+2), 1/(neg+2)
	loss := func(a, b float64) float64 {
		var sum float64
		for i, v := range z {
			t := low
			if y[i] {
				t = high
			}
			f := a*v + b
			sum += math.Max(f, 0) - t*f + math.Log1p(math.Exp(-math.Abs(f)))
		}
		return sum
	}
	const (
		steps   = 100
		small   = 1e-9 // of the gradient
		minStep = 1e-10
		ridge   = 1e-12 // keeps the curvature positive
	)
	b = math.Log((pos + 1) / (neg + 1))
	at := loss(a, b)
	for range steps {
		haa, hbb, hab := ridge, ridge, 0.0
		var ga, gb float64
		for i, v := range z {
			t := low
			if y[i] {
				t = high
			}
			p := 1 / (1 + math.Exp(-(a*v + b)))
			w := p * (1 - p)
			haa += v * v * w
			hbb += w
			hab += v * w
			ga += v * (p - t)
			gb += p - t
		}
		if math.Abs(ga) <= small*float64(len(z)) && math.Abs(gb) <= small*float64(len(z)) {
			break
		}
		det := haa*hbb - hab*hab
		da, db := -(hbb*ga-hab*gb)/det, -(haa*gb-hab*ga)/det
		slope := ga*da + gb*db
		step := 1.0
		for ; step >= minStep; step /= 2 {
			if next := loss(a+step*da, b+step*db); next < at+1e-4*step*slope {
				a, b, at = a+step*da, b+step*db, next
				break
			}
		}
		if step < minStep {
			break // no way down is left at this precision
		}
	}
	if !(a > 0) {
		return 0, 0, errLearnedNothing
	}
	return a, b, nil
}

// threshold is the probability from which rows are alerts, so that at most perDay a day were raised on
// the given rows, on the mean over days. Where all rows fit into the budget it is 0: everything is an
// alert; where even the rows with the greatest score are too many it is just above that score.
func threshold(p []float64, perDay, days float64) float64 {
	budget := int(perDay * days)
	if budget >= len(p) {
		return 0
	}
	sorted := slices.Clone(p)
	slices.Sort(sorted)
	slices.Reverse(sorted)
	// The scores at and above the budgeted place are alerts, unless rows beyond the budget tie with it.
	over := sorted[budget]
	for k := budget - 1; k >= 0; k-- {
		if sorted[k] > over {
			return sorted[k]
		}
	}
	return math.Min(1, math.Nextafter(sorted[0], 2))
}

// dayCount is the days a range covers, at least one hour's share.
func dayCount(r datasets.Range) float64 {
	return math.Max(float64(r.To-r.From)/float64(datasets.Day), 1./24)
}
