package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/fraud/fraudtest"
)

// makeCards writes transactions to cards.
func makeCards(t *testing.T) {
	t.Helper()
	if err := fraudtest.Write("cards", 30, 300); err != nil {
		t.Fatal(err)
	}
}

// quickly are settings for a training of a second.
var quickly = []string{"--set", "hidden=16", "--set", "towers=1", "--set", "epochs=4", "--set", "batch=64", "--set", "learning_rate=0.02"}

func TestTrainFraud(t *testing.T) {
	t.Chdir(t.TempDir())
	makeCards(t)
	args := append([]string{"train", "fraud", "--data", "cards", "--out", "model", "--train", "..2026-01-22",
		"--test", "2026-01-30..", "--alerts-per-day", "3", "--device", "cpu", "--json"}, quickly...)
	code, stdout, stderr := cli(t, args...)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var got struct {
		Version       string
		Backend       string
		Train         string
		Rows          int
		Refitted      bool
		Context       bool
		RowsPerSecond float64 `json:"rows_per_second"`
		Test          struct {
			Range     string
			Model     map[string]float64
			Baselines []struct{ Key string }
			LosesTo   []struct{ Name, Metric string } `json:"loses_to"`
		}
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if got.Version == "" || got.Train != "2026-01-05..2026-01-22" || got.Rows < 4000 || !got.Refitted || !got.Context || got.RowsPerSecond <= 0 {
		t.Errorf("%s", stdout)
	}
	if got.Test.Range != "2026-01-30..2026-02-03" || !(got.Test.Model["auc"] > .7) || len(got.Test.Baselines) != 3 || got.Test.LosesTo == nil {
		t.Errorf("%s", stdout)
	}
	for _, want := range []string{"device: " + got.Backend, "features of cards: computed into", "too short for the delay of 7d"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("standard error does not say %q:\n%s", want, stderr)
		}
	}
	// Every loss is said in words too.
	if n := strings.Count(stderr, "warning: the model loses to"); n != len(got.Test.LosesTo) {
		t.Errorf("%d warnings for %d losses", n, len(got.Test.LosesTo))
	}
	if a, err := model.Open("model"); err != nil || a.Manifest().Version != got.Version {
		t.Error(err)
	}
	// evaluate agrees on the test rows, and finds the baselines.
	code, stdout, stderr = cli(t, "evaluate", "--model", "model", "--data", "cards", "--json")
	var again struct {
		AUC       float64
		Baselines []any
	}
	if err := json.Unmarshal([]byte(stdout), &again); code != 0 || err != nil {
		t.Fatalf("exit %d, %v: %s", code, err, stderr)
	}
	if again.AUC != got.Test.Model["auc"] || len(again.Baselines) != 3 {
		t.Errorf("evaluate: AUC %v and %d baselines, train said %v", again.AUC, len(again.Baselines), got.Test.Model["auc"])
	}
	// The features are kept and used again; the table is for people.
	args = append([]string{"train", "fraud", "--data", "cards", "--out", "model2", "--train", "..2026-01-22", "--test", "2026-01-30..", "--explain"}, quickly...)
	code, stdout, stderr = cli(t, args...)
	if code != 0 || !strings.Contains(stderr, "taken from") || !strings.Contains(stderr, "= adamw") || !strings.Contains(stderr, "GFLOP/s") || !strings.Contains(stderr, "no CUDA: ") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{"average precision", "\nmodel ", "\nlogistic regression ", "\nisolation forest (golearn) ", "alert from a probability"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the table lacks %q:\n%s", want, stdout)
		}
	}
}

func TestTrainFraudCalledWrongly(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("ONMART_LIBCUDA", filepath.Join(t.TempDir(), "libcuda.so.1"))
	code, _, stderr := cli(t, "train", "fraud", "--train", "yesterday", "--valid", "2026-01-02..2026-01-01", "--delay", "soon",
		"--device", "tpu", "--threads", "-1", "--set", "epochs=none", "--set", "what=1")
	if code != exitUsage {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{"--data is missing", "--out is missing", "--train: ", "--valid: ", "--delay: ", "--device tpu", "--threads -1", "--set epochs=none", "no setting \"what\""} {
		if !strings.Contains(stderr, want) {
			t.Errorf("does not say %q:\n%s", want, stderr)
		}
	}
	makeCards(t)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--device cuda:1", exitFailed, "no CUDA driver library"},
		{"--device cuda:1", exitFailed, "or give --device cpu"},
		{"--device model:rtx2060", exitUsage, "--explain predicts a step on it"},
		{"--device model:gtx480 --explain", exitUsage, "there are gtx1660ti, rtx2060"},
		{"--gpu-memory much", exitUsage, "such as 4GiB"},
		{"--gpu-memory -1GiB", exitUsage, "such as 4GiB"},
		{"--gpu-memory 4", exitUsage, "nothing can be trained in 4 bytes"},
		{"--spec nonesuch", exitUsage, "nonesuch"},
		{"--resume", exitFailed, "nothing to resume"},
		{"--train 2031-01-01..2031-01-31", exitFailed, "no rows there"},
		{"--alerts-per-day -1", exitFailed, "want more than 0"},
	} {
		args := append([]string{"train", "fraud", "--data", "cards", "--out", "model"}, strings.Fields(c.args)...)
		code, _, stderr := cli(t, args...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit %d: %s", c.args, code, stderr)
		}
	}
	kept, err := filepath.Glob("cards.features-*")
	if err != nil || len(kept) != 1 {
		t.Fatalf("features kept: %v, %v", kept, err)
	}
	code, _, stderr = cli(t, "train", "fraud", "--data", kept[0], "--out", "model", "--delay", "3d")
	if code != exitFailed || !strings.Contains(stderr, "were made with a delay of 7d") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if names := testkit.Names(t, "."); !slices.Equal(names, []string{"cards", kept[0]}) {
		t.Errorf("left behind %v", names)
	}
}

// Ctrl-C keeps the last finished epoch and says how to go on.
func TestTrainFraudInterrupted(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	makeCards(t)
	args := append([]string{"train", "fraud", "--data", "cards", "--out", "model"}, quickly...)
	args = append(args, "--set", "epochs=10000", "--set", "patience=0")
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "ONMART_TEST_CHILD=1")
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(errs)
		text <- string(b)
	}()
	checkpoint := filepath.Join("model.checkpoint", "choose", "manifest.json")
	for range 600 { // up to a minute on a busy machine
		if _, err := os.Stat(checkpoint); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	stderr := <-text
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(stderr, "--resume goes on from there") {
		t.Errorf("%v: %s", err, stderr)
	}
	if _, err := os.Stat(checkpoint); err != nil {
		t.Error(err)
	}
	if names := testkit.Names(t, "."); slices.Contains(names, "model") || len(names) != 4 || !slices.Contains(names, "model.runlog.jsonl") {
		t.Errorf("there are %v", names)
	}
	if names := testkit.Names(t, "model.checkpoint"); !slices.Equal(names, []string{"choose", "manifest.json"}) {
		t.Errorf("in the checkpoint are %v", names)
	}
	code, _, out := cli(t, args...)
	if code != exitFailed || !strings.Contains(out, "--resume goes on with it, --force starts anew") {
		t.Errorf("exit %d: %s", code, out)
	}
	code, _, out = cli(t, append(args, "--resume", "--seed", "2")...)
	if code != exitFailed || !strings.Contains(out, "--seed was 1 and is 2 now") {
		t.Errorf("exit %d: %s", code, out)
	}
}
