package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/modeltest"
	"github.com/onmart/onmart/train/tune"
)

// quickLine is a training of a second over what makeCards made, in a line.
const quickLine = "train fraud --device cpu --data f --set hidden=16 --set towers=1 --set epochs=4 --set batch=64 --set learning_rate=0.02 --alerts-per-day 3"

// cardFeatures makes cards and their features, f.
func cardFeatures(t *testing.T) {
	t.Helper()
	makeCards(t)
	good(t, "features --spec fraud-handbook --in cards --out f")
}

func TestRunningFlagsCalledWrongly(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "space.yaml", "learning_rate: {from: 1, to: 0}\nhidden: 3\n")
	writeFile(t, "unknown.yaml", "what: [1]\nbatch: {from: 0.5, to: 64}\n")
	for args, wants := range map[string][]string{
		"fraud --max-time soon --seeds 0 --tune -1 --folds 0": {"--max-time soon: want a time such as 90s", "--seeds 0: want 1 to 64",
			"--tune -1: want 1 to", "--folds 0: want 1 to"},
		"fraud --max-time -5s":                                        {"--max-time -5s: want a time"},
		"fraud --folds 2 --valid 2026-01-01..2026-01-02":              {"--folds: with --valid there is one part"},
		"fraud --tune-space space.yaml":                               {"without --tune there is nothing to draw"},
		"demand --tune 3 --tune-space space.yaml":                     {"space.yaml:1: learning_rate: from 1 is not below to 0", "space.yaml:2: hidden: want a list of values, or {from: A, to: B}"},
		"fraud --tune 3 --tune-space unknown.yaml":                    {`--tune-space: what=1: there is no setting "what"`, "--tune-space: batch=0.5: want a whole number"},
		"recommend --tune 3 --tune-space none.yaml":                   {"--tune-space: open none.yaml"},
		"demand --tune 3 --set network=maybe --tune-space space.yaml": {"--set network=maybe: want true or false"},
	} {
		code, _, stderr := cli(t, append(strings.Fields("train "+args), "--data", "f", "--out", "m")...)
		if code != exitUsage {
			t.Errorf("%s: exit %d: %s", args, code, stderr)
		}
		lacks(t, args, stderr, wants)
	}
}

// A search from ranges in onmart.yaml, killed in its middle and resumed, is the one that was not killed: as a table, in JSON and
// on a page.
func TestTuneKilledAndResumed(t *testing.T) {
	t.Chdir(t.TempDir())
	cardFeatures(t)
	writeFile(t, "onmart.yaml", `train:
  fraud:
    tune-space:
      learning_rate: {from: 0.002, to: 0.05, log: true}
      hidden: [8, "16,8"]
`)
	line := quickLine + " --tune 6 --threads 2"
	var whole, resumed struct {
		Version string
		Tuning  tune.Result
	}
	if err := json.Unmarshal([]byte(good(t, line+" --out whole --json --report page.html")), &whole); err != nil {
		t.Fatal(err)
	}
	if n := len(whole.Tuning.Trials); n != 6 || whole.Tuning.Trials[0].Figure <= 0 || len(whole.Tuning.Trials[0].Settings) != 2 {
		t.Fatalf("%+v", whole.Tuning)
	}
	page, err := os.ReadFile("page.html")
	if err != nil {
		t.Fatal(err)
	}
	lacks(t, "the page", string(page), []string{"How it was trained", "Average precision by epoch", "Learning rate", "Trials",
		"Figure by trial", "Figure and hidden", "Figure and learning_rate"})
	// The settings of the best are in the artifact, and the page of an evaluation has the trials too.
	a := modeltest.Open(t, "whole")
	for _, c := range whole.Tuning.Trials[0].Settings {
		if got := a.Manifest().Settings[c.Name]; got != c.Value {
			t.Errorf("%s=%s in the artifact, want %s", c.Name, got, c.Value)
		}
	}
	good(t, "evaluate --model whole --data f --test 2026-01-30.. --report again.html")
	if page, err = os.ReadFile("again.html"); err != nil {
		t.Fatal(err)
	}
	lacks(t, "the page", string(page), []string{"Beside the baselines", "How it was trained", "Figure by trial"})
	p := command(line + " --out model")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join("model.checkpoint", "tune", "trials.json")
	waitFor(t, journal, func() bool {
		b, err := os.ReadFile(journal)
		return err == nil && strings.Count(string(b), `"rung": 1`) >= 2
	})
	p.Process.Signal(syscall.SIGKILL)
	p.Wait()
	if _, err := os.Stat("model"); err == nil {
		t.Fatal("it ended before it was killed")
	}
	if err := json.Unmarshal([]byte(good(t, line+" --out model --resume --json")), &resumed); err != nil {
		t.Fatal(err)
	}
	for i := range resumed.Tuning.Trials {
		resumed.Tuning.Trials[i].Seconds, whole.Tuning.Trials[i].Seconds = 0, 0
	}
	if x, y := fmt.Sprint(resumed.Tuning), fmt.Sprint(whole.Tuning); resumed.Version != whole.Version || x != y {
		t.Errorf("resumed: %s\n%s\nunbroken: %s\n%s", resumed.Version, x, whole.Version, y)
	}
	logOf(t, "model.runlog.jsonl", "run", "trial", "resume", "tuned", "refit", "result")
	text := good(t, line+" --out table --seeds 2 --log none")
	lacks(t, "the table", text, []string{"trial  average precision", "learning_rate", "trial 1 is the settings as they were given"})
	if _, err := os.Stat("table.runlog.jsonl"); err == nil {
		t.Error("--log none kept a log")
	}
}

// logOf wants a log whose lines are whole and which has these events in this order, among others.
func logOf(t *testing.T, path string, events ...string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var r struct{ Time, Event string }
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Time == "" {
			t.Errorf("%s: %q: %v", path, line, err)
		}
		if len(events) > 0 && r.Event == events[0] {
			events = events[1:]
		}
	}
	if len(events) > 0 {
		t.Errorf("%s lacks %v", path, events)
	}
}

// Ctrl-C once keeps the step in hand; twice leaves at once, with nothing half-made; both can be gone on from, and a budget ends
// it with a model.
func TestTrainStoppedOnceAndTwice(t *testing.T) {
	t.Chdir(t.TempDir())
	cardFeatures(t)
	endless := strings.Replace(quickLine, "epochs=4", "epochs=10000", 1) + " --set patience=0 --out model"
	resume := ""
	for round, signals := range []int{1, 2, 2, 1, 2} {
		p := command(endless + resume)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		manifest := filepath.Join("model.checkpoint", "choose", "manifest.json")
		before, _ := os.ReadFile(manifest)
		waitFor(t, manifest, func() bool {
			b, err := os.ReadFile(manifest)
			return err == nil && string(b) != string(before)
		})
		time.Sleep(time.Duration(7*round) * time.Millisecond)
		for range signals {
			p.Process.Signal(os.Interrupt)
			time.Sleep(200 * time.Microsecond)
		}
		p.Wait()
		if p.code() != exitFailed {
			t.Fatalf("round %d: exit %d: %s", round, p.code(), &p.err)
		}
		if signals == 1 {
			lacks(t, "once", p.err.String(), []string{"stopping cleanly; once more to stop at once", "--resume goes on from there"})
			logOf(t, "model.runlog.jsonl", "interrupt")
		}
		if _, err := os.Stat("model"); err == nil {
			t.Fatal("there is a model already")
		}
		for _, name := range testkit.Names(t, ".") {
			if name != "cards" && name != "f" && name != "model.checkpoint" && name != "model.runlog.jsonl" {
				t.Errorf("round %d left %s", round, name)
			}
		}
		resume = " --resume"
	}
	var s struct {
		Epochs    int
		Resumed   bool
		Shortened []string
	}
	if err := json.Unmarshal([]byte(good(t, endless+" --resume --max-time 6s --json")), &s); err != nil {
		t.Fatal(err)
	}
	if !s.Resumed || len(s.Shortened) == 0 || s.Epochs < 1 {
		t.Errorf("%+v", s)
	}
	if _, err := model.Open("model"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("model.checkpoint"); err == nil {
		t.Error("the checkpoint is still there")
	}
	logOf(t, "model.runlog.jsonl", "run", "epoch", "checkpoint", "resume", "early_end", "result")
}

// A budget in which nothing fits says so, and leaves nothing but the log; what it takes where an epoch has begun is tested in
// package train, by a backend whose speed is known.
func TestMaxTimeTooSmall(t *testing.T) {
	t.Chdir(t.TempDir())
	cardFeatures(t)
	code, _, stderr := cli(t, strings.Fields(quickLine+" --out model --max-time 1ms")...)
	if code != exitFailed || !strings.Contains(stderr, "--max-time 1ms was over before the first epoch began") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if _, err := os.Stat("model"); err == nil {
		t.Error("a model was left")
	}
	logOf(t, "model.runlog.jsonl", "run", "error")
}
