// Package atomicdir makes output appear whole or not at all.
//
// What enters: the files of one directory (or the bytes of one file), written to a temporary sibling of
// the place where they belong. What leaves: the complete directory under its final name, or nothing.
// Every file is fsynced and the manifest is written last, so that a directory with a manifest is
// complete even after a loss of power.
//
// With force the old directory stays in place until the new one takes its name, by an atomic exchange
// where the file system has one. Elsewhere there is an instant with neither name in place; the next
// Create for the same name puts the old one back if the process died in it.
//
// A temporary is held by flock for as long as its process lives. Leftovers of a process that was killed
// are removed by the next Create for the same name; those of a live one are left alone. Where the file
// system has no flock (some network mounts), leftovers stay until removed by hand: their names begin
// with a dot and the final name.
//
// It may not be assumed that readers of the temporary see anything sensible, nor that two writers of one
// name merge: the last Commit wins with force, and is refused without.
package atomicdir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ManifestName is the manifest that marks a directory as one of ours: force replaces no other.
const ManifestName = "manifest.json"

// ErrExists is wrapped by the error of an output that is there already, without force.
var ErrExists = errors.New("exists already")

// Dir is a directory being written. One goroutine creates, commits and aborts; files may be written by
// several.
type Dir struct {
	place
}

// File is a single file being written under the same promise.
type File struct {
	*os.File
	place
}

// place is what Dir and File share: where the output belongs and the temporary that becomes it.
type place struct {
	final, temp string
	force       bool
	lock        *os.File // an open, locked handle of temp
	parents     []string // folders made for final, deepest last
	done        bool     // committed or aborted
}

// Create starts a directory that will appear at final on Commit. It refuses an existing final without
// force, and with force one that onmart did not make (neither empty nor with a manifest). Missing parent
// folders are made. Defer Abort at once: after Commit it does nothing.
func Create(final string, force bool) (*Dir, error) {
	final, err := resolve(final)
	if err != nil {
		return nil, err
	}
	if err := recoverSwap(final); err != nil {
		return nil, err
	}
	if err := checkDir(final, force); err != nil {
		return nil, err
	}
	d := &Dir{place{final: final, force: force}}
	if err := d.makeParents(); err != nil {
		return nil, err
	}
	removeStale(final)
	err = d.claim(func(temp string) (*os.File, error) {
		if err := os.Mkdir(temp, 0o777); err != nil {
			return nil, err
		}
		return os.Open(temp)
	})
	if err != nil {
		d.Abort()
		return nil, fmt.Errorf("create %s: %w", final, err)
	}
	return d, nil
}

// CreateFile starts a single file that will appear at final on Commit; it refuses an existing final
// without force. Write to the embedded file; do not close it.
func CreateFile(final string, force bool) (*File, error) {
	final, err := resolve(final)
	if err != nil {
		return nil, err
	}
	if err := checkFile(final, force); err != nil {
		return nil, err
	}
	f := &File{place: place{final: final, force: force}}
	if err := f.makeParents(); err != nil {
		return nil, err
	}
	removeStale(final)
	err = f.claim(func(temp string) (*os.File, error) {
		return os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	})
	if err != nil {
		f.Abort()
		return nil, fmt.Errorf("create %s: %w", final, err)
	}
	f.File = f.lock
	return f, nil
}

// WriteFile writes data to path under the promise of CreateFile.
func WriteFile(path string, data []byte, force bool) error {
	f, err := CreateFile(path, force)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return f.Err(err)
	}
	return f.Commit()
}

// Path is where the file name of the directory is being written. It is valid until Commit or Abort.
func (d *Dir) Path(name string) string { return filepath.Join(d.temp, filepath.FromSlash(name)) }

// Final is the path at which the output appears on Commit.
func (p *place) Final() string { return p.final }

// Create makes the file name, and its folders when name has slashes, inside the directory. The caller
// closes it before Commit.
func (d *Dir) Create(name string) (*os.File, error) {
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) {
		return nil, fmt.Errorf("create %q in %s: the name leaves the directory", name, d.final)
	}
	path := filepath.Join(d.temp, local)
	if dir := filepath.Dir(path); dir != d.temp {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, d.Err(err)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, d.Err(err)
	}
	return f, nil
}

// Written is the length and SHA-256 (hex) of a file, as manifests keep them.
type Written struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Put makes the file name of what write writes.
func (d *Dir) Put(name string, write func(io.Writer) error) (Written, error) {
	f, err := d.Create(name)
	if err != nil {
		return Written{}, err
	}
	sum := sha256.New()
	if err := errors.Join(write(io.MultiWriter(f, sum)), f.Close()); err != nil {
		return Written{}, d.Err(err)
	}
	return Written{size(f.Name()), hex.EncodeToString(sum.Sum(nil))}, nil
}

// Commit fsyncs every file, writes the manifest last and gives the directory its final name. After an
// error nothing has changed at the final name and Abort removes the rest. manifestName should be
// ManifestName, or a later force refuses to replace the directory.
func (d *Dir) Commit(manifestName string, manifest []byte) error {
	if d.done {
		return fmt.Errorf("commit %s: it was committed or aborted before", d.final)
	}
	if err := syncTree(d.temp); err != nil {
		return d.Err(err)
	}
	f, err := d.Create(manifestName)
	if err != nil {
		return err
	}
	_, err = f.Write(manifest)
	if err = errors.Join(err, f.Sync(), f.Close(), syncPath(d.temp)); err != nil {
		return d.Err(err)
	}
	// The world may have changed since Create: another run may have finished first.
	if err := checkDir(d.final, d.force); err != nil {
		return err
	}
	return d.finish()
}

// Commit fsyncs the file and gives it its final name. After an error nothing has changed there.
func (f *File) Commit() error {
	if f.done {
		return fmt.Errorf("commit %s: it was committed or aborted before", f.final)
	}
	if err := f.Sync(); err != nil {
		return f.Err(err)
	}
	if err := checkFile(f.final, f.force); err != nil {
		return err
	}
	return f.finish()
}

// Abort removes what was written. It may be called at any time, also after Commit, and twice.
func (p *place) Abort() {
	if p.done {
		return
	}
	p.done = true
	if p.temp != "" {
		os.RemoveAll(p.temp)
	}
	if p.lock != nil {
		p.lock.Close()
	}
	for i := len(p.parents) - 1; i >= 0; i-- {
		os.Remove(p.parents[i]) // fails where somebody else uses it by now, and then it stays
	}
}

// Err explains an error of writing into the output: a full disk, an exhausted quota or a file past the
// allowed size name the place, what was written and what is free. Other errors pass through, nil too.
func (p *place) Err(err error) error {
	if !isFull(err) {
		return err
	}
	return &fullError{place: p.final, written: size(p.temp), free: free(filepath.Dir(p.final)), err: err}
}

// fullError says that the output does not fit.
type fullError struct {
	place         string
	written, free int64 // bytes; free < 0 is unknown
	err           error
}

func (e *fullError) Error() string {
	what := "no space left on device"
	switch {
	case errors.Is(e.err, unix.EDQUOT):
		what = "no space left on device: the disk quota is used up"
	case errors.Is(e.err, unix.EFBIG):
		what = "no space left on device: a file would pass the allowed file size"
	}
	left := ""
	if e.free >= 0 {
		left = fmt.Sprintf(" and %d bytes are free", e.free)
	}
	return fmt.Sprintf("%s: %s needs more than the %d bytes written so far%s; nothing was left behind: free some space or write elsewhere (%v)",
		what, e.place, e.written, left, e.err)
}

func (e *fullError) Unwrap() error { return e.err }

// isFull reports whether err says that the disk, the quota or the allowed file size is exhausted.
func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// resolve makes final absolute and follows a link at its end, so that the link stays and its target is
// what is replaced.
func resolve(final string) (string, error) {
	if final == "" {
		return "", errors.New("the output has no name: give the path of a directory or file to write")
	}
	abs, err := filepath.Abs(final)
	if err != nil {
		return "", err
	}
	if target, err := filepath.EvalSymlinks(abs); err == nil {
		return target, nil
	}
	if info, err := os.Lstat(abs); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return "", fmt.Errorf("%s is a link to something that does not exist: remove it or make its target", abs)
	}
	if filepath.Dir(abs) == abs {
		return "", fmt.Errorf("%s cannot be replaced: name a directory below it", abs)
	}
	return abs, nil
}

// checkDir refuses a final that Commit must not replace.
func checkDir(final string, force bool) error {
	info, err := os.Lstat(final)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is a file: name a directory that does not exist yet", final)
	}
	if !force {
		return fmt.Errorf("%s %w: give --force to replace it, or another name", final, ErrExists)
	}
	entries, err := os.ReadDir(final)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(final, ManifestName)); err != nil {
		return fmt.Errorf("%s has files but no %s, so onmart did not make it and --force does not remove it: remove it yourself or give another name", final, ManifestName)
	}
	return nil
}

// checkFile refuses a final that Commit must not replace.
func checkFile(final string, force bool) error {
	info, err := os.Lstat(final)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file: give the name of a file to write", final)
	}
	if !force {
		return fmt.Errorf("%s %w: give --force to replace it, or another name", final, ErrExists)
	}
	return nil
}

// makeParents makes the folders above final and notes them for Abort.
func (p *place) makeParents() error {
	var missing []string
	for dir := filepath.Dir(p.final); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			p.Abort()
			return fmt.Errorf("create %s: %w", p.final, err)
		}
		p.parents = append(p.parents, missing[i])
	}
	return nil
}

// claim makes a temporary and locks it. Another process may take the new temporary for a leftover
// between the making and the locking: it then removes it, which the comparison notices, and a second
// name is tried.
func (p *place) claim(create func(temp string) (*os.File, error)) error {
	for try := 0; ; try++ {
		temp := sibling(p.final, tempKind)
		f, err := create(temp)
		if err != nil {
			return p.Err(err)
		}
		if lock(f) && same(f, temp) {
			p.temp, p.lock = temp, f
			return nil
		}
		f.Close()
		if try == 100 {
			return fmt.Errorf("%s was removed by somebody else each time it was made", temp)
		}
	}
}

// finish gives the temporary its final name and makes that durable.
func (p *place) finish() error {
	if err := p.swap(); err != nil {
		return p.Err(err)
	}
	p.done = true
	err := syncPath(filepath.Dir(p.final))
	p.lock.Close()
	if err != nil {
		return fmt.Errorf("%s is complete, but whether it outlives a loss of power is not known: %w", p.final, err)
	}
	return nil
}

// swap puts the temporary in the place of final. What was there is removed after it.
func (p *place) swap() error {
	if _, err := os.Lstat(p.final); errors.Is(err, fs.ErrNotExist) {
		return renameNew(p.temp, p.final)
	}
	if !p.force {
		return fmt.Errorf("%s %w: give --force to replace it, or another name", p.final, ErrExists)
	}
	if info, err := os.Lstat(p.final); err == nil && !info.IsDir() {
		return os.Rename(p.temp, p.final) // replaces a file atomically
	}
	err := exchange(p.temp, p.final)
	if err == nil {
		removeOld(p.temp) // what resists is a leftover for the next Create
		return nil
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return p.moveAside()
}

// removeOld removes a directory of an earlier output. The system takes some 2 ms to let go of 10 MB, so that several files
// are removed at a time.
func removeOld(dir string) {
	entries, _ := os.ReadDir(dir)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(len(entries), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(entries); i = int(next.Add(1)) - 1 {
				os.RemoveAll(filepath.Join(dir, entries[i].Name()))
			}
		})
	}
	wg.Wait()
	os.RemoveAll(dir)
}

// moveAside is the swap without an atomic exchange: recoverSwap undoes the half of it. The old directory
// is locked meanwhile, so that recoverSwap of another process keeps off.
func (p *place) moveAside() error {
	old, err := os.Open(p.final)
	if err != nil {
		return err
	}
	defer old.Close()
	lock(old)
	aside := sibling(p.final, oldKind)
	if err := os.Rename(p.final, aside); err != nil {
		return err
	}
	if err := os.Rename(p.temp, p.final); err != nil {
		return errors.Join(err, os.Rename(aside, p.final))
	}
	os.RemoveAll(aside)
	return nil
}

const (
	tempKind = "onmart-tmp" // a temporary, or an old directory after an exchange: never wanted again
	oldKind  = "onmart-old" // an old directory moved aside: wanted where final is missing
)

// sibling names a hidden neighbour of final.
func sibling(final, kind string) string {
	return filepath.Join(filepath.Dir(final), fmt.Sprintf(".%s.%s-%016x", filepath.Base(final), kind, rand.Uint64()))
}

// siblings lists the neighbours of a kind.
func siblings(final, kind string) []string {
	entries, err := os.ReadDir(filepath.Dir(final))
	if err != nil {
		return nil
	}
	prefix := "." + filepath.Base(final) + "." + kind + "-"
	var found []string
	for _, e := range entries {
		if rest, ok := strings.CutPrefix(e.Name(), prefix); ok && len(rest) == 16 {
			found = append(found, filepath.Join(filepath.Dir(final), e.Name()))
		}
	}
	return found
}

// recoverSwap ends a moveAside that was cut off: the old directory returns where the new one never came,
// and is removed where it did.
func recoverSwap(final string) error {
	for _, aside := range siblings(final, oldKind) {
		f, err := os.Open(aside)
		if err != nil {
			continue
		}
		if lock(f) && same(f, aside) {
			if _, err := os.Lstat(final); err == nil {
				os.RemoveAll(aside)
			} else if err := os.Rename(aside, final); err != nil {
				f.Close()
				return fmt.Errorf("%s was being replaced when onmart was stopped; its old content is %s and cannot be put back: %w", final, aside, err)
			}
		}
		f.Close()
	}
	return nil
}

// removeStale removes temporaries whose process is gone.
func removeStale(final string) {
	for _, temp := range siblings(final, tempKind) {
		f, err := os.Open(temp)
		if err != nil {
			continue
		}
		if flockWorks(f) {
			os.RemoveAll(temp)
		}
		f.Close()
	}
}

// lock takes the lock of f without waiting. Where the file system has none it says yes: such a temporary
// is then safe because removeStale there says no.
func lock(f *os.File) bool {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	return err == nil || !errors.Is(err, unix.EWOULDBLOCK)
}

// flockWorks takes the lock of f and says no where there is no lock to take.
func flockWorks(f *os.File) bool {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// same reports whether path still names the open file.
func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// syncTree fsyncs every file and folder below dir.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !e.IsDir() && !e.Type().IsRegular() {
			return nil
		}
		return syncPath(path)
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// size sums the bytes of the files below path, for a message only.
func size(path string) int64 {
	var n int64
	filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// free is the bytes that the file system of dir offers to this user, -1 where it does not say.
func free(dir string) int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return -1
	}
	return int64(s.Bavail) * int64(s.Bsize)
}
