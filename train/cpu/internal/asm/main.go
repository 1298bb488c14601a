// Command asm writes the AVX2 kernels of train/cpu and, with -wide, those of AVX-512: run it by `go generate
// ./train/cpu`. What each kernel computes is defined by its portable counterpart, which lies where the operation does.
package main

import (
	"fmt"
	"math"
	"os"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	if at := slices.Index(os.Args, "-wide"); at > 0 { // avo reads the other flags
		os.Args = slices.Delete(os.Args, at, at+1)
		gemm512()
		silu(false)
		silu(true)
		dropout()
		permute()
		uniforms()
		Generate()
		return
	}
	tails := tailMasks()
	gemm(tails)
	actGrad()
	silu(false)
	silu(true)
	colSum(4)
	colSum(1)
	optim()
	dropout()
	permute()
	gatherRows(tails)
	transpose()
	prefetch()
	arithmetic()
	rowDot()
	softmaxLogits()
	softmaxExp()
	pinball(false)
	pinball(true)
	embed(tails)
	pause()
	functions()
	bce(false)
	bce(true)
	Generate()
}

// pause tells the processor that a loop waits for another.
func pause() {
	TEXT("pause", NOSPLIT, "func(n int)")
	Doc("pause does n times what lets another thread of the core go on, about 20 ns each; n above 0.")
	n := word("n")
	Label("loop")
	PAUSE()
	DECQ(n)
	JNZ(LabelRef("loop"))
	RET()
}

func actGrad() {
	TEXT("actGrad8", NOSPLIT, "func(dz, dy, y *float32, n int)")
	Pragma("noescape")
	Doc("actGrad8 is kernels.actGrad for n elements, a positive multiple of 8.")
	dz, dy, y, n := word("dz"), word("dy"), word("y"), word("n")
	zero, m := YMM(), YMM()
	VXORPS(zero, zero, zero)
	i := GP64()
	XORQ(i, i)
	Label("loop")
	VMOVUPS(Mem{Base: y, Index: i, Scale: 4}, m)
	VCMPPS(U8(0x1e), zero, m, m) // y > 0, false for NaN
	VANDPS(Mem{Base: dy, Index: i, Scale: 4}, m, m)
	VMOVUPS(m, Mem{Base: dz, Index: i, Scale: 4})
	ADDQ(U8(8), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// siluTable holds the constants of silu, which every exponential of the losses reads by their places here.
func siluTable() Mem {
	return inAllLanes("siluConsts", -87, 87, -0x1.715476p0, 0x1.8p23, 0x1.62e43p-1, -0x1.05c61p-29, 1,
		0x1.fffffcp-2, -0x1.555492p-3, 0x1.5558f2p-5, -0x1.123a2p-7, 0x1.6a23dp-10)
}

// inAllLanes is a table of vectors that hold one number each.
func inAllLanes(name string, numbers ...float32) Mem {
	table := GLOBL(named(name), RODATA|NOPTR)
	for i, x := range numbers {
		for lane := range lanes {
			DATA(vecBytes*i+4*lane, U32(math.Float32bits(x)))
		}
	}
	return table
}

var siluConsts Mem

// expOperands are the constants of an exponential, each in a register or in siluConsts.
type expOperands struct{ log2e, magic, ln2Hi, ln2Lo, one Op }

// inTable are all of them where they lie.
func inTable() expOperands {
	at := func(i int) Mem { return siluConsts.Offset(vecBytes * i) }
	return expOperands{at(2), at(3), at(4), at(5), at(6)}
}

// exponential leaves exp(-c) as the product of q and pow, with the roundings of siluExp, for c within its bounds. n and
// square may be one register; or n may be q, and square c, which is lost then.
func (k expOperands) exponential(c, pow, r, q, n, square reg.VecVirtual) {
	if _, ok := k.magic.(Mem); ok {
		VMOVUPS(k.magic, pow)
	} else {
		VMOVAPS(k.magic, pow)
	}
	VFMADD231PS(k.log2e, c, pow)
	VSUBPS(k.magic, pow, n)
	VMOVAPS(c, r)
	VFMADD231PS(k.ln2Hi, n, r)
	VFMADD231PS(k.ln2Lo, n, r)
	VMOVUPS(siluConsts.Offset(vecBytes*11), q)
	for j := 10; j >= 7; j-- {
		VFMADD213PS(siluConsts.Offset(vecBytes*j), r, q)
	}
	VMULPS(r, r, square)
	VFMSUB213PS(r, square, q)
	VADDPS(k.one, q, q)
	VPSLLD(U8(23), pow, pow)
	VPADDD(k.one, pow, pow)
}

// silu is the activation or its gradient; the roundings are those of siluExp, siluPortable and siluGradPortable.
func silu(gradient bool) {
	if gradient {
		name := fmt.Sprintf("siluGrad%d", lanes)
		TEXT(name, NOSPLIT, "func(dz, dy, z *float32, n int)")
		Pragma("noescape")
		Doc(fmt.Sprintf("%s is kernels.siluGrad for n elements, a positive multiple of %d.", name, lanes))
	} else {
		siluConsts = siluTable()
		name := fmt.Sprintf("silu%d", lanes)
		TEXT(name, NOSPLIT, "func(y, z *float32, n int)")
		Pragma("noescape")
		Doc(fmt.Sprintf("%s is kernels.silu for n elements, a positive multiple of %d.", name, lanes))
	}
	out, z, n := Load(ParamIndex(0), GP64()), word("z"), word("n")
	var dy reg.Register
	if gradient {
		dy = word("dy")
	}
	var in [7]reg.VecVirtual
	for i := range in {
		in[i] = vector()
		VMOVUPS(siluConsts.Offset(vecBytes*i), in[i])
	}
	low, high, one := in[0], in[1], in[6]
	k := expOperands{in[2], in[3], in[4], in[5], one}
	i := GP64()
	XORQ(i, i)
	at := func(base reg.Register) Mem { return Mem{Base: base, Index: i, Scale: 4} }
	x, c, pow, r, q, t := vector(), vector(), vector(), vector(), vector(), vector()
	Label("loop")
	VMOVUPS(at(z), x)
	VMAXPS(x, low, x) // where one is NaN, the last source in Intel's order: x
	VMINPS(x, high, c)
	k.exponential(c, pow, r, q, t, t)
	if gradient {
		VMULPS(pow, q, q) // e
		VADDPS(one, q, t)
		VDIVPS(t, one, t) // s
		VMULPS(t, q, q)
		VFMADD213PS(one, c, q)
		VMULPS(t, q, q)
		VMULPS(at(dy), q, q)
	} else {
		VFMADD213PS(one, pow, q) // the product is exact
		VDIVPS(q, x, q)
	}
	VMOVUPS(q, at(out))
	ADDQ(U8(lanes), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func colSum(vectors int) {
	TEXT(fmt.Sprintf("colSum%d", 8*vectors), NOSPLIT, "func(s, x *float32, rows, stride int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("colSum%d is kernels.colSum for %d columns, which goes on from s; stride is in bytes.", 8*vectors, 8*vectors))
	s, x, rows, stride := word("s"), word("x"), word("rows"), word("stride")
	acc := make([]reg.VecVirtual, vectors)
	for v := range acc {
		acc[v] = YMM()
		VMOVUPS(Mem{Base: s, Disp: 32 * v}, acc[v])
	}
	Label("loop")
	for v := range acc {
		VADDPS(Mem{Base: x, Disp: 32 * v}, acc[v], acc[v])
	}
	ADDQ(stride, x)
	DECQ(rows)
	JNZ(LabelRef("loop"))
	for v := range acc {
		VMOVUPS(acc[v], Mem{Base: s, Disp: 32 * v})
	}
	VZEROUPPER()
	RET()
}

// constant32 fills a vector with a 32-bit constant.
func constant32(x uint32) reg.VecVirtual {
	r, y := GP32(), vector()
	MOVL(U32(x), r)
	VMOVD(r, y.AsX())
	VPBROADCASTD(y.AsX(), y)
	return y
}

// mulHigh32 gives the high halves of the 32-bit products of a and m; m is the same in all lanes or, at least, in
// each pair.
func mulHigh32(a, m, hi, t reg.VecVirtual) {
	VPSRLQ(U8(32), a, t)
	VPMULUDQ(a, m, hi) // even lanes
	VPMULUDQ(t, m, t)  // odd lanes
	VPSRLQ(U8(32), hi, hi)
	takeOdd(t, hi, hi)
}

// philox runs ten rounds of Philox4x32 on a vector of counters at a time. Keys k0, k1 are used up. The counters of even
// and of odd lanes are two chains of 64-bit lanes, of which only the low halves count: a product then brings high and
// low half without a shuffle, and one chain runs while the other waits for its multiplier. It takes four vectors beside
// eight for the chains and the keys.
func philox(c [4]reg.VecVirtual, k0, k1 reg.VecVirtual, consts Mem) {
	even, odd := c, [4]reg.VecVirtual{vector(), vector(), vector(), vector()}
	for i := range odd {
		VPSRLQ(U8(32), even[i], odd[i])
	}
	for round := range 10 {
		if round > 0 {
			VPADDD(consts.Offset(2*vecBytes), k0, k0)
			VPADDD(consts.Offset(3*vecBytes), k1, k1)
		}
		// c = {hi1^c1^k0, lo1, hi0^c3^k1, lo0} with hi0,lo0 = m0*c0 and hi1,lo1 = m1*c2.
		for _, x := range []*[4]reg.VecVirtual{&even, &odd} {
			p0, p1 := vector(), vector()
			VPMULUDQ(consts, x[0], p0)
			VPMULUDQ(consts.Offset(vecBytes), x[2], p1)
			xor(k0, x[1])
			xor(k1, x[3])
			VPSRLQ(U8(32), p1, x[0])
			VPSRLQ(U8(32), p0, x[2])
			xor(x[1], x[0])
			xor(x[3], x[2])
			x[1], x[3] = p1, p0
		}
	}
	for i := range c {
		VPSLLQ(U8(32), odd[i], odd[i])
		takeOdd(odd[i], even[i], c[i])
	}
}

// xor is y ^= x.
func xor(x, y reg.VecVirtual) {
	if wide() {
		VPXORD(x, y, y)
		return
	}
	VPXOR(x, y, y)
}

// takeOdd leaves the odd lanes of one and the even lanes of the other in to, which may be the second.
func takeOdd(odd, even, to reg.VecVirtual) {
	if !wide() {
		VPBLENDD(U8(0xaa), odd, even, to)
		return
	}
	r, k := GP32(), K()
	MOVL(U32(0xaaaa), r)
	KMOVW(r, k)
	VPBLENDMD(odd, even, k, to)
}

// philoxConsts is a table of the two multipliers and the two key increments, as often as there are lanes, and the blocks
// that the lanes begin with: in each 128 bits as far apart as there are of those, so that the transposition of draw leaves
// them in order.
func philoxConsts() Mem {
	table := GLOBL(named("philoxConsts"), RODATA|NOPTR)
	for i, x := range []uint32{0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85} {
		for lane := range lanes {
			DATA(vecBytes*i+4*lane, U32(x))
		}
	}
	for lane := range lanes {
		DATA(4*vecBytes+4*lane, U32(uint32(lane%4*(lanes/4)+lane/4)))
	}
	return table
}

var philoxTable Mem

// draw leaves the random numbers of four vectors of elements in c, from a block on; the arguments step, site, key0 and key1 say
// which. They become uniform by unit, which it returns.
func draw(c [4]reg.VecVirtual, block reg.GPVirtual) (unit reg.VecVirtual) {
	VMOVD(block, c[0].AsX())
	VPBROADCASTD(c[0].AsX(), c[0])
	VPADDD(philoxTable.Offset(4*vecBytes), c[0], c[0])
	zero(c[1])
	broadcastArg("step", c[2])
	broadcastArg("site", c[3])
	k0, k1 := vector(), vector()
	broadcastArg("key0", k0)
	broadcastArg("key1", k1)
	philox(c, k0, k1, philoxTable)
	t0, t1, t2, t3 := vector(), vector(), vector(), vector()
	VUNPCKLPS(c[1], c[0], t0)
	VUNPCKHPS(c[1], c[0], t1)
	VUNPCKLPS(c[3], c[2], t2)
	VUNPCKHPS(c[3], c[2], t3)
	VUNPCKLPD(t2, t0, c[0])
	VUNPCKHPD(t2, t0, c[1])
	VUNPCKLPD(t3, t1, c[2])
	VUNPCKHPD(t3, t1, c[3])
	return constant32(math.Float32bits(0x1p-24))
}

// uniform makes a number in [0,1) of the upper 24 bits of a random one.
func uniform(x, unit reg.VecVirtual) {
	VPSRLD(U8(8), x, x)
	VCVTDQ2PS(x, x)
	VMULPS(unit, x, x)
}

func dropout() {
	philoxTable = philoxConsts()
	name := fmt.Sprintf("dropout%d", 4*lanes)
	TEXT(name, NOSPLIT, "func(y, x *float32, groups int, block, key0, key1, step, site uint32, rate, keep float32)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s is kernels.dropout for groups of %d elements, the first of which is element 4*block;", name, 4*lanes),
		fmt.Sprintf("block+%d*groups stays within 32 bits.", lanes))
	y, x, groups := word("y"), word("x"), word("groups")
	var c [4]reg.VecVirtual
	for i := range c {
		c[i] = vector()
	}
	block := GP32()
	Load(Param("block"), block)
	Label("loop")
	unit := draw(c, block)
	rate, keep := vector(), vector()
	broadcastArg("rate", rate)
	broadcastArg("keep", keep)
	for i := range c {
		uniform(c[i], unit)
		q := vector()
		VMOVUPS(Mem{Base: x, Disp: vecBytes * i}, q)
		VDIVPS(keep, q, q)
		const notBelow = 0x1d // u >= rate
		if wide() {
			k := K()
			VCMPPS(U8(notBelow), rate, c[i], k)
			VMOVAPS_Z(q, k, c[i])
		} else {
			VCMPPS(U8(notBelow), rate, c[i], c[i])
			VANDPS(q, c[i], c[i])
		}
		VMOVUPS(c[i], Mem{Base: y, Disp: vecBytes * i})
	}
	ADDQ(U32(4*vecBytes), x)
	ADDQ(U32(4*vecBytes), y)
	ADDL(U8(lanes), block)
	DECQ(groups)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// broadcastArg fills a vector with a 32-bit argument straight from the stack frame; go vet takes the D of VPBROADCASTD
// for eight bytes, so it is the instruction for floats, which moves the same bits.
func broadcastArg(name string, y reg.VecVirtual) {
	VBROADCASTSS(arg(name), y)
}

// word loads an argument, a pointer or an int, into a register of its own.
func word(name string) reg.Register { return Load(Param(name), GP64()) }

// arg is the place of an argument on the stack.
func arg(name string) Mem {
	b, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

func permute() {
	name := fmt.Sprintf("permute%d", lanes)
	TEXT(name, NOSPLIT, "func(l, r *uint32, a, b, epoch, site, key0, key1 uint32)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s runs the four rounds of program.Permutation on %d indices, split into halves l and r.", name, lanes))
	lp, rp := word("l"), word("r")
	l, r := vector(), vector()
	VMOVUPS(Mem{Base: lp}, l)
	VMOVUPS(Mem{Base: rp}, r)
	var c [4]reg.VecVirtual
	for i := range c {
		c[i] = vector()
	}
	k0, k1 := vector(), vector()
	for round := range 4 {
		to, from, side := l, r, "a"
		if round%2 == 1 {
			to, from, side = r, l, "b"
		}
		VMOVAPS(from, c[0])
		n := GP32()
		MOVL(U32(uint32(round)), n)
		VMOVD(n, c[1].AsX())
		VPBROADCASTD(c[1].AsX(), c[1])
		broadcastArg("epoch", c[2])
		broadcastArg("site", c[3])
		broadcastArg("key0", k0)
		broadcastArg("key1", k1)
		philox(c, k0, k1, philoxTable)
		// to = (to + f*m>>32) mod m; where it is below m, subtracting wraps around and the minimum is itself.
		m, t := vector(), vector()
		broadcastArg(side, m)
		mulHigh32(c[0], m, c[1], t)
		VPADDD(c[1], to, to)
		VPSUBD(m, to, t)
		VPMINUD(t, to, to)
	}
	VMOVUPS(l, Mem{Base: lp})
	VMOVUPS(r, Mem{Base: rp})
	VZEROUPPER()
	RET()
}

// aheadGather is by how many rows gatherRows asks ahead: rows at random places of what no cache holds take that long.
const aheadGather = 16

func gatherRows(tails Mem) {
	TEXT("gatherRows8", NOSPLIT, "func(dst, src *float32, order *int32, width, n int)")
	Pragma("noescape")
	Doc("gatherRows8 is kernels.gatherRows for n rows, n and width above 0.")
	dst, src, order, n := word("dst"), word("src"), word("order"), word("n")
	rowBytes, tail, full := GP64(), GP64(), GP64()
	Load(Param("width"), rowBytes)
	mask := YMM()
	tailMask(tails, rowBytes, mask)
	MOVQ(rowBytes, tail)
	ANDQ(U8(7), tail)
	MOVQ(rowBytes, full)
	ANDQ(I8(-8), full)
	SHLQ(U8(2), full)
	SHLQ(U8(2), rowBytes)
	last, ask, row, c := GP64(), GP64(), GP64(), GP64()
	LEAQ(Mem{Base: order, Index: n, Scale: 4, Disp: -4}, last)
	address := func(at Mem) {
		MOVLQSX(at, row)
		IMULQ(rowBytes, row)
		ADDQ(src, row)
	}
	Label("row")
	LEAQ(Mem{Base: order, Disp: 4 * aheadGather}, ask)
	CMPQ(ask, last)
	CMOVQHI(last, ask)
	address(Mem{Base: ask})
	askLines(row, rowBytes, "asked")
	address(Mem{Base: order})
	x := YMM()
	XORQ(c, c)
	CMPQ(c, full)
	JGE(LabelRef("tail"))
	Label("loop")
	VMOVUPS(Mem{Base: row, Index: c, Scale: 1}, x)
	VMOVUPS(x, Mem{Base: dst, Index: c, Scale: 1})
	ADDQ(U8(32), c)
	CMPQ(c, full)
	JLT(LabelRef("loop"))
	Label("tail")
	ADDQ(full, dst)
	TESTQ(tail, tail)
	JZ(LabelRef("next"))
	VMASKMOVPS(Mem{Base: row, Index: full, Scale: 1}, mask, x)
	storeTail("", x, dst, 0, tail)
	LEAQ(Mem{Base: dst, Index: tail, Scale: 4}, dst)
	Label("next")
	ADDQ(U8(4), order)
	DECQ(n)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

func transpose() {
	TEXT("transpose8", NOSPLIT, "func(dst, src *float32, ld, blocks int)")
	Pragma("noescape")
	Doc("transpose8 turns 8 rows of 8*blocks elements, ld bytes apart, into rows of 8, 64 bytes apart.")
	dst, src, ld, blocks := word("dst"), word("src"), word("ld"), word("blocks")
	Label("loop")
	at := GP64()
	MOVQ(src, at)
	var x, y [8]reg.VecVirtual
	for i := range x {
		x[i] = YMM()
		VMOVUPS(Mem{Base: at}, x[i])
		if i < 7 {
			ADDQ(ld, at)
		}
	}
	for i := 0; i < 8; i += 2 {
		y[i], y[i+1] = YMM(), YMM()
		VUNPCKLPS(x[i+1], x[i], y[i])
		VUNPCKHPS(x[i+1], x[i], y[i+1])
	}
	// x[c+4h] holds column c of rows 4h..4h+3 in its low half and column c+4 in its high half.
	for h := range 2 {
		q := y[4*h:]
		VUNPCKLPD(q[2], q[0], x[4*h])
		VUNPCKHPD(q[2], q[0], x[4*h+1])
		VUNPCKLPD(q[3], q[1], x[4*h+2])
		VUNPCKHPD(q[3], q[1], x[4*h+3])
	}
	for c := range 4 {
		lo := YMM()
		VPERM2F128(U8(0x20), x[c+4], x[c], lo)
		VMOVUPS(lo, Mem{Base: dst, Disp: 64 * c})
		VPERM2F128(U8(0x31), x[c+4], x[c], lo)
		VMOVUPS(lo, Mem{Base: dst, Disp: 64 * (c + 4)})
	}
	ADDQ(U8(32), src)
	ADDQ(U32(512), dst)
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func prefetch() {
	TEXT("prefetchRow", NOSPLIT, "func(x *float32, n int)")
	Pragma("noescape")
	Doc("prefetchRow is kernels.prefetch for n elements, n above 0.")
	x, n := word("x"), word("n")
	Label("loop")
	PREFETCHT0(Mem{Base: x})
	ADDQ(U8(64), x)
	SUBQ(U8(16), n)
	JG(LabelRef("loop"))
	RET()
}

// arithmetic is add, scale and div.
func arithmetic() {
	for _, op := range []string{"add", "scale", "div"} {
		if op == "add" {
			TEXT("add8", NOSPLIT, "func(y, a, b *float32, n int)")
		} else {
			TEXT(op+"8", NOSPLIT, "func(y, a *float32, s float32, n int)")
		}
		Pragma("noescape")
		Doc(op + "8 is kernels." + op + " for n elements, a positive multiple of 8.")
		y, a, n := word("y"), word("a"), word("n")
		var b reg.Register
		s := YMM()
		if op == "add" {
			b = word("b")
		} else {
			broadcastArg("s", s)
		}
		i := GP64()
		XORQ(i, i)
		x := YMM()
		Label("loop")
		VMOVUPS(Mem{Base: a, Index: i, Scale: 4}, x)
		switch op {
		case "add":
			VADDPS(Mem{Base: b, Index: i, Scale: 4}, x, x)
		case "scale":
			VMULPS(s, x, x)
		case "div":
			VDIVPS(s, x, x)
		}
		VMOVUPS(x, Mem{Base: y, Index: i, Scale: 4})
		ADDQ(U8(8), i)
		CMPQ(i, n)
		JLT(LabelRef("loop"))
		VZEROUPPER()
		RET()
	}
}

// rowDot keeps four rows' chains going at a time: a multiply-add takes as long as loading its operands for four.
func rowDot() {
	TEXT("rowDot4", NOSPLIT, "func(s, a, b *float32, d int)")
	Pragma("noescape")
	Doc("rowDot4 is kernels.rowDot for four rows of d elements, d above 0.")
	a, b, d := word("a"), word("b"), word("d")
	ld := GP64()
	MOVQ(d, ld)
	SHLQ(U8(2), ld)
	var rows [2][4]Mem
	for i, base := range []reg.Register{a, b} {
		third := GP64()
		LEAQ(Mem{Base: base, Index: ld, Scale: 2}, third)
		ADDQ(ld, third)
		rows[i] = [4]Mem{{Base: base}, {Base: base, Index: ld, Scale: 1}, {Base: base, Index: ld, Scale: 2}, {Base: third}}
	}
	var sum, x [4]reg.VecVirtual
	for r := range sum {
		sum[r], x[r] = XMM(), XMM()
		VXORPS(sum[r], sum[r], sum[r])
	}
	Label("loop")
	for r := range sum {
		VMOVSS(rows[0][r], x[r])
		VFMADD231SS(rows[1][r], x[r], sum[r])
	}
	for i := range rows {
		ADDQ(U8(4), rows[i][0].Base)
		ADDQ(U8(4), rows[i][3].Base)
	}
	DECQ(d)
	JNZ(LabelRef("loop"))
	s := word("s")
	for r := range sum {
		VMOVSS(sum[r], Mem{Base: s, Disp: 4 * r})
	}
	RET()
}

func softmaxLogits() {
	TEXT("softmaxLogits8", NOSPLIT, "func(b, neg, lq, ni *float32, pi float32, n int, largest *float32)")
	Pragma("noescape")
	Doc("softmaxLogits8 is kernels.softmaxLogits for n elements, a positive multiple of 8; largest are eight maxima, which",
		"begin with what is there.")
	b, neg, lq, ni := word("b"), word("neg"), word("lq"), word("ni")
	n, largest := word("n"), word("largest")
	pi, top, minusInf := YMM(), YMM(), constant32(math.Float32bits(float32(math.Inf(-1))))
	broadcastArg("pi", pi)
	VMOVUPS(Mem{Base: largest}, top)
	i := GP64()
	XORQ(i, i)
	at := func(base reg.Register) Mem { return Mem{Base: base, Index: i, Scale: 4} }
	x, m := YMM(), YMM()
	Label("loop")
	VMOVUPS(at(neg), x)
	VSUBPS(at(lq), x, x)
	VCMPPS(U8(0), at(ni), pi, m)
	VBLENDVPS(m, minusInf, x, x)
	VMOVUPS(x, at(b))
	VMAXPS(top, x, top) // x > top ? x : top, so NaN leaves top as it is
	ADDQ(U8(8), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	VMOVUPS(top, Mem{Base: largest})
	VZEROUPPER()
	RET()
}

// softmaxExp has the roundings of siluExp.
func softmaxExp() {
	TEXT("softmaxExp16", NOSPLIT, "func(sums, e *float32, largest float32, n int)")
	Pragma("noescape")
	Doc("softmaxExp16 is kernels.softmaxExp for n elements, a positive multiple of 16.")
	sums, e, n := word("sums"), word("e"), word("n")
	largest, high, log2e, magic, ln2Hi, ln2Lo, one := YMM(), YMM(), YMM(), YMM(), YMM(), YMM(), YMM()
	broadcastArg("largest", largest)
	for i, x := range []reg.VecVirtual{high, log2e, magic, ln2Hi, ln2Lo, one} {
		VMOVUPS(siluConsts.Offset(32*(i+1)), x)
	}
	k := expOperands{log2e, magic, ln2Hi, ln2Lo, one}
	acc := [2]reg.VecVirtual{YMM(), YMM()}
	for v := range acc {
		VMOVUPS(Mem{Base: sums, Disp: 32 * v}, acc[v])
	}
	i := GP64()
	XORQ(i, i)
	z, c, pow, r, q := YMM(), YMM(), YMM(), YMM(), YMM()
	Label("loop")
	for v := range acc {
		place := Mem{Base: e, Index: i, Scale: 4, Disp: 32 * v}
		VSUBPS(place, largest, z)
		VMINPS(z, high, c) // where one is NaN, the last source in Intel's order: z
		k.exponential(c, pow, r, q, q, c)
		VMULPS(pow, q, q)
		VCMPPS(U8(0x1a), high, z, z) // not z > high: true for NaN
		VANDPS(z, q, q)
		VMOVUPS(q, place)
		VADDPS(q, acc[v], acc[v])
	}
	ADDQ(U8(16), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	for v := range acc {
		VMOVUPS(acc[v], Mem{Base: sums, Disp: 32 * v})
	}
	VZEROUPPER()
	RET()
}

// pinball is the loss of a row, whose terms go to sixteen lanes, or its gradient.
func pinball(gradient bool) {
	step := 16
	if gradient {
		step = 8
		TEXT("pinballGrad8", NOSPLIT, "func(dy, y, t, w, v *float32, c float32, n int)")
		Doc("pinballGrad8 is kernels.pinballGrad for n elements, a positive multiple of 8.")
	} else {
		TEXT("pinball16", NOSPLIT, "func(sums, y, t, w, v *float32, n int)")
		Doc("pinball16 is kernels.pinball for n elements, a positive multiple of 16.")
	}
	Pragma("noescape")
	out, y, t, w, v := Load(ParamIndex(0), GP64()), word("y"), word("t"), word("w"), word("v")
	n := word("n")
	zero, one, c := YMM(), constant32(math.Float32bits(1)), YMM()
	VXORPS(zero, zero, zero)
	acc := [2]reg.VecVirtual{YMM(), YMM()}
	if gradient {
		broadcastArg("c", c)
	} else {
		for k := range acc {
			VMOVUPS(Mem{Base: out, Disp: 32 * k}, acc[k])
		}
	}
	i := GP64()
	XORQ(i, i)
	u, level, less, weight, mask := YMM(), YMM(), YMM(), YMM(), YMM()
	Label("loop")
	for k := range step / 8 {
		at := func(base reg.Register) Mem { return Mem{Base: base, Index: i, Scale: 4, Disp: 32 * k} }
		VMOVUPS(at(t), u)
		VSUBPS(at(y), u, u)
		VMOVUPS(at(v), level)
		VMOVUPS(at(w), weight)
		VCMPPS(U8(0x04), zero, weight, mask) // not equal, true for NaN
		if gradient {
			above, below := less, YMM()
			VCMPPS(U8(0x1e), zero, u, above) // u > 0
			VCMPPS(U8(0x11), zero, u, below) // u < 0
			VSUBPS(level, one, u)            // 1 - v
			VANDPS(below, u, u)
			VANDPS(above, level, level)
			VSUBPS(level, u, u) // -v, 1-v or 0; of the two one is 0
			VORPS(above, below, below)
			VANDPS(below, mask, mask)
			VMULPS(c, weight, weight)
			VMULPS(weight, u, u)
			VANDPS(mask, u, u)
			VMOVUPS(u, at(out))
			continue
		}
		VSUBPS(one, level, less) // v - 1
		VMULPS(u, level, level)
		VMULPS(u, less, less)
		VMAXPS(less, level, level)
		VMULPS(weight, level, level)
		VANDPS(mask, level, level)
		VADDPS(level, acc[k], acc[k])
	}
	ADDQ(U8(uint8(step)), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	if !gradient {
		for k := range acc {
			VMOVUPS(acc[k], Mem{Base: out, Disp: 32 * k})
		}
	}
	VZEROUPPER()
	RET()
}
