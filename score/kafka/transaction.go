package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Two transactional ids take turns. A broker answers a commit before it has written the markers, and what the same id
// produces meanwhile it holds up, by 20 ms at a time (add.partitions.to.txn.retry.backoff.ms); the other id is not
// held up. One transaction still begins after the other's commit was answered. Measured on two cores with a broker
// of Kafka 4.4 beside, 125 lines a transaction: p50 5.7 ms and p99 29 ms, where one id takes 25 and 40 ms.

// transactionVersion is the cluster's level of transactions: from 2 (Kafka 4) partitions and offsets join a
// transaction without being announced.
func transactionVersion(ctx context.Context, cl *kgo.Client) (int16, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "onmart", "1"
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, err
	}
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" {
			return f.MaxVersionLevel, nil
		}
	}
	return 0, nil
}

// take makes the transactional id this process's: a former one is fenced, and what it left open is aborted.
func (p *producer) take(ctx context.Context) error {
	for {
		_, _, err := p.cl.ProducerID(ctx)
		if !passing(err) {
			return err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// transact delivers in one transaction, as often as it takes.
func (k *Sink) transact(ctx context.Context, lines []Line, next map[Partition]int64, ready func() error) error {
	group := k.o.Group
	wanted := next
	if !k.moves(next) {
		group = k.o.TransactionalID
		next = map[Partition]int64{{k.c.Topics[0], 0}: k.count + 1}
		wanted = map[Partition]int64{k.counter(): k.count + 1}
	}
	for {
		start := time.Now()
		err := k.attempt(ctx, lines, group, next, ready)
		if err == nil {
			k.settled(wanted)
			return nil
		}
		var refused *readyError
		switch {
		case errors.As(err, &refused):
			return refused.err
		case errors.Is(err, errGroupInUse):
			return err
		case isFence(err) && time.Since(start) < k.c.transactionTimeout:
			return fmt.Errorf("transactional id %s: end this process, and see which other one runs the same job; "+
				"two jobs need different names: %w (%w)", k.o.TransactionalID, ErrFenced, err)
		}
		committed, settleErr := k.settle(ctx, wanted)
		if settleErr != nil {
			return settleErr
		}
		if committed {
			k.settled(wanted)
			return nil
		}
		if err := k.afterFailure(ctx, err, lines); err != nil {
			return err
		}
	}
}

// refresh commits again what is committed, so that a broker does not forget it.
func (k *Sink) refresh(ctx context.Context) error {
	if !k.mu.TryLock() {
		return nil // a delivery is under way, and commits too
	}
	defer k.mu.Unlock()
	offsets := maps.Clone(k.last)
	delete(offsets, k.counter())
	if len(offsets) == 0 {
		return nil
	}
	err := k.alone.commit(ctx, k.o.Group, offsets)
	if err != nil && !isFence(err) {
		k.note(Note{Text: "committed offsets could not be renewed: " + err.Error()})
		err = k.alone.take(ctx)
	}
	if isFence(err) {
		return fmt.Errorf("transactional id %s: %w (%w)", k.o.TransactionalID, ErrFenced, err)
	}
	return nil
}

// moves reports whether offsets differ from those committed last, so that their commit can be told from its absence.
func (k *Sink) moves(next map[Partition]int64) bool {
	for p, n := range next {
		if was, had := k.last[p]; !had || was != n {
			return true
		}
	}
	return false
}

func (k *Sink) settled(wanted map[Partition]int64) {
	maps.Copy(k.last, wanted)
	k.count = max(k.count, wanted[k.counter()])
}

// attempt runs one transaction. Any error leaves open whether it was committed. Offsets come after
// the lines: sent beside them, the broker lets one wait for the other to join the transaction, for 20 ms at a time.
func (k *Sink) attempt(ctx context.Context, lines []Line, group string, next map[Partition]int64, ready func() error) error {
	if len(lines) == 0 {
		if err := ready(); err != nil {
			return &readyError{err}
		}
		return k.alone.commit(ctx, group, next)
	}
	p := k.txns[k.turn]
	if err := p.cl.BeginTransaction(); err != nil {
		return err
	}
	id, epoch, err := p.cl.ProducerID(ctx)
	if err != nil {
		return p.abort(err)
	}
	var unready error
	var beside sync.WaitGroup
	beside.Go(func() { unready = ready() })
	err = p.produce(ctx, k.c.Topics[0], lines)
	if err == nil {
		err = p.seeTopics(ctx, k.c.Topics[0], lines)
	}
	if err == nil {
		err = commitInTransaction(ctx, p.cl, p.id, id, epoch, p.level, group, next)
	}
	beside.Wait()
	if unready != nil {
		err = &readyError{unready}
	}
	if err != nil {
		return p.abort(err)
	}
	// Not cancelled by the caller's context: that would only hide the outcome.
	ending, done := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer done()
	if err := p.cl.EndTransaction(ending, kgo.TryCommit); err != nil {
		return p.abort(err)
	}
	k.turn = 1 - k.turn
	return nil
}

// seeTopics waits until the client has stored the partitions that it has just written to for the first time. It
// sends lines of a new topic before it stores what it knows of that topic (franz-go 1.22, storePartitionsUpdate), and
// EndTransaction takes a topic without stored partitions for one that nothing was written to: it aborts, and returns
// nil. Measured with both cores busy: one first transaction in 150.
func (p *producer) seeTopics(ctx context.Context, topic string, lines []Line) error {
	last := ""
	for i := range lines {
		name := lines[i].Topic
		if name == "" {
			name = topic
		}
		if name == last {
			continue
		}
		for last = name; !p.seen[name]; {
			if leader, _, err := p.cl.PartitionLeader(name, 0); leader >= 0 || err != nil {
				p.seen[name] = true
			} else if err := sleep(ctx, 100*time.Microsecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// readyError is of the caller's own work.
type readyError struct{ err error }

func (e *readyError) Error() string { return e.err.Error() }

// endTimeout is how long the broker may take to answer a commit before the outcome counts as unknown.
const endTimeout = 15 * time.Second

// abort ends the transaction for the sake of order; that it is over is settled otherwise, so that its error is no
// matter.
func (p *producer) abort(err error) error {
	ctx, done := context.WithTimeout(context.Background(), endTimeout)
	defer done()
	_ = p.cl.EndTransaction(ctx, kgo.TryAbort)
	return err
}

// settle finds out whether the transaction that failed was committed after all, and makes the ids fit for the
// next: it takes them again, which ends what is open, and compares the offsets that are committed then.
func (k *Sink) settle(ctx context.Context, wanted map[Partition]int64) (bool, error) {
	for told := false; ; {
		now, err := k.retake(ctx)
		if err == nil {
			return k.compare(now, wanted)
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if isFence(err) {
			return false, fmt.Errorf("%w (%w)", ErrFenced, err)
		}
		if !told {
			explained, _ := k.c.explain(err)
			k.note(Note{Text: "the outcome of a transaction is not known: " + explained.Error() + "; asking until it is"})
			told = true
		}
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			return false, err
		}
	}
}

func (k *Sink) retake(ctx context.Context) (map[Partition]int64, error) {
	once, done := context.WithTimeout(ctx, 4*probeTimeout)
	defer done()
	if err := k.renew(once); err != nil {
		return nil, err
	}
	if err := k.alone.take(once); err != nil {
		return nil, err
	}
	if err := k.endHanging(once); err != nil {
		return nil, err
	}
	return k.committedNow(once)
}

// renew replaces the clients of both ids. That of the other one may have ended long ago, or wait for a marker that does
// not come.
func (k *Sink) renew(ctx context.Context) error {
	for i, old := range k.txns {
		p, err := k.newProducer(old.id)
		if err != nil {
			return err
		}
		p.level, p.records = old.level, old.records
		if err := p.take(ctx); err != nil {
			p.cl.Close()
			return err
		}
		old.cl.Close()
		k.txns[i] = p
	}
	return nil
}

// compare reads the outcome off the committed offsets. Where they are neither those of this transaction nor those of
// the one before, another process has moved them.
func (k *Sink) compare(now, wanted map[Partition]int64) (bool, error) {
	all, none := true, true
	for p, n := range wanted {
		is, ok := now[p]
		was, had := k.last[p]
		all = all && ok && is == n
		none = none && ok == had && is == was
	}
	switch {
	case all:
		return true, nil
	case none:
		return false, nil
	}
	return false, fmt.Errorf("group %s is at %v, and this process had committed %v: %w", k.o.Group, sortedNames(now), sortedNames(k.last), ErrFenced)
}

// commitInTransaction adds offsets to the transaction that a producer has open.
func commitInTransaction(ctx context.Context, cl *kgo.Client, txn string, id int64, epoch, level int16, group string, next map[Partition]int64) error {
	if level < 2 {
		if err := addOffsets(ctx, cl, txn, id, epoch, group); err != nil {
			return err
		}
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch, req.Generation = txn, group, id, epoch, -1
	for topic, partitions := range byTopic(next) {
		t := kmsg.NewTxnOffsetCommitRequestTopic()
		t.Topic = topic
		for _, p := range partitions {
			rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch = p.Number, next[p], -1
			t.Partitions = append(t.Partitions, rp)
		}
		req.Topics = append(req.Topics, t)
	}
	return again(ctx, func() error {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return groupInUse(group, fmt.Errorf("offset of topic %s, partition %d, in group %s: %w", t.Topic, p.Partition, group, err))
				}
			}
		}
		return nil
	})
}

func addOffsets(ctx context.Context, cl *kgo.Client, txn string, id int64, epoch int16, group string) error {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = txn, id, epoch, group
	return again(ctx, func() error {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
}

// again repeats a request while the cluster is busy with itself: at first every millisecond, since what it waits for
// are markers of a transaction that are being written.
func again(ctx context.Context, f func() error) error {
	for wait := time.Millisecond; ; wait = min(wait+wait/2, 200*time.Millisecond) {
		err := f()
		if !passing(err) {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// offsetWriter commits offsets without lines in transactions of its own id. franz-go ends a transaction only where it has
// produced in it; and offsets outside of any could be moved by a process that was fenced.
type offsetWriter struct {
	cl      *kgo.Client
	id      string
	level   int16
	timeout time.Duration

	producer int64
	epoch    int16
}

func (w *offsetWriter) take(ctx context.Context) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = &w.id
	req.TransactionTimeoutMillis = int32(w.timeout.Milliseconds())
	req.ProducerID, req.ProducerEpoch = -1, -1
	return again(ctx, func() error {
		resp, err := req.RequestWith(ctx, w.cl)
		if err != nil {
			return err
		}
		w.producer, w.epoch = resp.ProducerID, resp.ProducerEpoch
		return kerr.ErrorForCode(resp.ErrorCode)
	})
}

func (w *offsetWriter) commit(ctx context.Context, group string, next map[Partition]int64) error {
	if err := commitInTransaction(ctx, w.cl, w.id, w.producer, w.epoch, w.level, group, next); err != nil {
		return err
	}
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = w.id, w.producer, w.epoch, true
	ending, done := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer done()
	return again(ending, func() error {
		resp, err := req.RequestWith(ending, w.cl)
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return err
		}
		if resp.Version >= 5 && resp.ProducerID >= 0 {
			w.producer, w.epoch = resp.ProducerID, resp.ProducerEpoch
		}
		return nil
	})
}
