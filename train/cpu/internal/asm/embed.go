package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The kernels of embedding tables. A row is d floats, d above 0; what does not fill a vector is loaded under a mask.

// aheadDot is by how many indices lookupDot asks for rows: about as long as a row takes to come from the third cache.
const aheadDot = 24

// aheadSum is by how many entries sumRows asks for rows.
const aheadSum = 12

func embed(table Mem) {
	lookupDot(table)
	lookupWeighted(table)
	sumRows(table)
	askRows()
	adamRows()
	shrink(false)
	shrink(true)
	candidates(table)
	uniforms()
}

// tailMask loads masks of the first (cols % span) elements of span/8 vectors.
func tailMask(table Mem, d reg.Register, masks ...reg.VecVirtual) {
	t, at := GP64(), GP64()
	MOVQ(d, t)
	ANDQ(U8(8*len(masks)-1), t)
	LEAQ(table, at)
	NEGQ(t)
	for v, m := range masks {
		VMOVUPS(Mem{Base: at, Index: t, Scale: 4, Disp: 64 + 32*v}, m)
	}
}

// askLines prefetches a row of rowBytes, its first four lines at most: what follows one line the processor fetches by
// itself.
func askLines(row, rowBytes reg.Register, done string) {
	for line := range 4 {
		if line > 0 {
			CMPQ(rowBytes, U32(64*line))
			JLE(LabelRef(done))
		}
		PREFETCHT0(Mem{Base: row, Disp: 64 * line})
	}
	Label(done)
}

// lookupDot takes four rows of the table at a time, then one.
func lookupDot(table Mem) {
	TEXT("lookupDot16", NOSPLIT, "func(s, table, idx, a *float32, m, w, known, rows, d int)")
	Pragma("noescape")
	Doc("lookupDot16 is embedKernels.dot for m rows of a, m and w above 0; known is the length of idx.")
	s, tab, idx, a := word("s"), word("table"), word("idx"), word("a")
	d, left, t, c := GP64(), GP64(), GP64(), GP64()
	full, end := AllocLocal(8), AllocLocal(8)
	Load(Param("d"), d)
	masks := []reg.VecVirtual{YMM(), YMM()}
	tailMask(table, d, masks...)
	MOVQ(d, t)
	ANDQ(I8(-16), t)
	SHLQ(U8(2), t)
	MOVQ(t, full)
	Load(Param("known"), t)
	LEAQ(Mem{Base: idx, Index: t, Scale: 4, Disp: -16}, t)
	MOVQ(t, end) // of the last four indices, if there are as many
	rowBytes := d
	SHLQ(U8(2), rowBytes)
	// address is a row of the table, its first where the index is none.
	address := func(at Mem, row, mask reg.Register) {
		VCVTTSS2SIQ(at, row)
		CMPQ(row, arg("rows"))
		SBBQ(mask, mask)
		ANDQ(mask, row)
		IMULQ(rowBytes, row)
		ADDQ(tab, row)
	}
	Label("row")
	Load(Param("w"), left)
	for _, n := range []int{4, 1} {
		name := map[int]string{4: "four", 1: "one"}[n]
		Label(name)
		CMPQ(left, U8(n))
		if n == 4 {
			JL(LabelRef("one"))
		} else {
			JL(LabelRef("next"))
		}
		var p [4]reg.Register
		for g := range n {
			p[g] = GP64()
			address(Mem{Base: idx, Disp: 4 * g}, p[g], c)
		}
		if n == 4 {
			ask := GP64()
			LEAQ(Mem{Base: idx, Disp: 4 * aheadDot}, ask)
			CMPQ(ask, end)
			CMOVQHI(end, ask)
			for g := range n {
				address(Mem{Base: ask, Disp: 4 * g}, t, c)
				askLines(t, rowBytes, "asked"+string(rune('0'+g)))
			}
		}
		var acc [4][2]reg.VecVirtual
		for g := range n {
			for v := range 2 {
				acc[g][v] = YMM()
				VXORPS(acc[g][v], acc[g][v], acc[g][v])
			}
		}
		x := [2]reg.VecVirtual{YMM(), YMM()}
		XORQ(c, c)
		CMPQ(c, full)
		JGE(LabelRef(name + "Tail"))
		Label(name + "Loop")
		addToLanes(a, p[:n], c, x, nil, acc[:])
		ADDQ(U8(64), c)
		CMPQ(c, full)
		JLT(LabelRef(name + "Loop"))
		Label(name + "Tail")
		CMPQ(c, rowBytes)
		JGE(LabelRef(name + "Fold"))
		addToLanes(a, p[:n], c, x, masks, acc[:])
		Label(name + "Fold")
		foldLanes(acc[:n], Mem{Base: s})
		for g := range n {
			some := name + "Some" + string(rune('0'+g))
			VCVTTSS2SIQ(Mem{Base: idx, Disp: 4 * g}, t)
			CMPQ(t, arg("rows"))
			JCS(LabelRef(some))
			MOVL(U32(0), Mem{Base: s, Disp: 4 * g})
			Label(some)
		}
		ADDQ(U8(4*n), idx)
		ADDQ(U8(4*n), s)
		SUBQ(U8(n), left)
		JMP(LabelRef(name))
	}
	Label("next")
	ADDQ(rowBytes, a)
	DECQ(arg("m"))
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// addToLanes adds the products of 16 elements of a, c bytes from its begin, and of each row to the row's lanes; with masks
// the elements are fewer. x is room for those of a.
func addToLanes(a reg.Register, rows []reg.Register, c reg.Register, x [2]reg.VecVirtual, masks []reg.VecVirtual,
	acc [][2]reg.VecVirtual) {
	of := func(base reg.Register, v int) Mem { return Mem{Base: base, Index: c, Scale: 1, Disp: 32 * v} }
	for v := range x {
		if masks == nil {
			VMOVUPS(of(a, v), x[v])
		} else {
			VMASKMOVPS(of(a, v), masks[v], x[v])
		}
	}
	for g, row := range rows {
		for v := range x {
			if masks == nil {
				VFMADD231PS(of(row, v), x[v], acc[g][v])
				continue
			}
			y := YMM()
			VMASKMOVPS(of(row, v), masks[v], y)
			VFMADD231PS(y, x[v], acc[g][v])
		}
	}
}

// foldLanes stores what the 16 lanes of one row or of four come to, each in two vectors: lane l takes l+8, then l+4; then
// pairs of rows are folded together, l with l+2, and last with l+1.
func foldLanes(acc [][2]reg.VecVirtual, to Mem) {
	var half [4]reg.VecVirtual
	for g := range acc {
		VADDPS(acc[g][1], acc[g][0], acc[g][0])
		half[g] = XMM()
		VEXTRACTF128(U8(1), acc[g][0], half[g])
		VADDPS(half[g], acc[g][0].AsX(), half[g])
	}
	if len(acc) == 1 {
		hi := XMM()
		VMOVHLPS(half[0], half[0], hi)
		VADDPS(hi, half[0], half[0])
		VMOVSHDUP(half[0], hi)
		VADDSS(hi, half[0], half[0])
		VMOVSS(half[0], to)
		return
	}
	lo, hi := [2]reg.VecVirtual{XMM(), XMM()}, XMM()
	for k := range 2 {
		VMOVLHPS(half[2*k+1], half[2*k], lo[k])
		VMOVHLPS(half[2*k], half[2*k+1], hi)
		VADDPS(hi, lo[k], lo[k])
	}
	VHADDPS(lo[1], lo[0], lo[0])
	VMOVUPS(lo[0], to)
}

// columns walks through a row in blocks of 8, 2 and 1 vectors and what is left under a mask. done is the bytes before
// the block, left the elements behind it; block writes the body for so many vectors, whose label names end in suffix.
func columns(d, done, left reg.Register, block func(vectors int, mask bool, suffix string)) {
	MOVQ(d, left)
	XORQ(done, done)
	for _, v := range []int{8, 2, 1} {
		name := map[int]string{8: "Eight", 2: "Two", 1: "One"}[v]
		next := map[int]string{8: "columnsTwo", 2: "columnsOne", 1: "columnsRest"}[v]
		Label("columns" + name)
		CMPQ(left, U8(8*v))
		JL(LabelRef(next))
		block(v, false, name)
		ADDQ(U32(32*v), done)
		SUBQ(U8(8*v), left)
		JMP(LabelRef("columns" + name))
	}
	Label("columnsRest")
	TESTQ(left, left)
	JZ(LabelRef("columnsDone"))
	block(1, true, "Rest")
	Label("columnsDone")
}

// multiplyAdd is acc += factor * x for a block of a row.
func multiplyAdd(row reg.Register, factor reg.VecVirtual, acc []reg.VecVirtual, mask reg.VecVirtual) {
	for v := range acc {
		if mask == nil {
			VFMADD231PS(Mem{Base: row, Disp: 32 * v}, factor, acc[v])
			continue
		}
		x := YMM()
		VMASKMOVPS(Mem{Base: row, Disp: 32 * v}, mask, x)
		VFMADD231PS(x, factor, acc[v])
	}
}

func storeColumns(acc []reg.VecVirtual, at, done reg.Register, mask reg.VecVirtual) {
	for v := range acc {
		to := Mem{Base: at, Index: done, Scale: 1, Disp: 32 * v}
		if mask == nil {
			VMOVUPS(acc[v], to)
		} else {
			VMASKMOVPS(acc[v], mask, to)
		}
	}
}

func lookupWeighted(table Mem) {
	TEXT("lookupWeighted8", NOSPLIT, "func(y, table, idx, s *float32, m, w, rows, d int)")
	Pragma("noescape")
	Doc("lookupWeighted8 is embedKernels.weighted for m rows of y, m and w above 0.")
	y, tab, idx, s := word("y"), word("table"), word("idx"), word("s")
	d, w, rowBytes := word("d"), word("w"), GP64()
	mask := YMM()
	tailMask(table, d, mask)
	MOVQ(d, rowBytes)
	SHLQ(U8(2), rowBytes)
	done, left, j, t := GP64(), GP64(), GP64(), GP64()
	Label("row")
	columns(d, done, left, func(vectors int, masked bool, suffix string) {
		m := mask
		if !masked {
			m = nil
		}
		acc := make([]reg.VecVirtual, vectors)
		for v := range acc {
			acc[v] = YMM()
			VXORPS(acc[v], acc[v], acc[v])
		}
		XORQ(j, j)
		Label("index" + suffix)
		VCVTTSS2SIQ(Mem{Base: idx, Index: j, Scale: 4}, t)
		CMPQ(t, arg("rows"))
		JCC(LabelRef("none" + suffix))
		IMULQ(rowBytes, t)
		ADDQ(tab, t)
		ADDQ(done, t)
		factor := YMM()
		VBROADCASTSS(Mem{Base: s, Index: j, Scale: 4}, factor)
		multiplyAdd(t, factor, acc, m)
		Label("none" + suffix)
		INCQ(j)
		CMPQ(j, w)
		JLT(LabelRef("index" + suffix))
		storeColumns(acc, y, done, m)
	})
	ADDQ(rowBytes, y)
	LEAQ(Mem{Base: idx, Index: w, Scale: 4}, idx)
	LEAQ(Mem{Base: s, Index: w, Scale: 4}, s)
	DECQ(arg("m"))
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// Layout of entry and of a slice header.
const (
	entryBytes  = 16
	entryFrom   = 4
	entryUse    = 8
	entryFactor = 12
	spanBytes   = 8
	spanAt      = 4
	sliceBytes  = 24
)

func sumRows(table Mem) {
	TEXT("sumRows8", NOSPLIT, "func(grad *float32, spans *int32, n int, list *int32, sources *[]float32, d int)")
	Pragma("noescape")
	Doc("sumRows8 is embedKernels.sums for n rows, n above 0, and the span behind them.")
	g, spans, n := word("grad"), word("spans"), word("n")
	d, rowBytes, sources := word("d"), GP64(), word("sources")
	mask := YMM()
	tailMask(table, d, mask)
	MOVQ(d, rowBytes)
	SHLQ(U8(2), rowBytes)
	last := AllocLocal(8) // entry of all
	done, left, e, t, at, ask := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	MOVLQSX(Mem{Base: spans, Index: n, Scale: spanBytes, Disp: spanAt}, t)
	SHLQ(U8(4), t)
	ADDQ(arg("list"), t)
	SUBQ(U8(entryBytes), t)
	MOVQ(t, last)
	// source is the address that an entry contributes from.
	source := func(e, to, t reg.Register) {
		MOVLQSX(Mem{Base: e, Disp: entryUse}, t)
		LEAQ(Mem{Base: t, Index: t, Scale: 2}, t)
		MOVLQSX(Mem{Base: e, Disp: entryFrom}, to)
		IMULQ(rowBytes, to)
		ADDQ(Mem{Base: sources, Index: t, Scale: sliceBytes / 3}, to)
		ADDQ(done, to)
	}
	Label("row")
	columns(d, done, left, func(vectors int, masked bool, suffix string) {
		m := mask
		if !masked {
			m = nil
		}
		acc := make([]reg.VecVirtual, vectors)
		acc[0] = constant32(1 << 31) // -0
		for v := 1; v < vectors; v++ {
			acc[v] = YMM()
			VMOVAPS(acc[0], acc[v])
		}
		MOVLQSX(Mem{Base: spans, Disp: spanAt}, e)
		SHLQ(U8(4), e)
		ADDQ(arg("list"), e)
		Label("entry" + suffix)
		if vectors == 8 {
			LEAQ(Mem{Base: e, Disp: entryBytes * aheadSum}, ask)
			CMPQ(ask, last)
			CMOVQHI(last, ask)
			source(ask, at, t)
			for line := range 4 {
				PREFETCHT0(Mem{Base: at, Disp: 64 * line})
			}
		}
		source(e, at, t)
		factor := YMM()
		VBROADCASTSS(Mem{Base: e, Disp: entryFactor}, factor)
		multiplyAdd(at, factor, acc, m)
		ADDQ(U8(entryBytes), e)
		MOVLQSX(Mem{Base: spans, Disp: spanBytes + spanAt}, t)
		SHLQ(U8(4), t)
		ADDQ(arg("list"), t)
		CMPQ(e, t)
		JCS(LabelRef("entry" + suffix))
		storeColumns(acc, g, done, m)
	})
	ADDQ(rowBytes, g)
	ADDQ(U8(spanBytes), spans)
	DECQ(n)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

func askRows() {
	TEXT("askRows", NOSPLIT, "func(x *float32, spans *int32, n, d int)")
	Pragma("noescape")
	Doc("askRows is embedKernels.ask for n rows, n above 0.")
	x, spans, n, rowBytes := word("x"), word("spans"), word("n"), word("d")
	SHLQ(U8(2), rowBytes)
	t := GP64()
	Label("row")
	MOVLQSX(Mem{Base: spans}, t)
	IMULQ(rowBytes, t)
	ADDQ(x, t)
	askLines(t, rowBytes, "asked")
	ADDQ(U8(spanBytes), spans)
	DECQ(n)
	JNZ(LabelRef("row"))
	RET()
}

// adamRows has the roundings of adamwPortable.
func adamRows() {
	TEXT("adamRows8", NOSPLIT, "func(p, m, v, grad *float32, spans *int32, n, d int, c *float32)")
	Pragma("noescape")
	Doc("adamRows8 is embedKernels.adam for n rows, n above 0, and d a multiple of 8.")
	p, m, v, g := word("p"), word("m"), word("v"), word("grad")
	spans, n, d, c := word("spans"), word("n"), word("d"), word("c")
	k := adamCoefs(c)
	i, left := GP64(), GP64()
	at := func(base reg.Register) Mem { return Mem{Base: base, Index: i, Scale: 4} }
	x, m1, v1, w, t := YMM(), YMM(), YMM(), YMM(), YMM()
	Label("row")
	MOVLQSX(Mem{Base: spans}, i)
	IMULQ(d, i)
	MOVQ(d, left)
	Label("loop")
	VMOVUPS(Mem{Base: g}, x)
	k.means(at(m), at(v), x, m1, v1, t)
	VMOVUPS(at(p), w)
	VMULPS(w, k.decay, t)
	VADDPS(t, m1, m1)
	VMULPS(k.rate, m1, m1)
	VSUBPS(m1, w, w)
	VMOVUPS(w, at(p))
	ADDQ(U8(32), g)
	ADDQ(U8(8), i)
	SUBQ(U8(8), left)
	JNZ(LabelRef("loop"))
	ADDQ(U8(spanBytes), spans)
	DECQ(n)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// shrink is embedKernels.shrink or, with an accumulator for each element, embedKernels.adagrad.
func shrink(adagrad bool) {
	if adagrad {
		TEXT("adagrad8", NOSPLIT, "func(p, acc, grad *float32, eps, lr, decay float32, n int)")
		Doc("adagrad8 is embedKernels.adagrad for n elements, a positive multiple of 8.")
	} else {
		TEXT("shrink8", NOSPLIT, "func(p, grad *float32, by, lr, decay float32, n int)")
		Doc("shrink8 is embedKernels.shrink for n elements, a positive multiple of 8.")
	}
	Pragma("noescape")
	p, g, n := word("p"), word("grad"), word("n")
	var acc reg.Register
	by, lr, decay := YMM(), YMM(), YMM()
	broadcastArg("lr", lr)
	broadcastArg("decay", decay)
	if adagrad {
		acc = word("acc")
		broadcastArg("eps", by)
	} else {
		broadcastArg("by", by)
	}
	i := GP64()
	XORQ(i, i)
	x, w, t := YMM(), YMM(), YMM()
	at := func(base reg.Register) Mem { return Mem{Base: base, Index: i, Scale: 4} }
	Label("loop")
	VMOVUPS(at(g), x)
	if adagrad {
		VMULPS(x, x, t)
		VADDPS(at(acc), t, t)
		VMOVUPS(t, at(acc))
		VSQRTPS(t, t)
		VADDPS(by, t, t)
		VDIVPS(t, x, x)
	} else {
		VDIVPS(by, x, x)
	}
	VMOVUPS(at(p), w)
	VMULPS(w, decay, t)
	VADDPS(t, x, x)
	VMULPS(lr, x, x)
	VSUBPS(x, w, w)
	VMOVUPS(w, at(p))
	ADDQ(U8(8), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// uniforms is the first half of dropout.
func uniforms() {
	name := fmt.Sprintf("uniforms%d", 4*lanes)
	TEXT(name, NOSPLIT, "func(u *float32, groups int, block, key0, key1, step, site uint32)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s is embedKernels.uniforms for groups of %d elements, groups above 0; block+%d*groups stays within", name,
		4*lanes, lanes), "32 bits.")
	u, groups := word("u"), word("groups")
	var c [4]reg.VecVirtual
	for i := range c {
		c[i] = vector()
	}
	block := GP32()
	Load(Param("block"), block)
	Label("loop")
	unit := draw(c, block)
	for i := range c {
		uniform(c[i], unit)
		VMOVUPS(c[i], Mem{Base: u, Disp: vecBytes * i})
	}
	ADDQ(U32(4*vecBytes), u)
	ADDL(U8(lanes), block)
	DECQ(groups)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
