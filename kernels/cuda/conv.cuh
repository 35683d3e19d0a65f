// Convolution as matrix products: its matrices, as functions of (row, column). See gemm.cuh.
//
// Layout: x (N, H, W, C), w (R, S, D, K), y (N, P, Q, K); G groups, D = C/G input and L = K/G output channels in each.
// All versions compute the same matrix product, Y = X W, with one row for each output pixel (n, p, q) and one column for each
// tap (r, s, c); its gradients are dX = dY W' and dW = X' dY (kernels/reference/conv.py).
//
// A sum over taps may take them in any order, as long as both factors use the same. Order 1 is that of memory: r, s and then
// all channels. Order 2 takes `run` channels for all r and s, then the next `run` channels. Neighbouring taps read nearly the
// same pixels, so in order 2 a pixel is read again while it is still in the L1 cache of the multiprocessor. The same holds
// for dw, whose rows are taps: in order 2 a tile has more of them, with fewer channels each.
//
// Grid: blockIdx.z counts groups, and slices of the sum: each slice takes `slice` terms of it, and stores its sums one whole
// result after those of the slice before.
#pragma once
#include "gemm.cuh"

struct Geometry {
  unsigned N, C, K, R, G;
  Divisor H, W, P, Q, S, D, L, stride_h, stride_w, run, turn;               // turn: run * R * S; order 1: run = all channels
  int top, left;
  __device__ unsigned pixels() const { return N * P * Q; }
  __device__ unsigned inputs() const { return N * H * W; }
  __device__ unsigned taps() const { return R * S * D; }
  __device__ unsigned senders() const { return R * S * L; }
  __device__ unsigned group() const { return blockIdx.z % G; }
  __device__ unsigned slice() const { return blockIdx.z / G; }
  // Where this slice's sums of a result of `size` elements begin, whose part for this group does at `first`.
  __device__ T* partial(T* partials, unsigned size, unsigned first) const { return partials ? partials + slice() * size + first : nullptr; }
};

// Term k of a sum over taps.
struct Tap {
  unsigned r, s, c;
  __device__ Tap(unsigned k, const Geometry& t) {
    unsigned turn = k / t.turn, rest = k - turn * t.turn, place = rest / t.run;
    r = place / t.S, s = place - r * t.S, c = turn * t.run + rest - place * t.run;
  }
};

// The group's columns of the kernels, as a matrix (R*S*D, L), and of y or dy, as a matrix (N*P*Q, L).
__device__ inline Matrix<T> kernels_of_group(const T* w, const Geometry& t) { return {w + t.group() * t.L, t.taps(), t.L, t.K}; }
__device__ inline Matrix<S> maps_of_group(const S* y, const Geometry& t) { return {y + t.group() * t.L, t.pixels(), t.L, t.K}; }

// Where the sums are stored: of y, of dx, and of dw.
__device__ inline Result<S> to_maps(S* y, T* partial, const T* bias, int relu, const Geometry& t) {
  unsigned first = t.group() * t.L;
  return {y + first, t.partial(partial, t.pixels() * t.K, first), t.K, bias ? bias + first : nullptr, relu, 0};
}
__device__ inline Result<S> to_pixels(S* dx, T* partial, const Geometry& t) {
  unsigned first = t.group() * t.D;
  return {dx + first, t.partial(partial, t.inputs() * t.C, first), t.C, nullptr, 0, 0};
}
__device__ inline Result<T> to_kernels(T* dw, T* partial, int add, const Geometry& t) {
  unsigned first = t.group() * t.L;
  return {dw + first, t.partial(partial, t.taps() * t.K, first), t.K, nullptr, 0, add};
}

// A Result whose rows are taps in the order of Tap.
struct KernelRows : Result<T> {
  Geometry t;
  __device__ unsigned row(unsigned m) const {
    Tap tap(m, t);
    return ((tap.r * t.S + tap.s) * t.D + tap.c) * step;
  }
};

// An index so far outside that no other, added to it, is inside an image.
constexpr int OUTSIDE = -(1 << 29);

// X (N*P*Q, R*S*D): the address of an element in the image; in the padding it is zero. An address is the sum, modulo 2^32, of
// a row's offset and a column's.
struct Windows {
  const S* x;
  Geometry t;
  using Element = S;
  static constexpr bool ALONG_COLUMN = true;                                // neighbouring columns: neighbouring channels
  struct Row { unsigned at; int h, w; };                                 // of the window's first pixel
  struct Column { unsigned at; int r, s; };
  __device__ Row row(unsigned pixel) const {
    unsigned rows = pixel / t.Q, q = pixel - rows * t.Q, n = rows / t.P, p = rows - n * t.P;
    int h = (int)(p * t.stride_h) - t.top, w = (int)(q * t.stride_w) - t.left;
    return {((n * t.H + h) * t.W + w) * t.C + t.group() * t.D, n < t.N ? h : OUTSIDE, w};
  }
  __device__ Column column(unsigned k) const {
    Tap tap(k, t);
    return {(tap.r * t.W + tap.s) * t.C + tap.c, k < t.taps() ? (int)tap.r : 2 * OUTSIDE, (int)tap.s};
  }
  __device__ Place<S> where(Row a, Column b) const {
    bool inside = (unsigned)(a.h + b.r) < t.H.by && (unsigned)(a.w + b.s) < t.W.by;
    return {x + (a.at + b.at), inside};
  }
};

// The kernels that Windows is multiplied by: a row for each (r, s, c), a column for each kernel of the group.
struct Kernels {
  const T* w;
  Geometry t;
  using Element = T;
  static constexpr bool ALONG_COLUMN = true;                                // neighbouring columns: neighbouring kernels
  using Row = Index;
  using Column = Index;
  __device__ Row row(unsigned k) const {
    Tap tap(k, t);
    return {((tap.r * t.S + tap.s) * t.D + tap.c) * t.K, k < t.taps()};
  }
  __device__ Column column(unsigned n) const { return {t.group() * t.L + n, n < t.L}; }
  __device__ Place<T> where(Row a, Column b) const { return place(w, a, b); }
};

// The first factor of dx: a row for each input pixel, a column for each (r, s, k): the dy of the window that contains the
// pixel at its tap (r, s), or zero where there is none. With a stride of u, only every u-th r has a window; without a stride
// (STRIDED = false) an address costs half as much.
template <bool STRIDED = true> struct Senders {
  const S* dy;
  Geometry t;
  using Element = S;
  static constexpr bool ALONG_COLUMN = true;
  struct Row { unsigned image; int h, w; };
  struct Column { int r, s; unsigned k; };
  __device__ Row row(unsigned pixel) const {
    unsigned rows = pixel / t.W, w = pixel - rows * t.W, n = rows / t.H, h = rows - n * t.H;
    return {n * t.P * t.Q * t.K + t.group() * t.L, n < t.N ? (int)h + t.top : OUTSIDE, (int)w + t.left};
  }
  __device__ Column column(unsigned k) const {
    Tap tap(k, t);
    return {k < t.senders() ? (int)tap.r : -2 * OUTSIDE, (int)tap.s, tap.c};
  }
  __device__ Place<S> where(Row a, Column b) const {
    unsigned h = a.h - b.r, w = a.w - b.s, p = STRIDED ? h / t.stride_h : h, q = STRIDED ? w / t.stride_w : w;
    bool sends = p < t.P.by && q < t.Q.by;
    if (STRIDED) sends = sends && (int)h >= 0 && (int)w >= 0 && p * t.stride_h == h && q * t.stride_w == w;
    return {dy + (a.image + (p * t.Q + q) * t.K + b.k), sends};
  }
};

// The kernels that Senders is multiplied by: a row for each (r, s, k), a column for each channel c of the group.
struct TransposedKernels {
  const T* w;
  Geometry t;
  using Element = T;
  static constexpr bool ALONG_COLUMN = false;                               // neighbouring rows: neighbouring kernels
  using Row = Index;
  using Column = Index;
  __device__ Row row(unsigned k) const {
    Tap tap(k, t);
    return {(tap.r * t.S + tap.s) * t.D * t.K + t.group() * t.L + tap.c, k < t.senders()};
  }
  __device__ Column column(unsigned c) const { return {c * t.K, c < t.D}; }
  __device__ Place<T> where(Row a, Column b) const { return place(w, a, b); }
};

// The terms of this block's slice, of a sum of `total`.
struct Part { unsigned first, last; };
__device__ inline Part part(unsigned slice, unsigned total, const Geometry& t) {
  unsigned first = t.slice() * slice;
  return {first, min(first + slice, total)};
}
