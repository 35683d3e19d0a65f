// Matrix products on a Hopper GPU (H100, H200): C (M, N) = A (M, K) B (K, N), as in gemm.cuh.
//
// Its tensor cores work for a warpgroup, four warps, on operands in shared memory, asynchronously: the threads can do
// something else meanwhile. A block of four warpgroups computes a tile of 256 x WIDE, one of two a tile of 128 x WIDE, in
// steps of 32 along K:
//
//     the tensor cores multiply stage k
//     meanwhile the threads store step k + 1, which they hold in registers, to the next stage, rounded to TF32, bf16 or fp16
//     and start to load step k + 2 from memory
//
// Three stages take turns: when one is written again, the product that read it is done. In a stage both A and B have K along
// the rows, whatever their layout in memory: for TF32 the tensor cores support no other. A different layout is transposed in
// registers.
//
// -DPRODUCTS as for gemm.cuh; -DROWS=128 or 256 and -DCOLUMNS=64, 96 or 128 of a tile; -DPACKED=1 where runs of neighbours in
// memory begin at, and last for, multiples of 16 bytes in both matrices, else 0. Grid: as for gemm.cuh, blocks of 2 ROWS
// threads, one or two of them on a multiprocessor. A taller tile reads less from the caches for each product.
#pragma once
#include "gemm.cuh"
#ifndef COLUMNS
#define ROWS 256
#define COLUMNS 128
#define PACKED 1
#endif

namespace hopper {
constexpr int TALL = ROWS, WIDE = COLUMNS, DEEP = 32, THREADS = 2 * TALL, STAGES = 3;
constexpr bool PACKS = PACKED;
constexpr int BLOCKS = 256 / TALL;                                            // on a multiprocessor

// ---- a stage in shared memory: rows of 32 elements, 128 bytes in TF32, 64 in bf16 and fp16. Chunks of 16 bytes are permuted
// by the index of their row, so that neither rows nor columns fall into the same banks: the tensor cores' own swizzle of 128
// or of 64 bytes, an exclusive or of address bits 4 to 6 (5) with bits 7 to 9 (8).
using Products = PRODUCTS;
constexpr int ROW = DEEP * 4 / Products::PER_WORD;
constexpr int BYTES = (TALL + WIDE) * ROW;
__device__ constexpr int swizzle(int at) { return (at >> 7 & (ROW / 16 - 1)) << 4; }
__device__ inline int swizzled(int row, int k) {      // the same for a row that is a multiple of eight rows further on
  int at = row * ROW + k * 4 / Products::PER_WORD;
  return at ^ swizzle(at);
}

template <int n> struct alignas(4 * n) Words { unsigned of[n]; };

// Neighbours along K, rounded.
template <int n, class E> __device__ inline void put(byte* to, const E (&v)[n]) {
  Words<n / Products::PER_WORD> words;
#pragma unroll
  for (int i = 0; i < n; i += Products::PER_WORD) words.of[i / Products::PER_WORD] = Products::word(v + i);
  *reinterpret_cast<decltype(words)*>(to) = words;
}

// Four elements that are neighbours in memory: by one access where PACKS allows it, else one by one.
template <class E, class Where> __device__ inline void fetch(E (&v)[4], Where where) {
  if constexpr (PACKS) {
    auto from = where(0);
    PackOf<4, E> pack = {};
    if (from.real) pack = *reinterpret_cast<const PackOf<4, E>*>(from.at);
#pragma unroll
    for (int e = 0; e < 4; e++) v[e] = pack.v[e];
  } else {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      auto from = where(e);
      v[e] = from.real ? *from.at : E{};
    }
  }
}

// The Row of a row of the tile: computed once, by one thread. Kept in registers, it would leave no room for a second block.
template <class Row> struct alignas(16) Known { Row row; };

// A thread's share of a piece of LENGTH rows of a matrix, 32 elements deep, between memory and a stage.
template <int LENGTH, class M, bool K_FAST = M::ALONG_COLUMN> struct Piece;

// Neighbours along K are neighbours in memory: eight threads take a row, 16 bytes each.
template <int LENGTH, class M> struct Piece<LENGTH, M, true> {
  static constexpr int APART = THREADS / 8, COUNT = (LENGTH + APART - 1) / APART;
  int k = threadIdx.x % 8 * 4, row = threadIdx.x / 8, to = swizzled(row, k);
  typename M::Element v[COUNT][4];
  __device__ static bool mine(int n) { return LENGTH % APART == 0 || threadIdx.x / 8 + APART * n < LENGTH; }
  __device__ void fetch(const M& matrix, const Known<typename M::Row>* rows, unsigned k0) {
    typename M::Column columns[PACKS ? 1 : 4];
#pragma unroll
    for (int e = 0; e < (PACKS ? 1 : 4); e++) columns[e] = matrix.column(k0 + k + e);
#pragma unroll
    for (int n = 0; n < COUNT; n++)
      if (mine(n)) {
        auto known = rows[row + APART * n];
        hopper::fetch(v[n], [&](int e) { return matrix.where(known.row, columns[e]); });
      }
  }
  __device__ void put(byte* tile) const {
#pragma unroll
    for (int n = 0; n < COUNT; n++)
      if (mine(n)) hopper::put(tile + to + APART * n * ROW, v[n]);
  }
};

// Neighbouring rows are: a thread takes four rows at two values of K, and stores four pairs. A warp is eight threads along K
// and four along the rows, so that neither memory nor the banks are accessed with a long stride.
template <int LENGTH, class M> struct Piece<LENGTH, M, false> {
  static constexpr int TASKS = LENGTH * DEEP / 8, COUNT = (TASKS + THREADS - 1) / THREADS, APART = THREADS / 64 * 16;
  int k = (threadIdx.x / 32 % 2 * 8 + threadIdx.x % 8) * 2, row = (threadIdx.x / 64 * 4 + threadIdx.x / 8 % 4) * 4;
  int to = swizzled(row, k);
  typename M::Element v[COUNT][2][4];
  __device__ static bool mine(int n) { return TASKS % THREADS == 0 || threadIdx.x + THREADS * n < TASKS; }
  __device__ void fetch(const M& matrix, const Known<typename M::Row>* rows, unsigned k0) {
    Known<typename M::Row> known[COUNT];                                     // of the first of four: enough for PACKS
#pragma unroll
    for (int n = 0; n < COUNT; n++)
      if (mine(n)) known[n] = rows[row + APART * n];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      auto column = matrix.column(k0 + k + i);
#pragma unroll
      for (int n = 0; n < COUNT; n++)
        if (mine(n)) hopper::fetch(v[n][i], [&](int e) { return matrix.where((PACKS ? known[n] : rows[row + APART * n + e]).row, column); });
    }
  }
  __device__ void put(byte* tile) const {
#pragma unroll
    for (int e = 0; e < 4; e++)
#pragma unroll
      for (int n = 0; n < COUNT; n++)
        if (mine(n)) {
          typename M::Element pair[2] = {v[n][0][e], v[n][1][e]};
          hopper::put(tile + (to ^ swizzle(e * ROW)) + (APART * n + e) * ROW, pair);
        }
  }
};

// ---- the tensor cores: PTX on a GPU, and what the PTX manual says it does on the emulator

// The sums of a warpgroup: 64 rows and all columns of the tile. Of each 16 x 8 result of a warp a lane holds four elements,
// as mma_tf32 in common.cuh says.
using Sums = float[WIDE / 8][4];

#ifdef CUDA_EMULATOR
inline unsigned shared_address(const void* p) { return cuemu_shared_address(p); }
inline void finish_writes() { cuemu_proxy_fence(); }
inline void begin_products(Sums&) { cuemu_wgmma_fence(); }
inline void wgmma(Tf32, Sums& c, unsigned long long a, unsigned long long b) { cuemu_wgmma(c[0], a, b, WIDE, 0); }
inline void wgmma(Bf16, Sums& c, unsigned long long a, unsigned long long b) { cuemu_wgmma(c[0], a, b, WIDE, 1); }
inline void wgmma(Fp16, Sums& c, unsigned long long a, unsigned long long b) { cuemu_wgmma(c[0], a, b, WIDE, 2); }
inline void commit_products() { cuemu_wgmma_commit(); }
template <int NEWEST> inline void await_products(Sums&) { cuemu_wgmma_wait(NEWEST); }
#else
__device__ inline unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

// Makes this thread's writes to shared memory visible to the tensor cores, which read it through the asynchronous proxy.
__device__ inline void finish_writes() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#define SUMS_OF(j) "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])
#define ALL_SUMS_64 SUMS_OF(0), SUMS_OF(1), SUMS_OF(2), SUMS_OF(3), SUMS_OF(4), SUMS_OF(5), SUMS_OF(6), SUMS_OF(7)
#define ALL_SUMS_96 ALL_SUMS_64, SUMS_OF(8), SUMS_OF(9), SUMS_OF(10), SUMS_OF(11)
#define ALL_SUMS_128 ALL_SUMS_96, SUMS_OF(12), SUMS_OF(13), SUMS_OF(14), SUMS_OF(15)
#define NAMES_64 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_96 NAMES_64 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define NAMES_128 NAMES_96 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NEXT_64 "%32"
#define NEXT_96 "%48"
#define NEXT_128 "%64"
#define LAST_64 "%33"
#define LAST_96 "%49"
#define LAST_128 "%65"
#define JOINED(a, b) a##b
#define OF_WIDTH(name, width) JOINED(name, width)
#define TEXT(x) #x
#define TEXT_OF(x) TEXT(x)
#define ALL_SUMS OF_WIDTH(ALL_SUMS_, COLUMNS)
#define WGMMA(SHAPE_AND_TYPES, ENDING)                                                                                       \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" TEXT_OF(COLUMNS) SHAPE_AND_TYPES " " OF_WIDTH(NAMES_, COLUMNS)            \
               "}, " OF_WIDTH(NEXT_, COLUMNS) ", " OF_WIDTH(LAST_, COLUMNS) ", 1, 1, 1" ENDING ";" : ALL_SUMS : "l"(a), "l"(b))

// c += a b, a (64, DEPTH) and b (DEPTH, WIDE) by their descriptors. Starts here, and is done once it has been waited for.
__device__ inline void wgmma(Tf32, Sums& c, unsigned long long a, unsigned long long b) { WGMMA("k8.f32.tf32.tf32", ""); }
__device__ inline void wgmma(Bf16, Sums& c, unsigned long long a, unsigned long long b) { WGMMA("k16.f32.bf16.bf16", ", 0, 0"); }
__device__ inline void wgmma(Fp16, Sums& c, unsigned long long a, unsigned long long b) { WGMMA("k16.f32.f16.f16", ", 0, 0"); }

// Orders the threads' writes to sums and stages before the products that follow.
__device__ inline void begin_products(Sums& c) { asm volatile("wgmma.fence.sync.aligned;" : ALL_SUMS : : "memory"); }
__device__ inline void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until all groups of products except the newest NEWEST are done.
template <int NEWEST> __device__ inline void await_products(Sums& c) {
  asm volatile("wgmma.wait_group.sync.aligned " OF_WIDTH(NEXT_, COLUMNS) ";" : ALL_SUMS : "n"(NEWEST) : "memory");
}
#endif

// The descriptor of a matrix in a stage: where it begins, the distance of its groups of eight rows, both in units of 16
// bytes, and how it is swizzled: 1 for 128 bytes, 2 for 64.
__device__ inline unsigned long long descriptor(unsigned address) {
  constexpr unsigned long long SWIZZLE = ROW == 128 ? 1 : 2;
  return address >> 4 | 1ull << 16 | (unsigned long long)(8 * ROW >> 4) << 32 | SWIZZLE << 62;
}

// ---- the product
template <class A, class B, class Result>
__device__ inline void product(const A& a, const B& b, unsigned M, unsigned N, unsigned first, unsigned last, const Result& result) {
  extern __shared__ __align__(16) byte memory[];
  byte* stages = memory + (-shared_address(memory) & 1023);                   // swizzles begin at multiples of 1,024 bytes
  unsigned corner_row = blockIdx.x * TALL, corner_column = blockIdx.y * WIDE;
  unsigned warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);        // uniform in a warp, for the compiler
  auto b_transposed = transposed(b);
  auto known_a = reinterpret_cast<Known<typename A::Row>*>(stages + STAGES * BYTES);
  auto known_b = reinterpret_cast<Known<typename B::Column>*>(known_a + TALL);
  if (threadIdx.x < TALL) known_a[threadIdx.x] = {a.row(corner_row + threadIdx.x)};
  else if (threadIdx.x < TALL + WIDE) known_b[threadIdx.x - TALL] = {b.column(corner_column + threadIdx.x - TALL)};
  __syncthreads();                                                            // all rows are known
  Piece<TALL, A> piece_a;
  Piece<WIDE, Transposed<B>> piece_b;
  auto fetch = [&](unsigned k) { piece_a.fetch(a, known_a, k), piece_b.fetch(b_transposed, known_b, k); };
  auto put = [&](int stage) {
    byte* tile = stages + stage * BYTES;
    piece_a.put(tile), piece_b.put(tile + TALL * ROW);
    finish_writes();
  };
  Sums sums = {};
  fetch(first);
  put(0);
  if (first + DEEP < last) fetch(first + DEEP);
  __syncthreads();                                                            // the first stage is whole
  int stage = 0;
  for (unsigned k = first; k < last; k += DEEP) {
    unsigned at = shared_address(stages) + stage * BYTES;
    auto left = descriptor(at + warpgroup * 64 * ROW), right = descriptor(at + TALL * ROW);
    begin_products(sums);
#pragma unroll
    for (int l = 0; l < ROW / 16; l += 2) wgmma(Products{}, sums, left + l, right + l);   // 32 bytes of every row at a time
    commit_products();
    stage = stage + 1 < STAGES ? stage + 1 : 0;
    if (k + DEEP < last) {
      put(stage);
      if (k + 2 * DEEP < last) fetch(k + 2 * DEEP);
    }
    await_products<1>(sums);                                                  // of the stage before: it may be written again
    __syncthreads();
  }
  await_products<0>(sums);
  unsigned row = corner_row + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = corner_column + threadIdx.x % 4 * 2;
  bool pairs = result.pairs(N);
#pragma unroll
  for (int j = 0; j < WIDE / 8; j++) {
    unsigned n = column + 8 * j;
    if (n >= N) break;
    T bias = result.bias_of(n), next = n + 1 < N ? result.bias_of(n + 1) : T(0);
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      unsigned m = row + i * 4;
      if (m < M) result.put(result.row(m) + n, {sums[j][i] + bias, sums[j][i + 1] + next}, n + 1 < N, pairs);
    }
  }
}
}  // namespace hopper
