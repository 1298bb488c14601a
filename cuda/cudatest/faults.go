// Package cudatest makes CUDA drivers for tests: a wrapper that injects faults into any driver, the host
// emulation and a real libcuda alike, counts and logs its calls and finds what was not given back; and a small
// driver in Go (Fake), for tests of everything but kernels.
//
// What enters: a cuda.Driver and a list of faults. What leaves: a cuda.Driver, for cuda.Options.Driver. It may
// not be assumed that a fault looks like hardware's in all: here a lost device fails every later call at once.
package cudatest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/onmart/onmart/cuda"
)

// Call names a method of cuda.Driver.
type Call string

// The calls that can be made to fail, and are counted and logged.
const (
	Init             Call = "Init"
	Version          Call = "Version"
	DeviceCount      Call = "DeviceCount"
	DeviceName       Call = "DeviceName"
	DeviceMemory     Call = "DeviceMemory"
	DeviceAttribute  Call = "DeviceAttribute"
	ContextRetain    Call = "ContextRetain"
	ContextRelease   Call = "ContextRelease"
	ContextSet       Call = "ContextSet"
	ContextCurrent   Call = "ContextCurrent"
	MemInfo          Call = "MemInfo"
	MemAlloc         Call = "MemAlloc"
	MemFree          Call = "MemFree"
	HostAlloc        Call = "HostAlloc"
	HostFree         Call = "HostFree"
	CopyToDevice     Call = "CopyToDevice"
	CopyToHost       Call = "CopyToHost"
	CopyOnDevice     Call = "CopyOnDevice"
	Fill32           Call = "Fill32"
	StreamCreate     Call = "StreamCreate"
	StreamDestroy    Call = "StreamDestroy"
	StreamSync       Call = "StreamSync"
	StreamWait       Call = "StreamWait"
	EventCreate      Call = "EventCreate"
	EventDestroy     Call = "EventDestroy"
	EventRecord      Call = "EventRecord"
	EventSync        Call = "EventSync"
	EventElapsed     Call = "EventElapsed"
	ModuleLoad       Call = "ModuleLoad"
	ModuleUnload     Call = "ModuleUnload"
	ModuleFunction   Call = "ModuleFunction"
	Launch           Call = "Launch"
	CaptureBegin     Call = "CaptureBegin"
	CaptureEnd       Call = "CaptureEnd"
	GraphInstantiate Call = "GraphInstantiate"
	GraphDestroy     Call = "GraphDestroy"
	GraphLaunch      Call = "GraphLaunch"
	GraphExecDestroy Call = "GraphExecDestroy"
)

// How says what a fault does after its first time.
type How int

const (
	// Once: only that call fails.
	Once How = iota
	// Onwards: that call and every later one of its kind fail.
	Onwards
	// Lost: that call and every later one that uses the device fail with the same code.
	Lost
	// LostLater is Lost as kernels' faults are: that call is left out and answers Success; the later ones fail.
	LostLater
)

// fault is one that was asked for.
type fault struct {
	call Call
	left int // calls of its kind until it strikes; at 0 it does
	code cuda.Result
	how  How
	over bool
}

// Driver is a driver with faults. It may be used from several threads, as the one inside may.
type Driver struct {
	inner cuda.Driver

	mu      sync.Mutex
	faults  []*fault
	lost    cuda.Result // Success while the device is not
	version int         // to claim; 0 is the inner driver's
	flips   int         // bytes of a module to change
	random  *rand.Rand
	counts  map[Call]int
	log     []Entry
	live    map[string]map[uint64]int64 // kind, handle: bytes, or how often retained
	peak    int64
}

// Entry is a call as it was answered.
type Entry struct {
	Call   Call
	Args   string
	Result cuda.Result
}

func (e Entry) String() string { return fmt.Sprintf("%s(%s): %s", e.Call, e.Args, e.Result.Name()) }

// logLimit is how many of the last calls are kept.
const logLimit = 1 << 14

// Wrap returns the driver, without faults so far.
func Wrap(inner cuda.Driver) *Driver {
	return &Driver{inner: inner, counts: map[Call]int{}, live: map[string]map[uint64]int64{}}
}

// Fail makes the n-th call of that kind from now on (1 is the next) answer code. Some that are asked for often:
//
//	d.Fail(cudatest.Init, 1, cuda.NoDevice, cudatest.Onwards)       // a driver without a device
//	d.Fail(cudatest.MemAlloc, n, cuda.OutOfMemory, cudatest.Once)    // a neighbour takes memory and gives it back
//	d.Fail(cudatest.Launch, n, cuda.OutOfResources, cudatest.Once)   // a launch is refused
//	d.Fail(cudatest.GraphLaunch, n, cuda.LaunchFailed, cudatest.LostLater) // a kernel faults in the middle of a run
//	d.Fail(cudatest.StreamSync, n, cuda.Unknown, cudatest.Lost)      // the device falls off the bus
//	d.Fail(cudatest.ModuleLoad, 1, cuda.InvalidPTX, cudatest.Onwards) // damaged PTX
//
// A machine without a driver library is cuda.Options{Library: "a path that is not there"}. An n below 1 panics.
func (d *Driver) Fail(call Call, n int, code cuda.Result, how How) {
	if n < 1 || code == cuda.Success {
		panic(fmt.Sprintf("cudatest: Fail(%s, %d, %s): calls are counted from 1, and a fault is no success", call, n, code.Name()))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, &fault{call: call, left: n, code: code, how: how})
}

// Old makes the driver claim to serve no newer CUDA than version (1000*major + 10*minor), and refuse newer PTX
// as such a driver does. PTX of version 7.8 came with CUDA 11.8, 8.0 with 12.0, and so on.
func (d *Driver) Old(version int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.version = version
}

// Corrupt flips a bit in so many bytes of every module that is loaded from now on, chosen by seed.
func (d *Driver) Corrupt(bytes int, seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flips, d.random = bytes, rand.New(rand.NewPCG(seed, 0))
}

// Count is how often a call was made.
func (d *Driver) Count(call Call) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts[call]
}

// Log returns the last calls, oldest first, 16384 at most.
func (d *Driver) Log() []Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

// Live is how many of a kind are not given back: "memory", "host", "stream", "event", "module", "graph",
// "graph exec", "context".
func (d *Driver) Live(kind string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.live[kind])
}

// PeakBytes is the most device memory that was allocated at once.
func (d *Driver) PeakBytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peak
}

// Leaks is an error that lists what was made and not given back, nil when that is nothing. It is to be asked
// after the device was closed.
func (d *Driver) Leaks() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var parts []string
	for _, kind := range []string{"memory", "host", "stream", "event", "module", "graph", "graph exec", "context"} {
		var sum int64
		for _, n := range d.live[kind] {
			sum += n
		}
		switch n := len(d.live[kind]); {
		case n == 0:
		case kind == "memory" || kind == "host":
			parts = append(parts, fmt.Sprintf("%d %s (%d bytes)", n, kind, sum))
		default:
			parts = append(parts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return fmt.Errorf("cudatest: not given back: %s", strings.Join(parts, ", "))
}

// strike counts a call and says whether it fails here. done: it is answered so and the inner driver is not
// asked.
func (d *Driver) strike(call Call) (code cuda.Result, done bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts[call]++
	if d.lost != cuda.Success && usesDevice(call) {
		return d.lost, true
	}
	var struck *fault
	for _, f := range d.faults { // all of them count the call, the first that strikes answers it
		if f.call != call || f.over {
			continue
		}
		if f.left--; f.left > 0 {
			continue
		}
		if f.left, f.over = 1, f.how != Onwards; struck == nil {
			struck = f
		}
	}
	if struck == nil {
		return cuda.Success, false
	}
	switch struck.how {
	case Lost:
		d.lost = struck.code
	case LostLater:
		d.lost = struck.code
		return cuda.Success, true
	}
	return struck.code, true
}

// usesDevice tells whether a call fails on a device that is lost: all that need its context.
func usesDevice(call Call) bool {
	switch call {
	case Init, Version, DeviceCount, DeviceName, DeviceMemory, DeviceAttribute, ContextRelease, ContextSet, ContextCurrent:
		return false
	}
	return true
}

// note writes a call to the log.
func (d *Driver) note(call Call, code cuda.Result, args ...any) cuda.Result {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = fmt.Sprint(a)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.log) == logLimit {
		d.log = slices.Delete(d.log, 0, logLimit/2)
	}
	d.log = append(d.log, Entry{call, strings.Join(words, ", "), code})
	return code
}

// plain is a call that makes and frees nothing.
func (d *Driver) plain(call Call, do func() cuda.Result, args ...any) cuda.Result {
	code, done := d.strike(call)
	if !done {
		code = do()
	}
	return d.note(call, code, args...)
}

// wait is a call that waits for the device. It waits also where the device is lost: until then copies may
// still write into memory of the test.
func (d *Driver) wait(call Call, do func() cuda.Result, handle uint64) cuda.Result {
	fault, done := d.strike(call)
	code := do()
	if done {
		code = fault
	}
	return d.note(call, code, fmt.Sprintf("%#x", handle))
}

// made notes a thing that was made.
func (d *Driver) made(kind string, handle uint64, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live[kind] == nil {
		d.live[kind] = map[uint64]int64{}
	}
	d.live[kind][handle] = bytes
	if kind == "memory" {
		var sum int64
		for _, n := range d.live[kind] {
			sum += n
		}
		d.peak = max(d.peak, sum)
	}
}

// gone is a call that gives a thing back. The inner driver is asked also where the device is lost, or a test
// would leak what hardware does not, and only the answer is the fault's. What an inner driver that is lost
// itself refuses to take back counts as given back.
func (d *Driver) gone(call Call, kind string, handle uint64, do func() cuda.Result) cuda.Result {
	fault, done := d.strike(call)
	code := cuda.Success
	d.mu.Lock()
	lost := d.lost != cuda.Success
	d.mu.Unlock()
	if !done || lost {
		if code = do(); code == cuda.Success || code.Sticky() {
			d.mu.Lock()
			delete(d.live[kind], handle)
			d.mu.Unlock()
		}
	}
	if done {
		code = fault
	}
	return d.note(call, code, fmt.Sprintf("%#x", handle))
}

// Name is that of the inner driver.
func (d *Driver) Name() string { return d.inner.Name() }

// Lacks passes on what the inner driver's binding lacks, see cuda.Error.
func (d *Driver) Lacks(method string) string {
	if l, ok := d.inner.(interface{ Lacks(string) string }); ok {
		return l.Lacks(method)
	}
	return ""
}

func (d *Driver) Init() cuda.Result { return d.plain(Init, d.inner.Init) }

func (d *Driver) Version() (v int, r cuda.Result) {
	r = d.plain(Version, func() (code cuda.Result) { v, code = d.inner.Version(); return code })
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.version > 0 {
		v = min(v, d.version)
	}
	return v, r
}

func (d *Driver) DeviceCount() (n int, r cuda.Result) {
	r = d.plain(DeviceCount, func() (code cuda.Result) { n, code = d.inner.DeviceCount(); return code })
	return n, r
}

func (d *Driver) DeviceName(ordinal int) (name string, r cuda.Result) {
	r = d.plain(DeviceName, func() (code cuda.Result) { name, code = d.inner.DeviceName(ordinal); return code }, ordinal)
	return name, r
}

func (d *Driver) DeviceMemory(ordinal int) (bytes int64, r cuda.Result) {
	r = d.plain(DeviceMemory,
		func() (code cuda.Result) { bytes, code = d.inner.DeviceMemory(ordinal); return code }, ordinal)
	return bytes, r
}

func (d *Driver) DeviceAttribute(ordinal int, a cuda.Attribute) (v int, r cuda.Result) {
	r = d.plain(DeviceAttribute,
		func() (code cuda.Result) { v, code = d.inner.DeviceAttribute(ordinal, a); return code }, ordinal, int(a))
	return v, r
}

func (d *Driver) ContextRetain(ordinal int) (c cuda.Context, r cuda.Result) {
	r = d.plain(ContextRetain,
		func() (code cuda.Result) { c, code = d.inner.ContextRetain(ordinal); return code }, ordinal)
	if r == cuda.Success {
		d.mu.Lock()
		times := d.live["context"][uint64(ordinal)]
		d.mu.Unlock()
		d.made("context", uint64(ordinal), times+1)
	}
	return c, r
}

func (d *Driver) ContextRelease(ordinal int) cuda.Result {
	return d.plain(ContextRelease, func() cuda.Result {
		code := d.inner.ContextRelease(ordinal)
		if code == cuda.Success {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.live["context"][uint64(ordinal)]--; d.live["context"][uint64(ordinal)] == 0 {
				delete(d.live["context"], uint64(ordinal))
			}
		}
		return code
	}, ordinal)
}

func (d *Driver) ContextSet(c cuda.Context) cuda.Result {
	return d.plain(ContextSet, func() cuda.Result { return d.inner.ContextSet(c) }, uint64(c))
}

func (d *Driver) ContextCurrent() (c cuda.Context, r cuda.Result) {
	r = d.plain(ContextCurrent, func() (code cuda.Result) { c, code = d.inner.ContextCurrent(); return code })
	return c, r
}

func (d *Driver) MemInfo() (free, total int64, r cuda.Result) {
	r = d.plain(MemInfo, func() (code cuda.Result) { free, total, code = d.inner.MemInfo(); return code })
	return free, total, r
}

func (d *Driver) MemAlloc(bytes int64) (p cuda.DevicePtr, r cuda.Result) {
	r = d.plain(MemAlloc, func() (code cuda.Result) { p, code = d.inner.MemAlloc(bytes); return code }, bytes)
	if p != 0 {
		d.made("memory", uint64(p), bytes)
	}
	return p, r
}

func (d *Driver) MemFree(p cuda.DevicePtr) cuda.Result {
	return d.gone(MemFree, "memory", uint64(p), func() cuda.Result { return d.inner.MemFree(p) })
}

func (d *Driver) HostAlloc(bytes int64) (p unsafe.Pointer, r cuda.Result) {
	r = d.plain(HostAlloc, func() (code cuda.Result) { p, code = d.inner.HostAlloc(bytes); return code }, bytes)
	if p != nil {
		d.made("host", uint64(uintptr(p)), bytes)
	}
	return p, r
}

func (d *Driver) HostFree(p unsafe.Pointer) cuda.Result {
	return d.gone(HostFree, "host", uint64(uintptr(p)), func() cuda.Result { return d.inner.HostFree(p) })
}

func (d *Driver) CopyToDevice(dst cuda.DevicePtr, src unsafe.Pointer, bytes int64, s cuda.StreamID) cuda.Result {
	return d.plain(CopyToDevice,
		func() cuda.Result { return d.inner.CopyToDevice(dst, src, bytes, s) }, uint64(dst), bytes)
}

func (d *Driver) CopyToHost(dst unsafe.Pointer, src cuda.DevicePtr, bytes int64, s cuda.StreamID) cuda.Result {
	return d.plain(CopyToHost, func() cuda.Result { return d.inner.CopyToHost(dst, src, bytes, s) }, uint64(src), bytes)
}

func (d *Driver) CopyOnDevice(dst, src cuda.DevicePtr, bytes int64, s cuda.StreamID) cuda.Result {
	return d.plain(CopyOnDevice,
		func() cuda.Result { return d.inner.CopyOnDevice(dst, src, bytes, s) }, uint64(dst), uint64(src), bytes)
}

func (d *Driver) Fill32(dst cuda.DevicePtr, value uint32, count int64, s cuda.StreamID) cuda.Result {
	return d.plain(Fill32, func() cuda.Result { return d.inner.Fill32(dst, value, count, s) }, uint64(dst), value, count)
}

func (d *Driver) StreamCreate() (s cuda.StreamID, r cuda.Result) {
	r = d.plain(StreamCreate, func() (code cuda.Result) { s, code = d.inner.StreamCreate(); return code })
	if s != 0 {
		d.made("stream", uint64(s), 0)
	}
	return s, r
}

func (d *Driver) StreamDestroy(s cuda.StreamID) cuda.Result {
	return d.gone(StreamDestroy, "stream", uint64(s), func() cuda.Result { return d.inner.StreamDestroy(s) })
}

func (d *Driver) StreamSync(s cuda.StreamID) cuda.Result {
	return d.wait(StreamSync, func() cuda.Result { return d.inner.StreamSync(s) }, uint64(s))
}

func (d *Driver) StreamWait(s cuda.StreamID, e cuda.EventID) cuda.Result {
	return d.plain(StreamWait, func() cuda.Result { return d.inner.StreamWait(s, e) }, uint64(s), uint64(e))
}

func (d *Driver) EventCreate(timing bool) (e cuda.EventID, r cuda.Result) {
	r = d.plain(EventCreate, func() (code cuda.Result) { e, code = d.inner.EventCreate(timing); return code }, timing)
	if e != 0 {
		d.made("event", uint64(e), 0)
	}
	return e, r
}

func (d *Driver) EventDestroy(e cuda.EventID) cuda.Result {
	return d.gone(EventDestroy, "event", uint64(e), func() cuda.Result { return d.inner.EventDestroy(e) })
}

func (d *Driver) EventRecord(e cuda.EventID, s cuda.StreamID) cuda.Result {
	return d.plain(EventRecord, func() cuda.Result { return d.inner.EventRecord(e, s) }, uint64(e), uint64(s))
}

func (d *Driver) EventSync(e cuda.EventID) cuda.Result {
	return d.wait(EventSync, func() cuda.Result { return d.inner.EventSync(e) }, uint64(e))
}

func (d *Driver) EventElapsed(from, to cuda.EventID) (ms float32, r cuda.Result) {
	r = d.plain(EventElapsed,
		func() (code cuda.Result) { ms, code = d.inner.EventElapsed(from, to); return code }, uint64(from), uint64(to))
	return ms, r
}

func (d *Driver) ModuleLoad(image []byte) (m cuda.Module, log string, r cuda.Result) {
	image, tooNew := d.damage(image)
	r = d.plain(ModuleLoad, func() (code cuda.Result) {
		if tooNew {
			return cuda.UnsupportedPTX
		}
		m, log, code = d.inner.ModuleLoad(image)
		return code
	}, len(image))
	if m != 0 {
		d.made("module", uint64(m), 0)
	}
	return m, log, r
}

// damage returns the image as Corrupt has it, and whether it is too new for the version that Old claims.
func (d *Driver) damage(image []byte) (_ []byte, tooNew bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.version > 0 {
		if isa, ok := ptxVersion(image); ok && isa > newestPTX(d.version) {
			tooNew = true
		}
	}
	if d.flips > 0 && len(image) > 1 {
		image = slices.Clone(image)
		for range d.flips {
			image[d.random.IntN(len(image)-1)] ^= 0x80 // all bytes but the zero at the end; PTX has no such byte
		}
	}
	return image, tooNew
}

// ptxVersion is the .version of PTX as 10*major + minor.
func ptxVersion(image []byte) (int, bool) {
	_, rest, ok := strings.Cut(string(image), ".version")
	var major, minor int
	if !ok {
		return 0, false
	}
	if _, err := fmt.Sscanf(strings.TrimSpace(rest), "%d.%d", &major, &minor); err != nil {
		return 0, false
	}
	return 10*major + minor, true
}

// newestPTX is the newest PTX that came with a version of CUDA: 7.N with 11.N, 8.N with 12.N up to 12.5, one
// less from 12.6 (which brought no new one) on, 9.N with 13.N.
func newestPTX(version int) int {
	major, minor := version/1000, version%1000/10
	if major == 12 && minor >= 6 {
		minor--
	}
	return 10*(major-4) + minor
}

func (d *Driver) ModuleUnload(m cuda.Module) cuda.Result {
	return d.gone(ModuleUnload, "module", uint64(m), func() cuda.Result { return d.inner.ModuleUnload(m) })
}

func (d *Driver) ModuleFunction(m cuda.Module, name string) (f cuda.Function, r cuda.Result) {
	r = d.plain(ModuleFunction,
		func() (code cuda.Result) { f, code = d.inner.ModuleFunction(m, name); return code }, name)
	return f, r
}

func (d *Driver) Launch(f cuda.Function, grid, block cuda.Dim,
	shared uint32, s cuda.StreamID, params []unsafe.Pointer) cuda.Result {
	return d.plain(Launch,
		func() cuda.Result { return d.inner.Launch(f, grid, block, shared, s, params) }, uint64(f), grid, block, shared)
}

func (d *Driver) CaptureBegin(s cuda.StreamID) cuda.Result {
	return d.plain(CaptureBegin, func() cuda.Result { return d.inner.CaptureBegin(s) }, uint64(s))
}

// CaptureEnd asks the inner driver in any case, or its stream would stay in capture.
func (d *Driver) CaptureEnd(s cuda.StreamID) (g cuda.GraphID, r cuda.Result) {
	fault, done := d.strike(CaptureEnd)
	g, r = d.inner.CaptureEnd(s)
	if g != 0 {
		d.made("graph", uint64(g), 0)
	}
	if done {
		r = fault
	}
	return g, d.note(CaptureEnd, r, uint64(s))
}

func (d *Driver) GraphInstantiate(g cuda.GraphID) (x cuda.GraphExec, r cuda.Result) {
	r = d.plain(GraphInstantiate,
		func() (code cuda.Result) { x, code = d.inner.GraphInstantiate(g); return code }, uint64(g))
	if x != 0 {
		d.made("graph exec", uint64(x), 0)
	}
	return x, r
}

func (d *Driver) GraphDestroy(g cuda.GraphID) cuda.Result {
	return d.gone(GraphDestroy, "graph", uint64(g), func() cuda.Result { return d.inner.GraphDestroy(g) })
}

func (d *Driver) GraphLaunch(x cuda.GraphExec, s cuda.StreamID) cuda.Result {
	return d.plain(GraphLaunch, func() cuda.Result { return d.inner.GraphLaunch(x, s) }, uint64(x), uint64(s))
}

func (d *Driver) GraphExecDestroy(x cuda.GraphExec) cuda.Result {
	return d.gone(GraphExecDestroy, "graph exec", uint64(x), func() cuda.Result { return d.inner.GraphExecDestroy(x) })
}
