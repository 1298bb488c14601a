// The executor runs the blocks of one launch after another. A block's threads are fibers of one OS thread
// that switch at barriers and warp operations and nowhere else.
//
// The order in which threads and blocks run is the launch's order: 0 forward, 1 reverse and depth first (a thread
// that may go on does so before others begin), else a seed. Right kernels give the same bits in all of them.
#pragma once
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <string>

#include "emu.h"

namespace emu {

// CUresult values of cuda.h.
enum Result {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  NO_BINARY_FOR_GPU = 209,
  INVALID_PTX = 218,
  UNSUPPORTED_PTX_VERSION = 222,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  CONTEXT_IS_DESTROYED = 709,
  MISALIGNED_ADDRESS = 716,
  LAUNCH_FAILED = 719,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_MERGE = 902,
  CAPTURE_UNMATCHED = 903,
  CAPTURE_UNJOINED = 904,
  CAPTURE_ISOLATION = 905,
  CAPTURED_EVENT = 907,
  CAPTURE_WRONG_THREAD = 908,
};

constexpr unsigned kMaxThreads = 1024;       // of a block
constexpr size_t kMaxSharedBytes = 48 << 10; // of a block, declared and dynamic, as on sm_75 without opting in

struct Launch {
  const Kernel *kernel;
  dim3 grid, block;
  uint32_t shared;        // bytes of dynamic shared memory
  const char *parameters; // as Entry::call reads them
  unsigned order;
  uint64_t seed; // of this launch, where order is one
};

// run executes a launch whose limits were checked, and returns SUCCESS or what went wrong, having said it on
// stderr.
Result run(const Launch &l);

const Kernel *find_kernel(const std::string &name);

// install_handlers takes SIGSEGV, SIGBUS, SIGFPE and SIGILL while a kernel runs and hands them on otherwise.
// Once a process.
void install_handlers();

// report prints one line on stderr.
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

// fault ends the running kernel with a code.
[[noreturn]] void fault(Result code, const char *format, ...) __attribute__((format(printf, 2, 3)));

// describe_address says where an address lies; in memory.cpp, for global memory.
std::string describe_address(uintptr_t address);

// Random is a small generator (splitmix64) for orders.
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  uint32_t below(uint32_t n) { return uint32_t((next() >> 32) * n >> 32); }
};

} // namespace emu
