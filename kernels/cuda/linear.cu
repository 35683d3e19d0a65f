// Fully connected layer:  y = x w + b,   dx = dy w',   dw += x' dy   (' is the transpose).
// And the gradient of w with the step of SGD that it leads to, at once: `sgd_step`, in one slice.
//
// Layouts: linear.cuh. gemm.cuh multiplies: v1 (and v2) by its gemm, v3 by gemm_async with registers, v4 with tensor cores;
// v5 is in linear_hopper.cu. `packs`: I and O are multiples of 16 bytes, and so are the addresses.
#include "linear.cuh"

// The end of a product in slices: see add_slices. Grid: one-dimensional, blocks of 256.
extern "C" __global__ void linear_add_slices(const T* partial, T* y, const T* bias, int relu, int add, unsigned slices, unsigned n,
                                             Divisor columns) {
  add_slices(partial, y, bias, relu, add, slices, n, columns);
}

extern "C" __global__ void linear_v1_forward(const T* x, const T* w, T* y, const T* bias, int relu, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm(s.images(x), s.weights(w), s.N, s.O, first, min(first + slice, s.I), s.to_outputs(y, bias, relu));
}
extern "C" __global__ void linear_v1_backward_data(const T* dy, const T* w, T* dx, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm(s.outputs(dy), transposed(s.weights(w)), s.N, s.I, first, min(first + slice, s.O), s.to_images(dx));
}
extern "C" __global__ void linear_v1_backward_weights(const T* x, const T* dy, T* dw, int add, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm(transposed(s.images(x)), s.outputs(dy), s.I, s.O, first, min(first + slice, s.N), s.to_weights(dw, add));
}
extern "C" __global__ void linear_v1_sgd_step(const T* x, const T* dy, T* w, T* v, double lr_factor, const double* lr_value, T momentum,
                                              double decay, int packs, Sizes s) {
  gemm(transposed(s.images(x)), s.outputs(dy), s.I, s.O, 0, s.N, s.updated(w, v, lr_factor, lr_value, momentum, decay));
}

extern "C" __global__ void linear_v3_forward(const T* x, const T* w, T* y, const T* bias, int relu, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Registers>(s.images(x), s.weights(w), x, packs, s.N, s.O, first, min(first + slice, s.I), s.to_outputs(y, bias, relu));
}
extern "C" __global__ void linear_v3_backward_data(const T* dy, const T* w, T* dx, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Registers>(s.outputs(dy), transposed(s.weights(w)), dy, packs, s.N, s.I, first, min(first + slice, s.O), s.to_images(dx));
}
extern "C" __global__ void linear_v3_backward_weights(const T* x, const T* dy, T* dw, int add, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Registers>(transposed(s.images(x)), s.outputs(dy), x, packs, s.I, s.O, first, min(first + slice, s.N), s.to_weights(dw, add));
}
extern "C" __global__ void linear_v3_sgd_step(const T* x, const T* dy, T* w, T* v, double lr_factor, const double* lr_value, T momentum,
                                              double decay, int packs, Sizes s) {
  gemm_async<Registers>(transposed(s.images(x)), s.outputs(dy), x, packs, s.I, s.O, 0, s.N, s.updated(w, v, lr_factor, lr_value, momentum, decay));
}

using Cores = Tensor<T>::Sums;
extern "C" __global__ void linear_v4_forward(const T* x, const T* w, T* y, const T* bias, int relu, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Cores>(s.images(x), s.weights(w), x, packs, s.N, s.O, first, min(first + slice, s.I), s.to_outputs(y, bias, relu));
}
extern "C" __global__ void linear_v4_backward_data(const T* dy, const T* w, T* dx, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Cores>(s.outputs(dy), transposed(s.weights(w)), dy, packs, s.N, s.I, first, min(first + slice, s.O), s.to_images(dx));
}
extern "C" __global__ void linear_v4_backward_weights(const T* x, const T* dy, T* dw, int add, unsigned slice, int packs, Sizes s) {
  unsigned first = blockIdx.z * slice;
  gemm_async<Cores>(transposed(s.images(x)), s.outputs(dy), x, packs, s.I, s.O, first, min(first + slice, s.N), s.to_weights(dw, add));
}
extern "C" __global__ void linear_v4_sgd_step(const T* x, const T* dy, T* w, T* v, double lr_factor, const double* lr_value, T momentum,
                                              double decay, int packs, Sizes s) {
  gemm_async<Cores>(transposed(s.images(x)), s.outputs(dy), x, packs, s.I, s.O, 0, s.N, s.updated(w, v, lr_factor, lr_value, momentum, decay));
}
