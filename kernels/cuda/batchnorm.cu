// Batch normalisation, and a scale and shift for each channel:
//
//     z  = w (x - mean) / s + b,  s = sqrt(var + eps)          y = z + residual, then max(y, 0)
//     dx = (w / s) (dz - sum dz / m - (x - mean) / s^2 * sum dz (x - mean) / m)                 dz: dy where y > 0
//
// Layout: arrays are (rows, C), rows = N*H*W. Grid of what reads x: (C / (V blockDim.x), chunks of rows), blocks of at most 32 x
// 256 / blockDim.x. A thread owns V neighbouring channels and takes every blockDim.y-th row of its chunk, four at once.
// Memory bandwidth is the limit of all of them.
//
// Sums are taken in two launches and in fixed orders, as in epilogue.cu. Statistics: the mean of four values, then the squares of
// their distances to it, merged in double (Chan et al., 1979): nothing is lost where the mean is large. For the same reason x -
// mean is computed as (x - centre) - rest, the centre being the mean rounded to T, so that x - centre is exact, and the rest in
// double, where it only enters the factors of a channel.
#include "common.cuh"

constexpr int THREADS = 256, AHEAD = 4;

// The channels of this thread, from c on, and its rows: first, first + step ... below last.
struct Place {
  unsigned c, first, last, step;
};

template <int V> __device__ inline Place place(unsigned rows, unsigned C, unsigned chunk) {
  unsigned c = (blockIdx.x * blockDim.x + threadIdx.x) * V, first = blockIdx.y * chunk;
  return {c, first + threadIdx.y, c < C ? min(first + chunk, rows) : 0, blockDim.y};
}

// Calls f(row, count) for every four rows of a thread, of which `count` are there: row, row + step, ... `load_rows` gives zeros for
// the others: they have a number known when this is compiled, so that they stay in registers.
template <class F> __device__ inline void fours(Place p, F f) {
  for (unsigned row = p.first; row < p.last; row += AHEAD * p.step) f(row, min(unsigned(AHEAD), (p.last - row + p.step - 1) / p.step));
}

template <int V> struct Rows {
  Pack<V> row[AHEAD];
};

template <int V> __device__ inline Rows<V> load_rows(const S* a, Place p, unsigned row, unsigned count, unsigned C) {
  Rows<V> rows{};
#pragma unroll
  for (unsigned i = 0; i < AHEAD; i++)
    if (a && i < count) rows.row[i] = load<V>(a + (row + i * p.step) * C + p.c);
  return rows;
}

// Mean and squared distances to it of a number of values; `merge` adds those of others.
struct Moments {
  double mean, squares, count;
  __device__ void merge(double other_mean, double other_squares, double other_count) {
    if (other_count == 0) return;
    double distance = other_mean - mean, share = other_count / (count + other_count);
    mean += distance * share;
    squares += other_squares + distance * distance * count * share;
    count += other_count;
  }
};

// ---- statistics. Pass one: means and squares (chunks, C).
template <int V> __device__ void chunk_moments(const S* x, double* means, double* squares, unsigned rows, unsigned C, unsigned chunk) {
  __shared__ double shared[2][THREADS * VECTOR];
  Place p = place<V>(rows, C, chunk);
  Moments m[V]{};
  fours(p, [&](unsigned row, unsigned count) {
    Rows<V> x4 = load_rows<V>(x, p, row, count, C);
    double inverse = 1.0 / count;
    for (int j = 0; j < V; j++) {
      T total = 0, rest = 0, square = 0;
      for (unsigned i = 0; i < AHEAD; i++) total += x4.row[i].v[j];                            // 0 beyond count
      T centre = total * T(inverse);
      for (unsigned i = 0; i < AHEAD; i++) {
        T distance = i < count ? x4.row[i].v[j] - centre : T(0);
        rest += distance, square += distance * distance;
      }
      m[j].merge(centre + rest * inverse, square - double(rest) * rest * inverse, count);
    }
  });
  for (int j = 0; j < V; j++) {
    unsigned at = (threadIdx.y * blockDim.x + threadIdx.x) * V + j;
    shared[0][at] = m[j].mean, shared[1][at] = m[j].squares;
  }
  __syncthreads();
  if (threadIdx.y || p.c >= C) return;
  unsigned height = p.last - p.first;
  for (int j = 0; j < V; j++) {
    for (unsigned t = 1; t < p.step && t < height; t++) {
      unsigned at = (t * blockDim.x + threadIdx.x) * V + j;
      m[j].merge(shared[0][at], shared[1][at], (height - t + p.step - 1) / p.step);
    }
    means[blockIdx.y * C + p.c + j] = m[j].mean, squares[blockIdx.y * C + p.c + j] = m[j].squares;
  }
}

extern "C" __global__ void batchnorm_chunks(const S* x, double* means, double* squares, unsigned rows, unsigned C, unsigned chunk,
                                            int packs) {
  if (packs) chunk_moments<VECTOR>(x, means, squares, rows, C, chunk);
  else chunk_moments<1>(x, means, squares, rows, C, chunk);
}

// Pass two. Grid C / 32, blocks of 32 x 32: each thread merges every 32nd chunk of a channel, the first row of threads the rest.
extern "C" __global__ void batchnorm_merge(const double* means, const double* squares, double* mean, double* var, unsigned rows,
                                           unsigned C, unsigned chunk) {
  __shared__ Moments shared[32][32];
  unsigned c = blockIdx.x * 32 + threadIdx.x;
  Moments m{};
  for (unsigned i = threadIdx.y; i * chunk < rows && c < C; i += 32) m.merge(means[i * C + c], squares[i * C + c], min(chunk, rows - i * chunk));
  shared[threadIdx.y][threadIdx.x] = m;
  __syncthreads();
  if (threadIdx.y || c >= C) return;
  for (int t = 1; t < 32; t++) {
    Moments other = shared[t][threadIdx.x];
    m.merge(other.mean, other.squares, other.count);
  }
  mean[c] = m.mean, var[c] = m.squares / m.count;
}

// The running statistics, as those that x is normalised with. A thread for each channel.
extern "C" __global__ void batchnorm_fixed(const T* running_mean, const T* running_var, double* mean, double* var, unsigned C) {
  for (unsigned c = thread_number(); c < C; c += thread_count()) mean[c] = running_mean[c], var[c] = running_var[c];
}

// running += momentum * (batch - running); unbiased: m / (m - 1).
extern "C" __global__ void batchnorm_update(const double* mean, const double* var, T* running_mean, T* running_var, unsigned C,
                                            double momentum, double unbiased) {
  for (unsigned c = thread_number(); c < C; c += thread_count()) {
    running_mean[c] += momentum * (mean[c] - running_mean[c]);
    running_var[c] += momentum * (var[c] * unbiased - running_var[c]);
  }
}

// ---- passes over x. The factors of V channels: z = (x - centre) * scale + shift, dx = dz * scale + (x - centre) * cross + offset.
// mean and var, b, and sums may be null: 0 and 1, 0, and 0.
template <int V> struct Factors {
  Pack<V> centre, scale, shift, cross, offset;
};

template <int V> __device__ Factors<V> factors(const T* w, const T* b, const double* mean, const double* var, double eps,
                                               const double* sums, double count, unsigned c, unsigned C) {
  Factors<V> f{};
  for (int j = 0; j < V && c < C; j++) {
    double rest = 0, inverse = mean ? 1 / (var[c + j] + eps) : 1, scale = w[c + j] * (mean ? sqrt(inverse) : 1);
    if (mean) f.centre.v[j] = T(mean[c + j]), rest = mean[c + j] - f.centre.v[j];
    f.scale.v[j] = T(scale);
    f.shift.v[j] = T((b ? b[c + j] : T(0)) - rest * scale);
    if (!sums) continue;
    double cross = -scale * inverse * sums[C + c + j] / count;
    f.cross.v[j] = T(cross), f.offset.v[j] = T(-scale * sums[c + j] / count - rest * cross);
  }
  return f;
}

template <int V> __device__ inline T z(const Factors<V>& f, int j, T x) { return (x - f.centre.v[j]) * f.scale.v[j] + f.shift.v[j]; }

template <int V> __device__ void forward(const S* x, const S* residual, S* y, unsigned rows, unsigned C, unsigned chunk,
                                         Factors<V> f, int relu) {
  Place p = place<V>(rows, C, chunk);
  fours(p, [&](unsigned row, unsigned count) {
    Rows<V> x4 = load_rows<V>(x, p, row, count, C), r4 = load_rows<V>(residual, p, row, count, C);
#pragma unroll
    for (unsigned i = 0; i < AHEAD; i++) {
      Pack<V> out;
      for (int j = 0; j < V; j++) {
        T value = z(f, j, x4.row[i].v[j]) + r4.row[i].v[j];
        out.v[j] = relu && value <= 0 ? T(0) : value;                                          // NaN is not <= 0
      }
      if (i < count) store(y + (row + i * p.step) * C + p.c, out);
    }
  });
}

#define CHANNEL(V) (blockIdx.x * blockDim.x + threadIdx.x) * V

extern "C" __global__ void affine_forward(const S* x, const T* w, const T* b, const double* mean, const double* var, const S* residual,
                                          S* y, double eps, int relu, unsigned rows, unsigned C, unsigned chunk, int packs) {
  if (packs) forward(x, residual, y, rows, C, chunk, factors<VECTOR>(w, b, mean, var, eps, nullptr, 1, CHANNEL(VECTOR), C), relu);
  else forward(x, residual, y, rows, C, chunk, factors<1>(w, b, mean, var, eps, nullptr, 1, CHANNEL(1), C), relu);
}

// dz = dy where y > 0; without y, where z > 0; without relu, everywhere. dz (may be null, may be dy) is written; partial (chunks,
// 2, C): the sums of dz and of dz * (x - centre).
template <int V> __device__ void chunk_sums(const S* x, const S* dy, const S* y, S* dz, double* partial, unsigned rows, unsigned C,
                                            unsigned chunk, Factors<V> f, int relu) {
  __shared__ double shared[2][THREADS * VECTOR];
  Place p = place<V>(rows, C, chunk);
  double first[V]{}, second[V]{};
  fours(p, [&](unsigned row, unsigned count) {
    Rows<V> x4 = load_rows<V>(x, p, row, count, C), g4 = load_rows<V>(dy, p, row, count, C), y4 = load_rows<V>(y, p, row, count, C);
    T sum[V]{}, weighted[V]{};
#pragma unroll
    for (unsigned i = 0; i < AHEAD; i++) {
      for (int j = 0; j < V; j++) {
        T value = x4.row[i].v[j], &g = g4.row[i].v[j];
        if (relu) g *= T((y ? y4.row[i].v[j] : z(f, j, value)) > 0);
        sum[j] += g, weighted[j] += g * (value - f.centre.v[j]);
      }
      if (dz && i < count) store(dz + (row + i * p.step) * C + p.c, g4.row[i]);
    }
    for (int j = 0; j < V; j++) first[j] += sum[j], second[j] += weighted[j];
  });
  for (int j = 0; j < V; j++) {
    unsigned at = (threadIdx.y * blockDim.x + threadIdx.x) * V + j;
    shared[0][at] = first[j], shared[1][at] = second[j];
  }
  __syncthreads();
  if (threadIdx.y || p.c >= C) return;
  for (int k = 0; k < 2; k++)
    for (int j = 0; j < V; j++) {
      double total = 0;
      for (unsigned t = 0; t < p.step; t++) total += shared[k][(t * blockDim.x + threadIdx.x) * V + j];
      partial[(blockIdx.y * 2 + k) * C + p.c + j] = total;
    }
}

extern "C" __global__ void affine_sums(const S* x, const S* dy, const S* y, S* dz, double* partial, const T* w, const T* b,
                                       const double* mean, const double* var, double eps, int relu, unsigned rows, unsigned C,
                                       unsigned chunk, int packs) {
  if (packs)
    chunk_sums(x, dy, y, dz, partial, rows, C, chunk, factors<VECTOR>(w, b, mean, var, eps, nullptr, 1, CHANNEL(VECTOR), C), relu);
  else chunk_sums(x, dy, y, dz, partial, rows, C, chunk, factors<1>(w, b, mean, var, eps, nullptr, 1, CHANNEL(1), C), relu);
}

// The sums of all chunks: about the mean into sums (2, C; may be null), and into dw and db (may be null). Grid and blocks as
// batchnorm_merge.
extern "C" __global__ void affine_add_sums(const double* partial, const double* mean, const double* var, double* sums, T* dw, T* db,
                                           double eps, unsigned chunks, unsigned C, int add_w, int add_b) {
  __shared__ double shared[2][32][32];
  unsigned c = blockIdx.x * 32 + threadIdx.x;
  for (int k = 0; k < 2; k++) {
    double sum = 0;
    for (unsigned i = threadIdx.y; i < chunks && c < C; i += 32) sum += partial[(i * 2 + k) * C + c];
    shared[k][threadIdx.y][threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.y || c >= C) return;
  double first = 0, second = 0, scale = 1;
  for (int t = 0; t < 32; t++) first += shared[0][t][threadIdx.x], second += shared[1][t][threadIdx.x];
  if (mean) second -= (mean[c] - T(mean[c])) * first, scale = 1 / sqrt(var[c] + eps);
  if (sums) sums[c] = first, sums[C + c] = second;
  dw[c] = T((add_w ? dw[c] : T(0)) + second * scale);
  if (db) db[c] = T((add_b ? db[c] : T(0)) + first);
}

template <int V> __device__ void input_gradient(const S* x, const S* dy, S* dx, unsigned rows, unsigned C, unsigned chunk, Factors<V> f,
                                                int relu) {
  Place p = place<V>(rows, C, chunk);
  fours(p, [&](unsigned row, unsigned count) {
    Rows<V> x4 = load_rows<V>(x, p, row, count, C), g4 = load_rows<V>(dy, p, row, count, C);
#pragma unroll
    for (unsigned i = 0; i < AHEAD; i++) {
      for (int j = 0; j < V; j++) {
        T value = x4.row[i].v[j], &g = g4.row[i].v[j];
        if (relu) g *= T(z(f, j, value) > 0);
        g = g * f.scale.v[j] + (value - f.centre.v[j]) * f.cross.v[j] + f.offset.v[j];
      }
      if (i < count) store(dx + (row + i * p.step) * C + p.c, g4.row[i]);
    }
  });
}

// dx may be dy. sums: over `count` values; null where mean and var do not depend on x.
extern "C" __global__ void affine_backward_data(const S* x, const S* dy, S* dx, const T* w, const T* b, const double* mean,
                                                const double* var, const double* sums, double eps, double count, int relu,
                                                unsigned rows, unsigned C, unsigned chunk, int packs) {
  if (packs) input_gradient(x, dy, dx, rows, C, chunk, factors<VECTOR>(w, b, mean, var, eps, sums, count, CHANNEL(VECTOR), C), relu);
  else input_gradient(x, dy, dx, rows, C, chunk, factors<1>(w, b, mean, var, eps, sums, count, CHANNEL(1), C), relu);
}
