// Local response normalisation:  y_i = x_i * s_i^-beta,   s_i = k + alpha * sum of x_j^2 over the neighbourhood of i.
//
//     dx_i = dy_i s_i^-beta - 2 alpha beta x_i * sum over j in the neighbourhood of i of dy_j x_j s_j^(-beta-1)
//
// (derived in kernels/reference/lrn.py). The neighbourhood is n channels around i at the same pixel and in the same group
// of D channels, or, in the kernels named `within`, n x n pixels around i in the same map.
//
// Layout: (N, H, W, C), seen as one long row in which the channels of a pixel are neighbours. Each element is read from
// memory once, and s is never stored. Across channels there are two variants:
//
//     in general    a block of 256 owns TILE elements of that row, wherever pixels begin and end in it, and first copies
//                   them to shared memory with `half` = n / 2 more on either side (twice that in the backward)
//     _packs        where D is a multiple of four and half is 1 to 4: a lane owns four elements, and reads those of the
//                   neighbouring lanes by shuffles. Warps overlap: their outermost lanes only provide elements
//
// Grid: one-dimensional, blocks of 256.
#include "lrn.cuh"

constexpr int TILE = 1024;

// s^-beta. For beta = 3/4, the paper's, two square roots instead of a logarithm and an exponential.
__device__ inline T inverse_power(T s, T beta) {
  if (beta == T(0.75)) {
    T root = sqrt(s);
    return 1 / (root * sqrt(root));
  }
  return pow(s, -beta);
}

// The neighbourhood of element i of the row: `first` and `last` (inclusive), clipped to its pixel and group.
__device__ inline void neighbours(int i, Divisor D, int half, int& first, int& last) {
  int start = (unsigned)i / D * D;                            // groups follow each other without a gap, pixels too
  first = max(start, i - half), last = min(start + (int)D - 1, i + half);
}

// Copies elements low .. high-1 of the row to `tile`; those that do not exist are 0.
__device__ inline void copy_tile(const S* x, T* tile, int low, int high, int total) {
  for (int i = low + (int)threadIdx.x; i < high; i += blockDim.x) tile[i - low] = i >= 0 && i < total ? x[i] : T(0);
}

extern "C" __global__ void lrn_forward(const S* x, S* y, int total, Divisor D, int half, T k, T alpha, T beta) {
  extern __shared__ T tile[];                                 // TILE + 2 half
  int begin = blockIdx.x * TILE, low = begin - half;
  copy_tile(x, tile, low, begin + TILE + half, total);
  __syncthreads();
  for (int i = begin + (int)threadIdx.x; i < min(begin + TILE, total); i += blockDim.x) {
    int first, last;
    neighbours(i, D, half, first, last);
    T sum = 0;
    for (int j = first; j <= last; j++) sum += tile[j - low] * tile[j - low];
    y[i] = tile[i - low] * inverse_power(k + alpha * sum, beta);
  }
}

// Three tiles: x with twice the margin, since the s of a neighbour has neighbours of its own; dy s^-beta, which is needed
// again at the end; and dy_j x_j s_j^(-beta-1), whose window sum is the cross-channel term.
extern "C" __global__ void lrn_backward(const S* x, const S* dy, S* dx, int total, Divisor D, int half, T k, T alpha, T beta) {
  extern __shared__ T tiles[];
  T* tile = tiles;                                            // TILE + 4 half
  T* cross = tile + TILE + 4 * half;                          // TILE + 2 half
  T* direct = cross + TILE + 2 * half;                        // TILE
  int begin = blockIdx.x * TILE, low = begin - half, far = low - half;
  copy_tile(x, tile, far, begin + TILE + 2 * half, total);
  __syncthreads();
  for (int i = low + (int)threadIdx.x; i < begin + TILE + half; i += blockDim.x) {
    if (i < 0 || i >= total) continue;                        // never read again
    int first, last;
    neighbours(i, D, half, first, last);
    T sum = 0;
    for (int j = first; j <= last; j++) sum += tile[j - far] * tile[j - far];
    T s = k + alpha * sum, g = dy[i] * inverse_power(s, beta);
    cross[i - low] = g * tile[i - far] / s;
    if (i >= begin && i < begin + TILE) direct[i - begin] = g;
  }
  __syncthreads();
  for (int i = begin + (int)threadIdx.x; i < min(begin + TILE, total); i += blockDim.x) {
    int first, last;
    neighbours(i, D, half, first, last);
    T sum = 0;
    for (int j = first; j <= last; j++) sum += cross[j - low];
    dx[i] = direct[i - begin] - 2 * alpha * beta * tile[i - far] * sum;
  }
}

// ---- across channels, four elements to a lane: see lrn.cuh

template <int HALF> __device__ inline void forward_quad(const S* x, S* y, unsigned packs, Divisor quads, T k, T alpha, T beta) {
  LaneQuad quad(1, thread_number() / 32 * 30, packs, quads);
  Pack<4> own = normalised<HALF>(quad.of(x), quad, k, alpha, beta);
  if (quad.mine) store(y + 4 * quad.pack, own);
}
extern "C" __global__ void lrn_forward_packs(const S* x, S* y, unsigned packs, Divisor quads, int half, T k, T alpha, T beta) {
  with_half(half, [&](auto is) { forward_quad<is.OF>(x, y, packs, quads, k, alpha, beta); });
}

// `relu`, `partial`, `channels`: of the bias and ReLU that made x, see backward_quads.
extern "C" __global__ void lrn_backward_packs(const S* x, const S* dy, S* dx, T* partial, unsigned packs, Divisor quads, Divisor channels,
                                              int half, int relu, T k, T alpha, T beta) {
  with_half(half, [&](auto is) {
    backward_quads<is.OF>(x, dx, partial, packs, quads, channels, relu, k, alpha, beta, [&](const LaneQuad& quad) { return quad.of(dy); });
  });
}

// ---- within a map

// Calls f with the index of each pixel around element i, in the same map.
template <class F> __device__ inline void around(int i, int H, int W, int C, int half, F f) {
  int c = i % C, w = i / C % W, h = i / C / W % H, image = i / C / W / H * H;
  for (int row = max(0, h - half); row <= min(H - 1, h + half); row++)
    for (int column = max(0, w - half); column <= min(W - 1, w + half); column++) f(((image + row) * W + column) * C + c);
}

__device__ inline T scale_within(const S* x, int i, int H, int W, int C, int half, T k, T alpha) {
  T sum = 0;
  around(i, H, W, C, half, [&](int j) { sum += x[j] * x[j]; });
  return k + alpha * sum;
}

// Within a map. Grid: one-dimensional, blocks of 256, a thread for each element; overlapping windows are read from the caches.
extern "C" __global__ void lrn_within_forward(const S* x, S* y, int H, int W, int C, int total, int half, T k, T alpha, T beta) {
  for (int i = thread_number(); i < total; i += thread_count())
    y[i] = x[i] * inverse_power(scale_within(x, i, H, W, C, half, k, alpha), beta);
}

// The backward takes two launches, since a block cannot wait for its neighbours: cross_j = dy_j x_j s_j^(-beta-1) and
// direct_j = dy_j s_j^-beta for every element, then the sum of cross over each window.
extern "C" __global__ void lrn_within_terms(const S* x, const S* dy, T* direct, T* cross, int H, int W, int C, int total, int half,
                                            T k, T alpha, T beta) {
  for (int i = thread_number(); i < total; i += thread_count()) {
    T s = scale_within(x, i, H, W, C, half, k, alpha), g = dy[i] * inverse_power(s, beta);
    direct[i] = g;
    cross[i] = g * x[i] / s;
  }
}

extern "C" __global__ void lrn_within_backward(const S* x, const T* direct, const T* cross, S* dx, int H, int W, int C, int total,
                                               int half, T alpha, T beta) {
  for (int i = thread_number(); i < total; i += thread_count()) {
    T sum = 0;
    around(i, H, W, C, half, [&](int j) { sum += cross[j]; });
    dx[i] = direct[i] - 2 * alpha * beta * x[i] * sum;
  }
}
