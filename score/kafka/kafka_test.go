package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// fake starts a cluster in the process, and returns the URL of topics in it.
func fake(t testing.TB, opts ...kfake.Opt) (*kfake.Cluster, string) {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, scheme + strings.Join(c.ListenAddrs(), ",") + "/"
}

func parse(t testing.TB, url string) *Config {
	t.Helper()
	c, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// notes collects what a source or sink tells.
type notes struct {
	mu  sync.Mutex
	all []Note
}

func (n *notes) add(x Note) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, x)
}

func (n *notes) find(state State, text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.all {
		if x.State == state && strings.Contains(x.Text, text) {
			return true
		}
	}
	return false
}

// eventually waits until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for range 400 {
		if f() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("%s: not within 10 s", what)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fmt.Sprint(n.all)
}

func client(t testing.TB, c *Config, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	base, err := c.options()
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(base, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// produce writes values to partitions of a topic: value i to partition i modulo partitions.
func produce(t testing.TB, c *Config, topic string, partitions int, values ...string) {
	t.Helper()
	cl := client(t, c, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i, v := range values {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func newSource(t testing.TB, c *Config, n *notes) *Source {
	t.Helper()
	s, err := NewSource(t.Context(), c, "g", n.add)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newSink(t testing.TB, c *Config, exactly bool, n *notes) *Sink {
	t.Helper()
	k, err := NewSink(t.Context(), c, SinkOptions{ExactlyOnce: exactly, TransactionalID: "job", Group: "g", Note: n.add})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// atStart is where each partition's log begins.
func atStart(s *Source) map[Partition]int64 {
	next := map[Partition]int64{}
	for _, p := range s.Partitions() {
		next[p.Partition] = p.Start
	}
	return next
}

// read polls until n values came, and returns them by partition, and the offsets after them.
func read(t testing.TB, s *Source, n int) (map[Partition][]string, map[Partition]int64) {
	t.Helper()
	ctx, done := context.WithTimeout(t.Context(), 20*time.Second)
	defer done()
	found, next := map[Partition][]string{}, map[Partition]int64{}
	for got := 0; got < n; {
		all, err := s.Poll(ctx, 1000)
		if err != nil {
			t.Fatalf("after %d of %d: %v", got, n, err)
		}
		for _, r := range all {
			at := int64(-1)
			for _, x := range r.Records {
				if x.Offset <= at {
					t.Fatalf("%s: offset %d after %d", r.Partition, x.Offset, at)
				}
				at = x.Offset
				found[r.Partition] = append(found[r.Partition], string(x.Value))
				got++
			}
			next[r.Partition] = r.Next
		}
		s.Recycle(all)
	}
	return found, next
}

func TestSourceReadsAllPartitionsInOrder(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(3, "a"), kfake.SeedTopics(1, "b"))
	c := parse(t, url+"a+b")
	var want []string
	for i := range 60 {
		want = append(want, fmt.Sprint("a", i))
	}
	produce(t, c, "a", 3, want...)
	produce(t, c, "b", 1, "b0", "b1")
	var n notes
	s := newSource(t, c, &n)
	if p := s.Partitions(); len(p) != 4 || p[0].End != 20 || p[3].Topic != "b" || p[3].TopicID == "" || p[3].TopicID == p[0].TopicID {
		t.Fatalf("partitions: %+v", p)
	}
	from := atStart(s)
	from[Partition{"a", 1}] = 5
	if err := s.Seek(t.Context(), from); err != nil {
		t.Fatal(err)
	}
	found, next := read(t, s, 57)
	for p := range int32(3) {
		from := 0
		if p == 1 {
			from = 5
		}
		for i, v := range found[Partition{"a", p}] {
			if w := fmt.Sprint("a", 3*(from+i)+int(p)); v != w {
				t.Errorf("partition %d: value %d is %s, want %s", p, i, v, w)
			}
		}
	}
	if len(found[Partition{"b", 0}]) != 2 || next[Partition{"a", 2}] != 20 {
		t.Errorf("b has %v, next %v", found[Partition{"b", 0}], next)
	}
}

func TestCommitIsReadBack(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(2, "a"))
	c := parse(t, url+"a")
	var n notes
	s := newSource(t, c, &n)
	for i := range int64(50) {
		if err := s.Commit(map[Partition]int64{{"a", 1}: i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := newSource(t, c, &n)
	found, err := again.Committed(t.Context())
	if err != nil || len(found) != 1 || found[Partition{"a", 1}] != 49 {
		t.Fatalf("committed %v, %v", found, err)
	}
}

func TestDeliverExactlyOnce(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(2, "in"), kfake.SeedTopics(2, "out"))
	in, out := parse(t, url+"in"), parse(t, url+"out")
	var n notes
	k := newSink(t, out, true, &n)
	for i := range int64(5) {
		lines := []Line{{Key: []byte("k"), Value: fmt.Append(nil, "x", i)}, {Value: fmt.Append(nil, "y", i)}}
		switch i {
		case 1:
			lines = nil // events without output
		}
		next := map[Partition]int64{{"in", 0}: 0, {"in", 1}: i}
		if i == 3 {
			next = nil // HTTP's
		}
		if err := k.Deliver(t.Context(), lines, next, nil); err != nil {
			t.Fatal(i, err, n.String())
		}
	}
	s := newSource(t, in, &n)
	at, err := s.Committed(t.Context())
	if err != nil || at[Partition{"in", 1}] != 4 {
		t.Fatal(at, err)
	}
	if k.count != 1 {
		t.Errorf("%d transactions without offsets, want 1", k.count)
	}
	r := newSource(t, out, &n)
	if err := r.Seek(t.Context(), atStart(r)); err != nil {
		t.Fatal(err)
	}
	found, _ := read(t, r, 8)
	var keyed string
	for _, values := range found {
		for _, v := range values {
			if v[0] == 'x' {
				keyed += v
			}
		}
	}
	if keyed != "x0x2x3x4" {
		t.Errorf("lines of one key came as %s: %v", keyed, found)
	}
}

func TestASecondSinkFencesTheFirst(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(1, "in", "out"))
	out := parse(t, url+"out")
	var n notes
	first := newSink(t, out, true, &n)
	next := map[Partition]int64{{"in", 0}: 1}
	if err := first.Deliver(t.Context(), []Line{{Value: []byte("first")}}, next, nil); err != nil {
		t.Fatal(err)
	}
	second := newSink(t, out, true, &n)
	for _, lines := range [][]Line{{{Value: []byte("late")}}, nil} {
		if err := first.Deliver(t.Context(), lines, map[Partition]int64{{"in", 0}: 2}, nil); !errors.Is(err, ErrFenced) {
			t.Errorf("%d lines: got %v, want ErrFenced", len(lines), err)
		}
	}
	if second.last[Partition{"in", 0}] != 1 {
		t.Errorf("the second begins from %v", second.last)
	}
	if err := second.Deliver(t.Context(), []Line{{Value: []byte("second")}}, map[Partition]int64{{"in", 0}: 2}, nil); err != nil {
		t.Fatal(err)
	}
	r := newSource(t, out, &n)
	if err := r.Seek(t.Context(), atStart(r)); err != nil {
		t.Fatal(err)
	}
	found, _ := read(t, r, 2)
	if v := found[Partition{"out", 0}]; fmt.Sprint(v) != "[first second]" {
		t.Errorf("committed are %v", v)
	}
}

func TestDeliverAtLeastOnce(t *testing.T) {
	_, url := fake(t, kfake.SeedTopics(1, "in", "out"))
	out := parse(t, url+"out")
	var n notes
	k := newSink(t, out, false, &n)
	for i := range int64(20) {
		if err := k.Deliver(t.Context(), []Line{{Value: fmt.Append(nil, i)}}, map[Partition]int64{{"in", 0}: i + 1}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	at, err := newSource(t, parse(t, url+"in"), &n).Committed(t.Context())
	if err != nil || at[Partition{"in", 0}] != 20 {
		t.Errorf("committed %v, %v", at, err)
	}
	r := newSource(t, out, &n)
	if err := r.Seek(t.Context(), atStart(r)); err != nil {
		t.Fatal(err)
	}
	if found, _ := read(t, r, 20); found[Partition{"out", 0}][19] != "19" {
		t.Errorf("got %v", found)
	}
}

func admin(t testing.TB, c *Config) *kadm.Client { return kadm.NewClient(client(t, c)) }

type kadmOffset = kadm.Offset
