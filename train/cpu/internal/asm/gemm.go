package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// tile is the micro-kernel for a fixed number of rows and 16 columns; strides are in bytes. The sums stay in
// registers for all of k; each is one chain of fused multiply-adds.
func tile(rows int) {
	TEXT(fmt.Sprintf("tile%d", rows), NOSPLIT, "func(a *float32, rs, cs int, b *float32, ldb int, c *float32, ldc int, bias *float32, k int, load, relu bool)")
	Pragma("noescape")
	Doc(fmt.Sprintf("tile%d is kernels.tile for %d rows and 16 columns. Strides are in bytes.", rows, rows))
	a := Load(Param("a"), GP64())
	rs := Load(Param("rs"), GP64())
	cs := Load(Param("cs"), GP64())
	b := Load(Param("b"), GP64())
	ldb := Load(Param("ldb"), GP64())
	c := Load(Param("c"), GP64())
	ldc := Load(Param("ldc"), GP64())
	k := Load(Param("k"), GP64())
	// a3 points at row 3, so that every row is reached by a base and a scaled rs.
	a3 := a
	if rows > 3 {
		a3 = GP64()
		LEAQ(Mem{Base: a, Index: rs, Scale: 2}, a3)
		ADDQ(rs, a3)
	}
	row := func(r int) Mem {
		base := a
		if r >= 3 {
			base = a3
		}
		switch r % 3 {
		case 1:
			return Mem{Base: base, Index: rs, Scale: 1}
		case 2:
			return Mem{Base: base, Index: rs, Scale: 2}
		}
		return Mem{Base: base}
	}
	var acc [6][2]reg.VecVirtual
	for r := range rows {
		acc[r] = [2]reg.VecVirtual{YMM(), YMM()}
	}
	flag := GP8()
	Load(Param("load"), flag)
	TESTB(flag, flag)
	JZ(LabelRef("zero"))
	at := GP64()
	MOVQ(c, at)
	for r := range rows {
		VMOVUPS(Mem{Base: at}, acc[r][0])
		VMOVUPS(Mem{Base: at, Disp: 32}, acc[r][1])
		if r < rows-1 {
			ADDQ(ldc, at)
		}
	}
	JMP(LabelRef("loop"))
	Label("zero")
	for r := range rows {
		VXORPS(acc[r][0], acc[r][0], acc[r][0])
		VXORPS(acc[r][1], acc[r][1], acc[r][1])
	}
	Label("loop")
	b0, b1, x := YMM(), YMM(), YMM()
	VMOVUPS(Mem{Base: b}, b0)
	VMOVUPS(Mem{Base: b, Disp: 32}, b1)
	for r := range rows {
		VBROADCASTSS(row(r), x)
		VFMADD231PS(b0, x, acc[r][0])
		VFMADD231PS(b1, x, acc[r][1])
	}
	ADDQ(cs, a)
	if rows > 3 {
		ADDQ(cs, a3)
	}
	ADDQ(ldb, b)
	DECQ(k)
	JNZ(LabelRef("loop"))

	bias := Load(Param("bias"), GP64())
	TESTQ(bias, bias)
	JZ(LabelRef("activate"))
	VMOVUPS(Mem{Base: bias}, b0)
	VMOVUPS(Mem{Base: bias, Disp: 32}, b1)
	for r := range rows {
		VADDPS(b0, acc[r][0], acc[r][0])
		VADDPS(b1, acc[r][1], acc[r][1])
	}
	Label("activate")
	Load(Param("relu"), flag)
	TESTB(flag, flag)
	JZ(LabelRef("store"))
	VXORPS(x, x, x)
	for r := range rows {
		// Of two zeros, or where one is NaN, the instruction gives its last source, here the sum.
		VMAXPS(acc[r][0], x, acc[r][0])
		VMAXPS(acc[r][1], x, acc[r][1])
	}
	Label("store")
	for r := range rows {
		VMOVUPS(acc[r][0], Mem{Base: c})
		VMOVUPS(acc[r][1], Mem{Base: c, Disp: 32})
		if r < rows-1 {
			ADDQ(ldc, c)
		}
	}
	VZEROUPPER()
	RET()
}
