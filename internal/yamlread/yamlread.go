// Package yamlread reads the YAML of specs, rules and settings. What enters is a file's text; what leaves are its nodes
// with their places, and the fields of mappings, so that every fault can be shown where it stands.
package yamlread

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Place is a line and a column, from 1; the zero Place is the whole text.
type Place struct{ Line, Column int }

// SyntaxError says why a text is no YAML.
type SyntaxError struct {
	Place
	Text string
}

// In is the error with the name of its file.
func (e *SyntaxError) In(name string) error {
	if e.Line == 0 {
		return fmt.Errorf("%s: %s", name, e.Text)
	}
	return fmt.Errorf("%s:%d:%d: %s", name, e.Line, e.Column, e.Text)
}

// Parse reads a text. The parser is known to panic on some malformed texts, which is a fault here.
func Parse(src []byte) (file *ast.File, fault *SyntaxError) {
	defer func() {
		if e := recover(); e != nil {
			file, fault = nil, &SyntaxError{Text: fmt.Sprintf("the text cannot be read: %v", e)}
		}
	}()
	file, err := parser.ParseBytes(src, 0)
	if err == nil {
		return file, nil
	}
	s := &SyntaxError{Text: err.Error()}
	var y yaml.Error
	if errors.As(err, &y) && y.GetToken() != nil && y.GetToken().Position != nil {
		p := y.GetToken().Position
		s.Place, s.Text = Place{p.Line, p.Column}, y.GetMessage()
	}
	return nil, s
}

// PlaceOf is where a node begins.
func PlaceOf(n ast.Node) Place {
	if n == nil {
		return Place{}
	}
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return PlaceOf(m.Values[0].Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return Place{t.Position.Line, t.Position.Column}
	}
	return Place{}
}

// Key is a key of a mapping without its quotes.
func Key(n ast.MapKeyNode) string {
	if s, ok := n.(*ast.StringNode); ok {
		return s.Value
	}
	return n.String()
}

// Fields reads a mapping, which messages call what, and calls f for each field of the known ones. Others, and those that
// are there twice, are faults; suggest ends the message about an unknown one. It returns the fields that are there, nil
// where n is no mapping.
func Fields(n ast.Node, what string, known []string, suggest func(name string, known []string) string,
	fault func(p Place, format string, a ...any), f func(key string, v ast.Node)) map[string]bool {
	m, ok := n.(ast.MapNode)
	if !ok {
		fault(PlaceOf(n), "%s: want a mapping with the fields %s", what, strings.Join(known, ", "))
		return nil
	}
	seen := map[string]bool{}
	for it := m.MapRange(); it.Next(); {
		key := Key(it.Key())
		switch {
		case !slices.Contains(known, key):
			fault(PlaceOf(it.Key()), "%s: unknown field %q%s", what, key, suggest(key, known))
		case seen[key]:
			fault(PlaceOf(it.Key()), "%s: field %s is given twice", what, key)
		default:
			seen[key] = true
			f(key, it.Value())
		}
	}
	return seen
}
