package cpu

import "github.com/onmart/onmart/train/program"

// avx2Fns are the functions of Map by vectors, what is left over one element at a time; those without a kernel are
// computed in float64 by either path.
func avx2Fns() map[program.Fn]vectorFn {
	fns := portableFns()
	for fn, kernel := range map[program.Fn]func(y, a *float32, n int){
		program.FnNeg: negFn8, program.FnAbs: absFn8, program.FnSign: signFn8, program.FnSquare: squareFn8, program.FnCube: cubeFn8,
		program.FnSqrt: sqrtFn8, program.FnInv: invFn8, program.FnRsqrt: rsqrtFn8, program.FnFloor: floorFn8, program.FnCeil: ceilFn8,
		program.FnExp: expFn8, program.FnLog: logFn8, program.FnLog1p: log1pFn8, program.FnExpm1: expm1Fn8, program.FnTanh: tanhFn8,
		program.FnSigmoid: sigmoidFn8, program.FnSoftplus: softplusFn8, program.FnRelu: reluFn8, program.FnSilu: silu8,
	} {
		one := unary32[fn]
		fns[fn] = func(y, a, _ []float32) {
			a = a[:len(y)]
			n := len(y) &^ 7
			if n > 0 {
				kernel(&y[0], &a[0], n)
			}
			for i := n; i < len(y); i++ {
				y[i] = one(a[i])
			}
		}
	}
	for fn, kernel := range map[program.Fn]func(y, a, b *float32, n int){
		program.FnSub: subFn8, program.FnMul: mulFn8, program.FnDiv: divFn8, program.FnMax: maxFn8,
		program.FnMin: minFn8, program.FnLt: ltFn8, program.FnGt: gtFn8, program.FnLe: leFn8, program.FnGe: geFn8,
		program.FnEq: eqFn8, program.FnNe: neFn8,
	} {
		one := binary32[fn]
		fns[fn] = func(y, a, b []float32) {
			a, b = a[:len(y)], b[:len(y)]
			n := len(y) &^ 7
			if n > 0 {
				kernel(&y[0], &a[0], &b[0], n)
			}
			for i := n; i < len(y); i++ {
				y[i] = one(a[i], b[i])
			}
		}
	}
	fns[program.FnAdd] = addAVX2
	return fns
}

func addToAVX2(y, x []float32, c float32) {
	x = x[:len(y)]
	n := len(y) &^ 7
	if n > 0 {
		addTo8(&y[0], &x[0], c, n)
	}
	addToPortable(y[n:], x[n:], c)
}

func laneSumAVX2(x []float32) float32 {
	var sums lanes
	n := len(x) &^ 15
	if n > 0 {
		laneSum16(&sums[0], &x[0], n)
	}
	for i, v := range x[n:] {
		sums[i] += v
	}
	return sums.sum()
}

func extremeAVX2(fold program.Fold, x []float32) float32 {
	n := len(x) &^ 7
	if n == 0 {
		return extremePortable(fold, x)
	}
	var m [8]float32
	copy(m[:], x)
	if fold == program.Max {
		maxLanes8(&m[0], &x[0], n)
	} else {
		minLanes8(&m[0], &x[0], n)
	}
	top := extremePortable(fold, m[:])
	for _, v := range x[n:] {
		top = extreme32(fold, top, v)
	}
	return top + 0
}
