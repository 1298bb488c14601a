package score

import (
	"bytes"
	"net/http"
	"sync"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/monitor"
)

// request is the memory of one request for events, used again by the next.
type request struct {
	decoder *datasets.EventDecoder
	err     error // of making it
	labels  bool  // it takes labels alone
	body    bytes.Buffer
	rows    *datasets.Batch
	places  []int64
	raw     [][]byte
	rejects []Reject
	lines   Lines
}

// requestKeep is the most memory of a body that is kept for the next request.
const requestKeep = 64 << 10

var (
	httpSources  = []string{HTTPSource}
	contentJSON  = []string{"application/json"}
	contentLines = []string{"application/x-ndjson"}
)

func newRequest(m *datasets.Mapping, schema *datasets.Schema, labels bool) *request {
	q := &request{rows: datasets.NewBatch(schema, 1), labels: labels}
	if q.decoder, q.err = m.NewEventDecoder(HTTPSource); q.err == nil && labels {
		q.decoder.LabelsOnly()
	}
	return q
}

// decode reads the events of a request and gives them positions. What it returns goes back to the pool.
func (h *Server) decode(w http.ResponseWriter, r *http.Request, pool *sync.Pool) (*request, bool) {
	q := pool.Get().(*request)
	if q.err != nil {
		httpError(w, http.StatusBadRequest, q.err.Error())
		return nil, false
	}
	if q.body.Cap() > requestKeep {
		q.body = bytes.Buffer{}
	}
	q.body.Reset()
	if _, err := q.body.ReadFrom(r.Body); err != nil { // bounded by Handle
		h.badBody(w, err)
		pool.Put(q)
		return nil, false
	}
	start := time.Now()
	last := q.split(q.body.Bytes())
	h.monitor.Stage(monitor.Decode, time.Since(start))
	if q.rows.N+len(q.rejects) == 0 {
		httpError(w, http.StatusBadRequest, "the body holds no event: send one JSON object, or one a line")
		pool.Put(q)
		return nil, false
	}
	if !h.enter(w) {
		pool.Put(q)
		return nil, false
	}
	// Lines become positions that no other request has.
	base := h.next.Add(last) - last - 1
	for i := range q.places {
		q.places[i] += base
	}
	for i := range q.rejects {
		q.rejects[i].Line += base
	}
	return q, true
}

// split decodes a body line by line and returns the number of the last that was not empty.
func (q *request) split(body []byte) (last int64) {
	q.rows.Reset()
	q.places, q.raw, q.rejects = q.places[:0], q.raw[:0], q.rejects[:0]
	q.lines.Reset()
	body = bytes.TrimPrefix(body, []byte{0xEF, 0xBB, 0xBF})
	for line := int64(1); len(body) > 0; line++ {
		event, rest, _ := bytes.Cut(body, []byte{'\n'})
		body = rest
		event = bytes.TrimSuffix(event, []byte{'\r'})
		if len(bytes.TrimLeft(event, " \t\r")) == 0 {
			continue
		}
		last = line
		if r := q.decoder.Append(q.rows, event, line); r != nil {
			q.rejects = append(q.rejects, Reject{Reject: *r, Before: int32(q.rows.N), Raw: event})
			continue
		}
		q.places = append(q.places, line)
		q.raw = append(q.raw, event)
	}
	return last
}

// process scores the events; the lines are in q.
func (h *Server) process(q *request) (Events, Counts, error) {
	ev := Events{Sources: httpSources, Rows: q.rows, Positions: q.places, Rejects: q.rejects, Raw: q.raw}
	if h.o.Journal != nil {
		counts, err := h.o.Journal.Direct(ev, q.labels, &q.lines)
		return ev, counts, err
	}
	counts, err := h.scorer.ProcessLines(ev, &q.lines)
	return ev, counts, err
}
