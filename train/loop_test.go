package train_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/program"
)

// Validation has no part in a training: with it, without it and with any number of rows of it, each epoch ends in the same
// weights, though the network has dropout.
func TestValidationDisturbsNothing(t *testing.T) {
	const epochs = 4
	run := func(valid program.Range, stop int) string {
		tk := task(t, epochs, .02)
		tk.Valid, tk.Stop = valid, stop
		n := 0
		tk.Judge = func([]float32) float64 { n++; return float64(n) } // the last epoch is the best
		tk.Loss = func([]float32) float64 { return 1 }
		r, err := tk.Run(context.Background(), backend(t))
		if err != nil {
			t.Fatal(err)
		}
		if r.Best != stop {
			t.Fatalf("epoch %d of %d is kept", r.Best, stop)
		}
		return weights(r)
	}
	for stop := 1; stop <= epochs; stop++ {
		want := run(program.Range{}, stop)
		for _, valid := range []program.Range{{From: fitRows, To: fitRows + validRows}, {From: fitRows, To: fitRows + 1}, {To: fitRows}} {
			if run(valid, stop) != want {
				t.Errorf("judged on %v the weights of epoch %d differ", valid, stop)
			}
		}
	}
}

// Stop ends a run, and a later one with a greater Stop goes on to the same weights.
func TestStopAndGoOn(t *testing.T) {
	const epochs = 6
	whole, err := task(t, epochs, .02).Run(context.Background(), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "c")
	for _, stop := range []int{1, 3, 3, 6} {
		tk := task(t, epochs, .02)
		tk.Checkpoint, tk.Resume, tk.Stop = dir, true, stop
		var seen []int
		tk.Ended = func(epoch int, _ train.Epoch, restored bool) {
			if restored != (epoch <= len(seen)+1 && len(seen) < epoch && restored) {
				t.Errorf("epoch %d restored: %v", epoch, restored)
			}
			seen = append(seen, epoch)
		}
		r, err := tk.Run(context.Background(), backend(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Epochs) != stop || !slices.Equal(seen, []int{1, 2, 3, 4, 5, 6}[:stop]) {
			t.Errorf("stopped at %d: %d epochs, told of %v", stop, len(r.Epochs), seen)
		}
		if stop == epochs && (weights(r) != weights(whole) || r.Best != whole.Best || r.Merit != whole.Merit) {
			t.Error("the weights differ from those of one run")
		}
	}
}

// small is a backend that looks at the clock after each step.
type small struct{ program.Backend }

func (small) ChunkRows() int { return batch }

// A training that is stopped in the middle of an epoch keeps the step, and goes on to the same bits.
func TestInterruptedInAnEpoch(t *testing.T) {
	const epochs, steps = 3, (fitRows + batch - 1) / batch
	b := small{backend(t)}
	whole, err := task(t, epochs, .02).Run(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	for stop := 1; stop < epochs*steps; stop += 3 {
		dir := filepath.Join(t.TempDir(), "c")
		first := task(t, epochs, .02)
		first.Checkpoint = dir
		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		first.Progress = func(train.Progress) {
			if n++; n == stop {
				cancel()
			}
		}
		_, err := first.Run(ctx, b)
		cancel()
		var stopped *train.Interrupted
		if !errors.As(err, &stopped) || stopped.Epoch != stop/steps || stopped.Step != stop%steps {
			t.Fatalf("stopped at step %d: %v", stop, err)
		}
		if want := fmt.Sprintf("step %d of epoch %d", stop%steps, stop/steps+1); stop%steps > 0 && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		second := task(t, epochs, .02)
		second.Checkpoint, second.Resume = dir, true
		var rows int64 = -1
		second.Progress = func(p train.Progress) {
			if rows < 0 && (!p.Resumed || p.Rows != int64(stop/steps*fitRows+min(stop%steps*batch, fitRows))) {
				t.Errorf("resumed at %+v", p)
			}
			rows = p.Rows
		}
		r, err := second.Run(context.Background(), b)
		if err != nil {
			t.Fatal(err)
		}
		if weights(r) != weights(whole) || r.Best != whole.Best {
			t.Errorf("stopped at step %d: the weights differ", stop)
		}
		for i := range r.Epochs {
			if r.Epochs[i].Loss != whole.Epochs[i].Loss || *r.Epochs[i].Figure != *whole.Epochs[i].Figure {
				t.Errorf("stopped at step %d: epoch %d is %+v, want %+v", stop, i+1, r.Epochs[i], whole.Epochs[i])
			}
		}
	}
}

func TestACheckpointOfAnotherVersion(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	tk := task(t, 1, .02)
	tk.Checkpoint, tk.Identity = dir, []train.Fact{{Name: train.FactOnmart, Value: "0.1.0"}}
	if _, err := tk.Run(context.Background(), backend(t)); err != nil {
		t.Fatal(err)
	}
	tk.Resume, tk.Identity[0].Value = true, "0.2.0"
	if _, err := tk.Run(context.Background(), backend(t)); err == nil ||
		!strings.Contains(err.Error(), "onmart was 0.1.0 and is 0.2.0 now; finish it with onmart 0.1.0, or train anew with --force") {
		t.Errorf("%v", err)
	}
	// And one of another format.
	path := filepath.Join(dir, "manifest.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(b, []byte(`"format_version": 2`), []byte(`"format_version": 1`), 1), 0o666); err != nil {
		t.Fatal(err)
	}
	tk.Identity[0].Value = "0.1.0"
	if _, err := tk.Run(context.Background(), backend(t)); err == nil || !strings.Contains(err.Error(), "format 1, want") ||
		!strings.Contains(err.Error(), "--force in place of --resume") {
		t.Errorf("%v", err)
	}
}

func TestAStateThatNoRunLeaves(t *testing.T) {
	sums := strings.TrimSuffix(strings.Repeat("1, ", len(task(t, 1, .02).Set.Slots)), ", ")
	more := func(step string) string { return `"best": 2, "step": ` + step + `, "slots": [` + sums + `]` }
	const steps = (fitRows + batch - 1) / batch
	for name, change := range map[string]func(state string) string{
		"best beyond":     func(s string) string { return strings.Replace(s, `"best": 2`, `"best": 9`, 1) },
		"no best":         func(s string) string { return strings.Replace(s, `"best": 2`, `"best": 0`, 1) },
		"step below":      func(s string) string { return strings.Replace(s, `"best": 2`, more("-1"), 1) },
		"step beyond":     func(s string) string { return strings.Replace(s, `"best": 2`, more(fmt.Sprint(steps)), 1) },
		"step far beyond": func(s string) string { return strings.Replace(s, `"best": 2`, more("1000000"), 1) },
		"missing sums":    func(s string) string { return strings.Replace(s, `"best": 2`, `"best": 2, "step": 3`, 1) },
		"no figure":       func(s string) string { return regexp.MustCompile(`"figure": [^,]*,`).ReplaceAllString(s, "") },
		"many epochs": func(s string) string {
			list := regexp.MustCompile(`(?s)"epochs": \[(.*?)\]`)
			return list.ReplaceAllString(s, `"epochs": [$1`+strings.Repeat(",$1", 10)+`]`)
		},
		"a budget before the first epoch": func(s string) string {
			return regexp.MustCompile(`(?s)"epochs": \[.*?\]`).ReplaceAllString(
				strings.Replace(s, `"best": 2`, strings.Replace(more("3"), "2", "0", 1)+`, "budgeted": true`, 1), `"epochs": []`)
		},
	} {
		dir := filepath.Join(t.TempDir(), "c")
		tk := task(t, 4, .02)
		n := 0
		tk.Judge = func([]float32) float64 { n++; return float64(n) } // the last epoch is the best
		tk.Checkpoint, tk.Stop = dir, 2
		if _, err := tk.Run(context.Background(), backend(t)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "manifest.json")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := change(string(b))
		if changed == string(b) || !json.Valid([]byte(changed)) {
			t.Fatalf("%s: %s", name, changed)
		}
		if err := os.WriteFile(path, []byte(changed), 0o666); err != nil {
			t.Fatal(err)
		}
		tk.Resume, tk.Stop = true, 0
		if _, err := tk.Run(context.Background(), backend(t)); err == nil || !strings.Contains(err.Error(), "cannot be taken up") ||
			!strings.Contains(err.Error(), "--force in place of --resume") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// slow is a backend whose steps take a while.
type slow struct {
	program.Backend
	step time.Duration
}

func (slow) ChunkRows() int { return batch }

type slowExec struct {
	program.Exec
	step time.Duration
}

func (s slow) Compile(set *program.Set) (program.Exec, error) {
	e, err := s.Backend.Compile(set)
	return slowExec{e, s.step}, err
}

func (e slowExec) Run(first, n int, slots []float64) error {
	time.Sleep(time.Duration(n) * e.step)
	return e.Exec.Run(first, n, slots)
}

// A budget ends the training at the last epoch that fits, with the best so far; a resume does not go on.
func TestBudget(t *testing.T) {
	const epochs = 1000
	b := slow{backend(t), 2 * time.Millisecond} // 20 ms an epoch and more
	dir := filepath.Join(t.TempDir(), "c")
	tk := task(t, epochs, .02)
	tk.Checkpoint = dir
	tk.Budget = &train.Budget{Total: 2 * time.Second, Start: time.Now()}
	began := time.Now()
	r, err := tk.Run(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	n := len(r.Epochs)
	if !r.Budgeted || !r.Early || n < 2 || n >= epochs || took > 20*time.Second {
		t.Fatalf("%d epochs in %v, budgeted %v", n, took, r.Budgeted)
	}
	// It is the training without a budget, ended there.
	same := task(t, epochs, .02)
	same.Stop = n
	want, err := same.Run(context.Background(), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	if weights(want) != weights(r) || want.Best != r.Best {
		t.Error("the weights are not those of the same epochs without a budget")
	}
	tk.Resume, tk.Budget = true, nil
	again, err := tk.Run(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	if len(again.Epochs) != n || !again.Budgeted || weights(again) != weights(r) {
		t.Errorf("resumed: %d epochs of %d", len(again.Epochs), n)
	}
}

func TestABudgetTooSmall(t *testing.T) {
	b := slow{backend(t), 30 * time.Millisecond}
	tk := task(t, 5, .02)
	tk.Budget = &train.Budget{Total: 100 * time.Millisecond, Start: time.Now().Add(-20 * time.Millisecond)}
	_, err := tk.Run(context.Background(), b)
	var short *train.TooShort
	if !errors.As(err, &short) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"--max-time 100ms is too small for one epoch", "give --max-time ", " or more"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if !(short.Needed > 100*time.Millisecond) || !(short.Epoch >= 100*time.Millisecond) {
		t.Errorf("%+v", short)
	}
	// What comes later counts.
	tk.Budget = &train.Budget{Total: time.Hour, Start: time.Now(),
		Later: func(time.Duration, int, int) time.Duration { return 2 * time.Hour }}
	if _, err = tk.Run(context.Background(), b); !errors.As(err, &short) || short.Needed < 2*time.Hour ||
		!strings.Contains(err.Error(), ", and what has to follow it about 2h00m; give ") {
		t.Errorf("%v", err)
	}
	// A first epoch that must be is done, and then it ends.
	tk.Budget.Must = true
	if r, err := tk.Run(context.Background(), slow{backend(t), 0}); err != nil || len(r.Epochs) != 1 || !r.Budgeted {
		t.Errorf("%v", err)
	}
	tk.Budget = &train.Budget{Total: time.Millisecond, Start: time.Now().Add(-time.Second)}
	if _, err = tk.Run(context.Background(), b); err == nil || !strings.Contains(err.Error(), "was over before the first epoch began") {
		t.Errorf("%v", err)
	}
}

// records reads a run log; every line is whole.
func records(t testing.TB, path string) []map[string]any {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		t.Errorf("%s ends in half a line: %q", path, b[max(0, len(b)-60):])
	}
	var out []map[string]any
	for line := range bytes.Lines(b) {
		var r map[string]any
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339, r["time"].(string)); err != nil {
			t.Error(err)
		}
		out = append(out, r)
	}
	return out
}

// said lists the events of a log, epochs with their number.
func said(rs []map[string]any) string {
	var out []string
	for _, r := range rs {
		s := r["event"].(string)
		if s == "epoch" {
			s += fmt.Sprint(r["epoch"])
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func session(t testing.TB, out string, resume bool) *train.Session {
	t.Helper()
	s := &train.Session{Out: train.Output{Dir: out, Resume: resume}, Log: train.LogFile(out), Start: time.Now()}
	if err := s.Begin(map[string]int{"seed": 5}); err != nil {
		t.Fatal(err)
	}
	return s
}

// The name of an output is no pattern: a part that was begun for all of its epochs goes on for them.
func TestFitsInAnOutputOfAnyName(t *testing.T) {
	s := &train.Session{Out: train.Output{Dir: filepath.Join(t.TempDir(), "m[1"), Resume: true}, Budget: time.Hour}
	if err := os.MkdirAll(filepath.Join(train.CheckpointDir(s.Out.Dir), "all-seed2"), 0o777); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Fits("all", 7, 100, 0); n != 7 || err != nil {
		t.Errorf("%d epochs, %v", n, err)
	}
}

// A log tells each epoch once, over an interrupt and a resume and half a line that a kill has left.
func TestRunLog(t *testing.T) {
	out := filepath.Join(t.TempDir(), "model")
	part := train.Part{Name: "choose", Label: "training", Figure: "auc", Words: "AUC", Towers: 2}
	ctx, cancel := context.WithCancel(context.Background())
	tk := task(t, 4, .02)
	tk.Loss = func([]float32) float64 { return .5 }
	tk.Judge = cancelAfter(tk.Judge, 2, cancel)
	s := session(t, out, false)
	_, err := s.Run(ctx, part, tk, backend(t))
	if err = s.End(ctx, nil, err); err == nil || !strings.Contains(err.Error(), "--resume goes on") {
		t.Fatal(err)
	}
	first := records(t, s.Log)
	if got := said(first); got != "run part epoch1 checkpoint epoch2 checkpoint interrupt" {
		t.Errorf("the log says %s", got)
	}
	e := first[2]
	if e["part"] != "choose" || e["valid_loss"] != .25 || e["step"] != 10. || e["learning_rate"] == nil || e["figure"] == nil || !(e["rows_per_second"].(float64) > 0) {
		t.Errorf("%v", e)
	}
	if first[0]["seed"] != 5. || first[1]["epochs"] != 4. || first[1]["rows"] != float64(fitRows) || first[6]["error"] == "" {
		t.Errorf("%v", first)
	}
	f, err := os.OpenFile(s.Log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"time":"2026-01-01T00:00:00Z","event":"ep`)
	f.Close()
	s = session(t, out, true)
	again := task(t, 4, .02)
	r, err := s.Run(context.Background(), part, again, backend(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.End(context.Background(), map[string]int{"best": r.Best}, nil); err != nil {
		t.Fatal(err)
	}
	if got := said(records(t, s.Log)); got != "run part epoch1 checkpoint epoch2 checkpoint interrupt resume part epoch3 checkpoint epoch4 checkpoint result" {
		t.Errorf("the log says %s", got)
	}
	c := s.Curves()
	if len(c) != 1 || len(c[0].Epochs) != 4 || c[0].Best != r.Best || c[0].Ended != train.EndedEpochs || c[0].Epochs[0].Seconds != 0 || !s.Resumed() {
		t.Errorf("%+v", c)
	}
	// The losses of two towers are shown as their mean.
	if got := c[0].Epochs[3].Loss; got != r.Epochs[3].Loss/2 {
		t.Errorf("loss %v of %v", got, r.Epochs[3].Loss)
	}
	// Another run begins anew behind it.
	s = session(t, out, false)
	s.End(context.Background(), nil, errors.New("broken"))
	if got := said(records(t, s.Log)); !strings.HasSuffix(got, "result run error") {
		t.Errorf("the log says %s", got)
	}
}

func TestALogThatIsNone(t *testing.T) {
	for text, want := range map[string]string{"a diary": "it is no run log", "a diary\n": "line 1 is no record", "{}\n": "line 1 is no record"} {
		path := testkit.WriteFile(t, t.TempDir(), "mine.txt", text)
		s := &train.Session{Log: path}
		if err := s.Begin(nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "another --log") {
			t.Errorf("%q: %v", text, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%q became %q", text, b)
		}
	}
	dir := t.TempDir()
	file := testkit.WriteFile(t, dir, "file", "")
	for path, want := range map[string]string{dir: "no regular file", os.DevNull: "no regular file", filepath.Join(file, "x"): "not a directory"} {
		s := &train.Session{Log: path}
		if err := s.Begin(nil); err == nil || !strings.Contains(err.Error(), "run log "+path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	// A folder that is not there is made, as for the model.
	s := &train.Session{Log: filepath.Join(dir, "none", "x")}
	if err := s.Begin(nil); err != nil {
		t.Error(err)
	}
	s.End(context.Background(), nil, nil)
}

func TestSmallerIsBetter(t *testing.T) {
	out := filepath.Join(t.TempDir(), "model")
	tk := task(t, 3, .02)
	figures, n := []float64{-.5, -.3, -.4}, 0
	tk.Judge = func([]float32) float64 { n++; return figures[n-1] }
	s := session(t, out, false)
	r, err := s.Run(context.Background(), train.Part{Name: "a", Label: "a", Figure: "pinball", Words: "pinball", Smaller: true}, tk, backend(t))
	if err != nil {
		t.Fatal(err)
	}
	s.End(context.Background(), nil, nil)
	c := s.Curves()[0]
	if r.Best != 2 || *c.Epochs[1].Figure != .3 || !c.Smaller {
		t.Errorf("%+v", c)
	}
}

func TestBestTogether(t *testing.T) {
	run := func(figures ...float64) (out []train.Epoch) {
		for _, f := range figures {
			out = append(out, train.Epoch{Figure: &f})
		}
		return out
	}
	for _, c := range []struct {
		runs    [][]train.Epoch
		average int
		want    int
	}{
		{[][]train.Epoch{run(1, 3, 2)}, 1, 2},
		{[][]train.Epoch{run(1, 3, 3)}, 1, 2},
		{[][]train.Epoch{run(1, 3, 2, 9), run(5, 1, 4)}, 1, 1},
		{[][]train.Epoch{run(1, 2, 3), run(3, 2, 2)}, 1, 3},
		{[][]train.Epoch{run(0, 9, 0, 5, 5)}, 2, 5},
	} {
		if got := train.BestTogether(c.runs, c.average); got != c.want {
			t.Errorf("%v: epoch %d, want %d", c.runs, got, c.want)
		}
	}
	if m, s := train.MeanSpread([]float64{1, 2, 3}); m != 2 || math.Abs(s-1) > 1e-15 {
		t.Errorf("%v %v", m, s)
	}
}
