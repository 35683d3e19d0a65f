// Depthwise convolution: y[n,p,q,c] = b[c] + sum over r, s of x[n, p*u + r - top, q*v + s - left, c] * w[r,s,c].
//
// Layout: channels-last, so neighbouring threads take neighbouring channels of one window, 16 bytes each where C allows. A cell
// is read by the threads of several windows, which are neighbours: all but the first find it in the L1 cache.
// Grid forward (N*P, Q*C / 256), a row of blocks for each row of y; backward (N*H, W*C / 256), one for each row of dx.
//
// dx gathers, as pool.cu does. dw is a sum over all pixels: pass one stores a sum for each chunk of them, and epilogue_add
// (epilogue.cu) adds these up, always in the same order.
#include "window.cuh"

template <int V> __device__ void add_product(Pack<V>& sum, const S* a, const T* b) {
  Pack<V> x = load<V>(a), w = load<V>(b);
  for (int j = 0; j < V; j++) sum.v[j] += x.v[j] * w.v[j];
}

template <int V> __device__ void correlate(const S* x, const T* w, S* y, const T* bias, int relu, const Window& g) {
  const Target at(V, g.P, g.Q, g.C);
  if (at.beyond) return;
  int h0 = at.row * g.stride_h - g.top, w0 = at.column * g.stride_w - g.left;
  Pack<V> sum{};
  for (int r = first_inside(h0); r < last_inside(h0, g.R, g.H); r++)
    for (int s = first_inside(w0); s < last_inside(w0, g.S, g.W); s++)
      add_product(sum, x + ((at.image * g.H + h0 + r) * g.W + w0 + s) * g.C + at.channel, w + (r * g.S + s) * g.C + at.channel);
  for (int j = 0; j < V; j++) {
    if (bias) sum.v[j] += bias[at.channel + j];
    if (relu && sum.v[j] < 0) sum.v[j] = 0;                                 // NaN stays
  }
  store(y + at.offset, sum);
}

extern "C" __global__ void depthwise_forward(const S* x, const T* w, S* y, const T* bias, int relu, Window g, int packs) {
  if (packs) correlate<VECTOR>(x, w, y, bias, relu, g);
  else correlate<1>(x, w, y, bias, relu, g);
}

template <int V> __device__ void gather(const S* dy, const T* w, S* dx, const Window& g) {
  const Target at(V, g.H, g.W, g.C);
  if (at.beyond) return;
  Pack<V> sum{};
  for (int p = first_window(at.row, g.top, g.R, g.stride_h); p <= last_window(at.row, g.top, g.stride_h, g.P); p++)
    for (int q = first_window(at.column, g.left, g.S, g.stride_w); q <= last_window(at.column, g.left, g.stride_w, g.Q); q++) {
      int r = at.row + g.top - p * g.stride_h, s = at.column + g.left - q * g.stride_w;      // of this pixel in that window
      add_product(sum, dy + ((at.image * g.P + p) * g.Q + q) * g.C + at.channel, w + (r * g.S + s) * g.C + at.channel);
    }
  store(dx + at.offset, sum);
}

extern "C" __global__ void depthwise_backward_data(const S* dy, const T* w, S* dx, Window g, int packs) {
  if (packs) gather<VECTOR>(dy, w, dx, g);
  else gather<1>(dy, w, dx, g);
}

// partial (chunks, R*S, C): the sums over `chunk` of the N*P*Q output pixels. Grid (C / (V blockDim.x), chunks, kernels / (A*B)),
// blocks of 256: threads in x are neighbours in a pixel, those in y take different pixels. A thread sums A x B taps, those from
// (r0, s0) on, in its registers: all of a 3 x 3 kernel, and otherwise one for each blockIdx.z. Then the first row of threads
// adds up the sums of the others, tap by tap.
constexpr int THREADS = 256;

template <int V, int A, int B>
__device__ void sum_taps(const S* x, const S* dy, T* partial, unsigned pixels, unsigned chunk, const Window& g) {
  __shared__ T sums[THREADS * VECTOR];
  unsigned c = (blockIdx.x * blockDim.x + threadIdx.x) * V, first = blockIdx.y * chunk, last = min(first + chunk, pixels);
  int r0 = blockIdx.z / g.S, s0 = blockIdx.z % g.S;
  Pack<V> sum[A * B]{};
  for (unsigned pixel = first + threadIdx.y; pixel < last && c < g.C; pixel += blockDim.y) {
    unsigned rows = pixel / g.Q, q = pixel - rows * g.Q, n = rows / g.P, p = rows - n * g.P;
    int h = p * g.stride_h - g.top + r0, w = q * g.stride_w - g.left + s0;
    Pack<V> gradient = load<V>(dy + pixel * g.C + c);
#pragma unroll
    for (int a = 0; a < A; a++)
#pragma unroll
      for (int b = 0; b < B; b++)
        if (h + a >= 0 && h + a < g.H && w + b >= 0 && w + b < g.W) {
          Pack<V> cell = load<V>(x + ((n * g.H + h + a) * g.W + w + b) * g.C + c);
#pragma unroll
          for (int j = 0; j < V; j++) sum[a * B + b].v[j] += cell.v[j] * gradient.v[j];
        }
  }
#pragma unroll
  for (int t = 0; t < A * B; t++) {
    for (int j = 0; j < V; j++) sums[(threadIdx.y * blockDim.x + threadIdx.x) * V + j] = sum[t].v[j];
    __syncthreads();
    if (threadIdx.y == 0 && c < g.C)
      for (int j = 0; j < V; j++) {
        T total = 0;
        for (int i = 0; i < blockDim.y; i++) total += sums[(i * blockDim.x + threadIdx.x) * V + j];
        partial[(blockIdx.y * g.R * g.S + r0 * g.S + s0 + t) * g.C + c + j] = total;
      }
    __syncthreads();                                                        // the next tap takes its place
  }
}

extern "C" __global__ void depthwise_sums(const S* x, const S* dy, T* partial, unsigned pixels, unsigned chunk, Window g, int packs) {
  if (packs) sum_taps<VECTOR, 1, 1>(x, dy, partial, pixels, chunk, g);
  else sum_taps<1, 1, 1>(x, dy, partial, pixels, chunk, g);
}

extern "C" __global__ void depthwise_sums_3x3(const S* x, const S* dy, T* partial, unsigned pixels, unsigned chunk, Window g, int packs) {
  if (packs) sum_taps<VECTOR, 3, 3>(x, dy, partial, pixels, chunk, g);
  else sum_taps<1, 3, 3>(x, dy, partial, pixels, chunk, g);
}
