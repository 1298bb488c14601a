// Package model is the artifact: a trained model as a directory, and inference with it.
//
// What enters: what a training leaves (a lowered forward program with standardisation and calibration
// inside it, weights, the feature spec, the state of the feature engine at the cut, and files of the task's
// own), and later feature vectors. What leaves: a directory that is complete or does not exist; of a
// classifier, calibrated probabilities and the reasons for one in the features' own words. Forecasts and
// recommendations are made of an artifact by the packages below this one. It may not be assumed that an
// artifact was made on this machine: Open checks format, checksums, program, spec and weights before
// anything runs, and bounds what it allocates for a file.
//
// The directory:
//
//	manifest.json        what the model is; written last, so a directory without it is unfinished
//	program.json         the forward program; of a classifier: standardise, layers, calibrate
//	weights.safetensors  parameters and constants by name; opens with Python's safetensors
//	spec.yaml            the feature spec, as the feature engine reads it
//	context/state.bin    optional: the engine's state when training ended
//	reference.json       optional, of a classifier: how features and scores were spread in training, and a probe
//	tables/NAME.parquet  optional: the dimension tables that the spec joins
//	...                  files of the task, listed in the manifest like the others
//
// A model of classical methods alone has neither program nor weights. The forward pass is written once, in
// the program; this package runs it on train/cpu.
package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/train/program"
)

const (
	manifestFile = atomicdir.ManifestName
	programFile  = "program.json"
	weightsFile  = "weights.safetensors"
	specFile     = "spec.yaml"
	contextFile  = "context/state.bin"
	tableDir     = "tables/"
)

// limits bound what is read into memory before its content is known to make sense. The manifest of a
// model with a hundred features has 30 kB, its program 10 kB.
var limits = map[string]int64{manifestFile: 16 << 20, programFile: 64 << 20, specFile: 4 << 20, weightsFile: 4 << 30}

// taskFileLimit bounds a file of the task: the bought items of ten million users fit.
const taskFileLimit = 4 << 30

// Tasks that an artifact can be of. A classifier scores transactions; the others have files of their own.
const (
	Fraud     = "fraud"
	Demand    = "demand"
	Recommend = "recommend"
)

const (
	maxTile  = 1 << 16 // rows of a program
	maxArena = 1 << 30 // bytes of its arena
	maxElems = 1 << 28 // elements of its input
)

// ErrNoContext is returned by RestoreContext where the artifact carries no state.
var ErrNoContext = errors.New("the model carries no feature state")

// Contents is what becomes an artifact.
type Contents struct {
	Manifest Manifest
	Spec     *features.Spec
	// Input is the schema of the transactions the features were made from.
	Input *datasets.Schema
	// Program needs its Forward only; what trains is left out of the artifact. Nil where the task makes do
	// without, which a classifier does not.
	Program *program.Set
	// Weights holds at least the parameters and constants that Forward names. Of a classifier the others are
	// left out; other tasks may keep tables that no program names.
	Weights program.Tensors
	// Context is the engine whose state goes along; nil for none.
	Context State
	// Tables are the dimension tables that the spec joins; they go along, so that the artifact can answer alone.
	Tables *features.Tables
	// Sample is rows of the training, by feature and then by row, that the artifact keeps the distribution of; nil for
	// none. Of a classifier.
	Sample [][]float64
	// Files are the task's own, by path in the artifact with slashes, such as "context/history.parquet".
	Files map[string]func(io.Writer) error
}

// State is an engine whose state can be written down; those of package features are.
type State interface {
	Watermark() int64
	Snapshot(io.Writer) error
}

// Artifact is a model that passed every check.
type Artifact struct {
	dir      string
	manifest *Manifest
	spec     *features.Spec
	tables   *features.Tables
	plan     *features.Plan
	set      *program.Set
	weights  program.Tensors
}

// Manifest is not to be changed.
func (a *Artifact) Manifest() *Manifest { return a.manifest }

// Spec is the feature spec whose features the model wants.
func (a *Artifact) Spec() *features.Spec { return a.spec }

// Tables are the dimension tables that the spec joins.
func (a *Artifact) Tables() *features.Tables { return a.tables }

// Plan is the spec bound to the columns that the model was trained on.
func (a *Artifact) Plan() *features.Plan { return a.plan }

// Program has only Forward; nil where the artifact has none.
func (a *Artifact) Program() *program.Set { return a.set }

// Weights are the parameters and constants of the program, and the task's tables.
func (a *Artifact) Weights() program.Tensors { return a.weights }

// Dir is where the artifact was opened.
func (a *Artifact) Dir() string { return a.dir }

// Save writes an artifact to dir, whole or not at all. It refuses an existing dir without force, and whatever
// Open would refuse.
func Save(dir string, c Contents, force bool) error {
	plan, err := c.Spec.Plan(c.Input, c.Tables)
	if err != nil {
		return fmt.Errorf("save model %s: %w", dir, err)
	}
	m := c.Manifest
	set, weights, err := trim(m.Task, c.Program, c.Weights)
	if err != nil {
		return fmt.Errorf("save model %s: %w", dir, err)
	}
	m.Kind, m.FormatVersion = Kind, FormatVersion
	m.SpecFingerprint, m.Nodes, m.Input = plan.Fingerprint(), plan.Nodes(), c.Input
	m.Features, m.Files, m.Context = nil, map[string]atomicdir.Written{}, nil
	for _, f := range plan.Features() {
		m.Features = append(m.Features, f.Name)
	}
	m.Validation, m.Test = m.Validation.dropUndefined(), m.Test.dropUndefined()
	if err := check(&m, plan, set, weights); err != nil {
		return fmt.Errorf("save model %s: %w", dir, err)
	}
	taskFiles := c.taskFiles()
	if write, err := c.referenceFile(&m); err != nil {
		return fmt.Errorf("save model %s: %w", dir, err)
	} else if write != nil {
		if taskFiles == nil {
			taskFiles = map[string]func(io.Writer) error{}
		}
		taskFiles[ReferenceFile] = write
	}
	for _, name := range slices.Sorted(maps.Keys(taskFiles)) {
		if err := checkTaskFile(m.Task, name); err != nil {
			return fmt.Errorf("save model %s: %w", dir, err)
		}
	}

	d, err := atomicdir.Create(dir, force)
	if err != nil {
		return err
	}
	defer d.Abort()
	put := func(name string, write func(io.Writer) error) error {
		f, err := d.Put(name, write)
		if err != nil {
			return fmt.Errorf("save model %s: %s: %w", dir, name, err)
		}
		m.Files[name] = f
		return nil
	}
	if set != nil {
		if err := put(programFile, func(w io.Writer) error {
			e := json.NewEncoder(w)
			e.SetIndent("", " ")
			return e.Encode(set)
		}); err != nil {
			return err
		}
	}
	if len(weights) > 0 {
		if err := put(weightsFile, func(w io.Writer) error {
			return program.WriteSafetensors(w, weights, map[string]string{"format": "pt", "task": m.Task})
		}); err != nil {
			return err
		}
	}
	if err := put(specFile, func(w io.Writer) error {
		_, err := w.Write(c.Spec.YAML())
		return err
	}); err != nil {
		return err
	}
	if c.Context != nil {
		m.Context = &Context{Watermark: c.Context.Watermark()}
		if err := put(contextFile, c.Context.Snapshot); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(taskFiles)) {
		if err := put(name, taskFiles[name]); err != nil {
			return err
		}
	}
	if m.Version, err = m.version(); err != nil {
		return fmt.Errorf("save model %s: %w", dir, err)
	}
	b, err := json.MarshalIndent(&m, "", "  ")
	if err != nil {
		return fmt.Errorf("save model %s: %w", dir, err)
	}
	return d.Commit(manifestFile, append(b, '\n'))
}

// taskFiles are the files of the task and the tables of the spec.
func (c *Contents) taskFiles() map[string]func(io.Writer) error {
	files := maps.Clone(c.Files)
	for name, b := range c.Tables.Files() {
		if files == nil {
			files = map[string]func(io.Writer) error{}
		}
		files[tableDir+name] = func(w io.Writer) error { _, err := w.Write(b); return err }
	}
	return files
}

// trim is what an artifact of the task keeps of a trained set and its weights.
func trim(task string, s *program.Set, ts program.Tensors) (*program.Set, program.Tensors, error) {
	if task != Fraud && s == nil {
		return nil, ts, nil
	}
	if s == nil {
		return nil, nil, fmt.Errorf("a model of task %s needs a program", task)
	}
	set := prune(s)
	weights, err := pick(set, ts)
	if err == nil && task != Fraud {
		weights = ts
	}
	return set, weights, err
}

// TrainingFile is an artifact's file of how it was trained, of any task: the course of the losses, and the trials.
const TrainingFile = "training.json"

// reserved tells whether a file is one that Save itself writes.
func reserved(name string) bool {
	return name == manifestFile || name == programFile || name == weightsFile || name == specFile || name == contextFile
}

// checkTaskFile wants a name that means the same file everywhere.
func checkTaskFile(task, name string) error {
	if task == Fraud && !strings.HasPrefix(name, tableDir) && name != TrainingFile && name != ReferenceFile {
		return fmt.Errorf("%.80q: a model of task %s has no files of its own", name, task)
	}
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.' || r == '/'
	}
	if reserved(name) || !fs.ValidPath(name) || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") || strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		return fmt.Errorf("%.80q cannot be the name of a task's file: small letters, digits and _ - . / only, and no file of the artifact itself", name)
	}
	return nil
}

// prune keeps the forward program and the tensors it names.
func prune(s *program.Set) *program.Set {
	out := &program.Set{Forward: s.Forward}
	if s.Forward == nil {
		return out
	}
	used := map[string]bool{}
	for _, b := range s.Forward.Buffers {
		if b.Kind == program.Param || b.Kind == program.Const {
			used[b.Name] = true
		}
	}
	keep := func(ts []program.TensorSpec) (kept []program.TensorSpec) {
		for _, t := range ts {
			if used[t.Name] {
				kept = append(kept, t)
			}
		}
		return kept
	}
	out.Params, out.Consts = keep(s.Params), keep(s.Consts)
	return out
}

// pick takes the tensors that the set names.
func pick(s *program.Set, ts program.Tensors) (program.Tensors, error) {
	var out program.Tensors
	for _, want := range slices.Concat(s.Params, s.Consts) {
		t := ts.Find(want.Name)
		if t == nil {
			return nil, fmt.Errorf("weights: tensor %s is missing", want.Name)
		}
		out = append(out, *t)
	}
	out.Sort()
	return out, nil
}

// Open reads the artifact in dir and checks all of it: format, checksums, the spec and its nodes, the
// program, and that the weights fit it.
func Open(dir string) (*Artifact, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("model %s: there is no such directory: give the directory that onmart train wrote", dir)
		}
		return nil, fmt.Errorf("model %s: %w", dir, err)
	}
	defer root.Close()
	a, err := open(root)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", dir, err)
	}
	a.dir = dir
	return a, nil
}

func open(root *os.Root) (*Artifact, error) {
	b, err := read(root, manifestFile, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s: not an artifact, or one whose writing was interrupted; train again", manifestFile)
	}
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(b)
	if err != nil {
		return nil, err
	}
	have := slices.Sorted(maps.Keys(m.Files))
	if err := checkListed(m, have); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, name := range have {
		f := m.Files[name]
		if name == contextFile || !reserved(name) && !strings.HasPrefix(name, tableDir) {
			err = verify(root, name, f)
		} else {
			files[name], err = read(root, name, &f)
		}
		if err != nil {
			return nil, err
		}
	}
	return assemble(m, files)
}

// checkListed wants the files that the task must have and none that it cannot have.
func checkListed(m *Manifest, have []string) error {
	want := []string{specFile}
	if m.Task == Fraud {
		want = append(want, programFile, weightsFile)
	}
	if slices.Contains(have, programFile) {
		want = append(want, weightsFile)
	}
	if m.Context != nil {
		want = append(want, contextFile)
	}
	for _, name := range want {
		if !slices.Contains(have, name) {
			return fmt.Errorf("%s lists the files %.200q, without %s: copy the artifact again or train again", manifestFile, have, name)
		}
	}
	for _, name := range have {
		var err error
		switch {
		case name == contextFile && m.Context == nil, name == manifestFile:
			err = fmt.Errorf("%s should not be among them", name)
		case !reserved(name):
			err = checkTaskFile(m.Task, name)
		}
		if err != nil {
			return fmt.Errorf("%s lists the files %.200q: %w: copy the artifact again or train again", manifestFile, have, err)
		}
	}
	return nil
}

// ReadFile returns a file of the task, compared with the manifest.
func (a *Artifact) ReadFile(name string) ([]byte, error) {
	want, ok := a.manifest.Files[name]
	if !ok {
		return nil, fmt.Errorf("model %s: it has no %s: train again", a.dir, name)
	}
	root, err := os.OpenRoot(a.dir)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", a.dir, err)
	}
	defer root.Close()
	b, err := read(root, name, &want)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", a.dir, err)
	}
	return b, nil
}

// read reads a file whole and, where the manifest lists it, compares it with that.
func read(root *os.Root, name string, want *atomicdir.Written) ([]byte, error) {
	f, size, err := openFile(root, name, want)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	limit, ok := limits[name]
	if !ok {
		limit = taskFileLimit
	}
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that are read", name, size, limit)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if want != nil {
		sum := sha256.Sum256(b)
		if hex.EncodeToString(sum[:]) != want.SHA256 {
			return nil, changed(name)
		}
	}
	return b, nil
}

// verify compares a file with the manifest without keeping it.
func verify(root *os.Root, name string, want atomicdir.Written) error {
	f, _, err := openFile(root, name, &want)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != want.SHA256 {
		return changed(name)
	}
	return nil
}

func changed(name string) error {
	return fmt.Errorf("%s was changed after it was written (its SHA-256 is not the one in %s): copy the artifact again or train again", name, manifestFile)
}

func openFile(root *os.Root, name string, want *atomicdir.Written) (*os.File, int64, error) {
	// Stat first: opening a named pipe would wait for its other end.
	st, err := root.Stat(name)
	if err != nil {
		if want != nil && errors.Is(err, fs.ErrNotExist) {
			return nil, 0, fmt.Errorf("%s is missing though %s lists it: copy the whole directory again or train again", name, manifestFile)
		}
		return nil, 0, err
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", name)
	}
	if want != nil && st.Size() != want.Bytes {
		return nil, 0, fmt.Errorf("%s has %d bytes and %s says %d: the copy is incomplete or was changed; copy it again or train again", name, st.Size(), manifestFile, want.Bytes)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// assemble makes an artifact of a decoded manifest and the content of the files.
func assemble(m *Manifest, files map[string][]byte) (*Artifact, error) {
	spec, err := features.Parse(specFile, files[specFile])
	if err != nil {
		return nil, err
	}
	if m.Input == nil {
		return nil, fmt.Errorf("%s has no input schema: train again", manifestFile)
	}
	tables, err := features.ReadTables(spec, func(file string) ([]byte, error) {
		if b, ok := files[tableDir+file]; ok {
			return b, nil
		}
		return nil, fs.ErrNotExist
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tableDir, err)
	}
	plan, err := spec.Plan(m.Input, tables)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", specFile, err)
	}
	var set *program.Set
	if b, ok := files[programFile]; ok {
		set = &program.Set{}
		if err := decodeStrict(b, set); err != nil {
			return nil, fmt.Errorf("%s is damaged: %w; copy the artifact again or train again", programFile, err)
		}
	}
	var weights program.Tensors
	if b, ok := files[weightsFile]; ok {
		if weights, _, err = program.ReadSafetensors(bytes.NewReader(b)); err != nil {
			return nil, fmt.Errorf("%s is damaged: %w; copy the artifact again or train again", weightsFile, err)
		}
	}
	if err := check(m, plan, set, weights); err != nil {
		return nil, err
	}
	return &Artifact{manifest: m, spec: spec, tables: tables, plan: plan, set: set, weights: weights}, nil
}

// check holds for everything that Save writes and Open reads.
func check(m *Manifest, plan *features.Plan, set *program.Set, weights program.Tensors) error {
	if m.Task == "" {
		return fmt.Errorf("%s names no task", manifestFile)
	}
	if m.Task != Fraud && m.Task != Demand && m.Task != Recommend {
		return fmt.Errorf("%s names the task %.80q, and this onmart knows %s, %s and %s: use the onmart that wrote it", manifestFile, m.Task, Fraud, Demand, Recommend)
	}
	if !(m.Threshold >= 0 && m.Threshold <= 1) {
		return fmt.Errorf("%s: threshold %v is not a probability", manifestFile, m.Threshold)
	}
	if err := checkFeatures(m, plan); err != nil {
		return err
	}
	if set != nil {
		if err := checkProgram(set); err != nil {
			return fmt.Errorf("%s: %w", programFile, err)
		}
	}
	if m.Task == Fraud {
		if err := checkClassifier(m, set); err != nil {
			return fmt.Errorf("%s: %w", programFile, err)
		}
	}
	if err := checkWeights(set, weights, m.Task != Fraud); err != nil {
		return fmt.Errorf("%s: %w", weightsFile, err)
	}
	return nil
}

func checkFeatures(m *Manifest, plan *features.Plan) error {
	if err := sameNodes(m.Nodes, plan.Nodes()); err != nil {
		return fmt.Errorf("%s and %s disagree: %w; the artifact belongs to another version of onmart or its spec was replaced: train again", specFile, manifestFile, err)
	}
	if m.SpecFingerprint != plan.Fingerprint() {
		return fmt.Errorf("%s and %s disagree: the spec's fingerprint is %.16s and the manifest has %.16q: train again", specFile, manifestFile, plan.Fingerprint(), m.SpecFingerprint)
	}
	if err := sameFeatures(m.Features, plan.Features()); err != nil {
		return fmt.Errorf("%s and %s disagree: %w: train again", specFile, manifestFile, err)
	}
	if m.Task != Fraud {
		return nil
	}
	if len(m.Typical) != len(m.Features) {
		return fmt.Errorf("%s has %d typical values for %d features: train again", manifestFile, len(m.Typical), len(m.Features))
	}
	for i, v := range m.Typical {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%s: the typical value of %s is %v", manifestFile, m.Features[i], v)
		}
	}
	return nil
}

// sameNodes compares nodes as a set, and names the first few that differ.
func sameNodes(want, nodes []features.Node) error {
	have := map[string]string{}
	for _, n := range nodes {
		have[n.Name] = n.Fingerprint
	}
	var faults []string
	for _, n := range want {
		switch f, ok := have[n.Name]; {
		case !ok:
			faults = append(faults, fmt.Sprintf("the model wants node %.80s, which is not there", n.Name))
		case f != n.Fingerprint:
			faults = append(faults, fmt.Sprintf("node %.80s is defined otherwise (fingerprint %.12s, the model has %.12s)", n.Name, f, n.Fingerprint))
		}
		delete(have, n.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		faults = append(faults, fmt.Sprintf("node %.80s is not in the model", name))
	}
	return some(faults)
}

func sameFeatures(want []string, have []features.Feature) error {
	var faults []string
	for i := range max(len(want), len(have)) {
		switch {
		case i >= len(have):
			faults = append(faults, fmt.Sprintf("the model wants feature %.80s, which is not there", want[i]))
		case i >= len(want):
			faults = append(faults, fmt.Sprintf("feature %.80s is not in the model", have[i].Name))
		case want[i] != have[i].Name:
			faults = append(faults, fmt.Sprintf("feature %d is %.80s and the model wants %.80s", i+1, have[i].Name, want[i]))
		}
	}
	return some(faults)
}

// some joins the first three faults.
func some(faults []string) error {
	const shown = 3
	if len(faults) == 0 {
		return nil
	}
	if n := len(faults) - shown; n > 0 {
		faults = append(faults[:shown:shown], fmt.Sprintf("and %d more", n))
	}
	return errors.New(strings.Join(faults, "; "))
}

func checkProgram(set *program.Set) error {
	p := set.Forward
	switch {
	case p == nil:
		return errors.New("there is no forward program")
	case set.Train != nil || set.Rest != nil || len(set.State) > 0:
		return errors.New("it holds a training program: an artifact has the forward program alone")
	case p.Rows < 1 || p.Rows > maxTile:
		return fmt.Errorf("a program of %d rows, want 1 to %d", p.Rows, maxTile)
	case p.Arena < 0 || p.Arena > maxArena:
		return fmt.Errorf("an arena of %d bytes, want at most %d", p.Arena, maxArena)
	}
	if err := set.Validate(); err != nil {
		return err
	}
	for i := range p.Buffers {
		b := &p.Buffers[i]
		if (b.Kind == program.Input || b.Kind == program.Output) && (!b.PerRow || b.Len() > maxElems) {
			return fmt.Errorf("%s %.80s is %v, want at most %d elements, a row for each of %d", b.Kind, b.Name, b.Shape, maxElems, p.Rows)
		}
	}
	return nil
}

// checkClassifier wants a program from the features to one probability.
func checkClassifier(m *Manifest, set *program.Set) error {
	p, width := set.Forward, len(m.Features)
	in, out := 0, 0
	for i := range p.Buffers {
		b := &p.Buffers[i]
		switch b.Kind {
		case program.Input:
			if in++; b.DType != program.F64 || !b.PerRow || !slices.Equal(b.Shape, []int{p.Rows, width}) {
				return fmt.Errorf("input %.80s is %v of %s, want [%d %d] of %s: one column a feature", b.Name, b.Shape, b.DType, p.Rows, width, program.F64)
			}
		case program.Output:
			if out++; b.DType != program.F64 || !b.PerRow || !slices.Equal(b.Shape, []int{p.Rows, 1}) {
				return fmt.Errorf("output %.80s is %v of %s, want [%d 1] of %s: one probability a row", b.Name, b.Shape, b.DType, p.Rows, program.F64)
			}
		}
	}
	if in != 1 || out != 1 {
		return fmt.Errorf("it has %d inputs and %d outputs, want one of each", in, out)
	}
	return nil
}

// checkWeights wants the tensors that the program names, in its types and shapes, and no others unless extra;
// all finite.
func checkWeights(set *program.Set, ts program.Tensors, extra bool) error {
	type form struct {
		dtype program.DType
		shape []int
	}
	want := map[string]form{}
	if set != nil {
		for _, b := range set.Forward.Buffers {
			if b.Kind == program.Param || b.Kind == program.Const {
				want[b.Name] = form{b.DType, b.Shape}
			}
		}
	}
	for i := range ts {
		t := &ts[i]
		w, ok := want[t.Name]
		if !ok && !extra {
			return fmt.Errorf("tensor %.80s is not in the program", t.Name)
		}
		if ok && (t.DType != w.dtype || !slices.Equal(t.Shape, w.shape)) {
			return fmt.Errorf("tensor %.80s is %v of %s and the program wants %v of %s", t.Name, t.Shape, t.DType, w.shape, w.dtype)
		}
		delete(want, t.Name)
		for j, v := range t.F32 {
			if v-v != 0 {
				return fmt.Errorf("tensor %.80s has %v at element %d", t.Name, v, j)
			}
		}
		for j, v := range t.F64 {
			if v-v != 0 {
				return fmt.Errorf("tensor %.80s has %v at element %d", t.Name, v, j)
			}
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("tensor %.80s is missing", slices.Sorted(maps.Keys(want))[0])
	}
	return nil
}

// CheckNodes tells whether features, by the nodes of the plan or data set that has them, are those the model
// was trained on. Features of a data set may stand in another order.
func (a *Artifact) CheckNodes(nodes []features.Node) error {
	if err := sameNodes(a.manifest.Nodes, nodes); err != nil {
		return fmt.Errorf("model %s was trained on other features: %w; make the features with the model's own spec, %s", a.dir, err, filepath.Join(a.dir, specFile))
	}
	return nil
}

// RestoreContext gives an engine, of a plan of the artifact's spec, the state that training ended with. It
// returns ErrNoContext where the artifact has none.
func (a *Artifact) RestoreContext(e interface{ Restore(io.Reader) error }) error {
	if a.manifest.Context == nil {
		return fmt.Errorf("model %s: %w", a.dir, ErrNoContext)
	}
	root, err := os.OpenRoot(a.dir)
	if err != nil {
		return fmt.Errorf("model %s: %w", a.dir, err)
	}
	defer root.Close()
	want := a.manifest.Files[contextFile]
	f, _, err := openFile(root, contextFile, &want)
	if err != nil {
		return fmt.Errorf("model %s: %w", a.dir, err)
	}
	defer f.Close()
	if err := e.Restore(f); err != nil {
		return fmt.Errorf("model %s: %s: %w", a.dir, contextFile, err)
	}
	return nil
}
