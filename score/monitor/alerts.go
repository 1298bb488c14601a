package monitor

import (
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// Bounds of what is kept of alerts: lines, and bytes of a line. A line with features is about 2 kB.
const (
	keptAlerts = 50
	maxAlert   = 8 << 10
)

// Alert is a transaction at or above the threshold.
type Alert struct {
	At   time.Time       `json:"at"`   // when it was scored
	Line json.RawMessage `json:"line"` // what was written for it
}

// Alerts keeps the last ones. The zero value is empty; methods may be called from any goroutine.
type Alerts struct {
	mu   sync.Mutex
	ring [keptAlerts]Alert
	n    int64
	long int64
}

// Add keeps a line of output. It copies it, into the place of the oldest.
func (a *Alerts) Add(at time.Time, line []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(line) > maxAlert {
		a.long++
		return
	}
	slot := &a.ring[a.n%keptAlerts]
	slot.At, slot.Line = at, append(slot.Line[:0], line...)
	a.n++
}

// Last is the alerts that are kept, the newest first, and how many were too long to keep.
func (a *Alerts) Last() (last []Alert, tooLong int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	last = []Alert{}
	for i := a.n - 1; i >= max(0, a.n-keptAlerts); i-- {
		s := a.ring[i%keptAlerts]
		last = append(last, Alert{s.At, slices.Clone(s.Line)})
	}
	return last, a.long
}
