// Command asm writes the AVX2 kernels of ranking: run it by `go generate ./ranking`. What each kernel computes is
// defined by its portable counterpart in kernels.go.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	search()
	batch()
	tile32(4, 2)
	tile32(1, 2)
	tile32(1, 8)
	tile64()
	gather(true)
	gather(false)
	dot()
	axpy()
	Generate()
}

func text(name, signature string, doc ...string) {
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc...)
}

func gp(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

func zeros(acc []reg.VecVirtual) {
	for i := range acc {
		acc[i] = YMM()
		VXORPS(acc[i], acc[i], acc[i])
	}
}

// jumpIfNone ors masks into the first and jumps to label where no lane of it is set.
func jumpIfNone(masks []reg.VecVirtual, label string) {
	for n := len(masks); n > 1; n = (n + 1) / 2 {
		for i := range n / 2 {
			VORPS(masks[n-1-i], masks[i], masks[i])
		}
	}
	some := GP32()
	VMOVMSKPS(masks[0], some)
	TESTL(some, some)
	JZ(LabelRef(label))
}

// search scores groups of four panels against one query. Eight sums are the least that hides the latency of the
// multiply-add (4 cycles, 2 a cycle).
func search() {
	text("search4", "func(panels *float32, stride int, q *float32, dim, groups int, threshold float32, out *float32) int",
		"search4 is path.search; stride, of panels, is in bytes.")
	base, stride, groups := gp("panels"), gp("stride"), gp("groups")
	q0, dim, out := gp("q"), gp("dim"), gp("out")
	stride3, at, next, q, k := GP64(), GP64(), GP64(), GP64(), GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	threshold := YMM()
	VBROADCASTSS(NewParamAddr("threshold", 40), threshold)
	row := func(p, half int) Mem {
		m := Mem{Base: at, Disp: 32 * half}
		switch p {
		case 1:
			m.Index, m.Scale = stride, 1
		case 2:
			m.Index, m.Scale = stride, 2
		case 3:
			m.Index, m.Scale = stride3, 1
		}
		return m
	}
	Label("group")
	MOVQ(base, at)
	LEAQ(Mem{Base: base, Index: stride, Scale: 4}, next)
	MOVQ(q0, q)
	MOVQ(dim, k)
	acc := make([]reg.VecVirtual, 8)
	zeros(acc)
	x := YMM()
	Label("loop")
	VBROADCASTSS(Mem{Base: q}, x)
	for p := range 4 {
		ahead := row(p, 0)
		ahead.Base = next
		PREFETCHT0(ahead)
		for half := range 2 {
			VFMADD231PS(row(p, half), x, acc[2*p+half])
		}
	}
	ADDQ(Imm(4), q)
	ADDQ(Imm(64), at)
	ADDQ(Imm(64), next)
	DECQ(k)
	JNZ(LabelRef("loop"))
	LEAQ(Mem{Base: base, Index: stride, Scale: 4}, base)
	DECQ(groups)
	m := []reg.VecVirtual{YMM(), YMM(), YMM(), YMM()}
	t := YMM()
	for i := range m {
		VCMPPS(U8(0x1d), threshold, acc[i], m[i]) // acc >= threshold
		VCMPPS(U8(0x1d), threshold, acc[i+4], t)
		VORPS(t, m[i], m[i])
	}
	jumpIfNone(m, "none")
	for i := range acc {
		VMOVUPS(acc[i], Mem{Base: out, Disp: 32 * i})
	}
	JMP(LabelRef("done"))
	Label("none")
	TESTQ(groups, groups)
	JNZ(LabelRef("group"))
	DECQ(groups) // -1: none
	Label("done")
	Store(groups, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// batch scores panels against six users; 12 of the 16 registers hold sums.
func batch() {
	text("batch6",
		"func(users *float32, rs int, panel *float32, panels, dim int, thresholds, out *float32, masks *uint8) int",
		"batch6 is path.batch; rs, the stride of users, is in bytes; panels lie one after the other.")
	u0, rs, b, panels := gp("users"), gp("rs"), gp("panel"), gp("panels")
	thr, a0, a3, k := gp("thresholds"), GP64(), GP64(), GP64()
	row := func(r int) Mem {
		base := a0
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
	Label("panel")
	MOVQ(u0, a0)
	LEAQ(Mem{Base: a0, Index: rs, Scale: 2}, a3)
	ADDQ(rs, a3)
	Load(Param("dim"), k)
	acc := make([]reg.VecVirtual, 12)
	zeros(acc)
	b0, b1, x := YMM(), YMM(), YMM()
	Label("loop")
	VMOVUPS(Mem{Base: b}, b0)
	VMOVUPS(Mem{Base: b, Disp: 32}, b1)
	for r := range 6 {
		VBROADCASTSS(row(r), x)
		VFMADD231PS(b0, x, acc[2*r])
		VFMADD231PS(b1, x, acc[2*r+1])
	}
	ADDQ(Imm(4), a0)
	ADDQ(Imm(4), a3)
	ADDQ(Imm(64), b)
	DECQ(k)
	JNZ(LabelRef("loop"))
	DECQ(panels)
	m := []reg.VecVirtual{b0, b1, x, YMM()}
	for i := range acc {
		at := Mem{Base: thr, Disp: 32 * (i / 2)}
		if i < 3 {
			VCMPPS(U8(0x1d), at, acc[i], m[i]) // acc >= threshold
			continue
		}
		VCMPPS(U8(0x1d), at, acc[i], m[3])
		VORPS(m[3], m[i%3], m[i%3])
	}
	jumpIfNone(m[:3], "none")
	out, masks := gp("out"), gp("masks")
	bits := GP32()
	for i := range acc {
		VMOVUPS(acc[i], Mem{Base: out, Disp: 32 * i})
		VCMPPS(U8(0x1d), Mem{Base: thr, Disp: 32 * (i / 2)}, acc[i], x)
		VMOVMSKPS(x, bits)
		MOVB(bits.As8(), Mem{Base: masks, Disp: i})
	}
	JMP(LabelRef("done"))
	Label("none")
	TESTQ(panels, panels)
	JNZ(LabelRef("panel"))
	DECQ(panels) // -1: none
	Label("done")
	Store(panels, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// tile32 is the micro-kernel of float32 products.
func tile32(rows, vectors int) {
	name := fmt.Sprintf("tile%dx%d", rows, 8*vectors)
	text(name, "func(a *float32, rs, cs int, b *float32, ldb int, c *float32, ldc int, k int)",
		fmt.Sprintf("%s adds to c, %d x %d, the products of k rows of a and b; strides are in bytes,", name, rows, 8*vectors),
		"rs and cs those of a over rows of c and over k.")
	a, rs, cs, b, ldb, k := gp("a"), gp("rs"), gp("cs"), gp("b"), gp("ldb"), gp("k")
	c0, ldc, c := gp("c"), gp("ldc"), GP64()
	rs3 := GP64()
	LEAQ(Mem{Base: rs, Index: rs, Scale: 2}, rs3)
	row := func(r int) Mem {
		return []Mem{{Base: a}, {Base: a, Index: rs, Scale: 1}, {Base: a, Index: rs, Scale: 2},
			{Base: a, Index: rs3, Scale: 1}}[r]
	}
	acc := make([]reg.VecVirtual, rows*vectors)
	each := func(do func(v reg.VecVirtual, at Mem)) {
		MOVQ(c0, c)
		for r := range rows {
			for v := range vectors {
				do(acc[r*vectors+v], Mem{Base: c, Disp: 32 * v})
			}
			if r < rows-1 {
				ADDQ(ldc, c)
			}
		}
	}
	for i := range acc {
		acc[i] = YMM()
	}
	each(func(v reg.VecVirtual, at Mem) { VMOVUPS(at, v) })
	x := YMM()
	Label("loop")
	if rows == 1 {
		VBROADCASTSS(row(0), x)
		for v := range vectors {
			VFMADD231PS(Mem{Base: b, Disp: 32 * v}, x, acc[v])
		}
	} else {
		bs := make([]reg.VecVirtual, vectors)
		for v := range bs {
			bs[v] = YMM()
			VMOVUPS(Mem{Base: b, Disp: 32 * v}, bs[v])
		}
		for r := range rows {
			VBROADCASTSS(row(r), x)
			for v := range vectors {
				VFMADD231PS(bs[v], x, acc[r*vectors+v])
			}
		}
	}
	ADDQ(cs, a)
	ADDQ(ldb, b)
	DECQ(k)
	JNZ(LabelRef("loop"))
	each(func(v reg.VecVirtual, at Mem) { VMOVUPS(v, at) })
	VZEROUPPER()
	RET()
}

// tile64 is the micro-kernel of float64 products: 6 rows of 8, from packed panels.
func tile64() {
	text("tile6x8", "func(a, b, c *float64, ldc, k int)",
		"tile6x8 adds to c, 6 rows of 8, ldc bytes apart, the products of k rows of a (6 wide) and of b (8 wide).")
	a, b, c0, ldc, k, c := gp("a"), gp("b"), gp("c"), gp("ldc"), gp("k"), GP64()
	acc := make([]reg.VecVirtual, 12)
	zeros(acc)
	b0, b1, x := YMM(), YMM(), YMM()
	Label("loop")
	VMOVUPD(Mem{Base: b}, b0)
	VMOVUPD(Mem{Base: b, Disp: 32}, b1)
	for r := range 6 {
		VBROADCASTSD(Mem{Base: a, Disp: 8 * r}, x)
		VFMADD231PD(b0, x, acc[2*r])
		VFMADD231PD(b1, x, acc[2*r+1])
	}
	ADDQ(Imm(48), a)
	ADDQ(Imm(64), b)
	DECQ(k)
	JNZ(LabelRef("loop"))
	MOVQ(c0, c)
	for r := range 6 {
		for v := range 2 {
			at := Mem{Base: c, Disp: 32 * v}
			VADDPD(at, acc[2*r+v], acc[2*r+v])
			VMOVUPD(acc[2*r+v], at)
		}
		ADDQ(ldc, c)
	}
	VZEROUPPER()
	RET()
}

// sum8 leaves in v[0] the sums of the lanes of each of eight vectors, ((0+1)+(2+3)) + ((4+5)+(6+7)).
func sum8(v []reg.VecVirtual) {
	for i := range 4 {
		VHADDPS(v[2*i+1], v[2*i], v[i])
	}
	VHADDPS(v[1], v[0], v[0])
	VHADDPS(v[3], v[2], v[1])
	VPERM2F128(U8(0x20), v[1], v[0], v[2])
	VPERM2F128(U8(0x31), v[1], v[0], v[3])
	VADDPS(v[3], v[2], v[0])
}

// gather is the inner loop of conjugate gradients: eight rows at a time, dot products with p, a coefficient from each,
// and the rows so weighted added to out while they are in the cache.
func gather(residual bool) {
	name := "gatherProduct"
	if residual {
		name = "gatherResidual"
	}
	text(name, "func(y *float32, stride int, index *int32, weight *float32, n int, p, out *float32, width int)",
		fmt.Sprintf("%s is path.%s for n rows, a positive multiple of 8, with 8 readable indices after them;",
			name, map[bool]string{true: "residual", false: "product"}[residual]),
		"stride and width are in bytes, width a multiple of 64.")
	AllocLocal(32)
	p, out, i := gp("p"), gp("out"), GP64()
	XORQ(i, i)
	var rows [8]reg.GPVirtual
	for r := range rows {
		rows[r] = GP64()
	}
	d := GP64()
	Label("group")
	t := GP64()
	Load(Param("index"), t)
	for r := range rows {
		MOVLQSX(Mem{Base: t, Index: i, Scale: 4, Disp: 4 * r}, rows[r])
	}
	Load(Param("stride"), t)
	for r := range rows {
		IMULQ(t, rows[r])
	}
	Load(Param("y"), t)
	for r := range rows {
		ADDQ(t, rows[r])
	}
	if residual {
		// This pass is the first over these rows: ask for the next eight while these are worked on.
		ahead, line := GP64(), GP64()
		for r := range rows {
			Load(Param("index"), ahead)
			MOVLQSX(Mem{Base: ahead, Index: i, Scale: 4, Disp: 4 * (8 + r)}, ahead)
			Load(Param("stride"), line)
			IMULQ(line, ahead)
			ADDQ(t, ahead)
			label := fmt.Sprintf("ahead%d", r)
			Label(label)
			PREFETCHT0(Mem{Base: ahead})
			ADDQ(Imm(64), ahead)
			SUBQ(Imm(64), line)
			JA(LabelRef(label))
		}
	}
	acc := make([]reg.VecVirtual, 8)
	zeros(acc)
	x := YMM()
	XORQ(d, d)
	Label("dot")
	VMOVUPS(Mem{Base: p, Index: d, Scale: 1}, x)
	for r := range rows {
		VFMADD231PS(Mem{Base: rows[r], Index: d, Scale: 1}, x, acc[r])
	}
	ADDQ(Imm(32), d)
	CMPQ(d, NewParamAddr("width", 56))
	JLT(LabelRef("dot"))
	sum8(acc)
	w := YMM()
	Load(Param("weight"), t)
	VMOVUPS(Mem{Base: t, Index: i, Scale: 4}, w)
	// The weight is c; its row enters the matrix c-1 times.
	one := GP32()
	MOVL(U32(0x3f800000), one)
	VMOVD(one, x.AsX())
	VBROADCASTSS(x.AsX(), x)
	if residual {
		VSUBPS(w, x, x)           // 1-c
		VFMADD231PS(x, acc[0], w) // c + (1-c) s
	} else {
		VSUBPS(x, w, w)
		VMULPS(acc[0], w, w)
	}
	scratch := Mem{Base: reg.StackPointer}
	VMOVUPS(w, scratch)
	for r := range rows {
		VBROADCASTSS(scratch.Offset(4*r), acc[r])
	}
	XORQ(d, d)
	Label("axpy")
	VMOVUPS(Mem{Base: out, Index: d, Scale: 1}, x)
	for r := range rows {
		VFMADD231PS(Mem{Base: rows[r], Index: d, Scale: 1}, acc[r], x)
	}
	VMOVUPS(x, Mem{Base: out, Index: d, Scale: 1})
	ADDQ(Imm(32), d)
	CMPQ(d, NewParamAddr("width", 56))
	JLT(LabelRef("axpy"))
	ADDQ(Imm(8), i)
	CMPQ(i, NewParamAddr("n", 32))
	JLT(LabelRef("group"))
	VZEROUPPER()
	RET()
}

func dot() {
	text("dot8", "func(a, b *float32, n int) float32", "dot8 is path.dot for n elements, a positive multiple of 8.")
	a, b, n, i := gp("a"), gp("b"), gp("n"), GP64()
	acc, x := YMM(), YMM()
	VXORPS(acc, acc, acc)
	XORQ(i, i)
	Label("loop")
	VMOVUPS(Mem{Base: a, Index: i, Scale: 4}, x)
	VFMADD231PS(Mem{Base: b, Index: i, Scale: 4}, x, acc)
	ADDQ(Imm(8), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	VHADDPS(acc, acc, acc)
	VHADDPS(acc, acc, acc)
	high := XMM()
	VEXTRACTF128(Imm(1), acc, high)
	VADDSS(high, acc.AsX(), high)
	Store(high, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

func axpy() {
	text("axpy8", "func(y, x *float32, a float32, n int)",
		"axpy8 is path.axpy for n elements, a positive multiple of 8.")
	y, x, n, i := gp("y"), gp("x"), gp("n"), GP64()
	a, v := YMM(), YMM()
	VBROADCASTSS(NewParamAddr("a", 16), a)
	XORQ(i, i)
	Label("loop")
	VMOVUPS(Mem{Base: y, Index: i, Scale: 4}, v)
	VFMADD231PS(Mem{Base: x, Index: i, Scale: 4}, a, v)
	VMOVUPS(v, Mem{Base: y, Index: i, Scale: 4})
	ADDQ(Imm(8), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
