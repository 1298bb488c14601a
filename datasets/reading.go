package datasets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// batchesAhead is how many batches of a part wait, decoded, for those before them: the three after the one that f has
// are the rest of a part, so that the next part's decoder is not held up while f is at this one.
const batchesAhead = 3

// reading is a Read under way: parts are decoded by several goroutines and handed out in order.
type reading struct {
	d       *Dataset
	columns []int // of the data set
	keep    int   // how many of them, the first, are handed out; the rest is for the range
	cut     Range
	reuse   bool

	mu    sync.Mutex
	spare []*Batch // whose memory may be used
}

// decoded is a batch on its way to f.
type decoded struct {
	whole *Batch // as it was read
	rows  *Batch // what f gets
	err   error
}

// run decodes parts ahead of f and hands their rows to it in order.
func (r *reading) run(ctx context.Context, parts []Part, threads int, f func(*Batch) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	results := make([]chan decoded, len(parts))
	for i := range results {
		results[i] = make(chan decoded, batchesAhead)
	}
	next := make(chan int, len(parts))
	for i := range parts {
		next <- i
	}
	close(next)
	// Each decoder has a part, that which f is at among them: short parts must not pile up in memory.
	begun := make(chan struct{}, max(2, threads))
	for range min(threads, len(parts)) {
		wg.Go(func() {
			var file []byte
			for {
				select {
				case begun <- struct{}{}:
				case <-ctx.Done():
					return
				}
				i, more := <-next
				if !more || !r.decode(ctx, parts[i], &file, results[i]) {
					return
				}
			}
		})
	}
	for i := range parts {
		if err := r.handOut(ctx, results[i], f); err != nil {
			return err
		}
		<-begun
	}
	return ctx.Err()
}

// handOut gives a part's batches to f.
func (r *reading) handOut(ctx context.Context, from chan decoded, f func(*Batch) error) error {
	for {
		// A cancelled reading ends at once, also where batches are waiting.
		if err := ctx.Err(); err != nil {
			return err
		}
		select {
		case got, more := <-from:
			switch {
			case !more:
				return nil
			case got.err != nil:
				return got.err
			}
			if got.rows.N > 0 {
				if err := f(got.rows); err != nil {
					return err
				}
			}
			if r.reuse {
				r.mu.Lock()
				r.spare = append(r.spare, got.whole)
				r.mu.Unlock()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// decode sends a part's batches, or the error that it found, and closes the channel. It says no when there is no use
// in going on.
func (r *reading) decode(ctx context.Context, p Part, file *[]byte, to chan decoded) bool {
	defer close(to)
	send := func(got decoded) bool {
		select {
		case to <- got:
			return got.err == nil
		case <-ctx.Done():
			return false
		}
	}
	path := filepath.Join(r.d.dir, p.File)
	if err := r.load(path, p, file); err != nil {
		return send(decoded{err: err})
	}
	part, err := openPart(*file, r.d.Schema(), int(p.Rows), r.columns)
	for err == nil && part.rows > 0 {
		b := r.batch()
		if err = part.next(b); err == nil && !send(decoded{whole: b, rows: cut(b, r.cut).first(r.keep)}) {
			return false
		}
	}
	if err != nil {
		return send(decoded{err: fmt.Errorf("read data set: %s: %w", path, err)})
	}
	return true
}

func (r *reading) batch() *Batch {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.spare); n > 0 {
		b := r.spare[n-1]
		r.spare = r.spare[:n-1]
		return b
	}
	return &Batch{}
}

// load reads a part into *file, which grows as needed, and verifies its checksum.
func (r *reading) load(path string, p Part, file *[]byte) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read data set: %w", err)
	}
	defer f.Close()
	// One byte more than the part has, so that a file that has grown is noticed.
	data := grown(*file, int(p.Bytes)+1)
	*file = data
	n, err := io.ReadFull(f, data)
	if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read data set: %w", err)
	}
	*file = data[:n]
	if sum := sha256.Sum256(data[:n]); hex.EncodeToString(sum[:]) != p.SHA256 {
		return fmt.Errorf("read data set: %s: the checksum differs from the manifest's: the file was changed or damaged; "+
			"make %s again", path, r.d.dir)
	}
	return nil
}
