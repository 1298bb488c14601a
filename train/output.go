package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/tune"
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
	case !o.Resume && unused(dir):
		return os.RemoveAll(dir)
	case !o.Resume && !o.Force:
		return fmt.Errorf("%s holds a training that was stopped: --resume goes on with it, --force starts anew", dir)
	case !o.Resume:
		return os.RemoveAll(dir)
	}
	return nil
}

// The manifest of the folder that holds the checkpoints of a training's parts says which training it is.
const (
	runKind   = "training"
	runFormat = 1
)

type runManifest struct {
	Kind          string `json:"kind"`
	FormatVersion int    `json:"format_version"`
	Identity      []Fact `json:"identity"`
}

// identity is what decides which parts a training has and, so far as it is known before them, what they are trained on. What
// may be another when it is resumed is not in it: the threads, the time, the device, which the parts look at.
func (b *Begun) identity() []Fact {
	trials := "none"
	if b.Trials > 0 {
		trials = fmt.Sprint(b.Trials)
	}
	facts := []Fact{
		{"task", b.Task}, {FactOnmart, b.Onmart}, {"data", b.Data}, {"--train", b.Train}, {"--seed", fmt.Sprint(b.Seed)},
		{"--seeds", fmt.Sprint(b.Seeds)}, {"--folds", fmt.Sprint(b.Folds)}, {"--tune", trials},
	}
	for _, name := range slices.Sorted(maps.Keys(b.Settings)) {
		facts = append(facts, Fact{"--set " + name, b.Settings[name]})
	}
	return facts
}

// begin makes the folder of the checkpoints, which is never there without its manifest. With Resume one that is there has to
// be of this training.
func (o *Output) begin(identity []Fact) error {
	dir := CheckpointDir(o.Dir)
	if o.Resume {
		text, err := readBounded(filepath.Join(dir, atomicdir.ManifestName), checkpointLimit)
		var m runManifest
		if err == nil {
			err = json.Unmarshal(text, &m)
		}
		if err == nil && (m.Kind != runKind || m.FormatVersion != runFormat) {
			err = fmt.Errorf("it is %q of format %d, want %q of format %d", m.Kind, m.FormatVersion, runKind, runFormat)
		}
		if err != nil {
			return damaged(dir, err)
		}
		return foreign(dir, m.Identity, identity)
	}
	text, err := json.MarshalIndent(runManifest{runKind, runFormat, identity}, "", " ")
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	d, err := atomicdir.Create(dir, true)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	defer d.Abort()
	if err := d.Commit(atomicdir.ManifestName, append(text, '\n')); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// unused tells whether a folder of checkpoints holds none yet.
func unused(dir string) bool {
	found, err := os.ReadDir(dir)
	return err == nil && len(found) == 1 && found[0].Name() == atomicdir.ManifestName
}

// journal is the file of the trials of a search.
func (o *Output) journal() string { return filepath.Join(CheckpointDir(o.Dir), "tune", "trials.json") }

// Ended is the error of a training that did not come to its end, with what it has left: after ctx was done it was
// stopped; otherwise it failed, and where it had finished an epoch, that can be gone on from. After a divergence
// nothing can, as the same steps would diverge again: what would be in the way of other settings is removed. Only the
// trials of a search that found some are kept, because their figures tell which settings those may be.
func (o *Output) Ended(ctx context.Context, err error, finished bool) error {
	dir := CheckpointDir(o.Dir)
	if unused(dir) {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	_, missing := os.Stat(dir)
	var notFinite *program.NotFinite
	var diverged *Diverged
	var none *tune.NoneTrained
	switch {
	case ctx.Err() != nil && missing != nil:
		return fmt.Errorf("the training was stopped before its first step (%w); nothing was left behind", context.Cause(ctx))
	case ctx.Err() != nil:
		return fmt.Errorf("the training was stopped (%w); what was finished is kept in %s: the same command with --resume goes on from there", context.Cause(ctx), dir)
	case missing != nil:
		return err
	case errors.As(err, &none):
		return errors.Join(err, os.RemoveAll(dir))
	case errors.As(err, &notFinite) || errors.As(err, &diverged):
		if _, e := os.Stat(o.journal()); e == nil {
			return fmt.Errorf("%w; the trials of the search are kept in %s: --force starts anew", err, o.journal())
		}
		return errors.Join(err, os.RemoveAll(dir))
	case !finished:
		return err
	}
	return fmt.Errorf("%w; what was finished is kept in %s: the same command with --resume goes on from there, on the same --device", err, dir)
}
