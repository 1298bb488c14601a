package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/varint"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/state"
)

// recover brings the scorer to where the sink's lines end.
func (j *Job) recover(ctx context.Context) error {
	start := time.Now()
	if _, err := j.o.Mapping.NewEventDecoder(""); err != nil {
		return err
	}
	c, err := j.store.Checkpoint()
	if err != nil {
		return err
	}
	j.generation = j.scorer.Generation()
	var partitions []Partition
	committed := map[string]int64{}
	if j.o.Source != nil {
		partitions = j.o.Source.Partitions()
		if committed, err = j.o.Source.Committed(ctx); err != nil {
			return err
		}
	}
	next, numbers := j.scorer.Positions(), j.o.Numbers
	fresh := c == nil
	if !fresh {
		if err := j.restore(c); err != nil {
			return err
		}
		if imported(j.store, c, partitions) {
			fresh, next, numbers = true, c.Next, c.Partitions
		}
	}
	if fresh {
		if c, err = j.begin(next, numbers, partitions, committed); err != nil {
			return err
		}
	}
	entries, dropped, err := j.sort(c, committed)
	if err != nil {
		return err
	}
	if err := j.takeUp(c, partitions); err != nil {
		return err
	}
	if err := j.notBehind(len(entries)+len(dropped), committed); err != nil {
		return err
	}
	if err := j.claim(ctx, committed); err != nil {
		return err
	}
	if err := j.settle(c, entries, dropped); err != nil {
		return err
	}
	if j.o.Source != nil {
		if err := j.o.Source.Seek(ctx, j.reading.next()); err != nil {
			return err
		}
	}
	folded, err := j.again(ctx, entries)
	if err != nil {
		return err
	}
	j.expect(committed)
	j.monitor.Health.Set("state", nil)
	j.log.Info("the state is where the sink's lines end", "checkpoint", c.Saved, "entries", len(entries), "events", folded,
		"dropped", len(dropped), "seconds", time.Since(start).Seconds())
	return nil
}

// imported tells a checkpoint that was put into the directory, which no job has gone on from yet, from one of a job.
func imported(s *state.Store, c *state.Checkpoint, partitions []Partition) bool {
	return len(c.Logs) == 0 && s.Last() == 0 && len(partitions) > 0
}

// Check refuses a new state that Open would refuse, before the sink is opened: a job that is started by mistake should not
// end the one that works. Of the options it needs Scorer, Store, Source, FromEnd and Rebuild.
func Check(ctx context.Context, o Options) error {
	c, err := o.Store.Checkpoint()
	if err != nil || o.Source == nil {
		return err
	}
	partitions, warm := o.Source.Partitions(), o.Scorer.Positions()
	if c != nil {
		if !imported(o.Store, c, partitions) {
			return nil
		}
		warm = c.Next
	}
	committed, err := o.Source.Committed(ctx)
	if err != nil {
		return err
	}
	_, err = o.beginnings(warm, partitions, committed)
	return err
}

// beginnings are where a new state begins in each partition. Warm are the positions of what it is begun from.
func (o *Options) beginnings(warm map[string]int64, partitions []Partition, committed map[string]int64) (map[string]int64, error) {
	next := map[string]int64{}
	maps.Copy(next, warm)
	delete(next, fileSink) // of another job's file
	maps.DeleteFunc(next, func(name string, _ int64) bool { return features.IsDataPosition(name) })
	for _, p := range partitions {
		at, isWarm := warm[p.Name]
		done, known := committed[p.Name]
		switch {
		case isWarm && at < p.Start:
			return nil, fmt.Errorf("%s begins at position %d, and the state that the job is to start from goes on at %d: what lies "+
				"between has expired: make a state that reaches further (onmart features --state-out)", p.Name, p.Start, at)
		case isWarm && known && done < at:
			return nil, fmt.Errorf("%s: lines were delivered up to position %d, and the state that the job is to start from has the "+
				"events up to %d: those between would get no line; start from an older state, or set the group's offset to %d",
				p.Name, done, at, at)
		case isWarm:
		case known && p.Start > 0:
			return nil, fmt.Errorf("%s: lines were delivered up to position %d by a job whose state is not here, and the log begins at %d, "+
				"so that the state cannot be made again from it: give the state that belongs to it (--state), start from a backfill "+
				"with its positions (--warm-from), or begin anew under another group (group=NAME in the source) and --job",
				p.Name, done, p.Start)
		case known && !o.Rebuild:
			return nil, fmt.Errorf("%s: lines were delivered up to position %d by a job whose state is not here: give the state that belongs "+
				"to it (--state), or what it was begun from, a copy or a backfill with its positions (--warm-from); a job that began "+
				"at the first event of its topics, without a backfill, can make its state again from them: start once with --rebuild",
				p.Name, done)
		case known:
			next[p.Name] = 0
		case o.FromEnd:
			next[p.Name] = p.End
		default:
			next[p.Name] = p.Start
		}
	}
	return next, nil
}

// begin makes the first checkpoint of a new state, of the scorer as it is: it holds where each partition begins, for good.
// Warm are the positions, and numbers those of the partitions, in the state that the scorer has.
func (j *Job) begin(warm map[string]int64, numbers map[string]int32, partitions []Partition, committed map[string]int64) (*state.Checkpoint, error) {
	if j.file != nil && j.file.Length() > 0 {
		return nil, errors.New("the sink is a file that has lines already, and the state is new: give the state that belongs to it " +
			"(--state), or move the file away")
	}
	next, err := j.o.beginnings(warm, partitions, committed)
	if err != nil {
		return nil, err
	}
	maps.Copy(j.numbers, numbers)
	for _, p := range partitions {
		j.number(p.Name)
		j.logs[p.Name] = p.Log
	}
	clear(j.fresh)
	j.last = j.store.Last()
	c := &state.Checkpoint{Entry: j.last, Next: next, Partitions: maps.Clone(j.numbers), Logs: maps.Clone(j.logs),
		Parts: map[string]*state.Part{}}
	start := time.Now()
	c.Counts, err = j.scorer.Capture(state.Engine, func(name string) io.Writer {
		c.Parts[name] = &state.Part{}
		return c.Parts[name]
	})
	if err != nil {
		return nil, err
	}
	j.checkpoints.paused = time.Since(start)
	if err := j.store.Save(c); err != nil {
		return nil, err
	}
	c.Saved = time.Now()
	return c, nil
}

// restore gives the scorer a checkpoint's state.
func (j *Job) restore(c *state.Checkpoint) error {
	part := func(name string) io.Reader {
		if p := c.Parts[name]; p != nil {
			return p.Reader()
		}
		return nil
	}
	if c.Parts[state.Engine] == nil {
		return errors.New("the state has nothing of the features: it is damaged; move it away and start from a backfill")
	}
	positions := map[string]int64{}
	if at, ok := c.Next[score.HTTPSource]; ok {
		positions[score.HTTPSource] = at
	}
	start := time.Now()
	defer func() { j.checkpoints.paused = time.Since(start) }() // the next one will take about as long
	if err := j.scorer.Restore(state.Engine, part, c.Counts, positions); err != nil {
		return fmt.Errorf("the state of %s: %w", c.Saved.Format(time.RFC3339), err)
	}
	return nil
}

// takeUp makes the lanes.
func (j *Job) takeUp(c *state.Checkpoint, partitions []Partition) error {
	maps.Copy(j.logs, c.Logs)
	maps.Copy(j.elsewhere, c.Next)
	for _, p := range partitions {
		if old, ok := j.logs[p.Name]; ok && old != "" && p.Log != "" && old != p.Log {
			return fmt.Errorf("%s was deleted and made again since the state was saved (its id was %s and is %s): its positions count from 0 "+
				"again; start with a new --state and --job", p.Name, old, p.Log)
		}
		j.logs[p.Name] = p.Log
		at, ok := c.Next[p.Name]
		if !ok {
			at = p.Start // it is new
		}
		l := j.newLane(p.Name, at)
		l.end = p.End
		j.reading.add(l)
		delete(j.elsewhere, p.Name)
	}
	for name := range j.elsewhere {
		if name != score.HTTPSource && name != fileSink {
			j.log.Info("a source of the state is not read any more", "source", name, "next", j.elsewhere[name])
		}
	}
	if _, ok := c.Next[score.HTTPSource]; ok {
		delete(j.elsewhere, score.HTTPSource)
	}
	j.length = c.Next[fileSink]
	delete(j.elsewhere, fileSink)
	j.last, j.checkpoints.entry = j.store.Last(), c.Entry
	return nil
}

// sort reads the journal and the numbers of partitions, and tells the entries whose lines were delivered, and those that no line is of, from the others.
func (j *Job) sort(c *state.Checkpoint, committed map[string]int64) (entries []*state.Entry, dropped []uint64, err error) {
	maps.Copy(j.numbers, c.Partitions)
	lost := false
	err = j.store.Replay(func(e *state.Entry) error {
		if len(e.Spans) > 0 {
			if lost = lost || !j.delivered(e, committed); lost {
				dropped = append(dropped, e.N)
				return nil
			}
		}
		maps.Copy(j.numbers, e.Partitions)
		entries = append(entries, e)
		return nil
	})
	return entries, dropped, err
}

// notBehind refuses a sink that has less than the state: what lies between would get no line.
func (j *Job) notBehind(entries int, committed map[string]int64) error {
	if j.file != nil {
		if n := j.file.Length(); n < j.length {
			return fmt.Errorf("the sink's file has %d bytes, and it had %d when the state was saved: it was cut off or replaced; restore it, "+
				"or start with a new --state and file", n, j.length)
		}
		return nil
	}
	if !j.commits {
		return nil // the checkpoint was made after its lines were delivered: positions that follow later are for operators
	}
	anyKnown := false
	for _, l := range j.reading.all {
		done, known := committed[l.name]
		if anyKnown = anyKnown || known; known && done < l.next {
			return fmt.Errorf("%s: the group's offset is %d, and the state has the events up to %d, whose lines were delivered: the offset "+
				"was set back; set it to %d, or start with a new --state to score those events again", l.name, done, l.next, l.next)
		}
	}
	if !anyKnown && len(j.reading.all) > 0 && entries > 0 {
		return errors.New("the group has no offsets, and the state has events whose lines may have been delivered: the broker has " +
			"forgotten them (offsets.retention.minutes) or they were deleted; set them to one after the last event that has a line, or " +
			"start with a new --state and --job")
	}
	return nil
}

// claim notes where partitions begin that the sink knows no position of: one that knows none later has lost them.
func (j *Job) claim(ctx context.Context, committed map[string]int64) error {
	if !j.commits {
		return nil
	}
	first := map[string]int64{}
	for _, l := range j.reading.all {
		if _, known := committed[l.name]; !known {
			first[l.name] = l.next
		}
	}
	return j.o.Sink.Deliver(ctx, nil, first, func() error { return nil })
}

// delivered tells whether the lines of an entry are with the sink.
func (j *Job) delivered(e *state.Entry, committed map[string]int64) bool {
	if j.file != nil {
		return e.Sink <= j.file.Length()
	}
	for _, s := range e.Spans {
		if committed[s.Source] < s.To {
			return false
		}
	}
	return true
}

// settle drops what was not delivered, also from a file, and puts the lanes to where folding again begins.
func (j *Job) settle(c *state.Checkpoint, entries []*state.Entry, dropped []uint64) error {
	if len(dropped) > 0 {
		if err := j.store.Drop(dropped...); err != nil {
			return err
		}
	}
	if j.file == nil {
		return nil
	}
	for _, e := range slices.Backward(entries) {
		if len(e.Spans) > 0 {
			j.length = e.Sink
			break
		}
	}
	return j.file.Truncate(j.length)
}

// again folds the events of entries in the order in which they were folded before.
func (j *Job) again(ctx context.Context, entries []*state.Entry) (events int, err error) {
	p := newPiece(j.schema)
	told := time.Now()
	for i, e := range entries {
		if err := ctx.Err(); err != nil {
			return events, err
		}
		if len(e.Spans) == 0 {
			n, err := j.directAgain(e)
			if err != nil {
				return events, fmt.Errorf("entry %d of the journal: %w", e.N, err)
			}
			events += n
			continue
		}
		if err := j.gather(ctx, p, e); err != nil {
			return events, err
		}
		if p.events > 0 {
			j.scratch.Reset()
			if err := j.scorer.Again(p.ev, &j.scratch); err != nil {
				return events, err
			}
		}
		events += p.events
		j.reading.release(p, j.o.Source)
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			j.log.Info("folding again what was delivered before", "entries", i+1, "of", len(entries), "events", events)
		}
	}
	return events, nil
}

// gather reads the events of an entry in the order that it says.
func (j *Job) gather(ctx context.Context, p *piece, e *state.Entry) error {
	s := &j.reading
	at := make([]int, len(e.Spans)) // by span: its lane
	for i, span := range e.Spans {
		at[i] = slices.IndexFunc(s.all, func(l *lane) bool { return l.name == span.Source })
		if at[i] < 0 {
			return fmt.Errorf("the journal has events of %s, which this job does not read any more: start once with all sources it had", span.Source)
		}
		if l := s.all[at[i]]; l.folded >= span.From {
			return fmt.Errorf("entry %d of the journal has %s from position %d, and that was folded up to %d: the state is damaged; move it "+
				"away and start from a backfill", e.N, span.Source, span.From, l.folded)
		}
	}
	p.begin(len(s.all))
	order, err := orderOf(e)
	if err != nil {
		return err
	}
	for _, run := range order {
		span := e.Spans[run.span]
		l := s.all[at[run.span]]
		for left := run.events; left != 0; {
			if len(l.queue) == 0 {
				if left < 0 && l.read >= span.To {
					break // a span alone, up to its end
				}
				if err := j.more(ctx, l, span); err != nil {
					return err
				}
				continue
			}
			c := l.queue[0]
			n := 0
			for c.event+n < len(c.at) && (left < 0 || n < left) && c.at[c.event+n] < span.To {
				n++
			}
			if n == 0 && left < 0 {
				break
			}
			if n == 0 {
				return fmt.Errorf("%s: positions %d to %d held more events when they were folded than they do now: the log was compacted or "+
					"replaced; a source of events must keep all (cleanup.policy=delete); start with a new --state", l.name, span.From, span.To)
			}
			s.mu.Lock()
			s.give(p, at[run.span], n)
			s.mu.Unlock()
			if left > 0 {
				left -= n
			}
		}
	}
	for i, span := range e.Spans {
		l := s.all[at[i]]
		if len(l.queue) > 0 && l.queue[0].at[l.queue[0].event] < span.To {
			return fmt.Errorf("%s: positions %d to %d hold more events than when they were folded: the log was replaced; start with a new "+
				"--state", l.name, span.From, span.To)
		}
		l.next = max(l.next, span.To)
	}
	p.end()
	return nil
}

// run is consecutive events of one span; a negative number is all of them.
type run struct{ span, events int }

// orderOf reads an entry's order.
func orderOf(e *state.Entry) ([]run, error) {
	if len(e.Order) == 0 {
		var all []run
		for i := range e.Spans {
			all = append(all, run{i, -1})
		}
		return all, nil
	}
	var all []run
	r := varint.Reader{B: e.Order}
	for len(r.B) > 0 {
		x := run{int(r.Uint()), int(r.Uint())}
		if r.Bad || x.span < 0 || x.span >= len(e.Spans) || x.events <= 0 {
			return nil, fmt.Errorf("entry %d of the journal cannot be read: the state is damaged; move it away and start from a backfill", e.N)
		}
		all = append(all, x)
	}
	return all, nil
}

// more reads until a lane has events.
func (j *Job) more(ctx context.Context, l *lane, span state.Span) error {
	for len(l.queue) == 0 && l.read < span.To {
		records, err := j.o.Source.Poll(ctx, pollLimit)
		j.take(records)
		j.decodeNow(ctx)
		if err == io.EOF && len(l.queue) == 0 && l.read < span.To {
			return fmt.Errorf("%s ends before position %d, up to which its lines were delivered: it was cut off; restore it, or start with a new "+
				"--state", l.name, span.To)
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	if len(l.queue) == 0 {
		return fmt.Errorf("%s: positions %d to %d held more events when they were folded than they do now: the log was compacted or replaced; "+
			"start with a new --state", l.name, span.From, span.To)
	}
	return nil
}

// catchUp is the readiness check of a job that folds what was delivered beyond its state.
const catchUp = "catch-up"

// caughtUp notes that the lanes have come to where the sink's lines end.
func (j *Job) caughtUp() {
	if j.catching && !j.reading.catchingUp() {
		j.catching = false
		j.monitor.Health.Set(catchUp, nil)
		j.log.Info("what was delivered before is in the state again")
	}
}

// expect has the lanes fold without lines what was delivered beyond the journal.
func (j *Job) expect(committed map[string]int64) {
	var names []string
	for _, l := range j.reading.all {
		if done, ok := committed[l.name]; ok && j.file == nil {
			l.silent = done
		}
		if l.next < l.silent {
			names = append(names, l.name)
			j.reading.catchup = true
		}
		l.handed = l.next
		j.reading.reached(l, max(l.next, l.silent), j.monitor) // lag is told before the first event comes
	}
	if names != nil {
		j.catching = true
		j.monitor.Health.Set(catchUp, errors.New("events whose lines were delivered before are folded first: what is scored until then "+
			"does not know them"))
		j.log.Warn("lines were delivered beyond what the state has: those events are folded without lines first",
			"sources", strings.Join(names, ", "))
	}
}
