package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/yamlread"
)

// definition is a file's content.
type definition struct {
	lists         []listDef
	before, after []ruleDef
}

type listDef struct {
	name         string
	column, file text
}

type ruleDef struct{ name, when, then, reason text }

// place is a line and a column of the file, from 1.
type place = yamlread.Place

// text is a value with the place of its first character.
type text struct {
	s string
	place
}

// faultAt is a fault at a byte of the text.
func (t text) faultAt(offset int, what string) features.Fault {
	p := t.place
	for i, c := range t.s {
		if i >= offset {
			break
		}
		if p.Column++; c == '\n' {
			p = place{Line: p.Line + 1, Column: t.Column}
		}
	}
	return features.Fault{Line: p.Line, Column: p.Column, Text: what}
}

func compareFaults(a, b features.Fault) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Text, b.Text))
}

var (
	fileFields = []string{"lists", "before", "after"}
	listFields = []string{"column", "file"}
	ruleFields = []string{"name", "when", "then", "reason"}
)

// reader turns YAML into a definition and collects what is wrong.
type reader struct {
	faults features.Faults
	src    []byte
	lines  []string
}

func newReader(name string, src []byte) *reader {
	return &reader{faults: features.Faults{Name: name}, src: src, lines: strings.Split(string(src), "\n")}
}

func (r *reader) fault(p place, format string, a ...any) {
	r.faults.List = append(r.faults.List, features.Fault{Line: p.Line, Column: p.Column, Text: fmt.Sprintf(format, a...)})
}

func placeOf(n ast.Node) place { return yamlread.PlaceOf(n) }

// definition reads the whole file.
func (r *reader) definition() (d definition) {
	file, fault := yamlread.Parse(r.src)
	if fault != nil {
		r.fault(fault.Place, "not YAML: %s", fault.Text)
		return d
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		r.fault(place{}, "want one YAML document with the fields %s", strings.Join(fileFields, ", "))
		return d
	}
	names := map[string]bool{}
	r.fields(file.Docs[0].Body, "rules", fileFields, func(key string, v ast.Node) {
		switch key {
		case "lists":
			d.lists = r.lists(v)
		case "before":
			d.before = r.rules(v, key, names)
		case "after":
			d.after = r.rules(v, key, names)
		}
	})
	if len(r.faults.List) == 0 && len(d.before)+len(d.after) == 0 {
		r.fault(place{}, "there is no rule: want a list of rules under before or after")
	}
	return d
}

func (r *reader) lists(n ast.Node) (list []listDef) {
	m, ok := n.(ast.MapNode)
	if !ok {
		r.fault(placeOf(n), "lists: want a mapping from a name to its column and file")
		return nil
	}
	for it := m.MapRange(); it.Next(); {
		l := listDef{name: yamlread.Key(it.Key())}
		what := "list " + l.name
		switch {
		case !identifier(l.name):
			r.fault(placeOf(it.Key()), "%s: a list's name is letters, digits and _, so that conditions can read it", what)
		case slices.ContainsFunc(list, func(o listDef) bool { return o.name == l.name }):
			r.fault(placeOf(it.Key()), "%s is there twice", what)
		}
		seen := r.fields(it.Value(), what, listFields, func(key string, v ast.Node) {
			if key == "column" {
				l.column = r.text(v, what+": column")
			} else {
				l.file = r.text(v, what+": file")
			}
		})
		for _, f := range listFields {
			if seen != nil && !seen[f] {
				r.fault(placeOf(it.Key()), "%s: the field %s is missing", what, f)
			}
		}
		list = append(list, l)
	}
	return list
}

func identifier(s string) bool {
	for i, c := range s {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func (r *reader) rules(n ast.Node, phase string, names map[string]bool) (list []ruleDef) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		r.fault(placeOf(n), "%s: want a list of rules, each with %s", phase, strings.Join(ruleFields, ", "))
		return nil
	}
	for i, v := range seq.Values {
		var d ruleDef
		what := fmt.Sprintf("%s rule %d", phase, i+1)
		seen := r.fields(v, what, ruleFields, func(key string, v ast.Node) {
			switch key {
			case "name":
				d.name = r.text(v, what+": name")
			case "when":
				d.when = r.text(v, what+": when")
			case "then":
				d.then = r.text(v, what+": then")
			case "reason":
				d.reason = r.text(v, what+": reason")
			}
		})
		if seen == nil {
			continue
		}
		for _, f := range ruleFields {
			if !seen[f] {
				r.fault(placeOf(v), "%s: the field %s is missing", what, f)
			}
		}
		if d.name.s != "" && names[d.name.s] {
			r.fault(d.name.place, "%s: there are two rules %s: names must differ", what, d.name.s)
		}
		names[d.name.s] = true
		if seen["then"] && !slices.Contains(decisions, d.then.s) {
			r.fault(d.then.place, "%s: then: %q%s; want %s", what, d.then.s, meant(d.then.s, decisions),
				strings.Join(decisions, ", "))
		}
		if seen["when"] && d.when.s != "" {
			list = append(list, d)
		}
	}
	return list
}

// fields reads a mapping and calls f for each known field; nil is no mapping.
func (r *reader) fields(n ast.Node, what string, known []string, f func(key string, v ast.Node)) map[string]bool {
	return yamlread.Fields(n, what, known, meant, r.fault, f)
}

// text reads a text; its place is that of its first character, behind a quote or below the mark of a block.
func (r *reader) text(n ast.Node, what string) text {
	t := text{place: placeOf(n)}
	switch v := n.(type) {
	case *ast.StringNode:
		t.s = v.Value
		if k := n.GetToken().Type; k == token.DoubleQuoteType || k == token.SingleQuoteType {
			t.Column++
		}
	case *ast.LiteralNode:
		t.s = strings.TrimRight(v.Value.Value, " \n")
		for l := v.Start.Position.Line; l < len(r.lines); l++ {
			if body := strings.TrimLeft(r.lines[l], " "); strings.TrimSpace(body) != "" {
				t.place = place{Line: l + 1, Column: len(r.lines[l]) - len(body) + 1}
				break
			}
		}
	case *ast.BoolNode:
		t.s = v.String()
	default:
		r.fault(t.place, "%s: want text, in quotes where it looks like a number", what)
		return t
	}
	if strings.TrimSpace(t.s) == "" {
		r.fault(t.place, "%s: it is empty", what)
	}
	return t
}

// meant is ` (did you mean "x"?)`, or nothing if no known name is near.
func meant(name string, known []string) string {
	if near := datasets.Nearest(name, known); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}
