// The end of a training step: AdamW on all parameters, then the slots and the step counter.
#include "adam.cuh"
#include "common.cuh"

// Tensor is one parameter: adamwEntry of step.go.
struct Tensor {
  float *p, *m, *v;
  const float *g;
  const float *c1, *c2;
  long long n;
  int slices, first; // first: the first block that works on it
  Adam adam;
};

// adamw: a thread an element, a block one tensor only: blocks[b] is the tensor of block b. A gradient in slices is summed
// first, ascending.
extern "C" __global__ void __launch_bounds__(128)
    adamw(const State *state, const float *rates, const Tensor *tensors, const int *blocks) {
  const Tensor t = tensors[blocks[blockIdx.x]];
  const u64 i = (u64)(blockIdx.x - (u32)t.first) * 128 + threadIdx.x;
  if (i >= (u64)t.n) return;
  const u32 step = state->step;
  const float rate = rates[step], c1 = t.c1[step], c2 = t.c2[step];
  const Weight w = {t.p[i], t.m[i], t.v[i]};
  float g = t.g[i];
#pragma unroll 8
  for (int s = 1; s < t.slices; s++) g = g + t.g[(u64)s * t.n + i];
  const Weight next = adam_step(t.adam, rate, c1, c2, g, w);
  t.m[i] = next.m;
  t.v[i] = next.v;
  t.p[i] = next.p;
}

// Item is one accumulation: accumulationEntry of step.go.
struct Item {
  const float *x; // or null: scale is added
  double scale;
  int slot, unused;
};

constexpr int kItems = 64; // that pass through shared memory at once

// finish: one warp. A lane owns slots lane, lane+32, ... and adds to each in the order of the items; then all look for
// a slot that is not finite, and the first lane counts the step up.
extern "C" __global__ void __launch_bounds__(32) finish(State *state, double *slots, int count, const Item *items, int n) {
  SHARED_ARRAY(double, value, kItems);
  SHARED_ARRAY(int, slot, kItems);
  const int lane = (int)threadIdx.x;
  for (int first = 0; first < n; first += kItems) {
    const int here = min(kItems, n - first);
    for (int i = lane; i < here; i += 32) {
      const Item it = items[first + i];
      value[i] = it.x == nullptr ? it.scale : (double)*it.x * it.scale;
      slot[i] = it.slot;
    }
    __syncwarp();
    for (int s = lane; s < count; s += 32) {
      double sum = slots[s];
      for (int i = 0; i < here; i++)
        if (slot[i] == s) sum = sum + value[i];
      slots[s] = sum;
    }
    __syncwarp();
  }
  bool bad = false;
  for (int s = lane; s < count; s += 32) bad = bad || !(fabs(slots[s]) <= 1.7976931348623157e308);
  const u32 any = __ballot_sync(kFullWarp, bad);
  if (lane != 0) return;
  const u32 step = state->step;
  if (any != 0 && state->bad == 0) state->bad = step + 1;
  state->step = step + 1;
}
