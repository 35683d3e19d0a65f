// Crop, mirror, mean and colour shift of a batch of photographs, bytes to floats, in one pass:
//
//     y[n] = flipped(crop of images[n] - mean) + shift[n]
//
// Layout: images (N, A, B, C) bytes -> y (N, H, W, C). The mean is that of the photograph (A, B, C), or that
// of the finished crop (H, W, C). Grid (N*H, W*C / 256): a row of blocks writes one row of y from left to right, and
// computes for each element which pixel it comes from; mirrored rows are read from right to left, still contiguously.
#include "flip.cuh"

extern "C" __global__ void augment_forward(const byte* images, S* y, const T* mean, const int* top, const int* left,
                                           const byte* flip, const T* shift, unsigned A, unsigned B, unsigned C, unsigned H,
                                           unsigned W, int mean_of_image) {
  unsigned n = blockIdx.x / H, p = blockIdx.x % H, i = blockIdx.y * blockDim.x + threadIdx.x;
  if (i >= W * C) return;
  unsigned q = i / C, c = i % C, row, column;
  unflipped(flip[n], p, q, H, W, row, column);
  row += top[n], column += left[n];
  unsigned in_image = (row * B + column) * C + c, in_crop = (p * W + q) * C + c;
  y[n * H * W * C + in_crop] = images[n * A * B * C + in_image] - mean[mean_of_image ? in_image : in_crop] + shift[n * C + c];
}
