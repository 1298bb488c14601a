package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/onmart/onmart/features"
)

var testID = Identity{Job: "cards", Nodes: []features.Node{{Name: "a", Fingerprint: "1"}, {Name: "b", Fingerprint: "2"}}, Followers: []string{"demand"}}

// small cuts checkpoints into many pieces and tables.
var small = layout{chunk: 100, table: 3}

func mustOpen(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, testID, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// bytesOf is n bytes that depend on a seed.
func bytesOf(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func partOf(b []byte) *Part {
	p := &Part{}
	p.Write(b)
	return p
}

// checkpointOf is one whose contents follow from its entry.
func checkpointOf(entry uint64, size int) *Checkpoint {
	return &Checkpoint{
		Entry: entry, Next: map[string]int64{"kafka:tx/0": int64(entry) * 10, "http": 3}, Partitions: map[string]int32{"kafka:tx/0": 1},
		Counts: features.Counts{Scored: int64(entry)},
		Parts:  map[string]*Part{Engine: partOf(bytesOf(entry, size)), "demand": partOf(bytesOf(entry+1000, size/3)), "empty": {}},
	}
}

// contents reads all of a checkpoint.
func contents(t *testing.T, c *Checkpoint) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for name, p := range c.Parts {
		b, err := io.ReadAll(p.Reader())
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(b)) != p.Bytes() {
			t.Fatalf("%s: %d bytes, Bytes says %d", name, len(b), p.Bytes())
		}
		all[name] = b
	}
	return all
}

func sameCheckpoint(t *testing.T, got, want *Checkpoint) {
	t.Helper()
	if got == nil {
		t.Fatal("no checkpoint")
	}
	if got.Entry != want.Entry || got.Counts != want.Counts {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if d := cmp.Diff(want.Next, got.Next) + cmp.Diff(want.Partitions, got.Partitions); d != "" {
		t.Fatal(d)
	}
	g, w := contents(t, got), contents(t, want)
	for name := range w {
		if !bytes.Equal(g[name], w[name]) {
			t.Fatalf("part %s differs", name)
		}
	}
	if len(g) != len(w) {
		t.Fatalf("%d parts, want %d", len(g), len(w))
	}
}

func entryOf(n uint64) *Entry {
	return &Entry{
		N: n, Spans: []Span{{"kafka:tx/0", int64(n), int64(n) + 10}, {"kafka:tx/1", 5, 5}}, Order: []byte{0, 10, byte(n)},
		Sink: int64(n) * 100,
	}
}

func replayed(t *testing.T, s *Store) []uint64 {
	t.Helper()
	var list []uint64
	err := s.Replay(func(e *Entry) error {
		if d := cmp.Diff(entryOf(e.N), e); d != "" {
			t.Error(d)
		}
		list = append(list, e.N)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestStoreGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	s := mustOpen(t, dir, Options{layout: small})
	if c, err := s.Checkpoint(); c != nil || err != nil {
		t.Fatalf("a new state has %v, %v", c, err)
	}
	for n := uint64(1); n <= 5; n++ {
		if err := s.Append(entryOf(n)); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, s)

	s = mustOpen(t, dir, Options{layout: small})
	if got := replayed(t, s); !slices.Equal(got, []uint64{1, 2, 3, 4, 5}) || s.Last() != 5 {
		t.Fatalf("entries %v, last %d", got, s.Last())
	}
	if err := s.Save(checkpointOf(3, 5000)); err != nil {
		t.Fatal(err)
	}
	if got := replayed(t, s); !slices.Equal(got, []uint64{4, 5}) {
		t.Fatalf("entries %v", got)
	}
	mustClose(t, s)

	s = mustOpen(t, dir, Options{layout: small})
	c, err := s.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	sameCheckpoint(t, c, checkpointOf(3, 5000))
	if got := replayed(t, s); !slices.Equal(got, []uint64{4, 5}) {
		t.Fatalf("entries %v", got)
	}
	if err := s.Drop(3); err == nil || !strings.Contains(err.Error(), "it has entries 4 to 5") {
		t.Fatalf("Drop(3): %v", err)
	}
	if err := s.Append(entryOf(6)); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(4, 6); err != nil {
		t.Fatal(err)
	}
	if got := replayed(t, s); !slices.Equal(got, []uint64{5}) {
		t.Fatalf("entries %v", got)
	}
	if err := s.Append(entryOf(6)); err == nil || !strings.Contains(err.Error(), "comes after entry 6") {
		t.Fatalf("Append(6) again: %v", err)
	}
	if err := errors.Join(s.Append(entryOf(7)), s.Sync(), s.Save(checkpointOf(7, 100_000))); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)

	s = mustOpen(t, dir, Options{layout: small})
	defer mustClose(t, s)
	if c, err = s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	sameCheckpoint(t, c, checkpointOf(7, 100_000))
	if got := replayed(t, s); got != nil || s.Last() != 7 {
		t.Fatalf("entries %v, last %d", got, s.Last())
	}
}

func TestEntryCodec(t *testing.T) {
	for _, e := range []*Entry{
		{N: 1},
		{N: 1 << 60, Inline: []byte("{}"), Sink: -1},
		{N: 7, Spans: []Span{{"file:x#0", -5, 1 << 40}}, Order: []byte{0}, Partitions: map[string]int32{"kafka:t/1": 4, "kafka:t/2": -4}},
	} {
		key := entryKey(e.N)
		value := sealed(key, e.encode(nil))
		got, err := decodeEntry(key, value)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, got); d != "" {
			t.Error(d)
		}
		for i := range value {
			broken := slices.Clone(value)
			broken[i] ^= 1
			if _, err := decodeEntry(key, broken); err == nil {
				t.Errorf("a changed byte %d was read", i)
			}
		}
	}
}

// FuzzDecodeEntry reads entries whose checksum is right and whose contents are anything.
func FuzzDecodeEntry(f *testing.F) {
	f.Add(entryOf(3).encode(nil))
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		key := entryKey(1)
		e, err := decodeEntry(key, sealed(key, slices.Clone(b)))
		if err == nil && len(e.Spans)+len(e.Order)+len(e.Inline) > len(b) {
			t.Fatal(fmt.Sprint("more than there was: ", e))
		}
	})
}
