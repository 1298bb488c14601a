package train

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/progress"
)

// Budget ends a run by the clock, at the last epoch that fits. Where it ends depends on the machine and on what else
// that does: only without one is a training the same each time.
type Budget struct {
	// Total is the whole budget, as it was given, and Start when it began.
	Total time.Duration
	Start time.Time
	// Later is what comes after this run and has to fit too, where an epoch of this run takes so long, it has done so
	// many epochs, and so many will be its best; nil is nothing.
	Later func(epoch time.Duration, done, best int) time.Duration
	// Must trains the first epoch whatever the time: where what has been trained before would be lost without it.
	Must bool
}

// TooShort is the error of a budget in which not even one epoch fits.
type TooShort struct {
	Total  time.Duration
	Before time.Duration // what had passed when the first epoch began
	Epoch  time.Duration // what an epoch takes, about; 0 where the budget was over before a step was done
	After  time.Duration // what has to follow it, about: other runs of one epoch each
	Needed time.Duration // for one epoch and what comes after it, about
}

func (e *TooShort) Error() string {
	if e.Epoch == 0 {
		return fmt.Sprintf("--max-time %s was over before the first epoch began: %s had passed; give a multiple of that",
			e.Total, progress.Duration(e.Before))
	}
	after := ""
	if e.After > 0 {
		after = fmt.Sprintf(", and what has to follow it about %s", progress.Duration(e.After))
	}
	return fmt.Sprintf("--max-time %s is too small for one epoch: %s had passed when the first began, and it takes "+
		"about %s%s; give --max-time %s or more",
		e.Total, progress.Duration(e.Before), progress.Duration(e.Epoch), after, roundUp(e.Needed))
}

// roundUp is a duration in whole seconds, or minutes where it is long.
func roundUp(d time.Duration) time.Duration {
	unit := time.Second
	if d > 10*time.Minute {
		unit = time.Minute
	}
	return (d + unit - 1) / unit * unit
}

// left is what is left after an instant of what must be kept for later.
func (b *Budget) left(now time.Time, epoch time.Duration, done, best int) time.Duration {
	left := b.Total - now.Sub(b.Start)
	if b.Later != nil {
		left -= b.Later(epoch, done, best)
	}
	return left
}

// outOfTime tells, before step at of an epoch that began at step begin and has taken so long, whether the budget ends the
// run here. What was done of the epoch is then left; a budget without one whole epoch is an error.
func (r *run) outOfTime(at, begin int, took time.Duration) (bool, error) {
	if r.Budget == nil {
		return false, nil
	}
	done := len(r.state.Epochs)
	if done == 0 && r.Budget.Must {
		return false, nil
	}
	epoch := r.epochTime()
	if at > begin {
		// This epoch as it goes; the last one says more in the first steps.
		share := float64(at-begin) / float64(r.steps)
		if this := time.Duration(float64(took) / share); done == 0 || share > .2 {
			epoch = this
		}
	} else if done == 0 {
		return r.firstTooLate()
	}
	rest := time.Duration(float64(epoch) * float64(r.steps-at) / float64(r.steps))
	best := max(r.state.Best, 1)
	left := r.Budget.left(time.Now(), epoch, done+1, best)
	if done == 0 {
		// The estimate is rough in the beginning: only what surely does not fit is given up before its time is over.
		if spent := at-begin < r.steps/8 && left > 0; rest <= left || spent {
			return false, nil
		}
		before := time.Since(r.Budget.Start) - took
		after := time.Duration(0)
		if r.Budget.Later != nil {
			after = r.Budget.Later(epoch, 1, 1)
		}
		needed := time.Since(r.Budget.Start) + rest + after
		return false, &TooShort{r.Budget.Total, before, epoch, after, needed + needed/20}
	}
	if rest > left {
		r.state.Budgeted, r.out = true, true
		return true, nil
	}
	return false, nil
}

// firstTooLate refuses to begin where the budget was over before the first step.
func (r *run) firstTooLate() (bool, error) {
	before := time.Since(r.Budget.Start)
	if before < r.Budget.Total {
		return false, nil
	}
	return false, &TooShort{Total: r.Budget.Total, Before: before}
}

// epochTime is what an epoch took, the median of up to three.
func (r *run) epochTime() time.Duration {
	n := len(r.state.Epochs)
	var least, most, sum float64
	least = math.Inf(1)
	k := min(n, 3)
	for _, e := range r.state.Epochs[n-k:] {
		least, most, sum = min(least, e.Seconds), max(most, e.Seconds), sum+e.Seconds
	}
	switch k {
	case 0:
		return 0
	case 3:
		sum = sum - least - most
	default:
		sum /= float64(k)
	}
	return time.Duration(sum * float64(time.Second))
}

// fitShare is how much of the time that is left the epochs of a run may take by what the runs before it took: a machine is
// not equally fast all the time.
const fitShare = .9

// Fits is how many of so many epochs of a part over so many rows, with as many over later rows after it, fit into what is left of
// the budget, by the speed of the runs so far: fewer epochs from the start, whose learning rate is annealed in them, are better
// than more that are cut off. It is all of them where there is no budget or nothing to measure by, and 0 where none fits. What
// was decided once holds over a resume.
func (s *Session) Fits(part string, epochs, rows int, later float64) (int, error) {
	path := filepath.Join(CheckpointDir(s.Out.Dir), part+".epochs")
	if s.Out.Resume {
		if n, err := savedEpochs(path, epochs); n > 0 || err != nil {
			return n, err
		}
		if begun, err := s.begun(part); begun || err != nil {
			return epochs, err // it goes on for all of them
		}
	}
	left, limited := s.Left()
	_, speed := s.Seconds()
	if !limited || speed == 0 {
		return epochs, nil
	}
	n := int(max(0, left.Seconds()) * speed * fitShare / (float64(rows) + later))
	if n >= epochs || n == 0 {
		return min(n, epochs), nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return 0, err
	}
	return n, atomicdir.WriteFile(path, fmt.Appendln(nil, n), true)
}

// begun tells whether there is a checkpoint of a part, or of one of its seeds.
func (s *Session) begun(part string) (bool, error) {
	found, err := os.ReadDir(CheckpointDir(s.Out.Dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return slices.ContainsFunc(found, func(e fs.DirEntry) bool {
		return e.Name() == part || strings.HasPrefix(e.Name(), part+"-seed")
	}), nil
}

// savedEpochs reads what Fits decided, 0 where it has not.
func savedEpochs(path string, most int) (int, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s does not hold a number of epochs up to %d; train anew with --force in place of --resume", path, most)
	}
	return n, nil
}
