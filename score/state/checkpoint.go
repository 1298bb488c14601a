package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/onmart/onmart/features"
)

// Engine is the name of the feature engine's part of a checkpoint. The parts of followers have the names of their tasks.
const Engine = "features"

// Checkpoint is a state and where to go on from it. Entry is the number of the last journal entry in it, Next the next
// position of each source, Partitions the number that events of a topic's partition carry (the engine orders ties by it),
// Logs tells the log of a source from another that came to have its name, and Counts are those of the engine.
type Checkpoint struct {
	Entry      uint64
	Next       map[string]int64
	Partitions map[string]int32
	Logs       map[string]string // by source; such as the id of its topic
	Counts     features.Counts
	Parts      map[string]*Part // by Engine and followers' tasks
	Saved      time.Time        // set by Save
}

// blockSize is how much of a part is held in one piece: large enough that a piece costs nothing beside its bytes, small
// enough that a state of gigabytes does not need one slice.
const blockSize = 1 << 20

// layout is how a checkpoint is cut, a field so that tests may have several tables of a small one.
type layout struct {
	chunk int // bytes of a value
	table int // chunks of a table
}

func (l layout) withDefaults() layout {
	if l.chunk == 0 {
		l.chunk = blockSize
	}
	if l.table == 0 {
		l.table = 64
	}
	return l
}

// Part is the bytes of one state. They are written once and may then be read from the start any number of times.
type Part struct {
	blocks [][]byte
	bytes  int64
	stored *storedPart // of a checkpoint that was read
}

// storedPart is a part that is still in the database.
type storedPart struct {
	s          *Store
	generation uint64
	name       string
	chunks     int
}

// Write appends to the part. It never fails.
func (p *Part) Write(b []byte) (int, error) {
	n := len(b)
	p.bytes += int64(n)
	for len(b) > 0 {
		if k := len(p.blocks); k == 0 || len(p.blocks[k-1]) == cap(p.blocks[k-1]) {
			p.blocks = append(p.blocks, make([]byte, 0, blockSize))
		}
		last := &p.blocks[len(p.blocks)-1]
		k := min(len(b), cap(*last)-len(*last))
		*last = append(*last, b[:k]...)
		b = b[k:]
	}
	return n, nil
}

// Bytes is how many there are.
func (p *Part) Bytes() int64 { return p.bytes }

// Reader reads the part from its start. Of a checkpoint that was read it reads from the database, a piece at a time, and
// fails where a piece is damaged; it may not be used after the store was closed or the next Save.
func (p *Part) Reader() io.Reader {
	if p.stored != nil {
		return &storedReader{p: p.stored, left: p.bytes}
	}
	return &blockReader{blocks: p.blocks}
}

type blockReader struct {
	blocks [][]byte
	at     int
}

func (r *blockReader) Read(b []byte) (int, error) {
	for len(r.blocks) > 0 && r.at == len(r.blocks[0]) {
		r.blocks, r.at = r.blocks[1:], 0
	}
	if len(r.blocks) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.blocks[0][r.at:])
	r.at += n
	return n, nil
}

type storedReader struct {
	p     *storedPart
	buf   []byte
	at    int
	chunk int
	left  int64 // bytes that were not fetched
	err   error
}

func (r *storedReader) Read(b []byte) (int, error) {
	for r.at == len(r.buf) && r.err == nil {
		r.err = r.fetch()
	}
	if r.err != nil {
		return 0, r.err
	}
	n := copy(b, r.buf[r.at:])
	r.at += n
	return n, nil
}

// fetch reads the next piece.
func (r *storedReader) fetch() error {
	p := r.p
	if r.chunk == p.chunks {
		if r.left != 0 {
			return p.s.damaged(fmt.Errorf("%d bytes of its part %s are missing", r.left, p.name))
		}
		return io.EOF
	}
	key := chunkKey(p.generation, p.name, r.chunk)
	value, closer, err := p.s.db.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			return p.s.damaged(fmt.Errorf("piece %d of its part %s is missing", r.chunk, p.name))
		}
		return p.s.explain(err)
	}
	defer closer.Close()
	data, err := unsealed(key, value)
	if err != nil {
		return p.s.damaged(fmt.Errorf("piece %d of its part %s: %w", r.chunk, p.name, err))
	}
	r.buf, r.at = append(r.buf[:0], data...), 0
	r.chunk++
	r.left -= int64(len(data))
	return nil
}

// Checkpoint is the newest, nil where none was saved.
func (s *Store) Checkpoint() (*Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil, errClosed
	}
	h := &s.head
	if h.Generation == 0 {
		return nil, nil
	}
	c := &Checkpoint{
		Entry: h.Entry, Next: maps.Clone(h.Next), Partitions: maps.Clone(h.Partitions), Logs: maps.Clone(h.Logs), Counts: h.Counts, Saved: h.Saved,
		Parts: map[string]*Part{},
	}
	for name, t := range h.Parts {
		c.Parts[name] = &Part{bytes: t.Bytes, stored: &storedPart{s, h.Generation, name, t.Chunks}}
	}
	return c, nil
}

// Save makes c the newest checkpoint and forgets the entries up to c.Entry. It blocks until that is durable; an error
// leaves the checkpoint before in place. It may run beside Append, and uses the parts until it returns.
//
// The parts go to tables of their own, which the database takes as they are: they are written once, and do not pass
// through its log.
func (s *Store) Save(c *Checkpoint) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	old, id, err := s.head, s.id, s.writable()
	if err == nil && c.Entry < old.Entry {
		err = fmt.Errorf("a checkpoint of entry %d comes after that of entry %d", c.Entry, old.Entry)
	}
	if err == nil && c.Entry > s.last {
		s.last = c.Entry
	}
	s.mu.Unlock()
	if err != nil {
		return s.saveError(err)
	}
	var size int64
	for _, p := range c.Parts {
		size += p.bytes
	}
	if err := s.disk.checkpoints.pass(size); err != nil {
		return s.saveError(err)
	}
	h := header{
		Identity: id, Generation: old.Generation + 1, Saved: time.Now().UTC().Truncate(time.Millisecond), Entry: c.Entry,
		Next: c.Next, Partitions: c.Partitions, Logs: c.Logs, Counts: c.Counts, Parts: map[string]partTable{},
	}
	w := &tableWriter{s: s, generation: h.Generation}
	for _, name := range slices.Sorted(maps.Keys(c.Parts)) {
		if strings.ContainsRune(name, 0) || name == "" {
			err = fmt.Errorf("a part has the impossible name %q", name)
		} else {
			h.Parts[name], err = w.part(name, c.Parts[name])
		}
		if err != nil {
			return s.saveError(errors.Join(err, w.abort()))
		}
	}
	if err := w.ingest(); err != nil {
		return s.saveError(err)
	}
	b := s.db.NewBatch()
	defer b.Close()
	err = errors.Join(
		b.Set(headKey, h.encode(), nil),
		b.DeleteRange(entryKey(0), entryKey(c.Entry+1), nil),
		b.DeleteRange(generationKey(0), generationKey(h.Generation), nil),
	)
	if err == nil {
		err = b.Commit(pebble.Sync)
	}
	if err != nil {
		return s.saveError(err)
	}
	s.mu.Lock()
	s.head = h
	s.mu.Unlock()
	return nil
}

func (s *Store) saveError(err error) error {
	return fmt.Errorf("save a checkpoint: %w", s.explain(err))
}

// tableWriter writes parts to tables. Keys come in ascending order.
type tableWriter struct {
	s          *Store
	generation uint64
	w          *sstable.Writer
	chunks     int // of the table at hand
	paths      []string
}

// part writes one part, in pieces.
func (t *tableWriter) part(name string, p *Part) (partTable, error) {
	var table partTable
	r := p.Reader()
	buf := make([]byte, 0, t.s.o.layout.chunk+4)
	for {
		n, err := io.ReadFull(r, buf[:t.s.o.layout.chunk])
		if n > 0 {
			if err := t.put(chunkKey(t.generation, name, table.Chunks), buf[:n]); err != nil {
				return table, err
			}
			table.Bytes += int64(n)
			table.Chunks++
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return table, nil
		case err != nil:
			return table, err
		}
	}
}

func (t *tableWriter) put(key, data []byte) error {
	if t.w == nil {
		if err := t.begin(); err != nil {
			return err
		}
	}
	if err := t.w.Set(key, sealed(key, data)); err != nil {
		return err
	}
	if t.chunks++; t.chunks == t.s.o.layout.table {
		return t.end()
	}
	return nil
}

func (t *tableWriter) begin() error {
	path := t.s.o.fs.PathJoin(t.s.path(incomingDir), fmt.Sprintf("%d-%d.sst", t.generation, len(t.paths)))
	f, err := t.s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	database := t.s.databaseOptions()
	database.EnsureDefaults()
	o := database.MakeWriterOptions(0, databaseFormat.MaxTableFormat())
	o.Compression = sstable.NoCompression // numbers as short as they come: to compress them takes longer than to write them
	t.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), o)
	t.paths, t.chunks = append(t.paths, path), 0
	return nil
}

// end completes the table at hand; closing syncs it.
func (t *tableWriter) end() error {
	if t.w == nil {
		return nil
	}
	w := t.w
	t.w = nil
	return w.Close()
}

// ingest gives the tables to the database, which syncs their names.
func (t *tableWriter) ingest() error {
	if err := t.end(); err != nil {
		return errors.Join(err, t.abort())
	}
	if len(t.paths) == 0 {
		return nil
	}
	if err := t.s.db.Ingest(context.Background(), t.paths); err != nil {
		return errors.Join(err, t.abort())
	}
	return nil
}

// abort removes what was written.
func (t *tableWriter) abort() error {
	err := t.end()
	for _, path := range t.paths {
		t.s.o.fs.Remove(path) // Open removes what is left
	}
	t.paths = nil
	return err
}
