package score

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/guard"
	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/score/model/recommender"
	"github.com/onmart/onmart/score/monitor"
)

// Server answers over HTTP from a Scorer. Behind each route stands the scope that a token needs for it, where there
// are tokens.
//
//	POST /v1/score   score   one event, or one a line (labels among them); answers one JSON line for each transaction
//	                         and for each event that could not be read (400 where that is all there was). Without a
//	                         classifier it says how many transactions went to the other models
//	POST /v1/labels  labels  labels, one a line: trans_id, is_fraud, known_at; answers {"labels":N,"waiting":N,...}
//	GET, POST /v1/forecast   score   what will be sold of some series: ForecastRequest
//	GET, POST /v1/recommend  score   what a user may want, what goes with a basket: RecommendRequest
//	GET  /v1/models  read    the models in service
//	GET  /v1/quality read    live figures by version
//	GET  /v1/drift   read    how far features and scores moved from the training
//	POST /v1/models/reload   admin  looks for replaced models and rules now
//	POST /v1/models/promote  admin  {"version":V} makes a shadow the champion
//	GET  /v1/status  read    what the status page shows: Status
//	GET  /, /status  -       the status page, which holds no data
//	GET  /healthz    -       200 while the process lives
//	GET  /readyz     -       200 while it is fit to serve, with its checks; why one fails only with read or metrics
//	GET  /metrics    metrics Prometheus text
//	GET  /debug/pprof/NAME  admin  profiles of Go; only where there are tokens
//
// Errors are {"error":{"code":CODE,"reason":TEXT}}; codes do not change, texts may.
type Server struct {
	scorer  *Scorer
	mapping *datasets.Mapping
	o       ServerOptions
	models  Models
	monitor *monitor.Monitor
	next    atomic.Int64 // position of the next event that comes over HTTP

	events, labelEvents sync.Pool // of *request
	reloader            *Reloader // nil: nothing is reloaded

	mux     *http.ServeMux
	routes  []string // patterns, in order
	foreign *http.CrossOriginProtection
	tokens  atomic.Pointer[guard.Tokens]
	rates   guard.Rates
	queue   chan struct{}
	bytes   atomic.Int64 // of bodies in hand
}

// Models are what a Server answers from beside its scorer's classifier; each nil or one of the scorer's
// followers, with the version of its artifact.
type Models struct {
	Forecaster      *forecaster.Forecaster
	ForecastVersion string

	Recommender      *recommender.Recommender
	RecommendVersion string
}

// ServerOptions of a Server; the zero value lets in everybody who reaches it.
type ServerOptions struct {
	Models Models
	// Reloader that is answered for; nil reloads nothing.
	Reloader *Reloader
	// Journal scores the events instead of the Scorer where they are to outlive the process; nil does not keep them.
	Journal Journal
	// Tokens that requests must carry; nil asks for none. SetTokens changes them later.
	Tokens *guard.Tokens
	// Rate is how many requests a second one token may send, all of them together where there are no tokens; 0 does not
	// limit it.
	Rate float64
	// Queue is how many requests may be in hand or wait for the one before; 0 is DefaultQueue. More are answered 429.
	Queue int
	// LocalNames lets only requests through whose Host is this machine's loopback: a page of another site that gives its
	// own name our address then reads nothing. Set it where there are no tokens.
	LocalNames bool
	// Version and Job for the status page.
	Version, Job string
	// Log takes a line for each request at debug level; nil is slog.Default.
	Log *slog.Logger
}

// Journal keeps events that no source can give again. Direct scores them, appending lines to out, and returns once they
// are kept. Rows of a Placed schema have their places still to be filled in; labels tells whether they were read as labels
// alone.
type Journal interface {
	Direct(ev Events, labels bool, out *Lines) (Counts, error)
}

const (
	// DefaultQueue of requests: at 20 microseconds each the last one waits 5 ms.
	DefaultQueue = 256
	// maxBody bounds one request: about 5,000 events.
	maxBody = 1 << 20
	// maxBodies bounds the bodies in hand together.
	maxBodies = 64 << 20
)

// NewServer serves a scorer whose schema is the mapping's LogSchema.
func NewServer(s *Scorer, m *datasets.Mapping, o ServerOptions) *Server {
	o.Queue = cmp.Or(o.Queue, DefaultQueue)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	h := &Server{
		scorer: s, mapping: m, o: o, models: o.Models, reloader: o.Reloader, monitor: s.Monitor(), mux: http.NewServeMux(),
		foreign: http.NewCrossOriginProtection(), queue: make(chan struct{}, o.Queue),
		rates: guard.Rates{PerSecond: o.Rate, Burst: max(1, o.Rate)},
	}
	h.next.Store(s.Position(HTTPSource))
	h.tokens.Store(o.Tokens)
	h.events.New = func() any { return newRequest(m, s.o.Schema, false) }
	h.labelEvents.New = func() any { return newRequest(m, s.o.Schema, true) }
	h.work("POST /v1/score", guard.Score, h.score)
	h.work("POST /v1/labels", guard.Labels, h.labels)
	if h.models.Forecaster != nil {
		h.work("GET /v1/forecast", guard.Score, h.forecast)
		h.work("POST /v1/forecast", guard.Score, h.forecast)
	}
	if h.models.Recommender != nil {
		h.work("GET /v1/recommend", guard.Score, h.recommend)
		h.work("POST /v1/recommend", guard.Score, h.recommend)
	}
	if s.stock != nil {
		h.work("GET /v1/stock", guard.Score, h.stockLevels)
	}
	h.Handle("GET /v1/models", guard.Read, h.list)
	h.Handle("GET /v1/quality", guard.Read, h.quality)
	h.Handle("GET /v1/drift", guard.Read, h.drift)
	if h.reloader != nil {
		h.Handle("POST /v1/models/reload", guard.Admin, h.reloadModels)
		h.Handle("POST /v1/models/promote", guard.Admin, h.promoteModel)
	}
	h.Handle("GET /v1/status", guard.Read, h.status)
	h.Handle("GET /{$}", guard.None, h.page)
	h.Handle("GET /status", guard.None, h.page)
	h.Handle("GET /healthz", guard.None, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	h.Handle("GET /readyz", guard.None, h.ready)
	h.Handle("GET /metrics", guard.Metrics, h.monitor.Handler().ServeHTTP)
	h.Handle("GET /debug/pprof/{name}", guard.Admin, h.profile)
	h.mux.HandleFunc("/", h.noRoute)
	return h
}

// SetTokens replaces the tokens; requests in hand go on.
func (h *Server) SetTokens(t *guard.Tokens) {
	h.tokens.Store(t)
	h.rates.Keep(t.Names())
}

// Handle adds a route, before the first request: a pattern of http.ServeMux with its method, and the scope that a token
// needs. Its body is bounded.
func (h *Server) Handle(pattern string, scope guard.Scope, f http.HandlerFunc) {
	h.routes = append(h.routes, pattern)
	route := h.monitor.Route(pattern)
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		a := &reply{ResponseWriter: w, arrived: time.Now(), status: http.StatusOK}
		if name, ok := h.admit(a, r, scope); ok {
			r.Body = http.MaxBytesReader(a, r.Body, maxBody)
			f(a, r)
			if !h.o.Log.Enabled(r.Context(), slog.LevelDebug) {
				route.Answered(a.status, time.Since(a.arrived))
				return
			}
			h.o.Log.LogAttrs(r.Context(), slog.LevelDebug, "request", slog.String("route", pattern), slog.String("token", name),
				slog.Int("status", a.status), slog.Duration("took", time.Since(a.arrived)), slog.String("from", r.RemoteAddr))
		}
		route.Answered(a.status, time.Since(a.arrived))
	})
}

// work adds a route whose bodies in hand are bounded together; it calls enter once it has read its own.
func (h *Server) work(pattern string, scope guard.Scope, f http.HandlerFunc) {
	h.Handle(pattern, scope, func(w http.ResponseWriter, r *http.Request) {
		size := int64(maxBody)
		if r.ContentLength >= 0 {
			size = min(r.ContentLength, maxBody)
		}
		defer h.bytes.Add(-size)
		if h.bytes.Add(size) > maxBodies {
			h.busy(w)
			return
		}
		defer h.leave(w)
		f(w, r)
	})
}

// enter takes a place in the queue for the scorer, until the route returns. Where there is none, it has answered.
func (h *Server) enter(w http.ResponseWriter) bool {
	select {
	case h.queue <- struct{}{}:
	default:
		h.busy(w)
		return false
	}
	h.monitor.Waiting(1)
	w.(*reply).queued = true
	return true
}

func (h *Server) leave(w http.ResponseWriter) {
	if w.(*reply).queued {
		<-h.queue
		h.monitor.Waiting(-1)
	}
}

// busy says that more requests are in hand than are kept waiting.
func (h *Server) busy(w http.ResponseWriter) {
	h.monitor.Refused(monitor.QueueFull)
	w.Header().Set("Retry-After", "1")
	refuse(
		w,
		http.StatusTooManyRequests,
		"queue_full",
		"too many requests are in hand: send again after Retry-After seconds",
	)
}

func (h *Server) badBody(w http.ResponseWriter, err error) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		h.monitor.Refused(monitor.BodyTooLarge)
		refuse(
			w,
			http.StatusRequestEntityTooLarge,
			"too_large",
			fmt.Sprintf("body over %d bytes: send fewer events at a time", maxBody),
		)
	case errors.Is(err, os.ErrDeadlineExceeded):
		h.monitor.Refused(monitor.SlowClient)
		w.Header().Set("Connection", "close")
		refuse(w, http.StatusRequestTimeout, "slow_client", fmt.Sprintf("the body was not there after %s", readTimeout))
	default:
		httpError(w, http.StatusBadRequest, "body: "+err.Error())
	}
}

// admit answers a request that may not be served, and tells whose it is otherwise.
func (h *Server) admit(w http.ResponseWriter, r *http.Request, scope guard.Scope) (name string, ok bool) {
	if err := h.foreign.Check(r); err != nil {
		h.monitor.Refused(monitor.CrossOrigin)
		refuse(w, http.StatusForbidden, "cross_origin", "sent by a page of another site")
		return "", false
	}
	tokens := h.tokens.Load()
	if scope != guard.None && tokens != nil {
		holder := h.holder(tokens, r)
		if holder == nil {
			h.monitor.Refused(monitor.Unauthorized)
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(
				w,
				http.StatusUnauthorized,
				"unauthorized",
				"missing or wrong bearer token: send the header Authorization: Bearer TOKEN",
			)
			return "", false
		}
		if holder.Scopes&scope == 0 {
			h.monitor.Refused(monitor.Forbidden)
			refuse(w, http.StatusForbidden, "forbidden", fmt.Sprintf("the token %s lacks the scope %s", holder.Name, scope))
			return "", false
		}
		name = holder.Name
	}
	if scope == guard.None {
		return name, true
	}
	if wait := h.rates.Take(name, time.Now()); wait > 0 {
		h.monitor.Refused(monitor.RateLimited)
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		refuse(
			w,
			http.StatusTooManyRequests,
			"rate_limited",
			fmt.Sprintf("over %g requests a second: send more events in each, or wait", h.o.Rate),
		)
		return "", false
	}
	return name, true
}

// holder is who sent a request, nil for strangers.
func (h *Server) holder(tokens *guard.Tokens, r *http.Request) *guard.Holder {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		token = ""
	}
	return tokens.Find(token)
}

// reply notes the status of a response.
type reply struct {
	http.ResponseWriter
	arrived time.Time
	status  int
	queued  bool
}

func (a *reply) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (a *reply) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// delivered counts the lines of an answer that was written.
func (h *Server) delivered(w http.ResponseWriter, lines int) {
	if a, ok := w.(*reply); ok {
		h.monitor.Delivered(lines, time.Since(a.arrived))
	}
}

// Handler routes the requests.
func (h *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header(), r.TLS != nil)
		if h.o.LocalNames && !local(r.Host) {
			h.monitor.Refused(monitor.WrongHost)
			refuse(
				w,
				http.StatusMisdirectedRequest,
				"wrong_host",
				"without tokens only requests to localhost or a loopback address are answered",
			)
			return
		}
		if clean := path.Clean(r.URL.Path); r.URL.Path != clean {
			refuse(w, http.StatusNotFound, "not_found", "no such path")
			return
		}
		h.mux.ServeHTTP(w, r)
	})
}

// noRoute answers 404, or 405 where another method would find something.
func (h *Server) noRoute(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} {
		other := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := h.mux.Handler(other); pattern != "/" {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		refuse(w, http.StatusNotFound, "not_found", "no such path")
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "this path wants "+strings.Join(allowed, " or "))
}

// headers of every response, which tell browsers to believe the type, frame nothing, keep nothing and load nothing.
// Their keys are in canonical form: they are set without looking at them.
var headers = map[string][]string{
	"X-Content-Type-Options":       {"nosniff"},
	"X-Frame-Options":              {"DENY"},
	"Referrer-Policy":              {"no-referrer"},
	"Cache-Control":                {"no-store"},
	"Content-Security-Policy":      {"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"},
	"Cross-Origin-Resource-Policy": {"same-origin"},
	"Cross-Origin-Opener-Policy":   {"same-origin"},
}

func secure(header http.Header, overTLS bool) {
	for key, value := range headers {
		header[key] = value
	}
	if overTLS {
		header.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// local tells whether a Host header names this machine's loopback.
func local(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	ip := net.ParseIP(name)
	return strings.EqualFold(name, "localhost") || ip != nil && ip.IsLoopback()
}

// Bounds of time, and of the headers of a request.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
	maxStreams    = 128 // of one HTTP/2 connection
)

// HTTPServer is an http.Server of HTTP/1 and, over TLS, HTTP/2, with bounds on header size, streams and time.
func (h *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler: h.Handler(), ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog: slog.NewLogLogger(h.o.Log.Handler(), slog.LevelWarn),
	}
}

// ready answers GET /readyz: what must hold, and to those who may read it, why it does not.
func (h *Server) ready(w http.ResponseWriter, r *http.Request) {
	ready, checks := h.monitor.Health.Ready()
	if tokens := h.tokens.Load(); tokens != nil {
		if who := h.holder(tokens, r); who == nil || who.Scopes&(guard.Read|guard.Metrics) == 0 {
			for i := range checks {
				checks[i].Error = ""
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(w).Encode(map[string]any{"ready": ready, "draining": h.monitor.Health.Draining(), "checks": checks})
}

// profile answers GET /debug/pprof/NAME. A profile shows what the program does and with whose data, so that it is not
// for everybody who reaches the port, and not for every page in the browser of somebody on this machine.
func (h *Server) profile(w http.ResponseWriter, r *http.Request) {
	if h.tokens.Load() == nil {
		refuse(w, http.StatusForbidden, "forbidden", "profiles need a token with the scope admin: start with --tokens FILE")
		return
	}
	switch name := r.PathValue("name"); name {
	case "profile":
		pprof.Profile(w, r)
	case "trace":
		pprof.Trace(w, r)
	case "heap", "allocs", "goroutine", "mutex", "block", "threadcreate":
		pprof.Handler(name).ServeHTTP(w, r)
	default:
		refuse(
			w,
			http.StatusNotFound,
			"not_found",
			"no such profile: want profile, trace, heap, allocs, goroutine, mutex, block or threadcreate",
		)
	}
}

// Drain ends readiness, waits so long for those who watch it to send their requests elsewhere, and lets the requests in
// hand finish, at most until ctx ends.
func (h *Server) Drain(ctx context.Context, srv *http.Server, delay time.Duration) error {
	h.monitor.Health.Drain()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
	}
	return srv.Shutdown(ctx)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// errorCodes are the codes of errors that have no closer one, by status.
var errorCodes = map[int]string{
	http.StatusBadRequest: "bad_request", http.StatusNotFound: "not_found", http.StatusConflict: "conflict",
	http.StatusServiceUnavailable: "unavailable", http.StatusInternalServerError: "internal",
	http.StatusUnprocessableEntity: "unprocessable",
}

func httpError(w http.ResponseWriter, status int, reason string) {
	refuse(w, status, cmp.Or(errorCodes[status], "error"), reason)
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, status int, code, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"code": code, "reason": reason}})
}
