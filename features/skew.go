package features

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/onmart/onmart/datasets"
)

// Histogram is how the values of one column are spread over bins that a reference fixed. A reference and the
// histogram of anything that is held against it have the same bins, so that PSI compares their counts. It is plain
// data and may be kept as JSON. Adding is for one goroutine.
//
// The bins are, in the order of Counts: one for each value of Points; the intervals between Edges, each with its upper
// edge, the last one open; and one for rows without a value.
type Histogram struct {
	Points []float64 `json:"points,omitempty"` // values that are a tenth of the reference or more, ascending
	Edges  []float64 `json:"edges,omitempty"`  // ascending
	Counts []int64   `json:"counts"`

	Rows  int64   `json:"rows"`
	Zeros int64   `json:"zeros"`
	Sum   float64 `json:"sum"` // of the values, in the order in which they were added
}

// skewBins is into how many bins a reference is cut: ten quantiles, as scorecards do it (Siddiqi 2006).
const skewBins = 10

// NewReference makes the bins of a column from a sample of its values, which is sorted in place; the counts are zero. A
// value that is a tenth of the sample or more, such as the 0 of keys without history, gets a bin of its own, because no
// edge can cut it; quantiles cut the others.
func NewReference(sample []float64) *Histogram {
	h := &Histogram{}
	sample = slices.DeleteFunc(sample, func(v float64) bool { return v != v })
	slices.Sort(sample)
	heavy := max(2, (len(sample)+skewBins-1)/skewBins)
	rest := make([]float64, 0, len(sample))
	for i := 0; i < len(sample); {
		j := i + 1
		for j < len(sample) && sample[j] == sample[i] {
			j++
		}
		if j-i >= heavy {
			h.Points = append(h.Points, sample[i])
		} else {
			rest = append(rest, sample[i:j]...)
		}
		i = j
	}
	intervals := 1
	if len(rest) > 0 {
		intervals = max(1, int(math.Round(skewBins*float64(len(rest))/float64(len(sample)))))
	}
	for k := 1; k < intervals; k++ {
		edge := rest[(len(rest)*k-1)/intervals]
		if n := len(h.Edges); edge < rest[len(rest)-1] && (n == 0 || edge > h.Edges[n-1]) {
			h.Edges = append(h.Edges, edge)
		}
	}
	h.Counts = make([]int64, len(h.Points)+len(h.Edges)+2)
	return h
}

// Against is an empty histogram with the same bins.
func (h *Histogram) Against() *Histogram {
	return &Histogram{Points: h.Points, Edges: h.Edges, Counts: make([]int64, len(h.Counts))}
}

// Add counts values; null may be nil. A NaN counts as no value. It allocates nothing.
func (h *Histogram) Add(values []float64, null []bool) {
	for i, v := range values {
		if null != nil && null[i] {
			v = math.NaN()
		}
		h.addOne(v)
	}
}

// addOne counts one value, or a row without one where it is NaN.
func (h *Histogram) addOne(v float64) {
	h.Rows++
	if v != v {
		h.Counts[len(h.Counts)-1]++
		return
	}
	if v == 0 {
		h.Zeros++
	}
	h.Sum += v
	for i, p := range h.Points {
		if v == p {
			h.Counts[i]++
			return
		}
	}
	bin := len(h.Points)
	for _, e := range h.Edges { // nine at the most: a search by halves is no faster
		if v <= e {
			break
		}
		bin++
	}
	h.Counts[bin]++
}

// Nulls is how many rows have no value.
func (h *Histogram) Nulls() int64 { return h.Counts[len(h.Counts)-1] }

// Mean of the values, 0 where there are none.
func (h *Histogram) Mean() float64 {
	if n := h.Rows - h.Nulls(); n > 0 {
		return h.Sum / float64(n)
	}
	return 0
}

// check finds what no histogram that this code wrote can hold.
func (h *Histogram) check() error {
	if len(h.Counts) != len(h.Points)+len(h.Edges)+2 {
		return fmt.Errorf("%d counts for %d points and %d edges", len(h.Counts), len(h.Points), len(h.Edges))
	}
	if !slices.IsSorted(h.Points) || !slices.IsSorted(h.Edges) {
		return fmt.Errorf("its points or edges are out of order")
	}
	return nil
}

// PSI is the population stability index of two histograms with the same bins: the sum over the bins of
// (b-a) ln(b/a), a and b being the shares of the bin (Siddiqi, "Credit Risk Scorecards", 2006; Karakoulas, "Empirical
// Validation of Retail Credit-Scoring Models", 2004). It is the Jeffreys divergence of the two, 0 where they are equal
// and the same from either side. A count is taken half a row greater, so that a bin that is empty on one side does not
// make it infinite; bins that are empty on both sides are left out. NaN where a side has no rows.
func PSI(a, b *Histogram) float64 {
	bins := a.bins(b)
	if bins == 0 || a.Rows == 0 || b.Rows == 0 {
		return math.NaN()
	}
	na, nb := float64(a.Rows)+float64(bins)/2, float64(b.Rows)+float64(bins)/2
	sum := 0.0
	for i, n := range a.Counts {
		if n == 0 && b.Counts[i] == 0 {
			continue
		}
		p, q := (float64(n)+0.5)/na, (float64(b.Counts[i])+0.5)/nb
		sum += (q - p) * math.Log(q/p)
	}
	return sum
}

// bins is how many bins have a row on either side.
func (h *Histogram) bins(o *Histogram) int {
	n := 0
	for i := range h.Counts {
		n += btoi(h.Counts[i] > 0 || o.Counts[i] > 0)
	}
	return n
}

// PSIByChance is the index that two samples of one population with these numbers of rows exceed in one case of
// twenty. The index is distributed about as (1/na + 1/nb) times a chi-squared variable with one degree of freedom less
// than there are bins (Yurdakul, "Statistical Properties of Population Stability Index", 2018), whose quantile is here
// that of Wilson and Hilferty (1931), within 2 % from 2 degrees on.
func PSIByChance(a, b *Histogram) float64 {
	k := float64(a.bins(b) - 1)
	if k < 1 || a.Rows == 0 || b.Rows == 0 {
		return 0
	}
	const normal95 = 1.6448536269514722
	c := 1 - 2/(9*k) + normal95*math.Sqrt(2/(9*k))
	return (1/float64(a.Rows) + 1/float64(b.Rows)) * k * c * c * c
}

// Thresholds of the index as scorecards use them (Siddiqi 2006).
const (
	psiMoved   = 0.1
	psiShifted = 0.25
)

// PSIWords says what an index means: stable below 0.1, moved up to 0.25, shifted above, and where it is one that
// chance gives as well, too few rows.
func PSIWords(psi, chance float64) string {
	switch {
	case psi != psi:
		return "no rows"
	case psi < psiMoved:
		return "stable"
	case psi <= chance:
		return "too few rows"
	case psi <= psiShifted:
		return "moved"
	}
	return "shifted"
}

// Skewness is what Skew found between a reference A and B.
type Skewness struct {
	RowsA   int64        `json:"rows_a"`
	RowsB   int64        `json:"rows_b"`
	OnlyA   []string     `json:"columns_only_in_a"`
	OnlyB   []string     `json:"columns_only_in_b"`
	Columns []ColumnSkew `json:"columns"` // greatest PSI first
}

// ColumnSkew is how one column's values are spread in A and in B.
type ColumnSkew struct {
	Name   string  `json:"name"`
	PSI    float64 `json:"psi"`
	Chance float64 `json:"psi_by_chance"` // what equal populations exceed in one case of twenty
	Words  string  `json:"verdict"`
	MeanA  float64 `json:"mean_a"`
	MeanB  float64 `json:"mean_b"`
	ZeroA  float64 `json:"zero_share_a"` // of all rows
	ZeroB  float64 `json:"zero_share_b"`
	NullA  float64 `json:"null_share_a"`
	NullB  float64 `json:"null_share_b"`

	A *Histogram `json:"a"`
	B *Histogram `json:"b"`
}

// skewSample is the most rows of A that the bins are made from, and half of it the least where A has as many: the
// share of a bin of a tenth is then within half a point of a tenth (three standard deviations), and 100 columns take
// 52 MB.
const skewSample = 1 << 16

// rowSample is a sample of a source's rows: those whose position has a hash up to a bound, which is halved whenever
// there are too many.
type rowSample struct {
	fields []datasets.Field
	rows   int64 // seen
	keep   uint64
	hashes []uint64
	values [][]float64 // by column, then by row of the sample; NaN for none
}

func (s *rowSample) add(in *datasets.Batch) {
	for i := range in.N {
		h := hashPosition(uint64(s.rows) + uint64(i))
		if h > s.keep {
			continue
		}
		s.hashes = append(s.hashes, h)
		for c := range in.Columns {
			s.values[c] = append(s.values[c], numberAt(&in.Columns[c], s.fields[c], i))
		}
		if len(s.hashes) > skewSample {
			s.halve()
		}
	}
	s.rows += int64(in.N)
}

func (s *rowSample) halve() {
	s.keep /= 2
	n := 0
	for i, h := range s.hashes {
		if h > s.keep {
			continue
		}
		s.hashes[n] = h
		for c := range s.values {
			s.values[c][n] = s.values[c][i]
		}
		n++
	}
	s.hashes = s.hashes[:n]
	for c := range s.values {
		s.values[c] = s.values[c][:n]
	}
}

// Skew compares how the values of each numeric column are spread in A, the reference, and in B. Columns that name a
// row, or are times or text, are left out. A is read twice, B once; the bins come from a sample of at most 65,536
// rows of A chosen by a hash of their position, and the counts from all rows.
func Skew(ctx context.Context, a, b *Source, ranges [2]datasets.Range, threads int,
	progress func(done, total int64)) (*Skewness, error) {
	s := &Skewness{OnlyA: []string{}, OnlyB: []string{}, Columns: []ColumnSkew{}}
	names, fields := skewColumns(a, b, s)
	if len(names) == 0 {
		return nil, fmt.Errorf("%s and %s have no column of numbers in common%s", a.Name, b.Name, columnsHint(s))
	}
	var done int64
	step := func(n int) {
		if done += int64(n); progress != nil {
			progress(done, 2*a.Rows+b.Rows)
		}
	}
	sample := rowSample{fields: fields, keep: math.MaxUint64, values: make([][]float64, len(names))}
	o := datasets.ReadOptions{Columns: names, Range: ranges[0], Threads: threads}
	if err := a.read(ctx, o, func(in *datasets.Batch) error {
		sample.add(in)
		step(in.N)
		return nil
	}); err != nil {
		return nil, err
	}
	of := [2][]*Histogram{make([]*Histogram, len(names)), make([]*Histogram, len(names))}
	for c := range names {
		of[0][c] = NewReference(sample.values[c])
		of[1][c] = of[0][c].Against()
		sample.values[c] = nil
	}
	for side, source := range []*Source{a, b} {
		o := datasets.ReadOptions{Columns: names, Range: ranges[side], Threads: threads}
		if err := source.read(ctx, o, func(in *datasets.Batch) error {
			for c := range in.Columns {
				addColumn(of[side][c], &in.Columns[c], fieldOf(source, names[c]))
			}
			step(in.N)
			return nil
		}); err != nil {
			return nil, err
		}
	}
	s.RowsA, s.RowsB = of[0][0].Rows, of[1][0].Rows
	for side, n := range []int64{s.RowsA, s.RowsB} {
		if n == 0 {
			return nil, fmt.Errorf("no rows of %s are in %s: nothing can be compared",
				[]*Source{a, b}[side].Name, ranges[side])
		}
	}
	for c, name := range names {
		s.Columns = append(s.Columns, columnSkew(name, of[0][c], of[1][c]))
	}
	slices.SortStableFunc(s.Columns, func(x, y ColumnSkew) int { return cmp.Compare(y.PSI, x.PSI) })
	return s, nil
}

func columnSkew(name string, a, b *Histogram) ColumnSkew {
	share := func(n int64, h *Histogram) float64 { return float64(n) / float64(h.Rows) }
	c := ColumnSkew{Name: name, PSI: PSI(a, b), Chance: PSIByChance(a, b), MeanA: a.Mean(), MeanB: b.Mean(),
		ZeroA: share(a.Zeros, a), ZeroB: share(b.Zeros, b), NullA: share(a.Nulls(), a), NullB: share(b.Nulls(), b),
		A: a, B: b}
	c.Words = PSIWords(c.PSI, c.Chance)
	return c
}

// skewColumns are the columns that are compared: of features those, and the other numbers that do not name something.
func skewColumns(a, b *Source, s *Skewness) (names []string, fields []datasets.Field) {
	for _, f := range a.Schema.Fields {
		if !holdsQuantity(f) {
			continue
		}
		j := b.Schema.Index(f.Name)
		if j < 0 || !holdsQuantity(b.Schema.Fields[j]) {
			s.OnlyA = append(s.OnlyA, f.Name)
			continue
		}
		names, fields = append(names, f.Name), append(fields, f)
	}
	for _, f := range b.Schema.Fields {
		if i := a.Schema.Index(f.Name); holdsQuantity(f) && (i < 0 || !holdsQuantity(a.Schema.Fields[i])) {
			s.OnlyB = append(s.OnlyB, f.Name)
		}
	}
	return names, fields
}

// holdsQuantity tells whether a column holds quantities, and not the names of things or instants.
func holdsQuantity(f datasets.Field) bool {
	switch f.Type {
	case datasets.Float64, datasets.Decimal:
		return true
	case datasets.Int64:
		return f.Name != datasets.Line && f.Name != datasets.Seq && f.Name != Partition && !strings.HasSuffix(f.Name, "_id")
	}
	return false
}

func columnsHint(s *Skewness) string {
	if len(s.OnlyA) == 0 || len(s.OnlyB) == 0 {
		return ""
	}
	return fmt.Sprintf(": the first has %s, the second %s", firstNames(s.OnlyA), firstNames(s.OnlyB))
}

// firstNames lists at most three names.
func firstNames(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + fmt.Sprintf(" and %d more", len(names)-3)
	}
	return strings.Join(names, ", ")
}

func fieldOf(s *Source, name string) datasets.Field { return s.Schema.Fields[s.Schema.Index(name)] }

// numberAt is a value of a column of numbers, NaN where there is none.
func numberAt(c *datasets.Column, f datasets.Field, i int) float64 {
	switch {
	case c.IsNull(i):
		return math.NaN()
	case c.Floats != nil:
		return c.Floats[i]
	}
	return scaled(c.Ints[i], f.Scale)
}

func addColumn(h *Histogram, c *datasets.Column, f datasets.Field) {
	if c.Floats != nil {
		h.Add(c.Floats, c.Null)
		return
	}
	for i := range c.Ints {
		h.addOne(numberAt(c, f, i))
	}
}

// hashPosition spreads the bits of a position, so that a hash below a limit chooses rows without regard to any rhythm
// of the data (the finaliser of SplitMix64: Steele, Lea, Flood 2014).
func hashPosition(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
