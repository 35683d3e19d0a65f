// What every kernel file begins with: its number type, vectors of 16 bytes, and loops over arrays.
//
// T is float or double; minicnn/backend/cuda.py compiles each file once for each, with -DREAL=float or -DREAL=double.
// Sizes are 32-bit: the launcher refuses arrays of 2^31 elements or more.
#pragma once
#ifndef REAL
#define REAL float
#endif

typedef REAL T;
typedef unsigned char byte;

// A memory transaction is widest when each thread moves 16 bytes: 4 floats or 2 doubles. A pointer to a Pack must lie at
// a multiple of its size, so kernels ask `aligned` first, and have a way for arrays that are not.
constexpr int VECTOR = 16 / sizeof(T);

template <int V> struct alignas(V * sizeof(T)) Pack { T v[V]; };

__device__ inline bool aligned(const void* p) { return (size_t)p % 16 == 0; }

template <int V> __device__ inline Pack<V> load(const T* p) { return *reinterpret_cast<const Pack<V>*>(p); }
template <int V> __device__ inline void store(T* p, const Pack<V>& value) { *reinterpret_cast<Pack<V>*>(p) = value; }

// The number of this thread in a one-dimensional grid, and how many there are: the loop
//     for (unsigned i = thread_number(); i < n; i += thread_count())
// visits everything whatever the size of the grid, and neighbouring threads visit neighbouring elements.
__device__ inline unsigned thread_number() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline unsigned thread_count() { return gridDim.x * blockDim.x; }

// y[i] = f(a[i]) for all i < n, 16 bytes at a time where both arrays allow it; y may be a.
template <class F> __device__ inline void map(unsigned n, const T* a, T* y, F f) {
  unsigned packs = aligned(a) && aligned(y) ? n / VECTOR : 0;
  for (unsigned i = thread_number(); i < packs; i += thread_count()) {
    Pack<VECTOR> pack = load<VECTOR>(a + i * VECTOR);
    for (int j = 0; j < VECTOR; j++) pack.v[j] = f(pack.v[j]);
    store(y + i * VECTOR, pack);
  }
  for (unsigned i = packs * VECTOR + thread_number(); i < n; i += thread_count()) y[i] = f(a[i]);
}

// y[i] = f(a[i], b[i]); y may be a or b.
template <class F> __device__ inline void map(unsigned n, const T* a, const T* b, T* y, F f) {
  unsigned packs = aligned(a) && aligned(b) && aligned(y) ? n / VECTOR : 0;
  for (unsigned i = thread_number(); i < packs; i += thread_count()) {
    Pack<VECTOR> pa = load<VECTOR>(a + i * VECTOR), pb = load<VECTOR>(b + i * VECTOR);
    for (int j = 0; j < VECTOR; j++) pa.v[j] = f(pa.v[j], pb.v[j]);
    store(y + i * VECTOR, pa);
  }
  for (unsigned i = packs * VECTOR + thread_number(); i < n; i += thread_count()) y[i] = f(a[i], b[i]);
}
