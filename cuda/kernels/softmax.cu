// The sampled softmax and its gradient: sixteen lanes a row of the logits, eight rows a block. The corrections of the shared
// negatives pass through shared memory, where all rows of a block find them.
#include "common.cuh"

constexpr int kLanes = 16; // program.Lanes
constexpr int kRows = 8;   // of a block
constexpr int kTile = 1024; // negatives that are in shared memory at once, a multiple of the lanes

// Softmax is the operands: those of kernels.SampledSoftmax.
struct Softmax {
  const float *pos, *neg, *pi, *ni, *logq;
  int m, k, n;
};

// Shared is a tile of the negatives: their corrections, +Inf where one is none, and their items.
struct Shared {
  float *correction, *item;
};

// stage brings a tile of negatives, from first on, into shared memory.
DEVICE void stage(const Softmax &f, const Shared &s, int first) {
  const int count = min(kTile, f.k - first);
  for (int j = (int)threadIdx.x; j < count; j += kLanes * kRows) {
    const float item = f.ni[first + j];
    const int at = index_of(item, f.n);
    s.item[j] = item;
    s.correction[j] = at >= 0 ? f.logq[at] : __uint_as_float(0x7F800000u);
  }
}

// each calls do with every negative of the row that this lane has, its logit corrected, ascending: -Inf for the positive
// itself and where there is none. staged says that the only tile there is lies in shared memory.
template <class Do> DEVICE void each(const Softmax &f, const Shared &s, const float *row, float positive, bool staged, Do visit) {
  const int lane = (int)threadIdx.x % kLanes;
  for (int first = 0; first < f.k; first += kTile) {
    if (!staged) {
      __syncthreads(); // the last tile has been used
      stage(f, s, first);
      __syncthreads();
    }
    const int count = min(kTile, f.k - first);
#pragma unroll 4
    for (int j = lane; j < count; j += kLanes) {
      const float x = row[first + j] - s.correction[j];
      visit(first + j, s.item[j] == positive ? __uint_as_float(0xFF800000u) : x);
    }
  }
}

// exp_below is exp(-z) for z >= 0, 0 past 87; NaN goes through.
DEVICE float exp_below(float z) { return z > 87.0f ? 0.0f : exp_of_minus(z); }

// log_of is log(s) for s >= 1: s = 2^e f with f near 1, and log(f) = 2 atanh((f-1)/(f+1)), cut at 2e-9. NaN goes through.
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
  bool some;                 // it has a positive
  float largest, a, sum, all; // the largest logit, the positive's, the sum of the negatives' exponentials, and of all
};

DEVICE Row row_of(const Softmax &f, const Shared &s, int row, bool staged) {
  const float positive = f.pi[row];
  const int at = index_of(positive, f.n);
  Row r;
  r.some = at >= 0;
  r.a = at >= 0 ? f.pos[row] - f.logq[at] : 0.0f;
  float largest = r.a;
  const float *q = f.neg + (u64)row * f.k;
  each(f, s, q, positive, staged, [&](int, float b) { largest = b > largest ? b : largest; });
#pragma unroll
  for (int half = kLanes / 2; half > 0; half /= 2) {
    const float other = __shfl_xor_sync(kFullWarp, largest, half);
    largest = other > largest ? other : largest;
  }
  float sum = 0.0f;
  each(f, s, q, positive, staged, [&](int, float b) { sum = sum + exp_below(largest - b); });
#pragma unroll
  for (int half = kLanes / 2; half > 0; half /= 2) sum = sum + __shfl_down_sync(kFullWarp, sum, half, kLanes);
  r.largest = largest;
  r.sum = __shfl_sync(kFullWarp, sum, 0, kLanes);
  r.all = r.sum + exp_below(largest - r.a);
  return r;
}

// begin is what both kernels begin with: the tile, where one is enough, and the row; past the end the last one again, so that
// no thread is missing at a barrier.
#define SOFTMAX_BEGIN                                                             \
  SHARED_ARRAY(float, correction, kTile);                                         \
  SHARED_ARRAY(float, item, kTile);                                               \
  const Softmax f = {pos, neg, pi, ni, logq, m, k, n};                            \
  const Shared s = {correction, item};                                            \
  const bool staged = k <= kTile;                                                 \
  if (staged) {                                                                   \
    stage(f, s, 0);                                                               \
    __syncthreads();                                                              \
  }                                                                               \
  const int place = (int)blockIdx.x * kRows + (int)threadIdx.x / kLanes;          \
  const int row = min(place, m - 1);                                              \
  const Row r = row_of(f, s, row, staged);

// softmax_terms: the terms of the loss, w (log(all) + largest - a).
extern "C" __global__ void __launch_bounds__(128)
    softmax_terms(const float *pos, const float *neg, const float *pi, const float *ni, const float *logq, const float *w,
                  float *terms, int m, int k, int n) {
  SOFTMAX_BEGIN
  if (place < m && threadIdx.x % kLanes == 0) terms[row] = r.some ? w[row] * (log_of(r.all) + (r.largest - r.a)) : 0.0f;
}

// softmax_grad: dneg = g e and dpos = -(g sum), g = (dloss/m w) / all; 0 in a row without a positive.
extern "C" __global__ void __launch_bounds__(128)
    softmax_grad(const float *pos, const float *neg, const float *pi, const float *ni, const float *logq, const float *w,
                 const float *dloss, float *dpos, float *dneg, int m, int k, int n) {
  SOFTMAX_BEGIN
  const float c = dloss[0] / (float)m;
  const float g = c * w[row] / r.all;
  if (place < m && threadIdx.x % kLanes == 0) dpos[row] = r.some ? -(g * r.sum) : 0.0f;
  float *out = dneg + (u64)row * k;
  const bool on = place < m;
  each(f, s, neg + (u64)row * k, pi[row], staged, [&](int j, float b) {
    if (on) out[j] = r.some ? g * exp_below(r.largest - b) : 0.0f;
  });
}
