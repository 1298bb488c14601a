//go:build cu && !nocuda

package cuda

/*
#include <stdint.h>

// Of the driver's library, which gorgonia.org/cu links to.
extern int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
	unsigned shared, void *stream, void **params, void **extra);

static int launch(uintptr_t f, const unsigned *sizes, unsigned shared, uintptr_t stream, int n, uint64_t *values) {
	void *params[32];
	for (int i = 0; i < n; i++) params[i] = &values[i];
	return cuLaunchKernel((void *)f, sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5],
		shared, (void *)stream, params, 0);
}
*/
import "C"

import (
	"reflect"
	"runtime"
	"unsafe"

	"gorgonia.org/cu"
)

// gorgonia is the driver through gorgonia.org/cu, which is linked to libcuda and has called cuInit before
// main; where that failed the process has ended.
//
// Its handles are structs around one C pointer that is not exported. Ours are that pointer as a number, so
// they are converted by reinterpreting the struct; the arrays below do not compile where one is no longer
// of that size.
type gorgonia struct{}

var (
	_ [1]struct{} = [unsafe.Sizeof(cu.CUContext{}) / 8]struct{}{}
	_ [1]struct{} = [unsafe.Sizeof(cu.Module{}) / 8]struct{}{}
	_ [1]struct{} = [unsafe.Sizeof(cu.Function{}) / 8]struct{}{}
	_ [1]struct{} = [unsafe.Sizeof(cu.Stream{}) / 8]struct{}{}
	_ [1]struct{} = [unsafe.Sizeof(cu.Event{}) / 8]struct{}{}
)

// out is the number in a handle of cu, in the handle of cu with that number. What they hold is memory of C,
// which the garbage collector leaves alone.
func out[T any](handle T) uintptr { return *(*uintptr)(unsafe.Pointer(&handle)) }

func in[T any](number uintptr) (handle T) {
	*(*uintptr)(unsafe.Pointer(&handle)) = number
	return handle
}

func open(string, bool) (Driver, *unavailable) { return gorgonia{}, nil }

// lacks are what gorgonia.org/cu v0.9.6 does not export, by the call of ours that needs it.
var lacks = map[string]string{
	"HostAlloc":        "cuMemAllocHost (pinned host memory)",
	"HostFree":         "cuMemAllocHost (pinned host memory)",
	"CaptureBegin":     "cuStreamBeginCapture (stream capture)",
	"CaptureEnd":       "cuStreamEndCapture (stream capture)",
	"GraphInstantiate": "cuGraphInstantiate (graphs that can be launched)",
	"GraphLaunch":      "cuGraphLaunch (graphs that can be launched)",
}

// Lacks names what a call that answers NotSupported would need.
func (gorgonia) Lacks(call string) string {
	what, ok := lacks[call]
	if !ok {
		return ""
	}
	return "gorgonia.org/cu v0.9.6 has no " + what + "; the build without the tag cu has it"
}

// code is the CUresult inside an error of cu, whose type is not exported; Unknown for another.
func code(err error) Result {
	if err == nil {
		return Success
	}
	if v := reflect.ValueOf(err); v.CanInt() {
		return Result(v.Int())
	}
	return Unknown
}

func (gorgonia) Name() string { return "gorgonia.org/cu" }

func (gorgonia) Init() Result { return Success } // done, or we would not be here

func (gorgonia) Version() (int, Result) {
	v := cu.Version()
	if v < 0 {
		return 0, Unknown // cu drops the code
	}
	return v, Success
}

func (gorgonia) DeviceCount() (int, Result) {
	n, err := cu.NumDevices()
	return n, code(err)
}

func (gorgonia) DeviceName(ordinal int) (string, Result) {
	device, err := cu.GetDevice(ordinal)
	if err != nil {
		return "", code(err)
	}
	name, err := device.Name()
	return name, code(err)
}

func (gorgonia) DeviceMemory(ordinal int) (int64, Result) {
	device, err := cu.GetDevice(ordinal)
	if err != nil {
		return 0, code(err)
	}
	bytes, err := device.TotalMem()
	return bytes, code(err)
}

func (gorgonia) DeviceAttribute(ordinal int, a Attribute) (int, Result) {
	device, err := cu.GetDevice(ordinal)
	if err != nil {
		return 0, code(err)
	}
	v, err := device.Attribute(cu.DeviceAttribute(a))
	return v, code(err)
}

func (gorgonia) ContextRetain(ordinal int) (Context, Result) {
	device, err := cu.GetDevice(ordinal)
	if err != nil {
		return 0, code(err)
	}
	c, err := device.RetainPrimaryCtx()
	return Context(out(c)), code(err)
}

func (gorgonia) ContextRelease(ordinal int) Result {
	device, err := cu.GetDevice(ordinal)
	if err != nil {
		return code(err)
	}
	return code(device.ReleasePrimaryCtx())
}

func (gorgonia) ContextSet(c Context) Result {
	return code(cu.SetCurrentContext(in[cu.CUContext](uintptr(c))))
}

func (gorgonia) ContextCurrent() (Context, Result) {
	c, err := cu.CurrentContext()
	return Context(out(c)), code(err)
}

func (gorgonia) MemInfo() (free, total int64, r Result) {
	free, total, err := cu.MemInfo()
	return free, total, code(err)
}

func (gorgonia) MemAlloc(bytes int64) (DevicePtr, Result) {
	p, err := cu.MemAlloc(bytes)
	return DevicePtr(p), code(err)
}

func (gorgonia) MemFree(p DevicePtr) Result { return code(cu.MemFree(cu.DevicePtr(p))) }

func (gorgonia) HostAlloc(int64) (unsafe.Pointer, Result) { return nil, NotSupported }
func (gorgonia) HostFree(unsafe.Pointer) Result           { return NotSupported }

func stream(s StreamID) cu.Stream { return in[cu.Stream](uintptr(s)) }
func event(e EventID) cu.Event    { return in[cu.Event](uintptr(e)) }

func (gorgonia) CopyToDevice(dst DevicePtr, src unsafe.Pointer, bytes int64, s StreamID) Result {
	return code(cu.MemcpyHtoDAsync(cu.DevicePtr(dst), src, bytes, stream(s)))
}

func (gorgonia) CopyToHost(dst unsafe.Pointer, src DevicePtr, bytes int64, s StreamID) Result {
	return code(cu.MemcpyDtoHAsync(dst, cu.DevicePtr(src), bytes, stream(s)))
}

func (gorgonia) CopyOnDevice(dst, src DevicePtr, bytes int64, s StreamID) Result {
	return code(cu.MemcpyDtoDAsync(cu.DevicePtr(dst), cu.DevicePtr(src), bytes, stream(s)))
}

func (gorgonia) Fill32(dst DevicePtr, value uint32, count int64, s StreamID) Result {
	return code(cu.MemsetD32Async(cu.DevicePtr(dst), uint(value), count, stream(s)))
}

func (gorgonia) StreamCreate() (StreamID, Result) {
	s, err := cu.MakeStream(cu.NonBlocking)
	return StreamID(out(s)), code(err)
}

func (gorgonia) StreamDestroy(s StreamID) Result {
	h := stream(s)
	return code(h.Destroy())
}

func (gorgonia) StreamSync(s StreamID) Result { return code(stream(s).Synchronize()) }

func (gorgonia) StreamWait(s StreamID, e EventID) Result { return code(stream(s).Wait(event(e), 0)) }

func (gorgonia) EventCreate(timing bool) (EventID, Result) {
	flags := cu.DisableTiming
	if timing {
		flags = cu.DefaultEvent
	}
	e, err := cu.MakeEvent(flags)
	return EventID(out(e)), code(err)
}

func (gorgonia) EventDestroy(e EventID) Result {
	h := event(e)
	return code(cu.DestroyEvent(&h))
}

func (gorgonia) EventRecord(e EventID, s StreamID) Result { return code(event(e).Record(stream(s))) }
func (gorgonia) EventSync(e EventID) Result               { return code(event(e).Synchronize()) }

func (gorgonia) EventElapsed(from, to EventID) (float32, Result) {
	ms, err := event(from).Elapsed(event(to))
	return float32(ms), code(err)
}

// ModuleLoad hands cu a log of Go memory. cu puts its address among the option values that it passes to C,
// which cgo allows for pinned memory only.
func (gorgonia) ModuleLoad(image []byte) (Module, string, Result) {
	var pin runtime.Pinner
	defer pin.Unpin()
	log := make([]byte, logBytes)
	pin.Pin(&log[0])
	text := untilZero(image) // cu appends the zero byte
	m, err := cu.LoadDataEx(text, &cu.JITErrorLogBuffer{Buffer: log})
	return Module(out(m)), untilZero(log), code(err)
}

func (gorgonia) ModuleUnload(m Module) Result { return code(in[cu.Module](uintptr(m)).Unload()) }

func (gorgonia) ModuleFunction(m Module, name string) (Function, Result) {
	f, err := in[cu.Module](uintptr(m)).Function(name)
	return Function(out(f)), code(err)
}

var _ [32 - maxArgs]struct{} // launch has room for so many

// Launch is not cu's, which writes Go pointers into fresh memory of C: while the collector marks, it takes what that
// memory held before for a pointer too, and where that was an old address of the Go heap the process ends with
// "found pointer to free object". Parameters lie in 8 bytes each, see Args.
func (gorgonia) Launch(fn Function, grid, block Dim, shared uint32, s StreamID, params []unsafe.Pointer) Result {
	sizes := [6]C.uint{C.uint(grid.X), C.uint(grid.Y), C.uint(grid.Z), C.uint(block.X), C.uint(block.Y), C.uint(block.Z)}
	var values [maxArgs]C.uint64_t
	for i, p := range params {
		values[i] = *(*C.uint64_t)(p)
	}
	return Result(C.launch(C.uintptr_t(fn), &sizes[0], C.uint(shared), C.uintptr_t(s), C.int(len(params)), &values[0]))
}

func (gorgonia) CaptureBegin(StreamID) Result                 { return NotSupported }
func (gorgonia) CaptureEnd(StreamID) (GraphID, Result)        { return 0, NotSupported }
func (gorgonia) GraphInstantiate(GraphID) (GraphExec, Result) { return 0, NotSupported }
func (gorgonia) GraphDestroy(GraphID) Result                  { return NotSupported }
func (gorgonia) GraphLaunch(GraphExec, StreamID) Result       { return NotSupported }
func (gorgonia) GraphExecDestroy(GraphExec) Result            { return NotSupported }
