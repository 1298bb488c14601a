package cpu

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// indices are rows of a table of n, a few of them none, and one of them often.
func indices(r *rand.Rand, n int, shape ...int) operand {
	o := values(r, shape...)
	for i := range o.f32 {
		switch r.IntN(8) {
		case 0:
			o.f32[i] = -1
		case 1:
			o.f32[i] = float32(n / 2)
		default:
			o.f32[i] = float32(r.IntN(n))
		}
	}
	return o
}

func testLookup(t *testing.T, run opRunner, r *rand.Rand, m, d int) {
	if m*d > 60_000 {
		return
	}
	const rows = 37
	table := values(r, rows, d).as(program.Param)
	for _, w := range []int{1, 2, 5} {
		idx := indices(r, rows, m, w)
		for j := range w { // a row without an index, one with the same index throughout, one with indices that are none
			idx.f32[j] = -1
			idx.f32[(m-1)*w+j] = 3
			if m > 2 {
				idx.f32[w+j] = []float32{rows, float32(math.NaN()), -7, float32(math.Inf(1)), 1 << 30}[j]
			}
		}
		got := run(program.Lookup, program.Attr{}, []operand{table, idx}, []operand{values(r, m, d)}, false, nil)[0]
		want := make([]float32, m*d)
		for i := range m {
			n := float32(0)
			for _, x := range idx.f32[i*w : (i+1)*w] {
				if !(x >= 0 && x < rows) {
					continue
				}
				for c := range d {
					want[i*d+c] += table.f32[int(x)*d+c] // from +0: what it makes of -0 does not matter to ==
				}
				n++
			}
			if n > 0 {
				for c := range d {
					want[i*d+c] /= n
				}
			}
		}
		if !slices.Equal(got.f32, want) {
			t.Fatalf("%d rows of %d, %d indices: not the mean in order", m, d, w)
		}
	}
}

func testSample(t *testing.T, run opRunner, r *rand.Rand, k, n int) {
	weights := make([]float64, n)
	total := 0.0
	for i := range weights {
		if i%3 != 1 || n < 3 { // others have none; the first are heavy, so that a guide skips many
			if i < 2 {
				weights[i] = float64(n)
			}
			weights[i] += r.Float64() + 0.01
		}
		total += weights[i]
	}
	cdf := values(r, n).as(program.Const)
	sum := 0.0
	for i, w := range weights {
		sum += w
		cdf.f32[i] = float32(sum / total)
	}
	cdf.f32[n-1] = 1
	const seed, step, site = 1<<41 + 5, 17, 6
	data := &bound{Data: program.Data{Schedule: program.Schedule{Seed: seed}}}
	shape := []int{k, 1}
	if k%3 == 0 {
		shape = []int{k / 3, 3}
	}
	got := run(program.Sample, program.Attr{Site: site}, []operand{cdf}, []operand{values(r, shape...)}, false,
		func(w *worker) { w.data, w.step = data, step })[0]
	for j, x := range got.f32 {
		u := program.Uniforms4(seed, step, site, uint64(j/4))[j%4]
		want := slices.IndexFunc(cdf.f32, func(c float32) bool { return c > u })
		if float32(want) != x {
			t.Fatalf("sample %d of %d is %v, want %d", j, n, x, want)
		}
		if weights[want] == 0 && want != n-1 {
			t.Fatalf("sample %d is item %d, which has no weight", j, want)
		}
	}
}

func testRowDot(t *testing.T, run opRunner, r *rand.Rand, m, d int) {
	a, b := values(r, m, d), values(r, m, d)
	got := run(program.RowDot, program.Attr{}, []operand{a, b}, []operand{values(r, m, 1)}, false, nil)[0]
	want := make([]float32, m)
	for i := range m {
		for c := range d {
			want[i] = fma32(a.f32[i*d+c], b.f32[i*d+c], want[i])
		}
	}
	if err := same(got.f32, want); err != nil {
		t.Fatalf("%dx%d: not the chain over columns: %v", m, d, err)
	}
}

func testRowScale(t *testing.T, run opRunner, r *rand.Rand, m, d int) {
	x, s := values(r, m, d), values(r, m, 1)
	want := make([]float64, m*d)
	for i := range want {
		want[i] = float64(x.f32[i]) * float64(s.f32[i/d])
	}
	near(t, "row_scale", run(program.RowScale, program.Attr{}, []operand{x, s}, []operand{values(r, m, d)}, false, nil)[0], want, within(want, ulp))
}

// testSampledSoftmax holds loss and gradients to float64; logits of sizes up to 80 apart, positives among the
// negatives, rows without a positive, negatives that are none.
func testSampledSoftmax(t *testing.T, run opRunner, r *rand.Rand, m, k int) {
	if m*k > 70_000 {
		return
	}
	const items = 29
	pos, neg, w := values(r, m, 1), values(r, m, k), values(r, m, 1)
	pi, ni, logq := indices(r, items, m, 1), indices(r, items, k, 1), values(r, items).as(program.Const)
	for i := range m {
		size := []float32{1, 5, 40}[i%3]
		pos.f32[i] *= size
		for j := range k {
			neg.f32[i*k+j] *= size
		}
		w.f32[i] = float32(math.Abs(float64(w.f32[i])))
	}
	scale := values(r, 1)
	scale.f32[0] = -1.5
	want, tol, size := 0.0, 0.0, 0.0
	dpos, dneg := make([]float64, m), make([]float64, m*k)
	for i := range m {
		at := int(pi.f32[i])
		if at < 0 {
			continue
		}
		a := float64(pos.f32[i] - logq.f32[at])
		largest, s := a, 0.0
		counts := func(j int) bool { return ni.f32[j] >= 0 && ni.f32[j] != pi.f32[i] }
		logit := func(j int) float64 { return float64(neg.f32[i*k+j] - logq.f32[int(ni.f32[j])]) }
		for j := range k {
			if counts(j) {
				largest = max(largest, logit(j))
			}
		}
		for j := range k {
			if counts(j) {
				s += math.Exp(logit(j) - largest)
			}
		}
		others := s
		s += math.Exp(a - largest)
		wi := float64(w.f32[i])
		want += wi * (math.Log(s) + largest - a) / float64(m)
		size += wi * (1 + math.Log(s) + largest - a) / float64(m)
		// The differences are rounded: an argument of -87 may be off by 2^-18, and so may its exponential be,
		// relatively; but the sum is made of those near 0.
		tol += wi * 1e-5 / float64(m)
		c := -1.5 * wi / float64(m)
		dpos[i] = -c * others / s
		for j := range k {
			if counts(j) {
				dneg[i*k+j] = c * math.Exp(logit(j)-largest) / s
			}
		}
	}
	args := []operand{pos, neg, pi, ni, logq, w}
	loss := run(program.SampledSoftmax, program.Attr{}, args, []operand{values(r, 1)}, false, nil)[0]
	near(t, "loss", loss, []float64{want}, func(int) float64 { return float64(m/16+16)*ulp*size + tol/4 })
	got := run(program.SampledSoftmaxGrad, program.Attr{}, append(slices.Clone(args), scale), []operand{values(r, m, 1), values(r, m, k)}, false, nil)
	near(t, "gradient of the positives", got[0], dpos, func(i int) float64 { return 3e-5*math.Abs(dpos[i]) + 1e-30 })
	near(t, "gradient of the negatives", got[1], dneg, func(i int) float64 { return 3e-5*math.Abs(dneg[i]) + 1e-30 })
	for i := range m {
		for j := range k {
			if pi.f32[i] < 0 || ni.f32[j] < 0 || ni.f32[j] == pi.f32[i] {
				if got[1].f32[i*k+j] != 0 {
					t.Fatalf("row %d: negative %d does not count and has gradient %v", i, j, got[1].f32[i*k+j])
				}
			}
		}
		if pi.f32[i] < 0 && got[0].f32[i] != 0 {
			t.Fatalf("row %d has no positive and gradient %v", i, got[0].f32[i])
		}
	}
}

func testPinball(t *testing.T, run opRunner, r *rand.Rand, m, h int) {
	if m*h > 70_000 {
		return
	}
	for _, list := range [][]float64{{0.5}, {0.05, 0.5, 0.975}, {0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975}} {
		levels, err := program.NewLevels(list)
		if err != nil {
			t.Fatal(err)
		}
		q := len(list)
		y, target, w := values(r, m, h*q), values(r, m, h), values(r, m, h)
		want, size, grad := 0.0, 0.0, make([]float64, m*h*q)
		for i := range target.f32 {
			switch i % 5 {
			case 1:
				w.f32[i], target.f32[i] = 0, float32(math.NaN()) // masked, whatever it is
				continue
			case 2:
				y.f32[i*q] = target.f32[i]
			}
			w.f32[i] = float32(math.Abs(float64(w.f32[i])))
			for l := range q {
				u, v := float64(target.f32[i])-float64(y.f32[i*q+l]), float64(levels[l])
				n := float64(w.f32[i]) / float64(len(grad))
				want += n * max(v*u, (v-1)*u)
				size += n * math.Abs(u)
				switch {
				case u > 0:
					grad[i*q+l] = -2 * n * -v
				case u < 0:
					grad[i*q+l] = -2 * n * (1 - v)
				}
			}
		}
		at := program.Attr{Levels: levels}
		loss := run(program.Pinball, at, []operand{y, target, w}, []operand{values(r, 1)}, false, nil)[0]
		near(t, "loss", loss, []float64{want}, func(int) float64 { return float64(m/16+h*q/16+16) * ulp * size })
		scale := values(r, 1)
		scale.f32[0] = -2
		got := run(program.PinballGrad, at, []operand{y, target, w, scale}, []operand{values(r, m, h*q)}, false, nil)[0]
		near(t, "gradient", got, grad, within(grad, 6*ulp))
	}
}

// testLookupDot: to the bit, against lanes written out.
func testLookupDot(t *testing.T, run opRunner, r *rand.Rand, m, d int) {
	if m*d > 60_000 {
		return
	}
	const rows = 37
	table := values(r, rows, d).as(program.Param)
	for _, w := range []int{1, 2, 4, 9} {
		idx, a := indices(r, rows, m, w), values(r, m, d)
		for j := range min(w, 4) {
			idx.f32[(m-1)*w+j] = []float32{rows, float32(math.NaN()), -7, float32(math.Inf(1))}[j]
		}
		got := run(program.LookupDot, program.Attr{}, []operand{table, idx, a}, []operand{values(r, m, w)}, false, nil)[0]
		want := make([]float32, m*w)
		for k, x := range idx.f32 {
			if !(x >= 0 && x < rows) {
				continue
			}
			var lane [16]float32
			for c := range d {
				lane[c%16] = fma32(table.f32[int(x)*d+c], a.f32[k/w*d+c], lane[c%16])
			}
			want[k] = program.LaneSum(lane[:])
		}
		if err := same(got.f32, want); err != nil {
			t.Fatalf("%d rows of %d, %d indices: %v", m, d, w, err)
		}
	}
}

func testLookupWeighted(t *testing.T, run opRunner, r *rand.Rand, m, d int) {
	if m*d > 60_000 {
		return
	}
	const rows = 37
	table := values(r, rows, d).as(program.Param)
	for _, w := range []int{1, 3, 9} {
		idx, s := indices(r, rows, m, w), values(r, m, w)
		for j := range w {
			idx.f32[j] = -1 // a row of none
		}
		got := run(program.LookupWeighted, program.Attr{}, []operand{table, idx, s}, []operand{values(r, m, d)}, false, nil)[0]
		want := make([]float32, m*d)
		for k, x := range idx.f32 {
			for c := 0; x >= 0 && c < d; c++ {
				want[k/w*d+c] = fma32(s.f32[k], table.f32[int(x)*d+c], want[k/w*d+c])
			}
		}
		if err := same(got.f32, want); err != nil {
			t.Fatalf("%d rows of %d, %d indices: %v", m, d, w, err)
		}
	}
}

// testCandidates holds both losses and their gradients to float64: scores up to 80 apart, the positive among the
// others, rows without a positive, candidates that are none.
func testCandidates(t *testing.T, run opRunner, r *rand.Rand, m, others int) {
	if m*others > 40_000 {
		return
	}
	const items = 29
	w := others + 1
	s, idx, weight, logq := values(r, m, w), indices(r, items, m, w), values(r, m, 1), values(r, items).as(program.Const)
	scale := values(r, 1)
	scale.f32[0] = -1.5
	for i := range m {
		size := []float32{1, 5, 40, 90}[i%4]
		for j := range w {
			s.f32[i*w+j] *= size
		}
		if idx.f32[i*w] >= 0 && i%3 == 1 {
			idx.f32[i*w+others] = idx.f32[i*w]
		}
		weight.f32[i] = float32(math.Abs(float64(weight.f32[i])))
	}
	counts := func(i, j int) bool { return idx.f32[i*w+j] >= 0 && idx.f32[i*w+j] != idx.f32[i*w] }
	for _, corrected := range []bool{false, true} {
		logit := func(i, j int) float64 {
			if corrected {
				return float64(s.f32[i*w+j] - logq.f32[int(idx.f32[i*w+j])])
			}
			return float64(s.f32[i*w+j])
		}
		loss, tol, grad := 0.0, 0.0, make([]float64, m*w)
		for i := range m {
			if idx.f32[i*w] < 0 {
				continue
			}
			top, sum := logit(i, 0), 0.0
			for j := 1; j < w; j++ {
				if counts(i, j) {
					top = max(top, logit(i, j))
				}
			}
			for j := 1; j < w; j++ {
				if counts(i, j) {
					sum += math.Exp(logit(i, j) - top)
				}
			}
			all, wi := sum+math.Exp(logit(i, 0)-top), float64(weight.f32[i])/float64(m)
			l := math.Log(all) + top - logit(i, 0)
			loss += wi * l
			tol += wi * (1 + l) * float64(w/16+m/16+16) * ulp
			grad[i*w] = 1.5 * wi * sum / all
			for j := 1; j < w; j++ {
				if counts(i, j) {
					grad[i*w+j] = -1.5 * wi * math.Exp(logit(i, j)-top) / all
				}
			}
		}
		args := []operand{s, idx, weight}
		back := []operand{s, idx, weight, scale}
		if corrected {
			args, back = append(args, logq), append(back, logq)
		}
		near(t, "softmax", run(program.CandidateSoftmax, program.Attr{}, args, []operand{values(r, 1)}, false, nil)[0],
			[]float64{loss}, func(int) float64 { return tol + 1e-5*math.Abs(loss) })
		got := run(program.CandidateSoftmaxGrad, program.Attr{}, back, []operand{values(r, m, w)}, false, nil)[0]
		near(t, "gradient of softmax", got, grad, func(i int) float64 { return 4e-5*math.Abs(grad[i]) + 1e-30 })
	}
	loss, tol, grad := 0.0, 0.0, make([]float64, m*w)
	for i := range m {
		if idx.f32[i*w] < 0 {
			continue
		}
		wi := float64(weight.f32[i]) / float64(m*others)
		for j := 1; j < w; j++ {
			if counts(i, j) {
				z := float64(s.f32[i*w] - s.f32[i*w+j])
				loss += wi * (math.Max(-z, 0) + math.Log1p(math.Exp(-math.Abs(z))))
				tol += wi * (1 + math.Abs(z)) * float64(w+m/16+20) * ulp
				grad[i*w+j] = -1.5 * wi / (1 + math.Exp(z))
				grad[i*w] -= grad[i*w+j]
			}
		}
	}
	args := []operand{s, idx, weight}
	near(t, "bpr", run(program.CandidateBPR, program.Attr{}, args, []operand{values(r, 1)}, false, nil)[0], []float64{loss},
		func(int) float64 { return tol })
	got := run(program.CandidateBPRGrad, program.Attr{}, append(args, scale), []operand{values(r, m, w)}, false, nil)[0]
	near(t, "gradient of bpr", got, grad, func(i int) float64 { return 1e-5*math.Abs(grad[i]) + 1e-30 })
	for i, x := range got.f32 {
		if i%w > 0 && !counts(i/w, i%w) && x != 0 {
			t.Fatalf("row %d: candidate %d does not count and has gradient %v", i/w, i%w, x)
		}
	}
}

// testRowOptimizers: uses of both kinds, with one and with several indices a row, against sums by a map.
func testRowOptimizers(t *testing.T, run opRunner, r *rand.Rand, m, d int) {
	if m*d > 60_000 {
		return
	}
	rows := 5 + m
	p, mean, v := values(r, rows, d).as(program.Param), values(r, rows, d).as(program.State), values(r, rows, d).as(program.State)
	acc := values(r, rows, 1).as(program.State)
	for i := range v.f32 {
		v.f32[i] = float32(math.Abs(float64(v.f32[i])))
	}
	for i := range acc.f32 {
		acc.f32[i] = float32(math.Abs(float64(acc.f32[i])))
	}
	index := func(m, w int) operand { return indices(r, rows, m, w) }
	several := []operand{index(m, 1), values(r, m, d), index(3, 4), values(r, 3, d), index(7, 1), values(r, 7, d)}
	several[2].f32[0], several[2].f32[1] = 2, 2 // twice in one row
	for _, c := range []struct {
		uses string
		args []operand
	}{
		{"", several},
		{"s", []operand{index(m, 9), values(r, m, 9), values(r, m, d)}},
		{"slls", slices.Concat([]operand{index(4, 3), values(r, 4, 3), values(r, 4, d)}, several[:4],
			[]operand{index(m, 2), values(r, m, 2), values(r, m, d)})},
	} {
		letters := c.uses
		if letters == "" {
			letters = "lll"
		}
		grads, at := map[int][]float32{}, 0
		for _, letter := range letters {
			idx, last := c.args[at], c.args[at+1]
			if letter == 's' {
				last = c.args[at+2]
			}
			w := idx.shape[1]
			for i := range idx.shape[0] {
				n := float32(0)
				for _, x := range idx.f32[i*w : (i+1)*w] {
					if x >= 0 {
						n++
					}
				}
				for j, x := range idx.f32[i*w : (i+1)*w] {
					if x < 0 {
						continue
					}
					g, seen := grads[int(x)]
					if !seen {
						g = make([]float32, d)
						grads[int(x)] = g
					}
					for k := range g {
						y := last.f32[i*d+k]
						switch {
						case letter == 's' && seen:
							g[k] = fma32(c.args[at+1].f32[i*w+j], y, g[k])
						case letter == 's':
							g[k] = c.args[at+1].f32[i*w+j] * y
						case seen:
							g[k] += y / n
						default:
							g[k] = y / n
						}
					}
				}
			}
			if at += 2; letter == 's' {
				at++
			}
		}
		const step, rate = 4, 0.01
		prepare := func(w *worker) { w.step, w.rate = step, rate }
		args := slices.Clone(c.args)
		for i := range args { // what is there from the start, not from the step that reads it first
			args[i] = args[i].as(program.Const)
		}
		check := func(op program.Op, attr program.Attr, outs []operand, want ...[]float32) {
			t.Helper()
			attr.Uses, attr.Decay = c.uses, .02
			for i, g := range run(op, attr, args, outs, false, prepare) {
				if err := same(g.f32, want[i]); err != nil {
					t.Fatalf("%s: %q, %d rows of %d, output %d: %v", op, c.uses, m, d, i, err)
				}
			}
		}
		adam := program.Attr{Beta1: 0.9, Beta2: 0.99, Eps: 1e-6, Decay: .02}
		coef := newAdamCoef(&adam, step, rate)
		wp, wm, wv := slices.Clone(p.f32), slices.Clone(mean.f32), slices.Clone(v.f32)
		rp, racc := slices.Clone(p.f32), slices.Clone(acc.f32)
		ep, eacc, sp := slices.Clone(p.f32), slices.Clone(v.f32), slices.Clone(p.f32)
		for row, g := range grads {
			lo, hi := row*d, (row+1)*d
			adamwPortable(wp[lo:hi], wm[lo:hi], wv[lo:hi], g, &coef)
			var lane [16]float32
			for k, x := range g {
				lane[k%16] = fma32(x, x, lane[k%16])
			}
			racc[row] += program.LaneSum(lane[:]) / float32(d)
			decayed := func(p, g, root float32) float32 {
				return p - float32(rate*(float32(g/float32(root+1e-6))+float32(.02*p)))
			}
			for k, x := range g {
				rp[lo+k] = decayed(rp[lo+k], x, float32(math.Sqrt(float64(racc[row]))))
				eacc[lo+k] += float32(x * x)
				ep[lo+k] = decayed(ep[lo+k], x, float32(math.Sqrt(float64(eacc[lo+k]))))
				sp[lo+k] -= float32(rate * (x + float32(.02*sp[lo+k])))
			}
		}
		check(program.RowAdam, adam, []operand{p, mean, v}, wp, wm, wv)
		check(program.RowAdagrad, program.Attr{Eps: 1e-6}, []operand{p, acc}, rp, racc)
		check(program.RowAdagrad, program.Attr{Eps: 1e-6}, []operand{p, v}, ep, eacc)
		check(program.RowSGD, program.Attr{}, []operand{p}, sp)
	}
}

// TestEmbeddingKernelsAgreeToTheBit holds every path to the portable one, over odd sizes and unaligned slices.
func TestEmbeddingKernelsAgreeToTheBit(t *testing.T) {
	ref := portableKernels()
	for _, k := range paths()[1:] {
		r := rand.New(rand.NewPCG(7, 8))
		compare := func(what string, n int, got, want []float32) {
			t.Helper()
			if err := same(got, want); err != nil {
				t.Errorf("%s: %s of %d elements: %v", k.name, what, n, err)
			}
		}
		for _, n := range append([]int{2, 7, 8, 9, 15, 16, 31, 32, 33, 63, 100, 1024}, oddSizes...) {
			a, b, s := odd(r, n), odd(r, n), float32(r.NormFloat64())
			got, want := odd(r, n), make([]float32, n)
			k.add(got, a, b)
			ref.add(want, a, b)
			compare("add", n, got, want)
			k.scale(got, a, s)
			ref.scale(want, a, s)
			compare("scale", n, got, want)
			k.div(got, a, 3)
			ref.div(want, a, 3)
			compare("div", n, got, want)
			for _, d := range []int{1, 3, 64} {
				x, y := odd(r, n*d), odd(r, n*d)
				k.rowDot(got, x, y, d)
				ref.rowDot(want, x, y, d)
				compare("rowDot", n, got, want)
			}

			neg, lq, ni := odd(r, n), odd(r, n), indices(r, 9, n).f32
			for i := range lq {
				if i%11 == 3 {
					lq[i] = float32(math.Inf(1))
				}
				if i%5 == 0 {
					neg[i] *= 60
				}
			}
			top, top2 := k.softmaxLogits(got, neg, lq, ni, 4, -1.5), ref.softmaxLogits(want, neg, lq, ni, 4, -1.5)
			if top != top2 {
				t.Errorf("%s: largest of %d logits is %v, want %v", k.name, n, top, top2)
			}
			compare("softmaxLogits", n, got, want)
			var sums, sums2 lanes
			sums[5], sums2[5] = 0.25, 0.25
			k.softmaxExp(&sums, got, top)
			ref.softmaxExp(&sums2, want, top)
			compare("softmaxExp", n, got, want)
			compare("softmaxExp lanes", n, sums[:], sums2[:])

			w, v := odd(r, n), make([]float32, n)
			for i := range v {
				v[i] = float32(r.IntN(99)+1) / 100
				if i%6 == 1 {
					a[i] = b[i]
				}
				if i%13 == 1 {
					w[i], a[i] = 0, float32(math.NaN())
				}
			}
			var terms, terms2 lanes
			k.pinball(&terms, a, b, w, v)
			ref.pinball(&terms2, a, b, w, v)
			compare("pinball lanes", n, terms[:], terms2[:])
			k.pinballGrad(got, a, b, w, v, 0.3)
			ref.pinballGrad(want, a, b, w, v, 0.3)
			compare("pinballGrad", n, got, want)
		}
	}
}

// TestLossKernelsLetNaNThrough: what is lost there would not be seen in the loss.
func TestLossKernelsLetNaNThrough(t *testing.T) {
	nan := float32(math.NaN())
	for _, k := range paths() {
		for _, n := range []int{1, 5, 16, 23} {
			at := n - 1
			neg, e := make([]float32, n), make([]float32, n)
			neg[at] = nan
			top := k.softmaxLogits(e, neg, make([]float32, n), make([]float32, n), 4, 0)
			var sums lanes
			k.softmaxExp(&sums, e, top)
			if s := sums.sum(); s == s {
				t.Errorf("%s: a NaN among %d logits: the sum is %v", k.name, n, s)
			}
			y, ones, v := make([]float32, n), slices.Repeat([]float32{1}, n), slices.Repeat([]float32{0.5}, n)
			y[at] = nan
			var terms lanes
			k.pinball(&terms, y, ones, ones, v)
			if s := terms.sum(); s == s {
				t.Errorf("%s: a NaN among %d forecasts: the sum is %v", k.name, n, s)
			}
		}
	}
}

// TestEntriesAreSorted: small and large tables, few and many entries, rows that are named very often, one to eight
// workers; against a stable sort by comparison.
func TestEntriesAreSorted(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 1))
	for _, rows := range []int{1, 2, 300, 2048, 2049, 1 << 17, 1 << 20, 1 << 24} {
		for _, scale := range []int{1, 60} {
			for _, n := range []int{1, 2, 3, 8} {
				var uses []use
				for _, shape := range [][2]int{{500 * scale, 1}, {70 * scale, 9}, {1, 1}} {
					u := use{idx: indices(r, rows, shape[0], shape[1]).f32, m: shape[0], w: shape[1],
						part: partition{units: shape[0], quantum: rowQuantum}}
					for i := range u.idx {
						if i%3 == 0 && u.idx[i] >= 0 { // neighbours, so that a bucket is large and has many rows
							u.idx[i] = float32(i % min(rows, 77))
						}
					}
					if shape[1] > 1 {
						u.s = values(r, shape[0], shape[1]).f32
					}
					uses = append(uses, u)
				}
				var want []entry
				for number, u := range uses {
					for k, x := range u.idx {
						if x >= 0 {
							e := entry{int32(x), int32(k / u.w), int32(number), 1}
							if u.s != nil {
								e.factor = u.s[k]
							}
							want = append(want, e)
						}
					}
				}
				slices.SortStableFunc(want, func(a, b entry) int { return int(a.row) - int(b.row) })
				es := newEntries(uses, nil, rows, 4)
				each := func(f func(u *use, number, id, lo, hi int)) {
					for k := range es.uses {
						for id := range n {
							if lo, hi := es.uses[k].part.split(es.uses[k].m, id, n); lo < hi {
								f(&es.uses[k], k, id, lo, hi)
							}
						}
					}
				}
				each(func(u *use, _, id, lo, hi int) { es.count(u, id, lo, hi) })
				each(func(u *use, number, id, lo, hi int) {
					starts := es.starts
					if lo > 0 {
						starts = nil
					}
					es.places(u, id, n, es.mine(id).at[:], starts)
					es.fill(u, int32(number), es.mine(id).at[:], lo, hi)
				})
				var got []entry
				es.take(0, func(spans []span) {
					for k, s := range spans[:len(spans)-1] {
						for _, e := range es.other[s.at:spans[k+1].at] {
							if e.row != s.row {
								t.Fatalf("%d rows: an entry of row %d in the span of %d", rows, e.row, s.row)
							}
							got = append(got, e)
						}
					}
				})
				if !slices.Equal(got, want) {
					t.Fatalf("%d rows, %d entries, %d workers: not sorted by row, use and place", rows, len(want), n)
				}
			}
		}
	}
}

// BenchmarkParts times what a step of a recommender is made of, for the weights in embed.go; the figure is ns an
// element, for the product ns a multiply-add. Tables are larger than the cache, indices uniform.
func BenchmarkParts(b *testing.B) {
	const rows, d, m, k = 200_000, 64, 1024, 512
	r := rand.New(rand.NewPCG(1, 1))
	kern := paths()[len(paths())-1]
	table, mean, v := values(r, rows, d), values(r, rows, d), make([]float32, rows*d)
	x, y := values(r, m, d), values(r, k, d)
	out := make([]float32, m*max(d, k))
	idx := make([][]float32, 50)
	for i := range idx {
		idx[i] = make([]float32, m)
		for j := range idx[i] {
			idx[i][j] = float32(r.IntN(rows))
		}
	}
	report := func(b *testing.B, elements int) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*elements), "ns/element")
	}
	b.Run("matmul", func(b *testing.B) {
		mm := matmul{a: x.f32, b: y.f32, y: out, m: m, n: k, k: d, transB: true}
		w := newWorker(kern, 0, 1, min(d, kBlock)*min(mm.panels(), mostPanels)*tileCols)
		for b.Loop() {
			mm.run(w, 0, m, 0, mm.panels())
		}
		report(b, m*k*d)
	})
	b.Run("lookup", func(b *testing.B) {
		n := 0
		for b.Loop() {
			lookupRows(kern, out[:m*d], table.f32, idx[n%len(idx)], rows, 1, d)
			n++
		}
		report(b, m*d)
	})
	b.Run("row_adam", func(b *testing.B) {
		es := newEntries([]use{{idx: idx[0], m: m, w: 1, part: partition{units: m, quantum: 1}}}, [][]float32{x.f32}, rows, d)
		c := newAdamCoef(&program.Attr{Beta1: .9, Beta2: .99, Eps: 1e-8}, 3, 1e-3)
		w := newWorker(kern, 0, 1, group*d)
		n := 0
		for b.Loop() {
			u := &es.uses[0]
			u.idx = idx[n%len(idx)]
			es.count(u, 0, 0, m)
			es.places(u, 0, 1, es.mine(0).at[:], es.starts)
			es.next.Store(0)
			es.fill(u, 0, es.mine(0).at[:], 0, m)
			es.take(0, func(spans []span) {
				es.groups(w, spans, nil, [][]float32{table.f32, mean.f32, v}, func(spans []span, g []float32) {
					kern.embed.adam(table.f32, mean.f32, v, g, spans, d, &c)
				})
			})
			n++
		}
		report(b, m*d)
	})
	b.Run("softmax", func(b *testing.B) {
		neg := values(r, m, k)
		f := softmax{pos: make([]float32, m), neg: neg.f32, pi: make([]float32, m), ni: make([]float32, k), logq: []float32{0, 0},
			lq: make([]float32, k), w: make([]float32, m), m: m, k: k}
		for j := range f.ni {
			f.ni[j] = 1
		}
		for b.Loop() {
			for i := range m {
				f.row(kern, i, out[i*k:(i+1)*k])
			}
		}
		report(b, m*k)
	})
}
