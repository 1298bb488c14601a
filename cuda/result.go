package cuda

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Result is the driver's result code, CUresult of cuda.h. As an error it says its name, number and meaning.
type Result int32

// Codes that code of ours or of our tests looks for. The others have a name and a meaning too.
const (
	Success            Result = 0
	InvalidValue       Result = 1
	OutOfMemory        Result = 2
	NotInitialized     Result = 3
	StubLibrary        Result = 34
	DeviceUnavailable  Result = 46
	NoDevice           Result = 100
	InvalidDevice      Result = 101
	InvalidImage       Result = 200
	InvalidContext     Result = 201
	NoBinaryForGPU     Result = 209
	ECCUncorrectable   Result = 214
	InvalidPTX         Result = 218
	JITNotFound        Result = 221
	UnsupportedPTX     Result = 222
	InvalidHandle      Result = 400
	NotFound           Result = 500
	NotReady           Result = 600
	IllegalAddress     Result = 700
	OutOfResources     Result = 701
	LaunchTimeout      Result = 702
	ContextDestroyed   Result = 709
	MisalignedAddress  Result = 716
	LaunchFailed       Result = 719
	NotSupported       Result = 801
	SystemNotReady     Result = 802
	DriverMismatch     Result = 803
	CaptureUnsupported Result = 900
	CaptureInvalidated Result = 901
	CaptureUnjoined    Result = 904
	Unknown            Result = 999
)

// Name is the code's name in cuda.h, "CUDA_ERROR_OUT_OF_MEMORY"; of a code that we do not know, "CUDA error 12345".
func (r Result) Name() string {
	if t := r.text(); t.name != "" {
		if r == Success {
			return "CUDA_SUCCESS"
		}
		return "CUDA_ERROR_" + t.name
	}
	return fmt.Sprintf("CUDA error %d", int32(r))
}

// Meaning is what the code says, in plain words and with what to do where that is known.
func (r Result) Meaning() string {
	if t := r.text(); t.name != "" {
		return t.meaning
	}
	return "a code that this program does not know; the driver is newer than it"
}

// Sticky tells whether the code means that the context is lost: every later call of this process on that
// device fails too, and only a new process can use it again.
func (r Result) Sticky() bool { return r.text().sticky }

// Error is name, number and meaning.
func (r Result) Error() string {
	if r.text().name == "" {
		return r.Name() + ": " + r.Meaning()
	}
	return fmt.Sprintf("%s (%d): %s", r.Name(), int32(r), r.Meaning())
}

// Error is a call to the driver that failed.
type Error struct {
	Call   string // what was called and with what, "cuMemAlloc of 1.5 GiB"
	Code   Result
	Detail string // what else is known, such as what to do; may be empty
}

// Error says the call, the code with its meaning, the detail and, where the device is lost, that it is.
func (e *Error) Error() string {
	text := e.Call + ": " + e.Code.Error()
	if e.Detail != "" {
		text += "; " + e.Detail
	}
	if e.Code.Sticky() {
		text += "; the device is lost to this process: start it again, and resume what was checkpointed"
	}
	return text
}

// Unwrap makes errors.Is(err, cuda.OutOfMemory) hold.
func (e *Error) Unwrap() error { return e.Code }

// Lost tells whether err, or any error in it, says that the device is lost to this process: its memory and
// whatever was computed there are gone. What was written elsewhere before, a checkpoint for one, is good.
func Lost(err error) bool {
	switch e := err.(type) {
	case nil:
		return false
	case Result:
		return e.Sticky()
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if Lost(inner) {
				return true
			}
		}
		return false
	}
	return Lost(errors.Unwrap(err))
}

// resultText is what is known of a code.
type resultText struct {
	name    string // without CUDA_ERROR_; "" for a code we do not know
	meaning string
	sticky  bool
}

// text looks a code up.
func (r Result) text() resultText { return results[r] }

// results is the CUresult of cuda.h 12.9, all of it. It is not written to.
var results = map[Result]resultText{
	0:  {"SUCCESS", "no error", false},
	1:  {"INVALID_VALUE", "an argument is out of range", false},
	2:  {"OUT_OF_MEMORY", "not enough memory", false},
	3:  {"NOT_INITIALIZED", "the driver was not initialised by cuInit", false},
	4:  {"DEINITIALIZED", "the driver is shutting down", true},
	5:  {"PROFILER_DISABLED", "the profiler is not there", false},
	6:  {"PROFILER_NOT_INITIALIZED", "the profiler was not initialised", false},
	7:  {"PROFILER_ALREADY_STARTED", "the profiler runs already", false},
	8:  {"PROFILER_ALREADY_STOPPED", "the profiler has stopped already", false},
	34: {"STUB_LIBRARY", "the library is the toolkit's stub, which has no driver behind it", false},
	46: {"DEVICE_UNAVAILABLE", "the device is busy or cannot be reached: another process may " +
		"hold it alone, or it has fallen off the bus", true},
	100: {"NO_DEVICE", "the driver sees no GPU", false},
	101: {"INVALID_DEVICE", "there is no device of that number", false},
	102: {"DEVICE_NOT_LICENSED", "the device needs a licence (vGPU) that it has not got", false},
	200: {"INVALID_IMAGE", "the module is no code for a GPU, or it is damaged", false},
	201: {"INVALID_CONTEXT", "no context of the device is current on the calling thread", false},
	202: {"CONTEXT_ALREADY_CURRENT", "the context is current already", false},
	205: {"MAP_FAILED", "memory could not be mapped", false},
	206: {"UNMAP_FAILED", "memory could not be unmapped", false},
	207: {"ARRAY_IS_MAPPED", "the array is mapped and cannot be destroyed", false},
	208: {"ALREADY_MAPPED", "the resource is mapped already", false},
	209: {"NO_BINARY_FOR_GPU", "the module has no code that this GPU can run", false},
	210: {"ALREADY_ACQUIRED", "the resource was acquired already", false},
	211: {"NOT_MAPPED", "the resource is not mapped", false},
	212: {"NOT_MAPPED_AS_ARRAY", "the resource is not mapped as an array", false},
	213: {"NOT_MAPPED_AS_POINTER", "the resource is not mapped as a pointer", false},
	214: {"ECC_UNCORRECTABLE", "a memory error on the device that could not be " +
		"corrected; if it comes again the card is faulty", true},
	215: {"UNSUPPORTED_LIMIT", "the device does not have that limit", false},
	216: {"CONTEXT_ALREADY_IN_USE", "the context is bound to another thread", false},
	217: {"PEER_ACCESS_UNSUPPORTED", "the devices cannot reach each other's memory", false},
	218: {"INVALID_PTX", "the driver's compiler refuses the PTX: it is wrong or damaged", false},
	219: {"INVALID_GRAPHICS_CONTEXT", "the graphics context is not valid", false},
	220: {"NVLINK_UNCORRECTABLE", "an NVLink error that could not be corrected", true},
	221: {"JIT_COMPILER_NOT_FOUND", "the driver's PTX compiler (libnvidia-ptxjitcompiler) is not installed", false},
	222: {"UNSUPPORTED_PTX_VERSION", "the PTX is newer than the driver", false},
	223: {"JIT_COMPILATION_DISABLED", "compiling PTX is switched off; unset CUDA_DISABLE_PTX_JIT", false},
	224: {"UNSUPPORTED_EXEC_AFFINITY", "the device does not support that execution affinity", false},
	225: {"UNSUPPORTED_DEVSIDE_SYNC", "the code calls cudaDeviceSynchronize on the " +
		"device, which is not supported", false},
	226: {"CONTAINED", "a memory error on the device that was contained to this process", true},
	300: {"INVALID_SOURCE", "the source of the kernel is not valid", false},
	301: {"FILE_NOT_FOUND", "a file was not found", false},
	302: {"SHARED_OBJECT_SYMBOL_NOT_FOUND", "a shared library of the driver lacks a symbol", false},
	303: {"SHARED_OBJECT_INIT_FAILED", "a shared library of the driver could not be started", false},
	304: {"OPERATING_SYSTEM", "a call to the operating system failed", false},
	400: {"INVALID_HANDLE", "a handle is not valid: it was closed, or it is of another context", false},
	401: {"ILLEGAL_STATE", "a resource is not in a state for this call", false},
	402: {"LOSSY_QUERY", "the answer would lose information", false},
	500: {"NOT_FOUND", "there is nothing of that name", false},
	600: {"NOT_READY", "work that was asked for is not done yet", false},
	700: {"ILLEGAL_ADDRESS", "a kernel read or wrote outside its memory", true},
	701: {"LAUNCH_OUT_OF_RESOURCES", "the launch needs more registers or threads a block than the device has", false},
	702: {"LAUNCH_TIMEOUT", "a kernel ran longer than the watchdog of a card " +
		"with a display allows (some seconds)", true},
	703: {"LAUNCH_INCOMPATIBLE_TEXTURING", "the kernel uses another texture mode", false},
	704: {"PEER_ACCESS_ALREADY_ENABLED", "the devices can reach each other already", false},
	705: {"PEER_ACCESS_NOT_ENABLED", "the devices cannot reach each other yet", false},
	708: {"PRIMARY_CONTEXT_ACTIVE", "the device's context is in use already", false},
	709: {"CONTEXT_IS_DESTROYED", "the context was destroyed", true},
	710: {"ASSERT", "an assertion in a kernel failed", true},
	711: {"TOO_MANY_PEERS", "too many devices reach each other", false},
	712: {"HOST_MEMORY_ALREADY_REGISTERED", "the host memory is pinned already", false},
	713: {"HOST_MEMORY_NOT_REGISTERED", "the host memory is not pinned", false},
	714: {"HARDWARE_STACK_ERROR", "the stack of a kernel is damaged", true},
	715: {"ILLEGAL_INSTRUCTION", "a kernel met an instruction that is none", true},
	716: {"MISALIGNED_ADDRESS", "a kernel used an address that is not aligned", true},
	717: {"INVALID_ADDRESS_SPACE", "a kernel used an address of the wrong kind of memory", true},
	718: {"INVALID_PC", "a kernel ran off its code", true},
	719: {"LAUNCH_FAILED", "a kernel ended with a fault", true},
	720: {"COOPERATIVE_LAUNCH_TOO_LARGE", "a cooperative launch has more blocks than run at once", false},
	721: {"TENSOR_MEMORY_LEAK", "a kernel left tensor memory behind", true},
	800: {"NOT_PERMITTED", "the call is not permitted now", false},
	801: {"NOT_SUPPORTED", "the call is not supported here", false},
	802: {"SYSTEM_NOT_READY", "the GPU system is not ready; start nvidia-fabricmanager", false},
	803: {"SYSTEM_DRIVER_MISMATCH", "the driver library and the kernel module are of different " +
		"versions; restart the machine after a driver update", false},
	804: {"COMPAT_NOT_SUPPORTED_ON_DEVICE", "forward compatibility is not supported on this device", false},
	805: {"MPS_CONNECTION_FAILED", "the MPS server cannot be reached", false},
	806: {"MPS_RPC_FAILURE", "the MPS server did not answer rightly", true},
	807: {"MPS_SERVER_NOT_READY", "the MPS server takes no new clients now", false},
	808: {"MPS_MAX_CLIENTS_REACHED", "the MPS server has no room for one more client", false},
	809: {"MPS_MAX_CONNECTIONS_REACHED", "the MPS server has no connection left", false},
	810: {"MPS_CLIENT_TERMINATED", "the MPS server has ended this client", true},
	811: {"CDP_NOT_SUPPORTED", "the module launches kernels from kernels, which is not supported here", false},
	812: {"CDP_VERSION_MISMATCH", "the module mixes versions of launching kernels from kernels", false},
	900: {"STREAM_CAPTURE_UNSUPPORTED", "the call is not allowed while a stream is captured", false},
	901: {"STREAM_CAPTURE_INVALIDATED", "the capture was spoilt by an earlier error in it", false},
	902: {"STREAM_CAPTURE_MERGE", "the call would join two captures", false},
	903: {"STREAM_CAPTURE_UNMATCHED", "the capture was not begun on this stream", false},
	904: {"STREAM_CAPTURE_UNJOINED", "a stream that was forked in the capture was not joined again: " +
		"let the first stream wait for its last event", false},
	905: {"STREAM_CAPTURE_ISOLATION", "the captured work would depend on work outside the capture", false},
	906: {"STREAM_CAPTURE_IMPLICIT", "the call would make the capture depend on the legacy stream", false},
	907: {"CAPTURED_EVENT", "the event was recorded in a capture and cannot be asked", false},
	908: {"STREAM_CAPTURE_WRONG_THREAD", "the capture was begun on another thread", false},
	909: {"TIMEOUT", "the wait took too long", false},
	910: {"GRAPH_EXEC_UPDATE_FAILURE", "the graph differs too much to be updated", false},
	911: {"EXTERNAL_DEVICE", "a device outside reported an error", true},
	912: {"INVALID_CLUSTER_SIZE", "the size of a cluster of blocks is not valid", false},
	913: {"FUNCTION_NOT_LOADED", "the function is not loaded", false},
	914: {"INVALID_RESOURCE_TYPE", "the resource is of the wrong type", false},
	915: {"INVALID_RESOURCE_CONFIGURATION", "the resource is configured wrongly", false},
	916: {"KEY_ROTATION", "the device's keys are being rotated", true},
	999: {"UNKNOWN", "the driver does not know what went wrong", true},
}

// size is a number of bytes for people.
func size(bytes int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if bytes >= u.bytes {
			n := strconv.FormatFloat(float64(bytes)/float64(u.bytes), 'f', 2, 64)
			return strings.TrimSuffix(strings.TrimRight(n, "0"), ".") + " " + u.name
		}
	}
	return strconv.FormatInt(bytes, 10) + " B"
}
