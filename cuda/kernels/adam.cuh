// One step of AdamW for one element, with every rounding of train/cpu's adamwPortable.
#pragma once

#include "common.cuh"

// Adam is the coefficients: b1, 1-b1, b2, 1-b2, eps and the decay.
struct Adam {
  float b1, ob1, b2, ob2, eps, decay;
};

// Weight is one parameter and its moments.
struct Weight {
  float p, m, v;
};

// adam_step is the weight after the step; k1 and k2 are 1/(1-b1^t) and 1/(1-b2^t).
DEVICE Weight adam_step(const Adam &a, float rate, float k1, float k2, float g, const Weight &w) {
  Weight next;
  next.m = a.b1 * w.m + a.ob1 * g;
  next.v = a.b2 * w.v + a.ob2 * (g * g);
  const float root = sqrtf(next.v * k2);
  const float update = next.m * k1 / (root + a.eps) + a.decay * w.p;
  next.p = w.p - rate * update;
  return next;
}
