package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const lineBytes = 64

// Kernels of the matrix product are written for a width of vectors: 8 lanes, AVX2, or with -wide 16, AVX-512. What
// depends on it beyond a count of lanes and bytes is in vector, zero, tailOf and storeTail.
var (
	lanes    = 8
	vecBytes = 32
)

func wide() bool { return lanes == 16 }

func vector() reg.VecVirtual {
	if wide() {
		return ZMM()
	}
	return YMM()
}

// zero clears a vector by an instruction that AVX-512 has without an extension.
func zero(x reg.VecVirtual) {
	if wide() {
		VPXORD(x, x, x)
		return
	}
	VXORPS(x, x, x)
}

// wideVecs is maxVecs for AVX-512: 32 registers, and at least 8 sums again. A panel is one vector wide, so that tiles
// of up to twelve rows have one vector each; two panels side by side are a pair.
var wideVecs = []int{1: 8, 2: 6, 3: 6, 4: 4, 5: 4, 6: 4, 7: 1, 8: 1, 9: 1, 10: 1, 11: 1, 12: 1}

// gemm512 writes the tiles of AVX-512; what else a product needs is no faster by wider vectors.
func gemm512() {
	lanes, vecBytes, maxVecs = 16, 64, wideVecs
	mask := tileMask()
	for rows := 1; rows < len(maxVecs); rows++ {
		tile(rows, maxVecs[rows], false, nil)
		for vecs := 1; vecs <= maxVecs[rows]; vecs++ {
			tile(rows, vecs, false, &mask)
		}
		tile(rows, 2, true, nil)
		tile(rows, 2, true, &mask)
	}
	gatherTiles()
	peak()
}

// maxVecs is the number of vectors that a tile of so many rows is wide at most: rows*vecs sums of 16 registers, with
// room for a row of b and an element of a. A sum waits 4 cycles for the one before it, and 2 begin in a cycle, so at
// least 8 are wanted.
var maxVecs = []int{1: 8, 2: 4, 3: 3, 4: 2, 5: 2, 6: 2, 7: 1, 8: 1, 9: 1, 10: 1, 11: 1, 12: 1}

// gemm writes all tiles: of full vectors, and with a last vector that is not full.
func gemm(tails Mem) {
	mask := tileMask()
	for _, rows := range []int{1, 4, 5, 6} {
		tile(rows, maxVecs[rows], false, nil)
	}
	for rows := 1; rows < len(maxVecs); rows++ {
		for vecs := 1; vecs <= maxVecs[rows]; vecs++ {
			tile(rows, vecs, false, &mask)
		}
	}
	gatherTiles()
	columnDot(4)
	columnDot(1)
	addRows(4, tails)
	addRows(1, tails)
	dotRows(4, tails)
	dotRows(1, tails)
	peak()
}

// named is the name of a symbol, which differs by width.
func named(name string) string {
	if wide() {
		return name + "512"
	}
	return name
}

// tailMasks is the table of tailMask.
func tailMasks() Mem {
	table := GLOBL("tailMasks", RODATA|NOPTR)
	for i := range 32 {
		x := uint32(0)
		if i < 16 {
			x = math.MaxUint32
		}
		DATA(4*i, U32(x))
	}
	return table
}

// tileMask is lanes times -1 and then lanes times 0: a mask of t lanes begins at element lanes-t.
func tileMask() Mem {
	table := GLOBL(named("tileMask"), RODATA|NOPTR)
	for i := range 2 * lanes {
		x := U32(0)
		if i < lanes {
			x = ^x
		}
		DATA(4*i, x)
	}
	return table
}

// rowAddresses reaches row r, stride bytes apart, by a base and a scaled stride. The bases are base and registers of
// its own, which step advances too.
type rowAddresses struct {
	bases  []reg.GPVirtual
	stride reg.Register
}

func newRowAddresses(base reg.GPVirtual, stride reg.Register, rows int) rowAddresses {
	a := rowAddresses{[]reg.GPVirtual{base}, stride}
	for r := 3; r < rows; r += 3 {
		next := GP64()
		a.bases = append(a.bases, next)
	}
	return a
}

// reset computes the other bases from the first.
func (a rowAddresses) reset() {
	for i := 1; i < len(a.bases); i++ {
		LEAQ(Mem{Base: a.bases[i-1], Index: a.stride, Scale: 2}, a.bases[i])
		ADDQ(a.stride, a.bases[i])
	}
}

func (a rowAddresses) at(r int) Mem {
	m := Mem{Base: a.bases[r/3]}
	if r%3 != 0 {
		m.Index, m.Scale = a.stride, uint8(r%3)
	}
	return m
}

func (a rowAddresses) step(by Op) {
	for _, b := range a.bases {
		ADDQ(by, b)
	}
}

// tile is the micro-kernel of so many rows and vectors of columns, for several tiles below each other. The sums stay in
// registers for all of k; each is one chain of fused multiply-adds. The second vector of b of a pair lies step behind
// the first.
func tile(rows, vecs int, pair bool, mask *Mem) {
	name, cols := fmt.Sprintf("tile%dx%d", rows, vecs*lanes), fmt.Sprint(vecs*lanes)
	if pair {
		name = "pair" + name
	}
	if mask != nil {
		name, cols = name+"tail", fmt.Sprintf("%d+tail", (vecs-1)*lanes)
	}
	if wide() {
		name = "wide" + name
	}
	TEXT(name, NOSPLIT, "func(a *float32, rs, cs, next int, b *float32, ldb, step int, c *float32, ldc int, "+
		"bias *float32, k, tiles, tail int, load, relu bool)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s is kernels.tile for blocks of %d rows and %s columns.", name, rows, cols))
	rs, cs := word("rs"), word("cs")
	ldb, ldc := word("ldb"), word("ldc")
	a, b, c, k := GP64(), GP64(), GP64(), GP64()
	tail := GP64()
	m, masked := vector(), reg.Register(nil)
	if mask != nil {
		base := GP64()
		Load(Param("tail"), tail)
		LEAQ(*mask, base)
		SHLQ(U8(2), tail)
		SUBQ(tail, base)
		VMOVUPS(Mem{Base: base, Disp: vecBytes}, m)
		if wide() {
			k1 := K()
			VPMOVD2M(m, k1)
			masked = k1
		} else {
			Load(Param("tail"), tail)
		}
	}
	isTail := func(v int) bool { return mask != nil && v == vecs-1 }
	load := func(from Mem, v int, to reg.VecVirtual) {
		switch {
		case isTail(v) && wide():
			VMOVUPS_Z(from, masked, to)
		case isTail(v):
			VMASKMOVPS(from, m, to)
		default:
			VMOVUPS(from, to)
		}
	}
	at := func(base reg.Register, v int) Mem { return Mem{Base: base, Disp: v * vecBytes} }
	acc := make([][]reg.VecVirtual, rows)
	for r := range acc {
		for range vecs {
			acc[r] = append(acc[r], vector())
		}
	}
	bv := make([]reg.VecVirtual, vecs)
	single := rows == 1 // a row of b is read from memory by the multiply-adds: there is no second use of it
	for v := range bv {
		bv[v] = vector()
	}
	ar := newRowAddresses(a, rs, rows)
	x := vector()
	second := b // of a pair
	if pair {
		second = GP64()
	}
	ofB := func(v int) Mem {
		if pair && v == 1 {
			return Mem{Base: second}
		}
		return at(b, v)
	}

	// Rows of b that lie far apart are not foreseen by the processor. One row of a is through with a row of b sooner.
	ahead := uint8(4)
	if single {
		ahead = 8
	}
	Label("tiles")
	MOVQ(arg("a"), a)
	MOVQ(arg("b"), b)
	MOVQ(arg("k"), k)
	MOVQ(arg("c"), c)
	ar.reset()
	if pair {
		MOVQ(b, second)
		ADDQ(arg("step"), second)
	}
	if rows > 1 {
		// The rows of c of the next tile: 8192x15x500, whose c is the most of it, 59 GFLOP/s with this and 44 without.
		// Not below the last one, which may be another worker's.
		CMPQ(arg("tiles"), U8(1))
		JEQ(LabelRef("last"))
		next := GP64()
		MOVQ(c, next)
		for range rows {
			ADDQ(ldc, next)
		}
		for r := range rows {
			if pair {
				PREFETCHT0(Mem{Base: next})
			}
			PREFETCHT0(Mem{Base: next, Disp: vecs*vecBytes - 4})
			if r < rows-1 {
				ADDQ(ldc, next)
			}
		}
		Label("last")
	}
	CMPB(arg("load"), U8(0))
	JEQ(LabelRef("zero"))
	for r := range rows {
		for v := range vecs {
			load(at(c, v), v, acc[r][v])
		}
		if r < rows-1 {
			ADDQ(ldc, c)
		}
	}
	MOVQ(arg("c"), c)
	JMP(LabelRef("loop"))
	Label("zero")
	for r := range rows {
		for v := range vecs {
			zero(acc[r][v])
		}
	}
	Label("loop")
	for line := 0; line*lineBytes < vecs*vecBytes; line++ {
		ask := Mem{Base: b, Disp: line * lineBytes}
		if pair {
			ask = ofB(line)
		}
		ask.Index, ask.Scale = ldb, ahead
		PREFETCHT0(ask)
	}
	if single {
		VBROADCASTSS(ar.at(0), x)
		for v := range vecs {
			if isTail(v) {
				load(ofB(v), v, bv[0])
				VFMADD231PS(bv[0], x, acc[0][v])
			} else {
				VFMADD231PS(ofB(v), x, acc[0][v])
			}
		}
	} else {
		for v := range vecs {
			load(ofB(v), v, bv[v])
		}
		for r := range rows {
			VBROADCASTSS(ar.at(r), x)
			for v := range vecs {
				VFMADD231PS(bv[v], x, acc[r][v])
			}
		}
	}
	ar.step(cs)
	ADDQ(ldb, b)
	if pair {
		ADDQ(ldb, second)
	}
	DECQ(k)
	JNZ(LabelRef("loop"))

	bias := word("bias")
	TESTQ(bias, bias)
	JZ(LabelRef("activate"))
	for v := range vecs {
		load(at(bias, v), v, x)
		for r := range rows {
			VADDPS(x, acc[r][v], acc[r][v])
		}
	}
	Label("activate")
	CMPB(arg("relu"), U8(0))
	JEQ(LabelRef("store"))
	zero(x)
	for r := range rows {
		for v := range vecs {
			// Of two zeros, or where one is NaN, the instruction gives its last source, here the sum.
			VMAXPS(acc[r][v], x, acc[r][v])
		}
	}
	Label("store")
	for r := range rows {
		for v := range vecs {
			if isTail(v) && wide() {
				VMOVUPS(acc[r][v], masked, Mem{Base: c, Disp: v * vecBytes})
			} else if isTail(v) {
				storeTail(fmt.Sprint(r), acc[r][v], c, v*vecBytes, tail)
			} else {
				VMOVUPS(acc[r][v], Mem{Base: c, Disp: v * vecBytes})
			}
		}
		ADDQ(ldc, c)
	}
	MOVQ(c, arg("c"))
	next := GP64()
	MOVQ(arg("next"), next)
	ADDQ(next, arg("a"))
	DECQ(arg("tiles"))
	JNZ(LabelRef("tiles"))
	VZEROUPPER()
	RET()
}

// storeTail stores the first tail lanes of x. A masked store costs 12 cycles on Zen 3, these branches go the same way
// each time.
func storeTail(label string, x reg.VecVirtual, base reg.Register, disp int, tail reg.GPVirtual) {
	at := GP64()
	LEAQ(Mem{Base: base, Disp: disp}, at)
	TESTB(U8(8), tail.As8())
	JZ(LabelRef("four" + label))
	VMOVUPS(x, Mem{Base: at})
	JMP(LabelRef("done" + label))
	Label("four" + label)
	TESTB(U8(4), tail.As8())
	JZ(LabelRef("two" + label))
	VMOVUPS(x.AsX(), Mem{Base: at})
	VEXTRACTF128(U8(1), x, x.AsX())
	ADDQ(U8(16), at)
	Label("two" + label)
	TESTB(U8(2), tail.As8())
	JZ(LabelRef("one" + label))
	VMOVLPS(x.AsX(), Mem{Base: at})
	VPERMILPS(U8(0xee), x.AsX(), x.AsX())
	ADDQ(U8(8), at)
	Label("one" + label)
	TESTB(U8(1), tail.As8())
	JZ(LabelRef("done" + label))
	VMOVSS(x.AsX(), Mem{Base: at})
	Label("done" + label)
}

// gatherTiles copies with whole vectors: what a tile has too much is written over by its next row.
func gatherTiles() {
	name := named("gatherTiles")
	TEXT(name, NOSPLIT, "func(dst, src *float32, rows, tiles, k, next, ld int)")
	Pragma("noescape")
	Doc(name+" copies k rows of src, ld apart, into tiles of rows columns each, next apart. All strides are in",
		fmt.Sprintf("bytes, rows too. It reads up to %d elements past the last column and writes as many past the last tile.",
			lanes-1))
	dst, src := word("dst"), word("src")
	rows, tiles := word("rows"), word("tiles")
	k, next, ld := word("k"), word("next"), word("ld")
	from, to, n := GP64(), GP64(), GP64()
	x := vector()
	Label("row")
	MOVQ(src, from)
	MOVQ(dst, to)
	MOVQ(tiles, n)
	Label("tile")
	// Rows that lie far apart are not foreseen by the processor.
	PREFETCHT0(Mem{Base: from, Index: ld, Scale: 8})
	VMOVUPS(Mem{Base: from}, x)
	VMOVUPS(x, Mem{Base: to})
	ADDQ(rows, from)
	ADDQ(next, to)
	DECQ(n)
	JNZ(LabelRef("tile"))
	ADDQ(ld, src)
	ADDQ(rows, dst)
	DECQ(k)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// columnDot is a row of a product with b transposed: the lanes are rows of b, here a, four columns of which are turned over
// in registers at a time, so that each sum is one chain. Several groups of rows keep the multiply-adds busy.
func columnDot(groups int) {
	rows := groups * lanes
	name := fmt.Sprintf("columnDot%d", rows)
	TEXT(name, NOSPLIT, "func(y, a *float32, ld int, x *float32, k int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s is kernels.columnDot for %d rows; ld is in bytes, k above 0.", name, rows))
	ld, x, k := word("ld"), word("x"), word("k")
	a, at, at4, ld3 := word("a"), GP64(), GP64(), GP64()
	LEAQ(Mem{Base: ld, Index: ld, Scale: 2}, ld3)
	acc := make([]reg.VecVirtual, groups)
	for g := range acc {
		acc[g] = vector()
		VXORPS(acc[g], acc[g], acc[g])
	}
	var xs, t, u [4]reg.VecVirtual
	for i := range xs {
		xs[i], t[i], u[i] = vector(), vector(), vector()
	}
	row := func(base reg.Register, r int) Mem {
		switch r {
		case 1:
			return Mem{Base: base, Index: ld, Scale: 1}
		case 2:
			return Mem{Base: base, Index: ld, Scale: 2}
		case 3:
			return Mem{Base: base, Index: ld3, Scale: 1}
		}
		return Mem{Base: base}
	}
	rowsOf := func(g int, do func()) {
		if g == 0 {
			MOVQ(a, at)
		} else {
			LEAQ(Mem{Base: at4, Index: ld, Scale: 4}, at)
		}
		LEAQ(Mem{Base: at, Index: ld, Scale: 4}, at4)
		do()
	}
	// u[p] becomes column p of the block whose row r and row r+4 are the halves of t[r].
	turn := func() {
		VUNPCKLPS(t[1], t[0], u[0])
		VUNPCKHPS(t[1], t[0], u[1])
		VUNPCKLPS(t[3], t[2], u[2])
		VUNPCKHPS(t[3], t[2], u[3])
		VUNPCKLPD(u[2], u[0], t[0])
		VUNPCKHPD(u[2], u[0], t[1])
		VUNPCKLPD(u[3], u[1], t[2])
		VUNPCKHPD(u[3], u[1], t[3])
	}
	pf, pf4, below := GP64(), GP64(), GP64()
	IMUL3Q(U8(rows-1), ld, below)
	// four does four columns of all groups, and asks for a line of each row of group ahead.
	four := func(ahead int) {
		for p := range xs {
			VBROADCASTSS(Mem{Base: x, Disp: 4 * p}, xs[p])
		}
		for g := range groups {
			rowsOf(g, func() {
				for r := range t {
					VMOVUPS(row(at, r), t[r].AsX())
					// The lower half is of the row before: it is left out. A blend is done by any unit, an insertion
					// by two.
					upper := row(at4, r)
					upper.Disp -= vecBytes / 2
					VBLENDPS(U8(0xf0), upper, t[r], t[r])
					if g == ahead {
						PREFETCHT0(row(pf, r))
						PREFETCHT0(row(pf4, r))
					}
				}
				turn()
				for p := range t {
					VFMADD231PS(t[p], xs[p], acc[g])
				}
			})
		}
		ADDQ(U8(16), a)
		ADDQ(U8(16), x)
	}
	SUBQ(U8(16), k)
	JL(LabelRef("fours"))
	Label("loop")
	// The line after next: of the next rows, where these end.
	LEAQ(Mem{Base: a, Disp: 2 * lineBytes}, pf)
	LEAQ(Mem{Base: pf, Index: below, Scale: 1}, pf4)
	CMPQ(k, U8(2*lineBytes/4-16))
	CMOVQLT(pf4, pf)
	for i := range 4 {
		if i < groups {
			LEAQ(Mem{Base: pf, Index: ld, Scale: 4}, pf4)
		}
		four(i)
		if i < groups-1 {
			LEAQ(Mem{Base: pf, Index: ld, Scale: uint8(lanes)}, pf)
		}
	}
	SUBQ(U8(16), k)
	JGE(LabelRef("loop"))
	Label("fours")
	ADDQ(U8(12), k)
	JL(LabelRef("rest"))
	Label("single")
	four(-1)
	SUBQ(U8(4), k)
	JGE(LabelRef("single"))
	Label("rest")
	ADDQ(U8(4), k)
	JZ(LabelRef("store"))
	// One column at a time: there is none to turn over.
	Label("column")
	VBROADCASTSS(Mem{Base: x}, xs[0])
	for g := range groups {
		rowsOf(g, func() {
			for half, base := range []reg.Register{at, at4} {
				VMOVSS(row(base, 0), t[2*half].AsX())
				VINSERTPS(U8(0x10), row(base, 1), t[2*half].AsX(), t[2*half].AsX())
				VINSERTPS(U8(0x20), row(base, 2), t[2*half].AsX(), t[2*half].AsX())
				VINSERTPS(U8(0x30), row(base, 3), t[2*half].AsX(), t[2*half].AsX())
			}
			VINSERTF128(U8(1), t[2].AsX(), t[0], t[0])
			VFMADD231PS(t[0], xs[0], acc[g])
		})
	}
	ADDQ(U8(4), a)
	ADDQ(U8(4), x)
	DECQ(k)
	JNZ(LabelRef("column"))
	Label("store")
	y := word("y")
	for g := range groups {
		VMOVUPS(acc[g], Mem{Base: y, Disp: g * vecBytes})
	}
	VZEROUPPER()
	RET()
}

// aheadRows is the bytes by which dotRows asks for what it reads.
const aheadRows = 4096

// dotRows is the product with one column, rows of a at a time.
func dotRows(rows int, table Mem) {
	name := fmt.Sprintf("dotRows%d", rows)
	TEXT(name, NOSPLIT, "func(y, a, x *float32, k, n int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s is kernels.dotRows for n times %d rows of k elements, n and k above 0.", name, rows))
	y, x, n := word("y"), word("x"), word("n")
	ld, full, c := GP64(), GP64(), GP64()
	Load(Param("k"), ld)
	masks := []reg.VecVirtual{YMM(), YMM()}
	tailMask(table, ld, masks...)
	MOVQ(ld, full)
	ANDQ(I8(-16), full)
	SHLQ(U8(2), full)
	SHLQ(U8(2), ld)
	p, ask := make([]reg.Register, rows), GP64()
	p[0] = word("a")
	for g := 1; g < rows; g++ {
		p[g] = GP64()
	}
	var acc [4][2]reg.VecVirtual
	for g := range rows {
		acc[g] = [2]reg.VecVirtual{YMM(), YMM()}
	}
	xs := [2]reg.VecVirtual{YMM(), YMM()}
	Label("rows")
	for g := range rows {
		if g > 0 {
			LEAQ(Mem{Base: p[g-1], Index: ld, Scale: 1}, p[g])
		}
		for v := range xs {
			VXORPS(acc[g][v], acc[g][v], acc[g][v])
		}
	}
	XORQ(c, c)
	CMPQ(c, full)
	JGE(LabelRef("tail"))
	MOVQ(p[0], ask)
	Label("loop")
	addToLanes(x, p, c, xs, nil, acc[:])
	for g := range rows {
		PREFETCHT0(Mem{Base: ask, Disp: aheadRows + lineBytes*g})
	}
	ADDQ(U32(rows*lineBytes), ask)
	ADDQ(U8(64), c)
	CMPQ(c, full)
	JLT(LabelRef("loop"))
	Label("tail")
	CMPQ(c, ld)
	JGE(LabelRef("fold"))
	addToLanes(x, p, c, xs, masks, acc[:])
	Label("fold")
	foldLanes(acc[:rows], Mem{Base: y})
	ADDQ(U8(4*rows), y)
	LEAQ(Mem{Base: p[rows-1], Index: ld, Scale: 1}, p[0])
	DECQ(n)
	JNZ(LabelRef("rows"))
	VZEROUPPER()
	RET()
}

// addRows is a row of sums that is too wide for a tile: it stays in the first cache, and b is read along its rows, which
// is the order in which memory is quickest. Four rows at a time load and store a sum once for four multiply-adds, and ask
// for the next four: 500x8192x1, a transposed, on a Zen 5 42 GFLOP/s in tiles, 48 with eight rows, 51 with four.
func addRows(rows int, table Mem) {
	name := fmt.Sprintf("addRows%d", rows)
	TEXT(name, NOSPLIT, "func(y, b *float32, ldb int, a *float32, cs, n, groups int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s is kernels.addRows for groups times %d rows; ldb and cs are in bytes, n and groups above 0.", name,
		rows))
	ldb, a, cs, b := word("ldb"), word("a"), word("cs"), GP64()
	y, n := GP64(), GP64()
	br := newRowAddresses(b, ldb, rows)
	ask, ahead := newRowAddresses(GP64(), ldb, rows), GP64()
	mask := YMM()
	Load(Param("n"), n)
	tailMask(table, n, mask)
	IMUL3Q(U8(rows), ldb, ahead)
	x := make([]reg.VecVirtual, rows)
	for r := range x {
		x[r] = YMM()
	}
	Label("group")
	for r := range x {
		VBROADCASTSS(Mem{Base: a}, x[r])
		ADDQ(cs, a)
	}
	MOVQ(arg("y"), y)
	MOVQ(arg("n"), n)
	MOVQ(arg("b"), b)
	br.reset()
	MOVQ(b, ask.bases[0])
	ADDQ(ahead, ask.bases[0])
	MOVQ(ask.bases[0], arg("b"))
	ask.reset()
	of := func(r, v int) Mem {
		m := br.at(r)
		m.Disp = 32 * v
		return m
	}
	for _, vecs := range []int{4, 1} {
		name := map[int]string{4: "four", 1: "one"}[vecs]
		Label(name)
		SUBQ(U8(8*vecs), n)
		JL(LabelRef(name + "Less"))
		var acc [4]reg.VecVirtual
		for v := range vecs {
			acc[v] = YMM()
			VMOVUPS(Mem{Base: y, Disp: 32 * v}, acc[v])
		}
		for r := range x {
			for v := range vecs {
				VFMADD231PS(of(r, v), x[r], acc[v])
				if v%2 == 0 && vecs == 4 {
					at := ask.at(r)
					at.Disp = 32 * v
					PREFETCHT0(at)
				}
			}
		}
		for v := range vecs {
			VMOVUPS(acc[v], Mem{Base: y, Disp: 32 * v})
		}
		ADDQ(U8(32*vecs), y)
		br.step(U8(32 * vecs))
		ask.step(U8(32 * vecs))
		JMP(LabelRef(name))
		Label(name + "Less")
		ADDQ(U8(8*vecs), n)
	}
	JZ(LabelRef("next"))
	acc, z := YMM(), YMM()
	VMASKMOVPS(Mem{Base: y}, mask, acc)
	for r := range x {
		VMASKMOVPS(of(r, 0), mask, z)
		VFMADD231PS(z, x[r], acc)
	}
	storeTail("Last", acc, y, 0, n)
	Label("next")
	DECQ(arg("groups"))
	JNZ(LabelRef("group"))
	VZEROUPPER()
	RET()
}

// peakSums is the number of chains that peak keeps going: more than latency times rate of any processor with AVX2.
const peakSums = 12

// peak does nothing but multiply-adds that do not wait for each other.
func peak() {
	TEXT(named("fmaPeak"), NOSPLIT, "func(n int)")
	Doc(fmt.Sprintf("%s does n times %d multiply-adds of %d lanes, n above 0.", named("fmaPeak"), peakSums, lanes))
	n := word("n")
	x := vector()
	zero(x)
	var acc [peakSums]reg.VecVirtual
	for i := range acc {
		acc[i] = vector()
		zero(acc[i])
	}
	Label("loop")
	for i := range acc {
		VFMADD231PS(x, x, acc[i])
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
