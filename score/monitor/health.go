package monitor

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// Check is one condition of readiness.
type Check struct {
	Name  string    `json:"name"`
	OK    bool      `json:"ok"`
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since"` // when it last changed
}

// Health is what readiness is made of: named checks, each good or failing with an error. A process is ready while
// all hold and it is not draining. The zero value is not ready: it has no check. Methods may be called from any
// goroutine.
type Health struct {
	mu       sync.Mutex
	checks   []Check // in the order in which they were named
	asked    map[string]func() error
	draining bool
}

var errNotYet = errors.New("has not reported yet")

// Expect names checks that must report before the process is ready.
func (h *Health) Expect(names ...string) {
	for _, n := range names {
		h.Set(n, errNotYet)
	}
}

// Set says whether a check holds, nil, or why not. The first call adds it.
func (h *Health) Set(check string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set(check, err)
}

func (h *Health) set(check string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	i := slices.IndexFunc(h.checks, func(c Check) bool { return c.Name == check })
	if i < 0 {
		h.checks = append(h.checks, Check{Name: check, Since: time.Now()})
		i = len(h.checks) - 1
	}
	c := &h.checks[i]
	if c.OK != (err == nil) {
		c.Since = time.Now()
	}
	c.OK, c.Error = err == nil, text
}

// Func adds a check that is asked whenever readiness is; f must return quickly.
func (h *Health) Func(check string, f func() error) {
	err := f()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asked == nil {
		h.asked = map[string]func() error{}
	}
	h.asked[check] = f
	h.set(check, err)
}

// Drain ends readiness for good: the process stops.
func (h *Health) Drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
}

// Draining tells whether Drain was called.
func (h *Health) Draining() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.draining
}

// Ready tells whether all checks hold, with the checks in the order in which they were named.
func (h *Health) Ready() (bool, []Check) {
	h.mu.Lock()
	asked := make(map[string]func() error, len(h.asked))
	for n, f := range h.asked {
		asked[n] = f
	}
	h.mu.Unlock()
	found := map[string]error{}
	for n, f := range asked { // outside the lock: they may take others
		found[n] = f()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for n, err := range found {
		h.set(n, err)
	}
	ready := len(h.checks) > 0 && !h.draining
	for i := range h.checks {
		ready = ready && h.checks[i].OK
	}
	return ready, slices.Clone(h.checks)
}
