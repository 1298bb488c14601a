package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/onmart/onmart/score/kafka"
)

// topicLoad sends events to a topic and waits for their lines in another. An event's key is the run and its number,
// which its line carries too: topics may hold what other runs left, and a daemon may be behind with it.
type topicLoad struct {
	b       *benchScore
	in, out *kafka.Config
	run     string // that keys begin with
	total   int
	warm    int          // so many events from the first are not measured
	seen    []uint64     // by event, a bit: its line came; the reader's
	hist    latencies    // of the reader
	arrived atomic.Int64 // events whose line came
	doubles int64
	strange int64
	errors  int64         // of arrived, lines that tell an error
	began   time.Time     // of the schedule
	first   arrivals      // after the first poll that had lines
	fifth   arrivals      // after the poll that brought the first 20 %
	last    arrivals      // after the last poll that had lines
	behind  time.Duration // of the schedule, at worst, of what is measured
	failed  atomic.Pointer[error]
}

// arrivals is how many lines had come, and when. Lines of one poll come at one moment, so that rates are taken between
// polls.
type arrivals struct {
	n  int64
	at time.Time
}

// rate is lines a second from a to b; 0 where all came at once.
func (a arrivals) rate(b arrivals) float64 {
	if b.n <= a.n || !b.at.After(a.at) {
		return 0
	}
	return float64(b.n-a.n) / b.at.Sub(a.at).Seconds()
}

// benchTopicResult is the figures; latencies are in milliseconds, from due time to read-committed arrival.
type benchTopicResult struct {
	Events   int64   `json:"events"`
	Missing  int64   `json:"missing"`
	Doubles  int64   `json:"doubles"`
	Strange  int64   `json:"strange"` // lines of no event of this run
	Errors   int64   `json:"errors"`  // lines that tell an error; they are measured like others
	Asked    float64 `json:"rate_asked,omitempty"`
	Achieved float64 `json:"rate_achieved,omitempty"` // lines a second
	Steady   float64 `json:"rate_steady,omitempty"`   // over the last 80 % of a backlog
	Behind   float64 `json:"behind_schedule_ms,omitempty"`
	P50      float64 `json:"p50_ms,omitempty"`
	P90      float64 `json:"p90_ms,omitempty"`
	P99      float64 `json:"p99_ms,omitempty"`
	P999     float64 `json:"p99_9_ms,omitempty"`
	Max      float64 `json:"max_ms,omitempty"`
}

func (r *benchTopicResult) String() string {
	counts := fmt.Sprintf("%d missing, %d double, %d errors, %d lines of other events", r.Missing, r.Doubles, r.Errors,
		r.Strange)
	if r.Asked == 0 {
		return fmt.Sprintf("%d events of a backlog, %s: %.0f/s, the last 80 %% %.0f/s", r.Events, counts, r.Achieved,
			r.Steady)
	}
	return fmt.Sprintf("%d events, %.0f/s asked, %.0f/s came, %s; sent %.1f ms behind schedule at worst\n"+
		"latency ms from due time: p50 %.3f  p90 %.3f  p99 %.3f  p99.9 %.3f  max %.3f",
		r.Events, r.Asked, r.Achieved, counts, r.Behind, r.P50, r.P90, r.P99, r.P999, r.Max)
}

func (b *benchScore) checkTopics() error {
	switch {
	case b.in == "" || b.out == "":
		return usagef("--in and --out go together: the topic of events and the topic of lines")
	case b.url != "":
		return usagef("--url is for HTTP, --in and --out for topics: give one of both")
	case b.attach && b.backlog > 0:
		return usagef("--backlog is there before the daemon starts: leave out --attach")
	}
	return nil
}

func (b *benchScore) runTopics(ctx context.Context) error {
	t := &topicLoad{b: b}
	var err error
	if t.in, err = kafka.Parse(b.in); err != nil {
		return usagef("--in: %w", err)
	}
	if t.out, err = kafka.Parse(b.out); err != nil {
		return usagef("--out: %w", err)
	}
	dir, err := os.MkdirTemp("", "onmart-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if b.model == "" && !b.attach {
		if b.model, err = b.train(ctx, dir); err != nil {
			return err
		}
	}
	if err := b.shape(); err != nil {
		return err
	}
	// Numbers of purchases are made of it: another run's would be duplicates.
	b.first = max(b.first, time.Now().UnixMicro())
	r, err := t.measure(ctx, dir)
	if err != nil {
		return err
	}
	return b.con.result(r, func(w io.Writer) error { _, err := fmt.Fprintln(w, r); return err })
}

func (t *topicLoad) measure(ctx context.Context, dir string) (*benchTopicResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := t.b
	total := b.backlog
	if total == 0 {
		total = int(float64(b.rate) * (b.warm + b.duration).Seconds())
	}
	if total == 0 {
		return nil, usagef("--rate, --warm and --duration make no event")
	}
	t.total, t.seen = total, make([]uint64, (total+63)/64)
	t.run = strconv.FormatInt(time.Now().UnixNano(), 36) + "-"
	if b.backlog == 0 {
		t.warm = int(float64(b.rate) * b.warm.Seconds())
	}
	lines, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	defer lines.Close()
	client, err := t.in.Client(kgo.MaxBufferedRecords(1<<20), kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if b.backlog > 0 {
		if err := t.emptyIn(ctx); err != nil {
			return nil, err
		}
		b.con.notef("sending %d events", total)
		if err := t.send(ctx, client, total); err != nil {
			return nil, err
		}
	}
	if !b.attach {
		stop, err := t.daemon(ctx, dir)
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	t.began = time.Now()
	var reading sync.WaitGroup
	reading.Go(func() { t.read(ctx, lines) })
	if b.backlog == 0 {
		err = t.send(ctx, client, total)
	}
	if err == nil {
		err = t.wait(ctx, int64(total))
	}
	cancel()
	reading.Wait()
	if failed := t.failed.Load(); failed != nil {
		err = *failed
	}
	if err != nil {
		return nil, err
	}
	return t.result(), nil
}

// emptyIn refuses a backlog on top of other events: the daemon would read those too, and the rate would be of both.
func (t *topicLoad) emptyIn(ctx context.Context) error {
	s, err := kafka.NewSource(ctx, t.in, "onmart-bench", nil)
	if err != nil {
		return fmt.Errorf("--in: %w", err)
	}
	defer s.Close()
	for _, p := range s.Partitions() {
		if p.End > p.Start {
			return fmt.Errorf("--in: %s has %d events already, and a backlog has to be all that the daemon reads: create "+
				"another topic, or delete its records (kafka-delete-records.sh)", p.Partition, p.End-p.Start)
		}
	}
	return nil
}

// open begins to read the lines at the end of their topic.
func (t *topicLoad) open(ctx context.Context) (*kafka.Source, error) {
	s, err := kafka.NewSource(ctx, t.out, "onmart-bench", nil)
	if err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	end := map[kafka.Partition]int64{}
	for _, p := range s.Partitions() {
		end[p.Partition] = p.End
	}
	if err := s.Seek(ctx, end); err != nil {
		return nil, errors.Join(fmt.Errorf("--out: %w", err), s.Close())
	}
	return s, nil
}

// daemon starts the scorer in a second process.
func (t *topicLoad) daemon(ctx context.Context, dir string) (stop func(), err error) {
	b := t.b
	args := []string{"score", "--model", b.model, "--source", b.in, "--sink", b.out, "--state", filepath.Join(dir, "state"),
		"--job", "bench-" + strconv.FormatInt(time.Now().UnixMilli(), 36), "--explain", "off"}
	if b.delivery != "" {
		args = append(args, "--delivery", b.delivery)
	}
	if b.backlog == 0 {
		args = append(args, "--start", "latest")
	}
	cmd, err := b.self(context.WithoutCancel(ctx), args...)
	if err != nil {
		return nil, err
	}
	said, err := os.Create(filepath.Join(dir, "daemon.log"))
	if err != nil {
		return nil, err
	}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := cmd.Wait(); err != nil {
			text, _ := os.ReadFile(said.Name())
			err = fmt.Errorf("the daemon ended (%w): %s", err, text)
			t.failed.CompareAndSwap(nil, &err)
		}
	}()
	if b.backlog == 0 { // else it reads from the start of the topic whenever it is ready
		t.untilReady(ctx, said.Name(), ended)
	}
	return func() { cmd.Process.Signal(os.Interrupt); <-ended; said.Close() }, nil
}

// untilReady waits until the daemon has said that it begins.
func (t *topicLoad) untilReady(ctx context.Context, log string, ended chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
		if text, err := os.ReadFile(log); err == nil && bytes.Contains(text, []byte("the state is where the sink's lines end")) {
			return
		}
	}
}

// send produces the events when they are due, however many lines have come; a backlog as fast as it goes.
func (t *topicLoad) send(ctx context.Context, client *kgo.Client, total int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	if t.b.backlog == 0 {
		start = t.began
	}
	promise := func(_ *kgo.Record, err error) {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("--in: %w", err)
			t.failed.CompareAndSwap(nil, &err)
		}
	}
	var arena []byte
	for i := range total {
		if t.failed.Load() != nil || ctx.Err() != nil {
			break
		}
		if t.b.backlog == 0 {
			due := t.due(start, i)
			sleepUntil(due)
			if i >= t.warm {
				t.behind = max(t.behind, time.Since(due))
			}
		}
		if cap(arena)-len(arena) < 4096 {
			arena = make([]byte, 0, 1<<20)
		}
		at := len(arena)
		arena = strconv.AppendInt(append(arena, t.run...), int64(i), 10)
		key := arena[at:len(arena):len(arena)]
		at = len(arena)
		arena = t.b.appendEvent(arena, i)
		client.Produce(ctx, &kgo.Record{Topic: t.in.Topics[0], Key: key, Value: arena[at:len(arena):len(arena)]}, promise)
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	if failed := t.failed.Load(); failed != nil {
		return *failed
	}
	return nil
}

func (t *topicLoad) due(start time.Time, i int) time.Time {
	return start.Add(time.Duration(float64(i) / float64(t.b.rate) * 1e9))
}

// read takes the lines until ctx ends.
func (t *topicLoad) read(ctx context.Context, lines *kafka.Source) {
	for {
		all, err := lines.Poll(ctx, 1<<16)
		if err != nil {
			if ctx.Err() == nil {
				err = fmt.Errorf("--out: %w", err)
				t.failed.CompareAndSwap(nil, &err)
			}
			return
		}
		now := time.Now()
		for _, x := range all {
			for _, r := range x.Records {
				t.came(r.Key, r.Value, now)
			}
		}
		t.polled(now)
		lines.Recycle(all)
	}
}

// came notes a line.
func (t *topicLoad) came(key, value []byte, now time.Time) {
	number, ours := bytes.CutPrefix(key, []byte(t.run))
	i, err := strconv.Atoi(string(number))
	switch {
	case !ours || err != nil || i < 0 || i >= t.total:
		t.strange++
		return
	case t.seen[i/64]>>(i%64)&1 != 0:
		t.doubles++
		return
	}
	t.seen[i/64] |= 1 << (i % 64)
	t.arrived.Add(1)
	if bytes.HasPrefix(value, []byte(`{"error":`)) {
		t.errors++
	}
	if t.b.backlog == 0 && i >= t.warm {
		t.hist.record(now.Sub(t.due(t.began, i)))
	}
}

// polled notes how many lines had come after a poll.
func (t *topicLoad) polled(now time.Time) {
	n := t.arrived.Load()
	if n == t.last.n {
		return
	}
	t.last = arrivals{n, now}
	if t.first.n == 0 {
		t.first = t.last
	}
	if t.fifth.n == 0 && n >= int64(t.total+4)/5 {
		t.fifth = t.last
	}
}

// patience of wait, after the last line that came.
const lineDeadline = 15 * time.Second

// wait until all lines came, or none for a while.
func (t *topicLoad) wait(ctx context.Context, total int64) error {
	last, at := t.arrived.Load(), time.Now()
	for t.arrived.Load() < total && time.Since(at) < lineDeadline {
		if failed := t.failed.Load(); failed != nil {
			return *failed
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if n := t.arrived.Load(); n > last {
			last, at = n, time.Now()
		}
	}
	if last == 0 {
		return fmt.Errorf("no line came within %s: does the daemon read %s and write %s, and keep the events' keys?", lineDeadline,
			t.in.Topics[0], t.out.Topics[0])
	}
	return nil
}

func (t *topicLoad) result() *benchTopicResult {
	n := t.arrived.Load()
	r := &benchTopicResult{Events: int64(t.total), Missing: int64(t.total) - n, Doubles: t.doubles, Strange: t.strange,
		Errors: t.errors}
	r.Achieved = t.first.rate(t.last)
	if t.b.backlog > 0 {
		r.Steady = t.fifth.rate(t.last)
		return r
	}
	r.Asked, r.Behind = float64(t.b.rate), t.behind.Seconds()*1e3
	ms := func(p float64) float64 { return t.hist.quantile(p).Seconds() * 1e3 }
	r.P50, r.P90, r.P99, r.P999, r.Max = ms(.5), ms(.9), ms(.99), ms(.999), t.hist.max.Seconds()*1e3
	return r
}
