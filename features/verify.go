package features

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/onmart/onmart/datasets"
)

// VerifyOptions says what Verify checks.
type VerifyOptions struct {
	Spec    *Spec
	In      *datasets.Dataset // transactions or a log
	Against *datasets.Dataset // features that were made of In; nil: those that the engine gives now
	Sample  int               // how many rows, at the most
	Seed    uint64            // of the choice
	Range   datasets.Range    // of the rows that are chosen from
	Threads int               // 0 is one a core
	// Progress is called with the rows read, and then with those that were computed again; what is "read" or "verify".
	Progress func(what string, done, total int64)
}

// Verification is what Verify found.
type Verification struct {
	Rows       int64      `json:"rows"`    // of the log that were read
	Checked    int64      `json:"checked"` // rows of the sample
	Values     int64      `json:"values"`  // that were compared
	Mismatched int64      `json:"mismatched"`
	Mismatches []Mismatch `json:"mismatches"` // the first of them
}

// Mismatch is a value that differs from its definition.
type Mismatch struct {
	Position int64  `json:"position"` // row of the log, from 0
	TransID  string `json:"trans_id"`
	Line     *int64 `json:"line,omitempty"`
	Feature  string `json:"feature"` // or "status": what became of the row
	Defined  string `json:"defined"` // computed anew from the log
	Given    string `json:"given"`
}

// mismatchesKept is how many mismatches are told one by one.
const mismatchesKept = 100

// Verify computes the features of a sample of transactions again, by going through all of the log that stands before
// each (Naive), and compares them bit by bit with what the engine gives, or with a features data set. The sample is the
// rows whose position and seed have the smallest hashes: the same rows each time, and without regard to any rhythm of
// the data. The log is held in memory as far as the spec reads it, about 100 bytes a row.
func Verify(ctx context.Context, o VerifyOptions) (*Verification, error) {
	v, err := newVerifier(o)
	if err != nil {
		return nil, err
	}
	if err := v.read(ctx); err != nil {
		return nil, err
	}
	if o.Against != nil {
		if err := v.readAgainst(ctx); err != nil {
			return nil, err
		}
	}
	return &v.out, v.check(ctx)
}

// verifier is a Verify under way.
type verifier struct {
	VerifyOptions
	out    Verification
	plan   *Plan
	naive  *Naive
	engine *Engine // nil with Against
	cols   []string
	chosen sampleHeap
}

// sampledRow is a row of the sample.
type sampledRow struct {
	hash     uint64
	position int64
	id       string
	line     *int64
	status   Status    // the engine's
	values   []float64 // what is given, nil where nothing is
}

// sampleHeap has the greatest hash on top.
type sampleHeap []*sampledRow

func (h sampleHeap) Len() int           { return len(h) }
func (h sampleHeap) Less(i, j int) bool { return h[i].hash > h[j].hash }
func (h sampleHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *sampleHeap) Push(x any)        { *h = append(*h, x.(*sampledRow)) }
func (h *sampleHeap) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}

func newVerifier(o VerifyOptions) (*verifier, error) {
	if o.Spec.Shape() != Events {
		return nil, fmt.Errorf("the spec %s is of %s: features of transactions can be verified", o.Spec.name, o.Spec.Shape())
	}
	if o.Sample < 1 {
		return nil, fmt.Errorf("a sample of %d rows: want 1 or more", o.Sample)
	}
	b, err := newBackfill(RunOptions{Spec: o.Spec, In: o.In, Threads: o.Threads})
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(filepath.Join(o.In.Dir(), StartStateFile))
	if o.In.Manifest().Kind == datasets.KindLog && err == nil {
		return nil, fmt.Errorf("%s was recorded by a scorer that had history before it, in %s: its features cannot be "+
			"computed from the log alone",
			o.In.Dir(), StartStateFile)
	}
	v := &verifier{VerifyOptions: o, plan: b.plan, engine: b.engine, cols: b.columns}
	if v.Threads <= 0 {
		v.Threads = runtime.GOMAXPROCS(0)
	}
	v.out.Mismatches = []Mismatch{}
	tables, err := OpenTables(o.In.Dir(), o.Spec)
	if err != nil {
		return nil, err
	}
	if v.naive, err = NewNaive(o.Spec, v.plan.in, tables); err != nil {
		return nil, err
	}
	for i, name := range v.naive.Names() {
		if i >= len(v.plan.features) || v.plan.features[i].Name != name {
			return nil, fmt.Errorf("features: the definition and the engine have columns in another order: %s", name)
		}
	}
	if o.Against != nil {
		v.engine = nil
		return v, v.refuseAgainst()
	}
	return v, nil
}

// refuseAgainst finds features that are not of this spec.
func (v *verifier) refuseAgainst() error {
	made, err := MadeFrom(v.Against)
	if err != nil {
		return err
	}
	if err := v.plan.sameNodes(made.Nodes, nil); err != nil {
		return fmt.Errorf("%s: %w; give the spec that it was made of", v.Against.Dir(), err)
	}
	if len(made.Inputs) == 0 && made.Data != v.In.ID() {
		return fmt.Errorf("%s was made of other data than %s: name the data set that it was made of", v.Against.Dir(),
			v.In.Dir())
	}
	return nil
}

// read folds the log and chooses the sample.
func (v *verifier) read(ctx context.Context) error {
	var out Rows
	total := v.In.Manifest().Rows
	from, to := v.Range.Bounds()
	o := datasets.ReadOptions{Columns: v.cols, Threads: v.Threads, Reuse: true}
	return v.In.Read(ctx, o, func(in *datasets.Batch) error {
		if err := v.naive.Log(in); err != nil {
			return err
		}
		if v.engine != nil {
			if err := v.engine.Process(in, &out); err != nil {
				return err
			}
		}
		next := 0 // of out.Input
		for i := range in.N {
			row := -1
			if next < out.N && int(out.Input[next]) == i {
				row = next
				next++
			}
			at := &in.Columns[v.plan.time]
			if at.IsNull(i) || at.Ints[i] < from || at.Ints[i] >= to {
				continue
			}
			v.choose(in, i, row, &out)
		}
		v.out.Rows += int64(in.N)
		v.progress("read", v.out.Rows, total)
		return nil
	})
}

// choose takes a row into the sample if its hash is among the smallest so far.
func (v *verifier) choose(in *datasets.Batch, i, row int, out *Rows) {
	if v.plan.event >= 0 && in.Columns[v.plan.event].Strings[i] != datasets.EventTransaction {
		return
	}
	position := v.out.Rows + int64(i)
	hash := hashPosition(uint64(position) ^ hashPosition(v.Seed))
	if len(v.chosen) == v.Sample && hash >= v.chosen[0].hash {
		return
	}
	s := &sampledRow{hash: hash, position: position, id: valueText(&in.Columns[v.plan.id], v.plan.in.Fields[v.plan.id], i)}
	if _, line, _ := v.plan.identity(in, i, none); line != none {
		s.line = &line
	}
	if v.engine != nil {
		s.status = out.Status[i]
	}
	if row >= 0 {
		for _, values := range out.Values {
			s.values = append(s.values, values[row])
		}
		if s.values == nil {
			s.values = []float64{}
		}
	}
	heap.Push(&v.chosen, s)
	if len(v.chosen) > v.Sample {
		heap.Pop(&v.chosen)
	}
}

func (v *verifier) progress(what string, done, total int64) {
	if v.Progress != nil {
		v.Progress(what, done, total)
	}
}

// readAgainst finds the sample's rows in the features data set: they stand in it in the order of the log, those that
// were computed and are in its range.
func (v *verifier) readAgainst(ctx context.Context) error {
	made, err := MadeFrom(v.Against)
	if err != nil {
		return err
	}
	r, err := datasets.ParseRange(made.Range)
	if err != nil {
		return fmt.Errorf("%s: its range: %w", v.Against.Dir(), err)
	}
	from, to := r.Bounds()
	at := map[int64]*sampledRow{} // by row of Against
	byPosition := map[int64]*sampledRow{}
	for _, s := range v.chosen {
		byPosition[s.position] = s
	}
	var rows int64
	for i := range v.naive.Rows() {
		row := &v.naive.log[i]
		s := byPosition[int64(i)]
		if row.isLabel || !row.held || row.t < from || row.t >= to {
			if s != nil {
				s.status = row.status
				if row.held {
					v.chosen = slices.DeleteFunc(v.chosen, func(x *sampledRow) bool { return x == s })
				}
			}
			continue
		}
		if s != nil {
			s.status = row.status
			at[rows] = s
		}
		rows++
	}
	if rows != v.Against.Manifest().Rows {
		return fmt.Errorf("%s has %d rows, and by the definition %s gives %d: it was not made of these data", v.Against.Dir(),
			v.Against.Manifest().Rows, v.In.Dir(), rows)
	}
	var names []string
	for _, f := range v.plan.features {
		names = append(names, f.Name)
	}
	var done int64
	o := datasets.ReadOptions{Columns: names, Threads: v.Threads, Reuse: true}
	return v.Against.Read(ctx, o, func(in *datasets.Batch) error {
		for i := range in.N {
			s := at[done+int64(i)]
			if s == nil {
				continue
			}
			s.values = make([]float64, len(in.Columns))
			for c := range in.Columns {
				s.values[c] = in.Columns[c].Floats[i]
			}
		}
		done += int64(in.N)
		return nil
	})
}

// check computes the sample anew, in the order of the log.
func (v *verifier) check(ctx context.Context) error {
	rows := slices.Clone(v.chosen)
	slices.SortFunc(rows, func(a, b *sampledRow) int { return int(a.position - b.position) })
	if len(rows) == 0 {
		return errors.New("there is no transaction to verify in the range")
	}
	names := v.naive.Names()
	for i, s := range rows {
		if err := ctx.Err(); err != nil {
			return err
		}
		values, status := v.naive.Row(int(s.position))
		v.out.Checked++
		switch {
		case status != s.status || (values == nil) != (s.values == nil):
			v.mismatch(s, "status", status.String(), s.status.String())
		default:
			v.out.Values += int64(len(values))
			for f, x := range values {
				if math.Float64bits(x) != math.Float64bits(s.values[f]) {
					v.mismatch(s, names[f], floatText(x), floatText(s.values[f]))
				}
			}
		}
		v.progress("verify", int64(i+1), int64(len(rows)))
	}
	return nil
}

func (v *verifier) mismatch(s *sampledRow, feature, defined, given string) {
	if v.out.Mismatched++; len(v.out.Mismatches) < mismatchesKept {
		v.out.Mismatches = append(v.out.Mismatches, Mismatch{Position: s.position, TransID: s.id, Line: s.line,
			Feature: feature, Defined: defined, Given: given})
	}
}
