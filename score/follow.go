package score

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/model"
)

// Follower is a model whose state follows the events that a Scorer folds: the last steps of a forecaster's
// series, the purchases of a recommender's users. Its methods are called one at a time.
type Follower interface {
	// Task names it among the states that a scorer saves, such as "demand".
	Task() string
	// Fold takes transactions in the order of the log, without duplicates, in the columns of its artifact's
	// input. The batch may not be kept: a column that the events lack may be longer than the batch.
	Fold(*datasets.Batch) error
	Snapshot(io.Writer) error
	Restore(io.Reader) error
}

// Following is a follower and the artifact that it came from.
type Following struct {
	Follower
	Artifact *model.Artifact
}

// lens shows a follower the scorer's events in the columns that its model was trained on.
type lens struct {
	schema *datasets.Schema
	from   []int // column of the events; -1 is one that they do not have and that the model makes do without
	shown  datasets.Batch
}

// lensOf checks that the events have what the follower's spec reads.
func lensOf(f *Following, events *datasets.Schema) (*lens, error) {
	in := f.Artifact.Manifest().Input
	if _, err := f.Artifact.Spec().Plan(events, f.Artifact.Tables()); err != nil {
		return nil, fmt.Errorf("what the %s model reads is not in these events: %w", f.Task(), err)
	}
	if err := sameTypes(in, events); err != nil {
		return nil, fmt.Errorf("model %s: %w", f.Artifact.Dir(), err)
	}
	l := &lens{schema: in}
	for i := range in.Fields {
		l.from = append(l.from, events.Index(in.Fields[i].Name))
	}
	l.shown = datasets.Batch{Schema: in, Columns: make([]datasets.Column, len(l.from))}
	return l, nil
}

// look shares the columns of b. What it returns is valid until the next look.
func (l *lens) look(b *datasets.Batch) *datasets.Batch {
	l.shown.N = b.N
	for i, from := range l.from {
		if from >= 0 {
			l.shown.Columns[i] = b.Columns[from]
		} else if c := &l.shown.Columns[i]; len(c.Null) < b.N {
			*c = nulls(l.schema.Fields[i].Type, b.N)
		}
	}
	return &l.shown
}

// nulls is a column of n nulls.
func nulls(t datasets.Type, n int) datasets.Column {
	c := datasets.Column{Null: slices.Repeat([]bool{true}, n)}
	switch t {
	case datasets.String:
		c.Strings = make([]string, n)
	case datasets.Float64:
		c.Floats = make([]float64, n)
	default:
		c.Ints = make([]int64, n)
	}
	return c
}

// eventsSpec is what a scorer without a classifier computes: enough to know a transaction that comes twice.
const eventsSpec = `name: events
lateness: 7d
features:
  - name: weekend
    kind: calendar
    of: weekend
`

// plan is the features of the classifier, of the spec, or of none.
func (o *Options) plan() (*features.Plan, error) {
	if o.Artifact != nil {
		plan, err := o.Artifact.Spec().Plan(o.Schema, o.Artifact.Tables())
		if err != nil {
			return nil, fmt.Errorf("the model's features cannot be computed from these events: %w", err)
		}
		if err := sameTypes(o.Artifact.Manifest().Input, o.Schema); err != nil {
			return nil, fmt.Errorf("model %s: %w", o.Artifact.Dir(), err)
		}
		return plan, o.Artifact.CheckNodes(plan.Nodes())
	}
	if o.Spec != nil {
		plan, err := o.Spec.Plan(o.Schema)
		if err != nil {
			return nil, fmt.Errorf("the spec's features cannot be computed from these events: %w", err)
		}
		return plan, nil
	}
	spec, err := features.Parse("events", []byte(eventsSpec))
	if err != nil {
		return nil, err
	}
	return spec.Plan(o.Schema)
}

// follow hands the transactions that were folded to the followers.
func (s *Scorer) follow(rows *datasets.Batch) error {
	if len(s.o.Followers) == 0 {
		return nil
	}
	folded := rows
	if n := s.rows.N; n < rows.N {
		folded = datasets.NewBatch(rows.Schema, n)
		for i := range rows.N {
			if s.transaction(i) {
				appendRow(folded, rows, i)
			}
		}
	}
	if folded.N == 0 {
		return nil
	}
	for i, f := range s.o.Followers {
		if err := f.Fold(s.lenses[i].look(folded)); err != nil {
			return fmt.Errorf("%s: %w", f.Task(), err)
		}
	}
	s.counts.Followed += int64(folded.N)
	return nil
}

// transaction tells whether a row of the last batch was folded as one.
func (s *Scorer) transaction(row int) bool {
	return s.rows.Status[row] == features.Scored || s.rows.Status[row] == features.Late
}

// beside are the followers' states.
func (s *Scorer) beside() map[string]features.Snapshotter {
	states := map[string]features.Snapshotter{}
	for _, f := range s.o.Followers {
		states[f.Task()] = f
	}
	for name, x := range s.states() {
		if x != s.stock || s.stock.count > 0 { // where no event told of stock, nothing need be kept
			states[name] = x
		}
	}
	return states
}

// warmFollowers takes up the followers' states of a directory. A directory that a backfill wrote has none:
// they keep the state of their artifacts then, and their names are returned.
func (s *Scorer) warmFollowers(dir string) (without []string, err error) {
	for _, f := range s.o.Followers {
		switch err := features.LoadBeside(dir, f.Task(), f); {
		case errors.Is(err, features.ErrNotBeside):
			without = append(without, f.Task())
		case err != nil:
			return nil, err
		}
	}
	return without, nil
}

// Inspect runs f while no event is folded, so that an answer is of one state.
func (s *Scorer) Inspect(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f()
}
