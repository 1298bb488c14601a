package kafka

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/onmart/onmart/internal/testkit/broker"
)

// TestHangingTransactionsAreEnded leaves offsets behind that wait for a marker which the coordinator does not know of, as a broker
// does that was killed at the wrong moment: where the lines have the marker of their commit, also behind a transaction of
// another process that keeps readers of committed lines from it, and where nothing has.
func TestHangingTransactionsAreEnded(t *testing.T) {
	b := broker.Start(t, broker.Options{Properties: []string{"transaction.partition.verification.enable=false"}})
	url := scheme + b.Addr + "/"
	createTopic(t, parse(t, url+"x"), "in", 1, nil)
	for _, x := range []struct {
		name           string
		split, another bool
	}{{"split", true, false}, {"behind", true, true}, {"whole", false, false}} {
		topic := "out-" + x.name
		createTopic(t, parse(t, url+"x"), topic, 1, nil)
		out := parse(t, url+topic)
		var n notes
		options := SinkOptions{ExactlyOnce: true, TransactionalID: "job-" + topic, Group: "g-" + topic, Note: n.add}
		k, err := NewSink(t.Context(), out, options)
		if err != nil {
			t.Fatal(err)
		}
		if x.another {
			leftOpen(t, out, topic)
		}
		if err := k.Deliver(t.Context(), []Line{{Value: []byte("v")}}, map[Partition]int64{{"in", 0}: 1}, nil); err != nil {
			t.Fatal(err)
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		opts, err := out.options()
		if err != nil {
			t.Fatal(err)
		}
		old := versions() // of the offsets' request, which says nothing to the coordinator
		old.SetMaxKeyVersion(kmsg.TxnOffsetCommit.Int16(), 4)
		cl, err := kgo.NewClient(append(opts, kgo.MaxVersions(old))...)
		if err != nil {
			t.Fatal(err)
		}
		w := offsetWriter{cl: cl, id: options.TransactionalID + "-0", level: 2, timeout: out.transactionTimeout}
		if err := w.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := commitInTransaction(t.Context(), cl, w.id, w.producer, w.epoch, 2, options.Group, map[Partition]int64{{"in", 0}: 2}); err != nil {
			t.Fatal(err)
		}
		if !x.another {
			raisesTheEpoch(t, cl, topic)
		}
		if x.split {
			if err := mark(t.Context(), cl, writer{at: Partition{topic, 0}, id: w.producer, epoch: int32(w.epoch) + 1}, true); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := committedOnce(t.Context(), cl, options.Group, func(string) bool { return true }); !errors.Is(err, kerr.UnstableOffsetCommit) {
			t.Fatalf("no transaction hangs: %v", err)
		}
		cl.Close()
		if k, err = NewSink(t.Context(), out, options); err != nil {
			t.Fatal(err, n.String())
		}
		want, did := int64(1), "abort"
		if x.split {
			want, did = 2, "commit"
		}
		if got := k.last[Partition{"in", 0}]; got != want || !n.find(0, "ended it ("+did) {
			t.Errorf("%s: the offset is %d, want %d; %s", x.name, got, want, n.String())
		}
		if err := k.Deliver(t.Context(), []Line{{Value: []byte("w")}}, map[Partition]int64{{"in", 0}: 3}, nil); err != nil {
			t.Fatal(err)
		}
		k.Close()
	}
}

// leftOpen begins a transaction on a topic that nobody ends.
func leftOpen(t *testing.T, c *Config, topic string) {
	t.Helper()
	opts, err := c.options()
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(append(opts, kgo.TransactionalID("another"))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("open")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// raisesTheEpoch holds what wasCommitted builds on: a broker's marker is of the epoch after that of the lines.
func raisesTheEpoch(t *testing.T, with *kgo.Client, topic string) {
	t.Helper()
	cl, err := kgo.NewClient(append(with.Opts(), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var all []*kgo.Record
	for len(all) < 2 {
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		all = append(all, fetches.Records()...)
	}
	if line, marker := all[0], all[1]; line.Attrs.IsControl() || !marker.Attrs.IsControl() || marker.ProducerEpoch != line.ProducerEpoch+1 {
		t.Errorf("a line of epoch %d is followed by a marker (%v) of epoch %d", line.ProducerEpoch, marker.Attrs.IsControl(), marker.ProducerEpoch)
	}
}
