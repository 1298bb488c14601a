package ranking

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/onmart/onmart/train/program"
)

// ALSOptions are the settings of TrainALS; zero values mean the defaults.
type ALSOptions struct {
	Factors    int // numbers in a vector; default 64
	Iterations int // of both sides; default 15
	// Regularization is added to the diagonal of every normal equation; default 0.01. Zero is not possible.
	Regularization float32
	Alpha          float32 // the confidence of a cell is Alpha times its value; default 1
	// Steps of conjugate gradients in each row and iteration, from where the row stands; default 3.
	Steps int
	// Exact solves every row by Cholesky's factorisation instead.
	Exact   bool
	Seed    uint64 // of the initial factors
	Threads int    // default one a core; the result does not depend on it
	// Report, where it is not nil, is called after each iteration. It costs a pass over the cells for the loss.
	Report func(ALSProgress)
}

// ALSProgress is what is known after an iteration.
type ALSProgress struct {
	Iteration int // from 1
	// Loss is the weighted mean square over all cells of the matrix, stored or not, plus the penalty: what implicit
	// reports as its training loss.
	Loss    float64
	Elapsed time.Duration // of the iteration without the loss
}

// ALS is a model of users and items with a vector each; a user's score of an item is their inner product.
type ALS struct {
	Factors int
	Users   []float32 // row u the vector of user u; 0 for a user without a cell
	Items   []float32 // row i the vector of item i; 0 for an item without a cell
	// What FoldIn needs to know.
	Regularization, Alpha float32
}

// defaults fills in what was left out and reports what cannot be.
func (o ALSOptions) defaults() (ALSOptions, error) {
	if o.Factors == 0 {
		o.Factors = 64
	}
	if o.Iterations == 0 {
		o.Iterations = 15
	}
	if o.Regularization == 0 {
		o.Regularization = 0.01
	}
	if o.Alpha == 0 {
		o.Alpha = 1
	}
	if o.Steps == 0 {
		o.Steps = 3
	}
	switch {
	case o.Factors < 0 || o.Factors > maxFactors:
		return o, fmt.Errorf("ranking: ALS with %d factors: want 1 to %d", o.Factors, maxFactors)
	case o.Iterations < 0 || o.Steps < 0 || o.Threads < 0:
		return o, fmt.Errorf("ranking: ALS with %d iterations, %d steps, %d threads: want none below 0",
			o.Iterations, o.Steps, o.Threads)
	case !(o.Regularization > 0) || !finite(o.Regularization):
		return o, fmt.Errorf("ranking: ALS with a regularization of %v: want a number above 0", o.Regularization)
	case !(o.Alpha > 0) || !finite(o.Alpha):
		return o, fmt.Errorf("ranking: ALS with alpha %v: want a number above 0", o.Alpha)
	}
	return o, nil
}

// maxFactors keeps a row's matrix within 4 MiB.
const maxFactors = 1024

// TrainALS fits implicit feedback by alternating least squares (Hu, Koren, Volinsky 2008): it minimises the sum over
// all cells of c (p - x.y)^2, where p is 1 for a stored cell and 0 otherwise and c is Alpha times the value for a
// stored cell and 1 otherwise, plus Regularization times the squares of all factors. Each half of an iteration solves
// all users, then all items, by a few steps of conjugate gradients (Takacs, Pilaszy, Tikk 2011) or exactly. Confidence
// and regularization are those of the library implicit.
//
// A negative value is an error: the sign has no meaning as a confidence. A value of 0 is a cell that is not there.
// When ctx ends, so does the training, with its error.
func TrainALS(ctx context.Context, m *Matrix, o ALSOptions) (*ALS, error) {
	p, err := choosePath(os.Getenv("ONMART_CPU"))
	if err != nil {
		return nil, err
	}
	return trainALS(ctx, p, m, o)
}

func trainALS(ctx context.Context, p path, m *Matrix, o ALSOptions) (*ALS, error) {
	o, err := o.defaults()
	if err != nil {
		return nil, err
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	for r := range m.Rows {
		cols, values := m.Row(r)
		for i, v := range values {
			if v < 0 {
				return nil, fmt.Errorf("ranking: ALS: row %d, column %d is %v: want a value that is not negative", r, cols[i], v)
			}
		}
	}
	users, items := newSide(m, o, userSite), newSide(m.Transpose(), o, itemSite)
	for it := range o.Iterations {
		start := time.Now()
		if err := users.solve(ctx, p, items, o); err != nil {
			return nil, err
		}
		if err := items.solve(ctx, p, users, o); err != nil {
			return nil, err
		}
		if o.Report != nil {
			took := time.Since(start)
			o.Report(ALSProgress{Iteration: it + 1, Loss: loss(p, users, items, o), Elapsed: took})
		}
	}
	a := &ALS{Factors: o.Factors, Users: users.compact(o.Factors), Items: items.compact(o.Factors),
		Regularization: o.Regularization, Alpha: o.Alpha}
	for i, v := range a.Items {
		if !finite(v) {
			return nil, fmt.Errorf("ranking: ALS: item %d got the factor %v: lower Alpha, or raise Regularization",
				i/o.Factors, v)
		}
	}
	for i, v := range a.Users {
		if !finite(v) {
			return nil, fmt.Errorf("ranking: ALS: user %d got the factor %v: lower Alpha, or raise Regularization",
				i/o.Factors, v)
		}
	}
	return a, nil
}

// Sites of the initial factors in the random numbers.
const (
	userSite = 1
	itemSite = 2
)

// side is the users or the items: their factors, and their cells with the weights of the normal equations.
type side struct {
	table        // rows of factors, 0 past Factors, and one row of zeros at the end
	rows  int    // without that row
	cells cells  // index: rows of the other side
	stamp string // for errors: "user" or "item"
}

// cells are rows of a matrix, each filled up to a multiple of 8 with cells of the other side's row of zeros.
type cells struct {
	start  []int
	index  []int32
	weight []float32
}

func (c *cells) row(r int) ([]int32, []float32) {
	return c.index[c.start[r]:c.start[r+1]], c.weight[c.start[r]:c.start[r+1]]
}

// tileWidth is the multiple that rows of factors are filled up to: the width of the micro-kernel.
const tileWidth = 16

func newSide(m *Matrix, o ALSOptions, site uint32) *side {
	width := roundUp(o.Factors, tileWidth)
	s := &side{table: table{aligned[float32]((m.Rows + 1) * width), width}, rows: m.Rows, cells: newCells(m, o.Alpha)}
	s.stamp = map[uint32]string{userSite: "user", itemSite: "item"}[site]
	// Small positive factors, as implicit begins with.
	for r := range m.Rows {
		row := s.row(r)[:o.Factors]
		for j := 0; j < len(row); j += 4 {
			u := philox(o.Seed, site, uint64(r), uint32(j/4))
			for k := range min(4, len(row)-j) {
				row[j+k] = 0.01 * float32(u[k]>>8) * 0x1p-24
			}
		}
	}
	return s
}

func newCells(m *Matrix, alpha float32) cells {
	c := cells{start: make([]int, m.Rows+1)}
	for r := range m.Rows {
		_, values := m.Row(r)
		n := 0
		for _, v := range values {
			if v != 0 {
				n++
			}
		}
		c.start[r+1] = c.start[r] + roundUp(n, vector)
	}
	c.index, c.weight = make([]int32, c.start[m.Rows], c.start[m.Rows]+vector), make([]float32, c.start[m.Rows])
	for r := range m.Rows {
		fillCells(c.index[c.start[r]:c.start[r+1]], c.weight[c.start[r]:], m, r, alpha)
	}
	return c
}

func fillCells(index []int32, weight []float32, m *Matrix, r int, alpha float32) {
	cols, values := m.Row(r)
	at := 0
	for i, v := range values {
		if v != 0 {
			index[at], weight[at] = cols[i], alpha*v
			at++
		}
	}
	for ; at < len(index); at++ {
		index[at] = int32(m.Cols) // the row of zeros; its weight does not count
	}
}

// compact are the factors without padding.
func (s *side) compact(factors int) []float32 {
	if factors == s.width {
		return s.data[: s.rows*factors : s.rows*factors]
	}
	all := make([]float32, s.rows*factors)
	for r := range s.rows {
		copy(all[r*factors:][:factors], s.row(r))
	}
	return all
}

// rowsAJob are the rows that a worker takes at a time: few, for some items have a thousand times the users of others.
const rowsAJob = 16

// solve fits all rows of s to the factors of the other side.
func (s *side) solve(ctx context.Context, p path, other *side, o ALSOptions) error {
	g := gramOf(p, other.table, other.rows, o.Factors, o.Regularization, o.Threads)
	failed := make([]bool, s.rows)
	parallel(o.Threads, (s.rows+rowsAJob-1)/rowsAJob, func() func(int) {
		w := newSolver(p, other.table, g)
		return func(job int) {
			if ctx.Err() != nil {
				return
			}
			for r := job * rowsAJob; r < min((job+1)*rowsAJob, s.rows); r++ {
				index, weight := s.cells.row(r)
				switch {
				case len(index) == 0:
					clear(s.row(r))
				case o.Exact:
					failed[r] = !w.exact(s.row(r), index, weight)
				default:
					w.conjugate(s.row(r), index, weight, o.Steps)
				}
			}
		}
	})
	for r, f := range failed {
		if f {
			return fmt.Errorf("ranking: ALS: the equations of %s %d are singular: raise Regularization, or lower Alpha",
				s.stamp, r)
		}
	}
	return ctx.Err()
}

// loss is implicit's: the objective over the sum of all confidences.
func loss(p path, users, items *side, o ALSOptions) float64 {
	g := gramOf(p, items.table, items.rows, o.Factors, 0, o.Threads)
	square, weight, count := make([]float64, users.rows), make([]float64, users.rows), make([]int, users.rows)
	parallel(o.Threads, (users.rows+rowsAJob-1)/rowsAJob, func() func(int) {
		w := newSolver(p, items.table, g)
		return func(job int) {
			for r := job * rowsAJob; r < min((job+1)*rowsAJob, users.rows); r++ {
				x := users.row(r)
				w.multiply(w.ap, x)
				square[r] = float64(p.dot(x, w.ap)) + float64(o.Regularization)*float64(p.dot(x, x))
				index, c := users.cells.row(r)
				for i, item := range index {
					if int(item) == items.rows {
						break
					}
					s, c := float64(p.dot(items.row(int(item)), x)), float64(c[i])
					square[r] += c*(1-s)*(1-s) - s*s
					weight[r] += c
					count[r]++
				}
			}
		}
	})
	var sum, total float64
	total = float64(users.rows) * float64(items.rows)
	for r := range square {
		sum += square[r]
		total += weight[r] - float64(count[r])
	}
	for i := range items.rows {
		y := items.row(i)
		sum += float64(o.Regularization) * float64(p.dot(y, y))
	}
	if total == 0 {
		return 0
	}
	return sum / total
}

// philox is four random words of a seed for a place: a site, a row and four columns of it.
func philox(seed uint64, site uint32, row uint64, column uint32) [4]uint32 {
	return program.Philox([2]uint32{uint32(seed), uint32(seed >> 32)}, [4]uint32{column, uint32(row), uint32(row >> 32), site})
}
