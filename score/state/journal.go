package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/onmart/onmart/internal/varint"
)

// Entry is one batch of events that was folded. Numbers ascend from 1. Events that their source can give again are named
// by Spans, and Order says how rows of several spans were merged; others are in Inline, as they came.
type Entry struct {
	N          uint64
	Spans      []Span
	Order      []byte           // pairs of varints: which span, how many rows; empty: span after span
	Inline     []byte           // events that cannot be read again
	Sink       int64            // bytes of a file that takes the output, once this batch was written to it
	Partitions map[string]int32 // that were given a number since the entry before
}

// Span is positions From to To, exclusive, of a source.
type Span struct {
	Source   string
	From, To int64
}

// Append writes an entry. It is durable after Sync, and lost with the entries behind it where the machine dies before.
// Numbers ascend. It blocks while the disk has no space.
func (s *Store) Append(e *Entry) error {
	if err := s.disk.journal.pass(0); err != nil {
		return fmt.Errorf("append to the journal: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return fmt.Errorf("append to the journal: %w", err)
	}
	if e.N <= s.last {
		return fmt.Errorf("append to the journal: entry %d comes after entry %d", e.N, s.last)
	}
	key := entryKey(e.N)
	s.buf = sealed(key, e.encode(s.buf[:0]))
	if err := s.db.Set(key, s.buf, pebble.NoSync); err != nil {
		return fmt.Errorf("append to the journal: %w", s.explain(err))
	}
	s.last = e.N
	return nil
}

// Sync makes what was appended durable. Appends go on meanwhile.
func (s *Store) Sync() error {
	s.using.RLock()
	defer s.using.RUnlock()
	s.mu.Lock()
	db, err := s.db, s.writable()
	s.mu.Unlock()
	if err == nil {
		err = s.explain(db.LogData(nil, pebble.Sync))
	}
	if err != nil {
		return fmt.Errorf("sync the journal: %w", err)
	}
	return nil
}

// Drop forgets entries after the checkpoint, whose batches did not count after all, and returns once that is durable.
// Their numbers are not given again.
func (s *Store) Drop(entries ...uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.writable()
	if err != nil {
		return fmt.Errorf("drop entries of the journal: %w", err)
	}
	b := s.db.NewBatch()
	defer b.Close()
	for _, n := range entries {
		if n > s.last || n <= s.head.Entry {
			return fmt.Errorf("drop entry %d of the journal: it has entries %d to %d", n, s.head.Entry+1, s.last)
		}
		if err := b.Delete(entryKey(n), nil); err != nil {
			return err
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("drop entries of the journal: %w", s.explain(err))
	}
	return nil
}

// Last is the number of the newest entry, of the checkpoint's where none came since, 0 at first.
func (s *Store) Last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Replay gives the entries after the checkpoint, in ascending order. An error of f ends it and is returned. Entries that
// are appended or dropped meanwhile do not matter to it; the store may not be closed.
func (s *Store) Replay(f func(*Entry) error) error {
	s.mu.Lock()
	db, from := s.db, s.head.Entry+1
	s.mu.Unlock()
	if db == nil {
		return errClosed
	}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: entryKey(from), UpperBound: endOfJournal})
	if err != nil {
		return s.explain(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		e, err := decodeEntry(it.Key(), it.Value())
		if err != nil {
			return s.damaged(err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("read the journal: %w", s.explain(err))
	}
	return nil
}

// newest is the number of the last entry there is, or that of the checkpoint.
func (s *Store) newest() (uint64, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: entryKey(0), UpperBound: endOfJournal})
	if err != nil {
		return 0, s.explain(err)
	}
	defer it.Close()
	n := s.head.Entry
	if it.Last() {
		n = max(n, binary.BigEndian.Uint64(it.Key()[1:]))
	}
	return n, s.explain(it.Error())
}

func (e *Entry) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.Spans)))
	for i := range e.Spans {
		p := &e.Spans[i]
		b = appendBytes(b, p.Source)
		b = binary.AppendVarint(b, p.From)
		b = binary.AppendVarint(b, p.To-p.From)
	}
	b = appendBytes(b, e.Order)
	b = appendBytes(b, e.Inline)
	b = binary.AppendVarint(b, e.Sink)
	b = binary.AppendUvarint(b, uint64(len(e.Partitions)))
	for name, n := range e.Partitions {
		b = appendBytes(b, name)
		b = binary.AppendVarint(b, int64(n))
	}
	return b
}

func appendBytes[T string | []byte](b []byte, t T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(t))), t...)
}

// decodeEntry copies what it keeps.
func decodeEntry(key, value []byte) (*Entry, error) {
	if len(key) != 9 {
		return nil, errors.New("a key of its journal is impossible")
	}
	e := &Entry{N: binary.BigEndian.Uint64(key[1:])}
	b, err := unsealed(key, value)
	if err != nil {
		return nil, fmt.Errorf("entry %d of its journal: %w", e.N, err)
	}
	r := varint.Reader{B: b}
	for range r.Count() {
		from := Span{Source: string(r.Bytes()), From: r.Int()}
		from.To = from.From + r.Int()
		e.Spans = append(e.Spans, from)
	}
	e.Order = append(e.Order, r.Bytes()...)
	e.Inline = append(e.Inline, r.Bytes()...)
	e.Sink = r.Int()
	for range r.Count() {
		if e.Partitions == nil {
			e.Partitions = map[string]int32{}
		}
		name, n := string(r.Bytes()), r.Int()
		if n < math.MinInt32 || n > math.MaxInt32 {
			r.Bad = true
		}
		e.Partitions[name] = int32(n)
	}
	if r.Bad || len(r.B) > 0 {
		return nil, fmt.Errorf("entry %d of its journal cannot be read", e.N)
	}
	return e, nil
}
