package cpu

func avx2Optim() optimKernels {
	return optimKernels{
		adamw: adamwAVX2, adam: adamAVX2, sgd: sgdAVX2, momentum: momentumAVX2, nesterov: nesterovAVX2, adagrad: adagradDecayedAVX2,
		sumSquares: sumSquaresAVX2, average: averageAVX2,
	}
}

func adamwAVX2(p, m, v, g []float32, c *adamCoef) {
	p, m, v = p[:len(g)], m[:len(g)], v[:len(g)]
	n := len(g) &^ 7
	if n > 0 {
		adamw8(&p[0], &m[0], &v[0], &g[0], n, &c.b1)
	}
	adamwPortable(p[n:], m[n:], v[n:], g[n:], c)
}

func adamAVX2(p, m, v, g []float32, c *adamCoef) {
	p, m, v = p[:len(g)], m[:len(g)], v[:len(g)]
	n := len(g) &^ 7
	if n > 0 {
		adam8(&p[0], &m[0], &v[0], &g[0], n, &c.b1)
	}
	adamPortable(p[n:], m[n:], v[n:], g[n:], c)
}

func sgdAVX2(p, _, _, g []float32, c *adamCoef) {
	p = p[:len(g)]
	n := len(g) &^ 7
	if n > 0 {
		sgd8(&p[0], &g[0], n, &c.b1)
	}
	sgdPortable(p[n:], nil, nil, g[n:], c)
}

func momentumAVX2(p, u, _, g []float32, c *adamCoef) {
	p, u = p[:len(g)], u[:len(g)]
	n := len(g) &^ 7
	if n > 0 {
		momentum8(&p[0], &u[0], &g[0], n, &c.b1)
	}
	momentumPortable(p[n:], u[n:], nil, g[n:], c)
}

func nesterovAVX2(p, u, _, g []float32, c *adamCoef) {
	p, u = p[:len(g)], u[:len(g)]
	n := len(g) &^ 7
	if n > 0 {
		nesterov8(&p[0], &u[0], &g[0], n, &c.b1)
	}
	nesterovPortable(p[n:], u[n:], nil, g[n:], c)
}

func adagradDecayedAVX2(p, s, _, g []float32, c *adamCoef) {
	p, s = p[:len(g)], s[:len(g)]
	n := len(g) &^ 7
	if n > 0 {
		adagradDecayed8(&p[0], &s[0], &g[0], n, &c.b1)
	}
	adagradDecayedPortable(p[n:], s[n:], nil, g[n:], c)
}

func sumSquaresAVX2(x []float32) float32 {
	var sums lanes
	n := len(x) &^ 15
	if n > 0 {
		sumSquares16(&sums[0], &x[0], n)
	}
	for i, v := range x[n:] {
		sums[i] += float32(v * v)
	}
	return sums.sum()
}

func averageAVX2(avg, p []float32, rate float32) {
	p = p[:len(avg)]
	n := len(avg) &^ 7
	if n > 0 {
		average8(&avg[0], &p[0], rate, n)
	}
	averagePortable(avg[n:], p[n:], rate)
}
