// Kernels that are right: the same result in every order.
#include "words.cuh"

// y [m,n] = a [m,k] b [k,n] over tiles in shared memory.
extern "C" __global__ void __launch_bounds__(256) tiled(const float *a, const float *b, float *y, int m, int n, int k) {
  SHARED_ARRAY(float, as, TILE * TILE);
  SHARED_ARRAY(float, bs, TILE * TILE);
  const int x = threadIdx.x, r = threadIdx.y;
  const int row = blockIdx.y * TILE + r, column = blockIdx.x * TILE + x;
  float sum = 0.0f;
  for (int k0 = 0; k0 < k; k0 += TILE) {
    as[r * TILE + x] = row < m && k0 + x < k ? a[row * k + k0 + x] : 0.0f;
    bs[r * TILE + x] = column < n && k0 + r < k ? b[(k0 + r) * n + column] : 0.0f;
    __syncthreads();
#pragma unroll 4
    for (int i = 0; i < TILE; i++) sum = fmaf(as[r * TILE + i], bs[i * TILE + x], sum);
    __syncthreads();
  }
  if (row < m && column < n) y[row * n + column] = sum;
}

// y[block] = sum of the block's run of x, by shuffles and one array.
extern "C" __global__ void block_sums(const int *x, int *y, int n) {
  SHARED_ARRAY(int, warps, 32);
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int s = at < n ? x[at] : 0;
  for (int d = 16; d > 0; d /= 2) s += __shfl_down_sync(0xffffffffu, s, d);
  if (lane == 0) warps[warp] = s;
  __syncthreads();
  if (warp == 0) {
    const int count = (blockDim.x + 31) / 32;
    s = lane < count ? warps[lane] : 0;
    for (int d = 16; d > 0; d /= 2) s += __shfl_xor_sync(0xffffffffu, s, d);
    if (lane == 0) y[blockIdx.x] = s;
  }
}

// One warp: every warp operation once, y [32,10].
extern "C" __global__ void warp_words(int *y) {
  const unsigned all = 0xffffffffu;
  const int lane = threadIdx.x;
  int *row = y + 10 * lane;
  row[0] = __shfl_sync(all, lane * 3, 5);
  row[1] = __shfl_sync(all, lane * 3, 9, 8); // lane 1 of each segment of 8
  row[2] = __shfl_up_sync(all, lane, 3);
  row[3] = __shfl_up_sync(all, lane, 3, 16);
  row[4] = __shfl_down_sync(all, lane, 5, 8);
  row[5] = __shfl_xor_sync(all, lane, 9, 8); // leaves the segment upwards: own value
  row[6] = (int)__ballot_sync(all, lane % 3 == 0);
  row[7] = __any_sync(all, lane == 7) * 10 + __all_sync(all, lane < 32);
  if (lane < 16)
    row[8] = __shfl_xor_sync(0x0000ffffu, lane, 1);
  else
    row[8] = __shfl_xor_sync(0xffff0000u, lane, 2);
  const double d = __shfl_down_sync(all, lane + 0.5, 1);
  __syncwarp();
  row[9] = (int)(2.0 * d);
}

// Counts by barrier: y[0] threads with odd x, y[1] whether all are positive, y[2] whether any is 3.
extern "C" __global__ void votes(const int *x, int *y) {
  const int v = x[threadIdx.x];
  const int odd = __syncthreads_count(v & 1);
  const int positive = __syncthreads_and(v > 0);
  const int three = __syncthreads_or(v == 3);
  if (threadIdx.x == 0) y[0] = odd, y[1] = positive != 0, y[2] = three != 0;
}

// Histogram with atomics in shared and global memory.
extern "C" __global__ void histogram(const int *x, unsigned *y, int n) {
  SHARED_ARRAY(unsigned, bins, 16);
  if (threadIdx.x < 16) bins[threadIdx.x] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&bins[x[i] & 15], 1u);
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(&y[threadIdx.x], bins[threadIdx.x]);
  if (threadIdx.x == 0) atomicMax(&y[16], blockIdx.x), atomicMin(&y[17], blockIdx.x), atomicCAS(&y[18], 7u, 8u), atomicExch(&y[19], 5u);
}

// The launch's dynamic shared memory, reversed.
extern "C" __global__ void reversed(const float *x, float *y) {
  SHARED_DYNAMIC(float, s);
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
}

// The same through a plain __shared__ array, which works and is not checked.
extern "C" __global__ void plain_shared(const float *x, float *y) {
  __shared__ float s[100];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[99 - threadIdx.x];
}

// Parameters of every size, and none.
struct Mixed {
  char c[3];
  double d;
};
extern "C" __global__ void parameters(double *y, char c, short s, int i, long long l, float f, double d, Mixed m) {
  if (threadIdx.x == 0) y[0] = c, y[1] = s, y[2] = i, y[3] = (double)l, y[4] = f, y[5] = d, y[6] = m.c[2], y[7] = m.d;
}
extern "C" __global__ void nothing() {}

// y = x + 1, and y = x * 2, in place.
SIMPLE(increment, x[i] + 1.0f)
SIMPLE(twice, x[i] * 2.0f)

// Nothing but barriers and shuffles, to time them.
extern "C" __global__ void barriers(int *y, int n) {
  for (int i = 0; i < n; i++) __syncthreads();
  y[threadIdx.x] = n;
}
extern "C" __global__ void shuffles(int *y, int n) {
  int v = threadIdx.x;
  for (int i = 0; i < n; i++) v = __shfl_xor_sync(0xffffffffu, v, 1);
  y[threadIdx.x] = v;
}
