// Local response normalisation across channels, four elements to a lane: what lrn.cu and lrn_maxpool.cu share.
#pragma once
#include "common.cuh"

// The four elements of a lane: number `pack` of all such quads, `first` being that of the warp's first lane that stores.
// The outer `halo` lanes of a warp load but store nothing: `mine` is false for them.
struct LaneQuad {
  unsigned pack;
  bool exists, mine, begins, ends;                            // the first, the last quad of a group
  __device__ LaneQuad(int halo, unsigned first, unsigned packs, Divisor quads) {
    int lane = threadIdx.x % 32;
    pack = first + lane - halo;
    unsigned quad = pack % quads;
    exists = pack < packs, mine = exists && lane >= halo && lane < 32 - halo;
    begins = quad == 0, ends = quad == quads.by - 1;
  }
  __device__ Pack<4> of(const S* x) const { return exists ? load<4>(x + 4 * pack) : Pack<4>{}; }
};

// sums[i] = own[i - HALF] + ... + own[i + HALF], where `own` continues in the neighbouring lanes, up to the group's ends.
template <int HALF> __device__ inline void window_sums(const T (&own)[4], const LaneQuad& quad, T (&sums)[4]) {
  constexpr int N = 2 * HALF + 1;
  T all[N + 3], common = 0;
#pragma unroll
  for (int j = 0; j < 4; j++) all[HALF + j] = own[j];
#pragma unroll
  for (int j = 0; j < HALF; j++) {
    T left = __shfl_up_sync(0xffffffffu, own[4 - HALF + j], 1), right = __shfl_down_sync(0xffffffffu, own[j], 1);
    all[j] = quad.begins ? T(0) : left, all[HALF + 4 + j] = quad.ends ? T(0) : right;
  }
#pragma unroll
  for (int j = 3; j < N; j++) common += all[j];               // common to all four windows
  sums[0] = all[0] + all[1] + all[2] + common, sums[1] = all[1] + all[2] + common + all[N];
  sums[2] = all[2] + common + all[N] + all[N + 1], sums[3] = common + all[N] + all[N + 1] + all[N + 2];
}

// s^-beta and 1/s, the first with an error of some units in the last place if beta = 3/4.
__device__ inline void powers(T s, T beta, T& power, T& inverse) {
  T r = reciprocal_root(s);
  inverse = r * r;
  power = beta == T(0.75) ? r * root(r) : pow(s, -beta);
}


// y = x s^-beta of the lane's quad.
template <int HALF> __device__ inline Pack<4> normalised(Pack<4> own, const LaneQuad& quad, T k, T alpha, T beta) {
  T squares[4], sums[4];
#pragma unroll
  for (int j = 0; j < 4; j++) squares[j] = own.v[j] * own.v[j];
  window_sums<HALF>(squares, quad, sums);
#pragma unroll
  for (int j = 0; j < 4; j++) {
    T power, inverse;
    powers(k + alpha * sums[j], beta, power, inverse);
    own.v[j] *= power;
  }
  return own;
}

// dx of a lane's quad, from x and dy. The cross-channel terms of the halo lanes must be complete as well.
template <int HALF> __device__ inline Pack<4> gradient(const Pack<4>& own, Pack<4> direct, const LaneQuad& quad, T k, T alpha, T beta) {
  T terms[4], sums[4];
#pragma unroll
  for (int j = 0; j < 4; j++) terms[j] = own.v[j] * own.v[j];
  window_sums<HALF>(terms, quad, sums);
#pragma unroll
  for (int j = 0; j < 4; j++) {
    T power, inverse;
    powers(k + alpha * sums[j], beta, power, inverse);
    direct.v[j] *= power;
    terms[j] = direct.v[j] * own.v[j] * inverse;
  }
  window_sums<HALF>(terms, quad, sums);
#pragma unroll
  for (int j = 0; j < 4; j++) direct.v[j] -= 2 * alpha * beta * own.v[j] * sums[j];
  return direct;
}

// ---- the backward pass of a whole array, and of the bias and ReLU that made x: dx is masked where x is not positive, if
// `relu`, and of each channel of it a sum for each block is left in partial[block], unless that is null.
//
// incoming(quad): dy of a lane's quad. A warp takes every so manieth piece of the array; where sums are wanted, the grid
// is such that a lane has the same channels in all of them: `channels`, quads of a pixel, divides the step of the grid.
constexpr int THREADS = 256;

template <int HALF, class Incoming>
__device__ inline void backward_quads(const S* x, S* dx, T* partial, unsigned packs, Divisor quads, Divisor channels, int relu, T k, T alpha,
                                      T beta, const Incoming& incoming) {
  constexpr int HALO = HALF <= 2 ? 1 : 2, OWN = 32 - 2 * HALO, BLOCK = THREADS / 32 * OWN;
  __shared__ Pack<4> sums[BLOCK];
  Pack<4> sum{};
  unsigned begin = blockIdx.x * BLOCK, warp = threadIdx.x / 32 * OWN;
  for (unsigned first = begin + warp; first < packs; first += gridDim.x * BLOCK) {       // the same for a whole warp
    LaneQuad quad(HALO, first, packs, quads);
    Pack<4> own = quad.of(x), result = gradient<HALF>(own, incoming(quad), quad, k, alpha, beta);
    if (quad.mine) {
      for (int j = 0; j < 4; j++) {
        if (relu) result.v[j] *= T(own.v[j] > 0);
        sum.v[j] += result.v[j];
      }
      store(dx + 4 * quad.pack, result);
    }
  }
  if (!partial) return;
  int lane = threadIdx.x % 32 - HALO;
  if (lane >= 0 && lane < OWN) sums[warp + lane] = sum;
  __syncthreads();
  for (unsigned quad = threadIdx.x; quad < channels; quad += THREADS) {                  // this one of each pixel
    Pack<4> total{};
    for (unsigned i = (channels.by - begin % channels + quad) % channels; i < BLOCK; i += channels)
      for (int j = 0; j < 4; j++) total.v[j] += sums[i].v[j];
    store(partial + (blockIdx.x * channels + quad) * 4, total);
  }
}

// Calls f with `half` as a constant.
template <int N> struct Half { static constexpr int OF = N; };
template <class F> __device__ inline void with_half(int half, F f) {
  if (half == 1) f(Half<1>{});
  else if (half == 2) f(Half<2>{});
  else if (half == 3) f(Half<3>{});
  else f(Half<4>{});
}
