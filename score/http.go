package score

import (
	"fmt"
	"net"
	"net/http"

	"github.com/onmart/onmart/score/model"
)

// HTTPSource names HTTP requests among the sources of a state.
const HTTPSource = "http"

func (h *Server) score(w http.ResponseWriter, r *http.Request) {
	q, ok := h.decode(w, r, &h.events)
	if !ok {
		return
	}
	defer h.events.Put(q)
	ev, counts, err := h.process(q)
	out := q.lines.Bytes
	if err != nil {
		httpError(w, http.StatusInternalServerError, err.Error())
		return
	}
	if len(out) == 0 && (h.scorer.o.Artifact == nil || counts.Stock > 0) {
		answer := map[string]int64{"followed": counts.Followed}
		if counts.Stock > 0 {
			answer["stock"] = counts.Stock
		}
		writeJSON(w, answer)
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
	h.delivered(w, len(q.lines.Lines))
}

func (h *Server) labels(w http.ResponseWriter, r *http.Request) {
	q, ok := h.decode(w, r, &h.labelEvents)
	if !ok {
		return
	}
	defer h.labelEvents.Put(q)
	_, counts, err := h.process(q)
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
	writeJSON(w, map[string]any{"models": h.modelList()})
}

func (h *Server) modelList() []any {
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
	return models
}

// CheckListen refuses an address that other machines can reach unless both tokens and TLS guard it.
func CheckListen(addr string, tokens, tls bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--listen %s: want HOST:PORT, such as 127.0.0.1:8080", addr)
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() || tokens && tls {
		return nil
	}
	return fmt.Errorf("--listen %s: other machines can reach this address: give --tokens, --tls-cert and --tls-key, or listen on 127.0.0.1", addr)
}
