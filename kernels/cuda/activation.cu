// ReLU and tanh, forward and backward.
//
//     relu   y = max(x, 0)     dx = dy * (y > 0)            tanh   y = tanh(x)     dx = dy * (1 - y^2)
//
// Layout: any shape, seen as n numbers in a row. Grid: one-dimensional, blocks of 256; a thread takes 16 bytes, then the
// ones a whole grid further on. Each array passes through once, so these run at the speed of memory. y may be x, and dx
// may be dy: a thread reads what it will overwrite, and nobody else does.
#include "common.cuh"

extern "C" __global__ void relu_forward(const T* x, T* y, unsigned n) {
  map(n, x, y, [](T a) { return a <= 0 ? T(0) : a; });         // a NaN is not <= 0: it stays, and is seen
}

extern "C" __global__ void relu_backward(const T* y, const T* dy, T* dx, unsigned n) {
  map(n, dy, y, dx, [](T g, T a) { return g * T(a > 0); });
}

extern "C" __global__ void tanh_forward(const T* x, T* y, unsigned n) {
  map(n, x, y, [](T a) { return tanh(a); });
}

extern "C" __global__ void tanh_backward(const T* y, const T* dy, T* dx, unsigned n) {
  map(n, dy, y, dx, [](T g, T a) { return g * (1 - a * a); });
}
