//go:build linux && !nocuda && !cu

package emulator

import (
	"testing"

	"github.com/onmart/onmart/cuda"
)

// BenchmarkWords gives the cost of a barrier, a shuffle and a thread without either, each for one thread.
func BenchmarkWords(b *testing.B) {
	d := open(b)
	y := d.alloc(4 << 20)
	for _, c := range []struct {
		name, kernel  string
		grid, threads uint32
		times         int
		args          []any
	}{
		{"barrier", "barriers", 1, 256, 1000, []any{y, int32(1000)}},
		{"shuffle", "shuffles", 1, 256, 1000, []any{y, int32(1000)}},
		{"thread", "increment", 4096, 256, 4096, []any{y, int32(1 << 20)}},
		{"launch", "nothing", 1, 1, 1, nil},
	} {
		f, p := d.function(c.kernel), pointers(b, c.args)
		b.Run(c.name, func(b *testing.B) {
			defer d.here()()
			for b.Loop() {
				d.ok(d.Launch(f, line(c.grid), line(c.threads), 0, d.stream, p))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(c.times)/float64(c.threads), "ns/thread")
		})
	}
	const n = 256
	x := d.alloc(3 * 4 * n * n)
	p := pointers(b, []any{x, x + 4*n*n, x + 8*n*n, int32(n), int32(n), int32(n)})
	f := d.function("tiled")
	b.Run("product", func(b *testing.B) {
		defer d.here()()
		d.ok(d.Fill32(x, 0, 3*n*n, d.stream))
		for b.Loop() {
			d.ok(d.Launch(f, cuda.Dim{X: n / 16, Y: n / 16, Z: 1}, cuda.Dim{X: 16, Y: 16, Z: 1}, 0, d.stream, p))
		}
		b.ReportMetric(2*n*n*n*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
	})
}
