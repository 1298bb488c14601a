package quality_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/quality"
	"github.com/onmart/onmart/train"
)

// step is a transaction or a label of a made-up log.
type step struct {
	label bool
	x     quality.Scored
	score float64
	fraud bool
}

const delay = 7 * datasets.Day

// stream has purchases of one or two lines, ties among scores, some late, and labels that come early, late, twice,
// before their transaction, and for all lines.
func stream(seed uint64, n int) []step {
	r := rand.New(rand.NewPCG(seed, 1))
	type timed struct {
		at int64
		s  step
	}
	var list []timed
	at := int64(1533081600) * datasets.Second
	for id := range n {
		at += r.Int64N(2 * 90 * datasets.Day / int64(n))
		lines := 1 + r.IntN(2)
		for line := range lines {
			s := step{x: quality.Scored{ID: quality.HashInt(int64(id)), Line: int64(line), Time: at, Label: quality.Unlabelled},
				score: math.Round(r.Float64()*50) / 50}
			if r.IntN(10) == 0 {
				s.x.Label = int8(r.IntN(2))
			}
			came := at
			if r.IntN(10) == 0 {
				came += r.Int64N(3 * datasets.Day)
			}
			list = append(list, timed{came, s})
		}
		for range r.IntN(3) {
			l := step{label: true, x: quality.Scored{ID: quality.HashInt(int64(id)), Line: int64(r.IntN(lines))},
				fraud: r.IntN(2) == 0}
			if r.IntN(4) == 0 {
				l.x.Line = quality.NoLine
			}
			list = append(list, timed{at - datasets.Day + r.Int64N(20*datasets.Day), l})
		}
	}
	slices.SortStableFunc(list, func(a, b timed) int { return int(min(max(a.at-b.at, -1), 1)) })
	var out []step
	for _, t := range list {
		out = append(out, t.s)
	}
	return out
}

func feed(l *quality.Live, steps []step) {
	for _, s := range steps {
		if s.label {
			l.Label(s.x.ID, s.x.Line, s.fraud)
		} else {
			l.Add("v1", 0.7, s.x, s.score)
		}
	}
}

// batch computes the figures of a log with what package train has for a batch.
func batch(steps []step, window int64, budget int) quality.Figures {
	f := quality.Figures{Version: "v1", Sampled: 1, Alerts: quality.Alerts{Threshold: 0.7}, Budget: quality.Budget{PerDay: budget}}
	watermark := int64(math.MinInt64)
	for _, s := range steps {
		if !s.label {
			watermark = max(watermark, s.x.Time)
		}
	}
	due, bound := watermark-delay, watermark-delay-window
	var ys []bool
	var ps []float64
	type row struct {
		p  float64
		y  bool
		at int
	}
	byDay := map[int64][]row{}
	for i, s := range steps {
		if s.label || s.x.Time <= bound {
			continue
		}
		y := s.x.Label
		for j, l := range steps {
			same := l.label && l.x.ID == s.x.ID && (l.x.Line == quality.NoLine || l.x.Line == s.x.Line)
			if same && (j > i || s.x.Label == quality.Unlabelled) {
				y = quality.Genuine
				if l.fraud {
					y = quality.Fraud
				}
			}
		}
		day := s.x.Time / datasets.Day * datasets.Day
		if day > bound && day+datasets.Day <= due {
			byDay[day] = append(byDay[day], row{s.score, y == quality.Fraud, i})
		}
		if s.x.Time > due {
			f.Pending++
			continue
		}
		if y != quality.Unlabelled {
			f.Labels++
		}
		ys, ps = append(ys, y == quality.Fraud), append(ps, s.score)
	}
	f.Rows = len(ys)
	for i, y := range ys {
		f.Expected += ps[i]
		alert := ps[i] >= 0.7
		if y {
			f.Positives++
		}
		if alert {
			f.Alerts.Rows++
			if y {
				f.Alerts.Positives++
			}
		}
	}
	for _, rows := range byDay {
		slices.SortStableFunc(rows, func(a, b row) int { return int(min(max((b.p-a.p)*1000, -1), 1)) })
		rows = rows[:min(budget, len(rows))]
		f.Budget.Days++
		f.Budget.Rows += len(rows)
		for _, r := range rows {
			if r.y {
				f.Budget.Positives++
			}
		}
	}
	point := func(v float64) *float64 { return &v }
	f.AUC, f.AveragePrecision = point(train.AUC(ys, ps)), point(train.AveragePrecision(ys, ps))
	f.Brier, f.LogLoss = point(train.Brier(ys, ps)), point(train.LogLoss(ys, ps))
	return f
}

// TestLikeABatch: the running figures are those of a batch over the log, to the bit, also across a restart.
func TestLikeABatch(t *testing.T) {
	steps := stream(3, 1500)
	for _, until := range []int{len(steps), len(steps) / 2, 300} {
		o := quality.Options{Delay: delay, Window: 30 * datasets.Day, Budget: 5}
		l := quality.New(o)
		feed(l, steps[:until/3])
		var state bytes.Buffer
		if err := l.Snapshot(&state); err != nil {
			t.Fatal(err)
		}
		l = quality.New(o)
		if err := l.Restore(bytes.NewReader(state.Bytes())); err != nil {
			t.Fatal(err)
		}
		var again bytes.Buffer
		if err := l.Snapshot(&again); err != nil || !bytes.Equal(state.Bytes(), again.Bytes()) {
			t.Fatal("a restored state is another", err)
		}
		feed(l, steps[until/3:until])
		got, want := l.Figures()[0], batch(steps[:until], o.Window, o.Budget)
		if got.Rows < 100 && until > 300 || got.Budget.Days == 0 && until > 300 {
			t.Fatalf("too little is judged: %+v", got)
		}
		if len(got.Calibration) != 10 || got.To == "" {
			t.Errorf("calibration %+v to %q", got.Calibration, got.To)
		}
		n, mean := 0, 0.0
		for _, d := range got.Calibration {
			n += d.Rows
			mean += d.Observed * float64(d.Rows)
		}
		if n != got.Rows || math.Abs(mean-float64(got.Positives)) > 1e-9 {
			t.Errorf("deciles of %d rows, %v positives", n, mean)
		}
		got.Calibration, got.From, got.To = nil, "", ""
		if a, b := show(got), show(want); a != b {
			t.Errorf("%d steps:\n got %s\nwant %s", until, a, b)
		}
	}
}

func show(f quality.Figures) string {
	v := func(p *float64) uint64 {
		if p == nil {
			return 0
		}
		return math.Float64bits(*p)
	}
	b := f.Budget
	return fmt.Sprintf("%d rows %d pending %d labels %d positives auc %x ap %x brier %x loss %x expected %x alerts %d/%d budget %d days %d/%d",
		f.Rows, f.Pending, f.Labels, f.Positives, v(f.AUC), v(f.AveragePrecision), v(f.Brier), v(f.LogLoss),
		math.Float64bits(f.Expected), f.Alerts.Positives, f.Alerts.Rows, b.Days, b.Positives, b.Rows)
}

// TestSample: with too many transactions a sample of purchases is kept, and it says of which size; memory is bounded.
func TestSample(t *testing.T) {
	steps := stream(4, 6000)
	all := quality.New(quality.Options{Delay: delay, Budget: 5})
	some := quality.New(quality.Options{Delay: delay, Budget: 5, Keep: 512})
	feed(all, steps)
	feed(some, steps)
	a, b := all.Figures()[0], some.Figures()[0]
	if b.Sampled > 0.26 || b.Rows+b.Pending > 512 || b.Rows < 50 || a.Sampled != 1 {
		t.Errorf("sampled %v, %d rows of %d", b.Sampled, b.Rows, a.Rows)
	}
	if math.Abs(*a.Brier-*b.Brier) > 0.1 {
		t.Errorf("the sample is of others: %v, %v", *a.Brier, *b.Brier)
	}
	if a.Budget.Positives != b.Budget.Positives || a.Budget.Rows != b.Budget.Rows {
		t.Errorf("the budget is not of a sample: %+v, %+v", a.Budget, b.Budget)
	}
}

// TestVersions: each has its own rows; of many the oldest are forgotten.
func TestVersions(t *testing.T) {
	l := quality.New(quality.Options{Delay: delay})
	steps := stream(5, 20)
	for i := range 1000 {
		for _, s := range steps {
			if !s.label {
				l.Add(fmt.Sprint("v", i), 0.5, s.x, s.score)
			}
		}
	}
	if f := l.Figures(); len(f) != 8 || f[0].Version != "v999" || f[7].Version != "v992" {
		t.Errorf("%d versions", len(f))
	}
}

// TestNoAllocations: in its steady state nothing is allocated by an event.
func TestNoAllocations(t *testing.T) {
	l := quality.New(quality.Options{Delay: delay, Window: datasets.Day, Budget: 5, Keep: 256})
	id, at := int64(0), int64(1533081600)*datasets.Second
	one := func() {
		id++
		at += 600 * datasets.Second
		l.Add("v", 0.5, quality.Scored{ID: quality.HashInt(id), Time: at, Line: quality.NoLine, Label: quality.Unlabelled},
			float64(id%17)/17)
		l.Label(quality.HashInt(id-30), quality.NoLine, true)
	}
	for range 20_000 {
		one()
	}
	if n := testing.AllocsPerRun(140, one); n != 0 { // no new day within
		t.Errorf("%v allocations", n)
	}
}

func TestRestoreDamaged(t *testing.T) {
	o := quality.Options{Delay: delay, Budget: 5}
	l := quality.New(o)
	feed(l, stream(6, 50))
	var state bytes.Buffer
	if err := l.Snapshot(&state); err != nil {
		t.Fatal(err)
	}
	for i := range state.Len() {
		b := bytes.Clone(state.Bytes())
		b[i] ^= 0x40
		if quality.New(o).Restore(bytes.NewReader(b)) == nil {
			t.Fatalf("byte %d may be changed", i)
		}
		if i%7 == 0 && quality.New(o).Restore(bytes.NewReader(state.Bytes()[:i])) == nil {
			t.Fatalf("%d bytes are a state", i)
		}
	}
	if err := quality.New(quality.Options{Delay: delay, Budget: 6}).Restore(&state); err == nil {
		t.Error("a state of another budget was taken up")
	}
}

func BenchmarkAdd(b *testing.B) {
	l := quality.New(quality.Options{Delay: delay})
	id, at := int64(0), int64(1533081600)*datasets.Second
	b.ReportAllocs()
	for b.Loop() {
		id++
		at += 600 * datasets.Second / 100
		l.Add("v", 0.5, quality.Scored{ID: quality.HashInt(id), Time: at, Line: quality.NoLine, Label: quality.Unlabelled},
			float64(id%17)/17)
	}
}
