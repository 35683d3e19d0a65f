// What optimisers share: the formula of SGD, and a loop over several arrays of n elements, each read once, some of them written once.
#pragma once
#include "common.cuh"

// The paper's SGD: see sgd.cu. dw is the gradient times what the loss was scaled by.
struct SgdStep {
  T momentum, shrink, lr;
  __device__ SgdStep(double rate, T momentum, double decay, T scale) : momentum(momentum), shrink(T(decay * rate)), lr(T(rate) / scale) {}
  __device__ void operator()(T& w, T& v, T dw) const {
    v = momentum * v - shrink * w - lr * dw;
    w += v;
  }
};

// f(values) for each element of the K arrays, 16 bytes at a time where all of them allow it; then the first WRITTEN arrays
// are stored. Grid: one-dimensional, blocks of 256. This is the least memory traffic that a step can have.
template <int WRITTEN, int K, class F> __device__ inline void update(unsigned n, T* const (&arrays)[K], F f) {
  bool packed = true;
  for (int k = 0; k < K; k++) packed &= aligned(arrays[k]);
  unsigned packs = packed ? n / VECTOR : 0;
  for (unsigned i = thread_number(); i < packs; i += thread_count()) {
    Pack<VECTOR> pack[K];
    for (int k = 0; k < K; k++) pack[k] = load<VECTOR>(arrays[k] + i * VECTOR);
    for (int j = 0; j < VECTOR; j++) {
      T values[K];
      for (int k = 0; k < K; k++) values[k] = pack[k].v[j];
      f(values);
      for (int k = 0; k < WRITTEN; k++) pack[k].v[j] = values[k];
    }
    for (int k = 0; k < WRITTEN; k++) store(arrays[k] + i * VECTOR, pack[k]);
  }
  for (unsigned i = packs * VECTOR + thread_number(); i < n; i += thread_count()) {
    T values[K];
    for (int k = 0; k < K; k++) values[k] = arrays[k][i];
    f(values);
    for (int k = 0; k < WRITTEN; k++) arrays[k][i] = values[k];
  }
}
