// Fully connected layer:  y = x w + b,   dx = dy w',   dw += x' dy   (' is the transpose).
//
// Layout: x (N, in), w (in, out), y (N, out); `in` and `out` are called I and O here. Grid: see gemm.cuh, whose tiles of
// 64 x 64 these three are. Nothing is transposed in memory: a transposed matrix is read with rows and columns exchanged.
#include "gemm.cuh"

extern "C" __global__ void linear_forward(const T* x, const T* w, T* y, const T* bias, unsigned N, unsigned I, unsigned O, int relu) {
  gemm(Matrix<true>{x, N, I, I}, Matrix<true>{w, I, O, O}, N, O, I, I, Epilogue{y, O, bias, relu});
}

extern "C" __global__ void linear_backward_data(const T* dy, const T* w, T* dx, unsigned N, unsigned I, unsigned O) {
  gemm(Matrix<true>{dy, N, O, O}, Matrix<false>{w, O, I, O}, N, I, O, O, Epilogue{dx, I, nullptr, 0});
}

// The sum here runs over the N images, a short one: one slice, added to dw at once.
extern "C" __global__ void linear_backward_weights(const T* x, const T* dy, T* dw, unsigned N, unsigned I, unsigned O) {
  gemm(Matrix<false>{x, I, N, I}, Matrix<true>{dy, N, O, O}, I, O, N, N,
       [=](unsigned i, unsigned o, T sum) { dw[i * O + o] += sum; });
}
