package cpu

import (
	"math"

	"github.com/onmart/onmart/train/program"
)

// kernels are the inner loops of one path. Every path gives the same bits.
type kernels struct {
	name string
	// tile is the micro-kernel of the matrix product, for t.tiles blocks of t.rows rows below each other: element i, j
	// of c, which is c[i*ldc+j], gets a chain of k fused multiply-adds of a[block*next+row*rs+p*cs] and b[p*ldb+j], p
	// ascending. The chain starts at c itself with load, else at 0. Then, unless nil, bias[j] is added, and with relu
	// what is below 0 becomes 0. There are at most tileCols[rows] columns; or, with step, more than one panel and at
	// most two, of which the second lies step behind the first in b.
	tile func(t *tile)
	// tileCols is the number of columns that tile takes, by rows; 0 where it does not take so many rows.
	tileCols []int
	// panelRows is the number of rows that tile has at most for a panel's columns.
	panelRows int
	// abreast is the number of panels that tile takes at once.
	abreast int
	// panelBlock is the number of panels that pass by a block of rows of a. With AVX2 they may lie in the third-level
	// cache, 3 MiB; twice as many lanes want them in the second, 768 KiB: 2048x2048x2048 on a Zen 5 208 GFLOP/s with
	// 128 of them, 228 with 32, 223 with 24.
	panelBlock int
	// gatherTiles: dst[t*next+p*rows+i] = src[p*ld+t*rows+i] for t < tiles, p < k and i < rows, at most panelRows. It
	// may write up to lineBytes/4 elements beyond the last of each tile: see tileNext.
	gatherTiles func(dst, src []float32, rows, tiles, k, next, ld int)
	// columnDot: y[i] is the chain of fused multiply-adds of a[i*len(x)+p] and x[p] over p from 0.
	columnDot func(y, a, x []float32)
	// dotRows: y[i] is laneDot of a[i*len(x):] and x.
	dotRows func(y, a, x []float32)
	// addRows: y[j] = y[j] + a[0] b[j], + a[cs] b[ldb+j], ... for k rows of b: the chain of a tile of one row goes on.
	addRows func(y, b []float32, ldb int, a []float32, cs, k int)
	// peak does n rounds of multiply-adds that do not wait for each other and returns how many floating-point
	// operations that were; nil on a path without vectors.
	peak func(n int) int
	// actGrad: dz[i] = dy[i] where y[i] > 0, else 0.
	actGrad func(dz, dy, y []float32)
	// silu: y[i] = z[i] / (1 + exp(-z[i])), with the arithmetic of siluPortable. y may be z.
	silu func(y, z []float32)
	// siluGrad: dz[i] = dy[i] s (1 + z[i] (1-s)), s = 1 / (1 + exp(-z[i])). dz may be dy.
	siluGrad func(dz, dy, z []float32)
	// colSum: s[j] = x[j] + x[stride+j] + ... over rows, in that order from 0 or, with more, from s[j].
	colSum func(s, x []float32, rows, stride int, more bool)
	optimKernels
	// dropout: y[i] = x[i] / keep where the uniform of element first+i is at least rate, else 0.
	dropout func(y, x []float32, first int, d *dropCoef)
	// permute: order[i] = p.At(first+i).
	permute func(order []int32, first int, p *program.Permutation)
	// gatherRows: row i of dst is row order[i] of src, each of width elements, width and all of order within src.
	gatherRows func(dst, src []float32, order []int32, width int)
	// transpose: dst[p*tileCols+j] = src[j*ld+p] for p < k and j < cols, and 0 for cols <= j < tileCols.
	transpose func(dst, src []float32, ld, k, cols int)
	// prefetch asks for the cache lines of x, which will be read soon.
	prefetch func(x []float32)
	// add: y[i] = a[i] + b[i]; scale: y[i] = s x[i]; div: y[i] = x[i] / by. y may be an argument.
	add   func(y, a, b []float32)
	scale func(y, x []float32, s float32)
	div   func(y, x []float32, by float32)
	// rowDot: s[i] is the chain of fused multiply-adds of a[i*d+c] and b[i*d+c] over c from 0.
	rowDot func(s, a, b []float32, d int)
	// softmaxLogits: b[j] = neg[j] - lq[j], -Inf where ni[j] is pi; it returns the largest of a and them.
	softmaxLogits func(b, neg, lq, ni []float32, pi, a float32) float32
	// softmaxExp: e[j] becomes x = exp(e[j] - largest), 0 where that is below -siluBound, and is added to lane j%16.
	softmaxExp func(sums *lanes, e []float32, largest float32)
	// bce: terms[i] = w[i] (max(z[i],0) - z[i] t[i] + log(1 + exp(-|z[i]|))); bceGrad: dz[i] = c w[i] (sigmoid(z[i]) -
	// t[i]), with the arithmetic of bcePortable and bceGradPortable.
	bce     func(terms, z, t, w []float32)
	bceGrad func(dz, z, t, w []float32, c float32)
	// pinball adds the terms of one row to the lanes; t, w and v are as long as y.
	pinball func(terms *lanes, y, t, w, v []float32)
	// pinballGrad is the gradient of one row, c = dloss / number of terms.
	pinballGrad func(dy, y, t, w, v []float32, c float32)
	// fns are the functions of Map.
	fns map[program.Fn]vectorFn
	// laneSum is program.LaneSum.
	laneSum func(x []float32) float32
	// extreme is the greatest or least of a row, NaN where one is.
	extreme func(fold program.Fold, x []float32) float32
	// addTo: y[i] = x[i] + c. y may be x.
	addTo func(y, x []float32, c float32)
	embed embedKernels
}

// The micro-kernel's tile: 6 x 16 fills 12 of the 16 vector registers of AVX2 with sums, which hides the
// latency of the multiply-add (4 cycles, 2 a cycle: at least 8 are needed).
const (
	tileRows = 6
	tileCols = 16
)

// fewRows is the number of rows from which a product is done in panels.
const fewRows = 4

// rowQuantum is what the rows of a worker are a multiple of: two tiles of four rows, which are as quick a row as six.
const rowQuantum = 8

// tile is the argument of the micro-kernel.
type tile struct {
	a, b, c, bias     []float32
	rows, tiles, cols int
	k                 int
	rs, cs, next      int // strides of a over rows, over k and over blocks of rows, in elements
	ldb, step, ldc    int
	load, relu        bool
}

// dropCoef are the numbers of one Dropout instruction in one step.
type dropCoef struct {
	seed       uint64
	step, site uint32
	rate, keep float32 // keep = 1 - rate
}

// avx2TileCols are the widths of the tiles of AVX2: as many as leave room in 16 registers for a row of b and an element
// of a, at least 8 sums where that can be. The portable path takes the same.
func avx2TileCols() []int { return []int{0, 64, 32, 24, 16, 16, 16, 8, 8, 8, 8, 8, 8} }

// portableKernels are plain Go: the reference of every other path.
func portableKernels() *kernels {
	return &kernels{
		name: "cpu-portable", tile: tilePortable, tileCols: avx2TileCols(), panelRows: tileRows, abreast: 1, panelBlock: mostPanels,
		columnDot: columnDotPortable, dotRows: dotRowsPortable, addRows: addRowsPortable, gatherTiles: gatherTilesPortable,
		actGrad: actGradPortable, silu: siluPortable, siluGrad: siluGradPortable, colSum: colSumPortable,
		optimKernels: portableOptim(), dropout: dropoutPortable, permute: permutePortable,
		gatherRows: gatherRowsPortable, transpose: transposePortable,
		prefetch: func([]float32) {}, add: addPortable, scale: scalePortable, div: divPortable, rowDot: rowDotPortable,
		bce: bcePortable, bceGrad: bceGradPortable,
		softmaxLogits: softmaxLogitsPortable, softmaxExp: softmaxExpPortable, pinball: pinballPortable,
		pinballGrad: pinballGradPortable,
		fns:         portableFns(), laneSum: program.LaneSum, extreme: extremePortable, addTo: addToPortable,
		embed: portableEmbed(),
	}
}

// subnormal32 is the bits of the smallest normal float32, 2^-126, as a float64.
const subnormal32 = (1023 - 126) << 52

// fma32 is x*y + z rounded once to float32, which Go has no instruction for. The product of two float32 is exact
// in float64. Where the sum had to be rounded, to an even last bit, it is moved one unit towards the exact
// one; then rounding it again, to 24 bits, gives what one rounding gives (rounding to odd, Boldo &
// Melquiond 2008).
func fma32(x, y, z float32) float32 {
	p, c := float64(x)*float64(y), float64(z)
	s := p + c
	b := s - p
	err := (p - (s - b)) + (c - b) // exact: Knuth's two-sum
	u := math.Float64bits(s)
	if (err > 0 || err < 0) && u&1 == 0 { // false for NaN, which an infinite s gives
		if (err > 0) == (s > 0) {
			u++
		} else {
			u--
		}
	}
	return float32(math.Float64frombits(u))
}

func tilePortable(t *tile) {
	if t.step > 0 {
		left, right := *t, *t
		left.cols, left.step = tileCols, 0
		right.b, right.c, right.cols, right.step = t.b[t.step:], t.c[tileCols:], t.cols-tileCols, 0
		if t.bias != nil {
			right.bias = t.bias[tileCols:]
		}
		tilePortable(&left)
		tilePortable(&right)
		return
	}
	for i := range t.tiles * t.rows {
		c := t.c[i*t.ldc : i*t.ldc+t.cols]
		a := t.a[i/t.rows*t.next+i%t.rows*t.rs:]
		var sums [maxTileCols]float32
		acc := sums[:t.cols]
		if t.load {
			copy(acc, c)
		}
		for p := range t.k {
			x := a[p*t.cs]
			wide := float64(x)
			b := t.b[p*t.ldb:][:len(acc)]
			for j, z := range acc {
				// fma32 in two: rounding twice can differ from rounding once only where the float64 sum is
				// a tie, by its low 29 bits, or below the normal range, which has fewer bits. The rest
				// needs no call.
				s := wide*float64(b[j]) + float64(z)
				if u := math.Float64bits(s); u<<35 != 1<<63 && u<<1 >= 2*subnormal32 {
					acc[j] = float32(s)
				} else {
					acc[j] = fma32(x, b[j], z)
				}
			}
		}
		for j := range acc {
			if t.bias != nil {
				acc[j] += t.bias[j]
			}
			if t.relu && acc[j] < 0 {
				acc[j] = 0
			}
		}
		copy(c, acc)
	}
}

// maxTileCols is the most columns that a tile has on any path: eight vectors of AVX-512.
const maxTileCols = 128

func gatherTilesPortable(dst, src []float32, rows, tiles, k, next, ld int) {
	for p := range k {
		for t := range tiles {
			copy(dst[t*next+p*rows:][:rows], src[p*ld+t*rows:][:rows])
		}
	}
}

// columnDotPortable is a tile of one row, with the sides changed.
func columnDotPortable(y, a, x []float32) {
	for i := range y {
		t := tile{a: a[i*len(x):], b: x, c: y[i:], rows: 1, tiles: 1, cols: 1, k: len(x), cs: 1, ldb: 1}
		tilePortable(&t)
	}
}

func dotRowsPortable(y, a, x []float32) {
	for i := range y {
		y[i] = laneDot(a[i*len(x):(i+1)*len(x)], x)
	}
}

func addRowsPortable(y, b []float32, ldb int, a []float32, cs, k int) {
	for p := range k {
		for j, x := range b[p*ldb:][:len(y)] {
			y[j] = fma32(a[p*cs], x, y[j])
		}
	}
}

func actGradPortable(dz, dy, y []float32) {
	dy, y = dy[:len(dz)], y[:len(dz)]
	for i := range dz {
		if y[i] > 0 {
			dz[i] = dy[i]
		} else {
			dz[i] = 0
		}
	}
}

func colSumPortable(s, x []float32, rows, stride int, more bool) {
	if !more {
		clear(s)
	}
	for r := range rows {
		for j, v := range x[r*stride : r*stride+len(s)] {
			s[j] += v
		}
	}
}

func dropoutPortable(y, x []float32, first int, d *dropCoef) {
	var u [4]float32
	for i := range y {
		at := first + i
		if i == 0 || at%4 == 0 {
			u = program.Uniforms4(d.seed, d.step, d.site, uint64(at/4))
		}
		if u[at%4] >= d.rate {
			y[i] = x[i] / d.keep
		} else {
			y[i] = 0
		}
	}
}

func gatherRowsPortable(dst, src []float32, order []int32, width int) {
	for i, at := range order {
		copy(dst[i*width:(i+1)*width], src[int(at)*width:])
	}
}

func permutePortable(order []int32, first int, p *program.Permutation) {
	for i := range order {
		order[i] = int32(p.At(first + i))
	}
}

func transposePortable(dst, src []float32, ld, k, cols int) {
	for p := range k {
		row := dst[p*tileCols : (p+1)*tileCols]
		for j := range cols {
			row[j] = src[j*ld+p]
		}
		clear(row[cols:])
	}
}
