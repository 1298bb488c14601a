package score

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/quality"
)

// Placed is the schema of events that come from several sources at once: that of a mapping's events, and behind it
// partition and seq, by which the features order events of one instant: a number for the source, and the position in it.
// Decoders leave the two to Place.
func Placed(events *datasets.Schema) *datasets.Schema {
	return &datasets.Schema{Fields: append(slices.Clone(events.Fields),
		datasets.Field{Name: features.Partition, Type: datasets.Int64}, datasets.Field{Name: datasets.Seq, Type: datasets.Int64})}
}

// Place fills the last two columns of rows of a Placed schema, for those rows that they lack.
func Place(b *datasets.Batch, partition int32, positions []int64) {
	n := len(b.Columns)
	part, seq := &b.Columns[n-2], &b.Columns[n-1]
	for len(part.Ints) < b.N {
		seq.Ints = append(seq.Ints, positions[len(part.Ints)])
		part.Ints = append(part.Ints, int64(partition))
	}
}

// Capture writes the whole state between two batches: that of the feature engine to the part of that name, and beside it
// those of followers and live figures, each to a part of its own name.
func (s *Scorer) Capture(engine string, part func(name string) io.Writer) (features.Counts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return features.Counts{}, s.failed
	}
	if err := s.engine.Snapshot(part(engine)); err != nil {
		return features.Counts{}, err
	}
	for name, x := range s.beside() {
		if err := x.Snapshot(part(name)); err != nil {
			return features.Counts{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	return s.engine.Counts(), nil
}

// Restore takes up what Capture wrote; part is nil for a name that was not captured. What is missing begins with what
// comes: the notes say so. Positions are where the sources go on.
func (s *Scorer) Restore(engine string, part func(name string) io.Reader, counts features.Counts, positions map[string]int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.engine.Restore(part(engine)); err != nil {
		return err
	}
	s.engine.SetCounts(counts)
	for _, f := range s.o.Followers {
		r := part(f.Task())
		if r == nil {
			return fmt.Errorf("it has no state of task %s", f.Task())
		}
		if err := f.Restore(r); err != nil {
			return fmt.Errorf("%s: %w", f.Task(), err)
		}
	}
	for name, x := range s.states() {
		r := part(name)
		if r == nil {
			s.noteWithout("the state", name)
			continue
		}
		err := x.Restore(r)
		var other *quality.Other
		switch {
		case errors.As(err, &other):
			s.live.notes = append(s.live.notes, fmt.Sprintf("%s: %v: it goes on from what there is", name, err))
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	s.positions = maps.Clone(positions)
	if s.positions == nil {
		s.positions = map[string]int64{}
	}
	return nil
}

// Positions are where the sources go on.
func (s *Scorer) Positions() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.positions)
}

// Nodes are those of the features in service.
func (s *Scorer) Nodes() []features.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.Nodes()
}

// Generation counts how often the engine was exchanged for one of other features.
func (s *Scorer) Generation() int64 { return s.generation.Load() }

// Tasks are those of the followers.
func (s *Scorer) Tasks() []string {
	var tasks []string
	for _, f := range s.o.Followers {
		tasks = append(tasks, f.Task())
	}
	return tasks
}
