package ranking

import (
	"fmt"
	"math"
	"slices"
)

// ItemNeighbours is item-kNN: items by items, in row i the cosine of the columns i and j of x for the keep items j
// that are nearest to i, i itself left out (Sarwar et al. 2001, for implicit feedback: Deshpande, Karypis 2004). A
// user's score of j is the sum of row values over the user's items. Equal cosines are taken by the lower number.
func ItemNeighbours(x *Matrix, keep, threads int) (*Matrix, error) {
	if err := x.Validate(); err != nil {
		return nil, err
	}
	if keep < 1 {
		return nil, fmt.Errorf("ranking: %d neighbours: want 1 or more", keep)
	}
	t := x.Transpose()
	inverse := make([]float64, x.Cols)
	for i := range inverse {
		s := 0.0
		_, values := t.Row(i)
		for _, v := range values {
			s += float64(v) * float64(v)
		}
		if s > 0 {
			inverse[i] = 1 / math.Sqrt(s)
		}
	}
	rows := make([][]Scored, x.Cols)
	parallel(threads, x.Cols, func() func(int) {
		dots, touched, list := make([]float64, x.Cols), []int32{}, []Scored{}
		return func(i int) {
			users, values := t.Row(i)
			for a, u := range users {
				v := float64(values[a])
				items, with := x.Row(int(u))
				for b, j := range items {
					if dots[j] == 0 {
						touched = append(touched, j)
					}
					dots[j] += v * float64(with[b])
				}
			}
			list = list[:0]
			for _, j := range touched {
				if s := dots[j] * inverse[i] * inverse[j]; int(j) != i && s > 0 {
					list = append(list, Scored{j, float32(s)})
				}
				dots[j] = 0
			}
			touched = touched[:0]
			SortScored(list)
			rows[i] = slices.Clone(list[:min(keep, len(list))])
		}
	})
	return fromRows(rows, x.Cols), nil
}

// fromRows makes a matrix of rows that are in any order.
func fromRows(rows [][]Scored, cols int) *Matrix {
	m := &Matrix{Rows: len(rows), Cols: cols, Start: make([]int, len(rows)+1)}
	for r, list := range rows {
		slices.SortFunc(list, func(a, b Scored) int { return int(a.Item) - int(b.Item) })
		for _, s := range list {
			m.Index, m.Value = append(m.Index, s.Item), append(m.Value, s.Score)
		}
		m.Start[r+1] = len(m.Index)
	}
	return m
}

// MaxEASE is the greatest number of items for EASE: the Gram matrix of so many takes 2 GiB, its inverse some
// minutes.
const MaxEASE = 16384

// EASE is the item-item model of Steck (2019), "Embarrassingly Shallow Autoencoders for Sparse Data": B = I -
// P/diag(P), P the inverse of X'X + lambda I, the diagonal 0. Row i, column j of the result is what having i adds to
// the score of j. Of each column only the keep weights of greatest size are kept (0: all of them).
func EASE(x *Matrix, lambda float64, keep, threads int) (*Matrix, error) {
	if x.Cols > MaxEASE {
		return nil, fmt.Errorf("ranking: EASE inverts a matrix of items by items, and %d items are more than the %d that it is for: leave out rare items, or take knn or als",
			x.Cols, MaxEASE)
	}
	if !(lambda > 0) || math.IsInf(lambda, 0) {
		return nil, fmt.Errorf("ranking: EASE with lambda %v: want a number above 0", lambda)
	}
	g, err := Gram(x, threads)
	if err != nil {
		return nil, err
	}
	n := x.Cols
	for i := range n {
		g[i*n+i] += lambda
	}
	if err := InvertSymmetric(g, n, threads); err != nil {
		return nil, err
	}
	if keep == 0 {
		keep = n
	}
	columns := make([][]Scored, n)
	parallel(threads, n, func() func(int) {
		list := make([]Scored, 0, n)
		return func(j int) {
			list = list[:0]
			row := g[j*n:][:n] // P is symmetric: row j is column j
			for i, v := range row {
				if w := float32(-v / row[j]); i != j && w != 0 {
					list = append(list, Scored{int32(i), w})
				}
			}
			if len(list) > keep {
				slices.SortFunc(list, func(a, b Scored) int {
					x, y := abs(a.Score), abs(b.Score)
					switch {
					case x > y || x == y && a.Item < b.Item:
						return -1
					case x == y && a.Item == b.Item:
						return 0
					}
					return 1
				})
			}
			columns[j] = slices.Clone(list[:min(keep, len(list))])
		}
	})
	return fromRows(columns, n).Transpose(), nil
}

func abs(x float32) float32 { return max(x, -x) }

// addRow adds weight times row i of m to dst.
func addRow(dst []float32, m *Matrix, i int32, weight float32) {
	cols, values := m.Row(int(i))
	for k, j := range cols {
		dst[j] += float32(weight * values[k])
	}
}
