// Sums in a fixed order: over rows (col_sum) and over the slices of a product (sum_slices).
#include "common.cuh"

// Rows of slice blockIdx.y: [first, last).
struct Run {
  int first, last;
};

DEVICE Run run_of(int m, int run) {
  Run r;
  const long long first = (long long)blockIdx.y * run;
  r.first = (int)min(first, (long long)m);
  r.last = (int)min(first + run, (long long)m);
  return r;
}

// col_sum: a thread a column, one chain over the rows of its slice, ascending from 0.
extern "C" __global__ void __launch_bounds__(64) col_sum(const float *x, float *y, int m, int n, int run) {
  const int column = (int)(blockIdx.x * 64 + threadIdx.x);
  if (column >= n) return;
  const Run r = run_of(m, run);
  const float *q = x + (u64)r.first * n + column;
  float sum = 0.0f;
  int row = r.first;
  for (; row + 16 <= r.last; row += 16) { // loads that wait for nothing, then the chain
    float v[16];
#pragma unroll
    for (int i = 0; i < 16; i++) v[i] = q[(u64)i * n];
#pragma unroll
    for (int i = 0; i < 16; i++) sum = sum + v[i];
    q += (u64)16 * n;
  }
  for (; row < r.last; row++, q += n) sum = sum + *q;
  y[(u64)blockIdx.y * n + column] = sum;
}

constexpr int kNarrowTile = 2048; // elements that pass through shared memory at once

// col_sum_narrow: n <= 16 (narrow of reduce.go), where a thread a column would leave most of the bus empty. All 256
// threads bring a piece of the slice into shared memory, and the first n add it up, as col_sum does.
extern "C" __global__ void __launch_bounds__(256) col_sum_narrow(const float *x, float *y, int m, int n, int run) {
  SHARED_ARRAY(float, tile, kNarrowTile);
  const Run r = run_of(m, run);
  const int rows = kNarrowTile / n; // a piece is whole rows
  const int column = (int)threadIdx.x;
  float sum = 0.0f;
  for (int row = r.first; row < r.last; row += rows) {
    const int count = min(rows, r.last - row) * n;
    const float *q = x + (u64)row * n;
    __syncthreads(); // the last piece has been added
    for (int i = (int)threadIdx.x; i < count; i += 256) tile[i] = q[i];
    __syncthreads();
    if (column < n) {
#pragma unroll 8
      for (int i = column; i < count; i += n) sum = sum + tile[i];
    }
  }
  if (column < n) y[(u64)blockIdx.y * n + column] = sum;
}

// sum_slices: y[i] = x[0][i] + x[1][i] + ..., ascending.
extern "C" __global__ void __launch_bounds__(128) sum_slices(const float *x, float *y, long long n, int slices) {
  const u64 at = (u64)blockIdx.x * 128 + threadIdx.x;
  if (at >= (u64)n) return;
  float sum = x[at];
#pragma unroll 8
  for (int s = 1; s < slices; s++) sum = sum + x[(u64)s * n + at];
  y[at] = sum;
}
