package ranking

import (
	"fmt"
	"math"
	"os"
	"sort"
)

// Gram is X'X of a sparse matrix X of n columns as a dense n x n matrix, row after row, symmetric: element i,j is the
// sum over rows, ascending, of the products of their values in columns i and j, in float64, each product and sum
// rounded. Threads (0: one a core) do not change a bit.
func Gram(x *Matrix, threads int) ([]float64, error) {
	if err := x.Validate(); err != nil {
		return nil, err
	}
	if err := denseSize(x.Cols); err != nil {
		return nil, err
	}
	n, t := x.Cols, x.Transpose()
	g := make([]float64, n*n)
	parallel(threads, (n+gramColumns-1)/gramColumns, func() func(int) {
		return func(job int) {
			for i := job * gramColumns; i < min((job+1)*gramColumns, n); i++ {
				rows, values := t.Row(i)
				sums := g[i*n:][:n]
				for at, r := range rows {
					cols, with := x.Row(int(r))
					from := sort.Search(len(cols), func(k int) bool { return int(cols[k]) >= i })
					v := float64(values[at])
					for k, c := range cols[from:] {
						sums[c] += float64(v * float64(with[from+k]))
					}
				}
			}
		}
	})
	mirror(g, n, threads)
	return g, nil
}

// gramColumns are the columns that a worker takes at a time.
const gramColumns = 8

// maxDense is the greatest dense matrix: 32,768 x 32,768 numbers of 8 bytes are 8 GiB.
const maxDense = 1 << 15

func denseSize(n int) error {
	if n > maxDense {
		return fmt.Errorf("ranking: a dense matrix of %d x %d numbers would take %d GiB: want at most %d items; "+
			"leave out rare ones", n, n, n*n>>27, maxDense)
	}
	return nil
}

// mirror copies the upper triangle of a (n x n) into the lower one.
func mirror(a []float64, n, threads int) {
	const block = 32 // a block of each triangle fits in the first-level cache
	blocks := (n + block - 1) / block
	parallel(threads, blocks, func() func(int) {
		return func(bi int) {
			for bj := bi; bj < blocks; bj++ {
				for i := bi * block; i < min((bi+1)*block, n); i++ {
					for j := max(bj*block, i+1); j < min((bj+1)*block, n); j++ {
						a[j*n+i] = a[i*n+j]
					}
				}
			}
		}
	})
}

// InvertSymmetric replaces a, an n x n symmetric positive definite matrix of which the upper triangle is read, by its
// inverse, both triangles. It needs about 3 n 8 bytes beside for every 96 n. Where a is not positive definite, which
// rounding can also make of one that is nearly singular, the error says at which row and a is lost. Threads (0: one a
// core) do not change a bit.
//
// It is the sweep operator (Goodnight 1979) taken 96 rows at a time: a pivot block is inverted by Cholesky's
// factorisation, its rows are multiplied by that, and a symmetric update of rank 96 goes over the upper triangle. That
// is n^3 multiplications and additions, the same as a Cholesky inverse, in one kind of loop.
func InvertSymmetric(a []float64, n, threads int) error {
	p, err := choosePath(os.Getenv("ONMART_CPU"))
	if err != nil {
		return err
	}
	return invertSymmetric(p, a, n, threads)
}

// sweepRows are the rows of a pivot block, a multiple of 6 and of 8: an update then does 96 multiplications for each
// number that it reads and writes, and a panel of 8 columns (6 KiB) stays in the first-level cache. Blocks of 192
// are no faster, measured at 6,000 rows.
const sweepRows = 96

func invertSymmetric(p path, a []float64, n, threads int) error {
	if n < 0 || len(a) != n*n {
		return fmt.Errorf("ranking: %d numbers are no matrix of %d x %d", len(a), n, n)
	}
	for i := range n {
		for j := i; j < n; j++ {
			if x := a[i*n+j]; x-x != 0 {
				return fmt.Errorf("ranking: element %d,%d of a symmetric matrix is %v: want a finite number", i, j, x)
			}
		}
	}
	s := &sweeper{path: p, a: a, n: n, threads: threads}
	wide := roundUp(n, 24) // whole tiles of 6 rows and of 8 columns
	s.left, s.right = aligned[float64](sweepRows*wide), aligned[float64](sweepRows*wide)
	s.rows, s.pivot = make([]float64, sweepRows*n), make([]float64, sweepRows*sweepRows)
	s.packed = make([]float64, sweepRows*sweepRows)
	for k := 0; k < n; k += sweepRows {
		if row := s.sweep(k, min(sweepRows, n-k)); row >= 0 {
			return fmt.Errorf("ranking: a symmetric matrix of %d rows is not positive definite at row %d: "+
				"add more to its diagonal", n, row)
		}
	}
	for i := range a {
		a[i] = -a[i]
	}
	mirror(a, n, threads)
	return nil
}

type sweeper struct {
	path    path
	a       []float64 // the upper triangle counts
	n       int
	threads int
	rows    []float64 // the pivot rows, all n columns of each
	pivot   []float64 // the inverse of the pivot block
	packed  []float64 // that in panels of 6 rows
	left    []float64 // minus the pivot rows, in panels of 6 columns
	right   []float64 // the inverse times the pivot rows, in panels of 8 columns
}

// sweep does rows k..k+b, and returns the row at which their block is not positive definite, or -1.
func (s *sweeper) sweep(k, b int) int {
	n, a := s.n, s.a
	for i := range b {
		row := s.rows[i*n:][:n]
		for j := range k + i { // above the pivot rows, and left of the diagonal, the other triangle has it
			row[j] = a[j*n+k+i]
		}
		copy(row[k+i:], a[(k+i)*n+k+i:(k+i+1)*n])
	}
	for i := range b {
		copy(s.pivot[i*b:][:b], s.rows[i*n+k:])
	}
	if row := invertSmall(s.pivot[:b*b], b); row >= 0 {
		return k + row
	}
	clear(s.packed)
	for i := range b {
		for q := range b {
			s.packed[(i/6*b+q)*6+i%6] = s.pivot[i*b+q]
		}
	}
	// The pivot's own columns take no part in the update.
	for i := range b {
		clear(s.rows[i*n+k:][:b])
	}
	panels := (n + 23) / 24
	parallel(s.threads, panels, func() func(int) {
		raw := make([]float64, 8*sweepRows)
		return func(panel int) { s.pack(panel*24, b, raw) }
	})
	// Strips of 24 rows, from the longest.
	parallel(s.threads, panels, func() func(int) {
		var edge [6 * 8]float64
		return func(strip int) {
			for j := strip * 24; j < n; j += 8 {
				for i := strip * 24; i < min(strip*24+24, n); i += 6 {
					s.update(i, j, b, &edge)
				}
			}
		}
	})
	for i := range b {
		for j := range k {
			a[j*n+k+i] = s.at(i, j)
		}
		for j := i; j < b; j++ {
			a[(k+i)*n+k+j] = -s.pivot[i*b+j]
		}
		for j := k + b; j < n; j++ {
			a[(k+i)*n+j] = s.at(i, j)
		}
	}
	return -1
}

// pack fills left and right for 24 columns from j0; raw is memory for one panel.
func (s *sweeper) pack(j0, b int, raw []float64) {
	n := s.n
	width := min(24, n-j0)
	for c := range 24 {
		for i := range b {
			v := 0.0
			if c < width {
				v = -s.rows[i*n+j0+c]
			}
			s.left[((j0+c)/6*b+i)*6+(j0+c)%6] = v
		}
	}
	// The rows themselves in panels of 8 columns, and the inverse times those.
	for j := j0; j < j0+24; j += 8 {
		rows := raw[:8*b]
		clear(rows)
		for i := range b {
			if j < n {
				copy(rows[i*8:][:8], s.rows[i*n+j:][:min(8, n-j)])
			}
		}
		right := s.right[j*sweepRows:][:8*sweepRows]
		clear(right)
		for i := 0; i < b; i += 6 {
			s.path.tile64(s.packed[i*b:], rows, right[i*8:], 8, b)
		}
	}
}

// at is element i,j of the inverse times the pivot rows.
func (s *sweeper) at(i, j int) float64 { return s.right[(j/8*sweepRows+i)*8+j%8] }

// update subtracts from the tile at i,j the product of pivot rows; what lies past the last column goes through edge.
func (s *sweeper) update(i, j, b int, edge *[6 * 8]float64) {
	n := s.n
	left, right := s.left[i*b:][:6*b], s.right[j*sweepRows:][:8*b]
	if i+6 <= n && j+8 <= n {
		s.path.tile64(left, right, s.a[i*n+j:], n, b)
		return
	}
	rows, cols := min(6, n-i), min(8, n-j)
	for r := range rows {
		copy(edge[r*8:], s.a[(i+r)*n+j:][:cols])
	}
	s.path.tile64(left, right, edge[:], 8, b)
	for r := range rows {
		copy(s.a[(i+r)*n+j:][:cols], edge[r*8:])
	}
}

// factorSmall replaces the upper triangle of a symmetric positive definite matrix of n rows by Cholesky's factor U,
// U'U = a. It returns the row whose pivot is not positive, or -1.
func factorSmall(a []float64, n int) int {
	for i := range n {
		row := a[i*n:][:n]
		for q := range i {
			above := a[q*n:][:n]
			f := above[i]
			for j := i; j < n; j++ {
				row[j] -= float64(f * above[j])
			}
		}
		if !(row[i] > 0) || math.IsInf(row[i], 1) {
			return i
		}
		scale := 1 / math.Sqrt(row[i])
		for j := i; j < n; j++ {
			row[j] *= scale
		}
	}
	return -1
}

// invertSmall replaces such a matrix by its inverse, both triangles: the factor, its inverse, and the product of that.
func invertSmall(a []float64, n int) int {
	if row := factorSmall(a, n); row >= 0 {
		return row
	}
	// V = U^-1 is upper too: V row i = (e_i - sum over q > i of U_iq V row q) / U_ii, from the last row up.
	for i := n - 1; i >= 0; i-- {
		row := a[i*n:][:n]
		scale := 1 / row[i]
		u := make([]float64, n)
		copy(u[i+1:], row[i+1:])
		clear(row[i+1:])
		row[i] = scale
		for q := i + 1; q < n; q++ {
			f := float64(u[q] * scale)
			below := a[q*n:][:n]
			for j := q; j < n; j++ {
				row[j] -= float64(f * below[j])
			}
		}
	}
	// The inverse is V V': element i,j is the product of rows i and j.
	for i := range n {
		for j := i; j < n; j++ {
			s := 0.0
			for q := j; q < n; q++ {
				s += float64(a[i*n+q] * a[j*n+q])
			}
			a[i*n+j] = s // rows below i, and row i from j on, are still those of V
		}
	}
	for i := range n {
		for j := range i {
			a[i*n+j] = a[j*n+i]
		}
	}
	return -1
}
