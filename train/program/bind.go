package program

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// What every backend checks before it believes its caller. The errors carry no package: the backend puts its
// name in front.

// Held is a tensor that an Exec holds for its set.
type Held struct {
	Name  string
	DType DType
	Shape []int
}

// Len is the number of elements.
func (h *Held) Len() int {
	n := 1
	for _, d := range h.Shape {
		n *= d
	}
	return n
}

// Holds lists the params, state and consts of the set by name; a const has the type that the programs give it.
func (s *Set) Holds() []Held {
	var out []Held
	for _, specs := range [][]TensorSpec{s.Params, s.State, s.Consts} {
		for _, t := range specs {
			out = append(out, Held{t.Name, F32, slices.Clone(t.Shape)})
		}
	}
	consts := map[string]DType{}
	for _, p := range s.programs() {
		for i := range p.Buffers {
			if b := &p.Buffers[i]; b.Kind == Const {
				consts[b.Name] = b.DType
			}
		}
	}
	for i := range out {
		if d, ok := consts[out[i].Name]; ok {
			out[i].DType = d
		}
	}
	slices.SortFunc(out, func(a, b Held) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// programs are those that there are.
func (s *Set) programs() []*Program {
	var ps []*Program
	for _, p := range []*Program{s.Train, s.Rest, s.Forward} {
		if p != nil {
			ps = append(ps, p)
		}
	}
	return ps
}

// CheckTensors refuses tensors for Import: one that is missing, misshapen, given twice or, unless extra, not held.
func CheckTensors(held []Held, ts Tensors, extra bool) error {
	byName := map[string]*Tensor{}
	for i := range ts {
		if byName[ts[i].Name] != nil {
			return fmt.Errorf("tensor %q is given twice", ts[i].Name)
		}
		byName[ts[i].Name] = &ts[i]
	}
	for i := range held {
		h := &held[i]
		g := byName[h.Name]
		delete(byName, h.Name)
		if g == nil {
			return fmt.Errorf("tensor %q %v is missing", h.Name, h.Shape)
		}
		if g.DType != h.DType || !slices.Equal(g.Shape, h.Shape) {
			return fmt.Errorf("tensor %q is %s %v, want %s %v", h.Name, g.DType, g.Shape, h.DType, h.Shape)
		}
		f32, f64 := h.Len(), 0
		if h.DType == F64 {
			f32, f64 = 0, h.Len()
		}
		if len(g.F32) != f32 || len(g.F64) != f64 {
			return fmt.Errorf("tensor %q has %d F32 and %d F64 elements for %s %v", h.Name, len(g.F32), len(g.F64), h.DType, h.Shape)
		}
	}
	for i := range ts {
		if !extra && byName[ts[i].Name] != nil {
			return fmt.Errorf("tensor %q is not part of the set", ts[i].Name)
		}
	}
	return nil
}

// Column returns the bound column of that name, or nil: a linear search, a model has a few columns.
func (d *Data) Column(name string) *Column {
	for i := range d.Columns {
		if d.Columns[i].Name == name {
			return &d.Columns[i]
		}
	}
	return nil
}

// CheckData reports every fault of data for Bind, joined, and returns its number of rows.
func (s *Set) CheckData(d *Data) (rows int, err error) {
	if len(d.Columns) > 0 {
		rows = d.Columns[0].Rows
	}
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("bind: "+format, args...)) }
	for i, c := range d.Columns {
		switch {
		case d.Column(c.Name) != &d.Columns[i]:
			fault("column %q is given twice", c.Name)
		case c.Rows != rows:
			fault("column %q has %d rows, %q has %d", c.Name, c.Rows, d.Columns[0].Name, rows)
		case c.Width < 1 || c.Rows < 0 || c.Rows > math.MaxInt32 || len(c.F32) != c.Rows*c.Width:
			fault("column %q has %d elements for %d rows of %d", c.Name, len(c.F32), c.Rows, c.Width)
		}
	}
	for _, p := range []*Program{s.Train, s.Rest} {
		if p != nil {
			errs = append(errs, d.gathers(p)...)
		}
	}
	if len(errs) == 0 { // the columns are as long as they say
		errs = s.checkIndices(d)
	}
	if s.Train != nil {
		errs = append(errs, s.schedule(d, rows)...)
	}
	return rows, errors.Join(errs...)
}

// gathers checks that every Gather of a program finds its column.
func (d *Data) gathers(p *Program) (errs []error) {
	for i, in := range p.Instrs {
		if in.Op != Gather {
			continue
		}
		width := p.Buffers[in.Outs[0]].Shape[1]
		if c := d.Column(in.Attr.Column); c == nil {
			errs = append(errs, fmt.Errorf("bind: column %q is missing; instruction %d of %s gathers it", in.Attr.Column, i, p.Name))
		} else if c.Width != width {
			errs = append(errs, fmt.Errorf("bind: column %q is %d wide; instruction %d of %s wants %d", c.Name, c.Width, i, p.Name, width))
		}
	}
	return errs
}

// index is an operand that names rows of a table.
type index struct {
	buf  int
	rows int // of the table
}

// indices are the index operands of an instruction whose operands are sound.
func (p *Program) indices(in *Instr) []index {
	rows := func(id int) int { return p.Buffers[id].Shape[0] }
	switch in.Op {
	case Lookup:
		return []index{{in.Args[1], rows(in.Args[0])}}
	case LookupDot, LookupWeighted:
		return []index{{in.Args[1], rows(in.Args[0])}}
	case CandidateSoftmax, CandidateSoftmaxGrad, CandidateBPR, CandidateBPRGrad:
		n := maxIndex // without logq there is no table to bound it
		if q := in.logQ(); q >= 0 {
			n = rows(in.Args[q])
		}
		return []index{{in.Args[1], n}}
	case SampledSoftmax, SampledSoftmaxGrad:
		return []index{{in.Args[2], rows(in.Args[4])}, {in.Args[3], rows(in.Args[4])}}
	case RowAdam, RowAdagrad, RowSGD:
		var is []index
		for _, u := range in.TableUses() {
			is = append(is, index{u.Idx, rows(in.Outs[0])})
		}
		return is
	case RowSumSquares:
		var is []index
		for _, u := range in.TableUses() {
			is = append(is, index{u.Idx, rows(in.Args[0])})
		}
		return is
	}
	return nil
}

// Indexed is the number of rows of the smallest table that a valid program takes a buffer for an index of, or 0 where
// it is not an index.
func (p *Program) Indexed(buf int) int {
	least := 0
	for i := range p.Instrs {
		for _, ix := range p.indices(&p.Instrs[i]) {
			if p.indexOf(ix.buf, buf, i) && (least == 0 || ix.rows < least) {
				least = ix.rows
			}
		}
	}
	return least
}

// indexOf says whether an index operand of instruction i is a buffer, or a Concat that the buffer is part of.
func (p *Program) indexOf(operand, buf, i int) bool {
	if operand == buf {
		return true
	}
	for i--; i >= 0; i-- {
		in := &p.Instrs[i]
		if !slices.Contains(in.Outs, operand) {
			continue
		}
		return in.Op == Concat && slices.ContainsFunc(in.Args, func(a int) bool { return p.indexOf(a, buf, i) })
	}
	return false
}

// CheckIndices refuses values that are no index of a table of so many rows: only whole numbers from 0 and -1, for none,
// are. The error names the first place, and no package and column.
func CheckIndices(x []float32, width, rows int) error {
	limit := float32(rows) // exact: at most 2^24
	for i, v := range x {
		if !(v >= -1 && v < limit) || v != float32(int32(v)) {
			return fmt.Errorf("row %d, place %d is %v, which is no index of %d rows: want a whole number from 0 to %d, or -1 for none",
				i/width, i%width, v, rows, rows-1)
		}
	}
	return nil
}

// checkIndices checks the columns that become indices: those that Gather takes, and those that Forward reads.
func (s *Set) checkIndices(d *Data) (errs []error) {
	least := map[string]int{}
	add := func(column string, rows int) {
		if n := least[column]; rows > 0 && (n == 0 || rows < n) {
			least[column] = rows
		}
	}
	for _, p := range []*Program{s.Train, s.Rest} {
		if p == nil {
			continue
		}
		for i := range p.Instrs {
			if in := &p.Instrs[i]; in.Op == Gather {
				add(in.Attr.Column, p.Indexed(in.Outs[0]))
			}
		}
	}
	if s.Forward != nil {
		for i := range s.Forward.Buffers {
			if b := &s.Forward.Buffers[i]; b.Kind == Input {
				add(b.Name, s.Forward.Indexed(i))
			}
		}
	}
	for i := range d.Columns {
		if c := &d.Columns[i]; least[c.Name] > 0 {
			if err := CheckIndices(c.F32, c.Width, least[c.Name]); err != nil {
				errs = append(errs, fmt.Errorf("bind: column %q: %w", c.Name, err))
			}
		}
	}
	return errs
}

// schedule checks that the batches of the programs cut the training rows.
func (s *Set) schedule(d *Data, rows int) (errs []error) {
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("bind: "+format, args...)) }
	if d.Train.From < 0 || d.Train.To > rows || d.Train.Len() < 1 {
		fault("training rows %d..%d of %d: want at least one, within the data", d.Train.From, d.Train.To, rows)
		return errs
	}
	switch left := d.Train.Len() % s.Train.Rows; {
	case left > 0 && s.Rest == nil:
		fault("%d training rows leave %d after batches of %d, and the set has no rest program", d.Train.Len(), left, s.Train.Rows)
	case left > 0 && s.Rest.Rows != left:
		fault("%d training rows leave %d after batches of %d, and the rest program has %d rows", d.Train.Len(), left, s.Train.Rows, s.Rest.Rows)
	}
	if len(d.Rates) > math.MaxUint32 {
		fault("%d steps: they are counted in 32 bits", len(d.Rates))
	}
	if err := checkRates(d.Rates); err != nil {
		fault("%w", err)
	}
	return errs
}

// checkRates names the first that is no learning rate.
func checkRates(rates []float32) error {
	for step, r := range rates {
		if !(r >= 0 && r <= math.MaxFloat32) {
			return fmt.Errorf("the learning rate of step %d is %v", step, r)
		}
	}
	return nil
}

// CheckRates refuses learning rates for SetRates; d is nil before Bind.
func (s *Set) CheckRates(d *Data, rates []float32) error {
	switch {
	case s.Train == nil:
		return errors.New("learning rates: the set has no training program")
	case d == nil:
		return errors.New("learning rates: Bind comes first")
	case len(rates) != len(d.Rates):
		return fmt.Errorf("learning rates: %d of them for %d steps", len(rates), len(d.Rates))
	}
	if err := checkRates(rates); err != nil {
		return fmt.Errorf("learning rates: %w", err)
	}
	return nil
}

// CheckRun refuses steps that the schedule of d does not have; d is nil before Bind.
func (s *Set) CheckRun(d *Data, first, n, slots int) error {
	switch {
	case s.Train == nil:
		return errors.New("run: the set has no training program")
	case d == nil:
		return errors.New("run: Bind comes first")
	case first < 0 || n < 0 || n > len(d.Rates)-first:
		return fmt.Errorf("run: steps %d..%d of %d", first, first+n, len(d.Rates))
	case slots != len(s.Slots):
		return fmt.Errorf("run: room for %d slots, the set has %d", slots, len(s.Slots))
	}
	return nil
}

// NotFinite is the error of a Run in which the sums of a slot ceased to be finite in a step: the training diverged,
// and the weights are of no use.
type NotFinite struct {
	Step  int
	Slot  string
	Value float64
}

func (e *NotFinite) Error() string {
	return fmt.Sprintf("run: step %d: slot %q became %v: the training diverged; lower the learning rate or look for NaN in the columns", e.Step, e.Slot, e.Value)
}

// CheckFinite is a *NotFinite where a slot is not finite after a step, else nil.
func (s *Set) CheckFinite(step int, slots []float64) error {
	for i, v := range slots {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return &NotFinite{step, s.Slots[i], v}
		}
	}
	return nil
}

// CheckEval refuses rows that are not bound, columns that the forward program cannot read, and an output of another
// size; d is nil before Bind.
func (s *Set) CheckEval(d *Data, r Range, out int) error {
	if d == nil {
		return errors.New("eval: Bind comes first")
	}
	rows := 0
	if len(d.Columns) > 0 {
		rows = d.Columns[0].Rows
	}
	if r.From < 0 || r.To < r.From || r.To > rows {
		return fmt.Errorf("eval: rows %d..%d of %d", r.From, r.To, rows)
	}
	for i := range s.Forward.Buffers {
		b := &s.Forward.Buffers[i]
		width := b.Len() / b.Shape[0]
		switch b.Kind {
		case Input:
			c := d.Column(b.Name)
			switch {
			case b.DType != F32:
				return fmt.Errorf("eval: input %q of the forward program is %s, and columns are F32", b.Name, b.DType)
			case c == nil:
				return fmt.Errorf("eval: column %q is missing; the forward program reads it", b.Name)
			case c.Width != width:
				return fmt.Errorf("eval: column %q is %d wide, the forward program wants %d", b.Name, c.Width, width)
			}
		case Output:
			if out != r.Len()*width {
				return fmt.Errorf("eval: room for %d values, %d rows of output %q have %d", out, r.Len(), b.Name, r.Len()*width)
			}
		}
	}
	return nil
}
