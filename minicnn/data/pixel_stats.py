"""Sums over the pixels of many images, from which their mean image and the covariance of their colours follow.

Integers, so they are exact, and do not depend on the order of the images or on the number of threads.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.cpu.compiling import kernel_in_order

RUN = 4096                     # pixels whose products are summed in 32 bits: 4096 * 255**2 < 2**32


@kernel_in_order
def _add(values, total, outer):
    """values uint8 (P * 3), one image; total uint32 (P * 3); outer int64 (6): RR GG BB RG RB GB."""
    pixels = values.size // 3
    for first in range(0, pixels, RUN):
        rr = gg = bb = rg = rb = gb = np.uint32(0)
        for p in range(min(RUN, pixels - first)):
            at = np.uint64(3 * (first + p))             # unsigned, or the loop would not become vector instructions
            r, g, b = np.uint32(values[at]), np.uint32(values[at + np.uint64(1)]), np.uint32(values[at + np.uint64(2)])
            rr += r * r
            gg += g * g
            bb += b * b
            rg += r * g
            rb += r * b
            gb += g * b
        outer[0] += np.int64(rr)
        outer[1] += np.int64(gg)
        outer[2] += np.int64(bb)
        outer[3] += np.int64(rg)
        outer[4] += np.int64(rb)
        outer[5] += np.int64(gb)
    for i in range(values.size):
        total[np.uint64(i)] += values[np.uint64(i)]


class PixelStats:
    """The sums over `count` images of shape (A, B, 3)."""

    def __init__(self, shape: tuple[int, int, int]):
        self.total = np.zeros(shape, np.uint32)          # overflows beyond 16.8 million images
        self.products = np.zeros(6, np.int64)            # of RR, GG, BB, RG, RB, GB
        self.count = 0

    def add(self, image: np.ndarray) -> None:
        """Add one image, uint8 (A, B, 3). Releases the GIL."""
        _add(np.ascontiguousarray(image).reshape(-1), self.total.reshape(-1), self.products)
        self.count += 1

    def merge(self, total: np.ndarray, products: np.ndarray, count: int) -> None:
        """Add the sums over other images."""
        self.total += total
        self.products += products
        self.count += int(count)

    @property
    def mean(self) -> np.ndarray:
        """float32 (A, B, 3), 0..255."""
        return (self.total / self.count).astype(np.float32)

    @property
    def rgb(self) -> np.ndarray:
        """int64 (3,), the sum of each colour over all pixels of all images."""
        return self.total.sum(axis=(0, 1), dtype=np.int64)

    @property
    def outer(self) -> np.ndarray:
        """int64 (3, 3), the sum of x x^T over all pixels x."""
        rr, gg, bb, rg, rb, gb = self.products.tolist()
        return np.array([[rr, rg, rb], [rg, gg, gb], [rb, gb, bb]], np.int64)

    @property
    def pixels(self) -> int:
        return self.count * self.total.shape[0] * self.total.shape[1]
