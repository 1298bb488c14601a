package job

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/monitor"
	"github.com/onmart/onmart/score/state"
)

const testMapping = `format: jsonl
timezone: UTC
unique: trans_id
columns:
  trans_id: {from: id, type: int64}
  trans_datetime: {from: ts, layout: unix}
  user_id: {from: customer, type: int64}
  store_id: {from: terminal, type: int64}
  amount: {from: amount}
`

// Stores are shared by all partitions; ewma depends on the order of the log.
const testSpec = `name: shared
timezone: UTC
lateness: 1h
features:
  - {name: "n{w}", kind: count, key: user_id, windows: [1h, 1d], include_current: true}
  - {name: "s{w}", kind: sum, of: amount, key: store_id, windows: [1h, 1d]}
  - {name: "d{w}", kind: distinct, of: user_id, key: store_id, windows: [1d]}
  - {name: smooth, kind: ewma, of: amount, key: store_id, half_life: 6h}
`

func mappingOf(t testing.TB) (*datasets.Mapping, *features.Spec) {
	return parsed(t, testMapping, testSpec)
}

// parsed is a mapping and a spec, and the mapping knows the fields that lines are given.
func parsed(t testing.TB, mapping, text string) (*datasets.Mapping, *features.Spec) {
	t.Helper()
	spec, err := features.Parse("shared", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := datasets.ParseMapping("test", []byte(mapping))
	if err != nil {
		t.Fatal(err)
	}
	o := score.Options{Spec: spec, Schema: score.Placed(m.LogSchema()), Form: score.FormEvent}
	added, err := o.AddedFields()
	if err != nil {
		t.Fatal(err)
	}
	if m, err = m.Repeating(added); err != nil {
		t.Fatal(err)
	}
	return m, spec
}

func scorerOf(t testing.TB, m *datasets.Mapping, spec *features.Spec) *score.Scorer {
	t.Helper()
	s, err := score.New(score.Options{Spec: spec, Schema: score.Placed(m.LogSchema()), Form: score.FormEvent, Job: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// process is one life of a job.
type process struct {
	j      *Job
	scorer *score.Scorer
	store  *state.Store
}

// start opens the job of a directory; the store is closed by close.
func start(t testing.TB, dir string, change func(*Options)) (*process, error) {
	t.Helper()
	m, spec := mappingOf(t)
	return startOf(t, dir, m, spec, change)
}

func startOf(t testing.TB, dir string, m *datasets.Mapping, spec *features.Spec, change func(*Options)) (*process, error) {
	t.Helper()
	s := scorerOf(t, m, spec)
	store, err := state.Open(dir, state.Identity{Job: "test", Nodes: s.Nodes()}, state.Options{MinFree: 1, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Scorer: s, Mapping: m, Store: store, Monitor: monitor.New(monitor.Build{}), Log: slog.New(slog.DiscardHandler),
		CheckpointEvery: 1, Drain: 20 * time.Second}
	change(&o)
	j, err := Open(context.Background(), o)
	p := &process{j, s, store}
	if err != nil {
		p.close(t)
	}
	return p, err
}

func (p *process) close(t testing.TB) {
	t.Helper()
	if err := p.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// event is one purchase, as JSON.
func event(rng *rand.Rand, id, at int) []byte {
	switch rng.IntN(60) {
	case 0:
		return []byte(`{"id":` + fmt.Sprint(id) + `,"ts":"never"}`)
	case 1:
		at -= 3 * 3600 // late
	}
	return fmt.Appendf(nil, `{"id":%d,"ts":%d,"customer":%d,"terminal":%d,"amount":%d.25}`, id, 1_600_000_000+at, rng.IntN(20), rng.IntN(5),
		rng.IntN(90)+1)
}

// fill produces n events into partitions, in about the order of their times.
func fill(b *broker, rng *rand.Rand, from, n int) {
	for i := range n {
		name := fmt.Sprintf("kafka:in/%d", rng.IntN(4))
		gap := int64(0)
		if rng.IntN(9) == 0 {
			gap = int64(rng.IntN(3))
		}
		b.produce(name, gap, fmt.Appendf(nil, "k%d", from+i), event(rng, from+i, (from+i)*60+rng.IntN(600)))
		if rng.IntN(20) == 0 {
			b.mark(name)
		}
	}
}

// answered checks that the lines are of each key once, and gives what an uninterrupted scorer makes of the events in the order
// of the lines, and its state.
func answered(t *testing.T, b *broker, n int, lines []Line) {
	t.Helper()
	seen := map[string]int{}
	for _, l := range lines {
		seen[string(l.Key)]++
	}
	for i := range n {
		if k := fmt.Sprintf("k%d", i); seen[k] != 1 {
			t.Fatalf("%s has %d lines", k, seen[k])
		}
	}
	if len(seen) != n {
		t.Fatalf("lines of %d keys, want %d", len(seen), n)
	}
}

// again scores the events in the order of lines, one by one, without any job.
func again(t *testing.T, b *broker, lines []Line, numbers map[string]int32) ([][]byte, []byte) {
	t.Helper()
	m, spec := mappingOf(t)
	s := scorerOf(t, m, spec)
	type at struct {
		source string
		e      Event
	}
	by := map[string]at{}
	for name, l := range b.partitions {
		for _, e := range l.events {
			by[string(e.Key)] = at{name, e}
		}
	}
	var out [][]byte
	schema := score.Placed(m.LogSchema())
	for _, l := range lines {
		x := by[string(l.Key)]
		d, err := m.NewEventDecoder(x.source)
		if err != nil {
			t.Fatal(err)
		}
		ev := score.Events{Sources: []string{x.source}, Rows: datasets.NewBatch(schema, 1)}
		if r := d.Append(ev.Rows, x.e.Value, x.e.Position); r != nil {
			ev.Rejects = []score.Reject{{Reject: *r, Raw: x.e.Value}}
		} else {
			ev.Positions, ev.Raw = []int64{x.e.Position}, [][]byte{x.e.Value}
			score.Place(ev.Rows, numbers[x.source], ev.Positions)
		}
		line, _, err := s.Process(ev, nil)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, bytes.TrimSuffix(line, []byte("\n")))
	}
	return out, stateOf(t, s)
}

func stateOf(t *testing.T, s *score.Scorer) []byte {
	t.Helper()
	var engine bytes.Buffer
	if _, err := s.Capture(state.Engine, func(name string) io.Writer {
		if name != state.Engine {
			return io.Discard
		}
		return &engine
	}); err != nil {
		t.Fatal(err)
	}
	return engine.Bytes()
}

func linesOfFile(t *testing.T, path string) (lines [][]byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for l := range bytes.Lines(text) {
		lines = append(lines, bytes.TrimSuffix(l, []byte("\n")))
	}
	return lines
}

var errCrash = errors.New("crash of the test")

// TestCrashes kills a job at random deliveries, before they count and after, again and again. In the end every event has one
// line, and lines and state are those of a scorer that was never stopped.
func TestCrashes(t *testing.T) {
	for _, kind := range []string{"transactions", "file"} {
		crashed := 0
		for seed := range uint64(12) {
			t.Run(fmt.Sprintf("%s/%d", kind, seed), func(t *testing.T) { crashed += crashes(t, kind == "file", seed) })
		}
		if crashed < 24 {
			t.Errorf("%s: only %d crashes", kind, crashed)
		}
	}
}

func crashes(t *testing.T, toFile bool, seed uint64) int {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := newBroker()
	for i := range 4 {
		b.create(fmt.Sprintf("kafka:in/%d", i), "a")
	}
	const n = 2000
	fill(b, rng, 0, n)
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "out.jsonl")
	crashed, numbers := 0, map[string]int32{}
	for life := 0; ; life++ {
		left := rng.IntN(4) // deliveries of this life
		last := life > 15
		kill := func(when bool) func([]Line) error {
			return func(lines []Line) error {
				if when || last || len(lines) == 0 {
					return nil
				}
				if left--; left < 0 {
					return errCrash
				}
				return nil
			}
		}
		after := rng.IntN(2) == 0
		var opened Sink
		p, err := start(t, dir, func(o *Options) {
			o.Source = &memorySource{b: b, rng: rng, stop: true}
			o.Batch = 1 + rng.IntN(60)
			o.CheckpointEvery = time.Duration(rng.IntN(3)) * time.Millisecond
			sink := &memorySink{b: b, commits: true, before: kill(after), after: kill(!after)}
			o.Sink = sink
			if toFile {
				f, err := File(path)
				if err != nil {
					t.Fatal(err)
				}
				opened = f
				o.Sink = &fileOrCrash{f.(*file), sink}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		err = p.j.Run(context.Background())
		for name, n := range p.j.numbers {
			numbers[name] = n
		}
		done := err == nil
		if err != nil && !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		if errors.Is(err, errCrash) {
			crashed++
		}
		if opened != nil {
			opened.Close()
		}
		var got [][]byte
		var lines []Line
		if toFile {
			got = linesOfFile(t, path)
			for _, l := range got {
				lines = append(lines, Line{Key: keyOf(t, b, l)})
			}
		} else {
			lines = b.lines
			for _, l := range lines {
				got = append(got, l.Value)
			}
		}
		if done {
			answered(t, b, n, lines)
			want, wantState := again(t, b, lines, numbers)
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Fatalf("line %d is\n%s\nand without a crash it is\n%s", i, got[i], want[i])
				}
			}
			if !bytes.Equal(stateOf(t, p.scorer), wantState) {
				t.Fatal("the state is not that of a scorer that was never stopped")
			}
			p.close(t)
			break
		}
		p.close(t)
		if life > 60 {
			t.Fatalf("after %d lives there are %d lines of %d: %v", life, len(lines), n, err)
		}
	}
	return crashed
}

// fileOrCrash is a file whose deliveries fail as those of another sink would.
type fileOrCrash struct {
	*file
	k *memorySink
}

func (f *fileOrCrash) Deliver(ctx context.Context, lines []Line, next map[string]int64, ready func() error) error {
	if f.k.before(lines) != nil {
		return errCrash
	}
	if err := f.file.Deliver(ctx, lines, next, ready); err != nil {
		return err
	}
	return f.k.after(lines)
}

// keyOf finds the event of a line.
func keyOf(t *testing.T, b *broker, line []byte) []byte {
	t.Helper()
	var l struct {
		ID    *int
		Error *struct {
			Source   string
			Position int64
		}
	}
	if err := json.Unmarshal(line, &l); err != nil {
		t.Fatal(err)
	}
	if l.Error == nil {
		return fmt.Appendf(nil, "k%d", *l.ID)
	}
	for _, e := range b.partitions[l.Error.Source].events {
		if e.Position == l.Error.Position {
			return e.Key
		}
	}
	return nil
}
