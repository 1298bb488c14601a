package traintest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels/emulator"
	"github.com/onmart/onmart/cuda/kernels/kerneltest"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
)

// Sound: the set is valid, its data can be bound, it goes through JSON, and the loss falls by what the case says.
func Sound(t testing.TB, c Case) {
	t.Helper()
	if err := c.Set.Validate(); err != nil {
		t.Fatal(err)
	}
	e := open(t, Processor(t, 1), c, c.start())
	ls := losses(&c, run(t, &c, e, 0, c.steps()))
	tenth := max(1, len(ls)/10)
	before, after := mean(ls[:tenth]), mean(ls[len(ls)-tenth:])
	if !(after <= (1-c.Learns)*before) {
		t.Errorf("the loss goes from %v to %v in %d steps, want it to fall by %v of itself",
			before, after, len(ls), c.Learns)
	}
}

func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// parityLimit is how far a loss on the GPU may be from that on the processor, of itself.
const parityLimit = 1e-4

// Parity trains on the processor and on the GPU: every slot of every step agrees within 1e-4 of itself, and outputs
// after the last. With -short it does 20 steps at most.
func Parity(t testing.TB, c Case) {
	t.Helper()
	steps := c.steps()
	if testing.Short() {
		steps = c.few(20)
	}
	var slots [2][][]float64
	var out [2][]float32
	for k, b := range []program.Backend{Processor(t, 1), GPU(t, nil)} {
		e := open(t, b, c, c.start())
		slots[k], out[k] = run(t, &c, e, 0, steps), outputs(t, &c, e)
	}
	worst := 0.0
	for s := range steps {
		for i, want := range slots[0][s] {
			diff := math.Abs(slots[1][s][i] - want)
			if !(diff <= parityLimit*math.Abs(want)) {
				t.Fatalf("step %d: slot %s is %v, on the processor %v", s, c.Set.Slots[i], slots[1][s][i], want)
			}
			if want != 0 {
				worst = max(worst, diff/math.Abs(want))
			}
		}
	}
	size := 0.0
	for _, v := range out[0] {
		size = max(size, math.Abs(float64(v)))
	}
	for i, want := range out[0] {
		if !(math.Abs(float64(out[1][i]-want)) <= 1e-3*size) {
			t.Fatalf("output %d after %d steps is %v, on the processor %v", i, steps, out[1][i], want)
		}
	}
	t.Logf("the greatest difference of a slot in %d steps is %.1e of it", steps, worst)
}

// Emulator runs eight steps in three orders of threads, blocks and graph nodes, with memory of its own for each
// buffer so that an access past one fails: the same bits in each. On hardware it is one run.
func Emulator(t testing.TB, c Case) {
	t.Helper()
	var want program.Tensors
	for _, order := range []uint32{0, 1, 7} {
		func() {
			device := kerneltest.Open(t, cuda.Options{NoCache: true})
			if !kerneltest.Hardware() {
				emulator.SetOrder(device.Driver(), order)
				defer emulator.SetOrder(device.Driver(), 0)
			}
			b, err := gpu.New(gpu.Options{Device: device, Apart: true})
			if err != nil {
				t.Fatal(err)
			}
			e, err := b.Compile(c.Set)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}()
			if err := e.Bind(c.Data); err != nil {
				t.Fatal(err)
			}
			if err := e.Import(c.start()); err != nil {
				t.Fatal(err)
			}
			run(t, &c, e, 0, c.few(8))
			got := export(t, e)
			if want == nil {
				want = got
			}
			sameBits(t, fmt.Sprintf("order %d against order 0", order), got, want)
		}()
	}
}

// Threads: the same weights, slots and outputs for one thread and for several.
func Threads(t testing.TB, c Case) {
	t.Helper()
	steps := c.few(30)
	var want program.Tensors
	var wantSlots [][]float64
	var wantOut []float32
	for _, threads := range []int{1, 2, 3, 8} {
		e := open(t, Processor(t, threads), c, c.start())
		slots := run(t, &c, e, 0, steps)
		got, out := export(t, e), outputs(t, &c, e)
		if want == nil {
			want, wantSlots, wantOut = got, slots, out
			continue
		}
		what := fmt.Sprintf("%d threads against one", threads)
		for s := range slots {
			if !slices.Equal(slots[s], wantSlots[s]) {
				t.Fatalf("%s: step %d: slots %v, want %v", what, s, slots[s], wantSlots[s])
			}
		}
		sameBits(t, what, got, want)
		sameFloats(t, what+": outputs", out, wantOut)
	}
}

// Portable: the portable kernels give the bits of the assembly.
func Portable(t testing.TB, c Case) {
	t.Helper()
	steps := c.few(3)
	e := open(t, Processor(t, 1), c, c.start())
	run(t, &c, e, 0, steps)
	want, wantOut := export(t, e), outputs(t, &c, e)
	t.Setenv("ONMART_CPU", "portable")
	e = open(t, Processor(t, 1), c, c.start())
	run(t, &c, e, 0, steps)
	sameBits(t, "portable kernels", export(t, e), want)
	sameFloats(t, "portable kernels: outputs", outputs(t, &c, e), wantOut)
}

// Resume: a training that is exported, and imported by another Exec that goes on, ends in the same bits; on either
// backend.
func Resume(t testing.TB, c Case) {
	t.Helper()
	for k, b := range []program.Backend{Processor(t, 2), GPU(t, nil)} {
		steps := c.few([]int{25, 6}[k])
		whole := open(t, b, c, c.start())
		slots := make([]float64, len(c.Set.Slots))
		if err := whole.Run(0, steps, slots); err != nil {
			t.Fatal(err)
		}
		want := export(t, whole)
		for _, stop := range []int{1, steps / 2} {
			first := open(t, b, c, c.start())
			if err := first.Run(0, stop, slots); err != nil {
				t.Fatal(err)
			}
			second := open(t, b, c, export(t, first))
			if err := second.Run(stop, steps-stop, slots); err != nil {
				t.Fatal(err)
			}
			sameBits(t, fmt.Sprintf("%s: resumed after step %d", b.Name(), stop), export(t, second), want)
		}
	}
}
