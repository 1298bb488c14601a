package features

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/onmart/onmart/datasets"
)

// Files of a checkpoint, beside the rows that datasets.Writer keeps.
const (
	checkpointRun   = "run.json"
	checkpointState = "state.bin"
)

const (
	// checkpointShare is how many times longer a run goes on than its last checkpoint took: a twentieth of the time, at
	// the most, goes into them.
	checkpointShare = 20
	// checkpointRejects is how many bytes of rejects are held between two checkpoints; more bring the next one on.
	checkpointRejects = 64 << 20
)

// backfillPlace is run.json: how far a run had come.
type backfillPlace struct {
	Folded  int64  `json:"folded"` // rows of the input
	Rows    int64  `json:"rows"`   // rows given out
	Seq     *int64 `json:"seq,omitempty"`
	Invalid int64  `json:"invalid"`
	Counts  Counts `json:"counts"`
}

// Stopped is the error of a Run that was told to stop, or failed, after a checkpoint: Resume goes on from there.
type Stopped struct {
	Out    string
	Folded int64 // rows of the input that need not be read again
	Of     int64 // rows of the input
	Err    error // why it stopped
}

func (e *Stopped) Error() string {
	return fmt.Sprintf("the run to %s was stopped (%v); what was made of the first %d of %d rows is kept: the same "+
		"command with --resume goes on from there",
		e.Out, e.Err, e.Folded, e.Of)
}

func (e *Stopped) Unwrap() error { return e.Err }

// task names all that the rows of a run depend on, so that no other takes up its checkpoint.
func (b *backfill) task() (string, error) {
	from := ""
	if b.StateIn != "" {
		m, err := OpenState(b.StateIn)
		if err != nil {
			return "", err
		}
		from = m.Files[stateFile].SHA256
	}
	text := fmt.Sprintf("onmart features 1\n%s\n%s\n%s\n%s\nstate %t\n", b.plan.Fingerprint(), b.In.ID(), b.Range,
		from, b.StateOut != "")
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:]), nil
}

// open starts the output, or goes on with one that a checkpoint was made of.
func (b *backfill) open() error {
	if b.Append {
		return b.openOld()
	}
	kind, schema := datasets.KindFeatures, b.plan.Schema()
	var err error
	if b.CheckpointEvery <= 0 {
		b.w, err = datasets.Create(b.Out, kind, schema, b.Force)
		return err
	}
	task, err := b.task()
	if err != nil {
		return err
	}
	if b.w, err = datasets.CreateOrResume(b.Out, kind, schema, b.Force, task); err != nil {
		return err
	}
	there := b.w.Resumed()
	switch {
	case there == "" && b.Resume:
		b.w.Suspend()
		return fmt.Errorf("there is nothing to resume: no checkpoint of a run to %s; run without --resume", b.Out)
	case there != "" && !b.Resume && !b.Force:
		b.w.Suspend()
		return fmt.Errorf("a run to %s was stopped and has a checkpoint: --resume goes on with it, --force starts anew",
			b.Out)
	case there != "" && !b.Resume:
		b.w.Abort()
		b.w, err = datasets.CreateOrResume(b.Out, kind, schema, b.Force, task)
	case there != "":
		if err = b.takeUp(there); err != nil {
			b.w.Suspend()
			err = fmt.Errorf("resume the run to %s: %w; --force without --resume starts anew", b.Out, err)
		}
	}
	b.saved = time.Now()
	return err
}

// takeUp goes on from a checkpoint's folder.
func (b *backfill) takeUp(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, checkpointRun))
	if err != nil {
		return err
	}
	var at backfillPlace
	if err := json.Unmarshal(text, &at); err != nil {
		return fmt.Errorf("%s: %w", checkpointRun, err)
	}
	if at.Rows != b.w.Rows() {
		return fmt.Errorf("it has %d rows and says %d", b.w.Rows(), at.Rows)
	}
	state, err := os.Open(filepath.Join(dir, checkpointState))
	if err != nil {
		return err
	}
	defer state.Close()
	if err := b.engine.Restore(state); err != nil {
		return err
	}
	b.engine.SetCounts(at.Counts)
	b.skip, b.folded, b.rows = at.Folded, at.Folded, at.Rows
	if at.Seq != nil {
		b.seqs = ascending{last: *at.Seq, any: true}
	}
	return b.rejects.takeUp(filepath.Join(dir, RejectsFile), at.Invalid)
}

// checkpointDue tells whether it is time for a checkpoint.
func (b *backfill) checkpointDue() bool {
	if b.w == nil || b.CheckpointEvery <= 0 || b.Append {
		return false
	}
	return b.rejects.fresh.Len() > checkpointRejects ||
		time.Since(b.saved) >= max(b.CheckpointEvery, checkpointShare*b.saving)
}

// checkpoint keeps what there is, so that a run that is stopped from now on can go on from here.
func (b *backfill) checkpoint() error {
	start := time.Now()
	before := b.w.Resumed()
	err := b.w.Checkpoint(func(dir string) error {
		at := backfillPlace{Folded: b.folded, Rows: b.rows, Invalid: b.rejects.invalid, Counts: b.engine.Counts()}
		if b.seqs.any {
			at.Seq = &b.seqs.last
		}
		text, err := json.Marshal(at)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, checkpointRun), text, 0o666); err != nil {
			return err
		}
		if err := makeFile(filepath.Join(dir, checkpointState), b.engine.Snapshot); err != nil {
			return err
		}
		return b.rejects.save(before, dir)
	})
	if err != nil {
		return err
	}
	b.rejects.fresh.Reset()
	b.kept, b.saved, b.saving = b.folded, time.Now(), time.Since(start)
	return nil
}

// makeFile writes a file.
func makeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// stopped ends a run that came to an error. One that was told to stop leaves a checkpoint; one that failed leaves the
// last it made.
func (b *backfill) stopped(ctx context.Context, err error) error {
	if b.w == nil {
		return err
	}
	if b.CheckpointEvery <= 0 || b.Append {
		b.w.Abort()
		return err
	}
	var past *tooManyRejects
	if errors.As(err, &past) {
		b.w.Abort() // going on would come to the same
		return err
	}
	why := err
	if ctx.Err() != nil {
		why = context.Cause(ctx)
		worth := b.w.Resumed() != "" || time.Since(b.began) >= b.CheckpointFrom
		if worth && b.folded > max(b.kept, b.skip) {
			if cerr := b.checkpoint(); cerr != nil {
				why = fmt.Errorf("%w, and its checkpoint failed: %w", why, cerr)
			}
		}
	}
	there := b.w.Resumed() != ""
	b.w.Suspend()
	if !there {
		return err
	}
	return &Stopped{Out: b.Out, Folded: max(b.kept, b.skip), Of: b.In.Manifest().Rows, Err: why}
}

// takeUp begins with the rejects of a checkpoint.
func (l *rejectLog) takeUp(path string, invalid int64) error {
	l.invalid = invalid
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return l.carry(f, true)
}

// save puts all rejects so far into a checkpoint's folder: those of the checkpoint before and those since.
func (l *rejectLog) save(before, dir string) error {
	old, err := os.Open(filepath.Join(before, RejectsFile))
	if before == "" || errors.Is(err, fs.ErrNotExist) {
		if l.fresh.Len() == 0 {
			return nil
		}
		return os.WriteFile(filepath.Join(dir, RejectsFile), l.fresh.Bytes(), 0o666)
	}
	if err != nil {
		return err
	}
	defer old.Close()
	return makeFile(filepath.Join(dir, RejectsFile), func(w io.Writer) error {
		_, err := io.Copy(w, io.MultiReader(old, bytes.NewReader(l.fresh.Bytes())))
		return err
	})
}
