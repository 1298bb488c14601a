package job

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/score/monitor"
)

// TestStay: a job that also answers requests goes on after its source has ended, until its context does.
func TestStay(t *testing.T) {
	b := one(10)
	p, err := start(t, t.TempDir(), func(o *Options) { overTopics(b)(o); o.Stay = true })
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- p.j.Run(ctx) }()
	until(t, p.hasRead)
	select {
	case err := <-done:
		t.Errorf("it ended with its source: %v", err)
	case <-time.After(300 * time.Millisecond):
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	p.close(t)
	answered(t, b, 10, b.lines)
}

// TestLettersOfRefusedLinesAreCounted: a scored line that the sink refuses leaves a dead letter, which the metric counts.
func TestLettersOfRefusedLinesAreCounted(t *testing.T) {
	b := one(2)
	b.produce("kafka:in/0", 0, []byte("large"),
		[]byte(`{"id":9,"ts":1600000500,"customer":1,"terminal":1,"amount":1,"note":"`+strings.Repeat("x", 5000)+`"}`))
	var m *monitor.Monitor
	runs(t, t.TempDir(), func(o *Options) {
		overTopics(b)(o)
		o.DeadLetters = true
		o.Sink = &refusing{memorySink{b: b, commits: true}, 2000}
		m = o.Monitor
	})
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "onmart_dead_letters_total" {
			continue
		}
		for _, x := range f.GetMetric() {
			want := 0.0
			for _, l := range x.GetLabel() {
				if l.GetValue() == "too_large" {
					want = 1
				}
			}
			if got := x.GetCounter().GetValue(); got != want {
				t.Errorf("%v is %g, want %g", x.GetLabel(), got, want)
			}
		}
		return
	}
	t.Error("there is no metric of dead letters")
}
