package job

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// broker is a log in memory with a group's offsets and a topic for lines: what outlives a process.
type broker struct {
	mu         sync.Mutex
	partitions map[string]*log
	committed  map[string]int64
	lines      []Line
	more       *sync.Cond
}

type log struct {
	id     string
	start  int64
	events []Event // ascending positions
	next   int64   // position after the last, over markers too
}

func newBroker() *broker {
	b := &broker{partitions: map[string]*log{}, committed: map[string]int64{}}
	b.more = sync.NewCond(&b.mu)
	return b
}

func (b *broker) create(name, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.partitions[name] = &log{id: id}
	b.more.Broadcast()
}

// produce appends an event; gap positions before it are taken by markers.
func (b *broker) produce(name string, gap int64, key, value []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.partitions[name]
	l.next += gap
	l.events = append(l.events, Event{Position: l.next, Key: key, Value: value})
	l.next++
	b.more.Broadcast()
}

// mark takes a position without an event.
func (b *broker) mark(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.partitions[name].next++
	b.more.Broadcast()
}

// trim forgets what lies before a position.
func (b *broker) trim(name string, start int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.partitions[name]
	l.start = start
	l.events = slices.DeleteFunc(l.events, func(e Event) bool { return e.Position < start })
}

// memorySource reads a broker in random cuts. It is one process's.
type memorySource struct {
	b    *broker
	rng  *rand.Rand
	next map[string]int64
	stop bool // at the end of the log the source ends
	errs []error
}

func (s *memorySource) Partitions() []Partition {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	var all []Partition
	for _, name := range slices.Sorted(maps.Keys(s.b.partitions)) {
		l := s.b.partitions[name]
		all = append(all, Partition{Name: name, Log: l.id, Start: l.start, End: l.next})
	}
	return all
}

func (s *memorySource) Committed(context.Context) (map[string]int64, error) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return maps.Clone(s.b.committed), nil
}

func (s *memorySource) Seek(_ context.Context, next map[string]int64) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	for name, n := range next {
		if l := s.b.partitions[name]; n < l.start || n > l.next {
			return fmt.Errorf("%s: %d is not in %d..%d", name, n, l.start, l.next)
		}
	}
	s.next = maps.Clone(next)
	return nil
}

func (s *memorySource) Poll(ctx context.Context, limit int) ([]Records, error) {
	defer context.AfterFunc(ctx, func() {
		s.b.mu.Lock()
		defer s.b.mu.Unlock()
		s.b.more.Broadcast()
	})()
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(s.errs) > 0 {
			err := s.errs[0]
			s.errs = s.errs[1:]
			return nil, err
		}
		if out := s.some(limit); out != nil {
			time.Sleep(time.Duration(s.rng.IntN(400)) * time.Microsecond) // so that not all goes into one delivery
			return out, nil
		}
		if s.stop {
			return nil, io.EOF
		}
		s.b.more.Wait()
	}
}

// some cuts a random number of events off some partitions.
func (s *memorySource) some(limit int) []Records {
	var out []Records
	names := slices.Sorted(maps.Keys(s.b.partitions))
	s.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		l := s.b.partitions[name]
		at := s.next[name]
		if at >= l.next || len(out) > 0 && s.rng.IntN(3) == 0 {
			continue
		}
		from, _ := slices.BinarySearchFunc(l.events, at, func(e Event, at int64) int { return int(e.Position - at) })
		to := min(len(l.events), from+1+s.rng.IntN(min(limit, 40)))
		r := Records{Source: name, Events: l.events[from:to:to], Next: l.next, End: l.next}
		if to < len(l.events) {
			r.Next = l.events[to].Position
		}
		s.next[name] = r.Next
		out = append(out, r)
	}
	return out
}

func (s *memorySource) Recycle(Records, int, int) {}

func (s *memorySource) Commit(next map[string]int64) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	maps.Copy(s.b.committed, next)
	return nil
}

func (s *memorySource) Close() error { return nil }

// memorySink writes lines to a broker. With commits, lines and positions are there together or not at all.
type memorySink struct {
	b       *broker
	commits bool
	// before is asked before a delivery counts, and after its lines are written; its error is a crash there.
	before, after func(lines []Line) error
}

func (k *memorySink) Deliver(_ context.Context, lines []Line, next map[string]int64, ready func() error) error {
	if err := ready(); err != nil {
		return err
	}
	if k.before != nil {
		if err := k.before(lines); err != nil {
			return err
		}
	}
	k.b.mu.Lock()
	for _, l := range lines {
		k.b.lines = append(k.b.lines, Line{slices.Clone(l.Key), slices.Clone(l.Value), l.Dead})
	}
	if k.commits {
		maps.Copy(k.b.committed, next)
	}
	k.b.mu.Unlock()
	if k.after != nil {
		return k.after(lines)
	}
	return nil
}

func (k *memorySink) Commits() bool { return k.commits }
func (k *memorySink) Close() error  { return nil }
