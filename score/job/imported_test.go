package job

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/onmart/onmart/score/state"
)

// importInto puts a state into a directory as a backfill hands it over: with the positions that were given, and without a job.
func importInto(t *testing.T, dir string, next map[string]int64) {
	t.Helper()
	m, spec := mappingOf(t)
	s := scorerOf(t, m, spec)
	store, err := state.Open(dir, state.Identity{Job: "test", Nodes: s.Nodes()}, state.Options{MinFree: 1, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	c := &state.Checkpoint{Next: next, Parts: map[string]*state.Part{state.Engine: {}}}
	if _, err := s.Capture(state.Engine, func(name string) io.Writer {
		if name == state.Engine {
			return c.Parts[name]
		}
		return io.Discard
	}); err != nil {
		t.Fatal(err)
	}
	if err := store.Save(c); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAnImportedStateBegins starts a job from a state that has a position of one partition of two, and of a data set. The other
// begins as --start says, and that is in the state before the first event is folded.
func TestAnImportedStateBegins(t *testing.T) {
	for _, fromEnd := range []bool{false, true} {
		b, dir := one(10), t.TempDir()
		b.create("kafka:in/1", "a")
		for i := 10; i < 15; i++ {
			b.produce("kafka:in/1", 0, fmt.Appendf(nil, "k%d", i), purchase(i, i*60))
		}
		importInto(t, dir, map[string]int64{"kafka:in/0": 4, "data:cards": 4})
		var log strings.Builder
		change := func(o *Options) {
			overTopics(b)(o)
			o.FromEnd = fromEnd
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
		}
		p, err := start(t, dir, change)
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.store.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		p.close(t) // killed before its first event
		first := int64(0)
		if fromEnd {
			first = 5
		}
		if len(c.Next) != 2 || c.Next["kafka:in/0"] != 4 || c.Next["kafka:in/1"] != first || len(c.Logs) != 2 {
			t.Errorf("from the end %v: %v, %v", fromEnd, c.Next, c.Logs)
		}
		if fromEnd {
			b.produce("kafka:in/1", 0, []byte("k15"), purchase(15, 900)) // after the job began, and before it started again
		}
		runs(t, dir, change)
		if n := map[bool]int{false: 11, true: 7}[fromEnd]; len(b.lines) != n {
			t.Errorf("from the end %v: %d lines, want %d", fromEnd, len(b.lines), n)
		}
		if strings.Contains(log.String(), "WARN") || strings.Contains(log.String(), "not read any more") {
			t.Errorf("%s", log.String())
		}
	}
}

// TestAnImportedStateIsChecked refuses one that does not reach into the log, saying so.
func TestAnImportedStateIsChecked(t *testing.T) {
	b, dir := one(10), t.TempDir()
	b.trim("kafka:in/0", 5)
	importInto(t, dir, map[string]int64{"kafka:in/0": 3})
	_, err := start(t, dir, overTopics(b))
	if err == nil || !strings.Contains(err.Error(), "kafka:in/0 begins at position 5, and the state that the job is to start from goes on at 3") {
		t.Error(err)
	}
}
