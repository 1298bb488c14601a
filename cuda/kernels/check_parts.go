package kernels

import (
	"fmt"
	"math"

	"github.com/onmart/onmart/cuda"
)

func float32FromBits(u uint32) float32 { return math.Float32frombits(u) }

// feistel is the grid of a permutation of n rows: program.NewPermutation's.
func feistel(n int) (a, b uint32) {
	a = uint32(math.Ceil(math.Sqrt(float64(n))))
	return a, (uint32(n) + a - 1) / a
}

func (c *checker) checkGather() {
	if !c.wants("gather") {
		return
	}
	const site = 0xFFFFFFFF // program's sitePermutation
	const seed = 0xFEDCBA9876543210
	const base = 3
	for i, n := range c.lengths() {
		widths := []int{1, 5, 33, 1, 64}[:i%5+1]
		batch := min(n, []int{1, 3, 64, 255, 256}[i%5])
		perEpoch := ceilDiv(n, batch)
		// The first batch, one of another epoch, and the last of one, which is short where the batch does not divide.
		for _, step := range []int{0, 3*perEpoch + perEpoch/2, 2*perEpoch - 1} {
			first := step % perEpoch * batch
			rows := min(batch, n-first)
			for _, staged := range []bool{false, true} {
				shift := int32(0)
				held := n + base
				if staged {
					shift, held = int32(-first+2), rows+4
				}
				o := &Gather{State: c.state(uint32(step), shift), Rows: rows, Batch: batch, PerEpoch: perEpoch, Base: base,
					N: uint32(n), Site: site, Key: [2]uint32{seed & 0xFFFFFFFF, seed >> 32}, Staged: staged}
				o.A, o.B = feistel(n)
				var sources [][]float32
				for _, w := range widths {
					x := c.values(held * w)
					sources = append(sources, x)
					o.Columns = append(o.Columns, GatherColumn{Src: put(c, x, 0), Dst: c.alloc(4 * rows * w), Width: w})
				}
				o.Table = c.alloc(int(o.TableBytes()))
				c.do(o)
				variant, shape := "shuffled", fmt.Sprintf("%d rows of %d, step %d", rows, n, step)
				if staged {
					variant = "staged"
				}
				for k, w := range widths {
					var want []float32
					for r := range rows {
						row := base + c.o.Oracle.Permute(seed, uint32(step/perEpoch), n, first+r)
						if staged {
							row = int(shift) + first + r
						}
						want = append(want, sources[k][row*w:(row+1)*w]...)
					}
					got := get[float32](c, fmt.Sprintf("gather %s %s column %d", variant, shape, k), o.Columns[k].Dst, rows*w)
					c.same32("gather", variant, shape, got, want, 0)
				}
				c.release()
			}
		}
	}
}

func (c *checker) checkColumns() {
	if !c.wants("columns") {
		return
	}
	for i, s := range c.shapes2(1 << 16) {
		for _, variant := range []string{"slice", "concat", "slice gradient"} {
			o := &Columns{M: s.m, N: s.n, LdX: s.n, LdY: s.n}
			switch variant {
			case "slice":
				o.From = i % 4
				o.LdX += o.From + i%3
			case "concat":
				o.To = i % 5
				o.LdY += o.To + i%2
			default:
				o.Zero = true
				o.To = i % 3
				o.LdY += o.To + i%4
			}
			x, before := c.values(o.M*o.LdX), c.values(o.M*o.LdY)
			o.X, o.Y = put(c, x, 0), put(c, before, 0)
			c.do(o)
			want := before
			for r := range o.M {
				row := want[r*o.LdY : (r+1)*o.LdY]
				if o.Zero {
					clear(row)
				}
				copy(row[o.To:], x[r*o.LdX+o.From:][:o.N])
			}
			got := get[float32](c, "columns "+variant+" "+s.String(), o.Y, len(want))
			c.same32("columns", variant, s.String(), got, want, 0)
			c.release()
		}
	}
}

func (c *checker) checkMap() {
	const step = 12
	type variant struct {
		name string
		op   Map
		want func(a, b []float32) []float32
	}
	each := func(f func(a, b float32) float32) func(a, b []float32) []float32 {
		return func(a, b []float32) []float32 {
			y := make([]float32, len(a))
			for i := range y {
				y[i] = f(a[i], b[i])
			}
			return y
		}
	}
	drop := Drop{Rate: 0.25, Site: 77, Seed: 1<<63 + 9}
	var all []variant
	for _, act := range []Act{None, Relu, Silu} {
		all = append(all,
			variant{act.name(), Map{Kind: MapActivate, Act: act}, each(func(a, _ float32) float32 { return refActivate(act, a) })},
			variant{act.name(), Map{Kind: MapActGrad, Act: act}, each(func(a, b float32) float32 { return refActGrad(act, a, b) })})
	}
	all = append(all,
		variant{"", Map{Kind: MapAdd}, each(func(a, b float32) float32 { return a + b })},
		variant{"", Map{Kind: MapScale, Scale: -1.7}, each(func(a, _ float32) float32 { return -1.7 * a })},
		variant{"", Map{Kind: MapFill, Scale: 0.3}, each(func(_, _ float32) float32 { return 0.3 })},
		variant{"", Map{Kind: MapDropout, Drop: drop}, func(a, _ []float32) []float32 {
			y := append([]float32(nil), a...)
			refDrop(c.o.Oracle, drop, step, y)
			return y
		}},
		variant{"rate 0", Map{Kind: MapDropout}, each(func(a, _ float32) float32 { return a })})
	for _, v := range all {
		kernel := "map_" + v.op.Kind.name()
		if !c.wants(kernel) {
			continue
		}
		for i, n := range c.lengths() {
			o := v.op
			o.N = n
			a, b := c.wide(n), c.wide(n)
			if i%2 == 1 {
				c.spoil(a)
				c.spoil(b)
			}
			shift := i % 3 / 2 // a third of the cases lies out of line
			o.A, o.B = put(c, a, shift), put(c, b, shift)
			if o.Drop.Rate > 0 {
				o.Drop.State = c.state(step, 0)
			}
			shape := fmt.Sprint(n)
			at := o.A - cuda.DevicePtr(4*shift)
			if i%2 == 0 {
				at = c.alloc(4 * (n + shift))
			} else {
				shape += " in place"
			}
			o.Y = at + cuda.DevicePtr(4*shift)
			c.do(&o)
			got := get[float32](c, kernel+" "+v.name+" "+shape, at, n+shift)
			c.same32(kernel, v.name, shape, shifted(got, shift), v.want(a, b), 0)
			c.release()
		}
	}
}

func (c *checker) checkReduce() {
	for _, s := range c.shapes2(1 << 17) {
		for _, n := range []int{1, 2, 5} {
			o := &ColSum{M: s.m, N: s.n, Slices: n}
			kernel, variant := o.plan().kernel, fmt.Sprintf("%d slices", n)
			if !c.wants(kernel) {
				continue
			}
			x := c.values(s.m * s.n)
			o.X, o.Y = put(c, x, 0), c.alloc(4*n*s.n)
			c.do(o)
			want := make([]float32, n*s.n)
			run := ceilDiv(s.m, n)
			for r := range s.m {
				for j := range s.n {
					want[r/run*s.n+j] += x[r*s.n+j]
				}
			}
			c.same32(kernel, variant, s.String(), get[float32](c, kernel+" "+variant+" "+s.String(), o.Y, n*s.n), want, 0)
			c.release()
		}
	}
	if !c.wants("sum_slices") {
		return
	}
	for _, n := range c.lengths() {
		for _, count := range []int{1, 2, 9, 17} {
			o := &SumSlices{N: n, Slices: count}
			x := c.values(n * count)
			o.X, o.Y = put(c, x, 0), c.alloc(4*n)
			c.do(o)
			want := append([]float32(nil), x[:n]...)
			for i := n; i < len(x); i++ {
				want[i%n] += x[i]
			}
			shape := fmt.Sprintf("%dx%d", count, n)
			c.same32("sum_slices", "", shape, get[float32](c, "sum_slices "+shape, o.Y, n), want, 0)
			c.release()
		}
	}
}

func (c *checker) checkLoss() {
	kernels := map[bool]string{true: "bce", false: "bce_terms, lane_sum"}
	for i, m := range c.lengths() {
		z, t, w := c.values(m), make([]float32, m), c.values(m)
		for j := range z {
			z[j] *= 60
			switch c.next() % 4 {
			case 0, 1:
				t[j] = 1
			case 2:
				t[j] = float32(c.next()>>40) * 0x1p-24 // a soft label
			}
		}
		variant := "finite"
		if i%3 == 2 {
			variant = "NaN and infinities"
			c.spoil(z)
		}
		if kernel := kernels[m <= bceWhole]; c.wants(kernel) {
			o := &BCE{M: m, Z: put(c, z, 0), T: put(c, t, 0), W: put(c, w, 0), Loss: c.alloc(4), Terms: c.alloc(4 * m)}
			c.do(o)
			terms := make([]float32, m)
			for j := range terms {
				terms[j] = refBCETerm(z[j], t[j], w[j])
			}
			want := []float32{refLaneSum(terms) / float32(m)}
			c.same32(kernel, variant, fmt.Sprint(m), get[float32](c, fmt.Sprintf("%s %d", kernel, m), o.Loss, 1), want, 0)
			c.release()
		}
		if c.wants("bce_grad") {
			o := &BCEGrad{M: m, Z: put(c, z, 0), T: put(c, t, 0), W: put(c, w, 0), DLoss: put(c, []float32{-1.25}, 0), DZ: c.alloc(4 * m)}
			c.do(o)
			want := make([]float32, m)
			for j := range want {
				want[j] = refBCEGrad(z[j], t[j], w[j], -1.25, m)
			}
			c.same32("bce_grad", variant, fmt.Sprint(m), get[float32](c, fmt.Sprintf("bce_grad %d", m), o.DZ, m), want, 0)
			c.release()
		}
	}
}

// checkAdamW updates all sizes as tensors of one launch, three steps one after the other.
func (c *checker) checkAdamW() {
	if !c.wants("adamw") {
		return
	}
	const steps = 3
	rates := []float32{1e-3, 3e-3, 0}
	type host struct{ p, m, v, g []float32 }
	var tensors []host
	o := &AdamW{Rates: put(c, rates, 0)}
	for i, n := range c.lengths() {
		t := AdamWTensor{N: n, Slices: []int{0, 1, 2, 9}[i%4], Decay: float32(i%2) * 0.01,
			B1: 0.9, OB1: 0.1, B2: 0.999, OB2: 0.001, Eps: 1e-8}
		h := host{c.values(n), c.values(n), c.values(n), c.values(n * max(1, t.Slices))}
		for j := range h.v {
			h.v[j] = float32(math.Abs(float64(h.v[j])))
		}
		var c1, c2 []float32
		for s := range steps {
			c1 = append(c1, float32(1/(1-math.Pow(0.9, float64(s+1)))))
			c2 = append(c2, float32(1/(1-math.Pow(0.999, float64(s+1)))))
		}
		t.P, t.M, t.V, t.G = put(c, h.p, 0), put(c, h.m, 0), put(c, h.v, 0), put(c, h.g, 0)
		t.C1, t.C2 = put(c, c1, 0), put(c, c2, 0)
		o.Tensors = append(o.Tensors, t)
		tensors = append(tensors, h)
	}
	o.Table = c.alloc(int(o.TableBytes()))
	for step := range steps {
		o.State = c.state(uint32(step), 0)
		c.do(o)
		for i, h := range tensors {
			t := &o.Tensors[i]
			if c.err == nil {
				refAdamW(t, h.p, h.m, h.v, h.g, rates[step], step)
			}
			variant := "whole gradient"
			if t.Slices > 1 {
				variant = "sliced gradient"
			}
			for _, part := range []struct {
				name string
				at   cuda.DevicePtr
				want []float32
			}{{"p", t.P, h.p}, {"m", t.M, h.m}, {"v", t.V, h.v}} {
				shape := fmt.Sprintf("%d elements, %s, step %d", t.N, part.name, step)
				c.same32("adamw", variant, shape, get[float32](c, "adamw "+shape, part.at, t.N), part.want, 0)
			}
		}
	}
	c.release()
}

func refAdamW(t *AdamWTensor, p, m, v, g []float32, rate float32, step int) {
	c1 := float32(1 / (1 - math.Pow(0.9, float64(step+1))))
	c2 := float32(1 / (1 - math.Pow(0.999, float64(step+1))))
	for i := range p {
		sum := g[i]
		for s := 1; s < t.Slices; s++ {
			sum += g[s*t.N+i]
		}
		m[i] = float32(t.B1*m[i]) + float32(t.OB1*sum)
		v[i] = float32(t.B2*v[i]) + float32(t.OB2*float32(sum*sum))
		root := float32(math.Sqrt(float64(float32(v[i] * c2)))) // rounded twice is rounded once: a root has no ties
		update := float32(float32(m[i]*c1)/float32(root+t.Eps)) + float32(t.Decay*p[i])
		p[i] -= float32(rate * update)
	}
}

func (c *checker) checkFinish() {
	if !c.wants("finish") {
		return
	}
	for _, v := range []struct {
		name         string
		slots, items int
		bad          int     // slot that is spoilt, or -1
		with         float64 // by this
		before       uint32  // State.bad
		wantBad      uint32
	}{
		{"finite", 3, 5, -1, 0, 0, 0},
		{"nothing to do", 0, 0, -1, 0, 0, 0},
		{"many", 70, 200, -1, 0, 0, 0},
		{"NaN", 40, 3, 39, math.NaN(), 0, 8},
		{"infinite", 2, 3, 1, math.Inf(-1), 0, 8},
		{"NaN again", 2, 3, 0, math.NaN(), 4, 4},
	} {
		slots := c.doubles(v.slots)
		if v.bad >= 0 {
			slots[v.bad] = v.with
		}
		o := &Finish{NSlots: v.slots, State: put(c, []uint32{7, v.before, 9, 0}, 0)}
		if v.slots > 0 {
			o.Slots = put(c, slots, 0)
		}
		want := append([]float64(nil), slots...)
		for i := range v.items {
			a := Accumulation{Scale: c.uniform(), Slot: int(c.next() % uint64(v.slots))}
			add := a.Scale
			if i%3 != 2 {
				x := c.values(1)
				a.X = put(c, x, 0)
				add = float64(x[0]) * a.Scale
			}
			want[a.Slot] += float64(add)
			o.Accumulations = append(o.Accumulations, a)
		}
		if v.items > 0 {
			o.Table = c.alloc(int(o.TableBytes()))
		}
		c.do(o)
		if v.slots > 0 {
			c.same64("finish", v.name, "slots", get[float64](c, "finish "+v.name, o.Slots, v.slots), want, 0)
		}
		state := get[uint32](c, "finish "+v.name+" state", o.State, 4)
		for i, w := range []uint32{8, v.wantBad, 9, 0} {
			c.tally("finish", v.name, fmt.Sprintf("word %d of the state", i), 0, min(1, len(state)), func(int) float64 {
				return math.Abs(float64(state[i]) - float64(w))
			})
		}
		c.release()
	}
}

// Tolerances of the float64 kernels. The device's log1p and exp are within 1 unit in the last place of float64 (CUDA C++
// Programming Guide, mathematical functions), Go's too.
const (
	logTolerance       = 1 // of float32: another last bit of the logarithm can turn a rounding
	calibrateTolerance = 4 // of float64: two units of the exponential, and two divisions that round them
)

func (c *checker) checkWrap() {
	for _, s := range c.shapes2(1 << 15) {
		if !c.wants("standardize") {
			break
		}
		for _, variant := range []string{"no logarithms", "logarithms"} {
			x, mean, scale, log := c.doubles(s.m*s.n), c.doubles(s.n), c.doubles(s.n), make([]float64, s.n)
			tolerance := 0.0
			if variant == "logarithms" {
				tolerance = logTolerance
				for j := range log {
					log[j] = float64(j % 2)
				}
				log[0] = 1
			}
			for i := range x {
				switch c.next() % 32 {
				case 0:
					x[i] = math.NaN()
				case 1:
					x[i] = math.Inf(1)
				case 2, 3, 4:
					x[i] *= 1e6
				}
			}
			o := &Standardize{M: s.m, N: s.n, X: put(c, x, 0), Mean: put(c, mean, 0), Scale: put(c, scale, 0), Log: put(c, log, 0),
				Y: c.alloc(4 * s.m * s.n)}
			c.do(o)
			want := make([]float32, len(x))
			for i, u := range x {
				j := i % s.n
				if log[j] == 1 {
					u = math.Log1p(max(u, 0))
				}
				want[i] = float32((u - mean[j]) * scale[j])
			}
			got := get[float32](c, "standardize "+variant+" "+s.String(), o.Y, len(want))
			c.same32("standardize", variant, s.String(), got, want, tolerance)
			c.release()
		}
	}
	if !c.wants("calibrate") {
		return
	}
	for _, m := range c.lengths() {
		z, ab := c.wide(m), []float64{1.3, -0.4}
		o := &Calibrate{M: m, Z: put(c, z, 0), AB: put(c, ab, 0), P: c.alloc(8 * m)}
		c.do(o)
		want := make([]float64, m)
		for i, v := range z {
			want[i] = 1 / (1 + math.Exp(-(float64(ab[0]*float64(v)) + ab[1])))
		}
		c.same64("calibrate", "", fmt.Sprint(m), get[float64](c, fmt.Sprintf("calibrate %d", m), o.P, m), want, calibrateTolerance)
		c.release()
	}
}
