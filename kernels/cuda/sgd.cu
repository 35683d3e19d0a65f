// One step of SGD, in place. As printed in the AlexNet paper:
//
//     v <- momentum * v - decay * lr * w - lr * dw        w <- w + v
//
// and the other forms of kernels/reference/sgd.py. `decay` is the weight decay. Layout: a parameter tensor as n contiguous
// elements. Three arrays are read and two written, once each (update.cuh).
//
// The learning rate is lr_factor, or *lr_value * lr_factor: see step_value. loss_scale: the state of loss_scale.cu, by whose
// power of two dw is divided, or null; after an overflow nothing is updated.
#include "update.cuh"

extern "C" __global__ void sgd_step(T* w, const T* dw, T* v, unsigned n, double lr_factor, const double* lr_value, T momentum,
                                    double decay, const int* loss_scale) {
  if (loss_scale && loss_scale[2]) return;
  SgdStep step(step_value(lr_factor, lr_value), momentum, decay, loss_scale_of(loss_scale));
  update<2>(n, {w, v, (T*)dw}, [=](T (&a)[3]) { step(a[0], a[1], a[2]); });
}

// Every other form is linear in w, dw and v. With g = of_dw * dw + of_w * w:  v <- momentum * v + g,  w <- keep * w +
// along * v + ahead * g.
extern "C" __global__ void sgd_linear_step(T* w, const T* dw, T* v, unsigned n, double lr_factor, const double* lr_value,
                                           double momentum, double decay, int lr_in_velocity, int nesterov, int decoupled,
                                           const int* loss_scale) {
  if (loss_scale && loss_scale[2]) return;
  double lr = step_value(lr_factor, lr_value), inside = lr_in_velocity ? -lr : 1, outside = lr_in_velocity ? 1 : -lr;
  T of_dw = T(inside) / loss_scale_of(loss_scale), of_w = T(decoupled ? 0 : inside * decay);
  T keep = T(decoupled ? 1 - lr * decay : 1), along = T(nesterov ? outside * momentum : outside);
  T ahead = T(nesterov ? outside : 0), rest = T(momentum);
  update<2>(n, {w, v, (T*)dw}, [=](T (&a)[3]) {
    T g = of_dw * a[2] + of_w * a[0];
    a[1] = rest * a[1] + g;
    a[0] = keep * a[0] + (along * a[1] + ahead * g);
  });
}
