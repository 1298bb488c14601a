package datasets

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/onmart/onmart/internal/atomicdir"
)

// Writer makes a data set. Rows go in by Write in log order; the directory appears on Commit.
//
// One goroutine uses a Writer. Behind it another encodes pages, its columns on all cores, and a third writes whole
// parts, so that all three overlap; each hands over a bounded number of rows and waits where the next one is behind.
// An error of theirs comes back at the next Write or at Commit. The bytes depend on the rows alone.
type Writer struct {
	dir      *atomicdir.Dir
	manifest Manifest
	filling  *Batch // rows that are not a page yet
	rows     int64
	inPart   int              // rows of the part that have been handed on
	parts    int              // handed on or there from the start
	lent     *Batch           // by Page, not yet filled
	spare    pool[Batch]      // pages to be filled
	pages    chan page        // to the encoder; nil before the first one
	writers  pool[partWriter] // parts to be made
	wg       sync.WaitGroup
	writing  sync.WaitGroup // parts that are being written
	resume   *checkpoint    // nil where the Writer leaves none

	mu  sync.Mutex // guards err and manifest.Parts
	err error
}

// page is rows on their way to the encoder.
type page struct {
	rows *Batch
	last bool // the part ends with it

	tail io.Writer  // instead of rows: where the part goes as far as it is
	done chan error // told when it is written, and the parts before it are on disk
}

// pagesAhead is how many pages there are at most: one being filled, one waiting and one being encoded. Where rows do not
// come in whole pages, one that was lent is a fourth.
const pagesAhead = 3

// pool is a bounded number of things that are used again. No more are made than were in use at once.
type pool[T any] struct {
	spare chan *T
	more  chan struct{} // one for each that may still be made
}

func newPool[T any](limit int) pool[T] {
	p := pool[T]{make(chan *T, limit), make(chan struct{}, limit)}
	for range limit {
		p.more <- struct{}{}
	}
	return p
}

// take gives one that was put back, or a new one as long as the bound allows it, or waits.
func (p *pool[T]) take(create func() *T) *T {
	select {
	case x := <-p.spare:
		return x
	default:
	}
	select {
	case x := <-p.spare:
		return x
	case <-p.more:
		return create()
	}
}

func (p *pool[T]) put(x *T) { p.spare <- x }

// Create starts the data set dir. It refuses an existing directory without force. Defer Abort at once:
// after Commit it does nothing.
func Create(dir string, kind Kind, s *Schema, force bool) (*Writer, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("create %s: %w", dir, err)
	}
	d, err := atomicdir.Create(dir, force)
	if err != nil {
		return nil, err
	}
	return newWriter(d, kind, s), nil
}

func newWriter(d *atomicdir.Dir, kind Kind, s *Schema) *Writer {
	w := &Writer{
		dir: d,
		manifest: Manifest{FormatVersion: formatVersion, Kind: kind, Schema: Schema{Fields: slices.Clone(s.Fields)},
			Created: Created{Time: time.Now().UTC().Truncate(time.Second)}, Counts: map[string]int64{}},
		spare: newPool[Batch](pagesAhead + 1),
		// One part in the making and one being written.
		writers: newPool[partWriter](2),
	}
	return w
}

// Page is a batch without rows whose columns have room for n of them, or for a whole page where that is less. What is
// put there and given to Write is not copied where it is a page of its own; in any case the memory is the Writer's again
// after Write, and another Page is to be asked for.
func (w *Writer) Page(n int) *Batch {
	if w.lent == nil {
		w.lent = w.page(n)
	}
	w.lent.truncate()
	return w.lent
}

// page is an empty page.
func (w *Writer) page(n int) *Batch {
	b := w.spare.take(func() *Batch { return NewBatch(&w.manifest.Schema, min(pageRows, n)) })
	b.truncate()
	return b
}

// Write appends a batch of the Writer's schema; the batch may be reused after. A NaN, an infinity, or a
// null where the schema has none is an error.
func (w *Writer) Write(b *Batch) error {
	if err := w.failed(); err != nil {
		return err
	}
	if err := checkBatch(b, &w.manifest.Schema); err != nil {
		return fmt.Errorf("write %s: %w", w.dir.Final(), err)
	}
	if w.takeLent(b) {
		return nil
	}
	for at := 0; at < b.N; {
		if w.filling == nil {
			w.filling = w.page(b.N - at)
		}
		n := min(pageRows-w.filling.N, b.N-at)
		w.filling.appendRows(b, at, at+n)
		at += n
		if w.filling.N == pageRows {
			w.handOn(w.inPart+pageRows == partRows)
		}
	}
	w.rows += int64(b.N)
	return nil
}

// takeLent takes a page that was lent as it is, where it begins a page of the data set.
func (w *Writer) takeLent(b *Batch) bool {
	if b != w.lent || b.N == 0 || b.N > pageRows || w.filling != nil {
		return false
	}
	w.filling, w.lent = b, nil
	w.rows += int64(b.N)
	if b.N == pageRows {
		w.handOn(w.inPart+pageRows == partRows)
	}
	return true
}

// Rows is the number of rows written so far, with those of a checkpoint or of the data set that is appended to.
func (w *Writer) Rows() int64 { return w.rows }

// handOn gives the rows that are there to the encoder. The last page of a part may be without rows where others of
// the part came before it.
func (w *Writer) handOn(last bool) {
	rows := 0
	if w.filling != nil {
		rows = w.filling.N
	}
	if rows == 0 && w.inPart == 0 {
		return
	}
	if w.pages == nil {
		pages := make(chan page, 1)
		w.pages = pages
		w.wg.Go(func() { w.encode(pages) })
	}
	if w.inPart += rows; last {
		w.inPart = 0
	}
	w.pages <- page{rows: w.filling, last: last}
	w.filling = nil
}

// encode makes parts of the pages that are handed on.
func (w *Writer) encode(pages <-chan page) {
	var p *partWriter
	for next := range pages {
		if next.tail != nil {
			next.done <- w.writeTail(p, next.tail)
			continue
		}
		if w.failed() != nil {
			w.giveBack(next.rows)
			continue
		}
		if p == nil {
			p = w.writers.take(func() *partWriter { return newPartWriter(&w.manifest.Schema) })
			p.reset()
		}
		if next.rows != nil {
			err := p.add(next.rows, runtime.GOMAXPROCS(0))
			w.giveBack(next.rows)
			if err != nil {
				w.fail(partName(w.parts), err)
				continue
			}
		}
		if next.last {
			w.finish(p)
			p = nil
		}
	}
	if p != nil {
		w.writers.put(p)
	}
}

// writeTail writes what there is of a part that goes on after it.
func (w *Writer) writeTail(p *partWriter, to io.Writer) error {
	var err error
	if p != nil && w.failed() == nil {
		_, err = p.finish(to)
	}
	w.writing.Wait()
	return errors.Join(w.failed(), err)
}

func partName(at int) string { return fmt.Sprintf("part-%05d.parquet", at) }

// finish writes the part while the next one is being made.
func (w *Writer) finish(p *partWriter) {
	at := w.parts
	w.parts++
	w.mu.Lock()
	w.manifest.Parts = append(w.manifest.Parts, Part{})
	w.mu.Unlock()
	w.writing.Add(1)
	w.wg.Go(func() {
		defer w.writing.Done()
		part, err := w.writePart(p, partName(at))
		if err != nil {
			w.fail(partName(at), err)
			return
		}
		w.mu.Lock()
		w.manifest.Parts[at] = part
		w.mu.Unlock()
	})
}

// writePart writes a part and brings it to the disk, so that Commit has nothing left to wait for. The checksum is made
// of what is written, on the way. The partWriter is free for the next part before the disk has answered.
func (w *Writer) writePart(p *partWriter, name string) (Part, error) {
	part := Part{File: name, Rows: int64(p.rows), From: p.from, To: p.to}
	f, err := w.dir.Create(name)
	if err == nil {
		sum := summing()
		part.Bytes, err = p.finish(io.MultiWriter(f, sum))
		part.SHA256 = sum.end()
	}
	w.writers.put(p)
	if f == nil {
		return part, err
	}
	if err == nil {
		err = f.Sync()
	}
	return part, errors.Join(err, f.Close())
}

// summer makes the checksum of what is written to it on another core. It reads what it was given until end, so that this must
// stay as it is.
type summer struct {
	pieces chan []byte
	sum    chan string
}

func summing() *summer {
	s := &summer{make(chan []byte, 8), make(chan string, 1)} // a few pieces, so that neither waits for each of the other's
	go func() {
		h := sha256.New()
		for b := range s.pieces {
			h.Write(b)
		}
		s.sum <- hex.EncodeToString(h.Sum(nil))
	}()
	return s
}

func (s *summer) Write(b []byte) (int, error) {
	s.pieces <- b
	return len(b), nil
}

// end is the checksum in hexadecimal.
func (s *summer) end() string {
	close(s.pieces)
	return <-s.sum
}

func (w *Writer) giveBack(b *Batch) {
	if b != nil {
		w.spare.put(b)
	}
}

func (w *Writer) fail(name string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf("write %s: %w", filepath.Join(w.dir.Final(), name), w.dir.Err(err))
	}
}

func (w *Writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// drain ends the part that is being made and waits until all parts are on disk.
func (w *Writer) drain() error {
	w.handOn(true)
	w.stop()
	return w.failed()
}

// stop ends the goroutines behind the Writer; the next page starts them again.
func (w *Writer) stop() {
	if w.pages != nil {
		close(w.pages)
		w.pages = nil
	}
	w.wg.Wait()
}

// SideFile makes a file beside the parts, such as rejects.jsonl. The caller closes it before Commit.
func (w *Writer) SideFile(name string) (io.WriteCloser, error) {
	f, err := w.dir.Create(name)
	if err != nil {
		return nil, w.dir.Err(err)
	}
	return sideFile{f, w.dir}, nil
}

// sideFile says of a full disk what parts say.
type sideFile struct {
	f   io.WriteCloser
	dir *atomicdir.Dir
}

func (s sideFile) Write(b []byte) (int, error) {
	n, err := s.f.Write(b)
	return n, s.dir.Err(err)
}

func (s sideFile) Close() error { return s.dir.Err(s.f.Close()) }

// Manifest is what Commit will write: fill Created, Sources, Counts and Extra before.
func (w *Writer) Manifest() *Manifest { return &w.manifest }

// Commit writes what is left and the manifest, and gives the directory its name. After an error nothing
// is there.
func (w *Writer) Commit() error {
	if err := w.drain(); err != nil {
		return err
	}
	m := &w.manifest
	m.Rows = w.rows
	for i, p := range m.Parts {
		if i == 0 {
			m.From, m.To = p.From, p.To
		}
		m.From, m.To = min(m.From, p.From), max(m.To, p.To)
	}
	m.ID = m.digest()
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", w.dir.Final(), err)
	}
	if err := w.dir.Commit(atomicdir.ManifestName, append(text, '\n')); err != nil {
		return err
	}
	if err := w.resume.remove(); err != nil {
		return fmt.Errorf("%s is complete, but its checkpoint could not be removed: %w", w.dir.Final(), err)
	}
	return nil
}

// Abort removes what was written, a checkpoint too; after Commit it does nothing.
func (w *Writer) Abort() {
	w.stop()
	// What cannot be removed is found by the next CreateOrResume.
	_ = w.resume.remove()
	w.dir.Abort()
}

// Suspend is Abort but for the last checkpoint, which stays for CreateOrResume.
func (w *Writer) Suspend() {
	w.stop()
	w.resume.close()
	w.dir.Abort()
}
