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
