package traintest

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/cudatest"
	"github.com/onmart/onmart/cuda/kernels/kerneltest"
	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/train/program"
)

// Order is what a Task is asked to do.
type Order struct {
	Context context.Context
	Backend program.Backend
	Threads int
	Seed    uint64
	Out     string // the artifact's directory
	Resume  bool
}

// Task trains as the task's command does: the same small training on each call, but for what the order says. It takes
// two or more epochs and keeps a checkpoint.
type Task func(t testing.TB, o Order) error

// order is a plain one.
func order(t testing.TB) Order {
	out := filepath.Join(t.TempDir(), "model")
	return Order{Context: t.Context(), Backend: Processor(t, 1), Threads: 1, Seed: 1, Out: out}
}

// Weights are the bytes of an artifact's weights.
func Weights(t testing.TB, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "weights.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TaskThreads: threads are not in the weights; the seed is.
func TaskThreads(t testing.TB, task Task) {
	t.Helper()
	weights := func(threads int, seed uint64) string {
		o := order(t)
		o.Backend, o.Threads, o.Seed = Processor(t, threads), threads, seed
		if err := task(t, o); err != nil {
			t.Fatal(err)
		}
		return Weights(t, o.Out)
	}
	one := weights(1, 1)
	if weights(3, 1) != one {
		t.Error("three threads give other weights than one")
	}
	if weights(1, 2) == one {
		t.Error("the seed does nothing")
	}
}

// TaskResume: a training that is stopped after any epoch leaves no artifact and says how to go on; resumed, it ends
// in the same weights and leaves nothing beside the artifact. Without --resume, or with another seed, it is refused.
func TaskResume(t testing.TB, task Task) {
	t.Helper()
	whole := order(t)
	count := &Stopping{Backend: whole.Backend}
	whole.Backend = count
	if err := task(t, whole); err != nil {
		t.Fatal(err)
	}
	want := Weights(t, whole.Out)
	if count.Epochs < 2 {
		t.Fatalf("the training takes %d epochs: want 2 or more", count.Epochs)
	}
	for stop := 1; stop < count.Epochs; stop++ {
		o := order(t)
		ctx, cancel := context.WithCancel(t.Context())
		o.Context, o.Backend = ctx, &Stopping{Backend: o.Backend, After: stop, Cancel: cancel}
		err := task(t, o)
		cancel()
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "--resume goes on") {
			t.Fatalf("stopped after %d epochs of %d: %v", stop, count.Epochs, err)
		}
		if _, err := os.Stat(o.Out); err == nil {
			t.Fatal("a stopped training left an artifact")
		}
		again := order(t)
		again.Out = o.Out
		if err := task(t, again); err == nil || !strings.Contains(err.Error(), "--resume goes on") {
			t.Errorf("without --resume: %v", err)
		}
		again.Resume, again.Seed = true, 9
		if err := task(t, again); err == nil || !strings.Contains(err.Error(), "seed was 1 and is 9 now") {
			t.Errorf("another seed: %v", err)
		}
		again.Seed = 1
		if err := task(t, again); err != nil {
			t.Fatalf("stopped after %d epochs and resumed: %v", stop, err)
		}
		if Weights(t, o.Out) != want {
			t.Errorf("stopped after %d epochs and resumed: other weights", stop)
		}
		leftOnly(t, o.Out, filepath.Base(o.Out))
	}
	fresh := order(t)
	fresh.Resume = true
	if err := task(t, fresh); err == nil || !strings.Contains(err.Error(), "nothing to resume") {
		t.Errorf("nothing to resume: %v", err)
	}
}

// TaskStopped: a training that is stopped before its first epoch leaves nothing.
func TaskStopped(t testing.TB, task Task) {
	t.Helper()
	o := order(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	o.Context = ctx
	if err := task(t, o); err == nil {
		t.Fatal("it ran to the end")
	}
	leftOnly(t, o.Out)
}

// TaskDiverges: a loss that is no number ends the training, says so, and leaves no artifact.
func TaskDiverges(t testing.TB, task Task) {
	t.Helper()
	o := order(t)
	o.Backend = Blind{o.Backend}
	if err := task(t, o); err == nil || !strings.Contains(err.Error(), "diverged") {
		t.Errorf("a loss that is NaN: %v", err)
	}
	leftOnly(t, o.Out)
}

// TaskOnGPU trains on the GPU, and again on one that is lost in the middle: that leaves no artifact and says how to
// go on, on the same device alone; resumed, it ends in the weights of the unbroken training, whose directory is
// returned.
func TaskOnGPU(t testing.TB, task Task) (whole string) {
	t.Helper()
	counting := cudatest.Wrap(kerneltest.Driver(t))
	o := order(t)
	o.Backend = GPU(t, kerneltest.Open(t, cuda.Options{Driver: counting}))
	if err := task(t, o); err != nil {
		t.Fatal(err)
	}
	whole = o.Out
	launches := counting.Count(cudatest.GraphLaunch)
	if launches < 4 {
		t.Fatalf("%d graphs were launched: want 4 or more", launches)
	}
	faults := cudatest.Wrap(kerneltest.Driver(t))
	lost := order(t)
	lost.Backend = GPU(t, kerneltest.Open(t, cuda.Options{Driver: faults}))
	// In the last quarter: then an epoch has ended.
	faults.Fail(cudatest.GraphLaunch, launches*3/4, cuda.LaunchFailed, cudatest.LostLater)
	err := task(t, lost)
	if !cuda.Lost(err) || !strings.Contains(err.Error(), "--resume goes on from there, on the same --device") {
		t.Fatalf("a lost device: %v", err)
	}
	if _, err := os.Stat(lost.Out); err == nil {
		t.Error("a training on a lost device left an artifact")
	}
	again := order(t)
	again.Out, again.Resume = lost.Out, true
	err = task(t, again)
	if err == nil || !strings.Contains(err.Error(), "backend was cuda sm_") ||
		strings.Contains(err.Error(), "goes on from there") {
		t.Errorf("resumed on the processor: %v", err)
	}
	again.Backend = GPU(t, nil)
	if err := task(t, again); err != nil {
		t.Fatalf("the resume: %v", err)
	}
	if Weights(t, again.Out) != Weights(t, whole) {
		t.Error("the resumed training ended in other weights than the unbroken one")
	}
	return whole
}

// leftOnly checks what is in the directory that an artifact goes into.
func leftOnly(t testing.TB, out string, want ...string) {
	t.Helper()
	if names := testkit.Names(t, filepath.Dir(out)); !slices.Equal(names, want) {
		t.Errorf("left behind %v, want %v", names, want)
	}
}

// Stopping is a backend that calls Cancel after a number of epochs, so that the first step of the next one sees it.
// It counts epochs, by the exports: there is one for each epoch, before the checkpoint is written.
type Stopping struct {
	program.Backend
	After  int // 0 for never
	Cancel func()
	Epochs int // so far
}

type stoppingExec struct {
	program.Exec
	b *Stopping
}

// Compile is the backend's.
func (b *Stopping) Compile(s *program.Set) (program.Exec, error) {
	e, err := b.Backend.Compile(s)
	if err != nil {
		return nil, err
	}
	return &stoppingExec{e, b}, nil
}

func (e *stoppingExec) Export() (program.Tensors, error) {
	if e.b.Epochs++; e.b.Epochs == e.b.After {
		e.b.Cancel()
	}
	return e.Exec.Export()
}

// Blind is a backend whose loss is not a number.
type Blind struct{ program.Backend }

type blindExec struct{ program.Exec }

// Compile is the backend's.
func (b Blind) Compile(s *program.Set) (program.Exec, error) {
	e, err := b.Backend.Compile(s)
	if err != nil {
		return nil, err
	}
	return blindExec{e}, nil
}

func (e blindExec) Run(_, _ int, slots []float64) error {
	slots[0] = math.NaN()
	return nil
}
