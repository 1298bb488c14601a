package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/onmart/onmart/internal/testkit/broker"
	"github.com/onmart/onmart/score/model/modeltest"
)

func TestTopicLinesAreMatched(t *testing.T) {
	start := time.Unix(1000, 0)
	l := &topicLoad{b: &benchScore{rate: 1000}, run: "r1-", total: 100, warm: 10, seen: make([]uint64, 2), began: start}
	poll := func(after time.Duration, keys ...string) {
		for _, k := range keys {
			l.came([]byte(k), []byte(`{"score_id":"x"}`), start.Add(after))
		}
		l.polled(start.Add(after))
	}
	poll(5*time.Millisecond, "r1-0", "r1-9")                        // warm: not measured
	poll(10*time.Millisecond, "r0-20", "20", "r1-100", "r1--1", "") // none of them ours
	poll(30*time.Millisecond, "r1-20", "r1-28")                     // due at 20 and 28 ms
	poll(1030*time.Millisecond, "r1-20", "r1-30", "r1-30", "r1-9")  // one new
	l.came([]byte("r1-99"), []byte(`{"error":{}}`), start.Add(2005*time.Millisecond))
	l.polled(start.Add(2005 * time.Millisecond))
	r := l.result()
	if r.Events != 100 || r.Missing != 94 || r.Doubles != 3 || r.Strange != 5 || r.Errors != 1 {
		t.Errorf("counts are %+v", r)
	}
	// Latencies are 10, 2, 1000 and 1906 ms.
	if l.hist.n != 4 || math.Abs(r.Max-1906) > 1e-6 || r.P50 < 10 || r.P50 > 10.2 || r.P90 != r.Max {
		t.Errorf("%d latencies, %+v", l.hist.n, r)
	}
	if math.Abs(r.Achieved-4/2.0) > 1e-9 {
		t.Errorf("%v lines/s between the first and the last poll, want 2", r.Achieved)
	}
}

func TestBacklogRatesAreBetweenPolls(t *testing.T) {
	start := time.Unix(1000, 0)
	l := &topicLoad{b: &benchScore{backlog: 100}, run: "r-", total: 100, seen: make([]uint64, 2)}
	n := 0
	for i, lines := range []int{10, 0, 30, 40, 20} {
		for range lines {
			l.came(fmt.Append(nil, "r-", n), nil, start.Add(time.Duration(i)*time.Second))
			n++
		}
		l.polled(start.Add(time.Duration(i) * time.Second))
	}
	// 90 lines in the 4 s after the first poll; 60 in the 2 s after the one that brought the first 20.
	if r := l.result(); r.Missing != 0 || r.Achieved != 22.5 || r.Steady != 30 || l.hist.n != 0 {
		t.Errorf("%+v", r)
	}
	once := &topicLoad{b: &benchScore{backlog: 1}, run: "r-", total: 1, seen: make([]uint64, 1)}
	once.came([]byte("r-0"), nil, start)
	once.polled(start)
	if r := once.result(); r.Achieved != 0 || r.Steady != 0 || r.Missing != 0 {
		t.Errorf("all at once: %+v", r)
	}
}

func benchTopics(t *testing.T, args ...string) (*benchTopicResult, error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := newRoot()
	cmd.SetArgs(append([]string{"bench", "score", "--json"}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		return nil, err
	}
	var r benchTopicResult
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s\n%s", err, out.String(), errs.String())
	}
	return &r, nil
}

// TestBenchTopicsCountsWhatAScorerDoes measures one that holds back lines for a while, drops some and repeats some.
func TestBenchTopicsCountsWhatAScorerDoes(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "in", "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics("in"),
		kgo.FetchMaxWait(10*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	const stall = 300 * time.Millisecond
	go func() {
		send := func(r *kgo.Record, value string) {
			cl.Produce(t.Context(), &kgo.Record{Topic: "out", Key: r.Key, Value: []byte(value)}, nil)
		}
		for n := 0; ; {
			fetches := cl.PollFetches(t.Context())
			if t.Context().Err() != nil || fetches.IsClientClosed() {
				return
			}
			fetches.EachRecord(func(r *kgo.Record) {
				switch n++; {
				case n == 200:
					time.Sleep(stall) // all that becomes due meanwhile is charged
					send(r, "{}")
				case n == 250:
					return
				case n == 300:
					send(r, "{}")
					send(r, "{}")
				case n == 350:
					send(r, `{"error":{"reason":"x"}}`)
				default:
					send(r, "{}")
				}
			})
		}
	}()
	url := "kafka://" + c.ListenAddrs()[0] + "/"
	r, err := benchTopics(t, "--in", url+"in", "--out", url+"out", "--attach", "--rate", "1000",
		"--warm", "100ms", "--duration", "1s")
	if err != nil {
		t.Fatal(err)
	}
	if r.Events != 1100 || r.Missing != 1 || r.Doubles != 1 || r.Errors != 1 || r.Strange != 0 {
		t.Errorf("counts are %+v", r)
	}
	// Of a load that waited for its answers, one would be late; here it is all that were due within the stall.
	if r.Max < stall.Seconds()*1e3*.9 || r.P90 < stall.Seconds()*1e3/2 {
		t.Errorf("a stall of %v gives %+v", stall, r)
	}
	if _, err := benchTopics(t, "--in", url+"none", "--out", url+"nothing", "--attach"); err == nil ||
		!strings.Contains(err.Error(), "kafka-topics.sh --create --topic nothing") {
		t.Errorf("topics that are not there: %v", err)
	}
}

func TestBenchTopicsWithADaemonOfItsOwn(t *testing.T) {
	b := broker.Start(t, broker.Options{})
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 30_000
	for _, name := range []string{"in", "backlog", "out"} {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 2, 1
		req.Topics = append(req.Topics, topic)
	}
	if _, err := req.RequestWith(t.Context(), cl); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ONMART_TEST_CHILD", "1") // for the daemon
	model := filepath.Join(t.TempDir(), "model")
	modeltest.Save(t, model, 1)
	url := "kafka://" + b.Addr + "/"
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		r, err := benchTopics(t, "--model", model, "--in", url+"in", "--out", url+"out", "--delivery", delivery,
			"--rate", "500", "--warm", "500ms", "--duration", "1s")
		if err != nil {
			t.Fatal(err)
		}
		if r.Events != 750 || r.Missing != 0 || r.Doubles != 0 || r.Errors != 0 || !(r.P50 > 0) || r.Max < r.P50 {
			t.Errorf("%s: %+v", delivery, r)
		}
	}
	r, err := benchTopics(t, "--model", model, "--in", url+"backlog", "--out", url+"out", "--backlog", "20000")
	if err != nil {
		t.Fatal(err)
	}
	if r.Events != 20000 || r.Missing != 0 || r.Doubles != 0 || r.Errors != 0 {
		t.Errorf("backlog: %+v", r)
	}
	if _, err := benchTopics(t, "--model", model, "--in", url+"backlog", "--out", url+"out",
		"--backlog", "10"); err == nil ||
		!strings.Contains(err.Error(), "kafka-delete-records.sh") {
		t.Errorf("a backlog on top of another: %v", err)
	}
}
