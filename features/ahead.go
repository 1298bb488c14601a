package features

import "github.com/onmart/onmart/datasets"

// Ahead appends to out, a batch of the plan's Schema, rows of the n steps that follow those that are over, for every
// series that has begun: keys, step, and the covariates that are known in advance from the calendar and the tables. All
// other columns are 0. The panel stays as it is.
func (q *Panel) Ahead(n int, out *datasets.Batch) error {
	if err := q.p.takes(out); err != nil {
		return err
	}
	if q.closed == beginning || len(q.order) == 0 {
		return nil
	}
	counts := q.counts // values that a table does not have are counted when their step is over
	defer func() { q.counts = counts }()
	grid := q.grid
	for from := q.closed; n > 0; n-- {
		_, to := grid.Step(from)
		q.ahead(from, out)
		from = to
	}
	return nil
}

// ahead appends the rows of one step.
func (q *Panel) ahead(from int64, out *datasets.Batch) {
	n, pan := len(q.order), q.pan
	copy(grow(&out.Columns[0].Strings, n), q.texts)
	at := 1
	for k := range pan.keys {
		if pan.keys[k].text {
			copy(grow(&out.Columns[at].Strings, n), q.columns[k].Strings)
		} else {
			copy(grow(&out.Columns[at].Ints, n), q.columns[k].Ints)
		}
		at++
	}
	step := grow(&out.Columns[at].Ints, n)
	for i := range step {
		step[i] = from
	}
	at++
	first := at + 1 + len(pan.meas)
	for ; at < len(out.Columns); at++ {
		clear(grow(&out.Columns[at].Floats, n))
	}
	for c := range pan.covs {
		cov := &pan.covs[c]
		if cov.known && cov.carry < 0 && cov.kind != covLag {
			values := out.Columns[first+c].Floats
			q.covariate(cov, from, values[len(values)-n:])
		}
	}
	out.N += n
}
