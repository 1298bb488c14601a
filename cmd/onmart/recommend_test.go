package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
)

// recommendShop trains on a small shop in the working directory.
func recommendShop(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, args := range [][]string{
		{"mock", "--out", "shop", "--rows", "20000", "--seed", "1"},
		{"train", "recommend", "--data", "shop", "--spec", "shop-interactions", "--out", "offers", "--train", "..2026-02-28",
			"--test", "2026-03-01..2026-03-31",
			"--device", "cpu", "--set", "epochs=1", "--set", "folds=1", "--set", "als_factors=8"},
	} {
		if code, _, stderr := cli(t, append([]string{"-q"}, args...)...); code != 0 {
			t.Fatalf("%v: %s", args, stderr)
		}
	}
}

type recommended struct {
	User  string
	Known *bool
	Items []struct {
		Item  string
		Score float64
		Why   struct {
			Kind, Text string
			Confidence float64
		}
	}
	NeverSold []string `json:"never_sold"`
	Users     int
	Rows      int
}

func ask(t *testing.T, args ...string) recommended {
	t.Helper()
	code, stdout, stderr := cli(t, append([]string{"-q", "recommend", "--model", "offers", "--json"}, args...)...)
	if code != 0 {
		t.Fatalf("%v: %s", args, stderr)
	}
	var a recommended
	if err := json.Unmarshal([]byte(stdout), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *recommended) has(item string) bool {
	for _, x := range a.Items {
		if x.Item == item {
			return true
		}
	}
	return false
}

func TestRecommend(t *testing.T) {
	recommendShop(t)
	some := ask(t, "--user", "17", "-k", "5")
	if len(some.Items) != 5 || !*some.Known || some.Items[0].Why.Text == "" {
		t.Fatalf("%+v", some)
	}
	first := some.Items[0].Item
	fresh := ask(t, "--user", "17", "--exclude-bought")
	if fresh.has(first) && some.Items[0].Why.Kind == "bought_before" {
		t.Errorf("%s was bought before: %+v", first, fresh)
	}
	stranger := ask(t, "--user", "stranger", "--recent", first+",never", "--exclude-bought", "-k", "3")
	if *stranger.Known || len(stranger.Items) != 3 || stranger.has(first) ||
		!slices.Equal(stranger.NeverSold, []string{"never"}) {
		t.Errorf("%+v", stranger)
	}
	basket := ask(t, "--basket", first)
	if len(basket.Items) == 0 || basket.has(first) || basket.Items[0].Why.Kind != "together" ||
		!(basket.Items[0].Why.Confidence > 0) {
		t.Errorf("with %s: %+v", first, basket)
	}
	for name, text := range map[string]string{"stock.csv": "product_id,on_hand\n" + first + ",0\n" + some.Items[1].Item + ",2\n", "list.csv": first + "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(t, "--user", "17", "--in-stock", "stock.csv"); len(got.Items) != 1 || !got.has(some.Items[1].Item) {
		t.Errorf("in stock is one item: %+v", got)
	}
	if got := ask(t, "--user", "17", "--not-for-sale", "list.csv", "-k", "4"); len(got.Items) != 4 || got.has(first) {
		t.Errorf("%s is not for sale: %+v", first, got)
	}
	all := ask(t, "--all", "--out", "lists.parquet", "-k", "5")
	rows, err := datasets.ReadTable("lists.parquet")
	if err != nil {
		t.Fatal(err)
	}
	if rows.N != all.Rows || rows.N != 5*all.Users {
		t.Errorf("%d rows, %d said, of %d users", rows.N, all.Rows, all.Users)
	}
	var list []string
	for i := range rows.N {
		if rows.Column("user_id").Ints[i] == 17 {
			list = append(list, rows.Column("product_id").Strings[i])
		}
	}
	for i, x := range some.Items {
		if list[i] != x.Item {
			t.Errorf("user 17 gets %v in the file and %+v alone", list, some.Items)
		}
	}
	code, stdout, stderr := cli(t, "-q", "evaluate", "--model", "offers", "--data", "shop", "--json")
	var e map[string]any
	if err := json.Unmarshal([]byte(stdout), &e); code != 0 || err != nil {
		t.Fatalf("%s: %v", stderr, err)
	}
	for _, name := range []string{"ndcg_at_10", "recall_at_10", "hit_rate_at_10", "new_ndcg_at_10"} {
		if v, ok := e[name].(float64); !ok || !(v > 0 && v <= 1) {
			t.Errorf("%s is %v", name, e[name])
		}
	}
	if list, ok := e["baselines"].([]any); !ok || len(list) < 6 {
		t.Errorf("baselines %v", e["baselines"])
	}
	if code, stdout, _ := cli(t, "-q", "inspect", "offers"); code != 0 ||
		!strings.Contains(stdout, "answers    by blend") {
		t.Errorf("inspect: %s", stdout)
	}
}

func TestRecommendCalledWrongly(t *testing.T) {
	recommendShop(t)
	for name, text := range map[string]string{"two.csv": "sku,price\nA,1\n", "bad.csv": "product_id,on_hand\nA,lots\n",
		"empty.csv": ""} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"recommend --model offers", 2, "nobody to answer for"},
		{"recommend --user 1", 2, "--model is missing"},
		{"recommend --model offers --user 1 --basket P0001", 2, "ask for one of them"},
		{"recommend --model offers --user 1 -k 0", 2, "-k 0"},
		{"recommend --model offers --all", 2, "belong together"},
		{"recommend --model offers --all --out lists.csv", 2, "ends in .parquet"},
		{"recommend --model offers --basket P0001 --exclude-bought", 2, "of users"},
		{"recommend --model offers --basket ,", 2, "no items there"},
		{"recommend --model offers --basket never", 1, "ever sold"},
		{"recommend --model shop --user 1", 1, "not a model"},
		{"recommend --model offers --user 1 --in-stock none.csv", 1, "none.csv"},
		{"recommend --model offers --user 1 --in-stock two.csv", 1, "want product_id"},
		{"recommend --model offers --user 1 --in-stock bad.csv", 1, "want a number"},
		{"recommend --model offers --user 1 --in-stock empty.csv", 1, "is empty"},
		{"predict --model offers --data shop --out p.parquet", 2, "onmart recommend --model offers --all"},
		{"evaluate --model offers --data shop --delay 7d", 2, "is a recommender"},
		{"evaluate --model offers --data shop --test 2031-01-01..2031-02-01", 1, "no purchases in"},
		{"train recommend --data shop --out x --spec fraud-handbook", 1, "interactions"},
		{"train recommend --data shop --out x --set model=best --set folds=0 --device cpu", 2, "want one of blend"},
		{"train recommend --out x", 2, "--data is missing"},
		{"train recommend --data shop --spec shop-interactions --out offers", 1, "--force"},
		{"train recommend --data shop --spec shop-interactions --out x --train 2031-01-01..2031-02-01", 1,
			"no purchases there"},
		{"forecast --model offers", 1, "train demand"},
	} {
		code, stdout, stderr := cli(t, append([]string{"-q"}, strings.Fields(test.args)...)...)
		if code != test.code || !strings.Contains(stderr, test.want) || stdout != "" {
			t.Errorf("%s: exit %d, %q; want %d with %q", test.args, code, stderr, test.code, test.want)
		}
	}
	if left, _ := filepath.Glob("x*"); left != nil {
		t.Errorf("left behind: %v", left)
	}
}
