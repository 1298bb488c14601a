package monitor

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Step is the time between two points of the history, and Points how many it keeps: a quarter of an hour.
const (
	Step   = 5 * time.Second
	Points = 180
)

// Point is what happened in one step.
type Point struct {
	End          time.Time `json:"end"`
	Transactions float64   `json:"transactions_per_second"`
	Lines        float64   `json:"delivered_per_second"`
	Alerts       float64   `json:"alerts_per_second"`
	Rejected     float64   `json:"rejected_per_second"`
	P50          float64   `json:"p50_ms"` // from arrival to delivery; 0 where nothing was
	P99          float64   `json:"p99_ms"`
	Lag          int64     `json:"lag"`
}

// StageTimes are the times of the last minute in a stage.
type StageTimes struct {
	Stage   string  `json:"stage"`
	Batches int64   `json:"batches"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
}

// recent is the history in the making: counters that only grow, and what they were at the last steps.
type recent struct {
	latency spread
	stages  [stages]spread
	lines   atomic.Int64

	mu     sync.Mutex
	points []Point // a ring once full
	next   int
	at     time.Time
	counts Counts
	sent   int64
	before [buckets]int64
	minute [][stages][buckets]int64 // of the last steps, the oldest first
}

// minuteSteps are the steps of StageTimes.
const minuteSteps = int(time.Minute / Step)

func (r *recent) start(now time.Time) {
	r.at = now
	r.minute = append(r.minute, r.stageCounts())
}

// Tick closes a step of the history. The caller calls it every Step.
func (m *Metrics) Tick(now time.Time) {
	counts, lag := m.Counts(), m.TotalLag()
	r := &m.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	took := now.Sub(r.at).Seconds()
	if took <= 0 {
		return
	}
	sent, after := r.lines.Load(), r.latency.counts()
	step := minus(&after, &r.before)
	p := Point{
		End: now, Lag: lag, Lines: float64(sent-r.sent) / took,
		Transactions: float64(counts.Scored-r.counts.Scored) / took,
		Alerts:       float64(counts.Alerts-r.counts.Alerts) / took,
		Rejected:     float64(counts.Rejected-r.counts.Rejected) / took,
		P50:          milliseconds(quantile(&step, .5)), P99: milliseconds(quantile(&step, .99)),
	}
	if len(r.points) < Points {
		r.points = append(r.points, p)
	} else {
		r.points[r.next] = p
		r.next = (r.next + 1) % Points
	}
	r.at, r.counts, r.sent, r.before = now, counts, sent, after
	if len(r.minute) > minuteSteps {
		r.minute = r.minute[1:]
	}
	r.minute = append(r.minute, r.stageCounts())
}

// Run closes steps until ctx ends.
func (m *Metrics) Run(ctx context.Context) {
	tick := time.NewTicker(Step)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			m.Tick(now)
		}
	}
}

// History is the closed steps, the oldest first.
func (m *Metrics) History() []Point {
	r := &m.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(append(make([]Point, 0, len(r.points)), r.points[r.next:]...), r.points[:r.next]...)
}

// StageTimes are the times by stage since about a minute ago.
func (m *Metrics) StageTimes() []StageTimes {
	r := &m.recent
	now := r.stageCounts()
	r.mu.Lock()
	first := r.minute[0]
	r.mu.Unlock()
	var out []StageTimes
	for s := range stages {
		d := minus(&now[s], &first[s])
		t := StageTimes{Stage: s.String(), P50: milliseconds(quantile(&d, .5)), P99: milliseconds(quantile(&d, .99))}
		for _, n := range d {
			t.Batches += n
		}
		out = append(out, t)
	}
	return out
}

func (r *recent) stageCounts() (out [stages][buckets]int64) {
	for s := range stages {
		out[s] = r.stages[s].counts()
	}
	return out
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A spread counts durations in buckets of an eighth of their power of two, from 128 ns up: a quantile read from it
// is within 6.25 % of what it stands for.
const (
	fine    = 3 // bits within a power of two
	lowest  = 7 // 2^lowest ns is the first bucket's end
	highest = 37
	buckets = (highest-lowest)<<fine + 2
)

type spread [buckets]atomic.Int64

func (s *spread) observe(d time.Duration) { s[bucketOf(d)].Add(1) }

func bucketOf(d time.Duration) int {
	if d < 1<<lowest {
		return 0
	}
	power := bits.Len64(uint64(d)) - 1
	if power >= highest {
		return buckets - 1
	}
	return 1 + (power-lowest)<<fine + int(d>>(power-fine))&(1<<fine-1)
}

// middle is the duration that a bucket stands for.
func middle(bucket int) time.Duration {
	switch {
	case bucket == 0:
		return 1 << (lowest - 1)
	case bucket == buckets-1:
		return 1 << highest
	}
	power, part := (bucket-1)>>fine+lowest, (bucket-1)&(1<<fine-1)
	width := time.Duration(1) << (power - fine)
	return time.Duration(1)<<power + time.Duration(part)*width + width/2
}

func (s *spread) counts() (out [buckets]int64) {
	for i := range s {
		out[i] = s[i].Load()
	}
	return out
}

func minus(a, b *[buckets]int64) (out [buckets]int64) {
	for i := range a {
		out[i] = a[i] - b[i]
	}
	return out
}

// quantile is 0 where nothing was counted.
func quantile(counts *[buckets]int64, q float64) time.Duration {
	var total int64
	for _, n := range counts {
		total += n
	}
	rank := int64(q * float64(total))
	for i, n := range counts {
		if rank -= n; rank < 0 {
			return middle(i)
		}
	}
	return 0
}
