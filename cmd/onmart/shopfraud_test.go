package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
)

// A model whose features join tables carries them, with the state at the end of its training: events that follow get
// the scores that predict gives for the same lines, to the bit.
func TestShopFraudLiveIsPredicted(t *testing.T) {
	t.Chdir(t.TempDir())
	ok(t, nil, "mock", "--out", "shop", "--rows", "12000", "--days", "120", "--seed", "4")
	ok(t, nil, "train", "fraud", "--data", "shop", "--spec", "shop-fraud", "--out", "model", "--train", "2026-01-10.."+shopCut,
		"--set", "epochs=1", "--set", "hidden=8", "--set", "towers=1")
	for _, table := range []string{"users", "stores", "products"} {
		if _, err := os.Stat("model/tables/" + table + ".parquet"); err != nil {
			t.Error(err)
		}
	}
	ok(t, nil, "predict", "--model", "model", "--data", "shop", "--range", shopFrom+"..", "--out", "predicted.parquet")
	want, err := datasets.ReadTable("predicted.parquet")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("events.jsonl", []byte(strings.Join(shopEvents(t, shopFrom+".."), "")), 0o666); err != nil {
		t.Fatal(err)
	}
	ok(t, nil, "score", "--model", "model", "--source", "events.jsonl", "--sink", "scores.jsonl", "--explain", "off")
	text, err := os.ReadFile("scores.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != want.N || want.N < 500 {
		t.Fatalf("%d scores, %d predictions", len(lines), want.N)
	}
	for i, l := range lines {
		var got struct {
			TransID int64 `json:"trans_id"`
			Scores  struct{ Fraud float64 }
		}
		if err := json.Unmarshal([]byte(l), &got); err != nil {
			t.Fatal(err)
		}
		if got.TransID != want.Column(datasets.TransID).Ints[i] || got.Scores.Fraud != want.Column("score").Floats[i] {
			t.Fatalf("line %d: %s, predicted %v", i, l, want.Column("score").Floats[i])
		}
	}
}
