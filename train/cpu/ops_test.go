package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// operand is a buffer of an instruction under test.
type operand struct {
	kind  program.Kind
	dtype program.DType
	shape []int
	f32   []float32
	f64   []float64
}

func values(r *rand.Rand, shape ...int) operand {
	n := 1
	for _, d := range shape {
		n *= d
	}
	o := operand{program.Temp, program.F32, shape, make([]float32, n), nil}
	for i := range o.f32 {
		o.f32[i] = float32(r.NormFloat64())
	}
	return o
}

func values64(r *rand.Rand, shape ...int) operand {
	o := values(r, shape...)
	o.dtype = program.F64
	o.f64 = make([]float64, len(o.f32))
	for i, v := range o.f32 {
		o.f64[i] = float64(v) * 3
	}
	o.f32 = nil
	return o
}

func (o operand) as(k program.Kind) operand { o.kind = k; return o }

func (o operand) wide() []float64 {
	if o.f64 != nil {
		return o.f64
	}
	w := make([]float64, len(o.f32))
	for i, v := range o.f32 {
		w[i] = float64(v)
	}
	return w
}

// runOp runs one instruction on its own and returns its outputs. inPlace puts output 0 over argument 0.
func runOp(t *testing.T, k *kernels, threads int, op program.Op, at program.Attr, args, outs []operand, inPlace bool, prepare func(w *worker)) []operand {
	t.Helper()
	set := &program.Set{Slots: []string{"slot"}}
	p := program.Program{Rows: 1}
	in := program.Instr{Op: op, Attr: at}
	add := func(o operand, name string) int {
		f := program.Buffer{Name: name, Kind: o.kind, DType: o.dtype, Shape: o.shape}
		switch o.kind {
		case program.Param:
			set.Params = append(set.Params, program.TensorSpec{Name: name, Shape: o.shape})
		case program.State:
			set.State = append(set.State, program.TensorSpec{Name: name, Shape: o.shape})
		case program.Const:
			set.Consts = append(set.Consts, program.TensorSpec{Name: name, Shape: o.shape})
		case program.Slot:
			f.Name = "slot"
		case program.Temp:
			f.Offset = p.Arena
			p.Arena += (f.Len()*f.DType.Size() + 63) / 64 * 64
		}
		p.Buffers = append(p.Buffers, f)
		return len(p.Buffers) - 1
	}
	for i, a := range args {
		in.Args = append(in.Args, add(a, fmt.Sprint("arg", i)))
	}
	for i, o := range outs {
		if inPlace && i == 0 {
			in.Outs = append(in.Outs, in.Args[0])
		} else {
			in.Outs = append(in.Outs, add(o, fmt.Sprint("out", i)))
		}
		if op == program.Gather {
			p.Rows = o.shape[0]
		}
	}
	p.Instrs = []program.Instr{in}
	set.Train = &p
	m := (&machine{p: &p, kernels: k, store: newStore(set), slots: make([]float64, 1), workers: threads}).outline()
	m.build(aligned(m.plan.bytes), set.Slots)
	fill := func(id int, o operand) {
		copy(m.mem[id].f32, o.f32)
		copy(m.mem[id].f64, o.f64)
	}
	for i, o := range outs {
		fill(in.Outs[i], o) // what was there before must not matter, but for AdamW and Accumulate
	}
	for i, a := range args {
		fill(in.Args[i], a)
	}
	pool := newPool(k, threads, m.pack)
	defer pool.close()
	pool.run(threads, func(w *worker) {
		w.rows = p.Rows
		if prepare != nil {
			prepare(w)
		}
		m.run(w)
	})
	var got []operand
	for i, o := range outs {
		o.f32, o.f64 = append([]float32(nil), m.mem[in.Outs[i]].f32...), append([]float64(nil), m.mem[in.Outs[i]].f64...)
		got = append(got, o)
	}
	return got
}

// near compares with a bound for each element.
func near(t *testing.T, what string, got operand, want []float64, tol func(i int) float64) {
	t.Helper()
	g := got.wide()
	if len(g) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(g), len(want))
	}
	for i := range g {
		if !(math.Abs(g[i]-want[i]) <= tol(i)) {
			t.Fatalf("%s: element %d is %v, want %v within %v", what, i, g[i], want[i], tol(i))
		}
	}
}

func within(want []float64, rel float64) func(int) float64 {
	return func(i int) float64 { return rel*math.Abs(want[i]) + 1e-30 }
}

const ulp = 0x1p-24 // half a unit in the last place, relative: the error of one rounding

// opTests runs each operation against a float64 reference that knows nothing of the kernels. m and n are rows
// and columns.
var opTests = map[program.Op]func(t *testing.T, run opRunner, r *rand.Rand, m, n int){
	program.Gather:      testGather,
	program.MatMul:      testMatMul,
	program.Activate:    testActivate,
	program.ActGrad:     testActGrad,
	program.ColSum:      testColSum,
	program.Add:         testAdd,
	program.Scale:       testScale,
	program.Fill:        testFill,
	program.Dropout:     testDropout,
	program.Concat:      testConcat,
	program.Slice:       testSlice,
	program.SliceGrad:   testSlice,
	program.BCE:         testBCE,
	program.BCEGrad:     testBCE,
	program.Accumulate:  testAccumulate,
	program.AdamW:       testAdamW,
	program.Standardize: testStandardize,
	program.Calibrate:   testCalibrate,

	program.Lookup:             testLookup,
	program.Sample:             testSample,
	program.RowDot:             testRowDot,
	program.RowScale:           testRowScale,
	program.SampledSoftmax:     testSampledSoftmax,
	program.SampledSoftmaxGrad: testSampledSoftmax,
	program.Pinball:            testPinball,
	program.PinballGrad:        testPinball,
	program.RowAdam:            testRowOptimizers,

	program.Map:            testMap,
	program.Reduce:         testReduce,
	program.Softmax:        testGeneralSoftmax,
	program.LogSoftmax:     testGeneralSoftmax,
	program.SoftmaxGrad:    testGeneralSoftmax,
	program.LogSoftmaxGrad: testGeneralSoftmax,
	program.LayerNorm:      testLayerNorm,
	program.LayerNormGrad:  testLayerNorm,
	program.Transpose:      testTranspose,
	program.Copy:           testCopy,

	program.LookupDot:            testLookupDot,
	program.LookupWeighted:       testLookupWeighted,
	program.CandidateSoftmax:     testCandidates,
	program.CandidateSoftmaxGrad: testCandidates,
	program.CandidateBPR:         testCandidates,
	program.CandidateBPRGrad:     testCandidates,
	program.RowAdagrad:           testRowOptimizers,
	program.RowSGD:               testRowOptimizers,

	program.SGD:           testDescent,
	program.Momentum:      testDescent,
	program.Adam:          testAdam,
	program.Adagrad:       testAdagrad,
	program.SumSquares:    testSumSquares,
	program.RowSumSquares: testRowSumSquares,
	program.ClipFactor:    testClipFactor,
	program.MovingAverage: testAverage,
}

type opRunner func(op program.Op, at program.Attr, args, outs []operand, inPlace bool, prepare func(w *worker)) []operand

// TestEveryOp enumerates program.Ops: an operation without a kernel or without a test fails here.
func TestEveryOp(t *testing.T) {
	for _, op := range program.Ops() {
		test, ok := opTests[op]
		if !ok {
			t.Errorf("operation %s has no test", op)
			continue
		}
		t.Run(string(op), func(t *testing.T) {
			for _, k := range paths() {
				for _, threads := range []int{1, 3} {
					run := func(op program.Op, at program.Attr, args, outs []operand, inPlace bool, prepare func(w *worker)) []operand {
						t.Helper()
						return runOp(t, k, threads, op, at, args, outs, inPlace, prepare)
					}
					r := rand.New(rand.NewPCG(5, 6))
					for i, m := range oddSizes {
						test(t, run, r, m, oddSizes[(i+2)%len(oddSizes)])
						test(t, run, r, m, 1+i)
					}
				}
			}
		})
	}
}

func testGather(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	const extra = 40
	rows := m + 2*extra
	col := values(r, rows, n)
	data := &bound{rows: rows, Data: program.Data{Columns: []program.Column{{Name: "c", Rows: rows, Width: n, F32: col.f32}}}}
	order := program.NewPermutation(3, 4, m+extra)
	train := program.Range{From: extra, To: rows}
	got := run(program.Gather, program.Attr{Column: "c"}, nil, []operand{values(r, m, n).as(program.Input)}, false, func(w *worker) {
		w.data, w.order, w.train, w.first = data, order, train, 7
	})
	for i := range m {
		at := extra + order.At(7+i)
		if err := same(got[0].f32[i*n:(i+1)*n], col.f32[at*n:(at+1)*n]); err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
	}
}

func testMatMul(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	for _, k := range []int{1, 5, 255, 257, 600} {
		if m*n*k > 150_000 {
			continue
		}
		for flags := range 24 {
			at := program.Attr{TransA: flags&1 != 0, TransB: flags&2 != 0}
			a, b := values(r, m, k), values(r, k, n)
			ai, ak, bk, bj := k, 1, n, 1
			if at.TransA {
				a.shape, ai, ak = []int{k, m}, 1, m
			}
			if at.TransB {
				b.shape, bk, bj = []int{n, k}, 1, k
			}
			args := []operand{a, b}
			if flags&4 != 0 {
				args = append(args, values(r, n))
			}
			if flags >= 16 {
				at.Act = program.Silu
			} else if flags&8 != 0 {
				at.Act = program.Relu
			}
			got := run(program.MatMul, at, args, []operand{values(r, m, n)}, false, nil)[0]
			chains, want, tol := make([]float32, m*n), make([]float64, m*n), make([]float64, m*n)
			for i := range m {
				for j := range n {
					var chain float32
					var sum, size float64
					for q := range k {
						x, y := a.f32[i*ai+q*ak], b.f32[q*bk+j*bj]
						chain = fma32(x, y, chain)
						sum += float64(x) * float64(y)
						size += math.Abs(float64(x) * float64(y))
					}
					if n == 1 && flags&1 == 0 {
						chain = laneDot(a.f32[i*k:(i+1)*k], b.f32)
					}
					if flags&4 != 0 {
						chain += args[2].f32[j]
						sum += float64(args[2].f32[j])
						size += math.Abs(float64(args[2].f32[j]))
					}
					if flags&8 != 0 {
						chain, sum = max(chain, 0), max(sum, 0)
					}
					if flags >= 16 {
						y := []float32{chain}
						siluPortable(y, y)
						chain, sum = y[0], sum/(1+math.Exp(-sum))
						size = 1.1*size + math.Abs(sum)*8 // the slope of silu is below 1.1
					}
					chains[i*n+j], want[i*n+j], tol[i*n+j] = chain, sum, float64(k+1)*ulp*size
				}
			}
			what := fmt.Sprintf("%dx%dx%d %+v", m, n, k, at)
			near(t, what, got, want, func(i int) float64 { return tol[i] })
			if err := same(got.f32, chains); err != nil {
				t.Fatalf("%s: not the chain over k: %v", what, err)
			}
		}
	}
}

func testActivate(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	z := values(r, m, n)
	for _, act := range []program.Act{program.Relu, program.Silu, program.None} {
		for _, inPlace := range []bool{false, true} {
			want, rel := z.wide(), 0.0
			for i, x := range want {
				if act == program.Relu {
					want[i] = max(x, 0)
				}
				if act == program.Silu {
					want[i], rel = x/(1+math.Exp(-x)), 6*ulp
				}
			}
			got := run(program.Activate, program.Attr{Act: act}, []operand{z}, []operand{values(r, m, n)}, inPlace, nil)
			near(t, string(act), got[0], want, within(want, rel))
		}
	}
}

func testActGrad(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	dy, y := values(r, m, n), values(r, m, n)
	for _, act := range []program.Act{program.Relu, program.Silu, program.None} {
		for _, inPlace := range []bool{false, true} {
			want := dy.wide()
			for i := range want {
				if act == program.Relu && !(y.f32[i] > 0) {
					want[i] = 0
				}
				if act == program.Silu {
					s := 1 / (1 + math.Exp(-float64(y.f32[i])))
					want[i] *= s * (1 + float64(y.f32[i])*(1-s))
				}
			}
			got := run(program.ActGrad, program.Attr{Act: act}, []operand{dy, y}, []operand{values(r, m, n)}, inPlace, nil)
			near(t, string(act), got[0], want, func(i int) float64 {
				if act == program.Silu {
					return 16 * ulp * math.Abs(float64(dy.f32[i]))
				}
				return 0
			})
		}
	}
}

func testColSum(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	x := values(r, m, n)
	got := run(program.ColSum, program.Attr{}, []operand{x}, []operand{values(r, n)}, false, nil)[0]
	chain, want, size := make([]float32, n), make([]float64, n), make([]float64, n)
	for i := range m {
		for j := range n {
			v := x.f32[i*n+j]
			chain[j] += v
			want[j] += float64(v)
			size[j] += math.Abs(float64(v))
		}
	}
	near(t, "sum", got, want, func(j int) float64 { return float64(m) * ulp * size[j] })
	if err := same(got.f32, chain); err != nil {
		t.Fatalf("not the chain over rows: %v", err)
	}
}

func testAdd(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	a, b := values(r, m, n), values(r, m, n)
	want := a.wide()
	for i, v := range b.wide() {
		want[i] += v
	}
	for _, inPlace := range []bool{false, true} {
		near(t, "add", run(program.Add, program.Attr{}, []operand{a, b}, []operand{values(r, m, n)}, inPlace, nil)[0], want, within(want, ulp))
	}
}

func testScale(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	x := values(r, m, n)
	want := x.wide()
	for i := range want {
		want[i] *= float64(float32(-0.3))
	}
	for _, inPlace := range []bool{false, true} {
		near(t, "scale", run(program.Scale, program.Attr{Scale: -0.3}, []operand{x}, []operand{values(r, m, n)}, inPlace, nil)[0], want, within(want, ulp))
	}
}

func testFill(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	want := make([]float64, m*n)
	for i := range want {
		want[i] = 2.5
	}
	near(t, "fill", run(program.Fill, program.Attr{Scale: 2.5}, nil, []operand{values(r, m, n)}, false, nil)[0], want, within(want, 0))
}

func testDropout(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	x := values(r, m, n)
	const seed, step, site, rate = 1<<40 + 9, 12, 3, float32(0.4)
	data := &bound{Data: program.Data{Schedule: program.Schedule{Seed: seed}}}
	want := x.wide()
	kept := 0
	for i := range want {
		if u := program.Uniforms4(seed, step, site, uint64(i/4))[i%4]; u >= rate {
			want[i] /= float64(1 - rate)
			kept++
		} else {
			want[i] = 0
		}
	}
	for _, inPlace := range []bool{false, true} {
		got := run(program.Dropout, program.Attr{Rate: rate, Site: site}, []operand{x}, []operand{values(r, m, n)}, inPlace, func(w *worker) { w.data, w.step = data, step })
		near(t, "dropout", got[0], want, within(want, ulp))
	}
	if share := float64(kept) / float64(m*n); m*n > 10000 && !(math.Abs(share-0.6) < 0.03) {
		t.Errorf("%v of the elements are kept, want 0.6", share)
	}
}

func testConcat(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	a, b, c := values(r, m, n), values(r, m, 1), values(r, m, 2*n)
	got := run(program.Concat, program.Attr{}, []operand{a, b, c}, []operand{values(r, m, 3*n+1)}, false, nil)[0]
	for i := range m {
		var want []float32
		want = append(append(append(want, a.f32[i*n:(i+1)*n]...), b.f32[i]), c.f32[i*2*n:(i+1)*2*n]...)
		if err := same(got.f32[i*(3*n+1):(i+1)*(3*n+1)], want); err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
	}
}

func testSlice(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	at := program.Attr{From: n / 3, To: n/3 + (n+1)/2}
	q := at.To - at.From
	x, dy := values(r, m, n), values(r, m, q)
	y := run(program.Slice, at, []operand{x}, []operand{values(r, m, q)}, false, nil)[0]
	dx := run(program.SliceGrad, at, []operand{dy}, []operand{values(r, m, n)}, false, nil)[0]
	for i := range m {
		for j := range n {
			inside := j >= at.From && j < at.To
			if want := float32(0); !inside && dx.f32[i*n+j] != want {
				t.Fatalf("gradient at %d,%d is %v outside of the slice", i, j, dx.f32[i*n+j])
			}
			if inside && (y.f32[i*q+j-at.From] != x.f32[i*n+j] || dx.f32[i*n+j] != dy.f32[i*q+j-at.From]) {
				t.Fatalf("%d,%d: slice or gradient differs", i, j)
			}
		}
	}
}

func testBCE(t *testing.T, run opRunner, r *rand.Rand, m, _ int) {
	z, tt, w := values(r, m, 1), values(r, m, 1), values(r, m, 1)
	for i := range z.f32 {
		z.f32[i] *= []float32{1, 20, 200}[i%3]
		w.f32[i] = float32(math.Abs(float64(w.f32[i])))
		tt.f32[i] = float32(i % 2)
	}
	var want float64
	grad := make([]float64, m)
	for i := range m {
		p, zi := 1/(1+math.Exp(-float64(z.f32[i]))), float64(z.f32[i])
		// -log p and -log(1-p), where they do not overflow; their limits where they do.
		lp, lq := -math.Log(p), -math.Log(1-p)
		if zi < -30 {
			lp = -zi
		}
		if zi > 30 {
			lq = zi
		}
		if tt.f32[i] == 1 {
			want += float64(w.f32[i]) * lp / float64(m)
		} else {
			want += float64(w.f32[i]) * lq / float64(m)
		}
		grad[i] = -2 * float64(w.f32[i]) * (p - float64(tt.f32[i])) / float64(m)
	}
	loss := run(program.BCE, program.Attr{}, []operand{z, tt, w}, []operand{values(r, 1)}, false, nil)[0]
	near(t, "loss", loss, []float64{want}, within([]float64{want}, float64(m/16+8)*ulp))
	scale := values(r, 1)
	scale.f32[0] = -2
	got := run(program.BCEGrad, program.Attr{}, []operand{z, tt, w, scale}, []operand{values(r, m, 1)}, false, nil)[0]
	// 1-exp is not exact in the reference either where z is large: 1e-16.
	near(t, "gradient", got, grad, func(i int) float64 { return 12*ulp*math.Abs(grad[i]) + 1e-16 })
}

func testAccumulate(t *testing.T, run opRunner, r *rand.Rand, _, _ int) {
	slot := operand{kind: program.Slot, dtype: program.F64, shape: []int{1}, f64: []float64{10}}
	x := values(r, 1)
	want := []float64{10 + float64(x.f32[0])*3}
	near(t, "with x", run(program.Accumulate, program.Attr{Scale: 3}, []operand{x}, []operand{slot}, false, nil)[0], want, within(want, 0))
	want = []float64{13}
	near(t, "without", run(program.Accumulate, program.Attr{Scale: 3}, nil, []operand{slot}, false, nil)[0], want, within(want, 0))
}

func testAdamW(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	g, p, mean, v := values(r, m, n), values(r, m, n).as(program.Param), values(r, m, n).as(program.State), values(r, m, n).as(program.State)
	at := program.Attr{Beta1: 0.9, Beta2: 0.999, Eps: 1e-6, Decay: 0.02}
	const step, rate = 4, 0.01
	wp, wm, wv := p.wide(), mean.wide(), v.wide()
	for i := range wp {
		v.f32[i] = float32(math.Abs(float64(v.f32[i])))
		gi := float64(g.f32[i])
		wm[i] = 0.9*wm[i] + 0.1*gi
		wv[i] = 0.999*float64(v.f32[i]) + 0.001*gi*gi
		wp[i] -= rate * (wm[i]/(1-math.Pow(0.9, step+1))/(math.Sqrt(wv[i]/(1-math.Pow(0.999, step+1)))+1e-6) + 0.02*wp[i])
	}
	got := run(program.AdamW, at, []operand{g}, []operand{p, mean, v}, false, func(w *worker) { w.step, w.rate = step, rate })
	near(t, "m", got[1], wm, func(i int) float64 { return 4 * ulp * (math.Abs(float64(mean.f32[i])) + math.Abs(float64(g.f32[i]))) })
	near(t, "v", got[2], wv, within(wv, 6*ulp))
	near(t, "p", got[0], wp, func(i int) float64 {
		size := (math.Abs(float64(mean.f32[i])) + math.Abs(float64(g.f32[i]))) / math.Sqrt(wv[i])
		return 2*ulp*math.Abs(float64(p.f32[i])) + 40*ulp*rate*(size+1)
	})
}

func testStandardize(t *testing.T, run opRunner, r *rand.Rand, m, n int) {
	x, mean, scale, log := values64(r, m, n), values64(r, n), values64(r, n), values64(r, n)
	for j := range log.f64 {
		log.f64[j] = float64(j % 2)
	}
	want := make([]float64, m*n)
	for i := range want {
		u := x.f64[i]
		if i%n%2 == 1 {
			if u < 0 {
				u = 0
			}
			u = math.Log(1 + u)
		}
		want[i] = (u - mean.f64[i%n]) * scale.f64[i%n]
	}
	got := run(program.Standardize, program.Attr{}, []operand{x, mean, scale, log}, []operand{values(r, m, n)}, false, nil)[0]
	near(t, "standardize", got, want, func(i int) float64 { return ulp*math.Abs(want[i]) + 1e-14 })
}

func testCalibrate(t *testing.T, run opRunner, r *rand.Rand, m, _ int) {
	z, ab := values(r, m, 1), values64(r, 2)
	want := make([]float64, m)
	for i := range want {
		want[i] = 1 / (1 + math.Exp(-(ab.f64[0]*float64(z.f32[i]) + ab.f64[1])))
	}
	got := run(program.Calibrate, program.Attr{}, []operand{z, ab}, []operand{values64(r, m, 1)}, false, nil)[0]
	near(t, "calibrate", got, want, within(want, 1e-14))
}
