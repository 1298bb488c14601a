package recommend

import (
	"bytes"

	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/ranking"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/recommender"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"

	"github.com/onmart/onmart/train/traintest"
)

const shopSpec = `name: test-baskets
timezone: UTC
lateness: 0s
interactions:
  user: user_id
  item: product_id
  hold: 1h
`

// start is 2026-01-01 UTC.
const start = 1_767_225_600_000_000

// line is one row of a test's shop.
type line struct {
	user, item string
	time       int64
	trans      int64
}

// shop is a planted one: users have one of two tastes, the even items or the odd ones, and each a staple of that taste
// which is bought again every ten days or so. Whoever buys item 2 buys item 12 with it.
func shop(users, items, days int) []line {
	r := rand.New(rand.NewPCG(3, 3))
	var all []line
	trans := int64(0)
	for u := range users {
		staple := r.IntN(items/2)*2 + u%2
		for day := r.IntN(10); day < days; day += 8 + r.IntN(5) {
			t := start + int64(day)*microDay + r.Int64N(microDay/2)
			basket := []int{staple}
			for range 2 + r.IntN(3) {
				basket = append(basket, r.IntN(items/2)*2+u%2)
			}
			if slices.Contains(basket, 2) {
				basket = append(basket, 12)
			}
			slices.Sort(basket)
			for _, i := range slices.Compact(basket) {
				all = append(all, line{fmt.Sprintf("u%02d", u), fmt.Sprintf("i%02d", i), t, trans})
			}
			trans++
		}
	}
	slices.SortStableFunc(all, func(a, b line) int { return int((a.time - b.time) / 1_000) })
	return all
}

// transactions writes lines as a data set.
func transactions(t testing.TB, all []line) *datasets.Dataset {
	t.Helper()
	s := &datasets.Schema{Fields: []datasets.Field{{Name: datasets.TransID, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time},
		{Name: datasets.UserID, Type: datasets.String}, {Name: datasets.ProductID, Type: datasets.String}}}
	b := datasets.NewBatch(s, len(all))
	for _, l := range all {
		b.Columns[0].Ints, b.Columns[1].Ints = append(b.Columns[0].Ints, l.trans), append(b.Columns[1].Ints, l.time)
		b.Columns[2].Strings, b.Columns[3].Strings = append(b.Columns[2].Strings, l.user), append(b.Columns[3].Strings,
			l.item)
		b.N++
	}
	dir := filepath.Join(t.TempDir(), "transactions")
	w, err := datasets.Create(dir, datasets.KindTransactions, s, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := errors.Join(w.Write(b), w.Commit()); err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func source(t testing.TB, all []line) Source {
	t.Helper()
	spec, err := features.Parse("test", []byte(shopSpec))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "interactions")
	if _, err := features.Run(t.Context(), features.RunOptions{Spec: spec, In: transactions(t, all), Out: out,
		Threads: 1}); err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSource(d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// said gathers what a training says.
type said struct{ all []string }

func (l *said) note(format string, args ...any) { l.all = append(l.all, fmt.Sprintf(format, args...)) }

func small() Config {
	c := DefaultConfig()
	c.Horizon, c.Folds, c.ALSFactors, c.Dim, c.Recent, c.Negatives, c.Batch, c.Epochs, c.EASELambda = 20, 2, 8, 8, 6, 16, 64, 3, 10
	c.ALSRegularization, c.LearningRate = 1, .02
	return c
}

func options(t testing.TB, s Source, c Config) Options {
	t.Helper()
	b, err := cpu.New(cpu.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	return Options{Source: s, Out: filepath.Join(t.TempDir(), "model"), Config: c, Seed: 1, Threads: 2, Backend: b}
}

// day is the start of a day of the shop.
func day(n int) int64 { return start + int64(n)*microDay }

// TestPlanted: what is planted is found, by the artifact alone.
func TestPlanted(t *testing.T) {
	s := source(t, shop(80, 40, 140))
	c := small()
	c.Epochs = 12
	o := options(t, s, c)
	o.Train, o.Test = datasets.Range{From: day(0), To: day(120)}, &datasets.Range{From: day(120), To: day(140)}
	var notes said
	o.Note = notes.note
	sum, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(sum.Folds) != 2 || sum.Validation == nil || sum.Test == nil || !sum.Context {
		t.Fatalf("%d folds, validation %v, test %v, context %v", len(sum.Folds), sum.Validation, sum.Test, sum.Context)
	}
	by := map[string]Metrics{"blend": sum.Test.Model.clone()}
	for _, b := range sum.Test.Baselines {
		by[b.Name] = b.Metrics
	}
	for _, name := range []string{"embedding", "als", "ease", "knn", "users"} {
		// Of 40 items the right taste has 20: any that has understood it is far above popularity.
		if got, pop := by[name]["ndcg_at_10"], by["popular"]["ndcg_at_10"]; !(got > pop+.05) {
			t.Errorf("%s has nDCG %.3f, popularity %.3f", name, got, pop)
		}
	}
	// The shop has a staple and a taste for each user and nothing else: counting purchases finds the staple, and what
	// is left is drawn at random. A blend that is fitted on 160 users may lose a little of that, and no more.
	if got, own := by["blend"]["ndcg_at_10"], by["own"]["ndcg_at_10"]; !(got > own-.02) {
		t.Errorf("the blend has nDCG %.3f, own purchases %.3f", got, own)
	}
	for name, m := range by {
		if name != "blend" && name != "own" && m["ndcg_at_10"] > by["blend"]["ndcg_at_10"] {
			t.Errorf("%s has nDCG %.3f, the blend %.3f", name, m["ndcg_at_10"], by["blend"]["ndcg_at_10"])
		}
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	r, err := recommender.Open(a, 2)
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.Recommend(recommender.Request{Recent: []string{"i05", "i11", "i17"}, K: 10,
		Filter: recommender.Filter{ExcludeBought: true}})
	if err != nil || len(list.Items) != 10 {
		t.Fatalf("%v: %v", list, err)
	}
	odd := 0
	for _, x := range list.Items {
		if (x.Item[2]-'0')%2 == 1 {
			odd++
		}
		if slices.Contains([]string{"i05", "i11", "i17"}, x.Item) {
			t.Errorf("%s is offered, though it was bought", x.Item)
		}
	}
	if odd < 9 {
		t.Errorf("a new user of odd taste is offered %d odd items of 10: %v", odd, list.Items)
	}
	if list, err = r.Recommend(recommender.Request{Basket: []string{"i02"}, K: 3}); err != nil ||
		len(list.Items) == 0 || list.Items[0].Item != "i12" ||
		list.Items[0].Why.Confidence != 1 || list.Items[0].Why.With != "i02" {
		t.Errorf("with i02: %+v: %v", list, err)
	}
	// The evaluation of the artifact is that of the training.
	later, _, err := LoadLater(t.Context(), s.Data, r.History(), day(120), day(140), 1)
	if err != nil {
		t.Fatal(err)
	}
	j, err := Judge(r.Ranking(), &r.History().Log, &later.Log, r.Parts(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(j.Model) != fmt.Sprint(sum.Test.Model) {
		t.Errorf("the artifact has %v, the training %v", j.Model, sum.Test.Model)
	}
}

func (m Metrics) clone() Metrics {
	c := Metrics{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

// TestLive: an artifact that follows transactions answers as one that read them all at once, before and after it was
// saved and taken up again.
func TestLive(t *testing.T) {
	all := shop(40, 30, 120)
	c := small()
	c.Epochs = 2
	s := source(t, all)
	o := options(t, s, c)
	o.Train = datasets.Range{From: day(0), To: day(100)}
	if _, err := Train(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	open := func() *recommender.Recommender {
		a, err := model.Open(o.Out)
		if err != nil {
			t.Fatal(err)
		}
		r, err := recommender.Open(a, 2)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	late := slices.DeleteFunc(slices.Clone(all), func(l line) bool { return l.time < day(100) })
	late = append(late, line{"u05", "new", day(119), 9_999}, line{"newcomer", "i03", day(119), 10_000},
		line{"newcomer", "i05", day(119), 10_000},
		line{"last", "i03", day(119) + 3*3600*1e6, 10_001}) // lets the hold of those before it pass
	fold := func(r *recommender.Recommender, from, to, step int) {
		for ; from < to; from += step {
			var rows *datasets.Batch
			d := transactions(t, late[from:min(from+step, to)])
			if err := d.Read(t.Context(), datasets.ReadOptions{},
				func(b *datasets.Batch) error { rows = b; return nil }); err != nil {
				t.Fatal(err)
			}
			if err := r.Fold(rows); err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.SortStableFunc(late, func(a, b line) int { return int((a.time - b.time) / 1_000) })
	answers := func(r *recommender.Recommender) string {
		lists, err := r.All(t.Context(), 5, recommender.Filter{}, nil) // reads everything up to now
		if err != nil {
			t.Fatal(err)
		}
		for _, user := range []string{"u05", "newcomer"} {
			list, err := r.Recommend(recommender.Request{User: user, K: 5})
			if err != nil || !list.Known {
				t.Fatalf("%s: %+v: %v", user, list, err)
			}
			lists = append(lists, recommender.ForUser{User: user, Items: list.Items})
		}
		return fmt.Sprint(lists)
	}
	whole := open()
	fold(whole, 0, len(late), len(late))
	want := answers(whole)
	if !strings.Contains(want, "new") {
		t.Error("the new item is nowhere")
	}
	pieces := open()
	half := len(late) / 2
	fold(pieces, 0, half, 7)
	if _, err := pieces.Recommend(recommender.Request{User: "u01", K: 3}); err != nil {
		t.Fatal(err)
	}
	var state bytes.Buffer
	if err := pieces.Snapshot(&state); err != nil {
		t.Fatal(err)
	}
	again := open()
	if err := again.Restore(bytes.NewReader(state.Bytes())); err != nil {
		t.Fatal(err)
	}
	fold(pieces, half, len(late), 5)
	fold(again, half, len(late), 3)
	if got := answers(pieces); got != want {
		t.Errorf("in pieces:\n%.2000s\nat once:\n%.2000s", got, want)
	}
	if got := answers(again); got != want {
		t.Error("after a restart: other answers")
	}
	for n := 0; n < state.Len(); n += 1 + state.Len()/200 {
		if err := open().Restore(bytes.NewReader(state.Bytes()[:n])); err == nil {
			t.Fatalf("a state cut to %d bytes of %d is taken", n, state.Len())
		}
	}
}

// TestEarlier: purchases of a user count in the next answer, before popularity is read again.
func TestFresh(t *testing.T) {
	c := small()
	c.Components, c.Folds = []string{"knn"}, 1
	o := options(t, source(t, shop(40, 30, 100)), c)
	if _, err := Train(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	r, err := recommender.Open(a, 1)
	if err != nil {
		t.Fatal(err)
	}
	now := r.Now()
	rows := datasets.NewBatch(a.Plan().Schema(), 0)
	for range 3 {
		rows.Columns[0].Strings, rows.Columns[1].Strings = append(rows.Columns[0].Strings,
			"u01"), append(rows.Columns[1].Strings, "i00")
		rows.Columns[2].Ints, rows.Columns[3].Floats = append(rows.Columns[2].Ints,
			now+1), append(rows.Columns[3].Floats, 1)
		rows.Columns[4].Ints = append(rows.Columns[4].Ints, 70_000+int64(rows.N))
		rows.N++
	}
	if err := r.Append(rows); err != nil {
		t.Fatal(err)
	}
	list, err := r.Recommend(recommender.Request{User: "u01", K: 30})
	if err != nil {
		t.Fatal(err)
	}
	if r.Now() != now {
		t.Error("a second later everything is read again")
	}
	at := slices.IndexFunc(list.Items, func(x recommender.Answer) bool { return x.Item == "i00" })
	if at < 0 || list.Items[at].Why.Times < 3 {
		t.Errorf("i00 was bought three times just now: %+v", list.Items)
	}
}

// TestTask: the tests that every training passes.
func TestTask(t *testing.T) {
	s := source(t, shop(30, 24, 90))
	task := func(t testing.TB, order traintest.Order) error {
		c := small()
		c.Epochs, c.Folds = 2, 1
		_, err := Train(order.Context, Options{Source: s, Out: order.Out, Config: c, Seed: order.Seed,
			Threads: order.Threads,
			Backend: order.Backend, Resume: order.Resume})
		return err
	}
	for _, test := range []struct {
		name string
		run  func(testing.TB, traintest.Task)
	}{
		{"threads", traintest.TaskThreads}, {"resume", traintest.TaskResume}, {"stopped",
			traintest.TaskStopped}, {"diverges", traintest.TaskDiverges},
		{"gpu", func(t testing.TB, task traintest.Task) { traintest.TaskOnGPU(t, task) }},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, task) })
	}
}

// TestProgram: the network's program is the same on every machine.
func TestProgram(t *testing.T) {
	s := source(t, shop(20, 24, 60))
	h, err := s.Load(t.Context(), beginning, end, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := small()
	c.Epochs = 8
	set, data, err := (&fitting{config: &c, seed: 1}).bind(&h.Log, day(60))
	if err != nil {
		t.Fatal(err)
	}
	traintest.Run(t, traintest.Case{Set: set, Data: data, Consts: sampling(&h.Log), Learns: .05})
}

// TestLosses: with items that each row draws for itself the network's program passes what the processor's can be held to,
// and finds what is planted.
func TestLosses(t *testing.T) {
	for _, loss := range []string{lossSoftmax, lossBPR} {
		t.Run(loss, func(t *testing.T) {
			s := source(t, shop(20, 24, 60))
			h, err := s.Load(t.Context(), beginning, end, 1)
			if err != nil {
				t.Fatal(err)
			}
			c := small()
			if err := c.Set([]string{"loss=" + loss, "candidates=7", "epochs=8"}); err != nil {
				t.Fatal(err)
			}
			set, data, err := (&fitting{config: &c, seed: 1}).bind(&h.Log, day(60))
			if err != nil {
				t.Fatal(err)
			}
			consts := slices.DeleteFunc(sampling(&h.Log), func(x program.Tensor) bool {
				return !slices.ContainsFunc(set.Consts, func(c program.TensorSpec) bool { return c.Name == x.Name })
			})
			held := traintest.Case{Set: set, Data: data, Consts: consts}
			for _, test := range []func(testing.TB, traintest.Case){traintest.Gradients, traintest.Threads, traintest.Portable} {
				test(t, held)
			}

			s = source(t, shop(80, 40, 140))
			c.Model, c.Epochs = "embedding", 12
			o := options(t, s, c)
			o.Train, o.Test = datasets.Range{From: day(0), To: day(120)}, &datasets.Range{From: day(120), To: day(140)}
			sum, err := Train(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			popular := 0.0
			for _, b := range sum.Test.Baselines {
				if b.Name == "popular" {
					popular = b.Metrics["ndcg_at_10"]
				}
			}
			if got := sum.Test.Model["ndcg_at_10"]; !(popular > 0 && got > popular+.05) {
				t.Errorf("nDCG %.3f, popularity %.3f", got, popular)
			}
		})
	}
}

// TestOptimizers: the network learns with each of them, clipped and averaged, the same on every path; momentum, which has
// no update of single rows, is refused by the table's name.
func TestOptimizers(t *testing.T) {
	s := source(t, shop(20, 24, 60))
	h, err := s.Load(t.Context(), beginning, end, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, pairs := range [][]string{
		{"optimizer=sgd", "momentum=0", "learning_rate=2", "schedule=plateau"},
		{"optimizer=adagrad", "learning_rate=0.05", "clip_norm=0.5", "ema=0.9"},
		{"optimizer=adam", "clip_norm=0.1", "ema=0.9", "schedule=one-cycle"},
	} {
		c := small()
		c.Epochs = 8
		if err := c.Set(pairs); err != nil {
			t.Fatal(err)
		}
		set, data, err := (&fitting{config: &c, seed: 1}).bind(&h.Log, day(60))
		if err != nil {
			t.Fatal(err)
		}
		k := traintest.Case{Set: set, Data: data, Consts: sampling(&h.Log), Learns: .03}
		traintest.Sound(t, k)
		traintest.Threads(t, k)
		traintest.Portable(t, k)
	}
	c := small()
	if err := c.Set([]string{"optimizer=sgd"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := (&fitting{config: &c, seed: 1}).bind(&h.Log, day(60)); err == nil ||
		!strings.Contains(err.Error(), "SGD with momentum has no update of the rows that a step reads; take a momentum of 0") {
		t.Errorf("momentum: %v", err)
	}
}

// TestAverages: what is served are the averages of the weights, from one network and from several.
func TestAverages(t *testing.T) {
	s := source(t, shop(20, 24, 60))
	h, err := s.Load(t.Context(), beginning, end, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := small()
	if err := c.Set([]string{"loss=bpr", "model=embedding", "ema=0.99"}); err != nil {
		t.Fatal(err)
	}
	vector := func(e *ranking.Embedding, err error) []float32 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		f, err := e.NewVector()
		if err != nil {
			t.Fatal(err)
		}
		v := make([]float32, e.Dim)
		if err := f(v, 3, []int32{1, 5, 7}); err != nil {
			t.Fatal(err)
		}
		return v
	}
	for seeds := range 3 {
		o := options(t, s, c)
		o.Train.To = day(60)
		if o.Seeds = seeds; seeds == 0 { // the same without averages is another model
			o.Config.EMA = 0
		}
		sum, err := Train(t.Context(), o)
		if err != nil {
			t.Fatalf("%d seeds: %v", seeds, err)
		}
		a, err := model.Open(o.Out)
		if err != nil {
			t.Fatal(err)
		}
		r, err := recommender.Open(a, 1)
		if err != nil {
			t.Fatal(err)
		}
		var nets []*network
		for k := range max(1, seeds) {
			n, err := (&fitting{config: &c, backend: o.Backend, seed: o.Seed + uint64(k)}).run(t.Context(), &h.Log, day(60))
			if err != nil {
				t.Fatal(err)
			}
			nets = append(nets, n)
		}
		all, err := together(nets)
		if err != nil {
			t.Fatal(err)
		}
		served, averaged := r.Parts().Embedding, vector(all.embedding(&c, h.Log.Items))
		if got := vector(served, nil); slices.Equal(got, averaged) != (seeds > 0) {
			t.Errorf("%s: a user is %v, by the averages %v", sum.Version, got, averaged)
		}
		if items := all.weights.Find(recommender.ItemTable).F32; slices.Equal(served.Items, items) != (seeds > 0) {
			t.Errorf("%s: %d seeds: the items are not the averages, or are without ema", sum.Version, seeds)
		}
	}
}

// TestRows: what a row says was bought by then, without the item itself.
func TestRows(t *testing.T) {
	l := &ranking.Log{Users: 2, Items: 5, User: []int32{0, 0, 1, 0}, Item: []int32{1, 2, 4, 3},
		Basket: []int32{0, 0, 1, 2}, Time: []int64{10, 10, 20, 30}}
	c := small()
	c.Recent, c.Anonymous, c.HalfLife = 3, 0, 0
	columns := c.rowsOf(l, 40, 1)
	want := map[string][]float32{
		recommender.InputUser: {0, 0, 0, 1}, columnItem: {1, 2, 3, 4}, columnWeight: {1, 1, 1, 1},
	}
	for _, col := range columns {
		if w, ok := want[col.Name]; ok && !slices.Equal(col.F32, w) {
			t.Errorf("%s is %v, want %v", col.Name, col.F32, w)
		}
	}
	recent := columns[1].F32
	third := slices.Clone(recent[6:8])
	slices.Sort(third)
	if !slices.Equal(recent[:3], []float32{2, -1, -1}) || !slices.Equal(recent[3:6], []float32{1, -1, -1}) ||
		!slices.Equal(third, []float32{1, 2}) || recent[8] != -1 || !slices.Equal(recent[9:], []float32{-1, -1, -1}) {
		t.Errorf("recent items %v", recent)
	}
}

func TestRefusals(t *testing.T) {
	all := shop(20, 10, 60)
	for name, test := range map[string]struct {
		lines  []line
		change func(*Options)
		want   string
	}{
		"one item":     {[]line{{"a", "x", day(0), 1}, {"b", "x", day(40), 2}}, nil, "a single item (x) was sold"},
		"nobody again": {[]line{{"a", "x", day(0), 1}, {"b", "y", day(40), 2}}, nil, "nothing to weigh a blend by"},
		"empty range": {all, func(o *Options) { o.Train = datasets.Range{From: day(500), To: day(600)} },
			"no purchases there"},
		"overlap": {all, func(o *Options) {
			o.Train.To = day(50)
			o.Test = &datasets.Range{From: day(40),
				To: day(60)}
		}, "overlaps"},
		"no validation": {all, func(o *Options) { o.Valid = &datasets.Range{From: day(58), To: day(58) + 1} },
			"--valid"},
		"no test": {all, func(o *Options) {
			o.Train.To = day(55)
			o.Test = &datasets.Range{From: day(100),
				To: day(120)}
		}, "no purchases there of users and items"},
	} {
		t.Run(name, func(t *testing.T) {
			c := small()
			c.Components, c.Folds = []string{"knn"}, 1
			o := options(t, source(t, test.lines), c)
			var notes said
			o.Note = notes.note
			if test.change != nil {
				test.change(&o)
			}
			_, err := Train(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if _, err := model.Open(o.Out); err == nil {
				t.Error("an artifact was left")
			}
			if slices.ContainsFunc(notes.all, func(s string) bool { return strings.HasPrefix(s, "fold") }) {
				t.Errorf("it was fitted before: %q", notes.all)
			}
		})
	}
}

// TestKinds: each model is an artifact of its own.
func TestKinds(t *testing.T) {
	s := source(t, shop(30, 20, 80))
	for _, kind := range ranking.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			c := small()
			c.Model, c.Epochs = string(kind), 1
			o := options(t, s, c)
			if _, err := Train(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			a, err := model.Open(o.Out)
			if err != nil {
				t.Fatal(err)
			}
			r, err := recommender.Open(a, 1)
			if err != nil {
				t.Fatal(err)
			}
			for _, user := range []string{"u03", "nobody"} {
				list, err := r.Recommend(recommender.Request{User: user, K: 5})
				if err != nil || len(list.Items) != 5 {
					t.Errorf("%s: %+v: %v", user, list, err)
				}
				for _, x := range list.Items {
					if x.Why.Text == "" {
						t.Errorf("%s: no reason for %s", user, x.Item)
					}
				}
			}
			if has := a.Program() != nil; has != (kind == ranking.Vector || kind == ranking.Blended) {
				t.Errorf("it has a program: %v", has)
			}
		})
	}
}
