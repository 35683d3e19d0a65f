// One step of SGD as printed in the AlexNet paper, in place:
//
//     v <- momentum * v - decay * lr * w - lr * dw        w <- w + v
//
// `decay` is the weight decay. Layout: a parameter tensor as n contiguous elements. Grid: one-dimensional, blocks of 256,
// 16 bytes a thread. Three arrays are read and two written, once each: the least memory traffic that a step can have.
#include "common.cuh"

__device__ inline void step(T& w, T dw, T& v, T lr, T momentum, T shrink) {
  v = momentum * v - shrink * w - lr * dw;
  w += v;
}

// The learning rate is lr_factor, or *lr_value * lr_factor: see step_value. loss_scale: the state of loss_scale.cu, by whose
// power of two dw is divided, or null; after an overflow nothing is updated.
extern "C" __global__ void sgd_step(T* w, const T* dw, T* v, unsigned n, double lr_factor, const double* lr_value, T momentum,
                                    double decay, const int* loss_scale) {
  if (loss_scale && loss_scale[2]) return;
  double unscaled = step_value(lr_factor, lr_value);
  T lr = T(unscaled) / loss_scale_of(loss_scale), shrink = T(decay * unscaled);
  unsigned packs = aligned(w) && aligned(dw) && aligned(v) ? n / VECTOR : 0;
  for (unsigned i = thread_number(); i < packs; i += thread_count()) {
    Pack<VECTOR> pw = load<VECTOR>(w + i * VECTOR), pd = load<VECTOR>(dw + i * VECTOR), pv = load<VECTOR>(v + i * VECTOR);
    for (int j = 0; j < VECTOR; j++) step(pw.v[j], pd.v[j], pv.v[j], lr, momentum, shrink);
    store(v + i * VECTOR, pv);
    store(w + i * VECTOR, pw);
  }
  for (unsigned i = packs * VECTOR + thread_number(); i < n; i += thread_count()) step(w[i], dw[i], v[i], lr, momentum, shrink);
}
