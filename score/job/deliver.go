package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/deadletter"
	"github.com/onmart/onmart/score/monitor"
)

// parcel is the lines of one piece on their way to the sink, and where the partitions are once they are there.
type parcel struct {
	lines   score.Lines
	out     []Line
	of      []origin // by line
	keys    []byte
	places  []place
	size    int64
	arrived time.Time // of the oldest event
}

// origin is the event that a line is of.
type origin struct {
	source   string
	position int64
	cause    monitor.Cause
}

// place is a position that a partition has come to.
type place struct {
	lane *lane
	next int64
}

// fill makes lines for the sink of what the scorer wrote. Keys are copied: the records they came in are used again.
func (p *parcel) fill(from *piece, letters bool) {
	p.out, p.of, p.places, p.keys, p.size = p.out[:0], p.of[:0], p.places[:0], p.keys[:0], 0
	p.arrived = from.arrived
	for i := range from.spans {
		// What was delivered before is noted already, and may not be set back.
		if l, to := from.lanes[i], from.spans[i].To; to >= l.silent {
			p.places = append(p.places, place{l, to})
		}
	}
	n := 0
	for i := range p.lines.Lines {
		n += len(p.lines.Lines[i].Key)
	}
	p.keys = slices.Grow(p.keys, n)
	start := 0
	for i := range p.lines.Lines {
		l := &p.lines.Lines[i]
		out := Line{Value: p.lines.Bytes[start : l.End-1 : l.End-1]}
		start = l.End
		if l.Key != nil {
			at := len(p.keys)
			p.keys = append(p.keys, l.Key...)
			out.Key = p.keys[at:len(p.keys):len(p.keys)]
		}
		of := origin{source: l.Source, position: l.Position}
		if l.Fault != nil {
			of.cause = l.Fault.Cause
		}
		if l.Fault != nil && letters {
			out.Dead = true
			out.Value = deadletter.Append(nil, &deadletter.Letter{Source: l.Source, Position: l.Position, Column: l.Fault.Column,
				Reason: l.Fault.Reason, Key: l.Key, Event: slices.Clone(l.Raw), Time: time.Now()})
		}
		p.size += int64(len(out.Value)) + 1
		p.out, p.of = append(p.out, out), append(p.of, of)
		l.Raw, l.Key = nil, nil
	}
}

// empty is a parcel of positions alone.
func (p *parcel) empty(places []place) {
	p.lines.Reset()
	p.out, p.of, p.size, p.arrived = p.out[:0], p.of[:0], 0, time.Time{}
	p.places = append(p.places[:0], places...)
}

// bytes is how long a file gets by the parcel.
func (p *parcel) bytes() int64 { return p.size }

// outbox holds the parcels that wait for the delivery before theirs.
type outbox struct {
	mu        sync.Mutex
	cond      sync.Cond
	parcels   []*parcel
	free      []*parcel
	size      int64
	closed    bool
	given     int64 // parcels so far
	delivered int64 // of them
}

const (
	// outboxBytes and outboxParcels bound the lines that wait, and the memory that parcels keep; the scoring waits for room,
	// and its next piece is the larger.
	outboxBytes   = 32 << 20
	outboxParcels = 64
	// deliveryBytes bounds one delivery: large enough that what a transaction costs by itself is small, and small enough that
	// it is over before a broker's timeout.
	deliveryBytes = 8 << 20
)

func (b *outbox) init() { b.cond.L = &b.mu }

// parcel is an empty one, once there is room.
func (b *outbox) parcel() *parcel {
	b.mu.Lock()
	defer b.mu.Unlock()
	for (b.size > outboxBytes || b.given-b.delivered >= outboxParcels) && !b.closed {
		b.cond.Wait()
	}
	if n := len(b.free); n > 0 {
		p := b.free[n-1]
		b.free = b.free[:n-1]
		return p
	}
	return &parcel{}
}

func (b *outbox) put(p *parcel) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.given++
	b.parcels = append(b.parcels, p)
	b.size += p.size
	b.cond.Broadcast()
}

// close says that no more parcels come.
func (b *outbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.cond.Broadcast()
}

// next waits for parcels; none come after none.
func (b *outbox) next(ctx context.Context, into []*parcel) ([]*parcel, error) {
	defer context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.cond.Broadcast()
	})()
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.parcels) == 0 && !b.closed && ctx.Err() == nil {
		b.cond.Wait()
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	n, size := 0, int64(0)
	for n < len(b.parcels) && (n == 0 || size+b.parcels[n].size <= deliveryBytes) {
		size += b.parcels[n].size
		n++
	}
	into = append(into[:0], b.parcels[:n]...)
	b.parcels = slices.Delete(b.parcels, 0, n)
	return into, nil
}

// done takes delivered parcels back.
func (b *outbox) done(parcels []*parcel) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range parcels {
		b.size -= p.size
	}
	b.delivered += int64(len(parcels))
	b.free = append(b.free, parcels...)
	b.cond.Broadcast()
}

// mark is how many parcels there were so far.
func (b *outbox) mark() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.given
}

// until waits until so many parcels are delivered; false where they will not be.
func (b *outbox) until(ctx context.Context, mark int64) bool {
	defer context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.cond.Broadcast()
	})()
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.delivered < mark && ctx.Err() == nil {
		b.cond.Wait()
	}
	return b.delivered >= mark
}

// deliver hands parcels to the sink until the outbox is closed and empty: nil, or ctx ends: its error.
func (j *Job) deliver(ctx context.Context) error {
	var (
		parcels []*parcel
		lines   []Line
		of      []origin
	)
	for {
		var err error
		if parcels, err = j.out.next(ctx, parcels); err != nil || len(parcels) == 0 {
			return err
		}
		start := time.Now()
		lines, of = lines[:0], of[:0]
		next := map[string]int64{}
		arrived := time.Time{}
		for _, p := range parcels {
			lines, of = append(lines, p.out...), append(of, p.of...)
			for _, at := range p.places {
				next[at.lane.name] = at.next
			}
			if len(p.out) > 0 && (arrived.IsZero() || p.arrived.Before(arrived)) {
				arrived = p.arrived
			}
		}
		if err := j.deliverLines(ctx, lines, of, next); err != nil {
			return err
		}
		j.account(parcels, lines, of, start, arrived)
		j.out.done(parcels)
	}
}

// deliverLines delivers, with dead letters in place of the lines that the sink cannot take.
func (j *Job) deliverLines(ctx context.Context, lines []Line, of []origin, next map[string]int64) error {
	noted := !j.commits && j.o.Source != nil && len(next) > 0
	var safe chan error
	if noted && j.file == nil {
		// These positions are noted behind the lines. Ahead of the journal they may not be either: the next start would fold what
		// lies between without lines, in an order of its own.
		safe = make(chan error, 1)
		go func() { safe <- j.safe() }()
	}
	for {
		err := j.o.Sink.Deliver(ctx, lines, next, j.safe)
		var refused *Refused
		switch {
		case errors.As(err, &refused):
			j.monitor.Error(monitor.SinkFault)
			if err := j.replace(lines, of, refused); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		if safe != nil {
			if err := <-safe; err != nil {
				return err
			}
		}
		if noted {
			return j.o.Source.Commit(next)
		}
		return nil
	}
}

// safe makes the journal durable. What the sink has must be in it: else the next start could not fold it in the same order.
func (j *Job) safe() error {
	err := j.store.Sync()
	if err != nil {
		j.monitor.Error(monitor.StateFault)
	}
	return err
}

// replace puts short letters, or lines that say so, in the place of lines that are too large.
func (j *Job) replace(lines []Line, of []origin, refused *Refused) error {
	for _, i := range refused.Lines {
		if len(lines[i].Value) < shortLetter {
			return fmt.Errorf("%s, position %d: the sink does not take a line of %d bytes: %w", of[i].source, of[i].position,
				len(lines[i].Value), refused.Err)
		}
		reason := fmt.Sprintf("its line has %d bytes: %v", len(lines[i].Value), refused.Err)
		if lines[i].Dead {
			reason = fmt.Sprintf("%s, and its letter of %d bytes is too large: %v", of[i].cause, len(lines[i].Value), refused.Err)
		}
		of[i].cause = monitor.TooLarge
		key := lines[i].Key
		if len(key) > shortLetter {
			key = nil
		}
		lines[i] = Line{Key: key, Dead: j.o.DeadLetters, Value: score.ErrorLine(of[i].source, of[i].position, "", reason)}
		if j.o.DeadLetters {
			lines[i].Value = deadletter.Append(nil, &deadletter.Letter{Source: of[i].source, Position: of[i].position, Key: key,
				Reason: reason, Time: time.Now()})
		}
	}
	return nil
}

// shortLetter is more than a letter without its event has.
const shortLetter = 1 << 10

// account tells the metrics what was delivered: the lines as the sink took them, letters in place of others among them.
func (j *Job) account(parcels []*parcel, lines []Line, of []origin, start, arrived time.Time) {
	now := time.Now()
	j.monitor.Stage(monitor.Deliver, now.Sub(start))
	if len(lines) > 0 {
		j.monitor.Delivered(len(lines), now.Sub(arrived))
	}
	for i := range lines {
		if lines[i].Dead {
			j.monitor.DeadLetter(of[i].cause)
		}
	}
	for _, p := range parcels {
		for _, at := range p.places {
			j.reading.reached(at.lane, at.next, j.monitor)
		}
	}
}
