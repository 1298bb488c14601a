package forecast

import (
	"fmt"
	"math"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

// Method is one way to forecast. Its Name is what Run takes.
type Method struct {
	Name  string
	About string // one line
	// Intermittent methods expect counts with many zeros.
	Intermittent bool
	// Pooled methods learn from all series of the panel together; the others treat each by itself.
	Pooled bool
	// Quantiles are made by the method itself; those of the others come from the errors of rolling folds.
	Quantiles bool

	seasonal bool // the phase of the seasons must be kept where closed steps are taken out
	series   func(y []float64, in input) Fit
	panel    func(p *prepared, in input) ([]Fit, error)
}

// Fit is what a method makes of one series.
type Fit struct {
	Mean   []float64 // by step of the horizon
	Fitted []float64 // forecasts one step ahead within the history; NaN where there is none; nil if the method has none
	// Quantiles by level, then step of the horizon, of methods that make them (Method.Quantiles); nil of others.
	Quantiles [][]float64
	Model     string // what was chosen, e.g. "ETS(M,Ad,M) alpha 0.31 ..."; "" where nothing is
}

// input is what a method is told beside the series.
type input struct {
	h       int
	seasons []int // ascending, each > 1, none where there is no season; those of the compressed steps
	threads int
	signed  bool
	levels  []float64 // for methods that make quantiles of their own
}

// season is the shortest season, or 1.
func (in input) season() int {
	if len(in.seasons) == 0 {
		return 1
	}
	return in.seasons[0]
}

// longest is the longest season of which y holds at least two turns, or 1.
func (in input) longest(y []float64) int {
	m := 1
	for _, s := range in.seasons {
		if len(y) >= 2*s {
			m = s
		}
	}
	return m
}

// Methods lists every method, in a fixed order.
func Methods() []Method {
	return []Method{
		{Name: "naive", About: "the last value", series: naive},
		{Name: "seasonal-naive", About: "the value one season before", seasonal: true, series: seasonalNaive},
		{Name: "seasonal-naive-long", About: "the value one turn of the longest season before", seasonal: true,
			series: seasonalNaiveLong},
		{Name: "naive2", About: "the last value, seasonally adjusted where a test finds a season (M4's benchmark)",
			seasonal: true, series: naive2Fit},
		{Name: "window-average", About: "the mean of the last four weeks (of hours: two days; of weeks: eight)",
			series: windowAverage},
		{Name: "seasonal-window-average", About: "the mean of the same phase of the last eight seasons", seasonal: true,
			series: seasonalWindowAverage},
		{Name: "ses", About: "simple exponential smoothing, its rate by least squares", series: sesFit},
		{Name: "croston", About: "Croston 1972: sizes and intervals smoothed apart", Intermittent: true,
			series: croston},
		{Name: "sba", About: "Croston corrected for its bias (Syntetos and Boylan 2005)", Intermittent: true,
			series: sba},
		{Name: "tsb", About: "probability of demand and its size smoothed apart (Teunter, Syntetos and Babai 2011)",
			Intermittent: true, series: tsb},
		{Name: "adida", About: "smoothing of sums over the mean interval between demands (Nikolopoulos et al. 2011)",
			Intermittent: true, series: adida},
		{Name: "imapa", About: "ADIDA averaged over all levels up to the mean interval (Petropoulos and Kourentzes 2015)",
			Intermittent: true, series: imapa},
		{Name: "theta", About: "the standard theta method (Assimakopoulos and Nikolopoulos 2000)", seasonal: true,
			series: thetaStandard},
		{Name: "dynamic-theta", About: "the dynamic optimised theta model (Fiorucci et al. 2016)", seasonal: true,
			series: thetaDynamic},
		{Name: "ets", About: "exponential smoothing, its form chosen by AICc (Hyndman et al. 2008)", seasonal: true,
			series: etsFit},
		{Name: "mstl", About: "seasons taken off by STL, the rest by exponential smoothing (Bandara et al. 2021)",
			seasonal: true, series: mstlFit},
		{Name: "arma", About: "autoregression and moving average with seasonal terms, orders chosen by AICc",
			seasonal: true, series: armaFit},
		{Name: "pooled", About: "mean and quantiles linear in a series' own past, with coefficients learned from all series",
			Intermittent: true, Pooled: true, Quantiles: true, panel: pooledFit},
		{Name: "ar", About: "mean of ridge autoregressions on lags around all seasons, differenced in several ways",
			seasonal: true, series: arFit},
	}
}

// Lookup finds a method by its name.
func Lookup(name string) (Method, error) {
	all := Methods()
	for _, m := range all {
		if m.Name == name {
			return m, nil
		}
	}
	names := make([]string, len(all))
	for i, m := range all {
		names[i] = m.Name
	}
	sort.Strings(names)
	return Method{}, fmt.Errorf("forecast: no method %q: use one of %s", name, strings.Join(names, ", "))
}

// each calls f for 0..n-1 on the given number of threads. What f(i) makes may depend on i alone.
func each(n, threads int, f func(i int)) {
	threads = max(1, min(threads, n))
	if threads == 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
}

// repeat is n times v.
func repeat(v float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func nan(n int) []float64 { return repeat(math.NaN(), n) }
