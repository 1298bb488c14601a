// Package train is what every task shares: the training loop with its early stopping, checkpoints and
// progress, and the metrics.
//
// A lowered model (program.Set) and its bound data enter; trained weights leave. It knows no task and no
// model; the machine is a program.Backend that the caller chose. It may not be assumed that a training
// ran in one process: everything that decides what comes next is in the checkpoint. Nor that what is validated has any
// part in it: with and without Valid the same steps give the same weights.
//
// train.go is one run of the loop, checkpoint.go what it leaves to go on from, budget.go its end by the clock,
// runlog.go and session.go what people and files are told of the runs of one command.
package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/onmart/onmart/train/program"
)

// chunkRows is how many rows are trained on at most between two looks at the clock and at Ctrl-C, chunkTime about how
// long. A backend that has a better number of rows says so by a method ChunkRows. The cut does not change the weights.
const (
	chunkRows = 1 << 14
	chunkTime = 100 * time.Millisecond
)

// Task is one training.
type Task struct {
	// Set is the model; Data its columns and schedule. Data.Rates says how many epochs there are at most:
	// its length is a whole number of them.
	Set  *program.Set
	Data program.Data
	// Init are the weights that the training starts from, such as Set.Initial.
	Init program.Tensors

	// Valid are the rows of Data that choose the epoch; empty trains all epochs and keeps the last.
	// Judge gives the figure of merit (greater is better, finite) of the model's outputs on them, row-major.
	Valid program.Range
	Judge func(outputs []float32) float64
	// Loss, where not nil, is the training's loss of those outputs, mean over the rows: it is shown, and decides nothing.
	Loss func(outputs []float32) float64
	// Average is over how many epochs, up to the one compared, the figure is averaged before epochs are
	// compared: few positive rows make single figures noisy. 0 and 1 compare single figures.
	Average int
	// Patience is how many epochs without a better figure end the training; 0 never ends it early.
	Patience int
	// Stop ends the run after so many epochs, though Data.Rates goes on: a later run with a greater Stop and Resume goes
	// on from Checkpoint as if there had been no end. 0 goes to the end.
	Stop int
	// Budget ends the run at the last epoch that fits; nil goes to the end.
	Budget *Budget
	// Plateau lowers the learning rates when the figure no longer gets better or, without validation rows, the loss; nil
	// leaves them.
	Plateau *Plateau

	// Checkpoint is the directory that holds the last finished epoch; empty keeps none. Identity names
	// what the training depends on and may not differ when it is resumed. Where Checkpoint exists it is
	// taken up if Resume is set and replaced if not.
	Checkpoint string
	Identity   []Fact
	Resume     bool

	// Progress is told after each piece of work, Ended after each epoch, when its checkpoint is written; restored says
	// that a checkpoint brought it. Either may be nil.
	Progress func(Progress)
	Ended    func(epoch int, e Epoch, restored bool)
}

// Fact is one named thing that a training depends on.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Progress is how far a training has come.
type Progress struct {
	Rows, Total int64   // rows trained on so far and at most, over all epochs
	Epoch       int     // finished epochs
	Epochs      int     // at most
	Loss        float64 // mean over the rows of this epoch so far
	Figure      float64 // of the last finished epoch, NaN where there is none
	Resumed     bool    // the rows up to here come from a checkpoint
}

// Epoch is what one epoch came to.
type Epoch struct {
	Loss      float64  `json:"loss"`                 // mean of the training loss over the epoch
	Figure    *float64 `json:"figure,omitempty"`     // on the validation rows
	ValidLoss *float64 `json:"valid_loss,omitempty"` // on the validation rows
	Rate      float64  `json:"learning_rate"`        // of the last step
	// Seconds are those of the steps and of the validation. They differ from run to run, and decide nothing.
	Seconds float64 `json:"seconds,omitempty"`
}

// Result is a finished training.
type Result struct {
	// Weights are the parameters after epoch Best, counted from 1: the best on the validation rows, the
	// last where there are none. Where the set keeps averages of them, these are the averages: the weights for
	// Set.Served.
	Weights program.Tensors
	Best    int
	Epochs  []Epoch
	// Early tells that it ended before the last epoch, by patience or, where Budgeted, because no further epoch fitted.
	Early    bool
	Budgeted bool
	// Merit is what epoch Best was chosen by: the figure averaged over Average epochs; 0 without validation rows.
	Merit float64
	// From is the epoch that a checkpoint brought, 0 for a fresh start.
	From int
	// Scales are what the Plateau multiplied the learning rates of each epoch by; nil without one.
	Scales []float64
}

// Interrupted is the error of a training that was told to stop; Epoch epochs and Step steps of the next are in
// Checkpoint.
type Interrupted struct {
	Epoch, Step int
	Checkpoint  string
	cause       error
}

func (e *Interrupted) Error() string {
	if e.Checkpoint == "" || e.Epoch == 0 && e.Step == 0 {
		return "the training was stopped before its first step; nothing was left behind"
	}
	at := fmt.Sprintf("epoch %d", e.Epoch)
	if e.Step > 0 {
		at = fmt.Sprintf("step %d of epoch %d", e.Step, e.Epoch+1)
	}
	return fmt.Sprintf("the training was stopped; what was learned up to %s is kept in %s: the same command with --resume "+
		"goes on from there", at, e.Checkpoint)
}

func (e *Interrupted) Unwrap() error { return e.cause }

// Run trains. It stops within a fraction of a second after ctx is done, with an *Interrupted and, where it has done a
// step, a checkpoint.
func (t *Task) Run(ctx context.Context, b program.Backend) (*Result, error) {
	r, err := t.start(b)
	if err != nil {
		return nil, err
	}
	defer r.exec.Close()
	for !r.finished() {
		if err := r.epoch(ctx); err != nil {
			return nil, err
		}
	}
	if r.out && r.Checkpoint != "" { // so that a resume does not go on where the budget had ended
		err := writeCheckpoint(r.Checkpoint, checkpoint{r.identity, r.state, r.last, r.best})
		if err != nil {
			return nil, err
		}
	}
	return r.result(), nil
}

// run is a training under way.
type run struct {
	*Task
	exec   program.Exec
	batch  int
	chunk  int // rows of a Run at most
	within int // steps that take chunkTime
	steps  int // of an epoch
	epochs int // at most
	loss   int // places of the slots "loss" and "rows"
	rows   int
	from   int
	// identity is what a checkpoint of this run belongs to.
	identity []Fact
	state    state
	best     program.Tensors // parameters after epoch state.Best
	last     program.Tensors // everything after the last epoch; kept only where a Budget may end the run, or from a checkpoint
	lastAt   int             // the steps that last comes after
	written  bool            // Checkpoint is that of the last epoch of this run
	outputs  []float32       // of the validation rows
	out      bool            // the budget is out
	scale    float64         // of the learning rates now
	rates    []float32       // now
}

// state is what decides how a training goes on, beside the tensors.
type state struct {
	Epochs []Epoch `json:"epochs"`
	Best   int     `json:"best"` // 0 before the first epoch
	// Step steps of the next epoch are done too, and Slots is what they accumulated.
	Step  int       `json:"step,omitempty"`
	Slots []float64 `json:"slots,omitempty"`
	// Budgeted tells that the budget has ended it.
	Budgeted bool `json:"budgeted,omitempty"`
}

func (t *Task) start(b program.Backend) (*run, error) {
	r := &run{Task: t, batch: t.Set.Train.Rows, chunk: chunkRows, within: 1, scale: 1, rates: t.Data.Rates}
	if c, ok := b.(interface{ ChunkRows() int }); ok {
		r.chunk = c.ChunkRows()
	}
	if t.Data.Train.Len() <= 0 {
		return nil, errors.New("train: no rows to train on")
	}
	r.steps = t.Data.StepsPerEpoch(r.batch)
	r.epochs = len(t.Data.Rates) / r.steps
	if r.epochs < 1 || len(t.Data.Rates)%r.steps != 0 {
		return nil, fmt.Errorf("train: %d learning rates for epochs of %d steps: want a whole number of epochs", len(t.Data.Rates), r.steps)
	}
	r.loss, r.rows = slices.Index(t.Set.Slots, "loss"), slices.Index(t.Set.Slots, "rows")
	if r.loss < 0 || r.rows < 0 {
		return nil, fmt.Errorf("train: the model has slots %v, want loss and rows", t.Set.Slots)
	}
	r.identity = t.facts(b)
	tensors := t.Init
	if t.Checkpoint != "" && t.Resume {
		saved, err := readCheckpoint(t.Checkpoint, r.identity, t)
		if err != nil {
			return nil, err
		}
		if saved != nil {
			tensors, r.state, r.best = saved.tensors, saved.state, saved.best
			r.from = len(r.state.Epochs)
			r.last, r.lastAt = tensors, r.from*r.steps+r.state.Step
		}
	}
	exec, err := b.Compile(t.Set)
	if err != nil {
		return nil, err
	}
	r.exec = exec
	if err := errors.Join(exec.Bind(t.Data), exec.Import(tensors)); err != nil {
		exec.Close()
		return nil, err
	}
	if r.from > 0 || r.state.Step > 0 {
		if t.Ended != nil {
			for i, e := range r.state.Epochs {
				t.Ended(i+1, e, true)
			}
		}
		r.report(r.rowsAt(r.from, r.state.Step), r.lossSoFar(), true)
	}
	return r, nil
}

// facts are those of the task and those that the loop knows itself.
func (t *Task) facts(b program.Backend) []Fact {
	facts := slices.Clone(t.Identity)
	if t.Plateau != nil {
		facts = append(facts, Fact{"plateau", fmt.Sprintf("%v after %d epochs", t.Plateau.Factor, t.Plateau.Patience)})
	}
	return append(facts,
		Fact{factModel, digestJSON(t.Set)},
		Fact{factRates, digestJSON(t.Data.Rates)},
		Fact{"rows trained on", fmt.Sprint(t.Data.Train)},
		Fact{"rows validated on", fmt.Sprint(t.Valid)},
		Fact{"epochs averaged", fmt.Sprint(t.Average)},
		Fact{"patience", fmt.Sprint(t.Patience)},
		Fact{"backend", device(b)},
	)
}

// device is what the bits of a training depend on. Processors give the same ones by every set of instructions.
func device(b program.Backend) string {
	if strings.HasPrefix(b.Name(), "cpu-") {
		return "cpu"
	}
	return b.Name()
}

func (r *run) finished() bool {
	n := len(r.state.Epochs)
	return n == r.epochs || r.Stop > 0 && n >= r.Stop || r.state.Budgeted || r.exhausted()
}

// rowsAt is the rows that so many epochs and steps have taken.
func (r *run) rowsAt(epochs, steps int) int64 {
	n := r.Data.Train.Len()
	return int64(epochs)*int64(n) + int64(min(steps*r.batch, n))
}

// lossSoFar is the loss that a checkpoint brought: of the epoch that it is in, or of the last.
func (r *run) lossSoFar() float64 {
	if r.state.Step > 0 {
		return r.state.Slots[r.loss] / r.state.Slots[r.rows]
	}
	return r.state.Epochs[r.from-1].Loss
}

// exhausted tells whether patience is at its end.
func (r *run) exhausted() bool {
	return r.Valid.Len() > 0 && r.Patience > 0 && len(r.state.Epochs)-r.state.Best >= r.Patience
}

// epoch trains one epoch, or what is left of it, judges it and writes the checkpoint.
func (r *run) epoch(ctx context.Context) error {
	done := len(r.state.Epochs)
	first := done * r.steps
	slots := make([]float64, len(r.Set.Slots))
	if err := r.setRates(); err != nil {
		return err
	}
	copy(slots, r.state.Slots)
	begin, began := r.state.Step, time.Now()
	r.state.Step, r.state.Slots = 0, nil
	var loss float64
	for at, n := begin, 0; at < r.steps; at += n {
		if ctx.Err() != nil {
			return r.interrupted(context.Cause(ctx), at, slots)
		}
		if ended, err := r.outOfTime(at, begin, time.Since(began)); ended || err != nil {
			return err
		}
		n = max(1, min(r.within, r.chunk/r.batch, r.steps-at))
		start := time.Now()
		err := r.exec.Run(first+at, n, slots)
		r.within = max(1, int(float64(n)*float64(chunkTime)/float64(max(time.Since(start), 1))))
		if err != nil {
			var failed *program.NotFinite
			if errors.As(err, &failed) {
				return r.diverged(ctx, failed.Step, err)
			}
			return fmt.Errorf("epoch %d: %w", done+1, err)
		}
		loss = slots[r.loss] / slots[r.rows]
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return r.diverged(ctx, first+at+n-1, nil)
		}
		r.report(r.rowsAt(done, at+n), loss, false)
	}
	e := Epoch{Loss: loss, Rate: float64(r.rates[first+r.steps-1])}
	tensors, err := r.exec.Export()
	if err != nil {
		return err
	}
	if unsound(r.Set, tensors) { // in the last step, whose loss was that before it
		return r.diverged(ctx, first+r.steps-1, nil)
	}
	if r.Valid.Len() > 0 {
		if err := r.judge(&e); err != nil {
			return err
		}
	}
	e.Seconds = time.Since(began).Seconds()
	r.state.Epochs = append(r.state.Epochs, e)
	if r.Valid.Len() == 0 || r.state.Best == 0 || r.merit(done+1) > r.merit(r.state.Best) {
		r.state.Best, r.best = done+1, r.Set.Trained(tensors)
	}
	r.last = nil // those that a checkpoint brought
	if r.Budget != nil {
		r.last, r.lastAt = tensors, first+r.steps
	}
	if r.Checkpoint != "" {
		if err := writeCheckpoint(r.Checkpoint, checkpoint{r.identity, r.state, tensors, r.best}); err != nil {
			return err
		}
		r.written = true
	}
	if r.Ended != nil {
		r.Ended(done+1, e, false)
	}
	return nil
}

// interrupted keeps what was done up to a step of the epoch.
func (r *run) interrupted(cause error, step int, slots []float64) error {
	e := &Interrupted{len(r.state.Epochs), step, r.Checkpoint, cause}
	if r.Checkpoint == "" || step == 0 {
		return e // the last checkpoint is that of the last epoch
	}
	r.state.Step, r.state.Slots = step, slots
	tensors, err := r.exec.Export()
	if err != nil {
		return errors.Join(e, err)
	}
	if err := writeCheckpoint(r.Checkpoint, checkpoint{r.identity, r.state, tensors, r.best}); err != nil {
		return errors.Join(e, err)
	}
	return e
}

// merit is what epochs are compared by.
func (r *run) merit(epoch int) float64 { return Merit(r.state.Epochs, epoch, r.Average) }

// judge runs the model over the validation rows. It reads the weights and changes nothing that steps depend on.
func (r *run) judge(e *Epoch) error {
	if r.outputs == nil {
		r.outputs = make([]float32, r.Valid.Len()*outputWidth(r.Set.Forward))
	}
	if err := r.exec.Eval(r.Valid, r.outputs); err != nil {
		return err
	}
	figure := r.Judge(r.outputs)
	if math.IsNaN(figure) || math.IsInf(figure, 0) {
		return fmt.Errorf("train: the validation figure is %v in epoch %d", figure, len(r.state.Epochs)+1)
	}
	e.Figure = &figure
	if r.Loss != nil {
		// A loss of finite outputs may still overflow: then there is none to show.
		if loss := r.Loss(r.outputs); !math.IsNaN(loss) && !math.IsInf(loss, 0) {
			e.ValidLoss = &loss
		}
	}
	return nil
}

// outputWidth is how many numbers a forward program gives of a row.
func outputWidth(p *program.Program) int {
	for i := range p.Buffers {
		if b := &p.Buffers[i]; b.Kind == program.Output {
			return b.Len() / p.Rows
		}
	}
	return 1
}

func (r *run) report(rows int64, loss float64, restored bool) {
	if r.Progress == nil {
		return
	}
	p := Progress{
		Rows: rows, Total: int64(r.epochs) * int64(r.Data.Train.Len()),
		Epoch: len(r.state.Epochs), Epochs: r.epochs, Loss: loss, Figure: math.NaN(),
		Resumed: restored,
	}
	if n := len(r.state.Epochs); n > 0 && r.state.Epochs[n-1].Figure != nil {
		p.Figure = *r.state.Epochs[n-1].Figure
	}
	r.Progress(p)
}

func (r *run) result() *Result {
	out := &Result{
		Weights: r.best, Best: r.state.Best, Epochs: r.state.Epochs, From: r.from,
		Early: len(r.state.Epochs) < r.epochs, Budgeted: r.state.Budgeted,
	}
	if r.Valid.Len() > 0 && out.Best > 0 {
		out.Merit = r.merit(out.Best)
	}
	if scales := r.scales(); scales != nil {
		out.Scales = scales[:len(out.Epochs)]
	}
	return out
}
