//go:build (linux || darwin) && !nocuda && !cu

package cuda_test

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/cudatest"
	"github.com/onmart/onmart/cuda/kernels/emulator"
)

// The kernel of these tests, for the emulation and, as PTX, for the loader and for hardware.
const (
	axpySource = `extern "C" __global__ void axpy(float *y, const float *x, float a, int n) {
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n) y[i] = fmaf(a, x[i], y[i]);
}
`
	axpyPTX = `.version 7.8
.target sm_75
.address_size 64
.visible .entry axpy(
	.param .u64 axpy_param_0,
	.param .u64 axpy_param_1,
	.param .f32 axpy_param_2,
	.param .u32 axpy_param_3
)
{
	.reg .pred %p<2>;
	.reg .f32 %f<5>;
	.reg .b32 %r<6>;
	.reg .b64 %rd<8>;
	ld.param.u64 %rd1, [axpy_param_0];
	ld.param.u64 %rd2, [axpy_param_1];
	ld.param.f32 %f1, [axpy_param_2];
	ld.param.u32 %r2, [axpy_param_3];
	mov.u32 %r3, %ntid.x;
	mov.u32 %r4, %ctaid.x;
	mov.u32 %r5, %tid.x;
	mad.lo.s32 %r1, %r3, %r4, %r5;
	setp.ge.s32 %p1, %r1, %r2;
	@%p1 bra DONE;
	cvta.to.global.u64 %rd3, %rd1;
	cvta.to.global.u64 %rd4, %rd2;
	mul.wide.s32 %rd5, %r1, 4;
	add.s64 %rd6, %rd3, %rd5;
	add.s64 %rd7, %rd4, %rd5;
	ld.global.f32 %f2, [%rd7];
	ld.global.f32 %f3, [%rd6];
	fma.rn.f32 %f4, %f1, %f2, %f3;
	st.global.f32 [%rd6], %f4;
DONE:
	ret;
}
`
)

// emulated is the library of the emulation, with axpy.
func emulated(t testing.TB) cuda.Driver {
	t.Helper()
	path, err := emulator.BuildFrom(fstest.MapFS{"axpy.cu": {Data: []byte(axpySource)}})
	if errors.Is(err, emulator.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := cuda.OpenDriver(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// drivers runs a test above the emulation and above this machine's driver where it has a device.
func drivers(t *testing.T, f func(t *testing.T, d *cuda.Device, w *cudatest.Driver)) {
	run := func(t *testing.T, inner cuda.Driver) {
		w := cudatest.Wrap(inner)
		d, err := cuda.Open(cuda.Options{Driver: w})
		ok(t, err)
		ok(t, d.Do(func() error { f(t, d, w); return nil }))
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := w.Leaks(); err != nil {
			t.Error(err)
		}
	}
	t.Run("emulated", func(t *testing.T) { run(t, emulated(t)) })
	t.Run("hardware", func(t *testing.T) { run(t, hardware(t)) })
}

// hardware is this machine's driver.
func hardware(t testing.TB) cuda.Driver {
	t.Helper()
	t.Setenv(cuda.LibraryVariable, "")
	if r := cuda.Probe(cuda.Options{}); r.State != cuda.Ready {
		t.Skip("no CUDA device: " + r.Reason)
	}
	d, err := cuda.OpenDriver("")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCopiesOfALibrary(t *testing.T) {
	drivers(t, func(t *testing.T, d *cuda.Device, _ *cudatest.Driver) { testCopies(t, d) })
}

func TestGraphOfALibrary(t *testing.T) {
	drivers(t, func(t *testing.T, d *cuda.Device, _ *cudatest.Driver) { testGraph(t, d) })
}

func TestWhatALibraryForbids(t *testing.T) { drivers(t, testForbidden) }

func TestEventsOfALibrary(t *testing.T) {
	drivers(t, func(t *testing.T, d *cuda.Device, _ *cudatest.Driver) { testEvents(t, d) })
}

func TestPropertiesOfALibrary(t *testing.T) {
	drivers(t, func(t *testing.T, d *cuda.Device, _ *cudatest.Driver) {
		i := d.Info()
		if !i.Usable || i.Name == "" || d.Capability() < 75 || i.Memory < 1<<30 || i.SMs < 1 || i.ThreadsPerBlock < 1024 ||
			i.SharedPerBlock < 48<<10 || i.Bandwidth() <= 0 {
			t.Errorf("got %+v, %g B/s", i, i.Bandwidth())
		}
		if _, err := emulator.Order(d.Driver()); i.Emulated() != (err == nil) {
			t.Errorf("%s: emulated %v, yet asked as the emulation it says %v", i.Name, i.Emulated(), err)
		}
		free, total, err := d.MemInfo()
		if err != nil || free <= 0 || free > total || total > i.Memory {
			t.Error(free, total, err)
		}
	})
}

func TestKernelOfALibrary(t *testing.T) {
	drivers(t, func(t *testing.T, d *cuda.Device, w *cudatest.Driver) {
		const n = 1023
		m, err := d.LoadModule("axpy", []byte(axpyPTX))
		ok(t, err)
		f, err := m.Function("axpy")
		ok(t, err)
		_, err = m.Function("no_such")
		refused(t, err, cuda.NotFound, "no_such in axpy")
		s := must(d.NewStream())
		x, y, z := make([]float32, n), make([]float32, n), make([]float32, n)
		for i := range x {
			x[i], y[i] = float32(i), 1
		}
		mx, my := must(d.Alloc(4*n)), must(d.Alloc(4*n))
		ok(t, errors.Join(cuda.ToDevice(s, mx.Ptr, x), cuda.ToDevice(s, my.Ptr, y)))
		args := new(cuda.Args)
		launch := func(a float32) error {
			return s.Launch("axpy 1023", f, cuda.Dim{X: (n + 127) / 128, Y: 1, Z: 1}, cuda.Dim{X: 128, Y: 1, Z: 1}, 0,
				args.Reset().Ptr(my.Ptr).Ptr(mx.Ptr).F32(a).I32(n))
		}
		ok(t, launch(2))
		g, err := s.Capture(func() error { return errors.Join(launch(-0.5), launch(0.25)) })
		ok(t, err)
		for range 4 {
			ok(t, g.Launch(s))
		}
		ok(t, cuda.ToHost(s, z, my.Ptr))
		ok(t, s.Sync())
		for i := range z {
			if want := 1 + x[i]; z[i] != want { // small integers and quarters: exact
				t.Fatalf("y[%d] = %v, want %v", i, z[i], want)
			}
		}
		if w.Count(cudatest.Launch) != 3 || w.Count(cudatest.GraphLaunch) != 4 {
			t.Errorf("%d launches, %d of graphs", w.Count(cudatest.Launch), w.Count(cudatest.GraphLaunch))
		}
		refused(t, s.Launch("axpy 0", f, cuda.Dim{Y: 1, Z: 1}, cuda.Dim{X: 128, Y: 1, Z: 1}, 0, args), cuda.InvalidValue, "grid 0x1x1")
		for _, close := range []func() error{g.Close, m.Close, mx.Free, my.Free, s.Close} {
			ok(t, close())
		}
	})
}

// Text that is no PTX must be refused with what the driver's compiler says of it.
func TestDamagedPTXOfALibrary(t *testing.T) {
	drivers(t, func(t *testing.T, d *cuda.Device, w *cudatest.Driver) {
		w.Corrupt(20, 1)
		_, err := d.LoadModule("axpy", []byte(axpyPTX))
		if !errors.Is(err, cuda.InvalidPTX) && !errors.Is(err, cuda.InvalidImage) {
			t.Errorf("got %v", err)
		}
		t.Log(err)
	})
}

func TestWrongContextOfALibrary(t *testing.T) {
	drivers(t, func(t *testing.T, d *cuda.Device, _ *cudatest.Driver) {
		done := make(chan error)
		go func() { // on another thread, for this goroutine has locked its own
			runtime.LockOSThread() // and not unlocked: the thread, on which nothing was ever set, ends here
			_, err := d.Alloc(4 << 20)
			done <- err
		}()
		refused(t, <-done, cuda.InvalidContext, "call it inside Device.Do")
		s, err := d.NewStream()
		ok(t, err)
		ok(t, s.Close())
	})
}

// What one driver call leaves is found at Close, by its kind.
func TestLeaksAboveALibrary(t *testing.T) {
	w := cudatest.Wrap(emulated(t))
	d := must(cuda.Open(cuda.Options{Driver: w, NoCache: true}))
	ok(t, d.Do(func() error {
		s := must(d.NewStream())
		ok(t, s.Close())
		must(d.NewStream())
		must(d.NewEvent(false))
		must(d.Alloc(100))
		return nil
	}))
	if err := w.Leaks(); err == nil || err.Error() != "cudatest: not given back: 1 memory (100 bytes), 1 stream, 1 event, 1 context" {
		t.Errorf("got %v", err)
	}
	if err := d.Close(); err == nil || !strings.Contains(err.Error(), "with 1 memory, 1 stream, 1 event still open") {
		t.Errorf("got %v", err)
	}
}

// A kernel that runs off its memory loses the device, here as on hardware. Only above the emulation: on hardware
// the process could not go on.
func TestIllegalAddressOfTheEmulation(t *testing.T) {
	w := cudatest.Wrap(emulated(t))
	d := must(cuda.Open(cuda.Options{Driver: w, NoCache: true}))
	ok(t, d.Do(func() error {
		m := must(d.LoadModule("axpy", []byte(axpyPTX)))
		f := must(m.Function("axpy"))
		s := must(d.NewStream())
		x, y := must(d.Alloc(400)), must(d.Alloc(400))
		ok(t, errors.Join(s.Fill32(x.Ptr, 0, 100), s.Fill32(y.Ptr, 0, 100)))
		ok(t, s.Sync())
		args := new(cuda.Args).Ptr(y.Ptr).Ptr(x.Ptr).F32(1).I32(101)
		err := s.Launch("axpy 101", f, cuda.Dim{X: 1, Y: 1, Z: 1}, cuda.Dim{X: 128, Y: 1, Z: 1}, 0, args)
		err = errors.Join(err, s.Sync())
		refused(t, err, cuda.IllegalAddress, "the device is lost to this process")
		if !cuda.Lost(err) {
			t.Error("not lost")
		}
		s.Close()
		m.Close()
		return nil
	}))
	ok(t, d.Close())
}

func BenchmarkLaunch(b *testing.B) {
	benchmark(b, func(s *cuda.Stream, f cuda.Function, args *cuda.Args) (call, close func() error) {
		one := cuda.Dim{X: 1, Y: 1, Z: 1}
		return func() error { return s.Launch("axpy", f, one, one, 0, args) }, s.Sync
	})
}

func BenchmarkGraphLaunch(b *testing.B) {
	benchmark(b, func(s *cuda.Stream, f cuda.Function, args *cuda.Args) (call, close func() error) {
		one := cuda.Dim{X: 1, Y: 1, Z: 1}
		g := must(s.Capture(func() error { return s.Launch("axpy", f, one, one, 0, args) }))
		return func() error { return g.Launch(s) }, g.Close
	})
}

// BenchmarkCall is what a call costs that does next to nothing in the driver.
func BenchmarkCall(b *testing.B) {
	benchmark(b, func(s *cuda.Stream, _ cuda.Function, _ *cuda.Args) (call, close func() error) {
		d := s.Device().Driver()
		return func() error {
			if _, code := d.ContextCurrent(); code != cuda.Success {
				return code
			}
			return nil
		}, s.Sync
	})
}

// BenchmarkDo is what it costs to enter the device.
func BenchmarkDo(b *testing.B) {
	d := must(cuda.Open(cuda.Options{Driver: emulated(b)}))
	nothing := func() error { return nil }
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Do(nothing); err != nil {
			b.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
}

// benchmark times a call above the emulation, and above hardware where there is one, without waiting for what
// it starts.
func benchmark(b *testing.B, prepare func(s *cuda.Stream, f cuda.Function, args *cuda.Args) (call, close func() error)) {
	for _, c := range []struct {
		name string
		open func(testing.TB) cuda.Driver
	}{{"emulated", emulated}, {"hardware", hardware}} {
		b.Run(c.name, func(b *testing.B) {
			d := must(cuda.Open(cuda.Options{Driver: c.open(b)}))
			if err := d.Do(func() error {
				m := must(d.LoadModule("axpy", []byte(axpyPTX)))
				s := must(d.NewStream())
				mem := must(d.Alloc(4))
				call, close := prepare(s, must(m.Function("axpy")), new(cuda.Args).Ptr(mem.Ptr).Ptr(mem.Ptr).F32(0).I32(1))
				b.ReportAllocs()
				for b.Loop() {
					if err := call(); err != nil {
						return err
					}
				}
				return errors.Join(close(), s.Close(), m.Close(), mem.Free())
			}); err != nil {
				b.Fatal(err)
			}
			if err := d.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// Symbols of the driver interface must be looked up under the names that Open reports as missing.
func TestOpenNamesEverySymbolThatIsMissing(t *testing.T) {
	lib := cuda.FakeLibrary(t)
	if r := cuda.Probe(cuda.Options{Library: lib}); r.State != cuda.Ready {
		t.Fatalf("Probe asks for more than it needs: %+v", r)
	}
	_, err := cuda.Open(cuda.Options{Library: lib})
	if err == nil {
		t.Fatal("opened a library without memory and launches")
	}
	for _, name := range []string{"cuMemAlloc_v2", "cuMemGetInfo_v2", "cuStreamBeginCapture_v2",
		"cuGraphInstantiateWithFlags", "cuDevicePrimaryCtxRelease_v2",
		"cuStreamDestroy_v2", "cuEventDestroy_v2", "cuModuleLoadDataEx", "cuLaunchKernel", "install NVIDIA driver 520 or newer"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
	if words := strings.Fields(err.Error()); slices.Contains(words, "cuInit,") {
		t.Errorf("%v names a symbol that is there", err)
	}
}
