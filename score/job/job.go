// Package job is the loop of a scoring job that survives: events from the partitions of a log through a scorer to a sink,
// with the state kept so that a process that was killed at any moment goes on as if nothing had been.
//
// What enters: records of a Source, requests by Direct, an open state.Store, a scorer whose schema is score.Placed. What
// leaves: lines in a Sink, in the order in which their events were folded, and positions with them; entries of the
// journal; checkpoints.
//
// Five goroutines: one reads, one decodes, one merges the partitions by event time, folds and writes the journal, one
// delivers, one saves checkpoints. What was folded while a delivery was under way goes into the next one, so deliveries are
// as large as the sink is slow; queues between them are bounded in events and bytes.
//
// A position counts as done when its lines are with the sink. The journal has every fold before that, so that the state can
// be folded again in the same order; entries whose lines did not get to the sink are dropped at the start, and their events
// are scored again.
package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/monitor"
	"github.com/onmart/onmart/score/state"
)

// Event is one record of a log.
type Event struct {
	Position   int64
	Key, Value []byte
}

// Records are consecutive events of one partition.
type Records struct {
	Source string // the partition's name
	Events []Event
	Next   int64 // position to read after these
	End    int64 // one after the last position that is there, as far as known
	Handle any   // the source's own, for Recycle
}

// Partition is one log of a source. Positions ascend in it, with gaps.
type Partition struct {
	Name       string
	Log        string // another one where the log was deleted and made again under its name; empty where that cannot be told
	Start, End int64  // first position that is there, and the one after the last
}

// Source is a log in partitions, or one. Its methods are for one goroutine, but for Commit.
type Source interface {
	Partitions() []Partition
	// Committed is where the lines of earlier processes end, where the log keeps that.
	Committed(ctx context.Context) (map[string]int64, error)
	Seek(ctx context.Context, next map[string]int64) error
	// Poll waits for events; io.EOF says that there will be no more. Partitions that were not there at the start may turn
	// up in its results. Recycle gives events from..to back; what Poll returns is valid until then.
	Poll(ctx context.Context, limit int) ([]Records, error)
	Recycle(r Records, from, to int)
	// Commit notes positions, for operators to see and for Committed, soon.
	Commit(next map[string]int64) error
	Close() error
}

// Line is one line for the sink.
type Line struct {
	Key, Value []byte
	Dead       bool // a dead letter, for the place of those
}

// Sink takes lines.
type Sink interface {
	// Deliver returns nil when all lines are there, and next is noted where Commits. *Refused says which lines it cannot
	// take; none is there then. Faults that pass are retried inside. ready makes the journal safe: a sink by which the next
	// start tells what was delivered does not complete before it has returned nil.
	Deliver(ctx context.Context, lines []Line, next map[string]int64, ready func() error) error
	// Commits tells whether lines and positions are noted together.
	Commits() bool
	Close() error
}

// Length is implemented by sinks that are a file, where what was delivered is told by how long it is.
type Length interface {
	Length() int64
	Truncate(n int64) error
}

// Refused says which lines a sink cannot take.
type Refused struct {
	Lines []int // ascending
	Err   error
}

func (e *Refused) Error() string { return e.Err.Error() }
func (e *Refused) Unwrap() error { return e.Err }

// Options of a Job. The first group is required; Source may be nil where there is only Direct.
type Options struct {
	Scorer  *score.Scorer
	Mapping *datasets.Mapping // whose LogSchema, Placed, is the scorer's
	Store   *state.Store
	Source  Source
	Sink    Sink
	Monitor *monitor.Monitor
	Log     *slog.Logger

	// Labels tells which partitions hold labels alone.
	Labels func(source string) bool
	// Stock tells which partitions hold events of stock alone; the mappings of those have their columns.
	Stock func(source string) bool
	// Stay goes on for Direct after the source has ended.
	Stay bool
	// Numbers that sources have in the state that a new job starts from: features order events of one instant by them.
	Numbers map[string]int32
	// Mappings are those of partitions whose events have other fields than Mapping says; their columns are among its. It is
	// nil for Mapping.
	Mappings func(source string) *datasets.Mapping
	// Rebuild lets a new state be made again from the start of a log whose lines were delivered, which is right only for a
	// job that began there and with this state.
	Rebuild bool
	// FromEnd begins partitions that nothing is known of at their end instead of their start.
	FromEnd bool
	// DeadLetters: events that cannot be scored go to the sink as dead letters instead of as lines that say so.
	DeadLetters bool
	// Batch is the most events that are folded together; 0 is 4096.
	Batch int
	// CheckpointEvery is the least time between checkpoints; 0 is 10 seconds. They are rarer where one holds the scoring up
	// for more than a two hundredth of it.
	CheckpointEvery time.Duration
	// Drain is how long deliveries may take after the context's end; 0 is 10 seconds.
	Drain time.Duration
}

// Job is a job that was opened. Run runs it once.
type Job struct {
	o       Options
	scorer  *score.Scorer
	store   *state.Store
	monitor *monitor.Monitor
	log     *slog.Logger
	schema  *datasets.Schema
	time    int // columns of the schema
	knownAt int
	commits bool // the sink notes positions with lines
	file    Length

	reading  lanes
	catching bool // of what was delivered before, by foldAll

	// fold guards the scorer together with the journal: what is folded and what is written of it have one order.
	fold        sync.Mutex
	last        uint64 // newest entry
	numbers     map[string]int32
	fresh       map[string]int32  // numbers that no entry has told of yet
	logs        map[string]string // by source
	elsewhere   map[string]int64  // positions of sources that are not read now
	length      int64             // of a file sink, once all lines so far are in it
	direct      *inline
	scratch     score.Lines
	generation  int64
	checkpoints checkpoints

	out outbox
}

const (
	defaultBatch      = 4096
	defaultCheckpoint = 10 * time.Second
	defaultDrain      = 10 * time.Second
	// checkpointShare is how many times longer the job goes on than the last checkpoint held it up.
	checkpointShare = 200
)

// Open brings the state to where the sink's lines end: the checkpoint, the journal's entries that were delivered, and what
// was delivered beyond them. It refuses a state that is ahead of the sink, and a log that was cut off past what the state
// needs, with what to do. With a new store the scorer's state at hand is the beginning.
func Open(ctx context.Context, o Options) (*Job, error) {
	if o.Batch == 0 {
		o.Batch = defaultBatch
	}
	if o.CheckpointEvery == 0 {
		o.CheckpointEvery = defaultCheckpoint
	}
	if o.Drain == 0 {
		o.Drain = defaultDrain
	}
	if o.Mappings == nil {
		o.Mappings = func(string) *datasets.Mapping { return nil }
	}
	if o.Labels == nil {
		o.Labels = func(string) bool { return false }
	}
	if o.Stock == nil {
		o.Stock = func(string) bool { return false }
	}
	schema := score.Placed(o.Mapping.LogSchema())
	j := &Job{
		o: o, scorer: o.Scorer, store: o.Store, monitor: o.Monitor, log: o.Log, schema: schema,
		time: schema.Index(datasets.TransDatetime), knownAt: schema.Index(datasets.KnownAt),
		commits: o.Sink != nil && o.Sink.Commits(), numbers: map[string]int32{}, fresh: map[string]int32{},
		logs: map[string]string{}, elsewhere: map[string]int64{},
	}
	j.file, _ = o.Sink.(Length)
	j.reading.init()
	j.reading.stay = o.Stay
	j.out.init()
	j.checkpoints.init()
	return j, j.recover(ctx)
}

// number is by which features order the events of a source among others of one instant. It is given once and for all; 0
// is left to events of backfills, which know no partitions.
func (j *Job) number(source string) int32 {
	n, ok := j.numbers[source]
	if !ok {
		for _, m := range j.numbers {
			n = max(n, m)
		}
		n++
		j.numbers[source], j.fresh[source] = n, n
	}
	return n
}

// Run works until the source ends, or ctx: it delivers what was folded then, and saves a checkpoint. An error says why it
// stopped before; what was delivered is known to the next Open.
func (j *Job) Run(ctx context.Context) (err error) {
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	delivering, stopDelivering := context.WithCancel(context.WithoutCancel(ctx))
	defer stopDelivering()
	defer context.AfterFunc(reading, j.reading.wake)()
	// A source that ends is delivered to its end; one that is stopped, or fails, as far as that goes in time.
	drain := func() { time.AfterFunc(j.o.Drain, stopDelivering) }
	defer context.AfterFunc(ctx, drain)()
	var (
		all    sync.WaitGroup
		mu     sync.Mutex
		errs   []error
		failed = func(err error) {
			if err != nil && !errors.Is(err, context.Canceled) {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
				drain()
			}
			stopReading()
		}
	)
	if j.o.Source != nil {
		all.Go(func() {
			// The end of the source is that of the job only where it does not stay: the folding knows when.
			if err := j.read(reading); err != nil {
				failed(err)
			}
		})
		all.Go(func() { j.decodeAll(reading) })
	} else {
		j.reading.finish()
	}
	var delivered error
	var delivery sync.WaitGroup
	delivery.Go(func() {
		if delivered = j.deliver(delivering); delivered != nil {
			failed(delivered)
			j.out.close()
			stopDelivering() // nothing waits for it any more
		}
	})
	all.Go(func() { failed(j.checkpoints.run(delivering, j)) })
	err = j.foldAll(reading)
	failed(err)
	j.out.close()
	delivery.Wait()
	j.checkpoints.close()
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	switch {
	case len(errs) > 0:
		return errors.Join(errs...)
	case delivered != nil:
		return fmt.Errorf("the last lines are not with the sink after %s: they are delivered at the next start", j.o.Drain)
	}
	return j.saveNow()
}

// read fills the lanes until ctx or the source ends.
func (j *Job) read(ctx context.Context) error {
	for {
		records, err := j.o.Source.Poll(ctx, pollLimit)
		j.take(records)
		switch {
		case err == io.EOF:
			j.reading.finish()
			return nil
		case ctx.Err() != nil:
			return nil
		case err != nil:
			j.monitor.Error(monitor.SourceFault)
			return err
		}
		j.reading.room(ctx)
	}
}

// pollLimit is more than a fetch has: all of it is taken at once, so that partitions that came together are there together.
const pollLimit = 1 << 20

// take puts records into the lanes.
func (j *Job) take(all []Records) {
	for _, r := range all {
		if lag := j.reading.put(j.lane(r.Source), r); r.End >= 0 {
			j.monitor.Lag(r.Source, lag)
		}
	}
}

// decodeAll decodes as much as is to be folded soon.
func (j *Job) decodeAll(ctx context.Context) {
	for {
		l, x := j.reading.undecoded(ctx, false)
		if l == nil {
			return
		}
		j.reading.push(l, j.decode(l, x))
	}
}

// decodeNow decodes all that is there.
func (j *Job) decodeNow(ctx context.Context) {
	for {
		l, x := j.reading.undecoded(ctx, true)
		if l == nil {
			return
		}
		j.reading.push(l, j.decode(l, x))
	}
}

// lane is that of a partition, a new one where the log got it since.
func (j *Job) lane(source string) *lane {
	if l := j.reading.find(source); l != nil {
		return l
	}
	j.fold.Lock()
	defer j.fold.Unlock()
	l := j.newLane(source, 0)
	j.reading.add(l)
	return l
}

func (j *Job) newLane(source string, next int64) *lane {
	l := &lane{name: source, number: j.number(source), next: next, folded: next - 1, read: next, reached: next, silent: math.MinInt64}
	m := j.o.Mapping
	if own := j.o.Mappings(source); own != nil {
		m = own
		l.own = &ownColumns{rows: datasets.NewBatch(own.LogSchema(), 1), from: columnsOf(j.o.Mapping.LogSchema(), own.LogSchema())}
	}
	var err error
	if l.decoder, err = m.NewEventDecoder(source); err != nil {
		panic(err) // such a mapping is for files alone, and the one who gave it has looked
	}
	switch {
	case j.o.Labels(source):
		l.decoder.LabelsOnly()
	case j.o.Stock(source):
		l.decoder.StockOnly()
	}
	return l
}

// foldAll folds what is read until that ends.
func (j *Job) foldAll(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-tick.C:
				j.reading.wake()
			case <-stop:
				return
			}
		}
	}()
	p := newPiece(j.schema)
	idle := time.Now()
	for {
		switch j.reading.cut(ctx, p, j.o.Batch) {
		case cutEnd:
			return nil
		case cutSome:
			if err := j.foldPiece(p); err != nil {
				return err
			}
		case cutNothing:
		}
		j.reading.release(p, j.o.Source)
		j.caughtUp()
		if time.Since(idle) >= time.Second {
			idle = time.Now()
			j.passMarkers()
		}
		if err := j.maybeCheckpoint(); err != nil {
			return err
		}
	}
}

// foldPiece scores a piece, writes its entry and hands its lines on.
func (j *Job) foldPiece(p *piece) error {
	parcel := j.out.parcel()
	j.fold.Lock()
	defer j.fold.Unlock()
	lines := &parcel.lines
	lines.Reset()
	var err error
	if p.silent {
		err = j.scorer.Again(p.ev, lines)
		lines.Reset()
	} else {
		_, err = j.scorer.ProcessLines(p.ev, lines)
	}
	if err != nil {
		return err
	}
	parcel.fill(p, j.o.DeadLetters)
	if j.file != nil {
		j.length += parcel.bytes()
	}
	j.last++
	e := state.Entry{N: j.last, Spans: p.spans, Order: p.order, Sink: j.length}
	if len(p.spans) == 1 {
		e.Order = nil
	}
	if len(j.fresh) > 0 {
		e.Partitions = maps.Clone(j.fresh)
	}
	if err := j.store.Append(&e); err != nil {
		j.monitor.Error(monitor.StateFault)
		return err
	}
	clear(j.fresh)
	j.out.put(parcel)
	return nil
}

// passMarkers hands on positions that moved over what holds no event, such as the ends of transactions, so that nobody
// takes them for lag.
func (j *Job) passMarkers() {
	if next := j.reading.moved(); len(next) > 0 {
		p := j.out.parcel()
		p.empty(next)
		j.out.put(p)
	}
}
