package features

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/onmart/onmart/datasets"
)

// Future gives the covariates of a panel that are known in advance, for steps that have no transactions yet: the
// calendar's, and those of dimension tables. It is for one goroutine.
type Future struct {
	q     *Panel
	known []int // of the plan's covariates
	names []string
}

// NewFuture is the future of a panel's plan. It panics where the plan is of another shape.
func (p *Plan) NewFuture() *Future {
	f := &Future{q: p.NewPanel()}
	columns := p.panel.columns[1+len(p.panel.meas):]
	for i, c := range p.panel.covs {
		if c.known && (c.kind == covCalendar || c.kind == covTable || c.kind == covFlag) {
			f.known = append(f.known, i)
			f.names = append(f.names, columns[i].Name)
		}
	}
	return f
}

// FutureOf is the future of a panel data set, by the spec and the tables that it carries.
func FutureOf(d *datasets.Dataset) (*Future, error) {
	made, err := MadeFrom(d)
	if err != nil {
		return nil, err
	}
	if made.Shape != Panels {
		return nil, fmt.Errorf("%s holds %s, not a panel", d.Dir(), d.Manifest().Kind)
	}
	spec, err := Parse(d.Dir(), []byte(made.Spec))
	if err != nil {
		return nil, err
	}
	tables, err := OpenTables(d.Dir(), spec)
	if err != nil {
		return nil, err
	}
	plan, err := spec.Plan(made.Input, tables)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Dir(), err)
	}
	return plan.NewFuture(), nil
}

// Columns are the covariates that At gives, in the order of the panel's columns. One that the spec calls known though
// it comes from transactions is not among them: its future is for the caller to say.
func (f *Future) Columns() []string { return slices.Clone(f.names) }

// Steps are when the next n steps begin, the first being the one that holds `from`: of a panel data set, its
// MadePanel.Closed. Microseconds since 1970 UTC.
func (f *Future) Steps(from int64, n int) []int64 {
	steps := make([]int64, 0, n)
	for range n {
		start, end := f.q.grid.Step(from)
		steps = append(steps, start)
		from = end
	}
	return steps
}

// Series finds a series by its keys, as text, in the order of the spec. One that the panel does not have is fine.
func (f *Future) Series(keys ...string) (int, error) {
	pan := f.q.pan
	if len(keys) != len(pan.keys) {
		return 0, fmt.Errorf("a series of %s has %d keys, found %d", f.q.p.spec.name, len(pan.keys), len(keys))
	}
	for k := range keys {
		if pan.keys[k].text {
			f.q.keys[k] = f.q.keyNames[k].ofString(keys[k])
			continue
		}
		n, err := strconv.ParseInt(keys[k], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s %q is not a whole number", pan.keys[k].name, keys[k])
		}
		f.q.keys[k] = f.q.keyNames[k].ofInt(n)
	}
	return int(f.q.number(f.q.keys)), nil
}

// At fills dst, one value for each of Columns, for a series of Series and the step that begins at `step`. What a table
// does not have is 0; it returns how many of the values come from a table that has a row for each day, such as a
// calendar, but none for this one.
func (f *Future) At(series int, step int64, dst []float64) (missing int) {
	pan := f.q.pan
	day := int64(math.MinInt64)
	for i, at := range f.known {
		c := &pan.covs[at]
		if c.kind == covCalendar {
			dst[i] = pan.clock(c.calendar, step)
			continue
		}
		if day == math.MinInt64 {
			day = pan.grid.date(step)
		}
		j := &pan.dims[c.join]
		group := f.q.groups[c.join][series]
		if len(j.parts) == 0 {
			group = j.alone()
		}
		row := j.at(group, day)
		if row == none && j.dated {
			missing++
		}
		dst[i] = c.read(j, row)
	}
	return missing
}
