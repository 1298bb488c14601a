//go:build (linux || darwin) && !nocuda && !cu

package cuda

import (
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Indexes of symbols. The first probeSymbols are all that Probe needs.
const (
	cuInit = iota
	cuDriverGetVersion
	cuDeviceGetCount
	cuDeviceGet
	cuDeviceGetName
	cuDeviceTotalMem
	cuDeviceGetAttribute
	cuDevicePrimaryCtxRetain
	cuDevicePrimaryCtxRelease
	cuCtxSetCurrent
	cuCtxGetCurrent
	cuMemGetInfo
	cuMemAlloc
	cuMemFree
	cuMemAllocHost
	cuMemFreeHost
	cuMemcpyHtoDAsync
	cuMemcpyDtoHAsync
	cuMemcpyDtoDAsync
	cuMemsetD32Async
	cuStreamCreate
	cuStreamDestroy
	cuStreamSynchronize
	cuStreamWaitEvent
	cuEventCreate
	cuEventDestroy
	cuEventRecord
	cuEventSynchronize
	cuEventElapsedTime
	cuModuleLoadDataEx
	cuModuleUnload
	cuModuleGetFunction
	cuLaunchKernel
	cuStreamBeginCapture
	cuStreamEndCapture
	cuGraphInstantiate
	cuGraphDestroy
	cuGraphLaunch
	cuGraphExecDestroy
	allSymbols

	probeSymbols = cuDeviceGetAttribute + 1
)

// symbols are the names in the library, with the versions that the macros of cuda.h choose from 11.8 to
// 12.9. It is not written to.
var symbols = [allSymbols]string{
	cuInit:                    "cuInit",
	cuDriverGetVersion:        "cuDriverGetVersion",
	cuDeviceGetCount:          "cuDeviceGetCount",
	cuDeviceGet:               "cuDeviceGet",
	cuDeviceGetName:           "cuDeviceGetName",
	cuDeviceTotalMem:          "cuDeviceTotalMem_v2",
	cuDeviceGetAttribute:      "cuDeviceGetAttribute",
	cuDevicePrimaryCtxRetain:  "cuDevicePrimaryCtxRetain",
	cuDevicePrimaryCtxRelease: "cuDevicePrimaryCtxRelease_v2",
	cuCtxSetCurrent:           "cuCtxSetCurrent",
	cuCtxGetCurrent:           "cuCtxGetCurrent",
	cuMemGetInfo:              "cuMemGetInfo_v2",
	cuMemAlloc:                "cuMemAlloc_v2",
	cuMemFree:                 "cuMemFree_v2",
	cuMemAllocHost:            "cuMemAllocHost_v2",
	cuMemFreeHost:             "cuMemFreeHost",
	cuMemcpyHtoDAsync:         "cuMemcpyHtoDAsync_v2",
	cuMemcpyDtoHAsync:         "cuMemcpyDtoHAsync_v2",
	cuMemcpyDtoDAsync:         "cuMemcpyDtoDAsync_v2",
	cuMemsetD32Async:          "cuMemsetD32Async",
	cuStreamCreate:            "cuStreamCreate",
	cuStreamDestroy:           "cuStreamDestroy_v2",
	cuStreamSynchronize:       "cuStreamSynchronize",
	cuStreamWaitEvent:         "cuStreamWaitEvent",
	cuEventCreate:             "cuEventCreate",
	cuEventDestroy:            "cuEventDestroy_v2",
	cuEventRecord:             "cuEventRecord",
	cuEventSynchronize:        "cuEventSynchronize",
	cuEventElapsedTime:        "cuEventElapsedTime",
	cuModuleLoadDataEx:        "cuModuleLoadDataEx",
	cuModuleUnload:            "cuModuleUnload",
	cuModuleGetFunction:       "cuModuleGetFunction",
	cuLaunchKernel:            "cuLaunchKernel",
	cuStreamBeginCapture:      "cuStreamBeginCapture_v2",
	cuStreamEndCapture:        "cuStreamEndCapture",
	cuGraphInstantiate:        "cuGraphInstantiateWithFlags",
	cuGraphDestroy:            "cuGraphDestroy",
	cuGraphLaunch:             "cuGraphLaunch",
	cuGraphExecDestroy:        "cuGraphExecDestroy",
}

// library is libcuda opened at run time.
type library struct {
	name    string
	address [allSymbols]uintptr
	frames  sync.Pool // of *frame
}

// frame is the memory of one call. It lies on the heap, where it stays put while C writes into it, and is
// used again, so that a call allocates nothing: SyscallN given arguments one by one allocates their slice.
type frame struct {
	args [11]uintptr // cuLaunchKernel has most
	// What the arguments point to: kept alive, and by being stored here off the stacks of goroutines, which
	// move when they grow.
	keep [3]unsafe.Pointer
	// What C writes: a handle, address or size, a second one, a C int or float, and host memory.
	word, word2 uint64
	small       int32
	float       float32
	host        unsafe.Pointer
}

func (l *library) begin() *frame {
	if f, ok := l.frames.Get().(*frame); ok {
		return f
	}
	return new(frame)
}

// end returns the frame to those that may be used again, without addresses: one that is host memory now may
// belong to another object by then, where the garbage collector must not find it.
func (l *library) end(f *frame) {
	f.keep, f.host = [3]unsafe.Pointer{}, nil
	f.word, f.word2, f.small, f.float = 0, 0, 0, 0
	l.frames.Put(f)
}

// call calls a symbol with the first n arguments of the frame. CUresult is a C enum: 32 bits of the register.
func (l *library) call(symbol int, f *frame, n int) Result {
	code, _, _ := purego.SyscallN(l.address[symbol], f.args[:n]...)
	return Result(int32(code))
}

func (f *frame) wordAt() uintptr  { return uintptr(unsafe.Pointer(&f.word)) }
func (f *frame) word2At() uintptr { return uintptr(unsafe.Pointer(&f.word2)) }
func (f *frame) smallAt() uintptr { return uintptr(unsafe.Pointer(&f.small)) }

// call1 and call2 call what takes so many words and returns nothing but its code.
func (l *library) call1(symbol int, a uintptr) Result {
	f := l.begin()
	defer l.end(f)
	f.args[0] = a
	return l.call(symbol, f, 1)
}

func (l *library) call2(symbol int, a, b uintptr) Result {
	f := l.begin()
	defer l.end(f)
	f.args[0], f.args[1] = a, b
	return l.call(symbol, f, 2)
}

// callWord calls what writes a word through its first argument and takes up to two more.
func (l *library) callWord(symbol int, more ...uintptr) (uint64, Result) {
	f := l.begin()
	defer l.end(f)
	f.args[0] = f.wordAt()
	n := 1 + copy(f.args[1:], more)
	r := l.call(symbol, f, n)
	return f.word, r
}

// callInt is callWord for what writes a C int.
func (l *library) callInt(symbol int, more ...uintptr) (int, Result) {
	f := l.begin()
	defer l.end(f)
	f.args[0] = f.smallAt()
	n := 1 + copy(f.args[1:], more)
	r := l.call(symbol, f, n)
	return int(f.small), r
}

func (l *library) Name() string { return l.name }

func (l *library) Init() Result               { return l.call1(cuInit, 0) }
func (l *library) Version() (int, Result)     { return l.callInt(cuDriverGetVersion) }
func (l *library) DeviceCount() (int, Result) { return l.callInt(cuDeviceGetCount) }

// device is the driver's handle of a device.
func (l *library) device(ordinal int) (uintptr, Result) {
	handle, r := l.callInt(cuDeviceGet, uintptr(ordinal))
	return uintptr(handle), r
}

func (l *library) DeviceName(ordinal int) (string, Result) {
	device, r := l.device(ordinal)
	if r != Success {
		return "", r
	}
	f := l.begin()
	defer l.end(f)
	text := make([]byte, 256)
	f.keep[0] = unsafe.Pointer(&text[0])
	f.args[0], f.args[1], f.args[2] = uintptr(f.keep[0]), uintptr(len(text)), device
	if r := l.call(cuDeviceGetName, f, 3); r != Success {
		return "", r
	}
	return untilZero(text), Success
}

func (l *library) DeviceMemory(ordinal int) (int64, Result) {
	device, r := l.device(ordinal)
	if r != Success {
		return 0, r
	}
	bytes, r := l.callWord(cuDeviceTotalMem, device)
	return int64(bytes), r
}

func (l *library) DeviceAttribute(ordinal int, a Attribute) (int, Result) {
	device, r := l.device(ordinal)
	if r != Success {
		return 0, r
	}
	return l.callInt(cuDeviceGetAttribute, uintptr(a), device)
}

func (l *library) ContextRetain(ordinal int) (Context, Result) {
	device, r := l.device(ordinal)
	if r != Success {
		return 0, r
	}
	c, r := l.callWord(cuDevicePrimaryCtxRetain, device)
	return Context(c), r
}

func (l *library) ContextRelease(ordinal int) Result {
	device, r := l.device(ordinal)
	if r != Success {
		return r
	}
	return l.call1(cuDevicePrimaryCtxRelease, device)
}

func (l *library) ContextSet(c Context) Result { return l.call1(cuCtxSetCurrent, uintptr(c)) }

func (l *library) ContextCurrent() (Context, Result) {
	c, r := l.callWord(cuCtxGetCurrent)
	return Context(c), r
}

func (l *library) MemInfo() (free, total int64, r Result) {
	f := l.begin()
	defer l.end(f)
	f.args[0], f.args[1] = f.wordAt(), f.word2At()
	r = l.call(cuMemGetInfo, f, 2)
	return int64(f.word), int64(f.word2), r
}

func (l *library) MemAlloc(bytes int64) (DevicePtr, Result) {
	p, r := l.callWord(cuMemAlloc, uintptr(bytes))
	return DevicePtr(p), r
}

func (l *library) MemFree(p DevicePtr) Result { return l.call1(cuMemFree, uintptr(p)) }

func (l *library) HostAlloc(bytes int64) (unsafe.Pointer, Result) {
	f := l.begin()
	defer l.end(f)
	f.args[0], f.args[1] = uintptr(unsafe.Pointer(&f.host)), uintptr(bytes)
	r := l.call(cuMemAllocHost, f, 2)
	return f.host, r
}

func (l *library) HostFree(p unsafe.Pointer) Result { return l.call1(cuMemFreeHost, uintptr(p)) }

// copy copies between two addresses. That on the host, if any, is kept alive until the call returns; that
// it stays until the copy is done is the caller's part.
func (l *library) copy(symbol int, dst, src uintptr, host unsafe.Pointer, bytes int64, s StreamID) Result {
	f := l.begin()
	defer l.end(f)
	f.keep[0] = host
	f.args[0], f.args[1], f.args[2], f.args[3] = dst, src, uintptr(bytes), uintptr(s)
	return l.call(symbol, f, 4)
}

func (l *library) CopyToDevice(dst DevicePtr, src unsafe.Pointer, bytes int64, s StreamID) Result {
	return l.copy(cuMemcpyHtoDAsync, uintptr(dst), uintptr(src), src, bytes, s)
}

func (l *library) CopyToHost(dst unsafe.Pointer, src DevicePtr, bytes int64, s StreamID) Result {
	return l.copy(cuMemcpyDtoHAsync, uintptr(dst), uintptr(src), dst, bytes, s)
}

func (l *library) CopyOnDevice(dst, src DevicePtr, bytes int64, s StreamID) Result {
	return l.copy(cuMemcpyDtoDAsync, uintptr(dst), uintptr(src), nil, bytes, s)
}

func (l *library) Fill32(dst DevicePtr, value uint32, count int64, s StreamID) Result {
	return l.copy(cuMemsetD32Async, uintptr(dst), uintptr(value), nil, count, s)
}

func (l *library) StreamCreate() (StreamID, Result) {
	const nonBlocking = 1 // CU_STREAM_NON_BLOCKING
	s, r := l.callWord(cuStreamCreate, nonBlocking)
	return StreamID(s), r
}

func (l *library) StreamDestroy(s StreamID) Result { return l.call1(cuStreamDestroy, uintptr(s)) }
func (l *library) StreamSync(s StreamID) Result    { return l.call1(cuStreamSynchronize, uintptr(s)) }

func (l *library) StreamWait(s StreamID, e EventID) Result {
	f := l.begin()
	defer l.end(f)
	f.args[0], f.args[1], f.args[2] = uintptr(s), uintptr(e), 0
	return l.call(cuStreamWaitEvent, f, 3)
}

func (l *library) EventCreate(timing bool) (EventID, Result) {
	flags := uintptr(2) // CU_EVENT_DISABLE_TIMING
	if timing {
		flags = 0
	}
	e, r := l.callWord(cuEventCreate, flags)
	return EventID(e), r
}

func (l *library) EventDestroy(e EventID) Result { return l.call1(cuEventDestroy, uintptr(e)) }

func (l *library) EventRecord(e EventID, s StreamID) Result {
	return l.call2(cuEventRecord, uintptr(e), uintptr(s))
}

func (l *library) EventSync(e EventID) Result { return l.call1(cuEventSynchronize, uintptr(e)) }

func (l *library) EventElapsed(from, to EventID) (float32, Result) {
	f := l.begin()
	defer l.end(f)
	f.args[0], f.args[1], f.args[2] = uintptr(unsafe.Pointer(&f.float)), uintptr(from), uintptr(to)
	r := l.call(cuEventElapsedTime, f, 3)
	return f.float, r
}

func (l *library) ModuleLoad(image []byte) (Module, string, Result) {
	log := make([]byte, logBytes)
	// CUjit_option and its values, which the driver takes and gives back as words of the size of a pointer.
	type request struct {
		options [2]int32
		values  [2]uintptr
	}
	q := &request{options: [2]int32{5, 6}} // CU_JIT_ERROR_LOG_BUFFER, ..._SIZE_BYTES
	q.values = [2]uintptr{uintptr(unsafe.Pointer(&log[0])), uintptr(len(log))}
	f := l.begin()
	defer l.end(f)
	f.keep = [3]unsafe.Pointer{unsafe.Pointer(unsafe.SliceData(image)), unsafe.Pointer(q), unsafe.Pointer(&log[0])}
	f.args[0], f.args[1], f.args[2] = f.wordAt(), uintptr(f.keep[0]), uintptr(len(q.options))
	f.args[3] = uintptr(unsafe.Pointer(&q.options))
	f.args[4] = uintptr(unsafe.Pointer(&q.values))
	r := l.call(cuModuleLoadDataEx, f, 5)
	return Module(f.word), untilZero(log), r
}

func (l *library) ModuleUnload(m Module) Result { return l.call1(cuModuleUnload, uintptr(m)) }

func (l *library) ModuleFunction(m Module, name string) (Function, Result) {
	f := l.begin()
	defer l.end(f)
	text := append([]byte(name), 0)
	f.keep[0] = unsafe.Pointer(&text[0])
	f.args[0], f.args[1], f.args[2] = f.wordAt(), uintptr(m), uintptr(f.keep[0])
	r := l.call(cuModuleGetFunction, f, 3)
	return Function(f.word), r
}

func (l *library) Launch(fn Function, grid, block Dim, shared uint32, s StreamID, params []unsafe.Pointer) Result {
	f := l.begin()
	defer l.end(f)
	f.keep[0] = unsafe.Pointer(unsafe.SliceData(params))
	f.args = [11]uintptr{uintptr(fn), uintptr(grid.X), uintptr(grid.Y), uintptr(grid.Z),
		uintptr(block.X), uintptr(block.Y), uintptr(block.Z), uintptr(shared), uintptr(s), uintptr(f.keep[0]), 0}
	return l.call(cuLaunchKernel, f, 11)
}

func (l *library) CaptureBegin(s StreamID) Result {
	const threadLocal = 1 // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do does not spoil it
	return l.call2(cuStreamBeginCapture, uintptr(s), threadLocal)
}

func (l *library) CaptureEnd(s StreamID) (GraphID, Result) {
	f := l.begin()
	defer l.end(f)
	f.args[0], f.args[1] = uintptr(s), f.wordAt()
	r := l.call(cuStreamEndCapture, f, 2)
	return GraphID(f.word), r
}

func (l *library) GraphInstantiate(g GraphID) (GraphExec, Result) {
	x, r := l.callWord(cuGraphInstantiate, uintptr(g), 0)
	return GraphExec(x), r
}

func (l *library) GraphDestroy(g GraphID) Result { return l.call1(cuGraphDestroy, uintptr(g)) }

func (l *library) GraphLaunch(x GraphExec, s StreamID) Result {
	return l.call2(cuGraphLaunch, uintptr(x), uintptr(s))
}

func (l *library) GraphExecDestroy(x GraphExec) Result {
	return l.call1(cuGraphExecDestroy, uintptr(x))
}
