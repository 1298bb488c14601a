package forecast

import "math"

// goldenSection minimises f over [lo, hi] to within tol, with at most 100 evaluations.
func goldenSection(f func(float64) float64, lo, hi, tol float64) float64 {
	const r = 0.6180339887498949 // 1 / golden ratio
	a, b := lo, hi
	x1, x2 := b-r*(b-a), a+r*(b-a)
	f1, f2 := f(x1), f(x2)
	for range 100 {
		if b-a < tol {
			break
		}
		if f1 < f2 {
			b, x2, f2 = x2, x1, f1
			x1 = b - r*(b-a)
			f1 = f(x1)
		} else {
			a, x1, f1 = x1, x2, f2
			x2 = a + r*(b-a)
			f2 = f(x2)
		}
	}
	return (a + b) / 2
}

// gridThenGolden looks at n+1 points of [lo, hi] and searches around the best: for functions with several minima.
func gridThenGolden(f func(float64) float64, lo, hi float64, n int, tol float64) float64 {
	best, at := math.Inf(1), 0
	for i := 0; i <= n; i++ {
		if v := f(lo + (hi-lo)*float64(i)/float64(n)); v < best {
			best, at = v, i
		}
	}
	w := (hi - lo) / float64(n)
	a, b := max(lo, lo+w*float64(at-1)), min(hi, lo+w*float64(at+1))
	x := goldenSection(f, a, b, tol)
	// The ends are reached in the limit only.
	for _, end := range []float64{lo, hi, lo + w*float64(at)} {
		if f(end) < f(x) {
			x = end
		}
	}
	return x
}

// simplex is the method of Nelder and Mead (1965) for few dimensions.
type simplex struct {
	x     [][]float64 // dim+1 points
	f     []float64
	trial [3][]float64
}

func newSimplex(dim int) *simplex {
	s := &simplex{x: make([][]float64, dim+1), f: make([]float64, dim+1)}
	for i := range s.x {
		s.x[i] = make([]float64, dim)
	}
	for i := range s.trial {
		s.trial[i] = make([]float64, dim)
	}
	return s
}

// minimise starts at x, with steps of the given size, and leaves the best point in x. It stops after budget
// evaluations or when the values of the points differ by less than tol.
func (s *simplex) minimise(f func([]float64) float64, x []float64, step, tol float64, budget int) float64 {
	d := len(x)
	eval := func(p []float64) float64 {
		budget--
		if v := f(p); !math.IsNaN(v) {
			return v
		}
		return math.Inf(1)
	}
	for i := range s.x[:d+1] {
		copy(s.x[i], x)
		if i > 0 {
			s.x[i][i-1] += step
		}
		s.f[i] = eval(s.x[i])
	}
	for budget > 0 {
		s.sort(d)
		best, worst := s.f[0], s.f[d]
		if !(worst-best > tol) {
			break
		}
		centre, reflected, other := s.trial[0], s.trial[1], s.trial[2]
		for j := range d {
			centre[j] = 0
			for i := range d {
				centre[j] += s.x[i][j]
			}
			centre[j] /= float64(d)
			reflected[j] = 2*centre[j] - s.x[d][j]
		}
		switch fr := eval(reflected); {
		case fr < best:
			for j := range d {
				other[j] = 3*centre[j] - 2*s.x[d][j]
			}
			if fe := eval(other); fe < fr {
				s.take(d, other, fe)
			} else {
				s.take(d, reflected, fr)
			}
		case fr < s.f[d-1]:
			s.take(d, reflected, fr)
		default:
			towards := s.x[d]
			if fr < worst {
				towards = reflected
			}
			for j := range d {
				other[j] = (centre[j] + towards[j]) / 2
			}
			if fc := eval(other); fc < min(fr, worst) {
				s.take(d, other, fc)
				break
			}
			for i := 1; i <= d; i++ {
				for j := range d {
					s.x[i][j] = (s.x[i][j] + s.x[0][j]) / 2
				}
				s.f[i] = eval(s.x[i])
			}
		}
	}
	s.sort(d)
	copy(x, s.x[0])
	return s.f[0]
}

func (s *simplex) take(i int, x []float64, f float64) {
	copy(s.x[i], x)
	s.f[i] = f
}

// sort orders the d+1 points by value; equal values keep their order.
func (s *simplex) sort(d int) {
	for i := 1; i <= d; i++ {
		for j := i; j > 0 && s.f[j] < s.f[j-1]; j-- {
			s.f[j], s.f[j-1] = s.f[j-1], s.f[j]
			s.x[j], s.x[j-1] = s.x[j-1], s.x[j]
		}
	}
}

// solveSPD solves a x = b for a symmetric positive definite a (n x n, row major, lower part read) by Cholesky. a and
// b are overwritten, b with x. It reports false where a is not positive definite.
func solveSPD(a []float64, b []float64) bool {
	n := len(b)
	if !cholesky(a, n) {
		return false
	}
	solveCholesky(a, b)
	return true
}

// cholesky replaces the lower part of a by its factor.
func cholesky(a []float64, n int) bool {
	for j := range n {
		rj := a[j*n : j*n+j+1]
		d := rj[j]
		for k := range j {
			d -= rj[k] * rj[k]
		}
		if !(d > 0) {
			return false
		}
		d = math.Sqrt(d)
		rj[j] = d
		for i := j + 1; i < n; i++ {
			ri := a[i*n : i*n+j+1]
			s := ri[j]
			for k := range j {
				s -= ri[k] * rj[k]
			}
			ri[j] = s / d
		}
	}
	return true
}

func solveCholesky(a []float64, b []float64) {
	n := len(b)
	for i := range n {
		s := b[i]
		for k := range i {
			s -= a[i*n+k] * b[k]
		}
		b[i] = s / a[i*n+i]
	}
	for i := n - 1; i >= 0; i-- {
		s := b[i]
		for k := i + 1; k < n; k++ {
			s -= a[k*n+i] * b[k]
		}
		b[i] = s / a[i*n+i]
	}
}
