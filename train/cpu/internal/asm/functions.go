package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Kernels of the functions of Map. The roundings of each are those of train/cpu/functions.go, in the same order.
// Constants lie in one table, each as wide as a vector.

// pool is the table of constants, filled as they are asked for and written when all kernels are.
type pool struct {
	table Mem
	at    map[uint32]int
	order []uint32
}

var constants = pool{at: map[uint32]int{}}

// bits is a constant by its bits.
func (p *pool) bits(x uint32) Mem {
	i, ok := p.at[x]
	if !ok {
		i = len(p.order)
		p.at[x] = i
		p.order = append(p.order, x)
	}
	return p.table.Offset(vecBytes * i)
}

// f is a constant number.
func (p *pool) f(x float64) Mem { return p.bits(math.Float32bits(float32(x))) }

// write puts the table out.
func (p *pool) write() {
	GLOBL("functionConsts", RODATA|NOPTR)
	for i, x := range p.order {
		for lane := range lanes {
			DATA(vecBytes*i+4*lane, U32(x))
		}
	}
}

func v() reg.VecVirtual { return vector() }

func move(x reg.VecVirtual) reg.VecVirtual {
	y := v()
	VMOVAPS(x, y)
	return y
}

func load(m Mem) reg.VecVirtual {
	y := v()
	VMOVUPS(m, y)
	return y
}

const (
	signBit  = 0x80000000
	absBits  = 0x7fffffff
	expMagic = 0x1.8p23
	infBits  = 0x7f800000
	nanBits  = 0x7fc00000
)

// exponential is exp32. It takes x over.
func exponential(x reg.VecVirtual) reg.VecVirtual {
	low, high := load(constants.f(-104)), load(constants.f(89))
	VMAXPS(x, low, x) // where one is NaN, the last source in Intel's order: x
	VMINPS(x, high, x)
	k := load(constants.f(expMagic))
	VFMADD231PS(constants.f(0x1.715476p0), x, k)
	n := v()
	VSUBPS(constants.f(expMagic), k, n)
	r := move(x)
	VFMADD231PS(constants.f(-0x1.62e43p-1), n, r)
	VFMADD231PS(constants.f(0x1.05c61p-29), n, r)
	m := v()
	VXORPS(constants.bits(signBit), r, m)
	q := load(constants.f(0x1.6a23dp-10))
	for _, c := range []float64{-0x1.123a2p-7, 0x1.5558f2p-5, -0x1.555492p-3, 0x1.fffffcp-2} {
		VFMADD213PS(constants.f(c), m, q)
	}
	t := v()
	VMULPS(r, r, t)
	VFMADD213PS(r, t, q)
	VADDPS(constants.f(1), q, q)
	VPSUBD(constants.f(expMagic), k, k) // the whole number, as bits
	half := v()
	VPSRAD(U8(1), k, half)
	VPSUBD(half, k, k)
	for _, p := range []reg.VecVirtual{half, k} {
		VPADDD(constants.bits(127), p, p)
		VPSLLD(U8(23), p, p)
		VMULPS(p, q, q)
	}
	return q
}

// logarithm is log32. x stays.
func logarithm(x reg.VecVirtual) reg.VecVirtual {
	tiny, s := v(), v()
	VCMPPS(U8(0x11), constants.f(0x1p-126), x, tiny) // x < 2^-126
	VMULPS(constants.f(0x1p24), x, s)
	VBLENDVPS(tiny, s, x, s)
	e := v()
	VANDPS(constants.f(-24), tiny, e)
	VPSUBD(constants.bits(0x3f3504f3), s, s)
	t := v()
	VPSRAD(U8(23), s, t)
	VCVTDQ2PS(t, t)
	VADDPS(t, e, e)
	VANDPS(constants.bits(0x007fffff), s, s)
	VPADDD(constants.bits(0x3f3504f3), s, s)
	f := v()
	VSUBPS(constants.f(1), s, f)
	z := v()
	VMULPS(f, f, z)
	p := load(constants.f(7.0376836292e-2))
	for _, c := range []float64{-1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
		2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1} {
		VFMADD213PS(constants.f(c), f, p)
	}
	VMULPS(f, p, p)
	VMULPS(z, p, p)
	VFMADD231PS(constants.f(-2.12194440e-4), e, p)
	VFMADD231PS(constants.f(-.5), z, p)
	VADDPS(p, f, p)
	VFMADD231PS(constants.f(0.693359375), e, p)
	// The edges: 0, what is below it or NaN, and infinity.
	zero := v()
	VXORPS(zero, zero, zero)
	VCMPPS(U8(0), zero, x, t)
	VBLENDVPS(t, constants.bits(infBits|signBit), p, p)
	VCMPPS(U8(0x19), zero, x, t) // not x >= 0
	VBLENDVPS(t, constants.bits(nanBits), p, p)
	VCMPPS(U8(0), constants.bits(infBits), x, t)
	VBLENDVPS(t, x, p, p)
	return p
}

// logOnePlus is log1p32. x stays.
func logOnePlus(x reg.VecVirtual) reg.VecVirtual {
	u, d := v(), v()
	VADDPS(constants.f(1), x, u)
	VSUBPS(constants.f(1), u, d)
	y := logarithm(u)
	q := v()
	VDIVPS(d, x, q)
	VMULPS(q, y, y)
	m, zero := v(), v()
	VXORPS(zero, zero, zero)
	VCMPPS(U8(0), zero, d, m)
	VBLENDVPS(m, x, y, y)
	VCMPPS(U8(0), constants.bits(infBits), u, m)
	VBLENDVPS(m, x, y, y)
	return y
}

// tangent is tanh32.
func tangent(x reg.VecVirtual) reg.VecVirtual {
	a, z := v(), v()
	VANDPS(constants.bits(absBits), x, a)
	VMULPS(x, x, z)
	p := load(constants.f(-5.70498872745e-3))
	for _, c := range []float64{2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1} {
		VFMADD213PS(constants.f(c), z, p)
	}
	VMULPS(z, p, p)
	VFMADD213PS(x, x, p)
	small := v()
	VCMPPS(U8(0x11), constants.f(.625), a, small)
	VADDPS(a, a, a)
	e := exponential(a)
	VADDPS(constants.f(1), e, e)
	t := load(constants.f(2))
	VDIVPS(e, t, t)
	o := load(constants.f(1))
	VSUBPS(t, o, t)
	sign := v()
	VANDPS(constants.bits(signBit), x, sign)
	VANDPS(constants.bits(absBits), t, t)
	VORPS(sign, t, t)
	VBLENDVPS(small, p, t, t)
	return t
}

// compared is 1 where the comparison holds, else 0.
func compared(predicate uint8, a, b reg.VecVirtual) reg.VecVirtual {
	VCMPPS(U8(predicate), b, a, a)
	VANDPS(constants.f(1), a, a)
	return a
}

// unaryFns compute a function of x, which they may take over.
var unaryFns = []struct {
	name string
	f    func(x reg.VecVirtual) reg.VecVirtual
}{
	{"neg", func(x reg.VecVirtual) reg.VecVirtual { VXORPS(constants.bits(signBit), x, x); return x }},
	{"abs", func(x reg.VecVirtual) reg.VecVirtual { VANDPS(constants.bits(absBits), x, x); return x }},
	{"sign", func(x reg.VecVirtual) reg.VecVirtual {
		zero, above := v(), v()
		VXORPS(zero, zero, zero)
		VCMPPS(U8(0x1e), zero, x, above)
		VCMPPS(U8(0x11), zero, x, x)
		VANDPS(constants.f(1), above, above)
		VANDPS(constants.f(-1), x, x)
		VORPS(above, x, x)
		return x
	}},
	{"square", func(x reg.VecVirtual) reg.VecVirtual { VMULPS(x, x, x); return x }},
	{"cube", func(x reg.VecVirtual) reg.VecVirtual {
		y := v()
		VMULPS(x, x, y)
		VMULPS(x, y, y)
		return y
	}},
	{"sqrt", func(x reg.VecVirtual) reg.VecVirtual { VSQRTPS(x, x); return x }},
	{"inv", func(x reg.VecVirtual) reg.VecVirtual {
		o := load(constants.f(1))
		VDIVPS(x, o, o)
		return o
	}},
	{"rsqrt", func(x reg.VecVirtual) reg.VecVirtual {
		o := load(constants.f(1))
		VSQRTPS(x, x)
		VDIVPS(x, o, o)
		return o
	}},
	{"floor", func(x reg.VecVirtual) reg.VecVirtual { VROUNDPS(U8(9), x, x); return x }},
	{"ceil", func(x reg.VecVirtual) reg.VecVirtual { VROUNDPS(U8(10), x, x); return x }},
	{"exp", exponential},
	{"log", logarithm},
	{"log1p", logOnePlus},
	{"expm1", func(x reg.VecVirtual) reg.VecVirtual {
		u := exponential(move(x))
		d := v()
		VSUBPS(constants.f(1), u, d)
		y := logarithm(u)
		VDIVPS(y, x, y)
		VMULPS(y, d, y)
		m, zero := v(), v()
		VCMPPS(U8(0), constants.f(-1), d, m)
		VBLENDVPS(m, d, y, y)
		VCMPPS(U8(0), constants.bits(infBits), u, m)
		VBLENDVPS(m, d, y, y)
		VXORPS(zero, zero, zero)
		VCMPPS(U8(0), zero, d, m)
		VBLENDVPS(m, x, y, y)
		return y
	}},
	{"tanh", tangent},
	{"sigmoid", func(x reg.VecVirtual) reg.VecVirtual {
		VXORPS(constants.bits(signBit), x, x)
		e := exponential(x)
		VADDPS(constants.f(1), e, e)
		o := load(constants.f(1))
		VDIVPS(e, o, o)
		return o
	}},
	{"softplus", func(x reg.VecVirtual) reg.VecVirtual {
		m, zero := v(), v()
		VXORPS(zero, zero, zero)
		VMAXPS(zero, x, m) // 0 where x is NaN, as the second source
		VANDPS(constants.bits(absBits), x, x)
		VXORPS(constants.bits(signBit), x, x)
		y := logOnePlus(exponential(x))
		VADDPS(y, m, m)
		return m
	}},
	{"relu", func(x reg.VecVirtual) reg.VecVirtual {
		zero := v()
		VXORPS(zero, zero, zero)
		VMAXPS(x, zero, x) // of two zeros, or where one is NaN, the last source: x
		return x
	}},
}

// binaryFns compute a function of a and b, of which they may take a over.
var binaryFns = []struct {
	name string
	f    func(a, b reg.VecVirtual) reg.VecVirtual
}{
	{"sub", func(a, b reg.VecVirtual) reg.VecVirtual { VSUBPS(b, a, a); return a }},
	{"mul", func(a, b reg.VecVirtual) reg.VecVirtual { VMULPS(b, a, a); return a }},
	{"div", func(a, b reg.VecVirtual) reg.VecVirtual { VDIVPS(b, a, a); return a }},
	{"max", func(a, b reg.VecVirtual) reg.VecVirtual { VMAXPS(b, a, a); return a }}, // b where one is NaN, and of zeros
	{"min", func(a, b reg.VecVirtual) reg.VecVirtual { VMINPS(b, a, a); return a }},
	{"lt", func(a, b reg.VecVirtual) reg.VecVirtual { return compared(0x11, a, b) }},
	{"gt", func(a, b reg.VecVirtual) reg.VecVirtual { return compared(0x1e, a, b) }},
	{"le", func(a, b reg.VecVirtual) reg.VecVirtual { return compared(0x12, a, b) }},
	{"ge", func(a, b reg.VecVirtual) reg.VecVirtual { return compared(0x1d, a, b) }},
	{"eq", func(a, b reg.VecVirtual) reg.VecVirtual { return compared(0x00, a, b) }},
	{"ne", func(a, b reg.VecVirtual) reg.VecVirtual { return compared(0x04, a, b) }},
}

// functions writes a kernel for each, and those of reductions by row.
func functions() {
	constants.table = NewDataAddr(NewStaticSymbol("functionConsts"), 0)
	for _, f := range unaryFns {
		TEXT(f.name+"Fn8", NOSPLIT, "func(y, a *float32, n int)")
		Pragma("noescape")
		Doc(f.name + "Fn8 is Map's function " + f.name + " of n elements, a positive multiple of 8.")
		y, a, n := word("y"), word("a"), word("n")
		i := GP64()
		XORQ(i, i)
		Label("loop")
		x := load(Mem{Base: a, Index: i, Scale: 4})
		VMOVUPS(f.f(x), Mem{Base: y, Index: i, Scale: 4})
		step(i, n)
	}
	for _, f := range binaryFns {
		TEXT(f.name+"Fn8", NOSPLIT, "func(y, a, b *float32, n int)")
		Pragma("noescape")
		Doc(f.name + "Fn8 is Map's function " + f.name + " of n pairs, a positive multiple of 8.")
		y, a, b, n := word("y"), word("a"), word("b"), word("n")
		i := GP64()
		XORQ(i, i)
		Label("loop")
		x, z := load(Mem{Base: a, Index: i, Scale: 4}), load(Mem{Base: b, Index: i, Scale: 4})
		VMOVUPS(f.f(x, z), Mem{Base: y, Index: i, Scale: 4})
		step(i, n)
	}
	addTo()
	laneSum()
	extreme("max")
	extreme("min")
	constants.write()
}

// step closes a loop over elements i of n.
func step(i, n reg.Register) {
	ADDQ(U8(uint8(lanes)), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func addTo() {
	TEXT("addTo8", NOSPLIT, "func(y, x *float32, c float32, n int)")
	Pragma("noescape")
	Doc("addTo8 is kernels.addTo for n elements, a positive multiple of 8.")
	y, x, n := word("y"), word("x"), word("n")
	c := v()
	broadcastArg("c", c)
	i := GP64()
	XORQ(i, i)
	Label("loop")
	s := v()
	VADDPS(Mem{Base: x, Index: i, Scale: 4}, c, s)
	VMOVUPS(s, Mem{Base: y, Index: i, Scale: 4})
	step(i, n)
}

func laneSum() {
	TEXT("laneSum16", NOSPLIT, "func(sums, x *float32, n int)")
	Pragma("noescape")
	Doc("laneSum16 adds n elements, a positive multiple of 16, to 16 lanes.")
	sums, x, n := word("sums"), word("x"), word("n")
	acc := make([]reg.VecVirtual, 16/lanes)
	for k := range acc {
		acc[k] = load(Mem{Base: sums, Disp: vecBytes * k})
	}
	i := GP64()
	XORQ(i, i)
	Label("loop")
	for k := range acc {
		VADDPS(Mem{Base: x, Index: i, Scale: 4, Disp: vecBytes * k}, acc[k], acc[k])
	}
	ADDQ(U8(16), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	for k := range acc {
		VMOVUPS(acc[k], Mem{Base: sums, Disp: vecBytes * k})
	}
	VZEROUPPER()
	RET()
}

// extreme folds elements into lanes; NaN stays in its lane.
func extreme(which string) {
	TEXT(which+"Lanes8", NOSPLIT, "func(m, x *float32, n int)")
	Pragma("noescape")
	Doc(which + "Lanes8 folds n elements, a positive multiple of 8, into the extremes m of 8 lanes; NaN stays.")
	m, x, n := word("m"), word("x"), word("n")
	acc := load(Mem{Base: m})
	i := GP64()
	XORQ(i, i)
	Label("loop")
	e, nan := load(Mem{Base: x, Index: i, Scale: 4}), v()
	VCMPPS(U8(3), e, e, nan)
	if which == "max" {
		VMAXPS(acc, e, acc) // the last source in Intel's order, acc, where one is NaN
	} else {
		VMINPS(acc, e, acc)
	}
	VBLENDVPS(nan, e, acc, acc)
	ADDQ(U8(uint8(lanes)), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	VMOVUPS(acc, Mem{Base: m})
	VZEROUPPER()
	RET()
}
