package score

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/forecast"
)

const stockMapping = `
timezone: UTC
columns:
  trans_id: {type: int64}
  trans_datetime: {}
  product_id: {}
  store_id: {type: int64}
  quantity: {}
`

// stockEvents are the events of a text, a line each, at positions from 0 on in one of several partitions.
func stockEvents(t *testing.T, text string, partitions int) []Events {
	t.Helper()
	m, err := datasets.ParseMapping("stock", []byte(stockMapping))
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.NewEventDecoder("in")
	if err != nil {
		t.Fatal(err)
	}
	var all []Events
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		rows := datasets.NewBatch(Placed(m.LogSchema()), 1)
		if r := d.Append(rows, []byte(line), int64(i)); r != nil {
			t.Fatalf("%s: %s %s", line, r.Column, r.Reason)
		}
		Place(rows, int32(i%partitions), []int64{int64(i)})
		all = append(all, Events{Sources: []string{fmt.Sprintf("in/%d", i%partitions)}, Rows: rows, Positions: []int64{int64(i)}})
	}
	return all
}

// stockFolded is a scorer that has folded events, and its lines.
func stockFolded(t *testing.T, events []Events) (s *Scorer, out []byte) {
	t.Helper()
	m, err := datasets.ParseMapping("stock", []byte(stockMapping))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := features.Parse("count", []byte("name: count\ntimezone: UTC\nfeatures:\n  - {name: n, kind: count, key: store_id, windows: [ever]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	s, err = New(Options{Spec: spec, Schema: Placed(m.LogSchema()), Now: func() time.Time { return time.Unix(1_772_000_000, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	for _, ev := range events {
		if out, _, err = s.Process(ev, out); err != nil {
			t.Fatal(err)
		}
	}
	return s, out
}

const someStock = `
{"event":"stock","product_id":"milk","store_id":1,"quantity":7,"known_at":"2026-02-01T08:00:00Z"}
{"event":"stock","product_id":"milk","store_id":2,"quantity":0,"known_at":"2026-02-01T08:00:00Z"}
{"event":"stock","product_id":"milk","store_id":1,"quantity":0,"known_at":"2026-02-01T09:00:00Z"}
{"trans_id":1,"trans_datetime":"2026-02-01T09:30:00Z","product_id":"milk","store_id":1,"quantity":2}
{"event":"stock","product_id":"bread","quantity":3,"known_at":"2026-02-01T09:00:00Z"}
{"event":"stock","product_id":"bread","store_id":2,"quantity":0,"known_at":"2026-02-01T07:00:00Z"}
{"event":"stock","product_id":"salt","quantity":0,"known_at":"2026-02-01T09:00:00Z"}
{"event":"stock","product_id":"salt","quantity":9,"known_at":"2026-02-01T09:00:00Z"}
{"event":"stock","product_id":"salt","quantity":1,"known_at":"2026-02-01T06:00:00Z"}
{"event":"stock","product_id":"oil","quantity":0,"known_at":"2026-02-01T06:00:00Z"}
`

// TestStockIsOfTheLatestCounts: of each shelf the latest count is known, whatever the order in which counts came, and features
// and lines see none of them.
func TestStockIsOfTheLatestCounts(t *testing.T) {
	events := stockEvents(t, someStock, 1)
	var first []byte
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		s, out := stockFolded(t, events)
		if lines := bytes.Count(out, []byte("\n")); lines != 1 || !bytes.Contains(out, []byte(`"n":0`)) {
			t.Fatalf("%d lines: %s", lines, out)
		}
		if c := s.Counts(); c.Stock != 9 || c.Rejected != 0 {
			t.Fatalf("%+v", c)
		}
		for _, want := range []struct {
			product, store string
			units          float64
			known          bool
		}{
			{"milk", "", 0, true}, {"milk", "1", 0, true}, {"milk", "3", 0, false},
			{"bread", "", 3, true}, {"bread", "1", 3, true}, {"bread", "2", 0, true},
			{"salt", "", 9, true}, {"oil", "9", 0, true}, {"tea", "", 0, false},
		} {
			if units, known := s.stock.unitsOf(want.product, want.store); units != want.units || known != want.known {
				t.Fatalf("%s in store %q: %v, %v; want %v, %v", want.product, want.store, units, known, want.units, want.known)
			}
		}
		for store, want := range map[string][]string{"": {"milk", "oil"}, "1": {"milk", "oil"}, "2": {"bread", "milk", "oil"}, "3": {"oil"}} {
			if got := slices.Sorted(slices.Values(s.stock.goneFrom(store, nil))); !slices.Equal(got, want) {
				t.Fatalf("gone from store %q: %v, want %v", store, got, want)
			}
		}
		var b bytes.Buffer
		if err := s.stock.Snapshot(&b); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b.Bytes()
		}
		if !bytes.Equal(first, b.Bytes()) {
			t.Fatal("another order of the events gives another state")
		}
		again := newStock(0)
		if err := again.Restore(bytes.NewReader(first)); err != nil {
			t.Fatal(err)
		}
		var c bytes.Buffer
		if err := again.Snapshot(&c); err != nil || !bytes.Equal(c.Bytes(), first) || again.latest != s.stock.latest {
			t.Fatalf("restored: %v", err)
		}
		rnd.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	}
}

// TestStockOfTheFuture: a count that cannot have been made is told, and does not stand, however the log is cut; in a stream that
// lies in the future as a whole it can.
func TestStockOfTheFuture(t *testing.T) {
	for _, x := range []struct {
		log      string
		rejected int64
		units    float64
	}{
		{`
{"trans_id":1,"trans_datetime":"2026-02-01T07:30:00Z","product_id":"milk","store_id":1,"quantity":2}
{"event":"stock","product_id":"milk","quantity":7,"known_at":"2026-02-01T08:00:00Z"}
{"event":"stock","product_id":"milk","quantity":9,"known_at":"2062-02-01T08:00:00Z"}`, 1, 7},
		{`
{"trans_id":1,"trans_datetime":"2062-02-01T07:30:00Z","product_id":"milk","store_id":1,"quantity":2}
{"event":"stock","product_id":"milk","quantity":9,"known_at":"2062-02-01T08:00:00Z"}
{"event":"stock","product_id":"milk","quantity":-3,"known_at":"2062-02-01T09:00:00Z"}`, 0, -3},
	} {
		events := stockEvents(t, x.log, 1)
		whole := Events{Sources: []string{"in/0"}, Rows: datasets.NewBatch(events[0].Rows.Schema, 3)}
		for i, ev := range events {
			appendRow(whole.Rows, ev.Rows, 0)
			whole.Positions = append(whole.Positions, int64(i))
		}
		for _, pieces := range [][]Events{events, {whole}} {
			s, out := stockFolded(t, pieces)
			if told := int64(bytes.Count(out, []byte("has not come yet"))); told != x.rejected || s.Counts().Rejected != x.rejected {
				t.Errorf("%d pieces: %+v, %s", len(pieces), s.Counts(), out)
			}
			if units, _ := s.stock.unitsOf("milk", ""); units != x.units {
				t.Errorf("%d pieces: %v units", len(pieces), units)
			}
		}
	}
}

// TestStockWithDecimals: counts in kilograms are told as such, and a state of other decimals is refused.
func TestStockWithDecimals(t *testing.T) {
	s := newStock(2)
	s.set("flour", "1", level{units: 1250})
	if units, _ := s.unitsOf("flour", "1"); units != 12.5 {
		t.Errorf("%v", units)
	}
	var b bytes.Buffer
	if err := s.Snapshot(&b); err != nil {
		t.Fatal(err)
	}
	if err := newStock(0).Restore(bytes.NewReader(b.Bytes())); err == nil || !strings.Contains(err.Error(), "have 2 decimals, and the mapping's quantity has 0") {
		t.Error(err)
	}
	if again := newStock(2); again.Restore(&b) != nil || again.count != 1 {
		t.Error("not restored")
	}
}

// TestStockOverHTTP: products are told once however often they are named, in one store where one is asked for, and neither a
// long list nor all of many are.
func TestStockOverHTTP(t *testing.T) {
	s, _ := stockFolded(t, stockEvents(t, someStock, 1))
	m, err := datasets.ParseMapping("stock", []byte(stockMapping))
	if err != nil {
		t.Fatal(err)
	}
	h := NewServer(s, m, ServerOptions{}).Handler()
	get := func(query string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/v1/stock"+query, nil))
		return w.Code, w.Body.String()
	}
	const milk = `{"product_id":"milk","store_id":"2","on_hand":0,"known_at":"2026-02-01T08:00:00Z"}`
	if code, text := get("?products=milk,tea,milk&store=2"); code != 200 || strings.TrimSpace(text) != `{"until":"2026-02-01T09:00:00Z","levels":[`+milk+`]}` {
		t.Errorf("%d %s", code, text)
	}
	if code, text := get("?products=" + strings.Repeat("milk,", maxSeries) + "milk"); code != 400 || !strings.Contains(text, "1001 names, want at most 1000") {
		t.Errorf("%d %s", code, text)
	}
	for i := range maxLevels {
		s.stock.set(fmt.Sprint(i), "", level{units: 1})
	}
	if code, text := get(""); code != 400 || !strings.Contains(text, "there are 10006 counts: name up to 1000 products") {
		t.Errorf("%d %.200s", code, text)
	}
	if code, _ := get("?products=milk"); code != 200 {
		t.Error("a product cannot be asked for where there are many")
	}
}

// TestStockOutIsOfUnits: demand in money, or of the last quantity, says nothing of when units run out.
func TestStockOutIsOfUnits(t *testing.T) {
	target := func(kind features.Kind, of string) []features.PanelColumn {
		return []features.PanelColumn{{Name: "series", Role: features.RoleSeries}, {Name: "y", Role: features.RoleTarget, Kind: string(kind), Of: of}}
	}
	if !ofUnits(target(features.Sum, datasets.Quantity)) || ofUnits(target(features.Sum, datasets.Amount)) ||
		ofUnits(target(features.Last, datasets.Quantity)) || ofUnits(nil) {
		t.Error("which demand is of units")
	}
	answer := func(units bool) *float64 {
		two := 2.0
		a := ForecastAnswer{Steps: []string{"", ""}, levels: []float64{.1, .5, .9}, units: units, Forecasts: []SeriesForecast{{OnHand: &two,
			whole: &forecast.Forecast{Mean: []float64{1, 1}, Quantiles: [][]float64{{.5, .5}, {1, 1}, {1.5, 1.5}}}}}}
		a.runOut()
		return a.Forecasts[0].StockOut
	}
	if p := answer(true); p == nil || !(*p > .3 && *p < .7) {
		t.Errorf("two expected and two there: %v", p)
	}
	if p := answer(false); p != nil {
		t.Errorf("of a demand that is not of units: %v", *p)
	}
}

// TestDamagedStock: every cut and every other version is an error, and leaves what there is.
func TestDamagedStock(t *testing.T) {
	s, _ := stockFolded(t, stockEvents(t, someStock, 3))
	var b bytes.Buffer
	if err := s.stock.Snapshot(&b); err != nil {
		t.Fatal(err)
	}
	for cut := range b.Len() {
		other := newStock(0)
		other.set("tea", "", level{units: 4})
		if err := other.Restore(bytes.NewReader(b.Bytes()[:cut])); err == nil {
			t.Fatalf("the first %d of %d bytes are a stock", cut, b.Len())
		}
		if units, _ := other.unitsOf("tea", ""); units != 4 {
			t.Fatal("what there was is gone")
		}
	}
	text := strings.Replace(b.String(), "stock\x01", "stock\x02", 1)
	if err := newStock(0).Restore(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "no stock of this version") {
		t.Error(err)
	}
}
