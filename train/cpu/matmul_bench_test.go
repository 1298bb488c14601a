package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// product is a shape of a model: m x k x n and whether the sides are transposed.
type product struct {
	m, k, n        int
	transA, transB bool
}

// name is that of docs/bench/gemm_peers.py: 1024x128x128, with t after a transposed side's size.
func (p product) name() string {
	s := fmt.Sprintf("%dx%dx%d", p.m, p.k, p.n)
	if p.transA {
		s += "_ta"
	}
	if p.transB {
		s += "_tb"
	}
	return s
}

// products are the shapes of the MLPs 32-128-128-1 and 15-500-1 with batches of 64, 1024 and 8192: forward, the
// gradients of weights (a transposed) and of inputs (b transposed), the output layer, and one row.
func products() []product {
	var s []product
	add := func(tA, tB bool, sizes ...[3]int) {
		for _, x := range sizes {
			s = append(s, product{x[0], x[1], x[2], tA, tB})
		}
	}
	add(false, false, [3]int{2048, 2048, 2048}, [3]int{8192, 128, 128}, [3]int{1024, 128, 128}, [3]int{64, 128, 128},
		[3]int{1024, 32, 128}, [3]int{1024, 15, 500}, [3]int{8192, 15, 500}, [3]int{64, 15, 500})
	add(true, false, [3]int{2048, 2048, 2048}, [3]int{128, 1024, 128}, [3]int{128, 8192, 128}, [3]int{32, 1024, 128},
		[3]int{15, 8192, 500}, [3]int{128, 64, 128})
	add(false, true, [3]int{2048, 2048, 2048}, [3]int{8192, 128, 128}, [3]int{1024, 128, 128}, [3]int{64, 128, 128})
	add(true, true, [3]int{2048, 2048, 2048}, [3]int{1024, 128, 128})
	add(false, false, [3]int{8192, 128, 1}, [3]int{1024, 128, 1}, [3]int{64, 128, 1}, [3]int{8192, 500, 1},
		[3]int{1024, 500, 1})
	add(true, false, [3]int{128, 8192, 1}, [3]int{128, 1024, 1}, [3]int{500, 8192, 1})
	add(false, true, [3]int{8192, 1, 128}, [3]int{1024, 1, 128}, [3]int{1024, 1, 500})
	add(false, false, [3]int{1, 32, 128}, [3]int{1, 128, 128}, [3]int{1, 128, 1})
	return s
}

// BenchmarkMatMul runs one product after the other on 1 and 2 workers, which meet after each as in a step. Its figures
// are GFLOP/s, a multiply-add being two, over all and of the quickest run of half a millisecond. ONMART_CPU counts as
// in New.
func BenchmarkMatMul(b *testing.B) {
	k, err := chooseKernels(os.Getenv("ONMART_CPU"))
	if err != nil {
		b.Fatal(err)
	}
	for _, of := range []int{1, 2} {
		for _, s := range products() {
			b.Run(fmt.Sprintf("%s/%d", s.name(), of), func(b *testing.B) { benchProduct(b, k, s, of) })
		}
	}
}

func benchProduct(b *testing.B, k *kernels, s product, threads int) {
	r := rand.New(rand.NewPCG(1, 1))
	mm := &matmul{a: alignedF32(s.m * s.k), b: alignedF32(s.k * s.n), y: alignedF32(s.m * s.n),
		m: s.m, k: s.k, n: s.n, transA: s.transA, transB: s.transB}
	for _, x := range [][]float32{mm.a, mm.b} {
		for i := range x {
			x[i] = r.Float32()
		}
	}
	d := mm.divide(!s.transA) // a gradient of weights does not grow with the batch
	pool := newPool(k, threads, d.pack)
	defer pool.close()
	flops := 2 * float64(s.m) * float64(s.k) * float64(s.n)
	times, run := 0, max(1, int(flopsPerRun/flops))
	best := math.Inf(1) // seconds of a product
	job := func(w *worker) {
		lo, hi := d.split(d.units, w.id, w.of)
		for done := 0; done < times; {
			n := min(run, times-done)
			start := time.Now()
			for range n {
				if lo < hi {
					d.run(w, lo, hi)
				}
				w.wait()
			}
			if done += n; w.id == 0 && n == run {
				best = min(best, time.Since(start).Seconds()/float64(n))
			}
		}
	}
	times = run
	pool.run(threads, job)
	times = b.N
	b.ReportAllocs()
	b.ResetTimer()
	pool.run(threads, job)
	b.StopTimer()
	b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	b.ReportMetric(flops/best/1e9, "best-GFLOP/s")
}

// flopsPerRun is the work between two looks at the clock, about half a millisecond: short enough that on a busy machine
// some runs are not disturbed.
const flopsPerRun = 4e7

// BenchmarkPeak is the rate of one core that does nothing but multiply-adds on registers.
func BenchmarkPeak(b *testing.B) {
	k, err := chooseKernels(os.Getenv("ONMART_CPU"))
	if err != nil {
		b.Fatal(err)
	}
	if k.peak == nil {
		b.Skip("the portable path has no vector instructions")
	}
	const n = 1 << 16
	flops := 0
	for b.Loop() {
		flops += k.peak(n)
	}
	b.ReportMetric(float64(flops)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}
