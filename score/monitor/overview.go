package monitor

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// CauseCount is how often something happened.
type CauseCount struct {
	Cause string `json:"cause"`
	Count int64  `json:"count"`
}

// StateOverview is how much the state holds; zeros where nobody has said.
type StateOverview struct {
	Keys  int64            `json:"keys"`
	Bytes map[string]int64 `json:"bytes"`
	Saved *time.Time       `json:"saved"` // last checkpoint
}

// Errors are the causes that have occurred.
func (m *Metrics) Errors() []CauseCount { return occurred(m.errors[:], causeNames[:]) }

// DeadLetters are the causes of those that were set aside.
func (m *Metrics) DeadLetters() []CauseCount { return occurred(m.dead[:], causeNames[:]) }

// Refusals are the causes for which HTTP requests were turned away.
func (m *Metrics) Refusals() []CauseCount { return occurred(m.refused[:], refusalNames[:]) }

func occurred(counters []prometheus.Counter, names []string) []CauseCount {
	out := []CauseCount{}
	for i, c := range counters {
		if n := int64(read(c).GetCounter().GetValue()); n > 0 {
			out = append(out, CauseCount{names[i], n})
		}
	}
	return out
}

// Started is when the metrics were made.
func (m *Metrics) Started() time.Time { return m.started }

// StateOverview is the state as it is and when it was last saved.
func (m *Metrics) StateOverview() StateOverview {
	m.measureState()
	o := StateOverview{Keys: int64(read(m.stateKeys).GetGauge().GetValue()), Bytes: map[string]int64{}}
	if t := read(m.saved).GetGauge().GetValue(); t > 0 {
		at := time.UnixMicro(int64(t * 1e6)).UTC()
		o.Saved = &at
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, n := range m.sizes {
		o.Bytes[k] = n
	}
	return o
}

func read(c prometheus.Metric) *dto.Metric {
	var v dto.Metric
	if err := c.Write(&v); err != nil { // of a counter or a gauge: cannot fail
		return &dto.Metric{}
	}
	return &v
}
