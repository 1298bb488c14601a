package features

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // the calendar must not depend on what the machine has installed

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/yamlread"
)

// position is a place in the YAML, from 1; the zero position is unknown.
type position struct{ line, column int }

// Fault is one thing wrong with a spec.
type Fault struct {
	Line, Column int // from 1; 0 where there is no place
	Text         string
}

// Faults are all things wrong with a spec, in the order of the file.
type Faults struct {
	Name string
	List []Fault
}

func (f *Faults) Error() string {
	var b strings.Builder
	for i, x := range f.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.Name)
		if x.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", x.Line, x.Column)
		}
		b.WriteString(": ")
		b.WriteString(x.Text)
	}
	return b.String()
}

func (f *Faults) add(p position, format string, a ...any) {
	f.List = append(f.List, Fault{p.line, p.column, fmt.Sprintf(format, a...)})
}

func (f *Faults) err() error {
	if len(f.List) == 0 {
		return nil
	}
	slices.SortStableFunc(f.List, func(a, b Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return f
}

// The fields of a spec and of its parts; spec.schema.json has the same.
var (
	specFields = []string{"name", "timezone", "label", "lateness", "late", "duplicates", "future", "holidays", "where",
		"join", "keep", "features", "panel", "interactions"}
	labelFields      = []string{"column", "delay", "accept_for"}
	lateFields       = []string{"policy"}
	duplicatesFields = []string{"within"}
	futureFields     = []string{"beyond"}
	latePolicies     = []string{"keep", "skip"}
)

// Parse reads a spec; name is the file's and stands in errors. The error is a *Faults with everything that
// is wrong; columns are checked by Plan, which knows the data.
func Parse(name string, src []byte) (*Spec, error) {
	r := &reader{faults: Faults{Name: name}, lines: strings.Split(string(src), "\n")}
	file, fault := yamlread.Parse(src)
	if fault != nil {
		r.faults.add(at(fault.Place), "not YAML: %s", fault.Text)
		return nil, r.faults.err()
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		r.faults.add(position{}, "want one YAML document with the fields %s", strings.Join(specFields, ", "))
		return nil, r.faults.err()
	}
	s := r.spec(file.Docs[0].Body)
	if err := r.faults.err(); err != nil {
		return nil, err
	}
	s.source, s.file = slices.Clone(src), name
	return s, nil
}

// reader turns YAML nodes into values and collects what is wrong.
type reader struct {
	faults Faults
	lines  []string // of the source
}

func at(p yamlread.Place) position { return position{p.Line, p.Column} }

func place(n ast.Node) position { return at(yamlread.PlaceOf(n)) }

// fields reads a mapping and calls f for each known field. It returns the fields that are there.
func (r *reader) fields(n ast.Node, what string, known []string, f func(key string, v ast.Node)) map[string]bool {
	return yamlread.Fields(n, what, known, suggest, func(p yamlread.Place, format string, a ...any) {
		r.faults.add(at(p), format, a...)
	}, f)
}

func (r *reader) text(n ast.Node, what string) text {
	switch v := n.(type) {
	case *ast.StringNode:
		return text{v.Value, place(n)}
	case *ast.LiteralNode:
		return text{v.Value.Value, place(n)}
	}
	r.faults.add(place(n), "%s: want text, found %s", what, kindOf(n))
	return text{pos: place(n)}
}

func (r *reader) texts(n ast.Node, what string) []text {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		r.faults.add(place(n), "%s: want a list, such as [a, b], found %s", what, kindOf(n))
		return nil
	}
	var list []text
	for _, v := range seq.Values {
		list = append(list, r.text(v, what))
	}
	return list
}

// prose is text whose place is that of its first character, behind a quote or below the mark of a block, so that a
// fault inside it can be shown where it stands.
func (r *reader) prose(n ast.Node, what string) text {
	t := r.text(n, what)
	switch v := n.(type) {
	case *ast.StringNode:
		if k := n.GetToken().Type; k == token.DoubleQuoteType || k == token.SingleQuoteType {
			t.pos.column++
		}
	case *ast.LiteralNode:
		t.s = strings.TrimRight(t.s, " \n")
		for l := v.Start.Position.Line; l < len(r.lines); l++ {
			if body := strings.TrimLeft(r.lines[l], " "); strings.TrimSpace(body) != "" {
				t.pos = position{v.Start.Position.Line + 1, len(r.lines[l]) - len(body) + 1}
				break
			}
		}
	}
	return t
}

// at is the place of the character that stands at a byte of a prose text. In a text that YAML folds into one line it is
// counted on from the first character.
func (t text) at(offset int) position {
	p := t.pos
	for i, c := range t.s {
		if i >= offset {
			break
		}
		if p.column++; c == '\n' {
			p = position{p.line + 1, t.pos.column}
		}
	}
	return p
}

func (r *reader) flag(n ast.Node, what string) bool {
	if v, ok := n.(*ast.BoolNode); ok {
		return v.Value
	}
	r.faults.add(place(n), "%s: want true or false, found %s", what, kindOf(n))
	return false
}

// maxSpan bounds durations, so that sums of a few of them and an event time stay far from the ends of int64.
const maxSpan = 36500 * datasets.Day

// duration reads a duration in microseconds, and what it looks like.
func (r *reader) duration(n ast.Node, what string) (int64, text) {
	switch n.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		t := r.text(n, what)
		return r.span(t, what), t
	}
	r.faults.add(place(n), "%s: want a duration, such as 7d, found %s", what, kindOf(n))
	return 0, text{pos: place(n)}
}

func (r *reader) span(t text, what string) int64 {
	d, err := datasets.ParseDuration(t.s)
	switch {
	case strings.HasPrefix(t.s, "-"):
		r.faults.add(t.pos, "%s: %s is negative: it would read what comes after the transaction; want 0s or more", what, t.s)
		return 0
	case err != nil:
		r.faults.add(t.pos, "%s: %v", what, err)
	case d > maxSpan:
		r.faults.add(t.pos, "%s: %s is longer than %s", what, t.s, datasets.FormatDuration(maxSpan))
		return 0
	}
	return d
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case ast.MapNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode:
		return n.String()
	case *ast.NullNode:
		return "nothing"
	case *ast.StringNode:
		return fmt.Sprintf("%q", n.GetToken().Value)
	}
	return strings.ToLower(n.Type().String())
}

func (r *reader) spec(n ast.Node) *Spec {
	s := &Spec{timezone: "UTC", lateness: defaultLateness, future: defaultFuture}
	var features ast.Node
	seen := r.fields(n, "spec", specFields, func(key string, v ast.Node) {
		switch key {
		case "name":
			s.name = r.text(v, "name").s
		case "timezone":
			z := r.text(v, "timezone")
			s.timezone = z.s
			if _, err := time.LoadLocation(z.s); err != nil || z.s == "Local" {
				r.faults.add(z.pos, "timezone: %q is not a zone of the IANA list, such as UTC or Europe/Paris", z.s)
			}
		case "label":
			s.label = r.label(v)
		case "lateness":
			s.lateness, _ = r.duration(v, "lateness")
		case "late":
			r.policy(v, "late", lateFields, func(v ast.Node, what string) {
				s.late.skip = r.word(v, what, latePolicies) == "skip"
			})
		case "duplicates":
			r.policy(v, "duplicates", duplicatesFields, func(v ast.Node, what string) {
				if s.duplicates, _ = r.duration(v, what); s.duplicates == 0 {
					r.faults.add(place(v), "%s: want a time longer than nothing, such as 7d", what)
				}
			})
		case "future":
			r.policy(v, "future", futureFields, func(v ast.Node, what string) { s.future, _ = r.duration(v, what) })
		case "holidays":
			s.holidays = r.holidays(v)
		case "keep":
			s.keep = r.texts(v, "keep")
		case "features":
			features = v
		case "where":
			s.where = r.where(v)
		case "join":
			s.joins = r.joins(v)
		case "panel":
			s.panel = r.panel(v)
		case "interactions":
			s.inter = r.interactions(v)
		}
	})
	if seen == nil {
		return s
	}
	if !seen["name"] {
		r.faults.add(place(n), "spec: the field name is missing")
	}
	if !seen["features"] && !seen["panel"] && !seen["interactions"] {
		r.faults.add(place(n), "spec: the field features is missing")
		return s
	}
	r.checkShape(s, seen, place(n))
	if features != nil {
		s.features = r.features(features)
		r.check(s)
	}
	return s
}

// policy reads a mapping with one field, which it needs.
func (r *reader) policy(n ast.Node, what string, known []string, f func(v ast.Node, what string)) {
	seen := r.fields(n, what, known, func(key string, v ast.Node) { f(v, what+": "+key) })
	if seen != nil && !seen[known[0]] {
		r.faults.add(place(n), "%s: the field %s is missing", what, known[0])
	}
}

// holidays are dates, of one year or of every year.
func (r *reader) holidays(n ast.Node) []text {
	list := r.texts(n, "holidays")
	for i, d := range list {
		_, err := time.Parse(time.DateOnly, d.s)
		_, yearly := time.Parse(time.DateOnly, "2000-"+d.s)
		if d.s != "" && err != nil && yearly != nil {
			r.faults.add(d.pos, "holidays: %q is not a date, such as 2026-04-06, or 12-25 for every year", d.s)
		}
		if slices.ContainsFunc(list[:i], func(t text) bool { return t.s == d.s }) {
			r.faults.add(d.pos, "holidays: %s is there twice", d.s)
		}
	}
	return list
}

func (r *reader) label(n ast.Node) *labelDef {
	l := &labelDef{acceptFor: defaultAcceptFor}
	seen := r.fields(n, "label", labelFields, func(key string, v ast.Node) {
		switch key {
		case "column":
			l.column = r.text(v, "label column")
		case "delay":
			l.delay, l.delayAt = r.duration(v, "label delay")
		case "accept_for":
			l.acceptFor, _ = r.duration(v, "label accept_for")
		}
	})
	for _, f := range []string{"column", "delay"} {
		if seen != nil && !seen[f] {
			r.faults.add(place(n), "label: the field %s is missing", f)
		}
	}
	return l
}

// suggest is ` (did you mean "x"?)` for the nearest of the known names, or nothing if none is near.
func suggest(name string, known []string) string {
	if near := datasets.Nearest(name, known); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}
