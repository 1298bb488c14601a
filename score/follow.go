package score

import (
	"errors"
	"fmt"
	"io"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
)

// Follower is a model whose state follows the events that a Scorer folds: the last steps of a forecaster's
// series, the purchases of a recommender's users. Its methods are called one at a time.
type Follower interface {
	// Task names it among the states that a scorer saves, such as "demand".
	Task() string
	// Fold takes transactions in the order of the log; the batch has the scorer's schema and no duplicates.
	Fold(*datasets.Batch) error
	Snapshot(io.Writer) error
	Restore(io.Reader) error
}

// eventsSpec is what a scorer without a classifier computes: enough to know a transaction that comes twice.
const eventsSpec = `name: events
lateness: 7d
features:
  - name: weekend
    kind: calendar
    of: weekend
`

// plan is the features of the classifier, or of none.
func (o *Options) plan() (*features.Plan, error) {
	if o.Artifact != nil {
		plan, err := o.Artifact.Spec().Plan(o.Schema)
		if err != nil {
			return nil, fmt.Errorf("the model's features cannot be computed from these events: %w", err)
		}
		if err := SameTypes(o.Artifact.Manifest().Input, o.Schema); err != nil {
			return nil, fmt.Errorf("model %s: %w", o.Artifact.Dir(), err)
		}
		return plan, o.Artifact.CheckNodes(plan.Nodes())
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
	for _, f := range s.o.Followers {
		if err := f.Fold(folded); err != nil {
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
