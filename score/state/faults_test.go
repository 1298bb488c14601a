package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/onmart/onmart/features"
)

func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
}

func TestTwoDaemonsOnOneState(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	_, err := Open(dir, testID, Options{})
	wantError(t, err, dir, fmt.Sprintf("in use by process %d", os.Getpid()), "stop that one first")
	_, err = OpenReadOnly(dir, Options{})
	wantError(t, err, "in use by process")
	mustClose(t, s)
	mustClose(t, mustOpen(t, dir, Options{}))
}

func TestOtherStates(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, mustOpen(t, dir, Options{}))
	open := func(change func(*Identity)) error {
		id := testID
		change(&id)
		s, err := Open(dir, id, Options{})
		if err == nil {
			s.Close()
		}
		return err
	}
	wantError(t, open(func(id *Identity) { id.Job = "other" }), `job "cards"`, `job "other"`, "--job cards")
	wantError(t, open(func(id *Identity) {
		id.Nodes = []features.Node{{Name: "b", Fingerprint: "3"}, {Name: "c", Fingerprint: "4"}}
	}), "without c", "another definition of b", "the unknown a", "onmart state import")
	wantError(t, open(func(id *Identity) { id.Followers = nil }), "followers [demand]", "this job has []", "onmart state export")
	if err := open(func(*Identity) {}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, formatFile), []byte("onmart score state 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, open(func(*Identity) {}), "another version", "onmart score state 2", "use the onmart that wrote it")
	if err := os.WriteFile(filepath.Join(dir, formatFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, open(func(*Identity) {}), "damaged", "onmart state import")

	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "letter.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(other, testID, Options{})
	wantError(t, err, "not the state of a scoring job", "letter.txt", "empty directory")
	_, err = OpenReadOnly(t.TempDir(), Options{})
	wantError(t, err, "not the state of a scoring job")
	_, err = OpenReadOnly(filepath.Join(other, "none"), Options{})
	wantError(t, err, "does not exist")
	_, err = Open(filepath.Join(other, "letter.txt", "x"), testID, Options{})
	wantError(t, err)
}

// writes tells whether an operation changes the disk.
func writes(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsWrite }

func TestReadOnlyDirectory(t *testing.T) {
	for _, cause := range []error{syscall.EROFS, syscall.EACCES} {
		mem := vfs.NewMem()
		refuse := errorfs.InjectorFunc(func(op errorfs.Op) error {
			if writes(op) {
				return cause
			}
			return nil
		})
		_, err := Open("/state", testID, Options{fs: errorfs.Wrap(mem, refuse)})
		wantError(t, err, "/state", "cannot be written", "make it writable", "--state")
		mustClose(t, mustOpen(t, "/state", Options{fs: mem}))
		_, err = Open("/state", testID, Options{fs: errorfs.Wrap(mem, refuse)})
		wantError(t, err, "/state", "cannot be written", "make it writable")
	}
}

// TestKilledInSave takes the disk as it is before each of the writes of a Save, with what was not synced lost, kept or
// partly kept, and opens that: it is the checkpoint before or the new one, whole, with the journal that belongs to it.
func TestKilledInSave(t *testing.T) {
	mem := vfs.NewCrashableMem()
	rnd := rand.New(rand.NewPCG(5, 6))
	var saving atomic.Bool
	var mu sync.Mutex
	var disks []*vfs.MemFS
	watch := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if saving.Load() && writes(op) {
			mu.Lock()
			defer mu.Unlock()
			for _, percent := range []int{0, 50, 100} {
				disks = append(disks, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rnd}))
			}
		}
		return nil
	})
	s := mustOpen(t, "/state", Options{fs: errorfs.Wrap(mem, watch), layout: small})
	for n := uint64(1); n <= 8; n++ {
		if err := s.Append(entryOf(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Save(checkpointOf(4, 2000)), s.Sync()); err != nil {
		t.Fatal(err)
	}
	saving.Store(true)
	if err := errors.Join(s.Save(checkpointOf(7, 2500)), s.Sync(), s.db.Flush()); err != nil {
		t.Fatal(err)
	}
	saving.Store(false)
	mustClose(t, s)
	old, fresh := 0, 0
	for i, disk := range disks {
		s, err := Open("/state", testID, Options{fs: disk, layout: small})
		if err != nil {
			t.Fatalf("disk %d of %d: %v", i, len(disks), err)
		}
		c, err := s.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		size, next := 2000, uint64(5)
		if c.Entry == 7 {
			size, next = 2500, 8
			fresh++
		} else {
			old++
		}
		sameCheckpoint(t, c, checkpointOf(next-1, size))
		got := replayed(t, s)
		if len(got) != int(8-next+1) || got[0] != next {
			t.Fatalf("disk %d: checkpoint of %d and entries %v", i, c.Entry, got)
		}
		if err := errors.Join(s.Append(entryOf(9)), s.Save(checkpointOf(9, 3000))); err != nil {
			t.Fatalf("disk %d does not go on: %v", i, err)
		}
		if c, err = s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		sameCheckpoint(t, c, checkpointOf(9, 3000))
		mustClose(t, s)
	}
	if old == 0 || fresh == 0 || len(disks) < 30 {
		t.Errorf("%d disks with the checkpoint before, %d with the new one", old, fresh)
	}
	t.Logf("%d disks: %d with the checkpoint before, %d with the new one", len(disks), old, fresh)
}

// TestKilledWhileBegun cuts at each write of the first Open.
func TestKilledWhileBegun(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var disks []*vfs.MemFS
	watch := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if writes(op) {
			for _, percent := range []int{0, 100} {
				disks = append(disks, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, 1))}))
			}
		}
		return nil
	})
	mustClose(t, mustOpen(t, "/a/state", Options{fs: errorfs.Wrap(mem, watch)}))
	for i, disk := range disks {
		s, err := Open("/a/state", testID, Options{fs: disk})
		if err != nil {
			t.Fatalf("disk %d: %v", i, err)
		}
		mustClose(t, s)
	}
}

// TestDamagedPiece changes, or takes away, a piece behind the store's back: reading the checkpoint fails and says what
// to do.
func TestDamagedPiece(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, "/state", Options{fs: mem, layout: small})
	if err := s.Save(checkpointOf(1, 1000)); err != nil {
		t.Fatal(err)
	}
	key := chunkKey(1, Engine, 3)
	value, closer, err := s.db.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	good := bytes.Clone(value)
	closer.Close()
	read := func() error {
		c, err := s.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(c.Parts[Engine].Reader())
		return err
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 4
		if err := s.db.Set(key, bad, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		wantError(t, read(), "piece 3 of its part features", "checksum", "damaged", "onmart state import")
	}
	if err := s.db.Delete(key, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	wantError(t, read(), "piece 3 of its part features is missing", "damaged")
	if err := s.db.Set(key, good, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Set(entryKey(2), []byte("nonsense"), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.Replay(func(*Entry) error { return nil }), "entry 2", "damaged")
	if err := s.db.Set(headKey, []byte("nonsense"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	_, err = Open("/state", testID, Options{fs: mem})
	wantError(t, err, "record of its checkpoint", "damaged")
}

// TestDamagedDisk flips a bit in the middle of each table on the disk.
func TestDamagedDisk(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	if err := s.Save(checkpointOf(1, 100_000)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	tables, err := filepath.Glob(filepath.Join(dir, databaseDir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("tables %v, %v", tables, err)
	}
	for _, path := range tables {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) < 100_000 {
			continue
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	told := make(chan error, 100)
	s = mustOpen(t, dir, Options{OnDamage: func(err error) { told <- err }})
	c, err := s.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(c.Parts[Engine].Reader())
	wantError(t, err, "damaged", "onmart state import")
	mustClose(t, s)
	select {
	case err := <-told:
		wantError(t, err, "damaged", "onmart state import")
	default:
		t.Error("OnDamage was not called")
	}
}

func usage(mem *vfs.MemFS, free uint64) {
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40})
}

// spaces gathers what OnSpace is told.
type spaces chan Space

func (c spaces) next(t *testing.T) Space {
	t.Helper()
	select {
	case x := <-c:
		return x
	case <-time.After(30 * time.Second):
		t.Fatal("OnSpace was not called")
		return Space{}
	}
}

// TestDiskFullBeforeWriting has no space when something is to be written: it waits, says so, and goes on.
func TestDiskFullBeforeWriting(t *testing.T) {
	mem := vfs.NewMem()
	usage(mem, 1<<30)
	told := make(spaces, 10)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := mustOpen(t, "/state", Options{fs: mem, poll: time.Millisecond, OnSpace: func(x Space) { told <- x }, Context: ctx})
	usage(mem, 1000)
	done := make(chan error)
	go func() { done <- s.Append(entryOf(1)) }()
	if x := told.next(t); !x.Short || x.For != "journal" || x.Free != 1000 || x.Needs != minFree {
		t.Errorf("told %+v", x)
	}
	select {
	case err := <-done:
		t.Fatalf("Append returned %v without space", err)
	case <-time.After(20 * time.Millisecond):
	}
	usage(mem, 1<<30)
	if x := told.next(t); x.Short || x.For != "journal" {
		t.Errorf("told %+v", x)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	usage(mem, minFree+100) // enough for the journal, not for a checkpoint
	go func() { done <- s.Save(checkpointOf(1, 1000)) }()
	if x := told.next(t); !x.Short || x.For != "checkpoint" {
		t.Errorf("told %+v", x)
	}
	if err := errors.Join(s.Append(entryOf(2)), s.Sync()); err != nil {
		t.Fatal(err)
	}
	cancel()
	wantError(t, <-done, "no space", "wait for it was ended")
	mustClose(t, s)
}

// TestDiskFullWhileWriting has the disk filled by somebody else after the look: the ballast is given up, and the write
// that found no space is completed.
func TestDiskFullWhileWriting(t *testing.T) {
	mem := vfs.NewMem()
	usage(mem, 1<<30)
	var full atomic.Bool
	found := make(chan struct{}, 100)
	noSpace := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind == errorfs.OpFileWrite {
			if _, err := mem.Stat("/state/" + ballastFile); err == nil {
				usage(mem, 0)
				found <- struct{}{}
				return syscall.ENOSPC
			}
			usage(mem, minFree/4) // what the ballast gave
		}
		return nil
	})
	told := make(spaces, 10)
	s := mustOpen(t, "/state", Options{fs: errorfs.Wrap(mem, noSpace), poll: time.Millisecond, OnSpace: func(x Space) { told <- x }})
	if _, err := mem.Stat("/state/" + ballastFile); err != nil {
		t.Fatal("no ballast")
	}
	if err := s.Append(entryOf(1)); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	synced := make(chan error)
	go func() { synced <- s.Sync() }()
	<-found
	if x := told.next(t); !x.Short || x.For != "journal" {
		t.Errorf("told %+v", x)
	}
	usage(mem, minFree/4)
	if err := <-synced; err != nil {
		t.Fatal(err)
	}
	full.Store(false)
	usage(mem, 1<<30)
	if x := told.next(t); x.Short {
		t.Errorf("told %+v", x)
	}
	if err := s.Append(entryOf(2)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	if _, err := mem.Stat("/state/" + ballastFile); err != nil {
		t.Error("the ballast was not put back")
	}
	s = mustOpen(t, "/state", Options{fs: mem})
	defer mustClose(t, s)
	if got := replayed(t, s); len(got) != 2 {
		t.Errorf("entries %v", got)
	}
}
