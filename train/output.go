package train

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/train/program"
)

// Output is where a training puts its artifact, and beside it the checkpoint that --resume takes up.
type Output struct {
	Dir           string
	Force, Resume bool
}

// CheckpointDir is where a training to out keeps what --resume takes up.
func CheckpointDir(out string) string { return filepath.Clean(out) + ".checkpoint" }

// Check fails early on what would fail at the end, and on a checkpoint that would be lost; with Force that one is
// removed.
func (o *Output) Check() error {
	dir := CheckpointDir(o.Dir)
	_, missing := os.Stat(dir)
	none := errors.Is(missing, fs.ErrNotExist)
	if none && o.Resume {
		if _, err := os.Stat(o.Dir); err == nil {
			return fmt.Errorf("there is nothing to resume: no %s, and %s is there: its training came to its end",
				dir, o.Dir)
		}
		return fmt.Errorf("there is nothing to resume: no %s; run without --resume", dir)
	}
	probe, err := atomicdir.Create(o.Dir, o.Force)
	if err != nil {
		return err
	}
	probe.Abort()
	switch {
	case none:
		return nil
	case missing != nil:
		return missing
	case !o.Resume && !o.Force:
		return fmt.Errorf("%s holds a training that was stopped: --resume goes on with it, --force starts anew", dir)
	case !o.Resume:
		return os.RemoveAll(dir)
	}
	return nil
}

// Ended is the error of a training that did not come to its end, with what it has left: after ctx was done it was
// stopped; otherwise it failed, and where it had finished an epoch, that can be gone on from. After a divergence
// nothing can: the same steps would diverge again.
func (o *Output) Ended(ctx context.Context, err error, finished bool) error {
	dir := CheckpointDir(o.Dir)
	_, missing := os.Stat(dir)
	var notFinite *program.NotFinite
	var diverged *Diverged
	switch {
	case ctx.Err() != nil && missing != nil:
		return fmt.Errorf("the training was stopped before its first step (%w); nothing was left behind", context.Cause(ctx))
	case ctx.Err() != nil:
		return fmt.Errorf("the training was stopped (%w); what was finished is kept in %s: the same command with --resume goes on from there", context.Cause(ctx), dir)
	case missing != nil || !finished || errors.As(err, &notFinite) || errors.As(err, &diverged):
		return err
	}
	return fmt.Errorf("%w; what was finished is kept in %s: the same command with --resume goes on from there, on the same --device", err, dir)
}
