package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model/recommender"
)

// shopDays is the length of the shop of these tests, which ends on 2026-04-04.
const (
	shopCut  = "2026-03-26" // the last day that the models learn from
	shopFrom = "2026-03-27"
)

// ok runs a command that has to succeed and returns its JSON.
func ok(t *testing.T, into any, args ...string) {
	t.Helper()
	if into != nil {
		args = append(args, "--json")
	}
	code, stdout, stderr := cli(t, args...)
	if code != 0 {
		t.Fatalf("%s: exit %d: %s", strings.Join(args, " "), code, stderr)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(stdout), into); err != nil {
			t.Fatalf("%s: %v: %.300s", strings.Join(args, " "), err, stdout)
		}
	}
}

// liveShop serves a forecaster and a recommender that learned a small shop up to shopCut.
func liveShop(t *testing.T) (*httptest.Server, *score.Scorer) {
	t.Helper()
	t.Chdir(t.TempDir())
	ok(t, nil, "mock", "--out", "shop", "--rows", "9000", "--days", "120", "--seed", "3")
	ok(t, nil, "train", "demand", "--data", "shop", "--spec", "shop-daily", "--out", "demand", "--train", "2025-12-06.."+shopCut, "--set", "network=false", "--horizon", "7")
	ok(t, nil, "train", "recommend", "--data", "shop", "--spec", "shop-interactions", "--out", "recommend", "--train", "2025-12-06.."+shopCut,
		"--set", "epochs=1", "--set", "folds=1", "--set", "horizon=14", "--set", "als_iterations=2")
	s, models, m := shopScorer(t)
	srv := httptest.NewServer(score.NewServer(s, m, score.ServerOptions{Models: models.answering}).Handler())
	t.Cleanup(srv.Close)
	return srv, s
}

// shopScorer follows the events of the shop with both models.
func shopScorer(t *testing.T) (*score.Scorer, *scored, *datasets.Mapping) {
	t.Helper()
	models, err := openScored([]string{"demand", "recommend"}, 2)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := models.input()
	if err != nil {
		t.Fatal(err)
	}
	m, err := datasets.MappingFor(schema)
	if err != nil {
		t.Fatal(err)
	}
	s, err := score.New(score.Options{Followers: models.followers, Schema: m.LogSchema()})
	if err != nil {
		t.Fatal(err)
	}
	return s, models, m
}

// get asks a server and returns the status, with the answer decoded into v where that is not nil.
func get(t *testing.T, url string, v any) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return answered(t, resp, v)
}

func post(t *testing.T, url, body string, v any) (int, string) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return answered(t, resp, v)
}

func answered(t *testing.T, resp *http.Response, v any) (int, string) {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if v != nil {
		if err := json.Unmarshal(b, v); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
	}
	return resp.StatusCode, string(b)
}

// shopEvents are the lines of a range of the shop, as a till sends them.
func shopEvents(t *testing.T, r string) []string {
	t.Helper()
	d, err := datasets.Open("shop")
	if err != nil {
		t.Fatal(err)
	}
	span, err := datasets.ParseRange(r)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := d.Read(context.Background(), datasets.ReadOptions{Range: span}, func(b *datasets.Batch) error {
		for i := range b.N {
			writeEvent(&text, b, i)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(text.String(), "\n"), "\n")
}

// A forecast after live events is the one that a backfill of the same events gives, to the bit.
func TestLiveForecastIsTheBackfills(t *testing.T) {
	srv, s := liveShop(t)
	lines := shopEvents(t, shopFrom+"..2026-04-03")
	for len(lines) > 0 {
		n := min(40, len(lines))
		var got struct{ Followed int }
		if code, text := post(t, srv.URL+"/v1/score", strings.Join(lines[:n], ""), &got); code != 200 || got.Followed != n {
			t.Fatalf("%d: %s, want %d transactions followed", code, text, n)
		}
		lines = lines[n:]
	}
	if c := s.Counts(); c.Rejected+c.Duplicates > 0 {
		t.Errorf("%+v", c)
	}
	var live score.ForecastAnswer
	if code, text := get(t, srv.URL+"/v1/forecast?series=P0000,P0003&horizon=5&levels=0.5,0.9", &live); code != 200 {
		t.Fatal(code, text)
	}
	until := live.History[:len("2026-04-02")]
	if until <= shopFrom {
		t.Fatalf("the history ends at %s: no live step was closed", live.History)
	}
	ok(t, nil, "features", "--spec", "shop-daily", "--in", "shop", "--out", "panel", "--range", "2025-12-06.."+dayBefore(t, until))
	var back forecastReport
	ok(t, &back, "forecast", "--model", "demand", "--data", "panel", "--series", "P0000", "--series", "P0003", "--horizon", "5", "--levels", "0.5,0.9")
	for i, f := range live.Forecasts {
		if want := back.Forecasts[i]; f.Series != want.Series || !reflect.DeepEqual(f.Mean, want.Mean) || !reflect.DeepEqual(f.Quantiles["0.9"], want.Quantiles["q90"]) {
			t.Errorf("live %v\nbackfill %v", f, want)
		}
	}
}

// dayBefore is the day before one.
func dayBefore(t *testing.T, day string) string {
	t.Helper()
	r, err := datasets.ParseRange(day + ".." + day)
	if err != nil {
		t.Fatal(err)
	}
	return datasets.FormatTime(r.From - datasets.Day)[:len(day)]
}

// What a user buys live is known to the next answer, and a state saved and taken up again answers alike.
func TestLiveRecommendations(t *testing.T) {
	srv, s := liveShop(t)
	var before, after score.RecommendAnswer
	const stranger = "999999"
	if code, text := get(t, srv.URL+"/v1/recommend?user="+stranger, &before); code != 200 || before.Known || len(before.Items) != defaultItems {
		t.Fatalf("%d %s", code, text)
	}
	for _, a := range before.Items {
		if a.Why.Kind != "popular" {
			t.Errorf("a stranger is offered %s because %q", a.Item, a.Why.Text)
		}
	}
	// The stranger buys; the spec holds a purchase for an hour, since it may have been a mistake.
	lines := shopEvents(t, shopFrom+"..2026-03-28")
	for i := range lines {
		var e map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &e); err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			e["user_id"] = json.Number(stranger)
			b, _ := json.Marshal(e)
			lines[i] = string(b) + "\n"
		}
	}
	if code, text := post(t, srv.URL+"/v1/score", strings.Join(lines, ""), nil); code != 200 {
		t.Fatal(code, text)
	}
	if code, text := get(t, srv.URL+"/v1/recommend?user="+stranger+"&k=5", &after); code != 200 || !after.Known || len(after.Items) != 5 {
		t.Fatalf("%d %s", code, text)
	}
	personal := false
	for _, a := range after.Items {
		personal = personal || a.Why.Kind != "popular"
	}
	if !personal {
		t.Errorf("nothing is offered for what was bought: %+v", after.Items)
	}
	var fresh score.RecommendAnswer
	get(t, srv.URL+"/v1/recommend?user="+stranger+"&k=5&exclude_bought=true", &fresh)
	for _, a := range fresh.Items {
		if a.Why.Kind == "bought_before" {
			t.Errorf("%s was bought and is offered", a.Item)
		}
	}
	if err := s.SaveState("state", false); err != nil {
		t.Fatal(err)
	}
	again, models, _ := shopScorer(t)
	if without, err := again.Warm("state"); err != nil || len(without) > 0 {
		t.Fatal(without, err)
	}
	list, err := models.answering.Recommender.Recommend(recommender.Request{User: stranger, K: 5})
	if err != nil || !reflect.DeepEqual(list.Items, after.Items) {
		t.Errorf("after a restart %+v, before %+v (%v)", list, after.Items, err)
	}
}

// What events of stock say is gone is not offered, a forecast says how long what is there will last, and a state that was saved
// knows both.
func TestLiveStock(t *testing.T) {
	srv, s := liveShop(t)
	offered := func(query string) map[string]bool {
		t.Helper()
		var a score.RecommendAnswer
		if code, text := get(t, srv.URL+"/v1/recommend?user=999999&k=5"+query, &a); code != 200 || len(a.Items) == 0 {
			t.Fatalf("%d %s", code, text)
		}
		items := map[string]bool{}
		for _, x := range a.Items {
			items[x.Item] = true
		}
		return items
	}
	count := func(product, store string, units int, minute int) string {
		if store != "" {
			store = `,"store_id":` + store
		}
		return fmt.Sprintf(`{"event":"stock","product_id":%q%s,"quantity":%d,"known_at":"2026-03-27T08:%02d:00Z"}`+"\n", product, store, units, minute)
	}
	before := slices.Sorted(maps.Keys(offered("")))
	first, second := before[0], before[1]
	var got struct{ Followed, Stock int }
	body := count(first, "", 0, 1) + count(second, "3", 9, 1) + count(second, "3", 0, 2) + count("P0000", "", 1, 0) + count("P0003", "", 100000, 0)
	if code, text := post(t, srv.URL+"/v1/score", body, &got); code != 200 || got.Stock != 5 || got.Followed != 0 {
		t.Fatalf("%d %s", code, text)
	}
	for _, x := range []struct {
		query         string
		first, second bool
	}{
		{"", false, false}, {"&store=3", false, false}, {"&store=4", false, true},
		{"&in_stock=" + strings.Join(before, ","), true, true},
	} {
		if items := offered(x.query); items[first] != x.first || items[second] != x.second {
			t.Errorf("%q offers %v; %s %v, %s %v", x.query, items, first, x.first, second, x.second)
		}
	}
	var a score.ForecastAnswer
	if code, text := get(t, srv.URL+"/v1/forecast?series=P0000,P0001,P0003&horizon=5", &a); code != 200 {
		t.Fatal(code, text)
	}
	if scarce, unknown, plenty := a.Forecasts[0], a.Forecasts[1], a.Forecasts[2]; *scarce.OnHand != 1 || !(*scarce.StockOut > .2) ||
		*plenty.OnHand != 100000 || *plenty.StockOut > 1e-6 || !(unknown.OnHand == nil && unknown.StockOut == nil || unknown.Series == first || unknown.Series == second) {
		t.Errorf("%+v", a.Forecasts)
	}
	var levels score.StockAnswer
	if code, text := get(t, srv.URL+"/v1/stock?products=P0000,"+second, &levels); code != 200 || len(levels.Levels) != 2 {
		t.Fatalf("%d %s", code, text)
	}
	if err := s.SaveState("state", false); err != nil {
		t.Fatal(err)
	}
	again, models, m := shopScorer(t)
	if _, err := again.Warm("state"); err != nil {
		t.Fatal(err)
	}
	other := httptest.NewServer(score.NewServer(again, m, score.ServerOptions{Models: models.answering}).Handler())
	defer other.Close()
	var after score.StockAnswer
	if code, text := get(t, other.URL+"/v1/stock?products=P0000,"+second, &after); code != 200 || !reflect.DeepEqual(after, levels) {
		t.Errorf("%d %s, want %+v", code, text, levels)
	}
}

// defaultItems is how many items a list has where k is not given.
const defaultItems = 10

func TestLiveRequestsThatCannotBeAnswered(t *testing.T) {
	srv, _ := liveShop(t)
	for _, c := range []struct {
		path, body string
		code       int
		want       string
	}{
		{"/v1/forecast", "", 400, "series: 0 keys, want 1 to 1000"},
		{"/v1/forecast?series=nope", "", 404, "there is no series \\\"nope\\\""},
		{"/v1/forecast?series=P0000&horizon=-1", "", 400, "a horizon of -1 steps"},
		{"/v1/forecast?series=P0000&horizon=x", "", 400, "parameter horizon: \\\"x\\\" is no whole number"},
		{"/v1/forecast?series=P0000&levels=0.9,0.5", "", 400, "ascending"},
		{"/v1/forecast?series=P0000&method=magic", "", 400, "magic"},
		{"/v1/forecast?serie=P0000", "", 400, "parameter \\\"serie\\\" is not known: want series, horizon, levels, method"},
		{"/v1/forecast", `{"series":["P0000"],"hozirzon":3}`, 400, "unknown field"},
		{"/v1/forecast", `{"series":["P0000"]} {}`, 400, "text after the JSON object"},
		{"/v1/recommend?k=0", "", 400, "k"},
		{"/v1/recommend?k=1000000", "", 400, "10000"},
		{"/v1/recommend?basket=nope", "", 400, "none of the basket's items (nope) was ever sold"},
		{"/v1/recommend?exclude_bought=maybe", "", 400, "is not true or false"},
	} {
		var code int
		var text string
		if c.body == "" {
			code, text = get(t, srv.URL+c.path, nil)
		} else {
			code, text = post(t, srv.URL+c.path, c.body, nil)
		}
		if code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("%s %s: %d %s, want %d with %q", c.path, c.body, code, text, c.code, c.want)
		}
	}
	var list score.RecommendAnswer
	if code, text := post(t, srv.URL+"/v1/recommend", `{"basket":["P0000","nope"],"k":3}`, &list); code != 200 || fmt.Sprint(list.Ignore) != "[nope]" || len(list.Items) == 0 {
		t.Errorf("%d %s", code, text)
	}
	for i := 1; i < len(list.Items); i++ {
		if !(list.Items[i].Score <= list.Items[i-1].Score) || math.IsNaN(list.Items[i].Score) {
			t.Errorf("not best first: %+v", list.Items)
		}
	}
	var models struct{ Models []struct{ Task string } }
	if code, text := get(t, srv.URL+"/v1/models", &models); code != 200 || len(models.Models) != 2 || models.Models[0].Task != "demand" {
		t.Errorf("%d %s", code, text)
	}
}
