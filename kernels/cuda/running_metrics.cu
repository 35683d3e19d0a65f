// Running metrics of training, kept on the device so that the host does not wait for them after every step:
//
//     counts[0]  images      counts[1]  sum of weight * loss      counts[2], counts[3]  top-1 and top-5 correct
//
// Doubles, since float32 cannot count in ones beyond 16.8 million. The order of the additions is fixed.
#include "common.cuh"

template <class V> __device__ inline V warp_total(V value) {
  for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// counts[1] += weight * sum of losses (N,). Grid: one warp.
extern "C" __global__ void count_losses(const T* losses, double* counts, unsigned N, double weight) {
  double sum = 0;
  for (unsigned n = threadIdx.x; n < N; n += 32) sum += losses[n];
  sum = warp_total(sum);
  if (threadIdx.x == 0) counts[1] += weight * sum;
}

// Counts images, and correct ones by scores x (N, K). Grid: one block of 32 warps, each of which takes every 32nd row. Top-m
// correct: fewer than m scores are higher than the label's; of equal ones the first ranks higher.
extern "C" __global__ void count_correct(const S* x, const int* labels, double* counts, unsigned N, unsigned K) {
  __shared__ int correct[2][32];
  unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int first = 0, five = 0;
  for (unsigned n = warp; n < N; n += 32) {
    unsigned label = labels[n];
    T own = x[n * K + label];
    int above = 0;
    for (unsigned k = lane; k < K; k += 32) {
      T score = x[n * K + k];
      above += score > own || (score == own && k < label);
    }
    above = warp_total(above);
    first += above < 1, five += above < 5;
  }
  if (lane == 0) correct[0][warp] = first, correct[1][warp] = five;
  __syncthreads();
  if (threadIdx.x == 0) {
    first = five = 0;
    for (int i = 0; i < 32; i++) first += correct[0][i], five += correct[1][i];
    counts[0] += N, counts[2] += first, counts[3] += five;
  }
}
