package kafka

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// topicInfo is what a broker says of a topic.
type topicInfo struct {
	id         string // hexadecimal; empty where the broker is older than topic ids
	partitions int32
	err        error
}

// topics asks for the metadata of topics, past any cache.
func topics(ctx context.Context, cl *kgo.Client, names []string) (map[string]topicInfo, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	found := map[string]topicInfo{}
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		info := topicInfo{partitions: int32(len(t.Partitions)), err: kerr.ErrorForCode(t.ErrorCode)}
		if t.TopicID != [16]byte{} {
			info.id = hex.EncodeToString(t.TopicID[:])
		}
		found[*t.Topic] = info
	}
	for _, name := range names {
		if _, ok := found[name]; !ok {
			return nil, fmt.Errorf("the broker said nothing of topic %s", name)
		}
	}
	return found, nil
}

// findTopics asks for topics that must be there. One that was made a moment ago may not be known yet everywhere.
func (c *Config) findTopics(ctx context.Context, cl *kgo.Client, names []string) (map[string]topicInfo, error) {
	for start := time.Now(); ; {
		found, err := topics(ctx, cl, names)
		if err != nil {
			err, _ = c.explain(err)
			return nil, err
		}
		missing := ""
		for _, name := range names {
			switch err := found[name].err; {
			case err == nil:
			case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.LeaderNotAvailable):
				missing = name
			default:
				err, _ = c.explain(err)
				return nil, fmt.Errorf("topic %s: %w", name, err)
			}
		}
		if missing == "" {
			return found, nil
		}
		if time.Since(start) > 3*time.Second {
			return nil, fmt.Errorf("%s has no topic %s: check the name, or create it (kafka-topics.sh --create --topic %s --partitions N)", c.where(), missing, missing)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// offsets asks where the logs of partitions begin (at -2) or end (at -1) for readers of committed records.
func offsets(ctx context.Context, cl *kgo.Client, partitions []Partition, at int64) (map[Partition]int64, error) {
	return listOffsets(ctx, cl, partitions, at, 1)
}

// listOffsets is offsets with an isolation level, 0 for all that is written; at may be a time in milliseconds too, whose first
// record it gives, or -1.
func listOffsets(ctx context.Context, cl *kgo.Client, partitions []Partition, at int64, isolation int8) (map[Partition]int64, error) {
	byTopic := map[string][]int32{}
	for _, p := range partitions {
		byTopic[p.Topic] = append(byTopic[p.Topic], p.Number)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	req.IsolationLevel = isolation
	for _, topic := range slices.Sorted(maps.Keys(byTopic)) {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for _, n := range byTopic[topic] {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = n, at
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	found := map[Partition]int64{}
	for _, shard := range cl.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return nil, fmt.Errorf("topic %s, partition %d: %w", t.Topic, p.Partition, err)
				}
				found[Partition{t.Topic, p.Partition}] = p.Offset
			}
		}
	}
	if len(found) != len(partitions) {
		return nil, fmt.Errorf("the broker gave the offsets of %d of %d partitions", len(found), len(partitions))
	}
	return found, nil
}

// committed asks for a group's offsets of topics, once no transaction on them is open any more; a partition that
// has none is absent. It waits for an open transaction until ctx ends.
func committed(ctx context.Context, cl *kgo.Client, group string, only func(topic string) bool) (map[Partition]int64, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		found, err := committedOnce(ctx, cl, group, only)
		if errors.Is(err, kerr.GroupIDNotFound) {
			return found, nil // nothing was committed yet
		}
		if !passing(err) {
			return found, err
		}
		if sleep(ctx, wait) != nil {
			if errors.Is(err, kerr.UnstableOffsetCommit) {
				err = fmt.Errorf("%w: the broker does not end a transaction on them, as one that was killed while it was the only one may not: "+
					"grant Read on the sink's topics and on %s, and ClusterAction, for one start, which ends it as it was decided", err, offsetsTopic)
			}
			return nil, fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}

// passing reports the answers that a request in order gets while the cluster is busy with itself.
func passing(err error) bool {
	for _, e := range []error{kerr.UnstableOffsetCommit, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.RequestTimedOut} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func committedOnce(ctx context.Context, cl *kgo.Client, group string, only func(topic string) bool) (map[Partition]int64, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = group
	req.Topics = nil // all
	req.RequireStable = true
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	g.MemberEpoch = -1
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	found := map[Partition]int64{}
	take := func(topic string, partition int32, offset int64, code int16) error {
		if !only(topic) {
			return nil
		}
		if err := kerr.ErrorForCode(code); err != nil {
			return err
		}
		if offset >= 0 {
			found[Partition{topic, partition}] = offset
		}
		return nil
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", group, err)
	}
	for _, t := range resp.Topics { // brokers before 3.0
		for _, p := range t.Partitions {
			if err := take(t.Topic, p.Partition, p.Offset, p.ErrorCode); err != nil {
				return nil, fmt.Errorf("offsets of group %s: %w", group, err)
			}
		}
	}
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return nil, fmt.Errorf("offsets of group %s: %w", group, err)
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				if err := take(t.Topic, p.Partition, p.Offset, p.ErrorCode); err != nil {
					return nil, fmt.Errorf("offsets of group %s: %w", group, err)
				}
			}
		}
	}
	return found, nil
}

// commit sets a group's offsets outside of any transaction.
func commit(ctx context.Context, cl *kgo.Client, group string, next map[Partition]int64) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = group
	req.Generation = -1
	for topic, partitions := range byTopic(next) {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic = topic
		for _, p := range partitions {
			rp := kmsg.NewOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch = p.Number, next[p], -1
			t.Partitions = append(t.Partitions, rp)
		}
		req.Topics = append(req.Topics, t)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if e := kerr.ErrorForCode(p.ErrorCode); e != nil && err == nil {
					err = fmt.Errorf("offset of topic %s, partition %d, in group %s: %w", t.Topic, p.Partition, group, e)
				}
			}
		}
		if !passing(err) {
			return groupInUse(group, err)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// errGroupInUse marks a group that has members.
var errGroupInUse = errors.New("the group has members")

// groupInUse tells what the answers mean that a group with members gives to one who is none.
func groupInUse(group string, err error) error {
	for _, e := range []error{kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.FencedInstanceID, kerr.StaleMemberEpoch, kerr.FencedMemberEpoch} {
		if errors.Is(err, e) {
			return fmt.Errorf("group %s is used by consumers that share out partitions: give this job a group of its own (group=NAME), or stop them: %w, %w", group, errGroupInUse, err)
		}
	}
	return err
}

// byTopic sorts partitions under their topics.
func byTopic(next map[Partition]int64) map[string][]Partition {
	found := map[string][]Partition{}
	for p := range next {
		found[p.Topic] = append(found[p.Topic], p)
	}
	for _, partitions := range found {
		slices.SortFunc(partitions, func(a, b Partition) int { return int(a.Number - b.Number) })
	}
	return found
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
