package score

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the scorer's own, in a registry of their own: two scorers in a process do not meet.
type metrics struct {
	registry *prometheus.Registry
	seconds  prometheus.Histogram
	reloads  *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.seconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "onmart_score_batch_seconds", Help: "Time to compute features and scores of one batch, state included.",
		// From one event in memory (tens of microseconds) to a batch of thousands.
		Buckets: prometheus.ExponentialBuckets(10e-6, 2, 16),
	})
	m.reloads = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "onmart_reloads_total", Help: "Models and rules that were reloaded or promoted, by what came of it.",
	}, []string{"target", "result"})
	m.registry.MustRegister(m.seconds, m.reloads)
	return m
}

// registerCounts exposes the counts, which live under the scorer's lock.
func (s *Scorer) registerCounts() {
	for _, c := range []struct {
		name, help string
		get        func(Counts) int64
	}{
		{"onmart_score_transactions_total", "Transactions scored.", func(c Counts) int64 { return c.Scored }},
		{"onmart_score_alerts_total", "Transactions at or above the threshold.", func(c Counts) int64 { return c.Alerts }},
		{"onmart_score_late_total", "Transactions scored later than the allowed lateness.", func(c Counts) int64 { return c.Late }},
		{"onmart_score_labels_total", "Labels folded.", func(c Counts) int64 { return c.Labels }},
		{"onmart_score_labels_waiting_total", "Labels that came before their transaction.", func(c Counts) int64 { return c.LabelsWaiting }},
		{"onmart_score_labels_expired_total", "Labels that came too late to be used.", func(c Counts) int64 { return c.LabelsExpired }},
		{"onmart_score_duplicates_total", "Transactions that came again and were not counted.", func(c Counts) int64 { return c.Duplicates }},
		{"onmart_score_skipped_total", "Transactions outside the range that is scored.", func(c Counts) int64 { return c.Skipped }},
		{"onmart_score_followed_total", "Transactions handed to forecasts and recommendations.", func(c Counts) int64 { return c.Followed }},
		{"onmart_score_ruled_total", "Transactions that a rule decided.", func(c Counts) int64 { return c.Ruled }},
		{"onmart_score_rejected_total", "Events that could not be read.", func(c Counts) int64 { return c.Rejected }},
	} {
		s.metrics.registry.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Name: c.name, Help: c.help},
			func() float64 { return float64(c.get(s.Counts())) }))
	}
}

func (m *metrics) observe(d time.Duration) { m.seconds.Observe(d.Seconds()) }

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
