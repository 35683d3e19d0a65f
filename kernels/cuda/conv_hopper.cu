// Convolution, version 5: on the tensor cores of a Hopper GPU. What is multiplied: conv.cuh; how: hopper.cuh.
#include "conv.cuh"
#include "hopper.cuh"

extern "C" __global__ void __launch_bounds__(hopper::THREADS, hopper::BLOCKS) conv_v5_forward(const S* x, const T* w, S* y, T* partial, const T* bias, int relu, unsigned slice,
                                                                     Geometry t) {
  auto [first, last] = part(slice, t.taps(), t);
  hopper::product(Windows{x, t}, Kernels{w, t}, t.pixels(), t.L, first, last, to_maps(y, partial, bias, relu, t));
}
extern "C" __global__ void __launch_bounds__(hopper::THREADS, hopper::BLOCKS) conv_v5_backward_data(const S* dy, const T* w, S* dx, T* partial, unsigned slice,
                                                                           Geometry t) {
  auto [first, last] = part(slice, t.senders(), t);
  if (t.stride_h * t.stride_w > 1) hopper::product(Senders<true>{dy, t}, TransposedKernels{w, t}, t.inputs(), t.D, first, last, to_pixels(dx, partial, t));
  else hopper::product(Senders<false>{dy, t}, TransposedKernels{w, t}, t.inputs(), t.D, first, last, to_pixels(dx, partial, t));
}
extern "C" __global__ void __launch_bounds__(hopper::THREADS, hopper::BLOCKS) conv_v5_backward_weights(const S* x, const S* dy, T* dw, T* partial, int add, unsigned slice,
                                                                              Geometry t) {
  auto [first, last] = part(slice, t.pixels(), t);
  hopper::product(transposed(Windows{x, t}), maps_of_group(dy, t), t.taps(), t.L, first, last, KernelRows{to_kernels(dw, partial, add, t), t});
}
