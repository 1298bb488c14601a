package datasets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/onmart/onmart/internal/atomicdir"
)

// A checkpoint is a hidden directory beside the data set that is being written. It has the parts that are complete,
// the rows of the part in the making (the tail), the caller's own files, and checkpoint.json, which names them with
// their checksums and is replaced by a rename after all else has reached the disk. So the last checkpoint is whole at
// every moment; what it does not name is left over from one that never was.
//
// Parts are hard links to those of the data set in the making. The tail is written again on the way to the data set,
// so that its bytes do not depend on where checkpoints were made.

const (
	checkpointName = "checkpoint.json"
	tailPages      = "tail-pages"
	tailRows       = "tail-rows"
)

// checkpoint is the directory of checkpoints of a Writer; nil is none.
type checkpoint struct {
	dir  string
	lock *os.File
	last checkpointState
	odd  bool // checkpoint.json could not be understood
}

// checkpointState is checkpoint.json.
type checkpointState struct {
	FormatVersion int    `json:"format_version"`
	Task          string `json:"task"`
	Kind          Kind   `json:"kind"`
	Schema        Schema `json:"schema"`
	Number        int    `json:"number"` // 1 is the first
	Parts         []Part `json:"parts"`
	Tails         []Part `json:"tails"`
	Extra         []Part `json:"extra"` // the caller's files; only File, Bytes and SHA256
}

// CreateOrResume is Create, or goes on from the checkpoint that an earlier Writer of the same task left beside dir:
// then Rows says how many rows there are already. The task names all that the rows depend on, such as the digests of
// the input and of the spec. A checkpoint of another task, kind or schema is an error without force, and is removed
// with it; a damaged one is an error.
func CreateOrResume(dir string, kind Kind, s *Schema, force bool, task string) (*Writer, error) {
	w, err := Create(dir, kind, s, force)
	if err != nil {
		return nil, err
	}
	if err := w.takeUp(task, force); err != nil {
		w.Suspend()
		return nil, err
	}
	return w, nil
}

// takeUp opens the directory of checkpoints and starts with what the last one has.
func (w *Writer) takeUp(task string, force bool) error {
	c, err := openCheckpoint(w.dir.Final())
	if err != nil {
		return err
	}
	w.resume = c
	mine := checkpointState{FormatVersion: formatVersion, Task: task, Kind: w.manifest.Kind, Schema: w.manifest.Schema}
	text, err := os.ReadFile(filepath.Join(c.dir, checkpointName))
	if errors.Is(err, fs.ErrNotExist) {
		c.last = mine
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &c.last); err != nil {
		c.odd = true
		return fmt.Errorf("%s: %w: remove %s to begin anew", filepath.Join(c.dir, checkpointName), err, c.dir)
	}
	if l := &c.last; l.FormatVersion != formatVersion || l.Task != task ||
		l.Kind != mine.Kind || !l.Schema.equal(&mine.Schema) {
		if !force {
			return fmt.Errorf("%s is the checkpoint of another run that was to write %s: run that one again to "+
				"complete it, or give --force to begin anew", c.dir, w.dir.Final())
		}
		c.last = mine
		return errors.Join(os.Remove(filepath.Join(c.dir, checkpointName)), syncDir(c.dir))
	}
	if err := c.verify(); err != nil {
		return err
	}
	return w.restore()
}

// openCheckpoint makes or opens the directory of checkpoints beside final, and keeps others out of it.
func openCheckpoint(final string) (*checkpoint, error) {
	c := &checkpoint{dir: filepath.Join(filepath.Dir(final), "."+filepath.Base(final)+".onmart-checkpoint")}
	for range 100 {
		if err := os.Mkdir(c.dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err := os.Open(c.dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed by one that has just ended
		}
		if err != nil {
			return nil, err
		}
		// Where the file system knows no locks, two runs at once are the user's to avoid.
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("%s is being written by another process: wait for it, or name another output", final)
		}
		if a, err := f.Stat(); err == nil {
			if b, err := os.Stat(c.dir); err == nil && os.SameFile(a, b) {
				c.lock = f
				return c, nil
			}
		}
		f.Close()
	}
	return nil, fmt.Errorf("%s is removed by somebody else each time it is made", c.dir)
}

// remove removes the checkpoints; after it, or close, it does nothing. What names the files goes first: a process that is
// killed in between leaves files without a name, which the next run removes, and not a checkpoint without files.
func (c *checkpoint) remove() error {
	if c == nil || c.lock == nil {
		return nil
	}
	defer c.close()
	err := os.Remove(filepath.Join(c.dir, checkpointName))
	if err == nil {
		err = syncDir(c.dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(c.dir)
}

// close lets others at the checkpoints. A directory without one goes.
func (c *checkpoint) close() {
	if c == nil || c.lock == nil {
		return
	}
	if c.last.Number == 0 && !c.odd {
		os.RemoveAll(c.dir)
	}
	c.lock.Close()
	c.lock = nil
}

// files are all that the checkpoint names.
func (c *checkpoint) files() []Part {
	all := append(append([]Part{}, c.last.Parts...), c.last.Tails...)
	return append(all, c.last.Extra...)
}

// verify finds files of the checkpoint that are not as they were.
func (c *checkpoint) verify() error {
	for _, p := range c.files() {
		path := filepath.Join(c.dir, p.File)
		bytes, sum, err := fileSum(path)
		if err == nil && (!filepath.IsLocal(p.File) || bytes != p.Bytes || sum != p.SHA256) {
			err = fmt.Errorf("%s: the checksum differs from the checkpoint's: the file was changed or damaged", path)
		}
		if err != nil {
			return fmt.Errorf("resume from the checkpoint: %w; remove %s to begin anew", err, c.dir)
		}
	}
	return nil
}

func fileSum(path string) (int64, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	return n, hex.EncodeToString(sum.Sum(nil)), err
}

// restore starts the Writer with the rows of the checkpoint.
func (w *Writer) restore() error {
	c := w.resume
	if err := w.begin(c.dir, c.last.Parts); err != nil {
		return err
	}
	for _, p := range c.last.Tails {
		if err := w.copyRows(&Dataset{dir: c.dir, manifest: w.manifest}, p); err != nil {
			return err
		}
	}
	return nil
}

// begin links parts of another directory into the data set; there are no others yet.
func (w *Writer) begin(dir string, parts []Part) error {
	for _, p := range parts {
		from := p.File
		p.File = partName(w.parts)
		if err := linkOrCopy(filepath.Join(dir, from), w.dir.Path(p.File)); err != nil {
			return w.dir.Err(err)
		}
		w.manifest.Parts = append(w.manifest.Parts, p)
		w.parts++
		w.rows += p.Rows
	}
	return nil
}

// copyRows writes the rows of a part.
func (w *Writer) copyRows(from *Dataset, p Part) error {
	r := &reading{d: from, keep: len(w.manifest.Schema.Fields), reuse: true}
	for i := range w.manifest.Schema.Fields {
		r.columns = append(r.columns, i)
	}
	return r.run(context.Background(), []Part{p}, 1, w.Write)
}

// linkOrCopy gives the file a second name, or where the file system has no links, a second self.
func linkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// Checkpoint brings the rows written so far, and the files that extra makes in the folder it is given, to the disk, so
// that CreateOrResume goes on from here after whatever stops the process. The one before is there until this one is
// complete. A Writer made by Create or Append has none. Files made by SideFile are not part of it.
func (w *Writer) Checkpoint(extra func(dir string) error) error {
	if w.resume == nil || w.resume.lock == nil {
		return fmt.Errorf("write %s: a checkpoint of a data set that was not begun by CreateOrResume", w.dir.Final())
	}
	err := w.checkpoint(extra)
	if err != nil {
		return fmt.Errorf("checkpoint of %s: %w", w.dir.Final(), w.dir.Err(err))
	}
	return nil
}

func (w *Writer) checkpoint(extra func(dir string) error) error {
	c := w.resume
	if err := c.clean(); err != nil {
		return err
	}
	next := c.last
	next.Number++
	next.Tails, next.Extra = nil, nil
	if w.inPart > 0 {
		p, err := c.put(next.turn(tailPages), int64(w.inPart), w.tail)
		if err != nil {
			return err
		}
		next.Tails = append(next.Tails, p)
	} else if err := w.tail(nil); err != nil {
		return err
	}
	if w.filling != nil && w.filling.N > 0 {
		rows := w.filling
		p, err := c.put(next.turn(tailRows), int64(rows.N), func(to io.Writer) error { return encodePart(to, rows) })
		if err != nil {
			return err
		}
		next.Tails = append(next.Tails, p)
	}
	// The tail is written only when all parts are.
	for _, p := range w.manifest.Parts[len(next.Parts):] {
		if err := linkOrCopy(w.dir.Path(p.File), filepath.Join(c.dir, p.File)); err != nil {
			return err
		}
		next.Parts = append(next.Parts, p)
	}
	if extra != nil {
		folder := next.turn("extra")
		if err := os.Mkdir(filepath.Join(c.dir, folder), 0o777); err != nil {
			return err
		}
		if err := extra(filepath.Join(c.dir, folder)); err != nil {
			return err
		}
		var err error
		if next.Extra, err = c.sumFolder(folder); err != nil {
			return err
		}
	}
	return c.replace(next)
}

// tail writes the part in the making as far as it is, and waits until the parts before it are on disk.
func (w *Writer) tail(to io.Writer) error {
	if w.pages == nil {
		return w.failed()
	}
	if to == nil {
		to = io.Discard
	}
	done := make(chan error, 1)
	w.pages <- page{tail: to, done: done}
	return <-done
}

// put makes a file of the checkpoint and brings it to the disk.
func (c *checkpoint) put(name string, rows int64, write func(io.Writer) error) (Part, error) {
	f, err := os.OpenFile(filepath.Join(c.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return Part{}, err
	}
	sum := sha256.New()
	if err := errors.Join(write(io.MultiWriter(f, sum)), f.Sync(), f.Close()); err != nil {
		return Part{}, err
	}
	info, err := os.Stat(f.Name())
	if err != nil {
		return Part{}, err
	}
	return Part{File: name, Rows: rows, Bytes: info.Size(), SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// sumFolder brings the caller's files to the disk and takes their checksums.
func (c *checkpoint) sumFolder(folder string) ([]Part, error) {
	var list []Part
	err := filepath.WalkDir(filepath.Join(c.dir, folder), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := syncDir(path); err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(c.dir, path)
		if err != nil {
			return err
		}
		p := Part{File: name}
		p.Bytes, p.SHA256, err = fileSum(path)
		list = append(list, p)
		return err
	})
	return list, err
}

// replace makes next the last checkpoint.
func (c *checkpoint) replace(next checkpointState) error {
	if err := syncDir(c.dir); err != nil {
		return err
	}
	text, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicdir.WriteFile(filepath.Join(c.dir, checkpointName), text, true); err != nil {
		return err
	}
	c.last = next
	return c.clean()
}

// clean removes what the last checkpoint does not name.
func (c *checkpoint) clean() error {
	named := map[string]bool{checkpointName: true}
	for _, p := range c.files() {
		for name := p.File; name != "."; name = filepath.Dir(name) {
			named[name] = true
		}
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !named[e.Name()] {
			if err := os.RemoveAll(filepath.Join(c.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// syncDir fsyncs a file or the entries of a folder.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Resumed is the folder with the files that extra made for the last checkpoint: at first the one that the Writer went
// on from. It is "" where there is none, and gone after Commit.
func (w *Writer) Resumed() string {
	if w.resume == nil || len(w.resume.last.Extra) == 0 {
		return ""
	}
	return filepath.Join(w.resume.dir, w.resume.last.turn("extra"))
}

// turn names files of the checkpoint. Two sets of names take turns, so that those of the last checkpoint stay until the
// next one is complete.
func (s *checkpointState) turn(name string) string { return fmt.Sprintf("%s-%d", name, s.Number%2) }

// Append starts a data set dir with the rows of old: what is written comes after them. Its bytes are those that one
// Writer of all rows would have written. Full parts of old are linked, not read: where one is damaged, reading finds
// it as before. Other files beside old are the caller's to take along. With force dir may be old's own, which is
// replaced on Commit.
func Append(old *Dataset, dir string, force bool) (*Writer, error) {
	m := old.Manifest()
	w, err := Create(dir, m.Kind, &m.Schema, force)
	if err != nil {
		return nil, err
	}
	full := m.Parts
	if n := len(full); n > 0 && full[n-1].Rows < partRows {
		full = full[:n-1]
	}
	err = w.begin(old.dir, full)
	for _, p := range m.Parts[len(full):] {
		if err == nil {
			err = w.copyRows(old, p)
		}
	}
	if err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}
