package cpu

import (
	"fmt"
	"math"

	"golang.org/x/sys/cpu"

	"github.com/onmart/onmart/train/program"
)

//go:generate go run ./internal/asm -out kernels_amd64.s -stubs kernels_amd64.go -pkg cpu
//go:generate go run ./internal/asm -wide -out kernels512_amd64.s -stubs kernels512_amd64.go -pkg cpu

func hasAVX2() bool { return cpu.X86.HasAVX2 && cpu.X86.HasFMA }

// avx2Kernels hand whole vectors to the assembly and what is left over to the portable kernels.
func avx2Kernels() *kernels {
	tiles := avx2Tiles()
	return &kernels{
		name: "cpu-avx2", tile: tiles.run, tileCols: avx2TileCols(), panelRows: tileRows, abreast: 1, panelBlock: mostPanels,
		columnDot: tiles.columnDot, dotRows: dotRowsAVX2, addRows: addRowsAVX2, peak: peakAVX2,
		gatherTiles: gatherTilesAVX2, actGrad: actGradAVX2, silu: siluAVX2, siluGrad: siluGradAVX2, colSum: colSumAVX2,
		optimKernels: avx2Optim(), dropout: dropoutAVX2, permute: permuteAVX2, gatherRows: gatherRowsAVX2, transpose: transposeAVX2,
		prefetch: prefetchAVX2, add: addAVX2, scale: scaleAVX2, div: divAVX2, rowDot: rowDotAVX2,
		bce: bceAVX2, bceGrad: bceGradAVX2,
		softmaxLogits: softmaxLogitsAVX2, softmaxExp: softmaxExpAVX2, pinball: pinballAVX2, pinballGrad: pinballGradAVX2,
		fns: avx2Fns(), laneSum: laneSumAVX2, extreme: extremeAVX2, addTo: addToAVX2,
		embed: avx2Embed(),
	}
}

// tileFunc is a micro-kernel in assembly: kernels.tile for one number of rows and of vectors. Strides are in bytes;
// tail is the number of columns in the last vector, for those that can have less than a full one.
type tileFunc func(a *float32, rs, cs, next int, b *float32, ldb, step int, c *float32, ldc int, bias *float32,
	k, tiles, tail int, load, relu bool)

// tileTable holds the micro-kernels: full by rows, as wide as they come, and tail by rows and vectors. Those of pairs of
// panels are by rows too.
type tileTable struct {
	lanes              int
	cols               []int
	full               [13]tileFunc
	tail               [13][9]tileFunc
	fullPair, tailPair [13]tileFunc
}

func avx2Tiles() *tileTable {
	return &tileTable{
		lanes: 8, cols: avx2TileCols(),
		full: [13]tileFunc{1: tile1x64, 4: tile4x16, 5: tile5x16, 6: tile6x16},
		tail: [13][9]tileFunc{
			1: {1: tile1x8tail, tile1x16tail, tile1x24tail, tile1x32tail, tile1x40tail, tile1x48tail, tile1x56tail,
				tile1x64tail},
			2:  {1: tile2x8tail, tile2x16tail, tile2x24tail, tile2x32tail},
			3:  {1: tile3x8tail, tile3x16tail, tile3x24tail},
			4:  {1: tile4x8tail, tile4x16tail},
			5:  {1: tile5x8tail, tile5x16tail},
			6:  {1: tile6x8tail, tile6x16tail},
			7:  {1: tile7x8tail},
			8:  {1: tile8x8tail},
			9:  {1: tile9x8tail},
			10: {1: tile10x8tail},
			11: {1: tile11x8tail},
			12: {1: tile12x8tail},
		},
	}
}

func (table *tileTable) run(t *tile) {
	// The assembly trusts its arguments: these panic where the last element is out of reach.
	_ = t.a[(t.tiles-1)*t.next+(t.rows-1)*t.rs+(t.k-1)*t.cs]
	if t.step > 0 {
		_ = t.b[t.step+(t.k-1)*t.ldb+t.cols-tileCols-1]
	} else {
		_ = t.b[(t.k-1)*t.ldb+t.cols-1]
	}
	_ = t.c[(t.tiles*t.rows-1)*t.ldc+t.cols-1]
	var bias *float32
	if t.bias != nil {
		bias = &t.bias[:t.cols][0]
	}
	vecs := (t.cols + table.lanes - 1) / table.lanes
	tail := t.cols - (vecs-1)*table.lanes
	f := table.tail[t.rows][vecs]
	switch full := table.full[t.rows]; {
	case t.step > 0 && t.cols == 2*tileCols:
		f = table.fullPair[t.rows]
	case t.step > 0:
		f = table.tailPair[t.rows]
	case full != nil && t.cols == table.cols[t.rows]:
		f = full
	}
	f(&t.a[0], 4*t.rs, 4*t.cs, 4*t.next, &t.b[0], 4*t.ldb, 4*t.step, &t.c[0], 4*t.ldc, bias, t.k, t.tiles, tail, t.load,
		t.relu)
}

func peakAVX2(n int) int {
	fmaPeak(n)
	return 2 * 8 * 12 * n
}

// reaches panics where a slice has fewer than n elements. It looks at none of them: the last may be another worker's,
// who is writing it. What is read of those is written over.
func reaches(x []float32, n int) {
	if n > len(x) {
		panic(fmt.Sprintf("cpu: %d elements, a kernel reaches for %d", len(x), n))
	}
}

func gatherTilesAVX2(dst, src []float32, rows, tiles, k, next, ld int) {
	gatherTilesBy(gatherTiles, 8, dst, src, rows, tiles, k, next, ld)
}

// gatherTilesBy copies by vectors of so many lanes, and leaves the last rows to the portable kernel where a whole vector
// would reach beyond src.
func gatherTilesBy(by func(dst, src *float32, rows, tiles, k, next, ld int), lanes int, dst, src []float32,
	rows, tiles, k, next, ld int) {
	whole := 0
	if room := len(src) - (tiles-1)*rows - lanes; room >= 0 {
		whole = min(k, room/ld+1)
	}
	if whole > 0 {
		reaches(src, (whole-1)*ld+(tiles-1)*rows+lanes)
		reaches(dst, (tiles-1)*next+(whole-1)*rows+lanes)
		by(&dst[0], &src[0], 4*rows, tiles, whole, 4*next, 4*ld)
	}
	if whole < k {
		gatherTilesPortable(dst[whole*rows:], src[whole*ld:], rows, tiles, k-whole, next, ld)
	}
}

// columnDot does the last rows again in a group of eight that ends with them, where there are eight; fewer are a tile.
func (table *tileTable) columnDot(y, a, x []float32) {
	k := len(x)
	a = a[:len(y)*k]
	if len(y) == 0 {
		return
	}
	if len(y) < 8 {
		t := tile{a: a, b: x, c: y, rows: len(y), tiles: 1, cols: 1, k: k, rs: k, cs: 1, ldb: 1, ldc: 1}
		table.run(&t)
		return
	}
	i := 0
	for ; len(y)-i >= 32; i += 32 {
		columnDot32(&y[i], &a[i*k], 4*k, &x[0], k)
	}
	for ; i < len(y); i += 8 {
		i := min(i, len(y)-8)
		columnDot8(&y[i], &a[i*k], 4*k, &x[0], k)
	}
}

func dotRowsAVX2(y, a, x []float32) {
	k := len(x)
	a = a[:len(y)*k]
	if fours := len(y) / 4; fours > 0 {
		dotRows4(&y[0], &a[0], &x[0], k, fours)
		y, a = y[4*fours:], a[4*fours*k:]
	}
	if len(y) > 0 {
		dotRows1(&y[0], &a[0], &x[0], k, len(y))
	}
}

func addRowsAVX2(y, b []float32, ldb int, a []float32, cs, k int) {
	_, _ = a[(k-1)*cs], b[(k-1)*ldb+len(y)-1]
	if fours := k / 4; fours > 0 {
		addRows4(&y[0], &b[0], 4*ldb, &a[0], 4*cs, len(y), fours)
	}
	if rest := k % 4; rest > 0 {
		addRows1(&y[0], &b[(k-rest)*ldb], 4*ldb, &a[(k-rest)*cs], 4*cs, len(y), rest)
	}
}

func actGradAVX2(dz, dy, y []float32) {
	dy, y = dy[:len(dz)], y[:len(dz)]
	n := len(dz) &^ 7
	if n > 0 {
		actGrad8(&dz[0], &dy[0], &y[0], n)
	}
	actGradPortable(dz[n:], dy[n:], y[n:])
}

// siluAVX2 pads what is left over to a vector.
func siluAVX2(y, z []float32) {
	z = z[:len(y)]
	n := len(y) &^ 7
	if n > 0 {
		silu8(&y[0], &z[0], n)
	}
	if n < len(y) {
		var pad [8]float32
		copy(pad[:], z[n:])
		silu8(&pad[0], &pad[0], 8)
		copy(y[n:], pad[:])
	}
}

func siluGradAVX2(dz, dy, z []float32) {
	dy, z = dy[:len(dz)], z[:len(dz)]
	n := len(dz) &^ 7
	if n > 0 {
		siluGrad8(&dz[0], &dy[0], &z[0], n)
	}
	if n < len(dz) {
		var pad, padZ [8]float32
		copy(pad[:], dy[n:])
		copy(padZ[:], z[n:])
		siluGrad8(&pad[0], &pad[0], &padZ[0], 8)
		copy(dz[n:], pad[:])
	}
}

func colSumAVX2(s, x []float32, rows, stride int, more bool) {
	if !more {
		clear(s)
	}
	if rows == 0 || len(s) == 0 {
		return
	}
	_ = x[(rows-1)*stride+len(s)-1]
	j := 0
	for ; len(s)-j >= 32; j += 32 {
		colSum32(&s[j], &x[j], rows, 4*stride)
	}
	for ; len(s)-j >= 8; j += 8 {
		colSum8(&s[j], &x[j], rows, 4*stride)
	}
	if j < len(s) {
		colSumPortable(s[j:], x[j:], rows, stride, true)
	}
}

func dropoutAVX2(y, x []float32, first int, d *dropCoef) { dropoutBy(dropout32, 32, y, x, first, d) }

// dropoutBy takes groups of so many elements.
func dropoutBy(by func(y, x *float32, groups int, block, key0, key1, step, site uint32, rate, keep float32), group int,
	y, x []float32, first int, d *dropCoef) {
	x = x[:len(y)]
	head := min((4-first%4)%4, len(y))
	dropoutPortable(y[:head], x[:head], first, d)
	groups, block := (len(y)-head)/group, (first+head)/4
	if groups == 0 || block+group/4*groups >= 1<<32 {
		groups = 0
	} else {
		by(&y[head], &x[head], groups, uint32(block), uint32(d.seed), uint32(d.seed>>32), d.step, d.site, d.rate, d.keep)
	}
	tail := head + group*groups
	dropoutPortable(y[tail:], x[tail:], first+tail, d)
}

func gatherRowsAVX2(dst, src []float32, order []int32, width int) {
	if len(order) == 0 || width == 0 {
		return
	}
	dst = dst[:len(order)*width]
	gatherRows8(&dst[0], &src[0], &order[0], width, len(order))
}

func permuteAVX2(order []int32, first int, p *program.Permutation) { permuteBy(8, order, first, p) }

// permuteBy takes so many indices at a time, 8 or 16. The assembly is called by name: what goes through a function's
// value would be allocated.
func permuteBy(lanes int, order []int32, first int, p *program.Permutation) {
	f := p.Feistel()
	var l, r [16]uint32
	i := 0
	high, low := uint32(first)/f.B, uint32(first)%f.B
	for ; len(order)-i >= lanes; i += lanes {
		for k := range lanes {
			l[k], r[k] = high, low
			if low++; low == f.B {
				high, low = high+1, 0
			}
		}
		if lanes == 16 {
			permute16(&l[0], &r[0], f.A, f.B, f.Epoch, f.Site, f.Key[0], f.Key[1])
		} else {
			permute8(&l[0], &r[0], f.A, f.B, f.Epoch, f.Site, f.Key[0], f.Key[1])
		}
		for k := range lanes {
			x := l[k]*f.B + r[k]
			if x >= f.N {
				x = uint32(p.At(first + i + k))
			}
			order[i+k] = int32(x)
		}
	}
	permutePortable(order[i:], first+i, p)
}

func transposeAVX2(dst, src []float32, ld, k, cols int) {
	if cols < tileCols || k < 8 {
		transposePortable(dst, src, ld, k, cols)
		return
	}
	whole := k &^ 7
	_, _ = src[(tileCols-1)*ld+k-1], dst[k*tileCols-1]
	transpose8(&dst[0], &src[0], 4*ld, whole/8)
	transpose8(&dst[8], &src[8*ld], 4*ld, whole/8)
	if whole < k {
		transposePortable(dst[whole*tileCols:], src[whole:], ld, k-whole, cols)
	}
}

func prefetchAVX2(x []float32) {
	if len(x) > 0 {
		prefetchRow(&x[0], len(x))
	}
}

func addAVX2(y, a, b []float32) {
	a, b = a[:len(y)], b[:len(y)]
	n := len(y) &^ 7
	if n > 0 {
		add8(&y[0], &a[0], &b[0], n)
	}
	addPortable(y[n:], a[n:], b[n:])
}

func scaleAVX2(y, x []float32, s float32) {
	x = x[:len(y)]
	n := len(y) &^ 7
	if n > 0 {
		scale8(&y[0], &x[0], s, n)
	}
	scalePortable(y[n:], x[n:], s)
}

func divAVX2(y, x []float32, by float32) {
	x = x[:len(y)]
	n := len(y) &^ 7
	if n > 0 {
		div8(&y[0], &x[0], by, n)
	}
	divPortable(y[n:], x[n:], by)
}

// rowDotAVX2 does the last one to three rows again in a group of four that ends with them, where there are four.
func rowDotAVX2(s, a, b []float32, d int) {
	if len(s) < 4 {
		rowDotPortable(s, a, b, d)
		return
	}
	a, b = a[:len(s)*d], b[:len(s)*d]
	for i := 0; i < len(s); i += 4 {
		i := min(i, len(s)-4)
		rowDot4(&s[i], &a[i*d], &b[i*d], d)
	}
}

func softmaxLogitsAVX2(b, neg, lq, ni []float32, pi, a float32) float32 {
	neg, lq, ni = neg[:len(b)], lq[:len(b)], ni[:len(b)]
	n := len(b) &^ 7
	if n > 0 {
		top := [8]float32{a, a, a, a, a, a, a, a}
		softmaxLogits8(&b[0], &neg[0], &lq[0], &ni[0], pi, n, &top[0])
		for _, x := range top[:] {
			if x > a {
				a = x
			}
		}
	}
	return softmaxLogitsPortable(b[n:], neg[n:], lq[n:], ni[n:], pi, a)
}

// softmaxExpAVX2 pads what is left over to sixteen, by logits of -Inf.
func softmaxExpAVX2(sums *lanes, e []float32, largest float32) {
	n := len(e) &^ 15
	if n > 0 {
		softmaxExp16(&sums[0], &e[0], largest, n)
	}
	if n < len(e) {
		var pad lanes
		for j := copy(pad[:], e[n:]); j < len(pad); j++ {
			pad[j] = float32(math.Inf(-1))
		}
		softmaxExp16(&sums[0], &pad[0], largest, len(pad))
		copy(e[n:], pad[:])
	}
}

func pinballAVX2(terms *lanes, y, t, w, v []float32) {
	t, w, v = t[:len(y)], w[:len(y)], v[:len(y)]
	n := len(y) &^ 15
	if n > 0 {
		pinball16(&terms[0], &y[0], &t[0], &w[0], &v[0], n)
	}
	pinballPortable(terms, y[n:], t[n:], w[n:], v[n:])
}

func pinballGradAVX2(dy, y, t, w, v []float32, c float32) {
	y, t, w, v = y[:len(dy)], t[:len(dy)], w[:len(dy)], v[:len(dy)]
	n := len(dy) &^ 7
	if n > 0 {
		pinballGrad8(&dy[0], &y[0], &t[0], &w[0], &v[0], c, n)
	}
	pinballGradPortable(dy[n:], y[n:], t[n:], w[n:], v[n:], c)
}

// bceAVX2 pads what is left over to a vector.
func bceAVX2(terms, z, t, w []float32) {
	z, t, w = z[:len(terms)], t[:len(terms)], w[:len(terms)]
	n := len(terms) &^ 7
	if n > 0 {
		bce8(&terms[0], &z[0], &t[0], &w[0], n)
	}
	if n < len(terms) {
		var pad [3][8]float32
		copy(pad[0][:], z[n:])
		copy(pad[1][:], t[n:])
		copy(pad[2][:], w[n:])
		bce8(&pad[0][0], &pad[0][0], &pad[1][0], &pad[2][0], 8)
		copy(terms[n:], pad[0][:])
	}
}

func bceGradAVX2(dz, z, t, w []float32, c float32) {
	z, t, w = z[:len(dz)], t[:len(dz)], w[:len(dz)]
	n := len(dz) &^ 7
	if n > 0 {
		bceGrad8(&dz[0], &z[0], &t[0], &w[0], c, n)
	}
	if n < len(dz) {
		var pad [3][8]float32
		copy(pad[0][:], z[n:])
		copy(pad[1][:], t[n:])
		copy(pad[2][:], w[n:])
		bceGrad8(&pad[0][0], &pad[0][0], &pad[1][0], &pad[2][0], c, 8)
		copy(dz[n:], pad[0][:])
	}
}
