"""Output sizes of sliding windows, and the notation used in all files.

    x w b y    input, weights, bias, output of a layer          dx dw db dy    gradients of the loss w.r.t. them
    N H W C    images in the batch, height, width, channels of the input; arrays are channels-last, (N, H, W, C)
    K          channels of the output (a convolution's kernels)
    R S        height and width of the kernel or pooling window
    P Q        height and width of the output
    G          groups: input and output channels are split into G independent parts

Weights are (R, S, C/G, K) for a convolution and (in, out) for a fully connected layer. Padding is always given
as (top, left, bottom, right). Sizes rounded up ("ceil": the last window extends past the edge, as in the original code
of the AlexNet paper, where 224 gives 55) are converted here to padding at the bottom and right, so kernels need no
special case.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable

from minicnn.errors import ConfigError, ShapeError

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def whole(value: int, what: str, least: int | None = None) -> int:
    """The value; ConfigError, which calls it `what`, unless it is a whole number of at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{what} must be a whole number, got {value!r}") from None
    if least is not None and number < least:
        raise ConfigError(f"{what} must be at least {least}, got {number}")
    return number


def finite(value: float, what: str) -> float:
    """The value; ConfigError, which calls it `what`, unless it is a finite number."""
    try:
        ok = not isinstance(value, (str, bytes)) and math.isfinite(value)
    except (TypeError, ValueError):
        ok = False
    if not ok:
        raise ConfigError(f"{what} must be a finite number, got {value!r}")
    return value


def pair(value: int | Pair, what: str = "a size", least: int | None = None) -> Pair:
    """A size for both axes, or (height, width). ConfigError as of `whole`."""
    values = tuple(value) if isinstance(value, Iterable) else (value, value)
    if len(values) != 2:
        raise ConfigError(f"{what} must be one number or (height, width), got {value!r}")
    height, width = values
    return whole(height, what, least), whole(width, what, least)


def pads4(padding: int | Pair | Pads, what: str = "padding", least: int | None = None) -> Pads:
    """(top, left, bottom, right) from one number, from (vertical, horizontal), or as given. ConfigError as of `whole`.
    """
    values = tuple(padding) if isinstance(padding, Iterable) else (padding,)
    if len(values) not in (1, 2, 4):
        raise ConfigError(f"{what} must be one number, (vertical, horizontal) or (top, left, bottom, right), got "
                          f"{padding!r}")
    top, left, bottom, right = (values * 4)[:4]
    return (whole(top, what, least), whole(left, what, least), whole(bottom, what, least), whole(right, what, least))


def _output_size(size: int, window: int, stride: int, before: int, after: int, ceil: bool) -> tuple[int, int]:
    """Number of windows along one axis, and the trailing padding they need."""
    span = before + size + after - window
    if span < 0 and not (ceil and span > -stride):
        raise ShapeError(f"a window of {window} does not fit into {size} + padding {before}+{after}")
    count = (-(-span // stride) if ceil else span // stride) + 1
    if ceil and (count - 1) * stride >= size + before:       # the last window would contain padding only
        count -= 1
    if count < 1:
        raise ShapeError(f"a window of {window}, stride {stride}, does not fit into {size} + padding {before}+{after}")
    needed = (count - 1) * stride + window - before - size   # less than `after` if the last rows are unused
    return count, max(needed, 0)


def window_output(size: Pair, kernel: int | Pair, stride: int | Pair, padding: int | Pair | Pads = 0,
                  ceil: bool = False) -> tuple[Pair, Pads]:
    """Output size (P, Q) of a window sliding over `size` = (H, W), and the padding that the kernels use.

    `ceil` rounds the number of windows up instead of down; a last window that would start inside the padding is dropped
    (the rule of Caffe and PyTorch). The returned (top, left, bottom, right) is exact: the windows cover top + H +
    bottom rows, or fewer than top + H if rounding down leaves rows unused (bottom is then 0).
    """
    (R, S), (u, v) = pair(kernel), pair(stride)
    if min(R, S, u, v) < 1:
        raise ShapeError(f"kernel {(R, S)} and stride {(u, v)} must be at least 1")
    top, left, bottom, right = pads4(padding)
    if min(top, left, bottom, right) < 0:
        raise ShapeError(f"padding {(top, left, bottom, right)} must not be negative")
    P, bottom = _output_size(size[0], R, u, top, bottom, ceil)
    Q, right = _output_size(size[1], S, v, left, right, ceil)
    return (P, Q), (top, left, bottom, right)
