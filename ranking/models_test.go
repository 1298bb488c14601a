package ranking

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// randomBought is users by items, each cell 1 with the chance given.
func randomBought(t testing.TB, users, items int, chance float64, seed uint64) *Matrix {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	var rows, cols []int32
	var values []float32
	for u := range users {
		for i := range items {
			if r.Float64() < chance {
				rows, cols, values = append(rows, int32(u)), append(cols, int32(i)), append(values, 1)
			}
		}
	}
	m, err := NewMatrix(users, items, rows, cols, values)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func dense(m *Matrix) [][]float64 {
	d := make([][]float64, m.Rows)
	for r := range d {
		d[r] = make([]float64, m.Cols)
		cols, values := m.Row(r)
		for k, c := range cols {
			d[r][c] = float64(values[k])
		}
	}
	return d
}

// TestEASE: each column is the ridge regression of an item on the others.
func TestEASE(t *testing.T) {
	x, err := NewMatrix(4, 3, []int32{0, 0, 1, 1, 2, 3, 3}, []int32{0, 1, 0, 2, 1, 0, 1},
		[]float32{1, 1, 1, 1, 1, 1, 1})
	if err != nil {
		t.Fatal(err)
	}
	b, err := EASE(x, 2, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]float64{{0, 0, 0}, {0, 0, 0}, {0, 0, 0}}
	g := [][]float64{{5, 2, 1}, {2, 5, 0}, {1, 0, 3}}
	solve := func(a, b, j int) (wa, wb float64) { // the two weights of column j from items a and b
		det := g[a][a]*g[b][b] - g[a][b]*g[a][b]
		return (g[b][b]*g[a][j] - g[a][b]*g[b][j]) / det, (g[a][a]*g[b][j] - g[a][b]*g[a][j]) / det
	}
	want[1][0], want[2][0] = solve(1, 2, 0)
	want[0][1], want[2][1] = solve(0, 2, 1)
	want[0][2], want[1][2] = solve(0, 1, 2)
	got := dense(b)
	for i := range want {
		for j := range want[i] {
			if !(math.Abs(got[i][j]-want[i][j]) <= 1e-6) {
				t.Errorf("weight of %d for %d is %v, want %v", i, j, got[i][j], want[i][j])
			}
		}
	}
	one, err := EASE(x, 2, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	for j, list := range dense(one.Transpose()) {
		kept, most := 0, 0.0
		for i, v := range list {
			most = max(most, math.Abs(got[i][j]))
			if v != 0 {
				kept++
				if !(math.Abs(v-got[i][j]) <= 1e-6) {
					t.Errorf("pruned: weight of %d for %d is %v, was %v", i, j, v, got[i][j])
				}
			}
		}
		if kept != 1 {
			t.Errorf("column %d keeps %d weights", j, kept)
		}
	}
	for _, lambda := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		if _, err := EASE(x, lambda, 0, 1); err == nil {
			t.Errorf("lambda %v is taken", lambda)
		}
	}
}

// TestItemNeighbours: against cosines of dense columns.
func TestItemNeighbours(t *testing.T) {
	x := randomBought(t, 30, 12, .3, 1)
	d := dense(x)
	cosine := func(i, j int) float64 {
		var ij, ii, jj float64
		for u := range d {
			ij, ii, jj = ij+d[u][i]*d[u][j], ii+d[u][i]*d[u][i], jj+d[u][j]*d[u][j]
		}
		if ij == 0 {
			return 0
		}
		return ij / math.Sqrt(ii*jj)
	}
	for _, keep := range []int{1, 3, 100} {
		m, err := ItemNeighbours(x, keep, 2)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 12 {
			var all []Scored
			for j := range 12 {
				if c := cosine(i, j); j != i && c > 0 {
					all = append(all, Scored{int32(j), float32(c)})
				}
			}
			SortScored(all)
			all = all[:min(keep, len(all))]
			cols, values := m.Row(i)
			if len(cols) != len(all) {
				t.Fatalf("item %d has %d neighbours, want %d", i, len(cols), len(all))
			}
			for _, want := range all {
				k := slices.Index(cols, want.Item)
				if k < 0 || !(math.Abs(float64(values[k]-want.Score)) <= 1e-6) {
					t.Errorf("item %d: neighbour %v is not among %v %v", i, want, cols, values)
				}
			}
		}
	}
	if _, err := ItemNeighbours(x, 0, 1); err == nil {
		t.Error("no neighbours are taken")
	}
}

// TestUserNeighbours: against cosines of all users, and the cut to the latest buyers.
func TestUserNeighbours(t *testing.T) {
	l := shopLog(50, 20, 60, 8)
	now := at(61)
	n, err := newUserNeighbours(l, now)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewModel(Users, l, now, Parts{})
	if err != nil {
		t.Fatal(err)
	}
	d, p, w := dense(n.set), newPast(l.Items), n.newNear()
	for u := range 50 {
		p.read(int32(u), m.History(int32(u)), now)
		n.find(w, p)
		size := func(x []float64) (s float64) {
			for _, v := range x {
				s += v
			}
			return s
		}
		var all []Scored
		sum := 0.0
		for v := range 50 {
			both := 0.0
			for i := range d[u] {
				both += d[u][i] * d[v][i]
			}
			if c := both / math.Sqrt(size(d[u])*size(d[v])); v != u && c > 0 {
				all = append(all, Scored{int32(v), float32(c)})
				sum += c
			}
		}
		if len(all) != len(w.list) {
			t.Fatalf("user %d has %d neighbours, want %d", u, len(w.list), len(all))
		}
		for _, x := range all {
			k := slices.IndexFunc(w.list, func(y Scored) bool { return y.Item == x.Item })
			if k < 0 || !(math.Abs(float64(w.list[k].Score)-float64(x.Score)/sum) <= 1e-5) {
				t.Errorf("user %d: neighbour %v is not among %v", u, x, w.list)
			}
		}
	}
	many := &Log{Users: maxBuyers + 10, Items: 2}
	for i := range many.Users {
		many.User, many.Item = append(many.User, int32(i)), append(many.Item, 0)
		many.Basket, many.Time = append(many.Basket, int32(i)), append(many.Time, int64(i))
	}
	if n, err = newUserNeighbours(many, int64(many.Users)); err != nil {
		t.Fatal(err)
	}
	buyers, _ := n.buyers.Row(0)
	if len(buyers) != maxBuyers || buyers[0] != 10 {
		t.Errorf("%d buyers from %d on, want the latest %d", len(buyers), buyers[0], maxBuyers)
	}
}

// TestMetrics: figures by hand, as nDCG with binary gain, recall and hits are defined.
func TestMetrics(t *testing.T) {
	l := &Log{Users: 3, Items: 6, User: []int32{0, 1, 2, 2}, Item: []int32{0, 1, 2, 3}, Basket: []int32{0, 1, 2, 2},
		Time: []int64{1, 2, 3, 3}}
	m, err := NewModel(Popular, l, 10, Parts{}) // every item but 4 and 5 is sold once: they come by number
	if err != nil {
		t.Fatal(err)
	}
	later := &Log{Users: 3, Items: 6, User: []int32{0, 0, 1, 1, 2}, Item: []int32{0, 1, 3, 3, 5},
		Basket: []int32{3, 3, 4, 4, 5}, Time: []int64{11, 11, 12, 12, 13}}
	r, err := Evaluate(m, later, 3, 1)
	if err != nil {
		t.Fatal(err)
	}
	log2 := func(x float64) float64 { return 1 / math.Log2(x) }
	// User 0 bought 0 and 1, of the list 0, 1, 2; user 1 bought 3, which is not in it; user 2 only what was never sold.
	all := Metrics{Users: 2, NDCG: .5, Recall: .5, Hit: .5}
	// New to user 0 is 1, of the list 1, 2, 3; new to user 1 is 3, of the list 0, 2, 3.
	fresh := Metrics{Users: 2, NDCG: (1 + log2(4)) / 2, Recall: 1, Hit: 1}
	if fmt.Sprintf("%.9f", r.All.NDCG) != fmt.Sprintf("%.9f", all.NDCG) || r.All.Users != 2 || r.All.Recall != .5 ||
		r.All.Hit != .5 {
		t.Errorf("all: %+v, want %+v", r.All, all)
	}
	if !(math.Abs(r.New.NDCG-fresh.NDCG) <= 1e-12) || r.New.Users != 2 || r.New.Recall != 1 || r.New.Hit != 1 {
		t.Errorf("new: %+v, want %+v", r.New, fresh)
	}
	if _, err := Evaluate(m, &Log{Users: 3, Items: 7}, 3, 1); err == nil {
		t.Error("another catalogue is taken")
	}
}

// TestTogether: counts, confidence and lift by hand, and rules that were planted.
func TestTogether(t *testing.T) {
	l := &Log{Users: 1, Items: 4}
	add := func(basket int, items ...int32) {
		for _, i := range items {
			l.User, l.Item, l.Basket, l.Time = append(l.User, 0), append(l.Item, i), append(l.Basket,
				int32(basket)), append(l.Time, int64(basket))
		}
	}
	for b := range 10 {
		switch {
		case b < 4:
			add(b, 0, 1)
		case b < 6:
			add(b, 0, 2)
		default:
			add(b, 3)
		}
	}
	g, err := NewTogether(l, 5, 2)
	if err != nil {
		t.Fatal(err)
	}
	if g.Purchases != 10 || !slices.Equal(g.Sold, []int32{6, 4, 2, 4}) {
		t.Errorf("%d purchases, sold %v", g.Purchases, g.Sold)
	}
	pairs, err := g.Basket([]int32{1}, 5, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Pair{Item: 0, Score: float32(4 / (math.Sqrt(24) + steady)), With: 1, Support: 4, Confidence: 1,
		Lift: 1 / .6, Cosine: 4 / math.Sqrt(24)}
	if len(pairs) != 1 || pairs[0].Item != want.Item || pairs[0].Score != want.Score || pairs[0].With != 1 ||
		pairs[0].Support != 4 ||
		pairs[0].Confidence != 1 || !(math.Abs(pairs[0].Lift-want.Lift) <= 1e-12) ||
		!(math.Abs(pairs[0].Cosine-want.Cosine) <= 1e-12) {
		t.Errorf("%+v, want %+v", pairs, want)
	}
	if pairs, _ = g.Basket([]int32{0, 1}, 5, nil); len(pairs) != 0 {
		t.Errorf("two purchases are no pair, and what is in the basket is not offered: %+v", pairs)
	}
	excluded := NewBitmap(4)
	excluded.Set(0)
	if pairs, _ = g.Basket([]int32{1}, 5, excluded); len(pairs) != 0 {
		t.Errorf("excluded: %+v", pairs)
	}
	if pairs, _ = g.Basket([]int32{1}, 0, nil); len(pairs) != 0 {
		t.Errorf("none are wanted: %+v", pairs)
	}
	if _, err = g.Basket([]int32{9}, 5, nil); err == nil {
		t.Error("an item outside the catalogue is taken")
	}
}
