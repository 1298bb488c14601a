package features

import "time"

// stage is a part of an engine's work on a batch that is not of one group.
type stage uint8

const (
	stageRow    stage = iota // joins and features of the row
	stageKeys                // keys get their numbers
	stageOrder               // what each row is, its place among those of its key, and its values
	stageLast                // features of features
	stageForget              // what is past holding
	stages
)

// stopwatch adds up where an engine's time goes, on one thread: two readings of the clock a batch and group. A nil one
// does nothing.
type stopwatch struct {
	at     time.Time
	stages [stages]time.Duration
	groups []time.Duration
}

func (w *stopwatch) start() {
	if w != nil {
		w.at = time.Now()
	}
}

// lap gives the time since the last call to a stage.
func (w *stopwatch) lap(s stage) {
	if w != nil {
		w.stages[s] += w.since()
	}
}

// group gives it to a group.
func (w *stopwatch) group(g int) {
	if w != nil {
		w.groups[g] += w.since()
	}
}

func (w *stopwatch) since() time.Duration {
	now := time.Now()
	d := now.Sub(w.at)
	w.at = now
	return d
}

// total is all of it.
func (w *stopwatch) total() time.Duration {
	var sum time.Duration
	for _, d := range w.stages {
		sum += d
	}
	for _, d := range w.groups {
		sum += d
	}
	return sum
}
