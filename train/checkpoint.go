package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/train/program"
)

// A checkpoint is a directory that is complete or does not exist: the tensors after the last finished epoch, or after the
// step at which the training was told to stop, with the optimizer's state; the parameters of the best epoch, where one is
// finished; and the state of the loop.
const (
	checkpointKind   = "checkpoint"
	checkpointFormat = 2
	lastFile         = "last.safetensors"
	bestFile         = "best.safetensors"
	// checkpointLimit bounds the manifest, which grows by some 60 bytes an epoch.
	checkpointLimit = 16 << 20
)

type checkpoint struct {
	identity []Fact
	state    state
	tensors  program.Tensors // parameters and optimizer state
	best     program.Tensors // parameters
}

type checkpointManifest struct {
	Kind          string            `json:"kind"`
	FormatVersion int               `json:"format_version"`
	Identity      []Fact            `json:"identity"`
	State         state             `json:"state"`
	SHA256        map[string]string `json:"sha256"`
}

func writeCheckpoint(dir string, c checkpoint) error {
	d, err := atomicdir.Create(dir, true)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	defer d.Abort()
	m := checkpointManifest{checkpointKind, checkpointFormat, c.identity, c.state, map[string]string{}}
	for name, ts := range map[string]program.Tensors{lastFile: c.tensors, bestFile: c.best} {
		var b bytes.Buffer
		if err := program.WriteSafetensors(&b, ts, nil); err != nil {
			return fmt.Errorf("checkpoint %s: %w", dir, err)
		}
		m.SHA256[name] = digest(b.Bytes())
		f, err := d.Create(name)
		if err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
		_, err = f.Write(b.Bytes())
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("checkpoint: %w", d.Err(err))
		}
	}
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	if err := d.Commit(atomicdir.ManifestName, append(text, '\n')); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// readCheckpoint returns the checkpoint of a task in dir, nil where there is none. One that belongs to another
// training is refused with what differs.
func readCheckpoint(dir string, identity []Fact, t *Task) (*checkpoint, error) {
	text, err := readBounded(filepath.Join(dir, atomicdir.ManifestName), checkpointLimit)
	if errors.Is(err, fs.ErrNotExist) {
		// A folder with something in it could not be replaced after the first epoch.
		if found, e := os.ReadDir(dir); errors.Is(e, fs.ErrNotExist) || e == nil && len(found) == 0 {
			return nil, nil
		}
	}
	damaged := func(err error) error { return damaged(dir, err) }
	if err != nil {
		return nil, damaged(err)
	}
	var m checkpointManifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, damaged(err)
	}
	if m.Kind != checkpointKind || m.FormatVersion != checkpointFormat {
		return nil, damaged(fmt.Errorf("it is %q of format %d, want %q of format %d", m.Kind, m.FormatVersion, checkpointKind, checkpointFormat))
	}
	if err := foreign(dir, m.Identity, identity); err != nil {
		return nil, err
	}
	if err := m.State.check(t); err != nil {
		return nil, damaged(err)
	}
	c := &checkpoint{identity: m.Identity, state: m.State}
	for name, to := range map[string]*program.Tensors{lastFile: &c.tensors, bestFile: &c.best} {
		b, err := readBounded(filepath.Join(dir, name), tensorLimit(t.Set))
		if err != nil {
			return nil, damaged(err)
		}
		if digest(b) != m.SHA256[name] {
			return nil, damaged(fmt.Errorf("%s does not match its checksum", name))
		}
		if *to, _, err = program.ReadSafetensors(bytes.NewReader(b)); err != nil {
			return nil, damaged(err)
		}
	}
	return c, nil
}

// damaged is the error of a checkpoint that is not as it was written.
func damaged(dir string, err error) error {
	return fmt.Errorf("checkpoint %s cannot be taken up: %w; train anew with --force in place of --resume", dir, err)
}

// foreign is the error of a checkpoint of another training, nil where nothing differs.
func foreign(dir string, saved, now []Fact) error {
	diff := differences(saved, now)
	if diff == "" {
		return nil
	}
	return fmt.Errorf("checkpoint %s belongs to another training: %s; %s", dir, diff, remedy(saved, now))
}

// check refuses a state that no run of the task leaves.
func (s *state) check(t *Task) error {
	n, steps := len(s.Epochs), max(1, t.Data.StepsPerEpoch(t.Set.Train.Rows))
	epochs := len(t.Data.Rates) / steps
	unjudged := -1
	if t.Valid.Len() > 0 {
		unjudged = slices.IndexFunc(s.Epochs, func(e Epoch) bool { return e.Figure == nil })
	}
	switch {
	case s.Step < 0 || n == 0 && (s.Step == 0 || s.Budgeted):
		return fmt.Errorf("it holds %d epochs and step %d", n, s.Step)
	case n > epochs || n == epochs && s.Step > 0:
		return fmt.Errorf("it holds %d epochs and step %d, the training has %d epochs", n, s.Step, epochs)
	case s.Step >= steps:
		return fmt.Errorf("it holds step %d of an epoch, which has %d", s.Step, steps)
	case unjudged >= 0:
		return fmt.Errorf("epoch %d has no figure of the rows validated on", unjudged+1)
	case s.Best > n || s.Best < min(n, 1):
		return fmt.Errorf("best epoch %d of %d", s.Best, n)
	case s.Step > 0 && len(s.Slots) != len(t.Set.Slots):
		return fmt.Errorf("%d sums of an epoch, the model has %d", len(s.Slots), len(t.Set.Slots))
	}
	return nil
}

// Facts whose values are digests of what other facts decide.
const (
	factModel = "model"
	factRates = "learning rates"
)

// FactOnmart names the version of the program among the facts of a training.
const FactOnmart = "onmart"

// remedy says what to do about a checkpoint of another training.
func remedy(saved, now []Fact) string {
	value := func(facts []Fact) string {
		i := slices.IndexFunc(facts, func(f Fact) bool { return f.Name == FactOnmart })
		if i < 0 {
			return ""
		}
		return facts[i].Value
	}
	if was := value(saved); was != "" && was != value(now) {
		return fmt.Sprintf("finish it with onmart %s, or train anew with --force in place of --resume", was)
	}
	return "give the same settings and data, or train anew with --force in place of --resume"
}

// tensorLimit is what the tensors of a set can take on disk, with room for their names.
func tensorLimit(set *program.Set) int64 {
	limit := int64(1 << 20)
	for _, t := range slices.Concat(set.Params, set.State, set.Consts) {
		n := int64(8) // of a float64 constant; the others take half
		for _, d := range t.Shape {
			n *= int64(d)
		}
		limit += n + 1024
	}
	return limit
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d it can have", path, info.Size(), limit)
	}
	return os.ReadFile(path)
}

// differences names the facts that are not the same, or "". Digests tell people nothing: they are named where nothing
// else differs.
func differences(saved, now []Fact) string {
	var out, digests []string
	find := func(facts []Fact, name string) (string, bool) {
		for _, f := range facts {
			if f.Name == name {
				return f.Value, true
			}
		}
		return "", false
	}
	for _, f := range now {
		was, ok := find(saved, f.Name)
		words := fmt.Sprintf("%s was %s and is %s now", f.Name, was, f.Value)
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("%s is %s now and was not there", f.Name, f.Value))
		case was == f.Value:
		case f.Name == factModel || f.Name == factRates:
			digests = append(digests, words)
		default:
			out = append(out, words)
		}
	}
	for _, f := range saved {
		if _, ok := find(now, f.Name); !ok {
			out = append(out, fmt.Sprintf("%s was %s and is not there now", f.Name, f.Value))
		}
	}
	if len(out) == 0 {
		out = digests
	}
	return strings.Join(out, "; ")
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// digestJSON is a short digest of a value's JSON.
func digestJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%v (%v)", v, err) // not a number somewhere: never equal to a good one
	}
	return digest(b)[:12]
}
