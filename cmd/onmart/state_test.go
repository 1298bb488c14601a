package main

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/state"
)

// TestState hands a backfill over to a scoring job, looks at the job's state, and takes it out again.
func TestState(t *testing.T) {
	t.Chdir(t.TempDir())
	makeCards(t)
	ok(t, nil, append([]string{"train", "fraud", "--data", "cards", "--out", "model", "--train", "..2026-01-22", "--device", "cpu"}, quickly...)...)
	ok(t, nil, "features", "--in", "cards", "--range", "..2026-01-25", "--state-out", "backfill")
	ok(t, nil, "state", "import", "backfill", "--state", "job", "--job", "cards", "--model", "model",
		"--position", "kafka:cards/0=812", "--position", "kafka:cards/1=790")

	var facts struct {
		Job       string
		Watermark string
		Positions map[string]int64
		Nodes     []features.Node
		Entries   int
		Parts     map[string]int64
		Bytes     int64
	}
	inspect := func() {
		t.Helper()
		code, stdout, stderr := cli(t, "state", "inspect", "job", "--json")
		if code != 0 {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		if err := json.Unmarshal([]byte(stdout), &facts); err != nil {
			t.Fatalf("%v: %s", err, stdout)
		}
	}
	inspect()
	if facts.Job != "cards" || !strings.HasPrefix(facts.Watermark, "2026-01-25T") || facts.Positions["kafka:cards/1"] != 790 ||
		len(facts.Nodes) == 0 || facts.Parts[state.Engine] == 0 || facts.Bytes == 0 {
		t.Errorf("%+v", facts)
	}
	code, stdout, _ := cli(t, "state", "inspect", "job")
	if code != 0 || !strings.Contains(stdout, "state job of job cards\n") || !strings.Contains(stdout, "next of kafka:cards/0: 812\n") ||
		!strings.Contains(stdout, facts.Nodes[0].Name+" "+facts.Nodes[0].Fingerprint) {
		t.Errorf("exit %d: %s", code, stdout)
	}

	id := state.Identity{Job: "cards", Nodes: facts.Nodes}
	s, err := state.Open("job", id, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"state inspect job", "state export job --out x", "state import backfill --state job --job cards --model model"} {
		if code, _, stderr := cli(t, strings.Fields(line)...); code != 1 || !strings.Contains(stderr, "in use by process") {
			t.Errorf("%s beside a job: exit %d: %s", line, code, stderr)
		}
	}
	entry := &state.Entry{N: 1, Spans: []state.Span{{Source: "kafka:cards/1", From: 790, To: 800}}}
	if err := errors.Join(s.Append(entry), s.Close()); err != nil {
		t.Fatal(err)
	}
	if inspect(); facts.Entries != 1 || facts.Positions["kafka:cards/1"] != 800 {
		t.Errorf("%+v", facts)
	}
	code, _, stderr := cli(t, "state", "export", "job", "--out", "out")
	if code != 0 || !strings.Contains(stderr, "1 entries since the checkpoint are not in it") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	want, err := os.ReadFile("backfill/state.bin")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("out/state.bin"); err != nil || string(got) != string(want) {
		t.Errorf("the state that was taken out is not the one put in: %v", err)
	}
	m, err := features.OpenState("out")
	if err != nil || m.Positions["kafka:cards/1"] != 790 || m.Counts.Scored == 0 || m.Watermark != facts.Watermark {
		t.Errorf("%+v, %v", m, err)
	}
	ok(t, nil, "state", "import", "out", "--state", "again", "--model", "model")
	if code, _, stderr := cli(t, "score", "--model", "model", "--warm-from", "out", "--source", os.DevNull, "--format", "jsonl",
		"--state-out", "beside"); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	ok(t, nil, "state", "import", "beside", "--state", "figures", "--model", "model")
	if code, stdout, stderr := cli(t, "state", "inspect", "figures"); code != 0 || !strings.Contains(stdout, "  quality: ") ||
		strings.Contains(stdout, "next of data:") {
		t.Errorf("live figures are not taken along: exit %d: %s%s", code, stdout, stderr)
	}
	ok(t, nil, "score", "--model", "model", "--warm-from", "out", "--source", os.DevNull, "--format", "jsonl")

	if s, err = state.Open("job", id, state.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Append(&state.Entry{N: 2, Inline: []byte("{}")}), s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"state export job --out other", "1 entries since its checkpoint with events that no source can give again: start the scorer and stop it", 1},
		{"state export job", "--out is missing", 2},
		{"state export again --out out", "exists already", 1},
		{"state inspect none", "does not exist", 1},
		{"state inspect cards", "cards is not the state of a scoring job", 1},
		{"state import backfill --state job --job cards --model model", "has a state already", 1},
		{"state import backfill --state job --model model", `belongs to the job "cards"`, 1},
		{"state import cards --state new --model model", "cards is not a state", 1},
		{"state import backfill --state new", "--model is missing", 2},
		{"state import backfill --model model", "--state is missing", 2},
		{"state import backfill --state new --model model --position x", "want SOURCE=N", 2},
		{"state import backfill --state new --model model --position kafka:a/0=x", "x is not a position", 2},
	} {
		if code, _, stderr := cli(t, strings.Fields(c.args)...); code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit %d, want %d with %q: %s", c.args, code, c.code, c.want, stderr)
		}
	}
}
