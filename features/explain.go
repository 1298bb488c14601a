package features

import (
	"context"
	"fmt"
	"time"

	"github.com/onmart/onmart/datasets"
)

// Explanation says what a spec's features are and, for a data set, what they cost.
type Explanation struct {
	Spec     string             `json:"spec"`
	Features []ExplainedFeature `json:"features"`
	// The rest needs a data set.
	Groups []ExplainedGroup `json:"groups,omitempty"`
	Cost   *ExplainedCost   `json:"cost,omitempty"`
	Memory *Prediction      `json:"memory,omitempty"`
}

// ExplainedFeature is one feature.
type ExplainedFeature struct {
	Names   []string `json:"names"` // its columns: one but for two kinds
	Kind    Kind     `json:"kind"`
	Words   string   `json:"words"`
	Hidden  bool     `json:"hidden,omitempty"`
	Columns []string `json:"columns"` // of the data that it is made of
	Tables  []string `json:"tables,omitempty"`
	Key     []string `json:"key,omitempty"`
	Group   int      `json:"group,omitempty"` // number of its group, from 1; 0 is none, or without a data set
}

// ExplainedGroup is features that share the entries of a key, and with them their state and the time of an event.
type ExplainedGroup struct {
	Number   int      `json:"number"`
	Key      []string `json:"key"`
	Features []string `json:"features"`
	// State of a key: words of a fixed size, and entries in a ring as long as a window can show them.
	HeadBytes  int    `json:"head_bytes"`
	EntryBytes int    `json:"entry_bytes"` // 0: no entries are kept
	Kept       string `json:"kept,omitempty"`
	Tables     string `json:"beside,omitempty"` // what else a key may hold

	NsPerEvent  float64 `json:"ns_per_event"`  // measured
	StateBytes  int64   `json:"state_bytes"`   // predicted
	BytesPerKey float64 `json:"bytes_per_key"` // predicted, in the mean
}

// ExplainedCost is where the engine's time goes, in nanoseconds an event, measured on one thread.
type ExplainedCost struct {
	Rows   int64   `json:"rows"` // that were measured
	Row    float64 `json:"row_ns"`
	Keys   float64 `json:"keys_ns"`
	Order  float64 `json:"order_ns"`
	Groups float64 `json:"groups_ns"`
	Last   float64 `json:"last_ns"`
	Forget float64 `json:"forget_ns"`
	Total  float64 `json:"total_ns"`
}

// explainRows is how many of a data set's first rows the engine folds for the costs. The later half is measured, when
// windows have something in them; reading and writing are not part of it.
const explainRows = 1 << 20

// Explain describes a spec of features of transactions.
func Explain(s *Spec) (*Explanation, error) {
	if s.Shape() != Events {
		return nil, fmt.Errorf("the spec %s is of %s: features of transactions are explained; of others, onmart inspect "+
			"shows the columns of what was made",
			s.name, s.Shape())
	}
	x := &Explanation{Spec: s.name}
	for i := range s.features {
		f := &s.features[i]
		e := ExplainedFeature{Names: f.columns(), Kind: f.kind, Words: s.sentence(f), Hidden: f.hidden}
		e.Columns, e.Tables = s.sources(f)
		for _, k := range f.keys {
			e.Key = append(e.Key, k.s)
		}
		x.Features = append(x.Features, e)
	}
	return x, nil
}

// ExplainFor is Explain with the groups that the engine makes for a data set, the cost of an event, measured over its
// first million rows, and the memory of the state after all of them, predicted from a sample of the keys.
func ExplainFor(ctx context.Context, s *Spec, in *datasets.Dataset, progress func(what string, done,
	total int64)) (*Explanation, error) {
	x, err := Explain(s)
	if err != nil {
		return nil, err
	}
	b, err := newBackfill(RunOptions{Spec: s, In: in, Threads: 1})
	if err != nil {
		return nil, err
	}
	defer func() { b.engine.a.Close() }()
	x.Groups = b.plan.explainGroups(x)
	watch, rows, err := b.measure(ctx, progress)
	if err != nil {
		return nil, err
	}
	if rows > 0 {
		each := func(d int64) float64 { return float64(d) / float64(rows) }
		x.Cost = &ExplainedCost{Rows: rows, Row: each(int64(watch.stages[stageRow])),
			Keys:  each(int64(watch.stages[stageKeys])),
			Order: each(int64(watch.stages[stageOrder])), Last: each(int64(watch.stages[stageLast])),
			Forget: each(int64(watch.stages[stageForget])), Total: each(int64(watch.total()))}
		for g := range x.Groups {
			x.Groups[g].NsPerEvent = each(int64(watch.groups[g]))
			x.Cost.Groups += x.Groups[g].NsPerEvent
		}
	}
	total := in.Manifest().Rows
	x.Memory, err = b.predict(ctx, censusRows, func(done int64) { progress("memory", done, total) })
	if err != nil {
		return nil, err
	}
	for g := range x.Groups {
		x.Groups[g].StateBytes = x.Memory.Groups[g]
		if n := x.Memory.Keys[b.plan.groups[g].key].Distinct; n > 0 {
			x.Groups[g].BytesPerKey = float64(x.Memory.Groups[g]) / float64(n)
		}
	}
	return x, nil
}

// measure runs the engine over the first rows and gives its times over the later half of them.
func (b *backfill) measure(ctx context.Context, progress func(what string, done, total int64)) (*stopwatch, int64,
	error) {
	total := min(b.In.Manifest().Rows, explainRows)
	var done, rows int64
	o := datasets.ReadOptions{Columns: b.columns, Threads: 1, Reuse: true}
	watch := &stopwatch{groups: make([]time.Duration, len(b.plan.groups))}
	err := b.In.Read(ctx, o, func(in *datasets.Batch) error {
		if b.engine.watch == nil && done+int64(in.N) > total/2 {
			b.engine.watch = watch
		}
		if err := b.engine.Process(in, &b.out); err != nil {
			return err
		}
		if b.engine.watch != nil {
			rows += int64(in.N)
		}
		if done += int64(in.N); done >= explainRows {
			return errLooked{}
		}
		progress("cost", done, total)
		return nil
	})
	if _, ok := err.(errLooked); err != nil && !ok {
		return nil, 0, err
	}
	return watch, rows, nil
}

// explainGroups describes the plan's groups and numbers them in the features.
func (p *Plan) explainGroups(x *Explanation) []ExplainedGroup {
	var list []ExplainedGroup
	at := map[string]int{} // feature by name
	for i := range x.Features {
		for _, name := range x.Features[i].Names {
			at[name] = i
		}
	}
	for i, g := range p.groups {
		e := ExplainedGroup{Number: i + 1, Key: p.keyNames(g.key), Features: []string{}, HeadBytes: 8 * g.head}
		dests := map[int]bool{}
		for o := range g.outs {
			dests[g.outs[o].dest] = true
		}
		for d, f := range p.features {
			if dests[d] {
				e.Features = append(e.Features, f.Name)
				x.Features[at[f.Name]].Group = i + 1
			}
		}
		if g.ring {
			e.EntryBytes = 8 * g.stride
			e.Kept = p.keptText(g)
		}
		e.Tables = g.tablesText()
		list = append(list, e)
	}
	return list
}

// keptText says how long entries are kept.
func (p *Plan) keptText(g *group) string {
	t := ""
	if g.span > 0 || g.pending() {
		t = spanText(g.span + g.shift + p.lateness)
	}
	if g.keep > 0 {
		if t != "" {
			t += ", and "
		}
		t += fmt.Sprintf("the last %d", g.keep)
	}
	return t
}

// tablesText says what a key holds beside its head and ring.
func (g *group) tablesText() string {
	t := ""
	add := func(what string) {
		if t != "" {
			t += ", "
		}
		t += what
	}
	if len(g.tabs) > 0 {
		add(fmt.Sprintf("%d tables of values", len(g.tabs)))
	}
	for c := range g.cols {
		switch {
		case g.cols[c].accSet != 0:
			add("a set of values, to 4 KiB")
		case g.cols[c].accBag != 0:
			add("a table of all values")
		case g.cols[c].ext != 0:
			add("extremes, 1 byte an entry")
		}
	}
	if g.label {
		add("what late labels change")
	}
	return t
}

// VisibleFeatures counts the columns of output.
func (x *Explanation) VisibleFeatures() int {
	n := 0
	for i := range x.Features {
		if !x.Features[i].Hidden {
			n += len(x.Features[i].Names)
		}
	}
	return n
}
