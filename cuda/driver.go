package cuda

import "unsafe"

// Handles of the driver. 0 is no handle; stream 0 is never used (every launch names one of ours).
type (
	Context   uintptr
	Module    uintptr
	Function  uintptr
	StreamID  uintptr
	EventID   uintptr
	GraphID   uintptr
	GraphExec uintptr
	DevicePtr uint64 // an address in device memory; 0 is none
	Attribute int32  // CUdevice_attribute of cuda.h
	Dim       struct{ X, Y, Z uint32 }
)

// CUdevice_attribute values of cuda.h that are asked for.
const (
	AttrMaxThreadsPerBlock Attribute = 1
	AttrSharedPerBlock     Attribute = 8
	AttrWarpSize           Attribute = 10
	AttrClockKHz           Attribute = 13
	AttrMultiprocessors    Attribute = 16
	AttrMemoryClockKHz     Attribute = 36
	AttrMemoryBusBits      Attribute = 37
	AttrL2Bytes            Attribute = 38
	AttrMajor              Attribute = 75
	AttrMinor              Attribute = 76
	AttrSharedPerSM        Attribute = 81
	AttrRegistersPerSM     Attribute = 82
)

// Driver is the part of the CUDA driver API that onmart uses, one method a call, with the driver's own
// result code (0 is success). Three implementations: libcuda opened at run time (the default), gorgonia.org/cu
// (tag cu), and the emulator, which is a libcuda of its own that the first one opens. What an
// implementation lacks returns NotSupported. Tests wrap one to inject faults (package cuda/cudatest).
//
// Everything below ContextCurrent acts on the context that is current on the calling OS thread: Device.Do
// sees to that. Copies and fills take a stream and may return before they are done. An implementation may
// be called from several threads at once.
type Driver interface {
	// Name is what was opened, such as a library's path.
	Name() string

	Init() Result
	Version() (int, Result) // 1000*major + 10*minor of the newest CUDA that the driver serves
	DeviceCount() (int, Result)
	DeviceName(ordinal int) (string, Result)
	DeviceMemory(ordinal int) (int64, Result) // bytes
	DeviceAttribute(ordinal int, a Attribute) (int, Result)

	ContextRetain(ordinal int) (Context, Result) // the primary context
	ContextRelease(ordinal int) Result
	ContextSet(Context) Result         // 0 leaves the thread without one
	ContextCurrent() (Context, Result) // of the calling OS thread; 0 is none

	MemInfo() (free, total int64, r Result)
	MemAlloc(bytes int64) (DevicePtr, Result)
	MemFree(DevicePtr) Result
	HostAlloc(bytes int64) (unsafe.Pointer, Result) // pinned
	HostFree(unsafe.Pointer) Result
	CopyToDevice(dst DevicePtr, src unsafe.Pointer, bytes int64, s StreamID) Result
	CopyToHost(dst unsafe.Pointer, src DevicePtr, bytes int64, s StreamID) Result
	CopyOnDevice(dst, src DevicePtr, bytes int64, s StreamID) Result
	Fill32(dst DevicePtr, value uint32, count int64, s StreamID) Result

	StreamCreate() (StreamID, Result) // does not wait for the legacy default stream
	StreamDestroy(StreamID) Result
	StreamSync(StreamID) Result
	StreamWait(StreamID, EventID) Result
	EventCreate(timing bool) (EventID, Result)
	EventDestroy(EventID) Result
	EventRecord(EventID, StreamID) Result
	EventSync(EventID) Result
	EventElapsed(from, to EventID) (milliseconds float32, r Result)

	// ModuleLoad takes PTX text ending in a zero byte; log is what the driver's compiler said.
	ModuleLoad(image []byte) (m Module, log string, r Result)
	ModuleUnload(Module) Result
	ModuleFunction(m Module, name string) (Function, Result)
	// Launch reads the kernel's parameters through params before it returns.
	Launch(f Function, grid, block Dim, sharedBytes uint32, s StreamID, params []unsafe.Pointer) Result

	CaptureBegin(StreamID) Result
	CaptureEnd(StreamID) (GraphID, Result)
	GraphInstantiate(GraphID) (GraphExec, Result)
	GraphDestroy(GraphID) Result
	GraphLaunch(GraphExec, StreamID) Result
	GraphExecDestroy(GraphExec) Result
}
