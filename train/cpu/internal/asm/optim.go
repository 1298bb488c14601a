package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// optim writes the updates of optimizers and what they need.
func optim() {
	adam("adamw8", false)
	adam("adam8", true)
	descent("sgd8", false, false)
	descent("momentum8", true, false)
	descent("nesterov8", true, true)
	adagrad()
	sumSquares()
	average()
}

// Places in adamCoef.
const (
	coefB1 = iota
	coefOB1
	coefB2
	coefOB2
	coefC1
	coefC2
	coefRate
	coefEps
	coefDecay
	coefFactor
	coefMomentum
)

// coef broadcasts fields of adamCoef.
func coef(c reg.Register, fields ...int) []reg.VecVirtual {
	var out []reg.VecVirtual
	for _, f := range fields {
		y := YMM()
		VBROADCASTSS(Mem{Base: c, Disp: 4 * f}, y)
		out = append(out, y)
	}
	return out
}

// elements is a loop over elements, eight at a time; body gets the address of those of a slice.
func elements(n reg.Register, body func(at func(base reg.Register) Mem)) {
	i := GP64()
	XORQ(i, i)
	Label("loop")
	body(func(base reg.Register) Mem { return Mem{Base: base, Index: i, Scale: 4} })
	ADDQ(U8(8), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// adamVectors are the coefficients that every step of Adam has.
type adamVectors struct{ b1, ob1, b2, ob2, c1, c2, rate, eps, decay reg.VecVirtual }

func adamCoefs(c reg.Register) adamVectors {
	k := coef(c, coefB1, coefOB1, coefB2, coefOB2, coefC1, coefC2, coefRate, coefEps, coefDecay)
	return adamVectors{k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]}
}

// means takes the gradient x into the means at m and v and leaves their quotient in m1, with the roundings of
// adamwPortable.
func (k adamVectors) means(m, v Mem, x, m1, v1, t reg.VecVirtual) {
	VMULPS(m, k.b1, m1)
	VMULPS(x, k.ob1, t)
	VADDPS(t, m1, m1)
	VMOVUPS(m1, m)
	VMULPS(x, x, t)
	VMULPS(t, k.ob2, t)
	VMULPS(v, k.b2, v1)
	VADDPS(t, v1, v1)
	VMOVUPS(v1, v)
	VMULPS(k.c2, v1, v1)
	VSQRTPS(v1, v1)
	VADDPS(k.eps, v1, v1)
	VMULPS(k.c1, m1, m1)
	VDIVPS(v1, m1, m1)
}

// adam is a step of AdamW or, with the decay in the gradient, of Adam.
func adam(name string, coupled bool) {
	TEXT(name, NOSPLIT, "func(p, m, v, grad *float32, n int, c *float32)")
	Pragma("noescape")
	Doc(name + " is kernels." + name[:len(name)-1] + " for n elements, a positive multiple of 8; c are the fields of adamCoef.")
	p, m, v, g := word("p"), word("m"), word("v"), word("grad")
	n, c := word("n"), word("c")
	k := adamCoefs(c)
	factor := coef(c, coefFactor)[0]
	x, m1, v1, w, t := YMM(), YMM(), YMM(), YMM(), YMM()
	elements(n, func(at func(reg.Register) Mem) {
		VMULPS(at(g), factor, x)
		VMOVUPS(at(p), w)
		if coupled {
			VMULPS(w, k.decay, t)
			VADDPS(t, x, x)
		}
		k.means(at(m), at(v), x, m1, v1, t)
		if !coupled {
			VMULPS(w, k.decay, t)
			VADDPS(t, m1, m1)
		}
		VMULPS(k.rate, m1, m1)
		VSUBPS(m1, w, w)
		VMOVUPS(w, at(p))
	})
}

// descent is a step of gradient descent: plain, with momentum, or with Nesterov's.
func descent(name string, momentum, nesterov bool) {
	if momentum {
		TEXT(name, NOSPLIT, "func(p, u, grad *float32, n int, c *float32)")
	} else {
		TEXT(name, NOSPLIT, "func(p, grad *float32, n int, c *float32)")
	}
	Pragma("noescape")
	Doc(name + " is kernels." + name[:len(name)-1] + " for n elements, a positive multiple of 8; c are the fields of adamCoef.")
	p, g := word("p"), word("grad")
	n, c := word("n"), word("c")
	k := coef(c, coefRate, coefDecay, coefFactor, coefMomentum)
	lr, decay, factor, mu := k[0], k[1], k[2], k[3]
	var u reg.Register
	if momentum {
		u = word("u")
	}
	x, w, t := YMM(), YMM(), YMM()
	elements(n, func(at func(reg.Register) Mem) {
		VMULPS(at(g), factor, x)
		VMOVUPS(at(p), w)
		VMULPS(w, decay, t)
		VADDPS(t, x, x)
		if momentum {
			VMULPS(at(u), mu, t)
			VADDPS(x, t, t)
			VMOVUPS(t, at(u))
			if nesterov {
				VMULPS(mu, t, t)
				VADDPS(t, x, x)
			} else {
				VMOVAPS(t, x)
			}
		}
		VMULPS(lr, x, x)
		VSUBPS(x, w, w)
		VMOVUPS(w, at(p))
	})
}

func adagrad() {
	TEXT("adagradDecayed8", NOSPLIT, "func(p, s, grad *float32, n int, c *float32)")
	Pragma("noescape")
	Doc("adagradDecayed8 is kernels.adagrad for n elements, a positive multiple of 8; c are the fields of adamCoef.")
	p, s, g := word("p"), word("s"), word("grad")
	n, c := word("n"), word("c")
	k := coef(c, coefRate, coefEps, coefDecay, coefFactor)
	lr, eps, decay, factor := k[0], k[1], k[2], k[3]
	x, w, t := YMM(), YMM(), YMM()
	elements(n, func(at func(reg.Register) Mem) {
		VMULPS(at(g), factor, x)
		VMOVUPS(at(p), w)
		VMULPS(w, decay, t)
		VADDPS(t, x, x)
		VMULPS(x, x, t)
		VADDPS(at(s), t, t)
		VMOVUPS(t, at(s))
		VSQRTPS(t, t)
		VADDPS(eps, t, t)
		VDIVPS(t, x, x)
		VMULPS(lr, x, x)
		VSUBPS(x, w, w)
		VMOVUPS(w, at(p))
	})
}

func sumSquares() {
	TEXT("sumSquares16", NOSPLIT, "func(sums, x *float32, n int)")
	Pragma("noescape")
	Doc("sumSquares16 adds the squares of n elements, a positive multiple of 16, to sixteen lanes.")
	sums, x, n := word("sums"), word("x"), word("n")
	acc, t := [2]reg.VecVirtual{YMM(), YMM()}, [2]reg.VecVirtual{YMM(), YMM()}
	for v := range acc {
		VMOVUPS(Mem{Base: sums, Disp: 32 * v}, acc[v])
	}
	i := GP64()
	XORQ(i, i)
	Label("loop")
	for v := range acc {
		VMOVUPS(Mem{Base: x, Index: i, Scale: 4, Disp: 32 * v}, t[v])
		VMULPS(t[v], t[v], t[v])
		VADDPS(t[v], acc[v], acc[v])
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

func average() {
	TEXT("average8", NOSPLIT, "func(avg, p *float32, rate float32, n int)")
	Pragma("noescape")
	Doc("average8 is kernels.average for n elements, a positive multiple of 8.")
	avg, p, n := word("avg"), word("p"), word("n")
	rate, x, a := YMM(), YMM(), YMM()
	broadcastArg("rate", rate)
	elements(n, func(at func(reg.Register) Mem) {
		VMOVUPS(at(avg), a)
		VMOVUPS(at(p), x)
		VSUBPS(a, x, x)
		VMULPS(rate, x, x)
		VADDPS(x, a, a)
		VMOVUPS(a, at(avg))
	})
}
