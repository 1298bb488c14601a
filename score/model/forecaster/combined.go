package forecaster

import (
	"fmt"

	"github.com/onmart/onmart/forecast"
)

// Told is what the members say of the series of a panel at an origin: by member, then series.
type Told struct {
	Points  [][][]float64   // by member and series; nil for a series without an answer
	Spreads [][][][]float64 // by spread and series, by step and level; nil likewise
	Open    []bool          // by step of the horizon
	Young   [][]float64     // by series: what Young says of one below Model.Least, nil of others
}

// Question is what members are asked: about series of a panel, after its first known steps.
type Question struct {
	Known, Horizon int
	Series         []int
	Threads        int

	// pooled remembers what methods that learn from the whole panel said of it; nil remembers nothing.
	pooled map[string][]forecast.Fit
}

// Ask asks every member. Answers depend on nothing that came after, but for the closed steps, which are those of the
// view.
func (m *Model) Ask(v *View, net *Net, q Question) (*Told, error) {
	o := v.At(q.Known, q.Horizon)
	t := &Told{Open: make([]bool, q.Horizon), Young: make([][]float64, len(q.Series))}
	for k := range t.Open {
		t.Open[k] = o.Open(k)
	}
	own := map[string][][][]float64{} // by member, series, step and level
	if m.networked() && net != nil {
		var err error
		if own[Network], err = net.Forecast(o, q.Series, m.Signed, q.Threads); err != nil {
			return nil, err
		}
	}
	options := forecast.Options{
		Horizon: q.Horizon,
		Seasons: v.d.Seasons,
		Threads: q.Threads,
		Signed:  m.Signed,
		Closed:  v.closed,
		Levels:  m.Levels,
	}
	for _, name := range m.Members {
		points := make([][]float64, len(q.Series))
		if name == Network {
			for i := range q.Series {
				points[i] = m.pointOf(own[Network], i)
			}
		} else if err := m.askMethod(v, name, q, options, points, own); err != nil {
			return nil, err
		}
		t.Points = append(t.Points, points)
	}
	for _, name := range m.Spreads {
		spreads := own[name]
		if spreads == nil {
			spreads = make([][][]float64, len(q.Series))
		}
		if name == Climatology {
			for i, s := range q.Series {
				if v.p.Series[s].First < q.Known {
					row := v.Climatology(s, q.Known, m.Levels)
					spreads[i] = make([][]float64, q.Horizon)
					for k := range spreads[i] {
						spreads[i][k] = row
					}
				}
			}
		}
		t.Spreads = append(t.Spreads, spreads)
	}
	return t, m.askYoung(v, t, q, options)
}

// askMethod asks a method of package forecast. points are its means, own its quantiles where it makes them.
func (m *Model) askMethod(
	v *View,
	name string,
	q Question,
	o forecast.Options,
	points [][]float64,
	own map[string][][][]float64,
) error {
	method, err := forecast.Lookup(name)
	if err != nil {
		return err
	}
	series := q.Series
	if method.Pooled {
		series = v.all()
	}
	panel, at := v.cut(q.Known, series)
	if len(panel.Series) == 0 {
		return nil
	}
	key := fmt.Sprintf("%s %d %d", name, q.Known, q.Horizon)
	fits := q.pooled[key]
	if fits == nil {
		if fits, err = forecast.Means(panel, name, o); err != nil {
			return err
		}
		if method.Pooled && q.pooled != nil {
			q.pooled[key] = fits
		}
	}
	of := make(map[int]int, len(fits)) // place of a series among the fits
	for k, i := range at {
		of[series[i]] = k
	}
	if method.Quantiles {
		own[name] = make([][][]float64, len(q.Series))
	}
	for i, s := range q.Series {
		k, ok := of[s]
		if !ok {
			continue
		}
		points[i] = fits[k].Mean
		if method.Quantiles {
			own[name][i] = byStep(fits[k].Quantiles, q.Horizon)
		}
	}
	return nil
}

// byStep turns quantiles by level and step into those by step and level.
func byStep(q [][]float64, horizon int) [][]float64 {
	out := make([][]float64, horizon)
	for k := range out {
		out[k] = make([]float64, len(q))
		for l := range q {
			out[k][l] = q[l][k]
		}
	}
	return out
}

// askYoung asks for the series that are too young for the members.
func (m *Model) askYoung(v *View, t *Told, q Question, o forecast.Options) error {
	var young, at []int
	for i, s := range q.Series {
		if v.p.Series[s].First < q.Known && v.Age(s, q.Known) < m.Least {
			young, at = append(young, s), append(at, i)
		}
	}
	if len(young) == 0 {
		return nil
	}
	panel, _ := v.cut(q.Known, young)
	fits, err := forecast.Means(panel, Young, o)
	if err != nil {
		return err
	}
	for k, i := range at {
		t.Young[i] = fits[k].Mean
	}
	return nil
}

// pointOf is the network's point for a series.
func (m *Model) pointOf(quantiles [][][]float64, i int) []float64 {
	if quantiles == nil || quantiles[i] == nil {
		return nil
	}
	out := make([]float64, len(quantiles[i]))
	for k, q := range quantiles[i] {
		if m.Point == PointMedian {
			out[k] = interpolate(m.Levels, q, .5)
		} else {
			out[k] = MeanOf(m.Levels, q)
		}
	}
	return out
}

// all are the series of the panel.
func (v *View) all() []int {
	out := make([]int, len(v.p.Series))
	for i := range out {
		out[i] = i
	}
	return out
}

// cut is the panel of some series as it was known; at says which of them each is.
func (v *View) cut(known int, series []int) (p *forecast.Panel, at []int) {
	all := &forecast.Panel{Step: v.p.Step, Times: v.p.Times, Zone: v.p.Zone, Covariates: v.p.Covariates}
	for _, s := range series {
		all.Series = append(all.Series, v.p.Series[s])
	}
	return all.Cut(known)
}

// Combine weights what the members said of the i-th of the series they were asked about.
func (m *Model) Combine(v *View, t *Told, i, series, known int) (forecast.Forecast, error) {
	class := v.Class(series, known)
	mix := m.Mixtures[class]
	if mix == nil {
		return forecast.Forecast{}, fmt.Errorf("the model has no weights for %s series", class)
	}
	s := &v.p.Series[series]
	points := make([][]float64, len(m.Members))
	spreads := make([][][]float64, len(m.Spreads))
	if t.Young[i] != nil {
		// One point for all members, and the series' own few values beside the errors of others.
		for k := range points {
			points[k] = t.Young[i]
		}
		for k, name := range m.Spreads {
			if name == Climatology {
				spreads[k] = t.Spreads[k][i]
			}
		}
	} else {
		for k := range points {
			points[k] = t.Points[k][i]
		}
		for k := range spreads {
			spreads[k] = t.Spreads[k][i]
		}
	}
	return m.Mix(mix, points, spreads, t.Open, m.Design.ErrorScale(s.Y[:known-s.First])), nil
}
