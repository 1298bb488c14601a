package features

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // the calendar must not depend on what the machine has installed

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/onmart/onmart/datasets"
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

// The fields of a spec, of its label and of a feature; spec.schema.json has the same.
var (
	specFields = []string{"name", "timezone", "label", "lateness", "where", "join", "keep", "features", "panel",
		"interactions"}
	labelFields   = []string{"column", "delay", "accept_for"}
	featureFields = []string{"name", "kind", "of", "key", "windows", "shift", "include_current", "log", "unit", "words"}
)

// Parse reads a spec; name is the file's and stands in errors. The error is a *Faults with everything that
// is wrong; columns are checked by Plan, which knows the data.
func Parse(name string, src []byte) (*Spec, error) {
	r := &reader{faults: Faults{Name: name}}
	file, err := parser.ParseBytes(src, 0)
	if err != nil {
		var y yaml.Error
		if errors.As(err, &y) && y.GetToken() != nil && y.GetToken().Position != nil {
			p := y.GetToken().Position
			r.faults.add(position{p.Line, p.Column}, "not YAML: %s", y.GetMessage())
		} else {
			r.faults.add(position{}, "not YAML: %v", err)
		}
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
type reader struct{ faults Faults }

func place(n ast.Node) position {
	if n == nil {
		return position{}
	}
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return place(m.Values[0].Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return position{t.Position.Line, t.Position.Column}
	}
	return position{}
}

// fields reads a mapping and calls f for each known field. It returns the fields that are there.
func (r *reader) fields(n ast.Node, what string, known []string, f func(key string, v ast.Node)) map[string]bool {
	m, ok := n.(ast.MapNode)
	if !ok {
		r.faults.add(place(n), "%s: want a mapping with the fields %s", what, strings.Join(known, ", "))
		return nil
	}
	seen := map[string]bool{}
	for it := m.MapRange(); it.Next(); {
		key := it.Key().String()
		if !slices.Contains(known, key) {
			r.faults.add(place(it.Key()), "%s: unknown field %q%s", what, key, suggest(key, known))
			continue
		}
		if seen[key] {
			r.faults.add(place(it.Key()), "%s: field %s is given twice", what, key)
			continue
		}
		seen[key] = true
		f(key, it.Value())
	}
	return seen
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

func (r *reader) flag(n ast.Node, what string) bool {
	if v, ok := n.(*ast.BoolNode); ok {
		return v.Value
	}
	r.faults.add(place(n), "%s: want true or false, found %s", what, kindOf(n))
	return false
}

// maxSpan bounds durations, so that sums of a few of them and an event time stay far from the ends of int64.
const maxSpan = 36500 * datasets.Day

func (r *reader) duration(t text, what string) int64 {
	if t.s == "" {
		return 0 // already a fault
	}
	d, err := datasets.ParseDuration(t.s)
	if err != nil {
		r.faults.add(t.pos, "%s: %v", what, err)
	} else if d > maxSpan {
		r.faults.add(t.pos, "%s: %s is longer than %s", what, t.s, datasets.FormatDuration(maxSpan))
		d = 0
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
	s := &Spec{timezone: "UTC", lateness: defaultLateness}
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
			s.lateness = r.duration(r.text(v, "lateness"), "lateness")
		case "keep":
			s.keep = r.texts(v, "keep")
		case "features":
			s.features = r.features(v)
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
	r.check(s)
	return s
}

func (r *reader) label(n ast.Node) *labelDef {
	l := &labelDef{acceptFor: defaultAcceptFor}
	seen := r.fields(n, "label", labelFields, func(key string, v ast.Node) {
		switch key {
		case "column":
			l.column = r.text(v, "label column")
		case "delay":
			l.delay = r.duration(r.text(v, "label delay"), "label delay")
		case "accept_for":
			l.acceptFor = r.duration(r.text(v, "label accept_for"), "label accept_for")
		}
	})
	for _, f := range []string{"column", "delay"} {
		if seen != nil && !seen[f] {
			r.faults.add(place(n), "label: the field %s is missing", f)
		}
	}
	return l
}

func (r *reader) features(n ast.Node) []featureDef {
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		r.faults.add(place(n), "features: want a list with at least one feature")
		return nil
	}
	var list []featureDef
	for _, v := range seq.Values {
		list = append(list, r.feature(v))
	}
	return list
}

func (r *reader) feature(n ast.Node) featureDef {
	f := featureDef{name: text{pos: place(n)}}
	var shift, kind text
	var current position
	seen := r.fields(n, "feature", featureFields, func(key string, v ast.Node) {
		switch key {
		case "name":
			f.name = r.text(v, "feature name")
		case "kind":
			kind = r.text(v, "kind")
			f.kind = Kind(kind.s)
		case "of":
			f.of = r.text(v, "of")
		case "key":
			f.key = r.text(v, "key")
		case "windows":
			f.windows = r.texts(v, "windows")
		case "shift":
			shift = r.text(v, "shift")
		case "include_current":
			f.includeCurrent, current = r.flag(v, key), place(v)
		case "log":
			f.log = r.flag(v, key)
		case "unit":
			f.unit = r.text(v, key).s
		case "words":
			f.words = r.text(v, key).s
		}
	})
	if seen == nil {
		return f
	}
	what := "feature " + f.name.s
	if !seen["name"] {
		r.faults.add(place(n), "feature: the field name is missing")
	}
	if !seen["kind"] {
		r.faults.add(place(n), "%s: the field kind is missing: one of %s", what, strings.Join(kinds, ", "))
		return f
	}
	if !slices.Contains(kinds, kind.s) {
		r.faults.add(kind.pos, "%s: unknown kind %q%s; there are %s", what, kind.s, suggest(kind.s, kinds), strings.Join(kinds, ", "))
		return f
	}
	for _, name := range featureFields {
		switch need := wants(f.kind, name); {
		case need == must && !seen[name]:
			r.faults.add(place(n), "%s: a %s needs the field %s", what, f.kind, name)
		case need == mustNot && seen[name]:
			r.faults.add(place(n), "%s: a %s has no field %s", what, f.kind, name)
		}
	}
	if f.kind == Calendar && f.of.s != "" && !slices.Contains(calendars, f.of.s) {
		r.faults.add(f.of.pos, "%s: of: unknown calendar flag %q%s; there are %s", what, f.of.s, suggest(f.of.s, calendars), strings.Join(calendars, ", "))
	}
	if seen["windows"] && len(f.windows) == 0 && wants(f.kind, "windows") == must {
		r.faults.add(place(n), "%s: windows: want at least one, such as [1d, 7d]", what)
	}
	for _, w := range f.windows {
		if d := r.duration(w, what+": windows"); d == 0 && w.s != "" {
			r.faults.add(w.pos, "%s: windows: %s: want a window longer than nothing", what, w.s)
		}
	}
	if shift.s == "delay" {
		f.shiftByDelay = true
	} else if seen["shift"] {
		f.shift = r.duration(shift, what+": shift")
	}
	if f.includeCurrent && (f.shiftByDelay || f.shift > 0) {
		r.faults.add(current, "%s: include_current does not go with a shift: the current event is outside a shifted window", what)
	}
	return f
}

type need uint8

const (
	may need = iota
	must
	mustNot
)

// wants tells which fields a kind of feature has.
func wants(k Kind, field string) need {
	windowed := k == Count || k == Sum || k == Mean || k == Risk
	switch field {
	case "of":
		if k == Count || k == Risk {
			return mustNot
		}
		return must
	case "key", "windows":
		if windowed {
			return must
		}
		return mustNot
	case "shift", "include_current":
		if !windowed || k == Risk {
			return mustNot
		}
	}
	return may
}

// check is what concerns the spec as a whole: names used twice, labels needed and not declared.
func (r *reader) check(s *Spec) {
	used := map[string]bool{}
	name := func(p position, n string) bool {
		twice := n != "" && used[n]
		if twice {
			r.faults.add(p, "the column %s is there twice: names of kept columns and features must differ (put {w} or {n} for the window into a feature's name)", n)
		}
		used[n] = true
		return twice
	}
	for _, k := range s.keep {
		name(k.pos, k.s)
	}
	for i := range s.features {
		f := &s.features[i]
		for _, x := range f.expand() {
			if name(f.name.pos, x.Name) {
				break
			}
		}
		if s.label == nil && f.kind == Risk {
			r.faults.add(f.name.pos, "feature %s: a risk needs the spec's label (column and delay)", f.name.s)
		}
		if s.label == nil && f.shiftByDelay {
			r.faults.add(f.name.pos, "feature %s: shift: delay needs the spec's label (column and delay)", f.name.s)
		}
	}
}

// expand gives the template's features, one for each window.
func (f *featureDef) expand() []Feature {
	unit := f.unit
	if unit == "" {
		switch f.kind {
		case Count:
			unit = "events"
		case Risk:
			unit = "share"
		case Calendar:
			unit = "flag"
		default:
			unit = f.of.s
		}
	}
	base := Feature{Name: f.name.s, Kind: f.kind, Log: f.log, Words: f.words, Unit: unit}
	if len(f.windows) == 0 {
		return []Feature{base}
	}
	var list []Feature
	for _, w := range f.windows {
		x := base
		number := strings.TrimRight(w.s, "smhdw")
		x.Name = strings.NewReplacer("{w}", w.s, "{n}", number).Replace(f.name.s)
		x.Words = strings.ReplaceAll(f.words, "{window}", humanSpan(w.s, number))
		list = append(list, x)
	}
	return list
}

// humanSpan writes a duration as in a sentence: 7d is "7 days", 24h "24 hours".
func humanSpan(w, number string) string {
	if w == "" {
		return w
	}
	unit := map[byte]string{'s': "second", 'm': "minute", 'h': "hour", 'd': "day", 'w': "week"}[w[len(w)-1]]
	if number == "1" {
		return "1 " + unit
	}
	return number + " " + unit + "s"
}

// suggest is ` (did you mean "x"?)` for the nearest of the known names, or nothing if none is near.
func suggest(name string, known []string) string {
	if near := datasets.Nearest(name, known); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}
