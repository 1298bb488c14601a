package cpu

import "github.com/onmart/onmart/train/program"

// Blocks of the matrix product. A panel is tileCols columns of b, for kBlock steps of k: 16 KiB, half of a
// 32 KiB first-level cache, beside the rows of a. A block of rows stays in the second level while the
// panels pass. A chain that is longer than kBlock goes through c, which loses nothing: c holds the sum so
// far in the same float32.
const (
	kBlock     = 256
	rowBlock   = 96
	panelBlock = 16
)

// packFrom is the number of row tiles from which b is copied into panels first: the copy costs about as
// much as one pass over b, and a pass over panels is faster than one over strided rows.
const packFrom = 3

// matmul is y [m,n] = act(a' b' + bias) with everything resolved but the rows.
type matmul struct {
	a, b, y, bias  []float32
	m, k, n        int
	transA, transB bool
	act            program.Act
	packed         []float32 // b in panels, made once, where b does not change

	// epilogue, unless nil, is called once for every element of y, in blocks: rows lo..hi of columns j0..j1 are final,
	// with bias and act, and in the cache of the worker that calls it. It may change them. Where a block ends depends
	// on sizes and on the division of the work; what it makes of an element must not.
	epilogue func(w *worker, lo, hi, j0, j1 int)
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// panels is the number of tileCols-wide panels of y.
func (mm *matmul) panels() int { return ceilDiv(mm.n, tileCols) }

// swapped is the same product with its sides changed, where y is a column and a is transposed: then the vectors
// run along y instead of being 15/16 empty. x*y is y*x to the bit.
func (mm *matmul) swapped() (matmul, bool) {
	if mm.n != 1 || !mm.transA || mm.transB || mm.bias != nil || mm.epilogue != nil {
		return matmul{}, false
	}
	return matmul{a: mm.b, b: mm.a, y: mm.y, m: 1, k: mm.k, n: mm.m, transA: true, act: mm.act}, true
}

// division is how the work of a product is divided between workers.
type division struct {
	partition
	byRow bool // a unit is a row of y; else a unit touches all of a and b, and any part of y
	run   func(w *worker, lo, hi int)
	pack  int // elements of memory that each worker needs for panels
}

// divide divides by rows of y, or by panels where a worker with rows of y would still read all of a, or where y has one
// row; perRow says that y grows with the batch.
func (mm *matmul) divide(perRow bool) division {
	product := *mm
	if s, ok := product.swapped(); ok {
		product = s
	}
	d := division{}
	if product.packed == nil {
		d.pack = min(product.k, kBlock) * min(product.panels(), panelBlock) * tileCols
	}
	if product.transA || product.m == 1 && !perRow {
		d.partition = partition{units: product.panels(), quantum: 1}
		d.run = func(w *worker, lo, hi int) { product.run(w, 0, product.m, lo, hi) }
		return d
	}
	d.byRow, d.partition = true, partition{units: product.m, quantum: tileRows}
	d.run = func(w *worker, lo, hi int) { product.run(w, lo, hi, 0, product.panels()) }
	return d
}

// run computes rows lo..hi and panels p0..p1 of y. Nothing that it computes depends on these bounds.
func (mm *matmul) run(w *worker, lo, hi, p0, p1 int) {
	for pc := p0; pc < p1; pc += panelBlock {
		pEnd := min(pc+panelBlock, p1)
		for k0 := 0; k0 < mm.k; k0 += kBlock {
			kc := min(kBlock, mm.k-k0)
			b, ldb, step := mm.panelBlock(w, k0, kc, pc, pEnd, hi-lo)
			for r0 := lo; r0 < hi; r0 += rowBlock {
				rEnd := min(r0+rowBlock, hi)
				for p := pc; p < pEnd; p++ {
					mm.column(w, b[(p-pc)*step:], ldb, k0, kc, r0, rEnd, p)
				}
				if k0+kc == mm.k {
					mm.finish(w, r0, rEnd, pc*tileCols, min(pEnd*tileCols, mm.n))
				}
			}
		}
	}
}

// finish does with the final sums of rows lo..hi of columns j0..j1, while they are in the cache, what the micro-kernel
// does not do itself. Relu costs that one instruction a vector; silu costs twenty, so it is a pass of its own.
func (mm *matmul) finish(w *worker, lo, hi, j0, j1 int) {
	switch {
	case mm.act != program.Silu:
	case j1-j0 == mm.n:
		y := mm.y[lo*mm.n : hi*mm.n]
		w.kernels.silu(y, y)
	default:
		for i := lo; i < hi; i++ {
			y := mm.y[i*mm.n+j0 : i*mm.n+j1]
			w.kernels.silu(y, y)
		}
	}
	if mm.epilogue != nil {
		mm.epilogue(w, lo, hi, j0, j1)
	}
}

// panelBlock returns the panels pc..pEnd of b for k0..k0+kc: where the first begins, the stride of its rows
// and the distance to the next panel.
func (mm *matmul) panelBlock(w *worker, k0, kc, pc, pEnd, rows int) (b []float32, ldb, step int) {
	if mm.packed != nil {
		return mm.packed[(k0*mm.panels()+pc*kc)*tileCols:], tileCols, kc * tileCols
	}
	if !mm.transB && ceilDiv(rows, tileRows) < packFrom && pEnd*tileCols <= mm.n {
		return mm.b[k0*mm.n+pc*tileCols:], mm.n, tileCols
	}
	mm.pack(w.kernels, w.pack, k0, kc, pc, pEnd)
	return w.pack, tileCols, kc * tileCols
}

// pack copies panels pc..pEnd of b for k0..k0+kc, one after the other, each kc x tileCols, 0 past column n.
func (mm *matmul) pack(k *kernels, dst []float32, k0, kc, pc, pEnd int) {
	for p := pc; p < pEnd; p++ {
		j0 := p * tileCols
		cols := min(tileCols, mm.n-j0)
		if mm.transB {
			k.transpose(dst, mm.b[j0*mm.k+k0:], mm.k, kc, cols)
		} else {
			for q := range kc {
				row := dst[q*tileCols : (q+1)*tileCols]
				at := (k0+q)*mm.n + j0
				if cols == tileCols {
					*(*[tileCols]float32)(row) = *(*[tileCols]float32)(mm.b[at:])
				} else {
					clear(row[copy(row, mm.b[at:at+cols]):])
				}
			}
		}
		dst = dst[kc*tileCols:]
	}
}

// packAll makes the panels of all of b, in the order that panelBlock reads them.
func (mm *matmul) packAll(k *kernels) []float32 {
	all := alignedF32(mm.k * mm.panels() * tileCols)
	for k0 := 0; k0 < mm.k; k0 += kBlock {
		mm.pack(k, all[k0*mm.panels()*tileCols:], k0, min(kBlock, mm.k-k0), 0, mm.panels())
	}
	return all
}

// column runs the micro-kernel down rows lo..hi of panel p.
func (mm *matmul) column(w *worker, b []float32, ldb, k0, kc, lo, hi, p int) {
	j0 := p * tileCols
	t := &w.tile
	t.b, t.ldb, t.k, t.cols = b, ldb, kc, min(tileCols, mm.n-j0)
	t.load = k0 > 0
	last := k0+kc == mm.k
	t.relu = mm.act == program.Relu && last
	t.bias = nil
	if mm.bias != nil && last {
		t.bias = mm.bias[j0 : j0+t.cols]
		if t.cols < tileCols {
			t.bias = w.bias[:]
			clear(t.bias[copy(t.bias, mm.bias[j0:]):])
		}
	}
	a0 := 0
	if mm.transA {
		t.rs, t.cs, a0 = 1, mm.m, k0*mm.m
	} else {
		t.rs, t.cs, a0 = mm.k, 1, k0
	}
	for i := lo; i < hi; i += tileRows {
		t.rows = min(tileRows, hi-i)
		t.a = mm.a[a0+i*t.rs:]
		y := mm.y[i*mm.n+j0:]
		if t.cols == tileCols {
			t.c, t.ldc = y, mm.n
			w.kernels.tile(t)
			continue
		}
		t.c, t.ldc = w.edge[:], tileCols
		for r := 0; t.load && r < t.rows; r++ {
			copy(w.edge[r*tileCols:], y[r*mm.n:r*mm.n+t.cols])
		}
		w.kernels.tile(t)
		for r := range t.rows {
			copy(y[r*mm.n:r*mm.n+t.cols], w.edge[r*tileCols:])
		}
	}
}
