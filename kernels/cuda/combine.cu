// Where branches of the graph join or split: concatenation of channels, sum, and the sum of gradients at a fan-out.
//
// Layout: channels-last, so an array is rows of channels, and concatenation puts strips of rows side by side. Grid: one-
// dimensional, blocks of 256. Memory bandwidth is the limit of everything here.
#include "common.cuh"

// A strip of `width` channels, from column `from_start` of rows `from_width` wide to column `to_start` of rows `to_width`
// wide: one launch for each input of a concatenation, and one in the other direction for its gradient.
template <int V> __device__ void copy_strip(const T* from, T* to, unsigned rows, unsigned width, unsigned from_width,
                                            unsigned from_start, unsigned to_width, unsigned to_start) {
  unsigned packs = width / V;
  for (unsigned i = thread_number(); i < rows * packs; i += thread_count()) {
    unsigned row = i / packs, c = i % packs * V;
    store(to + row * to_width + to_start + c, load<V>(from + row * from_width + from_start + c));
  }
}

extern "C" __global__ void copy_channels(const T* from, T* to, unsigned rows, unsigned width, unsigned from_width,
                                         unsigned from_start, unsigned to_width, unsigned to_start) {
  bool packs = (width | from_width | from_start | to_width | to_start) % VECTOR == 0 && aligned(from) && aligned(to);
  if (packs) copy_strip<VECTOR>(from, to, rows, width, from_width, from_start, to_width, to_start);
  else copy_strip<1>(from, to, rows, width, from_width, from_start, to_width, to_start);
}

// y = a + b.
extern "C" __global__ void add(const T* a, const T* b, T* y, unsigned n) {
  map(n, a, b, y, [](T p, T q) { return p + q; });
}
