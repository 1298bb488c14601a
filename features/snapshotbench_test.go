package features

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/onmart/onmart/datasets"
)

// manyCards is an engine of the handbook's features after 3 transactions of each of that many cards, on average, within
// 30 days at 10,000 terminals.
func manyCards(tb testing.TB, cards int) *Engine {
	tb.Helper()
	in := cardStream(1)
	p := handbookPlan(tb, in.Schema)
	e := p.NewEngine(2)
	e.DetectDuplicates = true
	rnd := rand.New(rand.NewPCG(3, 4))
	n := 3 * cards
	gap := 30 * datasets.Day / int64(n)
	t := int64(1522540800) * datasets.Second
	var out Rows
	for at := 0; at < n; at += 1 << 16 {
		b := datasets.NewBatch(in.Schema, 1<<16)
		for i := at; i < min(at+1<<16, n); i++ {
			t += rnd.Int64N(2*gap) + 1
			for c, v := range []int64{int64(i), t, rnd.Int64N(int64(cards)), rnd.Int64N(10000), rnd.Int64N(2_000_000), int64(btoi(rnd.IntN(125) == 0))} {
				b.Columns[c].Ints = append(b.Columns[c].Ints, v)
			}
			b.N++
		}
		if err := e.Process(b, &out); err != nil {
			tb.Fatal(err)
		}
	}
	return e
}

// BenchmarkSnapshot writes and restores the state of a million cards: what a daemon does now and then, and at its start.
func BenchmarkSnapshot(b *testing.B) {
	for _, cards := range []int{100_000, 1_000_000} {
		e := manyCards(b, cards)
		var w bytes.Buffer
		b.Run(fmt.Sprintf("cards=%d/write", cards), func(b *testing.B) {
			start := processTime(b)
			for b.Loop() {
				w.Reset()
				if err := e.Snapshot(&w); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(w.Len()))
			b.ReportMetric(float64(processTime(b)-start)/float64(b.N)/1e6, "cpu-ms/op")
		})
		b.Run(fmt.Sprintf("cards=%d/read", cards), func(b *testing.B) {
			start := processTime(b)
			b.SetBytes(int64(w.Len()))
			for b.Loop() {
				fresh := e.p.NewEngine(1)
				if err := fresh.Restore(bytes.NewReader(w.Bytes())); err != nil {
					b.Fatal(err)
				}
				fresh.close()
			}
			b.ReportMetric(float64(processTime(b)-start)/float64(b.N)/1e6, "cpu-ms/op")
		})
	}
}
