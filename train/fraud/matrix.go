package fraud

import (
	"math"
	"slices"
	"sync"

	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
)

// standard is how features are standardised: u = log1p(max(x,0)) where log is 1, then (u - mean) scale.
type standard struct {
	mean, scale, log []float64
	constant         []string // features with one value: scale 0 keeps them out, in use too
}

// newStandard measures the rows. A feature that never varies gets no say: nothing was learned about other
// values of it.
func newStandard(rows *Rows, log []bool) *standard {
	n := len(rows.Values)
	s := &standard{mean: make([]float64, n), scale: make([]float64, n), log: make([]float64, n)}
	count := float64(rows.Len())
	for f, column := range rows.Values {
		s.log[f] = float64(btoi(log[f]))
		transform := func(x float64) float64 { return x }
		if log[f] {
			transform = func(x float64) float64 { return math.Log1p(math.Max(x, 0)) }
		}
		var sum, squares float64
		for _, x := range column {
			sum += transform(x)
		}
		mean := sum / count
		for _, x := range column {
			d := transform(x) - mean
			squares += d * d
		}
		deviation := math.Sqrt(squares / count)
		s.mean[f] = mean
		if deviation > 1e-9*math.Abs(mean) {
			s.scale[f] = 1 / deviation
		} else {
			s.constant = append(s.constant, rows.Features[f])
		}
	}
	return s
}

// tensors are the constants of the Standardize instruction.
func (s *standard) tensors() program.Tensors {
	n := []int{len(s.mean)}
	ts := program.Tensors{
		{Name: program.StandardizeMean, DType: program.F64, Shape: n, F64: s.mean},
		{Name: program.StandardizeScale, DType: program.F64, Shape: n, F64: s.scale},
		{Name: program.StandardizeLog, DType: program.F64, Shape: n, F64: s.log},
	}
	ts.Sort()
	return ts
}

// matrix is the standardised features of the rows, row-major, made by the very instruction that the
// artifact runs.
func (s *standard) matrix(values [][]float64, rows, threads int) ([]float32, error) {
	f, err := cpu.NewForward(program.StandardizeOnly(len(s.mean), tile), s.tensors())
	if err != nil {
		return nil, err
	}
	out := make([]float32, rows*len(s.mean))
	err = tiles(f, values, rows, threads, func(f *cpu.Forward, x []float64, at, n int) error {
		return f.RunF32(x, n, out[at*len(s.mean):(at+n)*len(s.mean)])
	})
	return out, err
}

// score runs a forward program with one output over rows of raw features.
func score(p *program.Program, weights program.Tensors, values [][]float64, rows, threads int) ([]float64, error) {
	f, err := cpu.NewForward(p, weights)
	if err != nil {
		return nil, err
	}
	out := make([]float64, rows)
	err = tiles(f, values, rows, threads, func(f *cpu.Forward, x []float64, at, n int) error {
		return f.Run(x, n, out[at:at+n])
	})
	return out, err
}

// tiles cuts rows of columns into row-major pieces and hands them to clones of f on several threads.
func tiles(f *cpu.Forward, values [][]float64, rows, threads int, do func(f *cpu.Forward, x []float64, at, n int) error) error {
	const piece = 16 * tile
	threads = max(1, min(threads, (rows+piece-1)/piece))
	errs := make([]error, threads)
	var wg sync.WaitGroup
	for t := range threads {
		g := f.Clone()
		wg.Go(func() {
			x := make([]float64, piece*len(values))
			for at := t * piece; at < rows && errs[t] == nil; at += threads * piece {
				n := min(piece, rows-at)
				for c, column := range values {
					for i, v := range column[at : at+n] {
						x[i*len(values)+c] = v
					}
				}
				errs[t] = do(g, x[:n*len(values)], at, n)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// medians of each feature: what a reader takes for usual.
func medians(rows *Rows) []float64 {
	out := make([]float64, len(rows.Values))
	for f, column := range rows.Values {
		sorted := slices.Clone(column)
		slices.Sort(sorted)
		out[f] = sorted[len(sorted)/2]
	}
	return out
}
