package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A broker that was killed while it was alone, or whose partitions have no leader for a moment as it comes back, may
// drop what was decided of a transaction for some of its partitions ("Couldn't find leader endpoint for partitions"):
// its coordinator takes it for ended, and those partitions wait for its marker for ever. Where another partition has the
// marker of a commit, an abort of the rest would tear it apart: lines that can be read, with offsets before them.

// writer is the state of a transactional producer on a partition.
type writer struct {
	at          Partition
	id          int64
	epoch       int32
	coordinator int32
	open        bool
	last        time.Time
}

// offsetsTopic is where a broker keeps the offsets of groups.
const offsetsTopic = "__consumer_offsets"

// endHanging ends transactions of this sink's ids that are open on a partition and not for their coordinator, as the
// coordinator had decided: they are committed where any partition has the marker of the commit, and aborted else. It is to
// be called when the ids have just been taken, so that none is under way. A cluster that does not allow to look is left
// as it is.
func (k *Sink) endHanging(ctx context.Context) error {
	if k.alone.level < 2 {
		return nil // the epochs of transactions do not tell them apart
	}
	ids := map[int64]bool{k.alone.producer: true}
	for _, p := range k.txns {
		id, _, err := p.cl.ProducerID(ctx)
		if err != nil {
			return err
		}
		ids[id] = true
	}
	var writers []writer
	err := whileRetriable(ctx, func() (err error) {
		writers, err = k.writers(ctx, ids)
		return err
	})
	if notAllowed(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, w := range writers {
		if !w.open {
			continue
		}
		committed := false
		err := whileRetriable(ctx, func() (err error) {
			if committed, err = k.wasCommitted(ctx, w, writers); err != nil {
				return err
			}
			return mark(ctx, k.admin, w, committed)
		})
		did := "abort"
		if committed {
			did = "commit"
		}
		if notAllowed(err) {
			k.note(Note{Text: fmt.Sprintf("%s: the broker left a transaction open on %s, and to %s it, as was decided, needs the right ClusterAction on "+
				"the cluster for this start: %v", k.c.where(), w.at, did, err)})
			continue
		}
		if err != nil {
			return fmt.Errorf("a transaction that the broker left open on %s: %w", w.at, err)
		}
		k.note(Note{Text: fmt.Sprintf("%s: the broker had left a transaction open on %s: ended it (%s, as was decided)", k.c.where(), w.at, did)})
	}
	return nil
}

// whileRetriable repeats f while a broker that has just come back knows no leaders yet.
func whileRetriable(ctx context.Context, f func() error) error {
	for {
		err := f()
		if !kerr.IsRetriable(err) {
			return err
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
}

func notAllowed(err error) bool {
	return errors.Is(err, kerr.ClusterAuthorizationFailed) || errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.UnsupportedVersion)
}

// writers are the producers of some ids on the partitions that this sink's transactions may take part in.
func (k *Sink) writers(ctx context.Context, ids map[int64]bool) ([]writer, error) {
	names := append(k.topics(), offsetsTopic)
	found, err := topics(ctx, k.admin, names)
	if err != nil {
		return nil, err
	}
	req := kmsg.NewPtrDescribeProducersRequest()
	for _, name := range names {
		if errors.Is(found[name].err, kerr.UnknownTopicOrPartition) && name == offsetsTopic {
			continue // nobody has committed anything yet
		}
		if found[name].err != nil {
			return nil, fmt.Errorf("topic %s: %w", name, found[name].err)
		}
		t := kmsg.NewDescribeProducersRequestTopic()
		t.Topic = name
		for n := range found[name].partitions {
			t.Partitions = append(t.Partitions, n)
		}
		req.Topics = append(req.Topics, t)
	}
	var all []writer
	for _, shard := range k.admin.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, t := range shard.Resp.(*kmsg.DescribeProducersResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return nil, fmt.Errorf("producers of topic %s, partition %d: %w", t.Topic, p.Partition, err)
				}
				for _, a := range p.ActiveProducers {
					if ids[a.ProducerID] {
						all = append(all, writer{Partition{t.Topic, p.Partition}, a.ProducerID, a.ProducerEpoch, a.CoordinatorEpoch,
							a.CurrentTxnStartOffset >= 0, time.UnixMilli(a.LastTimestamp)})
					}
				}
			}
		}
	}
	return all, nil
}

// wasCommitted looks for the marker of the commit of the transaction that w has open. A marker raises the epoch, so that
// it is one of the next epoch.
func (k *Sink) wasCommitted(ctx context.Context, w writer, all []writer) (bool, error) {
	for _, x := range all {
		if x.id != w.id || x.open || x.epoch <= w.epoch {
			continue
		}
		if found, err := k.hasCommit(ctx, x.at, w); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// clockSkew is how far the clocks of a cluster and of its clients may be apart.
const clockSkew = time.Minute

// hasCommit reads a partition from when w last wrote to its end, past what readers of committed records see. What cannot
// be read is an error: a commit that was overlooked would be torn.
func (k *Sink) hasCommit(ctx context.Context, at Partition, w writer) (bool, error) {
	find := func(when int64) (int64, error) {
		found, err := listOffsets(ctx, k.admin, []Partition{at}, when, 0)
		return found[at], err
	}
	end, err := find(-1)
	if err != nil {
		return false, err
	}
	next, err := find(w.last.Add(-clockSkew).UnixMilli())
	if err != nil || next < 0 { // -1: nothing was written since
		return false, err
	}
	opts, err := k.c.options()
	if err != nil {
		return false, err
	}
	cl, err := kgo.NewClient(append(opts, kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{at.Topic: {at.Number: kgo.NewOffset().At(next)}}))...)
	if err != nil {
		return false, err
	}
	defer cl.Close()
	for next < end {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return false, fmt.Errorf("%s at %d of %d: %w", at, next, end, err)
		}
		for _, r := range fetches.Records() {
			// A marker's key is two numbers of 16 bits: its version, and 0 for an abort, 1 for a commit.
			if r.Attrs.IsControl() && r.ProducerID == w.id && int32(r.ProducerEpoch) == w.epoch+1 &&
				len(r.Key) >= 4 && binary.BigEndian.Uint16(r.Key[2:]) == 1 {
				return true, nil
			}
			next = r.Offset + 1
		}
	}
	return false, nil
}

// mark writes the marker that a partition waits for.
func mark(ctx context.Context, cl *kgo.Client, w writer, committed bool) error {
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	m := kmsg.NewWriteTxnMarkersRequestMarker()
	m.ProducerID, m.ProducerEpoch, m.CoordinatorEpoch, m.Committed = w.id, int16(w.epoch), max(0, w.coordinator), committed
	t := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
	t.Topic, t.Partitions = w.at.Topic, []int32{w.at.Number}
	m.Topics = append(m.Topics, t)
	req.Markers = append(req.Markers, m)
	for _, shard := range cl.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return shard.Err
		}
		for _, m := range shard.Resp.(*kmsg.WriteTxnMarkersResponse).Markers {
			for _, t := range m.Topics {
				for _, p := range t.Partitions {
					if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}
