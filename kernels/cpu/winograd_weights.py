"""The weight gradient by Winograd's filtering: dw is x correlated with dy, a tile of dy in the place of the kernel.

    dw = A' [ sum over tiles of (G e G') * (B' d B) ] A         d: inputs of a tile, e: the same tile of dy

The tiles are those of the forward pass (winograd.py): 7 x 7 inputs and 3 x 3 of dy make 5 x 5 elements of dw, 6 x 6 and
4 x 4 make 3 x 3, from the same points and so with the same B. Summed over tiles, the element-wise product is for each
place the matrix product V' W of all pairs of channels, added up in S; only the sum is transformed.

    x  (images, H, W, C) --B'dB--> V (places, tiles, C/G)         a thread does this for some of the panels of K,
    dy (images, P, Q, K) --GeG'--> W (places, tiles, 64)          some tiles and a panel at a time
    S (places, panels, C/G, 64) += V[i]' W[i]     --A'SA--> dw

Where there are fewer panels than threads, the tiles are divided as well, and the threads' S are added in order.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.microkernel import outer_tiles
from minicnn.kernels.cpu.stored import real
from minicnn.kernels.cpu.threads import RANGES_PER_THREAD, run, split, threads
from minicnn.kernels.cpu.tile import call, tile_for
from minicnn.kernels.cpu.winograd import APART, CHANNELS, OUTPUTS, apply_kernel, apply_output, transform_input

TILES = 64                       # tiles at a time


@kernel
def _transform_gradient(first, last, dy, k0, W, down, across, patch, zeros, rows, shape):
    """G e G' for tiles first..last of all images and the channels of dy from k0 on that fill a panel.

    W (places, longer than tiles * width): the tiles of each place.   patch (places, width).   The rest as in
    winograd.transform_input.
    """
    (P, Q, K), size, (outputs, taps, lanes) = dy.shape[1:], dy.itemsize, shape
    edge, side, width = len(taps), len(outputs) + len(taps) - 1, patch.shape[1]
    element, number, line = dy.dtype.type(0), real(dy).type(0), patch.strides[0]
    for tile in range(first, last):
        n, p0, q0 = tile // (down * across), tile // across % down * edge, tile % across * edge
        for j in range(edge):                                                  # G e, column by column
            for i in range(edge):
                inside = p0 + i < P and q0 + j < Q
                rows[i] = dy.ctypes.data + (((n * P + p0 + i) * Q + q0 + j) * K + k0) * size if inside \
                    else zeros.ctypes.data
            apply_kernel(outputs, taps, lanes, element, rows.ctypes.data, patch.ctypes.data + j * line, edge * line,
                         width)
        for i in range(side):                                                  # (G e) G', line by line
            for j in range(edge):
                rows[j] = patch.ctypes.data + (i * edge + j) * line
            to = W.ctypes.data + i * side * W.strides[0] + (tile - first) * line
            apply_kernel(outputs, taps, lanes, number, rows.ctypes.data, to, W.strides[0], width)


@kernel
def _sum_tiles(first, last, panel0, panel1, x, dy, S, V, W, down, across, top, left, patch, dy_patch, zeros, rows,
               shape, tiles):
    """S[:, panel0..panel1] (places, panels, C/G, width) = sum of V' W over tiles first..last.

    shape: outputs, taps and lanes of the forward pass.   patch (places, CHANNELS), dy_patch (places, width), rows:
    scratch.   tiles: address of microkernel.outer_tiles.
    """
    outputs, taps, lanes = shape
    (places, panels, D, width), size = S.shape, S.itemsize
    count = panels * D // x.shape[3]                                           # panels of a group
    chunk = (V.shape[1] - APART) // (D + APART)
    for place in range(places):
        for panel in range(panel0, panel1):
            for d in range(D):
                for k in range(width):
                    S[place, panel, d, k] = 0
    for begin in range(first, last, chunk):
        end = min(begin + chunk, last)
        done = -1
        for panel in range(panel0, panel1):
            g = panel // count
            if g != done:
                transform_input(begin, end, x, g * D, (g + 1) * D, V, D + APART, down, across, top, left, patch, zeros,
                                rows, shape)
                done = g
            _transform_gradient(begin, end, dy, panel * width, W, down, across, dy_patch, zeros, rows,
                                (taps, outputs, lanes))
            for place in range(places):
                call(tiles, (V.ctypes.data + place * V.strides[0], 0, (D + APART) * size,
                             W.ctypes.data + place * W.strides[0], 0, 1, end - begin,
                             S.ctypes.data + place * S.strides[0] + panel * S.strides[1], D))


@kernel
def _add_weights(first, last, S, dw, patch, rows, shape, add):
    """dw (R, R, C/G, K) += A' S A, for rows first..last of panels * C/G; = without add.   S: the parts' sums."""
    parts, D, width, (taps, outputs, lanes) = S.shape[0], S.shape[3], S.shape[4], shape
    R, side, size = len(outputs), len(outputs) + len(taps) - 1, S.itemsize
    number, row = S.dtype.type(0), width * size
    for line in range(first, last):
        panel, d = line // D, line % D
        for part in range(1, parts):
            for place in range(side * side):
                for k in range(width):
                    S[0, place, panel, d, k] += S[part, place, panel, d, k]
        for j in range(side):
            for i in range(side):
                rows[i] = S.ctypes.data + (i * side + j) * S.strides[1] + line * row
            apply_output(outputs, taps, lanes, number, rows.ctypes.data, patch.ctypes.data + j * row, side * row,
                         width)
        for r in range(R):
            for j in range(side):
                rows[j] = patch.ctypes.data + (r * side + j) * row
            to = patch.ctypes.data + R * side * row
            apply_output(outputs, taps, lanes, number, rows.ctypes.data, to, row, width)
            for s in range(R):
                if not add:
                    for k in range(width):
                        dw[r, s, d, index(panel * width + k)] = 0
                for k in range(width):
                    dw[r, s, d, index(panel * width + k)] += patch[R * side + s, k]


def weights(x, dy, dw, S, V, W, patches, dy_patches, rows, zeros, *, top, left, add):
    """dw (R, R, C/G, K) += from x (N, H, W, C) and dy (N, P, Q, K); the arrays from S on are those of `space`.

    top, left: padding of x.   add: False writes dw, whatever it held.
    """
    (N, P, Q, K), (R, _, D, _), edge = dy.shape, dw.shape, OUTPUTS[len(dw)]
    down, across = -(-P // edge), -(-Q // edge)
    parts, _, panels, _, _ = S.shape
    tile = tile_for(K * D // x.shape[3], S.itemsize)
    shape, function = ((0,) * edge, (0,) * R, tile[2]), outer_tiles(tile, S.dtype.str).address
    zeros[:] = 0

    def sums(lane, part, first, last, panel0, panel1):
        _sum_tiles(first, last, panel0, panel1, x, dy, S[part], V[lane], W[lane], down, across, top, left,
                   patches[lane], dy_patches[lane], zeros, rows[lane], shape, function)

    def ends(lane, first, last):
        _add_weights(first, last, S, dw, dy_patches[lane], rows[lane], shape, add)

    everyone = list(range(threads()))
    run([(part, *tiles, *panels_of) for part, tiles in enumerate(split(N * down * across, parts))
         for panels_of in split(panels, threads())], sums, everyone)
    run(split(panels * D, RANGES_PER_THREAD * threads()), ends, everyone)


def space(edge, R, N, P, Q, groups, depth, columns, dtype):
    """Work space: S, and each thread's V, W, patches and list of addresses; zeros."""
    _, vectors, lanes = tile_for(columns, np.dtype(dtype).itemsize)
    width, places, workers = len(vectors) * len(lanes), (edge + R - 1) ** 2, threads()
    panels, tiles = groups * columns // width, N * -(-P // edge) * -(-Q // edge)
    parts, chunk = max(1, min(workers // panels, tiles)), min(TILES, tiles)
    return [((parts, places, panels, depth, width), dtype), ((workers, places, chunk * (depth + APART) + APART), dtype),
            ((workers, places, chunk * width + APART), dtype), ((workers, places, CHANNELS), dtype),
            ((workers, places, width), dtype), ((workers, edge + R - 1), np.int64), ((depth + width,), dtype)]
