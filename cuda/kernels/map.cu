// Elementwise operations. A thread takes elements 4t .. 4t+3; vec says that all addresses are multiples of 16 bytes.
// y may be a.
#include "common.cuh"

#define MAP_PARAMS const float *a, float *y, long long n, int vec

// Four are a thread's elements.
struct Four {
  u64 at;
  int count; // below 1 in a thread past the end
  bool vec;
};

DEVICE Four four(long long n, int vec) {
  Four f;
  f.at = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
  f.count = f.at >= (u64)n ? 0 : (int)min((u64)4, (u64)n - f.at);
  f.vec = vec != 0 && f.count == 4;
  return f;
}

extern "C" __global__ void __launch_bounds__(256) map_activate(MAP_PARAMS, int act) {
  const Four f = four(n, vec);
  if (f.count == 0) return;
  float v[4];
  load4(a + f.at, f.count, f.vec, v);
  for (int i = 0; i < 4; i++) v[i] = activate(act, v[i]);
  store4(y + f.at, f.count, f.vec, v);
}

extern "C" __global__ void __launch_bounds__(256) map_act_grad(MAP_PARAMS, const float *b, int act) {
  const Four f = four(n, vec);
  if (f.count == 0) return;
  float v[4], w[4];
  load4(a + f.at, f.count, f.vec, v);
  if (act != kNone) load4(b + f.at, f.count, f.vec, w);
  for (int i = 0; i < 4; i++) v[i] = act == kNone ? v[i] : act_grad(act, v[i], w[i]);
  store4(y + f.at, f.count, f.vec, v);
}

extern "C" __global__ void __launch_bounds__(256) map_add(MAP_PARAMS, const float *b) {
  const Four f = four(n, vec);
  if (f.count == 0) return;
  float v[4], w[4];
  load4(a + f.at, f.count, f.vec, v);
  load4(b + f.at, f.count, f.vec, w);
  for (int i = 0; i < 4; i++) v[i] = v[i] + w[i];
  store4(y + f.at, f.count, f.vec, v);
}

extern "C" __global__ void __launch_bounds__(256) map_scale(MAP_PARAMS, float scale) {
  const Four f = four(n, vec);
  if (f.count == 0) return;
  float v[4];
  load4(a + f.at, f.count, f.vec, v);
  for (int i = 0; i < 4; i++) v[i] = scale * v[i];
  store4(y + f.at, f.count, f.vec, v);
}

extern "C" __global__ void __launch_bounds__(256) map_fill(float *y, long long n, int vec, float value) {
  const Four f = four(n, vec);
  if (f.count == 0) return;
  const float v[4] = {value, value, value, value};
  store4(y + f.at, f.count, f.vec, v);
}

extern "C" __global__ void __launch_bounds__(256)
    map_dropout(MAP_PARAMS, const State *state, u64 seed, u32 site, float rate) {
  const Four f = four(n, vec);
  if (f.count == 0) return;
  float v[4];
  load4(a + f.at, f.count, f.vec, v);
  const Drop d = {state, seed, site, rate};
  if (rate != 0.0f) drop4(d, state->step, f.at, v);
  store4(y + f.at, f.count, f.vec, v);
}
