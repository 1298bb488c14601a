package kernels

import (
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/cuda"
)

// refIndex is index_of of common.cuh.
func refIndex(x float32, rows int) int {
	if x >= 0 && x < float32(rows) {
		return int(x)
	}
	return -1
}

// indices are n numbers of rows below rows, in turn some that are none: -1, and with odd what no column holds.
func (c *checker) indices(n, rows int, odd bool) []float32 {
	none := []float32{-1}
	if odd {
		none = append(none, float32(math.NaN()), float32(rows), float32(math.Inf(1)), -3e9, 0x1p40)
	}
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(c.next() % uint64(rows))
		if c.next()%8 == 0 {
			x[i] = none[c.next()%uint64(len(none))]
		}
	}
	return x
}

func (c *checker) checkLookup() {
	if !c.wants("lookup") {
		return
	}
	for i, m := range c.lengths() {
		for _, s := range []struct{ w, d, n int }{{1, 1, 1}, {1, 64, 1000}, {3, 5, 7}, {8, 33, 50}, {21, 17, 300}} {
			if m*s.w*s.d > 1<<19 {
				continue
			}
			table, idx := c.values(s.n*s.d), c.indices(m*s.w, s.n, i%2 == 1)
			if i%3 == 2 {
				c.spoil(table)
			}
			table[0] = float32(math.Copysign(0, -1)) // alone it stays -0
			o := &Lookup{M: m, W: s.w, N: s.n, D: s.d, Table: put(c, table, 0), Idx: put(c, idx, 0), Y: c.alloc(4 * m * s.d)}
			c.do(o)
			shape := o.Kernel()
			got := get[float32](c, shape, o.Y, m*s.d)
			variant := map[bool]string{true: "one each", false: "several each"}[s.w == 1]
			c.same32("lookup", variant, shape, got, refLookup(table, idx, m, s.w, s.n, s.d), 0)
			c.release()
		}
	}
}

func refLookup(table, idx []float32, m, w, n, d int) []float32 {
	y := make([]float32, m*d)
	for i := range m {
		count := 0
		row := y[i*d : (i+1)*d]
		for _, x := range idx[i*w : (i+1)*w] {
			at := refIndex(x, n)
			if at < 0 {
				continue
			}
			for k, v := range table[at*d : (at+1)*d] {
				if count > 0 {
					v = row[k] + v
				}
				row[k] = v
			}
			count++
		}
		for k := range row {
			if count > 1 {
				row[k] /= float32(count)
			}
		}
	}
	return y
}

func (c *checker) checkSample() {
	if !c.wants("sample") {
		return
	}
	const step, seed, site = 9, 0xABCDEF0123456789, 5
	for i, k := range c.lengths() {
		n := []int{1, 2, 1000, 1 << 16}[i%4]
		cdf := make([]float32, n)
		var sum float64
		for j := range cdf {
			if c.next()%4 != 0 { // some have no chance
				sum += math.Abs(c.uniform())
			}
			cdf[j] = float32(sum)
		}
		for j := range cdf {
			cdf[j] /= cdf[n-1]
		}
		variant := "ends at 1"
		if i%3 == 2 {
			variant = "ends below 1"
			for j := range cdf {
				cdf[j] *= .75
			}
		}
		o := &Sample{K: k, N: n, Seed: seed, Site: site, State: c.state(step, 0), CDF: put(c, cdf, 0), Idx: c.alloc(4 * k)}
		c.do(o)
		want := make([]float32, k)
		for j := range want {
			words := c.o.Oracle.Philox([2]uint32{seed & math.MaxUint32, seed >> 32}, [4]uint32{uint32(j / 4), 0, step, site})
			u := float32(words[j%4]>>8) * 0x1p-24
			at := slices.IndexFunc(cdf, func(p float32) bool { return p > u })
			if at < 0 {
				at = n - 1
			}
			want[j] = float32(at)
		}
		c.same32("sample", variant, o.Kernel(), get[float32](c, o.Kernel(), o.Idx, k), want, 0)
		c.release()
	}
}

func (c *checker) checkRows() {
	for i, s := range c.shapes2(1 << 17) {
		a, b := c.values(s.m*s.n), c.values(s.m*s.n)
		if i%3 == 2 {
			c.spoil(a)
		}
		if c.wants("row_dot") {
			o := &RowDot{M: s.m, D: s.n, A: put(c, a, 0), B: put(c, b, 0), S: c.alloc(4 * s.m)}
			c.do(o)
			want := make([]float32, s.m)
			for r := range want {
				for k := range s.n {
					want[r] = fma32(a[r*s.n+k], b[r*s.n+k], want[r])
				}
			}
			c.same32("row_dot", "", s.String(), get[float32](c, o.Kernel(), o.S, s.m), want, 0)
			c.release()
		}
		if c.wants("row_scale") {
			o := &RowScale{M: s.m, D: s.n, X: put(c, a, 0), S: put(c, b[:s.m], 0), Y: c.alloc(4 * s.m * s.n)}
			c.do(o)
			want := make([]float32, s.m*s.n)
			for k := range want {
				want[k] = a[k] * b[k/s.n]
			}
			c.same32("row_scale", "", s.String(), get[float32](c, o.Kernel(), o.Y, s.m*s.n), want, 0)
			c.release()
		}
	}
}

// sorts are the kernels of RowSort.
const sorts = "row_sort_count, row_sort_place, row_share"

// refPair is Pair of table.cu.
type refPair struct{ row, from uint32 }

// tableCase is a table of n rows, and how often and how wide it is looked up.
type tableCase struct {
	name  string
	n, d  int
	uses  []TableUse // Rows and W
	steps int
}

// tableCases have few rows and many of them, so that rows meet often and never, and lists of one chunk of the sort and
// of several.
func (c *checker) tableCases() (all []tableCase) {
	long := c.sizes[len(c.sizes)-1]
	for i, m := range c.lengths() {
		if m > 2*long {
			continue
		}
		n := []int{1, 7, 200, 300, 65535, 65536, 70000}[i%7]
		d := []int{1, 3, 32, 33, 64, 70}[i%6]
		all = append(
			all,
			tableCase{"one use", n, d, []TableUse{{Rows: m, W: 1}}, 1},
			tableCase{
				"several uses",
				n,
				d,
				[]TableUse{{Rows: m, W: 1}, {Rows: (m + 1) / 2, W: 5}, {Rows: 3, W: 2}, {Rows: m, W: 1}},
				2,
			},
		)
	}
	return append(all,
		tableCase{"long lists", 300, 2, []TableUse{{Rows: 4096, W: 2}, {Rows: 700, W: 13}}, 1},
		tableCase{"long lists", 1 << 20, 1, []TableUse{{Rows: 20000, W: 1}}, 1})
}

func (c *checker) checkTable() {
	for i, t := range c.tableCases() {
		if c.wants(sorts) || c.wants("row_adam") {
			c.checkRowAdam(t, i%2 == 1)
		}
	}
}

// checkRowAdam sorts and updates, for each step with indices and gradients of its own.
func (c *checker) checkRowAdam(t tableCase, odd bool) {
	total, shares := Indices(t.uses)
	p, m, v := c.values(t.n*t.d), c.values(t.n*t.d), c.values(t.n*t.d)
	for i := range v {
		v[i] = float32(math.Abs(float64(v[i])))
	}
	rates := []float32{1e-3, 3e-3}
	adam := AdamWTensor{B1: 0.9, OB1: 0.1, B2: 0.999, OB2: 0.001, Eps: 1e-8, Decay: 0.01, N: t.d}
	var c1, c2 []float32
	for s := range rates {
		c1 = append(c1, float32(1/(1-math.Pow(0.9, float64(s+1)))))
		c2 = append(c2, float32(1/(1-math.Pow(0.999, float64(s+1)))))
	}
	o := &RowAdam{
		N:     t.n,
		D:     t.d,
		P:     put(c, p, 0),
		M:     put(c, m, 0),
		V:     put(c, v, 0),
		Rates: put(c, rates, 0),
		C1:    put(c, c1, 0),
		C2:    put(c, c2, 0),
		B1:    adam.B1,
		OB1:   adam.OB1,
		B2:    adam.B2,
		OB2:   adam.OB2,
		Eps:   adam.Eps,
		Decay: adam.Decay,
	}
	for step := range t.steps {
		uses := slices.Clone(t.uses)
		var want []refPair
		var share []float32
		var rows [][]float32
		for u := range uses {
			idx, dy := c.indices(uses[u].Rows*uses[u].W, t.n, odd), c.values(uses[u].Rows*t.d)
			uses[u].Idx, uses[u].DY = put(c, idx, 0), put(c, dy, 0)
			for r := range uses[u].Rows {
				some := 0
				for _, x := range idx[r*uses[u].W : (r+1)*uses[u].W] {
					at := refIndex(x, t.n)
					if at >= 0 {
						some++
					} else {
						at = t.n
					}
					want = append(want, refPair{uint32(at), uint32(len(rows))})
				}
				share, rows = append(share, float32(max(some, 1))), append(rows, dy[r*t.d:(r+1)*t.d])
			}
		}
		slices.SortStableFunc(want, func(a, b refPair) int { return int(a.row) - int(b.row) })
		sort := &RowSort{
			Uses:  uses,
			N:     t.n,
			Share: c.alloc(4 * shares),
			Pairs: [2]cuda.DevicePtr{c.alloc(PairBytes * total), c.alloc(PairBytes * total)},
		}
		sort.Table, sort.Counts = c.alloc(int(sort.TableBytes())), c.alloc(int(sort.CountBytes()))
		c.do(sort)
		shape := fmt.Sprintf("%s, step %d", sort.Kernel(), step)
		got := get[refPair](c, shape, sort.Sorted(), total)
		c.tally(sorts, t.name, shape, 0, min(len(got), total), func(i int) float64 {
			return math.Abs(float64(got[i].row)-float64(want[i].row)) + math.Abs(float64(got[i].from)-float64(want[i].from))
		})
		c.same32(sorts, t.name, shape+", shares", get[float32](c, shape+", shares", sort.Share, shares), share, 0)

		o.Uses, o.Pairs, o.Share, o.State = uses, sort.Sorted(), sort.Share, c.state(uint32(step), 0)
		o.Table = c.alloc(int(o.TableBytes()))
		c.do(o)
		if c.err == nil {
			refRowAdam(&adam, p, m, v, want, share, rows, t.n, rates[step], step)
		}
		for _, part := range []struct {
			name string
			at   cuda.DevicePtr
			want []float32
		}{{"p", o.P, p}, {"m", o.M, m}, {"v", o.V, v}} {
			shape := fmt.Sprintf("%s, %s, step %d", o.Kernel(), part.name, step)
			c.same32("row_adam", t.name, shape, get[float32](c, shape, part.at, t.n*t.d), part.want, 0)
		}
	}
	c.release()
}

// refRowAdam updates the rows that pairs name.
func refRowAdam(
	adam *AdamWTensor,
	p, m, v []float32,
	pairs []refPair,
	share []float32,
	rows [][]float32,
	n int,
	rate float32,
	step int,
) {
	d := adam.N
	for first := 0; first < len(pairs) && pairs[first].row < uint32(n); {
		row := int(pairs[first].row)
		g := make([]float32, d)
		end := first
		for ; end < len(pairs) && int(pairs[end].row) == row; end++ {
			from := pairs[end].from
			for k, x := range rows[from] {
				x /= share[from]
				if end > first {
					x = g[k] + x
				}
				g[k] = x
			}
		}
		first = end
		lo, hi := row*d, (row+1)*d
		refAdamW(adam, p[lo:hi], m[lo:hi], v[lo:hi], g, rate, step)
	}
}

// timeTable measures at sizes of a recommender: 8,192 interactions a step, 1,024 negatives, a table of 100,000 rows of
// 64, of which a few are named often: one index in 46 is the first row.
func (c *checker) timeTable() {
	const rows, n, d, negatives = 8192, 100_000, 64, 1024
	index := func(count int) cuda.DevicePtr {
		if c.err != nil {
			return 0
		}
		x := make([]float32, count)
		for i := range x {
			u := float64(c.next()>>11) * 0x1p-53
			x[i] = float32(int(u * u * u * n))
		}
		return put(c, x, 0)
	}
	for _, w := range []int{1, 20} {
		if c.wants("lookup") {
			c.timeOp(
				"lookup",
				&Lookup{M: rows, W: w, N: n, D: d, Table: c.space(n * d), Idx: index(rows * w), Y: c.space(rows * d)},
			)
		}
	}
	if c.wants("sample") {
		cdf := make([]float32, n)
		for i := range cdf {
			cdf[i] = float32(i+1) / n
		}
		c.timeOp("sample", &Sample{K: negatives, N: n, State: c.state(0, 0), CDF: put(c, cdf, 0), Idx: c.space(negatives)})
	}
	if c.wants("row_dot") {
		c.timeOp("row_dot", &RowDot{M: rows, D: d, A: c.space(rows * d), B: c.space(rows * d), S: c.space(rows)})
	}
	if c.wants("row_scale") {
		c.timeOp("row_scale", &RowScale{M: rows, D: d, X: c.space(rows * d), S: c.space(rows), Y: c.space(rows * d)})
	}
	for _, w := range []int{1, 20} {
		uses := func() []TableUse {
			return []TableUse{
				{Idx: index(rows * w), DY: c.space(rows * d), Rows: rows, W: w},
				{Idx: index(negatives), DY: c.space(negatives * d), Rows: negatives, W: 1},
			}
		}
		if !c.wants(sorts) && !c.wants("row_adam") {
			continue
		}
		sort := &RowSort{Uses: uses(), N: n}
		total, shares := Indices(sort.Uses)
		sort.Pairs, sort.Share = [2]cuda.DevicePtr{c.alloc(PairBytes * total), c.alloc(PairBytes * total)}, c.space(shares)
		sort.Table, sort.Counts = c.alloc(int(sort.TableBytes())), c.alloc(int(sort.CountBytes()))
		c.do(sort)
		o := &RowAdam{
			Uses:  sort.Uses,
			Pairs: sort.Sorted(),
			Share: sort.Share,
			N:     n,
			D:     d,
			State: c.state(0, 0),
			Rates: c.space(1),
			C1:    c.space(1),
			C2:    c.space(1),
			P:     c.space(n * d),
			M:     c.space(n * d),
			V:     c.space(n * d),
			B1:    0.9,
			OB1:   0.1,
			B2:    0.999,
			OB2:   0.001,
			Eps:   1e-8,
		}
		o.Table = c.alloc(int(o.TableBytes()))
		c.time(sorts, sort.Kernel(), sort.Cost(c.k.tuning), func() error { return sort.Launch(c.s, c.k) })
		c.timeOp("row_adam", o)
	}
	c.release()
}
