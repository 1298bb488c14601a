package features

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/datasets"
)

// Difference is what Diff found between two outputs, A and B.
type Difference struct {
	Equal    bool     `json:"equal"`
	Identity []string `json:"identity"` // the columns that name a row; none where rows are compared by position
	RowsA    int64    `json:"rows_a"`
	RowsB    int64    `json:"rows_b"`
	Compared int64    `json:"rows_compared"` // rows that both have

	OnlyA      []string     `json:"columns_only_in_a"`
	OnlyB      []string     `json:"columns_only_in_b"`
	Types      []string     `json:"columns_of_another_type"` // in both and not compared, in words
	RowsOnlyA  int64        `json:"rows_only_in_a"`
	RowsOnlyB  int64        `json:"rows_only_in_b"`
	FirstOnlyA string       `json:"first_row_only_in_a,omitempty"`
	FirstOnlyB string       `json:"first_row_only_in_b,omitempty"`
	Redefined  []string     `json:"redefined"` // features whose definition is another one in B, by their fingerprints
	Columns    []ColumnDiff `json:"columns"`   // that were compared, in A's order

	firstOnlyAt [2]int64
}

// ColumnDiff is how one column differs over the rows that both have. Values are compared by their bits.
type ColumnDiff struct {
	Name   string  `json:"name"`
	Differ int64   `json:"differ"`       // rows with other values
	MaxAbs float64 `json:"max_absolute"` // greatest |a-b| of two finite numbers
	MaxRel float64 `json:"max_relative"` // greatest |a-b| / max(|a|, |b|)
	Nulls  int64   `json:"null_in_one"`  // of the rows that differ: with a value in one only
	NaN    int64   `json:"not_finite"`   // of the rows that differ: with a NaN or an infinity
	// The first row of A that differs, and both values.
	Row string `json:"first_row,omitempty"`
	A   string `json:"first_a,omitempty"`
	B   string `json:"first_b,omitempty"`

	field   datasets.Field
	at      int // its place among the columns that are read
	firstAt int64
}

// diffSlack is how much further one side must be in time before a row is given up that it does not have: two outputs
// of one log may disagree about the order of rows that are this near to each other, a day, which is a spec's lateness
// where it says none.
const diffSlack = datasets.Day

// Diff compares two outputs row by row. Rows belong together by their identity: trans_id and line of transactions,
// keys and step of a panel, user, item and time of interactions, seq of a log; rows of one identity in their order.
// Without such columns they belong together by position. Both are read once, in order, and at most the rows of a day
// around the place are held.
//
// progress, where given, is called with the rows read of both.
func Diff(ctx context.Context, a, b *Source, threads int, progress func(done, total int64)) (*Difference, error) {
	d := &differ{out: Difference{RowsA: a.Rows, RowsB: b.Rows}}
	if a.Kind != b.Kind {
		return nil, fmt.Errorf("%s holds %s and %s holds %s: want two of one kind", a.Name, a.Kind, b.Name, b.Kind)
	}
	if err := d.columns(a, b); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := datasets.ReadOptions{Columns: d.names, Threads: max(1, (threads+1)/2)}
	d.sides[0] = diffSide{stream: a.stream(ctx, o), mark: math.MinInt64, pending: map[string]*pendingRow{}}
	d.sides[1] = diffSide{stream: b.stream(ctx, o), mark: math.MinInt64, pending: map[string]*pendingRow{}}
	if err := d.run(ctx, func() {
		if progress != nil {
			progress(d.sides[0].row+d.sides[1].row, a.Rows+b.Rows)
		}
	}); err != nil {
		return nil, err
	}
	d.out.Equal = d.out.same()
	return &d.out, nil
}

func (d *Difference) same() bool {
	if len(d.OnlyA)+len(d.OnlyB)+len(d.Types) > 0 || d.RowsOnlyA+d.RowsOnlyB > 0 {
		return false
	}
	return !slices.ContainsFunc(d.Columns, func(c ColumnDiff) bool { return c.Differ > 0 })
}

// differ is a Diff under way.
type differ struct {
	out   Difference
	names []string // columns read of both: identity, time if there is one, then those compared
	ids   int      // how many of them are the identity
	time  int      // the place of the time, -1 without
	sides [2]diffSide
	buf   []byte
}

// diffSide is one of the two, as far as it was read.
type diffSide struct {
	stream  *sourceStream
	b       *datasets.Batch // nil once at the end
	i       int             // the next row of b
	row     int64           // rows passed
	mark    int64           // greatest time of them
	done    bool
	pending map[string]*pendingRow
	queue   []*pendingRow // in order; matched ones among them
	gone    int           // of queue
}

// pendingRow is a row whose other has not been seen.
type pendingRow struct {
	key     string
	b       *datasets.Batch
	i       int
	row     int64
	mark    int64
	matched bool
	next    *pendingRow // of the same identity
}

// columns decides what names a row and what is compared.
func (d *differ) columns(a, b *Source) error {
	identity := identityOf(a, b)
	for _, name := range identity {
		fa, fb := a.Schema.Fields[a.Schema.Index(name)], b.Schema.Fields[b.Schema.Index(name)]
		if fa.Type != fb.Type {
			return fmt.Errorf("the column %s that names a row is of type %s in %s and %s in %s: the rows cannot be told to "+
				"belong together",
				name, fa.Type, a.Name, fb.Type, b.Name)
		}
	}
	d.out.Identity, d.out.OnlyA, d.out.OnlyB, d.out.Types = identity, []string{}, []string{}, []string{}
	d.out.Redefined, d.out.Columns = []string{}, []ColumnDiff{}
	d.names, d.ids, d.time = slices.Clone(identity), len(identity), -1
	for _, name := range []string{datasets.TransDatetime, datasets.StepTime, datasets.InteractionTime} {
		i, j := a.Schema.Index(name), b.Schema.Index(name)
		if i < 0 || j < 0 || a.Schema.Fields[i].Type != datasets.Time || b.Schema.Fields[j].Type != datasets.Time {
			continue
		}
		if d.time = slices.Index(d.names, name); d.time < 0 {
			d.time = len(d.names)
			d.names = append(d.names, name)
		}
		break
	}
	for _, f := range a.Schema.Fields {
		j := b.Schema.Index(f.Name)
		switch {
		case j < 0:
			d.out.OnlyA = append(d.out.OnlyA, f.Name)
		case slices.Contains(identity, f.Name):
		case b.Schema.Fields[j].Type != f.Type || b.Schema.Fields[j].Scale != f.Scale:
			d.out.Types = append(d.out.Types, fmt.Sprintf("%s: %s in A, %s in B", f.Name, typeWords(f),
				typeWords(b.Schema.Fields[j])))
		default:
			at := slices.Index(d.names, f.Name) // the time may be read already
			if at < 0 {
				at = len(d.names)
				d.names = append(d.names, f.Name)
			}
			d.out.Columns = append(d.out.Columns, ColumnDiff{Name: f.Name, field: f, at: at})
		}
	}
	for _, f := range b.Schema.Fields {
		if a.Schema.Index(f.Name) < 0 {
			d.out.OnlyB = append(d.out.OnlyB, f.Name)
		}
	}
	if a.Made != nil && b.Made != nil {
		d.redefined(a.Made.Nodes, b.Made.Nodes)
	}
	return nil
}

func typeWords(f datasets.Field) string {
	if f.Type == datasets.Decimal {
		return fmt.Sprintf("decimal with %d digits", f.Scale)
	}
	return f.Type.String()
}

// redefined lists the features that have one name and two definitions.
func (d *differ) redefined(a, b []Node) {
	of := map[string]string{}
	for _, n := range b {
		of[n.Name] = n.Fingerprint
	}
	for _, n := range a {
		if other, ok := of[n.Name]; ok && other != n.Fingerprint {
			d.out.Redefined = append(d.out.Redefined, n.Name)
		}
	}
}

// identityOf is the columns that name a row, which both must have; none where there are none.
func identityOf(a, b *Source) []string {
	var want []string
	switch a.Kind {
	case datasets.KindLog:
		want = []string{datasets.Seq}
	case datasets.KindPanel:
		if a.Made != nil && a.Made.Panel != nil {
			want = append(slices.Clone(a.Made.Panel.Keys), datasets.StepTime)
		}
	case datasets.KindInteractions:
		if a.Made != nil && a.Made.Interactions != nil {
			want = []string{a.Made.Interactions.User, a.Made.Interactions.Item, datasets.InteractionTime}
		}
	default:
		want = []string{datasets.TransID}
		if a.Schema.Index(datasets.Line) >= 0 && b.Schema.Index(datasets.Line) >= 0 {
			want = append(want, datasets.Line)
		}
	}
	for _, name := range want {
		if a.Schema.Index(name) < 0 || b.Schema.Index(name) < 0 {
			return []string{}
		}
	}
	return append([]string{}, want...)
}

// run goes through both.
func (d *differ) run(ctx context.Context, progress func()) error {
	a, b := &d.sides[0], &d.sides[1]
	for {
		for s := range d.sides {
			if err := d.sides[s].fill(progress); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if a.done && b.done {
			break
		}
		if !a.done && !b.done {
			if n := d.together(); n > 0 {
				d.compare(a.b, a.i, b.b, b.i, n, a.row)
				a.pass(d.time, n)
				b.pass(d.time, n)
				continue
			}
		}
		// The heads differ: the side that is behind in time goes first, so that neither runs away.
		switch {
		case b.done || !a.done && a.ahead(d.time) < b.ahead(d.time):
			d.take(0)
		case a.done || b.ahead(d.time) < a.ahead(d.time):
			d.take(1)
		default:
			d.take(0)
			d.take(1)
		}
		d.giveUp(0, b)
		d.giveUp(1, a)
	}
	d.giveUp(0, b)
	d.giveUp(1, a)
	return nil
}

// fill makes sure that there is a row, or marks the side done.
func (s *diffSide) fill(progress func()) error {
	for !s.done && (s.b == nil || s.i >= s.b.N) {
		b, err := s.stream.next()
		if err != nil {
			return err
		}
		s.b, s.i, s.done = b, 0, b == nil
		progress()
	}
	return nil
}

// ahead is the greatest time up to and including the next row.
func (s *diffSide) ahead(time int) int64 {
	if time < 0 {
		return s.row
	}
	if c := &s.b.Columns[time]; !c.IsNull(s.i) {
		return max(s.mark, c.Ints[s.i])
	}
	return s.mark
}

// pass leaves n rows behind.
func (s *diffSide) pass(time, n int) {
	if time >= 0 {
		c := &s.b.Columns[time]
		for i, t := range c.Ints[s.i : s.i+n] {
			if t > s.mark && !c.IsNull(s.i+i) {
				s.mark = t
			}
		}
	}
	s.i += n
	s.row += int64(n)
}

// together counts the rows from here on that have the same identities in both.
func (d *differ) together() int {
	a, b := &d.sides[0], &d.sides[1]
	n := min(a.b.N-a.i, b.b.N-b.i)
	for c := range d.ids {
		x, y := &a.b.Columns[c], &b.b.Columns[c]
		if x.Strings != nil {
			n = samePrefix(x.Strings[a.i:a.i+n], y.Strings[b.i:b.i+n])
		} else {
			n = samePrefix(x.Ints[a.i:a.i+n], y.Ints[b.i:b.i+n])
		}
		for i := range n {
			if (x.Null != nil || y.Null != nil) && x.IsNull(a.i+i) != y.IsNull(b.i+i) {
				n = i
				break
			}
		}
	}
	// A row that waits under this identity came first and is the one that belongs to the other side's.
	if len(a.pending)+len(b.pending) > 0 {
		for i := range n {
			key := d.key(a.b, a.i+i)
			if a.pending[string(key)] != nil || b.pending[string(key)] != nil {
				return i
			}
		}
	}
	return n
}

// samePrefix is how many values from the start are equal.
func samePrefix[T comparable](a, b []T) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// key is a row's identity as bytes, valid until the next call.
func (d *differ) key(b *datasets.Batch, i int) []byte {
	d.buf = d.buf[:0]
	for c := range d.ids {
		col := &b.Columns[c]
		switch {
		case col.IsNull(i):
			d.buf = append(d.buf, 0)
		case col.Strings != nil:
			d.buf = appendKey(append(d.buf, 1), datasets.String, 0, col.Strings[i])
		default:
			d.buf = appendKey(append(d.buf, 2), datasets.Int64, col.Ints[i], "")
		}
	}
	return d.buf
}

// take passes one row of a side: the other side's row that waits for it is compared, or it waits itself.
func (d *differ) take(side int) {
	s, o := &d.sides[side], &d.sides[1-side]
	if d.ids == 0 { // by position there is nothing to wait for
		d.alone(side, s.b, s.i, s.row)
		s.pass(d.time, 1)
		return
	}
	key := d.key(s.b, s.i)
	i, row := s.i, s.row
	s.pass(d.time, 1)
	if p := o.pending[string(key)]; p != nil {
		p.matched = true
		if p.next != nil {
			o.pending[p.key] = p.next
		} else {
			delete(o.pending, p.key)
		}
		if side == 0 {
			d.compare(s.b, i, p.b, p.i, 1, row)
		} else {
			d.compare(p.b, p.i, s.b, i, 1, p.row)
		}
		return
	}
	p := &pendingRow{key: string(key), b: s.b, i: i, row: row, mark: s.mark}
	s.queue = append(s.queue, p)
	last := s.pending[p.key]
	if last == nil {
		s.pending[p.key] = p
		return
	}
	for last.next != nil {
		last = last.next
	}
	last.next = p
}

// past tells whether a side has come so far that a waiting row of the other's will not be among its rows to come.
func (d *differ) past(s *diffSide, p *pendingRow) bool {
	switch {
	case d.time < 0:
		return s.row > p.row+tableRows
	case s.i < s.b.N:
		return s.ahead(d.time) > p.mark+diffSlack
	}
	return s.mark > p.mark+diffSlack
}

// giveUp counts the waiting rows of a side that the other one is past.
func (d *differ) giveUp(side int, other *diffSide) {
	s := &d.sides[side]
	for s.gone < len(s.queue) {
		p := s.queue[s.gone]
		if !p.matched {
			if !other.done && !d.past(other, p) {
				break
			}
			d.alone(side, p.b, p.i, p.row)
			if p.next != nil {
				s.pending[p.key] = p.next
			} else {
				delete(s.pending, p.key)
			}
		}
		s.queue[s.gone] = nil
		s.gone++
	}
	if s.gone > len(s.queue)/2 {
		s.queue = append(s.queue[:0], s.queue[s.gone:]...)
		s.gone = 0
	}
}

// alone counts a row that the other side does not have.
func (d *differ) alone(side int, b *datasets.Batch, i int, row int64) {
	n, first := &d.out.RowsOnlyA, &d.out.FirstOnlyA
	if side == 1 {
		n, first = &d.out.RowsOnlyB, &d.out.FirstOnlyB
	}
	if *n++; *n == 1 || row < d.out.firstOnlyAt[side] {
		*first, d.out.firstOnlyAt[side] = d.name(b, i, row), row
	}
}

// name is a row for people: its identity, or its number from 1.
func (d *differ) name(b *datasets.Batch, i int, row int64) string {
	if d.ids == 0 {
		return "row " + strconv.FormatInt(row+1, 10)
	}
	s := ""
	for c := range d.ids {
		if c > 0 {
			s += ", "
		}
		s += d.names[c] + " " + valueText(&b.Columns[c], b.Schema.Fields[c], i)
	}
	return s
}

// valueText is a value for people, with all of its digits.
func valueText(c *datasets.Column, f datasets.Field, i int) string {
	switch {
	case c.IsNull(i):
		return "null"
	case f.Type == datasets.String:
		return strconv.Quote(c.Strings[i])
	case f.Type == datasets.Float64:
		return floatText(c.Floats[i])
	case f.Type == datasets.Time:
		return datasets.FormatTime(c.Ints[i])
	case f.Type == datasets.Decimal:
		return decimalText(c.Ints[i], f.Scale)
	}
	return strconv.FormatInt(c.Ints[i], 10)
}

// floatText is a number with all of its digits.
func floatText(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// decimalText is a decimal with all of its digits.
func decimalText(v int64, scale int) string {
	digits, sign := strconv.FormatInt(v, 10), ""
	if v < 0 {
		digits, sign = digits[1:], "-"
	}
	if short := scale + 1 - len(digits); short > 0 {
		digits = strings.Repeat("0", short) + digits
	}
	if scale == 0 {
		return sign + digits
	}
	return sign + digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
}

// compare compares n rows that belong together; row is the number of the first in A.
func (d *differ) compare(a *datasets.Batch, i int, b *datasets.Batch, j, n int, row int64) {
	d.out.Compared += int64(n)
	for k := range d.out.Columns {
		c := &d.out.Columns[k]
		x, y := &a.Columns[c.at], &b.Columns[c.at]
		if x.Null == nil && y.Null == nil && sameValues(x, y, i, j, n) {
			continue
		}
		for r := range n {
			p, q := i+r, j+r
			if x.IsNull(p) == y.IsNull(q) && (x.IsNull(p) || sameValues(x, y, p, q, 1)) {
				continue
			}
			if c.Differ++; c.Differ == 1 || row+int64(r) < c.firstAt {
				c.firstAt = row + int64(r)
				c.Row, c.A, c.B = d.name(a, p, c.firstAt), valueText(x, c.field, p), valueText(y, c.field, q)
			}
			c.measure(x, y, p, q)
		}
	}
}

// sameValues tells whether n values have the same bits, nulls aside.
func sameValues(x, y *datasets.Column, i, j, n int) bool {
	switch {
	case x.Floats != nil:
		b := y.Floats[j : j+n]
		for k, v := range x.Floats[i : i+n] {
			if math.Float64bits(v) != math.Float64bits(b[k]) {
				return false
			}
		}
		return true
	case x.Strings != nil:
		return slices.Equal(x.Strings[i:i+n], y.Strings[j:j+n])
	}
	return slices.Equal(x.Ints[i:i+n], y.Ints[j:j+n])
}

// measure takes up how far two values are from each other.
func (c *ColumnDiff) measure(x, y *datasets.Column, i, j int) {
	var a, b float64
	switch {
	case x.IsNull(i) != y.IsNull(j):
		c.Nulls++
		return
	case x.Strings != nil:
		return
	case x.Floats != nil:
		a, b = x.Floats[i], y.Floats[j]
	default:
		a, b = scaled(x.Ints[i], c.field.Scale), scaled(y.Ints[j], c.field.Scale)
	}
	apart := math.Abs(a - b)
	if apart-apart != 0 {
		c.NaN++
		return
	}
	c.MaxAbs = max(c.MaxAbs, apart)
	if apart > 0 {
		c.MaxRel = max(c.MaxRel, apart/max(math.Abs(a), math.Abs(b)))
	}
}
