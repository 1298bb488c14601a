package ranking

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// at is an instant of the tests' logs, in days.
func at(d float64) int64 { return int64(d * day) }

// shopLog is purchases of users with one of two tastes, the even items or the odd ones, and a staple that each buys
// again every ten days or so.
func shopLog(users, items, length int, seed uint64) *Log {
	r := rand.New(rand.NewPCG(seed, 1))
	type line struct {
		user, item, basket int32
		time               int64
	}
	var all []line
	basket := int32(0)
	for u := range users {
		staple := int32(r.IntN(items/2)*2 + u%2)
		for d := r.IntN(10); d < length; d += 8 + r.IntN(5) {
			bought := []int32{staple}
			for range 2 + r.IntN(3) {
				bought = append(bought, int32(r.IntN(items/2)*2+u%2))
			}
			slices.Sort(bought)
			for _, i := range slices.Compact(bought) {
				all = append(all, line{int32(u), i, basket, at(float64(d)) + r.Int64N(day/2)})
			}
			basket++
		}
	}
	slices.SortStableFunc(all, func(a, b line) int { return int((a.time - b.time) / 1e3) })
	l := &Log{Users: users, Items: items}
	for _, x := range all {
		l.User, l.Item, l.Basket, l.Time = append(l.User, x.user), append(l.Item, x.item), append(l.Basket,
			x.basket), append(l.Time, x.time)
	}
	return l
}

func (l *Log) between(from, to int64) *Log {
	all := l.Until(to)
	n := len(l.Until(from).User)
	return &Log{Users: l.Users, Items: l.Items, User: all.User[n:], Item: all.Item[n:], Basket: all.Basket[n:],
		Time: all.Time[n:]}
}

// partsOf fits everything but a network.
func partsOf(t testing.TB, l *Log, now int64, threads int) Parts {
	t.Helper()
	x, err := l.Matrix(now, 0)
	if err != nil {
		t.Fatal(err)
	}
	x = binary(x)
	var p Parts
	if p.EASE, err = EASE(x, 10, 20, threads); err != nil {
		t.Fatal(err)
	}
	if p.KNN, err = ItemNeighbours(x, 20, threads); err != nil {
		t.Fatal(err)
	}
	if p.ALS, err = TrainALS(t.Context(), x, ALSOptions{Factors: 8, Regularization: 1, Alpha: 3, Seed: 1,
		Threads: threads}); err != nil {
		t.Fatal(err)
	}
	// A network that was not trained: vectors of items, and of a user the mean of the latest.
	r := rand.New(rand.NewPCG(4, 4))
	e := &Embedding{Dim: 4, Recent: 5, Items: make([]float32, 4*l.Items)}
	for i := range e.Items {
		e.Items[i] = r.Float32() - .5
	}
	e.NewVector = func() (func([]float32, int32, []int32) error, error) {
		return func(dst []float32, _ int32, recent []int32) error {
			clear(dst)
			for _, i := range recent {
				for d := range dst {
					dst[d] += e.Items[int(i)*4+d] / float32(len(recent))
				}
			}
			return nil
		}, nil
	}
	p.Embedding = e
	return p
}

func blendOf(t testing.TB, l *Log, now, horizon int64, folds, threads int) *Blend {
	t.Helper()
	var sets []*Examples
	for k := 1; k <= folds; k++ {
		from := now - int64(k)*horizon
		e, err := NewExamples(t.Context(), l.Until(from), from, l.between(from, from+horizon),
			partsOf(t, l.Until(from), from, threads), true, 1, threads)
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, e)
	}
	b, err := FitBlend(t.Context(), sets, FitOptions{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBlendSameBits: threads are not in the result, from the parts to the figures.
func TestBlendSameBits(t *testing.T) {
	l := shopLog(60, 30, 120, 1)
	now := at(100)
	var want Report
	var weights *Blend
	for i, threads := range []int{1, 3} {
		p := partsOf(t, l.Until(now), now, threads)
		p.Blend = blendOf(t, l.Until(now), now, at(20), 2, threads)
		m, err := NewModel(Blended, l.Until(now), now, p)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Evaluate(m, l.between(now, at(120)), 10, threads)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			want, weights = r, p.Blend
			continue
		}
		if r != want || !slices.Equal(p.Blend.New, weights.New) || !slices.Equal(p.Blend.Bought, weights.Bought) {
			t.Errorf("%d threads: %v, one has %v", threads, r, want)
		}
	}
	if !(want.All.NDCG > .4) || want.All.Users < 50 {
		t.Errorf("a planted shop is not understood: %+v", want)
	}
}

// TestBlendGradient: the gradient is that of the loss, and the loss at 0 that of lists in no order.
func TestBlendGradient(t *testing.T) {
	l := shopLog(40, 20, 80, 2)
	from := at(60)
	e, err := NewExamples(t.Context(), l.Until(from), from, l.between(from, at(80)), partsOf(t, l.Until(from), from, 1),
		true, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	f := newFit([]*Examples{e}, e.Users(), FitOptions{Penalty: 3, NewShare: .3, Threads: 2})
	r := rand.New(rand.NewPCG(5, 5))
	x := make([]float64, f.width())
	for i := range x {
		x[i] = .2 * r.NormFloat64()
	}
	f.at(x)
	got := slices.Clone(f.grad)
	const h = 1e-5
	for i := range x {
		up, down := slices.Clone(x), slices.Clone(x)
		up[i], down[i] = x[i]+h, x[i]-h
		want := (f.at(up) - f.at(down)) / (2 * h)
		if !(math.Abs(got[i]-want) <= 1e-6*(1+math.Abs(want))) {
			t.Errorf("slope %d is %v, by differences %v", i, got[i], want)
		}
	}
	items := 0.0
	for u := range e.Users() {
		items += math.Log(float64(e.start[u+1] - e.start[u]))
	}
	g := newFit([]*Examples{e}, e.Users(), FitOptions{Penalty: 3, NewShare: 1e-12, Threads: 1})
	if want := items / float64(e.Users()); !(math.Abs(g.atZero-want) <= 1e-9) {
		t.Errorf("the loss at 0 is %v, want %v", g.atZero, want)
	}
}

// TestShifted: a log and its instant moved in time give the same bits.
func TestShifted(t *testing.T) {
	l := shopLog(40, 20, 80, 3)
	now := at(81)
	b := blendOf(t, l, at(80), at(20), 1, 1)
	p := partsOf(t, l, now, 1)
	p.Blend = b
	score := func(l *Log, now int64) []float32 {
		m, err := NewModel(Blended, l, now, p)
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.NewScorer().Scores(7, m.History(7))
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(s)
	}
	moved := *l
	moved.Time = slices.Clone(l.Time)
	for i := range moved.Time {
		moved.Time[i] += at(1000)
	}
	if !slices.Equal(score(l, now), score(&moved, now+at(1000))) {
		t.Error("later by a thousand days: other scores")
	}
}

// TestUnknown: a user by number, by history alone and with nothing at all.
func TestUnknown(t *testing.T) {
	l := shopLog(60, 30, 100, 4)
	now := at(100)
	p := partsOf(t, l, now, 1)
	p.Blend = blendOf(t, l, now, at(20), 2, 1)
	for _, kind := range Kinds() {
		m, err := NewModel(kind, l, now, p)
		if err != nil {
			t.Fatal(err)
		}
		s := m.NewScorer()
		for _, history := range [][]Line{nil, {{Item: 4, Time: now}, {Item: 8, Time: now}, {Item: 12, Time: now}}} {
			scores, err := s.Scores(-1, history)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range scores {
				if !finite(v) {
					t.Fatalf("%s: item %d has the score %v", kind, i, v)
				}
			}
			excluded := NewBitmap(m.Items())
			s.Bought(excluded, true)
			list := s.Best(nil, 5, excluded)
			if len(list) != 5 {
				t.Fatalf("%s: %d items", kind, len(list))
			}
			even := 0
			for _, x := range list {
				if excluded.Has(x.Item) {
					t.Errorf("%s: item %d is excluded", kind, x.Item)
				}
				if x.Item%2 == 0 {
					even++
				}
				if w := s.Why(x.Item); w.Kind == 0 || w.Kind == BoughtBefore {
					t.Errorf("%s: item %d for reason %+v", kind, x.Item, w)
				}
			}
			if tasteful := kind == Blended || kind == ALSKind || kind == EASER || kind == KNN ||
				kind == Users; tasteful && history != nil && even < 5 {
				t.Errorf("%s: %d of 5 items are of the taste", kind, even)
			}
		}
	}
	m, err := NewModel(Own, l, now, Parts{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.NewScorer().Scores(-1, []Line{{Item: 99}}); err == nil {
		t.Error("an item outside the catalogue is taken")
	}
	if _, err := m.NewScorer().Scores(-1, []Line{{Item: 1, Time: 5}, {Item: 1, Time: 4}}); err == nil {
		t.Error("a history that goes back in time is taken")
	}
}

// TestWhy: the numbers of the reason for what a user buys again and again.
func TestWhy(t *testing.T) {
	l := &Log{Users: 1, Items: 2, User: []int32{0, 0, 0, 0}, Item: []int32{0, 1, 0, 0}, Basket: []int32{0, 0, 1, 2},
		Time: []int64{at(0), at(0), at(30), at(50)}}
	m, err := NewModel(Own, l, at(60), Parts{})
	if err != nil {
		t.Fatal(err)
	}
	s := m.NewScorer()
	scores, err := s.Scores(0, m.History(0))
	if err != nil {
		t.Fatal(err)
	}
	if scores[0] != 3.5 || scores[1] != 1 {
		t.Errorf("own frequency is %v", scores)
	}
	if w := s.Why(0); w != (Reason{Kind: BoughtBefore, Times: 3, Since: 10, Usual: 25}) {
		t.Errorf("%+v", w)
	}
	if w := s.Why(1); w != (Reason{Kind: BoughtBefore, Times: 1, Since: 60}) {
		t.Errorf("%+v", w)
	}
	var f [17]float32
	s.past.facts(f[:], &s.past.items[0], at(60))
	want := map[string]float64{"owned": 1, "times": math.Log(4),
		"times_half_30d": math.Log(.25 + math.Exp2(-1) + math.Exp2(-10./30) + .05), "times_half_1": math.Log(1.75 + .05),
		"days_since": math.Log(13), "share": 1, "share_since": 1, "log_share": 0, "overdue": math.Log(13. / 28), "user_days_since": math.Log(13),
		"user_visits": math.Log(3), "user_items": math.Log(2)}
	for name, v := range want {
		if got := float64(f[slices.Index(ownFacts, name)]); !(math.Abs(got-v) <= 1e-6) {
			t.Errorf("%s is %v, want %v", name, got, v)
		}
	}
}

// TestPopularity: counts by hand.
func TestPopularity(t *testing.T) {
	l := &Log{Users: 2, Items: 3, User: []int32{0, 0, 1, 0}, Item: []int32{0, 0, 0, 1}, Basket: []int32{0, 1, 2, 3},
		Time: []int64{at(0), at(20), at(55), at(58)}}
	p, err := newPopularity(l, at(60))
	if err != nil {
		t.Fatal(err)
	}
	get := func(item int32, name string) float64 { return float64(p.of(item)[slices.Index(facts, name)]) }
	for _, x := range []struct {
		item int32
		name string
		want float64
	}{
		{0, "lines_3d", math.Log(.5)}, {0, "lines_7d", math.Log(1.5)}, {0, "lines_56d", math.Log(2.5)}, {0,
			"lines_365d", math.Log(3.5)},
		{0, "lines_half_7d", math.Log(math.Exp2(-60./7) + math.Exp2(-40./7) + math.Exp2(-5./7) + .5)},
		{0, "new_buyers_half_30d", math.Log(math.Exp2(-2) + math.Exp2(-5./30) + .5)},
		{0, "new", math.Exp(-2)}, {0, "days_unsold", math.Log(6)}, {0, "bought_again", math.Log1p(.5)},
		{1, "new", math.Exp(-2. / 30)}, {1, "bought_again", 0}, {2, "lines_365d", math.Log(.5)}, {2, "days_unsold",
			math.Log(1000)},
	} {
		if got := get(x.item, x.name); !(math.Abs(got-x.want) <= 1e-6) {
			t.Errorf("%s of item %d is %v, want %v", x.name, x.item, got, x.want)
		}
	}
	if _, err := newPopularity(l, at(57)); err == nil {
		t.Error("a log that goes on after the instant is read")
	}
}

func TestLogFaults(t *testing.T) {
	good := func() *Log {
		return &Log{Users: 2, Items: 2, User: []int32{0, 1}, Item: []int32{0, 1}, Basket: []int32{0, 1},
			Time: []int64{1, 2}}
	}
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*Log){
		"one of each":      func(l *Log) { l.Time = l.Time[:1] },
		"is of user 2":     func(l *Log) { l.User[1] = 2 },
		"item -1":          func(l *Log) { l.Item[1] = -1 },
		"earlier":          func(l *Log) { l.Time[1] = 0 },
		"of user 0 and of": func(l *Log) { l.Basket[1] = 0 },
		"of purchase -1":   func(l *Log) { l.Basket[0] = -1 },
	} {
		l := good()
		spoil(l)
		if err := l.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, l := range []*Log{{}, {Users: 1}} {
		if _, err := NewModel(Popular, l, 0, Parts{}); err == nil || !strings.Contains(err.Error(), "without items") {
			t.Errorf("a catalogue of none: %v", err)
		}
	}
	if _, err := NewModel(EASER, good(), 5, Parts{}); err == nil || !strings.Contains(err.Error(), "needs EASE") {
		t.Errorf("EASE without EASE: %v", err)
	}
	if _, err := NewModel("best", good(), 5, Parts{}); err == nil {
		t.Error("an unknown kind is taken")
	}
}

// TestOneItem: a catalogue of one has one answer.
func TestOneItem(t *testing.T) {
	l := &Log{Users: 2, Items: 1, User: []int32{0, 0, 1}, Item: []int32{0, 0, 0}, Basket: []int32{0, 1, 2},
		Time: []int64{at(1), at(5), at(9)}}
	p := partsOf(t, l, at(10), 1)
	p.Blend = &Blend{Components: components, Facts: facts, OwnFacts: ownFacts,
		New: make([]float32, len(facts)+nComponents), Bought: make([]float32, len(facts)+nComponents+len(ownFacts))}
	for _, kind := range Kinds() {
		m, err := NewModel(kind, l, at(10), p)
		if err != nil {
			t.Fatal(err)
		}
		s := m.NewScorer()
		for u := int32(-1); u < 2; u++ {
			if _, err := s.Scores(u, m.History(u)); err != nil {
				t.Fatal(err)
			}
			if list := s.Best(nil, 10, nil); len(list) != 1 || !finite(list[0].Score) {
				t.Errorf("%s: %v", kind, list)
			}
		}
	}
}

// TestManyItems: a hundred thousand items are too many for EASE, which says so, and not for the rest.
func TestManyItems(t *testing.T) {
	const items = 100_000
	r := rand.New(rand.NewPCG(6, 6))
	l := &Log{Users: 100, Items: items}
	for i := range 6000 {
		l.User, l.Item = append(l.User, int32(i/20%100)), append(l.Item, int32(r.IntN(100)*r.IntN(1000)))
		l.Basket, l.Time = append(l.Basket, int32(i/20)), append(l.Time, at(float64(i)/60))
	}
	now := at(101)
	x, err := l.Matrix(now, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := EASE(x, 100, 50, 0); err == nil || !strings.Contains(err.Error(), "take knn or als") {
		t.Fatalf("EASE of %d items: %v", items, err)
	}
	knn, err := ItemNeighbours(x, 20, 0)
	if err != nil {
		t.Fatal(err)
	}
	als, err := TrainALS(t.Context(), x, ALSOptions{Factors: 8, Iterations: 2})
	if err != nil {
		t.Fatal(err)
	}
	from := at(60)
	p := Parts{KNN: knn, ALS: als}
	e, err := NewExamples(t.Context(), l.Until(from), from, l.between(from, now), p, true, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if p.Blend, err = FitBlend(t.Context(), []*Examples{e}, FitOptions{}); err != nil {
		t.Fatal(err)
	}
	m, err := NewModel(Blended, l, now, p)
	if err != nil {
		t.Fatal(err)
	}
	s := m.NewScorer()
	if _, err := s.Scores(3, m.History(3)); err != nil {
		t.Fatal(err)
	}
	for _, x := range s.Best(nil, 10, m.Unsold()) {
		if m.Unsold().Has(x.Item) {
			t.Errorf("item %d was never sold", x.Item)
		}
	}
	if got := s.Best(nil, 10, nil); len(got) != 10 {
		t.Errorf("%d items", len(got))
	}
}

func BenchmarkScores(b *testing.B) {
	l := shopLog(2000, 3500, 300, 7)
	now := at(300)
	p := partsOf(b, l, now, 0)
	p.Blend = &Blend{Components: components, Facts: facts, OwnFacts: ownFacts,
		New: make([]float32, len(facts)+nComponents), Bought: make([]float32, len(facts)+nComponents+len(ownFacts))}
	m, err := NewModel(Blended, l, now, p)
	if err != nil {
		b.Fatal(err)
	}
	s := m.NewScorer()
	b.ReportAllocs()
	u := int32(0)
	var list []Scored
	for b.Loop() {
		if _, err := s.Scores(u, m.History(u)); err != nil {
			b.Fatal(err)
		}
		list = s.Best(list, 10, nil)
		u = (u + 1) % 2000
	}
}
