package demand

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/onmart/onmart/forecast"
	"github.com/onmart/onmart/score/model/forecaster"
)

// Metrics are figures by their names: rmsse, wrmsse, mase, wmase, pinball_50, wpinball_50, coverage_50 (by level in per
// cent), wape, bias, and, of series that are seldom zero, smape, mase_seasonal and owa: sMAPE says nothing of a zero.
// Scales are those of steps next to each other; weights are the series' value in the last horizon before the forecast.
type Metrics map[string]float64

// measure scores forecasts of series at an origin of the panel.
func measure(cases []forecast.Case, levels []float64, d *forecaster.Design) (Metrics, error) {
	m := Metrics{}
	if !quantiled(cases) {
		levels = nil
	}
	s, err := forecast.Score(cases, levels)
	if err != nil {
		return nil, err
	}
	put := func(name string, v float64) {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			m[name] = v
		}
	}
	put("rmsse", s.RMSSE)
	put("wrmsse", s.WRMSSE)
	put("mase", s.MASE)
	put("wmase", s.WMASE)
	put("wape", s.WAPE)
	put("bias", s.Bias)
	for l, q := range levels {
		name := levelName(q)
		put("pinball_"+name, s.Pinball[l])
		put("wpinball_"+name, s.WPinball[l])
		put("coverage_"+name, s.Coverage[l])
	}
	if d.Scaling != forecaster.Shift {
		return m, nil
	}
	if m4, err := forecast.ScoreM4(cases, d.Seasons[0]); err == nil { // a series without a scale has no OWA
		put("smape", m4.SMAPE)
		put("mase_seasonal", m4.MASE)
		put("owa", m4.OWA)
	}
	return m, nil
}

func quantiled(cases []forecast.Case) bool {
	return len(cases) > 0 && cases[0].Quantiles != nil
}

// levelName is a level in per cent: 50, 97.5 as 97_5.
func levelName(q float64) string {
	s := strconv.FormatFloat(math.Round(q*1e6)/1e4, 'f', -1, 64)
	out := []byte(s)
	for i := range out {
		if out[i] == '.' {
			out[i] = '_'
		}
	}
	return string(out)
}

// BaselineResult is a method beside the combination on the same steps.
type BaselineResult struct {
	Name    string  `json:"name"`
	Metrics Metrics `json:"metrics"`
}

// Loss is a figure in which a baseline is better than the model.
type Loss struct {
	Name     string  `json:"name"`
	Metric   string  `json:"metric"`
	Model    float64 `json:"model"`
	Baseline float64 `json:"baseline"`
}

// judged are the figures by which a baseline can be better; the least is best in all of them.
func judged(levels []float64) []string {
	names := []string{"rmsse", "wrmsse", "owa"}
	for _, q := range levels {
		if q >= .5 {
			names = append(names, "pinball_"+levelName(q))
		}
	}
	return names
}

func losses(model Metrics, baselines []BaselineResult, levels []float64) []Loss {
	out := []Loss{}
	for _, b := range baselines {
		for _, name := range judged(levels) {
			mine, ok := model[name]
			his, both := b.Metrics[name]
			if ok && both && !(mine <= his) {
				out = append(out, Loss{b.Name, name, mine, his})
			}
		}
	}
	return out
}

// Judged is a forecaster's forecasts over the test steps beside those of methods alone.
type Judged struct {
	Model     Metrics          `json:"model"`
	Baselines []BaselineResult `json:"baselines"`
	LosesTo   []Loss           `json:"loses_to"`
	Series    int              `json:"series"`
	Origins   int              `json:"origins"`
	Rows      int              `json:"rows"` // forecasts of a step
}

// Judge forecasts the steps of a panel from known on, a horizon at a time, from what was known at each time, and scores
// them. names are the methods beside the model. Series that begin later, or have no scale, are left out.
func Judge(
	m *forecaster.Model,
	net *forecaster.Net,
	p *forecast.Panel,
	known int,
	names []string,
	threads int,
) (*Judged, error) {
	horizon := m.Design.Horizon
	if known < 1 || known >= len(p.Times) {
		return nil, fmt.Errorf("nothing to judge: the panel has %d steps and %d of them are known", len(p.Times), known)
	}
	all := append([]string{forecaster.Combination}, names...)
	cases := map[string][]forecast.Case{}
	j := &Judged{}
	for at := known; at < len(p.Times); at += horizon {
		h := min(horizon, len(p.Times)-at)
		cut, kept := p.Cut(at)
		f, err := forecaster.New(m, net, cut, threads)
		if err != nil {
			return nil, err
		}
		weights := values(cut, horizon)
		for _, name := range all {
			answers, err := f.Forecast(forecaster.Request{Horizon: h, Method: name, Levels: m.Levels})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			for k, i := range kept {
				s := &p.Series[i]
				from := at - s.First
				cases[name] = append(
					cases[name],
					forecast.Case{History: s.Y[:from], Actual: s.Y[from : from+h], Forecast: answers[k].Forecast, Weight: weights[k]},
				)
			}
		}
		j.Origins++
		j.Rows += h * len(kept)
		j.Series = max(j.Series, len(kept))
	}
	var err error
	if j.Model, err = measure(cases[forecaster.Combination], m.Levels, &m.Design); err != nil {
		return nil, err
	}
	for _, name := range names {
		r, err := measure(cases[name], m.Levels, &m.Design)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		j.Baselines = append(j.Baselines, BaselineResult{name, r})
	}
	classical := slices.DeleteFunc(
		slices.Clone(j.Baselines),
		func(b BaselineResult) bool { return b.Name == forecaster.Network },
	)
	j.LosesTo = losses(j.Model, classical, m.Levels)
	return j, nil
}

// values is the value of each series in the last horizon: demand, times its price where the panel has one.
func values(p *forecast.Panel, horizon int) []float64 {
	out := make([]float64, len(p.Series))
	for i := range p.Series {
		out[i] = valueOf(p, i, len(p.Times), horizon)
	}
	return out
}

// covariatePrice is the covariate that makes demand a value.
const covariatePrice = "price"

func valueOf(p *forecast.Panel, series, known, horizon int) float64 {
	s := &p.Series[series]
	price := slices.IndexFunc(p.Covariates, func(c forecast.Covariate) bool { return c.Name == covariatePrice })
	var sum float64
	for t := max(0, known-horizon-s.First); t < known-s.First; t++ {
		v := math.Abs(s.Y[t])
		if price >= 0 && price < len(s.X) {
			v *= math.Max(0, s.X[price][t])
		}
		sum += v
	}
	return sum
}

// plain is Metrics as a manifest holds them.
func (m Metrics) plain() map[string]float64 { return maps.Clone(map[string]float64(m)) }
