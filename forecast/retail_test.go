package forecast

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"
)

func TestScratchRetail(t *testing.T) {
	names := os.Getenv("METHODS")
	if names == "" {
		t.Skip()
	}
	cuts := []string{"2011-06-14", "2011-07-12", "2011-08-09", "2011-09-06"}
	if c := os.Getenv("CUT"); c != "" {
		cuts = []string{c}
	}
	levels := []float64{.5, .9, .95}
	for _, name := range split(names) {
		var mean [8]float64
		var each string
		var took time.Duration
		for _, cut := range cuts {
			b, err := os.ReadFile("/tmp/classical/panels/" + cut + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var d struct {
				Y, Test [][]float64
				W       []float64
				First   []int
				N0      int
			}
			if err := json.Unmarshal(b, &d); err != nil {
				t.Fatal(err)
			}
			p := &Panel{Step: Day}
			for i := range d.N0 {
				p.Times = append(p.Times, time.Date(2010, 12, 1+i, 0, 0, 0, 0, time.UTC).UnixMicro())
			}
			for i, y := range d.Y {
				p.Series = append(p.Series, Series{First: d.First[i], Y: y})
			}
			start := time.Now()
			f, err := Run(p, name, Options{Horizon: 28, Threads: 2, Levels: levels})
			if err != nil {
				t.Fatal(err)
			}
			took += time.Since(start)
			var cases []Case
			for i := range f {
				cases = append(cases, Case{History: p.Series[i].Y, Actual: d.Test[i], Forecast: f[i], Weight: d.W[i]})
			}
			s, err := Score(cases, levels)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range append([]float64{s.RMSSE, s.WRMSSE, s.Bias}, append(s.Pinball, s.Coverage[1], s.Coverage[2])...) {
				mean[k] += v / float64(len(cuts))
			}
			each += fmt.Sprintf(" %.3f/%.3f", s.RMSSE, s.WRMSSE)
		}
		fmt.Printf("%-24s RMSSE %.4f WRMSSE %.4f bias %.3f pin %.4f %.4f %.4f cov %.3f %.3f | %s %.2fs\n", name, mean[0], mean[1], mean[2], mean[3], mean[4], mean[5], mean[6], mean[7], each, took.Seconds())
	}
}
