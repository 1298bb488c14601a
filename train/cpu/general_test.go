package cpu

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// exactFn is a function in float64, and the bound that package program states, in units in the last place of the
// result.
type exactFn struct {
	f     func(x float64) float64
	bound float64
}

var exactFns = map[program.Fn]exactFn{
	program.FnNeg: {func(x float64) float64 { return -x }, 0}, program.FnAbs: {math.Abs, 0},
	program.FnSign: {func(x float64) float64 {
		switch {
		case x > 0:
			return 1
		case x < 0:
			return -1
		}
		return 0
	}, 0},
	program.FnSquare: {func(x float64) float64 { return x * x }, .5},
	program.FnCube:   {func(x float64) float64 { return x * x * x }, 1.5},
	program.FnSqrt:   {math.Sqrt, .5},
	program.FnInv:    {func(x float64) float64 { return 1 / x }, .5},
	program.FnRsqrt:  {func(x float64) float64 { return 1 / math.Sqrt(x) }, 1.5},
	program.FnFloor:  {math.Floor, 0}, program.FnCeil: {math.Ceil, 0},
	program.FnExp: {math.Exp, 2}, program.FnLog: {math.Log, 2}, program.FnLog1p: {math.Log1p, 4}, program.FnExpm1: {math.Expm1, 4},
	program.FnTanh:     {math.Tanh, 4},
	program.FnSigmoid:  {func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, 3},
	program.FnSoftplus: {func(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }, 4},
	program.FnRelu:     {func(x float64) float64 { return math.Max(x, 0) }, 0},
	program.FnSilu:     {func(x float64) float64 { y, _, _ := siluExact(x); return y }, 3},
	program.FnSin:      {math.Sin, 1}, program.FnCos: {math.Cos, 1}, program.FnLog2: {math.Log2, 1},
}

// TestFunctions walks through the float32 numbers of all sizes, both signs, the infinities and NaN, and holds every
// function of one value to its bound. Every path gives the same bits, in whole vectors and in what is left over.
func TestFunctions(t *testing.T) {
	const stride = 49_999
	var xs []float32
	for b := uint64(0); b < 1<<32; b += stride {
		xs = append(xs, math.Float32frombits(uint32(b)))
	}
	for x := float32(-105); x < 105; x += 0.0037 {
		xs = append(xs, x)
	}
	for x := float32(.5); x < 2; x += 1e-5 {
		xs = append(xs, x, -x)
	}
	inf := float32(math.Inf(1))
	xs = append(xs, 0, float32(math.Copysign(0, -1)), 1, -1, inf, -inf, float32(math.NaN()), math.MaxFloat32, -math.MaxFloat32, 1e-45, -1e-45)
	for _, fn := range program.Fns() {
		if fn.Arity() != 1 {
			continue
		}
		exact, ok := exactFns[fn]
		if !ok {
			t.Errorf("%s has no exact function", fn)
			continue
		}
		y := make([]float32, len(xs))
		portableKernels().fns[fn](y, xs, nil)
		var worst float64
		for i, x := range xs {
			if fn == program.FnSigmoid && x <= -87 {
				continue // see FnSigmoid
			}
			want := exact.f(float64(x))
			u := errorUlps(float64(y[i]), want)
			if !(u <= exact.bound) {
				t.Errorf("%s(%v) is %v, want %v: %v units in the last place, bound %v", fn, x, y[i], want, u, exact.bound)
				break
			}
			worst = max(worst, u)
		}
		t.Logf("%-8s %.2f units in the last place, bound %g", fn, worst, exact.bound)
		for _, k := range paths() {
			got := make([]float32, len(xs))
			k.fns[fn](got, xs, nil)
			if err := sameNumbers(got, y); err != nil {
				t.Errorf("%s, %s: %v", k.name, fn, err)
			}
			for n := range 40 {
				odd := append([]float32(nil), xs[n+1:2*n+1]...)
				k.fns[fn](odd, odd, nil)
				if err := sameNumbers(odd, y[n+1:2*n+1]); err != nil {
					t.Errorf("%s, %s of %d elements in place: %v", k.name, fn, n, err)
				}
			}
		}
	}
}

// errorUlps is how far got is from want, in units in the last place of want; what float32 cannot hold is Inf or NaN,
// and 0 where it is below half of the smallest number.
func errorUlps(got, want float64) float64 {
	rounded := float64(float32(want))
	switch {
	case math.IsNaN(want):
		if math.IsNaN(got) {
			return 0
		}
		return math.Inf(1)
	case math.IsInf(rounded, 0) || math.IsInf(got, 0):
		if got == rounded || math.Abs(want) > math.MaxFloat32*(1-1e-6) && math.Abs(got) > math.MaxFloat32*(1-1e-6) {
			return 0
		}
		return math.Inf(1)
	}
	return math.Abs(got-want) / ulpOf(want)
}

// sameNumbers is same where any NaN is NaN: which of two operands' bits it has depends on the order in which the
// compiler put them.
func sameNumbers(a, b []float32) error {
	x, y := append([]float32(nil), a...), append([]float32(nil), b...)
	for _, z := range [][]float32{x, y} {
		for i, v := range z {
			if v != v {
				z[i] = float32(math.NaN())
			}
		}
	}
	return same(x, y)
}

func TestBinaryFunctions(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	a, b := random(r, 4000), random(r, 4000)
	for i, x := range []float32{0, 1, -1, inf, -inf, nan, float32(math.Copysign(0, -1)), 1e-45, math.MaxFloat32} {
		for j, y := range []float32{0, 1, -1, inf, -inf, nan, float32(math.Copysign(0, -1)), 1e-45, math.MaxFloat32} {
			a[9*i+j], b[9*i+j] = x, y
		}
	}
	for _, fn := range program.Fns() {
		if fn.Arity() != 2 {
			continue
		}
		want := make([]float32, len(a))
		for i := range a {
			want[i] = binary32[fn](a[i], b[i])
		}
		for _, k := range paths() {
			for _, n := range []int{1, 7, 8, 15, 16, 17, 81, len(a)} {
				got := append([]float32(nil), a[:n]...)
				k.fns[fn](got, got, b[:n])
				if err := sameNumbers(got, want[:n]); err != nil {
					t.Errorf("%s, %s of %d elements: %v", k.name, fn, n, err)
				}
			}
		}
	}
}

// evaluate computes an expression for one element by the words' meaning, on a stack.
func evaluate(expr string, x []float32) float32 {
	var stack []float32
	steps, err := program.ParseExpr(expr, len(x))
	if err != nil {
		panic(err)
	}
	for _, s := range steps {
		n := len(stack)
		switch {
		case s.Fn.Arity() == 2:
			stack = append(stack[:n-2], binary32[s.Fn](stack[n-2], stack[n-1]))
		case s.Fn.Arity() == 1:
			stack[n-1] = unary32[s.Fn](stack[n-1])
		case s.Arg >= 0:
			stack = append(stack, x[s.Arg])
		default:
			stack = append(stack, s.Value)
		}
	}
	return stack[0]
}

// testMap broadcasts operands in every way to matrices and to a tensor of four dimensions.
func testMap(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	if m*n > 70_000 {
		return
	}
	for _, out := range [][]int{{m, n}, {n}, {m, 2, 3, n%5 + 1}} {
		column := append([]int(nil), out...)
		column[len(out)-1] = 1
		shapes := [][]int{out, {1}, out[len(out)-1:], column, out}
		if len(out) == 4 {
			shapes = append(shapes, []int{1, 2, 1, out[3]}, []int{m, 1, 3, 1}, []int{3, 1})
		}
		for from, expr := range []string{"x0", "x0", "x0", "x0", "x0 x0 mul", "x0 x1 mul x2 add x3 sub",
			"x0 tanh 2 x1 sub mul x2 x3 max add x4 0.5 mul add", "x4 x0 x1 x2 x3 add add mul add",
			"x0 x1 x2 x3 x4 x5 x6 x7 add add add add add add add"} {
			args := strings.Count(expr, "x")
			for _, err := program.ParseExpr(expr, args); err != nil; _, err = program.ParseExpr(expr, args) {
				args-- // max holds an x, and an operand may occur twice
			}
			if from >= 4 {
				from = 0
			}
			if args > len(shapes[from:]) {
				continue
			}
			var in []operand
			for _, s := range shapes[from : from+args] {
				in = append(in, values(r, s...))
			}
			for _, inPlace := range []bool{false, true} {
				if inPlace && len(in[0].f32) != len(in[len(in)-1].f32) {
					continue // only over an operand of y's shape
				}
				got := run(program.Map, program.Attr{Expr: expr}, in, []operand{values(r, out...)}, inPlace && from == 0, nil)[0]
				x := make([]float32, args)
				for i := range got.f32 {
					for k, a := range in {
						x[k] = a.f32[broadcastIndex(a.shape, out, i)]
					}
					if want := evaluate(expr, x); !(got.f32[i] == want) {
						t.Fatalf("%q of %v: element %d of %v is %v, want %v", expr, shapes[from:from+args], i, out, got.f32[i], want)
					}
				}
			}
		}
	}
}

// broadcastIndex is the element of an operand that lies under element i of out.
func broadcastIndex(arg, out []int, i int) int {
	at, stride := 0, 1
	for d := 1; d <= len(out); d++ {
		n := out[len(out)-d]
		if d <= len(arg) {
			if a := arg[len(arg)-d]; a > 1 {
				at += i % n * stride
				stride *= a
			}
		}
		i /= n
	}
	return at
}

func testReduce(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	for _, shape := range [][]int{{m}, {m, n}, {m % 19, 3, n % 17}} {
		if shape[0] == 0 || shape[len(shape)-1] == 0 {
			continue
		}
		x := values(r, shape...)
		for axis := range shape {
			outer, k, inner := program.Split(shape, axis)
			out := append(append([]int(nil), shape[:axis]...), shape[axis+1:]...)
			if len(out) == 0 {
				out = []int{1}
			}
			for _, fold := range []program.Fold{program.Sum, program.Mean, program.Max, program.Min} {
				got := run(program.Reduce, program.Attr{Fold: fold, Axis: axis}, []operand{x}, []operand{values(r, out...)}, false, nil)[0]
				for o := range outer {
					for j := range inner {
						column, chain, sum, size := make([]float32, k), float32(0), 0., 0.
						top, low := math.Inf(-1), math.Inf(1)
						for i := range k {
							v := x.f32[(o*k+i)*inner+j]
							column[i] = v
							chain += v
							sum += float64(v)
							size += math.Abs(float64(v))
							top, low = max(top, float64(v)), min(low, float64(v))
						}
						if inner == 1 {
							chain = program.LaneSum(column)
						}
						if math.Abs(float64(chain)-sum) > float64(k)*ulp*size {
							t.Fatalf("sum %v, want %v", chain, sum)
						}
						want := map[program.Fold]float32{program.Sum: chain, program.Mean: chain / float32(k), program.Max: float32(top), program.Min: float32(low)}[fold]
						if g := got.f32[o*inner+j]; g != want {
							t.Fatalf("%s along %d of %v at %d, %d is %v, want %v", fold, axis, shape, o, j, g, want)
						}
					}
				}
			}
		}
	}
}

func TestReduceKeepsNaN(t *testing.T) {
	nan := float32(math.NaN())
	for _, k := range paths() {
		for at := range 40 {
			x := make([]float32, 40)
			x[at] = nan
			for _, fold := range []program.Fold{program.Max, program.Min, program.Sum, program.Mean} {
				if y := k.foldRow(fold, x); y == y {
					t.Errorf("%s: %s with NaN at %d is %v", k.name, fold, at, y)
				}
				y := make([]float32, 8)
				if k.foldRows(fold, y, x, 5, 8); y[at%8] == y[at%8] || y[(at+1)%8] != 0 {
					t.Errorf("%s: %s of columns with NaN at %d is %v", k.name, fold, at, y)
				}
			}
		}
	}
}

func testGeneralSoftmax(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	x, dy := values(r, m, n), values(r, m, n)
	for i := range x.f32 {
		x.f32[i] *= 5
	}
	y, logY := make([]float64, m*n), make([]float64, m*n)
	dx, logDX, size := make([]float64, m*n), make([]float64, m*n), make([]float64, m*n)
	for i := 0; i < m*n; i += n {
		top, sum := math.Inf(-1), 0.
		for j := range n {
			top = max(top, float64(x.f32[i+j]))
		}
		for j := range n {
			sum += math.Exp(float64(x.f32[i+j]) - top)
		}
		dot, total, weight := 0., 0., 0.
		for j := range n {
			logY[i+j] = float64(x.f32[i+j]) - top - math.Log(sum)
			y[i+j] = math.Exp(logY[i+j])
			dot += y[i+j] * float64(dy.f32[i+j])
			total += float64(dy.f32[i+j])
			weight += math.Abs(float64(dy.f32[i+j]))
		}
		for j := range n {
			dx[i+j] = y[i+j] * (float64(dy.f32[i+j]) - dot)
			logDX[i+j] = float64(dy.f32[i+j]) - y[i+j]*total
			size[i+j] = weight + 1
		}
	}
	for _, inPlace := range []bool{false, true} {
		got := run(program.Softmax, program.Attr{}, []operand{x}, []operand{values(r, m, n)}, inPlace, nil)[0]
		near(t, "softmax", got, y, func(i int) float64 { return 1e-5*y[i] + 1e-38 })
		got = run(program.LogSoftmax, program.Attr{}, []operand{x}, []operand{values(r, m, n)}, inPlace, nil)[0]
		near(t, "log softmax", got, logY, func(i int) float64 { return 1e-6 * (math.Abs(logY[i]) + 20) })
	}
	left, leftLog := x, x
	left.f32, leftLog.f32 = make([]float32, m*n), make([]float32, m*n)
	for i := range y {
		left.f32[i], leftLog.f32[i] = float32(y[i]), float32(logY[i])
	}
	got := run(program.SoftmaxGrad, program.Attr{}, []operand{dy, left}, []operand{values(r, m, n)}, false, nil)[0]
	near(t, "softmax gradient", got, dx, func(i int) float64 { return 1e-6 * size[i] })
	got = run(program.LogSoftmaxGrad, program.Attr{}, []operand{dy, leftLog}, []operand{values(r, m, n)}, false, nil)[0]
	near(t, "log softmax gradient", got, logDX, func(i int) float64 { return 2e-5 * size[i] })
}

func testLayerNorm(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	const eps = 1e-3
	x, dy, gain, bias := values(r, m, n), values(r, m, n), values(r, n), values(r, n)
	y, dx, dt := make([]float64, m*n), make([]float64, m*n), make([]float64, m*n)
	for i := 0; i < m*n; i += n {
		var mean, variance float64
		for j := range n {
			mean += float64(x.f32[i+j]) / float64(n)
		}
		for j := range n {
			variance += math.Pow(float64(x.f32[i+j])-mean, 2) / float64(n)
		}
		inverse := 1 / math.Sqrt(variance+float64(float32(eps)))
		h := make([]float64, n)
		var a, b float64
		for j := range n {
			h[j] = (float64(x.f32[i+j]) - mean) * inverse
			y[i+j] = h[j]*float64(gain.f32[j]) + float64(bias.f32[j])
			g := float64(dy.f32[i+j]) * float64(gain.f32[j])
			a += g / float64(n)
			b += g * h[j] / float64(n)
			dt[i+j] = float64(dy.f32[i+j]) * h[j]
		}
		for j := range n {
			dx[i+j] = inverse * (float64(dy.f32[i+j])*float64(gain.f32[j]) - a - h[j]*b)
		}
	}
	at := program.Attr{Eps: eps}
	tol := func(int) float64 { return 2e-4 }
	near(t, "layer norm", run(program.LayerNorm, at, []operand{x, gain, bias}, []operand{values(r, m, n)}, false, nil)[0], y, tol)
	got := run(program.LayerNormGrad, at, []operand{dy, x, gain}, []operand{values(r, m, n), values(r, m, n)}, false, nil)
	near(t, "gradient", got[0], dx, func(int) float64 { return 2e-3 })
	near(t, "terms of the gain's gradient", got[1], dt, tol)
}

func testTranspose(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	x := values(r, m, n)
	got := run(program.Transpose, program.Attr{}, []operand{x}, []operand{values(r, n, m)}, false, nil)[0]
	for i := range m {
		for j := range n {
			if got.f32[j*m+i] != x.f32[i*n+j] {
				t.Fatalf("%d, %d of %dx%d", i, j, m, n)
			}
		}
	}
}

func testCopy(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	x := values(r, m, n)
	for _, inPlace := range []bool{false, true} {
		got := run(program.Copy, program.Attr{}, []operand{x}, []operand{values(r, m*n)}, inPlace, nil)[0]
		if err := same(got.f32, x.f32); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkFunctions is the time of an element of each function, in and out of the first-level cache.
func BenchmarkFunctions(b *testing.B) {
	x, y, z := make([]float32, 2048), make([]float32, 2048), make([]float32, 2048)
	for i := range x {
		x[i], z[i] = float32(i)/700+.01, 1.5
	}
	fns := paths()[len(paths())-1].fns
	for _, fn := range program.Fns() {
		b.Run(string(fn), func(b *testing.B) {
			for b.Loop() {
				fns[fn](y, x, z)
			}
			b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N*len(x)), "ns/element")
			b.ReportMetric(0, "ns/op")
		})
	}
}
