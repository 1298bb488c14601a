package main

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/testkit"
)

// demandShop makes a shop and a forecaster of its demand, with a small network.
func demandShop(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	good(t, "-q mock --out shop --rows 15000 --days 160 --products 25 --users 120 --stores 5 --seed 1")
	good(
		t,
		"-q train demand --data shop --spec shop-daily --out demand --horizon 7 --test 2026-03-29..2026-04-04 --device cpu --threads 1"+
			" --set hidden=8 --set towers=1 --set epochs=1 --set rows=4000 --set folds=1",
	)
}

func TestForecast(t *testing.T) {
	doc, err := os.ReadFile(testkit.Root(t) + "/docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	demandShop(t)
	type reply struct {
		Horizon, Series int
		From            string
		Forecasts       []struct {
			Series    string
			Steps     []string
			Mean      []float64
			Quantiles map[string][]float64
		}
	}
	var r reply
	decode := func(line string) {
		t.Helper()
		r = reply{}
		if err := json.Unmarshal([]byte(good(t, "-q --json forecast --model demand "+line)), &r); err != nil {
			t.Fatal(err)
		}
	}
	decode("--series P0003 --series P0001 --horizon 9 --levels .1,.5,.9")
	if r.Series != 2 || r.From != "2026-03-29T00:00:00Z" || r.Forecasts[0].Series != "P0003" ||
		len(r.Forecasts[1].Mean) != 9 {
		t.Fatalf("%+v", r)
	}
	for _, f := range r.Forecasts {
		for k := range f.Mean {
			if !(f.Mean[k] >= 0 && f.Quantiles["q10"][k] <= f.Quantiles["q50"][k] && f.Quantiles["q50"][k] <= f.Quantiles["q90"][k]) {
				t.Errorf("%s, step %d: mean %v, quantiles %v", f.Series, k, f.Mean[k], f.Quantiles)
			}
		}
	}
	for _, method := range []string{"network", "tsb", "ets"} {
		before := r.Forecasts[0].Mean
		decode("--series P0003 --series P0001 --horizon 9 --method " + method)
		if len(r.Forecasts[0].Mean) != 9 || math.Abs(r.Forecasts[0].Mean[2]-before[2]) == 0 {
			t.Errorf("method %s: %v, before %v", method, r.Forecasts[0].Mean, before)
		}
	}

	// A file has all series; a newer history moves the beginning.
	good(t, "-q forecast --model demand --data shop --out f.parquet")
	b, err := datasets.ReadTable("f.parquet")
	if err != nil {
		t.Fatal(err)
	}
	if b.N%7 != 0 || b.N < 20*7 || b.Column("q97_5") == nil || b.Column("method").Strings[0] != "combination" {
		t.Errorf("%d rows of %v", b.N, b.Schema.Fields)
	}
	if first := datasets.FormatTime(b.Column("step").Ints[0]); first != "2026-04-05T00:00:00Z" {
		t.Errorf("after the newer history it begins at %s", first)
	}
	if text := good(t, "-q forecast --model demand"); !strings.Contains(text, "sums of the mean over 7 steps") ||
		!strings.Contains(text, "more: --series KEY") {
		t.Errorf("many series: %s", text)
	}

	// Components sum to the value.
	good(t, "-q forecast --model demand --components --series P0001 --out c.parquet")
	if b, err = datasets.ReadTable("c.parquet"); err != nil {
		t.Fatal(err)
	}
	ahead := 0
	for i := range b.N {
		value := func(name string) float64 { return b.Column(name).Floats[i] }
		if sum := value("level") + value("season_1") + value("remainder"); b.Column("closed").Ints[i] == 0 &&
			!(math.Abs(sum-value("value")) < 1e-6) {
			t.Fatalf("row %d: %v from parts, value %v", i, sum, value("value"))
		}
		if b.Column("ahead").Ints[i] > 0 {
			ahead++
		}
	}
	if ahead != 7 {
		t.Errorf("%d steps ahead", ahead)
	}
	if text := good(t, "-q forecast --model demand --components --series P0001"); strings.Count(text, "forecast") != 7 {
		t.Errorf("components: %s", text)
	}

	// Two of its methods lose somewhere or not: what matters is that it is said and that the figures are there.
	var e struct {
		Task      string
		Rmsse     *float64
		Pinball90 *float64 `json:"pinball_90"`
		Baselines []struct{ Name string }
		LosesTo   []struct{ Metric string } `json:"loses_to"`
	}
	line := "-q --json evaluate --model demand --data shop --test 2026-03-29..2026-04-04"
	if err := json.Unmarshal([]byte(good(t, line)), &e); err != nil || e.Rmsse == nil || e.Pinball90 == nil ||
		e.Task != "demand" ||
		len(e.Baselines) < 5 {
		t.Errorf("evaluate: %+v, %v", e, err)
	}
	var all map[string]any
	if err := json.Unmarshal([]byte(good(t, line)), &all); err != nil {
		t.Fatal(err)
	}
	for name := range all {
		if level, ok := strings.CutPrefix(name, "pinball_"); ok {
			name = strings.Replace(name, level, "50", 1)
		} else if _, ok := strings.CutPrefix(name, "wpinball_"); ok {
			name = "wpinball_50"
		} else if _, ok := strings.CutPrefix(name, "coverage_"); ok {
			name = "coverage_50"
		}
		if _, figure := all[name].(float64); figure && !strings.Contains(string(doc), "`"+name+"`") &&
			!strings.Contains(name, "seconds") && !strings.Contains(name, "second") && name != "series" && name != "origins" {
			t.Errorf("docs/METRICS.md does not describe %s", name)
		}
	}
	if code, _, stderr := cli(t, strings.Fields(line+" --require-beat")...); (code != 0) != (len(e.LosesTo) > 0) {
		t.Errorf("--require-beat: exit %d (%s), loses to %v", code, stderr, e.LosesTo)
	}
	if text := good(t, "inspect demand"); !strings.Contains(text, "is a model for demand") ||
		!strings.Contains(text, "7 steps ahead") {
		t.Errorf("inspect: %s", text)
	}
}

func TestOrders(t *testing.T) {
	demandShop(t)
	type order struct {
		Series                string
		Lead, Review          int
		Quantity              float64 `json:"order_quantity"`
		Target                float64 `json:"order_up_to"`
		Expected              float64 `json:"expected_demand"`
		Safety                float64 `json:"safety_stock"`
		Service               float64
		RunsOut, WithoutOrder float64
	}
	orders := func(line string) map[string]order {
		t.Helper()
		var r struct{ Orders []order }
		if err := json.Unmarshal([]byte(good(t, "-q --json forecast --model demand --orders "+line)), &r); err != nil {
			t.Fatal(err)
		}
		out := map[string]order{}
		for _, o := range r.Orders {
			out[o.Series] = o
		}
		return out
	}
	writeFile(
		t,
		"stock.csv",
		"series,on_hand,on_order,lead,review,service,pack,colour\nP0000,3,1,2,5,.9,6,red\nP0001,100000,,,,,,\n",
	)
	some := orders("--stock stock.csv --lead 1 --review 3 --service .98")
	a := some["P0000"]
	if a.Lead != 2 || a.Review != 5 || a.Service != .9 || math.Mod(a.Quantity, 6) != 0 || !(a.Quantity >= a.Target-4) ||
		!(math.Abs(a.Target-a.Expected-a.Safety) < 1e-9) {
		t.Errorf("an item with a policy of its own: %+v", a)
	}
	if b := some["P0001"]; b.Quantity != 0 || b.Lead != 1 || b.Service != .98 {
		t.Errorf("an item with more than it needs: %+v", b)
	}
	if c := some["P0002"]; !(c.Quantity >= c.Target) {
		t.Errorf("an item without a row has nothing: %+v", c)
	}
	// The newsvendor: a shortage that costs four times as much is .8.
	costs := orders("--stock 5 --lead 1 --review 3 --shortage 4 --excess 1")
	if o := costs["P0000"]; o.Service != .8 || o.Expected == 0 {
		t.Errorf("by costs: %+v", o)
	}
	// More service, more stock; a longer wait, more demand.
	low, high, long := orders("--service .7")["P0000"], orders("--service .97")["P0000"], orders("--service .7 --lead 5")["P0000"]
	if !(low.Target < high.Target) || !(low.Expected < long.Expected) {
		t.Errorf(
			"order up to %v at .7 and %v at .97; expected %v in 7 days and %v in 12",
			low.Target,
			high.Target,
			low.Expected,
			long.Expected,
		)
	}
	good(t, "-q forecast --model demand --orders --stock shop/stock.parquet --out o.parquet")
	b, err := datasets.ReadTable("o.parquet")
	if err != nil || b.N < 20 || b.Column("safety_stock") == nil {
		t.Errorf("orders in a file: %v", err)
	}
}

func TestForecastCalledWrongly(t *testing.T) {
	demandShop(t)
	writeFile(t, "nokey.csv", "item,on_hand\nP0000,1\n")
	writeFile(t, "text.csv", "series,on_hand\nP0000,many\n")
	writeFile(t, "twice.csv", "series,on_hand\nP0000,1\nP0000,2\n")
	for _, c := range []struct {
		line  string
		code  int
		parts []string
	}{
		{"forecast", 2, []string{"--model is missing", "onmart train demand"}},
		{"forecast --model demand --out f.csv", 2, []string{"--out f.csv", ".parquet"}},
		{"forecast --model demand --horizon -1", 2, []string{"--horizon -1", "1 to"}},
		{"forecast --model demand --levels .9,.1", 2, []string{"--levels .9,.1", "ascending"}},
		{"forecast --model demand --components --orders", 2, []string{"--components and --orders"}},
		{"forecast --model demand --stock 3", 2, []string{"--stock is for --orders"}},
		{"forecast --model demand --orders --shortage 3", 2, []string{"--excess 0", "--service"}},
		{"forecast --model demand --orders --review 0", 2, []string{"--review 0", "at least 1"}},
		{"forecast --model nothing", 1, []string{"nothing", "no such directory"}},
		{"forecast --model demand --series P9999", 1, []string{`no series "P9999"`, "sold nothing"}},
		{"forecast --model demand --method magic", 1, []string{`method "magic"`, "want one of", "combination"}},
		{"forecast --model demand --levels .99", 1, []string{"level 0.99", "0.05 to 0.975"}},
		{"forecast --model demand --orders --stock nokey.csv", 1, []string{"nokey.csv", "want series and on_hand"}},
		{"forecast --model demand --orders --stock text.csv", 1, []string{"text.csv", "row 1", "on_hand", `"many" is no number`}},
		{"forecast --model demand --orders --stock twice.csv", 1, []string{"twice.csv", "row 2", `"P0000"`}},
		{"forecast --model demand --orders --stock gone.csv", 1, []string{"gone.csv", "no such file"}},
		{"predict --model demand --data shop --out p.parquet", 1, []string{"task demand", "onmart forecast"}},
		{"evaluate --model demand --data shop --delay 7d", 2, []string{"--delay", "fraud"}},
		{"evaluate --model demand --data shop --test 2030-01-01..2030-01-07", 1, []string{"no steps in"}},
		{"train demand", 2, []string{"--data is missing", "--out is missing"}},
		{"train demand --data shop --spec fraud-handbook --out m", 1, []string{"features"}},
		{"train demand --data shop --spec shop-daily --out m --train 2020-01-01..2020-02-01", 1, []string{"no steps before", "it reaches from"}},
		{"train demand --data shop --spec shop-daily --out m --horizon -3 --set epochs=x", 2, []string{"--horizon -3", "--set epochs=x"}},
		{"train demand --data shop --spec shop-daily --out demand", 1, []string{"demand", "--force"}},
	} {
		left := append([]string{}, tree(t)...)
		code, stdout, stderr := cli(t, strings.Fields("-q "+c.line)...)
		if code != c.code || stdout != "" {
			t.Errorf("onmart %s: exit %d, want %d: %s%s", c.line, code, c.code, stdout, stderr)
		}
		lacks(t, c.line, stderr, c.parts)
		for _, n := range tree(t) {
			if strings.HasPrefix(n, "m") && n != "m" || n == "p.parquet" || n == "f.csv" {
				t.Errorf("onmart %s left %s (there were %d)", c.line, n, len(left))
			}
		}
	}
}
