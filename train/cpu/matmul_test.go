package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// naiveMatmul is y = act(a' b' + bias) as program.MatMul defines it, one output after the other.
func naiveMatmul(mm *matmul) []float32 {
	y := make([]float32, mm.m*mm.n)
	for i := range mm.m {
		for j := range mm.n {
			var s float32
			for p := range mm.k {
				a, b := i*mm.k+p, p*mm.n+j
				if mm.transA {
					a = p*mm.m + i
				}
				if mm.transB {
					b = j*mm.k + p
				}
				s = fma32(mm.a[a], mm.b[b], s)
			}
			if mm.n == 1 && !mm.transA {
				s = laneDot(mm.a[i*mm.k:(i+1)*mm.k], mm.b)
			}
			if mm.bias != nil {
				s += mm.bias[j]
			}
			if mm.act == program.Relu && s < 0 {
				s = 0
			}
			y[i*mm.n+j] = s
		}
	}
	if mm.act == program.Silu {
		siluPortable(y, y)
	}
	return y
}

func (mm *matmul) String() string {
	return fmt.Sprintf("%dx%dx%d transA %v transB %v act %q bias %v packed %v", mm.m, mm.k, mm.n, mm.transA,
		mm.transB, mm.act, mm.bias != nil, mm.packed != nil)
}

// randomMatmul is a product with operands at odd addresses.
func randomMatmul(r *rand.Rand, m, k, n, flags int) *matmul {
	mm := &matmul{a: odd(r, m*k), b: odd(r, k*n), y: odd(r, m*n), m: m, k: k, n: n,
		transA: flags&1 != 0, transB: flags&2 != 0}
	if flags&4 != 0 {
		mm.bias = odd(r, n)
	}
	mm.act = []program.Act{program.None, program.Relu, program.Silu}[flags>>3%3]
	return mm
}

// runSplit runs a product as the steps of a machine do, on workers that take turns.
func (mm *matmul) runSplit(k *kernels, of int) {
	d := mm.divide(true)
	for id := range of {
		w := newWorker(k, id, of, d.pack)
		for i := range w.pack {
			w.pack[i] = -1e30
		}
		if lo, hi := d.split(d.units, id, of); lo < hi {
			d.run(w, lo, hi)
		}
	}
}

func TestMatmulIsOneChainAnOutput(t *testing.T) {
	sizes := []int{1, 2, 3, 5, 7, 8, 9, 12, 13, 15, 16, 17, 31, 33, 48, 64, 100, 128, 257, 500, 1023}
	for _, k := range paths() {
		r := rand.New(rand.NewPCG(5, 6))
		budget, tries := 60_000_000, 1500
		if k.name == "cpu-portable" {
			budget, tries = 8_000_000, 300
		}
		for try := 0; try < tries && budget > 0; try++ {
			pick := func() int { return sizes[r.IntN(len(sizes))] }
			m, kk, n := pick(), pick(), pick()
			if m*kk*n > 3_000_000 {
				continue
			}
			budget -= m * kk * n
			mm := randomMatmul(r, m, kk, n, r.IntN(24))
			want := naiveMatmul(mm)
			if r.IntN(4) == 0 && !mm.transA {
				mm.packed = mm.packAll(k)
			}
			of := []int{1, 2, 8}[r.IntN(3)]
			mm.runSplit(k, of)
			if err := same(mm.y, want); err != nil {
				t.Fatalf("%s, %d workers: %v: %v", k.name, of, mm, err)
			}
		}
	}
}

// TestMatmulGoesOn: a product over k in parts is the product over all of k.
func TestMatmulGoesOn(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, k := range paths() {
		for _, s := range [][3]int{{1, 37, 100}, {3, 64, 17}, {15, 100, 50}, {70, 130, 64}, {130, 65, 1}, {9, 500, 1}} {
			mm := randomMatmul(r, s[0], s[1], s[2], 1)
			want := naiveMatmul(mm)
			part := mm.normal()
			w := newWorker(k, 0, 1, part.packLen())
			for r0 := 0; r0 < mm.k; r0 += 24 {
				p := part
				p.a, p.b, p.k, p.more = part.a[r0*part.m:], part.b[r0*part.n:], min(24, mm.k-r0), r0 > 0
				p.run(w, 0, p.m, 0, p.panels())
			}
			if err := same(mm.y, want); err != nil {
				t.Errorf("%s: %v: %v", k.name, mm, err)
			}
		}
	}
}
