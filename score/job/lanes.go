package job

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/monitor"
)

// lane is one partition, with what was read of it and is not folded yet.
type lane struct {
	name    string
	number  int32
	decoder *datasets.EventDecoder
	own     *ownColumns // nil: events have the fields of all
	raw     []part      // read and not decoded
	queue   []*chunk    // decoded
	busy    bool        // a part is being decoded
	decoded int         // events in the queue
	next    int64       // position to fold next
	folded  int64       // position of the last event that was folded
	read    int64       // position after those that were read
	end     int64       // of its log, as far as known
	silent  int64       // lines of events before it were delivered by an earlier process
	handed  int64       // position that was handed to the outbox
	reached int64       // position that was delivered
	stalled bool        // it did not come though more of it was known to be there
}

// part is some records of one read of a partition.
type part struct {
	records  Records
	from, to int // of its events
	arrived  time.Time
}

// chunk is a part, decoded.
type chunk struct {
	rows    *datasets.Batch
	at      []int64 // by event, rows and rejects in their order: position
	time    []int64 // by event: its time, math.MinInt64 where it has none
	isRow   []bool  // by event
	places  []int64 // by row: position
	raw     [][]byte
	keys    [][]byte
	rejects []score.Reject
	after   int64
	of      part

	event, row, reject int // taken so far
}

// lanes are the partitions of the source between the goroutine that reads and the one that folds.
type lanes struct {
	mu      sync.Mutex
	cond    sync.Cond
	all     []*lane
	by      map[string]*lane
	free    []*chunk
	held    int   // events read and not folded
	bytes   int64 // of them, about
	end     bool  // nothing more will be read
	stay    bool  // and that is not the end of the job
	catchup bool  // some lane is behind its silent position
	waiting time.Time
}

const (
	// heldBytes bounds what is read and not folded; a partition that others wait for may go over it by as much again.
	heldBytes = 64 << 20
	// ahead is how many events are decoded before they are folded, in all lanes together, and at once.
	ahead      = 1 << 16
	chunkLimit = 2048
	// spare is how many chunks are kept for the next events. Each is as large as the most it ever held, so that there must
	// not be many of them.
	spare = 32
	// patience is how long a partition that is known to have more is waited for, so that those that are there already do
	// not run ahead of it.
	patience = 250 * time.Millisecond
)

func (s *lanes) init() {
	s.cond.L = &s.mu
	s.by = map[string]*lane{}
}

func (s *lanes) find(name string) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[name]
}

func (s *lanes) add(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, l)
	s.by[l.name] = l
}

func (s *lanes) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cond.Broadcast()
}

// finish says that nothing more will be read.
func (s *lanes) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = true
	s.cond.Broadcast()
}

// room waits while too much is read and not folded.
func (s *lanes) room(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ctx.Err() == nil && s.bytes >= heldBytes && (s.full() || !s.starved()) {
		s.cond.Wait()
	}
}

// full tells whether no lane is waited for any more.
func (s *lanes) full() bool { return s.bytes >= 2*heldBytes }

// starved tells whether a lane has nothing, and more is known to be there.
func (s *lanes) starved() bool {
	for _, l := range s.all {
		if l.empty() && l.read < l.end {
			return true
		}
	}
	return false
}

func (l *lane) empty() bool { return len(l.queue) == 0 && len(l.raw) == 0 && !l.busy }

// put adds what was read of a lane, and returns how far it is behind its log.
func (s *lanes) put(l *lane, r Records) (lag int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.read, l.end, l.stalled = r.Next, r.End, false
	if len(r.Events) == 0 && l.empty() {
		l.next = r.Next // markers alone
	} else {
		l.raw = append(l.raw, part{r, 0, len(r.Events), time.Now()})
		s.held += len(r.Events)
		s.bytes += bytesOf(r.Events)
	}
	s.cond.Broadcast()
	return l.lag()
}

// bytesOf is roughly what events take: a client's record and what points to it is more than most events are.
func bytesOf(events []Event) int64 {
	n := int64(len(events)) * 350
	for i := range events {
		n += int64(len(events[i].Key) + len(events[i].Value))
	}
	return n
}

// undecoded waits for a lane that has something to be decoded, and little that is decoded. It is nil when ctx ends, or, with
// all, when there is nothing.
func (s *lanes) undecoded(ctx context.Context, all bool) (*lane, part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ctx.Err() == nil {
		enough := max(chunkLimit, ahead/max(1, len(s.all)))
		for _, l := range s.all {
			if len(l.raw) == 0 || l.decoded >= enough && !all {
				continue
			}
			l.busy = true
			x := &l.raw[0]
			some := *x
			some.to = min(some.to, some.from+chunkLimit)
			if x.from = some.to; x.from == x.to {
				l.raw = slices.Delete(l.raw, 0, 1)
			}
			return l, some
		}
		if all {
			break
		}
		s.cond.Wait()
	}
	return nil, part{}
}

// decode makes a chunk of a part.
func (j *Job) decode(l *lane, x part) *chunk {
	start := time.Now()
	events := x.records.Events[x.from:x.to]
	c := j.reading.chunk(j.schema, len(events))
	c.of = x
	if c.after = x.records.Next; x.to < len(x.records.Events) {
		c.after = events[len(events)-1].Position + 1
	}
	for i := range events {
		e := &events[i]
		c.at = append(c.at, e.Position)
		if reject := l.append(c.rows, e); reject != nil {
			c.rejects = append(c.rejects, score.Reject{Reject: *reject, Raw: e.Value, Key: e.Key})
			c.time, c.isRow = append(c.time, math.MinInt64), append(c.isRow, false)
			continue
		}
		c.time, c.isRow = append(c.time, j.timeOf(c.rows, c.rows.N-1)), append(c.isRow, true)
		c.places = append(c.places, e.Position)
		c.raw, c.keys = append(c.raw, e.Value), append(c.keys, e.Key)
	}
	score.Place(c.rows, l.number, c.places)
	j.monitor.Stage(monitor.Decode, time.Since(start))
	return c
}

// timeOf is when a transaction was, or a label known.
func (j *Job) timeOf(b *datasets.Batch, row int) int64 {
	if c := &b.Columns[j.time]; !c.IsNull(row) {
		return c.Ints[row]
	}
	if j.knownAt >= 0 && !b.Columns[j.knownAt].IsNull(row) {
		return b.Columns[j.knownAt].Ints[row]
	}
	return math.MinInt64
}

// chunk is an empty one.
func (s *lanes) chunk(schema *datasets.Schema, n int) *chunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := len(s.free); k > 0 {
		c := s.free[k-1]
		s.free = s.free[:k-1]
		c.rows.Reset()
		clear(c.raw)
		clear(c.keys)
		clear(c.rejects)
		c.at, c.time, c.isRow, c.places = c.at[:0], c.time[:0], c.isRow[:0], c.places[:0]
		c.raw, c.keys, c.rejects = c.raw[:0], c.keys[:0], c.rejects[:0]
		c.event, c.row, c.reject = 0, 0, 0
		return c
	}
	return &chunk{rows: datasets.NewBatch(schema, n)}
}

// keep takes a chunk that is not needed any more.
func (s *lanes) keep(c *chunk) {
	if len(s.free) < spare {
		s.free = append(s.free, c)
	}
}

// push puts a chunk into its lane.
func (s *lanes) push(l *lane, c *chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.busy = false
	if len(c.at) == 0 && len(l.queue) == 0 {
		l.next = max(l.next, c.after) // markers alone
		s.keep(c)
	} else {
		l.queue = append(l.queue, c)
		l.decoded += len(c.at)
	}
	s.cond.Broadcast()
}

type cutResult int

const (
	cutNothing cutResult = iota // nothing yet: time has passed
	cutSome
	cutEnd
)

// cut waits for events and moves up to limit of them into p, those of the earliest time first. A lane that is known to have
// more, of which nothing is there, is waited for a moment: else a partition that is read later would come late as a whole.
func (s *lanes) cut(ctx context.Context, p *piece, limit int) cutResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catchup = s.catchup && s.behind()
	if ctx.Err() != nil {
		return cutEnd
	}
	if s.held == 0 || s.outstanding() {
		if s.held == 0 && s.end && !s.stay {
			return cutEnd
		}
		s.cond.Wait()
		if s.held == 0 || s.outstanding() {
			return cutNothing
		}
	}
	s.waiting = time.Time{}
	p.begin(len(s.all)) // lanes may have come while it waited
	p.silent = s.catchup
	s.merge(p, limit)
	if p.events == 0 { // all that is there waits for lanes that are behind
		s.cond.Wait()
		return cutNothing
	}
	p.end()
	s.cond.Broadcast() // there is room
	return cutSome
}

// catchingUp tells whether lines are still kept back.
func (s *lanes) catchingUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catchup = s.catchup && s.behind()
	return s.catchup
}

// behind tells whether a lane has not come to its silent position yet.
func (s *lanes) behind() bool {
	behind := false
	for _, l := range s.all {
		switch {
		case len(l.queue) > 0 && l.queue[0].at[l.queue[0].event] >= l.silent:
			l.next = max(l.next, l.silent)
		case l.empty() && l.read >= l.silent:
			l.next = max(l.next, l.read)
		}
		behind = behind || l.next < l.silent
	}
	return behind
}

// outstanding tells whether a lane is to be waited for.
func (s *lanes) outstanding() bool {
	var missing []*lane
	for _, l := range s.all {
		switch {
		case len(l.queue) > 0:
		case len(l.raw) > 0 || l.busy:
			return true // it will be decoded in a moment
		case l.read < l.end && !l.stalled && !s.end && !s.full():
			missing = append(missing, l)
		}
	}
	switch {
	case missing == nil:
		return false
	case s.waiting.IsZero():
		s.waiting = time.Now()
		time.AfterFunc(patience, s.wake)
	case time.Since(s.waiting) >= patience:
		for _, l := range missing {
			l.stalled = true
		}
		return false
	}
	return true
}

// merge takes runs of events from the lane whose next event is the earliest. In one lane events keep their order, whatever
// their times are.
func (s *lanes) merge(p *piece, limit int) {
	for p.events < limit {
		best, first, second := -1, int64(math.MaxInt64), int64(math.MaxInt64)
		for i, l := range s.all {
			if len(l.queue) == 0 || s.catchup && l.next >= l.silent {
				continue
			}
			c := l.queue[0]
			switch t := c.time[c.event]; {
			case best < 0 || t < first:
				best, first, second = i, t, first
			case t < second:
				second = t
			}
		}
		if best < 0 {
			return
		}
		l := s.all[best]
		c := l.queue[0]
		n := 1
		for c.event+n < len(c.at) && p.events+n < limit && c.time[c.event+n] <= second {
			n++
		}
		if s.catchup {
			for n > 1 && c.at[c.event+n-1] >= l.silent {
				n--
			}
		}
		s.give(p, best, n)
		if s.catchup && !s.behind() {
			return
		}
	}
}

// give moves n events of a lane's first chunk into p.
func (s *lanes) give(p *piece, at, n int) {
	l := s.all[at]
	c := l.queue[0]
	p.span(at, l)
	p.add(c, n)
	s.held -= n
	l.decoded -= n
	l.folded = c.at[c.event-1]
	p.next(c.at[c.event-1] + 1)
	if c.event == len(c.at) {
		p.next(c.after)
		s.bytes -= bytesOf(c.of.records.Events[c.of.from:c.of.to])
		l.queue = slices.Delete(l.queue, 0, 1)
		p.done = append(p.done, c)
		for len(l.queue) > 0 && len(l.queue[0].at) == 0 { // markers alone
			p.next(l.queue[0].after)
			p.done = append(p.done, l.queue[0])
			l.queue = slices.Delete(l.queue, 0, 1)
		}
	}
	l.next = p.spans[p.current].To
	l.handed = l.next
}

// moved are positions that have moved since they were handed on.
func (s *lanes) moved() []place {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []place
	for _, l := range s.all {
		if l.empty() && l.next > l.handed && l.next >= l.silent {
			l.handed = l.next
			out = append(out, place{l, l.next})
		}
	}
	return out
}

// next are the positions to fold next, by partition.
func (s *lanes) next() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int64{}
	for _, l := range s.all {
		out[l.name] = l.next
	}
	return out
}

// given are the positions that were handed on, by partition: behind next where that has moved over markers alone.
func (s *lanes) given() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int64{}
	for _, l := range s.all {
		out[l.name] = l.handed
	}
	return out
}

// reached notes how far a lane's lines are delivered.
func (s *lanes) reached(l *lane, next int64, m *monitor.Monitor) {
	s.mu.Lock()
	l.reached = max(l.reached, next)
	lag, known := l.lag(), l.end >= 0
	s.mu.Unlock()
	m.Position(l.name, next)
	if known {
		m.Lag(l.name, lag)
	}
}

// lag is how many positions of a lane's log are not delivered; of a file, whose end (-1) is not known, it says nothing.
func (l *lane) lag() int64 { return max(0, l.end-l.reached) }

// release gives back what the piece was made of.
func (s *lanes) release(p *piece, src Source) {
	for _, c := range p.done {
		src.Recycle(c.of.records, c.of.from, c.of.to)
		c.of = part{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range p.done {
		s.keep(c)
	}
	clear(p.done)
	p.done = p.done[:0]
}
