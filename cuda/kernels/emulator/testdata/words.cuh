// What the test kernels share; like any source of kernels it compiles for a device too.
#pragma once
#ifndef SHARED_ARRAY
#define SHARED_ARRAY(T, name, n) __shared__ __align__(16) T name[n]
#endif
#ifndef SHARED_DYNAMIC
#define SHARED_DYNAMIC(T, name) extern __shared__ T name[]
#endif
#define TILE 16
// Kernels may come from macros.
#define SIMPLE(name, value)                                                       \
  extern "C" __global__ void __launch_bounds__(16 * TILE) name(float *x, int n) { \
    const int i = blockIdx.x * blockDim.x + threadIdx.x;                          \
    if (i < n) x[i] = value;                                                      \
  }
