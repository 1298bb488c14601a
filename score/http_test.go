package score_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/guard"
	"github.com/onmart/onmart/score/model/modeltest"
)

func serve(t *testing.T, tokens *guard.Tokens) (*httptest.Server, *score.Scorer) {
	t.Helper()
	s := newScorer(t, modeltest.Artifact(t), score.Options{Features: true})
	srv := httptest.NewServer(score.NewServer(s, mapping(t), score.ServerOptions{Tokens: tokens}).Handler())
	t.Cleanup(srv.Close)
	return srv, s
}

func call(t *testing.T, method, url, token, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestHTTPScoresAsAFileDoes(t *testing.T) {
	lines := cards(8, 300, false)
	want := parse(t, run(t, newScorer(t, modeltest.Artifact(t), score.Options{Features: true}), lines, 100))
	srv, _ := serve(t, nil)
	var got []scored
	for i := 0; i < len(lines); {
		n := min(1+i%5, len(lines)-i)
		code, body := call(t, "POST", srv.URL+"/v1/score", "", strings.Join(lines[i:i+n], "\n"))
		if code != 200 {
			t.Fatalf("status %d: %s", code, body)
		}
		if body != "" {
			got = append(got, parse(t, strings.Split(strings.TrimSuffix(body, "\n"), "\n"))...)
		}
		i += n
	}
	if len(got) != len(want) {
		t.Fatalf("%d scores, want %d", len(got), len(want))
	}
	ids := map[string]bool{}
	for i := range got {
		if got[i].TransID != want[i].TransID || got[i].Scores != want[i].Scores {
			t.Fatalf("row %d: %+v, from a file %+v", i, got[i], want[i])
		}
		if ids[got[i].ScoreID] {
			t.Fatalf("score_id %s is there twice", got[i].ScoreID)
		}
		ids[got[i].ScoreID] = true
	}
}

func TestHTTPAnswersBadRequests(t *testing.T) {
	srv, s := serve(t, nil)
	good := `{"trans_id":1,"trans_datetime":"2018-08-01T10:00:00Z","user_id":1,"store_id":1,"amount":10}`
	for _, c := range []struct {
		name, method, path, body string
		code                     int
		want                     string
	}{
		{"one event", "POST", "/v1/score", good, 200, `"decision":"`},
		{"again", "POST", "/v1/score", good, 200, "scored before"},
		{"not JSON", "POST", "/v1/score", "amount=10", 400, "not JSON at byte 1"},
		{"a good and a bad one", "POST", "/v1/score", strings.Replace(good, ":1,", ":2,", 1) + "\n{", 200, `"position":4`},
		{"nothing", "POST", "/v1/score", "", 400, "holds no event"},
		{"too much", "POST", "/v1/score", strings.Repeat(" ", 2<<20), 413, "fewer events"},
		{"wrong method", "GET", "/v1/score", "", 405, `"code":"method_not_allowed"`},
		{"label", "POST", "/v1/labels", `{"trans_id":1,"is_fraud":1,"known_at":"2018-08-02T00:00:00Z"}`, 200, `{"expired":0,"labels":1,"waiting":0}`},
		{"label of an unknown purchase", "POST", "/v1/labels", `{"trans_id":99,"is_fraud":1,"known_at":"2018-08-02T00:00:00Z"}`, 200, `"waiting":1`},
		{"label without a time", "POST", "/v1/labels", `{"trans_id":1,"is_fraud":1}`, 400, `"column":"known_at"`},
		{"models", "GET", "/v1/models", "", 200, `"features":["TX_AMOUNT"`},
		{"health", "GET", "/healthz", "", 200, "ok"},
		{"ready", "GET", "/readyz", "", 200, `"ready":true`},
		{"metrics", "GET", "/metrics", "", 200, "onmart_score_transactions_total 2"},
		{"no such page", "GET", "/v1/nothing", "", 404, `"code":"not_found"`},
	} {
		code, body := call(t, c.method, srv.URL+c.path, "", c.body)
		if code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s: status %d, want %d with %q:\n%s", c.name, code, c.code, c.want, body)
		}
	}
	if c := s.Counts(); c.Scored != 2 || c.Labels != 2 || c.LabelsWaiting != 1 || c.Duplicates != 1 {
		t.Errorf("counts %+v", c)
	}
}

func TestListenAddress(t *testing.T) {
	for _, c := range []struct {
		addr       string
		token, tls bool
		ok         bool
	}{
		{"127.0.0.1:8080", false, false, true}, {"localhost:0", false, false, true}, {"[::1]:80", false, false, true},
		{"0.0.0.0:8080", false, false, false}, {":8080", false, false, false}, {"10.0.0.1:80", true, false, false},
		{"0.0.0.0:8080", true, true, true}, {"8080", true, true, false},
	} {
		if err := score.CheckListen(c.addr, c.token, c.tls); (err == nil) != c.ok {
			t.Errorf("%s token=%v tls=%v: %v", c.addr, c.token, c.tls, err)
		}
	}
}

// Many clients at once: every transaction gets one score and one place in the log.
func TestHTTPConcurrently(t *testing.T) {
	srv, s := serve(t, nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	ids := map[string]bool{}
	const clients, each = 8, 25
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				body := fmt.Sprintf(`{"trans_id":%d,"trans_datetime":"2018-08-01T10:00:00Z","user_id":%d,"store_id":1,"amount":10}`, c*each+i, c)
				code, answer := call(t, "POST", srv.URL+"/v1/score", "", body)
				var l scored
				if err := json.Unmarshal([]byte(answer), &l); err != nil || code != 200 {
					t.Errorf("status %d, %v: %s", code, err, answer)
					return
				}
				mu.Lock()
				ids[l.ScoreID] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if c := s.Counts(); c.Scored != clients*each || len(ids) != clients*each {
		t.Errorf("%d scored, %d ids, want %d", c.Scored, len(ids), clients*each)
	}
}
