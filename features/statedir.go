package features

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/atomicdir"
)

const (
	// StateKind is what the manifest of a state directory calls it.
	StateKind = "state"
	// StartStateFile lies beside a log that was not begun from an empty state: the snapshot it begins from.
	// Run takes it up, so that the log's features can be computed again from the log alone.
	StartStateFile = "start-state.bin"

	stateFile    = "state.bin"
	stateVersion = 1
)

// StateManifest is manifest.json of a state directory.
type StateManifest struct {
	FormatVersion int                          `json:"format_version"`
	Kind          string                       `json:"kind"`
	Nodes         []Node                       `json:"nodes"`
	Watermark     string                       `json:"watermark,omitempty"`  // RFC 3339; none before the first transaction
	Positions     map[string]int64             `json:"positions"`            // by source: where to go on
	Partitions    map[string]int32             `json:"partitions,omitempty"` // by source: the number that its events carry
	Counts        Counts                       `json:"counts"`
	Files         map[string]atomicdir.Written `json:"files"`
}

// Snapshotter is anything whose state can be written down.
type Snapshotter interface{ Snapshot(io.Writer) error }

// saved is an engine whose state goes to a directory: those of this package.
type saved interface {
	State
	Plan() *Plan
	Counts() Counts
	SetCounts(Counts)
}

// SetCounts goes on counting from those of a state that was restored.
func (e *Engine) SetCounts(c Counts) { e.counts = c }

// SetCounts is Engine's.
func (q *Panel) SetCounts(c Counts) { q.counts = c }

// SetCounts is Engine's.
func (e *Interactions) SetCounts(c Counts) { e.counts = c }

// SaveState writes the state of an engine of any shape to a directory, complete or not at all. Positions are, by source, where
// to go on reading. Beside are the states of what follows the same events, by a name of small letters; nil
// for none.
func SaveState(dir string, e saved, positions map[string]int64, beside map[string]Snapshotter, force bool) error {
	c := StateContents{Nodes: e.Plan().nodes, Watermark: e.Watermark(), Positions: positions, Counts: e.Counts(), State: e.Snapshot,
		Beside: map[string]func(io.Writer) error{}}
	for name, b := range beside {
		c.Beside[name] = b.Snapshot
	}
	return c.Write(dir, force)
}

// StateContents is what becomes a state directory.
type StateContents struct {
	Nodes      []Node
	Watermark  int64 // math.MinInt64 before the first transaction
	Positions  map[string]int64
	Partitions map[string]int32 // by source: the number that its events carry; nil where they carry none
	Counts     Counts
	State      func(io.Writer) error            // writes the engine's snapshot
	Beside     map[string]func(io.Writer) error // by name: those of what follows the same events
}

// Write writes the directory, complete or not at all.
func (c *StateContents) Write(dir string, force bool) error {
	d, err := atomicdir.Create(dir, force)
	if err != nil {
		return err
	}
	defer d.Abort()
	state, err := d.Put(stateFile, c.State)
	if err != nil {
		return err
	}
	m := StateManifest{
		FormatVersion: stateVersion, Kind: StateKind, Nodes: c.Nodes, Positions: c.Positions, Partitions: c.Partitions, Counts: c.Counts,
		Files: map[string]atomicdir.Written{stateFile: state},
	}
	for _, name := range slices.Sorted(maps.Keys(c.Beside)) {
		file := besideFile(name)
		if m.Files[file], err = d.Put(file, c.Beside[name]); err != nil {
			return err
		}
	}
	if c.Watermark != beginning {
		m.Watermark = datasets.FormatTime(c.Watermark)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	return d.Commit(atomicdir.ManifestName, append(text, '\n'))
}

// CopyState writes the engine's snapshot of a state directory to w, after a look at its checksum.
func CopyState(dir string, w io.Writer) error {
	m, err := OpenState(dir)
	if err != nil {
		return err
	}
	if err := loadFile(filepath.Join(dir, stateFile), m.Files[stateFile], copier{w}); err != nil {
		return fmt.Errorf("state %s: %w; make it again", dir, err)
	}
	return nil
}

// CopyBeside writes the state of a directory that SaveState wrote under a name to w, after a look at its checksum.
func CopyBeside(dir, name string, w io.Writer) error { return LoadBeside(dir, name, copier{w}) }

// Beside are the names of the states beside the engine's, sorted.
func (m *StateManifest) Beside() []string {
	var names []string
	for file := range m.Files {
		if name, ok := strings.CutPrefix(file, besidePrefix); ok {
			names = append(names, strings.TrimSuffix(name, besideSuffix))
		}
	}
	slices.Sort(names)
	return names
}

// copier takes a snapshot as it is.
type copier struct{ w io.Writer }

func (c copier) Restore(r io.Reader) error {
	_, err := io.Copy(c.w, r)
	return err
}

// SnapshotWatermark reads the watermark of an engine's snapshot from its first bytes; math.MinInt64 before the first
// transaction.
func SnapshotWatermark(r io.Reader) (int64, error) {
	s := newSnapshotReader(r)
	if string(s.raw(len(snapshotMagic))) != snapshotMagic && s.err == nil {
		s.err = errors.New("it is not a state of this version's features")
	}
	if _, err := s.nodes(); s.err == nil {
		s.err = err
	}
	w := s.int()
	if s.err != nil {
		return 0, fmt.Errorf("features: reading a state: %w", s.err)
	}
	return w, nil
}

const besidePrefix, besideSuffix = "beside-", ".bin"

func besideFile(name string) string { return besidePrefix + name + besideSuffix }

// OpenState reads a state directory's manifest.
func OpenState(dir string) (*StateManifest, error) {
	path := filepath.Join(dir, atomicdir.ManifestName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not a state: it has no %s; onmart features --state-out or onmart score --state-out writes one", dir, atomicdir.ManifestName)
	}
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	var m StateManifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("open state: %s: %w", path, err)
	}
	if m.Kind != StateKind {
		return nil, fmt.Errorf("%s is not a state but %q; onmart features --state-out or onmart score --state-out writes one", dir, m.Kind)
	}
	if m.FormatVersion > stateVersion {
		return nil, fmt.Errorf("state %s has format %d, newer than the %d this onmart reads: update onmart", dir, m.FormatVersion, stateVersion)
	}
	return &m, nil
}

// LoadState takes up the state of a directory and its counts, and returns where to go on in each source. A
// state of other features is refused, naming them; after an error the engine is as it was.
func LoadState(dir string, e saved) (map[string]int64, error) {
	m, err := OpenState(dir)
	if err != nil {
		return nil, err
	}
	if err := e.Plan().sameNodes(m.Nodes, nil); err != nil {
		return nil, fmt.Errorf("state %s cannot be taken up: %w", dir, err)
	}
	if err := loadFile(filepath.Join(dir, stateFile), m.Files[stateFile], e); err != nil {
		return nil, fmt.Errorf("state %s: %w; make it again", dir, err)
	}
	e.SetCounts(m.Counts)
	return m.Positions, nil
}

// LoadBeside restores the state that SaveState wrote beside the engine's under a name. It is ErrNotBeside where
// the directory has none.
func LoadBeside(dir, name string, into Restorer) error {
	m, err := OpenState(dir)
	if err != nil {
		return err
	}
	want, ok := m.Files[besideFile(name)]
	if !ok {
		return fmt.Errorf("state %s: %s: %w", dir, name, ErrNotBeside)
	}
	if err := loadFile(filepath.Join(dir, besideFile(name)), want, into); err != nil {
		return fmt.Errorf("state %s: %w; make it again", dir, err)
	}
	return nil
}

// ErrNotBeside is returned by LoadBeside where a state directory does not hold the state asked for.
var ErrNotBeside = errors.New("it is not in the state")

// Restorer takes up a state that was written down.
type Restorer interface{ Restore(io.Reader) error }

// loadFile restores a snapshot whose checksum is known.
func loadFile(path string, want atomicdir.Written, e Restorer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if n != want.Bytes || hex.EncodeToString(sum.Sum(nil)) != want.SHA256 {
		return fmt.Errorf("%s was changed or damaged: its size or checksum differs from the manifest's", filepath.Base(path))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return e.Restore(f)
}
