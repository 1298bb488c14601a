// Package rules decides by expressions, before and after a model.
//
// What enters: a YAML file of rules and the lists beside it, once; then batches of transactions with their features
// and, after the model, their scores. What leaves: for each transaction the first rule of its phase that holds, or
// none. A rule's condition is an expression of the language of feature specs (package derive), over the columns of the
// events, the features of the model in service and, after the model, its score. It may not be assumed that a condition
// sees the label or anything else that is not known at the transaction: those columns are left out.
//
// A file:
//
//	lists:                       # of a column: one value a line, # begins a comment
//	  blocked_cards: {column: user_id, file: blocked-cards.txt}
//	before:                      # decided without the model
//	  - name: blocked-card
//	    when: blocked_cards
//	    then: block
//	    reason: the card is on the block list
//	after:
//	  - name: dear-and-suspect
//	    when: score > 0.5 and amount > 500
//	    then: review
//	    reason: a dear purchase that the model doubts
//
// Within a phase the first rule that holds decides; a transaction that was decided before the model is not scored, and
// no rule after the model sees it. Compiled rules evaluate a batch without allocating once they have seen its size.
package rules

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/features/derive"
)

// Decision is what a rule does with a transaction.
type Decision string

// The decisions.
const (
	Block  Decision = "block"
	Review Decision = "review"
	Allow  Decision = "allow"
)

var decisions = []string{string(Block), string(Review), string(Allow)}

// Names of the columns that a rule after the model sees beside the events' and the features.
const (
	Score = "score" // the model's probability
	Alert = "alert" // 1 where it is at least the model's threshold
)

// None stands for no rule.
const None = -1

const (
	maxFile = 1 << 20  // bytes of the YAML: some thousand rules
	maxList = 64 << 20 // bytes of a list: some million ids
)

// Rule is one rule, without its condition.
type Rule struct {
	Name   string
	Before bool // the model
	Then   Decision
	Reason string
	When   string
}

// Set is a file's rules bound to columns. It is for one goroutine; Bind gives one for another.
type Set struct {
	source        *source
	rules         []Rule
	before, after *phase
}

// Columns are what conditions may read.
type Columns struct {
	Events   *datasets.Schema
	Features []string // of the model, in the order of the values that Before and After are given
}

// source is a file as it was read.
type source struct {
	path  string
	text  []byte
	lists map[string][]string // by file: values
	stats []os.FileInfo
	def   definition
}

// Open reads a file and binds its rules to columns. The error is a *features.Faults with everything that is wrong in
// the file, each with its place; what cannot be read at all is another.
func Open(path string, c Columns) (*Set, error) {
	s, faults, err := read(path)
	if err != nil {
		return nil, err
	}
	return s.bind(c, faults)
}

// Bind is the same rules for other columns, as they were read.
func (s *Set) Bind(c Columns) (*Set, error) {
	return s.source.bind(c, &features.Faults{Name: s.source.path})
}

// Rules lists the rules: those before the model, then those after it, each in the order of the file.
func (s *Set) Rules() []Rule { return s.rules }

// Changed tells whether the file or one of its lists is another than the one that was read: by size, time of change
// and identity. A file that is gone counts as unchanged: it is being replaced.
func (s *Set) Changed() bool {
	for _, was := range s.source.stats {
		is, err := os.Stat(filepath.Join(filepath.Dir(s.source.path), was.Name()))
		if err != nil {
			continue
		}
		if !os.SameFile(is, was) || is.Size() != was.Size() || !is.ModTime().Equal(was.ModTime()) {
			return true
		}
	}
	return false
}

// read reads a file and its lists. All files are of the folder of the rules.
func read(path string) (*source, *features.Faults, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, nil, fmt.Errorf("rules %s: %w", path, err)
	}
	defer root.Close()
	s := &source{path: path, lists: map[string][]string{}}
	if s.text, err = s.file(root, filepath.Base(path), maxFile); err != nil {
		return nil, nil, fmt.Errorf("rules %s: %w", path, err)
	}
	r := newReader(path, s.text)
	s.def = r.definition()
	for i := range s.def.lists {
		l := &s.def.lists[i]
		if l.file.s == "" {
			continue
		}
		if !fs.ValidPath(l.file.s) || strings.Contains(l.file.s, "/") {
			r.fault(l.file.place, "list %s: %q is not the name of a file beside the rules", l.name, l.file.s)
			continue
		}
		if _, known := s.lists[l.file.s]; known {
			continue
		}
		b, err := s.file(root, l.file.s, maxList)
		if err != nil {
			r.fault(l.file.place, "list %s: %v", l.name, err)
			continue
		}
		s.lists[l.file.s] = values(b)
	}
	return s, &r.faults, nil
}

// file reads a file whole and notes which it was.
func (s *source) file(root *os.Root, name string, limit int64) ([]byte, error) {
	st, err := root.Stat(name) // first: opening a named pipe would wait
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err = f.Stat(); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than the %d bytes that are read", name, limit)
	}
	s.stats = append(s.stats, st)
	return b, nil
}

// values are the lines of a list, each once, in the order of the file.
func values(b []byte) []string {
	seen := map[string]bool{}
	var list []string
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" && !seen[line] {
			seen[line] = true
			list = append(list, line)
		}
	}
	return list
}

// bind compiles both phases.
func (s *source) bind(c Columns, faults *features.Faults) (*Set, error) {
	set := &Set{source: s}
	for _, before := range []bool{true, false} {
		p, rules := s.phase(c, before, faults)
		if before {
			set.before = p
		} else {
			set.after = p
		}
		set.rules = append(set.rules, rules...)
	}
	if len(faults.List) > 0 {
		// A fault of a list is found in both phases.
		slices.SortStableFunc(faults.List, compareFaults)
		faults.List = slices.Compact(faults.List)
		return nil, faults
	}
	return set, nil
}

// hidden are columns of an event that its transaction does not have when it is decided.
var hidden = []string{datasets.IsFraud, datasets.Event, datasets.KnownAt, datasets.EventID, datasets.Seq,
	features.Partition}

// phase compiles the rules of one phase.
func (s *source) phase(c Columns, before bool, faults *features.Faults) (*phase, []Rule) {
	p := &phase{}
	var fields []datasets.Field
	add := func(f datasets.Field, from origin) {
		fields = append(fields, f)
		p.from = append(p.from, from)
	}
	taken := map[string]bool{}
	for i, f := range c.Events.Fields {
		if !slices.Contains(hidden, f.Name) {
			f.Nullable = true // a label's row between transactions has none
			add(f, origin{event, i})
			taken[f.Name] = true
		}
	}
	for i, name := range c.Features {
		if !taken[name] {
			add(datasets.Field{Name: name, Type: datasets.Float64}, origin{feature, i})
			taken[name] = true
		}
	}
	if !before {
		for _, name := range []string{Score, Alert} {
			if taken[name] {
				faults.List = append(faults.List, features.Fault{Text: fmt.Sprintf("the events or features have a column "+
					"%s, which rules take for the model's: give it another name in the mapping", name)})
			}
		}
		add(datasets.Field{Name: Score, Type: datasets.Float64}, origin{score, 0})
		add(datasets.Field{Name: Alert, Type: datasets.Int64}, origin{alert, 0})
	}
	var defs []derive.Def
	for i := range s.def.lists {
		defs = append(defs, s.listDef(&s.def.lists[i], fields, faults))
	}
	first := len(defs)
	p.offset = 0
	list := s.def.after
	if before {
		list = s.def.before
	} else {
		p.offset = len(s.def.before)
	}
	var rules []Rule
	for _, r := range list {
		defs = append(defs, derive.Def{Name: "rule " + r.name.s, Kind: "condition", Expr: r.when.s, Scale: -1})
		rules = append(rules, Rule{r.name.s, before, Decision(r.then.s), r.reason.s, r.when.s})
	}
	if len(list) == 0 {
		return nil, nil
	}
	prog, wrong := derive.Compile(defs, fields, derive.Options{Time: datasets.TransDatetime})
	for _, f := range wrong {
		s.fault(faults, f, first, list, before)
	}
	if len(wrong) > 0 {
		return nil, rules
	}
	p.program(prog, fields, first, len(list))
	return p, rules
}

// listDef is the column that says where in a list a value stands, 0 where it does not.
func (s *source) listDef(l *listDef, fields []datasets.Field, faults *features.Faults) derive.Def {
	known := func(f datasets.Field) bool { return f.Name == l.column.s }
	if l.column.s != "" && !slices.ContainsFunc(fields, known) {
		var names []string
		for _, f := range fields {
			names = append(names, f.Name)
		}
		text := fmt.Sprintf("list %s: there is no column %s", l.name, l.column.s)
		if near := datasets.Nearest(l.column.s, names); near != "" {
			text += fmt.Sprintf("; did you mean %s?", near)
		}
		faults.List = append(faults.List, l.column.faultAt(0, text))
	}
	d := derive.Def{Name: l.name, Kind: "vocabulary", Of: l.column.s, Values: s.lists[l.file.s], Scale: -1}
	if len(d.Values) == 0 || l.column.s == "" || !slices.ContainsFunc(fields, known) {
		return derive.Def{Name: l.name, Kind: "condition", Expr: "false", Scale: -1} // nothing is in it
	}
	return d
}

// fault puts a fault of a definition where it stands in the file.
func (s *source) fault(faults *features.Faults, f derive.Fault, first int, list []ruleDef, before bool) {
	if f.Def < first {
		l := &s.def.lists[f.Def]
		at := l.file
		if f.Field == "of" {
			at = l.column
		}
		faults.List = append(faults.List, at.faultAt(0, fmt.Sprintf("list %s: %s", l.name, f.Text)))
		return
	}
	r := &list[f.Def-first]
	what := "rule " + r.name.s
	switch {
	case f.Field == "name":
		return // the reader said that it is there twice
	case before && (strings.HasPrefix(f.Text, "there is no column "+Score) ||
		strings.HasPrefix(f.Text, "there is no column "+Alert)):
		f.Text = "the score is not known before the model: move the rule to after"
	case strings.HasPrefix(f.Text, "there is no column "+datasets.IsFraud):
		f.Text = datasets.IsFraud + " is the label, which is not known when a transaction is decided"
	}
	faults.List = append(faults.List, r.when.faultAt(max(f.Offset, 0), fmt.Sprintf("%s: when: %s", what, f.Text)))
}

// kinds of where a column of a condition comes from.
const (
	event = iota
	feature
	score
	alert
)

type origin struct{ kind, at int }

// phase is the compiled rules of one phase.
type phase struct {
	prog   *derive.Program
	from   []origin // by column of the program's input
	reads  []int    // columns that it reads
	holds  []int    // by rule: column of its condition
	offset int      // number of its first rule in Set.Rules
	cols   []datasets.Column
	copies []datasets.Column // of events, where their rows are not those of the values
	alerts []int64
}

func (p *phase) program(prog *derive.Program, fields []datasets.Field, first, rules int) {
	p.prog = prog
	names := map[string]bool{}
	for _, n := range prog.Inputs() {
		names[n] = true
	}
	for i, f := range fields {
		if names[f.Name] {
			p.reads = append(p.reads, i)
		}
	}
	for r := range rules {
		from, _ := prog.Columns(first + r)
		p.holds = append(p.holds, len(fields)+from)
	}
	p.cols, p.copies = make([]datasets.Column, len(fields)), make([]datasets.Column, len(fields))
}

// Batch is transactions with their features.
type Batch struct {
	Events *datasets.Batch // of the schema that the rules were bound to
	Input  []int32         // by transaction: its row of Events; nil: row i is transaction i
	Values [][]float64     // by feature, then by transaction
	N      int             // transactions
	// Scores and Threshold are what After adds. A transaction decided before has any score.
	Scores    []float64
	Threshold float64
}

// Before writes to out, by transaction, the number in Rules of the first rule before the model that holds, or None.
// It tells whether there was any.
func (s *Set) Before(b *Batch, out []int32) bool {
	for i := range out[:b.N] {
		out[i] = None
	}
	return s.before.decide(b, out)
}

// After writes to out, where it is None, the first rule after the model that holds.
func (s *Set) After(b *Batch, out []int32) bool { return s.after.decide(b, out) }

// Scoring tells whether there are rules after the model.
func (s *Set) Scoring() bool { return s.after != nil }

func (p *phase) decide(b *Batch, out []int32) (any bool) {
	if p == nil || b.N == 0 {
		return false
	}
	for _, c := range p.reads {
		p.column(b, c)
	}
	cols := p.prog.Run(p.cols, b.N)
	for r, c := range p.holds {
		for i, yes := range cols[c].Ints[:b.N] {
			if yes != 0 && out[i] == None && !cols[c].IsNull(i) {
				out[i] = int32(p.offset + r)
				any = true
			}
		}
	}
	return any
}

// column points column c of the program's input at what it reads.
func (p *phase) column(b *Batch, c int) {
	to := &p.cols[c]
	switch o := p.from[c]; o.kind {
	case feature:
		*to = datasets.Column{Floats: b.Values[o.at][:b.N]}
	case score:
		*to = datasets.Column{Floats: b.Scores[:b.N]}
	case alert:
		p.alerts = slices.Grow(p.alerts[:0], b.N)[:b.N]
		for i, s := range b.Scores[:b.N] {
			p.alerts[i] = 0
			if s >= b.Threshold {
				p.alerts[i] = 1
			}
		}
		*to = datasets.Column{Ints: p.alerts}
	default:
		from := &b.Events.Columns[o.at]
		if b.Input == nil || b.N == b.Events.N {
			*to = *from
			return
		}
		gather(&p.copies[c], from, b.Input[:b.N])
		*to = p.copies[c]
	}
}

// gather copies the rows that input names, into memory that is used again.
func gather(to, from *datasets.Column, input []int32) {
	n := len(input)
	switch {
	case from.Strings != nil:
		to.Strings = slices.Grow(to.Strings[:0], n)[:n]
		for i, r := range input {
			to.Strings[i] = from.Strings[r]
		}
	case from.Floats != nil:
		to.Floats = slices.Grow(to.Floats[:0], n)[:n]
		for i, r := range input {
			to.Floats[i] = from.Floats[r]
		}
	default:
		to.Ints = slices.Grow(to.Ints[:0], n)[:n]
		for i, r := range input {
			to.Ints[i] = from.Ints[r]
		}
	}
	if from.Null == nil {
		to.Null = nil
		return
	}
	to.Null = slices.Grow(to.Null[:0], n)[:n]
	for i, r := range input {
		to.Null[i] = from.Null[r]
	}
}

// Files names the rules' file and its lists.
func (s *Set) Files() []string {
	return append([]string{s.source.path}, slices.Sorted(maps.Keys(s.source.lists))...)
}
