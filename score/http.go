package score

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/score/model/recommender"
)

// maxBody bounds one request: about 5,000 events.
const maxBody = 1 << 20

// httpSource names HTTP requests among the sources of a state.
const httpSource = "http"

// Server answers over HTTP from a Scorer.
//
//	POST /v1/score   one event, or one a line (labels among them); answers one JSON line for each transaction
//	                 and for each event that could not be read (400 where that is all there was). Without a
//	                 classifier it says how many transactions went to the other models
//	POST /v1/labels  labels, one a line: trans_id, is_fraud, known_at; answers {"labels":N,"waiting":N,...}
//	GET, POST /v1/forecast   what will be sold of some series: ForecastRequest
//	GET, POST /v1/recommend  what a user may want, what goes with a basket: RecommendRequest
//	GET  /v1/models  the models in service
//	GET  /v1/quality live figures by version
//	GET  /v1/drift   how far features and scores moved from the training
//	POST /v1/models/reload   looks for replaced models and rules now
//	POST /v1/models/promote  {"version":V} makes a shadow the champion
//	GET  /healthz    200 while the process lives
//	GET  /readyz     200 while events are accepted
//	GET  /metrics    Prometheus text
type Server struct {
	scorer   *Scorer
	mapping  *datasets.Mapping
	token    string
	models   Models
	reloader *Reloader    // nil: nothing is reloaded
	next     atomic.Int64 // position of the next event that comes over HTTP

	events, labelEvents sync.Pool // of *request
}

// Models are what a Server answers from beside its scorer's classifier; each nil or one of the scorer's
// followers, with the version of its artifact.
type Models struct {
	Forecaster      *forecaster.Forecaster
	ForecastVersion string

	Recommender      *recommender.Recommender
	RecommendVersion string
}

// NewServer serves a scorer whose schema is the mapping's LogSchema. Where token is not empty, /v1 requests
// must carry it as a bearer token.
func NewServer(s *Scorer, m *datasets.Mapping, token string, models Models) *Server {
	h := &Server{scorer: s, mapping: m, token: token, models: models}
	h.next.Store(s.Position(httpSource))
	h.events.New = func() any { return newRequest(m, false) }
	h.labelEvents.New = func() any { return newRequest(m, true) }
	return h
}

// Reloads has the server answer for a reloader; to be called before Handler.
func (h *Server) Reloads(r *Reloader) { h.reloader = r }

// Handler routes the requests.
func (h *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/score", h.authorised(h.score))
	mux.HandleFunc("POST /v1/labels", h.authorised(h.labels))
	if h.models.Forecaster != nil {
		mux.HandleFunc("GET /v1/forecast", h.authorised(h.forecast))
		mux.HandleFunc("POST /v1/forecast", h.authorised(h.forecast))
	}
	if h.models.Recommender != nil {
		mux.HandleFunc("GET /v1/recommend", h.authorised(h.recommend))
		mux.HandleFunc("POST /v1/recommend", h.authorised(h.recommend))
	}
	mux.HandleFunc("GET /v1/models", h.authorised(h.list))
	mux.HandleFunc("GET /v1/quality", h.authorised(h.quality))
	mux.HandleFunc("GET /v1/drift", h.authorised(h.drift))
	if h.reloader != nil {
		mux.HandleFunc("POST /v1/models/reload", h.authorised(h.reloadModels))
		mux.HandleFunc("POST /v1/models/promote", h.authorised(h.promoteModel))
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", h.ready)
	mux.Handle("GET /metrics", h.scorer.metrics.handler())
	return mux
}

// HTTPServer is an http.Server with bounds on header size and time.
func (h *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler: h.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
}

func (h *Server) authorised(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		got, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if h.token != "" && subtle.ConstantTimeCompare([]byte(got), []byte(h.token)) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			httpError(w, http.StatusUnauthorized, "missing or wrong bearer token: send the header Authorization: Bearer TOKEN")
			return
		}
		f(w, r)
	}
}

func (h *Server) score(w http.ResponseWriter, r *http.Request) {
	q, ok := h.decode(w, r, &h.events)
	if !ok {
		return
	}
	defer h.events.Put(q)
	ev, counts, err := q.process(h.scorer)
	out := q.lines.Bytes
	if err != nil {
		httpError(w, http.StatusInternalServerError, err.Error())
		return
	}
	if h.scorer.o.Artifact == nil && len(out) == 0 {
		writeJSON(w, map[string]int64{"followed": counts.Followed})
		return
	}
	status := http.StatusOK
	if ev.Rows.N == 0 && len(ev.Rejects) > 0 {
		status = http.StatusBadRequest
	}
	header := w.Header()
	header["Content-Type"] = contentLines
	if len(q.lines.Lines) == 1 {
		header["Content-Type"] = contentJSON
	}
	w.WriteHeader(status)
	w.Write(out)
}

func (h *Server) labels(w http.ResponseWriter, r *http.Request) {
	q, ok := h.decode(w, r, &h.labelEvents)
	if !ok {
		return
	}
	defer h.labelEvents.Put(q)
	_, counts, err := q.process(h.scorer)
	out := q.lines.Bytes
	if err != nil {
		httpError(w, http.StatusInternalServerError, err.Error())
		return
	}
	if len(out) > 0 {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusBadRequest)
		w.Write(out)
		return
	}
	writeJSON(w, map[string]int64{"labels": counts.Labels, "waiting": counts.LabelsWaiting, "expired": counts.LabelsExpired})
}

// list answers GET /v1/models.
func (h *Server) list(w http.ResponseWriter, _ *http.Request) {
	models := []any{}
	for _, x := range h.scorer.models() {
		m := x.classifier.artifact.Manifest()
		models = append(models, struct {
			Model
			AlertsPerDay float64           `json:"alerts_per_day"`
			Features     []string          `json:"features"`
			Train        model.Span        `json:"train"`
			Validation   *model.Evaluation `json:"validation"`
			Test         *model.Evaluation `json:"test"`
		}{x, m.AlertsPerDay, m.Features, m.Lineage.Train, m.Validation, m.Test})
	}
	for _, f := range h.scorer.o.Followers {
		m := f.Artifact.Manifest()
		models = append(models, map[string]any{
			"version": m.Version, "task": m.Task, "train": m.Lineage.Train, "validation": m.Validation, "test": m.Test,
		})
	}
	writeJSON(w, map[string]any{"models": models})
}

func (h *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if err := h.scorer.Err(); err != nil {
		httpError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	fmt.Fprintln(w, "ready")
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func httpError(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"reason": reason}})
}

// CheckListen refuses an address that other machines can reach unless both a token and TLS guard it.
func CheckListen(addr string, token, tls bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--listen %s: want HOST:PORT, such as 127.0.0.1:8080", addr)
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() || token && tls {
		return nil
	}
	return fmt.Errorf("--listen %s: other machines can reach this address: give --token-file, --tls-cert and --tls-key, or listen on 127.0.0.1", addr)
}
