package job

import (
	"context"
	"fmt"
	"io"
	"maps"
	"sync/atomic"
	"time"

	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/monitor"
	"github.com/onmart/onmart/score/state"
)

// checkpoints are captured while nothing is folded, and saved beside the scoring.
type checkpoints struct {
	taken  time.Time     // when the last was captured
	paused time.Duration // for how long the scoring stood still for it
	entry  uint64        // that it ended with
	jobs   chan captured
	busy   atomic.Bool // one is captured and not saved yet: each is as large as the state
}

// captured is a checkpoint that is saved once what it holds is delivered.
type captured struct {
	c    *state.Checkpoint
	mark int64 // of the outbox
}

func (c *checkpoints) init() {
	c.taken = time.Now()
	c.jobs = make(chan captured, 1)
}

func (c *checkpoints) close() { close(c.jobs) }

// run saves what is captured.
func (c *checkpoints) run(ctx context.Context, j *Job) error {
	for x := range c.jobs {
		if !j.out.until(ctx, x.mark) {
			continue // it would be ahead of the sink
		}
		if err := j.save(x.c); err != nil {
			return err
		}
		c.busy.Store(false)
	}
	return nil
}

// save writes a checkpoint. Where that fails the one before stays in force, with the journal since.
func (j *Job) save(c *state.Checkpoint) error {
	start := time.Now()
	if err := j.store.Save(c); err != nil {
		j.monitor.Error(monitor.StateFault)
		j.monitor.Health.Set("state", err)
		return err
	}
	j.monitor.Health.Set("state", nil)
	j.monitor.Saved(time.Now(), time.Since(start))
	var size int64
	for _, p := range c.Parts {
		size += p.Bytes()
	}
	j.monitor.StateBytes("checkpoint", size)
	j.log.Debug("checkpoint saved", "entry", c.Entry, "bytes", size, "took", time.Since(start))
	return nil
}

// maybeCheckpoint captures a checkpoint where it is time for one.
func (j *Job) maybeCheckpoint() error {
	k := &j.checkpoints
	exchanged := j.scorer.Generation() != j.generation
	if k.busy.Load() || !exchanged && time.Since(k.taken) < max(j.o.CheckpointEvery, checkpointShare*k.paused) {
		return nil
	}
	j.fold.Lock()
	defer j.fold.Unlock()
	if j.last == k.entry && !exchanged {
		return nil
	}
	c, err := j.capture()
	if err != nil {
		return err
	}
	k.busy.Store(true)
	k.jobs <- captured{c, j.out.mark()}
	return nil
}

// capture takes the state as it is. The caller holds j.fold.
func (j *Job) capture() (*state.Checkpoint, error) {
	start := time.Now()
	c := &state.Checkpoint{Entry: j.last, Next: j.positions(), Partitions: maps.Clone(j.numbers), Logs: maps.Clone(j.logs),
		Parts: map[string]*state.Part{}}
	var err error
	c.Counts, err = j.scorer.Capture(state.Engine, func(name string) io.Writer {
		c.Parts[name] = &state.Part{}
		return c.Parts[name]
	})
	if g := j.scorer.Generation(); g != j.generation {
		j.generation = g
		j.store.Become(j.identity())
	}
	j.checkpoints.taken, j.checkpoints.paused, j.checkpoints.entry = time.Now(), time.Since(start), j.last
	j.log.Debug("checkpoint captured", "entry", c.Entry, "paused", j.checkpoints.paused)
	return c, err
}

// identity is what the state belongs to.
func (j *Job) identity() state.Identity {
	id := j.store.Identity()
	return state.Identity{Job: id.Job, Nodes: j.scorer.Nodes(), Followers: j.scorer.Tasks()}
}

// positions are where each source goes on. Of a partition it is what the sink is told too, or a checkpoint would be ahead of it.
func (j *Job) positions() map[string]int64 {
	next := maps.Clone(j.elsewhere)
	if at, ok := j.scorer.Positions()[score.HTTPSource]; ok {
		next[score.HTTPSource] = at
	}
	maps.Copy(next, j.reading.given())
	if j.file != nil {
		next[fileSink] = j.length
	}
	return next
}

// fileSink names the length of a file sink among the positions.
const fileSink = "sink:file"

// saveNow saves a checkpoint of all that was folded, which is delivered.
func (j *Job) saveNow() error {
	j.fold.Lock()
	defer j.fold.Unlock()
	if j.last == j.checkpoints.entry && j.store.Last() == j.last && j.scorer.Generation() == j.generation {
		c, err := j.store.Checkpoint()
		if err == nil && c != nil && c.Entry == j.last {
			return nil
		}
	}
	c, err := j.capture()
	if err != nil {
		return fmt.Errorf("the last checkpoint: %w", err)
	}
	return j.save(c)
}
