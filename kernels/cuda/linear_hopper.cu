// Fully connected layer, version 5: on the tensor cores of a Hopper GPU. What is multiplied: linear.cuh; how: hopper.cuh.
#include "hopper.cuh"
#include "linear.cuh"

extern "C" __global__ void __launch_bounds__(hopper::THREADS, hopper::BLOCKS) linear_v5_forward(const S* x, const T* w, S* y, T* partial, const T* bias, int relu, unsigned slice,
                                                                       Sizes s) {
  unsigned first = blockIdx.z * slice;
  hopper::product(s.images(x), s.weights(w), s.N, s.O, first, min(first + slice, s.I), s.to_outputs(y, partial, bias, relu));
}
extern "C" __global__ void __launch_bounds__(hopper::THREADS, hopper::BLOCKS) linear_v5_backward_data(const S* dy, const T* w, S* dx, T* partial, unsigned slice,
                                                                             Sizes s) {
  unsigned first = blockIdx.z * slice;
  hopper::product(s.outputs(dy), transposed(s.weights(w)), s.N, s.I, first, min(first + slice, s.O), s.to_images(dx, partial));
}
extern "C" __global__ void __launch_bounds__(hopper::THREADS, hopper::BLOCKS) linear_v5_backward_weights(const S* x, const S* dy, T* dw, T* partial, int add, unsigned slice,
                                                                                Sizes s) {
  unsigned first = blockIdx.z * slice;
  hopper::product(transposed(s.images(x)), s.outputs(dy), s.I, s.O, first, min(first + slice, s.N), s.to_weights(dw, partial, add));
}
extern "C" __global__ void __launch_bounds__(hopper::THREADS, hopper::BLOCKS) linear_v5_sgd_step(const S* x, const S* dy, T* w, T* v, double lr_factor,
                                                                        const double* lr_value, T momentum, double decay, Sizes s) {
  hopper::product(transposed(s.images(x)), s.outputs(dy), s.I, s.O, 0u, s.N, s.updated(w, v, lr_factor, lr_value, momentum, decay));
}
