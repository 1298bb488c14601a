package job

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/onmart/onmart/score/kafka"
)

// Topics makes a Source of Kafka topics.
func Topics(s *kafka.Source) Source { return &topics{s: s} }

type topics struct {
	s     *kafka.Source
	names map[kafka.Partition]string
	out   []Records
}

func (t *topics) name(p kafka.Partition) string {
	name, ok := t.names[p]
	if !ok {
		if t.names == nil {
			t.names = map[kafka.Partition]string{}
		}
		name = p.Name()
		t.names[p] = name
	}
	return name
}

func (t *topics) Partitions() []Partition {
	var all []Partition
	for _, p := range t.s.Partitions() {
		all = append(all, Partition{Name: p.Partition.Name(), Log: p.TopicID, Start: p.Start, End: p.End})
	}
	return all
}

func (t *topics) Committed(ctx context.Context) (map[string]int64, error) {
	found, err := t.s.Committed(ctx)
	if err != nil {
		return nil, err
	}
	named := map[string]int64{}
	for p, n := range found {
		named[p.Name()] = n
	}
	return named, nil
}

func (t *topics) Seek(ctx context.Context, next map[string]int64) error {
	return t.s.Seek(ctx, partitionsOf(next))
}

// partitionsOf leaves out what is of no topic.
func partitionsOf(next map[string]int64) map[kafka.Partition]int64 {
	if next == nil {
		return nil
	}
	out := make(map[kafka.Partition]int64, len(next))
	for name, n := range next {
		if p, ok := kafka.ParsePartition(name); ok {
			out[p] = n
		}
	}
	return out
}

func (t *topics) Poll(ctx context.Context, limit int) ([]Records, error) {
	all, err := t.s.Poll(ctx, limit)
	if err != nil {
		return nil, err
	}
	t.out = t.out[:0]
	for i := range all {
		x := &all[i]
		events := make([]Event, len(x.Records))
		for k, r := range x.Records {
			events[k] = Event{r.Offset, r.Key, r.Value}
		}
		t.out = append(t.out, Records{Source: t.name(x.Partition), Events: events, Next: x.Next, End: x.End, Handle: x.Records})
	}
	return t.out, nil
}

func (t *topics) Recycle(r Records, from, to int) {
	if records, ok := r.Handle.([]*kgo.Record); ok {
		for _, x := range records[from:to] {
			x.Recycle()
		}
	}
}

func (t *topics) Commit(next map[string]int64) error { return t.s.Commit(partitionsOf(next)) }

func (t *topics) Close() error { return t.s.Close() }

// Topic makes a Sink of a Kafka topic. Dead letters go to the topic of that name.
func Topic(k *kafka.Sink, letters string, commits bool) Sink {
	return &topic{k: k, letters: letters, commits: commits}
}

type topic struct {
	k       *kafka.Sink
	letters string
	commits bool
	lines   []kafka.Line
}

func (t *topic) Deliver(ctx context.Context, lines []Line, next map[string]int64, ready func() error) error {
	t.lines = t.lines[:0]
	for i := range lines {
		l := kafka.Line{Key: lines[i].Key, Value: lines[i].Value}
		if lines[i].Dead {
			l.Topic = t.letters
		}
		t.lines = append(t.lines, l)
	}
	if !t.commits {
		next, ready = nil, nil
	}
	err := t.k.Deliver(ctx, t.lines, partitionsOf(next), ready)
	var large *kafka.LineError
	if errors.As(err, &large) {
		return &Refused{large.Lines, large.Err}
	}
	return err
}

func (t *topic) Commits() bool { return t.commits }

func (t *topic) Close() error { return t.k.Close() }
