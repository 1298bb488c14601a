// Matrix products of float32. y [m,n] = epilogue(a' b'), each element one chain of fused multiply-adds over k,
// ascending from 0, whatever the kernel: so all of them give the same bits, and the choice among them is
// one of time alone. Only a column of which a is not transposed has elements of 16 lanes: matvec_lanes. ops.go (MatMul)
// says what the epilogue is.
//
//	matmul_BMxBN_xy   tiles of BM x BN; x and y say whether a and b are transposed (t) or not (n)
//	matvec_lanes      one column: a is [m,k], as it is in the program
//	matvec_n, _t      one column: a is [m,k], or [k,m]; of matvec_n, b of a product with one row
//	outer             k is 1
//
// grid: tiles of m, tiles of n, slices of k. Slice s covers k in [s*run, (s+1)*run) and writes y + s*m*n.
#include "common.cuh"

struct Product {
  const float *a, *b, *bias, *of;
  float *y, *pre;
  int m, n, k, run;
  int act, grad;
  int bias_step; // 1: bias[column]; 0: bias[0]
  int vec;       // 1: a may be read by vectors of 4, 2: b, 4: y, pre, of and bias may be
  Drop drop;
};

#define PRODUCT_PARAMS                                                                                               \
  const float *a, const float *b, const float *bias, const float *of, float *y, float *pre, const State *state, int m, \
      int n, int k, int run, int act, int grad, int bias_step, int vec, u64 seed, u32 site, float rate
#define PRODUCT                                                                                                      \
  Product { a, b, bias, of, y, pre, m, n, k, run, act, grad, bias_step, vec, Drop { state, seed, site, rate } }

// Slab is BK x BX elements of an operand on their way from global memory through registers to shared memory, where
// they lie as [k][x] with rows of LD. KFast: the operand is [x][k] in memory, k next to k; else [k][x].
template <int BX, int BK, int LD, int Threads, bool KFast> struct Slab {
  static constexpr int kVectors = BX * BK / 4 / Threads;
  static_assert(kVectors * 4 * Threads == BX * BK, "every thread loads equally many vectors");
  float v[kVectors][4];

  // load reads x0.. < nx and k0.. < k1; what lies outside is 0.
  DEVICE void load(const float *p, int ld, int x0, int nx, int k0, int k1, bool vec) {
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
      const int at = (int)threadIdx.x + i * Threads;
      const int x = x0 + (KFast ? at / (BK / 4) : at % (BX / 4) * 4);
      const int k = k0 + (KFast ? at % (BK / 4) * 4 : at / (BX / 4));
      int count = KFast ? k1 - k : nx - x;
      if (KFast ? x >= nx : k >= k1) count = 0;
      const float *q = p + (KFast ? (u32)x * (u32)ld + (u32)k : (u32)k * (u32)ld + (u32)x); // below 2^32: MatMul's check
      if (vec && count > 0) // the leading dimension is a multiple of 4 then, so that count is not below 4
        load4(q, 4, true, v[i]);
      else
        load4(q, count, false, v[i]);
    }
  }

  DEVICE void store(float *s) const {
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
      const int at = (int)threadIdx.x + i * Threads;
      if (KFast) {
        const int x = at / (BK / 4), k = at % (BK / 4) * 4;
#pragma unroll
        for (int c = 0; c < 4; c++) s[(k + c) * LD + x] = v[i][c];
      } else {
        store4(s + at / (BX / 4) * LD + at % (BX / 4) * 4, 4, true, v[i]);
      }
    }
  }
};

// load_group reads 2 or 4 floats from shared memory. It is inline PTX because the compiler merges plain reads of the
// unrolled loop in an order that is not the same at every compilation; the assembler still moves these freely.
#ifdef ONMART_EMULATOR
typedef const float *Shared;
DEVICE Shared shared_of(const float *p) { return p; }
template <int N> DEVICE void load_group(Shared base, int offset, float *v) {
  const float *p = base + offset;
  if (N == 4) {
    load4(p, 4, true, v);
  } else {
    const float2 x = *reinterpret_cast<const float2 *>(p);
    v[0] = x.x, v[1] = x.y;
  }
}
#else
typedef u32 Shared;
DEVICE Shared shared_of(const float *p) { return (u32)__cvta_generic_to_shared(p); }
template <int N> DEVICE void load_group(Shared base, int offset, float *v) {
  const u32 at = base + 4 * (u32)offset;
  if (N == 4)
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3]) : "r"(at) : "memory");
  else
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v[0]), "=f"(v[1]) : "r"(at) : "memory");
}
#endif

// finish4 is the epilogue of elements (row, column .. column+count), count <= 4, and stores them.
DEVICE void finish4(const Product &p, u32 step, int row, int column, float v[4]) {
  const int count = min(4, p.n - column);
  const bool vec = (p.vec & 4) != 0 && count == 4;
  const u64 at = (u64)row * p.n + column;
  if (p.bias != nullptr) {
    float w[4];
    if (p.bias_step == 0)
      w[0] = w[1] = w[2] = w[3] = p.bias[0];
    else
      load4(p.bias + column, count, vec, w);
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = v[i] + w[i];
  }
  if (p.pre != nullptr) store4(p.pre + at, count, vec, v);
  if (p.act == kRelu) {
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = relu(v[i]);
  } else if (p.act == kSilu) {
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = silu(v[i]);
  }
  if (p.drop.rate != 0.0f) drop4(p.drop, step, at, v);
  if (p.of != nullptr && p.grad != kNone) {
    float w[4];
    load4(p.of + at, count, vec, w);
    if (p.grad == kRelu) {
#pragma unroll
      for (int i = 0; i < 4; i++) v[i] = w[i] > 0.0f ? v[i] : 0.0f;
    } else {
#pragma unroll
      for (int i = 0; i < 4; i++) v[i] = silu_grad(v[i], w[i]);
    }
  }
  store4(p.y + at, count, vec, v);
}

// finish1 is finish4 of element at, in a row or column of its own.
DEVICE void finish1(const Product &p, u32 step, int at, float v) {
  if (p.bias != nullptr) v = v + p.bias[p.bias_step * at];
  if (p.pre != nullptr) p.pre[at] = v;
  v = activate(p.act, v);
  if (p.drop.rate != 0.0f) v = drop1(p.drop, step, at, v);
  if (p.of != nullptr) v = act_grad(p.grad, v, p.of[at]);
  p.y[at] = v;
}

DEVICE u32 step_of(const Drop &d) { return d.rate != 0.0f ? d.state->step : 0; }

// product_tile computes a BM x BN tile of y. Each thread owns TM x TN of it, in groups of 4 (or TM) x 4 that lie
// BM/(TM/4) rows and BN/(TN/4) columns apart, so that a warp reads shared memory without conflicts. Slabs of BK steps of k pass
// through two buffers: while one is multiplied, the next is on its way in registers.
template <int BM, int BN, int BK, int TM, int TN, bool TransA, bool TransB> DEVICE void product_tile(Product p) {
  constexpr int kThreads = (BM / TM) * (BN / TN);
  // Four floats more a row spread the scattered stores of a transposing slab over the banks.
  constexpr int kLdA = TransA ? BM : BM + 4, kLdB = TransB ? BN + 4 : BN;
  constexpr int kGroup = TM < 4 ? TM : 4;
  constexpr int kStrideM = BM / (TM / kGroup), kStrideN = BN / (TN / 4);
  SHARED_ARRAY(float, sa, 2 * BK * kLdA);
  SHARED_ARRAY(float, sb, 2 * BK * kLdB);

  const int row0 = (int)blockIdx.x * BM, column0 = (int)blockIdx.y * BN;
  const int tx = (int)threadIdx.x % (BN / TN) * 4, ty = (int)threadIdx.x / (BN / TN) * kGroup;
  const int from = (int)blockIdx.z * p.run;
  const int to = min(p.k, from + p.run); // below from in a slice without k
  const int steps = max(0, to - from);
  const int slabs = (steps + BK - 1) / BK;
  const int lda = TransA ? p.m : p.k, ldb = TransB ? p.k : p.n;

  float acc[TM][TN];
#pragma unroll
  for (int i = 0; i < TM; i++)
#pragma unroll
    for (int j = 0; j < TN; j++) acc[i][j] = 0.0f;

  Slab<BM, BK, kLdA, kThreads, !TransA> slab_a;
  Slab<BN, BK, kLdB, kThreads, TransB> slab_b;
  if (slabs > 0) {
    slab_a.load(p.a, lda, row0, p.m, from, to, (p.vec & 1) != 0);
    slab_b.load(p.b, ldb, column0, p.n, from, to, (p.vec & 2) != 0);
    slab_a.store(sa);
    slab_b.store(sb);
  }
  __syncthreads();

  for (int s = 0; s < slabs; s++) {
    const int buffer = s & 1;
    const int next = from + (s + 1) * BK;
    if (s + 1 < slabs) {
      slab_a.load(p.a, lda, row0, p.m, next, to, (p.vec & 1) != 0);
      slab_b.load(p.b, ldb, column0, p.n, next, to, (p.vec & 2) != 0);
    }
    const Shared ka = shared_of(sa + buffer * BK * kLdA + ty), kb = shared_of(sb + buffer * BK * kLdB + tx);
    auto step = [&](int k) {
      float av[TM], bv[TN];
#pragma unroll
      for (int g = 0; g < TM / kGroup; g++) load_group<kGroup>(ka, k * kLdA + g * kStrideM, av + kGroup * g);
#pragma unroll
      for (int g = 0; g < TN / 4; g++) load_group<4>(kb, k * kLdB + g * kStrideN, bv + 4 * g);
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) acc[i][j] = fmaf(av[i], bv[j], acc[i][j]);
    };
    const int count = min(BK, steps - s * BK);
    if (count == BK) {
#pragma unroll
      for (int k = 0; k < BK; k++) step(k);
    } else { // no step beyond the end: adding 0 would turn a -0 into 0
#pragma unroll 1
      for (int k = 0; k < count; k++) step(k);
    }
    if (s + 1 < slabs) {
      slab_a.store(sa + (buffer ^ 1) * BK * kLdA);
      slab_b.store(sb + (buffer ^ 1) * BK * kLdB);
    }
    __syncthreads();
  }

  p.y += (u64)blockIdx.z * p.m * p.n;
  if (p.act != kSilu && p.grad != kSilu && p.drop.rate == 0.0f) {
#pragma unroll
    for (int i = 0; i < TM; i++) {
      const int row = row0 + i / kGroup * kStrideM + ty + i % kGroup;
      if (row >= p.m) continue;
      const bool plain = p.bias == nullptr && p.pre == nullptr && p.of == nullptr && p.act == kNone;
#pragma unroll
      for (int g = 0; g < TN / 4; g++) {
        const int column = column0 + g * kStrideN + tx;
        if (column >= p.n) continue;
        const int count = min(4, p.n - column);
        const bool vec = (p.vec & 4) != 0 && count == 4;
        const u64 at = (u64)row * p.n + column;
        float v[4];
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] = acc[i][4 * g + j];
        if (!plain) {
          if (p.bias != nullptr) {
            float w[4];
            load4(p.bias + column, count, vec, w);
#pragma unroll
            for (int j = 0; j < 4; j++) v[j] = v[j] + w[j];
          }
          if (p.pre != nullptr) store4(p.pre + at, count, vec, v);
          if (p.act == kRelu) {
#pragma unroll
            for (int j = 0; j < 4; j++) v[j] = relu(v[j]);
          }
          if (p.of != nullptr && p.grad == kRelu) {
            float w[4];
            load4(p.of + at, count, vec, w);
#pragma unroll
            for (int j = 0; j < 4; j++) v[j] = w[j] > 0.0f ? v[j] : 0.0f;
          }
        }
        store4(p.y + at, count, vec, v);
      }
    }
    return;
  }
  // The rest is long, so it stands here once for four columns of the thread, and the sums move up: an index that is not
  // a constant would send them to local memory.
  const u32 step = step_of(p.drop);
#pragma unroll 1
  for (int i = 0; i < TM; i++) {
    const int row = row0 + i / kGroup * kStrideM + ty + i % kGroup;
    if (row < p.m) {
#pragma unroll 1
      for (int g = 0; g < TN / 4; g++) {
        const int column = column0 + g * kStrideN + tx;
        if (column < p.n) finish4(p, step, row, column, acc[0]);
#pragma unroll
        for (int j = 0; j + 4 < TN; j++) acc[0][j] = acc[0][j + 4];
      }
    }
#pragma unroll
    for (int r = 0; r + 1 < TM; r++)
#pragma unroll
      for (int j = 0; j < TN; j++) acc[r][j] = acc[r + 1][j];
  }
}

// The shapes (tiles of tuning.go) in each transposition; with both operands transposed, which no gradient needs, one
// shape will do. The second number of __launch_bounds__ bounds the registers: those of so many blocks fit on a
// multiprocessor.
#define TILE_128x64 128, 64, 8, 8, 8
#define TILE_64x64 64, 64, 16, 8, 4
#define TILE_64x32 64, 32, 16, 4, 4
#define TILE_32x32 32, 32, 32, 2, 4
#define TILE_16x64 16, 64, 32, 2, 4

extern "C" __global__ void __launch_bounds__(128, 4) matmul_128x64_nn(PRODUCT_PARAMS) { product_tile<TILE_128x64, false, false>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(128, 4) matmul_128x64_nt(PRODUCT_PARAMS) { product_tile<TILE_128x64, false, true>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(128, 4) matmul_128x64_tn(PRODUCT_PARAMS) { product_tile<TILE_128x64, true, false>(PRODUCT); }

extern "C" __global__ void __launch_bounds__(128, 4) matmul_64x64_nn(PRODUCT_PARAMS) { product_tile<TILE_64x64, false, false>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(128, 4) matmul_64x64_nt(PRODUCT_PARAMS) { product_tile<TILE_64x64, false, true>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(128, 4) matmul_64x64_tn(PRODUCT_PARAMS) { product_tile<TILE_64x64, true, false>(PRODUCT); }

extern "C" __global__ void __launch_bounds__(128, 5) matmul_64x32_nn(PRODUCT_PARAMS) { product_tile<TILE_64x32, false, false>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(128, 5) matmul_64x32_nt(PRODUCT_PARAMS) { product_tile<TILE_64x32, false, true>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(128, 5) matmul_64x32_tn(PRODUCT_PARAMS) { product_tile<TILE_64x32, true, false>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(128, 5) matmul_64x32_tt(PRODUCT_PARAMS) { product_tile<TILE_64x32, true, true>(PRODUCT); }

extern "C" __global__ void __launch_bounds__(128, 4) matmul_32x32_nn(PRODUCT_PARAMS) { product_tile<TILE_32x32, false, false>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(128, 4) matmul_32x32_nt(PRODUCT_PARAMS) { product_tile<TILE_32x32, false, true>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(128, 4) matmul_32x32_tn(PRODUCT_PARAMS) { product_tile<TILE_32x32, true, false>(PRODUCT); }

extern "C" __global__ void __launch_bounds__(128, 4) matmul_16x64_nn(PRODUCT_PARAMS) { product_tile<TILE_16x64, false, false>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(128, 4) matmul_16x64_nt(PRODUCT_PARAMS) { product_tile<TILE_16x64, false, true>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(128, 4) matmul_16x64_tn(PRODUCT_PARAMS) { product_tile<TILE_16x64, true, false>(PRODUCT); }

constexpr int kColumnWarps = 2; // of a block of matvec_n and matvec_lanes
constexpr int kColumnTile = 32; // rows of a warp, and steps of k that it takes at once
constexpr int kLanes = 16;      // program.Lanes

// fold adds the upper half of lanes to the lower one.
template <int Half> DEVICE void fold(float *lane) {
#pragma unroll
  for (int l = 0; l < Half; l++) lane[l] = lane[l] + lane[l + Half];
}

// product_column: a thread a row. A warp reads 32 rows by 32 of k along the rows, and through shared memory each thread
// gets its own row, of which it has one sum or kLanes. What a row lacks of a multiple of kLanes is 0.
template <bool Lanes> DEVICE void product_column(Product p) {
  constexpr int kLd = kColumnTile + 1; // so that a warp reads a column without conflicts
  SHARED_ARRAY(float, tiles, kColumnWarps * kColumnTile * kLd);
  SHARED_ARRAY(float, vectors, kColumnWarps * kColumnTile);
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  float *tile = tiles + warp * kColumnTile * kLd, *vector = vectors + warp * kColumnTile;
  const int row0 = ((int)blockIdx.x * kColumnWarps + warp) * kColumnTile;
  const int from = (int)blockIdx.z * p.run, to = min(p.k, from + p.run);
  const int rows = min(kColumnTile, p.m - row0); // 0 and less in a warp past the end: it goes along with the others
  float acc[kLanes]; // or the first alone
#pragma unroll
  for (int l = 0; l < kLanes; l++) acc[l] = 0.0f;
  for (int k0 = from; k0 < to; k0 += kColumnTile) {
    const bool in = k0 + lane < to;
    float v[kColumnTile];
#pragma unroll
    for (int r = 0; r < kColumnTile; r++) v[r] = in && r < rows ? p.a[(u64)(row0 + r) * p.k + k0 + lane] : 0.0f;
    const float x = in ? p.b[k0 + lane] : 0.0f;
    __syncwarp(); // the last round's reads are done
#pragma unroll
    for (int r = 0; r < kColumnTile; r++) tile[r * kLd + lane] = v[r];
    vector[lane] = x;
    __syncwarp();
    const int count = min(kColumnTile, to - k0);
    if (Lanes) {
#pragma unroll 1
      for (int k = 0; k < count; k += kLanes) {
#pragma unroll
        for (int l = 0; l < kLanes; l++) acc[l] = fmaf(tile[lane * kLd + k + l], vector[k + l], acc[l]);
      }
    } else {
#pragma unroll 8
      for (int k = 0; k < count; k++) acc[0] = fmaf(tile[lane * kLd + k], vector[k], acc[0]);
    }
  }
  if (lane >= rows) return;
  if (Lanes) {
    fold<8>(acc);
    fold<4>(acc);
    fold<2>(acc);
    fold<1>(acc);
  }
  p.y += (u64)blockIdx.z * p.m;
  finish1(p, step_of(p.drop), row0 + lane, acc[0]);
}

extern "C" __global__ void __launch_bounds__(64) matvec_n(PRODUCT_PARAMS) { product_column<false>(PRODUCT); }
extern "C" __global__ void __launch_bounds__(64) matvec_lanes(PRODUCT_PARAMS) { product_column<true>(PRODUCT); }

// matvec_t: a thread a row of the transposed a, so that a warp reads along a's rows.
extern "C" __global__ void __launch_bounds__(64) matvec_t(PRODUCT_PARAMS) {
  Product p = PRODUCT;
  const int row = (int)(blockIdx.x * 64 + threadIdx.x);
  if (row >= p.m) return;
  const int from = (int)blockIdx.z * p.run, to = min(p.k, from + p.run);
  const float *q = p.a + (u64)from * p.m + row;
  float acc = 0.0f;
  int done = from;
  for (; done + 16 <= to; done += 16) {
    float v[16];
#pragma unroll
    for (int i = 0; i < 16; i++) v[i] = q[(u64)i * p.m];
#pragma unroll
    for (int i = 0; i < 16; i++) acc = fmaf(v[i], p.b[done + i], acc);
    q += (u64)16 * p.m;
  }
  for (; done < to; done++, q += p.m) acc = fmaf(*q, p.b[done], acc);
  p.y += (u64)blockIdx.z * p.m;
  finish1(p, step_of(p.drop), row, acc);
}

// outer: k is 1. A thread takes four columns of a row.
extern "C" __global__ void __launch_bounds__(256) outer(PRODUCT_PARAMS) {
  Product p = PRODUCT;
  const u32 groups = (u32)(p.n + 3) / 4;
  const u64 at = (u64)blockIdx.x * 256 + threadIdx.x;
  const int row = (int)(at / groups), column = (int)(at % groups) * 4;
  if (at / groups >= (u64)p.m) return;
  const int count = min(4, p.n - column);
  const float x = p.a[row];
  float v[4];
  load4(p.b + column, count, (p.vec & 2) != 0 && count == 4, v);
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = fmaf(x, v[i], 0.0f);
  finish4(p, step_of(p.drop), row, column, v);
}
