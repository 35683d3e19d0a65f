// Convolution:  y[n,p,q,k] = b[k] + sum over r, s, c of x[n, p*u + r - top, q*v + s - left, c] * w[r,s,c,k].
//
// Layout: x (N, H, W, C), w (R, S, D, K), y (N, P, Q, K); G groups, D = C/G input and K/G output channels in each. A launch
// does one group: g says which.
//
// All versions are the same matrix product, Y = X W, with one row for each output pixel (n, p, q) and one column for each
// tap (r, s, c); they differ in where X is. Its gradients are dX = dY W' and dW = X' dY (kernels/reference/conv.py).
#include "gemm.cuh"

struct Geometry {
  unsigned N, H, W, C, P, Q, K, R, S, D;
  int stride_h, stride_w, top, left;
  unsigned g;
  __device__ unsigned pixels() const { return N * P * Q; }
  __device__ unsigned taps() const { return R * S * D; }
  __device__ unsigned kernels() const { return K / (C / D); }               // of this group
};

// ---- version 1: X is written out. Easy to follow, but X is R*S times as large as x, and passes through memory twice.

// X (N*P*Q, R*S*D). Grid: one-dimensional, blocks of 256, a thread for each number of X; neighbours are channels.
extern "C" __global__ void conv_im2col(const T* x, T* X, Geometry t) {
  for (unsigned i = thread_number(); i < t.pixels() * t.taps(); i += thread_count()) {
    unsigned c = i % t.D, tap = i / t.D % (t.R * t.S), pixel = i / t.taps();
    unsigned q = pixel % t.Q, p = pixel / t.Q % t.P, n = pixel / t.Q / t.P;
    int h = (int)(p * t.stride_h + tap / t.S) - t.top, w = (int)(q * t.stride_w + tap % t.S) - t.left;
    bool inside = h >= 0 && h < (int)t.H && w >= 0 && w < (int)t.W;
    X[i] = inside ? x[((n * t.H + h) * t.W + w) * t.C + t.g * t.D + c] : T(0);
  }
}

// dx from dX, as a gather: a pixel collects what it lent to each window over it. Grid: a thread for each number of dx of
// this group.
extern "C" __global__ void conv_col2im(const T* dX, T* dx, Geometry t) {
  for (unsigned i = thread_number(); i < t.N * t.H * t.W * t.D; i += thread_count()) {
    unsigned c = i % t.D, pixel = i / t.D, w = pixel % t.W, h = pixel / t.W % t.H, n = pixel / t.W / t.H;
    T sum = 0;
    for (unsigned r = 0; r < t.R; r++) {
      int row = (int)(h + t.top) - (int)r, p = row / t.stride_h;
      if (row < 0 || row % t.stride_h || p >= (int)t.P) continue;
      for (unsigned s = 0; s < t.S; s++) {
        int column = (int)(w + t.left) - (int)s, q = column / t.stride_w;
        if (column < 0 || column % t.stride_w || q >= (int)t.Q) continue;
        sum += dX[((n * t.P + p) * t.Q + q) * t.taps() + (r * t.S + s) * t.D + c];
      }
    }
    dx[pixel * t.C + t.g * t.D + c] = sum;
  }
}

// The group's columns of the kernels, as a matrix (R*S*D, K/G), and of y or dy, as a matrix (N*P*Q, K/G).
__device__ inline Matrix<true> kernels_of_group(const T* w, const Geometry& t) {
  return {w + t.g * t.kernels(), t.taps(), t.kernels(), t.K};
}
__device__ inline Matrix<true> maps_of_group(const T* y, const Geometry& t) {
  return {y + t.g * t.kernels(), t.pixels(), t.kernels(), t.K};
}

extern "C" __global__ void conv_v1_forward(const T* X, const T* w, T* y, const T* bias, int relu, Geometry t) {
  unsigned start = t.g * t.kernels();
  gemm(Matrix<true>{X, t.pixels(), t.taps(), t.taps()}, kernels_of_group(w, t), t.pixels(), t.kernels(), t.taps(), t.taps(),
       Epilogue{y + start, t.K, bias ? bias + start : nullptr, relu});
}

extern "C" __global__ void conv_v1_backward_data(const T* dy, const T* w, T* dX, Geometry t) {
  gemm(maps_of_group(dy, t), Matrix<false>{w + t.g * t.kernels(), t.kernels(), t.taps(), t.K}, t.pixels(), t.taps(), t.kernels(),
       t.kernels(), Epilogue{dX, t.taps(), nullptr, 0});
}

extern "C" __global__ void conv_v1_backward_weights(const T* X, const T* dy, T* partial, unsigned slice, Geometry t) {
  gemm(Matrix<false>{X, t.taps(), t.pixels(), t.taps()}, maps_of_group(dy, t), t.taps(), t.kernels(), t.pixels(), slice,
       Slice{partial, t.taps(), t.kernels()});
}

// dw += the slices' sums, in order. Grid: one-dimensional, blocks of 256.
extern "C" __global__ void conv_add_slices(const T* partial, T* dw, unsigned slices, Geometry t) {
  add_slices(partial, dw + t.g * t.kernels(), slices, t.taps(), t.kernels(), t.K);
}
