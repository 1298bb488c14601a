package cpu_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

// The recommender that BenchmarkEmbed trains: docs/bench/embed_peers.py trains the same one in PyTorch.
const (
	embedUsers, embedItems, embedDim = 100_000, 20_000, 64
	embedBatch, embedOthers          = 8192, 8
	embedBatches                     = 16
	embedExponent                    = 1.05 // of Zipf's law
)

// itemShares are the weights by which items are drawn.
func itemShares(zipf bool) []float64 {
	w := make([]float64, embedItems)
	for i := range w {
		w[i] = 1
		if zipf {
			w[i] = math.Pow(float64(i+1), -embedExponent)
		}
	}
	return w
}

// embedColumns are user and item of each row and, unless they are drawn in the step, its other candidates.
func embedColumns(zipf, draw bool) []program.Column {
	r := rand.New(rand.NewPCG(1, 2))
	cumulated := itemShares(zipf)
	for i := range cumulated[1:] {
		cumulated[i+1] += cumulated[i]
	}
	rows, width := embedBatch*embedBatches, 1+embedOthers
	if draw {
		width = 1
	}
	user := program.Column{Name: "user", Rows: rows, Width: 1, F32: make([]float32, rows)}
	item := program.Column{Name: "item", Rows: rows, Width: width, F32: make([]float32, rows*width)}
	for i := range user.F32 {
		user.F32[i] = float32(r.IntN(embedUsers))
	}
	for i := range item.F32 {
		item.F32[i] = float32(sort.SearchFloat64s(cumulated, r.Float64()*cumulated[embedItems-1]))
	}
	return []program.Column{user, item}
}

// embedModel scores a positive and its candidates by the inner product with the user.
func embedModel(bpr, draw bool) func(b *graph.Builder) (graph.Model, error) {
	return func(b *graph.Builder) (graph.Model, error) {
		users, items := b.Table("users", embedUsers, embedDim, .05), b.Table("items", embedItems, embedDim, .05)
		user := b.Lookup(users, b.Input("user", 1))
		var idx *graph.Node
		if draw {
			idx = b.Concat(b.Input("item", 1), b.SampleRows(b.Const("cdf", embedItems), embedOthers))
		} else {
			idx = b.Input("item", 1+embedOthers)
		}
		s := b.LookupDot(items, idx, user)
		if bpr {
			return graph.Model{Loss: b.CandidateBPR(s, idx, nil), Output: user}, nil
		}
		return graph.Model{Loss: b.CandidateSoftmax(s, idx, nil, nil), Output: user}, nil
	}
}

// embedExec is the model ready to run.
func embedExec(tb testing.TB, threads int, zipf, bpr, draw bool) program.Exec {
	tb.Helper()
	rows := embedBatch * embedBatches
	set, err := graph.Compile(embedModel(bpr, draw), graph.Options{Batch: embedBatch, Rows: rows, Tile: 64,
		Optimizer: graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8}})
	if err != nil {
		tb.Fatal(err)
	}
	backend, err := cpu.New(cpu.Options{Threads: threads})
	if err != nil {
		tb.Fatal(err)
	}
	exec, err := backend.Compile(set)
	if err != nil {
		tb.Fatal(err)
	}
	start := set.Initial(1)
	if draw {
		cdf, _, err := program.SampleBy(itemShares(zipf))
		if err != nil {
			tb.Fatal(err)
		}
		start = append(start, program.Tensor{Name: "cdf", DType: program.F32, Shape: []int{embedItems}, F32: cdf})
	}
	if err := exec.Import(start); err != nil {
		tb.Fatal(err)
	}
	data := program.Data{Columns: embedColumns(zipf, draw), Schedule: program.Schedule{Seed: 1,
		Train: program.Range{To: rows}, Rates: slices.Repeat([]float32{1e-3}, 1<<16)}}
	if err := exec.Bind(data); err != nil {
		tb.Fatal(err)
	}
	return exec
}

// BenchmarkEmbed is a step of row-sparse Adam on two embedding tables of 100k and 20k rows of 64, 8192 examples of a
// positive and eight others.
func BenchmarkEmbed(b *testing.B) {
	for _, ids := range []string{"uniform", "zipf"} {
		for _, loss := range []string{"softmax", "bpr"} {
			for _, negatives := range []string{"bound", "drawn"} {
				for _, threads := range []int{1, 2} {
					b.Run(fmt.Sprintf("%s/%s/%s/threads=%d", ids, loss, negatives, threads), func(b *testing.B) {
						exec := embedExec(b, threads, ids == "zipf", loss == "bpr", negatives == "drawn")
						defer exec.Close()
						slots, step := make([]float64, 2), 0
						run := func() {
							if err := exec.Run(step, 1, slots); err != nil {
								b.Fatal(err)
							}
							step++
						}
						for range 3 {
							run()
						}
						b.ReportAllocs()
						for b.Loop() {
							run()
						}
						b.ReportMetric(float64(b.N*embedBatch)/b.Elapsed().Seconds(), "examples/s")
					})
				}
			}
		}
	}
}
