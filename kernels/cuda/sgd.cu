// One step of SGD as the AlexNet paper prints it, in place:
//
//     v <- momentum * v - decay * lr * w - lr * dw        w <- w + v
//
// Layout: a parameter tensor as n numbers in a row. Grid: one-dimensional, blocks of 256, 16 bytes a thread. Three arrays
// are read and two written, once each: that is all the memory traffic a step can do with.
#include "common.cuh"

__device__ inline void step(T& w, T dw, T& v, T lr, T momentum, T shrink) {
  v = momentum * v - shrink * w - lr * dw;
  w += v;
}

// lr_there: see `number`. loss_scale: what dw was multiplied with, or null; after an overflow nothing is done (loss_scale.cu).
extern "C" __global__ void sgd_step(T* w, const T* dw, T* v, unsigned n, double factor, const double* lr_there, T momentum,
                                    double decay, const int* loss_scale) {
  if (loss_scale && loss_scale[2]) return;
  double rate = number(factor, lr_there);
  T lr = T(rate) / loss_scale_of(loss_scale), shrink = T(decay * rate);
  unsigned packs = aligned(w) && aligned(dw) && aligned(v) ? n / VECTOR : 0;
  for (unsigned i = thread_number(); i < packs; i += thread_count()) {
    Pack<VECTOR> pw = load<VECTOR>(w + i * VECTOR), pd = load<VECTOR>(dw + i * VECTOR), pv = load<VECTOR>(v + i * VECTOR);
    for (int j = 0; j < VECTOR; j++) step(pw.v[j], pd.v[j], pv.v[j], lr, momentum, shrink);
    store(v + i * VECTOR, pv);
    store(w + i * VECTOR, pw);
  }
  for (unsigned i = packs * VECTOR + thread_number(); i < n; i += thread_count()) step(w[i], dw[i], v[i], lr, momentum, shrink);
}
