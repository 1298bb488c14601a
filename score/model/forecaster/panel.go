package forecaster

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/forecast"
)

// Columns names the columns of a panel's rows.
type Columns struct {
	Target     string
	Covariates []string // known up to the last step only
	Known      []string // known in advance
}

// all are the covariates, those of Known last.
func (c *Columns) all() []string { return slices.Concat(c.Covariates, c.Known) }

// History is a panel that grows: rows of closed steps are appended in the order of time.
type History struct {
	step    forecast.Step
	zone    *time.Location
	columns Columns
	times   []int64
	index   map[string]int
	series  []forecast.Series
	repeat  bool // a step without a row has the value before it; otherwise 0
}

// NewHistory is an empty one. repeat tells that a series without a row at a step keeps its last value; otherwise it
// sold nothing.
func NewHistory(step forecast.Step, zone *time.Location, columns Columns, repeat bool) *History {
	return &History{step: step, zone: zone, columns: columns, index: map[string]int{}, repeat: repeat}
}

// MaxSteps bounds the history of a panel: a wrong date would otherwise fill memory with zeros.
const MaxSteps = 200_000

// Append adds rows of closed steps. Rows are in the order of steps; a series has at most one row a step.
func (h *History) Append(b *datasets.Batch) error { return h.append(b, false) }

// Revise is Append where rows of steps that are there already replace them: an engine that goes on from an earlier
// instant closes its last steps again.
func (h *History) Revise(b *datasets.Batch) error { return h.append(b, true) }

func (h *History) append(b *datasets.Batch, revise bool) error {
	key, step := b.Column(features.ColumnSeries), b.Column(features.ColumnStep)
	target := b.Column(h.columns.Target)
	if key == nil || step == nil || target == nil {
		return fmt.Errorf(
			"the rows have no columns %s, %s and %s",
			features.ColumnSeries,
			features.ColumnStep,
			h.columns.Target,
		)
	}
	covariates, err := h.covariates(b)
	if err != nil {
		return err
	}
	for r := range b.N {
		t := step.Ints[r]
		old := revise && h.has(t)
		if !old {
			if err := h.reach(t, key.Strings[r]); err != nil {
				return err
			}
		}
		y := target.Floats[r]
		if target.IsNull(r) {
			y = 0
		}
		if math.IsNaN(y) || math.IsInf(y, 0) {
			return fmt.Errorf("series %q at %s: %s is %v", key.Strings[r], datasets.FormatTime(t), h.columns.Target, y)
		}
		if old && h.replace(key.Strings[r], t, y) {
			continue
		}
		if err := h.put(key.Strings[r], t, y, covariates, r); err != nil {
			return err
		}
	}
	return nil
}

// covariates are their columns in a batch.
func (h *History) covariates(b *datasets.Batch) ([]*datasets.Column, error) {
	names := h.columns.all()
	out := make([]*datasets.Column, len(names))
	for i, name := range names {
		if out[i] = b.Column(name); out[i] == nil {
			return nil, fmt.Errorf("the rows have no column %s", name)
		}
	}
	return out, nil
}

// Ahead takes the values that are known of the steps after the history, as rows of those steps; rows of steps that are
// there already, of series that are not, and of steps beyond a gap are passed over.
func (h *History) Ahead(b *datasets.Batch) error {
	h.close()
	key, step := b.Column(features.ColumnSeries), b.Column(features.ColumnStep)
	if key == nil || step == nil {
		return fmt.Errorf("the rows have no columns %s and %s", features.ColumnSeries, features.ColumnStep)
	}
	covariates, err := h.covariates(b)
	if err != nil {
		return err
	}
	first := len(h.columns.Covariates)
	for i := range h.series {
		s := &h.series[i]
		for c := first; c < len(s.X); c++ {
			s.X[c] = s.X[c][:len(s.Y):len(s.Y)]
		}
	}
	next := map[int]int64{} // by series: the step that its next value is of
	for r := range b.N {
		i, ok := h.index[key.Strings[r]]
		if !ok || len(h.times) == 0 || step.Ints[r] <= h.times[len(h.times)-1] {
			continue
		}
		want, begun := next[i]
		if !begun {
			want = h.step.Next(h.times[len(h.times)-1], h.zone)
		}
		if step.Ints[r] != want {
			continue
		}
		next[i] = h.step.Next(want, h.zone)
		s := &h.series[i]
		for c := first; c < len(s.X); c++ {
			s.X[c] = append(s.X[c], valueAt(covariates[c], r, s.X[c]))
		}
	}
	return nil
}

// valueAt is a covariate's value in a row; one that is unknown is as before.
func valueAt(column *datasets.Column, row int, before []float64) float64 {
	x := math.NaN()
	if !column.IsNull(row) {
		x = column.Floats[row]
	}
	if math.IsNaN(x) || math.IsInf(x, 0) {
		x = 0
		if n := len(before); n > 0 {
			x = before[n-1]
		}
	}
	return x
}

// has tells whether a step is one of the grid.
func (h *History) has(t int64) bool {
	_, found := slices.BinarySearch(h.times, t)
	return found
}

// replace gives a series another value at a step that it has; false where it has none there.
func (h *History) replace(key string, t int64, y float64) bool {
	i, ok := h.index[key]
	if !ok {
		return false
	}
	at, _ := slices.BinarySearch(h.times, t)
	s := &h.series[i]
	if at -= s.First; at < 0 || at >= len(s.Y) {
		return false
	}
	if s.Y[at] != y {
		s.Y = slices.Clone(s.Y) // a panel that was handed out keeps its own
		s.Y[at] = y
	}
	return true
}

// reach extends the grid up to the step that starts at t.
func (h *History) reach(t int64, key string) error {
	if len(h.times) == 0 {
		h.times = append(h.times, t)
		return nil
	}
	for {
		last := h.times[len(h.times)-1]
		if t == last {
			return nil
		}
		next := h.step.Next(last, h.zone)
		switch {
		case t < last:
			return fmt.Errorf(
				"series %q: its row of %s comes after rows of %s: rows must be in the order of time",
				key,
				datasets.FormatTime(t),
				datasets.FormatTime(last),
			)
		case t < next:
			return fmt.Errorf("series %q: %s is no start of a %s in %v: the one before starts at %s and the next at %s", key,
				datasets.FormatTime(t), h.step, h.zone, datasets.FormatTime(last), datasets.FormatTime(next))
		case len(h.times) >= MaxSteps:
			return fmt.Errorf(
				"series %q: its row of %s is more than %d steps after the first: is the date right?",
				key,
				datasets.FormatTime(t),
				MaxSteps,
			)
		}
		h.close()
		h.times = append(h.times, next)
	}
}

// close fills the last step of the series that had no row there.
func (h *History) close() {
	n := len(h.times)
	for i := range h.series {
		s := &h.series[i]
		if s.First+len(s.Y) < n {
			y := 0.
			if h.repeat {
				y = s.Y[len(s.Y)-1]
			}
			s.Y = append(s.Y, y)
			for c := range s.X {
				if len(s.X[c]) < len(s.Y) {
					s.X[c] = append(s.X[c], s.X[c][len(s.X[c])-1])
				}
			}
		}
	}
}

func (h *History) put(key string, t int64, y float64, covariates []*datasets.Column, row int) error {
	i, ok := h.index[key]
	if !ok {
		i = len(h.series)
		h.index[key] = i
		h.series = append(h.series, forecast.Series{Key: key, First: len(h.times) - 1, X: make([][]float64, len(covariates))})
	}
	s := &h.series[i]
	if h.times[len(h.times)-1] != t {
		return fmt.Errorf(
			"series %q: its row of %s is of a step that is over, and the series began later",
			key,
			datasets.FormatTime(t),
		)
	}
	if s.First+len(s.Y) == len(h.times) {
		return fmt.Errorf("series %q has two rows at %s: sum them first", key, datasets.FormatTime(t))
	}
	s.Y = append(s.Y, y)
	for c, column := range covariates {
		// What was said of the step in advance gives way to what is so.
		x := s.X[c][:min(len(s.X[c]), len(s.Y)-1)]
		s.X[c] = append(x, valueAt(column, row, x))
	}
	return nil
}

// Panel is the history so far; later rows do not change it. Its series are in the order of their keys.
func (h *History) Panel() *forecast.Panel {
	h.close()
	p := &forecast.Panel{Step: h.step, Times: slices.Clip(h.times), Zone: h.zone}
	for i, name := range h.columns.all() {
		p.Covariates = append(p.Covariates, forecast.Covariate{Name: name, Known: i >= len(h.columns.Covariates)})
	}
	for i := range h.series {
		s := h.series[i]
		s.Y = slices.Clip(s.Y)
		s.X = slices.Clone(s.X)
		for c := range s.X {
			s.X[c] = slices.Clip(s.X[c])
		}
		p.Series = append(p.Series, s)
	}
	slices.SortFunc(p.Series, func(a, b forecast.Series) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return p
}

// Steps is how many there are.
func (h *History) Steps() int { return len(h.times) }

// HistoryOf takes up a panel.
func HistoryOf(p *forecast.Panel, columns Columns, repeat bool) *History {
	h := NewHistory(p.Step, p.Zone, columns, repeat)
	h.times = slices.Clip(p.Times)
	for i := range p.Series {
		h.index[p.Series[i].Key] = i
		h.series = append(h.series, p.Series[i])
	}
	return h
}

// WriteHistory writes the last steps of a panel as one Parquet file with the columns series, step, the target and the
// covariates.
func WriteHistory(w io.Writer, p *forecast.Panel, columns Columns, last int) error {
	schema := &datasets.Schema{Fields: []datasets.Field{
		{Name: features.ColumnSeries, Type: datasets.String}, {Name: features.ColumnStep, Type: datasets.Time},
		{Name: columns.Target, Type: datasets.Float64}}}
	for _, name := range columns.all() {
		schema.Fields = append(schema.Fields, datasets.Field{Name: name, Type: datasets.Float64})
	}
	b := datasets.NewBatch(schema, 0)
	from := max(0, len(p.Times)-last)
	for t := from; t < len(p.Times); t++ {
		for i := range p.Series {
			s := &p.Series[i]
			if t < s.First {
				continue
			}
			b.Columns[0].Strings = append(b.Columns[0].Strings, s.Key)
			b.Columns[1].Ints = append(b.Columns[1].Ints, p.Times[t])
			b.Columns[2].Floats = append(b.Columns[2].Floats, s.Y[t-s.First])
			for c := range columns.all() {
				b.Columns[3+c].Floats = append(b.Columns[3+c].Floats, s.X[c][t-s.First])
			}
			b.N++
		}
	}
	return datasets.WriteTable(w, b)
}
