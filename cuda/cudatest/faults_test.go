package cudatest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/cudatest"
)

const ptx = ".version 7.8\n.target sm_75\n.address_size 64\n.visible .entry k(\n)\n{ ret; }\n"

// script makes calls on a device until one fails, and says with which step and error.
func script(d *cuda.Device) (step string, err error) {
	err = d.Do(func() error {
		var s *cuda.Stream
		var m *cuda.LoadedModule
		var f cuda.Function
		var g *cuda.Graph
		var closers []func() error
		defer func() {
			for i := range closers {
				closers[len(closers)-1-i]() // their errors are not what is asked here
			}
		}()
		note := func(name string, do func() error) func() error {
			return func() error { step = name; return do() }
		}
		steps := []func() error{
			note("stream", func() (err error) {
				if s, err = d.NewStream(); err == nil {
					closers = append(closers, s.Close)
				}
				return err
			}),
			note("module", func() (err error) {
				if m, err = d.LoadModule("m", []byte(ptx)); err == nil {
					closers = append(closers, m.Close)
					f, err = m.Function("k")
				}
				return err
			}),
		}
		for range 3 {
			steps = append(steps, note("alloc", func() error {
				mem, err := d.Alloc(4 << 20)
				if err == nil {
					closers = append(closers, mem.Free)
				}
				return err
			}))
		}
		launch := func() error { return s.Launch("k", f, cuda.Dim{X: 1, Y: 1, Z: 1}, cuda.Dim{X: 1, Y: 1, Z: 1}, 0, nil) }
		steps = append(steps, note("launch", launch), note("second launch", launch), note("sync", func() error { return s.Sync() }),
			note("capture", func() (err error) {
				if g, err = s.Capture(launch); err == nil {
					closers = append(closers, g.Close)
				}
				return err
			}))
		for _, name := range []string{"replay", "second replay", "third replay"} {
			steps = append(steps, note(name, func() error { return g.Launch(s) }))
		}
		steps = append(steps, note("last sync", func() error { return s.Sync() }))
		for _, do := range steps {
			if err := do(); err != nil {
				return err
			}
		}
		step = "end"
		return nil
	})
	return step, err
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(w *cudatest.Driver)
		step  string
		code  cuda.Result
		lost  bool
	}{
		{"none", func(*cudatest.Driver) {}, "end", 0, false},
		{"memory, once: tried again", func(w *cudatest.Driver) {
			w.Fail(cudatest.MemAlloc, 2, cuda.OutOfMemory, cudatest.Once)
		}, "end", 0, false},
		{"memory, from then on", func(w *cudatest.Driver) { w.Fail(cudatest.MemAlloc, 3, cuda.OutOfMemory, cudatest.Onwards) },
			"alloc", cuda.OutOfMemory, false},
		{"launch", func(w *cudatest.Driver) { w.Fail(cudatest.Launch, 2, cuda.OutOfResources, cudatest.Once) },
			"second launch", cuda.OutOfResources, false},
		{"launch in a capture", func(w *cudatest.Driver) { w.Fail(cudatest.Launch, 3, cuda.OutOfResources, cudatest.Once) },
			"capture", cuda.OutOfResources, false},
		{"lost at once", func(w *cudatest.Driver) { w.Fail(cudatest.Launch, 2, cuda.LaunchFailed, cudatest.Lost) },
			"second launch", cuda.LaunchFailed, true},
		{"lost in a capture", func(w *cudatest.Driver) { w.Fail(cudatest.Launch, 3, cuda.LaunchFailed, cudatest.Lost) },
			"capture", cuda.LaunchFailed, true},
		{"lost later", func(w *cudatest.Driver) { w.Fail(cudatest.Launch, 2, cuda.IllegalAddress, cudatest.LostLater) },
			"sync", cuda.IllegalAddress, true},
		{"replay", func(w *cudatest.Driver) { w.Fail(cudatest.GraphLaunch, 2, cuda.LaunchFailed, cudatest.Lost) },
			"second replay", cuda.LaunchFailed, true},
		{"replay, later", func(w *cudatest.Driver) { w.Fail(cudatest.GraphLaunch, 3, cuda.LaunchTimeout, cudatest.LostLater) },
			"last sync", cuda.LaunchTimeout, true},
		{"sync", func(w *cudatest.Driver) { w.Fail(cudatest.StreamSync, 2, cuda.Unknown, cudatest.Lost) }, "last sync", cuda.Unknown, true},
		{"module refused", func(w *cudatest.Driver) { w.Fail(cudatest.ModuleLoad, 1, cuda.InvalidPTX, cudatest.Onwards) },
			"module", cuda.InvalidPTX, false},
		{"module damaged", func(w *cudatest.Driver) { w.Corrupt(1, 7) }, "module", cuda.InvalidPTX, false},
		{"capture end", func(w *cudatest.Driver) { w.Fail(cudatest.CaptureEnd, 1, cuda.CaptureInvalidated, cudatest.Once) },
			"capture", cuda.CaptureInvalidated, false},
		{"instantiate", func(w *cudatest.Driver) { w.Fail(cudatest.GraphInstantiate, 1, cuda.OutOfMemory, cudatest.Once) },
			"capture", cuda.OutOfMemory, false},
		{"two of a kind", func(w *cudatest.Driver) {
			w.Fail(cudatest.Launch, 9, cuda.LaunchFailed, cudatest.Lost)
			w.Fail(cudatest.Launch, 1, cuda.OutOfResources, cudatest.Once)
		}, "launch", cuda.OutOfResources, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := cudatest.Wrap(cudatest.NewFake(cudatest.FakeOptions{}))
			d, err := cuda.Open(cuda.Options{Driver: w})
			if err != nil {
				t.Fatal(err)
			}
			c.fault(w)
			step, err := script(d)
			if step != c.step || c.code == 0 && err != nil || c.code != 0 && !errors.Is(err, c.code) || cuda.Lost(err) != c.lost {
				t.Errorf("step %s: %v; want %s: %s, lost %v", step, err, c.step, c.code.Name(), c.lost)
			}
			again, err := script(d)
			if c.lost && (again != "stream" || !errors.Is(err, c.code)) {
				t.Errorf("after it was lost: step %s: %v", again, err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			if err := w.Leaks(); err != nil {
				t.Error(err)
			}
			if c.lost { // and for the whole process
				if _, err := cuda.Open(cuda.Options{Driver: w}); !errors.Is(err, c.code) {
					t.Errorf("opened again: %v", err)
				}
			}
		})
	}
}

func TestCountsAndLog(t *testing.T) {
	w := cudatest.Wrap(cudatest.NewFake(cudatest.FakeOptions{}))
	d, err := cuda.Open(cuda.Options{Driver: w})
	if err != nil {
		t.Fatal(err)
	}
	if step, err := script(d); err != nil {
		t.Fatal(step, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for call, want := range map[cudatest.Call]int{cudatest.Launch: 3, cudatest.GraphLaunch: 3, cudatest.MemAlloc: 3, cudatest.MemFree: 3,
		cudatest.StreamCreate: 1, cudatest.CaptureBegin: 1, cudatest.GraphDestroy: 1, cudatest.GraphExecDestroy: 1, cudatest.HostAlloc: 0} {
		if got := w.Count(call); got != want {
			t.Errorf("%s: %d calls, want %d", call, got, want)
		}
	}
	if w.PeakBytes() != 12<<20 {
		t.Errorf("peak %d", w.PeakBytes())
	}
	var kinds []string
	for _, e := range w.Log() {
		if e.Result != cuda.Success {
			t.Errorf("%s", e)
		}
		kinds = append(kinds, string(e.Call))
	}
	want := "CaptureBegin Launch CaptureEnd GraphInstantiate GraphDestroy GraphLaunch GraphLaunch GraphLaunch StreamSync"
	if text := strings.Join(kinds, " "); !strings.Contains(text, want) {
		t.Errorf("log: %s", text)
	}
	e := cudatest.Entry{Call: cudatest.MemAlloc, Args: "4096", Result: cuda.OutOfMemory}
	if e.String() != "MemAlloc(4096): CUDA_ERROR_OUT_OF_MEMORY" {
		t.Errorf("got %s", e)
	}
}

func TestLeaksAreNamed(t *testing.T) {
	w := cudatest.Wrap(cudatest.NewFake(cudatest.FakeOptions{}))
	d, err := cuda.Open(cuda.Options{Driver: w, NoCache: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Do(func() error {
		_, a := d.Alloc(10)
		_, b := d.Alloc(20)
		_, c := d.AllocHost(30)
		_, e := d.NewEvent(true)
		return errors.Join(a, b, c, e)
	}); err != nil {
		t.Fatal(err)
	}
	want := "cudatest: not given back: 2 memory (30 bytes), 1 host (30 bytes), 1 event, 1 context"
	if err := w.Leaks(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := d.Close(); err == nil {
		t.Error("Close says nothing of what is open")
	}
	if err := w.Leaks(); err == nil || err.Error() != "cudatest: not given back: 1 event" {
		t.Errorf("got %v", err) // an event of the driver's own, which only its maker can close
	}
}

func TestOldDriver(t *testing.T) {
	w := cudatest.Wrap(cudatest.NewFake(cudatest.FakeOptions{Version: 12090}))
	w.Old(12020)
	d, err := cuda.Open(cuda.Options{Driver: w})
	if err != nil {
		t.Fatal(err)
	}
	load := func(version string) error {
		return d.Do(func() error {
			m, err := d.LoadModule("m", []byte(strings.Replace(ptx, "7.8", version, 1)))
			if err == nil {
				err = m.Close()
			}
			return err
		})
	}
	for version, fits := range map[string]bool{"7.8": true, "8.2": true, "8.3": false, "9.0": false} {
		if err := load(version); fits != (err == nil) || !fits && !errors.Is(err, cuda.UnsupportedPTX) {
			t.Errorf("PTX %s: %v", version, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	w.Old(11040)
	if r := cuda.Probe(cuda.Options{Driver: w}); r.State == cuda.Ready || !strings.Contains(r.Reason, "it serves CUDA 11.4") {
		t.Errorf("got %+v", r)
	}
}

func TestFailRefusesNonsense(t *testing.T) {
	for _, f := range []func(w *cudatest.Driver){
		func(w *cudatest.Driver) { w.Fail(cudatest.Launch, 0, cuda.LaunchFailed, cudatest.Once) },
		func(w *cudatest.Driver) { w.Fail(cudatest.Launch, 1, cuda.Success, cudatest.Once) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f(cudatest.Wrap(cudatest.NewFake(cudatest.FakeOptions{})))
		}()
	}
}
