package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lock holds a directory for this process.
type lock struct {
	fs     vfs.FS
	dir    string
	file   io.Closer
	holder bool // the holder file is ours
}

// holder is what the holder file says.
type holder struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Since time.Time `json:"since"`
}

// acquire locks a directory, or says who holds it. The holder file is written by those that write the directory.
func acquire(fsys vfs.FS, dir string, write bool) (*lock, error) {
	name := fsys.PathJoin(dir, lockFile)
	if _, err := fsys.Stat(name); err != nil && !write {
		return nil, fmt.Errorf("%s is not the state of a scoring job: it has no file %s", dir, lockFile)
	}
	file, err := fsys.Lock(name)
	if err != nil {
		if isReadOnly(err) && !errors.Is(err, syscall.EACCES) || errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if isReadOnly(err) && !held(fsys, dir) {
			return nil, err
		}
		return nil, fmt.Errorf("state %s is in use by %s: stop that one first, or give this job a directory of its own", dir, whoHolds(fsys, dir))
	}
	l := &lock{fs: fsys, dir: dir, file: file}
	host, _ := os.Hostname() // for a message only
	text, err := json.Marshal(holder{os.Getpid(), host, time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		panic(err) // numbers and strings
	}
	if err := writeFile(fsys, fsys.PathJoin(dir, holderFile), text); err != nil {
		if write {
			return nil, errors.Join(err, file.Close())
		}
		return l, nil
	}
	l.holder = true
	return l, nil
}

// release gives the directory free.
func (l *lock) release() error {
	if l.holder {
		l.fs.Remove(l.fs.PathJoin(l.dir, holderFile)) // a stale one misleads nobody: it is read under a lock only
	}
	return l.file.Close()
}

// held tells whether somebody said to hold the directory.
func held(fsys vfs.FS, dir string) bool {
	_, err := fsys.Stat(fsys.PathJoin(dir, holderFile))
	return err == nil
}

// whoHolds reads the holder file.
func whoHolds(fsys vfs.FS, dir string) string {
	text, err := readFile(fsys, fsys.PathJoin(dir, holderFile))
	var h holder
	if err != nil || json.Unmarshal(text, &h) != nil || h.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("process %d on %s since %s", h.PID, h.Host, h.Since.Format(time.RFC3339))
}

// errReadOnlyFS is what a file system that is mounted for reading answers.
var errReadOnlyFS = syscall.EROFS

func readFile(fsys vfs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// tempSuffix names a file that is being written.
const tempSuffix = ".new"

func writeFile(fsys vfs.FS, path string, data []byte) error {
	f, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// writeSynced writes a file of a directory, whole or not at all.
func writeSynced(fsys vfs.FS, dir, name string, data []byte) error {
	temp := fsys.PathJoin(dir, name+tempSuffix)
	if err := writeFile(fsys, temp, data); err != nil {
		return err
	}
	if err := fsys.Rename(temp, fsys.PathJoin(dir, name)); err != nil {
		return err
	}
	return syncDir(fsys, dir)
}

func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// mkdirSynced makes a directory and those above it, and makes the names of the new ones durable.
func mkdirSynced(fsys vfs.FS, dir string) error {
	if info, err := fsys.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is a file: name a directory", dir)
		}
		return nil
	}
	parent := fsys.PathDir(dir)
	if parent != dir {
		if err := mkdirSynced(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(fsys, parent)
}
