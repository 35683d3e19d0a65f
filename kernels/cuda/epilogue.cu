// The way back through bias and ReLU, in place:  dy *= (y > 0),  then  db[k] += sum of dy[m][k] over all rows m.
//
// Layout: dy and y are (rows, K), rows = N*P*Q of a convolution or N of a fully connected layer. The sum runs down the
// columns, along memory's slow axis, over rows far apart in many blocks. Float addition depends on its order, so no
// atomics: pass one leaves a sum for each block, pass two adds these up, always in the same order.
#include "common.cuh"

// Pass one. Grid (K / (32 V), chunks of rows), blocks of 32 x 8. A warp reads 32 packs side by side in one row; the eight
// warps take every eighth row of the chunk; then the block's first warp adds up what the eight have. `y` may be null.
template <int V> __device__ void sum_columns(T* dy, const T* y, T* partial, unsigned rows, unsigned K, unsigned chunk) {
  __shared__ T sums[8][32 * VECTOR];
  unsigned k = (blockIdx.x * 32 + threadIdx.x) * V, first = blockIdx.y * chunk, last = min(first + chunk, rows);
  Pack<V> sum{};
  if (k < K)
    for (unsigned row = first + threadIdx.y; row < last; row += 8) {
      Pack<V> g = load<V>(dy + row * K + k);
      if (y) {
        Pack<V> a = load<V>(y + row * K + k);
        for (int j = 0; j < V; j++) g.v[j] *= T(a.v[j] > 0);
        store(dy + row * K + k, g);
      }
      for (int j = 0; j < V; j++) sum.v[j] += g.v[j];
    }
  for (int j = 0; j < V; j++) sums[threadIdx.y][threadIdx.x * V + j] = sum.v[j];
  __syncthreads();
  if (threadIdx.y == 0 && k < K)
    for (int j = 0; j < V; j++) {
      T total = 0;
      for (int t = 0; t < 8; t++) total += sums[t][threadIdx.x * V + j];
      partial[blockIdx.y * K + k + j] = total;
    }
}

extern "C" __global__ void epilogue_sums(T* dy, const T* y, T* partial, unsigned rows, unsigned K, unsigned chunk, int packs) {
  if (packs) sum_columns<VECTOR>(dy, y, partial, rows, K, chunk);
  else sum_columns<1>(dy, y, partial, rows, K, chunk);
}

// Pass two: a thread for each column. Without `add`, db = and not +=.
extern "C" __global__ void epilogue_add(const T* partial, T* db, unsigned chunks, unsigned K, int add) {
  for (unsigned k = thread_number(); k < K; k += thread_count()) {
    T total = 0;
    for (unsigned chunk = 0; chunk < chunks; chunk++) total += partial[chunk * K + k];
    db[k] = add ? db[k] + total : total;
  }
}
