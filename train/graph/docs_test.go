package graph

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
)

// shown is the model of docs/ARCHITECTURE.md: one hidden layer in Gorgonia's own operations.
func shown(b *Builder) (Model, error) {
	x, y := b.Input("x", 15), b.Input("y", 1)
	w, bias, out := b.Param("w", "glorot_uniform", 15, 32), b.Param("bias", "zero", 1, 32), b.Param("out", "glorot_uniform", 32, 1)
	h := made(gorgonia.Tanh(made(gorgonia.BroadcastAdd(b.MatMul(x, w), bias, nil, []byte{0}))))
	z := b.MatMul(h, out)
	return Model{Loss: made(gorgonia.Mean(made(gorgonia.Square(made(gorgonia.Sub(z, y)))))), Output: z}, nil
}

// TestArchitectureShowsTheProgram keeps the listings of the document those that Compile makes: Gorgonia's graph as it
// is built and differentiated, what is lowered without passes, and what is left after them. -update rewrites them.
func TestArchitectureShowsTheProgram(t *testing.T) {
	const path = "../../docs/ARCHITECTURE.md"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	opts := Options{Batch: 256, Rows: 2560, Tile: 256, Optimizer: adam}
	before, err := compile(shown, opts, passes{})
	if err != nil {
		t.Fatal(err)
	}
	after, err := Compile(shown, opts)
	if err != nil {
		t.Fatal(err)
	}
	e, err := evaluated(shown, 256, 1, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	nodes := 0
	for range e.b.g.AllNodes() {
		nodes++
	}
	for marker, want := range map[string]string{
		"graph":   fmt.Sprintf("%d nodes of the loss, %d with the gradients of %d parameters\n", len(e.order), nodes, len(e.b.params)),
		"lowered": listed(before.Train), "optimised": listed(after.Train), "forward": listed(after.Forward),
	} {
		begin, end := "<!-- program: "+marker+" -->\n\n", "\n<!-- end -->"
		head, rest, found := strings.Cut(text, begin)
		_, tail, closed := strings.Cut(rest, end)
		if !found || !closed {
			t.Fatalf("%s has no block %q", path, begin)
		}
		var block strings.Builder
		for line := range strings.Lines(want) {
			block.WriteString("    " + line)
		}
		text = head + begin + block.String() + end + tail
	}
	if text == string(raw) {
		return
	}
	if !*update {
		t.Fatalf("%s shows other programs than Compile makes: go test ./train/graph -run Architecture -update", path)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// listed is a program without the names of nodes, which Gorgonia numbers.
func listed(p *program.Program) string {
	var b strings.Builder
	for line := range strings.Lines(p.String()) {
		line, _, _ = strings.Cut(strings.TrimRight(line, "\n"), "  #")
		b.WriteString(line + "\n")
	}
	return b.String()
}
