// The pinball loss of quantiles and its gradient. The columns of a row are the levels of its first step, then those of
// the next.
#include "common.cuh"

constexpr int kLanes = 16; // program.Lanes
constexpr int kRows = 8;   // of a block

// pinball_rows: sixteen lanes a row, and the sum of its terms in the order of program.LaneSum.
extern "C" __global__ void __launch_bounds__(128)
    pinball_rows(const float *y, const float *t, const float *w, const float *levels, float *sums, int m, int h, int q) {
  const int lane = (int)threadIdx.x % kLanes;
  const int place = (int)blockIdx.x * kRows + (int)threadIdx.x / kLanes;
  const int row = min(place, m - 1); // past the end the last one again, so that no lane is missing below
  const int n = h * q;
  y += (u64)row * n, t += (u64)row * h, w += (u64)row * h;
  int step = lane / q, level = lane % q;
  float sum = 0.0f;
  for (int c = lane; c < n; c += kLanes) {
    const float weight = w[step];
    if (weight != 0.0f) {
      const float u = t[step] - y[c], v = levels[level];
      sum = sum + weight * (u > 0.0f ? v * u : (v - 1.0f) * u);
    }
    level += kLanes % q;
    step += kLanes / q;
    if (level >= q) level -= q, step++;
  }
#pragma unroll
  for (int half = kLanes / 2; half > 0; half /= 2) sum = sum + __shfl_down_sync(kFullWarp, sum, half, kLanes);
  if (place < m && lane == 0) sums[row] = sum;
}

// pinball_grad: a thread an element; c is dloss divided by the number of elements.
extern "C" __global__ void __launch_bounds__(128)
    pinball_grad(const float *y, const float *t, const float *w, const float *levels, const float *dloss, float *dy, int m,
                 int h, int q, float elements) {
  const u32 at = blockIdx.x * 128 + threadIdx.x;
  if (at >= (u32)(m * h * q)) return;
  const u32 step = at / (u32)q; // of all rows
  const float weight = w[step], v = levels[at % (u32)q];
  const float u = t[step] - y[at];
  float slope = 0.0f;
  if (weight != 0.0f && u > 0.0f) slope = -v;
  if (weight != 0.0f && u < 0.0f) slope = 1.0f - v;
  if (slope != 0.0f) slope = slope * (dloss[0] / elements * weight);
  dy[at] = slope;
}
