package score

import (
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/quality"
)

// figuresFor is how long live figures are handed out again: making them sorts up to 131,072 rows a version, 20 ms.
const figuresFor = 5 * time.Second

// liveMetrics are those of models, shadows, rules, live figures and drift. Prometheus collects them when it is asked.
type liveMetrics struct {
	s *Scorer

	mu      sync.Mutex
	at      time.Time
	figures []quality.Figures
}

var (
	descInfo      = desc("onmart_classifier_info", "1 for each model in service.", "version", "role", "task")
	descThreshold = desc("onmart_classifier_threshold", "Score from which a transaction is an alert.", "version")
	descCompared  = desc("onmart_shadow_transactions_total", "Transactions that shadow and champion both scored.", "version")
	descAgree     = desc("onmart_shadow_alerts_total", "Of those, alerts of both, of the champion alone, of the shadow alone.",
		"version", "by")
	descCorrelation = desc("onmart_shadow_score_correlation", "Pearson's correlation of shadow and champion.", "version")
	descFailed      = desc("onmart_shadow_failed", "1 where a shadow was left out because it could not score.", "version")
	descHits        = desc("onmart_rule_hits_total", "Transactions that a rule decided.", "rule", "phase", "decision")
	descJudged      = desc("onmart_quality_rows", "Transactions of the window that were judged.", "version")
	descPositives   = desc("onmart_quality_positives", "Frauds among them.", "version")
	descSampled     = desc("onmart_quality_sampled", "Share of purchases that the figures are made of.", "version")
	descFigure      = desc("onmart_quality", "Live figure by its usual name.", "version", "figure")
	descPSI         = desc("onmart_drift_psi", "Population stability index against training, last 24 h of event time.", "version", "column")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

func (s *Scorer) registerLive() { s.monitor.Registry().MustRegister(&liveMetrics{s: s}) }

// Describe sends nothing: which metrics there are depends on what is in service.
func (m *liveMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads what is in service under the scorer's lock, and computes beside it.
func (m *liveMetrics) Collect(to chan<- prometheus.Metric) {
	s := m.s
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		if !math.IsNaN(v) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
		}
	}
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for _, x := range s.models() {
		gauge(descInfo, 1, x.Version, x.Role, x.Task)
		gauge(descThreshold, x.Threshold, x.Version)
		if c := x.Compared; c != nil {
			count(descCompared, c.Transactions, x.Version)
			count(descAgree, c.Both, x.Version, "both")
			count(descAgree, c.OnlyChampion, x.Version, "champion")
			count(descAgree, c.OnlyShadow, x.Version, "shadow")
			if c.Correlation != nil {
				gauge(descCorrelation, *c.Correlation, x.Version)
			}
			failed := 0.0
			if x.Failed != "" {
				failed = 1
			}
			gauge(descFailed, failed, x.Version)
		}
	}
	s.mu.Lock()
	if set := s.live.rules; set != nil {
		for i, r := range set.Rules() {
			phase := "after"
			if r.Before {
				phase = "before"
			}
			count(descHits, s.live.hits[i], r.Name, phase, string(r.Then))
		}
	}
	drift, version := s.live.drift, s.version
	s.mu.Unlock()
	for _, f := range m.recent() {
		gauge(descJudged, float64(f.Rows), f.Version)
		gauge(descPositives, float64(f.Positives), f.Version)
		gauge(descSampled, f.Sampled, f.Version)
		for name, v := range map[string]*float64{"auc": f.AUC, "average_precision": f.AveragePrecision, "brier": f.Brier,
			"log_loss": f.LogLoss, "alert_precision": f.Alerts.Precision, "alert_recall": f.Alerts.Recall,
			"precision_at_budget": f.Budget.Precision} {
			if v != nil {
				gauge(descFigure, *v, f.Version, name)
			}
		}
	}
	if drift != nil {
		r := drift.Report()
		for _, x := range append(r.Features, r.Score) {
			if x.PSI != nil {
				gauge(descPSI, *x.PSI, version, x.Name)
			}
		}
	}
}

// recent are the live figures, at most figuresFor old.
func (m *liveMetrics) recent() []quality.Figures {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.s.live.quality // set once, before the first event
	if q != nil && time.Since(m.at) > figuresFor {
		m.figures, m.at = q.Figures(), time.Now()
	}
	return m.figures
}

// Model is a model in service, of GET /v1/models.
type Model struct {
	Version    string    `json:"version"`
	Role       string    `json:"role"` // champion, shadow, warming
	Task       string    `json:"task"`
	Dir        string    `json:"-"`
	Threshold  float64   `json:"threshold"`
	Compared   *Compared `json:"compared,omitempty"` // of a shadow, with the champion
	Failed     string    `json:"failed,omitempty"`   // of a shadow that is left out
	OwnEngine  bool      `json:"own_engine,omitempty"`
	FullFrom   string    `json:"windows_full_from,omitempty"` // event time; of an engine that warms
	classifier *classifier
}

// Compared is how a shadow compares with the champion on what both scored.
type Compared struct {
	Transactions int64    `json:"transactions"`
	Both         int64    `json:"alerts_of_both"`
	OnlyChampion int64    `json:"alerts_of_champion_alone"`
	OnlyShadow   int64    `json:"alerts_of_shadow_alone"`
	Agreement    *float64 `json:"alert_agreement"` // alerts of both over alerts of either
	Correlation  *float64 `json:"score_correlation"`
}

// models lists the classifiers: the champion first.
func (s *Scorer) models() []Model {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Model
	add := func(c *classifier, role string) {
		x := Model{Version: c.version, Role: role, Task: c.artifact.Manifest().Task, Dir: c.artifact.Dir(),
			Threshold: c.threshold, OwnEngine: c.mill != nil, classifier: c}
		if c.mill != nil {
			full, from, ever := c.mill.full(s.engine.Watermark())
			if !full && ever && from != math.MaxInt64 {
				x.FullFrom = datasets.FormatTime(from)
			}
		}
		if role == "shadow" {
			a := &c.against
			x.Compared = &Compared{Transactions: a.n, Both: a.both, OnlyChampion: a.onlyChampion, OnlyShadow: a.onlyShadow}
			if either := a.both + a.onlyChampion + a.onlyShadow; either > 0 {
				v := float64(a.both) / float64(either)
				x.Compared.Agreement = &v
			}
			if v := a.correlation(); v == v {
				x.Compared.Correlation = &v
			}
			if c.failed != nil {
				x.Failed = c.failed.Error()
			}
		}
		list = append(list, x)
	}
	if s.live.champion != nil {
		add(s.live.champion, "champion")
	}
	for _, c := range s.live.shadows {
		add(c, "shadow")
	}
	if s.live.warming != nil {
		add(s.live.warming, "warming")
	}
	return list
}

// quality answers GET /v1/quality.
func (h *Server) quality(w http.ResponseWriter, _ *http.Request) {
	q := h.scorer.live.quality // set once, before the first event
	if q == nil {
		httpError(w, http.StatusNotFound, "live figures are not kept: a classifier and --quality on keep them")
		return
	}
	writeJSON(w, map[string]any{"versions": q.Figures()})
}

// drift answers GET /v1/drift.
func (h *Server) drift(w http.ResponseWriter, _ *http.Request) {
	h.scorer.mu.Lock()
	d, version := h.scorer.live.drift, h.scorer.version
	h.scorer.mu.Unlock()
	if d == nil {
		httpError(w, http.StatusNotFound, "the model carries no distribution of its training (reference.json): train it "+
			"again with this onmart")
		return
	}
	writeJSON(w, struct {
		Version string `json:"version"`
		quality.DriftReport
	}{version, d.Report()})
}
