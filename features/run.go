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

	"github.com/onmart/onmart/datasets"
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
}

// Made is what a features data set says of how it was made; it stands in the manifest under "features".
type Made struct {
	Spec        string `json:"spec"` // YAML
	Fingerprint string `json:"fingerprint"`
	Data        string `json:"data"` // id of the data set they were computed from
	// Input is the columns that the spec reads of that data set: a model trained on the features plans its
	// spec on them when the data set itself is gone.
	Input    *datasets.Schema `json:"input"`
	Nodes    []Node           `json:"nodes"`
	Features []Feature        `json:"features,omitempty"`
	Range    string           `json:"range"`
	Delay    string           `json:"delay,omitempty"`

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
// filled from the log's label events where it carried none; features never read it. It returns the manifest
// that was written (without Out: that would have been).
//
// Of a panel the range says which steps are given: those that begin at or after its start and end at or before its
// end; without an end, the step that the last transaction is in is the last, whole or not. Dimension tables that the
// spec joins are read from beside the data set and written beside the panel.
func Run(ctx context.Context, o RunOptions) (*datasets.Manifest, error) {
	if o.Spec.Shape() != Events {
		return runShape(ctx, o)
	}
	b, err := newBackfill(o)
	if err != nil {
		return nil, err
	}
	if err := refuseOutputs(o); err != nil {
		return nil, err
	}
	if err := refuseRange(o); err != nil {
		return nil, err
	}
	if o.Out != "" {
		if b.w, err = datasets.Create(o.Out, datasets.KindFeatures, b.plan.Schema(), o.Force); err != nil {
			return nil, err
		}
		defer b.w.Abort()
	}
	if err := b.fold(ctx); err != nil {
		return nil, err
	}
	m := &datasets.Manifest{Kind: datasets.KindFeatures, Schema: *b.plan.Schema(), Rows: b.rows}
	if b.w != nil {
		m = b.w.Manifest()
	}
	if err := b.describe(m); err != nil {
		return nil, err
	}
	if b.w != nil {
		if err := b.w.Commit(); err != nil {
			return nil, err
		}
	}
	if o.StateOut != "" {
		if err := SaveState(o.StateOut, b.engine, map[string]int64{"data:" + o.In.ID(): b.folded}, nil, o.Force); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// StateAt folds everything in a data set before the instant `to` (microseconds) and returns the engine: with
// its state the next event can be computed.
func StateAt(ctx context.Context, spec *Spec, in *datasets.Dataset, to int64, threads int, progress func(done, total int64)) (*Engine, error) {
	b, err := newBackfill(RunOptions{Spec: spec, In: in, Threads: threads, Progress: progress, Range: datasets.Range{From: math.MinInt64, To: to}})
	if err != nil {
		return nil, err
	}
	return b.engine, b.fold(ctx)
}

// backfill is a Run under way.
type backfill struct {
	RunOptions
	plan     *Plan
	engine   *Engine
	columns  []string
	from, to int64
	w        *datasets.Writer // nil: rows are not wanted
	labels   map[any][]eventLabel
	folded   int64 // rows of the input
	rows     int64 // rows given out
	seqs     ascending
	out      Rows
	emit     []int32 // rows of out that are in the range
}

// eventLabel is a label of a log.
type eventLabel struct{ k, position, line, y int64 }

// wantsLog refuses data sets that are not of transactions.
func wantsLog(d *datasets.Dataset) error {
	if kind := d.Manifest().Kind; kind != datasets.KindTransactions && kind != datasets.KindLog {
		return fmt.Errorf("%s holds %s: features are computed of transactions or a log, from onmart import or onmart score --record", d.Dir(), kind)
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
	all, err := o.Spec.Plan(o.In.Schema())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.In.Dir(), err)
	}
	b := &backfill{RunOptions: o}
	b.from, b.to = o.Range.Bounds()
	schema := &datasets.Schema{}
	for _, c := range all.columns() {
		schema.Fields = append(schema.Fields, o.In.Schema().Fields[c])
		b.columns = append(b.columns, o.In.Schema().Fields[c].Name)
	}
	if b.plan, err = o.Spec.Plan(schema); err != nil {
		return nil, fmt.Errorf("%s: %w", o.In.Dir(), err)
	}
	if b.Threads <= 0 {
		b.Threads = runtime.GOMAXPROCS(0)
	}
	b.engine = b.plan.NewEngine(b.Threads)
	return b, b.begin()
}

// columns are the input columns that the plan reads. Without partitions the order of a log says all that its
// seq says, and going by the order lets a log continue the positions of the state it began from.
func (p *Plan) columns() []int {
	list := slices.Clone(p.kept)
	list = append(list, p.needed...)
	for _, c := range []int{p.line, p.event, p.knownAt, p.label, p.part} {
		if c >= 0 {
			list = append(list, c)
		}
	}
	if p.part >= 0 && p.seq >= 0 {
		list = append(list, p.seq)
	}
	for _, k := range p.keys {
		list = append(list, k.col)
	}
	slices.Sort(list)
	return slices.Compact(list)
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
		if dir == "" {
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
	return fmt.Errorf("no transactions in %s: %s reaches from %s to %s", b.Range, b.In.Dir(), datasets.FormatTime(m.From), datasets.FormatTime(m.To))
}

// fold reads the data set and computes it.
func (b *backfill) fold(ctx context.Context) error {
	if b.w != nil && b.plan.event >= 0 && b.plan.label >= 0 && slices.Contains(b.plan.kept, b.plan.label) {
		if err := b.collectLabels(ctx); err != nil {
			return err
		}
	}
	o := datasets.ReadOptions{Columns: b.columns, Threads: b.Threads}
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
		if seq >= 0 {
			if err := b.seqs.check(b.In.Dir(), in.Columns[seq].Ints); err != nil {
				return err
			}
			in = &datasets.Batch{Schema: b.plan.in, N: in.N, Columns: in.Columns[:seq]}
		}
		if err := b.batch(in); err != nil {
			return err
		}
		if done += int64(in.N); b.Progress != nil {
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
			return fmt.Errorf("%s: the log's %s goes from %d to %d: its rows are not in the order in which they arrived", dir, datasets.Seq, a.last, s)
		}
		a.last, a.any = s, true
	}
	return nil
}

// batch folds one batch and writes the rows of the range.
func (b *backfill) batch(in *datasets.Batch) error {
	if err := b.engine.Process(in, &b.out); err != nil {
		return err
	}
	b.folded += int64(in.N)
	times := in.Columns[b.plan.time].Ints
	b.emit = b.emit[:0]
	for r, i := range b.out.Input {
		if times[i] >= b.from {
			b.emit = append(b.emit, int32(r))
		}
	}
	b.rows += int64(len(b.emit))
	if b.w == nil || len(b.emit) == 0 {
		return nil
	}
	rows := &datasets.Batch{Schema: b.plan.out, N: len(b.emit)}
	for _, c := range b.plan.kept {
		rows.Columns = append(rows.Columns, b.gather(&in.Columns[c]))
		if c == b.plan.label && b.labels != nil {
			b.fillLabels(in, &rows.Columns[len(rows.Columns)-1])
		}
	}
	for _, v := range b.out.Values {
		if len(b.emit) < b.out.N {
			v = pick(v, b.emit)
		}
		rows.Columns = append(rows.Columns, datasets.Column{Floats: v})
	}
	return b.w.Write(rows)
}

// gather takes a kept column's values for the rows that are given out.
func (b *backfill) gather(c *datasets.Column) datasets.Column {
	if len(b.emit) == len(b.out.Status) { // all rows of the input
		return *c
	}
	from := make([]int32, len(b.emit))
	for j, r := range b.emit {
		from[j] = b.out.Input[r]
	}
	return datasets.Column{Ints: pick(c.Ints, from), Floats: pick(c.Floats, from), Strings: pick(c.Strings, from), Null: pick(c.Null, from)}
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

// collectLabels reads the log's label events.
func (b *backfill) collectLabels(ctx context.Context) error {
	b.labels = map[any][]eventLabel{}
	var position int64
	return b.In.Read(ctx, datasets.ReadOptions{Columns: b.columns, Threads: b.Threads}, func(in *datasets.Batch) error {
		for i := range in.N {
			position++
			ev := event{row: i}
			if in.Columns[b.plan.event].Strings[i] != datasets.EventLabel || !b.engine.identify(in, &ev, none) {
				continue
			}
			y, ok := b.engine.labelOf(in, i)
			if known := &in.Columns[b.plan.knownAt]; ok && y != none && !known.IsNull(i) {
				id := b.plan.eventID(&ev)
				b.labels[id] = append(b.labels[id], eventLabel{known.Ints[i], position, ev.line, int64(y)})
			}
		}
		return nil
	})
}

func (p *Plan) eventID(ev *event) any {
	if p.idText {
		return ev.name
	}
	return ev.id
}

// fillLabels puts the latest label of the log where a transaction carried none.
func (b *backfill) fillLabels(in *datasets.Batch, c *datasets.Column) {
	p := b.plan
	c.Ints, c.Null = slices.Clone(c.Ints), slices.Clone(c.Null)
	for j, r := range b.emit {
		if c.Null == nil || !c.Null[j] {
			continue
		}
		ev := event{row: int(b.out.Input[r])}
		b.engine.identify(in, &ev, 0)
		t := in.Columns[p.time].Ints[ev.row]
		var best *eventLabel
		for _, l := range b.labels[p.eventID(&ev)] {
			if (l.line == none || l.line == ev.line) && p.accepts(t, l.k) &&
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
		Spec: string(b.Spec.YAML()), Fingerprint: b.plan.Fingerprint(), Data: b.In.ID(), Input: b.plan.in, Nodes: b.plan.Nodes(),
		Features: b.plan.Features(), Range: b.Range.String(),
	}
	if b.plan.hasLabel {
		made.Delay = datasets.FormatDuration(b.plan.delay)
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
	m.Sources = []datasets.Source{{Path: b.In.Dir(), Rows: b.In.Manifest().Rows}}
	m.Counts = map[string]int64{"folded": b.folded}
	counts, err := json.Marshal(b.engine.counts)
	if err != nil {
		return err
	}
	return json.Unmarshal(counts, &m.Counts)
}
