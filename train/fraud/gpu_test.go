package fraud

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/cudatest"
	"github.com/onmart/onmart/cuda/kernels/kerneltest"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
)

func gpuBackend(t testing.TB, d *cuda.Device) *gpu.Backend {
	t.Helper()
	b, err := gpu.New(gpu.Options{Device: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil && !cuda.Lost(err) {
			t.Error(err)
		}
	})
	return b
}

// TestDefaultNetworkOnTheGPU trains the default network for 200 steps: each loss is the CPU's within 1e-4 of it.
func TestDefaultNetworkOnTheGPU(t *testing.T) {
	steps := 200
	if testing.Short() {
		steps = 20
	}
	const width, rows = 15, 2000
	c := DefaultConfig()
	set, err := c.Compile(width, rows)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	x, y := make([]float32, rows*width), make([]float32, rows)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for i := range y {
		y[i] = float32(btoi(x[i*width]*x[i*width+1]+x[i*width+2] > 1))
	}
	d := program.Data{
		Columns:  []program.Column{{Name: columnX, Rows: rows, Width: width, F32: x}, {Name: columnY, Rows: rows, Width: 1, F32: y}},
		Schedule: program.Schedule{Seed: 3, Train: program.Range{To: rows}, Rates: c.rates(steps, 1)},
	}
	processor, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var losses [2][]float64
	for k, b := range []program.Backend{processor, gpuBackend(t, kerneltest.Open(t, cuda.Options{}))} {
		e, err := b.Compile(set)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(e.Bind(d), e.Import(set.Initial(3))); err != nil {
			t.Fatal(err)
		}
		for s := range steps {
			slots := make([]float64, len(set.Slots))
			if err := e.Run(s, 1, slots); err != nil {
				t.Fatal(err)
			}
			losses[k] = append(losses[k], slots[slices.Index(set.Slots, "loss")]/slots[slices.Index(set.Slots, "rows")])
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var worst float64
	for s, want := range losses[0] {
		diff := math.Abs(losses[1][s]-want) / want
		if !(diff <= 1e-4) {
			t.Fatalf("step %d: the loss is %v, on the CPU %v", s, losses[1][s], want)
		}
		worst = max(worst, diff)
	}
	if !(losses[0][steps-1] < .9*losses[0][0]) {
		t.Errorf("nothing was learned: loss %v, then %v", losses[0][0], losses[0][steps-1])
	}
	t.Logf("the greatest difference of a loss is %.1e of it", worst)
}

// TestTrainOnTheGPU is a whole training, and the same one on a device that is lost in the middle, with the resume.
func TestTrainOnTheGPU(t *testing.T) {
	configure := func(n *notes) Options {
		o := small(t, n)
		o.Config.Epochs, o.Config.Patience, o.Config.Schedule = 3, 0, "constant"
		return o
	}
	onCPU := configure(&notes{})
	reference, err := Train(t.Context(), onCPU)
	if err != nil {
		t.Fatal(err)
	}
	whole := configure(&notes{})
	whole.Backend = gpuBackend(t, kerneltest.Open(t, cuda.Options{}))
	s, err := Train(t.Context(), whole)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Validation["average_precision"], reference.Validation["average_precision"]; !(math.Abs(got-want) < .02) {
		t.Errorf("average precision %v, on the CPU %v", got, want)
	}
	a, err := model.Open(whole.Out)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Manifest().Created.Backend; got != whole.Backend.Name() || !strings.HasPrefix(got, "cuda sm_") {
		t.Errorf("the artifact was made on %q", got)
	}

	faults := cudatest.Wrap(kerneltest.Driver(t))
	o := configure(&notes{})
	o.Backend = gpuBackend(t, kerneltest.Open(t, cuda.Options{Driver: faults}))
	// The third export of an epoch is never reached: the device goes with the launches of epoch 3.
	perEpoch := launches(t)
	faults.Fail(cudatest.GraphLaunch, 2*perEpoch+perEpoch/2, cuda.LaunchFailed, cudatest.LostLater)
	_, err = Train(t.Context(), o)
	if !cuda.Lost(err) || !strings.Contains(err.Error(), "--resume goes on from there, on the same --device") {
		t.Fatalf("a lost device: %v", err)
	}
	if _, err := os.Stat(o.Out); err == nil {
		t.Error("a training on a lost device left an artifact")
	}
	elsewhere := configure(&notes{})
	elsewhere.Out, elsewhere.Resume = o.Out, true
	if _, err := Train(t.Context(), elsewhere); err == nil || !strings.Contains(err.Error(), "backend was cuda sm_") || strings.Contains(err.Error(), "goes on from there") {
		t.Errorf("resumed on the CPU: %v", err)
	}
	again := configure(&notes{})
	again.Out, again.Resume = o.Out, true
	again.Backend = gpuBackend(t, kerneltest.Open(t, cuda.Options{}))
	if s, err = Train(t.Context(), again); err != nil || !s.Resumed {
		t.Fatalf("the resume: %v", err)
	}
	if weightsOf(t, again.Out) != weightsOf(t, whole.Out) {
		t.Error("the resumed training ended in other weights than the unbroken one")
	}
}

// launches is how many steps an epoch of the first loop has.
func launches(t *testing.T) int {
	t.Helper()
	o := small(t, &notes{})
	set, d, err := Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return d.StepsPerEpoch(set.Train.Rows)
}
