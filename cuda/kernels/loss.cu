// Binary cross-entropy on logits and its gradient, in float32. The exponential and the logarithm are our own, so
// that the loss too has the same bits everywhere.
#include "common.cuh"

// log1p_unit is log(1 + e) for 0 <= e <= 1 as 2 atanh(e / (2+e)), whose series in w <= 1/9 is cut at 1e-9 relative.
DEVICE float log1p_unit(float e) {
  const float s = e / (2.0f + e);
  const float w = s * s;
  float q = fmaf(w, 1.0f / 15.0f, 1.0f / 13.0f);
  q = fmaf(q, w, 1.0f / 11.0f);
  q = fmaf(q, w, 1.0f / 9.0f);
  q = fmaf(q, w, 1.0f / 7.0f);
  q = fmaf(q, w, 1.0f / 5.0f);
  q = fmaf(q, w, 1.0f / 3.0f);
  const float t = s + s;
  return fmaf(t * w, q, t);
}

DEVICE float exp_of_minus_size(float z) { return exp_of_minus(clamp_high(z < 0.0f ? -z : z)); }

// bce_term is w (max(z,0) - z t + log1p(exp(-|z|))).
DEVICE float bce_term(float z, float t, float w) {
  const float head = (z > 0.0f ? z : 0.0f) - z * t;
  return w * (head + log1p_unit(exp_of_minus_size(z)));
}

constexpr int kSumThreads = 512;
constexpr int kSumTile = 2048; // terms that pass through shared memory at once, a multiple of the lanes
constexpr int kLanes = 16;     // program.Lanes

// mean_of adds terms 0..m in the order of program.LaneSum: element i to lane i%16, ascending; then lane l takes
// lane l+8, l+4, l+2, l+1; and it divides by a number. It is for one block of kSumThreads threads.
template <class Term> DEVICE void mean_of(int m, float by, float *loss, Term term) {
  SHARED_ARRAY(float, tile, kSumTile);
  const int thread = (int)threadIdx.x;
  float sum = 0.0f;
  for (int first = 0; first < m; first += kSumTile) {
    const int count = min(kSumTile, m - first);
    __syncthreads(); // the last piece has been added
    for (int i = thread; i < count; i += kSumThreads) tile[i] = term(first + i);
    __syncthreads();
    if (thread < kLanes) {
#pragma unroll 8
      for (int i = thread; i < count; i += kLanes) sum = sum + tile[i];
    }
  }
  if (thread >= 32) return;
  for (int half = kLanes / 2; half > 0; half /= 2) sum = sum + __shfl_down_sync(kFullWarp, sum, half);
  if (thread == 0) *loss = sum / by;
}

// bce: all of it in one block.
extern "C" __global__ void __launch_bounds__(512) bce(const float *z, const float *t, const float *w, float *loss, int m) {
  mean_of(m, (float)m, loss, [=](int i) { return bce_term(z[i], t[i], w[i]); });
}

// bce_terms and lane_sum: the same for longer batches, the terms by many blocks. lane_sum ends other losses too.
extern "C" __global__ void __launch_bounds__(128)
    bce_terms(const float *z, const float *t, const float *w, float *terms, int m) {
  const int i = (int)(blockIdx.x * 128 + threadIdx.x);
  if (i < m) terms[i] = bce_term(z[i], t[i], w[i]);
}

extern "C" __global__ void __launch_bounds__(512) lane_sum(const float *terms, float *loss, int m, float by) {
  mean_of(m, by, loss, [=](int i) { return terms[i]; });
}

// bce_grad: dz = dloss w ((1-t) sigmoid(z) - t sigmoid(-z)) / m, without cancellation where t is 0 or 1.
extern "C" __global__ void __launch_bounds__(128)
    bce_grad(const float *z, const float *t, const float *w, const float *dloss, float *dz, int m) {
  const int i = (int)(blockIdx.x * 128 + threadIdx.x);
  if (i >= m) return;
  const float e = exp_of_minus_size(z[i]);
  const float large = 1.0f / (1.0f + e), small = e / (1.0f + e);
  const bool positive = z[i] >= 0.0f;
  const float s = positive ? large : small, rest = positive ? small : large;
  const float g = (1.0f - t[i]) * s - t[i] * rest;
  dz[i] = dloss[0] * w[i] * g / (float)m;
}
