// Convolution:  y[n,p,q,k] = b[k] + sum over r, s, c of x[n, p*u + r - top, q*v + s - left, c] * w[r,s,c,k].
//
// Layouts, and the product Y = X W that all versions compute: conv.cuh. They differ in where X is, and in how they multiply
// (gemm.cuh); kernels/README.md explains them one after the other:
//
//     v1   X is written to memory by im2col, then multiplied
//     v2   the same product, but X is never stored: a tile is gathered from the image when it is needed
//     v3   v2 with larger tiles in registers; the next piece is fetched while one is multiplied
//     v4   v3 on the tensor cores, in TF32, bf16 or fp16
//     v5   for a Hopper GPU: conv_hopper.cu
#include "conv.cuh"

// ---- version 1: X is written out. Easy to follow, but X is R*S times as large as x, and crosses memory twice.

// X (G, N*P*Q, R*S*D). Grid: one-dimensional, blocks of 256, a thread for each element of X; neighbours are channels.
extern "C" __global__ void conv_im2col(const S* x, T* X, Geometry t) {
  unsigned size = t.pixels() * t.taps();
  for (unsigned i = thread_number(); i < t.G * size; i += thread_count()) {
    unsigned g = i / size, pixel = i % size / t.taps(), c = i % t.D, tap = i % t.taps() / t.D;
    unsigned q = pixel % t.Q, p = pixel / t.Q % t.P, n = pixel / t.Q / t.P;
    int h = (int)(p * t.stride_h + tap / t.S) - t.top, w = (int)(q * t.stride_w + tap % t.S) - t.left;
    bool inside = h >= 0 && h < (int)t.H && w >= 0 && w < (int)t.W;
    X[i] = inside ? x[((n * t.H + h) * t.W + w) * t.C + g * t.D + c] : T(0);
  }
}

// dx from dX (G, N*P*Q, R*S*D), as a gather: each input pixel sums the gradients of the windows that contain it. Grid: a
// thread for each element of dx.
extern "C" __global__ void conv_col2im(const T* dX, S* dx, Geometry t) {
  for (unsigned i = thread_number(); i < t.inputs() * t.C; i += thread_count()) {
    unsigned g = i % t.C / t.D, c = i % t.C % t.D, pixel = i / t.C, w = pixel % t.W, h = pixel / t.W % t.H, n = pixel / t.W / t.H;
    T sum = 0;
    for (unsigned r = 0; r < t.R; r++) {
      int row = (int)(h + t.top) - (int)r;
      unsigned p = (unsigned)row / t.stride_h;
      if (row < 0 || p * t.stride_h != row || p >= t.P) continue;
      for (unsigned s = 0; s < t.S; s++) {
        int column = (int)(w + t.left) - (int)s;
        unsigned q = (unsigned)column / t.stride_w;
        if (column < 0 || q * t.stride_w != column || q >= t.Q) continue;
        sum += dX[(g * t.pixels() + (n * t.P + p) * t.Q + q) * t.taps() + (r * t.S + s) * t.D + c];
      }
    }
    dx[i] = sum;
  }
}

// X of this block's group.
__device__ inline unsigned of_group(const Geometry& t) { return t.group() * t.pixels() * t.taps(); }

extern "C" __global__ void conv_v1_forward(const T* X, const T* w, S* y, T* partial, const T* bias, int relu, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.taps(), t);
  gemm(Matrix<T>{X + of_group(t), t.pixels(), t.taps(), t.taps()}, kernels_of_group(w, t), t.pixels(), t.L, first, last,
       to_maps(y, partial, bias, relu, t));
}
extern "C" __global__ void conv_v1_backward_data(const S* dy, const T* w, T* dX, T* partial, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.L, t);
  gemm(maps_of_group(dy, t), transposed(kernels_of_group(w, t)), t.pixels(), t.taps(), first, last,
       Result<T>{dX + t.group() * t.pixels() * t.taps(), t.partial(partial, t.G * t.pixels() * t.taps(), t.group() * t.pixels() * t.taps()),
                 t.taps(), nullptr, 0, 0});
}
extern "C" __global__ void conv_v1_backward_weights(const T* X, const S* dy, T* dw, T* partial, int add, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.pixels(), t);
  gemm(transposed(Matrix<T>{X + of_group(t), t.pixels(), t.taps(), t.taps()}), maps_of_group(dy, t), t.taps(), t.L, first, last,
       to_kernels(dw, partial, add, t));
}

// ---- version 2: the matrices as functions.
extern "C" __global__ void conv_v2_forward(const S* x, const T* w, S* y, T* partial, const T* bias, int relu, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.taps(), t);
  gemm(Windows{x, t}, Kernels{w, t}, t.pixels(), t.L, first, last, to_maps(y, partial, bias, relu, t));
}
extern "C" __global__ void conv_v2_backward_data(const S* dy, const T* w, S* dx, T* partial, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.senders(), t);
  gemm(Senders<>{dy, t}, TransposedKernels{w, t}, t.inputs(), t.D, first, last, to_pixels(dx, partial, t));
}
extern "C" __global__ void conv_v2_backward_weights(const S* x, const S* dy, T* dw, T* partial, int add, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.pixels(), t);
  gemm(transposed(Windows{x, t}), maps_of_group(dy, t), t.taps(), t.L, first, last, to_kernels(dw, partial, add, t));
}

// ---- version 3. `packs`: D and L are multiples of 16 bytes, and so are the arrays' addresses.
extern "C" __global__ void conv_v3_forward(const S* x, const T* w, S* y, T* partial, const T* bias, int relu, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.taps(), t);
  gemm_async<Registers>(Windows{x, t}, Kernels{w, t}, x, packs, t.pixels(), t.L, first, last, to_maps(y, partial, bias, relu, t));
}
extern "C" __global__ void conv_v3_backward_data(const S* dy, const T* w, S* dx, T* partial, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.senders(), t);
  gemm_async<Registers>(Senders<>{dy, t}, TransposedKernels{w, t}, dy, packs, t.inputs(), t.D, first, last, to_pixels(dx, partial, t));
}
extern "C" __global__ void conv_v3_backward_weights(const S* x, const S* dy, T* dw, T* partial, int add, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.pixels(), t);
  gemm_async<Registers>(transposed(Windows{x, t}), maps_of_group(dy, t), x, packs, t.taps(), t.L, first, last, to_kernels(dw, partial, add, t));
}

// ---- version 4: tensor cores.
using Cores = Tensor<T>::Sums;
extern "C" __global__ void conv_v4_forward(const S* x, const T* w, S* y, T* partial, const T* bias, int relu, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.taps(), t);
  gemm_async<Cores>(Windows{x, t}, Kernels{w, t}, x, packs, t.pixels(), t.L, first, last, to_maps(y, partial, bias, relu, t));
}
extern "C" __global__ void conv_v4_backward_data(const S* dy, const T* w, S* dx, T* partial, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.senders(), t);
  gemm_async<Cores>(Senders<>{dy, t}, TransposedKernels{w, t}, dy, packs, t.inputs(), t.D, first, last, to_pixels(dx, partial, t));
}
extern "C" __global__ void conv_v4_backward_weights(const S* x, const S* dy, T* dw, T* partial, int add, unsigned slice, int packs, Geometry t) {
  auto [first, last] = part(slice, t.pixels(), t);
  gemm_async<Cores>(transposed(Windows{x, t}), maps_of_group(dy, t), x, packs, t.taps(), t.L, first, last, to_kernels(dw, partial, add, t));
}
