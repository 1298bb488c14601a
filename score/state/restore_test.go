package state

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
)

// cardsEngine is an engine of the handbook's features after 3 transactions of each of that many cards, on average.
func cardsEngine(tb testing.TB, cards int) *features.Engine {
	tb.Helper()
	schema := &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransID, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time},
		{Name: datasets.UserID, Type: datasets.Int64},
		{Name: datasets.StoreID, Type: datasets.Int64},
		{Name: datasets.Amount, Type: datasets.Decimal, Scale: 4},
		{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true},
	}}
	spec, err := features.Builtin("fraud-handbook")
	if err != nil {
		tb.Fatal(err)
	}
	plan, err := spec.Plan(schema)
	if err != nil {
		tb.Fatal(err)
	}
	e := plan.NewEngine(2)
	e.DetectDuplicates = true
	rnd := rand.New(rand.NewPCG(3, 4))
	n := 3 * cards
	gap := 30 * datasets.Day / int64(n)
	at := int64(1522540800) * datasets.Second
	var out features.Rows
	for from := 0; from < n; from += 1 << 16 {
		b := datasets.NewBatch(schema, 1<<16)
		for i := from; i < min(from+1<<16, n); i++ {
			at += rnd.Int64N(2*gap) + 1
			fraud := int64(0)
			if rnd.IntN(125) == 0 {
				fraud = 1
			}
			row := []int64{int64(i), at, rnd.Int64N(int64(cards)), rnd.Int64N(10000), rnd.Int64N(2_000_000), fraud}
			for c, v := range row {
				b.Columns[c].Ints = append(b.Columns[c].Ints, v)
			}
			b.N++
		}
		if err := e.Process(b, &out); err != nil {
			tb.Fatal(err)
		}
	}
	return e
}

// saveEngine saves the engine's state in a new directory.
func saveEngine(tb testing.TB, e *features.Engine, dir string) (Identity, *Part) {
	tb.Helper()
	id := Identity{Job: "cards", Nodes: e.Plan().Nodes()}
	s, err := Open(dir, id, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	p := &Part{}
	if err := errors.Join(e.Snapshot(p), s.Save(&Checkpoint{Entry: 1, Parts: map[string]*Part{Engine: p}}), s.Close()); err != nil {
		tb.Fatal(err)
	}
	return id, p
}

// restoreEngine is what a daemon does at its start.
func restoreEngine(tb testing.TB, e *features.Engine, id Identity, dir string) *features.Engine {
	tb.Helper()
	s, err := Open(dir, id, Options{})
	if err != nil {
		tb.Fatal(err)
	}
	c, err := s.Checkpoint()
	if err != nil {
		tb.Fatal(err)
	}
	fresh := e.Plan().NewEngine(1)
	if err := errors.Join(fresh.Restore(c.Parts[Engine].Reader()), s.Close()); err != nil {
		tb.Fatal(err)
	}
	return fresh
}

func TestEngineGoesThroughAStore(t *testing.T) {
	e := cardsEngine(t, 20_000)
	dir := t.TempDir()
	id, want := saveEngine(t, e, dir)
	if want.Bytes() < blockSize {
		t.Fatalf("a state of %d bytes is one piece", want.Bytes())
	}
	var got Part
	if err := restoreEngine(t, e, id, dir).Snapshot(&got); err != nil {
		t.Fatal(err)
	}
	sameCheckpoint(t, &Checkpoint{Parts: map[string]*Part{Engine: &got}}, &Checkpoint{Parts: map[string]*Part{Engine: want}})
}

// BenchmarkStore opens the state of a million cards and restores it, and saves it.
func BenchmarkStore(b *testing.B) {
	for _, cards := range []int{100_000, 1_000_000} {
		e := cardsEngine(b, cards)
		dir := b.TempDir()
		id, p := saveEngine(b, e, dir)
		b.Run(fmt.Sprintf("cards=%d/restore", cards), func(b *testing.B) {
			b.SetBytes(p.Bytes())
			for b.Loop() {
				restoreEngine(b, e, id, dir)
			}
		})
		b.Run(fmt.Sprintf("cards=%d/save", cards), func(b *testing.B) {
			b.SetBytes(p.Bytes())
			for b.Loop() {
				saveEngine(b, e, b.TempDir())
			}
		})
	}
}
