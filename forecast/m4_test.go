package forecast

import (
	"encoding/csv"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

func readWide(t testing.TB, path string) map[string][]float64 {
	f, err := os.Open(path)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]float64{}
	for _, row := range rows {
		var v []float64
		ok := true
		for _, x := range row[1:] {
			if x == "" || x == "NA" {
				continue
			}
			n, err := strconv.ParseFloat(x, 64)
			if err != nil {
				ok = false
				break
			}
			v = append(v, n)
		}
		if ok {
			out[row[0]] = v
		}
	}
	return out
}

func TestScratchM4(t *testing.T) {
	names := os.Getenv("METHODS")
	if names == "" {
		t.Skip()
	}
	train, test := readWide(t, "/tmp/peers/m4/Hourly-train.csv"), readWide(t, "/tmp/peers/m4/Hourly-test.csv")
	p := &Panel{Step: Hour}
	longest := 0
	for _, y := range train {
		longest = max(longest, len(y))
	}
	hold, _ := strconv.Atoi(os.Getenv("HOLD"))
	for i := range longest - hold {
		p.Times = append(p.Times, int64(i)*3600e6)
	}
	var actual [][]float64
	for i := 1; i <= 414; i++ {
		k := fmt.Sprintf("H%d", i)
		y := train[k]
		if hold > 0 {
			actual = append(actual, y[len(y)-hold:][:48])
		} else {
			actual = append(actual, test[k][:48])
		}
		y = y[:len(y)-hold]
		p.Series = append(p.Series, Series{Key: k, First: len(p.Times) - len(y), Y: y})
	}
	for _, name := range split(names) {
		start := time.Now()
		fits, err := Run(p, name, Options{Horizon: 48, Threads: 2, Closed: AlwaysOpen(), Levels: m4Levels()})
		if err != nil {
			t.Fatal(err)
		}
		d := time.Since(start)
		cases := make([]Case, len(fits))
		for i := range fits {
			cases[i] = Case{History: p.Series[i].Y, Actual: actual[i], Forecast: fits[i]}
		}
		s, err := ScoreM4(cases, 24)
		if err != nil {
			t.Fatal(err)
		}
		var pin, cov [9]float64
		for i := range fits {
			abs, _ := ErrorScale(p.Series[i].Y, 24)
			for l, q := range m4Levels() {
				pin[l] += Pinball(actual[i], fits[i].Quantiles[l], q) / abs / 414
				cov[l] += Coverage(actual[i], fits[i].Quantiles[l]) / 414
			}
		}
		fmt.Printf("pin %.4f cov %.3f\n", pin, cov)
		fmt.Printf("%-24s sMAPE %.3f MASE %.3f OWA %.4f  %.2fs\n", name, s.SMAPE, s.MASE, s.OWA, d.Seconds())
	}
}

func split(s string) []string {
	var out []string
	cur := ""
	for _, c := range s {
		if c == ',' {
			out = append(out, cur)
			cur = ""
		} else {
			cur += string(c)
		}
	}
	return append(out, cur)
}

func m4Levels() []float64 {
	if os.Getenv("NOQ") != "" {
		return nil
	}
	return []float64{.025, .1, .5, .9, .975}
}
