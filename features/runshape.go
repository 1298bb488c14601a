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
	"slices"

	"github.com/onmart/onmart/datasets"
)

// MadePanel is what a panel data set says of its columns and steps.
type MadePanel struct {
	Step     Step          `json:"step"`
	Timezone string        `json:"timezone"`
	Seasons  []int         `json:"seasons"` // in steps
	Keys     []string      `json:"keys"`
	Columns  []PanelColumn `json:"columns"`           // all of them, in order
	Fill     string        `json:"fill"`              // zero or last: what a step without rows has for demand
	Closed   int64         `json:"closed_us"`         // the end of the last step: the next one begins here
	Series   int64         `json:"series"`            // how many there are at the last step
	Steps    int64         `json:"steps"`             // steps with rows
	Partial  string        `json:"partial,omitempty"` // the last step, where the data end inside it: RFC 3339
	Tables   []string      `json:"tables,omitempty"`  // dimension tables beside the parts
}

// MadeInteractions is what an interactions data set says of its columns.
type MadeInteractions struct {
	User   string `json:"user"`
	Item   string `json:"item"`
	Weight string `json:"weight"` // the column that it is a sum of, or "1": one a purchase
	Log    bool   `json:"log,omitempty"`
	// Returns is ignore, remove or negate: what a return makes of a purchase.
	Returns string `json:"returns"`
}

// shapeRun is a Run of a panel or of interactions under way.
type shapeRun struct {
	RunOptions
	plan     *Plan
	panel    *Panel
	inter    *Interactions
	tables   *Tables
	columns  []string
	from, to int64
	w        *datasets.Writer
	out      *datasets.Batch
	folded   int64
	rows     int64
	series   int64 // of the last step
	steps    int64
	last     int64 // the last step with rows
	seqs     ascending
}

// state is the engine of the run.
func (r *shapeRun) state() saved {
	if r.panel != nil {
		return r.panel
	}
	return r.inter
}

// Kind is the kind of data set that Run writes of a shape.
func (s Shape) Kind() datasets.Kind {
	switch s {
	case Panels:
		return datasets.KindPanel
	case Baskets:
		return datasets.KindInteractions
	}
	return datasets.KindFeatures
}

// newShapeRun plans a run on the columns that the spec reads.
func newShapeRun(o RunOptions) (*shapeRun, error) {
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
	r := &shapeRun{RunOptions: o, tables: tables, last: math.MinInt64}
	r.from, r.to = o.Range.Bounds()
	used := all.rows().used
	schema := &datasets.Schema{}
	for _, c := range used {
		schema.Fields = append(schema.Fields, o.In.Schema().Fields[c])
		r.columns = append(r.columns, o.In.Schema().Fields[c].Name)
	}
	if r.plan, err = o.Spec.Plan(schema, tables); err != nil {
		return nil, fmt.Errorf("%s: %w", o.In.Dir(), err)
	}
	r.out = datasets.NewBatch(r.plan.out, 0)
	if o.Spec.Shape() == Panels {
		r.panel = r.plan.NewPanel()
		r.panel.flush = r.write
	} else {
		r.inter = r.plan.NewInteractions()
	}
	return r, r.begin()
}

// rows is the part of a plan that panels and interactions share.
func (p *Plan) rows() *rowPlan {
	if p.panel != nil {
		return &p.panel.rowPlan
	}
	return &p.inter.rowPlan
}

// begin takes up the state that a log begins from. It is one of other features: a panel of such a log would lack
// what came before, and is refused.
func (r *shapeRun) begin() error {
	path := filepath.Join(r.In.Dir(), StartStateFile)
	if _, err := os.Stat(path); r.In.Manifest().Kind == datasets.KindLog && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s was recorded by a scorer that had history before it, in %s; a panel or interactions need that history as transactions: use the data set it came from", r.In.Dir(), StartStateFile)
	}
	return nil
}

// runShape is Run for panels and interactions.
func runShape(ctx context.Context, o RunOptions) (*datasets.Manifest, error) {
	r, err := newShapeRun(o)
	if err != nil {
		return nil, err
	}
	if err := refuseOutputs(o); err != nil {
		return nil, err
	}
	if err := refuseRange(o); err != nil {
		return nil, err
	}
	kind := o.Spec.Shape().Kind()
	if o.Out != "" {
		if r.w, err = datasets.Create(o.Out, kind, r.plan.Schema(), o.Force); err != nil {
			return nil, err
		}
		defer r.w.Abort()
	}
	if err := r.fold(ctx); err != nil {
		return nil, err
	}
	// The state is taken before steps that the range leaves open are cut short: it goes on where the log does.
	if o.StateOut != "" {
		if err := SaveState(o.StateOut, r.state(), map[string]int64{dataPosition(o.In.ID()): r.folded}, nil,
			o.Force); err != nil {
			return nil, err
		}
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	m := &datasets.Manifest{Kind: kind, Schema: *r.plan.Schema(), Rows: r.rows}
	if r.w != nil {
		m = r.w.Manifest()
	}
	if err := r.describe(m); err != nil {
		return nil, err
	}
	if r.w != nil {
		if err := r.tables.WriteBeside(r.w); err != nil {
			return nil, err
		}
		if err := r.w.Commit(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// StateOf folds everything in a data set before the instant `to` (microseconds) into a panel or interactions and
// returns it: with its state the next transaction can be folded. No step has been cut short.
func StateOf(ctx context.Context, spec *Spec, in *datasets.Dataset, to int64,
	progress func(done, total int64)) (State, error) {
	if spec.Shape() == Events {
		return nil, fmt.Errorf("the spec %s is of features of transactions: want a panel or interactions", spec.name)
	}
	r, err := newShapeRun(RunOptions{Spec: spec, In: in, Progress: progress,
		Range: datasets.Range{From: math.MinInt64, To: to}})
	if err != nil {
		return nil, err
	}
	return r.state(), r.fold(ctx)
}

// fold reads the data set up to the end of the range.
func (r *shapeRun) fold(ctx context.Context) error {
	o := datasets.ReadOptions{Columns: r.columns, Threads: r.Threads}
	if r.to != math.MaxInt64 {
		o.Range = datasets.Range{From: math.MinInt64, To: r.to}
	}
	seq := -1
	if r.In.Manifest().Kind == datasets.KindLog && r.In.Schema().Index(datasets.Seq) >= 0 &&
		!slices.Contains(r.columns, datasets.Seq) {
		o.Columns = append(slices.Clone(r.columns), datasets.Seq)
		seq = len(r.columns)
	}
	var done int64
	return r.In.Read(ctx, o, func(in *datasets.Batch) error {
		if seq >= 0 {
			if err := r.seqs.check(r.In.Dir(), in.Columns[seq].Ints); err != nil {
				return err
			}
		}
		in = &datasets.Batch{Schema: r.plan.in, N: in.N, Columns: in.Columns[:len(r.columns)]}
		if err := r.process(in); err != nil {
			return err
		}
		r.folded += int64(in.N)
		if done += int64(in.N); r.Progress != nil {
			r.Progress(done, r.In.Manifest().Rows)
		}
		if r.out.N >= flushRows {
			return r.write(r.out)
		}
		return nil
	})
}

func (r *shapeRun) process(in *datasets.Batch) error {
	if r.panel != nil {
		return r.panel.Process(in, r.out)
	}
	return r.inter.Process(in, r.out)
}

// finish ends what the range covers. Without an end, the last step is the one that the last transaction is in.
func (r *shapeRun) finish() error {
	var err error
	if r.panel != nil {
		end := r.to
		if r.to == math.MaxInt64 && r.panel.Watermark() != beginning {
			grid := r.panel.grid
			_, end = grid.Step(r.panel.Watermark())
		}
		if end != math.MaxInt64 {
			err = r.panel.Advance(end, r.out)
		}
	} else {
		err = r.inter.Advance(r.to, r.out)
	}
	if err != nil {
		return err
	}
	return r.write(r.out)
}

// write hands the rows of the range to the writer and empties the batch.
func (r *shapeRun) write(b *datasets.Batch) error {
	at := r.plan.out.Index(ColumnStep)
	if r.inter != nil {
		at = 2
	}
	times := b.Columns[at].Ints
	keep := b
	if r.inter == nil {
		first, _ := slices.BinarySearch(times, r.from) // rows are in the order of steps
		keep = b.Slice(first, b.N)
		for i, t := range times[first:] {
			if i == 0 || t != times[first+i-1] || t != r.last {
				if t != r.last {
					r.steps, r.last, r.series = r.steps+1, t, 0
				}
			}
			r.series++
		}
	} else if r.from > math.MinInt64 {
		keep = atOrAfter(b, times, r.from)
	}
	r.rows += int64(keep.N)
	if r.w != nil && keep.N > 0 {
		if err := r.w.Write(keep); err != nil {
			return err
		}
	}
	empty(b)
	return nil
}

// empty takes the rows out of a batch and keeps its memory.
func empty(b *datasets.Batch) {
	b.N = 0
	for i := range b.Columns {
		c := &b.Columns[i]
		c.Ints, c.Floats, c.Strings, c.Null = c.Ints[:0], c.Floats[:0], c.Strings[:0], nil
	}
}

// atOrAfter is the rows from an instant on: a late row may stand among later ones.
func atOrAfter(b *datasets.Batch, times []int64, from int64) *datasets.Batch {
	var rows []int32
	for i, t := range times {
		if t >= from {
			rows = append(rows, int32(i))
		}
	}
	out := &datasets.Batch{Schema: b.Schema, N: len(rows), Columns: make([]datasets.Column, len(b.Columns))}
	for i := range b.Columns {
		c := &b.Columns[i]
		out.Columns[i] = datasets.Column{Ints: pick(c.Ints, rows), Floats: pick(c.Floats, rows),
			Strings: pick(c.Strings, rows), Null: pick(c.Null, rows)}
	}
	return out
}

// describe fills in the manifest.
func (r *shapeRun) describe(m *datasets.Manifest) error {
	made := Made{
		Spec: string(r.Spec.YAML()), Fingerprint: r.plan.Fingerprint(), Data: r.In.ID(), Input: r.plan.in,
		Nodes: r.plan.Nodes(),
		Range: r.Range.String(), Shape: r.Spec.Shape(), Panel: r.madePanel(), Interactions: r.madeInteractions(),
	}
	raw, err := json.Marshal(made)
	if err != nil {
		return err
	}
	created := m.Created.Time
	if m.Created = r.Created; m.Created.Time.IsZero() {
		m.Created.Time = created
	}
	m.Extra = map[string]json.RawMessage{extraKey: raw}
	m.Sources = []datasets.Source{{Path: r.In.Dir(), Rows: r.In.Manifest().Rows}}
	m.Counts = map[string]int64{"folded": r.folded}
	counts, err := json.Marshal(r.state().Counts())
	if err != nil {
		return err
	}
	return json.Unmarshal(counts, &m.Counts)
}

func (r *shapeRun) madePanel() *MadePanel {
	if r.panel == nil {
		return nil
	}
	m := r.plan.Panel()
	m.Closed, m.Series, m.Steps = r.panel.Closed(), r.series, r.steps
	if m.Closed == beginning {
		m.Closed = 0
	}
	if end := r.In.Manifest().To; r.to == math.MaxInt64 && r.steps > 0 && end < m.Closed-1 {
		m.Partial = datasets.FormatTime(r.last)
	}
	return m
}

// Panel describes the columns and steps of a panel; what only a run knows is left empty. It is nil for other shapes.
func (p *Plan) Panel() *MadePanel {
	if p.panel == nil {
		return nil
	}
	m := &MadePanel{Step: p.panel.grid.step, Timezone: p.spec.timezone, Seasons: slices.Clone(p.panel.seasons),
		Fill: "zero", Tables: p.spec.Tables()}
	if p.panel.fill {
		m.Fill = "last"
	}
	m.Columns = append(m.Columns, PanelColumn{Name: ColumnSeries, Role: RoleSeries})
	for _, k := range p.panel.keys {
		m.Keys = append(m.Keys, k.name)
		m.Columns = append(m.Columns, PanelColumn{Name: k.name, Role: RoleKey})
	}
	m.Columns = append(m.Columns, PanelColumn{Name: ColumnStep, Role: RoleStep})
	m.Columns = append(m.Columns, p.panel.columns...)
	return m
}

func (r *shapeRun) madeInteractions() *MadeInteractions {
	if r.inter == nil {
		return nil
	}
	return r.plan.Interactions()
}

// Interactions describes the columns of interactions. It is nil for other shapes.
func (p *Plan) Interactions() *MadeInteractions {
	x := p.inter
	if x == nil {
		return nil
	}
	m := &MadeInteractions{User: x.user.name, Item: x.item.name, Weight: "1", Log: x.log, Returns: x.policy}
	if x.weight >= 0 {
		m.Weight = x.vals[x.weight].name
	}
	return m
}
