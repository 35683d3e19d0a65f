"""Launches of lrn.cu and lrn_maxpool.cu."""

from __future__ import annotations

from math import gcd

import numpy as np

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.kinds.pool import window_of
from minicnn.backend.cuda.launcher import THREADS, ceil_div
from minicnn.backend.cuda.source import real_dtype
from minicnn.backend.ops import address

BLOCKS = 1024               # of a backward pass that leaves sums: several for each multiprocessor


class Lrn(Kind):
    """Local response normalisation, across channels and within a map; across channels also with max pooling."""

    def _half(self, C: int, n: int, groups: int, *arrays) -> int:
        """n // 2 where four elements can be given to a lane, else 0."""
        D = C // groups
        half = min(n // 2, D - 1)
        return half if arrays[0].dtype != np.float64 and 1 <= half <= 4 and self._gpu.packs(D, *arrays) else 0

    def _lrn_across(self, kernel: str, arrays: tuple, tiles: int, margins: int, n, k, alpha, beta, groups) -> None:
        x, tile = arrays[0], 1024                                   # TILE of lrn.cu
        D = x.shape[-1] // groups
        half = min(n // 2, D - 1)
        self._gpu.launch("lrn", kernel, ceil_div(x.size, tile), (*arrays, x.size, D, half, k, alpha, beta),
                         shared=(tiles * tile + margins * half) * real_dtype(x.dtype).itemsize)

    def lrn_forward(self, x, y, *, n, k, alpha, beta, groups=1):
        """y (N, H, W, C) from x, normalised over n channels inside each of `groups` parts of the C channels."""
        if half := self._half(x.shape[-1], n, groups, x, y):
            self._gpu.launch("lrn", "lrn_forward_packs", ceil_div(x.size // 4, THREADS // 32 * 30),
                             (x, y, x.size // 4, x.shape[-1] // groups // 4, half, k, alpha, beta))
        else:
            self._lrn_across("lrn_forward", (x, y), 1, 2, n, k, alpha, beta, groups)

    def lrn_backward(self, x, dy, dx, db=None, *, n, k, alpha, beta, groups=1, relu=False, add=True):
        """dx (N, H, W, C), overwritten; dx must not be dy. Then relu, db, add: as epilogue_backward of dx, y=x."""
        if half := self._half(x.shape[-1], n, groups, x, dy, dx):
            self._backward_quads("lrn", "lrn_backward_packs", (x, dy), dx, db, half, groups,
                                 (int(relu), k, alpha, beta), add)
        else:
            self._lrn_across("lrn_backward", (x, dy, dx), 3, 6, n, k, alpha, beta, groups)
            self._end(x, dx, db, relu, add)

    def _backward_quads(self, file: str, kernel: str, arrays: tuple, dx, db, half: int, groups: int, constants: tuple,
                        add: bool, columns: tuple = (), window: tuple = ()) -> None:
        """A kernel with backward_quads of lrn.cuh. Where it leaves sums, a lane has the same channels in each of its
        steps: their number of quads divides the elements of a step of the grid."""
        C = dx.shape[-1]
        own = THREADS // 32 * (30 if half <= 2 else 28)             # quads of a block
        blocks, partial = ceil_div(dx.size // 4, own), None
        if db is not None:
            together = C // 4 // gcd(C // 4, own)
            blocks = ceil_div(min(blocks, BLOCKS), together) * together
            (partial,) = self._gpu.scratch([(blocks, C)], db.dtype)
        self._gpu.launch(file, kernel, blocks if dx.size else 0,
                         (*arrays, dx, partial, dx.size // 4, C // groups // 4, C // 4, *columns, half, *constants,
                          *window))
        if db is not None:
            self._gpu.launch("epilogue", "epilogue_add", ceil_div(C, 32), (partial, db, blocks, C, int(add)),
                             block=(32, 32))

    def _end(self, x, dx, db, relu: bool, add: bool) -> None:
        """The backward pass of the bias and ReLU that made x."""
        if relu or db is not None:
            self.epilogue_backward(dx, db, y=x if relu else None, add=add)

    # ---- with the max pooling behind it
    def lrn_maxpool_forward(self, x, y, argmax, *, n, k, alpha, beta, groups=1, kernel, stride, pads):
        """y (N, P, Q, C) and argmax of maxpool_forward, from x (N, H, W, C) normalised as by lrn_forward."""
        constants = {"n": n, "k": k, "alpha": alpha, "beta": beta, "groups": groups}
        half = self._half(x.shape[-1], n, groups, x, y)
        if half and (argmax is None or address(argmax) % 4 == 0):
            C = x.shape[-1]
            self._gpu.launch("lrn_maxpool", "lrn_maxpool_forward", ceil_div(y.size // 4, THREADS // 32 * 30),
                             (x, y, argmax, y.size // 4, C // groups // 4, C // 4, y.shape[2], half, k, alpha, beta,
                              window_of(x.shape, y.shape, kernel, stride, pads)))
        else:
            (between,) = self._gpu.scratch([x.shape], x.dtype)
            self.lrn_forward(x, between, **constants)
            self.maxpool_forward(between, y, argmax, kernel=kernel, stride=stride, pads=pads)

    def lrn_maxpool_backward(self, x, dy, argmax, dx, db=None, *, n, k, alpha, beta, groups=1, kernel, stride, pads,
                             relu=False, add=True):
        """dx (N, H, W, C), overwritten, from x, dy and argmax (N, P, Q, C). Then relu, db, add: as lrn_backward."""
        half = self._half(x.shape[-1], n, groups, x, dy, dx)
        if half and address(argmax) % 4 == 0:
            self._backward_quads("lrn_maxpool", "lrn_maxpool_backward", (x, dy, argmax), dx, db, half, groups,
                                 (int(relu), k, alpha, beta), add, (x.shape[2],),
                                 (window_of(x.shape, dy.shape, kernel, stride, pads),))
        else:
            (between,) = self._gpu.scratch([x.shape], x.dtype)
            self.maxpool_backward(dy, argmax, between, kernel=kernel, stride=stride, pads=pads)
            self._lrn_across("lrn_backward", (x, between, dx), 3, 6, n, k, alpha, beta, groups)
            self._end(x, dx, db, relu, add)             # its sums may take the scratch memory: `between` is done with

    # ---- within a map
    def lrn_within_forward(self, x, y, *, n, k, alpha, beta):
        """y (N, H, W, C) from x, normalised over n x n pixels of the same map."""
        _, H, W, C = x.shape
        self._gpu.launch("lrn", "lrn_within_forward", ceil_div(x.size, THREADS),
                         (x, y, H, W, C, x.size, n // 2, k, alpha, beta))

    def lrn_within_backward(self, x, dy, dx, *, n, k, alpha, beta):
        """dx (N, H, W, C), overwritten; dx must not be dy."""
        (_, H, W, C), blocks = x.shape, ceil_div(x.size, THREADS)
        direct, cross = self._gpu.scratch([x.shape] * 2, real_dtype(x.dtype))
        sizes = (H, W, C, x.size, n // 2)
        self._gpu.launch("lrn", "lrn_within_terms", blocks, (x, dy, direct, cross, *sizes, k, alpha, beta))
        self._gpu.launch("lrn", "lrn_within_backward", blocks, (x, direct, cross, dx, *sizes, alpha, beta))
