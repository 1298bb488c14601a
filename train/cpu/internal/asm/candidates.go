package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The losses of candidates, for rows of at most sixteen columns, which are two vectors.

func candidates(masks Mem) {
	consts := inAllLanes("candidateConsts", float32(math.Inf(-1)), 1, math.Float32frombits(0x7fffffff),
		math.Float32frombits(1<<31))
	candidateRows(masks, consts, false)
	candidateRows(masks, consts, true)
	candidateTerms()
}

// expMinus turns c into exp(-c) for 0 <= c, 0 past 87, with the roundings of siluExp; NaN goes through.
func expMinus(c reg.VecVirtual) {
	z, pow, r, q := YMM(), YMM(), YMM(), YMM()
	VMOVAPS(c, z)
	VMINPS(c, high87(), c) // where one is NaN, the last source in Intel's order: c
	inTable().exponential(c, pow, r, q, q, c)
	VMULPS(pow, q, q)
	VCMPPS(U8(0x1a), high87(), z, z) // not z > 87: true for NaN
	VANDPS(z, q, c)
}

// high87 is a vector of siluBound.
func high87() reg.VecVirtual {
	y := YMM()
	VMOVUPS(siluConsts.Offset(32), y)
	return y
}

// fold makes one number of sixteen lanes in the order of LaneSum, in the first lane.
func fold(a, b reg.VecVirtual, op func(...Op)) reg.VecVirtual {
	x, hi := YMM(), XMM()
	op(b, a, x)
	VEXTRACTF128(U8(1), x, hi)
	op(hi, x.AsX(), x.AsX())
	VMOVHLPS(x.AsX(), x.AsX(), hi)
	op(hi, x.AsX(), x.AsX())
	VMOVSHDUP(x.AsX(), hi)
	op(hi, x.AsX(), x.AsX())
	return x.AsX().(reg.VecVirtual)
}

func candidateRows(masks, consts Mem, bpr bool) {
	name, what := "candidateSoftmax16", "softmax"
	if bpr {
		name, what = "candidateBPR16", "BPR"
	}
	TEXT(name, NOSPLIT, "func(ds, s, idx, weight, out *float32, m, w int, c float32)")
	Pragma("noescape")
	Doc(name+" is candidates.each with "+what+" for m rows of w columns, 2 to 16 of them; m numbers of each kind begin at",
		"out, out+32 and out+64 bytes.")
	ds, s, idx, weight := word("ds"), word("s"), word("idx"), word("weight")
	out, m, w := word("out"), word("m"), word("w")
	mask := [2]reg.VecVirtual{YMM(), YMM()}
	at := GP64()
	LEAQ(masks, at)
	t := GP64()
	MOVQ(w, t)
	NEGQ(t)
	for v := range mask {
		VMOVUPS(Mem{Base: at, Index: t, Scale: 4, Disp: 64 + 32*v}, mask[v])
	}
	Label("row")
	first, item, zero := YMM(), YMM(), YMM()
	VXORPS(zero, zero, zero)
	VBROADCASTSS(Mem{Base: s}, first)
	VBROADCASTSS(Mem{Base: idx}, item)
	valid := YMM()
	VCMPPS(U8(0x1d), zero, item, valid) // item >= 0
	x, counts := [2]reg.VecVirtual{YMM(), YMM()}, [2]reg.VecVirtual{YMM(), YMM()}
	for v := range x {
		VMASKMOVPS(Mem{Base: s, Disp: 32 * v}, mask[v], x[v])
		other, some := YMM(), YMM()
		VMASKMOVPS(Mem{Base: idx, Disp: 32 * v}, mask[v], other)
		VCMPPS(U8(0x1d), zero, other, some)
		VCMPPS(U8(0x04), item, other, counts[v]) // not equal
		VANDPS(some, counts[v], counts[v])
		VANDPS(mask[v], counts[v], counts[v])
	}
	all, rest, g := XMM(), XMM(), XMM()
	grad := x
	if bpr {
		heads, product := [2]reg.VecVirtual{YMM(), YMM()}, [2]reg.VecVirtual{YMM(), YMM()}
		for v := range x {
			z := YMM()
			VSUBPS(first, x[v], heads[v])
			VSUBPS(x[v], first, z)
			VMAXPS(zero, heads[v], heads[v])
			VANDPS(counts[v], heads[v], heads[v])
			e := x[v]
			VANDPS(consts.Offset(64), z, e)
			expMinus(e)
			VANDPS(counts[v], e, e)
			VADDPS(consts.Offset(32), e, product[v])
			below, num := YMM(), YMM()
			VCMPPS(U8(0x1d), zero, z, below) // z >= 0
			VMOVUPS(consts.Offset(32), num)
			VBLENDVPS(below, e, num, num)
			VDIVPS(product[v], num, e)
			VANDPS(counts[v], e, e)
		}
		VMOVAPS(fold(heads[0], heads[1], func(o ...Op) { VADDPS(o...) }), rest)
		VMOVAPS(fold(product[0], product[1], func(o ...Op) { VMULPS(o...) }), all)
	} else {
		logits := [2]reg.VecVirtual{YMM(), YMM()}
		for v := range x {
			VMOVUPS(consts, logits[v])
			VBLENDVPS(counts[v], x[v], logits[v], logits[v])
		}
		VBLENDPS(U8(1), first, logits[0], logits[0])
		top := YMM()
		VBROADCASTSS(fold(logits[0], logits[1], func(o ...Op) { VMAXPS(o...) }), top)
		for v := range x {
			VSUBPS(logits[v], top, x[v])
			expMinus(x[v])
		}
		VSUBSS(first.AsX(), top.AsX(), rest)
		own := XMM()
		VMOVAPS(x[0].AsX(), own)
		VBLENDPS(U8(1), zero, x[0], x[0])
		n := fold(x[0], x[1], func(o ...Op) { VADDPS(o...) })
		VADDSS(own, n, all)
		VMOVAPS(n, own)
		VMOVSS(arg("c"), g)
		VMULSS(Mem{Base: weight}, g, g)
		VDIVSS(all, g, g)
		VMULSS(own, g, own)
		VXORPS(consts.Offset(96), own, own)
		VANDPS(valid.AsX(), own, own)
		VANDPS(valid.AsX(), g, g)
		for v := range grad {
			VANDPS(valid, grad[v], grad[v])
		}
		scale(grad, g, mask, ds)
		VMOVSS(own, Mem{Base: ds})
	}
	if bpr {
		VMOVSS(arg("c"), g)
		VMULSS(Mem{Base: weight}, g, g)
		VANDPS(valid.AsX(), g, g)
		for v := range grad {
			VANDPS(valid, grad[v], grad[v])
		}
		scale(grad, g, mask, ds)
		for v := range grad {
			VADDPS(zero, grad[v], grad[v])
		}
		own := fold(grad[0], grad[1], func(o ...Op) { VADDPS(o...) })
		VXORPS(consts.Offset(96), own, own)
		VANDPS(valid.AsX(), own, own)
		VMOVSS(own, Mem{Base: ds})
	}
	// A row without a positive has no loss, whatever its scores are.
	one := XMM()
	VMOVUPS(consts.Offset(32), one)
	VBLENDVPS(valid.AsX(), all, one, all)
	VANDPS(valid.AsX(), rest, rest)
	VMOVSS(all, Mem{Base: out})
	VMOVSS(rest, Mem{Base: out, Disp: 32})
	VMOVSS(Mem{Base: weight}, one)
	VANDPS(valid.AsX(), one, one)
	VMOVSS(one, Mem{Base: out, Disp: 64})
	ADDQ(U8(4), out)
	ADDQ(U8(4), weight)
	for _, p := range []reg.Register{ds, s, idx} {
		LEAQ(Mem{Base: p, Index: w, Scale: 4}, p)
	}
	DECQ(m)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// scale multiplies by g and stores the columns that there are.
func scale(x [2]reg.VecVirtual, g reg.VecVirtual, mask [2]reg.VecVirtual, ds reg.Register) {
	by := YMM()
	VBROADCASTSS(g, by)
	for v := range x {
		VMULPS(by, x[v], x[v])
		VMASKMOVPS(x[v], mask[v], Mem{Base: ds, Disp: 32 * v})
	}
}

// candidateTerms has the roundings of log32 for numbers of 1 and above.
func candidateTerms() {
	const root = 0x3f3504f3
	table := inAllLanes("logConsts", 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1,
		1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
		0.693359375, -2.12194440e-4, -.5, 1, math.Float32frombits(root), math.Float32frombits(0x007fffff))
	TEXT("candidateTerms8", NOSPLIT, "func(terms, out *float32)")
	Pragma("noescape")
	Doc("candidateTerms8 makes the terms of eight rows of what candidateSoftmax16 or candidateBPR16 left.")
	terms, out := word("terms"), word("out")
	x, e, f, z, p, y := YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	VMOVUPS(Mem{Base: out}, x)
	VMOVAPS(x, y)
	VPSUBD(table.Offset(32*13), x, f)
	VPSRAD(U8(23), f, e)
	VCVTDQ2PS(e, e)
	VPAND(table.Offset(32*14), f, f)
	VPADDD(table.Offset(32*13), f, f)
	VSUBPS(table.Offset(32*12), f, f)
	VMULPS(f, f, z)
	VMOVUPS(table, p)
	for i := 1; i <= 8; i++ {
		VFMADD213PS(table.Offset(32*i), f, p)
	}
	VMULPS(f, p, p)
	VMULPS(z, p, p)
	VFMADD231PS(table.Offset(32*10), e, p)
	VFMADD231PS(table.Offset(32*11), z, p)
	VADDPS(p, f, f)
	VFMADD231PS(table.Offset(32*9), e, f)
	VCMPPS(U8(0x03), y, y, z) // NaN
	VBLENDVPS(z, y, f, f)
	VADDPS(Mem{Base: out, Disp: 32}, f, f)
	VMULPS(Mem{Base: out, Disp: 64}, f, f)
	VMOVUPS(f, Mem{Base: terms})
	VZEROUPPER()
	RET()
}
