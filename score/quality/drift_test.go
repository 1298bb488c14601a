package quality_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/quality"
)

// TestDrift: values of the training's distribution are stable, others shifted; what is over a day old is forgotten.
func TestDrift(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	draw := func(n int, shift float64) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = r.NormFloat64() + shift
		}
		return v
	}
	reference := func() *features.Histogram {
		v := draw(20_000, 0)
		h := features.NewReference(append([]float64{}, v...))
		h.Add(v, nil)
		return h
	}
	d := quality.NewDrift([]string{"a", "b"}, []*features.Histogram{reference(), reference()}, reference())
	if x := d.Report(); x.Rows != 0 || x.Score.PSI != nil || x.Score.Verdict != "no rows" || x.Score.Name != "score" {
		t.Errorf("%+v", x)
	}
	at := int64(1533081600) * datasets.Second
	add := func(n int, hour int, shift float64) {
		scores := draw(n, 0)
		scores[0] = math.NaN()
		d.Add([][]float64{draw(n, 0), draw(n, shift)}, scores, n, at+int64(hour)*3600*datasets.Second)
	}
	for range 40 {
		add(1000, 0, 1) // above what an hour counts whole
	}
	x := d.Report()
	if x.Features[0].Name != "b" || x.Features[0].Verdict != "shifted" || x.Features[1].Verdict != "stable" ||
		x.Score.Verdict != "stable" {
		t.Errorf("%+v", x)
	}
	if want := int64(1<<14 + (40_000-1<<14)/16); x.Rows < want-100 || x.Rows > want+700 {
		t.Errorf("%d rows counted, want about %d", x.Rows, want)
	}
	add(3000, 23, 0)
	if x := d.Report(); x.Features[0].Verdict == "stable" || x.Hours != 2 {
		t.Errorf("%d hours, %s", x.Hours, x.Features[0].Verdict)
	}
	add(3000, 24, 0)
	add(3000, 0, 9) // too late to count
	if x := d.Report(); x.Features[0].Verdict != "stable" || x.Rows != 6000 || x.Hours != 2 {
		t.Errorf("%d hours, %d rows, %s", x.Hours, x.Rows, x.Features[0].Verdict)
	}
	values, scores := [][]float64{draw(1, 0), draw(1, 0)}, draw(1, 0)
	if n := testing.AllocsPerRun(100, func() { d.Add(values, scores, 1, at+24*3600*datasets.Second) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
