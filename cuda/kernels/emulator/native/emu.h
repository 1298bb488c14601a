// emu.h is put in front of a .cu file (g++ -include emu.h) so that the host runs its kernels with the
// meaning that CUDA gives barriers, warps and shared memory.
//
// Every CUDA thread is a fiber of an executor (executor.cpp); the words below that end in _sync, and
// __syncthreads, switch between fibers. A kernel's floating-point operations are the host's: sums and
// products as written (build with -ffp-contract=off), fmaf fused, expf and its like from the host's libm.
//
// What is not emulated does not compile: textures, inline PTX, cooperative groups, dynamic parallelism,
// __activemask. Memory is that of the host, stronger than a GPU's: a missing __threadfence is not found.
#pragma once
#if !defined(__x86_64__)
#error "the emulator is written for x86-64"
#endif
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>
#include <utility>

#define ONMART_EMULATOR 1

// ---- types ----

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

#define EMU_VECTORS(T, name, align2, align4)                        \
  struct alignas(align2) name##2 { T x, y; };                       \
  struct alignas(align4) name##4 { T x, y, z, w; };                 \
  static inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTORS(float, float, 8, 16)
EMU_VECTORS(int, int, 8, 16)
EMU_VECTORS(unsigned, uint, 8, 16)
EMU_VECTORS(double, double, 16, 16)
#undef EMU_VECTORS

// ---- what the executor offers ----

namespace emu {

// Block is what a kernel may ask of the block it runs in.
struct Block {
  uint3 index;
  dim3 dim, grid;
};

// Site is a place in the source that threads wait at, and what they do there.
struct Site {
  const char *file;
  int line;
  const char *what;
};

// Shared is one shared array of the source; every block of the kernels that reach it has its own content.
struct Shared {
  const char *name, *file;
  int line;
  size_t bytes;
  int id = -1; // given out when it is first reached
};

struct Kernel {
  const char *name;
  void (*call)(const char *parameters); // runs it for the current thread
  const uint32_t *sizes;                // bytes of each parameter
  uint32_t count;                       // of parameters
  uint32_t threads;                     // __launch_bounds__, 0 where it has none
  Kernel *next;
};
void add_kernel(Kernel *k);

#define EMU_TLS extern __thread __attribute__((tls_model("initial-exec")))
EMU_TLS uint3 *thread_index; // of the running CUDA thread
EMU_TLS Block *block;        // of the running CUDA thread
EMU_TLS char **shared_ready; // address of each shared array by id, null until the block has touched it
#undef EMU_TLS

enum Vote { COUNT, ALL, ANY };
int barrier(const Site *at, bool predicate, Vote vote);
// exchange waits for all lanes of the mask and returns the value of lane `from`.
uint64_t exchange(const Site *at, unsigned mask, uint64_t value, unsigned from);
// ballot waits for all lanes of the mask and returns the bits of those with the predicate.
unsigned ballot(const Site *at, unsigned mask, bool predicate);
unsigned lane();
char *shared_first(Shared *s); // of this block; filled with NaN
char *shared_dynamic(const Site *at);
[[noreturn]] void trap(const char *why); // ends the kernel with LAUNCH_FAILED

inline char *shared(Shared *s) {
  int id = __atomic_load_n(&s->id, __ATOMIC_RELAXED);
  if (__builtin_expect(id >= 0, 1)) {
    char *p = shared_ready[id];
    if (__builtin_expect(p != nullptr, 1)) return p;
  }
  return shared_first(s);
}

// Segment of a shuffle: the lanes first to last among which the caller's moves.
struct Segment {
  unsigned lane, first, last;
};
inline Segment segment(int width) {
  unsigned w = unsigned(width), l = lane();
  if (w == 0 || w > 32 || (w & (w - 1))) trap("the width of a shuffle is not a power of two up to 32");
  return {l, l & ~(w - 1), l | (w - 1)};
}
template <class T>
T moved(const Site *at, unsigned mask, T v, unsigned from) {
  static_assert(std::is_arithmetic<T>::value && sizeof(T) <= 8, "a shuffle moves a number of up to 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &v, sizeof v);
  bits = exchange(at, mask, bits, from);
  memcpy(&v, &bits, sizeof v);
  return v;
}
template <class T>
T shuffle(const Site *at, unsigned mask, T v, int source, int width = 32) {
  Segment s = segment(width);
  return moved(at, mask, v, s.first | (unsigned(source) & unsigned(width - 1)));
}
template <class T>
T shuffle_up(const Site *at, unsigned mask, T v, unsigned delta, int width = 32) {
  Segment s = segment(width);
  return moved(at, mask, v, delta > s.lane - s.first ? s.lane : s.lane - delta);
}
template <class T>
T shuffle_down(const Site *at, unsigned mask, T v, unsigned delta, int width = 32) {
  Segment s = segment(width);
  return moved(at, mask, v, delta > s.last - s.lane ? s.lane : s.lane + delta);
}
template <class T>
T shuffle_xor(const Site *at, unsigned mask, T v, int bits, int width = 32) {
  Segment s = segment(width);
  unsigned from = s.lane ^ unsigned(bits);
  return moved(at, mask, v, from > s.last ? s.lane : from);
}
struct SyncWarp {
  const Site *at;
  void operator()(unsigned mask = ~0u) const { exchange(at, mask, 0, lane()); }
};

// Parameters of a kernel lie one after the other, each aligned to 16 bytes.
constexpr size_t parameter_bytes(size_t n) { return (n + 15) & ~size_t(15); }
template <auto K>
struct Entry;
template <class... A, void (*K)(A...)>
struct Entry<K> {
  static constexpr uint32_t count = sizeof...(A);
  static constexpr uint32_t sizes[sizeof...(A) + 1] = {uint32_t(sizeof(A))..., 0};
  static constexpr size_t offset(size_t i) {
    size_t at = 0;
    for (size_t k = 0; k < i; k++) at += parameter_bytes(sizes[k]);
    return at;
  }
  template <size_t... I>
  static void spread(const char *p, std::index_sequence<I...>) {
    (void)p;
    K(*reinterpret_cast<const A *>(p + offset(I))...);
  }
  static void call(const char *p) { spread(p, std::index_sequence_for<A...>{}); }
};
struct Add {
  Kernel k;
  Add(const char *name, void (*call)(const char *), const uint32_t *sizes, uint32_t count, uint32_t threads)
      : k{name, call, sizes, count, threads, nullptr} {
    add_kernel(&k);
  }
};

} // namespace emu

// EMU_KERNEL makes a kernel known by its name; the build appends one a kernel. bounds is what stands in
// __launch_bounds__, of which the first number counts.
#define EMU_KERNEL(name, ...)                                                                                        \
  static emu::Add emu_add_##name(#name, emu::Entry<&name>::call, emu::Entry<&name>::sizes, emu::Entry<&name>::count, \
                                 emu::first_bound(__VA_ARGS__));
namespace emu {
constexpr uint32_t first_bound() { return 0; }
template <class... R>
constexpr uint32_t first_bound(unsigned long long threads, R...) {
  return uint32_t(threads);
}
} // namespace emu

// ---- words of CUDA C++ ----

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __managed__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
// Not checked and not undefined at the start of a block: kernels use SHARED_ARRAY.
#define __shared__ static thread_local

// SHARED_ARRAY declares `__shared__ __align__(16) T name[count]`. It lies between inaccessible pages and holds
// NaN (0xff) at the start of a block. SHARED_DYNAMIC names the launch's dynamic shared memory, likewise.
#define SHARED_ARRAY(T, name, count)                                                    \
  static emu::Shared emu_shared_##name{#name, __FILE__, __LINE__, sizeof(T) * (count)}; \
  T(&name)[count] = *reinterpret_cast<T(*)[count]>(emu::shared(&emu_shared_##name))
#define SHARED_DYNAMIC(T, name) \
  T *const name = reinterpret_cast<T *>(emu::shared_dynamic(EMU_SITE("dynamic shared memory")))

#define EMU_SITE(what)                                       \
  ([]() -> const emu::Site * {                               \
    static constexpr emu::Site at{__FILE__, __LINE__, what}; \
    return &at;                                              \
  }())

#define threadIdx (*emu::thread_index)
#define blockIdx (emu::block->index)
#define blockDim (emu::block->dim)
#define gridDim (emu::block->grid)
#define warpSize 32

#define __syncthreads() ((void)emu::barrier(EMU_SITE("__syncthreads"), false, emu::COUNT))
#define __syncthreads_count(p) (emu::barrier(EMU_SITE("__syncthreads_count"), (p) != 0, emu::COUNT))
#define __syncthreads_and(p) (emu::barrier(EMU_SITE("__syncthreads_and"), (p) != 0, emu::ALL))
#define __syncthreads_or(p) (emu::barrier(EMU_SITE("__syncthreads_or"), (p) != 0, emu::ANY))
#define __syncwarp(...) (emu::SyncWarp{EMU_SITE("__syncwarp")}(__VA_ARGS__))
#define __shfl_sync(mask, ...) emu::shuffle(EMU_SITE("__shfl_sync"), mask, __VA_ARGS__)
#define __shfl_up_sync(mask, ...) emu::shuffle_up(EMU_SITE("__shfl_up_sync"), mask, __VA_ARGS__)
#define __shfl_down_sync(mask, ...) emu::shuffle_down(EMU_SITE("__shfl_down_sync"), mask, __VA_ARGS__)
#define __shfl_xor_sync(mask, ...) emu::shuffle_xor(EMU_SITE("__shfl_xor_sync"), mask, __VA_ARGS__)
#define __ballot_sync(mask, p) (emu::ballot(EMU_SITE("__ballot_sync"), mask, (p) != 0))
#define __any_sync(mask, p) (int(emu::ballot(EMU_SITE("__any_sync"), mask, (p) != 0) != 0))
#define __all_sync(mask, p) (int(emu::ballot(EMU_SITE("__all_sync"), mask, !(p)) == 0))

static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
[[noreturn]] static inline void __trap() { emu::trap("__trap"); }

// ---- numbers ----

static inline float __uint_as_float(unsigned v) {
  float r;
  memcpy(&r, &v, 4);
  return r;
}
static inline float __int_as_float(int v) { return __uint_as_float(unsigned(v)); }
static inline unsigned __float_as_uint(float v) {
  unsigned r;
  memcpy(&r, &v, 4);
  return r;
}
static inline int __float_as_int(float v) { return int(__float_as_uint(v)); }
static inline double __longlong_as_double(long long v) {
  double r;
  memcpy(&r, &v, 8);
  return r;
}
static inline long long __double_as_longlong(double v) {
  long long r;
  memcpy(&r, &v, 8);
  return r;
}

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __frsqrt_rn(float a) { return float(1.0 / __builtin_sqrt(double(a))); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline double __dsqrt_rn(double a) { return __builtin_sqrt(a); }
static inline float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }
static inline float rsqrtf(float a) { return __frsqrt_rn(a); }
static inline double rsqrt(double a) { return 1.0 / __builtin_sqrt(a); }
// The GPU's fast versions are less exact than these.
#define __expf(a) expf(a)
#define __logf(a) logf(a)
static inline float __fdividef(float a, float b) { return a / b; }

static inline int __float2int_rn(float a) { return int(__builtin_rintf(a)); }
static inline int __float2int_rz(float a) { return int(a); }
static inline unsigned __float2uint_rz(float a) { return unsigned(a); }
static inline float __int2float_rn(int a) { return float(a); }
static inline float __uint2float_rn(unsigned a) { return float(a); }
static inline float __ull2float_rn(unsigned long long a) { return float(a); }
static inline float __ll2float_rn(long long a) { return float(a); }
static inline double __int2double_rn(int a) { return double(a); }
static inline double __uint2double_rn(unsigned a) { return double(a); }
static inline float __double2float_rn(double a) { return float(a); }

static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
static inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __clz(int a) { return a ? __builtin_clz(unsigned(a)) : 32; }
static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __ffs(int a) { return __builtin_ffs(a); }
static inline int __clzll(long long a) { return a ? __builtin_clzll((unsigned long long)a) : 64; }
static inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }

// As in CUDA: for numbers, where NaN loses against a number.
static inline float min(float a, float b) { return __builtin_fminf(a, b); }
static inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
static inline double min(double a, double b) { return __builtin_fmin(a, b); }
static inline double max(double a, double b) { return __builtin_fmax(a, b); }
#define EMU_MINMAX(T)                                     \
  static inline T min(T a, T b) { return a < b ? a : b; } \
  static inline T max(T a, T b) { return a > b ? a : b; }
EMU_MINMAX(int)
EMU_MINMAX(unsigned)
EMU_MINMAX(long)
EMU_MINMAX(unsigned long)
EMU_MINMAX(long long)
EMU_MINMAX(unsigned long long)
#undef EMU_MINMAX
static inline unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
static inline unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
static inline unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }
static inline unsigned max(int a, unsigned b) { return max(unsigned(a), b); }

template <class T>
static inline T __ldg(const T *p) {
  return *p;
}
template <class T>
static inline T __ldcg(const T *p) {
  return *p;
}
template <class T>
static inline void __stcg(T *p, T v) {
  *p = v;
}

// ---- atomics ----

namespace emu {
template <class T, class F>
T change(T *p, F f) {
  using B = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  static_assert(sizeof(T) == sizeof(B), "atomics are on 4 or 8 bytes");
  B old = __atomic_load_n(reinterpret_cast<B *>(p), __ATOMIC_RELAXED), next;
  T value;
  do {
    memcpy(&value, &old, sizeof value);
    T changed = f(value);
    memcpy(&next, &changed, sizeof next);
  } while (
      !__atomic_compare_exchange_n(reinterpret_cast<B *>(p), &old, next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return value;
}
template <class T>
struct Same {
  using type = T;
};
template <class T>
using same = typename Same<T>::type;
} // namespace emu
#define EMU_ATOMIC(name, expression)           \
  template <class T>                           \
  static inline T name(T *p, emu::same<T> v) { \
    return emu::change(p, [v](T a) -> T {      \
      (void)a;                                 \
      return (expression);                     \
    });                                        \
  }
EMU_ATOMIC(atomicAdd, a + v)
EMU_ATOMIC(atomicSub, a - v)
EMU_ATOMIC(atomicMin, v < a ? v : a)
EMU_ATOMIC(atomicMax, v > a ? v : a)
EMU_ATOMIC(atomicExch, v)
EMU_ATOMIC(atomicAnd, a &v)
EMU_ATOMIC(atomicOr, a | v)
EMU_ATOMIC(atomicXor, a ^ v)
EMU_ATOMIC(atomicInc, a >= v ? T(0) : T(a + 1))
EMU_ATOMIC(atomicDec, a == 0 || a > v ? v : T(a - 1))
#undef EMU_ATOMIC
template <class T>
static inline T atomicCAS(T *p, emu::same<T> compare, emu::same<T> v) {
  return emu::change(p, [=](T a) -> T { return a == compare ? v : a; });
}
