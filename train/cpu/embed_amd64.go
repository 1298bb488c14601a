package cpu

import "unsafe"

func avx2Embed() embedKernels {
	return embedKernels{dot: dotAVX2, weighted: weightedAVX2, sums: sumsAVX2, ask: askAVX2, adam: adamRowsAVX2,
		shrink: shrinkAVX2, adagrad: adagradAVX2, candidates: candidatesAVX2, terms: termsAVX2,
		uniforms: uniformsAVX2}
}

func dotAVX2(s, table, idx, a []float32, rows, w, d int) {
	if m := len(s) / w; m > 0 {
		_, _, _ = idx[m*w-1], table[rows*d-1], a[m*d-1]
		lookupDot16(&s[0], &table[0], &idx[0], &a[0], m, w, len(idx), rows, d)
	}
}

func weightedAVX2(y, table, idx, s []float32, rows, w, d int) {
	if m := len(s) / w; m > 0 {
		_, _, _ = idx[m*w-1], table[rows*d-1], y[m*d-1]
		lookupWeighted8(&y[0], &table[0], &idx[0], &s[0], m, w, rows, d)
	}
}

func spansAt(spans []span) *int32 { return &spans[0].row }

func sumsAVX2(g []float32, spans []span, list []entry, sources [][]float32, d int) {
	if n := len(spans) - 1; n > 0 {
		_, _ = g[n*d-1], list[spans[n].at-1]
		sumRows8(&g[0], spansAt(spans), n, (*int32)(unsafe.Pointer(&list[0])), &sources[0], d)
	}
}

func askAVX2(x []float32, spans []span, d int) {
	if len(spans) > 0 {
		askRows(&x[0], spansAt(spans), len(spans), d)
	}
}

func adamRowsAVX2(p, m, v, g []float32, spans []span, d int, c *adamCoef) {
	if len(spans) == 0 {
		return
	}
	if d%8 == 0 {
		_ = g[len(spans)*d-1]
		adamRows8(&p[0], &m[0], &v[0], &g[0], spansAt(spans), len(spans), d, &c.b1)
		return
	}
	for k, s := range spans {
		lo, hi := int(s.row)*d, int(s.row+1)*d
		adamwAVX2(p[lo:hi], m[lo:hi], v[lo:hi], g[k*d:(k+1)*d], c)
	}
}

func shrinkAVX2(p, g []float32, by, lr, decay float32) {
	g = g[:len(p)]
	n := len(p) &^ 7
	if n > 0 {
		shrink8(&p[0], &g[0], by, lr, decay, n)
	}
	shrinkPortable(p[n:], g[n:], by, lr, decay)
}

func adagradAVX2(p, acc, g []float32, eps, lr, decay float32) {
	acc, g = acc[:len(p)], g[:len(p)]
	n := len(p) &^ 7
	if n > 0 {
		adagrad8(&p[0], &acc[0], &g[0], eps, lr, decay, n)
	}
	adagradPortable(p[n:], acc[n:], g[n:], eps, lr, decay)
}

func candidatesAVX2(grad, s, idx, weight []float32, w int, c float32, bpr bool, o *outcome) {
	m := len(weight)
	if m == 0 {
		return
	}
	_, _, _, _ = grad[m*w-1], s[m*w-1], idx[m*w-1], o.all[m-1]
	if bpr {
		candidateBPR16(&grad[0], &s[0], &idx[0], &weight[0], &o.all[0], m, w, c)
	} else {
		candidateSoftmax16(&grad[0], &s[0], &idx[0], &weight[0], &o.all[0], m, w, c)
	}
}

func termsAVX2(terms []float32, o *outcome) {
	if len(terms) == candidateBlock {
		candidateTerms8(&terms[0], &o.all[0])
		return
	}
	var all [candidateBlock]float32
	candidateTerms8(&all[0], &o.all[0])
	copy(terms, all[:])
}

func uniformsAVX2(u []float32, block int, seed uint64, step, site uint32) {
	uniformsBy(uniforms32, 32, u, block, seed, step, site)
}

// uniformsBy takes groups of so many elements.
func uniformsBy(by func(u *float32, groups int, block, key0, key1, step, site uint32), group int, u []float32, block int,
	seed uint64, step, site uint32) {
	groups := len(u) / group
	if block+group/4*groups >= 1<<32 {
		groups = 0
	}
	if groups > 0 {
		by(&u[0], groups, uint32(block), uint32(seed), uint32(seed>>32), step, site)
	}
	uniformsPortable(u[group*groups:], block+group/4*groups, seed, step, site)
}
