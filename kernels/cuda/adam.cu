// One step of Adam or AdamW, in place; kernels/reference/adam.py has the formula. Layout: a parameter tensor as n contiguous
// elements. Four arrays are read and three written, once each (update.cuh).
//
//     counts (double)   [t, 1 - beta1^t, sqrt(1 - beta2^t)]
//
// The learning rate is lr_factor, or *lr_value * lr_factor: see step_value. loss_scale: the state of loss_scale.cu, by whose
// power of two dw is divided, or null; after an overflow nothing is updated and the step is not counted.
#include "update.cuh"

// The counts of the step that follows. Grid: a single thread.
extern "C" __global__ void adam_advance(double* counts, double beta1, double beta2, const int* loss_scale) {
  if (loss_scale && loss_scale[2]) return;
  double t = counts[0] + 1;
  counts[0] = t, counts[1] = 1 - pow(beta1, t), counts[2] = sqrt(1 - pow(beta2, t));
}

extern "C" __global__ void adam_step(T* w, const T* dw, T* m, T* v, const double* counts, unsigned n, double lr_factor,
                                     const double* lr_value, double beta1, double beta2, T eps, double decay, int decoupled,
                                     const int* loss_scale) {
  if (loss_scale && loss_scale[2]) return;
  double lr = step_value(lr_factor, lr_value);
  T of_dw = 1 / loss_scale_of(loss_scale), of_w = T(decoupled ? 0 : decay), keep = T(decoupled ? 1 - lr * decay : 1);
  T new1 = T(1 - beta1), old2 = T(beta2), new2 = T(1 - beta2), step = T(lr / counts[1]), root = T(1 / counts[2]);
  update<3>(n, {w, m, v, (T*)dw}, [=](T (&a)[4]) {
    T g = of_dw * a[3] + of_w * a[0];
    a[1] += new1 * (g - a[1]);
    a[2] = old2 * a[2] + new2 * g * g;
    a[0] = keep * a[0] - step * a[1] / (sqrt(a[2]) * root + eps);
  });
}
