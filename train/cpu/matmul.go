package cpu

import "github.com/onmart/onmart/train/program"

// Blocks of the matrix product. A panel is tileCols columns of b, for kBlock steps of k: 24 KiB of a first-level cache
// of 32 KiB; the rows of a pass by it. A block of rows, 144 KiB, stays in the second level while kernels.panelBlock
// panels pass, at most mostPanels. A chain that is longer than kBlock goes through c, which loses nothing: c holds the
// sum so far in the same float32. Measured at 2048x2048x2048 with AVX2: 82 GFLOP/s with kBlock 256 and 16 panels, 91
// with 256 and 128, 92 with these.
const (
	kBlock     = 384
	rowBlock   = 96
	mostPanels = 128
)

// packFrom is the number of row tiles from which b is copied into panels first. A pass over panels is little faster
// than one over rows as they lie, which the micro-kernel asks for ahead. Measured at 64x128x128, 11 tiles: 95 GFLOP/s
// without the copy and 77 with it; at 128x1024x128, 22 tiles, 89 and 81; at 1024x128x128, 171 tiles, 92 and 96.
const packFrom = 32

// inCache is the number of elements of b that stay in the first level as they lie, so that a copy is for nothing.
const inCache = 8192

// flatBlock is the number of rows of b that flat reads at a time for two or three rows of a, where they are too wide for
// one tile. Measured with one row, for which there is addRows now, of 8192x500: 18 GFLOP/s with runs of 64 or 128 and 15 in
// one.
const flatBlock = 128

// matmul is y [m,n] = act(a' b' + bias) with everything resolved but the rows.
type matmul struct {
	a, b, y, bias  []float32
	m, k, n        int
	transA, transB bool
	act            program.Act
	packed         []float32 // b in panels, made once, where b does not change
	more           bool      // the chains go on from what is in y; never with b transposed
	lanes          bool      // y is a column of laneDots instead of chains: set by normal
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// panels is the number of tileCols-wide panels of y.
func (mm *matmul) panels() int { return ceilDiv(mm.n, tileCols) }

// normal is the same product in the form that is quickest. A transposed vector is a vector; and where y is a column and
// a is transposed, or y a row and b is, the sides change: x*y is y*x to the bit.
func (mm *matmul) normal() matmul {
	p := *mm
	p.lanes = p.n == 1 && !p.transA
	if p.k == 1 || p.m == 1 {
		p.transA = false
	}
	if p.k == 1 || p.n == 1 {
		p.transB = false
	}
	if p.n == 1 && p.transA && p.bias == nil {
		p.a, p.b, p.m, p.n, p.transA, p.packed = p.b, p.a, 1, p.m, false, nil
	}
	return p
}

// division is how the work of a product is divided between workers.
type division struct {
	partition
	byRow bool // a unit is a row of y; else a unit touches all of a and b, and any part of y
	run   func(w *worker, lo, hi int)
	pack  int // elements of memory that each worker needs for panels and tiles
}

// packLen is the elements of memory that a worker needs for panels and tiles.
func (mm *matmul) packLen() int {
	n := mm.gatherLen()
	if mm.packed == nil {
		n += min(mm.k, kBlock) * min(mm.panels(), mostPanels) * tileCols
	}
	return n
}

// cellRows is the height of a cell, which is one panel wide.
const cellRows = 16

// divide divides by rows of y where that are rows of a as they lie, so that what a worker has of a batch stays with it.
// A gradient of weights, whose y is small and a transposed, and a y of one row are divided into cells; they are counted
// along the rows, so that a worker has rows of y where there are enough, and else panels. perRow says that y grows with
// the batch.
func (mm *matmul) divide(perRow bool) division {
	product := mm.normal()
	d := division{pack: product.packLen()}
	if product.transA || product.m == 1 && !perRow {
		d.partition = partition{units: ceilDiv(product.m, cellRows) * product.panels(), quantum: 1}
		d.run = product.cells
		return d
	}
	d.byRow, d.partition = true, partition{units: product.m, quantum: rowQuantum}
	d.run = func(w *worker, lo, hi int) { product.run(w, lo, hi, 0, product.panels()) }
	return d
}

// cells computes cells from..to: the rest of a row of cells, whole rows, and the begin of one.
func (mm *matmul) cells(w *worker, from, to int) {
	across := mm.panels()
	for from < to {
		r, p := from/across, from%across
		rows, panels := 1, min(across-p, to-from)
		if p == 0 && to-from >= across {
			rows = (to - from) / across
		}
		mm.run(w, r*cellRows, min((r+rows)*cellRows, mm.m), p, p+panels)
		from += rows * panels
	}
}

// run computes rows lo..hi and panels p0..p1 of y. Nothing that it computes depends on these bounds.
func (mm *matmul) run(w *worker, lo, hi, p0, p1 int) {
	j0, j1 := p0*tileCols, min(p1*tileCols, mm.n)
	switch {
	case mm.lanes:
		mm.column(w, lo, hi)
		mm.finish(w, lo, hi, j0, j1)
	case hi-lo < fewRows && mm.transB && !mm.transA:
		for i := lo; i < hi; i++ {
			mm.dots(w, i, j0, j1)
		}
		mm.finish(w, lo, hi, j0, j1)
	case hi-lo < fewRows && !mm.transB:
		mm.flat(w, lo, hi, j0, j1)
		mm.finish(w, lo, hi, j0, j1)
	default:
		mm.blocks(w, lo, hi, p0, p1)
	}
}

// column is rows lo..hi of a product with one column.
func (mm *matmul) column(w *worker, lo, hi int) {
	y := mm.y[lo:hi]
	w.kernels.dotRows(y, mm.a[lo*mm.k:hi*mm.k], mm.b[:mm.k])
	if mm.bias != nil {
		bias := mm.bias[0]
		for i := range y {
			y[i] += bias
		}
	}
	if mm.act == program.Relu {
		w.kernels.fns[program.FnRelu](y, y, nil)
	}
}

// dots is columns j0..j1 of row i of a product with b transposed: the lanes are rows of b.
func (mm *matmul) dots(w *worker, i, j0, j1 int) {
	y := mm.y[i*mm.n+j0 : i*mm.n+j1]
	w.kernels.columnDot(y, mm.b[j0*mm.k:j1*mm.k], mm.a[i*mm.k:(i+1)*mm.k])
	mm.epilogue(w, y, j0, j1)
}

// flat is a few rows: b is read once, as it lies, in rows as wide as there are registers. One row that is wider is for
// wide; two or three are read in runs
// of flatBlock rows of b, so that what is read lies together.
func (mm *matmul) flat(w *worker, lo, hi, j0, j1 int) {
	t := &w.tile
	t.rows, t.tiles = hi-lo, 1
	t.ldb, t.step, t.ldc = mm.n, 0, mm.n
	width, kb := w.kernels.tileCols[t.rows], flatBlock
	switch {
	case j1-j0 <= width:
		kb = mm.k
	case t.rows == 1:
		mm.wide(w, lo, j0, j1)
		return
	}
	for k0 := 0; k0 < mm.k; k0 += kb {
		t.k = min(kb, mm.k-k0)
		last := k0+t.k == mm.k
		t.load, t.relu = k0 > 0 || mm.more, mm.act == program.Relu && last
		a0 := mm.stridesA(t, lo, k0)
		t.a = mm.a[a0:]
		for j := j0; j < j1; j += width {
			t.cols = min(width, j1-j)
			t.b, t.c = mm.b[k0*mm.n+j:], mm.y[lo*mm.n+j:]
			if t.bias = nil; mm.bias != nil && last {
				t.bias = mm.bias[j : j+t.cols]
			}
			w.kernels.tile(t)
		}
	}
}

// wide is columns j0..j1 of row i, more than a tile has.
func (mm *matmul) wide(w *worker, i, j0, j1 int) {
	y := mm.y[i*mm.n+j0 : i*mm.n+j1]
	if !mm.more {
		clear(y)
	}
	a0 := mm.stridesA(&w.tile, i, 0)
	w.kernels.addRows(y, mm.b[j0:], mm.n, mm.a[a0:], w.tile.cs, mm.k)
	mm.epilogue(w, y, j0, j1)
}

// epilogue is what a micro-kernel does with its sums, columns j0..j1 of a row.
func (mm *matmul) epilogue(w *worker, y []float32, j0, j1 int) {
	if mm.bias != nil {
		w.kernels.add(y, y, mm.bias[j0:j1])
	}
	if mm.act == program.Relu {
		w.kernels.fns[program.FnRelu](y, y, nil)
	}
}

// stridesA sets the strides of a as it lies and returns where element k0 of row i is.
func (mm *matmul) stridesA(t *tile, i, k0 int) int {
	if mm.transA {
		t.rs, t.cs, t.next = 1, mm.m, t.rows
		return k0*mm.m + i
	}
	t.rs, t.cs, t.next = mm.k, 1, t.rows*mm.k
	return i*mm.k + k0
}

func (mm *matmul) blocks(w *worker, lo, hi, p0, p1 int) {
	for pc := p0; pc < p1; pc += w.kernels.panelBlock {
		pEnd := min(pc+w.kernels.panelBlock, p1)
		for k0 := 0; k0 < mm.k; k0 += kBlock {
			kc := min(kBlock, mm.k-k0)
			b, ldb, step := mm.panelBlock(w, k0, kc, pc, pEnd, hi-lo)
			rows := ceilDiv(ceilDiv(hi-lo, ceilDiv(hi-lo, rowBlock)), tileRows) * tileRows
			for r0 := lo; r0 < hi; r0 += rows {
				rEnd := min(r0+rows, hi)
				var a []float32
				if mm.gathersA(p1 - p0) {
					a = w.pack
					mm.gatherA(w.kernels, a, r0, rEnd, k0, kc)
				}
				for p := pc; p < pEnd; p += w.kernels.abreast {
					at := b[(p-pc)*step:]
					mm.panel(w, a, at, ldb, step, k0, kc, r0, rEnd, p, min(p+w.kernels.abreast, pEnd))
				}
				if k0+kc == mm.k {
					mm.finish(w, r0, rEnd, pc*tileCols, min(pEnd*tileCols, mm.n))
				}
			}
		}
	}
}

// evenly cuts n rows into blocks of at most most rows: first blocks of rows+1 rows, then rest of rows. Blocks of nearly
// the same size waste least: a tile of one or two rows takes as long as one of four.
func evenly(n, most int) (first, rest, rows int) {
	blocks := ceilDiv(n, most)
	rows = n / blocks
	first = n % blocks
	return first, blocks - first, rows
}

// Rows of a transposed a are copied into tiles where they are used by many panels and are long: elements of one tile
// then lie far apart. Measured: 1024x128x128 transposed on both sides 86 GFLOP/s with the copy and 71 without,
// 128x1024x128 89 and 79, 32x1024x128 88 and 92.
const (
	gatherPanels = 4
	gatherFrom   = 64 // elements of a row of a
)

func (mm *matmul) gathersA(panels int) bool {
	return mm.transA && panels >= gatherPanels && mm.m >= gatherFrom
}

// tileNext is the distance of gathered tiles. A line more than there need be keeps them from lying a multiple of 4 KiB
// apart, where they would take each other's place in the first-level cache.
func tileNext(rows, kc int) int { return rows*kc + lineBytes/4 }

// gatherLen is the memory for gathered tiles, those of rowBlock rows.
func (mm *matmul) gatherLen() int {
	if !mm.gathersA(mm.panels()) {
		return 0
	}
	return ceilDiv(rowBlock, tileRows) * tileNext(tileRows, min(mm.k, kBlock))
}

// gatherA copies rows lo..hi of a transposed a into tiles, as panel cuts them.
func (mm *matmul) gatherA(k *kernels, dst []float32, lo, hi, k0, kc int) {
	first, rest, rows := evenly(hi-lo, k.panelRows)
	if first > 0 {
		next := tileNext(rows+1, kc)
		k.gatherTiles(dst, mm.a[k0*mm.m+lo:], rows+1, first, kc, next, mm.m)
		dst, lo = dst[first*next:], lo+first*(rows+1)
	}
	if rest > 0 {
		k.gatherTiles(dst, mm.a[k0*mm.m+lo:], rows, rest, kc, tileNext(rows, kc), mm.m)
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
}

// panelBlock returns the panels pc..pEnd of b for k0..k0+kc: where the first begins, the stride of its rows
// and the distance to the next panel.
func (mm *matmul) panelBlock(w *worker, k0, kc, pc, pEnd, rows int) (b []float32, ldb, step int) {
	if mm.packed != nil {
		return mm.packed[(k0*mm.panels()+pc*kc)*tileCols:], tileCols, kc * tileCols
	}
	if !mm.transB && (ceilDiv(rows, tileRows) < packFrom || mm.k*mm.n <= inCache) {
		return mm.b[k0*mm.n+pc*tileCols:], mm.n, tileCols
	}
	to := w.pack[mm.gatherLen():]
	mm.pack(w.kernels, to, k0, kc, pc, pEnd)
	return to, tileCols, kc * tileCols
}

// pack copies panels pc..pEnd of b for k0..k0+kc, one after the other, each kc x tileCols, 0 past column n.
func (mm *matmul) pack(k *kernels, dst []float32, k0, kc, pc, pEnd int) {
	step := kc * tileCols
	if mm.transB {
		for p := pc; p < pEnd; p++ {
			j0 := p * tileCols
			k.transpose(dst[(p-pc)*step:], mm.b[j0*mm.k+k0:], mm.k, kc, min(tileCols, mm.n-j0))
		}
		return
	}
	for q := range kc {
		row := mm.b[(k0+q)*mm.n+pc*tileCols : (k0+q)*mm.n+min(pEnd*tileCols, mm.n)]
		at := q * tileCols
		for ; len(row) >= tileCols; row = row[tileCols:] {
			*(*[tileCols]float32)(dst[at:]) = *(*[tileCols]float32)(row)
			at += step
		}
		if len(row) > 0 {
			last := dst[at : at+tileCols]
			clear(last[copy(last, row):])
		}
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

// panel runs the micro-kernel down rows lo..hi of panels p..pEnd, which lie step apart; a is gathered tiles, or nil for a
// as it lies.
func (mm *matmul) panel(w *worker, a, b []float32, ldb, step, k0, kc, lo, hi, p, pEnd int) {
	j0 := p * tileCols
	t := &w.tile
	t.b, t.ldb, t.step, t.ldc, t.k, t.cols = b, ldb, step, mm.n, kc, min(pEnd*tileCols, mm.n)-j0
	if t.cols <= tileCols {
		t.step = 0
	}
	t.load = k0 > 0 || mm.more
	last := k0+kc == mm.k
	t.relu = mm.act == program.Relu && last
	if t.bias = nil; mm.bias != nil && last {
		t.bias = mm.bias[j0 : j0+t.cols]
	}
	most := w.kernels.panelRows
	if t.cols <= tileCols/2 && a == nil {
		most = 2 * tileRows
	}
	first, rest, rows := evenly(hi-lo, most)
	for _, part := range [2][2]int{{first, rows + 1}, {rest, rows}} {
		if part[0] == 0 {
			continue
		}
		t.tiles, t.rows = part[0], part[1]
		if a != nil {
			t.a, t.rs, t.cs, t.next = a, 1, t.rows, tileNext(t.rows, kc)
			a = a[t.tiles*t.next:]
		} else {
			at := mm.stridesA(t, lo, k0)
			t.a = mm.a[at:]
		}
		t.c = mm.y[lo*mm.n+j0:]
		w.kernels.tile(t)
		lo += t.tiles * t.rows
	}
}
