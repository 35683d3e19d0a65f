"""Convolution with 3 x 3 or 5 x 5 kernels and stride 1 in a quarter of the products: Winograd's filtering.

    Y = A' [ (G g G') * (B' d B) ] A       d: inputs of a tile, g: the kernel, Y: outputs of a tile, *: by element

    kernel    tile of outputs    of inputs    products, instead of
    3 x 3          4 x 4           6 x 6          36       144          F(4 x 4, 3 x 3) of Lavin & Gray 2016,
    5 x 5          3 x 3           7 x 7          49       225          arXiv 1509.09308, and F(3 x 3, 5 x 5)

Outputs and kernel are treated as polynomials, which are multiplied by their values at a few points (`matrices`). 4 x 4
tiles cover AlexNet's 13 x 13 maps with some waste, 3 x 3 tiles its 27 x 27 maps with none. Summed over input channels,
the element-wise product is one matrix product for each element ("place") of a tile, and takes most of the time.

    x (images, H, W, C) --B'dB--> V (places, tiles, C)                    a thread does this for some tiles at a time,
    w (R, R, C/G, K)    --GgG'--> U (places, panels of w)                 so that V and M stay in the cache
    V[i] U[i] -> M (places, tiles, K) --A'MA, + bias, ReLU--> y

The transforms run over channels innermost, which are contiguous. The data gradient is the same with the kernel flipped
and transposed; the weight gradient is in winograd_weights.py. The price is rounding: terms several times
larger than the result cancel. With N(0, 1) inputs and the shapes of AlexNet's conv2 to conv5, the root mean square
error is 2e-6 to 4e-6 of the result's own (direct: 8e-7, dw 2e-7), the largest 8e-5 (direct: 1e-5). In float64
convolution stays direct. The transforms widen inputs that are stored in bf16, and round such outputs (stored.py).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numba import types
from numba.extending import intrinsic

from minicnn.kernels.cpu.compiling import index, kernel
from minicnn.kernels.cpu.correlate import L1_BYTES, panel_space
from minicnn.kernels.cpu.llvm_code import next_index
from minicnn.kernels.cpu.microkernel import combine_rows, correlate_tiles
from minicnn.kernels.cpu.stored import real, stored
from minicnn.kernels.cpu.threads import RANGES_PER_THREAD, blocks, run, split, threads
from minicnn.kernels.cpu.tile import call, tile_for, vector_bytes

OUTPUTS = {3: 4, 5: 3}           # side of the kernel -> side of a tile of outputs
POINTS = (0, 1, -1, 2, -2, Fraction(1, 2))        # as many as are needed; infinity is the last
TILES = 48                       # tiles at a time: whole tiles of sums (microkernel.py) of every height
APART = 16                       # elements between places: at a distance of some 2^n bytes they would share cache sets
CHANNELS = 64                    # channels at a time in a transform: its intermediate result stays in L1
LEAST_CHANNELS = 32              # with fewer channels or tiles the transforms cost more than the products they save
LEAST_TILES = 64


def outputs_of_a_tile(kernel_size, stride, pads, depth, columns, N, P, Q, dtype) -> int:
    """The side of a tile if this convolution runs by Winograd's algorithm, else 0. depth, columns: of one group."""
    (R, S), lanes = kernel_size, vector_bytes() // np.dtype(dtype).itemsize
    side = OUTPUTS.get(R, 0)
    suited = (side and R == S and tuple(stride) == (1, 1) and 0 <= min(pads) and max(pads) < R
              and min(depth, columns) >= LEAST_CHANNELS and depth % lanes == columns % lanes == 0
              and np.dtype(dtype) == np.float32
              and N * -(-P // side) * -(-Q // side) >= LEAST_TILES)
    return side if suited else 0


def matrices(outputs: int, taps: int) -> dict[str, list[list[Fraction]]]:
    """Cook and Toom's B', G and A', one line for each point p and the last for infinity.

    G and A: the values at p of polynomials with `taps` and with `outputs` coefficients, 1, p, p^2, ... B': the
    coefficients of the product of (x - q) over the other points q, which is 0 at all points but p; G is divided by its
    value there.
    """
    points = [Fraction(p) for p in POINTS[: outputs + taps - 2]]

    def product(others):
        coefficients = [Fraction(1)]
        for q in others:                                                       # times (x - q)
            coefficients = [low - q * high for low, high in zip([0, *coefficients], [*coefficients, 0], strict=True)]
        return coefficients

    def powers(p, count):
        return [p**j for j in range(count)]

    polynomials = [product(q for q in points if q != p) for p in points]
    values = [sum(c * p**j for j, c in enumerate(line)) for p, line in zip(points, polynomials, strict=True)]
    last = [Fraction(0)] * (max(outputs, taps) - 1) + [Fraction(1)]
    A = [powers(p, outputs) for p in points] + [last[-outputs:]]
    return {"input": [[*line, Fraction(0)] for line in polynomials] + [product(points)],
            "kernel": [[power / value for power in powers(p, taps)] for p, value in zip(points, values, strict=True)]
            + [last[-taps:]],
            "output": [list(column) for column in zip(*A, strict=True)]}


def _combination(name):
    """An intrinsic for target[i, :] = sum over j of M[i][j] * source[j, :], M the matrix of this name (combine_rows).

    Its arguments: outputs and taps, tuples whose lengths count; lanes, a scalar of the source's type, the address of a
    list with the address of each source row, the target's address, the distance of its rows, and the length of a row.
    """
    @intrinsic
    def combine(typingctx, outputs, taps, lanes, number, sources, target, step, count):
        def code(context, builder, signature, arguments):
            combine_rows(builder, matrices(outputs.count, taps.count)[name], number, lanes.count, *arguments[4:])
            return context.get_dummy_value()

        return types.void(outputs, taps, lanes, number, *[types.int64] * 4), code

    return combine


apply_input, apply_kernel, apply_output = map(_combination, ("input", "kernel", "output"))


@kernel
def transform_input(first, last, x, c0, c1, V, length, down, across, top, left, patch, zeros, rows, shape):
    """B' d B for tiles first..last of all images, channels c0..c1; down, across: tiles of an image.

    V (places, more than tiles * length): the tiles of each place, `length` elements apart.
    patch (places, CHANNELS), rows (inputs of a tile,): scratch; zeros (c1 - c0,) replace pixels outside the image.
    shape: outputs, taps and lanes, tuples whose lengths count.
    """
    (H, W, C), size, (outputs, taps, lanes) = x.shape[1:], x.itemsize, shape
    out, side = len(outputs), len(outputs) + len(taps) - 1
    element, number, line = x.dtype.type(0), real(x).type(0), patch.strides[0]
    for tile in range(first, last):
        n, h0, w0 = tile // (down * across), tile // across % down * out - top, tile % across * out - left
        for c in range(c0, c1, CHANNELS):
            count = min(CHANNELS, c1 - c)
            for j in range(side):                                              # B' d, column by column
                for i in range(side):
                    inside = h0 + i >= 0 and h0 + i < H and w0 + j >= 0 and w0 + j < W
                    rows[i] = x.ctypes.data + ((n * H + h0 + i) * W + w0 + j) * C * size + c * size if inside \
                        else zeros.ctypes.data
                apply_input(outputs, taps, lanes, element, rows.ctypes.data, patch.ctypes.data + j * line, side * line,
                            count)
            for i in range(side):                                              # (B' d) B, line by line
                for j in range(side):
                    rows[j] = patch.ctypes.data + (i * side + j) * line
                to = V.ctypes.data + i * side * V.strides[0] + ((tile - first) * length + c - c0) * V.itemsize
                apply_input(outputs, taps, lanes, number, rows.ctypes.data, to, V.strides[0], count)


@kernel
def transform_kernel(first, last, panels, U, patch, rows, shape):
    """U[place, row] = G g G' for rows first..last of panels (groups, panels of a group, taps, depth, width)."""
    depth, width, (outputs, taps, lanes) = panels.shape[3], panels.shape[4], shape
    R, side = len(taps), len(outputs) + len(taps) - 1
    number, row, place = panels.dtype.type(0), width * panels.itemsize, U.strides[0]
    for line in range(first, last):
        panel, d = line // depth, line % depth
        for s in range(R):
            for r in range(R):
                rows[r] = panels.ctypes.data + ((panel * R * R + r * R + s) * depth + d) * row
            apply_kernel(outputs, taps, lanes, number, rows.ctypes.data, patch.ctypes.data + s * row, R * row, width)
        for i in range(side):
            for s in range(R):
                rows[s] = patch.ctypes.data + (i * R + s) * row
            to = U.ctypes.data + i * side * place + line * row
            apply_kernel(outputs, taps, lanes, number, rows.ctypes.data, to, place, width)


@kernel
def transform_output(first, last, M, y, down, across, bias, relu, patch, rows, shape):
    """y = A' M A + bias, and ReLU, for tiles first..last.   bias (K,).   patch, rows, shape: as in transform_input."""
    (P, Q, K), size, (outputs, taps, lanes) = y.shape[1:], M.itemsize, shape
    out, side = len(outputs), len(outputs) + len(taps) - 1
    number, row, line = real(y).type(0), K * size, patch.strides[0]
    for tile in range(first, last):
        n, p0, q0 = tile // (down * across), tile // across % down * out, tile % across * out
        for k0 in range(0, K, CHANNELS):
            count = min(CHANNELS, K - k0)
            for j in range(side):                                              # A' M
                for i in range(side):
                    rows[i] = M.ctypes.data + (i * side + j) * M.strides[0] + (tile - first) * row + k0 * size
                apply_output(outputs, taps, lanes, number, rows.ctypes.data, patch.ctypes.data + j * line, side * line,
                              count)
            for i in range(min(out, P - p0)):                                  # (A' M) A, into the rows behind
                for j in range(side):
                    rows[j] = patch.ctypes.data + (i * side + j) * line
                to = out * side
                apply_output(outputs, taps, lanes, number, rows.ctypes.data, patch.ctypes.data + to * line, line,
                              count)
                for j in range(min(out, Q - q0)):
                    for k in range(count):
                        value = patch[to + j, k] + bias[index(k0 + k)]
                        value = number if relu and value < number else value           # NaN stays
                        y[n, p0 + i, q0 + j, index(k0 + k)] = stored(value, y)


@kernel
def _convolve_all(queue, tasks, source, target, U, V, M, down, across, top, left, bias, relu, patch, zeros, addresses,
                  rows, sums, shape, tile_rows, tiles):
    """Task after task (first tile, last), until the queue, the counter that all threads share, is past the last one.

    addresses (2, tiles), rows (inputs of a tile,), sums (tiles, width): scratch.   zeros: as long as C, K and a panel.
    tiles: address of microkernel.correlate_tiles, tile_rows: the rows of its tile.
    """
    places, groups, count, depth, width = U.shape
    size, C, K = U.itemsize, source.shape[3], target.shape[3]
    E = K // groups
    at, to = addresses
    pieces = -(-depth * width * size // L1_BYTES)                              # of a panel, that stay in L1
    part = -(-depth // pieces)
    task = next_index(queue.ctypes.data)
    while task < len(tasks):
        first, last = tasks[task]
        transform_input(first, last, source, 0, C, V, C, down, across, top, left, patch, zeros, rows, shape)
        for m in range(last - first + tile_rows):                              # the last tile may have empty rows
            row = min(m, last - first - 1)
            at[m], to[m] = V.ctypes.data + row * C * size, M.ctypes.data + row * K * size
        rows[0] = 0                                                            # the distance of the only tap
        step, start = rows.ctypes.data, zeros.ctypes.data
        for place in range(places):
            for g in range(groups):
                for panel in range(count):
                    b = U.ctypes.data + ((place * groups + g) * count + panel) * depth * width * size
                    for i in range(0, depth, part):
                        call(tiles, (at.ctypes.data, place * V.strides[0] + (g * depth + i) * size, step,
                                     b + i * width * size, step, 1, min(part, depth - i), start, sums.ctypes.data,
                                     i == 0, i + part >= depth, to.ctypes.data,
                                     place * M.strides[0] + (g * E + panel * width) * size, last - first,
                                     E - panel * width, 0))
        transform_output(first, last, M, target, down, across, bias, relu, patch, rows, shape)
        task = next_index(queue.ctypes.data)


def convolve(source, target, panels, addresses, sums, U, V, M, patches, rows, zeros, bias_row, top, left, relu,
             bias=None):
    """The target (N, P, Q, K) from the source (N, H, W, C); the arrays from panels on are those of `space`.

    panels: the kernel, packed as for a correlation.   top, left: padding of the source.   bias: (K,) or None.
    """
    N, P, Q, K = target.shape
    groups, count, taps, depth, _ = panels.shape
    taps, lanes = round(taps**0.5), list(range(threads()))
    outputs = OUTPUTS[taps]
    down, across = -(-P // outputs), -(-Q // outputs)
    tile = tile_for(K // groups, panels.itemsize)
    shape, function = ((0,) * outputs, (0,) * taps, tile[2]), correlate_tiles(tile, panels.dtype.str).address
    zeros[:] = 0
    bias_row[:] = 0 if bias is None else bias

    def kernels(lane, first, last):
        transform_kernel(first, last, panels, U, patches[lane], rows[lane], shape)

    def until_none_is_left(lane):
        _convolve_all(queue, tasks, source, target, U, V[lane], M[lane], down, across, top, left, bias_row, relu,
                      patches[lane], zeros, addresses[lane], rows[lane], sums[lane], shape, len(tile[0]), function)

    run(split(groups * count * depth, RANGES_PER_THREAD * threads()), kernels, lanes)
    tasks, queue = np.array(blocks(N * down * across, V.shape[2] // (groups * depth)), np.int64), np.zeros(1, np.int64)
    run([(lane,) for lane in lanes[: len(tasks)]], until_none_is_left)


def space(outputs, taps, N, P, Q, groups, depth, columns, dtype):
    """Work space: the packed kernel, each thread's addresses and sums, U, V, M, patches and rows; zeros, the bias."""
    panels, _, addresses, _, sums = panel_space(groups, columns, taps * taps, depth, dtype)
    places, tiles = (outputs + taps - 1) ** 2, N * -(-P // outputs) * -(-Q // outputs)
    tiles, (_, count, _, _, width) = min(TILES, -(-tiles // (2 * threads()))), panels[0]
    return [panels, addresses, sums, ((places, groups, count, depth, width), dtype),
            ((threads(), places, tiles * groups * depth + APART), dtype),
            ((threads(), places, tiles * groups * columns + APART), dtype),
            ((threads(), places, CHANNELS), dtype), ((threads(), outputs + taps - 1), np.int64),
            ((groups * max(depth, columns) + width,), dtype), ((groups * columns,), dtype)]
