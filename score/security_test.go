package score_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/guard"
	"github.com/onmart/onmart/score/model/modeltest"
)

// holders makes tokens of the given scopes, by name.
func holders(t *testing.T, scopes map[string]guard.Scope) (*guard.Tokens, map[string]string) {
	t.Helper()
	path, secrets := filepath.Join(t.TempDir(), "tokens"), map[string]string{}
	for name, s := range scopes {
		token, line, err := guard.NewToken(name, s)
		if err == nil {
			err = guard.AddToken(path, name, line)
		}
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = token
	}
	tokens, err := guard.ReadTokens(path)
	if err != nil {
		t.Fatal(err)
	}
	return tokens, secrets
}

const oneEvent = `{"trans_id":%d,"trans_datetime":"2018-08-01T10:00:00Z","user_id":1,"store_id":1,"amount":10}`

func TestHTTPTokenScopes(t *testing.T) {
	tokens, secret := holders(t, map[string]guard.Scope{"till": guard.Score, "desk": guard.Labels | guard.Read,
		"prom": guard.Metrics, "root": guard.Admin})
	srv, s := serve(t, tokens)
	for _, c := range []struct {
		method, path, token string
		code                int
		want                string
	}{
		{"GET", "/v1/models", "", 401, "unauthorized"}, {"GET", "/v1/models", "wrong", 401, "unauthorized"},
		{"GET", "/v1/models", secret["till"], 403, "lacks the scope read"}, {"GET", "/v1/models", secret["desk"], 200, "models"},
		{"GET", "/v1/status", secret["desk"], 200, "history"}, {"GET", "/v1/status", "", 401, "unauthorized"},
		{"POST", "/v1/score", secret["desk"], 403, "forbidden"}, {"POST", "/v1/score", secret["till"], 200, "decision"},
		{"POST", "/v1/labels", secret["till"], 403, "forbidden"},
		{"GET", "/metrics", "", 401, "unauthorized"}, {"GET", "/metrics", secret["prom"], 200, "onmart_ready"},
		{"GET", "/debug/pprof/goroutine", secret["desk"], 403, "forbidden"}, {"GET", "/debug/pprof/goroutine", secret["root"], 200, ""},
		{"GET", "/debug/pprof/cmdline", secret["root"], 404, "not_found"},
		{"GET", "/healthz", "", 200, "ok"}, {"GET", "/", "", 200, "<!doctype html>"},
	} {
		code, body := call(t, c.method, srv.URL+c.path, c.token, fmt.Sprintf(oneEvent, 1))
		if code != c.code || !strings.Contains(body, c.want) {
			t.Errorf(
				"%s %s with token %.12s: status %d, want %d with %s: %.200s",
				c.method,
				c.path,
				c.token,
				code,
				c.code,
				c.want,
				body,
			)
		}
	}
	// Why a check fails is for those who may read.
	s.Monitor().Health.Set("state", fmt.Errorf("/var/lib/onmart is full"))
	if code, body := call(t, "GET", srv.URL+"/readyz", "", ""); code != 503 || strings.Contains(body, "full") {
		t.Errorf("without a token: %d %s", code, body)
	}
	if code, body := call(t, "GET", srv.URL+"/readyz", secret["desk"], ""); code != 503 ||
		!strings.Contains(body, "full") {
		t.Errorf("with a token: %d %s", code, body)
	}
}

func TestProfilesNeedTokens(t *testing.T) {
	srv, _ := serve(t, nil)
	if code, body := call(t, "GET", srv.URL+"/debug/pprof/heap", "", ""); code != 403 {
		t.Errorf("status %d: %s", code, body)
	}
}

// No request leads to a file: every route, and the paths that name none, with every way of climbing out that browsers
// and proxies let through, gives neither the file's content nor a success that the route does not give anyway.
func TestNoPathLeadsToAFile(t *testing.T) {
	dir := t.TempDir()
	const canary = "canary-6f1d"
	if err := os.WriteFile(filepath.Join(dir, "secret.txt"), []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	srv, _ := serve(t, nil)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ways := []string{
		"../secret.txt",
		"..%2fsecret.txt",
		"%2e%2e/secret.txt",
		"..%5csecret.txt",
		"....//secret.txt",
		"%252e%252e%252fsecret.txt",
		"..;/secret.txt",
		"secret.txt",
		"%00secret.txt",
		"secret.txt%00.html",
		url.PathEscape(dir + "/secret.txt"),
		"/" + dir + "/secret.txt",
		"../../../../../../../../etc/passwd",
		"%c0%ae%c0%ae/etc/passwd",
		"file:///etc/passwd",
		"?file=../secret.txt",
		"?series=" + dir + "/secret.txt",
	}
	for _, route := range []string{"", "v1", "v1/score", "v1/labels", "v1/forecast", "v1/recommend", "v1/stock", "v1/models", "v1/status", "status", "healthz",
		"readyz", "metrics", "debug/pprof", "debug/pprof/heap", "static", "docs"} {
		for _, way := range ways {
			target := srv.URL + "/" + route
			if !strings.HasPrefix(way, "?") {
				target += "/"
			}
			for _, method := range []string{"GET", "POST"} {
				req, err := http.NewRequest(method, srv.URL, strings.NewReader("{}"))
				if err != nil {
					t.Fatal(err)
				}
				req.URL.Opaque = "//" + strings.TrimPrefix(target+way, "http://") // as it stands, not cleaned
				if i := strings.IndexByte(req.URL.Opaque, '?'); i >= 0 {
					req.URL.Opaque, req.URL.RawQuery = req.URL.Opaque[:i], req.URL.Opaque[i+1:]
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if bytes.Contains(body, []byte(canary)) || bytes.Contains(body, []byte("root:x:")) {
					t.Errorf("%s %s%s gives the file", method, target, way)
				}
				if !strings.HasPrefix(way, "?") && resp.StatusCode < 400 {
					t.Errorf("%s %s%s: status %d", method, target, way, resp.StatusCode)
				}
				if resp.StatusCode >= 400 && !json.Valid(body) && !strings.Contains(string(body), "400 Bad Request") &&
					!bytes.Contains(body, []byte("\n{")) {
					t.Errorf("%s %s%s: no JSON: %.100s", method, target, way, body)
				}
			}
		}
	}
}

func TestSecurityHeaders(t *testing.T) {
	srv, _ := serve(t, nil)
	nonces := map[string]bool{}
	for _, path := range []string{"/", "/status", "/", "/v1/models", "/nothing", "/metrics"} {
		resp, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		h := resp.Header
		csp := h.Get("Content-Security-Policy")
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" || h.Get("Cache-Control") != "no-store" ||
			!strings.HasPrefix(csp, "default-src 'none'") ||
			strings.Contains(csp, "unsafe") ||
			strings.Contains(csp, "*") {
			t.Errorf("%s: headers %v", path, h)
		}
		if m := regexp.MustCompile(`script-src 'nonce-([^']+)'`).FindStringSubmatch(csp); m != nil {
			if nonces[m[1]] || len(m[1]) < 20 {
				t.Errorf("%s: nonce %s is short, or came before", path, m[1])
			}
			nonces[m[1]] = true
			if regexp.MustCompile(`(?i)\s(src|href)="(https?:)?//|<(script|style)>|\son[a-z]+="|style="`).Match(body) {
				t.Errorf("%s has an asset from elsewhere, or a script or style without the nonce", path)
			}
		}
	}
	if len(nonces) != 3 {
		t.Errorf("%d nonces of three pages", len(nonces))
	}
}

func TestPagesOfOtherSitesAreRefused(t *testing.T) {
	s := newScorer(t, modeltest.Artifact(t), score.Options{})
	h := score.NewServer(s, mapping(t), score.ServerOptions{LocalNames: true}).Handler()
	for _, c := range []struct {
		host, site string
		code       int
	}{
		{"localhost:8080", "", 200}, {"127.0.0.1", "same-origin", 200}, {"[::1]:80", "", 200},
		{"evil.example", "", 421}, {"127.0.0.1.evil.example:8080", "", 421}, {"localhost", "cross-site", 403},
	} {
		r := httptest.NewRequest(
			"POST",
			"/v1/labels",
			strings.NewReader(`{"trans_id":1,"is_fraud":1,"known_at":"2018-08-02T00:00:00Z"}`),
		)
		r.Host = c.host
		if c.site != "" {
			r.Header.Set("Sec-Fetch-Site", c.site)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.code {
			t.Errorf("host %s from %q: status %d, want %d: %s", c.host, c.site, w.Code, c.code, w.Body)
		}
	}
}

func TestRateOfAToken(t *testing.T) {
	tokens, secret := holders(t, map[string]guard.Scope{"a": guard.Read, "b": guard.Read})
	s := newScorer(t, modeltest.Artifact(t), score.Options{})
	srv := httptest.NewServer(score.NewServer(s, mapping(t), score.ServerOptions{Tokens: tokens, Rate: .001}).Handler())
	defer srv.Close()
	for i, want := range []int{200, 429, 429} {
		if code, body := call(t, "GET", srv.URL+"/v1/models", secret["a"], ""); code != want ||
			code == 429 && !strings.Contains(body, "rate_limited") {
			t.Errorf("request %d: status %d: %s", i, code, body)
		}
	}
	if code, _ := call(t, "GET", srv.URL+"/v1/models", secret["b"], ""); code != 200 {
		t.Errorf("another token: status %d", code)
	}
}

// With the scorer held, requests beyond the queue are told to come again, and those in it are answered later.
func TestQueueIsBounded(t *testing.T) {
	s := newScorer(t, modeltest.Artifact(t), score.Options{})
	srv := httptest.NewServer(score.NewServer(s, mapping(t), score.ServerOptions{Queue: 3}).Handler())
	defer srv.Close()
	held, free := make(chan bool), make(chan bool)
	go s.Inspect(func() error { close(held); <-free; return nil })
	<-held
	codes := make(chan int, 10)
	busy := 0
	for i := range 10 {
		go func() {
			resp, err := http.Post(srv.URL+"/v1/score", "", strings.NewReader(fmt.Sprintf(oneEvent, i)))
			if err != nil {
				codes <- 0
				return
			}
			resp.Body.Close()
			if resp.StatusCode == 429 && resp.Header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
			codes <- resp.StatusCode
		}()
	}
	for range 7 {
		if c := <-codes; c == 429 {
			busy++
		}
	}
	close(free)
	good := 0
	for range 3 {
		if c := <-codes; c == 200 {
			good++
		}
	}
	if busy != 7 || good != 3 {
		t.Errorf("%d refused and %d answered, want 7 and 3", busy, good)
	}
}

// A client that sends a header and then nothing, and one with endless headers, are cut off.
func TestSlowAndWordyClientsAreCut(t *testing.T) {
	s := newScorer(t, modeltest.Artifact(t), score.Options{})
	srv := score.NewServer(s, mapping(t), score.ServerOptions{}).HTTPServer()
	if srv.ReadHeaderTimeout <= 0 || srv.ReadTimeout <= 0 || srv.WriteTimeout <= 0 || srv.IdleTimeout <= 0 {
		t.Fatalf("a time is not bounded: %+v", srv)
	}
	srv.ReadHeaderTimeout, srv.ReadTimeout = 100*time.Millisecond, 100*time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()
	for _, c := range []struct{ name, text, want string }{
		{"half a header", "POST /v1/score HTTP/1.1\r\nHost: localhost\r\n", ""},
		{"half a body", "POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{", "408"},
		{"long headers", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431"},
	} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		go io.WriteString(conn, c.text)
		line, _ := bufio.NewReader(conn).ReadString('\n')
		if !strings.Contains(line, c.want) {
			t.Errorf("%s: answer %q, want %s", c.name, line, c.want)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil && os.IsTimeout(err) {
			t.Errorf("%s: the connection stays open", c.name)
		}
		conn.Close()
	}
}

// What the server logs at its most talkative, its metrics, its status and its profiles hold no token.
func TestSecretsAreNowhere(t *testing.T) {
	tokens, secret := holders(
		t,
		map[string]guard.Scope{"all": guard.Score | guard.Labels | guard.Read | guard.Admin | guard.Metrics},
	)
	var log bytes.Buffer
	s := newScorer(t, modeltest.Artifact(t), score.Options{})
	h := score.NewServer(
		s,
		mapping(t),
		score.ServerOptions{
			Tokens: tokens,
			Log:    slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		},
	)
	const wrong = "onmart_wrong-guess-1234567890"
	var seen bytes.Buffer
	for _, path := range []string{"/v1/models", "/v1/status", "/metrics", "/readyz", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap", "/debug/pprof/allocs?debug=1", "/nothing", "/v1/score"} {
		for _, token := range []string{secret["all"], wrong} {
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			h.Handler().ServeHTTP(w, r)
			body := w.Body.Bytes()
			if z, err := gzip.NewReader(bytes.NewReader(body)); err == nil {
				if plain, err := io.ReadAll(z); err == nil {
					body = plain
				}
			}
			seen.Write(body)
			fmt.Fprint(&seen, w.Header())
		}
	}
	if !strings.Contains(log.String(), "token=all") {
		t.Errorf("the log does not say who asked:\n%s", &log)
	}
	sum := strings.TrimPrefix(secret["all"], "onmart_")
	for _, text := range []string{secret["all"], sum, wrong} {
		if strings.Contains(log.String(), text) || strings.Contains(seen.String(), text) {
			t.Errorf("a token is in the log or in an answer")
		}
	}
}

// Requests in hand finish, readiness ends at once, and the listener closes.
func TestDrain(t *testing.T) {
	s := newScorer(t, modeltest.Artifact(t), score.Options{})
	h := score.NewServer(s, mapping(t), score.ServerOptions{})
	srv := h.HTTPServer()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	base := "http://" + l.Addr().String()
	held, free := make(chan bool), make(chan bool)
	go s.Inspect(func() error { close(held); <-free; return nil })
	<-held
	code := make(chan int, 1)
	go func() {
		resp, err := http.Post(base+"/v1/score", "", strings.NewReader(fmt.Sprintf(oneEvent, 1)))
		if err != nil {
			t.Error(err)
			code <- 0
			return
		}
		resp.Body.Close()
		code <- resp.StatusCode
	}()
	for s.Monitor().InHand() == 0 {
		time.Sleep(time.Millisecond)
	}
	done := make(chan error, 1)
	go func() { done <- h.Drain(context.Background(), srv, 50*time.Millisecond) }()
	for !s.Monitor().Health.Draining() {
		time.Sleep(time.Millisecond)
	}
	if ready, _ := s.Monitor().Health.Ready(); ready {
		t.Error("ready while it drains")
	}
	close(free)
	if c := <-code; c != 200 {
		t.Errorf("the request in hand: status %d", c)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the port is still open")
	}
}
