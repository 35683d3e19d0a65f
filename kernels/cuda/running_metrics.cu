// What a run counts while it trains, kept on the device so that nobody waits for it after every step:
//
//     tally[0]  images      tally[1]  sum of weight * loss      tally[2], tally[3]  labels among the 1 and 5 highest scores
//
// Doubles, since float32 could no longer count in ones from 16.8 million on. The order of the additions is fixed.
#include "common.cuh"

template <class V> __device__ inline V warp_total(V value) {
  for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// tally[1] += weight * sum of losses (N,). Grid: one warp.
extern "C" __global__ void count_losses(const T* losses, double* tally, unsigned N, double weight) {
  double sum = 0;
  for (unsigned n = threadIdx.x; n < N; n += 32) sum += losses[n];
  sum = warp_total(sum);
  if (threadIdx.x == 0) tally[1] += weight * sum;
}

// Images and hits of scores x (N, K). Grid: one block of 32 warps, each of which takes every 32nd row. A label is among the
// m highest if fewer than m scores are above its own; of equal ones the first counts as higher.
extern "C" __global__ void count_correct(const T* x, const int* labels, double* tally, unsigned N, unsigned K) {
  __shared__ int hits[2][32];
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
  if (lane == 0) hits[0][warp] = first, hits[1][warp] = five;
  __syncthreads();
  if (threadIdx.x == 0) {
    first = five = 0;
    for (int i = 0; i < 32; i++) first += hits[0][i], five += hits[1][i];
    tally[0] += N, tally[2] += first, tally[3] += five;
  }
}
