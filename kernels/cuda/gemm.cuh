// The matrix product behind convolution and fully connected layers:  C (M, N) = A (M, K) B (K, N).
//
// A block of 256 threads makes a tile of 64 x 64 of C. It walks along K in steps of 16: all threads together copy a 64 x 16
// piece of A and a 16 x 64 piece of B to shared memory, meet, and then each thread multiplies what it needs for its own
// 4 x 4 numbers, which it keeps in registers. A number that came from memory is used 64 times; one read from shared memory
// four times. Without the tiles every multiplication would fetch two numbers from memory.
//
// A and B are given as functions of (row, column), so that they may be a plain matrix, its transpose, or a matrix that
// exists nowhere, such as the windows of an image (conv.cu). What depends on the row alone, and on the column alone, is
// computed apart and once: that is what Row and Column hold.
//
// Grid (M / 64, N / 64, slices of K), a slice being a multiple of 16. With one slice the result goes where it belongs; with
// several, each leaves its own partial sum, and add_slices adds them up in order.
#pragma once
#include "common.cuh"

constexpr int TILE_M = 64, TILE_N = 64, TILE_K = 16, GEMM_THREADS = 256;

// element(row, column) = p[row * row_step + column * column_step]. ALONG_COLUMN says which index runs along memory, so
// that neighbouring threads read neighbours.
template <bool ALONG_COLUMN> struct Matrix {
  const T* p;
  unsigned rows, columns, step;
  static constexpr bool along_column = ALONG_COLUMN;
  struct Row { unsigned at; bool inside; };
  using Column = Row;
  __device__ Row row(unsigned i) const { return {ALONG_COLUMN ? i * step : i, i < rows}; }
  __device__ Column column(unsigned k) const { return {ALONG_COLUMN ? k : k * step, k < columns}; }
  __device__ T at(Row r, Column c) const { return r.inside && c.inside ? p[r.at + c.at] : T(0); }
};

// Copies the tile of `matrix` with corner (row, column) to shared memory, as tile[column][row] or tile[row][column]. The
// index along memory changes fastest from thread to thread.
template <bool TRANSPOSED, int ROWS, int COLUMNS, int WIDTH, class M>
__device__ inline void copy_tile(const M& matrix, unsigned row, unsigned column, T (*tile)[WIDTH]) {
  constexpr int FAST = M::along_column ? COLUMNS : ROWS, SLOW = M::along_column ? ROWS : COLUMNS, STEP = GEMM_THREADS / FAST;
  int fast = threadIdx.x % FAST, slow = threadIdx.x / FAST;
  if constexpr (M::along_column) {
    auto c = matrix.column(column + fast);
    for (int i = slow; i < SLOW; i += STEP) (TRANSPOSED ? tile[fast][i] : tile[i][fast]) = matrix.at(matrix.row(row + i), c);
  } else {
    auto r = matrix.row(row + fast);
    for (int i = slow; i < SLOW; i += STEP) (TRANSPOSED ? tile[i][fast] : tile[fast][i]) = matrix.at(r, matrix.column(column + i));
  }
}

template <class A, class B, class Put> __device__ inline void gemm(const A& a, const B& b, unsigned M, unsigned N, unsigned K,
                                                                   unsigned slice, Put put) {
  __shared__ T tile_a[TILE_K][TILE_M + 1], tile_b[TILE_K][TILE_N + 1];        // + 1: columns fall into different banks
  unsigned row = blockIdx.x * TILE_M, column = blockIdx.y * TILE_N, first = blockIdx.z * slice, last = min(first + slice, K);
  unsigned x = threadIdx.x % 16, y = threadIdx.x / 16;
  T sum[4][4] = {};
  for (unsigned k = first; k < last; k += TILE_K) {
    copy_tile<true, TILE_M, TILE_K>(a, row, k, tile_a);
    copy_tile<false, TILE_K, TILE_N>(b, k, column, tile_b);
    __syncthreads();                                                          // the tiles are whole
    for (int l = 0; l < TILE_K; l++) {                                        // past K the tiles hold zeros
      T left[4], right[4];
      for (int i = 0; i < 4; i++) left[i] = tile_a[l][y + 16 * i], right[i] = tile_b[l][x + 16 * i];
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) sum[i][j] += left[i] * right[j];
    }
    __syncthreads();                                                          // nobody needs them any more
  }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      unsigned m = row + y + 16 * i, n = column + x + 16 * j;
      if (m < M && n < N) put(m, n, sum[i][j]);
    }
}

// y[m][n] = sum + bias, then ReLU. Row m of y begins at m * step.
struct Epilogue {
  T* y;
  unsigned step;
  const T* bias;                                                              // or null
  int relu;
  __device__ void operator()(unsigned m, unsigned n, T sum) const {
    if (bias) sum += bias[n];
    y[m * step + n] = relu && sum <= 0 ? T(0) : sum;                          // a NaN is not <= 0
  }
};

// The partial sum of this slice.
struct Slice {
  T* partial;
  unsigned M, N;
  __device__ void operator()(unsigned m, unsigned n, T sum) const { partial[(blockIdx.z * M + m) * N + n] = sum; }
};

// dw[m][n] += partial[0][m][n] + partial[1][m][n] + ...; a row of dw begins every `step` numbers. Grid: one-dimensional.
__device__ inline void add_slices(const T* partial, T* dw, unsigned slices, unsigned M, unsigned N, unsigned step) {
  for (unsigned i = thread_number(); i < M * N; i += thread_count()) {
    T sum = 0;
    for (unsigned slice = 0; slice < slices; slice++) sum += partial[slice * M * N + i];
    dw[i / N * step + i % N] += sum;
  }
}
