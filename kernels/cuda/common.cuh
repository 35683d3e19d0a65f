// Included by every kernel file: the number type, vectors of 16 bytes, and loops over arrays.
//
// T is float or double; minicnn/backend/cuda/launcher.py compiles each file for each of them, with -DREAL=float or -DREAL=double.
// Arrays of activations and of their gradients hold elements of type S, which is T, or with -DSTORED=Bfloat bf16: T is what
// is computed with, and what parameters, their gradients, sums, statistics and losses are.
// Sizes are 32-bit: the launcher refuses arrays of 2^31 elements or more.
#pragma once
#ifndef REAL
#define REAL float
#endif

typedef REAL T;
typedef unsigned char byte;

__device__ inline unsigned bf16(float x);
__device__ inline unsigned bf16_pair(float low, float high);

// A float's upper half: the same exponents, and 7 bits of mantissa. Rounded when it is stored, to the nearest, ties to even.
struct Bfloat {
  unsigned short bits;
  __device__ Bfloat& operator=(float x) {
    bits = bf16(x);
    return *this;
  }
  __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
};

#ifndef STORED
#define STORED T
#endif
typedef STORED S;

// A memory transaction is widest when each thread moves 16 bytes: 4 floats or 2 doubles; of bf16 it takes 4, too, in 8 bytes.
// A pointer to a Pack must be a multiple of its size, so kernels test `aligned` first, and have a second path for arrays
// that are not.
constexpr int VECTOR = 16 / sizeof(T);

template <int V, class E> struct alignas(V * sizeof(E)) PackOf { E v[V]; };
template <int V> using Pack = PackOf<V, T>;

template <class E> __device__ inline bool aligned(const E* p) { return (size_t)p % (VECTOR * sizeof(E)) == 0; }

template <int V> __device__ inline Pack<V> load(const T* p) { return *reinterpret_cast<const Pack<V>*>(p); }
template <int V> __device__ inline void store(T* p, const Pack<V>& value) { *reinterpret_cast<Pack<V>*>(p) = value; }

// The same between bf16 in memory and T in registers. A word holds two elements, the first in its lower half.
template <int V> __device__ inline Pack<V> load(const Bfloat* p) {
  Pack<V> pack;
  if constexpr (V == 1) {
    pack.v[0] = *p;
  } else {
    auto words = *reinterpret_cast<const PackOf<V / 2, unsigned>*>(p);
    for (int i = 0; i < V / 2; i++) pack.v[2 * i] = __uint_as_float(words.v[i] << 16), pack.v[2 * i + 1] = __uint_as_float(words.v[i] & 0xffff0000u);
  }
  return pack;
}
template <int V> __device__ inline void store(Bfloat* p, const Pack<V>& value) {
  if constexpr (V == 1) {
    *p = value.v[0];
  } else {
    PackOf<V / 2, unsigned> words;
    for (int i = 0; i < V / 2; i++) words.v[i] = bf16_pair(value.v[2 * i], value.v[2 * i + 1]);
    *reinterpret_cast<PackOf<V / 2, unsigned>*>(p) = words;
  }
}

// The index of this thread in a one-dimensional grid, and the number of threads: the loop
//     for (unsigned i = thread_number(); i < n; i += thread_count())
// visits every element for any size of the grid, and neighbouring threads visit neighbouring elements.
__device__ inline unsigned thread_number() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline unsigned thread_count() { return gridDim.x * blockDim.x; }

// y[i] = f(a[i]) for all i < n, a Pack at a time where both arrays allow it; y may be a.
template <class F> __device__ inline void map(unsigned n, const S* a, S* y, F f) {
  unsigned packs = aligned(a) && aligned(y) ? n / VECTOR : 0;
  for (unsigned i = thread_number(); i < packs; i += thread_count()) {
    Pack<VECTOR> pack = load<VECTOR>(a + i * VECTOR);
    for (int j = 0; j < VECTOR; j++) pack.v[j] = f(pack.v[j]);
    store(y + i * VECTOR, pack);
  }
  for (unsigned i = packs * VECTOR + thread_number(); i < n; i += thread_count()) y[i] = f(a[i]);
}

// y[i] = f(a[i], b[i]); y may be a or b.
template <class F> __device__ inline void map(unsigned n, const S* a, const S* b, S* y, F f) {
  unsigned packs = aligned(a) && aligned(b) && aligned(y) ? n / VECTOR : 0;
  for (unsigned i = thread_number(); i < packs; i += thread_count()) {
    Pack<VECTOR> pa = load<VECTOR>(a + i * VECTOR), pb = load<VECTOR>(b + i * VECTOR);
    for (int j = 0; j < VECTOR; j++) pa.v[j] = f(pa.v[j], pb.v[j]);
    store(y + i * VECTOR, pa);
  }
  for (unsigned i = packs * VECTOR + thread_number(); i < n; i += thread_count()) y[i] = f(a[i], b[i]);
}

// A divisor that is used many times: n / by becomes a multiplication and a shift, for all n < 2^31, since a GPU has no
// instruction for integer division. The launcher computes magic = ceil(2^(31 + shift) / by), shift = ceil(log2(by)).
struct Divisor {
  unsigned by, magic, shift;
  __device__ operator unsigned() const { return by; }
};
__device__ inline unsigned operator/(unsigned n, Divisor d) { return __umulhi(2 * n, d.magic) >> d.shift; }
__device__ inline unsigned operator%(unsigned n, Divisor d) { return n - n / d * d.by; }

// ---- per-step values (learning rate, epoch). A captured step is replayed with the arguments of its capture; values that
// change from step to step are therefore read from device memory.

// `factor` itself, or *value * factor where `value` is given. In double, as the host would compute it.
__device__ inline double step_value(double factor, const double* value) { return value ? *value * factor : factor; }

// What the loss was multiplied by: a power of two, so that dividing by it again rounds nothing (loss_scale.cu).
__device__ inline T loss_scale_of(const int* state) { return state ? T(__int_as_float((state[0] + 127) << 23)) : T(1); }

// 1 / sqrt(x) and sqrt(x); for floats one instruction each, with an error of up to two units in the last place.
__device__ inline float reciprocal_root(float x) { return rsqrtf(x); }
__device__ inline double reciprocal_root(double x) { return 1 / sqrt(x); }
__device__ inline double root(double x) { return sqrt(x); }
#ifdef CUDA_EMULATOR
inline float root(float x) { return sqrt(x); }
#else
__device__ inline float root(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

// ---- asynchronous copies and tensor cores: PTX on a GPU, and what the PTX manual says they do on the emulator
#ifdef CUDA_EMULATOR
template <int BYTES> inline void copy_async(void* to, const void* from, bool real) { cuemu_copy_async(to, from, BYTES, real ? BYTES : 0); }
inline void copy_commit() { cuemu_copy_commit(); }
template <int NEWEST> inline void copy_wait() { cuemu_copy_wait(NEWEST); }
inline unsigned tf32(float x) { return (__float_as_uint(x) + 0x1000u) & ~0x1fffu; }
inline void mma_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { cuemu_mma_tf32(c, a, b); }
inline unsigned bf16(float x) {                       // to nearest, ties to even; NaN stays NaN
  unsigned bits = __float_as_uint(x);
  return x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}
inline unsigned bf16_pair(float low, float high) { return bf16(low) | bf16(high) << 16; }
inline void mma_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { cuemu_mma_bf16(c, a, b); }
inline unsigned fp16(float x) {                       // the same; infinite from 65,520 on, in steps of 2^-24 below 2^-14
  unsigned bits = __float_as_uint(x), size = bits & 0x7fffffffu, sign = bits >> 16 & 0x8000u;
  if (size > 0x7f800000u) return 0x7fffu;
  if (size >= 0x477ff000u) return sign | 0x7c00u;
  if (size < 0x38800000u) return sign | (__float_as_uint(__uint_as_float(size) + 0.5f) - __float_as_uint(0.5f));
  return sign | (((size + 0xfffu + (size >> 13 & 1)) >> 13) - (112u << 10));
}
inline unsigned fp16_pair(float low, float high) { return fp16(low) | fp16(high) << 16; }
inline void mma_fp16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { cuemu_mma_fp16(c, a, b); }
#else
// Starts a copy of 4, 8 or 16 bytes from memory to shared memory, or fills as many with zeros.
template <int BYTES> __device__ inline void copy_async(void* to, const void* from, bool real) {
  unsigned shared = (unsigned)__cvta_generic_to_shared(to);
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(from), "n"(BYTES), "r"(real ? BYTES : 0) : "memory");
}
// Ends a group of copies; waits until all groups of this thread except the newest NEWEST have arrived.
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int NEWEST> __device__ inline void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(NEWEST) : "memory"); }

// A float rounded to 10 bits of mantissa, which the tensor cores read. From Hopper on that is one instruction, which rounds
// ties to even; on earlier GPUs it is four, and ties are rounded away from zero.
__device__ inline unsigned tf32(float x) {
  unsigned rounded;
#if __CUDA_ARCH__ >= 900
  asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
#else
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
#endif
  return rounded;
}
// c += a b by a whole warp, a (16, 8), b (8, 8), c (16, 8). With g = lane / 4 and t = lane % 4, a lane holds
//     a: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)     b: (t, g), (t + 4, g)     c: (g, 2t), (g, 2t + 1) and g + 8
__device__ inline void mma_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A float rounded to bf16; two of them, `low` in the lower half of a register, `high` in the upper.
__device__ inline unsigned bf16(float x) {
  unsigned short rounded;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(x));
  return rounded;
}
__device__ inline unsigned bf16_pair(float low, float high) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
// As mma_tf32 with a (16, 16), b (16, 8), and in each register a pair of neighbours along the sum:
//     a: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)     b: (2t, g), (2t + 8, g)     c: as above
__device__ inline void mma_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// And in fp16: 10 bits of mantissa, but nothing above 65,504, and little below 2^-14.
__device__ inline unsigned fp16_pair(float low, float high) {
  unsigned pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ inline void mma_fp16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
