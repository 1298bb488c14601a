package gpu

import (
	"slices"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels"
	"github.com/onmart/onmart/train/program"
)

// span is a run of device memory.
type span struct{ lo, hi cuda.DevicePtr }

func (s span) meets(t span) bool { return s.lo < t.hi && t.lo < s.hi }

// work is one op of a plan with what it reads and writes, and the instructions it does.
type work struct {
	op            kernels.Op
	reads, writes []span
	instrs        []int
}

// plan is a program as a list of works. It is bound to addresses, not to a device: paper addresses make a
// plan that can be priced.
type plan struct {
	p     *program.Program
	setup []kernels.Op // done once: what no step changes
	works []work
	input map[string]span // by name, the Inputs of a forward program
	out   span            // the Output of a forward program
}

// ground is what plans stand on: the addresses that do not belong to one program, and the facts of a
// schedule that kernels are given by value.
type ground struct {
	tuning *kernels.Tuning
	// take gives a number of bytes of device memory, aligned to 256.
	take func(bytes int64) cuda.DevicePtr
	// tensor is where a Param, State or Const lies.
	tensor map[string]span
	slots  cuda.DevicePtr
	names  []string // of the slots
	state  kernels.State
	rates  cuda.DevicePtr
	// powers are the tables of 1/(1-beta^t) by step, by beta.
	powers  map[float64]cuda.DevicePtr
	columns map[string]column
	staged  bool
	seed    uint64
	train   program.Range
	batch   int
}

// column is where Gather finds a bound column: all of it, or the staging buffer of it.
type column struct {
	at    cuda.DevicePtr
	width int
}

// planner makes the plan of one program.
type planner struct {
	*ground
	plan
	rows int // of this plan: those of the program, or as many as a forward program is stretched to
	mem  []span
	done []bool // instructions that an earlier op has taken in
	// waiting are AdamW instructions and Accumulates that are put off to the end of the step.
	waiting []int
	ends    []kernels.Accumulation
	endings []span // what the accumulations read
	endIns  []int
	partial map[int]slicedGrad // gradients that lie in slices, by buffer
}

type slicedGrad struct {
	at     cuda.DevicePtr
	slices int
}

// newPlan plans a valid program for so many rows: those of the program, or any number for a forward program,
// whose rows do not know of each other.
//
// Every temp gets memory of its own, where the program's own plan lets temps share it: independent
// instructions may then run at once, and an op that does the work of several may write what the
// program keeps until later. What that costs is megabytes.
func newPlan(g *ground, p *program.Program, rows int) *plan {
	l := &planner{ground: g, plan: plan{p: p, input: map[string]span{}}, rows: rows, done: make([]bool, len(p.Instrs)), partial: map[int]slicedGrad{}}
	l.layout()
	for i := range p.Instrs {
		if !l.done[i] {
			l.lower(i)
		}
	}
	l.flush()
	l.finish()
	return &l.plan
}

// elements of a buffer in this plan.
func (l *planner) elements(id int) int {
	b := &l.p.Buffers[id]
	if b.PerRow {
		return b.Len() / b.Shape[0] * l.rows
	}
	return b.Len()
}

func (l *planner) layout() {
	for i := range l.p.Buffers {
		b := &l.p.Buffers[i]
		bytes := int64(l.elements(i) * b.DType.Size())
		var s span
		switch b.Kind {
		case program.Param, program.State, program.Const:
			s = l.tensor[b.Name]
		case program.Slot:
			s.lo = l.slots + cuda.DevicePtr(8*slices.Index(l.names, b.Name))
			s.hi = s.lo + 8
		default:
			s = l.scratch(bytes)
		}
		if b.Kind == program.Input {
			l.input[b.Name] = s
		}
		if b.Kind == program.Output {
			l.out = s
		}
		l.mem = append(l.mem, s)
	}
}

func (l *planner) scratch(bytes int64) span {
	at := l.take(bytes)
	return span{at, at + cuda.DevicePtr(bytes)}
}

func (l *planner) emit(op kernels.Op, reads, writes []span, instrs ...int) {
	l.works = append(l.works, work{op: op, reads: reads, writes: writes, instrs: instrs})
}

// spans of buffers.
func (l *planner) spans(ids ...int) []span {
	var s []span
	for _, id := range ids {
		s = append(s, l.mem[id])
	}
	return s
}

func (l *planner) at(id int) cuda.DevicePtr { return l.mem[id].lo }

// width is the number of elements in one row of a buffer.
func (l *planner) width(id int) int { return l.p.Buffers[id].Len() / l.p.Buffers[id].Shape[0] }

// height is the number of rows of a buffer in this plan.
func (l *planner) height(id int) int { return l.elements(id) / l.width(id) }

// simple emits the op of one instruction that reads its Args and writes its Outs.
func (l *planner) simple(i int, op kernels.Op) {
	in := &l.p.Instrs[i]
	l.emit(op, l.spans(in.Args...), l.spans(in.Outs...), i)
}

func (l *planner) lower(i int) {
	in := &l.p.Instrs[i]
	l.before(i)
	switch in.Op {
	case program.Gather:
		l.gather(i)
	case program.MatMul:
		l.matmul(i)
	case program.Activate:
		l.simple(i, &kernels.Map{Kind: kernels.MapActivate, A: l.at(in.Args[0]), Y: l.at(in.Outs[0]), N: l.elements(in.Outs[0]), Act: act(in.Attr.Act)})
	case program.ActGrad:
		l.simple(i, &kernels.Map{Kind: kernels.MapActGrad, A: l.at(in.Args[0]), B: l.at(in.Args[1]), Y: l.at(in.Outs[0]), N: l.elements(in.Outs[0]), Act: act(in.Attr.Act)})
	case program.ColSum:
		l.colSum(i)
	case program.Add:
		l.simple(i, &kernels.Map{Kind: kernels.MapAdd, A: l.at(in.Args[0]), B: l.at(in.Args[1]), Y: l.at(in.Outs[0]), N: l.elements(in.Outs[0])})
	case program.Scale:
		l.simple(i, &kernels.Map{Kind: kernels.MapScale, A: l.at(in.Args[0]), Y: l.at(in.Outs[0]), N: l.elements(in.Outs[0]), Scale: in.Attr.Scale})
	case program.Fill:
		l.fill(i)
	case program.Dropout:
		l.emit(&kernels.Map{Kind: kernels.MapDropout, A: l.at(in.Args[0]), Y: l.at(in.Outs[0]), N: l.elements(in.Outs[0]), Drop: l.drop(in)},
			append(l.spans(in.Args...), l.step()), l.spans(in.Outs...), i)
	case program.Concat:
		l.concat(i)
	case program.Slice:
		l.simple(i, &kernels.Columns{X: l.at(in.Args[0]), Y: l.at(in.Outs[0]), M: l.height(in.Outs[0]), N: l.width(in.Outs[0]),
			LdX: l.width(in.Args[0]), From: in.Attr.From, LdY: l.width(in.Outs[0])})
	case program.SliceGrad:
		l.simple(i, &kernels.Columns{X: l.at(in.Args[0]), Y: l.at(in.Outs[0]), M: l.height(in.Outs[0]), N: l.width(in.Args[0]),
			LdX: l.width(in.Args[0]), LdY: l.width(in.Outs[0]), To: in.Attr.From, Zero: true})
	case program.BCE:
		terms := l.scratch(int64(4 * l.height(in.Args[0])))
		l.emit(&kernels.BCE{Z: l.at(in.Args[0]), T: l.at(in.Args[1]), W: l.at(in.Args[2]), Loss: l.at(in.Outs[0]), Terms: terms.lo, M: l.height(in.Args[0])},
			l.spans(in.Args...), append(l.spans(in.Outs...), terms), i)
	case program.BCEGrad:
		l.simple(i, &kernels.BCEGrad{Z: l.at(in.Args[0]), T: l.at(in.Args[1]), W: l.at(in.Args[2]), DLoss: l.at(in.Args[3]), DZ: l.at(in.Outs[0]), M: l.height(in.Outs[0])})
	case program.Accumulate:
		l.accumulate(i)
	case program.AdamW:
		l.waiting = append(l.waiting, i)
	case program.Standardize:
		l.simple(i, &kernels.Standardize{X: l.at(in.Args[0]), Mean: l.at(in.Args[1]), Scale: l.at(in.Args[2]), Log: l.at(in.Args[3]), Y: l.at(in.Outs[0]),
			M: l.height(in.Outs[0]), N: l.width(in.Outs[0])})
	case program.Calibrate:
		l.simple(i, &kernels.Calibrate{Z: l.at(in.Args[0]), AB: l.at(in.Args[1]), P: l.at(in.Outs[0]), M: l.height(in.Outs[0])})
	case program.Lookup:
		l.simple(i, &kernels.Lookup{Table: l.at(in.Args[0]), Idx: l.at(in.Args[1]), Y: l.at(in.Outs[0]), M: l.height(in.Outs[0]), W: l.width(in.Args[1]),
			N: l.height(in.Args[0]), D: l.width(in.Args[0])})
	case program.Sample:
		l.emit(&kernels.Sample{State: l.state, CDF: l.at(in.Args[0]), Idx: l.at(in.Outs[0]), K: l.elements(in.Outs[0]), N: l.elements(in.Args[0]),
			Site: in.Attr.Site, Seed: l.seed}, append(l.spans(in.Args...), l.step()), l.spans(in.Outs...), i)
	case program.RowDot:
		l.simple(i, &kernels.RowDot{A: l.at(in.Args[0]), B: l.at(in.Args[1]), S: l.at(in.Outs[0]), M: l.height(in.Args[0]), D: l.width(in.Args[0])})
	case program.RowScale:
		l.simple(i, &kernels.RowScale{X: l.at(in.Args[0]), S: l.at(in.Args[1]), Y: l.at(in.Outs[0]), M: l.height(in.Args[0]), D: l.width(in.Args[0])})
	case program.SampledSoftmax:
		terms, op := l.scratch(int64(4*l.height(in.Args[1]))), l.softmax(in)
		op.Loss, op.Terms = l.at(in.Outs[0]), terms.lo
		l.emit(&op, l.spans(in.Args...), append(l.spans(in.Outs...), terms), i)
	case program.SampledSoftmaxGrad:
		l.simple(i, &kernels.SampledSoftmaxGrad{SampledSoftmax: l.softmax(in), DLoss: l.at(in.Args[6]), DPos: l.at(in.Outs[0]), DNeg: l.at(in.Outs[1])})
	case program.Pinball:
		sums, op := l.scratch(int64(4*l.height(in.Args[1]))), l.pinball(in)
		op.Loss, op.Sums = l.at(in.Outs[0]), sums.lo
		l.table(&op, &op.Table)
		l.emit(&op, l.spans(in.Args...), append(l.spans(in.Outs...), sums), i)
	case program.PinballGrad:
		op := &kernels.PinballGrad{Pinball: l.pinball(in), DLoss: l.at(in.Args[3]), DY: l.at(in.Outs[0])}
		l.table(op, &op.Table)
		l.simple(i, op)
	case program.RowAdam:
		l.rowAdam(i)
	default:
		panic("gpu: no kernel for " + string(in.Op)) // Validate refuses what is not in Ops
	}
}

// softmax is the operands that a sampled softmax and its gradient share.
func (l *planner) softmax(in *program.Instr) kernels.SampledSoftmax {
	a := in.Args
	return kernels.SampledSoftmax{Pos: l.at(a[0]), Neg: l.at(a[1]), PI: l.at(a[2]), NI: l.at(a[3]), LogQ: l.at(a[4]), W: l.at(a[5]),
		M: l.height(a[1]), K: l.width(a[1]), N: l.elements(a[4])}
}

// pinball is the operands that a pinball loss and its gradient share.
func (l *planner) pinball(in *program.Instr) kernels.Pinball {
	a := in.Args
	return kernels.Pinball{Y: l.at(a[0]), T: l.at(a[1]), W: l.at(a[2]), M: l.height(a[1]), H: l.width(a[1]),
		Levels: slices.Clone(in.Attr.Levels[:in.Attr.Levels.Len()])}
}

// rowAdam sorts the indices, for which it needs no gradient: the sort runs beside the step from where the batch is gathered and the
// negatives are drawn. Then it updates the rows.
func (l *planner) rowAdam(i int) {
	in, at := &l.p.Instrs[i], l.p.Instrs[i].Attr
	var uses []kernels.TableUse
	var indices, gradients []span
	for k := 0; k < len(in.Args); k += 2 {
		idx, dy := in.Args[k], in.Args[k+1]
		uses = append(uses, kernels.TableUse{Idx: l.at(idx), DY: l.at(dy), Rows: l.height(idx), W: l.width(idx)})
		indices, gradients = append(indices, l.mem[idx]), append(gradients, l.mem[dy])
	}
	total, rows := kernels.Indices(uses)
	pairs := [2]span{l.scratch(int64(kernels.PairBytes * total)), l.scratch(int64(kernels.PairBytes * total))}
	share := l.scratch(int64(4 * rows))
	sort := &kernels.RowSort{Uses: uses, Pairs: [2]cuda.DevicePtr{pairs[0].lo, pairs[1].lo}, Share: share.lo, N: l.height(in.Outs[0])}
	counts := l.scratch(sort.CountBytes())
	sort.Counts = counts.lo
	l.table(sort, &sort.Table)
	l.emit(sort, indices, []span{pairs[0], pairs[1], counts, share}, i)
	op := &kernels.RowAdam{State: l.state, Rates: l.rates, C1: l.powers[at.Beta1], C2: l.powers[at.Beta2], Uses: uses, Pairs: sort.Sorted(), Share: share.lo,
		P: l.at(in.Outs[0]), M: l.at(in.Outs[1]), V: l.at(in.Outs[2]), N: l.height(in.Outs[0]), D: l.width(in.Outs[0]), B1: float32(at.Beta1), OB1: float32(1 - at.Beta1),
		B2: float32(at.Beta2), OB2: float32(1 - at.Beta2), Eps: float32(at.Eps), Decay: float32(at.Decay)}
	l.table(op, &op.Table)
	l.emit(op, append(gradients, pairs[0], pairs[1], share, l.step()), l.spans(in.Outs...), i)
}

func act(a program.Act) kernels.Act {
	switch a {
	case program.Relu:
		return kernels.Relu
	case program.Silu:
		return kernels.Silu
	}
	return kernels.None
}

// step is the state that tells kernels the step: whatever reads it comes before the end of the step, which counts it up.
func (l *planner) step() span { return span{l.state, l.state + kernels.StateBytes} }

func (l *planner) drop(in *program.Instr) kernels.Drop {
	return kernels.Drop{Rate: in.Attr.Rate, Site: in.Attr.Site, Seed: l.seed, State: l.state}
}

// before ends the updates that were put off, where instruction i must come after one of them.
func (l *planner) before(i int) {
	if l.conflicts(i) {
		l.flush()
	}
}

// conflicts tells whether instruction i touches what an update that was put off writes, or writes what it reads. An update may
// take the moments of another for its gradient, so updates are not excepted.
func (l *planner) conflicts(i int) bool {
	in := &l.p.Instrs[i]
	for _, w := range l.waiting {
		u := &l.p.Instrs[w]
		for _, o := range u.Outs {
			if slices.Contains(in.Args, o) || slices.Contains(in.Outs, o) {
				return true
			}
		}
		if slices.Contains(in.Outs, u.Args[0]) {
			return true
		}
	}
	return false
}

// gather fills all columns of a batch at once, as the rows are the same: those of the later Gathers too, but not where something
// between uses what is in the buffer until then.
func (l *planner) gather(first int) {
	op := &kernels.Gather{State: l.state, Rows: l.rows, Batch: l.batch, Base: l.train.From, Staged: l.staged,
		PerEpoch: (l.train.Len() + l.batch - 1) / l.batch}
	f := program.NewPermutation(l.seed, 0, l.train.Len()).Feistel()
	op.N, op.A, op.B, op.Site, op.Key = f.N, f.A, f.B, f.Site, f.Key
	reads := []span{l.step()}
	var writes []span
	var instrs []int
	for i := first; i < len(l.p.Instrs); i++ {
		in := &l.p.Instrs[i]
		if in.Op != program.Gather || l.done[i] || i > first && (l.conflicts(i) || l.touched(first, i, in.Outs[0])) {
			continue
		}
		c := l.columns[in.Attr.Column]
		op.Columns = append(op.Columns, kernels.GatherColumn{Src: c.at, Dst: l.at(in.Outs[0]), Width: c.width})
		writes, instrs, l.done[i] = append(writes, l.mem[in.Outs[0]]), append(instrs, i), true
	}
	l.table(op, &op.Table)
	l.emit(op, reads, writes, instrs...)
}

// touched tells whether an instruction from first on and before i reads or writes a buffer.
func (l *planner) touched(first, i, buf int) bool {
	for k := first; k < i; k++ {
		if in := &l.p.Instrs[k]; slices.Contains(in.Args, buf) || slices.Contains(in.Outs, buf) {
			return true
		}
	}
	return false
}

// table gives a tabled op its memory.
func (l *planner) table(op kernels.Tabled, at *cuda.DevicePtr) { *at = l.take(max(op.TableBytes(), 1)) }

// fill is done once, where nothing else writes the buffer.
func (l *planner) fill(i int) {
	out := l.p.Instrs[i].Outs[0]
	op := &kernels.Map{Kind: kernels.MapFill, Y: l.at(out), N: l.elements(out), Scale: l.p.Instrs[i].Attr.Scale}
	writers := 0
	for j := range l.p.Instrs {
		if slices.Contains(l.p.Instrs[j].Outs, out) {
			writers++
		}
	}
	if writers == 1 && l.p.Buffers[out].Kind == program.Temp {
		l.setup = append(l.setup, op)
		return
	}
	l.simple(i, op)
}

func (l *planner) concat(i int) {
	in := &l.p.Instrs[i]
	out, at := in.Outs[0], 0
	for _, a := range in.Args {
		n := l.width(a)
		op := &kernels.Columns{X: l.at(a), Y: l.at(out), M: l.height(out), N: n, LdX: n, LdY: l.width(out), To: at}
		l.emit(op, l.spans(a), l.spans(out), i)
		at += n
	}
}

// matmul takes in what follows a product elementwise, and cuts long sums of weight gradients into slices.
func (l *planner) matmul(i int) {
	in := &l.p.Instrs[i]
	a, out := in.Args[0], in.Outs[0]
	op := &kernels.MatMul{A: l.at(a), B: l.at(in.Args[1]), Y: l.at(out), M: l.height(out), N: l.width(out), K: l.width(a),
		TransA: in.Attr.TransA, TransB: in.Attr.TransB, Act: act(in.Attr.Act), Slices: 1}
	if op.TransA {
		op.K = l.height(a)
	}
	reads := l.spans(in.Args...)
	if len(in.Args) == 3 {
		op.Bias = l.at(in.Args[2])
	}
	if op.TransA && op.Bias == 0 && op.Act == kernels.None {
		if n := l.tuning.MatMulSlices(op.M, op.N, op.K); n > 1 {
			op.Slices = n
			l.sliced(i, op, &op.Y, n, reads)
			return
		}
	}
	writes, instrs := l.epilogue(i, op, &reads)
	l.emit(op, reads, writes, instrs...)
}

// sliced emits an op whose result comes in slices: into memory of its own, summed by the update if only that reads it,
// at once if not.
func (l *planner) sliced(i int, op kernels.Op, y *cuda.DevicePtr, n int, reads []span) {
	out := l.p.Instrs[i].Outs[0]
	parts := l.scratch(int64(4 * n * l.elements(out)))
	*y = parts.lo
	l.emit(op, reads, []span{parts}, i)
	if l.onlyUpdates(i, out) {
		l.partial[out] = slicedGrad{parts.lo, n}
		return
	}
	l.emit(&kernels.SumSlices{X: parts.lo, Y: l.at(out), N: l.elements(out), Slices: n}, []span{parts}, l.spans(out), i)
}

// onlyUpdates tells whether AdamW instructions alone touch what instruction i left in a temp.
func (l *planner) onlyUpdates(i, buf int) bool {
	if l.p.Buffers[buf].Kind != program.Temp {
		return false
	}
	for j := range l.p.Instrs {
		in := &l.p.Instrs[j]
		if j != i && (slices.Contains(in.Outs, buf) || slices.Contains(in.Args, buf) && (in.Op != program.AdamW || j < i)) {
			return false
		}
	}
	return true
}

// epilogue moves the activation, the dropout and the activation's gradient that follow product i into it. It returns
// what the op writes, and its instructions.
func (l *planner) epilogue(i int, op *kernels.MatMul, reads *[]span) (writes []span, instrs []int) {
	cur := l.p.Instrs[i].Outs[0]
	instrs = []int{i}
	writes = l.spans(cur)
	const plain, activated, dropped = 0, 1, 2
	stage := plain
	if op.Act != kernels.None {
		stage = activated
	}
	for {
		j := l.next(i, instrs[len(instrs)-1], cur)
		if j < 0 {
			return writes, instrs
		}
		in := &l.p.Instrs[j]
		out := in.Outs[0]
		keep := out != cur && l.readAfter(j, cur)
		switch {
		case in.Op == program.Activate && stage == plain && !(keep && op.Pre != 0):
			if keep {
				op.Pre, writes = l.at(cur), append(l.spans(out), l.mem[cur])
			} else {
				writes = l.spans(out)
			}
			op.Act, stage = act(in.Attr.Act), activated
		case in.Op == program.Dropout && stage < dropped && !keep:
			op.Drop, stage = l.drop(in), dropped
			*reads = append(*reads, l.step())
			writes[0] = l.mem[out]
		case in.Op == program.ActGrad && !keep && in.Args[1] != cur:
			op.Of, op.GradAct = l.at(in.Args[1]), act(in.Attr.Act)
			*reads = append(*reads, l.mem[in.Args[1]])
			writes[0] = l.mem[out]
			op.Y = l.at(out)
			l.done[j] = true
			return writes, append(instrs, j) // the last there can be
		default:
			return writes, instrs
		}
		op.Y, cur, l.done[j] = l.at(out), out, true
		instrs = append(instrs, j)
	}
}

// next is the instruction that touches buffer cur first after instruction last, if it is elementwise on cur and may be done
// right behind instruction i: nothing between writes what it reads or touches what it writes. -1 where there is none.
func (l *planner) next(i, last, cur int) int {
	if l.p.Buffers[cur].Kind != program.Temp {
		return -1
	}
	for j := last + 1; j < len(l.p.Instrs); j++ {
		in := &l.p.Instrs[j]
		if !slices.Contains(in.Args, cur) && !slices.Contains(in.Outs, cur) {
			continue
		}
		if l.done[j] || l.conflicts(j) || len(in.Args) == 0 || in.Args[0] != cur || in.Op != program.Activate && in.Op != program.Dropout && in.Op != program.ActGrad {
			return -1
		}
		out := in.Outs[0]
		for k := i + 1; k < j; k++ {
			between := &l.p.Instrs[k]
			if l.done[k] && slices.Contains(between.Outs, cur) {
				continue // it was taken into this op
			}
			for _, a := range in.Args[1:] {
				if slices.Contains(between.Outs, a) {
					return -1
				}
			}
			if out != cur && (slices.Contains(between.Outs, out) || slices.Contains(between.Args, out)) {
				return -1
			}
		}
		return j
	}
	return -1
}

// readAfter tells whether what buffer buf holds at instruction j is read after it.
func (l *planner) readAfter(j, buf int) bool {
	for k := j + 1; k < len(l.p.Instrs); k++ {
		in := &l.p.Instrs[k]
		if slices.Contains(in.Args, buf) {
			return true
		}
		if slices.Contains(in.Outs, buf) {
			return false
		}
	}
	return false
}

func (l *planner) colSum(i int) {
	in := &l.p.Instrs[i]
	x, out := in.Args[0], in.Outs[0]
	op := &kernels.ColSum{X: l.at(x), Y: l.at(out), M: l.height(x), N: l.width(x), Slices: 1}
	if n := l.tuning.ColSumSlices(op.M, op.N); n > 1 {
		op.Slices = n
		l.sliced(i, op, &op.Y, n, l.spans(x))
		return
	}
	l.simple(i, op)
}

// accumulate puts the sum off to the end of the step. A value that is overwritten before is copied.
func (l *planner) accumulate(i int) {
	in := &l.p.Instrs[i]
	a := kernels.Accumulation{Scale: float64(in.Attr.Scale), Slot: slices.Index(l.names, l.p.Buffers[in.Outs[0]].Name)}
	if len(in.Args) == 1 {
		x := l.mem[in.Args[0]]
		for j := i + 1; j < len(l.p.Instrs); j++ {
			if slices.Contains(l.p.Instrs[j].Outs, in.Args[0]) {
				kept := l.scratch(4)
				l.emit(&kernels.Map{Kind: kernels.MapScale, A: x.lo, Y: kept.lo, N: 1, Scale: 1}, []span{x}, []span{kept}, i)
				x = kept
				break
			}
		}
		a.X = x.lo
		l.endings = append(l.endings, x)
	}
	l.ends, l.endIns = append(l.ends, a), append(l.endIns, i)
}

// flush emits the updates that wait, as one op.
func (l *planner) flush() {
	if len(l.waiting) == 0 {
		return
	}
	op := &kernels.AdamW{State: l.state, Rates: l.rates}
	reads := []span{l.step()}
	var writes []span
	for _, i := range l.waiting {
		in := &l.p.Instrs[i]
		at, n := in.Attr, l.elements(in.Outs[0])
		t := kernels.AdamWTensor{P: l.at(in.Outs[0]), M: l.at(in.Outs[1]), V: l.at(in.Outs[2]), G: l.at(in.Args[0]), N: n, Slices: 1,
			C1: l.powers[at.Beta1], C2: l.powers[at.Beta2], B1: float32(at.Beta1), OB1: float32(1 - at.Beta1), B2: float32(at.Beta2),
			OB2: float32(1 - at.Beta2), Eps: float32(at.Eps), Decay: float32(at.Decay)}
		if s, ok := l.partial[in.Args[0]]; ok {
			t.G, t.Slices = s.at, s.slices
		}
		op.Tensors = append(op.Tensors, t)
		reads = append(reads, span{t.G, t.G + cuda.DevicePtr(4*n*t.Slices)})
		writes = append(writes, l.spans(in.Outs...)...)
	}
	l.table(op, &op.Table)
	l.emit(op, reads, writes, l.waiting...)
	l.waiting = nil
}

// finish ends a training step; a forward program has no step.
func (l *planner) finish() {
	if l.state == 0 {
		return
	}
	op := &kernels.Finish{State: l.state, Slots: l.slots, NSlots: len(l.names), Accumulations: l.ends}
	l.table(op, &op.Table)
	state, slots := l.step(), span{l.slots, l.slots + cuda.DevicePtr(8*len(l.names))}
	l.emit(op, append(l.endings, slots), []span{slots, state}, l.endIns...)
}

// tabled are the ops of a plan whose tables must be filled once.
func (p *plan) tabled() []kernels.Tabled {
	var out []kernels.Tabled
	for _, w := range p.works {
		if t, ok := w.op.(kernels.Tabled); ok {
			out = append(out, t)
		}
	}
	return out
}

// powersOf lists the betas whose powers the updates of a set need, ascending.
func powersOf(s *program.Set) []float64 {
	var betas []float64
	for _, p := range []*program.Program{s.Train, s.Rest} {
		for i := 0; p != nil && i < len(p.Instrs); i++ {
			if at := p.Instrs[i].Attr; p.Instrs[i].Op == program.AdamW || p.Instrs[i].Op == program.RowAdam {
				betas = append(betas, at.Beta1, at.Beta2)
			}
		}
	}
	slices.Sort(betas)
	return slices.Compact(betas)
}
