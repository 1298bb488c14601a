package ranking

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// paths are those that this processor runs; of two, -short takes the fast one.
func paths(tb testing.TB) map[string]path {
	switch {
	case !hasAVX2():
		tb.Log("no AVX2 here: only the portable kernels are tested")
		return map[string]path{"portable": portable}
	case testing.Short():
		return map[string]path{"avx2": avx2}
	}
	return map[string]path{"portable": portable, "avx2": avx2}
}

// vectors are n random rows; with ties, values are so coarse that many scores are equal.
func randomVectors(r *rand.Rand, n, dim int, ties bool) []float32 {
	v := make([]float32, n*dim)
	for i := range v {
		v[i] = float32(r.NormFloat64())
		if ties {
			v[i] = float32(r.IntN(3) - 1)
		}
	}
	if n > 3 {
		clear(v[dim : 2*dim]) // a vector of length 0
		for j := range dim {
			v[2*dim+j] *= 1e-30 // products below the normal range
			v[3*dim+j] *= 100
		}
	}
	return v
}

// chainScore is a score as documented, by the exact fused multiply-add.
func chainScore(q, v []float32) float32 {
	var s float32
	for k := range q {
		s = fma32Exact(q[k], v[k], s)
	}
	return s
}

// naiveSearch sorts all scores.
func naiveSearch(vectors, q []float32, k int, excluded func(int32) bool) []Scored {
	var all []Scored
	for i := range len(vectors) / len(q) {
		if !excluded(int32(i)) {
			all = append(all, Scored{int32(i), chainScore(q, vectors[i*len(q):][:len(q)])})
		}
	}
	SortScored(all)
	return all[:min(k, len(all))]
}

func sameLists(tb testing.TB, what string, got, want []Scored) {
	tb.Helper()
	if !slices.EqualFunc(got, want, func(a, b Scored) bool {
		return a.Item == b.Item && math.Float32bits(a.Score) == math.Float32bits(b.Score)
	}) {
		tb.Fatalf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// TestSearch holds single and batch searches, on each path and for 1 to 3 threads, against sorting all scores.
func TestSearch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, p := range paths(t) {
		for _, c := range []struct {
			n, dim, queries, k int
			ties               bool
		}{
			{0, 4, 2, 3, false}, {1, 1, 7, 1, false}, {5, 3, 1, 10, true}, {16, 8, 6, 4, true}, {63, 7, 13, 5, false},
			{64, 64, 12, 10, true}, {65, 65, 5, 65, false}, {1000, 2, 100, 10, true}, {3000, 16, 99, 17, false},
			{5000, 5, 7, 300, true}, {2100, 64, 20, 10, false},
		} {
			vectors, queries := randomVectors(r, c.n, c.dim, c.ties), randomVectors(r, c.queries, c.dim, c.ties)
			x, err := newIndex(p, vectors, c.dim)
			if err != nil {
				t.Fatal(err)
			}
			excluded := NewBitmap(c.n / 2) // shorter than the items
			for i := range c.n / 2 {
				if r.IntN(3) == 0 {
					excluded.Set(int32(i))
				}
			}
			seen := randomMatrix(r, c.queries, c.n, 0.1)
			var want, single [][]Scored
			for q := range c.queries {
				query := queries[q*c.dim:][:c.dim]
				items, _ := seen.Row(q)
				own := NewBitmap(c.n)
				copy(own, excluded)
				for _, item := range items {
					own.Set(item)
				}
				want = append(want, naiveSearch(vectors, query, c.k, own.Has))
				got, err := x.Search(nil, query, c.k, own)
				if err != nil {
					t.Fatal(err)
				}
				single = append(single, got)
				sameLists(t, fmt.Sprintf("%s %+v query %d", name, c, q), got, want[q])
				all, err := x.Scores(nil, query)
				if err != nil {
					t.Fatal(err)
				}
				for i, s := range all {
					if w := chainScore(query, vectors[i*c.dim:][:c.dim]); math.Float32bits(s) != math.Float32bits(w) {
						t.Fatalf("%s %+v: the score of item %d is %v, want %v", name, c, i, s, w)
					}
				}
			}
			for threads := 1; threads <= 3; threads++ {
				lists, err := x.SearchBatch(Batch{Queries: queries, K: c.k, Excluded: excluded, Seen: seen, Threads: threads})
				if err != nil {
					t.Fatal(err)
				}
				for q := range lists {
					sameLists(t, fmt.Sprintf("%s %+v batch, query %d, %d threads", name, c, q, threads), lists[q], single[q])
				}
			}
		}
	}
}

// randomMatrix has each cell with the given probability, with a value of 1 to 5.
func randomMatrix(r *rand.Rand, rows, cols int, share float64) *Matrix {
	var ri, ci []int32
	var v []float32
	for i := range rows {
		for j := range cols {
			if r.Float64() < share {
				ri, ci, v = append(ri, int32(i)), append(ci, int32(j)), append(v, float32(1+r.IntN(5)))
			}
		}
	}
	m, err := NewMatrix(rows, cols, ri, ci, v)
	if err != nil {
		panic(err)
	}
	return m
}

// FuzzSearch finds data for which a search and sorting differ, above all at the bound that ends a search: few
// distinct directions and lengths make scores that are equal to it or a rounding away.
func FuzzSearch(f *testing.F) {
	f.Add(uint64(1), uint16(100), uint8(3), uint8(10))
	f.Add(uint64(7), uint16(1000), uint8(1), uint8(1))
	f.Add(uint64(9), uint16(300), uint8(17), uint8(200))
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, dim, k uint8) {
		items, d := int(n)%3000, int(dim)%40+1
		r := rand.New(rand.NewPCG(seed, 3))
		directions := randomVectors(r, 4, d, seed%2 == 0)
		vectors := make([]float32, 0, items*d)
		for range items {
			scale := float32(math.Exp2(float64(r.IntN(3)))) * (1 + float32(r.IntN(4))*0x1p-23)
			for _, e := range directions[r.IntN(4)*d:][:d] {
				vectors = append(vectors, e*scale)
			}
		}
		query := slices.Clone(directions[r.IntN(4)*d:][:d])
		excluded := NewBitmap(items)
		for range items / 10 {
			excluded.Set(int32(r.IntN(items)))
		}
		want := naiveSearch(vectors, query, int(k), excluded.Has)
		for name, p := range paths(t) {
			x, err := newIndex(p, vectors, d)
			if err != nil {
				t.Fatal(err)
			}
			got, err := x.Search(nil, query, int(k), excluded)
			if err != nil {
				t.Fatal(err)
			}
			sameLists(t, name, got, want)
		}
	})
}

// TestReach: the bound that ends a search is above every score, also of vectors along the query, where it is tight.
func TestReach(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 2000 {
		dim := 1 + r.IntN(100)
		q := randomVectors(r, 1, dim, false)
		v := make([]float32, dim)
		scale := float32(math.Exp2(float64(r.IntN(100) - 50)))
		for i := range v {
			v[i] = q[i] * scale
		}
		x, err := newIndex(portable, v, dim)
		if err != nil {
			t.Fatal(err)
		}
		if s := chainScore(q, v); x.reach(s, norm(q)) == 0 {
			t.Fatalf("dim %d, scale %v: an item of the score %v is out of reach", dim, scale, s)
		}
	}
}

func TestSearchRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	x, err := NewIndex([]float32{1, 2, 3, 4}, 2)
	if err != nil {
		t.Fatal(err)
	}
	two := &Matrix{Rows: 2, Cols: 2, Start: []int{0, 0, 0}}
	for _, c := range []struct {
		want string
		do   func() error
	}{
		{"item 1, dimension 0 is NaN", func() error { _, err := NewIndex([]float32{1, 2, nan, 4}, 2); return err }},
		{"item 0, dimension 1 is +Inf", func() error { _, err := NewIndex([]float32{1, inf}, 2); return err }},
		{"3 numbers are no vectors of 2", func() error { _, err := NewIndex([]float32{1, 2, 3}, 2); return err }},
		{"no vectors of 0", func() error { _, err := NewIndex(nil, 0); return err }},
		{"dimension 1 is NaN", func() error { _, err := x.Search(nil, []float32{1, nan}, 1, nil); return err }},
		{"query of 1 numbers", func() error { _, err := x.Search(nil, []float32{1}, 1, nil); return err }},
		{"overflow", func() error { _, err := x.Search(nil, []float32{1, 1e38}, 1, nil); return err }},
		{"best -1", func() error { _, err := x.Search(nil, []float32{1, 1}, -1, nil); return err }},
		{"query 1: ranking: the query's dimension 0 is -Inf", func() error {
			_, err := x.SearchBatch(Batch{Queries: []float32{1, 1, -inf, 1}, K: 1})
			return err
		}},
		{"3 numbers are no queries", func() error {
			_, err := x.SearchBatch(Batch{Queries: make([]float32, 3), K: 1})
			return err
		}},
		{"-1 threads", func() error { _, err := x.SearchBatch(Batch{Threads: -1}); return err }},
		{"best -2", func() error { _, err := x.SearchBatch(Batch{K: -2}); return err }},
		{"want a row for each query", func() error {
			_, err := x.SearchBatch(Batch{Queries: []float32{1, 1}, Seen: two})
			return err
		}},
		{"ONMART_CPU=neon is not known", func() error { _, err := choosePath("neon"); return err }},
	} {
		if err := c.do(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got the error %v, want one with %q", err, c.want)
		}
	}
	if list, err := x.Search(nil, []float32{1, 1}, 0, nil); err != nil || len(list) != 0 {
		t.Errorf("the best 0: %v, %v", list, err)
	}
}

// TestTop holds the best of given scores against sorting them, with infinities, ties and excluded items among them.
func TestTop(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 1))
	for range 500 {
		n, k := r.IntN(200), r.IntN(30)
		scores := make([]float32, n)
		excluded := NewBitmap(n)
		var want []Scored
		for i := range scores {
			switch scores[i] = float32(r.IntN(20)); r.IntN(10) {
			case 0:
				scores[i] = float32(math.Inf(1))
			case 1, 2, 3:
				scores[i] = float32(math.Inf(-1))
			}
			if r.IntN(3) == 0 {
				excluded.Set(int32(i))
			} else {
				want = append(want, Scored{int32(i), scores[i]})
			}
		}
		SortScored(want)
		got, err := Top(nil, scores, k, excluded)
		if err != nil {
			t.Fatal(err)
		}
		sameLists(t, fmt.Sprintf("best %d of %v", k, scores), got, want[:min(k, len(want))])
		if n > 0 {
			scores[r.IntN(n)] = float32(math.NaN())
			if _, err := Top(nil, scores, k, excluded); err == nil || !strings.Contains(err.Error(), "is NaN") {
				t.Fatalf("NaN among %v: %v", scores, err)
			}
		}
	}
	if _, err := Top(nil, nil, -1, nil); err == nil {
		t.Error("the best -1 were found")
	}
	scores, list := []float32{1, 2, 3}, make([]Scored, 0, 2)
	if n := testing.AllocsPerRun(10, func() { list, _ = Top(list, scores, 2, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestSearchAllocates: a search into a list with room allocates nothing.
func TestSearchAllocates(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for name, p := range paths(t) {
		x, err := newIndex(p, randomVectors(r, 500, 8, false), 8)
		if err != nil {
			t.Fatal(err)
		}
		query, list := randomVectors(r, 1, 8, false), make([]Scored, 0, 10)
		if n := testing.AllocsPerRun(10, func() { list, err = x.Search(list, query, 10, nil) }); n != 0 || err != nil {
			t.Errorf("%s: %v allocations, %v", name, n, err)
		}
	}
}

// cloud are vectors as factorisations make them: clusters of taste, a decaying spectrum, uneven lengths. flat are
// Gaussian: lengths are nearly equal, so that the bound on scores saves nothing.
func cloud(r *rand.Rand, n, dim int, flat bool) (items, queries []float32) {
	const centres, nq = 500, 64
	base := make([]float32, centres*dim)
	for i := range base {
		base[i] = float32(r.NormFloat64() / math.Sqrt(float64(i%dim+1)))
	}
	row := func(dst []float32, uneven float64) {
		c, scale := r.IntN(centres), float32(math.Exp(uneven*r.NormFloat64()))
		for j := range dst {
			if flat {
				dst[j] = float32(r.NormFloat64())
			} else {
				dst[j] = (base[c*dim+j] + float32(0.5*r.NormFloat64()/math.Sqrt(float64(j+1)))) * scale
			}
		}
	}
	items, queries = make([]float32, n*dim), make([]float32, nq*dim)
	for i := range n {
		row(items[i*dim:][:dim], 0.3)
	}
	for i := range nq {
		row(queries[i*dim:][:dim], 0)
	}
	return items, queries
}

func BenchmarkSearch(b *testing.B) {
	for _, n := range []int{20_000, 1_000_000} {
		for _, flat := range []bool{false, true} {
			items, queries := cloud(rand.New(rand.NewPCG(5, 5)), n, 64, flat)
			x, err := NewIndex(items, 64)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("items=%d/flat=%v", n, flat), func(b *testing.B) {
				b.ReportAllocs()
				list := make([]Scored, 0, 10)
				for i := 0; b.Loop(); i++ {
					if list, err = x.Search(list, queries[i%64*64:][:64], 10, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSearchBatch(b *testing.B) {
	for _, flat := range []bool{false, true} {
		r := rand.New(rand.NewPCG(5, 5))
		items, few := cloud(r, 20_000, 64, flat)
		var queries []float32
		for range 100 {
			queries = append(queries, few...)
		}
		x, err := NewIndex(items, 64)
		if err != nil {
			b.Fatal(err)
		}
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("flat=%v/threads=%d", flat, threads), func(b *testing.B) {
				for b.Loop() {
					if _, err := x.SearchBatch(Batch{Queries: queries, K: 10, Threads: threads}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*6400/b.Elapsed().Seconds(), "users/s")
			})
		}
	}
}
