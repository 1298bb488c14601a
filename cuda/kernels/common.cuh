// What every kernel shares: Philox, dropout, silu, vectors of four.
//
// The arithmetic is float32 with every rounding written out: a fused multiply-add is fmaf, everything else is
// rounded by itself (the sources are compiled with -fmad=false), and functions of the device's library are
// left out where their bits would differ from another machine's. So a result has the same bits on every device,
// on the host emulation and, where ops.go says so, in train/cpu.
#pragma once

// SHARED_ARRAY declares n elements of a block's shared memory; the host emulation brings its own.
#ifndef SHARED_ARRAY
#define SHARED_ARRAY(T, name, n) __shared__ __align__(16) T name[n]
#endif

#define DEVICE __device__ __forceinline__

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 kFullWarp = 0xFFFFFFFFu;

// Activations, as Act of ops.go.
enum { kNone = 0, kRelu = 1, kSilu = 2 };

// State is where a training is: StateBytes of ops.go.
struct State {
  u32 step, bad;
  int shift;
  u32 unused;
};

struct Words {
  u32 w[4];
};

// Philox4x32-10 (Salmon et al., SC 2011), the numbers of program.Philox.
DEVICE Words philox(u32 key0, u32 key1, u32 c0, u32 c1, u32 c2, u32 c3) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u64 p0 = (u64)0xD2511F53u * c0, p1 = (u64)0xCD9E8D57u * c2;
    c0 = (u32)(p1 >> 32) ^ c1 ^ key0;
    c1 = (u32)p1;
    c2 = (u32)(p0 >> 32) ^ c3 ^ key1;
    c3 = (u32)p0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  Words r;
  r.w[0] = c0, r.w[1] = c1, r.w[2] = c2, r.w[3] = c3;
  return r;
}

// Drop is dropout as a kernel is given it. rate 0 is none, and state is not read then.
struct Drop {
  const State *state;
  u64 seed;
  u32 site;
  float rate;
};

// drop4 applies dropout to elements at .. at+3 of the whole output; v past the end is of no meaning.
DEVICE void drop4(const Drop &d, u32 step, u64 at, float v[4]) {
  const float keep = 1.0f - d.rate;
  Words r = philox((u32)d.seed, (u32)(d.seed >> 32), (u32)(at >> 2), (u32)(at >> 34), step, d.site);
  const int shift = (int)(at & 3);
  if (shift != 0) { // the four lie in two blocks of Philox
    const u64 next = (at >> 2) + 1;
    const Words s = philox((u32)d.seed, (u32)(d.seed >> 32), (u32)next, (u32)(next >> 32), step, d.site);
    const Words first = r;
#pragma unroll
    for (int i = 0; i < 4; i++) { // r.w[i] = words shift+i of first and s, with constant indices only
      u32 w = s.w[i];
      if (i < 3 && shift == 1) w = first.w[i + 1 < 4 ? i + 1 : 3];
      if (i < 2 && shift == 2) w = first.w[i + 2 < 4 ? i + 2 : 3];
      if (i < 1 && shift == 3) w = first.w[3];
      if (i == 3 && shift == 1) w = s.w[0];
      if (i >= 2 && shift == 2) w = s.w[i - 2 >= 0 ? i - 2 : 0];
      if (i >= 1 && shift == 3) w = s.w[i - 1 >= 0 ? i - 1 : 0];
      r.w[i] = w;
    }
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float u = (float)(r.w[i] >> 8) * 0x1p-24f;
    v[i] = u >= d.rate ? v[i] / keep : 0.0f;
  }
}

// drop1 is drop4 for one element.
DEVICE float drop1(const Drop &d, u32 step, u64 at, float v) {
  const Words r = philox((u32)d.seed, (u32)(d.seed >> 32), (u32)(at >> 2), (u32)(at >> 34), step, d.site);
  const int i = (int)(at & 3);
  const u32 w = i == 0 ? r.w[0] : i == 1 ? r.w[1] : i == 2 ? r.w[2] : r.w[3];
  const float u = (float)(w >> 8) * 0x1p-24f;
  return u >= d.rate ? v / (1.0f - d.rate) : 0.0f;
}

// exp_of_minus is exp(-c) for -87 <= c <= 87, with the roundings of train/cpu's siluExp; NaN goes through.
DEVICE float exp_of_minus(float c) {
  const float k = fmaf(c, -0x1.715476p0f, 0x1.8p23f);
  const float n = k - 0x1.8p23f;
  const float r = fmaf(n, -0x1.05c61p-29f, fmaf(n, 0x1.62e43p-1f, c));
  float q = fmaf(0x1.6a23dp-10f, r, -0x1.123a2p-7f);
  q = fmaf(q, r, 0x1.5558f2p-5f);
  q = fmaf(q, r, -0x1.555492p-3f);
  q = fmaf(q, r, 0x1.fffffcp-2f);
  const float p = fmaf(r * r, q, -r) + 1.0f;
  return p * __uint_as_float((__float_as_uint(k) << 23) + (127u << 23));
}

DEVICE float clamp_low(float z) { return z < -87.0f ? -87.0f : z; }
DEVICE float clamp_high(float z) { return z > 87.0f ? 87.0f : z; }

// silu is z / (1 + exp(-z)), the bits of train/cpu's siluPortable.
DEVICE float silu(float z) {
  const float low = clamp_low(z);
  return low / (1.0f + exp_of_minus(clamp_high(low)));
}

// silu_grad is dy s (1 + z (1-s)), the bits of train/cpu's siluGradPortable.
DEVICE float silu_grad(float dy, float z) {
  const float c = clamp_high(clamp_low(z));
  const float e = exp_of_minus(c);
  const float s = 1.0f / (1.0f + e);
  return dy * (s * fmaf(c, e * s, 1.0f));
}

DEVICE float relu(float z) { return z < 0.0f ? 0.0f : z; } // -0 and NaN stay, as on the CPU

DEVICE float activate(int act, float z) {
  if (act == kRelu) return relu(z);
  if (act == kSilu) return silu(z);
  return z;
}

DEVICE float act_grad(int act, float dy, float of) {
  if (act == kRelu) return of > 0.0f ? dy : 0.0f;
  if (act == kSilu) return silu_grad(dy, of);
  return dy;
}

// index_of is the row of a table of so many rows, at most 2^24, that x names, or -1: so for everything that is no index.
DEVICE int index_of(float x, int rows) { return x >= 0.0f && x < (float)rows ? (int)x : -1; }

// load4 reads p[0..count), count <= 4, as one vector where vec says that all four exist and lie aligned.
DEVICE void load4(const float *p, int count, bool vec, float v[4]) {
  if (vec) {
    const float4 x = *reinterpret_cast<const float4 *>(p);
    v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = i < count ? p[i] : 0.0f;
}

DEVICE void store4(float *p, int count, bool vec, const float v[4]) {
  if (vec) {
    float4 x;
    x.x = v[0], x.y = v[1], x.z = v[2], x.w = v[3];
    *reinterpret_cast<float4 *>(p) = x;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (i < count) p[i] = v[i];
}
