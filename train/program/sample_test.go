package program

import (
	"math"
	"slices"
	"testing"
)

// TestSampleBy draws by the definition of Sample and counts.
func TestSampleBy(t *testing.T) {
	weights := make([]float64, 1000)
	total := 0.0
	for i := range weights {
		weights[i] = 1 / float64(i+1)
		total += weights[i]
	}
	cdf, logq, err := SampleBy(weights)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(cdf) || cdf[999] != 1 {
		t.Fatalf("it ends in %v", cdf[990:])
	}
	const draws = 400_000
	count := make([]float64, len(weights))
	for j := range uint64(draws / 4) {
		for _, u := range Uniforms4(1, 2, 3, j) {
			at, _ := slices.BinarySearchFunc(cdf, u, func(c, u float32) int {
				if c > u {
					return 1
				}
				return -1
			})
			count[at]++
		}
	}
	for i, n := range count {
		p := weights[i] / total
		if !(math.Abs(n-draws*p) <= 5.5*math.Sqrt(draws*p)) {
			t.Errorf("item %d is drawn %v times, want about %v", i, n, draws*p)
		}
		if !(math.Abs(float64(logq[i])-math.Log(p)) <= 1e-6) {
			t.Errorf("logq of item %d is %v, want %v", i, logq[i], math.Log(p))
		}
	}
	for _, bad := range [][]float64{nil, {1, 0}, {-1}, {math.NaN()}, {math.Inf(1)}, {math.MaxFloat64, math.MaxFloat64}} {
		if _, _, err := SampleBy(bad); err == nil {
			t.Errorf("weights %v were taken", bad)
		}
	}
	if cdf, logq, err := SampleBy([]float64{3}); err != nil || cdf[0] != 1 || logq[0] != 0 {
		t.Errorf("one item: %v, %v, %v", cdf, logq, err)
	}
}
