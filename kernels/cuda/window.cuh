// Windows that slide over maps (N, H, W, C): which cells they have, which of them contain a pixel, and what a thread writes.
// For pooling and depthwise convolution.
#pragma once
#include "common.cuh"

struct Window {                            // and its maps; padding is top and left of the first window
  int W, Q, R, S, top, left;
  Divisor H, P, C, stride_h, stride_w;
};

// Which cells of a window that starts at `start` (perhaps in the padding) lie inside 0..size-1: first <= r < last.
__device__ inline int first_inside(int start) { return max(0, -start); }
__device__ inline int last_inside(int start, int window, int size) { return min(window, size - start); }

// Which windows contain pixel h: those p in 0..count-1 with p*stride - before <= h < p*stride - before + window.
__device__ inline int first_window(int h, int before, int window, Divisor stride) {
  return (unsigned)max(0, h + before - window + (int)stride) / stride;
}
__device__ inline int last_window(int h, int before, Divisor stride, int count) {
  return min(count - 1, (int)((unsigned)(h + before) / stride));
}

// Which V elements of maps (rows, columns, channels) this thread writes: those from `offset` on.
struct Target {
  int image, row, column, channel;
  unsigned offset;
  bool beyond;                             // past the end of the row
  __device__ Target(int V, Divisor rows, int columns, Divisor channels) {
    unsigned i = (blockIdx.y * blockDim.x + threadIdx.x) * V, length = columns * channels;
    image = blockIdx.x / rows, row = blockIdx.x % rows, column = i / channels, channel = i % channels;
    offset = blockIdx.x * length + i, beyond = i >= length;
  }
};

// ---- the largest cell of a window

__device__ inline T minus_infinity() { return -T(__int_as_float(0x7f800000)); }

// Indices in a window, one byte for each of V channels, loaded and stored at once.
template <int V> struct alignas(V) Bytes { byte v[V]; };

// Of V channels, the largest of the cells taken so far, and its index; the first one where several are equal.
template <int V> struct Largest {
  Pack<V> value;
  Bytes<V> where{};
  __device__ Largest() {
    for (int j = 0; j < V; j++) value.v[j] = minus_infinity();
  }
  __device__ void take(const Pack<V>& cell, int index) {
    for (int j = 0; j < V; j++) {
      if (cell.v[j] > value.v[j]) value.v[j] = cell.v[j], where.v[j] = index;
      else if (cell.v[j] != cell.v[j]) value.v[j] = cell.v[j];     // NaN stays: nothing is > NaN
    }
  }
  __device__ void put(S* y, byte* argmax, unsigned offset) const {
    store(y + offset, value);
    if (argmax) *reinterpret_cast<Bytes<V>*>(argmax + offset) = where;
  }
};

// The sum of the gradients dy of the windows whose largest cell is pixel (h, w).
template <int V>
__device__ inline Pack<V> gathered(const S* dy, const byte* argmax, int image, int h, int w, int channel, const Window& g) {
  Pack<V> sum{};
  for (int p = first_window(h, g.top, g.R, g.stride_h); p <= last_window(h, g.top, g.stride_h, g.P); p++)
    for (int q = first_window(w, g.left, g.S, g.stride_w); q <= last_window(w, g.left, g.stride_w, g.Q); q++) {
      int index = (h + g.top - p * g.stride_h) * g.S + w + g.left - q * g.stride_w;    // of this pixel in that window
      unsigned from = ((image * g.P + p) * g.Q + q) * g.C + channel;
      Pack<V> gradient = load<V>(dy + from);
      Bytes<V> where = *reinterpret_cast<const Bytes<V>*>(argmax + from);
      for (int j = 0; j < V; j++) sum.v[j] += where.v[j] == index ? gradient.v[j] : T(0);
    }
  return sum;
}
