package main

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/fraud"
)

// TestDemo runs a small demo as a user does, into a directory whose name needs quotes, and then what its last
// lines say to try.
func TestDemo(t *testing.T) {
	t.Chdir(t.TempDir())
	const out = "the shop's demo"
	code, stdout, stderr := cli(t, "demo", "--rows", "20000", "--out", out)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if first := regexp.MustCompile(`^onmart demo: [\d,]+ purchase lines generated, three models trained, judged and lived with for four weeks, in `); !first.MatchString(lines[0]) {
		t.Errorf("the first line is %q", lines[0])
	}
	for _, want := range []string{"What to order tomorrow:", "What to offer to the customers", "a perfect ranking would reach 0.", "0 differ from the backfill", "large amount ", "compromised store "} {
		if !strings.Contains(strings.ReplaceAll(stdout, "\n", " "), want) {
			t.Errorf("the output does not say %q:\n%s", want, stdout)
		}
	}
	var entries []string
	files, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		entries = append(entries, f.Name())
	}
	want := slices.DeleteFunc(slices.Sorted(slices.Values(demoParts)), func(part string) bool {
		return strings.HasSuffix(part, ".checkpoint") // of a demo that was stopped
	})
	if !slices.Equal(entries, want) {
		t.Errorf("the demo wrote %v, want %v", entries, want)
	}
	checkDemoReport(t, filepath.Join(out, "report.html"))

	if n := len(lines); !strings.HasPrefix(lines[n-3], "The report is ") || !strings.Contains(lines[n-2], "report.html") {
		t.Errorf("the last lines are %q", lines[n-3:])
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("the command to try needs a shell")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A test's binary lies where go run puts its own, so the demo takes it for one.
	line := strings.Replace(lines[len(lines)-1], "go run ./cmd/onmart", "onmart", 1)
	try := exec.Command(sh, "-c", `onmart() { "$ONMART" "$@"; }`+"\n"+line)
	try.Env = append(os.Environ(), "ONMART_TEST_CHILD=1", "ONMART="+self)
	scored, err := try.Output()
	if err != nil {
		t.Fatalf("%s: %v", lines[len(lines)-1], err)
	}
	var l scoreLine
	if err := json.Unmarshal(scored, &l); err != nil || l.Error != nil || len(l.Reasons) == 0 || !(l.Scores.Fraud > 0) {
		t.Errorf("the event by hand gives %s (%v)", scored, err)
	}
}

func checkDemoReport(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, want := range []string{"Three models learned from what was known on Mar 7, 2026", "What to order tomorrow", "What to offer to whom", "What goes together", "Was it right?", "What was planted", "to the bit", "latest 7 days with labels ended 7 days before", "a perfect ranking", "(typical ", `data-name="why"`, "Day by day"} {
		if !strings.Contains(page, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	for _, bad := range []string{"NaN", "%!", "bad_store", "stolen_card", "{value}"} {
		if strings.Contains(page, bad) {
			t.Errorf("the report says %q", bad)
		}
	}
}

// TestCeiling: a perfect ranking finds every compromised card of a day, but no more than 100.
func TestCeiling(t *testing.T) {
	e := &evaluated{ev: fraud.Evaluation{CardPrecision100: 0.26, Days: []fraud.DayResult{{Cards: 4}, {Cards: 0}, {Cards: 152}}}}
	if got, want := e.ceiling(), (0.04+0+1)/3; !(math.Abs(got-want) <= 1e-12) {
		t.Errorf("ceiling %v, want %v", got, want)
	}
	if got, want := e.cardWords(), "On these days 52.0 compromised cards a day were there to be found, so that a perfect ranking would reach 0.3467; the model's 0.2600 is 75% of that."; !strings.HasSuffix(got, want) {
		t.Errorf("%q, want it to end with %q", got, want)
	}
	e.ev.Days = []fraud.DayResult{{}}
	if got := e.cardWords(); !strings.HasSuffix(got, "a perfect ranking would reach 0.0000.") {
		t.Errorf("without compromised cards: %q", got)
	}
}

// TestLossMeanings: every ranking has words for losing it, said once however many baselines are better.
func TestLossMeanings(t *testing.T) {
	e := &evaluated{}
	if got := e.lossMeanings(); len(got) != 0 {
		t.Errorf("no loss means %q", got)
	}
	for _, f := range figures[:rankings] {
		e.LosesTo = append(e.LosesTo, fraud.Loss{Name: "a", Metric: f.key}, fraud.Loss{Name: "b", Metric: f.key})
	}
	if got := e.lossMeanings(); len(got) != rankings || slices.Contains(got, "") {
		t.Errorf("%d figures lost have the meanings %q", rankings, got)
	}
}

func TestWrapped(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"", 5, ""}, {"one two", 7, "one two"}, {"one two", 6, "one\ntwo"}, {"a longwordhere b", 4, "a\nlongwordhere\nb"}, {"a  b\nc", 80, "a b c"},
	} {
		if got := wrapped(c.text, c.width); got != c.want {
			t.Errorf("%q in %d: %q, want %q", c.text, c.width, got, c.want)
		}
	}
}
