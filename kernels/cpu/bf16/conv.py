"""Convolution with products of bf16: factors are bf16, or rounded as they are copied, and sums are float32.

    forward            correlate.py: y is x correlated with w
    backward, data     the same: dx is dy correlated with the flipped, transposed kernel. With a stride, the pixels of
                       dx fall into stride x stride phases, and each tap belongs to exactly one of them
    backward, weights  weights.py: sums over pixels

Sums over taps are computed directly here: Winograd's algorithm would round its transformed inputs, and with 4 x 4
tiles the result is ten times as far off. By AMX tiles the direct sums are faster in any case. vdpbf16ps multiplies
twice as fast as float32, while Winograd's algorithm needs a quarter of the products: where that is faster
(`_in_float32`), a pass is computed by it, in float32 as on device "cpu", and `conv_algorithm` says so. So are
arrays of float64 and depthwise convolution, which has no product of matrices. x, y, dx and dy may be stored in bf16 in
either case.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minicnn.kernels.cpu import conv as float32
from minicnn.kernels.cpu import depthwise, winograd
from minicnn.kernels.cpu.bf16.available import DOTS
from minicnn.kernels.cpu.bf16.block import Block, chosen
from minicnn.kernels.cpu.bf16.correlate import correlate, correlation_arrays, pack_panels, transpose_kernel
from minicnn.kernels.cpu.bf16.source import Axis
from minicnn.kernels.cpu.bf16.weights import weight_arrays, weights
from minicnn.kernels.cpu.memory import arrays_in, bytes_of, flat
from minicnn.kernels.cpu.threads import parallel_for

# Where Winograd's algorithm in float32 is faster than vdpbf16ps, as measured on a Zen 5, two threads
FILLED, FILLED_DW = 0.75, 0.6    # of its tiles at least, by outputs: 13 x 13 outputs in 4 x 4 tiles fill 0.66
LEAST_CHANNELS = 48              # of a group, of x and of y
LEAST_PIXELS = 2048              # of y, all images: with fewer, transforming the weights takes too much of the time
MOST_WEIGHTS = 256 * 512         # of a tap and a group, dw: its sums have 36 or 49 places for each


class _InFloat32(NamedTuple):
    """Which passes kernels/cpu/conv.py computes."""

    forward: bool
    data: bool
    weights: bool


def _in_float32(block: Block, x_shape, w_shape, y_shape, dtype: str, stride, pads, groups) -> _InFloat32:
    (N, H, W, _), (R, S, D, K), (_, P, Q, _) = x_shape, w_shape, y_shape
    if dtype != "float32" or depthwise.suits(D, K, groups):
        return _InFloat32(True, True, True)
    E, flipped = K // groups, [R - 1 - pad for pad in pads]         # the padding of dy, from which dx is read
    forward = _winograd_fills(block, (R, S), stride, pads, D, E, N, P, Q)
    data = _winograd_fills(block, (R, S), stride, flipped, E, D, N, H, W)
    return _InFloat32(forward >= FILLED and N * P * Q >= LEAST_PIXELS, data >= FILLED and N * H * W >= LEAST_PIXELS,
                      forward >= FILLED_DW and D * E <= MOST_WEIGHTS)


def _winograd_fills(block: Block, kernel, stride, pads, depth: int, columns: int, N: int, P: int, Q: int) -> float:
    """The part of Winograd's tiles that these outputs (N, P, Q) fill; 0 where that cannot be faster than bf16."""
    side = winograd.outputs_of_a_tile(kernel, stride, pads, depth, columns, N, P, Q, np.float32)
    if not side or block.kind != DOTS or min(depth, columns) < LEAST_CHANNELS:
        return 0.0
    return P * Q / ((-(-P // side) * side) * (-(-Q // side) * side))


def conv_forward(x, w, y, *, stride, pads, groups=1, epilogue=(None, False), work=None):
    """y (N, P, Q, K) from x (N, H, W, C) and w (R, S, C/G, K); epilogue = (bias (K,) or None, apply ReLU)."""
    (R, S, D, K), (bias, relu), block = w.shape, epilogue, chosen()
    if _in_float32(block, x.shape, w.shape, y.shape, w.dtype.name, stride, pads, groups).forward:
        return float32.conv_forward(x, w, y, stride=stride, pads=pads, groups=groups, epilogue=epilogue, work=work)
    axes = _forward_axes(x.shape, y.shape, w.shape, stride, pads)
    arrays, taps = arrays_in(work, correlation_arrays(block, x.shape, K, *axes, groups)), np.arange(R * S)

    def packed(elements, panels):
        parallel_for(len(elements), 32 * K, pack_panels, flat(w), taps, elements, panels, D * K, K, K // groups,
                     K // groups)

    correlate(block, x, y, *axes, groups, packed, arrays, bias, relu)


def conv_backward_data(dy, w, dx, *, stride, pads, groups=1, work=None):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, K) and w (R, S, C/G, K)."""
    (R, S, D, K), C, block = w.shape, dx.shape[3], chosen()
    if _in_float32(block, dx.shape, w.shape, dy.shape, w.dtype.name, stride, pads, groups).data:
        return float32.conv_backward_data(dy, w, dx, stride=stride, pads=pads, groups=groups, work=work)
    transposed = arrays_in(work, [((R * S, K, D), "float32")])[0]
    rest = None if work is None else work[bytes_of([((R * S, K, D), "float32")]):]
    parallel_for(R * S * -(-K // 16), 16 * D, transpose_kernel, w.reshape(R * S, D, K), transposed)
    for down, across, taps in _phases(dx.shape, dy.shape, w.shape, stride, pads):
        if not len(taps):
            dx[:, down.first::down.apart, across.first::across.apart] = 0
            continue

        def packed(elements, panels, taps=taps):
            parallel_for(len(elements), 32 * C, pack_panels, flat(transposed), taps, elements, panels, K * D, D,
                         K // groups * D, D)

        arrays = arrays_in(rest, correlation_arrays(block, dy.shape, C, down, across, groups))
        correlate(block, dy, dx, down, across, groups, packed, arrays)


def conv_backward_weights(x, dy, dw, *, stride, pads, groups=1, add=True, work=None):
    """dw (R, S, C/G, K) += from x (N, H, W, C) and dy (N, P, Q, K); without `add`, dw =, whatever it held."""
    K, block = dw.shape[3], chosen()
    if _in_float32(block, x.shape, dw.shape, dy.shape, dw.dtype.name, stride, pads, groups).weights:
        return float32.conv_backward_weights(x, dy, dw, stride=stride, pads=pads, groups=groups, add=add, work=work)
    axes = _forward_axes(x.shape, dy.shape, dw.shape, stride, pads)
    weights(block, x, dy, dw, *axes, groups, add, arrays_in(work, weight_arrays(block, x.shape, K, *axes, groups)))


def _forward_axes(x_shape, y_shape, w_shape, stride, pads) -> tuple[Axis, Axis]:
    down, across = (Axis(y_shape[1 + i], stride[i], -pads[i], w_shape[i], x_shape[1 + i]) for i in range(2))
    return down, across


def _phases(x_shape, y_shape, w_shape, stride, pads) -> list[tuple[Axis, Axis, np.ndarray]]:
    """Of dx: the two axes of each phase, and which tap of w each of its taps is."""
    S, phases = w_shape[1], []
    for r_first, down in _phases_along(0, x_shape, y_shape, w_shape, stride, pads):
        for s_first, across in _phases_along(1, x_shape, y_shape, w_shape, stride, pads):
            taps = [(r_first + (down.taps - 1 - i) * stride[0]) * S + s_first + (across.taps - 1 - j) * stride[1]
                    for i in range(down.taps) for j in range(across.taps)]
            phases.append((down, across, np.array(taps, np.int64)))
    return phases


def _phases_along(axis, x_shape, y_shape, w_shape, stride, pads) -> list[tuple[int, Axis]]:
    """(first tap, axis) of each phase a, the pixels a, a + step, ... of dx along one axis.

    Pixel a + i*step is reached by the taps first, first + step, ... from output i + (a + pad - tap) / step; read in
    reverse, outputs ascend.
    """
    step, pad, taps, size, outputs = stride[axis], pads[axis], w_shape[axis], x_shape[1 + axis], y_shape[1 + axis]
    found = []
    for a in range(min(step, size)):
        first = (a + pad) % step
        count = len(range(first, taps, step))
        found.append((first, Axis(len(range(a, size, step)), 1, (a + pad) // step - (count - 1), count, outputs, step,
                                  a)))
    return found


def conv_work(x_shape, w_shape, dtype, *, stride, pads, groups=1):
    """Bytes of work space for the largest of the three passes."""
    (R, S, D, K), window = w_shape, {"stride": stride, "pads": pads, "groups": groups}
    block, y_shape, floats = _chosen(x_shape, w_shape, dtype, **window)
    sizes = [float32.conv_work(x_shape, w_shape, dtype, **window)] if any(floats) else []
    axes = _forward_axes(x_shape, y_shape, w_shape, stride, pads)
    if not floats.forward:
        sizes.append(bytes_of(correlation_arrays(block, x_shape, K, *axes, groups)))
    if not floats.data:
        transposed = bytes_of([((R * S, K, D), "float32")])
        sizes += [transposed + bytes_of(correlation_arrays(block, y_shape, x_shape[3], down, across, groups))
                  for down, across, taps in _phases(x_shape, y_shape, w_shape, stride, pads) if len(taps)]
    if not floats.weights:
        sizes.append(bytes_of(weight_arrays(block, x_shape, K, *axes, groups)))
    return max(sizes)


def conv_algorithm(x_shape, w_shape, dtype, *, stride, pads, groups=1):
    """The name of the algorithm: that of the forward pass, and those of dx and dw where they differ."""
    window = {"stride": stride, "pads": pads, "groups": groups}
    block, _, floats = _chosen(x_shape, w_shape, dtype, **window)
    if all(floats):
        return f"{float32.conv_algorithm(x_shape, w_shape, dtype, **window)}, {np.dtype(dtype).name}"
    names = [f"Winograd, {dtype}" if of else f"direct, bf16 by {block.kind}" for of in floats]
    return "; ".join(names[:1] + [f"{which} {name}" for which, name in zip(("dx", "dw"), names[1:], strict=True)
                                  if name != names[0]])


def _chosen(x_shape, w_shape, dtype, stride, pads, groups) -> tuple[Block, tuple[int, ...], _InFloat32]:
    """The inner loop, the shape of y, and what is computed in float32."""
    (N, H, W, _), (R, S, _, K), block = x_shape, w_shape, chosen()
    y_shape = (N, (pads[0] + H + pads[2] - R) // stride[0] + 1, (pads[1] + W + pads[3] - S) // stride[1] + 1, K)
    return block, y_shape, _in_float32(block, x_shape, w_shape, y_shape, np.dtype(dtype).name, stride, pads, groups)
