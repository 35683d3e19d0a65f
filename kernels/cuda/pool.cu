// Max and average pooling of each window of each channel: x (N, H, W, C) -> y (N, P, Q, C).
//
//     max    y = the largest cell; argmax = its index r*S + s in the window, the first one where several are equal
//     mean   y = sum of the cells / divisor, which counts the cells inside the image or a border around it
//     global y (N, C) = mean over all pixels
//
// Layout: channels-last, so neighbouring threads take neighbouring channels of one window, 16 bytes each where C allows.
// Grid forward (N*P, Q*C / 256), a row of blocks for each row of y; backward (N*H, W*C / 256), one for each row of dx.
//
// The backward gathers: a thread owns a pixel and sums the gradients of every window that contains it. A scatter would have
// overlapping windows (AlexNet's: 3 x 3 every 2) add to the same pixel at the same time, which takes atomics, whose order
// changes the last bit from run to run.
#include "window.cuh"

template <int V> __device__ void maxpool(const S* x, S* y, byte* argmax, Window g) {
  const Target at(V, g.P, g.Q, g.C);
  if (at.beyond) return;
  int h0 = at.row * g.stride_h - g.top, w0 = at.column * g.stride_w - g.left;
  Largest<V> best;
  for (int r = first_inside(h0); r < last_inside(h0, g.R, g.H); r++)
    for (int s = first_inside(w0); s < last_inside(w0, g.S, g.W); s++) {
      Pack<V> cell = load<V>(x + ((at.image * g.H + h0 + r) * g.W + w0 + s) * g.C + at.channel);
      best.take(cell, r * g.S + s);
    }
  best.put(y, argmax, at.offset);
}

extern "C" __global__ void maxpool_forward(const S* x, S* y, byte* argmax, Window g, int packs) {
  if (packs) maxpool<VECTOR>(x, y, argmax, g);
  else maxpool<1>(x, y, argmax, g);
}

template <int V> __device__ void maxpool_gather(const S* dy, const byte* argmax, S* dx, Window g) {
  const Target at(V, g.H, g.W, g.C);
  if (!at.beyond) store(dx + at.offset, gathered<V>(dy, argmax, at.image, at.row, at.column, at.channel, g));
}

extern "C" __global__ void maxpool_backward(const S* dy, const byte* argmax, S* dx, Window g, int packs) {
  if (packs) maxpool_gather<VECTOR>(dy, argmax, dx, g);
  else maxpool_gather<1>(dy, argmax, dx, g);
}

// The cells around the image that count in the divisor.
struct Border {
  int top, left, bottom, right;
};

// How many rows or columns of a window that starts at `start` count: those from -before to size + after - 1.
__device__ inline int counted(int start, int window, int size, int before, int after) {
  return last_inside(start, window, size + after) - first_inside(start + before);
}

// What a window's sum is divided by.
__device__ inline T divisor(int h0, int w0, const Window& g, const Border& b) {
  return T(counted(h0, g.R, g.H, b.top, b.bottom) * counted(w0, g.S, g.W, b.left, b.right));
}

template <int V> __device__ void avgpool(const S* x, S* y, Window g, Border b) {
  const Target at(V, g.P, g.Q, g.C);
  if (at.beyond) return;
  int h0 = at.row * g.stride_h - g.top, w0 = at.column * g.stride_w - g.left;
  Pack<V> sum{};
  for (int r = first_inside(h0); r < last_inside(h0, g.R, g.H); r++)
    for (int s = first_inside(w0); s < last_inside(w0, g.S, g.W); s++) {
      Pack<V> cell = load<V>(x + ((at.image * g.H + h0 + r) * g.W + w0 + s) * g.C + at.channel);
      for (int j = 0; j < V; j++) sum.v[j] += cell.v[j];
    }
  for (int j = 0; j < V; j++) sum.v[j] /= divisor(h0, w0, g, b);
  store(y + at.offset, sum);
}

extern "C" __global__ void avgpool_forward(const S* x, S* y, Window g, Border b, int packs) {
  if (packs) avgpool<VECTOR>(x, y, g, b);
  else avgpool<1>(x, y, g, b);
}

template <int V> __device__ void avgpool_gather(const S* dy, S* dx, Window g, Border b) {
  const Target at(V, g.H, g.W, g.C);
  if (at.beyond) return;
  int h = at.row, w = at.column;
  Pack<V> sum{};
  for (int p = first_window(h, g.top, g.R, g.stride_h); p <= last_window(h, g.top, g.stride_h, g.P); p++)
    for (int q = first_window(w, g.left, g.S, g.stride_w); q <= last_window(w, g.left, g.stride_w, g.Q); q++) {
      T share = 1 / divisor(p * g.stride_h - g.top, q * g.stride_w - g.left, g, b);
      Pack<V> gradient = load<V>(dy + ((at.image * g.P + p) * g.Q + q) * g.C + at.channel);
      for (int j = 0; j < V; j++) sum.v[j] += gradient.v[j] * share;
    }
  store(dx + at.offset, sum);
}

extern "C" __global__ void avgpool_backward(const S* dy, S* dx, Window g, Border b, int packs) {
  if (packs) avgpool_gather<VECTOR>(dy, dx, g, b);
  else avgpool_gather<1>(dy, dx, g, b);
}

// ---- global average. Grid (N, C / (32 V)), blocks of 32 x 8: a row of threads takes every eighth pixel, neighbouring
// threads take neighbouring channels. Then the first row adds up the sums of the others, always in the same order.
template <int V> __device__ void global_avgpool(const S* x, S* y, unsigned pixels, unsigned C) {
  __shared__ Pack<V> sums[8][32];
  unsigned channel = (blockIdx.y * 32 + threadIdx.x) * V;
  Pack<V> sum{};
  if (channel < C)
    for (unsigned i = threadIdx.y; i < pixels; i += 8) {
      Pack<V> pixel = load<V>(x + (blockIdx.x * pixels + i) * C + channel);
      for (int j = 0; j < V; j++) sum.v[j] += pixel.v[j];
    }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || channel >= C) return;
  for (int t = 1; t < 8; t++)
    for (int j = 0; j < V; j++) sum.v[j] += sums[t][threadIdx.x].v[j];
  for (int j = 0; j < V; j++) sum.v[j] /= T(pixels);
  store(y + blockIdx.x * C + channel, sum);
}

extern "C" __global__ void global_avgpool_forward(const S* x, S* y, unsigned pixels, unsigned C, int packs) {
  if (packs) global_avgpool<VECTOR>(x, y, pixels, C);
  else global_avgpool<1>(x, y, pixels, C);
}

// Grid: one-dimensional, blocks of 256. dx has n elements, `image` of them in each image.
template <int V> __device__ void global_avgpool_spread(const S* dy, S* dx, unsigned n, Divisor image, Divisor C, T share) {
  for (unsigned i = thread_number() * V; i < n; i += thread_count() * V) {
    Pack<V> gradient = load<V>(dy + i / image * C + i % C);
    for (int j = 0; j < V; j++) gradient.v[j] *= share;
    store(dx + i, gradient);
  }
}

extern "C" __global__ void global_avgpool_backward(const S* dy, S* dx, unsigned n, Divisor image, Divisor C, T share, int packs) {
  if (packs) global_avgpool_spread<VECTOR>(dy, dx, n, image, C, share);
  else global_avgpool_spread<1>(dy, dx, n, image, C, share);
}

// ---- adaptive average. Window p of P covers rows floor(p H / P) ... ceil((p+1) H / P) - 1, and row h is in the windows
// floor(h P / H) ... ceil((h+1) P / H) - 1. Grid: one-dimensional, a thread for each element of y, or of dx.
__device__ inline unsigned first_of(unsigned i, unsigned from, unsigned to) { return i * to / from; }
__device__ inline unsigned end_of(unsigned i, unsigned from, unsigned to) { return ((i + 1) * to + from - 1) / from; }

extern "C" __global__ void adaptive_avgpool_forward(const S* x, S* y, unsigned n, Divisor C, Divisor Q, Divisor P, unsigned H,
                                                    unsigned W) {
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    unsigned pixel = i / C, row = pixel / Q, image = row / P, p = row % P, q = pixel % Q;
    unsigned top = first_of(p, P, H), bottom = end_of(p, P, H), left = first_of(q, Q, W), right = end_of(q, Q, W);
    T sum = 0;
    for (unsigned h = top; h < bottom; h++)
      for (unsigned w = left; w < right; w++) sum += x[((image * H + h) * W + w) * C + i % C];
    y[i] = sum / T((bottom - top) * (right - left));
  }
}

extern "C" __global__ void adaptive_avgpool_backward(const S* dy, S* dx, unsigned n, Divisor C, Divisor W, Divisor H,
                                                     unsigned P, unsigned Q) {
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    unsigned pixel = i / C, row = pixel / W, image = row / H, h = row % H, w = pixel % W;
    T sum = 0;
    for (unsigned p = first_of(h, H, P); p < end_of(h, H, P); p++)
      for (unsigned q = first_of(w, W, Q); q < end_of(w, W, Q); q++) {
        unsigned rows = end_of(p, P, H) - first_of(p, P, H), columns = end_of(q, Q, W) - first_of(q, Q, W);
        sum += dy[((image * P + p) * Q + q) * C + i % C] / T(rows * columns);
      }
    dx[i] = sum;
  }
}
