"""Batch normalisation: one pass over memory for the statistics, one to normalise; backward one for sums, one for dx.

    x (rows, C)   range 0 | range 1 | ...     of each block of rows: the sums of x - centre and (x - centre)^2, merged
      block 0     |||||||                     into the range's mean and squares, in float64 (Chan et al., 1979).
      block 1     |||||||                     The centre of a block is the mean of the rows before it; that of the first
      ...                                     is its own, for which it is read twice, from the cache

So nothing is lost where the mean is large and what is around it is small. A block that is far from the rows before it,
by D, has squares of rows * D^2; but so has the result, since there are no fewer rows before it: no digits cancel,
whatever the order of the rows. The ranges are merged in their order: same thread count, same bits.

Passes that follow read FACTORS for each channel. mean = centre + rest, centre being in x's type, so that x - centre
loses nothing, and the rest is added in float64:

    z  = (x - centre) * scale + shift                     scale = w / s,  shift = b - rest * scale
    dx = dz * scale + (x - centre) * cross + offset       cross = -scale / s^2 * sum dz (x - mean) / m
                                                          offset = -scale * sum dz / m - rest * cross

They begin at the end of x: what the pass before read last is still in a cache.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.memory import ALIGN, Kept, flat
from minicnn.kernels.cpu.stored import real
from minicnn.kernels.cpu.threads import RANGES_PER_THREAD, blocks, run, split, threads
from minicnn.kernels.cpu.vectors import AHEAD, LANES, WIDE, fetch, like, load, part, select, store, stream

ROWS = 64                       # of a block: of WIDE channels of them, 16 KB
RANGE = 1 << 17                 # elements of a task of a pass that sums nothing
STREAMED = 1 << 22              # from this many elements on, a result is larger than the caches
FACTORS = CENTRE, SCALE, SHIFT, CROSS, OFFSET = range(5)

_kept, _kept_factors = Kept(), Kept()


# ---- statistics
@part
def _merge(mean, squares, c, rows, other_mean, other_squares, other_rows):
    """Into the mean and the centred squares of `rows` values, those of other_rows more."""
    distance, total = other_mean - mean[c], rows + other_rows
    mean[c] += distance * other_rows / total
    squares[c] += other_squares + distance * distance * rows * other_rows / total


@part
def _fetch_ahead(x, i, count, C):
    """Prefetch the same channels some rows ahead; a row of many channels takes long enough."""
    o = i + max(4, 1024 // C) * C
    fetch(x, o)
    if count is None:
        for c in range(LANES, WIDE, LANES):
            fetch(x, o + c)


@part
def _own_centre(x, i, count, rows, C, block, c):
    total = like(load(x, i, count), real(x).type(0))
    for row in range(rows):
        _fetch_ahead(x, i + row * C, count, C)
        total = total + load(x, i + row * C, count)
    store(block, c, count, total * like(total, real(x).type(1 / rows)))


@part
def _block_moments(x, i, count, rows, C, block, c, is_first):
    """block[C:] = the sums of x - centre, and of its square, of each of `count` channels over `rows` rows."""
    if is_first:
        _own_centre(x, i, count, rows, C, block, c)
    centre = load(block, c, count)
    first = like(centre, real(x).type(0))
    second = first
    for row in range(rows):
        _fetch_ahead(x, i + row * C, count, C)
        value = load(x, i + row * C, count) - centre
        first = first + value
        second = second + value * value
    store(block, C + c, count, first)
    store(block, 2 * C + c, count, second)


@kernel
def _moments(first, last, x, C, moments):
    """moments (2, C): mean and centred squares of rows first..last."""
    mean, squares = moments[0], moments[1]
    block, wide, tail = np.empty(3 * C, real(x)), C - C % WIDE, C - C % LANES
    moments[:] = 0
    for m in range(first, last, ROWS):
        rows = min(ROWS, last - m)
        for c in range(0, wide, WIDE):
            _block_moments(x, m * C + c, None, rows, C, block, c, m == first)
        for c in range(wide, tail, LANES):
            _block_moments(x, m * C + c, LANES, rows, C, block, c, m == first)
        if tail < C:
            _block_moments(x, m * C + tail, C - tail, rows, C, block, tail, m == first)
        for c in range(C):
            rest, second = np.float64(block[C + c]), np.float64(block[2 * C + c])
            _merge(mean, squares, c, m - first, block[c] + rest / rows, second - rest * rest / rows, rows)
            block[c] = mean[c]


@kernel
def _merge_ranges(parts, rows, mean, var):
    """mean and var from the moments of all ranges, of rows[i] rows each."""
    for c in range(mean.size):
        mean[c] = var[c] = total = 0.0
        for i in range(len(rows)):
            _merge(mean, var, c, total, parts[i, 0, c], parts[i, 1, c], rows[i])
            total += rows[i]
        var[c] /= total


def _ranges(x) -> list[tuple[int, int]]:
    """Ranges of rows for sums."""
    return split(x.size // x.shape[-1], min(threads() * RANGES_PER_THREAD, max(1, x.size // 16384)))


def batchnorm_statistics(x, mean, var):
    """mean and var (float64, (C,)): of each channel of x (..., C); var is divided by their number."""
    C, ranges = x.shape[-1], _ranges(x)
    (parts,) = _kept.arrays([((len(ranges), 2, C), np.float64)])
    run([(*each, flat(x), C, part) for each, part in zip(ranges, parts, strict=True)], _moments)
    _merge_ranges(parts, np.array([last - first for first, last in ranges], np.float64), mean, var)


def batchnorm_fixed_statistics(running_mean, running_var, mean, var):
    """mean and var (float64): the running ones."""
    mean[...], var[...] = running_mean, running_var


@kernel
def _update(mean, var, running_mean, running_var, momentum, unbiased):
    for c in range(mean.size):
        running_mean[c] += momentum * (mean[c] - running_mean[c])
        running_var[c] += momentum * (var[c] * unbiased - running_var[c])


def batchnorm_update_statistics(mean, var, running_mean, running_var, *, momentum, count):
    """running += momentum * (batch - running), the batch's variance as that of count - 1 degrees of freedom."""
    _update(mean, var, running_mean, running_var, momentum, count / (count - 1))


# ---- passes over x
@kernel
def _set_factors(w, b, mean, var, eps, sums, count, factors):
    for c in range(w.size):
        centre, rest, scale, per = w.dtype.type(0), 0.0, np.float64(w[c]), 1.0
        if mean.size:
            centre = w.dtype.type(mean[c])
            rest, per = mean[c] - centre, 1 / (var[c] + eps)
            scale *= np.sqrt(per)
        factors[CENTRE, c], factors[SCALE, c] = centre, scale
        factors[SHIFT, c] = (b[c] if b.size else 0.0) - rest * scale
        if sums.size:
            cross = -scale * per * sums[1, c] / count
            factors[CROSS, c], factors[OFFSET, c] = cross, -scale * sums[0, c] / count - rest * cross
        else:
            factors[CROSS, c] = factors[OFFSET, c] = 0


_NO_STATISTICS, _NO_SUMS = np.empty(0), np.empty((0, 0))


def _factors(w, b, mean, var, eps, sums=None, count=1):
    """FACTORS of each channel, in one array of w's type."""
    (factors,) = _kept_factors.arrays([((len(FACTORS), w.size), w.dtype)])
    _set_factors(w, w[:0] if b is None else b, *((_NO_STATISTICS,) * 2 if mean is None else (mean, var)), float(eps),
                 _NO_SUMS if sums is None else sums, float(count), factors)
    return flat(factors)


@part
def _z(x, i, count, f, c, C):
    return (load(x, i, count) - load(f, c, count)) * load(f, SCALE * C + c, count) + load(f, SHIFT * C + c, count)


@part
def _masked(x, dy, y, floor, i, count, f, c, C):
    """dy where y, or without y the z of x, is above the floor; else 0."""
    gradient = load(dy, i, count)
    if floor is not None:
        z = _z(x, i, count, f, c, C) if y is None else load(y, i, count)
        gradient = select(z > like(z, floor), gradient, like(z, floor))
    return gradient


@part
def _output(x, residual, y, i, count, f, c, C, floor, past_caches):
    fetch(x, i + AHEAD)
    z = _z(x, i, count, f, c, C)
    if residual is not None:
        z = z + load(residual, i, count)
    if floor is not None:
        z = select(like(z, floor) > z, like(z, floor), z)   # NaN stays NaN
    if past_caches is None:
        store(y, i, count, z)
    else:
        stream(y, i, z)


# `residual`, `y`, `dz`, `floor`, `through` and `past_caches` may be None: Numba compiles a kernel for each combination
# that occurs. As flags, they would be branches in its loops, between which it counts references to arrays.
@kernel
def _forward(first, last, x, residual, y, f, C, floor, past_caches):
    tail = C - C % LANES
    for m in range(first, last):
        for c in range(0, tail, LANES):
            _output(x, residual, y, m * C + c, LANES, f, c, C, floor, past_caches)
        if tail < C:
            _output(x, residual, y, m * C + tail, C - tail, f, tail, C, floor, None)


def _floor(x, relu: bool):
    """The ReLU's 0 in x's type; None without one."""
    return real(x).type(0) if relu else None


def _flat(a):
    return None if a is None else flat(a)


def _backwards(x) -> list[tuple[int, int]]:
    """Ranges of rows, the last first."""
    return blocks(x.size // x.shape[-1], max(1, RANGE // x.shape[-1]))[::-1]


def _past_caches(y):
    """True where y is to be written past the caches, else None."""
    large = y.size >= STREAMED and y.shape[-1] % LANES == 0 and y.ctypes.data % ALIGN == 0
    return True if large else None


def affine_forward(x, w, b, y, *, mean=None, var=None, eps=0.0, residual=None, relu=False):
    """y = w * (x - mean) / sqrt(var + eps) + b + residual, then max(y, 0) if relu. b, residual: None for 0."""
    arguments = (flat(x), _flat(residual), flat(y), _factors(w, b, mean, var, eps), x.shape[-1], _floor(x, relu),
                 _past_caches(y))
    run(_backwards(x), lambda first, last: _forward(first, last, *arguments))


@part
def _add_block(x, dy, y, dz, floor, i, count, rows, C, f, c, block):
    """block = the sums of dz and of dz * (x - centre) of each of `count` channels over `rows` rows."""
    centre = load(f, c, count)
    first = like(centre, real(x).type(0))
    second = first
    for row in range(rows):
        o = i + row * C
        _fetch_ahead(x, o, count, C)
        _fetch_ahead(dy, o, count, C)
        gradient = _masked(x, dy, y, floor, o, count, f, c, C)
        if dz is not None:
            store(dz, o, count, gradient)
        first = first + gradient
        second = second + gradient * (load(x, o, count) - centre)
    store(block, c, count, first)
    store(block, C + c, count, second)


@kernel
def _sums(first, last, x, dy, y, dz, floor, f, C, sums):
    """sums (2, C): of dz and dz * (x - centre) over rows first..last."""
    block, wide, tail = np.empty(2 * C, real(x)), C - C % WIDE, C - C % LANES
    sums[:] = 0
    for m in range(first, last, ROWS):
        rows = min(ROWS, last - m)
        for c in range(0, wide, WIDE):
            _add_block(x, dy, y, dz, floor, m * C + c, None, rows, C, f, c, block)
        for c in range(wide, tail, LANES):
            _add_block(x, dy, y, dz, floor, m * C + c, LANES, rows, C, f, c, block)
        if tail < C:
            _add_block(x, dy, y, dz, floor, m * C + tail, C - tail, rows, C, f, tail, block)
        for c in range(C):
            sums[0, c] += block[c]
            sums[1, c] += block[C + c]


@kernel
def _add_sums(parts, mean, var, eps, sums, dw, db, add_w, add_b):
    """The sums of all ranges, in their order: about the mean, and into dw and db."""
    for c in range(dw.size):
        first, second, rest, scale = 0.0, 0.0, 0.0, 1.0
        for i in range(len(parts)):
            first += parts[i, 0, c]
            second += parts[i, 1, c]
        if mean.size:
            rest, scale = mean[c] - dw.dtype.type(mean[c]), 1 / np.sqrt(var[c] + eps)
        second -= rest * first
        if sums.size:
            sums[0, c], sums[1, c] = first, second
        dw[c] = second * scale + (dw[c] if add_w else 0.0)
        if db.size:
            db[c] = first + (db[c] if add_b else 0.0)


def affine_backward_weights(x, dy, w, b, dw, db, dz, sums, *, mean=None, var=None, eps=0.0, y=None, relu=False,
                            add=(True, True)):
    """dw, db (db may be None) += their sums, or = where their element of add is False.

    relu: dz is dy where y > 0, else 0; without y, it is computed again, without a residual.   dz: None, or where to
    write it; may be dy.   sums: None, or float64 (2, C) for the sums of dz and of dz * (x - mean).
    """
    if dz is not None and not relu and np.may_share_memory(dz, dy):
        dz = None
    C, ranges = x.shape[-1], _ranges(x)
    (parts,) = _kept.arrays([((len(ranges), 2, C), np.float64)])
    arguments = (flat(x), flat(dy), _flat(y), _flat(dz), _floor(x, relu), _factors(w, b, mean, var, eps), C)
    run([(*each, *arguments, row) for each, row in zip(ranges, parts, strict=True)], _sums)
    _add_sums(parts, *((_NO_STATISTICS,) * 2 if mean is None else (mean, var)), float(eps),
              _NO_SUMS if sums is None else sums, dw, dw[:0] if db is None else db, *add)


@part
def _input_gradient(x, dy, dx, i, count, f, c, C, floor, through):
    fetch(x, i + AHEAD)
    fetch(dy, i + AHEAD)
    value = _masked(x, dy, None, floor, i, count, f, c, C) * load(f, SCALE * C + c, count)
    if through is not None:
        centred = load(x, i, count) - load(f, c, count)
        value = value + centred * load(f, CROSS * C + c, count) + load(f, OFFSET * C + c, count)
    store(dx, i, count, value)


@kernel
def _data(first, last, x, dy, dx, f, C, floor, through):
    tail = C - C % LANES
    for m in range(first, last):
        for c in range(0, tail, LANES):
            _input_gradient(x, dy, dx, m * C + c, LANES, f, c, C, floor, through)
        if tail < C:
            _input_gradient(x, dy, dx, m * C + tail, C - tail, f, tail, C, floor, through)


def affine_backward_data(x, dy, w, b, dx, *, mean=None, var=None, eps=0.0, relu=False, sums=None, count=1):
    """dx, overwritten; may be dy. relu: as above, without a residual. sums: those of `affine_backward_weights` over
    `count` values; None if mean and var do not depend on x."""
    arguments = (flat(x), flat(dy), flat(dx), _factors(w, b, mean, var, eps, sums, count), x.shape[-1], _floor(x, relu),
                 None if sums is None else True)
    run(_backwards(x), lambda first, last: _data(first, last, *arguments))
