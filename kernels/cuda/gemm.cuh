// The matrix product behind convolution and fully connected layers:  C (M, N) = A (M, K) B (K, N), in three variants.
//
// A and B are given as functions of (row, column): where(row, column) is the address of an element, or says that it is zero.
// So they may be a plain matrix, its transpose, or one that is never stored, such as the windows of an image (conv.cuh).
// Row and Column hold what depends on the row alone, and on the column alone, so that it is computed once.
//
// Grid (M / tile, N / tile, slices of K and groups). A block sums over first <= k < last, where first is a multiple of 32.
// One slice stores the result; of several, each stores a partial sum, and slices.cu adds them up.
//
//     gemm                       tiles of 64 x 64 in shared memory; each thread keeps 4 x 4 sums
//     gemm_async<Registers>      128 x 64, 8 x 8 sums; the next tile is copied while this one is multiplied
//     gemm_async<TensorCores>    the same tiles, but the tensor cores multiply: 16 x 8 x 8 at once in TF32, or 16 x 8 x 16 in
//                                bf16 or fp16, as -DPRODUCTS=Tf32, Bf16 or Fp16 says
#pragma once
#include "update.cuh"

// Where an element, of type E, is; if it is not `real`, it is zero, and `at` is no valid address.
template <class E> struct Place { const E* at; bool real; };

// What a row, or a column, adds to the address of an element, and whether it exists: enough for most matrices.
struct Index { unsigned at; bool inside; };
template <class E> __device__ inline Place<E> place(const E* p, Index a, Index b) { return {p + (a.at + b.at), a.inside && b.inside}; }

// A matrix in memory, whose rows are `step` elements apart.
template <class E> struct Matrix {
  const E* p;
  unsigned rows, columns, step;
  using Element = E;
  static constexpr bool ALONG_COLUMN = true;          // neighbours of a row are neighbours in memory
  using Row = Index;
  using Column = Index;
  __device__ Row row(unsigned i) const { return {i * step, i < rows}; }
  __device__ Column column(unsigned k) const { return {k, k < columns}; }
  __device__ Place<E> where(Row r, Column c) const { return place(p, r, c); }
};

// The same elements with rows and columns swapped. Nothing is copied.
template <class M> struct Transposed {
  M m;
  static constexpr bool ALONG_COLUMN = !M::ALONG_COLUMN;
  using Element = typename M::Element;
  using Row = typename M::Column;
  using Column = typename M::Row;
  __device__ Row row(unsigned i) const { return m.column(i); }
  __device__ Column column(unsigned k) const { return m.row(k); }
  __device__ Place<Element> where(Row r, Column c) const { return m.where(c, r); }
};
template <class M> __device__ inline Transposed<M> transposed(const M& m) { return {m}; }

// ---- what is done with a sum

// y[m][n] = sum + bias, then ReLU; or y[m][n] += sum. Row m of y begins at m * step. Of a product in slices, the sum of one
// is stored in `partial`, which is laid out as y, and there is no y; else there is no `partial`.
template <class E> struct Result {
  E* y;
  T* partial;
  unsigned step;
  const T* bias;                                      // or null
  int relu, add;
  __device__ unsigned row(unsigned m) const { return m * step; }
  __device__ T bias_of(unsigned n) const { return bias ? bias[n] : T(0); }
  __device__ T ended(T sum) const { return relu && sum <= 0 ? T(0) : sum; }                // NaN is not <= 0
  __device__ void operator()(unsigned m, unsigned n, T sum) const {
    into([&](auto* to) {
      to += row(m) + n;
      *to = ended(sum + bias_of(n) + (add ? T(*to) : T(0)));
    });
  }
  // Two neighbours at y[at], to whose sums the bias has been added. both: the second exists; pairs: they are stored at once.
  __device__ bool pairs(unsigned N) const {
    return N % 2 == 0 && step % 2 == 0 && (size_t)y % (2 * sizeof(E)) == 0 && (size_t)partial % (2 * sizeof(T)) == 0;
  }
  __device__ void put(unsigned at, Pack<2> sum, bool both, bool pairs) const {
    into([&](auto* to) { put_to(to + at, sum, both, pairs); });
  }
  // f(where the sums go), compiled once where E is T.
  template <class F> __device__ void into(F f) const {
    if constexpr (sizeof(E) == sizeof(T)) f(partial ? reinterpret_cast<E*>(partial) : y);
    else if (partial) f(partial);
    else f(y);
  }
  template <class To> __device__ void put_to(To* to, Pack<2> sum, bool both, bool pairs) const {
    if (pairs) {
      if (add) sum = {sum.v[0] + to[0], sum.v[1] + to[1]};
      store<2>(to, {ended(sum.v[0]), ended(sum.v[1])});
    } else {
      to[0] = ended(add ? sum.v[0] + to[0] : sum.v[0]);
      if (both) to[1] = ended(add ? sum.v[1] + to[1] : sum.v[1]);
    }
  }
};

// The sum is the gradient of w[m][n]: it is updated at once, and the gradient never stored.
struct Updated {
  T *w, *v;
  unsigned step;
  SgdStep sgd;
  __device__ unsigned row(unsigned m) const { return m * step; }
  __device__ T bias_of(unsigned n) const { return 0; }
  __device__ void operator()(unsigned m, unsigned n, T sum) const { sgd(w[row(m) + n], v[row(m) + n], sum); }
  __device__ bool pairs(unsigned N) const {
    return N % 2 == 0 && step % 2 == 0 && (size_t)w % (2 * sizeof(T)) == 0 && (size_t)v % (2 * sizeof(T)) == 0;
  }
  __device__ void put(unsigned at, Pack<2> sum, bool both, bool pairs) const {
    if (pairs) {
      Pack<2> weight = load<2>(w + at), velocity = load<2>(v + at);
      for (int j = 0; j < 2; j++) sgd(weight.v[j], velocity.v[j], sum.v[j]);
      store<2>(w + at, weight), store<2>(v + at, velocity);
    } else {
      sgd(w[at], v[at], sum.v[0]);
      if (both) sgd(w[at + 1], v[at + 1], sum.v[1]);
    }
  }
};

// ---- gemm. Blocks of 256 threads make a tile of 64 x 64 of C. The block walks along K in steps of 16: all threads copy a
// 64 x 16 piece of A and a 16 x 64 piece of B to shared memory, wait for each other, and then each adds to its own 4 x 4
// sums, which stay in registers. An element from memory is used 64 times, one from shared memory four times; without
// tiles, every multiplication would fetch two elements from memory.
constexpr int TILE = 64, STEP = 16;

// tile[k][i] = element (i, k) of A, or (k, i) of B; neighbouring threads read neighbours in memory.
template <bool IS_A, class M> __device__ inline void copy_tile(const M& matrix, unsigned corner, unsigned k0, T (*tile)[TILE + 1]) {
  constexpr bool K_FAST = IS_A == M::ALONG_COLUMN;
  for (int n = threadIdx.x; n < TILE * STEP; n += 256) {
    unsigned i = K_FAST ? n / STEP : n % TILE, k = K_FAST ? n % STEP : n / TILE;
    auto from = IS_A ? matrix.where(matrix.row(corner + i), matrix.column(k0 + k))
                     : matrix.where(matrix.row(k0 + k), matrix.column(corner + i));
    tile[k][i] = from.real ? *from.at : T(0);
  }
}

template <class A, class B, class Put>
__device__ inline void gemm(const A& a, const B& b, unsigned M, unsigned N, unsigned first, unsigned last, const Put& put) {
  __shared__ T tile_a[STEP][TILE + 1], tile_b[STEP][TILE + 1];                // + 1: columns fall into different banks
  unsigned row = blockIdx.x * TILE, column = blockIdx.y * TILE;
  unsigned x = threadIdx.x % 16, y = threadIdx.x / 16;
  T sum[4][4] = {};
  for (unsigned k = first; k < last; k += STEP) {
    copy_tile<true>(a, row, k, tile_a);
    copy_tile<false>(b, column, k, tile_b);
    __syncthreads();                                                          // the tiles are whole
    for (int l = 0; l < STEP; l++) {                                          // past K they are zero
      T left[4], right[4];
      for (int i = 0; i < 4; i++) left[i] = tile_a[l][y + 16 * i], right[i] = tile_b[l][x + 16 * i];
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) sum[i][j] += left[i] * right[j];
    }
    __syncthreads();                                                          // all threads are done with them
  }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      unsigned m = row + y + 16 * i, n = column + x + 16 * j;
      if (m < M && n < N) put(m, n, sum[i][j]);
    }
}

// ---- gemm_async. Blocks of 128 threads make 128 x 64 of C, in steps of 64 bytes along K.
constexpr int TALL = 128, WIDE = 64, DEEP = 64 / sizeof(T), ASYNC_THREADS = 128;

// A piece of A (LENGTH = TALL) or of B (LENGTH = WIDE) in shared memory, laid out as in memory, so that one copy takes V
// neighbours. The padding keeps them aligned and spreads the rows over the banks.
template <int LENGTH, bool K_FAST, class E> struct Piece {
  static constexpr int WIDTH = (K_FAST ? DEEP : LENGTH) + VECTOR;
  E cells[(K_FAST ? LENGTH : DEEP) * WIDTH];
  __device__ E& at(int i, int k) { return cells[K_FAST ? i * WIDTH + k : k * WIDTH + i]; }

  // Starts the copies of this thread's share of the chunks of V elements. Chunks must not cross the matrix's edge, nor
  // anything else that ends a run of neighbours in memory: the caller chooses V accordingly.
  template <bool IS_A, int V, class M> __device__ void start(const M& matrix, unsigned corner, unsigned k0, const void* anywhere) {
    constexpr int FAST = (K_FAST ? DEEP : LENGTH) / V;
    for (int n = threadIdx.x; n < LENGTH * DEEP / V; n += ASYNC_THREADS) {
      int fast = n % FAST * V, slow = n / FAST, i = K_FAST ? slow : fast, k = K_FAST ? fast : slow;
      auto from = IS_A ? matrix.where(matrix.row(corner + i), matrix.column(k0 + k))
                       : matrix.where(matrix.row(k0 + k), matrix.column(corner + i));
      if constexpr (V * sizeof(E) >= 4) copy_async<V * sizeof(E)>(&at(i, k), from.real ? from.at : anywhere, from.real);
      else at(i, k) = from.real ? *from.at : T(0);           // a single bf16: no copy is that small
    }
  }
};

// The sums of a thread: 8 x 8, in rows y, y + 16 ... and columns x, x + 8 ... of the tile.
struct Registers {
  T sum[8][8] = {};
  __device__ static int x() { return threadIdx.x % 8; }
  __device__ static int y() { return threadIdx.x / 8; }
  template <class PA, class PB> __device__ void multiply(PA& a, PB& b) {
#pragma unroll
    for (int l = 0; l < DEEP; l++) {
      T left[8], right[8];
#pragma unroll
      for (int i = 0; i < 8; i++) left[i] = a.at(y() + 16 * i, l), right[i] = b.at(x() + 8 * i, l);
#pragma unroll
      for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) sum[i][j] += left[i] * right[j];
    }
  }
  template <class F> __device__ void each(F f) const {
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
      for (int j = 0; j < 8; j++) f(y() + 16 * i, x() + 8 * j, sum[i][j]);
  }
};

// What the tensor cores read: PER_WORD neighbours along the sum in a word of 32 bits, DEPTH of them in one instruction.
// read: one register of row i, as member t of a group of four lanes holds it, from the first half of these elements or the
// second (mma_tf32 and mma_bf16 say which they are).
struct Tf32 {
  static constexpr int PER_WORD = 1, DEPTH = 8;
  template <class E> __device__ static unsigned word(const E* v) { return tf32(v[0]); }
  template <class P> __device__ static unsigned read(P& piece, int i, int k, int t, int half) { return tf32(piece.at(i, k + t + 4 * half)); }
  __device__ static void multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_tf32(c, a, b); }
};
template <unsigned (*PAIR)(float, float), class E> __device__ inline unsigned pair(E low, E high) { return PAIR(low, high); }
template <> __device__ inline unsigned pair<bf16_pair>(Bfloat low, Bfloat high) { return low.bits | (unsigned)high.bits << 16; }

template <unsigned (*PAIR)(float, float)> struct Pairs {
  static constexpr int PER_WORD = 2, DEPTH = 16;
  template <class E> __device__ static unsigned word(const E* v) { return pair<PAIR>(v[0], v[1]); }
  template <class P> __device__ static unsigned read(P& piece, int i, int k, int t, int half) {
    int first = k + 2 * t + 8 * half;
    return pair<PAIR>(piece.at(i, first), piece.at(i, first + 1));
  }
};
struct Bf16 : Pairs<bf16_pair> {
  __device__ static void multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_bf16(c, a, b); }
};
struct Fp16 : Pairs<fp16_pair> {
  __device__ static void multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_fp16(c, a, b); }
};

// The sums of a warp: 32 rows and all 64 columns of the tile, as 2 x 8 results of the tensor cores. Of each 16 x 8 result a
// lane holds four elements (mma_tf32 in common.cuh says which).
template <class Products> struct TensorCores {
  float sum[2][8][4] = {};
  __device__ static int warp() { return threadIdx.x / 32; }
  __device__ static int group() { return threadIdx.x % 32 / 4; }
  __device__ static int member() { return threadIdx.x % 4; }
  template <class PA, class PB> __device__ void multiply(PA& a, PB& b) {
    int g = group(), t = member();
#pragma unroll
    for (int l = 0; l < DEEP; l += Products::DEPTH) {
      unsigned left[2][4];
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int r = 0; r < 4; r++) left[i][r] = Products::read(a, 32 * warp() + 16 * i + g + r % 2 * 8, l, t, r / 2);
#pragma unroll
      for (int j = 0; j < 8; j++) {
        unsigned right[2] = {Products::read(b, 8 * j + g, l, t, 0), Products::read(b, 8 * j + g, l, t, 1)};
#pragma unroll
        for (int i = 0; i < 2; i++) Products::multiply(sum[i][j], left[i], right);
      }
    }
  }
  template <class F> __device__ void each(F f) const {
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int j = 0; j < 8; j++)
#pragma unroll
        for (int r = 0; r < 4; r++) f(32 * warp() + 16 * i + group() + r / 2 * 8, 8 * j + 2 * member() + r % 2, sum[i][j][r]);
  }
};

// Doubles are not rounded: for them, the tensor cores' version is that of registers.
#ifndef PRODUCTS
#define PRODUCTS Tf32
#endif
template <class Number> struct Tensor { using Sums = Registers; };
template <> struct Tensor<float> { using Sums = TensorCores<PRODUCTS>; };

// Two sets of pieces take turns: while one is multiplied, the other is filled by asynchronous copies, which do not pass
// through registers.
// `packs`: the matrices' runs of neighbours begin at, and last for, multiples of 16 bytes. `anywhere`: any valid address.
template <class Sums, class A, class B, class Put>
__device__ inline void gemm_async(const A& a, const B& b, const void* anywhere, int packs, unsigned M, unsigned N, unsigned first,
                                  unsigned last, const Put& put) {
  __shared__ __align__(16) Piece<TALL, A::ALONG_COLUMN, typename A::Element> pieces_a[2];
  __shared__ __align__(16) Piece<WIDE, !B::ALONG_COLUMN, typename B::Element> pieces_b[2];
  unsigned row = blockIdx.x * TALL, column = blockIdx.y * WIDE;
  Sums sums;
  auto start = [&](unsigned k, int turn) {
    if (packs) {
      pieces_a[turn].template start<true, VECTOR>(a, row, k, anywhere);
      pieces_b[turn].template start<false, VECTOR>(b, column, k, anywhere);
    } else {
      pieces_a[turn].template start<true, 1>(a, row, k, anywhere);
      pieces_b[turn].template start<false, 1>(b, column, k, anywhere);
    }
    copy_commit();
  };
  start(first, 0);
  for (unsigned k = first, turn = 0; k < last; k += DEEP, turn ^= 1) {
    if (k + DEEP < last) {
      start(k + DEEP, turn ^ 1);
      copy_wait<1>();                                                         // all except the newest have arrived
    } else {
      copy_wait<0>();
    }
    __syncthreads();                                                          // those of all threads have
    sums.multiply(pieces_a[turn], pieces_b[turn]);
    __syncthreads();                                                          // this set may be written again
  }
  sums.each([&](unsigned m, unsigned n, T sum) {
    if (row + m < M && column + n < N) put(row + m, column + n, sum);
  });
}
