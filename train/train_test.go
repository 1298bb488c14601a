package train_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

const (
	fitRows, validRows = 300, 100
	batch              = 32 // does not divide fitRows
)

// task is a small network on a planted problem: y is 1 where x0 x1 > 0.
func task(t testing.TB, epochs int, rate float32) *train.Task {
	t.Helper()
	set, err := graph.Compile(func(b *graph.Builder) (graph.Model, error) {
		h := b.Dropout(b.Dense("hidden", b.Input("x", 2), 16, program.Relu, "he_uniform"), .1)
		z := b.Dense("out", h, 1, program.None, "glorot_uniform")
		return graph.Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
	}, graph.Options{Batch: batch, Rows: fitRows, Tile: 64, Optimizer: graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8}})
	if err != nil {
		t.Fatal(err)
	}
	n := fitRows + validRows
	r := rand.New(rand.NewPCG(1, 2))
	x, y := make([]float32, 2*n), make([]float32, n)
	truth := make([]bool, validRows)
	for i := range n {
		x[2*i], x[2*i+1] = float32(r.NormFloat64()), float32(r.NormFloat64())
		if x[2*i]*x[2*i+1] > 0 {
			y[i] = 1
		}
		if i >= fitRows {
			truth[i-fitRows] = y[i] == 1
		}
	}
	steps := (fitRows + batch - 1) / batch
	rates := make([]float32, epochs*steps)
	for i := range rates {
		rates[i] = rate
	}
	return &train.Task{
		Set:   set,
		Init:  set.Initial(5),
		Valid: program.Range{From: fitRows, To: n},
		Judge: func(out []float32) float64 {
			s := make([]float64, len(out))
			for i, v := range out {
				s[i] = float64(v)
			}
			return train.AUC(truth, s)
		},
		Data: program.Data{
			Columns:  []program.Column{{Name: "x", Rows: n, Width: 2, F32: x}, {Name: "y", Rows: n, Width: 1, F32: y}},
			Schedule: program.Schedule{Seed: 5, Train: program.Range{To: fitRows}, Rates: rates},
		},
	}
}

func backend(t testing.TB) program.Backend {
	t.Helper()
	b, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func weights(r *train.Result) string {
	var s strings.Builder
	for _, w := range r.Weights {
		fmt.Fprintln(&s, w.Name, w.Shape)
		for _, v := range w.F32 {
			fmt.Fprintf(&s, "%08x ", math.Float32bits(v))
		}
	}
	return s.String()
}

func TestTrainingLearns(t *testing.T) {
	r, err := task(t, 40, .02).Run(context.Background(), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	best := *r.Epochs[r.Best-1].Figure
	if !(best >= .97) || r.Early || len(r.Epochs) != 40 {
		t.Errorf("AUC %v in epoch %d of %d", best, r.Best, len(r.Epochs))
	}
	for i, e := range r.Epochs {
		if *e.Figure > best || *e.Figure == best && i+1 < r.Best {
			t.Errorf("epoch %d has %v, epoch %d was kept", i+1, *e.Figure, r.Best)
		}
	}
	// A training on all epochs up to the best one gives these weights: they were taken then.
	again := task(t, r.Best, .02)
	again.Valid = program.Range{}
	last, err := again.Run(context.Background(), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	if last.Best != r.Best || weights(last) != weights(r) {
		t.Error("the weights are not those of the best epoch")
	}
}

func TestPatienceEndsTheTraining(t *testing.T) {
	tk := task(t, 20, .001)
	figures := []float64{.5, .7, .6, .7, .65, .9}
	i := 0
	tk.Judge = func([]float32) float64 { i++; return figures[i-1] }
	tk.Patience = 3
	r, err := tk.Run(context.Background(), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Early || r.Best != 2 || len(r.Epochs) != 5 {
		t.Errorf("stopped after %d epochs with best %d, want 5 and 2", len(r.Epochs), r.Best)
	}
}

// A training stopped in any epoch and resumed gives the weights of one that was not.
func TestAverageLooksPastOneEpoch(t *testing.T) {
	figures := []float64{.1, .9, .1, .5, .6, .6, .2, .2}
	for _, c := range []struct{ average, patience, best, epochs int }{
		{0, 0, 2, 8}, {1, 0, 2, 8}, {2, 0, 6, 8}, {3, 0, 6, 8}, {100, 0, 2, 8}, {1, 2, 2, 4}, {3, 2, 2, 4},
	} {
		task := task(t, len(figures), .01)
		task.Average, task.Patience = c.average, c.patience
		judged := 0
		task.Judge = func([]float32) float64 { judged++; return figures[judged-1] }
		r, err := task.Run(context.Background(), backend(t))
		if err != nil {
			t.Fatal(err)
		}
		if r.Best != c.best || len(r.Epochs) != c.epochs {
			t.Errorf("over %d epochs, patience %d: epoch %d of %d, want %d of %d", c.average, c.patience, r.Best, len(r.Epochs), c.best, c.epochs)
		}
	}
}

func TestResumeToTheBit(t *testing.T) {
	const epochs = 6
	whole, err := task(t, epochs, .02).Run(context.Background(), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	for stop := 1; stop <= epochs; stop++ {
		dir := filepath.Join(t.TempDir(), "model.checkpoint")
		first := task(t, epochs, .02)
		first.Checkpoint = dir
		ctx, cancel := context.WithCancel(context.Background())
		first.Progress = func(p train.Progress) {
			// In the middle of the epoch after stop; after the last there is nothing to stop.
			if p.Epoch == stop {
				cancel()
			}
		}
		if stop < epochs {
			first.Judge = cancelAfter(first.Judge, stop, cancel)
		}
		_, err := first.Run(ctx, backend(t))
		cancel()
		var stopped *train.Interrupted
		if stop < epochs && (!errors.As(err, &stopped) || !errors.Is(err, context.Canceled) || stopped.Epoch != stop || !strings.Contains(err.Error(), "--resume")) {
			t.Fatalf("stopped after epoch %d: %v", stop, err)
		}
		if stop == epochs && err != nil {
			t.Fatal(err)
		}
		second := task(t, epochs, .02)
		second.Checkpoint, second.Resume = dir, true
		r, err := second.Run(context.Background(), backend(t))
		if err != nil {
			t.Fatal(err)
		}
		if r.From != stop || r.Best != whole.Best || weights(r) != weights(whole) {
			t.Errorf("resumed from epoch %d of %d: the weights differ", r.From, stop)
		}
		for i := range r.Epochs {
			if r.Epochs[i].Loss != whole.Epochs[i].Loss || *r.Epochs[i].Figure != *whole.Epochs[i].Figure {
				t.Errorf("resumed after %d: epoch %d is %+v, want %+v", stop, i+1, r.Epochs[i], whole.Epochs[i])
			}
		}
		if names := testkit.Names(t, filepath.Dir(dir)); !slices.Equal(names, []string{"model.checkpoint"}) {
			t.Errorf("left behind: %v", names)
		}
	}
}

func cancelAfter(judge func([]float32) float64, epoch int, cancel func()) func([]float32) float64 {
	n := 0
	return func(out []float32) float64 {
		if n++; n == epoch {
			cancel()
		}
		return judge(out)
	}
}

func TestResumeRefusesAnotherTraining(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	first := task(t, 2, .02)
	first.Checkpoint, first.Identity = dir, []train.Fact{{Name: "data", Value: "abc"}, {Name: "seed", Value: "5"}}
	if _, err := first.Run(context.Background(), backend(t)); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*train.Task){
		"data was abc and is xyz now":        func(tk *train.Task) { tk.Identity[0].Value = "xyz" },
		"learning rates was":                 func(tk *train.Task) { tk.Data.Rates[3] = .5 },
		"rows validated on was":              func(tk *train.Task) { tk.Valid.To-- },
		"patience was 0 and is 4 now":        func(tk *train.Task) { tk.Patience = 4 },
		"seed was 5 and is not there now":    func(tk *train.Task) { tk.Identity = tk.Identity[:1] },
		"delay is 7d now and was not there":  func(tk *train.Task) { tk.Identity = append(tk.Identity, train.Fact{Name: "delay", Value: "7d"}) },
		"; seed was 5 and is 6 now":          func(tk *train.Task) { tk.Identity[0].Value, tk.Identity[1].Value = "d", "6" },
		"train anew with --force":            func(tk *train.Task) { tk.Identity[0].Value = "xyz" },
		"rows trained on was {0 300} and is": func(tk *train.Task) { tk.Data.Train.To = 299 },
	} {
		tk := task(t, 2, .02)
		tk.Checkpoint, tk.Resume = dir, true
		tk.Identity = slices.Clone(first.Identity)
		change(tk)
		if _, err := tk.Run(context.Background(), backend(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	// What follows from a setting that differs is not named beside it.
	more := task(t, 3, .01)
	more.Checkpoint, more.Resume = dir, true
	more.Identity = []train.Fact{{Name: "data", Value: "xyz"}, first.Identity[1]}
	_, err := more.Run(context.Background(), backend(t))
	if err == nil || !strings.Contains(err.Error(), "data was abc") || strings.Contains(err.Error(), "learning rates") {
		t.Errorf("%v, want the data alone", err)
	}
	// Without Resume it is replaced.
	tk := task(t, 1, .02)
	tk.Checkpoint = dir
	if r, err := tk.Run(context.Background(), backend(t)); err != nil || r.From != 0 {
		t.Error(r, err)
	}
}

// named is a backend by another name.
type named struct {
	program.Backend
	name string
}

func (b named) Name() string { return b.name }

// A checkpoint is taken up on any set of instructions of a processor, which all give the same bits, and on no other device.
func TestResumeOnAnotherProcessor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	for _, c := range []struct {
		name, want string
		stop       int
	}{
		{"cpu-avx2", "", 1}, {"cpu-avx512", "", 2}, {"cpu-portable", "", 3},
		{"cuda sm_90", "backend was cpu and is cuda sm_90 now", 4},
	} {
		tk := task(t, 4, .02)
		tk.Checkpoint, tk.Resume, tk.Stop = dir, true, c.stop
		r, err := tk.Run(context.Background(), named{backend(t), c.name})
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
			continue
		}
		if err != nil || r.From != c.stop-1 {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestADamagedCheckpointIsRefused(t *testing.T) {
	for _, file := range []string{"manifest.json", "last.safetensors", "best.safetensors"} {
		for name, damage := range map[string]func(path string) error{
			"cut":     func(p string) error { return os.Truncate(p, 20) },
			"missing": os.Remove,
			"changed": func(p string) error {
				b, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				b[len(b)-30] ^= 64
				return os.WriteFile(p, b, 0o666)
			},
			"grown": func(p string) error { return os.Truncate(p, 1<<30) },
		} {
			dir := filepath.Join(t.TempDir(), "c")
			tk := task(t, 1, .02)
			tk.Checkpoint = dir
			if _, err := tk.Run(context.Background(), backend(t)); err != nil {
				t.Fatal(err)
			}
			if err := damage(filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
			tk.Resume = true
			tk.Ended = func(int, train.Epoch, bool) { t.Errorf("%s %s: an epoch came before the error", file, name) }
			_, err := tk.Run(context.Background(), backend(t))
			if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--force in place of --resume") {
				t.Errorf("%s %s: %v", file, name, err)
			}
		}
	}
}

// silent is a backend that does not look at its slots, which are NaN from a step on.
type silent struct {
	program.Backend
	from int
}

type silentExec struct {
	program.Exec
	from int
}

func (b silent) Compile(s *program.Set) (program.Exec, error) {
	e, err := b.Backend.Compile(s)
	return silentExec{e, b.from}, err
}

func (e silentExec) Run(first, n int, slots []float64) error {
	if first < e.from {
		return e.Exec.Run(first, n, slots)
	}
	slots[0] = math.NaN()
	return nil
}

func TestDivergence(t *testing.T) {
	tk := task(t, 3, 1e30)
	if _, err := tk.Run(context.Background(), backend(t)); err == nil || !strings.Contains(err.Error(), "diverged") || !strings.Contains(err.Error(), "epoch 1") {
		t.Errorf("%v", err)
	}
	tk = task(t, 3, .25)
	_, err := tk.Run(context.Background(), silent{backend(t), tk.Data.StepsPerEpoch(tk.Set.Train.Rows)})
	var d *train.Diverged
	if !errors.As(err, &d) || d.Epoch != 2 || d.Rate != .25 || !strings.Contains(err.Error(), "smaller learning rate") {
		t.Errorf("%v", err)
	}
}

// sluggish is a backend whose steps take so long at least; most becomes the steps of its longest Run.
type sluggish struct {
	program.Backend
	step time.Duration
	most *int
}

type sluggishExec struct {
	program.Exec
	sluggish
}

func (b sluggish) Compile(s *program.Set) (program.Exec, error) {
	e, err := b.Backend.Compile(s)
	return sluggishExec{e, b}, err
}

func (e sluggishExec) Run(first, n int, slots []float64) error {
	*e.most = max(*e.most, n)
	time.Sleep(time.Duration(n) * e.step)
	return e.Exec.Run(first, n, slots)
}

// TestLooksUpWhateverAStepTakes: between two looks at Ctrl-C there is one step where that takes long, and many where not.
func TestLooksUpWhateverAStepTakes(t *testing.T) {
	for step, many := range map[time.Duration]bool{0: true, 60 * time.Millisecond: false} {
		most := 0
		tk := task(t, 1, .01)
		if _, err := tk.Run(t.Context(), sluggish{backend(t), step, &most}); err != nil {
			t.Fatal(err)
		}
		if (most > 1) != many {
			t.Errorf("steps of %v: %d at a time", step, most)
		}
	}
}

func TestProgressGoesToTheEnd(t *testing.T) {
	tk := task(t, 2, .01)
	var last train.Progress
	tk.Progress = func(p train.Progress) {
		if p.Rows < last.Rows || math.IsNaN(p.Loss) {
			t.Errorf("after %+v came %+v", last, p)
		}
		last = p
	}
	if _, err := tk.Run(context.Background(), backend(t)); err != nil {
		t.Fatal(err)
	}
	if last.Rows != 2*fitRows || last.Total != 2*fitRows || last.Epochs != 2 {
		t.Errorf("ended at %+v", last)
	}
}

func TestBadTasks(t *testing.T) {
	for want, change := range map[string]func(*train.Task){
		"no rows":               func(tk *train.Task) { tk.Data.Train = program.Range{} },
		"whole number of epoch": func(tk *train.Task) { tk.Data.Rates = tk.Data.Rates[1:] },
		"slots":                 func(tk *train.Task) { tk.Set.Slots = []string{"a", "b"} },
		"figure is NaN":         func(tk *train.Task) { tk.Judge = func([]float32) float64 { return math.NaN() } },
	} {
		tk := task(t, 2, .01)
		change(tk)
		if _, err := tk.Run(context.Background(), backend(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestACheckpointThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	testkit.WriteFile(t, dir, "mine.txt", "not a checkpoint")
	tk := task(t, 1, .01)
	tk.Checkpoint = dir
	if _, err := tk.Run(context.Background(), backend(t)); err == nil || !strings.Contains(err.Error(), "checkpoint") {
		t.Errorf("%v", err)
	}
	if names := testkit.Names(t, dir); !slices.Equal(names, []string{"mine.txt"}) {
		t.Errorf("left %v", names)
	}
}
