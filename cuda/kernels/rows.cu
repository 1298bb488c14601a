// Rows and columns brought to another place: slices, concatenations, and the batch of a step.
#include "common.cuh"

// columns: y[r, to..to+n) = x[r, from..from+n); with zero the other columns of y become 0. A thread an element.
extern "C" __global__ void __launch_bounds__(256)
    columns(const float *x, float *y, int m, int n, int ldx, int from, int ldy, int to, int zero) {
  const int width = zero ? ldy : n;
  const u64 at = (u64)blockIdx.x * 256 + threadIdx.x;
  if (at >= (u64)m * width) return;
  const u64 row = at / width;
  const int column = (int)(at % width) - (zero ? to : 0); // of the n
  float v = 0.0f;
  if (column >= 0 && column < n) v = x[row * ldx + from + column];
  y[row * ldy + to + column] = v;
}

// Source is one column of a batch: columnEntry of rows.go.
struct Source {
  const float *src;
  float *dst;
  int width, start; // start: the widths before it, summed
};

// Shuffle is a permutation of [0, n): the numbers of program.Feistel but the epoch.
struct Shuffle {
  u32 n, a, b, site, key0, key1;
};

DEVICE u32 add_scaled(u32 x, u32 f, u32 m) { // (x + f scaled down to [0,m)) mod m
  x += (u32)((u64)f * m >> 32);
  return x >= m ? x - m : x;
}

DEVICE u32 shuffled(const Shuffle &s, u32 epoch, u32 x) {
  do {
    u32 l = x / s.b, r = x % s.b;
#pragma unroll 1
    for (u32 round = 0; round < 4; round += 2) {
      l = add_scaled(l, philox(s.key0, s.key1, r, round, epoch, s.site).w[0], s.a);
      r = add_scaled(r, philox(s.key0, s.key1, l, round + 1, epoch, s.site).w[0], s.b);
    }
    x = l * s.b + r;
  } while (x >= s.n);
  return x;
}

constexpr int kGatherWarps = 2; // of a block
constexpr int kGatherRows = 8;  // of a warp

// gather: a warp eight rows of the batch. A lane each finds out which rows of the source they are and tells the others.
// Then the lanes divide the elements of a row over all columns together, so that narrow columns do not cost a turn each,
// and every lane has its element of all eight rows on the way at once.
extern "C" __global__ void __launch_bounds__(64)
    gather(const State *state, const Source *sources, int count, int width, int rows, u32 batch, u32 per_epoch,
           long long base,
           u32 n, u32 a, u32 b, u32 site, u32 key0, u32 key1, int staged) {
  const int lane = (int)threadIdx.x % 32;
  const int row0 = ((int)blockIdx.x * kGatherWarps + (int)threadIdx.x / 32) * kGatherRows;
  const u32 step = state->step;
  u32 mine = 0; // the row that this lane finds out; past the end the last one again, so that no lane is missing below
  if (lane < kGatherRows) {
    mine = step % per_epoch * batch + (u32)min(row0 + lane, rows - 1);
    const Shuffle s = {n, a, b, site, key0, key1};
    if (!staged) mine = shuffled(s, step / per_epoch, mine);
  }
  __syncwarp();
  const long long start = staged ? (long long)state->shift : base;
  long long at[kGatherRows];
#pragma unroll
  for (int r = 0; r < kGatherRows; r++) at[r] = start + __shfl_sync(kFullWarp, mine, r);
  int c = 0;
  for (int e = lane; e < width; e += 32) {
    while (c + 1 < count && sources[c + 1].start <= e) c++;
    const Source s = sources[c];
    const int column = e - s.start;
    float v[kGatherRows];
#pragma unroll
    for (int r = 0; r < kGatherRows; r++) v[r] = s.src[at[r] * s.width + column];
#pragma unroll
    for (int r = 0; r < kGatherRows; r++)
      if (row0 + r < rows) s.dst[(u64)(row0 + r) * s.width + column] = v[r];
  }
}
