package cpu

import (
	"math"

	"github.com/onmart/onmart/train/program"
)

// The functions of Map, in float32. What is written here is the definition that every path of the processor follows:
// the vector code does the same roundings in the same order. madd is one fused multiply-add, and a conversion to
// float32 around a product keeps the compiler from fusing it with what follows. TestFunctions holds each against
// float64 and names the greatest error it finds.

// exp of x is 2^n exp(r) with n = round(x / ln 2), |r| <= ln(2)/2, the polynomial being that of siluExp; 2^n is
// multiplied on in two halves, so that a result below the normal range is rounded once and one above it becomes +Inf.
const (
	expLow  = -104 // exp of less is below half of the smallest float32
	expHigh = 89   // exp of more is above the greatest
	expBias = 127
)

func exp32(x float32) float32 {
	if x < expLow {
		x = expLow
	}
	if x > expHigh {
		x = expHigh
	}
	k := madd(x, siluLog2e, siluMagic)
	n := k - siluMagic
	r := madd(n, -siluLn2Lo, madd(n, -siluLn2Hi, x)) // x - n ln 2
	q := madd(siluQ4, -r, siluQ3)
	q = madd(q, -r, siluQ2)
	q = madd(q, -r, siluQ1)
	q = madd(q, -r, siluQ0)
	p := madd(float32(r*r), q, r) + 1
	whole := int32(math.Float32bits(k)) - int32(math.Float32bits(siluMagic))
	half := whole >> 1
	return float32(p*power(half)) * power(whole-half)
}

// power is 2^n for n within the normal range.
func power(n int32) float32 { return math.Float32frombits(uint32(n+expBias) << 23) }

// log of x = 2^e m, sqrt(1/2) <= m < sqrt(2), is e ln 2 + log(1+f) with f = m - 1, which is exact; the polynomial is
// that of Moshier's Cephes (logf.c), ln 2 is in two parts, the first of which times e is exact.
const (
	logSqrtHalf = 0x3f3504f3 // bits of sqrt(1/2)
	logLn2Hi    = 0.693359375
	logLn2Lo    = -2.12194440e-4
	logP0       = 7.0376836292e-2
	logP1       = -1.1514610310e-1
	logP2       = 1.1676998740e-1
	logP3       = -1.2420140846e-1
	logP4       = 1.4249322787e-1
	logP5       = -1.6668057665e-1
	logP6       = 2.0000714765e-1
	logP7       = -2.4999993993e-1
	logP8       = 3.3333331174e-1
	logTiny     = 0x1p-126 // below it numbers have fewer bits
	logScale    = 0x1p24
)

func log32(x float32) float32 {
	switch {
	case !(x > 0) || math.IsInf(float64(x), 1):
		return logEdge(x)
	}
	var e float32
	if x < logTiny {
		x, e = x*logScale, -24
	}
	ix := int32(math.Float32bits(x)) - logSqrtHalf
	e += float32(ix >> 23)
	f := math.Float32frombits(uint32(ix&0x007fffff+logSqrtHalf)) - 1
	z := float32(f * f)
	p := madd(logP0, f, logP1)
	p = madd(p, f, logP2)
	p = madd(p, f, logP3)
	p = madd(p, f, logP4)
	p = madd(p, f, logP5)
	p = madd(p, f, logP6)
	p = madd(p, f, logP7)
	p = madd(p, f, logP8)
	y := float32(float32(p*f) * z)
	y = madd(e, logLn2Lo, y)
	y = madd(z, -.5, y)
	return madd(e, logLn2Hi, f+y)
}

// logEdge is the logarithm of 0, of +Inf, and of what has none.
func logEdge(x float32) float32 {
	switch {
	case x == 0:
		return float32(math.Inf(-1))
	case x > 0:
		return x
	}
	return float32(math.NaN())
}

// log1p corrects for the rounding of 1+x (Kahan's way, as in Goldberg 1991, theorem 4).
func log1p32(x float32) float32 {
	u := 1 + x
	d := u - 1
	if d == 0 || math.IsInf(float64(u), 1) {
		return x
	}
	return log32(u) * (x / d)
}

// expm1 corrects for the rounding of exp(x) in the same way.
func expm132(x float32) float32 {
	u := exp32(x)
	d := u - 1
	switch {
	case d == 0:
		return x
	case d == -1 || math.IsInf(float64(u), 1):
		return d
	}
	return d * (x / log32(u))
}

// tanh below tanhSmall is the odd polynomial of Cephes (tanhf.c), above it 1 - 2 / (exp(2|x|) + 1).
const (
	tanhSmall = .625
	tanhP0    = -5.70498872745e-3
	tanhP1    = 2.06390887954e-2
	tanhP2    = -5.37397155531e-2
	tanhP3    = 1.33314422036e-1
	tanhP4    = -3.33332819422e-1
)

func tanh32(x float32) float32 {
	a := float32(math.Abs(float64(x)))
	if a < tanhSmall {
		z := float32(x * x)
		p := madd(tanhP0, z, tanhP1)
		p = madd(p, z, tanhP2)
		p = madd(p, z, tanhP3)
		p = madd(p, z, tanhP4)
		return madd(float32(p*z), x, x)
	}
	t := 1 - 2/(exp32(2*a)+1)
	return float32(math.Copysign(float64(t), float64(x)))
}

func sigmoid32(x float32) float32 { return 1 / (1 + exp32(-x)) }

func softplus32(x float32) float32 {
	var m float32
	if x > 0 {
		m = x
	}
	return m + log1p32(exp32(-float32(math.Abs(float64(x))))) // NaN comes through here
}

func sign32(x float32) float32 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}

// relu32 does as the micro-kernel does: -0 and NaN stay.
func relu32(x float32) float32 {
	if x < 0 {
		return 0
	}
	return x
}

func silu32(x float32) float32 {
	low, _, e := siluExp(x)
	return low / (1 + e)
}

// truth is 1 or 0.
func truth(b bool) float32 {
	if b {
		return 1
	}
	return 0
}

// unary32 and binary32 are every function by its name.
var unary32 = map[program.Fn]func(float32) float32{
	program.FnNeg:      func(x float32) float32 { return -x },
	program.FnAbs:      func(x float32) float32 { return float32(math.Abs(float64(x))) },
	program.FnSign:     sign32,
	program.FnSquare:   func(x float32) float32 { return x * x },
	program.FnCube:     func(x float32) float32 { return float32(x*x) * x },
	program.FnSqrt:     sqrt32,
	program.FnInv:      func(x float32) float32 { return 1 / x },
	program.FnRsqrt:    func(x float32) float32 { return 1 / sqrt32(x) },
	program.FnFloor:    func(x float32) float32 { return float32(math.Floor(float64(x))) },
	program.FnCeil:     func(x float32) float32 { return float32(math.Ceil(float64(x))) },
	program.FnExp:      exp32,
	program.FnLog:      log32,
	program.FnLog1p:    log1p32,
	program.FnExpm1:    expm132,
	program.FnTanh:     tanh32,
	program.FnSigmoid:  sigmoid32,
	program.FnSoftplus: softplus32,
	program.FnRelu:     relu32,
	program.FnSilu:     silu32,
	program.FnSin:      func(x float32) float32 { return float32(math.Sin(float64(x))) },
	program.FnCos:      func(x float32) float32 { return float32(math.Cos(float64(x))) },
	program.FnLog2:     func(x float32) float32 { return float32(math.Log2(float64(x))) },
}

var binary32 = map[program.Fn]func(a, b float32) float32{
	program.FnAdd: func(a, b float32) float32 { return a + b },
	program.FnSub: func(a, b float32) float32 { return a - b },
	program.FnMul: func(a, b float32) float32 { return a * b },
	program.FnDiv: func(a, b float32) float32 { return a / b },
	program.FnPow: func(a, b float32) float32 { return float32(math.Pow(float64(a), float64(b))) },
	program.FnMax: func(a, b float32) float32 {
		if a > b {
			return a
		}
		return b
	},
	program.FnMin: func(a, b float32) float32 {
		if a < b {
			return a
		}
		return b
	},
	program.FnLt: func(a, b float32) float32 { return truth(a < b) },
	program.FnGt: func(a, b float32) float32 { return truth(a > b) },
	program.FnLe: func(a, b float32) float32 { return truth(a <= b) },
	program.FnGe: func(a, b float32) float32 { return truth(a >= b) },
	program.FnEq: func(a, b float32) float32 { return truth(a == b) },
	program.FnNe: func(a, b float32) float32 { return truth(a != b) },
}

// sqrt32 is correctly rounded: a root in float64 of a float32 is never a tie of float32.
func sqrt32(x float32) float32 { return float32(math.Sqrt(float64(x))) }

// vectorFn computes a function over equally long slices; b is nil for one of one value, and y may be a or b.
type vectorFn func(y, a, b []float32)

// portableFns are every function, an element at a time.
func portableFns() map[program.Fn]vectorFn {
	fns := map[program.Fn]vectorFn{}
	for fn, f := range unary32 {
		fns[fn] = func(y, a, _ []float32) {
			a = a[:len(y)]
			for i, x := range a {
				y[i] = f(x)
			}
		}
	}
	for fn, f := range binary32 {
		fns[fn] = func(y, a, b []float32) {
			a, b = a[:len(y)], b[:len(y)]
			for i, x := range a {
				y[i] = f(x, b[i])
			}
		}
	}
	return fns
}
