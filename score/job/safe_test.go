package job

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/onmart/onmart/score/state"
)

// carelessSink notes no positions, and so does not ask for a safe journal: a topic at least once.
type carelessSink struct{ *memorySink }

func (s carelessSink) Deliver(ctx context.Context, lines []Line, next map[string]int64, _ func() error) error {
	return s.memorySink.Deliver(ctx, lines, next, func() error { return nil })
}

// watchedSource is asked what it thinks of positions before they are noted.
type watchedSource struct {
	*memorySource
	commit func(next map[string]int64) error
}

func (s watchedSource) Commit(next map[string]int64) error {
	return errors.Join(s.commit(next), s.memorySource.Commit(next))
}

// TestPositionsAreNotNotedAheadOfTheJournal looks at each noting of positions into a copy of the state directory, which has what a
// killed process would leave.
func TestPositionsAreNotNotedAheadOfTheJournal(t *testing.T) {
	b := newBroker()
	for i := range 4 {
		b.create(fmt.Sprintf("kafka:in/%d", i), "id")
	}
	rng := rand.New(rand.NewPCG(1, 1))
	fill(b, rng, 0, 600)
	dir, noted := t.TempDir(), 0
	left := func(next map[string]int64) error {
		noted++
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			return err
		}
		s, err := state.OpenReadOnly(copied, state.Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		facts, err := s.Facts()
		if err != nil {
			return err
		}
		for source, at := range next {
			if facts.Positions[source] < at {
				return fmt.Errorf("%s: position %d is noted, and the journal goes up to %d", source, at, facts.Positions[source])
			}
		}
		return nil
	}
	p, err := start(t, dir, func(o *Options) {
		o.Source = watchedSource{&memorySource{b: b, rng: rng, stop: true}, left}
		o.Sink = carelessSink{&memorySink{b: b}}
		o.CheckpointEvery = 1 << 40
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.close(t)
	if err := p.j.Run(context.Background()); err != nil {
		t.Error(err)
	}
	if noted == 0 {
		t.Error("no positions were noted")
	}
}
