package graph

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/onmart/onmart/train/program"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var adam = AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8, Decay: .01}

// mlp is in -> 8 relu, dropout -> 4 relu -> 1 with weighted BCE.
func mlp(b *Builder) (Model, error) {
	h := b.Input("x", 3)
	h = b.Dense("l1", h, 8, program.Relu, "he_uniform")
	h = b.Dropout(h, .25)
	h = b.Dense("l2", h, 4, program.Relu, "he_uniform")
	z := b.Dense("out", h, 1, program.None, "glorot_uniform")
	loss := b.BCEWithLogits(z, b.Input("y", 1), b.Input("w", 1))
	return Model{Loss: loss, Output: z}, nil
}

func TestGolden(t *testing.T) {
	set, err := Compile(mlp, Options{Batch: 16, Rows: 40, Tile: 4, Optimizer: adam})
	if err != nil {
		t.Fatal(err)
	}
	got := set.Train.String() + set.Rest.String() + set.Forward.String()
	path := filepath.Join("testdata", "mlp.golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("listing changed (-want +got; -update rewrites it):\n%s", d)
	}
}
