package mock

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func check(t *testing.T, dir string) *Report {
	t.Helper()
	r, err := Check(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func effect(t *testing.T, r *Report, group, name string) Effect {
	t.Helper()
	for _, f := range r.Effects {
		if f.Group == group && strings.Contains(f.Name, name) {
			return f
		}
	}
	t.Fatalf("no effect %s %s", group, name)
	return Effect{}
}

// TestEffectsAreFound on several seeds at the default size, each and every one. Short tests do one.
func TestEffectsAreFound(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		r := check(t, write(t, Options{Seed: seed}))
		for _, f := range r.Effects {
			if f.Verdict == Off || f.Verdict == Missing {
				t.Errorf("seed %d: %+v", seed, f)
			}
		}
		if r.Found < 80 || r.Found+r.Unclear != len(r.Effects) || r.Unclear > 3 {
			t.Errorf("seed %d: %d effects found, %d unclear, of %d", seed, r.Found, r.Unclear, len(r.Effects))
		}
		if testing.Short() {
			break
		}
	}
}

// TestNothingIsFoundThatIsNotThere: with a truth that says otherwise, the same data fail, effect by effect.
func TestNothingIsFoundThatIsNotThere(t *testing.T) {
	d, err := readShop(context.Background(), write(t, Options{Seed: 1, Rows: 250_000}))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(d.truth)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		group, name string
		lie         func(*Truth)
		want        Verdict
	}{
		{"toys", "price elasticity", func(t *Truth) { t.Categories[3].Elasticity = -3.5 }, Off},
		{"toys", "price elasticity", func(t *Truth) { t.Categories[3].Elasticity = 1.5 }, Missing}, // of the other sign
		{"garden", "week", func(t *Truth) { t.Categories[6].Weekly = [7]float64{2, 1, .3, 1, 1, 1, .7} }, Off},
		{"garden", "year", func(t *Truth) { t.Categories[6].PeakDay -= 182 }, Missing},
		{"books", "Christmas", func(t *Truth) { t.Categories[2].Christmas *= 3 }, Off},
		{"shop", "trend", func(t *Truth) { t.Trend = .8 }, Missing},
		{"shop", "promotion", func(t *Truth) { t.Promotion = 2.5 }, Off},
		{"shop", "Black Friday", func(t *Truth) { t.Holidays[len(t.Holidays)-3].Factor *= 4 }, Off},
		{"rules", "", func(t *Truth) { t.Rules[0].Then = t.Rules[1].Then }, Off}, // tastes bring some of it
		{"rules", "", func(t *Truth) { t.Rules[0].Probability = .9 }, Off},
		{"rhythm", "of 28", func(t *Truth) {
			for i := range t.Rhythms {
				if t.Rhythms[i].Days == 10 {
					t.Rhythms[i].Days = 28
				}
			}
		}, Off},
		{"influence", "a follower", func(t *Truth) { t.Influence.Probability = .3 }, Off},
		{"influence", "days", func(t *Truth) { t.Influence.MeanLag = 9 }, Off},
		{"returns", "zip 1000", func(t *Truth) { t.Returns.Rates[0].Rate *= 2 }, Off},
		{"taste", "rating", func(t *Truth) { t.Rating.Slope = -.5 }, Missing},
		{"fraud", "large_amount lines", func(t *Truth) { t.FraudLines["large_amount"]++ }, Off},
		{"fraud", "stolen_card, times", func(t *Truth) { t.FraudTimes = 12 }, Off},
		{"fraud", "share", func(t *Truth) { t.BadStoreShare = .3 }, Off},
	} {
		var truth Truth
		if err := json.Unmarshal(text, &truth); err != nil {
			t.Fatal(err)
		}
		if c.name == "Black Friday" && truth.Holidays[len(truth.Holidays)-3].Name != c.name {
			t.Fatalf("the holidays are %+v", truth.Holidays)
		}
		c.lie(&truth)
		lied := *d
		lied.truth, lied.products, lied.categories = truth, nil, nil
		if err := lied.readProducts(); err != nil {
			t.Fatal(err)
		}
		step := checks[c.group]
		if step == nil {
			step = checkDemand
		}
		if f := effect(t, &Report{Effects: step(&lied)}, c.group, c.name); f.Verdict != c.want {
			t.Errorf("%s %s: %+v, want %s", c.group, c.name, f, c.want)
		}
	}
}

// checks are those of the groups that are not a regression's.
var checks = map[string]func(*shopData) []Effect{"rules": checkRules, "rhythm": checkRhythms,
	"influence": checkInfluence, "returns": checkReturns,
	"taste": checkRatings, "fraud": checkFrauds}

// TestTasteNeedsItsUsers: with the vectors handed to other users, purchases explain nothing of them.
func TestTasteNeedsItsUsers(t *testing.T) {
	dir := write(t, Options{Seed: 1, Rows: 120_000, Users: 400})
	d, err := readShop(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if f := checkTaste(d)[0]; f.Verdict != Found {
		t.Errorf("%+v", f)
	}
	for i := range d.lines {
		d.lines[i].user = int32((int(d.lines[i].user) + 17) % len(d.users))
	}
	if f := checkTaste(d)[0]; f.Verdict != Missing {
		t.Errorf("with other users: %+v", f)
	}
}

// TestStockoutsSellNothing: a sale on a day without stock is seen.
func TestStockoutsSellNothing(t *testing.T) {
	dir := write(t, Options{Seed: 1, Rows: 60_000})
	d, err := readShop(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{Effects: checkDemand(d)}
	if f := effect(t, r, "stock", "units sold"); f.Verdict != Found || f.Measured != 0 {
		t.Errorf("%+v", f)
	}
	for i := range d.lines {
		if l := &d.lines[i]; d.regular(int(l.product)) && l.genuine() && !d.calendar[l.day].closed {
			d.out[int(l.product)*d.days+int(l.day)] = true
			break
		}
	}
	r = &Report{Effects: checkDemand(d)}
	if f := effect(t, r, "stock", "units sold"); f.Verdict != Off || f.Measured == 0 {
		t.Errorf("with a sale: %+v", f)
	}
}

// TestRegression against the model that made the data, without noise: counts that are exactly the expected ones.
func TestRegression(t *testing.T) {
	r := &regression{names: []string{"a", "b"}}
	want := []float64{.7, -1.3}
	g := newDice(3).of(forStock, 0, 0)
	for p := range 5 {
		rows := fitRows{product: p}
		for range 200 {
			x := []float64{g.NormFloat64(), float64(g.IntN(2))}
			y := math.Exp(3 + .5*float64(p) + dot(x, want))
			rows.x, rows.y, rows.total = append(rows.x, x), append(rows.y, y), rows.total+y
		}
		r.products = append(r.products, rows)
	}
	r.fit()
	for i, b := range r.beta {
		if !(math.Abs(b-want[i]) < 1e-4) { // the prior pulls a little
			t.Errorf("coefficient %s is %g, want %g", r.names[i], b, want[i])
		}
	}
	// Errors of a conditional Poisson with dispersion 1: the inverse of the information, here by differences.
	const h = 1e-4
	up, _, _ := r.likelihood([]float64{r.beta[0] + h, r.beta[1]})
	mid, _, _ := r.likelihood(r.beta)
	down, _, _ := r.likelihood([]float64{r.beta[0] - h, r.beta[1]})
	_, _, hess := r.likelihood(r.beta)
	if second := -(up - 2*mid + down) / (h * h); !(math.Abs(second/hess[0][0]-1) < 1e-3) {
		t.Errorf("second derivative %g, by differences %g", hess[0][0], second)
	}
	inv := inverse(hess)
	for i := range hess {
		for j := range hess {
			got := 0.0
			for k := range hess {
				got += hess[i][k] * inv[k][j]
			}
			if !(math.Abs(got-float64(flag(i == j))) < 1e-9) {
				t.Errorf("the inverse times the matrix has %g at %d, %d", got, i, j)
			}
		}
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		planted, null float64
		e             estimate
		want          Verdict
	}{
		{1, 0, estimate{1.05, .02, 0}, Found},
		{1, 0, estimate{1.2, .02, 0}, Off},
		{1, 0, estimate{1.2, .02, .15}, Found},
		{1, 0, estimate{.05, .02, 0}, Missing},
		{1, 0, estimate{-1, .02, 0}, Missing},
		{-1, 0, estimate{-1, .02, 0}, Found},
		{1, 0, estimate{.5, .2, 0}, Unclear},
		{1, 0, estimate{1.1, .2, 0}, Found},
		{1, 0, estimate{1, math.NaN(), 0}, Unclear},
		{1, 0, estimate{math.Inf(1), 1, 0}, Unclear},
		{1, 0, estimate{1, 300, 0}, Unclear},
		{5, 1, estimate{1.1, .1, 0}, Missing},
	} {
		if f := judge("", "", c.planted, c.null, c.e, ""); f.Verdict != c.want || !finite(f.Measured, f.Low, f.High) {
			t.Errorf("planted %g, measured %+v: %+v, want %s", c.planted, c.e, f, c.want)
		}
	}
}

func TestDayMedian(t *testing.T) {
	if v, _ := dayMedian([]float64{9, 10, 10, 10, 10, 11}); v != 10 {
		t.Errorf("median %g, want 10", v)
	}
	if v, _ := dayMedian([]float64{9, 10, 11, 11, 11, 11}); v != 10.75 {
		t.Errorf("median %g, want 10.75", v)
	}
	if v, _ := dayMedian(nil); v == v {
		t.Errorf("the median of nothing is %g", v)
	}
}

func TestCheckOfOtherData(t *testing.T) {
	dir := write(t, Options{Rows: 500, Days: 10})
	for _, c := range []struct {
		file, text, want string
	}{
		{TruthFile, "{", "cannot be read"},
		{TruthFile, "{}", "it is not that of a shop"},
		{TruthFile, "", "has no truth.json: it is not a shop that onmart mock made"},
		{UsersFile, "", "users.parquet"},
		{CalendarFile, "not Parquet", "calendar.parquet"},
	} {
		path := filepath.Join(dir, c.file)
		kept, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if c.text != "" {
			if err := os.WriteFile(path, []byte(c.text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Check(context.Background(), dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v, want %q", c.file, c.text, err, c.want)
		}
		if err := os.WriteFile(path, kept, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	// A table of another schema.
	other, err := os.ReadFile(filepath.Join(dir, StoresFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, UsersFile), other, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(context.Background(), dir); err == nil || !strings.Contains(err.Error(),
		"users.parquet: column user_id") {
		t.Errorf("%v", err)
	}
	if _, err := Check(context.Background(), t.TempDir()); err == nil {
		t.Error("an empty directory was checked")
	}
}
