package cpu

import (
	"golang.org/x/sys/cpu"

	"github.com/onmart/onmart/train/program"
)

func hasAVX512() bool {
	return hasAVX2() && cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512BW
}

// avx512TileCols is kernels.tileCols of avx512Tiles.
func avx512TileCols() []int {
	return []int{1: 128, 2: 96, 3: 96, 4: 64, 5: 64, 6: 64, 7: 16, 8: 16, 9: 16, 10: 16, 11: 16, 12: 16}
}

// avx512Kernels are those of AVX2 with wider tiles, activations and random numbers: those are what a training step is
// made of, and twice as many lanes of what else there is run at the speed of memory. Each output is the same chain, so the
// bits are those of AVX2.
func avx512Kernels() *kernels {
	k := avx2Kernels()
	k.name, k.peak = "cpu-avx512", peakAVX512
	k.tile, k.tileCols, k.panelRows, k.abreast = avx512Tiles().run, avx512TileCols(), 12, 2
	k.panelBlock, k.gatherTiles = 32, gatherTilesAVX512
	k.silu, k.siluGrad = siluAVX512, siluGradAVX512
	k.dropout, k.permute, k.embed.uniforms = dropoutAVX512, permuteAVX512, uniformsAVX512
	return k
}

func avx512Tiles() *tileTable {
	return &tileTable{
		lanes: 16, cols: avx512TileCols(),
		full: [13]tileFunc{
			1: widetile1x128, 2: widetile2x96, 3: widetile3x96, 4: widetile4x64, 5: widetile5x64, 6: widetile6x64,
			7: widetile7x16, 8: widetile8x16, 9: widetile9x16, 10: widetile10x16, 11: widetile11x16, 12: widetile12x16,
		},
		tail: [13][9]tileFunc{
			1:  {1: widetile1x16tail, widetile1x32tail, widetile1x48tail, widetile1x64tail, widetile1x80tail, widetile1x96tail, widetile1x112tail, widetile1x128tail},
			2:  {1: widetile2x16tail, widetile2x32tail, widetile2x48tail, widetile2x64tail, widetile2x80tail, widetile2x96tail},
			3:  {1: widetile3x16tail, widetile3x32tail, widetile3x48tail, widetile3x64tail, widetile3x80tail, widetile3x96tail},
			4:  {1: widetile4x16tail, widetile4x32tail, widetile4x48tail, widetile4x64tail},
			5:  {1: widetile5x16tail, widetile5x32tail, widetile5x48tail, widetile5x64tail},
			6:  {1: widetile6x16tail, widetile6x32tail, widetile6x48tail, widetile6x64tail},
			7:  {1: widetile7x16tail},
			8:  {1: widetile8x16tail},
			9:  {1: widetile9x16tail},
			10: {1: widetile10x16tail},
			11: {1: widetile11x16tail},
			12: {1: widetile12x16tail},
		},
		fullPair: [13]tileFunc{
			1:  widepairtile1x32,
			2:  widepairtile2x32,
			3:  widepairtile3x32,
			4:  widepairtile4x32,
			5:  widepairtile5x32,
			6:  widepairtile6x32,
			7:  widepairtile7x32,
			8:  widepairtile8x32,
			9:  widepairtile9x32,
			10: widepairtile10x32,
			11: widepairtile11x32,
			12: widepairtile12x32,
		},
		tailPair: [13]tileFunc{
			1:  widepairtile1x32tail,
			2:  widepairtile2x32tail,
			3:  widepairtile3x32tail,
			4:  widepairtile4x32tail,
			5:  widepairtile5x32tail,
			6:  widepairtile6x32tail,
			7:  widepairtile7x32tail,
			8:  widepairtile8x32tail,
			9:  widepairtile9x32tail,
			10: widepairtile10x32tail,
			11: widepairtile11x32tail,
			12: widepairtile12x32tail,
		},
	}
}

// siluAVX512 leaves what is not a whole vector to AVX2.
func siluAVX512(y, z []float32) {
	z = z[:len(y)]
	n := len(y) &^ 15
	if n > 0 {
		silu16(&y[0], &z[0], n)
	}
	siluAVX2(y[n:], z[n:])
}

func siluGradAVX512(dz, dy, z []float32) {
	dy, z = dy[:len(dz)], z[:len(dz)]
	n := len(dz) &^ 15
	if n > 0 {
		siluGrad16(&dz[0], &dy[0], &z[0], n)
	}
	siluGradAVX2(dz[n:], dy[n:], z[n:])
}

func dropoutAVX512(y, x []float32, first int, d *dropCoef) { dropoutBy(dropout64, 64, y, x, first, d) }

func permuteAVX512(order []int32, first int, p *program.Permutation) { permuteBy(16, order, first, p) }

func uniformsAVX512(u []float32, block int, seed uint64, step, site uint32) {
	uniformsBy(uniforms64, 64, u, block, seed, step, site)
}

func peakAVX512(n int) int {
	fmaPeak512(n)
	return 2 * 16 * 12 * n
}

// gatherTilesAVX512 copies tiles of more than eight rows, which are too many for a vector of AVX2.
func gatherTilesAVX512(dst, src []float32, rows, tiles, k, next, ld int) {
	if rows <= 8 {
		gatherTilesAVX2(dst, src, rows, tiles, k, next, ld)
		return
	}
	gatherTilesBy(gatherTiles512, 16, dst, src, rows, tiles, k, next, ld)
}
