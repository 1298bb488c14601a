package score

import (
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/onmart/onmart/score/monitor"
)

// Status is what GET /v1/status answers.
type Status struct {
	Now      time.Time             `json:"now"`
	Version  string                `json:"version"`
	Job      string                `json:"job"`
	Started  time.Time             `json:"started"`
	Ready    bool                  `json:"ready"`
	Draining bool                  `json:"draining"`
	Checks   []monitor.Check       `json:"checks"`
	Counts   Counts                `json:"counts"`
	History  []monitor.Point       `json:"history"` // the last quarter of an hour, a point each 5 s
	Stages   []monitor.StageTimes  `json:"stages"`
	Sources  []SourceLag           `json:"sources"`
	Errors   []monitor.CauseCount  `json:"errors"`
	Dead     []monitor.CauseCount  `json:"dead_letters"`
	Models   []any                 `json:"models"`
	Alerts   []monitor.Alert       `json:"alerts"` // newest first
	TooLong  int64                 `json:"alerts_too_long"`
	Tokens   bool                  `json:"tokens"` // requests need one
	Runtime  RuntimeStatus         `json:"runtime"`
	Refused  []monitor.CauseCount  `json:"http_refused"`
	State    monitor.StateOverview `json:"state"`
	Routes   []string              `json:"routes"` // paths that answer GET now
}

// SourceLag is how far a source is behind.
type SourceLag struct {
	Source string `json:"source"`
	Events int64  `json:"events"`
}

// RuntimeStatus is of the process.
type RuntimeStatus struct {
	Goroutines int    `json:"goroutines"`
	HeapBytes  uint64 `json:"heap_bytes"`
}

// status answers GET /v1/status.
func (h *Server) status(w http.ResponseWriter, _ *http.Request) {
	m := h.monitor
	st := Status{
		Now: time.Now().UTC(), Version: h.o.Version, Job: h.o.Job, Started: m.Started().UTC(), Draining: m.Health.Draining(),
		Counts: h.scorer.Counts(), History: m.History(), Stages: m.StageTimes(), Errors: m.Errors(), Dead: m.DeadLetters(),
		Refused: m.Refusals(), Models: h.modelList(), Tokens: h.tokens.Load() != nil,
		State: m.StateOverview(), Sources: []SourceLag{},
	}
	for _, pattern := range h.routes {
		if path, ok := strings.CutPrefix(pattern, "GET "); ok && h.has(path) {
			st.Routes = append(st.Routes, path)
		}
	}
	st.Ready, st.Checks = m.Health.Ready()
	st.Alerts, st.TooLong = m.Alerts.Last()
	for name, n := range m.Lags() {
		st.Sources = append(st.Sources, SourceLag{name, n})
	}
	slices.SortFunc(st.Sources, func(a, b SourceLag) int { return strings.Compare(a.Source, b.Source) })
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	st.Runtime = RuntimeStatus{runtime.NumGoroutine(), mem.HeapAlloc}
	writeJSON(w, st)
}

// has tells whether a route would answer 404 for lack of something to tell.
func (h *Server) has(path string) bool {
	h.scorer.mu.Lock()
	defer h.scorer.mu.Unlock()
	switch path {
	case "/v1/quality":
		return h.scorer.live.quality != nil
	case "/v1/drift":
		return h.scorer.live.drift != nil
	}
	return true
}

//go:embed status.html
var statusPage string

var statusTemplate = template.Must(template.New("status").Parse(statusPage))

// page answers GET / and GET /status. The page holds no data: it fetches /v1/status with the token of its reader.
func (h *Server) page(w http.ResponseWriter, _ *http.Request) {
	var b [18]byte
	rand.Read(b[:]) // never fails
	nonce := base64.StdEncoding.EncodeToString(b[:])
	w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+nonce+"'; style-src 'nonce-"+nonce+
		"'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := statusTemplate.Execute(w, struct {
		Nonce  string
		Tokens bool
	}{nonce, h.tokens.Load() != nil}); err != nil {
		h.o.Log.Warn("status page", "error", err)
	}
}
