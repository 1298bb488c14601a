package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/onmart/onmart/internal/testkit/broker"
)

// liveJob is a scorer of the comparison's features on topics of its own.
type liveJob struct {
	t      *testing.T
	b      *broker.Broker
	name   string
	state  string
	client *kgo.Client
	admin  *kadm.Client
	sent   int
}

func newLiveJob(t *testing.T, b *broker.Broker, name string, partitions int32) *liveJob {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(b.Addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	j := &liveJob{t: t, b: b, name: name, state: filepath.Join(t.TempDir(), "state"), client: c, admin: kadm.NewClient(c)}
	j.create(j.in(), partitions)
	j.create(j.out(), 1)
	j.create(j.dead(), 1)
	return j
}

func (j *liveJob) in() string   { return j.name + "-in" }
func (j *liveJob) out() string  { return j.name + "-out" }
func (j *liveJob) dead() string { return j.name + "-dead" }

func (j *liveJob) create(topic string, partitions int32) {
	j.t.Helper()
	if _, err := j.admin.CreateTopic(context.Background(), partitions, 1, nil, topic); err != nil {
		j.t.Fatal(err)
	}
}

// send produces n purchases, a minute from one to the next.
func (j *liveJob) send(n int) {
	j.t.Helper()
	var records []*kgo.Record
	for range n {
		records = append(records, &kgo.Record{Topic: j.in(), Key: fmt.Append(nil, j.sent%7), Value: fmt.Appendf(nil,
			`{"id":%d,"ts":%d,"customer":%d,"terminal":%d,"amount":1.5}`, j.sent, 1_600_000_000+60*j.sent, j.sent%7, j.sent%3)})
		j.sent++
	}
	if err := j.client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		j.t.Fatal(err)
	}
}

// start starts the daemon.
func (j *liveJob) start(more ...string) *served {
	j.t.Helper()
	return startScore(j.t, nil, append([]string{"--spec", absoluteOf(j.t, "../../docs/bench/streams/spec.yaml"),
		"--map", absoluteOf(j.t, "../../docs/bench/streams/mapping.yaml"), "--output", "event", "--job", j.name, "--state", j.state,
		"--source", "kafka://" + j.b.Addr + "/" + j.in() + "?check-every=100ms", "--sink", "kafka://" + j.b.Addr + "/" + j.out() + "?check-every=100ms",
		"--dead-letters", j.dead(), "--listen", "127.0.0.1:0"}, more...)...)
}

func absoluteOf(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// lines reads a topic, committed, until it has n records, and a moment longer.
func (j *liveJob) lines(topic string, n int) []string {
	j.t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(j.b.Addr), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		j.t.Fatal(err)
	}
	defer c.Close()
	var out []string
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
		wait := time.Until(end)
		if len(out) >= n {
			wait = 300 * time.Millisecond
		}
		ctx, done := context.WithTimeout(context.Background(), wait)
		fetches := c.PollFetches(ctx)
		done()
		if fetches.NumRecords() == 0 && len(out) >= n {
			break
		}
		fetches.EachRecord(func(r *kgo.Record) { out = append(out, string(r.Value)) })
	}
	return out
}

// answered checks that each purchase so far has one line, with the right count of its customer's purchases of a day.
func (j *liveJob) answered() {
	j.t.Helper()
	seen := map[int]int{}
	for _, l := range j.lines(j.out(), j.sent) {
		var x struct{ ID, N1 *int }
		if err := json.Unmarshal([]byte(l), &x); err != nil || x.ID == nil || x.N1 == nil {
			j.t.Fatalf("%s: %v", l, err)
		}
		seen[*x.ID]++
		if want := *x.ID/7 + 1; *x.ID < 24*60 && *x.N1 != want { // all of the first day are within a day
			j.t.Errorf("purchase %d: %d in a day, want %d", *x.ID, *x.N1, want)
		}
	}
	for id := range j.sent {
		if seen[id] != 1 {
			j.t.Errorf("purchase %d has %d lines", id, seen[id])
		}
	}
	if len(seen) != j.sent {
		j.t.Errorf("%d purchases have lines, %d were sent", len(seen), j.sent)
	}
}

// worked is one whole life of the daemon, with n purchases more.
func (j *liveJob) worked(n int, more ...string) {
	j.t.Helper()
	s := j.start(more...)
	j.send(n)
	j.answered()
	j.stop(s)
}

// stop ends the daemon in order.
func (j *liveJob) stop(s *served) {
	j.t.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-s.done; err != nil {
		j.t.Errorf("after SIGTERM: %v: %s", err, s.text())
	}
}

// TestRealDaemon puts the daemon through what can happen to it and its broker.
func TestRealDaemon(t *testing.T) {
	b := broker.Start(t, broker.Options{})
	t.Run("new partitions", func(t *testing.T) {
		j := newLiveJob(t, b, "more", 2)
		s := j.start()
		j.send(20)
		if _, err := j.admin.UpdatePartitions(context.Background(), 5, j.in()); err != nil {
			t.Fatal(err)
		}
		s.saying(t, "new and taken up")
		j.client.ForceMetadataRefresh()
		j.send(60)
		j.answered()
		j.stop(s)
		s = j.start() // the numbers of the new ones are in the state
		j.send(10)
		j.answered()
		j.stop(s)
	})
	t.Run("producer with transactions", func(t *testing.T) {
		j := newLiveJob(t, b, "txn", 1)
		plain := j.client
		var err error
		if j.client, err = kgo.NewClient(kgo.SeedBrokers(b.Addr), kgo.TransactionalID("txn")); err != nil {
			t.Fatal(err)
		}
		defer j.client.Close()
		for range 3 { // each time the log ends with the end of a transaction
			s := j.start("--checkpoint-every", "20ms")
			if err := j.client.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			j.send(10)
			if err := j.client.EndTransaction(context.Background(), kgo.TryCommit); err != nil {
				t.Fatal(err)
			}
			j.answered()
			j.stop(s)
		}
		j.client = plain
	})
	t.Run("terminated under load", func(t *testing.T) {
		j := newLiveJob(t, b, "term", 4)
		for range 4 {
			s := j.start("--checkpoint-every", "50ms")
			j.send(150)
			j.stop(s)
		}
		s := j.start()
		j.answered()
		j.stop(s)
	})
	t.Run("two of one job", func(t *testing.T) {
		j := newLiveJob(t, b, "two", 2)
		first := j.start()
		j.send(10)
		j.answered()
		onOneState := j.start()
		endsWith(t, onOneState, "is in use by")
		other := *j
		other.t, other.state = t, filepath.Join(t.TempDir(), "state")
		// By mistake: it is refused before it has done anything to the first.
		endsWith(t, other.start(), "start once with --rebuild")
		j.send(5)
		j.answered()
		second := other.start("--rebuild")
		j.send(10)
		endsWith(t, first, "another daemon of the same job has taken over")
		j.answered()
		j.stop(second)
	})
	t.Run("offsets set back", func(t *testing.T) {
		j := newLiveJob(t, b, "back", 1)
		j.worked(30)
		if err := j.admin.CommitAllOffsets(context.Background(), "onmart-back", kadm.Offsets{j.in(): {0: {Topic: j.in(), Partition: 0, At: 7}}}); err != nil {
			t.Fatal(err)
		}
		endsWith(t, j.start(), "set it to 30, or start with a new --state")
	})
	t.Run("topic made again while it was down", func(t *testing.T) {
		j := newLiveJob(t, b, "again", 1)
		j.worked(30)
		if _, err := j.admin.DeleteTopics(context.Background(), j.in()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		j.create(j.in(), 1)
		j.client.PurgeTopicsFromClient(j.in())
		j.send(40)
		endsWith(t, j.start(), "was deleted and made again since the state was saved")
	})
	t.Run("topic deleted", func(t *testing.T) {
		j := newLiveJob(t, b, "gone", 1)
		s := j.start()
		j.send(5)
		j.answered()
		if _, err := j.admin.DeleteTopics(context.Background(), j.in()); err != nil {
			t.Fatal(err)
		}
		endsWith(t, s, "was deleted")
	})
	t.Run("log trimmed past the state", func(t *testing.T) {
		j := newLiveJob(t, b, "trim", 1)
		j.worked(30)
		j.send(30)
		if _, err := j.admin.DeleteRecords(context.Background(), kadm.Offsets{j.in(): {0: {Topic: j.in(), Partition: 0, At: 45}}}); err != nil {
			t.Fatal(err)
		}
		endsWith(t, j.start(), "the log no longer has")
	})
	t.Run("dead letters and redrive", func(t *testing.T) {
		j := newLiveJob(t, b, "bad", 2)
		s := j.start()
		j.send(5)
		bad := fmt.Sprintf(`{"id":%d,"ts":1600000300,"customer":5,"terminal":2,"amount":"1,5"}`, j.sent)
		if err := j.client.ProduceSync(context.Background(), &kgo.Record{Topic: j.in(), Key: []byte("5"), Value: []byte(bad)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		letters := j.lines(j.dead(), 1)
		if len(letters) != 1 || !strings.Contains(letters[0], `"column":"amount"`) || !strings.Contains(letters[0], `\"1,5\"`) {
			t.Fatalf("%v", letters)
		}
		j.answered()
		// A producer that mends what it sent, in place of one that mends the mapping.
		code, _, stderr := cli(t, "redrive", "--from", "kafka://"+b.Addr+"/"+j.dead(), "--to", "kafka://"+b.Addr+"/"+j.in())
		if code != 0 {
			t.Fatal(stderr)
		}
		if letters = j.lines(j.dead(), 2); len(letters) != 2 || !strings.Contains(letters[1], `"key":"5"`) {
			t.Errorf("sent again it comes back: %v", letters)
		}
		j.stop(s)
	})
	t.Run("state of another version", func(t *testing.T) {
		j := newLiveJob(t, b, "version", 1)
		j.worked(30)
		if err := os.WriteFile(filepath.Join(j.state, "format"), []byte("onmart score state 9\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		endsWith(t, j.start(), "is of another version")
	})
	t.Run("broker down and slow", func(t *testing.T) {
		j := newLiveJob(t, b, "down", 2)
		s := j.start()
		j.send(20)
		j.answered()
		b.Pause()
		notReady(t, s)
		b.Resume()
		ready(t, s)
		j.send(20)
		j.answered()
		b.Stop()
		notReady(t, s)
		b.Start()
		j.client.ForceMetadataRefresh()
		j.send(20)
		ready(t, s)
		b.Kill()
		b.Start()
		j.send(20)
		j.answered()
		ready(t, s)
		j.stop(s)
	})
}

func readiness(s *served) (int, string) {
	resp, err := http.Get("http://" + s.addr + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	var body strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := resp.Body.Read(buf)
		body.Write(buf[:n])
		if err != nil {
			return resp.StatusCode, body.String()
		}
	}
}

// notReady waits until readiness says that the broker does not answer.
func notReady(t *testing.T, s *served) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if code, body := readiness(s); code == http.StatusServiceUnavailable && (strings.Contains(body, `"source","ok":false`) || strings.Contains(body, `"sink","ok":false`)) {
			return
		}
	}
	t.Errorf("it stays ready: %s", s.text())
}

func ready(t *testing.T, s *served) {
	t.Helper()
	var code int
	var body string
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if code, body = readiness(s); code == http.StatusOK {
			return
		}
	}
	t.Errorf("it does not get ready again: %d %s: %s", code, body, s.text())
}
