// Fully connected layer:  y = x w + b,   dx = dy w',   dw += x' dy   (' is the transpose).
// And the gradient of w with the step of SGD that it leads to, at once: `sgd_step`, in one slice.
//
// Layouts: linear.cuh. gemm.cuh multiplies: v1 (and v2) by its gemm, v3 by gemm_async with registers, v4 with tensor cores;
// v5 is in linear_hopper.cu. `packs`: I and O are multiples of 16 bytes, and so are the addresses.
#include "linear.cuh"

extern "C" __global__ void linear_v1_forward(const S* x, const T* w, S* y, T* partial, const T* bias, int relu, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm(s.images(x), s.weights(w), s.N, s.O, first, min(first + slice, s.I), s.to_outputs(y, partial, bias, relu));
}
extern "C" __global__ void linear_v1_backward_data(const S* dy, const T* w, S* dx, T* partial, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm(s.outputs(dy), transposed(s.weights(w)), s.N, s.I, first, min(first + slice, s.O), s.to_images(dx, partial));
}
extern "C" __global__ void linear_v1_backward_weights(const S* x, const S* dy, T* dw, T* partial, int add, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm(transposed(s.images(x)), s.outputs(dy), s.I, s.O, first, min(first + slice, s.N), s.to_weights(dw, partial, add));
}
extern "C" __global__ void linear_v1_sgd_step(const S* x, const S* dy, T* w, T* v, double lr_factor, const double* lr_value, T momentum,
                                              double decay, int packs, Sizes s) {
  gemm(transposed(s.images(x)), s.outputs(dy), s.I, s.O, 0, s.N, s.updated(w, v, lr_factor, lr_value, momentum, decay));
}

extern "C" __global__ void linear_v3_forward(const S* x, const T* w, S* y, T* partial, const T* bias, int relu, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Registers>(s.images(x), s.weights(w), x, packs, s.N, s.O, first, min(first + slice, s.I), s.to_outputs(y, partial, bias, relu));
}
extern "C" __global__ void linear_v3_backward_data(const S* dy, const T* w, S* dx, T* partial, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Registers>(s.outputs(dy), transposed(s.weights(w)), dy, packs, s.N, s.I, first, min(first + slice, s.O), s.to_images(dx, partial));
}
extern "C" __global__ void linear_v3_backward_weights(const S* x, const S* dy, T* dw, T* partial, int add, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Registers>(transposed(s.images(x)), s.outputs(dy), x, packs, s.I, s.O, first, min(first + slice, s.N), s.to_weights(dw, partial, add));
}
extern "C" __global__ void linear_v3_sgd_step(const S* x, const S* dy, T* w, T* v, double lr_factor, const double* lr_value, T momentum,
                                              double decay, int packs, Sizes s) {
  gemm_async<Registers>(transposed(s.images(x)), s.outputs(dy), x, packs, s.I, s.O, 0, s.N, s.updated(w, v, lr_factor, lr_value, momentum, decay));
}

using Cores = Tensor<T>::Sums;
extern "C" __global__ void linear_v4_forward(const S* x, const T* w, S* y, T* partial, const T* bias, int relu, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Cores>(s.images(x), s.weights(w), x, packs, s.N, s.O, first, min(first + slice, s.I), s.to_outputs(y, partial, bias, relu));
}
extern "C" __global__ void linear_v4_backward_data(const S* dy, const T* w, S* dx, T* partial, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Cores>(s.outputs(dy), transposed(s.weights(w)), dy, packs, s.N, s.I, first, min(first + slice, s.O), s.to_images(dx, partial));
}
extern "C" __global__ void linear_v4_backward_weights(const S* x, const S* dy, T* dw, T* partial, int add, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Cores>(transposed(s.images(x)), s.outputs(dy), x, packs, s.I, s.O, first, min(first + slice, s.N), s.to_weights(dw, partial, add));
}
extern "C" __global__ void linear_v4_sgd_step(const S* x, const S* dy, T* w, T* v, double lr_factor, const double* lr_value, T momentum,
                                              double decay, int packs, Sizes s) {
  gemm_async<Cores>(transposed(s.images(x)), s.outputs(dy), x, packs, s.I, s.O, 0, s.N, s.updated(w, v, lr_factor, lr_value, momentum, decay));
}
