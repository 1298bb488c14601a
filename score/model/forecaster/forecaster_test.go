package forecaster

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/forecast"
)

func london(t testing.TB) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/London")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// days is a panel of counts over so many days, closed on Sundays.
func days(t testing.TB, series, n int) *forecast.Panel {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 5))
	p := &forecast.Panel{Step: forecast.Day, Zone: london(t), Covariates: []forecast.Covariate{{Name: "price"}}}
	for d := range n {
		p.Times = append(p.Times, time.Date(2024, 1, 1+d, 0, 0, 0, 0, p.Zone).UnixMicro())
	}
	for i := range series {
		s := forecast.Series{Key: fmt.Sprintf("s%02d", i), First: i * n / series / 2, X: make([][]float64, 1)}
		for d := s.First; d < n; d++ {
			y := 0.
			if d%7 != 6 && r.Float64() < .6 {
				y = float64(r.IntN(9 + i))
			}
			s.Y, s.X[0] = append(s.Y, y), append(s.X[0], 1+float64(i))
		}
		p.Series = append(p.Series, s)
	}
	return p
}

// hours is a panel with the seasons of a day and a week.
func hours(series, n int) *forecast.Panel {
	r := rand.New(rand.NewPCG(2, 5))
	p := &forecast.Panel{Step: forecast.Hour}
	for h := range n {
		p.Times = append(p.Times, int64(h)*time.Hour.Microseconds())
	}
	for i := range series {
		s := forecast.Series{Key: fmt.Sprintf("s%02d", i), First: 30 * i}
		for h := s.First; h < n; h++ {
			s.Y = append(s.Y, 500+100*math.Sin(float64(h)*2*math.Pi/24)+30*math.Sin(float64(h)*2*math.Pi/168)+10*r.NormFloat64())
		}
		p.Series = append(p.Series, s)
	}
	return p
}

func designs(t testing.TB) map[*Design]*forecast.Panel {
	return map[*Design]*forecast.Panel{
		{Step: forecast.Day, Scaling: Ratio, Seasons: []int{7}, Horizon: 28, Covariates: []string{"price"}}: days(t, 6, 200),
		{Step: forecast.Day, Scaling: Shift, Seasons: []int{7}, Horizon: 14}:                                days(t, 6, 200),
		{Step: forecast.Hour, Scaling: Shift, Seasons: []int{24, 168}, Horizon: 48}:                         hours(3, 900),
		{Step: forecast.Hour, Scaling: Ratio, Seasons: []int{24, 168}, Horizon: 48}:                         hours(3, 900),
		{Step: forecast.Week, Scaling: Ratio, Seasons: []int{52}, Horizon: 13}:                              weeks(40),
	}
}

func weeks(n int) *forecast.Panel {
	p := &forecast.Panel{Step: forecast.Week, Series: []forecast.Series{{Key: "w"}}}
	for w := range n {
		p.Times = append(p.Times, time.Date(2024, 1, 1+7*w, 0, 0, 0, 0, time.UTC).UnixMicro())
		p.Series[0].Y = append(p.Series[0].Y, float64(w%4))
	}
	return p
}

// inputsOf are all inputs of a panel at an origin.
func inputsOf(d *Design, p *forecast.Panel, known, horizon int) [][]float32 {
	o := d.NewView(p, forecast.FindClosed(p)).At(known, horizon)
	w := o.Writer()
	var out [][]float32
	for i := range p.Series {
		if p.Series[i].First >= known {
			continue
		}
		level, scale := w.Begin(i)
		out = append(out, []float32{float32(level), float32(scale)})
		for k := range horizon {
			row := make([]float32, w.Width())
			w.Row(k, row)
			out = append(out, row)
		}
	}
	return out
}

// TestInputsAreNamed: there is an input for each name and a name for each input, and all of them are numbers.
func TestInputsAreNamed(t *testing.T) {
	for d, p := range designs(t) {
		w := d.NewView(p, forecast.AlwaysOpen()).At(len(p.Times), d.Horizon).Writer()
		w.Begin(0)
		w.writeStep(0)
		if len(w.state) != len(d.Names()) {
			t.Errorf("%v %s: %d inputs, %d names", d.Step, d.Scaling, len(w.state), len(d.Names()))
		}
		if n := len(slices.Compact(slices.Sorted(slices.Values(d.Names())))); n != len(d.Names()) {
			t.Errorf("%v %s: a name is used twice: %v", d.Step, d.Scaling, d.Names())
		}
		for _, row := range inputsOf(d, p, len(p.Times), d.Horizon+9) {
			for _, x := range row {
				if x != x || math.IsInf(float64(x), 0) {
					t.Fatalf("%v %s: an input is %v", d.Step, d.Scaling, x)
				}
			}
		}
	}
}

// TestInputsKnowNothingOfLater: what comes after an origin changes no input of it, and neither does a panel that ends
// there.
func TestInputsKnowNothingOfLater(t *testing.T) {
	for d, p := range designs(t) {
		known := len(p.Times) - d.Horizon
		closed := forecast.AlwaysOpen()
		rows := func(p *forecast.Panel) string {
			o := d.NewView(p, closed).At(known, d.Horizon)
			w := o.Writer()
			var out []float32
			for i := range p.Series {
				w.Begin(i)
				for k := range d.Horizon {
					row := make([]float32, w.Width())
					w.Row(k, row)
					out = append(out, row...)
				}
			}
			return fmt.Sprint(out)
		}
		cut, _ := p.Cut(known)
		later := *p
		later.Series = slices.Clone(p.Series)
		for i := range later.Series {
			s := &later.Series[i]
			s.Y = slices.Clone(s.Y)
			for k := known - s.First; k < len(s.Y); k++ {
				s.Y[k] += 77
			}
			s.X = slices.Clone(s.X)
			for c := range s.X {
				s.X[c] = slices.Clone(s.X[c])
				for k := known - s.First; k < len(s.X[c]); k++ {
					s.X[c][k] *= 3
				}
			}
		}
		if a, b, c := rows(p), rows(cut), rows(&later); a != b || a != c {
			t.Errorf("%v %s: inputs depend on what comes after the origin", d.Step, d.Scaling)
		}
	}
}

// TestInputsScale: Shift makes the same inputs of a series in other units; level and scale take them.
func TestInputsScale(t *testing.T) {
	d := &Design{Step: forecast.Hour, Scaling: Shift, Seasons: []int{24, 168}, Horizon: 48}
	p := hours(1, 600)
	other := *p
	other.Series = []forecast.Series{{Key: "s", Y: slices.Clone(p.Series[0].Y)}}
	for i := range other.Series[0].Y {
		other.Series[0].Y[i] *= 1024 // exact
	}
	a, b := inputsOf(d, p, 600, 48), inputsOf(d, &other, 600, 48)
	if b[0][0] != 1024*a[0][0] || b[0][1] != 1024*a[0][1] {
		t.Errorf("level and scale %v, of 1024 times the series %v", a[0], b[0])
	}
	for k := 1; k < len(a); k++ {
		for f := range a[k] {
			if !(math.Abs(float64(a[k][f]-b[k][f])) < 1e-4) {
				t.Fatalf("step %d, %s: %v and %v", k-1, d.Names()[f], a[k][f], b[k][f])
			}
		}
	}
}

func TestMeanOf(t *testing.T) {
	levels := []float64{.05, .25, .5, .75, .95}
	if got := MeanOf(levels, []float64{7, 7, 7, 7, 7}); !(math.Abs(got-7) < 1e-12) {
		t.Errorf("of a constant: %v", got)
	}
	q := make([]float64, len(levels))
	for l, u := range levels {
		q[l] = 10 * u
	}
	if got := MeanOf(levels, q); !(math.Abs(got-5) < 1e-12) {
		t.Errorf("of a uniform distribution on 0..10: %v", got)
	}
	if got := interpolate(levels, q, .6); !(math.Abs(got-6) < 1e-12) {
		t.Errorf("at .6: %v", got)
	}
}

// classical is a model without a network.
func classical(d Design, members ...string) *Model {
	m := &Model{
		Design:        d,
		Levels:        forecast.DefaultLevels(),
		Point:         PointMean,
		Members:       members,
		Spreads:       []string{Climatology, Errors},
		Mixtures:      map[string]*Mixture{},
		Target:        "demand",
		Zone:          "Europe/London",
		Least:         7,
		FormatVersion: formatVersion,
	}
	for _, class := range []string{Regular, Intermittent} {
		x := &Mixture{Point: make([]float64, len(members))}
		for k := range members {
			x.Point[k] = 1 / float64(len(members))
		}
		for range m.Levels {
			x.Quantile = append(x.Quantile, []float64{.5, .5})
		}
		for range ErrorParts {
			x.Errors = append(x.Errors, make([]float64, len(m.Levels)))
		}
		m.Mixtures[class] = x
	}
	return m
}

// TestAnswersWhateverTheSeries: one point, zeros only, shorter than the horizon, begun on the last day: each has a
// forecast that is finite, and closed days are zero.
func TestAnswersWhateverTheSeries(t *testing.T) {
	p := days(t, 6, 120)
	n := len(p.Times)
	p.Series = append(p.Series,
		forecast.Series{Key: "t-one", First: n - 1, Y: []float64{3}, X: [][]float64{{1}}},
		forecast.Series{Key: "t-zeros", First: 0, Y: make([]float64, n), X: [][]float64{make([]float64, n)}},
		forecast.Series{Key: "t-five", First: n - 5, Y: []float64{0, 0, 2, 0, 1}, X: [][]float64{make([]float64, 5)}})
	f, err := New(
		classical(
			Design{Step: forecast.Day, Scaling: Ratio, Seasons: []int{7}, Horizon: 28, Covariates: []string{"price"}},
			"tsb",
			"seasonal-window-average",
		),
		nil,
		p,
		2,
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, horizon := range []int{1, 28, 400} {
		answers, err := f.Forecast(Request{Horizon: horizon})
		if err != nil {
			t.Fatal(err)
		}
		if len(answers) != len(p.Series) {
			t.Fatalf("%d answers for %d series", len(answers), len(p.Series))
		}
		for _, a := range answers {
			for k, at := range a.Steps {
				sunday := time.UnixMicro(at).In(p.Zone).Weekday() == time.Sunday
				if m := a.Mean[k]; !(m >= 0) || math.IsInf(m, 0) || sunday && m != 0 {
					t.Fatalf("%s, step %d (Sunday %v): %v", a.Key, k, sunday, m)
				}
			}
			if a.Key == "t-zeros" && slices.Max(a.Mean) != 0 {
				t.Errorf("a series of zeros is forecast as %v", a.Mean)
			}
		}
	}
}

// TestOneIsAsAll: a series that is asked for alone is answered as among all, and in the order of the keys.
func TestOneIsAsAll(t *testing.T) {
	m := classical(
		Design{Step: forecast.Day, Scaling: Ratio, Seasons: []int{7}, Horizon: 28, Covariates: []string{"price"}},
		"pooled",
		"tsb",
	)
	f, err := New(m, nil, days(t, 8, 160), 1)
	if err != nil {
		t.Fatal(err)
	}
	all, err := f.Forecast(Request{Horizon: 28})
	if err != nil {
		t.Fatal(err)
	}
	some, err := f.Forecast(Request{Horizon: 28, Keys: []string{"s05", "s02"}})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(some[0]) != fmt.Sprint(all[5]) || fmt.Sprint(some[1]) != fmt.Sprint(all[2]) {
		t.Error("alone it is another forecast")
	}
}

func TestRequestsThatCannotBe(t *testing.T) {
	f, err := New(
		classical(
			Design{Step: forecast.Day, Scaling: Ratio, Seasons: []int{7}, Horizon: 28, Covariates: []string{"price"}},
			"tsb",
		),
		nil,
		days(t, 3, 60),
		1,
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r    Request
		want string
	}{
		{Request{}, "a horizon of 0"},
		{Request{Horizon: MaxHorizon + 1}, "want 1 to"},
		{Request{Horizon: 7, Levels: []float64{.99}}, "quantiles from 0.05 to 0.975"},
		{Request{Horizon: 7, Levels: []float64{.5, .4}}, "ascending"},
		{Request{Horizon: 7, Method: "magic"}, "not known"},
		{Request{Horizon: 7, Method: Network}, "no network"},
		{Request{Horizon: 7, Keys: []string{"nothing"}}, `no series "nothing"`},
	} {
		if _, err := f.Forecast(c.r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.r, err, c.want)
		}
	}
	_, err = f.Forecast(Request{Horizon: 7, Keys: []string{"nothing"}})
	var unknown *Unknown
	if !errors.As(err, &unknown) || unknown.Key != "nothing" {
		t.Errorf("an unknown key is %T", err)
	}
	got, err := f.Forecast(Request{Horizon: 7, Levels: []float64{.6, .8}, Method: "tsb"})
	if err != nil || len(got[0].Quantiles) != 2 {
		t.Errorf("levels between: %v", err)
	}
}

// rowsOf are rows of a panel's data set.
func rowsOf(step []int64, series []string, demand []float64) *datasets.Batch {
	s := &datasets.Schema{Fields: []datasets.Field{
		{
			Name: features.ColumnSeries,
			Type: datasets.String,
		}, {Name: features.ColumnStep, Type: datasets.Time}, {Name: "demand", Type: datasets.Float64}}}
	b := datasets.NewBatch(s, 0)
	b.Columns[0].Strings, b.Columns[1].Ints, b.Columns[2].Floats, b.N = series, step, demand, len(step)
	return b
}

func TestHistory(t *testing.T) {
	zone := london(t)
	day := func(d int) int64 { return time.Date(2024, 3, d, 0, 0, 0, 0, zone).UnixMicro() }
	h := NewHistory(forecast.Day, zone, Columns{Target: "demand"}, false)
	// The clock is put forward on 31 March: that day has 23 hours.
	if err := h.Append(rowsOf([]int64{day(29), day(30), day(30), day(32)}, []string{"a", "a", "b", "b"}, []float64{1, 2, 3, 4})); err != nil {
		t.Fatal(err)
	}
	p := h.Panel()
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.Series[0].Y, p.Series[1].Y, p.Series[1].First); got != "[1 2 0 0] [3 0 4] 1" {
		t.Errorf("series %s", got)
	}
	for _, c := range []struct {
		rows *datasets.Batch
		want string
	}{
		{rowsOf([]int64{day(29)}, []string{"a"}, []float64{1}), "in the order of time"},
		{rowsOf([]int64{day(32)}, []string{"b"}, []float64{1}), "two rows"},
		{rowsOf([]int64{day(33) + 5}, []string{"b"}, []float64{1}), "no start of a day"},
		{rowsOf([]int64{day(33)}, []string{"b"}, []float64{math.NaN()}), "demand is NaN"},
	} {
		if err := h.Append(c.rows); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	// An engine that goes on from an earlier instant closes a step again.
	if err := h.Revise(rowsOf([]int64{day(30)}, []string{"a"}, []float64{9})); err != nil {
		t.Fatal(err)
	}
	if got := h.Panel().Series[0].Y[1]; got != 9 || p.Series[0].Y[1] != 2 {
		t.Errorf("revised %v, in the panel from before %v", got, p.Series[0].Y[1])
	}
}

// TestHistoryIsWrittenAndRead: what WriteHistory writes is the same panel when it is read, or its last steps.
func TestHistoryIsWrittenAndRead(t *testing.T) {
	p := days(t, 5, 90)
	columns := Columns{Target: "demand", Covariates: []string{"price"}}
	for _, last := range []int{90, 20} {
		var b bytes.Buffer
		if err := WriteHistory(&b, p, columns, last); err != nil {
			t.Fatal(err)
		}
		rows, err := datasets.DecodeTable(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		h := NewHistory(forecast.Day, p.Zone, columns, false)
		if err := h.Append(rows); err != nil {
			t.Fatal(err)
		}
		got := h.Panel()
		for i := range p.Series {
			want := p.Series[i].Y
			want = want[max(0, len(want)-last):]
			if !slices.Equal(got.Series[i].Y, want) || len(got.Series[i].X[0]) != len(want) {
				t.Errorf("%d steps, series %d: %v, want %v", last, i, got.Series[i].Y, want)
			}
		}
	}
}

// TestModelIsChecked: a damaged demand.json is refused with what is wrong.
func TestModelIsChecked(t *testing.T) {
	m := classical(Design{Step: forecast.Day, Scaling: Ratio, Seasons: []int{7}, Horizon: 28}, "tsb", "ses")
	var b bytes.Buffer
	if err := m.Encode(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if _, err := decodeModel([]byte(text)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, want string }{
		{`"tsb"`, `"magic"`, "no method"},
		{`"ratio"`, `"cube"`, "scaling"},
		{`"horizon": 28`, `"horizon": 0`, "horizon of 0"},
		{`0.975`, `0.95`, "ascending"},
		{`"format_version": 1`, `"format_version": 9`, "format 9"},
		{`"regular"`, `"irregular"`, "no weights for regular"},
		{`"climatology"`, `"ses"`, `spread "ses"`},
		{`"point": "mean"`, `"point": "mode"`, `point "mode"`},
		{`"zone"`, `"zoned"`, "damaged"},
	} {
		if _, err := decodeModel([]byte(strings.Replace(text, c.from, c.to, 1))); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %s: %v, want %q", c.to, c.from, err, c.want)
		}
	}
}

// TestMix: members that have no answer leave their weight to the others, quantiles never cross, and closed steps are 0.
func TestMix(t *testing.T) {
	m := classical(Design{Step: forecast.Day, Scaling: Ratio, Seasons: []int{7}, Horizon: 4}, "tsb", "ses")
	x := m.Mixtures[Regular]
	x.Point = []float64{.25, .75}
	x.Errors[0] = []float64{9, 8, 7, 6, 5, 4, 3, 2} // falling: sorted again
	f := m.Mix(x, [][]float64{{4, 4, 4}, {8, 8, 8}}, [][][]float64{nil, nil}, []bool{true, false, true}, 2)
	if f.Mean[0] != 7 || f.Mean[1] != 0 {
		t.Errorf("mean %v", f.Mean)
	}
	for l := 1; l < len(m.Levels); l++ {
		if f.Quantiles[l][0] < f.Quantiles[l-1][0] || f.Quantiles[l][1] != 0 {
			t.Errorf("quantiles %v", f.Quantiles)
		}
	}
	if f := m.Mix(x, [][]float64{{4, 4, 4}, nil}, [][][]float64{nil, nil}, []bool{true, true, true}, 1); f.Mean[2] != 4 {
		t.Errorf("without the second member: %v", f.Mean)
	}
}
