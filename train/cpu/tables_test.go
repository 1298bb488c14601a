package cpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// TestTableKernelsAgreeToTheBit holds every path to the portable one, over widths around those of the vectors,
// unaligned slices and indices that are none; what lies behind a result stays as it was.
func TestTableKernelsAgreeToTheBit(t *testing.T) {
	const rows = 41
	ref := portableEmbed()
	for _, k := range paths()[1:] {
		r := rand.New(rand.NewPCG(3, 8))
		for _, d := range []int{1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 72, 100, 128, 129, 200} {
			table := odd(r, rows*d)
			for _, shape := range [][2]int{{1, 1}, {3, 2}, {5, 4}, {2, 9}, {40, 9}, {1, 30}} {
				m, w := shape[0], shape[1]
				idx, a := indices(r, rows, m+3, w).f32, odd(r, m*d) // three rows more than are asked for
				check := func(what string, n int, run func(e *embedKernels, out []float32)) {
					t.Helper()
					got, want := odd(r, n+1), make([]float32, n)
					last := got[n]
					run(&k.embed, got[:n])
					run(&ref, want)
					if err := sameNumbers(got[:n], want); err != nil {
						t.Fatalf("%s: %s, %d rows of %d, %d indices: %v", k.name, what, m, d, w, err)
					}
					if got[n] != last {
						t.Fatalf("%s: %s, %d rows of %d, %d indices: writes behind its end", k.name, what, m, d, w)
					}
				}
				check("dot", m*w, func(e *embedKernels, s []float32) { e.dot(s, table, idx, a, rows, w, d) })
				s := odd(r, m*w)
				check("weighted", m*d, func(e *embedKernels, y []float32) { e.weighted(y, table, idx, s, rows, w, d) })
			}
			other := odd(r, 7*d)
			sources := [][]float32{table, other}
			var list []entry
			spans := []span{{row: 4}}
			for k := range 9 {
				for range 1 + r.IntN(20)*(k%2) {
					list = append(list, entry{row: spans[k].row, from: int32(r.IntN(7)), use: int32(r.IntN(2)), factor: float32(r.NormFloat64())})
				}
				spans = append(spans, span{spans[k].row + 1 + int32(k%3), int32(len(list))})
			}
			n := len(spans) - 1
			got, want := odd(r, n*d), make([]float32, n*d)
			k.embed.sums(got, spans, list, sources, d)
			ref.sums(want, spans, list, sources, d)
			if err := sameNumbers(got, want); err != nil {
				t.Fatalf("%s: sums of rows of %d: %v", k.name, d, err)
			}
			c := newAdamCoef(&program.Attr{Beta1: .9, Beta2: .99, Eps: 1e-6, Decay: .02}, 3, .01)
			var held [2][3][]float32
			for i := range 3 {
				x := odd(r, rows*d)
				for j := range x {
					x[j] = float32(math.Abs(float64(x[j])))
				}
				held[0][i], held[1][i] = x, append([]float32(nil), x...)
			}
			k.embed.adam(held[0][0], held[0][1], held[0][2], want, spans[:n], d, &c)
			ref.adam(held[1][0], held[1][1], held[1][2], want, spans[:n], d, &c)
			for i := range 3 {
				if err := sameNumbers(held[0][i], held[1][i]); err != nil {
					t.Fatalf("%s: adam of rows of %d, tensor %d: %v", k.name, d, i, err)
				}
			}
			k.embed.shrink(held[0][0], held[0][1], 1.7, .1, .01)
			ref.shrink(held[1][0], held[1][1], 1.7, .1, .01)
			k.embed.adagrad(held[0][1], held[0][2], held[0][0], 1e-6, .1, .01)
			ref.adagrad(held[1][1], held[1][2], held[1][0], 1e-6, .1, .01)
			for i := range 3 {
				if err := sameNumbers(held[0][i], held[1][i]); err != nil {
					t.Fatalf("%s: shrink or adagrad of %d, tensor %d: %v", k.name, rows*d, i, err)
				}
			}
		}
		for _, n := range []int{1, 3, 31, 32, 33, 64, 100} {
			got, want := odd(r, n), make([]float32, n)
			k.embed.uniforms(got, 1<<20+3, 1<<40+9, 77, 5)
			ref.uniforms(want, 1<<20+3, 1<<40+9, 77, 5)
			if err := same(got, want); err != nil {
				t.Fatalf("%s: %d uniforms: %v", k.name, n, err)
			}
		}
	}
}

// TestCandidateKernelsAgreeToTheBit: every width that has a kernel of its own; scores far apart, infinite and NaN, rows
// without a positive, whatever their scores are.
func TestCandidateKernelsAgreeToTheBit(t *testing.T) {
	ref := portableEmbed()
	for _, k := range paths()[1:] {
		r := rand.New(rand.NewPCG(4, 8))
		for w := 2; w <= 16; w++ {
			for _, m := range []int{1, 3, candidateBlock} {
				for _, bpr := range []bool{false, true} {
					for _, size := range []float32{1, 20, 100, 1e30} {
						s, idx, weight := odd(r, m*w), indices(r, 9, m, w).f32, odd(r, m)
						for i := range s {
							s[i] *= size
						}
						if m == 3 { // what a training that diverges meets
							s[r.IntN(m*w)] = float32(math.NaN())
							s[r.IntN(m*w)] = float32(math.Inf(1 - 2*r.IntN(2)))
							idx[w] = -1
						}
						got, want := odd(r, m*w+1), make([]float32, m*w)
						last := got[m*w]
						var a, b outcome
						k.embed.candidates(got[:m*w], s, idx, weight, w, .37, bpr, &a)
						ref.candidates(want, s, idx, weight, w, .37, bpr, &b)
						if err := sameNumbers(got[:m*w], want); err != nil || got[m*w] != last {
							t.Fatalf("%s: gradients of %d rows of %d, bpr %v, size %v: %v\n%v\n%v", k.name, m, w, bpr, size, err, s, idx)
						}
						terms, terms2 := odd(r, m), make([]float32, m)
						k.embed.terms(terms, &a)
						ref.terms(terms2, &b)
						if err := sameNumbers(terms, terms2); err != nil {
							t.Fatalf("%s: terms of %d rows of %d, bpr %v, size %v: %v\n%v\n%v", k.name, m, w, bpr, size, err, s, idx)
						}
						for i := range m {
							if idx[i*w] < 0 && terms[i] != 0 {
								t.Fatalf("%s: row %d has no positive and loss %v", k.name, i, terms[i])
							}
						}
					}
				}
			}
		}
	}
}
