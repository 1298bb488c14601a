package kafka

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// pollAfter reads a first record of a topic, and after f until the source ends, whose error it returns.
func pollAfter(t *testing.T, c *Config, n *notes, f func(*Source)) error {
	t.Helper()
	s := newSource(t, c, n)
	if err := s.Seek(t.Context(), atStart(s)); err != nil {
		t.Fatal(err)
	}
	read(t, s, 1)
	f(s)
	ctx, done := context.WithTimeout(t.Context(), 20*time.Second)
	defer done()
	for {
		if _, err := s.Poll(ctx, 10); err != nil {
			return err
		}
	}
}

func TestATopicThatIsDeletedEndsTheSource(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(1, "a"))
	c := parse(t, url+"a?check-every=50ms")
	produce(t, c, "a", 1, "v")
	var n notes
	err := pollAfter(t, c, &n, func(*Source) {
		if _, err := admin(t, c).DeleteTopics(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	})
	if !errors.Is(err, ErrTopicGone) || !strings.Contains(err.Error(), "topic a was deleted: create it again") {
		t.Errorf("got %v", err)
	}
}

func TestATopicThatIsMadeAgainEndsTheSource(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(1, "a"))
	c := parse(t, url+"a?check-every=50ms")
	produce(t, c, "a", 1, "v")
	var n notes
	err := pollAfter(t, c, &n, func(*Source) {
		if _, err := admin(t, c).DeleteTopics(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		createTopic(t, c, "a", 1, nil)
		produce(t, c, "a", 1, "new0", "new1", "new2")
	})
	if !errors.Is(err, ErrTopicGone) || !strings.Contains(err.Error(), "made again") {
		t.Errorf("got %v", err)
	}
}

func TestNewPartitionsAreTakenUpFromTheirBeginning(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(1, "a"))
	c := parse(t, url+"a?check-every=50ms")
	var n notes
	s := newSource(t, c, &n)
	if err := s.Seek(t.Context(), atStart(s)); err != nil {
		t.Fatal(err)
	}
	if _, err := admin(t, c).UpdatePartitions(t.Context(), 3, "a"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "three partitions", func() bool { return len(s.Partitions()) == 3 })
	produce(t, c, "a", 3, "0", "1", "2", "3", "4", "5")
	if found, _ := read(t, s, 6); len(found[Partition{"a", 2}]) != 2 {
		t.Errorf("got %v", found)
	}
	if !n.find(Told, "topic a, partition 2") {
		t.Errorf("not told: %s", n.String())
	}
}

func TestOffsetsOutsideOfTheLogAreRefused(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(1, "a"))
	c := parse(t, url+"a?check-every=50ms")
	produce(t, c, "a", 1, "0", "1", "2", "3", "4", "5")
	if _, err := admin(t, c).DeleteRecords(t.Context(), map[string]map[int32]kadmOffset{"a": {0: {Topic: "a", At: 4}}}); err != nil {
		t.Fatal(err)
	}
	var n notes
	s := newSource(t, c, &n)
	a := Partition{"a", 0}
	for _, bad := range []struct {
		next map[Partition]int64
		want string
		is   error
	}{
		{map[Partition]int64{a: 3}, "offset 3 was to be read next, and the log begins at 4", ErrTrimmed},
		{map[Partition]int64{a: 7}, "offset 7 was to be read next, and the log ends at 6", ErrTrimmed},
		{map[Partition]int64{a: 4, {"a", 1}: 9}, "there is no such partition", ErrTopicGone},
		{map[Partition]int64{}, "no offset to begin from", nil},
	} {
		if err := s.Seek(t.Context(), bad.next); err == nil || !strings.Contains(err.Error(), bad.want) || bad.is != nil && !errors.Is(err, bad.is) {
			t.Errorf("%v: got %v", bad.next, err)
		}
	}
	if err := s.Seek(t.Context(), map[Partition]int64{a: 4}); err != nil {
		t.Fatal(err)
	}
	if found, _ := read(t, s, 2); fmt.Sprint(found[a]) != "[4 5]" {
		t.Errorf("got %v", found)
	}
}

func TestALogThatIsTrimmedBehindTheReaderEndsIt(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(1, "a"))
	c := parse(t, url+"a?check-every=50ms&partition-bytes=16KiB&fetch-bytes=64KiB")
	noise := make([]byte, 12<<10) // does not get smaller by compression
	rand.Read(noise)
	big := string(noise)
	produce(t, c, "a", 1, big, big, big, big, big, big)
	var n notes
	err := pollAfter(t, c, &n, func(s *Source) {
		if _, err := admin(t, c).DeleteRecords(t.Context(), map[string]map[int32]kadmOffset{"a": {0: {Topic: "a", At: 6}}}); err != nil {
			t.Fatal(err)
		}
		produce(t, c, "a", 1, "after")
	})
	if !errors.Is(err, ErrTrimmed) || !strings.Contains(err.Error(), "lengthen the topic's retention") {
		t.Errorf("got %v", err)
	}
}

func TestAbortedLinesAreNotRead(t *testing.T) {
	cluster, url := fake(t, kfake.SeedTopics(1, "in", "out"))
	out := parse(t, url+"out")
	var n notes
	k := newSink(t, out, true, &n)
	refused := 0
	cluster.ControlKey(kmsg.TxnOffsetCommit.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		refused++
		r := req.(*kmsg.TxnOffsetCommitRequest)
		resp := r.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
		resp.Topics = []kmsg.TxnOffsetCommitResponseTopic{{Topic: "in", Partitions: []kmsg.TxnOffsetCommitResponseTopicPartition{{ErrorCode: kerr.UnknownServerError.Code}}}}
		return resp, nil, true // once
	})
	if err := k.Deliver(t.Context(), []Line{{Value: []byte("v")}}, map[Partition]int64{{"in", 0}: 1}, nil); err != nil {
		t.Fatal(err, n.String())
	}
	if refused != 1 {
		t.Fatalf("the broker refused %d times", refused)
	}
	r := newSource(t, out, &n)
	if err := r.Seek(t.Context(), atStart(r)); err != nil {
		t.Fatal(err)
	}
	produce(t, out, "out", 1, "end")
	if found, _ := read(t, r, 2); fmt.Sprint(found[Partition{"out", 0}]) != "[v end]" {
		t.Errorf("got %v", found)
	}
	if ends, err := offsets(t.Context(), r.cl, []Partition{{"out", 0}}, -1); err != nil || ends[Partition{"out", 0}] < 5 {
		t.Errorf("the log ends at %v: the aborted line was never written", ends)
	}
}

// A client may have written to a topic before it knows that it has: EndTransaction would then abort, and say nothing.
// Threads that the system interrupts at any moment make that likely: without seeTopics, under the race detector, two
// of six runs failed.
func TestFirstTransactionsAreCommitted(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	busy, idle := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			for busy.Err() == nil {
			}
		})
	}
	defer all.Wait()
	defer idle()
	_, url := fake(t, kfake.SeedTopics(1, "in", "out"))
	out := parse(t, url+"out")
	var n notes
	const sinks = 30
	for i := range sinks {
		id := fmt.Sprint("job-", i)
		k, err := NewSink(t.Context(), out, SinkOptions{ExactlyOnce: true, TransactionalID: id, Group: id, Note: n.add})
		if err != nil {
			t.Fatal(err)
		}
		for turn := range int64(2) { // each of the two ids has a client of its own
			if err := k.Deliver(t.Context(), []Line{{Value: []byte("v")}}, map[Partition]int64{{"in", 0}: turn + 1}, nil); err != nil {
				t.Fatal(err)
			}
			if now, err := k.committedNow(t.Context()); err != nil || now[Partition{"in", 0}] != turn+1 {
				t.Errorf("delivered, and the offset committed is %v, want %d (%v)", now, turn+1, err)
			}
		}
		k.Close()
	}
	r := newSource(t, out, &n)
	if err := r.Seek(t.Context(), atStart(r)); err != nil {
		t.Fatal(err)
	}
	if found, _ := read(t, r, 2*sinks); len(found[Partition{"out", 0}]) != 2*sinks {
		t.Errorf("%d lines can be read, want %d", len(found[Partition{"out", 0}]), 2*sinks)
	}
}

// The answer to a commit is lost: once after the broker committed, once before.
func TestAnUnknownOutcomeIsSettledByTheOffsets(t *testing.T) {
	for _, done := range []bool{true, false} {
		cluster, url := fake(t, kfake.SeedTopics(1, "in", "out"))
		out := parse(t, url+"out")
		var n notes
		k := newSink(t, out, true, &n)
		asked := false
		cluster.ControlKey(kmsg.EndTxn.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
			if asked {
				return nil, nil, false
			}
			asked = true
			cluster.KeepControl()
			if done { // another connection commits, as if the broker had done it before its answer was lost
				r := *req.(*kmsg.EndTxnRequest)
				cluster.SleepControl(func() {
					if _, err := r.RequestWith(context.Background(), k.admin); err != nil {
						t.Error(err)
					}
				})
			}
			resp := req.ResponseKind().(*kmsg.EndTxnResponse)
			resp.ErrorCode = kerr.UnknownServerError.Code
			return resp, nil, true
		})
		if err := k.Deliver(t.Context(), []Line{{Value: []byte("v")}}, map[Partition]int64{{"in", 0}: 1}, nil); err != nil {
			t.Fatal(done, err, n.String())
		}
		if err := k.Deliver(t.Context(), []Line{{Value: []byte("w")}}, map[Partition]int64{{"in", 0}: 2}, nil); err != nil {
			t.Fatal(done, err, n.String())
		}
		r := newSource(t, out, &n)
		if err := r.Seek(t.Context(), atStart(r)); err != nil {
			t.Fatal(err)
		}
		if found, _ := read(t, r, 2); fmt.Sprint(found[Partition{"out", 0}]) != "[v w]" {
			t.Errorf("committed first is %v: got %v", done, found)
		}
		want := int64(6) // v and its abort, v, w and their commits
		if done {
			want = 4
		}
		if ends, err := offsets(t.Context(), r.cl, []Partition{{"out", 0}}, -1); err != nil || ends[Partition{"out", 0}] != want {
			t.Errorf("committed first is %v: the log ends at %v, want %d (%v)", done, ends, want, err)
		}
		if !asked {
			t.Error("no commit was hindered")
		}
	}
}

func TestLinesTooLargeAreNamed(t *testing.T) {
	for _, exactly := range []bool{true, false} {
		_, url := fake(t, kfake.SeedTopics(1, "in"))
		out := parse(t, url+"out")
		limit := "10000"
		createTopic(t, out, "out", 1, map[string]*string{"max.message.bytes": &limit})
		var n notes
		k := newSink(t, out, exactly, &n)
		lines := make([]Line, 40)
		for i := range lines {
			lines[i].Value = bytes.Repeat([]byte{'x'}, 900) // more than one batch of the topic's
		}
		lines[7].Value, lines[30].Value = make([]byte, 9900), make([]byte, 20000)
		next := map[Partition]int64{{"in", 0}: 40}
		var large *LineError
		if err := k.Deliver(t.Context(), lines, next, nil); !errors.As(err, &large) || fmt.Sprint(large.Lines) != "[7 30]" || !strings.Contains(err.Error(), "the topic takes 10000") {
			t.Fatalf("got %v", err)
		}
		lines[7].Value, lines[30].Value = nil, nil
		if err := k.Deliver(t.Context(), lines, next, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestABrokerThatIsSlowOrDownIsToldAndWaitedFor(t *testing.T) {
	cluster, url := fake(t, kfake.SeedTopics(1, "in", "out"))
	out := parse(t, url+"out?check-every=50ms")
	var n notes
	k := newSink(t, out, true, &n)
	s := newSource(t, parse(t, url+"in?check-every=50ms"), &n)
	if err := s.Seek(t.Context(), atStart(s)); err != nil {
		t.Fatal(err)
	}
	var down atomic.Bool
	down.Store(true)
	cluster.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if down.Load() {
			return nil, errors.New("down"), true // the connection is closed
		}
		return nil, nil, false
	})
	delivered := make(chan error, 1)
	go func() {
		delivered <- k.Deliver(t.Context(), []Line{{Value: []byte("v")}}, map[Partition]int64{{"in", 0}: 1}, nil)
	}()
	eventually(t, "told that it is down", func() bool { return n.find(Down, "trying again until it works") })
	select {
	case err := <-delivered:
		t.Fatalf("delivered to a broker that is down: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	down.Store(false)
	if err := <-delivered; err != nil {
		t.Fatal(err, n.String())
	}
	eventually(t, "told that it is up", func() bool { return n.find(Up, "works again") })
	produce(t, out, "in", 1, "event")
	read(t, s, 1)
}

func TestAGroupWithMembersIsRefused(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(1, "in", "out"))
	c := parse(t, url+"out")
	other := client(t, c, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("in"))
	produce(t, c, "in", 1, "v")
	other.PollFetches(t.Context())
	var n notes
	s := newSource(t, parse(t, url+"in"), &n)
	eventually(t, "refused", func() bool {
		err := s.Commit(map[Partition]int64{{"in", 0}: 1})
		time.Sleep(20 * time.Millisecond)
		return errors.Is(err, errGroupInUse) && strings.Contains(err.Error(), "give this job a group of its own")
	})
}

func TestASinkWithoutItsTopicSaysWhatToDo(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(1, "in"))
	if _, err := NewSink(t.Context(), parse(t, url+"out"), SinkOptions{}); err == nil || !strings.Contains(err.Error(), "kafka-topics.sh --create --topic out") {
		t.Errorf("got %v", err)
	}
}
