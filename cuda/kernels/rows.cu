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

constexpr int kGatherWarps = 4;

// gather: a warp a row of the batch. Its lanes divide the row's elements over all columns together, so that narrow
// columns do not cost a turn each.
extern "C" __global__ void __launch_bounds__(128)
    gather(const State *state, const Source *sources, int count, int width, int rows, u32 batch, u32 per_epoch,
           long long base,
           u32 n, u32 a, u32 b, u32 site, u32 key0, u32 key1, int staged) {
  const int lane = (int)threadIdx.x % 32;
  const int row = (int)blockIdx.x * kGatherWarps + (int)threadIdx.x / 32;
  if (row >= rows) return;
  const u32 step = state->step;
  const u32 first = step % per_epoch * batch;
  long long at;
  if (staged) {
    at = (long long)state->shift + first + row;
  } else {
    const Shuffle s = {n, a, b, site, key0, key1};
    at = base + shuffled(s, step / per_epoch, first + row);
  }
  int c = 0;
  for (int e = lane; e < width; e += 32) {
    while (c + 1 < count && sources[c + 1].start <= e) c++;
    const Source s = sources[c];
    s.dst[(u64)row * s.width + (e - s.start)] = s.src[at * s.width + (e - s.start)];
  }
}
