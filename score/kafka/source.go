package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Info is a partition and its log.
type Info struct {
	Partition
	TopicID    string // of the topic, hexadecimal; another one after the topic was deleted and made again
	Start, End int64  // first offset that is there, and the one after the last that is decided
}

// Records are what a Poll has of one partition.
type Records struct {
	Partition Partition
	Records   []*kgo.Record // ascending offsets; may be empty where only Next has moved, over markers of transactions
	Next      int64         // offset to read after these
	End       int64         // one after the last decided offset, as of the fetch: End - Next is the lag
}

// Source reads all partitions of the configured topics, committed records only. Its methods are for one goroutine,
// except Partitions and Commit.
type Source struct {
	c     *Config
	group string
	note  func(Note)
	cl    *kgo.Client
	watch watch
	pool  *recordPool

	mu         sync.Mutex
	topics     map[string]string // name to id
	partitions []Info
	seen       map[Partition]bool
	missing    missing // for the watch alone
	atStart    int     // partitions that were there at the start
	sought     bool
	fatalErr   error
	stopped    context.Context // ends with fatalErr
	stop       context.CancelFunc

	next    map[Partition]int64 // by partition: the offset to be read next
	out     []Records
	commits *committer
}

// NewSource connects and finds the partitions; reading begins with Seek. A broker that cannot be reached is tried for
// the config's start-timeout, a refused authentication is returned at once. note may be nil; it is called from other
// goroutines.
func NewSource(ctx context.Context, c *Config, group string, note func(Note)) (*Source, error) {
	if group == "" {
		return nil, errors.New("a Kafka source needs a group, the name its offsets are kept under: group=NAME")
	}
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	if note == nil {
		note = func(Note) {}
	}
	s := &Source{c: c, group: group, note: note, pool: newRecordPool(), topics: map[string]string{}, seen: map[Partition]bool{}, next: map[Partition]int64{}}
	s.stopped, s.stop = context.WithCancel(context.Background())
	s.cl, err = kgo.NewClient(append(opts,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Markers are wanted, and kept from the caller, for what they say of the position: a log whose records all
		// expired begins after its last marker.
		kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxBytes(int32(c.fetchBytes)),
		kgo.FetchMaxPartitionBytes(int32(c.partitionBytes)),
		kgo.FetchMaxWait(time.Second),
		kgo.MaxConcurrentFetches(1),
		kgo.WithPools(s.pool),
	)...)
	if err != nil {
		return nil, err
	}
	if err := c.reach(ctx, s.cl, note); err != nil {
		s.cl.Close()
		return nil, err
	}
	if err := c.starting(ctx, note, s.discover); err != nil {
		s.cl.Close()
		return nil, err
	}
	s.commits = newCommitter(s.cl, group, note)
	s.watch = watch{every: c.checkEvery, note: note, probe: s.probe, fatal: s.fail}
	s.watch.start()
	return s, nil
}

// reach waits for a first answer of the cluster.
func (c *Config) reach(ctx context.Context, cl *kgo.Client, note func(Note)) error {
	limit, done := context.WithTimeout(ctx, c.startTimeout)
	defer done()
	for told := false; ; {
		once, cancel := context.WithTimeout(limit, probeTimeout)
		err := cl.Ping(once)
		cancel()
		if err == nil {
			return nil
		}
		explained, hard := c.explain(err)
		if hard || ctx.Err() != nil {
			return explained
		}
		if !told {
			note(Note{Text: explained.Error() + "; trying for " + c.startTimeout.String()})
			told = true
		}
		if sleep(limit, 250*time.Millisecond) != nil {
			return fmt.Errorf("gave up after %s (start-timeout): %w", c.startTimeout, explained)
		}
	}
}

// discover finds the partitions at the start.
func (s *Source) discover(ctx context.Context) error {
	found, err := s.c.findTopics(ctx, s.cl, s.c.Topics)
	if err != nil {
		return err
	}
	var partitions []Partition
	for _, name := range s.c.Topics {
		info := found[name]
		s.topics[name] = info.id
		for n := range info.partitions {
			partitions = append(partitions, Partition{name, n})
		}
	}
	s.atStart = len(partitions)
	return s.add(ctx, partitions)
}

// add notes partitions with where their logs begin and end.
func (s *Source) add(ctx context.Context, partitions []Partition) error {
	starts, err := offsets(ctx, s.cl, partitions, -2)
	if err != nil {
		return err
	}
	ends, err := offsets(ctx, s.cl, partitions, -1)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range partitions {
		if !s.seen[p] {
			s.seen[p] = true
			s.partitions = append(s.partitions, Info{p, s.topics[p.Topic], starts[p], ends[p]})
		}
	}
	return nil
}

// Partitions are those found so far, topics in the config's order; their offsets are those of when they were found.
func (s *Source) Partitions() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.partitions)
}

// Committed is the group's next offset of each partition that has one. Where a sink with transactions commits them, make
// the sink first: it ends the transactions that a former process left open, and this waits for open ones.
func (s *Source) Committed(ctx context.Context) (map[Partition]int64, error) {
	var found map[Partition]int64
	err := s.c.starting(ctx, s.note, func(ctx context.Context) (err error) {
		found, err = committed(ctx, s.cl, s.group, func(topic string) bool { return slices.Contains(s.c.Topics, topic) })
		return err
	})
	return found, err
}

// Seek begins reading: every partition that was there at the start must be in next, and nothing that is not there.
// Partitions that a topic got since begin at 0. Offsets outside of the log are refused.
func (s *Source) Seek(ctx context.Context, next map[Partition]int64) error {
	s.mu.Lock()
	known := slices.Clone(s.partitions)
	s.sought = true
	s.mu.Unlock()
	next = maps.Clone(next)
	var partitions []Partition
	for i, p := range known {
		if _, ok := next[p.Partition]; !ok && i < s.atStart {
			return fmt.Errorf("%s: no offset to begin from", p.Partition)
		} else if !ok {
			next[p.Partition] = 0
		}
		partitions = append(partitions, p.Partition)
	}
	for p, n := range next {
		if !slices.Contains(partitions, p) {
			return fmt.Errorf("%s: offset %d was to be read next, and there is no such partition: the topic was made again, with fewer; "+
				"start with a new --state: %w", p, n, ErrTopicGone)
		}
	}
	var starts, ends map[Partition]int64
	err := s.c.starting(ctx, s.note, func(ctx context.Context) (err error) {
		if starts, err = offsets(ctx, s.cl, partitions, -2); err == nil {
			ends, err = offsets(ctx, s.cl, partitions, -1)
		}
		return err
	})
	if err != nil {
		return err
	}
	var faults []error
	for _, p := range partitions {
		if n := next[p]; n < starts[p] || n > ends[p] {
			faults = append(faults, trimmed(p, n, starts[p], ends[p]))
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	again := map[string][]int32{}
	from := map[string]map[int32]kgo.Offset{}
	for _, p := range partitions {
		if _, reading := s.next[p]; reading {
			again[p.Topic] = append(again[p.Topic], p.Number)
		}
		if from[p.Topic] == nil {
			from[p.Topic] = map[int32]kgo.Offset{}
		}
		from[p.Topic][p.Number] = kgo.NewOffset().At(next[p])
	}
	if len(again) > 0 {
		s.cl.RemoveConsumePartitions(again)
	}
	for p, n := range next {
		s.next[p] = n
	}
	s.cl.AddConsumePartitions(from)
	return nil
}

// Poll waits for records and returns at most limit of them. The result, but not the records, is overwritten by the
// next Poll. It returns ctx's error where that ends first. Any other error is final: something was lost, and the
// error says what to do.
func (s *Source) Poll(ctx context.Context, limit int) ([]Records, error) {
	for {
		polling, cancel := context.WithCancel(ctx)
		unhook := context.AfterFunc(s.stopped, cancel)
		fetches := s.cl.PollRecords(polling, limit)
		unhook()
		cancel()
		if err := s.failed(); err != nil {
			return nil, err
		}
		out, err := s.take(fetches)
		if err != nil {
			return nil, err
		}
		if len(out) > 0 {
			return out, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if fetches.IsClientClosed() {
			return nil, errors.New("the Kafka source is closed")
		}
	}
}

// take sorts fetches into s.out.
func (s *Source) take(fetches kgo.Fetches) ([]Records, error) {
	s.out = s.out[:0]
	for _, f := range fetches {
		for i := range f.Topics {
			t := &f.Topics[i]
			for j := range t.Partitions {
				if err := s.takePartition(t.Topic, &t.Partitions[j]); err != nil {
					return nil, err
				}
			}
		}
	}
	return s.out, nil
}

func (s *Source) takePartition(topic string, f *kgo.FetchPartition) error {
	p := Partition{topic, f.Partition}
	if f.Err != nil {
		return s.partitionError(p, f.Err)
	}
	if len(f.Records) == 0 {
		return nil
	}
	next, ok := s.next[p]
	if !ok { // found since Seek
		s.next[p] = 0
	}
	first, last := f.Records[0], f.Records[len(f.Records)-1]
	if first.Offset > next && f.LogStartOffset > next {
		return trimmed(p, next, f.LogStartOffset, -1)
	}
	after := last.Offset + 1
	kept := f.Records[:0]
	for _, r := range f.Records {
		if r.Attrs.IsControl() || r.Offset < next {
			r.Recycle()
			continue
		}
		kept = append(kept, r)
	}
	if after <= next {
		return nil
	}
	s.next[p] = after
	for i := range s.out { // a Poll may hold two fetches of a partition
		if o := &s.out[i]; o.Partition == p {
			o.Records, o.Next, o.End = append(o.Records, kept...), after, f.LastStableOffset
			return nil
		}
	}
	s.out = append(s.out, Records{Partition: p, Records: kept, Next: after, End: f.LastStableOffset})
	return nil
}

// partitionError classifies what franz-go could not retry by itself.
func (s *Source) partitionError(p Partition, err error) error {
	switch {
	case p.Topic == "" && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrClientClosed)):
		return nil // of Poll's context, which it looks at itself
	case isDataLoss(err):
		start, end := int64(-1), int64(-1)
		ctx, done := context.WithTimeout(context.Background(), probeTimeout)
		defer done()
		if found, listErr := offsets(ctx, s.cl, []Partition{p}, -2); listErr == nil {
			start = found[p]
		}
		if found, listErr := offsets(ctx, s.cl, []Partition{p}, -1); listErr == nil {
			end = found[p]
		}
		return fmt.Errorf("%w (%w)", trimmed(p, s.next[p], start, end), err)
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.InconsistentTopicID):
		return nil // the watch tells for certain whether the topic is gone
	}
	explained, hard := s.c.explain(err)
	if hard || kerr.IsRetriable(err) {
		s.note(Note{Text: fmt.Sprintf("%s: %v", p, explained)})
		return s.retry(p)
	}
	return fmt.Errorf("%s: %w", p, err)
}

// retry takes up a partition again whose reading franz-go has given up, from where it was.
func (s *Source) retry(p Partition) error {
	if p.Topic == "" {
		return nil
	}
	if err := sleep(s.stopped, 250*time.Millisecond); err != nil {
		return s.failed()
	}
	s.cl.RemoveConsumePartitions(map[string][]int32{p.Topic: {p.Number}})
	s.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{p.Topic: {p.Number: kgo.NewOffset().At(s.next[p])}})
	return nil
}

// Recycle gives the memory of records back, which may not be looked at afterwards. A caller that leaves it out
// costs the garbage collector more, and nothing else.
func (s *Source) Recycle(all []Records) {
	for i := range all {
		for _, r := range all[i].Records {
			r.Recycle()
		}
	}
}

// Commit notes offsets as the group's, for operators to see and for the next start, soon and in order; the error is
// that of an earlier one that could not be kept. For sinks that do not commit them in a transaction.
func (s *Source) Commit(next map[Partition]int64) error { return s.commits.add(next) }

// ClusterID tells clusters apart: offsets can be part of a transaction only where source and sink have the same.
func (s *Source) ClusterID(ctx context.Context) (id string, err error) {
	err = s.c.starting(ctx, s.note, func(ctx context.Context) (err error) {
		id, err = clusterID(ctx, s.cl)
		return err
	})
	return id, err
}

func clusterID(ctx context.Context, cl *kgo.Client) (string, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none; nil would be all of them
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return "", err
	}
	if resp.ClusterID == nil {
		return "", nil
	}
	return *resp.ClusterID, nil
}

// Close commits what Commit was given, within five seconds, and ends the connection.
func (s *Source) Close() error {
	s.watch.stop()
	s.stop()
	err := s.commits.close()
	s.cl.Close()
	return err
}

func (s *Source) fail(err error) {
	s.mu.Lock()
	s.fatalErr = err
	s.mu.Unlock()
	s.stop()
}

func (s *Source) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fatalErr
}

// probe asks for the topics: it finds out whether the broker answers, whether a topic is still the same, and whether it
// has more partitions.
func (s *Source) probe(ctx context.Context) (string, error) {
	found, err := topics(ctx, s.cl, s.c.Topics)
	if err != nil {
		explained, _ := s.c.explain(err)
		return explained.Error(), nil
	}
	var more []Partition
	for _, name := range s.c.Topics {
		problem, gone := s.missing.judge(name, s.topics[name], found[name])
		if gone != nil || problem != "" {
			return problem, gone
		}
		s.mu.Lock()
		for n := range found[name].partitions {
			if p := (Partition{name, n}); !s.seen[p] {
				more = append(more, p)
			}
		}
		s.mu.Unlock()
	}
	if len(more) == 0 {
		return "", nil
	}
	return s.takeUp(ctx, more)
}

// judge compares a topic with what it was. A broker that lags behind the others, or has just started, may not know a
// topic for a moment: only one that stays unknown is gone.
func (m *missing) judge(name, id string, now topicInfo) (problem string, gone error) {
	if !errors.Is(now.err, kerr.UnknownTopicOrPartition) {
		delete(*m, name)
	}
	switch {
	case errors.Is(now.err, kerr.UnknownTopicOrPartition):
		if *m == nil {
			*m = missing{}
		}
		if since, noted := (*m)[name]; !noted {
			(*m)[name] = time.Now()
		} else if time.Since(since) > goneAfter {
			return "", fmt.Errorf("topic %s was deleted: create it again and start with a new --state, or restore the cluster: %w", name, ErrTopicGone)
		}
		return fmt.Sprintf("topic %s: the broker does not know it", name), nil
	case now.err != nil:
		return fmt.Sprintf("topic %s: %v", name, now.err), nil
	case id != "" && now.id != "" && now.id != id:
		return "", fmt.Errorf("topic %s was deleted and made again (its id was %s and is %s): its offsets count from 0 again, so start with a new --state and --job: %w", name, id, now.id, ErrTopicGone)
	}
	return "", nil
}

// missing says since when topics are unknown.
type missing map[string]time.Time

// goneAfter is longer than a broker lags behind another.
const goneAfter = 5 * time.Second

// takeUp begins reading partitions that came while running, from their first record.
func (s *Source) takeUp(ctx context.Context, more []Partition) (string, error) {
	if err := s.add(ctx, more); err != nil {
		return fmt.Sprintf("new partitions: %v", err), nil
	}
	s.mu.Lock()
	sought := s.sought
	s.mu.Unlock()
	from := map[string]map[int32]kgo.Offset{}
	var names []string
	for _, p := range more {
		if from[p.Topic] == nil {
			from[p.Topic] = map[int32]kgo.Offset{}
		}
		from[p.Topic][p.Number] = kgo.NewOffset().At(0)
		names = append(names, p.String())
	}
	if sought {
		s.cl.AddConsumePartitions(from)
	}
	s.note(Note{Text: "new and taken up: " + strings.Join(names, "; ")})
	return "", nil
}
