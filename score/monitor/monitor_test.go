package monitor

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestReadinessIsAllChecks(t *testing.T) {
	h := &Health{}
	if ready, _ := h.Ready(); ready {
		t.Error("ready without a check")
	}
	h.Expect("model", "state")
	h.Set("model", nil)
	if ready, checks := h.Ready(); ready || checks[0].Name != "model" || checks[1].Error == "" {
		t.Errorf("ready %v with %+v", ready, checks)
	}
	h.Set("state", nil)
	var lag error
	h.Func("lag", func() error { return lag })
	if ready, _ := h.Ready(); !ready {
		t.Error("not ready with all good")
	}
	lag = errors.New("10 behind")
	if ready, checks := h.Ready(); ready || checks[2].Error != "10 behind" {
		t.Errorf("ready %v with %+v", ready, checks)
	}
	lag = nil
	h.Drain()
	if ready, _ := h.Ready(); ready || !h.Draining() {
		t.Error("ready while it drains")
	}
}

func TestQuantilesOfASpread(t *testing.T) {
	var s spread
	for i := 1; i <= 10000; i++ {
		s.observe(time.Duration(i) * time.Microsecond)
	}
	c := s.counts()
	for _, q := range []float64{.01, .5, .9, .99} {
		got, want := quantile(&c, q).Seconds(), q*.01
		if !(math.Abs(got/want-1) <= .07) {
			t.Errorf("quantile %g is %g, want %g", q, got, want)
		}
	}
	for _, d := range []time.Duration{0, 1, 127, 128, 129, time.Microsecond, time.Second, time.Hour, math.MaxInt64} {
		if b := bucketOf(d); b < 0 || b >= buckets {
			t.Errorf("%s is in bucket %d of %d", d, b, buckets)
		}
	}
}

func TestHistoryIsAQuarterOfAnHour(t *testing.T) {
	m := NewMetrics(Build{}, &Health{})
	var c Counts
	m.CountsFrom(func() Counts { return c })
	now := time.Now()
	for i := range Points + 20 {
		c.Scored += 50
		m.Delivered(50, time.Duration(1+i%2)*time.Millisecond)
		now = now.Add(Step)
		m.Tick(now)
	}
	h := m.History()
	if len(h) != Points || !h[Points-1].End.Equal(now) {
		t.Fatalf("%d points", len(h))
	}
	for i, p := range h {
		if i > 0 && !p.End.After(h[i-1].End) {
			t.Fatalf("point %d is not after the one before", i)
		}
		if math.Abs(p.Transactions-10) > 1e-6 || !(p.P50 > .9 && p.P50 < 2.2) {
			t.Fatalf("point %d: %+v", i, p)
		}
	}
}

func TestAlertsAreBounded(t *testing.T) {
	a := &Alerts{}
	for i := range 3 * keptAlerts {
		a.Add(time.Unix(int64(i), 0), []byte(`{"n":1}`))
	}
	a.Add(time.Unix(0, 0), []byte(strings.Repeat("x", maxAlert+1)))
	last, long := a.Last()
	if len(last) != keptAlerts || long != 1 || last[0].At.Unix() != 3*keptAlerts-1 {
		t.Errorf("%d kept, %d too long, newest %v", len(last), long, last[0].At)
	}
}

// What a batch calls must not give the garbage collector work.
func TestMetricsAllocateNothing(t *testing.T) {
	m := New(Build{})
	line := []byte(`{"score_id":"x"}`)
	for range keptAlerts {
		m.Alerts.Add(time.Now(), line)
	}
	now := time.Now()
	m.Lag("kafka:t/0", 1)
	if n := testing.AllocsPerRun(100, func() {
		m.Stage(Features, time.Microsecond)
		m.Scored(.5)
		m.Error(Malformed)
		m.Delivered(10, time.Millisecond)
		m.Lag("kafka:t/0", 5)
		m.Alerts.Add(now, line)
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}
