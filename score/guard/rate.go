package guard

import (
	"sync"
	"time"
)

// Rates limits how often each name may ask, by a bucket of tokens: it holds Burst, each request takes one, and
// PerSecond are put back. Its memory is of the names it has seen, which are those of a tokens file.
type Rates struct {
	PerSecond float64 // 0: no limit
	Burst     float64

	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	left float64
	at   time.Time
}

// Take is 0 where name may ask now; otherwise how long it should wait.
func (r *Rates) Take(name string, now time.Time) time.Duration {
	if r.PerSecond <= 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.buckets == nil {
		r.buckets = map[string]*bucket{}
	}
	b, ok := r.buckets[name]
	if !ok {
		b = &bucket{left: r.Burst, at: now}
		r.buckets[name] = b
	}
	if passed := now.Sub(b.at).Seconds(); passed > 0 { // a clock that is set back gives nothing and takes nothing
		b.left = min(r.Burst, b.left+passed*r.PerSecond)
	}
	b.at = now
	if b.left < 1 {
		return time.Duration((1 - b.left) / r.PerSecond * float64(time.Second))
	}
	b.left--
	return 0
}

// Keep forgets all names but these, after a tokens file has changed.
func (r *Rates) Keep(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := map[string]*bucket{}
	for _, n := range names {
		if b, ok := r.buckets[n]; ok {
			kept[n] = b
		}
	}
	r.buckets = kept
}
