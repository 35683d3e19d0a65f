"""How a matrix product is cut into blocks of threads: tiles of the result, and slices of the sum (see gemm.cuh).

Both depend on the shapes alone, so that every GPU that runs a version adds in the same order. The products of a layer
are computed once and cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from math import gcd

import numpy as np

from minicnn.backend.cuda.launcher import Launcher, aligned, ceil_div
from minicnn.backend.cuda.source import HOPPER

# Version -> rows and columns of a tile, threads of a block; of version 5 the largest of several (hopper.cuh).
TILES = {"v1": (64, 64, 256), "v2": (64, 64, 256), "v3": (128, 64, 128), "v4": (128, 64, 128), "v5": (256, 128, 512)}
HEIGHTS = {256: 1.0, 128: 1.25}     # of version 5, and the cost of a row of a tile: an estimate, not measured
WIDTHS = (128, 96, 64)      # the first only for reads of 16 bytes: others would need too many registers
STAGES, DEEP = 3, 32        # of version 5: in shared memory, and terms of the sum in each
# A sum is cut into slices where its tiles are too few to fill a GPU: into as many as make an H100, with this many
# multiprocessors and a block or two on each, finish soonest.
MULTIPROCESSORS = 132
SLICE = 512                 # terms in a slice at least
SLICES = 96                 # at most
BLOCKS = 4 * MULTIPROCESSORS    # of sliced products, at most: this bounds their partial sums
AROUND, ADDING = 16, 16     # overhead of a block, in steps of 32 terms; and of a block of a slice in addition


@dataclass(frozen=True)
class Product:
    """C (M, N), a sum over `depth`, once for each of `groups`; version: a key of TILES.   packs: A and B can be read
    16 bytes at a time."""

    version: str
    M: int
    N: int
    depth: int
    groups: int = 1
    packs: bool = True
    whole: bool = False         # in one slice

    @cached_property
    def rows(self) -> int:
        """Of a tile: of version 5's heights the fastest by HEIGHTS."""
        if self.version != "v5":
            return TILES[self.version][0]
        return min(HEIGHTS, key=lambda height: aligned(self.M, height) * HEIGHTS[height])

    @cached_property
    def columns(self) -> int:
        """Of a tile: of version 5's widths the one that wastes least, of several the widest."""
        if self.version != "v5":
            return TILES[self.version][1]
        return min(WIDTHS[0 if self.packs else 1:], key=lambda width: aligned(self.N, width))

    @cached_property
    def threads(self) -> int:
        return 2 * self.rows if self.version == "v5" else TILES[self.version][2]

    @cached_property
    def _tiles(self) -> int:
        return ceil_div(self.M, self.rows) * ceil_div(self.N, self.columns) * self.groups

    @cached_property
    def slices(self) -> int:
        if self.whole:
            return 1
        most = max(1, min(SLICES, self.depth // SLICE, BLOCKS // max(1, self._tiles)))
        at_once = MULTIPROCESSORS if self.rows == 256 else 2 * MULTIPROCESSORS

        def steps(slices: int) -> int:
            return ceil_div(self._tiles * slices, at_once) * (
                ceil_div(self.depth, slices * DEEP) + AROUND + ADDING * (slices > 1))

        best = min(range(1, most + 1), key=steps)
        return ceil_div(self.depth, aligned(ceil_div(self.depth, best), DEEP))

    @cached_property
    def slice(self) -> int:
        """Terms of the sum in a slice, a multiple of 32."""
        return aligned(ceil_div(self.depth, self.slices), DEEP)

    @cached_property
    def grid(self) -> tuple[int, int, int]:
        return (ceil_div(self.M, self.rows), ceil_div(self.N, self.columns), self.slices * self.groups)

    @cached_property
    def partial(self) -> tuple[int, ...]:
        """The shape of the slices' partial sums; empty if there is one slice."""
        return (self.slices if self.slices > 1 else 0, self.M * self.N * self.groups)

    @cached_property
    def most_partial(self) -> int:
        """Most elements of partial sums, here or with fewer images: what a work space must hold."""
        if self.depth < 2 * SLICE:
            return 0
        tall, wide, _ = TILES[self.version]
        return min(BLOCKS * tall * wide, SLICES * self.M * self.N * self.groups)

    @cached_property
    def options(self) -> tuple[str, ...]:
        """Of the compiler, for version 5: each of its tiles and ways to read is compiled separately."""
        if self.version != "v5":
            return ()
        return (f"-DROWS={self.rows}", f"-DCOLUMNS={self.columns}", f"-DPACKED={int(self.packs)}", HOPPER)

    def shared(self, products: str) -> int:
        """Bytes of shared memory for version 5: stages, 16 for each row of both tiles, and a margin, to begin at a
        multiple of 1,024."""
        if self.version != "v5":
            return 0
        rows, size = self.rows + self.columns, np.dtype("f4" if products == "Tf32" else "f2").itemsize
        return rows * (STAGES * DEEP * size + 16) + 1024


@cache
def linear_products(x_shape, w_shape, version: str, packs: bool = True) -> dict[str, Product]:
    """The products of a fully connected layer's three passes."""
    (N, I), O = x_shape, w_shape[1]                                                                 # noqa: E741
    sizes = {"forward": (N, O, I), "backward_data": (N, I, O), "backward_weights": (I, O, N)}
    return {operation: Product(version, *size, packs=packs) for operation, size in sizes.items()}


class ConvShape:
    """The sizes of one convolution: its matrix products, and the Geometry of its kernels."""

    def __init__(self, x_shape, w_shape, stride, pads, groups):
        (N, H, W, C), (R, S, D, K), (top, left, bottom, right) = x_shape, w_shape, pads
        P, Q = (top + H + bottom - R) // stride[0] + 1, (left + W + right - S) // stride[1] + 1
        self.sizes = {"N": N, "C": C, "K": K, "R": R, "G": groups, "H": H, "W": W, "P": P, "Q": Q, "S": S, "D": D,
                         "L": K // groups, "stride_h": stride[0], "stride_w": stride[1], "top": top, "left": left}
        self.pixels, self.taps = N * P * Q, R * S * D

    @cache                                                  # noqa: B019   as long-lived as the layer's shapes
    def products(self, version: str, packs: bool = True) -> dict[str, Product]:
        """The products of the three passes."""
        g, pixels, taps = self.sizes, self.pixels, self.taps
        D, L = g["D"], g["L"]
        shapes = {"forward": (pixels, L, taps),
                  "backward_data": (g["N"] * g["H"] * g["W"], D, taps // D * L),
                  "backward_weights": (taps, L, pixels)}
        if version == "v1":
            shapes["backward_data"] = (pixels, taps, L)
        return {operation: Product(version, *shape, g["G"], packs) for operation, shape in shapes.items()}

    @cache                                                  # noqa: B019
    def geometry(self, operation: str, version: str, packs: bool) -> dict[str, int]:
        """The Geometry of the kernels, with the order in which they take the taps: in version 5, as many channels at a
        time as keep a tile's pixels in the cache until all taps have read them (conv.cuh)."""
        channels = self.sizes["L" if operation == "backward_data" else "D"]
        together = gcd(channels, DEEP)
        run = together if version == "v5" and packs and together >= 8 else channels
        return self.sizes | {"run": run, "turn": run * self.sizes["R"] * self.sizes["S"]}

    def windows(self, version: str) -> tuple[int, ...]:
        """The shape of X, which exists in version 1 only."""
        return (self.sizes["G"] if version == "v1" else 0, self.pixels, self.taps)

    def packs(self, gpu: Launcher, *arrays) -> int:
        """Whether channels and kernels of a group can be read 16 bytes at a time."""
        return gpu.packs(self.sizes["D"], *arrays) & gpu.packs(self.sizes["L"], *arrays)


conv_shape = cache(ConvShape)
