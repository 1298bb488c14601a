package forecast

import (
	"compress/gzip"
	"encoding/csv"
	"os"
	"strconv"
	"testing"

	"github.com/onmart/onmart/internal/testkit"
)

// m4Hourly are the training parts of M4's hourly series without their last 48 values, which are the actual ones: a
// window before the competition's test.
func m4Hourly(t testing.TB) (p *Panel, actual [][]float64) {
	t.Helper()
	f, err := os.Open(testkit.SharedData(t, "m4-hourly/train.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(z)
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	const h = 48
	p = &Panel{Step: Hour}
	longest := 0
	for _, row := range rows {
		var y []float64
		for _, text := range row[1:] {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				break // the header, or the empty cells after a shorter series
			}
			y = append(y, v)
		}
		if len(y) > 2*h {
			p.Series = append(p.Series, Series{Key: row[0], Y: y[:len(y)-h]})
			actual = append(actual, y[len(y)-h:])
			longest = max(longest, len(y)-h)
		}
	}
	for i := range longest {
		p.Times = append(p.Times, int64(i)*3600e6)
	}
	for i := range p.Series {
		p.Series[i].First = longest - len(p.Series[i].Y)
	}
	return p, actual
}

func m4Score(t testing.TB, p *Panel, actual [][]float64, method string) M4 {
	t.Helper()
	fits, err := Means(p, method, Options{Horizon: 48, Threads: 2, Closed: AlwaysOpen()})
	if err != nil {
		t.Fatal(err)
	}
	cases := make([]Case, len(fits))
	for i := range fits {
		cases[i] = Case{History: p.Series[i].Y, Actual: actual[i], Forecast: Forecast{Mean: fits[i].Mean}}
	}
	s, err := ScoreM4(cases, 24)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestM4HourlyWindow(t *testing.T) {
	p, actual := m4Hourly(t)
	if len(p.Series) != 414 {
		t.Fatalf("%d series", len(p.Series))
	}
	// Naive2 as the competition's scorer has it on this window: sMAPE 19.225, MASE 2.455.
	s := m4Score(t, p, actual, "naive2")
	if s.OWA != 1 || !(s.SMAPE > 19.22 && s.SMAPE < 19.23) || !(s.MASE > 2.454 && s.MASE < 2.456) {
		t.Errorf("Naive2: %+v", s)
	}
	// Gradient-boosted trees over all series come to .515 to .535 here.
	if s := m4Score(t, p, actual, "ar"); !(s.OWA < .42) {
		t.Errorf("ar: OWA %.4f", s.OWA)
	}
}

func BenchmarkM4HourlyWindow(b *testing.B) {
	p, actual := m4Hourly(b)
	for _, m := range Methods() {
		b.Run(m.Name, func(b *testing.B) {
			var s M4
			for b.Loop() {
				s = m4Score(b, p, actual, m.Name)
			}
			b.ReportMetric(s.OWA, "OWA")
			b.ReportMetric(s.SMAPE, "sMAPE")
			b.ReportMetric(s.MASE, "MASE")
		})
	}
}
