// Package monitor is what a scorer tells about itself: its metrics, its readiness, and the last quarter of an hour.
//
// What enters: calls of the loop, the sources, the sinks and the HTTP handlers, each a few atomic additions. What
// leaves: a Prometheus registry, a list of checks, and a history for the status page. All metrics of the process are
// made in this file, so that docs/METRICS.md, the dashboard and the alert rules can be held against one list. Nothing
// here may be assumed to be exact across metrics: each is read at its own instant.
package monitor

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Stage is a part of the way of an event through the scorer.
type Stage int

const (
	Queue    Stage = iota // wait for the batch before
	Decode                // from bytes to columns
	Features              // the feature engine, folding included
	Model                 // the forward pass
	Encode                // rules, reasons and the lines of JSON
	Deliver               // from the lines to the sink's or the broker's acknowledgement
	stages
)

var stageNames = [stages]string{"queue", "decode", "features", "model", "encode", "deliver"}

func (s Stage) String() string { return stageNames[s] }

// Cause of an error or of a dead letter. Their number is small and fixed: it is a label.
type Cause int

const (
	Malformed   Cause = iota // no event can be read from it, or a field cannot be
	Invalid                  // readable, and refused by what the features ask of their columns
	Duplicate                // was scored before
	TooLate                  // further behind than the features allow
	TooEarly                 // of a time that cannot be yet
	TooLarge                 // longer than an event may be
	SourceFault              // the source could not be read; it is tried again
	SinkFault                // the sink did not take the lines; it is tried again
	StateFault               // the state could not be written or read
	ReloadFault              // a new model, token file or certificate was refused, and the old one serves
	Internal                 // a bug of ours
	causes
)

var causeNames = [causes]string{"malformed", "invalid", "duplicate", "too_late", "too_early", "too_large",
	"source", "sink", "state", "reload", "internal"}

func (c Cause) String() string { return causeNames[c] }

// Refusal is why an HTTP request was turned away before it reached the scorer.
type Refusal int

const (
	Unauthorized Refusal = iota // no token, or a wrong one
	Forbidden                   // a token without the scope
	RateLimited                 // the token's requests come too fast
	QueueFull                   // too many requests wait
	BodyTooLarge                // over the limit of a body
	SlowClient                  // did not send its body in time
	TooManyConns                // over the limit of connections
	CrossOrigin                 // sent by a page of another site
	WrongHost                   // a name that is not this machine's, where no token protects it
	ShuttingDown                // the process drains
	refusals
)

var refusalNames = [refusals]string{"unauthorized", "forbidden", "rate_limited", "queue_full", "body_too_large",
	"slow_client", "too_many_connections", "cross_origin", "wrong_host"}

func (r Refusal) String() string { return refusalNames[r] }

// Build says what runs.
type Build struct{ Version, Go, CPU string }

// Entry of the catalog of metrics.
type Entry struct {
	Name, Type, Help string
	Labels           []string
}

// Counts are the totals of a scorer since it was made.
type Counts struct {
	Scored        int64 `json:"scored"`
	Alerts        int64 `json:"alerts"`
	Late          int64 `json:"late"`
	Labels        int64 `json:"labels"`
	LabelsWaiting int64 `json:"labels_waiting"`
	LabelsExpired int64 `json:"labels_expired"`
	Duplicates    int64 `json:"duplicates"`
	Skipped       int64 `json:"skipped"`
	Rejected      int64 `json:"rejected"`
	Followed      int64 `json:"followed,omitempty"` // transactions that went to forecasts and recommendations
	Ruled         int64 `json:"ruled,omitempty"`    // transactions that a rule decided, before the model or after it
	Stock         int64 `json:"stock,omitempty"`    // counts of stock
}

// Plus adds the totals of a further piece.
func (c Counts) Plus(d Counts) Counts {
	return Counts{
		c.Scored + d.Scored, c.Alerts + d.Alerts, c.Late + d.Late, c.Labels + d.Labels,
		c.LabelsWaiting + d.LabelsWaiting, c.LabelsExpired + d.LabelsExpired, c.Duplicates + d.Duplicates,
		c.Skipped + d.Skipped, c.Rejected + d.Rejected, c.Followed + d.Followed, c.Ruled + d.Ruled,
		c.Stock + d.Stock,
	}
}

// Metrics of one scorer, in a registry of their own: two scorers in a process do not meet. Methods may be called
// from any goroutine; those that a batch calls allocate nothing.
type Metrics struct {
	registry *prometheus.Registry
	catalog  []Entry

	batch     prometheus.Histogram
	stages    [stages]prometheus.Histogram
	delivered prometheus.Histogram
	out       prometheus.Counter
	scores    prometheus.Histogram
	errors    [causes]prometheus.Counter
	dead      [causes]prometheus.Counter
	lag       *prometheus.GaugeVec
	reached   *prometheus.GaugeVec
	stateKeys prometheus.Gauge
	stateSize *prometheus.GaugeVec
	saved     prometheus.Gauge
	saving    prometheus.Histogram
	reloads   *prometheus.CounterVec

	requests  *prometheus.CounterVec
	answering *prometheus.HistogramVec
	refused   [refusals]prometheus.Counter
	waiting   prometheus.Gauge
	conns     prometheus.Gauge

	recent  recent
	started time.Time
	counts  atomic.Pointer[func() Counts]

	mu         sync.Mutex
	lags       map[string]int64
	sizes      map[string]int64 // of the state
	lagMetrics map[string]prometheus.Gauge
	state      func() (keys int64, bytes map[string]int64)
	watermark  func() (micros int64, ok bool)
}

// seconds are the buckets of a latency: from one event in memory (tens of microseconds) to a broker that hangs.
var seconds = prometheus.ExponentialBuckets(10e-6, 2, 22)

// NewMetrics registers them all. Health's checks are exported beside them.
func NewMetrics(b Build, h *Health) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), started: time.Now(),
		lags: map[string]int64{}, sizes: map[string]int64{}, lagMetrics: map[string]prometheus.Gauge{}}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.ofBuild(b)
	m.ofEvents()
	m.ofDelivery()
	m.ofModels()
	m.ofHTTP()
	m.ofHealth(h)
	m.recent.start(time.Now())
	return m
}

func (m *Metrics) ofBuild(b Build) {
	build := m.gauges("onmart_build_info", "What runs; always 1.", "version", "go", "cpu")
	build.WithLabelValues(b.Version, b.Go, b.CPU).Set(1)
	start := m.gauge("onmart_start_time_seconds", "When the process began to serve, seconds since 1970 UTC.")
	start.Set(float64(m.started.UnixMicro()) / 1e6)
}

func (m *Metrics) ofEvents() {
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
		{"onmart_score_stock_total", "Counts of stock folded.", func(c Counts) int64 { return c.Stock }},
		{"onmart_score_rejected_total", "Events that could not be read.", func(c Counts) int64 { return c.Rejected }},
	} {
		m.list(c.name, "counter", c.help)
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help},
			func() float64 { return float64(c.get(m.Counts())) }))
	}
	m.batch = m.histogram(
		"onmart_score_batch_seconds",
		"Time to compute features and scores of one batch, state included.",
		seconds,
	)
	byStage := m.histograms("onmart_stage_seconds", "Time of one batch in a stage.", seconds, "stage")
	for s := range stages {
		m.stages[s] = byStage.WithLabelValues(s.String()).(prometheus.Histogram)
	}
	// Most scores lie near 0; the rare ones near 1 are those that matter.
	m.scores = m.histogram(
		"onmart_score_value",
		"Scores given.",
		[]float64{.001, .002, .005, .01, .02, .05, .1, .2, .3, .4, .5, .6, .7, .8, .9, .95, .99},
	)
	byCause := m.counters("onmart_errors_total", "What went wrong, by cause.", "cause")
	dead := m.counters("onmart_dead_letters_total", "Events set aside as dead letters, by cause.", "cause")
	for c := range causes {
		m.errors[c], m.dead[c] = byCause.WithLabelValues(c.String()), dead.WithLabelValues(c.String())
	}
}

func (m *Metrics) ofDelivery() {
	m.delivered = m.histogram(
		"onmart_delivery_seconds",
		"From the arrival of a batch's oldest event to the acknowledgement of its output.",
		seconds,
	)
	m.out = m.counter("onmart_delivered_total", "Lines that the sink, the broker or the HTTP client took.")
	m.lag = m.gauges("onmart_source_lag_events", "Events in the source's log that are not delivered yet.", "source")
	m.reached = m.gauges("onmart_source_position", "Next position of the source.", "source")
	m.stateKeys = m.gauge("onmart_state_keys", "Keys that the features hold state of.")
	m.stateSize = m.gauges("onmart_state_bytes", "Bytes of the state, by where they lie.", "where")
	m.saved = m.gauge(
		"onmart_state_saved_time_seconds",
		"When the last checkpoint was complete, seconds since 1970 UTC; 0 before the first.",
	)
	m.saving = m.histogram(
		"onmart_state_save_seconds",
		"Time to write a checkpoint.",
		prometheus.ExponentialBuckets(1e-3, 2, 16),
	)
	m.list("onmart_watermark_seconds", "gauge", "Greatest event time folded, seconds since 1970 UTC; 0 before the first.")
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "onmart_watermark_seconds",
		Help: "Greatest event time folded, seconds since 1970 UTC; 0 before the first."}, m.watermarkSeconds))
}

func (m *Metrics) ofModels() {
	m.reloads = m.counters(
		"onmart_reloads_total",
		"Models, rules, tokens and certificates that were reloaded or promoted, by what came of it.",
		"target",
		"result",
	)
}

func (m *Metrics) ofHTTP() {
	m.requests = m.counters("onmart_http_requests_total", "HTTP requests answered.", "route", "status")
	m.answering = m.histograms(
		"onmart_http_request_seconds",
		"From a request's headers to the end of its answer.",
		seconds,
		"route",
	)
	by := m.counters("onmart_http_refused_total", "HTTP requests and connections turned away, by cause.", "cause")
	for r := range refusals {
		m.refused[r] = by.WithLabelValues(r.String())
	}
	m.waiting = m.gauge("onmart_http_queue", "HTTP requests that are in hand or wait for the batch before.")
	m.conns = m.gauge("onmart_http_connections", "Open HTTP connections.")
}

func (m *Metrics) ofHealth(h *Health) {
	m.list("onmart_ready", "gauge", "1 while /readyz answers 200.")
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "onmart_ready", Help: "1 while /readyz answers 200."},
			func() float64 {
				if ready, _ := h.Ready(); ready {
					return 1
				}
				return 0
			}),
	)
	const help = "1 for each readiness check that holds."
	m.list("onmart_check_ok", "gauge", help, "check")
	m.registry.MustRegister(checkCollector{h, prometheus.NewDesc("onmart_check_ok", help, []string{"check"}, nil)})
}

// checkCollector exports the checks, whose names are known at run time.
type checkCollector struct {
	health *Health
	desc   *prometheus.Desc
}

func (c checkCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

func (c checkCollector) Collect(ch chan<- prometheus.Metric) {
	_, checks := c.health.Ready()
	for _, k := range checks {
		ok := 0.
		if k.OK {
			ok = 1
		}
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, ok, k.Name)
	}
}

func (m *Metrics) list(name, kind, help string, labels ...string) {
	m.catalog = append(m.catalog, Entry{name, kind, help, labels})
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	return m.counters(name, help).WithLabelValues()
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	m.list(name, "counter", help, labels...)
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) gauge(name, help string) prometheus.Gauge {
	return m.gauges(name, help).WithLabelValues()
}

func (m *Metrics) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	m.list(name, "gauge", help, labels...)
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(g)
	return g
}

func (m *Metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	return m.histograms(name, help, buckets).WithLabelValues().(prometheus.Histogram)
}

func (m *Metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	m.list(name, "histogram", help, labels...)
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(h)
	return h
}

// Catalog lists the metrics of this package, in the order in which they were made.
func (m *Metrics) Catalog() []Entry { return m.catalog }

// Registry holds the metrics, those of the Go runtime and of the process.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Handler answers in the text format of Prometheus.
func (m *Metrics) Handler() http.Handler {
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.measureState()
		h.ServeHTTP(w, r)
	})
}

// CountsFrom says where the totals of the scorer are read.
func (m *Metrics) CountsFrom(f func() Counts) { m.counts.Store(&f) }

// Counts are the totals of the scorer.
func (m *Metrics) Counts() Counts {
	if f := m.counts.Load(); f != nil {
		return (*f)()
	}
	return Counts{}
}

// Batch is the time of the features and scores of one batch.
func (m *Metrics) Batch(d time.Duration) { m.batch.Observe(d.Seconds()) }

// Stage is the time of one batch in a stage.
func (m *Metrics) Stage(s Stage, d time.Duration) {
	m.stages[s].Observe(d.Seconds())
	m.recent.stages[s].observe(d)
}

// Scored is a score that was given.
func (m *Metrics) Scored(score float64) { m.scores.Observe(score) }

// Error counts an event, or an attempt, that went wrong.
func (m *Metrics) Error(c Cause) { m.errors[c].Inc() }

// DeadLetter counts an event that was set aside.
func (m *Metrics) DeadLetter(c Cause) { m.dead[c].Inc() }

// Delivered is n lines taken, d after the oldest of their events arrived.
func (m *Metrics) Delivered(n int, d time.Duration) {
	m.out.Add(float64(n))
	m.delivered.Observe(d.Seconds())
	m.recent.latency.observe(d)
	m.recent.lines.Add(int64(n))
}

// Lag is how many events of a source's log are not delivered yet.
func (m *Metrics) Lag(source string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g, ok := m.lagMetrics[source]
	if !ok {
		g = m.lag.WithLabelValues(source)
		m.lagMetrics[source] = g
	}
	m.lags[source] = n
	g.Set(float64(n))
}

// Gone forgets a source, such as a partition of a topic that was deleted.
func (m *Metrics) Gone(source string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.lags, source)
	delete(m.lagMetrics, source)
	m.lag.DeleteLabelValues(source)
	m.reached.DeleteLabelValues(source)
}

// Lags are the events behind, by source.
func (m *Metrics) Lags() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]int64, len(m.lags))
	for k, v := range m.lags {
		out[k] = v
	}
	return out
}

// TotalLag is the sum over the sources.
func (m *Metrics) TotalLag() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var sum int64
	for _, n := range m.lags {
		sum += n
	}
	return sum
}

// Position is where a source goes on.
func (m *Metrics) Position(source string, next int64) {
	m.reached.WithLabelValues(source).Set(float64(next))
}

// State is how much the state holds: keys, and bytes by where they lie, such as "memory", "checkpoint", "journal".
func (m *Metrics) State(keys int64, bytes map[string]int64) {
	m.stateKeys.Set(float64(keys))
	m.mu.Lock()
	defer m.mu.Unlock()
	for where, n := range bytes {
		m.sizes[where] = n
		m.stateSize.WithLabelValues(where).Set(float64(n))
	}
}

// StateBytes is how much of the state lies in one place besides memory.
func (m *Metrics) StateBytes(where string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sizes[where] = n
	m.stateSize.WithLabelValues(where).Set(float64(n))
}

// StateFrom says where State's arguments are read when somebody asks for the metrics.
func (m *Metrics) StateFrom(f func() (keys int64, bytes map[string]int64)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = f
}

func (m *Metrics) measureState() {
	m.mu.Lock()
	f := m.state
	m.mu.Unlock()
	if f != nil {
		m.State(f())
	}
}

// Saved is a checkpoint that was complete at t and took d.
func (m *Metrics) Saved(t time.Time, d time.Duration) {
	m.saved.Set(float64(t.UnixMicro()) / 1e6)
	m.saving.Observe(d.Seconds())
}

// WatermarkFrom says where the greatest event time is read.
func (m *Metrics) WatermarkFrom(f func() (micros int64, ok bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watermark = f
}

func (m *Metrics) watermarkSeconds() float64 {
	m.mu.Lock()
	f := m.watermark
	m.mu.Unlock()
	if f != nil {
		if t, ok := f(); ok {
			return float64(t) / 1e6
		}
	}
	return 0
}

// Reload counts what came of a reload of model, shadow, rules, tokens or tls, or of a promotion.
func (m *Metrics) Reload(target, result string) {
	m.reloads.WithLabelValues(target, result).Inc()
	if result == "refused" {
		m.Error(ReloadFault)
	}
}

// Refused counts a request or connection that was turned away.
func (m *Metrics) Refused(r Refusal) { m.refused[r].Inc() }

// Connections is the number of open HTTP connections.
func (m *Metrics) Connections(n int) { m.conns.Set(float64(n)) }

// Waiting adds n to the HTTP requests in hand.
func (m *Metrics) Waiting(n int) { m.waiting.Add(float64(n)) }

// InHand is the number of HTTP requests in hand.
func (m *Metrics) InHand() int { return int(read(m.waiting).GetGauge().GetValue()) }

// Route is the metrics of one route of the HTTP server; make it once.
type Route struct {
	m     *Metrics
	name  string
	time  prometheus.Observer
	mu    sync.Mutex
	codes map[int]prometheus.Counter
}

// Route makes the metrics of a route.
func (m *Metrics) Route(name string) *Route {
	return &Route{m: m, name: name, time: m.answering.WithLabelValues(name), codes: map[int]prometheus.Counter{}}
}

// Answered is a request that was answered.
func (r *Route) Answered(status int, d time.Duration) {
	r.time.Observe(d.Seconds())
	r.mu.Lock()
	c, ok := r.codes[status]
	if !ok {
		c = r.m.requests.WithLabelValues(r.name, statusText(status))
		r.codes[status] = c
	}
	r.mu.Unlock()
	c.Inc()
}

func statusText(status int) string {
	const digits = "0123456789"
	return string([]byte{digits[status/100%10], digits[status/10%10], digits[status%10]})
}
