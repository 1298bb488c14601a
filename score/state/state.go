// Package state keeps what a scoring job needs to go on after it was killed: checkpoints and a journal, in one
// directory on Pebble.
//
// What enters: checkpoints (the states of the feature engine and of its followers, and the next position of every
// source), and between them one journal entry for each batch of events that was folded. What leaves, when the
// directory is opened again: the newest checkpoint, and the entries since, in their order.
//
// The journal does not hold events that their source can give again: it says which they were and in what order they
// were folded. Folding them again after the checkpoint gives the state that was, to the bit, also of features that
// depend on order.
//
// A checkpoint replaces the one before in one synced write, together with the journal that it makes superfluous: a
// process that dies at any moment leaves the old one or the new one. It may not be assumed that an entry is durable
// before Sync has returned, nor that a directory can be opened by two processes, or by a job of another name, features
// or followers.
package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/onmart/onmart/features"
)

// The directory of a state holds these. The database is below it, so that what is ours can be told from what is not
// before anything is opened.
const (
	formatFile  = "format"  // names the layout, before the database exists
	lockFile    = "lock"    // locked while a process has the directory
	holderFile  = "holder"  // who that is, for the message to the next
	ballastFile = "ballast" // given up on a full disk
	databaseDir = "db"
	incomingDir = "incoming" // tables of a checkpoint that is being written
)

// formatLine is what the format file of this version says.
const formatLine = "onmart score state 1\n"

// databaseFormat is Pebble's: the oldest that ingests tables without a flush, so that more versions can read it.
const databaseFormat = pebble.FormatFlushableIngest

// Identity is what a state belongs to.
type Identity struct {
	Job       string          `json:"job"`
	Nodes     []features.Node `json:"nodes"`
	Followers []string        `json:"followers,omitempty"` // tasks, such as "demand"
}

// Options of a Store. The zero value is good.
type Options struct {
	// Context ends waits for space on a full disk; nil waits until there is space or the store is closed.
	Context context.Context
	// Log receives what the store and its database report; nil is silent.
	Log *slog.Logger
	// OnSpace is told when writing begins to wait for space, and when it goes on, from any goroutine. It may not call
	// the store.
	OnSpace func(Space)
	// OnDamage is told of a file of the database that was found damaged, from any goroutine: what is in it is lost, and whoever
	// asks for it gets an error. It may not call the store.
	OnDamage func(error)
	// OnFatal is told of a fault after which the database cannot go on, such as a write to its log that failed; it must
	// not return. Nil panics. What was synced is safe: the process is to be started again.
	OnFatal func(error)
	// MinFree bytes of the disk are left to others: below it nothing is written. 0 is 128 MiB.
	MinFree int64
	// Ballast is the size in bytes of a file that is given up when the disk is full all the same, so that what is under
	// way can be completed. 0 is 64 MiB; negative is none.
	Ballast int64

	fs     vfs.FS        // nil is that of the system
	poll   time.Duration // between looks at a full disk
	layout layout
}

const (
	minFree     = 128 << 20 // more than the database writes by itself: its memtables, and what a flush adds
	ballastSize = 64 << 20  // a memtable and its flush several times over
	pollSpace   = time.Second
)

// withDefaults fills in what was left open.
func (o Options) withDefaults() Options {
	if o.Context == nil {
		o.Context = context.Background()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnSpace == nil {
		o.OnSpace = func(Space) {}
	}
	if o.OnDamage == nil {
		o.OnDamage = func(error) {}
	}
	if o.OnFatal == nil {
		o.OnFatal = func(err error) { panic(err) }
	}
	if o.MinFree == 0 {
		o.MinFree = minFree
	}
	if o.Ballast == 0 {
		o.Ballast = ballastSize
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	if o.poll == 0 {
		o.poll = pollSpace
	}
	o.layout = o.layout.withDefaults()
	return o
}

// Store is an open state directory. Append and Drop are for one goroutine; Sync and Save may run beside
// them in others.
type Store struct {
	dir      string
	o        Options
	fs       vfs.FS // waits where the disk is full
	db       *pebble.DB
	lock     *lock
	disk     *disk
	readOnly bool
	cancel   context.CancelFunc

	saving sync.Mutex   // one Save at a time
	using  sync.RWMutex // held by Close alone against those who sync

	mu   sync.Mutex
	head header
	last uint64 // number of the newest entry
	id   Identity
	buf  []byte
}

// ErrReadOnly is returned by what writes to a store that was opened for reading.
var ErrReadOnly = errors.New("the state was opened for reading")

// Open opens the state of a job, or begins one where the directory is empty or does not exist. It holds the directory
// until Close. It refuses a directory that another process holds, the state of another job, of other features or
// followers, of another version, one that is damaged, and a directory that holds anything else; each error says what to
// do.
func Open(dir string, id Identity, o Options) (*Store, error) {
	s, err := open(dir, o, false)
	if err != nil {
		return nil, err
	}
	if err := s.take(id); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// OpenReadOnly opens the state of any job to look at it. It holds the directory like Open.
func OpenReadOnly(dir string, o Options) (*Store, error) {
	s, err := open(dir, o, true)
	if err != nil {
		return nil, err
	}
	switch found, err := s.readHead(); {
	case err != nil:
		return nil, errors.Join(err, s.Close())
	case !found:
		return nil, errors.Join(s.notState(), s.Close())
	}
	s.id = s.head.Identity
	if s.last, err = s.newest(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) notState() error {
	return fmt.Errorf("%s is not the state of a scoring job: onmart state import writes one", s.dir)
}

func open(dir string, o Options, readOnly bool) (s *Store, err error) {
	o = o.withDefaults()
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	ctx, cancel := context.WithCancel(o.Context)
	s = &Store{dir: dir, o: o, readOnly: readOnly, cancel: cancel}
	s.disk = newDisk(ctx, dir, &s.o)
	s.fs = vfs.OnDiskFull(o.fs, s.disk.full)
	defer func() {
		if err != nil {
			err = errors.Join(s.explain(err), s.Close())
			s = nil
		}
	}()
	if err := s.ours(); err != nil {
		return s, err
	}
	if !readOnly {
		if err := mkdirSynced(o.fs, dir); err != nil {
			return s, err
		}
	}
	if s.lock, err = acquire(o.fs, dir, !readOnly); err != nil {
		return s, err
	}
	if err := s.checkFormat(); err != nil {
		return s, err
	}
	if !readOnly {
		if err := o.fs.RemoveAll(s.path(incomingDir)); err != nil {
			return s, err
		}
		if err := mkdirSynced(o.fs, s.path(incomingDir)); err != nil {
			return s, err
		}
		s.disk.makeBallast()
	}
	s.db, err = pebble.Open(s.path(databaseDir), s.databaseOptions())
	return s, err
}

func (s *Store) path(name string) string { return s.o.fs.PathJoin(s.dir, name) }

// databaseOptions are for a journal of some MiB and checkpoints that do not pass through the memtable.
func (s *Store) databaseOptions() *pebble.Options {
	return &pebble.Options{
		FS: s.fs, FormatMajorVersion: databaseFormat, ReadOnly: s.readOnly, ErrorIfNotExists: s.readOnly,
		Logger: &databaseLog{log: s.o.Log, fatal: s.fatal}, MaxOpenFiles: 64, CacheSize: 1 << 20,
		EventListener: &pebble.EventListener{DataCorruption: s.corrupt},
	}
}

// corrupt reports damage that the database met. Whoever reads the damaged place gets the error; by itself the database
// would end the process.
func (s *Store) corrupt(info pebble.DataCorruptionInfo) {
	// As text: a log would print such an error with the stack of the database.
	s.o.Log.Error("state database: damaged", "file", info.Path, "error", firstLine(info.Details.Error()))
	s.o.OnDamage(s.damaged(errors.New(firstLine(info.Details.Error()))))
}

func (s *Store) fatal(err error) {
	s.o.OnFatal(fmt.Errorf("state %s cannot be written any more: %w; what was synced is safe: mend the disk and start again", s.dir, err))
}

// ours refuses a directory that holds what a state does not.
func (s *Store) ours() error {
	names, err := s.o.fs.List(s.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.readOnly:
		return fmt.Errorf("%s does not exist: name the directory that onmart state import wrote", s.dir)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	var strange []string
	for _, name := range names {
		switch name {
		case formatFile, formatFile + tempSuffix, lockFile, holderFile, ballastFile, databaseDir, incomingDir:
		default:
			strange = append(strange, name)
		}
	}
	if len(strange) == 0 {
		return nil
	}
	slices.Sort(strange)
	if len(strange) > 3 {
		strange = append(strange[:3], "...")
	}
	return fmt.Errorf("%s is not the state of a scoring job: it holds %s; name an empty directory, or one that does not exist",
		s.dir, strings.Join(strange, ", "))
}

// checkFormat reads the layout's name, or writes it where the directory is new.
func (s *Store) checkFormat() error {
	text, err := readFile(s.o.fs, s.path(formatFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(text) == formatLine {
		return nil
	}
	_, dbErr := s.o.fs.Stat(s.path(databaseDir))
	switch fresh := errors.Is(dbErr, fs.ErrNotExist); {
	case strings.HasPrefix(string(text), "onmart score state "):
		return fmt.Errorf("state %s is of another version (%q, this onmart has %q): use the onmart that wrote it, or export it with that "+
			"(onmart state export) and import it with this one", s.dir, strings.TrimSpace(string(text)), strings.TrimSpace(formatLine))
	case fresh && s.readOnly:
		return s.notState()
	case fresh && len(text) == 0:
		return writeSynced(s.o.fs, s.dir, formatFile, []byte(formatLine))
	}
	return s.damaged(fmt.Errorf("its file %s does not say what it is", formatFile))
}

// take checks that the state is that of id, or gives a new one to it, and puts away what a Save that died has left.
func (s *Store) take(id Identity) error {
	id.Followers = slices.Sorted(slices.Values(id.Followers))
	s.id = id
	found, err := s.readHead()
	if err != nil {
		return err
	}
	if !found {
		if s.last, err = s.newest(); err != nil {
			return err
		}
		if s.last > 0 {
			return s.damaged(errors.New("it has a journal and does not say of what"))
		}
		s.head = header{Identity: id}
		return s.explain(s.db.Set(headKey, s.head.encode(), pebble.Sync))
	}
	if err := s.head.Identity.fits(id, s.dir); err != nil {
		return err
	}
	if s.last, err = s.newest(); err != nil {
		return err
	}
	return s.explain(s.db.DeleteRange(generationKey(s.head.Generation+1), endOfParts, pebble.NoSync))
}

// fits compares what a state belongs to with what is asked for.
func (have Identity) fits(want Identity, dir string) error {
	if have.Job != want.Job {
		return fmt.Errorf("state %s belongs to the job %q and this is the job %q: give each job a directory of its own (--state), "+
			"or go on with --job %s", dir, have.Job, want.Job, have.Job)
	}
	if err := features.SameNodes(have.Nodes, want.Nodes); err != nil {
		return fmt.Errorf("state %s belongs to other features: it is %w; start with the model that it was made with, or make a state for "+
			"this one (onmart features --state-out, then onmart state import) in another directory", dir, err)
	}
	if !slices.Equal(have.Followers, want.Followers) {
		return fmt.Errorf("state %s has the followers [%s] and this job has [%s]: give the same models, or take the state over with "+
			"onmart state export and onmart state import --model ... into another directory", dir,
			strings.Join(have.Followers, " "), strings.Join(want.Followers, " "))
	}
	return nil
}

// Identity is what the state belongs to.
func (s *Store) Identity() Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// Become makes the checkpoints to come those of another identity, as after a change to a model with other features.
// The state stays that of the one before until Save has returned.
func (s *Store) Become(id Identity) {
	id.Followers = slices.Sorted(slices.Values(id.Followers))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id = id
}

// Close gives the directory free. What was appended and not synced is synced.
func (s *Store) Close() error {
	s.cancel()
	s.saving.Lock() // a Save under way ends first
	defer s.saving.Unlock()
	s.using.Lock()
	defer s.using.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.db != nil {
		if !s.readOnly {
			errs = append(errs, s.db.LogData(nil, pebble.Sync))
		}
		errs = append(errs, s.db.Close())
		s.db = nil
	}
	s.disk.wait()
	if s.lock != nil {
		errs = append(errs, s.lock.release())
		s.lock = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close state %s: %w", s.dir, err)
	}
	return nil
}

// errClosed is what a store answers with after Close.
var errClosed = errors.New("the state is closed")

// writable tells whether the store can be written. The caller holds mu.
func (s *Store) writable() error {
	switch {
	case s.readOnly:
		return ErrReadOnly
	case s.db == nil:
		return errClosed
	}
	return nil
}

// damaged says what to do about a state that cannot be read.
func (s *Store) damaged(err error) error {
	return fmt.Errorf("state %s is damaged: %w; move it away and start from a copy of it, or from a backfill "+
		"(onmart features --state-out, then onmart state import)", s.dir, err)
}

// explain adds what to do to an error of the database or the file system.
func (s *Store) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case pebble.IsCorruptionError(err):
		return s.damaged(err)
	case isReadOnly(err):
		return fmt.Errorf("state %s cannot be written: %w; make it writable for this user, or name another directory (--state)", s.dir, err)
	case isOlderDatabase(err):
		return fmt.Errorf("state %s was written by a newer onmart: %w; update onmart", s.dir, err)
	}
	return err
}

// header says what the newest checkpoint is. It is small, and replaced as a whole.
type header struct {
	Identity
	Generation uint64               `json:"generation"` // 0: no checkpoint yet
	Saved      time.Time            `json:"saved,omitzero"`
	Entry      uint64               `json:"entry"`
	Next       map[string]int64     `json:"next,omitempty"`
	Partitions map[string]int32     `json:"partitions,omitempty"`
	Logs       map[string]string    `json:"logs,omitempty"`
	Counts     features.Counts      `json:"counts"`
	Parts      map[string]partTable `json:"parts,omitempty"`
}

// partTable is how much of a part there is.
type partTable struct {
	Bytes  int64 `json:"bytes"`
	Chunks int   `json:"chunks"`
}

func (h *header) encode() []byte {
	text, err := json.Marshal(h)
	if err != nil {
		panic(err) // strings, numbers and maps of them
	}
	return sealed(headKey, text)
}

// readHead reads the header; found is false where there is none.
func (s *Store) readHead() (found bool, err error) {
	value, closer, err := s.db.Get(headKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, s.explain(err)
	}
	defer closer.Close()
	text, err := unsealed(headKey, value)
	if err == nil {
		s.head = header{}
		err = json.Unmarshal(text, &s.head)
	}
	if err != nil {
		return false, s.damaged(fmt.Errorf("the record of its checkpoint: %w", err))
	}
	return true, nil
}

// isReadOnly tells whether an error comes from a place that may not be written.
func isReadOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, errReadOnlyFS) || errors.Is(err, os.ErrPermission)
}

// Facts are what can be told of a state without restoring it.
type Facts struct {
	Identity
	Saved      time.Time        `json:"saved,omitzero"` // of the checkpoint; zero: there is none
	Entry      uint64           `json:"entry"`
	Positions  map[string]int64 `json:"positions"` // after the entries, by source
	Partitions map[string]int32 `json:"partitions,omitempty"`
	Parts      map[string]int64 `json:"parts"`   // bytes of the checkpoint
	Entries    int              `json:"entries"` // since the checkpoint
	Inline     int              `json:"inline"`  // those of them whose events the journal alone has
	Bytes      int64            `json:"bytes"`   // on the disk
	Counts     features.Counts  `json:"counts"`
}

// Facts reads the journal once.
func (s *Store) Facts() (*Facts, error) {
	s.mu.Lock()
	h, id := s.head, s.id
	s.mu.Unlock()
	f := &Facts{Identity: id, Saved: h.Saved, Entry: h.Entry, Positions: map[string]int64{}, Partitions: map[string]int32{},
		Parts: map[string]int64{}, Counts: h.Counts}
	maps.Copy(f.Positions, h.Next)
	maps.Copy(f.Partitions, h.Partitions)
	for name, t := range h.Parts {
		f.Parts[name] = t.Bytes
	}
	err := s.Replay(func(e *Entry) error {
		f.Entries++
		if len(e.Inline) > 0 {
			f.Inline++
		}
		for _, p := range e.Spans {
			f.Positions[p.Source] = max(f.Positions[p.Source], p.To)
		}
		maps.Copy(f.Partitions, e.Partitions)
		return nil
	})
	if err != nil {
		return nil, err
	}
	f.Bytes = int64(s.db.Metrics().DiskSpaceUsage())
	return f, nil
}
