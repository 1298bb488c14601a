package demand

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/traintest"
)

// shopSpec makes days of a shop in London.
const shopSpec = `name: test-daily
timezone: Europe/London
lateness: 1d
panel:
  keys: [product_id]
  step: day
  demand: {of: quantity, unit: units, words: units sold}
  covariates:
    - {name: price, kind: last, of: unit_price, unit: pounds, words: last price}
`

// week is how the planted demand varies over the days of the week, Monday first; the shop is closed on Sundays.
var week = [7]float64{.5, .7, 1, 1, 1.6, 2.2, 0}

// sold are the transactions of a shop: products with a rate of their own, the same week for all. rate gives what a
// product sells on a day without the week's part.
func sold(t testing.TB, products, days int, rate func(product, day int) float64) *datasets.Dataset {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 7))
	zone, err := time.LoadLocation("Europe/London")
	if err != nil {
		t.Fatal(err)
	}
	s := &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransDatetime, Type: datasets.Time}, {Name: datasets.ProductID, Type: datasets.String},
		{
			Name:  datasets.Quantity,
			Type:  datasets.Decimal,
			Scale: 4,
		}, {Name: datasets.UnitPrice, Type: datasets.Decimal, Scale: 4}}}
	b := datasets.NewBatch(s, 0)
	for day := range days {
		at := time.Date(2024, 1, 1+day, 12, 0, 0, 0, zone) // a Monday
		for p := range products {
			n := poisson(r, rate(p, day)*week[day%7])
			if n == 0 {
				continue
			}
			b.Columns[0].Ints = append(b.Columns[0].Ints, at.UnixMicro())
			b.Columns[1].Strings = append(b.Columns[1].Strings, fmt.Sprintf("p%02d", p))
			b.Columns[2].Ints = append(b.Columns[2].Ints, int64(n)*10_000)
			b.Columns[3].Ints = append(b.Columns[3].Ints, int64(1+p%5)*10_000)
			b.N++
		}
	}
	dir := filepath.Join(t.TempDir(), "transactions")
	w, err := datasets.Create(dir, datasets.KindTransactions, s, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	side, err := w.SideFile("calendar.parquet")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(datasets.WriteTable(side, calendar(days+60)), side.Close(), w.Write(b), w.Commit()); err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// promoted are the days on which a promotion is on.
func promoted(day int) bool { return day*day%5 == 1 }

// calendar says of each day whether a promotion is on.
func calendar(days int) *datasets.Batch {
	b := datasets.NewBatch(
		&datasets.Schema{
			Fields: []datasets.Field{{Name: "date", Type: datasets.Time}, {Name: "promotion", Type: datasets.Int64}},
		},
		0,
	)
	for day := range days {
		on := int64(0)
		if promoted(day) {
			on = 1
		}
		b.Columns[0].Ints = append(b.Columns[0].Ints, time.Date(2024, 1, 1+day, 0, 0, 0, 0, time.UTC).UnixMicro())
		b.Columns[1].Ints = append(b.Columns[1].Ints, on)
		b.N++
	}
	return b
}

func poisson(r *rand.Rand, mean float64) int {
	n, p, limit := 0, 1., math.Exp(-mean)
	for {
		if p *= r.Float64(); p <= limit {
			return n
		}
		n++
	}
}

// steady is a product's rate: from one sale in a few days to many a day.
func steady(product, _ int) float64 { return .3 + float64(product*product)/20 }

func source(t testing.TB, d *datasets.Dataset) Source { return sourceOf(t, d, shopSpec) }

func sourceOf(t testing.TB, d *datasets.Dataset, yaml string) Source {
	t.Helper()
	spec, err := features.Parse("test", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "panel")
	if _, err := features.Run(t.Context(), features.RunOptions{Spec: spec, In: d, Out: out, Threads: 1}); err != nil {
		t.Fatal(err)
	}
	panel, err := datasets.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSource(panel)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lines gathers what a training says.
type lines struct{ all []string }

func (l *lines) note(format string, args ...any) { l.all = append(l.all, fmt.Sprintf(format, args...)) }

func (l *lines) has(part string) bool { return strings.Contains(strings.Join(l.all, "\n"), part) }

// quick is a training of seconds.
func quick(t testing.TB, l *lines) Options {
	t.Helper()
	b, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	if err := c.Set([]string{"hidden=24,24", "towers=1", "epochs=2", "rows=6000", "batch=128", "folds=2", "learning_rate=.005"}); err != nil {
		t.Fatal(err)
	}
	return Options{
		Source: source(t, sold(t, 12, 200, steady)), Out: filepath.Join(t.TempDir(), "model"), Horizon: 14, Config: c,
		Seed: 1, Threads: 1, Backend: b, Note: l.note,
	}
}

func task(t testing.TB, o traintest.Order) error {
	q := quick(t, &lines{})
	q.Out, q.Resume, q.Seed, q.Threads, q.Backend = o.Out, o.Resume, o.Seed, o.Threads, o.Backend
	_, err := Train(o.Context, q)
	return err
}

func TestThreads(t *testing.T)  { traintest.TaskThreads(t, task) }
func TestResume(t *testing.T)   { traintest.TaskResume(t, task) }
func TestStopped(t *testing.T)  { traintest.TaskStopped(t, task) }
func TestDiverges(t *testing.T) { traintest.TaskDiverges(t, task) }

// TestLearnsTheWeek: the week that was planted comes out of the artifact, for products that sell daily and for those
// that do not, and the forecast is closer than the season before.
func TestLearnsTheWeek(t *testing.T) {
	l := &lines{}
	o := quick(t, l)
	test, err := datasets.ParseRange("2024-07-01..2024-07-14")
	if err != nil {
		t.Fatal(err)
	}
	o.Test = &test
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Network || s.Scaling != forecaster.Ratio || !strings.Contains(s.Closed, "Sunday") {
		t.Errorf("network %v, scaling %s, %s", s.Network, s.Scaling, s.Closed)
	}
	var naive Metrics
	for _, b := range s.Test.Baselines {
		if b.Name == "seasonal-naive" {
			naive = b.Metrics
		}
	}
	if m := s.Test.Model; !(m["rmsse"] < .85*naive["rmsse"]) || !(m["pinball_90"] < naive["pinball_90"]) {
		t.Errorf(
			"rmsse %v and pinball_90 %v, of the season before %v and %v",
			m["rmsse"],
			m["pinball_90"],
			naive["rmsse"],
			naive["pinball_90"],
		)
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	f, err := forecaster.Open(a, 1)
	if err != nil {
		t.Fatal(err)
	}
	answers, err := f.Forecast(forecaster.Request{Horizon: 14, Keys: []string{"p11", "p01"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range answers {
		p := 11
		if x.Key == "p01" {
			p = 1
		}
		var error, level float64
		for k, at := range x.Steps {
			day := (int(time.UnixMicro(at).In(o.Source.Spec.Location()).Weekday()) + 6) % 7
			want := steady(p, 0) * week[day]
			error += math.Abs(x.Mean[k] - want)
			level += want
			if day == 6 && (x.Mean[k] != 0 || x.Quantiles[len(x.Levels)-1][k] != 0) {
				t.Errorf("%s on a Sunday: %v", x.Key, x.Mean[k])
			}
		}
		if !(error < .3*level) {
			t.Errorf("%s: the forecast is %.0f %% off the planted demand: %v", x.Key, 100*error/level, x.Mean)
		}
	}
}

// TestKnowsPromotions: a promotion that is known in advance is in the forecast of the steps after the history, though
// no step of the history says on which days it will be.
func TestKnowsPromotions(t *testing.T) {
	o := quick(t, &lines{})
	if err := o.Config.Set([]string{"rows=20000", "epochs=4"}); err != nil {
		t.Fatal(err)
	}
	yaml := strings.Replace(shopSpec, "panel:", "join:\n  - {table: calendar, on: date, take: [promotion]}\npanel:", 1) +
		"    - {name: promotion, kind: table, of: promotion, unit: flag, words: a promotion}\n"
	const days = 200
	o.Source = sourceOf(t, sold(t, 12, days, func(product, day int) float64 {
		if promoted(day) {
			return 3 * (2 + float64(product))
		}
		return 2 + float64(product)
	}), yaml)
	if _, err := Train(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	f, err := forecaster.Open(a, 1)
	if err != nil {
		t.Fatal(err)
	}
	answers, err := f.Forecast(forecaster.Request{Horizon: 14})
	if err != nil {
		t.Fatal(err)
	}
	var with, without, nWith, nWithout float64
	for _, x := range answers {
		for k := range x.Mean {
			day := days + k
			part := week[day%7] * (2 + float64(slices.Index(keysOf(answers), x.Key)))
			switch {
			case part == 0:
			case promoted(day):
				with, nWith = with+x.Mean[k]/part, nWith+1
			default:
				without, nWithout = without+x.Mean[k]/part, nWithout+1
			}
		}
	}
	if nWith == 0 || nWithout == 0 {
		t.Fatal("the horizon has no day with, or none without a promotion")
	}
	if with, without = with/nWith, without/nWithout; !(with > 2*without) {
		t.Errorf("on days of a promotion %.2f of a product's rate, on others %.2f; planted are 3 and 1", with, without)
	}
}

func keysOf(answers []forecaster.Answer) []string {
	var keys []string
	for _, a := range answers {
		keys = append(keys, a.Key)
	}
	return keys
}

// TestFollowsTransactions: an artifact that is fed what came after its history forecasts as one that was given the
// longer history, to the bit.
func TestFollowsTransactions(t *testing.T) {
	all := sold(t, 12, 200, steady)
	o := quick(t, &lines{})
	o.Source = source(t, all)
	train, err := datasets.ParseRange("..2024-06-30")
	if err != nil {
		t.Fatal(err)
	}
	o.Train = train
	if _, err := Train(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	live, err := forecaster.Open(a, 1)
	if err != nil {
		t.Fatal(err)
	}
	before, err := live.Forecast(forecaster.Request{Horizon: 7})
	if err != nil {
		t.Fatal(err)
	}
	_, to := train.Bounds()
	if err := all.Read(context.Background(), datasets.ReadOptions{Range: datasets.Range{From: to, To: math.MaxInt64}}, live.Fold); err != nil {
		t.Fatal(err)
	}
	whole, err := forecaster.Open(a, 1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.Source.Load(t.Context(), math.MaxInt64, 1)
	if err != nil {
		t.Fatal(err)
	}
	closed, _ := p.Cut(len(live.Panel().Times))
	if len(closed.Times) <= 182 {
		t.Fatalf("%d steps are closed", len(closed.Times))
	}
	if err := whole.Replace(closed, nil); err != nil {
		t.Fatal(err)
	}
	got, err := live.Forecast(forecaster.Request{Horizon: 7})
	if err != nil {
		t.Fatal(err)
	}
	want, err := whole.Forecast(forecaster.Request{Horizon: 7})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := fmt.Sprint(got), fmt.Sprint(want); a != b {
		t.Errorf("live\n%.300s\nfrom the whole history\n%.300s", a, b)
	}
	if fmt.Sprint(got) == fmt.Sprint(before) {
		t.Error("the transactions changed nothing")
	}
}

func TestBadInput(t *testing.T) {
	rng := func(text string) *datasets.Range {
		r, err := datasets.ParseRange(text)
		if err != nil {
			t.Fatal(err)
		}
		return &r
	}
	base := quick(t, &lines{})
	for _, c := range []struct {
		name string
		set  func(o *Options)
		want string
	}{
		{"train before the data", func(o *Options) { o.Train = *rng("2020-01-01..2020-02-01") }, "no steps"},
		{"train after the data", func(o *Options) { o.Train = *rng("2030-01-01..2030-02-01") }, "no steps there"},
		{"test inside train", func(o *Options) { o.Train, o.Test = *rng("..2024-06-30"), rng("2024-06-01..2024-07-07") }, "overlaps --train"},
		{"test after the data", func(o *Options) { o.Test = rng("2030-01-01..2030-01-14") }, "no steps there"},
		{"test after the data and a gap", func(o *Options) { o.Train, o.Test = *rng("..2024-06-30"), rng("2030-01-01..2030-01-14") }, "no steps there"},
		{"valid too short", func(o *Options) { o.Valid = rng("2024-06-01..2024-06-03") }, "want at least a horizon"},
		{"horizon", func(o *Options) { o.Horizon = 100_000 }, "want 1 to"},
	} {
		o := base
		o.Out = filepath.Join(t.TempDir(), "model")
		c.set(&o)
		if _, err := Train(t.Context(), o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	var c Config
	err := c.Set([]string{"hidden=0", "levels=.5,.5", "members=ets,ets", "members=none", "x=1", "epochs", "scaling=cube"})
	for _, want := range []string{"widths", "ascending", "named twice", `no method "none"`, "no setting", "NAME=VALUE", "want one of auto, ratio, shift"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("settings: %v, want %q", err, want)
		}
	}
}

// TestShortAndOddPanels: whatever a panel is, there is a model, it says what it lacks, and every series has an answer.
func TestShortAndOddPanels(t *testing.T) {
	for _, c := range []struct {
		name           string
		products, days int
		rate           func(product, day int) float64
		horizon        int
		says           string
	}{
		{"one day", 3, 1, func(int, int) float64 { return 5 }, 14, "too few to judge"},
		{"a horizon longer than the history", 3, 20, steady, 60, "too few to judge"},
		{"few rows", 2, 90, steady, 7, "too few for a network"},
		{"a product that begins on the last day", 6, 150, func(p, day int) float64 {
			if p == 5 && day < 149 {
				return 0
			}
			return 2
		}, 14, ""},
		{"a product that stopped long ago", 6, 200, func(p, day int) float64 {
			if p == 5 && day > 3 {
				return 0
			}
			return 2
		}, 14, ""},
	} {
		l := &lines{}
		o := quick(t, l)
		o.Source, o.Horizon = source(t, sold(t, c.products, c.days, c.rate)), c.horizon
		s, err := Train(t.Context(), o)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !l.has(c.says) || c.says != "" && s.Network {
			t.Errorf("%s: network %v, said %q", c.name, s.Network, l.all)
		}
		a, err := model.Open(o.Out)
		if err != nil {
			t.Fatal(err)
		}
		f, err := forecaster.Open(a, 1)
		if err != nil {
			t.Fatal(err)
		}
		answers, err := f.Forecast(forecaster.Request{Horizon: c.horizon + 3})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, x := range answers {
			for k := range x.Mean {
				last := 0.
				for l := range x.Levels {
					q := x.Quantiles[l][k]
					if !(q >= last) || math.IsInf(q, 0) {
						t.Fatalf("%s: %s step %d: quantiles %v", c.name, x.Key, k, x.Quantiles)
					}
					last = q
				}
				if !(x.Mean[k] >= 0) || math.IsInf(x.Mean[k], 0) {
					t.Fatalf("%s: %s: mean %v", c.name, x.Key, x.Mean)
				}
			}
		}
	}
}

// network is the forecaster's network with made-up rows that it can learn.
func network(t testing.TB, c Config, rows, steps int) traintest.Case {
	t.Helper()
	const width = 21
	set, err := c.Compile(width, rows)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	x, y, w := make([]float32, rows*width), make([]float32, rows), make([]float32, rows)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for i := range y {
		y[i] = x[i*width] + x[i*width+1]*x[i*width+2] + float32(.3*r.NormFloat64())
		w[i] = .5 + r.Float32()
	}
	return traintest.Case{Set: set, Learns: .1, Data: program.Data{
		Columns: []program.Column{
			{Name: columnX, Rows: rows, Width: width, F32: x}, {Name: columnTarget, Rows: rows, Width: 1, F32: y},
			{Name: columnWeight, Rows: rows, Width: 1, F32: w}},
		Schedule: program.Schedule{Seed: 3, Train: program.Range{To: rows}, Rates: c.Rates(steps, 1)},
	}}
}

// TestDefaultNetwork is the network that is trained unless told otherwise, a quarter as wide: the emulator runs it.
func TestDefaultNetwork(t *testing.T) {
	c := DefaultConfig().resolved(&forecaster.Design{Scaling: forecaster.Ratio})
	if err := c.Set([]string{"hidden=64,64", "batch=256"}); err != nil {
		t.Fatal(err)
	}
	traintest.Run(t, network(t, c, 1000, 40))
}

// TestOddNetwork has one tower, layers without a skip, one level, and a rest of one row.
func TestOddNetwork(t *testing.T) {
	c := DefaultConfig()
	if err := c.Set([]string{"hidden=33,5", "towers=1", "batch=160", "levels=.4", "learning_rate=.02"}); err != nil {
		t.Fatal(err)
	}
	traintest.Run(t, network(t, c, 321, 60))
}

// TestOptimizers: the network learns with each of them, clipped and averaged, the same on every path.
func TestOptimizers(t *testing.T) {
	for _, pairs := range [][]string{
		{"optimizer=sgd", "nesterov=true", "learning_rate=0.1", "schedule=plateau", "clip_norm=1"},
		{"optimizer=adagrad", "learning_rate=0.02", "ema=0.9", "schedule=constant"},
		{"optimizer=adam", "weight_decay=0.001", "clip_norm=0.5", "ema=0.99", "schedule=one-cycle"},
	} {
		c := DefaultConfig()
		if err := c.Set(append(pairs, "hidden=33,33", "batch=100")); err != nil {
			t.Fatal(err)
		}
		k := network(t, c, 333, 60)
		traintest.Sound(t, k)
		traintest.Threads(t, k)
		traintest.Portable(t, k)
	}
}

func TestTrainOnTheGPU(t *testing.T) {
	a, err := model.Open(traintest.TaskOnGPU(t, task))
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Manifest().Created.Backend; !strings.HasPrefix(got, "cuda sm_") {
		t.Errorf("the artifact was made on %q", got)
	}
}
