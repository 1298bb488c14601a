package features

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
)

// cardStream is n transactions like the handbook's: 5,000 cards, 10,000 terminals, 9,600 a day, 0.8 % fraud.
func cardStream(n int) *datasets.Batch {
	s := &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransID, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time},
		{Name: datasets.UserID, Type: datasets.Int64},
		{Name: datasets.StoreID, Type: datasets.Int64},
		{Name: datasets.Amount, Type: datasets.Decimal, Scale: 4},
		{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true},
	}}
	rnd := rand.New(rand.NewPCG(1, 2))
	b := datasets.NewBatch(s, n)
	b.N = n
	t := int64(1522540800) * datasets.Second
	add := func(i int, v int64) { b.Columns[i].Ints = append(b.Columns[i].Ints, v) }
	for i := range n {
		t += rnd.Int64N(18) * datasets.Second
		add(0, int64(i))
		add(1, t)
		add(2, rnd.Int64N(5000))
		add(3, rnd.Int64N(10000))
		add(4, rnd.Int64N(2_000_000))
		add(5, int64(btoi(rnd.IntN(125) == 0)))
	}
	return b
}

func handbookPlan(tb testing.TB, s *datasets.Schema) *Plan {
	tb.Helper()
	spec, err := Builtin("fraud-handbook")
	if err != nil {
		tb.Fatal(err)
	}
	p, err := spec.Plan(s)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// processTime is the CPU time this process has used, in ns: what to compare on a machine that others use too.
func processTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkBackfill is the engine alone over batches of 64k rows in memory.
func BenchmarkBackfill(b *testing.B) {
	in := cardStream(1_300_000)
	p := handbookPlan(b, in.Schema)
	for _, c := range []struct {
		threads int
		state   bool
	}{{1, false}, {2, false}, {1, true}} {
		b.Run(fmt.Sprintf("threads=%d/state=%t", c.threads, c.state), func(b *testing.B) {
			start := processTime(b)
			for b.Loop() {
				e := p.NewEngine(c.threads)
				if !c.state {
					e.withoutState()
				}
				var out Rows
				for at := 0; at < in.N; at += 1 << 16 {
					if err := e.Process(in.Slice(at, min(at+1<<16, in.N)), &out); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(processTime(b)-start)/float64(b.N*in.N), "cpu-ns/row")
			b.ReportMetric(float64(b.N*in.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkLive is one event at a time on a warm engine that looks for duplicates.
func BenchmarkLive(b *testing.B) {
	in := cardStream(1_300_000)
	p := handbookPlan(b, in.Schema)
	e := p.NewEngine(1)
	e.DetectDuplicates = true
	var out Rows
	if err := e.Process(in.Slice(0, 1_000_000), &out); err != nil {
		b.Fatal(err)
	}
	one := in.Slice(0, 1)
	id, last := int64(in.N), in.Columns[1].Ints[999_999]
	b.ReportAllocs()
	start := processTime(b)
	i := 1_000_000
	took := make([]int64, 0, 1<<20)
	for b.Loop() {
		for c := range one.Columns {
			one.Columns[c].Ints[0] = in.Columns[c].Ints[i]
		}
		id++
		last += 9 * datasets.Second
		one.Columns[0].Ints[0], one.Columns[1].Ints[0] = id, last
		before := time.Now()
		if err := e.Process(one, &out); err != nil {
			b.Fatal(err)
		}
		if len(took) < cap(took) {
			took = append(took, int64(time.Since(before)))
		}
		if i++; i == in.N {
			i = 1_000_000
		}
	}
	b.ReportMetric(float64(processTime(b)-start)/float64(b.N), "cpu-ns/event")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
}
