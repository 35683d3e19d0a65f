// A box of each photograph, resized with a triangle filter, mirrored, minus the mean, plus a colour shift, in one pass:
//
//     y[n] = flipped(resized(box of images[n]) - mean) + shift[n]
//
// The formula of the weights, and what `border` means (0 inside, 1 zero, 2 reflect), is in kernels/reference/resize_crop.py.
// Layout: photographs of any sizes, one after the other: image n begins at byte offsets[n] and is (heights[n], widths[n], C).
// y is (N, H, W, C); the mean is (H, W, C) in its frame, or that of the images. Grid (N*H, W*C / 256), as in augment.cu: a
// row of blocks writes one row of y, and each thread computes one element from the pixels below its filter. Neighbouring
// threads read neighbouring channels and pixels; the same pixels are read again by the threads of the next rows, from a cache.
#include "flip.cuh"

// The pixels of one axis that an output at `centre` reads: first to last, each with weight(x) / total.
struct Window {
  double centre, support;
  int first, last;
  T total;
  __device__ Window(double start, double extent, int outputs, int i, int pixels, int border) {
    double scale = extent / outputs;
    support = scale > 1 ? scale : 1, centre = start + (i + 0.5) * scale;
    first = (int)floor(centre - support + 0.5), last = (int)floor(centre + support + 0.5);
    if (border == 0) first = max(first, 0), last = min(last, pixels);
    total = 0;
    for (int x = first; x < last; x++) total += weight(x);
  }
  __device__ T weight(int x) const {
    T distance = T(fabs(x + 0.5 - centre) / support);
    return distance < 1 ? 1 - distance : T(0);
  }
};

// The pixel that is read for pixel x; -1 for none.
__device__ inline int folded(int x, int pixels, int border) {
  if (x >= 0 && x < pixels) return x;
  if (border != 2) return -1;
  x = x < 0 ? -x : 2 * (pixels - 1) - x;
  return min(max(x, 0), pixels - 1);
}

extern "C" __global__ void resize_crop_forward(const byte* images, S* y, const int* offsets, const int* heights, const int* widths,
                                               const T* mean, const double* top, const double* left, const double* height,
                                               const double* width, const byte* flip, const T* shift, unsigned C, unsigned H,
                                               unsigned W, int border, int mean_of_image) {
  unsigned n = blockIdx.x / H, p = blockIdx.x % H, i = blockIdx.y * blockDim.x + threadIdx.x;
  if (i >= W * C) return;
  unsigned q = i / C, c = i % C, row, column;
  unflipped(flip[n], p, q, H, W, row, column);
  int A = heights[n], B = widths[n];
  const byte* image = images + offsets[n];
  Window down(top[n], height[n], H, row, A, border), across(left[n], width[n], W, column, B, border);
  T sum = 0;
  for (int a = down.first; a < down.last; a++) {
    int from = folded(a, A, border);
    if (from < 0) continue;
    T of_row = 0;
    for (int b = across.first; b < across.last; b++) {
      int at = folded(b, B, border);
      if (at < 0) continue;
      unsigned pixel = (from * B + at) * C + c;
      of_row += across.weight(b) * (mean_of_image ? image[pixel] - mean[pixel] : T(image[pixel]));
    }
    sum += down.weight(a) * of_row;
  }
  unsigned in_crop = (p * W + q) * C + c;
  y[n * H * W * C + in_crop] = sum / (down.total * across.total) - (mean_of_image ? T(0) : mean[in_crop]) + shift[n * C + c];
}

// y (N, H, W, C) = 0 in a rectangle of each image. Grid (N*H, W*C / 256), as above.
extern "C" __global__ void cutout_forward(S* y, const int* top, const int* left, const int* height, const int* width, unsigned C,
                                          unsigned H, unsigned W) {
  int n = blockIdx.x / H, p = blockIdx.x % H - top[n];
  unsigned i = blockIdx.y * blockDim.x + threadIdx.x;
  int q = (int)(i / C) - left[n];
  if (i < W * C && p >= 0 && p < height[n] && q >= 0 && q < width[n]) y[blockIdx.x * W * C + i] = T(0);
}
