// Kernels with one fault each.
#include "words.cuh"

// Reads its neighbour's element with no barrier between.
extern "C" __global__ void missing_barrier(const float *x, float *y) {
  SHARED_ARRAY(float, s, 256);
  const int t = threadIdx.x;
  s[t] = x[t];
  y[t] = s[(t + 1) % 256];
}

// Lacks the second barrier: a fast warp overwrites what a slow one still reads.
extern "C" __global__ void missing_second_barrier(const float *x, float *y, int rounds) {
  SHARED_ARRAY(float, s, 256);
  const int t = threadIdx.x;
  float sum = 0.0f;
  for (int r = 0; r < rounds; r++) {
    s[t] = x[t] + r;
    __syncthreads();
    sum += s[255 - t];
  }
  y[t] = sum;
}

// Blocks write the same element.
extern "C" __global__ void block_race(int *y) {
  if (threadIdx.x == 0) y[0] = blockIdx.x;
}

extern "C" __global__ void read_at(const float *x, float *y, long long at) { y[0] = x[at]; }
extern "C" __global__ void write_at(float *y, long long at) {
  if (threadIdx.x == 2 && blockIdx.x == 1) y[at] = 1.0f;
}
extern "C" __global__ void read_byte_address(const char *x, float *y, long long at) { y[0] = *(const float *)(x + at); }
extern "C" __global__ void read_vector(const float *x, float4 *y, int at) { y[0] = *(const float4 *)(x + at); }

extern "C" __global__ void shared_write_at(float *y, int at) {
  SHARED_ARRAY(float, first, 30);
  SHARED_ARRAY(float, second, 1024);
  float *const p = first;
  second[threadIdx.x] = 0.0f;
  p[at] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = second[threadIdx.x];
}
extern "C" __global__ void shared_read_at(float *y, int at) {
  SHARED_ARRAY(float, array, 64);
  const float *const p = array;
  y[0] = p[at];
}
extern "C" __global__ void shared_index(float *y, int at) {
  SHARED_ARRAY(float, array, 64);
  y[0] = array[at];
}
extern "C" __global__ void local_index(float *y, int at) {
  float local[4] = {y[0], y[1], y[2], y[3]};
  y[0] = local[at];
}
extern "C" __global__ void overflows(int *y, int a) { y[0] = a * a; }
extern "C" __global__ void shifts(int *y, int by) { y[0] = 1 << by; }
extern "C" __global__ void shared_too_large(float *y) {
  SHARED_ARRAY(float, large, 12 * 1024);
  SHARED_ARRAY(float, more, 4);
  large[threadIdx.x] = more[threadIdx.x % 4];
  y[0] = large[0];
}

extern "C" __global__ void mask_without_caller(int *y) { y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, (int)threadIdx.x, 1); }
extern "C" __global__ void lane_outside_mask(int *y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_down_sync(0x0000ffffu, (int)threadIdx.x, 1);
}
extern "C" __global__ void lane_returned(int *y, int n) {
  if (threadIdx.x >= n) return;
  y[threadIdx.x] = __shfl_down_sync(0xffffffffu, (int)threadIdx.x, 1);
}
extern "C" __global__ void lanes_apart(int *y) {
  int v = 0;
  if (threadIdx.x == 0)
    v = __shfl_sync(0xffffffffu, 1, 0);
  else
    v = __shfl_sync(0xffffffffu, 2, 0);
  y[threadIdx.x] = v;
}
extern "C" __global__ void bad_width(int *y) { y[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0, 12); }
extern "C" __global__ void two_barriers(float *y) {
  if (threadIdx.x & 1) {
    __syncthreads();
    y[0] = 1.0f;
  } else {
    __syncthreads();
    y[1] = 1.0f;
  }
}
extern "C" __global__ void returns_early(float *y, int n) {
  if (threadIdx.x >= n) return;
  __syncthreads();
  y[threadIdx.x] = 1.0f;
}
extern "C" __global__ void barrier_in_warp(float *y) {
  if (threadIdx.x == 0) __syncthreads();
  y[0] = __shfl_sync(0xffffffffu, 1.0f, 0);
}
extern "C" __global__ void divides(int *y, int by) { y[0] = 7 / by; }
extern "C" __global__ void traps(int *y) {
  if (y[0] != 0) __trap();
}
#ifdef ONMART_EMULATOR
__attribute__((noinline))
#endif
__device__ static float deep(float *p, int n) {
  float local[1024];
  for (int i = 0; i < 1024; i++) local[i] = p[0] + n + i;
  if (n > 0) p[0] = local[n] + deep(local, n - 1);
  return local[n % 1024];
}
extern "C" __global__ void too_much_stack(float *y, int n) { y[0] = deep(y, n); }
// Reads what it never wrote.
extern "C" __global__ void undefined_shared(float *y) {
  SHARED_ARRAY(float, s, 32);
  y[threadIdx.x] = s[threadIdx.x];
}
