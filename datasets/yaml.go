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
	faults []yamlFault
}

type yamlFault struct {
	line int // 0 is of the whole document
	err  error
}

func (d *yamlDoc) fault(n ast.Node, format string, args ...any) {
	line := 1
	if n != nil && n.GetToken() != nil && n.GetToken().Position != nil {
		line = n.GetToken().Position.Line
	}
	d.faults = append(d.faults, yamlFault{line, fmt.Errorf("%s:%d: %s", d.name, line, fmt.Sprintf(format, args...))})
}

// whole records a fault of the document.
func (d *yamlDoc) whole(format string, args ...any) {
	d.faults = append(d.faults, yamlFault{0, fmt.Errorf("%s: "+format, append([]any{d.name}, args...)...)})
}

// err joins the faults in the order of their lines.
func (d *yamlDoc) err() error {
	slices.SortStableFunc(d.faults, func(a, b yamlFault) int { return a.line - b.line })
	errs := make([]error, len(d.faults))
	for i := range d.faults {
		errs[i] = d.faults[i].err
	}
	return errors.Join(errs...)
}

// parse returns the document's root. The library is known to panic on some malformed input; that
// comes back as a fault.
func (d *yamlDoc) parse(src []byte) (root ast.Node) {
	defer func() {
		if p := recover(); p != nil {
			root = nil
			d.whole("not YAML: %v", p)
		}
	}()
	f, err := parser.ParseBytes(src, 0)
	if err != nil {
		d.whole("not YAML: %w", err)
		return nil
	}
	if len(f.Docs) == 0 || f.Docs[0].Body == nil {
		d.whole("is empty")
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
