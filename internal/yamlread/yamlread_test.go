package yamlread

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/ast"
)

func TestFields(t *testing.T) {
	for _, c := range []struct{ text, faults, seen string }{
		{"a: 1\n\"b\": 2\n", "", "a=1 b=2"},
		{"a: 1\n  \nc: 2\na: 3\n", "3:1 x: unknown field \"c\"?\n4:1 x: field a is given twice", "a=1"},
		{"- a\n", "1:1 x: want a mapping with the fields a, b", ""},
	} {
		file, fault := Parse([]byte(c.text))
		if fault != nil { // the parser itself finds the key that is there twice
			if !strings.Contains(c.faults, "twice") || fault.Line != 4 {
				t.Errorf("%q: %v", c.text, fault)
			}
			continue
		}
		var faults, seen []string
		Fields(file.Docs[0].Body, "x", []string{"a", "b"}, func(string, []string) string { return "?" },
			func(p Place, format string, a ...any) {
				faults = append(faults, fmt.Sprintf("%d:%d ", p.Line, p.Column)+fmt.Sprintf(format, a...))
			}, func(key string, v ast.Node) { seen = append(seen, key+"="+v.String()) })
		if got := strings.Join(faults, "\n"); got != c.faults || strings.Join(seen, " ") != c.seen {
			t.Errorf("%q: faults %q, fields %q", c.text, got, seen)
		}
	}
}

// What is no YAML is an error with its place where there is one, and never a panic.
func TestParseFaults(t *testing.T) {
	_, fault := Parse([]byte("a: [1\nb: 2\n"))
	if fault == nil || fault.Line == 0 || !strings.HasPrefix(fault.In("x.yaml").Error(), "x.yaml:") {
		t.Error(fault)
	}
	if err := (&SyntaxError{Text: "odd"}).In("x.yaml"); err.Error() != "x.yaml: odd" {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a: 1")
	f.Add("a: [\n- {")
	f.Add("? \n: |\n")
	f.Fuzz(func(t *testing.T, text string) {
		if file, fault := Parse([]byte(text)); (file == nil) == (fault == nil) {
			t.Fatalf("%v and %v", file, fault)
		}
	})
}
