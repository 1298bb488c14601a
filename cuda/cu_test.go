//go:build cu && !nocuda

package cuda_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/cudatest"
	"github.com/onmart/onmart/cuda/kernels"
)

// These tests reach whatever libcuda this binary is linked to through gorgonia.org/cu: a stand-in that only shows
// a device, the emulated driver, or NVIDIA's. There is a device, for without one the process has ended.

func TestProbeThroughGorgonia(t *testing.T) {
	r := cuda.Probe(cuda.Options{})
	if r.State != cuda.Ready || r.Library != "gorgonia.org/cu" || r.Driver == "" {
		t.Fatalf("got %+v", r)
	}
	if d := r.Devices[0]; d.Name == "" || d.Memory < 1<<30 || d.SMs < 1 {
		t.Errorf("got %+v", d)
	}
}

// linked opens the device, and skips above the stand-in, which has no more than what Probe asks.
func linked(t *testing.T, f func(d *cuda.Device, w *cudatest.Driver)) {
	t.Helper()
	inner, err := cuda.OpenDriver("")
	ok(t, err)
	w := cudatest.Wrap(inner)
	d, err := cuda.Open(cuda.Options{Driver: w})
	if errors.Is(err, cuda.NoDevice) {
		t.Skipf("the linked libcuda only shows a device: %v", err)
	}
	ok(t, err)
	ok(t, d.Do(func() error { f(d, w); return nil }))
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Leaks(); err != nil {
		t.Error(err)
	}
}

func TestCopiesThroughGorgonia(t *testing.T) {
	linked(t, func(d *cuda.Device, _ *cudatest.Driver) { testCopies(t, d) })
}

func TestEventsThroughGorgonia(t *testing.T) {
	linked(t, func(d *cuda.Device, _ *cudatest.Driver) { testEvents(t, d) })
}

func TestWhatGorgoniaLacksIsRefusedByName(t *testing.T) {
	linked(t, func(d *cuda.Device, _ *cudatest.Driver) {
		s := must(d.NewStream())
		_, err := s.Capture(func() error { t.Error("captured"); return nil })
		refused(t, err, cuda.NotSupported, "gorgonia.org/cu v0.9.6 has no cuStreamBeginCapture (stream capture)",
			"the build without the tag cu has it")
		if cuda.Lost(err) {
			t.Error("lost")
		}
		h := must(d.AllocHost(100))
		if h.Pinned() || len(h.Bytes()) != 100 {
			t.Error("gorgonia.org/cu has no pinned memory")
		}
		ok(t, h.Free())
		ok(t, s.Close())
	})
}

func TestKernelsThroughGorgonia(t *testing.T) {
	linked(t, func(d *cuda.Device, w *cudatest.Driver) {
		k, err := kernels.Load(d)
		ok(t, err)
		s := must(d.NewStream())
		const m, n, in = 17, 3, 33
		a, b, y := must(d.Alloc(4*m*in)), must(d.Alloc(4*in*n)), must(d.Alloc(4*m*n))
		ha, hb := make([]float32, m*in), make([]float32, in*n)
		for i := range ha {
			ha[i] = float32(i%7) - 3
		}
		for i := range hb {
			hb[i] = float32(i%5) - 2
		}
		ok(t, errors.Join(cuda.ToDevice(s, a.Ptr, ha), cuda.ToDevice(s, b.Ptr, hb)))
		ok(t, (&kernels.MatMul{A: a.Ptr, B: b.Ptr, Y: y.Ptr, M: m, N: n, K: in}).Launch(s, k))
		out := make([]float32, m*n)
		ok(t, cuda.ToHost(s, out, y.Ptr))
		ok(t, s.Sync())
		for i := range m {
			for j := range n {
				var sum float32
				for x := range in {
					sum += ha[i*in+x] * hb[x*n+j]
				}
				if got := out[i*n+j]; !(math.Abs(float64(got-sum)) <= 0) { // small integers: exact
					t.Fatalf("y[%d,%d] = %v, want %v", i, j, got, sum)
				}
			}
		}
		if w.Count(cudatest.Launch) == 0 {
			t.Error("nothing was launched")
		}
		_, err = d.LoadModule("nonsense", []byte(".version 7.8\n.target sm_75\n.address_size 64\n.visible .entry nonsense(\n"))
		if err == nil || !strings.Contains(err.Error(), "cuModuleLoadDataEx of nonsense") {
			t.Errorf("nonsense was loaded: %v", err)
		}
		t.Log(err)
		for _, close := range []func() error{k.Close, a.Free, b.Free, y.Free, s.Close} {
			ok(t, close())
		}
	})
}
