"""Local response normalisation (paper section 3.3): each value is divided by a power of k + alpha times the local sum
of squares.

Across channels:   b_i = a_i / (k + alpha * sum over j of a_j^2) ** beta,   |j - i| <= n // 2, clipped at the ends.
Within a map:      the same with a window of n x n pixels in one channel ("rnorm" in the authors' code).

The formula in the paper multiplies the sum by alpha; cuda-convnet, Caffe and PyTorch divide alpha by the size of the
window first (`divide_alpha`). `groups=2` normalises two halves of the channels independently, as in Figure 2, where
each GPU normalises its own maps. Saved: x; recomputing the bracket is cheaper than saving it.
"""

from __future__ import annotations

from minicnn.errors import ConfigError, ShapeError
from minicnn.layers.base import Layer, LayerPlan, need_axes
from minicnn.shapes import finite, whole


class LRN(Layer):
    """(N, H, W, C) -> (N, H, W, C), normalised across n adjacent channels."""

    absorbs_pool = True
    capturable = True
    ends_epilogue = True

    def __init__(self, n: int = 5, *, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75, groups: int = 1,
                 divide_alpha: bool = False):
        super().__init__()
        check_constants(self, n, k=k, alpha=alpha, beta=beta)
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta
        self.groups, self.divide_alpha = whole(groups, "LRN: groups", least=1), divide_alpha

    @property
    def constants(self):
        """The keyword arguments of the kernels; alpha: the factor of the sum of squares."""
        alpha = self.alpha / self.n if self.divide_alpha else self.alpha
        return {"n": self.n, "k": self.k, "alpha": alpha, "beta": self.beta, "groups": self.groups}

    def plan(self, in_shapes, dtype, ops):
        (shape,) = in_shapes
        need_axes(self, shape, "NHWC")
        if shape[3] % self.groups:
            raise ShapeError(f"LRN with groups = {self.groups} must divide the channels, got {shape[3]}")
        return LayerPlan(tuple(shape), saves=("x",))

    def forward(self, ctx, xs, y, saved):
        if ctx.pool is None:
            ctx.ops.lrn_forward(xs[0], y, **self.constants)
        else:
            _, window = ctx.pool.geometry(xs[0].shape)
            ctx.ops.lrn_maxpool_forward(xs[0], y, saved["argmax"], **self.constants, **window)

    def backward(self, ctx, dy, saved, dxs):
        x, dx = saved["x"], dxs[0]
        if dx is None:
            return
        if ctx.pool is None:
            ctx.ops.lrn_backward(x, dy, dx, **ctx.before, **self.constants)
        else:
            _, window = ctx.pool.geometry(x.shape)
            ctx.ops.lrn_maxpool_backward(x, dy, saved["argmax"], dx, **ctx.before, **self.constants, **window)

    def describe(self):
        divided = "/n" if self.divide_alpha else ""
        halves = f", {self.groups} groups" if self.groups > 1 else ""
        return f"n {self.n}, k {self.k:g}, alpha {self.alpha:g}{divided}, beta {self.beta:g}{halves}"


class LRNWithin(Layer):
    """(N, H, W, C) -> (N, H, W, C), normalised by the n x n pixels around each pixel of the same map."""

    capturable = True
    channelwise = True

    def __init__(self, n: int = 5, *, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75,
                 divide_alpha: bool = False):
        super().__init__()
        check_constants(self, n, k=k, alpha=alpha, beta=beta)
        self.n, self.k, self.alpha, self.beta, self.divide_alpha = n, k, alpha, beta, divide_alpha

    @property
    def constants(self):
        """The keyword arguments of the kernels; alpha: the factor of the sum of squares."""
        alpha = self.alpha / self.n**2 if self.divide_alpha else self.alpha
        return {"n": self.n, "k": self.k, "alpha": alpha, "beta": self.beta}

    def plan(self, in_shapes, dtype, ops):
        need_axes(self, in_shapes[0], "NHWC")
        return LayerPlan(tuple(in_shapes[0]), saves=("x",), window=((self.n, self.n), (1, 1)))

    def forward(self, ctx, xs, y, saved):
        ctx.ops.lrn_within_forward(xs[0], y, **self.constants)

    def backward(self, ctx, dy, saved, dxs):
        if dxs[0] is not None:
            ctx.ops.lrn_within_backward(saved["x"], dy, dxs[0], **self.constants)

    def describe(self):
        divided = "/n^2" if self.divide_alpha else ""
        return f"{self.n}x{self.n} pixels, k {self.k:g}, alpha {self.alpha:g}{divided}, beta {self.beta:g}"


def check_constants(layer: Layer, n: int, **constants: float) -> None:
    """ConfigError unless the window is a positive odd number and the constants are finite."""
    kind = type(layer).__name__
    if whole(n, f"{kind}: the window n", least=1) % 2 == 0:
        raise ConfigError(f"{kind}: the window n = {n} must be odd, so that it has a centre")
    for name, value in constants.items():
        finite(value, f"{kind}: {name}")
