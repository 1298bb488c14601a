package ranking

import (
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
)

// gramOf is y'y of n rows of y, with the regularization on the diagonal, and 1 there past the factors, so that the
// padding is an equation of its own, x = 0. It is width x width, symmetric. Sums are in float64: with fewer rows than
// factors, the regularization alone keeps the matrix positive, and float32 sums are coarser than that. Partial sums of
// gramRows rows are summed in order, so that threads do not matter.
func gramOf(p path, y table, n, factors int, regularization float32, threads int) *gram {
	w := y.width
	chunks := (n + gramRows - 1) / gramRows
	parts := make([][]float64, chunks)
	parallel(threads, chunks, func() func(int) {
		left, right := aligned[float64](roundUp(w, 6)*gramBlock), aligned[float64](w*gramBlock)
		return func(c int) {
			part := aligned[float64](roundUp(w, 6) * w) // with the rows of the last tile that are past the end
			lo, hi := c*gramRows, min((c+1)*gramRows, n)
			for k0 := lo; k0 < hi; k0 += gramBlock {
				k := min(gramBlock, hi-k0)
				for q := range k {
					for j, v := range y.row(k0 + q) {
						left[(j/6*k+q)*6+j%6] = float64(v)
						right[(j/vector*k+q)*vector+j%vector] = float64(v)
					}
				}
				for i := 0; i < w; i += 6 {
					for j := i &^ (vector - 1); j < w; j += vector {
						p.tile64(left[i*k:][:6*k], right[j*k:], part[i*w+j:], w, k)
					}
				}
			}
			parts[c] = part
		}
	})
	sum := make([]float64, w*w)
	for _, part := range parts {
		for i, x := range part[:w*w] {
			sum[i] += x
		}
	}
	for i := range w {
		if i < factors {
			sum[i*w+i] += float64(regularization)
		} else {
			sum[i*w+i] = 1
		}
	}
	g := &gram{float32: aligned[float32](w * w), float64: sum}
	for i := range w {
		for j := i; j < w; j++ {
			sum[j*w+i] = sum[i*w+j]
			g.float32[i*w+j] = float32(sum[i*w+j])
			g.float32[j*w+i] = g.float32[i*w+j]
		}
	}
	return g
}

// gram is the part of the normal equations that all rows have in common.
type gram struct {
	float32 []float32
	float64 []float64
}

// Blocks of gramOf: a partial sum for 4,096 rows, which are made float64 128 at a time (128 KiB at 64 factors).
const (
	gramRows  = 4096
	gramBlock = 128
)

// upper adds a'b, for k rows of a and b, to the blocks of c (w x w) that hold its upper triangle.
func (p path) upper(a, b, c []float32, w, k int) {
	for i := 0; i < w; i += 4 {
		for j := i &^ (tileWidth - 1); j < w; j += tileWidth {
			p.tile(4, tileWidth, a[i:], 1, w, b[j:], w, c[i*w+j:], w, k)
		}
	}
}

// solver solves one row at a time for the factors of the other side.
type solver struct {
	path     path
	y        table
	gram     *gram
	r, p, ap []float32
	// For the exact solution.
	matrix, negative []float32 // the factor U of the row's matrix U'U, and -U
	rows, weighted   []float32 // solveRows rows of y, and each times c-1
}

// solveRows is how many rows an update of the matrix takes at a time: 32 KiB at 64 factors.
const solveRows = 128

func newSolver(p path, y table, g *gram) *solver {
	w := y.width
	v := aligned[float32](3 * w)
	return &solver{path: p, y: y, gram: g, r: v[:w:w], p: v[w : 2*w : 2*w], ap: v[2*w:]}
}

// multiply: out = gram v, each element one chain over the rows of gram.
func (s *solver) multiply(out, v []float32) {
	w := s.y.width
	clear(out)
	j := 0
	for ; w-j >= 64; j += 64 {
		s.path.tile(1, 64, v, w, 1, s.gram.float32[j:], w, out[j:], w, w)
	}
	for ; j < w; j += 16 {
		s.path.tile(1, 16, v, w, 1, s.gram.float32[j:], w, out[j:], w, w)
	}
}

// settled is the square of a residual below which a row is solved, as in implicit.
const settled = 1e-20

// conjugate does steps of conjugate gradients from x. The row's matrix is never made: its product with a vector is
// that of gram and a pass over the row's cells.
func (s *solver) conjugate(x []float32, index []int32, weight []float32, steps int) {
	p := s.path
	s.multiply(s.r, x)
	for i, v := range s.r {
		s.r[i] = -v
	}
	p.residual(s.y, index, weight, x, s.r)
	copy(s.p, s.r)
	rs := p.dot(s.r, s.r)
	for step := 0; step < steps && rs >= settled; step++ {
		s.multiply(s.ap, s.p)
		p.product(s.y, index, weight, s.p, s.ap)
		alpha := rs / p.dot(s.p, s.ap)
		p.axpy(x, s.p, alpha)
		if step == steps-1 {
			break
		}
		p.axpy(s.r, s.ap, -alpha)
		next := p.dot(s.r, s.r)
		beta := next / rs
		for i, v := range s.p {
			s.p[i] = s.r[i] + float32(beta*v)
		}
		rs = next
	}
}

// exact solves the row by Cholesky's factorisation; false where its matrix is not positive definite. float32 is too
// coarse for some: rows with fewer cells than factors and a regularization that is small beside the confidences. Those
// are solved again in float64, which takes several times as long.
func (s *solver) exact(x []float32, index []int32, weight []float32) bool {
	return s.exact32(x, index, weight) || s.exact64(x, index, weight)
}

func (s *solver) exact32(x []float32, index []int32, weight []float32) bool {
	w := s.y.width
	if s.matrix == nil {
		s.matrix, s.negative = aligned[float32](w*w), aligned[float32](w*w)
		s.rows, s.weighted = aligned[float32](solveRows*w), aligned[float32](solveRows*w)
	}
	copy(s.matrix, s.gram.float32)
	clear(x)
	clear(s.p)
	for len(index) > 0 {
		n := min(solveRows, len(index))
		// At p = 0 the residual is the right side: each row times its confidence. It goes first, as it fetches rows ahead.
		s.path.residual(s.y, index[:n], weight[:n], s.p, x)
		for i, r := range index[:n] {
			row, scaled := s.rows[i*w:][:w], s.weighted[i*w:][:w]
			copy(row, s.y.row(int(r)))
			clear(scaled)
			s.path.axpy(scaled, row, weight[i]-1)
		}
		s.path.upper(s.weighted, s.rows, s.matrix, w, n)
		index, weight = index[n:], weight[n:]
	}
	return s.factor() && s.substitute(x)
}

// factor replaces the upper triangle of matrix by U with U'U = matrix, four rows at a time: what the rows above
// take from them is a product, the rest is done row by row.
func (s *solver) factor() bool {
	w, u, neg := s.y.width, s.matrix, s.negative
	for i0 := 0; i0 < w; i0 += 4 {
		for j := i0 &^ (tileWidth - 1); j < w; j += tileWidth {
			s.path.tile(4, tileWidth, neg[i0:], 1, w, u[j:], w, u[i0*w+j:], w, i0)
		}
		for i := i0; i < i0+4; i++ {
			row := u[i*w:][:w]
			for q := i0; q < i; q++ {
				above, f := u[q*w:][:w], u[q*w+i]
				for j := i; j < w; j++ {
					row[j] -= float32(f * above[j])
				}
			}
			pivot := row[i]
			if !(pivot > 0) || !finite(pivot) {
				return false
			}
			scale := 1 / float32(math.Sqrt(float64(pivot)))
			for j := i; j < w; j++ {
				row[j] = float32(row[j] * scale)
				neg[i*w+j] = -row[j]
			}
		}
	}
	return true
}

// exact64 is exact32 with every operation in float64.
func (s *solver) exact64(x []float32, index []int32, weight []float32) bool {
	w := s.y.width
	a, b := slices.Clone(s.gram.float64), make([]float64, w)
	for k, r := range index {
		row, c := s.y.row(int(r)), float64(weight[k])
		for i, v := range row {
			f := float64((c - 1) * float64(v))
			for j := i; j < w; j++ {
				a[i*w+j] += float64(f * float64(row[j]))
			}
			b[i] += float64(c * float64(v))
		}
	}
	if factorSmall(a, w) >= 0 {
		return false
	}
	for i := range w { // U'z = b
		b[i] /= a[i*w+i]
		for j := i + 1; j < w; j++ {
			b[j] -= float64(b[i] * a[i*w+j])
		}
	}
	for i := w - 1; i >= 0; i-- { // U x = z
		for j := i + 1; j < w; j++ {
			b[i] -= float64(a[i*w+j] * b[j])
		}
		b[i] /= a[i*w+i]
		x[i] = float32(b[i])
	}
	return allFinite(x)
}

func allFinite(x []float32) bool {
	for _, v := range x {
		if !finite(v) {
			return false
		}
	}
	return true
}

// substitute solves U'U x = b in place.
func (s *solver) substitute(x []float32) bool {
	w, u := s.y.width, s.matrix
	for i := range w {
		row := u[i*w:][:w]
		x[i] /= row[i]
		f := x[i]
		for j := i + 1; j < w; j++ {
			x[j] -= float32(f * row[j])
		}
	}
	for i := w - 1; i >= 0; i-- {
		row := u[i*w:][:w]
		var sums [4]float32 // four chains hide the latency of the addition
		j := i + 1
		for ; j+4 <= w; j += 4 {
			sums[0] += float32(row[j] * x[j])
			sums[1] += float32(row[j+1] * x[j+1])
			sums[2] += float32(row[j+2] * x[j+2])
			sums[3] += float32(row[j+3] * x[j+3])
		}
		for ; j < w; j++ {
			sums[0] += float32(row[j] * x[j])
		}
		x[i] = (x[i] - ((sums[0] + sums[1]) + (sums[2] + sums[3]))) / row[i]
	}
	return allFinite(x)
}

// FoldIn makes vectors of users that a model has not seen, from their items. It may be used from several goroutines.
type FoldIn struct {
	path    path
	items   table
	n       int // items
	factors int
	alpha   float32
	gram    *gram

	mu   sync.Mutex
	idle []*folder // memory of calls that are over
}

type folder struct {
	solver *solver
	x      []float32
	index  []int32
	weight []float32
}

// NewFoldIn prepares for a model's items.
func NewFoldIn(m *ALS) (*FoldIn, error) {
	p, err := choosePath(os.Getenv("ONMART_CPU"))
	if err != nil {
		return nil, err
	}
	o, err := ALSOptions{Factors: m.Factors, Regularization: m.Regularization, Alpha: m.Alpha}.defaults()
	if err != nil {
		return nil, err
	}
	if len(m.Items)%o.Factors != 0 {
		return nil, fmt.Errorf("ranking: %d numbers are no vectors of %d", len(m.Items), o.Factors)
	}
	f := &FoldIn{path: p, n: len(m.Items) / o.Factors, factors: o.Factors, alpha: o.Alpha}
	width := roundUp(o.Factors, tileWidth)
	f.items = table{aligned[float32]((f.n + 1) * width), width}
	for i := range f.n {
		row := f.items.row(i)
		for j, v := range m.Items[i*o.Factors:][:o.Factors] {
			if !finite(v) {
				return nil, fmt.Errorf("ranking: item %d, factor %d is %v: want a finite number", i, j, v)
			}
			row[j] = v
		}
	}
	f.gram = gramOf(p, f.items, f.n, o.Factors, o.Regularization, 0)
	return f, nil
}

func (f *FoldIn) take() *folder {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.idle) - 1; n >= 0 {
		w := f.idle[n]
		f.idle = f.idle[:n]
		return w
	}
	return &folder{solver: newSolver(f.path, f.items, f.gram), x: make([]float32, f.items.width)}
}

func (f *FoldIn) give(w *folder) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = append(f.idle, w)
}

// User returns in dst[:0] the vector that training with this user's cells would give him while the items stay as
// they are, exactly: items, distinct, and their values, as in a row of the training's matrix. Without items it is 0.
// It allocates nothing where dst has room, after the first calls.
func (f *FoldIn) User(dst []float32, items []int32, values []float32) ([]float32, error) {
	if len(items) != len(values) {
		return nil, fmt.Errorf("ranking: %d items with %d values: want one each", len(items), len(values))
	}
	w := f.take()
	defer f.give(w)
	w.index, w.weight = w.index[:0], w.weight[:0]
	for i, item := range items {
		if item < 0 || int(item) >= f.n {
			return nil, fmt.Errorf("ranking: item %d is not among the model's %d: leave it out", item, f.n)
		}
		if v := values[i]; v < 0 || !finite(v) {
			return nil, fmt.Errorf("ranking: item %d has the value %v: want a finite one that is not negative", item, v)
		} else if v != 0 {
			w.index, w.weight = append(w.index, item), append(w.weight, f.alpha*v)
		}
	}
	for len(w.index)%vector != 0 {
		w.index, w.weight = append(w.index, int32(f.n)), append(w.weight, 0)
	}
	w.index = slices.Grow(w.index, vector) // as the kernel wants it
	if len(w.index) == 0 {
		clear(w.x)
	} else if !w.solver.exact(w.x, w.index, w.weight) {
		return nil, fmt.Errorf("ranking: the equations of a user with %d items are singular: raise Regularization",
			len(items))
	}
	return append(dst[:0], w.x[:f.factors]...), nil
}
