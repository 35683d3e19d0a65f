// ReLU, tanh, sigmoid and GELU, forward and backward.
//
//     relu   y = max(x, 0)     dx = dy * (y > 0)            tanh   y = tanh(x)     dx = dy * (1 - y^2)
//     sigmoid   y = 1 / (1 + exp(-x))     dx = dy * y * (1 - y)
//     gelu   y = x Phi(x)     dx = dy * (Phi(x) + x phi(x)),  the normal distribution's Phi = (1 + erf(x / sqrt 2)) / 2
//
// Layout: any shape, seen as n contiguous elements. Grid: one-dimensional, blocks of 256; a thread takes 16 bytes, then the
// next ones at the distance of the grid's size. Each array crosses memory once, so memory bandwidth is the limit. y may be
// x, and dx may be dy: each element is read by the thread that overwrites it, and by no other.
#include "common.cuh"

extern "C" __global__ void relu_forward(const S* x, S* y, unsigned n) {
  map(n, x, y, [](T a) { return a <= 0 ? T(0) : a; });         // NaN is not <= 0, so it stays NaN
}

extern "C" __global__ void relu_backward(const S* y, const S* dy, S* dx, unsigned n) {
  map(n, dy, y, dx, [](T g, T a) { return g * T(a > 0); });
}

extern "C" __global__ void leaky_relu_forward(const S* x, S* y, unsigned n, T slope) {
  map(n, x, y, [slope](T a) { return a > 0 ? a : slope * a; });
}

extern "C" __global__ void leaky_relu_backward(const S* y, const S* dy, S* dx, unsigned n, T slope) {
  map(n, dy, y, dx, [slope](T g, T a) { return a > 0 ? g : slope * g; });
}

extern "C" __global__ void clipped_relu_forward(const S* x, S* y, unsigned n, T ceiling) {
  map(n, x, y, [ceiling](T a) { return a <= 0 ? T(0) : a > ceiling ? ceiling : a; });
}

extern "C" __global__ void clipped_relu_backward(const S* y, const S* dy, S* dx, unsigned n, T ceiling) {
  map(n, dy, y, dx, [ceiling](T g, T a) { return g * T(a > 0 && a < ceiling); });
}

extern "C" __global__ void tanh_forward(const S* x, S* y, unsigned n) {
  map(n, x, y, [](T a) { return tanh(a); });
}

extern "C" __global__ void tanh_backward(const S* y, const S* dy, S* dx, unsigned n) {
  map(n, dy, y, dx, [](T g, T a) { return g * (1 - a * a); });
}

extern "C" __global__ void sigmoid_forward(const S* x, S* y, unsigned n) {
  map(n, x, y, [](T a) {
    T e = exp(a < 0 ? a : -a);                                 // at most 1: no overflow. NaN stays NaN
    return (a < 0 ? e : T(1)) / (1 + e);
  });
}

extern "C" __global__ void sigmoid_backward(const S* y, const S* dy, S* dx, unsigned n) {
  map(n, dy, y, dx, [](T g, T a) { return g * (a * (1 - a)); });
}

__device__ T normal_cdf(T x) { return T(0.5) * (1 + erf(x * T(0.70710678118654752440))); }     // 1 / sqrt(2)

extern "C" __global__ void gelu_forward(const S* x, S* y, unsigned n) {
  map(n, x, y, [](T a) { return a * normal_cdf(a); });
}

extern "C" __global__ void gelu_backward(const S* x, const S* dy, S* dx, unsigned n) {
  map(n, dy, x, dx, [](T g, T a) {
    T density = T(0.39894228040143267794) * exp(T(-0.5) * a * a);                              // 1 / sqrt(2 pi)
    return g * (normal_cdf(a) + a * density);
  });
}
