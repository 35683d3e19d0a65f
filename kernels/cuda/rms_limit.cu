// ZFNet's renormalisation: filters whose RMS is above a limit are scaled down to it, in place.
//
//     r_k = sqrt(mean of w_k^2)        if r_k > limit:  w_k *= limit / r_k
//
// Layout: w is (rows, K), a filter is a column. Grid K / 32, blocks of 32 x 32: threads in x are neighbouring filters, those in
// y take every 32nd row; the sums of a filter are added in the same order every time. loss_scale: as in sgd.cu.
#include "common.cuh"

extern "C" __global__ void rms_limit_step(T* w, unsigned rows, unsigned K, T limit, const int* loss_scale) {
  __shared__ T sums[32][33];                                   // a column more, so that a column is in all banks
  if (loss_scale && loss_scale[2]) return;
  unsigned k = blockIdx.x * 32 + threadIdx.x;
  T squares = 0;
  for (unsigned row = threadIdx.y; row < rows && k < K; row += 32) squares += w[row * K + k] * w[row * K + k];
  sums[threadIdx.y][threadIdx.x] = squares;
  __syncthreads();
  T total = 0;
  for (int t = 0; t < 32; t++) total += sums[t][threadIdx.x];
  T rms = sqrt(total / T(rows));
  if (!(rms > limit)) return;
  for (unsigned row = threadIdx.y; row < rows && k < K; row += 32) w[row * K + k] *= limit / rms;
}
