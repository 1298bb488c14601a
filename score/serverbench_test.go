package score_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/guard"
	"github.com/onmart/onmart/score/model/modeltest"
)

// BenchmarkRequestAround is what a request costs around its work: routing, headers, origin, token, metrics.
func BenchmarkRequestAround(b *testing.B) {
	s := newScorer(b, modeltest.Artifact(b), score.Options{})
	h := score.NewServer(s, mapping(b), score.ServerOptions{LocalNames: true})
	h.Handle("GET /nothing", guard.Read, func(http.ResponseWriter, *http.Request) {})
	handler := h.Handler()
	r := httptest.NewRequest("GET", "/nothing", nil)
	r.Host = "127.0.0.1:8080"
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		handler.ServeHTTP(w, r)
	}
}
