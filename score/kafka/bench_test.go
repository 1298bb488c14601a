package kafka

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// benchLines are as the scorer's: keyed, 200 bytes of JSON that differ.
func benchLines(n int) []Line {
	lines := make([]Line, n)
	for i := range lines {
		v := fmt.Appendf(nil, `{"score_id":"%016x","trans_id":"%d","score":0.%07d,"decision":"allow","threshold":0.5,"model":"fraud-2026-11-27","event_time":"2026-11-27T08:00:%02d.%03dZ"`,
			uint64(i)*0x9E3779B97F4A7C15, 1_000_000+i*7, i*7919%10_000_000, i%60, i%1000)
		for len(v) < 199 {
			v = append(v, ' ')
		}
		lines[i] = Line{Key: fmt.Append(nil, i*31), Value: append(v, '}')}
	}
	return lines
}

// benchmarkDeliver delivers size lines at a time; it reports the time of one delivery and the process's own CPU time a
// line.
func benchmarkDeliver(b *testing.B, k *Sink, source string, size int) {
	lines := benchLines(size)
	next := map[Partition]int64{{source, 0}: 0}
	took := make([]time.Duration, 0, b.N)
	for i := range 20 {
		next[Partition{source, 0}] = int64(time.Now().UnixNano() + int64(i))
		if err := k.Deliver(b.Context(), lines, next, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	cpu := processTime(b)
	for b.Loop() {
		start := time.Now()
		next[Partition{source, 0}] = start.UnixNano()
		if err := k.Deliver(b.Context(), lines, next, nil); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	cpu = processTime(b) - cpu
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(len(took)*size), "cpu-ns/line")
}

func processTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDeliver is the sink's own cost, and that of the imitation it delivers to.
func BenchmarkDeliver(b *testing.B) {
	_, url := fake(b, kfake.SeedTopics(1, "in"), kfake.SeedTopics(2, "out"), kfake.BlackholeProduce())
	k, err := NewSink(b.Context(), parse(b, url+"out"), SinkOptions{Group: "g"})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	benchmarkDeliver(b, k, "in", 5000)
}
