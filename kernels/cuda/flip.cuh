// Where a pixel of an output that was mirrored or transposed comes from.
#pragma once
#include "common.cuh"

// Row and column of the crop, H x W, of which output pixel (p, q) is made. bits: 1 left-right, 2 up-down, 4 transposed
// before the mirrors.
__device__ inline void unflipped(unsigned bits, unsigned p, unsigned q, unsigned H, unsigned W, unsigned& row, unsigned& column) {
  row = bits & 2 ? H - 1 - p : p, column = bits & 1 ? W - 1 - q : q;
  if (bits & 4) {
    unsigned swap = row;
    row = column, column = swap;
  }
}
