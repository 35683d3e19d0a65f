// Softmax and cross-entropy of each row of x (N, K):
//
//     p_k = exp(x_k - max) / sum_j exp(x_j - max)        loss = log sum_j exp(x_j - max) - (x_label - max)
//
// Layout: rows of K classes. Grid: a warp for each row, four warps to a block. The 32 lanes take every 32nd class, and
// combine their results by shuffles: five exchanges of registers, at distances 16, 8, 4, 2, 1, leave the maximum, then the
// sum, in every lane. The order of the additions is fixed. y may be x.
#include "common.cuh"

__device__ inline T warp_max(T value) {
  for (int distance = 16; distance; distance /= 2) value = max(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

__device__ inline T warp_sum(T value) {
  for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// max() ignores NaN, but exp does not: NaN reaches the sum, hence every probability and the loss.
// The smoothed loss is derived in kernels/reference/loss.py.
template <bool LOSS, class Y> __device__ void softmax(const S* x, const int* labels, Y* y, T* losses, unsigned N, unsigned K, T smoothing) {
  unsigned row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= N) return;                                            // the whole warp returns, and no other waits for it
  x += row * K, y += row * K;
  T largest = x[0], sum = 0;
  for (unsigned k = lane; k < K; k += 32) largest = max(largest, T(x[k]));
  largest = warp_max(largest);
  for (unsigned k = lane; k < K; k += 32) sum += exp(x[k] - largest);
  sum = warp_sum(sum);
  if (LOSS) {
    T own = x[labels[row]] - largest, loss = log(sum) - own, total = 0;
    if (smoothing > 0) {
      for (unsigned k = lane; k < K; k += 32) total += x[k] - largest;
      loss += smoothing * (own - warp_sum(total) / T(K));
    }
    if (lane == 0) losses[row] = loss;
  }
  __syncwarp();                                                    // x is read before y, which may be x, is written
  for (unsigned k = lane; k < K; k += 32) y[k] = exp(x[k] - largest) / sum;
}

extern "C" __global__ void softmax_forward(const S* x, S* y, unsigned N, unsigned K) {
  softmax<false>(x, nullptr, y, nullptr, N, K, 0);
}

extern "C" __global__ void softmax_cross_entropy_forward(const S* x, const int* labels, T* probs, T* losses, unsigned N,
                                                         unsigned K, T smoothing) {
  softmax<true>(x, labels, probs, losses, N, K, smoothing);
}

// dx = scale * (p - everywhere - own * onehot), times the loss scale where there is one: the target has `everywhere` for each
// class and `own` more for the label. Grid: one-dimensional, blocks of 256, a thread for each element.
extern "C" __global__ void softmax_cross_entropy_backward(const T* probs, const int* labels, S* dx, unsigned N, unsigned K,
                                                          T scale, const int* loss_scale, T everywhere, T own) {
  scale *= loss_scale_of(loss_scale);
  for (unsigned i = thread_number(); i < N * K; i += thread_count())
    dx[i] = scale * (probs[i] - everywhere - (i % K == (unsigned)labels[i / K] ? own : T(0)));
}
