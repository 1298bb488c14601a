package forecast

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// days is a panel of days from 2011-01-03 (a Monday) on.
func days(series ...[]float64) *Panel {
	p := &Panel{Step: Day}
	longest := 0
	for _, y := range series {
		longest = max(longest, len(y))
	}
	for i := range longest {
		p.Times = append(p.Times, time.Date(2011, 1, 3+i, 0, 0, 0, 0, time.UTC).UnixMicro())
	}
	for i, y := range series {
		p.Series = append(p.Series, Series{Key: fmt.Sprint("item", i), First: longest - len(y), Y: y})
	}
	return p
}

// shop makes n series of counts: a level each, a weekly pattern, Saturdays closed, and one closed holiday at day 60.
func shop(n, length int, seed uint64) *Panel {
	r := rand.New(rand.NewPCG(seed, 1))
	week := []float64{1.2, .9, .8, 1, 1.4, 0, .7}
	series := make([][]float64, n)
	for i := range series {
		level := math.Exp(r.NormFloat64() + 1)
		series[i] = make([]float64, length)
		for t := range series[i] {
			if rate := level * week[t%7]; rate > 0 && t != 60 {
				for r.ExpFloat64() < 1.5 && rate > 0 { // clumped orders
					series[i][t] += math.Floor(rate * r.ExpFloat64())
					rate -= level
				}
			}
		}
	}
	return days(series...)
}

func allMethods() []string {
	var names []string
	for _, m := range Methods() {
		names = append(names, m.Name)
	}
	return names
}

func TestHardSeriesHaveAnswers(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	noise := make([]float64, 40)
	negative := make([]float64, 40)
	for i := range noise {
		noise[i] = math.Floor(5 * r.Float64())
		negative[i] = math.Floor(9*r.Float64()) - 4
	}
	rare := make([]float64, 60)
	rare[3] = 7
	huge := make([]float64, 30)
	for i := range huge {
		huge[i] = 1e15 * (1 + r.Float64())
	}
	cases := map[string][]float64{
		"one point": {3}, "one zero": {0}, "two points": {3, 5}, "zeros": make([]float64, 50), "constant": repeat(4, 50),
		"negative": negative, "counts": noise, "one sale": rare, "last value alone": append(make([]float64, 20), 9),
		"huge": huge, "tiny": {1e-300, 2e-300, 1e-300, 3e-300, 1e-300, 1e-300, 2e-300, 1e-300},
		"ramp": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20},
	}
	for name, y := range cases {
		for _, method := range allMethods() {
			for _, h := range []int{1, 14, 200} { // 200 is longer than any of these histories
				for _, step := range []Step{Hour, Day, Week} {
					p := days(y)
					p.Step = step
					for i := range p.Times {
						if i > 0 {
							p.Times[i] = step.Next(p.Times[i-1], nil)
						}
					}
					f, err := Run(p, method, Options{Horizon: h, Levels: DefaultLevels()})
					if err != nil {
						t.Fatalf("%s, %s, %v, %d ahead: %v", name, method, step, h, err)
					}
					checkForecast(t, fmt.Sprintf("%s, %s, %v, %d ahead", name, method, step, h), &f[0], h, y)
				}
			}
		}
	}
}

func checkForecast(t *testing.T, what string, f *Forecast, h int, y []float64) {
	t.Helper()
	if len(f.Mean) != h || len(f.Quantiles) != len(DefaultLevels()) {
		t.Fatalf("%s: %d steps, %d quantiles", what, len(f.Mean), len(f.Quantiles))
	}
	most := 0.0
	for _, v := range y {
		most = max(most, math.Abs(v))
	}
	for s, v := range f.Mean {
		if !(v >= 0 && v <= 100*most+1e-9) {
			t.Fatalf("%s: mean %v at step %d of a series up to %v", what, v, s, most)
		}
		for l, q := range f.Quantiles {
			if !(q[s] >= 0) || math.IsInf(q[s], 0) || l > 0 && q[s] < f.Quantiles[l-1][s] {
				t.Fatalf("%s: quantile %d at step %d is %v", what, l, s, q[s])
			}
		}
		if most == 0 && (v != 0 || f.Quantiles[len(f.Quantiles)-1][s] != 0) {
			t.Fatalf("%s: %v expected of a series of zeros", what, v)
		}
	}
}

func TestNegativeForecastsOnlyWhereAsked(t *testing.T) {
	y := repeat(-3, 40)
	y[5] = -4
	for _, signed := range []bool{false, true} {
		f, err := Run(days(y), "naive", Options{Horizon: 3, Signed: signed})
		if err != nil {
			t.Fatal(err)
		}
		if got := f[0].Mean[0]; signed && got != -3 || !signed && got != 0 {
			t.Errorf("signed %v: %v", signed, got)
		}
	}
}

func TestFaultsAreNamed(t *testing.T) {
	good := func() *Panel { return days([]float64{1, 2, 3, 4}) }
	cases := []struct {
		name, want string
		change     func(p *Panel, o *Options)
	}{
		{"gap", "is missing", func(p *Panel, _ *Options) { p.Times[3] += 86400e6 }},
		{"duplicate", "has the time", func(p *Panel, _ *Options) { p.Times[2] = p.Times[1] }},
		{"unsorted", "before the step before it ends", func(p *Panel, _ *Options) { p.Times[2] = p.Times[0] }},
		{"nan", `"item0"`, func(p *Panel, _ *Options) { p.Series[0].Y[1] = math.NaN() }},
		{"short series", "ends where the panel ends", func(p *Panel, _ *Options) { p.Series[0].First = 2 }},
		{"empty series", "no steps", func(p *Panel, _ *Options) { p.Series[0].Y = nil }},
		{"covariate", `"price"`, func(p *Panel, _ *Options) {
			p.Covariates = []Covariate{{Name: "price"}}
			p.Series[0].X = [][]float64{{1, 2, 3, 4, 5}}
		}},
		{"step", "set forecast.Hour", func(p *Panel, _ *Options) { p.Step = 0 }},
		{"horizon", "at least one", func(_ *Panel, o *Options) { o.Horizon = 0 }},
		{"levels", "between 0 and 1", func(_ *Panel, o *Options) { o.Levels = []float64{.5, .2} }},
		{"seasons", "ascending lengths", func(_ *Panel, o *Options) { o.Seasons = []int{7, 7} }},
	}
	for _, c := range cases {
		p, o := good(), Options{Horizon: 2}
		c.change(p, &o)
		_, err := Run(p, "naive", o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := Run(good(), "prophet", Options{Horizon: 1}); err == nil || !strings.Contains(err.Error(), "croston") {
		t.Errorf("an unknown method: %v", err)
	}
}

func TestStepsOfAZone(t *testing.T) {
	zone, err := time.LoadLocation("Europe/London")
	if err != nil {
		t.Skip(err)
	}
	// The last Sunday of March has 23 hours, the last of October 25.
	p := &Panel{Step: Day, Zone: zone}
	for d := range 400 {
		p.Times = append(p.Times, time.Date(2011, 1, 1+d, 0, 0, 0, 0, zone).UnixMicro())
	}
	y := repeat(1, 400)
	p.Series = []Series{{Y: y}}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	march := time.Date(2011, 3, 27, 0, 0, 0, 0, zone).UnixMicro()
	if got := Day.Next(march, zone) - march; got != 23*3600e6 {
		t.Errorf("the day of the change has %v hours", got/3600e6)
	}
	p.Zone = nil
	if err := p.Check(); err == nil {
		t.Error("days of London pass as days of UTC")
	}
}

func TestClosedDaysAreFound(t *testing.T) {
	p := shop(40, 120, 1)
	c := FindClosed(p)
	for i, at := range append(slices.Clone(p.Times), p.Future(21)...) {
		if want := i%7 == 5 || i == 60; c.At(at) != want {
			t.Errorf("day %d: closed %v", i, c.At(at))
		}
	}
	if s := c.String(); !strings.Contains(s, "Saturdays") || !strings.Contains(s, "1 single") {
		t.Error(s)
	}
}

func TestAHorizonThatIsClosedThroughout(t *testing.T) {
	p, _ := shop(30, 120, 1).Cut(117) // ends on a Friday
	for _, method := range allMethods() {
		f, err := Run(p, method, Options{Horizon: 1, Levels: DefaultLevels()})
		if err != nil {
			t.Fatal(err)
		}
		checkForecast(t, method, &f[4], 1, []float64{0})
	}
}

func TestAFewEmptySaturdaysAreNotClosed(t *testing.T) {
	// One item that sells every fifth day: nothing sold on five Saturdays says little.
	r := rand.New(rand.NewPCG(2, 2))
	y := make([]float64, 70)
	for t := range y {
		if r.Float64() < .2 && t%7 != 5 {
			y[t] = 1
		}
	}
	if c := FindClosed(days(y)); c.At(days(y).Times[5]) {
		t.Error("closed after all:", c)
	}
}

func TestBreakOfTheYearComesAgain(t *testing.T) {
	p := shop(40, 7*60, 3) // 2011-01-03 .. 2012-02-26
	for i, at := range p.Times {
		if d := time.UnixMicro(at).UTC(); d.Month() == 12 && d.Day() >= 24 {
			for k := range p.Series {
				p.Series[k].Y[i] = 0
			}
		}
	}
	c := FindClosed(p)
	at := func(y, m, d int) int64 { return time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC).UnixMicro() }
	if !c.At(at(2012, 12, 27)) {
		t.Error("2012-12-27 is open")
	}
	if c.At(at(2012, 12, 20)) || c.At(at(2012, 3, 4)) { // a Thursday, and the year after the single holiday
		t.Error("open days are closed:", c)
	}
}

func TestClosedDaysAreNoDemand(t *testing.T) {
	// With Saturdays closed, every method forecasts zero there, and a constant demand elsewhere is seen as it is.
	y := make([]float64, 140)
	for t := range y {
		if t%7 != 5 && t != 60 {
			y[t] = 10
		}
	}
	series := make([][]float64, 20)
	for i := range series {
		series[i] = y
	}
	p := days(series...)
	for _, method := range allMethods() {
		f, err := Run(p, method, Options{Horizon: 14, Levels: []float64{.1, .5, .9}})
		if err != nil {
			t.Fatal(err)
		}
		for s, v := range f[3].Mean {
			want := 10.0
			if s%7 == 5 {
				want = 0
			}
			if method == "sba" {
				want *= .95
			}
			if !(math.Abs(v-want) < 1e-6) {
				t.Errorf("%s: %v on day %d, want %v", method, v, s, want)
			}
			if q := f[3].Quantiles[2][s]; s%7 == 5 && q != 0 {
				t.Errorf("%s: quantile %v on a closed day", method, q)
			}
		}
	}
}

func TestSameBitsForAnyThreads(t *testing.T) {
	p := shop(30, 200, 7)
	for _, method := range allMethods() {
		var want []Forecast
		for _, threads := range []int{1, 2, 5} {
			f, err := Run(p, method, Options{Horizon: 14, Levels: DefaultLevels(), Threads: threads})
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = f
				continue
			}
			for i := range f {
				if !slices.Equal(f[i].Mean, want[i].Mean) {
					t.Fatalf("%s: means of series %d differ with %d threads", method, i, threads)
				}
				for l := range f[i].Quantiles {
					if !slices.Equal(f[i].Quantiles[l], want[i].Quantiles[l]) {
						t.Fatalf("%s: quantiles of series %d differ with %d threads", method, i, threads)
					}
				}
			}
		}
	}
}

func TestUnitsDoNotMatter(t *testing.T) {
	// Four times the values (exact in binary) are four times the forecast; searches over logarithms and simplices may
	// end a little elsewhere.
	p, q := shop(25, 150, 9), shop(25, 150, 9)
	for i := range q.Series {
		for k := range q.Series[i].Y {
			q.Series[i].Y[k] *= 4
		}
	}
	for _, method := range allMethods() {
		a, err := Means(p, method, Options{Horizon: 10})
		if err != nil {
			t.Fatal(err)
		}
		b, err := Means(q, method, Options{Horizon: 10})
		if err != nil {
			t.Fatal(err)
		}
		for i := range a {
			for s := range a[i].Mean {
				if d := math.Abs(4*a[i].Mean[s] - b[i].Mean[s]); !(d <= 1e-3*(1+b[i].Mean[s])) {
					t.Errorf("%s: series %d step %d: %v and %v", method, i, s, a[i].Mean[s], b[i].Mean[s])
					break
				}
			}
		}
	}
}

func TestSeriesStandAloneUnlessPooled(t *testing.T) {
	p := shop(12, 150, 4)
	one := &Panel{Step: Day, Times: p.Times, Series: p.Series[5:6]}
	c := FindClosed(p)
	for _, m := range Methods() {
		if m.Pooled {
			continue
		}
		a, err := Means(p, m.Name, Options{Horizon: 9, Closed: c, Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		b, err := Means(one, m.Name, Options{Horizon: 9, Closed: c})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a[5].Mean, b[0].Mean) {
			t.Errorf("%s: another panel, another forecast", m.Name)
		}
	}
}

func TestFoldsKnowOnlyThePast(t *testing.T) {
	// Changing what comes after an origin must not change what was forecast there.
	p, q := shop(20, 160, 8), shop(20, 160, 8)
	o := Options{Horizon: 14, Folds: 3}
	origins := Origins(p, o)
	if !slices.Equal(origins, []int{118, 132, 146}) {
		t.Fatal(origins)
	}
	for i := range q.Series {
		for k := 146; k < 160; k++ {
			q.Series[i].Y[k] += 1000
		}
	}
	for _, method := range []string{"ets", "pooled", "ar", "tsb"} {
		a, err := Backtest(p, method, o)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Backtest(q, method, o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range a {
			for k := range a[i] {
				if !slices.Equal(a[i][k].Mean, b[i][k].Mean) {
					t.Errorf("%s: fold %d of series %d saw its future", method, k, i)
				}
			}
		}
	}
}

func TestQuantilesCover(t *testing.T) {
	// On a stationary shop each quantile is exceeded about as often as its level says.
	p := shop(150, 200, 11)
	cut, _ := p.Cut(172)
	levels := []float64{.25, .5, .75, .9, .95}
	for _, method := range []string{"tsb", "pooled", "seasonal-window-average"} {
		f, err := Run(cut, method, Options{Horizon: 28, Levels: levels, Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		for l, q := range levels {
			below, under, n := 0.0, 0.0, 0.0
			for i := range f {
				for s, v := range p.Series[i].Y[172:] {
					if (172+s)%7 == 5 {
						continue
					}
					n++
					if v <= f[i].Quantiles[l][s] {
						below++
					}
					if v+.5 < f[i].Quantiles[l][s] { // of whole numbers
						under++
					}
				}
			}
			// Counts tie: about q must lie below, or below and at, a quantile.
			if !(below/n > q-.05 && under/n < q+.05) {
				t.Errorf("%s: %.3f below and %.3f at or below the quantile of %v", method, under/n, below/n, q)
			}
		}
	}
}

func TestWeightedQuantileOracle(t *testing.T) {
	// Equal weights: values at the midpoints of n cells.
	r := rand.New(rand.NewPCG(1, 9))
	for range 50 {
		n := 1 + r.IntN(20)
		y := make([]float64, n)
		for i := range y {
			y[i] = math.Floor(10 * r.Float64())
		}
		s := slices.Sorted(slices.Values(y))
		w := newWeighted(y)
		for _, p := range []float64{.01, .3, .5, .77, .99} {
			at := p*float64(n) - .5
			k := int(math.Floor(at))
			var want float64
			switch {
			case at <= 0:
				want = s[0]
			case k >= n-1:
				want = s[n-1]
			default:
				want = s[k] + (s[k+1]-s[k])*(at-float64(k))
			}
			if got := w.at(p, repeat(.3, n)); !(math.Abs(got-want) < 1e-9) {
				t.Fatalf("%v at %v: %v, want %v", y, p, got, want)
			}
		}
	}
}

func TestAutoregressionsFindAProcess(t *testing.T) {
	// A sum of two seasons and an AR(1): both methods must come near to the best forecast there is.
	r := rand.New(rand.NewPCG(3, 3))
	n, h := 168*5, 48
	y := make([]float64, n+h)
	shock := 0.0
	truth := func(t int) float64 {
		return 100 + 30*math.Sin(2*math.Pi*float64(t)/24) + 20*math.Cos(2*math.Pi*float64(t)/168)
	}
	for t := range y {
		shock = .6*shock + r.NormFloat64()
		y[t] = truth(t) + shock
	}
	for method, tol := range map[string]float64{"ar": 2.5, "arma": 2.5, "mstl": 2.5} {
		m, err := Lookup(method)
		if err != nil {
			t.Fatal(err)
		}
		f := m.series(y[:n], input{h: h, seasons: []int{24, 168}})
		var e float64
		for s := range h {
			e += math.Abs(f.Mean[s]-truth(n+s)) / float64(h)
		}
		if !(e < tol) {
			t.Errorf("%s: mean distance %.2f to the seasons (%s)", method, e, f.Model)
		}
		if len(f.Fitted) != n {
			t.Errorf("%s: %d fitted values of %d", method, len(f.Fitted), n)
		}
	}
}

func TestComponentsAddUp(t *testing.T) {
	p := shop(8, 150, 6)
	f, err := Run(p, "ets", Options{Horizon: 20})
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.Series {
		c, err := Decompose(p, i, f[i].Mean, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if c.History != 150 || len(c.Level) != 170 || len(c.Seasons) != 1 || c.Seasons[0].Period != 6 {
			t.Fatalf("history %d, %d steps, seasons %v", c.History, len(c.Level), len(c.Seasons))
		}
		all := append(slices.Clone(p.Series[i].Y), f[i].Mean...)
		for s, v := range all {
			if c.Closed[s] {
				if v != 0 {
					t.Fatalf("series %d sells %v on closed day %d", i, v, s)
				}
				continue
			}
			if got := c.Level[s] + c.Seasons[0].Values[s] + c.Remainder[s]; !(math.Abs(got-v) < 1e-9*(1+v)) {
				t.Fatalf("series %d step %d: parts sum to %v, value is %v", i, s, got, v)
			}
		}
	}
}
