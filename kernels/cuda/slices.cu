// The end of a product in several slices (gemm.cuh):  y = the slices' sums, always added in the same order, + bias, then ReLU; or y +=.
//
// Layout: partial (slices, n), y of n elements, `columns` of them in a row. y is of type S, a gradient of parameters of type T.
// Grid: one-dimensional, blocks of 256.
#include "gemm.cuh"

template <class E>
__device__ inline void add_up(const T* partial, E* y, const T* bias, int relu, int add, unsigned slices, unsigned n, Divisor columns) {
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    T sum = 0;
    for (unsigned slice = 0; slice < slices; slice++) sum += partial[slice * n + i];
    if (bias) sum += bias[i % columns];
    Result<E>{y, nullptr, 0, nullptr, relu, add}(0, i, sum);
  }
}

extern "C" __global__ void add_slices(const T* partial, S* y, const T* bias, int relu, unsigned slices, unsigned n, Divisor columns) {
  add_up(partial, y, bias, relu, 0, slices, n, columns);
}

extern "C" __global__ void add_slices_of_weights(const T* partial, T* dw, int add, unsigned slices, unsigned n, Divisor columns) {
  add_up(partial, dw, nullptr, 0, add, slices, n, columns);
}
