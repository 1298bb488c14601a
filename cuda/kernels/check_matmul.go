package kernels

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/onmart/onmart/cuda"
)

// shape3 are M, N and K.
type shape3 struct{ m, n, k int }

func (s shape3) String() string { return fmt.Sprintf("%dx%dx%d", s.m, s.n, s.k) }

// Bounds of a case, which keep the whole check short on one core: multiply-adds and outputs.
const (
	mostMACs    = 2 << 20
	mostOutputs = 1 << 17
	perVariant  = 5 // shapes of each variant of each kernel
)

// epilogue is a variant of a product.
type epilogue struct {
	name         string
	bias, pre    bool
	act, grad    Act
	rate         float32
	slices       int
	outOfLine    bool // every address is moved by one element
	nonFiniteToo bool
	tiny         bool // products below the normal range: subnormal sums, and -0
}

var epilogues = []epilogue{
	{name: "plain"},
	{name: "bias", bias: true},
	{name: "bias, relu", bias: true, act: Relu},
	{name: "bias, pre, silu", bias: true, pre: true, act: Silu},
	{name: "bias, pre, silu, dropout", bias: true, pre: true, act: Silu, rate: 0.2},
	{name: "bias, relu, dropout", bias: true, act: Relu, rate: 0.5},
	{name: "relu gradient", grad: Relu},
	{name: "dropout, relu gradient", rate: 0.3, grad: Relu},
	{name: "dropout, silu gradient", rate: 0.2, grad: Silu},
	{name: "bias, silu, relu gradient, out of line", bias: true, act: Silu, grad: Relu, outOfLine: true},
	{name: "out of line", bias: true, pre: true, outOfLine: true},
	{name: "NaN and infinities", bias: true, act: Relu, nonFiniteToo: true},
	{name: "subnormal", tiny: true},
	{name: "2 slices", slices: 2},
	{name: "7 slices", slices: 7},
}

// checkMatMul runs every tile in every transposition, and the products with a row, a column or one step of k.
func (c *checker) checkMatMul() {
	sizes := append(slices.Clone(c.sizes), 4, 64, 128)
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	var general, column, outer []shape3
	for _, m := range sizes {
		for _, n := range sizes {
			if n*m > mostOutputs {
				continue
			}
			outer = append(outer, shape3{m, n, 1})
			for _, k := range sizes {
				if m*n*k > mostMACs {
					continue
				}
				general = append(general, shape3{m, n, k})
				if m == 1 || n == 1 {
					column = append(column, shape3{m, n, k})
				}
			}
		}
	}
	turn := 0
	for _, letters := range []string{"nn", "nt", "tn", "tt"} {
		for way := range tiles {
			if letters != "tt" || way == tileTT {
				c.checkWay(way, letters, general, &turn)
			}
		}
		c.checkWay(wayVector, letters, column, &turn)
	}
	c.checkWay(wayOuter, "nn", outer, &turn)
}

// checkWay runs all variants of a way to compute products, each on its share of the shapes: turn goes through all of them.
func (c *checker) checkWay(way int, letters string, shapes []shape3, turn *int) {
	if way != wayVector && letters[0] == 'n' { // a column of lanes has no other way
		shapes = slices.DeleteFunc(slices.Clone(shapes), func(s shape3) bool { return s.n == 1 })
	}
	if len(shapes) == 0 {
		return
	}
	for _, e := range epilogues {
		if way == wayOuter && e.slices > 1 {
			continue
		}
		for range perVariant {
			// A stride without a common factor visits every shape before it comes to one again.
			*turn += stride(len(shapes))
			c.matmulCase(way, letters, e, shapes[*turn%len(shapes)])
			c.release()
		}
	}
}

// stride is about five eighths of n and has no common factor with it.
func stride(n int) int {
	s := n*5/8 + 1
	for gcd(s, n) != 1 {
		s++
	}
	return s
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (c *checker) matmulCase(way int, letters string, e epilogue, shape shape3) {
	o := &MatMul{M: shape.m, N: shape.n, K: shape.k, TransA: letters[0] == 't', TransB: letters[1] == 't',
		Act: e.act, GradAct: e.grad, Slices: e.slices}
	kernel := o.plan(way).kernel
	if !c.wants(kernel) {
		return
	}
	a, b := c.values(o.M*o.K), c.values(o.K*o.N)
	if e.nonFiniteToo {
		c.spoil(a)
		c.spoil(b)
	}
	if e.tiny {
		scale := []float32{0x1p-70, 0x1p-78}[c.next()%2] // products around 2^-140, and below what is left of the range
		for i := range a {
			a[i] = -scale * float32(math.Abs(float64(a[i])))
		}
		for i := range b {
			b[i] = scale * float32(math.Abs(float64(b[i])))
		}
	}
	shift := 0
	if e.outOfLine {
		shift = 1
	}
	const step = 70_001
	var bias, of []float32
	o.A, o.B = put(c, a, shift), put(c, b, shift)
	if e.bias {
		bias = c.values(o.N)
		o.Bias = put(c, bias, shift)
	}
	if e.grad != None {
		of = c.values(o.M * o.N)
		o.Of = put(c, of, shift)
	}
	if e.rate > 0 {
		o.Drop = Drop{Rate: e.rate, Site: 5, Seed: 0x123456789ABCDEF, State: c.state(step, 0)}
	}
	outs := o.slices() * o.M * o.N
	y := c.alloc(4 * (outs + shift))
	pre := cuda.DevicePtr(0)
	if e.pre {
		pre = c.alloc(4 * (o.M*o.N + shift))
		o.Pre = pre + cuda.DevicePtr(4*shift)
	}
	o.Y = y + cuda.DevicePtr(4*shift)
	if c.err != nil {
		return
	}
	if c.note(o.check()); c.err != nil {
		return
	}
	c.note(c.k.put(c.s, o, o.plan(way)))

	wantPre, want := refMatMul(c.o.Oracle, o, step, a, b, bias, of)
	name := kernel + " " + e.name + " " + shape.String()
	c.same32(kernel, e.name, shape.String(), shifted(get[float32](c, name, y, outs+shift), shift), want, 0)
	if e.pre {
		got := shifted(get[float32](c, name+" pre", pre, o.M*o.N+shift), shift)
		c.same32(kernel, e.name, shape.String()+" before the activation", got, wantPre, 0)
	}
}

// shifted drops the first elements; nil, after an error, stays.
func shifted(x []float32, shift int) []float32 {
	if x == nil {
		return nil
	}
	return x[shift:]
}

// spoil puts NaN and infinities in a few places.
func (c *checker) spoil(x []float32) {
	odd := []uint32{0x7FC00000, 0x7F800000, 0xFF800000}
	for i := range max(1, len(x)/200) {
		x[c.next()%uint64(len(x))] = float32FromBits(odd[i%len(odd)])
	}
}

// refMatMul is the product by its definition: what is stored before the activation, and the result, slices in order.
func refMatMul(oracle Oracle, o *MatMul, step uint32, a, b, bias, of []float32) (pre, y []float32) {
	run := sliceRun(o.K, o.slices())
	for s := range o.slices() {
		from, to := s*run, min(o.K, (s+1)*run)
		if o.lanes() {
			y = append(y, refLanes(o, a, b, from, to)...)
			continue
		}
		y = append(y, refChains(o, a, b, from, to)...)
	}
	if o.slices() > 1 {
		return nil, y
	}
	if bias != nil {
		for i := range y {
			y[i] += bias[i%o.N]
		}
	}
	pre = slices.Clone(y)
	for i := range y {
		y[i] = refActivate(o.Act, y[i])
	}
	refDrop(oracle, o.Drop, step, y)
	if of != nil {
		for i := range y {
			y[i] = refActGrad(o.GradAct, y[i], of[i])
		}
	}
	return pre, y
}

// refChains is one chain of fused multiply-adds over k in [from, to) for each element.
func refChains(o *MatMul, a, b []float32, from, to int) []float32 {
	y := make([]float32, o.M*o.N)
	for i := range o.M {
		row := y[i*o.N : (i+1)*o.N]
		for k := from; k < to; k++ {
			x := a[at(i, k, o.K, o.M, o.TransA)]
			if !o.TransB {
				for j, v := range b[k*o.N : (k+1)*o.N] {
					row[j] = fma32(x, v, row[j])
				}
				continue
			}
			for j := range row {
				row[j] = fma32(x, b[j*o.K+k], row[j])
			}
		}
	}
	return y
}

// refLanes is a column of 16 chains an element, over k in [from, to), as if zeros followed up to a multiple of 16.
func refLanes(o *MatMul, a, b []float32, from, to int) []float32 {
	y := make([]float32, o.M)
	for i := range y {
		var lane [16]float32
		for k := from; k < to; k++ {
			lane[(k-from)%16] = fma32(a[i*o.K+k], b[k], lane[(k-from)%16])
		}
		for k := to; from < to && (k-from)%16 > 0; k++ {
			lane[(k-from)%16] += 0 // -0 becomes 0
		}
		y[i] = refLaneSum(lane[:])
	}
	return y
}

// at is the place of element (i, j) of a matrix with so many columns, or of the transpose of one with rows columns.
func at(i, j, columns, rows int, trans bool) int {
	if trans {
		return j*rows + i
	}
	return i*columns + j
}

// timeMatMul measures every tile at shapes of the models that are trained, and the way that the Tuning chooses.
func (c *checker) timeMatMul() {
	for _, s := range []struct {
		letters string
		shape   shape3
		slices  int
	}{
		{"nn", shape3{256, 64, 64}, 0}, {"nt", shape3{256, 64, 64}, 0}, {"tn", shape3{64, 64, 256}, -1},
		{"nn", shape3{1024, 128, 128}, 0}, {"nt", shape3{1024, 128, 128}, 0}, {"tn", shape3{128, 128, 1024}, -1},
		{"nn", shape3{8192, 128, 128}, 0}, {"nt", shape3{8192, 128, 128}, 0}, {"tn", shape3{128, 128, 8192}, -1},
		{"nn", shape3{8192, 500, 15}, 0}, {"tn", shape3{15, 500, 8192}, -1},
		{"nn", shape3{8192, 1024, 1024}, 0}, {"nt", shape3{8192, 1024, 1024}, 0}, {"tn", shape3{1024, 1024, 8192}, -1},
		{"tt", shape3{1024, 128, 128}, 0},
		{"nn", shape3{8192, 1, 500}, 0}, {"tn", shape3{500, 1, 8192}, -1}, {"nt", shape3{8192, 500, 1}, 0},
	} {
		o := &MatMul{M: s.shape.m, N: s.shape.n, K: s.shape.k, TransA: s.letters[0] == 't', TransB: s.letters[1] == 't', Slices: s.slices}
		if s.slices < 0 {
			o.Slices = c.k.tuning.MatMulSlices(o.M, o.N, o.K)
		}
		ways := []int{o.way(c.k.tuning)}
		if ways[0] >= 0 && s.letters != "tt" {
			for way := range tiles {
				if way != ways[0] {
					ways = append(ways, way)
				}
			}
		}
		var plans []launch
		for _, way := range ways {
			plans = append(plans, o.plan(way))
		}
		if !slices.ContainsFunc(plans, func(l launch) bool { return c.wants(l.kernel) }) {
			continue
		}
		o.A, o.B, o.Y = c.space(o.M*o.K), c.space(o.K*o.N), c.space(o.slices()*o.M*o.N)
		for i, way := range ways {
			plan := o.plan(way) // again, now with addresses
			if !c.wants(plan.kernel) {
				continue
			}
			name := strings.TrimPrefix(o.Kernel(), "matmul ")
			if i == 0 {
				name += ", chosen"
			}
			c.time(plan.kernel, name, o.Cost(c.k.tuning), func() error { return c.k.put(c.s, o, plan) })
		}
		c.release()
	}
}
