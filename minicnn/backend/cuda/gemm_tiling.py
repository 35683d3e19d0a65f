"""How a matrix product is cut into blocks of threads: tiles of the result, and slices of the sum (see gemm.cuh).

Both depend on the shapes alone, so that the same sum is taken in the same order on every GPU that runs a version. The
products of a layer are worked out once, and kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from math import gcd

import numpy as np

from minicnn.backend.cuda.launcher import Launcher, aligned, ceil_div
from minicnn.backend.cuda.source import HOPPER

# Version -> rows and columns of a tile, threads of a block; of version 5 the largest, for it has others (hopper.cuh).
TILES = {"v1": (64, 64, 256), "v2": (64, 64, 256), "v3": (128, 64, 128), "v4": (128, 64, 128), "v5": (256, 128, 512)}
HEIGHTS = {256: 1.0, 128: 1.25}     # of version 5, and what a row of a tile costs: an estimate, not measured
WIDTHS = (128, 96, 64)      # the first only for what is read 16 bytes at a time: the rest would lack registers
STAGES, DEEP = 3, 32        # of version 5: in shared memory, and numbers of the sum in each
# A sum is cut into slices where its tiles are too few for a GPU: so that an H100, with this many multiprocessors and a
# block or two on each, would be done soonest.
MULTIPROCESSORS = 132
SLICE = 512                 # numbers in a slice at least
SLICES = 96                 # at most
BLOCKS = 4 * MULTIPROCESSORS    # of sliced products, at most: what they leave to be added up stays small
AROUND, ADDING = 16, 16     # what a block costs besides its steps of 32 numbers, in such steps; one of a slice, more


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

    @cached_property
    def rows(self) -> int:
        """Of a tile: of version 5's heights the one that is done soonest."""
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
        most = max(1, min(SLICES, self.depth // SLICE, BLOCKS // max(1, self._tiles)))
        at_once = MULTIPROCESSORS if self.rows == 256 else 2 * MULTIPROCESSORS

        def steps(slices: int) -> int:
            return ceil_div(self._tiles * slices, at_once) * (
                ceil_div(self.depth, slices * DEEP) + AROUND + ADDING * (slices > 1))

        best = min(range(1, most + 1), key=steps)
        return ceil_div(self.depth, aligned(ceil_div(self.depth, best), DEEP))

    @cached_property
    def slice(self) -> int:
        """Numbers of the sum in a slice, a multiple of 32."""
        return aligned(ceil_div(self.depth, self.slices), DEEP)

    @cached_property
    def grid(self) -> tuple[int, int, int]:
        return (ceil_div(self.M, self.rows), ceil_div(self.N, self.columns), self.slices * self.groups)

    @cached_property
    def partial(self) -> tuple[int, ...]:
        """The shape of what the slices leave to be added up: nothing if there is one."""
        return (self.slices if self.slices > 1 else 0, self.M * self.N * self.groups)

    @cached_property
    def most_partial(self) -> int:
        """Numbers that slices leave at most, here or with fewer images: what a work space must hold."""
        if self.depth < 2 * SLICE:
            return 0
        tall, wide, _ = TILES[self.version]
        return min(BLOCKS * tall * wide, SLICES * self.M * self.N * self.groups)

    @cached_property
    def options(self) -> tuple[str, ...]:
        """Of the compiler, for version 5: its tiles and ways to read are compiled apart."""
        if self.version != "v5":
            return ()
        return (f"-DROWS={self.rows}", f"-DCOLUMNS={self.columns}", f"-DPACKED={int(self.packs)}", HOPPER)

    def shared(self, products: str) -> int:
        """Bytes that version 5 takes: stages, 16 for each row of both tiles, and a margin, to begin at a multiple of
        1,024."""
        if self.version != "v5":
            return 0
        rows, size = self.rows + self.columns, np.dtype("f4" if products == "Tf32" else "f2").itemsize
        return rows * (STAGES * DEEP * size + 16) + 1024


@cache
def linear_products(x_shape, w_shape, version: str, packs: bool = True) -> dict[str, Product]:
    """Of a fully connected layer's three passes."""
    (N, I), O = x_shape, w_shape[1]                                                                 # noqa: E741
    sizes = {"forward": (N, O, I), "backward_data": (N, I, O), "backward_weights": (I, O, N)}
    return {operation: Product(version, *size, packs=packs) for operation, size in sizes.items()}


class ConvShape:
    """The numbers of one convolution: its matrix products, and what the kernels call Geometry."""

    def __init__(self, x_shape, w_shape, stride, pads, groups):
        (N, H, W, C), (R, S, D, K), (top, left, bottom, right) = x_shape, w_shape, pads
        P, Q = (top + H + bottom - R) // stride[0] + 1, (left + W + right - S) // stride[1] + 1
        self.numbers = {"N": N, "C": C, "K": K, "R": R, "G": groups, "H": H, "W": W, "P": P, "Q": Q, "S": S, "D": D,
                         "L": K // groups, "stride_h": stride[0], "stride_w": stride[1], "top": top, "left": left}
        self.pixels, self.taps = N * P * Q, R * S * D

    @cache                                                  # noqa: B019   as long-lived as the layer's shapes
    def products(self, version: str, packs: bool = True) -> dict[str, Product]:
        """Of the three passes."""
        g, pixels, taps = self.numbers, self.pixels, self.taps
        D, L = g["D"], g["L"]
        sizes = {"forward": (pixels, L, taps),
                 "backward_data": (g["N"] * g["H"] * g["W"], D, taps // D * L),
                 "backward_weights": (taps, L, pixels)}
        if version == "v1":
            sizes["backward_data"] = (pixels, taps, L)
        return {operation: Product(version, *size, g["G"], packs) for operation, size in sizes.items()}

    @cache                                                  # noqa: B019
    def geometry(self, operation: str, version: str, packs: bool) -> dict[str, int]:
        """What the kernels call Geometry, with the order in which they go through taps: in version 5, with so many
        channels at a time that a tile's pixels stay in the cache until all taps have read them (conv.cuh)."""
        channels = self.numbers["L" if operation == "backward_data" else "D"]
        together = gcd(channels, DEEP)
        run = together if version == "v5" and packs and together >= 8 else channels
        return self.numbers | {"run": run, "turn": run * self.numbers["R"] * self.numbers["S"]}

    def windows(self, version: str) -> tuple[int, ...]:
        """The shape of X, which exists in version 1 only."""
        return (self.numbers["G"] if version == "v1" else 0, self.pixels, self.taps)

    def packs(self, gpu: Launcher, *arrays) -> int:
        """Whether channels and kernels of a group come 16 bytes at a time."""
        return gpu.packs(self.numbers["D"], *arrays) & gpu.packs(self.numbers["L"], *arrays)


conv_shape = cache(ConvShape)
