package train

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/train/program"
)

// Session is what the runs of one command share: where they leave their checkpoints, their log, their time, what people
// see of them, and in the end their curves. Its fields are set before Begin.
type Session struct {
	Out    Output
	Log    string        // file of the run log; "" keeps none
	Budget time.Duration // of all runs together, from Start on; 0 is without end
	Start  time.Time

	// Note takes lines for people, Bar starts a progress bar. Both may be nil.
	Note func(format string, args ...any)
	Bar  func(label string, total int64, unit string) *progress.Bar

	log      *runLog
	mu       sync.Mutex // of what follows: trials run side by side
	curves   []Curve
	fitting  time.Duration
	trained  int64
	resumed  bool
	finished bool
	short    []string // parts that the budget ended
	// tuneUntil is when no further trial begins; zero where there is no budget.
	tuneUntil time.Time
}

// Part is one run of a session.
type Part struct {
	Name  string // of its checkpoint, with slashes; no two parts of a session have the same
	Label string // for people
	// Figure is what Judge gives, by the key that --json has for it, and Words for people; Smaller shows its negative:
	// a loss, which Judge negates.
	Figure, Words string
	Smaller       bool
	// Towers divides the losses: that of a model of several towers is their sum. 0 counts as 1.
	Towers int
	// Quiet runs show no bar and leave no curve: trials.
	Quiet bool
	// From, where not "", is a part that may have trained the same before: a trial. Where the session has no budget and the
	// checkpoint of From is of the same training, the run goes on from it in place of beginning again.
	From string
	// Event, where not "", is what the log calls the part's beginning beside "part": "refit".
	Event string
}

// Curve is the course of one run, as an artifact keeps it.
type Curve struct {
	Part    string  `json:"part"`
	Label   string  `json:"label"`
	Figure  string  `json:"figure,omitempty"` // key of the epochs' figures
	Words   string  `json:"words,omitempty"`  // its name for people
	Smaller bool    `json:"smaller_is_better,omitempty"`
	Best    int     `json:"best"` // the epoch that was kept
	Ended   string  `json:"ended"`
	Epochs  []Epoch `json:"epochs"` // figures as they are shown, without seconds
}

// Why a run ended.
const (
	EndedEpochs   = "epochs"   // all were done
	EndedPatience = "patience" // no better figure came
	EndedBudget   = "max_time" // no further epoch fitted
)

// Mute puts what does nothing in the place of a nil Note and a nil Bar.
func Mute(note *func(format string, args ...any), bar *func(label string, total int64, unit string) *progress.Bar) {
	if *note == nil {
		*note = func(string, ...any) {}
	}
	if *bar == nil {
		*bar = func(string, int64, string) *progress.Bar { return nil }
	}
}

// Begin opens the log and writes what the run is: value marshals to an object of its settings. Of a Begun it also holds the
// checkpoint against it: what parts there are follows from it, so that no part of another run would be seen to differ.
func (s *Session) Begin(value any) error {
	Mute(&s.Note, &s.Bar)
	if s.Log != "" {
		var err error
		if s.log, err = openLog(s.Log, s.Out.Resume); err != nil {
			return err
		}
		event := "run"
		if s.Out.Resume {
			event = "resume"
		}
		s.log.write(record{event: event, value: value})
	}
	if b, ok := value.(Begun); ok {
		return s.Out.begin(b.identity())
	}
	return nil
}

// Event adds a record to the log.
func (s *Session) Event(event, part string, value any) { s.log.write(record{event, part, value}) }

// End closes the log with the result, or with the error that ended the session, which it returns with what can be done.
func (s *Session) End(ctx context.Context, result any, err error) error {
	if err == nil {
		s.Event("result", "", result)
		if err := s.log.close(); err != nil {
			s.Note("the run log %s is not whole: %v", s.Log, err)
		}
		return nil
	}
	var stopped *Interrupted
	value := map[string]any{"error": err.Error()}
	event := "error"
	if ctx.Err() != nil {
		event = "interrupt"
	}
	if errors.As(err, &stopped) {
		value["epoch"], value["step"] = stopped.Epoch, stopped.Step
	}
	err = s.Out.Ended(ctx, err, s.finished)
	value["error"] = err.Error()
	s.Event(event, "", value)
	if e := s.log.close(); e != nil {
		s.Note("the run log %s is not whole: %v", s.Log, e)
	}
	return err
}

// Seconds that runs of this process took, and the rows they trained on a second.
func (s *Session) Seconds() (seconds, rowsPerSecond float64) {
	seconds = s.fitting.Seconds()
	if seconds > 0 {
		rowsPerSecond = float64(s.trained) / seconds
	}
	return seconds, rowsPerSecond
}

// Resumed tells whether a checkpoint brought anything.
func (s *Session) Resumed() bool { return s.resumed }

// Curves are the courses of the runs so far that were not quiet.
func (s *Session) Curves() []Curve { return s.curves }

// Shortened are the labels of the runs that the budget ended.
func (s *Session) Shortened() []string { return s.short }

// Within is the session's budget for a run after which later has to fit, or nil where there is none.
func (s *Session) Within(later func(epoch time.Duration, done, best int) time.Duration) *Budget {
	if s.Budget == 0 {
		return nil
	}
	return &Budget{Total: s.Budget, Start: s.Start, Later: later}
}

// Left is what is left of the budget, and whether there is one.
func (s *Session) Left() (time.Duration, bool) {
	return s.Budget - time.Since(s.Start), s.Budget > 0
}

// Run runs a task as a part of the session: it sets the task's checkpoint and what it tells.
func (s *Session) Run(ctx context.Context, p Part, t *Task, b program.Backend) (*Result, error) {
	w := &watch{s: s, p: p, t: t, scale: 1 / float64(max(p.Towers, 1)), first: -1, began: time.Now()}
	t.Checkpoint = filepath.Join(CheckpointDir(s.Out.Dir), filepath.FromSlash(p.Name))
	t.Resume = s.Out.Resume || t.Resume
	var err error
	if w.taken, err = s.takeUp(p, t, b); err != nil {
		return nil, err
	}
	if t.Progress == nil {
		t.Progress = w.progress
	}
	t.Ended = w.ended
	if p.Event != "" {
		s.Event(p.Event, p.Name, nil)
	}
	s.Event("part", p.Name, w.head())
	r, err := t.Run(ctx, b)
	if err == nil {
		w.bar.Set(w.done, w.kept(r))
	}
	w.bar.Done()
	if !p.Quiet {
		s.fitting += time.Since(w.began)
		s.trained += w.done - max(w.first, 0)
	}
	if err != nil {
		return nil, err
	}
	w.end(r)
	return r, nil
}

// takeUp copies the checkpoint of p.From for the run, whose own it becomes, and tells whether it did. With a budget it does
// not: what the later runs may take is measured by the runs before them.
func (s *Session) takeUp(p Part, t *Task, b program.Backend) (bool, error) {
	if p.From == "" || s.Budget > 0 {
		return false, nil
	}
	if _, err := os.Stat(t.Checkpoint); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return false, err // one of its own, from before a resume
	}
	from := filepath.Join(CheckpointDir(s.Out.Dir), filepath.FromSlash(p.From))
	c, err := readCheckpoint(from, t.facts(b), t)
	if err != nil {
		s.Note("%s: trained anew, the trial's checkpoint is not taken up: %v", p.Label, err)
		return false, nil
	}
	if c == nil {
		return false, nil
	}
	if err := writeCheckpoint(t.Checkpoint, *c); err != nil {
		return false, err
	}
	t.Resume = true
	return true, nil
}

// watch follows one run.
type watch struct {
	s      *Session
	p      Part
	t      *Task
	bar    *progress.Bar
	scale  float64 // of losses
	began  time.Time
	first  int64 // rows that a checkpoint brought, -1 before it is known
	done   int64
	epochs []Epoch // as they are shown
	best   int     // epoch with the best figure so far
	taken  bool    // it goes on from the checkpoint of p.From
}

// head is what the log says of a part before it runs.
func (w *watch) head() any {
	steps := 0
	if w.t.Set.Train != nil {
		steps = w.t.Data.StepsPerEpoch(w.t.Set.Train.Rows)
	}
	return struct {
		Rows          int    `json:"rows"`
		ValidRows     int    `json:"valid_rows"`
		Batch         int    `json:"batch"`
		StepsPerEpoch int    `json:"steps_per_epoch"`
		Epochs        int    `json:"epochs"` // at most
		Parameters    int    `json:"parameters"`
		Figure        string `json:"figure,omitempty"`
	}{w.t.Data.Train.Len(), w.t.Valid.Len(), w.t.Set.Train.Rows, steps, len(w.t.Data.Rates) / max(steps, 1),
		parameters(w.t.Set), w.p.Figure}
}

// parameters is the number of trained numbers of a set.
func parameters(set *program.Set) int {
	sum := 0
	for _, p := range set.Params {
		n := 1
		for _, d := range p.Shape {
			n *= d
		}
		sum += n
	}
	return sum
}

// shown is an epoch with its losses by tower and its figure with the sign that people know.
func (w *watch) shown(e Epoch) Epoch {
	e.Loss *= w.scale
	if e.ValidLoss != nil {
		v := *e.ValidLoss * w.scale
		e.ValidLoss = &v
	}
	if e.Figure != nil && w.p.Smaller {
		v := -*e.Figure
		e.Figure = &v
	}
	return e
}

// better tells whether one figure, as it is shown, is better than another.
func (p *Part) better(a, b float64) bool { return a > b != p.Smaller && a != b }

// ended takes one more epoch into the curve and the log.
func (w *watch) ended(epoch int, e Epoch, restored bool) {
	w.s.came(restored)
	shown := w.shown(e)
	w.epochs = append(w.epochs, shown)
	if shown.Figure != nil && (w.best == 0 || w.p.better(*shown.Figure, *w.epochs[w.best-1].Figure)) {
		w.best = epoch
	}
	steps := w.t.Data.StepsPerEpoch(w.t.Set.Train.Rows)
	rate := 0.
	if e.Seconds > 0 {
		rate = float64(w.t.Data.Train.Len()) / e.Seconds
	}
	w.s.log.writeEpoch(w.p.Name, epoch, struct {
		Number        int     `json:"epoch"`
		Step          int     `json:"step"` // of all epochs
		RowsPerSecond float64 `json:"rows_per_second"`
		Epoch
	}{epoch, epoch * steps, math.Round(rate), shown})
	if !restored && w.t.Checkpoint != "" {
		w.s.Event("checkpoint", w.p.Name, map[string]any{"epoch": epoch, "dir": w.t.Checkpoint})
	}
}

// came takes note of an epoch.
func (s *Session) came(restored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished, s.resumed = true, s.resumed || restored && s.Out.Resume
}

// end says how a run ended.
func (w *watch) end(r *Result) {
	c := Curve{Part: w.p.Name, Label: w.p.Label, Figure: w.p.Figure, Words: w.p.Words, Smaller: w.p.Smaller, Best: r.Best,
		Ended: EndedEpochs}
	switch {
	case r.Budgeted && w.p.Quiet: // the search says so
		return
	case r.Budgeted:
		c.Ended = EndedBudget
		w.s.short = append(w.s.short, w.p.Label)
		w.s.Note("%s: --max-time %s ends it after epoch %d of %d; epoch %d is kept", w.p.Label, w.s.Budget, len(r.Epochs),
			len(w.t.Data.Rates)/w.t.Data.StepsPerEpoch(w.t.Set.Train.Rows), r.Best)
	case r.Early && (w.t.Stop == 0 || len(r.Epochs) < w.t.Stop):
		c.Ended = EndedPatience
	case r.Early:
		c.Ended = "" // to be gone on with
	}
	if c.Ended != "" && c.Ended != EndedEpochs {
		w.s.Event("early_end", w.p.Name, map[string]any{"epoch": len(r.Epochs), "best": r.Best, "reason": c.Ended})
	}
	if w.p.Quiet {
		return
	}
	for _, e := range w.epochs {
		e.Seconds = 0
		c.Epochs = append(c.Epochs, e)
	}
	w.s.curves = append(w.s.curves, c)
}

// progress shows people how far a run has come.
func (w *watch) progress(p Progress) {
	if w.first < 0 {
		w.first = 0
		if p.Resumed {
			w.first = p.Rows
			if w.taken {
				w.s.Note("%s: the trial has trained epochs 1 to %d of %d", w.p.Label, p.Epoch, p.Epochs)
			} else if !w.p.Quiet {
				w.s.resumed = true
				w.s.Note("%s: goes on after epoch %d of %d", w.p.Label, p.Epoch, p.Epochs)
			}
		}
		if !w.p.Quiet {
			w.bar = w.s.Bar(w.p.Label, p.Total, "rows")
			w.bar.Begin(w.began, w.first)
		}
	}
	w.done = p.Rows
	if w.bar == nil {
		return
	}
	at, loss := fmt.Sprintf("epoch %d/%d", min(p.Epoch+1, p.Epochs), p.Epochs), p.Loss*w.scale
	w.bar.Below(at, w.view(loss)...)
	w.bar.Set(p.Rows, at+", "+w.line(loss))
}

// line is the loss so far and the last and best figures in a few words.
func (w *watch) line(loss float64) string {
	s := fmt.Sprintf("loss %.4f", loss)
	if n := len(w.epochs); n > 0 && w.epochs[n-1].Figure != nil {
		s += fmt.Sprintf(", %s %.3f", w.p.Words, *w.epochs[n-1].Figure)
		if w.best > 0 && w.best < n {
			s += fmt.Sprintf(" (best %.3f in epoch %d)", *w.epochs[w.best-1].Figure, w.best)
		}
	}
	return s
}

// kept is what a run came to, for the end of its bar.
func (w *watch) kept(r *Result) string {
	if r.Best < 1 || r.Best > len(w.epochs) {
		return ""
	}
	e := w.epochs[r.Best-1]
	s := fmt.Sprintf("loss %.4f", e.Loss)
	if e.Figure != nil {
		s += fmt.Sprintf(", %s %.3f", w.p.Words, *e.Figure)
	}
	return s + fmt.Sprintf(", epoch %d of %d kept", r.Best, len(r.Epochs))
}

// viewEpochs is how many epochs the curves on a terminal show.
const viewEpochs = 40

// view is the curves so far, for a terminal.
func (w *watch) view(loss float64) []string {
	var losses, valid, figures []float64
	for _, e := range w.epochs[max(0, len(w.epochs)-viewEpochs):] {
		losses = append(losses, e.Loss)
		if e.ValidLoss != nil {
			valid = append(valid, *e.ValidLoss)
		}
		if e.Figure != nil {
			figures = append(figures, *e.Figure)
		}
	}
	width := len("validation loss")
	if w.p.Figure != "" {
		width = max(width, len(w.p.Words))
	}
	row := func(name string, curve []float64, now float64, more string) string {
		return fmt.Sprintf("  %-*s %9.4f  %s%s", width, name, now, progress.Spark(curve), more)
	}
	lines := []string{row("loss", append(losses, loss), loss, "")}
	if n := len(valid); n > 0 {
		lines = append(lines, row("validation loss", valid, valid[n-1], ""))
	}
	if n := len(figures); n > 0 && w.best > 0 {
		lines = append(lines, row(w.p.Words, figures, figures[n-1],
			fmt.Sprintf("  best %.4f in epoch %d", *w.epochs[w.best-1].Figure, w.best)))
	}
	return lines
}

// Remove takes away the checkpoints of a session that has come to its end.
func (s *Session) Remove() {
	if err := os.RemoveAll(CheckpointDir(s.Out.Dir)); err != nil {
		s.Note("the checkpoint is no longer needed and could not be removed: %v", err)
	}
}

// Plural is a count with its noun.
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return progress.Count(int64(n)) + " " + noun + "s"
}
