package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/onmart/onmart/internal/testkit/broker"
)

// Settings of the crash tests. A run is not the same a second time, since processes are not; its events and its plan
// are.
const (
	crashKillsVariable = "ONMART_TEST_KILLS" // of the daemon and the broker, with exactly-once; default 10
	crashSeedVariable  = "ONMART_TEST_SEED"  // default 1
)

// crashRates are how many events are sent a second, in turn.
var crashRates = [...]int{200, 600, 2000, 600, 0}

// TestKilled kills the daemon and the broker at random moments while events come, and holds the lines, the letters and the
// state against what a scorer gives that is never stopped.
func TestKilled(t *testing.T) {
	kills, seed := crashSetting(t, crashKillsVariable, 10), uint64(crashSetting(t, crashSeedVariable, 1))
	b := broker.Start(t, broker.Options{Properties: []string{
		// A broker that was killed is let in again when its session has ended.
		"broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=500"}})
	t.Logf("%s=%d %s=%d", crashKillsVariable, kills, crashSeedVariable, seed)
	dir := t.TempDir()
	for i, c := range []crashCase{
		{name: "exactly once, one partition of lines", kills: kills - kills/2, out: 1, letters: true},
		{name: "exactly once, three partitions of lines, a model", kills: kills / 2, out: 3,
			model: filepath.Join(dir, "model1"), letters: true},
		{name: "at least once", kills: max(1, kills/5), out: 1, model: filepath.Join(dir, "model2"), repeats: true},
	} {
		c.seed, c.topic = seed+uint64(i)<<32, fmt.Sprintf("crash%d", i)
		t.Run(c.name, func(t *testing.T) { c.run(t, b) })
	}
}

func crashSetting(t *testing.T, name string, value int) int {
	t.Helper()
	if text := os.Getenv(name); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%s: want a number, 1 or more", name, text)
		}
		return n
	}
	return value
}

// crashCase is one run.
type crashCase struct {
	name    string
	kills   int
	out     int32 // partitions of the sink
	model   string
	letters bool // dead letters have a topic
	repeats bool // at least once
	seed    uint64
	topic   string // begins the names of topics
}

func (c *crashCase) in() string     { return c.topic + "-in" }
func (c *crashCase) labels() string { return c.topic + "-labels" }
func (c *crashCase) lines() string  { return c.topic + "-out" }
func (c *crashCase) dead() string   { return c.topic + "-dead" }

func (c *crashCase) run(t *testing.T, b *broker.Broker) {
	job := newCrashJob(t, c.topic, c.model, c.letters)
	cl := crashClient(t, b)
	admin := kadm.NewClient(cl)
	for topic, n := range map[string]int32{
		c.in(): crashPartitions, c.labels(): crashLabelPartitions, c.lines(): c.out, c.dead(): 1,
	} {
		if r, err := admin.CreateTopic(t.Context(), n, 1, nil, topic); err != nil || r.Err != nil {
			t.Fatal(err, r.Err)
		}
	}
	dir := filepath.Join(t.TempDir(), "state")
	v := &victim{t: t, args: c.args(b, dir)}
	sending, stop := context.WithCancel(t.Context())
	defer stop()
	p := &producing{c: c, cl: cl, stream: newCrashStream(c.seed)}
	var sender sync.WaitGroup
	sender.Go(func() { p.run(sending) })
	start := time.Now()
	v.start()
	chaos := &chaos{t: t, c: c, admin: admin, r: rand.New(rand.NewPCG(c.seed, 2)), v: v, b: b, counts: map[string]int{}}
	chaos.run(c.kills)
	stop()
	sender.Wait()
	if err := cl.Flush(t.Context()); err != nil || p.failed.Load() != nil {
		t.Fatal("sending: ", err, p.failed.Load())
	}
	c.answered(t, admin, v)
	v.end(syscall.SIGTERM)
	took := time.Since(start)
	state := filepath.Join(t.TempDir(), "exported")
	ok(t, nil, "state", "export", dir, "--out", state)
	run := &crashRun{job: job, repeats: c.repeats}
	snapshot, manifest := exportedState(t, state)
	run.state, run.numbers = snapshot, manifest.Partitions
	run.events, _ = c.read(t, b, c.in(), false)
	run.labels, _ = c.read(t, b, c.labels(), false)
	for i := range run.labels {
		run.labels[i].want = wantLabel
	}
	if n := int64(len(run.events) + len(run.labels)); n != p.sent.Load() {
		t.Fatalf("%d events were sent, the topics have %d", p.sent.Load(), n)
	}
	var out, aborted topicFigures
	run.lines, out = c.read(t, b, c.lines(), true)
	run.letters, _ = c.read(t, b, c.dead(), true)
	_, aborted = c.read(t, b, c.lines(), false)
	for _, p := range slices.Concat(run.events, run.labels) {
		if next := manifest.Positions[p.source]; next <= p.offset {
			t.Errorf("the state says that %s goes on at %d, and it has an event at %d", p.source, next, p.offset)
			break
		}
	}
	found, f := examine(t, run, 200)
	t.Logf("%d events and %d labels in %.0f s; %d lines (%d late), %d letters; %d were there again, in %d branches",
		len(run.events), len(run.labels), took.Seconds(), f.lines, f.late, f.letters, f.repeated, f.branches)
	t.Logf("%v; the daemon was started %d times, ready %d times after %s, at worst %s; it ended %d transactions that the broker had left open",
		chaos.counts, v.starts, len(v.ready), median(v.ready), slices.Max(v.ready).Round(time.Millisecond), v.mended)
	t.Logf("%d transactions with lines were committed, %d aborted; %d lines stand in aborted ones", out.commits, out.aborts,
		aborted.records-out.records)
	t.Logf("missing %d, twice %d, unknown %d, wrong %d, out of order %d; not as defined %d of %d computed again; "+
		"state: %d bytes, %d faults", len(found[missing]), len(found[twice]), len(found[unknown]), len(found[wrong]),
		len(found[disorder]), len(found[otherness]), f.defined, len(run.state), len(found[drifted]))
	if len(found) > 0 {
		t.Errorf("%s\nthe daemon said last:\n%s", found, v.text())
	}
}

func (c *crashCase) args(b *broker.Broker, dir string) []string {
	url := "kafka://" + b.Addr + "/"
	args := []string{"score", "--map", absolute("testdata/crash/mapping.yaml"), "--source", url + c.in() + "+" + c.labels(),
		"--label-topics", c.labels(), "--sink", url + c.lines(), "--state", dir, "--job", c.topic, "--output", "event",
		"--checkpoint-every", "250ms", "--listen", "127.0.0.1:0"}
	if c.model == "" {
		args = append(args, "--spec", absolute("testdata/crash/spec.yaml"))
	} else {
		args = append(args, "--model", c.model, "--warm-from", "none", "--with-features")
	}
	if c.letters {
		args = append(args, "--dead-letters", c.dead())
	}
	if c.repeats {
		args = append(args, "--delivery", atLeastOnce)
	}
	return args
}

func absolute(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		panic(err)
	}
	return path
}

func median(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2].Round(time.Millisecond)
}

func crashClient(t *testing.T, b *broker.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(b.Addr), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RetryTimeout(2*time.Minute))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// producing sends the stream.
type producing struct {
	c      *crashCase
	cl     *kgo.Client
	stream *crashStream
	sent   atomic.Int64
	failed atomic.Pointer[error]
}

// wantHeader tells the oracle what an event is to give; the daemon does not read headers.
const wantHeader = "want"

func (p *producing) run(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	due := 0.0
	for start := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due += float64(crashRates[int(time.Since(start).Seconds())%len(crashRates)]) / 100; due >= 1; due-- {
			for _, x := range p.stream.next() {
				topic := p.c.in()
				if x.label {
					topic = p.c.labels()
				}
				p.sent.Add(1)
				// Not ctx: what was begun is sent to its end.
				r := &kgo.Record{Topic: topic, Partition: x.partition, Key: []byte(x.key), Value: []byte(x.value),
					Headers: []kgo.RecordHeader{{Key: wantHeader, Value: []byte(x.want)}}}
				p.cl.Produce(context.WithoutCancel(ctx), r, func(_ *kgo.Record, err error) {
					if err != nil {
						p.failed.CompareAndSwap(nil, &err)
					}
				})
			}
		}
	}
}

// victim is the daemon.
type victim struct {
	t      *testing.T
	args   []string
	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended
	starts int
	up     atomic.Bool // the newest has come to be ready

	mu     sync.Mutex
	ready  []time.Duration // from its start, by start that got there
	log    []string        // newest lines
	mended int             // transactions of the broker's that it ended
}

func (v *victim) start() {
	v.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		v.t.Fatal(err)
	}
	cmd := exec.Command(exe, v.args...)
	cmd.Env = append(os.Environ(), "ONMART_TEST_CHILD=1")
	cmd.Dir = v.t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.starts++
	v.up.Store(false)
	done := make(chan struct{})
	v.cmd, v.done = cmd, done
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			v.mu.Lock()
			if strings.Contains(lines.Text(), "listening on") {
				v.up.Store(true)
				v.ready = append(v.ready, time.Since(begun))
			}
			text := fmt.Sprintf("%d %6.3f %s", v.starts, time.Since(begun).Seconds(), lines.Text())
			if strings.Contains(text, "had left a transaction open") {
				v.mended++
			}
			v.log = append(v.log[max(0, len(v.log)-200):], text)
			v.mu.Unlock()
		}
		cmd.Wait()
	}()
}

func (v *victim) text() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.Join(v.log, "\n")
}

// lives fails the test where the daemon has ended by itself.
func (v *victim) lives() {
	v.t.Helper()
	select {
	case <-v.done:
		v.t.Fatalf("the daemon ended by itself, %s:\n%s", v.cmd.ProcessState, v.text())
	default:
	}
}

// sleep waits, while the daemon lives.
func (v *victim) sleep(d time.Duration) {
	v.t.Helper()
	select {
	case <-v.done:
	case <-time.After(d):
	}
	v.lives()
}

// waitUp waits until it is ready.
func (v *victim) waitUp() {
	v.t.Helper()
	for start := time.Now(); !v.up.Load(); v.sleep(5 * time.Millisecond) {
		if time.Since(start) > 2*time.Minute {
			v.t.Fatalf("the daemon is not ready after two minutes:\n%s", v.text())
		}
	}
}

// end sends the signal, and waits for the end. SIGTERM must give 0, but for a daemon that was not ready yet.
func (v *victim) end(s syscall.Signal) {
	v.t.Helper()
	up := v.up.Load()
	v.cmd.Process.Signal(s)
	select {
	case <-v.done:
	case <-time.After(40 * time.Second):
		v.t.Fatalf("the daemon does not end after %s:\n%s", s, v.text())
	}
	if s == syscall.SIGTERM && !v.cmd.ProcessState.Success() && up {
		v.t.Fatalf("after SIGTERM: %s:\n%s", v.cmd.ProcessState, v.text())
	}
}

// chaos ends and stops what runs.
type chaos struct {
	t      *testing.T
	c      *crashCase
	admin  *kadm.Client
	r      *rand.Rand
	v      *victim
	b      *broker.Broker
	counts map[string]int
}

func (c *chaos) upTo(d time.Duration) time.Duration { return time.Duration(c.r.Int64N(int64(d))) }

// run kills so many times: one in eight is the broker. Between them the daemon is ended in order now and then, and the
// broker is halted.
func (c *chaos) run(kills int) {
	plan := make([]func(), kills)
	for i := range plan {
		plan[i] = c.killDaemon
		if i%8 == 1 {
			plan[i] = c.killBroker
		}
	}
	for i := range (kills + 9) / 10 {
		plan = append(plan, c.terminate)
		if i%2 == 0 {
			plan = append(plan, c.halt)
		}
	}
	c.r.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	for _, do := range plan {
		if c.r.IntN(4) > 0 {
			c.v.waitUp()
			c.v.sleep(c.upTo(1500 * time.Millisecond))
		} else {
			c.v.sleep(c.upTo(300 * time.Millisecond)) // while it starts
		}
		do()
	}
}

func (c *chaos) killDaemon() {
	c.counts["daemon killed"]++
	c.v.end(syscall.SIGKILL)
	c.v.start()
}

func (c *chaos) terminate() {
	c.counts["daemon ended in order"]++
	c.v.end(syscall.SIGTERM)
	c.v.start()
}

// killBroker kills the broker, and one time in three the daemon while it is away.
func (c *chaos) killBroker() {
	c.counts["broker killed"]++
	c.b.Kill()
	if c.r.IntN(3) == 0 {
		c.v.sleep(c.upTo(500 * time.Millisecond))
		c.counts["daemon killed while the broker was away"]++
		c.v.end(syscall.SIGKILL)
		c.v.start()
	}
	c.b.Start()
	c.v.lives()
	if !c.c.repeats {
		c.mended()
	}
}

// mended waits until the daemon has ended what the broker left open: one that is alone and comes back after a kill has no
// leaders for a moment, and may drop what was decided of a transaction for some of its partitions ("Couldn't find leader
// endpoint for partitions").
func (c *chaos) mended() {
	c.t.Helper()
	for start := time.Now(); ; c.v.sleep(200 * time.Millisecond) {
		open, err := c.hanging()
		if err == nil && len(open) == 0 {
			return
		}
		if time.Since(start) > 40*time.Second {
			c.t.Errorf("hanging transactions: %+v, %v", open, err)
			return
		}
	}
}

// hanging are partitions with an open transaction of the daemon's that its coordinator does not know of. One that runs may be
// among them for a moment.
func (c *chaos) hanging() (open []kadm.DescribedProducer, err error) {
	id := "onmart-" + c.c.topic
	known, err := c.admin.DescribeTransactions(c.t.Context(), id+"-0", id+"-1", id+"-offsets")
	var topics kadm.TopicsSet
	topics.Add(c.c.lines())
	topics.Add(c.c.dead())
	topics.Add("__consumer_offsets")
	producers, err2 := c.admin.DescribeProducers(c.t.Context(), topics)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	over := map[int64]bool{}
	known.Each(func(x kadm.DescribedTransaction) {
		over[x.ProducerID] = x.Err == nil && x.State != "Ongoing" && !strings.HasPrefix(x.State, "Prepare")
	})
	producers.EachProducer(func(p kadm.DescribedProducer) {
		if p.CurrentTxnStartOffset >= 0 && over[p.ProducerID] {
			p.LastTimestamp, p.LastSequence = 0, 0
			open = append(open, p)
		}
	})
	return open, nil
}

// halt has the broker answer nothing for a while.
func (c *chaos) halt() {
	c.counts["broker halted"]++
	c.b.Pause()
	defer c.b.Resume()
	c.v.sleep(c.upTo(2 * time.Second))
	if c.r.IntN(2) == 0 {
		c.counts["daemon killed while the broker was halted"]++
		c.v.end(syscall.SIGKILL)
		c.v.start()
		c.v.sleep(c.upTo(time.Second))
	}
}

// answered waits until all input is committed.
func (c *crashCase) answered(t *testing.T, admin *kadm.Client, v *victim) {
	t.Helper()
	for start := time.Now(); ; v.sleep(50 * time.Millisecond) {
		ends, err := admin.ListEndOffsets(t.Context(), c.in(), c.labels())
		if err == nil {
			err = ends.Error()
		}
		committed, err2 := admin.FetchOffsets(t.Context(), "onmart-"+c.topic)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		behind := ""
		ends.Each(func(e kadm.ListedOffset) {
			if at, ok := committed.Lookup(e.Topic, e.Partition); e.Offset > 0 && (!ok || at.At < e.Offset) {
				behind += fmt.Sprintf(" %s/%d: %d of %d", e.Topic, e.Partition, at.At, e.Offset)
			}
		})
		if behind == "" {
			return
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("not all is answered after a minute:%s\n%s", behind, v.text())
		}
	}
}

// topicFigures are of what a topic holds.
type topicFigures struct{ records, commits, aborts int }

// read is what a topic holds, partition by partition.
func (c *crashCase) read(t *testing.T, b *broker.Broker, topic string, committed bool) ([]record, topicFigures) {
	t.Helper()
	level := kgo.ReadUncommitted()
	if committed {
		level = kgo.ReadCommitted()
	}
	cl := crashClient(t, b, kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(t.Context(), topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	from, left := map[int32]kgo.Offset{}, 0
	ends.Each(func(e kadm.ListedOffset) {
		from[e.Partition] = kgo.NewOffset().At(0)
		if e.Offset > 0 {
			left++
		}
	})
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: from})
	all, figures := map[int32][]record{}, topicFigures{}
	ctx, done := context.WithTimeout(t.Context(), 2*time.Minute)
	defer done()
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("reading %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if e, _ := ends.Lookup(topic, r.Partition); r.Offset == e.Offset-1 {
				left--
			}
			switch {
			case !r.Attrs.IsControl():
				figures.records++
				x := record{source: fmt.Sprintf("kafka:%s/%d", topic, r.Partition), offset: r.Offset, key: r.Key, value: r.Value}
				for _, h := range r.Headers {
					if h.Key == wantHeader {
						x.want = string(h.Value)
					}
				}
				all[r.Partition] = append(all[r.Partition], x)
			case len(r.Key) >= 4 && r.Key[3] == 1:
				figures.commits++
			default:
				figures.aborts++
			}
		})
	}
	var out []record
	for n := range int32(len(from)) {
		out = append(out, all[n]...)
	}
	return out, figures
}
