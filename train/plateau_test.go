package train_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

// tuned is the task with another optimizer and schedule.
func tuned(t testing.TB, epochs int, o train.Optim) *train.Task {
	t.Helper()
	k := task(t, epochs, 1)
	set, err := graph.Compile(func(b *graph.Builder) (graph.Model, error) {
		h := b.Dropout(b.Dense("hidden", b.Input("x", 2), 16, program.Relu, "he_uniform"), .1)
		z := b.Dense("out", h, 1, program.None, "glorot_uniform")
		return graph.Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
	}, o.Options(batch, fitRows, 64))
	if err != nil {
		t.Fatal(err)
	}
	k.Set, k.Init = set, set.Initial(5)
	k.Data.Rates = o.Rates((fitRows+batch-1)/batch, epochs)
	k.Plateau = o.Plateau()
	return k
}

// everything is a plateau, an average of the weights and clipping.
func everything() train.Optim {
	o := train.DefaultOptim(.3)
	o.Optimizer, o.Schedule, o.PlateauPatience, o.ClipNorm, o.EMA = "sgd", "plateau", 1, .5, .9
	return o
}

// seen is a backend that notes the rates that it is given.
type seen struct {
	program.Backend
	rates *[][]float32
}

type seenExec struct {
	program.Exec
	rates *[][]float32
}

func (b seen) Compile(s *program.Set) (program.Exec, error) {
	e, err := b.Backend.Compile(s)
	return seenExec{e, b.rates}, err
}

func (e seenExec) SetRates(rates []float32) error {
	*e.rates = append(*e.rates, slices.Clone(rates))
	return e.Exec.SetRates(rates)
}

// TestPlateau: the rates fall as the figures say, the steps use them, and a resume after any epoch ends in the weights
// of the unbroken training, averages and all.
func TestPlateau(t *testing.T) {
	const epochs = 9
	var rates [][]float32
	whole := tuned(t, epochs, everything())
	r, err := whole.Run(context.Background(), seen{backend(t), &rates})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Scales) != epochs || r.Scales[0] != 1 || !(r.Scales[epochs-1] < 1) {
		t.Fatalf("scales %v", r.Scales)
	}
	changes := 0
	for i := 1; i < epochs; i++ {
		if r.Scales[i] != r.Scales[i-1] {
			got := rates[changes]
			steps := len(got) / epochs
			if want := float32(float64(whole.Data.Rates[i*steps]) * r.Scales[i]); got[i*steps] != want {
				t.Errorf("epoch %d has the rate %v, want %v", i+1, got[i*steps], want)
			}
			changes++
		}
	}
	if changes != len(rates) || changes < 2 {
		t.Errorf("the rates were set %d times, for %d falls", len(rates), changes)
	}
	// The same rates as a table make the same weights: so SetRates is what a step reads.
	replay := tuned(t, epochs, everything())
	replay.Plateau = nil
	replay.Data.Rates = train.Scaled(replay.Data.Rates, len(replay.Data.Rates)/epochs, r.Scales)
	again, err := replay.Run(context.Background(), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	if weights(again) != weights(r) || again.Scales != nil {
		t.Error("the rates of the plateau as a table give other weights")
	}
	for stop := 1; stop < epochs; stop++ {
		dir := filepath.Join(t.TempDir(), "c")
		ctx, cancel := context.WithCancel(context.Background())
		first := tuned(t, epochs, everything())
		first.Checkpoint, first.Judge = dir, cancelAfter(first.Judge, stop, cancel)
		_, err := first.Run(ctx, backend(t))
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		second := tuned(t, epochs, everything())
		second.Checkpoint, second.Resume = dir, true
		got, err := second.Run(context.Background(), backend(t))
		if err != nil {
			t.Fatal(err)
		}
		if got.From != stop || weights(got) != weights(r) || !slices.Equal(got.Scales, r.Scales) {
			t.Errorf("resumed after epoch %d: scales %v, want %v, and the same weights", got.From, got.Scales, r.Scales)
		}
		other := tuned(t, epochs, everything())
		other.Checkpoint, other.Resume, other.Plateau.Factor = dir, true, .1
		if _, err := other.Run(context.Background(), backend(t)); err == nil ||
			!strings.Contains(err.Error(), "plateau was 0.5 after 1 epochs and is 0.1 after 1 epochs now") {
			t.Errorf("another plateau: %v", err)
		}
	}
}

// TestPlateauOfTheLoss: without validation rows it is the loss that has to fall.
func TestPlateauOfTheLoss(t *testing.T) {
	k := tuned(t, 12, everything())
	k.Valid = program.Range{}
	r, err := k.Run(context.Background(), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	best, want := r.Epochs[0].Loss, []float64{1, 1}
	for _, e := range r.Epochs[1 : len(r.Epochs)-1] {
		s := want[len(want)-1]
		if e.Loss < best {
			best = e.Loss
		} else {
			s /= 2
		}
		want = append(want, s)
	}
	if !slices.Equal(r.Scales, want) {
		t.Errorf("scales %v, want %v of %+v", r.Scales, want, r.Epochs)
	}
}

// TestAveragesAreJudgedAndKept: the figure of an epoch is that of the averages, which are what the training comes to.
func TestAveragesAreJudgedAndKept(t *testing.T) {
	o := train.DefaultOptim(.05)
	o.EMA = .98
	k := tuned(t, 4, o)
	judged := [][]float32{}
	judge := k.Judge
	k.Judge = func(out []float32) float64 {
		judged = append(judged, slices.Clone(out))
		return judge(out)
	}
	r, err := k.Run(context.Background(), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	plain := o
	plain.EMA = 0
	twin := tuned(t, 1, plain)
	e, err := backend(t).Compile(twin.Set)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ts := slices.Clone(r.Weights)
	for _, s := range twin.Init {
		if ts.Find(s.Name) == nil {
			ts = append(ts, s)
			ts.Sort()
		}
	}
	if err := errors.Join(e.Bind(twin.Data), e.Import(ts)); err != nil {
		t.Fatal(err)
	}
	out := make([]float32, validRows)
	if err := e.Eval(k.Valid, out); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(out, judged[r.Best-1]) {
		t.Error("the weights that were kept are not those that were judged")
	}
	without, err := tuned(t, 4, plain).Run(context.Background(), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	if weights(without) == weights(r) {
		t.Error("the average is the weights themselves")
	}
}
