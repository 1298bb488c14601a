package cuda

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Options of Open and Probe; the zero value takes this machine's driver and its first device.
type Options struct {
	// Library is the driver library to open; "" takes $ONMART_LIBCUDA, and where that is unset the
	// system's libcuda.so.1, also in WSL's place. The build with the tag cu is linked to its library and
	// does not look here.
	Library string
	// Driver is used instead of opening a library.
	Driver Driver
	// Ordinal is the device's number, from 0, as Probe numbers them.
	Ordinal int
	// MemoryLimit is how many bytes the Device takes from the driver at most; 0 is no limit.
	MemoryLimit int64
	// NoCache makes every Alloc an allocation of the driver's own of just that size, so that a driver that
	// guards its allocations (the emulation, compute-sanitizer) sees an access past the end of one.
	NoCache bool
}

func (o Options) library() string {
	if o.Library == "" {
		return os.Getenv(LibraryVariable)
	}
	return o.Library
}

// OpenDriver opens the driver library of that name; "" is as in Options.Library. The error says why there is
// none, and what to do.
func OpenDriver(library string) (Driver, error) {
	d, missing := open(Options{Library: library}.library(), true)
	if missing != nil {
		return nil, missing
	}
	return d, nil
}

// Device is one GPU with its primary context.
type Device struct {
	driver  Driver
	version int // of CUDA, as Driver.Version has it
	info    DeviceInfo
	context Context
	closed  atomic.Bool
	lost    atomic.Int32 // the first sticky code that was seen, 0 while there is none

	mu    sync.Mutex // of what follows
	arena *arena
	hosts map[*Host]struct{} // pinned and not freed
	open  map[string]int     // what was made and is not closed, by kind
}

// Open opens a device that Probe calls usable. The error says why there is none and what to do, as the
// Report does. The device stays in use by the process until Close.
func Open(o Options) (*Device, error) {
	if o.MemoryLimit < 0 {
		return nil, fmt.Errorf("cuda: a memory limit of %d bytes; give a positive one, or 0 for none", o.MemoryLimit)
	}
	d := o.Driver
	if d == nil {
		var err error
		if d, err = OpenDriver(o.Library); err != nil {
			return nil, err
		}
	}
	r := ask(d)
	info, err := r.device(o.Ordinal)
	if err != nil {
		return nil, err
	}
	version, _ := d.Version()
	dev := &Device{driver: d, version: version, info: info,
		hosts: map[*Host]struct{}{}, open: map[string]int{}}
	dev.arena = &arena{alloc: d.MemAlloc, free: d.MemFree, limit: o.MemoryLimit, exact: o.NoCache}
	context, code := d.ContextRetain(o.Ordinal)
	if code != Success {
		return nil, dev.fail(fmt.Sprintf("cuDevicePrimaryCtxRetain of cuda:%d (%s)", o.Ordinal, info.Name), code, "")
	}
	dev.context = context
	return dev, nil
}

// device picks one of a report, or says why it cannot be used.
func (r Report) device(ordinal int) (DeviceInfo, error) {
	switch {
	case r.State != Ready:
		return DeviceInfo{}, &unavailable{state: r.State, library: r.Library, code: r.code, reason: r.Reason, remedy: r.Remedy}
	case ordinal < 0 || ordinal >= len(r.Devices):
		return DeviceInfo{}, &unavailable{state: NotUsable, code: InvalidDevice,
			reason: fmt.Sprintf("there is no cuda:%d, the driver shows %d", ordinal, len(r.Devices)),
			remedy: fmt.Sprintf("name cuda:N with N below %d", len(r.Devices))}
	case !r.Devices[ordinal].Usable:
		return DeviceInfo{}, &unavailable{state: NotUsable,
			reason: fmt.Sprintf("cuda:%d cannot be used: %s", ordinal, r.Devices[ordinal].Reason), remedy: unusableRemedy}
	}
	return r.Devices[ordinal], nil
}

// Info describes the device.
func (d *Device) Info() DeviceInfo { return d.info }

// Capability is the compute capability as one number: 75 is 7.5.
func (d *Device) Capability() int {
	n, err := strconv.Atoi(strings.Replace(d.info.Capability, ".", "", 1))
	if err != nil {
		panic("cuda: compute capability " + d.info.Capability) // we made that text
	}
	return n
}

// Driver is what the device is reached through.
func (d *Device) Driver() Driver { return d.driver }

// Do runs f on an OS thread of its own on which the device's context is current, and returns f's error. Do
// may be called in f again, also of another device: each sets its context and puts back the one that was
// there. f must not hand its work to other goroutines, for they run on other threads; those call Do
// themselves.
func (d *Device) Do(f func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if d.closed.Load() {
		return fmt.Errorf("cuda: cuda:%d was closed", d.info.Index)
	}
	before, code := d.driver.ContextCurrent()
	if code != Success {
		return d.fail("cuCtxGetCurrent", code, "")
	}
	if before != d.context {
		if code := d.driver.ContextSet(d.context); code != Success {
			return d.fail("cuCtxSetCurrent", code, "")
		}
		defer func() {
			if code := d.driver.ContextSet(before); code != Success {
				err = errors.Join(err, d.fail("cuCtxSetCurrent", code, ""))
			}
		}()
	}
	return f()
}

// Close gives all memory back and leaves the device. Streams, events, graphs, modules and memory that were
// not closed before are named in the error; those of the driver's own that are lost with the context need
// no closing after it. On a device that was lost what can be given back is, and no error says again that the
// rest cannot. Host memory must not be touched after it. Closing twice does nothing.
func (d *Device) Close() error {
	if d.closed.Load() {
		return nil
	}
	var errs []error
	err := d.Do(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if left := d.left(); left != "" && d.lost.Load() == 0 {
			errs = append(errs, fmt.Errorf("cuda: closing cuda:%d with %s still open", d.info.Index, left))
		}
		if code := d.arena.drop(); code != Success {
			errs = append(errs, d.fail("cuMemFree", code, ""))
		}
		for h := range d.hosts {
			if code := d.driver.HostFree(h.address); code != Success {
				errs = append(errs, d.fail("cuMemFreeHost", code, ""))
			}
			h.address, h.bytes = nil, 0
		}
		clear(d.hosts)
		return nil
	})
	errs = append(errs, err)
	d.closed.Store(true)
	if code := d.driver.ContextRelease(d.info.Index); code != Success {
		errs = append(errs, d.fail("cuDevicePrimaryCtxRelease", code, ""))
	}
	if d.lost.Load() != 0 {
		return nil
	}
	return errors.Join(errs...)
}

// left lists what is still open, for people.
func (d *Device) left() string {
	var parts []string
	for _, kind := range []string{"memory", "pinned memory", "stream", "event", "module", "graph"} {
		if n := d.open[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	return strings.Join(parts, ", ")
}

// count notes that one more (or less) of a kind is open.
func (d *Device) count(kind string, by int) {
	d.mu.Lock()
	d.open[kind] += by
	d.mu.Unlock()
}

// fail makes the error of a call and remembers that the device is lost if it says so.
func (d *Device) fail(call string, code Result, detail string) *Error {
	if code.Sticky() {
		d.lost.CompareAndSwap(0, int32(code))
	}
	switch code {
	case InvalidContext:
		detail = join(detail, "call it inside Device.Do")
	case CaptureUnsupported:
		detail = join(detail, "do it before Stream.Capture")
	}
	return &Error{Call: call, Code: code, Detail: detail}
}

// unsupported is fail with what the driver's binding lacks, where it is that.
func (d *Device) unsupported(method, call string, code Result) *Error {
	detail := ""
	if l, ok := d.driver.(interface{ Lacks(method string) string }); ok && code == NotSupported {
		detail = l.Lacks(method)
	}
	return d.fail(call, code, detail)
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// MemInfo is the device's free and total memory in bytes, of all processes.
func (d *Device) MemInfo() (free, total int64, err error) {
	free, total, code := d.driver.MemInfo()
	if code != Success {
		return 0, 0, d.fail("cuMemGetInfo", code, "")
	}
	return free, total, nil
}
