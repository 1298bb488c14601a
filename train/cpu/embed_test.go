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
		if i%3 != 1 || n < 3 {
			weights[i] = r.Float64() + 0.01
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
	got := run(program.Sample, program.Attr{Site: site}, []operand{cdf}, []operand{values(r, k, 1)}, false,
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

// testRowAdam: three uses, the second with several indices a row, against sums by a map.
func testRowAdam(t *testing.T, run opRunner, r *rand.Rand, m, d int) {
	if m*d > 60_000 {
		return
	}
	rows := 5 + m
	p, mean, v := values(r, rows, d).as(program.Param), values(r, rows, d).as(program.State), values(r, rows, d).as(program.State)
	for i := range v.f32 {
		v.f32[i] = float32(math.Abs(float64(v.f32[i])))
	}
	args := []operand{indices(r, rows, m, 1), values(r, m, d), indices(r, rows, 3, 4), values(r, 3, d), indices(r, rows, 7, 1), values(r, 7, d)}
	args[2].f32[0], args[2].f32[1] = 2, 2 // twice in one row
	at := program.Attr{Beta1: 0.9, Beta2: 0.99, Eps: 1e-6, Decay: 0.02}
	const step, rate = 4, 0.01
	grads := map[int][]float32{}
	for use := 0; use < len(args); use += 2 {
		idx, dy, w := args[use], args[use+1], args[use].shape[1]
		for i := range idx.shape[0] {
			n := float32(0)
			for _, x := range idx.f32[i*w : (i+1)*w] {
				if x >= 0 {
					n++
				}
			}
			for _, x := range idx.f32[i*w : (i+1)*w] {
				if x < 0 {
					continue
				}
				g, seen := grads[int(x)]
				if !seen {
					g = make([]float32, d)
					grads[int(x)] = g
				}
				for c := range g {
					if q := dy.f32[i*d+c] / n; seen {
						g[c] += q
					} else {
						g[c] = q
					}
				}
			}
		}
	}
	c := newAdamCoef(&at, step, rate)
	wp, wm, wv := slices.Clone(p.f32), slices.Clone(mean.f32), slices.Clone(v.f32)
	for row, g := range grads {
		lo, hi := row*d, (row+1)*d
		adamwPortable(wp[lo:hi], wm[lo:hi], wv[lo:hi], g, &c)
	}
	got := run(program.RowAdam, at, args, []operand{p, mean, v}, false, func(w *worker) { w.step, w.rate = step, rate })
	for i, want := range [][]float32{wp, wm, wv} {
		if err := same(got[i].f32, want); err != nil {
			t.Fatalf("%d rows of %d, output %d: %v", m, d, i, err)
		}
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

// TestCollectSorts: one, two and three passes of the sort, against a stable sort by comparison.
func TestCollectSorts(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 1))
	for _, rows := range []int{1, 2, 2048, 2049, 1 << 20, 1 << 24} {
		var uses []use
		base, total := 0, 0
		for _, shape := range [][2]int{{500, 1}, {70, 9}, {1, 1}} {
			u := use{idx: indices(r, rows, shape[0], shape[1]).f32, w: shape[1], base: base}
			uses, base, total = append(uses, u), base+shape[0], total+shape[0]*shape[1]
		}
		var want []entry
		for _, u := range uses {
			for k, x := range u.idx {
				if x >= 0 {
					want = append(want, entry{int32(x), int32(u.base + k/u.w)})
				}
			}
		}
		slices.SortStableFunc(want, func(a, b entry) int { return int(a.row) - int(b.row) })
		es := &entries{list: make([]entry, total), other: make([]entry, total)}
		for range 2 {
			es.collect(uses, rows)
			if !slices.Equal(es.list[:es.n], want) {
				t.Fatalf("%d rows: not sorted by row, use and place", rows)
			}
		}
	}
}

// BenchmarkParts times what a step of a recommender is made of, for the weights in embed.go; the figure is ns an element, for
// the product ns a multiply-add. Tables are larger than the cache, indices uniform.
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
		w := newWorker(kern, 0, 1, min(d, kBlock)*min(mm.panels(), panelBlock)*tileCols)
		for b.Loop() {
			mm.run(w, 0, m, 0, mm.panels())
		}
		report(b, m*k*d)
	})
	b.Run("lookup", func(b *testing.B) {
		n := 0
		for b.Loop() {
			lookupRows(kern, out[:m*d], table.f32, idx[n%len(idx)], rows, 1)
			n++
		}
		report(b, m*d)
	})
	b.Run("row_adam", func(b *testing.B) {
		es := &entries{list: make([]entry, m), other: make([]entry, m)}
		uses := []use{{dy: x.f32, w: 1}}
		c := newAdamCoef(&program.Attr{Beta1: .9, Beta2: .99, Eps: 1e-8}, 3, 1e-3)
		g, n := make([]float32, d), 0
		for b.Loop() {
			uses[0].idx = idx[n%len(idx)]
			es.collect(uses, rows)
			es.update(kern, uses, 0, es.n, g, table.f32, mean.f32, v, &c)
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
