// What stands around a model: standardisation of raw features and calibration of its logits, both in float64.
#include "common.cuh"

// standardize: y = float32((u - mean) scale), u = log1p(max(x,0)) where log is 1. A thread an element.
extern "C" __global__ void __launch_bounds__(128)
    standardize(const double *x, const double *mean, const double *scale, const double *log, float *y, int m, int n) {
  const u64 at = (u64)blockIdx.x * 128 + threadIdx.x;
  if (at >= (u64)m * n) return;
  const int column = (int)(at % (u32)n);
  double u = x[at];
  if (log[column] == 1.0) u = log1p(u < 0.0 ? 0.0 : u); // NaN stays
  y[at] = (float)((u - mean[column]) * scale[column]);
}

// calibrate: p = 1 / (1 + exp(-(a z + b))).
extern "C" __global__ void __launch_bounds__(128) calibrate(const float *z, const double *ab, double *p, int m) {
  const int i = (int)(blockIdx.x * 128 + threadIdx.x);
  if (i < m) p[i] = 1.0 / (1.0 + exp(-(ab[0] * (double)z[i] + ab[1])));
}
