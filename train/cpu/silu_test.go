package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// ulpOf is one unit in the last place of float32 at x.
func ulpOf(x float64) float64 {
	_, e := math.Frexp(math.Abs(x))
	return math.Ldexp(1, max(e-24, -149))
}

// siluExact is silu, its gradient and the size of the gradient's terms in float64, of z clamped as documented.
func siluExact(z float64) (y, dz, size float64) {
	z = max(z, -87)
	s := 1 / (1 + math.Exp(-z))
	rest := 1 / (1 + math.Exp(z)) // 1-s
	c := min(z, 87)
	return z * s, s * (1 + c*rest), s * (1 + math.Abs(c)*rest)
}

// TestSilu walks through the float32 numbers of all sizes and both signs; the bounds are those of program.Silu.
// A stride of 37 found 2.3 units forward and 3.7 for the gradient.
func TestSilu(t *testing.T) {
	const stride, bound, gradBound = 4999, 3, 6
	var z, y, dz, ones []float32
	for b := uint64(0); b < 1<<32; b += stride {
		x := math.Float32frombits(uint32(b))
		if x == x && !math.IsInf(float64(x), 0) {
			z = append(z, x)
		}
	}
	for x := float32(-89); x < 89; x += 0.0007 {
		z = append(z, x)
	}
	y, dz, ones = make([]float32, len(z)), make([]float32, len(z)), make([]float32, len(z))
	for i := range ones {
		ones[i] = 1
	}
	for _, k := range paths() {
		k.silu(y, z)
		k.siluGrad(dz, ones, z)
		var worst, worstGrad float64
		for i, x := range z {
			wantY, wantD, size := siluExact(float64(x))
			if u := math.Abs(float64(y[i])-wantY) / ulpOf(wantY); !(u <= worst) {
				worst = u
				if !(u <= bound) {
					t.Fatalf("%s: silu(%v) = %v, want %v: %.2f units in the last place", k.name, x, y[i], wantY, u)
				}
			}
			if u := math.Abs(float64(dz[i])-wantD) / ulpOf(size); !(u <= worstGrad) {
				worstGrad = u
				if !(u <= gradBound) {
					t.Fatalf("%s: gradient at %v = %v, want %v: %.2f units in the last place", k.name, x, dz[i], wantD, u)
				}
			}
		}
		t.Logf("%s: %.3f and, for the gradient, %.3f units in the last place", k.name, worst, worstGrad)
	}
}

// TestSiluAtTheEnds: what is far out neither overflows nor becomes NaN, and NaN stays.
func TestSiluAtTheEnds(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, k := range paths() {
		for _, c := range []struct{ z, y, dz, tol float64 }{
			{-inf, 0, 0, 2e-36}, {-math.MaxFloat32, 0, 0, 2e-36}, {-100, 0, 0, 2e-36}, {-88, 0, 0, 2e-36},
			{0, 0, .5, 0}, {50, 50, 1, 0}, {88, 88, 1, 0}, {1e30, 1e30, 1, 1e23}, {inf, inf, 1, 0}, {nan, nan, nan, 0},
		} {
			for n := 1; n < 18; n += 8 { // in a whole vector and in the rest
				z, y, dz, dy := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
				for i := range z {
					z[i], dy[i] = float32(c.z), 1
				}
				k.silu(y, z)
				k.siluGrad(dz, dy, z)
				for i := range z {
					good := func(got float32, want float64) bool {
						return float64(got) == want || got != got && want != want || math.Abs(float64(got)-want) <= c.tol
					}
					if !good(y[i], c.y) || !good(dz[i], c.dz) {
						t.Errorf("%s: z = %v: silu %v, gradient %v, want %v and %v", k.name, c.z, y[i], dz[i], c.y, c.dz)
					}
				}
			}
		}
	}
}

// TestSiluIsElementwise: an element has the same bits alone, in any place of any slice, in place, and where the
// matrix product activates it.
func TestSiluIsElementwise(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	var want, wantGrad []float32
	z, dy := random(r, 301), random(r, 301)
	for _, k := range paths() {
		for n := 1; n <= len(z); n += 1 + n/5 {
			for from := 0; from+n <= len(z); from += n {
				y, dz := make([]float32, n), append([]float32(nil), dy[from:from+n]...)
				copy(y, z[from:])
				k.silu(y, y)
				k.siluGrad(dz, dz, z[from:from+n])
				if n == 1 {
					want, wantGrad = append(want, y...), append(wantGrad, dz...)
				}
				if err := same(y, want[from:from+n]); err != nil {
					t.Fatalf("%s: %d elements from %d: %v", k.name, n, from, err)
				}
				if err := same(dz, wantGrad[from:from+n]); err != nil {
					t.Fatalf("%s: gradient, %d elements from %d: %v", k.name, n, from, err)
				}
			}
		}
	}
}

// TestFusedIsSeparate: MatMul with silu is MatMul and Activate, over shapes that cut panels, rows and chains.
func TestFusedIsSeparate(t *testing.T) {
	r := rand.New(rand.NewPCG(10, 11))
	for _, k := range paths() {
		for _, s := range [][3]int{{1, 1, 1}, {1, 64, 64}, {7, 300, 17}, {200, 5, 33}, {100, 300, 260}, {3, 2, 515}} {
			for _, transA := range []bool{false, true} {
				m, inner, n := s[0], s[1], s[2]
				a := values(r, m, inner)
				if transA {
					a = values(r, inner, m)
				}
				b := values(r, inner, n)
				for _, args := range [][]operand{{a, b}, {a, b, values(r, n)}} {
					run := func(op program.Op, act program.Act, threads int, args ...operand) operand {
						at := program.Attr{Act: act, TransA: transA && op == program.MatMul}
						return runOp(t, k, threads, op, at, args, []operand{values(r, m, n)}, false, nil)[0]
					}
					for _, threads := range []int{1, 3} {
						separate := run(program.Activate, program.Silu, 1, run(program.MatMul, program.None, threads, args...))
						if err := same(run(program.MatMul, program.Silu, threads, args...).f32, separate.f32); err != nil {
							t.Errorf("%s: %v, transposed %v, %d threads: %v", k.name, s, transA, threads, err)
						}
					}
				}
			}
		}
	}
}

// BenchmarkActivation is the cost of an element in the first-level cache.
func BenchmarkActivation(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	const n = 2048
	x, y, z := random(r, n), random(r, n), make([]float32, n)
	for _, k := range paths() {
		for name, f := range map[string]func(){
			"relu_grad": func() { k.actGrad(z, x, y) },
			"silu":      func() { k.silu(z, x) },
			"silu_grad": func() { k.siluGrad(z, x, y) },
		} {
			b.Run(fmt.Sprintf("%s/%s", k.name, name), func(b *testing.B) {
				for b.Loop() {
					f()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
			})
		}
	}
}
