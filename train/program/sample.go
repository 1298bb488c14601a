package program

import (
	"fmt"
	"math"
)

// SampleBy makes the constants of Sample and SampledSoftmax for items that are drawn in proportion to weights: the
// cumulative distribution, and the logarithm of each item's share. Weights are finite and above 0: an item that is never
// drawn has no logarithm; items that are drawn more seldom than once in 2^24 may never be.
func SampleBy(weights []float64) (cdf, logq []float32, err error) {
	total := 0.0
	for i, w := range weights {
		if !(w > 0 && w <= math.MaxFloat64) {
			return nil, nil, fmt.Errorf("program: weight %d is %v: want it finite and above 0", i, w)
		}
		total += w
	}
	if len(weights) == 0 || len(weights) > maxIndex || math.IsInf(total, 0) {
		return nil, nil, fmt.Errorf("program: %d weights that sum to %v: want 1 to %d and a finite sum", len(weights), total, maxIndex)
	}
	cdf, logq = make([]float32, len(weights)), make([]float32, len(weights))
	sum := 0.0
	for i, w := range weights {
		sum += w
		cdf[i], logq[i] = float32(min(sum/total, 1)), float32(math.Log(w/total))
	}
	cdf[len(cdf)-1] = 1
	return cdf, logq, nil
}
