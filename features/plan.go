package features

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/onmart/onmart/datasets"
)

// Partition is an optional Int64 column of a log: the partition of its source that an event came from.
// With it, Seq is the position within the partition. Without it all events are of partition 0.
const Partition = "partition"

// Feature describes one column of output.
type Feature struct {
	Name  string `json:"name"`
	Kind  Kind   `json:"kind"`
	Log   bool   `json:"log,omitempty"`   // a model wants log1p of it: counts and amounts
	Words string `json:"words,omitempty"` // for people, with {value} and {typical} to be filled in
	Unit  string `json:"unit,omitempty"`
}

// Node is one computed feature and the fingerprint of what it computes: the hex SHA-256 of its canonical
// definition. Equal fingerprints mean equal values and interchangeable state.
type Node struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
}

// Plan is a spec bound to the columns of its input. It is not changed once made and may be shared.
type Plan struct {
	spec     *Spec
	in, out  *datasets.Schema
	features []Feature
	nodes    []Node
	kept     []int // input columns that are handed on

	// Input columns, -1 where absent.
	time, id, line, event, knownAt, seq, part, label int
	needed                                           []int // columns in which a transaction must have a value
	idText                                           bool

	keys   []keyColumn
	vals   []valueColumn
	groups []*group
	direct []directFeature

	hasLabel                   bool
	delay, acceptFor, lateness int64
	horizon                    int64 // H
	retain                     int64 // how long an event is held past the horizon
	location                   *time.Location
	labelKeys                  []int // key columns that a label group uses

	// Of a panel or of interactions.
	panel  *panelPlan
	inter  *interPlan
	tables []string // checksums of the dimension tables
}

type keyColumn struct {
	name string
	col  int
	text bool
}

type valueColumn struct {
	name  string
	col   int
	scale float64 // units in 1
}

// directFeature is computed from the event alone.
type directFeature struct {
	dest    int // number of the feature
	col     int // Value: input column
	float   bool
	scale   float64
	weekend bool
	night   bool
}

// group is the features that read one ring a key: same key, same K.
type group struct {
	layout
	key   int   // key column
	shift int64 // microseconds from event time to K; of label features the delay
	label bool  // some feature is over labels: label events are applied
	cols  []int // value columns that are summed, labelValue for the label
	wins  []window
}

// labelValue stands for the label among the value columns of a group.
const labelValue = -1

type window struct {
	span int64
	outs []output
}

// output is one feature read off a window.
type output struct {
	dest    int // number of the feature
	kind    Kind
	col     int // place in the group's summed columns
	scale   float64
	current bool
}

// Plan binds the spec to input columns. The error is a *Faults naming every column that is missing or of the
// wrong type, with its place in the YAML. The label column may be missing: then no event carries a label. A spec
// that joins dimension tables needs them, from OpenTables.
func (s *Spec) Plan(in *datasets.Schema, tables ...*Tables) (*Plan, error) {
	if s.Shape() != Events {
		var t *Tables
		if len(tables) > 0 {
			t = tables[0]
		}
		return s.planShape(in, t)
	}
	b := &binder{p: &Plan{spec: s, in: in, lateness: s.lateness}, faults: Faults{Name: s.file}}
	b.fixed()
	b.spans()
	b.keep()
	for i := range s.features {
		b.template(&s.features[i])
	}
	if err := b.faults.err(); err != nil {
		return nil, err
	}
	p := b.p
	for _, g := range p.groups {
		g.layout = layout{stride: 1 + len(g.cols)}
		if g.label && !slices.Contains(p.labelKeys, g.key) {
			p.labelKeys = append(p.labelKeys, g.key)
		}
	}
	p.out = &datasets.Schema{}
	for _, c := range p.kept {
		f := in.Fields[c]
		f.Nullable = f.Nullable && !slices.Contains(p.needed, c)
		p.out.Fields = append(p.out.Fields, f)
	}
	for _, f := range p.features {
		p.out.Fields = append(p.out.Fields, datasets.Field{Name: f.Name, Type: datasets.Float64})
	}
	return p, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Schema is the output's columns: the kept columns of the input, then the features, all Float64.
func (p *Plan) Schema() *datasets.Schema { return p.out }

// Features are the features in the order of the output.
func (p *Plan) Features() []Feature { return slices.Clone(p.features) }

// Nodes are the features' fingerprints in the order of the output.
func (p *Plan) Nodes() []Node { return slices.Clone(p.nodes) }

// Fingerprint identifies the whole output: kept columns, names and nodes.
func (p *Plan) Fingerprint() string {
	def, err := json.Marshal(struct {
		Columns []datasets.Field
		Nodes   []Node
		Tables  []string `json:",omitempty"`
	}{p.out.Fields, p.nodes, p.tables})
	if err != nil {
		panic(err) // plain strings and numbers
	}
	return digest(def)
}

func digest(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// binder makes a Plan.
type binder struct {
	p      *Plan
	faults Faults
}

func (b *binder) names() []string {
	var list []string
	for _, f := range b.p.in.Fields {
		list = append(list, f.Name)
	}
	return list
}

// find looks a column up that the spec names; it must be of one of the types.
func (b *binder) find(what string, name text, types ...datasets.Type) (int, bool) {
	i := b.p.in.Index(name.s)
	if i < 0 {
		b.faults.add(name.pos, "%s: the data has no column %q%s", what, name.s, suggest(name.s, b.names()))
		return 0, false
	}
	if t := b.p.in.Fields[i].Type; len(types) > 0 && !slices.Contains(types, t) {
		b.faults.add(name.pos, "%s: column %s is of type %s; want %s", what, name.s, t, oneOf(types))
		return 0, false
	}
	return i, true
}

func oneOf(types []datasets.Type) string {
	s := ""
	for i, t := range types {
		if i > 0 {
			s += " or "
		}
		s += t.String()
	}
	return s
}

// fixed binds the columns that every log has or may have.
func (b *binder) fixed() {
	p := b.p
	p.id, _ = b.find("transactions", text{s: datasets.TransID}, datasets.Int64, datasets.String)
	p.time, _ = b.find("transactions", text{s: datasets.TransDatetime}, datasets.Time)
	p.needed = []int{p.id, p.time}
	p.idText = len(p.in.Fields) > 0 && p.in.Fields[p.id].Type == datasets.String
	optional := func(name string, t datasets.Type) int {
		if p.in.Index(name) < 0 {
			return -1
		}
		i, _ := b.find("transactions", text{s: name}, t)
		return i
	}
	p.line = optional(datasets.Line, datasets.Int64)
	p.event = optional(datasets.Event, datasets.String)
	p.knownAt = optional(datasets.KnownAt, datasets.Time)
	p.seq = optional(datasets.Seq, datasets.Int64)
	p.part = optional(Partition, datasets.Int64)
	p.label = -1
	if l := b.p.spec.label; l != nil {
		p.hasLabel, p.delay, p.acceptFor = true, l.delay, l.acceptFor
		if p.in.Index(l.column.s) >= 0 {
			p.label, _ = b.find("label", l.column, datasets.Int64)
		} else if near := suggest(l.column.s, b.names()); near != "" && !isCanonical(l.column.s) {
			b.faults.add(l.column.pos, "label: the data has no column %q%s", l.column.s, near)
		}
	}
	if p.event >= 0 && p.hasLabel && p.label >= 0 && p.knownAt < 0 {
		b.faults.add(position{}, "the log has label events but no column %s that says when they were known", datasets.KnownAt)
	}
}

// isCanonical tells a label column that this data happens not to have from one that is misspelt.
func isCanonical(name string) bool { return name == datasets.IsFraud }

// spans computes the horizon and how long events are held.
func (b *binder) spans() {
	p := b.p
	var longest, shift int64
	for i := range p.spec.features {
		f := &p.spec.features[i]
		for _, w := range f.windows {
			longest = max(longest, span(w.s))
		}
		shift = max(shift, p.shift(f))
	}
	p.horizon = longest + p.lateness
	p.retain = max(shift, p.delay+p.acceptFor)
	var err error
	if p.location, err = time.LoadLocation(p.spec.timezone); err != nil {
		b.faults.add(position{}, "timezone %s: %v", p.spec.timezone, err)
	}
}

func (p *Plan) shift(f *featureDef) int64 {
	if f.shiftByDelay {
		return p.delay
	}
	return f.shift
}

// span is a window as written, which Parse has checked.
func span(w string) int64 {
	d, err := datasets.ParseDuration(w)
	if err != nil {
		panic(err)
	}
	return d
}

// keep binds the columns that are handed on. Where the data has lines, trans_id alone does not name a row: line
// goes with it.
func (b *binder) keep() {
	line := b.p.in.Index(datasets.Line)
	if slices.ContainsFunc(b.p.spec.keep, func(k text) bool { return k.s == datasets.Line }) {
		line = -1
	}
	for _, k := range b.p.spec.keep {
		if b.p.hasLabel && k.s == b.p.spec.label.column.s && b.p.label < 0 {
			continue
		}
		if c, ok := b.find("keep", k); ok {
			b.p.kept = append(b.p.kept, c)
		}
		if k.s == datasets.TransID && line >= 0 {
			b.p.kept = append(b.p.kept, line)
		}
	}
}

func (b *binder) template(f *featureDef) {
	what := "feature " + f.name.s
	p := b.p
	switch f.kind {
	case Calendar:
		x := f.expand()[0]
		p.direct = append(p.direct, directFeature{dest: len(p.features), col: -1, weekend: f.of.s == "weekend", night: f.of.s == "night"})
		b.node(x, definition{Kind: f.kind, Of: f.of.s, Timezone: p.spec.timezone})
		return
	case Value:
		c, ok := b.find(what, f.of, datasets.Int64, datasets.Decimal, datasets.Float64)
		if !ok {
			return
		}
		fd := p.in.Fields[c]
		p.direct = append(p.direct, directFeature{dest: len(p.features), col: c, float: fd.Type == datasets.Float64, scale: math.Pow10(fd.Scale)})
		p.needed = append(p.needed, c)
		b.node(f.expand()[0], definition{Kind: f.kind, Of: fd.Name, OfType: fd.Type, Scale: fd.Scale})
		return
	}
	key, ok := b.key(what, f.key)
	val := none
	d := definition{Kind: f.kind, Key: f.key.s, Shift: p.shift(f), Current: f.includeCurrent, Horizon: p.horizon}
	switch f.kind {
	case Risk:
		d.Of, d.Delay, d.AcceptFor = p.spec.label.column.s, p.delay, p.acceptFor
	case Sum, Mean:
		c, found := b.find(what, f.of, datasets.Int64, datasets.Decimal)
		if !found {
			return
		}
		fd := p.in.Fields[c]
		d.Of, d.OfType, d.Scale = fd.Name, fd.Type, fd.Scale
		val = b.value(c)
	}
	if !ok {
		return
	}
	d.KeyText = p.keys[key].text
	o := output{kind: f.kind, scale: 1, current: f.includeCurrent}
	shift := d.Shift
	switch {
	case f.kind == Risk:
		val, shift = labelValue, p.delay
	case val >= 0:
		o.scale = p.vals[val].scale
	}
	for i, x := range f.expand() {
		d.Window = span(f.windows[i].s)
		g, w := b.window(key, shift, d.Window)
		o.dest = len(p.features)
		if f.kind != Count {
			o.col = g.column(val)
		}
		g.label = g.label || f.kind == Risk
		w.outs = append(w.outs, o)
		b.node(x, d)
	}
}

func (b *binder) key(what string, name text) (int, bool) {
	c, ok := b.find(what, name, datasets.Int64, datasets.String)
	if !ok {
		return 0, false
	}
	i := slices.IndexFunc(b.p.keys, func(k keyColumn) bool { return k.col == c })
	if i < 0 {
		i = len(b.p.keys)
		b.p.keys = append(b.p.keys, keyColumn{name.s, c, b.p.in.Fields[c].Type == datasets.String})
	}
	return i, true
}

func (b *binder) value(c int) int {
	i := slices.IndexFunc(b.p.vals, func(v valueColumn) bool { return v.col == c })
	if i < 0 {
		i = len(b.p.vals)
		b.p.vals = append(b.p.vals, valueColumn{b.p.in.Fields[c].Name, c, math.Pow10(b.p.in.Fields[c].Scale)})
		b.p.needed = append(b.p.needed, c)
	}
	return i
}

// window finds or makes the window of a group of that key and shift.
func (b *binder) window(key int, shift, span int64) (*group, *window) {
	var open *group
	for _, g := range b.p.groups {
		if g.key != key || g.shift != shift {
			continue
		}
		for i := range g.wins {
			if g.wins[i].span == span {
				return g, &g.wins[i]
			}
		}
		if len(g.wins) < maxWindows {
			open = g
		}
	}
	if open == nil {
		open = &group{key: key, shift: shift}
		b.p.groups = append(b.p.groups, open)
	}
	open.wins = append(open.wins, window{span: span})
	return open, &open.wins[len(open.wins)-1]
}

// column finds or makes the place of a value column among those that are summed.
func (g *group) column(val int) int {
	i := slices.Index(g.cols, val)
	if i < 0 {
		i = len(g.cols)
		g.cols = append(g.cols, val)
	}
	return i
}

// definition is what a node computes, for its fingerprint. Times in microseconds.
type definition struct {
	Kind      Kind
	Of        string        `json:",omitempty"`
	OfType    datasets.Type `json:",omitempty"`
	Scale     int           `json:",omitempty"`
	Key       string        `json:",omitempty"`
	KeyText   bool          `json:",omitempty"`
	Window    int64         `json:",omitempty"`
	Shift     int64         `json:",omitempty"`
	Current   bool          `json:",omitempty"`
	Delay     int64         `json:",omitempty"`
	AcceptFor int64         `json:",omitempty"`
	Horizon   int64         `json:",omitempty"`
	Timezone  string        `json:",omitempty"`
}

func (b *binder) node(x Feature, d definition) {
	def, err := json.Marshal(d)
	if err != nil {
		panic(fmt.Sprint("features: definition of a node: ", err))
	}
	b.p.features = append(b.p.features, x)
	b.p.nodes = append(b.p.nodes, Node{x.Name, digest(append([]byte("onmart feature 1\n"), def...))})
}
