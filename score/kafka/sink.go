package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Line is one record to be written.
type Line struct {
	Topic      string // empty: the topic of the sink's config
	Key, Value []byte // lines of one key keep their order; without a key they are spread
}

// SinkOptions are what a URL does not say.
type SinkOptions struct {
	// ExactlyOnce writes lines and offsets in transactions. Without it lines are written first and offsets noted
	// afterwards, so that a crash between writes some lines twice.
	ExactlyOnce bool
	// TransactionalID names the job to the broker: of two processes with the same, the one that started first is
	// fenced. Needed with ExactlyOnce.
	TransactionalID string
	// Group is where the offsets go; empty where Deliver is never given any.
	Group string
	// Topics that lines name besides the config's, such as one for dead letters.
	Topics []string
	// Note may be nil; it is called from other goroutines.
	Note func(Note)
}

// Sink writes lines to topics. Its methods may be called from several goroutines, one of which goes on at a time.
type Sink struct {
	c    *Config
	o    SinkOptions
	note func(Note)

	mu    sync.Mutex
	admin *kgo.Client // for requests that belong to no producer
	limit map[string]int
	ids   map[string]string // topic to its id
	last  map[Partition]int64
	count int64 // of transactions without source offsets

	plain   *producer     // at least once
	turn    int           // which of the transactional ones is next
	txns    [2]*producer  // exactly once
	alone   *offsetWriter // exactly once, for offsets without lines
	commits *committer    // at least once

	watch   watch
	renewed time.Time    // when refresh ran; for the watch alone
	missing missing      // for the watch alone
	busy    atomic.Int64 // since when a Deliver waits, as Unix nanoseconds; 0 where none does
	dead    atomic.Pointer[error]
	stopped context.Context
	stop    context.CancelFunc
}

// recordOverhead is what a record costs in a batch besides its key and value, and a batch by itself, at most.
const recordOverhead = 128

// NewSink connects, and with ExactlyOnce takes the transactional id over at once: what a former process left open
// is aborted, and that process is fenced should it live still. Topics that are missing are an error.
func NewSink(ctx context.Context, c *Config, o SinkOptions) (*Sink, error) {
	if len(c.Topics) != 1 {
		return nil, fmt.Errorf("a Kafka sink has one topic, not %d", len(c.Topics))
	}
	if o.ExactlyOnce && o.TransactionalID == "" {
		return nil, errors.New("a Kafka sink with transactions needs a transactional id")
	}
	if o.Note == nil {
		o.Note = func(Note) {}
	}
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	k := &Sink{c: c, o: o, note: o.Note, limit: map[string]int{}, ids: map[string]string{}, last: map[Partition]int64{}}
	k.stopped, k.stop = context.WithCancel(context.Background())
	if k.admin, err = kgo.NewClient(opts...); err != nil {
		return nil, err
	}
	if err := k.c.reach(ctx, k.admin, k.note); err != nil {
		k.closeClients()
		return nil, err
	}
	if err := k.c.starting(ctx, k.note, k.open); err != nil {
		k.closeClients()
		return nil, err
	}
	k.renewed = time.Now()
	k.watch = watch{every: c.checkEvery, note: k.note, probe: k.probe, fatal: func(err error) { k.dead.Store(&err); k.stop() }}
	k.watch.start()
	return k, nil
}

func (k *Sink) topics() []string { return append([]string{k.c.Topics[0]}, k.o.Topics...) }

// open makes the producers. It may be called again after an error.
func (k *Sink) open(start context.Context) error {
	found, err := k.c.findTopics(start, k.admin, k.topics())
	if err != nil {
		return err
	}
	for name, info := range found {
		k.ids[name] = info.id
	}
	k.readLimits(start)
	if !k.o.ExactlyOnce {
		if k.plain, err = k.newProducer(""); err != nil {
			return err
		}
		if k.o.Group != "" {
			k.commits = newCommitter(k.admin, k.o.Group, k.note)
		}
		return nil
	}
	level, err := transactionVersion(start, k.admin)
	if err != nil {
		return err
	}
	for i := range k.txns {
		if old := k.txns[i]; old != nil {
			old.cl.Close()
			k.txns[i] = nil
		}
		if k.txns[i], err = k.newProducer(k.o.TransactionalID + "-" + strconv.Itoa(i)); err != nil {
			return err
		}
		k.txns[i].level = level
		if err := k.txns[i].take(start); err != nil {
			err, _ = k.c.explain(err)
			return err
		}
	}
	k.alone = &offsetWriter{cl: k.admin, id: k.o.TransactionalID + "-offsets", level: level, timeout: k.c.transactionTimeout}
	if err := k.alone.take(start); err != nil {
		err, _ = k.c.explain(err)
		return err
	}
	if err := k.endHanging(start); err != nil {
		err, _ = k.c.explain(err)
		return err
	}
	// Only now: nothing of a former process is open any more, and none can commit any more.
	if k.last, err = k.committedNow(start); err != nil {
		return err
	}
	k.count = max(k.last[k.counter()], 0)
	return nil
}

// committedNow reads all that this sink commits: the group's offsets, and its own counter.
func (k *Sink) committedNow(ctx context.Context) (map[Partition]int64, error) {
	all := map[Partition]int64{}
	if k.o.Group != "" {
		found, err := committed(ctx, k.admin, k.o.Group, func(string) bool { return true })
		if err != nil {
			return nil, err
		}
		maps.Copy(all, found)
	}
	found, err := committed(ctx, k.admin, k.o.TransactionalID, func(topic string) bool { return topic == k.c.Topics[0] })
	if err != nil {
		return nil, err
	}
	if n, ok := found[Partition{k.c.Topics[0], 0}]; ok {
		all[k.counter()] = n
	}
	return all, nil
}

// counter stands in last for the number of transactions without source offsets. It is kept as the offset of the sink's
// own topic in a group of the transactional id's name: so that, of such a transaction too, one can tell afterwards
// whether it was committed.
func (k *Sink) counter() Partition { return Partition{"", 0} }

// readLimits asks for the largest batch that each topic takes. Without the right to ask, the broker's default is
// assumed.
func (k *Sink) readLimits(ctx context.Context) {
	const brokerDefault = 1048588
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, name := range k.topics() {
		k.limit[name] = min(k.c.batchBytes, brokerDefault)
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceTypeTopic, name, []string{"max.message.bytes"}
		req.Resources = append(req.Resources, r)
	}
	for _, shard := range k.admin.RequestSharded(ctx, req) {
		if shard.Err != nil {
			k.note(Note{Text: fmt.Sprintf("max.message.bytes of the topics is not known (%v): taking %d", shard.Err, brokerDefault)})
			continue
		}
		for _, r := range shard.Resp.(*kmsg.DescribeConfigsResponse).Resources {
			if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
				k.note(Note{Text: fmt.Sprintf("max.message.bytes of topic %s is not known (%v): taking %d", r.ResourceName, err, brokerDefault)})
			}
			for _, c := range r.Configs {
				if c.Name == "max.message.bytes" && c.Value != nil {
					if n, err := strconv.Atoi(*c.Value); err == nil {
						k.limit[r.ResourceName] = min(k.c.batchBytes, n)
					}
				}
			}
		}
	}
}

// Deliver writes lines, and notes next as the group's offsets: with ExactlyOnce both in one transaction, or neither.
// It returns nil once that has happened; aborted transactions and those whose outcome was in doubt are settled and
// tried again inside. Errors: *LineError, after which nothing was delivered; ErrFenced; ErrTopicGone; ctx's, after which
// with ExactlyOnce nothing, or all, was delivered, and Committed of a new process tells which. Bytes of lines may be
// reused after any other outcome. Either lines or next may be empty. ready, which may be nil, is called beside the writing:
// with ExactlyOnce nothing is committed before it has returned nil, and its error is returned.
func (k *Sink) Deliver(ctx context.Context, lines []Line, next map[Partition]int64, ready func() error) error {
	if ready == nil {
		ready = func() error { return nil }
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(lines) == 0 && len(next) == 0 {
		return nil
	}
	if len(next) > 0 && k.o.Group == "" {
		return errors.New("offsets to commit, and the Kafka sink has no group for them")
	}
	k.busy.Store(time.Now().UnixNano())
	defer k.busy.Store(0)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.stopped, cancel)()
	err := k.deliver(ctx, lines, next, ready)
	if dead := k.dead.Load(); dead != nil {
		return *dead
	}
	return err
}

func (k *Sink) deliver(ctx context.Context, lines []Line, next map[Partition]int64, ready func() error) error {
	if err := k.checkSizes(lines); err != nil {
		return err
	}
	if k.o.ExactlyOnce {
		return k.transact(ctx, lines, next, ready)
	}
	if err := ready(); err != nil {
		return err
	}
	for {
		err := k.plain.produce(ctx, k.c.Topics[0], lines)
		if err == nil {
			break
		}
		if err = k.afterFailure(ctx, err, lines); err != nil {
			return err
		}
	}
	if len(next) == 0 {
		return nil
	}
	return k.commits.add(next)
}

// checkSizes finds the lines that no batch can take.
func (k *Sink) checkSizes(lines []Line) error {
	topic, limit := "", k.limit[k.c.Topics[0]]
	var large []int
	for i := range lines {
		l := &lines[i]
		if l.Topic != topic {
			topic = l.Topic
			name := topic
			if name == "" {
				name = k.c.Topics[0]
			}
			var known bool
			if limit, known = k.limit[name]; !known {
				return fmt.Errorf("line %d is for topic %s, which the sink was not made for", i, name)
			}
		}
		if len(l.Key)+len(l.Value) > limit-recordOverhead {
			large = append(large, i)
		}
	}
	if large == nil {
		return nil
	}
	l := &lines[large[0]]
	return &LineError{large, fmt.Errorf("%d bytes, and the topic takes %d (the smaller of its max.message.bytes and batch-bytes)",
		len(l.Key)+len(l.Value)+recordOverhead, limit)}
}

// afterFailure decides what becomes of lines that could not be written, none of which is left in the producer: nil
// is to try again.
func (k *Sink) afterFailure(ctx context.Context, err error, lines []Line) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		before := maps.Clone(k.limit)
		k.readLimits(ctx)
		if err := k.checkSizes(lines); err != nil {
			return err
		}
		if maps.Equal(before, k.limit) {
			return fmt.Errorf("the broker refuses a batch as too large that is within the topic's max.message.bytes: give a smaller batch-bytes: %w", err)
		}
		return k.remake(ctx)
	case errors.Is(err, kerr.InvalidRecord):
		return fmt.Errorf("the broker refuses records: a compacted topic takes none without a key, use one with cleanup.policy=delete: %w", err)
	}
	// A topic that is gone ends the delivery through the watch.
	explained, _ := k.c.explain(err)
	k.note(Note{Text: explained.Error() + "; delivering again"})
	return sleep(ctx, 250*time.Millisecond)
}

// remake replaces the producers, which take the topics' limits when they are made.
func (k *Sink) remake(ctx context.Context) error {
	if k.o.ExactlyOnce {
		return k.renew(ctx)
	}
	p, err := k.newProducer("")
	if err != nil {
		return err
	}
	k.plain.cl.Close()
	k.plain = p
	return nil
}

// busyTooLong is after how long a delivery that does not end counts as an outage.
const busyTooLong = 10 * time.Second

func (k *Sink) probe(ctx context.Context) (string, error) {
	found, err := topics(ctx, k.admin, k.topics())
	if err != nil {
		explained, _ := k.c.explain(err)
		return explained.Error(), nil
	}
	for _, name := range k.topics() {
		if problem, gone := k.missing.judge(name, k.ids[name], found[name]); gone != nil || problem != "" {
			return problem, gone
		}
	}
	if since := k.busy.Load(); since != 0 && time.Since(time.Unix(0, since)) > busyTooLong {
		return fmt.Sprintf("%s: lines wait for the broker's acknowledgement since %s: it is slow, or lacks in-sync replicas",
			k.c.where(), time.Unix(0, since).UTC().Format(time.TimeOnly)), nil
	}
	if k.o.ExactlyOnce && k.o.Group != "" && time.Since(k.renewed) > refreshAfter {
		k.renewed = time.Now()
		return "", k.refresh(ctx)
	}
	return "", nil
}

// ClusterID tells clusters apart: see Source.ClusterID.
func (k *Sink) ClusterID(ctx context.Context) (id string, err error) {
	err = k.c.starting(ctx, k.note, func(ctx context.Context) (err error) {
		id, err = clusterID(ctx, k.admin)
		return err
	})
	return id, err
}

// Close ends the connections. What Deliver returned nil for is written; offsets of a sink without transactions are
// committed within five seconds.
func (k *Sink) Close() error {
	k.stop()
	k.watch.stop()
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	if k.commits != nil {
		err = k.commits.close()
	}
	k.closeClients()
	return err
}

func (k *Sink) closeClients() {
	for _, p := range append(k.txns[:], k.plain) {
		if p != nil {
			p.cl.Close()
		}
	}
	k.admin.Close()
}

// producer is a client that writes, and the memory for its records.
type producer struct {
	cl      *kgo.Client
	id      string // transactional, or empty
	level   int16  // of the cluster's transactions
	records []kgo.Record
	promise func(*kgo.Record, error)
	seen    map[string]bool // topics that the client's transactions are sure to end for
	mu      sync.Mutex
	failed  error
}

// maxBuffered is after how many lines a producer sends without being told: batches are cut when all lines are there.
const maxBuffered = 1 << 18

func (k *Sink) newProducer(id string) (*producer, error) {
	opts, err := k.c.options()
	if err != nil {
		return nil, err
	}
	limits := maps.Clone(k.limit)
	opts = append(opts,
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerLinger(0), kgo.ManualFlushing(),
		kgo.ProducerBatchCompression(k.c.codec(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytesFn(func(topic string) int32 {
			if n, ok := limits[topic]; ok {
				return int32(n)
			}
			return int32(k.c.batchBytes)
		}),
		kgo.MaxBufferedRecords(maxBuffered),
	)
	if id != "" {
		opts = append(opts, kgo.TransactionalID(id), kgo.TransactionTimeout(k.c.transactionTimeout), kgo.ConcurrentTransactionsBackoff(time.Millisecond))
	}
	p := &producer{id: id, seen: map[string]bool{}}
	p.promise = func(_ *kgo.Record, err error) {
		if err != nil {
			p.mu.Lock()
			if p.failed == nil {
				p.failed = err
			}
			p.mu.Unlock()
		}
	}
	p.cl, err = kgo.NewClient(opts...)
	return p, err
}

// produce writes lines and waits until the broker has them, or has refused one. Nothing is left in the client, and
// nobody looks at the lines any more, when it returns.
func (p *producer) produce(ctx context.Context, topic string, lines []Line) error {
	p.failed = nil
	if cap(p.records) < len(lines) {
		p.records = make([]kgo.Record, len(lines)+len(lines)/4)
	}
	for i := range lines {
		l, r := &lines[i], &p.records[:cap(p.records)][i]
		*r = kgo.Record{Topic: topic, Key: l.Key, Value: l.Value}
		if l.Topic != "" {
			r.Topic = l.Topic
		}
		p.cl.Produce(ctx, r, p.promise)
		if (i+1)%maxBuffered == 0 && p.cl.Flush(ctx) != nil {
			break
		}
	}
	if err := p.cl.Flush(ctx); err != nil {
		// The lines' memory is the caller's again only when no request holds it any more.
		abandon, done := context.WithTimeout(context.Background(), closeTimeout)
		defer done()
		if p.cl.AbortBufferedRecords(abandon) != nil {
			p.cl.UnsafeAbortBufferedRecords()
		}
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// sortedNames is for messages.
func sortedNames(next map[Partition]int64) []string {
	var names []string
	for p, n := range next {
		names = append(names, fmt.Sprintf("%s: %d", p, n))
	}
	slices.Sort(names)
	return names
}
