// Where branches of the graph join or split: concatenation of channels, sum, every stride-th pixel, and the sum of
// gradients at a fan-out.
//
// Layout: channels-last, so an array is rows of channels, and concatenation puts strips of rows side by side. Grid: one-
// dimensional, blocks of 256. Memory bandwidth is the limit of everything here.
#include "common.cuh"

// A strip of `width` channels, from column `from_start` of rows `from_width` wide to column `to_start` of rows `to_width`
// wide: one launch for each input of a concatenation, and one in the other direction for its gradient.
template <int V> __device__ void copy_strip(const S* from, S* to, unsigned rows, unsigned width, unsigned from_width,
                                            unsigned from_start, unsigned to_width, unsigned to_start) {
  unsigned packs = width / V;
  for (unsigned i = thread_number(); i < rows * packs; i += thread_count()) {
    unsigned row = i / packs, c = i % packs * V;
    store(to + row * to_width + to_start + c, load<V>(from + row * from_width + from_start + c));
  }
}

extern "C" __global__ void copy_channels(const S* from, S* to, unsigned rows, unsigned width, unsigned from_width,
                                         unsigned from_start, unsigned to_width, unsigned to_start) {
  bool packs = (width | from_width | from_start | to_width | to_start) % VECTOR == 0 && aligned(from) && aligned(to);
  if (packs) copy_strip<VECTOR>(from, to, rows, width, from_width, from_start, to_width, to_start);
  else copy_strip<1>(from, to, rows, width, from_width, from_start, to_width, to_start);
}

// y = a + b.
extern "C" __global__ void add(const S* a, const S* b, S* y, unsigned n) {
  map(n, a, b, y, [](T p, T q) { return p + q; });
}

// y (N, P, Q, K), of n elements: every stride-th pixel of x (N, H, W, C) as channels first ... first+C-1, zeros around them.
extern "C" __global__ void subsample_forward(const S* x, S* y, unsigned n, Divisor K, Divisor Q, Divisor P, unsigned H,
                                             unsigned W, unsigned C, unsigned stride_h, unsigned stride_w, unsigned first) {
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    unsigned pixel = i / K, row = pixel / Q, image = row / P, p = row % P, q = pixel % Q;
    unsigned c = i % K - first;                                 // beyond C, too, for channels before the first
    y[i] = c < C ? x[((image * H + p * stride_h) * W + q * stride_w) * C + c] : T(0);
  }
}

// dx (N, H, W, C), of n elements, from dy (N, P, Q, K).
extern "C" __global__ void subsample_backward(const S* dy, S* dx, unsigned n, Divisor C, Divisor W, Divisor H, unsigned P,
                                              unsigned Q, unsigned K, Divisor stride_h, Divisor stride_w, unsigned first) {
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    unsigned pixel = i / C, row = pixel / W, image = row / H, h = row % H, w = pixel % W;
    bool kept = h % stride_h == 0 && w % stride_w == 0;
    dx[i] = kept ? dy[((image * P + h / stride_h) * Q + w / stride_w) * K + first + i % C] : T(0);
  }
}

// Between float32 and bf16, where S is that. Grid: one-dimensional, blocks of 256.
extern "C" __global__ void widen(const S* x, T* y, unsigned n) {
  for (unsigned i = thread_number(); i < n; i += thread_count()) y[i] = x[i];
}

extern "C" __global__ void narrow(const T* x, S* y, unsigned n) {
  for (unsigned i = thread_number(); i < n; i += thread_count()) y[i] = x[i];
}
