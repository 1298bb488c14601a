// The entry points of libcuda that the emulator offers, under the names that cuda.h's macros choose, with the
// checks that a lenient fake would leave out. Misuse is said in one line on stderr and returned as the code
// that a driver gives.
//
// There is one device: an RTX 2060 in its figures. Attributes from 9000 on are the emulator's own (see kOwn below).
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include <mutex>
#include <unordered_map>

#include "executor.h"
#include "memory.h"
#include "ptx.h"
#include "work.h"

using namespace emu;

#define API extern "C" __attribute__((visibility("default"))) int

namespace {

constexpr int kDeviceCapability = 75;
constexpr int kIllegalState = 401;
constexpr int kNotSupported = 801;

// Attributes of the emulator: what is live now, and from kSetOrder on, kSetOrder + n sets the order to n and
// gives the old one.
enum Own {
  ALLOCATIONS = 9001, // of device memory
  MIBIBYTES = 9002,   // of device memory, whole ones
  BYTES_REST = 9003,  // and what is left
  HOST_ALLOCATIONS = 9004,
  STREAMS = 9005,
  EVENTS = 9006,
  MODULES = 9007,
  GRAPHS = 9008,   // and instantiated ones
  LAUNCHES = 9009, // of kernels that were run since the library was opened, modulo 2^31
  ORDER = 9010,
};
constexpr int kSetOrder = 1000000;

// Table gives out handles that are never given out again, so that a stale one is known.
template <class T>
struct Table {
  uint64_t kind, last = 0;
  std::unordered_map<uint64_t, std::shared_ptr<T>> live;
  explicit Table(uint64_t k) : kind(k) {}
  uint64_t add(std::shared_ptr<T> v) {
    const uint64_t h = kind << 40 | ++last << 4;
    live[h] = std::move(v);
    return h;
  }
  std::shared_ptr<T> get(uint64_t h) const {
    auto it = live.find(h);
    return it == live.end() ? nullptr : it->second;
  }
};

struct Function {
  const Kernel *kernel;
};
struct Module {
  Ptx ptx;
  std::map<std::string, uint64_t> functions; // handles given out
};

struct Driver {
  std::mutex lock;
  bool initialized = false;
  uint64_t context = 0, contexts = 0; // the primary context's handle, 0 while nobody retains it
  int retained = 0;
  uint64_t launches = 0;
  Table<Module> modules{0xE1};
  Table<Function> functions{0xE2};
  Table<Stream> streams{0xE3};
  Table<Event> events{0xE4};
  Table<Graph> graphs{0xE5};
  Table<Graph> executables{0xE6};
};
Driver &the() {
  static Driver *d = new Driver; // never freed: threads may call while the process ends
  return *d;
}

__thread __attribute__((tls_model("initial-exec"))) uint64_t current; // context of this OS thread

long long environment(const char *name, long long otherwise) {
  const char *s = getenv(name);
  if (!s || !*s) return otherwise;
  char *end;
  const long long v = strtoll(s, &end, 0);
  if (*end || v < 0) {
    report("%s=%s is no number; it is taken as %lld", name, s, otherwise);
    return otherwise;
  }
  return v;
}

// Call holds the driver's lock during a call and says in fault why the call cannot be made.
struct Call {
  std::lock_guard<std::mutex> lock;
  const char *name;
  int fault = SUCCESS;
  enum Needs { NOTHING, INITIALIZED, CONTEXT };
  Call(const char *name, Needs needs) : lock(the().lock), name(name) {
    const Driver &d = the();
    if (needs != NOTHING && !d.initialized) fault = NOT_INITIALIZED;
    if (needs != CONTEXT || fault) return;
    if (current == 0 || current != d.context) {
      fault = current == 0 ? INVALID_CONTEXT : CONTEXT_IS_DESTROYED;
      report("%s: %s", name,
             current == 0 ? "no context is current on this thread" : "the thread's context was destroyed");
      return;
    }
    fault = sticky();
  }
  int wrong(const char *why, int code = INVALID_VALUE) {
    report("%s: %s", name, why);
    return code;
  }
};
#define CALL(needs)                 \
  Call call(__func__, Call::needs); \
  if (call.fault) return call.fault
#define REQUIRE(condition, why) \
  if (!(condition)) return call.wrong(why)

#define STREAM(s, handle)                                \
  std::shared_ptr<Stream> s = the().streams.get(handle); \
  if (!s)                                                \
  return call.wrong(handle ? "no live stream" : "the default stream is not emulated: name a stream", INVALID_HANDLE)
#define EVENT(e, handle)                               \
  std::shared_ptr<Event> e = the().events.get(handle); \
  if (!e) return call.wrong("no live event", INVALID_HANDLE)

int device_attribute(int a, int *value) {
  switch (a) {
  case 1: *value = int(kMaxThreads); return SUCCESS; // MAX_THREADS_PER_BLOCK
  case 2:
  case 3: *value = 1024; return SUCCESS;       // MAX_BLOCK_DIM_X, _Y
  case 4: *value = 64; return SUCCESS;         // MAX_BLOCK_DIM_Z
  case 5: *value = 0x7fffffff; return SUCCESS; // MAX_GRID_DIM_X
  case 6:
  case 7: *value = 65535; return SUCCESS;                // MAX_GRID_DIM_Y, _Z
  case 8: *value = int(kMaxSharedBytes); return SUCCESS; // MAX_SHARED_MEMORY_PER_BLOCK
  case 9: *value = 65536; return SUCCESS;                // TOTAL_CONSTANT_MEMORY
  case 10: *value = 32; return SUCCESS;                  // WARP_SIZE
  case 12: *value = 65536; return SUCCESS;               // MAX_REGISTERS_PER_BLOCK
  case 13: *value = 1680000; return SUCCESS;             // CLOCK_RATE, kHz
  case 15: *value = 1; return SUCCESS;                   // GPU_OVERLAP
  case 16: *value = 30; return SUCCESS;                  // MULTIPROCESSOR_COUNT
  case 17: *value = 0; return SUCCESS;                   // KERNEL_EXEC_TIMEOUT
  case 18: *value = 0; return SUCCESS;                   // INTEGRATED
  case 19: *value = 1; return SUCCESS;                   // CAN_MAP_HOST_MEMORY
  case 20: *value = 0; return SUCCESS;                   // COMPUTE_MODE
  case 31: *value = 1; return SUCCESS;                   // CONCURRENT_KERNELS
  case 32: *value = 0; return SUCCESS;                   // ECC_ENABLED
  case 36: *value = 7001000; return SUCCESS;             // MEMORY_CLOCK_RATE, kHz: 336 GB/s over 192 bit
  case 37: *value = 192; return SUCCESS;                 // GLOBAL_MEMORY_BUS_WIDTH
  case 38: *value = 3 << 20; return SUCCESS;             // L2_CACHE_SIZE
  case 39: *value = 1024; return SUCCESS;                // MAX_THREADS_PER_MULTIPROCESSOR
  case 40: *value = 3; return SUCCESS;                   // ASYNC_ENGINE_COUNT
  case 41: *value = 1; return SUCCESS;                   // UNIFIED_ADDRESSING
  case 75: *value = kDeviceCapability / 10; return SUCCESS;
  case 76: *value = kDeviceCapability % 10; return SUCCESS;
  case 81: *value = 64 << 10; return SUCCESS; // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
  case 82: *value = 65536; return SUCCESS;    // MAX_REGISTERS_PER_MULTIPROCESSOR
  case 97: *value = 64 << 10; return SUCCESS; // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
  case 106: *value = 16; return SUCCESS;      // MAX_BLOCKS_PER_MULTIPROCESSOR
  }
  return INVALID_VALUE;
}

int own_attribute(int a, int *value) {
  const Driver &d = the();
  switch (a) {
  case ALLOCATIONS: *value = int(memory_allocations()); return SUCCESS;
  case MIBIBYTES: *value = int(memory_used() >> 20); return SUCCESS;
  case BYTES_REST: *value = int(memory_used() & ((1 << 20) - 1)); return SUCCESS;
  case HOST_ALLOCATIONS: *value = int(host_allocations()); return SUCCESS;
  case STREAMS: *value = int(d.streams.live.size()); return SUCCESS;
  case EVENTS: *value = int(d.events.live.size()); return SUCCESS;
  case MODULES: *value = int(d.modules.live.size()); return SUCCESS;
  case GRAPHS: *value = int(d.graphs.live.size() + d.executables.live.size()); return SUCCESS;
  case LAUNCHES: *value = int(d.launches & 0x7fffffff); return SUCCESS;
  case ORDER: *value = int(order()); return SUCCESS;
  }
  if (a < kSetOrder) return INVALID_VALUE;
  *value = int(order());
  set_order(unsigned(a - kSetOrder));
  return SUCCESS;
}

// destroy_context frees all that the context still holds, and says what that was where ONMART_EMU_LEAKS is set.
void destroy_context() {
  Driver &d = the();
  finish_all();
  if (environment("ONMART_EMU_LEAKS", 0) != 0) {
    if (memory_allocations() || host_allocations() || !d.streams.live.empty() || !d.events.live.empty() ||
        !d.modules.live.empty() || !d.graphs.live.empty() || !d.executables.live.empty())
      report(
          "leaked at the end of the context: %zu allocations of %zu bytes, %zu of pinned memory, %zu streams, %zu "
          "events, %zu modules, %zu graphs",
          memory_allocations(), memory_used(), host_allocations(), d.streams.live.size(), d.events.live.size(),
          d.modules.live.size(), d.graphs.live.size() + d.executables.live.size());
  }
  d.modules.live.clear();
  d.functions.live.clear();
  d.events.live.clear();
  d.graphs.live.clear();
  d.executables.live.clear();
  end_all_streams();
  d.streams.live.clear();
  memory_free_all();
  host_free_all();
  set_sticky(SUCCESS);
  d.context = 0;
}

// synchronized looks at the margins of all allocations once work has been finished.
int synchronized(Result r) {
  if (r == SUCCESS && (r = memory_check(false, "at a synchronisation"))) set_sticky(r);
  return r;
}

// Late is a copy or a fill whose operands are looked at again when it is done, because a graph may outlive them.
Result late(const char *name) {
  report("%s: its memory was freed before the work was done", name);
  return ILLEGAL_ADDRESS;
}

int put_text(char *to, int room, const char *text) {
  if (!to || room <= 0) return INVALID_VALUE;
  snprintf(to, size_t(room), "%s", text);
  return SUCCESS;
}

void fill32(uint64_t to, uint32_t value, size_t count) {
  uint32_t *p = reinterpret_cast<uint32_t *>(to);
  for (size_t i = 0; i < count; i++) p[i] = value;
}

struct ErrorText {
  int code;
  const char *name, *text;
};
const ErrorText kErrors[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {UNSUPPORTED_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
     "the provided PTX was compiled with an unsupported toolchain."},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {kIllegalState, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {MISALIGNED_ADDRESS, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {kNotSupported, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CAPTURE_MERGE, "CUDA_ERROR_STREAM_CAPTURE_MERGE",
     "operation would result in a merge of separate capture sequences"},
    {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began"},
    {CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
     "dependency created on uncaptured work in another stream"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing stream"},
    {CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
};
const ErrorText *error_text(int code) {
  for (const ErrorText &e : kErrors)
    if (e.code == code) return &e;
  return nullptr;
}

} // namespace

// ---- the library and its device ----

API cuInit(unsigned flags) {
  CALL(NOTHING);
  REQUIRE(flags == 0, "the flags are not 0");
  Driver &d = the();
  if (!d.initialized) {
    install_handlers();
    set_order(unsigned(environment("ONMART_EMU_ORDER", 0)));
  }
  if (d.context == 0) set_memory_total(size_t(environment("ONMART_EMU_MEMORY", 6ll << 30)));
  d.initialized = true;
  return SUCCESS;
}

API cuDriverGetVersion(int *version) {
  CALL(NOTHING);
  REQUIRE(version, "null");
  *version = int(environment("ONMART_EMU_CUDA", 11080));
  return SUCCESS;
}

API cuDeviceGetCount(int *count) {
  CALL(INITIALIZED);
  REQUIRE(count, "null");
  *count = 1;
  return SUCCESS;
}

API cuDeviceGet(int *device, int ordinal) {
  CALL(INITIALIZED);
  REQUIRE(device, "null");
  if (ordinal != 0) return INVALID_DEVICE;
  *device = 0;
  return SUCCESS;
}

API cuDeviceGetName(char *name, int room, int device) {
  CALL(INITIALIZED);
  if (device != 0) return INVALID_DEVICE;
  return put_text(name, room, "Onmart emulator (no GPU)");
}

API cuDeviceTotalMem_v2(size_t *bytes, int device) {
  CALL(INITIALIZED);
  REQUIRE(bytes, "null");
  if (device != 0) return INVALID_DEVICE;
  *bytes = memory_total();
  return SUCCESS;
}

API cuDeviceGetAttribute(int *value, int attribute, int device) {
  CALL(INITIALIZED);
  REQUIRE(value, "null");
  if (device != 0) return INVALID_DEVICE;
  return attribute >= 9000 ? own_attribute(attribute, value) : device_attribute(attribute, value);
}

API cuGetErrorName(int code, const char **name) {
  const ErrorText *e = error_text(code);
  *name = e ? e->name : nullptr;
  return e ? SUCCESS : INVALID_VALUE;
}

API cuGetErrorString(int code, const char **text) {
  const ErrorText *e = error_text(code);
  *text = e ? e->text : nullptr;
  return e ? SUCCESS : INVALID_VALUE;
}

// ---- contexts ----

API cuDevicePrimaryCtxRetain(uint64_t *context, int device) {
  CALL(INITIALIZED);
  REQUIRE(context, "null");
  if (device != 0) return INVALID_DEVICE;
  Driver &d = the();
  if (d.retained++ == 0) d.context = uint64_t(0xE0) << 40 | ++d.contexts << 4;
  *context = d.context;
  return SUCCESS;
}

API cuDevicePrimaryCtxRelease_v2(int device) {
  CALL(INITIALIZED);
  if (device != 0) return INVALID_DEVICE;
  Driver &d = the();
  if (d.retained == 0) return call.wrong("nobody retains the context", INVALID_CONTEXT);
  if (--d.retained == 0) destroy_context();
  return SUCCESS;
}

API cuCtxSetCurrent(uint64_t context) {
  CALL(INITIALIZED);
  if (context != 0 && context != the().context) return call.wrong("no live context", INVALID_CONTEXT);
  current = context;
  return SUCCESS;
}

API cuCtxGetCurrent(uint64_t *context) {
  CALL(INITIALIZED);
  REQUIRE(context, "null");
  *context = current;
  return SUCCESS;
}

API cuCtxGetDevice(int *device) {
  CALL(CONTEXT);
  REQUIRE(device, "null");
  *device = 0;
  return SUCCESS;
}

API cuCtxSynchronize() {
  CALL(CONTEXT);
  if (Result r = refuse_any_capture(call.name)) return r;
  return synchronized(finish_all());
}

// ---- memory ----

API cuMemGetInfo_v2(size_t *free, size_t *total) {
  CALL(CONTEXT);
  REQUIRE(free && total, "null");
  *total = memory_total();
  *free = memory_total() - memory_used();
  return SUCCESS;
}

API cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  CALL(CONTEXT);
  REQUIRE(address, "null");
  REQUIRE(bytes != 0, "0 bytes");
  if (Result r = refuse_in_capture(call.name)) return r;
  return memory_alloc(address, bytes);
}

API cuMemFree_v2(uint64_t address) {
  CALL(CONTEXT);
  if (address == 0) return SUCCESS;
  if (Result r = refuse_in_capture(call.name)) return r;
  if (Result r = finish_all()) return r; // as a driver does
  const Result r = memory_free(address);
  if (r == INVALID_VALUE) return call.wrong("not the address of a live allocation");
  if (r != SUCCESS) set_sticky(r);
  return r;
}

static int host_alloc_call(Call &call, void **p, size_t bytes) {
  REQUIRE(p, "null");
  REQUIRE(bytes != 0, "0 bytes");
  if (Result r = refuse_in_capture(call.name)) return r;
  *p = host_alloc(bytes);
  return *p ? SUCCESS : OUT_OF_MEMORY;
}

API cuMemAllocHost_v2(void **p, size_t bytes) {
  CALL(CONTEXT);
  return host_alloc_call(call, p, bytes);
}

API cuMemHostAlloc(void **p, size_t bytes, unsigned) {
  CALL(CONTEXT);
  return host_alloc_call(call, p, bytes);
}

API cuMemFreeHost(void *p) {
  CALL(CONTEXT);
  if (Result r = refuse_in_capture(call.name)) return r;
  if (Result r = finish_all()) return r;
  REQUIRE(host_free(p), "not pinned memory of the driver");
  return SUCCESS;
}

API cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, uint64_t stream) {
  CALL(CONTEXT);
  STREAM(s, stream);
  if (bytes == 0) return SUCCESS;
  REQUIRE(from, "the source is null");
  REQUIRE(memory_holds(to, bytes), "the destination does not lie within one live allocation");
  const HostKind kind = host_kind(from, bytes);
  REQUIRE(kind != PINNED_OVERRUN, "the source passes the end of its pinned memory");
  if (kind == PAGEABLE && !s->capture) { // a driver has read it when the call returns
    auto copy =
        std::make_shared<std::vector<char>>(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
    return submit(s.get(), [to, copy] {
      if (!memory_holds(to, copy->size())) return late("cuMemcpyHtoDAsync");
      memcpy(reinterpret_cast<void *>(to), copy->data(), copy->size());
      return SUCCESS;
    });
  }
  return submit(s.get(), [=] {
    if (!memory_holds(to, bytes) || host_kind(from, bytes) != kind) return late("cuMemcpyHtoDAsync");
    memcpy(reinterpret_cast<void *>(to), from, bytes);
    return SUCCESS;
  });
}

API cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, uint64_t stream) {
  CALL(CONTEXT);
  STREAM(s, stream);
  if (bytes == 0) return SUCCESS;
  REQUIRE(to, "the destination is null");
  REQUIRE(memory_holds(from, bytes), "the source does not lie within one live allocation");
  const HostKind kind = host_kind(to, bytes);
  REQUIRE(kind != PINNED_OVERRUN, "the destination passes the end of its pinned memory");
  const int r = submit(s.get(), [=] {
    if (!memory_holds(from, bytes) || host_kind(to, bytes) != kind) return late("cuMemcpyDtoHAsync");
    memcpy(to, reinterpret_cast<const void *>(from), bytes);
    return SUCCESS;
  });
  if (r == SUCCESS && kind == PAGEABLE && !s->capture) return finish_stream(s.get()); // a driver waits, then
  return r;
}

API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
  CALL(CONTEXT);
  STREAM(s, stream);
  if (bytes == 0) return SUCCESS;
  REQUIRE(memory_holds(from, bytes), "the source does not lie within one live allocation");
  REQUIRE(memory_holds(to, bytes), "the destination does not lie within one live allocation");
  REQUIRE(to + bytes <= from || from + bytes <= to, "source and destination overlap");
  return submit(s.get(), [=] {
    if (!memory_holds(from, bytes) || !memory_holds(to, bytes)) return late("cuMemcpyDtoDAsync");
    memcpy(reinterpret_cast<void *>(to), reinterpret_cast<const void *>(from), bytes);
    return SUCCESS;
  });
}

API cuMemsetD32Async(uint64_t to, unsigned value, size_t count, uint64_t stream) {
  CALL(CONTEXT);
  STREAM(s, stream);
  if (count == 0) return SUCCESS;
  REQUIRE(to % 4 == 0, "the address is not a multiple of 4");
  REQUIRE(count <= SIZE_MAX / 4 && memory_holds(to, 4 * count),
          "the destination does not lie within one live allocation");
  return submit(s.get(), [=] {
    if (!memory_holds(to, 4 * count)) return late("cuMemsetD32Async");
    fill32(to, value, count);
    return SUCCESS;
  });
}

API cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, uint64_t stream) {
  CALL(CONTEXT);
  STREAM(s, stream);
  if (bytes == 0) return SUCCESS;
  REQUIRE(memory_holds(to, bytes), "the destination does not lie within one live allocation");
  return submit(s.get(), [=] {
    if (!memory_holds(to, bytes)) return late("cuMemsetD8Async");
    memset(reinterpret_cast<void *>(to), value, bytes);
    return SUCCESS;
  });
}

// ---- streams and events ----

API cuStreamCreate(uint64_t *stream, unsigned flags) {
  CALL(CONTEXT);
  REQUIRE(stream, "null");
  REQUIRE(flags <= 1, "flags are 0 or 1 (not blocking)");
  *stream = the().streams.add(new_stream());
  return SUCCESS;
}

API cuStreamDestroy_v2(uint64_t stream) {
  CALL(CONTEXT);
  STREAM(s, stream);
  if (s->capture) return void_capture(s.get(), call.name);
  the().streams.live.erase(stream);
  end_stream(s);
  return SUCCESS;
}

API cuStreamSynchronize(uint64_t stream) {
  CALL(CONTEXT);
  STREAM(s, stream);
  if (s->capture) return void_capture(s.get(), call.name);
  return synchronized(finish_stream(s.get()));
}

API cuStreamQuery(uint64_t stream) {
  CALL(CONTEXT);
  STREAM(s, stream);
  if (s->capture) return void_capture(s.get(), call.name);
  if (s->queue.empty()) return SUCCESS;
  advance(s.get());
  return sticky() ? sticky() : NOT_READY;
}

API cuStreamWaitEvent(uint64_t stream, uint64_t event, unsigned flags) {
  CALL(CONTEXT);
  STREAM(s, stream);
  EVENT(e, event);
  REQUIRE(flags == 0, "the flags are not 0");
  return wait_event(s.get(), *e);
}

API cuEventCreate(uint64_t *event, unsigned flags) {
  CALL(CONTEXT);
  REQUIRE(event, "null");
  REQUIRE((flags & ~3u) == 0, "flags other than blocking sync (1) and no timing (2)");
  auto e = std::make_shared<Event>();
  e->timing = (flags & 2) == 0;
  *event = the().events.add(e);
  return SUCCESS;
}

API cuEventDestroy_v2(uint64_t event) {
  CALL(CONTEXT);
  EVENT(e, event);
  the().events.live.erase(event);
  return SUCCESS;
}

API cuEventRecord(uint64_t event, uint64_t stream) {
  CALL(CONTEXT);
  STREAM(s, stream);
  EVENT(e, event);
  return record(e.get(), s.get());
}

API cuEventSynchronize(uint64_t event) {
  CALL(CONTEXT);
  EVENT(e, event);
  if (e->capture) return call.wrong("the event was recorded in a capture", CAPTURED_EVENT);
  if (!e->mark) return SUCCESS;
  return synchronized(finish_mark(e->mark));
}

API cuEventQuery(uint64_t event) {
  CALL(CONTEXT);
  EVENT(e, event);
  if (e->capture) return call.wrong("the event was recorded in a capture", CAPTURED_EVENT);
  if (!e->mark || e->mark->done) return SUCCESS;
  advance(e->mark->stream);
  return sticky() ? sticky() : NOT_READY;
}

API cuEventElapsedTime(float *ms, uint64_t from, uint64_t to) {
  CALL(CONTEXT);
  REQUIRE(ms, "null");
  EVENT(a, from);
  EVENT(b, to);
  if (!a->timing || !b->timing) return call.wrong("an event was made without timing", INVALID_HANDLE);
  if (!a->mark || !b->mark) return call.wrong("an event was not recorded", INVALID_HANDLE);
  if (!a->mark->done || !b->mark->done) return NOT_READY;
  *ms = float(b->mark->ms - a->mark->ms);
  return SUCCESS;
}

// ---- modules and launches ----

API cuModuleLoadDataEx(uint64_t *module, const void *image, unsigned count, const int *options, void **values) {
  CALL(CONTEXT);
  REQUIRE(module && image, "null");
  REQUIRE(count == 0 || (options && values), "null");
  if (Result r = refuse_in_capture(call.name)) return r;
  char *info = nullptr, *fault = nullptr;
  size_t info_room = 0, fault_room = 0;
  for (unsigned i = 0; i < count; i++) {
    switch (options[i]) {
    case 3: info = static_cast<char *>(values[i]); break; // CU_JIT_INFO_LOG_BUFFER and its size
    case 4: info_room = size_t(values[i]) & 0xffffffff; break;
    case 5: fault = static_cast<char *>(values[i]); break; // CU_JIT_ERROR_LOG_BUFFER and its size
    case 6: fault_room = size_t(values[i]) & 0xffffffff; break;
    }
  }
  auto m = std::make_shared<Module>();
  std::string log;
  const Result r = parse_ptx(static_cast<const char *>(image), int(environment("ONMART_EMU_CUDA", 11080)),
                             kDeviceCapability, &m->ptx, &log);
  if (info && info_room) snprintf(info, info_room, "%s", "");
  if (fault && fault_room) snprintf(fault, fault_room, "%s", log.c_str());
  if (r != SUCCESS) return r;
  *module = the().modules.add(m);
  return SUCCESS;
}

API cuModuleLoadData(uint64_t *module, const void *image) {
  return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}

API cuModuleUnload(uint64_t module) {
  CALL(CONTEXT);
  auto m = the().modules.get(module);
  if (!m) return call.wrong("no live module", INVALID_HANDLE);
  if (Result r = refuse_in_capture(call.name)) return r;
  if (Result r = finish_all()) return r;
  for (auto &f : m->functions) the().functions.live.erase(f.second);
  the().modules.live.erase(module);
  return SUCCESS;
}

API cuModuleGetFunction(uint64_t *function, uint64_t module, const char *name) {
  CALL(CONTEXT);
  REQUIRE(function && name, "null");
  auto m = the().modules.get(module);
  if (!m) return call.wrong("no live module", INVALID_HANDLE);
  auto entry = m->ptx.entries.find(name);
  if (entry == m->ptx.entries.end()) return NOT_FOUND;
  auto given = m->functions.find(name);
  if (given != m->functions.end()) {
    *function = given->second;
    return SUCCESS;
  }
  const Kernel *k = find_kernel(name);
  if (!k) {
    report("%s: the PTX has an entry %s, but no such kernel was compiled into the emulator", call.name, name);
    return NOT_FOUND;
  }
  const PtxEntry &e = entry->second;
  const std::vector<uint32_t> sizes(k->sizes, k->sizes + k->count);
  if (sizes != e.sizes || e.threads != k->threads) {
    report(
        "%s: the PTX of %s is of another source than the emulator: it has %zu parameters and .maxntid %u, the source "
        "%u and __launch_bounds__ %u%s",
        call.name, name, e.sizes.size(), e.threads, k->count, k->threads,
        e.sizes.size() == sizes.size() && e.sizes != sizes ? "; sizes of parameters differ" : "");
    return INVALID_IMAGE;
  }
  *function = m->functions[name] = the().functions.add(std::make_shared<Function>(Function{k}));
  return SUCCESS;
}

API cuFuncGetAttribute(int *value, int attribute, uint64_t function) {
  CALL(CONTEXT);
  REQUIRE(value, "null");
  auto f = the().functions.get(function);
  if (!f) return call.wrong("no live function", INVALID_HANDLE);
  if (attribute != 0) return call.wrong("only MAX_THREADS_PER_BLOCK (0) is emulated", kNotSupported);
  *value = int(f->kernel->threads ? f->kernel->threads : kMaxThreads);
  return SUCCESS;
}

API cuLaunchKernel(uint64_t function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, uint64_t stream, void **params, void **extra) {
  CALL(CONTEXT);
  STREAM(s, stream);
  auto f = the().functions.get(function);
  if (!f) return call.wrong("no live function", INVALID_HANDLE);
  const Kernel *k = f->kernel;
  const uint64_t threads = uint64_t(bx) * by * bz;
  auto refuse = [&](const char *why) {
    report("cuLaunchKernel of %s, grid (%u,%u,%u), block (%u,%u,%u), %u bytes shared: %s", k->name, gx, gy, gz, bx, by,
           bz, shared, why);
    return INVALID_VALUE;
  };
  if (gx == 0 || gy == 0 || gz == 0 || threads == 0) return refuse("a dimension is 0");
  if (gx > 0x7fffffff || gy > 65535 || gz > 65535) return refuse("the grid is too large (2^31-1, 65535, 65535)");
  if (bx > 1024 || by > 1024 || bz > 64 || threads > kMaxThreads)
    return refuse("the block is too large (1024, 1024, 64, and 1024 threads)");
  if (k->threads && threads > k->threads)
    return refuse(("the block has more threads than __launch_bounds__ allows: " + std::to_string(k->threads)).c_str());
  if (shared > kMaxSharedBytes) return refuse("a block may have 48 KiB of shared memory");
  if (uint64_t(gx) * gy * gz > 0xffffffff) return refuse("the emulator takes up to 2^32-1 blocks");
  if (extra) return refuse("parameters by extra are not emulated");
  if (k->count && !params) return refuse("there are no parameters");
  size_t bytes = 0;
  for (uint32_t i = 0; i < k->count; i++) bytes += parameter_bytes(k->sizes[i]);
  auto values = std::make_shared<std::vector<char>>(bytes + 1);
  size_t at = 0;
  for (uint32_t i = 0; i < k->count; i++) {
    if (!params[i]) return refuse("a parameter is null");
    memcpy(values->data() + at, params[i], k->sizes[i]);
    at += parameter_bytes(k->sizes[i]);
  }
  return submit(s.get(), [=] {
    the().launches++;
    Launch l{k, dim3(gx, gy, gz), dim3(bx, by, bz), shared, values->data(), order(), launch_seed()};
    if (Result r = run(l)) return r;
    return memory_check(true, (std::string("after kernel ") + k->name).c_str());
  });
}

// ---- graphs ----

API cuStreamBeginCapture_v2(uint64_t stream, int mode) {
  CALL(CONTEXT);
  STREAM(s, stream);
  REQUIRE(mode >= 0 && mode <= 2, "no such mode");
  if (s->capture) return call.wrong("the stream is being captured", kIllegalState);
  return begin_capture(s, CaptureMode(mode));
}

API cuStreamEndCapture(uint64_t stream, uint64_t *graph) {
  CALL(CONTEXT);
  STREAM(s, stream);
  REQUIRE(graph, "null");
  *graph = 0;
  if (!s->capture) return call.wrong("the stream is not being captured", kIllegalState);
  std::shared_ptr<Graph> g;
  if (Result r = end_capture(s.get(), &g)) return r;
  *graph = the().graphs.add(g);
  return SUCCESS;
}

API cuStreamIsCapturing(uint64_t stream, int *status) {
  CALL(CONTEXT);
  STREAM(s, stream);
  REQUIRE(status, "null");
  *status = !s->capture ? 0 : s->capture->invalid ? 2 : 1;
  return SUCCESS;
}

API cuGraphInstantiateWithFlags(uint64_t *executable, uint64_t graph, unsigned long long flags) {
  CALL(CONTEXT);
  REQUIRE(executable, "null");
  REQUIRE(flags == 0, "the flags are not 0");
  auto g = the().graphs.get(graph);
  if (!g) return call.wrong("no live graph", INVALID_HANDLE);
  *executable = the().executables.add(g); // a graph that was captured does not change
  return SUCCESS;
}

API cuGraphGetNodes(uint64_t graph, void **nodes, size_t *count) {
  CALL(CONTEXT);
  REQUIRE(count, "null");
  REQUIRE(!nodes, "only the number of nodes is emulated");
  auto g = the().graphs.get(graph);
  if (!g) return call.wrong("no live graph", INVALID_HANDLE);
  *count = g->nodes.size();
  return SUCCESS;
}

API cuGraphDestroy(uint64_t graph) {
  CALL(CONTEXT);
  if (!the().graphs.live.erase(graph)) return call.wrong("no live graph", INVALID_HANDLE);
  return SUCCESS;
}

API cuGraphLaunch(uint64_t executable, uint64_t stream) {
  CALL(CONTEXT);
  STREAM(s, stream);
  auto g = the().executables.get(executable);
  if (!g) return call.wrong("no live instantiated graph", INVALID_HANDLE);
  return submit(s.get(), [g] { return run_graph(*g); });
}

API cuGraphExecDestroy(uint64_t executable) {
  CALL(CONTEXT);
  if (!the().executables.live.erase(executable)) return call.wrong("no live instantiated graph", INVALID_HANDLE);
  return SUCCESS;
}
