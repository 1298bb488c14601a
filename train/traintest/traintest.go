// Package traintest holds the tests that every task's training passes. Tests of tasks import it; nothing of the
// product may.
//
// What enters: a Case, which is a task's compiled set with data and first weights, or a Task, a function that trains
// into a directory as the task's command does. What leaves: failures of a testing.TB. A Case tells what a program
// does on a machine: the same losses on the GPU as on the processor, gradients that are those of the loss, the same
// bits for any number of threads and after a resume, and refusals of bad data. A Task tells the same of everything
// around it: the checkpoint, what is left behind, what is said. It may not be assumed that these find a model that
// does not learn what it should: that is the task's own test.
//
// The GPU is the emulator, or with ONMART_TEST_CUDA=1 the one of this machine, see cuda/kernels/kerneltest.
package traintest

import (
	"math"
	"slices"
	"testing"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels/kerneltest"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
)

// Case is a compiled set with data to train it on.
type Case struct {
	Set  *program.Set
	Data program.Data
	// Consts are the values of Set.Consts.
	Consts program.Tensors
	// Learns is by how much of itself the loss falls at least from the first tenth of the steps to the last tenth.
	Learns float64
}

// Run runs all tests of a Case, each as a subtest.
func Run(t *testing.T, c Case) {
	for _, test := range []struct {
		name string
		run  func(t testing.TB, c Case)
	}{
		{"sound", Sound}, {"gradients", Gradients}, {"threads", Threads}, {"portable", Portable}, {"resume", Resume},
		{"bad data", BadData}, {"parity", Parity}, {"emulator", Emulator},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, c) })
	}
}

// start are the first weights.
func (c *Case) start() program.Tensors {
	ts := append(c.Set.Initial(c.Data.Seed), c.Consts...)
	ts.Sort()
	return ts
}

func (c *Case) steps() int { return len(c.Data.Rates) }

// few is at most n steps of the case.
func (c *Case) few(n int) int { return min(n, c.steps()) }

// Processor is the CPU backend; all of its threads work even on a small batch.
func Processor(t testing.TB, threads int) program.Backend {
	t.Helper()
	b, err := cpu.New(cpu.Options{Threads: threads, Always: true})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// GPU is a GPU backend on a device, or on one of its own for nil, until the test ends.
func GPU(t testing.TB, d *cuda.Device) *gpu.Backend {
	t.Helper()
	if d == nil {
		d = kerneltest.Open(t, cuda.Options{})
	}
	b, err := gpu.New(gpu.Options{Device: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil && !cuda.Lost(err) {
			t.Errorf("closing the backend: %v", err)
		}
	})
	return b
}

// open compiles, binds and starts.
func open(t testing.TB, b program.Backend, c Case, start program.Tensors) program.Exec {
	t.Helper()
	e, err := b.Compile(c.Set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !cuda.Lost(err) {
			t.Errorf("closing the Exec: %v", err)
		}
	})
	if err := e.Bind(c.Data); err != nil {
		t.Fatal(err)
	}
	if err := e.Import(start); err != nil {
		t.Fatal(err)
	}
	return e
}

// run does steps first..first+n-1 and returns the slots of each.
func run(t testing.TB, c *Case, e program.Exec, first, n int) [][]float64 {
	t.Helper()
	var all [][]float64
	for s := range n {
		slots := make([]float64, len(c.Set.Slots))
		if err := e.Run(first+s, 1, slots); err != nil {
			t.Fatalf("step %d: %v", first+s, err)
		}
		all = append(all, slots)
	}
	return all
}

func export(t testing.TB, e program.Exec) program.Tensors {
	t.Helper()
	ts, err := e.Export()
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

// outputs of the forward program for the first rows of the data.
func outputs(t testing.TB, c *Case, e program.Exec) []float32 {
	t.Helper()
	rows := min(c.Data.Columns[0].Rows, 3*c.Set.Forward.Rows/2+1)
	width := 0
	for i := range c.Set.Forward.Buffers {
		if b := &c.Set.Forward.Buffers[i]; b.Kind == program.Output {
			width = b.Len() / b.Shape[0]
		}
	}
	out := make([]float32, rows*width)
	if err := e.Eval(program.Range{To: rows}, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// losses are the mean losses of steps by their slots.
func losses(c *Case, slots [][]float64) []float64 {
	loss, rows := slices.Index(c.Set.Slots, "loss"), slices.Index(c.Set.Slots, "rows")
	var ls []float64
	for _, s := range slots {
		ls = append(ls, s[loss]/s[rows])
	}
	return ls
}

// sameBits compares tensors.
func sameBits(t testing.TB, what string, got, want program.Tensors) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d tensors, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Name != w.Name || len(g.F32) != len(w.F32) || len(g.F64) != len(w.F64) {
			t.Fatalf("%s: tensor %s %v, want %s %v", what, g.Name, g.Shape, w.Name, w.Shape)
		}
		for k := range w.F32 {
			if math.Float32bits(g.F32[k]) != math.Float32bits(w.F32[k]) {
				t.Fatalf("%s: %s[%d] is %v, want %v", what, w.Name, k, g.F32[k], w.F32[k])
			}
		}
		for k := range w.F64 {
			if math.Float64bits(g.F64[k]) != math.Float64bits(w.F64[k]) {
				t.Fatalf("%s: %s[%d] is %v, want %v", what, w.Name, k, g.F64[k], w.F64[k])
			}
		}
	}
}

func sameFloats(t testing.TB, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: value %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}
