package cuda_test

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/cudatest"
)

// ptx is a module as far as the fake driver reads it.
const ptx = ".version 7.8\n.target sm_75\n.address_size 64\n.visible .entry axpy(\n)\n{ ret; }\n.visible .entry wild(\n)\n{ ret; }\n"

// axpy is y[i] += a x[i], wild an illegal access.
func fakeWithKernels(o cudatest.FakeOptions) *cudatest.Fake {
	var k *cudatest.Fake
	o.Kernels = map[string]func(grid, block cuda.Dim, params []unsafe.Pointer) cuda.Result{
		"axpy": func(grid, block cuda.Dim, params []unsafe.Pointer) cuda.Result {
			n := *(*int32)(params[3])
			y, x := *(*cuda.DevicePtr)(params[0]), *(*cuda.DevicePtr)(params[1])
			my, mx := k.Memory(y, 4*int64(n)), k.Memory(x, 4*int64(n))
			if my == nil || mx == nil || int32(grid.X*block.X) < n {
				return cuda.IllegalAddress
			}
			fy, fx := floats(my), floats(mx)
			for i := range fy {
				fy[i] += *(*float32)(params[2]) * fx[i]
			}
			return cuda.Success
		},
		"wild": func(_, _ cuda.Dim, _ []unsafe.Pointer) cuda.Result { return cuda.IllegalAddress },
	}
	k = cudatest.NewFake(o)
	return k
}

func floats(b []byte) []float32 { return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(b)/4) }

// inside opens a device above a wrapped fake driver, runs f in Do, and closes it; nothing may be left then.
func inside(t *testing.T, o cuda.Options, fo cudatest.FakeOptions, f func(d *cuda.Device, w *cudatest.Driver)) {
	t.Helper()
	w := cudatest.Wrap(fakeWithKernels(fo))
	o.Driver = w
	d, err := cuda.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Do(func() error { f(d, w); return nil }); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Leaks(); err != nil {
		t.Error(err)
	}
}

// must returns a value that cannot fail here.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// ok fails the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that an error has the code and says all of the words.
func refused(t *testing.T, err error, code cuda.Result, words ...string) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("got %v, want %s", err, code.Name())
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v does not say %q", err, w)
		}
	}
}

func TestOpenSaysWhyNot(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  func(w *cudatest.Driver)
		o      cuda.Options
		code   cuda.Result
		reason string
	}{
		{"no device", func(w *cudatest.Driver) { w.Fail(cudatest.Init, 1, cuda.NoDevice, cudatest.Onwards) }, cuda.Options{},
			cuda.NoDevice, "CUDA: no device: the driver is installed but sees no GPU"},
		{"no device by count", func(w *cudatest.Driver) { w.Fail(cudatest.DeviceCount, 1, cuda.NoDevice, cudatest.Onwards) },
			cuda.Options{}, cuda.NoDevice, "sees no GPU"},
		{"old driver", func(w *cudatest.Driver) { w.Old(11070) }, cuda.Options{},
			0, "CUDA: no device: the driver is too old: it serves CUDA 11.7, onmart needs 11.8; " +
				"what to do: install NVIDIA driver 520 or newer"},
		{"ordinal", nil, cuda.Options{Ordinal: 1}, cuda.InvalidDevice,
			"there is no cuda:1, the driver shows 1; what to do: name cuda:N with N below 1"},
		{"negative ordinal", nil, cuda.Options{Ordinal: -1}, cuda.InvalidDevice, "there is no cuda:-1"},
		{"not described", func(w *cudatest.Driver) { w.Fail(cudatest.DeviceName, 1, cuda.Unknown, cudatest.Onwards) },
			cuda.Options{}, 0, "no device can be used: the driver does not describe it (CUDA error 999)"},
		{"retain", func(w *cudatest.Driver) { w.Fail(cudatest.ContextRetain, 1, cuda.OutOfMemory, cudatest.Once) }, cuda.Options{},
			cuda.OutOfMemory, "cuDevicePrimaryCtxRetain of cuda:0 (Fake GPU): CUDA_ERROR_OUT_OF_MEMORY (2)"},
		{"limit", nil, cuda.Options{MemoryLimit: -1}, 0, "a memory limit of -1 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("CUDA_VISIBLE_DEVICES", "")
			w := cudatest.Wrap(cudatest.NewFake(cudatest.FakeOptions{}))
			if c.fault != nil {
				c.fault(w)
			}
			c.o.Driver = w
			_, err := cuda.Open(c.o)
			if err == nil || !strings.Contains(err.Error(), c.reason) || c.code != 0 && !errors.Is(err, c.code) {
				t.Errorf("got %v, want %s and %q", err, c.code.Name(), c.reason)
			}
			if cuda.Lost(err) {
				t.Errorf("%v: nothing was opened, and it is lost", err)
			}
			if err := w.Leaks(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSecondOfTwoDevices(t *testing.T) {
	d, err := cuda.Open(cuda.Options{Driver: cudatest.NewFake(cudatest.FakeOptions{Devices: 2}), Ordinal: 1})
	ok(t, err)
	i := d.Info()
	if i.Index != 1 || i.Name != "Fake GPU" || d.Capability() != 75 || i.SMs != 30 ||
		i.L2Bytes != 3<<20 || i.SharedPerSM != 64<<10 || i.RegistersPerSM != 65536 {
		t.Errorf("got %+v", i)
	}
	if got := i.Bandwidth(); math.Abs(got-336e9) > 1e9 { // NVIDIA's figure for the RTX 2060
		t.Errorf("bandwidth %g B/s", got)
	}
	ok(t, d.Close())
	ok(t, d.Close())
	if err := d.Do(func() error { return nil }); err == nil || !strings.Contains(err.Error(), "was closed") {
		t.Errorf("Do after Close: %v", err)
	}
}

// The context is there inside Do only, also when Do is called in Do, for another device, and after a panic.
func TestDoSetsTheContextAndPutsItBack(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the fake driver tells threads apart on Linux only")
	}
	fake := cudatest.NewFake(cudatest.FakeOptions{Devices: 2})
	a := must(cuda.Open(cuda.Options{Driver: fake}))
	b := must(cuda.Open(cuda.Options{Driver: fake, Ordinal: 1}))
	runtime.LockOSThread() // so that what follows sees what Do left on this thread
	defer runtime.UnlockOSThread()
	current := func() cuda.Context { return must1(fake.ContextCurrent()) }
	_, err := a.Alloc(4)
	refused(t, err, cuda.InvalidContext, "call it inside Device.Do")
	ok(t, a.Do(func() error {
		inA := current()
		ok(t, a.Do(func() error { return nil }))
		ok(t, b.Do(func() error {
			if current() == inA || current() == 0 {
				t.Error("the second device's context is not current")
			}
			return nil
		}))
		if current() != inA {
			t.Error("Do in Do lost the first device's context")
		}
		return nil
	}))
	func() {
		defer func() { recover() }()
		a.Do(func() error { panic("x") })
	}()
	if current() != 0 {
		t.Error("a context is left outside Do")
	}
	if err := a.Do(func() error { return errors.ErrUnsupported }); err != errors.ErrUnsupported {
		t.Errorf("f's error came back as %v", err)
	}
	ok(t, a.Close())
	ok(t, b.Close())
}

func must1[T any](v T, r cuda.Result) T {
	if r != cuda.Success {
		panic(r)
	}
	return v
}

func TestManyGoroutinesEachInDo(t *testing.T) {
	inside(t, cuda.Options{}, cudatest.FakeOptions{}, func(d *cuda.Device, _ *cudatest.Driver) {
		done := make(chan error)
		for g := range 8 {
			go func() {
				done <- d.Do(func() error {
					for i := range 50 {
						m, err := d.Alloc(int64(1 + g*i))
						if err != nil {
							return err
						}
						runtime.Gosched()
						if err := m.Free(); err != nil {
							return err
						}
					}
					return nil
				})
			}()
		}
		for range 8 {
			ok(t, <-done)
		}
		ok(t, d.Trim())
	})
}

func TestMemory(t *testing.T) {
	inside(t, cuda.Options{MemoryLimit: 8 << 20}, cudatest.FakeOptions{Memory: 64 << 20}, func(d *cuda.Device, w *cudatest.Driver) {
		a := must(d.Alloc(3 << 20))
		if a.Bytes != 3<<20 || a.Ptr%256 != 0 || d.Used() != 4<<20 {
			t.Errorf("%+v, %d used", a, d.Used())
		}
		_, err := d.Alloc(5 << 20)
		refused(t, err, cuda.OutOfMemory, "cuMemAlloc of 5 MiB", "the memory limit is 8 MiB", "of 4 MiB taken")
		_, err = d.Alloc(0)
		refused(t, err, cuda.InvalidValue, "Alloc of 0 bytes")
		ok(t, a.Free())
		refused(t, a.Free(), cuda.InvalidValue, "freed already")
		if d.Used() != 4<<20 {
			t.Errorf("%d used after Free: it should be cached", d.Used())
		}
		b := must(d.Alloc(7 << 20)) // fits only once the cached 4 MiB are given back
		if d.Used() != 8<<20 || w.Count(cudatest.MemFree) != 1 {
			t.Errorf("%d used, %d frees", d.Used(), w.Count(cudatest.MemFree))
		}
		ok(t, b.Free())
		ok(t, d.Trim())
		d.SetMemoryLimit(1 << 20)
		_, err = d.Alloc(1<<20 + 1)
		refused(t, err, cuda.OutOfMemory, "the memory limit is 1 MiB")
		d.SetMemoryLimit(0)
		ok(t, must(d.Alloc(16<<20)).Free())
		ok(t, d.Trim())
		if d.Used() != 0 {
			t.Errorf("%d used after Trim", d.Used())
		}
		if free, total, err := d.MemInfo(); err != nil || free != 64<<20 || total != 64<<20 {
			t.Error(free, total, err)
		}
	})
}

func TestOutOfMemoryOnceIsTriedAgain(t *testing.T) {
	inside(t, cuda.Options{}, cudatest.FakeOptions{}, func(d *cuda.Device, w *cudatest.Driver) {
		w.Fail(cudatest.MemAlloc, 2, cuda.OutOfMemory, cudatest.Once)
		a, b := must(d.Alloc(4<<20)), must(d.Alloc(4<<20))
		if n := w.Count(cudatest.MemAlloc); n != 3 {
			t.Errorf("%d calls for two allocations of which one was refused once", n)
		}
		w.Fail(cudatest.MemAlloc, 1, cuda.OutOfMemory, cudatest.Onwards)
		_, err := d.Alloc(1 << 30)
		refused(t, err, cuda.OutOfMemory, "cuMemAlloc of 1 GiB", "this process holds 8 MiB",
			"of the device's 6 GiB are free", "close other programs")
		ok(t, a.Free())
		ok(t, b.Free())
	})
}

func TestNoCacheAsksTheDriverForJustTheSize(t *testing.T) {
	inside(t, cuda.Options{NoCache: true}, cudatest.FakeOptions{}, func(d *cuda.Device, w *cudatest.Driver) {
		a, b := must(d.Alloc(5)), must(d.Alloc(700))
		if d.Used() != 705 || w.Live("memory") != 2 {
			t.Errorf("%d bytes in %d allocations", d.Used(), w.Live("memory"))
		}
		s := must(d.NewStream())
		ok(t, cuda.ToDevice(s, a.Ptr, []byte("12345")))
		refused(t, cuda.ToDevice(s, a.Ptr, []byte("123456")), cuda.InvalidValue, "cuMemcpyHtoDAsync of 6 B")
		ok(t, s.Close())
		ok(t, a.Free())
		ok(t, b.Free())
		if d.Used() != 0 || w.Live("memory") != 0 {
			t.Errorf("%d bytes in %d allocations", d.Used(), w.Live("memory"))
		}
	})
}

func TestHostMemory(t *testing.T) {
	inside(t, cuda.Options{}, cudatest.FakeOptions{}, func(d *cuda.Device, w *cudatest.Driver) {
		h := must(d.AllocHost(10))
		if !h.Pinned() || len(h.Bytes()) != 10 || len(h.F32()) != 2 {
			t.Errorf("%d bytes, %d floats", len(h.Bytes()), len(h.F32()))
		}
		ok(t, h.Free())
		if h.Bytes() != nil || h.F32() != nil {
			t.Error("freed memory can be reached")
		}
		refused(t, h.Free(), cuda.InvalidValue, "freed already")
		_, err := d.AllocHost(-1)
		refused(t, err, cuda.InvalidValue)
		w.Fail(cudatest.HostAlloc, 1, cuda.OutOfMemory, cudatest.Once)
		_, err = d.AllocHost(1 << 20)
		refused(t, err, cuda.OutOfMemory, "cuMemAllocHost of 1 MiB", "ulimit -l")
		w.Fail(cudatest.HostAlloc, 1, cuda.NotSupported, cudatest.Once)
		h = must(d.AllocHost(6))
		if h.Pinned() || len(h.Bytes()) != 6 {
			t.Error("without pinned memory it should be ordinary")
		}
		ok(t, h.Free())
	})
}

func TestCopies(t *testing.T) {
	inside(t, cuda.Options{}, cudatest.FakeOptions{}, func(d *cuda.Device, _ *cudatest.Driver) {
		testCopies(t, d)
	})
}

// testCopies moves data in every direction and back.
func testCopies(t *testing.T, d *cuda.Device) {
	s := must(d.NewStream())
	if s.Device() != d {
		t.Error("another device")
	}
	const n = 1023
	a, b := must(d.Alloc(4*n)), must(d.Alloc(4*n))
	in := make([]float32, n)
	for i := range in {
		in[i] = float32(i) / 7
	}
	ok(t, cuda.ToDevice(s, a.Ptr, in))
	ok(t, s.Fill32(b.Ptr, math.Float32bits(-1), n))
	ok(t, s.CopyOnDevice(b.Ptr+4, a.Ptr+8, 4*(n-2)))
	out := make([]float32, n)
	ok(t, cuda.ToHost(s, out, b.Ptr))
	ok(t, s.Sync())
	if want := append(append([]float32{-1}, in[2:]...), -1); !slices.Equal(out, want) {
		t.Errorf("got %v...%v", out[:3], out[n-3:])
	}
	h := must(d.AllocHost(4 * n))
	ok(t, cuda.ToHost(s, h.F32(), a.Ptr))
	ok(t, s.Sync())
	if !slices.Equal(h.F32(), in) {
		t.Error("pinned memory differs")
	}
	ok(t, cuda.ToDevice[float32](s, a.Ptr, nil))
	ok(t, cuda.ToHost[float32](s, nil, a.Ptr))
	ok(t, s.Fill32(0, 0, 0))
	ok(t, s.CopyOnDevice(0, 0, 0))
	ok(t, h.Free())
	ok(t, a.Free())
	ok(t, b.Free())
	ok(t, s.Close())
	ok(t, s.Close())
	refused(t, s.Sync(), cuda.InvalidHandle, "the stream was closed")
	refused(t, s.Fill32(a.Ptr, 0, 1), cuda.InvalidHandle, "the stream was closed")
	refused(t, cuda.ToDevice(s, a.Ptr, in), cuda.InvalidHandle, "the stream was closed")
	refused(t, s.Launch("k", 1, cuda.Dim{}, cuda.Dim{}, 0, nil), cuda.InvalidHandle, "cuLaunchKernel of k", "the stream was closed")
}

func TestGraph(t *testing.T) {
	inside(t, cuda.Options{}, cudatest.FakeOptions{}, func(d *cuda.Device, _ *cudatest.Driver) { testGraph(t, d) })
}

// testGraph captures copies on two streams and replays them with data that changes between.
func testGraph(t *testing.T, d *cuda.Device) {
	s, side := must(d.NewStream()), must(d.NewStream())
	fork, joined := must(d.NewEvent(false)), must(d.NewEvent(false))
	a, b, c := must(d.Alloc(16)), must(d.Alloc(16)), must(d.Alloc(16))
	h := must(d.AllocHost(16))
	ok(t, s.Fill32(b.Ptr, 7, 4))
	ok(t, s.Fill32(c.Ptr, 7, 4))
	ok(t, s.Sync())
	g, err := s.Capture(func() error {
		return errors.Join(cuda.ToDevice(s, a.Ptr, h.Bytes()), fork.Record(s), side.Wait(fork),
			side.CopyOnDevice(b.Ptr, a.Ptr, 8), joined.Record(side),
			s.CopyOnDevice(c.Ptr, a.Ptr, 12), s.Wait(joined), s.CopyOnDevice(b.Ptr+8, c.Ptr+8, 4))
	})
	ok(t, err)
	read := func(m *cuda.Mem) []uint32 {
		out := make([]uint32, 4)
		ok(t, cuda.ToHost(s, out, m.Ptr))
		ok(t, s.Sync())
		return out
	}
	if got := read(b); !slices.Equal(got, []uint32{7, 7, 7, 7}) {
		t.Errorf("the capture did the work: %v", got)
	}
	for round := range byte(3) {
		for i := range h.Bytes() {
			h.Bytes()[i] = 0
		}
		for i := range 4 {
			h.Bytes()[4*i] = 10*round + byte(i)
		}
		ok(t, g.Launch(s))
		r := 10 * uint32(round)
		want := []uint32{r, r + 1, r + 2, 7}
		if gb, gc := read(b), read(c); !slices.Equal(gb, want) || !slices.Equal(gc, want) {
			t.Errorf("replay %d: %v %v", round, gb, gc)
		}
	}
	ok(t, g.Close())
	ok(t, g.Close())
	for _, close := range []func() error{fork.Close, joined.Close, a.Free, b.Free, c.Free, h.Free, s.Close, side.Close} {
		ok(t, close())
	}
}

func TestWhatACaptureForbids(t *testing.T) {
	inside(t, cuda.Options{}, cudatest.FakeOptions{}, func(d *cuda.Device, w *cudatest.Driver) { testForbidden(t, d, w) })
}

// testForbidden checks that a capture that went wrong is an error with its cause, and leaves nothing behind.
func testForbidden(t *testing.T, d *cuda.Device, w *cudatest.Driver) {
	s, side := must(d.NewStream()), must(d.NewStream())
	e := must(d.NewEvent(false))
	a := must(d.Alloc(16))
	for _, c := range []struct {
		name string
		f    func() error
		code cuda.Result
		word string
	}{
		{"sync", s.Sync, cuda.CaptureUnsupported, "do it before Stream.Capture"},
		{"sync whose error is dropped", func() error { s.Sync(); return nil }, cuda.CaptureInvalidated, "cuStreamEndCapture"},
		{"ordinary memory", func() error { return cuda.ToDevice(s, a.Ptr, []int32{1}) }, cuda.CaptureUnsupported, "take it from AllocHost"},
		{"alloc", func() error { _, err := d.Alloc(64 << 20); return err }, cuda.CaptureUnsupported, "do it before Stream.Capture"},
		{"not joined", func() error {
			return errors.Join(e.Record(s), side.Wait(e), side.Fill32(a.Ptr, 0, 4))
		}, cuda.CaptureUnjoined, "let the first stream wait"},
		{"own error", func() error { return cuda.NotFound }, cuda.NotFound, ""},
	} {
		t.Log(c.name) // no t.Run: it would leave the thread that Do has locked
		g, err := s.Capture(c.f)
		if g != nil {
			t.Error("a graph came of it")
		}
		refused(t, err, c.code, c.word)
		if n := w.Live("graph") + w.Live("graph exec"); n != 0 {
			t.Errorf("%d graphs are left", n)
		}
		ok(t, s.Fill32(a.Ptr, 1, 4)) // the stream works again
		ok(t, s.Sync())
		ok(t, side.Sync())
	}
	func() {
		defer func() { recover() }()
		s.Capture(func() error { panic("x") })
	}()
	ok(t, s.Sync())
	g := must(s.Capture(func() error { return s.Fill32(a.Ptr, 2, 4) }))
	ok(t, g.Launch(s))
	ok(t, s.Sync())
	for _, close := range []func() error{g.Close, e.Close, a.Free, s.Close, side.Close} {
		ok(t, close())
	}
	refused(t, g.Launch(s), cuda.InvalidHandle, "the stream was closed")
}

func TestEvents(t *testing.T) {
	inside(t, cuda.Options{}, cudatest.FakeOptions{}, func(d *cuda.Device, _ *cudatest.Driver) { testEvents(t, d) })
}

func testEvents(t *testing.T, d *cuda.Device) {
	s, other := must(d.NewStream()), must(d.NewStream())
	a, b, plain := must(d.NewEvent(true)), must(d.NewEvent(true)), must(d.NewEvent(false))
	_, err := cuda.Elapsed(a, b)
	refused(t, err, cuda.InvalidHandle, "must be recorded and synchronised")
	m := must(d.Alloc(1 << 20))
	ok(t, a.Record(s))
	ok(t, s.Fill32(m.Ptr, 1, 1<<18))
	ok(t, b.Record(s))
	ok(t, other.Wait(b))
	ok(t, other.Sync())
	ok(t, b.Sync())
	if d, err := cuda.Elapsed(a, b); err != nil || d < 0 {
		t.Error(d, err)
	}
	ok(t, plain.Record(s))
	ok(t, s.Sync())
	_, err = cuda.Elapsed(a, plain)
	refused(t, err, cuda.InvalidHandle, "need timing")
	for _, close := range []func() error{a.Close, a.Close, b.Close, plain.Close, m.Free, s.Close, other.Close} {
		ok(t, close())
	}
}

func TestModuleAndLaunch(t *testing.T) {
	inside(t, cuda.Options{}, cudatest.FakeOptions{}, func(d *cuda.Device, _ *cudatest.Driver) {
		m := must(d.LoadModule("demo", []byte(ptx)))
		f := must(m.Function("axpy"))
		_, err := m.Function("axp")
		refused(t, err, cuda.NotFound, "cuModuleGetFunction of axp in demo")
		s := must(d.NewStream())
		x, y := must(d.Alloc(12)), must(d.Alloc(12))
		ok(t, cuda.ToDevice(s, x.Ptr, []float32{1, 2, 3}))
		ok(t, s.Fill32(y.Ptr, math.Float32bits(1), 3))
		args := new(cuda.Args).Ptr(y.Ptr).Ptr(x.Ptr).F32(2).I32(3)
		ok(t, s.Launch("axpy 3", f, cuda.Dim{X: 1, Y: 1, Z: 1}, cuda.Dim{X: 32, Y: 1, Z: 1}, 0, args))
		g := must(s.Capture(func() error {
			args.Reset().Ptr(y.Ptr).Ptr(x.Ptr).F32(-1).I32(3)
			return s.Launch("axpy 3", f, cuda.Dim{X: 1, Y: 1, Z: 1}, cuda.Dim{X: 32, Y: 1, Z: 1}, 0, args)
		}))
		args.Reset() // a graph has read them
		ok(t, g.Launch(s))
		ok(t, g.Launch(s))
		out := make([]float32, 3)
		ok(t, cuda.ToHost(s, out, y.Ptr))
		ok(t, s.Sync())
		if !slices.Equal(out, []float32{1, 1, 1}) {
			t.Errorf("1 + 2x - x - x = %v", out)
		}
		refused(t, s.Launch("axpy 3", f, cuda.Dim{X: 1, Y: 1}, cuda.Dim{X: 32, Y: 1, Z: 1}, 16, args), cuda.InvalidValue,
			"cuLaunchKernel of axpy 3", "grid 1x1x0, block 32x1x1, 16 bytes of shared memory")
		for _, close := range []func() error{g.Close, m.Close, m.Close, x.Free, y.Free, s.Close} {
			ok(t, close())
		}
	})
}

func TestModulesThatDoNotLoad(t *testing.T) {
	newer := strings.Replace(ptx, "7.8", "8.8", 1)
	for _, c := range []struct {
		name  string
		ptx   string
		fault func(w *cudatest.Driver)
		code  cuda.Result
		words []string
	}{
		{"too new", newer, nil, cuda.UnsupportedPTX, []string{"cuModuleLoadDataEx of demo", "the PTX is of version 8.8",
			"must serve CUDA 12.9 (driver 575 or newer)", "this driver serves CUDA 12.4: update NVIDIA's driver"}},
		{"no PTX", "hello", nil, cuda.InvalidPTX, []string{"Missing .version directive"}},
		{"empty", "", nil, cuda.InvalidPTX, nil},
		{"damaged", ptx, func(w *cudatest.Driver) { w.Corrupt(3, 1) }, cuda.InvalidPTX,
			[]string{"Parsing error", " | ptxas fatal   : Ptx assembly aborted"}},
		{"no memory", ptx, func(w *cudatest.Driver) { w.Fail(cudatest.ModuleLoad, 1, cuda.OutOfMemory, cudatest.Once) },
			cuda.OutOfMemory, []string{"6 GiB of the device's 6 GiB are free"}},
		{"other device", ptx, func(w *cudatest.Driver) { w.Fail(cudatest.ModuleLoad, 1, cuda.NoBinaryForGPU, cudatest.Once) },
			cuda.NoBinaryForGPU, []string{"the PTX is for sm_75, and the device has compute capability 7.5"}},
		{"no compiler", ptx, func(w *cudatest.Driver) { w.Fail(cudatest.ModuleLoad, 1, cuda.JITNotFound, cudatest.Once) },
			cuda.JITNotFound, []string{"NVIDIA_DRIVER_CAPABILITIES"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inside(t, cuda.Options{}, cudatest.FakeOptions{Version: 12040}, func(d *cuda.Device, w *cudatest.Driver) {
				if c.fault != nil {
					c.fault(w)
				}
				m, err := d.LoadModule("demo", []byte(c.ptx))
				if m != nil {
					t.Error("it was loaded")
				}
				refused(t, err, c.code, c.words...)
			})
		})
	}
}

func TestAKernelsFaultLosesTheDevice(t *testing.T) {
	w := cudatest.Wrap(fakeWithKernels(cudatest.FakeOptions{}))
	d := must(cuda.Open(cuda.Options{Driver: w}))
	ok(t, d.Do(func() error {
		m := must(d.LoadModule("demo", []byte(ptx)))
		s := must(d.NewStream())
		mem := must(d.Alloc(4))
		ok(t, s.Launch("wild", must(m.Function("wild")), cuda.Dim{X: 1, Y: 1, Z: 1}, cuda.Dim{X: 1, Y: 1, Z: 1}, 0, nil))
		err := s.Sync()
		refused(t, err, cuda.IllegalAddress, "cuStreamSynchronize", "the device is lost to this process", "resume what was checkpointed")
		for _, err := range []error{err, s.Close(), m.Close(), s.Fill32(mem.Ptr, 0, 1)} {
			if err == nil {
				t.Error("a call went through on a device that is lost")
			}
		}
		if !cuda.Lost(err) {
			t.Errorf("not lost: %v", err)
		}
		return nil
	}))
	if err := d.Close(); err != nil { // it was said already
		t.Error(err)
	}
	if err := w.Leaks(); err != nil {
		t.Error(err)
	}
}

func TestCloseNamesWhatIsOpen(t *testing.T) {
	w := cudatest.Wrap(fakeWithKernels(cudatest.FakeOptions{}))
	d := must(cuda.Open(cuda.Options{Driver: w}))
	var m *cuda.Mem
	var h *cuda.Host
	ok(t, d.Do(func() error {
		m, h = must(d.Alloc(1)), must(d.AllocHost(1))
		s := must(d.NewStream())
		must(d.NewEvent(true))
		must(d.NewEvent(true))
		must(d.LoadModule("demo", []byte(ptx)))
		must(s.Capture(func() error { return nil }))
		return nil
	}))
	err := d.Close()
	want := "closing cuda:0 with 1 memory, 1 pinned memory, 1 stream, 2 event, 1 module, 1 graph still open"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if w.Live("memory") != 0 || w.Live("host") != 0 {
		t.Error("memory was not given back")
	}
	ok(t, m.Free())
	ok(t, h.Free())
}

// A launch and a replay must not allocate: they are the hot path. Fakes do, so the driver here does nothing.
func TestLaunchDoesNotAllocate(t *testing.T) {
	d := must(cuda.Open(cuda.Options{Driver: idle{cudatest.NewFake(cudatest.FakeOptions{})}}))
	ok(t, d.Do(func() error {
		s := must(d.NewStream())
		m := must(d.Alloc(1 << 10))
		h := must(d.AllocHost(1 << 10))
		g := must(s.Capture(func() error { return nil }))
		e := must(d.NewEvent(false))
		args := new(cuda.Args)
		if n := testing.AllocsPerRun(100, func() {
			args.Reset().Ptr(m.Ptr).I32(1).U32(2).I64(3).F32(4).F64(5)
			if s.Launch("k", 1, cuda.Dim{X: 1, Y: 1, Z: 1}, cuda.Dim{X: 1, Y: 1, Z: 1}, 0, args) != nil || g.Launch(s) != nil ||
				e.Record(s) != nil || s.Wait(e) != nil || cuda.ToDevice(s, m.Ptr, h.F32()) != nil || s.Fill32(m.Ptr, 0, 8) != nil {
				t.Error("failed")
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
		for _, close := range []func() error{g.Close, e.Close, m.Free, h.Free, s.Close} {
			ok(t, close())
		}
		return nil
	}))
	ok(t, d.Close())
}

// idle does nothing in the calls of the hot path.
type idle struct{ *cudatest.Fake }

func (idle) Launch(cuda.Function, cuda.Dim, cuda.Dim, uint32, cuda.StreamID, []unsafe.Pointer) cuda.Result {
	return cuda.Success
}
func (idle) GraphLaunch(cuda.GraphExec, cuda.StreamID) cuda.Result           { return cuda.Success }
func (idle) EventRecord(cuda.EventID, cuda.StreamID) cuda.Result             { return cuda.Success }
func (idle) StreamWait(cuda.StreamID, cuda.EventID) cuda.Result              { return cuda.Success }
func (idle) Fill32(cuda.DevicePtr, uint32, int64, cuda.StreamID) cuda.Result { return cuda.Success }
func (idle) CopyToDevice(cuda.DevicePtr, unsafe.Pointer, int64, cuda.StreamID) cuda.Result {
	return cuda.Success
}

func TestTooManyArgsPanics(t *testing.T) {
	defer func() {
		if p := recover(); p != "cuda: more than 32 kernel parameters" {
			t.Errorf("got %v", p)
		}
	}()
	a := new(cuda.Args)
	for range 33 {
		a.I32(0)
	}
}
