package baseline

import (
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train"
)

// planted makes rows where feature 0 drives the label, feature 1 matters only in its tail, feature 2 is
// noise.
func planted(n int, seed uint64) (x [][]float64, y []bool) {
	r := rand.New(rand.NewPCG(seed, 1))
	x = [][]float64{make([]float64, n), make([]float64, n), make([]float64, n)}
	y = make([]bool, n)
	for i := range n {
		for f := range x {
			x[f][i] = r.NormFloat64()
		}
		if r.Float64() < .02 {
			x[1][i] += 6
		}
		y[i] = r.Float64() < sigmoid(2*x[0][i]-5) || x[1][i] > 4
	}
	return x, y
}

func TestBaselinesLearn(t *testing.T) {
	x, y := planted(30_000, 1)
	z, truth := planted(5_000, 2)
	for _, m := range All() {
		note, err := m.Fit(x, y, 7)
		if err != nil {
			t.Fatal(m.Name(), err)
		}
		s, err := m.Score(z)
		if err != nil {
			t.Fatal(m.Name(), err)
		}
		auc := train.AUC(truth, s)
		t.Logf("%s: AUC %.3f, log loss %.4f, %s", m.Name(), auc, train.LogLoss(truth, s), note)
		least := map[string]float64{"logistic_regression": .89, "cart": .88, "isolation_forest": .75}[m.Key()]
		if !(auc >= least) {
			t.Errorf("%s: AUC %v, want at least %v", m.Name(), auc, least)
		}
		if m.Probabilities() {
			if ece := train.ECE(train.Reliability(truth, s, 10)); !(ece <= .02) {
				t.Errorf("%s: probabilities are off by %v", m.Name(), ece)
			}
		}
		if (m.Key() == "logistic_regression") != (note == "") {
			t.Errorf("%s: note %q", m.Name(), note)
		}
	}
}

func TestSeedsFixTheModel(t *testing.T) {
	x, y := planted(25_000, 3)
	z, _ := planted(500, 4)
	for i, m := range All() {
		var got [3][]float64
		for k, seed := range []uint64{1, 1, 2} {
			m := All()[i]
			if _, err := m.Fit(x, y, seed); err != nil {
				t.Fatal(err)
			}
			got[k], _ = m.Score(z)
		}
		if !slices.Equal(got[0], got[1]) {
			t.Errorf("%s: two fits with one seed differ", m.Name())
		}
		if m.Key() == "isolation_forest" && slices.Equal(got[0], got[2]) {
			t.Errorf("%s: the seed does nothing", m.Name())
		}
	}
}

func TestForestNeverSeesTheLabel(t *testing.T) {
	x, y := planted(2_000, 5)
	var got [2][]float64
	for k := range got {
		m := &Forest{}
		if _, err := m.Fit(x, y, 1); err != nil {
			t.Fatal(err)
		}
		got[k], _ = m.Score(x)
		for i := range y {
			y[i] = !y[i]
		}
	}
	if !slices.Equal(got[0], got[1]) {
		t.Error("scores follow the labels")
	}
}

// The optimum of logistic regression is where the gradient of its loss is zero.
func TestLogisticIsAtTheOptimum(t *testing.T) {
	x, y := planted(3_000, 6)
	m := &Logistic{}
	if _, err := m.Fit(x, y, 0); err != nil {
		t.Fatal(err)
	}
	at := func(w []float64) float64 {
		z := make([]float64, len(y))
		logits(x, w, z)
		return penalizedLoss(z, y, w)
	}
	for k := range m.w {
		const h = 1e-4
		up, down := slices.Clone(m.w), slices.Clone(m.w)
		up[k] += h
		down[k] -= h
		if slope := (at(up) - at(down)) / (2 * h); !(math.Abs(slope) <= 1e-3) {
			t.Errorf("slope %v in weight %d", slope, k)
		}
	}
}

func TestLogisticOnSeparableRows(t *testing.T) {
	m := &Logistic{}
	if _, err := m.Fit([][]float64{{-1, -2, 1, 2}, {1, 1, 1, 1}}, []bool{false, false, true, true}, 0); err != nil {
		t.Fatal(err)
	}
	if s, err := m.Score([][]float64{{-3, 3}, {1, 1}}); err != nil || !(s[0] < .3 && s[1] > .7) {
		t.Error(s, err)
	}
}

func TestTreeCountsItsLeavesOverAllRows(t *testing.T) {
	// A feature with two values: the leaves' shares are those of the data, whatever was sampled.
	n := 40_000
	x, y := [][]float64{make([]float64, n)}, make([]bool, n)
	for i := range n {
		x[0][i] = float64(i % 2)
		y[i] = i%100 == 1 // 1 in 50 where x is 1, never where it is 0
	}
	m := &Tree{}
	if _, err := m.Fit(x, y, 1); err != nil {
		t.Fatal(err)
	}
	s, err := m.Score([][]float64{{0, 1}})
	if err != nil || !(math.Abs(s[0]) <= 1e-4 && math.Abs(s[1]-.02) <= 1e-4) {
		t.Error(s, err)
	}
}

func TestTreeOfConstantFeatures(t *testing.T) {
	m := &Tree{}
	if _, err := m.Fit([][]float64{{1, 1, 1, 1}}, []bool{true, false, false, false}, 1); err != nil {
		t.Fatal(err)
	}
	if s, err := m.Score([][]float64{{1, 5}}); err != nil || !(math.Abs(s[0]-.25) <= 1e-9) {
		t.Error(s, err)
	}
}

func TestCutsFollowRowsAndValues(t *testing.T) {
	column := make([]float64, 100_000) // nearly all 0
	for i := range 100 {
		column[i] = float64(i + 1)
	}
	c := cuts(column)
	if len(c) < 14 || len(c) >= treeLevels || !slices.IsSorted(c) {
		t.Errorf("cuts %v", c)
	}
	if got := cuts([]float64{1, 3, 1, 3, 7}); !slices.Equal(got, []float64{2, 5}) {
		t.Errorf("cuts %v, want between the values", got)
	}
	if level(c, -1) != 0 || level(c, 1e9) != float64(len(c)) {
		t.Error("levels do not span the cuts")
	}
}

func TestBadInput(t *testing.T) {
	for _, m := range All() {
		for name, in := range map[string]struct {
			x [][]float64
			y []bool
		}{
			"nothing":        {nil, nil},
			"no rows":        {[][]float64{{}}, []bool{}},
			"NaN":            {[][]float64{{1, math.NaN()}}, []bool{true, false}},
			"infinity":       {[][]float64{{1, math.Inf(1)}}, []bool{true, false}},
			"ragged":         {[][]float64{{1, 2}, {1}}, []bool{true, false}},
			"missing labels": {[][]float64{{1, 2}}, []bool{true}},
		} {
			if _, err := m.Fit(in.x, in.y, 1); err == nil || !strings.HasPrefix(err.Error(), "baseline: ") {
				t.Errorf("%s: %s: %v", m.Name(), name, err)
			}
		}
		if _, err := m.Fit([][]float64{{1, 2}}, []bool{true, true}, 1); (err == nil) != (m.Key() == "isolation_forest") {
			t.Errorf("%s: one class: %v", m.Name(), err)
		}
		if _, err := m.Fit([][]float64{{1, 2, 3}}, []bool{true, false, false}, 1); err != nil {
			t.Errorf("%s: one feature: %v", m.Name(), err)
		}
		if _, err := m.Score([][]float64{{1}, {2}, {3}}); err == nil {
			t.Errorf("%s: scores rows of other features", m.Name())
		}
	}
}

func TestAPanicIsAnError(t *testing.T) {
	err := func() (err error) {
		defer recovered("the model", &err)
		panic("boom")
	}()
	if err == nil || !strings.Contains(err.Error(), "boom") {
		t.Error(err)
	}
}

func TestNothingIsPrinted(t *testing.T) {
	old := os.Stdout
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = w
	x, y := planted(500, 8)
	for _, m := range All() {
		if _, err := m.Fit(x, y, 1); err != nil {
			t.Error(err)
		}
		if _, err := m.Score(x); err != nil {
			t.Error(err)
		}
	}
	os.Stdout = old
	w.Close()
	if out, _ := io.ReadAll(r); len(out) > 0 {
		t.Errorf("printed %q", out)
	}
}
