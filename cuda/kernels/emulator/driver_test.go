//go:build linux && !nocuda && !cu

package emulator

import (
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/onmart/onmart/cuda"
)

// fill returns n times v.
func fill[T any](v T, n int) []T {
	s := make([]T, n)
	for i := range s {
		s[i] = v
	}
	return s
}

// quietly runs f and drops what it writes to stderr, where the library names each misuse.
func quietly(t testing.TB, f func()) {
	t.Helper()
	if said := stderr(t, f); !strings.HasPrefix(said, "onmart emulator: ") {
		t.Fatalf("the misuse is not named on stderr: %q", said)
	}
}

const elements = 500 // of the vectors below, in two blocks

// onVector launches a kernel with parameters (x, n).
func (d *device) onVector(s cuda.StreamID, name string, x cuda.DevicePtr) cuda.Result {
	d.Helper()
	return d.launch(s, name, line(2), line(256), x, int32(elements))
}

// TestStreamsNeedEvents runs x+1, then 2x on another stream: right in every order with an event, wrong in one
// without.
func TestStreamsNeedEvents(t *testing.T) {
	d := open(t)
	run := func(event bool) []float32 {
		x := put(d, fill[float32](3, elements))
		d.ok(d.StreamSync(d.stream))
		first, second := d.newStream(), d.newStream()
		d.ok(d.onVector(first, "increment", x))
		if event {
			e := d.newEvent()
			d.ok(d.EventRecord(e, first))
			d.ok(d.StreamWait(second, e))
			d.ok(d.EventDestroy(e)) // the wait stays
		}
		d.ok(d.onVector(second, "twice", x))
		d.ok(d.StreamSync(second))
		d.ok(d.StreamSync(first))
		v := get[float32](d, x, elements)
		d.ok(d.StreamDestroy(first))
		d.ok(d.StreamDestroy(second))
		return v
	}
	inAllOrders(d, func(o uint32) { same(d, "with an event", o, run(true), fill[float32](8, elements)) })
	if got := exposed(d, func() []float32 { return run(false) }); !slices.Contains(got, 1) || len(got) < 2 {
		t.Errorf("a missing event changes results in orders %d, want 1 and a seed", got)
	}
}

// TestEventsOfADestroyedStream wants work to be done though its stream was destroyed before.
func TestEventsOfADestroyedStream(t *testing.T) {
	d := open(t)
	inAllOrders(d, func(o uint32) {
		x := put(d, fill[float32](3, elements))
		d.ok(d.StreamSync(d.stream))
		s, e := d.newStream(), d.newEvent()
		d.ok(d.onVector(s, "increment", x))
		d.ok(d.EventRecord(e, s))
		d.ok(d.StreamDestroy(s))
		d.ok(d.StreamWait(d.stream, e))
		d.ok(d.onVector(d.stream, "twice", x))
		same(d, "twice", o, get[float32](d, x, elements), fill[float32](8, elements))
		d.ok(d.EventSync(e))
	})
}

// TestImplicitWaits wants what a driver waits for by itself: a copy to ordinary memory is there when the call
// returns, and memory is freed after the work that is under way.
func TestImplicitWaits(t *testing.T) {
	d := open(t)
	inAllOrders(d, func(o uint32) {
		x := put(d, fill[float32](3, elements))
		d.ok(d.onVector(d.stream, "increment", x))
		v := make([]float32, elements)
		d.ok(d.CopyToHost(unsafe.Pointer(&v[0]), x, 4*elements, d.stream))
		same(d, "copied", o, v, fill[float32](4, elements))
		d.ok(d.onVector(d.stream, "increment", x))
		d.ok(d.MemFree(x))
		d.ok(d.StreamSync(d.stream))
	})
}

// TestPinnedMemory reuses a staging buffer for two copies: right with a synchronised event between, wrong in
// one order without. Ordinary memory has been read when the call returns.
func TestPinnedMemory(t *testing.T) {
	d := open(t)
	run := func(pinned, event bool) []float32 {
		staging := make([]float32, elements)
		if pinned {
			p, r := d.HostAlloc(4 * elements)
			d.ok(r)
			staging = unsafe.Slice((*float32)(p), elements)
			defer func() { d.ok(d.HostFree(p)) }()
		}
		e := d.newEvent()
		x := d.alloc(8 * elements)
		for i := range 2 {
			if i == 1 && event {
				d.ok(d.EventSync(e))
			}
			copy(staging, fill(float32(i+1), elements))
			d.ok(d.CopyToDevice(x+cuda.DevicePtr(4*elements*i), unsafe.Pointer(&staging[0]), 4*elements, d.stream))
			d.ok(d.EventRecord(e, d.stream))
		}
		v := get[float32](d, x, 2*elements)
		runtime.KeepAlive(staging)
		return v
	}
	want := slices.Concat(fill[float32](1, elements), fill[float32](2, elements))
	inAllOrders(d, func(o uint32) {
		same(d, "pinned with an event", o, run(true, true), want)
		same(d, "ordinary", o, run(false, false), want)
	})
	if got := exposed(d, func() []float32 { return run(true, false) }); !slices.Contains(got, 1) {
		t.Errorf("a pinned buffer that is reused too early changes results in orders %d, want 1 among them", got)
	}
	p, r := d.HostAlloc(64)
	d.ok(r)
	x := d.alloc(128)
	quietly(t, func() { d.want(cuda.InvalidValue, d.CopyToDevice(x, p, 65, d.stream)) })
	quietly(t, func() { d.want(cuda.InvalidValue, d.CopyToHost(p, x, 65, d.stream)) })
	d.ok(d.HostFree(p))
	quietly(t, func() { d.want(cuda.InvalidValue, d.HostFree(p)) })
}

// TestGraphsNeedEdges captures x+1 on one stream and 2x on another that has joined: right in every order with
// an edge between the two, wrong in one without.
func TestGraphsNeedEdges(t *testing.T) {
	d := open(t)
	second := d.newStream()
	fork, between, join := d.newEvent(), d.newEvent(), d.newEvent()
	run := func(edge bool) []float32 {
		x := put(d, fill[float32](3, elements))
		d.ok(d.StreamSync(d.stream))
		d.ok(d.CaptureBegin(d.stream))
		d.ok(d.EventRecord(fork, d.stream))
		d.ok(d.StreamWait(second, fork))
		d.ok(d.onVector(d.stream, "increment", x))
		if edge {
			d.ok(d.EventRecord(between, d.stream))
			d.ok(d.StreamWait(second, between))
		}
		d.ok(d.onVector(second, "twice", x))
		d.ok(d.EventRecord(join, second))
		d.ok(d.StreamWait(d.stream, join))
		d.ok(d.onVector(d.stream, "increment", x))
		g, r := d.CaptureEnd(d.stream)
		d.ok(r)
		exec, r := d.GraphInstantiate(g)
		d.ok(r)
		d.ok(d.GraphDestroy(g))
		if v := get[float32](d, x, 1); v[0] != 3 {
			t.Fatalf("the capture ran: %v", v)
		}
		for range 2 {
			d.ok(d.GraphLaunch(exec, d.stream))
		}
		d.ok(d.GraphExecDestroy(exec)) // the launches stay
		return get[float32](d, x, elements)
	}
	inAllOrders(d, func(o uint32) { same(d, "with an edge", o, run(true), fill[float32](21, elements)) }) // 3 4 8 9 10 20 21
	if got := exposed(d, func() []float32 { return run(false) }); !slices.Contains(got, 1) || len(got) < 2 {
		t.Errorf("a missing edge changes results in orders %d, want 1 and a seed", got)
	}
}

// TestGraphCopies captures copies and fills: pinned memory is read anew by each launch.
func TestGraphCopies(t *testing.T) {
	d := open(t)
	inAllOrders(d, func(o uint32) {
		p, r := d.HostAlloc(8)
		d.ok(r)
		host := unsafe.Slice((*uint32)(p), 2)
		x, y := d.alloc(8), d.alloc(8)
		d.ok(d.CaptureBegin(d.stream))
		d.ok(d.Fill32(x, 7, 2, d.stream))
		d.ok(d.CopyToDevice(x, p, 4, d.stream))
		d.ok(d.CopyOnDevice(y, x, 8, d.stream))
		d.ok(d.CopyToHost(unsafe.Add(p, 4), y+4, 4, d.stream))
		g, r := d.CaptureEnd(d.stream)
		d.ok(r)
		exec, r := d.GraphInstantiate(g)
		d.ok(r)
		for i := range uint32(3) {
			host[0], host[1] = i, 0
			d.ok(d.GraphLaunch(exec, d.stream))
			d.ok(d.StreamSync(d.stream))
			if host[1] != 7 {
				t.Fatalf("order %d: the copy to the host gave %d, want 7", o, host[1])
			}
			same(d, "copies", o, get[uint32](d, y, 2), []uint32{i, 7})
		}
		d.ok(d.GraphDestroy(g))
		// What a graph refers to may be freed before it is launched; then the launch faults.
		d.ok(d.MemFree(y))
		quietly(t, func() {
			r := d.GraphLaunch(exec, d.stream)
			if r == cuda.Success {
				r = d.StreamSync(d.stream)
			}
			d.want(cuda.IllegalAddress, r)
		})
		d.ok(d.ContextRelease(0)) // the fault goes with the context
		ctx, r := d.ContextRetain(0)
		d.ok(r)
		d.ok(d.ContextSet(ctx))
		d.stream = d.newStream()
	})
}

// TestCaptureRules wants what a driver forbids during a capture.
func TestCaptureRules(t *testing.T) {
	const unsupported, invalidated, unmatched, unjoined, isolation, capturedEvent, illegalState = cuda.Result(900), cuda.Result(901),
		cuda.Result(903), cuda.Result(904), cuda.Result(905), cuda.Result(907), cuda.Result(401)
	for _, c := range []struct {
		name      string
		f         func(d *device, x cuda.DevicePtr) cuda.Result // during a capture
		want, end cuda.Result
	}{
		{"nothing", func(d *device, x cuda.DevicePtr) cuda.Result { return cuda.Success }, cuda.Success, cuda.Success},
		{"synchronise", func(d *device, x cuda.DevicePtr) cuda.Result { return d.StreamSync(d.stream) }, unsupported, invalidated},
		{"launch after synchronising", func(d *device, x cuda.DevicePtr) cuda.Result {
			d.want(unsupported, d.StreamSync(d.stream))
			return d.onVector(d.stream, "increment", x)
		}, invalidated, invalidated},
		{"allocate", func(d *device, x cuda.DevicePtr) cuda.Result {
			_, r := d.MemAlloc(16)
			return r
		}, unsupported, invalidated},
		{"free", func(d *device, x cuda.DevicePtr) cuda.Result { return d.MemFree(x) }, unsupported, invalidated},
		{"allocate pinned", func(d *device, x cuda.DevicePtr) cuda.Result {
			_, r := d.HostAlloc(16)
			return r
		}, unsupported, invalidated},
		{"begin twice", func(d *device, x cuda.DevicePtr) cuda.Result { return d.CaptureBegin(d.stream) }, illegalState, cuda.Success},
		{"wait for an event from outside", func(d *device, x cuda.DevicePtr) cuda.Result {
			e, other := d.newEvent(), d.newStream()
			d.ok(d.EventRecord(e, other))
			return d.StreamWait(d.stream, e)
		}, isolation, invalidated},
		{"synchronise an event", func(d *device, x cuda.DevicePtr) cuda.Result {
			e := d.newEvent()
			d.ok(d.EventRecord(e, d.stream))
			return d.EventSync(e)
		}, capturedEvent, cuda.Success},
		{"leave work unjoined", func(d *device, x cuda.DevicePtr) cuda.Result {
			e, other := d.newEvent(), d.newStream()
			d.ok(d.EventRecord(e, d.stream))
			d.ok(d.StreamWait(other, e))
			return d.onVector(other, "increment", x)
		}, cuda.Success, unjoined},
		{"end on another stream", func(d *device, x cuda.DevicePtr) cuda.Result {
			e, other := d.newEvent(), d.newStream()
			d.ok(d.EventRecord(e, d.stream))
			d.ok(d.StreamWait(other, e))
			_, r := d.CaptureEnd(other)
			return r
		}, unmatched, invalidated},
		{"destroy the stream", func(d *device, x cuda.DevicePtr) cuda.Result { return d.StreamDestroy(d.stream) }, unsupported, invalidated},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t)
			x := put(d, fill[float32](3, elements))
			d.ok(d.CaptureBegin(d.stream))
			d.ok(d.onVector(d.stream, "increment", x))
			said := stderr(t, func() {
				d.want(c.want, c.f(d, x))
				_, r := d.CaptureEnd(d.stream)
				d.want(c.end, r)
			})
			if bad := c.want != cuda.Success || c.end != cuda.Success; bad != (said != "") {
				t.Errorf("stderr: %q", said)
			}
			d.ok(d.onVector(d.stream, "increment", x)) // the stream is usable again, and what was captured was not run
			same(d, "after the capture", 0, get[float32](d, x, elements), fill[float32](4, elements))
			quietly(t, func() {
				_, r := d.CaptureEnd(d.stream)
				d.want(illegalState, r)
			})
		})
	}
}

// TestContexts wants calls without the thread's context, or with one that is gone, to be refused.
func TestContexts(t *testing.T) {
	d := open(t)
	done := make(chan cuda.Result)
	quietly(t, func() {
		go func() {
			runtime.LockOSThread() // another thread: it has no context
			_, r := d.MemAlloc(16)
			done <- r
		}()
		d.want(cuda.InvalidContext, <-done)
	})
	ctx, r := d.ContextRetain(0)
	d.ok(r)
	d.ok(d.ContextRelease(0))
	d.ok(d.ContextRelease(0)) // the one of open
	quietly(t, func() { d.want(709, d.StreamSync(d.stream)) })
	quietly(t, func() { d.want(cuda.InvalidContext, d.ContextSet(ctx)) })
	quietly(t, func() { d.want(cuda.InvalidContext, d.ContextRelease(0)) })
	again, r := d.ContextRetain(0)
	d.ok(r)
	if again == ctx {
		t.Fatal("a new context has the handle of the old one")
	}
	d.ok(d.ContextSet(again))
	quietly(t, func() { d.want(400, d.StreamSync(d.stream)) }) // a stream of the old context
}

// TestArguments wants misuse to be refused, each with a line on stderr.
func TestArguments(t *testing.T) {
	type setting struct {
		*device
		x, y  cuda.DevicePtr // 100 bytes each
		host  unsafe.Pointer // 200 bytes
		stale cuda.StreamID
	}
	launch := func(d setting, grid, block cuda.Dim, shared uint32) cuda.Result {
		return d.Launch(d.function("increment"), grid, block, shared, d.stream, pointers(d.TB, []any{d.x, int32(0)}))
	}
	for _, c := range []struct {
		name string
		want cuda.Result
		f    func(d setting) cuda.Result
	}{
		{"copy past the end", 1, func(d setting) cuda.Result { return d.CopyToDevice(d.x, d.host, 101, d.stream) }},
		{"copy before", 1, func(d setting) cuda.Result { return d.CopyToDevice(d.x-1, d.host, 4, d.stream) }},
		{"copy to the host past the end", 1, func(d setting) cuda.Result { return d.CopyToHost(d.host, d.x+50, 51, d.stream) }},
		{"copy on the device past the end", 1, func(d setting) cuda.Result { return d.CopyOnDevice(d.x, d.y+4, 100, d.stream) }},
		{"copy onto itself", 1, func(d setting) cuda.Result { return d.CopyOnDevice(d.x, d.x+4, 20, d.stream) }},
		{"fill past the end", 1, func(d setting) cuda.Result { return d.Fill32(d.x, 0, 26, d.stream) }},
		{"fill misaligned", 1, func(d setting) cuda.Result { return d.Fill32(d.x+2, 0, 1, d.stream) }},
		{"free inside", 1, func(d setting) cuda.Result { return d.MemFree(d.x + 4) }},
		{"default stream", 400, func(d setting) cuda.Result { return d.Fill32(d.x, 0, 1, 0) }},
		{"stream that is gone", 400, func(d setting) cuda.Result { return d.StreamSync(d.stale) }},
		{"no event", 400, func(d setting) cuda.Result { return d.EventSync(cuda.EventID(d.stale)) }},
		{"no module", 400, func(d setting) cuda.Result { return d.ModuleUnload(1) }},
		{"no graph", 400, func(d setting) cuda.Result { return d.GraphLaunch(12, d.stream) }},
		{"no function", 400, func(d setting) cuda.Result { return d.Launch(12, line(1), line(1), 0, d.stream, nil) }},
		{"empty grid", 1, func(d setting) cuda.Result { return launch(d, dim(0, 1, 1), line(32), 0) }},
		{"grid too high", 1, func(d setting) cuda.Result { return launch(d, dim(1, 65536, 1), line(32), 0) }},
		{"launch bounds", 1, func(d setting) cuda.Result { return launch(d, line(1), line(257), 0) }},
		{"block too large", 1, func(d setting) cuda.Result { return d.launch(d.stream, "nothing", line(1), dim(32, 33, 1)) }},
		{"block too deep", 1, func(d setting) cuda.Result { return d.launch(d.stream, "nothing", line(1), dim(1, 1, 65)) }},
		{"shared memory", 1, func(d setting) cuda.Result { return launch(d, line(1), line(32), 48<<10+1) }},
		{"elapsed without timing", 400, func(d setting) cuda.Result {
			e := d.newEvent()
			d.ok(d.EventRecord(e, d.stream))
			_, r := d.EventElapsed(e, e)
			return r
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := setting{device: open(t), host: unsafe.Pointer(&make([]byte, 200)[0])}
			d.x, d.y, d.stale = d.alloc(100), d.alloc(100), d.newStream()
			d.ok(d.StreamDestroy(d.stale))
			quietly(t, func() { d.want(c.want, c.f(d)) })
		})
	}
	d := setting{device: open(t)}
	d.x = d.alloc(100)
	d.ok(launch(d, line(1), line(256), 48<<10))
	d.ok(d.StreamSync(d.stream))
	quietly(t, func() {
		_, r := d.MemAlloc(0)
		d.want(cuda.InvalidValue, r)
	})
	if _, r := d.DeviceAttribute(1, cuda.AttrMajor); r != 101 {
		t.Errorf("the second device: %v", r)
	}
}

func TestElapsed(t *testing.T) {
	d := open(t)
	inAllOrders(d, func(o uint32) {
		a, r := d.EventCreate(true)
		d.ok(r)
		b, r := d.EventCreate(true)
		d.ok(r)
		d.ok(d.EventRecord(a, d.stream))
		d.ok(d.EventRecord(b, d.stream))
		if o == 1 {
			_, r = d.EventElapsed(a, b)
			d.want(600, r) // not ready
		}
		d.ok(d.EventSync(b))
		ms, r := d.EventElapsed(a, b)
		d.ok(r)
		if !(ms >= 0) {
			t.Errorf("order %d: %v ms between two events", o, ms)
		}
	})
}

func TestDeviceProperties(t *testing.T) {
	d := open(t)
	name, r := d.DeviceName(0)
	d.ok(r)
	if name != "Onmart emulator (no GPU)" {
		t.Errorf("the name is %q", name)
	}
	got := map[cuda.Attribute]int{}
	for _, a := range []cuda.Attribute{cuda.AttrMajor, cuda.AttrMinor, cuda.AttrMultiprocessors, cuda.AttrMemoryBusBits, cuda.AttrL2Bytes} {
		got[a], r = d.DeviceAttribute(0, a)
		d.ok(r)
	}
	want := map[cuda.Attribute]int{cuda.AttrMajor: 7, cuda.AttrMinor: 5, cuda.AttrMultiprocessors: 30,
		cuda.AttrMemoryBusBits: 192, cuda.AttrL2Bytes: 3 << 20}
	if !maps.Equal(got, want) {
		t.Errorf("attributes %v, want %v", got, want)
	}
	if v, r := d.Version(); v != 11080 || r != cuda.Success {
		t.Errorf("version %d, %v", v, r)
	}
}

func TestLeaks(t *testing.T) {
	t.Setenv("ONMART_EMU_LEAKS", "1")
	d := open(t)
	before, err := Live(d.Driver)
	if err != nil {
		t.Fatal(err)
	}
	p := d.alloc(3<<20 + 5)
	h, r := d.HostAlloc(100)
	d.ok(r)
	d.newEvent()
	d.ok(d.launch(d.stream, "nothing", line(2), line(1)))
	after, err := Live(d.Driver)
	if err != nil {
		t.Fatal(err)
	}
	want := before
	want.Allocations, want.Bytes, want.HostAllocations, want.Events, want.Launches = before.Allocations+1, before.Bytes+3<<20+5,
		before.HostAllocations+1, before.Events+1, before.Launches+1
	if after != want {
		t.Errorf("live %+v, want %+v", after, want)
	}
	d.ok(d.MemFree(p))
	d.ok(d.HostFree(h))
	q := d.alloc(77)
	said := stderr(t, func() { d.ok(d.ContextRelease(0)) })
	if !strings.Contains(said, "leaked at the end of the context: 1 allocations of 77 bytes, 0 of pinned memory, "+
		"1 streams, 1 events, 1 modules, 0 graphs") {
		t.Errorf("the leak is reported as %q", said)
	}
	ctx, r := d.ContextRetain(0) // for the release when the test ends
	d.ok(r)
	d.ok(d.ContextSet(ctx))
	quietly(t, func() { d.want(cuda.InvalidValue, d.MemFree(q)) })
	stderr(t, func() { d.ok(d.ContextRelease(0)) })
	_, r = d.ContextRetain(0)
	d.ok(r)
}

func TestOutOfMemory(t *testing.T) {
	t.Setenv("ONMART_EMU_MEMORY", "100000")
	d := open(t)
	free, total, r := d.MemInfo()
	d.ok(r)
	if free != 100000 || total != 100000 {
		t.Fatalf("memory %d of %d, want 100000", free, total)
	}
	p := d.alloc(60000)
	_, r = d.MemAlloc(50000)
	d.want(cuda.OutOfMemory, r)
	d.alloc(40000)
	free, _, r = d.MemInfo()
	d.ok(r)
	if free != 0 {
		t.Errorf("%d bytes are free, want 0", free)
	}
	d.ok(d.MemFree(p))
	d.alloc(60000)
}

func TestPTX(t *testing.T) {
	good := ptx("increment", "nothing")
	for _, c := range []struct {
		name, old, new string
		want           cuda.Result
		log            string
	}{
		{"good", "", "", cuda.Success, `^$`},
		{"older version", ".version 7.8", ".version 6.3", cuda.Success, `^$`},
		{"newer version", ".version 7.8", ".version 8.0", cuda.UnsupportedPTX, `Unsupported .version 8.0; current version is '7.8'`},
		{"newer device", "sm_75", "sm_80", 209, `sm_80`},
		{"no version", ".version 7.8", "", cuda.InvalidPTX, `line 3; fatal   : Missing .version`},
		{"no target", ".target", ".tarjet", cuda.InvalidPTX, `Missing .target`},
		{"32 bits", ".address_size 64", ".address_size 32", cuda.InvalidPTX, `address size`},
		{"no code", good, "hello", cuda.InvalidPTX, `Missing .version`},
		{"empty", good, "", cuda.InvalidPTX, `Missing .version`},
		{"elf", good, "\x7fELF\x02\x01", 200, `cubin`},
		{"bodies run together", "ret;\n}\n\n.visible .entry nothing", "ret;", cuda.InvalidPTX, `line \d+; fatal`},
		{"brace lost", "\n}\n", "\n\n", cuda.InvalidPTX, `line \d+; fatal`},
		{"bracket lost", ".param .u32 increment_param_1\n)", ".param .u32 increment_param_1\n", cuda.InvalidPTX, `'\)' expected`},
		{"bad byte", "ret;", "r\x01t;", cuda.InvalidPTX, `non-ASCII`},
		{"bad statement", "ret;", "9et;", cuda.InvalidPTX, `near '9'`},
		{"twice", "nothing", "increment", cuda.InvalidPTX, `Duplicate definition of function 'increment'`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t)
			text := strings.Replace(good, c.old, c.new, -1)
			if c.name == "brace lost" {
				text = strings.Replace(good, c.old, c.new, 1)
			}
			m, log, r := d.ModuleLoad([]byte(text + "\x00"))
			d.want(c.want, r)
			if !regexp.MustCompile(c.log).MatchString(log) {
				t.Errorf("log %q, want %s", log, c.log)
			}
			if r == cuda.Success {
				d.ok(d.ModuleUnload(m))
			}
		})
	}
}

// TestTruncatedPTX wants an image that ends within an entry to be refused.
func TestTruncatedPTX(t *testing.T) {
	d := open(t)
	text := ptx("increment")
	for end := strings.Index(text, "increment"); end < strings.LastIndex(text, "}"); end++ {
		if _, log, r := d.ModuleLoad([]byte(text[:end] + "\x00")); r != cuda.InvalidPTX || log == "" {
			t.Errorf("an image that ends in %q: %v, log %q", text[max(0, end-20):end], r, log)
		}
	}
}

// TestFunctions wants entries of the PTX only, and of a PTX that was made from the sources that the emulator has.
func TestFunctions(t *testing.T) {
	for _, c := range []struct {
		name, old, new, function string
		want                     cuda.Result
		line                     string
	}{
		{"not in the PTX", "", "", "twice", cuda.NotFound, `^$`},
		{"not in the emulator", "increment", "unheard_of", "unheard_of", cuda.NotFound, `no such kernel was compiled into the emulator`},
		{"another parameter", ".u32 increment_param_1", ".u64 increment_param_1", "increment", 200, `another source.*sizes of parameters differ`},
		{"one parameter less", ".u64 increment_param_0,", "", "increment", 200, `PTX of increment is of another source`},
		{"other bounds", ".maxntid 256", ".maxntid 128", "increment", 200, `\.maxntid 128, the source 2 and __launch_bounds__ 256`},
		{"good", "", "", "increment", cuda.Success, `^$`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t)
			text := ptx("increment")
			if c.name == "one parameter less" {
				text = strings.Replace(text, "\t.param .u64 increment_param_0,\n", "", 1)
			}
			text = strings.ReplaceAll(text, c.old, c.new)
			m, log, r := d.ModuleLoad([]byte(text + "\x00"))
			if r != cuda.Success {
				t.Fatalf("%v: %s", r, log)
			}
			said := stderr(t, func() {
				_, r := d.ModuleFunction(m, c.function)
				d.want(c.want, r)
			})
			if !regexp.MustCompile(c.line).MatchString(said) {
				t.Errorf("stderr %q, want %s", said, c.line)
			}
			d.ok(d.ModuleUnload(m))
			quietly(t, func() {
				_, r := d.ModuleFunction(m, c.function)
				d.want(400, r)
			})
		})
	}
}

func TestSetOrder(t *testing.T) {
	d := open(t)
	d.order(5)
	if o, err := Order(d.Driver); o != 5 || err != nil {
		t.Errorf("order %d, %v, want 5", o, err)
	}
	if old, err := SetOrder(d.Driver, MaxOrder); old != 5 || err != nil {
		t.Errorf("the order was %d, %v, want 5", old, err)
	}
	if _, err := SetOrder(d.Driver, MaxOrder+1); err == nil {
		t.Error("an order that is too large is taken")
	}
	// Work that waits is finished before the order changes.
	d.order(1)
	x := put(d, fill[float32](1, elements))
	d.ok(d.onVector(d.stream, "increment", x))
	d.order(0)
	d.ok(d.onVector(d.stream, "twice", x))
	same(d, "twice", 0, get[float32](d, x, elements), fill[float32](4, elements))
}

// TestGoGoesOn wants Go's own handling of signals to be as it was: faults become panics, goroutines are
// preempted and collected while kernels run and fault.
func TestGoGoesOn(t *testing.T) {
	d := open(t)
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				stopped <- n
				return
			default:
				n += len(make([]byte, 1<<16))
			}
		}
	}()
	x := put(d, fill[float32](0, elements))
	for range 200 {
		d.ok(d.onVector(d.stream, "increment", x))
		runtime.GC()
	}
	same(d, "200 launches", 0, get[float32](d, x, elements), fill[float32](200, elements))
	quietly(t, func() { d.want(700, d.launch(d.stream, "read_at", line(1), line(1), x, x, int64(-1<<21))) })
	close(stop)
	<-stopped
	panicked := func() (v any) {
		defer func() { v = recover() }()
		var null *[100]int
		runtime.KeepAlive(null[3])
		return nil
	}()
	if err, ok := panicked.(runtime.Error); !ok || !strings.Contains(err.Error(), "nil pointer") {
		t.Errorf("a nil pointer gives %v, want Go's panic", panicked)
	}
}
