package fraud

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"pgregory.net/rapid"
)

func TestSettings(t *testing.T) {
	c := DefaultConfig()
	if err := c.Set([]string{"hidden=64, 32", "towers=2", "schedule=cosine", "log=false", "learning_rate=1e-3"}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Hidden, []int{64, 32}) || c.Towers != 2 || c.Schedule != "cosine" || c.Log || c.LearningRate != 1e-3 {
		t.Errorf("%+v", c)
	}
	err := c.Set([]string{"hiden=3", "dropout=1.5", "towers=0", "batch", "epochs=x", "hidden=0", "hidden=", "schedule=step", "activation=tanh", "log=maybe", "learning_rate=NaN"})
	if err == nil {
		t.Fatal("no fault")
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 11 {
		t.Errorf("%d faults of 11:\n%v", len(lines), err)
	}
	// Each setting reads back what it prints, and the default is in its bounds.
	d, e := DefaultConfig(), DefaultConfig()
	for _, s := range Settings() {
		if err := e.Set([]string{s.Name + "=" + s.Value(&d)}); err != nil {
			t.Error(err)
		}
		if s.Value(&e) != s.Value(&d) || s.Words == "" {
			t.Errorf("%s: %s became %s", s.Name, s.Value(&d), s.Value(&e))
		}
	}
}

func TestPlattFindsThePlantedMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	n := 50_000
	z, y := make([]float64, n), make([]bool, n)
	for i := range z {
		z[i] = 3 * r.NormFloat64()
		y[i] = r.Float64() < 1/(1+math.Exp(-(.6*z[i]-2)))
	}
	a, b, err := platt(z, y)
	if err != nil || !(math.Abs(a-.6) <= .03 && math.Abs(b+2) <= .08) {
		t.Errorf("a %v, b %v, %v; want 0.6 and -2", a, b, err)
	}
	for i := range z {
		z[i] = -z[i]
	}
	if _, _, err := platt(z, y); err == nil {
		t.Error("logits that rank backwards were calibrated")
	}
	if _, _, err := platt(z, make([]bool, n)); err == nil {
		t.Error("one class was calibrated")
	}
}

// The fit is the minimum of the smoothed loss: no neighbour is lower, also where the classes separate.
func TestPlattIsAMinimum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 60).Draw(t, "n")
		z, y := make([]float64, n), make([]bool, n)
		for i := range z {
			z[i] = rapid.Float64Range(-30, 30).Draw(t, "z")
			y[i] = rapid.Bool().Draw(t, "y")
		}
		y[0], y[1] = true, false
		a, b, err := platt(z, y)
		if err != nil {
			return
		}
		pos := 0.0
		for _, v := range y {
			pos += float64(btoi(v))
		}
		loss := func(a, b float64) (sum float64) {
			for i, v := range z {
				target := 1 / (float64(n) - pos + 2)
				if y[i] {
					target = (pos + 1) / (pos + 2)
				}
				p := 1 / (1 + math.Exp(-(a*v + b)))
				sum -= target*math.Log(math.Max(p, 1e-300)) + (1-target)*math.Log(math.Max(1-p, 1e-300))
			}
			return sum
		}
		at := loss(a, b)
		for _, d := range [][2]float64{{.01, 0}, {-.01, 0}, {0, .01}, {0, -.01}, {.01, .01}, {-.01, -.01}} {
			if near := loss(a+d[0], b+d[1]); near < at-1e-6*math.Abs(at) {
				t.Errorf("loss %v at (%v, %v), %v beside it", at, a, b, near)
			}
		}
	})
}

func TestThresholdKeepsTheBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := make([]float64, rapid.IntRange(1, 50).Draw(t, "n"))
		for i := range p {
			p[i] = float64(rapid.IntRange(0, 9).Draw(t, "p")) / 10
		}
		perDay := rapid.Float64Range(.1, 10).Draw(t, "per day")
		days := float64(rapid.IntRange(1, 7).Draw(t, "days"))
		alerts := func(at float64) (n int) {
			for _, v := range p {
				n += btoi(v >= at)
			}
			return n
		}
		at := threshold(p, perDay, days)
		budget := int(perDay * days)
		if n := alerts(at); n > budget {
			t.Errorf("%d alerts for a budget of %d", n, budget)
		}
		// The next lower score would break it.
		lower := -1.0
		for _, v := range p {
			if v < at {
				lower = max(lower, v)
			}
		}
		if lower >= 0 && alerts(lower) <= budget {
			t.Errorf("threshold %v, but %v keeps the budget of %d too", at, lower, budget)
		}
		if at < 0 || at > 1 {
			t.Errorf("threshold %v is no probability", at)
		}
	})
}

func TestSplit(t *testing.T) {
	day := datasets.Day
	for _, c := range []struct {
		days, delay      int64
		fit, gap, length int64
	}{
		{61, 7, 41, 7, 13}, // two months: the delay fits
		{7, 7, 4, 1, 2},    // a week: it does not
		{7, 0, 5, 0, 2},
		{14, 7, 7, 4, 3},
		{4, 7, 2, 1, 1},
	} {
		r := datasets.Range{From: day0, To: day0 + c.days*day}
		s, err := split(r, c.delay*day)
		if err != nil {
			t.Fatal(err)
		}
		if s.Fit.From != r.From || s.Fit.To != day0+c.fit*day || s.Gap != c.gap*day || s.Valid.To != r.To || s.Valid.From != r.To-c.length*day {
			t.Errorf("%d days, delay %d: fit %v, gap %d, valid %v", c.days, c.delay, s.Fit, s.Gap/day, s.Valid)
		}
	}
	if s, err := split(datasets.Range{From: day0, To: day0 + 2*day}, 7*day); err != nil || s.Valid.To-s.Valid.From != 10*datasets.Hour {
		t.Errorf("two days are split by the hour: %v, %v", s, err)
	}
	if _, err := split(datasets.Range{From: 0, To: 100}, 0); err == nil {
		t.Error("an instant was split")
	}
}

func TestStandardIsWhatTheProgramDoes(t *testing.T) {
	rows := &Rows{
		Time: make([]int64, 5000), Features: []string{"amount", "flat", "plain"},
		Values: [][]float64{make([]float64, 5000), make([]float64, 5000), make([]float64, 5000)},
	}
	r := rand.New(rand.NewPCG(2, 2))
	for i := range rows.Time {
		rows.Values[0][i] = math.Exp(3 * r.NormFloat64())
		rows.Values[1][i] = 7
		rows.Values[2][i] = 5 + r.NormFloat64()
	}
	s := newStandard(rows, []bool{true, false, false})
	if !slices.Equal(s.constant, []string{"flat"}) {
		t.Errorf("constant: %v", s.constant)
	}
	one, err := s.matrix(rows.Values, 5000, 1)
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.matrix(rows.Values, 5000, 2)
	if err != nil || !slices.Equal(one, two) {
		t.Error("threads change the matrix", err)
	}
	for f := range 3 {
		var sum, squares float64
		for i := range 5000 {
			v := float64(one[3*i+f])
			sum += v
			squares += v * v
		}
		want := 1.0
		if f == 1 {
			want = 0
		}
		if !(math.Abs(sum/5000) <= 1e-5 && math.Abs(squares/5000-want) <= 1e-4) {
			t.Errorf("feature %d: mean %v, mean square %v", f, sum/5000, squares/5000)
		}
	}
	if want := float32((math.Log1p(rows.Values[0][42]) - s.mean[0]) * s.scale[0]); one[3*42] != want {
		t.Errorf("%v, want %v", one[3*42], want)
	}
}

func TestLossesNameWhatIsBetter(t *testing.T) {
	mine := map[string]float64{"auc": .9, "average_precision": .5, "card_precision_at_100": .3}
	got := losses(mine, []BaselineResult{
		{Name: "a", Metrics: map[string]float64{"auc": .91, "average_precision": .5, "log_loss": 0}},
		{Name: "b", Metrics: map[string]float64{"auc": .8, "card_precision_at_100": .31}},
	})
	if len(got) != 2 || got[0].String() != "a: auc 0.9000 against 0.9100" || got[1].Metric != "card_precision_at_100" {
		t.Errorf("%v", got)
	}
}

// A network whose towers share nothing: each has the loss of a tower trained alone, and the output is the
// mean of theirs.
func TestTowersAreIndependent(t *testing.T) {
	c := DefaultConfig()
	c.Hidden, c.Towers, c.Batch = []int{4}, 3, 8
	set, err := c.Compile(2, 0, 20)
	if err != nil {
		t.Fatal(err)
	}
	w := set.Initial(1)
	first := w.Find("tower0/layer0.weight")
	second := w.Find("tower1/layer0.weight")
	if first == nil || second == nil || slices.Equal(first.F32, second.F32) {
		t.Error("towers start alike")
	}
	if set.Rest == nil || set.Rest.Rows != 4 {
		t.Error("20 rows in batches of 8 have no rest of 4")
	}
	art, err := artifact(set, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := art.Validate(); err != nil {
		t.Error(err)
	}
}
