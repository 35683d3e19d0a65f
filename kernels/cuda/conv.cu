// Convolution:  y[n,p,q,k] = b[k] + sum over r, s, c of x[n, p*u + r - top, q*v + s - left, c] * w[r,s,c,k].
//
// Layout: x (N, H, W, C), w (R, S, D, K), y (N, P, Q, K); G groups, D = C/G input and K/G output channels in each. A launch
// does one group: g says which.
//
// All versions are the same matrix product, Y = X W, with one row for each output pixel (n, p, q) and one column for each
// tap (r, s, c); its gradients are dX = dY W' and dW = X' dY (kernels/reference/conv.py). They differ in where X is, and in
// how the product is taken (gemm.cuh); kernels/README.md climbs from one to the next:
//
//     v1   X is written to memory by im2col, then multiplied
//     v2   the same product, but X exists nowhere: a tile is gathered from the image as it is needed
//     v3   v2 with larger tiles in registers, whose next piece is fetched while one is multiplied
//     v4   v3 on the tensor cores, in TF32, bf16 or fp16
#include "gemm.cuh"

struct Geometry {
  unsigned N, H, W, C, P, Q, K, R, S, D;
  int stride_h, stride_w, top, left;
  unsigned g;                                                               // the group of this launch
  __device__ unsigned pixels() const { return N * P * Q; }
  __device__ unsigned taps() const { return R * S * D; }
  __device__ unsigned kernels() const { return K / (C / D); }               // of one group
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
__device__ inline Matrix kernels_of_group(const T* w, const Geometry& t) {
  return {w + t.g * t.kernels(), t.taps(), t.kernels(), t.K};
}
__device__ inline Matrix maps_of_group(const T* y, const Geometry& t) {
  return {y + t.g * t.kernels(), t.pixels(), t.kernels(), t.K};
}
__device__ inline Epilogue to_maps(T* y, const T* bias, int relu, const Geometry& t) {
  return {y + t.g * t.kernels(), t.K, bias ? bias + t.g * t.kernels() : nullptr, relu};
}

extern "C" __global__ void conv_v1_forward(const T* X, const T* w, T* y, const T* bias, int relu, Geometry t) {
  gemm(Matrix{X, t.pixels(), t.taps(), t.taps()}, kernels_of_group(w, t), t.pixels(), t.kernels(), t.taps(), t.taps(),
       to_maps(y, bias, relu, t));
}

extern "C" __global__ void conv_v1_backward_data(const T* dy, const T* w, T* dX, Geometry t) {
  gemm(maps_of_group(dy, t), transposed(kernels_of_group(w, t)), t.pixels(), t.taps(), t.kernels(), t.kernels(),
       Epilogue{dX, t.taps(), nullptr, 0});
}

extern "C" __global__ void conv_v1_backward_weights(const T* X, const T* dy, T* partial, unsigned slice, Geometry t) {
  gemm(transposed(Matrix{X, t.pixels(), t.taps(), t.taps()}), maps_of_group(dy, t), t.taps(), t.kernels(), t.pixels(), slice,
       Slice{partial, t.taps(), t.kernels()});
}

// dw += the slices' sums, in order; without `add`, dw =. Grid: one-dimensional, blocks of 256. Every version ends so.
extern "C" __global__ void conv_add_slices(const T* partial, T* dw, unsigned slices, int add, Geometry t) {
  add_slices(partial, dw + t.g * t.kernels(), slices, t.taps(), t.kernels(), t.K, add);
}

// ---- version 2: the matrices as functions.

// X (N*P*Q, R*S*D): where the image holds the element, or null in the padding.
struct Windows {
  const T* x;
  Geometry t;
  static constexpr bool ALONG_COLUMN = true;                                // neighbouring columns: neighbouring channels
  struct Row { const T* image; int h, w; };                                 // of the window's first pixel
  struct Column { int r, s; unsigned c; };
  __device__ Row row(unsigned pixel) const {
    unsigned q = pixel % t.Q, p = pixel / t.Q % t.P, n = pixel / t.Q / t.P;
    return {n < t.N ? x + n * t.H * t.W * t.C + t.g * t.D : nullptr, (int)p * t.stride_h - t.top, (int)q * t.stride_w - t.left};
  }
  __device__ Column column(unsigned tap) const {
    unsigned pixel = tap / t.D;
    return {(int)(pixel / t.S), (int)(pixel % t.S), tap % t.D};
  }
  __device__ const T* where(Row a, Column b) const {
    int h = a.h + b.r, w = a.w + b.s;
    bool inside = a.image && b.r < (int)t.R && h >= 0 && h < (int)t.H && w >= 0 && w < (int)t.W;
    return inside ? a.image + (h * t.W + w) * t.C + b.c : nullptr;
  }
};

// What dx is a product of: a row for each input pixel, a column for each (r, s, k): the dy of the window that sees the pixel
// at its place (r, s), or null where there is none. With a stride of u, only every u-th r finds a window.
struct Senders {
  const T* dy;
  Geometry t;
  static constexpr bool ALONG_COLUMN = true;
  struct Row { const T* image; int h, w; };
  struct Column { int r, s; unsigned k; };
  __device__ Row row(unsigned pixel) const {
    unsigned w = pixel % t.W, h = pixel / t.W % t.H, n = pixel / t.W / t.H;
    return {n < t.N ? dy + n * t.P * t.Q * t.K + t.g * t.kernels() : nullptr, (int)h + t.top, (int)w + t.left};
  }
  __device__ Column column(unsigned i) const {
    unsigned place = i / t.kernels();
    return {(int)(place / t.S), (int)(place % t.S), i % t.kernels()};
  }
  __device__ const T* where(Row a, Column b) const {
    int h = a.h - b.r, w = a.w - b.s, p = h / t.stride_h, q = w / t.stride_w;
    bool sends = a.image && b.r < (int)t.R && h >= 0 && w >= 0 && p * t.stride_h == h && q * t.stride_w == w && p < (int)t.P &&
                 q < (int)t.Q;
    return sends ? a.image + (p * t.Q + q) * t.K + b.k : nullptr;
  }
};

// And the kernels that belong to it: a row for each (r, s, k), a column for each channel c of the group.
struct Turned {
  const T* w;
  Geometry t;
  static constexpr bool ALONG_COLUMN = false;                               // neighbouring rows: neighbouring kernels
  struct Row { const T* place; };
  struct Column { unsigned c; };
  __device__ Row row(unsigned i) const {
    unsigned place = i / t.kernels(), k = i % t.kernels();
    return {place < t.R * t.S ? w + place * t.D * t.K + t.g * t.kernels() + k : nullptr};
  }
  __device__ Column column(unsigned c) const { return {c}; }
  __device__ const T* where(Row a, Column b) const { return a.place && b.c < t.D ? a.place + b.c * t.K : nullptr; }
};

// dx of the group: rows of C channels, of which D are its own.
__device__ inline Epilogue to_pixels(T* dx, const Geometry& t) { return {dx + t.g * t.D, t.C, nullptr, 0}; }

extern "C" __global__ void conv_v2_forward(const T* x, const T* w, T* y, const T* bias, int relu, int packs, Geometry t) {
  gemm(Windows{x, t}, kernels_of_group(w, t), t.pixels(), t.kernels(), t.taps(), t.taps(), to_maps(y, bias, relu, t));
}
extern "C" __global__ void conv_v2_backward_data(const T* dy, const T* w, T* dx, int packs, Geometry t) {
  unsigned K = t.R * t.S * t.kernels();
  gemm(Senders{dy, t}, Turned{w, t}, t.N * t.H * t.W, t.D, K, K, to_pixels(dx, t));
}
extern "C" __global__ void conv_v2_backward_weights(const T* x, const T* dy, T* partial, unsigned slice, int packs, Geometry t) {
  gemm(transposed(Windows{x, t}), maps_of_group(dy, t), t.taps(), t.kernels(), t.pixels(), slice,
       Slice{partial, t.taps(), t.kernels()});
}

// ---- version 3. `packs`: D and K/G are multiples of 16 bytes, and so are the arrays' addresses.
extern "C" __global__ void conv_v3_forward(const T* x, const T* w, T* y, const T* bias, int relu, int packs, Geometry t) {
  gemm_async<Registers>(Windows{x, t}, kernels_of_group(w, t), x, packs, t.pixels(), t.kernels(), t.taps(), t.taps(),
                        to_maps(y, bias, relu, t));
}
extern "C" __global__ void conv_v3_backward_data(const T* dy, const T* w, T* dx, int packs, Geometry t) {
  unsigned K = t.R * t.S * t.kernels();
  gemm_async<Registers>(Senders{dy, t}, Turned{w, t}, dy, packs, t.N * t.H * t.W, t.D, K, K, to_pixels(dx, t));
}
extern "C" __global__ void conv_v3_backward_weights(const T* x, const T* dy, T* partial, unsigned slice, int packs, Geometry t) {
  gemm_async<Registers>(transposed(Windows{x, t}), maps_of_group(dy, t), x, packs, t.taps(), t.kernels(), t.pixels(), slice,
                        Slice{partial, t.taps(), t.kernels()});
}

// ---- version 4: tensor cores.
extern "C" __global__ void conv_v4_forward(const T* x, const T* w, T* y, const T* bias, int relu, int packs, Geometry t) {
  gemm_async<Tensor<T>::Sums>(Windows{x, t}, kernels_of_group(w, t), x, packs, t.pixels(), t.kernels(), t.taps(), t.taps(),
                              to_maps(y, bias, relu, t));
}
extern "C" __global__ void conv_v4_backward_data(const T* dy, const T* w, T* dx, int packs, Geometry t) {
  unsigned K = t.R * t.S * t.kernels();
  gemm_async<Tensor<T>::Sums>(Senders{dy, t}, Turned{w, t}, dy, packs, t.N * t.H * t.W, t.D, K, K, to_pixels(dx, t));
}
extern "C" __global__ void conv_v4_backward_weights(const T* x, const T* dy, T* partial, unsigned slice, int packs, Geometry t) {
  gemm_async<Tensor<T>::Sums>(transposed(Windows{x, t}), maps_of_group(dy, t), x, packs, t.taps(), t.kernels(), t.pixels(), slice,
                              Slice{partial, t.taps(), t.kernels()});
}
