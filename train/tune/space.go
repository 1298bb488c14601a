// Package tune searches settings: at random in ranges, with successive halving.
//
// What enters: a Space of ranges by name (YAML), how many trials, a seed, and a function that trains one trial for a
// share of its epochs and says how good it is on validation rows. What leaves: the trials, the best first. It knows no
// task and no network. It may not be assumed that a search ran in one process, or one trial after the other: what is
// drawn is a function of seed, trial and name, and what is known of each trial is in a journal.
package tune

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/onmart/onmart/internal/yamlread"
	"github.com/onmart/onmart/train/program"
)

// Range is what one setting is drawn from: List, or a number between From and To, both of which it may be.
type Range struct {
	Name     string
	List     []string
	From, To float64
	Log      bool // uniform in the logarithm
	Whole    bool // whole numbers only
}

// Space is ranges by name, in its order.
type Space []Range

// Choice is a setting with its value, as --set takes it.
type Choice struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Parse reads a space: a YAML mapping from a setting's name to a list of values or to {from: A, to: B}, with log: true
// for a range that is uniform in the logarithm. It reports every fault with its line; name is that of the file.
func Parse(name string, src []byte) (Space, error) {
	tree, fault := yamlread.Parse(src)
	if fault != nil {
		return nil, fault.In(name)
	}
	r := reader{name: name}
	for _, doc := range tree.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			r.space(doc.Body)
		}
	}
	if len(r.faults) == 0 && len(r.found) == 0 {
		r.faults = append(r.faults, fmt.Errorf("%s: it names no setting; want lines such as learning_rate: {from: 0.0003, to: 0.01, log: true}", name))
	}
	return r.found.sorted(), errors.Join(r.faults...)
}

// FromNode reads a space that stands in a larger YAML file.
func FromNode(name string, n ast.Node) (Space, error) {
	r := reader{name: name}
	r.space(n)
	return r.found.sorted(), errors.Join(r.faults...)
}

// Must is a space that the program brings along.
func Must(text string) Space {
	s, err := Parse("built-in space", []byte(text))
	if err != nil {
		panic(err)
	}
	return s
}

func (s Space) sorted() Space {
	slices.SortFunc(s, func(a, b Range) int { return strings.Compare(a.Name, b.Name) })
	return s
}

type reader struct {
	name   string
	found  Space
	faults []error
}

func (r *reader) fault(n ast.Node, format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf("%s:%d: %s", r.name, n.GetToken().Position.Line, fmt.Sprintf(format, args...)))
}

func entries(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func (r *reader) space(n ast.Node) {
	es, ok := entries(n)
	if !ok {
		r.fault(n, "want one setting a line, such as dropout: {from: 0, to: 0.5}")
		return
	}
	for _, e := range es {
		name := e.Key.GetToken().Value
		if slices.ContainsFunc(r.found, func(x Range) bool { return x.Name == name }) {
			r.fault(e.Key, "%s is there twice", name)
			continue
		}
		if x, ok := r.rangeOf(name, e.Value); ok {
			r.found = append(r.found, x)
		}
	}
}

// rangeOf reads the right side of a setting.
func (r *reader) rangeOf(name string, n ast.Node) (Range, bool) {
	x := Range{Name: name}
	if list, ok := n.(*ast.SequenceNode); ok {
		for _, item := range list.Values {
			v, ok := scalar(item)
			if !ok {
				r.fault(item, "%s: want plain values in the list; one with commas, such as \"64,64\", in quotes", name)
				return x, false
			}
			x.List = append(x.List, v)
		}
		if len(x.List) == 0 {
			r.fault(n, "%s: the list is empty", name)
		}
		return x, len(x.List) > 0
	}
	es, ok := entries(n)
	if !ok {
		r.fault(n, "%s: want a list of values, or {from: A, to: B} with log: true where that fits", name)
		return x, false
	}
	before, seen := len(r.faults), map[string]bool{}
	for _, e := range es {
		key := e.Key.GetToken().Value
		v, isScalar := scalar(e.Value)
		seen[key] = true
		var err error
		switch {
		case !isScalar:
			err = errors.New("want a plain value")
		case key == "from":
			x.From, err = number(v)
		case key == "to":
			x.To, err = number(v)
		case key == "log":
			if x.Log, err = strconv.ParseBool(v); err != nil {
				err = errors.New("want true or false")
			}
		default:
			err = errors.New("is not known: there are from, to and log")
		}
		if err != nil {
			r.fault(e.Key, "%s: %s: %v", name, key, err)
		}
	}
	if len(r.faults) == before {
		switch {
		case !seen["from"] || !seen["to"]:
			r.fault(n, "%s: a range has from and to", name)
		case !(x.From < x.To):
			r.fault(n, "%s: from %g is not below to %g", name, x.From, x.To)
		case x.Log && !(x.From > 0):
			r.fault(n, "%s: log wants from above 0, it is %g", name, x.From)
		}
	}
	return x, len(r.faults) == before
}

func number(v string) (float64, error) {
	x, err := strconv.ParseFloat(strings.ReplaceAll(v, "_", ""), 64)
	if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
		return 0, fmt.Errorf("%q is no number", v)
	}
	return x, nil
}

func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// Check tries every value of a list and both ends of a range with put, which says whether the task takes such a setting, and
// finds out which settings are whole numbers: those that refuse others. It reports every fault.
func (s Space) Check(put func(c Choice) error) (Space, error) {
	out := slices.Clone(s)
	var faults []error
	for i := range out {
		x := &out[i]
		if x.List != nil {
			for _, v := range x.List {
				if err := put(Choice{x.Name, v}); err != nil {
					faults = append(faults, err)
				}
			}
			continue
		}
		var bad bool
		for _, v := range []float64{x.From, x.To} {
			if err := put(Choice{x.Name, format(v)}); err != nil {
				faults, bad = append(faults, err), true
			}
		}
		whole := x.From == math.Trunc(x.From) && x.To == math.Trunc(x.To)
		x.Whole = !bad && whole && put(Choice{x.Name, format(x.From + .5)}) != nil
	}
	return out, errors.Join(faults...)
}

// digits is the precision of a drawn number: what a person would type.
const digits = 4

func format(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// siteTune separates the numbers of a search from those of programs and tasks.
const siteTune = 0x74756e65

// Draw is the settings of a trial: each a function of seed, trial and the setting's name, whatever else is in the space.
func (s Space) Draw(seed uint64, trial int) []Choice {
	var out []Choice
	for i := range s {
		out = append(out, Choice{s[i].Name, s[i].at(s[i].uniform(seed, trial))})
	}
	return out
}

// uniform is in [0, 1).
func (x *Range) uniform(seed uint64, trial int) float64 {
	h := fnv.New32a()
	h.Write([]byte(x.Name))
	r := program.Philox([2]uint32{uint32(seed), uint32(seed >> 32)}, [4]uint32{uint32(trial), h.Sum32(), 0, siteTune})
	return float64(uint64(r[0])<<21|uint64(r[1])>>11) * 0x1p-53
}

// at is the value at a place of the range.
func (x *Range) at(u float64) string {
	if x.List != nil {
		return x.List[int(u*float64(len(x.List)))]
	}
	from, to := x.From, x.To
	if x.Whole { // each number as often as the others
		from, to = from-.5, to+.5
		if x.Log {
			from = max(from, .5)
		}
	}
	v := from + u*(to-from)
	if x.Log {
		v = from * math.Exp(u*math.Log(to/from))
	}
	if x.Whole {
		return format(min(max(math.Round(v), x.From), x.To))
	}
	short, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', digits, 64), 64)
	if err != nil {
		short = v
	}
	return format(min(max(short, x.From), x.To))
}

// String is the space as Parse reads it.
func (s Space) String() string {
	var b strings.Builder
	for _, x := range s {
		switch {
		case x.List != nil:
			quoted := make([]string, len(x.List))
			for i, v := range x.List {
				quoted[i] = v
				if strings.ContainsAny(v, ",: #{}[]\"'") {
					quoted[i] = strconv.Quote(v)
				}
			}
			fmt.Fprintf(&b, "%s: [%s]\n", x.Name, strings.Join(quoted, ", "))
		case x.Log:
			fmt.Fprintf(&b, "%s: {from: %s, to: %s, log: true}\n", x.Name, format(x.From), format(x.To))
		default:
			fmt.Fprintf(&b, "%s: {from: %s, to: %s}\n", x.Name, format(x.From), format(x.To))
		}
	}
	return b.String()
}
