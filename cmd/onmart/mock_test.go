package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets/mock"
)

// TestMockCheck makes a small shop and measures it, then measures it again, and once with another truth.
func TestMockCheck(t *testing.T) {
	t.Chdir(t.TempDir())
	made := good(t, "mock --out shop --rows 40000 --days 120 --check --json")
	var a, b struct {
		Out   string
		Rows  int64
		Truth *mock.Truth
		Check *mock.Report
	}
	if err := json.Unmarshal([]byte(made), &a); err != nil {
		t.Fatalf("%v in %s", err, made)
	}
	if a.Out != "shop" || a.Truth == nil || a.Truth.Lines != a.Rows || a.Check == nil || a.Check.Found < 40 ||
		a.Check.NotFound != 0 {
		t.Errorf("%.300s", made)
	}
	again := good(t, "mock --check shop --json")
	if err := json.Unmarshal([]byte(again), &b); err != nil {
		t.Fatalf("%v in %s", err, again)
	}
	if b.Truth != nil || b.Rows != a.Rows || b.Check.Found != a.Check.Found {
		t.Errorf("%.300s", again)
	}
	for _, want := range []string{"toys ", "price elasticity", "planted  measured", " found ", " effects found in ",
		"unclear for want of data"} {
		if text := good(t, "mock --check shop"); !strings.Contains(text, want) {
			t.Errorf("the table does not say %q:\n%s", want, text)
		}
	}
	path := filepath.Join("shop", mock.TruthFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, strings.Replace(string(text), `"stolen_card_times": 5`, `"stolen_card_times": 25`, 1))
	code, stdout, stderr := cli(t, "mock", "--check", "shop")
	if code != 1 || !strings.Contains(stderr, "1 of ") || !strings.Contains(stderr,
		"planted effects were not found") || !strings.Contains(stdout, " off ") {
		t.Errorf("with another truth: exit %d, %s", code, stderr)
	}
}

// TestMockCheckAlone leaves nothing behind.
func TestMockCheckAlone(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("TMPDIR", t.TempDir())
	if out := good(t, "mock --check --rows 5000 --days 30"); strings.Contains(out, "shop:") {
		t.Errorf("it names a shop that is gone:\n%s", out)
	}
	for _, dir := range []string{".", os.Getenv("TMPDIR")} {
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s holds %v (%v)", dir, left, err)
		}
	}
}

func TestMockRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	good(t, "mock --out shop --rows 300 --days 5")
	for line, want := range map[string]string{
		"mock":                                                  "--out is missing: name the directory to make",
		"mock shop":                                             "shop: a shop is made in --out shop, or checked with --check shop",
		"mock --check shop --rows 5":                            "--check shop --rows: a shop that exists is only measured",
		"mock --out a --days 0":                                 "--days 0: want 1 or more",
		"mock --out a --users 0":                                "--users 0: want 1 or more",
		"mock --out a --days 5000":                              "days is 5000: want 1 to 3650",
		"mock --out a --products 7":                             "products is 7: want 8 to 65536",
		"mock --out a --stores 2":                               "stores is 2: want 4",
		"mock --out a --start 2026-02-30":                       `--start "2026-02-30": want a day such as 2026-01-05`,
		"mock --out a --start 1969-01-01":                       "want a midnight UTC from 1970 to 2100",
		"mock --out a --users 90000000":                         "users is 90000000",
		"mock --out a --rows 99 --products 9999 --users 999999": "need 38143 MB for their tastes",
	} {
		refused(t, line, 2, []string{want})
	}
	refused(t, "mock --out shop --rows 300", 1, []string{"shop", "--force"})
	refused(t, "mock --check nowhere", 1, []string{"nowhere"})
	if err := os.Remove(filepath.Join("shop", mock.TruthFile)); err != nil {
		t.Fatal(err)
	}
	refused(t, "mock --check shop", 1, []string{"shop has no truth.json: it is not a shop that onmart mock made"})
}
