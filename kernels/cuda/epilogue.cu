// Backward pass of the epilogue, bias and ReLU, in place:  dy *= (y > 0),  then  db[k] += sum of dy[m][k] over all rows m.
//
// Layout: dy and y are (rows, K), rows = N*P*Q of a convolution or N of a fully connected layer. The sum runs over
// rows, the slow axis of memory, and is spread over many blocks. Float addition depends on its order, so no atomics: pass
// one stores a sum for each block, pass two adds these up, always in the same order.
#include "common.cuh"

constexpr int THREADS = 256, AHEAD = 4;

// Pass one. Grid (K / (V blockDim.x), chunks of rows), blocks of at most 32 x 256 / blockDim.x. Threads in x are
// neighbours in a row, those in y take different rows; each loads four rows at once. Then the first row of threads adds up
// the sums of the others. `y` may be null.
template <int V> __device__ void sum_columns(S* dy, const S* y, T* partial, unsigned rows, unsigned K, unsigned chunk) {
  __shared__ T sums[THREADS * VECTOR];
  unsigned k = (blockIdx.x * blockDim.x + threadIdx.x) * V, first = blockIdx.y * chunk, last = min(first + chunk, rows);
  Pack<V> sum{};
  for (unsigned row = first + threadIdx.y; row < last && k < K; row += AHEAD * blockDim.y) {
    Pack<V> g[AHEAD], a[AHEAD];
#pragma unroll
    for (unsigned i = 0; i < AHEAD; i++)
      if (row + i * blockDim.y < last) {
        unsigned at = (row + i * blockDim.y) * K + k;
        g[i] = load<V>(dy + at);
        if (y) a[i] = load<V>(y + at);
      }
#pragma unroll
    for (unsigned i = 0; i < AHEAD; i++)
      if (row + i * blockDim.y < last) {
        if (y) {
          for (int j = 0; j < V; j++) g[i].v[j] *= T(a[i].v[j] > 0);
          store(dy + (row + i * blockDim.y) * K + k, g[i]);
        }
        for (int j = 0; j < V; j++) sum.v[j] += g[i].v[j];
      }
  }
  for (int j = 0; j < V; j++) sums[(threadIdx.y * blockDim.x + threadIdx.x) * V + j] = sum.v[j];
  __syncthreads();
  if (threadIdx.y == 0 && k < K)
    for (int j = 0; j < V; j++) {
      T total = 0;
      for (int t = 0; t < blockDim.y; t++) total += sums[(t * blockDim.x + threadIdx.x) * V + j];
      partial[blockIdx.y * K + k + j] = total;
    }
}

extern "C" __global__ void epilogue_sums(S* dy, const S* y, T* partial, unsigned rows, unsigned K, unsigned chunk, int packs) {
  if (packs) sum_columns<VECTOR>(dy, y, partial, rows, K, chunk);
  else sum_columns<1>(dy, y, partial, rows, K, chunk);
}

// Pass two. Grid K / 32, blocks of 32 x 32: each thread adds up every 32nd chunk of a column, the first row of threads the
// rest. Without `add`, db = instead of +=.
extern "C" __global__ void epilogue_add(const T* partial, T* db, unsigned chunks, unsigned K, int add) {
  __shared__ T sums[32][32];
  unsigned k = blockIdx.x * 32 + threadIdx.x;
  T sum = 0;
#pragma unroll 8
  for (unsigned chunk = threadIdx.y; chunk < chunks; chunk += 32)
    if (k < K) sum += partial[chunk * K + k];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || k >= K) return;
  T total = 0;
  for (int t = 0; t < 32; t++) total += sums[t][threadIdx.x];
  db[k] = add ? db[k] + total : total;
}
