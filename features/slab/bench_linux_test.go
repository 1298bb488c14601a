package slab

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// cpuNanos is the time that this thread has run: unlike the clock it does not count what other programs take.
func cpuNanos() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return t.Nano()
}

// BenchmarkInsert puts ten million keys in and reports how long single insertions took, the measurement itself
// (some 0.2 us) included.
func BenchmarkInsert(b *testing.B) {
	const keys = 10_000_000
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	took := make([]uint32, keys)
	for range b.N {
		a := New(0, "")
		x := NewInts(a)
		start := cpuNanos()
		for i := range keys / 2 {
			x.ID(int64(i) * 7919)
		}
		b.ReportMetric(float64(cpuNanos()-start)/(keys/2), "ns/key")
		last := cpuNanos()
		for i := keys / 2; i < keys; i++ {
			x.ID(int64(i) * 7919)
			now := cpuNanos()
			took[i] = uint32(now - last)
			last = now
		}
		a.Close()
	}
	took = took[keys/2:]
	slices.Sort(took)
	for _, q := range []float64{0.5, 0.99, 0.999, 0.9999, 0.99999} {
		b.ReportMetric(float64(took[int(q*float64(len(took)))]), fmt.Sprintf("p%g-ns", 100*q))
	}
	b.ReportMetric(float64(took[len(took)-1]), "worst-ns")
}

// BenchmarkTrim runs over a state that is ten times its budget, a key at a time in no order, and trims every 4096 keys.
func BenchmarkTrim(b *testing.B) {
	const keys = 4_000_000
	for _, budget := range []int64{0, 64 << 20, 6 << 20} {
		b.Run(fmt.Sprintf("budget/%dMiB", budget>>20), func(b *testing.B) {
			a := New(budget, b.TempDir())
			defer a.Close()
			x := NewInts(a)
			for i := range keys {
				x.ID(int64(i) * 7919)
				if i%4096 == 0 {
					if err := a.Trim(); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ResetTimer()
			for i := range b.N {
				x.ID(int64(mix(uint64(i))%keys) * 7919)
				if i%4096 == 0 {
					if err := a.Trim(); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(a.resident())/(1<<20), "MiB-resident")
			b.ReportMetric(float64(a.Held())/(1<<20), "MiB-held")
		})
	}
}
