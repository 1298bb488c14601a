package demand

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/onmart/onmart/forecast"
	"github.com/onmart/onmart/score/model/forecaster"
)

// madeFolds are cases whose actual is a known mixture of the members, with noise.
func madeFolds(r *rand.Rand, members int, mix []float64, noise float64) []foldCase {
	var out []foldCase
	for i := range 60 {
		c := foldCase{fold: i % 3, series: i, weight: 1, scale: 1 + r.Float64()}
		c.abs, c.square = c.scale, c.scale*c.scale
		c.points = make([][]float64, members)
		for range 20 {
			var y float64
			for k := range members {
				v := 10 + 5*r.NormFloat64()
				c.points[k] = append(c.points[k], v)
				y += mix[k] * v
			}
			c.actual = append(c.actual, y+noise*r.NormFloat64())
			c.parts = append(c.parts, 0)
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b foldCase) int { return a.fold - b.fold })
	return out
}

// TestWeightsAreFound: both objectives find the mixture that made the data, and a member that is no use gets nothing.
func TestWeightsAreFound(t *testing.T) {
	want := []float64{.6, .4, 0}
	cases := madeFolds(rand.New(rand.NewPCG(3, 1)), 3, want, .5)
	for name, fit := range map[string]func([]foldCase, int) []float64{"squares": fitSquares, "absolute": fitAbsolute} {
		w := fit(cases, 3)
		var sum float64
		for k := range w {
			if sum += w[k]; !(math.Abs(w[k]-want[k]) < .03) || w[k] < 0 {
				t.Errorf("%s: weights %v, want %v", name, w, want)
				break
			}
		}
		if !(math.Abs(sum-1) < 1e-9) {
			t.Errorf("%s: weights sum to %v", name, sum)
		}
	}
}

// TestLeastOnSimplex agrees with a search over a grid.
func TestLeastOnSimplex(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	for range 20 {
		cases := madeFolds(r, 3, []float64{r.Float64(), r.NormFloat64(), r.Float64()}, 3)
		g := make([]float64, 16)
		for i := range cases {
			for k, v := range cases[i].gram(3) {
				g[k] += v
			}
		}
		got, least := quadratic(g, leastOnSimplex(g, 3)), math.Inf(1)
		for a := 0.; a <= 1; a += .02 {
			for b := 0.; a+b <= 1; b += .02 {
				least = math.Min(least, quadratic(g, []float64{a, b, 1 - a - b}))
			}
		}
		if !(got <= least*(1+1e-6)) {
			t.Fatalf("squared error %v, on the grid %v", got, least)
		}
	}
}

// TestMixtureCovers: quantiles of pooled errors cover what they say, on cases that they were not made of.
func TestMixtureCovers(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 1))
	m := &forecaster.Model{
		Design: forecaster.Design{Step: forecast.Day, Scaling: forecaster.Shift, Horizon: 20, Seasons: []int{7}},
		Members: []string{
			"ets",
			"theta",
		}, Spreads: []string{forecaster.Errors}, Point: forecaster.PointMedian, Levels: []float64{.1, .5, .9}, Signed: true,
	}
	made := func() []foldCase {
		cases := madeFolds(r, 2, []float64{.5, .5}, 0)
		for i := range cases {
			c := &cases[i]
			c.spreads = make([][][]float64, 1)
			for k := range c.actual {
				c.actual[k] += c.scale * r.NormFloat64()
			}
		}
		return cases
	}
	x := fitMixture(m, made(), 2)
	open := make([]bool, 20)
	for i := range open {
		open[i] = true
	}
	var below [3]float64
	n := 0.
	for _, c := range made() {
		f := m.Mix(x, c.points, c.spreads, open, c.scale)
		for t, a := range c.actual {
			for l := range m.Levels {
				if a <= f.Quantiles[l][t] {
					below[l]++
				}
			}
			n++
		}
	}
	for l, q := range m.Levels {
		if got := below[l] / n; !(math.Abs(got-q) < .05) {
			t.Errorf("%v of what came is at or below the quantile %v", got, q)
		}
	}
}

// TestShrunk: weights that suit their own folds alone give way to the best member, weights that suit all do not.
func TestShrunk(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 1))
	squares := func(c []foldCase) []float64 { return fitSquares(c, 3) }
	good := foldsOf(madeFolds(r, 3, []float64{.5, .5, 0}, .5))
	if w := shrunk(good, 3, squares, squaresLoss); !(math.Abs(w[0]-.5) < .05) || !(math.Abs(w[1]-.5) < .05) {
		t.Errorf("a mixture of halves: %v", w)
	}
	// Member 0 is right everywhere; what each fold would give the others differs from fold to fold.
	cases := madeFolds(r, 3, []float64{1, 0, 0}, 4)
	for i := range cases {
		c := &cases[i]
		for k := range c.actual {
			c.points[1][k] = c.actual[k] + float64(10*(c.fold-1))
		}
	}
	folds := foldsOf(cases)
	if got, plain := squaresLoss(cases, shrunk(folds, 3, squares, squaresLoss)), squaresLoss(cases, []float64{1, 0, 0}); !(got <= plain*1.0001) {
		t.Errorf("the loss is %v, of the best member alone %v", got, plain)
	}
}
