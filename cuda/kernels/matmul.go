package kernels

import (
	"fmt"

	"github.com/onmart/onmart/cuda"
)

// vectorBlock is the rows of a block of matvec_n, matvec_t and matvec_lanes.
const vectorBlock = 64

func (o *MatMul) letters() string {
	switch {
	case o.TransA && o.TransB:
		return "tt"
	case o.TransA:
		return "tn"
	case o.TransB:
		return "nt"
	}
	return "nn"
}

// Kernel is such as "matmul 256x64x32 nt": M x N x K, then which operands are transposed.
func (o *MatMul) Kernel() string {
	s := fmt.Sprintf("matmul %dx%dx%d %s", o.M, o.N, o.K, o.letters())
	if o.slices() > 1 {
		s += fmt.Sprintf(" in %d slices", o.Slices)
	}
	return s
}

func (o *MatMul) slices() int { return max(o.Slices, 1) }

func (o *MatMul) check() error {
	var f faults
	f.size("M", o.M)
	f.size("N", o.N)
	f.size("K", o.K)
	f.elements("A", o.M, o.K)
	f.elements("B", o.K, o.N)
	f.ptr("A", o.A, 4)
	f.ptr("B", o.B, 4)
	f.ptr("Y", o.Y, 4)
	f.optional("Bias", o.Bias, 4)
	f.optional("Pre", o.Pre, 4)
	f.optional("Of", o.Of, 4)
	f.act("Act", o.Act)
	f.act("GradAct", o.GradAct)
	if o.GradAct != None && o.Of == 0 {
		f.addf("GradAct is %s and Of is missing", o.GradAct.name())
	}
	f.drop(o.Drop)
	f.between("Slices", o.Slices, 0, 65535)
	if o.Slices > 1 && (o.Bias != 0 || o.Pre != 0 || o.Of != 0 || o.Act != None || o.Drop.Rate != 0) {
		f.addf("Slices is %d, and a sliced product has no epilogue: leave out Bias, Pre, Act, Drop and Of", o.Slices)
	}
	return f.of(o)
}

// elements bounds an operand to what an index of 32 bits reaches: with one of 64 the largest tile would not fit the
// registers.
func (f *faults) elements(name string, rows, columns int) {
	if rows > 0 && columns > 0 && rows <= maxSize && columns <= maxSize && int64(rows)*int64(columns) > 1<<32 {
		f.addf("%s has %d x %d elements, over 4294967296: divide it", name, rows, columns)
	}
}

// product is a MatMul as a kernel is given it.
type product struct {
	MatMul
	run, biasStep int
	vec           int32 // bits: a (1), b (2), and y with what has its shape (4) may be read by vectors of 4
}

// The ways to compute a product. All that way may choose for one give the same bits.
const (
	wayOuter  = -1 // k is 1
	wayVector = -2 // one row or one column; from 0 on: a place in tiles
)

// way chooses the quickest.
func (o *MatMul) way(t *Tuning) int {
	switch {
	case o.M == 1 || o.N == 1:
		return wayVector
	case o.K == 1:
		return wayOuter
	}
	return t.tile(o.M, o.N, sliceRun(o.K, o.slices()), o.slices(), o.TransA, o.TransB)
}

// plan is the launch of a product in a way that fits its shape.
func (o *MatMul) plan(way int) launch {
	p := product{MatMul: *o, run: sliceRun(o.K, o.slices()), biasStep: 1}
	var l launch
	switch way {
	case wayVector:
		l = p.vector()
	case wayOuter:
		p.run = 1
		l = launch{kernel: "outer", grid: line(int64(o.M)*int64(ceilDiv(o.N, 4)), 256), block: 256}
	default:
		t := tiles[way]
		l = launch{
			kernel: tileKernels[way][o.letters()], block: t.threads,
			grid: cuda.Dim{X: uint32(ceilDiv(o.M, t.rows)), Y: uint32(ceilDiv(o.N, t.columns)), Z: uint32(o.slices())},
		}
	}
	p.vec = p.vectors()
	l.args = p.args
	return l
}

// lanes tells whether the elements are sums of 16 lanes instead of chains.
func (o *MatMul) lanes() bool { return o.N == 1 && !o.TransA }

// vector turns the product so that its one column stands: a row y = a b' is the column y' = b a', and x*y is y*x to the
// bit.
func (p *product) vector() launch {
	lanes := p.lanes()
	if p.N > 1 {
		p.A, p.B = p.B, p.A
		p.TransA, p.TransB = !p.TransB, false
		p.M, p.N = p.N, 1
	} else {
		p.biasStep = 0
	}
	kernel := "matvec_n"
	switch {
	case lanes:
		kernel = "matvec_lanes"
	case p.TransA:
		kernel = "matvec_t"
	}
	grid := cuda.Dim{X: uint32(ceilDiv(p.M, vectorBlock)), Y: 1, Z: uint32(p.slices())}
	return launch{kernel: kernel, block: vectorBlock, grid: grid}
}

func (p *product) vectors() (vec int32) {
	lda, ldb := p.K, p.N
	if p.TransA {
		lda = p.M
	}
	if p.TransB {
		ldb = p.K
	}
	if lda%4 == 0 && aligned(p.A) {
		vec |= 1
	}
	if ldb%4 == 0 && aligned(p.B) {
		vec |= 2
	}
	if p.N%4 == 0 && aligned(p.Y, p.Pre, p.Of, p.Bias) { // then the slices of y lie aligned too
		vec |= 4
	}
	return vec
}

func (p *product) args(a *cuda.Args) {
	a.Ptr(p.A).Ptr(p.B).Ptr(p.Bias).Ptr(p.Of).Ptr(p.Y).Ptr(p.Pre).Ptr(p.Drop.State)
	a.I32(int32(p.M)).I32(int32(p.N)).I32(int32(p.K)).I32(int32(p.run))
	a.I32(int32(p.Act)).I32(int32(p.GradAct)).I32(int32(p.biasStep)).I32(p.vec)
	p.Drop.args(a)
}

// Launch does the product in one launch.
func (o *MatMul) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan(o.way(k.tuning)))
}

// Cost counts the product's multiply-adds; the epilogue's operations are few beside them.
func (o *MatMul) Cost(t *Tuning) Cost {
	m, n, k, outs := int64(o.M), int64(o.N), int64(o.K), int64(o.slices())
	if o.Pre != 0 {
		outs++
	}
	if o.Of != 0 {
		outs++
	}
	bytes := 4 * (m*k + k*n + outs*m*n)
	if o.Bias != 0 {
		bytes += 4 * n
	}
	way := o.way(t)
	return Cost{
		Launches: 1, Blocks: o.plan(way).blocks(), Bytes: bytes, FLOPs: 2 * m * n * k,
		Seconds: max(o.seconds(t, way), float64(bytes)/t.Bandwidth),
	}
}

// seconds is what the model of tuning.go says of a way.
func (o *MatMul) seconds(t *Tuning, way int) float64 {
	run := sliceRun(o.K, o.slices())
	switch way {
	case wayVector:
		return t.vectorSeconds(max(o.M, o.N), run, o.slices())
	case wayOuter:
		return t.chainSeconds(mapAccesses*memoryCycles, 0)
	}
	return t.tileSeconds(tiles[way], o.M, o.N, run, o.slices())
}
