package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// scalar is an operand of one element.
func scalar(x float32) operand {
	return operand{program.Temp, program.F32, []int{1}, []float32{x}, nil}
}

// testDescent is gradient descent plain, with momentum and with Nesterov's, each with and without a factor.
func testDescent(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	const rate, factor, decay, mu = .05, .25, .02, .9
	prepare := func(w *worker) { w.step, w.rate = 7, rate }
	for k := range 6 {
		g, p, u := values(r, m, n), values(r, m, n).as(program.Param), values(r, m, n).as(program.State)
		wp, wu, by := p.wide(), u.wide(), 1.0
		args := []operand{g}
		if k%2 == 1 {
			by, args = factor, append(args, scalar(factor))
		}
		op, at, outs := program.SGD, program.Attr{Decay: decay}, []operand{p}
		if k >= 2 {
			op, at.Momentum, at.Nesterov, outs = program.Momentum, mu, k >= 4, append(outs, u)
		}
		for i := range wp {
			gi := by*float64(g.f32[i]) + decay*wp[i]
			wu[i] = mu*wu[i] + gi
			switch {
			case k < 2:
				wp[i] -= rate * gi
			case k < 4:
				wp[i] -= rate * wu[i]
			default:
				wp[i] -= rate * (gi + mu*wu[i])
			}
		}
		got := run(op, at, args, outs, false, prepare)
		size := func(i int) float64 {
			return 8 * ulp * (math.Abs(float64(p.f32[i])) + math.Abs(float64(g.f32[i])) + math.Abs(float64(u.f32[i])))
		}
		near(t, fmt.Sprintf("variant %d: p", k), got[0], wp, size)
		if k >= 2 {
			near(t, fmt.Sprintf("variant %d: velocity", k), got[1], wu, size)
		}
	}
}

func testAdam(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	const step, rate, factor = 4, .01, .5
	g, p := values(r, m, n), values(r, m, n).as(program.Param)
	mean, v := values(r, m, n).as(program.State), values(r, m, n).as(program.State)
	at := program.Attr{Beta1: .9, Beta2: .999, Eps: 1e-6, Decay: .02}
	wp, wm, wv := p.wide(), mean.wide(), v.wide()
	for i := range wp {
		v.f32[i] = float32(math.Abs(float64(v.f32[i])))
		gi := factor*float64(g.f32[i]) + .02*wp[i]
		wm[i] = .9*wm[i] + .1*gi
		wv[i] = .999*float64(v.f32[i]) + .001*gi*gi
		wp[i] -= rate * (wm[i] / (1 - math.Pow(.9, step+1)) / (math.Sqrt(wv[i]/(1-math.Pow(.999, step+1))) + 1e-6))
	}
	got := run(program.Adam, at, []operand{g, scalar(factor)}, []operand{p, mean, v}, false,
		func(w *worker) { w.step, w.rate = step, rate })
	size := func(i int) float64 {
		return math.Abs(float64(mean.f32[i])) + math.Abs(float64(g.f32[i])) + math.Abs(float64(p.f32[i]))
	}
	near(t, "m", got[1], wm, func(i int) float64 { return 6 * ulp * size(i) })
	near(t, "v", got[2], wv, func(i int) float64 { return 8 * ulp * (wv[i] + .001*size(i)*size(i)) })
	near(t, "p", got[0], wp, func(i int) float64 {
		return 2*ulp*math.Abs(float64(p.f32[i])) + 60*ulp*rate*(size(i)/math.Sqrt(wv[i])+1)*(1+size(i)*size(i)/wv[i]/1000)
	})
}

func testAdagrad(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	const rate, factor = .01, .5
	g, p, s := values(r, m, n), values(r, m, n).as(program.Param), values(r, m, n).as(program.State)
	wp, ws, wg := p.wide(), s.wide(), make([]float64, m*n)
	for i := range wp {
		s.f32[i] = float32(math.Abs(float64(s.f32[i])))
		wg[i] = factor*float64(g.f32[i]) + .02*wp[i]
		ws[i] = float64(s.f32[i]) + wg[i]*wg[i]
		wp[i] -= rate * wg[i] / (math.Sqrt(ws[i]) + 1e-8)
	}
	got := run(program.Adagrad, program.Attr{Eps: 1e-8, Decay: .02}, []operand{g, scalar(factor)}, []operand{p, s}, false,
		func(w *worker) { w.rate = rate })
	size := func(i int) float64 { return math.Abs(float64(g.f32[i])) + math.Abs(float64(p.f32[i])) }
	near(t, "sum", got[1], ws, func(i int) float64 { return 8 * ulp * (ws[i] + size(i)*math.Abs(wg[i])) })
	near(t, "p", got[0], wp, func(i int) float64 {
		return 2*ulp*math.Abs(float64(p.f32[i])) + 20*ulp*rate*(1+size(i)/math.Sqrt(ws[i]))
	})
}

func testSumSquares(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	x := values(r, m, n)
	exact, blocks := 0.0, 0.0
	var squares []float32
	for _, v := range x.f32 {
		exact += float64(v) * float64(v)
		squares = append(squares, v*v)
	}
	for part := range slices.Chunk(squares, 4096) {
		blocks += float64(program.LaneSum(part))
	}
	got := run(program.SumSquares, program.Attr{}, []operand{x}, []operand{values(r, 1)}, false, nil)[0]
	near(t, "as documented", got, []float64{float64(float32(blocks))}, func(int) float64 { return 0 })
	near(t, "sum of squares", got, []float64{exact}, func(int) float64 { return 40 * ulp * exact })
}

func testRowSumSquares(t *testing.T, run opRunner, r *rand.Rand, m, d int) {
	if m*d > 60_000 {
		return
	}
	rows := 5 + m
	table := values(r, rows, d).as(program.Param)
	args := []operand{table, indices(r, rows, m, 1), values(r, m, d), indices(r, rows, 3, 4), values(r, 3, d)}
	dense := make([]float64, rows*d)
	for k := 1; k < len(args); k += 2 {
		w := args[k].shape[1]
		for i := range args[k].shape[0] {
			idx := args[k].f32[i*w : (i+1)*w]
			there := float64(w - len(slices.DeleteFunc(slices.Clone(idx), func(x float32) bool { return x >= 0 })))
			for _, x := range idx {
				for c := range d {
					if x >= 0 {
						dense[int(x)*d+c] += float64(args[k+1].f32[i*d+c]) / there
					}
				}
			}
		}
	}
	want := 0.0
	for _, x := range dense {
		want += x * x
	}
	got := run(program.RowSumSquares, program.Attr{}, args, []operand{values(r, 1)}, false, nil)[0]
	near(t, "sum of squares", got, []float64{want}, func(int) float64 { return 100*ulp*want + 1e-12 })
}

func testClipFactor(t *testing.T, run opRunner, _ *rand.Rand, _, _ int) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		sums []float32
		want float64
	}{
		{[]float32{9, 16}, .4}, {[]float32{4}, 1}, {[]float32{.1, .2, .3}, 1}, {[]float32{0}, 1},
		{[]float32{3e38, 3e38}, 2 / math.Sqrt(6e38)}, {[]float32{nan, 1}, 1}, {[]float32{inf, 1}, 0},
	} {
		var args []operand
		for _, s := range c.sums {
			args = append(args, scalar(s))
		}
		got := run(program.ClipFactor, program.Attr{Limit: 2}, args, []operand{scalar(nan)}, false, nil)[0]
		near(t, fmt.Sprint(c.sums), got, []float64{c.want}, within([]float64{c.want}, 2*ulp))
	}
}

func testAverage(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	for _, step := range []uint32{0, 9} {
		p, avg := values(r, m, n).as(program.Param), values(r, m, n).as(program.State)
		a := .1 / (1 - math.Pow(.9, float64(step)+1))
		if step == 0 {
			clear(avg.f32)
		}
		want := avg.wide()
		for i := range want {
			want[i] += a * (float64(p.f32[i]) - want[i])
		}
		got := run(program.MovingAverage, program.Attr{Decay: .9}, []operand{p}, []operand{avg}, false,
			func(w *worker) { w.step = step })[0]
		near(t, "average", got, want, func(i int) float64 {
			return 4 * ulp * (math.Abs(float64(p.f32[i])) + math.Abs(float64(avg.f32[i])))
		})
		if step == 0 && !slices.Equal(got.f32, p.f32) {
			t.Error("after the first step the average is not the weights")
		}
	}
}

// TestOptimizerKernelsAgreeToTheBit holds every path to the portable one, over odd sizes and unaligned slices, and an
// update cut anywhere to the whole.
func TestOptimizerKernelsAgreeToTheBit(t *testing.T) {
	updates := func(k *kernels) map[string]update {
		return map[string]update{"adamw": k.adamw, "adam": k.adam, "sgd": k.sgd, "momentum": k.momentum,
			"nesterov": k.nesterov, "adagrad": k.adagrad}
	}
	ref := portableKernels()
	for _, k := range paths() {
		r := rand.New(rand.NewPCG(3, 4))
		for _, n := range append([]int{0, 2, 7, 8, 9, 31, 32, 33, 63, 100, 1024}, oddSizes...) {
			c := newAdamCoef(&program.Attr{Beta1: .9, Beta2: .999, Eps: 1e-8, Decay: .01, Momentum: .9}, 3, .1)
			c.factor = .3
			p, m, v, g := odd(r, n), odd(r, n), odd(r, n), odd(r, n)
			for i := range v {
				m[i], v[i] = float32(math.Abs(float64(m[i]))), float32(math.Abs(float64(v[i]))) // adagrad takes m for its sums
			}
			for name, want := range updates(ref) {
				p1, m1, v1 := slices.Clone(p), slices.Clone(m), slices.Clone(v)
				p2, m2, v2 := slices.Clone(p), slices.Clone(m), slices.Clone(v)
				cut := n / 3
				got := updates(k)[name]
				got(p1[:cut], m1[:cut], v1[:cut], g[:cut], &c)
				got(p1[cut:], m1[cut:], v1[cut:], g[cut:], &c)
				want(p2, m2, v2, g, &c)
				for what, pair := range map[string][2][]float32{"p": {p1, p2}, "m": {m1, m2}, "v": {v1, v2}} {
					if err := same(pair[0], pair[1]); err != nil {
						t.Errorf("%s: %s %s of %d elements: %v", k.name, name, what, n, err)
					}
				}
			}
			if a, b := k.sumSquares(g), ref.sumSquares(g); math.Float32bits(a) != math.Float32bits(b) {
				t.Errorf("%s: the squares of %d elements come to %v, want %v", k.name, n, a, b)
			}
			a1, a2 := slices.Clone(m), slices.Clone(m)
			k.average(a1, p, .2)
			ref.average(a2, p, .2)
			if err := same(a1, a2); err != nil {
				t.Errorf("%s: average of %d elements: %v", k.name, n, err)
			}
		}
	}
}

// TestFactorOfOneIsNone: clipping that does not clip leaves every bit.
func TestFactorOfOneIsNone(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	for _, k := range paths() {
		p, m, v, g := random(r, 257), random(r, 257), random(r, 257), random(r, 257)
		c := newAdamCoef(&program.Attr{Beta1: .9, Beta2: .999, Eps: 1e-8, Decay: .01}, 3, .1)
		for i := range p {
			v[i] = float32(math.Abs(float64(v[i])))
			g1 := g[i]
			m1 := float32(c.b1*m[i]) + float32(c.ob1*g1)
			v1 := float32(c.b2*v[i]) + float32(c.ob2*float32(g1*g1))
			root := float32(math.Sqrt(float64(float32(v1 * c.c2))))
			step := float32(float32(m1*c.c1)/float32(root+c.eps)) + float32(c.decay*p[i])
			want := p[i] - float32(c.lr*step)
			k.adamw(p[i:i+1], m[i:i+1], v[i:i+1], g[i:i+1], &c)
			if math.Float32bits(p[i]) != math.Float32bits(want) {
				t.Fatalf("%s: %v, want %v", k.name, p[i], want)
			}
		}
	}
}

// TestClippedRowAdam: a factor gives what the gradients times the factor give.
func TestClippedRowAdam(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	const rows, d = 40, 9
	p, m := values(r, rows, d).as(program.Param), values(r, rows, d).as(program.State)
	v := operand{program.State, program.F32, []int{rows, d}, make([]float32, rows*d), nil}
	idx, dy := indices(r, rows, 60, 1), values(r, 60, d)
	half := operand{dy.kind, dy.dtype, dy.shape, slices.Clone(dy.f32), nil}
	for i := range half.f32 {
		half.f32[i] *= .5 // exact, and so are its sums
	}
	at := program.Attr{Beta1: .9, Beta2: .99, Eps: 1e-6, Decay: .02}
	step := func(w *worker) { w.step, w.rate = 4, .01 }
	for _, k := range paths() {
		a := runOp(t, k, 2, program.RowAdam, at, []operand{idx, dy, scalar(.5)}, []operand{p, m, v}, false, step)
		b := runOp(t, k, 2, program.RowAdam, at, []operand{idx, half}, []operand{p, m, v}, false, step)
		for i := range a {
			if err := same(a[i].f32, b[i].f32); err != nil {
				t.Errorf("%s: output %d: %v", k.name, i, err)
			}
		}
	}
}

func BenchmarkUpdates(b *testing.B) {
	const n = 1 << 15 // of a second-level cache
	r := rand.New(rand.NewPCG(1, 2))
	p, m, v, g := random(r, n), make([]float32, n), make([]float32, n), random(r, n)
	c := newAdamCoef(&program.Attr{Beta1: .9, Beta2: .999, Eps: 1e-8, Momentum: .9}, 3, 1e-3)
	k := paths()[len(paths())-1]
	for _, u := range []struct {
		name string
		run  func()
	}{
		{"adamw", func() { k.adamw(p, m, v, g, &c) }}, {"adam", func() { k.adam(p, m, v, g, &c) }},
		{"sgd", func() { k.sgd(p, nil, nil, g, &c) }}, {"momentum", func() { k.momentum(p, m, nil, g, &c) }},
		{"nesterov", func() { k.nesterov(p, m, nil, g, &c) }}, {"adagrad", func() { k.adagrad(p, v, nil, g, &c) }},
		{"sum_squares", func() { k.sumSquares(g) }}, {"average", func() { k.average(m, p, 1e-3) }},
	} {
		b.Run(u.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(4 * n)
			for b.Loop() {
				u.run()
			}
		})
	}
}
