// Tables of embeddings: rows looked up, multiplied and scaled, items drawn, and the optimizer of the rows that a step
// touches.
#include "adam.cuh"
#include "common.cuh"

constexpr int kLookupAhead = 8; // rows of the table that are on the way at once

// lookup: a thread an element of y; the rows that idx names are added in its order, from the first there is.
extern "C" __global__ void __launch_bounds__(128)
    lookup(const float *table, const float *idx, float *y, int m, int w, int n, int d) {
  const u32 at = blockIdx.x * 128 + threadIdx.x;
  if (at >= (u32)(m * d)) return;
  const u32 row = at / (u32)d, column = at % (u32)d;
  const float *q = idx + (u64)row * w;
  float sum = 0.0f;
  int count = 0;
  for (int j = 0; j < w; j += kLookupAhead) {
    int from[kLookupAhead];
    float v[kLookupAhead];
#pragma unroll
    for (int i = 0; i < kLookupAhead; i++) from[i] = j + i < w ? index_of(q[j + i], n) : -1;
#pragma unroll
    for (int i = 0; i < kLookupAhead; i++) v[i] = from[i] >= 0 ? table[(u64)from[i] * d + column] : 0.0f;
#pragma unroll
    for (int i = 0; i < kLookupAhead; i++) {
      if (from[i] < 0) continue;
      sum = count == 0 ? v[i] : sum + v[i];
      count++;
    }
  }
  y[at] = count > 1 ? sum / (float)count : sum;
}

// sample: a thread a draw, which is the least i with cdf[i] > u, or the last.
extern "C" __global__ void __launch_bounds__(64)
    sample(const State *state, const float *cdf, float *idx, int k, int n, u64 seed, u32 site) {
  const int j = (int)(blockIdx.x * 64 + threadIdx.x);
  if (j >= k) return;
  const Words r = philox((u32)seed, (u32)(seed >> 32), (u32)j >> 2, 0, state->step, site);
  const int i = j & 3;
  const u32 word = i == 0 ? r.w[0] : i == 1 ? r.w[1] : i == 2 ? r.w[2] : r.w[3];
  const float u = (float)(word >> 8) * 0x1p-24f;
  int low = 0, high = n - 1;
  while (low < high) {
    const int middle = (low + high) >> 1;
    if (cdf[middle] > u)
      high = middle;
    else
      low = middle + 1;
  }
  idx[j] = (float)low;
}

constexpr int kDot = 32;           // rows of a warp, and columns that pass through shared memory at once
constexpr int kDotLine = kDot + 1; // a float apart, so that 32 rows lie in 32 banks

// row_dot: a warp 32 rows, a lane the chain of one. Rows are read along their columns and turned in shared memory.
extern "C" __global__ void __launch_bounds__(32) row_dot(const float *a, const float *b, float *s, int m, int d) {
  SHARED_ARRAY(float, x, kDot * kDotLine);
  SHARED_ARRAY(float, z, kDot * kDotLine);
  const int lane = (int)threadIdx.x;
  const int row0 = (int)blockIdx.x * kDot;
  float sum = 0.0f;
  for (int first = 0; first < d; first += kDot) {
    const int count = min(kDot, d - first);
    const int column = first + min(lane, count - 1);
    __syncwarp(); // the last piece has been added
#pragma unroll 16
    for (int r = 0; r < kDot; r++) {
      const u64 at = (u64)min(row0 + r, m - 1) * d + column;
      x[r * kDotLine + lane] = a[at];
      z[r * kDotLine + lane] = b[at];
    }
    __syncwarp();
#pragma unroll 8
    for (int c = 0; c < count; c++) sum = fmaf(x[lane * kDotLine + c], z[lane * kDotLine + c], sum);
  }
  if (row0 + lane < m) s[row0 + lane] = sum;
}

// row_scale: y[i,c] = x[i,c] s[i], a thread an element.
extern "C" __global__ void __launch_bounds__(256) row_scale(const float *x, const float *s, float *y, int m, int d) {
  const u32 at = blockIdx.x * 256 + threadIdx.x;
  if (at < (u32)(m * d)) y[at] = s[at / (u32)d] * x[at];
}

// Use is one lookup of a table: useEntry of table.go.
struct Use {
  const float *idx, *dy;
  int w;           // indices of a row
  int rows;        // of idx and of dy
  int start, base; // the indices, and the rows, of the uses before it
};

constexpr int kSortThreads = 256;
constexpr int kSortWarps = kSortThreads / 32;
constexpr int kSortRounds = 8;                        // pairs of a thread
constexpr int kSortTile = kSortThreads * kSortRounds; // pairs of a block
constexpr int kDigits = 256;

// Pair is one index: the row of the table, and the row of the gradients of all uses that it brings.
struct Pair {
  u32 row, from;
};

// rank_in_warp counts a digit of each lane and tells how often it occurred in the warp before: in earlier calls, and
// in lower lanes of this one.
DEVICE u32 rank_in_warp(u32 *counts, u32 digit, bool on, int lane) {
  u32 same = __ballot_sync(kFullWarp, on); // lanes with the digit of this one
#pragma unroll
  for (int bit = 0; bit < 8; bit++) {
    const bool set = (digit >> bit & 1) != 0;
    const u32 with = __ballot_sync(kFullWarp, set);
    same &= set ? with : ~with;
  }
  const u32 below = (u32)__popc(same & ((1u << lane) - 1));
  const u32 before = on ? counts[digit] : 0;
  __syncwarp();
  if (on && below == 0) counts[digit] = before + (u32)__popc(same);
  __syncwarp();
  return before + below;
}

// Keys are where a pass reads: the indices of the uses in the first, else what the last one wrote.
struct Keys {
  const Use *uses;
  int count, n;
  const Pair *pairs;
};

DEVICE Pair key_at(const Keys &k, int at) {
  if (k.pairs != nullptr) return k.pairs[at];
  int u = 0;
  while (u + 1 < k.count && k.uses[u + 1].start <= at) u++;
  const Use use = k.uses[u];
  const int i = at - use.start;
  const int row = index_of(use.idx[i], k.n);
  Pair p;
  p.row = row < 0 ? (u32)k.n : (u32)row; // none: behind all rows
  p.from = (u32)(use.base + i / use.w);
  return p;
}

// Stretch is the pairs of a thread: a warp has a run of them, and a lane every 32nd of the run.
struct Stretch {
  Pair p[kSortRounds];
  u32 rank[kSortRounds]; // among the pairs of the warp that have the same digit
  int start;             // the place of the first
};

// ranked reads a block's pairs and ranks them; counts are, for each warp, how often each digit occurs in its run.
DEVICE void ranked(const Keys &keys, u32 *counts, Stretch &s, int total, int shift) {
  const int thread = (int)threadIdx.x, lane = thread % 32, warp = thread / 32;
  for (int i = thread; i < kSortWarps * kDigits; i += kSortThreads) counts[i] = 0;
  s.start = (int)blockIdx.x * kSortTile + warp * (32 * kSortRounds) + lane;
#pragma unroll
  for (int r = 0; r < kSortRounds; r++) {
    s.p[r].row = 0, s.p[r].from = 0;
    if (s.start + r * 32 < total) s.p[r] = key_at(keys, s.start + r * 32);
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kSortRounds; r++)
    s.rank[r] =
        rank_in_warp(counts + warp * kDigits, s.p[r].row >> shift & (kDigits - 1), s.start + r * 32 < total, lane);
  __syncthreads();
}

// The sort of the indices of all uses, as pairs in the order of use and place, by row and stably: for each digit of 8
// bits from the lowest row_sort_count, then row_sort_place. A block has a tile of the pairs.

// row_sort_count: tiles[b] is how often each digit occurs in the tile of block b.
extern "C" __global__ void __launch_bounds__(256)
    row_sort_count(const Use *uses, int count, const Pair *pairs, u32 *tiles, int total, int n, int shift) {
  SHARED_ARRAY(u32, counts, kSortWarps * kDigits);
  const Keys keys = {uses, count, n, pairs};
  Stretch s;
  ranked(keys, counts, s, total, shift);
  u32 sum = 0;
#pragma unroll
  for (int w = 0; w < kSortWarps; w++) sum += counts[w * kDigits + (int)threadIdx.x];
  tiles[(u64)blockIdx.x * kDigits + threadIdx.x] = sum;
}

// row_sort_place puts each pair behind all with a lower digit, those of the tiles and warps before that have its own,
// and those before it in its warp.
extern "C" __global__ void __launch_bounds__(256)
    row_sort_place(const Use *uses, int count, const Pair *pairs, const u32 *tiles, Pair *to, int total, int n,
                   int shift) {
  SHARED_ARRAY(u32, counts, kSortWarps * kDigits);
  SHARED_ARRAY(u32, begin, kDigits);
  const int thread = (int)threadIdx.x, lane = thread % 32, warp = thread / 32;
  u32 all = 0, before = 0; // how often the digit of this thread occurs, and in the tiles before
#pragma unroll 8
  for (u32 t = 0; t < gridDim.x; t++) {
    const u32 c = tiles[(u64)t * kDigits + thread];
    all += c;
    before += t < blockIdx.x ? c : 0;
  }
  begin[thread] = all;
  const Keys keys = {uses, count, n, pairs};
  Stretch s;
  ranked(keys, counts, s, total, shift);
  if (warp == 0) { // where each digit begins: eight of them a lane, then the lanes before it
    u32 v[kDigits / 32], sum = 0;
#pragma unroll
    for (int i = 0; i < kDigits / 32; i++) {
      v[i] = sum;
      sum += begin[lane * (kDigits / 32) + i];
    }
    u32 until = sum;
    for (int step = 1; step < 32; step *= 2) {
      const u32 other = __shfl_up_sync(kFullWarp, until, step);
      if (lane >= step) until += other;
    }
#pragma unroll
    for (int i = 0; i < kDigits / 32; i++) begin[lane * (kDigits / 32) + i] = v[i] + (until - sum);
  }
  __syncthreads();
  u32 sum = begin[thread] + before;
#pragma unroll
  for (int w = 0; w < kSortWarps; w++) {
    const u32 c = counts[w * kDigits + thread];
    counts[w * kDigits + thread] = sum;
    sum += c;
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kSortRounds; r++)
    if (s.start + r * 32 < total)
      to[counts[warp * kDigits + (s.p[r].row >> shift & (kDigits - 1))] + s.rank[r]] = s.p[r];
}

// row_share: share[r] is the number of indices in row r of all uses, at least 1. A thread a row.
extern "C" __global__ void __launch_bounds__(128)
    row_share(const Use *uses, int count, float *share, int shares, int n) {
  const int r = (int)(blockIdx.x * 128 + threadIdx.x);
  if (r >= shares) return;
  int u = 0;
  while (u + 1 < count && uses[u + 1].base <= r) u++;
  const Use use = uses[u];
  const float *q = use.idx + (u64)(r - use.base) * use.w;
  int some = 0;
#pragma unroll 8
  for (int j = 0; j < use.w; j++) some += index_of(q[j], n) >= 0 ? 1 : 0;
  share[r] = (float)max(some, 1);
}

// Brought is what one pair brings to the gradient of its row: a row of some dy, to be divided among the indices of its
// row of idx.
struct Brought {
  const float *dy;
  float share;
  bool on; // it belongs to the row
};

DEVICE Brought brought_by(const Use *uses, int count, const Pair *pairs, const float *share, int at, int total, u32 row,
                          int d) {
  Brought b = {nullptr, 1.0f, false};
  if (at >= total) return b;
  const Pair p = pairs[at];
  if (p.row != row) return b;
  int u = 0;
  while (u + 1 < count && (u32)uses[u + 1].base <= p.from) u++;
  b.dy = uses[u].dy + (u64)(p.from - (u32)uses[u].base) * d;
  b.share = share[p.from];
  b.on = true;
  return b;
}

constexpr int kAdamAhead = 16; // rows of the gradient that are on the way at once

// row_adam: a warp a pair, of which those of the first pair of each row work, a lane two columns. They add the
// gradients of the row's pairs in order and take one step of AdamW. A lane each finds out what 32 pairs bring and
// tells the others: a row that everybody buys has a thousand of them, and only their sum has to wait for each other.
extern "C" __global__ void __launch_bounds__(128)
    row_adam(const State *state, const float *rates, const float *c1, const float *c2, const Use *uses, int count,
             const Pair *pairs, const float *share, float *p, float *m, float *v, int total, int n, int d, float b1,
             float ob1, float b2, float ob2, float eps, float decay) {
  const int lane = (int)threadIdx.x % 32;
  const int first = (int)(blockIdx.x * 4 + threadIdx.x / 32);
  if (first >= total) return;
  const u32 row = pairs[first].row;
  if (row >= (u32)n || (first > 0 && pairs[first - 1].row == row)) return;
  const u32 step = state->step;
  const float rate = rates[step], k1 = c1[step], k2 = c2[step];
  const Adam adam = {b1, ob1, b2, ob2, eps, decay};
  for (int c = lane; c - lane < d; c += 64) {
    const bool on[2] = {c < d, c + 32 < d};
    const u64 at = (u64)row * d + c;
    Weight w[2];
    float g[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < 2; i++) {
      w[i].p = 0.0f, w[i].m = 0.0f, w[i].v = 0.0f;
      if (on[i]) w[i].p = p[at + i * 32], w[i].m = m[at + i * 32], w[i].v = v[at + i * 32];
    }
    int e = first;
    Brought mine = brought_by(uses, count, pairs, share, e + lane, total, row, d);
    for (;;) {
      const Brought now = mine;
      const int some = __popc(__ballot_sync(kFullWarp, now.on)); // the row's pairs lie together
      if (some == 32) mine = brought_by(uses, count, pairs, share, e + 32 + lane, total, row, d);
      for (int j = 0; j < some; j += kAdamAhead) {
        float x[kAdamAhead][2], by[kAdamAhead];
#pragma unroll
        for (int i = 0; i < kAdamAhead; i++) {
          x[i][0] = 0.0f, x[i][1] = 0.0f, by[i] = 1.0f;
          if (j + i >= some) continue; // all lanes alike
          const float *q = (const float *)__shfl_sync(kFullWarp, (u64)now.dy, j + i) + c;
          by[i] = __shfl_sync(kFullWarp, now.share, j + i);
          if (on[0]) x[i][0] = q[0];
          if (on[1]) x[i][1] = q[32];
        }
#pragma unroll
        for (int i = 0; i < kAdamAhead; i++) {
          if (j + i >= some) continue;
          const bool begins = e + j + i == first;
          g[0] = begins ? x[i][0] / by[i] : g[0] + x[i][0] / by[i];
          g[1] = begins ? x[i][1] / by[i] : g[1] + x[i][1] / by[i];
        }
      }
      if (some < 32) break;
      e += 32;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (!on[i]) continue;
      const Weight next = adam_step(adam, rate, k1, k2, g[i], w[i]);
      m[at + i * 32] = next.m;
      v[at + i * 32] = next.v;
      p[at + i * 32] = next.p;
    }
  }
}
