// The sampled softmax and its gradient: a warp a row of the logits, four rows a block. A tile of a row lies in
// registers, and the corrections of the shared negatives in shared memory, where all rows of a block find them.
#include "common.cuh"

constexpr int kLanes = 16;            // program.Lanes
constexpr int kRows = 4;              // of a block
constexpr int kHeld = 32;             // logits of a lane
constexpr int kTile = 32 * kHeld;     // negatives of a tile
constexpr int kThreads = 32 * kRows;  // of a block

// Softmax is the operands: those of kernels.SampledSoftmax, and a block's tile of the negatives.
struct Softmax {
  const float *pos, *neg, *pi, *ni, *logq;
  int m, k, n;
  float *correction, *item; // shared: the corrections, +Inf where a negative is none, and the items
};

// stage brings a tile of negatives, from first on, into shared memory.
DEVICE void stage(const Softmax &f, int first) {
  const int count = min(kTile, f.k - first);
#pragma unroll
  for (int i = 0; i < kTile / kThreads; i++) {
    const int j = (int)threadIdx.x + i * kThreads;
    if (j >= count) continue;
    const float item = f.ni[first + j];
    const int at = index_of(item, f.n);
    f.item[j] = item;
    f.correction[j] = at >= 0 ? f.logq[at] : __uint_as_float(0x7F800000u);
  }
}

// hold brings a tile of a row into registers, each logit corrected: -Inf for the positive itself, where a negative is
// none, and past the end. It is for all threads of a block.
DEVICE void hold(const Softmax &f, int row, float positive, int first, float b[kHeld]) {
  const int lane = (int)threadIdx.x % 32;
  const int count = min(kTile, f.k - first);
  const float *q = f.neg + (u64)row * f.k + first;
#pragma unroll
  for (int i = 0; i < kHeld; i++) b[i] = lane + i * 32 < count ? q[lane + i * 32] : 0.0f;
  __syncthreads(); // the last tile has been used
  stage(f, first);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kHeld; i++) {
    const int j = lane + i * 32;
    const bool on = j < count && f.item[j < count ? j : 0] != positive;
    const float x = b[i] - f.correction[j < count ? j : 0];
    b[i] = on ? x : __uint_as_float(0xFF800000u);
  }
}

// exp_below is exp(-z) for z >= 0, 0 past 87; NaN goes through.
DEVICE float exp_below(float z) { return z > 87.0f ? 0.0f : exp_of_minus(z); }

// log_of is log(s) for s >= 1: s = 2^e f with f near 1, and log(f) = 2 atanh((f-1)/(f+1)), cut at 2e-9. NaN goes
// through.
DEVICE float log_of(float s) {
  if (!(s >= 1.0f)) return s;
  // 0x3F3504F3 is sqrt(1/2): f lies between that and its double.
  const u32 bits = __float_as_uint(s) - 0x3F3504F3u;
  const int e = (int)(bits >> 23);
  const float f = __uint_as_float((bits & 0x7FFFFFu) + 0x3F3504F3u);
  const float t = (f - 1.0f) / (f + 1.0f);
  const float w = t * t;
  float q = fmaf(w, 1.0f / 11.0f, 1.0f / 9.0f);
  q = fmaf(q, w, 1.0f / 7.0f);
  q = fmaf(q, w, 1.0f / 5.0f);
  q = fmaf(q, w, 1.0f / 3.0f);
  const float twice = t + t;
  const float low = fmaf((float)e, -0x1.05c61p-29f, fmaf(twice * w, q, twice));
  return fmaf((float)e, 0x1.62e43p-1f, low);
}

// Row is what a row's loss and gradient are made of.
struct Row {
  bool some;                  // it has a positive
  float largest, a, sum, all; // the largest logit, the positive's, the sum of the negatives' exponentials, and of all
};

// row_of computes it, for all threads of a block. Where one tile is all, b holds the exponentials in the end.
DEVICE Row row_of(const Softmax &f, int row, float b[kHeld]) {
  const float positive = f.pi[row];
  const int at = index_of(positive, f.n);
  Row r;
  r.some = at >= 0;
  r.a = at >= 0 ? f.pos[row] - f.logq[at] : 0.0f;
  float largest = r.a;
  for (int first = 0; first < f.k; first += kTile) {
    hold(f, row, positive, first, b);
#pragma unroll
    for (int i = 0; i < kHeld; i++) largest = b[i] > largest ? b[i] : largest;
  }
#pragma unroll
  for (int half = 16; half > 0; half /= 2) {
    const float other = __shfl_xor_sync(kFullWarp, largest, half);
    largest = other > largest ? other : largest;
  }
  // In LaneSum's order: lane l < 16 has elements l, l+32, ... itself, and lane l+16 has those between.
  float sum = 0.0f;
  for (int first = 0; first < f.k; first += kTile) {
    if (f.k > kTile) hold(f, row, positive, first, b);
#pragma unroll
    for (int i = 0; i < kHeld; i++) {
      b[i] = exp_below(largest - b[i]);
      const float upper = __shfl_down_sync(kFullWarp, b[i], kLanes);
      sum = sum + b[i];
      sum = sum + upper;
    }
  }
#pragma unroll
  for (int half = kLanes / 2; half > 0; half /= 2) sum = sum + __shfl_down_sync(kFullWarp, sum, half);
  r.largest = largest;
  r.sum = __shfl_sync(kFullWarp, sum, 0);
  r.all = r.sum + exp_below(largest - r.a);
  return r;
}

// SOFTMAX is what both kernels begin with. Past the end a warp has the last row again, so that none is missing at a
// barrier.
#define SOFTMAX                                                              \
  SHARED_ARRAY(float, correction, kTile);                                    \
  SHARED_ARRAY(float, item, kTile);                                          \
  const Softmax f = {pos, neg, pi, ni, logq, m, k, n, correction, item};     \
  const int place = (int)blockIdx.x * kRows + (int)threadIdx.x / 32;         \
  const int row = min(place, m - 1), lane = (int)threadIdx.x % 32;           \
  float b[kHeld];                                                            \
  const Row r = row_of(f, row, b);

// softmax_terms: the terms of the loss, w (log(all) + largest - a).
extern "C" __global__ void __launch_bounds__(128)
    softmax_terms(const float *pos, const float *neg, const float *pi, const float *ni, const float *logq,
                  const float *w, float *terms, int m, int k, int n) {
  SOFTMAX
  if (place < m && lane == 0) terms[row] = r.some ? w[row] * (log_of(r.all) + (r.largest - r.a)) : 0.0f;
}

// softmax_grad: dneg = g e and dpos = -(g sum), g = (dloss/m w) / all; 0 in a row without a positive.
extern "C" __global__ void __launch_bounds__(128, 3)
    softmax_grad(const float *pos, const float *neg, const float *pi, const float *ni, const float *logq,
                 const float *w, const float *dloss, float *dpos, float *dneg, int m, int k, int n) {
  SOFTMAX
  const float c = dloss[0] / (float)m;
  const float g = c * w[row] / r.all;
  if (place < m && lane == 0) dpos[row] = r.some ? -(g * r.sum) : 0.0f;
  for (int first = 0; first < k; first += kTile) {
    if (k > kTile) {
      hold(f, row, pi[row], first, b);
#pragma unroll
      for (int i = 0; i < kHeld; i++) b[i] = exp_below(r.largest - b[i]);
    }
    float *out = dneg + (u64)row * k + first;
#pragma unroll
    for (int i = 0; i < kHeld; i++)
      if (place < m && first + lane + i * 32 < k) out[lane + i * 32] = r.some ? g * b[i] : 0.0f;
  }
}
