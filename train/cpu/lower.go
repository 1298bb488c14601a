package cpu

import (
	"math"
	"slices"

	"github.com/onmart/onmart/train/program"
)

// lowering makes steps of one instruction.
type lowering struct {
	*machine
	in *program.Instr
}

func (m *machine) lower(in *program.Instr) {
	l := lowering{m, in}
	if s := m.scoringOf(in); s != nil {
		if in == s.last() {
			l.scored(s)
		}
		return
	}
	switch in.Op {
	case program.Gather:
		l.gather()
	case program.MatMul:
		l.matmul()
	case program.Activate:
		l.activate()
	case program.ActGrad:
		l.actGrad()
	case program.ColSum:
		l.colSum()
	case program.Add:
		l.add()
	case program.Scale:
		l.scale()
	case program.Fill:
		l.fill()
	case program.Dropout:
		l.dropout()
	case program.Concat:
		l.concat()
	case program.Slice:
		l.slice()
	case program.SliceGrad:
		l.sliceGrad()
	case program.BCE:
		l.bce()
	case program.BCEGrad:
		l.bceGrad()
	case program.Accumulate:
		l.accumulate()
	case program.AdamW, program.SGD, program.Momentum, program.Adam, program.Adagrad:
		l.elementUpdate()
	case program.SumSquares:
		l.sumSquares()
	case program.RowSumSquares:
		l.rowSumSquares()
	case program.ClipFactor:
		l.clipFactor()
	case program.MovingAverage:
		l.average()
	case program.Standardize:
		l.standardize()
	case program.Calibrate:
		l.calibrate()
	case program.Lookup:
		l.lookup()
	case program.Sample:
		l.sample()
	case program.RowDot:
		l.rowDot()
	case program.RowScale:
		l.rowScale()
	case program.SampledSoftmax:
		l.sampledSoftmax()
	case program.SampledSoftmaxGrad:
		l.sampledSoftmaxGrad()
	case program.Pinball:
		l.pinball()
	case program.PinballGrad:
		l.pinballGrad()
	case program.RowAdam:
		l.rowAdam()
	case program.Map:
		l.mapping()
	case program.Reduce:
		l.reduce()
	case program.Softmax, program.LogSoftmax:
		l.generalSoftmax()
	case program.SoftmaxGrad, program.LogSoftmaxGrad:
		l.generalSoftmaxGrad()
	case program.LayerNorm:
		l.layerNorm()
	case program.LayerNormGrad:
		l.layerNormGrad()
	case program.Transpose:
		l.transposition()
	case program.Copy:
		l.copying()
	case program.RowAdagrad:
		l.rowAdagrad()
	case program.RowSGD:
		l.rowSGD()
	case program.LookupDot:
		l.lookupDot()
	case program.LookupWeighted:
		l.lookupWeighted()
	case program.CandidateSoftmax, program.CandidateBPR:
		l.candidateLoss()
	case program.CandidateSoftmaxGrad, program.CandidateBPRGrad:
		l.candidateGrad()
	default:
		panic("cpu: no kernel for " + string(in.Op)) // Validate refuses what is not in Ops
	}
}

func (l lowering) buf(id int) *program.Buffer { return &l.p.Buffers[id] }
func (l lowering) arg(k int) []float32        { return l.mem[l.in.Args[k]].f32 }
func (l lowering) out(k int) []float32        { return l.mem[l.in.Outs[k]].f32 }

// width is the number of elements in one row of a buffer.
func (l lowering) width(id int) int { return l.buf(id).Len() / l.buf(id).Shape[0] }

// whole is a read or write of all of a buffer by whoever runs the step.
func (l lowering) whole(id int, write bool) access {
	a := l.place[id]
	a.write = write
	return a
}

// units is an access of a buffer where each worker keeps to its own units.
func (l lowering) units(id, unitBytes int, write bool) access {
	a := l.whole(id, write)
	a.unitBytes = unitBytes
	return a
}

// rows is an access of a buffer by rows.
func (l lowering) rows(id int, write bool) access {
	return l.units(id, l.width(id)*l.buf(id).DType.Size(), write)
}

func (l lowering) emit(p partition, run func(w *worker, lo, hi int), touches ...access) {
	s := step{partition: p, run: run, touches: touches, instr: l.instr}
	if n := len(l.steps); n > 0 && l.steps[n-1].instr == s.instr {
		s.piece = l.steps[n-1].piece + 1
	}
	l.machine.steps = append(l.machine.steps, s)
}

// emitRows emits a step that works row by row of a buffer. Where that has the rows of the batch, the step may become
// part of a region (fuse.go): then its buffers hold blocks of the batch. So run may take lo..hi for nothing but rows of
// buffers that touches lists by rows; the place of such a row in the batch is w.base more, the size of the batch is
// that of the program, and scratch has a place for each row of the batch.
func (l lowering) emitRows(id int, run func(w *worker, lo, hi int), touches ...access) {
	l.emit(l.byRow(id), run, touches...)
	l.last().rowwise = l.buf(id).PerRow && !slices.ContainsFunc(touches, func(a access) bool {
		other := l.bufferOf(a) // one that is as high as the batch by chance is not cut into blocks
		return a.unitBytes > 0 && other >= 0 && !l.buf(other).PerRow
	})
}

// emitSum emits sums over the rows of the batch, divided by outputs, which a region may do block by block.
func (l lowering) emitSum(p partition, over func(w *worker, lo, hi, r0, r1 int, first bool), touches ...access) {
	l.emit(p, nil, touches...)
	l.last().over = over
}

func (l lowering) last() *step { return &l.machine.steps[len(l.machine.steps)-1] }

// byRow divides the rows of a buffer, in whole quanta of the matrix product.
func (l lowering) byRow(id int) partition {
	return partition{units: l.buf(id).Shape[0], perRow: l.buf(id).PerRow && l.varying, quantum: rowQuantum}
}

// byElement divides n elements, in whole cache lines.
func byElement(n int) partition { return partition{units: n, quantum: lineBytes / 4} }

// elementwise emits a step that does the same to every element of equally shaped buffers: by row where the
// buffer is one row a row of the batch, so that it fits its neighbours, else by element.
func (l lowering) elementwise(run func(w *worker, lo, hi int)) {
	out := l.in.Outs[0]
	b := l.buf(out)
	var touches []access
	if b.PerRow || len(b.Shape) > 1 && b.Shape[0] == l.p.Rows {
		for _, a := range l.in.Args {
			touches = append(touches, l.rows(a, false))
		}
		width := l.width(out)
		l.emitRows(out, func(w *worker, lo, hi int) { run(w, lo*width, hi*width) }, append(touches, l.rows(out, true))...)
		return
	}
	for _, a := range l.in.Args {
		touches = append(touches, l.units(a, 4, false))
	}
	l.emit(byElement(b.Len()), run, append(touches, l.units(out, 4, true))...)
}

func (l lowering) gather() {
	out := l.in.Outs[0]
	if l.order == nil { // once a batch, for all columns
		l.machine.order, l.machine.orderAt = make([]int32, l.p.Rows), access{space: l.spaces, hi: 4 * l.p.Rows, unitBytes: 4}
		l.machine.spaces++
		l.machine.own += 4 * l.p.Rows
		order, written := l.order, l.orderAt
		written.write = true
		l.emitRows(out, func(w *worker, lo, hi int) {
			lo, hi = lo+w.base, hi+w.base
			w.kernels.permute(order[lo:hi], w.first+lo, &w.order)
		}, written)
	}
	m, order, x, width, column := l.machine, l.order, l.out(0), l.width(out), len(l.gathers)
	l.machine.gathers = append(l.gathers, l.in.Attr.Column)
	l.emitRows(out, func(w *worker, lo, hi int) {
		src := w.column(m, column)[w.train.From*width:]
		if width == 1 {
			to := x[lo:hi]
			for i, at := range order[lo+w.base : hi+w.base] {
				to[i] = src[at]
			}
			return
		}
		src = src[:w.train.Len()*width] // what the order keeps within
		w.kernels.gatherRows(x[lo*width:hi*width], src, order[lo+w.base:hi+w.base], width)
	}, l.orderAt, l.rows(out, true))
}

// columnsKey says whose columns a worker has looked up.
type columnsKey struct {
	data *bound
	m    *machine
}

// column is the one that gather k of the machine reads.
func (w *worker) column(m *machine, k int) []float32 {
	if key := (columnsKey{w.data, m}); w.whose != key {
		w.whose, w.columns = key, w.columns[:0]
		for _, name := range m.gathers {
			w.columns = append(w.columns, w.data.Column(name).F32)
		}
	}
	return w.columns[k]
}

func (l lowering) matmul() {
	a, b, out := l.in.Args[0], l.in.Args[1], l.in.Outs[0]
	mm := matmul{
		a: l.arg(0), b: l.arg(1), y: l.out(0), m: l.buf(out).Shape[0], n: l.buf(out).Shape[1], k: l.buf(a).Shape[1],
		transA: l.in.Attr.TransA, transB: l.in.Attr.TransB, act: l.in.Attr.Act,
	}
	touches := []access{l.whole(b, false)}
	if len(l.in.Args) == 3 {
		mm.bias = l.arg(2)
		touches = append(touches, l.whole(l.in.Args[2], false))
	}
	if mm.transA {
		mm.k = l.buf(a).Shape[0]
	}
	l.machine.macs += mm.m * mm.n * mm.k
	if kind := l.buf(b).Kind; l.store.frozen && !mm.transA && (kind == program.Param || kind == program.Const) {
		mm.packed = l.store.panels(l.buf(b).Name, &mm, l.kernels)
	} else if set := l.panelsOf(b, out, &mm); set != nil {
		mm.packed = set.packed
		touches = append(touches, set.place)
	}
	if l.in.Attr.TransA && !l.in.Attr.TransB && mm.bias == nil && mm.act == program.None &&
		l.buf(a).PerRow && l.buf(b).PerRow {
		l.matmulSum(mm.normal())
		return
	}
	d := mm.divide(l.buf(out).PerRow)
	l.machine.pack = max(l.pack, d.pack)
	if !d.byRow {
		l.emit(d.partition, d.run, append(touches, l.whole(a, false), l.whole(out, true))...)
		return
	}
	l.emitRows(out, d.run, append(touches, l.rows(a, false), l.rows(out, true))...)
}

// matmulSum is the gradient of a weight: a sum over the rows of the batch.
func (l lowering) matmulSum(mm matmul) {
	l.machine.pack = max(l.pack, mm.packLen())
	out := l.in.Outs[0]
	p, by, unit := l.outputs(out)
	part := func(w *worker, r0, r1 int, first bool) *matmul {
		w.product = mm
		w.product.a, w.product.b, w.product.k, w.product.more = mm.a[r0*mm.m:], mm.b[r0*mm.n:], r1-r0, !first
		return &w.product
	}
	over := func(w *worker, lo, hi, r0, r1 int, first bool) {
		part(w, r0, r1, first).run(w, lo, hi, 0, mm.panels())
	}
	if by == byColumns || by == byElements && mm.m == 1 { // a column, which normal has laid down, is divided by elements
		over = func(w *worker, lo, hi, r0, r1 int, first bool) {
			part(w, r0, r1, first).run(w, 0, mm.m, lo/tileCols, ceilDiv(hi, tileCols))
		}
	}
	l.emitSum(p, over, l.rows(l.in.Args[0], false), l.rows(l.in.Args[1], false), l.units(out, unit, true))
}

// How the elements of a tensor are divided between workers.
const (
	byElements = iota
	byRows
	byColumns
)

// outputs divides a tensor between workers, always in the same way: so steps that follow each other on it need no
// barrier. A matrix is divided by rows or by columns, by what is more even, in runs of tileCols, the width of a panel.
func (m *machine) outputs(id int) (p partition, by, unitBytes int) {
	b := &m.p.Buffers[id]
	n := b.Len() / b.Shape[0]
	if len(b.Shape) != 2 || n == 1 {
		return byElement(b.Len()), byElements, 4
	}
	largest := func(p partition) float64 {
		_, hi := p.split(p.units, 0, m.workers)
		return float64(hi) / float64(p.units)
	}
	rows, columns := partition{units: b.Shape[0], quantum: tileCols}, partition{units: n, quantum: tileCols}
	if largest(rows) <= 1.05*largest(columns) {
		return rows, byRows, 4 * n
	}
	return columns, byColumns, 4
}

func (l lowering) activate() {
	z, y := l.arg(0), l.out(0)
	switch l.in.Attr.Act {
	case program.None:
		l.elementwise(func(_ *worker, lo, hi int) { copy(y[lo:hi], z[lo:hi]) })
	case program.Relu:
		relu := l.kernels.fns[program.FnRelu]
		l.elementwise(func(_ *worker, lo, hi int) { relu(y[lo:hi], z[lo:hi], nil) })
	case program.Silu:
		l.elementwise(func(w *worker, lo, hi int) { w.kernels.silu(y[lo:hi], z[lo:hi]) })
	}
}

func (l lowering) actGrad() {
	dy, of, dz := l.arg(0), l.arg(1), l.out(0)
	switch l.in.Attr.Act {
	case program.None:
		l.elementwise(func(_ *worker, lo, hi int) { copy(dz[lo:hi], dy[lo:hi]) })
	case program.Relu:
		l.elementwise(func(w *worker, lo, hi int) { w.kernels.actGrad(dz[lo:hi], dy[lo:hi], of[lo:hi]) })
	case program.Silu:
		l.elementwise(func(w *worker, lo, hi int) { w.kernels.siluGrad(dz[lo:hi], dy[lo:hi], of[lo:hi]) })
	}
}

func (l lowering) colSum() {
	x, s := l.arg(0), l.out(0)
	rows, n := l.buf(l.in.Args[0]).Shape[0], len(s)
	x0 := l.in.Args[0]
	over := func(w *worker, lo, hi, r0, r1 int, first bool) {
		w.kernels.colSum(s[lo:hi], x[r0*n+lo:], r1-r0, n, !first)
	}
	if l.buf(x0).PerRow {
		l.emitSum(byElement(n), over, l.rows(x0, false), l.units(l.in.Outs[0], 4, true))
		return
	}
	l.emit(byElement(n), func(w *worker, lo, hi int) { over(w, lo, hi, 0, rows, true) },
		l.whole(x0, false), l.units(l.in.Outs[0], 4, true))
}

func (l lowering) add() {
	a, b, y := l.arg(0), l.arg(1), l.out(0)
	l.elementwise(func(w *worker, lo, hi int) { w.kernels.add(y[lo:hi], a[lo:hi], b[lo:hi]) })
}

func (l lowering) scale() {
	x, y, s := l.arg(0), l.out(0), l.in.Attr.Scale
	l.elementwise(func(w *worker, lo, hi int) { w.kernels.scale(y[lo:hi], x[lo:hi], s) })
}

func (l lowering) fill() {
	y, s := l.out(0), l.in.Attr.Scale
	l.elementwise(func(_ *worker, lo, hi int) {
		y := y[lo:hi]
		for i := range y {
			y[i] = s
		}
	})
}

func (l lowering) dropout() {
	x, y, at, width := l.arg(0), l.out(0), l.in.Attr, l.width(l.in.Outs[0])
	l.elementwise(func(w *worker, lo, hi int) {
		w.drop = dropCoef{seed: w.data.Seed, step: w.step, site: at.Site, rate: at.Rate, keep: 1 - at.Rate}
		w.kernels.dropout(y[lo:hi], x[lo:hi], lo+w.base*width, &w.drop)
	})
}

// columns emits a step that copies columns between matrices of equally many rows.
func (l lowering) columns(id int, run func(row int)) {
	touches := []access{l.rows(l.in.Outs[0], true)}
	for _, a := range l.in.Args {
		touches = append(touches, l.rows(a, false))
	}
	l.emitRows(id, func(_ *worker, lo, hi int) {
		for r := lo; r < hi; r++ {
			run(r)
		}
	}, touches...)
}

func (l lowering) concat() {
	y, n := l.out(0), l.width(l.in.Outs[0])
	var parts [][]float32
	var widths []int
	for k, a := range l.in.Args {
		parts = append(parts, l.arg(k))
		widths = append(widths, l.width(a))
	}
	l.columns(l.in.Outs[0], func(r int) {
		row := y[r*n : (r+1)*n]
		for k, q := range widths {
			copy(row, parts[k][r*q:(r+1)*q])
			row = row[q:]
		}
	})
}

func (l lowering) slice() {
	x, y, from, to, n := l.arg(0), l.out(0), l.in.Attr.From, l.in.Attr.To, l.width(l.in.Args[0])
	q := to - from
	l.columns(l.in.Outs[0], func(r int) { copy(y[r*q:(r+1)*q], x[r*n+from:r*n+to]) })
}

func (l lowering) sliceGrad() {
	dy, dx, from, to, n := l.arg(0), l.out(0), l.in.Attr.From, l.in.Attr.To, l.width(l.in.Outs[0])
	q := to - from
	l.columns(l.in.Outs[0], func(r int) {
		row := dx[r*n : (r+1)*n]
		clear(row[:from])
		copy(row[from:to], dy[r*q:(r+1)*q])
		clear(row[to:])
	})
}

// constant is the value of a buffer that one Fill and nothing else writes: who knows it need not wait for it.
func (l lowering) constant(id int) (value float32, is bool) {
	for i := range l.p.Instrs {
		if in := &l.p.Instrs[i]; slices.Contains(in.Outs, id) {
			if is || in.Op != program.Fill {
				return 0, false
			}
			value, is = in.Attr.Scale, true
		}
	}
	return value, is
}

func sigmoid(z float64) float64 { return 1 / (1 + math.Exp(-z)) }

func (l lowering) accumulate() {
	slot, scale := l.mem[l.in.Outs[0]].f64, float64(l.in.Attr.Scale)
	out := l.whole(l.in.Outs[0], true)
	if len(l.in.Args) == 0 {
		l.emit(alone, func(*worker, int, int) { slot[0] += scale }, out)
		return
	}
	x := l.arg(0)
	l.emit(alone, func(*worker, int, int) { slot[0] += float64(x[0]) * scale }, l.whole(l.in.Args[0], false), out)
}

func (l lowering) standardize() {
	x, mean := l.mem[l.in.Args[0]].f64, l.mem[l.in.Args[1]].f64
	scale, log := l.mem[l.in.Args[2]].f64, l.mem[l.in.Args[3]].f64
	y, n := l.out(0), len(mean)
	l.emitRows(l.in.Outs[0], func(_ *worker, lo, hi int) {
		for r := lo; r < hi; r++ {
			in, out := x[r*n:(r+1)*n], y[r*n:(r+1)*n]
			for j, u := range in {
				if log[j] == 1 {
					u = math.Log1p(max(u, 0))
				}
				out[j] = float32((u - mean[j]) * scale[j])
			}
		}
	}, l.rows(l.in.Args[0], false), l.whole(l.in.Args[1], false), l.whole(l.in.Args[2], false),
		l.whole(l.in.Args[3], false), l.rows(l.in.Outs[0], true))
}

func (l lowering) calibrate() {
	z, ab, p := l.arg(0), l.mem[l.in.Args[1]].f64, l.mem[l.in.Outs[0]].f64
	l.emitRows(l.in.Outs[0], func(_ *worker, lo, hi int) {
		for i := lo; i < hi; i++ {
			p[i] = sigmoid(ab[0]*float64(z[i]) + ab[1])
		}
	}, l.rows(l.in.Args[0], false), l.whole(l.in.Args[1], false), l.rows(l.in.Outs[0], true))
}
