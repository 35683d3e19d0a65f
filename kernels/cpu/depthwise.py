"""Depthwise convolution, groups == channels: every channel is correlated with a kernel of its own.

    y[n,p,q,c] = b[c] + sum over r, s of x[n, p*u + r - top, q*v + s - left, c] * w[r,s,0,c]

Little is computed with what is read, so memory is the limit as long as no instruction is wasted. A thread takes some
lines of an image, and of these 16 channels at a time:

    x, some lines        packed: 16 channels, with          y, dx: the windows of all outputs (window.py),
    (H, W, C)            the padding as zeros               written once
    . .[..].         ->  0 0 0 0 0                          dw: the sums over these windows, added to those
    . .[..].             0 . . . 0                    ->    of a fixed range of lines; the ranges' sums are added
    . .[..].             0 . . . 0                          in a fixed order

The packed lines stay in the L1 cache, whatever the number of channels, and no window is at a border.

The data gradient is the same with the kernel flipped. With a stride, the pixels of dx fall into stride x stride phases,
and each tap belongs to one of them: a phase is a correlation of dy with its taps.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.memory import arrays_in, flat, rows
from minicnn.kernels.cpu.threads import RANGES_PER_THREAD, parallel_for, run, split, threads
from minicnn.kernels.cpu.tile import call
from minicnn.kernels.cpu.vectors import LANES, fetch, load, part, splat, store
from minicnn.kernels.cpu.window import correlate_windows, sum_windows

PACKED_BYTES = 12 << 10          # of the lines that are packed at a time: a quarter of an L1 cache
NEAR = 40000                     # elements: a unit up to this size is prefetched while the one before it is computed
LEAST_RANGE = 65536              # elements that are worth a thread


def suits(D: int, K: int, groups: int) -> bool:
    """Whether this convolution is depthwise. D, K: input channels of a group, output channels of all."""
    return groups > 1 and D == 1 and K == groups


class _Axis(NamedTuple):
    """One phase along one axis: target first + i*apart is the sum over taps of the sources i*step + shift, + 1, ..."""

    first: int
    count: int
    taps: range
    shift: int


def _forward_axes(stride, pad, taps, outputs):
    return [_Axis(0, outputs, range(taps), -pad)]


def _backward_axes(stride, pad, taps, pixels):
    """Pixel a + i*stride is reached by tap a + pad - k*stride from output i + k. Outputs ascend, so taps descend."""
    own = [range((a + pad) % stride, taps, stride)[::-1] for a in range(min(stride, pixels))]
    return [_Axis(a, len(range(a, pixels, stride)), taps, (a + pad - taps[0]) // stride if taps else -(pad // stride))
            for a, taps in enumerate(own)]


class _Plan(NamedTuple):
    """How the targets are computed from packed lines of the source."""

    order: np.ndarray            # what each cell of the packed kernel is: a tap, or -1, the start, before each phase
    phases: np.ndarray           # cell of the kernel, first packed cell; first and count of lines, of columns
    windows: tuple               # of each phase, the size of its kernel
    step: tuple[int, int]        # between the sources of two windows
    apart: tuple[int, int]       # between two targets
    corner: tuple[int, int]      # source of the first packed cell of an image
    lines: int                   # of windows at a time: a unit
    units: int                   # of an image
    packed: tuple[int, int]      # height and width of a unit, in cells


@lru_cache(maxsize=1024)
def _plan(back, size, window, stride, pads, dtype):
    """size: lines and columns of the target.   window: of the kernel.   dtype: of packed lines."""
    axes = [(_backward_axes if back else _forward_axes)(*axis)
            for axis in zip(stride, pads[:2], window, size, strict=True)]
    step, apart = ((1, 1), stride) if back else (stride, (1, 1))
    corner = [min(axis.shift for axis in phases) for phases in axes]
    reach = [max(axis.shift - low + max(1, len(axis.taps)) for axis in phases)
             for phases, low in zip(axes, corner, strict=True)]
    most = [max(axis.count for axis in phases) for phases in axes]
    width = (most[1] - 1) * step[1] + reach[1]
    fit = max(2 * reach[0] - 1, PACKED_BYTES // (width * LANES * np.dtype(dtype).itemsize))
    lines = min(most[0], (fit - reach[0]) // step[0] + 1)
    order, phases, windows = [], [], []
    for down in axes[0]:
        for across in axes[1]:
            R, S = (len(down.taps), len(across.taps)) if down.taps and across.taps else (0, 0)
            begin = (down.shift - corner[0]) * width + across.shift - corner[1]
            phases.append((len(order), begin, *down[:2], *across[:2]))
            windows.append((R, S))
            order += [-1] + [r * window[1] + s for r in down.taps for s in across.taps]
    return _Plan(np.array(order, np.int64), np.array(phases, np.int64), tuple(windows), step, apart, tuple(corner),
                 lines, -(-most[0] // lines), ((lines - 1) * step[0] + reach[0], width))


@part
def _ahead(lines, step, apart, shape, size, C):
    """How far ahead source and target are prefetched, in elements: a unit, or, where that is far, 16 channels."""
    source, target = lines * step[0] * shape[2] * C, lines * apart[0] * size[1] * C
    return (source, target) if max(source, target) <= NEAR else (LANES, LANES)


@part
def _clear(cells, first, last):
    for j in range(first, last):
        store(cells, j * LANES, LANES, splat(cells.dtype.type(0)))


@part
def _copy(cells, to, source, i, C, first, last, count, ahead):
    """cells[to + j] = channels of pixel j, for first <= j < last."""
    for j in range(first, last):
        fetch(source, i + j * C + ahead)
        store(cells, (to + j) * LANES, LANES, load(source, i + j * C, count))


@part
def _pack(cells, packed, source, shape, n, corner, c, ahead):
    """cells (height, width) = 16 channels, from c on, of the pixels of image n from the corner on; 0 outside of it."""
    (height, width), (_, H, W, C), (top, left) = packed, shape, corner
    first, last = max(0, left), max(0, left, min(W, left + width))
    for j in range(height):
        h, to = top + j, j * width - left
        if h < 0 or h >= H:
            _clear(cells, j * width, (j + 1) * width)
        else:
            i = (n * H + h) * W * C + c
            _clear(cells, j * width, to + first)
            if c + LANES <= C:
                _copy(cells, to, source, i, C, first, last, LANES, ahead)
            else:
                _copy(cells, to, source, i, C, first, last, C - c, ahead)
            _clear(cells, to + last, (j + 1) * width)


@kernel
def _pack_kernels(first, last, w, start, order, kernels):
    """kernels (vectors, cells, 16) from w (R*S, C) and start (C), 0 beyond C; vectors first..last."""
    C = start.size
    for vector in range(first, last):
        for t in range(order.size):
            for lane in range(LANES):
                c = vector * LANES + lane
                kernels[vector, t, lane] = 0 if c >= C else start[c] if order[t] < 0 else w[order[t], c]


@kernel
def _correlate_units(first, last, source, shape, target, size, kernels, cells, phases, step, apart, corner, lines,
                     units, packed, relu):
    """Units first..last of the target (N, *size, C) from the source, of this shape (N, H, W, C)."""
    C, element, cell = shape[3], target.itemsize, LANES * cells.itemsize
    line = packed[1] * cell
    ahead, there = _ahead(lines, step, apart, shape, size, C)
    for unit in range(first, last):
        n, i = unit // units, unit % units * lines
        for c in range(0, C, LANES):
            _pack(cells, packed, source, shape, n, (corner[0] + i * step[0], corner[1]), c, ahead)
            for function, weights, begin, top, count, left, outputs in phases:
                to = ((n * size[0] + top + i * apart[0]) * size[1] + left) * C + c
                call(function, (cells.ctypes.data + begin * cell, line, step[0] * line, step[1] * cell,
                                kernels.ctypes.data + (c // LANES * kernels.shape[1] + weights) * cell,
                                target.ctypes.data + to * element, apart[0] * size[1] * C * element,
                                apart[1] * C * element, there * element, min(lines, count - i), outputs, C - c, relu))


def _correlate(back, source, w, start, target, stride, pads, relu, work):
    (N, *size, C), plan = target.shape, _plan_of(back, target.shape, w.shape, stride, pads, w.dtype)
    kernels, cells = arrays_in(work, _correlation_space(plan, C, w.dtype))
    parallel_for(len(kernels), kernels[0].size, _pack_kernels, rows(w, C), start, plan.order, kernels)
    arguments = (flat(source), source.shape, flat(target), tuple(size), kernels)
    functions = [correlate_windows(R, S, target.dtype.str).address for R, S in plan.windows]
    phases = np.column_stack([np.array(functions, np.int64), plan.phases])

    def units(lane, first, last):
        _correlate_units(first, last, *arguments, cells[lane], phases, *plan[3:], relu)

    run(_ranges(N * plan.units, target.size), units, list(range(threads())))


def _plan_of(back, target_shape, w_shape, stride, pads, dtype):
    return _plan(back, tuple(target_shape[1:3]), tuple(w_shape[:2]), tuple(stride), tuple(pads), np.dtype(dtype).str)


def _ranges(units, elements):
    """The units, in ranges for the threads."""
    return split(units, min(threads() * RANGES_PER_THREAD, elements // LEAST_RANGE))


def forward(x, w, y, *, stride, pads, epilogue, work):
    """y (N, P, Q, C) from x (N, H, W, C) and w (R, S, 1, C); epilogue = (bias (C,) or None, apply ReLU)."""
    bias, relu = epilogue
    _correlate(False, x, w, np.zeros(x.shape[3], w.dtype) if bias is None else bias, y, stride, pads, relu, work)


def backward_data(dy, w, dx, *, stride, pads, work):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, C) and w (R, S, 1, C)."""
    _correlate(True, dy, w, np.zeros(dy.shape[3], w.dtype), dx, stride, pads, False, work)


@kernel
def _sum_units(first, last, x, shape, dy, size, total, cells, function, step, corner, lines, units, packed):
    """total (R*S, C) = dw of the units first..last of dy (N, *size, C)."""
    C, element, cell = shape[3], dy.itemsize, LANES * cells.itemsize
    line = packed[1] * cell
    ahead, there = _ahead(lines, step, (1, 1), shape, size, C)
    for row in range(len(total)):
        for c in range(C):
            total[row, c] = 0
    for unit in range(first, last):
        n, i = unit // units, unit % units * lines
        for c in range(0, C, LANES):
            _pack(cells, packed, x, shape, n, (corner[0] + i * step[0], corner[1]), c, ahead)
            call(function, (cells.ctypes.data, line, step[0] * line, step[1] * cell,
                            dy.ctypes.data + ((n * size[0] + i) * size[1] * C + c) * element, size[1] * C * element,
                            C * element, total.ctypes.data + c * total.itemsize, C * total.itemsize,
                            there * element, min(lines, size[0] - i), size[1], C - c))


@kernel
def _add_totals(first, last, dw, totals, add):
    """dw += or = the sum of the totals (parts, R*S, C), rows first..last."""
    for row in range(first, last):
        for i in range(len(totals)):
            for c in range(dw.shape[1]):
                dw[row, c] = totals[i, row, c] + (dw[row, c] if add or i > 0 else 0)


def backward_weights(x, dy, dw, *, stride, pads, add, work):
    """dw (R, S, 1, C) += from x (N, H, W, C) and dy (N, P, Q, C); without `add`, dw =, whatever it held."""
    (N, *size, C), plan = dy.shape, _plan_of(False, dy.shape, dw.shape, stride, pads, dw.dtype)
    totals, cells = arrays_in(work, _sums_space(plan, dy.shape, dw.shape, dw.dtype))
    arguments = (flat(x), x.shape, flat(dy), tuple(size))
    function = sum_windows(*dw.shape[:2], dy.dtype.str).address

    def units(lane, first, last, total):
        _sum_units(first, last, *arguments, total, cells[lane], function, plan.step, *plan[5:])

    ranges = _ranges(N * plan.units, dy.size)
    run([(*units_of, total) for units_of, total in zip(ranges, totals, strict=True)], units, list(range(threads())))
    parallel_for(totals.shape[1], C * len(totals), _add_totals, rows(dw, C), totals, add)


def _correlation_space(plan, C, dtype):
    """The kernel in cells, and each thread's packed lines."""
    return [((-(-C // LANES), len(plan.order), LANES), dtype), ((threads(), math.prod(plan.packed) * LANES), dtype)]


def _sums_space(plan, y_shape, w_shape, dtype):
    """A dw for each range of units, and each thread's packed lines."""
    (R, S, _, C), parts = w_shape, len(_ranges(y_shape[0] * plan.units, math.prod(y_shape)))
    return [((parts, R * S, C), dtype), ((threads(), math.prod(plan.packed) * LANES), dtype)]


def spaces(x_shape, y_shape, w_shape, stride, pads, dtype):
    """The arrays of work space of each of the three passes."""
    plans = [_plan_of(back, shape, w_shape, stride, pads, dtype) for back, shape in ((False, y_shape), (True, x_shape))]
    return [*(_correlation_space(plan, w_shape[3], dtype) for plan in plans),
            _sums_space(plans[0], y_shape, w_shape, dtype)]
