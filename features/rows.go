package features

import (
	"slices"
	"strconv"

	"github.com/onmart/onmart/datasets"
)

// rowReader applies a rowPlan to batches. It is for one goroutine.
type rowReader struct {
	p    *Plan
	rows *rowPlan
	cols []datasets.Column // of the batch at hand, then the joined ones
	buf  []byte
	memo []map[string]bool // by condition: what a pattern says of the texts seen
	own  []datasets.Column // memory of the joined columns
}

// memoLimit is how many texts of a column are remembered with what a pattern says of them: products and shops
// repeat, and of a column whose texts do not, more would be memory without use.
const memoLimit = 1 << 16

func newRowReader(p *Plan, rows *rowPlan) rowReader {
	r := rowReader{p: p, rows: rows, memo: make([]map[string]bool, len(rows.where))}
	for i := range r.memo {
		r.memo[i] = map[string]bool{}
	}
	for _, j := range rows.joins {
		r.own = append(r.own, make([]datasets.Column, len(j.take))...)
	}
	return r
}

// begin takes a batch and looks its joined columns up.
func (r *rowReader) begin(in *datasets.Batch) {
	r.cols = append(r.cols[:0], in.Columns...)
	at := 0
	for j := range r.rows.joins {
		own := r.own[at : at+len(r.rows.joins[j].take)]
		r.join(&r.rows.joins[j], in.N, own)
		r.cols = append(r.cols, own...)
		at += len(own)
	}
}

// join fills the columns that one join adds. A row that the table does not have gets nulls.
func (r *rowReader) join(j *rowJoin, n int, own []datasets.Column) {
	for k := range own {
		own[k].Null = append(own[k].Null[:0], make([]bool, n)...)
		switch j.rows.Schema.Fields[j.take[k]].Type {
		case datasets.String:
			own[k].Strings = slices.Grow(own[k].Strings[:0], n)[:n]
		case datasets.Float64:
			own[k].Floats = slices.Grow(own[k].Floats[:0], n)[:n]
		default:
			own[k].Ints = slices.Grow(own[k].Ints[:0], n)[:n]
		}
	}
	for i := range n {
		row, found := r.lookup(j, i)
		for k := range own {
			c, from := &own[k], &j.rows.Columns[j.take[k]]
			c.Null[i] = !found || from.IsNull(row)
			switch {
			case c.Null[i]:
			case from.Strings != nil:
				c.Strings[i] = from.Strings[row]
			case from.Floats != nil:
				c.Floats[i] = from.Floats[row]
			default:
				c.Ints[i] = from.Ints[row]
			}
		}
	}
}

func (r *rowReader) lookup(j *rowJoin, i int) (row int, found bool) {
	if j.index == nil {
		c := &r.cols[j.on[0]]
		var at int32
		switch {
		case c.IsNull(i):
		case j.ints != nil:
			at, found = j.ints[c.Ints[i]]
		default:
			at, found = j.texts[c.Strings[i]]
		}
		return int(at), found
	}
	r.buf = r.buf[:0]
	for _, c := range j.on {
		col := &r.cols[c]
		if col.IsNull(i) {
			return 0, false
		}
		if col.Strings != nil {
			r.buf = appendKey(r.buf, datasets.String, 0, col.Strings[i])
		} else {
			r.buf = appendKey(r.buf, datasets.Int64, col.Ints[i], "")
		}
	}
	at, found := j.index[string(r.buf)]
	return int(at), found
}

// isTransaction tells a transaction from a label or another event.
func (r *rowReader) isTransaction(i int) bool {
	return r.p.event < 0 || r.cols[r.p.event].Strings[i] == datasets.EventTransaction
}

// chosen tells whether a row meets the spec's conditions; one on a column without a value is not met.
func (r *rowReader) chosen(i int) bool {
	for w := range r.rows.where {
		if !r.meets(w, i) {
			return false
		}
	}
	return true
}

func (r *rowReader) meets(w, i int) bool {
	x := &r.rows.where[w]
	c := &r.cols[x.col]
	if c.IsNull(i) {
		return false
	}
	switch x.field.Type {
	case datasets.String:
		v := c.Strings[i]
		return (x.in == nil || x.in[v]) && !x.notIn[v] && (x.matches == nil || r.matches(w, v))
	case datasets.Int64:
		if x.in != nil || x.notIn != nil {
			v := strconv.FormatInt(c.Ints[i], 10)
			if x.in != nil && !x.in[v] || x.notIn[v] {
				return false
			}
		}
	}
	if x.above == nil && x.below == nil {
		return true
	}
	var v float64
	if x.field.Type == datasets.Float64 {
		v = c.Floats[i]
	} else {
		v = scaled(c.Ints[i], x.field.Scale)
	}
	return (x.above == nil || v > *x.above) && (x.below == nil || v < *x.below)
}

func (r *rowReader) matches(w int, v string) bool {
	yes, seen := r.memo[w][v]
	if !seen {
		yes = r.rows.where[w].matches.MatchString(v)
		if len(r.memo[w]) < memoLimit {
			r.memo[w][v] = yes
		}
	}
	return yes
}

// isReturn tells a return; negative is a row that takes goods back without being marked as a return.
func (r *rowReader) isReturn(i int) (back, negative bool) {
	if !r.rows.returns {
		return false, false
	}
	if f := r.rows.flag; f >= 0 && !r.cols[f].IsNull(i) && r.cols[f].Ints[i] != 0 {
		return true, false
	}
	if t := r.rows.target; t >= 0 && r.cols[r.rows.vals[t].col].Ints[i] < 0 {
		return true, r.rows.flag >= 0
	}
	return false, false
}
