package train

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func close(t interface{ Errorf(string, ...any) }, what string, got, want, tol float64) {
	if !(math.Abs(got-want) <= tol) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

// Worked by hand: scores .9+ .8- .8+ .3+ .1-.
var (
	handY = []bool{true, false, true, true, false}
	handS = []float64{.9, .8, .8, .3, .1}
)

func TestMetricsByHand(t *testing.T) {
	// Pairs: .9 beats both (2); .8 ties one and beats one (1.5); .3 beats one (1): 4.5 of 6.
	close(t, "AUC", AUC(handY, handS), 4.5/6, 1e-15)
	// Steps: (1/3) 1/1, then .8 together (1/3) 2/3, then (1/3) 3/4.
	close(t, "AP", AveragePrecision(handY, handS), (1+2./3+3./4)/3, 1e-15)
	p := []float64{.5, .25, 1}
	y := []bool{true, false, true}
	close(t, "log loss", LogLoss(y, p), (math.Ln2-math.Log(.75))/3, 1e-12)
	close(t, "Brier", Brier(y, p), (.25+.0625)/3, 1e-15)
	close(t, "log loss of a certain mistake", LogLoss([]bool{true}, []float64{0}), 52*math.Ln2, 1e-12)
	bins := Reliability(y, p, 2)
	want := []Bin{{0, .5, 1, .25, 0}, {.5, 1, 2, .75, 1}}
	for i := range want {
		if bins[i] != want[i] {
			t.Errorf("bin %d = %+v, want %+v", i, bins[i], want[i])
		}
	}
	close(t, "ECE", ECE(bins), (.25+2*.25)/3, 1e-15)
}

func TestMetricsUndefined(t *testing.T) {
	for name, v := range map[string]float64{
		"AUC of one class":    AUC([]bool{true, true}, []float64{1, 2}),
		"AUC of nothing":      AUC(nil, nil),
		"AP without positive": AveragePrecision([]bool{false}, []float64{1}),
		"log loss of nothing": LogLoss(nil, nil),
		"Brier of nothing":    Brier(nil, nil),
		"ECE of nothing":      ECE(Reliability(nil, nil, 3)),
	} {
		if !math.IsNaN(v) {
			t.Errorf("%s = %v, want NaN", name, v)
		}
	}
	if ROC([]bool{true}, []float64{1}) != nil || PR([]bool{false}, []float64{1}) != nil {
		t.Error("curves of one class are not empty")
	}
}

// sample draws rows with many ties and both classes.
func sample(t *rapid.T) (y []bool, s []float64) {
	y = rapid.SliceOfN(rapid.Bool(), 2, 40).Draw(t, "y")
	y[0], y[1] = true, false
	s = make([]float64, len(y))
	for i := range s {
		s[i] = float64(rapid.IntRange(0, 12).Draw(t, "s")) / 12
	}
	return y, s
}

func TestMetricsAgainstDefinitions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y, s := sample(t)
		var wins, pairs float64
		for i := range y {
			for j := range y {
				if y[i] && !y[j] {
					pairs++
					if s[i] > s[j] {
						wins++
					} else if s[i] == s[j] {
						wins += .5
					}
				}
			}
		}
		close(t, "AUC", AUC(y, s), wins/pairs, 1e-14)
		// Average precision by its definition over every threshold there is, lowest recall first.
		at := func(threshold float64) (recall, precision float64) {
			var tp, n, pos float64
			for i := range y {
				if y[i] {
					pos++
				}
				if s[i] >= threshold {
					n++
					if y[i] {
						tp++
					}
				}
			}
			return tp / pos, tp / math.Max(n, 1)
		}
		var ap, last float64
		for k := 12; k >= 0; k-- {
			r, p := at(float64(k) / 12)
			ap += (r - last) * p
			last = r
		}
		close(t, "AP", AveragePrecision(y, s), ap, 1e-14)

		// The area under our ROC points is the AUC: nothing needed was left out.
		var area float64
		roc := ROC(y, s)
		for i := 1; i < len(roc); i++ {
			area += (roc[i].X - roc[i-1].X) * (roc[i].Y + roc[i-1].Y) / 2
		}
		close(t, "area under ROC", area, wins/pairs, 1e-14)
		if a, z := roc[0], roc[len(roc)-1]; a.X != 0 || a.Y != 0 || z.X != 1 || z.Y != 1 {
			t.Errorf("ROC goes from %v to %v", a, z)
		}
		pr := PR(y, s)
		for _, p := range pr {
			r, prec := at(p.Threshold)
			close(t, "recall", p.X, r, 1e-15)
			close(t, "precision", p.Y, prec, 1e-15)
		}
		// Each step up in recall is there: their sum is the average precision.
		ap, last = 0, 0
		for _, p := range pr {
			ap += (p.X - last) * p.Y
			last = p.X
		}
		close(t, "AP over PR", ap, AveragePrecision(y, s), 1e-14)
		close(t, "recall at the end", last, 1, 0)
	})
}

func TestCurvesDropInnerPoints(t *testing.T) {
	y := []bool{true, true, true, false, false, false, true}
	s := []float64{7, 6, 5, 4, 3, 2, 1}
	if n := len(ROC(y, s)); n != 4 {
		t.Errorf("ROC has %d points, want 4: %v", n, ROC(y, s))
	}
	if n := len(PR(y, s)); n != 5 {
		t.Errorf("PR has %d points, want 5: %v", n, PR(y, s))
	}
}

func TestThin(t *testing.T) {
	var points []Point
	for i := range 10_001 {
		points = append(points, Point{X: float64(i) / 10_000})
	}
	got := Thin(points, 101)
	if len(got) < 90 || len(got) > 101 || got[0] != points[0] || got[len(got)-1] != points[10_000] {
		t.Errorf("thinned to %d points from %v to %v", len(got), got[0], got[len(got)-1])
	}
	if same := Thin(points[:1], 2); len(same) != 1 {
		t.Errorf("thinned one point to %v", same)
	}
	flat := Thin(make([]Point, 50), 10) // no length at all
	if len(flat) < 2 || len(flat) > 50 {
		t.Errorf("thinned 50 equal points to %d", len(flat))
	}
}
