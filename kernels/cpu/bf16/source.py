"""The copies of x (or dy) in bf16 that blocks of a convolution read: some lines at a time, in a thread's L2 cache.

Along each axis, output i reads the source at i*step + shift + tap, as in kernels/cpu/correlate.py. A copy has one of
two layouts; in both, the pixel of each output lies a constant distance after that of the output before it.

    shared     many channels: the source with its padding. Lines share it with the next line, and images with the
               next image, so outputs cross lines: output m = line*LW + j reads pixel m + (where its tap lies).

                   0 . . . . . 0 . . . . . 0 . . . .        7 outputs for 6 that exist, if LW = 7: those between two
                     ^ line 0    ^ line 1    ^ line 2       lines and between two images are computed and dropped

               With a step, each phase (source pixels a, a + step, ...) is a plane of its own. The channels of a group
               lie side by side, so that neighbouring taps of a line are one run of the reduction.

    windows    few channels: the window of each output, R*S*C elements and zeros up to whole steps (conv1: 363)

Each step of a block (block.py) is an offset into this copy, and the rows of w that belong to its 32 elements.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from minicnn.kernels.cpu.bf16.block import SIDE, STEP
from minicnn.kernels.cpu.bf16.rounding import copy_run, take_run, zero_run
from minicnn.kernels.cpu.compiling import kernel

FEW = 16                         # channels of a group: with fewer, windows


class Axis(NamedTuple):
    """One axis of a correlation: output i reads i*step + shift + tap; it is target pixel i*apart + first."""

    count: int
    step: int
    shift: int
    taps: int
    size: int
    apart: int = 1
    first: int = 0

    def phase(self, tap: int) -> tuple[int, int]:
        """The phase that a tap reads, and its pixel there for output 0."""
        return tap % self.step, tap // self.step

    @property
    def phases(self) -> int:
        return min(self.step, self.taps)

    def positions(self) -> int:
        """Pixels of a line of each phase: for its data and all outputs, and zeros before the data of the next line."""
        need = self.count
        for a in range(self.phases):
            reach = self.count + (self.taps - 1 - a) // self.step               # behind the last pixel that is read
            zeros = max(0, -((self.shift + a) // self.step))
            last = (self.size - 1 - self.shift - a) // self.step + 1
            need = max(need, min(last, reach), reach - zeros)
        return need


class Source(NamedTuple):
    """A layout. Lines of outputs are numbered through all images: n*LH + i."""

    windows: bool
    N: int
    LH: int                      # lines of an image, and pixels of a line
    LW: int
    halo: int                    # lines that are read after the last line of outputs
    planes: int                  # groups included: plane (phase, group)
    groups: int
    depth: int                   # elements of a pixel, padded
    taps: tuple[tuple[int, int], ...]                  # of w -> (phase, pixel); windows: one for all
    down: Axis
    across: Axis

    @property
    def lines(self) -> int:
        return self.N * self.LH

    @property
    def reach(self) -> int:
        """Pixels that are read behind the last one of a range of outputs."""
        return max(pixel for _, pixel in self.taps)

    def length(self, lines: int) -> int:
        """Pixels of each plane of a copy of so many lines of outputs: whole blocks of outputs, and what they read."""
        return -(-lines * self.LW // SIDE) * SIDE + self.halo * self.LW + SIDE


@lru_cache(maxsize=1024)
def lines_within(source: Source, size: int) -> int:
    """How many lines of outputs fit that many bytes, so that few outputs of their last block are none; at least one."""
    most = max(1, min(size // (source.planes * source.LW * source.depth * 2), source.lines))

    def wasted(lines: int) -> float:
        return -(-lines * source.LW // SIDE) * SIDE / (lines * source.LW)

    return min(range(max(1, most * 2 // 3), most + 1), key=wasted)


@lru_cache(maxsize=1024)
def source_of(N: int, C: int, groups: int, down: Axis, across: Axis, granule: int) -> Source:
    """The layout for N images of C channels. granule: see block.Block."""
    D = C // groups
    if D < FEW:
        depth = _up(down.taps * across.taps * D, granule)
        return Source(True, N, down.count, across.count, 0, groups, groups, depth, ((0, 0),), down, across)
    LH, LW = down.positions(), across.positions()
    taps = []
    for r in range(down.taps):
        for s in range(across.taps):
            (a, line), (b, pixel) = down.phase(r), across.phase(s)
            taps.append((a * across.phases + b, line * LW + pixel))
    halo = (down.taps - 1) // down.step + 1
    return Source(False, N, LH, LW, halo, down.phases * across.phases * groups, groups, _up(D, granule), tuple(taps),
                  down, across)


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


@lru_cache(maxsize=1024)
def steps_of(source: Source, length: int, D: int) -> tuple[np.ndarray, np.ndarray]:
    """The reduction in the order of a copy whose planes have `length` pixels.

    Steps (count, 2): bytes from the pixel of an output in group 0, and pairs. Rows (count, 32, 2): for each element the
    tap and the channel of w, or -1. Lines of taps follow each other; of a line, all taps of 32 channels, as they read
    nearly the same memory.
    """
    runs = []                                          # ((phase, pixel), (tap, channel) of each element)
    if source.windows:
        elements = [divmod(i, D) for i in range(source.down.taps * source.across.taps * D)]
        runs.append(((0, 0), elements + [(-1, -1)] * (source.depth - len(elements))))
    elif source.depth % STEP == 0:
        order = sorted(range(len(source.taps)), key=lambda t: (source.taps[t][0], source.taps[t][1] // source.LW))
        return _steps([(source, length, source.taps[t], d, [(t, d + i) if d + i < D else (-1, -1) for i in range(STEP)])
                       for t, d in _line_by_line(source, order)])
    else:
        end = None
        for t in sorted(range(len(source.taps)), key=lambda t: source.taps[t]):
            phase, pixel = source.taps[t]
            if (phase, pixel) != end:
                runs.append(((phase, pixel), []))
            runs[-1][1].extend([(t, d) for d in range(D)] + [(-1, -1)] * (source.depth - D))
            end = phase, pixel + 1
    return _steps([(source, length, at, i, elements[i:i + STEP])
                   for at, elements in runs for i in range(0, len(elements), STEP)])


def _line_by_line(source: Source, order: list[int]):
    """(tap, first channel) in the order of the steps."""
    lines = {}
    for t in order:
        lines.setdefault((source.taps[t][0], source.taps[t][1] // source.LW), []).append(t)
    return [(t, d) for taps in lines.values() for d in range(0, source.depth, STEP) for t in taps]


def _steps(steps: list) -> tuple[np.ndarray, np.ndarray]:
    if not steps:
        return np.zeros((0, 2), np.int64), np.zeros((0, STEP, 2), np.int64)
    table = [(((phase * source.groups * length + pixel) * source.depth + i) * 2, len(elements) // 2)
             for source, length, (phase, pixel), i, elements in steps]
    rows = [elements + [(-1, -1)] * (STEP - len(elements)) for *_, elements in steps]
    return np.array(table, np.int64), np.array(rows, np.int64)


def is_read_in_place(source: Source, D: int) -> bool:
    """Whether blocks can read bf16 where it lies, from any places: 1 x 1 kernels, whole pixels, no padding."""
    return not source.windows and source.depth == D and all(
        axis.taps == 1 and axis.shift >= 0 and (axis.count - 1) * axis.step + axis.shift < axis.size
        for axis in (source.down, source.across))


def geometry(source: Source) -> tuple[int, ...]:
    """What the kernels below need, as integers."""
    down, across = source.down, source.across
    return (source.N, source.LH, source.LW, source.groups, source.depth, down.step, down.shift, down.phases, down.taps,
            across.step, across.shift, across.phases, across.taps, across.count)


@kernel
def copy_shared(first, last, x, copy, length, shape):
    """Lines first..last of x, in bf16 and padded, to the planes of copy, `length` pixels each; zeros after them."""
    N, LH, LW, groups, depth, u, top, down, _, v, left, across, _, _ = shape
    _, H, W, C = x.shape
    D = C // groups
    for phase in range(down * across):
        a, b = phase // across, phase % across
        w0 = min(LW, max(0, (-left - b + v - 1) // v))
        w1 = max(w0, min(LW, (W - 1 - left - b) // v + 1))
        whole = v == 1 and groups == 1 and depth == D
        for line in range(first, last):
            n, h = line // LH, line % LH * u + a + top
            for g in range(groups):
                to = copy.ctypes.data + ((phase * groups + g) * length + (line - first) * LW) * depth * 2
                if n >= N or h < 0 or h >= H:
                    zero_run(to, LW * depth)
                    continue
                zero_run(to, w0 * depth)
                zero_run(to + w1 * depth * 2, (LW - w1) * depth)
                source = x.ctypes.data + (((n * H + h) * W + w0 * v + left + b) * C + g * D) * x.itemsize
                if whole:
                    take_run(x, source, to + w0 * depth * 2, (w1 - w0) * D)
                    continue
                for w in range(w1 - w0):
                    here = to + (w0 + w) * depth * 2
                    take_run(x, source + w * v * C * x.itemsize, here, D)
                    if D < depth:
                        zero_run(here + D * 2, depth - D)
        for g in range(groups):
            done = (last - first) * LW
            zero_run(copy.ctypes.data + ((phase * groups + g) * length + done) * depth * 2, (length - done) * depth)


@kernel
def copy_windows(first, last, x, copy, length, shape, line):
    """The windows of the outputs of lines first..last. line: memory for a padded line of x in bf16."""
    N, LH, LW, groups, depth, u, top, _, R, v, left, _, S, Q = shape
    _, H, W, C = x.shape
    D, width = C // groups, (Q - 1) * v + S
    w0 = min(width, max(0, -left))
    w1 = max(w0, min(width, W - left))
    run = S * D if groups == 1 else D
    zero_run(line.ctypes.data, w0 * C)
    zero_run(line.ctypes.data + w1 * C * 2, line.size - w1 * C)
    for g in range(groups):
        plane = copy.ctypes.data + g * length * depth * 2
        for i in range(first, last):
            n, to = i // LH, plane + (i - first) * LW * depth * 2
            for r in range(R):
                h = i % LH * u + top + r
                there = n < N and 0 <= h < H
                if there:
                    source = x.ctypes.data + (((n * H + h) * W + w0 + left) * C) * x.itemsize
                    take_run(x, source, line.ctypes.data + w0 * C * 2, (w1 - w0) * C)
                for s in range(0, S * D, run):
                    start = line.ctypes.data + (s // D * C + g * D) * 2
                    for j in range(LW):
                        here = to + (j * depth + r * S * D + s) * 2
                        if there:
                            copy_run(start + j * v * C * 2, here, run)
                        else:
                            zero_run(here, run)
            for j in range(LW):
                zero_run(to + (j * depth + R * S * D) * 2, depth - R * S * D)
        done = (last - first) * LW
        zero_run(plane + done * depth * 2, (length - done) * depth)


def line_elements(source: Source, C: int) -> int:
    """Of the line that copy_windows needs."""
    return ((source.across.count - 1) * source.across.step + source.across.taps) * C if source.windows else 0
