package features

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/slab"
	"github.com/onmart/onmart/internal/atomicdir"
)

// RunOptions says what Run computes.
type RunOptions struct {
	Spec     *Spec
	In       *datasets.Dataset // transactions or a log
	Out      string            // features directory; "" for none
	Force    bool              // replace Out and StateOut
	Range    datasets.Range    // of the transactions that are given rows
	StateOut string            // state directory; "" for none
	Threads  int               // 0 is one a core
	Created  datasets.Created
	Progress func(done, total int64) // rows of In

	// The rest is for features of transactions only.

	// StateIn is a state directory of the same features that In goes on from; "" for none.
	StateIn string
	// Append puts the rows at the end of Out, which a run with StateOut made; StateIn is that state. Out is replaced by
	// the old and the new rows together, whole or not at all.
	Append bool
	// Memory, where it is more than 0, is how many bytes the engine's state may take up in memory. What is more lies in a
	// file without a name in the folder Spill ("" is the system's for temporary files), and nothing is dropped. The
	// records of labels and duplicates, of events that windows over labels still reach, are not part of it. Linux only.
	Memory int64
	Spill  string
	Used   *MemoryUse // filled in at the end, where it is given
	// CheckpointEvery, where it is more than 0, has the run keep what it has made about that often, and when ctx ends, so
	// that a later run with Resume goes on from there. When ctx ends sooner than CheckpointFrom, nothing is kept: making
	// it again is quicker than thinking about it. A run with an Out of its own only: not with Append.
	CheckpointEvery time.Duration
	CheckpointFrom  time.Duration
	Resume          bool
	// MaxRejects is the share of rows that may be invalid: past it the run fails, and the rejects are kept beside Out,
	// as OUT.rejects.jsonl. Nil sets no limit.
	MaxRejects *float64

	stateWanted bool // the engine is for others to go on with
}

// MemoryUse is what an engine's state took up at the end of a run, in bytes.
type MemoryUse struct {
	State   int64 `json:"state_bytes"`   // all of it, records too
	Records int64 `json:"records_bytes"` // of it, recent events
	Spilled int64 `json:"spilled_bytes"` // of it, in the file
}

// Made is what a features data set says of how it was made; it stands in the manifest under "features".
type Made struct {
	Spec        string `json:"spec"` // YAML
	Fingerprint string `json:"fingerprint"`
	Data        string `json:"data"` // id of the data set they were computed from
	// Inputs are, of features that were appended to, the ids of all data sets in order; Data is then a digest of them.
	Inputs []string `json:"inputs,omitempty"`
	// Input is the columns that the spec reads of that data set: a model trained on the features plans its
	// spec on them when the data set itself is gone.
	Input    *datasets.Schema `json:"input"`
	Nodes    []Node           `json:"nodes"`
	Features []Feature        `json:"features,omitempty"`
	Range    string           `json:"range"`
	Delay    string           `json:"delay,omitempty"`
	Memory   *MemoryUse       `json:"memory,omitempty"` // of the engine at the end, of features of transactions

	Shape        Shape             `json:"shape,omitempty"` // empty for features of transactions
	Panel        *MadePanel        `json:"panel,omitempty"`
	Interactions *MadeInteractions `json:"interactions,omitempty"`
}

const extraKey = "features"

// MadeFrom reads how a features data set was made.
func MadeFrom(d *datasets.Dataset) (*Made, error) {
	m, err := MadeOf(d.Manifest())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Dir(), err)
	}
	return m, nil
}

// MadeOf reads from a manifest how a features data set, a panel or interactions were made.
func MadeOf(m *datasets.Manifest) (*Made, error) {
	raw, ok := m.Extra[extraKey]
	if !ok {
		return nil, fmt.Errorf("holds %s that onmart features did not make: its manifest does not say of which spec", m.Kind)
	}
	var made Made
	if err := json.Unmarshal(raw, &made); err != nil {
		return nil, fmt.Errorf("the manifest's entry %q: %w", extraKey, err)
	}
	return &made, nil
}

// Run computes the features of a data set's transactions in log order. Transactions before the range are
// folded and given no row; nothing at or after its end is read. Of a log, a transaction's label column is
// filled from the log's label events where it carried none; features never read it. Rows that are set aside (invalid,
// and by the spec's policies duplicates, rows of the future and late ones) are counted and listed in rejects.jsonl
// beside the parts, one JSON object a line, as Reject has it. It returns the manifest
// that was written (without Out: that would have been).
//
// Of a panel the range says which steps are given: those that begin at or after its start and end at or before its
// end; without an end, the step that the last transaction is in is the last, whole or not. Dimension tables that the
// spec joins, of features too, are read from beside the data set and written beside the output.
func Run(ctx context.Context, o RunOptions) (*datasets.Manifest, error) {
	if o.Spec.Shape() != Events {
		return runShape(ctx, o)
	}
	b, err := newBackfill(o)
	if err != nil {
		return nil, err
	}
	defer func() { b.engine.close() }()
	if err := refuseOutputs(o); err != nil {
		return nil, err
	}
	if err := refuseRange(o); err != nil {
		return nil, err
	}
	if err := b.goOn(); err != nil {
		return nil, err
	}
	if o.Out != "" {
		if err := b.open(); err != nil {
			return nil, err
		}
	}
	if err := b.fold(ctx); err != nil {
		return nil, b.stopped(ctx, err)
	}
	b.used = MemoryUse{State: b.engine.stateBytes() + b.engine.recordBytes(), Records: b.engine.recordBytes(),
		Spilled: b.engine.a.Filed() + b.engine.ra.Filed()}
	if o.Used != nil {
		*o.Used = b.used
	}
	m, err := b.finish()
	if err != nil && b.w != nil {
		return nil, b.stopped(ctx, err)
	}
	return m, err
}

// finish writes what a Run leaves.
func (b *backfill) finish() (*datasets.Manifest, error) {
	if err := b.rejects.end(b.folded); err != nil {
		return nil, err
	}
	m := &datasets.Manifest{Kind: datasets.KindFeatures, Schema: *b.plan.Schema(), Rows: b.rows}
	if b.w != nil {
		m = b.w.Manifest()
	}
	if err := b.describe(m); err != nil {
		return nil, err
	}
	// The data set first: where the state were lost with the old data set in place, the way back would be to compute
	// everything anew; the other way round the state can be made from the new rows alone.
	if b.w != nil {
		if err := b.tables.WriteBeside(b.w); err != nil {
			return nil, err
		}
		if err := b.w.Commit(); err != nil {
			return nil, err
		}
		b.w = nil
	}
	if b.StateOut != "" {
		b.positions[dataPosition(b.In.ID())] = b.folded
		if err := SaveState(b.StateOut, b.engine, b.positions, nil, b.Force); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// dataPosition is the name of a data set among the positions of a state.
func dataPosition(id string) string { return dataPrefix + id }

const dataPrefix = "data:"

// IsDataPosition tells whether a name among the positions of a state is that of a data set that a backfill has folded: only a
// backfill goes on from it.
func IsDataPosition(name string) bool { return strings.HasPrefix(name, dataPrefix) }

// StateAt folds everything in a data set before the instant `to` (microseconds) and returns the engine: with
// its state the next event can be computed.
func StateAt(ctx context.Context, spec *Spec, in *datasets.Dataset, to int64, threads int, progress func(done,
	total int64)) (*Engine, error) {
	b, err := newBackfill(RunOptions{Spec: spec, In: in, Threads: threads, Progress: progress,
		Range:       datasets.Range{From: math.MinInt64, To: to},
		stateWanted: true})
	if err != nil {
		return nil, err
	}
	return b.engine, b.fold(ctx)
}

// backfill is a Run under way.
type backfill struct {
	RunOptions
	plan      *Plan
	tables    *Tables
	engine    *Engine
	columns   []string
	from, to  int64
	w         *datasets.Writer // nil: rows are not wanted
	labels    map[rowID][]eventLabel
	positions map[string]int64 // of StateIn
	before    Counts           // of StateIn
	folded    int64            // rows of the input
	rows      int64            // rows given out
	seqs      ascending
	rejects   rejectLog

	old     *datasets.Dataset // of Append
	oldMade *Made
	skip    int64 // rows of the input that a checkpoint has
	kept    int64 // rows of the input that the last checkpoint of this run has
	saved   time.Time
	saving  time.Duration // how long the last one took
	began   time.Time
	used    MemoryUse

	// Memory of a batch.
	out     Rows
	emit    []int32 // rows of out that are in the range
	sources []int32 // rows of the input that are given out
}

// rowID is a trans_id: one of the two.
type rowID struct {
	number int64
	text   string
}

// eventLabel is a label of a log.
type eventLabel struct{ k, position, line, y int64 }

// wantsLog refuses data sets that are not of transactions.
func wantsLog(d *datasets.Dataset) error {
	if kind := d.Manifest().Kind; kind != datasets.KindTransactions && kind != datasets.KindLog {
		return fmt.Errorf("%s holds %s: features are computed of transactions or a log, from onmart import or onmart "+
			"score --record", d.Dir(), kind)
	}
	return nil
}

func newBackfill(o RunOptions) (*backfill, error) {
	if o.Spec.Shape() != Events {
		return nil, fmt.Errorf("the spec %s is of %s: want features of transactions", o.Spec.name, o.Spec.Shape())
	}
	if err := wantsLog(o.In); err != nil {
		return nil, err
	}
	tables, err := OpenTables(o.In.Dir(), o.Spec)
	if err != nil {
		return nil, err
	}
	all, err := o.Spec.Plan(o.In.Schema(), tables)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.In.Dir(), err)
	}
	b := &backfill{RunOptions: o, tables: tables, positions: map[string]int64{}, began: time.Now()}
	b.from, b.to = o.Range.Bounds()
	schema := &datasets.Schema{}
	for _, c := range all.columns() {
		schema.Fields = append(schema.Fields, o.In.Schema().Fields[c])
		b.columns = append(b.columns, o.In.Schema().Fields[c].Name)
	}
	if b.plan, err = o.Spec.Plan(schema, tables); err != nil {
		return nil, fmt.Errorf("%s: %w", o.In.Dir(), err)
	}
	if b.Threads <= 0 {
		b.Threads = runtime.GOMAXPROCS(0)
	}
	b.engine = b.plan.newEngineIn(b.Threads, slab.New(o.Memory, o.Spill))
	if b.StateOut == "" && !b.stateWanted && b.plan.event < 0 && o.In.Manifest().Kind == datasets.KindTransactions {
		b.engine.withoutState() // nothing will ask for the events that it has seen
	}
	b.rejects = rejectLog{b: b, limit: o.MaxRejects}
	return b, b.begin()
}

// begin takes up the state that a log begins from, if it lies beside it.
func (b *backfill) begin() error {
	if b.In.Manifest().Kind != datasets.KindLog {
		return nil
	}
	path := filepath.Join(b.In.Dir(), StartStateFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := b.engine.Restore(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// refuseOutputs finds before the work what would stop the writing after it.
func refuseOutputs(b RunOptions) error {
	in, err := os.Stat(b.In.Dir())
	if err != nil {
		return err
	}
	for _, dir := range []string{b.Out, b.StateOut} {
		if dir == "" || b.Append && dir == b.Out {
			continue
		}
		there, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case os.SameFile(in, there):
			return fmt.Errorf("%s is the input: name another directory for the output", dir)
		case !b.Force:
			return fmt.Errorf("%s %w: give --force to replace it, or name another directory", dir, atomicdir.ErrExists)
		}
	}
	if b.Out != "" && filepath.Clean(b.Out) == filepath.Clean(b.StateOut) {
		return fmt.Errorf("%s is given for the features and for the state: name two directories", b.Out)
	}
	return nil
}

// refuseRange finds a range that has no row because the data lie elsewhere.
func refuseRange(b RunOptions) error {
	m := b.In.Manifest()
	from, to := b.Range.Bounds()
	if b.Out == "" || m.Rows == 0 || from <= m.To && to > m.From {
		return nil
	}
	return fmt.Errorf("no transactions in %s: %s reaches from %s to %s", b.Range, b.In.Dir(),
		datasets.FormatTime(m.From), datasets.FormatTime(m.To))
}

// fold reads the data set and computes it.
func (b *backfill) fold(ctx context.Context) error {
	if b.w != nil && b.plan.event >= 0 && b.plan.label >= 0 && slices.Contains(b.plan.kept, b.plan.label) {
		if err := b.collectLabels(ctx); err != nil {
			return err
		}
	}
	o := datasets.ReadOptions{Columns: b.columns, Threads: b.Threads, Reuse: true}
	if b.to != math.MaxInt64 {
		o.Range = datasets.Range{From: math.MinInt64, To: b.to}
	}
	seq := -1 // where the log's seq stands in what is read
	if b.In.Manifest().Kind == datasets.KindLog && b.In.Schema().Index(datasets.Seq) >= 0 && b.plan.seq < 0 {
		o.Columns = append(slices.Clone(b.columns), datasets.Seq)
		seq = len(b.columns)
	}
	var done int64
	err := b.In.Read(ctx, o, func(in *datasets.Batch) error {
		if done += int64(in.N); done <= b.skip {
			return nil
		}
		if before := int64(in.N) - (done - b.skip); before > 0 {
			in = in.Slice(int(before), in.N)
		}
		if seq >= 0 {
			if err := b.seqs.check(b.In.Dir(), in.Columns[seq].Ints); err != nil {
				return err
			}
			in = &datasets.Batch{Schema: b.plan.in, N: in.N, Columns: in.Columns[:seq]}
		}
		if err := b.batch(in); err != nil {
			return err
		}
		if b.checkpointDue() {
			if err := b.checkpoint(); err != nil {
				return err
			}
		}
		if b.Progress != nil {
			b.Progress(done, b.In.Manifest().Rows)
		}
		return nil
	})
	return err
}

// ascending checks that a log's rows stand in the order in which they arrived.
type ascending struct {
	last int64
	any  bool
}

func (a *ascending) check(dir string, seq []int64) error {
	for _, s := range seq {
		if a.any && s <= a.last {
			return fmt.Errorf("%s: the log's %s goes from %d to %d: its rows are not in the order in which they arrived",
				dir, datasets.Seq, a.last, s)
		}
		a.last, a.any = s, true
	}
	return nil
}

// batch folds one batch and writes the rows of the range. The features are computed into the memory of the page that is
// written.
func (b *backfill) batch(in *datasets.Batch) error {
	var page *datasets.Batch
	kept := len(b.plan.kept)
	if b.w != nil {
		page = b.w.Page(in.N)
		b.out.Values = b.out.Values[:0]
		for _, c := range page.Columns[kept:] {
			b.out.Values = append(b.out.Values, c.Floats)
		}
	}
	if err := b.engine.Process(in, &b.out); err != nil {
		return err
	}
	if err := b.rejects.add(in, &b.out, b.folded); err != nil {
		return err
	}
	b.folded += int64(in.N)
	n := b.choose(in)
	b.rows += int64(n)
	if b.w == nil || n == 0 {
		return nil
	}
	page.N = n
	for i, c := range b.plan.kept {
		b.keep(&page.Columns[i], &in.Columns[c], n < in.N)
		if c == b.plan.label && b.labels != nil {
			b.fillLabels(in, &page.Columns[i])
		}
	}
	for f, v := range b.out.Values {
		if n < b.out.N {
			for i, r := range b.emit { // ascending: what is read has not been written
				v[i] = v[r]
			}
		}
		page.Columns[kept+f].Floats = v[:n]
	}
	return b.w.Write(page)
}

// keep appends a column of the input to that of a page: all of it, or the rows that are given out.
func (b *backfill) keep(to, from *datasets.Column, some bool) {
	if some {
		to.Ints, to.Floats = appendRows(to.Ints, from.Ints, b.sources), appendRows(to.Floats, from.Floats, b.sources)
		to.Strings, to.Null = appendRows(to.Strings, from.Strings, b.sources), appendRows(to.Null, from.Null, b.sources)
		return
	}
	to.Ints, to.Floats = append(to.Ints, from.Ints...), append(to.Floats, from.Floats...)
	to.Strings, to.Null = append(to.Strings, from.Strings...), append(to.Null, from.Null...)
}

func appendRows[T any](to, from []T, rows []int32) []T {
	if from == nil {
		return to
	}
	for _, r := range rows {
		to = append(to, from[r])
	}
	return to
}

// choose finds the rows that are given out, and says how many. Where all of a batch are, which is the rule, no lists
// are made.
func (b *backfill) choose(in *datasets.Batch) int {
	b.emit, b.sources = b.emit[:0], b.sources[:0]
	times := in.Columns[b.plan.time].Ints
	n := b.out.N
	if b.from > math.MinInt64 {
		n = 0
		for _, i := range b.out.Input {
			n += btoi(times[i] >= b.from)
		}
	}
	if n == in.N {
		return n
	}
	for r, i := range b.out.Input {
		if times[i] >= b.from {
			b.emit = append(b.emit, int32(r))
			b.sources = append(b.sources, i)
		}
	}
	return n
}

func pick[T any](v []T, rows []int32) []T {
	if v == nil {
		return nil
	}
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = v[r]
	}
	return out
}

// identity is a row's trans_id and line; noLine stands for a line that it does not say. ok is false where it has no
// trans_id or an impossible line.
func (p *Plan) identity(in *datasets.Batch, row int, noLine int64) (id rowID, line int64, ok bool) {
	c := &in.Columns[p.id]
	if c.IsNull(row) {
		return id, noLine, false
	}
	if p.idText {
		id.text = c.Strings[row]
	} else {
		id.number = c.Ints[row]
	}
	if line = noLine; p.line >= 0 {
		if l := &in.Columns[p.line]; !l.IsNull(row) {
			return id, l.Ints[row], l.Ints[row] >= 0
		}
	}
	return id, line, true
}

// collectLabels reads the log's label events.
func (b *backfill) collectLabels(ctx context.Context) error {
	b.labels = map[rowID][]eventLabel{}
	var position int64
	p := b.plan
	o := datasets.ReadOptions{Columns: b.columns, Threads: b.Threads, Reuse: true}
	return b.In.Read(ctx, o, func(in *datasets.Batch) error {
		for i := range in.N {
			position++
			if in.Columns[p.event].Strings[i] != datasets.EventLabel {
				continue
			}
			id, line, ok := p.identity(in, i, none)
			y, known := &in.Columns[p.label], &in.Columns[p.knownAt]
			if !ok || y.IsNull(i) || y.Ints[i]>>1 != 0 || known.IsNull(i) {
				continue
			}
			id.text = strings.Clone(id.text) // the batch's memory is used again
			b.labels[id] = append(b.labels[id], eventLabel{known.Ints[i], position, line, y.Ints[i]})
		}
		return nil
	})
}

// fillLabels puts the latest label of the log where a transaction carried none.
func (b *backfill) fillLabels(in *datasets.Batch, c *datasets.Column) {
	p := b.plan
	for j := range c.Null {
		if !c.Null[j] {
			continue
		}
		row := j
		if len(c.Null) < in.N {
			row = int(b.sources[j])
		}
		id, line, _ := p.identity(in, row, 0)
		t := in.Columns[p.time].Ints[row]
		var best *eventLabel
		for _, l := range b.labels[id] {
			if (l.line == none || l.line == line) && p.accepts(t, l.k) &&
				(best == nil || l.k > best.k || l.k == best.k && l.position > best.position) {
				best = &l
			}
		}
		if best != nil {
			c.Ints[j], c.Null[j] = best.y, false
		}
	}
}

// describe fills in the manifest.
func (b *backfill) describe(m *datasets.Manifest) error {
	made := Made{
		Spec: string(b.Spec.YAML()), Fingerprint: b.plan.Fingerprint(), Data: b.In.ID(), Input: b.plan.in,
		Nodes:    b.plan.Nodes(),
		Features: b.plan.Features(), Range: b.Range.String(), Memory: &b.used,
	}
	if b.plan.hasLabel {
		made.Delay = datasets.FormatDuration(b.plan.delay)
	}
	var old datasets.Manifest
	if b.old != nil {
		old = *b.old.Manifest()
		made.Inputs = append(slices.Clone(b.oldMade.inputs()), b.In.ID())
		made.Data = dataOf(made.Inputs)
		made.Range = datasets.Range{From: b.from, To: math.MaxInt64}.String()
	}
	raw, err := json.Marshal(made)
	if err != nil {
		return err
	}
	created := m.Created.Time
	if m.Created = b.Created; m.Created.Time.IsZero() {
		m.Created.Time = created
	}
	m.Extra = map[string]json.RawMessage{extraKey: raw}
	m.Sources = append(slices.Clone(old.Sources), datasets.Source{Path: b.In.Dir(), Rows: b.In.Manifest().Rows})
	if m.Counts, err = countsSince(b.engine.Counts(), b.before); err != nil {
		return err
	}
	m.Counts["folded"] = b.folded
	for name, n := range old.Counts {
		m.Counts[name] += n
	}
	return nil
}

// countsSince is by name how many rows came to each end since an earlier count.
func countsSince(now, before Counts) (map[string]int64, error) {
	all, err := now.byName()
	if err != nil {
		return nil, err
	}
	old, err := before.byName()
	for name, n := range old {
		all[name] -= n
	}
	return all, err
}

// byName is the counts by the names that manifests have for them.
func (c Counts) byName() (map[string]int64, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var m map[string]int64
	return m, json.Unmarshal(text, &m)
}
