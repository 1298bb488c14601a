package kafka

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// committer sets a group's offsets outside of transactions, from a goroutine of its own: the newest that it was given,
// at one request after the other, so that an older one never follows a newer one.
type committer struct {
	cl    *kgo.Client
	group string
	note  func(Note)

	mu      sync.Mutex
	pending map[Partition]int64
	last    map[Partition]int64
	err     error // of a commit that no retry mends
	wake    chan struct{}
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// refreshAfter is how often offsets are committed again that have not changed: a broker forgets those of a group without
// members after offsets.retention.minutes, by default seven days.
const refreshAfter = time.Hour

// commitPace is the least time between two commits. A broker writes each to a log of its own: as often as lines are
// delivered they would cost it more than the lines. What a crash has delivered again is of this time.
const commitPace = 100 * time.Millisecond

const closeTimeout = 5 * time.Second

func newCommitter(cl *kgo.Client, group string, note func(Note)) *committer {
	ctx, cancel := context.WithCancel(context.Background())
	k := &committer{cl: cl, group: group, note: note, pending: map[Partition]int64{}, last: map[Partition]int64{}, wake: make(chan struct{}, 1), cancel: cancel}
	k.done.Go(func() { k.run(ctx) })
	return k
}

func (k *committer) add(next map[Partition]int64) error {
	k.mu.Lock()
	maps.Copy(k.pending, next)
	err := k.err
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return err
}

func (k *committer) run(ctx context.Context) {
	refresh := time.NewTicker(refreshAfter)
	defer refresh.Stop()
	for {
		select {
		case <-k.wake:
		case <-refresh.C:
			k.mu.Lock()
			for p, n := range k.last {
				if _, newer := k.pending[p]; !newer {
					k.pending[p] = n
				}
			}
			k.mu.Unlock()
		case <-ctx.Done():
			return
		}
		k.flush(ctx)
		if sleep(ctx, commitPace) != nil {
			return
		}
	}
}

// flush commits what is pending. What fails in passing stays pending, for the next time.
func (k *committer) flush(ctx context.Context) {
	k.mu.Lock()
	next := k.pending
	k.pending = map[Partition]int64{}
	k.mu.Unlock()
	if len(next) == 0 {
		return
	}
	for told := false; ; {
		once, done := context.WithTimeout(ctx, 2*probeTimeout)
		err := commit(once, k.cl, k.group, next)
		done()
		if err == nil {
			k.mu.Lock()
			maps.Copy(k.last, next)
			k.mu.Unlock()
			return
		}
		if errors.Is(err, errGroupInUse) {
			k.mu.Lock()
			k.err = err
			k.mu.Unlock()
			return
		}
		if !told && ctx.Err() == nil {
			k.note(Note{Text: "offsets of group " + k.group + " are not committed: " + err.Error() + "; trying again"})
			told = true
		}
		if sleep(ctx, 250*time.Millisecond) != nil {
			k.mu.Lock()
			for p, n := range next {
				if _, newer := k.pending[p]; !newer {
					k.pending[p] = n
				}
			}
			k.mu.Unlock()
			return
		}
	}
}

// close ends the goroutine and commits what is pending still.
func (k *committer) close() error {
	k.cancel()
	k.done.Wait()
	ctx, done := context.WithTimeout(context.Background(), closeTimeout)
	defer done()
	k.flush(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil && len(k.pending) > 0 {
		return errors.New("the last offsets of group " + k.group + " could not be committed: the next start reads some events again")
	}
	return k.err
}
