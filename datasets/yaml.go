package datasets

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// yamlDoc walks a YAML document and gathers faults with their lines, so that a user sees all at once.
type yamlDoc struct {
	name   string
	faults []error
}

func (d *yamlDoc) fault(n ast.Node, format string, args ...any) {
	line := 1
	if n != nil && n.GetToken() != nil && n.GetToken().Position != nil {
		line = n.GetToken().Position.Line
	}
	d.faults = append(d.faults, fmt.Errorf("%s:%d: %s", d.name, line, fmt.Sprintf(format, args...)))
}

// err joins the faults in the order of their lines in the walk.
func (d *yamlDoc) err() error { return errors.Join(d.faults...) }

// parseYAML returns the document's root. The library is known to panic on some malformed input; that
// comes back as a fault.
func (d *yamlDoc) parse(src []byte) (root ast.Node) {
	defer func() {
		if p := recover(); p != nil {
			root = nil
			d.faults = append(d.faults, fmt.Errorf("%s: not YAML: %v", d.name, p))
		}
	}()
	f, err := parser.ParseBytes(src, 0)
	if err != nil {
		d.faults = append(d.faults, fmt.Errorf("%s: not YAML: %w", d.name, err))
		return nil
	}
	if len(f.Docs) == 0 || f.Docs[0].Body == nil {
		d.faults = append(d.faults, fmt.Errorf("%s: is empty", d.name))
		return nil
	}
	return f.Docs[0].Body
}

// yamlEntry is one key of a mapping.
type yamlEntry struct {
	key   string
	node  ast.Node // of the key, for its line
	value ast.Node
}

// entries lists a mapping's keys in order; a key that is there twice or not among the known (where these
// are given) is a fault.
func (d *yamlDoc) entries(n ast.Node, what string, known ...string) []yamlEntry {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	case *ast.NullNode:
	default:
		d.fault(n, "%s: want keys and values", what)
	}
	var out []yamlEntry
	for _, v := range values {
		e := yamlEntry{key: v.Key.GetToken().Value, node: v.Key, value: v.Value}
		switch {
		case slices.ContainsFunc(out, func(o yamlEntry) bool { return o.key == e.key }):
			d.fault(e.node, "%s: %s is there twice", what, e.key)
		case known != nil && !slices.Contains(known, e.key):
			d.fault(e.node, "%s: unknown key %s%s", what, e.key, didYouMean(e.key, known))
		default:
			out = append(out, e)
		}
	}
	return out
}

// text is a scalar as it is written, without quotes.
func (d *yamlDoc) text(e yamlEntry) string {
	switch n := e.value.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value
	case *ast.LiteralNode:
		return n.Value.Value
	}
	d.fault(e.node, "%s: want one value", e.key)
	return ""
}

// texts is a scalar or a list of them.
func (d *yamlDoc) texts(e yamlEntry) []string {
	list, ok := e.value.(*ast.SequenceNode)
	if !ok {
		return []string{d.text(e)}
	}
	out := make([]string, 0, len(list.Values))
	for _, v := range list.Values {
		out = append(out, d.text(yamlEntry{key: e.key, node: v, value: v}))
	}
	return out
}

func (d *yamlDoc) flag(e yamlEntry) bool {
	switch strings.ToLower(d.text(e)) {
	case "true":
		return true
	case "false":
		return false
	}
	d.fault(e.node, "%s: want true or false", e.key)
	return false
}
