"""Convolution as matrix products over tiles that stay in the cache.

The im2col matrix X (N*P*Q, R*S*C/G; see kernels/reference/conv.py) would be 25 times the input for a 5 x 5 kernel, so
it is never whole. Each thread has a tile of some hundred of its rows:

    forward            fill the tile from x, multiply by w straight into y, add bias and ReLU while y is hot
    backward, weights  fill the tile from x, multiply its transpose by the same rows of dy, add up in a sum of its own
    backward, data     multiply dy by w' into the tile, then gather: every pixel of dx adds up the taps that saw it

In channels-last order a kernel row of S*C numbers is contiguous in x, so filling is mostly copying. The last pass is a
gather over pixels of dx, not a scatter over taps, so that each pixel has one writer and one order of summation: bands
of dx are independent, and a band takes every output line that reaches it. A 1 x 1 kernel with stride 1 needs no tile: x
is X.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.gemm import ALIGN, aligned, bias_relu, carve, index, kernel, rows, view
from minicnn.kernels.cpu.threads import RANGES_PER_THREAD, blocks, parallel_for, run, split, threads

TILE_BYTES = 8 << 20             # of im2col rows; with 2 MB BLAS packs w so often that AlexNet's conv3 loses a fifth


def _tile_rows(columns: int, itemsize: int) -> int:
    """How many rows of `columns` numbers make a tile."""
    return max(16, TILE_BYTES // (columns * itemsize))


def _is_matrix(w, stride, pads) -> bool:
    """True where x itself is the im2col matrix."""
    return w.shape[:2] == (1, 1) and tuple(stride) == (1, 1) and not any(pads)


def _part(a, g, groups):
    """Columns of group g, as a view."""
    width = a.shape[-1] // groups
    return a[..., g * width : (g + 1) * width]


@kernel
def _fill(tile, x, m0, m1, P, Q, R, S, u, v, top, left, c0, D):
    """tile[m - m0] = the window of output pixel m: R*S taps of D channels of x from channel c0 on."""
    H, W, C = x.shape[1], x.shape[2], x.shape[3]
    cells, pixels = tile.reshape(-1), x.reshape(-1)
    for m in range(m0, m1):
        n, p, q = m // (P * Q), m // Q % P, m % Q
        w0 = q * v - left
        one_run = D == C and w0 >= 0 and w0 + S <= W                           # then a kernel row is one run of x
        for r in range(R):
            h = p * u + r - top
            target, source = ((m - m0) * R + r) * S * D, ((n * H + h) * W + w0) * C + c0
            if h < 0 or h >= H:
                for j in range(S * D):
                    cells[index(target + j)] = 0
            elif one_run:
                for j in range(S * D):
                    cells[index(target + j)] = pixels[index(source + j)]
            else:
                for s in range(S):
                    to, here = target + s * D, source + s * C
                    if w0 + s < 0 or w0 + s >= W:
                        for d in range(D):
                            cells[index(to + d)] = 0
                    else:
                        for d in range(D):
                            cells[index(to + d)] = pixels[index(here + d)]


@kernel
def _gather(dx, tile, n0, n1, h0, h1, p0, p1, Q, R, S, u, v, top, left, c0, D):
    """dx[n, h, w, c0:c0+D] = sum of the taps in the tile that saw this pixel, for images n0..n1 and lines h0..h1.

    The tile holds output lines p0..p1 of these images: row ((n-n0)*(p1-p0) + p-p0) * Q + q, column (r*S + s)*D + d.
    """
    H, W, C = dx.shape[1], dx.shape[2], dx.shape[3]
    cells, pixels = tile.reshape(-1), dx.reshape(-1)
    for n in range(n0, n1):
        for h in range(h0, h1):
            line = (n * H + h) * W * C + c0
            for w in range(W):
                for d in range(D):
                    pixels[index(line + w * C + d)] = 0
            for r in range(R):
                p = (h + top - r) // u
                if (h + top - r) % u != 0 or p < p0 or p >= p1:
                    continue
                for q in range(Q):
                    row = (((n - n0) * (p1 - p0) + p - p0) * Q + q) * R + r
                    for s in range(S):
                        w = q * v + s - left
                        if w >= 0 and w < W:
                            to, here = line + w * C, (row * S + s) * D
                            for d in range(D):
                                pixels[index(to + d)] += cells[index(here + d)]


def conv_forward(x, w, y, *, stride, pads, groups=1, epilogue=(None, False), work=None):
    """y (N, P, Q, K) from x (N, H, W, C) and w (R, S, C/G, K); epilogue = (bias (K,) or None, apply ReLU)."""
    (_, P, Q, K), (R, S, D, _), (u, v), (top, left, _, _) = y.shape, w.shape, stride, pads
    columns, (bias, relu) = R * S * D, epilogue
    Y, W = rows(y, K), rows(w, K)                                              # (N*P*Q, K), (R*S*C/G, K)
    X = rows(x, x.shape[3]) if _is_matrix(w, stride, pads) else None           # (N*P*Q, C)
    if bias is None and relu:
        bias = np.zeros(K, y.dtype)

    def tile_forward(memory, m0, m1):
        for g in range(groups):
            if X is None:
                tile = view(memory, 0, (m1 - m0, columns), x.dtype)
                _fill(tile, x, m0, m1, P, Q, R, S, u, v, top, left, g * D, D)
            else:
                tile = _part(X[m0:m1], g, groups)                              # (rows, C/G)
            np.matmul(tile, _part(W, g, groups), out=_part(Y[m0:m1], g, groups))
        if bias is not None:
            bias_relu(m0, m1, 0, K, Y, bias, relu)

    size = min(_tile_rows(columns, x.itemsize), -(-len(Y) // threads()))
    lanes = carve(work, aligned(size * columns * x.itemsize), threads())
    run(blocks(len(Y), size), tile_forward, lanes)


def conv_backward_data(dy, w, dx, *, stride, pads, groups=1, work=None):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, K) and w (R, S, C/G, K)."""
    (N, P, Q, K), (R, S, D, _), (u, v), (top, left, _, _) = dy.shape, w.shape, stride, pads
    columns, H = R * S * D, dx.shape[1]
    dY, W = rows(dy, K), rows(w, K)                                            # (N*P*Q, K), (R*S*C/G, K)
    if _is_matrix(w, stride, pads):
        dX = rows(dx, dx.shape[3])                                             # (N*P*Q, C)

        def rows_backward(m0, m1):
            for g in range(groups):
                np.matmul(_part(dY[m0:m1], g, groups), _part(W, g, groups).T, out=_part(dX[m0:m1], g, groups))

        return run(split(len(dY), threads() * RANGES_PER_THREAD), rows_backward)

    def band_backward(memory, n0, n1, h0, h1, p0, p1):
        count = (n1 - n0) * (p1 - p0) * Q
        tile = view(memory, 0, (count, columns), dy.dtype)
        m0 = (n0 * P + p0) * Q                                                 # p0 = 0, p1 = P if several images
        for g in range(groups):
            np.matmul(_part(dY[m0 : m0 + count], g, groups), _part(W, g, groups).T, out=tile)
            _gather(dx, tile, n0, n1, h0, h1, p0, p1, Q, R, S, u, v, top, left, g * D, D)

    bands, lines = _bands(N, H, P, Q, R, u, top, _tile_rows(columns, dy.itemsize))
    run(bands, band_backward, carve(work, aligned(lines * Q * columns * dy.itemsize), threads()))


def _bands(N, H, P, Q, R, u, top, tile_rows):
    """dx cut into (n0, n1, h0, h1, p0, p1): lines h0..h1 of images n0..n1, and the output lines p0..p1 that reach them.

    A band is some whole images or some lines of one image, so that its output lines fit a tile if at all possible. Also
    returned: the largest number of output lines in a band.
    """
    images = min(tile_rows // (P * Q), N // threads())
    if images >= 1:
        bands = [(n0, n1, 0, H, 0, P) for n0, n1 in blocks(N, images)]
    else:
        height = max(u, min((tile_rows // Q - R // u) * u, -(-H // threads())))
        bands = []
        for n in range(N):
            for h0, h1 in blocks(H, height):
                p0 = max(0, -(-(h0 + top - R + 1) // u))
                bands.append((n, n + 1, h0, h1, p0, max(p0, min(P, (h1 - 1 + top) // u + 1))))
    return bands, max((n1 - n0) * (p1 - p0) for n0, n1, _, _, p0, p1 in bands)


def conv_backward_weights(x, dy, dw, *, stride, pads, groups=1, work=None):
    """dw (R, S, C/G, K) += from x (N, H, W, C) and dy (N, P, Q, K)."""
    (_, P, Q, K), (R, S, D, _), (u, v), (top, left, _, _) = dy.shape, dw.shape, stride, pads
    columns, E = R * S * D, K // groups                                        # E = K/G
    dY, dW = rows(dy, K), rows(dw, K)                                          # (N*P*Q, K), (R*S*C/G, K)
    X = rows(x, x.shape[3]) if _is_matrix(dw, stride, pads) else None          # (N*P*Q, C)
    size = min(_tile_rows(columns, x.itemsize), -(-len(dY) // threads()))
    tile_bytes, sum_bytes = aligned(size * columns * x.itemsize), aligned(columns * K * x.itemsize)
    lanes = carve(work, tile_bytes + sum_bytes + aligned(columns * E * x.itemsize), threads())
    totals = [view(lane, tile_bytes, (columns, K), x.dtype) for lane in lanes]

    def part_backward(memory, total, m_first, m_last):
        product = view(memory, tile_bytes + sum_bytes, (columns, E), x.dtype)
        for m0, m1 in blocks(m_last - m_first, size):
            m0, m1 = m_first + m0, m_first + m1
            for g in range(groups):
                if X is None:
                    tile = view(memory, 0, (m1 - m0, columns), x.dtype)
                    _fill(tile, x, m0, m1, P, Q, R, S, u, v, top, left, g * D, D)
                else:
                    tile = _part(X[m0:m1], g, groups)                          # (rows, C/G)
                if m0 == m_first:
                    np.matmul(tile.T, _part(dY[m0:m1], g, groups), out=_part(total, g, groups))
                else:
                    np.matmul(tile.T, _part(dY[m0:m1], g, groups), out=product)
                    _add_rows(0, columns, _part(total, g, groups), product)

    parts = split(len(dY), len(lanes))
    run([(lane, total, *part) for lane, total, part in zip(lanes, totals, parts, strict=False)], part_backward)
    for total in totals[: len(parts)]:
        parallel_for(columns, K, _add_rows, dW, total)


@kernel
def _add_rows(first, last, total, product):
    """total += product, rows first..last."""
    for i in range(first, last):
        for j in range(product.shape[1]):
            total[i, j] += product[i, j]


def conv_work(x_shape, w_shape, dtype, *, stride, pads, groups=1):
    """Bytes of work space: for each thread a tile, its sum of dw, and one group's product on the way into that sum."""
    (N, H, W, _), (R, S, D, K), (u, v) = x_shape, w_shape, stride              # D = C/G
    top, left, bottom, right = pads
    P, Q = (top + H + bottom - R) // u + 1, (left + W + right - S) // v + 1
    itemsize, columns = np.dtype(dtype).itemsize, R * S * D
    _, lines = _bands(N, H, P, Q, R, u, top, _tile_rows(columns, itemsize))
    tile = aligned(max(min(_tile_rows(columns, itemsize), -(-N * P * Q // threads())), lines * Q) * columns * itemsize)
    sums = aligned(columns * K * itemsize) + aligned(columns * (K // groups) * itemsize)
    return threads() * (tile + sums) + ALIGN
