package features

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/onmart/onmart/datasets"
)

// The bins of a column that is half zeros: the zeros apart, quantiles of the rest.
func TestReferenceBins(t *testing.T) {
	var v []float64
	for i := range 1000 {
		v = append(v, 0, float64(i+1))
	}
	h := NewReference(v)
	if !slices.Equal(h.Points, []float64{0}) || !slices.Equal(h.Edges, []float64{200, 400, 600, 800}) {
		t.Fatalf("points %v, edges %v", h.Points, h.Edges)
	}
	h.Add([]float64{0, 200, 200.5, 800, 801, 1e9, -3, math.NaN(), 7}, []bool{false, false, false, false, false, false,
		false, false, true})
	if want := []int64{1, 2, 1, 0, 1, 2, 2}; !slices.Equal(h.Counts, want) {
		t.Errorf("counts %v, want %v", h.Counts, want)
	}
	if h.Rows != 9 || h.Zeros != 1 || h.Nulls() != 2 {
		t.Errorf("%+v", h)
	}
	for _, sample := range [][]float64{nil, {5}, {5, 5, 5}, {math.NaN()}} {
		h := NewReference(sample)
		h.Add([]float64{1, 5, 9}, nil)
		if err := h.check(); err != nil || h.Rows != 3 {
			t.Errorf("%v: %v", sample, err)
		}
	}
}

// The index by hand: shares (.5,.5) against (.25,.75), counts so large that half a row does not show.
func TestPSIByHand(t *testing.T) {
	a := &Histogram{Edges: []float64{0}, Counts: []int64{500_000, 500_000, 0}, Rows: 1_000_000}
	b := &Histogram{Edges: []float64{0}, Counts: []int64{250_000, 750_000, 0}, Rows: 1_000_000}
	want := -0.25*math.Log(0.5) + 0.25*math.Log(1.5)
	if got := PSI(a, b); math.Abs(got-want) > 1e-5 {
		t.Errorf("PSI %v, want %v", got, want)
	}
	if PSI(a, b) != PSI(b, a) || PSI(a, a) != 0 {
		t.Error("it is not symmetric, or not 0 for equal histograms")
	}
	if got := PSI(a, a.Against()); got == got {
		t.Errorf("without rows: %v", got)
	}
}

// Of two samples of one population the index is above PSIByChance in about a twentieth of the cases.
func TestPSIByChance(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	over := 0
	const trials = 2000
	for range trials {
		draw := func(n int) []float64 {
			v := make([]float64, n)
			for i := range v {
				v[i] = rng.NormFloat64()
			}
			return v
		}
		a := draw(3000)
		ref := NewReference(slices.Clone(a))
		cur := ref.Against()
		ref.Add(a, nil)
		cur.Add(draw(1000), nil)
		over += btoi(PSI(ref, cur) > PSIByChance(ref, cur))
	}
	// 1.4 % is three standard deviations of a share of 5 % in 2000 trials.
	if share := float64(over) / trials; math.Abs(share-0.05) > 0.014 {
		t.Errorf("above in %.3f of the cases", share)
	}
}

func TestPSIWords(t *testing.T) {
	for _, c := range []struct {
		psi, chance float64
		want        string
	}{{0.01, 0.5, "stable"}, {0.1, 0.01, "moved"}, {0.25, 0.01, "moved"}, {0.26, 0.01, "shifted"}, {0.3, 0.4, "too few " +
		"rows"},
		{math.NaN(), 0, "no rows"}} {
		if got := PSIWords(c.psi, c.chance); got != c.want {
			t.Errorf("%v, %v: %s, want %s", c.psi, c.chance, got, c.want)
		}
	}
}

func TestSkew(t *testing.T) {
	n := 150_000
	a := outputRows(n)
	var fifth []int32
	for i := 0; i < n; i += 5 {
		fifth = append(fifth, int32(i))
	}
	b := rowsAt(a, fifth)
	for i := range b.N {
		b.Columns[6].Floats[i] = b.Columns[6].Floats[i]*3 + 10_000 // x has moved
	}
	sa, sb := storedSource(t, datasets.KindFeatures, a), storedSource(t, datasets.KindFeatures, b)
	s, err := Skew(context.Background(), sa, sb, [2]datasets.Range{}, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, c := range s.Columns {
		names = append(names, c.Name)
	}
	if s.RowsA != int64(n) || s.RowsB != int64(n/5) || names[0] != "x" || len(names) != 4 {
		t.Fatalf("%d and %d rows, %v", s.RowsA, s.RowsB, names)
	}
	of := func(name string) ColumnSkew { return s.Columns[slices.Index(names, name)] }
	if x := of("x"); x.Words != "shifted" || x.MeanA != total64(a.Columns[6].Floats)/float64(n) || x.A.Rows != int64(n) {
		t.Errorf("x: %+v", x)
	}
	if y := of("y"); y.Words != "stable" || y.ZeroA != 0.25 || len(y.A.Points) != 4 || y.PSI > 1e-6 {
		t.Errorf("y: %+v", y)
	}
	if f := of("is_fraud"); math.Abs(f.NullA-1.0/7) > 1e-4 || f.NullB == 0 {
		t.Errorf("is_fraud: %+v", f)
	}
	again, err := Skew(context.Background(), sa, sb, [2]datasets.Range{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := json.Marshal(s)
	second, _ := json.Marshal(again)
	if string(first) != string(second) {
		t.Error("one thread gives another result than two")
	}
	day := datasets.Range{From: 0, To: datasets.Day}
	half, err := Skew(context.Background(), sa, sa, [2]datasets.Range{day, {From: datasets.Day, To: math.MaxInt64}}, 1,
		nil)
	if err != nil {
		t.Fatal(err)
	}
	if half.RowsA != 4*24*60 || half.RowsA+half.RowsB != int64(n) || half.Columns[0].PSI < psiShifted {
		t.Errorf("%d and %d rows, %+v", half.RowsA, half.RowsB, half.Columns[0])
	}
	if _, err := Skew(context.Background(), sa, sb, [2]datasets.Range{{From: -2 * datasets.Day, To: -datasets.Day}}, 1,
		nil); err == nil {
		t.Error("a reference without rows was taken")
	}
}

func total64(v []float64) (s float64) {
	for _, x := range v {
		s += x
	}
	return s
}

func BenchmarkHistogramAdd(b *testing.B) {
	v := outputRows(1 << 16).Columns[6].Floats
	h := NewReference(slices.Clone(v))
	b.ReportAllocs()
	for b.Loop() {
		h.Add(v, nil)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(v)), "ns/value")
}
