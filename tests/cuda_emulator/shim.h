// CUDA C++ for g++: force-included in front of a .cu file, which is compiled unchanged (build.py).
//
// Each CUDA thread is a fiber of runtime.cpp. The file is compiled with -fsanitize=thread, for its hooks alone: g++ then
// calls __tsan_read4(address) and the like at every access to memory, and runtime.cpp implements those calls itself.
#pragma once

#define CUDA_EMULATOR 1                                  // common.cuh tests it around inline PTX

typedef unsigned char uint8_t;
typedef int int32_t;
typedef unsigned uint32_t;
typedef unsigned long uint64_t;
typedef unsigned long uintptr_t;
typedef unsigned long size_t;

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict
// One copy per host thread is one copy for all fibers; and the copy of this library can be found and poisoned. A kernel
// declares its dynamic part by `extern __shared__ T name[];`, which build.py turns into CUEMU_DYNAMIC_SHARED.
#define __shared__ thread_local
#define CUEMU_DYNAMIC_SHARED(type, name) type* name = (type*)cuemu_state.shared

struct uint3 { unsigned x, y, z; };
struct float2 { float x, y; } __align__(8);
struct float4 { float x, y, z, w; } __align__(16);
struct uint2 { unsigned x, y; } __align__(8);
struct uint4 { unsigned x, y, z, w; } __align__(16);
struct double2 { double x, y; } __align__(16);

extern "C" {
struct CuemuState { uint3 thread, block, block_size, grid_size; void* shared; };
extern CuemuState cuemu_state;
void cuemu_barrier(const char* file, int line);
void cuemu_warp_barrier(const char* file, int line, unsigned mask);
void cuemu_shuffle(void* value, int bytes, unsigned mask, int other, int kind, const char* file, int line);
void cuemu_exchange(const void* mine, int bytes, void* all, unsigned mask, const char* file, int line);
void cuemu_mma_tf32(float* c, const unsigned* a, const unsigned* b);
void cuemu_mma_bf16(float* c, const unsigned* a, const unsigned* b);
void cuemu_mma_fp16(float* c, const unsigned* a, const unsigned* b);
unsigned cuemu_shared_address(const void* p);
void cuemu_proxy_fence();
void cuemu_wgmma_fence();
void cuemu_wgmma(float* c, uint64_t a, uint64_t b, int columns, int kind);
void cuemu_wgmma_commit();
void cuemu_wgmma_wait(int newest);
int cuemu_atomic_or(int* to, int bits);
void cuemu_copy_async(void* to, const void* from, int bytes, int filled);
void cuemu_copy_commit();
void cuemu_copy_wait(int newest);
double erf(double), exp(double), log(double), sqrt(double), pow(double, double), tanh(double), fabs(double), floor(double), fma(double, double, double);
float erff(float), expf(float), logf(float), sqrtf(float), powf(float, float), tanhf(float), fabsf(float), fmaf(float, float, float);
void* memcpy(void*, const void*, size_t) noexcept;
}

#define threadIdx (cuemu_state.thread)
#define blockIdx (cuemu_state.block)
#define blockDim (cuemu_state.block_size)
#define gridDim (cuemu_state.grid_size)
#define warpSize 32

#define __syncthreads() cuemu_barrier(__FILE__, __LINE__)
static inline void cuemu_syncwarp(const char* file, int line, unsigned mask = 0xffffffffu) { cuemu_warp_barrier(file, line, mask); }
#define __syncwarp(...) cuemu_syncwarp(__FILE__, __LINE__, ##__VA_ARGS__)
template <class V> static inline V cuemu_shfl(const char* file, int line, int kind, unsigned mask, V value, int other) {
  cuemu_shuffle(&value, sizeof value, mask, other, kind, file, line);
  return value;
}
#define __shfl_sync(...) cuemu_shfl(__FILE__, __LINE__, 0, __VA_ARGS__)
#define __shfl_up_sync(...) cuemu_shfl(__FILE__, __LINE__, 1, __VA_ARGS__)
#define __shfl_down_sync(...) cuemu_shfl(__FILE__, __LINE__, 2, __VA_ARGS__)
#define __shfl_xor_sync(...) cuemu_shfl(__FILE__, __LINE__, 3, __VA_ARGS__)

static inline float erf(float x) { return erff(x); }
static inline float exp(float x) { return expf(x); }
static inline float log(float x) { return logf(x); }
static inline float sqrt(float x) { return sqrtf(x); }
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline float pow(float x, float y) { return powf(x, y); }
static inline float tanh(float x) { return tanhf(x); }
static inline float fabs(float x) { return fabsf(x); }
static inline float fma(float a, float b, float c) { return fmaf(a, b, c); }
template <class V> static inline V min(V a, V b) { return a < b ? a : b; }
template <class V> static inline V max(V a, V b) { return a > b ? a : b; }
static inline float max(float a, float b) { return __builtin_fmaxf(a, b); }               // of NaN and another value: the other
static inline double max(double a, double b) { return __builtin_fmax(a, b); }
static inline float min(float a, float b) { return __builtin_fminf(a, b); }
static inline double min(double a, double b) { return __builtin_fmin(a, b); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline float __int_as_float(int i) { float f; memcpy(&f, &i, 4); return f; }
static inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
static inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
static inline int atomicOr(int* to, int bits) { return cuemu_atomic_or(to, bits); }
template <class V> static inline V __ldg(const V* p) { return *p; }

// ---- how a kernel is described and called: build.py adds CUEMU_KERNEL(name) for each
template <class P> struct CuemuKind { static constexpr char value = 's'; };               // a struct
template <class P> struct CuemuKind<P*> { static constexpr char value = 'p'; };           // may be written to
template <class P> struct CuemuKind<const P*> { static constexpr char value = 'r'; };     // read only
template <> struct CuemuKind<float> { static constexpr char value = 'f'; };
template <> struct CuemuKind<double> { static constexpr char value = 'f'; };
template <> struct CuemuKind<int> { static constexpr char value = 'i'; };
template <> struct CuemuKind<unsigned> { static constexpr char value = 'u'; };
template <> struct CuemuKind<unsigned char> { static constexpr char value = 'u'; };
template <> struct CuemuKind<long> { static constexpr char value = 'i'; };
template <> struct CuemuKind<unsigned long> { static constexpr char value = 'u'; };

template <int... I> struct CuemuPlaces {};
template <int n, int... I> struct CuemuUpTo : CuemuUpTo<n - 1, n - 1, I...> {};
template <int... I> struct CuemuUpTo<0, I...> { using type = CuemuPlaces<I...>; };
template <class... P, int... I> __attribute__((no_sanitize_thread))
static void cuemu_unpack(void (*kernel)(P...), void** arguments, CuemuPlaces<I...>) { kernel(*(P*)arguments[I]...); }
template <class... P> __attribute__((no_sanitize_thread))
static void cuemu_run(void (*kernel)(P...), void** arguments) { cuemu_unpack(kernel, arguments, typename CuemuUpTo<sizeof...(P)>::type{}); }
template <class... P> __attribute__((no_sanitize_thread))
static int cuemu_parameters(void (*)(P...), char* kinds, int* sizes) {
  int i = 0;
  ((kinds[i] = CuemuKind<P>::value, sizes[i++] = (int)sizeof(P)), ...);
  return i;
}
#define CUEMU_EXPORT extern "C" __attribute__((no_sanitize_thread, visibility("default")))
#define CUEMU_KERNEL(name)                                                    \
  CUEMU_EXPORT void cuemu_call_##name(void** a_) { cuemu_run(name, a_); }     \
  CUEMU_EXPORT int cuemu_parameters_##name(char* k_, int* s_) { return cuemu_parameters(name, k_, s_); }
// Touched once before a launch, so that the library's block of __shared__ variables exists.
static thread_local volatile char cuemu_anchor;
CUEMU_EXPORT void cuemu_touch() { cuemu_anchor = 1; }
