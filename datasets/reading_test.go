package datasets

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Memory that is used again holds the same rows, nulls and texts as new memory.
func TestReadReuse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	n := 4*partRows + 5000
	s := &Schema{Fields: mixed.Fields[1:5]}
	writeSet(t, dir, s, n)
	d := open(t, dir)
	for _, threads := range []int{1, 2} {
		memory := map[*int64]bool{}
		row, batches := 0, 0
		err := d.Read(context.Background(), ReadOptions{Threads: threads, Reuse: true}, func(b *Batch) error {
			memory[&b.Columns[0].Ints[0]] = true
			batches++
			sameBatch(t, randomBatch(s, row, b.N), b)
			row += b.N
			return nil
		})
		if err != nil || row != n {
			t.Fatalf("%d rows, %v", row, err)
		}
		// What waits of each part that is begun, one with each decoder and one with f.
		if limit := (threads+1)*batchesAhead + threads + 1; len(memory) > limit {
			t.Errorf("%d threads: memory of %d batches for %d, at most %d", threads, len(memory), batches, limit)
		}
	}
}

// A part that has grown, shrunk or gone since Open is an error that names it, after the rows before it.
func TestReadOfChangedParts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	writeSet(t, dir, &Schema{Fields: mixed.Fields[:2]}, 3*partRows)
	d := open(t, dir)
	path := filepath.Join(dir, "part-00001.parquet")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func() error
		want   string
	}{
		{func() error { return os.WriteFile(path, append(good[:len(good):len(good)], 0), 0o666) }, "checksum differs"},
		{func() error { return os.Truncate(path, 10) }, "checksum differs"},
		{func() error { return os.Truncate(path, 0) }, "checksum differs"},
		{func() error { return os.Remove(path) }, "no such file"},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		for _, threads := range []int{1, 2, 4} {
			rows := 0
			err := d.Read(context.Background(), ReadOptions{Threads: threads}, func(b *Batch) error { rows += b.N; return nil })
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) || rows != partRows {
				t.Errorf("%d threads: %v after %d rows, want %s", threads, err, rows, c.want)
			}
		}
	}
}

// An error behind Write comes back from Write or Commit, and nothing is left.
func TestErrorsBehindWrite(t *testing.T) {
	root := t.TempDir()
	w, err := Create(filepath.Join(root, "set"), KindFeatures, mixed, false)
	if err != nil {
		t.Fatal(err)
	}
	// The name of the second part is taken, so that it cannot be made.
	f, err := w.SideFile("part-00001.parquet")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b := randomBatch(mixed, 0, pageRows)
	for range 20 {
		if err = w.Write(b); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "part-00001.parquet") || !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v", err)
	}
	if cerr := w.Commit(); cerr == nil || cerr.Error() != err.Error() {
		t.Errorf("commit: %v", cerr)
	}
	w.Abort()
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("left %v %v", entries, err)
	}
}
