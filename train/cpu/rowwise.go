package cpu

import "github.com/onmart/onmart/train/program"

// Reductions, softmax, layer normalisation, and what moves elements without computing.

// extreme32 folds a value into the greatest or least so far; NaN stays.
func extreme32(fold program.Fold, m, x float32) float32 {
	switch {
	case x != x:
		return x
	case fold == program.Max && x > m, fold == program.Min && x < m:
		return x
	}
	return m
}

// foldRow is a Reduce along the last dimension.
func (k *kernels) foldRow(fold program.Fold, x []float32) float32 {
	switch fold {
	case program.Sum:
		return k.laneSum(x)
	case program.Mean:
		return k.laneSum(x) / float32(len(x))
	}
	return k.extreme(fold, x)
}

// extremePortable is the greatest or the least of at least one. Of two zeros it is the positive one, whatever order
// they are looked at in.
func extremePortable(fold program.Fold, x []float32) float32 {
	m := x[0]
	for _, v := range x[1:] {
		m = extreme32(fold, m, v)
	}
	return m + 0
}

// foldRows is a Reduce along another one, whose values are stride apart, for neighbouring results y.
func (k *kernels) foldRows(fold program.Fold, y, x []float32, n, stride int) {
	if fold == program.Sum || fold == program.Mean {
		k.colSum(y, x, n, stride, false)
		if fold == program.Mean {
			k.div(y, y, float32(n))
		}
		return
	}
	copy(y, x)
	for i := 1; i < n; i++ {
		for j, v := range x[i*stride : i*stride+len(y)] {
			y[j] = extreme32(fold, y[j], v)
		}
	}
}

func (l lowering) reduce() {
	from, fold := l.in.Args[0], l.in.Attr.Fold
	x, y := l.arg(0), l.out(0)
	outer, n, inner := program.Split(l.buf(from).Shape, l.in.Attr.Axis)
	switch {
	case outer == 1 && inner > 1 && fold == program.Sum && l.buf(from).PerRow: // over the rows of the batch
		l.emitSum(byElement(inner), func(w *worker, lo, hi, r0, r1 int, first bool) {
			w.kernels.colSum(y[lo:hi], x[r0*inner+lo:], r1-r0, inner, !first)
		}, l.rows(from, false), l.units(l.in.Outs[0], 4, true))
		return
	case outer == 1 && inner > 1: // by result
		l.emit(byElement(inner), func(w *worker, lo, hi int) { w.kernels.foldRows(fold, y[lo:hi], x[lo:], n, inner) },
			l.whole(from, false), l.units(l.in.Outs[0], 4, true))
		return
	case outer == 1:
		l.emit(alone, func(w *worker, _, _ int) { y[0] = w.kernels.foldRow(fold, x) },
			l.whole(from, false), l.whole(l.in.Outs[0], true))
		return
	}
	each := outer / l.buf(from).Shape[0] // results in one row of x
	l.emitRows(from, func(w *worker, lo, hi int) {
		for o := lo * each; o < hi*each; o++ {
			if inner == 1 {
				y[o] = w.kernels.foldRow(fold, x[o*n:(o+1)*n])
			} else {
				w.kernels.foldRows(fold, y[o*inner:(o+1)*inner], x[o*n*inner:], n, inner)
			}
		}
	}, l.rows(from, false), l.rows(l.in.Outs[0], true))
}

// byRows emits a step over the rows of operands that all have one row a row of the first output; vectors are read
// whole.
func (l lowering) byRows(run func(w *worker, row int)) {
	out := l.in.Outs[0]
	var touches []access
	for _, a := range l.in.Args {
		if b := l.buf(a); len(b.Shape) == 1 {
			touches = append(touches, l.whole(a, false))
		} else {
			touches = append(touches, l.rows(a, false))
		}
	}
	for _, o := range l.in.Outs {
		touches = append(touches, l.rows(o, true))
	}
	l.emitRows(out, func(w *worker, lo, hi int) {
		for r := lo; r < hi; r++ {
			run(w, r)
		}
	}, touches...)
}

// softmaxRow is Softmax or LogSoftmax of a row. y may be x.
func (k *kernels) softmaxRow(log bool, y, x, scratch []float32) {
	top := k.foldRow(program.Max, x)
	k.addTo(y, x, -top)
	e := y
	if log {
		e = scratch[:len(y)]
	}
	k.fns[program.FnExp](e, y, nil)
	s := k.laneSum(e)
	if log {
		k.addTo(y, y, -log32(s))
		return
	}
	k.div(y, y, s)
}

func (l lowering) generalSoftmax() {
	x, y, n, log := l.arg(0), l.out(0), l.width(l.in.Outs[0]), l.in.Op == program.LogSoftmax
	l.machine.pack = max(l.machine.pack, n)
	l.byRows(func(w *worker, r int) { w.kernels.softmaxRow(log, y[r*n:(r+1)*n], x[r*n:(r+1)*n], w.pack) })
}

func (l lowering) generalSoftmaxGrad() {
	dy, y, dx, n, log := l.arg(0), l.arg(1), l.out(0), l.width(l.in.Outs[0]), l.in.Op == program.LogSoftmaxGrad
	l.machine.pack = max(l.machine.pack, n)
	l.byRows(func(w *worker, r int) {
		k, dy, y, dx, t := w.kernels, dy[r*n:(r+1)*n], y[r*n:(r+1)*n], dx[r*n:(r+1)*n], w.pack[:n]
		if log {
			k.fns[program.FnExp](t, y, nil)
			k.scale(t, t, k.laneSum(dy))
			k.fns[program.FnSub](dx, dy, t)
			return
		}
		k.fns[program.FnMul](t, dy, y)
		k.addTo(dx, dy, -k.laneSum(t))
		k.fns[program.FnMul](dx, dx, y)
	})
}

// normalised leaves h of a row of LayerNorm and returns r.
func (k *kernels) normalised(h, x, scratch []float32, eps float32) float32 {
	n := float32(len(x))
	k.addTo(h, x, -(k.laneSum(x) / n))
	k.fns[program.FnMul](scratch, h, h)
	r := 1 / sqrt32(k.laneSum(scratch)/n+eps)
	k.scale(h, h, r)
	return r
}

func (l lowering) layerNorm() {
	x, gain, bias, y, n, eps := l.arg(0), l.arg(1), l.arg(2), l.out(0), l.width(l.in.Outs[0]), float32(l.in.Attr.Eps)
	l.machine.pack = max(l.machine.pack, n)
	l.byRows(func(w *worker, r int) {
		k, y := w.kernels, y[r*n:(r+1)*n]
		k.normalised(y, x[r*n:(r+1)*n], w.pack[:n], eps)
		k.fns[program.FnMul](y, y, gain)
		k.add(y, y, bias)
	})
}

func (l lowering) layerNormGrad() {
	dy, x, gain, dx, t, n := l.arg(0), l.arg(1), l.arg(2), l.out(0), l.out(1), l.width(l.in.Outs[0])
	eps := float32(l.in.Attr.Eps)
	l.machine.pack = max(l.machine.pack, 3*n)
	l.byRows(func(w *worker, r int) {
		k, dy, dx, t := w.kernels, dy[r*n:(r+1)*n], dx[r*n:(r+1)*n], t[r*n:(r+1)*n]
		h, g, scratch := w.pack[:n], w.pack[n:2*n], w.pack[2*n:3*n]
		mul := k.fns[program.FnMul]
		inverse := k.normalised(h, x[r*n:(r+1)*n], scratch, eps)
		mul(t, dy, h)
		mul(g, dy, gain)
		mul(scratch, g, h)
		a, b := k.laneSum(g)/float32(n), k.laneSum(scratch)/float32(n)
		k.addTo(dx, g, -a)
		k.scale(h, h, b)
		k.fns[program.FnSub](dx, dx, h)
		k.scale(dx, dx, inverse)
	})
}

// transposition moves blocks of so many rows and columns, which stay in the cache.
const transposeBlock = 32

func (l lowering) transposition() {
	from := l.in.Args[0]
	m, n := l.buf(from).Shape[0], l.buf(from).Shape[1]
	x, y := l.arg(0), l.out(0)
	l.emit(partition{units: n, quantum: transposeBlock}, func(_ *worker, lo, hi int) {
		for i0 := 0; i0 < m; i0 += transposeBlock {
			for j := lo; j < hi; j++ {
				row := y[j*m : (j+1)*m]
				for i := i0; i < min(i0+transposeBlock, m); i++ {
					row[i] = x[i*n+j]
				}
			}
		}
	}, l.whole(from, false), l.units(l.in.Outs[0], 4*m, true))
}

// copying is nothing where the result lies over the operand.
func (l lowering) copying() {
	from, out := l.in.Args[0], l.in.Outs[0]
	if a, b := l.place[from], l.place[out]; a.space == b.space && a.lo == b.lo {
		return
	}
	x, y := l.arg(0), l.out(0)
	if b := l.buf(out); b.PerRow && l.buf(from).PerRow {
		width := l.width(out)
		l.emitRows(out, func(_ *worker, lo, hi int) { copy(y[lo*width:hi*width], x[lo*width:hi*width]) },
			l.rows(from, false), l.rows(out, true))
		return
	}
	l.emit(byElement(len(y)), func(_ *worker, lo, hi int) { copy(y[lo:hi], x[lo:hi]) },
		l.units(from, 4, false), l.units(out, 4, true))
}

// addToPortable: y[i] = x[i] + c.
func addToPortable(y, x []float32, c float32) {
	x = x[:len(y)]
	for i, v := range x {
		y[i] = v + c
	}
}
