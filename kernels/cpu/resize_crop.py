"""A box of each photograph, resized, mirrored, minus the mean, in one pass: line by line of the output.

    photograph   [ the rows that a line of the output needs, a part of each ]     bytes
                              |  down: weighted and added, contiguous: vector instructions
    line         [ one row, as wide as the part                             ]     in the L1 cache
                              |  across: some pixels for each output, channels side by side
    cells        [ a line of the crop                                       ]
                              |  in reverse where it is mirrored; a column where axes are swapped
    y            [ minus the mean, plus the shift                           ]

Down comes first because it is the larger half of the work, and vectorises whatever the scale is. The weights across are
computed once for each image that a thread begins.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import index, kernel, kernel_in_order
from minicnn.kernels.cpu.stored import real, stored
from minicnn.kernels.cpu.threads import parallel_for
from minicnn.kernels.cpu.vectors import LANES, fetch_to_write

LEFT_RIGHT, UP_DOWN, TRANSPOSE = 1, 2, 4        # bits of `flip`
INSIDE, ZERO, REFLECT = 0, 1, 2
BORDERS = {"inside": INSIDE, "zero": ZERO, "reflect": REFLECT}


@kernel
def _window(weights, pixels, centre, support, border):
    """The weights of one output, into `weights`; returns the first pixel that they are for."""
    low, high = int(np.floor(centre - support + 0.5)), int(np.floor(centre + support + 0.5))
    if border == INSIDE:
        low, high = max(low, 0), min(high, pixels)
    total = 0.0
    for x in range(low, high):
        total += max(0.0, 1.0 - abs(x + 0.5 - centre) / support)
    for t in range(weights.size):
        weights[t] = max(0.0, 1.0 - abs(low + t + 0.5 - centre) / support) / total if low + t < high else 0.0
    return low


@kernel
def _folded(x, pixels, border):
    """The pixel that is read for pixel x; -1 for none."""
    if 0 <= x < pixels:
        return x
    if border != REFLECT:
        return -1
    x = -x if x < 0 else 2 * (pixels - 1) - x
    return min(max(x, 0), pixels - 1)


@kernel
def _down(line, weights, row, image, A, B, C, low, high, mean, mean_of_image, border):
    """The weighted sum of some rows of an image (A * B * C,), from `row` on, into `line`: its columns low..high."""
    first, last = max(low, 0), min(high, B)
    into, count = line[(first - low) * C:], (last - first) * C
    for k in range(count):
        into[k] = 0
    for t in range(weights.size):
        source, weight = _folded(row + t, A, border), weights[t]
        if weight == 0 or source < 0:
            continue
        pixels = image[(source * B + first) * C:]
        if mean_of_image:
            means = mean[source].reshape(-1)[first * C:]
            for k in range(count):
                into[k] += weight * (line.dtype.type(pixels[k]) - means[k])
        else:
            for k in range(count):
                into[k] += weight * pixels[k]
    for x in range(low, high):                                  # beyond the image
        if x < 0 or x >= B:
            source = _folded(x, B, border)
            for c in range(C):
                line[(x - low) * C + c] = line[(source - low) * C + c] if source >= 0 else 0


@kernel
def _across(cells, line, weights, taps, starts, C, mirrored):
    """The weighted sums of `taps` pixels of a line for each output; the last output first, if mirrored."""
    W = starts.size
    for j in range(W):
        begin, to = starts[j] * C, (W - 1 - j if mirrored else j) * C
        if C == 3:
            red = green = blue = line.dtype.type(0)
            for t in range(taps):
                weight, k = weights[index(j * taps + t)], index(begin + 3 * t)
                red += weight * line[k]
                green += weight * line[k + index(1)]
                blue += weight * line[k + index(2)]
            cells[index(to)], cells[index(to + 1)], cells[index(to + 2)] = red, green, blue
        else:
            for c in range(C):
                total = line.dtype.type(0)
                for t in range(taps):
                    total += weights[j * taps + t] * line[begin + t * C + c]
                cells[to + c] = total


@kernel_in_order
def _to_row(into, cells, shifts, mean, mean_of_image):
    for k in range(0, cells.size, LANES):
        fetch_to_write(into, cells.size + k)                    # the next line
    if mean_of_image:
        for k in range(cells.size):
            into[k] = stored(cells[k] + shifts[k], into)
    else:
        for k in range(cells.size):
            into[k] = stored(cells[k] + shifts[k] - mean[k], into)


@kernel
def _to_column(y, i, cells, flip, shift, mean, mean_of_image):
    """Line i of a crop that is transposed and then mirrored, y (H, W, C)."""
    H, W, C = y.shape
    for j in range(cells.size // C):
        p, q = H - 1 - j if flip & UP_DOWN else j, W - 1 - i if flip & LEFT_RIGHT else i
        for c in range(C):
            y[p, q, c] = stored(cells[j * C + c] + shift[c] - (0 if mean_of_image else mean[p, q, c]), y)


@kernel
def _resize_crop(first, last, images, y, offsets, heights, widths, mean, mean_of_image, top, left, height, width, flip,
                 shift, border, most_taps, most_columns):
    """Lines first..last of the crops, counted through all images."""
    H, W, C = y.shape[1], y.shape[2], y.shape[3]
    line = np.zeros((most_columns + most_taps) * C, real(y))
    cells, shifts = np.empty(W * C, real(y)), np.empty(W * C, real(y))
    down, across, starts = np.empty(most_taps, real(y)), np.empty(W * most_taps, real(y)), np.empty(W, np.int64)
    low, high, taps = 0, 0, 0
    for at in range(first, last):
        n, i = at // H, at % H
        A, B = heights[n], widths[n]
        if at == first or i == 0:                               # the weights across, and the columns that they reach
            scale = width[n] / W
            support = max(scale, 1.0)
            taps = int(np.ceil(2 * support))
            low, high = B if border == INSIDE else 0, 0 if border == INSIDE else B
            for j in range(W):
                starts[j] = _window(across[j * taps:(j + 1) * taps], B, left[n] + (j + 0.5) * scale, support, border)
                low, high = min(low, starts[j]), max(high, starts[j] + taps)
            high = min(high, B) if border == INSIDE else high
            starts -= low
            for k in range(W * C):
                shifts[k] = shift[n, k % C]
        scale = height[n] / H
        support = max(scale, 1.0)
        weights = down[:int(np.ceil(2 * support))]
        row = _window(weights, A, top[n] + (i + 0.5) * scale, support, border)
        _down(line, weights, row, images[offsets[n]:], A, B, C, low, high, mean, mean_of_image, border)
        turned = flip[n] & TRANSPOSE
        _across(cells, line, across, taps, starts, C, flip[n] & LEFT_RIGHT and not turned)
        if turned:
            _to_column(y[n], i, cells, flip[n], shift[n], mean, mean_of_image)
        else:
            p = H - 1 - i if flip[n] & UP_DOWN else i
            _to_row(y[n, p].reshape(-1), cells, shifts, mean[0 if mean_of_image else p].reshape(-1), mean_of_image)


def resize_crop_forward(images, y, *, offsets, heights, widths, mean, top, left, height, width, flip, shift,
                        border="inside", mean_of_image=False):
    """y (N, H, W, C) from uint8 images (bytes,) of any sizes; see kernels/reference/resize_crop.py."""
    N, H, W, C = y.shape
    if not N:
        return
    most_taps = int(np.ceil(2 * max(height.max() / H, width.max() / W, 1.0)))
    beyond = np.abs(np.minimum(left, 0)) + np.maximum(left + width - widths, 0)     # columns outside the image
    most_columns = int((widths + np.ceil(beyond)).max()) + 2 * most_taps
    parallel_for(N * H, W * C * most_taps, _resize_crop, images, y, offsets, heights, widths,
                 np.ascontiguousarray(mean, real(y)), mean_of_image, top, left, height, width, flip,
                 np.asarray(shift, real(y)), BORDERS[border], most_taps, most_columns)


@kernel
def _cutout(first, last, y, top, left, height, width):
    H, W = y.shape[1], y.shape[2]
    for n in range(first, last):
        for p in range(max(top[n], 0), min(top[n] + height[n], H)):
            for q in range(max(left[n], 0), min(left[n] + width[n], W)):
                for c in range(y.shape[3]):
                    y[n, p, q, c] = 0


def cutout_forward(y, *, top, left, height, width):
    """y (N, H, W, C) = 0 in a rectangle of each image; of it what is inside."""
    parallel_for(len(y), int(height.max(initial=1) * width.max(initial=1)) * y.shape[3], _cutout, y, top, left, height,
                 width)
