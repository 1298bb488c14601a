package main

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/datasets/mock"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/modeltest"
	"github.com/onmart/onmart/train/fraud"
)

// shop makes a small stream of purchases, its features, and a model that was "trained" on its first days, with
// baselines measured on the range of days 20 to 26.
type shop struct {
	raw, features, model string
	spec                 *features.Spec
	test                 datasets.Range
}

func makeShop(t *testing.T, tree float64) *shop {
	t.Helper()
	dir := t.TempDir()
	s := &shop{raw: filepath.Join(dir, "raw"), features: filepath.Join(dir, "features"), model: filepath.Join(dir, "model")}
	ctx := context.Background()
	stream, err := mock.New(mock.Options{Seed: 3, Rows: 6000, Days: 30})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write(ctx, s.raw, false, datasets.Created{}, nil); err != nil {
		t.Fatal(err)
	}
	raw, err := datasets.Open(s.raw)
	if err != nil {
		t.Fatal(err)
	}
	if s.spec, err = features.Builtin("fraud-handbook"); err != nil {
		t.Fatal(err)
	}
	if _, err := features.Run(ctx, features.RunOptions{Spec: s.spec, In: raw, Out: s.features, Threads: 1}); err != nil {
		t.Fatal(err)
	}
	d, err := datasets.Open(s.features)
	if err != nil {
		t.Fatal(err)
	}
	first := raw.Manifest().From - raw.Manifest().From%datasets.Day
	s.test = datasets.Range{From: first + 20*datasets.Day, To: first + 27*datasets.Day}
	c := modeltest.Contents(t, s.spec, raw.Schema(), 1)
	m := &c.Manifest
	m.Lineage.Train = model.Span{Range: datasets.Range{From: first, To: first + 13*datasets.Day}}
	m.Lineage.Data = d.ID()
	m.Test = &model.Evaluation{Data: d.ID(), Range: model.Span{Range: s.test}, Delay: m.Lineage.Delay,
		Baselines: []model.Baseline{{Name: "logistic regression", Metrics: map[string]float64{"auc": 0.5, "average_precision": 0.0001, "log_loss": 0.3}},
			{Name: "decision tree", Metrics: map[string]float64{"auc": 0.6, "average_precision": tree}}}}
	if err := model.Save(s.model, c, false); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEvaluate(t *testing.T) {
	s := makeShop(t, 0)
	page := filepath.Join(t.TempDir(), "report.html")
	code, stdout, stderr := cli(t, "evaluate", "--model", s.model, "--data", s.features, "--json", "--report", page, "--require-beat")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var got struct {
		Model     string
		Range     string
		Delay     string
		Rows      int
		Excluded  int     `json:"excluded_known"`
		AUC       float64 `json:"auc"`
		AP        float64 `json:"average_precision"`
		CP        float64 `json:"card_precision_at_100"`
		LogLoss   float64 `json:"log_loss"`
		Baselines []model.Baseline
		Beaten    *bool `json:"beaten_by_baseline"`
		Alerts    fraud.AlertResult
		Days      []fraud.DayResult
		PerSecond float64 `json:"rows_per_second"`
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	want := s.evaluate(t, true)
	if got.AUC != want.AUC || got.AP != want.AveragePrecision || got.CP != want.CardPrecision100 || got.LogLoss != want.LogLoss || got.Rows != want.Rows || got.Excluded != want.ExcludedKnown {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if want.ExcludedKnown == 0 || len(got.Days) != 7 || got.Range != s.test.String() || got.Delay != "7d" || len(got.Baselines) != 2 || got.Beaten == nil || *got.Beaten || got.PerSecond <= 0 {
		t.Errorf("%+v", got)
	}
	html, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{got.Model, "decision tree", "ROC", "Reliability", "Card precision@100", "Day by day", cell(got.AP, true)} {
		if !strings.Contains(string(html), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if strings.Contains(string(html), "NaN") {
		t.Error("the report has NaN")
	}

	code, stdout, stderr = cli(t, "evaluate", "--model", s.model, "--data", s.features, "--all-cards", "--test", s.test.String())
	all := s.evaluate(t, false)
	if code != 0 || !strings.Contains(stdout, cell(all.AveragePrecision, true)) || !strings.Contains(stdout, "No comparison: the baselines were measured on") || strings.Contains(stdout, "left out)") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
}

// evaluate does the same with the libraries.
func (s *shop) evaluate(t *testing.T, remove bool) fraud.Evaluation {
	t.Helper()
	ctx := context.Background()
	d, err := datasets.Open(s.features)
	if err != nil {
		t.Fatal(err)
	}
	a := modeltest.Open(t, s.model)
	rows, err := fraud.Load(ctx, d, s.test, a.Manifest().Features, 1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.NewPredictor(1)
	if err != nil {
		t.Fatal(err)
	}
	scores := make([]float64, rows.Len())
	if err := p.Predict(rows.Values, rows.Len(), scores); err != nil {
		t.Fatal(err)
	}
	protocol := fraud.Protocol{Delay: 7 * datasets.Day, Threshold: 0.5}
	if remove {
		if protocol.Known, err = fraud.LoadKnown(ctx, d, datasets.Range{From: a.Manifest().Lineage.Train.From, To: s.test.To}, 1); err != nil {
			t.Fatal(err)
		}
	}
	return fraud.Evaluate(rows, scores, protocol)
}

func TestEvaluateFails(t *testing.T) {
	s := makeShop(t, 1)
	other, err := s.spec.WithDelay(3 * datasets.Day)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := datasets.Open(s.raw)
	if err != nil {
		t.Fatal(err)
	}
	otherDir := filepath.Join(t.TempDir(), "other")
	if _, err := features.Run(context.Background(), features.RunOptions{Spec: other, In: raw, Out: otherDir, Threads: 1}); err != nil {
		t.Fatal(err)
	}
	there := testkit.WriteFile(t, t.TempDir(), "report.html", "old")
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"", "--model is missing", 2},
		{"--model M", "--data is missing", 2},
		{"--model M --data D --test 2018", "--test: range", 2},
		{"--model M --data D --delay x", "--delay: duration", 2},
		{"--model M --data D --threads -1", "--threads -1", 2},
		{"--model nowhere --data D", "model nowhere: there is no such directory", 1},
		{"--model D --data D", `this is a directory of kind "features", not a model`, 1},
		{"--model M --data nowhere", "nowhere", 1},
		{"--model M --data OTHER", "was trained on other features: node", 1},
		{"--model M --data D --test 2001-01-01..2001-01-02", "has no transactions in 2001-01-01..2001-01-02", 1},
		{"--model M --data D --require-beat", "the baseline decision tree has average precision 1.0000", 1},
		{"--model M --data D --require-beat --all-cards", "--require-beat: the baselines were measured on", 1},
		{"--model M --data D --report THERE", "report.html", 1},
	} {
		args := []string{"evaluate"}
		for _, a := range strings.Fields(c.args) {
			if full, ok := map[string]string{"M": s.model, "D": s.features, "OTHER": otherDir, "THERE": there}[a]; ok {
				a = full
			}
			args = append(args, a)
		}
		code, _, stderr := cli(t, args...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("evaluate %s: exit %d, want %d: %s\nwant %q", c.args, code, c.code, stderr, c.want)
		}
	}
	if b, err := os.ReadFile(there); err != nil || string(b) != "old" {
		t.Errorf("the old report: %s, %v", b, err)
	}
}

// predicted is a row of predictions, as another Parquet reader sees it.
type predicted struct {
	TransID  int64   `parquet:"trans_id"`
	Time     int64   `parquet:"trans_datetime"`
	IsFraud  *int64  `parquet:"is_fraud,optional"`
	Score    float64 `parquet:"score"`
	Decision string  `parquet:"decision"`
}

// TestPredict: scores equal those of the engine and the predictor row by row to the bit, from features and from
// transactions, and the features that transactions need are computed once.
func TestPredict(t *testing.T) {
	s := makeShop(t, 0)
	ctx := context.Background()
	raw, err := datasets.Open(s.raw)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := s.spec.Plan(raw.Schema())
	if err != nil {
		t.Fatal(err)
	}
	p, err := modeltest.Open(t, s.model).NewPredictor(1)
	if err != nil {
		t.Fatal(err)
	}
	e := plan.NewEngine(1)
	var want []predicted
	err = raw.Read(ctx, datasets.ReadOptions{}, func(b *datasets.Batch) error {
		var out features.Rows
		for i := range b.N {
			one := b.Slice(i, i+1)
			if err := e.Process(one, &out); err != nil {
				return err
			}
			score := make([]float64, 1)
			if err := p.Predict(out.Values, 1, score); err != nil {
				return err
			}
			w := predicted{TransID: one.Column(datasets.TransID).Ints[0], Time: one.Column(datasets.TransDatetime).Ints[0], Score: score[0], Decision: "pass"}
			if w.Score >= 0.5 {
				w.Decision = "alert"
			}
			want = append(want, w)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for k, data := range []string{s.features, s.raw, s.raw} {
		out := filepath.Join(dir, "p", string(rune('a'+k))+".parquet")
		code, stdout, stderr := cli(t, "predict", "--model", s.model, "--data", data, "--out", out, "--threads", "2")
		if code != 0 {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		if wantNote := []string{"", "computed into", "taken from"}[k]; !strings.Contains(stderr, wantNote) {
			t.Errorf("%s: %s", wantNote, stderr)
		}
		if !strings.Contains(stdout, "transactions scored by model") {
			t.Error(stdout)
		}
		got, err := parquet.ReadFile[predicted](out)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d predictions of %d transactions", len(got), len(want))
		}
		for i := range got {
			got[i].IsFraud = nil
			if got[i] != want[i] {
				t.Fatalf("row %d: %+v, want %+v", i, got[i], want[i])
			}
		}
	}

	out := filepath.Join(dir, "range.parquet")
	if code, _, stderr := cli(t, "predict", "--model", s.model, "--data", s.features, "--out", out, "--range", s.test.String()); code != 0 {
		t.Fatal(stderr)
	}
	got, err := parquet.ReadFile[predicted](out)
	if err != nil {
		t.Fatal(err)
	}
	k := 0
	for _, w := range want {
		if s.test.Contains(w.Time) {
			if k < len(got) && got[k].Score != w.Score {
				t.Fatalf("row %d of the range: %v, want %v", k, got[k].Score, w.Score)
			}
			k++
		}
	}
	if k != len(got) {
		t.Errorf("%d rows in the range, want %d", len(got), k)
	}
}

func TestPredictFails(t *testing.T) {
	s := makeShop(t, 0)
	dir := t.TempDir()
	there := testkit.WriteFile(t, dir, "old.parquet", "old")
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"--data D --out O", "--model is missing", 2},
		{"--model M --data D", "--out is missing", 2},
		{"--model M --out O", "--data is missing", 2},
		{"--model M --data D --out x.csv", "predictions are Parquet", 2},
		{"--model M --data D --out O --range x", "--range: range", 2},
		{"--model M --data D --out THERE", "old.parquet", 1},
		{"--model M --data D --out O --range 2001-01-01..", "", 0},
		{"--model M --data D --out P --range ..2001-01-01", "has no transactions in ..2001-01-01", 1},
		{"--model D --data D --out P", "not a model", 1},
	} {
		args := []string{"predict"}
		for _, a := range strings.Fields(c.args) {
			if full, ok := map[string]string{"M": s.model, "D": s.features, "O": filepath.Join(dir, "new.parquet"), "P": filepath.Join(dir, "never.parquet"), "THERE": there}[a]; ok {
				a = full
			}
			args = append(args, a)
		}
		code, _, stderr := cli(t, args...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("predict %s: exit %d, want %d: %s\nwant %q", c.args, code, c.code, stderr, c.want)
		}
	}
	if names := strings.Join(testkit.Names(t, dir), " "); names != "new.parquet old.parquet" {
		t.Errorf("left behind: %s", names)
	}
}

// TestPredictionsInPython reads predictions with pyarrow.
func TestPredictionsInPython(t *testing.T) {
	python := testkit.Python(t, "pyarrow")
	s := makeShop(t, 0)
	out := filepath.Join(t.TempDir(), "p.parquet")
	if code, _, stderr := cli(t, "predict", "--model", s.model, "--data", s.features, "--out", out); code != 0 {
		t.Fatal(stderr)
	}
	code := `
import json, sys, pyarrow.parquet as pq
t = pq.read_table(sys.argv[1])
print(json.dumps({"columns": t.column_names, "rows": t.num_rows, "sum": sum(t["score"].to_pylist()), "kinds": sorted(set(t["decision"].to_pylist()))}))`
	b, err := exec.Command(python, "-c", code, out).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	var got struct {
		Columns, Kinds []string
		Rows           int
		Sum            float64
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	rows, err := parquet.ReadFile[predicted](out)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, r := range rows {
		sum += r.Score
	}
	if got.Rows != len(rows) || !(math.Abs(got.Sum-sum) <= 1e-9*sum) || strings.Join(got.Columns, " ") != "trans_id line trans_datetime user_id store_id is_fraud score decision" || strings.Join(got.Kinds, " ") != "alert pass" {
		t.Errorf("%+v", got)
	}
}

func TestScoreFromAStateWithoutTransactions(t *testing.T) {
	s := makeShop(t, 0)
	dir := t.TempDir()
	events, state := filepath.Join(dir, "none.jsonl"), filepath.Join(dir, "state")
	if err := os.WriteFile(events, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--warm-from", "none", "--state-out", state}, {"--warm-from", state}} {
		code, out, stderr := cli(t, append([]string{"score", "--model", s.model, "--source", events}, args...)...)
		if code != 0 || out != "" {
			t.Fatalf("%v: exit %d, %q\n%s", args, code, out, stderr)
		}
		if args[1] == state && !strings.Contains(stderr, "the state of "+state+" holds no transactions yet") {
			t.Errorf("stderr %q", stderr)
		}
	}
}
