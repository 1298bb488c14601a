package ranking

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// naiveGram is X'X by its definition.
func naiveGram(x *Matrix) []float64 {
	g := make([]float64, x.Cols*x.Cols)
	for r := range x.Rows {
		cols, values := x.Row(r)
		for i, a := range cols {
			for j, b := range cols {
				g[int(a)*x.Cols+int(b)] += float64(values[i]) * float64(values[j])
			}
		}
	}
	return g
}

func TestGram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range [][2]int{{0, 0}, {3, 0}, {0, 3}, {1, 1}, {40, 7}, {30, 70}, {200, 33}} {
		x := randomMatrix(r, c[0], c[1], 0.2)
		want := naiveGram(x)
		for threads := range 4 {
			if got, err := Gram(x, threads); err != nil || !slices.Equal(got, want) {
				t.Errorf("%v, %d threads: %v, got %v, want %v", c, threads, err, got, want)
			}
		}
	}
	if _, err := Gram(&Matrix{Cols: 1 << 16, Start: []int{0}}, 1); err == nil || !strings.Contains(err.Error(), "32 GiB") {
		t.Errorf("65,536 items: %v", err)
	}
}

// TestInvertSymmetric: a matrix times its inverse is the identity, on each path to a few roundings and with the same
// bits, whatever the threads.
func TestInvertSymmetric(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 2, 5, 23, 95, 96, 97, 150, 192, 301} {
		x := randomMatrix(r, 2*n+1, n, 0.3)
		a := naiveGram(x)
		for i := range n {
			a[i*n+i] += 3
		}
		var first []float64
		for name, p := range paths(t) {
			for threads := range 3 {
				inverse := slices.Clone(a)
				for i := range n {
					for j := range i {
						inverse[i*n+j] = math.NaN() // not to be read
					}
				}
				if err := invertSymmetric(p, inverse, n, threads); err != nil {
					t.Fatal(err)
				}
				if first == nil {
					first = inverse
				}
				if !slices.Equal(inverse, first) {
					t.Errorf("n %d, %s, %d threads: other bits", n, name, threads)
				}
			}
		}
		for i := range n {
			for j := range n {
				s := 0.0
				for q := range n {
					s += a[i*n+q] * first[q*n+j]
				}
				if i == j {
					s--
				}
				if !(math.Abs(s) < 1e-10) {
					t.Fatalf("n %d: element %d,%d of the product with the inverse is off by %v", n, i, j, s)
				}
			}
		}
	}
}

func TestInvertSymmetricRefuses(t *testing.T) {
	a := make([]float64, 150*150)
	for i := range 150 {
		a[i*150+i] = 1
	}
	a[120*150+120] = -1
	for want, err := range map[string]error{
		"not positive definite at row 120":  InvertSymmetric(a, 150, 1),
		"element 0,1":                       InvertSymmetric([]float64{1, math.NaN(), 0, 1}, 2, 1),
		"3 numbers are no matrix of 2 x 2":  InvertSymmetric(make([]float64, 3), 2, 1),
		"not positive definite at row 1: a": InvertSymmetric([]float64{1, 1, 1, 1}, 2, 1),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func BenchmarkInvertSymmetric(b *testing.B) {
	for _, n := range []int{1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := make([]float64, n*n)
			r := rand.New(rand.NewPCG(1, 1))
			for b.Loop() {
				for i := range n {
					for j := i + 1; j < n; j++ {
						a[i*n+j] = r.Float64()
					}
					a[i*n+i] = float64(n)
				}
				if err := InvertSymmetric(a, n, 0); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*math.Pow(float64(n), 3)/b.Elapsed().Seconds()/1e9, "GFlop/s")
		})
	}
}
