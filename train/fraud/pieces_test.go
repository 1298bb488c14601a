package fraud

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/graph"
)

// skewed are rows of a flag, a constant, a normal feature and one that is 0 but in the tail.
func skewed(n int) *Rows {
	r := rand.New(rand.NewPCG(1, 2))
	rows := &Rows{Features: []string{"flag", "constant", "normal", "tail"}, Values: make([][]float64, 4),
		Time: make([]int64, n), Card: make([]int32, n), Cards: []string{"1"}, Y: make([]bool, n)}
	for i := range n {
		tail := 0.
		if r.Float64() < .04 {
			tail = r.ExpFloat64()
		}
		for f, x := range []float64{float64(r.IntN(2)), 7, 5 + 3*r.NormFloat64(), tail} {
			rows.Values[f] = append(rows.Values[f], x)
		}
		rows.Y[i] = r.Float64() < .1
	}
	return rows
}

// The network reads of each piece what its formula says: how far the feature is between two cuts, from the end that
// is usual, over its deviation.
func TestPieces(t *testing.T) {
	rows := skewed(5000)
	width := len(rows.Features)
	s := newStandard(rows, make([]bool, width))
	p, err := newPieces(s, rows, 5, 2)
	if err != nil {
		t.Fatal(err)
	}
	set, err := graph.Compile(func(b *graph.Builder) (graph.Model, error) {
		in := withPieces(b, b.Input(columnX, width), width, p.count())
		z := b.Dense("out", in, 1, "", weightInit)
		return graph.Model{Loss: b.BCEWithLogits(z, b.Input(columnY, 1), nil), Output: in}, nil
	}, graph.Options{Batch: 64, Rows: 640, Tile: tile, Optimizer: graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8}})
	if err != nil {
		t.Fatal(err)
	}
	forward, err := cpu.NewForward(set.Served(), p.tensors(width))
	if err != nil {
		t.Fatal(err)
	}
	x, err := s.matrix(rows.Values, rows.Len(), 1)
	if err != nil {
		t.Fatal(err)
	}
	wide := make([]float64, len(x))
	for i, v := range x {
		wide[i] = float64(v)
	}
	n := width + p.count()
	got := make([]float64, rows.Len()*n)
	if err := forward.Run(wide, rows.Len(), got); err != nil {
		t.Fatal(err)
	}

	at := width
	for f := range width {
		column := make([]float32, rows.Len())
		for i := range column {
			column[i] = x[i*width+f]
			if got[i*n+f] != float64(column[i]) {
				t.Fatalf("row %d of %s is %v, want %v as it was", i, rows.Features[f], got[i*n+f], column[i])
			}
		}
		slices.Sort(column)
		edges := cuts(column, 5)
		if few := f < 2; few != (len(edges) < leastCuts) {
			t.Errorf("%s is cut at %v", rows.Features[f], edges)
		}
		if len(edges) < leastCuts {
			continue
		}
		for k, a := range edges[:len(edges)-1] {
			b := float64(edges[k+1])
			u := make([]float64, rows.Len())
			var sum, squares float64
			for i := range u {
				u[i] = min(1, max(0, (float64(x[i*width+f])-float64(a))/(b-float64(a))))
				sum += u[i] / float64(len(u))
			}
			for i := range u {
				if sum > .5 {
					u[i] = 1 - u[i]
				}
				squares += (u[i] - min(sum, 1-sum)) * (u[i] - min(sum, 1-sum)) / float64(len(u))
			}
			for i := range u {
				want := u[i] / max(math.Sqrt(squares), 1./greatestFactor)
				if !(math.Abs(got[i*n+at]-want) <= 1e-3) {
					t.Fatalf("row %d, piece %d of %s, from %v to %v: %v, want %v", i, k, rows.Features[f], a, b, got[i*n+at], want)
				}
			}
			at++
		}
	}
	if at != n {
		t.Errorf("%d pieces, %d of them looked at", p.count(), at-width)
	}
	if p, err := newPieces(s, rows, 0, 1); p != nil || err != nil {
		t.Errorf("pieces of none: %v, %v", p, err)
	}
	if p, err := newPieces(newStandard(rows.Select([]int{0, 1}), make([]bool, width)), rows.Select([]int{0, 0}), 5, 1); p.count() != 0 || err != nil {
		t.Errorf("pieces of rows that do not differ: %v, %v", p, err)
	}
}

// All frauds stay, about the share of the others, and the loss of a row that is equally lossy as all others is what it
// was.
func TestThinned(t *testing.T) {
	rows := skewed(20_000)
	c := DefaultConfig()
	c.Genuine, c.PositiveWeight = .2, 3
	kept, fraud, genuine := c.thinned(rows, 5)
	if kept.Positives() != rows.Positives() {
		t.Errorf("%d of %d frauds are left", kept.Positives(), rows.Positives())
	}
	negatives := float64(kept.Len() - kept.Positives())
	if share := negatives / float64(rows.Len()-rows.Positives()); math.Abs(share-.2) > .01 {
		t.Errorf("%v of the others are left", share)
	}
	sum := (fraud*float64(kept.Positives()) + genuine*negatives) / float64(kept.Len())
	want := (3*float64(rows.Positives()) + float64(rows.Len()-rows.Positives())) / float64(rows.Len())
	if math.Abs(sum-want) > .03*want {
		t.Errorf("rows count %v on average, want %v", sum, want)
	}
	again, _, _ := c.thinned(rows, 5)
	other, _, _ := c.thinned(rows, 6)
	if !slices.Equal(again.Values[2], kept.Values[2]) || slices.Equal(other.Values[2], kept.Values[2]) {
		t.Error("what is left out does not depend on the seed alone")
	}
	c.Genuine = 1
	if all, fraud, genuine := c.thinned(rows, 5); all != rows || fraud != 3 || genuine != 1 {
		t.Errorf("%d rows of %d count %v and %v", all.Len(), rows.Len(), fraud, genuine)
	}
}

// An ensemble of networks with pieces, residual layers and a part of the genuine rows finds what is planted, and its
// artifact holds the cuts once.
func TestPiecesInAnArtifact(t *testing.T) {
	n := &notes{}
	o := small(t, n)
	o.Test, o.Seeds = &mockTest, 2
	if err := o.Config.Set([]string{"pieces=4", "residual=true", "genuine=0.5", "hidden=16,16"}); err != nil {
		t.Fatal(err)
	}
	s, err := Train(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if auc := s.Test.Model["auc"]; !(auc >= .8) {
		t.Errorf("AUC %v on planted fraud", auc)
	}
	a, err := model.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	cuts := 0
	for _, w := range a.Weights() {
		if w.Name == piecesWeight {
			cuts++
		}
	}
	if cuts != 1 {
		t.Errorf("%d tensors of pieces", cuts)
	}
}
