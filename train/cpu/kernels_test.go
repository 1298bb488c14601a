package cpu

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/onmart/onmart/train/program"
)

var oddSizes = []int{1, 3, 17, 255, 257, 1023}

// random values of very different sizes, with zeros of both signs now and then.
func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		switch r.IntN(16) {
		case 0:
			x[i] = 0
		case 1:
			x[i] = float32(math.Copysign(0, -1))
		case 2:
			x[i] = float32(math.Ldexp(r.NormFloat64(), r.IntN(40)-20))
		default:
			x[i] = float32(r.NormFloat64())
		}
	}
	return x
}

// odd is a random slice that begins at an address that is no multiple of 8 bytes.
func odd(r *rand.Rand, n int) []float32 { return random(r, n+1)[1:] }

func TestFMA32RoundsOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	exact := func(x, y, z float32) float32 {
		p := new(big.Float).SetPrec(600).Mul(big.NewFloat(float64(x)), big.NewFloat(float64(y)))
		f, _ := p.Add(p, big.NewFloat(float64(z))).Float32()
		return f
	}
	one := func(x, y, z float32) float32 { // the same through the micro-kernel
		tl := tile{a: []float32{x}, b: []float32{y}, c: []float32{z}, rows: 1, tiles: 1, cols: 1, k: 1, load: true}
		tilePortable(&tl)
		return tl.c[0]
	}
	check := func(x, y, z float32) {
		t.Helper()
		want := exact(x, y, z)
		for _, got := range []float32{fma32(x, y, z), one(x, y, z)} {
			if got != want {
				t.Fatalf("%b*%b + %b = %b, want %b", x, y, z, got, want)
			}
		}
	}
	for range 50000 {
		e := func() int { return r.IntN(60) - 30 }
		check(float32(math.Ldexp(float64(r.IntN(1<<24)), e()-24)), float32(math.Ldexp(float64(r.IntN(1<<24)), e()-24)), float32(math.Ldexp(r.Float64()-0.5, e())))
	}
	// Ties of the second rounding: z is odd or even, the product half a unit of z and a little more or less.
	for i := range 64 {
		z := float32(1<<23 + i)
		for _, x := range []float32{0.5, -0.5} {
			for _, y := range []float32{1, math.Nextafter32(1, 2), math.Nextafter32(1, 0)} {
				check(x, y, z)
				check(x*0x1p-60, y, z*0x1p-60)
				check(x*0x1p-40, y*0x1p-109, z*0x1p-149) // below the normal range
			}
		}
	}
	// The sum of 2^30, 2^-30 and a half unit: the first rounding drops 2^-30 and leaves a tie.
	check(math.Nextafter32(1, 2)*0x1p3, math.Nextafter32(1, 2)*0x1p3, 0x1p30)
	check(1+0x1p-23, 64+0x1p-17, 0x1p30)
	if got := fma32(math.MaxFloat32, 2, 0); !math.IsInf(float64(got), 1) {
		t.Errorf("overflow gave %v", got)
	}
}

// TestKernelsAgreeToTheBit holds every path to the portable one, over odd sizes and unaligned slices.
func TestKernelsAgreeToTheBit(t *testing.T) {
	ref := portableKernels()
	for _, k := range paths()[1:] {
		r := rand.New(rand.NewPCG(3, 4))
		compare := func(what string, got, want []float32) {
			t.Helper()
			if err := same(got, want); err != nil {
				t.Errorf("%s: %s: %v", k.name, what, err)
			}
		}
		for _, n := range append([]int{0, 2, 7, 8, 9, 31, 32, 33, 63, 100, 1024}, oddSizes...) {
			what := fmt.Sprintf("of %d elements", n)
			x, y := odd(r, n), odd(r, n)
			got, want := odd(r, n), make([]float32, n)
			k.actGrad(got, x, y)
			ref.actGrad(want, x, y)
			compare("actGrad "+what, got, want)
			k.silu(got, x)
			ref.silu(want, x)
			compare("silu "+what, got, want)
			k.siluGrad(got, x, y)
			ref.siluGrad(want, x, y)
			compare("siluGrad "+what, got, want)

			for _, rows := range []int{1, 2, 17, 300} {
				stride := n + rows%3
				x := odd(r, rows*stride+1)
				k.colSum(got, x, rows, stride, false)
				ref.colSum(want, x, rows, stride, false)
				compare(fmt.Sprintf("colSum %s, %d rows", what, rows), got, want)
			}

			c := newAdamCoef(&program.Attr{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01}, 3, 0.1)
			p, m, v, g := odd(r, n), odd(r, n), odd(r, n), odd(r, n)
			for i := range v {
				v[i] = float32(math.Abs(float64(v[i])))
			}
			p2, m2, v2 := append([]float32(nil), p...), append([]float32(nil), m...), append([]float32(nil), v...)
			k.adamw(p, m, v, g, &c)
			ref.adamw(p2, m2, v2, g, &c)
			compare("adamw p "+what, p, p2)
			compare("adamw m "+what, m, m2)
			compare("adamw v "+what, v, v2)

			for _, first := range []int{0, 1, 2, 3, 4, 1000003, 1<<34 - 64, 1 << 35} {
				d := dropCoef{seed: 0x123456789abcdef, step: 77, site: 5, rate: 0.3, keep: 0.7}
				k.dropout(got, x, first, &d)
				ref.dropout(want, x, first, &d)
				compare(fmt.Sprintf("dropout %s from %d", what, first), got, want)
			}

			for _, rows := range []int{n + 1, n + 12345, 1<<31 - 1} {
				order, order2 := make([]int32, n), make([]int32, n)
				perm := program.NewPermutation(99, 3, rows)
				k.permute(order, 1, &perm)
				ref.permute(order2, 1, &perm)
				for i := range order {
					if order[i] != order2[i] {
						t.Errorf("%s: permute %s of %d rows: index %d goes to %d, want %d", k.name, what, rows, i, order[i], order2[i])
						break
					}
				}
			}

			order := make([]int32, 40)
			for i := range order {
				order[i] = int32(r.IntN(50))
			}
			rows, got40, want40 := odd(r, 50*n), odd(r, len(order)*n+8), make([]float32, len(order)*n+8)
			copy(want40, got40)
			k.gatherRows(got40[:len(order)*n], rows, order, n)
			ref.gatherRows(want40, rows, order, n)
			compare("gatherRows "+what, got40, want40)

			for _, cols := range []int{1, 15, 16} {
				ld := n + 3
				src := odd(r, cols*ld)
				got, want := random(r, n*tileCols), make([]float32, n*tileCols)
				k.transpose(got, src, ld, n, cols)
				ref.transpose(want, src, ld, n, cols)
				compare(fmt.Sprintf("transpose %s, %d columns", what, cols), got, want)
			}
		}
		t.Log(k.name)
		tilesAgree(t, k, ref, r)
		for _, rows := range append([]int{2, 7, 8, 9, 31, 32, 33, 41}, oddSizes...) {
			for _, depth := range []int{1, 2, 3, 4, 5, 8, 17, 130} {
				a, x, got, want := odd(r, rows*depth), odd(r, depth), odd(r, rows), make([]float32, rows)
				k.columnDot(got, a, x)
				ref.columnDot(want, a, x)
				compare(fmt.Sprintf("columnDot %d rows of %d", rows, depth), got, want)
				k.dotRows(got, a, x)
				ref.dotRows(want, a, x)
				compare(fmt.Sprintf("dotRows %d rows of %d", rows, depth), got, want)

				ldb, cs := rows+3, 1+depth%2
				b, factors := odd(r, (depth-1)*ldb+rows), odd(r, depth*cs)
				got = odd(r, rows+8)
				want = append([]float32(nil), got...)
				k.addRows(got[:rows], b, ldb, factors, cs, depth)
				ref.addRows(want[:rows], b, ldb, factors, cs, depth)
				compare(fmt.Sprintf("addRows %d columns of %d", rows, depth), got, want)
			}
		}
	}
}

// tilesAgree holds the micro-kernel of every size to the portable one, and looks that nothing is written beside it.
func tilesAgree(t *testing.T, k, ref *kernels, r *rand.Rand) {
	for rows, width := range k.tileCols {
		for cols := 1; cols <= width; cols++ {
			tileAgrees(t, k, ref, r, rows, cols, false)
		}
		if rows == 0 || k.abreast == 1 {
			continue
		}
		for cols := tileCols + 1; cols <= 2*tileCols; cols++ {
			tileAgrees(t, k, ref, r, rows, cols, true)
		}
	}
}

func tileAgrees(t *testing.T, k, ref *kernels, r *rand.Rand, rows, cols int, pair bool) {
	for _, depth := range []int{1, 2, 17, 256} {
		tiles := 1 + r.IntN(3)
		tl := tile{rows: rows, tiles: tiles, cols: cols, k: depth, rs: 1, cs: rows + 2, next: depth*(rows+2) + 1, ldb: cols + 4,
			ldc: cols + 7, load: r.IntN(2) == 0, relu: r.IntN(2) == 0}
		b := (depth-1)*tl.ldb + cols
		if pair {
			tl.step = []int{tileCols, depth*tl.ldb + 3}[r.IntN(2)]
			b += tl.step - tileCols
		}
		if r.IntN(2) == 0 {
			tl.bias = odd(r, cols)
		}
		if r.IntN(2) == 0 {
			tl.rs, tl.cs, tl.next = depth, 1, rows*depth
		}
		tl.a = odd(r, (tiles-1)*tl.next+(rows-1)*tl.rs+(depth-1)*tl.cs+1)
		tl.b, tl.c = odd(r, b), odd(r, (tiles*rows-1)*tl.ldc+cols+16)
		c := append([]float32(nil), tl.c...)
		k.tile(&tl)
		got := tl.c
		tl.c = c
		ref.tile(&tl)
		if err := same(got, c); err != nil {
			t.Errorf("%s: %d tiles of %dx%dx%d, pair %v load %v relu %v: %v", k.name, tiles, rows, depth, cols, pair, tl.load,
				tl.relu, err)
		}
	}
}

// TestTilesRefuseShortSlices: the assembly has no bounds of its own.
func TestTilesRefuseShortSlices(t *testing.T) {
	for _, k := range paths() {
		for short := range 2 + k.abreast { // the last is of a pair
			tl := tile{a: make([]float32, 6*8), b: make([]float32, 8*16), c: make([]float32, 6*16), rows: 6, tiles: 1, cols: 16, k: 8, rs: 8, cs: 1, ldb: 16, ldc: 16}
			switch short {
			case 0:
				tl.a = tl.a[:47:47]
			case 1:
				tl.b = tl.b[:127:127]
			case 2:
				tl.c = tl.c[:95:95]
			case 3:
				tl.b, tl.step, tl.c, tl.cols, tl.ldc = make([]float32, 2*8*16-1), 8*16, make([]float32, 6*32), 32, 32
			}
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: slice %d is one short, and nothing was said", k.name, short)
					}
				}()
				k.tile(&tl)
			}()
		}
	}
}

// TestNaNGoesThrough: what is lost in an activation would not be seen in the loss.
func TestNaNGoesThrough(t *testing.T) {
	nan := float32(math.NaN())
	for _, k := range paths() {
		tl := tile{a: []float32{nan}, b: make([]float32, 16), c: make([]float32, 16), rows: 1, tiles: 1, cols: 16, k: 1, relu: true}
		k.tile(&tl)
		if tl.c[5] == tl.c[5] {
			t.Errorf("%s: relu(NaN) = %v", k.name, tl.c[5])
		}
		p, m, v := []float32{1, 1, 1, 1, 1, 1, 1, 1, 1}, make([]float32, 9), make([]float32, 9)
		g := []float32{nan, nan, nan, nan, nan, nan, nan, nan, nan}
		c := newAdamCoef(&program.Attr{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}, 0, 0.1)
		k.adamw(p, m, v, g, &c)
		if p[0] == p[0] || p[8] == p[8] {
			t.Errorf("%s: adamw with NaN leaves %v", k.name, p)
		}
	}
}

func TestChooseKernels(t *testing.T) {
	for _, c := range []struct{ force, want, err string }{
		{"portable", "cpu-portable", ""},
		{"avx1024", "", "cpu: ONMART_CPU=avx1024 is not known: unset it, or set avx512, avx2 or portable"},
	} {
		t.Setenv("ONMART_CPU", c.force)
		b, err := New(Options{})
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%s: error %v, want %s", c.force, err, c.err)
			}
		} else if err != nil || b.Name() != c.want {
			t.Errorf("%s: %v, %v", c.force, b, err)
		}
	}
	t.Setenv("ONMART_CPU", "avx2")
	b, err := New(Options{Threads: 1})
	if hasAVX2() && (err != nil || b.Name() != "cpu-avx2") || !hasAVX2() && err == nil {
		t.Errorf("avx2, with AVX2 %v: %v, %v", hasAVX2(), b, err)
	}
	t.Setenv("ONMART_CPU", "avx512")
	b, err = New(Options{Threads: 1})
	if hasAVX512() && (err != nil || b.Name() != "cpu-avx512") || !hasAVX512() && err == nil {
		t.Errorf("avx512, with AVX-512 %v: %v, %v", hasAVX512(), b, err)
	}
	if _, err := New(Options{Threads: -1}); err == nil {
		t.Error("-1 threads were accepted")
	}
}
