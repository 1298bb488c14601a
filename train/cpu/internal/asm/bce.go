package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// bceTable holds the constants of bce.go, eight times each: the coefficients of P, then 2, then the bits of |x|.
func bceTable() Mem {
	return inAllLanes("bceConsts", 0x1.5554dp-2, 0x1.99e3c6p-3, 0x1.1dc35ap-3, 0x1.231d5cp-3, 2,
		math.Float32frombits(1<<31-1))
}

var bceConsts Mem

// bce is the loss or its gradient; the roundings are those of bcePortable and bceGradPortable.
func bce(gradient bool) {
	if gradient {
		TEXT("bceGrad8", NOSPLIT, "func(dz, z, t, w *float32, c float32, n int)")
		Pragma("noescape")
		Doc("bceGrad8 is kernels.bceGrad for n elements, a positive multiple of 8.")
	} else {
		bceConsts = bceTable()
		TEXT("bce8", NOSPLIT, "func(terms, z, t, w *float32, n int)")
		Pragma("noescape")
		Doc("bce8 is kernels.bce for n elements, a positive multiple of 8.")
	}
	out, z, t, w, n := Load(ParamIndex(0), GP64()), word("z"), word("t"), word("w"), word("n")
	scale := YMM()
	if gradient {
		broadcastArg("c", scale)
	}
	high, magic, one := YMM(), YMM(), YMM()
	VMOVUPS(siluConsts.Offset(32*1), high)
	VMOVUPS(siluConsts.Offset(32*3), magic)
	VMOVUPS(siluConsts.Offset(32*6), one)
	k := inTable()
	k.magic, k.one = magic, one
	zero := YMM()
	VXORPS(zero, zero, zero)
	i := GP64()
	XORQ(i, i)
	at := func(base reg.Register) Mem { return Mem{Base: base, Index: i, Scale: 4} }
	x, c, pow, r, q, s := YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	Label("loop")
	VMOVUPS(at(z), x)
	VANDPS(bceConsts.Offset(32*5), x, c)
	VMINPS(c, high, c) // where one is NaN, the last source in Intel's order: c
	k.exponential(c, pow, r, q, s, s)
	VMULPS(pow, q, q) // e
	if gradient {
		bceDifference(at(t), x, q, one, r, s, c)
		VMULPS(at(w), scale, r)
		VMULPS(r, s, s)
	} else {
		VADDPS(bceConsts.Offset(32*4), q, s)
		VDIVPS(s, q, s)
		VMULPS(s, s, q)
		VMOVUPS(bceConsts.Offset(32*3), r)
		for j := 2; j >= 0; j-- {
			VFMADD213PS(bceConsts.Offset(32*j), q, r)
		}
		VMULPS(s, q, q)
		VFMADD231PS(r, q, s) // log(1+e)/2
		VADDPS(s, s, s)
		VMAXPS(x, zero, r) // of two zeros, or where one is NaN, x
		VFNMADD231PS(at(t), x, r)
		VADDPS(r, s, s)
		VMULPS(at(w), s, s)
	}
	VMOVUPS(s, at(out))
	ADDQ(U8(8), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// bceDifference leaves sigmoid(x) - t in s, given e in q.
func bceDifference(t Mem, x, q, one, r, s, c reg.VecVirtual) {
	VMOVUPS(t, r)
	VSUBPS(r, one, s) // 1 - t
	VMOVAPS(s, c)     // x below 0: (1-t) e - t
	VFMSUB213PS(r, q, c)
	VFNMADD231PS(r, q, s) // else (1-t) - t e
	VXORPS(r, r, r)
	VCMPPS(U8(1), r, x, r) // x < 0
	VBLENDVPS(r, c, s, s)
	VADDPS(one, q, q)
	VDIVPS(q, s, s)
}
