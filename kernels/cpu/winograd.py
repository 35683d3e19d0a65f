"""Convolution with 3 x 3 kernels and stride 1 in a quarter of the products: Winograd's filtering F(4 x 4, 3 x 3).

    Y = A' [ (G g G') * (B' d B) ] A       d: 6 x 6 inputs, g: the kernel, Y: 4 x 4 outputs, *: by element

(Lavin & Gray 2016, arXiv 1509.09308, with the points 0, 1, -1, 2, -2 and infinity.) A tile takes 36 products instead of
144; on AlexNet's 13 x 13 maps, which 4 x 4 tiles cover with some waste, 1369 products become 576. Summed over input
channels, the element-wise product is a matrix product for each of the 36 places, and that is where the time goes.
(F(2 x 2, 5 x 5) has the same B, but what it saves on AlexNet's conv2 goes into writing and reading V and M.)

    x (images, H, W, C) --B'dB--> V (36, tiles, C)                        V, U, M are written out, for so many tiles
    w (3, 3, C/G, K)    --GgG'--> U (36, panels of w)                      at a time that they stay in the cache
    V[i] U[i] -> M (36, tiles, K) --A'MA, + bias, ReLU--> y

The transforms run over channels innermost, which are contiguous. The data gradient is the same with the kernel flipped
and transposed. The price is rounding, because numbers several times larger than the result cancel. With N(0, 1) inputs
and the shapes of AlexNet's conv3 to conv5, the root mean square error is 3e-6 of the result's own (direct: 8e-7), the
largest 7e-5 (direct: 1e-5). In float64 convolution stays direct.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.correlate import CHUNK_TILES, correlate_chunk
from minicnn.kernels.cpu.microkernel import combination, correlate_tiles
from minicnn.kernels.cpu.threads import RANGES_PER_THREAD, blocks, run, split, threads
from minicnn.kernels.cpu.tile import tile_for, vector_bytes

OUT, IN, PLACES = 4, 6, 36       # a tile's side in the output and in the input; products of a tile and channel
OUTSIDE = 52                     # row of a thread's patch that is 0 and stands for what lies outside the image
TILES = 256                      # tiles at a time
LEAST_CHANNELS = 32              # with fewer channels or tiles the transforms cost more than the products they save
LEAST_TILES = 64


def is_suited(kernel_size, stride, pads, depth, columns, N, P, Q, dtype) -> bool:
    """Whether this convolution runs by Winograd's algorithm. depth, columns: channels in and out of one group."""
    lanes = vector_bytes() // np.dtype(dtype).itemsize
    return (tuple(kernel_size) == (3, 3) and tuple(stride) == (1, 1) and 0 <= min(pads) and max(pads) <= 2
            and min(depth, columns) >= LEAST_CHANNELS and depth % lanes == columns % lanes == 0
            and np.dtype(dtype) == np.float32
            and N * -(-P // OUT) * -(-Q // OUT) >= LEAST_TILES)


_apply_input = combination([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],              # B'
                            [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])
_apply_kernel = combination([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],          # G
                             [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]])
_apply_output = combination([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0],              # A'
                             [0, 1, -1, 8, -8, 1]])


@kernel
def transform_input(first, last, begin, x, V, down, across, top, left, patch, rows, lanes):
    """V[:, tile - begin] = B' d B for tiles first..last of all images; down, across: tiles of an image.

    patch (OUTSIDE + 1, C): scratch; its last row must be 0.   rows (6,): scratch, addresses.
    """
    H, W, C, size = x.shape[1], x.shape[2], x.shape[3], x.itemsize
    number, row, line = x.dtype.type(0), C * size, patch.strides[0]
    outside = patch.ctypes.data + OUTSIDE * line
    for tile in range(first, last):
        n, h0, w0 = tile // (down * across), tile // across % down * OUT - top, tile % across * OUT - left
        for j in range(IN):                                                    # B' d, column by column
            for i in range(IN):
                inside = h0 + i >= 0 and h0 + i < H and w0 + j >= 0 and w0 + j < W
                rows[i] = x.ctypes.data + ((n * H + h0 + i) * W + w0 + j) * row if inside else outside
            _apply_input(lanes, number, rows.ctypes.data, patch.ctypes.data + j * line, IN * line, C)
        for i in range(IN):                                                    # (B' d) B, line by line
            for j in range(IN):
                rows[j] = patch.ctypes.data + (i * IN + j) * line
            _apply_input(lanes, number, rows.ctypes.data, V.ctypes.data + (i * IN * V.shape[1] + tile - begin) * row,
                         V.shape[1] * row, C)


@kernel
def transform_kernel(first, last, panels, U, patch, rows, lanes):
    """U[place, row] = G g G' for rows first..last of panels (groups, panels of a group, 9, depth, width)."""
    groups, count, _, depth, width = panels.shape
    number, row, place = panels.dtype.type(0), width * panels.itemsize, U.strides[0]
    for line in range(first, last):
        panel, d = line // depth, line % depth
        for s in range(3):
            for r in range(3):
                rows[r] = panels.ctypes.data + ((panel * 9 + r * 3 + s) * depth + d) * row
            _apply_kernel(lanes, number, rows.ctypes.data, patch.ctypes.data + s * row, 3 * row, width)
        for i in range(IN):
            for s in range(3):
                rows[s] = patch.ctypes.data + (i * 3 + s) * row
            to = U.ctypes.data + i * IN * place + line * row
            _apply_kernel(lanes, number, rows.ctypes.data, to, place, width)


@kernel
def transform_output(first, last, begin, M, y, down, across, bias, relu, patch, rows, lanes):
    """y = A' M A + bias, and ReLU, for tiles first..last.   bias (K,).   patch (OUTSIDE + 1, K), rows (6,): scratch."""
    P, Q, K, size = y.shape[1], y.shape[2], y.shape[3], y.itemsize
    number, row, line = y.dtype.type(0), K * size, patch.strides[0]
    middle = IN * OUT                                                          # rows of patch: A' M, then A' M A
    for tile in range(first, last):
        n, p0, q0 = tile // (down * across), tile // across % down * OUT, tile % across * OUT
        for j in range(IN):
            for i in range(IN):
                rows[i] = M.ctypes.data + ((i * IN + j) * M.shape[1] + tile - begin) * row
            _apply_output(lanes, number, rows.ctypes.data, patch.ctypes.data + j * line, IN * line, K)
        for i in range(min(OUT, P - p0)):
            for j in range(IN):
                rows[j] = patch.ctypes.data + (i * IN + j) * line
            to = patch.ctypes.data + (middle + i * OUT) * line
            _apply_output(lanes, number, rows.ctypes.data, to, line, K)
            for j in range(min(OUT, Q - q0)):
                at = middle + i * OUT + j
                for k in range(K):
                    value = patch[at, index(k)] + bias[index(k)]
                    y[n, p0 + i, q0 + j, index(k)] = number if relu and value < number else value      # NaN stays NaN


def convolve(source, target, panels, zeros, addresses, steps, sums, U, V, M, patches, rows, bias_row, top, left, relu,
             bias=None):
    """The target (N, P, Q, K) from the source (N, H, W, C); from panels on: panel_space and space.

    panels: the kernel, packed as for a correlation.   top, left: padding of the source.   bias: (K,) or None.
    """
    N, P, Q, K = target.shape
    groups, count, _, depth, _ = panels.shape
    down, across = -(-P // OUT), -(-Q // OUT)
    tile = tile_for(K // groups, source.itemsize)
    function, lanes = correlate_tiles(tile, source.dtype.str).address, list(range(threads()))
    scratch = [(patches[lane], rows[lane], tile[2]) for lane in lanes]
    patches[:, OUTSIDE] = 0
    bias_row[:] = 0 if bias is None else bias

    def kernels(lane, first, last):
        transform_kernel(first, last, panels, U, *scratch[lane])

    run(split(groups * count * depth, RANGES_PER_THREAD * threads()), kernels, lanes)
    for begin, end in blocks(N * down * across, V.shape[1]):
        tiles = end - begin
        ranges = [(begin + first, begin + last) for first, last in split(tiles, RANGES_PER_THREAD * threads())]
        pieces = [(place, *piece) for place in range(PLACES) for piece in blocks(tiles, len(tile[0]) * CHUNK_TILES)]

        def inputs(lane, first, last, begin=begin):
            transform_input(first, last, begin, source, V, down, across, top, left, *scratch[lane])

        def products(lane, place, first, last, tiles=tiles):                   # a 1 x 1 convolution of a line of tiles
            correlate_chunk(first, last, (0, 1, 0, 1), (0, tiles, 0, 1), V[place, None, None], M[place, None, None],
                            U[place], zeros, addresses[lane], steps[lane], sums[lane], (1, 0, 1, 0), (1, 0, 1, 0), 1,
                            False, len(tile[0]), function)

        def outputs(lane, first, last, begin=begin):
            transform_output(first, last, begin, M, target, down, across, bias_row, relu, *scratch[lane])

        run(ranges, inputs, lanes)
        run(pieces, products, lanes)
        run(ranges, outputs, lanes)


def space(N, P, Q, groups, depth, columns, dtype):
    """Work space besides correlate.panel_space: U, V, M, each thread's patch and list of addresses, and the bias."""
    width = len(tile_for(columns, np.dtype(dtype).itemsize)[1]) * vector_bytes() // np.dtype(dtype).itemsize
    tiles = min(TILES, N * -(-P // OUT) * -(-Q // OUT))
    return [((PLACES, groups, -(-columns // width), 1, depth, width), dtype), ((PLACES, tiles, groups * depth), dtype),
            ((PLACES, tiles, groups * columns), dtype), ((threads(), OUTSIDE + 1, groups * max(depth, columns)), dtype),
            ((threads(), IN), np.int64), ((groups * columns,), dtype)]
