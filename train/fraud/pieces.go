package fraud

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

// Names of the constants that cut features into pieces, see pieces.
const (
	piecesWeight = "pieces.weight" // [features, pieces], one element a column
	piecesBegin  = "pieces.begin"  // [pieces]
	piecesEnd    = "pieces.end"    // [pieces]
)

// pieces is a piecewise linear encoding of the features (Gorishniy, Rubachev & Babenko 2022, "On Embeddings for Numerical
// Features in Tabular Deep Learning"): each standardised feature x is cut at some of its quantiles, and a piece from a to
// b of it is clip((x-a)/(b-a), 0, 1). A network is smooth and finds a sharp limit, such as that of an amount, late and
// only with many steps; a piece that begins there is one for it. What is usual is 0: a piece that more than half of
// the rows are beyond counts from its other end. Each piece is divided by its deviation, since the rare ones are
// those that tell frauds.
//
// A piece is relu(x w + begin) - relu(x w + end), of instructions that every backend has.
type pieces struct{ weight, begin, end []float32 }

// The quantiles at which features are cut, beside Config.Pieces even ones: frauds are in the tail.
var tailQuantiles = []float64{.95, .98, .99, .995, .998, 1}

const (
	// leastPiece is the least length of a piece in deviations of its feature: float32 cannot cut finer a feature
	// that goes to some hundred deviations.
	leastPiece = .01
	// leastCuts: a feature with fewer is a flag, or nearly, and the piece would be the feature again.
	leastCuts = 3
	// quantileRows are enough to know the quantile .998 by.
	quantileRows = 1 << 17
	// greatestFactor bounds what a piece is multiplied by: it is the deviation of one that one row in 900 reaches.
	greatestFactor = 30
)

// count is the number of pieces.
func (p *pieces) count() int {
	if p == nil {
		return 0
	}
	return len(p.begin)
}

// newPieces cuts the features of the rows at even quantiles and those of the tail. It is nil where even is 0 or nothing can
// be cut.
func newPieces(standard *standard, rows *Rows, even, threads int) (*pieces, error) {
	if even == 0 {
		return nil, nil
	}
	rows = everyNth(rows, (rows.Len()+quantileRows-1)/quantileRows)
	width := len(rows.Features)
	x, err := standard.matrix(rows.Values, rows.Len(), threads)
	if err != nil {
		return nil, err
	}
	type piece struct {
		feature            int
		weight, begin, end float32
	}
	var all []piece
	column := make([]float32, rows.Len())
	for f := range width {
		for i := range column {
			column[i] = x[i*width+f]
		}
		slices.Sort(column)
		edges := cuts(column, even)
		if len(edges) < leastCuts {
			continue
		}
		for i, a := range edges[:len(edges)-1] {
			w, begin, factor := measure(column, float64(a), float64(edges[i+1]))
			all = append(all, piece{f, float32(w * factor), float32(begin * factor), float32((begin - 1) * factor)})
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	n := len(all)
	p := &pieces{make([]float32, width*n), make([]float32, n), make([]float32, n)}
	for i, q := range all {
		p.weight[q.feature*n+i], p.begin[i], p.end[i] = q.weight, q.begin, q.end
	}
	return p, nil
}

// everyNth is each n-th row.
func everyNth(rows *Rows, n int) *Rows {
	if n == 1 {
		return rows
	}
	places := make([]int, 0, rows.Len()/n+1)
	for i := 0; i < rows.Len(); i += n {
		places = append(places, i)
	}
	return rows.Select(places)
}

// cuts are the different quantiles of a sorted column.
func cuts(sorted []float32, even int) []float32 {
	var at []float64
	for i := range even {
		at = append(at, float64(i)/float64(even))
	}
	at = append(at, tailQuantiles...)
	slices.Sort(at)
	var edges []float32
	for _, q := range at {
		x := sorted[int(q*float64(len(sorted)-1))]
		if len(edges) == 0 || x-edges[len(edges)-1] >= leastPiece {
			edges = append(edges, x)
		}
	}
	return edges
}

// measure is the line of the piece from a to b, w x + begin, and what it is multiplied by.
func measure(sorted []float32, a, b float64) (w, begin, factor float64) {
	var sum, squares float64
	for _, x := range sorted {
		u := min(1, max(0, (float64(x)-a)/(b-a)))
		sum += u
		squares += u * u
	}
	n := float64(len(sorted))
	mean := sum / n
	factor = 1 / math.Sqrt(max(squares/n-mean*mean, 1/float64(greatestFactor*greatestFactor)))
	if mean > .5 {
		return -1 / (b - a), b / (b - a), factor
	}
	return 1 / (b - a), -a / (b - a), factor
}

// tensors are the constants of the encoding.
func (p *pieces) tensors(width int) program.Tensors {
	if p == nil {
		return nil
	}
	n := p.count()
	return program.Tensors{
		{Name: piecesBegin, DType: program.F32, Shape: []int{n}, F32: p.begin},
		{Name: piecesEnd, DType: program.F32, Shape: []int{n}, F32: p.end},
		{Name: piecesWeight, DType: program.F32, Shape: []int{width, n}, F32: p.weight},
	}
}

// withPieces is x with n pieces of it beside it.
func withPieces(b *graph.Builder, x *graph.Node, width, n int) *graph.Node {
	if n == 0 {
		return x
	}
	w := b.Const(piecesWeight, width, n)
	from := b.Affine(x, w, b.Const(piecesBegin, n), program.Relu)
	to := b.Affine(x, w, b.Const(piecesEnd, n), program.Relu)
	return b.Concat(x, b.Add(from, b.Scale(to, -1)))
}

// Random numbers of the rows that are left out, apart from those of the program.
const siteGenuine = 0x67656e75

// thinned is all frauds of the rows and a share of the others, and what a row of each kind counts in the loss so
// that it stays, on average, what it is over all rows. Which are left out depends on the seed.
func (c *Config) thinned(rows *Rows, seed uint64) (kept *Rows, fraud, genuine float64) {
	if c.Genuine == 1 {
		return rows, c.PositiveWeight, 1
	}
	r := rand.New(rand.NewPCG(seed, siteGenuine))
	var places []int
	for i, y := range rows.Y {
		if r.Float64() < c.Genuine || y {
			places = append(places, i)
		}
	}
	share := float64(len(places)) / float64(rows.Len())
	return rows.Select(places), c.PositiveWeight * share, share / c.Genuine
}
