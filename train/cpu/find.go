package cpu

import (
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/train/program"
)

// Find does one step on one worker, instruction by instruction, on a machine of its own: without regions, without
// chains of instructions in one pass, and with a place for every buffer, so that operands and results can be looked at
// in between. The bits are those of Run.
func (e *exec) Find(step int) (*program.Where, error) {
	if e.closed {
		return nil, errClosed
	}
	if err := e.set.CheckRun(e.schedule(), step, 1, len(e.set.Slots)); err != nil {
		return nil, fmt.Errorf("cpu: find: %w", err)
	}
	p, perEpoch, train := e.set.Train, e.data.StepsPerEpoch(e.set.Train.Rows), e.data.Train
	at := step % perEpoch
	if at == perEpoch-1 && train.Len()%p.Rows != 0 {
		p = e.set.Rest
	}
	m := (&machine{p: p, kernels: e.train.kernels, store: e.store, slots: make([]float64, len(e.slots)), workers: 1,
		single: true}).outline()
	m.build(aligned(m.plan.bytes), e.set.Slots)
	w := newWorker(m.kernels, 0, 1, m.pack)
	w.data, w.train = e.data, train
	w.order = program.NewPermutation(e.data.Seed, uint32(step/perEpoch), train.Len())
	w.step, w.first, w.rate, w.rows = uint32(step), at*e.set.Train.Rows, e.data.Rates[step], p.Rows
	m.prepare(w)
	f := finder{machine: m, w: w, origins: make([]*program.Where, len(p.Instrs)),
		writer: slices.Repeat([]int{-1}, len(p.Buffers))}
	return f.run(), nil
}

// Unsound looks through weights and optimizer state, in the order of their names.
func (e *exec) Unsound() *program.Where {
	for _, t := range e.store.tensors {
		constant := slices.ContainsFunc(e.set.Consts, func(c program.TensorSpec) bool { return c.Name == t.Name })
		if i := t.unsound(nil); i >= 0 && !constant {
			row, column := placeOf(i, t.Shape)
			return &program.Where{Step: -1, Instr: -1, Held: t.Name, Buffer: t.Name, Row: row, Column: column, DataRow: -1,
				Value: t.at(i)}
		}
	}
	return nil
}

var _ program.Finder = (*exec)(nil)

// at is one element.
func (t tensor) at(i int) float64 {
	if t.f64 != nil {
		return t.f64[i]
	}
	return float64(t.f32[i])
}

func (t tensor) len() int { return max(len(t.f32), len(t.f64)) }

// unsound is the first element that is not finite, but for those that are known, or -1.
func (t tensor) unsound(known []bool) int {
	if i := firstUnsound(t.f32, known); i >= 0 {
		return i
	}
	return firstUnsound(t.f64, known)
}

func firstUnsound[T float32 | float64](x []T, known []bool) int {
	for i, v := range x {
		if v-v != 0 && (known == nil || !known[i]) { // NaN or Inf
			return i
		}
	}
	return -1
}

// allUnsound marks all such elements, nil where there are none.
func (t tensor) allUnsound() []bool {
	first := t.unsound(nil)
	if first < 0 {
		return nil
	}
	all := make([]bool, t.len())
	for i := first; i < len(all); i++ {
		v := t.at(i)
		all[i] = v-v != 0
	}
	return all
}

// spread is the least and the greatest element.
func (t tensor) spread() (least, utmost float64) {
	least, utmost = math.Inf(1), math.Inf(-1)
	for i := range t.len() {
		least, utmost = min(least, t.at(i)), max(utmost, t.at(i))
	}
	return least, utmost
}

// placeOf is the place of an element in a tensor: the row along the first dimension and the place within it; a vector
// is one row.
func placeOf(i int, shape []int) (row, column int) {
	width := 1
	for _, d := range shape[min(1, len(shape)-1):] {
		width *= d
	}
	return i / width, i % width
}

// finder follows what is not finite through one step.
type finder struct {
	*machine
	w       *worker
	origins []*program.Where // by instruction: where what is not finite in its results has it from, nil where they are finite
	writer  []int            // by buffer: the last instruction that wrote it, -1 where none has
}

// run is where the first slot, weight or piece of state has it from that is not finite any more, or nil.
func (f *finder) run() *program.Where {
	for k := 0; k < len(f.phases); {
		i := f.phases[k].instr
		end := k
		for end < len(f.phases) && f.phases[end].instr == i {
			end++
		}
		do := func() {
			for ; k < end; k++ {
				f.plain(f.w, &f.phases[k].step, nil)
			}
		}
		if i < 0 {
			do() // panels, which nothing reads after this
			continue
		}
		if where := f.watch(i, do); where != nil {
			return where
		}
	}
	return nil
}

// lasting tells whether a buffer outlives the step.
func (f *finder) lasting(id int) bool {
	k := f.p.Buffers[id].Kind
	return k == program.Param || k == program.State || k == program.Const
}

// watch does instruction i and says where what it left not finite in something that lasts has it from.
func (f *finder) watch(i int, do func()) *program.Where {
	in := &f.p.Instrs[i]
	operands := slices.Clone(in.Args)
	known := make([][]bool, len(in.Outs)) // what was not finite before in weights that it updates
	for k, id := range in.Outs {
		if f.lasting(id) {
			known[k] = f.mem[id].allUnsound()
			operands = append(operands, id)
		}
	}
	origin, spreads := f.before(i, operands)
	do()
	for _, id := range in.Outs {
		f.writer[id] = i
	}
	for k, id := range in.Outs {
		at := f.mem[id].unsound(known[k])
		if at < 0 {
			continue
		}
		if origin == nil {
			origin = f.where(i, id, at)
			origin.Operands = spreads
		}
		f.origins[i] = origin
		if f.lasting(id) || f.p.Buffers[id].Kind == program.Slot {
			return origin
		}
	}
	return nil
}

// before looks at the operands of instruction i: the earliest place that one of them is not finite from, nil where all
// are finite, and then the spread of each.
func (f *finder) before(i int, operands []int) (origin *program.Where, spreads []program.Spread) {
	for _, id := range operands {
		at := f.mem[id].unsound(nil)
		if at < 0 {
			if origin == nil {
				s := program.Spread{Buffer: f.p.Operand(id)}
				s.Least, s.Utmost = f.mem[id].spread()
				spreads = append(spreads, s)
			}
			continue
		}
		var from *program.Where
		if k := f.writer[id]; k >= 0 {
			from = f.origins[k]
		}
		if from == nil {
			from = f.where(i, id, at)
			from.Held, from.DataRow = f.p.Buffers[id].Name, -1
		}
		if origin == nil || from.Instr < origin.Instr {
			origin = from
		}
	}
	return origin, spreads
}

// where is an element of a buffer that instruction i reads or writes.
func (f *finder) where(i, id, at int) *program.Where {
	in, b := &f.p.Instrs[i], &f.p.Buffers[id]
	row, column := placeOf(at, b.Shape)
	where := &program.Where{Step: int(f.w.step), Program: f.p.Name, Instr: i, Op: in.Op, Expr: in.Attr.Expr, Node: in.Node,
		Buffer: f.p.Operand(id), Row: row, Column: column, DataRow: -1, Value: f.mem[id].at(at)}
	if b.PerRow {
		width := b.Len() / b.Shape[0]
		where.Row, where.Column = at/width, at%width
		where.DataRow = f.w.train.From + f.w.order.At(f.w.first+where.Row)
	}
	if in.Op == program.Gather {
		where.Source = in.Attr.Column
	}
	return where
}
