// Dropout:  y = x * m,  m = scale where u >= rate, else 0;  u uniform in [0, 1), one for each unit of each image.
//
// u comes from Philox4x32-10, a function of (seed; image id, unit, epoch, layer) and of nothing else: the same integers
// as minicnn/rng.py. No mask is kept; the backward is the same kernel on dy.
//
// Layout: x is (N, units). Grid: one-dimensional, blocks of 256. One call of Philox gives four random numbers, so a thread
// takes four neighbouring units of an image.
#include "common.cuh"

// Ten rounds of two multiplications each, whose halves are swapped and mixed with the key.
__device__ inline uint4 philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1) {
  for (int round = 0; round < 10; round++) {
    unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return uint4{c0, c1, c2, c3};
}

extern "C" __global__ void dropout(const S* x, S* y, unsigned N, unsigned units, float rate, T scale, unsigned k0, unsigned k1,
                                   unsigned epoch, const double* epoch_value, unsigned purpose, const unsigned* sample_ids) {
  unsigned per_image = (units + 3) / 4;
  if (epoch_value) epoch = unsigned(*epoch_value);             // of a captured step: see step_value
  for (unsigned i = thread_number(); i < N * per_image; i += thread_count()) {
    unsigned n = i / per_image, block = i % per_image, start = n * units + 4 * block, count = min(4u, units - 4 * block);
    uint4 words = philox(sample_ids[n], block, epoch, purpose, k0, k1);
    unsigned word[4] = {words.x, words.y, words.z, words.w};
    T m[4];                                                        // the upper 24 bits: exact as a float
    for (int j = 0; j < 4; j++) m[j] = (word[j] >> 8) * (1.0f / (1 << 24)) >= rate ? scale : T(0);
    if (units % 4 == 0 && aligned(x) && aligned(y)) {
      for (int j = 0; j < 4; j += VECTOR) {
        Pack<VECTOR> pack = load<VECTOR>(x + start + j);
        for (int l = 0; l < VECTOR; l++) pack.v[l] *= m[j + l];
        store(y + start + j, pack);
      }
    } else {
      for (unsigned j = 0; j < 4; j++)                             // a fixed count, so that m stays in registers
        if (j < count) y[start + j] = x[start + j] * m[j];
    }
  }
}

// y = x * factor: the paper's rule at test time. It is its own backward.
extern "C" __global__ void scale_forward(const S* x, S* y, unsigned n, T factor) {
  map(n, x, y, [factor](T a) { return a * factor; });
}
