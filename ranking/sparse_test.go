package ranking

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestNewMatrix holds matrices of random cells, some given twice, against a map.
func TestNewMatrix(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	for _, c := range [][3]int{{0, 0, 0}, {3, 0, 0}, {1, 1, 5}, {7, 9, 30}, {50, 3, 100}, {3, 200, 1000}} {
		rows, cols, n := c[0], c[1], c[2]
		var ri, ci []int32
		var v []float32
		want := map[[2]int32]float32{}
		for range n {
			i, j, x := int32(r.IntN(rows)), int32(r.IntN(cols)), float32(r.NormFloat64())
			ri, ci, v = append(ri, i), append(ci, j), append(v, x)
			want[[2]int32{i, j}] += x
		}
		m, err := NewMatrix(rows, cols, ri, ci, v)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []*Matrix{m, m.Transpose().Transpose()} {
			if err := m.Validate(); err != nil {
				t.Error(err)
			}
			got := map[[2]int32]float32{}
			for i := range rows {
				items, values := m.Row(i)
				for k, j := range items {
					got[[2]int32{int32(i), j}] = values[k]
				}
			}
			if len(got) != len(want) {
				t.Errorf("%v: %d cells, want %d", c, len(got), len(want))
			}
			for at, x := range want {
				if got[at] != x {
					t.Errorf("%v: cell %v is %v, want %v", c, at, got[at], x)
				}
			}
		}
		back := m.Transpose()
		if err := back.Validate(); err != nil || back.Rows != cols || back.Cols != rows {
			t.Errorf("%v: transposed %d x %d, %v", c, back.Rows, back.Cols, err)
		}
	}
}

func TestMatrixFaults(t *testing.T) {
	nan := float32(math.NaN())
	byHand := func(rows, cols int, start []int, index []int32, value ...float32) error {
		return (&Matrix{Rows: rows, Cols: cols, Start: start, Index: index, Value: value}).Validate()
	}
	made := func(rows, cols int, r, c []int32, v []float32) error {
		_, err := NewMatrix(rows, cols, r, c, v)
		return err
	}
	for _, c := range []struct {
		want string
		err  error
	}{
		{"cell 1 is (2, 0)", made(2, 2, []int32{0, 2}, []int32{0, 0}, []float32{1, 1})},
		{"cell 0 is (0, -1)", made(2, 2, []int32{0}, []int32{-1}, []float32{1})},
		{"cell 0, (0, 1), has the value NaN", made(2, 2, []int32{0}, []int32{1}, []float32{nan})},
		{"cell (0, 1) sums to +Inf", made(2, 2, []int32{0, 0}, []int32{1, 1}, []float32{3e38, 3e38})},
		{"1 rows, 2 columns", made(2, 2, []int32{0}, []int32{0, 1}, nil)},
		{"matrix of -1 x 2", made(-1, 2, nil, nil, nil)},
		{"3 row offsets", (&Matrix{Rows: 1, Start: []int{0, 0, 0}}).Validate()},
		{"no row offsets", (&Matrix{}).Validate()},
		{"row 0 starts at 0 and ends at 5", byHand(2, 9, []int{0, 5, 1}, []int32{1}, 1)},
		{"ends at 2, with 1 columns", byHand(1, 2, []int{0, 2}, []int32{1}, 1, 1)},
		{"column 1 after 1", byHand(1, 2, []int{0, 2}, []int32{1, 1}, 1, 1)},
		{"column 2 after -1", byHand(1, 2, []int{0, 1}, []int32{2}, 1)},
		{"row 0, column 1 is NaN", byHand(1, 2, []int{0, 1}, []int32{1}, nan)},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("got the error %v, want one with %q", c.err, c.want)
		}
	}
}

func TestSortScored(t *testing.T) {
	negative := float32(math.Copysign(0, -1))
	list := []Scored{{4, 0}, {1, negative}, {9, 5}, {3, 5}, {2, -1}}
	SortScored(list)
	if want := []Scored{{3, 5}, {9, 5}, {1, negative}, {4, 0}, {2, -1}}; !slices.Equal(list, want) {
		t.Errorf("%v, want %v", list, want)
	}
}

// FuzzMatrix: a matrix made by hand is refused by Validate, or every use of it stays within bounds.
func FuzzMatrix(f *testing.F) {
	f.Add(2, 3, []byte{0, 1, 2}, []byte{1, 2})
	f.Add(2, 3, []byte{0, 200, 2}, []byte{1, 2})
	f.Fuzz(func(t *testing.T, rows, cols int, start, index []byte) {
		m := &Matrix{Rows: rows, Cols: cols % 1000}
		for _, s := range start {
			m.Start = append(m.Start, int(int8(s)))
		}
		for _, i := range index {
			m.Index, m.Value = append(m.Index, int32(int8(i))), append(m.Value, 1)
		}
		if m.Validate() != nil {
			return
		}
		back := m.Transpose().Transpose()
		if !slices.Equal(m.Index, back.Index) || fmt.Sprint(m.Start) != fmt.Sprint(back.Start) {
			t.Errorf("%v transposed twice is %v", m, back)
		}
	})
}
