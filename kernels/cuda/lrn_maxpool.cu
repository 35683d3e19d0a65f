// Local response normalisation across channels and the max pooling behind it, in one pass over memory each way. The normalised
// values in between, and their gradient, are as large as x, and are never stored.
//
//     y = the largest of each window of x s^-beta         dx: of lrn.cu, where dy is gathered from the windows as in pool.cu
//
// Forward: a lane owns four channels of an output pixel, and normalises every cell of its window. With windows of 3 x 3 every
// 2 pixels a cell is normalised 2.25 times, out of the caches: some 56 instructions for an element of x, which is as many as
// memory at 3 TB/s leaves time for. Backward: a lane owns four channels of a pixel of x (lrn.cuh).
//
// D, the channels of a group, is a multiple of four, and half is 1 to 4; for others the launcher takes two passes. Grid:
// one-dimensional, blocks of 256. packs: quads of y, or of x; quads: of a group; channels: quads of a pixel; columns: of y, or
// of x.
#include "lrn.cuh"
#include "window.cuh"

// Which pixel of maps with g's rows a quad belongs to, and where its channels begin.
struct Pixel {
  int image, row, column, channel;
  __device__ Pixel(unsigned pack, Divisor channels, Divisor columns, Divisor rows) {
    unsigned pixel = pack / channels, line = pixel / columns;
    channel = pack % channels * 4, column = pixel % columns, image = line / rows, row = line % rows;
  }
};

template <int HALF>
__device__ inline void largest_normalised(const S* x, S* y, byte* argmax, unsigned packs, Divisor quads, Divisor channels, Divisor columns, T k,
                                          T alpha, T beta, const Window& g) {
  LaneQuad quad(1, thread_number() / 32 * 30, packs, quads);
  Pixel to(quad.exists ? quad.pack : 0, channels, columns, g.P);
  int h0 = to.row * g.stride_h - g.top, w0 = to.column * g.stride_w - g.left;
  Largest<4> best;
  for (int r = 0; r < g.R; r++)                               // all lanes take part in the sums, also for cells outside
    for (int s = 0; s < g.S; s++) {
      int h = h0 + r, w = w0 + s;
      bool inside = quad.exists && h >= 0 && h < (int)g.H && w >= 0 && w < g.W;
      Pack<4> cell{};
      if (inside) cell = load<4>(x + ((to.image * g.H + h) * g.W + w) * g.C + to.channel);
      cell = normalised<HALF>(cell, quad, k, alpha, beta);
      if (inside) best.take(cell, r * g.S + s);
    }
  if (quad.mine) best.put(y, argmax, 4 * quad.pack);
}

extern "C" __global__ void lrn_maxpool_forward(const S* x, S* y, byte* argmax, unsigned packs, Divisor quads, Divisor channels, Divisor columns,
                                               int half, T k, T alpha, T beta, Window g) {
  with_half(half, [&](auto is) { largest_normalised<is.OF>(x, y, argmax, packs, quads, channels, columns, k, alpha, beta, g); });
}

extern "C" __global__ void lrn_maxpool_backward(const S* x, const S* dy, const byte* argmax, S* dx, T* partial, unsigned packs, Divisor quads,
                                                Divisor channels, Divisor columns, int half, int relu, T k, T alpha, T beta, Window g) {
  with_half(half, [&](auto is) {
    backward_quads<is.OF>(x, dx, partial, packs, quads, channels, relu, k, alpha, beta, [&](const LaneQuad& quad) {
      Pixel at(quad.exists ? quad.pack : 0, channels, columns, g.H);
      return quad.exists ? gathered<4>(dy, argmax, at.image, at.row, at.column, at.channel, g) : Pack<4>{};
    });
  });
}
