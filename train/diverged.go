package train

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/onmart/onmart/train/program"
)

// Diverged is the error of a loss that is not a number any more, or of weights that are none.
type Diverged struct {
	Epoch int // the epoch it happened in, counted from 1
	Step  int // of all steps of the training, counted from 0: the one it arose in, where that is known
	Rate  float32
	// Where is the place it arose, nil where the device cannot say; then Unfound, where not nil, is why not.
	Where   *program.Where
	Unfound error

	cause error // of the device, or nil
}

func (e *Diverged) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the loss left the numbers in epoch %d, by step %d: the training diverged", e.Epoch, e.Step)
	w := e.Where
	if w == nil {
		if e.cause != nil {
			fmt.Fprintf(&b, " (%v)", e.cause)
		}
		if e.Unfound != nil {
			fmt.Fprintf(&b, "; where it arose was not found: %v", e.Unfound)
		}
		fmt.Fprintf(&b, "; take a smaller learning rate (it was %g there) or set clip_norm, or look for NaN in the columns", e.Rate)
		return b.String()
	}
	fmt.Fprintf(&b, "; %s; ", w)
	switch {
	case w.Source != "":
		fmt.Fprintf(&b, "no learning rate helps: mend row %d of column %q, or leave it out", w.DataRow, w.Source)
	case w.Held != "":
		fmt.Fprintf(&b, "the epoch began with it, and no learning rate helps: mend the weights that the training starts from")
	default:
		fmt.Fprintf(&b, "the operands have grown past what the operation can take in float32: take a smaller learning rate "+
			"(it was %g there) or set clip_norm", e.Rate)
		if w.DataRow >= 0 {
			fmt.Fprintf(&b, "; if it stays, look at row %d of the data", w.DataRow)
		}
	}
	return b.String()
}

func (e *Diverged) Unwrap() error { return e.cause }

// unsound tells whether a trained weight is not finite.
func unsound(set *program.Set, ts program.Tensors) bool {
	for _, p := range set.Params {
		t := ts.Find(p.Name)
		if t == nil {
			continue
		}
		for _, v := range t.F32 {
			if v-v != 0 { // NaN or Inf
				return true
			}
		}
	}
	return false
}

// diverged is the error of a run that was found out after a step, cause being what the device said. Where the device can
// look at its instructions one by one, the steps since the last state that is kept are done again to find the place. The
// state of the run is of no use after this.
func (r *run) diverged(ctx context.Context, step int, cause error) error {
	var where *program.Where
	var err error
	if f, ok := r.exec.(program.Finder); ok {
		where, err = r.locate(ctx, f, step)
	}
	if where != nil {
		step = where.Step
	}
	return &Diverged{Epoch: step/r.steps + 1, Step: step, Rate: r.rates[step], Where: where, Unfound: err, cause: cause}
}

// locate finds the place in two passes: the first finds the step after which a slot, a weight or a piece of state is not
// finite, the second goes up to it and through it. A weight that never was finite is found by the step that fails.
func (r *run) locate(ctx context.Context, f program.Finder, last int) (*program.Where, error) {
	first, tensors, err := r.kept()
	if err != nil {
		return nil, err
	}
	if err := r.exec.Import(tensors); err != nil {
		return nil, err
	}
	slots := make([]float64, len(r.Set.Slots))
	sound := f.Unsound() == nil
	at := first
	for ; at < last && sound; at++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var failed *program.NotFinite
		if err := r.exec.Run(at, 1, slots); errors.As(err, &failed) {
			break
		} else if err != nil {
			return nil, err
		}
		if f.Unsound() != nil {
			break
		}
	}
	if !sound {
		at = last
	}
	if err := r.exec.Import(tensors); err != nil {
		return nil, err
	}
	for s := first; s < at; s++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := r.exec.Run(s, 1, slots); err != nil {
			return nil, err
		}
	}
	return f.Find(at)
}

// kept is the last state that is held in memory or in the checkpoint, or the first one, and the step that comes after it.
func (r *run) kept() (step int, tensors program.Tensors, err error) {
	switch {
	case r.last != nil:
		return r.lastAt, r.last, nil
	case r.written:
		c, err := readCheckpoint(r.Checkpoint, r.identity, r.Task)
		if err != nil || c == nil {
			return 0, nil, errors.Join(err, errors.New("no state of the training is kept"))
		}
		return len(c.state.Epochs)*r.steps + c.state.Step, c.tensors, nil
	}
	return 0, r.Init, nil
}
