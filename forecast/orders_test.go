package forecast

import (
	"math"
	"strings"
	"testing"
)

// steps is a forecast of n equal steps with the given quantile function.
func steps(n int, levels []float64, quantile func(float64) float64) *Forecast {
	f := &Forecast{Mean: make([]float64, n), Quantiles: make([][]float64, len(levels))}
	for l, p := range levels {
		f.Quantiles[l] = repeat(quantile(p), n)
	}
	return f
}

// fine are levels close enough for closed forms.
func fine() []float64 {
	levels := []float64{.0005, .001, .002, .005}
	for k := 1; k < 100; k++ {
		levels = append(levels, float64(k)/100)
	}
	return append(levels, .995, .998, .999, .9995)
}

func TestTotalsAgainstClosedForms(t *testing.T) {
	levels := fine()
	normal := func(p float64) float64 { return 100 + 10*normalQuantile(p) }
	exponential := func(p float64) float64 { return -5 * math.Log(1-p) }
	for _, n := range []int{1, 2, 7, 30} {
		f := steps(n, levels, normal)
		independent, err := NewTotal(f, levels, 0, n, 0)
		if err != nil {
			t.Fatal(err)
		}
		together, err := NewTotal(f, levels, 0, n, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []float64{.05, .5, .9, .95, .99} {
			want := 100*float64(n) + 10*math.Sqrt(float64(n))*normalQuantile(p)
			if got := independent.Quantile(p); !(math.Abs(got-want) < 2e-3*want) {
				t.Errorf("%d normal steps at %v: %v, want %v", n, p, got, want)
			}
			want = float64(n) * normal(p)
			if got := together.Quantile(p); !(math.Abs(got-want) < 1e-3*want) {
				t.Errorf("%d steps together at %v: %v, want %v", n, p, got, want)
			}
		}
		if !(math.Abs(independent.Mean()-100*float64(n)) < .1*float64(n)) {
			t.Errorf("mean %v of %d steps", independent.Mean(), n)
		}
	}
	// Two exponential steps are a gamma variable: P(D > x) = exp(-x/5) (1 + x/5).
	total, err := NewTotal(steps(2, levels, exponential), levels, 0, 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []float64{2, 10, 20, 30} {
		if got, want := total.Exceeds(x), math.Exp(-x/5)*(1+x/5); !(math.Abs(got-want) < 3e-3) {
			t.Errorf("P(sum > %v) = %v, want %v", x, got, want)
		}
	}
}

func TestOrderAgainstNewsvendor(t *testing.T) {
	// One step of normal demand: the order-up-to level is its quantile at the critical fractile.
	levels := fine()
	f := steps(3, levels, func(p float64) float64 { return 200 + 30*normalQuantile(p) })
	o, err := PlanOrder(f, levels, Stock{OnHand: 50, OnOrder: 20}, Policy{Review: 1, Shortage: 9, Excess: 1, Pack: 12})
	if err != nil {
		t.Fatal(err)
	}
	want := 200 + 30*normalQuantile(.9)
	if o.Fractile != .9 || !(math.Abs(o.Target-want) < .5) || !(math.Abs(o.SafetyStock-(want-200)) < .5) {
		t.Errorf("%+v, want a target of %v", o, want)
	}
	if o.Quantity != 12*math.Ceil((o.Target-70)/12) {
		t.Errorf("quantity %v for a target of %v", o.Quantity, o.Target)
	}
	if !(o.RunsOut <= .1 && o.WithoutOrder > .999) || o.ReorderPoint != 0 || o.BeforeArrival != 0 {
		t.Errorf("%+v", o)
	}
	// A lead time of two steps: the reorder point lasts for it.
	o, err = PlanOrder(f, levels, Stock{OnHand: 1000}, Policy{Lead: 2, Review: 1, Service: .95})
	if err != nil {
		t.Fatal(err)
	}
	if want := 400 + 30*math.Sqrt2*normalQuantile(.95); !(math.Abs(o.ReorderPoint-want) < 2) {
		t.Errorf("reorder point %v, want %v", o.ReorderPoint, want)
	}
	if o.Quantity != 0 || !(o.RunsOut < 1e-3) || o.RunsOut != o.WithoutOrder {
		t.Errorf("enough in stock: %+v", o)
	}
}

func TestMoreServiceOrdersMore(t *testing.T) {
	levels := DefaultLevels()
	f := steps(10, levels, func(p float64) float64 { return math.Floor(-8 * math.Log(1-p)) })
	for _, dependence := range []float64{0, .3, 1} {
		before := -1.0
		for _, service := range []float64{.5, .8, .9, .95, .98, .995} {
			o, err := PlanOrder(f, levels, Stock{}, Policy{Lead: 3, Review: 7, Service: service, Dependence: dependence})
			if err != nil {
				t.Fatal(err)
			}
			if !(o.Target > before) || !(o.RunsOut <= 1-service+1e-9) {
				t.Errorf("service %v, dependence %v: %+v", service, dependence, o)
			}
			before = o.Target
		}
	}
}

func TestNoDemandNoOrder(t *testing.T) {
	levels := DefaultLevels()
	f := steps(5, levels, func(float64) float64 { return 0 })
	o, err := PlanOrder(f, levels, Stock{}, Policy{Lead: 1, Review: 1, Service: .99, Minimum: 10})
	if err != nil {
		t.Fatal(err)
	}
	if o.Quantity != 0 || o.RunsOut != 0 || o.Target != 0 {
		t.Errorf("%+v", o)
	}
	// More promised than there is is ordered even so.
	o, err = PlanOrder(f, levels, Stock{OnHand: -3}, Policy{Lead: 1, Review: 1, Service: .99, Pack: 2, Minimum: 1})
	if err != nil || o.Quantity != 4 || o.WithoutOrder != 1 || o.RunsOut != 0 {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestOrderFaults(t *testing.T) {
	levels := DefaultLevels()
	f := steps(5, levels, func(p float64) float64 { return 10 * p })
	good := Policy{Lead: 1, Review: 2, Service: .9}
	for _, c := range []struct {
		want   string
		change func(*Policy, *Stock)
	}{
		{"lead time", func(p *Policy, _ *Stock) { p.Lead = -1 }},
		{"review", func(p *Policy, _ *Stock) { p.Review = 0 }},
		{"neither a service level", func(p *Policy, _ *Stock) { p.Service = 0 }},
		{"costs as well", func(p *Policy, _ *Stock) { p.Shortage = 2 }},
		{"below 1", func(p *Policy, _ *Stock) { p.Service = 1 }},
		{"dependence", func(p *Policy, _ *Stock) { p.Dependence = 2 }},
		{"pack", func(p *Policy, _ *Stock) { p.Pack = math.NaN() }},
		{"horizon", func(p *Policy, _ *Stock) { p.Lead = 4 }},
		{"on hand", func(_ *Policy, s *Stock) { s.OnHand = math.NaN() }},
		{"on order", func(_ *Policy, s *Stock) { s.OnOrder = -1 }},
	} {
		p, s := good, Stock{OnHand: 1}
		c.change(&p, &s)
		if _, err := PlanOrder(f, levels, s, p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.want, err)
		}
	}
}

func TestDependenceIsMeasured(t *testing.T) {
	// Demands that are all high or all low together are seen as such, and independent ones as independent.
	levels := fine()
	f := steps(4, levels, func(p float64) float64 { return 100 * p })
	var forecasts []Forecast
	var together, apart [][]float64
	for k := range 200 {
		forecasts = append(forecasts, *f)
		u := (float64(k) + .5) / 2
		together = append(together, repeat(u, 4))
		v := make([]float64, 4)
		for j := range v { // a Latin square's rows: each step uniform, no two alike
			v[j] = math.Mod(u*[]float64{1, 37, 61, 89}[j]+float64(13*j), 100)
		}
		apart = append(apart, v)
	}
	for _, c := range []struct {
		actual   [][]float64
		low, top float64
	}{{together, .8, 1}, {apart, 0, .3}} {
		got, _, err := MeasureDependence(forecasts, c.actual, levels, []int{4}, []float64{.1, .9, .95})
		if err != nil || !(got >= c.low && got <= c.top) {
			t.Errorf("measured %v, %v", got, err)
		}
	}
}
