package main

import (
	"bytes"
	"container/heap"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/deadletter"
	"github.com/onmart/onmart/score/state"
)

// Dimensions of the stream: customers keep to a partition, stores are in all of them.
const (
	crashPartitions      = 4
	crashLabelPartitions = 2
	crashCustomers       = 300
	crashStores          = 40
)

// crashStream makes up events in the order in which they are sent. Event times go up by 20 s from one to the next, with a
// jitter of minutes and in steps of ten seconds, so that many are equal; some come hours late; one in a hundred is a second
// copy, in its own partition or in another; one in a hundred cannot be scored. A seventh get a label, most of them within the
// delay, some after it.
type crashStream struct {
	r      *rand.Rand
	n      int64 // events so far
	ids    int64
	now    int64 // seconds
	recent []sent
	labels labelQueue
}

// sent is an event on its way: its partition, and what it gives.
type sent struct {
	label     bool // of the topic of labels
	partition int32
	key       string
	value     string
	want      string
}

type crashLabelled struct {
	at int64 // when it is sent
	sent
}

// labelQueue has the label that is sent next on top.
type labelQueue []crashLabelled

func (q labelQueue) Len() int           { return len(q) }
func (q labelQueue) Less(i, j int) bool { return q[i].at < q[j].at }
func (q labelQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *labelQueue) Push(x any)        { *q = append(*q, x.(crashLabelled)) }
func (q *labelQueue) Pop() any {
	x := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return x
}

func newCrashStream(seed uint64) *crashStream {
	return &crashStream{r: rand.New(rand.NewPCG(seed, 1)), now: 1735689600} // 2025-01-01
}

// next are the event that comes next, and the labels that are due.
func (s *crashStream) next() []sent {
	s.now += 20
	var out []sent
	for len(s.labels) > 0 && s.labels[0].at <= s.now {
		out = append(out, heap.Pop(&s.labels).(crashLabelled).sent)
	}
	s.n++
	switch p := s.r.IntN(200); {
	case p < 2 && len(s.recent) == cap(s.recent) && len(s.recent) > 0:
		return append(out, s.copied())
	case p < 4 && s.n > 200: // an event of a time that has not come is believed where it is the first
		return append(out, s.faulty())
	}
	return append(out, s.transaction())
}

func (s *crashStream) transaction() sent {
	s.ids++
	at := s.now + s.r.Int64N(1200) - 600
	if s.r.IntN(100) == 0 {
		at -= 3600 * (1 + s.r.Int64N(12)) // late, some by more than the spec allows
	}
	at -= at % 10
	customer, store := s.r.Int64N(crashCustomers), s.r.Int64N(crashStores)
	x := s.event(customer, fmt.Sprintf(`"trans_id":%d,"trans_datetime":%d,"user_id":%d,"store_id":%d,"product_id":1,"amount":%d.%02d`,
		s.ids, at, customer, store, s.r.IntN(300), s.r.IntN(100)))
	if s.r.IntN(7) == 0 {
		s.label(s.ids, at, store)
	}
	if s.recent == nil {
		s.recent = make([]sent, 0, 64)
	}
	if len(s.recent) < cap(s.recent) {
		s.recent = append(s.recent, x)
	} else {
		s.recent[s.r.IntN(len(s.recent))] = x
	}
	return x
}

// event gives each event a number of its own, which its line repeats.
func (s *crashStream) event(customer int64, fields string) sent {
	return sent{partition: int32(customer % crashPartitions), key: fmt.Sprint(customer), want: wantLine,
		value: fmt.Sprintf(`{"n":%d,%s}`, s.n, fields)}
}

// copied is a transaction that was sent before, under another number.
func (s *crashStream) copied() sent {
	x := s.recent[s.r.IntN(len(s.recent))]
	_, fields, _ := strings.Cut(x.value, ",")
	x.value = fmt.Sprintf(`{"n":%d,%s`, s.n, fields)
	if s.r.IntN(2) == 0 {
		x.partition = s.r.Int32N(crashPartitions)
	}
	return x
}

func (s *crashStream) faulty() sent {
	customer := s.r.Int64N(crashCustomers)
	id := s.n + 1<<40
	x := s.event(customer, [...]string{
		fmt.Sprintf(`"trans_id":%d,"trans_datetime":%d,"user_id":%d,"store_id":1,"product_id":1,"amount":"much"`, id, s.now, customer),
		fmt.Sprintf(`"trans_id":%d,"user_id":%d,"store_id":1,"product_id":1,"amount":1`, id, customer),
		fmt.Sprintf(`"trans_id":%d,"trans_datetime":32503680000,"user_id":%d,"store_id":1,"product_id":1,"amount":1`, id, customer),
		fmt.Sprintf(`"trans_id":%d,"trans_datetime":`, id),
	}[s.r.IntN(4)])
	x.want = wantLetter
	return x
}

// label is sent about when it is known. One that says that a transaction was genuine is known when the delay is over: it
// changes nothing.
func (s *crashStream) label(id, at, store int64) {
	fraud, known := 1, at+600+s.r.Int64N(crashDelay-600)
	switch s.r.IntN(6) {
	case 0:
		known = at + crashDelay + 1 + s.r.Int64N(86400)
	case 1:
		fraud, known = 0, at+crashDelay
	}
	heap.Push(&s.labels, crashLabelled{known + s.r.Int64N(1200) - 600, sent{label: true,
		partition: int32(store % crashLabelPartitions), key: fmt.Sprint(store), want: wantLabel,
		value: fmt.Sprintf(`{"event":"label","trans_id":%d,"is_fraud":%d,"known_at":%q,"store_id":%d}`, id, fraud,
			datasets.FormatTime(known*1e6), store)}})
}

// crashTopics is the stream by partition, as topics hold it.
type crashTopics struct{ events, labels [][]record }

// fill sends n events.
func (s *crashStream) fill(n int) *crashTopics {
	c := &crashTopics{make([][]record, crashPartitions), make([][]record, crashLabelPartitions)}
	for range n {
		for _, x := range s.next() {
			topic, name := c.events, "in"
			if x.label {
				topic, name = c.labels, "labels"
			}
			p := &topic[x.partition]
			*p = append(*p, record{fmt.Sprintf("kafka:%s/%d", name, x.partition), int64(len(*p)), []byte(x.key), []byte(x.value), x.want})
		}
	}
	return c
}

// pretended is what a job would leave that merges the partitions at random. It forgets the events that forgets tells: they
// have lines, and are not in the state.
func (c *crashTopics) pretended(t *testing.T, job *crashJob, r *rand.Rand, forgets func(i int, x *record) bool) *crashRun {
	t.Helper()
	run := &crashRun{job: job, numbers: map[string]int32{}}
	var lanes [][]record
	for i, p := range append(append([][]record{}, c.events...), c.labels...) {
		lanes = append(lanes, p)
		run.numbers[p[0].source] = int32(i + 1)
		if i < len(c.events) {
			run.events = append(run.events, p...)
		} else {
			run.labels = append(run.labels, p...)
		}
	}
	s, err := score.New(job.options())
	if err != nil {
		t.Fatal(err)
	}
	decoders := newFolding(job, run.numbers)
	done := make([]int, len(lanes))
	for left := len(run.events) + len(run.labels); left > 0; left-- {
		// Of two lanes the one that is less far on, so that they stay beside each other.
		at := -1
		for range 2 {
			i := r.IntN(len(lanes))
			for done[i] == len(lanes[i]) {
				i = (i + 1) % len(lanes)
			}
			if at < 0 || done[i]*len(lanes[at]) < done[at]*len(lanes[i]) {
				at = i
			}
		}
		x := &lanes[at][done[at]]
		done[at]++
		answering := s
		if forgets(left, x) {
			answering = copyOf(t, job, s)
		}
		run.answer(t, answering, decoders, x)
	}
	run.state = snapshotOf(t, s)
	return run
}

// copyOf is another scorer with the state of one.
func copyOf(t *testing.T, job *crashJob, s *score.Scorer) *score.Scorer {
	t.Helper()
	c, err := score.New(job.options())
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]*bytes.Buffer{}
	counts, err := s.Capture(state.Engine, func(name string) io.Writer {
		parts[name] = &bytes.Buffer{}
		return parts[name]
	})
	if err == nil {
		err = c.Restore(state.Engine, func(name string) io.Reader { return parts[name] }, counts, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// answer has the scorer fold one event, and keeps what it gives.
func (run *crashRun) answer(t *testing.T, s *score.Scorer, f *folding, x *record) {
	t.Helper()
	letter := func(column, reason string) {
		l := deadletter.Letter{Source: x.source, Position: x.offset, Column: column, Reason: reason, Key: x.key, Event: x.value}
		run.letters = append(run.letters, record{source: "kafka:dead/0", offset: int64(len(run.letters)), key: x.key, value: deadletter.Append(nil, &l)})
	}
	f.reset()
	if err := f.add(x); err != nil {
		letter("", err.Error())
		return
	}
	var out score.Lines
	if _, err := s.ProcessLines(f.events(), &out); err != nil {
		t.Fatal(err)
	}
	switch {
	case len(out.Lines) == 0:
	case out.Lines[0].Fault != nil:
		letter(out.Lines[0].Fault.Column, out.Lines[0].Fault.Reason)
	default:
		run.lines = append(run.lines, record{source: "kafka:out/0", offset: int64(len(run.lines)), key: x.key, value: out.Bytes[:len(out.Bytes)-1]})
	}
}
