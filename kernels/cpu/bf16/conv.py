"""Convolution with products of bf16: factors are rounded as they are copied, sums are float32, and so are x, w and y.

    forward            correlate.py: y is x correlated with w
    backward, data     the same: dx is dy correlated with the flipped, transposed kernel. With a stride, the pixels of
                       dx fall into stride x stride phases, and each tap belongs to exactly one of them
    backward, weights  weights.py: sums over pixels

Every kernel is computed directly: Winograd's algorithm would round sums of the factors. Depthwise convolution has no
product of matrices, and is limited by memory: it is computed in float32, as in kernels/cpu/depthwise.py.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu import conv as float32
from minicnn.kernels.cpu import depthwise
from minicnn.kernels.cpu.bf16.block import chosen
from minicnn.kernels.cpu.bf16.correlate import correlate, correlation_arrays, pack_panels, turn_kernel
from minicnn.kernels.cpu.bf16.source import Axis
from minicnn.kernels.cpu.bf16.weights import weight_arrays, weights
from minicnn.kernels.cpu.memory import arrays_in, bytes_of, flat
from minicnn.kernels.cpu.threads import parallel_for


def _elsewhere(dtype, D: int, K: int, groups: int) -> bool:
    """Whether kernels/cpu/conv.py computes it: arrays of float64, and depthwise convolution."""
    return np.dtype(dtype) != np.float32 or depthwise.suits(D, K, groups)


def conv_forward(x, w, y, *, stride, pads, groups=1, epilogue=(None, False), work=None):
    """y (N, P, Q, K) from x (N, H, W, C) and w (R, S, C/G, K); epilogue = (bias (K,) or None, apply ReLU)."""
    (R, S, D, K), (bias, relu), block = w.shape, epilogue, chosen()
    if _elsewhere(x.dtype, D, K, groups):
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
    if _elsewhere(dy.dtype, D, K, groups):
        return float32.conv_backward_data(dy, w, dx, stride=stride, pads=pads, groups=groups, work=work)
    turned = arrays_in(work, [((R * S, K, D), "float32")])[0]
    rest = None if work is None else work[bytes_of([((R * S, K, D), "float32")]):]
    parallel_for(R * S * -(-K // 16), 16 * D, turn_kernel, w.reshape(R * S, D, K), turned)
    for down, across, taps in _phases(dx.shape, dy.shape, w.shape, stride, pads):
        if not len(taps):
            dx[:, down.first::down.apart, across.first::across.apart] = 0
            continue

        def packed(elements, panels, taps=taps):
            parallel_for(len(elements), 32 * C, pack_panels, flat(turned), taps, elements, panels, K * D, D,
                         K // groups * D, D)

        arrays = arrays_in(rest, correlation_arrays(block, dy.shape, C, down, across, groups))
        correlate(block, dy, dx, down, across, groups, packed, arrays)


def conv_backward_weights(x, dy, dw, *, stride, pads, groups=1, add=True, work=None):
    """dw (R, S, C/G, K) += from x (N, H, W, C) and dy (N, P, Q, K); without `add`, dw =, whatever it held."""
    (_, _, D, K), block = dw.shape, chosen()
    if _elsewhere(x.dtype, D, K, groups):
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
    (N, H, W, _), (R, S, D, K), block = x_shape, w_shape, chosen()
    if _elsewhere(dtype, D, K, groups):
        return float32.conv_work(x_shape, w_shape, dtype, stride=stride, pads=pads, groups=groups)
    P, Q = (pads[0] + H + pads[2] - R) // stride[0] + 1, (pads[1] + W + pads[3] - S) // stride[1] + 1
    y_shape = (N, P, Q, K)
    axes = _forward_axes(x_shape, y_shape, w_shape, stride, pads)
    back = [bytes_of(correlation_arrays(block, y_shape, x_shape[3], down, across, groups))
            for down, across, taps in _phases(x_shape, y_shape, w_shape, stride, pads) if len(taps)]
    return max(bytes_of(correlation_arrays(block, x_shape, K, *axes, groups)),
               bytes_of(weight_arrays(block, x_shape, K, *axes, groups)),
               bytes_of([((R * S, K, D), "float32")]) + max(back, default=0))


def conv_algorithm(x_shape, w_shape, dtype, *, stride, pads, groups=1):
    """The name of the algorithm."""
    if _elsewhere(dtype, *w_shape[2:], groups):
        return float32.conv_algorithm(x_shape, w_shape, dtype, stride=stride, pads=pads, groups=groups)
    return f"direct, bf16 by {chosen().kind}"
