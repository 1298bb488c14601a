package ranking

import (
	"fmt"
	"math"
	"slices"
)

// Matrix is a sparse matrix in compressed rows, users by items unless said otherwise. Row r holds the columns
// Index[Start[r]:Start[r+1]], ascending and distinct, with their values in Value. A cell that is not stored is 0.
type Matrix struct {
	Rows, Cols int
	Start      []int // Rows+1 offsets, the first 0
	Index      []int32
	Value      []float32
}

// Scored is an item and its score; more is better.
type Scored struct {
	Item  int32
	Score float32
}

// better is the order of every list in this package: by score, then by the lower item number.
func better(a, b Scored) bool {
	return a.Score > b.Score || a.Score == b.Score && a.Item < b.Item
}

// SortScored orders best first: by score, equal ones by the lower item number. Scores must not be NaN.
func SortScored(list []Scored) {
	slices.SortFunc(list, func(a, b Scored) int {
		switch {
		case better(a, b):
			return -1
		case better(b, a):
			return 1
		}
		return 0
	})
}

// NewMatrix makes a matrix of cells (row[i], col[i]) with value[i], in any order. Cells that are given more than
// once are summed in the order of the input. A cell outside the matrix or a value that is not finite is an error that
// names its place.
func NewMatrix(rows, cols int, row, col []int32, value []float32) (*Matrix, error) {
	if rows < 0 || cols < 0 || cols > math.MaxInt32 || rows > math.MaxInt32 {
		return nil, fmt.Errorf("ranking: a matrix of %d x %d: want 0 to %d each", rows, cols, math.MaxInt32)
	}
	if len(row) != len(col) || len(row) != len(value) {
		return nil, fmt.Errorf("ranking: %d rows, %d columns and %d values: want one of each for every cell",
			len(row), len(col), len(value))
	}
	for i := range row {
		if row[i] < 0 || int(row[i]) >= rows || col[i] < 0 || int(col[i]) >= cols {
			return nil, fmt.Errorf("ranking: cell %d is (%d, %d), outside a matrix of %d x %d", i, row[i], col[i], rows, cols)
		}
		if !finite(value[i]) {
			return nil, fmt.Errorf("ranking: cell %d, (%d, %d), has the value %v: want a finite number",
				i, row[i], col[i], value[i])
		}
	}
	// Two stable counting sorts, by column and then by row, leave equal cells in the order of the input.
	byCol := countingSort(cols, col, nil)
	order := countingSort(rows, row, byCol)
	m := &Matrix{Rows: rows, Cols: cols, Start: make([]int, rows+1)}
	m.Index, m.Value = make([]int32, 0, len(row)), make([]float32, 0, len(row))
	at := 0
	for r := range rows {
		first := len(m.Index)
		for ; at < len(order) && int(row[order[at]]) == r; at++ {
			i := order[at]
			if last := len(m.Index) - 1; last >= first && m.Index[last] == col[i] {
				m.Value[last] += value[i]
				if !finite(m.Value[last]) {
					return nil, fmt.Errorf("ranking: cell (%d, %d) sums to %v: want a finite number", r, col[i], m.Value[last])
				}
				continue
			}
			m.Index, m.Value = append(m.Index, col[i]), append(m.Value, value[i])
		}
		m.Start[r+1] = len(m.Index)
	}
	return m, nil
}

// countingSort returns the numbers of order (nil: 0, 1, 2, ...) sorted by key, stable.
func countingSort(keys int, key []int32, order []int) []int {
	start := make([]int, keys+1)
	for _, k := range key {
		start[k+1]++
	}
	for k := range keys {
		start[k+1] += start[k]
	}
	sorted := make([]int, len(key))
	for i := range key {
		if order != nil {
			i = order[i]
		}
		sorted[start[key[i]]] = i
		start[key[i]]++
	}
	return sorted
}

// Validate reports the first fault of a matrix that was put together by hand.
func (m *Matrix) Validate() error {
	if len(m.Start) == 0 {
		return fmt.Errorf("ranking: a matrix of %d x %d with no row offsets: want one more than rows", m.Rows, m.Cols)
	}
	if m.Rows < 0 || m.Cols < 0 || len(m.Start) != m.Rows+1 || m.Start[0] != 0 {
		return fmt.Errorf("ranking: a matrix of %d x %d with %d row offsets: want one more than rows, the first 0",
			m.Rows, m.Cols, len(m.Start))
	}
	if n := m.Start[m.Rows]; n != len(m.Index) || n != len(m.Value) {
		return fmt.Errorf("ranking: the last row ends at %d, with %d columns and %d values: want the same number of each",
			n, len(m.Index), len(m.Value))
	}
	for r := range m.Rows {
		if m.Start[r] > m.Start[r+1] || m.Start[r+1] > len(m.Index) {
			return fmt.Errorf("ranking: row %d starts at %d and ends at %d, of %d cells: want ascending offsets",
				r, m.Start[r], m.Start[r+1], len(m.Index))
		}
		last := int32(-1)
		cols, values := m.Row(r)
		for i, c := range cols {
			if c <= last || int(c) >= m.Cols {
				return fmt.Errorf("ranking: row %d has column %d after %d: want ascending ones below %d", r, c, last, m.Cols)
			}
			if !finite(values[i]) {
				return fmt.Errorf("ranking: row %d, column %d is %v: want a finite number", r, c, values[i])
			}
			last = c
		}
	}
	return nil
}

// Row returns the columns and values of row r, which are not to be changed.
func (m *Matrix) Row(r int) ([]int32, []float32) {
	lo, hi := m.Start[r], m.Start[r+1]
	return m.Index[lo:hi:hi], m.Value[lo:hi:hi]
}

// Transpose returns items by users.
func (m *Matrix) Transpose() *Matrix {
	t := &Matrix{Rows: m.Cols, Cols: m.Rows, Start: make([]int, m.Cols+1),
		Index: make([]int32, len(m.Index)), Value: make([]float32, len(m.Value))}
	for _, c := range m.Index {
		t.Start[c+1]++
	}
	for c := range m.Cols {
		t.Start[c+1] += t.Start[c]
	}
	next := slices.Clone(t.Start)
	for r := range m.Rows {
		cols, values := m.Row(r)
		for i, c := range cols {
			at := next[c]
			next[c]++
			t.Index[at], t.Value[at] = int32(r), values[i]
		}
	}
	return t
}

func finite(x float32) bool { return x-x == 0 }
