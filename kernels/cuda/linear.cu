// Fully connected layer:  y = x w + b,   dx = dy w',   dw += x' dy   (' is the transpose).
//
// Layout: x (N, in), w (in, out), y (N, out); `in` and `out` are called I and O here. Grid: see gemm.cuh, which multiplies:
// v1 and v2 by its gemm, v3 by gemm_async with registers, v4 with tensor cores. Nothing is transposed in memory: a transposed
// matrix is read with rows and columns exchanged. `packs`: I and O are multiples of 16 bytes, and so are the addresses.
#include "gemm.cuh"

// The sum of the third runs over the N images, a short one: one slice, added to dw at once, or written there without `add`.
struct Add {
  T* dw;
  unsigned step;
  int add;
  __device__ void operator()(unsigned i, unsigned o, T sum) const { dw[i * step + o] = add ? dw[i * step + o] + sum : sum; }
};

extern "C" __global__ void linear_v1_forward(const T* x, const T* w, T* y, const T* bias, unsigned N, unsigned I, unsigned O, int relu,
                                             int packs) {
  gemm(Matrix{x, N, I, I}, Matrix{w, I, O, O}, N, O, I, I, Epilogue{y, O, bias, relu});
}
extern "C" __global__ void linear_v1_backward_data(const T* dy, const T* w, T* dx, unsigned N, unsigned I, unsigned O, int packs) {
  gemm(Matrix{dy, N, O, O}, transposed(Matrix{w, I, O, O}), N, I, O, O, Epilogue{dx, I, nullptr, 0});
}
extern "C" __global__ void linear_v1_backward_weights(const T* x, const T* dy, T* dw, unsigned N, unsigned I, unsigned O, int add,
                                                      int packs) {
  gemm(transposed(Matrix{x, N, I, I}), Matrix{dy, N, O, O}, I, O, N, N, Add{dw, O, add});
}

extern "C" __global__ void linear_v3_forward(const T* x, const T* w, T* y, const T* bias, unsigned N, unsigned I, unsigned O, int relu,
                                             int packs) {
  gemm_async<Registers>(Matrix{x, N, I, I}, Matrix{w, I, O, O}, x, packs, N, O, I, I, Epilogue{y, O, bias, relu});
}
extern "C" __global__ void linear_v3_backward_data(const T* dy, const T* w, T* dx, unsigned N, unsigned I, unsigned O, int packs) {
  gemm_async<Registers>(Matrix{dy, N, O, O}, transposed(Matrix{w, I, O, O}), dy, packs, N, I, O, O, Epilogue{dx, I, nullptr, 0});
}
extern "C" __global__ void linear_v3_backward_weights(const T* x, const T* dy, T* dw, unsigned N, unsigned I, unsigned O, int add,
                                                      int packs) {
  gemm_async<Registers>(transposed(Matrix{x, N, I, I}), Matrix{dy, N, O, O}, x, packs, I, O, N, N, Add{dw, O, add});
}

extern "C" __global__ void linear_v4_forward(const T* x, const T* w, T* y, const T* bias, unsigned N, unsigned I, unsigned O, int relu,
                                             int packs) {
  gemm_async<Tensor<T>::Sums>(Matrix{x, N, I, I}, Matrix{w, I, O, O}, x, packs, N, O, I, I, Epilogue{y, O, bias, relu});
}
extern "C" __global__ void linear_v4_backward_data(const T* dy, const T* w, T* dx, unsigned N, unsigned I, unsigned O, int packs) {
  gemm_async<Tensor<T>::Sums>(Matrix{dy, N, O, O}, transposed(Matrix{w, I, O, O}), dy, packs, N, I, O, O, Epilogue{dx, I, nullptr, 0});
}
extern "C" __global__ void linear_v4_backward_weights(const T* x, const T* dy, T* dw, unsigned N, unsigned I, unsigned O, int add,
                                                      int packs) {
  gemm_async<Tensor<T>::Sums>(transposed(Matrix{x, N, I, I}), Matrix{dy, N, O, O}, x, packs, I, O, N, N, Add{dw, O, add});
}
