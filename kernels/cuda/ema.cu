// The exponential moving average of the weights, in place:  average <- average + (1 - d) (value - average).
//
//     counts (double)   [t, 1 - d]         with `warmup`, d is min(factor, (1 + t) / (10 + t)) after t updates
//
// Layout: a tensor as n contiguous elements. Two arrays are read and one written, once each (update.cuh). loss_scale: the
// state of loss_scale.cu, or null; after an overflow nothing is updated and the update is not counted.
#include "update.cuh"

// The counts of the update that follows. Grid: a single thread.
extern "C" __global__ void ema_advance(double* counts, double factor, int warmup, const int* loss_scale) {
  if (loss_scale && loss_scale[2]) return;
  double t = counts[0];
  counts[0] = t + 1, counts[1] = 1 - (warmup ? min(factor, (1 + t) / (10 + t)) : factor);
}

extern "C" __global__ void ema_step(const T* value, T* average, const double* counts, unsigned n, const int* loss_scale) {
  if (loss_scale && loss_scale[2]) return;
  T part = T(counts[1]);
  update<1>(n, {average, (T*)value}, [=](T (&a)[2]) { a[0] += part * (a[1] - a[0]); });
}
