package gpu_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/cudatest"
	"github.com/onmart/onmart/cuda/kernels/kerneltest"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
)

// faulty is a device behind a driver with faults, and the notes of a backend on it.
type faulty struct {
	driver *cudatest.Driver
	device *cuda.Device
	notes  []string
}

func newFaulty(t *testing.T, o cuda.Options) *faulty {
	t.Helper()
	f := &faulty{driver: cudatest.Wrap(kerneltest.Driver(t))}
	o.Driver = f.driver
	d, err := cuda.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	f.device = d
	return f
}

func (f *faulty) backend() (*gpu.Backend, error) {
	return gpu.New(gpu.Options{Device: f.device, Note: func(format string, args ...any) { f.notes = append(f.notes, fmt.Sprintf(format, args...)) }})
}

// nonresident tells whether a note says that the data stays in main memory, and is what how says.
func (f *faulty) nonresident(how string) bool {
	return slices.ContainsFunc(f.notes, func(n string) bool {
		return strings.Contains(n, "does not fit in the GPU memory that is left: it stays in main memory and is "+how)
	})
}

// graphs tells whether the driver's binding has them: gorgonia.org/cu has not.
func (f *faulty) graphs() bool { return f.driver.Lacks("CaptureBegin") == "" }

// open compiles, binds and starts.
func (f *faulty) open(t *testing.T, set *program.Set, d program.Data) (*gpu.Backend, program.Exec) {
	t.Helper()
	b, err := f.backend()
	if err != nil {
		t.Fatal(err)
	}
	e, err := b.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Bind(d), e.Import(set.Initial(d.Seed))); err != nil {
		t.Fatal(err)
	}
	return b, e
}

// attempt trains from opening the kernels to an export, and closes everything. Only the first error counts.
func (f *faulty) attempt(set *program.Set, d program.Data, steps int) (ts program.Tensors, err error) {
	b, err := f.backend()
	if err != nil {
		return nil, errors.Join(err, f.device.Close())
	}
	defer func() { err = errors.Join(err, b.Close(), f.device.Close()) }()
	e, err := b.Compile(set)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.Bind(d); err != nil {
		return nil, err
	}
	if err := e.Import(set.Initial(d.Seed)); err != nil {
		return nil, err
	}
	if err := e.Run(0, steps, make([]float64, len(set.Slots))); err != nil {
		return nil, err
	}
	out := make([]float32, d.Columns[0].Rows)
	if err := e.Eval(program.Range{To: len(out)}, out); err != nil {
		return nil, err
	}
	return e.Export()
}

var small = net{width: 3, hidden: []int{8}, act: program.Silu, dropout: .2, batch: 16, rows: 40}

// TestEveryCallThatFails lets each call that the backend makes fail once, at each of its times: the error names the call, and
// nothing is leaked.
func TestEveryCallThatFails(t *testing.T) {
	const steps = 4
	set, d := small.compile(t), small.data(steps, .01)
	clean := newFaulty(t, cuda.Options{NoCache: true})
	want, err := clean.attempt(set, d, steps)
	if err != nil {
		t.Fatal(err)
	}
	if err := clean.driver.Leaks(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		call cudatest.Call
		code cuda.Result
		text string
	}{
		{cudatest.MemAlloc, cuda.OutOfMemory, "cuMemAlloc"}, {cudatest.StreamCreate, cuda.OutOfMemory, "cuStreamCreate"},
		{cudatest.EventCreate, cuda.OutOfMemory, "cuEventCreate"}, {cudatest.ModuleLoad, cuda.OutOfMemory, ""},
		{cudatest.ModuleFunction, cuda.NotFound, "cuModuleGetFunction"}, {cudatest.Launch, cuda.OutOfResources, "cuLaunchKernel of "},
		{cudatest.GraphInstantiate, cuda.OutOfMemory, "cuGraphInstantiate"}, {cudatest.GraphLaunch, cuda.OutOfMemory, "cuGraphLaunch"},
		{cudatest.CopyToDevice, cuda.InvalidValue, "cuMemcpyHtoD"}, {cudatest.CopyToHost, cuda.InvalidValue, "cuMemcpyDtoH"},
		{cudatest.Fill32, cuda.InvalidValue, "cuMemsetD32"},
	} {
		times := clean.driver.Count(c.call)
		if times == 0 && !clean.graphs() && strings.Contains("EventCreate GraphInstantiate GraphLaunch", string(c.call)) {
			continue
		}
		if times == 0 {
			t.Errorf("%s was never called", c.call)
		}
		step := max(1, times/12) // the first and the last, and some between
		for n := 1; n <= times; n += step {
			f := newFaulty(t, cuda.Options{NoCache: true})
			f.driver.Fail(c.call, n, c.code, cudatest.Once)
			ts, err := f.attempt(set, d, steps)
			if leaks := f.driver.Leaks(); leaks != nil {
				t.Errorf("%s, time %d of %d: %v (after %v)", c.call, n, times, leaks, err)
			}
			if err == nil {
				if c.code != cuda.OutOfMemory {
					t.Errorf("%s, time %d of %d: no error", c.call, n, times)
				}
				same(t, fmt.Sprintf("%s, time %d", c.call, n), ts, want) // what was asked for again, or with less
				continue
			}
			if !errors.Is(err, c.code) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s, time %d of %d: %v", c.call, n, times, err)
			}
		}
	}
}

// TestNoMemoryForAStep: from some allocation on there is no memory at all. The error says what to do, or the data is streamed
// and that is said; no run ends on another device.
func TestNoMemoryForAStep(t *testing.T) {
	const steps = 4
	set, d := small.compile(t), small.data(steps, .01)
	clean := newFaulty(t, cuda.Options{NoCache: true})
	want, err := clean.attempt(set, d, steps)
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for n := 1; n <= clean.driver.Count(cudatest.MemAlloc); n++ {
		f := newFaulty(t, cuda.Options{NoCache: true})
		f.driver.Fail(cudatest.MemAlloc, n, cuda.OutOfMemory, cudatest.Onwards)
		ts, err := f.attempt(set, d, steps)
		if err == nil { // all that is left to take is a larger tile of Eval
			same(t, fmt.Sprintf("from allocation %d on", n), ts, want)
			continue
		}
		failed++
		if !errors.Is(err, cuda.OutOfMemory) || !strings.Contains(err.Error(), "--gpu-memory") {
			t.Errorf("from allocation %d on, no remedy: %v", n, err)
		}
		if err := f.driver.Leaks(); err != nil {
			t.Error(err)
		}
	}
	if failed < 5 { // tensors, rates, powers, a step, a tile, a column
		t.Errorf("only %d allocations are needed", failed)
	}
}

// TestMoreMemoryKeepsMoreOfTheData: from little memory to much, a training cannot start, then streams, then is resident, each
// only once; all give the same bits.
func TestMoreMemoryKeepsMoreOfTheData(t *testing.T) {
	n := net{width: 15, hidden: []int{16}, act: program.Silu, batch: 64, rows: 4000}
	set, d := n.compile(t), n.data(3, .01)
	var want program.Tensors
	var stages []int
	for limit := int64(40 << 10); limit <= 4<<20; limit += limit / 5 {
		f := newFaulty(t, cuda.Options{NoCache: true, MemoryLimit: limit})
		ts, err := f.attempt(set, d, 3)
		stage := 2
		switch {
		case errors.Is(err, cuda.OutOfMemory):
			stage = 0
		case err != nil:
			t.Fatal(err)
		case f.nonresident("streamed"):
			stage = 1
		}
		if len(stages) == 0 || stages[len(stages)-1] != stage {
			stages = append(stages, stage)
		}
		if err == nil {
			if want == nil {
				want = ts
			}
			same(t, fmt.Sprintf("limit of %d bytes", limit), ts, want)
		}
	}
	if !slices.Equal(stages, []int{0, 1, 2}) {
		t.Errorf("with more and more memory: %v, where 0 is too little, 1 streamed, 2 resident", stages)
	}
}

// TestNoMemoryForGraphs: what a graph takes lies outside of all limits. Where there is no room for it the data leaves the device.
func TestNoMemoryForGraphs(t *testing.T) {
	const steps = 4
	set, d := small.compile(t), small.data(steps, .01)
	clean := newFaulty(t, cuda.Options{NoCache: true})
	if !clean.graphs() {
		t.Skip("the driver's binding has no graphs: gorgonia.org/cu")
	}
	want, err := clean.attempt(set, d, steps)
	if err != nil {
		t.Fatal(err)
	}
	f := newFaulty(t, cuda.Options{NoCache: true})
	f.driver.Fail(cudatest.GraphInstantiate, 2, cuda.OutOfMemory, cudatest.Once)
	ts, err := f.attempt(set, d, steps)
	if err != nil || !f.nonresident("streamed") {
		t.Fatalf("%v, notes %q", err, f.notes)
	}
	same(t, "streamed for want of memory for graphs", ts, want)
	f2 := newFaulty(t, cuda.Options{NoCache: true})
	f2.driver.Fail(cudatest.GraphInstantiate, 1, cuda.OutOfMemory, cudatest.Onwards)
	if _, err := f2.attempt(set, d, steps); !errors.Is(err, cuda.OutOfMemory) || !strings.Contains(err.Error(), "no memory for the graph of a step") {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(f.driver.Leaks(), f2.driver.Leaks()); err != nil {
		t.Error(err)
	}
}

// TestNothingToGather: a program that reads no column trains whatever memory there is for them.
func TestNothingToGather(t *testing.T) {
	p := &program.Program{Name: "train", Rows: 2, Buffers: []program.Buffer{
		{Kind: program.Temp, DType: program.F32, Shape: []int{3}}, {Name: "w", Kind: program.Param, DType: program.F32, Shape: []int{3}},
		{Name: "m", Kind: program.State, DType: program.F32, Shape: []int{3}}, {Name: "v", Kind: program.State, DType: program.F32, Shape: []int{3}}}, Arena: 64,
		Instrs: []program.Instr{{Op: program.Fill, Outs: []int{0}, Attr: program.Attr{Scale: 2}},
			{Op: program.AdamW, Args: []int{0}, Outs: []int{1, 2, 3}, Attr: program.Attr{Beta1: .9, Beta2: .999, Eps: 1e-8}}}}
	forward := &program.Program{Name: "forward", Rows: 4, Buffers: []program.Buffer{
		{Name: "x", Kind: program.Input, DType: program.F32, Shape: []int{4, 3}, PerRow: true},
		{Name: "output", Kind: program.Output, DType: program.F32, Shape: []int{4, 3}, PerRow: true}},
		Instrs: []program.Instr{{Op: program.Scale, Args: []int{0}, Outs: []int{1}, Attr: program.Attr{Scale: 2}}}}
	set := &program.Set{Train: p, Forward: forward, Params: []program.TensorSpec{{Name: "w", Shape: []int{3}}},
		State: []program.TensorSpec{{Name: "m", Shape: []int{3}}, {Name: "v", Shape: []int{3}}}}
	x := make([]float32, 3*9000)
	for i := range x {
		x[i] = float32(i)
	}
	d := program.Data{Columns: []program.Column{{Name: "x", Rows: 9000, Width: 3, F32: x}},
		Schedule: program.Schedule{Train: program.Range{To: 9000}, Rates: []float32{.1, .1}}}
	var results []program.Tensors
	for _, limit := range []int64{0, 20 << 10} {
		f := newFaulty(t, cuda.Options{NoCache: true, MemoryLimit: limit})
		b, err := f.backend()
		if err != nil {
			t.Fatal(err)
		}
		e, err := b.Compile(set)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]float32, 3*8990)
		if err := errors.Join(e.Bind(d), e.Import(set.Initial(1)), e.Run(0, 2, nil), e.Eval(program.Range{From: 10, To: 9000}, out)); err != nil {
			t.Fatalf("limit %d: %v", limit, err)
		}
		if f.nonresident("copied a tile at a time") != (limit > 0) {
			t.Errorf("limit %d: notes %q", limit, f.notes)
		}
		for i, v := range out {
			if v != 2*x[i+30] {
				t.Fatalf("limit %d: output %d is %v, want %v", limit, i, v, 2*x[i+30])
			}
		}
		ts, err := e.Export()
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, ts)
		// Bound again, all of the old is given back.
		if err := errors.Join(e.Bind(d), e.Close(), b.Close(), f.device.Close(), f.driver.Leaks()); err != nil {
			t.Error(err)
		}
	}
	same(t, "with little memory", results[1], results[0])
}

func TestDriverTooOldForTheKernels(t *testing.T) {
	f := newFaulty(t, cuda.Options{})
	f.driver.Old(11040)
	defer f.device.Close()
	if _, err := f.backend(); err == nil || !strings.Contains(err.Error(), "11.8") || !strings.Contains(err.Error(), "driver") {
		t.Errorf("got %v", err)
	}
}

func TestDamagedKernels(t *testing.T) {
	f := newFaulty(t, cuda.Options{})
	f.driver.Fail(cudatest.ModuleLoad, 1, cuda.InvalidPTX, cudatest.Onwards)
	if _, err := f.backend(); err == nil || !errors.Is(err, cuda.InvalidPTX) {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(f.device.Close(), f.driver.Leaks()); err != nil {
		t.Error(err)
	}
}

// TestLostDevice: after a sticky error every call fails, says so, and closing still ends.
func TestLostDevice(t *testing.T) {
	const steps = 8
	set, d := small.compile(t), small.data(steps, .01)
	f := newFaulty(t, cuda.Options{})
	b, e := f.open(t, set, d)
	launch := cudatest.GraphLaunch
	if !f.graphs() {
		launch = cudatest.Launch
	}
	f.driver.Fail(launch, 3, cuda.IllegalAddress, cudatest.LostLater)
	slots := make([]float64, len(set.Slots))
	err := e.Run(0, steps, slots)
	if !cuda.Lost(err) || !errors.Is(err, cuda.IllegalAddress) {
		t.Fatalf("got %v", err)
	}
	for i, v := range slots {
		if v != 0 {
			t.Errorf("slot %d is %v after a failed run", i, v)
		}
	}
	if _, err := e.Export(); !cuda.Lost(err) {
		t.Errorf("export: %v", err)
	}
	e.Close()
	b.Close()
	f.device.Close()
}

// withoutGraphs is a driver whose binding has no stream capture, as gorgonia.org/cu.
type withoutGraphs struct{ cuda.Driver }

func (withoutGraphs) CaptureBegin(cuda.StreamID) cuda.Result { return cuda.NotSupported }

// TestWithoutGraphs: op by op the bits are the same, and that it is so is said.
func TestWithoutGraphs(t *testing.T) {
	const steps = 9
	n := nets[2]
	set, d := n.compile(t), n.data(steps, .01)
	_, want, _ := train(t, open(t, newBackend(t, gpu.Options{}), set, d), set, d, steps)
	var notes []string
	b := newBackend(t, gpu.Options{
		Device: kerneltest.Open(t, cuda.Options{Driver: withoutGraphs{kerneltest.Driver(t)}}),
		Note:   func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) },
	})
	_, got, _ := train(t, open(t, b, set, d), set, d, steps)
	same(t, "op by op", got, want)
	if len(notes) != 1 || !strings.Contains(notes[0], "launched one operation at a time") {
		t.Errorf("notes: %q", notes)
	}
}

// TestOneWaitARun: a run of many steps is as many graph launches, no launch of a kernel, and one wait; streamed data waits for
// copies out of pinned memory, never for the steps.
func TestOneWaitARun(t *testing.T) {
	const steps = 9
	set, d := small.compile(t), small.data(steps, .01)
	for _, limit := range []int64{0, 25 << 10} {
		f := newFaulty(t, cuda.Options{NoCache: true, MemoryLimit: limit})
		if !f.graphs() {
			t.Skip("the driver's binding has no graphs: gorgonia.org/cu")
		}
		d := d
		if limit > 0 {
			d.Columns = append(d.Columns[:len(d.Columns):len(d.Columns)], program.Column{Name: "ballast", Rows: d.Columns[0].Rows, Width: 100,
				F32: make([]float32, 100*d.Columns[0].Rows)})
		}
		b, e := f.open(t, set, d)
		if f.nonresident("streamed") != (limit > 0) {
			t.Fatalf("limit %d: notes %q", limit, f.notes)
		}
		count := func() [3]int {
			return [3]int{f.driver.Count(cudatest.GraphLaunch), f.driver.Count(cudatest.Launch), f.driver.Count(cudatest.StreamSync)}
		}
		before := count()
		if err := e.Run(0, steps, make([]float64, len(set.Slots))); err != nil {
			t.Fatal(err)
		}
		after := count()
		for i, want := range [3]int{steps, 0, 1} {
			if got := after[i] - before[i]; got != want {
				t.Errorf("limit %d: %d of %s, want %d", limit, got, []string{"graph launches", "kernel launches", "waits for the stream"}[i], want)
			}
		}
		if err := errors.Join(e.Close(), b.Close(), f.device.Close(), f.driver.Leaks()); err != nil {
			t.Error(err)
		}
	}
}
